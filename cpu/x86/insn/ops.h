/*
 * What the instruction files share: the host's flags in the guest's form, one
 * macro a size, conditions, stack, near targets.
 */
#ifndef CPU_X86_INSN_OPS_H
#define CPU_X86_INSN_OPS_H

#include "cpu/x86/decode.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/mmu.h"

#define HANDLER(name)                                                                              \
    static enum x86_next name(struct x86_vcpu *c, const struct x86_insn *i)

/* X(bits, type, assembler suffix) */
#define SIZES(X)                                                                                   \
    X(8, uint8_t, "b")                                                                             \
    X(16, uint16_t, "w")                                                                           \
    X(32, uint32_t, "l")                                                                           \
    X(64, uint64_t, "q")
#define SIZES_WLQ(X)                                                                               \
    X(16, uint16_t, "w")                                                                           \
    X(32, uint32_t, "l")                                                                           \
    X(64, uint64_t, "q")

/* A result into a register: 32-bit writes clear the upper half. */
#define SET_REG8(c, off, v) (X86_REG8(c, off) = (v))
#define SET_REG16(c, off, v) (X86_REG16(c, off) = (v))
#define SET_REG32(c, off, v) (X86_REG64(c, off) = (uint32_t)(v))
#define SET_REG64(c, off, v) (X86_REG64(c, off) = (v))

/* Assembler: the host's status flags into ax as enum x86_cc, and back. ADD of
 * 127 to OF in AL overflows exactly when OF was 1; SAHF does the rest. */
#define FLAGS_SAVE "lahf\n\tseto %%al"
#define FLAGS_LOAD "addb $127, %%al\n\tsahf\n\t"
#define FLAGS_LOAD_CF "btl $8, %%eax\n\t"

/* 0..3 for 1, 2, 4, 8 bytes. */
static inline unsigned size_index(unsigned bytes)
{
    return (unsigned)__builtin_ctz(bytes);
}

/* The sixteen conditions (SDM Vol. 1, appendix B) on enum x86_cc. */
static inline bool cc_less(unsigned cc)
{
    return ((cc >> 15) ^ cc) & 1;
}

static inline bool cc_test(unsigned cc, unsigned condition)
{
    bool r;

    switch (condition >> 1) {
    case 0:
        r = cc & CC_OF;
        break;
    case 1:
        r = cc & CC_CF;
        break;
    case 2:
        r = cc & CC_ZF;
        break;
    case 3:
        r = cc & (CC_CF | CC_ZF);
        break;
    case 4:
        r = cc & CC_SF;
        break;
    case 5:
        r = cc & CC_PF;
        break;
    case 6:
        r = cc_less(cc);
        break;
    default:
        r = cc_less(cc) || (cc & CC_ZF);
        break;
    }
    return r ^ (condition & 1);
}

/* Near targets: #GP(0) before anything is committed. */
static inline void check_target(struct x86_vcpu *c, uint64_t rip)
{
    if (unlikely(rip + c->code_bias > c->code_span))
        x86_raise_gp(c, 0);
}

/* Where the second part of a memory operand lies: an operand is one piece of
 * linear memory, of which only the beginning is cut to the address size. Beyond
 * 4 GiB, what is not 64-bit code begins again at 0. */
static inline uint64_t x86_ea_behind(const struct x86_insn *i, uint64_t ea, unsigned bytes)
{
    return i->flags & INSN_64 ? ea + bytes : (uint32_t)(ea + bytes);
}

/* ---- stack: SS:RSP by the stack's address size ---- */

static inline uint64_t stack_pointer(const struct x86_vcpu *c)
{
    return c->s.reg[X86_RSP] & c->sp_mask;
}

static inline void stack_set(struct x86_vcpu *c, uint64_t rsp)
{
    if (c->sp_mask == 0xffff)
        X86_REG16(c, X86_RSP * 8) = (uint16_t)rsp;
    else
        c->s.reg[X86_RSP] = rsp & c->sp_mask; /* 32-bit writes clear the rest */
}

static inline void stack_push(struct x86_vcpu *c, uint64_t v, unsigned size)
{
    uint64_t sp = (c->s.reg[X86_RSP] - size) & c->sp_mask;

    x86_write(c, X86_SS, sp, v, size);
    stack_set(c, sp);
}

/* The value at the top, moved past only by stack_drop: what follows a pop may
 * still fault. */
static inline uint64_t stack_peek(struct x86_vcpu *c, unsigned size)
{
    return x86_read(c, X86_SS, stack_pointer(c), size);
}

static inline void stack_drop(struct x86_vcpu *c, unsigned size)
{
    stack_set(c, c->s.reg[X86_RSP] + size);
}

/* Alone among the processors; a fault meanwhile ends it, see the loop. */
static inline void x86_exclusive_begin(struct x86_vcpu *c)
{
    vcpu_exclusive_begin(&c->vcpu);
    c->exclusive = true;
}

static inline void x86_exclusive_end(struct x86_vcpu *c)
{
    c->exclusive = false;
    vcpu_exclusive_end(&c->vcpu);
}

/* Of a serializing instruction (SDM Vol. 3, 8.3): what was stored before it is
 * seen by others before anything behind it is loaded. The host's processor
 * knows nothing of ours. */
static inline void x86_drain_stores(void)
{
    host_store_load_fence();
}

/* Forms of two-operand instructions. */
enum form { FORM_RR, FORM_RM, FORM_MR, FORM_RI, FORM_MI, FORM_R, FORM_M, FORM_NONE };

static inline enum form form_of(const struct x86_decode *d)
{
    const ZydisDecodedOperand *a = &d->op[0], *b = &d->op[1];

    if (d->z.operand_count_visible == 0)
        return FORM_NONE;
    if (d->z.operand_count_visible == 1)
        return a->type == ZYDIS_OPERAND_TYPE_MEMORY ? FORM_M : FORM_R;
    if (a->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? FORM_MI : FORM_MR;
    if (b->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return FORM_RM;
    return b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? FORM_RI : FORM_RR;
}

/* Runs one instruction's read-modify-write under LOCK semantics: see lock.c. */
x86_binder bind_lock_alu, bind_lock_unary, bind_lock_bit;

#endif
