/*
 * A disk: its queue, its threads, and how completions come back.
 * Interface: disk.h.
 *
 * Real time: disk_submit appends to a queue; threads, started as they are
 * needed, take from it and carry requests out on the layers; what is done goes
 * to a list. Whoever puts the first one there tells the devices of all, with the
 * machine's lock if that is free; else an eventfd has the I/O thread do it. Neither
 * between disk_plug and disk_poll, when a device has the lock. A read of little
 * that the host has in memory needs no thread there: it costs less than waking one,
 * and the device that asked hears of it when it polls.
 * Deterministic: the queue is sorted by deadline, and one timer carries out
 * what has become due.
 *
 * Threads rather than io_uring: docs/STORAGE.md has the measurements.
 *
 * Threading: as disk.h says. queue, done list and counters have a lock of the
 * disk's own, a leaf; a request belongs to the thread that carries it out while
 * it is DISK_RUNNING.
 */
#include "backend/disk/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/disk/layer.h"
#include "base/host.h"
#include "base/patience.h"
#include "vm/loop.h"
#include "vm/vm.h"

enum {
    MAX_THREADS = 8,
    NOW_BYTES = 16 * KiB, /* copied at once rather than by a thread */
    TOLD_AT_ONCE = 64,    /* before others get the machine's lock */
    NAME_BYTES = 64,
    /* Of a deterministic machine: what a fast disk takes. */
    REQUEST_NS = 20000,
    FLUSH_NS = 100000,
    BYTES_A_NS = 2,
    ERRORS_LOGGED = 8, /* then each power of two */
};

struct disk {
    struct vm *vm;
    struct disk_layer *top;
    char name[NAME_BYTES];
    char serial[DISK_SERIAL_BYTES + 1];
    bool is_unsafe;
    uint64_t errors[DISK_WRITE_ZEROES + 1]; /* by operation */
    unsigned in_flight; /* queued, running or done and not told: machine's lock */
    uint64_t next_sequence;
    bool telling; /* done() is being told */
    struct vm_settler settler;

    /* ---- real time; guarded by lock ---- */
    struct mutex lock;
    struct disk_request *queue, **queue_end;
    struct disk_request *finished, **finished_end;
    unsigned threads, asleep, queued;
    bool looking;         /* a thread looks for work before it sleeps */
    uint64_t empty_since; /* when a thread last found nothing queued */
    struct patience patience;
    bool draining; /* somebody takes from finished until it is empty */
    bool quit;
    struct thread thread[MAX_THREADS];
    _Atomic bool plugged; /* disk_poll will tell, soon */
    _Atomic uint32_t work_bell; /* futex: changes when there is work */
    _Atomic uint32_t done_bell; /* futex: changes when something is done */
    _Atomic uint32_t waiters;   /* for done_bell */
    int event;                  /* eventfd: finished is not empty */
    struct loop_fd *watch;

    /* ---- deterministic: the machine's thread only ---- */
    struct timer timer;
};

/* ---- carrying out ---- */

static int perform(struct disk *d, struct disk_request *r)
{
    struct disk_layer *top = d->top;
    int ret;

    if (r->op == DISK_FLUSH)
        return d->is_unsafe ? 0 : top->ops->flush(top);
    if (r->offset > top->bytes || r->bytes > top->bytes - r->offset)
        return -EINVAL;
    if (top->readonly && r->op != DISK_READ)
        return -EROFS;
    switch (r->op) {
    case DISK_READ:
        return top->ops->read(top, r->offset, r->spans, r->span_count, r->bytes);
    case DISK_WRITE:
        ret = top->ops->write(top, r->offset, r->spans, r->span_count, r->bytes);
        break;
    case DISK_DISCARD:
        return top->ops->discard ? top->ops->discard(top, r->offset, r->bytes) : 0;
    case DISK_WRITE_ZEROES:
        ret = disk_layer_zero(top, r->offset, r->bytes);
        break;
    case DISK_FLUSH:
    default:
        return -EINVAL;
    }
    if (!ret && r->fua && !d->is_unsafe)
        ret = top->ops->flush(top);
    return ret;
}

static void tell_error(struct disk *d, const struct disk_request *r)
{
    static const char *const verb[] = {
        [DISK_READ] = "read",
        [DISK_WRITE] = "write",
        [DISK_FLUSH] = "flush",
        [DISK_DISCARD] = "discard",
        [DISK_WRITE_ZEROES] = "write of zeroes",
    };
    uint64_t errors;

    errors = ++d->errors[r->op];
    if (errors > ERRORS_LOGGED && (errors & (errors - 1)))
        return; /* the guest decides how often it asks again */
    vlog(d->vm->log, BACKEND, ERROR, "%s: %s of %llu bytes at %llu: %s (error %llu of the kind)",
         d->name, verb[r->op], (unsigned long long)r->bytes, (unsigned long long)r->offset,
         strerror(-r->result), (unsigned long long)errors);
}

/* With the machine's lock. */
static void tell_done(struct disk *d, struct disk_request *r)
{
    r->state = DISK_IDLE;
    r->next = NULL;
    r->deadline_ns = 0;
    d->in_flight--;
    if (r->result < 0)
        tell_error(d, r);
    r->done(r);
}

/* ---- real time: the threads ---- */

/* To the list of what is done; lock held. True: nobody is about to tell. */
static bool finish(struct disk *d, struct disk_request *r)
{
    bool was_empty = !d->finished;

    r->state = DISK_DONE;
    r->next = NULL;
    *d->finished_end = r;
    d->finished_end = &r->next;
    atomic_fetch_add(&d->done_bell, 1);
    if (atomic_load(&d->waiters))
        host_futex_wake(&d->done_bell, INT32_MAX);
    return was_empty && !d->draining && !atomic_load(&d->plugged);
}

/* Has the I/O thread tell. It never fills: that reads it before it takes the list. */
static void ring(struct disk *d)
{
    uint64_t one = 1;

    if (write(d->event, &one, sizeof one) < 0)
        vlog(d->vm->log, BACKEND, ERROR, "%s: eventfd: %s", d->name, strerror(errno));
}

/* The oldest that is done, taken off the list. */
static struct disk_request *take_finished(struct disk *d)
{
    struct disk_request *r;

    mutex_lock(&d->lock);
    r = d->finished;
    d->draining = r;
    if (r) {
        d->finished = r->next;
        if (!d->finished)
            d->finished_end = &d->finished;
    }
    mutex_unlock(&d->lock);
    return r;
}

static bool has_finished(struct disk *d)
{
    bool has;

    mutex_lock(&d->lock);
    has = d->finished;
    mutex_unlock(&d->lock);
    return has;
}

/* With the machine's lock. One by one: a device may cancel others when it hears. */
static void tell_finished(struct disk *d)
{
    struct disk_request *r;
    unsigned told = 0;
    bool left;

    if (d->telling)
        return;
    d->telling = true;
    while (told++ < TOLD_AT_ONCE && (r = take_finished(d)))
        tell_done(d, r);
    d->telling = false;
    mutex_lock(&d->lock);
    d->draining = false;
    left = d->finished;
    mutex_unlock(&d->lock);
    if (left)
        ring(d);
}

/* Until the bell is not that any more; lock held, and let go of meanwhile. One looks,
 * the others sleep. */
static void wait_for_work(struct disk *d, uint32_t bell)
{
    d->empty_since = host_monotonic_ns();
    if (!d->looking) {
        bool seen;

        d->looking = true;
        mutex_unlock(&d->lock);
        seen = patience_look(&d->patience, &d->work_bell, bell);
        mutex_lock(&d->lock);
        d->looking = false;
        if (seen || atomic_load(&d->work_bell) != bell)
            return;
    }
    d->asleep++;
    mutex_unlock(&d->lock);
    host_futex_wait(&d->work_bell, bell, UINT64_MAX);
    mutex_lock(&d->lock);
    d->asleep--;
}

static void *thread_main(void *arg)
{
    struct disk *d = arg;

    mutex_lock(&d->lock);
    while (!d->quit) {
        struct disk_request *r = d->queue;
        uint32_t bell = atomic_load(&d->work_bell);

        if (!r) {
            wait_for_work(d, bell);
            continue;
        }
        d->queue = r->next;
        if (!d->queue)
            d->queue_end = &d->queue;
        d->queued--;
        r->state = DISK_RUNNING;
        mutex_unlock(&d->lock);
        r->result = perform(d, r);
        mutex_lock(&d->lock);
        if (!finish(d, r))
            continue;
        mutex_unlock(&d->lock);
        if (vm_try_lock(d->vm)) {
            tell_finished(d);
            vm_unlock(d->vm);
        } else {
            ring(d);
        }
        mutex_lock(&d->lock);
    }
    mutex_unlock(&d->lock);
    return NULL;
}

/* As many as have something to do, up to a bound; lock held, which is let go of. A
 * host without room for a thread makes do with those there are, the first of
 * which came with the disk. */
static void wake_threads_and_unlock(struct disk *d)
{
    bool wake = d->asleep && d->queued > d->looking;

    if (d->queued == 1)
        patience_learn(&d->patience, host_monotonic_ns() - d->empty_since);
    atomic_fetch_add(&d->work_bell, 1);
    if (d->queued > d->asleep + d->looking && d->threads < MAX_THREADS &&
        thread_start(&d->thread[d->threads], "disk", thread_main, d) == 0)
        d->threads++;
    mutex_unlock(&d->lock);
    if (wake)
        host_futex_wake(&d->work_bell, 1);
}

/* On the I/O thread. */
static void event_ready(void *ctx, int events)
{
    struct disk *d = ctx;
    uint64_t count;

    if (read(d->event, &count, sizeof count) == sizeof count)
        tell_finished(d);
}

/* From one of the two lists; lock held. */
static bool unlink_request(struct disk_request **list, struct disk_request ***end,
                           struct disk_request *r)
{
    for (struct disk_request **at = list; *at; at = &(*at)->next) {
        if (*at != r)
            continue;
        *at = r->next;
        if (!*at)
            *end = at;
        return true;
    }
    return false;
}

/* ---- deterministic: the timer ---- */

static void arm(struct disk *d)
{
    if (d->queue)
        timer_arm(&d->timer, d->queue->deadline_ns);
    else
        timer_cancel(&d->timer);
}

/* The first of the queue is carried out, and told. */
static void perform_first(struct disk *d)
{
    struct disk_request *r = d->queue;

    d->queue = r->next;
    r->state = DISK_RUNNING;
    r->result = r->prepare ? r->prepare(r) : 0;
    if (!r->result)
        r->result = perform(d, r);
    tell_done(d, r);
}

static void timer_fire(void *ctx)
{
    struct disk *d = ctx;
    uint64_t now = clock_now_ns(&d->vm->clock);

    while (d->queue && d->queue->deadline_ns <= now)
        perform_first(d);
    arm(d);
}

static void submit_at_deadline(struct disk *d, struct disk_request *r)
{
    struct disk_request **at = &d->queue;

    if (!r->deadline_ns)
        r->deadline_ns = clock_now_ns(&d->vm->clock) +
                         (r->op == DISK_FLUSH ? FLUSH_NS : REQUEST_NS + r->bytes / BYTES_A_NS);
    r->state = DISK_QUEUED;
    while (*at && (*at)->deadline_ns <= r->deadline_ns)
        at = &(*at)->next;
    r->next = *at;
    *at = r;
    arm(d);
}

/* ---- interface ---- */

static bool read_now(struct disk *d, struct disk_request *r)
{
    struct disk_layer *top = d->top;

    /* Somebody will tell, and is not about to ring. */
    if (!atomic_load(&d->plugged) && !d->telling)
        return false;
    return r->op == DISK_READ && r->bytes <= NOW_BYTES && top->ops->read_now &&
           r->offset <= top->bytes && r->bytes <= top->bytes - r->offset &&
           !top->ops->read_now(top, r->offset, r->spans, r->span_count, r->bytes);
}

/* Until something is done after `bell` was read. */
static void wait_done(struct disk *d, uint32_t bell)
{
    atomic_fetch_add(&d->waiters, 1);
    host_futex_wait(&d->done_bell, bell, UINT64_MAX);
    atomic_fetch_sub(&d->waiters, 1);
}

void disk_submit(struct disk *d, struct disk_request *r)
{
    int ret;

    d->in_flight++;
    r->sequence = d->next_sequence++;
    if (d->vm->deterministic) {
        submit_at_deadline(d, r);
        return;
    }
    ret = r->prepare ? r->prepare(r) : 0;
    if (ret || read_now(d, r)) {
        bool must_tell;

        r->result = ret;
        mutex_lock(&d->lock);
        must_tell = finish(d, r);
        mutex_unlock(&d->lock);
        if (must_tell)
            ring(d);
        return;
    }
    mutex_lock(&d->lock);
    r->state = DISK_QUEUED;
    r->next = NULL;
    *d->queue_end = r;
    d->queue_end = &r->next;
    d->queued++;
    wake_threads_and_unlock(d);
}

void disk_plug(struct disk *d)
{
    atomic_store(&d->plugged, true);
}

void disk_poll(struct disk *d)
{
    /* Before the list is looked at with the lock: who finds it plugged has put its
     * request there before that. */
    atomic_store(&d->plugged, false);
    if (!d->vm->deterministic && d->in_flight)
        tell_finished(d);
}

bool disk_cancel(struct disk *d, struct disk_request *r)
{
    bool taken = false, is_idle;

    if (d->vm->deterministic) {
        is_idle = r->state == DISK_IDLE;
        taken = unlink_request(&d->queue, &d->queue_end, r);
        arm(d);
    } else {
        mutex_lock(&d->lock);
        is_idle = r->state == DISK_IDLE;
        if (r->state == DISK_QUEUED) {
            taken = unlink_request(&d->queue, &d->queue_end, r);
            d->queued--;
        } else if (r->state == DISK_DONE) {
            taken = unlink_request(&d->finished, &d->finished_end, r);
        }
        mutex_unlock(&d->lock);
    }
    if (is_idle)
        return true;
    if (!taken)
        return false;
    r->state = DISK_IDLE;
    r->next = NULL;
    r->deadline_ns = 0;
    d->in_flight--;
    return true;
}

void disk_withdraw(struct disk *d, struct disk_request *r)
{
    for (;;) {
        uint32_t bell = atomic_load(&d->done_bell);

        if (disk_cancel(d, r) || d->vm->deterministic)
            return;
        wait_done(d, bell);
    }
}

void disk_drain(struct disk *d)
{
    while (d->in_flight) {
        uint32_t bell = atomic_load(&d->done_bell);
        struct disk_request *r;

        if (d->vm->deterministic) {
            perform_first(d);
            continue;
        }
        if (!d->telling)
            tell_finished(d);
        else if ((r = take_finished(d))) /* from within a done() */
            tell_done(d, r);
        if (d->in_flight && !has_finished(d))
            wait_done(d, bell);
    }
    if (d->vm->deterministic)
        arm(d);
}

unsigned disk_in_flight(const struct disk *d)
{
    return d->in_flight;
}

uint64_t disk_bytes(const struct disk *d)
{
    return d->top->bytes;
}

bool disk_is_readonly(const struct disk *d)
{
    return d->top->readonly;
}

const char *disk_serial(const struct disk *d)
{
    return d->serial;
}

void disk_set_serial(struct disk *d, const char *serial)
{
    snprintf(d->serial, sizeof d->serial, "%s", serial);
}

void disk_set_unsafe(struct disk *d, bool is_unsafe)
{
    d->is_unsafe = is_unsafe;
}

/* ---- life ---- */

static int start_threads(struct disk *d, struct error *err)
{
    int ret;

    d->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (d->event < 0)
        return error_set(err, -errno, "%s: cannot create an eventfd: %s", d->name, strerror(errno));
    d->watch = loop_add_fd(d->vm, d->event, LOOP_READABLE, event_ready, d, err);
    if (!d->watch)
        return -ENOMEM;
    ret = thread_start(&d->thread[0], "disk", thread_main, d);
    if (ret)
        return error_set(err, ret, "%s: cannot start a thread: %s", d->name, strerror(-ret));
    d->threads = 1;
    return 0;
}

static void stop_threads(struct disk *d)
{
    mutex_lock(&d->lock);
    d->quit = true;
    atomic_fetch_add(&d->work_bell, 1);
    mutex_unlock(&d->lock);
    host_futex_wake(&d->work_bell, INT32_MAX);
    for (unsigned n = 0; n < d->threads; n++)
        thread_join(&d->thread[n]);
    loop_remove_fd(d->watch);
    if (d->event >= 0)
        close(d->event);
}

static void settle(void *ctx)
{
    disk_drain(ctx);
}

static void release(struct disk *d)
{
    vm_lock(d->vm);
    vm_remove_settler(d->vm, &d->settler);
    vm_unlock(d->vm);
    if (d->vm->deterministic)
        timer_destroy(&d->timer);
    else
        stop_threads(d);
    disk_layer_destroy(d->top);
    mutex_destroy(&d->lock);
    free(d);
}

struct disk *disk_create(struct vm *vm, struct disk_layer *top, const char *name, struct error *err)
{
    struct disk *d = calloc(1, sizeof *d);

    if (!d) {
        disk_layer_destroy(top);
        error_set(err, -ENOMEM, "out of memory for a disk");
        return NULL;
    }
    d->vm = vm;
    d->top = top;
    d->event = -1;
    d->queue_end = &d->queue;
    d->finished_end = &d->finished;
    snprintf(d->name, sizeof d->name, "%s", name);
    mutex_init(&d->lock);
    d->settler = (struct vm_settler){.settle = settle, .ctx = d};
    vm_lock(vm);
    vm_add_settler(vm, &d->settler);
    vm_unlock(vm);
    if (vm->deterministic) {
        timer_init(&d->timer, vm, timer_fire, d);
    } else if (start_threads(d, err)) {
        release(d);
        return NULL;
    }
    return d;
}

struct disk *disk_open(struct vm *vm, const struct disk_config *config, struct error *err)
{
    struct disk_image_config image = {
        .path = config->path,
        .format = config->format,
        .readonly = config->readonly || config->snapshot,
        .cache = config->cache,
    };
    struct disk_layer *layer = disk_image_open(&image, vm->log, err);
    struct disk *d;

    if (layer && !layer->bytes) {
        error_set(err, -EINVAL, "disk %s is empty: make it larger, as in vireo img resize %s 8G",
                  config->path, config->path);
        disk_layer_destroy(layer);
        layer = NULL;
    }

    if (layer && config->snapshot && !config->readonly)
        layer = disk_overlay_create(layer, err);
    if (!layer)
        return NULL;
    d = disk_create(vm, layer, config->path, err);
    if (!d)
        return NULL;
    /* What a snapshot flushed is as lost as the rest. */
    d->is_unsafe = config->cache == DISK_UNSAFE || config->snapshot;
    if (config->serial)
        disk_set_serial(d, config->serial);
    return d;
}

void disk_destroy(struct disk *d)
{
    int ret;

    if (!d)
        return;
    vm_lock(d->vm);
    disk_drain(d);
    vm_unlock(d->vm);
    if (!d->top->readonly && !d->is_unsafe) {
        ret = d->top->ops->flush(d->top);
        if (ret)
            vlog(d->vm->log, BACKEND, ERROR, "%s: flush at the end: %s", d->name, strerror(-ret));
    }
    release(d);
}
