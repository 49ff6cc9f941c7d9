/*
 * PUSH, POP, LEAVE in 64-bit mode and on a flat 32-bit stack; PUSH and POP of
 * registers by 16-bit code, if the stack is of 16 bits too. The stack has L0 slot 0
 * to itself.
 */
#include "engine/jit/translate.h"

/* The stack pointer moves by n bytes. 32-bit writes clear the upper half; that of 16
 * bits leaves the rest alone. */
static void move_sp(struct tr *t, int32_t n)
{
    unsigned size = t->is_64 ? OP_W : t->is_flat ? 0 : OP_66;

    emit_rm(&t->e, size | 0x8d, H_R13, rm_mem(H_R13, n));
}

static unsigned size_word(unsigned size)
{
    return size == 8 ? OP_W : size == 2 ? OP_66 : 0;
}

static bool emit_push(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const ZydisDecodedOperand *o = &d->op[0];
    unsigned size = d->z.operand_width / 8, reg;
    struct emit *e = &t->e;
    struct rm rm;

    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        rm = mem_stack(t, -(int32_t)size, size, true);
        emit_rm(e, size_word(size) | 0xc7, 0, rm);
        if (size == 2)
            emit16(e, (unsigned)o->imm.value.u);
        else
            emit32(e, (uint32_t)o->imm.value.u);
        move_sp(t, -(int32_t)size);
        return true;
    }
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!mem_possible(t))
            return false;
        rm = mem_operand(t, size, false);
        emit_rm(e, size_word(size) | 0x8b, T1, rm);
        if (t->is_64) {
            rm = mem_stack(t, -(int32_t)size, size, true);
            reg = T1;
        } else {
            emit_store(e, JIT_RM(saved_value), T1);
            rm = mem_stack(t, -(int32_t)size, size, true);
            reg = mem_spare(t, &rm);
            emit_load(e, reg, JIT_RM(saved_value));
        }
        emit_rm(e, size_word(size) | 0x89, reg, rm);
        move_sp(t, -(int32_t)size);
        return true;
    }
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT) {
        /* Of four bytes the upper two stay. */
        rm = mem_stack(t, -(int32_t)size, size, true);
        reg = mem_spare(t, &rm);
        emit_rm(e, OP_0F | 0xb7, reg,
                rm_mem(H_RSP, (int32_t)(offsetof(struct x86_vcpu, s.seg) +
                                        tr_insn(t)->aux * sizeof(struct x86_seg) +
                                        offsetof(struct x86_seg, selector))));
        emit_rm(e, size_word(size == 8 ? 8 : 2) | 0x89, reg, rm);
        move_sp(t, -(int32_t)size);
        return true;
    }
    reg = host_of(t, x86_reg_offset(o->reg.value) / 8);
    rm = mem_stack(t, -(int32_t)size, size, true);
    if (reg == H_NONE) {
        reg = mem_spare(t, &rm);
        emit_load(e, reg, guest_rm(t, x86_reg_offset(o->reg.value) / 8));
    }
    emit_rm(e, size_word(size) | 0x89, reg, rm);
    move_sp(t, -(int32_t)size);
    return true;
}

static bool emit_pop(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const ZydisDecodedOperand *o = &d->op[0];
    unsigned size = d->z.operand_width / 8, g, reg;
    struct emit *e = &t->e;
    struct rm rm;

    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
        ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT)
        return false;
    g = x86_reg_offset(o->reg.value) / 8;
    if (g == X86_RSP && size == 2)
        return false;
    reg = host_of(t, g);
    rm = mem_stack(t, 0, size, false);
    emit_rm(e, size_word(size) | 0x8b, reg == H_NONE ? T0 : reg, rm);
    if (reg == H_NONE)
        emit_rm(e, (size == 2 ? OP_66 : OP_W) | 0x89, T0, guest_rm(t, g));
    if (g != X86_RSP)
        move_sp(t, (int32_t)size);
    return true;
}

static bool emit_leave(struct tr *t)
{
    unsigned size = tr_decode(t)->z.operand_width / 8;
    struct emit *e = &t->e;
    struct rm rm;

    if (size != (t->is_64 ? 8u : 4u))
        return false;
    /* [rbp], and only then RSP. */
    rm = mem_frame(t, size);
    emit_rm(e, size_word(size) | 0x8b, T0, rm);
    emit_rm(e, (t->is_64 ? OP_W : 0) | 0x8d, H_R13, rm_mem(H_RBP, (int32_t)size));
    emit_rm(e, size_word(size) | 0x8b, H_RBP, rm_reg(T0));
    return true;
}

/* Neither flat nor of 64 bits: what firmware and boot loaders do most. */
static bool emit_stack16(struct tr *t)
{
    const ZydisDecodedOperand *o = &tr_decode(t)->op[0];

    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return false;
    switch (tr_decode(t)->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return emit_push(t);
    case ZYDIS_MNEMONIC_POP:
        return emit_pop(t);
    default:
        return false;
    }
}

bool emit_stack(struct tr *t)
{
    if (!t->is_64 && !t->is_flat)
        return (t->key & MODE_SIZE) == MODE_16 && emit_stack16(t);
    switch (tr_decode(t)->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return emit_push(t);
    case ZYDIS_MNEMONIC_POP:
        return emit_pop(t);
    case ZYDIS_MNEMONIC_LEAVE:
        return emit_leave(t);
    default:
        return false;
    }
}
