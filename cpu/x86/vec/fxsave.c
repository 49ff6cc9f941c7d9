/*
 * FXSAVE and FXRSTOR (SDM Vol. 1, 10.5.1): the legacy region in its 32-bit and
 * 64-bit layouts. The XSAVE family shares the x87 and SSE parts.
 */
#include "cpu/x86/vec/fxsave.h"

/* All of it must be there, also what is reserved. */
#define FXSAVE_BYTES 512

void fxsave_put_x87(const struct x86_xsave *x, bool wide_pointers, uint8_t *image)
{
    le16_put(image, x->fcw);
    le16_put(image + 2, x->fsw);
    image[4] = x->ftw;
    image[5] = 0;
    le16_put(image + 6, x->fop);
    /* Without REX.W: 32-bit offsets, and selectors, which are zero. */
    le64_put(image + 8, wide_pointers ? x->fip : (uint32_t)x->fip);
    le64_put(image + 16, wide_pointers ? x->fdp : (uint32_t)x->fdp);
    for (unsigned n = 0; n < 8; n++) {
        memcpy(image + 32 + 16 * n, x->st[n], 10);
        memset(image + 32 + 16 * n + 10, 0, 6);
    }
}

void fxsave_get_x87(struct x86_vcpu *c, bool wide_pointers, const uint8_t *image)
{
    struct x86_xsave *x = &c->s.x;

    x->fcw = (le16_get(image) & FCW_WRITABLE) | FCW_ONE;
    x->fsw = le16_get(image + 2);
    x->ftw = image[4];
    x->fop = le16_get(image + 6) & 0x7ff;
    x->fip = wide_pointers ? le64_get(image + 8) : le32_get(image + 8);
    x->fdp = wide_pointers ? le64_get(image + 16) : le32_get(image + 16);
    for (unsigned n = 0; n < 8; n++)
        memcpy(x->st[n], image + 32 + 16 * n, 10);
    vec_x87_summarize(c);
}

void fxsave_check_aligned(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea, unsigned mask,
                          bool write)
{
    if (likely(!((ea + c->seg_base[i->seg]) & mask)))
        return;
    x86_linear(c, i->seg, ea, 1, write ? ACCESS_WRITE : ACCESS_READ);
    x86_raise_gp(c, 0);
}

static enum x86_next fxsave(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint8_t image[416]; /* what lies above is software's */
    unsigned registers = i->flags & INSN_64 ? 16 : 8;
    uint64_t ea;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    fxsave_check_aligned(c, i, ea, 15, true);
    vec_x87_leave(c);
    vec_mxcsr_leave(c);
    fxsave_put_x87(&c->s.x, i->aux2, image);
    le32_put(image + 24, c->s.x.mxcsr);
    le32_put(image + 28, c->model->mxcsr_mask);
    memcpy(image + 160, c->s.x.xmm, 16 * registers);
    x86_probe_write(c, i->seg, ea, FXSAVE_BYTES);
    x86_write_bytes(c, i->seg, ea, image, 160 + 16 * registers);
    X86_NEXT(c, i);
}

static enum x86_next fxrstor(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint8_t image[FXSAVE_BYTES];
    unsigned registers = i->flags & INSN_64 ? 16 : 8;
    uint64_t ea;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    fxsave_check_aligned(c, i, ea, 15, false);
    x86_read_bytes(c, i->seg, ea, image, sizeof image);
    if (le32_get(image + 24) & ~c->model->mxcsr_mask)
        x86_raise_gp(c, 0);
    vec_x87_leave(c);
    vec_mxcsr_leave(c);
    fxsave_get_x87(c, i->aux2, image);
    vec_mxcsr_set(c, le32_get(image + 24));
    memcpy(c->s.x.xmm, image + 160, 16 * registers);
    X86_NEXT(c, i);
}

bool bind_fxsave(struct x86_decode *d, struct x86_insn *i)
{
    if (i->flags & INSN_LOCK)
        return false;
    i->gate = GATE_FXSR;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE64:
        i->aux2 = 1;
        i->fn = fxsave;
        return true;
    case ZYDIS_MNEMONIC_FXSAVE:
        i->fn = fxsave;
        return true;
    case ZYDIS_MNEMONIC_FXRSTOR64:
        i->aux2 = 1;
        i->fn = fxrstor;
        return true;
    case ZYDIS_MNEMONIC_FXRSTOR:
        i->fn = fxrstor;
        return true;
    default:
        return false;
    }
}
