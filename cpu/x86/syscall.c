/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM Vol. 2; Vol. 3, 5.8.7 and 5.8.8), as
 * GenuineIntel has them: SYSCALL and SYSRET in 64-bit mode only, SYSENTER and
 * SYSEXIT in all protected modes, SYSRET checks RCX while it is still at CPL 0.
 *
 * None of them reads a descriptor: CS and SS become flat segments.
 *
 * Threading: the processor's own thread.
 */
#include "cpu/x86/cpuid.h"
#include "cpu/x86/seg_internal.h"

enum flat_attr {
    FLAT_CODE = SEG_G | SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED,
    FLAT_DATA = SEG_G | SEG_DB | SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED,
};

/* What SYSRET may set of RFLAGS from R11. */
#define SYSRET_FLAGS 0x3c7fd7ull

static void flat_segment(struct x86_seg *s, uint16_t selector, uint32_t attr, unsigned dpl)
{
    s->selector = selector;
    s->base = 0;
    s->limit = 0xffffffff;
    s->attr = attr | dpl << SEG_DPL_SHIFT;
}

static void enter_flat(struct x86_vcpu *c, uint16_t cs, uint16_t ss, bool code64, unsigned cpl,
                       uint64_t rip)
{
    flat_segment(&c->s.seg[X86_CS], cs, FLAT_CODE | (code64 ? SEG_L : SEG_DB), cpl);
    flat_segment(&c->s.seg[X86_SS], ss, FLAT_DATA, cpl);
    c->s.cpl = (uint8_t)cpl;
    c->s.reg[X86_RIP] = rip;
    x86_ring_changed(c);
}

void x86_syscall(struct x86_vcpu *c, uint64_t return_rip)
{
    uint16_t base = (uint16_t)(c->s.star >> 32);
    uint64_t flags = x86_rflags(&c->s);

    if (!x86_64bit_mode(&c->s) || !(c->s.efer & EFER_SCE))
        x86_raise_ud(c);
    c->s.reg[X86_RCX] = return_rip;
    c->s.reg[11] = flags;
    flags_set(c, flags & ~c->s.fmask & ~(uint64_t)FLAG_RF);
    /* A step ends here only if IA32_FMASK lets TF live. */
    x86_step_override(c, c->s.rflags & FLAG_TF);
    enter_flat(c, base & 0xfffc, (uint16_t)(base + 8), true, 0, c->s.lstar);
}

void x86_sysret(struct x86_vcpu *c, unsigned size)
{
    uint16_t base = (uint16_t)(c->s.star >> 48);
    bool to_64 = size == 8;
    uint64_t rip = c->s.reg[X86_RCX];

    if (!x86_64bit_mode(&c->s) || !(c->s.efer & EFER_SCE))
        x86_raise_ud(c);
    if (c->s.cpl != 0 || (to_64 && !x86_is_canonical(c, rip)))
        x86_raise_gp(c, 0);
    if (!to_64)
        rip = (uint32_t)rip;
    flags_set(c, c->s.reg[11] & SYSRET_FLAGS);
    /* Unlike IRET's, a TF loaded here traps before the next instruction. */
    x86_step_override(c, c->s.rflags & FLAG_TF);
    enter_flat(c, (uint16_t)(base + (to_64 ? 16 : 0)) | 3, (uint16_t)(base + 8) | 3, to_64, 3, rip);
    seg_recheck(c);
}

void x86_sysenter(struct x86_vcpu *c)
{
    uint16_t cs = c->s.sysenter_cs & 0xfffc;
    bool long_mode = x86_long_mode(&c->s);

    if (x86_real_mode(&c->s) || cs == 0)
        x86_raise_gp(c, 0);
    c->s.rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
    c->s.reg[X86_RSP] = long_mode ? c->s.sysenter_esp : (uint32_t)c->s.sysenter_esp;
    enter_flat(c, cs, cs + 8, long_mode, 0,
               long_mode ? c->s.sysenter_eip : (uint32_t)c->s.sysenter_eip);
}

void x86_sysexit(struct x86_vcpu *c, unsigned size)
{
    uint16_t cs = c->s.sysenter_cs & 0xfffc;
    uint64_t rip = c->s.reg[X86_RDX], rsp = c->s.reg[X86_RCX];

    if (x86_real_mode(&c->s) || cs == 0 || c->s.cpl != 0)
        x86_raise_gp(c, 0);
    if (size == 8) {
        if (!x86_is_canonical(c, rip) || !x86_is_canonical(c, rsp))
            x86_raise_gp(c, 0);
        cs = (uint16_t)(cs + 32);
    } else {
        rip = (uint32_t)rip;
        rsp = (uint32_t)rsp;
        cs = (uint16_t)(cs + 16);
    }
    c->s.reg[X86_RSP] = rsp;
    enter_flat(c, cs | 3, (uint16_t)(cs + 8) | 3, size == 8, 3, rip);
}
