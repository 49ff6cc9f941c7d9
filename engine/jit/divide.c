/*
 * DIV and IDIV (SDM Vol. 2). The host's own, behind a test that it will not
 * fault: #DE is the handler's. For IDIV the test covers the dividends that
 * CBW..CQO make and divisors other than 0 and -1; the rest, which may be fine,
 * is the handler's as well.
 */
#include "engine/jit/translate.h"

enum { CC_NE = 5, CC_AE = 3, CC_BE = 6 };

/* High half of the dividend >= divisor: the quotient does not fit, or there is
 * none. T0 is used. */
static void check_unsigned(struct tr *t, unsigned size, unsigned word, struct rm s)
{
    struct emit *e = &t->e;

    if (size == 8) {
        emit_rm(e, 0x8b, T0, rm_reg(H_R14));
        emit_rm(e, 0xc1, 5, rm_reg(T0)); /* shr eax, 8 */
        emit8(e, 8);
        emit_rm(e, 0x3a | OP_BYTE_REG | OP_BYTE_RM, T0, s);
    } else {
        emit_rm(e, word | 0x3b, H_RDX, s);
    }
    slow_if(t, CC_AE);
}

static void check_signed(struct tr *t, unsigned size, unsigned word, struct rm s)
{
    struct emit *e = &t->e;

    /* The dividend is the sign extension of its lower half.. */
    if (size == 8) {
        emit_rm(e, OP_0F | 0xbe | OP_BYTE_RM, T0, rm_reg(H_R14)); /* movsx eax, al */
        emit_rm(e, OP_66 | 0x3b, T0, rm_reg(H_R14));
    } else {
        if (size == 16)
            emit_rm(e, OP_0F | 0xbf, T0, rm_reg(H_R14)); /* movsx eax, ax */
        else
            emit_rm(e, word | 0x8b, T0, rm_reg(H_R14));
        emit_rm(e, (size == 64 ? OP_W : 0) | 0xc1, 7, rm_reg(T0)); /* sar */
        emit8(e, size == 64 ? 63 : 31);
        emit_rm(e, word | 0x3b, T0, rm_reg(H_RDX));
    }
    slow_if(t, CC_NE);
    /* ..and the divisor neither 0 nor -1. */
    emit_rm(e, (size == 64 ? OP_W : 0) | 0x8d, T0, rm_mem(s.base, 1));
    if (size == 8) {
        emit8(e, 0x3c); /* cmp al, 1 */
        emit8(e, 1);
    } else {
        emit_alu_imm(e, word, 7, rm_reg(T0), 1);
    }
    slow_if(t, CC_BE);
}

bool emit_divide(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const ZydisDecodedOperand *o = &d->op[0];
    unsigned size = o->size, word = size == 64 ? OP_W : size == 16 ? OP_66 : 0;
    struct emit *e = &t->e;
    struct rm s;

    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!mem_possible(t))
            return false;
        s = mem_operand(t, size / 8, false);
        emit_rm(e, size == 8 ? OP_0F | 0xb6 : word | 0x8b, T1, s);
        s = rm_reg(T1);
        flags_clobber(t);
    } else {
        if (o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH)
            return false;
        flags_clobber(t);
        s = guest_rm(t, x86_reg_offset(o->reg.value) / 8);
        if (s.is_mem) {
            emit_load(e, T1, s);
            s = rm_reg(T1);
        }
    }
    if (d->z.mnemonic == ZYDIS_MNEMONIC_IDIV)
        check_signed(t, size, word, s);
    else
        check_unsigned(t, size, word, s);
    /* Some processors leave the undefined flags as they were. */
    if (t->t->live[t->k + 1])
        flags_to_host(t);
    emit_mov(e, H_RAX, H_R14);
    emit_rm(e, size == 8 ? 0xf6 | OP_BYTE_RM : word | 0xf7, d->z.raw.modrm.reg, s);
    emit_mov(e, H_R14, H_RAX);
    flags_written(t, (struct recipe){RECIPE_NONE, 0});
    return true;
}
