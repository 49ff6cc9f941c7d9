/*
 * What a processor keeps for its vector unit: between the files of vec/, and
 * those of them that are compiled without vector registers.
 */
#ifndef CPU_X86_VEC_VEC_RUNTIME_H
#define CPU_X86_VEC_VEC_RUNTIME_H

#include "base/host.h"
#include "cpu/x86/vcpu.h"

#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_FLAGS 0x3fu
#define MXCSR_MASKS 0x1f80u

/* The masks of exceptions alone: with all of them set nothing can be raised. */
static inline bool mxcsr_is_masked(uint32_t mxcsr)
{
    return (mxcsr & MXCSR_MASKS) == MXCSR_MASKS;
}

#define FCW_MASKS 0x3f
#define FSW_ES 0x80

static inline bool fcw_is_masked(uint16_t fcw)
{
    return (fcw & FCW_MASKS) == FCW_MASKS;
}

struct vec_fxsave {
    uint8_t b[512];
} __attribute__((aligned(64)));

#define VEC_BOUNCE 128

struct vec_runtime {
    bool has_avx, has_avx512, has_avx512bw; /* the guest has, so the host has */
    bool has_sse;
    bool x87_may_raise; /* as vec_x87_may_raise said last */
    bool track_x87;    /* FOP and FDP follow every instruction, not only errors */
    bool is_sigfpe_user;

    struct exec_memory code;
    size_t used;       /* bytes of code in use */
    uint32_t *table;   /* open hash of thunks: offset / 16 + 1 */
    size_t return_stub; /* offset */
    uint32_t thunk_count;

    uint8_t bounce[VEC_BOUNCE] __attribute__((aligned(64)));
    struct vec_fxsave fx;
    struct x86_cpu *trial_state; /* see vec_thunk_trial */

    /* Written by the signal handler. */
    volatile bool trapped;
    volatile uint32_t trap_mxcsr;
};

/* ---- leave.c: what of the guest is in the host goes back, if it is there ---- */

/* The guest loads MXCSR; it is not live. */
void vec_mxcsr_set(struct x86_vcpu *c, uint32_t v);
void vec_mxcsr_leave(struct x86_vcpu *c);
void vec_x87_leave(struct x86_vcpu *c);
/* FCW, FSW, FTW and the registers of an FXSAVE image. */
void vec_state_from_image(struct x86_xsave *x, const struct vec_runtime *rt);

#endif
