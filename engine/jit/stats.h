/*
 * What the JIT counts: see stats.c.
 */
#ifndef ENGINE_JIT_STATS_H
#define ENGINE_JIT_STATS_H

#include "cpu/x86/decode.h"
#include "cpu/x86/vcpu.h"

struct jit;

/* Why an instruction ran by its handler. */
enum slow_reason {
    SLOW_ALWAYS, /* the translator does not emit it */
    SLOW_MEMORY, /* its memory operand was not found */
    SLOW_OTHER,  /* its target or another operand was not the usual one */
    SLOW_GROUP,  /* the guard of several accesses failed: the unit is left */
    SLOW_TRIAL,  /* the unit's trial is over: site.c */
    SLOW_STREAMS, /* a loop's streams find no room: site.c */
    SLOW_MOVING, /* its bytes change again and again, it is decoded when they do: changing.c */
    SLOW_STALE,  /* none: the unit has to be made anew before it is entered */
    SLOW_REASONS
};
/* Comes with the instruction's reference, which is smaller. */
#define SLOW_REASON_SHIFT 29
#define SLOW_REFERENCE (BIT(SLOW_REASON_SHIFT) - 1)

/* Why host code was left. */
enum jit_leave_reason {
    LEAVE_EVENT,
    LEAVE_STORE,
    LEAVE_NO_UNIT,
    LEAVE_FETCH,
    LEAVE_ODD,
    LEAVE_BUDGET,
    LEAVE_TARGET,
    LEAVE_WANTED,
    LEAVE_CHANGED,
    JIT_LEAVES
};

/* Why a block was interpreted. */
enum jit_try_reason {
    TRY_COLD,
    TRY_CROSSING,
    TRY_UNCACHED,
    TRY_ODD,
    TRY_BUDGET,
    TRY_FAILED,
    JIT_TRIES
};

struct jit_stats {
    uint64_t units, guest_insns, guest_bytes, host_bytes, cold_bytes, translate_ticks;
    uint64_t links, unlinks, killed, flushes;
    uint64_t evictions, evicted, evict_ticks; /* evicted: units */
    uint64_t invalidations, invalidate_ticks;
    uint64_t slow_calls, dispatches, dispatch_hits, l0_drops, jumps_drops, entered;
    uint64_t l0_misses, refills, stores_beside, tlb_sites, slot_moves, group_fails;
    uint64_t changing_lines, checked_units, stale_units, redecoded; /* changing.c */
    uint64_t trials, local_sites, other_sites;
    uint64_t false_hits; /* fault.c */
    uint64_t accesses, lookups; /* as emitted */
    uint64_t leave[JIT_LEAVES];
    uint64_t try_blocks[JIT_TRIES], try_insns[JIT_TRIES];
    /* Counted by host code, only when asked for. */
    uint64_t units_run, indirect_hits, l0_lookups, tlb_lookups;
};

/* Only when asked for: struct jit.forms. */
int jit_forms_create(struct jit *j);
void jit_forms_destroy(struct jit *j);
/* The instruction at `reference` has been translated, */
void jit_forms_note(struct jit *j, uint32_t reference, const struct x86_decode *d);
/* ..and runs by its handler. */
void jit_forms_count(struct jit *j, uint32_t reference, enum slow_reason why);

void jit_report(struct x86_vcpu *c, x86_report_line *line, void *ctx);

#endif
