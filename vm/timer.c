/*
 * Timers: a binary heap of absolute virtual deadlines, ties broken by the
 * order of creation. Interface: vm/clock.h.
 *
 * In real time one host timerfd (nanoseconds; the event loop's own timers
 * have milliseconds) wakes the I/O thread for the earliest deadline. It is
 * set again only for an earlier one; a wake-up that finds nothing due sets it
 * for what comes next. A deterministic machine asks timers_next_ns instead.
 *
 * Threading: the heap has its own lock, a leaf, so that a processor's local
 * timer is armed without the machine's lock. Callbacks run with the machine's
 * lock held and the heap's released. A timer is taken off the heap with both
 * held, so whoever holds the machine's lock and cancels it is done with it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vm/internal.h"
#include "vm/loop.h"

/* Each device has a few; none is created by the guest. */
#define TIMERS_MAX 1024
/* Callbacks at a time, so that descriptors (and instructions) get their turn
 * even if devices arm times that have passed. */
#define FIRE_MAX 256
#define NOT_IN_HEAP UINT32_MAX

struct timer_queue {
    struct mutex lock; /* guards everything below, and each timer's deadline */
    unsigned next_id;
    unsigned count;
    struct timer *heap[TIMERS_MAX];
    unsigned timers;        /* initialised and not destroyed */
    int fd;                 /* timerfd, -1 in a deterministic machine */
    uint64_t programmed_ns; /* virtual time it is set for; TIME_NEVER: not set */
    struct loop_fd *watch;
};

/* ---- the heap ---- */

static bool before(const struct timer *a, const struct timer *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->id < b->id;
}

static void heap_put(struct timer_queue *q, unsigned i, struct timer *t)
{
    q->heap[i] = t;
    t->heap_index = i;
}

static void heap_up(struct timer_queue *q, unsigned i)
{
    struct timer *t = q->heap[i];

    while (i > 0 && before(t, q->heap[(i - 1) / 2])) {
        heap_put(q, i, q->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_put(q, i, t);
}

static void heap_down(struct timer_queue *q, unsigned i)
{
    struct timer *t = q->heap[i];

    for (;;) {
        unsigned child = 2 * i + 1;

        if (child >= q->count)
            break;
        if (child + 1 < q->count && before(q->heap[child + 1], q->heap[child]))
            child++;
        if (!before(q->heap[child], t))
            break;
        heap_put(q, i, q->heap[child]);
        i = child;
    }
    heap_put(q, i, t);
}

static void heap_remove(struct timer_queue *q, struct timer *t)
{
    unsigned i = t->heap_index;
    struct timer *last;

    if (i == NOT_IN_HEAP)
        return;
    t->heap_index = NOT_IN_HEAP;
    last = q->heap[--q->count];
    if (last == t)
        return;
    heap_put(q, i, last);
    heap_up(q, i);
    heap_down(q, last->heap_index);
}

static uint64_t heap_next(const struct timer_queue *q)
{
    return q->count ? q->heap[0]->deadline_ns : TIME_NEVER;
}

/* ---- the host's timer ---- */

/* Sets the timerfd for the earliest deadline; lock held. */
static void program(struct vm *vm, struct timer_queue *q)
{
    struct itimerspec spec = {{0, 0}, {0, 0}}; /* all zero: disarmed */
    uint64_t next = heap_next(q);

    if (q->fd < 0)
        return;
    if (atomic_load(&vm->clock.paused_at) != TIME_NEVER)
        next = TIME_NEVER;
    if (next == q->programmed_ns)
        return;
    q->programmed_ns = next;
    if (next != TIME_NEVER) {
        uint64_t now = clock_now_ns(&vm->clock);
        uint64_t delay = next > now ? next - now : 1;

        spec.it_value.tv_sec = (time_t)MIN(delay / NS_PER_SEC, 1u << 30);
        spec.it_value.tv_nsec = (long)(delay % NS_PER_SEC);
    }
    timerfd_settime(q->fd, 0, &spec, NULL);
}

/* On the I/O thread, with the machine's lock. */
static void timerfd_ready(void *ctx, int events)
{
    struct vm *vm = ctx;
    struct timer_queue *q = vm->timers;
    uint64_t expirations;

    /* Nonblocking: program() may have set it anew, and then there is nothing. */
    if (read(q->fd, &expirations, sizeof expirations) < 0)
        expirations = 0;
    timers_fire(vm);
    mutex_lock(&q->lock);
    q->programmed_ns = TIME_NEVER; /* it has expired */
    program(vm, q);
    mutex_unlock(&q->lock);
}

int timers_create(struct vm *vm, struct error *err)
{
    struct timer_queue *q = calloc(1, sizeof *q);
    int r;

    if (!q)
        return error_set(err, -ENOMEM, "out of memory for timers");
    mutex_init(&q->lock);
    q->fd = -1;
    q->programmed_ns = TIME_NEVER;
    vm->timers = q;
    if (vm->deterministic)
        return 0;
    q->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (q->fd < 0) {
        r = error_set(err, -errno, "cannot create a timer: %s", strerror(errno));
        goto fail;
    }
    q->watch = loop_add_fd(vm, q->fd, LOOP_READABLE, timerfd_ready, vm, err);
    if (!q->watch) {
        r = -ENOMEM;
        goto fail;
    }
    return 0;
fail:
    timers_destroy(vm);
    return r;
}

void timers_destroy(struct vm *vm)
{
    struct timer_queue *q = vm->timers;

    if (!q)
        return;
    if (q->watch)
        loop_remove_fd(q->watch);
    if (q->fd >= 0)
        close(q->fd);
    mutex_destroy(&q->lock);
    free(q);
    vm->timers = NULL;
}

void timers_clock_changed(struct vm *vm)
{
    mutex_lock(&vm->timers->lock);
    program(vm, vm->timers);
    mutex_unlock(&vm->timers->lock);
}

/* ---- firing ---- */

uint64_t timers_next_ns(struct vm *vm)
{
    uint64_t next;

    mutex_lock(&vm->timers->lock);
    next = heap_next(vm->timers);
    mutex_unlock(&vm->timers->lock);
    return next;
}

bool timers_fire(struct vm *vm)
{
    struct timer_queue *q = vm->timers;
    bool stopped = atomic_load(&vm->clock.paused_at) != TIME_NEVER && !vm->deterministic;
    uint64_t now = clock_now_ns(&vm->clock);

    for (unsigned i = 0; i < FIRE_MAX && !stopped; i++) {
        struct timer *t;

        mutex_lock(&q->lock);
        if (heap_next(q) > now || !q->count) {
            mutex_unlock(&q->lock);
            return true;
        }
        t = q->heap[0];
        heap_remove(q, t);
        t->deadline_ns = TIME_NEVER;
        mutex_unlock(&q->lock);
        t->fire(t->ctx);
        /* A callback on the I/O thread may have paused the machine. */
        stopped = atomic_load(&vm->clock.paused_at) != TIME_NEVER && !vm->deterministic;
    }
    return stopped;
}

/* ---- interface ---- */

void timer_init(struct timer *t, struct vm *vm, void (*fire)(void *ctx), void *ctx)
{
    struct timer_queue *q = vm->timers;

    mutex_lock(&q->lock);
    assert(q->timers < TIMERS_MAX);
    q->timers++;
    *t = (struct timer){.vm = vm,
                        .fire = fire,
                        .ctx = ctx,
                        .deadline_ns = TIME_NEVER,
                        .id = q->next_id++,
                        .heap_index = NOT_IN_HEAP};
    mutex_unlock(&q->lock);
}

void timer_destroy(struct timer *t)
{
    if (!t->vm) /* never initialised */
        return;
    timer_cancel(t);
    mutex_lock(&t->vm->timers->lock);
    t->vm->timers->timers--;
    mutex_unlock(&t->vm->timers->lock);
    t->vm = NULL;
}

void timer_restore(struct timer *t, uint64_t deadline_ns)
{
    struct timer_queue *q = t->vm->timers;

    if (deadline_ns == TIME_NEVER) {
        timer_cancel(t);
        return;
    }
    mutex_lock(&q->lock);
    t->deadline_ns = deadline_ns;
    if (t->heap_index == NOT_IN_HEAP) {
        heap_put(q, q->count++, t);
        heap_up(q, q->count - 1);
    } else {
        heap_up(q, t->heap_index);
        heap_down(q, t->heap_index);
    }
    /* A later deadline than the one set needs no system call now: guests move
     * their timers all the time. */
    if (heap_next(q) < q->programmed_ns)
        program(t->vm, q);
    mutex_unlock(&q->lock);
    if (t->vm->deterministic)
        det_timer_armed(t->vm, deadline_ns);
}

/* What has passed is now: else a device that lags behind would come before all
 * others for ever. */
void timer_arm(struct timer *t, uint64_t deadline_ns)
{
    uint64_t now = clock_now_ns(&t->vm->clock);

    timer_restore(t, MAX(deadline_ns, now));
}

void timer_cancel(struct timer *t)
{
    struct timer_queue *q = t->vm->timers;

    mutex_lock(&q->lock);
    heap_remove(q, t);
    t->deadline_ns = TIME_NEVER;
    mutex_unlock(&q->lock);
}

bool timer_is_armed(const struct timer *t)
{
    struct timer_queue *q = t->vm->timers;
    bool armed;

    mutex_lock(&q->lock);
    armed = t->heap_index != NOT_IN_HEAP;
    mutex_unlock(&q->lock);
    return armed;
}
