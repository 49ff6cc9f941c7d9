/*
 * bind_vector: from a decoded SSE, AVX, AVX-512 or MMX instruction to its
 * handler. Moves are C (move.c), memory under a mask goes element by element
 * (masked.c, gather.c), state instructions are C (state.c), and all else is a
 * thunk behind one of the handlers here.
 *
 * In struct x86_insn: size is the memory operand's, aux holds enum vec_flags,
 * aux2 the alignment mask.
 */
#include "cpu/x86/vec/vec_internal.h"

/* ---- handlers: no memory ---- */

static enum x86_next vec_rr(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_thunk_of(i)(&c->s, NULL);
    X86_NEXT(c, i);
}

static enum x86_next vec_rr_fp(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    if (likely(c->vec_live & LIVE_MXCSR))
        vec_thunk_of(i)(&c->s, NULL);
    else
        vec_run(c, VF_MXCSR, vec_thunk_of(i), NULL);
    X86_NEXT(c, i);
}

static enum x86_next vec_rr_mmx(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_x87_prepare(c);
    vec_run(c, i->aux, vec_thunk_of(i), NULL);
    X86_NEXT(c, i);
}

/* ---- memory source ---- */

static enum x86_next vec_load(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t ea;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    vec_check_aligned(c, i, ea, i->aux2, false);
    vec_thunk_of(i)(&c->s, vec_read_pointer(c, i, ea, i->size));
    X86_NEXT(c, i);
}

static enum x86_next vec_load_fp(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t ea;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    vec_check_aligned(c, i, ea, i->aux2, false);
    p = vec_read_pointer(c, i, ea, i->size);
    if (likely(c->vec_live & LIVE_MXCSR))
        vec_thunk_of(i)(&c->s, p);
    else
        vec_run(c, VF_MXCSR, vec_thunk_of(i), p);
    X86_NEXT(c, i);
}

static enum x86_next vec_load_mmx(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t ea;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_x87_wait(c);
    ea = x86_ea(c, i);
    vec_check_aligned(c, i, ea, i->aux2, false);
    p = vec_read_pointer(c, i, ea, i->size);
    vec_x87_try_enter(c);
    vec_run(c, i->aux, vec_thunk_of(i), p);
    X86_NEXT(c, i);
}

/* ---- memory destination: no instruction here reads it as well ---- */

static enum x86_next vec_store(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t ea;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    if (i->aux & VF_X87)
        vec_x87_wait(c);
    ea = x86_ea(c, i);
    vec_check_aligned(c, i, ea, i->aux2, true);
    p = vec_fast_write(c, i->seg, ea, i->size);
    if (unlikely(!p))
        x86_probe_write(c, i->seg, ea, i->size);
    if (i->aux & VF_X87)
        vec_x87_try_enter(c);
    vec_run(c, i->aux, vec_thunk_of(i), p ? p : c->vec->bounce);
    if (unlikely(!p))
        x86_write_bytes(c, i->seg, ea, c->vec->bounce, i->size);
    X86_NEXT(c, i);
}

/* ---- binding ---- */


bool bind_vector(struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedOperand *mem = vec_mem_operand(d);
    unsigned flags = vec_flags_of(d);
    vec_thunk *fn;

    if (!vec_is_valid(d) || (i->flags & INSN_LOCK))
        return false;
    i->fn = NULL;
    i->gate = vec_gate_of(d);
    i->aux = (uint8_t)flags;
    if (mem) {
        i->size = (uint8_t)(mem->size / 8);
        i->aux2 = (uint8_t)vec_align_mask(d);
    }
    if (bind_vec_state(d, i) || bind_vec_move(d, i) || bind_vec_gather(d, i))
        return i->fn;
    fn = vec_thunk_make(d);
    if (!fn)
        return false;
    i->thunk = (void *)fn;
    if (mem && bind_vec_masked(d, i))
        return i->fn;
    if (!mem)
        i->fn = flags & VF_X87 ? vec_rr_mmx : flags & VF_MXCSR ? vec_rr_fp : vec_rr;
    else if (flags & VF_STORE)
        i->fn = vec_store;
    else
        i->fn = flags & VF_X87 ? vec_load_mmx : flags & VF_MXCSR ? vec_load_fp : vec_load;
    return true;
}
