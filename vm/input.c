/*
 * Input: the one door through which bytes and events from outside enter.
 * Interface: vm_input in vm/vm.h. Record/replay will stand here.
 *
 * In real time it is delivered at once, under the machine's lock. In a
 * deterministic machine it is delivered between instructions: at once where
 * the scheduler stands between them (timers, descriptors), else it waits for
 * the end of the run() on the stack, which is told to end.
 *
 * Threading: any thread. The queue has a lock of its own, a leaf.
 */
#include <stdlib.h>

#include "vm/internal.h"

struct vm_input_item {
    struct vm_input_item *next;
    void (*deliver)(void *ctx, const uint8_t *data, size_t bytes);
    void *ctx;
    size_t bytes;
    uint8_t data[];
};

static struct vm_input_item *take_first(struct vm *vm)
{
    struct vm_run_state *run = vm->run;
    struct vm_input_item *item;

    mutex_lock(&run->input_lock);
    item = run->input_first;
    if (item) {
        run->input_first = item->next;
        if (!run->input_first)
            run->input_last = &run->input_first;
    }
    mutex_unlock(&run->input_lock);
    return item;
}

void input_deliver(struct vm *vm)
{
    struct vm_input_item *item;

    while ((item = take_first(vm))) {
        item->deliver(item->ctx, item->data, item->bytes);
        free(item);
    }
}

void input_drop(struct vm *vm)
{
    struct vm_input_item *item;

    while ((item = take_first(vm)))
        free(item);
}

/* Between instructions of a deterministic machine, on its thread. */
static bool at_boundary(struct vm *vm)
{
    const void *runner = atomic_load(&vm->run->runner);

    return (!runner || runner == vm_thread_self()) && !vm->run->turn;
}

void vm_input(struct vm *vm, enum vm_input_kind kind, const char *source,
              void (*deliver)(void *ctx, const uint8_t *data, size_t bytes), void *ctx,
              const uint8_t *data, size_t bytes)
{
    struct vm_run_state *run = vm->run;
    struct vm_input_item *item;

    if (!vm->deterministic || at_boundary(vm)) {
        vm_lock(vm);
        input_deliver(vm); /* what came earlier, from another thread */
        deliver(ctx, data, bytes);
        vm_unlock(vm);
        return;
    }
    item = malloc(sizeof *item + bytes);
    if (!item) {
        vlog(vm->log, VM, ERROR, "out of memory: %zu bytes of input for %s are lost", bytes,
             source);
        return;
    }
    *item = (struct vm_input_item){.deliver = deliver, .ctx = ctx, .bytes = bytes};
    memcpy(item->data, data, bytes);
    mutex_lock(&run->input_lock);
    *run->input_last = item;
    run->input_last = &item->next;
    mutex_unlock(&run->input_lock);
    for (unsigned i = 0; i < vm->vcpu_count; i++)
        vcpu_post(vm->vcpus[i], EVENT_PAUSE);
    loop_wake(vm);
}
