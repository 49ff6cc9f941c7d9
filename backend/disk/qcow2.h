/*
 * qcow2 images: a disk layer, and what `vireo img` does with them besides.
 *
 * The format: "Qcow2 Image File Format" of the QEMU project's interoperability
 * documentation; sections cited here are of it. docs/STORAGE.md says how it is
 * used. Versions 2 and 3; not here: encryption, external data files (each refused
 * in one line), persistent bitmaps (cleared by the autoclear bit, as the format
 * provides, when an image is written).
 *
 * Threading: the layer's functions from any thread, as layer.h says; everything
 * else while no request is under way.
 */
#ifndef BACKEND_DISK_QCOW2_H
#define BACKEND_DISK_QCOW2_H

#include "backend/disk/layer.h"

#define QCOW2_CLUSTER_BITS_MIN 9u
#define QCOW2_CLUSTER_BITS_MAX 21u
#define QCOW2_NAME_BYTES 1024 /* of a backing file, with its terminator */

/* Takes file, also when it fails; name is for errors. Writable if file is; then an
 * image that was not closed (its dirty bit) is repaired first. */
struct disk_layer *qcow2_open(struct disk_layer *file, const char *name, enum disk_cache cache,
                              struct error *err);
/* As it is, without any repair: for qcow2_check. */
struct disk_layer *qcow2_open_to_check(struct disk_layer *file, const char *name,
                                       struct error *err);
/* Is this a layer of qcow2_open? */
bool qcow2_is(const struct disk_layer *l);

/* As the image has them; "" if it has none. */
const char *qcow2_backing_name(const struct disk_layer *l);
const char *qcow2_backing_format(const struct disk_layer *l);
/* What is below the image, which takes it. */
void qcow2_set_backing(struct disk_layer *l, struct disk_layer *backing);

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

struct qcow2_info {
    unsigned version, cluster_bits, refcount_bits;
    uint64_t virtual_bytes; /* as the image says, which need not be whole sectors */
    uint32_t snapshots;
    bool lazy_refcounts, extended_l2, is_dirty, is_corrupt;
    enum qcow2_compression compression;
};

void qcow2_get_info(const struct disk_layer *l, struct qcow2_info *info);

/* ---- creating ---- */

struct qcow2_options {
    uint64_t virtual_bytes;
    unsigned version;                   /* 2 or 3 */
    unsigned cluster_bits;              /* QCOW2_CLUSTER_BITS_MIN to _MAX */
    unsigned refcount_bits;             /* a power of 2 up to 64; version 2: 16 */
    bool lazy_refcounts;                /* version 3 */
    bool extended_l2;                   /* version 3, clusters of 16 KiB at least */
    enum qcow2_compression compression; /* ZSTD: version 3 */
    const char *backing;                /* NULL or a name as it shall stand in the image */
    const char *backing_format;
};

/* Writes an empty image into a file that has nothing in it. */
int qcow2_create(struct disk_layer *file, const struct qcow2_options *options, struct error *err);
/* Gives every cluster its place. */
int qcow2_preallocate(struct disk_layer *l, struct error *err);

/* ---- compressed clusters ---- */

/* What packs clusters of an image, for one thread. NULL: out of memory. */
struct qcow2_packer *qcow2_packer_create(const struct disk_layer *l);
void qcow2_packer_destroy(struct qcow2_packer *p);
/* The bytes that a cluster becomes in out, which has room for a cluster; 0: it is
 * better stored as it is. */
size_t qcow2_pack(struct qcow2_packer *p, const void *cluster, void *out);
struct qcow2_packed {
    uint64_t offset; /* of the cluster on the disk */
    const void *data;
    size_t bytes;
};

enum { QCOW2_PACKED_MAX = 64 };

/* Puts what qcow2_pack made at clusters that have nothing yet (-EEXIST), at most
 * QCOW2_PACKED_MAX of them. Any thread. */
int qcow2_write_packed(struct disk_layer *l, const struct qcow2_packed *item, unsigned count);

/* ---- snapshots ---- */

struct qcow2_snapshot {
    char *id, *name;
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint32_t seconds, nanoseconds; /* since the Epoch */
    uint64_t vm_clock_ns, vm_state_bytes;
    uint64_t virtual_bytes;
    /* What a later version of the format may have added. */
    uint8_t *extra;
    uint32_t extra_bytes;
};

struct qcow2_snapshots {
    struct qcow2_snapshot *item;
    uint32_t count;
};

int qcow2_snapshots_read(struct disk_layer *l, struct qcow2_snapshots *list, struct error *err);
void qcow2_snapshots_free(struct qcow2_snapshots *list);
int qcow2_snapshot_create(struct disk_layer *l, const char *name, struct error *err);
/* By id or name. */
int qcow2_snapshot_apply(struct disk_layer *l, const char *which, struct error *err);
int qcow2_snapshot_delete(struct disk_layer *l, const char *which, struct error *err);
/* An image that is open to read only is as the snapshot from now on. */
int qcow2_snapshot_view(struct disk_layer *l, const char *which, struct error *err);

/* ---- checking ---- */

struct qcow2_check {
    uint64_t corruptions; /* what may lose data */
    uint64_t leaks;       /* clusters that nothing uses and that are not free */
    uint64_t total_clusters, allocated_clusters, compressed_clusters, fragmented_clusters;
    uint64_t image_end; /* in bytes */
    bool repaired;
    /* Each problem as a line; may be NULL. */
    void (*tell)(void *ctx, const char *line);
    /* Now and then, of *total; nonzero ends it with -ECANCELED. May be NULL. */
    int (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};

enum qcow2_repair { QCOW2_REPAIR_NONE, QCOW2_REPAIR_LEAKS, QCOW2_REPAIR_ALL };

/* 0 when it was looked at to the end, whatever was found. */
int qcow2_check(struct disk_layer *l, enum qcow2_repair repair, struct qcow2_check *check,
                struct error *err);

#endif
