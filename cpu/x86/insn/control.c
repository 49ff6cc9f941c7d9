/*
 * Control transfers: Jcc JMP CALL RET LOOP JCXZ, near and far, INT, IRET,
 * SYSCALL and relatives, and PUSH POP ENTER LEAVE (SDM Vol. 2).
 *
 * Near direct branches return NEXT_LINK0 (fall through) or NEXT_LINK1 (taken),
 * because their successors lie at fixed distances from the block.
 */
#include "cpu/x86/debug.h"
#include "cpu/x86/insn/ops.h"
#include "cpu/x86/seg.h"

static inline uint64_t branch_target(const struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t rip = c->s.reg[X86_RIP] + (uint64_t)i->target;

    /* 32 bits in 16-bit code, too: then the limit check fails. */
    return i->size == 2 ? rip & 0xffff : i->size == 4 ? (uint32_t)rip : rip;
}

static inline enum x86_next take_branch(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t rip = branch_target(c, i);

    check_target(c, rip);
    c->s.reg[X86_RIP] = rip;
    return NEXT_LINK1;
}

static inline enum x86_next fall_through(struct x86_vcpu *c, const struct x86_insn *i)
{
    c->s.reg[X86_RIP] = x86_next_rip(c, i);
    return NEXT_LINK0;
}

/* ---- Jcc: one handler a condition ---- */

#define JCC(name, test)                                                                            \
    HANDLER(jcc_##name)                                                                              \
    {                                                                                              \
        unsigned cc = c->s.cc;                                                                     \
        X86_BEGIN(c, i);                                                                           \
        return (test) ? take_branch(c, i) : fall_through(c, i);                                    \
    }
JCC(o, cc &CC_OF)
JCC(no, !(cc & CC_OF))
JCC(b, cc &CC_CF)
JCC(nb, !(cc & CC_CF))
JCC(z, cc &CC_ZF)
JCC(nz, !(cc & CC_ZF))
JCC(be, cc &(CC_CF | CC_ZF))
JCC(nbe, !(cc & (CC_CF | CC_ZF)))
JCC(s, cc &CC_SF)
JCC(ns, !(cc & CC_SF))
JCC(p, cc &CC_PF)
JCC(np, !(cc & CC_PF))
JCC(l, cc_less(cc))
JCC(nl, !cc_less(cc))
JCC(le, cc_less(cc) || (cc & CC_ZF))
JCC(nle, !(cc_less(cc) || (cc & CC_ZF)))

static void bind_target(struct x86_decode *d, struct x86_insn *i)
{
    i->target = (int64_t)i->offset + i->length + d->op[0].imm.value.s;
    i->size = d->z.operand_width / 8;
    if ((d->mode & MODE_SIZE) == MODE_64)
        i->size = 8; /* an operand-size prefix is ignored (GenuineIntel) */
    i->flags |= INSN_LAST;
}

bool bind_jcc(struct x86_decode *d, struct x86_insn *i)
{
    static x86_handler *const table[16] = {jcc_o, jcc_no, jcc_b, jcc_nb, jcc_z, jcc_nz, jcc_be, jcc_nbe,
                                           jcc_s, jcc_ns, jcc_p, jcc_np, jcc_l, jcc_nl, jcc_le, jcc_nle};

    bind_target(d, i);
    i->fn = table[d->z.opcode & 15];
    return true;
}

/* LOOP, LOOPE, LOOPNE, JCXZ by address size; aux: 0 LOOP, 1 LOOPE, 2 LOOPNE, 3 JCXZ */
HANDLER(loop_op)
{
    uint64_t mask = i->addr_size == 8 ? ~0ull : i->addr_size == 4 ? 0xffffffff : 0xffff;
    uint64_t count = c->s.reg[X86_RCX] & mask;
    bool taken;

    X86_BEGIN(c, i);
    if (i->aux == 3) {
        taken = count == 0;
    } else {
        count = (count - 1) & mask;
        taken = count != 0;
        if (i->aux == 1)
            taken = taken && (c->s.cc & CC_ZF);
        else if (i->aux == 2)
            taken = taken && !(c->s.cc & CC_ZF);
    }
    if (taken)
        check_target(c, branch_target(c, i));
    if (i->aux != 3)
        x86_reg_set(c, X86_RCX * 8, i->addr_size, count);
    return taken ? take_branch(c, i) : fall_through(c, i);
}

bool bind_loop(struct x86_decode *d, struct x86_insn *i)
{
    bind_target(d, i);
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_LOOP:
        i->aux = 0;
        break;
    case ZYDIS_MNEMONIC_LOOPE:
        i->aux = 1;
        break;
    case ZYDIS_MNEMONIC_LOOPNE:
        i->aux = 2;
        break;
    default:
        i->aux = 3;
        break;
    }
    i->fn = loop_op;
    return true;
}

/* ---- near JMP, CALL, RET ---- */

HANDLER(jmp_rel)
{
    X86_BEGIN(c, i);
    return take_branch(c, i);
}

HANDLER(call_rel)
{
    uint64_t rip = branch_target(c, i);

    X86_BEGIN(c, i);
    check_target(c, rip);
    stack_push(c, x86_next_rip(c, i), i->size);
    c->s.reg[X86_RIP] = rip;
    return NEXT_LINK1;
}

static uint64_t indirect_target(struct x86_vcpu *c, const struct x86_insn *i)
{
    return i->flags & INSN_MEM ? x86_read(c, i->seg, x86_ea(c, i), i->size)
                               : x86_reg_get(c, i->r0, i->size);
}

HANDLER(jmp_indirect)
{
    uint64_t rip;

    X86_BEGIN(c, i);
    rip = indirect_target(c, i);
    check_target(c, rip);
    c->s.reg[X86_RIP] = rip;
    return NEXT_LOOKUP;
}

HANDLER(call_indirect)
{
    uint64_t rip;

    X86_BEGIN(c, i);
    rip = indirect_target(c, i);
    check_target(c, rip);
    stack_push(c, x86_next_rip(c, i), i->size);
    c->s.reg[X86_RIP] = rip;
    return NEXT_LOOKUP;
}

HANDLER(ret_near64)
{
    uint64_t rip;

    X86_BEGIN(c, i);
    rip = x86_read64(c, X86_SS, c->s.reg[X86_RSP]);
    check_target(c, rip);
    c->s.reg[X86_RSP] += 8 + i->imm;
    c->s.reg[X86_RIP] = rip;
    return NEXT_LOOKUP;
}

HANDLER(ret_near)
{
    uint64_t rip;

    X86_BEGIN(c, i);
    rip = stack_peek(c, i->size);
    check_target(c, rip);
    stack_set(c, c->s.reg[X86_RSP] + i->size + i->imm);
    c->s.reg[X86_RIP] = rip;
    return NEXT_LOOKUP;
}

/* ---- far forms ---- */

/* The selector and offset of m16:16, m16:32, m16:64. */
static uint64_t far_pointer(struct x86_vcpu *c, const struct x86_insn *i, uint16_t *selector)
{
    uint64_t ea = x86_ea(c, i);
    uint64_t offset = x86_read(c, i->seg, ea, i->size);

    *selector = x86_read16(c, i->seg, x86_ea_behind(i, ea, i->size));
    return offset;
}

HANDLER(jmp_far)
{
    uint16_t selector = (uint16_t)i->spare;
    uint64_t offset = i->imm;

    X86_BEGIN(c, i);
    if (i->flags & INSN_MEM)
        offset = far_pointer(c, i, &selector);
    x86_far_jump(c, selector, offset, i->size, x86_next_rip(c, i));
    return NEXT_LOOKUP;
}

HANDLER(call_far)
{
    uint16_t selector = (uint16_t)i->spare;
    uint64_t offset = i->imm;

    X86_BEGIN(c, i);
    if (i->flags & INSN_MEM)
        offset = far_pointer(c, i, &selector);
    x86_far_call(c, selector, offset, i->size, x86_next_rip(c, i));
    return NEXT_LOOKUP;
}

HANDLER(ret_far)
{
    X86_BEGIN(c, i);
    x86_far_return(c, i->size, (unsigned)i->imm & 0xffff);
    return NEXT_LOOKUP;
}

HANDLER(iret)
{
    X86_BEGIN(c, i);
    x86_drain_stores();
    x86_iret(c, i->size);
    return NEXT_LOOKUP;
}

static bool is_64(const struct x86_decode *d)
{
    return (d->mode & MODE_SIZE) == MODE_64;
}

bool bind_jmp_call(struct x86_decode *d, struct x86_insn *i)
{
    bool call = d->z.mnemonic == ZYDIS_MNEMONIC_CALL;
    const ZydisDecodedOperand *a = &d->op[0];

    i->flags |= INSN_LAST;
    if (d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        if (a->type == ZYDIS_OPERAND_TYPE_POINTER) {
            i->spare = a->ptr.segment;
            i->imm = a->ptr.offset;
        }
        i->size = d->z.operand_width / 8;
        i->fn = call ? call_far : jmp_far;
        return true;
    }
    if (a->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        bind_target(d, i);
        i->fn = call ? call_rel : jmp_rel;
        return true;
    }
    i->size = is_64(d) ? 8 : d->z.operand_width / 8;
    i->fn = call ? call_indirect : jmp_indirect;
    return true;
}

bool bind_ret(struct x86_decode *d, struct x86_insn *i)
{
    i->flags |= INSN_LAST;
    i->imm = d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && d->z.operand_count_visible
                 ? d->op[0].imm.value.u & 0xffff
                 : 0;
    i->size = d->z.operand_width / 8;
    if (d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        i->fn = ret_far;
    } else if (is_64(d)) {
        i->size = 8;
        i->fn = ret_near64;
    } else {
        i->fn = ret_near;
    }
    return true;
}

bool bind_iret(struct x86_decode *d, struct x86_insn *i)
{
    i->flags |= INSN_LAST;
    i->size = d->z.mnemonic == ZYDIS_MNEMONIC_IRET ? 2 : d->z.mnemonic == ZYDIS_MNEMONIC_IRETD ? 4
                                                                                              : 8;
    i->fn = iret;
    return true;
}

/* ---- INT n, INT3, INTO, INT1, BOUND ---- */

HANDLER(int_op)
{
    X86_BEGIN(c, i);
    x86_interrupt(c, X86_EVENT_SOFT_INT, (uint8_t)i->imm, false, 0, x86_next_rip(c, i));
    return NEXT_LOOKUP;
}

HANDLER(into)
{
    X86_BEGIN(c, i);
    if (!(c->s.cc & CC_OF))
        return fall_through(c, i);
    x86_interrupt(c, X86_EVENT_SOFT_INT, VEC_OF, false, 0, x86_next_rip(c, i));
    return NEXT_LOOKUP;
}

HANDLER(int1)
{
    X86_BEGIN(c, i);
    x86_interrupt(c, X86_EVENT_INT1, VEC_DB, false, 0, x86_next_rip(c, i));
    x86_merge_pending_db(c);
    return NEXT_LOOKUP;
}

bool bind_int(struct x86_decode *d, struct x86_insn *i)
{
    i->flags |= INSN_LAST;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_INT:
        i->imm = d->op[0].imm.value.u & 0xff;
        i->fn = int_op;
        return true;
    case ZYDIS_MNEMONIC_INT3:
        i->imm = VEC_BP;
        i->aux = X86_INT_NOT_REDIRECTED;
        i->fn = int_op;
        return true;
    case ZYDIS_MNEMONIC_INTO:
        i->aux = X86_INT_NOT_REDIRECTED;
        i->fn = into;
        return true;
    case ZYDIS_MNEMONIC_INT1:
        i->fn = int1;
        return true;
    default:
        return false;
    }
}

HANDLER(bound)
{
    uint64_t ea = x86_ea(c, i);
    int64_t index = sext(x86_reg_get(c, i->r0, i->size), i->size), low, high;

    X86_BEGIN(c, i);
    low = sext(x86_read(c, i->seg, ea, i->size), i->size);
    high = sext(x86_read(c, i->seg, x86_ea_behind(i, ea, i->size), i->size), i->size);
    if (index < low || index > high)
        x86_raise(c, VEC_BR);
    X86_NEXT(c, i);
}

bool bind_bound(struct x86_decode *d, struct x86_insn *i)
{
    i->size = d->z.operand_width / 8;
    i->fn = bound;
    return true;
}

/* ---- SYSCALL, SYSRET, SYSENTER, SYSEXIT ---- */

HANDLER(syscall_op)
{
    X86_BEGIN(c, i);
    x86_syscall(c, x86_next_rip(c, i));
    return NEXT_LOOKUP;
}

HANDLER(sysret_op)
{
    X86_BEGIN(c, i);
    x86_sysret(c, i->size);
    return NEXT_LOOKUP;
}

HANDLER(sysenter_op)
{
    X86_BEGIN(c, i);
    x86_sysenter(c);
    return NEXT_LOOKUP;
}

HANDLER(sysexit_op)
{
    X86_BEGIN(c, i);
    x86_sysexit(c, i->size);
    return NEXT_LOOKUP;
}

bool bind_syscall(struct x86_decode *d, struct x86_insn *i)
{
    i->flags |= INSN_LAST;
    i->size = is_64(d) && d->z.raw.rex.W ? 8 : 4;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL: /* GenuineIntel: in 64-bit mode only */
        i->fn = syscall_op;
        return is_64(d);
    case ZYDIS_MNEMONIC_SYSRET:
        i->fn = sysret_op;
        return is_64(d);
    case ZYDIS_MNEMONIC_SYSENTER:
        i->fn = sysenter_op;
        return true;
    case ZYDIS_MNEMONIC_SYSEXIT:
        i->fn = sysexit_op;
        return true;
    default:
        return false;
    }
}
