/*
 * Moves: MOV, MOVZX, MOVSX, LEA, XCHG, CMOVcc, SETcc, BSWAP, MOVBE, XLAT and
 * the sign extensions of the accumulator (SDM Vol. 2). Segment, control and
 * debug registers are in segment.c and system.c.
 */
#include "cpu/x86/insn/ops.h"

#define MOV_FNS(bits, type, sfx)                                                                   \
    HANDLER(mov##bits##_rr)                                                                        \
    {                                                                                              \
        SET_REG##bits(c, i->r0, X86_REG##bits(c, i->r1));                                          \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(mov##bits##_ri)                                                                        \
    {                                                                                              \
        SET_REG##bits(c, i->r0, (type)i->imm);                                                     \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(mov##bits##_rm)                                                                        \
    {                                                                                              \
        type v;                                                                                    \
        X86_BEGIN(c, i);                                                                           \
        v = x86_read##bits(c, i->seg, x86_ea(c, i));                                               \
        SET_REG##bits(c, i->r0, v);                                                                \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(mov##bits##_mr)                                                                        \
    {                                                                                              \
        X86_BEGIN(c, i);                                                                           \
        x86_write##bits(c, i->seg, x86_ea(c, i), X86_REG##bits(c, i->r0));                         \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(mov##bits##_mi)                                                                        \
    {                                                                                              \
        X86_BEGIN(c, i);                                                                           \
        x86_write##bits(c, i->seg, x86_ea(c, i), (type)i->imm);                                    \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(xchg##bits##_rr)                                                                       \
    {                                                                                              \
        type a = X86_REG##bits(c, i->r0), b = X86_REG##bits(c, i->r1);                             \
        SET_REG##bits(c, i->r0, b);                                                                \
        SET_REG##bits(c, i->r1, a);                                                                \
        X86_NEXT(c, i);                                                                            \
    }
SIZES(MOV_FNS)

#define ROW(name, form)                                                                            \
    {                                                                                              \
        name##8_##form, name##16_##form, name##32_##form, name##64_##form                          \
    }

static x86_handler *const mov_table[5][4] = {
    [FORM_RR] = ROW(mov, rr), [FORM_RM] = ROW(mov, rm), [FORM_MR] = ROW(mov, mr),
    [FORM_RI] = ROW(mov, ri), [FORM_MI] = ROW(mov, mi),
};
static x86_handler *const xchg_table[4] = ROW(xchg, rr);

x86_binder bind_mov_seg, bind_mov_cr;

bool bind_mov(struct x86_decode *d, struct x86_insn *i)
{
    for (unsigned n = 0; n < 2; n++) {
        if (d->op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (ZydisRegisterGetClass(d->op[n].reg.value)) {
        case ZYDIS_REGCLASS_SEGMENT:
            return bind_mov_seg(d, i);
        case ZYDIS_REGCLASS_CONTROL:
        case ZYDIS_REGCLASS_DEBUG:
            return bind_mov_cr(d, i);
        case ZYDIS_REGCLASS_TEST:
            return false;
        default:
            break;
        }
    }
    i->fn = mov_table[form_of(d)][size_index(i->size)];
    return true;
}

x86_binder bind_lock_xchg;

bool bind_xchg(struct x86_decode *d, struct x86_insn *i)
{
    if (i->flags & INSN_MEM)
        return bind_lock_xchg(d, i); /* locked with or without the prefix */
    i->fn = xchg_table[size_index(i->size)];
    return true;
}

/* ---- extension: destination size in size, source size in aux ---- */

#define EXTEND_FNS(name, sbits, stype, dbits, expr)                                                \
    HANDLER(name##sbits##_##dbits##_r)                                                             \
    {                                                                                              \
        stype v = (stype)X86_REG##sbits(c, i->r1);                                                 \
        SET_REG##dbits(c, i->r0, expr);                                                            \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(name##sbits##_##dbits##_m)                                                             \
    {                                                                                              \
        stype v;                                                                                   \
        X86_BEGIN(c, i);                                                                           \
        v = (stype)x86_read##sbits(c, i->seg, x86_ea(c, i));                                       \
        SET_REG##dbits(c, i->r0, expr);                                                            \
        X86_NEXT(c, i);                                                                            \
    }

EXTEND_FNS(movzx, 8, uint8_t, 16, v)
EXTEND_FNS(movzx, 8, uint8_t, 32, v)
EXTEND_FNS(movzx, 8, uint8_t, 64, v)
EXTEND_FNS(movzx, 16, uint16_t, 16, v)
EXTEND_FNS(movzx, 16, uint16_t, 32, v)
EXTEND_FNS(movzx, 16, uint16_t, 64, v)
EXTEND_FNS(movsx, 8, int8_t, 16, (uint16_t)v)
EXTEND_FNS(movsx, 8, int8_t, 32, v)
EXTEND_FNS(movsx, 8, int8_t, 64, (uint64_t)(int64_t)v)
EXTEND_FNS(movsx, 16, int16_t, 16, (uint16_t)v)
EXTEND_FNS(movsx, 16, int16_t, 32, v)
EXTEND_FNS(movsx, 16, int16_t, 64, (uint64_t)(int64_t)v)
EXTEND_FNS(movsx, 32, int32_t, 16, (uint16_t)v)
EXTEND_FNS(movsx, 32, int32_t, 32, v)
EXTEND_FNS(movsx, 32, int32_t, 64, (uint64_t)(int64_t)v)

#define EXTEND_ROWS(name, sbits)                                                                   \
    {                                                                                              \
        {name##sbits##_16_r, name##sbits##_16_m}, {name##sbits##_32_r, name##sbits##_32_m},        \
        {                                                                                          \
            name##sbits##_64_r, name##sbits##_64_m                                                 \
        }                                                                                          \
    }
static x86_handler *const movzx_table[2][3][2] = {EXTEND_ROWS(movzx, 8), EXTEND_ROWS(movzx, 16)};
static x86_handler *const movsx_table[3][3][2] = {EXTEND_ROWS(movsx, 8), EXTEND_ROWS(movsx, 16),
                                                  EXTEND_ROWS(movsx, 32)};

bool bind_extend(struct x86_decode *d, struct x86_insn *i)
{
    unsigned source = size_index(d->op[1].size / 8), dest = size_index(d->op[0].size / 8);
    bool mem = i->flags & INSN_MEM;

    if (dest < 1)
        return false;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_MOVZX)
        i->fn = movzx_table[source][dest - 1][mem];
    else
        i->fn = movsx_table[source][dest - 1][mem];
    return true;
}

/* ---- LEA ---- */

HANDLER(lea16)
{
    X86_BEGIN(c, i);
    X86_REG16(c, i->r0) = (uint16_t)x86_ea(c, i);
    X86_NEXT(c, i);
}

HANDLER(lea32)
{
    X86_REG64(c, i->r0) = (uint32_t)x86_ea(c, i);
    X86_NEXT(c, i);
}

HANDLER(lea64)
{
    X86_REG64(c, i->r0) = x86_ea(c, i);
    X86_NEXT(c, i);
}

bool bind_lea(struct x86_decode *d, struct x86_insn *i)
{
    static x86_handler *const table[] = {NULL, lea16, lea32, lea64};

    i->fn = table[size_index(i->size)];
    return i->fn;
}

/* ---- CMOVcc and SETcc; aux is the condition ---- */

#define CMOV_FNS(bits, type, sfx)                                                                  \
    HANDLER(cmov##bits##_r)                                                                        \
    {                                                                                              \
        type v = cc_test(c->s.cc, i->aux) ? X86_REG##bits(c, i->r1) : X86_REG##bits(c, i->r0);     \
        SET_REG##bits(c, i->r0, v);                                                                \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(cmov##bits##_m)                                                                        \
    {                                                                                              \
        type v;                                                                                    \
        X86_BEGIN(c, i);                                                                           \
        v = x86_read##bits(c, i->seg, x86_ea(c, i));                                               \
        if (!cc_test(c->s.cc, i->aux))                                                             \
            v = X86_REG##bits(c, i->r0);                                                           \
        SET_REG##bits(c, i->r0, v);                                                                \
        X86_NEXT(c, i);                                                                            \
    }
SIZES_WLQ(CMOV_FNS)

HANDLER(setcc_r)
{
    X86_REG8(c, i->r0) = cc_test(c->s.cc, i->aux);
    X86_NEXT(c, i);
}

HANDLER(setcc_m)
{
    X86_BEGIN(c, i);
    x86_write8(c, i->seg, x86_ea(c, i), cc_test(c->s.cc, i->aux));
    X86_NEXT(c, i);
}

bool bind_cmov(struct x86_decode *d, struct x86_insn *i)
{
    static x86_handler *const table[4][2] = {
        {NULL, NULL}, {cmov16_r, cmov16_m}, {cmov32_r, cmov32_m}, {cmov64_r, cmov64_m}};

    i->aux = d->z.opcode & 15;
    i->fn = table[size_index(i->size)][(i->flags & INSN_MEM) != 0];
    return true;
}

bool bind_setcc(struct x86_decode *d, struct x86_insn *i)
{
    i->aux = d->z.opcode & 15;
    i->fn = i->flags & INSN_MEM ? setcc_m : setcc_r;
    return true;
}

/* ---- BSWAP, MOVBE ---- */

static uint64_t byte_swap(uint64_t v, unsigned size)
{
    return __builtin_bswap64(v) >> (64 - size * 8);
}

HANDLER(bswap_op)
{
    /* 16-bit BSWAP is undefined; processors clear the register's low half. */
    uint64_t v = x86_reg_get(c, i->r0, i->size);

    x86_reg_set(c, i->r0, i->size, i->size == 2 ? 0 : byte_swap(v, i->size));
    X86_NEXT(c, i);
}

HANDLER(movbe_rm)
{
    uint64_t v;

    X86_BEGIN(c, i);
    v = x86_read(c, i->seg, x86_ea(c, i), i->size);
    x86_reg_set(c, i->r0, i->size, byte_swap(v, i->size));
    X86_NEXT(c, i);
}

HANDLER(movbe_mr)
{
    X86_BEGIN(c, i);
    x86_write(c, i->seg, x86_ea(c, i), byte_swap(x86_reg_get(c, i->r0, i->size), i->size),
              i->size);
    X86_NEXT(c, i);
}

bool bind_bswap(struct x86_decode *d, struct x86_insn *i)
{
    i->fn = bswap_op;
    return true;
}

bool bind_movbe(struct x86_decode *d, struct x86_insn *i)
{
    i->fn = d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? movbe_mr : movbe_rm;
    return true;
}

/* ---- XLAT, CBW..CDQE, CWD..CQO ---- */

HANDLER(xlat)
{
    uint64_t ea = c->s.reg[X86_RBX] + X86_REG8(c, 0);

    X86_BEGIN(c, i);
    ea = ea << i->ea_shift >> i->ea_shift;
    X86_REG8(c, 0) = x86_read8(c, i->seg, ea);
    X86_NEXT(c, i);
}

HANDLER(cbw)
{
    x86_reg_set(c, 0, i->size, (uint64_t)sext(c->s.reg[X86_RAX], i->size / 2));
    X86_NEXT(c, i);
}

HANDLER(cwd)
{
    x86_reg_set(c, X86_RDX * 8, i->size, sext(c->s.reg[X86_RAX], i->size) < 0 ? ~0ull : 0);
    X86_NEXT(c, i);
}

bool bind_xlat(struct x86_decode *d, struct x86_insn *i)
{
    i->fn = xlat;
    return true;
}

bool bind_convert(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
        i->fn = cbw;
        break;
    default:
        i->fn = cwd;
        break;
    }
    i->size = d->z.operand_width / 8;
    return true;
}
