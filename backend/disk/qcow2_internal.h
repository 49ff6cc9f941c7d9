/*
 * A qcow2 image inside: what its files share.
 *
 *   qcow2.c           opening, closing, the layer's functions
 *   qcow2_header.c    the header and its extensions; new images
 *   qcow2_cache.c     pieces of L2 tables and refcount blocks in memory
 *   qcow2_refcount.c  which clusters of the file are used; allocation
 *   qcow2_map.c       guest clusters to host clusters
 *   qcow2_io.c        reading and writing data
 *   qcow2_commit.c    metadata to the file in the order that survives a kill
 *   qcow2_compress.c  compressed clusters
 *   qcow2_snapshot.c  internal snapshots
 *   qcow2_check.c     counting references; repair
 *
 * Words: a cluster is one of the file ("host") by number, unless it says guest. A
 * slice is a piece of at most 4 KiB of an L2 table or refcount block: the unit of
 * the caches. An entry is one of L2 or L1, in the host's byte order. A unit is what
 * has a state of its own, data, zeroes or none: a cluster, or with extended L2
 * entries a subcluster, of which a cluster has 32 and its entry a second word with
 * two bits for each.
 *
 * The order (qcow2_commit.c). In memory, metadata is as if all had been written.
 * It reaches the file in steps with a flush of the host's between: refcounts that
 * grew, with the data; refcount tables; L2; L1; and only then refcounts shrink and
 * clusters are used anew. So at any point a reference in the file is to a cluster
 * whose count is at least right and whose content is what was meant.
 *
 * Locks. `lock` guards everything in memory and is held for lookups and changes,
 * never while data moves, but for little that is in memory (qcow2_read_now); loading
 * a slice of L2 lets it go. `commit_lock` comes before it and is held by who writes
 * metadata to the file. A guest cluster whose place is being changed is on the list
 * `busy`; who wants to change it waits.
 */
#ifndef BACKEND_DISK_QCOW2_INTERNAL_H
#define BACKEND_DISK_QCOW2_INTERNAL_H

#include "backend/disk/qcow2.h"
#include "base/host.h"

#define QCOW2_MAGIC 0x514649fbu

enum {
    QCOW2_V2_HEADER_BYTES = 72,
    QCOW2_V3_HEADER_BYTES = 104,
    QCOW2_SECTOR = 512,
    QCOW2_ENTRIES_A_SECTOR = QCOW2_SECTOR / 8,
    QCOW2_SLICE_BYTES_MAX = 4096,
    QCOW2_SNAPSHOTS_MAX = 65536,
    QCOW2_FORMAT_BYTES = 64,
    QCOW2_UNIT_SHIFT = 5, /* units of a cluster with an extended entry */
    /* So that a unit is a sector at least. */
    QCOW2_EXTENDED_CLUSTER_BITS_MIN = 14,
};

/* As QEMU's limits, so that what opens there opens here. */
#define QCOW2_L1_BYTES_MAX (32 * MiB)
#define QCOW2_TABLE_BYTES_MAX (8 * MiB)
#define QCOW2_SNAPSHOT_TABLE_BYTES_MAX (64 * MiB)

/* Header: incompatible features. */
#define QCOW2_DIRTY BIT(0)
#define QCOW2_CORRUPT BIT(1)
#define QCOW2_EXTERNAL_DATA BIT(2)
#define QCOW2_COMPRESSION_TYPE BIT(3)
#define QCOW2_EXTENDED_L2 BIT(4)
/* Compatible. */
#define QCOW2_LAZY_REFCOUNTS BIT(0)
/* Autoclear. */
#define QCOW2_BITMAPS BIT(0)

/* L1 and L2 entries ("Cluster mapping"). */
#define QCOW2_COPIED BIT(63) /* the count of what it refers to is exactly one */
#define QCOW2_COMPRESSED BIT(62)
#define QCOW2_ZERO BIT(0)
/* The second word of an extended entry ("Extended L2 Entries"): one bit a unit each. */
#define QCOW2_UNITS_DATA BITS(31, 0)
#define QCOW2_UNITS_ZERO BITS(63, 32)
#define QCOW2_OFFSET_MASK BITS(55, 9)
#define QCOW2_L1_RESERVED (BITS(62, 56) | BITS(8, 0))
#define QCOW2_L2_RESERVED (BITS(61, 56) | BITS(8, 1))

struct qcow2_header {
    uint8_t sector[QCOW2_SECTOR]; /* as it is in the file */
    unsigned version, cluster_bits, refcount_order, header_bytes;
    uint64_t virtual_bytes;
    uint64_t l1_offset, table_offset, snapshots_offset;
    uint32_t l1_entries, table_clusters, snapshots;
    uint64_t incompatible, compatible, autoclear;
    enum qcow2_compression compression;
    uint64_t bitmap_directory_offset, bitmap_directory_bytes; /* 0: none */
    uint32_t bitmaps;
    char backing[QCOW2_NAME_BYTES];
    char backing_format[QCOW2_FORMAT_BYTES];
};

/* ---- caches ---- */

struct qcow2_slice {
    uint64_t offset; /* in the file */
    uint8_t *data;   /* as in the file: big-endian */
    unsigned pins;   /* somebody has a pointer to it */
    bool is_dirty, is_loading, is_committing;
    struct qcow2_slice *hash_next;
    struct qcow2_slice *newer, *older;
};

enum { QCOW2_HASH_BUCKETS = 4096 };

struct qcow2_cache {
    unsigned slice_bytes, count, limit, dirty;
    bool load_locked; /* the lock is kept while a slice is loaded */
    struct qcow2_slice *newest, *oldest;
    struct qcow2_slice *bucket[QCOW2_HASH_BUCKETS];
};

/* ---- what was given up ---- */

struct qcow2_range {
    uint64_t first, count; /* clusters, each with one reference less */
};

struct qcow2_ranges {
    struct qcow2_range *item;
    size_t count, room;
};

/* Guest clusters whose place is being changed. */
struct qcow2_busy {
    uint64_t first, last;
    struct qcow2_busy *next;
};

enum { QCOW2_UNPACKED = 4 };

/* Compressed clusters that were read lately, unpacked. */
struct qcow2_unpacked {
    uint64_t entry; /* of L2; 0: none */
    uint64_t used;
    uint8_t *data;
};

struct qcow2 {
    struct disk_layer layer;
    struct disk_layer *file;
    char *name;

    /* Constant after opening. */
    unsigned cluster_bits, refcount_order, version;
    uint64_t cluster_bytes;
    unsigned unit_shift; /* 0: units are clusters */
    unsigned unit_bits, unit_mask;
    unsigned entry_shift;      /* of an L2 entry's bytes */
    unsigned l2_entries;       /* of a table */
    unsigned l2_slice_entries; /* of a slice */
    uint64_t block_entries;    /* refcounts in a block */
    uint64_t cluster_limit;    /* the file cannot have more clusters */
    bool is_unsafe, can_grow;

    struct mutex lock; /* guards what follows */
    struct qcow2_header header;
    uint64_t *l1;       /* host byte order */
    uint64_t *l1_dirty; /* a bit a sector of it */
    uint64_t *table;    /* the refcount table, host byte order */
    uint64_t *table_dirty;
    uint64_t table_entries;
    bool has_dirty_l1, has_dirty_table;
    struct qcow2_cache l2, refcounts;
    uint64_t next_free;  /* no cluster before it is free, as far as is known */
    uint64_t fresh_from; /* from this cluster on the file has never been written */
    uint64_t packed_at;  /* where the next compressed cluster goes; 0: nowhere yet */
    struct qcow2_busy *busy;
    struct qcow2_ranges freed;    /* since the last commit began */
    struct qcow2_ranges limbo[2]; /* committed; may still be read by who began before */
    unsigned epoch;               /* 0 or 1 */
    unsigned users[2];            /* data moves on clusters found in that epoch */
    unsigned waiting;
    _Atomic uint32_t bell; /* futex: something that was waited for has happened */
    bool is_broken;        /* what the file's header says is not known: no more writes */

    struct mutex commit_lock;
    uint64_t commits_begun, commits_done; /* lock */

    struct mutex unpack_lock; /* a leaf */
    struct qcow2_unpacked unpacked[QCOW2_UNPACKED];
    uint64_t unpack_clock, unpack_generation;
};

static inline struct qcow2 *qcow2_of(struct disk_layer *l)
{
    return CONTAINER_OF(l, struct qcow2, layer);
}

static inline const struct qcow2 *qcow2_of_const(const struct disk_layer *l)
{
    return CONTAINER_OF(l, const struct qcow2, layer);
}

static inline uint64_t qcow2_clusters_of(const struct qcow2 *q, uint64_t bytes)
{
    return (bytes >> q->cluster_bits) + ((bytes & (q->cluster_bytes - 1)) != 0);
}

/* ---- qcow2.c ---- */

/* Sleeps until something changes; lock held, let go meanwhile. */
void qcow2_wait(struct qcow2 *q);
void qcow2_wake(struct qcow2 *q);
int qcow2_read_file(struct qcow2 *q, uint64_t offset, void *data, uint64_t bytes);
int qcow2_write_file(struct qcow2 *q, uint64_t offset, const void *data, uint64_t bytes);
/* What was written to the file before is there after. */
int qcow2_barrier(struct qcow2 *q);
/* Reads L1 and the refcount table of the header anew. */
int qcow2_load_tables(struct qcow2 *q, struct error *err);

/* ---- qcow2_header.c ---- */

int qcow2_header_read(struct disk_layer *file, const char *name, struct qcow2_header *h,
                      struct error *err);
/* The fields that change, all in one sector. */
int qcow2_header_write(struct qcow2 *q);
/* How many L1 entries a disk of that size has to have. */
uint64_t qcow2_l1_needed(unsigned cluster_bits, bool extended, uint64_t virtual_bytes);

/* ---- qcow2_cache.c ---- */

void qcow2_cache_init(struct qcow2_cache *c, unsigned slice_bytes, uint64_t limit_bytes);
void qcow2_cache_destroy(struct qcow2_cache *c);
/* Forgets all, which is clean and not pinned. */
void qcow2_cache_drop(struct qcow2_cache *c);
/* What was a table of these bytes is none any more: they become a new one, which is
 * written to the file and not through the cache. Lock held. */
void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset, uint64_t bytes);
/* A slice, pinned; lock held. */
int qcow2_slice_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t offset,
                    struct qcow2_slice **out);
/* Is it in memory, so that getting it does not let go of the lock? Lock held. */
bool qcow2_slice_is_here(struct qcow2_cache *c, uint64_t offset);
void qcow2_slice_put(struct qcow2_slice *s);
void qcow2_slice_dirty(struct qcow2_cache *c, struct qcow2_slice *s);
/* As dirty as it should become before a commit. */
bool qcow2_cache_is_full(const struct qcow2_cache *c);

/* ---- qcow2_refcount.c; lock held ---- */

uint64_t qcow2_refcount_max(const struct qcow2 *q);
int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count);
/* One that has to be what it is, whatever counts and entries say. */
bool qcow2_is_metadata(const struct qcow2 *q, uint64_t cluster);
/* 1 to `want` free clusters in a row, then in use. */
int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got, bool *is_fresh);
/* Exactly so many. */
int qcow2_alloc_all(struct qcow2 *q, uint64_t count, uint64_t *first);
/* Clusters of qcow2_alloc to which nothing refers yet. */
void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t count);
/* One reference less to each, as soon as the file knows of it. */
int qcow2_free_later(struct qcow2 *q, uint64_t first, uint64_t count);
int qcow2_ranges_add(struct qcow2_ranges *r, uint64_t first, uint64_t count);
uint64_t qcow2_field_get(const uint8_t *block, unsigned order, uint64_t index);
void qcow2_field_set(uint8_t *block, unsigned order, uint64_t index, uint64_t value);

/* ---- qcow2_map.c; lock held ---- */

enum qcow2_kind {
    QCOW2_KIND_NONE, /* as the layer below */
    QCOW2_KIND_DATA,
    QCOW2_KIND_ZERO,
    QCOW2_KIND_ZERO_DATA, /* zeroes, and has a place */
    QCOW2_KIND_COMPRESSED,
    QCOW2_KIND_WRONG,
};

/* What an entry refers to; with extended entries never zeroes. */
enum qcow2_kind qcow2_kind_of(const struct qcow2 *q, uint64_t entry);
/* How a unit of it reads. bits: the second word. */
enum qcow2_kind qcow2_unit_kind(const struct qcow2 *q, uint64_t entry, uint64_t bits,
                                unsigned unit);
/* Does the second word fit the first? */
bool qcow2_bits_are_wrong(const struct qcow2 *q, uint64_t entry, uint64_t bits);
static inline uint64_t qcow2_l2_entry(const struct qcow2 *q, const struct qcow2_slice *s,
                                      unsigned index)
{
    return be64_get(s->data + ((size_t)index << q->entry_shift));
}

/* The second word; 0 where there is none. */
static inline uint64_t qcow2_l2_bits(const struct qcow2 *q, const struct qcow2_slice *s,
                                     unsigned index)
{
    return q->unit_shift ? be64_get(s->data + ((size_t)index << q->entry_shift) + 8) : 0;
}

/* Where a compressed cluster is in the file. */
void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes);
/* The slice with a guest cluster's entry, pinned; NULL in *out: there is no L2
 * table. May let go of the lock. */
int qcow2_l2_get(struct qcow2 *q, uint64_t guest, struct qcow2_slice **out, unsigned *index);
/* Would that answer from memory? */
bool qcow2_l2_is_here(struct qcow2 *q, uint64_t guest);
/* The same to write to; makes the table if there is none, or one of our own. */
int qcow2_l2_own(struct qcow2 *q, uint64_t guest, struct qcow2_slice **out, unsigned *index);
void qcow2_l2_set(struct qcow2 *q, struct qcow2_slice *s, unsigned index, uint64_t entry);
/* The second word; where there is none, nothing. */
void qcow2_l2_set_bits(struct qcow2 *q, struct qcow2_slice *s, unsigned index, uint64_t bits);
void qcow2_l1_set(struct qcow2 *q, uint64_t index, uint64_t entry);
/* Gives up what an entry refers to. */
int qcow2_free_entry(struct qcow2 *q, uint64_t entry);
bool qcow2_is_busy(const struct qcow2 *q, uint64_t first, uint64_t last);
void qcow2_busy_add(struct qcow2 *q, struct qcow2_busy *b, uint64_t first, uint64_t last);
void qcow2_busy_remove(struct qcow2 *q, struct qcow2_busy *b);

/* ---- qcow2_io.c ---- */

int qcow2_read(struct disk_layer *l, uint64_t offset, const struct disk_span *spans, unsigned count,
               uint64_t bytes);
int qcow2_read_now(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                   unsigned count, uint64_t bytes);
int qcow2_write(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                unsigned count, uint64_t bytes);
int qcow2_zero(struct disk_layer *l, uint64_t offset, uint64_t bytes);
int qcow2_discard(struct disk_layer *l, uint64_t offset, uint64_t bytes);
int qcow2_map(struct disk_layer *l, uint64_t offset, uint64_t bytes, uint64_t *run);

/* ---- qcow2_commit.c; no lock held ---- */

/* Everything that was done before is in the file. */
int qcow2_commit(struct qcow2 *q);
/* Must a commit come before more can be kept in memory? lock held. */
bool qcow2_wants_commit(const struct qcow2 *q);
/* Writes sectors of a table in the file; marks are the caller's. */
int qcow2_write_table(struct qcow2 *q, uint64_t offset, const uint64_t *table, uint64_t first,
                      uint64_t count);

/* ---- qcow2_compress.c ---- */

/* Part of a compressed cluster. */
int qcow2_read_packed(struct qcow2 *q, uint64_t entry, uint64_t skip, const struct disk_span *spans,
                      unsigned count, uint64_t spans_skip, uint64_t bytes);
/* Space in the file of compressed clusters is used anew. */
void qcow2_forget_packed(struct qcow2 *q);

/* ---- qcow2_check.c ---- */

/* Makes refcounts and COPIED bits what they should be. */
int qcow2_rebuild(struct qcow2 *q, struct error *err);
/* COPIED bits of the active tables, from refcounts. lock not held. */
int qcow2_fix_copied(struct qcow2 *q);

#endif
