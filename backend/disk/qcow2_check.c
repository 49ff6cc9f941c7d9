/*
 * Checking a qcow2 image: every reference is counted and compared with what the
 * image says; and its repair. Interface: qcow2.h.
 *
 * A table of L2 is read once, however many snapshots share it: what it refers to
 * gets as many references as it has itself. So the cost is bounded by the file's
 * length, whatever the tables say.
 *
 * The repair writes refcounts anew, behind everything there is, and then lets the
 * header say so with one write: a kill on the way leaves the image as it was. The
 * old ones become free space.
 *
 * Threading: while no request is under way.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/disk/qcow2_internal.h"

enum { LEAF_CLUSTERS = 4096, LINES_MAX = 200, PROGRESS_EVERY = 64 };

/* So that a file that claims to be endless is no reason to run out of memory. */
#define LEAVES_MAX ((uint64_t)1 << 25)

/* ---- counts of clusters, most of which are none ---- */

struct counts {
    uint32_t **leaf;
    uint64_t leaves, clusters;
};

static int counts_init(struct counts *c, uint64_t clusters)
{
    c->clusters = clusters;
    c->leaves = clusters / LEAF_CLUSTERS + 1;
    c->leaf = c->leaves <= LEAVES_MAX ? calloc(c->leaves, sizeof *c->leaf) : NULL;
    return c->leaf ? 0 : -ENOMEM;
}

static void counts_destroy(struct counts *c)
{
    for (uint64_t n = 0; c->leaf && n < c->leaves; n++)
        free(c->leaf[n]);
    free(c->leaf);
    c->leaf = NULL;
}

static uint32_t counts_get(const struct counts *c, uint64_t cluster)
{
    const uint32_t *leaf = cluster < c->clusters ? c->leaf[cluster / LEAF_CLUSTERS] : NULL;

    return leaf ? leaf[cluster % LEAF_CLUSTERS] : 0;
}

static int counts_add(struct counts *c, uint64_t cluster, uint32_t n)
{
    uint32_t **leaf = &c->leaf[cluster / LEAF_CLUSTERS], *at;

    if (!*leaf)
        *leaf = calloc(LEAF_CLUSTERS, sizeof **leaf);
    if (!*leaf)
        return -ENOMEM;
    at = &(*leaf)[cluster % LEAF_CLUSTERS];
    *at = n > UINT32_MAX - *at ? UINT32_MAX : *at + n;
    return 0;
}

/* ---- the walk ---- */

struct walk {
    struct qcow2 *q;
    struct qcow2_check *check;
    struct counts refs;
    struct counts tables; /* L2 tables, by how many L1 entries refer to them */
    uint64_t done, total; /* of progress */
    unsigned lines;
    bool quiet;
};

static void tell(struct walk *w, const char *format, ...) PRINTF_LIKE(2, 3);

static void tell(struct walk *w, const char *format, ...)
{
    char line[256];
    va_list args;

    if (w->quiet || !w->check->tell || w->lines > LINES_MAX)
        return;
    if (w->lines++ == LINES_MAX) {
        w->check->tell(w->check->ctx, "and more");
        return;
    }
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    w->check->tell(w->check->ctx, line);
}

static int advance(struct walk *w)
{
    w->done++;
    if (w->done % PROGRESS_EVERY || !w->check->progress)
        return 0;
    return w->check->progress(w->check->ctx, MIN(w->done, w->total), w->total) ? -ECANCELED : 0;
}

/* References to bytes of the file. What is not in the file is damage. */
static int refer(struct walk *w, uint64_t offset, uint64_t bytes, uint32_t n, const char *what)
{
    struct qcow2 *q = w->q;
    uint64_t first = offset >> q->cluster_bits, last;
    int ret = 0;

    if (!bytes)
        return 0;
    last = (offset + bytes - 1) >> q->cluster_bits;
    if (last >= w->refs.clusters || offset + bytes < offset) {
        w->check->corruptions++;
        tell(w, "%s at %#llx is behind the end of the file", what, (unsigned long long)offset);
        return 0;
    }
    for (uint64_t c = first; c <= last && !ret; c++)
        ret = counts_add(&w->refs, c, n);
    return ret;
}

static int wrong(struct walk *w, const char *what, uint64_t entry)
{
    w->check->corruptions++;
    tell(w, "%s makes no sense: %#llx", what, (unsigned long long)entry);
    return 0;
}

static int refer_l1(struct walk *w, uint64_t offset, uint32_t entries, const char *what)
{
    struct qcow2 *q = w->q;
    uint8_t sector[QCOW2_SECTOR];
    int ret;

    if (offset & (q->cluster_bytes - 1))
        return wrong(w, what, offset);
    ret = refer(w, offset, (uint64_t)entries * 8, 1, what);
    if (ret || offset >> q->cluster_bits >= w->refs.clusters)
        return ret;
    for (uint32_t n = 0; n < entries; n++) {
        uint64_t entry, table;

        if (n % QCOW2_ENTRIES_A_SECTOR == 0) {
            ret = qcow2_read_file(q, offset + (uint64_t)n * 8, sector, sizeof sector);
            if (ret)
                return ret;
        }
        entry = be64_get(sector + n % QCOW2_ENTRIES_A_SECTOR * 8);
        table = entry & QCOW2_OFFSET_MASK;
        if (!table)
            continue;
        if (entry & QCOW2_L1_RESERVED || table & (q->cluster_bytes - 1)) {
            ret = wrong(w, "an L1 entry", entry);
        } else {
            ret = refer(w, table, q->cluster_bytes, 1, "an L2 table");
            if (!ret && table >> q->cluster_bits < w->tables.clusters)
                ret = counts_add(&w->tables, table >> q->cluster_bits, 1);
        }
        if (ret)
            return ret;
    }
    return 0;
}

static int refer_snapshots(struct walk *w)
{
    struct qcow2 *q = w->q;
    struct qcow2_snapshots list;
    struct error err;
    uint64_t bytes = 0;
    int ret;

    if (!q->header.snapshots)
        return 0;
    if (qcow2_snapshots_read(&q->layer, &list, &err)) {
        w->check->corruptions++;
        tell(w, "the list of snapshots makes no sense");
        return 0;
    }
    for (uint32_t n = 0; n < list.count; n++) {
        const struct qcow2_snapshot *s = &list.item[n];

        bytes += align_up(40 + s->extra_bytes + strlen(s->id) + strlen(s->name), 8);
    }
    ret = refer(w, q->header.snapshots_offset, bytes, 1, "the list of snapshots");
    for (uint32_t n = 0; n < list.count && !ret; n++)
        ret = refer_l1(w, list.item[n].l1_offset, list.item[n].l1_entries, "a snapshot's L1 table");
    qcow2_snapshots_free(&list);
    return ret;
}

/* "Bitmaps": counted as long as the autoclear bit says that they are valid. */
static int refer_bitmaps(struct walk *w)
{
    const struct qcow2_header *h = &w->q->header;
    uint64_t at = h->bitmap_directory_offset, end = at + h->bitmap_directory_bytes;
    int ret;

    if (!(h->autoclear & QCOW2_BITMAPS) || !h->bitmap_directory_bytes)
        return 0;
    if (h->bitmap_directory_bytes > QCOW2_SNAPSHOT_TABLE_BYTES_MAX || end < at)
        return wrong(w, "the directory of bitmaps", at);
    ret = refer(w, at, h->bitmap_directory_bytes, 1, "the directory of bitmaps");
    for (uint32_t n = 0; n < h->bitmaps && at + 24 <= end && !ret; n++) {
        uint8_t e[24], entry[8];
        uint64_t table;
        uint32_t entries;

        ret = qcow2_read_file(w->q, at, e, sizeof e);
        if (ret)
            return ret;
        table = be64_get(e);
        entries = be32_get(e + 8);
        ret = refer(w, table, (uint64_t)entries * 8, 1, "a bitmap's table");
        for (uint32_t i = 0; i < entries && !ret; i++) {
            if (table + (uint64_t)i * 8 >= w->refs.clusters << w->q->cluster_bits)
                break;
            ret = qcow2_read_file(w->q, table + (uint64_t)i * 8, entry, sizeof entry);
            if (!ret && be64_get(entry) & QCOW2_OFFSET_MASK)
                ret = refer(w, be64_get(entry) & QCOW2_OFFSET_MASK, w->q->cluster_bytes, 1,
                            "a bitmap");
        }
        at = align_up(at + 24 + be32_get(e + 20) + be16_get(e + 18), 8);
    }
    return ret;
}

static int refer_entry(struct walk *w, uint64_t entry, uint32_t n)
{
    struct qcow2 *q = w->q;
    uint64_t offset, bytes;

    switch (qcow2_kind_of(q, entry)) {
    case QCOW2_KIND_DATA:
    case QCOW2_KIND_ZERO_DATA:
        return refer(w, entry & QCOW2_OFFSET_MASK, q->cluster_bytes, n, "a data cluster");
    case QCOW2_KIND_COMPRESSED:
        qcow2_packed_range(q, entry, &offset, &bytes);
        return refer(w, offset, bytes, n, "a compressed cluster");
    case QCOW2_KIND_WRONG:
        return wrong(w, "an L2 entry", entry);
    case QCOW2_KIND_NONE:
    case QCOW2_KIND_ZERO:
        break;
    }
    return 0;
}

static int refer_tables(struct walk *w)
{
    struct qcow2 *q = w->q;
    uint8_t *table = malloc(q->cluster_bytes);
    int ret = table ? 0 : -ENOMEM;

    for (uint64_t l = 0; l < w->tables.leaves && !ret; l++) {
        for (uint64_t i = 0; w->tables.leaf[l] && i < LEAF_CLUSTERS && !ret; i++) {
            uint32_t n = w->tables.leaf[l][i];

            if (!n)
                continue;
            ret = qcow2_read_file(q, (l * LEAF_CLUSTERS + i) << q->cluster_bits, table,
                                  q->cluster_bytes);
            for (unsigned e = 0; e < q->l2_entries && !ret; e++) {
                const uint8_t *at = table + ((size_t)e << q->entry_shift);
                uint64_t entry = be64_get(at), bits = q->unit_shift ? be64_get(at + 8) : 0;

                if (qcow2_bits_are_wrong(q, entry, bits))
                    ret = wrong(w, "a bitmap of subclusters", bits);
                if (entry && !ret)
                    ret = refer_entry(w, entry, n);
            }
            if (!ret)
                ret = advance(w);
        }
    }
    free(table);
    return ret;
}

static int refer_refcounts(struct walk *w)
{
    struct qcow2 *q = w->q;
    int ret = refer(w, q->header.table_offset,
                    (uint64_t)q->header.table_clusters << q->cluster_bits, 1, "the refcount table");

    for (uint64_t n = 0; n < q->table_entries && !ret; n++) {
        if (!q->table[n])
            continue;
        if (q->table[n] & (q->cluster_bytes - 1))
            ret = wrong(w, "a refcount table entry", q->table[n]);
        else
            ret = refer(w, q->table[n], q->cluster_bytes, 1, "a refcount block");
    }
    return ret;
}

/* Everything but the refcounts themselves, unless they are wanted. */
static int walk_all(struct walk *w, bool refcounts)
{
    struct qcow2 *q = w->q;
    uint64_t clusters = q->fresh_from;
    int ret = counts_init(&w->refs, clusters);

    if (!ret)
        ret = counts_init(&w->tables, clusters);
    if (!ret)
        ret = refer(w, 0, q->cluster_bytes, 1, "the header");
    if (!ret && q->header.l1_entries)
        ret = refer_l1(w, q->header.l1_offset, q->header.l1_entries, "the L1 table");
    if (!ret)
        ret = refer_snapshots(w);
    if (!ret)
        ret = refer_bitmaps(w);
    if (!ret && refcounts)
        ret = refer_refcounts(w);
    for (uint64_t l = 0; l < w->tables.leaves && !ret; l++)
        for (uint64_t i = 0; w->tables.leaf[l] && i < LEAF_CLUSTERS; i++)
            w->total += w->tables.leaf[l][i] != 0;
    return ret ? ret : refer_tables(w);
}

static void walk_end(struct walk *w)
{
    counts_destroy(&w->refs);
    counts_destroy(&w->tables);
}

/* ---- comparing ---- */

static int compare_counts(struct walk *w)
{
    struct qcow2 *q = w->q;
    uint64_t end = q->fresh_from;
    int ret = 0;

    for (uint64_t n = 0; n < q->table_entries; n++)
        if (q->table[n])
            end = MAX(end, (n + 1) * q->block_entries);
    for (uint64_t c = 0; c < end && !ret;) {
        uint64_t block = c / q->block_entries, count = 0, refs = counts_get(&w->refs, c);
        bool has_block = block < q->table_entries && q->table[block];

        if (!has_block && (c >= w->refs.clusters || !w->refs.leaf[c / LEAF_CLUSTERS])) {
            c = MIN((block + 1) * q->block_entries, (c / LEAF_CLUSTERS + 1) * LEAF_CLUSTERS);
            continue;
        }
        mutex_lock(&q->lock);
        if (has_block && qcow2_refcount_get(q, c, &count)) {
            w->check->corruptions++;
            tell(w, "a refcount block cannot be read");
            c = (block + 1) * q->block_entries - 1;
        } else if (count < refs) {
            w->check->corruptions++;
            tell(w, "cluster %llu is used %llu times, and its refcount is %llu",
                 (unsigned long long)c, (unsigned long long)refs, (unsigned long long)count);
        } else if (count > refs) {
            w->check->leaks++;
            tell(w, "cluster %llu is used %llu times, and its refcount is %llu: a leak",
                 (unsigned long long)c, (unsigned long long)refs, (unsigned long long)count);
        }
        if (count || refs)
            w->check->image_end = (c + 1) << q->cluster_bits;
        mutex_unlock(&q->lock);
        c++;
    }
    return ret;
}

static void compare_copied(struct walk *w, uint64_t entry, uint64_t cluster, const char *what)
{
    uint64_t count;
    bool is_one;

    if (cluster >= w->q->fresh_from)
        return; /* told before */
    if (qcow2_refcount_get(w->q, cluster, &count))
        return;
    is_one = count == 1;
    if (is_one == !!(entry & QCOW2_COPIED))
        return;
    w->check->corruptions++;
    tell(w, "%s at cluster %llu has a refcount of %llu, and its entry says %s", what,
         (unsigned long long)cluster, (unsigned long long)count,
         is_one ? "that it is shared" : "that it is not shared");
}

/* The disk as it is now: COPIED bits, and what `check` has to say in numbers. */
static int compare_active(struct walk *w)
{
    struct qcow2 *q = w->q;
    struct qcow2_check *check = w->check;
    uint64_t next = 0, guests = qcow2_clusters_of(q, q->header.virtual_bytes);
    uint8_t *table = malloc(q->cluster_bytes);
    int ret = table ? 0 : -ENOMEM;

    check->total_clusters = guests;
    mutex_lock(&q->lock);
    for (uint32_t n = 0; n < q->header.l1_entries && !ret; n++) {
        uint64_t offset = q->l1[n] & QCOW2_OFFSET_MASK;

        if (!offset || offset & (q->cluster_bytes - 1) ||
            offset >> q->cluster_bits >= q->fresh_from)
            continue;
        compare_copied(w, q->l1[n], offset >> q->cluster_bits, "an L2 table");
        ret = qcow2_read_file(q, offset, table, q->cluster_bytes);
        for (unsigned e = 0; e < q->l2_entries && !ret; e++) {
            uint64_t entry = be64_get(table + ((size_t)e << q->entry_shift));
            uint64_t at = entry & QCOW2_OFFSET_MASK;
            enum qcow2_kind kind = qcow2_kind_of(q, entry);

            if (kind == QCOW2_KIND_COMPRESSED) {
                check->allocated_clusters++;
                check->compressed_clusters++;
                check->fragmented_clusters++;
                if (entry & QCOW2_COPIED)
                    ret = wrong(w, "an L2 entry", entry);
            } else if (kind == QCOW2_KIND_DATA || kind == QCOW2_KIND_ZERO_DATA) {
                check->allocated_clusters++;
                check->fragmented_clusters += next && at != next;
                next = at + q->cluster_bytes;
                compare_copied(w, entry, at >> q->cluster_bits, "a data cluster");
            }
        }
        if (!ret)
            ret = advance(w);
    }
    mutex_unlock(&q->lock);
    free(table);
    return ret;
}

/* ---- repairing ---- */

static int fix_l2(struct qcow2 *q, uint64_t table)
{
    for (unsigned base = 0; base < q->l2_entries; base += q->l2_slice_entries) {
        struct qcow2_slice *s;
        int ret = qcow2_slice_get(q, &q->l2, table + ((uint64_t)base << q->entry_shift), &s);

        for (unsigned n = 0; !ret && n < q->l2_slice_entries; n++) {
            uint64_t entry = qcow2_l2_entry(q, s, n), count = 0, right;
            enum qcow2_kind kind = qcow2_kind_of(q, entry);

            if (kind != QCOW2_KIND_DATA && kind != QCOW2_KIND_ZERO_DATA)
                continue;
            ret = qcow2_refcount_get(q, (entry & QCOW2_OFFSET_MASK) >> q->cluster_bits, &count);
            right = (entry & ~QCOW2_COPIED) | (count == 1 ? QCOW2_COPIED : 0);
            if (!ret && right != entry)
                qcow2_l2_set(q, s, n, right);
        }
        if (ret)
            return ret;
        qcow2_slice_put(s);
        if (qcow2_wants_commit(q)) {
            mutex_unlock(&q->lock);
            ret = qcow2_commit(q);
            mutex_lock(&q->lock);
            if (ret)
                return ret;
        }
    }
    return 0;
}

int qcow2_fix_copied(struct qcow2 *q)
{
    int ret = 0;

    mutex_lock(&q->lock);
    for (uint32_t n = 0; n < q->header.l1_entries && !ret; n++) {
        uint64_t entry = q->l1[n], table = entry & QCOW2_OFFSET_MASK, count, right;

        if (!table || table & (q->cluster_bytes - 1) || table >> q->cluster_bits >= q->fresh_from)
            continue;
        ret = qcow2_refcount_get(q, table >> q->cluster_bits, &count);
        right = (entry & ~QCOW2_COPIED) | (count == 1 ? QCOW2_COPIED : 0);
        if (!ret && right != entry)
            qcow2_l1_set(q, n, right);
        /* A table that a snapshot shares is copied before it is written to, with
         * its bits: they have to be right there, too. */
        if (!ret)
            ret = fix_l2(q, table);
    }
    mutex_unlock(&q->lock);
    return ret;
}

struct layout {
    uint64_t first; /* the new table's first cluster */
    uint64_t table_clusters, blocks;
    uint8_t *needed; /* by table entry: has it a block? */
    uint64_t entries;
};

static bool has_counts(const struct counts *c, uint64_t first, uint64_t count)
{
    for (uint64_t n = first; n < first + count && n < c->clusters;) {
        if (!c->leaf[n / LEAF_CLUSTERS]) {
            n = (n / LEAF_CLUSTERS + 1) * LEAF_CLUSTERS;
            continue;
        }
        if (counts_get(c, n))
            return true;
        n++;
    }
    return false;
}

/* How much the new refcounts take, which they count themselves. */
static int plan_layout(struct walk *w, struct layout *to)
{
    struct qcow2 *q = w->q;
    uint64_t used = 0;

    to->first = q->fresh_from;
    to->entries = (q->fresh_from + q->block_entries - 1) / q->block_entries;
    for (unsigned tries = 0;; tries++) {
        uint64_t end, entries;

        to->table_clusters = MAX(qcow2_clusters_of(q, to->entries * 8), 1);
        free(to->needed);
        to->needed = calloc(1, to->entries);
        if (!to->needed)
            return -ENOMEM;
        used = 0;
        for (uint64_t n = 0; n < to->entries; n++)
            used += to->needed[n] = has_counts(&w->refs, n * q->block_entries, q->block_entries);
        /* Those that count the table and the blocks: at most so many more. */
        to->blocks = used;
        do {
            end = to->first + to->table_clusters + to->blocks;
            entries = (end + q->block_entries - 1) / q->block_entries;
            used = to->blocks;
            to->blocks = 0;
            for (uint64_t n = 0; n < MAX(entries, to->entries); n++)
                to->blocks += (n < to->entries && to->needed[n]) ||
                              (n >= to->first / q->block_entries && n < entries);
            to->blocks = MAX(to->blocks, used);
        } while (to->blocks != used);
        if (entries <= to->entries)
            break;
        to->entries = entries;
    }
    for (uint64_t n = to->first / q->block_entries; n < to->entries; n++)
        to->needed[n] = 1;
    if (to->table_clusters << q->cluster_bits > QCOW2_TABLE_BYTES_MAX)
        return -EFBIG;
    if (to->first + to->table_clusters + to->blocks > q->cluster_limit)
        return -ENOSPC;
    return 0;
}

static int write_new_refcounts(struct walk *w, const struct layout *to)
{
    struct qcow2 *q = w->q;
    uint64_t at = to->first + to->table_clusters, end = at + to->blocks;
    uint8_t *block = malloc(q->cluster_bytes);
    uint64_t *table = calloc(to->table_clusters, q->cluster_bytes);
    int ret = block && table ? 0 : -ENOMEM;

    for (uint64_t n = 0; n < to->entries && !ret; n++) {
        uint64_t base = n * q->block_entries;

        if (!to->needed[n])
            continue;
        memset(block, 0, q->cluster_bytes);
        for (uint64_t i = 0; i < q->block_entries && !ret; i++) {
            uint64_t c = base + i, count = counts_get(&w->refs, c);

            if (c >= to->first && c < end)
                count = 1;
            if (count > qcow2_refcount_max(q))
                ret = -ERANGE;
            if (count)
                qcow2_field_set(block, q->refcount_order, i, count);
        }
        table[n] = at << q->cluster_bits;
        if (!ret)
            ret = qcow2_write_file(q, at++ << q->cluster_bits, block, q->cluster_bytes);
    }
    if (!ret)
        ret = qcow2_write_table(q, to->first << q->cluster_bits, table, 0,
                                to->table_clusters << q->cluster_bits >> 3);
    if (!ret)
        ret = qcow2_barrier(q);
    free(block);
    free(table);
    return ret;
}

static int switch_refcounts(struct qcow2 *q, const struct layout *to, struct error *err)
{
    int ret;

    q->header.table_offset = to->first << q->cluster_bits;
    q->header.table_clusters = (uint32_t)to->table_clusters;
    q->fresh_from = to->first + to->table_clusters + to->blocks;
    ret = qcow2_header_write(q);
    if (!ret)
        ret = qcow2_barrier(q);
    if (ret)
        return ret;
    qcow2_cache_drop(&q->l2);
    qcow2_cache_drop(&q->refcounts);
    q->next_free = 0;
    return qcow2_load_tables(q, err);
}

static int rebuild(struct walk *w, struct error *err)
{
    struct qcow2 *q = w->q;
    struct layout to = {0};
    int ret;

    w->quiet = true;
    ret = walk_all(w, false);
    if (!ret)
        ret = plan_layout(w, &to);
    if (!ret)
        ret = write_new_refcounts(w, &to);
    if (!ret)
        ret = switch_refcounts(q, &to, err);
    free(to.needed);
    if (!ret)
        ret = qcow2_fix_copied(q);
    if (!ret)
        ret = qcow2_commit(q);
    if (!ret) {
        q->header.incompatible &= ~QCOW2_DIRTY;
        ret = qcow2_header_write(q);
    }
    if (!ret)
        ret = qcow2_barrier(q);
    if (ret)
        error_set(err, ret, "disk %s: cannot repair its refcounts: %s", q->name, strerror(-ret));
    return ret;
}

int qcow2_rebuild(struct qcow2 *q, struct error *err)
{
    struct qcow2_check nobody = {0};
    struct walk w = {.q = q, .check = &nobody};
    int ret = rebuild(&w, err);

    walk_end(&w);
    return ret;
}

/* ---- interface ---- */

static int look(struct qcow2 *q, struct qcow2_check *check)
{
    struct walk w = {.q = q, .check = check};
    int ret = walk_all(&w, true);

    check->image_end = 0;
    if (!ret)
        ret = compare_counts(&w);
    if (!ret)
        ret = compare_active(&w);
    walk_end(&w);
    return ret;
}

static void forget_findings(struct qcow2_check *check)
{
    check->corruptions = check->leaks = 0;
    check->allocated_clusters = check->compressed_clusters = check->fragmented_clusters = 0;
}

int qcow2_check(struct disk_layer *l, enum qcow2_repair repair, struct qcow2_check *check,
                struct error *err)
{
    struct qcow2 *q = qcow2_of(l);
    uint64_t before;
    int ret;

    forget_findings(check);
    check->repaired = false;
    ret = look(q, check);
    if (!ret && q->header.incompatible & QCOW2_CORRUPT && !check->corruptions &&
        repair == QCOW2_REPAIR_NONE)
        check->corruptions = 1; /* somebody has seen more than can be seen now */
    if (!ret && repair != QCOW2_REPAIR_NONE &&
        (check->leaks || (repair == QCOW2_REPAIR_ALL && check->corruptions) ||
         q->header.incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT))) {
        void (*tell_before)(void *ctx, const char *line) = check->tell;

        if (repair == QCOW2_REPAIR_LEAKS && check->corruptions)
            return error_set(err, -EIO,
                             "disk %s is damaged beyond leaks: vireo img check -r all %s", q->name,
                             q->name);
        ret = qcow2_rebuild(q, err);
        if (ret)
            return ret;
        before = check->corruptions + check->leaks;
        forget_findings(check);
        check->tell = NULL;
        ret = look(q, check);
        check->tell = tell_before;
        check->repaired = before > check->corruptions + check->leaks;
        if (!ret && !check->corruptions && q->header.incompatible & QCOW2_CORRUPT) {
            q->header.incompatible &= ~QCOW2_CORRUPT;
            ret = qcow2_header_write(q);
        }
    }
    if (ret == -ECANCELED)
        return ret;
    return ret ? error_set(err, ret, "disk %s: cannot check it: %s", q->name, strerror(-ret)) : 0;
}
