/*
 * Far JMP, CALL and RET: direct, through call gates, to tasks (SDM Vol. 2,
 * "JMP", "CALL", "RET"; Vol. 3, 5.8).
 *
 * Threading: the processor's own thread.
 */
#include "cpu/x86/seg_internal.h"

/* Where a far transfer ends up. */
struct far_target {
    uint16_t selector;
    uint64_t raw; /* the code segment's descriptor */
    uint64_t rip;
};

static bool flat_segments(const struct x86_vcpu *c)
{
    return x86_real_mode(&c->s) || x86_v86_mode(&c->s);
}

/* CS and RIP in real and V86 mode: a paragraph number; the limit stays. */
static void enter_real(struct x86_vcpu *c, uint16_t selector, uint64_t rip)
{
    struct x86_seg *cs = &c->s.seg[X86_CS];

    cs->selector = selector;
    cs->base = (uint32_t)selector << 4;
    c->s.reg[X86_RIP] = rip;
    x86_state_changed(c);
}

static void enter_code(struct x86_vcpu *c, const struct far_target *t, unsigned cpl)
{
    seg_fill(&c->s.seg[X86_CS], (uint16_t)((t->selector & ~SELECTOR_RPL) | cpl), t->raw);
    c->s.cpl = (uint8_t)cpl;
    c->s.reg[X86_RIP] = t->rip;
    x86_state_changed(c);
}

/* A direct transfer to code: no change of privilege. */
static void check_direct(struct x86_vcpu *c, const struct far_target *t)
{
    unsigned rpl = t->selector & SELECTOR_RPL, dpl = desc_dpl(t->raw);

    if (x86_long_mode(&c->s) && (desc_attr(t->raw) & (SEG_L | SEG_DB)) == (SEG_L | SEG_DB))
        seg_raise(c, VEC_GP, t->selector);
    if (desc_conforming(t->raw) ? dpl > c->s.cpl : rpl > c->s.cpl || dpl != c->s.cpl)
        seg_raise(c, VEC_GP, t->selector);
    if (!desc_present(t->raw))
        seg_raise(c, VEC_NP, t->selector);
}

/* Gate and TSS descriptors: DPL against CPL and RPL, then present. */
static void check_system_access(struct x86_vcpu *c, uint16_t selector, uint64_t raw)
{
    unsigned rpl = selector & SELECTOR_RPL;

    if (desc_dpl(raw) < c->s.cpl || rpl > desc_dpl(raw))
        seg_raise(c, VEC_GP, selector);
}

/* The code segment behind a call gate, as far as JMP and CALL agree. */
static struct far_target gate_target(struct x86_vcpu *c, uint16_t selector, uint64_t gate)
{
    struct far_target t = {.selector = gate_selector(gate), .rip = gate_offset(gate)};
    bool long_mode = x86_long_mode(&c->s);

    check_system_access(c, selector, gate);
    if (!desc_present(gate))
        seg_raise(c, VEC_NP, selector);
    if (long_mode)
        t.rip |= seg_fetch_upper(c, selector, VEC_GP) << 32;
    if (selector_null(t.selector))
        seg_raise(c, VEC_GP, 0);
    t.raw = seg_fetch(c, t.selector, VEC_GP);
    if (!desc_code(t.raw) || desc_dpl(t.raw) > c->s.cpl ||
        (long_mode && (desc_attr(t.raw) & (SEG_L | SEG_DB)) != SEG_L))
        seg_raise(c, VEC_GP, t.selector);
    return t;
}

/*
 * A system descriptor as the target: returns if it is a call gate that this
 * mode has; switches tasks and does not come back to the caller's work (true)
 * for a TSS or task gate.
 */
static bool far_system(struct x86_vcpu *c, uint16_t selector, uint64_t raw,
                       enum x86_task_reason reason, uint64_t return_rip)
{
    unsigned type = desc_type(raw);

    if (type == SYS_CALL_GATE32 || (type == SYS_CALL_GATE16 && !x86_long_mode(&c->s)))
        return false;
    if (x86_long_mode(&c->s) || (type != SYS_TASK_GATE && type != SYS_TSS16 && type != SYS_TSS32))
        seg_raise(c, VEC_GP, selector);
    check_system_access(c, selector, raw);
    if (type == SYS_TASK_GATE) {
        if (!desc_present(raw))
            seg_raise(c, VEC_NP, selector);
        selector = gate_selector(raw);
    }
    x86_task_switch(c, selector, reason, return_rip, false, 0);
    return true;
}

void x86_far_jump(struct x86_vcpu *c, uint16_t selector, uint64_t offset, unsigned size,
                  uint64_t return_rip)
{
    struct far_target t = {.selector = selector, .rip = zext(offset, size)};

    if (flat_segments(c)) {
        if (t.rip > c->s.seg[X86_CS].limit)
            x86_raise_gp(c, 0);
        enter_real(c, selector, t.rip);
        return;
    }
    if (selector_null(selector))
        x86_raise_gp(c, 0);
    t.raw = seg_fetch(c, selector, VEC_GP);
    if (desc_code(t.raw)) {
        check_direct(c, &t);
    } else if (desc_segment(t.raw)) {
        seg_raise(c, VEC_GP, selector);
    } else {
        if (far_system(c, selector, t.raw, TASK_JUMP, return_rip))
            return;
        t = gate_target(c, selector, t.raw);
        if (!desc_conforming(t.raw) && desc_dpl(t.raw) != c->s.cpl)
            seg_raise(c, VEC_GP, t.selector);
        if (!desc_present(t.raw))
            seg_raise(c, VEC_NP, t.selector);
    }
    t.rip = seg_check_target(c, t.raw, t.rip);
    seg_touch(c, t.selector, &t.raw);
    enter_code(c, &t, c->s.cpl);
}

/* CS and the return address onto the running stack, then into the code. */
static void call_same(struct x86_vcpu *c, struct far_target *t, unsigned size, uint64_t return_rip)
{
    struct x86_stack st = stack_current(c);
    uint64_t frame[2] = {c->s.seg[X86_CS].selector, return_rip};

    t->rip = seg_check_target(c, t->raw, t->rip);
    seg_touch(c, t->selector, &t->raw);
    stack_push_all(c, &st, frame, 2, size);
    stack_commit(c, &st);
    enter_code(c, t, c->s.cpl);
}

static void call_inner(struct x86_vcpu *c, struct far_target *t, unsigned size,
                       unsigned parameters, uint64_t return_rip)
{
    unsigned cpl = desc_dpl(t->raw), count = 0;
    uint64_t frame[2 + 31 + 2], ss_raw;
    struct x86_stack st = stack_inner(c, cpl, 0, &ss_raw);

    t->rip = seg_check_target(c, t->raw, t->rip);
    frame[count++] = c->s.seg[X86_SS].selector;
    frame[count++] = c->s.reg[X86_RSP];
    for (unsigned n = parameters; n-- > 0;)
        frame[count++] = stack_value(c, n, size, 0);
    frame[count++] = c->s.seg[X86_CS].selector;
    frame[count++] = return_rip;
    seg_touch(c, t->selector, &t->raw);
    if (ss_raw) {
        seg_touch(c, st.ss.selector, &ss_raw);
        seg_fill(&st.ss, st.ss.selector, ss_raw);
    }
    stack_push_all(c, &st, frame, count, size);
    c->s.seg[X86_SS] = st.ss;
    stack_commit(c, &st);
    enter_code(c, t, cpl);
}

void x86_far_call(struct x86_vcpu *c, uint16_t selector, uint64_t offset, unsigned size,
                  uint64_t return_rip)
{
    struct far_target t = {.selector = selector, .rip = zext(offset, size)};
    uint64_t gate;
    unsigned width;

    if (flat_segments(c)) {
        struct x86_stack st = stack_current(c);
        uint64_t frame[2] = {c->s.seg[X86_CS].selector, return_rip};

        if (t.rip > c->s.seg[X86_CS].limit)
            x86_raise_gp(c, 0);
        stack_push_all(c, &st, frame, 2, size);
        stack_commit(c, &st);
        enter_real(c, selector, t.rip);
        return;
    }
    if (selector_null(selector))
        x86_raise_gp(c, 0);
    t.raw = seg_fetch(c, selector, VEC_GP);
    if (desc_code(t.raw)) {
        check_direct(c, &t);
        call_same(c, &t, size, return_rip);
        return;
    }
    if (desc_segment(t.raw))
        seg_raise(c, VEC_GP, selector);
    gate = t.raw;
    if (far_system(c, selector, gate, TASK_CALL, return_rip))
        return;
    t = gate_target(c, selector, gate);
    if (!desc_present(t.raw))
        seg_raise(c, VEC_NP, t.selector);
    width = x86_long_mode(&c->s) ? 8 : desc_type(gate) & SYS_386_BIT ? 4 : 2;
    if (!desc_conforming(t.raw) && desc_dpl(t.raw) < c->s.cpl)
        call_inner(c, &t, width, width == 8 ? 0 : gate >> 32 & 0x1f, return_rip);
    else
        call_same(c, &t, width, return_rip);
}

/* ---- RET ---- */

static void return_real(struct x86_vcpu *c, unsigned size, unsigned pop_bytes)
{
    struct x86_stack st = stack_current(c);
    uint64_t rip = stack_value(c, 0, size, 0);
    uint16_t selector = (uint16_t)stack_value(c, 1, size, 0);

    if (rip > c->s.seg[X86_CS].limit)
        x86_raise_gp(c, 0);
    st.sp += 2 * size + pop_bytes;
    stack_commit(c, &st);
    enter_real(c, selector, rip);
}

/*
 * The stack of an outer level from RET's or IRET's frame: SS null is good for
 * 64-bit code at CPL 0..2 (SDM Vol. 3, 6.14.3); other checks raise #GP(sel).
 */
void seg_outer_stack(struct x86_vcpu *c, struct x86_stack *st, uint16_t selector, unsigned cpl,
                     bool to_64, uint64_t *raw)
{
    *raw = 0;
    if (selector_null(selector)) {
        if (!to_64 || cpl == 3 || (selector & SELECTOR_RPL) != cpl)
            seg_raise(c, VEC_GP, 0);
        seg_fill_null(&st->ss, selector, cpl);
    } else {
        *raw = seg_check_ss(c, selector, cpl, VEC_GP);
        seg_fill(&st->ss, selector, *raw);
    }
    st->long64 = to_64;
    st->user = cpl == 3;
}

/* The code segment that RET or IRET returns to. */
uint64_t seg_return_code(struct x86_vcpu *c, uint16_t selector)
{
    unsigned rpl = selector & SELECTOR_RPL;
    uint64_t raw;

    if (selector_null(selector))
        seg_raise(c, VEC_GP, 0);
    raw = seg_fetch(c, selector, VEC_GP);
    if (!desc_code(raw) || rpl < c->s.cpl ||
        (desc_conforming(raw) ? desc_dpl(raw) > rpl : desc_dpl(raw) != rpl) ||
        (x86_long_mode(&c->s) && (desc_attr(raw) & (SEG_L | SEG_DB)) == (SEG_L | SEG_DB)))
        seg_raise(c, VEC_GP, selector);
    if (!desc_present(raw))
        seg_raise(c, VEC_NP, selector);
    return raw;
}

void x86_far_return(struct x86_vcpu *c, unsigned size, unsigned pop_bytes)
{
    struct far_target t;
    struct x86_stack st;
    uint64_t ss_raw;
    uint16_t ss;
    unsigned cpl;

    if (flat_segments(c)) {
        return_real(c, size, pop_bytes);
        return;
    }
    t.rip = stack_value(c, 0, size, 0);
    t.selector = (uint16_t)stack_value(c, 1, size, 0);
    t.raw = seg_return_code(c, t.selector);
    cpl = t.selector & SELECTOR_RPL;
    if (cpl == c->s.cpl) {
        t.rip = seg_check_target(c, t.raw, t.rip);
        seg_touch(c, t.selector, &t.raw);
        st = stack_current(c);
        st.sp += 2 * size + pop_bytes;
        stack_commit(c, &st);
        enter_code(c, &t, cpl);
        return;
    }
    st = stack_current(c);
    st.sp = stack_value(c, 2, size, pop_bytes);
    ss = (uint16_t)stack_value(c, 3, size, pop_bytes);
    seg_outer_stack(c, &st, ss, cpl, x86_long_mode(&c->s) && desc_code64(t.raw), &ss_raw);
    t.rip = seg_check_target(c, t.raw, t.rip);
    seg_touch(c, t.selector, &t.raw);
    if (ss_raw) {
        seg_touch(c, ss, &ss_raw);
        seg_fill(&st.ss, ss, ss_raw);
    }
    c->s.seg[X86_SS] = st.ss;
    /* The parameters are on both stacks. */
    st.sp += pop_bytes;
    stack_commit(c, &st);
    seg_hide_inner(c, cpl);
    enter_code(c, &t, cpl);
}
