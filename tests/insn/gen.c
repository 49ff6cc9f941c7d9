/*
 * From a form and a seed to a case. Half of the instructions come from Zydis'
 * encoder (operands chosen at random, the encoder chooses the bytes), the other
 * half from the template of the form with all free bits at random, which
 * reaches encodings that no encoder chooses.
 */
#include "tests/insn/insn.h"

/* ---- through the encoder ---- */

static ZydisRegister random_register(struct rng *r, const struct insn_decoded *d, unsigned n,
                                     enum code_size mode)
{
    const ZydisDecodedOperand *o = &d->op[n];
    ZydisRegisterClass k = ZydisRegisterGetClass(o->reg.value);
    bool evex = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    unsigned many = mode == CODE_64 ? 16 : 8;

    if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE)
        return o->reg.value;
    switch (k) {
    case ZYDIS_REGCLASS_GPR8:
        /* AL..BH, or AL..DIL and R8B..R15B */
        return mode == CODE_64 ? (ZydisRegister)(ZYDIS_REGISTER_AL + (int)rng_below(r, 20))
                               : (ZydisRegister)(ZYDIS_REGISTER_AL + (int)rng_below(r, 8));
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return ZydisRegisterEncode(k, (ZyanU8)rng_below(r, many));
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
        return ZydisRegisterEncode(
            k, (ZyanU8)rng_below(r, evex && mode == CODE_64 && k != ZYDIS_REGCLASS_INVALID
                                        ? 32
                                        : many));
    case ZYDIS_REGCLASS_MASK:
        if (o->encoding == ZYDIS_OPERAND_ENCODING_MASK)
            return o->reg.value == ZYDIS_REGISTER_K0
                       ? o->reg.value
                       : ZydisRegisterEncode(k, (ZyanU8)(1 + rng_below(r, 7)));
        return ZydisRegisterEncode(k, (ZyanU8)rng_below(r, 8));
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_X87:
        return ZydisRegisterEncode(k, (ZyanU8)rng_below(r, 8));
    case ZYDIS_REGCLASS_SEGMENT:
        return ZydisRegisterEncode(k, (ZyanU8)rng_below(r, 6));
    default:
        return o->reg.value;
    }
}

static void random_memory(struct rng *r, ZydisEncoderOperand *o, const ZydisDecodedOperand *was,
                          enum code_size mode)
{
    static const ZydisRegister pairs16[][2] = {
        {ZYDIS_REGISTER_BX, ZYDIS_REGISTER_SI}, {ZYDIS_REGISTER_BX, ZYDIS_REGISTER_DI},
        {ZYDIS_REGISTER_BP, ZYDIS_REGISTER_SI}, {ZYDIS_REGISTER_BP, ZYDIS_REGISTER_DI},
        {ZYDIS_REGISTER_SI, ZYDIS_REGISTER_NONE}, {ZYDIS_REGISTER_DI, ZYDIS_REGISTER_NONE},
        {ZYDIS_REGISTER_BP, ZYDIS_REGISTER_NONE}, {ZYDIS_REGISTER_BX, ZYDIS_REGISTER_NONE},
        {ZYDIS_REGISTER_NONE, ZYDIS_REGISTER_NONE},
    };
    bool vsib = was->mem.type == ZYDIS_MEMOP_TYPE_VSIB;
    bool wide = rng_percent(r, 88);
    unsigned width = mode == CODE_64 ? (wide ? 64 : 32) : mode == CODE_32 ? (wide ? 32 : 16)
                                                                          : (wide ? 16 : 32);
    ZydisRegisterClass k = width == 64 ? ZYDIS_REGCLASS_GPR64 : ZYDIS_REGCLASS_GPR32;
    unsigned many = mode == CODE_64 ? 16 : 8;

    if (was->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64) {
        o->mem.displacement = (int64_t)(rng_next(r) & 0xffff);
        return;
    }
    switch (rng_below(r, 3)) {
    case 0:
        o->mem.displacement = 0;
        break;
    case 1:
        o->mem.displacement = (int8_t)rng_next(r);
        break;
    default:
        o->mem.displacement = width == 16 ? (int16_t)rng_next(r) : (int32_t)rng_next(r);
        break;
    }
    if (width == 16 && !vsib) {
        unsigned n = rng_below(r, ARRAY_SIZE(pairs16));

        o->mem.base = pairs16[n][0];
        o->mem.index = pairs16[n][1];
        o->mem.scale = o->mem.index ? 1 : 0;
        if (!o->mem.base)
            o->mem.displacement = (int16_t)rng_next(r);
        return;
    }
    if (mode == CODE_64 && !vsib && rng_percent(r, 12)) {
        o->mem.base = width == 64 ? ZYDIS_REGISTER_RIP : ZYDIS_REGISTER_EIP;
        o->mem.index = ZYDIS_REGISTER_NONE;
        o->mem.scale = 0;
        o->mem.displacement = (int32_t)rng_next(r);
        return;
    }
    o->mem.base = rng_percent(r, 90) ? ZydisRegisterEncode(k, (ZyanU8)rng_below(r, many))
                                     : ZYDIS_REGISTER_NONE;
    if (vsib) {
        ZydisRegisterClass v = ZydisRegisterGetClass(was->mem.index);
        bool evex = was->mem.index && was->size; /* both kinds reach sixteen */

        o->mem.index = ZydisRegisterEncode(v, (ZyanU8)rng_below(r, evex ? many : 8));
        o->mem.scale = (ZyanU8)(1u << rng_below(r, 4));
        return;
    }
    o->mem.index = ZYDIS_REGISTER_NONE;
    o->mem.scale = 0;
    if (rng_percent(r, 50)) {
        unsigned n = rng_below(r, many);

        if (n != X86_RSP) {
            o->mem.index = ZydisRegisterEncode(k, (ZyanU8)n);
            o->mem.scale = (ZyanU8)(1u << rng_below(r, 4));
        }
    }
    if (!o->mem.base && !o->mem.index)
        o->mem.displacement = (int32_t)rng_next(r);
}

static unsigned encode(struct rng *r, const struct insn_decoded *plain, enum code_size mode,
                       uint8_t out[15])
{
    ZydisEncoderRequest q;
    ZyanUSize bytes = 15;

    if (ZYAN_FAILED(ZydisEncoderDecodedInstructionToEncoderRequest(
            &plain->z, plain->op, plain->z.operand_count_visible, &q)))
        return 0;
    for (unsigned n = 0; n < q.operand_count; n++) {
        const ZydisDecodedOperand *was = &plain->op[n];
        ZydisEncoderOperand *o = &q.operands[n];

        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            o->reg.value = random_register(r, plain, n, mode);
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            random_memory(r, o, was, mode);
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            if (was->encoding == ZYDIS_OPERAND_ENCODING_NONE)
                break;
            if (was->imm.is_signed || was->imm.is_relative)
                o->imm.s = sext(value_integer(r, 8), MAX(was->size / 8u, 1u));
            else
                o->imm.u = zext(value_integer(r, 8), MAX(was->size / 8u, 1u));
            break;
        default:
            break;
        }
    }
    if (q.evex.rounding && plain->z.avx.has_sae)
        q.evex.rounding = (ZydisRoundingMode)(ZYDIS_ROUNDING_MODE_RN + (int)rng_below(r, 4));
    if (ZYAN_FAILED(ZydisEncoderEncodeInstruction(&q, out, &bytes)))
        return 0;
    return (unsigned)bytes;
}

/* ---- from the template ---- */

static unsigned mutate(struct rng *r, const struct insn_template *t, enum code_size mode,
                       uint8_t out[32])
{
    bool is64 = mode == CODE_64;
    bool memory = t->modrm < 0xc0;
    unsigned n = 0, bits = (unsigned)rng_next(r);

    memset(out, 0, 32);
    if (rng_percent(r, 8))
        out[n++] = 0x67;
    if (rng_percent(r, 12)) {
        static const uint8_t segments[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};

        out[n++] = segments[rng_below(r, 6)];
    }
    if (t->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
        for (unsigned p = 0; p < t->prefix_count; p++)
            out[n++] = t->prefix[p];
        if (is64 && (t->rex_w || rng_percent(r, 50)))
            out[n++] = (uint8_t)(0x40 | t->rex_w << 3 | (bits & 7));
        if (t->map)
            out[n++] = 0x0f;
        if (t->map >= 2)
            out[n++] = t->map == 2 ? 0x38 : 0x3a;
        out[n++] = t->opcode;
    } else if (t->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        unsigned vvvv = rng_percent(r, 50) ? 15 : bits >> 8 & 15;

        if (t->map == 1 && !t->w && rng_percent(r, 50)) {
            out[n++] = 0xc5;
            out[n++] = (uint8_t)((is64 ? bits & 0x80 : 0x80) | (is64 ? vvvv : vvvv | 8) << 3 |
                                 t->length << 2 | t->pp);
        } else {
            out[n++] = 0xc4;
            out[n++] = (uint8_t)((is64 ? bits & 0xe0 : 0xc0 | (bits & 0x20)) | t->map);
            out[n++] = (uint8_t)(t->w << 7 | (is64 ? vvvv : vvvv | 8) << 3 | t->length << 2 |
                                 t->pp);
        }
        out[n++] = t->opcode;
    } else {
        unsigned vvvv = rng_percent(r, 50) ? 15 : bits >> 8 & 15;
        unsigned aaa = t->aaa ? 1 + (bits >> 12) % 7 : 0;
        unsigned v2 = rng_percent(r, 70) ? 8 : 0;
        /* With embedded rounding the length is the rounding mode. */
        unsigned length = t->b && !memory && t->length == 2 && rng_percent(r, 75)
                              ? bits >> 20 & 3
                              : t->length;

        out[n++] = 0x62;
        out[n++] = (uint8_t)((is64 ? bits & 0xf0 : 0xc0 | (bits & 0x30)) | t->map);
        out[n++] = (uint8_t)(t->w << 7 | (is64 ? vvvv : vvvv | 8) << 3 | 4 | t->pp);
        out[n++] = (uint8_t)(t->z << 7 | length << 5 | t->b << 4 | (is64 ? v2 : 8) | aaa);
        out[n++] = t->opcode;
    }
    if (memory) {
        out[n] = (uint8_t)((t->modrm & 0x38) | (bits >> 24 & 7) | rng_below(r, 3) << 6);
        if (t->modrm & 7) /* a vector index needs a SIB byte */
            out[n] = (uint8_t)((out[n] & 0xf8) | 4);
    } else {
        out[n] = (uint8_t)((t->modrm & 0xf8) | (bits >> 24 & 7));
    }
    if (rng_percent(r, 70)) /* the other register; elsewhere it is opcode */
        out[n] = (uint8_t)((out[n] & 0xc7) | (bits >> 28 & 7) << 3);
    n++;
    for (unsigned m = n; m < 31; m++)
        out[m] = (uint8_t)rng_next(r);
    if (rng_percent(r, 30))
        memset(out + n + 1, rng_percent(r, 50) ? 0 : 0xff, 4);
    return n;
}

/* Which instruction it is, whatever the operands: name without prefixes. */
unsigned gen_bytes(struct rng *r, const struct insn_form *form, enum code_size mode,
                   uint8_t out[15], struct insn_decoded *d)
{
    const struct insn_template *t = &form->t[mode];
    uint8_t bytes[32];
    char name[160];

    for (unsigned attempt = 0; attempt < 60; attempt++) {
        unsigned n = 0;

        if (attempt < 4 && rng_percent(r, 60)) {
            struct insn_decoded plain;

            template_bytes(t, mode, bytes);
            if (t->modrm < 0xc0 && (t->modrm & 7)) { /* vector index, see forms.c */
                if (t->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
                    bytes[5] = 0x10;
                    bytes[2] = (uint8_t)((bytes[2] & 0x87) | (~5u & 15) << 3);
                } else {
                    bytes[6] = 0x10;
                }
            }
            if (!insn_decode(mode, bytes, 15, &plain))
                continue;
            n = encode(r, &plain, mode, bytes);
            if (!n)
                continue;
        } else {
            mutate(r, t, mode, bytes);
            n = 15;
        }
        if (!insn_decode(mode, bytes, n, d) || d->z.mnemonic != form->mnemonic)
            continue;
        form_name(d, name, sizeof name);
        if (strcmp(name, form->name) && attempt < 50)
            continue;
        memcpy(out, bytes, d->z.length);
        return d->z.length;
    }
    template_bytes(t, mode, bytes);
    if (!insn_decode(mode, bytes, 15, d))
        return 0;
    memcpy(out, bytes, d->z.length);
    return d->z.length;
}

/* ---- cases ---- */

static void place_code(struct rng *r, struct insn_case *k)
{
    uint64_t end = CODE_BASE + CODE_BYTES;

    switch (rng_below(r, 20)) {
    case 0: /* up to the last byte */
        k->code_address = end - k->code_bytes;
        break;
    case 1: /* across two pages */
        k->code_address = CODE_BASE + 4096 - 1 - rng_below(r, k->code_bytes);
        break;
    default:
        k->code_address = CODE_BASE + 0x400 + rng_below(r, 0x800);
        break;
    }
}

bool gen_case(const struct insn_forms *f, struct insn_case *k)
{
    const struct insn_form *form = &f->form[k->form];
    struct rng r = {k->seed * 0x2545f4914f6cdd1dull ^ k->number};
    struct insn_decoded d;

    rng_next(&r);
    k->patches = 0;
    k->count = 1;
    if (!form->t[k->mode].valid)
        return false;
    k->code_bytes = gen_bytes(&r, form, k->mode, k->code, &d);
    if (!k->code_bytes)
        return false;
    place_code(&r, k);
    value_state(&r, &k->in, k->mode);
    k->in.rip = k->code_address - case_segment_base(k, ZYDIS_REGISTER_CS);
    gen_operands(&r, k, &d, k->code, k->code_address);
    return true;
}
