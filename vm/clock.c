/*
 * The machine's clock: virtual time from the host's TSC (or its monotonic
 * clock), or from retired instructions. Interface: vm/clock.h.
 *
 * One multiplication and one division in 128 bits convert between units, so
 * that nothing accumulates. Threading: reading takes no lock. Writers (pause,
 * resume, set) run while all vCPUs are stopped and the machine's lock is held;
 * a resume stores host_base before it clears paused_at, so whoever sees the
 * clock going sees the base that goes with it.
 */
#include "vm/clock.h"

#include <assert.h>

#define DETERMINISTIC_HZ NS_PER_SEC

__extension__ typedef unsigned __int128 u128;

/* p / c; UINT64_MAX where that does not fit. The compiler would divide 128 by
 * 128 bits, by a function. */
static uint64_t quotient(u128 p, uint64_t c)
{
    uint64_t q, rest;

    if (p >> 64 >= c)
        return UINT64_MAX;
    __asm__("divq %[c]"
            : "=a"(q), "=d"(rest)
            : [c] "rm"(c), "a"((uint64_t)p), "d"((uint64_t)(p >> 64))
            : "cc");
    return q;
}

/* a * b / c rounded down; UINT64_MAX where it does not fit. */
static uint64_t scale_floor(uint64_t a, uint64_t b, uint64_t c)
{
    return quotient((u128)a * b, c);
}

static uint64_t scale_ceil(uint64_t a, uint64_t b, uint64_t c)
{
    return quotient((u128)a * b + (c - 1), c);
}

static uint64_t host_count(const struct clock *c)
{
    return c->uses_host_tsc ? host_tsc() : host_monotonic_ns();
}

void clock_init(struct clock *c, bool deterministic, uint64_t epoch_ns)
{
    memset(c, 0, sizeof *c);
    c->deterministic = deterministic;
    c->uses_host_tsc = !deterministic && host_tsc_is_invariant();
    c->host_hz = c->uses_host_tsc ? host_tsc_hz() : NS_PER_SEC;
    c->tsc_hz = deterministic ? DETERMINISTIC_HZ : c->host_hz;
    c->epoch_ns = epoch_ns;
}

/* Host counts since virtual time zero, of a clock that goes. A processor whose
 * TSC is a little behind that of the one that set the base sees zero. */
static uint64_t host_elapsed(const struct clock *c)
{
    uint64_t base = atomic_load_explicit(&c->host_base, memory_order_relaxed);
    int64_t elapsed = (int64_t)(host_count(c) - base);

    return elapsed < 0 ? 0 : (uint64_t)elapsed;
}

static uint64_t det_now(const struct clock *c)
{
    return c->turn_base_ns + (c->turn_retired ? c->turn_retired(c->turn_ctx) : 0);
}

uint64_t clock_now_ns(const struct clock *c)
{
    uint64_t paused_at;

    if (c->deterministic)
        return det_now(c);
    /* Acquire: pairs with the release in clock_resume, see above. */
    paused_at = atomic_load_explicit(&c->paused_at, memory_order_acquire);
    if (paused_at != TIME_NEVER)
        return paused_at;
    return scale_floor(host_elapsed(c), NS_PER_SEC, c->host_hz);
}

uint64_t clock_tsc(const struct clock *c)
{
    uint64_t paused_at;

    if (c->deterministic)
        return clock_ns_to_tsc(c, det_now(c));
    paused_at = atomic_load_explicit(&c->paused_at, memory_order_acquire);
    if (paused_at != TIME_NEVER)
        return clock_ns_to_tsc(c, paused_at);
    if (c->tsc_hz == c->host_hz)
        return host_elapsed(c); /* exact, finer than nanoseconds */
    return scale_floor(host_elapsed(c), c->tsc_hz, c->host_hz);
}

uint64_t clock_tsc_to_ns(const struct clock *c, uint64_t tsc)
{
    return scale_ceil(tsc, NS_PER_SEC, c->tsc_hz);
}

uint64_t clock_ns_to_tsc(const struct clock *c, uint64_t ns)
{
    return scale_floor(ns, c->tsc_hz, NS_PER_SEC);
}

uint64_t clock_ticks(uint64_t ns, uint64_t hz)
{
    return scale_floor(ns, hz, NS_PER_SEC);
}

uint64_t clock_ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    return scale_ceil(ticks, NS_PER_SEC, hz);
}

void clock_pause(struct clock *c)
{
    uint64_t now;

    if (c->deterministic || atomic_load(&c->paused_at) != TIME_NEVER)
        return;
    /* Up to the next nanosecond: the TSC is finer, and must not be behind what
     * the guest has read from it when the clock goes on. */
    now = clock_now_ns(c) + 1;
    atomic_store(&c->paused_at, now);
}

void clock_resume(struct clock *c)
{
    uint64_t now = atomic_load(&c->paused_at);

    if (c->deterministic || now == TIME_NEVER)
        return;
    atomic_store_explicit(&c->host_base, host_count(c) - scale_ceil(now, c->host_hz, NS_PER_SEC),
                          memory_order_relaxed);
    atomic_store_explicit(&c->paused_at, TIME_NEVER, memory_order_release);
}

void clock_set(struct clock *c, uint64_t now_ns, uint64_t tsc_hz)
{
    c->tsc_hz = tsc_hz;
    if (c->deterministic) {
        c->turn_base_ns = now_ns;
        return;
    }
    assert(atomic_load(&c->paused_at) != TIME_NEVER);
    atomic_store(&c->paused_at, now_ns);
}
