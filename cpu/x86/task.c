/*
 * Hardware task switching (SDM Vol. 3, chapter 7).
 *
 * The order of 7.3: everything that can be checked in the old task's context
 * is checked, and every page that will be touched is walked, before the first
 * byte is written. Then the old task is saved, TR and the registers become
 * the new task's, and what goes wrong from there on (CR3, LDT, segments, the
 * push of an error code) is a fault of the new task at its first instruction.
 *
 * Threading: the processor's own thread.
 */
#include "cpu/x86/seg_internal.h"

struct tss_layout {
    uint8_t width; /* of a register */
    uint8_t ip, flags, gpr, seg, ldt;
    uint8_t segs;      /* how many segment registers it holds */
    uint8_t saved_end; /* last byte that the processor writes */
    uint16_t limit;    /* the least it may have (7.2.2, 7.6) */
};

enum tss32_field { TSS32_CR3 = 0x1c, TSS32_TRAP = 0x64 };

static const struct tss_layout tss16 = {2, 0x0e, 0x10, 0x12, 0x22, 0x2a, 4, 0x29, 0x2b};
static const struct tss_layout tss32 = {4, 0x20, 0x24, 0x28, 0x48, 0x60, 6, 0x5d, 0x67};

struct tss_image {
    const struct tss_layout *layout;
    uint32_t cr3, eip, eflags;
    uint32_t gpr[8];
    uint16_t seg[X86_SEG_COUNT], ldt;
    bool trap;
};

static const struct tss_layout *layout_of(uint32_t type)
{
    return type & SYS_386_BIT ? &tss32 : &tss16;
}

/* Every page of [base + from, base + to] can be read, or read and written. */
static void probe(struct x86_vcpu *c, gva_t base, unsigned from, unsigned to, bool write)
{
    for (gva_t at = base + from;; at = MIN(align_down(at, PAGE_SIZE) + PAGE_SIZE, base + to)) {
        if (write)
            x86_system_or8(c, at, 0);
        else
            x86_system_read(c, at, 1);
        if (at == base + to)
            break;
    }
}

/* The descriptor of the task to switch to; *gva is where it lies. */
static uint64_t new_task(struct x86_vcpu *c, uint16_t selector, enum x86_task_reason reason,
                         gva_t *gva)
{
    enum x86_vector bad = reason == TASK_IRET ? VEC_TS : VEC_GP;
    uint64_t raw;
    unsigned type;

    if (selector_null(selector) || (selector & SELECTOR_TI) ||
        !seg_locate(c, selector, 8, gva))
        seg_raise(c, bad, selector);
    raw = x86_system_read(c, *gva, 8);
    type = desc_type(raw) & ~(unsigned)SYS_386_BIT;
    if (desc_segment(raw) || type != (reason == TASK_IRET ? SYS_TSS16_BUSY : SYS_TSS16))
        seg_raise(c, bad, selector);
    if (!desc_present(raw))
        seg_raise(c, VEC_NP, selector);
    if (desc_limit(raw) < layout_of(desc_type(raw))->limit)
        seg_raise(c, VEC_TS, selector);
    return raw;
}

static void save_task(struct x86_vcpu *c, const struct tss_layout *l, uint64_t eip,
                      uint64_t eflags)
{
    gva_t base = c->s.tr.base;

    x86_system_write(c, base + l->ip, eip, l->width);
    x86_system_write(c, base + l->flags, eflags, l->width);
    for (unsigned n = 0; n < 8; n++)
        x86_system_write(c, base + l->gpr + n * l->width, c->s.reg[n], l->width);
    for (unsigned n = 0; n < l->segs; n++)
        x86_system_write(c, base + l->seg + n * l->width, c->s.seg[n].selector, 2);
}

static void read_task(struct x86_vcpu *c, gva_t base, struct tss_image *t)
{
    const struct tss_layout *l = t->layout;

    t->eip = (uint32_t)x86_system_read(c, base + l->ip, l->width);
    t->eflags = (uint32_t)x86_system_read(c, base + l->flags, l->width);
    for (unsigned n = 0; n < 8; n++) {
        t->gpr[n] = (uint32_t)x86_system_read(c, base + l->gpr + n * l->width, l->width);
        if (l->width == 2)
            t->gpr[n] |= 0xffff0000; /* undefined; what processors leave there */
    }
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        t->seg[n] = n < l->segs ? (uint16_t)x86_system_read(c, base + l->seg + n * l->width, 2) : 0;
    t->ldt = (uint16_t)x86_system_read(c, base + l->ldt, 2);
    t->cr3 = 0;
    t->trap = false;
    if (l == &tss32) {
        t->cr3 = (uint32_t)x86_system_read(c, base + TSS32_CR3, 4);
        t->trap = x86_system_read(c, base + TSS32_TRAP, 1) & 1;
    }
}

/* ---- in the new task's context ---- */

static void load_ldt(struct x86_vcpu *c, uint16_t selector)
{
    uint64_t raw;

    if (selector_null(selector))
        return;
    if (selector & SELECTOR_TI)
        seg_raise(c, VEC_TS, selector);
    raw = seg_fetch(c, selector, VEC_TS);
    if (desc_segment(raw) || desc_type(raw) != SYS_LDT || !desc_present(raw))
        seg_raise(c, VEC_TS, selector);
    seg_fill(&c->s.ldtr, selector, raw);
}

static void load_ss(struct x86_vcpu *c, uint16_t selector)
{
    uint64_t raw = seg_check_ss(c, selector, c->s.cpl, VEC_TS);

    seg_touch(c, selector, &raw);
    seg_fill(&c->s.seg[X86_SS], selector, raw);
}

/* The order of table 7-1: the code segment's DPL before the stack, the rest of
 * it behind. */
static void check_cs_level(struct x86_vcpu *c, uint16_t selector)
{
    unsigned rpl = selector & SELECTOR_RPL;
    uint64_t raw;
    gva_t gva;

    if (selector_null(selector) || !seg_locate(c, selector, 8, &gva))
        return;
    raw = x86_system_read(c, gva, 8);
    if (desc_code(raw) && (desc_conforming(raw) ? desc_dpl(raw) > rpl : desc_dpl(raw) != rpl))
        seg_raise(c, VEC_TS, selector);
}

static uint64_t load_cs(struct x86_vcpu *c, uint16_t selector)
{
    uint64_t raw;

    if (selector_null(selector))
        seg_raise(c, VEC_TS, selector);
    raw = seg_fetch(c, selector, VEC_TS);
    if (!desc_code(raw))
        seg_raise(c, VEC_TS, selector);
    if (!desc_present(raw))
        seg_raise(c, VEC_NP, selector);
    seg_touch(c, selector, &raw);
    seg_fill(&c->s.seg[X86_CS], selector, raw);
    return raw;
}

static void load_data(struct x86_vcpu *c, enum x86_seg_index seg, uint16_t selector)
{
    unsigned rpl = selector & SELECTOR_RPL;
    uint64_t raw;

    if (selector_null(selector))
        return;
    raw = seg_fetch(c, selector, VEC_TS);
    if (!desc_segment(raw) || (desc_code(raw) && !(desc_attr(raw) & SEG_READABLE)))
        seg_raise(c, VEC_TS, selector);
    if (!(desc_code(raw) && desc_conforming(raw)) &&
        (rpl > desc_dpl(raw) || c->s.cpl > desc_dpl(raw)))
        seg_raise(c, VEC_TS, selector);
    if (!desc_present(raw))
        seg_raise(c, VEC_NP, selector);
    seg_touch(c, selector, &raw);
    seg_fill(&c->s.seg[seg], selector, raw);
}

/* Registers, and selectors without their descriptors: nothing here can fail. */
static void become(struct x86_vcpu *c, const struct tss_image *t)
{
    bool v86 = t->eflags & FLAG_VM;

    for (unsigned n = 0; n < 8; n++)
        c->s.reg[n] = t->gpr[n];
    flags_set(c, t->eflags & (FLAG_STATUS | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT |
                              FLAG_RF | FLAG_VM | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID));
    c->s.cpl = v86 ? 3 : t->seg[X86_CS] & SELECTOR_RPL;
    for (unsigned n = 0; n < X86_SEG_COUNT; n++) {
        if (v86) {
            seg_fill_v86(&c->s.seg[n], t->seg[n]);
        } else {
            seg_fill_null(&c->s.seg[n], t->seg[n], c->s.cpl);
            /* A fault before CS is loaded reports all of EIP. */
            if (t->layout == &tss32)
                c->s.seg[n].attr |= SEG_DB;
        }
    }
    seg_fill_null(&c->s.ldtr, t->ldt, 0);
    /* A fault's RIP is counted from the instruction that is executing. */
    c->s.reg[X86_RIP] = t->eip - (uint64_t)c->cur->offset;
    x86_state_changed(c);
}

static void load_segments(struct x86_vcpu *c, const struct tss_image *t)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    uint64_t raw;

    load_ldt(c, t->ldt);
    if (t->eflags & FLAG_VM) {
        if (t->eip > 0xffff)
            seg_raise(c, VEC_GP, 0);
        return;
    }
    check_cs_level(c, t->seg[X86_CS]);
    load_ss(c, t->seg[X86_SS]);
    raw = load_cs(c, t->seg[X86_CS]);
    x86_state_changed(c);
    for (unsigned n = 0; n < ARRAY_SIZE(data); n++) {
        load_data(c, data[n], t->seg[data[n]]);
        x86_seg_changed(c, data[n]);
    }
    seg_check_target(c, raw, t->eip);
}

/* ---- the switch ---- */

void task_switch(struct x86_vcpu *c, uint16_t selector, enum x86_task_reason reason,
                 uint64_t return_rip, bool has_error, uint32_t error, bool rf)
{
    const struct tss_layout *old = layout_of(c->s.tr.attr);
    bool nests = reason == TASK_CALL || reason == TASK_INTERRUPT;
    uint64_t flags = x86_rflags(&c->s), raw;
    uint16_t old_selector = c->s.tr.selector;
    gva_t gva, old_gva, base;
    struct tss_image t;
    bool have_old;

    raw = new_task(c, selector, reason, &gva);
    base = desc_base(raw);
    t.layout = layout_of(desc_type(raw));
    if (c->s.tr.limit < old->saved_end)
        seg_raise(c, VEC_TS, old_selector);
    have_old = !selector_null(old_selector) && seg_locate(c, old_selector, 8, &old_gva);

    probe(c, c->s.tr.base, old->ip, old->saved_end, true);
    probe(c, base, 0, t.layout->limit, false);
    if (nests)
        probe(c, base, 0, 1, true);
    if (reason == TASK_IRET)
        flags &= ~(uint64_t)FLAG_NT;
    else
        x86_system_or8(c, gva + 5, 0);
    if (have_old && !nests)
        x86_system_or8(c, old_gva + 5, 0);

    /* The point of no return. */
    save_task(c, old, return_rip, rf ? flags | FLAG_RF : flags);
    if (have_old && !nests && old_gva != gva) {
        uint8_t type = (uint8_t)x86_system_read(c, old_gva + 5, 1);
        x86_system_write(c, old_gva + 5, type & ~(unsigned)SYS_TSS_BUSY_BIT, 1);
    }
    read_task(c, base, &t);
    if (nests) {
        x86_system_write(c, base, old_selector, 2);
        t.eflags |= FLAG_NT;
    }
    if (reason != TASK_IRET) {
        x86_system_or8(c, gva + 5, SYS_TSS_BUSY_BIT);
        raw |= (uint64_t)SYS_TSS_BUSY_BIT << 40;
    }
    seg_fill(&c->s.tr, selector, raw);
    c->s.cr0 |= CR0_TS;
    c->s.dr7 &= ~(uint64_t)(DR7_LOCAL | DR7_LE);

    become(c, &t);
    if (t.layout == &tss32 && (c->s.cr0 & CR0_PG))
        x86_load_cr3(c, t.cr3);
    load_segments(c, &t);
    if (has_error) {
        struct x86_stack st = stack_current(c);
        uint64_t value = error;

        stack_push_all(c, &st, &value, 1, t.layout->width);
        stack_commit(c, &st);
    }
    c->s.reg[X86_RIP] = t.eip;
    if (t.trap)
        c->s.pending_db |= DR6_BT;
    x86_state_changed(c);
    seg_recheck(c);
}

void x86_task_switch(struct x86_vcpu *c, uint16_t tss_selector, enum x86_task_reason reason,
                     uint64_t return_rip, bool has_error, uint32_t error)
{
    task_switch(c, tss_selector, reason, return_rip, has_error, error, false);
}
