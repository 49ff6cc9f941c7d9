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

size_t qcow2_compress_room(const struct disk_layer *l)
{
    return qcow2_of_const(l)->cluster_bytes;
}

static size_t pack_deflate(const void *in, size_t bytes, void *out, size_t room)
{
    z_stream z = {.next_in = (uint8_t *)(uintptr_t)in,
                  .avail_in = (unsigned)bytes,
                  .next_out = out,
                  .avail_out = (unsigned)room};
    int ret;

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WRITE_BITS, DEFLATE_MEMORY,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    ret = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return ret == Z_STREAM_END ? room - z.avail_out : 0;
}

size_t qcow2_compress(const struct disk_layer *l, const void *cluster, void *out, size_t room)
{
    const struct qcow2 *q = qcow2_of_const(l);
    size_t ret;

    /* As large as it was is no gain. */
    room = MIN(room, q->cluster_bytes - 1);
    if (q->header.compression == QCOW2_ZLIB)
        return pack_deflate(cluster, q->cluster_bytes, out, room);
    ret = ZSTD_compress(out, room, cluster, q->cluster_bytes, ZSTD_CLEVEL_DEFAULT);
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

int qcow2_write_compressed(struct disk_layer *l, uint64_t offset, const void *data, size_t bytes)
{
    struct qcow2 *q = qcow2_of(l);
    unsigned x = 62 - (q->cluster_bits - 8);
    struct qcow2_slice *s = NULL;
    uint64_t at, sectors;
    unsigned index;
    int ret;

    if (offset & (q->cluster_bytes - 1) || !bytes || bytes >= q->cluster_bytes)
        return -EINVAL;
    mutex_lock(&q->lock);
    while (qcow2_wants_commit(q)) {
        mutex_unlock(&q->lock);
        ret = qcow2_commit(q);
        if (ret)
            return ret;
        mutex_lock(&q->lock);
    }
    ret = place_packed(q, bytes, &at);
    mutex_unlock(&q->lock);
    if (ret)
        return ret;
    ret = qcow2_write_file(q, at, data, bytes);
    mutex_lock(&q->lock);
    sectors = (at + bytes - 1) / QCOW2_SECTOR - at / QCOW2_SECTOR;
    if (!ret && at >> MIN(x, 56u))
        ret = -EFBIG;
    if (!ret)
        ret = qcow2_l2_own(q, offset >> q->cluster_bits, &s, &index);
    if (!ret && qcow2_kind_of(q, qcow2_l2_entry(s, index)) != QCOW2_KIND_NONE)
        ret = -EEXIST;
    if (!ret)
        qcow2_l2_set(q, s, index, QCOW2_COMPRESSED | sectors << x | at);
    else
        unplace(q, at, bytes);
    if (s)
        qcow2_slice_put(s);
    mutex_unlock(&q->lock);
    return ret;
}
