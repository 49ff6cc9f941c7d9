/*
 * The x87 environment in memory: FNSTENV, FLDENV, FNSAVE and FRSTOR in their
 * four layouts, by operand size and by mode (SDM Vol. 1, 8.1.10, figures 8-9
 * to 8-12).
 *
 * FCS and FDS are stored as zero and not loaded (ZERO_FCS_FDS). The real-mode
 * layouts hold linear addresses of 20 and 32 bits.
 */
#include "cpu/x86/vec/vec_internal.h"

enum env_layout {
    ENV_16 = 0,
    ENV_32 = 1,
    ENV_REAL = 2, /* real and V86 mode */
};

#define TAG_EMPTY 3u

static inline unsigned env_bytes(unsigned layout)
{
    return layout & ENV_32 ? 28 : 14;
}

static unsigned top_of(const struct x86_xsave *x)
{
    return x->fsw >> FSW_TOP_SHIFT & 7;
}

/* The two tag bits of a register in use: valid, zero or special. */
static unsigned classify(const uint8_t st[10])
{
    uint64_t significand = le64_get(st);
    unsigned exponent = le16_get(st + 8) & 0x7fff;

    if (exponent == 0x7fff)
        return 2;
    if (exponent == 0)
        return significand ? 2 : 1;
    return significand >> 63 ? 0 : 2;
}

static uint16_t full_tags(const struct x86_xsave *x)
{
    unsigned top = top_of(x), tags = 0;

    for (unsigned n = 0; n < 8; n++) {
        unsigned tag = x->ftw >> n & 1 ? classify(x->st[(n - top) & 7]) : TAG_EMPTY;

        tags |= tag << (2 * n);
    }
    return (uint16_t)tags;
}

static uint8_t abridge_tags(uint16_t tags)
{
    unsigned abridged = 0;

    for (unsigned n = 0; n < 8; n++) {
        if ((tags >> (2 * n) & 3) != TAG_EMPTY)
            abridged |= 1u << n;
    }
    return (uint8_t)abridged;
}

static void store_env(const struct x86_xsave *x, unsigned layout, uint8_t *p)
{
    uint32_t fip = (uint32_t)x->fip, fdp = (uint32_t)x->fdp, fop = x->fop & 0x7ff;

    if (layout & ENV_32) {
        const uint32_t ones = 0xffff0000; /* reserved halves read as ones */

        le32_put(p, ones | x->fcw);
        le32_put(p + 4, ones | x->fsw);
        le32_put(p + 8, ones | full_tags(x));
        if (layout & ENV_REAL) {
            le32_put(p + 12, ones | (fip & 0xffff));
            le32_put(p + 16, fip >> 16 << 12 | fop);
            le32_put(p + 20, ones | (fdp & 0xffff));
            le32_put(p + 24, fdp >> 16 << 12);
        } else {
            le32_put(p + 12, fip);
            le32_put(p + 16, fop << 16);
            le32_put(p + 20, fdp);
            le32_put(p + 24, ones);
        }
        return;
    }
    le16_put(p, x->fcw);
    le16_put(p + 2, x->fsw);
    le16_put(p + 4, full_tags(x));
    le16_put(p + 6, (uint16_t)fip);
    le16_put(p + 10, (uint16_t)fdp);
    if (layout & ENV_REAL) {
        le16_put(p + 8, (uint16_t)((fip >> 16 & 15) << 12 | fop));
        le16_put(p + 12, (uint16_t)((fdp >> 16 & 15) << 12));
    } else {
        le16_put(p + 8, 0);
        le16_put(p + 12, 0);
    }
}

static void load_env(struct x86_vcpu *c, unsigned layout, const uint8_t *p)
{
    struct x86_xsave *x = &c->s.x;
    unsigned step = layout & ENV_32 ? 4 : 2;
    const uint8_t *q = p + 3 * step;

    x->fcw = (le16_get(p) & FCW_WRITABLE) | FCW_ONE;
    x->fsw = le16_get(p + step);
    x->ftw = abridge_tags(le16_get(p + 2 * step));
    switch (layout) {
    case ENV_32:
        x->fip = le32_get(q);
        x->fop = le16_get(q + 6) & 0x7ff;
        x->fdp = le32_get(q + 8);
        break;
    case ENV_32 | ENV_REAL:
        x->fop = le16_get(q + 4) & 0x7ff;
        x->fip = le16_get(q) | (le32_get(q + 4) >> 12 & 0xffff) << 16;
        x->fdp = le16_get(q + 8) | (le32_get(q + 12) >> 12 & 0xffff) << 16;
        break;
    case ENV_16:
        x->fip = le16_get(q);
        x->fop = 0;
        x->fdp = le16_get(q + 4);
        break;
    case ENV_16 | ENV_REAL:
        x->fop = le16_get(q + 2) & 0x7ff;
        x->fip = le16_get(q) | (uint32_t)(le16_get(q + 2) >> 12) << 16;
        x->fdp = le16_get(q + 4) | (uint32_t)(le16_get(q + 6) >> 12) << 16;
        break;
    }
    vec_x87_summarize(c);
}

/* Moves st[] from the stack order under one TOP to that under another. */
static void rotate(struct x86_xsave *x, unsigned old_top, unsigned new_top)
{
    uint8_t st[8][16];

    if (old_top == new_top)
        return;
    memcpy(st, x->st, sizeof st);
    for (unsigned n = 0; n < 8; n++)
        memcpy(x->st[n], st[(n + new_top - old_top) & 7], 16);
}

static enum x86_next fnstenv(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint8_t image[28];

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_x87_leave(c);
    store_env(&c->s.x, i->aux2, image);
    x86_write_bytes(c, i->seg, x86_ea(c, i), image, env_bytes(i->aux2));
    c->s.x.fcw |= FCW_MASKS;
    vec_x87_summarize(c);
    X86_NEXT(c, i);
}

static enum x86_next fldenv(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint8_t image[28];
    unsigned top;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_x87_wait(c);
    x86_read_bytes(c, i->seg, x86_ea(c, i), image, env_bytes(i->aux2));
    vec_x87_leave(c);
    top = top_of(&c->s.x);
    load_env(c, i->aux2, image);
    rotate(&c->s.x, top, top_of(&c->s.x));
    X86_NEXT(c, i);
}

static enum x86_next fnsave(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct x86_xsave *x = &c->s.x;
    unsigned env = env_bytes(i->aux2);
    uint8_t image[108];

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_x87_leave(c);
    store_env(x, i->aux2, image);
    for (unsigned n = 0; n < 8; n++)
        memcpy(image + env + 10 * n, x->st[n], 10);
    x86_write_bytes(c, i->seg, x86_ea(c, i), image, env + 80);
    rotate(x, top_of(x), 0); /* then as FNINIT, which leaves the registers */
    x->fcw = FCW_INIT;
    x->fsw = 0;
    x->ftw = 0;
    x->fop = 0;
    x->fip = x->fdp = 0;
    vec_x87_summarize(c);
    X86_NEXT(c, i);
}

static enum x86_next frstor(struct x86_vcpu *c, const struct x86_insn *i)
{
    unsigned env = env_bytes(i->aux2);
    uint8_t image[108];

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_x87_wait(c);
    x86_read_bytes(c, i->seg, x86_ea(c, i), image, env + 80);
    vec_x87_leave(c);
    load_env(c, i->aux2, image);
    for (unsigned n = 0; n < 8; n++)
        memcpy(c->s.x.st[n], image + env + 10 * n, 10);
    X86_NEXT(c, i);
}

bool bind_x87_state(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
        i->fn = fnstenv;
        break;
    case ZYDIS_MNEMONIC_FLDENV:
        i->fn = fldenv;
        break;
    case ZYDIS_MNEMONIC_FNSAVE:
        i->fn = fnsave;
        break;
    case ZYDIS_MNEMONIC_FRSTOR:
        i->fn = frstor;
        break;
    default:
        return false;
    }
    i->aux2 = d->z.operand_width == 16 ? ENV_16 : ENV_32;
    if (d->mode & MODE_REAL)
        i->aux2 |= ENV_REAL;
    return true;
}
