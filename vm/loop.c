/*
 * The event loop: descriptors and deferred calls, on libuv.
 * Interface: vm/loop.h; loop_create and what follows it in vm/internal.h.
 *
 * libuv's handles belong to the thread that runs the loop. A device that
 * answers a guest's access on a vCPU's thread may want to change what it waits
 * for, so a change is written down under the loop's lock and carried out by
 * the loop's thread, at once if that is who asks. While no vm_run is active
 * the loop belongs to whoever builds or takes down the machine.
 *
 * epoll refuses regular files (and /dev/null): they are always ready, and an
 * idle handle, which libuv calls once a round, stands for them.
 *
 * Threading: as vm/loop.h says; the loop's lock is a leaf.
 */
#include "vm/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <uv.h>

#include "base/patience.h"
#include "vm/internal.h"

struct loop_fd {
    struct vm *vm;
    int fd;
    bool always_ready;
    void (*ready)(void *ctx, int events);
    void *ctx;
    /* Guarded by the loop's lock: */
    int wanted;
    bool removed;
    bool queued; /* in the list of changes */
    struct loop_fd *next_change;
    /* The loop's thread only: */
    bool open;     /* libuv knows the handle */
    int duplicate; /* what libuv watches where fd is watched already, or -1 */
    union {
        uv_handle_t handle;
        uv_poll_t poll;
        uv_idle_t idle;
    } uv;
};

struct deferred {
    void (*call)(void *ctx);
    void *ctx;
    struct deferred *next;
};

struct vm_event_loop {
    uv_loop_t uv;
    uv_async_t wake;
    /* The loop's thread only: */
    struct patience patience;
    uint64_t waits_since; /* 0: has something to do */
    struct mutex lock;    /* guards: */
    struct loop_fd *changes, **changes_end;
    struct deferred *deferred, **deferred_end;
};

/* There is something to do. */
static void waited(struct vm_event_loop *loop)
{
    if (!loop->waits_since)
        return;
    patience_learn(&loop->patience, host_monotonic_ns() - loop->waits_since);
    loop->waits_since = 0;
}

/* ---- descriptors ---- */

static void dispatch(struct loop_fd *f, int events)
{
    struct vm *vm = f->vm;
    bool removed;

    waited(vm->loop);
    vm_lock(vm);
    /* With the machine's lock: who removed it had that too, or runs here. */
    mutex_lock(&vm->loop->lock);
    removed = f->removed;
    events &= f->wanted | LOOP_HANGUP;
    mutex_unlock(&vm->loop->lock);
    if (!removed && events)
        f->ready(f->ctx, events);
    vm_unlock(vm);
}

static void on_poll(uv_poll_t *handle, int status, int uv_events)
{
    struct loop_fd *f = handle->data;
    int events = 0;

    if (uv_events & UV_READABLE)
        events |= LOOP_READABLE;
    if (uv_events & UV_WRITABLE)
        events |= LOOP_WRITABLE;
    if (uv_events & UV_DISCONNECT)
        events |= LOOP_HANGUP;
    /* An error condition: libuv has stopped watching. Its owner will see the
     * error when it reads or writes; loop_set_events watches again. */
    if (status < 0)
        events = LOOP_HANGUP | LOOP_READABLE | LOOP_WRITABLE;
    dispatch(f, events);
}

static void on_idle(uv_idle_t *handle)
{
    dispatch(handle->data, LOOP_READABLE | LOOP_WRITABLE);
}

static void on_closed(uv_handle_t *handle)
{
    struct loop_fd *f = handle->data;

    if (f->duplicate >= 0)
        close(f->duplicate);
    free(f);
}

/* Makes the libuv handle. The descriptor is its owner's and perhaps shared
 * with other programs (a terminal), so the O_NONBLOCK that libuv sets is taken
 * back; libuv takes each number once only, so a second watch gets another. */
static int poll_open(struct loop_fd *f)
{
    struct vm_event_loop *loop = f->vm->loop;
    int flags = fcntl(f->fd, F_GETFL);
    int r = uv_poll_init(&loop->uv, &f->uv.poll, f->fd);

    if (r == UV_EEXIST) {
        f->duplicate = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
        if (f->duplicate < 0)
            return -errno;
        r = uv_poll_init(&loop->uv, &f->uv.poll, f->duplicate);
    }
    if (flags >= 0)
        fcntl(f->fd, F_SETFL, flags);
    return r;
}

/* Brings libuv's view of f up to date; the loop's thread only. May free f. */
static void apply(struct loop_fd *f)
{
    struct vm_event_loop *loop = f->vm->loop;
    int wanted, uv_events = 0;
    bool removed;

    mutex_lock(&loop->lock);
    wanted = f->wanted;
    removed = f->removed;
    mutex_unlock(&loop->lock);
    if (removed) {
        if (f->open)
            uv_close(&f->uv.handle, on_closed);
        else
            free(f); /* never opened, so there is no duplicate */
        return;
    }
    if (!f->open) {
        if (!wanted)
            return;
        if (!f->always_ready && poll_open(f)) {
            if (f->duplicate >= 0)
                close(f->duplicate);
            f->duplicate = -1;
            vlog(f->vm->log, VM, ERROR, "cannot wait for descriptor %d", f->fd);
            return;
        }
        if (f->always_ready)
            uv_idle_init(&loop->uv, &f->uv.idle);
        f->uv.handle.data = f;
        f->open = true;
    }
    if (f->always_ready) {
        if (wanted & (LOOP_READABLE | LOOP_WRITABLE))
            uv_idle_start(&f->uv.idle, on_idle);
        else
            uv_idle_stop(&f->uv.idle);
        return;
    }
    if (wanted & LOOP_READABLE)
        uv_events |= UV_READABLE;
    if (wanted & LOOP_WRITABLE)
        uv_events |= UV_WRITABLE;
    if (wanted & LOOP_HANGUP)
        uv_events |= UV_DISCONNECT;
    if (uv_events)
        uv_poll_start(&f->uv.poll, uv_events, on_poll);
    else
        uv_poll_stop(&f->uv.poll);
}

/* The loop is this thread's, or nobody's. */
static bool loop_is_mine(struct vm *vm)
{
    const void *runner = atomic_load(&vm->run->runner);

    return !runner || runner == vm_thread_self();
}

static void change(struct loop_fd *f)
{
    struct vm *vm = f->vm;
    struct vm_event_loop *loop = vm->loop;
    bool direct;

    mutex_lock(&loop->lock);
    direct = loop_is_mine(vm) && !f->queued; /* else in the order of the queue */
    if (!direct && !f->queued) {
        f->queued = true;
        f->next_change = NULL;
        *loop->changes_end = f;
        loop->changes_end = &f->next_change;
    }
    mutex_unlock(&loop->lock);
    if (direct)
        apply(f);
    else
        loop_wake(vm);
}

static void apply_changes(struct vm_event_loop *loop)
{
    for (;;) {
        struct loop_fd *f;

        mutex_lock(&loop->lock);
        f = loop->changes;
        if (f) {
            loop->changes = f->next_change;
            if (!loop->changes)
                loop->changes_end = &loop->changes;
            f->queued = false;
        }
        mutex_unlock(&loop->lock);
        if (!f)
            return;
        apply(f);
    }
}

/* Whether epoll takes it; negative errno where nothing does. */
static int probe(int fd, bool *pollable)
{
    struct epoll_event event = {.events = EPOLLIN};
    int r = 0, ep = epoll_create1(EPOLL_CLOEXEC);

    if (ep < 0)
        return -errno;
    *pollable = !epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event);
    if (!*pollable && errno != EPERM)
        r = -errno;
    close(ep);
    return r;
}

struct loop_fd *loop_add_fd(struct vm *vm, int fd, int events, void (*ready)(void *ctx, int events),
                            void *ctx, struct error *err)
{
    struct loop_fd *f;
    bool pollable = false;
    int r = probe(fd, &pollable);

    if (r) {
        error_set(err, r, "cannot wait for descriptor %d: %s", fd, strerror(-r));
        return NULL;
    }
    f = calloc(1, sizeof *f);
    if (!f) {
        error_set(err, -ENOMEM, "out of memory for a descriptor");
        return NULL;
    }
    f->vm = vm;
    f->fd = fd;
    f->duplicate = -1;
    f->always_ready = !pollable;
    f->wanted = events;
    f->ready = ready;
    f->ctx = ctx;
    change(f);
    return f;
}

void loop_set_events(struct loop_fd *f, int events)
{
    mutex_lock(&f->vm->loop->lock);
    f->wanted = events;
    mutex_unlock(&f->vm->loop->lock);
    change(f);
}

void loop_remove_fd(struct loop_fd *f)
{
    if (!f)
        return;
    mutex_lock(&f->vm->loop->lock);
    f->removed = true;
    f->wanted = 0;
    mutex_unlock(&f->vm->loop->lock);
    change(f);
}

/* ---- deferred calls ---- */

int loop_defer(struct vm *vm, void (*call)(void *ctx), void *ctx)
{
    struct vm_event_loop *loop = vm->loop;
    struct deferred *d = malloc(sizeof *d);

    if (!d)
        return -ENOMEM;
    *d = (struct deferred){.call = call, .ctx = ctx, .next = NULL};
    mutex_lock(&loop->lock);
    *loop->deferred_end = d;
    loop->deferred_end = &d->next;
    mutex_unlock(&loop->lock);
    loop_wake(vm);
    return 0;
}

static struct deferred *take_deferred(struct vm_event_loop *loop)
{
    struct deferred *list;

    mutex_lock(&loop->lock);
    list = loop->deferred;
    loop->deferred = NULL;
    loop->deferred_end = &loop->deferred;
    mutex_unlock(&loop->lock);
    return list;
}

/* What they defer in turn waits for the next round: other work gets its share. */
void loop_run_deferred(struct vm *vm)
{
    struct deferred *list = take_deferred(vm->loop), *next;

    for (; list; list = next) {
        next = list->next;
        vm_lock(vm);
        list->call(list->ctx);
        vm_unlock(vm);
        free(list);
    }
}

/* ---- the loop ---- */

static void on_wake(uv_async_t *handle)
{
    struct vm *vm = handle->data;

    waited(vm->loop);
    apply_changes(vm->loop);
    loop_run_deferred(vm);
}

void loop_wake(struct vm *vm)
{
    int saved = errno; /* vm_stop comes here in a signal handler */

    uv_async_send(&vm->loop->wake);
    errno = saved;
}

/* As patience_look, for what libuv waits for. */
static bool look(struct vm_event_loop *loop)
{
    struct patience *p = &loop->patience;

    for (bool looks = patience_begin(p); looks; looks = patience_lasts(p)) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        if (!loop->waits_since)
            return true;
    }
    return false;
}

void loop_poll(struct vm *vm, bool block)
{
    struct vm_event_loop *loop = vm->loop;

    if (block && !vm->deterministic) {
        loop->waits_since = host_monotonic_ns();
        if (look(loop))
            return;
    }
    uv_run(&loop->uv, block ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

int loop_create(struct vm *vm, struct error *err)
{
    struct vm_event_loop *loop = calloc(1, sizeof *loop);
    int r;

    if (!loop)
        return error_set(err, -ENOMEM, "out of memory for the event loop");
    mutex_init(&loop->lock);
    loop->changes_end = &loop->changes;
    loop->deferred_end = &loop->deferred;
    r = uv_loop_init(&loop->uv);
    if (r)
        goto fail;
    r = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (r) {
        uv_loop_close(&loop->uv);
        goto fail;
    }
    loop->wake.data = vm;
    vm->loop = loop;
    return 0;
fail:
    mutex_destroy(&loop->lock);
    free(loop);
    return error_set(err, r, "cannot create the event loop: %s", uv_strerror(r));
}

static void close_left(uv_handle_t *handle, void *arg)
{
    struct vm_event_loop *loop = arg;

    if (!uv_is_closing(handle))
        uv_close(handle, handle == (uv_handle_t *)&loop->wake ? NULL : on_closed);
}

void loop_destroy(struct vm *vm)
{
    struct vm_event_loop *loop = vm->loop;
    struct deferred *list, *next;

    if (!loop)
        return;
    apply_changes(loop);
    for (list = take_deferred(loop); list; list = next) {
        next = list->next; /* whom they would have told is gone */
        free(list);
    }
    uv_walk(&loop->uv, close_left, loop);
    uv_run(&loop->uv, UV_RUN_DEFAULT); /* until all are closed */
    uv_loop_close(&loop->uv);
    mutex_destroy(&loop->lock);
    free(loop);
    vm->loop = NULL;
}
