/*
 * Code for the fuzzer: random bytes, valid instructions, and a real program
 * with damage. Valid instructions are random bytes of a likely shape (prefixes,
 * opcode, ModRM with small displacements) that Zydis takes; those that change
 * the processor's mode, tables and memory map come more often than in any real
 * program.
 */
#include <string.h>

#include <Zydis/Zydis.h>

#include "tests/fuzz/fuzz.h"

/* Opcodes worth more than their share. */
static const struct {
    uint8_t bytes[3];
    uint8_t count;
} hot[] = {
    {{0x0f, 0x00}, 2}, {{0x0f, 0x01}, 2},
    {{0x0f, 0x01}, 2}, {{0x0f, 0x20}, 2},
    {{0x0f, 0x22}, 2}, {{0x0f, 0x22}, 2},
    {{0x0f, 0x21}, 2}, {{0x0f, 0x23}, 2},
    {{0x0f, 0x30}, 2}, {{0x0f, 0x32}, 2},
    {{0x0f, 0x05}, 2}, {{0x0f, 0x07}, 2},
    {{0x0f, 0x34}, 2}, {{0x0f, 0x35}, 2},
    {{0x0f, 0xae}, 2}, {{0x0f, 0xc7}, 2},
    {{0x0f, 0xa2}, 2}, {{0x0f, 0x06}, 2},
    {{0x0f, 0x08}, 2}, {{0x0f, 0x09}, 2},
    {{0x0f, 0xb2}, 2}, {{0x0f, 0x02}, 2},
    {{0x0f, 0x03}, 2}, {{0x0f, 0x31}, 2},
    {{0x8e}, 1},       {{0x8c}, 1},
    {{0xcf}, 1},       {{0xcb}, 1},
    {{0xca}, 1},       {{0xcd}, 1},
    {{0xcc}, 1},       {{0xce}, 1},
    {{0xf1}, 1},       {{0xea}, 1},
    {{0x9a}, 1},       {{0xff}, 1},
    {{0x62}, 1},       {{0xc8}, 1},
    {{0xc9}, 1},       {{0x60}, 1},
    {{0x61}, 1},       {{0x9c}, 1},
    {{0x9d}, 1},       {{0xfa}, 1},
    {{0xfb}, 1},       {{0xf4}, 1},
    {{0x6c}, 1},       {{0x6d}, 1},
    {{0x6e}, 1},       {{0x6f}, 1},
    {{0xa4}, 1},       {{0xa5}, 1},
    {{0xaa}, 1},       {{0xab}, 1},
    {{0xa6}, 1},       {{0xae}, 1},
    {{0xec}, 1},       {{0xed}, 1},
    {{0xee}, 1},       {{0xef}, 1},
    {{0xc4}, 1},       {{0xc5}, 1},
    {{0x8f}, 1},       {{0x17}, 1},
    {{0x1f}, 1},       {{0x86}, 1},
    {{0x0f, 0xc1}, 2}, {{0x0f, 0xb1}, 2},
    {{0x0f, 0xab}, 2}, {{0x0f, 0x38, 0x82}, 3},
    {{0x0f, 0xa1}, 2}, {{0x0f, 0xa9}, 2},
    {{0x63}, 1},       {{0xd7}, 1},
    {{0xe8}, 1},       {{0x0f, 0x38}, 2},
    {{0x0f, 0x3a}, 2}, {{0xdb}, 1},
    {{0xd9}, 1},       {{0xdd}, 1},
    {{0x0f, 0xc3}, 2},
};

static const uint8_t prefixes[] = {0x66, 0x67, 0x66, 0x67, 0xf0, 0xf2, 0xf3,
                                   0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};

static ZydisMachineMode machine_of(unsigned bits)
{
    return bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
           : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                        : ZYDIS_MACHINE_MODE_LEGACY_16;
}

/* One instruction's bytes; sometimes they are none. */
static unsigned shape(struct rng *r, uint8_t out[32], unsigned bits)
{
    unsigned n = 0;

    while (n < 4 && rng_one_in(r, 4))
        out[n++] = RNG_PICK(r, prefixes);
    switch (rng_below(r, 8)) {
    case 0: /* VEX and EVEX */
        out[n++] = rng_one_in(r, 2) ? 0xc4 : rng_one_in(r, 2) ? 0xc5 : 0x62;
        break;
    case 1:
    case 2:
    case 3:
        if (bits == 64 && rng_one_in(r, 2))
            out[n++] = (uint8_t)(0x40 | rng_below(r, 16));
        for (unsigned i = (unsigned)rng_below(r, ARRAY_SIZE(hot)), k = 0; k < hot[i].count; k++)
            out[n++] = hot[i].bytes[k];
        break;
    default:
        if (bits == 64 && rng_one_in(r, 2))
            out[n++] = (uint8_t)(0x40 | rng_below(r, 16));
        if (rng_one_in(r, 3))
            out[n++] = 0x0f;
        break;
    }
    while (n < 24) {
        uint64_t v = rng_next(r);

        /* Displacements and immediates: often zeros or all ones. */
        if (rng_one_in(r, 3))
            v = rng_one_in(r, 2) ? 0 : ~0ull;
        for (unsigned k = 0; k < 4; k++)
            out[n++] = (uint8_t)(v >> (k * 8));
    }
    return n;
}

static unsigned valid_instruction(struct rng *r, const ZydisDecoder *decoder, uint8_t out[32],
                                  unsigned bits)
{
    for (unsigned tries = 0; tries < 20; tries++) {
        unsigned n = shape(r, out, bits);
        ZydisDecodedInstruction z;

        if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(decoder, NULL, out, MIN(n, 15u), &z)))
            return z.length;
    }
    out[0] = 0x90;
    return 1;
}

void fuzz_code(struct rng *r, uint8_t *at, size_t bytes, unsigned bits, const uint8_t *real,
               size_t real_bytes)
{
    ZydisDecoder decoder;
    size_t done = 0;

    ZydisDecoderInit(&decoder, machine_of(bits),
                     bits == 64   ? ZYDIS_STACK_WIDTH_64
                     : bits == 32 ? ZYDIS_STACK_WIDTH_32
                                  : ZYDIS_STACK_WIDTH_16);
    if (real && real_bytes > bytes && rng_one_in(r, 4)) {
        memcpy(at, real + rng_below(r, real_bytes - bytes), bytes);
        for (size_t n = bytes / 64; n; n--)
            at[rng_below(r, bytes)] = (uint8_t)rng_next(r);
        return;
    }
    if (rng_one_in(r, 8)) {
        for (size_t n = 0; n < bytes; n++)
            at[n] = (uint8_t)rng_next(r);
        return;
    }
    while (done < bytes) {
        uint8_t buf[32];
        unsigned n = valid_instruction(r, &decoder, buf, bits);

        if (rng_one_in(r, 40))
            buf[rng_below(r, n)] = (uint8_t)rng_next(r);
        n = (unsigned)MIN((size_t)n, bytes - done);
        memcpy(at + done, buf, n);
        done += n;
    }
}
