/*
 * Values that mean something: boundaries, special floating-point numbers,
 * pointers into the test's memory; and whole processor states made of them.
 */
#include "tests/insn/insn.h"

static const uint64_t integers[] = {
    0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff,
    0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
    0x8000000000000000, ~0ull, ~1ull, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 0x0123456789abcdef,
    0xffffffff80000000, 0xffffffffffff8000, 0xffffffffffffff80, 0x9999999999999999,
};

uint64_t value_integer(struct rng *r, unsigned bytes)
{
    uint64_t v;

    switch (rng_below(r, 6)) {
    case 0:
    case 1:
        v = integers[rng_below(r, ARRAY_SIZE(integers))];
        break;
    case 2:
        v = rng_next(r) >> rng_below(r, 64);
        break;
    case 3:
        v = (uint64_t)-(int64_t)(rng_next(r) >> rng_below(r, 64));
        break;
    case 4: /* one bit */
        v = 1ull << rng_below(r, 64);
        break;
    default:
        v = rng_next(r);
        break;
    }
    return zext(v, bytes);
}

static uint16_t value_f16(struct rng *r)
{
    static const uint16_t special[] = {0,      0x8000, 0x3c00, 0xbc00, 0x7c00, 0xfc00, 0x7e00,
                                       0x7d00, 0xfd01, 1,      0x8001, 0x3ff,  0x400,  0x7bff,
                                       0xfbff, 0x3800, 0x4000};

    return rng_percent(r, 60) ? special[rng_below(r, ARRAY_SIZE(special))] : (uint16_t)rng_next(r);
}

static uint32_t value_f32(struct rng *r)
{
    static const uint32_t special[] = {
        0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000,
        0x7f800001, 0xffbfffff, 1, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff,
        0x4f000000, 0xcf000000, 0x5f000000, 0xdf000000, 0x4b000000, 0x3f000000, 0x3effffff,
        0x40490fdb, 0x4effffff, 0x4f800000, 0x33800000, 0x00400000, 0x3f7fffff, 0x3f800001,
    };

    switch (rng_below(r, 5)) {
    case 0:
    case 1:
        return special[rng_below(r, ARRAY_SIZE(special))];
    case 2: /* near one */
        return (uint32_t)(rng_next(r) & 0x807fffff) | (uint32_t)(118 + rng_below(r, 18)) << 23;
    case 3: /* small integers */
        {
            float f = (float)((int)rng_below(r, 2001) - 1000);
            uint32_t v;

            memcpy(&v, &f, 4);
            return v;
        }
    default:
        return (uint32_t)rng_next(r);
    }
}

static uint64_t value_f64(struct rng *r)
{
    static const uint64_t special[] = {
        0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
        0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001,
        0xfff7ffffffffffff, 1, 0x8000000000000001, 0x000fffffffffffff, 0x0010000000000000,
        0x7fefffffffffffff, 0xffefffffffffffff, 0x43e0000000000000, 0xc3e0000000000000,
        0x41e0000000000000, 0xc1e0000000000000, 0x41dfffffffc00000, 0x41efffffffe00000,
        0x4330000000000000, 0x3fe0000000000000, 0x3fdfffffffffffff, 0x36a0000000000000,
        0x47efffffe0000000, 0x47f0000000000000, 0x380fffffffffffff, 0x3ca0000000000000,
    };

    switch (rng_below(r, 5)) {
    case 0:
    case 1:
        return special[rng_below(r, ARRAY_SIZE(special))];
    case 2:
        return (rng_next(r) & 0x800fffffffffffff) | (uint64_t)(1014 + rng_below(r, 18)) << 52;
    case 3: {
        double f = (double)((int)rng_below(r, 2001) - 1000);
        uint64_t v;

        memcpy(&v, &f, 8);
        return v;
    }
    default:
        return rng_next(r);
    }
}

void value_x87(struct rng *r, uint8_t out[10])
{
    uint64_t significand = rng_next(r) | 1ull << 63;
    uint16_t top = (uint16_t)(rng_next(r) & 0x8000);

    switch (rng_below(r, 12)) {
    case 0: /* zero */
        significand = 0;
        break;
    case 1: /* infinity */
        significand = 1ull << 63;
        top |= 0x7fff;
        break;
    case 2: /* NaN */
        top |= 0x7fff;
        if (rng_percent(r, 50))
            significand ^= 1ull << 62;
        break;
    case 3: /* denormal */
        significand &= ~(1ull << 63);
        significand >>= rng_below(r, 63);
        break;
    case 4: /* pseudo-denormal, the smallest normal */
        if (rng_percent(r, 50))
            top |= 1;
        break;
    case 5: /* unnormal, pseudo-NaN, pseudo-infinity */
        significand &= ~(1ull << 63);
        top |= rng_percent(r, 50) ? 0x7fff : (uint16_t)rng_below(r, 0x7fff);
        break;
    case 6: /* small integers */
        significand = (1 + rng_next(r) % 1000) << 48;
        top |= 16383 + 15;
        while (!(significand >> 63)) {
            significand <<= 1;
            top--;
        }
        break;
    case 7: /* the limits of the smaller formats */
        {
            static const uint16_t exponents[] = {16383 + 127, 16383 - 126, 16383 - 149, 16383 + 1023,
                                                 16383 - 1022, 16383 - 1074, 16383 + 15, 16383 + 31,
                                                 16383 + 63, 0x7ffe, 1};
            top |= exponents[rng_below(r, ARRAY_SIZE(exponents))];
            if (rng_percent(r, 50))
                significand = rng_percent(r, 50) ? 1ull << 63 : ~0ull;
            break;
        }
    case 8: /* one */
        significand = 1ull << 63;
        top |= 16383;
        break;
    case 9: /* anything at all */
        significand = rng_next(r);
        top = (uint16_t)rng_next(r);
        break;
    default: /* near one */
        top |= (uint16_t)(16383 - 40 + rng_below(r, 80));
        break;
    }
    memcpy(out, &significand, 8);
    memcpy(out + 8, &top, 2);
}

void value_vector(struct rng *r, uint8_t *out, unsigned bytes)
{
    unsigned style = rng_below(r, 10);

    for (unsigned n = 0; n < bytes; n += 8) {
        uint8_t chunk[8];
        uint64_t v = 0;

        switch (style) {
        case 0:
        case 1:
        case 2:
            v = value_f64(r);
            break;
        case 3:
        case 4:
        case 5:
            v = value_f32(r) | (uint64_t)value_f32(r) << 32;
            break;
        case 6:
            for (unsigned e = 0; e < 64; e += 16)
                v |= (uint64_t)value_f16(r) << e;
            break;
        case 7:
            v = value_integer(r, 8);
            break;
        case 8: /* small elements, as shuffles and counts take them */
            v = rng_next(r) & rng_next(r) & 0x3f3f3f3f3f3f3f3f;
            break;
        default:
            v = rng_next(r);
            break;
        }
        memcpy(chunk, &v, 8);
        memcpy(out + n, chunk, MIN(8u, bytes - n));
    }
}

void value_background(uint64_t seed, uint8_t out[DATA_PAGES][4096])
{
    struct rng r = {seed ^ 0x5eed};

    memset(out, CODE_FILL, DATA_PAGES * sizeof out[0]);
    for (unsigned n = 0; n < PLAIN_PAGES; n++) {
        for (unsigned at = 0; at < 4096; at += 64)
            value_vector(&r, out[n] + at, 64);
    }
}

/* ---- states ---- */

static uint64_t value_address(struct rng *r, enum code_size mode)
{
    const struct page_info *p = &data_page[rng_below(r, PLAIN_PAGES)];
    uint64_t a = p->address + rng_below(r, 4096);

    if (rng_percent(r, 40))
        a &= ~63ull;
    return mode == CODE_64 ? a : mode == CODE_32 ? (uint32_t)a : a & 0xffff;
}

static void state_x(struct rng *r, struct x86_xsave *x)
{
    bool is_masked = rng_percent(r, 70);
    uint16_t errors;

    memset(x, 0, sizeof *x);
    /* MMX and x87 share registers; either kind of content is fine. */
    for (unsigned n = 0; n < 8; n++) {
        value_x87(r, x->st[n]);
        if (rng_percent(r, 20)) {
            value_vector(r, x->st[n], 8);
            memset(x->st[n] + 8, 0xff, 2);
        }
    }
    x->fcw = 0x37f;
    if (rng_percent(r, 60))
        x->fcw = (uint16_t)(0x40 | rng_below(r, 4) << 10 | rng_below(r, 4) << 8 |
                            (is_masked ? 0x3f : rng_below(r, 64)));
    x->fsw = (uint16_t)(rng_below(r, 8) << 11);
    if (rng_percent(r, 30))
        x->fsw |= (uint16_t)(rng_next(r) & 0x4700);
    if (rng_percent(r, 25))
        x->fsw |= rng_next(r) & (rng_percent(r, 20) ? 0x7f : 0x7f & x->fcw);
    errors = x->fsw & ~x->fcw & 0x3f;
    if (errors)
        x->fsw |= 0x8080;
    switch (rng_below(r, 4)) {
    case 0:
        x->ftw = 0;
        break;
    case 1:
        x->ftw = 0xff;
        break;
    default:
        x->ftw = (uint8_t)(rng_next(r) | rng_next(r));
        break;
    }
    x->mxcsr = 0x1f80;
    if (rng_percent(r, 50))
        x->mxcsr |= rng_below(r, 64);
    if (rng_percent(r, 30))
        x->mxcsr |= rng_below(r, 4) << 13;
    if (rng_percent(r, 20))
        x->mxcsr |= 0x8000 * rng_below(r, 2) | 0x40 * rng_below(r, 2);
    if (rng_percent(r, 20))
        x->mxcsr &= ~(rng_below(r, 64) << 7);
    for (unsigned n = 0; n < 16; n++) {
        value_vector(r, x->xmm[n], 16);
        value_vector(r, x->ymm_hi[n], 16);
        value_vector(r, x->zmm_hi[n], 32);
        value_vector(r, x->hi16_zmm[n], 64);
    }
    for (unsigned n = 0; n < 8; n++) {
        x->opmask[n] = rng_next(r);
        if (rng_percent(r, 20))
            x->opmask[n] = rng_percent(r, 50) ? 0 : ~0ull;
        else if (rng_percent(r, 20))
            x->opmask[n] &= 0xff;
    }
}

static uint16_t data_selector(struct rng *r, enum code_size mode)
{
    static const uint16_t s64[] = {0, 0, HOST_DS, LDT_SELECTOR(LDT_DATA)};
    static const uint16_t s32[] = {HOST_DS, HOST_DS, HOST_DS, HOST_DS, LDT_SELECTOR(LDT_DATA),
                                   LDT_SELECTOR(LDT_DATA), LDT_SELECTOR(LDT_DATA_RO),
                                   LDT_SELECTOR(LDT_EXPAND_DOWN), LDT_SELECTOR(LDT_DATA_SHORT),
                                   LDT_SELECTOR(LDT_DATA_PAGES), LDT_SELECTOR(LDT_CODE32), 0};
    static const uint16_t s16[] = {LDT_SELECTOR(LDT_DATA), LDT_SELECTOR(LDT_DATA),
                                   LDT_SELECTOR(LDT_STACK16), LDT_SELECTOR(LDT_DATA_RO),
                                   LDT_SELECTOR(LDT_EXPAND_DOWN), LDT_SELECTOR(LDT_DATA_SHORT),
                                   LDT_SELECTOR(LDT_DATA_PAGES), HOST_DS};

    switch (mode) {
    case CODE_64:
        return s64[rng_below(r, ARRAY_SIZE(s64))];
    case CODE_32:
        return s32[rng_below(r, rng_percent(r, 60) ? 5 : ARRAY_SIZE(s32))];
    default:
        return s16[rng_below(r, rng_percent(r, 60) ? 3 : ARRAY_SIZE(s16))];
    }
}

void value_state(struct rng *r, struct insn_state *s, enum code_size mode)
{
    memset(s, 0, sizeof *s);
    for (unsigned n = 0; n < 16; n++) {
        s->gpr[n] = rng_percent(r, 75) ? value_integer(r, 8) : value_address(r, mode);
        if (mode != CODE_64)
            s->gpr[n] = n < 8 ? (uint32_t)s->gpr[n] : 0;
    }
    s->rflags = FLAG_R1 | FLAG_IF | (rng_next(r) & FLAG_STATUS);
    if (rng_percent(r, 20))
        s->rflags |= FLAG_DF;
    if (rng_percent(r, 5))
        s->rflags |= FLAG_TF;
    if (rng_percent(r, 4))
        s->rflags |= FLAG_AC;
    if (rng_percent(r, 10))
        s->rflags |= FLAG_ID;
    if (rng_percent(r, 5))
        s->rflags |= FLAG_NT;
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        s->sel[n] = data_selector(r, mode);
    if (mode == CODE_64) {
        s->sel[X86_CS] = HOST_CS64;
        s->sel[X86_SS] = HOST_DS;
        s->fs_base = rng_percent(r, 50) ? 0 : DATA_BASE + rng_below(r, 0x8000);
        s->gs_base = rng_percent(r, 50) ? 0 : HIGH_BASE + rng_below(r, 0x1000);
    } else if (mode == CODE_32) {
        s->sel[X86_CS] = rng_percent(r, 70) ? HOST_CS32 : LDT_SELECTOR(LDT_CODE32);
        s->sel[X86_SS] = rng_percent(r, 60)   ? HOST_DS
                         : rng_percent(r, 80) ? LDT_SELECTOR(LDT_DATA)
                                              : LDT_SELECTOR(LDT_STACK16);
    } else {
        s->sel[X86_CS] = LDT_SELECTOR(LDT_CODE16);
        s->sel[X86_SS] =
            rng_percent(r, 75) ? LDT_SELECTOR(LDT_STACK16) : LDT_SELECTOR(LDT_DATA);
    }
    state_x(r, &s->x);
}
