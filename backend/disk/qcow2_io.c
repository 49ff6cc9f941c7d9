/*
 * Data of a qcow2 image: reads, writes, zeroes, discards.
 * Interface: qcow2_internal.h.
 *
 * Each takes a look with the lock, at as many units as are of one kind and follow
 * each other in the file, and moves their data without it. Writes to clusters that
 * are the image's own go to them at once. All others get new clusters: those are
 * written, with what the guest does not write of the first and the last unit, and
 * only then L2 says where they are.
 *
 * Units are clusters, or subclusters where L2 entries are extended. Of a cluster
 * that has nothing yet those units get data that are written to; one that another
 * shares, or that is compressed, is copied as a whole.
 *
 * A cluster that was looked up may be given up meanwhile: who moves data on it
 * is counted (`users`), and it is not used anew before.
 *
 * Threading: any thread.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/disk/qcow2_internal.h"

enum { SPANS = 64, BUFFER_ALIGN = 4096 };

/* ---- moving data ---- */

typedef int transfer_fn(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                        unsigned count, uint64_t bytes);

/* `bytes` of the spans from `skip` on. */
static int move(struct disk_layer *l, transfer_fn *fn, uint64_t offset,
                const struct disk_span *spans, unsigned count, uint64_t skip, uint64_t bytes)
{
    struct disk_span part[SPANS];

    while (bytes) {
        uint64_t got;
        unsigned n = disk_spans_slice(spans, count, skip, bytes, part, SPANS, &got);
        int ret = n ? fn(l, offset, part, n, got) : -EINVAL;

        if (ret)
            return ret;
        offset += got;
        skip += got;
        bytes -= got;
    }
    return 0;
}

static int read_below(struct qcow2 *q, uint64_t offset, const struct disk_span *spans,
                      unsigned count, uint64_t skip, uint64_t bytes)
{
    struct disk_layer *below = q->layer.below;
    uint64_t there = below && offset < below->bytes ? MIN(bytes, below->bytes - offset) : 0;

    if (there < bytes)
        disk_spans_zero(spans, count, skip + there, bytes - there);
    return there ? move(below, below->ops->read, offset, spans, count, skip, there) : 0;
}

static unsigned begin_use(struct qcow2 *q)
{
    q->users[q->epoch]++;
    return q->epoch;
}

static void end_use(struct qcow2 *q, unsigned epoch)
{
    mutex_lock(&q->lock);
    q->users[epoch]--;
    mutex_unlock(&q->lock);
}

/* ---- looking ---- */

struct unit {
    uint64_t entry, bits; /* of its cluster */
    unsigned number;      /* in it */
};

/* at: units from the start of the cluster of that index on. */
static struct unit unit_at(const struct qcow2 *q, const struct qcow2_slice *s, unsigned index,
                           uint64_t at)
{
    unsigned cluster = index + (unsigned)(at >> q->unit_shift);

    return (struct unit){qcow2_l2_entry(q, s, cluster), qcow2_l2_bits(q, s, cluster),
                         (unsigned)at & q->unit_mask};
}

static enum qcow2_kind kind_of(const struct qcow2 *q, const struct unit *u)
{
    return qcow2_unit_kind(q, u->entry, u->bits, u->number);
}

static uint64_t host_of(const struct qcow2 *q, const struct unit *u)
{
    return (u->entry & QCOW2_OFFSET_MASK) + ((uint64_t)u->number << q->unit_bits);
}

static uint64_t units_of(const struct qcow2 *q, uint64_t bytes)
{
    return (bytes + BIT(q->unit_bits) - 1) >> q->unit_bits;
}

/* Units of one kind, the data of which can be moved at once. */
struct run {
    enum qcow2_kind kind;
    uint64_t entry;  /* of the first */
    uint64_t offset; /* in the file, of the first byte */
    uint64_t bytes;
};

static bool follows(const struct qcow2 *q, enum qcow2_kind kind, uint64_t host,
                    const struct unit *u)
{
    if (kind_of(q, u) != kind)
        return false;
    if (kind == QCOW2_KIND_DATA)
        return host_of(q, u) == host;
    return kind != QCOW2_KIND_COMPRESSED && kind != QCOW2_KIND_WRONG;
}

/* Lock held. */
static int look(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct run *run)
{
    uint64_t guest = offset >> q->cluster_bits, in_unit = offset & (BIT(q->unit_bits) - 1);
    uint64_t units = units_of(q, in_unit + bytes), n = 1;
    unsigned first = (unsigned)(offset >> q->unit_bits) & q->unit_mask, index;
    struct qcow2_slice *s;
    int ret = qcow2_l2_get(q, guest, &s, &index);

    if (ret)
        return ret;
    if (!s) {
        /* No table: none of its clusters. */
        *run = (struct run){.kind = QCOW2_KIND_NONE};
        n = ((q->l2_entries - (guest & (q->l2_entries - 1))) << q->unit_shift) - first;
    } else {
        struct unit u = unit_at(q, s, index, first);

        run->entry = u.entry;
        run->kind = kind_of(q, &u);
        run->offset = host_of(q, &u) + in_unit;
        units = MIN(units, ((q->l2_slice_entries - index) << q->unit_shift) - first);
        if (run->kind == QCOW2_KIND_COMPRESSED)
            n = q->unit_mask + 1 - first; /* it is one */
        for (; n < units; n++) {
            u = unit_at(q, s, index, first + n);
            if (!follows(q, run->kind, run->offset - in_unit + (n << q->unit_bits), &u))
                break;
        }
        qcow2_slice_put(s);
    }
    run->bytes = MIN(bytes, (n << q->unit_bits) - in_unit);
    return run->kind == QCOW2_KIND_WRONG ? -EIO : 0;
}

/* ---- reading ---- */

int qcow2_read(struct disk_layer *l, uint64_t offset, const struct disk_span *spans, unsigned count,
               uint64_t bytes)
{
    struct qcow2 *q = qcow2_of(l);
    uint64_t done = 0;

    while (done < bytes) {
        struct run run = {0};
        unsigned epoch;
        int ret;

        mutex_lock(&q->lock);
        ret = look(q, offset + done, bytes - done, &run);
        epoch = begin_use(q);
        mutex_unlock(&q->lock);
        if (!ret) {
            switch (run.kind) {
            case QCOW2_KIND_NONE:
                ret = read_below(q, offset + done, spans, count, done, run.bytes);
                break;
            case QCOW2_KIND_DATA:
                ret = move(q->file, q->file->ops->read, run.offset, spans, count, done, run.bytes);
                break;
            case QCOW2_KIND_ZERO:
            case QCOW2_KIND_ZERO_DATA:
                disk_spans_zero(spans, count, done, run.bytes);
                break;
            case QCOW2_KIND_COMPRESSED:
                ret = qcow2_read_packed(q, run.entry, (offset + done) & (q->cluster_bytes - 1),
                                        spans, count, done, run.bytes);
                break;
            case QCOW2_KIND_WRONG:
                ret = -EIO;
            }
        }
        end_use(q, epoch);
        if (ret)
            return ret;
        done += run.bytes;
    }
    return 0;
}

static int layer_read_now(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                          unsigned count, uint64_t bytes)
{
    if (!l->ops->read_now || offset > l->bytes || bytes > l->bytes - offset)
        return -EAGAIN;
    return l->ops->read_now(l, offset, spans, count, bytes);
}

/* What is one run in one place. The lock is kept: that is as short as letting it go
 * and taking it again, which might block; and nobody gives up the cluster. */
int qcow2_read_now(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                   unsigned count, uint64_t bytes)
{
    struct qcow2 *q = qcow2_of(l);
    struct run run = {0};
    int ret = -EAGAIN;

    if (!mutex_try_lock(&q->lock))
        return -EAGAIN;
    if (qcow2_l2_is_here(q, offset >> q->cluster_bits) && !look(q, offset, bytes, &run) &&
        run.bytes == bytes) {
        if (run.kind == QCOW2_KIND_DATA) {
            ret = q->file->ops->read_now
                      ? q->file->ops->read_now(q->file, run.offset, spans, count, bytes)
                      : -EAGAIN;
        } else if (run.kind == QCOW2_KIND_NONE && l->below) {
            ret = layer_read_now(l->below, offset, spans, count, bytes);
        } else if (run.kind != QCOW2_KIND_COMPRESSED) {
            disk_spans_zero(spans, count, 0, bytes);
            ret = 0;
        }
    }
    mutex_unlock(&q->lock);
    return ret;
}

int qcow2_map(struct disk_layer *l, uint64_t offset, uint64_t bytes, uint64_t *run)
{
    struct qcow2 *q = qcow2_of(l);
    struct run r = {0};
    int ret;

    mutex_lock(&q->lock);
    ret = look(q, offset, bytes, &r);
    mutex_unlock(&q->lock);
    if (ret)
        return ret;
    *run = r.bytes;
    if (r.kind == QCOW2_KIND_NONE)
        return DISK_MAP_BELOW;
    return r.kind == QCOW2_KIND_ZERO || r.kind == QCOW2_KIND_ZERO_DATA ? DISK_MAP_ZERO
                                                                       : DISK_MAP_DATA;
}

/* ---- writing ---- */

enum place {
    IN_PLACE, /* clusters of our own: as they are */
    FILL,     /* without data in clusters of our own: they become data */
    NEW,      /* new clusters */
};

struct plan {
    enum place place;
    uint64_t guest, clusters;
    uint64_t host; /* offset in the file of the first cluster */
    bool is_fresh; /* the file has never been written there */
    uint64_t offset, bytes;
    uint64_t from, end; /* the units that become data: the disk's bytes */
    struct qcow2_slice *slice;
    unsigned index;
    struct qcow2_busy busy;
    unsigned epoch;
};

static enum place place_of(const struct qcow2 *q, const struct unit *u)
{
    enum qcow2_kind kind = kind_of(q, u);

    if (!(u->entry & QCOW2_COPIED) || kind == QCOW2_KIND_COMPRESSED ||
        !(u->entry & QCOW2_OFFSET_MASK))
        return NEW;
    return kind == QCOW2_KIND_DATA ? IN_PLACE : FILL;
}

/* Of an image that somebody has made to destroy itself: not into its own tables. */
static bool may_write_at(const struct qcow2 *q, uint64_t host, uint64_t bytes)
{
    const struct qcow2_header *h = &q->header;
    uint64_t end = host + bytes;

    return host >= q->cluster_bytes && end >> q->cluster_bits <= q->fresh_from &&
           (end <= h->l1_offset || host >= h->l1_offset + (uint64_t)h->l1_entries * 8) &&
           (end <= h->table_offset || host >= h->table_offset + q->table_entries * 8);
}

/* Lock held: the slice, writable, with nobody at work on the first cluster. */
static int own_slice(struct qcow2 *q, struct plan *p)
{
    for (;;) {
        int ret = qcow2_l2_own(q, p->guest, &p->slice, &p->index);

        if (ret)
            return ret;
        if (!qcow2_is_busy(q, p->guest, p->guest))
            return 0;
        qcow2_slice_put(p->slice);
        qcow2_wait(q);
    }
}

static int plan_new(struct qcow2 *q, struct plan *p)
{
    uint64_t first, got;
    int ret = qcow2_alloc(q, p->clusters, &first, &got, &p->is_fresh);

    if (ret)
        return ret;
    p->clusters = got;
    p->host = first << q->cluster_bits;
    return 0;
}

/* Has a unit of the cluster data that a new cluster needs, too? */
static bool is_copied_whole(const struct qcow2 *q, const struct plan *p, uint64_t cluster)
{
    unsigned index = p->index + (unsigned)cluster;

    return !q->unit_shift ||
           qcow2_kind_of(q, qcow2_l2_entry(q, p->slice, index)) == QCOW2_KIND_COMPRESSED ||
           qcow2_l2_bits(q, p->slice, index) & QCOW2_UNITS_DATA;
}

/* Which units become data: those that are written to. */
static void plan_units(const struct qcow2 *q, struct plan *p)
{
    p->from = align_down(p->offset, BIT(q->unit_bits));
    p->end = align_up(p->offset + p->bytes, BIT(q->unit_bits));
    if (p->place == NEW && is_copied_whole(q, p, 0))
        p->from = align_down(p->from, q->cluster_bytes);
    if (p->place == NEW && is_copied_whole(q, p, p->clusters - 1))
        p->end = align_up(p->end, q->cluster_bytes);
}

/* What to do with the first of bytes at offset; lock held. */
static int make_plan(struct qcow2 *q, struct plan *p, uint64_t offset, uint64_t bytes)
{
    uint64_t in_unit = offset & (BIT(q->unit_bits) - 1), room, n;
    unsigned first = (unsigned)(offset >> q->unit_bits) & q->unit_mask;
    struct unit u;
    int ret;

    *p = (struct plan){.guest = offset >> q->cluster_bits, .offset = offset};
    ret = own_slice(q, p);
    if (ret)
        return ret;
    room = MIN(units_of(q, in_unit + bytes),
               ((q->l2_slice_entries - p->index) << q->unit_shift) - first);
    u = unit_at(q, p->slice, p->index, first);
    p->place = place_of(q, &u);
    p->host = u.entry & QCOW2_OFFSET_MASK;
    if (kind_of(q, &u) == QCOW2_KIND_WRONG)
        ret = -EIO;
    for (n = 1; n < room; n++) {
        uint64_t guest = p->guest + ((first + n) >> q->unit_shift);

        u = unit_at(q, p->slice, p->index, first + n);
        if (place_of(q, &u) != p->place || kind_of(q, &u) == QCOW2_KIND_WRONG ||
            (!u.number && qcow2_is_busy(q, guest, guest)) ||
            (p->place != NEW && host_of(q, &u) != p->host + ((first + n) << q->unit_bits)))
            break;
    }
    p->clusters = ((first + n - 1) >> q->unit_shift) + 1;
    if (!ret && p->place == NEW)
        ret = plan_new(q, p);
    else if (!ret && !may_write_at(q, p->host, p->clusters << q->cluster_bits))
        ret = -EIO;
    if (ret) {
        qcow2_slice_put(p->slice);
        return ret;
    }
    n = MIN(n, (p->clusters << q->unit_shift) - first);
    p->bytes = MIN(bytes, (n << q->unit_bits) - in_unit);
    if (p->place == IN_PLACE) {
        qcow2_slice_put(p->slice);
        p->slice = NULL;
        p->epoch = begin_use(q);
    } else {
        plan_units(q, p);
        qcow2_busy_add(q, &p->busy, p->guest, p->guest + p->clusters - 1);
    }
    return 0;
}

/* Does a part that the guest does not write read as zeroes, as the file does where
 * it is fresh? */
static bool is_zero(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t run = 0;
    int kind = qcow2_map(&q->layer, offset, bytes, &run);

    if (kind == DISK_MAP_BELOW)
        kind = q->layer.below && offset < q->layer.below->bytes ? DISK_MAP_DATA : DISK_MAP_ZERO;
    return kind == DISK_MAP_ZERO && run == bytes;
}

static int read_old(struct qcow2 *q, uint64_t offset, uint8_t *to, uint64_t bytes)
{
    struct disk_span span = {to, bytes};

    return qcow2_read(&q->layer, offset, &span, 1, bytes);
}

/* What is in new clusters before and behind what the guest writes, or nothing
 * where that would be zeroes on fresh clusters. */
struct edge {
    uint64_t offset, bytes;
};

static void find_edge(struct qcow2 *q, const struct plan *p, uint64_t offset, uint64_t bytes,
                      struct edge *e)
{
    *e = (struct edge){offset, bytes};
    if (bytes && p->is_fresh && is_zero(q, offset, bytes))
        e->bytes = 0;
}

static void copy_spans(uint8_t *to, const struct disk_span *spans, unsigned count, uint64_t skip,
                       uint64_t bytes)
{
    for (unsigned n = 0; n < count && bytes; n++) {
        uint64_t part = spans[n].bytes;

        if (skip >= part) {
            skip -= part;
            continue;
        }
        part = MIN(part - skip, bytes);
        memcpy(to, (const uint8_t *)spans[n].data + skip, part);
        to += part;
        skip = 0;
        bytes -= part;
    }
}

/* Data, head and tail in one write: of one cluster, which is what random writes are. */
static int write_whole(struct qcow2 *q, const struct plan *p, const struct edge *head,
                       const struct edge *tail, uint8_t *buffer, const struct disk_span *spans,
                       unsigned count, uint64_t skip)
{
    uint64_t host = p->host + (p->offset & (q->cluster_bytes - 1));
    int ret = head->bytes ? read_old(q, head->offset, buffer, head->bytes) : 0;

    copy_spans(buffer + head->bytes, spans, count, skip, p->bytes);
    if (!ret && tail->bytes)
        ret = read_old(q, tail->offset, buffer + head->bytes + p->bytes, tail->bytes);
    if (!ret)
        ret = qcow2_write_file(q, host - head->bytes, buffer, head->bytes + p->bytes + tail->bytes);
    return ret;
}

static int write_edge(struct qcow2 *q, const struct plan *p, const struct edge *e, uint8_t *buffer)
{
    uint64_t base = p->guest << q->cluster_bits;
    int ret = e->bytes ? read_old(q, e->offset, buffer, e->bytes) : 0;

    if (!ret && e->bytes)
        ret = qcow2_write_file(q, p->host + (e->offset - base), buffer, e->bytes);
    return ret;
}

/* Fills clusters to which nothing refers yet. */
static int write_new(struct qcow2 *q, const struct plan *p, const struct disk_span *spans,
                     unsigned count, uint64_t skip)
{
    uint64_t base = p->guest << q->cluster_bits, end = p->offset + p->bytes;
    struct edge head, tail;
    uint8_t *buffer = NULL;
    int ret;

    find_edge(q, p, p->from, p->offset - p->from, &head);
    find_edge(q, p, end, p->end - end, &tail);
    if (head.bytes || tail.bytes) {
        buffer = aligned_alloc(BUFFER_ALIGN, MAX(q->cluster_bytes, BUFFER_ALIGN));
        if (!buffer)
            return -ENOMEM;
    }
    if (buffer && p->clusters == 1) {
        ret = write_whole(q, p, &head, &tail, buffer, spans, count, skip);
    } else {
        ret = buffer ? write_edge(q, p, &head, buffer) : 0;
        if (!ret)
            ret = move(q->file, q->file->ops->write, p->host + (p->offset - base), spans, count,
                       skip, p->bytes);
        if (!ret && buffer)
            ret = write_edge(q, p, &tail, buffer);
    }
    free(buffer);
    return ret;
}

/* A bit for each unit of a guest cluster in a range of bytes, which is of units. */
static uint64_t units_mask(const struct qcow2 *q, uint64_t guest, uint64_t from, uint64_t end)
{
    uint64_t base = guest << q->cluster_bits;
    unsigned first = (unsigned)((MAX(from, base) - base) >> q->unit_bits);
    unsigned last = (unsigned)((MIN(end, base + q->cluster_bytes) - base - 1) >> q->unit_bits);

    return BITS(last, first);
}

/* The clusters are filled (or could not be): L2 says so. Lock held. */
static int finish_new(struct qcow2 *q, struct plan *p, int ret)
{
    for (uint64_t n = 0; n < p->clusters && !ret; n++) {
        unsigned index = p->index + (unsigned)n;
        uint64_t filled = units_mask(q, p->guest + n, p->from, p->end);

        if (p->place == NEW)
            qcow2_free_entry(q, qcow2_l2_entry(q, p->slice, index));
        qcow2_l2_set_bits(q, p->slice, index,
                          (qcow2_l2_bits(q, p->slice, index) & ~(filled << 32)) | filled);
        qcow2_l2_set(q, p->slice, index, (p->host + (n << q->cluster_bits)) | QCOW2_COPIED);
    }
    if (ret && p->place == NEW)
        qcow2_unalloc(q, p->host >> q->cluster_bits, p->clusters);
    qcow2_slice_put(p->slice);
    qcow2_busy_remove(q, &p->busy);
    return ret;
}

/* Before anything is changed: is there room in memory? Lock held, let go meanwhile. */
static int make_room(struct qcow2 *q)
{
    while (qcow2_wants_commit(q)) {
        int ret;

        mutex_unlock(&q->lock);
        ret = qcow2_commit(q);
        mutex_lock(&q->lock);
        if (ret)
            return ret;
    }
    return 0;
}

int qcow2_write(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                unsigned count, uint64_t bytes)
{
    struct qcow2 *q = qcow2_of(l);
    uint64_t done = 0;

    while (done < bytes) {
        struct plan p;
        int ret;

        mutex_lock(&q->lock);
        ret = make_room(q);
        if (!ret)
            ret = make_plan(q, &p, offset + done, bytes - done);
        mutex_unlock(&q->lock);
        if (ret)
            return ret;
        if (p.place == IN_PLACE) {
            ret = move(q->file, q->file->ops->write, p.host + (p.offset & (q->cluster_bytes - 1)),
                       spans, count, done, p.bytes);
            end_use(q, p.epoch);
        } else {
            ret = write_new(q, &p, spans, count, done);
            mutex_lock(&q->lock);
            ret = finish_new(q, &p, ret);
            mutex_unlock(&q->lock);
        }
        if (ret)
            return ret;
        done += p.bytes;
    }
    return 0;
}

/* ---- zeroes ---- */

static bool shows_below(const struct qcow2 *q, uint64_t guest)
{
    return q->layer.below && guest << q->cluster_bits < q->layer.below->bytes;
}

/* What an entry becomes so that it reads as zeroes and needs no cluster; false: it
 * cannot. */
static bool zero_entry(const struct qcow2 *q, uint64_t guest, uint64_t entry, uint64_t *out)
{
    if (q->unit_shift)
        *out = 0; /* the second word says it */
    else if (qcow2_kind_of(q, entry) == QCOW2_KIND_NONE && !shows_below(q, guest))
        *out = entry;
    else if (q->version >= 3)
        *out = QCOW2_ZERO;
    else if (!shows_below(q, guest))
        *out = 0;
    else
        return false;
    return true;
}

/* Whole clusters, of one slice at most; lock held. How many, or a negative errno. */
static int64_t zero_some(struct qcow2 *q, uint64_t guest, uint64_t count)
{
    struct qcow2_slice *s;
    unsigned index;
    uint64_t n, entry;
    int ret = qcow2_l2_get(q, guest, &s, &index);

    if (ret)
        return ret;
    n = MIN(count, s ? q->l2_slice_entries - index : q->l2_entries - (guest & (q->l2_entries - 1)));
    if (s)
        qcow2_slice_put(s);
    else if (!shows_below(q, guest))
        return (int64_t)n;
    n = MIN(n, q->l2_slice_entries - index);
    if (!zero_entry(q, guest, 0, &entry)) /* version 2: all alike */
        return -EOPNOTSUPP;
    for (;;) {
        ret = qcow2_l2_own(q, guest, &s, &index);
        if (ret)
            return ret;
        if (!qcow2_is_busy(q, guest, guest + n - 1))
            break;
        qcow2_slice_put(s);
        qcow2_wait(q);
    }
    for (uint64_t i = 0; i < n; i++) {
        unsigned at = index + (unsigned)i;
        uint64_t was = qcow2_l2_entry(q, s, at), bits = qcow2_l2_bits(q, s, at);

        if (qcow2_kind_of(q, was) == QCOW2_KIND_WRONG || !zero_entry(q, guest + i, was, &entry)) {
            qcow2_slice_put(s);
            return -EIO;
        }
        if (bits != QCOW2_UNITS_ZERO && (was || bits || shows_below(q, guest + i)))
            qcow2_l2_set_bits(q, s, at, QCOW2_UNITS_ZERO);
        if (entry == was)
            continue;
        qcow2_free_entry(q, was);
        qcow2_l2_set(q, s, at, entry);
    }
    qcow2_slice_put(s);
    return (int64_t)n;
}

static int zero_clusters(struct qcow2 *q, uint64_t guest, uint64_t count)
{
    int64_t n = 0;

    for (; count && n >= 0; guest += (uint64_t)n, count -= (uint64_t)n) {
        mutex_lock(&q->lock);
        n = make_room(q);
        if (!n)
            n = zero_some(q, guest, count);
        mutex_unlock(&q->lock);
        if (n < 0)
            return (int)n;
    }
    return 0;
}

static int write_zeroes(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    struct disk_span span = {bytes ? calloc(1, bytes) : NULL, bytes};
    int ret;

    if (!bytes)
        return 0;
    if (!span.data)
        return -ENOMEM;
    ret = qcow2_write(&q->layer, offset, &span, 1, bytes);
    free(span.data);
    return ret;
}

/* Some units of a cluster. Lock held. */
static int zero_units(struct qcow2 *q, uint64_t guest, uint64_t units)
{
    struct plan p = {.guest = guest};
    int ret = own_slice(q, &p);
    uint64_t entry, bits;

    if (ret)
        return ret;
    entry = qcow2_l2_entry(q, p.slice, p.index);
    bits = (qcow2_l2_bits(q, p.slice, p.index) & ~units) | units << 32;
    if (qcow2_kind_of(q, entry) == QCOW2_KIND_WRONG) {
        ret = -EIO;
    } else if (qcow2_kind_of(q, entry) == QCOW2_KIND_COMPRESSED) {
        ret = -EOPNOTSUPP;
    } else {
        qcow2_l2_set_bits(q, p.slice, p.index, bits);
        if (entry && !(bits & QCOW2_UNITS_DATA)) {
            qcow2_free_entry(q, entry);
            qcow2_l2_set(q, p.slice, p.index, 0);
        }
    }
    qcow2_slice_put(p.slice);
    return ret;
}

/* The whole units of part of a cluster; -EOPNOTSUPP: none. */
static int zero_inside(struct qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t *from,
                       uint64_t *end)
{
    uint64_t guest = offset >> q->cluster_bits;
    int ret;

    *from = align_up(offset, BIT(q->unit_bits));
    *end = align_down(offset + bytes, BIT(q->unit_bits));
    if (!q->unit_shift || *from >= *end)
        return -EOPNOTSUPP;
    mutex_lock(&q->lock);
    ret = make_room(q);
    if (!ret)
        ret = zero_units(q, guest, units_mask(q, guest, *from, *end));
    mutex_unlock(&q->lock);
    return ret;
}

/* Part of a cluster. */
static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t run, from, end;
    int ret;

    if (!bytes || disk_layer_map(&q->layer, offset, bytes, &run) == DISK_MAP_ZERO)
        if (!bytes || run == bytes)
            return 0;
    ret = zero_inside(q, offset, bytes, &from, &end);
    if (ret == -EOPNOTSUPP)
        return write_zeroes(q, offset, bytes);
    if (!ret)
        ret = write_zeroes(q, offset, from - offset);
    return ret ? ret : write_zeroes(q, end, offset + bytes - end);
}

/* A range is a part of a cluster, whole clusters, and a part of one. */
struct thirds {
    uint64_t first, last; /* where the second and the third begin */
    uint64_t clusters;
};

static struct thirds thirds_of(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes, first = align_up(offset, q->cluster_bytes);
    uint64_t last = align_down(end, q->cluster_bytes);

    if (first > end)
        return (struct thirds){end, end, 0};
    /* The disk's last cluster may be longer than the disk. */
    if (end == q->layer.bytes)
        last = align_up(end, q->cluster_bytes);
    return (struct thirds){first, MIN(last, end), (last - first) >> q->cluster_bits};
}

int qcow2_zero(struct disk_layer *l, uint64_t offset, uint64_t bytes)
{
    struct qcow2 *q = qcow2_of(l);
    struct thirds t = thirds_of(q, offset, bytes);
    int ret = 0;

    if (t.clusters)
        ret = zero_clusters(q, t.first >> q->cluster_bits, t.clusters);
    if (!ret)
        ret = zero_part(q, offset, t.first - offset);
    if (!ret)
        ret = zero_part(q, t.last, offset + bytes - t.last);
    return ret;
}

/* The whole units of part of a cluster, but of a compressed one nothing. */
static int discard_part(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t run, from, end;
    int ret;

    if (!q->unit_shift || !bytes ||
        (disk_layer_map(&q->layer, offset, bytes, &run) == DISK_MAP_ZERO && run == bytes))
        return 0;
    ret = zero_inside(q, offset, bytes, &from, &end);
    return ret == -EOPNOTSUPP ? 0 : ret;
}

/* Of whole units. Zeroes afterwards, which is what most guests hope for; version 2 on
 * a backing file cannot say that, and keeps what there is. */
int qcow2_discard(struct disk_layer *l, uint64_t offset, uint64_t bytes)
{
    struct qcow2 *q = qcow2_of(l);
    struct thirds t = thirds_of(q, offset, bytes);
    int ret = 0;

    if (t.clusters)
        ret = zero_clusters(q, t.first >> q->cluster_bits, t.clusters);
    if (!ret)
        ret = discard_part(q, offset, t.first - offset);
    if (!ret)
        ret = discard_part(q, t.last, offset + bytes - t.last);
    return ret == -EOPNOTSUPP ? 0 : ret;
}

/* Data clusters that the file has holes for: they read as zeroes. */
int qcow2_preallocate(struct disk_layer *l, struct error *err)
{
    static const uint8_t zeroes[QCOW2_SECTOR];
    struct qcow2 *q = qcow2_of(l);
    uint64_t clusters = qcow2_clusters_of(q, q->header.virtual_bytes), done = 0, end = 0;
    int ret = 0;

    while (done < clusters && !ret) {
        struct plan p;

        mutex_lock(&q->lock);
        ret = make_room(q);
        if (!ret)
            ret = make_plan(q, &p, done << q->cluster_bits, (clusters - done) << q->cluster_bits);
        if (!ret && p.place != NEW)
            ret = -EEXIST;
        if (!ret)
            ret = finish_new(q, &p, p.is_fresh ? 0 : -EOPNOTSUPP);
        mutex_unlock(&q->lock);
        if (!ret) {
            done += p.clusters;
            end = MAX(end, p.host + (p.clusters << q->cluster_bits));
        }
    }
    if (!ret)
        ret = qcow2_commit(q);
    if (!ret && end)
        ret = qcow2_write_file(q, end - QCOW2_SECTOR, zeroes, sizeof zeroes);
    return ret ? error_set(err, ret, "disk %s: cannot preallocate: %s", q->name, strerror(-ret))
               : 0;
}
