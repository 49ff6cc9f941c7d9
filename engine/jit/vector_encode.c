/*
 * Vector instructions with other operands: prefixes, ModRM and immediates of
 * the guest's instruction anew (SDM Vol. 2, 2.1 to 2.7).
 *
 * Opcode, vector length, W, masking and rounding are the guest's. Register
 * numbers and the memory operand are given, so what they need of REX, VEX or
 * EVEX is computed. Vector and mask registers have the same numbers in the
 * host; general registers have not.
 */
#include "engine/jit/vector.h"

static unsigned bit3(unsigned reg)
{
    return reg >> 3 & 1;
}

/* R, X, B as REX has them; a register in r/m takes X for its bit 4. */
static unsigned rxb(unsigned reg, struct rm rm)
{
    unsigned x;

    if (rm.is_mem)
        x = rm.index != H_NONE ? bit3(rm.index) : 0;
    else
        x = rm.base >> 4 & 1;
    return bit3(reg) << 2 | x << 1 | bit3(rm.base);
}

static void immediates(struct emit *e, const struct x86_decode *d, bool is4)
{
    for (unsigned n = 0; n < 2; n++) {
        unsigned bytes = d->z.raw.imm[n].size / 8;
        const uint8_t *p = d->bytes + d->z.raw.imm[n].offset;

        for (unsigned k = 0; k < bytes; k++) /* is4: bit 7 is ignored outside 64-bit mode */
            emit8(e, is4 && d->z.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 ? p[k] & 0x7f : p[k]);
    }
}

static void legacy(struct emit *e, const struct x86_decode *d, unsigned reg, struct rm rm)
{
    const ZydisDecodedInstruction *z = &d->z;
    unsigned rex = rxb(reg, rm);

    for (unsigned n = 0; n < z->raw.prefix_count; n++) {
        if (z->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            emit8(e, z->raw.prefixes[n].value);
    }
    if (z->attributes & ZYDIS_ATTRIB_HAS_REX)
        rex |= (unsigned)z->raw.rex.W << 3;
    if (rex)
        emit8(e, 0x40 | rex);
    emit8(e, 0x0f);
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        emit8(e, 0x38);
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        emit8(e, 0x3a);
    emit8(e, z->opcode);
}

static void vex(struct emit *e, const struct x86_decode *d, unsigned reg, struct rm rm,
                unsigned vvvv)
{
    const ZydisDecodedInstruction *z = &d->z;
    unsigned bits = rxb(reg, rm);
    unsigned last = (~vvvv & 15) << 3 | (unsigned)z->raw.vex.L << 2 | z->raw.vex.pp;

    if (!(bits & 3) && !z->raw.vex.W && z->opcode_map == ZYDIS_OPCODE_MAP_0F) {
        emit8(e, 0xc5);
        emit8(e, (~bits & 4) << 5 | last);
    } else {
        emit8(e, 0xc4);
        emit8(e, (~bits & 7) << 5 | z->raw.vex.m_mmmm);
        emit8(e, (unsigned)z->raw.vex.W << 7 | last);
    }
    emit8(e, z->opcode);
}

static void evex(struct emit *e, const struct x86_decode *d, unsigned reg, struct rm rm,
                 unsigned vvvv)
{
    const ZydisDecodedInstruction *z = &d->z;
    const uint8_t *p = d->bytes + z->raw.evex.offset;

    emit8(e, 0x62);
    emit8(e, (~rxb(reg, rm) & 7) << 5 | (~reg >> 4 & 1) << 4 | (p[1] & 0xf));
    emit8(e, (p[2] & 0x87) | (~vvvv & 15) << 3);
    emit8(e, (p[3] & 0xf7) | (~vvvv >> 4 & 1) << 3); /* z, L'L, b, aaa */
    emit8(e, z->opcode);
}

/* EVEX scales 8-bit displacements by the operand's size: none of those. */
static void modrm_disp32(struct emit *e, unsigned reg, struct rm rm)
{
    unsigned r = (reg & 7) << 3;

    if (!rm.is_mem || rm.disp == 0) {
        emit_modrm(e, reg, rm);
        return;
    }
    if (rm.index != H_NONE || (rm.base & 7) == 4) {
        unsigned index = rm.index != H_NONE ? rm.index & 7u : 4;
        emit8(e, 0x80 | r | 4);
        emit8(e, (unsigned)rm.scale << 6 | index << 3 | (rm.base & 7));
    } else {
        emit8(e, 0x80 | r | (rm.base & 7));
    }
    emit32(e, (uint32_t)rm.disp);
}

void vector_encode(struct emit *e, const struct x86_decode *d, const struct vector_form *f,
                   unsigned reg, struct rm rm)
{
    switch (d->z.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        vex(e, d, reg, rm, f->vvvv);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        evex(e, d, reg, rm, f->vvvv);
        modrm_disp32(e, reg, rm);
        immediates(e, d, f->is4);
        return;
    default:
        legacy(e, d, reg, rm);
        break;
    }
    if (d->z.attributes & ZYDIS_ATTRIB_HAS_MODRM) /* EMMS has none */
        emit_modrm(e, reg, rm);
    immediates(e, d, f->is4);
}
