/*
 * The legacy region of FXSAVE and XSAVE images, shared by both families.
 */
#ifndef CPU_X86_VEC_FXSAVE_H
#define CPU_X86_VEC_FXSAVE_H

#include "cpu/x86/vec/vec_internal.h"

/* The x87 part: bytes 0..23 and 32..159. State must not be resident. */
void fxsave_put_x87(const struct x86_xsave *x, bool wide_pointers, uint8_t *image);
void fxsave_get_x87(struct x86_vcpu *c, bool wide_pointers, const uint8_t *image);

/* #GP(0) unless the linear address has the bits of mask clear. */
void fxsave_check_aligned(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea, unsigned mask,
                          bool write);

#endif
