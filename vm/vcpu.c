/*
 * vCPUs: doorbells, safepoints, rendezvous, exclusive sections, the queue of
 * stale code, and the thread of each. Interface: vm/vcpu.h.
 *
 * Who may be waited for, and why it ends. Only a vCPU that is inside is waited
 * for, and inside it never blocks: it leaves before it waits for the machine's
 * lock (vm/lock.c), for an exclusive section (vcpu_enter), for a rendezvous or
 * to run alone (below), and before it sleeps. So each wait below is for
 * somebody who executes code and looks at its events at the next boundary.
 * Several may rendezvous, or want to run alone, at once: each waits outside,
 * so none waits for another.
 *
 * Memory order. All operations on events, inside, exclusive, safepoints,
 * safepoint_waiters and sleeping are sequentially consistent, because every
 * handshake here is "store mine, then look at yours" on both sides, which
 * nothing weaker makes safe: in the single order of these operations one of
 * the two sides comes first, and the other then sees it. The pairs:
 *
 *  - enter:     inside = 1, then load exclusive
 *    exclusive: exclusive = me, then load inside of each other
 *  - enter:     inside = 1, then load events (or the memory view)
 *    rendezvous: post events, then load inside (a new view is published the
 *               same way before its predecessor is freed)
 *  - leave, take_events: inside = 0 or count the safepoint, then load waiters
 *    waiting:   waiters + 1, then load inside and safepoints
 *  - sleep:     sleeping = LOOKING or ASLEEP, then look for work
 *    post:      store the work, set events, then take sleeping
 */
#include <assert.h>
#include <stdio.h>

#include "vm/internal.h"

/* Events that a halted processor is woken for; the others wait in the word
 * until it enters again. */
#define WAKING (EVENT_INTERRUPT | EVENT_INIT | EVENT_STARTUP | EVENT_PAUSE)

/* How often a waiter looks before it sleeps: a few microseconds, which is what
 * a processor that is running needs to reach its next block. */
#define SPINS 200

/* vcpu.sleeping */
enum { AWAKE, LOOKING, ASLEEP };

void vcpu_init(struct vcpu *v, struct vm *vm, unsigned index)
{
    v->vm = vm;
    v->index = index;
    atomic_init(&v->events, 0);
    atomic_init(&v->sleeping, AWAKE);
    memset(&v->patience, 0, sizeof v->patience);
    atomic_init(&v->inside, 0);
    atomic_init(&v->safepoints, 0);
    atomic_init(&v->view_seen, 0);
    v->halted = false;
    v->reenter = false;
    v->run_ns = 0;
    v->code_range_count = 0;
    mutex_init(&v->code_lock);
}

void vcpu_finish(struct vcpu *v)
{
    mutex_destroy(&v->code_lock);
}

void vcpu_post(struct vcpu *v, uint32_t events)
{
    atomic_fetch_or(&v->events, events);
    /* The load first: the word is seldom set, and an exchange would take the
     * cache line from its owner at each post. */
    if ((events & WAKING) && atomic_load(&v->sleeping) &&
        atomic_exchange(&v->sleeping, AWAKE) == ASLEEP)
        host_futex_wake(&v->sleeping, 1);
}

/* ---- safepoints ---- */

static void tell_waiters(struct vm_run_state *run)
{
    if (unlikely(atomic_load(&run->safepoint_waiters))) {
        atomic_fetch_add(&run->safepoint_bell, 1);
        host_futex_wake(&run->safepoint_bell, INT32_MAX);
    }
}

/* Goes inside without asking whether that is allowed now. */
static void go_inside(struct vcpu *v)
{
    atomic_exchange(&v->inside, 1);
}

/* What every way in ends with: whoever counted this processor as outside may
 * have had its translations revoked, and counts on that before it goes on;
 * this may be in the middle of an instruction. */
static void entered(struct vcpu *v)
{
    atomic_store(&v->view_seen, atomic_load(&v->vm->view_generation));
    if (unlikely(atomic_load(&v->events) & EVENT_REVOKE) && v->ops->revoke) {
        atomic_fetch_and(&v->events, ~(uint32_t)EVENT_REVOKE);
        v->ops->revoke(v);
    }
}

void vcpu_enter(struct vcpu *v)
{
    struct vm_run_state *run = v->vm->run;

    assert(!atomic_load_explicit(&v->inside, memory_order_relaxed));
    for (;;) {
        uint32_t alone;

        /* Cleared before the look at exclusive: who takes that word after the
         * look posts the event after this, so it cannot be lost. */
        atomic_fetch_and(&v->events, ~(uint32_t)EVENT_EXCLUSIVE);
        go_inside(v);
        alone = atomic_load(&run->exclusive);
        /* Ourselves: a device access of our own exclusive section had to wait
         * for the machine's lock. */
        if (likely(!alone) || alone == v->index + 1)
            break;
        vcpu_leave(v);
        host_futex_wait(&run->exclusive, alone, UINT64_MAX);
    }
    entered(v);
}

void vcpu_leave(struct vcpu *v)
{
    atomic_store(&v->inside, 0);
    tell_waiters(v->vm->run);
}

uint32_t vcpu_take_events(struct vcpu *v)
{
    uint32_t events;

    /* Counted before the events are taken: see has_passed. */
    atomic_fetch_add(&v->safepoints, 1);
    events = atomic_exchange(&v->events, 0);
    atomic_store(&v->view_seen, atomic_load(&v->vm->view_generation));
    tell_waiters(v->vm->run);
    return events;
}

/*
 * Whether v has reached a safepoint since events were posted to it; count is
 * its safepoints, read after that. If the count has changed, the taking that
 * follows in vcpu_take_events comes after the post, and includes it. If it has
 * not, the post may still have been taken between the two: then the events are
 * gone, or were posted once more by another, and a safepoint is to come.
 * Either way v has stopped executing guest code between post and now.
 */
static bool has_passed(struct vcpu *v, uint32_t events, uint64_t count)
{
    return !atomic_load(&v->inside) || atomic_load(&v->safepoints) != count ||
           !(atomic_load(&v->events) & events);
}

/* Waits, outside, for one other; events 0: until it is outside. */
static void wait_for(struct vm_run_state *run, struct vcpu *v, uint32_t events, uint64_t count)
{
#define PASSED() (events ? has_passed(v, events, count) : !atomic_load(&v->inside))
    for (int i = 0; i < SPINS; i++) {
        if (PASSED())
            return;
        __builtin_ia32_pause();
    }
    atomic_fetch_add(&run->safepoint_waiters, 1);
    for (;;) {
        uint32_t bell = atomic_load(&run->safepoint_bell);

        if (PASSED())
            break;
        host_futex_wait(&run->safepoint_bell, bell, UINT64_MAX);
    }
    atomic_fetch_sub(&run->safepoint_waiters, 1);
#undef PASSED
}

void vcpu_rendezvous(struct vcpu *self, uint32_t events)
{
    struct vm *vm = self->vm;
    uint64_t count[VM_MAX_VCPUS];

    if (vm->vcpu_count == 1)
        return;
    assert(!vm_lock_is_mine(vm));
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct vcpu *v = vm->vcpus[i];

        if (v == self)
            continue;
        vcpu_post(v, events);
        count[i] = atomic_load(&v->safepoints);
    }
    vcpu_leave(self);
    for (unsigned i = 0; i < vm->vcpu_count; i++)
        if (vm->vcpus[i] != self)
            wait_for(vm->run, vm->vcpus[i], events, count[i]);
    vcpu_enter(self);
}

void vcpu_wait_all(struct vm *vm, uint32_t events)
{
    uint64_t count[VM_MAX_VCPUS];

    assert(!vm_thread_vcpu());
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        vcpu_post(vm->vcpus[i], events);
        count[i] = atomic_load(&vm->vcpus[i]->safepoints);
    }
    for (unsigned i = 0; i < vm->vcpu_count; i++)
        wait_for(vm->run, vm->vcpus[i], events, count[i]);
}

void vcpu_exclusive_begin(struct vcpu *self)
{
    struct vm *vm = self->vm;
    struct vm_run_state *run = vm->run;
    uint32_t nobody = 0;

    assert(!vm_lock_is_mine(vm));
    vcpu_leave(self);
    while (!atomic_compare_exchange_strong(&run->exclusive, &nobody, self->index + 1)) {
        host_futex_wait(&run->exclusive, nobody, UINT64_MAX);
        nobody = 0;
    }
    for (unsigned i = 0; i < vm->vcpu_count; i++)
        if (vm->vcpus[i] != self)
            vcpu_post(vm->vcpus[i], EVENT_EXCLUSIVE);
    for (unsigned i = 0; i < vm->vcpu_count; i++)
        if (vm->vcpus[i] != self)
            wait_for(run, vm->vcpus[i], 0, 0);
    /* Inside again, past the gate that is shut by ourselves. */
    go_inside(self);
    entered(self);
}

void vcpu_exclusive_end(struct vcpu *self)
{
    struct vm_run_state *run = self->vm->run;

    assert(atomic_load(&run->exclusive) == self->index + 1);
    atomic_store(&run->exclusive, 0);
    if (self->vm->vcpu_count > 1)
        host_futex_wake(&run->exclusive, INT32_MAX);
}

/* ---- stale code ---- */

/* Ranges no further apart may become one when there is no room. */
#define CODE_GAP (1 << 20)

static uint64_t gap_between(const struct vcpu_code_range *r, uint64_t offset, uint64_t bytes)
{
    if (offset > r->offset + r->bytes)
        return offset - (r->offset + r->bytes);
    return r->offset > offset + bytes ? r->offset - (offset + bytes) : 0;
}

static void queue_code(struct vcpu *v, struct ram_block *block, uint64_t offset, uint64_t bytes)
{
    struct vcpu_code_range *near = NULL;
    uint64_t gap = CODE_GAP + 1;
    bool full;

    mutex_lock(&v->code_lock);
    full = v->code_range_count >= ARRAY_SIZE(v->code_ranges);
    for (unsigned i = 0; i < MIN(v->code_range_count, ARRAY_SIZE(v->code_ranges)) && gap; i++) {
        struct vcpu_code_range *r = &v->code_ranges[i];

        if (r->block == block && gap_between(r, offset, bytes) < gap) {
            gap = gap_between(r, offset, bytes);
            near = r;
        }
    }
    /* Touching or overlapping: one range, as a sequential DMA makes them. */
    if (near && (!gap || full)) {
        uint64_t end = MAX(near->offset + near->bytes, offset + bytes);

        near->offset = MIN(near->offset, offset);
        near->bytes = end - near->offset;
    } else if (!full) {
        v->code_ranges[v->code_range_count++] =
            (struct vcpu_code_range){.block = block, .offset = offset, .bytes = bytes};
    } else {
        v->code_range_count = ARRAY_SIZE(v->code_ranges) + 1;
    }
    mutex_unlock(&v->code_lock);
}

void vcpu_code_written(struct vm *vm, struct vcpu *writer, struct ram_block *block,
                       uint64_t offset, uint64_t bytes)
{
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct vcpu *v = vm->vcpus[i];

        if (v == writer)
            continue;
        queue_code(v, block, offset, bytes);
        vcpu_post(v, EVENT_CODE);
    }
}

unsigned vcpu_code_told(struct vcpu *v, struct vcpu_code_range ranges[VCPU_CODE_RANGES])
{
    unsigned count;

    mutex_lock(&v->code_lock);
    count = v->code_range_count;
    memcpy(ranges, v->code_ranges, sizeof v->code_ranges);
    mutex_unlock(&v->code_lock);
    return count;
}

void vcpu_drain_code(struct vcpu *v)
{
    struct vcpu_code_range ranges[ARRAY_SIZE(v->code_ranges)];
    unsigned count;

    /* Copied out, so that the callback runs without the lock. What is queued
     * after this posts the event after it, too. */
    mutex_lock(&v->code_lock);
    count = v->code_range_count;
    memcpy(ranges, v->code_ranges, sizeof ranges);
    v->code_range_count = 0;
    mutex_unlock(&v->code_lock);
    if (!v->ops->code_written)
        return;
    if (count > ARRAY_SIZE(ranges)) {
        v->ops->code_written(v, NULL, 0, 0);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        v->ops->code_written(v, ranges[i].block, ranges[i].offset, ranges[i].bytes);
}

void vcpu_forget_everything(struct vm *vm)
{
    ram_blocks_forget_code(vm); /* no processor executes before it has done so too */
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct vcpu *v = vm->vcpus[i];

        mutex_lock(&v->code_lock);
        v->code_range_count = ARRAY_SIZE(v->code_ranges) + 1;
        mutex_unlock(&v->code_lock);
        vcpu_post(v, EVENT_CODE | EVENT_FLUSH | EVENT_INTERRUPT);
    }
}

/* ---- the thread of a vCPU (real time) ---- */

/* Halted: looks, then sleeps, until it has work or must park. True: it has work. */
static bool wait_for_work(struct vcpu *v)
{
    uint32_t looking = LOOKING;
    uint64_t start;

    atomic_store(&v->sleeping, LOOKING);
    if (v->ops->has_work(v)) {
        atomic_store(&v->sleeping, AWAKE);
        return true;
    }
    start = host_monotonic_ns();
    /* Whoever wants it stopped sets that before it posts EVENT_PAUSE, so
     * either it is seen here, or the post finds the word set and wakes. */
    if (!vm_must_park(v->vm) && !patience_look(&v->patience, &v->sleeping, LOOKING) &&
        atomic_compare_exchange_strong(&v->sleeping, &looking, ASLEEP))
        host_futex_wait(&v->sleeping, ASLEEP, UINT64_MAX);
    atomic_store(&v->sleeping, AWAKE);
    patience_learn(&v->patience, host_monotonic_ns() - start);
    return false;
}

void *vcpu_thread_main(void *arg)
{
    struct vcpu *v = arg;
    struct vm *vm = v->vm;

    vm_thread_set_vcpu(v);
    for (;;) {
        enum vcpu_exit exit;
        uint64_t start;

        /* A hint only; the truth is in vm_must_park, which is set before the
         * event is posted: so clear first, look then. */
        atomic_fetch_and(&v->events, ~(uint32_t)EVENT_PAUSE);
        if (vm_park(vm))
            break;
        if (v->halted) {
            if (!wait_for_work(v))
                continue;
            v->halted = false;
        }
        start = host_monotonic_ns();
        exit = v->ops->run(v, UINT64_MAX);
        v->run_ns += host_monotonic_ns() - start;
        assert(!atomic_load_explicit(&v->inside, memory_order_relaxed));
        switch (exit) {
        case VCPU_EXIT_EVENT:
            break;
        case VCPU_EXIT_HALT:
            v->halted = true;
            break;
        case VCPU_EXIT_SHUTDOWN:
            v->halted = true;
            atomic_store(&vm->run->shutdown_vcpu, v);
            vm_request(vm, REQUEST_SHUTDOWN);
            break;
        }
    }
    vm_thread_set_vcpu(NULL);
    return NULL;
}
