/*
 * Between the JIT's files of vector and x87 instructions.
 */
#ifndef ENGINE_JIT_VECTOR_H
#define ENGINE_JIT_VECTOR_H

#include "engine/jit/translate.h"

/* The operands of a vector instruction, by where they are encoded. */
struct vector_form {
    const ZydisDecodedOperand *mem;              /* in r/m; NULL: none */
    const ZydisDecodedOperand *gpr_reg, *gpr_rm; /* general registers; NULL: none */
    uint8_t reg, rm, vvvv;                       /* vector and mask registers, or a digit */
    bool is4;            /* a register in the immediate */
    bool string_compare; /* PCMPESTRI and its like: RAX, RDX, RCX */
    bool is_mmx;
};

/* The guest's instruction with register field and r/m operand as given. */
void vector_encode(struct emit *e, const struct x86_decode *d, const struct vector_form *f,
                   unsigned reg, struct rm rm);

/* This much of the guest's state (one of enum vec_live, or both of vectors) is
 * in the host from here on. */
void vector_need(struct tr *t, unsigned live);

bool emit_x87(struct tr *t);

#endif
