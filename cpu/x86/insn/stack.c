/*
 * PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE (SDM Vol. 2).
 */
#include "cpu/x86/insn/ops.h"
#include "cpu/x86/seg.h"

/* 64-bit mode with 64-bit operands: nearly all pushes there are. */
HANDLER(push64_r)
{
    uint64_t sp = c->s.reg[X86_RSP] - 8;

    X86_BEGIN(c, i);
    x86_write64(c, X86_SS, sp, X86_REG64(c, i->r0));
    c->s.reg[X86_RSP] = sp;
    X86_NEXT(c, i);
}

HANDLER(pop64_r)
{
    uint64_t v;

    X86_BEGIN(c, i);
    v = x86_read64(c, X86_SS, c->s.reg[X86_RSP]);
    c->s.reg[X86_RSP] += 8;
    X86_REG64(c, i->r0) = v; /* POP RSP: the value popped wins */
    X86_NEXT(c, i);
}

HANDLER(push_r)
{
    X86_BEGIN(c, i);
    stack_push(c, x86_reg_get(c, i->r0, i->size), i->size);
    X86_NEXT(c, i);
}

HANDLER(push_i)
{
    X86_BEGIN(c, i);
    stack_push(c, i->imm, i->size);
    X86_NEXT(c, i);
}

HANDLER(push_m)
{
    X86_BEGIN(c, i);
    stack_push(c, x86_read(c, i->seg, x86_ea(c, i), i->size), i->size);
    X86_NEXT(c, i);
}

HANDLER(pop_r)
{
    uint64_t v;

    X86_BEGIN(c, i);
    v = stack_peek(c, i->size);
    stack_drop(c, i->size);
    x86_reg_set(c, i->r0, i->size, v);
    X86_NEXT(c, i);
}

/* An address based on RSP uses its value after the pop (SDM Vol. 2, POP). */
HANDLER(pop_m)
{
    uint64_t v, ea, old = c->s.reg[X86_RSP];

    X86_BEGIN(c, i);
    v = stack_peek(c, i->size);
    stack_drop(c, i->size);
    ea = x86_ea(c, i);
    uint64_t moved = c->s.reg[X86_RSP];
    c->s.reg[X86_RSP] = old; /* the write may fault */
    x86_write(c, i->seg, ea, v, i->size);
    c->s.reg[X86_RSP] = moved;
    X86_NEXT(c, i);
}

/* A 32-bit push of a segment register writes 16 bits only, as processors do
 * (SDM Vol. 2, PUSH: "only the lower 16 bits are written"). */
HANDLER(push_seg)
{
    uint64_t sp = (c->s.reg[X86_RSP] - i->size) & c->sp_mask;

    X86_BEGIN(c, i);
    x86_probe_write(c, X86_SS, sp, i->size);
    if (i->size == 8)
        x86_write64(c, X86_SS, sp, c->s.seg[i->aux].selector);
    else
        x86_write16(c, X86_SS, sp, c->s.seg[i->aux].selector);
    stack_set(c, sp);
    X86_NEXT(c, i);
}

HANDLER(pop_seg)
{
    uint16_t selector;

    X86_BEGIN(c, i);
    selector = (uint16_t)x86_read16(c, X86_SS, stack_pointer(c));
    uint64_t old = c->s.reg[X86_RSP];
    uint64_t old_mask = c->sp_mask;
    x86_load_seg(c, i->aux, selector);
    /* The stack moves by the old stack's size, even for POP SS. */
    uint64_t sp = (old + i->size) & old_mask;
    if (old_mask == 0xffff)
        X86_REG16(c, X86_RSP * 8) = (uint16_t)sp;
    else
        c->s.reg[X86_RSP] = sp;
    if (i->aux == X86_SS) {
        c->s.shadow = SHADOW_MOV_SS;
        c->slow = 1;
    }
    X86_END_FALLTHROUGH(c, i);
}

bool bind_push(struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedOperand *a = &d->op[0];

    i->size = d->z.operand_width / 8;
    if (a->type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(a->reg.value) == ZYDIS_REGCLASS_SEGMENT) {
        i->aux = x86_seg_of(a->reg.value);
        i->fn = push_seg;
    } else if (a->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        i->fn = i->size == 8 ? push64_r : push_r;
    } else if (a->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        i->imm = (uint64_t)sext(a->imm.value.u, d->z.raw.imm[0].size / 8);
        i->fn = push_i;
    } else {
        i->fn = push_m;
    }
    return true;
}

bool bind_pop(struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedOperand *a = &d->op[0];

    i->size = d->z.operand_width / 8;
    if (a->type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(a->reg.value) == ZYDIS_REGCLASS_SEGMENT) {
        i->aux = x86_seg_of(a->reg.value);
        i->flags |= INSN_LAST;
        i->fn = pop_seg;
    } else if (a->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        i->fn = i->size == 8 ? pop64_r : pop_r;
    } else {
        i->fn = pop_m;
    }
    return true;
}

/* ---- PUSHA, POPA ---- */

HANDLER(pusha)
{
    uint64_t sp = c->s.reg[X86_RSP];
    unsigned n;

    X86_BEGIN(c, i);
    /* Every slot must be writable before the first is written. */
    for (n = 0; n < 8; n++)
        x86_probe_write(c, X86_SS, (sp - (n + 1) * i->size) & c->sp_mask, i->size);
    for (n = 0; n < 8; n++)
        x86_write(c, X86_SS, (sp - (n + 1) * i->size) & c->sp_mask, zext(c->s.reg[n], i->size),
                  i->size);
    stack_set(c, sp - 8u * i->size);
    X86_NEXT(c, i);
}

HANDLER(popa)
{
    uint64_t sp = c->s.reg[X86_RSP], v[8];

    X86_BEGIN(c, i);
    for (unsigned n = 0; n < 8; n++)
        v[n] = x86_read(c, X86_SS, (sp + n * i->size) & c->sp_mask, i->size);
    for (unsigned n = 0; n < 8; n++)
        if (7 - n != X86_RSP)
            x86_reg_set(c, (7 - n) * 8, i->size, v[n]);
    stack_set(c, sp + 8u * i->size);
    X86_NEXT(c, i);
}

bool bind_pusha(struct x86_decode *d, struct x86_insn *i)
{
    i->size = d->z.operand_width / 8;
    i->fn = d->z.mnemonic == ZYDIS_MNEMONIC_PUSHA || d->z.mnemonic == ZYDIS_MNEMONIC_PUSHAD ? pusha
                                                                                            : popa;
    return true;
}

/* ---- PUSHF, POPF ---- */

HANDLER(pushf)
{
    uint64_t f = x86_rflags(&c->s) & ~(uint64_t)(FLAG_VM | FLAG_RF);

    X86_BEGIN(c, i);
    if (x86_v86_mode(&c->s) && x86_iopl(&c->s) < 3) {
        if (!(c->s.cr4 & CR4_VME) || i->size != 2)
            x86_raise_gp(c, 0);
        /* Virtual-8086 mode extensions: VIF in the place of IF, IOPL 3. */
        f = (f & ~(uint64_t)FLAG_IF) | FLAG_IOPL | (f & FLAG_VIF ? FLAG_IF : 0);
    }
    stack_push(c, zext(f, i->size), i->size);
    X86_NEXT(c, i);
}

HANDLER(popf)
{
    uint64_t mask = FLAG_STATUS | FLAG_TF | FLAG_DF | FLAG_NT, v;
    unsigned cpl = c->s.cpl, iopl = x86_iopl(&c->s);

    X86_BEGIN(c, i);
    if (x86_v86_mode(&c->s) && iopl < 3) {
        if (!(c->s.cr4 & CR4_VME) || i->size != 2)
            x86_raise_gp(c, 0);
        v = stack_peek(c, 2);
        if ((v & FLAG_TF) || ((v & FLAG_IF) && (c->s.rflags & FLAG_VIP)))
            x86_raise_gp(c, 0);
        stack_drop(c, 2);
        if (v & FLAG_IF)
            c->s.rflags |= FLAG_VIF;
        else
            c->s.rflags &= ~(uint64_t)FLAG_VIF;
        x86_write_rflags(c, v, mask);
        X86_END_FALLTHROUGH(c, i);
    }
    v = stack_peek(c, i->size);
    if (i->size > 2)
        mask |= FLAG_AC | FLAG_ID | FLAG_RF;
    if (cpl == 0)
        mask |= FLAG_IOPL | FLAG_IF;
    else if (cpl <= iopl)
        mask |= FLAG_IF;
    /* POPF clears RF (SDM Vol. 2); VIF and VIP are left alone. */
    stack_drop(c, i->size);
    x86_write_rflags(c, v & ~(uint64_t)FLAG_RF, mask);
    X86_END_FALLTHROUGH(c, i);
}

bool bind_pushf(struct x86_decode *d, struct x86_insn *i)
{
    i->size = d->z.operand_width / 8;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        i->flags |= INSN_LAST;
        i->fn = popf;
        break;
    default:
        i->fn = pushf;
        break;
    }
    return true;
}

/* ---- ENTER, LEAVE ---- */

HANDLER(enter)
{
    uint64_t sp = c->s.reg[X86_RSP], frame, new_bp, bp = c->s.reg[X86_RBP];
    unsigned level = i->aux & 31, size = i->size;
    unsigned slots = 1 + level;

    X86_BEGIN(c, i);
    frame = (sp - size) & c->sp_mask;
    new_bp = (sp & ~c->sp_mask) | frame; /* all of ESP, also where the stack has 16 bits */
    for (unsigned n = 0; n < slots; n++) { /* whatever can fault does so now */
        if (n > 0 && n < level)
            x86_read(c, X86_SS, (bp - n * size) & c->sp_mask, size);
        x86_probe_write(c, X86_SS, (frame - n * size) & c->sp_mask, size);
    }
    /* The manual's last step: the new stack top must be writable. */
    sp = (sp - slots * size - i->imm) & c->sp_mask;
    x86_probe_write(c, X86_SS, sp, size);
    x86_write(c, X86_SS, frame, zext(bp, size), size);
    /* One after the other: what is copied may have been pushed just now. */
    for (unsigned n = 1; n < level; n++)
        x86_write(c, X86_SS, (frame - n * size) & c->sp_mask,
                  x86_read(c, X86_SS, (bp - n * size) & c->sp_mask, size), size);
    if (level)
        x86_write(c, X86_SS, (frame - level * size) & c->sp_mask, zext(new_bp, size), size);
    if (size == 2)
        X86_REG16(c, X86_RBP * 8) = (uint16_t)new_bp;
    else
        c->s.reg[X86_RBP] = size == 4 ? (uint32_t)new_bp : new_bp;
    stack_set(c, sp);
    X86_NEXT(c, i);
}

HANDLER(leave)
{
    uint64_t sp = c->s.reg[X86_RBP] & c->sp_mask, v;

    X86_BEGIN(c, i);
    v = x86_read(c, X86_SS, sp, i->size);
    stack_set(c, sp + i->size);
    x86_reg_set(c, X86_RBP * 8, i->size, v);
    X86_NEXT(c, i);
}

bool bind_enter(struct x86_decode *d, struct x86_insn *i)
{
    i->size = d->z.operand_width / 8;
    if ((d->mode & MODE_SIZE) == MODE_64 && i->size == 4)
        i->size = 8;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_LEAVE) {
        i->fn = leave;
        return true;
    }
    i->imm = d->z.raw.imm[0].value.u & 0xffff;
    i->aux = (uint8_t)d->z.raw.imm[1].value.u;
    i->fn = enter;
    return true;
}
