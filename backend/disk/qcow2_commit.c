/*
 * Metadata to the file, in the order that survives a kill or a power cut at any
 * point. Interface: qcow2_internal.h, which says what the order is.
 *
 * A commit takes copies of all that is dirty, at one moment and with the lock, so
 * that what L2 and L1 refer to in the copies has its count in the copies and its
 * data in the file. Then, without the lock:
 *
 *   1. refcount slices                    and the host's flush
 *   2. sectors of the refcount table      and a flush, if there are any
 *   3. slices of L2                       and a flush
 *   4. sectors of L1                      and a flush, if there are any
 *   5. what was given up before the copies were taken loses its counts in memory,
 *      once nobody who looked it up before is at work on it, and its place in the
 *      file becomes a hole
 *
 * A step without anything to write has no flush. Counts that shrink reach the file
 * with the next commit; until then the file knows of too many, which is a leak at
 * worst. A commit that fails leaves everything dirty.
 *
 * Threading: one commit at a time (commit_lock). Who asks while one is under way
 * waits for the next, which serves all who wait.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/disk/qcow2_internal.h"

enum { RANGES_MAX = 4096 };

/* ---- copies ---- */

struct slice_copies {
    struct qcow2_cache *cache;
    struct qcow2_slice **slice;
    uint8_t *data;
    unsigned count;
};

/* Sectors of a table in memory. */
struct table_copies {
    uint64_t offset; /* of the table in the file */
    uint64_t *sector;
    uint64_t *entry; /* QCOW2_ENTRIES_A_SECTOR for each */
    uint64_t count;
};

struct batch {
    struct slice_copies refcounts, l2;
    struct table_copies table, l1;
    struct qcow2_ranges freed;
};

static int copy_slices(struct qcow2_cache *c, struct slice_copies *to)
{
    *to = (struct slice_copies){.cache = c};
    if (!c->dirty)
        return 0;
    to->slice = malloc(c->dirty * sizeof *to->slice);
    to->data = aligned_alloc(QCOW2_SECTOR, (size_t)c->dirty * c->slice_bytes);
    if (!to->slice || !to->data)
        return -ENOMEM;
    for (struct qcow2_slice *s = c->newest; s; s = s->older) {
        if (!s->is_dirty)
            continue;
        memcpy(to->data + (size_t)to->count * c->slice_bytes, s->data, c->slice_bytes);
        s->is_dirty = false;
        s->is_committing = true;
        s->pins++; /* what the file has is not what it should have */
        to->slice[to->count++] = s;
    }
    c->dirty = 0;
    return 0;
}

/* Lock held. */
static void end_slices(struct slice_copies *of, bool failed)
{
    for (unsigned n = 0; n < of->count; n++) {
        of->slice[n]->pins--;
        of->slice[n]->is_committing = false;
        if (failed)
            qcow2_slice_dirty(of->cache, of->slice[n]);
    }
    free(of->slice);
    free(of->data);
}

static int copy_table(const uint64_t *table, uint64_t *dirty, uint64_t entries, uint64_t offset,
                      struct table_copies *to)
{
    uint64_t sectors = (entries + QCOW2_ENTRIES_A_SECTOR - 1) / QCOW2_ENTRIES_A_SECTOR, count = 0;

    *to = (struct table_copies){.offset = offset};
    for (uint64_t w = 0; w <= sectors / 64; w++)
        count += (uint64_t)__builtin_popcountll(dirty[w]);
    to->sector = malloc(MAX(count, 1) * sizeof *to->sector);
    to->entry = malloc(MAX(count, 1) * QCOW2_SECTOR);
    if (!to->sector || !to->entry)
        return -ENOMEM;
    for (uint64_t n = 0; n < sectors; n++) {
        if (!(dirty[n / 64] >> n % 64 & 1))
            continue;
        memcpy(to->entry + to->count * QCOW2_ENTRIES_A_SECTOR, table + n * QCOW2_ENTRIES_A_SECTOR,
               QCOW2_SECTOR);
        to->sector[to->count++] = n;
        dirty[n / 64] &= ~BIT(n % 64);
    }
    return 0;
}

/* Lock held. */
static void end_table(struct table_copies *of, uint64_t offset, uint64_t *dirty, bool *has_dirty,
                      bool failed)
{
    /* A table that has moved meanwhile was written as a whole. */
    for (uint64_t n = 0; n < of->count && failed && of->offset == offset; n++) {
        dirty[of->sector[n] / 64] |= BIT(of->sector[n] % 64);
        *has_dirty = true;
    }
    free(of->sector);
    free(of->entry);
}

/* Lock held. */
static int take_batch(struct qcow2 *q, struct batch *b)
{
    int ret;

    memset(b, 0, sizeof *b);
    ret = copy_slices(&q->refcounts, &b->refcounts);
    if (!ret)
        ret = copy_slices(&q->l2, &b->l2);
    if (!ret && q->has_dirty_table) {
        ret = copy_table(q->table, q->table_dirty, q->table_entries, q->header.table_offset,
                         &b->table);
        q->has_dirty_table = ret != 0;
    }
    if (!ret && q->has_dirty_l1) {
        ret = copy_table(q->l1, q->l1_dirty, q->header.l1_entries, q->header.l1_offset, &b->l1);
        q->has_dirty_l1 = ret != 0;
    }
    if (!ret) {
        b->freed = q->freed;
        q->freed = (struct qcow2_ranges){0};
    }
    return ret;
}

static void give_back(struct qcow2 *q, struct batch *b, bool failed)
{
    end_slices(&b->refcounts, failed);
    end_slices(&b->l2, failed);
    end_table(&b->table, q->header.table_offset, q->table_dirty, &q->has_dirty_table, failed);
    end_table(&b->l1, q->header.l1_offset, q->l1_dirty, &q->has_dirty_l1, failed);
    for (size_t n = 0; n < b->freed.count && failed; n++)
        qcow2_ranges_add(&q->freed, b->freed.item[n].first, b->freed.item[n].count);
    if (failed)
        b->freed.count = 0;
}

/* ---- writing ---- */

static int write_slices(struct qcow2 *q, const struct slice_copies *from)
{
    for (unsigned n = 0; n < from->count; n++) {
        int ret = qcow2_write_file(q, from->slice[n]->offset,
                                   from->data + (size_t)n * from->cache->slice_bytes,
                                   from->cache->slice_bytes);

        if (ret)
            return ret;
    }
    return 0;
}

int qcow2_write_table(struct qcow2 *q, uint64_t offset, const uint64_t *table, uint64_t first,
                      uint64_t count)
{
    uint8_t sector[QCOW2_SECTOR];

    for (uint64_t at = first; at < first + count; at += QCOW2_ENTRIES_A_SECTOR) {
        uint64_t n = MIN(first + count - at, QCOW2_ENTRIES_A_SECTOR);
        int ret;

        memset(sector, 0, sizeof sector);
        for (uint64_t i = 0; i < n; i++)
            be64_put(sector + i * 8, table[at + i]);
        ret = qcow2_write_file(q, offset + at * 8, sector, sizeof sector);
        if (ret)
            return ret;
    }
    return 0;
}

static int write_sectors(struct qcow2 *q, const struct table_copies *from)
{
    for (uint64_t n = 0; n < from->count; n++) {
        int ret =
            qcow2_write_table(q, from->offset + from->sector[n] * QCOW2_SECTOR,
                              from->entry + n * QCOW2_ENTRIES_A_SECTOR, 0, QCOW2_ENTRIES_A_SECTOR);

        if (ret)
            return ret;
    }
    return 0;
}

static int write_batch(struct qcow2 *q, const struct batch *b)
{
    int ret = write_slices(q, &b->refcounts);

    if (!ret)
        ret = qcow2_barrier(q); /* of the data, too: always there */
    if (!ret && b->table.count) {
        ret = write_sectors(q, &b->table);
        if (!ret)
            ret = qcow2_barrier(q);
    }
    if (!ret && b->l2.count) {
        ret = write_slices(q, &b->l2);
        if (!ret)
            ret = qcow2_barrier(q);
    }
    if (!ret && b->l1.count) {
        ret = write_sectors(q, &b->l1);
        if (!ret)
            ret = qcow2_barrier(q);
    }
    return ret;
}

/* ---- what was given up ---- */

/* One reference less. Lock held. */
static void drop(struct qcow2 *q, uint64_t cluster)
{
    uint64_t count;

    /* What fails is a leak. A count of zero is an image that lies. */
    if (qcow2_is_metadata(q, cluster) || qcow2_refcount_get(q, cluster, &count) || !count ||
        qcow2_refcount_set(q, cluster, count - 1))
        return;
    if (count == 1)
        q->next_free = MIN(q->next_free, cluster);
}

/* Holes where nothing else is. They come before the clusters can be taken again. */
static void punch(struct qcow2 *q, const struct qcow2_range *r)
{
    uint64_t first = r->first, n = 0, count;

    if (!q->file->ops->discard)
        return;
    for (uint64_t c = r->first; c <= r->first + r->count; c++) {
        bool alone;

        mutex_lock(&q->lock);
        if (c < q->fresh_from && q->packed_at >> q->cluster_bits == c)
            q->packed_at = 0; /* nothing more goes there */
        alone = c < r->first + r->count && c < q->fresh_from && !qcow2_is_metadata(q, c) &&
                !qcow2_refcount_get(q, c, &count) && count == 1;
        mutex_unlock(&q->lock);
        if (alone) {
            n++;
            continue;
        }
        if (n)
            q->file->ops->discard(q->file, first << q->cluster_bits, n << q->cluster_bits);
        first = c + 1;
        n = 0;
    }
}

/* Commit lock held. */
static void apply(struct qcow2 *q, struct qcow2_ranges *ranges)
{
    struct qcow2_ranges r = *ranges;

    if (!r.count)
        return;
    *ranges = (struct qcow2_ranges){0};
    mutex_unlock(&q->lock);
    qcow2_forget_packed(q);
    for (size_t n = 0; n < r.count; n++)
        punch(q, &r.item[n]);
    mutex_lock(&q->lock);
    for (size_t n = 0; n < r.count; n++)
        for (uint64_t i = 0; i < r.item[n].count; i++)
            drop(q, r.item[n].first + i);
    free(r.item);
}

/*
 * What is committed is free when those who began in its epoch and in the one
 * before are done. An epoch begins when nobody of the last but one is left. Lock
 * held.
 */
static void reap(struct qcow2 *q, struct qcow2_ranges *committed)
{
    struct qcow2_ranges *limbo = &q->limbo[q->epoch];

    for (size_t n = 0; n < committed->count; n++)
        qcow2_ranges_add(limbo, committed->item[n].first, committed->item[n].count);
    free(committed->item);
    for (unsigned tries = 0; tries < 2; tries++) {
        unsigned other = q->epoch ^ 1;

        if (q->users[other])
            break;
        apply(q, &q->limbo[other]);
        q->epoch = other;
    }
}

/* ---- the commit ---- */

bool qcow2_wants_commit(const struct qcow2 *q)
{
    return qcow2_cache_is_full(&q->l2) || qcow2_cache_is_full(&q->refcounts) ||
           q->freed.count >= RANGES_MAX;
}

/* commit_lock held. */
static int commit_now(struct qcow2 *q)
{
    struct batch b;
    uint64_t mine;
    int ret;

    mutex_lock(&q->lock);
    if (q->is_broken) {
        mutex_unlock(&q->lock);
        return -EIO;
    }
    mine = ++q->commits_begun;
    ret = take_batch(q, &b);
    mutex_unlock(&q->lock);
    if (!ret)
        ret = write_batch(q, &b);
    mutex_lock(&q->lock);
    give_back(q, &b, ret != 0);
    reap(q, &b.freed);
    if (!ret)
        q->commits_done = mine;
    mutex_unlock(&q->lock);
    return ret;
}

int qcow2_commit(struct qcow2 *q)
{
    uint64_t wanted;
    bool is_done;
    int ret = 0;

    if (q->layer.readonly)
        return 0;
    mutex_lock(&q->lock);
    wanted = q->commits_begun + 1;
    mutex_unlock(&q->lock);
    mutex_lock(&q->commit_lock);
    mutex_lock(&q->lock);
    is_done = q->commits_done >= wanted;
    mutex_unlock(&q->lock);
    if (!is_done)
        ret = commit_now(q);
    mutex_unlock(&q->commit_lock);
    return ret;
}
