/*
 * Host machine code, byte by byte (SDM Vol. 2, chapter 2).
 *
 * An instruction is an opcode word (enum emit_op), a register field and a
 * register or memory operand. Prefixes, REX and displacements follow from
 * them. Writing past the limit sets `full` and writes nothing.
 */
#ifndef ENGINE_JIT_EMIT_H
#define ENGINE_JIT_EMIT_H

#include "base/base.h"

struct emit {
    uint8_t *base; /* of the code memory, writable view */
    uint32_t at, limit;
    bool full;
};

enum host_gpr {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R12 = 12,
    H_R13 = 13,
    H_R14 = 14,
    H_R15 = 15,
    H_NONE = 0xff,
};

/* Opcode in bits 0..7, and: */
enum emit_op {
    OP_0F = 1 << 8, /* opcode map, bits 8..9 */
    OP_0F38 = 2 << 8,
    OP_0F3A = 3 << 8,
    OP_66 = 1 << 12,
    OP_F2 = 1 << 13,
    OP_F3 = 1 << 14,
    OP_W = 1 << 15,        /* REX.W */
    OP_BYTE_REG = 1 << 16, /* the register field is an 8-bit register.. */
    OP_BYTE_RM = 1 << 17,  /* ..or the r/m operand is: SPL..DIL need REX */
    OP_LOCK = 1 << 18,
    OP_NO_REX = 1 << 19,   /* registers 4..7 mean AH..BH */
};

/* A register (index == H_NONE, is_mem false) or a memory operand. */
struct rm {
    bool is_mem;
    uint8_t base;  /* register */
    uint8_t index; /* H_NONE: none */
    uint8_t scale; /* 0..3 */
    int32_t disp;
};

static inline struct rm rm_reg(unsigned reg)
{
    return (struct rm){.base = (uint8_t)reg, .index = H_NONE};
}

static inline struct rm rm_mem(unsigned base, int32_t disp)
{
    return (struct rm){.is_mem = true, .base = (uint8_t)base, .index = H_NONE, .disp = disp};
}

static inline struct rm rm_mem_index(unsigned base, unsigned index, unsigned scale, int32_t disp)
{
    return (struct rm){.is_mem = true, .base = (uint8_t)base, .index = (uint8_t)index,
                       .scale = (uint8_t)scale, .disp = disp};
}

void emit8(struct emit *e, unsigned v);
void emit16(struct emit *e, unsigned v);
void emit32(struct emit *e, uint32_t v);
void emit64(struct emit *e, uint64_t v);

/* ModRM instruction; its immediate, if it has one, follows. */
void emit_rm(struct emit *e, unsigned op, unsigned reg, struct rm rm);
/* VEX form of a general-register instruction: pp 0..3, map 1..3. */
void emit_vex(struct emit *e, unsigned map, unsigned pp, bool w, unsigned vvvv, unsigned opcode,
              unsigned reg, struct rm rm);
/* ModRM, SIB and displacement alone. */
void emit_modrm(struct emit *e, unsigned reg, struct rm rm);

/* group 1 (ADD 0, OR 1, ADC 2, SBB 3, AND 4, SUB 5, XOR 6, CMP 7) with an
 * immediate; op carries OP_W, OP_66.. */
void emit_alu_imm(struct emit *e, unsigned op, unsigned which, struct rm rm, int32_t imm);
void emit_mov(struct emit *e, unsigned to, unsigned from); /* 64 bits */
void emit_load(struct emit *e, unsigned to, struct rm from);
void emit_store(struct emit *e, struct rm to, unsigned from);
void emit_lea(struct emit *e, unsigned to, struct rm from);

/* Jumps with a rel32 that is patched later: the offset of the rel32. */
uint32_t emit_jmp(struct emit *e);
uint32_t emit_jcc(struct emit *e, unsigned condition);
void emit_patch(struct emit *e, uint32_t rel32, uint32_t target);

#endif
