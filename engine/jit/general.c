/*
 * Integer instructions: the guest's own opcode with other registers.
 *
 * Nearly all of them need no knowledge of what they do, only of where their
 * operands are encoded: opcode and immediate are the guest's, the register
 * fields are mapped, memory becomes a host operand, and a guest register
 * without a host register is a memory operand or passes through a scratch.
 */
#include "engine/jit/translate.h"

/* Opcode word of a legacy instruction for the operand size in hand. */
static unsigned opcode_of(const struct x86_decode *d, unsigned opcode)
{
    unsigned op = opcode;

    switch (d->z.opcode_map) {
    case ZYDIS_OPCODE_MAP_0F:
        op |= OP_0F;
        break;
    case ZYDIS_OPCODE_MAP_0F38:
        op |= OP_0F38;
        break;
    case ZYDIS_OPCODE_MAP_0F3A:
        op |= OP_0F3A;
        break;
    default:
        break;
    }
    if (d->z.operand_width == 64)
        op |= OP_W;
    else if (d->z.operand_width == 16)
        op |= OP_66;
    return op;
}

static bool is_gpr_operand(const ZydisDecodedOperand *o)
{
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    switch (ZydisRegisterGetClass(o->reg.value)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return true;
    default:
        return false;
    }
}

static bool is_high_byte(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value >= ZYDIS_REGISTER_AH &&
           o->reg.value <= ZYDIS_REGISTER_BH;
}

static unsigned guest_of(const ZydisDecodedOperand *o)
{
    return x86_reg_offset(o->reg.value) / 8;
}

static bool writes(const ZydisDecodedOperand *o)
{
    return o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

static bool reads(const ZydisDecodedOperand *o)
{
    return (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ) || o->size < 32 ||
           (o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE);
}

/* The operands of an instruction, by where they are encoded. */
struct form {
    const ZydisDecodedOperand *reg, *rm, *vvvv, *imm;
    unsigned opcode; /* after turning short forms into long ones */
    unsigned digit;  /* register field, where it is a part of the opcode */
    unsigned imm_bytes;
    bool is_byte_reg, is_byte_rm;
};

static bool form_of(const struct x86_decode *d, struct form *f)
{
    *f = (struct form){.opcode = d->z.opcode, .digit = d->z.raw.modrm.reg};
    for (unsigned n = 0; n < d->z.operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        switch (o->encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            f->reg = o;
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
            f->rm = o;
            break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD:
            f->vvvv = o;
            break;
        case ZYDIS_OPERAND_ENCODING_OPCODE:
            f->rm = o;
            break;
        case ZYDIS_OPERAND_ENCODING_NONE:
            /* An accumulator that is implied, CL, or the one of D0 and D1. */
            if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
                break;
            if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && n == 0)
                f->rm = o;
            else if (!(o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
                       o->reg.value == ZYDIS_REGISTER_CL))
                return false;
            break;
        default:
            if (o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
                return false;
            f->imm = o;
            break;
        }
    }
    if (f->imm)
        f->imm_bytes = d->z.raw.imm[0].size / 8;
    for (unsigned n = 0; n < d->z.operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !is_gpr_operand(o))
            return false;
    }
    f->is_byte_reg = f->reg && f->reg->size == 8;
    f->is_byte_rm = f->rm && f->rm->size == 8;
    return true;
}

/* Short forms have no ModRM byte. */
static bool lengthen(const struct x86_decode *d, struct form *f)
{
    unsigned op = d->z.opcode;

    if (d->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return true;
    if (op < 0x40 && (op & 7) >= 4 && (op & 7) <= 5) { /* op acc, imm */
        f->digit = op >> 3;
        f->opcode = 0x80 | (op & 1);
    } else if (op == 0x82) { /* 80H by another name, not in 64-bit mode */
        f->opcode = 0x80;
    } else if (op == 0xa8 || op == 0xa9) { /* test acc, imm */
        f->digit = 0;
        f->opcode = 0xf6 | (op & 1);
    } else if (op >= 0x40 && op <= 0x4f) { /* inc, dec r */
        f->digit = op >> 3 & 1;
        f->opcode = 0xff;
    }
    return true;
}

static void emit_immediate(struct emit *e, const struct x86_decode *d, unsigned bytes)
{
    uint64_t v = d->z.raw.imm[0].value.u;

    if (bytes == 1)
        emit8(e, (unsigned)v);
    else if (bytes == 2)
        emit16(e, (unsigned)v);
    else if (bytes == 4)
        emit32(e, (uint32_t)v);
}

/*
 * AH..BH and their like cannot be named together with REX: the instruction
 * keeps its own encoding, with guest RAX in RAX meanwhile. Registers only.
 */
static bool emit_high_byte(struct tr *t, const struct form *f, unsigned op)
{
    const struct x86_decode *d = tr_decode(t);
    struct emit *e = &t->e;
    bool uses_rax = false, writes_rax = false;
    const ZydisDecodedOperand *o[2] = {f->reg, f->rm};

    if (f->vvvv || !f->rm || f->rm->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return false;
    for (unsigned n = 0; n < 2; n++) {
        unsigned g;
        if (!o[n])
            continue;
        g = guest_of(o[n]);
        if (g > 7 || (g == X86_RSP && !is_high_byte(o[n])))
            return false;
        if (g == X86_RAX) {
            uses_rax = true;
            writes_rax |= writes(o[n]);
        }
    }
    if (uses_rax)
        emit_mov(e, H_RAX, H_R14);
#define NUMBER(x) (is_high_byte(x) ? guest_of(x) + 4 : guest_of(x))
    emit_rm(e, op | OP_NO_REX, f->reg ? NUMBER(f->reg) : f->digit,
                rm_reg(NUMBER(f->rm)));
#undef NUMBER
    emit_immediate(e, d, f->imm_bytes);
    if (writes_rax)
        emit_mov(e, H_R14, H_RAX);
    return true;
}

/* AH..BH and memory: by way of AL. */
static bool emit_high_byte_memory(struct tr *t, const struct form *f, unsigned op)
{
    unsigned use = t->t->use[t->k], g = guest_of(f->reg);
    struct emit *e = &t->e;
    struct rm rm;

    if (!mem_possible(t))
        return false;
    rm = mem_operand(t, 1, writes(f->rm));
    mem_to_t1(t, &rm);
    if ((use & FLAGS_READ) || ((use & FLAGS_PASS) && t->t->live[t->k + 1]))
        flags_to_host(t);
    if (g == X86_RAX)
        emit_mov(e, H_RAX, H_R14);
    emit_rm(e, OP_NO_REX | OP_0F | 0xb6, H_RAX, rm_reg(g + 4)); /* movzx eax, ah */
    if (tr_insn(t)->flags & INSN_LOCK)
        op |= OP_LOCK;
    emit_rm(e, op, H_RAX, rm);
    if (!writes(f->reg))
        return true;
    if (g == X86_RAX) {
        emit_rm(e, OP_NO_REX | 0x88, H_RAX, rm_reg(4));       /* mov ah, al */
        emit_rm(e, OP_BYTE_RM | 0x8a, H_RAX, rm_reg(H_R14)); /* mov al, r14b */
        emit_rm(e, OP_66 | 0x89, H_RAX, rm_reg(H_R14));
    } else {
        emit_rm(e, OP_NO_REX | 0x88, H_RAX, rm_reg(g + 4));
    }
    return true;
}

/* Must a register be loaded that is written? BSF of zero and the like keep what
 * was there. */
static bool reads_before(const struct x86_decode *d, const ZydisDecodedOperand *o)
{
    return reads(o) || d->z.mnemonic == ZYDIS_MNEMONIC_BSF || d->z.mnemonic == ZYDIS_MNEMONIC_BSR;
}

/* Does the next instruction name the register? */
static bool is_next(const struct tr *t, unsigned guest)
{
    const struct x86_decode *d;

    if (t->k + 1 >= t->end)
        return false;
    d = &t->t->d[t->k + 1];
    for (unsigned n = 0; n < d->z.operand_count_visible; n++) {
        if (is_gpr_operand(&d->op[n]) && guest_of(&d->op[n]) == guest)
            return true;
    }
    return t->u->insn[t->k + 1].base == guest;
}

/*
 * Register operands only. One without a host register is worked on in T1, which
 * keeps its value for the next instruction, and stored at once; narrow writes,
 * and reads that come alone, take it where it is.
 */
static bool emit_registers(struct tr *t, const struct form *f, unsigned op)
{
    const struct x86_decode *d = tr_decode(t);
    unsigned rm_guest = guest_of(f->rm), reg_guest = f->reg ? guest_of(f->reg) : X86_ZERO;
    unsigned held = t->cache_k == t->k ? t->cache : X86_ZERO;
    unsigned reg = f->reg ? host_of(t, reg_guest) : f->digit;
    struct rm rm = guest_rm(t, rm_guest);
    bool rm_back = false, reg_back = false;
    struct emit *e = &t->e;

    if (rm.is_mem && writes(f->rm)) {
        if (f->rm->size >= 32 &&
            (f->rm->size == 32 || reads(f->rm) || is_next(t, rm_guest))) {
            if ((reads_before(d, f->rm) || (f->reg && reg_guest == rm_guest)) &&
                held != rm_guest)
                emit_load(e, T1, rm);
            rm = rm_reg(T1);
            rm_back = true;
            held = rm_guest;
        } else if (held == rm_guest) {
            held = X86_ZERO;
        }
    } else if (rm.is_mem && held == rm_guest) {
        rm = rm_reg(T1);
    }
    if (f->reg && reg == H_NONE) {
        bool load = reads_before(d, f->reg);
        if (held == reg_guest) {
            reg = T1;
            load = false;
        } else if (rm_back || (!rm.is_mem && rm.base == T1) || held != X86_ZERO) {
            reg = T0;
        } else {
            reg = T1;
            held = reg_guest;
        }
        if (writes(f->reg) && reg == T0 && held == reg_guest)
            held = X86_ZERO;
        if (load)
            emit_load(e, reg, guest_rm(t, reg_guest));
        reg_back = writes(f->reg);
    }
    emit_rm(e, op, reg, rm);
    emit_immediate(e, d, f->imm_bytes);
    if (reg_back)
        emit_store(e, guest_rm(t, reg_guest), reg);
    if (rm_back)
        emit_store(e, guest_rm(t, rm_guest), T1);
    if (rm.is_mem && writes(f->rm) && held == rm_guest)
        held = X86_ZERO; /* changed in its home */
    if (held != X86_ZERO)
        t1_keep(t, held);
    return true;
}

/* Flags and encoding are settled: operands. */
static bool emit_form(struct tr *t, const struct form *f, unsigned op)
{
    const struct x86_decode *d = tr_decode(t);
    const struct x86_insn *i = tr_insn(t);
    struct emit *e = &t->e;
    unsigned reg = f->digit, use = t->t->use[t->k];
    struct rm rm;
    bool reg_back = false;

    if (f->is_byte_reg)
        op |= OP_BYTE_REG;
    if (f->is_byte_rm)
        op |= OP_BYTE_RM;
    if ((f->reg && is_high_byte(f->reg)) || (f->rm && is_high_byte(f->rm))) {
        if (f->rm->type == ZYDIS_OPERAND_TYPE_MEMORY)
            return emit_high_byte_memory(t, f, op);
        if ((use & FLAGS_READ) || ((use & FLAGS_PASS) && t->t->live[t->k + 1]))
            flags_to_host(t);
        return emit_high_byte(t, f, op);
    }
    if (f->rm->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        bool is_write = writes(f->rm);
        if (!mem_possible(t))
            return false;
        t->trusts_t1 = true;
        rm = mem_operand(t, f->rm->size / 8, is_write);
        t->trusts_t1 = false;
        if (i->flags & INSN_LOCK)
            op |= OP_LOCK;
        if ((use & FLAGS_READ) || ((use & FLAGS_PASS) && t->t->live[t->k + 1])) {
            /* Loading flags takes T0. */
            mem_to_t1(t, &rm);
            flags_to_host(t);
        }
    } else {
        if ((use & FLAGS_READ) || ((use & FLAGS_PASS) && t->t->live[t->k + 1]))
            flags_to_host(t);
        return emit_registers(t, f, op);
    }
    if (f->reg) {
        unsigned g = guest_of(f->reg);
        reg = host_of(t, g);
        if (reg == H_NONE) {
            reg = mem_spare(t, &rm);
            if (reads_before(d, f->reg))
                emit_load(e, reg, guest_rm(t, g));
            reg_back = writes(f->reg);
        }
    }
    emit_rm(e, op, reg, rm);
    emit_immediate(e, d, f->imm_bytes);
    if (reg_back) {
        emit_store(e, guest_rm(t, guest_of(f->reg)), reg);
        if (reg == T1)
            t1_keep(t, guest_of(f->reg));
    } else if (rm.base == T1 && rm.index == T0 && i->index == X86_ZERO &&
               i->base > X86_RDI && host_of(t, i->base) == H_NONE && i->base < X86_ZERO &&
               i->seg < X86_FS && i->ea_shift == 0) {
        t1_keep(t, i->base);
    }
    return true;
}

static void flags_done(struct tr *t)
{
    if (t->t->use[t->k] & (FLAGS_KILL | FLAGS_PASS))
        flags_written(t, (struct recipe){RECIPE_NONE, 0});
}

static bool emit_simple(struct tr *t, unsigned extra)
{
    const struct x86_decode *d = tr_decode(t);
    struct recipe recipe;
    struct form f;

    if (!form_of(d, &f) || !f.rm)
        return false;
    lengthen(d, &f);
    recipe = recipe_plan(t);
    if (!emit_form(t, &f, opcode_of(d, f.opcode) | extra))
        return false;
    if (t->t->use[t->k] & (FLAGS_KILL | FLAGS_PASS))
        flags_written(t, recipe);
    return true;
}

/* ---- MOV ---- */

static bool emit_mov_insn(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const struct x86_insn *i = tr_insn(t);
    unsigned op = d->z.opcode;
    struct emit *e = &t->e;

    if (d->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    if (op >= 0x88 && op <= 0x8b)
        return emit_simple(t, 0);
    if (op == 0xc6 || op == 0xc7)
        return emit_simple(t, 0);
    if (op >= 0xb0 && op <= 0xbf && !is_high_byte(&d->op[0])) { /* mov r, imm */
        unsigned g = guest_of(&d->op[0]), size = d->op[0].size, h = host_of(t, g);
        uint64_t v = d->z.raw.imm[0].value.u;
        if (size == 8) {
            emit_rm(e, 0xc6 | OP_BYTE_RM, 0, guest_rm(t, g));
            emit8(e, (unsigned)v);
        } else if (size == 16) {
            emit_rm(e, 0xc7 | OP_66, 0, guest_rm(t, g));
            emit16(e, (unsigned)v);
        } else {
            unsigned r = h == H_NONE ? T1 : h;
            if (size == 32)
                v = (uint32_t)v;
            if (v <= UINT32_MAX) {
                if (r >= 8)
                    emit8(e, 0x41);
                emit8(e, 0xb8 | (r & 7));
                emit32(e, (uint32_t)v);
            } else {
                emit8(e, 0x48 | r >> 3);
                emit8(e, 0xb8 | (r & 7));
                emit64(e, v);
            }
            if (h == H_NONE) {
                emit_store(e, guest_rm(t, g), T1);
                t1_keep(t, g);
            }
        }
        return true;
    }
    if (op >= 0xa0 && op <= 0xa3 && i->disp == (int32_t)i->disp && mem_possible(t)) {
        bool store = op >= 0xa2;
        unsigned bits = op & 1 ? d->z.operand_width : 8;
        struct rm rm = mem_operand(t, bits / 8, store);
        unsigned word = store ? 0x88 | (op & 1) : 0x8a | (op & 1);
        word |= bits == 64 ? OP_W : bits == 16 ? OP_66 : 0;
        emit_rm(e, word | (bits == 8 ? OP_BYTE_REG : 0), H_R14, rm);
        return true;
    }
    return false;
}

static bool emit_lea_insn(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    unsigned g = guest_of(&d->op[0]), h = host_of(t, g), size = d->op[0].size;
    struct emit *e = &t->e;

    if (tr_insn(t)->disp != (int32_t)tr_insn(t)->disp)
        return false;
    if (size == 64 && h != H_NONE && tr_insn(t)->ea_shift == 0) {
        const struct x86_insn *i = tr_insn(t);
        /* Straight into the register, unless that overwrites the other part. */
        if (host_of(t, i->index) != H_NONE || i->index == X86_ZERO) {
            if (i->base != X86_ZERO && host_of(t, i->base) == H_NONE &&
                i->index != X86_ZERO) {
                emit_ea(t, T1);
                emit_mov(e, h, T1);
            } else {
                emit_ea(t, h);
            }
            return true;
        }
    }
    emit_ea(t, T1);
    if (size == 64) {
        emit_store(e, guest_rm(t, g), T1);
        if (h == H_NONE)
            t1_keep(t, g);
    } else if (size == 32) {
        if (h != H_NONE) {
            emit_rm(e, 0x8b, h, rm_reg(T1));
        } else {
            emit_rm(e, 0x8b, T1, rm_reg(T1));
            emit_store(e, guest_rm(t, g), T1);
            t1_keep(t, g);
        }
    } else {
        emit_rm(e, OP_66 | 0x89, T1, guest_rm(t, g));
    }
    return true;
}

/* ---- with the accumulator ---- */

/* CBW CWDE CDQE (98H), CWD CDQ CQO (99H) */
static bool emit_convert(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    unsigned width = d->z.operand_width;
    struct emit *e = &t->e;

    emit_mov(e, H_RAX, H_R14);
    if (width == 16)
        emit8(e, 0x66);
    else if (width == 64)
        emit8(e, 0x48);
    emit8(e, d->z.opcode);
    if (d->z.opcode == 0x98)
        emit_mov(e, H_R14, H_RAX);
    return true;
}

/* MUL and IMUL of the accumulator: F6, F7 /4, /5. */
static bool emit_multiply(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const ZydisDecodedOperand *o = &d->op[0];
    unsigned op = d->z.opcode | (d->z.operand_width == 64 ? OP_W : 0) |
                  (d->z.operand_width == 16 ? OP_66 : 0);
    struct emit *e = &t->e;
    struct rm rm;

    if (d->z.opcode == 0xf6) {
        op = 0xf6 | OP_BYTE_RM;
        if (is_high_byte(o))
            return false;
    }
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!mem_possible(t))
            return false;
        rm = mem_operand(t, o->size / 8, false);
        mem_to_t1(t, &rm);
    } else {
        rm = guest_rm(t, guest_of(o));
    }
    if (t->t->live[t->k + 1])
        flags_to_host(t);
    emit_mov(e, H_RAX, H_R14);
    emit_rm(e, op, d->z.raw.modrm.reg, rm);
    emit_mov(e, H_R14, H_RAX);
    flags_done(t);
    return true;
}

/* CMPXCHG: rm, r with the accumulator. */
static bool emit_cmpxchg(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const ZydisDecodedOperand *o = &d->op[0], *r = &d->op[1];
    unsigned reg = host_of(t, guest_of(r)), op;
    struct emit *e = &t->e;
    struct rm rm;

    if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || !mem_possible(t) || reg == H_NONE ||
        is_high_byte(r))
        return false;
    op = opcode_of(d, d->z.opcode);
    if (o->size == 8)
        op |= OP_BYTE_REG;
    if (tr_insn(t)->flags & INSN_LOCK)
        op |= OP_LOCK;
    rm = mem_operand(t, o->size / 8, true);
    mem_to_t1(t, &rm);
    emit_mov(e, H_RAX, H_R14);
    emit_rm(e, op, reg, rm);
    /* A 32-bit compare that succeeds leaves RAX alone, one that fails clears
     * its upper half: as the host does it. */
    emit_mov(e, H_R14, H_RAX);
    flags_done(t);
    return true;
}

/* CMPXCHG8B, CMPXCHG16B: all four registers but RAX are themselves. */
static bool emit_cmpxchg_wide(struct tr *t, unsigned size)
{
    struct emit *e = &t->e;
    struct rm rm;

    if (!mem_possible(t))
        return false;
    t->align = size == 16 ? 15 : 0;
    rm = mem_operand(t, size, true);
    t->align = 0;
    mem_to_t1(t, &rm);
    if (size == 16) { /* #GP unless aligned */
        flags_clobber(t);
        emit_rm(e, 0xf6 | OP_BYTE_RM, 0, rm_reg(T1));
        emit8(e, 15);
        slow_if(t, 5);
    }
    if (t->t->live[t->k + 1])
        flags_to_host(t);
    emit_mov(e, H_RAX, H_R14);
    emit_rm(e, (size == 16 ? OP_W : 0) | OP_LOCK | OP_0F | 0xc7, 1, rm);
    emit_mov(e, H_R14, H_RAX);
    flags_done(t);
    return true;
}

/*
 * BT and its like with a bit number in a register, which reaches beyond the
 * operand: the address is that of the word in question, the number is taken
 * from the register as it is (or, for LOCK, without its upper bits).
 */
static bool emit_bit_string(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const struct x86_insn *i = tr_insn(t);
    unsigned size = d->op[0].size, bytes = size / 8, g = guest_of(&d->op[1]), h = host_of(t, g);
    unsigned shift = size == 64 ? 6 : size == 32 ? 5 : 4;
    unsigned op = opcode_of(d, d->z.opcode), id = 0x1000u | (unsigned)i->base << 5 | 0x11;
    bool is_bt = d->z.mnemonic == ZYDIS_MNEMONIC_BT, is_locked = i->flags & INSN_LOCK;
    struct emit *e = &t->e;
    struct rm rm;

    if (i->ea_shift != (t->is_64 ? 0 : 32) || !mem_possible(t) ||
        (!t->is_64 && (!t->is_flat || i->seg >= X86_FS || i->seg == X86_CS)))
        return false;
    flags_clobber(t);
    emit_ea(t, T1);
    if (i->seg >= X86_FS) {
        id = 0x40u + i->seg;
        emit_rm(e, OP_W | 0x03, T1,
                rm_mem(H_RSP, (int32_t)(offsetof(struct x86_vcpu, seg_base) + 8u * i->seg)));
    }
    emit_rm(e, OP_W | (size == 64 ? 0x8b : size == 32 ? 0x63 : OP_0F | 0xbf), T0, guest_rm(t, g));
    emit_rm(e, OP_W | 0xc1, 7, rm_reg(T0)); /* sar */
    emit8(e, shift);
    emit_rm(e, (t->is_64 ? OP_W : 0) | 0x8d, T1, rm_mem_index(T1, T0, shift - 3, 0));
    rm = mem_linear(t, T1, id, bytes, !is_bt);
    if (is_locked) {
        mem_to_t1(t, &rm);
        emit_load(e, T0, guest_rm(t, g));
        emit_alu_imm(e, 0, 4, rm_reg(T0), (int32_t)size - 1);
        emit_store(e, JIT_RM(saved_t1), T0);
        if (t->t->live[t->k + 1])
            flags_to_host(t);
        emit_load(e, T0, JIT_RM(saved_t1));
        emit_rm(e, op | OP_LOCK, T0, rm);
        flags_done(t);
        return true;
    }
    if (is_bt)
        emit_rm(e, (size == 64 ? OP_W : size == 16 ? OP_66 : 0) | 0x8b, T1, rm);
    else
        mem_to_t1(t, &rm);
    if (t->t->live[t->k + 1])
        flags_to_host(t);
    if (is_bt) {
        if (h == H_NONE)
            emit_load(e, T0, guest_rm(t, g));
        emit_rm(e, op, h == H_NONE ? T0 : h, rm_reg(T1));
    } else if (h == H_NONE) {
        /* T0 has the number, so the word is the one thing kept elsewhere. */
        unsigned word = size == 64 ? OP_W : size == 16 ? OP_66 : 0;
        emit_rm(e, word | 0x8b, T0, rm);
        emit_store(e, JIT_RM(saved_value), T0);
        emit_load(e, T0, guest_rm(t, g));
        emit_store(e, JIT_RM(saved_t1), T1);
        emit_load(e, T1, JIT_RM(saved_value));
        emit_rm(e, op, T0, rm_reg(T1));
        emit_mov(e, T0, T1);
        emit_load(e, T1, JIT_RM(saved_t1));
        emit_rm(e, word | 0x89, T0, rm);
    } else {
        unsigned word = size == 64 ? OP_W : size == 16 ? OP_66 : 0;
        emit_rm(e, word | 0x8b, T0, rm);
        emit_rm(e, op, h, rm_reg(T0));
        emit_rm(e, word | 0x89, T0, rm);
    }
    flags_done(t);
    return true;
}

/* BT and its like of two registers, the first without a host register. */
static bool emit_bit_home(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    unsigned g = guest_of(&d->op[0]), h = host_of(t, guest_of(&d->op[1]));
    bool is_bt = d->z.mnemonic == ZYDIS_MNEMONIC_BT;
    struct emit *e = &t->e;

    if (t->t->live[t->k + 1])
        flags_to_host(t);
    if (!t1_holds(t, g))
        emit_load(e, T1, guest_rm(t, g));
    if (h == H_NONE) {
        emit_load(e, T0, guest_rm(t, guest_of(&d->op[1])));
        h = T0;
    }
    emit_rm(e, opcode_of(d, d->z.opcode), h, rm_reg(T1));
    if (!is_bt)
        emit_store(e, guest_rm(t, g), T1);
    t1_keep(t, g);
    flags_done(t);
    return true;
}

/* XCHG: with memory always locked. */
static bool emit_xchg(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const ZydisDecodedOperand *a = &d->op[0], *b = &d->op[1];
    unsigned word = a->size == 8 ? 0x86 | OP_BYTE_REG | OP_BYTE_RM : opcode_of(d, 0x87);
    struct emit *e = &t->e;
    struct rm rm;
    unsigned r;

    if (is_high_byte(a) || is_high_byte(b))
        return false;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_NOP)
        return true;
    if (a->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        r = host_of(t, guest_of(b));
        if (!mem_possible(t) || r == H_NONE)
            return false;
        rm = mem_operand(t, a->size / 8, true);
        emit_rm(e, word, r, rm);
        return true;
    }
    /* Through both scratch registers: right for any pair. */
    emit_load(e, T0, guest_rm(t, guest_of(a)));
    emit_load(e, T1, guest_rm(t, guest_of(b)));
    emit_rm(e, word, T0, rm_reg(T1));
    emit_store(e, guest_rm(t, guest_of(a)), T0);
    if (guest_of(a) != guest_of(b))
        emit_store(e, guest_rm(t, guest_of(b)), T1);
    return true;
}

static bool emit_xadd(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);

    if (d->op[0].type != ZYDIS_OPERAND_TYPE_MEMORY ||
        host_of(t, guest_of(&d->op[1])) == H_NONE || is_high_byte(&d->op[1]))
        return false;
    return emit_simple(t, 0);
}

static bool emit_bswap(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    unsigned g = guest_of(&d->op[0]), h = host_of(t, g), r = h == H_NONE ? T0 : h;
    bool wide = d->z.operand_width == 64;
    struct emit *e = &t->e;

    if (d->z.operand_width == 16)
        return false;
    if (h == H_NONE)
        emit_load(e, T0, guest_rm(t, g));
    if (wide || r >= 8)
        emit8(e, 0x40 | wide << 3 | r >> 3);
    emit8(e, 0x0f);
    emit8(e, 0xc8 | (r & 7));
    if (h == H_NONE)
        emit_store(e, guest_rm(t, g), T0);
    return true;
}

/* ---- VEX ---- */

/*
 * BMI: up to three registers, in modrm.reg, vvvv and r/m. What has no host
 * register is read from its home (r/m) or a scratch register (vvvv), and made in
 * one: T0, or T1 for the other of MULX's two, whose sources are read before.
 */
static bool emit_vex_general(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const ZydisDecodedInstruction *z = &d->z;
    unsigned map = z->opcode_map == ZYDIS_OPCODE_MAP_0F38 ? 2 : 3, use = t->t->use[t->k];
    unsigned held = t->cache_k == t->k ? t->cache : X86_ZERO;
    struct emit *e = &t->e;
    struct form f;
    struct rm rm;
    unsigned reg, vvvv = 0;

    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || !form_of(d, &f) || !f.rm)
        return false;
    reg = f.reg ? host_of(t, guest_of(f.reg)) : z->raw.modrm.reg;
    if (f.vvvv)
        vvvv = host_of(t, guest_of(f.vvvv));
    if (f.rm->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!mem_possible(t))
            return false;
        t->trusts_t1 = true;
        rm = mem_operand(t, f.rm->size / 8, false);
        t->trusts_t1 = false;
        held = X86_ZERO;
        if ((use & FLAGS_PASS) && t->t->live[t->k + 1])
            mem_to_t1(t, &rm);
    } else {
        rm = guest_rm(t, guest_of(f.rm));
        if (rm.is_mem && held == guest_of(f.rm))
            rm = rm_reg(T1);
    }
    if ((use & FLAGS_PASS) && t->t->live[t->k + 1])
        flags_to_host(t);
    if (reg == H_NONE)
        reg = T0;
    if (vvvv == H_NONE && writes(f.vvvv)) {
        /* Of two destinations that are one the upper half stays, as in the host. */
        vvvv = f.reg && guest_of(f.reg) == guest_of(f.vvvv) ? reg : T1;
    } else if (vvvv == H_NONE) {
        vvvv = rm.is_mem || rm.base != T1 ? mem_spare(t, &rm) : T0;
        emit_load(e, vvvv, guest_rm(t, guest_of(f.vvvv)));
    }
    emit_vex(e, map, z->raw.vex.pp, z->operand_width == 64, vvvv, z->opcode, reg, rm);
    emit_immediate(e, d, f.imm_bytes);
    if (f.reg && host_of(t, guest_of(f.reg)) == H_NONE)
        emit_store(e, guest_rm(t, guest_of(f.reg)), reg);
    if (f.vvvv && writes(f.vvvv) && vvvv == T1) {
        emit_store(e, guest_rm(t, guest_of(f.vvvv)), T1);
        t1_keep(t, guest_of(f.vvvv));
    }
    flags_done(t);
    return true;
}

/* ---- CLC STC CMC, LAHF SAHF ---- */

static bool emit_flag_insn(struct tr *t)
{
    struct emit *e = &t->e;

    flags_to_host(t);
    emit8(e, tr_decode(t)->z.opcode);
    flags_done(t);
    return true;
}

bool emit_general(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);

    if ((tr_insn(t)->flags & INSN_LOCK) && d->z.operand_count_visible &&
        d->op[0].type != ZYDIS_OPERAND_TYPE_MEMORY)
        return false;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
        return true;
    case ZYDIS_MNEMONIC_MOV:
        return emit_mov_insn(t);
    case ZYDIS_MNEMONIC_LEA:
        return emit_lea_insn(t);
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_CMOVB:
    case ZYDIS_MNEMONIC_CMOVBE:
    case ZYDIS_MNEMONIC_CMOVL:
    case ZYDIS_MNEMONIC_CMOVLE:
    case ZYDIS_MNEMONIC_CMOVNB:
    case ZYDIS_MNEMONIC_CMOVNBE:
    case ZYDIS_MNEMONIC_CMOVNL:
    case ZYDIS_MNEMONIC_CMOVNLE:
    case ZYDIS_MNEMONIC_CMOVNO:
    case ZYDIS_MNEMONIC_CMOVNP:
    case ZYDIS_MNEMONIC_CMOVNS:
    case ZYDIS_MNEMONIC_CMOVNZ:
    case ZYDIS_MNEMONIC_CMOVO:
    case ZYDIS_MNEMONIC_CMOVP:
    case ZYDIS_MNEMONIC_CMOVS:
    case ZYDIS_MNEMONIC_CMOVZ:
    case ZYDIS_MNEMONIC_SETB:
    case ZYDIS_MNEMONIC_SETBE:
    case ZYDIS_MNEMONIC_SETL:
    case ZYDIS_MNEMONIC_SETLE:
    case ZYDIS_MNEMONIC_SETNB:
    case ZYDIS_MNEMONIC_SETNBE:
    case ZYDIS_MNEMONIC_SETNL:
    case ZYDIS_MNEMONIC_SETNLE:
    case ZYDIS_MNEMONIC_SETNO:
    case ZYDIS_MNEMONIC_SETNP:
    case ZYDIS_MNEMONIC_SETNS:
    case ZYDIS_MNEMONIC_SETNZ:
    case ZYDIS_MNEMONIC_SETO:
    case ZYDIS_MNEMONIC_SETP:
    case ZYDIS_MNEMONIC_SETS:
    case ZYDIS_MNEMONIC_SETZ:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
        return emit_simple(t, 0);
    case ZYDIS_MNEMONIC_MOVBE:
        return t->j->has_movbe && emit_simple(t, 0);
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
        return emit_simple(t, OP_F3);
    case ZYDIS_MNEMONIC_CRC32:
        return emit_simple(t, OP_F2);
    case ZYDIS_MNEMONIC_ADCX:
        return emit_simple(t, OP_66);
    case ZYDIS_MNEMONIC_ADOX:
        return emit_simple(t, OP_F3);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        /* A bit number in a register reaches beyond a memory operand. */
        if (d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            d->op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return emit_bit_string(t);
        /* A home in memory would be such an operand, too. */
        if (d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            host_of(t, guest_of(&d->op[0])) == H_NONE)
            return emit_bit_home(t);
        return emit_simple(t, 0);
    case ZYDIS_MNEMONIC_IMUL:
        if (d->z.operand_count_visible == 1)
            return emit_multiply(t);
        return emit_simple(t, 0);
    case ZYDIS_MNEMONIC_MUL:
        return emit_multiply(t);
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        return emit_divide(t);
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
        return emit_convert(t);
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO:
        return emit_convert(t);
    case ZYDIS_MNEMONIC_BSWAP:
        return emit_bswap(t);
    case ZYDIS_MNEMONIC_XCHG:
        return emit_xchg(t);
    case ZYDIS_MNEMONIC_XADD:
        return emit_xadd(t);
    case ZYDIS_MNEMONIC_CMPXCHG:
        return emit_cmpxchg(t);
    case ZYDIS_MNEMONIC_CMPXCHG8B:
        return emit_cmpxchg_wide(t, 8);
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        return emit_cmpxchg_wide(t, 16);
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMC:
        return emit_flag_insn(t);
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_PDEP:
    case ZYDIS_MNEMONIC_PEXT:
    case ZYDIS_MNEMONIC_RORX:
    case ZYDIS_MNEMONIC_SARX:
    case ZYDIS_MNEMONIC_SHLX:
    case ZYDIS_MNEMONIC_SHRX:
    case ZYDIS_MNEMONIC_MULX:
        return emit_vex_general(t);
    default:
        return false;
    }
}
