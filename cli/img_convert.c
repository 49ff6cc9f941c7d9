/*
 * vireo img convert. Interface: img.h.
 *
 * Threads take pieces of the disk in turn: each asks what is there, reads it,
 * looks for zeroes, packs clusters where that is asked for, and writes. So
 * reading, packing and writing overlap without a queue between them. Meanwhile the
 * host is told to begin writing to its disk, so that little is left to wait for.
 *
 * With a backing file (-B) what is written is what differs from it, by clusters of
 * the new image: contents are compared, so the backing file may be any.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/host.h"
#include "cli/img.h"

/* Two, so that one reads while the other writes; more have something to do where
 * they unpack or pack. */
enum { THREADS_MIN = 2, THREADS = 4, THREADS_MAX = 16 };

#define PIECE_BYTES ((uint64_t)2 << 20) /* at least the largest cluster */

struct converting {
    struct img_target target;
    struct img_options options;
    enum disk_format format;
    struct disk_layer *from, *to;
    struct disk_layer *base; /* below `to`, which owns it once it is there */
    uint64_t bytes, sparse_bytes, cluster_bytes;
    bool compress, is_zeroed;
    unsigned threads;
    struct img_job *job;

    _Atomic uint64_t next;
    struct mutex write_lock;
    struct mutex lock; /* guards err, and taking the next piece */
    struct error err;
    _Atomic int result;
};

static int fail(struct converting *c, int ret, const char *verb, uint64_t offset)
{
    mutex_lock(&c->lock);
    if (!atomic_load(&c->result)) {
        atomic_store(&c->result, ret);
        error_set(&c->err, ret, "cannot %s at %llu: %s", verb, (unsigned long long)offset,
                  strerror(-ret));
    }
    mutex_unlock(&c->lock);
    return ret;
}

/* ---- zeroes ---- */

static bool is_zero(const uint8_t *p, uint64_t bytes)
{
    /* The rest is equal to what is before it, if its start is zero. */
    return !le64_get(p) && (bytes <= 8 || (!p[bytes / 2] && !memcmp(p, p + 8, bytes - 8)));
}

/* From `at` on: how far all is zero, or nothing is, by units. */
static uint64_t run_of(const uint8_t *p, uint64_t at, uint64_t bytes, uint64_t unit, bool *zero)
{
    uint64_t end = MIN(at + unit, bytes);

    *zero = is_zero(p + at, end - at);
    while (end < bytes && is_zero(p + end, MIN(unit, bytes - end)) == *zero)
        end += MIN(unit, bytes - end);
    return end - at;
}

/* ---- one piece ---- */

static int write_data(struct converting *c, uint64_t offset, const uint8_t *data, uint64_t bytes)
{
    struct disk_span span = {(void *)(uintptr_t)data, bytes};
    int ret;

    /* One at a time: the host's kernel would let the others spin. */
    mutex_lock(&c->write_lock);
    ret = c->to->ops->write(c->to, offset, &span, 1, bytes);
    mutex_unlock(&c->write_lock);

    return ret ? fail(c, ret, "write", offset) : 0;
}

static int write_zeroes(struct converting *c, uint64_t offset, uint64_t bytes)
{
    int ret = c->is_zeroed ? 0 : disk_layer_zero(c->to, offset, bytes);

    return ret ? fail(c, ret, "write", offset) : 0;
}

static int write_sparse(struct converting *c, uint64_t offset, const uint8_t *data, uint64_t bytes)
{
    int ret = 0;

    if (!c->sparse_bytes)
        return write_data(c, offset, data, bytes);
    for (uint64_t at = 0, n; at < bytes && !ret; at += n) {
        bool zero;

        n = run_of(data, at, bytes, c->sparse_bytes, &zero);
        ret = zero ? write_zeroes(c, offset + at, n) : write_data(c, offset + at, data + at, n);
    }
    return ret;
}

/* What a thread has for itself. */
struct hands {
    uint8_t *data; /* PIECE_BYTES */
    uint8_t *base; /* as much of the backing file; NULL: there is none */
    uint8_t *room; /* for a packed cluster */
    struct qcow2_packer *packer;
};

static int put_packed(struct converting *c, const struct qcow2_packed *item, unsigned count)
{
    int ret = count ? qcow2_write_packed(c->to, item, count) : 0;

    return ret ? fail(c, ret, "write", item[0].offset) : 0;
}

static int write_packed(struct converting *c, uint64_t offset, const struct hands *h,
                        uint64_t bytes)
{
    struct qcow2_packed item[QCOW2_PACKED_MAX];
    unsigned count = 0;
    size_t used = 0;
    int ret = 0;

    for (uint64_t at = 0; at < bytes && !ret; at += c->cluster_bytes) {
        uint64_t n = MIN(c->cluster_bytes, bytes - at);

        if (is_zero(h->data + at, n))
            continue;
        if (count == QCOW2_PACKED_MAX || PIECE_BYTES - used < c->cluster_bytes) {
            ret = put_packed(c, item, count);
            count = 0;
            used = 0;
        }
        /* The buffer has zeroes behind the end of the disk. */
        item[count] = (struct qcow2_packed){offset + at, h->room + used, 0};
        item[count].bytes = qcow2_pack(h->packer, h->data + at, h->room + used);
        used += item[count].bytes;
        if (item[count].bytes)
            count++;
        else if (!ret)
            ret = write_data(c, offset + at, h->data + at, n);
    }
    return ret ? ret : put_packed(c, item, count);
}

/* Reads what is data; zero: nothing is. */
static int read_piece(struct converting *c, struct disk_layer *from, uint64_t offset,
                      uint8_t *buffer, uint64_t bytes, bool *zero)
{
    *zero = true;
    for (uint64_t at = 0, run; at < bytes; at += run) {
        struct disk_span span;
        int kind = disk_layer_map(from, offset + at, bytes - at, &run);

        if (kind < 0)
            return fail(c, kind, "read", offset + at);
        if (kind == DISK_MAP_ZERO) {
            memset(buffer + at, 0, run);
            continue;
        }
        *zero = false;
        span = (struct disk_span){buffer + at, run};
        kind = from->ops->read(from, offset + at, &span, 1, run);
        if (kind)
            return fail(c, kind, "read", offset + at);
    }
    return 0;
}

/* Whole clusters that differ from the backing file, and no others. */
static int write_different(struct converting *c, uint64_t offset, const struct hands *h,
                           uint64_t bytes)
{
    uint64_t there = offset < c->base->bytes ? MIN(bytes, c->base->bytes - offset) : 0;
    bool base_zero;
    int ret = read_piece(c, c->base, offset, h->base, there, &base_zero);

    memset(h->base + there, 0, bytes - there);
    for (uint64_t at = 0, n; at < bytes && !ret; at += n) {
        n = MIN(c->cluster_bytes, bytes - at);
        if (!memcmp(h->data + at, h->base + at, n))
            continue;
        if ((c->sparse_bytes || c->compress) && is_zero(h->data + at, n)) {
            ret = disk_layer_zero(c->to, offset + at, n);
            if (ret)
                fail(c, ret, "write", offset + at);
        } else if (c->compress) {
            ret = write_packed(c, offset + at,
                               &(struct hands){h->data + at, .room = h->room, .packer = h->packer},
                               n);
        } else {
            ret = write_data(c, offset + at, h->data + at, n);
        }
    }
    return ret;
}

static int convert_piece(struct converting *c, uint64_t offset, const struct hands *h)
{
    uint64_t bytes = MIN(PIECE_BYTES, c->bytes - offset);
    bool zero;
    int ret = read_piece(c, c->from, offset, h->data, bytes, &zero);

    if (ret)
        return ret;
    if (c->base) {
        memset(h->data + bytes, 0, PIECE_BYTES - bytes);
        return write_different(c, offset, h, bytes);
    }
    if (zero && c->sparse_bytes)
        return c->compress ? 0 : write_zeroes(c, offset, bytes);
    memset(h->data + bytes, 0, PIECE_BYTES - bytes);
    return c->compress ? write_packed(c, offset, h, bytes)
                       : write_sparse(c, offset, h->data, bytes);
}

/* A large hole of the source costs one question. */
static uint64_t skip_zeroes(struct converting *c, uint64_t offset)
{
    uint64_t run;

    if (!c->is_zeroed || !c->sparse_bytes || c->base ||
        disk_layer_map(c->from, offset, c->bytes - offset, &run) != DISK_MAP_ZERO)
        return 0;
    return run == c->bytes - offset ? run : align_down(run, PIECE_BYTES);
}

static void *convert_main(void *arg)
{
    struct converting *c = arg;
    struct hands h = {.data = aligned_alloc(4096, PIECE_BYTES)};

    if (c->compress) {
        h.room = malloc(PIECE_BYTES);
        h.packer = qcow2_packer_create(c->to);
    }
    if (c->base)
        h.base = aligned_alloc(4096, PIECE_BYTES);
    if (!h.data || (c->base && !h.base) || (c->compress && (!h.room || !h.packer)))
        fail(c, -ENOMEM, "read", 0);
    while (!atomic_load(&c->result) && !atomic_load(&c->job->cancel)) {
        uint64_t at, zeroes;

        /* Taking the next piece, and holes before it. */
        mutex_lock(&c->lock);
        at = atomic_load(&c->next);
        while (at < c->bytes && (zeroes = skip_zeroes(c, at))) {
            at += zeroes;
            atomic_fetch_add(&c->job->done, zeroes);
        }
        atomic_store(&c->next, at + PIECE_BYTES);
        mutex_unlock(&c->lock);
        if (at >= c->bytes || convert_piece(c, at, &h))
            break;
        atomic_fetch_add(&c->job->done, MIN(PIECE_BYTES, c->bytes - at));
    }
    qcow2_packer_destroy(h.packer);
    free(h.data);
    free(h.base);
    free(h.room);
    return NULL;
}

/* ---- all ---- */

static int run_convert(struct img_job *job, struct error *err)
{
    struct converting *c = job->ctx;
    struct thread thread[THREADS_MAX];
    unsigned started = 0;
    int ret = img_make(&c->target, c->format, &c->options, &c->to, err);

    if (ret)
        return ret;
    if (c->format == DISK_FORMAT_QCOW2)
        c->cluster_bytes = BIT(c->options.qcow2.cluster_bits);
    if (c->base)
        qcow2_set_backing(c->to, c->base);
    c->is_zeroed = !c->target.is_device || c->format == DISK_FORMAT_QCOW2;
    atomic_store(&job->total, c->bytes);
    while (started + 1 < c->threads &&
           thread_start(&thread[started], "convert", convert_main, c) == 0)
        started++;
    convert_main(c);
    for (unsigned n = 0; n < started; n++)
        thread_join(&thread[n]);
    ret = atomic_load(&c->result);
    if (ret)
        *err = c->err;
    else if (c->format == DISK_FORMAT_QCOW2)
        ret = c->to->ops->flush(c->to); /* its tables; img_target_finish waits for the disk */
    disk_layer_destroy(c->to);
    c->base = NULL;
    return ret && !err->text[0] ? error_set(err, ret, "cannot write: %s", strerror(-ret)) : ret;
}

static int parse_ways(struct converting *c, const struct img_args *a, struct error *err)
{
    unsigned processors = host_processors();

    c->sparse_bytes = 4096;
    c->compress = a->compress;
    c->threads = a->threads ? (unsigned)a->threads
                            : MIN(MAX(processors, THREADS_MIN),
                                  a->compress ? THREADS_MAX : THREADS);
    if (a->sparse && (!cli_parse_size(a->sparse, &c->sparse_bytes) ||
                      c->sparse_bytes % DISK_SECTOR_BYTES || c->sparse_bytes > PIECE_BYTES))
        return error_set(err, -EINVAL, "img convert: -S is 0 or a size from 512 to 2M");
    if (a->cache && strcmp(a->cache, "unsafe") && strcmp(a->cache, "writeback"))
        return error_set(err, -EINVAL, "img convert: -t is writeback or unsafe");
    if (a->compress && c->format != DISK_FORMAT_QCOW2)
        return error_set(err, -EINVAL, "img convert: -c needs -O qcow2");
    if (c->options.backing[0] && c->options.prealloc)
        return error_set(err, -EINVAL,
                         "img convert: what is as in the backing file cannot be preallocated: "
                         "leave out one");
    if (a->compress && c->options.prealloc)
        return error_set(err, -EINVAL,
                         "img convert: compressed clusters cannot be preallocated: leave out one");
    return 0;
}

/* NAME or ID, or snapshot.id=ID, snapshot.name=NAME for one of the two. */
static int view_snapshot(struct disk_layer *l, const char *which, const char *path,
                         struct error *err)
{
    const char *id = NULL, *name = NULL, *value = strchr(which, '=');
    struct qcow2_snapshots list;
    int ret;

    if (!qcow2_is(l))
        return error_set(err, -EINVAL, "%s is a raw image: only qcow2 ones have snapshots", path);
    if (!strncmp(which, "snapshot.id=", 12))
        id = value + 1;
    else if (!strncmp(which, "snapshot.name=", 14))
        name = value + 1;
    else
        return qcow2_snapshot_view(l, which, err);
    ret = qcow2_snapshots_read(l, &list, err);
    if (ret)
        return ret;
    ret = -ENOENT;
    for (uint32_t n = 0; n < list.count && ret == -ENOENT; n++)
        if (!strcmp(id ? list.item[n].id : list.item[n].name, id ? id : name))
            ret = qcow2_snapshot_view(l, list.item[n].id, err);
    if (ret == -ENOENT)
        error_set(err, ret, "disk %s has no snapshot with that %s: vireo img snapshot -l %s", path,
                  id ? "id" : "name", path);
    qcow2_snapshots_free(&list);
    return ret;
}

static int open_base(struct converting *c, struct error *err)
{
    int ret = img_look_at_backing(&c->options, c->target.path, &c->base, err);

    c->options.qcow2.backing_format = c->options.backing_format;
    return ret;
}

static int prepare(struct converting *c, const struct img_args *a, struct error *err)
{
    int ret = img_format_of(a->output_format ? a->output_format : "raw", &c->format, err);

    if (!ret && c->format == DISK_FORMAT_AUTO)
        ret = error_set(err, -EINVAL, "img convert: give -O raw or -O qcow2");
    if (!ret)
        ret = img_options_parse(&c->options, a->options, c->format, err);
    if (!ret && c->options.qcow2.virtual_bytes)
        ret = error_set(err, -EINVAL,
                        "img convert: the new image has the size that the first has: "
                        "leave out size");
    if (!ret)
        ret = img_take_backing(&c->options, a, c->format, err);
    if (!ret)
        ret = parse_ways(c, a, err);
    if (ret)
        return ret;
    c->from = img_open(a->word[0], a->format, true, false, err);
    if (!c->from)
        return -EINVAL;
    if (a->snapshot_view) {
        ret = view_snapshot(c->from, a->snapshot_view, a->word[0], err);
        if (ret)
            return ret;
    }
    c->bytes = c->options.qcow2.virtual_bytes = c->from->bytes;
    ret = img_target_open(&c->target, a->word[1], err);
    if (!ret && c->options.backing[0])
        ret = open_base(c, err);
    return ret;
}

int img_convert(int argc, char **argv, struct img_job *job, struct error *err)
{
    struct converting c = {.target.fd = -1, .job = job};
    struct img_args a;
    int ret = img_args_parse(&a, argc, argv, "f:O:o:l:B:b:F:cS:m:t:qpW", "convert", err);

    if (ret)
        return ret;
    if (a.words != 2)
        return error_set(err, -EINVAL, "img convert: give an image and the name of the new one");
    mutex_init(&c.lock);
    mutex_init(&c.write_lock);
    ret = prepare(&c, &a, err);
    if (!ret) {
        job->verb = "converting";
        job->quiet = a.quiet;
        job->run = run_convert;
        job->ctx = &c;
        ret = img_job_run(job, err);
    }
    disk_layer_destroy(c.from);
    disk_layer_destroy(c.base); /* nothing has come to it */
    if (!ret && !job->signal)
        ret = img_target_finish(&c.target, !a.cache || strcmp(a.cache, "unsafe"), err);
    else
        img_target_discard(&c.target);
    mutex_destroy(&c.lock);
    mutex_destroy(&c.write_lock);
    return ret;
}
