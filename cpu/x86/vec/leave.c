/*
 * The boundary of the vector unit: what instructions it may run, and what of
 * the guest the host gives back before code of another kind runs on this thread
 * (docs/VECTOR.md).
 *
 * Compiled without vector registers, since all of it is called while they may
 * hold the guest's values. Interface: vec.h. Threading: the vCPU's thread only.
 */
#include "cpu/x86/fault.h"
#include "cpu/x86/insn.h"
#include "cpu/x86/vec/vec.h"
#include "cpu/x86/vec/vec_runtime.h"

/* ---- gates ---- */

static bool avx_enabled(const struct x86_cpu *s, uint64_t components)
{
    return (s->cr4 & CR4_OSXSAVE) && (s->xcr0 & components) == components && (s->cr0 & CR0_PE) &&
           !(s->rflags & FLAG_VM);
}

#define XCR0_FOR_AVX (XCR0_SSE | XCR0_AVX)
#define XCR0_FOR_AVX512 (XCR0_FOR_AVX | XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM)

uint8_t vec_gates(const struct x86_cpu *s)
{
    bool em = s->cr0 & CR0_EM, ts = s->cr0 & CR0_TS;
    uint8_t g = 0;

    if (em || ts)
        g |= GATE_X87 | GATE_MMX | GATE_FXSR;
    if (ts && (s->cr0 & CR0_MP))
        g |= GATE_WAIT;
    if (em || ts || !(s->cr4 & CR4_OSFXSR))
        g |= GATE_SSE;
    if (ts || !avx_enabled(s, XCR0_FOR_AVX))
        g |= GATE_AVX;
    if (ts || !avx_enabled(s, XCR0_FOR_AVX512))
        g |= GATE_AVX512;
    if (ts || !(s->cr4 & CR4_OSXSAVE))
        g |= GATE_XSAVE;
    return g;
}

void vec_gate_fault(struct x86_vcpu *c, const struct x86_insn *i)
{
    const struct x86_cpu *s = &c->s;
    bool em = s->cr0 & CR0_EM;
    bool ud = false;

    if (i->gate & GATE_MMX)
        ud |= em;
    if (i->gate & GATE_SSE)
        ud |= em || !(s->cr4 & CR4_OSFXSR);
    if (i->gate & GATE_AVX)
        ud |= !avx_enabled(s, XCR0_FOR_AVX);
    if (i->gate & GATE_AVX512)
        ud |= !avx_enabled(s, XCR0_FOR_AVX512);
    if (i->gate & GATE_XSAVE)
        ud |= !(s->cr4 & CR4_OSXSAVE);
    x86_raise(c, ud ? VEC_UD : VEC_NM);
}

/* ---- leaving ---- */

void vec_mxcsr_leave(struct x86_vcpu *c)
{
    const uint32_t host = MXCSR_DEFAULT;

    if (!(c->vec_live & LIVE_MXCSR))
        return;
    __asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(c->s.x.mxcsr) : "m"(host));
    c->vec_live &= ~LIVE_MXCSR;
}

bool vec_may_raise(const struct x86_vcpu *c)
{
    return !mxcsr_is_masked(c->s.x.mxcsr);
}

bool vec_x87_may_raise(const struct x86_vcpu *c)
{
    c->vec->x87_may_raise = !fcw_is_masked(c->s.x.fcw) || (c->s.x.fsw & FSW_ES);
    return c->vec->x87_may_raise;
}

void vec_mxcsr_set(struct x86_vcpu *c, uint32_t v)
{
    bool may_raise = vec_may_raise(c);

    c->s.x.mxcsr = v;
    /* Translated code was made for the one or the other. */
    if (vec_may_raise(c) != may_raise)
        c->engine_ops->end_block(c);
}

void vec_state_from_image(struct x86_xsave *x, const struct vec_runtime *rt)
{
    memcpy(x, rt->fx.b, 5); /* FCW, FSW, FTW */
    for (unsigned n = 0; n < 8; n++)
        memcpy(x->st[n], rt->fx.b + offsetof(struct x86_xsave, st) + 16 * n, 10);
}

void vec_x87_leave(struct x86_vcpu *c)
{
    struct vec_runtime *rt = c->vec;

    if (!(c->vec_live & LIVE_X87))
        return;
    __asm__ volatile("fxsave64 %0\n\tfninit" : "=m"(rt->fx));
    vec_state_from_image(&c->s.x, rt);
    c->vec_live &= ~LIVE_X87;
}

void vec_leave(struct x86_vcpu *c)
{
    if (likely(!c->vec_live))
        return;
    vec_registers_leave(c);
    vec_x87_leave(c);
    vec_mxcsr_leave(c);
}
