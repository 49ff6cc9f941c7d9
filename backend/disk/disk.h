/*
 * Disk back ends: where a disk's sectors are. A device submits requests, the
 * host's file is read and written by threads of the disk's own, straight from
 * and to guest memory, and done() is told.
 *
 * A disk is a stack of layers (backend/disk/layer.h): a file or block device
 * below, a format like qcow2 on it, an overlay that keeps what is written for
 * `snapshot` above them.
 * What is here does not depend on them: devices (AHCI, NVMe,
 * virtio-blk) see this header only.
 *
 * Deterministic machines have no threads here: a request's data moves when its
 * virtual time has come, at once and by the machine's only thread, so that a
 * guest that looks at its buffer early sees the same in each run.
 *
 * Threading: everything with the machine's lock held; done() and prepare() are
 * called with it, done() never from inside disk_submit (prepare() is, in real
 * time), and on any thread: the disk's own, the I/O thread, or in disk_poll.
 */
#ifndef BACKEND_DISK_DISK_H
#define BACKEND_DISK_DISK_H

#include "base/base.h"
#include "base/error.h"

struct vm;
struct disk;
struct disk_layer;

#define DISK_SECTOR_BYTES 512u
#define DISK_SERIAL_BYTES 20

enum disk_op {
    DISK_READ,
    DISK_WRITE,
    DISK_FLUSH,        /* what is done before is on the host's disk after */
    DISK_DISCARD,      /* nobody needs the range: each sector reads as it was, or as zeroes */
    DISK_WRITE_ZEROES, /* it reads as zeroes after */
};

/* Host memory: guest RAM (as_map) or a buffer of the device's. Laid out as the
 * host's struct iovec. */
struct disk_span {
    void *data;
    size_t bytes;
};

enum disk_request_state { DISK_IDLE, DISK_QUEUED, DISK_RUNNING, DISK_DONE };

/*
 * The device's from before disk_submit to done(), then its own again; it may be
 * submitted anew from within done(). offset and bytes are multiples of
 * DISK_SECTOR_BYTES. The spans have to hold `bytes` together.
 */
struct disk_request {
    enum disk_op op;
    bool fua; /* a write is on the host's disk when it is done */
    uint64_t offset, bytes;
    const struct disk_span *spans;
    unsigned span_count;
    /* Fills spans and span_count (and may lower bytes), just before data moves: in
     * real time within disk_submit. 0, or a negative errno that becomes the
     * result. May be NULL. */
    int (*prepare)(struct disk_request *r);
    /* result is 0 or a negative errno. */
    void (*done)(struct disk_request *r);
    void *ctx;
    int result;
    /* Deterministic machines: the virtual time at which it is carried out. 0:
     * disk_submit chooses. A saved machine's requests go on with what it was. */
    uint64_t deadline_ns;

    /* The disk's: */
    enum disk_request_state state;
    uint64_t sequence;
    struct disk_request *next;
};

enum disk_cache {
    DISK_WRITEBACK, /* through the host's cache; flush is fdatasync */
    DISK_NONE,      /* past it (O_DIRECT); flush is fdatasync */
    DISK_UNSAFE,    /* through the host's cache; flush does nothing */
};

/* Of an image. AUTO looks at its first bytes when it is opened. A guest can write
 * to a raw image what another format begins with, and with that make the next
 * machine open any file of the host's as its backing file; so an image that is
 * raw only as far as AUTO could see refuses such a write. */
enum disk_format { DISK_FORMAT_AUTO, DISK_FORMAT_RAW, DISK_FORMAT_QCOW2 };

struct disk_config {
    const char *path;
    enum disk_format format;
    bool readonly;
    bool snapshot; /* writes go to a temporary file and are gone at the end */
    enum disk_cache cache;
    const char *serial; /* at most DISK_SERIAL_BYTES characters; NULL: chosen */
};

/* Opens an image. Every failure is one line in err that says what to do. */
struct disk *disk_open(struct vm *vm, const struct disk_config *config, struct error *err);
/* A disk on layers of the caller's making; takes the layer, also when it fails.
 * name is for the log and is copied. */
struct disk *disk_create(struct vm *vm, struct disk_layer *top, const char *name,
                         struct error *err);
/* Ends everything that is under way (done() is called) and flushes. Before the
 * vm, after its last run. */
void disk_destroy(struct disk *d);

uint64_t disk_bytes(const struct disk *d);
bool disk_is_readonly(const struct disk *d);
const char *disk_serial(const struct disk *d); /* never NULL */
void disk_set_serial(struct disk *d, const char *serial);
/* --disk's cache=unsafe: flushes are done at once. */
void disk_set_unsafe(struct disk *d, bool is_unsafe);

void disk_submit(struct disk *d, struct disk_request *r);
/* A device is about to submit, and calls disk_poll at the end: what ends until then
 * waits for that, because the device has the machine's lock. */
void disk_plug(struct disk *d);
/* Tells done() for what has ended: reads of little that the host has in memory, which
 * need no thread while the disk is plugged, and what threads have done meanwhile.
 * Within a done() it does nothing: what is submitted there has its turn. */
void disk_poll(struct disk *d);
/* True: it will never be done, and is the caller's again. False: it is under
 * way, and done() will be told. */
bool disk_cancel(struct disk *d, struct disk_request *r);
/* As the two below for one request, with a wait if it is under way: it is the
 * caller's afterwards, and done() is not called. For reset. */
void disk_withdraw(struct disk *d, struct disk_request *r);
/* Waits until nothing is under way, with done() called for each, those included
 * that they submit. Deterministic: carries them out now. */
void disk_drain(struct disk *d);
/* Requests that were submitted and are neither done nor cancelled. */
unsigned disk_in_flight(const struct disk *d);

#endif
