/*
 * Compressed clusters ("Compressed Clusters Descriptor"): deflate without a
 * header, or zstd. Interface: qcow2.h, qcow2_internal.h.
 *
 * What is unpacked is a cluster at most, whatever the data says, and a zstd
 * stream that wants a window larger than any encoder needs for a cluster is
 * refused: an image cannot make the host use more. The last few clusters that
 * were unpacked are kept, because guests read them in pieces.
 *
 * Packed data goes behind the last of it, in the same cluster as long as there is
 * room, which then has a count for each that touches it.
 *
 * Threading: any thread; what is kept has a lock of its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "backend/disk/qcow2_internal.h"

enum {
    DEFLATE_READ_BITS = -15,  /* any window; minus: no header */
    DEFLATE_WRITE_BITS = -12, /* what other programs unpack */
    DEFLATE_MEMORY = 9,
    ZSTD_WINDOW_MAX = 24,
    /* Of a cluster, to see whether it can be packed at all. */
    SAMPLES = 4,
    SAMPLE_BYTES = 1024,
    SAMPLES_FROM = 32 * 1024,
};

/* ---- unpacking ---- */

static int unpack_deflate(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    z_stream z = {.next_in = (uint8_t *)(uintptr_t)in,
                  .avail_in = (unsigned)bytes,
                  .next_out = out,
                  .avail_out = (unsigned)room};
    int ret;

    if (inflateInit2(&z, DEFLATE_READ_BITS) != Z_OK)
        return -ENOMEM;
    ret = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* Behind the end of the data may be what belongs to others. */
    return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static int unpack_zstd(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    ZSTD_inBuffer from = {in, bytes, 0};
    ZSTD_outBuffer to = {out, room, 0};
    ZSTD_DCtx *z = ZSTD_createDCtx();
    size_t ret = 0;

    if (!z)
        return -ENOMEM;
    ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW_MAX);
    while (to.pos < room) {
        size_t in_before = from.pos, out_before = to.pos;

        ret = ZSTD_decompressStream(z, &to, &from);
        if (ZSTD_isError(ret) || (from.pos == in_before && to.pos == out_before))
            break;
    }
    ZSTD_freeDCtx(z);
    return to.pos == room ? 0 : -EIO;
}

static int unpack(struct qcow2 *q, uint64_t entry, uint8_t *out)
{
    uint64_t offset, bytes;
    uint8_t *in;
    int ret;

    qcow2_packed_range(q, entry, &offset, &bytes);
    in = malloc(bytes);
    if (!in)
        return -ENOMEM;
    ret = qcow2_read_file(q, offset, in, bytes);
    if (!ret)
        ret = q->header.compression == QCOW2_ZSTD
                  ? unpack_zstd(in, bytes, out, q->cluster_bytes)
                  : unpack_deflate(in, bytes, out, q->cluster_bytes);
    free(in);
    return ret;
}

static void copy_out(const uint8_t *from, const struct disk_span *spans, unsigned count,
                     uint64_t skip, uint64_t bytes)
{
    for (unsigned n = 0; n < count && bytes; n++) {
        uint64_t part = spans[n].bytes;

        if (skip >= part) {
            skip -= part;
            continue;
        }
        part = MIN(part - skip, bytes);
        memcpy((uint8_t *)spans[n].data + skip, from, part);
        from += part;
        skip = 0;
        bytes -= part;
    }
}

/* In what is kept? */
static bool read_kept(struct qcow2 *q, uint64_t entry, uint64_t skip, const struct disk_span *spans,
                      unsigned count, uint64_t spans_skip, uint64_t bytes, uint64_t *generation)
{
    bool found = false;

    mutex_lock(&q->unpack_lock);
    *generation = q->unpack_generation;
    for (unsigned n = 0; n < QCOW2_UNPACKED && !found; n++) {
        if (q->unpacked[n].entry != entry)
            continue;
        copy_out(q->unpacked[n].data + skip, spans, count, spans_skip, bytes);
        q->unpacked[n].used = ++q->unpack_clock;
        found = true;
    }
    mutex_unlock(&q->unpack_lock);
    return found;
}

/* Takes data. */
static void keep(struct qcow2 *q, uint64_t entry, uint8_t *data, uint64_t generation)
{
    struct qcow2_unpacked *oldest = &q->unpacked[0];

    mutex_lock(&q->unpack_lock);
    for (unsigned n = 1; n < QCOW2_UNPACKED; n++)
        if (q->unpacked[n].used < oldest->used)
            oldest = &q->unpacked[n];
    if (generation == q->unpack_generation) {
        uint8_t *old = oldest->data;

        *oldest = (struct qcow2_unpacked){entry, ++q->unpack_clock, data};
        data = old;
    }
    mutex_unlock(&q->unpack_lock);
    free(data);
}

void qcow2_forget_packed(struct qcow2 *q)
{
    mutex_lock(&q->unpack_lock);
    q->unpack_generation++;
    for (unsigned n = 0; n < QCOW2_UNPACKED; n++) {
        free(q->unpacked[n].data);
        q->unpacked[n] = (struct qcow2_unpacked){0};
    }
    mutex_unlock(&q->unpack_lock);
}

int qcow2_read_packed(struct qcow2 *q, uint64_t entry, uint64_t skip, const struct disk_span *spans,
                      unsigned count, uint64_t spans_skip, uint64_t bytes)
{
    uint64_t generation;
    uint8_t *data;
    int ret;

    if (read_kept(q, entry, skip, spans, count, spans_skip, bytes, &generation))
        return 0;
    data = malloc(q->cluster_bytes);
    if (!data)
        return -ENOMEM;
    ret = unpack(q, entry, data);
    if (ret) {
        free(data);
        return ret;
    }
    copy_out(data + skip, spans, count, spans_skip, bytes);
    if (bytes == q->cluster_bytes)
        free(data); /* nobody comes for the rest */
    else
        keep(q, entry, data, generation);
    return 0;
}

/* ---- packing ---- */

struct qcow2_packer {
    size_t cluster_bytes;
    z_stream z;
    ZSTD_CCtx *zstd; /* NULL: deflate */
};

struct qcow2_packer *qcow2_packer_create(const struct disk_layer *l)
{
    const struct qcow2 *q = qcow2_of_const(l);
    struct qcow2_packer *p = calloc(1, sizeof *p);
    bool ok;

    if (!p)
        return NULL;
    p->cluster_bytes = q->cluster_bytes;
    if (q->header.compression == QCOW2_ZSTD)
        ok = (p->zstd = ZSTD_createCCtx()) != NULL;
    else
        ok = deflateInit2(&p->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WRITE_BITS,
                          DEFLATE_MEMORY, Z_DEFAULT_STRATEGY) == Z_OK;
    if (!ok) {
        free(p);
        return NULL;
    }
    return p;
}

void qcow2_packer_destroy(struct qcow2_packer *p)
{
    if (!p)
        return;
    if (p->zstd)
        ZSTD_freeCCtx(p->zstd);
    else
        deflateEnd(&p->z);
    free(p);
}

static size_t pack_deflate(struct qcow2_packer *p, const void *in, size_t bytes, void *out,
                           size_t room)
{
    z_stream *z = &p->z;

    deflateReset(z);
    z->next_in = (uint8_t *)(uintptr_t)in;
    z->avail_in = (unsigned)bytes;
    z->next_out = out;
    z->avail_out = (unsigned)room;
    return deflate(z, Z_FINISH) == Z_STREAM_END ? room - z->avail_out : 0;
}

/*
 * Deflate takes longest over what it cannot pack, such as files that are packed
 * already. If neither of some pieces of a cluster becomes smaller, the cluster is
 * stored as it is.
 */
static bool is_dense(struct qcow2_packer *p, const uint8_t *in, void *out)
{
    size_t step = p->cluster_bytes / SAMPLES;

    if (p->cluster_bytes < SAMPLES_FROM)
        return false;
    for (unsigned n = 0; n < SAMPLES; n++)
        if (pack_deflate(p, in + n * step, SAMPLE_BYTES, out, SAMPLE_BYTES - SAMPLE_BYTES / 32))
            return false;
    return true;
}

size_t qcow2_pack(struct qcow2_packer *p, const void *cluster, void *out)
{
    /* As large as it was is no gain. */
    size_t room = p->cluster_bytes - 1, ret;

    if (!p->zstd)
        return is_dense(p, cluster, out) ? 0
                                         : pack_deflate(p, cluster, p->cluster_bytes, out, room);
    ret = ZSTD_compressCCtx(p->zstd, out, room, cluster, p->cluster_bytes, ZSTD_CLEVEL_DEFAULT);
    return ZSTD_isError(ret) ? 0 : ret;
}

/* Where `bytes` go, with a count for each cluster that their sectors touch. Lock
 * held. */
static int place_packed(struct qcow2 *q, uint64_t bytes, uint64_t *offset)
{
    uint64_t at = q->packed_at, left = at ? align_up(at, q->cluster_bytes) - at : 0, count = 0;
    uint64_t first, got;
    bool is_fresh;
    int ret;

    if (left) {
        ret = qcow2_refcount_get(q, at >> q->cluster_bits, &count);
        if (ret)
            return ret;
        if (!count || count >= qcow2_refcount_max(q))
            left = 0; /* full, or given up meanwhile */
    }
    if (bytes <= left) {
        *offset = at;
        q->packed_at = at + bytes;
        return qcow2_refcount_set(q, at >> q->cluster_bits, count + 1);
    }
    ret = qcow2_alloc(q, 1, &first, &got, &is_fresh);
    if (ret)
        return ret;
    /* It goes on from the last cluster into this one, if this one is next. */
    if (left && first == (at >> q->cluster_bits) + 1) {
        *offset = at;
        q->packed_at = at + bytes;
        return qcow2_refcount_set(q, at >> q->cluster_bits, count + 1);
    }
    *offset = first << q->cluster_bits;
    q->packed_at = *offset + bytes;
    return 0;
}

static void unplace(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    for (uint64_t c = offset >> q->cluster_bits; c <= (offset + bytes - 1) >> q->cluster_bits; c++)
        qcow2_free_later(q, c, 1);
}

/* L2 says where it is. Lock held. */
static int enter_packed(struct qcow2 *q, const struct qcow2_packed *p, uint64_t at)
{
    unsigned x = 62 - (q->cluster_bits - 8), index;
    uint64_t sectors = (at + p->bytes - 1) / QCOW2_SECTOR - at / QCOW2_SECTOR;
    struct qcow2_slice *s;
    int ret;

    if (at >> MIN(x, 56u))
        return -EFBIG;
    ret = qcow2_l2_own(q, p->offset >> q->cluster_bits, &s, &index);
    if (ret)
        return ret;
    if (qcow2_kind_of(q, qcow2_l2_entry(q, s, index)) != QCOW2_KIND_NONE ||
        qcow2_l2_bits(q, s, index))
        ret = -EEXIST;
    else
        qcow2_l2_set(q, s, index, QCOW2_COMPRESSED | sectors << x | at);
    qcow2_slice_put(s);
    return ret;
}

/* What follows each other in the file goes there at once. */
static int write_items(struct qcow2 *q, const struct qcow2_packed *item, const uint64_t *at,
                       unsigned count)
{
    struct disk_span spans[QCOW2_PACKED_MAX];
    int ret = 0;

    for (unsigned n = 0, run; n < count && !ret; n += run) {
        uint64_t bytes = 0;

        for (run = 0; n + run < count && at[n + run] == at[n] + bytes; run++) {
            spans[run].data = (void *)(uintptr_t)item[n + run].data;
            spans[run].bytes = item[n + run].bytes;
            bytes += item[n + run].bytes;
        }
        ret = q->file->ops->write(q->file, at[n], spans, run, bytes);
    }
    return ret;
}

int qcow2_write_packed(struct disk_layer *l, const struct qcow2_packed *item, unsigned count)
{
    struct qcow2 *q = qcow2_of(l);
    uint64_t at[QCOW2_PACKED_MAX];
    unsigned placed = 0, entered = 0;
    int ret = 0;

    if (count > QCOW2_PACKED_MAX)
        return -EINVAL;
    for (unsigned n = 0; n < count; n++)
        if (item[n].offset & (q->cluster_bytes - 1) || !item[n].bytes ||
            item[n].bytes >= q->cluster_bytes)
            return -EINVAL;
    mutex_lock(&q->lock);
    while (qcow2_wants_commit(q)) {
        mutex_unlock(&q->lock);
        ret = qcow2_commit(q);
        if (ret)
            return ret;
        mutex_lock(&q->lock);
    }
    while (placed < count && !ret) {
        ret = place_packed(q, item[placed].bytes, &at[placed]);
        placed += !ret;
    }
    mutex_unlock(&q->lock);
    if (!ret)
        ret = write_items(q, item, at, count);
    mutex_lock(&q->lock);
    while (entered < placed && !ret) {
        ret = enter_packed(q, &item[entered], at[entered]);
        entered += !ret;
    }
    for (unsigned n = entered; n < placed; n++)
        unplace(q, at[n], item[n].bytes);
    mutex_unlock(&q->lock);
    return ret;
}
