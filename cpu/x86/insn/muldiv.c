/*
 * MUL IMUL DIV IDIV MULX (SDM Vol. 2), by the host's own instructions; what
 * would make the host fault is tested first and becomes the guest's #DE. Some
 * processors leave the undefined flags as they were, so the guest's are loaded
 * before.
 */
#include "cpu/x86/insn/ops.h"

static uint64_t operand(struct x86_vcpu *c, const struct x86_insn *i)
{
    return i->flags & INSN_MEM ? x86_read(c, i->seg, x86_ea(c, i), i->size)
                               : x86_reg_get(c, i->r0, i->size);
}

/* ---- one operand: accumulator pair ---- */

#define MUL_ASM(op, bits, type, sfx)                                                               \
    static void op##bits(struct x86_vcpu *c, type s)                                               \
    {                                                                                              \
        uint64_t keep = X86_REG##bits(c, X86_RAX * 8), cc = c->s.cc;                               \
        type high;                                                                                 \
        __asm__("xchg %%rax, %1\n\t" FLAGS_LOAD "mov %1, %%rax\n\t" #op sfx                       \
                " %3\n\tmov %%rax, %1\n\t" FLAGS_SAVE "\n\txchg %%rax, %1"                         \
                : "+&a"(keep), "+&r"(cc), "=&d"(high)                                              \
                : "r"(s)                                                                           \
                : "cc");                                                                           \
        c->s.cc = (uint16_t)cc;                                                                    \
        SET_REG##bits(c, X86_RAX * 8, (type)keep);                                                 \
        SET_REG##bits(c, X86_RDX * 8, high);                                                       \
    }
#define BOTH(bits, type, sfx)                                                                      \
    MUL_ASM(mul, bits, type, sfx)                                                                  \
    MUL_ASM(imul, bits, type, sfx)
SIZES_WLQ(BOTH)

static void mul8(struct x86_vcpu *c, uint8_t s, bool is_signed)
{
    uint64_t ax = X86_REG8(c, 0), cc = c->s.cc;

    if (is_signed)
        __asm__("xchg %%rax, %1\n\t" FLAGS_LOAD "mov %1, %%rax\n\timulb %2\n\t"
                "mov %%rax, %1\n\t" FLAGS_SAVE "\n\txchg %%rax, %1"
                : "+&a"(ax), "+&r"(cc)
                : "r"(s)
                : "cc");
    else
        __asm__("xchg %%rax, %1\n\t" FLAGS_LOAD "mov %1, %%rax\n\tmulb %2\n\t"
                "mov %%rax, %1\n\t" FLAGS_SAVE "\n\txchg %%rax, %1"
                : "+&a"(ax), "+&r"(cc)
                : "r"(s)
                : "cc");
    c->s.cc = (uint16_t)cc;
    X86_REG16(c, 0) = (uint16_t)ax;
}

HANDLER(mul_op)
{
    uint64_t s;

    X86_BEGIN(c, i);
    s = operand(c, i);
    switch (i->size) {
    case 1:
        mul8(c, (uint8_t)s, i->aux);
        break;
    case 2:
        i->aux ? imul16(c, (uint16_t)s) : mul16(c, (uint16_t)s);
        break;
    case 4:
        i->aux ? imul32(c, (uint32_t)s) : mul32(c, (uint32_t)s);
        break;
    default:
        i->aux ? imul64(c, s) : mul64(c, s);
        break;
    }
    X86_NEXT(c, i);
}

#define DIV_FN(bits, type, sfx, stype, wide, swide)                                                \
    static void div##bits(struct x86_vcpu *c, type s)                                              \
    {                                                                                              \
        type low = X86_REG##bits(c, X86_RAX * 8), high = X86_REG##bits(c, X86_RDX * 8);            \
        uint64_t cc = c->s.cc, keep = low;                                                         \
        if (high >= s)                                                                             \
            x86_raise(c, VEC_DE);                                                                  \
        __asm__("xchg %%rax, %1\n\t" FLAGS_LOAD "mov %1, %%rax\n\tdiv" sfx                         \
                " %3\n\tmov %%rax, %1\n\t" FLAGS_SAVE "\n\txchg %%rax, %1"                         \
                : "+&a"(keep), "+&r"(cc), "+&d"(high)                                              \
                : "r"(s)                                                                           \
                : "cc");                                                                           \
        c->s.cc = (uint16_t)cc;                                                                    \
        SET_REG##bits(c, X86_RAX * 8, (type)keep);                                                 \
        SET_REG##bits(c, X86_RDX * 8, high);                                                       \
    }                                                                                              \
    static void idiv##bits(struct x86_vcpu *c, type s)                                             \
    {                                                                                              \
        type low = X86_REG##bits(c, X86_RAX * 8), high = X86_REG##bits(c, X86_RDX * 8);            \
        wide n = (wide)high << bits | low;                                                         \
        uint64_t cc = c->s.cc, keep = low;                                                         \
        swide q;                                                                                   \
        if (s == 0 || (s == (type)-1 && n == (wide)1 << (2 * bits - 1)))                           \
            x86_raise(c, VEC_DE);                                                                  \
        q = (swide)n / (stype)s;                                                                   \
        if (q != (stype)q)                                                                         \
            x86_raise(c, VEC_DE);                                                                  \
        __asm__("xchg %%rax, %1\n\t" FLAGS_LOAD "mov %1, %%rax\n\tidiv" sfx                        \
                " %3\n\tmov %%rax, %1\n\t" FLAGS_SAVE "\n\txchg %%rax, %1"                         \
                : "+&a"(keep), "+&r"(cc), "+&d"(high)                                              \
                : "r"(s)                                                                           \
                : "cc");                                                                           \
        c->s.cc = (uint16_t)cc;                                                                    \
        SET_REG##bits(c, X86_RAX * 8, (type)keep);                                                 \
        SET_REG##bits(c, X86_RDX * 8, high);                                                       \
    }
DIV_FN(16, uint16_t, "w", int16_t, uint32_t, int32_t)
DIV_FN(32, uint32_t, "l", int32_t, uint64_t, int64_t)
DIV_FN(64, uint64_t, "q", int64_t, unsigned __int128, __int128)

static void div8(struct x86_vcpu *c, uint8_t s, bool is_signed)
{
    uint64_t ax = X86_REG16(c, 0), cc = c->s.cc;

    if (is_signed) {
        int32_t n = (int16_t)ax;
        if (s == 0 || n / (int8_t)s != (int8_t)(n / (int8_t)s))
            x86_raise(c, VEC_DE);
        __asm__("xchg %%rax, %1\n\t" FLAGS_LOAD "mov %1, %%rax\n\tidivb %2\n\t"
                "mov %%rax, %1\n\t" FLAGS_SAVE "\n\txchg %%rax, %1"
                : "+&a"(ax), "+&r"(cc)
                : "r"(s)
                : "cc");
    } else {
        if (ax >> 8 >= s)
            x86_raise(c, VEC_DE);
        __asm__("xchg %%rax, %1\n\t" FLAGS_LOAD "mov %1, %%rax\n\tdivb %2\n\t"
                "mov %%rax, %1\n\t" FLAGS_SAVE "\n\txchg %%rax, %1"
                : "+&a"(ax), "+&r"(cc)
                : "r"(s)
                : "cc");
    }
    c->s.cc = (uint16_t)cc;
    X86_REG16(c, 0) = (uint16_t)ax;
}

HANDLER(div_op)
{
    uint64_t s;

    X86_BEGIN(c, i);
    s = operand(c, i);
    switch (i->size) {
    case 1:
        div8(c, (uint8_t)s, i->aux);
        break;
    case 2:
        i->aux ? idiv16(c, (uint16_t)s) : div16(c, (uint16_t)s);
        break;
    case 4:
        i->aux ? idiv32(c, (uint32_t)s) : div32(c, (uint32_t)s);
        break;
    default:
        i->aux ? idiv64(c, s) : div64(c, s);
        break;
    }
    X86_NEXT(c, i);
}

/* ---- IMUL with two and three operands ---- */

#define IMUL2_FN(bits, type, sfx)                                                                  \
    static inline type imul2_##bits(struct x86_vcpu *c, type d, type s)                            \
    {                                                                                              \
        uint32_t cc = c->s.cc;                                                                     \
        __asm__(FLAGS_LOAD "imul" sfx " %2, %0\n\t" FLAGS_SAVE                                     \
                : "+&r"(d), "+&a"(cc)                                                              \
                : "r"(s)                                                                           \
                : "cc");                                                                           \
        c->s.cc = (uint16_t)cc;                                                                    \
        return d;                                                                                  \
    }                                                                                              \
    HANDLER(imul2_##bits##_rr)                                                                     \
    {                                                                                              \
        SET_REG##bits(c, i->r0, imul2_##bits(c, X86_REG##bits(c, i->r0), X86_REG##bits(c, i->r1))); \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(imul2_##bits##_rm)                                                                     \
    {                                                                                              \
        type s;                                                                                    \
        X86_BEGIN(c, i);                                                                           \
        s = x86_read##bits(c, i->seg, x86_ea(c, i));                                               \
        SET_REG##bits(c, i->r0, imul2_##bits(c, X86_REG##bits(c, i->r0), s));                      \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(imul3_##bits##_rr)                                                                     \
    {                                                                                              \
        SET_REG##bits(c, i->r0, imul2_##bits(c, X86_REG##bits(c, i->r1), (type)i->imm));           \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(imul3_##bits##_rm)                                                                     \
    {                                                                                              \
        type s;                                                                                    \
        X86_BEGIN(c, i);                                                                           \
        s = x86_read##bits(c, i->seg, x86_ea(c, i));                                               \
        SET_REG##bits(c, i->r0, imul2_##bits(c, s, (type)i->imm));                                 \
        X86_NEXT(c, i);                                                                            \
    }
SIZES_WLQ(IMUL2_FN)

bool bind_mul(struct x86_decode *d, struct x86_insn *i)
{
    static x86_handler *const two[4][2] = {{NULL, NULL},
                                           {imul2_16_rr, imul2_16_rm},
                                           {imul2_32_rr, imul2_32_rm},
                                           {imul2_64_rr, imul2_64_rm}};
    static x86_handler *const three[4][2] = {{NULL, NULL},
                                             {imul3_16_rr, imul3_16_rm},
                                             {imul3_32_rr, imul3_32_rm},
                                             {imul3_64_rr, imul3_64_rm}};
    unsigned size = size_index(i->size);
    bool mem = i->flags & INSN_MEM;

    i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_IMUL;
    if (d->z.operand_count_visible == 3) {
        i->fn = three[size][mem];
    } else if (d->z.operand_count_visible == 2) {
        i->fn = two[size][mem];
    } else {
        i->fn = mul_op;
    }
    return i->fn;
}

bool bind_div(struct x86_decode *d, struct x86_insn *i)
{
    i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_IDIV;
    i->fn = div_op;
    return true;
}

/* ---- MULX: r0 high, r1 low, EDX implied; when equal, the high half stays ---- */

HANDLER(mulx)
{
    uint64_t s;

    X86_BEGIN(c, i);
    s = i->flags & INSN_MEM ? x86_read(c, i->seg, x86_ea(c, i), i->size)
                            : x86_reg_get(c, i->spare, i->size);
    if (i->size == 8) {
        unsigned __int128 p = (unsigned __int128)c->s.reg[X86_RDX] * s;
        X86_REG64(c, i->r1) = (uint64_t)p;
        X86_REG64(c, i->r0) = (uint64_t)(p >> 64);
    } else {
        uint64_t p = (uint64_t)(uint32_t)c->s.reg[X86_RDX] * s;
        X86_REG64(c, i->r1) = (uint32_t)p;
        X86_REG64(c, i->r0) = p >> 32;
    }
    X86_NEXT(c, i);
}

bool bind_mulx(struct x86_decode *d, struct x86_insn *i)
{
    if (!(i->flags & INSN_MEM))
        i->spare = x86_reg_offset(d->op[2].reg.value);
    i->fn = mulx;
    return true;
}
