/*
 * The interpreter's loop: events, interrupts, traps, and one block after the
 * other.
 *
 * What needs no attention runs block by block, following links within a page.
 * c->slow sends it one instruction at a time (single step, interrupt shadow,
 * breakpoints). A fault unwinds to run(), which delivers it and goes on.
 *
 * What is retired: handlers of a block run in order, so at any moment the
 * instructions before c->cur are; REP adds its iterations itself, and delivery
 * of an event counts as one (exception.c).
 */
#include "engine/interp/interp.h"

#include <stdatomic.h>

#include "cpu/x86/apic.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/interrupt.h"
#include "cpu/x86/vec/vec.h"
#include "engine/engine.h"
#include "engine/interp/cache.h"
#include "engine/interp/marks.h"
#include "engine/jit/jit.h"

/* ---- leaving a block early ---- */

static enum x86_next stop(struct x86_vcpu *c, const struct x86_insn *i)
{
    c->cur = i - 1;
    c->s.reg[X86_RIP] = (c->s.reg[X86_RIP] + i->offset) & c->ip_mask;
    return NEXT_LOOKUP;
}

/* The instruction after the current one stops the block; its own handler is
 * put back when the block is left. */
void interp_end_block(struct x86_vcpu *c)
{
    struct x86_insn *next;

    if (!c->block || c->patched)
        return;
    next = (struct x86_insn *)c->cur + 1;
    c->patched = next;
    c->patched_fn = next->fn;
    next->fn = stop;
}

static inline void leave_block(struct x86_vcpu *c)
{
    if (unlikely(c->patched)) {
        c->patched->fn = c->patched_fn;
        c->patched = NULL;
    }
    c->block = NULL;
}

void interp_code_written(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                         uint64_t bytes)
{
    if (cache_invalidate(c, block, offset, bytes))
        interp_end_block(c);
}

void interp_code_stored(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                        uint64_t bytes)
{
    marks_hit(c, interp_marks(c), block, offset, bytes);
}

/* ---- running ---- */

static inline gva_t linear_rip(const struct x86_vcpu *c)
{
    gva_t lin = c->s.reg[X86_RIP] + c->seg_base[X86_CS];

    return (c->mode & MODE_SIZE) == MODE_64 ? lin : (uint32_t)lin;
}

/* Where faults of a fetch find their RIP: at the block's start. */
static const struct x86_insn at_start;

/* The block of the one instruction at RIP, or NULL: try again (cache.h). */
static struct x86_block *find_one(struct x86_vcpu *c)
{
    struct x86_block *b;

    c->cur = &at_start;
    if (!interp_fetch_allowed(c, 1))
        x86_raise_gp(c, 0);
    b = cache_find(c, linear_rip(c), c->mode | MODE_SINGLE);
    if (b && !interp_fetch_allowed(c, b->bytes))
        x86_raise_gp(c, 0);
    return b;
}

/* One instruction; the caller has handled what comes before. */
static void run_one(struct x86_vcpu *c, struct x86_block *b)
{
    vec_registers_leave(c);
    c->block = b;
    b->insn[0].fn(c, b->insn);
    c->s.icount += c->cur->number + 1u;
    leave_block(c);
}

/* One instruction with all that may stand around it. */
static void step(struct x86_vcpu *c)
{
    uint64_t before = c->s.icount;
    struct x86_block *b;

    if (x86_deliver_pending_db(c) || x86_deliver_interrupt(c))
        return;
    if (x86_code_breakpoint(c, linear_rip(c)))
        return;
    /* Shadow and RF end with an instruction, not with an attempt. */
    b = find_one(c);
    if (!b)
        return;
    x86_step_begin(c);
    c->s.shadow = 0;
    run_one(c, b);
    if (c->s.icount != before)
        x86_step_end(c);
    c->slow = c->s.shadow || x86_debug_slow(&c->s);
}

/* Blocks, until something wants attention. */
static void run_blocks(struct x86_vcpu *c)
{
    const struct interp_stats *stats = interp_stats(c);
    uint64_t flushes = stats->flushes;
    struct x86_block *b = NULL, *last = NULL;
    enum x86_next next = NEXT_LOOKUP;
    gva_t page = 0;

    for (;;) {
        gva_t lin;

        if (unlikely(atomic_load_explicit(&c->vcpu.events, memory_order_relaxed) | c->slow |
                     c->recheck | c->s.activity))
            return;
        lin = linear_rip(c);
        /* A link holds while execution stays in one linear page: there the
         * distance between two blocks is that of their bytes. */
        if (next != NEXT_LOOKUP && ((lin ^ page) & PAGE_MASK) == 0 && last->link[next] &&
            last->link[next]->host) {
            b = last->link[next];
        } else {
            bool linkable = next != NEXT_LOOKUP && ((lin ^ page) & PAGE_MASK) == 0;
            /* A fetch sets A bits and faults: not before its time. */
            if (unlikely(c->s.icount >= c->budget_end))
                return;
            c->cur = &at_start;
            if (unlikely(!interp_fetch_allowed(c, 1)))
                x86_raise_gp(c, 0);
            b = cache_find(c, lin, c->mode);
            /* Who maps a page after it has changed code there may be seen by the
             * walk, before the change is heard of: then that comes first. */
            if (unlikely(!b || atomic_load_explicit(&c->vcpu.events, memory_order_acquire)))
                return;
            if (unlikely(stats->flushes != flushes))
                flushes = stats->flushes; /* last is gone */
            else if (linkable && last->host && last->cached && b->cached && !b->second_host &&
                     b->mode == last->mode)
                last->link[next] = b;
            page = lin;
        }
        if (c->has_jit && jit_try(c, b, lin)) {
            next = NEXT_LOOKUP;
            continue;
        }
        vec_registers_leave(c);
        if (unlikely(b->count > c->budget_end - c->s.icount ||
                     !interp_fetch_allowed(c, b->bytes))) {
            if (c->s.icount < c->budget_end && (b = find_one(c)))
                run_one(c, b);
            return;
        }
        c->block = b;
        next = b->insn[0].fn(c, b->insn);
        c->s.icount += c->cur->number + 1u;
        leave_block(c);
        last = b;
    }
}

/* Until run() has to return. Faults unwind out of here. */
static enum vcpu_exit loop(struct x86_vcpu *c)
{
    for (;;) {
        if (atomic_load_explicit(&c->vcpu.events, memory_order_relaxed) &&
            x86_handle_events(c, vcpu_take_events(&c->vcpu)))
            return VCPU_EXIT_EVENT;
        marks_tidy(c, interp_marks(c));
        if (unlikely(c->s.activity != X86_RUNNING)) {
            if (c->s.activity == X86_SHUTDOWN)
                return VCPU_EXIT_SHUTDOWN;
            if (!x86_has_wakeup(c))
                return VCPU_EXIT_HALT;
            if (c->s.activity == X86_WAIT_SIPI)
                continue; /* INIT or SIPI is in the events */
            c->s.activity = X86_RUNNING;
            c->recheck = true;
        }
        if (c->s.icount >= c->budget_end)
            return VCPU_EXIT_EVENT;
        if (c->slow) {
            step(c);
        } else {
            if (c->recheck && x86_deliver_interrupt(c))
                continue;
            run_blocks(c);
        }
    }
}

/* The fault that the current instruction unwound with. */
static void fault(struct x86_vcpu *c)
{
    c->s.icount += c->cur->number; /* those before it are retired */
    c->s.reg[X86_RIP] = x86_cur_rip(c);
    leave_block(c);
    if (c->exclusive) {
        c->exclusive = false;
        vcpu_exclusive_end(&c->vcpu);
    }
    x86_deliver(c, X86_EVENT_FAULT, c->fault_vector, c->fault_has_error, c->fault_error);
    c->slow = c->s.shadow || x86_debug_slow(&c->s);
}

enum vcpu_exit interp_run(struct x86_vcpu *c, uint64_t budget)
{
    enum vcpu_exit exit;

    c->budget_end = budget > UINT64_MAX - c->s.icount ? UINT64_MAX : c->s.icount + budget;
    vcpu_enter(&c->vcpu);
    c->in_insn = true;
    while (x86_catch(&c->unwind) != 0)
        fault(c);
    exit = loop(c);
    c->in_insn = false;
    vec_sync(c);
    vcpu_leave(&c->vcpu);
    return exit;
}

const struct x86_engine_ops interp_engine = {
    .name = "interp",
    .create = cache_create,
    .destroy = cache_destroy,
    .run = interp_run,
    .code_written = interp_code_written,
    .end_block = interp_end_block,
    .code_stored = interp_code_stored,
};
