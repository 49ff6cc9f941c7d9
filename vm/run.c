/*
 * Running a machine: the I/O thread's loop, stopping and restarting vCPUs,
 * reset, power-off. Interface: vm_run and what follows it in vm/vm.h.
 *
 * In real time each vCPU has a thread, which exists only during vm_run. It
 * parks, outside, whenever somebody wants it stopped (stop_wanted) or a
 * request is waiting for the thread in vm_run. Parking and its end are decided
 * under stop_lock, so that who counts the parked cannot count one that has
 * already decided to go on:
 *
 *    stopper                                 vCPU's thread
 *    lock; stop_wanted++; unlock             lock; parked++
 *    post EVENT_PAUSE to all                 while (stop_wanted || requests)
 *    until parked == threads: wait bell         unlock; wait gate; lock
 *    ...                                     parked--; unlock
 *    lock; stop_wanted--; gate++; unlock
 *
 * A vCPU that has looked at stop_wanted just before it rose finds EVENT_PAUSE
 * at its next boundary (or, halted, is woken by it). The stopper holds no
 * machine's lock while it waits: a vCPU may need it to finish an instruction.
 *
 * A deterministic machine has one thread, which counts as the one that parks;
 * its loop is in det.c.
 */
#include <assert.h>
#include <errno.h>

#include "vm/internal.h"
#include "vm/loop.h"

/* ---- stopping ---- */

bool vm_must_park(const struct vm *vm)
{
    return atomic_load(&vm->run->stop_wanted) || atomic_load(&vm->run->requests);
}

bool vm_park(struct vm *vm)
{
    struct vm_run_state *run = vm->run;
    bool quit;

    if (likely(!vm_must_park(vm)))
        return false;
    mutex_lock(&run->stop_lock);
    run->parked++;
    atomic_fetch_add(&run->parked_bell, 1);
    host_futex_wake(&run->parked_bell, INT32_MAX);
    while (vm_must_park(vm) && !run->quit) {
        /* Read under the lock under which it changes, so that no change
         * between here and the wait goes unnoticed. */
        uint32_t gate = atomic_load(&run->park_gate);

        mutex_unlock(&run->stop_lock);
        host_futex_wait(&run->park_gate, gate, UINT64_MAX);
        mutex_lock(&run->stop_lock);
    }
    run->parked--;
    quit = run->quit;
    mutex_unlock(&run->stop_lock);
    return quit;
}

/* With stop_lock held: the parked look again. */
static void open_gate(struct vm_run_state *run)
{
    atomic_fetch_add(&run->park_gate, 1);
    host_futex_wake(&run->park_gate, INT32_MAX);
}

static void post_pause(struct vm *vm)
{
    for (unsigned i = 0; i < vm->vcpu_count; i++)
        vcpu_post(vm->vcpus[i], EVENT_PAUSE);
}

/* The only thread of a deterministic machine stops by not going on. */
static bool am_all_vcpus(const struct vm *vm)
{
    return vm->deterministic && atomic_load(&vm->run->runner) == vm_thread_self();
}

void vm_pause(struct vm *vm)
{
    struct vm_run_state *run = vm->run;
    unsigned depth;

    /* In a vCPU's own device access it would wait for itself: such a callback
     * uses vm_stop. */
    assert(!vm_thread_vcpu() || vm_thread_vcpu()->vm != vm);
    mutex_lock(&run->stop_lock);
    atomic_fetch_add(&run->stop_wanted, 1);
    mutex_unlock(&run->stop_lock);
    post_pause(vm);
    if (am_all_vcpus(vm))
        return;
    if (vm->deterministic)
        loop_wake(vm);
    depth = vm_lock_drop(vm);
    mutex_lock(&run->stop_lock);
    while (run->parked < run->threads) {
        uint32_t bell = atomic_load(&run->parked_bell);

        mutex_unlock(&run->stop_lock);
        host_futex_wait(&run->parked_bell, bell, UINT64_MAX);
        mutex_lock(&run->stop_lock);
    }
    mutex_unlock(&run->stop_lock);
    /* Under the machine's lock, so that no timer is being fired meanwhile. */
    vm_lock(vm);
    clock_pause(&vm->clock);
    timers_clock_changed(vm);
    vm_unlock(vm);
    vm_lock_restore(vm, depth);
}

void vm_resume(struct vm *vm)
{
    struct vm_run_state *run = vm->run;

    vm_lock(vm);
    mutex_lock(&run->stop_lock);
    assert(atomic_load(&run->stop_wanted));
    if (atomic_load(&run->stop_wanted) == 1 && run->active) {
        clock_resume(&vm->clock); /* before the first of them runs */
        timers_clock_changed(vm);
    }
    atomic_fetch_sub(&run->stop_wanted, 1);
    open_gate(run);
    mutex_unlock(&run->stop_lock);
    vm_unlock(vm);
    if (vm->deterministic)
        loop_wake(vm);
}

/* ---- requests ---- */

void vm_request(struct vm *vm, uint32_t requests)
{
    atomic_fetch_or(&vm->run->requests, requests);
    post_pause(vm);
    loop_wake(vm);
}

void vm_request_reset(struct vm *vm)
{
    vm_request(vm, REQUEST_RESET);
}

void vm_request_poweroff(struct vm *vm, int status)
{
    atomic_store(&vm->run->poweroff_status, status);
    vm_request(vm, REQUEST_POWEROFF);
}

/* Signal-safe: atomic operations, futex and eventfd system calls. */
void vm_stop(struct vm *vm)
{
    vm_request(vm, REQUEST_STOP);
}

static int reset(struct vm *vm, struct error *err)
{
    for (unsigned i = 0; i < vm->device_count; i++)
        if (vm->devices[i].type->reset)
            vm->devices[i].type->reset(vm->devices[i].self);
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct vcpu *v = vm->vcpus[i];

        /* Interrupts on their way are lost; stale code stays stale. */
        atomic_fetch_and(&v->events, ~(uint32_t)(EVENT_INTERRUPT | EVENT_INIT | EVENT_STARTUP));
        v->halted = false;
        if (v->ops->reset)
            v->ops->reset(v);
        vcpu_post(v, EVENT_FLUSH | EVENT_INTERRUPT);
    }
    vm->run->turn_index = 0;
    vm->run->turn_left = vm->quantum;
    return vm->after_reset ? vm->after_reset(vm->board, err) : 0;
}

bool vm_handle_requests(struct vm *vm, enum vm_exit *exit, int *status, int *code,
                        struct error *err)
{
    struct vm_run_state *run = vm->run;
    uint32_t requests = atomic_exchange(&run->requests, 0);
    struct vcpu *shut_down = atomic_exchange(&run->shutdown_vcpu, NULL);

    *code = 0;
    if (requests & REQUEST_POWEROFF) {
        *exit = VM_EXIT_POWEROFF;
        *status = atomic_load(&run->poweroff_status);
        return true;
    }
    if ((requests & REQUEST_SHUTDOWN) && shut_down) {
        if (vm->on_shutdown)
            vm->on_shutdown(vm->board, shut_down);
        *exit = VM_EXIT_TRIPLE_FAULT;
        if (vm->no_reboot)
            return true;
        requests |= REQUEST_RESET;
    } else if (requests & REQUEST_RESET) {
        *exit = VM_EXIT_RESET;
        if (vm->no_reboot)
            return true;
    }
    if (requests & REQUEST_RESET) {
        *code = reset(vm, err);
        if (*code)
            return true;
    }
    if (requests & REQUEST_STOP) {
        *exit = VM_EXIT_STOPPED;
        return true;
    }
    if (requests & REQUEST_LIMIT) {
        *exit = VM_EXIT_LIMIT;
        return true;
    }
    return false;
}

/* ---- real time ---- */

static void start_clock(struct vm *vm)
{
    struct vm_run_state *run = vm->run;

    vm_lock(vm);
    mutex_lock(&run->stop_lock);
    run->active = true;
    run->quit = false;
    if (!atomic_load(&run->stop_wanted)) {
        clock_resume(&vm->clock);
        timers_clock_changed(vm);
    }
    mutex_unlock(&run->stop_lock);
    vm_unlock(vm);
}

void vm_end_run(struct vm *vm)
{
    struct vm_run_state *run = vm->run;

    mutex_lock(&run->stop_lock);
    run->threads = 0;
    run->active = false;
    /* Somebody in vm_pause may be waiting for threads that are no more. */
    atomic_fetch_add(&run->parked_bell, 1);
    host_futex_wake(&run->parked_bell, INT32_MAX);
    mutex_unlock(&run->stop_lock);
}

static int start_threads(struct vm *vm, struct error *err)
{
    struct vm_run_state *run = vm->run;

    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        char name[16] = "vcpu00";
        int r;

        name[4] = (char)('0' + i / 10);
        name[5] = (char)('0' + i % 10);
        /* Counted before it exists, so that nobody believes it stopped. */
        mutex_lock(&run->stop_lock);
        run->threads++;
        mutex_unlock(&run->stop_lock);
        r = thread_start(&vm->vcpus[i]->thread, name, vcpu_thread_main, vm->vcpus[i]);
        if (r) {
            mutex_lock(&run->stop_lock);
            run->threads--;
            mutex_unlock(&run->stop_lock);
            return error_set(err, r, "cannot start the thread of processor %u: %s", i,
                             strerror(-r));
        }
    }
    return 0;
}

/* All are parked: ends their threads, and leaves the machine standing. */
static void end_threads(struct vm *vm)
{
    struct vm_run_state *run = vm->run;
    unsigned threads;

    mutex_lock(&run->stop_lock);
    run->quit = true;
    threads = run->threads;
    open_gate(run);
    mutex_unlock(&run->stop_lock);
    for (unsigned i = 0; i < threads; i++)
        thread_join(&vm->vcpus[i]->thread);
    vm_end_run(vm);
    vm_resume(vm); /* takes back our own stop; inactive, so the clock stays */
}

static int real_run(struct vm *vm, uint64_t limit_ns, enum vm_exit *exit, int *status,
                    struct error *err)
{
    struct vm_run_state *run = vm->run;
    int code;
    bool done = false;

    if (limit_ns != TIME_NEVER)
        timer_arm(&run->limit, limit_ns);
    start_clock(vm);
    code = start_threads(vm, err);
    if (code)
        vm_pause(vm);
    while (!done && !code) {
        if (!atomic_load(&run->requests)) {
            loop_poll(vm, true);
            continue;
        }
        vm_pause(vm);
        vm_lock(vm);
        done = vm_handle_requests(vm, exit, status, &code, err);
        vm_unlock(vm);
        if (!done)
            vm_resume(vm);
    }
    end_threads(vm);
    timer_cancel(&run->limit);
    return code;
}

int vm_run_until(struct vm *vm, uint64_t ns, enum vm_exit *exit, int *status, struct error *err)
{
    enum vm_exit unused_exit;
    const void *nobody = NULL;
    int unused_status, code;

    exit = exit ? exit : &unused_exit;
    status = status ? status : &unused_status;
    *exit = VM_EXIT_STOPPED;
    *status = 0;
    if (!atomic_compare_exchange_strong(&vm->run->runner, &nobody, vm_thread_self()))
        return error_set(err, -EBUSY, "the machine is already running in another thread");
    code = vm->deterministic ? det_run(vm, ns, exit, status, err)
                             : real_run(vm, ns, exit, status, err);
    /* A limit that came together with another end is nobody's any more. */
    atomic_fetch_and(&vm->run->requests, ~(uint32_t)REQUEST_LIMIT);
    atomic_store(&vm->run->runner, NULL);
    return code;
}

int vm_run(struct vm *vm, enum vm_exit *exit, int *status, struct error *err)
{
    return vm_run_until(vm, TIME_NEVER, exit, status, err);
}
