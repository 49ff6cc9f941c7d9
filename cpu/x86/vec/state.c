/*
 * Instructions on vector state as a whole: MXCSR, VZEROUPPER and VZEROALL
 * (SDM Vol. 2), and the protection-key rights register, which is never loaded
 * into the host: the TLB asks for its value (SDM Vol. 3, 4.6.2).
 */
#include "cpu/x86/vec/vec_internal.h"

static enum x86_next ldmxcsr(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint32_t v;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    v = x86_read32(c, i->seg, x86_ea(c, i));
    if (v & ~c->model->mxcsr_mask)
        x86_raise_gp(c, 0);
    vec_mxcsr_leave(c);
    vec_mxcsr_set(c, v);
    X86_NEXT(c, i);
}

static enum x86_next stmxcsr(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    x86_write32(c, i->seg, x86_ea(c, i),
                c->vec_live & LIVE_MXCSR ? _mm_getcsr() : c->s.x.mxcsr);
    X86_NEXT(c, i);
}

static enum x86_next clear(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_thunk_of(i)(&c->s, NULL);
    X86_NEXT(c, i);
}

static void bind_clear(struct x86_decode *d, struct x86_insn *i)
{
    i->thunk = (void *)vec_thunk_make_clear(d->c, i->flags & INSN_64 ? 16 : 8,
                                            d->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL);
    i->fn = i->thunk ? clear : NULL;
}

static void check_pkru_access(struct x86_vcpu *c)
{
    if (!(c->s.cr4 & CR4_PKE))
        x86_raise_ud(c);
    if ((uint32_t)c->s.reg[X86_RCX])
        x86_raise_gp(c, 0);
}

static enum x86_next rdpkru(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    check_pkru_access(c);
    c->s.reg[X86_RAX] = c->s.x.pkru;
    c->s.reg[X86_RDX] = 0;
    X86_NEXT(c, i);
}

static enum x86_next wrpkru(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    check_pkru_access(c);
    if ((uint32_t)c->s.reg[X86_RDX])
        x86_raise_gp(c, 0);
    c->s.x.pkru = (uint32_t)c->s.reg[X86_RAX];
    x86_pkru_changed(c);
    X86_NEXT(c, i);
}

bool bind_vec_state(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        i->fn = ldmxcsr;
        return true;
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
        i->fn = stmxcsr;
        return true;
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL:
        bind_clear(d, i);
        return true;
    case ZYDIS_MNEMONIC_RDPKRU:
        i->fn = rdpkru;
        return true;
    case ZYDIS_MNEMONIC_WRPKRU:
        i->fn = wrpkru;
        return true;
    default:
        return false;
    }
}
