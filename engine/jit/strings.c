/*
 * String instructions of 64-bit and of flat 32-bit code that go upwards (SDM
 * Vol. 2): one element, and runs of MOVS and STOS within pages, by the host's
 * own REP. All else is the handler's; so is counting the iterations of a
 * deterministic machine.
 */
#include "engine/jit/translate.h"

enum { CC_E = 4, CC_NE = 5, CC_A = 7 };
/* L0 entries of their own: RSI and RDI move. */
enum { ID_SOURCE = 0x50, ID_DEST = 0x51 };

static unsigned size_word(unsigned size)
{
    return size == 8 ? OP_W : size == 2 ? OP_66 : 0;
}

/* mov to register / cmp register / mov from register, by size */
static void emit_sized(struct emit *e, unsigned opcode, unsigned size, unsigned reg, struct rm rm)
{
    if (size == 1)
        emit_rm(e, (opcode & ~1u) | OP_BYTE_REG, reg, rm);
    else
        emit_rm(e, opcode | size_word(size), reg, rm);
}

static void only_upwards(struct tr *t)
{
    struct emit *e = &t->e;

    flags_clobber(t);
    emit_rm(e, 0xf7, 0, CPU_RM(s.rflags));
    emit32(e, FLAG_DF);
    slow_if(t, CC_NE);
}

/* 32-bit registers as they are: the handler's, if there is more in them. */
static void only_32_bits(struct tr *t, bool is_movs)
{
    struct emit *e = &t->e;

    emit_mov(e, T0, H_RCX);
    emit_rm(e, OP_W | 0x0b, T0, rm_reg(H_RDI));
    if (is_movs)
        emit_rm(e, OP_W | 0x0b, T0, rm_reg(H_RSI));
    emit_rm(e, OP_W | 0xc1, 5, rm_reg(T0)); /* shr */
    emit8(e, 32);
    slow_if(t, CC_NE);
}

/* The handler's, if RCX elements from the host register on do not end in its
 * page. RCX is small. Uses T1. */
static void only_in_page(struct tr *t, unsigned reg, unsigned shift)
{
    struct emit *e = &t->e;

    emit_rm(e, 0x8b, T1, rm_reg(reg));
    emit_alu_imm(e, 0, 4, rm_reg(T1), (int32_t)~PAGE_MASK);
    emit_lea(e, T1, rm_mem_index(T1, H_RCX, shift, 0));
    emit_alu_imm(e, 0, 7, rm_reg(T1), (int32_t)PAGE_SIZE);
    slow_if(t, CC_A);
}

static void emit_rep(struct emit *e, unsigned opcode, unsigned size)
{
    emit8(e, 0xf3);
    if (size == 2)
        emit8(e, 0x66);
    if (size == 8)
        emit8(e, 0x48);
    emit8(e, opcode | (size > 1));
}

/* The check may be wrong as long as nothing has changed: fault.c. */
static void touch(struct emit *e, struct rm rm)
{
    emit_rm(e, OP_BYTE_RM | 0x80, 7, rm); /* cmp byte [..], 0 */
    emit8(e, 0);
}

/* Between the checks of the two operands nothing may change: a miss of the
 * second one may end in the handler. */
static bool emit_run(struct tr *t, bool is_movs, unsigned size)
{
    unsigned shift = (unsigned)__builtin_ctz(size);
    struct emit *e = &t->e;
    uint32_t none;
    struct rm rm;

    if (t->is_counting)
        return false;
    only_upwards(t);
    if (!t->is_64)
        only_32_bits(t, is_movs);
    emit_rm(e, OP_W | 0x85, H_RCX, rm_reg(H_RCX)); /* test */
    none = emit_jcc(e, CC_E); /* that touches nothing, not even page tables */
    emit_alu_imm(e, OP_W, 7, rm_reg(H_RCX), (int32_t)PAGE_SIZE >> shift);
    slow_if(t, CC_A);
    only_in_page(t, H_RDI, shift);
    if (is_movs) {
        only_in_page(t, H_RSI, shift);
        rm = mem_linear(t, H_RSI, ID_SOURCE, 1, false);
        touch(e, rm);
        emit_store(e, JIT_RM(saved_value), rm.index);
    }
    t->is_run = true;
    rm = mem_linear(t, H_RDI, ID_DEST, 1, true);
    t->is_run = false;
    touch(e, rm);
    emit_mov(e, T1, rm.index);
    emit_lea(e, H_RDI, rm);
    if (is_movs)
        emit_rm(e, OP_W | 0x03, H_RSI, JIT_RM(saved_value));
    else
        emit_mov(e, H_RAX, H_R14);
    emit_rep(e, is_movs ? 0xa4 : 0xaa, size);
    emit_rm(e, OP_W | 0x2b, H_RDI, rm_reg(T1));
    if (is_movs)
        emit_rm(e, OP_W | 0x2b, H_RSI, JIT_RM(saved_value));
    if (!t->is_64) { /* behind the last byte of all is the first */
        emit_rm(e, 0x8b, H_RDI, rm_reg(H_RDI));
        if (is_movs)
            emit_rm(e, 0x8b, H_RSI, rm_reg(H_RSI));
    }
    emit_patch(e, none, e->at);
    return true;
}

static void move_on(struct tr *t, unsigned reg, unsigned size)
{
    emit_rm(&t->e, (t->is_64 ? OP_W : 0) | 0x8d, reg, rm_mem(reg, (int32_t)size));
}

/* The element at RSI or RDI. */
static struct rm element(struct tr *t, unsigned reg, unsigned size, bool is_write)
{
    unsigned base = reg;

    if (!t->is_64) {
        emit_rm(&t->e, 0x8b, T1, rm_reg(reg));
        base = T1;
    }
    return mem_linear(t, base, reg == H_RSI ? ID_SOURCE : ID_DEST, size, is_write);
}

/* T1 = the element at RSI, and RDI's as an operand that leaves T1 alone. */
static struct rm emit_pair(struct tr *t, unsigned size, bool is_write)
{
    struct emit *e = &t->e;
    struct rm rm = element(t, H_RSI, size, false);

    emit_sized(e, 0x8b, size, T1, rm);
    emit_store(e, JIT_RM(saved_value), T1);
    rm = element(t, H_RDI, size, is_write);
    if (rm.base == T1) {
        emit_lea(e, T0, rm);
        rm = rm_mem(T0, 0);
    }
    emit_load(e, T1, JIT_RM(saved_value));
    return rm;
}

bool emit_string(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const struct x86_insn *i = tr_insn(t);
    unsigned size = i->size, op = d->z.opcode & ~1u;
    struct emit *e = &t->e;

    if (d->z.meta.category != ZYDIS_CATEGORY_STRINGOP || (!t->is_64 && !t->is_flat) ||
        i->addr_size != (t->is_64 ? 8 : 4) || i->seg >= X86_FS)
        return false;
    if (i->flags & (INSN_REP | INSN_REPNE))
        return (op == 0xa4 || op == 0xaa) && emit_run(t, op == 0xa4, size);
    only_upwards(t);
    switch (op) {
    case 0xa4: /* MOVS */
        emit_sized(e, 0x89, size, T1, emit_pair(t, size, true));
        break;
    case 0xa6: /* CMPS */
        emit_sized(e, 0x3b, size, T1, emit_pair(t, size, false));
        break;
    case 0xaa: /* STOS */
        emit_sized(e, 0x89, size, H_R14, element(t, H_RDI, size, true));
        break;
    case 0xac: /* LODS */
        emit_sized(e, 0x8b, size, H_R14, element(t, H_RSI, size, false));
        break;
    case 0xae: /* SCAS */
        emit_sized(e, 0x3b, size, H_R14, element(t, H_RDI, size, false));
        break;
    default:
        return false;
    }
    if (op != 0xaa && op != 0xae)
        move_on(t, H_RSI, size);
    if (op != 0xac)
        move_on(t, H_RDI, size);
    if (op == 0xa6 || op == 0xae)
        flags_written(t, (struct recipe){RECIPE_NONE, 0});
    return true;
}
