/*
 * The state of a whole machine: saved, loaded, hashed.
 * Interface: vm_state_save, vm_state_load, vm_state_hash in vm/state.h.
 *
 *    "VIREO state\n" and a version of this layout
 *    section vm: clock, randomness, whose turn it is
 *    each processor: section vcpu, then its own table
 *    each device that has a table, in order of creation
 *    each RAM block: section ram, then pages that are not all zero:
 *       u64 number of the page, 4096 bytes; ascending; u64 all ones ends
 *    "end."
 *
 * Regions are not saved: devices put them where their registers say, in
 * after_load. A file is hostile input: everything is checked, each refusal is
 * one line.
 *
 * Threading: with the machine stopped; takes the machine's lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "vm/internal.h"
#include "vm/state_hash.h"

#define PAGE STATE_PAGE
#define LAYOUT 1
#define NO_PAGE STATE_NO_PAGE

static const char magic[STATE_MAGIC_BYTES] = STATE_MAGIC;
static const char ending[4] = "end.";

/* ---- what vm/ itself remembers ---- */

struct machine_part {
    bool deterministic;
    uint32_t vcpus, devices, ram_blocks;
    uint64_t now_ns, tsc_hz, epoch_ns;
    uint64_t random_state, quantum;
    uint32_t turn_index;
    uint64_t turn_left;
};

static const struct state_field machine_fields[] = {
    STATE_INT(struct machine_part, deterministic),
    STATE_INT(struct machine_part, vcpus),
    STATE_INT(struct machine_part, devices),
    STATE_INT(struct machine_part, ram_blocks),
    STATE_INT(struct machine_part, now_ns),
    STATE_INT(struct machine_part, tsc_hz),
    STATE_INT(struct machine_part, epoch_ns),
    STATE_INT(struct machine_part, random_state),
    STATE_INT(struct machine_part, quantum),
    STATE_INT(struct machine_part, turn_index),
    STATE_INT(struct machine_part, turn_left),
    STATE_END,
};

const struct state_table vm_machine_state = {.name = "vm", .version = 1,
                                             .fields = machine_fields};

/* Events are doorbells, and rung anew after loading; these two are all there
 * is of an INIT or SIPI that has been sent. */
#define SAVED_EVENTS (EVENT_INIT | EVENT_STARTUP)

struct vcpu_part {
    bool halted;
    uint32_t events;
};

static const struct state_field vcpu_fields[] = {
    STATE_INT(struct vcpu_part, halted),
    STATE_INT(struct vcpu_part, events),
    STATE_END,
};

const struct state_table vm_vcpu_state = {.name = "vcpu", .version = 1, .fields = vcpu_fields};

struct ram_part {
    uint32_t id, kind;
    uint64_t bytes;
};

static const struct state_field ram_fields[] = {
    STATE_INT(struct ram_part, id),
    STATE_INT(struct ram_part, kind),
    STATE_INT(struct ram_part, bytes),
    STATE_END,
};

const struct state_table vm_ram_state = {.name = "ram", .version = 1, .fields = ram_fields};

static struct machine_part machine_part_of(struct vm *vm)
{
    return (struct machine_part){
        .deterministic = vm->deterministic,
        .vcpus = vm->vcpu_count,
        .devices = vm->device_count,
        .ram_blocks = vm->ram_block_count,
        .now_ns = clock_now_ns(&vm->clock),
        .tsc_hz = vm->clock.tsc_hz,
        .epoch_ns = vm->clock.epoch_ns,
        .random_state = vm->random_state,
        .quantum = vm->quantum,
        .turn_index = vm->run->turn_index,
        .turn_left = vm->run->turn_left,
    };
}

static struct ram_part ram_part_of(const struct ram_block *b)
{
    return (struct ram_part){.id = b->id, .kind = (uint32_t)b->kind, .bytes = b->bytes};
}

/* ---- saving ---- */

static bool page_is_zero(const uint8_t *p)
{
    uint64_t any = 0;

    for (unsigned i = 0; i < PAGE && !any; i += 64)
        for (unsigned j = 0; j < 64; j += 8)
            any |= le64_get(p + i + j);
    return !any;
}

static void save_ram(struct state_stream *s, const struct ram_block *b)
{
    struct ram_part part = ram_part_of(b);
    uint64_t none = NO_PAGE;

    state_save(s, &vm_ram_state, b->name, &part);
    for (uint64_t page = 0; page < b->bytes / PAGE; page++) {
        const uint8_t *p = b->host + page * PAGE;

        if (page_is_zero(p))
            continue;
        state_put(s, &page, sizeof page);
        state_put(s, p, PAGE);
    }
    state_put(s, &none, sizeof none);
}

void state_save_all_but_ram(struct vm *vm, struct state_stream *s)
{
    struct machine_part machine = machine_part_of(vm);
    uint32_t layout = LAYOUT;

    state_put(s, magic, sizeof magic);
    state_put(s, &layout, sizeof layout);
    state_save(s, &vm_machine_state, "machine", &machine);
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct vcpu *v = vm->vcpus[i];
        struct vcpu_part part = {.halted = v->halted,
                                 .events = atomic_load(&v->events) & SAVED_EVENTS};

        state_save(s, &vm_vcpu_state, "vcpu", &part);
        if (v->state)
            state_save(s, v->state, "vcpu", v->self);
    }
    for (unsigned i = 0; i < vm->device_count; i++)
        if (vm->devices[i].type->state)
            state_save(s, vm->devices[i].type->state, vm->devices[i].instance,
                       vm->devices[i].self);
}

static void save_all(struct vm *vm, struct state_stream *s)
{
    state_save_all_but_ram(vm, s);
    for (const struct ram_block *b = vm->ram_blocks; b; b = b->next)
        save_ram(s, b);
    state_put(s, ending, sizeof ending);
}

int vm_state_save(struct vm *vm, struct state_stream *s, struct error *err)
{
    vm_lock(vm);
    input_deliver(vm); /* what waits for an instruction boundary: this is one */
    for (struct vm_settler *at = vm->settlers; at && !vm->deterministic; at = at->next)
        at->settle(at->ctx);
    save_all(vm, s);
    /* A loaded machine starts with no translations and no decoded code. So
     * that both have the same future, down to the accessed bits in the page
     * tables, the saved one goes on without them too. */
    vcpu_forget_everything(vm);
    vm_unlock(vm);
    return s->failed ? error_set(err, -ENOMEM, "out of memory for the state of the machine") : 0;
}

void vm_state_hash(struct vm *vm, uint64_t hash[2])
{
    struct state_hash h;
    struct state_stream s = {.hash = &h};

    state_hash_init(&h);
    vm_lock(vm);
    save_all(vm, &s);
    vm_unlock(vm);
    state_hash_finish(&h, hash);
}

/* ---- loading ---- */

static int load_machine(struct vm *vm, struct state_stream *s, struct error *err)
{
    struct machine_part now = machine_part_of(vm), part = now;
    int r = state_load(s, &vm_machine_state, "machine", &part, err);

    if (r)
        return r;
    if (part.deterministic != now.deterministic)
        return error_set(err, -EINVAL, "saved machine is %sdeterministic, this one is%s",
                         part.deterministic ? "" : "not ", now.deterministic ? "" : " not");
    if (part.vcpus != now.vcpus)
        return error_set(err, -EINVAL, "saved machine has %u processors, this one %u: use --cpus %u",
                         part.vcpus, now.vcpus, part.vcpus);
    if (part.devices != now.devices || part.ram_blocks != now.ram_blocks)
        return error_set(err, -EINVAL,
                         "saved machine has %u devices and %u memory blocks, this one %u and %u: "
                         "build it as it was when it was saved",
                         part.devices, part.ram_blocks, now.devices, now.ram_blocks);
    /* A quarter of the range of 64 bits: over a hundred years from now, with
     * room for devices to add to it; rates as processors have them. */
    if (part.now_ns > UINT64_MAX / 4 || part.tsc_hz < 1000000 || part.tsc_hz > 100 * NS_PER_SEC ||
        (vm->deterministic && part.tsc_hz != now.tsc_hz) || !part.quantum ||
        part.turn_left > part.quantum || (part.vcpus && part.turn_index >= part.vcpus))
        return error_set(err, -EINVAL, "saved state is damaged: its clock is not possible");
    clock_set(&vm->clock, part.now_ns, part.tsc_hz);
    vm->clock.epoch_ns = part.epoch_ns;
    vm->random_state = part.random_state;
    vm->quantum = part.quantum;
    vm->run->turn_index = part.turn_index;
    vm->run->turn_left = part.turn_left;
    return 0;
}

static int load_vcpu(struct vcpu *v, struct state_stream *s, struct error *err)
{
    struct vcpu_part part = {0};
    int r = state_load(s, &vm_vcpu_state, "vcpu", &part, err);

    if (!r && (part.events & ~(uint32_t)SAVED_EVENTS))
        r = error_set(err, -EINVAL, "saved state is damaged: events %x of a processor",
                      part.events);
    if (!r && v->state)
        r = state_load(s, v->state, "vcpu", v->self, err);
    if (r)
        return r;
    v->halted = part.halted;
    atomic_fetch_and(&v->events, ~(uint32_t)SAVED_EVENTS);
    atomic_fetch_or(&v->events, part.events);
    return 0;
}

static int load_ram(struct ram_block *b, struct state_stream *s, struct error *err)
{
    struct ram_part now = ram_part_of(b), part = now;
    uint64_t next = 0, page;
    int r = state_load(s, &vm_ram_state, b->name, &part, err);

    if (r)
        return r;
    if (part.id != now.id || part.kind != now.kind || part.bytes != now.bytes)
        return error_set(err, -EINVAL,
                         "saved machine has %llu KiB of %s, this one %llu: use the same --memory",
                         (unsigned long long)(part.bytes / KiB), b->name,
                         (unsigned long long)(now.bytes / KiB));
    host_pages_discard(b->host, b->bytes);
    for (;; next = page + 1) {
        if (!state_get(s, &page, sizeof page))
            return error_set(err, -EINVAL, "saved state ends in the middle of %s", b->name);
        if (page == NO_PAGE)
            return 0;
        if (page < next || page >= b->bytes / PAGE)
            return error_set(err, -EINVAL, "saved state is damaged: page %llu of %s",
                             (unsigned long long)page, b->name);
        if (!state_get(s, b->host + page * PAGE, PAGE))
            return error_set(err, -EINVAL, "saved state ends in the middle of %s", b->name);
    }
}

static int load_all(struct vm *vm, struct state_stream *s, struct error *err)
{
    char start[sizeof magic], end[sizeof ending];
    uint32_t layout;
    int r;

    if (!state_get(s, start, sizeof start) || memcmp(start, magic, sizeof magic))
        return error_set(err, -EINVAL, "this is no saved machine");
    if (!state_get(s, &layout, sizeof layout) || layout != LAYOUT)
        return error_set(err, -EINVAL, "machine was saved by a program of another version");
    r = load_machine(vm, s, err);
    for (unsigned i = 0; i < vm->vcpu_count && !r; i++)
        r = load_vcpu(vm->vcpus[i], s, err);
    for (unsigned i = 0; i < vm->device_count && !r; i++)
        if (vm->devices[i].type->state)
            r = state_load(s, vm->devices[i].type->state, vm->devices[i].instance,
                           vm->devices[i].self, err);
    for (struct ram_block *b = vm->ram_blocks; b && !r; b = b->next)
        r = load_ram(b, s, err);
    if (!r && (!state_get(s, end, sizeof end) || memcmp(end, ending, sizeof ending) ||
               s->position != s->used))
        r = error_set(err, -EINVAL, "saved state has something after its end");
    return r;
}

int vm_state_load(struct vm *vm, struct state_stream *s, struct error *err)
{
    int r;

    vm_lock(vm);
    s->position = 0;
    s->failed = false;
    r = load_all(vm, s, err);
    vcpu_forget_everything(vm);
    vm_unlock(vm);
    return r;
}
