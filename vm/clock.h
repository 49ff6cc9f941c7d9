/*
 * The machine's clock and its timers. All time in a machine comes from here.
 *
 * Virtual time is in nanoseconds since the machine was started and never goes
 * back. The guest's TSC is the same clock in other units, so that RDTSC, HPET
 * and the PM timer cannot drift apart. In a deterministic machine virtual time
 * is a function of retired instructions: one a nanosecond, TSC at 1 GHz.
 *
 * Threading: reading the clock needs no lock. Timers have a lock of their own
 * (arm and cancel from anywhere); a timer's callback runs with the machine's
 * lock held, on the I/O thread or, in a deterministic machine, on the only
 * thread, at the first instruction boundary at or after its deadline.
 */
#ifndef VM_CLOCK_H
#define VM_CLOCK_H

#include "base/base.h"
#include "base/host.h"

struct vm;
struct state_stream;

#define TIME_NEVER UINT64_MAX

struct clock {
    bool deterministic;
    uint64_t tsc_hz;      /* guest TSC frequency */
    _Atomic uint64_t host_base; /* host TSC (or monotonic ns) at virtual time zero */
    _Atomic uint64_t paused_at; /* virtual ns while stopped, else TIME_NEVER */
    bool uses_host_tsc;   /* invariant host TSC; else monotonic ns */
    /* Deterministic: virtual ns at the start of the running vCPU's turn, and
     * how many instructions it has retired since. */
    uint64_t turn_base_ns;
    uint64_t (*turn_retired)(void *ctx);
    void *turn_ctx;
    uint64_t epoch_ns; /* wall clock (Unix, ns) at virtual time zero: for the RTC */
    uint64_t host_hz;  /* of what host_base counts; differs from tsc_hz after a
                        * machine was loaded that was saved on another host */
};

/* A clock that stands at virtual time zero. */
void clock_init(struct clock *c, bool deterministic, uint64_t epoch_ns);
/* Stop and go, with all vCPUs stopped. */
void clock_pause(struct clock *c);
void clock_resume(struct clock *c);
/* Sets a stopped clock (loading a machine). */
void clock_set(struct clock *c, uint64_t now_ns, uint64_t tsc_hz);

/* Virtual nanoseconds. */
uint64_t clock_now_ns(const struct clock *c);
/* Guest TSC before any TSC_ADJUST: clock_now in units of tsc_hz. */
uint64_t clock_tsc(const struct clock *c);
/* The first virtual ns at which clock_tsc is at least tsc; TIME_NEVER if that
 * is no time. */
uint64_t clock_tsc_to_ns(const struct clock *c, uint64_t tsc);
/* clock_tsc at virtual time ns. */
uint64_t clock_ns_to_tsc(const struct clock *c, uint64_t ns);
/* Ticks of a device that counts at hz, at virtual time ns; exact, no drift. */
uint64_t clock_ticks(uint64_t ns, uint64_t hz);
/* The first virtual ns at which clock_ticks(ns, hz) >= ticks. */
uint64_t clock_ticks_to_ns(uint64_t ticks, uint64_t hz);

struct timer {
    struct vm *vm;
    void (*fire)(void *ctx);
    void *ctx;
    uint64_t deadline_ns; /* TIME_NEVER when not armed */
    unsigned id;          /* order of creation: breaks ties, names it in state */
    unsigned heap_index;
};

void timer_init(struct timer *t, struct vm *vm, void (*fire)(void *ctx), void *ctx);
void timer_destroy(struct timer *t);
/* Absolute virtual time; a time in the past fires at once (never inside this
 * call). Replaces an earlier deadline. A periodic device arms the next time
 * that is after now, or its catching up is all that the machine does. */
void timer_arm(struct timer *t, uint64_t deadline_ns);
/* With the machine's lock held the callback will not run any more; without it
 * one that has begun may still. */
void timer_cancel(struct timer *t);
bool timer_is_armed(const struct timer *t);
/* Sets the deadline that was saved, exactly (vm/state.c); TIME_NEVER cancels. */
void timer_restore(struct timer *t, uint64_t deadline_ns);

#endif
