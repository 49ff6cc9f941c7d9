/*
 * The in-process harness for device tests. Interface: harness.h.
 */
#include "tests/dev/harness.h"

#include <stdlib.h>

#include "vm/internal.h"

/* ---- surroundings ---- */

static void record_line(void *ctx, unsigned n, bool level)
{
    struct harness *h = ctx;

    if (h->deaf || level == h->line[n].level)
        return;
    h->line[n].level = level;
    if (level) {
        h->line[n].rises++;
        h->line[n].last_rise_ns = clock_now_ns(&h->vm->clock);
    } else {
        h->line[n].falls++;
    }
}

struct irq_line harness_line(struct harness *h, unsigned n)
{
    assert_true(n < HARNESS_LINES);
    return (struct irq_line){record_line, h, n};
}

static void record_message(void *ctx, struct irq_message m)
{
    struct harness *h = ctx;

    if (h->deaf)
        return;
    if (h->message_count < HARNESS_MESSAGES)
        h->message[h->message_count] = m;
    h->message_count++;
}

struct irq_message_port harness_port(struct harness *h)
{
    return (struct irq_message_port){.send = record_message, .ctx = h};
}

/* ---- life ---- */

static void harness_build(struct harness *h, uint64_t now_ns)
{
    struct vm_config config = {.deterministic = true, .seed = 1};
    struct error err = {.text = ""};

    h->vm = vm_create(&config, &err);
    if (!h->vm)
        fail_msg("vm_create: %s", err.text);
    h->vm->clock.epoch_ns = 0;
    h->vm->clock.turn_base_ns = now_ns;
    vm_lock(h->vm);
    h->build(h);
    vm_unlock(h->vm);
}

struct harness *harness_create(void (*build)(struct harness *h))
{
    struct harness *h = calloc(1, sizeof *h);

    assert_non_null(h);
    h->build = build;
    harness_build(h, 0);
    return h;
}

void harness_destroy(struct harness *h)
{
    vm_destroy(h->vm);
    free(h);
}

void harness_reset(struct harness *h)
{
    vm_lock(h->vm);
    for (unsigned i = 0; i < h->vm->device_count; i++)
        h->vm->devices[i].type->reset(h->vm->devices[i].self);
    vm_unlock(h->vm);
}

/* ---- the bus ---- */

uint64_t io_in(struct harness *h, uint64_t port, unsigned size)
{
    uint64_t v;

    as_load(&h->vm->ports, port, size, &v);
    return v;
}

void io_out(struct harness *h, uint64_t port, uint64_t value, unsigned size)
{
    as_store(&h->vm->ports, port, size, value);
}

uint64_t mm_in(struct harness *h, uint64_t gpa, unsigned size)
{
    uint64_t v;

    as_load(&h->vm->memory, gpa, size, &v);
    return v;
}

void mm_out(struct harness *h, uint64_t gpa, uint64_t value, unsigned size)
{
    as_store(&h->vm->memory, gpa, size, value);
}

/* ---- time ---- */

uint64_t harness_now_ns(struct harness *h)
{
    return clock_now_ns(&h->vm->clock);
}

uint64_t harness_next_ns(struct harness *h)
{
    return timers_next_ns(h->vm);
}

static void fire(struct harness *h)
{
    vm_lock(h->vm);
    timers_fire(h->vm);
    vm_unlock(h->vm);
}

unsigned harness_advance(struct harness *h, uint64_t ns)
{
    uint64_t end = h->vm->clock.turn_base_ns + ns;
    unsigned fired = 0;

    while (harness_next_ns(h) <= end) {
        uint64_t at = harness_next_ns(h);

        h->vm->clock.turn_base_ns = MAX(at, h->vm->clock.turn_base_ns);
        fire(h);
        fired++;
        if (fired > 10000000)
            fail_msg("a device fires for ever");
    }
    h->vm->clock.turn_base_ns = end;
    return fired;
}

unsigned harness_jump(struct harness *h, uint64_t ns)
{
    unsigned fired = 0;

    h->vm->clock.turn_base_ns += ns;
    for (; harness_next_ns(h) <= harness_now_ns(h); fired++) {
        fire(h);
        if (fired > 100)
            fail_msg("a device catches up for ever");
    }
    return fired;
}

/* ---- state ---- */

static void save_devices(struct vm *vm, struct state_stream *s)
{
    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < vm->device_count; i++) {
        if (vm->devices[i].type->state)
            state_save(s, vm->devices[i].type->state, vm->devices[i].instance, vm->devices[i].self);
    }
    assert_false(s->failed);
}

static int load_devices(struct vm *vm, struct state_stream *s, struct error *err)
{
    s->position = 0;
    for (unsigned i = 0; i < vm->device_count; i++) {
        if (vm->devices[i].type->state) {
            int r = state_load(s, vm->devices[i].type->state, vm->devices[i].instance,
                               vm->devices[i].self, err);

            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* Memory is the machine's, not a device's, and moves along. */
static void copy_ram(struct vm *to, const struct vm *from)
{
    const struct ram_block *a = from->ram_blocks;

    for (struct ram_block *b = to->ram_blocks; b && a; b = b->next, a = a->next)
        memcpy(b->host, a->host, MIN(a->bytes, b->bytes));
}

void harness_reload(struct harness *h)
{
    struct state_stream before, after;
    struct error err = {.text = ""};
    struct vm *old = h->vm;

    save_devices(old, &before);
    h->deaf = true;
    harness_build(h, clock_now_ns(&old->clock));
    vm_lock(h->vm);
    if (load_devices(h->vm, &before, &err) < 0)
        fail_msg("load: %s", err.text);
    vm_unlock(h->vm);
    copy_ram(h->vm, old);
    vm_destroy(old);
    h->deaf = false;
    save_devices(h->vm, &after);
    assert_int_equal(before.used, after.used);
    assert_memory_equal(before.data, after.data, before.used);
    state_stream_free(&before);
    state_stream_free(&after);
}

void harness_corrupt(struct harness *h, void (*poke)(struct harness *h))
{
    harness_corrupt_some(h, poke, 1);
}

void harness_corrupt_some(struct harness *h, void (*poke)(struct harness *h), unsigned step)
{
    static const uint8_t flips[] = {0x01, 0x80, 0xff};
    struct state_stream s;

    save_devices(h->vm, &s);
    for (size_t i = 0; i < s.used * ARRAY_SIZE(flips); i += step) {
        uint8_t *byte = &s.data[i / ARRAY_SIZE(flips)];
        uint8_t good = *byte;
        struct vm *old = h->vm;
        struct error err;
        int r;

        h->deaf = true;
        harness_build(h, clock_now_ns(&old->clock));
        vm_destroy(old);
        h->deaf = false;
        *byte ^= flips[i % ARRAY_SIZE(flips)];
        vm_lock(h->vm);
        r = load_devices(h->vm, &s, &err);
        vm_unlock(h->vm);
        *byte = good;
        if (r == 0)
            poke(h);
    }
    state_stream_free(&s);
}

/* ---- random tests ---- */

uint64_t harness_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

static void compare(struct harness *a, struct harness *b, unsigned step)
{
    for (unsigned n = 0; n < HARNESS_LINES; n++) {
        if (memcmp(&a->line[n], &b->line[n], sizeof a->line[n]) != 0)
            fail_msg("step %u: line %u differs after a reload: level %d/%d, rises %u/%u", step, n,
                     a->line[n].level, b->line[n].level, a->line[n].rises, b->line[n].rises);
    }
    if (a->message_count != b->message_count)
        fail_msg("step %u: %u messages, %u after a reload", step, a->message_count,
                 b->message_count);
    if (a->message_count > 0 && a->message_count <= HARNESS_MESSAGES) {
        assert_int_equal(a->message[a->message_count - 1].address,
                         b->message[b->message_count - 1].address);
        assert_int_equal(a->message[a->message_count - 1].data,
                         b->message[b->message_count - 1].data);
    }
    assert_int_equal(harness_next_ns(a), harness_next_ns(b));
}

void harness_fuzz(void (*build)(struct harness *h),
                  uint64_t (*op)(struct harness *h, uint64_t random), unsigned count, uint64_t seed)
{
    struct harness *a = harness_create(build), *b = harness_create(build);
    struct state_stream sa, sb;

    for (unsigned step = 0; step < count; step++) {
        uint64_t random = harness_random(&seed);
        uint64_t va, vb;

        if (harness_random(&seed) % 64 == 0)
            harness_reload(b);
        va = op(a, random);
        vb = op(b, random);
        if (va != vb)
            fail_msg("step %u, random %016llx: %llx, but %llx after a reload", step,
                     (unsigned long long)random, (unsigned long long)va, (unsigned long long)vb);
        compare(a, b, step);
    }
    save_devices(a->vm, &sa);
    save_devices(b->vm, &sb);
    assert_int_equal(sa.used, sb.used);
    assert_memory_equal(sa.data, sb.data, sa.used);
    state_stream_free(&sa);
    state_stream_free(&sb);
    harness_destroy(a);
    harness_destroy(b);
}
