/*
 * From bytes to bound instructions: Zydis decodes, binders choose handlers.
 *
 * The table in decode.c maps each Zydis mnemonic to a binder. A binder sees
 * the decoded instruction and its operands, fills struct x86_insn and returns
 * true, or returns false for #UD. Registers, immediate and the memory operand
 * have been filled in from the operands before the binder is called (see
 * x86_decode_fill), so that most binders only choose a handler by size and
 * form.
 */
#ifndef CPU_X86_DECODE_H
#define CPU_X86_DECODE_H

#include <Zydis/Zydis.h>

#include "cpu/x86/insn.h"

/* The mode key: what the meaning of bytes depends on. */
enum x86_mode {
    MODE_16 = 0, /* code size, bits 0..1 */
    MODE_32 = 1,
    MODE_64 = 2,
    MODE_SIZE = 3,
    MODE_REAL = 1 << 2, /* real or V86: instructions of protected mode are #UD */
    MODE_SINGLE = 1 << 3, /* blocks of one instruction (TF, shadow, breakpoints) */
    MODE_V86 = 1 << 4,
    MODE_KEYS = 1 << 5,
};

struct x86_decode {
    struct x86_vcpu *c;
    uint32_t mode;
    const uint8_t *bytes; /* of this instruction */
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

/* 0, 1, 2..: visible operands as written in the manual, destination first. */
typedef bool x86_binder(struct x86_decode *d, struct x86_insn *i);

/*
 * Fills offset-independent fields: size (operand size), flags, memory operand,
 * r0 and r1 (first and second GPR operand among the visible ones, else 0),
 * imm. Handles RIP-relative addressing (needs i->offset set).
 */
void x86_decode_fill(struct x86_decode *d, struct x86_insn *i);

/* Byte offset of a general register in x86_cpu.reg; AH..BH are base + 1. */
unsigned x86_reg_offset(ZydisRegister r);
enum x86_seg_index x86_seg_of(ZydisRegister r);

enum x86_decode_result {
    DECODE_OK,        /* bound */
    DECODE_MORE,      /* the bytes available do not hold it whole */
    DECODE_TOO_LONG,  /* more than 15 bytes: #GP(0) */
    DECODE_UNDEFINED, /* bound to #UD; i->imm: how many bytes that depends on */
};

/* Decodes and binds the instruction at bytes; i->offset and i->number must be
 * set and stay. */
enum x86_decode_result x86_decode_one(struct x86_vcpu *c, uint32_t mode, const uint8_t *bytes,
                                      size_t available, struct x86_insn *i);

/* The same, leaving in *d what was decoded. */
enum x86_decode_result x86_decode_whole(struct x86_vcpu *c, uint32_t mode, const uint8_t *bytes,
                                        size_t available, struct x86_insn *i,
                                        struct x86_decode *d);

/* Binders by topic; each in the file of its instructions. */
x86_binder bind_vector, bind_x87, bind_fxsave, bind_xsave; /* vec/ */

#endif
