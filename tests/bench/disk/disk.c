/*
 * The first process of a guest that measures a disk: loads /modules, waits for
 * the disk BENCH_DISK and prints, for each row, nanoseconds an operation. All
 * goes past the guest's cache (O_DIRECT); requests at a depth of more than one by
 * io_submit.
 *
 * Settings are the kernel's command line: BENCH_DISK, BENCH_MS (a row's time),
 * BENCH_ROWS (name,...; all if it is not there).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH_MAX = 32, WAIT_S = 30 };

struct row {
    const char *name;
    bool is_write, is_random;
    size_t bytes;
    unsigned depth;
};

static const struct row rows[] = {
    {"read-1m", false, false, 1 << 20, 1},     {"write-1m", true, false, 1 << 20, 1},
    {"read-4k", false, true, 4096, 1},         {"write-4k", true, true, 4096, 1},
    {"read-4k-32", false, true, 4096, 32},     {"write-4k-32", true, true, 4096, 32},
    {"read-1m-32", false, false, 1 << 20, 32},
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t random_state = 88172645463325252;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void die(const char *what)
{
    printf("LOST all %s: %s\n", what, strerror(errno));
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

/* In the order of /modules/order, as insmod takes them. */
static void load_modules(void)
{
    FILE *order = fopen("/modules/order", "r");
    char name[128], path[160];

    while (order && fscanf(order, "%127s", name) == 1) {
        int fd;

        snprintf(path, sizeof path, "/modules/%s.ko", name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 ||
            (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST && errno != ENODEV))
            printf("no module %s: %s\n", name, strerror(errno));
        close(fd);
    }
    if (order)
        fclose(order);
}

/* ---- a row ---- */

struct disk {
    int fd;
    uint64_t bytes, next;
    aio_context_t aio;
    struct iocb cb[DEPTH_MAX];
    uint8_t *buffer[DEPTH_MAX];
};

static uint64_t place(struct disk *d, const struct row *r)
{
    uint64_t at = d->next;

    if (r->is_random)
        return next_random() % (d->bytes / r->bytes) * r->bytes;
    if (at + r->bytes > d->bytes)
        at = 0;
    d->next = at + r->bytes;
    return at;
}

static void start(struct disk *d, const struct row *r, unsigned n)
{
    struct iocb *cb = &d->cb[n];

    memset(cb, 0, sizeof *cb);
    cb->aio_data = n;
    cb->aio_lio_opcode = r->is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
    cb->aio_fildes = (uint32_t)d->fd;
    cb->aio_buf = (uint64_t)(uintptr_t)d->buffer[n];
    cb->aio_nbytes = r->bytes;
    cb->aio_offset = (int64_t)place(d, r);
}

static uint64_t run_queued(struct disk *d, const struct row *r, uint64_t end)
{
    struct iocb *list[DEPTH_MAX];
    struct io_event event[DEPTH_MAX];
    uint64_t done = 0;
    long count = r->depth, under_way = 0;

    for (unsigned n = 0; n < r->depth; n++) {
        start(d, r, n);
        list[n] = &d->cb[n];
    }
    for (;;) {
        if (count && syscall(SYS_io_submit, d->aio, count, list) != count)
            die("io_submit");
        under_way += count;
        if (!under_way)
            return done;
        count = syscall(SYS_io_getevents, d->aio, 1, DEPTH_MAX, event, NULL);
        if (count < 1)
            die("io_getevents");
        under_way -= count;
        done += (uint64_t)count;
        for (long n = 0; n < count; n++) {
            if (event[n].res != (int64_t)r->bytes)
                die("a request");
            start(d, r, (unsigned)event[n].data);
            list[n] = &d->cb[event[n].data];
        }
        if (now_ns() >= end)
            count = 0;
    }
}

static uint64_t run_single(struct disk *d, const struct row *r, uint64_t end)
{
    uint64_t done = 0;

    do {
        off_t at = (off_t)place(d, r);
        ssize_t got = r->is_write ? pwrite(d->fd, d->buffer[0], r->bytes, at)
                                  : pread(d->fd, d->buffer[0], r->bytes, at);

        if (got != (ssize_t)r->bytes)
            die("a request");
        done++;
    } while (now_ns() < end);
    return done;
}

static void run(struct disk *d, const struct row *r, uint64_t ms)
{
    uint64_t started, done, spent;

    d->next = 0;
    printf("BEGIN %s\n", r->name);
    fflush(stdout);
    started = now_ns();
    done = r->depth > 1 ? run_queued(d, r, started + ms * 1000000)
                        : run_single(d, r, started + ms * 1000000);
    spent = now_ns() - started;
    printf("ROW %s %.1f %.1f 0000000000000000 -\n", r->name, (double)spent / (double)done,
           (double)spent / (double)done);
    fflush(stdout);
}

static void open_disk(struct disk *d, const char *path)
{
    for (unsigned tries = 0; tries < 10 * WAIT_S; tries++) {
        d->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
        if (d->fd >= 0)
            break;
        usleep(100000);
    }
    if (d->fd < 0 || ioctl(d->fd, BLKGETSIZE64, &d->bytes) < 0)
        die(path);
    if (syscall(SYS_io_setup, DEPTH_MAX, &d->aio) < 0)
        die("io_setup");
    for (unsigned n = 0; n < DEPTH_MAX; n++) {
        if (posix_memalign((void **)&d->buffer[n], 4096, 1 << 20))
            die("memory");
        memset(d->buffer[n], (int)n + 1, 1 << 20);
    }
}

int main(void)
{
    const char *path = getenv("BENCH_DISK"), *ms = getenv("BENCH_MS"),
               *wanted = getenv("BENCH_ROWS");
    struct disk d = {.fd = -1};
    int console;

    mount("devtmpfs", "/dev", "devtmpfs", 0, "");
    mount("proc", "/proc", "proc", 0, "");
    console = open("/dev/console", O_RDWR);
    for (int fd = 0; fd < 3 && console >= 0; fd++)
        dup2(console, fd);
    load_modules();
    open_disk(&d, path ? path : "/dev/sda");
    printf("BENCH START\n");
    for (size_t n = 0; n < sizeof rows / sizeof rows[0]; n++) {
        char name[64];
        const char *found;

        snprintf(name, sizeof name, ",%s,", rows[n].name);
        if (wanted) {
            char list[512];

            snprintf(list, sizeof list, ",%s,", wanted);
            found = strstr(list, name);
        } else {
            found = name;
        }
        if (found)
            run(&d, &rows[n], ms ? strtoull(ms, NULL, 10) : 1000);
    }
    printf("BENCH END\n");
    fflush(stdout);
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
