/*
 * The machine's lock: one mutex that its holder may take again.
 * Interface: vm_lock, vm_unlock in vm/vm.h; the rest in vm/internal.h.
 *
 * The accessors of vm/memory.h are not told which processor calls them, so
 * this file keeps two thread-local facts, the only ones outside struct vm:
 * an address that identifies the thread, and the vCPU it runs.
 *
 * A vCPU that finds the lock taken must not make others wait for it: who wants
 * to run alone, or waits in a rendezvous, may be what the holder of the lock
 * is waiting for in turn. So it leaves before it waits, stays outside while it
 * holds the lock, and enters again after it has let go of it. Entering earlier
 * would deadlock: vcpu_enter waits for an exclusive section, and the code in
 * that section may be waiting for this lock.
 */
#include <assert.h>

#include "vm/internal.h"

static __thread struct {
    struct vcpu *vcpu;
} this_thread;

const void *vm_thread_self(void)
{
    return &this_thread;
}

struct vcpu *vm_thread_vcpu(void)
{
    return this_thread.vcpu;
}

void vm_thread_set_vcpu(struct vcpu *v)
{
    this_thread.vcpu = v;
}

bool vm_lock_is_mine(const struct vm *vm)
{
    /* Relaxed: only this thread ever stores its own address, so what it reads
     * equals that exactly if it did so last. */
    return atomic_load_explicit(&vm->run->owner, memory_order_relaxed) == &this_thread;
}

void vm_lock(struct vm *vm)
{
    struct vm_run_state *run = vm->run;
    struct vcpu *v = this_thread.vcpu;

    if (vm_lock_is_mine(vm)) {
        run->depth++;
        return;
    }
    if (!mutex_try_lock(&run->lock)) {
        if (v && v->vm == vm && atomic_load_explicit(&v->inside, memory_order_relaxed)) {
            vcpu_leave(v);
            v->reenter = true;
        }
        mutex_lock(&run->lock);
    }
    atomic_store_explicit(&run->owner, &this_thread, memory_order_relaxed);
    run->depth = 1;
}

bool vm_try_lock(struct vm *vm)
{
    struct vm_run_state *run = vm->run;

    if (vm_lock_is_mine(vm)) {
        run->depth++;
        return true;
    }
    if (!mutex_try_lock(&run->lock))
        return false;
    atomic_store_explicit(&run->owner, &this_thread, memory_order_relaxed);
    run->depth = 1;
    return true;
}

void vm_unlock(struct vm *vm)
{
    struct vm_run_state *run = vm->run;
    struct vcpu *v = this_thread.vcpu;

    assert(vm_lock_is_mine(vm));
    if (--run->depth)
        return;
    /* Here nobody but vCPUs can be looking at a view, and this vCPU has
     * declared every device access a safepoint for them (vm/memory.h). */
    if (v && v->vm == vm)
        atomic_store(&v->view_seen, atomic_load(&vm->view_generation));
    if (unlikely(vm->retired_views))
        views_reclaim(vm);
    atomic_store_explicit(&run->owner, NULL, memory_order_relaxed);
    mutex_unlock(&run->lock);
    if (v && v->vm == vm && v->reenter) {
        v->reenter = false;
        vcpu_enter(v);
    }
}

unsigned vm_lock_drop(struct vm *vm)
{
    unsigned depth = 0;

    if (!vm_lock_is_mine(vm))
        return 0;
    depth = vm->run->depth;
    vm->run->depth = 1;
    vm_unlock(vm);
    return depth;
}

void vm_lock_restore(struct vm *vm, unsigned depth)
{
    if (!depth)
        return;
    vm_lock(vm);
    vm->run->depth = depth;
}
