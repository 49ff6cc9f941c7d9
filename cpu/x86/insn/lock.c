/*
 * Atomic read-modify-write: LOCK forms, XCHG, XADD, CMPXCHG, CMPXCHG8B/16B
 * (SDM Vol. 3, 8.1).
 *
 * An operand in one page of plain memory is operated on in place by the
 * host's own LOCK instruction. What has no such place (a device, an operand
 * across pages, a page with cached code) is done while no other processor
 * runs.
 */
#include "cpu/x86/insn/ops.h"

/* ---- in place ---- */

#define LOCK_ASM(op, sfx, prologue, s)                                                             \
    __asm__ volatile(prologue "lock " op sfx " %2, %1\n\t" FLAGS_SAVE                              \
                     : "+&a"(cc), "+m"(*p)                                                         \
                     : "r"(s)                                                                      \
                     : "cc", "memory")
#define LOCK_UNARY_ASM(op, sfx, prologue)                                                          \
    __asm__ volatile(prologue "lock " op sfx " %1\n\t" FLAGS_SAVE                                  \
                     : "+&a"(cc), "+m"(*p)                                                         \
                     :                                                                             \
                     : "cc", "memory")

enum lock_op {
    LOCK_ADD,
    LOCK_OR,
    LOCK_ADC,
    LOCK_SBB,
    LOCK_AND,
    LOCK_SUB,
    LOCK_XOR,
    LOCK_INC,
    LOCK_DEC,
    LOCK_NEG,
    LOCK_NOT,
    LOCK_BTS,
    LOCK_BTR,
    LOCK_BTC,
    LOCK_XADD,
    LOCK_XCHG,
    LOCK_CMPXCHG,
};

/* s: the source operand; for XADD and XCHG what was in memory comes back in it. */
#define LOCK_FN(bits, type, sfx)                                                                   \
    static uint64_t locked##bits(struct x86_vcpu *c, enum lock_op op, void *where, uint64_t s64)   \
    {                                                                                              \
        typedef type __attribute__((may_alias)) alias;                                             \
        alias *p = where;                                                                          \
        type s = (type)s64;                                                                        \
        uint32_t cc = c->s.cc;                                                                     \
        switch (op) {                                                                              \
        case LOCK_ADD:                                                                             \
            LOCK_ASM("add", sfx, "", s);                                                           \
            break;                                                                                 \
        case LOCK_OR:                                                                              \
            LOCK_ASM("or", sfx, "", s);                                                            \
            break;                                                                                 \
        case LOCK_ADC:                                                                             \
            LOCK_ASM("adc", sfx, FLAGS_LOAD_CF, s);                                                \
            break;                                                                                 \
        case LOCK_SBB:                                                                             \
            LOCK_ASM("sbb", sfx, FLAGS_LOAD_CF, s);                                                \
            break;                                                                                 \
        case LOCK_AND:                                                                             \
            LOCK_ASM("and", sfx, "", s);                                                           \
            break;                                                                                 \
        case LOCK_SUB:                                                                             \
            LOCK_ASM("sub", sfx, "", s);                                                           \
            break;                                                                                 \
        case LOCK_XOR:                                                                             \
            LOCK_ASM("xor", sfx, "", s);                                                           \
            break;                                                                                 \
        case LOCK_INC:                                                                             \
            LOCK_UNARY_ASM("inc", sfx, FLAGS_LOAD_CF);                                             \
            break;                                                                                 \
        case LOCK_DEC:                                                                             \
            LOCK_UNARY_ASM("dec", sfx, FLAGS_LOAD_CF);                                             \
            break;                                                                                 \
        case LOCK_NEG:                                                                             \
            LOCK_UNARY_ASM("neg", sfx, "");                                                        \
            break;                                                                                 \
        case LOCK_NOT:                                                                             \
            LOCK_UNARY_ASM("not", sfx, FLAGS_LOAD);                                                \
            break;                                                                                 \
        case LOCK_XADD:                                                                            \
            __asm__ volatile("lock xadd" sfx " %2, %1\n\t" FLAGS_SAVE                              \
                             : "+&a"(cc), "+m"(*p), "+r"(s)                                        \
                             :                                                                     \
                             : "cc", "memory");                                                    \
            break;                                                                                 \
        case LOCK_XCHG:                                                                            \
            s = atomic_exchange((_Atomic type *)p, s);                                             \
            break;                                                                                 \
        default:                                                                                   \
            break;                                                                                 \
        }                                                                                          \
        c->s.cc = (uint16_t)cc;                                                                    \
        return s;                                                                                  \
    }
SIZES(LOCK_FN)

/* BTS, BTR, BTC with the bit number reduced to the operand. */
#define LOCK_BIT_FN(bits, type, sfx)                                                               \
    static void locked_bit##bits(struct x86_vcpu *c, enum lock_op op, void *where, uint64_t s64)   \
    {                                                                                              \
        typedef type __attribute__((may_alias)) alias;                                             \
        alias *p = where;                                                                          \
        type s = (type)s64;                                                                        \
        uint32_t cc = c->s.cc;                                                                     \
        switch (op) {                                                                              \
        case LOCK_BTS:                                                                             \
            LOCK_ASM("bts", sfx, FLAGS_LOAD, s);                                                   \
            break;                                                                                 \
        case LOCK_BTR:                                                                             \
            LOCK_ASM("btr", sfx, FLAGS_LOAD, s);                                                   \
            break;                                                                                 \
        default:                                                                                   \
            LOCK_ASM("btc", sfx, FLAGS_LOAD, s);                                                   \
            break;                                                                                 \
        }                                                                                          \
        c->s.cc = (uint16_t)cc;                                                                    \
    }
SIZES_WLQ(LOCK_BIT_FN)

static uint64_t locked_apply(struct x86_vcpu *c, enum lock_op op, unsigned size, void *p,
                             uint64_t s)
{
    if (op == LOCK_BTS || op == LOCK_BTR || op == LOCK_BTC) {
        switch (size) {
        case 2:
            locked_bit16(c, op, p, s);
            break;
        case 4:
            locked_bit32(c, op, p, s);
            break;
        default:
            locked_bit64(c, op, p, s);
            break;
        }
        return s;
    }
    switch (size) {
    case 1:
        return locked8(c, op, p, s);
    case 2:
        return locked16(c, op, p, s);
    case 4:
        return locked32(c, op, p, s);
    default:
        return locked64(c, op, p, s);
    }
}

/* Where there is no place: on a copy, alone. Faults were raised before. */
static uint64_t locked_memory(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea,
                              uint64_t s)
{
    void *p = x86_rmw_fast(c, i->seg, ea, i->size);
    uint64_t v, r;

    if (!p)
        p = x86_rmw_pointer(c, i->seg, ea, i->size);
    if (likely(p))
        return locked_apply(c, i->aux, i->size, p, s);
    x86_exclusive_begin(c);
    v = x86_read(c, i->seg, ea, i->size);
    r = locked_apply(c, i->aux, i->size, &v, s);
    x86_write(c, i->seg, ea, v, i->size);
    x86_exclusive_end(c);
    return r;
}

/* ---- handlers ---- */

HANDLER(lock_mr)
{
    X86_BEGIN(c, i);
    locked_memory(c, i, x86_ea(c, i), x86_reg_get(c, i->r0, i->size));
    X86_NEXT(c, i);
}

HANDLER(lock_mi)
{
    X86_BEGIN(c, i);
    locked_memory(c, i, x86_ea(c, i), i->imm);
    X86_NEXT(c, i);
}

bool bind_lock_alu(struct x86_decode *d, struct x86_insn *i)
{
    if (!(i->flags & INSN_MEM) || d->op[0].type != ZYDIS_OPERAND_TYPE_MEMORY)
        return false;
    switch (d->z.mnemonic) {
#define CASE(M)                                                                                    \
    case ZYDIS_MNEMONIC_##M:                                                                       \
        i->aux = LOCK_##M;                                                                         \
        break;
        CASE(ADD)
        CASE(OR)
        CASE(ADC)
        CASE(SBB)
        CASE(AND)
        CASE(SUB)
        CASE(XOR)
    default:
        return false;
    }
    i->fn = form_of(d) == FORM_MI ? lock_mi : lock_mr;
    return true;
}

bool bind_lock_unary(struct x86_decode *d, struct x86_insn *i)
{
    if (!(i->flags & INSN_MEM))
        return false;
    switch (d->z.mnemonic) {
        CASE(INC)
        CASE(DEC)
        CASE(NEG)
        CASE(NOT)
#undef CASE
    default:
        return false;
    }
    i->fn = lock_mi;
    return true;
}

uint64_t bit_string_ea(struct x86_vcpu *c, const struct x86_insn *i, unsigned *bit);

HANDLER(lock_bit)
{
    unsigned bit;
    uint64_t ea = bit_string_ea(c, i, &bit);

    X86_BEGIN(c, i);
    locked_memory(c, i, ea, bit);
    X86_NEXT(c, i);
}

bool bind_lock_bit(struct x86_decode *d, struct x86_insn *i)
{
    if (!(i->flags & INSN_MEM) || i->aux == 0)
        return false;
    i->aux = (uint8_t)(LOCK_BTS + i->aux - 1);
    i->fn = lock_bit;
    return true;
}

HANDLER(xchg_m)
{
    X86_BEGIN(c, i);
    x86_reg_set(c, i->r0, i->size,
                locked_memory(c, i, x86_ea(c, i), x86_reg_get(c, i->r0, i->size)));
    X86_NEXT(c, i);
}

bool bind_lock_xchg(struct x86_decode *d, struct x86_insn *i)
{
    i->aux = LOCK_XCHG;
    i->fn = xchg_m;
    return true;
}

/* ---- XADD ---- */

HANDLER(xadd_r)
{
    uint64_t d = x86_reg_get(c, i->r0, i->size), s = x86_reg_get(c, i->r1, i->size);
    uint64_t sum = d;

    locked_apply(c, LOCK_ADD, i->size, &sum, s);
    x86_reg_set(c, i->r1, i->size, d);
    x86_reg_set(c, i->r0, i->size, sum);
    X86_NEXT(c, i);
}

HANDLER(xadd_m)
{
    X86_BEGIN(c, i);
    x86_reg_set(c, i->r0, i->size,
                locked_memory(c, i, x86_ea(c, i), x86_reg_get(c, i->r0, i->size)));
    X86_NEXT(c, i);
}

bool bind_xadd(struct x86_decode *d, struct x86_insn *i)
{
    i->aux = LOCK_XADD;
    i->fn = i->flags & INSN_MEM ? xadd_m : xadd_r;
    return true;
}

/* ---- CMPXCHG ---- */

#define CMPXCHG_FN(bits, type, sfx)                                                                \
    static bool cmpxchg##bits(struct x86_vcpu *c, void *where, uint64_t s64)                       \
    {                                                                                              \
        typedef type __attribute__((may_alias)) alias;                                             \
        alias *p = where;                                                                          \
        type s = (type)s64, a = X86_REG##bits(c, X86_RAX * 8), old = a;                            \
        uint32_t cc;                                                                               \
        bool equal = atomic_compare_exchange_strong((_Atomic type *)p, &old, s);                   \
        __asm__("cmp" sfx " %2, %1\n\t" FLAGS_SAVE : "=&a"(cc) : "r"(a), "r"(old) : "cc");         \
        c->s.cc = (uint16_t)cc;                                                                    \
        if (!equal)                                                                                \
            SET_REG##bits(c, X86_RAX * 8, old);                                                    \
        return equal;                                                                              \
    }
SIZES(CMPXCHG_FN)

static bool cmpxchg_apply(struct x86_vcpu *c, unsigned size, void *p, uint64_t s)
{
    switch (size) {
    case 1:
        return cmpxchg8(c, p, s);
    case 2:
        return cmpxchg16(c, p, s);
    case 4:
        return cmpxchg32(c, p, s);
    default:
        return cmpxchg64(c, p, s);
    }
}

HANDLER(cmpxchg_r)
{
    uint64_t d = x86_reg_get(c, i->r0, i->size);
    uint64_t source = x86_reg_get(c, i->r1, i->size);

    /* Where they differ the destination stays as it is, the upper half too. */
    if (cmpxchg_apply(c, i->size, &d, source))
        x86_reg_set(c, i->r0, i->size, d);
    X86_NEXT(c, i);
}

HANDLER(cmpxchg_m)
{
    uint64_t ea = x86_ea(c, i), s = x86_reg_get(c, i->r0, i->size), v;
    void *p;

    X86_BEGIN(c, i);
    p = x86_rmw_fast(c, i->seg, ea, i->size);
    if (!p)
        p = x86_rmw_pointer(c, i->seg, ea, i->size);
    if (likely(p)) {
        cmpxchg_apply(c, i->size, p, s);
    } else {
        x86_exclusive_begin(c);
        v = x86_read(c, i->seg, ea, i->size);
        cmpxchg_apply(c, i->size, &v, s);
        x86_write(c, i->seg, ea, v, i->size); /* always a write cycle */
        x86_exclusive_end(c);
    }
    X86_NEXT(c, i);
}

bool bind_cmpxchg(struct x86_decode *d, struct x86_insn *i)
{
    i->fn = i->flags & INSN_MEM ? cmpxchg_m : cmpxchg_r;
    return true;
}

/* ---- CMPXCHG8B, CMPXCHG16B: only ZF changes ---- */

static void set_zf(struct x86_vcpu *c, bool zf)
{
    c->s.cc = (uint16_t)(zf ? c->s.cc | CC_ZF : c->s.cc & ~CC_ZF);
}

HANDLER(cmpxchg8b)
{
    uint64_t ea = x86_ea(c, i), v, old;
    uint64_t compare = (uint64_t)(uint32_t)c->s.reg[X86_RDX] << 32 | (uint32_t)c->s.reg[X86_RAX];
    uint64_t set = (uint64_t)(uint32_t)c->s.reg[X86_RCX] << 32 | (uint32_t)c->s.reg[X86_RBX];
    void *p;
    bool equal;

    X86_BEGIN(c, i);
    old = compare;
    p = x86_rmw_pointer(c, i->seg, ea, 8);
    if (likely(p)) {
        equal = atomic_compare_exchange_strong((_Atomic uint64_t *)p, &old, set);
    } else {
        x86_exclusive_begin(c);
        v = x86_read64(c, i->seg, ea);
        equal = v == compare;
        old = v;
        x86_write64(c, i->seg, ea, equal ? set : v);
        x86_exclusive_end(c);
    }
    set_zf(c, equal);
    if (!equal) {
        c->s.reg[X86_RAX] = (uint32_t)old;
        c->s.reg[X86_RDX] = old >> 32;
    }
    X86_NEXT(c, i);
}

HANDLER(cmpxchg16b)
{
    uint64_t ea = x86_ea(c, i), v[2];
    uint64_t low = c->s.reg[X86_RAX], high = c->s.reg[X86_RDX];
    void *p;
    bool equal;

    X86_BEGIN(c, i);
    /* Alignment is checked on the linear address, before paging. */
    if (x86_linear(c, i->seg, ea, 16, ACCESS_WRITE) & 15)
        x86_raise_gp(c, 0);
    p = x86_rmw_pointer(c, i->seg, ea, 16);
    if (likely(p)) {
        __asm__ volatile("lock cmpxchg16b %1"
                         : "=@ccz"(equal), "+m"(*(char(*)[16])p), "+a"(low), "+d"(high)
                         : "b"(c->s.reg[X86_RBX]), "c"(c->s.reg[X86_RCX])
                         : "memory");
    } else {
        x86_exclusive_begin(c);
        x86_read_bytes(c, i->seg, ea, v, 16);
        equal = v[0] == low && v[1] == high;
        low = v[0];
        high = v[1];
        if (equal) {
            v[0] = c->s.reg[X86_RBX];
            v[1] = c->s.reg[X86_RCX];
        }
        x86_write_bytes(c, i->seg, ea, v, 16);
        x86_exclusive_end(c);
    }
    set_zf(c, equal);
    if (!equal) {
        c->s.reg[X86_RAX] = low;
        c->s.reg[X86_RDX] = high;
    }
    X86_NEXT(c, i);
}

bool bind_cmpxchg8b(struct x86_decode *d, struct x86_insn *i)
{
    i->fn = d->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ? cmpxchg16b : cmpxchg8b;
    return i->flags & INSN_MEM;
}
