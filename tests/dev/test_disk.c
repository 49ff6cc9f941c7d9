/*
 * Disk back ends: files, overlays, the queue in both kinds of time, faults,
 * cancelling, power cuts.
 */
#include "backend/disk/disk.h"
#include "tests/dev/disk_shim.h"
#include "tests/dev/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vm/internal.h"

enum { SECTOR = DISK_SECTOR_BYTES, DISK_BYTES = 256 * 1024 };

struct io {
    struct disk_request r;
    struct disk_span span[8];
    unsigned done;
    struct io *then; /* submitted when this is done */
    struct disk *disk;
};

static struct vm *make_vm(bool deterministic)
{
    struct vm_config config = {.deterministic = deterministic, .seed = 1};
    struct error err = {.text = ""};
    struct vm *vm = vm_create(&config, &err);

    if (!vm)
        fail_msg("%s", err.text);
    return vm;
}

static void io_done(struct disk_request *r)
{
    struct io *io = r->ctx;

    io->done++;
    if (io->then)
        disk_submit(io->then->disk, &io->then->r);
}

static void io_init(struct io *io, struct disk *d, enum disk_op op, uint64_t offset, void *data,
                    size_t bytes)
{
    memset(io, 0, sizeof *io);
    io->disk = d;
    io->span[0] = (struct disk_span){data, bytes};
    io->r = (struct disk_request){
        .op = op,
        .offset = offset,
        .bytes = bytes,
        .spans = io->span,
        .span_count = data ? 1 : 0,
        .done = io_done,
        .ctx = io,
    };
}

static int run(struct vm *vm, struct disk *d, enum disk_op op, uint64_t offset, void *data,
               size_t bytes)
{
    struct io io;
    bool plugged = offset / SECTOR & 1;

    io_init(&io, d, op, offset, data, bytes);
    vm_lock(vm);
    if (plugged)
        disk_plug(d);
    disk_submit(d, &io.r);
    assert_int_equal(io.done, 0); /* never from inside */
    if (plugged)
        disk_poll(d);
    disk_drain(d);
    vm_unlock(vm);
    assert_int_equal(io.done, 1);
    assert_int_equal(disk_in_flight(d), 0);
    return io.r.result;
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(harness_random(&seed) >> 32);
}

/* ---- files ---- */

static char *make_file(uint64_t bytes)
{
    char *path = strdup("/tmp/vireo-disk-XXXXXX");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    close(fd);
    return path;
}

static void remove_file(char *path)
{
    unlink(path);
    free(path);
}

static struct disk *open_or_fail(struct vm *vm, const struct disk_config *c)
{
    struct error err = {.text = ""};
    struct disk *d = disk_open(vm, c, &err);

    if (!d)
        fail_msg("%s", err.text);
    return d;
}

static void expect_refused(struct vm *vm, const struct disk_config *c, const char *words)
{
    struct error err = {.text = ""};

    assert_null(disk_open(vm, c, &err));
    if (!strstr(err.text, words))
        fail_msg("'%s' is not in '%s'", words, err.text);
    assert_null(strchr(err.text, '\n'));
}

static void files(void **state)
{
    static const enum disk_cache caches[] = {DISK_WRITEBACK, DISK_NONE, DISK_UNSAFE};
    static uint8_t a[64 * SECTOR] __attribute__((aligned(4096)));
    static uint8_t b[64 * SECTOR + 1] __attribute__((aligned(4096)));

    for (unsigned deterministic = 0; deterministic < 2; deterministic++) {
        for (size_t n = 0; n < ARRAY_SIZE(caches); n++) {
            char *path = make_file(DISK_BYTES);
            struct vm *vm = make_vm(deterministic);
            struct disk_config c = {.path = path, .cache = caches[n], .serial = "abc"};
            struct error err = {.text = ""};
            struct disk *d = disk_open(vm, &c, &err);
            struct io io;

            if (!d && caches[n] == DISK_NONE && strstr(err.text, "O_DIRECT")) {
                vm_destroy(vm);
                remove_file(path);
                continue; /* such a file system */
            }
            assert_non_null(d);
            assert_int_equal(disk_bytes(d), DISK_BYTES);
            assert_string_equal(disk_serial(d), "abc");
            fill(a, sizeof a, 7);
            assert_int_equal(run(vm, d, DISK_WRITE, 8 * SECTOR, a, sizeof a), 0);
            assert_int_equal(run(vm, d, DISK_FLUSH, 0, NULL, 0), 0);
            memset(b, 0, sizeof b);
            assert_int_equal(run(vm, d, DISK_READ, 8 * SECTOR, b, sizeof a), 0);
            assert_memory_equal(a, b, sizeof a);
            /* To an odd address, and in pieces. */
            memset(b, 0, sizeof b);
            assert_int_equal(run(vm, d, DISK_READ, 8 * SECTOR, b + 1, sizeof a), 0);
            assert_memory_equal(a, b + 1, sizeof a);
            io_init(&io, d, DISK_READ, 9 * SECTOR, b, 2 * SECTOR);
            io.span[0] = (struct disk_span){b + 3, 5};
            io.span[1] = (struct disk_span){b + 100, 0};
            io.span[2] = (struct disk_span){b + 600, SECTOR - 5};
            io.span[3] = (struct disk_span){b + 2048, 2 * SECTOR};
            io.r.span_count = 4;
            vm_lock(vm);
            disk_submit(d, &io.r);
            disk_drain(d);
            vm_unlock(vm);
            assert_int_equal(io.r.result, 0);
            assert_memory_equal(b + 3, a + SECTOR, 5);
            assert_memory_equal(b + 600, a + SECTOR + 5, SECTOR - 5);
            assert_memory_equal(b + 2048, a + 2 * SECTOR, SECTOR);
            /* Zeroes and discards. */
            assert_int_equal(run(vm, d, DISK_WRITE_ZEROES, 10 * SECTOR, NULL, 3 * SECTOR), 0);
            io.r.bytes = 3 * SECTOR;
            assert_int_equal(run(vm, d, DISK_WRITE_ZEROES, 10 * SECTOR, NULL, 0), 0);
            assert_int_equal(run(vm, d, DISK_DISCARD, 20 * SECTOR, NULL, 0), 0);
            /* Outside. */
            assert_int_equal(run(vm, d, DISK_READ, DISK_BYTES, b, SECTOR), -EINVAL);
            assert_int_equal(run(vm, d, DISK_READ, UINT64_MAX - 511, b, SECTOR), -EINVAL);
            disk_destroy(d);
            vm_destroy(vm);
            remove_file(path);
        }
    }
}

static void file_zero_and_discard(void **state)
{
    char *path = make_file(DISK_BYTES);
    struct vm *vm = make_vm(false);
    struct disk_config c = {.path = path};
    struct disk *d = open_or_fail(vm, &c);
    uint8_t *a = malloc(DISK_BYTES), *b = malloc(DISK_BYTES);
    struct io io;

    fill(a, DISK_BYTES, 3);
    assert_int_equal(run(vm, d, DISK_WRITE, 0, a, DISK_BYTES), 0);
    io_init(&io, d, DISK_WRITE_ZEROES, 8192, NULL, 3 * SECTOR);
    vm_lock(vm);
    disk_submit(d, &io.r);
    disk_drain(d);
    io_init(&io, d, DISK_DISCARD, 65536, NULL, 65536);
    disk_submit(d, &io.r);
    disk_drain(d);
    vm_unlock(vm);
    assert_int_equal(io.r.result, 0);
    assert_int_equal(run(vm, d, DISK_READ, 0, b, DISK_BYTES), 0);
    memset(a + 8192, 0, 3 * SECTOR);
    assert_memory_equal(a, b, 65536);
    assert_memory_equal(a + 131072, b + 131072, DISK_BYTES - 131072);
    disk_destroy(d);
    vm_destroy(vm);
    free(a);
    free(b);
    remove_file(path);
}

static void refusals(void **state)
{
    struct vm *vm = make_vm(false);
    char *path = make_file(DISK_BYTES), *empty = make_file(0);
    struct disk_config c = {.path = "/nonexistent/disk"};
    struct disk *d, *e;
    int fd;

    expect_refused(vm, &c, "No such file");
    c.path = "/tmp";
    expect_refused(vm, &c, "give a file or a block device");
    c.path = "/dev/null";
    expect_refused(vm, &c, "give a file or a block device");
    c.path = empty;
    expect_refused(vm, &c, "img resize");

    /* A second machine. */
    c.path = path;
    d = open_or_fail(vm, &c);
    expect_refused(vm, &c, "used by another machine");
    c.snapshot = true;
    expect_refused(vm, &c, "another machine writes");
    disk_destroy(d);
    d = open_or_fail(vm, &c);
    e = open_or_fail(vm, &c);
    c.snapshot = false;
    expect_refused(vm, &c, "used by another machine");
    disk_destroy(d);
    disk_destroy(e);

    fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "KDMV", 4, 0), 4);
    expect_refused(vm, &c, "vmdk");
    assert_int_equal(pwrite(fd, "QFI\xfb", 4, 0), 4);
    close(fd);
    expect_refused(vm, &c, "version 0");
    if (geteuid() != 0) {
        chmod(empty, 0400);
        assert_int_equal(truncate(path, 4096), 0);
        c.path = empty;
        expect_refused(vm, &c, ",readonly");
    }
    vm_destroy(vm);
    remove_file(path);
    remove_file(empty);
}

static void readonly(void **state)
{
    char *path = make_file(DISK_BYTES);
    struct vm *vm = make_vm(false);
    struct disk_config c = {.path = path, .readonly = true, .snapshot = true};
    struct disk *d = open_or_fail(vm, &c);
    uint8_t a[SECTOR] = {1};

    assert_true(disk_is_readonly(d));
    assert_int_equal(run(vm, d, DISK_WRITE, 0, a, SECTOR), -EROFS);
    assert_int_equal(run(vm, d, DISK_READ, 0, a, SECTOR), 0);
    assert_int_equal(a[0], 0);
    disk_destroy(d);
    vm_destroy(vm);
    remove_file(path);
}

/* 1000 bytes are two sectors; the second is longer than the file. */
static void odd_size(void **state)
{
    char *path = make_file(1000);
    struct vm *vm = make_vm(false);
    struct disk_config c = {.path = path};
    struct disk *d = open_or_fail(vm, &c);
    uint8_t a[2 * SECTOR], b[2 * SECTOR];
    struct stat st;

    assert_int_equal(disk_bytes(d), 1024);
    memset(a, 0xff, sizeof a);
    assert_int_equal(run(vm, d, DISK_READ, 0, a, sizeof a), 0);
    for (size_t n = 0; n < sizeof a; n++)
        assert_int_equal(a[n], 0);
    fill(a, sizeof a, 5);
    assert_int_equal(run(vm, d, DISK_WRITE, SECTOR, a, SECTOR), 0);
    assert_int_equal(run(vm, d, DISK_READ, SECTOR, b, SECTOR), 0);
    assert_memory_equal(a, b, SECTOR);
    disk_destroy(d);
    stat(path, &st);
    assert_int_equal(st.st_size, 1024);
    /* A file that became shorter meanwhile is an error, not zeroes. */
    d = open_or_fail(vm, &c);
    assert_int_equal(truncate(path, 512), 0);
    assert_int_equal(run(vm, d, DISK_READ, 0, b, 2 * SECTOR), -EIO);
    assert_int_equal(run(vm, d, DISK_READ, 0, b, SECTOR), 0);
    disk_destroy(d);
    vm_destroy(vm);
    remove_file(path);
}

/* The host has no more room: EFBIG stands for ENOSPC, and comes after a write
 * that was cut short. */
static void host_is_full(void **state)
{
    char *path = make_file(4096);
    struct vm *vm;
    struct disk_config c = {.path = path};
    struct disk *d;
    struct rlimit old, less = {8192 + 512, 8192 + 512};
    uint8_t *a = calloc(1, 65536);

    assert_int_equal(truncate(path, 65536), 0);
    vm = make_vm(false);
    d = open_or_fail(vm, &c);
    getrlimit(RLIMIT_FSIZE, &old);
    less.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &less);
    assert_int_equal(run(vm, d, DISK_WRITE, 0, a, 65536), -EFBIG);
    assert_int_equal(run(vm, d, DISK_WRITE, 0, a, 8192), 0);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(run(vm, d, DISK_WRITE, 0, a, 65536), 0);
    disk_destroy(d);
    vm_destroy(vm);
    free(a);
    remove_file(path);
}

/* ---- overlays ---- */

static void snapshot(void **state)
{
    enum { BYTES = 40 * 1024 * 1024 };
    char *path = make_file(BYTES);
    struct vm *vm = make_vm(false);
    struct disk_config c = {.path = path};
    struct disk *d = open_or_fail(vm, &c);
    uint8_t *model = malloc(BYTES), *got = malloc(BYTES), *original = malloc(BYTES);
    uint64_t seed = 99;

    fill(original, BYTES, 42);
    assert_int_equal(run(vm, d, DISK_WRITE, 0, original, BYTES), 0);
    disk_destroy(d);
    memcpy(model, original, BYTES);
    c.snapshot = true;
    d = open_or_fail(vm, &c);
    for (unsigned n = 0; n < 300; n++) {
        uint64_t bytes = (1 + harness_random(&seed) % (n % 10 ? 40 : 2000)) * SECTOR;
        uint64_t at = harness_random(&seed) % ((BYTES - bytes) / SECTOR) * SECTOR;

        switch (harness_random(&seed) % 4) {
        case 0:
            assert_int_equal(run(vm, d, DISK_READ, at, got, bytes), 0);
            assert_memory_equal(got, model + at, bytes);
            break;
        case 1: {
            struct io io;

            io_init(&io, d, n & 1 ? DISK_DISCARD : DISK_WRITE_ZEROES, at, NULL, bytes);
            vm_lock(vm);
            disk_submit(d, &io.r);
            disk_drain(d);
            vm_unlock(vm);
            assert_int_equal(io.r.result, 0);
            memset(model + at, 0, bytes);
            break;
        }
        default:
            fill(model + at, bytes, seed);
            assert_int_equal(run(vm, d, DISK_WRITE, at, model + at, bytes), 0);
            break;
        }
    }
    assert_int_equal(run(vm, d, DISK_READ, 0, got, BYTES), 0);
    assert_memory_equal(got, model, BYTES);
    disk_destroy(d);
    /* All of it is gone. */
    c.snapshot = false;
    d = open_or_fail(vm, &c);
    assert_int_equal(run(vm, d, DISK_READ, 0, got, BYTES), 0);
    assert_memory_equal(got, original, BYTES);
    disk_destroy(d);
    vm_destroy(vm);
    free(model);
    free(got);
    free(original);
    remove_file(path);
}

/* ---- the queue ---- */

static struct disk *shim_disk(struct vm *vm, struct shim **s)
{
    struct disk *d;

    *s = shim_create(DISK_BYTES);
    d = disk_create(vm, &(*s)->layer, "shim", NULL);
    assert_non_null(d);
    return d;
}

static void completions_come(void **state)
{
    struct vm *vm = make_vm(false);
    struct shim *s;
    struct disk *d = shim_disk(vm, &s);
    static struct io io[64];
    static uint8_t data[64][SECTOR];
    unsigned done;

    vm_lock(vm);
    for (unsigned n = 0; n < 64; n++) {
        io_init(&io[n], d, DISK_READ, n * SECTOR, data[n], SECTOR);
        disk_submit(d, &io[n].r);
    }
    vm_unlock(vm);
    /* By the loop what was done while the lock was ours, the rest by who did it. */
    do {
        loop_poll(vm, false);
        done = 0;
        vm_lock(vm);
        for (unsigned n = 0; n < 64; n++)
            done += io[n].done;
        vm_unlock(vm);
    } while (done < 64);
    assert_int_equal(disk_in_flight(d), 0);
    disk_destroy(d);
    vm_destroy(vm);
}

/* What needs no thread is told when the device polls, some at a time; so is what a
 * thread ends before that. */
static void polled(void **state)
{
    struct vm *vm = make_vm(false);
    struct shim *s;
    struct disk *d = shim_disk(vm, &s);
    static struct io io[150];
    static uint8_t data[150][SECTOR];
    unsigned done = 0;

    vm_lock(vm);
    disk_plug(d);
    for (unsigned n = 0; n < 150; n++) {
        io_init(&io[n], d, DISK_READ, n * SECTOR, data[n], SECTOR);
        disk_submit(d, &io[n].r);
    }
    assert_int_equal(disk_in_flight(d), 150);
    assert_true(disk_cancel(d, &io[149].r));
    disk_poll(d);
    for (unsigned n = 0; n < 149; n++)
        done += io[n].done;
    assert_true(done > 0 && done < 149);
    vm_unlock(vm);
    while (done < 149) {
        loop_poll(vm, true);
        done = 0;
        for (unsigned n = 0; n < 149; n++)
            done += io[n].done;
    }
    assert_int_equal(io[149].done, 0);
    for (unsigned n = 0; n < 149; n++)
        assert_memory_equal(data[n], s->bytes + n * SECTOR, SECTOR);
    /* What would wait is left to a thread. */
    shim_close(s);
    vm_lock(vm);
    io_init(&io[0], d, DISK_READ, 0, data[0], SECTOR);
    disk_plug(d);
    disk_submit(d, &io[0].r);
    disk_poll(d);
    assert_int_equal(io[0].done, 0);
    shim_open(s);
    disk_drain(d);
    assert_int_equal(io[0].done, 1);
    vm_unlock(vm);
    disk_destroy(d);
    vm_destroy(vm);
}

/* What ends while the disk is plugged waits for the poll; without a plug it needs none. A
 * disk of its own: nothing that ended before may still ring. */
static void plugged(void **state)
{
    struct vm *vm = make_vm(false);
    struct shim *s;
    struct disk *d = shim_disk(vm, &s);
    static uint8_t data[2][SECTOR];
    struct io io[2];

    io_init(&io[0], d, DISK_WRITE, 0, data[0], SECTOR);
    io_init(&io[1], d, DISK_READ, 0, data[1], SECTOR);
    vm_lock(vm);
    disk_plug(d);
    disk_submit(d, &io[0].r);
    vm_unlock(vm);
    for (unsigned n = 0; n < 5; n++) {
        usleep(1000);
        loop_poll(vm, false);
    }
    vm_lock(vm);
    assert_int_equal(io[0].done, 0);
    disk_poll(d);
    disk_drain(d);
    assert_int_equal(io[0].done, 1);
    disk_submit(d, &io[1].r);
    while (!io[1].done) {
        vm_unlock(vm);
        loop_poll(vm, false);
        vm_lock(vm);
    }
    vm_unlock(vm);
    disk_destroy(d);
    vm_destroy(vm);
}

/* One at a time, after up to 0.3 ms in which a thread looks for it, sleeps, or is about
 * to; and two, of which a sleeping one has the second. */
static void after_any_time(void **state)
{
    struct vm *vm = make_vm(false);
    struct shim *s;
    struct disk *d = shim_disk(vm, &s);
    static uint8_t data[2][SECTOR];
    uint64_t seed = 1;
    struct io io[2];

    for (unsigned round = 0; round < 2000; round++) {
        uint64_t end = host_monotonic_ns() + (harness_random(&seed) >> 32) % 300000;
        unsigned count = 1 + (round & 1);

        while (host_monotonic_ns() < end)
            continue;
        vm_lock(vm);
        for (unsigned n = 0; n < count; n++) {
            io_init(&io[n], d, DISK_WRITE, n * SECTOR, data[n], SECTOR);
            disk_submit(d, &io[n].r);
        }
        disk_drain(d);
        for (unsigned n = 0; n < count; n++)
            assert_int_equal(io[n].done, 1);
        vm_unlock(vm);
    }
    disk_destroy(d);
    vm_destroy(vm);
}

static void wait_for_waiters(struct shim *s, unsigned count)
{
    uint32_t now;

    while ((now = atomic_load(&s->waiting)) < count)
        host_futex_wait(&s->waiting, now, UINT64_MAX);
}

static void *open_later(void *arg)
{
    usleep(20000);
    shim_open(arg);
    return NULL;
}

static void cancelling(void **state)
{
    struct vm *vm = make_vm(false);
    struct shim *s;
    struct disk *d = shim_disk(vm, &s);
    static struct io io[20];
    static uint8_t data[20][SECTOR];
    unsigned cancelled = 0, running = 0;
    struct thread opener;

    shim_close(s);
    vm_lock(vm);
    for (unsigned n = 0; n < 20; n++) {
        io_init(&io[n], d, DISK_WRITE, n * SECTOR, data[n], SECTOR);
        disk_submit(d, &io[n].r);
    }
    wait_for_waiters(s, 8); /* as many as there are threads */
    for (unsigned n = 0; n < 20; n++) {
        if (disk_cancel(d, &io[n].r))
            cancelled++;
        else
            running++;
    }
    assert_int_equal(running, 8);
    assert_int_equal(cancelled, 12);
    assert_int_equal(disk_in_flight(d), 8);
    /* Those under way are waited for by who withdraws them. */
    thread_start(&opener, "opener", open_later, s);
    for (unsigned n = 0; n < 20; n++)
        disk_withdraw(d, &io[n].r);
    thread_join(&opener);
    assert_int_equal(disk_in_flight(d), 0);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(io[n].done, 0);
    assert_int_equal(s->writes, 8);
    vm_unlock(vm);
    disk_destroy(d);
    vm_destroy(vm);
}

/* Destroying ends what is under way, and flushes. */
static void nothing_is_lost_at_the_end(void **state)
{
    char *path = make_file(DISK_BYTES);
    struct vm *vm = make_vm(false);
    struct disk_config c = {.path = path};
    struct disk *d = open_or_fail(vm, &c);
    static struct io io[32];
    static uint8_t data[32][SECTOR], got[32][SECTOR];
    int fd;

    fill(data[0], sizeof data, 1);
    vm_lock(vm);
    for (unsigned n = 0; n < 32; n++) {
        io_init(&io[n], d, DISK_WRITE, n * SECTOR, data[n], SECTOR);
        disk_submit(d, &io[n].r);
    }
    vm_unlock(vm);
    disk_destroy(d);
    for (unsigned n = 0; n < 32; n++)
        assert_int_equal(io[n].done, 1);
    fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, got, sizeof got), sizeof got);
    close(fd);
    assert_memory_equal(got, data, sizeof got);
    vm_destroy(vm);
    remove_file(path);
}

static void chains(void **state)
{
    for (unsigned deterministic = 0; deterministic < 2; deterministic++) {
        struct vm *vm = make_vm(deterministic);
        struct shim *s;
        struct disk *d = shim_disk(vm, &s);
        static struct io io[10];
        static uint8_t data[10][SECTOR];

        vm_lock(vm);
        for (unsigned n = 0; n < 10; n++) {
            io_init(&io[n], d, DISK_WRITE, n * SECTOR, data[n], SECTOR);
            io[n].then = n < 9 ? &io[n + 1] : NULL;
        }
        disk_submit(d, &io[0].r);
        disk_drain(d);
        vm_unlock(vm);
        assert_int_equal(io[9].done, 1);
        assert_int_equal(s->writes, 10);
        disk_destroy(d);
        vm_destroy(vm);
    }
}

static int prepare_fails(struct disk_request *r)
{
    return -EFAULT;
}

static void faults(void **state)
{
    for (unsigned deterministic = 0; deterministic < 2; deterministic++) {
        struct vm *vm = make_vm(deterministic);
        struct shim *s;
        struct disk *d = shim_disk(vm, &s);
        uint8_t a[4 * SECTOR] = {0};
        struct io io;

        shim_fail(s, DISK_WRITE, 2 * SECTOR, SECTOR, 1, -ENOSPC);
        assert_int_equal(run(vm, d, DISK_WRITE, 0, a, 2 * SECTOR), 0);
        assert_int_equal(run(vm, d, DISK_WRITE, 0, a, 4 * SECTOR), -ENOSPC);
        assert_int_equal(run(vm, d, DISK_WRITE, 0, a, 4 * SECTOR), 0);
        shim_fail(s, DISK_FLUSH, 0, 1, 1, -EIO);
        assert_int_equal(run(vm, d, DISK_FLUSH, 0, NULL, 0), -EIO);
        shim_fail(s, DISK_READ, 0, DISK_BYTES, 2, -EIO);
        assert_int_equal(run(vm, d, DISK_READ, 0, a, SECTOR), -EIO);
        assert_int_equal(run(vm, d, DISK_READ, 0, a, SECTOR), -EIO);
        assert_int_equal(run(vm, d, DISK_READ, 0, a, SECTOR), 0);
        /* A write through fails where its flush does. */
        shim_fail(s, DISK_FLUSH, 0, 1, 1, -EIO);
        io_init(&io, d, DISK_WRITE, 0, a, SECTOR);
        io.r.fua = true;
        vm_lock(vm);
        disk_submit(d, &io.r);
        disk_drain(d);
        assert_int_equal(io.r.result, -EIO);
        io_init(&io, d, DISK_WRITE, 0, a, SECTOR);
        io.r.prepare = prepare_fails;
        disk_submit(d, &io.r);
        assert_int_equal(io.done, 0);
        disk_drain(d);
        vm_unlock(vm);
        assert_int_equal(io.r.result, -EFAULT);
        disk_destroy(d);
        vm_destroy(vm);
    }
}

static void unsafe_ignores_flushes(void **state)
{
    struct vm *vm = make_vm(false);
    struct shim *s;
    struct disk *d = shim_disk(vm, &s);

    disk_set_unsafe(d, true);
    assert_int_equal(run(vm, d, DISK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(s->flushes, 0);
    disk_set_unsafe(d, false);
    assert_int_equal(run(vm, d, DISK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(s->flushes, 1);
    disk_destroy(d);
    vm_destroy(vm);
}

/* Deterministic: data moves at the deadline and not before. */
static void virtual_time(void **state)
{
    struct vm *vm = make_vm(true);
    struct shim *s;
    struct disk *d = shim_disk(vm, &s);
    uint8_t a[2][SECTOR], b[2][SECTOR] = {{0}};
    struct io io[2];
    uint64_t first;

    fill(s->bytes, DISK_BYTES, 1);
    memcpy(a, s->bytes, sizeof a);
    vm_lock(vm);
    for (unsigned n = 0; n < 2; n++) {
        io_init(&io[n], d, DISK_READ, n * SECTOR, b[n], SECTOR);
        io[n].r.deadline_ns = n ? 5000 : 0;
        disk_submit(d, &io[n].r);
    }
    first = io[0].r.deadline_ns;
    assert_true(first > 5000);
    assert_int_equal(timers_next_ns(vm), 5000);
    vm->clock.turn_base_ns = 4999;
    timers_fire(vm);
    assert_int_equal(s->reads, 0);
    vm->clock.turn_base_ns = 5000;
    timers_fire(vm);
    assert_int_equal(io[1].done, 1);
    assert_int_equal(io[0].done, 0);
    assert_memory_equal(b[1], a[1], SECTOR);
    assert_int_equal(timers_next_ns(vm), first);
    assert_true(disk_cancel(d, &io[0].r));
    assert_int_equal(timers_next_ns(vm), TIME_NEVER);
    vm_unlock(vm);
    disk_destroy(d);
    vm_destroy(vm);
}

/* What was flushed survives a power cut; the check finds what was not. */
static void power_cuts(void **state)
{
    struct vm *vm = make_vm(false);
    struct shim *s;
    struct disk *d = shim_disk(vm, &s);
    uint8_t old[8 * SECTOR], new[8 * SECTOR];
    unsigned flushed;

    fill(old, sizeof old, 1);
    fill(new, sizeof new, 2);
    shim_mark(s);
    assert_int_equal(run(vm, d, DISK_WRITE, 0, old, sizeof old), 0);
    assert_false(shim_crash_check(s, s->events, 0, old, sizeof old, 1));
    assert_int_equal(run(vm, d, DISK_FLUSH, 0, NULL, 0), 0);
    flushed = s->events;
    assert_true(shim_crash_check(s, flushed, 0, old, sizeof old, 1));
    assert_int_equal(run(vm, d, DISK_WRITE, 2 * SECTOR, new, 4 * SECTOR), 0);
    assert_true(shim_crash_check(s, flushed, 0, old, sizeof old, 1));
    disk_destroy(d);
    vm_destroy(vm);
}

/* A guest that writes what another format begins with, so that the next machine
 * would follow it. */
static void guard(void **state)
{
    static const uint8_t magic[] = {'Q', 'F', 'I', 0xfb};
    uint8_t sectors[2 * SECTOR] = {0};
    char *path = make_file(DISK_BYTES);
    struct vm *vm = make_vm(false);
    struct disk_config c = {.path = path};
    struct disk *d = open_or_fail(vm, &c);

    memcpy(sectors, magic, sizeof magic);
    assert_int_equal(run(vm, d, DISK_WRITE, 0, sectors, SECTOR), -EPERM);
    assert_int_equal(run(vm, d, DISK_WRITE, 0, sectors, 2 * SECTOR), -EPERM);
    assert_int_equal(run(vm, d, DISK_WRITE, SECTOR, sectors, SECTOR), 0);
    sectors[0] = 'q';
    assert_int_equal(run(vm, d, DISK_WRITE, 0, sectors, SECTOR), 0);
    disk_destroy(d);
    /* Who says that it is raw knows what may be in it. */
    c.format = DISK_FORMAT_RAW;
    d = open_or_fail(vm, &c);
    sectors[0] = 'Q';
    assert_int_equal(run(vm, d, DISK_WRITE, 0, sectors, SECTOR), 0);
    disk_destroy(d);
    d = open_or_fail(vm, &c);
    disk_destroy(d);
    c.format = DISK_FORMAT_AUTO;
    expect_refused(vm, &c, "version 0");
    vm_destroy(vm);
    remove_file(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),
        cmocka_unit_test(guard),
        cmocka_unit_test(file_zero_and_discard),
        cmocka_unit_test(refusals),
        cmocka_unit_test(readonly),
        cmocka_unit_test(odd_size),
        cmocka_unit_test(host_is_full),
        cmocka_unit_test(snapshot),
        cmocka_unit_test(completions_come),
        cmocka_unit_test(polled),
        cmocka_unit_test(plugged),
        cmocka_unit_test(after_any_time),
        cmocka_unit_test(cancelling),
        cmocka_unit_test(nothing_is_lost_at_the_end),
        cmocka_unit_test(chains),
        cmocka_unit_test(faults),
        cmocka_unit_test(unsafe_ignores_flushes),
        cmocka_unit_test(virtual_time),
        cmocka_unit_test(power_cuts),
    };

    return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
