/*
 * Ticks that a processor could not take because the host was late.
 *
 * A PC's clock interrupt is an edge; where the one before still waits, a new
 * one is lost. On a computer that means that software kept interrupts off for
 * a whole period. Here the host may also have taken the processor's thread away
 * for a few periods, on a loaded host again and again, and a guest that counts
 * ticks against the TSC finds that its timer does not work: Linux wants five
 * ticks within 40 billion / HZ cycles of the TSC ("IO-APIC + timer doesn't
 * work!"). So ticks that found the line busy, or that passed while the timer's
 * own thread was late, are owed, and follow at up to eight times their rate as
 * soon as the line is free. What is owed is bounded: a guest that takes no
 * ticks at all finds TICKS_OWED_MAX of them, and nobody asks again before the
 * next regular one has been taken.
 *
 * Not for timers faster than TICK_CATCHUP_MIN_NS: see rearm.h. Without a probe
 * ticks that coincide are one, as on a computer.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_TIMER_CATCHUP_H
#define DEV_TIMER_CATCHUP_H

#include "vm/clock.h"
#include "vm/irq.h"

enum {
    TICKS_OWED_MAX = 32,
    TICK_CATCHUP_MIN_NS = 250000,
    TICK_CATCHUP_RATE = 8,
};

/* `passed` edges of a periodic timer have become due since the last call; 0 is
 * another try. True: make one now. */
static inline bool tick_due(uint32_t *owed, uint64_t passed, uint64_t period_ns,
                            const struct irq_probe *probe)
{
    if (!probe->waiting || period_ns < TICK_CATCHUP_MIN_NS) {
        *owed = 0;
        return passed > 0;
    }
    *owed = (uint32_t)MIN(*owed + MIN(passed, TICKS_OWED_MAX), TICKS_OWED_MAX);
    if (*owed == 0 || irq_is_waiting(probe))
        return false;
    --*owed;
    return true;
}

/* When to try again, or TIME_NEVER. */
static inline uint64_t tick_retry_ns(uint32_t owed, uint64_t period_ns, uint64_t now_ns)
{
    if (owed == 0 || owed == TICKS_OWED_MAX)
        return TIME_NEVER;
    return now_ns + MAX(period_ns / TICK_CATCHUP_RATE, TICK_CATCHUP_MIN_NS);
}

#endif
