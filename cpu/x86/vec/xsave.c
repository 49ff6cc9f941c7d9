/*
 * The XSAVE feature set (SDM Vol. 1, chapter 13): XSAVE, XSAVEOPT, XSAVEC,
 * XRSTOR, XGETBV, XSETBV. XINUSE is canonical, that is, computed from the
 * values (vec_xinuse); the modified optimisation of XSAVEOPT is not made.
 *
 * Saving first checks that all of the image that will be written can be
 * written; restoring reads all that it needs before it changes anything.
 */
#include "cpu/x86/msr.h"
#include "cpu/x86/vec/fxsave.h"

#define XCOMP_COMPACTED BIT(63)
#define LEGACY_AND_HEADER 576

enum image_offset {
    IMAGE_MXCSR = 24,
    IMAGE_ST = 32,
    IMAGE_XMM = 160,
    IMAGE_XSTATE_BV = 512,
    IMAGE_XCOMP_BV = 520,
    IMAGE_HEADER_REST = 528,
};

/* Extended components, ascending; none is aligned in compacted images. */
static const struct component {
    uint64_t bit;
    uint16_t offset; /* in the standard image, and in struct x86_xsave */
    uint16_t bytes;
    uint16_t legacy_bytes; /* of it outside 64-bit mode */
} components[] = {
    {XCR0_AVX, offsetof(struct x86_xsave, ymm_hi), 256, 128},
    {XCR0_OPMASK, offsetof(struct x86_xsave, opmask), 64, 64},
    {XCR0_ZMM_HI256, offsetof(struct x86_xsave, zmm_hi), 512, 256},
    {XCR0_HI16_ZMM, offsetof(struct x86_xsave, hi16_zmm), 1024, 0},
    {XCR0_PKRU, offsetof(struct x86_xsave, pkru), 8, 8},
};

/* Where a component lies in a compacted image. */
static unsigned compacted_offset(uint64_t xcomp_bv, uint64_t bit)
{
    unsigned offset = LEGACY_AND_HEADER;

    for (size_t n = 0; n < ARRAY_SIZE(components) && components[n].bit != bit; n++) {
        if (xcomp_bv & components[n].bit)
            offset += components[n].bytes;
    }
    return offset;
}

static uint64_t requested(const struct x86_vcpu *c)
{
    uint64_t mask = (uint32_t)c->s.reg[X86_RAX] | c->s.reg[X86_RDX] << 32;

    return mask & c->s.xcr0;
}

/* ---- saving ---- */

struct piece {
    const void *from;
    uint16_t offset, bytes;
};

struct pieces {
    struct piece piece[12];
    unsigned count;
};

static void add(struct pieces *p, unsigned offset, const void *from, unsigned bytes)
{
    if (bytes)
        p->piece[p->count++] = (struct piece){from, (uint16_t)offset, (uint16_t)bytes};
}

static void write_pieces(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea,
                         const struct pieces *p)
{
    for (unsigned n = 0; n < p->count; n++)
        x86_probe_write(c, i->seg, ea + p->piece[n].offset, p->piece[n].bytes);
    for (unsigned n = 0; n < p->count; n++)
        x86_write_bytes(c, i->seg, ea + p->piece[n].offset, p->piece[n].from, p->piece[n].bytes);
}

enum xsave_kind { KIND_XSAVE, KIND_XSAVEOPT, KIND_XSAVEC };

static enum x86_next xsave(struct x86_vcpu *c, const struct x86_insn *i)
{
    enum xsave_kind kind = i->aux;
    bool is_64 = i->flags & INSN_64;
    struct x86_xsave *x = &c->s.x;
    struct pieces p = {.count = 0};
    uint64_t ea, rfbm, save, header[2];
    uint8_t legacy[160];

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    fxsave_check_aligned(c, i, ea, 63, true);
    vec_sync(c);
    rfbm = requested(c);
    save = kind == KIND_XSAVE ? rfbm : rfbm & c->s.xinuse;

    if (kind == KIND_XSAVEC) {
        if ((rfbm & XCR0_SSE) && x->mxcsr != MXCSR_DEFAULT)
            save |= XCR0_SSE;
        header[0] = save;
        header[1] = rfbm | XCOMP_COMPACTED;
        add(&p, IMAGE_XSTATE_BV, header, 16);
    } else {
        uint64_t old = x86_read64(c, i->seg, ea + IMAGE_XSTATE_BV);

        header[0] = (old & ~rfbm) | (c->s.xinuse & rfbm);
        add(&p, IMAGE_XSTATE_BV, header, 8);
    }
    if (save & XCR0_X87) {
        fxsave_put_x87(x, i->aux2, legacy);
        add(&p, 0, legacy, IMAGE_MXCSR);
        add(&p, IMAGE_ST, legacy + IMAGE_ST, sizeof legacy - IMAGE_ST);
    }
    if (kind == KIND_XSAVEC ? save & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX)) {
        le32_put(legacy + IMAGE_MXCSR, x->mxcsr);
        le32_put(legacy + IMAGE_MXCSR + 4, c->model->mxcsr_mask);
        add(&p, IMAGE_MXCSR, legacy + IMAGE_MXCSR, 8);
    }
    if (save & XCR0_SSE)
        add(&p, IMAGE_XMM, x->xmm, is_64 ? 256 : 128);
    for (size_t n = 0; n < ARRAY_SIZE(components); n++) {
        const struct component *k = &components[n];
        unsigned offset = kind == KIND_XSAVEC ? compacted_offset(header[1], k->bit) : k->offset;

        if (save & k->bit)
            add(&p, offset, (uint8_t *)x + k->offset, is_64 ? k->bytes : k->legacy_bytes);
    }
    write_pieces(c, i, ea, &p);
    X86_NEXT(c, i);
}

/* ---- restoring ---- */

static bool header_is_valid(const struct x86_vcpu *c, const uint8_t *image)
{
    uint64_t xstate_bv = le64_get(image + IMAGE_XSTATE_BV);
    uint64_t xcomp_bv = le64_get(image + IMAGE_XCOMP_BV);

    if (xcomp_bv & XCOMP_COMPACTED) {
        if (!x86_model_has(c->model, X86_FEAT_XSAVEC))
            return false;
        for (unsigned n = IMAGE_HEADER_REST; n < LEGACY_AND_HEADER; n++) {
            if (image[n])
                return false;
        }
        xcomp_bv &= ~XCOMP_COMPACTED;
        return !(xcomp_bv & ~c->s.xcr0) && !(xstate_bv & ~xcomp_bv);
    }
    return !xcomp_bv && !le64_get(image + IMAGE_HEADER_REST) && !(xstate_bv & ~c->s.xcr0);
}

static void init_x87(struct x86_vcpu *c)
{
    struct x86_xsave *x = &c->s.x;

    x->fcw = FCW_INIT;
    x->fsw = 0;
    x->ftw = 0;
    x->fop = 0;
    x->fip = x->fdp = 0;
    memset(x->st, 0, sizeof x->st);
    vec_x87_summarize(c);
}

static enum x86_next xrstor(struct x86_vcpu *c, const struct x86_insn *i)
{
    bool is_64 = i->flags & INSN_64, compacted, loads_mxcsr;
    struct x86_xsave *x = &c->s.x;
    uint8_t image[sizeof(struct x86_xsave)] __attribute__((aligned(16)));
    uint64_t ea, rfbm, xstate_bv, xcomp_bv;
    uint32_t pkru = x->pkru;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    fxsave_check_aligned(c, i, ea, 63, false);
    x86_read_bytes(c, i->seg, ea + IMAGE_XSTATE_BV, image + IMAGE_XSTATE_BV,
                   LEGACY_AND_HEADER - IMAGE_XSTATE_BV);
    if (!header_is_valid(c, image))
        x86_raise_gp(c, 0);
    rfbm = requested(c);
    xstate_bv = le64_get(image + IMAGE_XSTATE_BV);
    xcomp_bv = le64_get(image + IMAGE_XCOMP_BV);
    compacted = xcomp_bv & XCOMP_COMPACTED;

    if (rfbm & xstate_bv & XCR0_X87) {
        x86_read_bytes(c, i->seg, ea, image, IMAGE_MXCSR);
        x86_read_bytes(c, i->seg, ea + IMAGE_ST, image + IMAGE_ST, IMAGE_XMM - IMAGE_ST);
    }
    loads_mxcsr = compacted ? rfbm & xstate_bv & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX);
    if (loads_mxcsr) {
        x86_read_bytes(c, i->seg, ea + IMAGE_MXCSR, image + IMAGE_MXCSR, 4);
        if (le32_get(image + IMAGE_MXCSR) & ~c->model->mxcsr_mask)
            x86_raise_gp(c, 0);
    }
    if (rfbm & xstate_bv & XCR0_SSE)
        x86_read_bytes(c, i->seg, ea + IMAGE_XMM, image + IMAGE_XMM, is_64 ? 256 : 128);
    for (size_t n = 0; n < ARRAY_SIZE(components); n++) {
        const struct component *k = &components[n];
        unsigned bytes = is_64 ? k->bytes : k->legacy_bytes;
        unsigned offset = compacted ? compacted_offset(xcomp_bv, k->bit) : k->offset;

        if ((rfbm & k->bit) && bytes) {
            if (xstate_bv & k->bit)
                x86_read_bytes(c, i->seg, ea + offset, image + k->offset, bytes);
            else
                memset(image + k->offset, 0, bytes);
        }
    }

    /* Nothing faults from here on. */
    vec_x87_leave(c);
    vec_mxcsr_leave(c);
    if (rfbm & XCR0_X87) {
        if (xstate_bv & XCR0_X87)
            fxsave_get_x87(c, i->aux2, image);
        else
            init_x87(c);
    }
    if (loads_mxcsr)
        vec_mxcsr_set(c, le32_get(image + IMAGE_MXCSR));
    else if (compacted && (rfbm & XCR0_SSE))
        vec_mxcsr_set(c, MXCSR_DEFAULT);
    if (rfbm & XCR0_SSE) {
        if (xstate_bv & XCR0_SSE)
            memcpy(x->xmm, image + IMAGE_XMM, is_64 ? 256 : 128);
        else
            memset(x->xmm, 0, is_64 ? 256 : 128);
    }
    for (size_t n = 0; n < ARRAY_SIZE(components); n++) {
        const struct component *k = &components[n];

        if (rfbm & k->bit)
            memcpy((uint8_t *)x + k->offset, image + k->offset,
                   is_64 ? k->bytes : k->legacy_bytes);
    }
    x->pkru_pad = 0;
    if (x->pkru != pkru)
        x86_pkru_changed(c);
    X86_NEXT(c, i);
}

/* ---- extended control registers ---- */

static enum x86_next xgetbv(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint32_t index;
    uint64_t v;

    X86_BEGIN(c, i);
    if (!(c->s.cr4 & CR4_OSXSAVE))
        x86_raise_ud(c);
    index = (uint32_t)c->s.reg[X86_RCX];
    if (index > 1 || (index == 1 && !x86_model_has(c->model, X86_FEAT_XGETBV1)))
        x86_raise_gp(c, 0);
    v = c->s.xcr0;
    if (index == 1) {
        vec_sync(c);
        v &= c->s.xinuse;
    }
    c->s.reg[X86_RAX] = (uint32_t)v;
    c->s.reg[X86_RDX] = v >> 32;
    X86_NEXT(c, i);
}

static enum x86_next xsetbv(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    if (!(c->s.cr4 & CR4_OSXSAVE))
        x86_raise_ud(c);
    x86_xsetbv(c, (uint32_t)c->s.reg[X86_RCX],
               (uint32_t)c->s.reg[X86_RAX] | c->s.reg[X86_RDX] << 32);
    X86_NEXT(c, i);
}

bool bind_xsave(struct x86_decode *d, struct x86_insn *i)
{
    if (i->flags & INSN_LOCK)
        return false;
    i->gate = GATE_XSAVE;
    i->aux2 = d->z.raw.rex.W && (d->z.attributes & ZYDIS_ATTRIB_HAS_REX);
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
        i->aux = KIND_XSAVE;
        i->fn = xsave;
        return true;
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
        i->aux = KIND_XSAVEOPT;
        i->fn = xsave;
        return true;
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        i->aux = KIND_XSAVEC;
        i->fn = xsave;
        return true;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        i->fn = xrstor;
        return true;
    case ZYDIS_MNEMONIC_XGETBV:
        i->fn = xgetbv;
        return true;
    case ZYDIS_MNEMONIC_XSETBV:
        i->fn = xsetbv;
        return true;
    default:
        return false;
    }
}
