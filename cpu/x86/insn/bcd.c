/*
 * Decimal adjustment: AAA AAS AAM AAD DAA DAS (SDM Vol. 2; not in 64-bit mode,
 * so the host's 64-bit code cannot run them). Flags that the manual calls
 * undefined are set as current processors do, from the result.
 */
#include "cpu/x86/insn/ops.h"

static uint16_t result_flags(uint8_t al)
{
    uint32_t cc = 0;

    __asm__("testb %1, %1\n\t" FLAGS_SAVE : "=&a"(cc) : "r"(al) : "cc");
    return (uint16_t)(cc & (CC_SF | CC_ZF | CC_PF | CC_ONE));
}

/* aux: 0 AAA, 1 AAS */
HANDLER(aaa_aas)
{
    uint16_t ax = X86_REG16(c, 0);
    bool adjust = (ax & 15) > 9 || (c->s.cc & CC_AF);
    uint16_t cc;

    if (adjust)
        ax = i->aux ? ax - 0x106 : ax + 0x106;
    ax &= 0xff0f;
    X86_REG16(c, 0) = ax;
    cc = result_flags((uint8_t)ax);
    c->s.cc = adjust ? cc | CC_AF | CC_CF : cc;
    X86_NEXT(c, i);
}

/* aux: 0 DAA, 1 DAS */
HANDLER(daa_das)
{
    uint8_t old = X86_REG8(c, 0), al = old;
    bool old_cf = c->s.cc & CC_CF, cf = false, af = false;

    if ((old & 15) > 9 || (c->s.cc & CC_AF)) {
        cf = old_cf || (i->aux ? old < 6 : old > 0xff - 6);
        al = i->aux ? al - 6 : al + 6;
        af = true;
    }
    if (old > 0x99 || old_cf) {
        al = i->aux ? al - 0x60 : al + 0x60;
        cf = true;
    } else if (!i->aux) {
        cf = false;
    }
    X86_REG8(c, 0) = al;
    c->s.cc = result_flags(al) | (af ? CC_AF : 0) | (cf ? CC_CF : 0);
    X86_NEXT(c, i);
}

HANDLER(aam)
{
    uint8_t al = X86_REG8(c, 0), base = (uint8_t)i->imm;

    X86_BEGIN(c, i);
    if (!base)
        x86_raise(c, VEC_DE);
    X86_REG16(c, 0) = (uint16_t)((al / base) << 8 | al % base);
    c->s.cc = result_flags(X86_REG8(c, 0));
    X86_NEXT(c, i);
}

HANDLER(aad)
{
    uint8_t al = (uint8_t)(X86_REG8(c, 0) + X86_REG8(c, 1) * (uint8_t)i->imm);

    X86_REG16(c, 0) = al;
    c->s.cc = result_flags(al);
    X86_NEXT(c, i);
}

bool bind_bcd(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
        i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_AAS;
        i->fn = aaa_aas;
        return true;
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
        i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_DAS;
        i->fn = daa_das;
        return true;
    case ZYDIS_MNEMONIC_AAM:
        i->fn = aam;
        return true;
    case ZYDIS_MNEMONIC_AAD:
        i->fn = aad;
        return true;
    default:
        return false;
    }
}
