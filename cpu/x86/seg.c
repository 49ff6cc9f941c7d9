/*
 * Segment registers and descriptors (SDM Vol. 3, chapters 3 and 5): loading,
 * LLDT and LTR, LAR LSL VERR VERW, the I/O permission bitmap (Vol. 1, 19.5.2),
 * and writing RFLAGS. Interface in seg.h; what other files of transfers need,
 * in seg_internal.h.
 *
 * Threading: the processor's own thread.
 */
#include "cpu/x86/seg_internal.h"

/* ---- reading descriptors ---- */

void seg_raise(struct x86_vcpu *c, enum x86_vector vector, uint32_t selector)
{
    x86_raise_error(c, vector, (selector & 0xfffc) | (uint32_t)c->delivery_error);
}

bool seg_locate(const struct x86_vcpu *c, uint16_t selector, unsigned bytes, gva_t *gva)
{
    uint32_t offset = selector & 0xfff8u;

    if (selector & SELECTOR_TI) {
        const struct x86_seg *ldt = &c->s.ldtr;

        if ((ldt->attr & SEG_UNUSABLE) || offset + bytes - 1 > ldt->limit)
            return false;
        *gva = ldt->base + offset;
    } else {
        if (offset + bytes - 1 > c->s.gdtr.limit)
            return false;
        *gva = c->s.gdtr.base + offset;
    }
    return true;
}

uint64_t seg_fetch(struct x86_vcpu *c, uint16_t selector, enum x86_vector vector)
{
    gva_t gva;

    if (!seg_locate(c, selector, 8, &gva))
        seg_raise(c, vector, selector);
    return x86_system_read(c, gva, 8);
}

uint64_t seg_fetch_upper(struct x86_vcpu *c, uint16_t selector, enum x86_vector vector)
{
    uint64_t upper;
    gva_t gva;

    if (!seg_locate(c, selector, 16, &gva))
        seg_raise(c, vector, selector);
    upper = x86_system_read(c, gva + 8, 8);
    if (upper >> 40 & 0x1f)
        seg_raise(c, vector, selector);
    return upper;
}

void seg_touch(struct x86_vcpu *c, uint16_t selector, uint64_t *raw)
{
    gva_t gva;

    if ((desc_attr(*raw) & SEG_ACCESSED) || !seg_locate(c, selector, 8, &gva))
        return;
    x86_system_or8(c, gva + 5, SEG_ACCESSED);
    *raw |= (uint64_t)SEG_ACCESSED << 40;
}

void seg_fill(struct x86_seg *s, uint16_t selector, uint64_t raw)
{
    s->selector = selector;
    s->base = desc_base(raw);
    s->limit = desc_limit(raw);
    s->attr = desc_attr(raw);
}

void seg_fill_null(struct x86_seg *s, uint16_t selector, unsigned dpl)
{
    s->selector = selector;
    s->base = 0;
    s->limit = 0;
    s->attr = SEG_UNUSABLE | dpl << SEG_DPL_SHIFT;
}

void seg_fill_v86(struct x86_seg *s, uint16_t selector)
{
    s->selector = selector;
    s->base = (uint32_t)selector << 4;
    s->limit = 0xffff;
    s->attr = SEG_P | SEG_S | SEG_DPL | SEG_WRITABLE | SEG_ACCESSED;
}

uint64_t seg_check_target(struct x86_vcpu *c, uint64_t raw, uint64_t rip)
{
    if (x86_long_mode(&c->s) && desc_code64(raw)) {
        if (!x86_is_canonical(c, rip))
            seg_raise(c, VEC_GP, 0);
        return rip;
    }
    if ((uint32_t)rip > desc_limit(raw))
        seg_raise(c, VEC_GP, 0);
    return (uint32_t)rip;
}

/* ---- MOV, POP, LxS ---- */

void x86_load_seg_real(struct x86_vcpu *c, enum x86_seg_index seg, uint16_t selector)
{
    struct x86_seg *s = &c->s.seg[seg];

    /* Limit and attributes stay as protected mode left them ("big real mode"),
     * unless it left nothing. */
    if (x86_v86_mode(&c->s) || (s->attr & SEG_UNUSABLE)) {
        seg_fill_v86(s, selector);
        if (!x86_v86_mode(&c->s))
            s->attr &= ~(uint32_t)SEG_DPL;
        x86_state_changed(c);
    } else {
        s->selector = selector;
        s->base = (uint32_t)selector << 4;
    }
    x86_seg_changed(c, seg);
}

uint64_t seg_check_ss(struct x86_vcpu *c, uint16_t selector, unsigned cpl, enum x86_vector vector)
{
    uint64_t raw;

    if (selector_null(selector))
        seg_raise(c, vector, 0);
    raw = seg_fetch(c, selector, vector);
    if ((selector & SELECTOR_RPL) != cpl || !desc_writable_data(raw) || desc_dpl(raw) != cpl)
        seg_raise(c, vector, selector);
    if (!desc_present(raw))
        seg_raise(c, VEC_SS, selector);
    return raw;
}

static void load_ss(struct x86_vcpu *c, uint16_t selector)
{
    struct x86_seg *s = &c->s.seg[X86_SS];
    uint64_t raw;

    if (selector_null(selector)) {
        /* A null SS is good for 64-bit code of inner rings. */
        if (!x86_64bit_mode(&c->s) || c->s.cpl == 3 || (selector & SELECTOR_RPL) != c->s.cpl)
            x86_raise_gp(c, 0);
        seg_fill_null(s, selector, c->s.cpl);
    } else {
        raw = seg_check_ss(c, selector, c->s.cpl, VEC_GP);
        seg_touch(c, selector, &raw);
        seg_fill(s, selector, raw);
    }
    x86_state_changed(c); /* the stack's width is derived, too */
}

void x86_load_seg(struct x86_vcpu *c, enum x86_seg_index seg, uint16_t selector)
{
    unsigned rpl = selector & SELECTOR_RPL;
    uint64_t raw;

    if (x86_real_mode(&c->s) || x86_v86_mode(&c->s)) {
        x86_load_seg_real(c, seg, selector);
        return;
    }
    if (seg == X86_SS) {
        load_ss(c, selector);
        return;
    }
    if (selector_null(selector)) {
        seg_fill_null(&c->s.seg[seg], selector, 0);
        x86_seg_changed(c, seg);
        return;
    }
    raw = seg_fetch(c, selector, VEC_GP);
    if (!desc_segment(raw) || (desc_code(raw) && !(desc_attr(raw) & SEG_READABLE)))
        seg_raise(c, VEC_GP, selector);
    if (!(desc_code(raw) && desc_conforming(raw)) &&
        (rpl > desc_dpl(raw) || c->s.cpl > desc_dpl(raw)))
        seg_raise(c, VEC_GP, selector);
    if (!desc_present(raw))
        seg_raise(c, VEC_NP, selector);
    seg_touch(c, selector, &raw);
    seg_fill(&c->s.seg[seg], selector, raw);
    x86_seg_changed(c, seg);
}

void seg_hide_inner(struct x86_vcpu *c, unsigned cpl)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned n = 0; n < ARRAY_SIZE(data); n++) {
        struct x86_seg *s = &c->s.seg[data[n]];
        bool conforming = (s->attr & (SEG_CODE | SEG_CONFORMING)) == (SEG_CODE | SEG_CONFORMING);

        /* A null selector loses its RPL and keeps its base, which FS and GS
         * of 64-bit programs have from an MSR. */
        if (s->attr & SEG_UNUSABLE)
            s->selector = 0;
        else if (!conforming && (s->attr & SEG_DPL) >> SEG_DPL_SHIFT < cpl)
            seg_fill_null(s, 0, 0);
    }
}

/* ---- LLDT, LTR ---- */

/* The base of a system segment: 64 bits wide in long mode. */
static uint64_t system_base(struct x86_vcpu *c, uint16_t selector, uint64_t raw)
{
    uint64_t base = desc_base(raw);

    if (x86_long_mode(&c->s)) {
        base |= seg_fetch_upper(c, selector, VEC_GP) << 32;
        if (!x86_is_canonical(c, base))
            seg_raise(c, VEC_GP, selector);
    }
    return base;
}

void x86_lldt(struct x86_vcpu *c, uint16_t selector)
{
    uint64_t raw, base;

    if (c->s.cpl != 0)
        x86_raise_gp(c, 0);
    if (selector_null(selector)) {
        seg_fill_null(&c->s.ldtr, selector, 0);
        return;
    }
    if (selector & SELECTOR_TI)
        seg_raise(c, VEC_GP, selector);
    raw = seg_fetch(c, selector, VEC_GP);
    if (desc_segment(raw) || desc_type(raw) != SYS_LDT)
        seg_raise(c, VEC_GP, selector);
    if (!desc_present(raw))
        seg_raise(c, VEC_NP, selector);
    base = system_base(c, selector, raw);
    seg_fill(&c->s.ldtr, selector, raw);
    c->s.ldtr.base = base;
}

void x86_ltr(struct x86_vcpu *c, uint16_t selector)
{
    uint64_t raw, base;
    gva_t gva;

    if (c->s.cpl != 0 || selector_null(selector))
        x86_raise_gp(c, 0);
    if ((selector & SELECTOR_TI) || !seg_locate(c, selector, 8, &gva))
        seg_raise(c, VEC_GP, selector);
    raw = x86_system_read(c, gva, 8);
    if (desc_segment(raw) || !(desc_type(raw) == SYS_TSS32 ||
                               (desc_type(raw) == SYS_TSS16 && !x86_long_mode(&c->s))))
        seg_raise(c, VEC_GP, selector);
    if (!desc_present(raw))
        seg_raise(c, VEC_NP, selector);
    base = system_base(c, selector, raw);
    x86_system_or8(c, gva + 5, SYS_TSS_BUSY_BIT);
    seg_fill(&c->s.tr, selector, raw | (uint64_t)SYS_TSS_BUSY_BIT << 40);
    c->s.tr.base = base;
}

/* ---- LAR, LSL, VERR, VERW ---- */

/* Finds a descriptor that the program may know about; system: a set of system
 * types, as bits, that are valid. */
static bool descriptor_visible(struct x86_vcpu *c, uint16_t selector, uint32_t system,
                               uint64_t *raw)
{
    unsigned rpl = selector & SELECTOR_RPL;
    gva_t gva;

    if (selector_null(selector) || !seg_locate(c, selector, 8, &gva))
        return false;
    *raw = x86_system_read(c, gva, 8);
    if (!desc_segment(*raw)) {
        if (!(system >> desc_type(*raw) & 1))
            return false;
        if (x86_long_mode(&c->s)) {
            if (!seg_locate(c, selector, 16, &gva) ||
                (x86_system_read(c, gva + 8, 8) >> 40 & 0x1f))
                return false;
        }
    }
    if (desc_code(*raw) && desc_conforming(*raw))
        return true;
    return c->s.cpl <= desc_dpl(*raw) && rpl <= desc_dpl(*raw);
}

bool x86_lar(struct x86_vcpu *c, uint16_t selector, uint32_t *rights)
{
    enum {
        ANY = 1 << SYS_LDT | 1 << SYS_TSS32 | 1 << SYS_TSS32_BUSY | 1 << SYS_CALL_GATE32,
        LEGACY = ANY | 1 << SYS_TSS16 | 1 << SYS_TSS16_BUSY | 1 << SYS_CALL_GATE16 |
                 1 << SYS_TASK_GATE,
    };
    uint64_t raw;

    if (!descriptor_visible(c, selector, x86_long_mode(&c->s) ? ANY : LEGACY, &raw))
        return false;
    /* Bits 16..19 are undefined; processors leave those of the limit. */
    *rights = raw >> 32 & 0x00ffff00;
    return true;
}

bool x86_lsl(struct x86_vcpu *c, uint16_t selector, uint32_t *limit)
{
    enum {
        ANY = 1 << SYS_LDT | 1 << SYS_TSS32 | 1 << SYS_TSS32_BUSY,
        LEGACY = ANY | 1 << SYS_TSS16 | 1 << SYS_TSS16_BUSY,
    };
    uint64_t raw;

    if (!descriptor_visible(c, selector, x86_long_mode(&c->s) ? ANY : LEGACY, &raw))
        return false;
    *limit = desc_limit(raw);
    return true;
}

bool x86_verify(struct x86_vcpu *c, uint16_t selector, bool write)
{
    uint64_t raw;

    if (!descriptor_visible(c, selector, 0, &raw))
        return false;
    if (write)
        return desc_writable_data(raw);
    return !desc_code(raw) || (desc_attr(raw) & SEG_READABLE);
}

/* ---- stacks ---- */

struct x86_stack stack_current(const struct x86_vcpu *c)
{
    return (struct x86_stack){
        .ss = c->s.seg[X86_SS],
        .sp = c->s.reg[X86_RSP],
        .long64 = x86_64bit_mode(&c->s),
        .user = c->s.cpl == 3,
    };
}

/* The linear address of size bytes at offset; raises #SS. */
static gva_t stack_linear(struct x86_vcpu *c, const struct x86_stack *st, uint64_t offset,
                          unsigned size)
{
    uint64_t last = offset + size - 1;

    if (st->long64) {
        if (!x86_is_canonical(c, offset) || !x86_is_canonical(c, last))
            seg_raise(c, VEC_SS, st->error);
        return offset;
    }
    if ((st->ss.attr & SEG_UNUSABLE) && !x86_real_mode(&c->s))
        seg_raise(c, VEC_SS, st->error);
    if ((st->ss.attr & (SEG_CODE | SEG_EXPAND_DOWN)) == SEG_EXPAND_DOWN) {
        if (offset <= st->ss.limit || last > (st->ss.attr & SEG_DB ? 0xffffffff : 0xffff))
            seg_raise(c, VEC_SS, st->error);
    } else if (last > st->ss.limit && st->ss.limit != 0xffffffff) {
        seg_raise(c, VEC_SS, st->error);
    }
    return (uint32_t)(st->ss.base + offset);
}

void stack_push_all(struct x86_vcpu *c, struct x86_stack *st, const uint64_t *values,
                    unsigned count, unsigned size)
{
    uint64_t mask = stack_mask(st), sp = st->sp & mask;
    bool aligned_only = st->user && c->s.cpl == 3 && (c->s.cr0 & CR0_AM) && (c->s.rflags & FLAG_AC);
    unsigned total = count * size;
    gva_t lin[48];

    for (unsigned n = 0; n < count; n++) {
        sp = (sp - size) & mask;
        lin[n] = stack_linear(c, st, sp, size);
        if (aligned_only && (lin[n] & (size - 1)))
            x86_raise_error(c, VEC_AC, 0);
    }
    /* In the order of the pushes: CR2 is the address of the first that fails.
     * Where all lie in one page, the first speaks for them. */
    if (count && lin[0] - lin[count - 1] == total - size &&
        (lin[count - 1] & ~PAGE_MASK) + total <= PAGE_SIZE) {
        x86_lin_probe_write(c, lin[0], size, st->user);
    } else {
        for (unsigned n = 0; n < count; n++)
            x86_lin_probe_write(c, lin[n], size, st->user);
    }
    for (unsigned n = 0; n < count; n++) {
        x86_lin_write(c, lin[n], zext(values[n], size), size, st->user);
        if (unlikely(x86_any_breakpoint(&c->s)))
            x86_data_breakpoint(c, lin[n], size, true);
    }
    if (mask == 0xffff)
        st->sp = (st->sp & ~mask) | sp;
    else
        st->sp = sp;
}

uint64_t stack_value(struct x86_vcpu *c, unsigned n, unsigned size, unsigned skip)
{
    return x86_read(c, X86_SS, (c->s.reg[X86_RSP] + skip + n * size) & c->sp_mask, size);
}

struct x86_stack stack_inner(struct x86_vcpu *c, unsigned cpl, unsigned ist, uint64_t *ss_raw)
{
    const struct x86_seg *tr = &c->s.tr;
    struct x86_stack st = {.user = cpl == 3};
    unsigned at, bytes;
    uint16_t selector;

    *ss_raw = 0;
    if (x86_long_mode(&c->s)) {
        at = ist ? 28 + 8 * ist : 4 + 8 * cpl;
        if (at + 7 > tr->limit)
            seg_raise(c, VEC_TS, tr->selector);
        st.sp = x86_system_read(c, tr->base + at, 8);
        st.long64 = true;
        seg_fill_null(&st.ss, (uint16_t)cpl, cpl);
        return st;
    }
    bytes = tr->attr & SYS_386_BIT ? 4 : 2;
    at = bytes == 4 ? 4 + 8 * cpl : 2 + 4 * cpl;
    if (at + bytes + 1 > tr->limit)
        seg_raise(c, VEC_TS, tr->selector);
    st.sp = x86_system_read(c, tr->base + at, bytes);
    selector = (uint16_t)x86_system_read(c, tr->base + at + bytes, 2);
    *ss_raw = seg_check_ss(c, selector, cpl, VEC_TS);
    seg_fill(&st.ss, selector, *ss_raw);
    st.error = selector;
    return st;
}

/* ---- I/O permission ---- */

void x86_check_io(struct x86_vcpu *c, uint16_t port, unsigned size)
{
    const struct x86_seg *tr = &c->s.tr;
    uint32_t map, bits;

    if (x86_real_mode(&c->s) || (!x86_v86_mode(&c->s) && c->s.cpl <= x86_iopl(&c->s)))
        return;
    /* Only 32- and 64-bit TSSs have a bitmap; its base is their last field. */
    if ((tr->attr & SEG_UNUSABLE) || !(tr->attr & SYS_386_BIT) || tr->limit < 103)
        x86_raise_gp(c, 0);
    map = (uint32_t)x86_system_read(c, tr->base + 102, 2) + port / 8;
    /* Two bytes are read always, since a range of ports may cross into the
     * second; so the map needs a byte behind its last one. */
    if (map + 1 > tr->limit)
        x86_raise_gp(c, 0);
    bits = (uint32_t)x86_system_read(c, tr->base + map, 2);
    if (bits >> (port & 7) & ((1u << size) - 1))
        x86_raise_gp(c, 0);
}

/* ---- RFLAGS ---- */

void x86_write_rflags(struct x86_vcpu *c, uint64_t value, uint64_t mask)
{
    uint64_t old = x86_rflags(&c->s);
    uint64_t new = (old & ~mask) | (value & mask);
    uint64_t changed = old ^ new;

    flags_set(c, new);
    if (changed & (FLAG_TF | FLAG_AC | FLAG_VM | FLAG_NT | FLAG_RF | FLAG_VIF | FLAG_VIP))
        x86_state_changed(c);
    if (changed & new & FLAG_IF)
        seg_recheck(c);
}
