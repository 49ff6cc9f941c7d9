/*
 * Reference counts and allocation ("Host cluster management").
 * Interface: qcow2_internal.h.
 *
 * The refcount table is in memory as a whole, its blocks by slices. A block that
 * is missing is made in the first free cluster that it would count, so that it
 * counts itself. A table that is too short is replaced by a longer one behind
 * all clusters that the old one covers.
 *
 * A cluster whose count is zero in memory is one that nothing in the file refers
 * to: counts shrink only after the references are gone from the file
 * (qcow2_commit.c). So it may be used at once.
 *
 * Threading: the image's lock, which is kept while a slice is loaded: nothing
 * changes between finding a free cluster and taking it.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/disk/qcow2_internal.h"

/* ---- fields of 1 to 64 bits ---- */

uint64_t qcow2_field_get(const uint8_t *block, unsigned order, uint64_t index)
{
    uint64_t bit;

    switch (order) {
    case 3:
        return block[index];
    case 4:
        return be16_get(block + index * 2);
    case 5:
        return be32_get(block + index * 4);
    case 6:
        return be64_get(block + index * 8);
    default:
        bit = index << order;
        return block[bit / 8] >> bit % 8 & (BIT(BIT(order)) - 1);
    }
}

void qcow2_field_set(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
    uint64_t bit;
    uint8_t mask;

    switch (order) {
    case 3:
        block[index] = (uint8_t)value;
        break;
    case 4:
        be16_put(block + index * 2, (uint16_t)value);
        break;
    case 5:
        be32_put(block + index * 4, (uint32_t)value);
        break;
    case 6:
        be64_put(block + index * 8, value);
        break;
    default:
        bit = index << order;
        mask = (uint8_t)((BIT(BIT(order)) - 1) << bit % 8);
        block[bit / 8] = (uint8_t)((block[bit / 8] & ~mask) | (value << bit % 8 & mask));
    }
}

uint64_t qcow2_refcount_max(const struct qcow2 *q)
{
    return q->refcount_order == 6 ? UINT64_MAX : BIT(BIT(q->refcount_order)) - 1;
}

/* ---- single counts ---- */

/* Where a count is. *out NULL: there is no block, all its counts are zero. */
static int find_count(struct qcow2 *q, uint64_t cluster, struct qcow2_slice **out, uint64_t *index)
{
    uint64_t entry = cluster / q->block_entries, at = cluster % q->block_entries;
    unsigned slice_bytes = q->refcounts.slice_bytes;
    uint64_t a_slice = (uint64_t)slice_bytes * 8 >> q->refcount_order, block;

    *out = NULL;
    if (entry >= q->table_entries || !q->table[entry])
        return 0;
    block = q->table[entry];
    if (block & (q->cluster_bytes - 1) || block >> q->cluster_bits >= q->fresh_from)
        return -EIO;
    *index = at % a_slice;
    return qcow2_slice_get(q, &q->refcounts, block + at / a_slice * slice_bytes, out);
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    struct qcow2_slice *s;
    uint64_t index;
    int ret = find_count(q, cluster, &s, &index);

    if (ret)
        return ret;
    *count = 0;
    if (s) {
        *count = qcow2_field_get(s->data, q->refcount_order, index);
        qcow2_slice_put(s);
    }
    return 0;
}

int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    struct qcow2_slice *s;
    uint64_t index;
    int ret = find_count(q, cluster, &s, &index);

    if (ret)
        return ret;
    if (!s)
        return count ? -EIO : 0;
    qcow2_field_set(s->data, q->refcount_order, index, count);
    qcow2_slice_dirty(&q->refcounts, s);
    qcow2_slice_put(s);
    return 0;
}

/* ---- blocks and the table ---- */

static bool covers(const struct qcow2 *q, uint64_t cluster, uint64_t offset, uint64_t bytes)
{
    return cluster >= offset >> q->cluster_bits &&
           cluster < (offset >> q->cluster_bits) + qcow2_clusters_of(q, bytes);
}

bool qcow2_is_metadata(const struct qcow2 *q, uint64_t cluster)
{
    const struct qcow2_header *h = &q->header;
    uint64_t entry = cluster / q->block_entries;

    return cluster == 0 || covers(q, cluster, h->l1_offset, (uint64_t)h->l1_entries * 8) ||
           covers(q, cluster, h->table_offset, q->table_entries * 8) ||
           (h->snapshots && cluster == h->snapshots_offset >> q->cluster_bits) ||
           (entry < q->table_entries && q->table[entry] == cluster << q->cluster_bits);
}

static void note_used(struct qcow2 *q, uint64_t end)
{
    q->fresh_from = MAX(q->fresh_from, end);
}

static int zero_cluster(struct qcow2 *q, uint64_t cluster)
{
    return disk_layer_zero(q->file, cluster << q->cluster_bits, q->cluster_bytes);
}

/* A block in the cluster `cluster`, which it counts. */
static int make_block(struct qcow2 *q, uint64_t cluster)
{
    uint64_t entry = cluster / q->block_entries;
    int ret;

    if (qcow2_is_metadata(q, cluster))
        return -EIO;
    ret = zero_cluster(q, cluster);
    if (ret)
        return ret;
    qcow2_cache_forget(&q->refcounts, cluster << q->cluster_bits, q->cluster_bytes);
    note_used(q, cluster + 1);
    q->table[entry] = cluster << q->cluster_bits;
    ret = qcow2_refcount_set(q, cluster, 1);
    if (ret) {
        q->table[entry] = 0;
        return ret;
    }
    q->table_dirty[entry / QCOW2_ENTRIES_A_SECTOR / 64] |= BIT(entry / QCOW2_ENTRIES_A_SECTOR % 64);
    q->has_dirty_table = true;
    return 0;
}

/* All refcount slices as they are in memory. They stay dirty: a commit that is
 * under way may write an older state over this one. */
static int write_slices(struct qcow2 *q)
{
    int ret = 0;

    for (struct qcow2_slice *s = q->refcounts.newest; s && !ret; s = s->older)
        if (s->is_dirty || s->is_committing)
            ret = qcow2_write_file(q, s->offset, s->data, q->refcounts.slice_bytes);
    return ret;
}

struct new_table {
    uint64_t *entry, *dirty;
    uint64_t entries, first, clusters, blocks;
};

/* How large, if it begins behind what the old one covers and at least `more`
 * clusters shall follow. */
static int size_table(const struct qcow2 *q, struct new_table *t)
{
    t->first = q->table_entries * q->block_entries;
    t->clusters = t->blocks = 1;
    for (;;) {
        /* Half as much again, so that it is not soon too short. */
        uint64_t used = t->first + t->clusters + t->blocks;
        uint64_t blocks = (used + q->block_entries - 1) / q->block_entries - q->table_entries;
        uint64_t bytes = (q->table_entries + blocks + q->table_entries / 2) * 8;
        uint64_t clusters = qcow2_clusters_of(q, bytes);

        if (blocks <= t->blocks && clusters <= t->clusters)
            break;
        t->blocks = MAX(blocks, t->blocks);
        t->clusters = MAX(clusters, t->clusters);
    }
    t->entries = t->clusters << q->cluster_bits >> 3;
    if (t->clusters << q->cluster_bits > QCOW2_TABLE_BYTES_MAX)
        return -EFBIG;
    if (t->first + t->clusters + t->blocks > q->cluster_limit)
        return -ENOSPC;
    return 0;
}

static int write_blocks(struct qcow2 *q, const struct new_table *t)
{
    uint64_t used = t->first + t->clusters + t->blocks;
    uint8_t *block = malloc(q->cluster_bytes);
    int ret = block ? 0 : -ENOMEM;

    for (uint64_t n = 0; n < t->blocks && !ret; n++) {
        uint64_t base = (q->table_entries + n) * q->block_entries;

        memset(block, 0, q->cluster_bytes);
        for (uint64_t c = MAX(base, t->first); c < MIN(used, base + q->block_entries); c++)
            qcow2_field_set(block, q->refcount_order, c - base, 1);
        ret = qcow2_write_file(q, (t->first + t->clusters + n) << q->cluster_bits, block,
                               q->cluster_bytes);
    }
    free(block);
    return ret;
}

static int switch_table(struct qcow2 *q, const struct new_table *t)
{
    struct qcow2_header before = q->header;
    int ret = write_slices(q);

    if (!ret)
        ret = write_blocks(q, t);
    if (!ret)
        ret = qcow2_write_table(q, t->first << q->cluster_bits, t->entry, 0, t->entries);
    if (!ret)
        ret = qcow2_barrier(q);
    if (ret)
        return ret;
    q->header.table_offset = t->first << q->cluster_bits;
    q->header.table_clusters = (uint32_t)t->clusters;
    ret = qcow2_header_write(q);
    if (!ret)
        ret = qcow2_barrier(q);
    if (ret) {
        /* Which of the two the file has is not known: nothing more may be written. */
        q->header = before;
        q->is_broken = true;
    }
    return ret;
}

/* A longer table. Rare: once for 2 PiB of data with clusters of 64 KiB. */
static int grow_table(struct qcow2 *q)
{
    struct new_table t = {0};
    uint64_t old_first = q->header.table_offset >> q->cluster_bits;
    uint64_t old_clusters = q->header.table_clusters;
    int ret = size_table(q, &t);

    if (ret)
        return ret;
    t.entry = calloc(t.entries, sizeof *t.entry);
    t.dirty = calloc(t.entries / QCOW2_ENTRIES_A_SECTOR / 64 + 1, sizeof *t.dirty);
    if (!t.entry || !t.dirty) {
        ret = -ENOMEM;
        goto fail;
    }
    memcpy(t.entry, q->table, q->table_entries * sizeof *t.entry);
    for (uint64_t n = 0; n < t.blocks; n++)
        t.entry[q->table_entries + n] = (t.first + t.clusters + n) << q->cluster_bits;
    note_used(q, t.first + t.clusters + t.blocks);
    ret = switch_table(q, &t);
    if (ret)
        goto fail;
    free(q->table);
    free(q->table_dirty);
    q->table = t.entry;
    q->table_dirty = t.dirty;
    q->table_entries = t.entries;
    q->has_dirty_table = false;
    return qcow2_free_later(q, old_first, old_clusters);

fail:
    free(t.entry);
    free(t.dirty);
    return ret;
}

/* ---- allocation ---- */

/* Is the cluster free, after anything that has to be there for its count? 1, 0, or
 * a negative errno. */
static int try_cluster(struct qcow2 *q, uint64_t cluster)
{
    uint64_t count;
    int ret;

    if (cluster >= q->cluster_limit)
        return -ENOSPC;
    if (cluster / q->block_entries >= q->table_entries) {
        ret = grow_table(q);
        return ret ? ret : 0; /* its counts, or a free cluster: the next look says */
    }
    if (!q->table[cluster / q->block_entries]) {
        ret = make_block(q, cluster);
        return ret ? ret : 0;
    }
    ret = qcow2_refcount_get(q, cluster, &count);
    if (ret || count)
        return ret;
    return qcow2_is_metadata(q, cluster) ? -EIO : 1;
}

static int take(struct qcow2 *q, uint64_t first, uint64_t count)
{
    for (uint64_t n = 0; n < count; n++) {
        int ret = qcow2_refcount_set(q, first + n, 1);

        if (ret) {
            qcow2_unalloc(q, first, n);
            return ret;
        }
    }
    return 0;
}

int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got, bool *is_fresh)
{
    uint64_t at = q->next_free, n = 0;
    int ret;

    if (q->is_broken)
        return -EIO;
    while (n < want) {
        /* Blocks are made before a run, never inside. */
        if (n && (at + n) % q->block_entries == 0 &&
            ((at + n) / q->block_entries >= q->table_entries ||
             !q->table[(at + n) / q->block_entries]))
            break;
        /* Nor is a run part fresh and part not. */
        if (n && (at + n == q->fresh_from))
            break;
        ret = try_cluster(q, at + n);
        if (ret < 0 && !(n && ret == -ENOSPC))
            return ret;
        if (ret == 1)
            n++;
        else if (n)
            break;
        else
            at++;
    }
    ret = take(q, at, n);
    if (ret)
        return ret;
    *is_fresh = q->can_grow && at >= q->fresh_from;
    note_used(q, at + n);
    q->next_free = at + n;
    *first = at;
    *got = n;
    return 0;
}

int qcow2_alloc_all(struct qcow2 *q, uint64_t count, uint64_t *first)
{
    uint64_t at = q->next_free, n = 0;
    int ret;

    if (q->is_broken)
        return -EIO;
    while (n < count) {
        ret = try_cluster(q, at + n);
        if (ret < 0)
            return ret;
        if (ret == 1) {
            n++;
        } else {
            at += n + 1;
            n = 0;
        }
    }
    ret = take(q, at, count);
    if (ret)
        return ret;
    note_used(q, at + count);
    if (at == q->next_free)
        q->next_free = at + count;
    *first = at;
    return 0;
}

void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t count)
{
    /* What fails here is a leak. */
    for (uint64_t n = 0; n < count; n++)
        if (qcow2_refcount_set(q, first + n, 0))
            return;
    if (count)
        q->next_free = MIN(q->next_free, first);
}

/* ---- giving up ---- */

int qcow2_ranges_add(struct qcow2_ranges *r, uint64_t first, uint64_t count)
{
    struct qcow2_range *last = r->count ? &r->item[r->count - 1] : NULL;

    if (last && last->first + last->count == first) {
        last->count += count;
        return 0;
    }
    if (r->count == r->room) {
        size_t room = MAX(r->room * 2, 64u);
        struct qcow2_range *more = realloc(r->item, room * sizeof *more);

        if (!more)
            return -ENOMEM;
        r->item = more;
        r->room = room;
    }
    r->item[r->count++] = (struct qcow2_range){first, count};
    return 0;
}

int qcow2_free_later(struct qcow2 *q, uint64_t first, uint64_t count)
{
    /* Without memory to remember it in it is a leak, which a check repairs. */
    qcow2_ranges_add(&q->freed, first, count);
    return 0;
}
