/*
 * A disk for tests. Interface: disk_shim.h.
 */
#include "tests/dev/disk_shim.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

static struct shim *of(struct disk_layer *l)
{
    return CONTAINER_OF(l, struct shim, layer);
}

static void pass_gate(struct shim *s)
{
    atomic_fetch_add(&s->waiting, 1);
    host_futex_wake(&s->waiting, INT32_MAX);
    while (atomic_load(&s->closed))
        host_futex_wait(&s->closed, 1, UINT64_MAX);
    atomic_fetch_sub(&s->waiting, 1);
}

/* Lock held. */
static int fault_of(struct shim *s, enum disk_op op, uint64_t offset, uint64_t bytes)
{
    for (unsigned n = 0; n < SHIM_FAULTS; n++) {
        struct shim_fault *f = &s->fault[n];

        if (!f->times || f->op != op ||
            (op != DISK_FLUSH && (offset > f->last || offset + bytes <= f->first)))
            continue;
        if (f->after) {
            f->after--;
            continue;
        }
        f->times--;
        return f->error;
    }
    return 0;
}

static void log_event(struct shim *s, bool is_flush, uint64_t offset, uint64_t bytes)
{
    struct shim_event *e = &s->event[s->events];

    if (s->events == SHIM_EVENTS)
        abort();
    s->events++;
    *e = (struct shim_event){.is_flush = is_flush, .offset = offset, .bytes = bytes};
    if (bytes) {
        e->data = malloc(bytes);
        memcpy(e->data, s->bytes + offset, bytes);
    }
}

static int shim_read(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                     unsigned count, uint64_t bytes)
{
    struct shim *s = of(l);
    int ret;

    pass_gate(s);
    mutex_lock(&s->lock);
    s->reads++;
    ret = fault_of(s, DISK_READ, offset, bytes);
    for (unsigned n = 0; n < count && bytes && !ret; n++) {
        uint64_t part = MIN(spans[n].bytes, bytes);

        memcpy(spans[n].data, s->bytes + offset, part);
        offset += part;
        bytes -= part;
    }
    mutex_unlock(&s->lock);
    return ret;
}

static int shim_read_now(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                         unsigned count, uint64_t bytes)
{
    return atomic_load(&of(l)->closed) ? -EAGAIN : shim_read(l, offset, spans, count, bytes);
}

static int shim_write(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                      unsigned count, uint64_t bytes)
{
    struct shim *s = of(l);
    uint64_t at = offset, left = bytes;
    int ret;

    pass_gate(s);
    mutex_lock(&s->lock);
    s->writes++;
    ret = fault_of(s, DISK_WRITE, offset, bytes);
    for (unsigned n = 0; n < count && left && !ret; n++) {
        uint64_t part = MIN(spans[n].bytes, left);

        memcpy(s->bytes + at, spans[n].data, part);
        at += part;
        left -= part;
    }
    if (!ret)
        log_event(s, false, offset, bytes);
    mutex_unlock(&s->lock);
    return ret;
}

static int shim_flush(struct disk_layer *l)
{
    struct shim *s = of(l);
    int ret;

    pass_gate(s);
    mutex_lock(&s->lock);
    s->flushes++;
    ret = fault_of(s, DISK_FLUSH, 0, 0);
    if (!ret)
        log_event(s, true, 0, 0);
    mutex_unlock(&s->lock);
    return ret;
}

static int shim_discard(struct disk_layer *l, uint64_t offset, uint64_t bytes)
{
    struct shim *s = of(l);
    int ret;

    pass_gate(s);
    mutex_lock(&s->lock);
    s->discards++;
    ret = fault_of(s, DISK_DISCARD, offset, bytes);
    if (!ret) {
        memset(s->bytes + offset, 0, bytes);
        log_event(s, false, offset, bytes);
    }
    mutex_unlock(&s->lock);
    return ret;
}

static void forget_events(struct shim *s)
{
    for (unsigned n = 0; n < s->events; n++)
        free(s->event[n].data);
    s->events = 0;
}

static void shim_destroy(struct disk_layer *l)
{
    struct shim *s = of(l);

    forget_events(s);
    mutex_destroy(&s->lock);
    free(s->bytes);
    free(s->start);
    free(s);
}

static const struct disk_layer_ops shim_ops = {
    .name = "shim",
    .read = shim_read,
    .read_now = shim_read_now,
    .write = shim_write,
    .flush = shim_flush,
    .discard = shim_discard,
    .destroy = shim_destroy,
};

struct shim *shim_create(uint64_t bytes)
{
    struct shim *s = calloc(1, sizeof *s);

    s->layer = (struct disk_layer){.ops = &shim_ops, .bytes = bytes};
    mutex_init(&s->lock);
    s->bytes = calloc(1, bytes);
    s->start = calloc(1, bytes);
    return s;
}

void shim_fail(struct shim *s, enum disk_op op, uint64_t first, uint64_t bytes, unsigned times,
               int error)
{
    for (unsigned n = 0; n < SHIM_FAULTS; n++) {
        if (s->fault[n].times)
            continue;
        s->fault[n] = (struct shim_fault){
            .op = op, .first = first, .last = first + bytes - 1, .times = times, .error = error};
        return;
    }
    abort();
}

void shim_log_write(struct shim *s, uint64_t offset, const struct iovec *iov, uint64_t bytes)
{
    uint64_t at = offset, left = bytes;

    mutex_lock(&s->lock);
    for (; left; iov++) {
        uint64_t part = MIN(iov->iov_len, left);

        memcpy(s->bytes + at, iov->iov_base, part);
        at += part;
        left -= part;
    }
    log_event(s, false, offset, bytes);
    mutex_unlock(&s->lock);
}

void shim_log_flush(struct shim *s)
{
    mutex_lock(&s->lock);
    log_event(s, true, 0, 0);
    mutex_unlock(&s->lock);
}

void shim_close(struct shim *s)
{
    atomic_store(&s->closed, 1);
}

void shim_open(struct shim *s)
{
    atomic_store(&s->closed, 0);
    host_futex_wake(&s->closed, INT32_MAX);
}

void shim_mark(struct shim *s)
{
    forget_events(s);
    memcpy(s->start, s->bytes, s->layer.bytes);
}

/* ---- power cuts ---- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void apply(uint8_t *image, const struct shim_event *e)
{
    if (!e->is_flush)
        memcpy(image + e->offset, e->data, e->bytes);
}

static void crash(struct shim *s, unsigned end, uint8_t *image, uint64_t *seed)
{
    unsigned flushed = 0;

    for (unsigned n = 0; n < end; n++)
        if (s->event[n].is_flush)
            flushed = n;
    memcpy(image, s->start, s->layer.bytes);
    for (unsigned n = 0; n < flushed; n++)
        apply(image, &s->event[n]);
    for (unsigned tries = 0; tries < 2 * (end - flushed); tries++) {
        const struct shim_event *e = &s->event[flushed + next_random(seed) % (end - flushed)];

        if (e->is_flush || next_random(seed) % 3 == 0)
            continue;
        for (uint64_t at = 0; at < e->bytes; at += DISK_SECTOR_BYTES)
            if (next_random(seed) % 4)
                memcpy(image + e->offset + at, e->data + at, MIN(e->bytes - at, DISK_SECTOR_BYTES));
    }
}

void shim_crash(struct shim *s, unsigned events, uint8_t *image, uint64_t seed)
{
    seed = (seed + 1) * 0x9e3779b97f4a7c15;
    crash(s, events, image, &seed);
}

/* A sector may hold what was promised, or what somebody wrote over it later. */
static bool sector_is_fine(struct shim *s, unsigned from, unsigned end, const uint8_t *image,
                           uint64_t at, const uint8_t *promised)
{
    if (!memcmp(image + at, promised, DISK_SECTOR_BYTES))
        return true;
    for (unsigned n = from; n < end; n++) {
        const struct shim_event *e = &s->event[n];

        if (!e->is_flush && at >= e->offset && at < e->offset + e->bytes &&
            !memcmp(image + at, e->data + (at - e->offset), DISK_SECTOR_BYTES))
            return true;
    }
    return false;
}

bool shim_crash_check(struct shim *s, unsigned events, uint64_t offset, const uint8_t *data,
                      uint64_t bytes, uint64_t seed)
{
    uint8_t *image = malloc(s->layer.bytes);
    bool fine = true;

    seed = (seed + 1) * 0x9e3779b97f4a7c15;
    for (unsigned end = events; end <= s->events && fine; end++)
        for (unsigned tries = 0; tries < 8 && fine; tries++) {
            crash(s, end, image, &seed);
            for (uint64_t at = 0; at < bytes && fine; at += DISK_SECTOR_BYTES)
                fine = sector_is_fine(s, events, end, image, offset + at, data + at);
        }
    free(image);
    return fine;
}
