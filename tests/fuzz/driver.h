/*
 * What the fuzzers of devices and formats share: where a case's decisions come
 * from, how cases are chosen, and how a failure is told.
 *
 * usage: NAME [--seconds S] [--cases N] [--seed SEED]
 *        NAME --case SEED         one case again, as a failure names it
 *        NAME --corpus FOLDER     the inputs there; of the file "seeds" the cases
 *                                 listed in it (# begins a comment)
 *        NAME --input FILE        what the file's bytes say, as a fuzzer makes it
 *
 * Exit status: 0, or 1 and a line that says how to have the failure again.
 * Threading: one; a signal ends a case that hangs.
 */
#ifndef TESTS_FUZZ_DRIVER_H
#define TESTS_FUZZ_DRIVER_H

#include "tests/fuzz/fuzz.h"

/* A seed, or a file until it ends. */
struct source {
    struct rng rng;
    const uint8_t *data;
    size_t left;
    bool is_file;
};

uint64_t next(struct source *s);
/* 0 to n - 1 */
uint64_t below(struct source *s, uint64_t n);
#define PICK(s, array) ((array)[below(s, ARRAY_SIZE(array))])
static inline bool source_has_ended(const struct source *s)
{
    return s->is_file && !s->left;
}

/* The first member of a fuzzer's own struct. */
struct fuzz_driver {
    const char *name;
    unsigned hang_seconds;
    void (*run)(struct fuzz_driver *d); /* one case, from `from` */
    /* --input's file, if its bytes are not decisions; exit status. May be NULL. */
    int (*run_file)(struct fuzz_driver *d, const char *path);

    /* Of the case in hand: */
    struct source from;
    uint64_t seed;
    const char *input; /* its file */
    bool is_again;     /* it is --case's */
};

/* The same on both machines of a case, f->a and f->b; `h` in it is the one. */
#define BOTH(f, call)                                                                              \
    do {                                                                                           \
        struct harness *h = (f)->a;                                                                \
        call;                                                                                      \
        h = (f)->b;                                                                                \
        call;                                                                                      \
    } while (0)

/* Each fuzzer's own. Called once. */
struct fuzz_driver *fuzz_driver(void);
_Noreturn __attribute__((format(printf, 2, 3))) void fuzz_failed(const struct fuzz_driver *d,
                                                                 const char *format, ...);

#endif
