/*
 * The benchmark's guest program: one static program that runs as the first
 * process of a guest, and as an ordinary program on the host, and prints the
 * time that one operation of each row takes.
 *
 * A row does its work in units of the same operations on the same data, so
 * that each unit gives the same checksum whatever runs it and however often.
 * Rows share nothing: each runs in a process of its own, with one thread.
 */
#ifndef TESTS_BENCH_GUEST_BENCH_H
#define TESTS_BENCH_GUEST_BENCH_H

#include <stddef.h>
#include <stdint.h>

/* What a row has prepared. */
struct work {
    void *data;
    uint64_t operations; /* in one unit */
    const char *note;    /* a word to print with the row, or null */
};

struct row {
    const char *name;
    void (*prepare)(struct work *work);
    /* Does one unit; returns its checksum. */
    uint64_t (*unit)(struct work *work);
};

/* Each ends with a row without a name. */
extern const struct row integer_rows[], call_rows[], float_rows[], hash_rows[], memory_rows[],
    system_rows[];

/* Takes a copy of ROW measured by itself and one on each of two processors. */
int copies_measure(const struct row *row, uint64_t target_ns);

uint64_t now_ns(void);

/* Zeroed memory of whole pages, of 4 KiB each even where the kernel prefers
 * huge ones, so that host and guest walk the same tables. Ends the row when
 * there is none. */
void *pages_allocate(size_t bytes);

/* Ends the row's process with a message. */
void fail(const char *why) __attribute__((noreturn));

/* Keeps the calling process on one processor, as in a guest that has one. */
void stay_on_cpu(int cpu);

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift
 * generators, scrambled", 2016. */
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1d;
}

static inline uint64_t fold(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * 0x9e3779b97f4a7c15 + (sum >> 29);
}

/* Words of a small vocabulary, the frequent ones more often: packs like prose. */
void text_fill(char *text, size_t bytes);

#endif
