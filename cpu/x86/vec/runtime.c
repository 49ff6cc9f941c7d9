/*
 * The runtime behind vec.h: its life, and what of the guest is
 * resident in the host's x87 unit and MXCSR.
 *
 * MXCSR: nearly all guests mask all exceptions. Then it may stay in the host's
 * register and collect sticky flags there until somebody asks (LIVE_MXCSR):
 * STMXCSR costs more than the arithmetic. With an exception unmasked each
 * instruction runs with the guest's MXCSR loaded around it.
 *
 * x87: while FCW masks all exceptions nothing can be pending, so the state may
 * stay in the host's unit from one instruction to the next (LIVE_X87); no C
 * code uses x87 or MMX registers. With an unmasked exception each instruction
 * is loaded, run and saved by FXRSTOR and FXSAVE, which do not wait; so the
 * host never sees a waiting instruction with an error pending, and what the
 * error did to the state is the processor's own answer (SDM Vol. 1, 8.6, 8.7).
 */
#include <errno.h>
#include <stdlib.h>

#include "cpu/x86/vec/vec_internal.h"

#define VEC_CODE_BYTES (2 * MiB)
/* One block's thunks fit in what is left when vec_needs_flush says so. */
#define VEC_CODE_RESERVE (256 * KiB)

/* ---- MXCSR ---- */

bool vec_mxcsr_enter(struct x86_vcpu *c)
{
    uint32_t v = c->s.x.mxcsr;

    if (!mxcsr_is_masked(v))
        return false;
    _mm_setcsr(v);
    c->vec_live |= LIVE_MXCSR;
    return true;
}

/* What a call into guest code may change, beyond what is named in operands. */
#define THUNK_CLOBBERS                                                                             \
    "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", \
        "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",        \
        "xmm14", "xmm15"

struct thunk_call {
    vec_thunk *fn;
    void *fx;
    uint32_t mxcsr_in, mxcsr_out, mxcsr_host;
};

static void call_with_mxcsr(struct thunk_call *call, struct x86_cpu *s, void *mem)
{
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\t" /* the red zone */
                     "ldmxcsr %c[in](%[call])\n\t"
                     "call *%c[fn](%[call])\n\t"
                     "stmxcsr %c[out](%[call])\n\t"
                     "ldmxcsr %c[host](%[call])\n\t"
                     "lea 128(%%rsp), %%rsp"
                     : "+D"(s), "+S"(mem)
                     : [call] "b"(call), [fn] "i"(offsetof(struct thunk_call, fn)),
                       [in] "i"(offsetof(struct thunk_call, mxcsr_in)),
                       [out] "i"(offsetof(struct thunk_call, mxcsr_out)),
                       [host] "i"(offsetof(struct thunk_call, mxcsr_host))
                     : THUNK_CLOBBERS);
}

/* FXRSTOR loads MXCSR too, from the image. */
static void call_with_x87(struct thunk_call *call, struct x86_cpu *s, void *mem)
{
    register void *fx __asm__("r12") = call->fx;

    __asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
                     "fxrstor64 (%[fx])\n\t"
                     "call *%c[fn](%[call])\n\t"
                     "fxsave64 (%[fx])\n\t"
                     "fninit\n\t"
                     "ldmxcsr %c[host](%[call])\n\t"
                     "lea 128(%%rsp), %%rsp"
                     : "+D"(s), "+S"(mem)
                     : [call] "b"(call), [fx] "r"(fx), [fn] "i"(offsetof(struct thunk_call, fn)),
                       [host] "i"(offsetof(struct thunk_call, mxcsr_host))
                     : THUNK_CLOBBERS);
}

static _Noreturn void raise_simd(struct x86_vcpu *c)
{
    c->s.x.mxcsr = c->vec->trap_mxcsr;
    x86_raise(c, c->s.cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}

void vec_run_mxcsr(struct x86_vcpu *c, vec_thunk *fn, void *mem)
{
    struct vec_runtime *rt = c->vec;
    struct thunk_call call = {
        .fn = fn, .mxcsr_in = c->s.x.mxcsr, .mxcsr_host = MXCSR_DEFAULT};

    vec_signals_arm(rt);
    call_with_mxcsr(&call, &c->s, mem);
    vec_signals_disarm();
    if (rt->trapped)
        raise_simd(c);
    c->s.x.mxcsr = call.mxcsr_out;
}

/* ---- x87 ---- */

static void image_from_state(struct vec_runtime *rt, const struct x86_xsave *x, uint32_t mxcsr)
{
    memcpy(rt->fx.b, x, 5); /* FCW, FSW, FTW */
    memset(rt->fx.b + 5, 0, 19); /* the pointers are ours, the host's stay clean */
    le32_put(rt->fx.b + offsetof(struct x86_xsave, mxcsr), mxcsr);
    memcpy(rt->fx.b + offsetof(struct x86_xsave, st), x->st, sizeof x->st);
}

void vec_x87_enter(struct x86_vcpu *c)
{
    struct vec_runtime *rt = c->vec;

    image_from_state(rt, &c->s.x, c->vec_live & LIVE_MXCSR ? _mm_getcsr() : MXCSR_DEFAULT);
    __asm__ volatile("fxrstor64 %0" : : "m"(rt->fx) : THUNK_CLOBBERS);
    c->vec_live |= LIVE_X87;
}

void vec_set_ferr(struct x86_vcpu *c, bool level)
{
    if (c->s.ferr_line == level)
        return;
    c->s.ferr_line = level;
    if (!c->ferr.set)
        return;
    vm_lock(c->vm);
    irq_set(&c->ferr, level);
    vm_unlock(c->vm);
    if (level)
        c->engine_ops->end_block(c);
}

void vec_x87_summarize(struct x86_vcpu *c)
{
    struct x86_xsave *x = &c->s.x;
    bool pending = x->fsw & ~x->fcw & FSW_EXCEPTIONS;
    bool may_raise = c->vec->x87_may_raise;

    x->fsw &= ~(FSW_ES | FSW_B);
    if (pending)
        x->fsw |= FSW_ES | FSW_B;
    else
        vec_set_ferr(c, false);
    /* Translated code was made for the one or the other. */
    if (vec_x87_may_raise(c) != may_raise)
        c->engine_ops->end_block(c);
}

void vec_x87_load(struct x86_vcpu *c)
{
    vec_registers_leave(c);
    vec_x87_enter(c);
}

void vec_x87_wait(struct x86_vcpu *c)
{
    if (likely((c->vec_live & LIVE_X87) || !(c->s.x.fsw & FSW_ES)))
        return;
    if (c->s.cr0 & CR0_NE)
        x86_raise(c, VEC_MF);
    /* The PC's external reporting: FERR# becomes IRQ 13; the instruction goes
     * on as with IGNNE# asserted. */
    vec_set_ferr(c, true);
}

bool vec_x87_try_enter(struct x86_vcpu *c)
{
    if (c->vec_live & LIVE_X87)
        return true;
    if ((c->s.x.fcw & FCW_MASKS) != FCW_MASKS || (c->s.x.fsw & FSW_ES))
        return false;
    vec_x87_enter(c);
    return true;
}

static void run_x87(struct x86_vcpu *c, unsigned flags, vec_thunk *fn, void *mem)
{
    struct vec_runtime *rt = c->vec;
    struct x86_xsave *x = &c->s.x;
    bool ignored = (x->fsw & FSW_ES) && !(flags & XF_NO_WAIT);
    struct thunk_call call = {.fn = fn, .fx = &rt->fx, .mxcsr_host = MXCSR_DEFAULT};
    uint16_t fcw = x->fcw;

    vec_mxcsr_leave(c);
    image_from_state(rt, x, flags & VF_MXCSR ? x->mxcsr : MXCSR_DEFAULT);
    if (ignored) { /* IGNNE#: the host must not see what is pending */
        le16_put(rt->fx.b, fcw | FCW_MASKS);
        le16_put(rt->fx.b + 2, x->fsw & ~(FSW_ES | FSW_B));
    }
    vec_signals_arm(rt);
    call_with_x87(&call, &c->s, mem);
    vec_signals_disarm();
    if (rt->trapped)
        raise_simd(c);
    if (flags & VF_MXCSR)
        x->mxcsr = le32_get(rt->fx.b + offsetof(struct x86_xsave, mxcsr));
    vec_state_from_image(x, rt);
    if (ignored && x->fcw == (fcw | FCW_MASKS))
        x->fcw = fcw;
    vec_x87_summarize(c);
}

void vec_run(struct x86_vcpu *c, unsigned flags, vec_thunk *fn, void *mem)
{
    if ((flags & VF_X87) && !(c->vec_live & LIVE_X87))
        run_x87(c, flags, fn, mem);
    else if ((flags & VF_MXCSR) && !(c->vec_live & LIVE_MXCSR) && !vec_mxcsr_enter(c))
        vec_run_mxcsr(c, fn, mem);
    else
        fn(&c->s, mem);
}

/* ---- components ---- */

static bool is_zero(const void *p, size_t bytes)
{
    const __m128i *v = p;
    __m128i any = _mm_setzero_si128();

    for (size_t n = 0; n < bytes / 16; n++)
        any = _mm_or_si128(any, _mm_loadu_si128(v + n));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) == 0xffff;
}

static bool x87_is_initial(const struct x86_xsave *x)
{
    return x->fcw == FCW_INIT && !x->fsw && !x->ftw && !x->fop && !x->fip && !x->fdp &&
           is_zero(x->st, sizeof x->st);
}

uint64_t vec_xinuse(const struct x86_cpu *s)
{
    const struct x86_xsave *x = &s->x;
    /* Outside 64-bit mode only the eight registers it has count. */
    unsigned n = x86_64bit_mode(s) ? 16 : 8;
    uint64_t v = 0;

    if (!x87_is_initial(x))
        v |= XCR0_X87;
    if (!is_zero(x->xmm, 16 * n))
        v |= XCR0_SSE;
    if (!is_zero(x->ymm_hi, 16 * n))
        v |= XCR0_AVX;
    if (!is_zero(x->opmask, sizeof x->opmask))
        v |= XCR0_OPMASK;
    if (!is_zero(x->zmm_hi, 32 * n))
        v |= XCR0_ZMM_HI256;
    if (n == 16 && !is_zero(x->hi16_zmm, sizeof x->hi16_zmm))
        v |= XCR0_HI16_ZMM;
    if (x->pkru)
        v |= XCR0_PKRU;
    return v;
}

void vec_get_reg(const struct x86_cpu *s, unsigned n, uint8_t out[64])
{
    if (n >= 16) {
        memcpy(out, s->x.hi16_zmm[n - 16], 64);
        return;
    }
    memcpy(out, s->x.xmm[n], 16);
    memcpy(out + 16, s->x.ymm_hi[n], 16);
    memcpy(out + 32, s->x.zmm_hi[n], 32);
}

void vec_set_reg(struct x86_cpu *s, unsigned n, const uint8_t *v, unsigned bytes)
{
    uint8_t whole[64] = {0};

    memcpy(whole, v, bytes);
    if (n >= 16) {
        memcpy(s->x.hi16_zmm[n - 16], whole, 64);
        return;
    }
    memcpy(s->x.xmm[n], whole, 16);
    memcpy(s->x.ymm_hi[n], whole + 16, 16);
    memcpy(s->x.zmm_hi[n], whole + 32, 32);
}

void vec_misaligned(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea, bool write)
{
    x86_linear(c, i->seg, ea, i->size, write ? ACCESS_WRITE : ACCESS_READ);
    x86_raise_gp(c, 0);
}

/* ---- life ---- */

void vec_sync(struct x86_vcpu *c)
{
    vec_leave(c);
    c->s.xinuse = vec_xinuse(&c->s);
}

void vec_reset(struct x86_vcpu *c)
{
    struct x86_xsave *x = &c->s.x;

    if (c->vec_live & LIVE_X87)
        __asm__ volatile("fninit");
    if (c->vec_live & LIVE_MXCSR)
        _mm_setcsr(MXCSR_DEFAULT);
    c->vec_live = 0;
    memset(x, 0, sizeof *x);
    x->fcw = FCW_ONE;
    x->ftw = 0xff; /* tag word 5555H: all zero, none empty */
    x->mxcsr = MXCSR_DEFAULT;
    x->mxcsr_mask = c->model->mxcsr_mask;
    c->s.xinuse = vec_xinuse(&c->s);
    vec_set_ferr(c, false);
}

bool vec_needs_flush(const struct x86_vcpu *c)
{
    return c->vec->used + VEC_CODE_RESERVE > c->vec->code.bytes;
}

void vec_flush(struct x86_vcpu *c)
{
    struct vec_runtime *rt = c->vec;
    struct vec_emit e = {.n = 0};

    rt->used = 0;
    rt->thunk_count = 0;
    host_pages_discard(rt->table, vec_thunk_table_bytes());
    /* Where a trapped thunk goes on: VZEROUPPER; RET. */
    if (rt->has_avx)
        emit_bytes(&e, "\xc5\xf8\x77", 3);
    emit_u8(&e, 0xc3);
    rt->return_stub = (size_t)((uint8_t *)vec_thunk_intern(c, &e, false) - rt->code.exec);
}

int vec_create(struct x86_vcpu *c, struct error *err)
{
    struct vec_runtime *rt = aligned_alloc(64, align_up(sizeof *rt, 64));
    int result = -ENOMEM;

    if (!rt)
        return error_set(err, -ENOMEM, "no memory for the vector unit");
    memset(rt, 0, sizeof *rt);
    rt->has_sse = x86_model_has(c->model, X86_FEAT_SSE);
    rt->has_avx = x86_model_has(c->model, X86_FEAT_AVX);
    rt->has_avx512 = x86_model_has(c->model, X86_FEAT_AVX512F);
    rt->has_avx512bw = x86_model_has(c->model, X86_FEAT_AVX512BW);
    rt->track_x87 = !x86_model_has(c->model, X86_FEAT_FDP_EXCPTN_ONLY);

    rt->trial_state = aligned_alloc(64, align_up(sizeof *rt->trial_state, 64));
    rt->table = host_pages_alloc(vec_thunk_table_bytes(), false);
    if (!rt->trial_state || !rt->table) {
        error_set(err, -ENOMEM, "no memory for the vector unit");
        goto fail;
    }
    result = exec_memory_create(&rt->code, VEC_CODE_BYTES, err);
    if (result)
        goto fail;
    result = vec_signals_acquire(err);
    if (result)
        goto fail_code;
    c->vec = rt;
    vec_flush(c);
    return 0;

fail_code:
    exec_memory_destroy(&rt->code);
fail:
    if (rt->table)
        host_pages_free(rt->table, vec_thunk_table_bytes());
    free(rt->trial_state);
    free(rt);
    return result;
}

void vec_destroy(struct x86_vcpu *c)
{
    struct vec_runtime *rt = c->vec;

    if (!rt)
        return;
    vec_signals_release();
    exec_memory_destroy(&rt->code);
    host_pages_free(rt->table, vec_thunk_table_bytes());
    free(rt->trial_state);
    free(rt);
    c->vec = NULL;
}
