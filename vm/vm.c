/*
 * A machine's making and end: struct vm, its devices and processors, and the
 * randomness it shows the guest. Interface: vm/vm.h. How it runs: vm/run.c.
 *
 * Threading: one thread builds and destroys; vm_random from anywhere.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "vm/internal.h"
#include "vm/loop.h"

/* Instructions a turn. A prime: a loop that holds a lock for most of its way
 * would else be interrupted at the same instruction in each turn, and nobody
 * would ever get the lock (SeaBIOS waits for the other processors like that). */
#define DEFAULT_QUANTUM 20011
/* A deterministic machine's wall clock starts at 2024-01-01T00:00:00Z, plus a
 * part of a year by its seed. */
#define DETERMINISTIC_EPOCH_S 1704067200ull
#define YEAR_S (365ull * 24 * 60 * 60)

static void limit_reached(void *ctx)
{
    vm_request(ctx, REQUEST_LIMIT);
}

static void run_state_init(struct vm_run_state *run, uint64_t quantum)
{
    mutex_init(&run->lock);
    mutex_init(&run->stop_lock);
    mutex_init(&run->input_lock);
    run->input_last = &run->input_first;
    run->turn_left = quantum;
}

static void run_state_finish(struct vm_run_state *run)
{
    mutex_destroy(&run->input_lock);
    mutex_destroy(&run->stop_lock);
    mutex_destroy(&run->lock);
}

struct vm *vm_create(const struct vm_config *config, struct error *err)
{
    struct vm *vm = calloc(1, sizeof *vm);
    uint64_t epoch_ns;

    if (!vm || !(vm->run = calloc(1, sizeof *vm->run))) {
        error_set(err, -ENOMEM, "out of memory for a machine");
        free(vm);
        return NULL;
    }
    vm->log = config->log;
    vm->deterministic = config->deterministic;
    vm->quantum = config->quantum ? config->quantum : DEFAULT_QUANTUM;
    vm->random_state = config->seed;
    run_state_init(vm->run, vm->quantum);
    epoch_ns = vm->deterministic ? (DETERMINISTIC_EPOCH_S + config->seed % YEAR_S) * NS_PER_SEC
                                 : host_realtime_ns();
    clock_init(&vm->clock, vm->deterministic, epoch_ns);
    address_space_init(&vm->memory, vm, "memory", true);
    address_space_init(&vm->ports, vm, "ports", false);
    if (loop_create(vm, err))
        goto fail;
    if (timers_create(vm, err))
        goto fail;
    timer_init(&vm->run->limit, vm, limit_reached, vm);
    return vm;
fail:
    vm_destroy(vm);
    return NULL;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    assert(!atomic_load(&vm->run->runner));
    /* Completions first, while those they tell are there; then in reverse. */
    if (vm->loop)
        loop_run_deferred(vm);
    input_drop(vm);
    while (vm->device_count) {
        vm->device_count--;
        if (vm->devices[vm->device_count].type->destroy)
            vm->devices[vm->device_count].type->destroy(vm->devices[vm->device_count].self);
    }
    while (vm->vcpu_count) {
        struct vcpu *v = vm->vcpus[--vm->vcpu_count];

        vcpu_finish(v);
        if (v->ops->retired)
            vlog(vm->log, CPU, INFO, "processor %u retired %llu instructions", vm->vcpu_count,
                 (unsigned long long)v->ops->retired(v));
        if (v->ops->destroy)
            v->ops->destroy(v);
    }
    address_space_destroy(&vm->ports);
    address_space_destroy(&vm->memory);
    views_free_all(vm);
    ram_blocks_free(vm);
    if (vm->timers)
        timer_destroy(&vm->run->limit);
    timers_destroy(vm);
    loop_destroy(vm);
    run_state_finish(vm->run);
    free(vm->run);
    free(vm);
}

int vm_add_vcpu(struct vm *vm, struct vcpu *v)
{
    if (vm->vcpu_count == VM_MAX_VCPUS)
        return -ENOSPC;
    vcpu_init(v, vm, vm->vcpu_count);
    vm->vcpus[vm->vcpu_count++] = v;
    return 0;
}

void vm_add_device(struct vm *vm, const struct dev_type *type, const char *instance, void *self)
{
    assert(vm->device_count < VM_MAX_DEVICES);
    vm->devices[vm->device_count].type = type;
    vm->devices[vm->device_count].instance = instance;
    vm->devices[vm->device_count].self = self;
    vm->device_count++;
}

void vm_add_settler(struct vm *vm, struct vm_settler *s)
{
    s->next = vm->settlers;
    vm->settlers = s;
}

void vm_remove_settler(struct vm *vm, struct vm_settler *s)
{
    for (struct vm_settler **at = &vm->settlers; *at; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            return;
        }
    }
}

/* Seeded: splitmix64, one addition and a mixing of the bits a number, whose
 * whole state is one saved word. */
uint64_t vm_random(struct vm *vm)
{
    uint64_t z;

    if (!vm->deterministic)
        return host_random();
    z = vm->random_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void vm_random_bytes(struct vm *vm, void *buf, size_t bytes)
{
    uint8_t *to = buf;

    if (!vm->deterministic) {
        host_random_bytes(buf, bytes);
        return;
    }
    for (size_t n = 0; n < bytes; n += sizeof(uint64_t)) {
        uint64_t v = vm_random(vm);

        memcpy(to + n, &v, MIN(bytes - n, sizeof v));
    }
}
