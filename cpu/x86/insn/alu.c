/*
 * Integer arithmetic and logic: ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC
 * NOT NEG, ADCX ADOX (SDM Vol. 2).
 *
 * Each executes the same operation on the host and keeps the flags the host
 * made, so that flags the manual calls undefined agree in every engine.
 */
#include "cpu/x86/insn/ops.h"

#define PLAIN ""
#define CARRY FLAGS_LOAD_CF

/* d = d op s, cc = flags. */
#define ALU_ASM(op, sfx, prologue, d, s, cc)                                                       \
    __asm__(prologue op sfx " %2, %0\n\t" FLAGS_SAVE : "+&r"(d), "+&a"(cc) : "r"(s) : "cc")
/* The same where d is only compared. */
#define ALU_ASM_CMP(op, sfx, prologue, d, s, cc)                                                   \
    __asm__(prologue op sfx " %2, %1\n\t" FLAGS_SAVE : "+&a"(cc) : "r"(d), "r"(s) : "cc")

#define ALU_WRITE_FNS(name, op, prologue, bits, type, sfx)                                         \
    HANDLER(name##bits##_rr)                                                                       \
    {                                                                                              \
        type d = X86_REG##bits(c, i->r0), s = X86_REG##bits(c, i->r1);                             \
        uint32_t cc = c->s.cc;                                                                     \
        ALU_ASM(op, sfx, prologue, d, s, cc);                                                      \
        c->s.cc = (uint16_t)cc;                                                                    \
        SET_REG##bits(c, i->r0, d);                                                                \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_ri)                                                                       \
    {                                                                                              \
        type d = X86_REG##bits(c, i->r0), s = (type)i->imm;                                        \
        uint32_t cc = c->s.cc;                                                                     \
        ALU_ASM(op, sfx, prologue, d, s, cc);                                                      \
        c->s.cc = (uint16_t)cc;                                                                    \
        SET_REG##bits(c, i->r0, d);                                                                \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_rm)                                                                       \
    {                                                                                              \
        type d, s;                                                                                 \
        uint32_t cc = c->s.cc;                                                                     \
        X86_BEGIN(c, i);                                                                           \
        s = x86_read##bits(c, i->seg, x86_ea(c, i));                                               \
        d = X86_REG##bits(c, i->r0);                                                               \
        ALU_ASM(op, sfx, prologue, d, s, cc);                                                      \
        c->s.cc = (uint16_t)cc;                                                                    \
        SET_REG##bits(c, i->r0, d);                                                                \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    static inline void name##bits##_mem(struct x86_vcpu *c, const struct x86_insn *i, type s)      \
    {                                                                                              \
        uint32_t cc = c->s.cc;                                                                     \
        uint64_t ea = x86_ea(c, i);                                                                \
        type *p, d;                                                                                \
        X86_BEGIN(c, i);                                                                           \
        p = x86_rmw_fast(c, i->seg, ea, sizeof d);                                                 \
        if (likely(p)) {                                                                           \
            memcpy(&d, p, sizeof d);                                                               \
            ALU_ASM(op, sfx, prologue, d, s, cc);                                                  \
            memcpy(p, &d, sizeof d);                                                               \
        } else {                                                                                   \
            x86_probe_write(c, i->seg, ea, sizeof d);                                              \
            d = x86_read##bits(c, i->seg, ea);                                                     \
            ALU_ASM(op, sfx, prologue, d, s, cc);                                                  \
            x86_write##bits(c, i->seg, ea, d);                                                     \
        }                                                                                          \
        c->s.cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    HANDLER(name##bits##_mr)                                                                       \
    {                                                                                              \
        name##bits##_mem(c, i, X86_REG##bits(c, i->r0));                                           \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_mi)                                                                       \
    {                                                                                              \
        name##bits##_mem(c, i, (type)i->imm);                                                      \
        X86_NEXT(c, i);                                                                            \
    }

#define ALU_READ_FNS(name, op, prologue, bits, type, sfx)                                          \
    HANDLER(name##bits##_rr)                                                                       \
    {                                                                                              \
        type d = X86_REG##bits(c, i->r0), s = X86_REG##bits(c, i->r1);                             \
        uint32_t cc = c->s.cc;                                                                     \
        ALU_ASM_CMP(op, sfx, prologue, d, s, cc);                                                  \
        c->s.cc = (uint16_t)cc;                                                                    \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_ri)                                                                       \
    {                                                                                              \
        type d = X86_REG##bits(c, i->r0), s = (type)i->imm;                                        \
        uint32_t cc = c->s.cc;                                                                     \
        ALU_ASM_CMP(op, sfx, prologue, d, s, cc);                                                  \
        c->s.cc = (uint16_t)cc;                                                                    \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_rm)                                                                       \
    {                                                                                              \
        type d, s;                                                                                 \
        uint32_t cc = c->s.cc;                                                                     \
        X86_BEGIN(c, i);                                                                           \
        s = x86_read##bits(c, i->seg, x86_ea(c, i));                                               \
        d = X86_REG##bits(c, i->r0);                                                               \
        ALU_ASM_CMP(op, sfx, prologue, d, s, cc);                                                  \
        c->s.cc = (uint16_t)cc;                                                                    \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_mr)                                                                       \
    {                                                                                              \
        type d, s;                                                                                 \
        uint32_t cc = c->s.cc;                                                                     \
        X86_BEGIN(c, i);                                                                           \
        d = x86_read##bits(c, i->seg, x86_ea(c, i));                                               \
        s = X86_REG##bits(c, i->r0);                                                               \
        ALU_ASM_CMP(op, sfx, prologue, d, s, cc);                                                  \
        c->s.cc = (uint16_t)cc;                                                                    \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_mi)                                                                       \
    {                                                                                              \
        type d, s = (type)i->imm;                                                                  \
        uint32_t cc = c->s.cc;                                                                     \
        X86_BEGIN(c, i);                                                                           \
        d = x86_read##bits(c, i->seg, x86_ea(c, i));                                               \
        ALU_ASM_CMP(op, sfx, prologue, d, s, cc);                                                  \
        c->s.cc = (uint16_t)cc;                                                                    \
        X86_NEXT(c, i);                                                                            \
    }

#define TABLE_ROW(name, form)                                                                      \
    {                                                                                              \
        name##8_##form, name##16_##form, name##32_##form, name##64_##form                          \
    }
#define ALU_TABLE(name)                                                                            \
    static x86_handler *const name##_table[5][4] = {                                               \
        [FORM_RR] = TABLE_ROW(name, rr), [FORM_RM] = TABLE_ROW(name, rm),                          \
        [FORM_MR] = TABLE_ROW(name, mr), [FORM_RI] = TABLE_ROW(name, ri),                          \
        [FORM_MI] = TABLE_ROW(name, mi),                                                           \
    };

#define X(bits, type, sfx) ALU_WRITE_FNS(add, "add", PLAIN, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) ALU_WRITE_FNS(or, "or", PLAIN, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) ALU_WRITE_FNS(adc, "adc", CARRY, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) ALU_WRITE_FNS(sbb, "sbb", CARRY, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) ALU_WRITE_FNS(and, "and", PLAIN, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) ALU_WRITE_FNS(sub, "sub", PLAIN, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) ALU_WRITE_FNS(xor, "xor", PLAIN, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) ALU_READ_FNS(cmp, "cmp", PLAIN, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) ALU_READ_FNS(test, "test", PLAIN, bits, type, sfx)
SIZES(X)
#undef X

ALU_TABLE(add)
ALU_TABLE(or)
ALU_TABLE(adc)
ALU_TABLE(sbb)
ALU_TABLE(and)
ALU_TABLE(sub)
ALU_TABLE(xor)
ALU_TABLE(cmp)
ALU_TABLE(test)

bool bind_alu(struct x86_decode *d, struct x86_insn *i)
{
    unsigned form = form_of(d), size = size_index(i->size);

    if (i->flags & INSN_LOCK)
        return bind_lock_alu(d, i);
    switch (d->z.mnemonic) {
#define CASE(M, name)                                                                              \
    case ZYDIS_MNEMONIC_##M:                                                                       \
        i->fn = name##_table[form][size];                                                          \
        return true;
        CASE(ADD, add)
        CASE(OR, or)
        CASE(ADC, adc)
        CASE(SBB, sbb)
        CASE(AND, and)
        CASE(SUB, sub)
        CASE(XOR, xor)
        CASE(CMP, cmp)
        CASE(TEST, test)
#undef CASE
    default:
        return false;
    }
}

/* ---- one operand ---- */

#define UNARY_ASM(op, sfx, prologue, d, cc)                                                        \
    __asm__(prologue op sfx " %0\n\t" FLAGS_SAVE : "+&r"(d), "+&a"(cc) : : "cc")

#define UNARY_FNS(name, op, prologue, bits, type, sfx)                                             \
    HANDLER(name##bits##_r)                                                                        \
    {                                                                                              \
        type d = X86_REG##bits(c, i->r0);                                                          \
        uint32_t cc = c->s.cc;                                                                     \
        UNARY_ASM(op, sfx, prologue, d, cc);                                                       \
        c->s.cc = (uint16_t)cc;                                                                    \
        SET_REG##bits(c, i->r0, d);                                                                \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##bits##_m)                                                                        \
    {                                                                                              \
        uint32_t cc = c->s.cc;                                                                     \
        uint64_t ea = x86_ea(c, i);                                                                \
        type *p, d;                                                                                \
        X86_BEGIN(c, i);                                                                           \
        p = x86_rmw_fast(c, i->seg, ea, sizeof d);                                                 \
        if (likely(p)) {                                                                           \
            memcpy(&d, p, sizeof d);                                                               \
            UNARY_ASM(op, sfx, prologue, d, cc);                                                   \
            memcpy(p, &d, sizeof d);                                                               \
        } else {                                                                                   \
            x86_probe_write(c, i->seg, ea, sizeof d);                                              \
            d = x86_read##bits(c, i->seg, ea);                                                     \
            UNARY_ASM(op, sfx, prologue, d, cc);                                                   \
            x86_write##bits(c, i->seg, ea, d);                                                     \
        }                                                                                          \
        c->s.cc = (uint16_t)cc;                                                                    \
        X86_NEXT(c, i);                                                                            \
    }

/* INC and DEC keep CF; NOT keeps all flags. */
#define X(bits, type, sfx) UNARY_FNS(inc, "inc", CARRY, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) UNARY_FNS(dec, "dec", CARRY, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) UNARY_FNS(neg, "neg", PLAIN, bits, type, sfx)
SIZES(X)
#undef X
#define X(bits, type, sfx) UNARY_FNS(not, "not", FLAGS_LOAD, bits, type, sfx)
SIZES(X)
#undef X

#define UNARY_TABLE(name)                                                                          \
    static x86_handler *const name##_table[2][4] = {                                               \
        TABLE_ROW(name, r),                                                                        \
        TABLE_ROW(name, m),                                                                        \
    };
UNARY_TABLE(inc)
UNARY_TABLE(dec)
UNARY_TABLE(neg)
UNARY_TABLE(not)

bool bind_unary(struct x86_decode *d, struct x86_insn *i)
{
    unsigned mem = form_of(d) == FORM_M, size = size_index(i->size);

    if (i->flags & INSN_LOCK)
        return bind_lock_unary(d, i);
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_INC:
        i->fn = inc_table[mem][size];
        return true;
    case ZYDIS_MNEMONIC_DEC:
        i->fn = dec_table[mem][size];
        return true;
    case ZYDIS_MNEMONIC_NEG:
        i->fn = neg_table[mem][size];
        return true;
    case ZYDIS_MNEMONIC_NOT:
        i->fn = not_table[mem][size];
        return true;
    default:
        return false;
    }
}

/* ---- ADCX, ADOX: addition with one flag as carry ---- */

static uint64_t adx(struct x86_vcpu *c, const struct x86_insn *i, uint64_t s, unsigned flag)
{
    uint64_t d = x86_reg_get(c, i->r0, i->size), carry = (c->s.cc & flag) != 0, r;

    if (i->size == 8) {
        unsigned __int128 sum = (unsigned __int128)d + s + carry;
        r = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    } else {
        r = d + s + carry;
        carry = r >> 32 & 1;
    }
    c->s.cc = (uint16_t)(carry ? c->s.cc | flag : c->s.cc & ~flag);
    return r;
}

HANDLER(adx_op)
{
    uint64_t s;

    X86_BEGIN(c, i);
    s = i->flags & INSN_MEM ? x86_read(c, i->seg, x86_ea(c, i), i->size)
                            : x86_reg_get(c, i->r1, i->size);
    x86_reg_set(c, i->r0, i->size, adx(c, i, s, i->aux ? CC_OF : CC_CF));
    X86_NEXT(c, i);
}

bool bind_adx(struct x86_decode *d, struct x86_insn *i)
{
    i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_ADOX;
    i->fn = adx_op;
    return true;
}
