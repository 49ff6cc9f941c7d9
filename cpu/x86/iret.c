/*
 * IRET in all its forms (SDM Vol. 2, "IRET/IRETD/IRETQ"; Vol. 3, 6.12.1,
 * 6.14.3, 20.2.3, 20.3): real mode, V86 mode with and without the virtual
 * interrupt flag, to the same and to an outer level, to V86 mode, to a task.
 *
 * Threading: the processor's own thread.
 */
#include "cpu/x86/seg_internal.h"

/* What every IRET may set; TF takes effect behind the next instruction. */
#define IRET_FLAGS (FLAG_STATUS | FLAG_TF | FLAG_DF | FLAG_NT)
/* With an operand size of 32 or 64 bits. */
#define IRET_FLAGS32 (IRET_FLAGS | FLAG_RF | FLAG_AC | FLAG_ID)

static void set_masked_flags(struct x86_vcpu *c, uint64_t value, uint64_t mask)
{
    flags_set(c, (x86_rflags(&c->s) & ~mask) | (value & mask));
}

/* Real mode, and V86 mode at IOPL 3: CS is a paragraph, no checks but limits. */
static void iret_flat(struct x86_vcpu *c, unsigned size, bool v86)
{
    struct x86_stack st = stack_current(c);
    uint64_t rip = stack_value(c, 0, size, 0);
    uint16_t selector = (uint16_t)stack_value(c, 1, size, 0);
    uint64_t flags = stack_value(c, 2, size, 0);
    uint64_t mask = (size == 2 ? IRET_FLAGS : IRET_FLAGS32) | FLAG_IF;
    struct x86_seg *cs = &c->s.seg[X86_CS];

    if (rip > cs->limit)
        x86_raise_gp(c, 0);
    if (!v86)
        mask |= FLAG_IOPL;
    st.sp += 3 * size;
    stack_commit(c, &st);
    cs->selector = selector;
    cs->base = (uint32_t)selector << 4;
    c->s.reg[X86_RIP] = rip;
    set_masked_flags(c, flags, mask);
    x86_state_changed(c);
    seg_recheck(c);
}

/* V86 mode below IOPL 3 (SDM Vol. 3, 20.3.2): VIF stands for IF. */
static void iret_vme(struct x86_vcpu *c, unsigned size)
{
    struct x86_stack st = stack_current(c);
    struct x86_seg *cs = &c->s.seg[X86_CS];
    uint64_t rip, flags;
    uint16_t selector;

    if (!(c->s.cr4 & CR4_VME) || size != 2)
        x86_raise_gp(c, 0);
    rip = stack_value(c, 0, 2, 0);
    selector = (uint16_t)stack_value(c, 1, 2, 0);
    flags = stack_value(c, 2, 2, 0);
    if ((flags & FLAG_TF) || ((flags & FLAG_IF) && (c->s.rflags & FLAG_VIP)))
        x86_raise_gp(c, 0);
    if (rip > cs->limit)
        x86_raise_gp(c, 0);
    st.sp += 6;
    stack_commit(c, &st);
    cs->selector = selector;
    cs->base = (uint32_t)selector << 4;
    c->s.reg[X86_RIP] = rip;
    if (flags & FLAG_IF)
        flags |= FLAG_VIF;
    set_masked_flags(c, flags, IRET_FLAGS | FLAG_VIF);
    x86_state_changed(c);
}

/* CPL 0 with VM in the popped flags: nine doublewords. */
static void iret_to_v86(struct x86_vcpu *c, uint64_t rip, uint16_t selector, uint64_t flags)
{
    static const uint8_t order[] = {X86_SS, X86_ES, X86_DS, X86_FS, X86_GS};
    uint16_t data[ARRAY_SIZE(order)];
    uint64_t esp = stack_value(c, 3, 4, 0);

    for (unsigned n = 0; n < ARRAY_SIZE(order); n++)
        data[n] = (uint16_t)stack_value(c, 4 + n, 4, 0);
    if (rip > 0xffff)
        x86_raise_gp(c, 0);
    flags_set(c, flags & (IRET_FLAGS32 | FLAG_IF | FLAG_IOPL | FLAG_VM | FLAG_VIF | FLAG_VIP));
    seg_fill_v86(&c->s.seg[X86_CS], selector);
    for (unsigned n = 0; n < ARRAY_SIZE(order); n++)
        seg_fill_v86(&c->s.seg[order[n]], data[n]);
    c->s.cpl = 3;
    c->s.reg[X86_RIP] = rip;
    c->s.reg[X86_RSP] = esp;
    x86_state_changed(c);
    seg_recheck(c);
}

/* NT: back to the task that the current one is nested in. */
static void iret_task(struct x86_vcpu *c)
{
    uint16_t link;

    if (x86_long_mode(&c->s))
        x86_raise_gp(c, 0);
    link = (uint16_t)x86_system_read(c, c->s.tr.base, 2);
    x86_task_switch(c, link, TASK_IRET, x86_next_rip(c, c->cur), false, 0);
}

static uint64_t flags_mask(const struct x86_vcpu *c, unsigned size)
{
    uint64_t mask = size == 2 ? IRET_FLAGS : IRET_FLAGS32;

    if (c->s.cpl <= x86_iopl(&c->s))
        mask |= FLAG_IF;
    if (c->s.cpl == 0) {
        mask |= FLAG_IOPL;
        if (size > 2)
            mask |= FLAG_VIF | FLAG_VIP;
    }
    return mask;
}

static void iret_protected(struct x86_vcpu *c, unsigned size, uint64_t rip, uint16_t selector,
                           uint64_t flags)
{
    bool from_64 = x86_64bit_mode(&c->s);
    uint64_t mask = flags_mask(c, size), raw, ss_raw = 0;
    struct x86_stack st = stack_current(c);
    unsigned cpl = selector & SELECTOR_RPL;
    bool outer, to_64;
    uint16_t ss = 0;

    raw = seg_return_code(c, selector);
    outer = cpl > c->s.cpl;
    to_64 = x86_long_mode(&c->s) && desc_code64(raw);
    if (outer || from_64) {
        /* 64-bit mode pops SS:RSP always. */
        st.sp = stack_value(c, 3, size, 0);
        ss = (uint16_t)stack_value(c, 4, size, 0);
        seg_outer_stack(c, &st, ss, cpl, to_64, &ss_raw);
    } else {
        st.sp += 3 * size;
    }
    rip = seg_check_target(c, raw, rip);
    seg_touch(c, selector, &raw);
    if (ss_raw) {
        seg_touch(c, ss, &ss_raw);
        seg_fill(&st.ss, ss, ss_raw);
    }

    c->s.seg[X86_SS] = st.ss;
    stack_commit(c, &st);
    set_masked_flags(c, flags, mask);
    if (outer)
        seg_hide_inner(c, cpl);
    seg_fill(&c->s.seg[X86_CS], selector, raw);
    c->s.cpl = (uint8_t)cpl;
    c->s.reg[X86_RIP] = rip;
    x86_state_changed(c);
    seg_recheck(c);
}

void x86_iret(struct x86_vcpu *c, unsigned size)
{
    uint64_t rip, flags;
    uint16_t selector;

    /* NMIs are let in again even by an IRET that faults (SDM Vol. 3, 6.7.1 and
     * 27.2.2, "NMI unblocking due to IRET"). */
    c->s.nmi_masked = 0;
    if (c->s.nmi_pending)
        c->recheck = true;

    if (size == 8 && iretq_to_code64(c, flags_mask(c, size)))
        return;
    if (x86_real_mode(&c->s)) {
        iret_flat(c, size, false);
        return;
    }
    if (x86_v86_mode(&c->s)) {
        if (x86_iopl(&c->s) == 3)
            iret_flat(c, size, true);
        else
            iret_vme(c, size);
        return;
    }
    if (c->s.rflags & FLAG_NT) {
        iret_task(c);
        return;
    }
    rip = stack_value(c, 0, size, 0);
    selector = (uint16_t)stack_value(c, 1, size, 0);
    flags = stack_value(c, 2, size, 0);
    if ((flags & FLAG_VM) && c->s.cpl == 0 && size == 4 && !x86_long_mode(&c->s))
        iret_to_v86(c, rip, selector, flags);
    else
        iret_protected(c, size, rip, selector, flags);
}
