/*
 * Disk images on a host that gives less than was asked for: short reads and
 * writes, interrupted calls, EIO, no room; and what such a host's disk holds
 * after a power cut. The linker puts the __wrap_ functions here between the back
 * end and the host.
 */
#include "backend/disk/disk.h"
#include "tests/dev/disk_shim.h"
#include "tests/dev/harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vm/internal.h"

enum { SECTOR = DISK_SECTOR_BYTES, DISK_BYTES = 128 * 1024, DEPTH = 8 };

/* What the host does; the back end's threads call it. */
static struct {
    struct mutex lock;
    uint64_t seed;
    unsigned short_unit;                     /* calls move at most a few of these; 0: all */
    bool interrupts;                         /* EINTR now and then */
    int read_error, write_error, sync_error; /* errno, of calls that touch .. */
    uint64_t error_at;                       /* .. this byte */
    struct shim *log;                        /* writes and syncs, or NULL */
    unsigned shortened;
} host;

ssize_t __real_preadv64(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __real_pwritev64(int fd, const struct iovec *iov, int count, off_t offset);
int __real_fdatasync(int fd);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t offset);
int __wrap_fdatasync(int fd);

/* Lock held. Cuts a copy of iov down to what this call shall move; returns how
 * many of its entries are left, or -1 with errno. */
static int lessen(struct iovec *iov, int count, uint64_t offset, int error)
{
    uint64_t total = 0, most;

    for (int n = 0; n < count; n++)
        total += iov[n].iov_len;
    most = total;
    if (host.interrupts && harness_random(&host.seed) >> 32 & 1) {
        errno = EINTR;
        return -1;
    }
    if (host.short_unit)
        most = MIN(total, host.short_unit * (1 + (harness_random(&host.seed) >> 32) % 5));
    /* What comes before the place that fails moves, as on a real disk. */
    if (error && host.error_at >= offset && host.error_at < offset + most) {
        most = align_down(host.error_at - offset, SECTOR);
        if (!most) {
            errno = error;
            return -1;
        }
    }
    host.shortened += most < total;
    for (int n = 0; n < count; n++) {
        if (iov[n].iov_len >= most) {
            iov[n].iov_len = most;
            return n + 1;
        }
        most -= iov[n].iov_len;
    }
    return count;
}

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int count, off_t offset)
{
    struct iovec part[1024];
    int n;

    memcpy(part, iov, (size_t)count * sizeof *part);
    mutex_lock(&host.lock);
    n = lessen(part, count, (uint64_t)offset, host.read_error);
    mutex_unlock(&host.lock);
    return n < 0 ? n : __real_preadv64(fd, part, n, offset);
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t offset)
{
    struct iovec part[1024];
    ssize_t moved = -1;
    int n;

    memcpy(part, iov, (size_t)count * sizeof *part);
    mutex_lock(&host.lock);
    n = lessen(part, count, (uint64_t)offset, host.write_error);
    if (n >= 0)
        moved = __real_pwritev64(fd, part, n, offset);
    if (host.log && moved > 0)
        shim_log_write(host.log, (uint64_t)offset, part, (uint64_t)moved);
    mutex_unlock(&host.lock);
    return moved;
}

int __wrap_fdatasync(int fd)
{
    int ret = -1;

    mutex_lock(&host.lock);
    if (host.sync_error) {
        errno = host.sync_error;
    } else {
        ret = __real_fdatasync(fd);
        if (host.log)
            shim_log_flush(host.log);
    }
    mutex_unlock(&host.lock);
    return ret;
}

/* ---- a disk on a file ---- */

struct world {
    struct vm *vm;
    struct disk *disk;
    char path[32];
    uint8_t model[DISK_BYTES];
};

struct io {
    struct disk_request r;
    struct disk_span span[6];
    uint8_t data[6 * 3 * SECTOR];
    bool done;
};

static void io_done(struct disk_request *r)
{
    ((struct io *)r->ctx)->done = true;
}

static struct world *start(enum disk_cache cache, bool snapshot)
{
    struct vm_config config = {.seed = 1};
    struct world *w = calloc(1, sizeof *w);
    struct disk_config c = {.path = w->path, .cache = cache, .snapshot = snapshot};
    struct error err = {.text = ""};
    int fd;

    memset(&host, 0, sizeof host);
    mutex_init(&host.lock);
    host.seed = 0x1234567;
    strcpy(w->path, "/var/tmp/vireo-host-XXXXXX");
    fd = mkstemp(w->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    close(fd);
    w->vm = vm_create(&config, &err);
    assert_non_null(w->vm);
    w->disk = disk_open(w->vm, &c, &err);
    if (!w->disk)
        fail_msg("%s", err.text);
    return w;
}

static void stop(struct world *w)
{
    disk_destroy(w->disk);
    vm_destroy(w->vm);
    unlink(w->path);
    free(w);
    mutex_destroy(&host.lock);
}

/* Sectors in spans of any length, as PRDTs have them. */
static void io_init(struct io *io, enum disk_op op, uint64_t offset, uint64_t bytes)
{
    uint64_t at = 0;
    unsigned n;

    memset(io, 0, sizeof *io);
    for (n = 0; at < bytes; n++) {
        uint64_t part = n == ARRAY_SIZE(io->span) - 1
                            ? bytes - at
                            : MIN(1 + (harness_random(&host.seed) >> 32) % 900, bytes - at);

        io->span[n] = (struct disk_span){io->data + at, part};
        at += part;
    }
    io->r = (struct disk_request){.op = op,
                                  .offset = offset,
                                  .bytes = bytes,
                                  .spans = io->span,
                                  .span_count = n,
                                  .done = io_done,
                                  .ctx = io};
}

static void submit_all(struct world *w, struct io *io, unsigned count)
{
    vm_lock(w->vm);
    for (unsigned n = 0; n < count; n++)
        disk_submit(w->disk, &io[n].r);
    disk_drain(w->disk);
    vm_unlock(w->vm);
    for (unsigned n = 0; n < count; n++)
        assert_true(io[n].done);
}

static int run(struct world *w, struct io *io, enum disk_op op, uint64_t offset, uint64_t bytes)
{
    uint8_t data[sizeof io->data];

    memcpy(data, io->data, sizeof data);
    io_init(io, op, offset, bytes);
    memcpy(io->data, data, sizeof data);
    submit_all(w, io, 1);
    return io->r.result;
}

static uint64_t random_range(uint64_t *bytes)
{
    *bytes = (1 + (harness_random(&host.seed) >> 32) % 18) * SECTOR;
    return (harness_random(&host.seed) >> 32) % ((DISK_BYTES - *bytes) / SECTOR) * SECTOR;
}

static void randomize(struct io *io)
{
    for (size_t n = 0; n < sizeof io->data; n++)
        io->data[n] = (uint8_t)(harness_random(&host.seed) >> 32);
}

/* ---- tests ---- */

/* The host moves a few bytes a call, and is interrupted: nobody sees it. */
static void short_transfers(void **state)
{
    static const unsigned units[] = {1, 7, 100, 512};

    for (unsigned kind = 0; kind < 3; kind++) {
        struct world *w = start(kind == 1 ? DISK_NONE : DISK_WRITEBACK, kind == 2);
        static struct io io;

        host.interrupts = true;
        for (unsigned n = 0; n < 400; n++) {
            uint64_t bytes, offset = random_range(&bytes);

            host.short_unit = units[n / 100];
            randomize(&io);
            if (n % 2) {
                assert_int_equal(run(w, &io, DISK_WRITE, offset, bytes), 0);
                memcpy(w->model + offset, io.data, bytes);
            } else {
                assert_int_equal(run(w, &io, DISK_READ, offset, bytes), 0);
                assert_memory_equal(io.data, w->model + offset, bytes);
            }
        }
        assert_true(host.shortened > 1000);
        stop(w);
    }
}

/* Errors in the middle of a transfer, and of a flush: told, and nothing else is
 * lost. */
static void errors(void **state)
{
    static const int codes[] = {EIO, ENOSPC, EDQUOT};
    struct world *w = start(DISK_WRITEBACK, false);
    static struct io io;

    for (unsigned n = 0; n < ARRAY_SIZE(codes); n++) {
        memset(io.data, 0x11 + (int)n, sizeof io.data);
        assert_int_equal(run(w, &io, DISK_WRITE, 0, 16 * SECTOR), 0);
        host.error_at = 10 * SECTOR + 5;
        host.write_error = codes[n];
        memset(io.data, 0x55, sizeof io.data);
        assert_int_equal(run(w, &io, DISK_WRITE, 8 * SECTOR, 8 * SECTOR), -codes[n]);
        assert_int_equal(run(w, &io, DISK_WRITE, 20 * SECTOR, 2 * SECTOR), 0);
        host.write_error = 0;
        assert_int_equal(run(w, &io, DISK_READ, 0, 16 * SECTOR), 0);
        for (unsigned at = 0; at < 16 * SECTOR; at++)
            assert_int_equal(io.data[at], at >= 8 * SECTOR && at < 10 * SECTOR ? 0x55 : 0x11 + n);
    }
    host.read_error = EIO;
    assert_int_equal(run(w, &io, DISK_READ, 9 * SECTOR, 4 * SECTOR), -EIO);
    assert_int_equal(run(w, &io, DISK_READ, 11 * SECTOR, 4 * SECTOR), 0);
    host.read_error = 0;
    host.sync_error = EIO;
    assert_int_equal(run(w, &io, DISK_FLUSH, 0, 0), -EIO);
    io_init(&io, DISK_WRITE, 0, SECTOR);
    io.r.fua = true;
    submit_all(w, &io, 1);
    assert_int_equal(io.r.result, -EIO);
    host.sync_error = 0;
    /* What that flush should have kept is lost, and no later one takes it back. */
    assert_int_equal(run(w, &io, DISK_FLUSH, 0, 0), -EIO);
    /* An image that somebody has cut short meanwhile. */
    assert_int_equal(truncate(w->path, DISK_BYTES / 2), 0);
    assert_int_equal(run(w, &io, DISK_READ, DISK_BYTES - SECTOR, SECTOR), -EIO);
    assert_int_equal(run(w, &io, DISK_READ, 0, SECTOR), 0);
    stop(w);
}

/* Writes side by side, a flush now and then: what had been written before a flush
 * was asked for is there after any power cut that follows its end. */
static void power_cuts(void **state)
{
    for (unsigned round = 0; round < 12; round++) {
        struct world *w = start(round % 2 ? DISK_NONE : DISK_WRITEBACK, false);
        struct shim *log = shim_create(DISK_BYTES);
        static struct io io[DEPTH], flush;
        static uint8_t promised[DISK_BYTES];
        bool fua = round >= 10;
        unsigned events = 0;

        host.seed += round;
        host.short_unit = round % 3 ? SECTOR : 0;
        host.interrupts = true;
        host.log = log;
        for (unsigned step = 0; step < 4; step++) {
            for (unsigned n = 0; n < DEPTH; n++) {
                /* Each its own part of the disk. */
                uint64_t offset = (n * 32 + (harness_random(&host.seed) >> 32) % 13) * SECTOR;

                io_init(&io[n], DISK_WRITE, offset, 18 * SECTOR);
                io[n].r.fua = fua;
                randomize(&io[n]);
                memcpy(w->model + offset, io[n].data, 18 * SECTOR);
            }
            submit_all(w, io, DEPTH);
            if (!fua)
                assert_int_equal(run(w, &flush, DISK_FLUSH, 0, 0), 0);
            if (step == 2) {
                memcpy(promised, w->model, DISK_BYTES);
                events = log->events;
            }
        }
        assert_true(shim_crash_check(log, events, 0, promised, DISK_BYTES, round));
        /* The check can fail: of a later state that nobody promised yet. */
        assert_false(shim_crash_check(log, events, 0, w->model, DISK_BYTES, round));
        host.log = NULL;
        stop(w);
        log->layer.ops->destroy(&log->layer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_transfers),
        cmocka_unit_test(errors),
        cmocka_unit_test(power_cuts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
