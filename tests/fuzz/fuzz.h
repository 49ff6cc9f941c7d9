/*
 * The hostile-guest fuzzer: what its parts share. guest_fuzz.c runs cases,
 * guest_code.c makes code, guest_state.c makes processors and the tables in
 * memory that they stand on.
 *
 * Everything comes from one seed, so that a case can be had again.
 * Threading: one thread.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "base/base.h"
#include "cpu/x86/vcpu.h"

struct rng {
    uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* 0 to n - 1 */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
    return rng_next(r) % n;
}

/* True in one case of n. */
static inline bool rng_one_in(struct rng *r, unsigned n)
{
    return rng_next(r) % n == 0;
}

#define RNG_PICK(r, array) ((array)[rng_below(r, ARRAY_SIZE(array))])

/* Where things are in the guest's memory, which is as small as the board takes. */
enum fuzz_layout {
    FUZZ_RAM = 2 << 20,
    FUZZ_GDT = 0x1000, /* 64 descriptors */
    FUZZ_LDT = 0x1800,
    FUZZ_IDT = 0x2000,
    FUZZ_TSS = 0x3000, /* 8 of 512 bytes; the I/O bitmap comes after */
    FUZZ_TABLES = 0x10000,
    FUZZ_TABLE_PAGES = 16,
    FUZZ_CODE = 0x20000,
    FUZZ_CODE_END = 0x30000,
    FUZZ_STACK = 0x40000,
    FUZZ_STACK_END = 0x48000,
    FUZZ_DATA = 0x50000,
    FUZZ_DATA_END = 0x58000,
};

enum fuzz_mode {
    FUZZ_REAL,
    FUZZ_PROT16,
    FUZZ_PROT32,
    FUZZ_V86,
    FUZZ_COMPAT,
    FUZZ_LONG,
    FUZZ_MODES
};

extern const char *const fuzz_mode_name[FUZZ_MODES];

/* ---- guest_code.c ---- */

/* Fills memory with instructions for a code size of 16, 32 or 64. real: bytes
 * of a real program to be mutated, or NULL. */
void fuzz_code(struct rng *r, uint8_t *at, size_t bytes, unsigned bits, const uint8_t *real,
               size_t real_bytes);

/* ---- guest_state.c ---- */

/* A value that is likely to be a limit of something, or an address of it. */
uint64_t fuzz_value(struct rng *r);
/* An address where a device answers, or an edge of memory. */
uint64_t fuzz_device_address(struct rng *r);
/* Tables for all modes. */
void fuzz_memory(struct rng *r, uint8_t *ram, enum fuzz_mode mode);
/* A state that a processor could be in in that mode; ram as fuzz_memory left it. */
void fuzz_cpu(struct rng *r, struct x86_vcpu *c, const uint8_t *ram, enum fuzz_mode mode);

#endif
