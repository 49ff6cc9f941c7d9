/*
 * Internal snapshots ("Snapshots"): another L1 with a name. Interface: qcow2.h.
 *
 * Taking one gives everything that the disk refers to a count more and copies its
 * L1; from then on a write to any of it copies. Each step leaves an image that is
 * right but for counts that are too high, and the one write that makes a change
 * real is of the header's sector: a kill on the way loses neither the disk nor a
 * snapshot. Version 3 has its dirty bit set meanwhile, so that counts are repaired
 * on the next opening.
 *
 * Threading: while no request is under way. The lock is taken all the same, for
 * what expects it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "backend/disk/qcow2_internal.h"

enum {
    ENTRY_BYTES = 40,
    EXTRA_BYTES = 16, /* those that are known */
    EXTRA_MAX = 1024,
};

/* ---- the table of snapshots ---- */

void qcow2_snapshots_free(struct qcow2_snapshots *list)
{
    for (uint32_t n = 0; n < list->count; n++) {
        free(list->item[n].id);
        free(list->item[n].name);
        free(list->item[n].extra);
    }
    free(list->item);
    *list = (struct qcow2_snapshots){0};
}

static char *read_text(struct qcow2 *q, uint64_t at, unsigned bytes)
{
    char *text = calloc(1, bytes + 1u);

    if (text && bytes && qcow2_read_file(q, at, text, bytes)) {
        free(text);
        return NULL;
    }
    return text;
}

static int read_one(struct qcow2 *q, uint64_t *at, struct qcow2_snapshot *s)
{
    uint8_t e[ENTRY_BYTES];
    unsigned id_bytes, name_bytes;
    uint64_t end = q->fresh_from << q->cluster_bits;
    int ret;

    if (*at + sizeof e > end)
        return -EINVAL;
    ret = qcow2_read_file(q, *at, e, sizeof e);
    if (ret)
        return ret;
    s->l1_offset = be64_get(e);
    s->l1_entries = be32_get(e + 8);
    id_bytes = be16_get(e + 12);
    name_bytes = be16_get(e + 14);
    s->seconds = be32_get(e + 16);
    s->nanoseconds = be32_get(e + 20);
    s->vm_clock_ns = be64_get(e + 24);
    s->vm_state_bytes = be32_get(e + 32);
    s->extra_bytes = be32_get(e + 36);
    s->virtual_bytes = q->header.virtual_bytes;
    if (s->extra_bytes > EXTRA_MAX || (uint64_t)s->l1_entries * 8 > QCOW2_L1_BYTES_MAX)
        return -EINVAL;
    s->extra = malloc(MAX(s->extra_bytes, 1));
    if (!s->extra)
        return -ENOMEM;
    ret = s->extra_bytes ? qcow2_read_file(q, *at + sizeof e, s->extra, s->extra_bytes) : 0;
    if (ret)
        return ret;
    if (s->extra_bytes >= 8)
        s->vm_state_bytes = be64_get(s->extra);
    if (s->extra_bytes >= 16)
        s->virtual_bytes = be64_get(s->extra + 8);
    *at += sizeof e + s->extra_bytes;
    s->id = read_text(q, *at, id_bytes);
    s->name = read_text(q, *at + id_bytes, name_bytes);
    *at = align_up(*at + id_bytes + name_bytes, 8);
    return s->id && s->name ? 0 : -EINVAL;
}

int qcow2_snapshots_read(struct disk_layer *l, struct qcow2_snapshots *list, struct error *err)
{
    struct qcow2 *q = qcow2_of(l);
    uint64_t start = q->header.snapshots_offset, at = start;
    uint32_t count = q->header.snapshots;

    *list = (struct qcow2_snapshots){0};
    if (!count)
        return 0;
    list->item = calloc(count, sizeof *list->item);
    if (!list->item)
        return error_set(err, -ENOMEM, "out of memory for the list of snapshots");
    for (uint32_t n = 0; n < count; n++) {
        int ret = at - start > QCOW2_SNAPSHOT_TABLE_BYTES_MAX
                      ? -EINVAL
                      : read_one(q, &at, &list->item[list->count++]);

        if (ret) {
            qcow2_snapshots_free(list);
            return error_set(err, ret, "disk %s: snapshot %u of its list makes no sense", q->name,
                             n + 1);
        }
    }
    return 0;
}

static uint64_t bytes_of(const struct qcow2_snapshot *s)
{
    return align_up(
        ENTRY_BYTES + MAX(s->extra_bytes, EXTRA_BYTES) + strlen(s->id) + strlen(s->name), 8);
}

static uint8_t *put_one(uint8_t *p, const struct qcow2_snapshot *s)
{
    uint32_t extra = MAX(s->extra_bytes, EXTRA_BYTES);
    uint8_t *end = p + bytes_of(s);

    be64_put(p, s->l1_offset);
    be32_put(p + 8, s->l1_entries);
    be16_put(p + 12, (uint16_t)strlen(s->id));
    be16_put(p + 14, (uint16_t)strlen(s->name));
    be32_put(p + 16, s->seconds);
    be32_put(p + 20, s->nanoseconds);
    be64_put(p + 24, s->vm_clock_ns);
    be32_put(p + 32, s->vm_state_bytes > UINT32_MAX ? 0 : (uint32_t)s->vm_state_bytes);
    be32_put(p + 36, extra);
    p += ENTRY_BYTES;
    if (s->extra_bytes)
        memcpy(p, s->extra, s->extra_bytes);
    be64_put(p, s->vm_state_bytes);
    be64_put(p + 8, s->virtual_bytes);
    p += extra;
    memcpy(p, s->id, strlen(s->id));
    memcpy(p + strlen(s->id), s->name, strlen(s->name));
    return end;
}

/* Commits around something that changes the header, which is as it was after a
 * failure. Lock held, let go meanwhile. */
static int commit_unlocked(struct qcow2 *q)
{
    int ret;

    mutex_unlock(&q->lock);
    ret = qcow2_commit(q);
    mutex_lock(&q->lock);
    return ret;
}

static int write_header(struct qcow2 *q, const struct qcow2_header *before)
{
    int ret = qcow2_header_write(q);

    if (!ret)
        ret = qcow2_barrier(q);
    if (ret) {
        q->header = *before;
        q->is_broken = true;
    }
    return ret;
}

/* The list in a place of its own, and then the header says where. `old_bytes`: of
 * the list there was. Lock held. */
static int write_list(struct qcow2 *q, const struct qcow2_snapshots *list, uint64_t old_bytes)
{
    struct qcow2_header before = q->header;
    uint64_t bytes = 0, first = 0, clusters;
    uint8_t *table, *p;
    int ret = 0;

    for (uint32_t n = 0; n < list->count; n++)
        bytes += bytes_of(&list->item[n]);
    clusters = qcow2_clusters_of(q, bytes);
    if (list->count > QCOW2_SNAPSHOTS_MAX || bytes > QCOW2_SNAPSHOT_TABLE_BYTES_MAX)
        return -E2BIG;
    table = p = calloc(1, MAX(clusters << q->cluster_bits, 1));
    if (!table)
        return -ENOMEM;
    for (uint32_t n = 0; n < list->count; n++)
        p = put_one(p, &list->item[n]);
    if (clusters)
        ret = qcow2_alloc_all(q, clusters, &first);
    if (!ret && clusters)
        ret = qcow2_write_file(q, first << q->cluster_bits, table, clusters << q->cluster_bits);
    free(table);
    if (!ret)
        ret = commit_unlocked(q);
    if (ret)
        return ret;
    q->header.snapshots = list->count;
    q->header.snapshots_offset = first << q->cluster_bits;
    ret = write_header(q, &before);
    if (!ret && old_bytes)
        qcow2_free_later(q, before.snapshots_offset >> q->cluster_bits,
                         qcow2_clusters_of(q, old_bytes));
    return ret;
}

/* ---- everything that an L1 refers to ---- */

enum change {
    TRY, /* would there be room for one more in each count? */
    MORE,
    LESS, /* when the file does not refer to it any more */
};

static int change_one(struct qcow2 *q, uint64_t cluster, enum change change)
{
    uint64_t count;
    int ret;

    if (change == LESS)
        return qcow2_free_later(q, cluster, 1);
    ret = qcow2_refcount_get(q, cluster, &count);
    if (ret)
        return ret;
    if (count >= qcow2_refcount_max(q))
        return -ERANGE;
    return change == MORE ? qcow2_refcount_set(q, cluster, count + 1) : 0;
}

static int change_entry(struct qcow2 *q, uint64_t entry, enum change change)
{
    uint64_t offset, bytes, last;
    int ret = 0;

    switch (qcow2_kind_of(q, entry)) {
    case QCOW2_KIND_DATA:
    case QCOW2_KIND_ZERO_DATA:
        return change_one(q, (entry & QCOW2_OFFSET_MASK) >> q->cluster_bits, change);
    case QCOW2_KIND_COMPRESSED:
        qcow2_packed_range(q, entry, &offset, &bytes);
        last = (offset + bytes - 1) >> q->cluster_bits;
        for (uint64_t c = offset >> q->cluster_bits; c <= last && !ret; c++)
            ret = change_one(q, c, change);
        return ret;
    case QCOW2_KIND_WRONG:
        return -EIO;
    case QCOW2_KIND_NONE:
    case QCOW2_KIND_ZERO:
        break;
    }
    return 0;
}

/* One table, and what it refers to. */
static int change_table(struct qcow2 *q, uint64_t table, enum change change)
{
    if (table & (q->cluster_bytes - 1) || table >> q->cluster_bits >= q->fresh_from)
        return -EIO;
    for (unsigned base = 0; base < q->l2_entries; base += q->l2_slice_entries) {
        struct qcow2_slice *s;
        int ret = qcow2_slice_get(q, &q->l2, table + ((uint64_t)base << q->entry_shift), &s);

        if (ret)
            return ret;
        for (unsigned n = 0; n < q->l2_slice_entries && !ret; n++) {
            uint64_t entry = qcow2_l2_entry(q, s, n);

            if (entry)
                ret = change_entry(q, entry, change);
            /* Counts are two at least: a write has to copy. */
            if (!ret && change == MORE && entry & QCOW2_COPIED)
                qcow2_l2_set(q, s, n, entry & ~QCOW2_COPIED);
        }
        qcow2_slice_put(s);
        if (!ret && qcow2_wants_commit(q))
            ret = commit_unlocked(q);
        if (ret)
            return ret;
    }
    return change_one(q, table >> q->cluster_bits, change);
}

static int change_all(struct qcow2 *q, const uint64_t *l1, uint32_t entries, enum change change)
{
    int ret = 0;

    for (uint32_t n = 0; n < entries && !ret; n++)
        if (l1[n] & QCOW2_OFFSET_MASK)
            ret = change_table(q, l1[n] & QCOW2_OFFSET_MASK, change);
    return ret;
}

/* Lock held. */
static int set_dirty(struct qcow2 *q, bool is_dirty)
{
    struct qcow2_header before = q->header;

    if (q->version < 3)
        return 0;
    q->header.incompatible &= ~QCOW2_DIRTY;
    q->header.incompatible |= is_dirty ? QCOW2_DIRTY : 0;
    return write_header(q, &before);
}

/* ---- the three operations ---- */

static uint64_t list_bytes(const struct qcow2 *q, const struct qcow2_snapshots *list)
{
    uint64_t bytes = 0;

    /* As it is in the file, which may lack what bytes_of would add. */
    for (uint32_t n = 0; n < list->count; n++) {
        const struct qcow2_snapshot *s = &list->item[n];

        bytes += align_up(ENTRY_BYTES + s->extra_bytes + strlen(s->id) + strlen(s->name), 8);
    }
    return q->header.snapshots ? bytes : 0;
}

static int begin(struct disk_layer *l, struct qcow2_snapshots *list, struct error *err)
{
    struct qcow2 *q = qcow2_of(l);
    int ret;

    *list = (struct qcow2_snapshots){0};
    if (l->readonly)
        return error_set(err, -EROFS, "disk %s cannot be written", q->name);
    ret = qcow2_snapshots_read(l, list, err);
    if (ret)
        return ret;
    ret = qcow2_commit(q);
    if (ret) {
        qcow2_snapshots_free(list);
        return error_set(err, ret, "disk %s: cannot write: %s", q->name, strerror(-ret));
    }
    return 0;
}

/* The rest of an operation: what was given up is free, counts are right. */
static int finish(struct qcow2 *q, struct qcow2_snapshots *list, int ret, const char *verb,
                  struct error *err)
{
    struct error ignored;

    qcow2_snapshots_free(list);
    /* Counts that have grown before one could not: as they were. */
    if (ret == -ERANGE && !qcow2_commit(q))
        qcow2_rebuild(q, &ignored);
    for (unsigned n = 0; n < 2 && !ret; n++)
        ret = qcow2_commit(q);
    if (!ret)
        ret = qcow2_fix_copied(q);
    if (!ret)
        ret = qcow2_commit(q);
    if (!ret) {
        mutex_lock(&q->lock);
        ret = set_dirty(q, false);
        mutex_unlock(&q->lock);
    }
    if (ret == -ERANGE)
        error_set(
            err, ret,
            "disk %s: %u bits are too few to count one more reference: convert it to an image "
            "with a larger refcount_bits",
            q->name, 1u << q->refcount_order);
    else if (ret)
        error_set(err, ret, "disk %s: cannot %s the snapshot: %s", q->name, verb, strerror(-ret));
    return ret;
}

/* A copy of an L1 in the file. Lock held. */
static int copy_l1(struct qcow2 *q, const uint64_t *l1, uint32_t entries, uint32_t room,
                   uint64_t *offset)
{
    uint64_t clusters = MAX(qcow2_clusters_of(q, (uint64_t)room * 8), 1), first;
    int ret = qcow2_alloc_all(q, clusters, &first);

    if (ret)
        return ret;
    *offset = first << q->cluster_bits;
    ret = disk_layer_zero(q->file, *offset, clusters << q->cluster_bits);
    return ret ? ret : qcow2_write_table(q, *offset, l1, 0, entries);
}

/* The number after the highest there is. */
static char *next_id(const struct qcow2_snapshots *list)
{
    unsigned long long highest = 0;
    char text[24];

    for (uint32_t n = 0; n < list->count; n++)
        highest = MAX(highest, strtoull(list->item[n].id, NULL, 10));
    snprintf(text, sizeof text, "%llu", highest + 1);
    return strdup(text);
}

static int fill_snapshot(struct qcow2 *q, struct qcow2_snapshots *list, const char *name)
{
    struct qcow2_snapshot *more = realloc(list->item, (list->count + 1) * sizeof *more), *s;
    struct timespec now;

    if (!more)
        return -ENOMEM;
    list->item = more;
    s = &more[list->count];
    clock_gettime(CLOCK_REALTIME, &now);
    *s = (struct qcow2_snapshot){
        .id = next_id(list),
        .name = strdup(name),
        .l1_entries = q->header.l1_entries,
        .seconds = (uint32_t)now.tv_sec,
        .nanoseconds = (uint32_t)now.tv_nsec,
        .virtual_bytes = q->header.virtual_bytes,
    };
    list->count++;
    return s->id && s->name ? 0 : -ENOMEM;
}

int qcow2_snapshot_create(struct disk_layer *l, const char *name, struct error *err)
{
    struct qcow2 *q = qcow2_of(l);
    struct qcow2_snapshots list;
    uint64_t old_bytes;
    int ret = begin(l, &list, err);

    if (ret)
        return ret;
    if (strlen(name) > UINT16_MAX || !*name) {
        qcow2_snapshots_free(&list);
        return error_set(err, -EINVAL, "give the snapshot a name");
    }
    for (uint32_t n = 0; n < list.count; n++) {
        if (strcmp(list.item[n].name, name))
            continue;
        qcow2_snapshots_free(&list);
        return error_set(err, -EEXIST, "disk %s has a snapshot '%.64s': choose another name",
                         q->name, name);
    }
    old_bytes = list_bytes(q, &list);
    mutex_lock(&q->lock);
    ret = change_all(q, q->l1, q->header.l1_entries, TRY);
    if (!ret)
        ret = set_dirty(q, true);
    if (!ret)
        ret = change_all(q, q->l1, q->header.l1_entries, MORE);
    for (uint32_t n = 0; n < q->header.l1_entries && !ret; n++)
        if (q->l1[n] & QCOW2_COPIED)
            qcow2_l1_set(q, n, q->l1[n] & ~QCOW2_COPIED);
    if (!ret)
        ret = commit_unlocked(q);
    if (!ret)
        ret = fill_snapshot(q, &list, name);
    if (!ret)
        ret = copy_l1(q, q->l1, q->header.l1_entries, q->header.l1_entries,
                      &list.item[list.count - 1].l1_offset);
    if (!ret)
        ret = write_list(q, &list, old_bytes);
    mutex_unlock(&q->lock);
    return finish(q, &list, ret, "take", err);
}

static struct qcow2_snapshot *find(struct qcow2_snapshots *list, const char *which)
{
    for (uint32_t n = 0; n < list->count; n++)
        if (!strcmp(list->item[n].id, which))
            return &list->item[n];
    for (uint32_t n = 0; n < list->count; n++)
        if (!strcmp(list->item[n].name, which))
            return &list->item[n];
    return NULL;
}

/* As find, with an error, and its L1. */
static struct qcow2_snapshot *find_with_l1(struct qcow2 *q, struct qcow2_snapshots *list,
                                           const char *which, uint64_t **l1, struct error *err)
{
    struct qcow2_snapshot *s = find(list, which);
    uint64_t end = q->fresh_from << q->cluster_bits;

    *l1 = NULL;
    if (!s) {
        error_set(err, -ENOENT, "disk %s has no snapshot '%.64s': vireo img snapshot -l %s",
                  q->name, which, q->name);
        return NULL;
    }
    if (s->l1_offset & (q->cluster_bytes - 1) || s->l1_offset >= end ||
        s->l1_offset + (uint64_t)s->l1_entries * 8 > end) {
        error_set(err, -EINVAL, "disk %s: snapshot '%.64s' is damaged", q->name, which);
        return NULL;
    }
    *l1 = calloc(MAX(s->l1_entries, 1), sizeof **l1);
    if (!*l1 ||
        (s->l1_entries && qcow2_read_file(q, s->l1_offset, *l1, (uint64_t)s->l1_entries * 8))) {
        free(*l1);
        *l1 = NULL;
        error_set(err, -EIO, "disk %s: cannot read snapshot '%.64s'", q->name, which);
        return NULL;
    }
    for (uint32_t n = 0; n < s->l1_entries; n++)
        (*l1)[n] = be64_get(&(*l1)[n]);
    return s;
}

static int check_size(const struct qcow2 *q, const struct qcow2_snapshot *s, struct error *err)
{
    if (s->virtual_bytes <= BIT(56) &&
        qcow2_l1_needed(q->cluster_bits, q->unit_shift, s->virtual_bytes) * 8 <= QCOW2_L1_BYTES_MAX)
        return 0;
    return error_set(err, -EINVAL, "disk %s: snapshot '%.64s' is damaged", q->name, s->name);
}

/* The snapshot's L1 becomes the disk's. Lock held. */
static int switch_l1(struct qcow2 *q, const struct qcow2_snapshot *s, uint64_t *l1)
{
    uint64_t needed = qcow2_l1_needed(q->cluster_bits, q->unit_shift, s->virtual_bytes), offset;
    uint32_t entries = (uint32_t)MAX(MAX(s->l1_entries, needed), 1);
    struct qcow2_header before = q->header;
    uint64_t *old = q->l1;
    struct error err;
    int ret;

    for (uint32_t n = 0; n < s->l1_entries; n++)
        l1[n] &= ~QCOW2_COPIED;
    ret = copy_l1(q, l1, s->l1_entries, entries, &offset);
    if (!ret)
        ret = commit_unlocked(q);
    if (ret)
        return ret;
    q->header.l1_offset = offset;
    q->header.l1_entries = entries;
    q->header.virtual_bytes = s->virtual_bytes;
    ret = write_header(q, &before);
    if (ret)
        return ret;
    q->l1 = NULL;
    ret = qcow2_load_tables(q, &err);
    if (!ret)
        q->layer.bytes = align_up(s->virtual_bytes, DISK_SECTOR_BYTES);
    /* Nothing of the old one was written meanwhile. */
    if (!ret)
        ret = change_all(q, old, before.l1_entries, LESS);
    if (!ret && before.l1_entries)
        qcow2_free_later(q, before.l1_offset >> q->cluster_bits,
                         qcow2_clusters_of(q, (uint64_t)before.l1_entries * 8));
    free(old);
    return ret;
}

int qcow2_snapshot_apply(struct disk_layer *l, const char *which, struct error *err)
{
    struct qcow2 *q = qcow2_of(l);
    struct qcow2_snapshots list;
    struct qcow2_snapshot *s;
    uint64_t *l1;
    int ret = begin(l, &list, err);

    if (ret)
        return ret;
    s = find_with_l1(q, &list, which, &l1, err);
    if (!s || check_size(q, s, err)) {
        free(l1);
        qcow2_snapshots_free(&list);
        return -EINVAL;
    }
    mutex_lock(&q->lock);
    ret = change_all(q, l1, s->l1_entries, TRY);
    if (!ret)
        ret = set_dirty(q, true);
    if (!ret)
        ret = change_all(q, l1, s->l1_entries, MORE);
    if (!ret)
        ret = switch_l1(q, s, l1);
    mutex_unlock(&q->lock);
    free(l1);
    return finish(q, &list, ret, "apply", err);
}

int qcow2_snapshot_delete(struct disk_layer *l, const char *which, struct error *err)
{
    struct qcow2 *q = qcow2_of(l);
    struct qcow2_snapshots list;
    struct qcow2_snapshot *s, gone;
    uint64_t *l1, old_bytes;
    int ret = begin(l, &list, err);

    if (ret)
        return ret;
    s = find_with_l1(q, &list, which, &l1, err);
    if (!s) {
        qcow2_snapshots_free(&list);
        return -EINVAL;
    }
    old_bytes = list_bytes(q, &list);
    gone = *s;
    memmove(s, s + 1, (size_t)(&list.item[list.count] - (s + 1)) * sizeof *s);
    list.count--;
    mutex_lock(&q->lock);
    ret = set_dirty(q, true);
    if (!ret)
        ret = write_list(q, &list, old_bytes);
    if (!ret)
        ret = change_all(q, l1, gone.l1_entries, LESS);
    if (!ret)
        ret = qcow2_free_later(q, gone.l1_offset >> q->cluster_bits,
                               MAX(qcow2_clusters_of(q, (uint64_t)gone.l1_entries * 8), 1));
    mutex_unlock(&q->lock);
    free(gone.id);
    free(gone.name);
    free(gone.extra);
    free(l1);
    return finish(q, &list, ret, "delete", err);
}

int qcow2_snapshot_view(struct disk_layer *l, const char *which, struct error *err)
{
    struct qcow2 *q = qcow2_of(l);
    struct qcow2_snapshots list;
    struct qcow2_snapshot *s;
    uint64_t *l1 = NULL;
    int ret;

    if (!l->readonly)
        return error_set(err, -EINVAL, "disk %s is open to write", q->name);
    ret = qcow2_snapshots_read(l, &list, err);
    if (ret)
        return ret;
    s = find_with_l1(q, &list, which, &l1, err);
    if (!s || check_size(q, s, err)) {
        free(l1);
        ret = -EINVAL;
    } else {
        mutex_lock(&q->lock);
        free(q->l1);
        q->l1 = l1;
        /* Fewer than the disk needs: what has no entry cannot be read. */
        q->header.l1_entries = s->l1_entries;
        q->header.virtual_bytes = s->virtual_bytes;
        l->bytes = align_up(s->virtual_bytes, DISK_SECTOR_BYTES);
        mutex_unlock(&q->lock);
    }
    qcow2_snapshots_free(&list);
    return ret;
}
