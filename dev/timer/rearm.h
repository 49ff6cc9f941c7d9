/*
 * How often a periodic timer may fire on its own.
 *
 * A guest can program periods of nanoseconds, and each firing costs the host
 * a wake-up and the machine's lock. So a timer with a shorter period than this
 * fires again only that much later; the ticks between are merged into the
 * next one, as they are when the host is late, and the phase stays. Counters
 * and status registers are computed from the clock and show every tick.
 *
 * Only the period and virtual time enter, so that a deterministic machine
 * merges the same ticks each time. One-shots need no such thing: the guest
 * has to program each.
 */
#ifndef DEV_TIMER_REARM_H
#define DEV_TIMER_REARM_H

#include "base/base.h"

#define TIMER_MIN_PERIOD_NS 20000ull

/* The earliest time at which a periodic timer that fires now may fire again. */
static inline uint64_t timer_rearm_floor(uint64_t period_ns, uint64_t now_ns)
{
    return now_ns + (period_ns < TIMER_MIN_PERIOD_NS ? TIMER_MIN_PERIOD_NS : 1);
}

#endif
