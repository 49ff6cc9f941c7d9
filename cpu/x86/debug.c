/*
 * Debug registers, breakpoints, single step (SDM Vol. 3, chapter 18; Vol. 2,
 * "MOV--Move to/from Debug Registers"). How a loop uses this: debug.h.
 *
 * Threading: the processor's own thread.
 */
#include "cpu/x86/debug.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/msr.h"

static void pend(struct x86_vcpu *c, uint64_t dr6_bits)
{
    c->s.pending_db |= dr6_bits;
    c->slow = 1;
}

/* Does the range [at, at+bytes) meet breakpoint n? Its address is aligned to
 * its length by ignoring the low bits (18.2.5). */
static bool range_hits(const struct x86_cpu *s, unsigned n, uint64_t at, unsigned bytes)
{
    uint64_t length = x86_dr7_bytes(s->dr7, n);
    uint64_t from = s->dr[n] & ~(length - 1);

    if (!x86_long_mode(s))
        from = (uint32_t)from;
    return at - from < length || from - at < bytes;
}

/* ---- breakpoints ---- */

bool x86_page_has_breakpoint(const struct x86_cpu *s, gva_t gva)
{
    for (unsigned n = 0; n < 4; n++) {
        if (x86_dr7_enabled(s->dr7, n) && x86_dr7_rw(s->dr7, n) != DR7_EXECUTE &&
            range_hits(s, n, gva & PAGE_MASK, PAGE_SIZE))
            return true;
    }
    return false;
}

void x86_data_breakpoint(struct x86_vcpu *c, gva_t lin, unsigned bytes, bool write)
{
    for (unsigned n = 0; n < 4; n++) {
        enum x86_dr7_rw rw = x86_dr7_rw(c->s.dr7, n);

        if (x86_dr7_enabled(c->s.dr7, n) && (rw == DR7_ACCESS || (rw == DR7_WRITE && write)) &&
            range_hits(&c->s, n, lin, bytes))
            pend(c, DR6_B0 << n);
    }
}

void x86_io_breakpoint(struct x86_vcpu *c, uint16_t port, unsigned bytes)
{
    if (!(c->s.cr4 & CR4_DE))
        return;
    for (unsigned n = 0; n < 4; n++) {
        if (x86_dr7_enabled(c->s.dr7, n) && x86_dr7_rw(c->s.dr7, n) == DR7_IO &&
            range_hits(&c->s, n, port, bytes))
            pend(c, DR6_B0 << n);
    }
}

/* B0..B3 tell of this exception only; the other bits stay until software
 * clears them. The handler may use the registers: GD is cleared for it. */
static void report(struct x86_vcpu *c, uint64_t dr6_bits)
{
    c->s.dr6 = (c->s.dr6 & ~(uint64_t)DR6_B) | dr6_bits;
    c->s.dr7 &= ~(uint64_t)DR7_GD;
}

/*
 * VME and PVI: "a virtual interrupt is pending and enabled" is noticed before
 * the next instruction (SDM Vol. 3, 20.3.2, 20.4); it needs the same look at
 * each instruction as breakpoints do.
 */
static bool virtual_interrupt_due(const struct x86_cpu *s)
{
    const uint64_t both = FLAG_VIF | FLAG_VIP;

    if ((s->rflags & both) != both || s->cpl != 3 || x86_iopl(s) == 3)
        return false;
    return x86_v86_mode(s) ? s->cr4 & CR4_VME : s->cr4 & CR4_PVI;
}

bool x86_code_breakpoint(struct x86_vcpu *c, gva_t lin)
{
    uint64_t hit = 0;

    if (unlikely(virtual_interrupt_due(&c->s))) {
        x86_deliver(c, X86_EVENT_FAULT, VEC_GP, true, 0);
        return true;
    }
    if ((c->s.rflags & FLAG_RF) || (c->s.shadow & SHADOW_MOV_SS))
        return false;
    for (unsigned n = 0; n < 4; n++) {
        if (x86_dr7_enabled(c->s.dr7, n) && x86_dr7_rw(c->s.dr7, n) == DR7_EXECUTE &&
            (x86_long_mode(&c->s) ? c->s.dr[n] : (uint32_t)c->s.dr[n]) == lin)
            hit |= DR6_B0 << n;
    }
    if (!hit)
        return false;
    report(c, hit);
    /* A fault, but the one that pushes RF as it is: clear (18.3.1.1). */
    x86_deliver(c, X86_EVENT_TRAP, VEC_DB, false, 0);
    return true;
}

bool x86_deliver_pending_db(struct x86_vcpu *c)
{
    uint64_t bits = c->s.pending_db;

    if (!bits || (c->s.shadow & SHADOW_MOV_SS))
        return false;
    c->s.pending_db = 0;
    report(c, bits);
    x86_deliver(c, X86_EVENT_TRAP, VEC_DB, false, 0);
    return true;
}

void x86_merge_pending_db(struct x86_vcpu *c)
{
    if (c->s.pending_db) {
        report(c, c->s.pending_db);
        c->s.pending_db = 0;
    }
}

/* ---- single step ---- */

void x86_step_begin(struct x86_vcpu *c)
{
    c->step_trap = c->s.rflags & FLAG_TF;
    /* RF holds for one instruction. If that instruction faults, the image of
     * the flags has RF again, as that of any fault. */
    if (c->s.rflags & FLAG_RF) {
        c->s.rflags &= ~(uint64_t)FLAG_RF;
        x86_ring_changed(c);
    }
}

void x86_step_override(struct x86_vcpu *c, bool trap)
{
    /* Pending at once: the instruction may be running without x86_step_end. */
    c->step_trap = false;
    if (trap)
        pend(c, DR6_BS);
}

void x86_step_end(struct x86_vcpu *c)
{
    /* Behind MOV SS the trap is lost: the next instruction makes its own. */
    if (c->step_trap && !(c->s.shadow & SHADOW_MOV_SS))
        pend(c, DR6_BS);
    c->step_trap = false;
    if (c->s.pending_db && c->s.activity == X86_HALTED)
        c->s.activity = X86_RUNNING; /* a trap behind HLT ends it */
}

/* ---- MOV DR ---- */

/* Which register is meant; #UD and #GP, and #DB of general detection. */
static unsigned dr_access(struct x86_vcpu *c, unsigned n)
{
    if (n > 7 || (n >= 4 && n <= 5 && (c->s.cr4 & CR4_DE)))
        x86_raise_ud(c);
    if (c->s.cpl != 0)
        x86_raise_gp(c, 0);
    if (c->s.dr7 & DR7_GD) {
        report(c, DR6_BD);
        x86_raise(c, VEC_DB);
    }
    return n == 4 || n == 5 ? n + 2 : n;
}

uint64_t x86_dr_read(struct x86_vcpu *c, unsigned n)
{
    n = dr_access(c, n);
    return n < 4 ? c->s.dr[n] : n == 6 ? c->s.dr6 : c->s.dr7;
}

static bool watches_data(const struct x86_cpu *s)
{
    for (unsigned n = 0; n < 4; n++) {
        if (x86_dr7_enabled(s->dr7, n) && x86_dr7_rw(s->dr7, n) != DR7_EXECUTE)
            return true;
    }
    return false;
}

void x86_dr_write(struct x86_vcpu *c, unsigned n, uint64_t value)
{
    bool watched = watches_data(&c->s);

    n = dr_access(c, n);
    if (!x86_64bit_mode(&c->s))
        value = (uint32_t)value;
    else if (n >= 6 && value >> 32)
        x86_raise_gp(c, 0);
    if (n < 4)
        c->s.dr[n] = value;
    else if (n == 6)
        c->s.dr6 = (value & DR6_WRITABLE) | DR6_ONES;
    else
        c->s.dr7 = (value & DR7_WRITABLE) | DR7_ONE;
    /* Pages may be in the TLB that must be watched now, or need not be. */
    if (n != 6 && (watched || watches_data(&c->s)))
        x86_tlb_flush_all(c);
    x86_state_changed(c);
}
