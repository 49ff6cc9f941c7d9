/*
 * Decoded instructions and their handlers.
 *
 * The decoder turns guest bytes into a block: an array of struct x86_insn that
 * ends with a control transfer (or a page, or a size limit). Each holds its
 * handler, and a handler ends by calling the handler of the next one, which
 * the compiler makes a jump; so dispatch costs one indirect jump, from a place
 * of its own, and no switch.
 *
 * RIP is not stored for each instruction: reg[X86_RIP] holds the address of
 * the BLOCK, and an instruction's own address is that plus insn->offset.
 * RIP-relative operands have base == X86_RIP and a displacement counted from
 * the block. Handlers that can fault, read RIP or leave the block first do
 * X86_BEGIN, which makes the instruction known as the current one; faults find
 * their RIP there.
 *
 * State changes become visible only after everything that can fault: a handler
 * raises before it writes.
 */
#ifndef CPU_X86_INSN_H
#define CPU_X86_INSN_H

#include "cpu/x86/vcpu.h"

enum x86_insn_flags {
    INSN_LOCK = 1 << 0,
    INSN_REP = 1 << 1,   /* F3 */
    INSN_REPNE = 1 << 2, /* F2 */
    INSN_LAST = 1 << 3,  /* ends its block */
    INSN_MEM = 1 << 4,   /* the r/m operand is memory */
    INSN_64 = 1 << 5,    /* decoded in 64-bit mode */
    INSN_MODRM_REG = 1 << 6, /* free for binders */
};

struct x86_insn {
    x86_handler *fn;
    int64_t disp;
    union {
        uint64_t imm;   /* immediate, sign-extended to 64 bits as the instruction has it */
        int64_t target; /* relative branch: from the block's start */
        void *thunk;    /* host code (vector, x87); owned by the code cache */
    };
    /* Effective address: reg[base] + (reg[index] << scale) + disp, cut to the
     * address size by shifting left and right by ea_shift. */
    uint8_t base, index, scale, ea_shift;
    uint8_t seg;  /* enum x86_seg_index of the memory operand */
    uint8_t size; /* operand size in bytes */
    uint8_t flags;
    uint8_t length;
    uint16_t r0, r1;  /* register operands: BYTE offsets into x86_cpu.reg, so
                       * that AH is offset 1; r0 is the destination */
    uint16_t offset;  /* of this instruction from the block's start */
    uint16_t number;  /* position in the block: instructions retired before it */
    uint8_t aux;      /* condition, segment number, count..: the handler's own */
    uint8_t gate;     /* enum x86_gate */
    uint8_t addr_size;
    uint8_t aux2;
    uint32_t spare;
};
_Static_assert(sizeof(struct x86_insn) == 48, "cache footprint");

#define X86_BEGIN(c, i) ((c)->cur = (i))

/* The last statement of a handler that does not end its block. */
#define X86_NEXT(c, i) return (i)[1].fn((c), (i) + 1)

/* An instruction that ends its block and falls through to the next address
 * (or was a taken direct branch): sets RIP and says which successor. */
static inline uint64_t x86_next_rip(const struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t rip = c->s.reg[X86_RIP] + i->offset + i->length;

    return rip & c->ip_mask;
}

#define X86_END_FALLTHROUGH(c, i)                                                                  \
    do {                                                                                           \
        (c)->s.reg[X86_RIP] = x86_next_rip((c), (i));                                              \
        return NEXT_LOOKUP;                                                                        \
    } while (0)

static inline uint64_t x86_cur_rip(const struct x86_vcpu *c)
{
    return (c->s.reg[X86_RIP] + c->cur->offset) & c->ip_mask;
}

/* ---- registers ---- */

/* The register file is seen in all widths: these types may alias it. */
typedef uint16_t __attribute__((may_alias)) x86_alias16;
typedef uint32_t __attribute__((may_alias)) x86_alias32;
typedef uint64_t __attribute__((may_alias)) x86_alias64;

#define X86_REG8(c, off) (*(uint8_t *)((char *)(c)->s.reg + (off)))
#define X86_REG16(c, off) (*(x86_alias16 *)((char *)(c)->s.reg + (off)))
#define X86_REG32(c, off) (*(x86_alias32 *)((char *)(c)->s.reg + (off)))
#define X86_REG64(c, off) (*(x86_alias64 *)((char *)(c)->s.reg + (off)))

static inline uint64_t x86_reg_get(const struct x86_vcpu *c, unsigned off, unsigned size)
{
    return le_get((const char *)c->s.reg + off, size);
}

/* 32-bit results clear the upper half; 8- and 16-bit results keep the rest. */
static inline void x86_reg_set(struct x86_vcpu *c, unsigned off, unsigned size, uint64_t v)
{
    if (size >= 4)
        X86_REG64(c, off) = size == 4 ? (uint32_t)v : v;
    else
        le_put((char *)c->s.reg + off, v, size);
}

/* ---- the memory operand ---- */

static inline uint64_t x86_ea(const struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t ea = c->s.reg[i->base] + (c->s.reg[i->index] << i->scale) + (uint64_t)i->disp;

    return ea << i->ea_shift >> i->ea_shift;
}

/* ---- binding: from a Zydis instruction to a handler ---- */

struct x86_decode; /* engine-independent decode context: decode.h */

#endif
