/*
 * Which instruction forms there are: a sweep of the opcode space through the
 * decoder, every prefix, map, opcode, ModRM extension, vector length and EVEX
 * decoration, for each of the three code sizes. A form is a mnemonic with its
 * kinds of operands; its template is the first encoding that decoded to it.
 * What is swept and what is left out (known.c) is about instruction sets, not
 * about this host, so that the list is the same everywhere: forms.txt.
 */
#include "tests/insn/insn.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- decoding ---- */

static ZydisDecoder decoder[CODE_SIZES];
static bool is_decoder_ready;

ZydisDecoder *insn_decoder(enum code_size mode)
{
    static const ZydisMachineMode machine[] = {
        ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
        ZYDIS_MACHINE_MODE_LONG_64};
    static const ZydisStackWidth stack[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
                                            ZYDIS_STACK_WIDTH_64};

    if (!is_decoder_ready) {
        for (unsigned n = 0; n < CODE_SIZES; n++) {
            ZydisDecoderInit(&decoder[n], machine[n], stack[n]);
            ZydisDecoderEnableMode(&decoder[n], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
            ZydisDecoderEnableMode(&decoder[n], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
            ZydisDecoderEnableMode(&decoder[n], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
            ZydisDecoderEnableMode(&decoder[n], ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
        }
        is_decoder_ready = true;
    }
    return &decoder[mode];
}

bool insn_decode(enum code_size mode, const uint8_t *bytes, unsigned n, struct insn_decoded *d)
{
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(insn_decoder(mode), bytes, n, &d->z, d->op));
}

/* The instruction sets that Vireo's processor can have. */
static bool is_covered(ZydisISASet set)
{
    switch (set) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286PROTECTED:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_PREFETCHWT1:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_RDPMC:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_AMD:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_GFNI:
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_XSAVEOPT:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_RDRAND:
    case ZYDIS_ISA_SET_RDSEED:
    case ZYDIS_ISA_SET_RDTSCP:
    case ZYDIS_ISA_SET_RDPID:
    case ZYDIS_ISA_SET_RDWRFSGS:
    case ZYDIS_ISA_SET_INVPCID:
    case ZYDIS_ISA_SET_SMAP:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_CLFLUSHOPT:
    case ZYDIS_ISA_SET_CLWB:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_VPCLMULQDQ:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_AVX_GFNI:
    case ZYDIS_ISA_SET_VAES:
    case ZYDIS_ISA_SET_AVX_VNNI:
    case ZYDIS_ISA_SET_AVX512BW_128 ... ZYDIS_ISA_SET_AVX512DQ_SCALAR:
    case ZYDIS_ISA_SET_AVX512F_128 ... ZYDIS_ISA_SET_AVX512F_SCALAR:
    case ZYDIS_ISA_SET_AVX512_BF16_128 ... ZYDIS_ISA_SET_AVX512_BITALG_512:
    case ZYDIS_ISA_SET_AVX512_GFNI_128 ... ZYDIS_ISA_SET_AVX512_VNNI_512:
    case ZYDIS_ISA_SET_AVX512_VPCLMULQDQ_128 ... ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_512:
        return true;
    default:
        return false;
    }
}

/* ---- names ---- */

static void append(char *out, size_t bytes, const char *text)
{
    size_t n = strlen(out);

    if (n + 1 < bytes)
        snprintf(out + n, bytes - n, "%s", text);
}

static void operand_name(const ZydisDecodedOperand *o, char *out, size_t bytes)
{
    switch (o->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE) {
            snprintf(out, bytes, "%s", ZydisRegisterGetString(o->reg.value));
            return;
        }
        switch (ZydisRegisterGetClass(o->reg.value)) {
        case ZYDIS_REGCLASS_GPR8:
        case ZYDIS_REGCLASS_GPR16:
        case ZYDIS_REGCLASS_GPR32:
        case ZYDIS_REGCLASS_GPR64:
            snprintf(out, bytes, "r%u", o->size);
            return;
        case ZYDIS_REGCLASS_X87:
            snprintf(out, bytes, "st");
            return;
        case ZYDIS_REGCLASS_MMX:
            snprintf(out, bytes, "mm");
            return;
        case ZYDIS_REGCLASS_XMM:
            snprintf(out, bytes, "xmm");
            return;
        case ZYDIS_REGCLASS_YMM:
            snprintf(out, bytes, "ymm");
            return;
        case ZYDIS_REGCLASS_ZMM:
            snprintf(out, bytes, "zmm");
            return;
        case ZYDIS_REGCLASS_MASK:
            snprintf(out, bytes, "k");
            return;
        case ZYDIS_REGCLASS_SEGMENT:
            snprintf(out, bytes, "sreg");
            return;
        case ZYDIS_REGCLASS_CONTROL:
            snprintf(out, bytes, "cr");
            return;
        case ZYDIS_REGCLASS_DEBUG:
            snprintf(out, bytes, "dr");
            return;
        default:
            snprintf(out, bytes, "%s", ZydisRegisterGetString(o->reg.value));
            return;
        }
    case ZYDIS_OPERAND_TYPE_MEMORY:
        if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            snprintf(out, bytes, "m");
        else if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            snprintf(out, bytes, "m%u[%s]", o->size,
                     ZydisRegisterGetClass(o->mem.index) == ZYDIS_REGCLASS_XMM   ? "xmm"
                     : ZydisRegisterGetClass(o->mem.index) == ZYDIS_REGCLASS_YMM ? "ymm"
                                                                                 : "zmm");
        else if (o->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)
            snprintf(out, bytes, "moffs%u", o->size);
        else
            snprintf(out, bytes, "m%u", o->size);
        return;
    case ZYDIS_OPERAND_TYPE_POINTER:
        snprintf(out, bytes, "ptr");
        return;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE)
            snprintf(out, bytes, "1");
        else
            snprintf(out, bytes, "%s%u", o->imm.is_relative ? "rel" : "imm", o->size);
        return;
    default:
        snprintf(out, bytes, "?");
        return;
    }
}

void form_name(const struct insn_decoded *d, char *out, size_t bytes)
{
    const ZydisDecodedInstruction *z = &d->z;
    bool masked = false;

    out[0] = 0;
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        append(out, bytes, "evex ");
    if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        append(out, bytes, "lock ");
    if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        append(out, bytes, "rep ");
    if (z->attributes & ZYDIS_ATTRIB_HAS_REPNE)
        append(out, bytes, "repne ");
    append(out, bytes, ZydisMnemonicGetString(z->mnemonic));
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP: {
        char width[16];

        snprintf(width, sizeof width, "%s.o%u",
                 z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ? ".far" : "", z->operand_width);
        append(out, bytes, width);
        break;
    }
    default:
        break;
    }
    for (unsigned n = 0; n < z->operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        char text[48];

        if (o->encoding == ZYDIS_OPERAND_ENCODING_MASK) {
            masked = o->reg.value != ZYDIS_REGISTER_K0;
            continue;
        }
        operand_name(o, text, sizeof text);
        append(out, bytes, n ? ", " : " ");
        append(out, bytes, text);
    }
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX)
        return;
    if (masked)
        append(out, bytes,
               z->avx.mask.mode == ZYDIS_MASK_MODE_ZEROING ||
                       z->avx.mask.mode == ZYDIS_MASK_MODE_CONTROL_ZEROING
                   ? " {k}{z}"
                   : " {k}");
    if (z->avx.broadcast.mode && !z->avx.broadcast.is_static)
        append(out, bytes, " {b}");
    if (z->avx.has_sae)
        append(out, bytes, z->avx.rounding.mode ? " {er}" : " {sae}");
}

/* ---- templates ---- */

/* The bytes with the plainest choice of everything that is free; zeroes for
 * displacement and immediate follow. */
unsigned template_bytes(const struct insn_template *t, enum code_size mode, uint8_t *out)
{
    unsigned n = 0;

    memset(out, 0, 24);
    if (t->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
        for (unsigned p = 0; p < t->prefix_count; p++)
            out[n++] = t->prefix[p];
        if (t->rex_w)
            out[n++] = 0x48;
        if (t->map)
            out[n++] = 0x0f;
        if (t->map >= 2)
            out[n++] = t->map == 2 ? 0x38 : 0x3a;
    } else if (t->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        out[n++] = 0xc4;
        out[n++] = (uint8_t)(0xe0 | t->map);
        out[n++] = (uint8_t)(t->w << 7 | 0x78 | t->length << 2 | t->pp);
    } else {
        out[n++] = 0x62;
        out[n++] = (uint8_t)(0xf0 | t->map);
        out[n++] = (uint8_t)(t->w << 7 | 0x78 | 4 | t->pp);
        out[n++] = (uint8_t)(t->z << 7 | t->length << 5 | t->b << 4 | 8 | t->aaa);
    }
    out[n++] = t->opcode;
    out[n++] = t->modrm;
    return n;
}

/* ---- the sweep ---- */

struct sweep {
    struct insn_forms *forms;
    enum code_size mode;
    unsigned *hash; /* index + 1 */
    unsigned hash_size;
};

static unsigned text_hash(const char *s)
{
    unsigned h = 2166136261u;

    while (*s)
        h = (h ^ (uint8_t)*s++) * 16777619u;
    return h;
}

static void add(struct sweep *w, const struct insn_template *t, const char *name,
                ZydisMnemonic mnemonic)
{
    struct insn_forms *f = w->forms;
    unsigned h = text_hash(name) % w->hash_size;
    struct insn_form *form;

    while (w->hash[h] && strcmp(f->form[w->hash[h] - 1].name, name))
        h = (h + 1) % w->hash_size;
    if (!w->hash[h]) {
        if (f->count == f->capacity) {
            f->capacity = f->capacity ? f->capacity * 2 : 4096;
            f->form = realloc(f->form, f->capacity * sizeof *f->form);
        }
        form = &f->form[f->count++];
        *form = (struct insn_form){.name = strdup(name), .mnemonic = mnemonic};
        w->hash[h] = f->count;
    }
    form = &f->form[w->hash[h] - 1];
    if (!form->t[w->mode].valid) {
        form->t[w->mode] = *t;
        form->t[w->mode].valid = true;
    }
}

static bool try_template(struct sweep *w, const struct insn_template *t)
{
    struct insn_decoded d;
    uint8_t bytes[24];
    char name[160];

    template_bytes(t, w->mode, bytes);
    if (!insn_decode(w->mode, bytes, 15, &d) || d.z.encoding != t->encoding ||
        !is_covered(d.z.meta.isa_set) || known_never(d.z.mnemonic))
        return false;
    form_name(&d, name, sizeof name);
    add(w, t, name, d.z.mnemonic);
    if (t->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && t->prefix_count < 2) {
        static const struct {
            ZydisInstructionAttributes accepts;
            uint8_t prefix;
        } extra[] = {
            {ZYDIS_ATTRIB_ACCEPTS_LOCK, 0xf0},
            {ZYDIS_ATTRIB_ACCEPTS_REP | ZYDIS_ATTRIB_ACCEPTS_REPE, 0xf3},
            {ZYDIS_ATTRIB_ACCEPTS_REPNE, 0xf2},
        };
        for (unsigned n = 0; n < ARRAY_SIZE(extra); n++) {
            struct insn_template with = *t;

            if (!(d.z.attributes & extra[n].accepts) ||
                (t->prefix_count && t->prefix[0] == extra[n].prefix))
                continue;
            with.prefix[with.prefix_count++] = extra[n].prefix;
            template_bytes(&with, w->mode, bytes);
            if (insn_decode(w->mode, bytes, 15, &d)) {
                form_name(&d, name, sizeof name);
                add(w, &with, name, d.z.mnemonic);
            }
        }
    }
    return true;
}

static bool is_prefix_byte(enum code_size mode, unsigned b)
{
    switch (b) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64 ... 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
    case 0x0f:
        return true;
    case 0x40 ... 0x4f:
        return mode == CODE_64;
    default:
        return false;
    }
}

static void sweep_legacy(struct sweep *w)
{
    static const struct {
        uint8_t count, prefix[2];
    } sets[] = {{0, {0}},    {1, {0x66}},       {1, {0xf2}},
                {1, {0xf3}}, {2, {0x66, 0xf2}}, {2, {0x66, 0xf3}}};

    for (unsigned s = 0; s < ARRAY_SIZE(sets); s++) {
        for (unsigned rex = 0; rex < (w->mode == CODE_64 ? 2u : 1u); rex++) {
            for (unsigned op = 0; op < 4 * 256; op++) {
                struct insn_template t = {
                    .encoding = ZYDIS_INSTRUCTION_ENCODING_LEGACY,
                    .prefix_count = sets[s].count,
                    .prefix = {sets[s].prefix[0], sets[s].prefix[1]},
                    .rex_w = rex,
                    .map = (uint8_t)(op >> 8),
                    .opcode = (uint8_t)op,
                };
                bool all_rm = (t.map == 0 && t.opcode >= 0xd8 && t.opcode <= 0xdf) ||
                              (t.map == 1 && (t.opcode == 1 || t.opcode == 0xae));

                if (t.map == 0 && is_prefix_byte(w->mode, t.opcode))
                    continue;
                if (t.map == 1 && (t.opcode == 0x38 || t.opcode == 0x3a))
                    continue;
                for (unsigned m = 0; m < 256; m++) {
                    bool reg = m >= 0xc0;

                    if ((m >= 0x40 && !reg) || (!reg && (m & 7)) ||
                        (reg && !all_rm && (m & 7) != 1))
                        continue;
                    t.modrm = (uint8_t)m;
                    try_template(w, &t);
                }
            }
        }
    }
}

static void sweep_vex(struct sweep *w)
{
    for (unsigned n = 0; n < 3 * 256 * 4 * 2 * 2 * 16; n++) {
        struct insn_template t = {
            .encoding = ZYDIS_INSTRUCTION_ENCODING_VEX,
            .opcode = (uint8_t)(n >> 4),
            .modrm = (uint8_t)((n & 7) << 3 | (n & 8 ? 0xc1 : 0)),
            .pp = n >> 12 & 3,
            .length = n >> 14 & 1,
            .w = n >> 15 & 1,
            .map = (uint8_t)(1 + (n >> 16)),
        };

        /* A vector index must not be the destination, nor the mask. */
        if (!try_template(w, &t) && !(n & 8)) {
            struct insn_decoded d;
            uint8_t bytes[24];

            t.modrm |= 4;
            template_bytes(&t, w->mode, bytes);
            bytes[5] = 0x10; /* SIB: base 0, index 2 */
            bytes[2] = (uint8_t)((bytes[2] & 0x87) | (~5u & 15) << 3);
            if (insn_decode(w->mode, bytes, 15, &d) && is_covered(d.z.meta.isa_set)) {
                char name[160];

                form_name(&d, name, sizeof name);
                add(w, &t, name, d.z.mnemonic);
            }
        }
    }
}

static void sweep_evex(struct sweep *w)
{
    for (unsigned n = 0; n < 3 * 256 * 4 * 4 * 2 * 2 * 2 * 2 * 16; n++) {
        struct insn_template t = {
            .encoding = ZYDIS_INSTRUCTION_ENCODING_EVEX,
            .aaa = n >> 4 & 1,
            .z = n >> 5 & 1,
            .b = n >> 6 & 1,
            .w = n >> 7 & 1,
            .length = n >> 8 & 3,
            .pp = n >> 10 & 3,
            .opcode = (uint8_t)(n >> 12),
            .map = (uint8_t)(1 + (n >> 20)),
            .modrm = (uint8_t)((n & 7) << 3 | (n & 8 ? 0xc1 : 0)),
        };

        if ((t.z && !t.aaa) || (t.length == 3 && !t.b))
            continue;
        if (!try_template(w, &t) && !(n & 8)) {
            struct insn_decoded d;
            uint8_t bytes[24];

            t.modrm |= 4;
            template_bytes(&t, w->mode, bytes);
            bytes[6] = 0x10;
            if (insn_decode(w->mode, bytes, 15, &d) && is_covered(d.z.meta.isa_set)) {
                char name[160];

                form_name(&d, name, sizeof name);
                add(w, &t, name, d.z.mnemonic);
            }
        }
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct insn_form *)a)->name, ((const struct insn_form *)b)->name);
}

void forms_create(struct insn_forms *f)
{
    struct sweep w = {.forms = f, .hash_size = 1 << 16};

    *f = (struct insn_forms){0};
    w.hash = calloc(w.hash_size, sizeof *w.hash);
    for (unsigned mode = 0; mode < CODE_SIZES; mode++) {
        w.mode = mode;
        sweep_legacy(&w);
        sweep_vex(&w);
        sweep_evex(&w);
    }
    free(w.hash);
    qsort(f->form, f->count, sizeof *f->form, by_name);
}

void forms_destroy(struct insn_forms *f)
{
    for (unsigned n = 0; n < f->count; n++)
        free(f->form[n].name);
    free(f->form);
}
