/*
 * The high-precision event timers of the ICH9.
 *
 * Follows: IA-PC HPET specification 1.0a; Intel ICH9 data sheet, sections
 * 5.17 and 21. As in the ICH9, timer 0 is periodic and has 64 bits, timers 1
 * and 2 are one-shot and have 32. Message ("FSB") delivery, which the
 * specification leaves open, is offered where the board connects it.
 *
 * Nothing ticks: the main counter is virtual time in units of 10 ns plus an
 * offset. A timer matches when the counter equals its comparator; checked_at
 * is the count up to which that has been looked at, and whoever looks again
 * accounts for the matches since: they advance a periodic comparator and set
 * the status of a level-triggered timer. A host timer runs only while a match
 * can cause an interrupt. Timer 0's ticks as interrupt 0 are made up for where
 * the host was late (catchup.h).
 *
 * Interface: hpet.h. Threading: with the machine's lock held.
 */
#include "dev/timer/hpet.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/timer/catchup.h"
#include "dev/timer/rearm.h"
#include "vm/vm.h"

enum {
    HPET_TIMERS = 3,
    HPET_BYTES = 0x400,
    HPET_TICK_NS = HPET_PERIOD_FS / 1000000,
};

/* The last tick that virtual time can reach, and no deadline. */
#define TICK_NEVER (TIME_NEVER / HPET_TICK_NS)

/* Registers of 64 bits, by offset. */
enum {
    REG_CAPABILITIES = 0x000,
    REG_CONFIG = 0x010,
    REG_STATUS = 0x020,
    REG_COUNTER = 0x0f0,
    REG_TIMERS = 0x100, /* one every 20H: */
    TIMER_STRIDE = 0x20,
    TIMER_CONFIG = 0x00,
    TIMER_COMPARATOR = 0x08,
    TIMER_ROUTE = 0x10, /* "FSB interrupt route": data, and above it the address */
};

enum {
    CONFIG_ENABLE = 1 << 0,
    CONFIG_LEGACY = 1 << 1, /* legacy replacement: timer 0 is IRQ0, timer 1 IRQ8 */
    CONFIG_WRITABLE = CONFIG_ENABLE | CONFIG_LEGACY,
};

/* A timer's configuration; the high half says which interrupts it can have. */
enum {
    T_LEVEL = 1 << 1,
    T_ENABLE = 1 << 2,
    T_PERIODIC = 1 << 3,
    T_CAN_PERIODIC = 1 << 4,
    T_CAN_64 = 1 << 5,
    T_SET_ACCUMULATOR = 1 << 6, /* the next comparator write sets it, not just the period */
    T_32 = 1 << 8,
    T_ROUTE_SHIFT = 9, /* 5 bits */
    T_ROUTE = 0x1f << T_ROUTE_SHIFT,
    T_MESSAGE = 1 << 14,
    T_CAN_MESSAGE = 1 << 15,
    T_WRITABLE = T_LEVEL | T_ENABLE | T_ROUTE,
};

/* What the ICH9's timers can do. */
static const struct {
    uint32_t abilities;
    uint32_t routes; /* bit n: GSI n */
} timer_kinds[HPET_TIMERS] = {
    {T_CAN_PERIODIC | T_CAN_64, 0x00f00000},
    {0, 0x00f00000},
    {0, 0x00f00800},
};

/* Outputs: 24 GSIs and the two legacy lines; bits of hpet.levels. */
enum {
    OUTPUT_IRQ0 = HPET_GSIS,
    OUTPUT_IRQ8,
    OUTPUT_COUNT,
    OUTPUT_NONE = OUTPUT_COUNT,
};

struct hpet_timer {
    struct hpet *hpet;
    unsigned index;
    uint32_t config; /* what was written; abilities are in the table */
    uint64_t comparator;
    uint64_t period;     /* what a periodic comparator advances by */
    uint64_t checked_at; /* matches up to this count are accounted for */
    uint64_t route;
    struct timer timer;
};

struct hpet {
    struct vm *vm;
    struct irq_line output[OUTPUT_COUNT];
    struct irq_line legacy;
    struct irq_probe irq0_probe;
    struct irq_message_port port;
    struct region region;
    uint32_t routes; /* GSIs that are connected */
    uint32_t config;
    uint32_t status; /* bit n: level-triggered timer n */
    uint32_t levels; /* outputs that are high */
    uint32_t owed;   /* ticks of interrupt 0 that are made up for: catchup.h */
    uint64_t offset; /* count - ticks of the clock, while enabled */
    uint64_t halted; /* the count, while not */
    struct hpet_timer timers[HPET_TIMERS];
};

/* ---- the counter ---- */

static bool hpet_enabled(const struct hpet *h)
{
    return h->config & CONFIG_ENABLE;
}

static uint64_t hpet_clock_ticks(const struct hpet *h)
{
    return clock_now_ns(&h->vm->clock) / HPET_TICK_NS;
}

static uint64_t hpet_count(const struct hpet *h)
{
    return hpet_enabled(h) ? hpet_clock_ticks(h) + h->offset : h->halted;
}

/* ---- timers ---- */

static uint32_t timer_abilities(const struct hpet_timer *t)
{
    return timer_kinds[t->index].abilities | (t->hpet->port.send ? T_CAN_MESSAGE : 0);
}

static uint32_t timer_routes(const struct hpet_timer *t)
{
    return timer_kinds[t->index].routes & t->hpet->routes;
}

/* The bits of comparator and counter that take part. */
static uint64_t timer_mask(const struct hpet_timer *t)
{
    bool wide = (timer_kinds[t->index].abilities & T_CAN_64) && !(t->config & T_32);

    return wide ? UINT64_MAX : UINT32_MAX;
}

/* What a match adds to the comparator; 0 for a one-shot. */
static uint64_t timer_step(const struct hpet_timer *t)
{
    return t->config & T_PERIODIC ? t->period & timer_mask(t) : 0;
}

/* How many counts after checked_at the next match is, less one. */
static uint64_t timer_distance(const struct hpet_timer *t)
{
    return (t->comparator - t->checked_at - 1) & timer_mask(t);
}

static unsigned timer_output(const struct hpet_timer *t)
{
    unsigned gsi = (t->config & T_ROUTE) >> T_ROUTE_SHIFT;

    if (t->config & T_MESSAGE)
        return OUTPUT_NONE;
    if ((t->hpet->config & CONFIG_LEGACY) && t->index <= 1)
        return t->index == 0 ? OUTPUT_IRQ0 : OUTPUT_IRQ8;
    return timer_routes(t) & BIT(gsi) ? gsi : OUTPUT_NONE;
}

/* Message delivery knows edges only. */
static bool timer_is_level(const struct hpet_timer *t)
{
    return (t->config & (T_LEVEL | T_MESSAGE)) == T_LEVEL;
}

/* Drives the outputs as levels and routes are now. */
static void hpet_update_outputs(struct hpet *h)
{
    uint32_t levels = 0;

    for (unsigned n = 0; n < HPET_TIMERS && hpet_enabled(h); n++) {
        const struct hpet_timer *t = &h->timers[n];
        unsigned output = timer_output(t);

        if ((h->status & BIT(n)) && (t->config & T_ENABLE) && timer_is_level(t) &&
            output != OUTPUT_NONE)
            levels |= (uint32_t)BIT(output);
    }
    for (unsigned output = 0; output < OUTPUT_COUNT; output++) {
        uint32_t bit = (uint32_t)BIT(output);

        if ((levels ^ h->levels) & bit) {
            h->levels ^= bit;
            irq_set(&h->output[output], levels & bit);
        }
    }
}

/* Periodic edges of interrupt 0: those are made up for. */
static bool timer_is_clock(const struct hpet_timer *t)
{
    return t->index == 0 && timer_step(t) && !timer_is_level(t) && (t->config & T_ENABLE) &&
           timer_output(t) == OUTPUT_IRQ0;
}

static uint64_t timer_period_ns(const struct hpet_timer *t)
{
    return MIN(timer_step(t), TICK_NEVER) * HPET_TICK_NS;
}

/* Matches: the interrupt. 0: another try for those that are owed. */
static void timer_interrupt(struct hpet_timer *t, uint64_t matches)
{
    struct hpet *h = t->hpet;
    unsigned output = timer_output(t);

    if (timer_is_level(t)) {
        h->status |= (uint32_t)BIT(t->index); /* the status shows disabled timers too */
        hpet_update_outputs(h);
        return;
    }
    if (!(t->config & T_ENABLE))
        return;
    if (timer_is_clock(t) ? !tick_due(&h->owed, matches, timer_period_ns(t), &h->irq0_probe)
                          : !matches)
        return;
    if (t->config & T_MESSAGE)
        irq_message_send(&h->port, (struct irq_message){t->route >> 32, (uint32_t)t->route});
    else if (output != OUTPUT_NONE && !(h->levels & BIT(output)))
        irq_pulse(&h->output[output]);
}

/* Accounts for the matches up to now; false: there were none. */
static bool timer_sync(struct hpet_timer *t)
{
    struct hpet *h = t->hpet;
    uint64_t step = timer_step(t);
    uint64_t distance, passed, matches = 1;

    if (!hpet_enabled(h))
        return false;
    passed = hpet_count(h) - t->checked_at;
    /* Two host processors may read the clock a little differently. */
    if ((int64_t)passed <= 0)
        return false;
    distance = timer_distance(t);
    t->checked_at += passed;
    if (distance >= passed)
        return false;
    if (step) {
        matches = (passed - distance - 1) / step + 1;
        t->comparator = (t->comparator + matches * step) & timer_mask(t);
    }
    timer_interrupt(t, matches);
    return true;
}

/* Arms the host's timer for the next match that is visible; a periodic one
 * not before floor_ns. */
static void timer_rearm(struct hpet_timer *t, uint64_t floor_ns)
{
    struct hpet *h = t->hpet;
    uint64_t step = timer_step(t);
    uint64_t distance = timer_distance(t);
    uint64_t from = t->checked_at - h->offset; /* in ticks of the clock */
    uint64_t floor = floor_ns / HPET_TICK_NS + 1;
    uint64_t at;

    if (!hpet_enabled(h) || !(t->config & T_ENABLE) ||
        (timer_is_level(t) && (h->status & BIT(t->index))) || from >= TICK_NEVER ||
        distance >= TICK_NEVER - from) {
        timer_cancel(&t->timer);
        return;
    }
    at = from + distance + 1;
    if (step && at < floor)
        at += (floor - at + step - 1) / step * step;
    at = at < TICK_NEVER ? at * HPET_TICK_NS : TIME_NEVER;
    if (timer_is_clock(t))
        at = MIN(at, tick_retry_ns(h->owed, timer_period_ns(t), clock_now_ns(&h->vm->clock)));
    timer_arm(&t->timer, at);
}

static void timer_fire(void *self)
{
    struct hpet_timer *t = self;
    uint64_t now_ns = clock_now_ns(&t->hpet->vm->clock);
    uint64_t step_ns = MIN(timer_step(t), TIMER_MIN_PERIOD_NS) * HPET_TICK_NS;

    if (!timer_sync(t) && timer_is_clock(t))
        timer_interrupt(t, 0);
    timer_rearm(t, timer_rearm_floor(step_ns, now_ns));
}

static void hpet_sync(struct hpet *h)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        timer_sync(&h->timers[n]);
}

static void hpet_rearm(struct hpet *h)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        timer_rearm(&h->timers[n], 0);
}

/* ---- registers ---- */

static uint64_t timer_read(const struct hpet_timer *t, unsigned reg)
{
    switch (reg) {
    case TIMER_CONFIG:
        return (uint64_t)timer_routes(t) << 32 | t->config | timer_abilities(t);
    case TIMER_COMPARATOR:
        return t->comparator;
    case TIMER_ROUTE:
        return t->route;
    default:
        return 0;
    }
}

static uint64_t hpet_read_register(struct hpet *h, unsigned reg)
{
    switch (reg) {
    case REG_CAPABILITIES:
        return (uint64_t)HPET_PERIOD_FS << 32 | HPET_BLOCK_ID;
    case REG_CONFIG:
        return h->config;
    case REG_STATUS:
        hpet_sync(h);
        hpet_rearm(h);
        return h->status;
    case REG_COUNTER:
        return hpet_count(h);
    default:
        break;
    }
    if (reg >= REG_TIMERS && reg < REG_TIMERS + HPET_TIMERS * TIMER_STRIDE) {
        struct hpet_timer *t = &h->timers[(reg - REG_TIMERS) / TIMER_STRIDE];

        if (reg % TIMER_STRIDE == TIMER_COMPARATOR) {
            timer_sync(t);
            timer_rearm(t, 0);
        }
        return timer_read(t, reg % TIMER_STRIDE);
    }
    return 0;
}

static void timer_write_config(struct hpet_timer *t, uint32_t v)
{
    struct hpet *h = t->hpet;
    uint32_t abilities = timer_abilities(t);
    uint32_t writable = T_WRITABLE;

    if (abilities & T_CAN_PERIODIC)
        writable |= T_PERIODIC | T_SET_ACCUMULATOR;
    if (abilities & T_CAN_64)
        writable |= T_32;
    if (abilities & T_CAN_MESSAGE)
        writable |= T_MESSAGE;
    /* A route that there is not does not stick: software reads it back. */
    if (!(timer_routes(t) & BIT((v & T_ROUTE) >> T_ROUTE_SHIFT)))
        writable &= ~(uint32_t)T_ROUTE;
    t->config = (t->config & ~writable) | (v & writable);
    /* Bits that take no part read as zero. */
    t->comparator &= timer_mask(t);
    t->period &= timer_mask(t);
    /* The status is of level-triggered timers only. */
    if (!timer_is_level(t))
        h->status &= ~(uint32_t)BIT(t->index);
    if (t->index == 0)
        h->owed = 0;
    hpet_update_outputs(h);
}

/* mask: the half that is written, or all of it. */
static void timer_write_comparator(struct hpet_timer *t, uint64_t v, uint64_t mask)
{
    mask &= timer_mask(t);
    v &= mask;
    if (!mask)
        return;
    if (t->config & T_PERIODIC)
        t->period = (t->period & ~mask) | v;
    /* A running period changes at the next match; the accumulator only when
     * software asks, anew for each half (ICH9 5.17.3, "Periodic Mode"). */
    if (!(t->config & T_PERIODIC) || (t->config & T_SET_ACCUMULATOR)) {
        t->comparator = (t->comparator & ~mask) | v;
        /* A comparator that equals the counter matches now. */
        t->checked_at = hpet_count(t->hpet) - 1;
    }
    t->config &= ~(uint32_t)T_SET_ACCUMULATOR;
    timer_sync(t);
}

static void hpet_write_config(struct hpet *h, uint32_t v)
{
    uint64_t count = hpet_count(h);
    uint32_t changed = (v ^ h->config) & CONFIG_WRITABLE;

    h->config ^= changed;
    if (changed)
        h->owed = 0;
    if (changed & CONFIG_ENABLE) {
        h->halted = hpet_enabled(h) ? 0 : count;
        h->offset = hpet_enabled(h) ? count - hpet_clock_ticks(h) : 0;
        hpet_sync(h);
    }
    /* The old owner's lines first, whatever they were. */
    if ((changed & CONFIG_LEGACY) && !(h->config & CONFIG_LEGACY)) {
        hpet_update_outputs(h);
        irq_lower(&h->legacy);
    } else if (changed & CONFIG_LEGACY) {
        irq_raise(&h->legacy);
    }
    hpet_update_outputs(h);
}

static void hpet_write_counter(struct hpet *h, uint64_t v, uint64_t mask)
{
    if (hpet_enabled(h)) {
        vlog(h->vm->log, TIMER, GUEST, "hpet: write of the main counter while it runs ignored");
        return;
    }
    h->halted = (h->halted & ~mask) | (v & mask);
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        h->timers[n].checked_at = h->halted - 1;
}

static void hpet_write_register(struct hpet *h, unsigned reg, uint64_t v, uint64_t mask)
{
    struct hpet_timer *t;

    hpet_sync(h);
    switch (reg) {
    case REG_CONFIG:
        if ((uint32_t)mask)
            hpet_write_config(h, (uint32_t)v);
        break;
    case REG_STATUS: /* a 1 clears */
        h->status &= ~(uint32_t)(v & mask);
        hpet_update_outputs(h);
        break;
    case REG_COUNTER:
        hpet_write_counter(h, v, mask);
        break;
    default:
        if (reg < REG_TIMERS || reg >= REG_TIMERS + HPET_TIMERS * TIMER_STRIDE)
            break;
        t = &h->timers[(reg - REG_TIMERS) / TIMER_STRIDE];
        if (reg % TIMER_STRIDE == TIMER_CONFIG && (uint32_t)mask)
            timer_write_config(t, (uint32_t)v);
        else if (reg % TIMER_STRIDE == TIMER_COMPARATOR)
            timer_write_comparator(t, v, mask);
        else if (reg % TIMER_STRIDE == TIMER_ROUTE && (timer_abilities(t) & T_CAN_MESSAGE))
            t->route = (t->route & ~mask) | (v & mask);
        break;
    }
    hpet_rearm(h);
}

static uint64_t hpet_mmio_read(void *self, uint64_t offset, unsigned size)
{
    uint64_t v = hpet_read_register(self, (unsigned)align_down(offset, 8));

    return zext(v >> (offset & 7) * 8, size);
}

static void hpet_mmio_write(void *self, uint64_t offset, uint64_t value, unsigned size)
{
    struct hpet *h = self;
    unsigned shift = (unsigned)(offset & 7) * 8;

    if (size < 4) { /* the specification knows 32 and 64 bits */
        vlog(h->vm->log, TIMER, GUEST, "hpet: write of %u bytes at offset %03llXH ignored", size,
             (unsigned long long)offset);
        return;
    }
    vlog(h->vm->log, TIMER, DEBUG, "hpet: offset %03llXH <- %llXH (%u)", (unsigned long long)offset,
         (unsigned long long)value, size);
    hpet_write_register(h, (unsigned)align_down(offset, 8), value << shift,
                        zext(UINT64_MAX, size) << shift);
}

static const struct region_ops hpet_ops = {
    .read = hpet_mmio_read, .write = hpet_mmio_write, .min_size = 1, .max_size = 8};

void hpet_map(struct hpet *h, uint64_t base, bool enabled)
{
    region_move(&h->region, base);
    region_enable(&h->region, enabled);
}

/* ---- life ---- */

static void hpet_reset(void *self)
{
    struct hpet *h = self;
    bool legacy = h->config & CONFIG_LEGACY;

    h->config = 0;
    h->status = 0;
    h->offset = 0;
    h->halted = 0;
    h->owed = 0;
    hpet_update_outputs(h);
    if (legacy)
        irq_lower(&h->legacy);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct hpet_timer *t = &h->timers[n];

        t->config = 0;
        t->comparator = timer_mask(t);
        t->period = 0;
        t->checked_at = UINT64_MAX; /* nothing, not even the counter's zero */
        t->route = 0;
        timer_cancel(&t->timer);
    }
}

static void hpet_destroy(void *self)
{
    struct hpet *h = self;

    for (unsigned n = 0; n < HPET_TIMERS; n++)
        timer_destroy(&h->timers[n].timer);
    region_remove(&h->region);
    free(h);
}

static int hpet_after_load(void *self, unsigned version)
{
    struct hpet *h = self;

    if ((h->config & ~(uint32_t)CONFIG_WRITABLE) || h->levels >= BIT(OUTPUT_COUNT) ||
        h->status >= BIT(HPET_TIMERS) || h->owed > TICKS_OWED_MAX)
        return -EINVAL;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        const struct hpet_timer *t = &h->timers[n];
        uint32_t allowed = T_WRITABLE | T_PERIODIC | T_SET_ACCUMULATOR | T_32 | T_MESSAGE;

        if (t->config & ~allowed)
            return -EINVAL;
        /* Also where the saved machine had more abilities than this one. */
        if ((t->config & T_PERIODIC) && !(timer_abilities(t) & T_CAN_PERIODIC))
            return -EINVAL;
        if ((t->config & T_MESSAGE) && !(timer_abilities(t) & T_CAN_MESSAGE))
            return -EINVAL;
        if ((t->comparator | t->period) & ~timer_mask(t))
            return -EINVAL;
    }
    return 0;
}

static const struct state_field timer_fields[] = {
    STATE_INT(struct hpet_timer, config),
    STATE_INT(struct hpet_timer, comparator),
    STATE_INT(struct hpet_timer, period),
    STATE_INT(struct hpet_timer, checked_at),
    STATE_INT(struct hpet_timer, route),
    STATE_TIMER(struct hpet_timer, timer),
    STATE_END,
};
static const struct state_table timer_state = {"hpet-timer", 1, timer_fields, NULL, NULL};

static const struct state_field hpet_fields[] = {
    STATE_INT(struct hpet, config),
    STATE_INT(struct hpet, status),
    STATE_INT(struct hpet, levels),
    STATE_INT(struct hpet, owed),
    STATE_INT(struct hpet, offset),
    STATE_INT(struct hpet, halted),
    STATE_STRUCTS(struct hpet, timers, &timer_state),
    STATE_END,
};
static const struct state_table hpet_state = {"hpet", 2, hpet_fields, NULL, hpet_after_load};

static const struct dev_type hpet_type = {"hpet", hpet_reset, hpet_destroy, &hpet_state};

struct hpet *hpet_create(struct vm *vm, const struct hpet_config *config, struct error *err)
{
    struct hpet *h = calloc(1, sizeof *h);

    if (!h)
        goto fail;
    h->vm = vm;
    h->port = config->port;
    h->legacy = config->legacy;
    h->irq0_probe = config->irq0_probe;
    h->output[OUTPUT_IRQ0] = config->irq0;
    h->output[OUTPUT_IRQ8] = config->irq8;
    for (unsigned gsi = 0; gsi < HPET_GSIS; gsi++) {
        h->output[gsi] = config->gsi[gsi];
        if (config->gsi[gsi].set)
            h->routes |= (uint32_t)BIT(gsi);
    }
    h->region = (struct region){.name = "hpet",
                                .base = config->base ? config->base : HPET_BASE,
                                .size = HPET_BYTES,
                                .priority = 1,
                                .ops = &hpet_ops,
                                .ctx = h};
    if (region_add(&vm->memory, &h->region) < 0)
        goto fail;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        h->timers[n].hpet = h;
        h->timers[n].index = n;
        timer_init(&h->timers[n].timer, vm, timer_fire, &h->timers[n]);
    }
    hpet_reset(h);
    vm_add_device(vm, &hpet_type, "hpet", h);
    return h;

fail:
    free(h);
    error_set(err, -ENOMEM, "out of memory for the HPET");
    return NULL;
}
