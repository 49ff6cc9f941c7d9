/*
 * The fuzzers' command line. See driver.h.
 */
#include "tests/fuzz/driver.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/host.h"

enum { INPUT_MAX = 65536 };

uint64_t next(struct source *s)
{
    uint64_t v = 0;

    if (!s->is_file)
        return rng_next(&s->rng);
    for (unsigned n = 0; n < 4 && s->left; n++, s->left--)
        v |= (uint64_t)*s->data++ << 8 * n;
    return v * 0x9e3779b97f4a7c15; /* small files decide much, too */
}

uint64_t below(struct source *s, uint64_t n)
{
    return (next(s) >> 16) % n;
}

void fuzz_failed(const struct fuzz_driver *d, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s: ", d->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; again: %s --case 0x%llx\n", d->name, (unsigned long long)d->seed);
    exit(1);
}

static void run(struct fuzz_driver *d)
{
    alarm(d->hang_seconds);
    d->run(d);
    alarm(0);
}

static void run_seed(struct fuzz_driver *d, uint64_t seed)
{
    d->seed = seed;
    d->from = (struct source){.rng = {seed}};
    run(d);
}

static int run_corpus(struct fuzz_driver *d, const char *path)
{
    FILE *file = fopen(path, "r");
    char line[256];
    unsigned count = 0;

    if (!file) {
        fprintf(stderr, "%s: %s: %s\n", d->name, path, strerror(errno));
        return 1;
    }
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#' || line[0] == '\n')
            continue;
        run_seed(d, strtoull(line, NULL, 0));
        count++;
    }
    fclose(file);
    printf("%u cases of the corpus\n", count);
    return 0;
}

static int run_input(struct fuzz_driver *d, const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *file;

    if (d->run_file)
        return d->run_file(d, path);
    file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "%s: %s: %s\n", d->name, path, strerror(errno));
        return 1;
    }
    d->from =
        (struct source){.data = data, .left = fread(data, 1, sizeof data, file), .is_file = true};
    fclose(file);
    run(d);
    return 0;
}

static void hung(int signal)
{
    static const char text[] = "a case hangs\n";

    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(2);
    abort();
}

int fuzz_main(struct fuzz_driver *d, int argc, char **argv)
{
    uint64_t seconds = 0, cases = 0, seed = 1, done = 0, end;

    signal(SIGALRM, hung);
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t number = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seconds")) {
            seconds = number;
        } else if (!strcmp(argv[i], "--cases")) {
            cases = number;
        } else if (!strcmp(argv[i], "--seed")) {
            seed = number;
        } else if (!strcmp(argv[i], "--case")) {
            d->is_again = true;
            run_seed(d, number);
            return 0;
        } else if (!strcmp(argv[i], "--corpus")) {
            return run_corpus(d, argv[i + 1]);
        } else if (!strcmp(argv[i], "--input")) {
            return run_input(d, argv[i + 1]);
        }
    }
    end = host_monotonic_ns() + seconds * NS_PER_SEC;
    for (struct rng seeds = {seed}; done < cases || (seconds && host_monotonic_ns() < end); done++)
        run_seed(d, rng_next(&seeds));
    printf("%llu cases from seed %llu\n", (unsigned long long)done, (unsigned long long)seed);
    return 0;
}
