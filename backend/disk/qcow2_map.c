/*
 * Guest clusters to host clusters ("Cluster mapping"): L1 and L2.
 * Interface: qcow2_internal.h.
 *
 * L1 is in memory as a whole, L2 by slices. A table that a snapshot shares is
 * copied before the first change; a new one is zeroed in the file before L1 may
 * refer to it (qcow2_commit.c).
 *
 * Threading: the image's lock. qcow2_l2_get lets it go while a slice is loaded;
 * making a table of one's own does not.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/disk/qcow2_internal.h"

/* ---- entries ---- */

enum qcow2_kind qcow2_kind_of(const struct qcow2 *q, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (entry & QCOW2_COMPRESSED)
        return QCOW2_KIND_COMPRESSED;
    if (entry & QCOW2_L2_RESERVED || offset & (q->cluster_bytes - 1))
        return QCOW2_KIND_WRONG;
    if (entry & QCOW2_ZERO) {
        if (q->version < 3 || q->unit_shift)
            return QCOW2_KIND_WRONG;
        return offset ? QCOW2_KIND_ZERO_DATA : QCOW2_KIND_ZERO;
    }
    return offset ? QCOW2_KIND_DATA : QCOW2_KIND_NONE;
}

enum qcow2_kind qcow2_unit_kind(const struct qcow2 *q, uint64_t entry, uint64_t bits, unsigned unit)
{
    enum qcow2_kind kind = qcow2_kind_of(q, entry);
    bool has_data = bits >> unit & 1, is_zero = bits >> (32 + unit) & 1;

    /* A compressed cluster is one, whatever the bits say. */
    if (!q->unit_shift || kind == QCOW2_KIND_COMPRESSED || kind == QCOW2_KIND_WRONG)
        return kind;
    if (has_data && (is_zero || kind == QCOW2_KIND_NONE))
        return QCOW2_KIND_WRONG;
    if (is_zero)
        return kind == QCOW2_KIND_DATA ? QCOW2_KIND_ZERO_DATA : QCOW2_KIND_ZERO;
    return has_data ? QCOW2_KIND_DATA : QCOW2_KIND_NONE;
}

bool qcow2_bits_are_wrong(const struct qcow2 *q, uint64_t entry, uint64_t bits)
{
    switch (qcow2_kind_of(q, entry)) {
    case QCOW2_KIND_COMPRESSED:
        return bits != 0;
    case QCOW2_KIND_NONE:
        return bits & QCOW2_UNITS_DATA;
    default:
        return bits & bits >> 32;
    }
}

void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes)
{
    unsigned x = 62 - (q->cluster_bits - 8);
    uint64_t sectors = bits_get(entry, 61, x) + 1;

    /* Bits beyond 55 of an offset have to be 0. */
    *offset = entry & BITS(MIN(x - 1, 55u), 0);
    *bytes = sectors * QCOW2_SECTOR - *offset % QCOW2_SECTOR;
}

/* ---- tables ---- */

void qcow2_l2_set(struct qcow2 *q, struct qcow2_slice *s, unsigned index, uint64_t entry)
{
    be64_put(s->data + ((size_t)index << q->entry_shift), entry);
    qcow2_slice_dirty(&q->l2, s);
}

void qcow2_l2_set_bits(struct qcow2 *q, struct qcow2_slice *s, unsigned index, uint64_t bits)
{
    if (!q->unit_shift)
        return;
    be64_put(s->data + ((size_t)index << q->entry_shift) + 8, bits);
    qcow2_slice_dirty(&q->l2, s);
}

void qcow2_l1_set(struct qcow2 *q, uint64_t index, uint64_t entry)
{
    uint64_t sector = index / QCOW2_ENTRIES_A_SECTOR;

    q->l1[index] = entry;
    q->l1_dirty[sector / 64] |= BIT(sector % 64);
    q->has_dirty_l1 = true;
}

/* The table's offset, 0: there is none. */
static int find_table(struct qcow2 *q, uint64_t index, uint64_t *table)
{
    uint64_t entry;

    if (index >= q->header.l1_entries)
        return -EINVAL;
    entry = q->l1[index];
    *table = entry & QCOW2_OFFSET_MASK;
    if (entry & QCOW2_L1_RESERVED || *table & (q->cluster_bytes - 1) ||
        *table >> q->cluster_bits >= q->fresh_from)
        return -EIO;
    return 0;
}

/* Of the slice with a guest cluster's entry. */
static uint64_t slice_offset(const struct qcow2 *q, uint64_t table, uint64_t guest)
{
    return table + (align_down(guest & (q->l2_entries - 1), q->l2_slice_entries) << q->entry_shift);
}

static int get_slice(struct qcow2 *q, uint64_t table, uint64_t guest, struct qcow2_slice **out,
                     unsigned *index)
{
    *index = (unsigned)(guest & (q->l2_slice_entries - 1));
    return qcow2_slice_get(q, &q->l2, slice_offset(q, table, guest), out);
}

int qcow2_l2_get(struct qcow2 *q, uint64_t guest, struct qcow2_slice **out, unsigned *index)
{
    uint64_t table;
    int ret = find_table(q, guest / q->l2_entries, &table);

    *out = NULL;
    *index = (unsigned)(guest & (q->l2_slice_entries - 1));
    return ret || !table ? ret : get_slice(q, table, guest, out, index);
}

bool qcow2_l2_is_here(struct qcow2 *q, uint64_t guest)
{
    uint64_t table;

    return !find_table(q, guest / q->l2_entries, &table) &&
           (!table || qcow2_slice_is_here(&q->l2, slice_offset(q, table, guest)));
}

/* A table of our own for that entry of L1: empty, or what the shared one has. */
static int make_table(struct qcow2 *q, uint64_t index, uint64_t old)
{
    uint64_t cluster, offset;
    int ret = qcow2_alloc_all(q, 1, &cluster);

    if (ret)
        return ret;
    offset = cluster << q->cluster_bits;
    qcow2_cache_forget(&q->l2, offset, q->cluster_bytes);
    if (old) {
        /* No slice of it is dirty: only tables of our own are written to. */
        uint8_t *copy = malloc(q->cluster_bytes);

        ret = copy ? qcow2_read_file(q, old, copy, q->cluster_bytes) : -ENOMEM;
        if (!ret)
            ret = qcow2_write_file(q, offset, copy, q->cluster_bytes);
        free(copy);
    } else {
        ret = disk_layer_zero(q->file, offset, q->cluster_bytes);
    }
    if (ret) {
        qcow2_unalloc(q, cluster, 1);
        return ret;
    }
    qcow2_l1_set(q, index, offset | QCOW2_COPIED);
    return old ? qcow2_free_later(q, old >> q->cluster_bits, 1) : 0;
}

int qcow2_l2_own(struct qcow2 *q, uint64_t guest, struct qcow2_slice **out, unsigned *index)
{
    uint64_t l1_index = guest / q->l2_entries, table;
    int ret = find_table(q, l1_index, &table);

    *out = NULL;
    if (ret)
        return ret;
    if (!table || !(q->l1[l1_index] & QCOW2_COPIED)) {
        ret = make_table(q, l1_index, table);
        if (ret)
            return ret;
        table = q->l1[l1_index] & QCOW2_OFFSET_MASK;
    }
    return get_slice(q, table, guest, out, index);
}

int qcow2_free_entry(struct qcow2 *q, uint64_t entry)
{
    uint64_t offset, bytes, first, last;

    switch (qcow2_kind_of(q, entry)) {
    case QCOW2_KIND_DATA:
    case QCOW2_KIND_ZERO_DATA:
        return qcow2_free_later(q, (entry & QCOW2_OFFSET_MASK) >> q->cluster_bits, 1);
    case QCOW2_KIND_COMPRESSED:
        qcow2_packed_range(q, entry, &offset, &bytes);
        first = offset >> q->cluster_bits;
        last = (offset + bytes - 1) >> q->cluster_bits;
        return qcow2_free_later(q, first, last - first + 1);
    case QCOW2_KIND_NONE:
    case QCOW2_KIND_ZERO:
    case QCOW2_KIND_WRONG:
        break;
    }
    return 0;
}

/* ---- clusters whose place is being changed ---- */

bool qcow2_is_busy(const struct qcow2 *q, uint64_t first, uint64_t last)
{
    for (const struct qcow2_busy *b = q->busy; b; b = b->next)
        if (first <= b->last && last >= b->first)
            return true;
    return false;
}

void qcow2_busy_add(struct qcow2 *q, struct qcow2_busy *b, uint64_t first, uint64_t last)
{
    *b = (struct qcow2_busy){.first = first, .last = last, .next = q->busy};
    q->busy = b;
}

void qcow2_busy_remove(struct qcow2 *q, struct qcow2_busy *b)
{
    struct qcow2_busy **at = &q->busy;

    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    qcow2_wake(q);
}
