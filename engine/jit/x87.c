/*
 * x87 instructions (SDM Vol. 1, chapter 8): the guest's own, with its x87 state
 * in the host's unit, as long as all exceptions are masked and none is pending.
 * Units say in their key which it is. MMX is in vector.c.
 *
 * FIP is Vireo's own: each instruction that is not a control instruction stores
 * its RIP, unless the next one does before anybody can look. FOP and FDP follow
 * where the model has no FDP_EXCPTN_ONLY; else only errors set them.
 *
 * FLDENV and its like, FNINIT, and real mode, where FIP is a linear address,
 * keep their handlers.
 */
#include "engine/jit/vector.h"

#include "cpu/x86/vec/vec.h"
#include "cpu/x86/vec/vec_runtime.h"

static bool has_handler(const struct x86_decode *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNINIT:
        return true;
    default:
        return false;
    }
}

/* The same as XF_CONTROL. */
static bool is_control(const struct x86_decode *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FWAIT:
        return true;
    default:
        return false;
    }
}

static bool is_memory(const struct x86_decode *d)
{
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return true;
    }
    return false;
}

static bool is_written(const struct x86_decode *d)
{
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return d->op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    }
    return false;
}

/* Will the next instruction set FIP, without a chance to leave the unit? */
static bool fip_is_dead(const struct tr *t)
{
    const struct x86_decode *d = tr_decode(t) + 1;

    return t->k + 1 < t->end && vec_binder_for(&d->z) == bind_x87 &&
           !is_memory(d) && !is_control(d) && !has_handler(d);
}

static void note_pointers(struct tr *t)
{
    const struct x86_insn *i = tr_insn(t);
    bool follows = t->c->vec->track_x87;
    struct emit *e = &t->e;

    if (is_control(tr_decode(t)))
        return;
    if (follows) {
        emit_rm(e, OP_66 | 0xc7, 0, CPU_RM(s.x.fop));
        emit16(e, i->spare);
        if (i->flags & INSN_MEM) {
            emit_ea(t, T1);
            emit_store(e, CPU_RM(s.x.fdp), T1);
        }
    }
    if (fip_is_dead(t))
        return;
    emit_load(e, T0, RM_PAGE_RIP);
    emit_rm(e, (t->is_64 ? OP_W : 0) | 0x8d, T0, rm_mem(T0, i->offset));
    if ((t->key & MODE_SIZE) == MODE_16)
        emit_rm(e, OP_0F | 0xb7, T0, rm_reg(T0));
    emit_store(e, CPU_RM(s.x.fip), T0);
}

/* FLDCW, if it leaves everything masked. */
static bool emit_fldcw(struct tr *t)
{
    struct emit *e = &t->e;
    struct rm rm;

    flags_clobber(t);
    rm = mem_operand(t, 2, false);
    emit_rm(e, OP_0F | 0xb7, T1, rm); /* movzx */
    emit_store(e, JIT_RM(saved_t1), T1);
    emit_rm(e, 0xf7, 2, rm_reg(T1)); /* not */
    emit_rm(e, OP_BYTE_RM | 0xf6, 0, rm_reg(T1));
    emit8(e, FCW_MASKS);
    slow_if(t, 5);
    emit_rm(e, 0xd9, 5, JIT_RM(saved_t1));
    return true;
}

bool emit_x87(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const struct x86_insn *i = tr_insn(t);
    unsigned use = t->t->use[t->k];
    bool needs_flags = (use & FLAGS_READ) || ((use & FLAGS_PASS) && t->t->live[t->k + 1]);
    bool with_memory = is_memory(d);
    struct emit *e = &t->e;

    if ((t->key & (KEY_X87_UNMASKED | MODE_REAL)) || has_handler(d))
        return false;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_FWAIT)
        return true;
    if (with_memory && (!mem_possible(t) || !i->size || i->size > 64))
        return false;
    vector_need(t, LIVE_X87);
    if (d->z.mnemonic == ZYDIS_MNEMONIC_FLDCW)
        return emit_fldcw(t);
    if (with_memory) {
        emit_rm(e, d->z.opcode, d->z.raw.modrm.reg, mem_operand(t, i->size, is_written(d)));
    } else {
        if (needs_flags)
            flags_to_host(t);
        emit8(e, d->z.opcode);
        emit8(e, 0xc0 | (unsigned)d->z.raw.modrm.reg << 3 | d->z.raw.modrm.rm);
        if (d->z.mnemonic == ZYDIS_MNEMONIC_FNSTSW)
            emit_rm(e, OP_66 | 0x89, H_RAX, rm_reg(H_R14)); /* AX */
        if (use & (FLAGS_PASS | FLAGS_KILL))
            flags_written(t, (struct recipe){RECIPE_NONE, 0});
    }
    note_pointers(t);
    return true;
}
