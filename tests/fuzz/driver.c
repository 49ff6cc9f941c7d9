/*
 * The fuzzers' command line. See driver.h.
 */
#include "tests/fuzz/driver.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

/* libFuzzer takes an exit for a mistake of the fuzzer's. */
static void abort_for_fuzzer(void)
{
#ifdef FUZZ_LIBFUZZER
    abort();
#endif
}

void fuzz_failed(const struct fuzz_driver *d, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s: ", d->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    if (d->from.is_file)
        fprintf(stderr, "; again: %s --input %s\n", d->name, d->input ? d->input : "FILE");
    else
        fprintf(stderr, "; again: %s --case 0x%llx\n", d->name, (unsigned long long)d->seed);
    abort_for_fuzzer();
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

/* True: it could be read. */
static bool run_seeds(struct fuzz_driver *d, const char *path, unsigned *count)
{
    FILE *file = fopen(path, "r");
    char line[256];

    if (!file)
        return false;
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#' || line[0] == '\n')
            continue;
        run_seed(d, strtoull(line, NULL, 0));
        ++*count;
    }
    fclose(file);
    return true;
}

static bool run_input(struct fuzz_driver *d, const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *file;

    if (d->run_file)
        return d->run_file(d, path) == 0;
    file = fopen(path, "rb");
    if (!file)
        return false;
    d->from =
        (struct source){.data = data, .left = fread(data, 1, sizeof data, file), .is_file = true};
    fclose(file);
    run(d);
    return true;
}

static int tell_failure(const struct fuzz_driver *d, const char *path)
{
    fprintf(stderr, "%s: %s: %s\n", d->name, path, strerror(errno));
    return 1;
}

static int run_corpus(struct fuzz_driver *d, const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    unsigned count = 0;
    char name[4096];

    if (!folder)
        return tell_failure(d, path);
    while ((entry = readdir(folder))) {
        bool done;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        d->input = name;
        if (!strcmp(entry->d_name, "seeds"))
            done = run_seeds(d, name, &count);
        else
            done = ++count, run_input(d, name);
        if (!done)
            return tell_failure(d, name);
    }
    closedir(folder);
    printf("%u cases of the corpus\n", count);
    return 0;
}

static void hung(int signal)
{
    static const char text[] = "a case hangs\n";

    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(2);
    abort();
}

#ifdef FUZZ_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct fuzz_driver *d;

    if (!d)
        d = fuzz_driver();
    if (d->run_file) {
        char path[64];
        int fd = memfd_create("input", MFD_CLOEXEC);

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (write(fd, data, bytes) == (ssize_t)bytes)
            d->run_file(d, path);
        close(fd);
        return 0;
    }
    d->from = (struct source){.data = data, .left = bytes, .is_file = true};
    d->run(d);
    return 0;
}

#else

int main(int argc, char **argv)
{
    struct fuzz_driver *d = fuzz_driver();
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
            d->input = argv[i + 1];
            return run_input(d, argv[i + 1]) ? 0 : tell_failure(d, argv[i + 1]);
        }
    }
    end = host_monotonic_ns() + seconds * NS_PER_SEC;
    for (struct rng seeds = {seed}; done < cases || (seconds && host_monotonic_ns() < end); done++)
        run_seed(d, rng_next(&seeds));
    printf("%llu cases from seed %llu\n", (unsigned long long)done, (unsigned long long)seed);
    return 0;
}

#endif
