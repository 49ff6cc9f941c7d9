/*
 * Slices of metadata in memory. Interface: qcow2_internal.h.
 *
 * A hash table by place in the file, and a list by age. What is pinned, dirty or
 * being loaded stays; when all are, one more than the limit is taken, and the
 * next to come gives it back. qcow2_cache_is_full makes who dirties slices commit
 * long before, so memory is bounded by the limit and a few.
 *
 * Threading: the image's lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/disk/qcow2_internal.h"

enum { EVICT_TRIES = 64 };

void qcow2_cache_init(struct qcow2_cache *c, unsigned slice_bytes, uint64_t limit_bytes)
{
    memset(c, 0, sizeof *c);
    c->slice_bytes = slice_bytes;
    c->limit = (unsigned)(limit_bytes / slice_bytes);
}

static struct qcow2_slice **bucket_of(struct qcow2_cache *c, uint64_t offset)
{
    uint64_t h = offset / c->slice_bytes * 0x9e3779b97f4a7c15;

    return &c->bucket[h >> 52];
}

static void unlink_age(struct qcow2_cache *c, struct qcow2_slice *s)
{
    *(s->newer ? &s->newer->older : &c->newest) = s->older;
    *(s->older ? &s->older->newer : &c->oldest) = s->newer;
}

static void link_newest(struct qcow2_cache *c, struct qcow2_slice *s)
{
    s->newer = NULL;
    s->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = s;
    c->newest = s;
}

static void remove_slice(struct qcow2_cache *c, struct qcow2_slice *s)
{
    struct qcow2_slice **at = bucket_of(c, s->offset);

    while (*at != s)
        at = &(*at)->hash_next;
    *at = s->hash_next;
    unlink_age(c, s);
    c->count--;
    free(s->data);
    free(s);
}

static struct qcow2_slice *find(struct qcow2_cache *c, uint64_t offset)
{
    struct qcow2_slice *s = *bucket_of(c, offset);

    while (s && s->offset != offset)
        s = s->hash_next;
    return s;
}

static void evict(struct qcow2_cache *c)
{
    struct qcow2_slice *s = c->oldest, *newer;

    for (unsigned n = 0; s && c->count >= c->limit && n < EVICT_TRIES; n++, s = newer) {
        newer = s->newer;
        if (!s->pins && !s->is_dirty && !s->is_loading)
            remove_slice(c, s);
    }
}

void qcow2_cache_drop(struct qcow2_cache *c)
{
    while (c->newest)
        remove_slice(c, c->newest);
    c->dirty = 0;
}

void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset, uint64_t bytes)
{
    for (uint64_t at = offset; at < offset + bytes; at += c->slice_bytes) {
        struct qcow2_slice *s = find(c, at);

        if (s && !s->pins && !s->is_dirty && !s->is_loading)
            remove_slice(c, s);
    }
}

void qcow2_cache_destroy(struct qcow2_cache *c)
{
    qcow2_cache_drop(c);
}

static struct qcow2_slice *add(struct qcow2_cache *c, uint64_t offset)
{
    struct qcow2_slice *s = calloc(1, sizeof *s), **at;

    if (!s)
        return NULL;
    s->data = aligned_alloc(QCOW2_SECTOR, c->slice_bytes);
    if (!s->data) {
        free(s);
        return NULL;
    }
    s->offset = offset;
    at = bucket_of(c, offset);
    s->hash_next = *at;
    *at = s;
    link_newest(c, s);
    c->count++;
    return s;
}

int qcow2_slice_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t offset,
                    struct qcow2_slice **out)
{
    struct qcow2_slice *s;
    int ret;

    for (;;) {
        s = find(c, offset);
        if (!s)
            break;
        if (s->is_loading) {
            qcow2_wait(q);
            continue;
        }
        if (c->newest != s) {
            unlink_age(c, s);
            link_newest(c, s);
        }
        s->pins++;
        *out = s;
        return 0;
    }
    evict(c);
    s = add(c, offset);
    if (!s)
        return -ENOMEM;
    s->pins = 1;
    if (c->load_locked) {
        ret = qcow2_read_file(q, offset, s->data, c->slice_bytes);
    } else {
        s->is_loading = true;
        mutex_unlock(&q->lock);
        ret = qcow2_read_file(q, offset, s->data, c->slice_bytes);
        mutex_lock(&q->lock);
        s->is_loading = false;
        qcow2_wake(q);
    }
    if (ret) {
        remove_slice(c, s);
        return ret;
    }
    *out = s;
    return 0;
}

bool qcow2_slice_is_here(struct qcow2_cache *c, uint64_t offset)
{
    const struct qcow2_slice *s = find(c, offset);

    return s && !s->is_loading;
}

void qcow2_slice_put(struct qcow2_slice *s)
{
    s->pins--;
}

void qcow2_slice_dirty(struct qcow2_cache *c, struct qcow2_slice *s)
{
    c->dirty += !s->is_dirty;
    s->is_dirty = true;
}

bool qcow2_cache_is_full(const struct qcow2_cache *c)
{
    return c->dirty >= c->limit / 2;
}
