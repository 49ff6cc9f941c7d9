/*
 * Runs the rows: as process 1 of a guest, as a program of the host, or as the
 * tool that times a program inside a guest.
 *
 * usage: bench                   all rows, or those that the environment names
 *        bench time NAME COMMAND [ARGUMENT...]
 *        bench exit              ends at once: what the row of exec starts
 *
 * Environment (Linux passes NAME=value of its command line to process 1):
 *   BENCH_ROWS     names, divided by commas; "none" for a boot alone
 *   BENCH_MS       how long one measurement lasts (200)
 *   BENCH_REPEATS  how many measurements there are of a row (3)
 *   BENCH_COPIES   names of rows that run once and twice at the same time
 *
 * Prints lines of
 *   BENCH START
 *   BEGIN name
 *   ROW name ns-of-the-best ns-of-the-mean checksum note
 *   COPIES name seconds-of-one seconds-of-two
 *   LOST name why
 *   BENCH END
 */
#include "bench.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { ROW_PATIENCE_S = 60 };

static const struct row *const all_rows[] = {integer_rows, call_rows,   float_rows,
                                             hash_rows,    memory_rows, system_rows};

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void fail(const char *why)
{
    printf("%s\n", why);
    fflush(stdout);
    _exit(1);
}

void *pages_allocate(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        fail("no memory");
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    memset(memory, 0, bytes);
    return memory;
}

void stay_on_cpu(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

void text_fill(char *text, size_t bytes)
{
    enum { WORDS = 1500, LONGEST = 12 };
    uint64_t state = 88172645463325252;
    char words[WORDS][LONGEST];
    size_t lengths[WORDS];

    for (size_t i = 0; i < WORDS; i++) {
        lengths[i] = 2 + random_next(&state) % (LONGEST - 3);
        for (size_t j = 0; j < lengths[i]; j++)
            words[i][j] = (char)('a' + (random_next(&state) % 26 & random_next(&state)));
        words[i][lengths[i]++] = i % 16 ? ' ' : '\n';
    }
    for (size_t done = 0; done < bytes;) {
        uint64_t random = random_next(&state);
        /* The product of two is small more often than not. */
        size_t word = ((random & 0xffff) * (random >> 48) >> 16) * WORDS >> 16;
        size_t length = lengths[word] < bytes - done ? lengths[word] : bytes - done;

        memcpy(text + done, words[word], length);
        done += length;
    }
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : otherwise;
}

static int named_in(const char *list, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = list; (at = strstr(at, name)); at += length) {
        if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length]))
            return 1;
    }
    return 0;
}

/* ---- one row ---- */

static uint64_t units_time(const struct row *row, struct work *work, uint64_t units, uint64_t sum)
{
    uint64_t start = now_ns();

    for (uint64_t i = 0; i < units; i++) {
        if (row->unit(work) != sum) {
            printf("LOST %s its checksum changed from one unit to another\n", row->name);
            fflush(stdout);
            _exit(1);
        }
    }
    return now_ns() - start;
}

static void row_measure(const struct row *row)
{
    uint64_t target_ns = setting("BENCH_MS", 200) * 1000000, repeats = setting("BENCH_REPEATS", 3);
    uint64_t units = 1, elapsed, sum, best = UINT64_MAX, all = 0;
    double operations;
    struct work work = {0};

    row->prepare(&work);
    /* The first unit is cold; then as many as last long enough. */
    sum = row->unit(&work);
    while ((elapsed = units_time(row, &work, units, sum)) < target_ns * 3 / 4) {
        uint64_t more = elapsed ? (units * target_ns + elapsed - 1) / elapsed : units * 100;

        if (more <= units)
            break;
        units = more < units * 100 ? more : units * 100;
    }
    /* The host may look at what it does to this machine from here on. */
    printf("BEGIN %s\n", row->name);
    fflush(stdout);
    for (uint64_t i = 0; i < repeats; i++) {
        elapsed = units_time(row, &work, units, sum);
        all += elapsed;
        best = elapsed < best ? elapsed : best;
    }
    operations = (double)(units * work.operations);
    printf("ROW %s %.5g %.5g %016llx %s\n", row->name, (double)best / operations,
           (double)all / (operations * (double)repeats), (unsigned long long)sum,
           work.note ? work.note : "-");
    fflush(stdout);
}

/* A process for each row: one that crashes takes no other with it. */
static void row_run(const struct row *row, int copies)
{
    int status = 0;
    pid_t child = fork();

    if (child < 0) {
        printf("LOST %s fork failed\n", row->name);
        return;
    }
    if (child == 0) {
        setpgid(0, 0);
        alarm(ROW_PATIENCE_S);
        if (copies)
            _exit(copies_measure(row, setting("BENCH_MS", 200) * 1000000));
        row_measure(row);
        _exit(0);
    }
    while (waitpid(child, &status, 0) != child)
        ;
    kill(-child, SIGKILL); /* what the row may have left behind */
    if (WIFSIGNALED(status))
        printf("LOST %s signal %d\n", row->name, WTERMSIG(status));
    else if (WEXITSTATUS(status))
        printf("LOST %s status %d\n", row->name, WEXITSTATUS(status));
    fflush(stdout);
}

/* ---- programs ---- */

/* Prints PROGRAM name seconds status after what the program prints. On the host
 * (BENCH_NATIVE) that is processor time: other work there does not count. */
static int program_time(const char *name, char **command)
{
    struct rusage usage;
    int status = 0;
    uint64_t start;
    double seconds;
    pid_t child;

    printf("\nBEGIN %s\n", name);
    fflush(stdout);
    start = now_ns();
    child = fork();
    if (child == 0) {
        execvp(command[0], command);
        _exit(127);
    }
    while (child > 0 && waitpid(child, &status, 0) != child)
        ;
    seconds = (double)(now_ns() - start) * 1e-9;
    if (getenv("BENCH_NATIVE") && !getrusage(RUSAGE_CHILDREN, &usage))
        seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                  (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
    printf("\nPROGRAM %s %.4f %d\n", name, seconds, status);
    return 0;
}

/* ---- process 1 ---- */

static void guest_prepare(void)
{
    mkdir("/proc", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
}

int main(int count, char **words)
{
    const char *rows = getenv("BENCH_ROWS"), *copies = getenv("BENCH_COPIES");

    if (count > 1 && !strcmp(words[1], "exit"))
        _exit(0);
    if (count > 3 && !strcmp(words[1], "time"))
        return program_time(words[2], words + 3);
    if (getpid() == 1)
        guest_prepare();
    printf("\nBENCH START\n");
    fflush(stdout);
    for (size_t i = 0; i < sizeof(all_rows) / sizeof(all_rows[0]); i++) {
        for (const struct row *row = all_rows[i]; row->name; row++) {
            if (!rows || !*rows || named_in(rows, row->name))
                row_run(row, 0);
            if (copies && named_in(copies, row->name))
                row_run(row, 1);
        }
    }
    printf("BENCH END\n");
    fflush(stdout);
    if (getpid() == 1) {
        tcdrain(1);
        reboot(RB_POWER_OFF);
    }
    return 0;
}
