/*
 * A process that writes to a qcow2 image and flushes it is killed at any point:
 * what it knew to be flushed is there, and the image is not damaged.
 *
 * usage: img_kill [--rounds N] [--seed S]
 *
 * Each round makes an image, runs a process whose threads write, zero and flush,
 * kills it after a random time, checks the image with the layer's own check and
 * with qemu-img's (where it is installed), and compares all sectors with what may
 * be there. Each thread has sectors of its own; clusters are everybody's. What has
 * begun, what is done and what is flushed is in memory that outlives the process.
 *
 * Exit status: 0, or 1 and a line that says what is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/disk/layer.h"
#include "backend/disk/qcow2.h"
#include "base/host.h"
#include "tests/fuzz/fuzz.h"

enum { SECTOR = DISK_SECTOR_BYTES, THREADS = 3, SECTORS = 12000, OPS_MAX = 200000, LONGEST = 24 };

struct op {
    uint32_t first, count, stamp; /* every THREADS-th sector from first on; stamp 0: zeroes */
};

struct progress {
    _Atomic uint32_t begun[THREADS], done[THREADS], flushed[THREADS];
    struct op op[THREADS][OPS_MAX];
};

struct worker {
    struct thread thread;
    struct disk_layer *l;
    struct progress *progress;
    unsigned number;
    uint64_t seed;
};

static _Noreturn void failed(const char *what)
{
    fprintf(stderr, "img_kill: %s\n", what);
    exit(1);
}

static void fill(uint8_t *p, uint64_t sector, uint64_t stamp)
{
    for (unsigned n = 0; n < SECTOR; n += 8)
        le64_put(p + n, stamp ? stamp << 24 ^ sector ^ (uint64_t)n << 56 : 0);
}

/* ---- the process that is killed ---- */

static int do_op(struct disk_layer *l, const struct op *o)
{
    uint8_t data[SECTOR] __attribute__((aligned(SECTOR)));
    struct disk_span span = {data, SECTOR};
    int ret = 0;

    for (uint32_t n = 0; n < o->count && !ret; n++) {
        uint64_t sector = o->first + (uint64_t)n * THREADS;

        fill(data, sector, o->stamp);
        ret = o->stamp ? l->ops->write(l, sector * SECTOR, &span, 1, SECTOR)
                       : disk_layer_zero(l, sector * SECTOR, SECTOR);
    }
    return ret;
}

static int flush(struct worker *w)
{
    struct progress *p = w->progress;
    uint32_t done[THREADS];
    int ret;

    for (unsigned n = 0; n < THREADS; n++)
        done[n] = atomic_load(&p->done[n]);
    ret = w->l->ops->flush(w->l);
    for (unsigned n = 0; n < THREADS && !ret; n++) {
        uint32_t was = atomic_load(&p->flushed[n]);

        while (was < done[n] && !atomic_compare_exchange_weak(&p->flushed[n], &was, done[n]))
            ;
    }
    return ret;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct progress *p = w->progress;
    struct rng r = {w->seed};

    for (uint32_t n = 0; n < OPS_MAX; n++) {
        struct op *o = &p->op[w->number][n];
        uint32_t slot = (uint32_t)rng_below(&r, SECTORS / THREADS - LONGEST);

        *o = (struct op){.first = slot * THREADS + w->number,
                         .count = 1 + (uint32_t)rng_below(&r, LONGEST),
                         .stamp = rng_one_in(&r, 8) ? 0 : n + 1};
        atomic_store(&p->begun[w->number], n + 1);
        if (do_op(w->l, o))
            failed("a write has failed");
        atomic_store(&p->done[w->number], n + 1);
        if (rng_one_in(&r, 20) && flush(w))
            failed("a flush has failed");
    }
    return NULL;
}

static _Noreturn void run_child(const char *path, struct progress *p, uint64_t seed)
{
    struct disk_image_config config = {.path = path, .format = DISK_FORMAT_QCOW2};
    struct error err = {.text = ""};
    struct worker w[THREADS];
    struct disk_layer *l = disk_image_open(&config, NULL, &err);

    if (!l)
        failed(err.text);
    for (unsigned n = 0; n < THREADS; n++) {
        w[n] = (struct worker){.l = l, .progress = p, .number = n, .seed = seed + n};
        if (thread_start(&w[n].thread, "writer", work, &w[n]))
            failed("no thread");
    }
    for (unsigned n = 0; n < THREADS; n++)
        thread_join(&w[n].thread);
    exit(0);
}

/* ---- what is left ---- */

static bool is_allowed(const struct progress *p, uint64_t sector, const uint8_t *data)
{
    unsigned t = sector % THREADS;
    uint32_t flushed = atomic_load(&p->flushed[t]), begun = atomic_load(&p->begun[t]);
    uint8_t want[SECTOR];

    /* From the newest: any that was not flushed, or the last that was. */
    for (uint32_t n = begun; n--;) {
        const struct op *o = &p->op[t][n];

        if (sector < o->first || sector >= o->first + (uint64_t)o->count * THREADS)
            continue;
        fill(want, sector, o->stamp);
        if (!memcmp(want, data, SECTOR))
            return true;
        if (n < flushed)
            return false;
    }
    fill(want, sector, 0);
    return !memcmp(want, data, SECTOR);
}

static void check_sectors(const char *path, const struct progress *p)
{
    struct disk_image_config config = {.path = path, .format = DISK_FORMAT_QCOW2, .readonly = true};
    struct error err = {.text = ""};
    struct disk_layer *l = disk_image_open(&config, NULL, &err);
    uint8_t data[SECTOR];
    struct disk_span span = {data, SECTOR};

    if (!l)
        failed(err.text);
    for (uint64_t n = 0; n < SECTORS; n++) {
        if (l->ops->read(l, n * SECTOR, &span, 1, SECTOR))
            failed("a sector cannot be read");
        if (!is_allowed(p, n, data)) {
            fprintf(stderr, "img_kill: sector %llu has lost what was flushed\n",
                    (unsigned long long)n);
            exit(1);
        }
    }
    disk_layer_destroy(l);
}

static void print_line(void *ctx, const char *line)
{
    fprintf(stderr, "%s\n", line);
}

static void check_image(const char *path)
{
    struct qcow2_check check = {0};
    struct error err = {.text = ""};
    struct disk_layer *file = disk_file_open(path, true, DISK_WRITEBACK, NULL, &err), *l;
    char command[256];
    int status;

    l = file ? qcow2_open_to_check(file, path, &err) : NULL;
    if (!l || qcow2_check(l, QCOW2_REPAIR_NONE, &check, &err))
        failed(err.text);
    if (check.corruptions) {
        check.tell = print_line;
        qcow2_check(l, QCOW2_REPAIR_NONE, &check, &err);
        failed("the image is damaged");
    }
    disk_layer_destroy(l);
    /* 3: leaks; 127: it is not here. */
    snprintf(command, sizeof command, "qemu-img check -q -f qcow2 %s >&2 2>/dev/null", path);
    status = system(command);
    if (!WIFEXITED(status) ||
        (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3 && WEXITSTATUS(status) != 127))
        failed("qemu-img finds the image damaged");
}

static void make(const char *path, struct rng *r)
{
    static const unsigned bits[] = {9, 12, 16, 16};
    struct qcow2_options o = {.virtual_bytes = SECTORS * SECTOR,
                              .version = rng_one_in(r, 3) ? 2 : 3,
                              .cluster_bits = RNG_PICK(r, bits),
                              .refcount_bits = 16};
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct error err = {.text = ""};
    struct disk_layer *file = fd < 0 ? NULL : disk_file_from_fd(fd, 0);

    if (!file)
        failed("no file");
    if (o.version == 3 && rng_one_in(r, 3)) {
        o.extended_l2 = true;
        o.cluster_bits = rng_one_in(r, 2) ? 14 : 16;
    }
    if (qcow2_create(file, &o, &err))
        failed(err.text);
    disk_layer_destroy(file);
}

static void run_round(const char *path, struct progress *p, struct rng *r)
{
    uint64_t seed = rng_next(r);
    pid_t child;
    int status;

    memset(p, 0, offsetof(struct progress, op));
    make(path, r);
    child = fork();
    if (child == 0)
        run_child(path, p, seed);
    if (child < 0)
        failed("cannot fork");
    usleep((useconds_t)(1000 + rng_below(r, rng_one_in(r, 4) ? 300000 : 60000)));
    kill(child, SIGKILL);
    if (waitpid(child, &status, 0) < 0 || (WIFEXITED(status) && WEXITSTATUS(status)))
        failed("the writer has failed");
    check_image(path);
    check_sectors(path, p);
}

int main(int argc, char **argv)
{
    struct progress *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t rounds = 20, flushed = 0;
    struct rng r = {1};
    char path[] = "/tmp/vireo-kill-XXXXXX";
    int fd = mkstemp(path);

    if (p == MAP_FAILED || fd < 0)
        failed("no memory or no file");
    close(fd);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--rounds"))
            rounds = strtoull(argv[i + 1], NULL, 0);
        else if (!strcmp(argv[i], "--seed"))
            r.state = strtoull(argv[i + 1], NULL, 0);
    }
    for (uint64_t n = 0; n < rounds; n++) {
        run_round(path, p, &r);
        for (unsigned t = 0; t < THREADS; t++)
            flushed += atomic_load(&p->flushed[t]);
    }
    unlink(path);
    printf("%llu kills, %llu operations had been flushed\n", (unsigned long long)rounds,
           (unsigned long long)flushed);
    if (!flushed)
        failed("nothing was ever flushed: the test says nothing");
    return 0;
}
