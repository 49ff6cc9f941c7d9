/*
 * Host machine code. See emit.h.
 */
#include "engine/jit/emit.h"

#include <string.h>

static void put(struct emit *e, const void *p, unsigned n)
{
    if (e->at + n > e->limit) {
        e->full = true;
        return;
    }
    memcpy(e->base + e->at, p, n);
    e->at += n;
}

void emit8(struct emit *e, unsigned v)
{
    uint8_t b = (uint8_t)v;

    put(e, &b, 1);
}

void emit16(struct emit *e, unsigned v)
{
    uint16_t b = (uint16_t)v;

    put(e, &b, 2);
}

void emit32(struct emit *e, uint32_t v)
{
    put(e, &v, 4);
}

void emit64(struct emit *e, uint64_t v)
{
    put(e, &v, 8);
}

void emit_modrm(struct emit *e, unsigned reg, struct rm rm)
{
    unsigned r = (reg & 7) << 3, mod;

    if (!rm.is_mem) {
        emit8(e, 0xc0 | r | (rm.base & 7));
        return;
    }
    if (rm.disp == 0 && (rm.base & 7) != 5)
        mod = 0;
    else if (rm.disp == (int8_t)rm.disp)
        mod = 0x40;
    else
        mod = 0x80;
    if (rm.index != H_NONE || (rm.base & 7) == 4) {
        unsigned index = rm.index != H_NONE ? rm.index & 7u : 4;
        emit8(e, mod | r | 4);
        emit8(e, (unsigned)rm.scale << 6 | index << 3 | (rm.base & 7));
    } else {
        emit8(e, mod | r | (rm.base & 7));
    }
    if (mod == 0x40)
        emit8(e, (uint8_t)rm.disp);
    else if (mod == 0x80)
        emit32(e, (uint32_t)rm.disp);
}

static unsigned rex_rxb(unsigned reg, struct rm rm)
{
    unsigned b = rm.base >> 3 & 1u;
    unsigned x = rm.is_mem && rm.index != H_NONE ? rm.index >> 3 & 1u : 0;

    return (reg >> 3 & 1) << 2 | x << 1 | b;
}

void emit_rm(struct emit *e, unsigned op, unsigned reg, struct rm rm)
{
    unsigned rex = rex_rxb(reg, rm);

    if (op & OP_W)
        rex |= 8;
    if (!(op & OP_NO_REX)) {
        if ((op & OP_BYTE_REG) && reg >= 4 && reg <= 7)
            rex |= 0x40;
        if ((op & OP_BYTE_RM) && !rm.is_mem && rm.base >= 4 && rm.base <= 7)
            rex |= 0x40;
    }
    if (op & OP_LOCK)
        emit8(e, 0xf0);
    if (op & OP_66)
        emit8(e, 0x66);
    if (op & OP_F2)
        emit8(e, 0xf2);
    if (op & OP_F3)
        emit8(e, 0xf3);
    if (rex)
        emit8(e, 0x40 | rex);
    if (op & OP_0F3A)
        emit8(e, 0x0f);
    if ((op & OP_0F3A) == OP_0F38)
        emit8(e, 0x38);
    else if ((op & OP_0F3A) == OP_0F3A)
        emit8(e, 0x3a);
    emit8(e, op & 0xff);
    emit_modrm(e, reg, rm);
}

void emit_vex(struct emit *e, unsigned map, unsigned pp, bool w, unsigned vvvv, unsigned opcode,
              unsigned reg, struct rm rm)
{
    unsigned rxb = rex_rxb(reg, rm);

    emit8(e, 0xc4);
    emit8(e, (~rxb & 7) << 5 | map);
    emit8(e, (unsigned)w << 7 | (~vvvv & 15) << 3 | pp);
    emit8(e, opcode);
    emit_modrm(e, reg, rm);
}

void emit_alu_imm(struct emit *e, unsigned op, unsigned which, struct rm rm, int32_t imm)
{
    if (imm == (int8_t)imm) {
        emit_rm(e, op | 0x83, which, rm);
        emit8(e, (uint8_t)imm);
    } else {
        emit_rm(e, op | 0x81, which, rm);
        emit32(e, (uint32_t)imm);
    }
}

void emit_mov(struct emit *e, unsigned to, unsigned from)
{
    emit_rm(e, OP_W | 0x89, from, rm_reg(to));
}

void emit_load(struct emit *e, unsigned to, struct rm from)
{
    emit_rm(e, OP_W | 0x8b, to, from);
}

void emit_store(struct emit *e, struct rm to, unsigned from)
{
    emit_rm(e, OP_W | 0x89, from, to);
}

void emit_lea(struct emit *e, unsigned to, struct rm from)
{
    if (from.disp == 0 && from.index == H_NONE) {
        if (to != from.base)
            emit_mov(e, to, from.base);
        return;
    }
    emit_rm(e, OP_W | 0x8d, to, from);
}

uint32_t emit_jmp(struct emit *e)
{
    emit8(e, 0xe9);
    emit32(e, 0);
    return e->at - 4;
}

uint32_t emit_jcc(struct emit *e, unsigned condition)
{
    emit8(e, 0x0f);
    emit8(e, 0x80 | condition);
    emit32(e, 0);
    return e->at - 4;
}

void emit_patch(struct emit *e, uint32_t rel32, uint32_t target)
{
    uint32_t v = target - (rel32 + 4);

    if (!e->full)
        memcpy(e->base + rel32, &v, 4);
}
