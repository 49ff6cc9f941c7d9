/*
 * A disk for tests: bytes in memory, a log of what was written and flushed,
 * faults at will, and a gate that holds requests up.
 *
 * shim_crash_check plays a power cut: a disk may have written what was not
 * flushed in any order, or not at all.
 * Threading: a lock of its own, as layers have to.
 */
#ifndef TESTS_DEV_DISK_SHIM_H
#define TESTS_DEV_DISK_SHIM_H

#include "backend/disk/disk.h"
#include "backend/disk/layer.h"
#include "base/host.h"

#define SHIM_EVENTS 4096
#define SHIM_FAULTS 8

struct shim_event {
    bool is_flush;
    uint64_t offset, bytes;
    uint8_t *data;
};

struct shim_fault {
    enum disk_op op;
    uint64_t first, last;  /* bytes of the disk, inclusive */
    unsigned after, times; /* skips so many, then fails so many; times 0: unused */
    int error;
};

struct shim {
    struct disk_layer layer;
    struct mutex lock;
    uint8_t *bytes;
    uint8_t *start; /* content before the first event */
    struct shim_event event[SHIM_EVENTS];
    unsigned events;
    struct shim_fault fault[SHIM_FAULTS];
    unsigned reads, writes, flushes, discards;
    _Atomic uint32_t closed; /* futex: requests wait while it is 1 */
    _Atomic uint32_t waiting;
};

struct shim *shim_create(uint64_t bytes);
/* Fails `times` requests of that kind that touch the range. */
void shim_fail(struct shim *s, enum disk_op op, uint64_t first, uint64_t bytes, unsigned times,
               int error);
void shim_close(struct shim *s);
void shim_open(struct shim *s);
/* For a test that stands elsewhere: the disk got so much, or all that it had
 * got was kept. */
struct iovec;
void shim_log_write(struct shim *s, uint64_t offset, const struct iovec *iov, uint64_t bytes);
void shim_log_flush(struct shim *s);
/* The log begins here. */
void shim_mark(struct shim *s);

/* What the disk may hold after a power cut behind the first `events` events: all
 * that was flushed, and of the rest any, in any order, sectors torn apart. image
 * has the layer's size. */
void shim_crash(struct shim *s, unsigned events, uint8_t *image, uint64_t seed);

/* The guest knew, when `events` events had been logged, that `bytes` at `offset`
 * were as in data on the host's disk. Tries crashes at each later point, each
 * with several choices of what had arrived; false: the bytes may be lost. Writes
 * to the range after that point make a choice of the two fine. */
bool shim_crash_check(struct shim *s, unsigned events, uint64_t offset, const uint8_t *data,
                      uint64_t bytes, uint64_t seed);

#endif
