/*
 * The transfers that 64-bit systems make all the time, without a detour:
 * events through a 64-bit gate, and IRETQ to 64-bit code (SDM Vol. 3, 6.14;
 * Vol. 2, IRETQ).
 *
 * Each looks at everything first and writes then, and gives up, with nothing
 * written, where anything is not as usual: a descriptor, frame or table that is
 * not in the TLB or crosses a page, breakpoints, a check that fails. gate.c and
 * iret.c then do it, or raise; they are the reference, this is the same in one
 * piece. So nothing here can fault, and nobody needs to catch anything.
 *
 * Descriptors are read each time: tables are memory.
 *
 * Threading: the processor's own thread.
 */
#include <stdatomic.h>

#include "cpu/x86/debug.h"
#include "cpu/x86/decode.h"
#include "cpu/x86/mmu_internal.h"
#include "cpu/x86/seg_internal.h"

/* Bits of a descriptor, as it lies in memory, below access byte and flags. */
#define RAW(attr) ((uint64_t)(attr) << 40)
/* A gate's second half must be zero there (SDM Vol. 3, figure 6-8: reserved, and
 * type 0 where a descriptor of 16 bytes has it). */
#define GATE_HIGH_TYPE (0x1full << 40)

/* A descriptor of the GDT that is in the TLB; 0: ask the long way. */
static uint64_t gdt_peek(struct x86_vcpu *c, uint16_t selector)
{
    uint32_t offset = selector & 0xfff8u;
    const void *p;

    if (!offset || (selector & SELECTOR_TI) || offset + 7 > c->s.gdtr.limit)
        return 0;
    p = x86_tlb_peek(c, TLB_SUPERVISOR, c->s.gdtr.base + offset, 8, ACCESS_READ);
    return p ? le64_get(p) : 0;
}

/* Present and accessed 64-bit code that does not conform, of that DPL. */
static bool is_code64(uint64_t raw, unsigned dpl)
{
    const uint64_t mask = RAW(SEG_P | SEG_S | SEG_CODE | SEG_CONFORMING | SEG_ACCESSED | SEG_DPL |
                              SEG_L | SEG_DB);

    return (raw & mask) ==
           RAW(SEG_P | SEG_S | SEG_CODE | SEG_ACCESSED | SEG_L | dpl << SEG_DPL_SHIFT);
}

/* Present, accessed, writable data of that DPL. */
static bool is_stack(uint64_t raw, unsigned dpl)
{
    const uint64_t mask = RAW(SEG_P | SEG_S | SEG_CODE | SEG_WRITABLE | SEG_ACCESSED | SEG_DPL);

    return (raw & mask) ==
           RAW(SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | dpl << SEG_DPL_SHIFT);
}

bool event_through_gate64(struct x86_vcpu *c, uint8_t vector, bool software, bool has_error,
                          uint32_t error, uint64_t return_rip, uint64_t flags)
{
    unsigned cpl = c->s.cpl, dpl, ist, count = has_error ? 6 : 5;
    const uint64_t *entry, *slot;
    uint64_t gate, high, raw, rip, sp, *frame;
    uint16_t selector;

    if (!x86_long_mode(&c->s) || x86_any_breakpoint(&c->s) ||
        vector * 16u + 15 > c->s.idtr.limit)
        return false;
    entry = x86_tlb_peek(c, TLB_SUPERVISOR, c->s.idtr.base + vector * 16u, 16, ACCESS_READ);
    if (!entry)
        return false;
    gate = le64_get(entry);
    high = le64_get(entry + 1);
    /* An interrupt or a trap gate. */
    if ((gate & RAW(SEG_P | SEG_S | (SEG_TYPE & ~1))) != RAW(SEG_P | SYS_INT_GATE32) ||
        (high & GATE_HIGH_TYPE) || (software && desc_dpl(gate) < cpl))
        return false;
    selector = gate_selector(gate);
    raw = gdt_peek(c, selector);
    dpl = desc_dpl(raw);
    rip = gate_offset(gate) | high << 32;
    /* A stack of user's is checked for alignment: the long way. */
    if (!is_code64(raw, dpl) || dpl > cpl || dpl == 3 || !x86_is_canonical(c, rip))
        return false;

    ist = gate >> 32 & 7;
    sp = c->s.reg[X86_RSP];
    if (dpl < cpl || ist) {
        unsigned at = ist ? 28 + 8 * ist : 4 + 8 * dpl;

        if (at + 7 > c->s.tr.limit)
            return false;
        slot = x86_tlb_peek(c, TLB_SUPERVISOR, c->s.tr.base + at, 8, ACCESS_READ);
        if (!slot)
            return false;
        sp = le64_get(slot);
    }
    if (!x86_is_canonical(c, sp))
        return false;
    sp = (sp & ~15ull) - count * 8;
    frame = x86_tlb_peek(c,
                         (c->s.rflags & FLAG_AC) || !(c->s.cr4 & CR4_SMAP) ? TLB_SUPERVISOR_AC
                                                                           : TLB_SUPERVISOR,
                         sp, count * 8, ACCESS_WRITE);
    if (!frame)
        return false;

    /* In the order of the pushes. */
    frame += count;
    *--frame = c->s.seg[X86_SS].selector;
    *--frame = c->s.reg[X86_RSP];
    *--frame = flags;
    *--frame = c->s.seg[X86_CS].selector;
    *--frame = return_rip;
    if (has_error)
        *--frame = error;
    c->s.rflags &= ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_VM | FLAG_RF);
    if (!(gate & RAW(1))) /* a trap gate lets interrupts be */
        c->s.rflags &= ~(uint64_t)FLAG_IF;
    if (dpl < cpl)
        seg_fill_null(&c->s.seg[X86_SS], (uint16_t)dpl, dpl);
    c->s.reg[X86_RSP] = sp;
    seg_fill(&c->s.seg[X86_CS], (uint16_t)((selector & ~SELECTOR_RPL) | dpl), raw);
    c->s.cpl = (uint8_t)dpl;
    c->s.reg[X86_RIP] = rip;
    x86_ring_changed(c);
    return true;
}

/* RF is for the next instruction's breakpoint and goes with it. Where none is set,
 * and nothing is delivered before that instruction, it might as well be gone: a loop
 * that looks at each instruction would cost a quarter of a fault, which all come back
 * with RF. A deterministic machine's frames show it, whatever is delivered when. */
static void forget_rf(struct x86_vcpu *c)
{
    if (!x86_any_breakpoint(&c->s) && !c->recheck && !c->vm->deterministic &&
        !atomic_load_explicit(&c->vcpu.events, memory_order_relaxed))
        c->s.rflags &= ~(uint64_t)FLAG_RF;
}

bool iretq_to_code64(struct x86_vcpu *c, uint64_t mask)
{
    uint64_t rip, flags, sp = c->s.reg[X86_RSP], raw, ss_raw = 0;
    uint16_t selector, ss;
    const uint64_t *frame;
    unsigned cpl;

    /* Read as the program, at full speed: nothing to check and to watch. */
    if (c->mode != MODE_64 || (c->s.rflags & FLAG_NT) || c->seg_read_last[X86_SS] != INT64_MAX)
        return false;
    frame = x86_tlb_peek(c, c->tlb_class, sp, 40, ACCESS_READ);
    if (!frame)
        return false;
    rip = le64_get(frame);
    selector = (uint16_t)le64_get(frame + 1);
    flags = le64_get(frame + 2);
    sp = le64_get(frame + 3);
    ss = (uint16_t)le64_get(frame + 4);

    cpl = selector & SELECTOR_RPL;
    raw = gdt_peek(c, selector);
    if (cpl < c->s.cpl || !is_code64(raw, cpl) || !x86_is_canonical(c, rip) ||
        (ss & SELECTOR_RPL) != cpl)
        return false;
    if (!selector_null(ss)) {
        ss_raw = gdt_peek(c, ss);
        if (!is_stack(ss_raw, cpl))
            return false;
    } else if (cpl == 3) {
        return false;
    }

    flags_set(c, (x86_rflags(&c->s) & ~mask) | (flags & mask));
    if (ss_raw)
        seg_fill(&c->s.seg[X86_SS], ss, ss_raw);
    else
        seg_fill_null(&c->s.seg[X86_SS], ss, cpl);
    c->s.reg[X86_RSP] = sp;
    if (cpl > c->s.cpl) {
        seg_hide_inner(c, cpl);
        c->seg_base[X86_FS] = c->s.seg[X86_FS].base;
        c->seg_base[X86_GS] = c->s.seg[X86_GS].base;
    }
    seg_fill(&c->s.seg[X86_CS], selector, raw);
    c->s.cpl = (uint8_t)cpl;
    c->s.reg[X86_RIP] = rip;
    seg_recheck(c);
    forget_rf(c);
    x86_ring_changed(c);
    return true;
}
