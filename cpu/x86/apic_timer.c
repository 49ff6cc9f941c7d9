/*
 * The local APIC's timer (SDM Vol. 3, 10.5.4): one-shot, periodic and
 * TSC-deadline, over the machine's clock.
 *
 * Nothing counts. The register is computed from the crystal ticks since a
 * moment at which its value was known, so it cannot drift from the TSC, and
 * TSC-deadline is the same comparison in TSC units. A machine timer wakes the
 * processor when an unmasked expiry is near; its callback only rings the
 * doorbell, and the owner looks at the time itself.
 *
 * Threading: everything is the owner's but timer_fired. Arming takes no
 * machine lock (vm/clock.h), and most deadlines need no arming.
 */
#include "cpu/x86/apic_internal.h"
#include "cpu/x86/msr.h"
#include "cpu/x86/vec/vec.h"

static enum apic_timer_mode timer_mode(const struct lapic *l)
{
    return (l->lvt[LVT_TIMER] & LVT_TIMER_MODE) >> LVT_TIMER_MODE_SHIFT;
}

/* On the I/O thread, or the only one of a deterministic machine. */
static void timer_fired(void *ctx)
{
    struct lapic *l = ctx;

    /* Relaxed: the owner learns nothing but "look at the clock" from the bit,
     * and vcpu_post orders it before the event. */
    atomic_fetch_or_explicit(&l->inbox, INBOX_TIMER, memory_order_relaxed);
    vcpu_post(&l->c->vcpu, EVENT_INTERRUPT);
}

void apic_timer_create(struct lapic *l)
{
    timer_init(&l->timer, l->c->vm, timer_fired, l);
    l->timer_armed_ns = TIME_NEVER;
}

void apic_timer_reset(struct lapic *l)
{
    if (l->timer_armed_ns != TIME_NEVER) {
        vec_leave(l->c);
        timer_cancel(&l->timer);
        l->timer_armed_ns = TIME_NEVER;
    }
    l->timer_initial = 0;
    l->timer_count = 0;
    l->timer_divide = 0;
    l->timer_tick = 0;
    l->tsc_deadline = 0;
}

/* Divide configuration register, figure 10-10: bits 3, 1 and 0. */
static unsigned timer_divisor_shift(const struct lapic *l)
{
    unsigned value = (l->timer_divide & 3) | (l->timer_divide >> 1 & 4);

    return (value + 1) & 7; /* 000: by 2 ... 110: by 128, 111: by 1 */
}

static uint64_t crystal_now(const struct lapic *l)
{
    x86_clock_leave(l->c);
    return clock_ticks(clock_now_ns(&l->c->vm->clock), APIC_TIMER_HZ);
}

/* Crystal tick at which the running counter reaches zero. */
static uint64_t expiry_tick(const struct lapic *l)
{
    return l->timer_tick + ((uint64_t)l->timer_count << timer_divisor_shift(l));
}

/* When the running counter or the deadline will be noticed; TIME_NEVER: by
 * nobody. tsc: the guest's, now. */
static uint64_t timer_expiry_ns(const struct lapic *l, uint64_t tsc)
{
    if (l->lvt[LVT_TIMER] & LVT_MASKED)
        return TIME_NEVER;
    if (timer_mode(l) != TIMER_TSC_DEADLINE)
        return l->timer_count ? clock_ticks_to_ns(expiry_tick(l), APIC_TIMER_HZ) : TIME_NEVER;
    /* Centuries ahead is never, and must not overflow. */
    if (!l->tsc_deadline || l->tsc_deadline - tsc >= BIT(60))
        return TIME_NEVER;
    return clock_tsc_to_ns(&l->c->vm->clock, l->tsc_deadline - l->c->s.tsc_adjust);
}

/*
 * Sees to it that the machine's timer fires no later than the next expiry. One
 * that fires before is left alone: the owner then looks, finds nothing due and
 * comes here again. Guests put their deadlines off all the time, and that way
 * it costs neither a lock nor a system call.
 */
static void timer_rearm(struct lapic *l, uint64_t tsc)
{
    uint64_t at = timer_expiry_ns(l, tsc);

    if (at >= l->timer_armed_ns)
        return;
    l->timer_armed_ns = at;
    vec_leave(l->c);
    timer_arm(&l->timer, at);
}

void apic_timer_fired(struct lapic *l)
{
    l->timer_armed_ns = TIME_NEVER;
    apic_timer_look(l);
}

void apic_timer_look(struct lapic *l)
{
    uint64_t tsc = 0;
    bool due = false;

    if (timer_mode(l) == TIMER_TSC_DEADLINE) {
        if (!l->tsc_deadline)
            return;
        tsc = x86_tsc(l->c);
        if (tsc >= l->tsc_deadline) {
            l->tsc_deadline = 0;
            due = true;
        }
    } else if (l->timer_count) {
        uint64_t now = crystal_now(l);
        uint64_t end = expiry_tick(l);

        if (now >= end) {
            due = true;
            if (timer_mode(l) == TIMER_PERIODIC && l->timer_initial) {
                uint64_t period = (uint64_t)l->timer_initial << timer_divisor_shift(l);

                /* Periods that nobody was there to see merge into one: the
                 * IRR has one bit. */
                l->timer_tick = end + (now - end) / period * period;
                l->timer_count = l->timer_initial;
            } else {
                l->timer_count = 0;
            }
        }
    }
    if (due)
        apic_local_interrupt(l, LVT_TIMER);
    timer_rearm(l, tsc);
}

uint32_t apic_timer_current(struct lapic *l)
{
    for (;;) {
        uint64_t gone;

        apic_timer_look(l);
        if (!l->timer_count || timer_mode(l) == TIMER_TSC_DEADLINE)
            return 0;
        gone = (crystal_now(l) - l->timer_tick) >> timer_divisor_shift(l);
        if (gone < l->timer_count)
            return l->timer_count - (uint32_t)gone;
        /* The clock went on since the look. Who reads zero shall find the
         * interrupt in the IRR: look again. */
    }
}

void apic_timer_set_initial(struct lapic *l, uint32_t count)
{
    if (timer_mode(l) == TIMER_TSC_DEADLINE)
        return; /* 10.5.4.1: ignored in this mode */
    l->timer_initial = count;
    l->timer_count = count;
    l->timer_tick = crystal_now(l);
    timer_rearm(l, 0);
}

void apic_timer_set_divide(struct lapic *l, uint32_t divide)
{
    uint32_t count = apic_timer_current(l);

    /* The running count goes on from where it is, at the new pace. */
    l->timer_divide = divide & 0xb;
    l->timer_count = count;
    l->timer_tick = crystal_now(l);
    timer_rearm(l, 0);
}

void apic_timer_set_lvt(struct lapic *l, uint32_t value)
{
    bool was_deadline = timer_mode(l) == TIMER_TSC_DEADLINE;

    l->lvt[LVT_TIMER] = value;
    if (was_deadline != (timer_mode(l) == TIMER_TSC_DEADLINE)) {
        /* 10.5.4.1: to TSC-deadline mode and back disarms. */
        l->timer_count = 0;
        l->timer_initial = 0;
        l->tsc_deadline = 0;
    }
    timer_rearm(l, l->tsc_deadline ? x86_tsc(l->c) : 0);
}

uint64_t lapic_tsc_deadline(const struct lapic *l)
{
    if (timer_mode(l) != TIMER_TSC_DEADLINE)
        return 0;
    /* Zero once it has passed, even if the owner has not looked yet. */
    return x86_tsc(l->c) >= l->tsc_deadline ? 0 : l->tsc_deadline;
}

void lapic_set_tsc_deadline(struct lapic *l, uint64_t tsc)
{
    if (timer_mode(l) != TIMER_TSC_DEADLINE)
        return;
    l->tsc_deadline = tsc;
    apic_timer_look(l); /* the past fires at once */
}

void lapic_tsc_changed(struct lapic *l)
{
    if (timer_mode(l) == TIMER_TSC_DEADLINE)
        apic_timer_look(l);
}
