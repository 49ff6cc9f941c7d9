/*
 * A qcow2 image as a layer: opening and closing it.
 * Interface: qcow2.h, qcow2_internal.h (which says how the parts fit).
 *
 * Threading: as layer.h says; a lock of its own.
 */
#include "backend/disk/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/disk/qcow2_internal.h"

/* Slices of L2 for 64 GiB of disk with clusters of 64 KiB. */
#define L2_CACHE_BYTES (8 * MiB)
#define REFCOUNT_CACHE_BYTES (1 * MiB)

/* ---- waiting ---- */

void qcow2_wait(struct qcow2 *q)
{
    uint32_t bell = atomic_load(&q->bell);

    q->waiting++;
    mutex_unlock(&q->lock);
    host_futex_wait(&q->bell, bell, UINT64_MAX);
    mutex_lock(&q->lock);
    q->waiting--;
}

void qcow2_wake(struct qcow2 *q)
{
    atomic_fetch_add(&q->bell, 1);
    if (q->waiting)
        host_futex_wake(&q->bell, INT32_MAX);
}

/* ---- the file ---- */

int qcow2_read_file(struct qcow2 *q, uint64_t offset, void *data, uint64_t bytes)
{
    struct disk_span span = {data, bytes};

    return q->file->ops->read(q->file, offset, &span, 1, bytes);
}

int qcow2_write_file(struct qcow2 *q, uint64_t offset, const void *data, uint64_t bytes)
{
    struct disk_span span = {(void *)(uintptr_t)data, bytes};

    if (q->file->readonly)
        return -EROFS;
    return q->file->ops->write(q->file, offset, &span, 1, bytes);
}

int qcow2_barrier(struct qcow2 *q)
{
    return q->is_unsafe ? 0 : q->file->ops->flush(q->file);
}

/* ---- the layer ---- */

static int flush(struct disk_layer *l)
{
    return qcow2_commit(qcow2_of(l));
}

/* Tables are read and written by sectors. */
static int alloc_table(uint64_t entries, uint64_t **table, uint64_t **dirty)
{
    uint64_t sectors = MAX((entries + QCOW2_ENTRIES_A_SECTOR - 1) / QCOW2_ENTRIES_A_SECTOR, 1);

    *table = calloc(sectors, QCOW2_SECTOR);
    *dirty = calloc(sectors / 64 + 1, sizeof **dirty);
    return *table && *dirty ? 0 : -ENOMEM;
}

/* The L1 of a larger disk: a copy that L1 is switched to, if it has to be longer. */
static int grow_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t *l1, *dirty, first, clusters = qcow2_clusters_of(q, entries * 8);
    struct qcow2_header before = q->header;
    int ret = alloc_table(entries, &l1, &dirty);

    if (!ret)
        ret = qcow2_alloc_all(q, clusters, &first);

    if (ret)
        goto fail;
    memcpy(l1, q->l1, q->header.l1_entries * sizeof *l1);
    ret = disk_layer_zero(q->file, first << q->cluster_bits, clusters << q->cluster_bits);
    if (!ret)
        ret = qcow2_write_table(q, first << q->cluster_bits, l1, 0, entries);
    if (ret) {
        qcow2_unalloc(q, first, clusters);
        goto fail;
    }
    mutex_unlock(&q->lock);
    ret = qcow2_commit(q); /* its clusters' counts, before the header says so */
    mutex_lock(&q->lock);
    if (ret)
        goto fail;
    q->header.l1_offset = first << q->cluster_bits;
    q->header.l1_entries = (uint32_t)entries;
    ret = qcow2_header_write(q);
    if (!ret)
        ret = qcow2_barrier(q);
    if (ret) {
        q->header = before;
        q->is_broken = true;
        goto fail;
    }
    free(q->l1);
    free(q->l1_dirty);
    q->l1 = l1;
    q->l1_dirty = dirty;
    if (before.l1_entries)
        qcow2_free_later(q, before.l1_offset >> q->cluster_bits,
                         qcow2_clusters_of(q, (uint64_t)before.l1_entries * 8));
    return 0;

fail:
    free(l1);
    free(dirty);
    return ret;
}

static int resize(struct disk_layer *l, uint64_t bytes)
{
    struct qcow2 *q = qcow2_of(l);
    uint64_t needed = qcow2_l1_needed(q->cluster_bits, q->unit_shift, bytes),
             was = q->header.virtual_bytes;
    int ret = 0;

    if (bytes > BIT(56) || needed * 8 > QCOW2_L1_BYTES_MAX)
        return -EFBIG;
    /* What goes, and what is behind the end in the last cluster: it would be seen
     * again if the disk became larger later. */
    if (bytes < was)
        ret =
            disk_layer_zero(l, align_up(bytes, DISK_SECTOR_BYTES),
                            MIN(align_up(was, q->cluster_bytes),
                                (uint64_t)q->header.l1_entries * q->l2_entries << q->cluster_bits) -
                                align_up(bytes, DISK_SECTOR_BYTES));
    if (!ret)
        ret = qcow2_commit(q);
    if (ret)
        return ret;
    mutex_lock(&q->lock);
    if (needed > q->header.l1_entries)
        ret = grow_l1(q, needed);
    if (!ret) {
        q->header.virtual_bytes = bytes;
        ret = qcow2_header_write(q);
    }
    if (!ret)
        l->bytes = align_up(bytes, DISK_SECTOR_BYTES);
    mutex_unlock(&q->lock);
    /* What is new is zeroes, not what a longer backing file has there. */
    if (!ret && l->below && was < MIN(bytes, l->below->bytes))
        ret = disk_layer_zero(l, align_up(was, DISK_SECTOR_BYTES),
                              MIN(l->bytes, l->below->bytes) - align_up(was, DISK_SECTOR_BYTES));
    return ret ? ret : qcow2_commit(q);
}

static void free_all(struct qcow2 *q)
{
    qcow2_cache_destroy(&q->l2);
    qcow2_cache_destroy(&q->refcounts);
    qcow2_forget_packed(q);
    free(q->l1);
    free(q->l1_dirty);
    free(q->table);
    free(q->table_dirty);
    free(q->freed.item);
    free(q->limbo[0].item);
    free(q->limbo[1].item);
    free(q->name);
    mutex_destroy(&q->lock);
    mutex_destroy(&q->commit_lock);
    mutex_destroy(&q->unpack_lock);
    disk_layer_destroy(q->layer.below);
    disk_layer_destroy(q->file);
    free(q);
}

static void destroy(struct disk_layer *l)
{
    static const uint8_t zeroes[QCOW2_SECTOR];
    struct qcow2 *q = qcow2_of(l);

    if (!l->readonly) {
        /* Twice: what the first gave up becomes free in the second. */
        if (!qcow2_commit(q))
            qcow2_commit(q);
        /* The last compressed cluster fills its sector, which is nobody else's. */
        if (q->packed_at % QCOW2_SECTOR)
            qcow2_write_file(q, q->packed_at, zeroes, QCOW2_SECTOR - q->packed_at % QCOW2_SECTOR);
    }
    free_all(q);
}

static const struct disk_layer_ops qcow2_ops = {
    .name = "qcow2",
    .read = qcow2_read,
    .read_now = qcow2_read_now,
    .write = qcow2_write,
    .flush = flush,
    .discard = qcow2_discard,
    .zero = qcow2_zero,
    .map = qcow2_map,
    .resize = resize,
    .destroy = destroy,
};

/* ---- opening ---- */

static int load_table(struct qcow2 *q, uint64_t offset, uint64_t entries, uint64_t **table,
                      uint64_t **dirty)
{
    int ret;

    free(*table);
    free(*dirty);
    ret = alloc_table(entries, table, dirty);
    if (!ret && entries)
        ret = qcow2_read_file(q, offset, *table, entries * sizeof **table);
    for (uint64_t n = 0; n < entries && !ret; n++)
        (*table)[n] = be64_get(&(*table)[n]);
    return ret;
}

int qcow2_load_tables(struct qcow2 *q, struct error *err)
{
    const struct qcow2_header *h = &q->header;
    int ret = load_table(q, h->l1_offset, h->l1_entries, &q->l1, &q->l1_dirty);

    q->has_dirty_l1 = q->has_dirty_table = false;
    q->table_entries = ((uint64_t)h->table_clusters << q->cluster_bits) / 8;
    if (!ret)
        ret = load_table(q, h->table_offset, q->table_entries, &q->table, &q->table_dirty);
    if (ret)
        error_set(err, ret, "disk %s: cannot read its tables: %s", q->name, strerror(-ret));
    return ret;
}

static void set_geometry(struct qcow2 *q)
{
    const struct qcow2_header *h = &q->header;
    unsigned slice;

    q->version = h->version;
    q->cluster_bits = h->cluster_bits;
    q->cluster_bytes = BIT(h->cluster_bits);
    q->refcount_order = h->refcount_order;
    q->unit_shift = h->incompatible & QCOW2_EXTENDED_L2 ? QCOW2_UNIT_SHIFT : 0;
    q->unit_bits = h->cluster_bits - q->unit_shift;
    q->unit_mask = (1u << q->unit_shift) - 1;
    q->entry_shift = q->unit_shift ? 4 : 3;
    q->l2_entries = (unsigned)(q->cluster_bytes >> q->entry_shift);
    q->block_entries = q->cluster_bytes * 8 >> h->refcount_order;
    slice = (unsigned)MIN(q->cluster_bytes, QCOW2_SLICE_BYTES_MAX);
    q->l2_slice_entries = slice >> q->entry_shift;
    q->can_grow = q->file->ops->resize != NULL;
    q->cluster_limit = (q->can_grow ? BIT(56) : q->file->bytes) >> q->cluster_bits;
    q->fresh_from = qcow2_clusters_of(q, q->file->bytes);
    qcow2_cache_init(&q->l2, slice, L2_CACHE_BYTES);
    qcow2_cache_init(&q->refcounts, slice, REFCOUNT_CACHE_BYTES);
    q->refcounts.load_locked = true;
    q->layer.bytes = align_up(h->virtual_bytes, DISK_SECTOR_BYTES);
}

static struct qcow2 *create(struct disk_layer *file, const char *name, struct error *err)
{
    struct qcow2 *q = calloc(1, sizeof *q);

    if (!q) {
        disk_layer_destroy(file);
        error_set(err, -ENOMEM, "out of memory for disk %s", name);
        return NULL;
    }
    mutex_init(&q->lock);
    mutex_init(&q->commit_lock);
    mutex_init(&q->unpack_lock);
    q->layer.ops = &qcow2_ops;
    q->layer.readonly = file->readonly;
    q->file = file;
    q->l2.slice_bytes = q->refcounts.slice_bytes = QCOW2_SECTOR; /* until it is known */
    q->name = strdup(name);
    if (!q->name)
        error_set(err, -ENOMEM, "out of memory for disk %s", name);
    else if (!qcow2_header_read(file, name, &q->header, err)) {
        set_geometry(q);
        if (!qcow2_load_tables(q, err))
            return q;
    }
    free_all(q);
    return NULL;
}

/* What has to be done before the first write. */
static int prepare_to_write(struct qcow2 *q, struct error *err)
{
    int ret = 0;

    if (q->header.incompatible & QCOW2_CORRUPT)
        return error_set(err, -EIO,
                         "disk %s is marked as damaged: vireo img check -r all %s, or give "
                         ",readonly to save what can be read",
                         q->name, q->name);
    if (q->header.incompatible & QCOW2_DIRTY)
        ret = qcow2_rebuild(q, err);
    if (!ret && q->header.autoclear) {
        q->header.autoclear = 0;
        ret = qcow2_header_write(q);
        if (!ret)
            ret = qcow2_barrier(q);
        if (ret)
            error_set(err, ret, "disk %s: cannot write its header: %s", q->name, strerror(-ret));
    }
    return ret;
}

struct disk_layer *qcow2_open(struct disk_layer *file, const char *name, enum disk_cache cache,
                              struct error *err)
{
    struct qcow2 *q = create(file, name, err);

    if (!q)
        return NULL;
    q->is_unsafe = cache == DISK_UNSAFE;
    if (!q->layer.readonly && prepare_to_write(q, err)) {
        free_all(q);
        return NULL;
    }
    return &q->layer;
}

struct disk_layer *qcow2_open_to_check(struct disk_layer *file, const char *name, struct error *err)
{
    struct qcow2 *q = create(file, name, err);

    return q ? &q->layer : NULL;
}

/* ---- what others ask ---- */

bool qcow2_is(const struct disk_layer *l)
{
    return l->ops == &qcow2_ops;
}

const char *qcow2_backing_name(const struct disk_layer *l)
{
    return qcow2_of_const(l)->header.backing;
}

const char *qcow2_backing_format(const struct disk_layer *l)
{
    return qcow2_of_const(l)->header.backing_format;
}

void qcow2_set_backing(struct disk_layer *l, struct disk_layer *backing)
{
    l->below = backing;
}

void qcow2_get_info(const struct disk_layer *l, struct qcow2_info *info)
{
    const struct qcow2_header *h = &qcow2_of_const(l)->header;

    *info = (struct qcow2_info){
        .version = h->version,
        .cluster_bits = h->cluster_bits,
        .refcount_bits = 1u << h->refcount_order,
        .virtual_bytes = h->virtual_bytes,
        .snapshots = h->snapshots,
        .extended_l2 = h->incompatible & QCOW2_EXTENDED_L2,
        .lazy_refcounts = h->compatible & QCOW2_LAZY_REFCOUNTS,
        .is_dirty = h->incompatible & QCOW2_DIRTY,
        .is_corrupt = h->incompatible & QCOW2_CORRUPT,
        .compression = h->compression,
    };
}
