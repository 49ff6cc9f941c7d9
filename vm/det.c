/*
 * The deterministic scheduler: one thread, vCPUs in turns, virtual time from
 * retired instructions. Interface: vm_run in vm/vm.h, with vm->deterministic.
 *
 * One instruction is one virtual nanosecond, whoever executes it, so virtual
 * time is the number of all instructions retired, plus the jumps made while
 * everybody was halted. A turn is `quantum` instructions or ends at a HLT. A
 * run() within a turn gets the instructions up to the next timer's deadline,
 * so that the timer fires at the first boundary at or after it. What remains
 * of a turn is kept in the machine's state: that a run ended early (a pause, a
 * limit of vm_run_until, a look at the host) leaves no trace in the future.
 *
 * Host descriptors are looked at between runs, a thousand times a second of
 * host time at most; while all are halted and no timer is armed the thread
 * sleeps on them.
 *
 * Threading: this one thread; others may post requests, input, pauses and
 * deferred calls.
 */
#include <assert.h>

#include "vm/internal.h"

#define HOST_POLL_NS NS_PER_MS

/* Instructions of the run() that is on the stack; the clock's turn_retired. */
static uint64_t turn_retired(void *ctx)
{
    struct vcpu *v = ctx;
    uint64_t start = v->vm->run->turn_start_retired;
    uint64_t now = v->ops->retired(v);

    return now >= start ? now - start : 0;
}

void det_timer_armed(struct vm *vm, uint64_t deadline_ns)
{
    struct vm_run_state *run = vm->run;

    if (atomic_load(&run->runner) != vm_thread_self()) {
        loop_wake(vm); /* armed by another thread, while this one may be asleep */
        return;
    }
    /* A deadline at the end of the run is looked at there anyway. */
    if (run->turn && deadline_ns < run->turn_end_ns)
        vcpu_post(run->turn, EVENT_PAUSE);
}

/* The processor that runs next, or NULL when all are halted without work. */
static struct vcpu *choose(struct vm *vm)
{
    struct vm_run_state *run = vm->run;

    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        unsigned index = (run->turn_index + i) % vm->vcpu_count;
        struct vcpu *v = vm->vcpus[index];

        if (v->halted && !v->ops->has_work(v))
            continue;
        if (i) {
            run->turn_index = index;
            run->turn_left = vm->quantum;
        }
        v->halted = false;
        return v;
    }
    return NULL;
}

static void next_turn(struct vm *vm)
{
    vm->run->turn_index = (vm->run->turn_index + 1) % vm->vcpu_count;
    vm->run->turn_left = vm->quantum;
}

/* Runs v for at most budget instructions and moves the time by what it did. */
static void run_vcpu(struct vm *vm, struct vcpu *v, uint64_t budget)
{
    struct vm_run_state *run = vm->run;
    enum vcpu_exit exit;
    uint64_t used, start;

    run->turn_start_retired = v->ops->retired(v);
    run->turn_end_ns = vm->clock.turn_base_ns + budget;
    run->turn = v;
    vm->clock.turn_ctx = v;
    vm->clock.turn_retired = turn_retired;
    vm_thread_set_vcpu(v);
    start = host_monotonic_ns();

    exit = v->ops->run(v, budget);

    v->run_ns += host_monotonic_ns() - start;
    vm_thread_set_vcpu(NULL);
    assert(!atomic_load_explicit(&v->inside, memory_order_relaxed));
    used = turn_retired(v);
    vm->clock.turn_retired = NULL;
    vm->clock.turn_base_ns += used;
    run->turn = NULL;

    run->turn_left -= MIN(used, run->turn_left);
    if (exit == VCPU_EXIT_SHUTDOWN) {
        atomic_store(&run->shutdown_vcpu, v);
        vm_request(vm, REQUEST_SHUTDOWN);
    }
    if (exit != VCPU_EXIT_EVENT)
        v->halted = true;
    if (v->halted || !run->turn_left)
        next_turn(vm);
}

/* Somebody wants the machine stopped: this thread counts as all vCPUs. */
static void park(struct vm *vm)
{
    struct vm_run_state *run = vm->run;

    mutex_lock(&run->stop_lock);
    run->parked++;
    atomic_fetch_add(&run->parked_bell, 1);
    host_futex_wake(&run->parked_bell, INT32_MAX);
    /* Requests are looked at when it goes on, but a machine that is paused can
     * be stopped for good. */
    while (atomic_load(&run->stop_wanted) && !(atomic_load(&run->requests) & REQUEST_STOP)) {
        mutex_unlock(&run->stop_lock);
        loop_poll(vm, true); /* vm_resume wakes it */
        mutex_lock(&run->stop_lock);
    }
    run->parked--;
    mutex_unlock(&run->stop_lock);
}

int det_run(struct vm *vm, uint64_t limit_ns, enum vm_exit *exit, int *status, struct error *err)
{
    struct vm_run_state *run = vm->run;
    uint64_t polled_ns = 0;
    int code = 0;

    mutex_lock(&run->stop_lock);
    run->active = true;
    run->threads = 1;
    mutex_unlock(&run->stop_lock);

    vm_lock(vm);
    for (;;) {
        struct vcpu *v;
        uint64_t now = vm->clock.turn_base_ns, next;
        bool settled = true;

        /* An instruction boundary, the lock held: first what came from
         * outside, then the time's own events. */
        if (host_monotonic_ns() - polled_ns >= HOST_POLL_NS) {
            vm_unlock(vm);
            loop_poll(vm, false);
            vm_lock(vm);
            polled_ns = host_monotonic_ns();
        }
        if (atomic_load(&run->stop_wanted) && !(atomic_load(&run->requests) & REQUEST_STOP)) {
            vm_unlock(vm);
            park(vm);
            vm_lock(vm);
            continue;
        }
        if (!atomic_load(&run->stop_wanted)) {
            input_deliver(vm);
            settled = timers_fire(vm);
        }
        if (atomic_load(&run->requests)) {
            if (vm_handle_requests(vm, exit, status, &code, err))
                break;
            continue;
        }
        if (now >= limit_ns && settled) {
            *exit = VM_EXIT_LIMIT;
            break;
        }

        v = vm->vcpu_count ? choose(vm) : NULL;
        next = timers_next_ns(vm);
        next = MIN(next, limit_ns);
        if (!v) {
            if (next != TIME_NEVER) {
                /* HLT jumps to the next event; where events are armed faster
                 * than they are fired, past them. */
                vm->clock.turn_base_ns = settled ? MAX(next, now) : now + 1;
            } else {
                vm_unlock(vm);
                loop_poll(vm, true);
                vm_lock(vm);
                polled_ns = host_monotonic_ns();
            }
            continue;
        }
        /* At least one instruction, also where devices arm timers that have
         * passed faster than they are fired. */
        next = next > now ? next - now : 1;
        /* Who wants a pause after this has been cleared posts it again. */
        atomic_fetch_and(&v->events, ~(uint32_t)EVENT_PAUSE);
        if (vm_must_park(vm))
            continue;
        vm_unlock(vm);
        run_vcpu(vm, v, MIN(next, run->turn_left));
        vm_lock(vm);
    }
    vm_unlock(vm);
    vm_end_run(vm);
    return code;
}
