/*
 * How a fault leaves the instruction that raised it: a jump back to where
 * somebody waits for it.
 *
 * Not setjmp(): the C library may use vector registers on the way, and those
 * hold the guest's state (docs/VECTOR.md); and this saves 64 bytes, where
 * jmp_buf saves 200.
 *
 * Threading: the processor's own thread.
 */
#ifndef CPU_X86_UNWIND_H
#define CPU_X86_UNWIND_H

#include "base/base.h"

/* What a C function finds unchanged after a call (System V ABI, 3.2.1), the
 * stack pointer, and where to go on. Control words are not touched: nothing
 * between catch and throw changes the host's. */
struct x86_unwind {
    uint64_t rbx, rbp, r12, r13, r14, r15;
    uint64_t rsp, rip;
};

/* Returns 0, and 1 each time somebody unwinds to it. Valid until the caller
 * returns; the rules for local variables are setjmp's. */
int x86_catch(struct x86_unwind *u) __attribute__((returns_twice));
_Noreturn void x86_throw(const struct x86_unwind *u);

#endif
