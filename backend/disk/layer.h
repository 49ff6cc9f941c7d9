/*
 * Layers of a disk: something that has bytes at offsets. Each layer stands on
 * the one below it, or on the host; image formats, overlays and the tests'
 * faults are layers.
 *
 * A layer's functions block, and are called by several threads at once, never
 * with the machine's lock: a layer that has metadata brings a lock of its own.
 * They return 0 or a negative errno, and never do a part: an error says that
 * any part of the range may have been written.
 */
#ifndef BACKEND_DISK_LAYER_H
#define BACKEND_DISK_LAYER_H

#include "backend/disk/disk.h"

struct disk_layer;

struct disk_layer_ops {
    const char *name;
    /* bytes: of all spans together, within the layer's size. */
    int (*read)(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                unsigned count, uint64_t bytes);
    int (*write)(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                 unsigned count, uint64_t bytes);
    int (*flush)(struct disk_layer *l);
    /* NULL: it does nothing. */
    int (*discard)(struct disk_layer *l, uint64_t offset, uint64_t bytes);
    /* NULL, or -EOPNOTSUPP: zeroes are written instead. */
    int (*zero)(struct disk_layer *l, uint64_t offset, uint64_t bytes);
    void (*destroy)(struct disk_layer *l); /* frees it; what is below it, too */
};

struct disk_layer {
    const struct disk_layer_ops *ops;
    uint64_t bytes;           /* a multiple of DISK_SECTOR_BYTES */
    bool readonly;            /* writes are refused before they get here */
    struct disk_layer *below; /* NULL on the host */
};

static inline void disk_layer_destroy(struct disk_layer *l)
{
    if (l)
        l->ops->destroy(l);
}

/* As ops->zero, by writing where there is no better way. */
int disk_layer_zero(struct disk_layer *l, uint64_t offset, uint64_t bytes);

/* A part of a list of spans: `bytes` from `skip` on, as many as fit into out;
 * returns how many spans, and in *got how many bytes they have. */
unsigned disk_spans_slice(const struct disk_span *spans, unsigned count, uint64_t skip,
                          uint64_t bytes, struct disk_span *out, unsigned room, uint64_t *got);
void disk_spans_zero(const struct disk_span *spans, unsigned count, uint64_t skip, uint64_t bytes);

struct log;

/* A raw image: a file or a block device. Locked against a second writer. */
struct disk_layer *disk_file_open(const char *path, bool readonly, enum disk_cache cache,
                                  struct log *log, struct error *err);
/* A file without a name, made by the caller; takes fd. NULL: out of memory. */
struct disk_layer *disk_file_from_fd(int fd, uint64_t bytes);
/* Keeps all writes in a temporary file. Takes `below`, also when it fails. */
struct disk_layer *disk_overlay_create(struct disk_layer *below, struct error *err);

#endif
