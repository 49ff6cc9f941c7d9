/*
 * For vec_selftest.c: random processor states, and running instructions from
 * one on the host processor and through their handlers (vec_selftest_run.c).
 */
#ifndef TESTS_INSN_VEC_SELFTEST_H
#define TESTS_INSN_VEC_SELFTEST_H

#include "cpu/x86/decode.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/vec/vec.h"

#define GUEST_BUFFER 0x200000ull /* two pages, and one that is not present */
#define BUFFER_BYTES (2 * PAGE_SIZE)
#define SEQUENCE_MAX 6

struct state {
    struct x86_xsave x;
    uint64_t gpr[16];
    uint64_t flags;
};

struct runner {
    bool is_32;
    uint64_t xcr0; /* the host's, of the components that are compared */
    struct x86_vcpu *cpu;
    uint8_t *host_buffer, *guest_buffer;
    int host_vector;     /* of the fault that ended host_run, or -1 */
    uint32_t host_mxcsr; /* at that fault */
};
extern struct runner runner;

void random_seed(uint64_t seed);
uint64_t rnd(void);
unsigned below(unsigned n);
/* Elements that mean something: zeroes, ones, special floating-point values. */
void fill(void *p, size_t bytes);
void random_state(struct state *s);

/* 0; 77 when this host cannot; 1 on failure. */
int runner_start(bool is_32);
void runner_stop(void);

/* Both run all the instructions in those bytes and change s. */
void host_run(struct state *s, const uint8_t *bytes, unsigned length);
/* Returns the vector of the fault, or -1. */
int guest_run(struct state *s, const uint8_t *bytes, unsigned length);

#endif
