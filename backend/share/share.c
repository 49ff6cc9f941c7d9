/*
 * A share: its queue and its thread. Interface: share.h; what is said on it is
 * nine.c's.
 *
 * Threading: as share.h says. The lists have a lock of the share's own, a leaf; a
 * request, and the server behind it, belong to the thread while it is
 * SHARE_RUNNING, and to the holder of the machine's lock while nothing is.
 */
#include "backend/share/share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/share/nine.h"
#include "base/host.h"
#include "base/patience.h"
#include "vm/loop.h"
#include "vm/vm.h"

struct share {
    struct vm *vm;
    struct nine nine;
    char tag[SHARE_TAG_BYTES];
    unsigned in_flight; /* submitted, and neither done nor withdrawn: machine's lock */
    struct vm_settler settler;

    /* ---- real time; guarded by lock ---- */
    struct mutex lock;
    struct share_request *queue, **queue_end;
    struct share_request *finished, **finished_end;
    bool quit, has_thread;
    bool asleep; /* the thread is, or is about to be */
    struct thread thread;
    struct patience patience; /* the thread's */
    _Atomic uint32_t work_bell; /* futex: changes when there is work */
    _Atomic uint32_t done_bell; /* futex: changes when something is done */
    int event;                  /* eventfd: finished is not empty */
    struct loop_fd *watch;
};

/* ---- the thread ---- */

static void finish(struct share *s, struct share_request *r)
{
    bool was_empty = !s->finished;
    uint64_t one = 1;

    r->state = SHARE_DONE;
    r->next = NULL;
    *s->finished_end = r;
    s->finished_end = &r->next;
    atomic_fetch_add(&s->done_bell, 1);
    /* It never fills: the I/O thread reads it before it takes the list. */
    if (was_empty && write(s->event, &one, sizeof one) < 0)
        atomic_fetch_add(&s->done_bell, 1);
}

/* Until the bell is not that any more; lock held, and let go of meanwhile. */
static void wait_for_work(struct share *s, uint32_t bell)
{
    uint64_t start = host_monotonic_ns();
    bool seen;

    mutex_unlock(&s->lock);
    seen = patience_look(&s->patience, &s->work_bell, bell);
    mutex_lock(&s->lock);
    if (!seen) {
        s->asleep = true;
        mutex_unlock(&s->lock);
        host_futex_wait(&s->work_bell, bell, UINT64_MAX);
        mutex_lock(&s->lock);
        s->asleep = false;
    }
    patience_learn(&s->patience, host_monotonic_ns() - start);
}

static void *thread_main(void *arg)
{
    struct share *s = arg;

    mutex_lock(&s->lock);
    while (!s->quit) {
        struct share_request *r = s->queue;
        uint32_t bell = atomic_load(&s->work_bell);

        if (!r) {
            wait_for_work(s, bell);
            continue;
        }
        s->queue = r->next;
        if (!s->queue)
            s->queue_end = &s->queue;
        r->state = SHARE_RUNNING;
        mutex_unlock(&s->lock);
        r->reply_bytes = nine_handle(&s->nine, r);
        mutex_lock(&s->lock);
        finish(s, r);
        host_futex_wake(&s->done_bell, INT32_MAX);
    }
    mutex_unlock(&s->lock);
    return NULL;
}

static struct share_request *take_finished(struct share *s)
{
    struct share_request *r;

    mutex_lock(&s->lock);
    r = s->finished;
    if (r) {
        s->finished = r->next;
        if (!s->finished)
            s->finished_end = &s->finished;
    }
    mutex_unlock(&s->lock);
    return r;
}

static void tell_done(struct share *s, struct share_request *r)
{
    r->state = SHARE_IDLE;
    r->next = NULL;
    s->in_flight--;
    r->done(r);
}

/* On the I/O thread. */
static void event_ready(void *ctx, int events)
{
    struct share *s = ctx;
    struct share_request *r;
    uint64_t count;

    if (read(s->event, &count, sizeof count) < 0)
        return;
    while ((r = take_finished(s)))
        tell_done(s, r);
}

/* Which it is in; lock held. */
static void unlink_request(struct share_request **list, struct share_request ***end,
                           struct share_request *r)
{
    while (*list != r)
        list = &(*list)->next;
    *list = r->next;
    if (!*list)
        *end = list;
}

/* ---- interface ---- */

void share_submit(struct share *s, struct share_request *r)
{
    bool wake;

    s->in_flight++;
    if (s->vm->deterministic) {
        r->state = SHARE_RUNNING;
        r->reply_bytes = nine_handle(&s->nine, r);
        tell_done(s, r);
        return;
    }
    mutex_lock(&s->lock);
    r->state = SHARE_QUEUED;
    r->next = NULL;
    *s->queue_end = r;
    s->queue_end = &r->next;
    atomic_fetch_add(&s->work_bell, 1);
    wake = s->asleep;
    mutex_unlock(&s->lock);
    if (wake)
        host_futex_wake(&s->work_bell, 1);
}

static bool cancel(struct share *s, struct share_request *r)
{
    enum share_request_state state;

    mutex_lock(&s->lock);
    state = r->state;
    if (state == SHARE_QUEUED)
        unlink_request(&s->queue, &s->queue_end, r);
    else if (state == SHARE_DONE)
        unlink_request(&s->finished, &s->finished_end, r);
    mutex_unlock(&s->lock);
    if (state == SHARE_IDLE || state == SHARE_RUNNING)
        return state == SHARE_IDLE;
    r->state = SHARE_IDLE;
    r->next = NULL;
    s->in_flight--;
    return true;
}

void share_withdraw(struct share *s, struct share_request *r)
{
    for (;;) {
        uint32_t bell = atomic_load(&s->done_bell);

        if (cancel(s, r))
            return;
        host_futex_wait(&s->done_bell, bell, UINT64_MAX);
    }
}

static void drain(void *ctx)
{
    struct share *s = ctx;

    while (s->in_flight) {
        uint32_t bell = atomic_load(&s->done_bell);
        struct share_request *r = take_finished(s);

        if (r)
            tell_done(s, r);
        else
            host_futex_wait(&s->done_bell, bell, UINT64_MAX);
    }
}

void share_forget(struct share *s)
{
    nine_forget(&s->nine);
}

bool share_is_used(const struct share *s)
{
    return s->nine.message_max;
}

unsigned share_in_flight(const struct share *s)
{
    return s->in_flight;
}

const char *share_tag(const struct share *s)
{
    return s->tag;
}

/* ---- life ---- */

static int start_thread(struct share *s, struct error *err)
{
    int ret;

    s->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->event < 0)
        return error_set(err, -errno, "--share: cannot create an eventfd: %s", strerror(errno));
    s->watch = loop_add_fd(s->vm, s->event, LOOP_READABLE, event_ready, s, err);
    if (!s->watch)
        return -ENOMEM;
    ret = thread_start(&s->thread, "share", thread_main, s);
    if (ret)
        return error_set(err, ret, "--share: cannot start a thread: %s", strerror(-ret));
    s->has_thread = true;
    return 0;
}

static void release(struct share *s)
{
    vm_lock(s->vm);
    vm_remove_settler(s->vm, &s->settler);
    vm_unlock(s->vm);
    if (s->has_thread) {
        mutex_lock(&s->lock);
        s->quit = true;
        atomic_fetch_add(&s->work_bell, 1);
        mutex_unlock(&s->lock);
        host_futex_wake(&s->work_bell, INT32_MAX);
        thread_join(&s->thread);
    }
    loop_remove_fd(s->watch);
    if (s->event >= 0)
        close(s->event);
    nine_close(&s->nine);
    mutex_destroy(&s->lock);
    free(s);
}

struct share *share_open(struct vm *vm, const struct share_config *config, struct error *err)
{
    struct share *s = calloc(1, sizeof *s);
    int ret;

    if (!s) {
        error_set(err, -ENOMEM, "out of memory for a shared folder");
        return NULL;
    }
    ret = nine_open(&s->nine, config->path, config->readonly);
    if (ret) {
        error_set(err, ret, "--share %.128s: cannot open the folder: %s", config->path,
                  strerror(-ret));
        free(s);
        return NULL;
    }
    s->vm = vm;
    s->event = -1;
    s->queue_end = &s->queue;
    s->finished_end = &s->finished;
    snprintf(s->tag, sizeof s->tag, "%s", config->tag);
    mutex_init(&s->lock);
    s->settler = (struct vm_settler){.settle = drain, .ctx = s};
    vm_lock(vm);
    vm_add_settler(vm, &s->settler);
    vm_unlock(vm);
    if (!vm->deterministic && start_thread(s, err)) {
        release(s);
        return NULL;
    }
    return s;
}

void share_close(struct share *s)
{
    if (!s)
        return;
    vm_lock(s->vm);
    drain(s);
    vm_unlock(s->vm);
    release(s);
}
