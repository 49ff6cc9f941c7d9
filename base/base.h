/*
 * What everything stands on: fixed-width types, address types, bit helpers.
 *
 * Freestanding: includes nothing that needs an operating system.
 */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t gpa_t; /* guest-physical address: what a bus carries */
typedef uint64_t gva_t; /* guest-virtual (linear) address: what paging translates */

#define KiB ((uint64_t)1 << 10)
#define MiB ((uint64_t)1 << 20)
#define GiB ((uint64_t)1 << 30)

#define NS_PER_SEC 1000000000ull
#define NS_PER_MS 1000000ull
#define NS_PER_US 1000ull

#define BIT(n) (1ull << (n))
#define BITS(hi, lo) ((~0ull >> (63 - (hi))) & (~0ull << (lo)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

static inline uint64_t bits_get(uint64_t v, unsigned hi, unsigned lo)
{
    return (v & BITS(hi, lo)) >> lo;
}

static inline uint64_t align_down(uint64_t v, uint64_t a)
{
    return v & ~(a - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t a)
{
    return (v + a - 1) & ~(a - 1);
}

/* The low `size` bytes (1..8) of a value. */
static inline uint64_t zext(uint64_t v, unsigned size)
{
    return size >= 8 ? v : v & ((1ull << (size * 8)) - 1);
}

/* Sign-extends the low `size` bytes (1..8) of a value. */
static inline int64_t sext(uint64_t v, unsigned size)
{
    unsigned shift = 64 - size * 8;

    return (int64_t)(v << shift) >> shift;
}

/* Little-endian access to unaligned memory; the host is x86-64. */
static inline uint16_t le16_get(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t le32_get(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t le64_get(const void *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline void le16_put(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void le32_put(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void le64_put(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

/* Big-endian: what networks and some formats speak. */
static inline uint16_t be16_get(const void *p)
{
    return __builtin_bswap16(le16_get(p));
}

static inline uint32_t be32_get(const void *p)
{
    return __builtin_bswap32(le32_get(p));
}

static inline uint64_t be64_get(const void *p)
{
    return __builtin_bswap64(le64_get(p));
}

static inline void be16_put(void *p, uint16_t v)
{
    le16_put(p, __builtin_bswap16(v));
}

static inline void be32_put(void *p, uint32_t v)
{
    le32_put(p, __builtin_bswap32(v));
}

static inline void be64_put(void *p, uint64_t v)
{
    le64_put(p, __builtin_bswap64(v));
}

/* The low `size` bytes (1, 2, 4, 8) at p, zero-extended. */
static inline uint64_t le_get(const void *p, unsigned size)
{
    uint64_t v = 0;

    memcpy(&v, p, size);
    return v;
}

static inline void le_put(void *p, uint64_t v, unsigned size)
{
    memcpy(p, &v, size);
}

#endif
