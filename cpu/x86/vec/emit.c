/*
 * Building thunks: which guest registers an instruction needs, the moves
 * between x86_cpu.x and the host's registers of the same number, and the
 * instruction itself with its operands replaced (SDM Vol. 2, 2.1 to 2.7).
 *
 * In a thunk RDI is struct x86_cpu, RSI the memory operand, RAX a general
 * register that the instruction names. Vector and mask registers keep their
 * numbers.
 */
#include "cpu/x86/vec/vec_internal.h"

#define X_OFFSET(member) ((unsigned)(offsetof(struct x86_cpu, x) + offsetof(struct x86_xsave, member)))

enum host_base { BASE_RDI = 7, BASE_RSI = 6 };

void emit_bytes(struct vec_emit *e, const void *p, unsigned n)
{
    if (e->n + n <= sizeof e->b)
        memcpy(e->b + e->n, p, n);
    e->n += n; /* an overflow is seen by vec_thunk_intern */
}

void emit_u8(struct vec_emit *e, unsigned v)
{
    uint8_t b = (uint8_t)v;

    emit_bytes(e, &b, 1);
}

static void emit_u32(struct vec_emit *e, uint32_t v)
{
    emit_bytes(e, &v, 4);
}

/* ModRM for [rdi + disp32]. */
static void emit_state_operand(struct vec_emit *e, unsigned reg, unsigned offset)
{
    emit_u8(e, 0x80 | (reg & 7) << 3 | BASE_RDI);
    emit_u32(e, offset);
}

enum vex_pp { PP_NONE, PP_66, PP_F3, PP_F2 };
enum vex_map { MAP_0F = 1, MAP_0F38, MAP_0F3A };

static void emit_vex_state(struct vec_emit *e, unsigned map, unsigned pp, unsigned w, unsigned l,
                           unsigned vvvv, unsigned opcode, unsigned reg, unsigned offset)
{
    emit_u8(e, 0xc4);
    emit_u8(e, (reg < 8 ? 0x80 : 0) | 0x60 | map);
    emit_u8(e, w << 7 | (~vvvv & 15) << 3 | l << 2 | pp);
    emit_u8(e, opcode);
    emit_state_operand(e, reg, offset);
}

/* 512-bit, unmasked. */
static void emit_evex_state(struct vec_emit *e, unsigned map, unsigned pp, unsigned w,
                            unsigned vvvv, unsigned opcode, unsigned reg, unsigned offset)
{
    emit_u8(e, 0x62);
    emit_u8(e, (reg & 8 ? 0 : 0x80) | 0x60 | (reg & 16 ? 0 : 0x10) | map);
    emit_u8(e, w << 7 | (~vvvv & 15) << 3 | 4 | pp);
    emit_u8(e, 2 << 5 | (vvvv & 16 ? 0 : 8)); /* L'L = 512 */
    emit_u8(e, opcode);
    emit_state_operand(e, reg, offset);
}

static void emit_gpr(struct vec_emit *e, bool store, unsigned host, unsigned guest, unsigned size)
{
    if (size == 2)
        emit_u8(e, 0x66);
    else
        emit_u8(e, 0x48);
    emit_u8(e, store ? 0x89 : 0x8b);
    emit_state_operand(e, host, guest * 8);
}

static void emit_movups(struct vec_emit *e, bool store, unsigned reg, unsigned offset)
{
    if (reg >= 8)
        emit_u8(e, 0x44);
    emit_u8(e, 0x0f);
    emit_u8(e, store ? 0x11 : 0x10);
    emit_state_operand(e, reg, offset);
}

/* ---- what the instruction touches ---- */

struct usage {
    uint8_t load[32], store[32]; /* bytes of vector registers */
    uint8_t mask_load, mask_store;
    uint8_t gpr_load, gpr_store; /* size of the explicit one, in bytes */
    unsigned gpr;
    bool string_compare; /* PCMPxSTRx: RAX and RDX in, RCX out */
    bool reads_flags, writes_flags;
    bool legacy, evex;
    bool wide; /* touches more than 128 bits */
};

static void use_vector(struct usage *u, const ZydisDecodedOperand *op, bool read, bool write)
{
    unsigned n = vec_reg_id(op), bytes = vec_reg_bytes(vec_reg_class(op));

    if (bytes > 16)
        u->wide = true;
    if (read)
        u->load[n] = MAX(u->load[n], bytes);
    if (write)
        u->store[n] = MAX(u->store[n], bytes);
}

static void use_operand(struct usage *u, const ZydisDecodedInstruction *z,
                        const ZydisDecodedOperand *op)
{
    ZydisRegisterClass k = vec_reg_class(op);
    bool write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    /* A conditional write leaves elements alone, so they must be there. */
    bool read = op->actions & (ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_CONDWRITE);
    unsigned n;

    if (vec_is_vector(k)) {
        /* Legacy instructions may write a part of the register; a mask may
         * leave elements of any destination alone. */
        if (write && (u->legacy || z->avx.mask.mode == ZYDIS_MASK_MODE_MERGING))
            read = true;
        use_vector(u, op, read, write);
    } else if (k == ZYDIS_REGCLASS_MASK) {
        n = vec_reg_id(op);
        if (op->encoding == ZYDIS_OPERAND_ENCODING_MASK && !n)
            return; /* k0 here means no mask */
        if (read)
            u->mask_load |= BIT(n);
        if (write)
            u->mask_store |= BIT(n);
    } else if (vec_is_gpr(k) && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
        u->gpr = vec_reg_id(op);
        if (read)
            u->gpr_load = 8;
        if (write) /* only FNSTSW AX writes less than 32 bits */
            u->gpr_store = op->size == 16 ? 2 : 8;
    } else if (vec_is_gpr(k)) {
        u->string_compare = true;
    }
}

static void find_usage(struct usage *u, const struct x86_decode *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    const ZydisAccessedFlags *f = z->cpu_flags;

    memset(u, 0, sizeof *u);
    u->legacy = z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    u->evex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    for (unsigned n = 0; n < z->operand_count; n++)
        use_operand(u, z, &d->op[n]);
    if (f) {
        u->reads_flags = f->tested;
        u->writes_flags = f->modified | f->set_0 | f->set_1 | f->undefined;
    }
    /* FCOMI defines three of the flags; what happens to the others is the
     * host's answer, from the guest's values. */
    if (z->meta.isa_ext == ZYDIS_ISA_EXT_X87 && u->writes_flags)
        u->reads_flags = true;
}

/* ---- loads and stores ---- */

static void load_vector(struct vec_emit *e, const struct usage *u, unsigned n, unsigned bytes)
{
    if (n >= 16) {
        emit_evex_state(e, MAP_0F, PP_NONE, 0, 0, 0x10, n, X_OFFSET(hi16_zmm) + 64 * (n - 16));
        return;
    }
    if (u->legacy)
        emit_movups(e, false, n, X_OFFSET(xmm) + 16 * n);
    else
        emit_vex_state(e, MAP_0F, PP_NONE, 0, 0, 0, 0x10, n, X_OFFSET(xmm) + 16 * n);
    if (bytes >= 32) { /* VINSERTF128 */
        emit_vex_state(e, MAP_0F3A, PP_66, 0, 1, n, 0x18, n, X_OFFSET(ymm_hi) + 16 * n);
        emit_u8(e, 1);
    }
    if (bytes == 64) { /* VINSERTF64X4 */
        emit_evex_state(e, MAP_0F3A, PP_66, 1, n, 0x1a, n, X_OFFSET(zmm_hi) + 32 * n);
        emit_u8(e, 1);
    }
}

static void store_vector(struct vec_emit *e, const struct usage *u, unsigned n, unsigned bytes,
                         unsigned zero, bool has_avx512)
{
    if (u->legacy) {
        emit_movups(e, true, n, X_OFFSET(xmm) + 16 * n);
        return;
    }
    if (n >= 16) { /* EVEX only, which has cleared what it did not write */
        emit_evex_state(e, MAP_0F, PP_NONE, 0, 0, 0x11, n, X_OFFSET(hi16_zmm) + 64 * (n - 16));
        return;
    }
    emit_vex_state(e, MAP_0F, PP_NONE, 0, 0, 0, 0x11, n, X_OFFSET(xmm) + 16 * n);
    if (bytes >= 32) { /* VEXTRACTF128 */
        emit_vex_state(e, MAP_0F3A, PP_66, 0, 1, 0, 0x19, n, X_OFFSET(ymm_hi) + 16 * n);
        emit_u8(e, 1);
    } else {
        emit_vex_state(e, MAP_0F, PP_NONE, 0, 0, 0, 0x11, zero, X_OFFSET(ymm_hi) + 16 * n);
    }
    if (bytes == 64) { /* VEXTRACTF64X4 */
        emit_evex_state(e, MAP_0F3A, PP_66, 1, 0, 0x1b, n, X_OFFSET(zmm_hi) + 32 * n);
        emit_u8(e, 1);
    } else if (has_avx512) {
        emit_vex_state(e, MAP_0F, PP_NONE, 0, 1, 0, 0x11, zero, X_OFFSET(zmm_hi) + 32 * n);
    }
}

/* A register among 0..15 that the instruction leaves alone. */
static unsigned free_vector(const struct usage *u)
{
    for (unsigned n = 15; n; n--) {
        if (!u->load[n] && !u->store[n])
            return n;
    }
    return 0;
}

/* ---- the instruction ---- */

static void emit_immediates(struct vec_emit *e, const struct x86_decode *d, bool is4)
{
    for (unsigned n = 0; n < 2; n++) {
        unsigned bytes = d->z.raw.imm[n].size / 8;
        const uint8_t *p = d->bytes + d->z.raw.imm[n].offset;

        if (!bytes)
            continue;
        if (is4 && bytes == 1) /* outside 64-bit mode bit 7 is ignored */
            emit_u8(e, d->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? *p : *p & 0x7f);
        else
            emit_bytes(e, p, bytes);
    }
}

struct encoding {
    unsigned modrm;
    bool mem, gpr_reg, gpr_rm, is4;
};

static struct encoding find_encoding(const struct x86_decode *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    struct encoding x = {.mem = false};
    unsigned mod = z->raw.modrm.mod, reg = z->raw.modrm.reg, rm = z->raw.modrm.rm;

    for (unsigned n = 0; n < z->operand_count; n++) {
        const ZydisDecodedOperand *op = &d->op[n];

        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            x.mem = true;
        if (op->encoding == ZYDIS_OPERAND_ENCODING_IS4)
            x.is4 = true;
        if (!vec_is_gpr(vec_reg_class(op)))
            continue;
        if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            x.gpr_reg = true;
        if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            x.gpr_rm = true;
    }
    if (x.mem) {
        mod = 0;
        rm = BASE_RSI;
    }
    if (x.gpr_rm)
        rm = X86_RAX;
    if (x.gpr_reg)
        reg = X86_RAX;
    x.modrm = mod << 6 | reg << 3 | rm;
    return x;
}

static void emit_legacy(struct vec_emit *e, const struct x86_decode *d, const struct encoding *x)
{
    const ZydisDecodedInstruction *z = &d->z;

    for (unsigned n = 0; n < z->raw.prefix_count; n++) {
        if (z->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            emit_u8(e, z->raw.prefixes[n].value);
    }
    if (z->attributes & ZYDIS_ATTRIB_HAS_REX) {
        unsigned rex = 0x40 | z->raw.rex.W << 3;

        if (!x->gpr_reg)
            rex |= z->raw.rex.R << 2;
        if (!x->gpr_rm && !x->mem)
            rex |= z->raw.rex.B;
        emit_u8(e, rex);
    }
    if (z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        emit_u8(e, 0x0f);
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        emit_u8(e, 0x38);
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        emit_u8(e, 0x3a);
    emit_u8(e, z->opcode);
    if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM)
        emit_u8(e, x->modrm);
    emit_immediates(e, d, false);
}

/* Outside 64-bit mode VEX.W and EVEX.W do not widen general registers, nor the
 * memory operand in their place (SDM Vol. 2, 2.3.5.5). */
static bool w_is_ignored(const struct x86_decode *d, const struct encoding *x)
{
    if (d->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
        return false;
    if (x->gpr_reg || x->gpr_rm)
        return true;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPCMPESTRI: /* lengths in EAX and EDX */
    case ZYDIS_MNEMONIC_VPCMPESTRM:
        return true;
    default:
        return false;
    }
}

static void emit_vex(struct vec_emit *e, const struct x86_decode *d, const struct encoding *x)
{
    const ZydisDecodedInstruction *z = &d->z;
    const uint8_t *p = d->bytes + z->raw.vex.offset;
    bool wide_mode = z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
    uint8_t b1, b2;

    if (z->raw.vex.size == 2) {
        b1 = (p[1] & 0x80) | 0x60 | MAP_0F;
        b2 = p[1] & 0x7f;
    } else {
        b1 = p[1];
        b2 = p[2];
    }
    if (x->mem || x->gpr_rm)
        b1 |= 0x60; /* X, B: none */
    if (x->gpr_reg)
        b1 |= 0x80;
    if (!wide_mode) {
        b1 |= 0xe0;
        b2 |= 0x40; /* vvvv names eight registers */
    }
    if (w_is_ignored(d, x))
        b2 &= 0x7f;
    emit_u8(e, 0xc4);
    emit_u8(e, b1);
    emit_u8(e, b2);
    emit_u8(e, z->opcode);
    if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM)
        emit_u8(e, x->modrm);
    emit_immediates(e, d, x->is4);
}

static void emit_evex(struct vec_emit *e, const struct x86_decode *d, const struct encoding *x)
{
    const ZydisDecodedInstruction *z = &d->z;
    const uint8_t *p = d->bytes + z->raw.evex.offset;
    uint8_t b1 = p[1], b2 = p[2], b3 = p[3];

    if (x->mem || x->gpr_rm)
        b1 |= 0x60; /* X, B: none */
    if (x->gpr_reg)
        b1 |= 0x90; /* R, R' */
    if (z->machine_mode != ZYDIS_MACHINE_MODE_LONG_64) {
        b1 |= 0xf0;
        b2 |= 0x40;
        b3 |= 0x08; /* V' */
    }
    if (w_is_ignored(d, x))
        b2 &= 0x7f;
    emit_u8(e, 0x62);
    emit_u8(e, b1);
    emit_u8(e, b2);
    emit_u8(e, b3);
    emit_u8(e, z->opcode);
    emit_u8(e, x->modrm);
    emit_immediates(e, d, false);
}

static void emit_instruction(struct vec_emit *e, const struct x86_decode *d)
{
    struct encoding x = find_encoding(d);

    switch (d->z.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        emit_vex(e, d, &x);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        emit_evex(e, d, &x);
        break;
    default:
        emit_legacy(e, d, &x);
        break;
    }
}

/* ---- the whole ---- */

static void emit_loads(struct vec_emit *e, const struct usage *u, bool has_avx512bw)
{
    for (unsigned n = 0; n < 32; n++) {
        if (u->load[n])
            load_vector(e, u, n, u->load[n]);
    }
    for (unsigned n = 0; n < 8; n++) {
        if (u->mask_load & BIT(n)) /* KMOVQ, or KMOVW where there is no more */
            emit_vex_state(e, MAP_0F, PP_NONE, has_avx512bw, 0, 0, 0x90, n,
                           X_OFFSET(opmask) + 8 * n);
    }
    if (u->reads_flags) {
        emit_bytes(e, "\x0f\xb7", 2); /* movzx eax, word [cc] */
        emit_state_operand(e, X86_RAX, offsetof(struct x86_cpu, cc));
        emit_bytes(e, "\x04\x7f\x9e", 3); /* add al, 7fh (OF); sahf */
    }
    if (u->gpr_load)
        emit_gpr(e, false, X86_RAX, u->gpr, 8);
    if (u->string_compare) {
        emit_gpr(e, false, X86_RAX, X86_RAX, 8);
        emit_gpr(e, false, X86_RDX, X86_RDX, 8);
        emit_gpr(e, false, X86_RCX, X86_RCX, 8);
    }
}

static void emit_stores(struct vec_emit *e, const struct usage *u, const struct vec_runtime *rt)
{
    unsigned zero = free_vector(u);
    bool needs_zero = false;

    if (u->gpr_store)
        emit_gpr(e, true, X86_RAX, u->gpr, u->gpr_store);
    if (u->string_compare)
        emit_gpr(e, true, X86_RCX, X86_RCX, 8);
    for (unsigned n = 0; n < 16; n++) {
        if (u->store[n] && u->store[n] < (rt->has_avx512 ? 64 : 32))
            needs_zero = true;
    }
    if (needs_zero && !u->legacy) { /* VPXOR */
        emit_u8(e, 0xc4);
        emit_u8(e, (zero < 8 ? 0xe0 : 0x40) | MAP_0F);
        emit_u8(e, (~zero & 15) << 3 | PP_66);
        emit_u8(e, 0xef);
        emit_u8(e, 0xc0 | (zero & 7) << 3 | (zero & 7));
    }
    for (unsigned n = 0; n < 32; n++) {
        if (u->store[n])
            store_vector(e, u, n, u->store[n], zero, rt->has_avx512);
    }
    for (unsigned n = 0; n < 8; n++) {
        if (u->mask_store & BIT(n))
            emit_vex_state(e, MAP_0F, PP_NONE, rt->has_avx512bw, 0, 0, 0x91, n,
                           X_OFFSET(opmask) + 8 * n);
    }
    if (u->writes_flags) {
        emit_bytes(e, "\x9f\x0f\x90\xc0\x66\x89", 6); /* lahf; seto al; mov [cc], ax */
        emit_state_operand(e, X86_RAX, offsetof(struct x86_cpu, cc));
    }
    if (u->wide && !u->legacy)
        emit_bytes(e, "\xc5\xf8\x77", 3); /* vzeroupper */
    emit_u8(e, 0xc3);
}

vec_thunk *vec_thunk_make(struct x86_decode *d)
{
    struct x86_vcpu *c = d->c;
    struct usage u;
    struct vec_emit e = {.n = 0};

    find_usage(&u, d);
    emit_loads(&e, &u, c->vec->has_avx512bw);
    emit_instruction(&e, d);
    emit_stores(&e, &u, c->vec);
    return vec_thunk_intern(c, &e, true);
}

/* VZEROUPPER and VZEROALL on x86_cpu.x: three quarters of a kilobyte to clear,
 * in the widest stores there are. */
vec_thunk *vec_thunk_make_clear(struct x86_vcpu *c, unsigned registers, bool whole)
{
    struct vec_emit e = {.n = 0};

    emit_bytes(&e, "\xc5\xf9\xef\xc0", 4); /* vpxor xmm0, xmm0, xmm0 */
    for (unsigned n = 0; n < registers; n += 2) {
        if (whole)
            emit_vex_state(&e, MAP_0F, PP_NONE, 0, 1, 0, 0x11, 0, X_OFFSET(xmm) + 16 * n);
        emit_vex_state(&e, MAP_0F, PP_NONE, 0, 1, 0, 0x11, 0, X_OFFSET(ymm_hi) + 16 * n);
        if (c->vec->has_avx512)
            emit_evex_state(&e, MAP_0F, PP_NONE, 0, 0, 0x11, 0, X_OFFSET(zmm_hi) + 32 * n);
    }
    emit_bytes(&e, "\xc5\xf8\x77\xc3", 4); /* vzeroupper; ret */
    return vec_thunk_intern(c, &e, true);
}
