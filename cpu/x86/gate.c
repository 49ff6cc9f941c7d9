/*
 * One event through the IDT, or the vector table of real mode (SDM Vol. 2,
 * "INT n/INTO/INT3/INT1"; Vol. 3, 6.12, 6.14, 20.1.4, 20.3).
 *
 * Nothing is written before the last check, so that an INT n that faults
 * starts again, and a fault in delivery leaves the state as it was.
 *
 * Threading: the processor's own thread.
 */
#include "cpu/x86/seg_internal.h"

struct event_frame {
    enum x86_event_kind kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t return_rip;
    uint64_t flags; /* the image to push */
};

static bool is_software(const struct event_frame *e)
{
    return e->kind == X86_EVENT_SOFT_INT;
}

/* For the report of a triple fault. */
static void note_gate(struct x86_vcpu *c, gva_t gva, uint64_t low, uint64_t high)
{
    struct x86_fault_record *f;

    if (c->fault_depth == 0)
        return;
    f = &c->faults[c->fault_depth - 1];
    f->idt_entry_valid = true;
    f->idt_entry[0] = low;
    f->idt_entry[1] = high;
    f->idt_entry_gva = gva;
}

/* Loads CS:IP from a table of far pointers, as an 8086 does. */
static void through_vector_table(struct x86_vcpu *c, const struct event_frame *e, gva_t entry,
                                 uint64_t flags, uint64_t clear)
{
    struct x86_stack st = stack_current(c);
    uint64_t frame[3] = {flags, c->s.seg[X86_CS].selector, e->return_rip};
    uint32_t pointer = (uint32_t)x86_system_read(c, entry, 4);
    struct x86_seg *cs = &c->s.seg[X86_CS];

    note_gate(c, entry, pointer, 0);
    if ((pointer & 0xffff) > cs->limit)
        seg_raise(c, VEC_GP, 0);
    stack_push_all(c, &st, frame, 3, 2);
    stack_commit(c, &st);
    cs->selector = (uint16_t)(pointer >> 16);
    cs->base = pointer >> 16 << 4;
    c->s.reg[X86_RIP] = pointer & 0xffff;
    flags_set(c, x86_rflags(&c->s) & ~clear);
    x86_state_changed(c);
}

static void real_mode(struct x86_vcpu *c, const struct event_frame *e)
{
    uint32_t at = e->vector * 4u;

    if (at + 3 > c->s.idtr.limit)
        x86_raise_error(c, VEC_GP, at * 2 + ERROR_IDT + (uint32_t)c->delivery_error);
    through_vector_table(c, e, (uint32_t)(c->s.idtr.base + at), e->flags,
                         FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

/*
 * INT n in V86 mode (SDM Vol. 3, table 20-2): true if it was redirected to the
 * 8086 program's own handler.
 */
static bool v86_software(struct x86_vcpu *c, const struct event_frame *e)
{
    const struct x86_seg *tr = &c->s.tr;
    bool own_if = x86_iopl(&c->s) == 3, redirect = false;
    uint64_t flags = e->flags;
    uint32_t at;

    if (c->s.cr4 & CR4_VME) {
        /* 32 bytes below the I/O bitmap. */
        if (!(tr->attr & SYS_386_BIT) || tr->limit < 103)
            seg_raise(c, VEC_GP, 0);
        at = (uint32_t)x86_system_read(c, tr->base + 102, 2) - 32 + e->vector / 8;
        if (at > tr->limit)
            seg_raise(c, VEC_GP, 0);
        redirect = !(x86_system_read(c, tr->base + at, 1) >> (e->vector & 7) & 1);
    }
    if (!redirect) {
        if (!own_if)
            seg_raise(c, VEC_GP, 0);
        return false;
    }
    if (!own_if) {
        flags = (flags & ~(uint64_t)FLAG_IF) | FLAG_IOPL;
        if (flags & FLAG_VIF)
            flags |= FLAG_IF;
    }
    through_vector_table(c, e, e->vector * 4u, flags,
                         FLAG_TF | FLAG_RF | (own_if ? FLAG_IF : FLAG_VIF));
    return true;
}

/* The code segment of a gate; raises what forbids entering it. */
static uint64_t gate_code(struct x86_vcpu *c, uint16_t selector)
{
    bool long_mode = x86_long_mode(&c->s);
    uint64_t raw;

    if (selector_null(selector))
        seg_raise(c, VEC_GP, 0);
    raw = seg_fetch(c, selector, VEC_GP);
    if (!desc_code(raw) || desc_dpl(raw) > c->s.cpl ||
        (long_mode && (desc_attr(raw) & (SEG_L | SEG_DB)) != SEG_L))
        seg_raise(c, VEC_GP, selector);
    if (!desc_present(raw))
        seg_raise(c, VEC_NP, selector);
    /* From V86 mode only to level 0, and not by conforming code. */
    if (x86_v86_mode(&c->s) && (desc_conforming(raw) || desc_dpl(raw) != 0))
        seg_raise(c, VEC_GP, selector);
    return raw;
}

static void through_gate(struct x86_vcpu *c, const struct event_frame *e, uint64_t gate,
                         uint64_t gate_high)
{
    static const uint8_t v86_data[] = {X86_GS, X86_FS, X86_DS, X86_ES};
    bool long_mode = x86_long_mode(&c->s), v86 = x86_v86_mode(&c->s), inner, trap;
    unsigned size = long_mode ? 8 : desc_type(gate) & SYS_386_BIT ? 4 : 2;
    unsigned ist = long_mode ? gate >> 32 & 7 : 0, cpl = c->s.cpl, count = 0;
    uint16_t selector = gate_selector(gate);
    uint64_t rip = gate_offset(gate) | (long_mode ? gate_high << 32 : 0);
    uint64_t frame[10], raw = gate_code(c, selector), ss_raw = 0;
    struct x86_stack st;

    inner = !desc_conforming(raw) && desc_dpl(raw) < cpl;
    if (inner)
        cpl = desc_dpl(raw);
    if (inner || ist) {
        st = stack_inner(c, cpl, ist, &ss_raw);
        if (!inner)
            st.ss = c->s.seg[X86_SS]; /* only RSP comes from the IST then */
    } else {
        st = stack_current(c);
        st.long64 = long_mode;
    }
    if (long_mode) {
        if (!x86_is_canonical(c, st.sp))
            seg_raise(c, VEC_SS, 0);
        st.sp &= ~15ull;
    }

    if (v86) {
        for (unsigned n = 0; n < ARRAY_SIZE(v86_data); n++)
            frame[count++] = c->s.seg[v86_data[n]].selector;
    }
    if (inner || long_mode) {
        frame[count++] = c->s.seg[X86_SS].selector;
        frame[count++] = c->s.reg[X86_RSP];
    }
    frame[count++] = e->flags;
    frame[count++] = c->s.seg[X86_CS].selector;
    frame[count++] = e->return_rip;
    if (e->has_error)
        frame[count++] = e->error;

    rip = seg_check_target(c, raw, rip);
    seg_touch(c, selector, &raw);
    if (ss_raw) {
        seg_touch(c, st.ss.selector, &ss_raw);
        seg_fill(&st.ss, st.ss.selector, ss_raw);
    }
    stack_push_all(c, &st, frame, count, size);

    trap = desc_type(gate) & 1;
    flags_set(c, x86_rflags(&c->s) & ~(uint64_t)(FLAG_TF | FLAG_NT | FLAG_VM | FLAG_RF) &
                     ~(trap ? 0ull : (uint64_t)FLAG_IF));
    if (v86) {
        for (unsigned n = 0; n < ARRAY_SIZE(v86_data); n++)
            seg_fill_null(&c->s.seg[v86_data[n]], 0, 0);
    }
    if (inner)
        c->s.seg[X86_SS] = st.ss;
    stack_commit(c, &st);
    seg_fill(&c->s.seg[X86_CS], (uint16_t)((selector & ~SELECTOR_RPL) | cpl), raw);
    c->s.cpl = (uint8_t)cpl;
    c->s.reg[X86_RIP] = rip;
    x86_state_changed(c);
}

static void protected_mode(struct x86_vcpu *c, const struct event_frame *e)
{
    bool long_mode = x86_long_mode(&c->s);
    unsigned bytes = long_mode ? 16 : 8, type;
    uint32_t at = e->vector * bytes;
    uint32_t error = e->vector * 8u + ERROR_IDT + (uint32_t)c->delivery_error;
    uint64_t gate, high = 0;
    gva_t gva = c->s.idtr.base + at;

    if (at + bytes - 1 > c->s.idtr.limit)
        x86_raise_error(c, VEC_GP, error);
    gate = x86_system_read(c, gva, 8);
    if (long_mode)
        high = x86_system_read(c, gva + 8, 8);
    note_gate(c, gva, gate, high);
    type = desc_type(gate);
    if (desc_segment(gate) || (long_mode && (high >> 40 & 0x1f)) ||
        !(type == SYS_INT_GATE32 || type == SYS_TRAP_GATE32 ||
          (!long_mode && (type == SYS_INT_GATE16 || type == SYS_TRAP_GATE16 ||
                          type == SYS_TASK_GATE))))
        x86_raise_error(c, VEC_GP, error);
    if (is_software(e) && desc_dpl(gate) < c->s.cpl)
        x86_raise_error(c, VEC_GP, error);
    if (!desc_present(gate))
        x86_raise_error(c, VEC_NP, error);
    if (type == SYS_TASK_GATE)
        task_switch(c, gate_selector(gate), TASK_INTERRUPT, e->return_rip, e->has_error, e->error,
                    e->flags & FLAG_RF);
    else
        through_gate(c, e, gate, high);
}

void x86_interrupt(struct x86_vcpu *c, enum x86_event_kind kind, uint8_t vector, bool has_error,
                   uint32_t error, uint64_t return_rip)
{
    struct event_frame e = {
        .kind = kind,
        .vector = vector,
        .has_error = has_error,
        .error = error,
        .return_rip = return_rip,
        .flags = x86_event_flags(c, kind),
    };
    /* INT3 and INTO are never redirected: their vectors say which they are
     * together with the mark that the binder leaves on them. */
    bool int_n = kind == X86_EVENT_SOFT_INT && c->cur->aux != X86_INT_NOT_REDIRECTED;

    c->delivery_error = kind == X86_EVENT_SOFT_INT ? 0 : ERROR_EXT;
    if (kind == X86_EVENT_SOFT_INT || kind == X86_EVENT_INT1)
        x86_step_override(c, false); /* TF is cleared on the way */

    if (event_through_gate64(c, vector, is_software(&e), has_error, error, return_rip, e.flags)) {
        c->delivery_error = 0;
        return;
    }
    if (x86_real_mode(&c->s))
        real_mode(c, &e);
    else if (!(int_n && x86_v86_mode(&c->s) && v86_software(c, &e)))
        protected_mode(c, &e);
    c->delivery_error = 0;
}
