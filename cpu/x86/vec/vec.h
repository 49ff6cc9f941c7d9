/*
 * Vector and x87 instructions, executed by the host processor.
 *
 * A bound vector instruction carries a thunk: a few host instructions that
 * load the guest registers it reads from x86_cpu.x, run the instruction itself
 * (re-encoded, its memory operand behind a pointer) and store what it wrote.
 * For thunks nothing of the guest stays in vector registers between
 * instructions; two things may stay in the host while run() is active, because
 * loading them is dear: the whole x87/MMX state, and MXCSR. Translated code
 * keeps the vector registers in the host as well (vec_registers_enter), and
 * gives them back before a thunk runs. vec_sync() brings all into x86_cpu.x.
 *
 * Rules for the rest of the processor:
 *  - call vec_sync() before anybody but this folder reads or writes x86_cpu.x,
 *    and when run() returns;
 *  - call vec_leave() before device code, the C library, or anything else that
 *    is not compiled without vector registers runs on the processor's thread
 *    (docs/VECTOR.md has the list);
 *  - call vec_flush() only when no decoded instruction is left (it frees all
 *    thunks), and ask vec_needs_flush() before decoding another block.
 *
 * Threading: the vCPU's thread only.
 */
#ifndef CPU_X86_VEC_VEC_H
#define CPU_X86_VEC_VEC_H

#include "cpu/x86/decode.h"
#include "cpu/x86/vcpu.h"

/* What of the guest is in the host's registers, rather than in x86_cpu.x. */
enum vec_live {
    LIVE_MXCSR = 1 << 0, /* MXCSR: all exceptions are masked */
    LIVE_X87 = 1 << 1,   /* x87/MMX state; all exceptions are masked */
    LIVE_VEC = 1 << 2,   /* XMM and YMM registers; then MXCSR as well. What else there is of the
                          * AVX-512 state is all zero, or: */
    LIVE_VEC_ALL = 1 << 3, /* ZMM and mask registers; then LIVE_VEC is set */
};

int vec_create(struct x86_vcpu *c, struct error *err);
void vec_destroy(struct x86_vcpu *c);

/* RESET#: forgets what is resident in the host, and gives x87, SSE and the
 * extended components their power-up values (SDM Vol. 3, table 9-1). INIT
 * leaves them alone: it needs vec_sync only. */
void vec_reset(struct x86_vcpu *c);

/* enum x86_gate bits that CR0, CR4, XCR0 and the mode deny now. */
uint8_t vec_gates(const struct x86_cpu *s);

/* x86_cpu.x and x86_cpu.xinuse are true afterwards, the host has its defaults. */
void vec_sync(struct x86_vcpu *c);

/* Guest vector registers are in the host's of the same number afterwards; ZMM
 * and mask registers too if with_all. Not while MXCSR unmasks anything. */
void vec_registers_enter(struct x86_vcpu *c, bool with_all);
void vec_registers_store(struct x86_vcpu *c);

/* They are in x86_cpu.x: before a handler of this folder, and before decoding. */
static inline void vec_registers_leave(struct x86_vcpu *c)
{
    if (unlikely(c->vec_live & LIVE_VEC))
        vec_registers_store(c);
}

/* Does MXCSR unmask an exception? */
bool vec_may_raise(const struct x86_vcpu *c);
/* Does FCW, or is one pending? Engines hear of it when the last answer is no
 * longer true. */
bool vec_x87_may_raise(const struct x86_vcpu *c);
/* The x87 state is in the host afterwards, and vectors are not. Not while
 * vec_x87_may_raise. */
void vec_x87_load(struct x86_vcpu *c);

/* vec_sync without xinuse, and cheaper: before device code runs on this
 * processor's thread, which may use the host's floating-point units. */
void vec_leave(struct x86_vcpu *c);

/* vlog() for code that may run while the host holds guest vectors. */
#define x86_log(c, area, level, ...)                                                               \
    do {                                                                                           \
        if (unlikely(log_wants((c)->vm->log, LOG_##area, LOG_##level))) {                          \
            vec_leave(c);                                                                          \
            log_write((c)->vm->log, LOG_##area, LOG_##level, __VA_ARGS__);                         \
        }                                                                                          \
    } while (0)

void vec_flush(struct x86_vcpu *c);
bool vec_needs_flush(const struct x86_vcpu *c);

/* Raises what a denied gate means: #UD before #NM. */
_Noreturn void vec_gate_fault(struct x86_vcpu *c, const struct x86_insn *i);

/* The binder of an instruction that belongs here, else NULL. */
x86_binder *vec_binder_for(const ZydisDecodedInstruction *z);

/* XINUSE from the values alone: a component is in use when it differs from
 * its initial configuration (SDM Vol. 1, 13.6). */
uint64_t vec_xinuse(const struct x86_cpu *s);

#endif
