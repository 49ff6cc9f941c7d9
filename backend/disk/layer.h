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
    /* A read that does not block: 0, or it has to be asked for in the other way and
     * the spans hold anything. NULL: always. */
    int (*read_now)(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                    unsigned count, uint64_t bytes);
    int (*flush)(struct disk_layer *l);
    /* NULL: it does nothing. */
    int (*discard)(struct disk_layer *l, uint64_t offset, uint64_t bytes);
    /* NULL, or -EOPNOTSUPP: zeroes are written instead. */
    int (*zero)(struct disk_layer *l, uint64_t offset, uint64_t bytes);
    /* How a range reads, for who copies: an enum disk_map, or a negative errno;
     * *run: how many bytes from offset on are alike, at least one sector of them.
     * NULL: all is data. */
    int (*map)(struct disk_layer *l, uint64_t offset, uint64_t bytes, uint64_t *run);
    /* Longer (what is new reads as zeroes) or shorter, while nothing else is under
     * way. NULL, or -EOPNOTSUPP: it cannot be. */
    int (*resize)(struct disk_layer *l, uint64_t bytes);
    void (*destroy)(struct disk_layer *l); /* frees it; what is below it, too */
};

struct disk_layer {
    const struct disk_layer_ops *ops;
    uint64_t bytes;           /* a multiple of DISK_SECTOR_BYTES */
    bool readonly;            /* writes are refused before they get here */
    struct disk_layer *below; /* NULL on the host */
};

enum disk_map {
    DISK_MAP_DATA,
    DISK_MAP_ZERO,
    DISK_MAP_BELOW, /* as the layer below, and zeroes beyond its end */
};

static inline void disk_layer_destroy(struct disk_layer *l)
{
    if (l)
        l->ops->destroy(l);
}

/* As ops->zero, by writing where there is no better way. */
int disk_layer_zero(struct disk_layer *l, uint64_t offset, uint64_t bytes);

/* As ops->map, through all layers: never DISK_MAP_BELOW. */
int disk_layer_map(struct disk_layer *l, uint64_t offset, uint64_t bytes, uint64_t *run);

/* A part of a list of spans: `bytes` from `skip` on, as many as fit into out;
 * returns how many spans, and in *got how many bytes they have. */
unsigned disk_spans_slice(const struct disk_span *spans, unsigned count, uint64_t skip,
                          uint64_t bytes, struct disk_span *out, unsigned room, uint64_t *got);
void disk_spans_zero(const struct disk_span *spans, unsigned count, uint64_t skip, uint64_t bytes);

struct log;

struct disk_image_config {
    const char *path;
    enum disk_format format;
    bool readonly;
    bool no_backing; /* what is not in this image is not asked for */
    enum disk_cache cache;
};

/* The bytes of a file or of a block device, whatever they mean. Locked against a
 * second writer. A file may be written and read beyond its end, for what stands
 * on it and grows. log may be NULL. */
struct disk_layer *disk_file_open(const char *path, bool readonly, enum disk_cache cache,
                                  struct log *log, struct error *err);
/* From now on nothing is written that would make the file look like another
 * format (disk_format_of): -EPERM. */
void disk_file_guard(struct disk_layer *l);
/* False: a block device, which has the size it has. */
bool disk_file_can_grow(const struct disk_layer *l);
/* A file without a name, made by the caller; takes fd. NULL: out of memory. */
struct disk_layer *disk_file_from_fd(int fd, uint64_t bytes);
/* An image in a format, with the images that it stands on. */
struct disk_layer *disk_image_open(const struct disk_image_config *config, struct log *log,
                                   struct error *err);
/* What an image that begins so is in; NULL: raw, as far as one can see. */
const char *disk_format_of(const void *start, size_t bytes);

/* Keeps all writes in a temporary file. Takes `below`, also when it fails. */
struct disk_layer *disk_overlay_create(struct disk_layer *below, struct error *err);

#endif
