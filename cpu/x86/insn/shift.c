/*
 * Shifts and rotates: SHL SHR SAR ROL ROR RCL RCR SHLD SHRD, and the BMI2
 * forms without flags (SDM Vol. 2).
 *
 * Flags are loaded before the host's own shift, so that a count of zero, which
 * leaves them alone, needs no test, and so that RCL and RCR find their CF.
 */
#include "cpu/x86/insn/ops.h"

#define SHIFT_ASM(op, sfx, d, count, cc)                                                           \
    __asm__(FLAGS_LOAD op sfx " %%cl, %0\n\t" FLAGS_SAVE : "+&r"(d), "+&a"(cc) : "c"(count) : "cc")

#define SHIFT_FNS(name, op, bits, type, sfx)                                                       \
    HANDLER(name##bits##_ri)                                                                       \
    {                                                                                              \
        type d = X86_REG##bits(c, i->r0);                                                          \
        uint32_t cc = c->s.cc;                                                                     \
        SHIFT_ASM(op, sfx, d, (uint8_t)i->imm, cc);                                                \
        c->s.cc = (uint16_t)cc;                                                                    \
        SET_REG##bits(c, i->r0, d);                                                                \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_rc)                                                                       \
    {                                                                                              \
        type d = X86_REG##bits(c, i->r0);                                                          \
        uint32_t cc = c->s.cc;                                                                     \
        SHIFT_ASM(op, sfx, d, X86_REG8(c, X86_RCX * 8), cc);                                       \
        c->s.cc = (uint16_t)cc;                                                                    \
        SET_REG##bits(c, i->r0, d);                                                                \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_m)                                                                        \
    {                                                                                              \
        uint64_t ea = x86_ea(c, i);                                                                \
        uint32_t cc = c->s.cc;                                                                     \
        type d;                                                                                    \
        X86_BEGIN(c, i);                                                                           \
        x86_probe_write(c, i->seg, ea, sizeof d);                                                  \
        d = x86_read##bits(c, i->seg, ea);                                                         \
        SHIFT_ASM(op, sfx, d, i->aux ? X86_REG8(c, X86_RCX * 8) : (uint8_t)i->imm, cc);            \
        x86_write##bits(c, i->seg, ea, d);                                                         \
        c->s.cc = (uint16_t)cc;                                                                    \
        X86_NEXT(c, i);                                                                            \
    }

#define SHIFT(name, op)                                                                            \
    SHIFT_FNS(name, op, 8, uint8_t, "b")                                                           \
    SHIFT_FNS(name, op, 16, uint16_t, "w")                                                         \
    SHIFT_FNS(name, op, 32, uint32_t, "l")                                                         \
    SHIFT_FNS(name, op, 64, uint64_t, "q")                                                         \
    static x86_handler *const name##_table[3][4] = {                                               \
        {name##8_ri, name##16_ri, name##32_ri, name##64_ri},                                       \
        {name##8_rc, name##16_rc, name##32_rc, name##64_rc},                                       \
        {name##8_m, name##16_m, name##32_m, name##64_m},                                           \
    };
SHIFT(shl, "shl")
SHIFT(shr, "shr")
SHIFT(sar, "sar")
SHIFT(rol, "rol")
SHIFT(ror, "ror")
SHIFT(rcl, "rcl")
SHIFT(rcr, "rcr")

bool bind_shift(struct x86_decode *d, struct x86_insn *i)
{
    bool by_cl = d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    unsigned row = i->flags & INSN_MEM ? 2 : by_cl, size = size_index(i->size);

    i->aux = by_cl;
    if (!by_cl && d->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        i->imm = d->op[1].imm.value.u; /* D0/D1: an implied 1 */
    switch (d->z.mnemonic) {
#define CASE(M, name)                                                                              \
    case ZYDIS_MNEMONIC_##M:                                                                       \
        i->fn = name##_table[row][size];                                                           \
        return true;
        CASE(SHL, shl)
        CASE(SHR, shr)
        CASE(SAR, sar)
        CASE(ROL, rol)
        CASE(ROR, ror)
        CASE(RCL, rcl)
        CASE(RCR, rcr)
#undef CASE
    default:
        return false;
    }
}

/* ---- SHLD, SHRD ---- */

#define DOUBLE_ASM(op, sfx, d, s, count, cc)                                                       \
    __asm__(FLAGS_LOAD op sfx " %%cl, %3, %0\n\t" FLAGS_SAVE                                       \
            : "+&r"(d), "+&a"(cc)                                                                  \
            : "c"(count), "r"(s)                                                                   \
            : "cc")

#define DOUBLE_FN(bits, type, sfx)                                                                 \
    static type double_shift##bits(struct x86_vcpu *c, bool right, type d, type s, uint8_t count,  \
                                   uint32_t *flags)                                                \
    {                                                                                              \
        uint32_t cc = c->s.cc;                                                                     \
        if (right)                                                                                 \
            DOUBLE_ASM("shrd", sfx, d, s, count, cc);                                              \
        else                                                                                       \
            DOUBLE_ASM("shld", sfx, d, s, count, cc);                                              \
        *flags = cc;                                                                               \
        return d;                                                                                  \
    }
SIZES_WLQ(DOUBLE_FN)

static uint64_t double_shift(struct x86_vcpu *c, const struct x86_insn *i, uint64_t d, uint64_t s,
                             uint32_t *flags)
{
    uint8_t count = i->aux2 ? X86_REG8(c, X86_RCX * 8) : (uint8_t)i->imm;

    switch (i->size) {
    case 2:
        return double_shift16(c, i->aux, (uint16_t)d, (uint16_t)s, count, flags);
    case 4:
        return double_shift32(c, i->aux, (uint32_t)d, (uint32_t)s, count, flags);
    default:
        return double_shift64(c, i->aux, d, s, count, flags);
    }
}

HANDLER(shxd_r)
{
    uint32_t cc;
    uint64_t v = double_shift(c, i, x86_reg_get(c, i->r0, i->size),
                              x86_reg_get(c, i->r1, i->size), &cc);

    c->s.cc = (uint16_t)cc;
    x86_reg_set(c, i->r0, i->size, v);
    X86_NEXT(c, i);
}

HANDLER(shxd_m)
{
    uint64_t ea = x86_ea(c, i), v;
    uint32_t cc;

    X86_BEGIN(c, i);
    x86_probe_write(c, i->seg, ea, i->size);
    v = x86_read(c, i->seg, ea, i->size);
    v = double_shift(c, i, v, x86_reg_get(c, i->r0, i->size), &cc);
    x86_write(c, i->seg, ea, v, i->size);
    c->s.cc = (uint16_t)cc;
    X86_NEXT(c, i);
}

bool bind_shift_double(struct x86_decode *d, struct x86_insn *i)
{
    i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_SHRD;
    i->aux2 = d->op[2].type == ZYDIS_OPERAND_TYPE_REGISTER; /* CL */
    i->fn = i->flags & INSN_MEM ? shxd_m : shxd_r;
    return true;
}

/* ---- BMI2: SHLX SHRX SARX RORX: r0 destination, r1 count register ---- */

static uint64_t flagless_shift(unsigned kind, uint64_t v, unsigned count, unsigned size)
{
    unsigned width = size * 8;

    count &= width - 1;
    switch (kind) {
    case 0:
        return v << count;
    case 1:
        return v >> count;
    case 2:
        return (uint64_t)(sext(v, size) >> count);
    default:
        return count ? v >> count | v << (width - count) : v;
    }
}

static uint64_t source_operand(struct x86_vcpu *c, const struct x86_insn *i, unsigned reg)
{
    return i->flags & INSN_MEM ? x86_read(c, i->seg, x86_ea(c, i), i->size)
                               : x86_reg_get(c, reg, i->size);
}

HANDLER(shift_x)
{
    uint64_t v, count;

    X86_BEGIN(c, i);
    v = source_operand(c, i, i->r1);
    count = i->aux == 3 ? i->imm : x86_reg_get(c, i->spare, i->size);
    x86_reg_set(c, i->r0, i->size,
                flagless_shift(i->aux, v, (unsigned)(count & 0xff), i->size));
    X86_NEXT(c, i);
}

bool bind_shift_x(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_SHLX:
        i->aux = 0;
        break;
    case ZYDIS_MNEMONIC_SHRX:
        i->aux = 1;
        break;
    case ZYDIS_MNEMONIC_SARX:
        i->aux = 2;
        break;
    default:
        i->aux = 3;
        break;
    }
    if (i->aux != 3)
        i->spare = x86_reg_offset(d->op[2].reg.value);
    i->fn = shift_x;
    return true;
}
