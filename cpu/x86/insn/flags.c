/*
 * Instructions that set flags directly: CLC STC CMC CLD STD CLI STI CLAC STAC
 * LAHF SAHF SALC, and NOP, PAUSE, HLT and the hints (SDM Vol. 2).
 */
#include "cpu/x86/insn/ops.h"

HANDLER(clc)
{
    c->s.cc &= (uint16_t)~CC_CF;
    X86_NEXT(c, i);
}

HANDLER(stc)
{
    c->s.cc |= CC_CF;
    X86_NEXT(c, i);
}

HANDLER(cmc)
{
    c->s.cc ^= CC_CF;
    X86_NEXT(c, i);
}

HANDLER(cld)
{
    c->s.rflags &= ~(uint64_t)FLAG_DF;
    X86_NEXT(c, i);
}

HANDLER(std)
{
    c->s.rflags |= FLAG_DF;
    X86_NEXT(c, i);
}

HANDLER(lahf)
{
    X86_REG8(c, 1) = (uint8_t)(c->s.cc >> 8);
    X86_NEXT(c, i);
}

HANDLER(sahf)
{
    uint16_t ah = X86_REG8(c, 1);

    c->s.cc = (uint16_t)((c->s.cc & CC_OF) |
                         ((ah << 8) & (CC_CF | CC_PF | CC_AF | CC_ZF | CC_SF)) | CC_ONE);
    X86_NEXT(c, i);
}

HANDLER(salc)
{
    X86_REG8(c, 0) = c->s.cc & CC_CF ? 0xff : 0;
    X86_NEXT(c, i);
}

/* CLI and STI: IF, or VIF where virtual interrupts are on (SDM Vol. 2, CLI). */
enum if_target { IF_REAL, IF_VIRTUAL };

static enum if_target interrupt_flag(struct x86_vcpu *c)
{
    unsigned iopl = x86_iopl(&c->s);

    if (x86_real_mode(&c->s))
        return IF_REAL;
    if (x86_v86_mode(&c->s)) {
        if (iopl == 3)
            return IF_REAL;
        if (c->s.cr4 & CR4_VME)
            return IF_VIRTUAL;
        x86_raise_gp(c, 0);
    }
    if (iopl >= c->s.cpl)
        return IF_REAL;
    if (c->s.cpl == 3 && (c->s.cr4 & CR4_PVI))
        return IF_VIRTUAL;
    x86_raise_gp(c, 0);
}

HANDLER(cli)
{
    X86_BEGIN(c, i);
    if (interrupt_flag(c) == IF_REAL)
        c->s.rflags &= ~(uint64_t)FLAG_IF;
    else
        c->s.rflags &= ~(uint64_t)FLAG_VIF;
    X86_NEXT(c, i);
}

HANDLER(sti)
{
    X86_BEGIN(c, i);
    if (interrupt_flag(c) == IF_VIRTUAL) {
        if (c->s.rflags & FLAG_VIP)
            x86_raise_gp(c, 0);
        c->s.rflags |= FLAG_VIF;
    } else if (!(c->s.rflags & FLAG_IF)) {
        c->s.rflags |= FLAG_IF;
        c->s.shadow = SHADOW_STI;
        c->slow = 1;
        c->recheck |= c->irq_held;
    }
    X86_END_FALLTHROUGH(c, i);
}

/* CLAC, STAC: the AC flag, at CPL 0 only. */
HANDLER(clac_stac)
{
    X86_BEGIN(c, i);
    if (c->s.cpl != 0)
        x86_raise_ud(c);
    if (i->aux)
        c->s.rflags |= FLAG_AC;
    else
        c->s.rflags &= ~(uint64_t)FLAG_AC;
    x86_tlb_select(c);
    X86_NEXT(c, i);
}

HANDLER(nop)
{
    X86_NEXT(c, i);
}

HANDLER(pause_op)
{
    __builtin_ia32_pause();
    X86_NEXT(c, i);
}

HANDLER(hlt)
{
    X86_BEGIN(c, i);
    if (c->s.cpl != 0)
        x86_raise_gp(c, 0);
    c->s.activity = X86_HALTED;
    X86_END_FALLTHROUGH(c, i);
}

bool bind_flags(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
#define CASE(M, f)                                                                                 \
    case ZYDIS_MNEMONIC_##M:                                                                       \
        i->fn = f;                                                                                 \
        return true;
        CASE(CLC, clc)
        CASE(STC, stc)
        CASE(CMC, cmc)
        CASE(CLD, cld)
        CASE(STD, std)
        CASE(LAHF, lahf)
        CASE(SAHF, sahf)
        CASE(SALC, salc)
        CASE(CLI, cli)
        CASE(PAUSE, pause_op)
#undef CASE
    case ZYDIS_MNEMONIC_STI:
        i->flags |= INSN_LAST;
        i->fn = sti;
        return true;
    case ZYDIS_MNEMONIC_HLT:
        i->flags |= INSN_LAST;
        i->fn = hlt;
        return true;
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC:
        i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_STAC;
        i->fn = clac_stac;
        return true;
    default:
        return false;
    }
}

bool bind_nop(struct x86_decode *d, struct x86_insn *i)
{
    i->fn = nop;
    return true;
}

HANDLER(undefined)
{
    X86_BEGIN(c, i);
    x86_raise_ud(c);
}

bool bind_ud(struct x86_decode *d, struct x86_insn *i)
{
    i->flags |= INSN_LAST;
    i->fn = undefined;
    return true;
}
