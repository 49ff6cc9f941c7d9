/*
 * Random programs of up to 40 parts, made of what compilers and kernels make
 * code of: integer instructions in all operand sizes and addressing forms,
 * flags that live on and that do not, loops, calls, indirect jumps, the stack,
 * atomic and string instructions, and vector, x87 and other instructions of all
 * forms (block_instruction) between them. Some fault somewhere in the middle;
 * some lie on writable pages and change themselves; some are loops over arrays and
 * little else.
 *
 * A few registers have a role for the whole program and are written by nothing
 * else: pointers into the test's memory, one small index, two loop counters. A
 * loop ends when its counter is no longer positive, so that a jump into the
 * middle of it ends too. Forward branches go to the start of any later part
 * that is not inside a subroutine.
 */
#include "tests/insn/insn.h"

enum { PARTS_MAX = 40, SUB_PARTS_MAX = 5, VICTIMS_MAX = 6, LOOPS = 2 };

struct part {
    uint16_t at;
    bool is_target; /* branches may come here */
};

/* A field of the code that is known only when all of it is there. */
struct fixup {
    uint16_t at, bytes; /* of the field */
    uint16_t end;       /* of its instruction */
    uint16_t from;      /* first part that it may name */
    enum { FIX_BRANCH, FIX_ADDRESS, FIX_RIP_RELATIVE, FIX_VICTIM } kind;
};

/* An instruction that others write to: ADD.. r/m, imm8 or MOV r, imm32. */
struct victim {
    uint16_t at, bytes;
    uint16_t imm_at;
    uint8_t modrm; /* 0: MOV */
};

struct program {
    struct rng *r;
    const struct insn_forms *f;
    struct insn_case *k;
    struct block_plan plan;
    uint8_t index, counter[LOOPS];
    unsigned bytes, parts, fixups, victims;
    struct part part[PARTS_MAX * 4];
    struct fixup fixup[PARTS_MAX * 4];
    struct victim victim[VICTIMS_MAX];
    bool in_sub;
};

/* The register or memory operand of an instruction. */
struct rm {
    bool memory, rip;
    uint8_t reg, base, index, scale; /* index 4: none */
    int32_t disp;
    bool wide; /* the displacement has its full size */
};

enum { NO_INDEX = 4 };

/* ---- choosing ---- */

static unsigned chance(struct program *p, unsigned n)
{
    return rng_below(p->r, n);
}

static bool percent(struct program *p, unsigned n)
{
    return rng_percent(p->r, n);
}

static unsigned registers(const struct program *p)
{
    return p->k->mode == CODE_64 ? 16 : 8;
}

static bool has_role(const struct program *p, unsigned reg)
{
    if (p->plan.fixed >> reg & 1)
        return true;
    for (unsigned n = 0; n < p->plan.pointers; n++) {
        if (p->plan.pointer[n] == reg)
            return true;
    }
    return false;
}

static unsigned free_register(struct program *p)
{
    unsigned reg;

    do {
        reg = chance(p, registers(p));
    } while (has_role(p, reg));
    return reg;
}

/* To read from: any, those with a role too. */
static unsigned any_register(struct program *p)
{
    return percent(p, 80) ? free_register(p) : chance(p, registers(p));
}

/* Operand size in bytes. */
static unsigned any_size(struct program *p)
{
    static const uint8_t sizes[] = {1, 2, 4, 4, 4, 8, 8, 8};
    unsigned size = sizes[chance(p, 8)];

    return size == 8 && p->k->mode != CODE_64 ? 4 : size;
}

static unsigned wide_size(struct program *p)
{
    unsigned size = any_size(p);

    return size == 1 ? (p->k->mode == CODE_16 ? 2 : 4) : size;
}

static struct rm register_rm(unsigned reg)
{
    return (struct rm){.reg = (uint8_t)reg};
}

static struct rm memory_rm(struct program *p)
{
    static const int32_t edges[] = {0, 1, 7, 8, 0x3f, 0x7f, -0x80, -1, -8};
    struct rm m = {.memory = true, .index = NO_INDEX};

    m.base = p->plan.pointer[chance(p, p->plan.pointers)];
    if (p->k->mode == CODE_16 && m.base == X86_RSP)
        m.base = X86_RBX;
    m.disp = percent(p, 50) ? edges[chance(p, ARRAY_SIZE(edges))]
             : m.base == X86_RSP ? (int32_t)chance(p, 1024) - 512
                                 : (int32_t)chance(p, 2048) - 1024;
    if (percent(p, 50))
        m.disp &= ~7;
    if (p->in_sub && m.base == X86_RSP) /* the return address stays */
        m.disp = 64 + (int32_t)chance(p, 256);
    m.wide = percent(p, 10);
    if (percent(p, 30)) {
        m.index = p->index;
        m.scale = p->k->mode == CODE_16 ? 0 : (uint8_t)chance(p, 4);
    } else if (percent(p, 12) && p->k->mode == CODE_64) {
        m.rip = true;
        m.disp = (int32_t)(DATA_BASE - CODE_BASE) + 0x1000 + (int32_t)chance(p, 0x1ff0);
    }
    return m;
}

static struct rm any_rm(struct program *p)
{
    return percent(p, 45) ? memory_rm(p) : register_rm(free_register(p));
}

/* ---- encoding ---- */

static void byte(struct program *p, unsigned v)
{
    if (p->bytes < INSN_CODE_MAX)
        p->k->code[p->bytes] = (uint8_t)v;
    p->bytes++;
}

static void number(struct program *p, uint64_t v, unsigned bytes)
{
    for (unsigned n = 0; n < bytes; n++)
        byte(p, v >> n * 8 & 0xff);
}

static void begin_part(struct program *p)
{
    p->part[p->parts++] = (struct part){(uint16_t)p->bytes, !p->in_sub};
}

static void fix(struct program *p, unsigned bytes, unsigned kind)
{
    p->fixup[p->fixups++] = (struct fixup){.at = (uint16_t)p->bytes,
                                           .bytes = (uint16_t)bytes,
                                           .end = (uint16_t)(p->bytes + bytes),
                                           .from = (uint16_t)p->parts,
                                           .kind = kind};
    number(p, 0, bytes);
}

static void modrm_16(struct program *p, unsigned reg, const struct rm *m)
{
    unsigned low = m->base == X86_RBX ? 7 : 6;

    if (m->index != NO_INDEX)
        low = (m->base == X86_RBX ? 0 : 2) | (m->index == X86_RDI);
    if (m->disp >= -128 && m->disp <= 127 && !m->wide) {
        byte(p, 0x40 | reg << 3 | low);
        byte(p, (uint8_t)m->disp);
    } else {
        byte(p, 0x80 | reg << 3 | low);
        number(p, (uint64_t)m->disp, 2);
    }
}

/* imm_bytes: what follows, because RIP-relative counts from the end. */
static void modrm(struct program *p, unsigned reg, const struct rm *m, unsigned imm_bytes)
{
    unsigned mod;

    reg &= 7;
    if (!m->memory) {
        byte(p, 0xc0 | reg << 3 | (m->reg & 7));
        return;
    }
    if (p->k->mode == CODE_16) {
        modrm_16(p, reg, m);
        return;
    }
    if (m->rip) {
        byte(p, reg << 3 | 5);
        fix(p, 4, FIX_RIP_RELATIVE);
        p->fixup[p->fixups - 1].end = (uint16_t)(p->bytes + imm_bytes);
        memcpy(p->k->code + p->bytes - 4, &m->disp, 4);
        return;
    }
    mod = m->disp == 0 && (m->base & 7) != 5 && !m->wide     ? 0
          : m->disp >= -128 && m->disp <= 127 && !m->wide ? 1
                                                          : 2;
    if (m->index != NO_INDEX || (m->base & 7) == 4 || (m->wide && m->scale)) {
        byte(p, mod << 6 | reg << 3 | 4);
        byte(p, (unsigned)m->scale << 6 | (m->index & 7) << 3 | (m->base & 7));
    } else {
        byte(p, mod << 6 | reg << 3 | (m->base & 7));
    }
    number(p, (uint64_t)m->disp, mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

enum { LOCK = 0xf0, REPNE = 0xf2, REP = 0xf3 };

/*
 * opcode: up to three bytes, first one lowest (0x0f is part of it). Its lowest
 * bit is made 1 for sizes above a byte where byte_form is set. A byte register
 * from 4 to 7 is AH to BH, or with a REX prefix SPL to DIL.
 */
struct op {
    unsigned size;
    uint32_t opcode;
    bool byte_form;
    unsigned reg;
    bool reg_is_digit;
    uint8_t lead; /* LOCK, REP, a mandatory prefix */
};

static void instruction(struct program *p, struct op o, struct rm m, uint64_t imm,
                        unsigned imm_bytes)
{
    unsigned rex = 0, opcode = o.opcode;

    if (o.lead)
        byte(p, o.lead);
    if ((o.size == 2) != (p->k->mode == CODE_16) && o.size >= 2 && o.size <= 4)
        byte(p, 0x66);
    if (p->k->mode == CODE_64) {
        rex = (o.size == 8 ? 8u : 0) | (o.reg_is_digit ? 0 : o.reg >> 3 << 2);
        if (m.memory && !m.rip)
            rex |= (m.base >> 3) | (m.index >> 3 << 1);
        else if (!m.memory)
            rex |= m.reg >> 3;
        if (rex || percent(p, 5) || (o.size == 1 && percent(p, 50)))
            byte(p, 0x40 | rex);
    }
    if (o.byte_form && o.size > 1) {
        unsigned last = opcode > 0xffff ? 16 : opcode > 0xff ? 8 : 0;

        opcode |= 1u << last;
    }
    do {
        byte(p, opcode & 0xff);
    } while (opcode >>= 8);
    modrm(p, o.reg, &m, imm_bytes);
    number(p, imm, imm_bytes);
}

/* A byte register to write: one that is part of no register with a role, with
 * or without REX. */
static unsigned byte_register(struct program *p)
{
    for (;;) {
        unsigned reg = free_register(p);

        if (reg < 4 || (p->k->mode == CODE_64 && reg >= 8))
            return reg;
        if (!has_role(p, reg - 4) && reg < 8)
            return reg;
    }
}

static unsigned destination(struct program *p, unsigned size)
{
    return size == 1 ? byte_register(p) : free_register(p);
}

static struct rm any_destination(struct program *p, unsigned size)
{
    return percent(p, 40) ? memory_rm(p) : register_rm(destination(p, size));
}

static uint64_t immediate(struct program *p)
{
    return value_integer(p->r, 4);
}

/* Of displacements and immediates of full size. */
static unsigned near_bytes(const struct program *p)
{
    return p->k->mode == CODE_16 ? 2 : 4;
}

/* ---- parts: integers ---- */

static unsigned imm_size(unsigned size)
{
    return MIN(size, 4u);
}

static void part_alu(struct program *p)
{
    unsigned op = chance(p, 8), size = any_size(p);
    bool alias;
    struct rm m;

    switch (chance(p, 4)) {
    case 0: /* r/m, r */
        m = any_destination(p, size);
        instruction(p, (struct op){size, op << 3, true, any_register(p), false,
                                   m.memory && op < 7 && percent(p, 15) ? LOCK : 0},
                    m, 0, 0);
        return;
    case 1: /* r, r/m */
        instruction(p, (struct op){size, op << 3 | 2, true, destination(p, size), false, 0},
                    any_rm(p), 0, 0);
        return;
    case 2:
        m = any_destination(p, size);
        /* 82 is 80 once more, outside 64-bit mode */
        alias = size == 1 && p->k->mode != CODE_64 && percent(p, 10);
        instruction(p, (struct op){size, alias ? 0x82 : 0x80, true, op, true,
                                   m.memory && op < 7 && percent(p, 15) ? LOCK : 0},
                    m, immediate(p), imm_size(size));
        return;
    default:
        size = wide_size(p);
        m = any_destination(p, size);
        instruction(p, (struct op){size, 0x83, false, op, true, 0}, m, immediate(p), 1);
        return;
    }
}

static void part_move(struct program *p)
{
    unsigned size = any_size(p), reg;
    struct rm m;

    switch (chance(p, 6)) {
    case 0:
        m = any_destination(p, size);
        instruction(p, (struct op){size, 0x88, true, any_register(p), false, 0}, m, 0, 0);
        return;
    case 1:
        instruction(p, (struct op){size, 0x8a, true, destination(p, size), false, 0}, any_rm(p), 0,
                    0);
        return;
    case 2:
        m = any_destination(p, size);
        instruction(p, (struct op){size, 0xc6, true, 0, true, 0}, m, immediate(p), imm_size(size));
        return;
    case 3: /* MOVZX, MOVSX */
        instruction(p,
                    (struct op){wide_size(p), 0x0f | (chance(p, 2) << 3 | 0xb6 | chance(p, 2)) << 8,
                                false, free_register(p), false, 0},
                    any_rm(p), 0, 0);
        return;
    case 4:
        if (p->k->mode == CODE_64) { /* MOVSXD */
            instruction(p, (struct op){percent(p, 80) ? 8 : 4, 0x63, false, free_register(p), false, 0},
                        any_rm(p), 0, 0);
            return;
        }
        /* fall through */
    default: /* MOV r, imm of full size */
        reg = free_register(p);
        size = wide_size(p);
        if ((size == 2) != (p->k->mode == CODE_16) && size != 8)
            byte(p, 0x66);
        if (p->k->mode == CODE_64 && (size == 8 || reg >= 8))
            byte(p, 0x40 | (size == 8 ? 8 : 0) | reg >> 3);
        byte(p, 0xb8 | (reg & 7));
        number(p, value_integer(p->r, 8), size);
        return;
    }
}

static void part_lea(struct program *p)
{
    instruction(p, (struct op){wide_size(p), 0x8d, false, free_register(p), false, 0}, memory_rm(p),
                0, 0);
}

static void part_unary(struct program *p)
{
    unsigned size = any_size(p), op = chance(p, 4);
    struct rm m = any_destination(p, size);
    uint8_t lead = m.memory && percent(p, 15) ? LOCK : 0;

    if (op < 2) /* INC, DEC */
        instruction(p, (struct op){size, 0xfe, true, op, true, lead}, m, 0, 0);
    else /* NOT, NEG */
        instruction(p, (struct op){size, 0xf6, true, op, true, lead}, m, 0, 0);
}

static void part_shift(struct program *p)
{
    unsigned size = any_size(p), op = chance(p, 8);
    struct rm m = any_destination(p, size);

    switch (chance(p, 4)) {
    case 0:
        instruction(p, (struct op){size, 0xd0, true, op, true, 0}, m, 0, 0);
        return;
    case 1:
        instruction(p, (struct op){size, 0xd2, true, op, true, 0}, m, 0, 0);
        return;
    case 2: /* SHLD, SHRD */
        size = wide_size(p);
        if (!m.memory)
            m = register_rm(free_register(p));
        if (percent(p, 50))
            instruction(p, (struct op){size, 0x0f | (percent(p, 50) ? 0xa4u : 0xac) << 8, false,
                                       any_register(p), false, 0},
                        m, chance(p, size == 2 ? 16 : 64), 1);
        else
            instruction(p, (struct op){size, 0x0f | (percent(p, 50) ? 0xa5u : 0xad) << 8, false,
                                       any_register(p), false, 0},
                        m, 0, 0);
        return;
    default:
        instruction(p, (struct op){size, 0xc0, true, op, true, 0}, m,
                    percent(p, 80) ? chance(p, size * 8) : chance(p, 256), 1);
        return;
    }
}

static void part_bits(struct program *p)
{
    static const uint16_t scans[] = {0xa3, 0xbc, 0xbd};
    unsigned size = wide_size(p), op = 4 + chance(p, 4);
    struct rm m = any_destination(p, size);

    switch (chance(p, 5)) {
    case 0: /* TEST */
        size = any_size(p);
        if (percent(p, 50))
            instruction(p, (struct op){size, 0x84, true, any_register(p), false, 0}, any_rm(p), 0, 0);
        else
            instruction(p, (struct op){size, 0xf6, true, 0, true, 0}, any_rm(p), immediate(p),
                        imm_size(size));
        return;
    case 1: /* BT.. r/m, imm */
        instruction(p, (struct op){size, 0x0f | 0xba << 8, false, op, true,
                                   m.memory && op > 4 && percent(p, 30) ? LOCK : 0},
                    m, chance(p, 256), 1);
        return;
    case 2: /* BT.. r/m, r: in memory by the index, which is small */
        instruction(p,
                    (struct op){size, 0x0f | (0xa3 + (op - 4) * 8) << 8, false,
                                m.memory ? p->index : any_register(p), false,
                                m.memory && op > 4 && percent(p, 30) ? LOCK : 0},
                    m, 0, 0);
        return;
    case 3: /* BSF, BSR, TZCNT, LZCNT, POPCNT */
        if (percent(p, 30)) {
            instruction(p, (struct op){size, 0x0f | 0xb8 << 8, false, free_register(p), false, REP},
                        any_rm(p), 0, 0);
            return;
        }
        instruction(p, (struct op){size, 0x0f | (uint32_t)scans[1 + chance(p, 2)] << 8, false,
                                   free_register(p), false, percent(p, 40) ? REP : 0},
                    any_rm(p), 0, 0);
        return;
    default: /* BSWAP */
        instruction(p, (struct op){p->k->mode == CODE_64 && percent(p, 50) ? 8 : 4, 0x0f, false, 1,
                                   true, 0},
                    register_rm(free_register(p)), 0, 0);
        return;
    }
}

static void part_condition(struct program *p)
{
    unsigned cc = chance(p, 16), size = wide_size(p);

    if (percent(p, 50))
        instruction(p, (struct op){size, 0x0f | (0x40 | cc) << 8, false, free_register(p), false, 0},
                    any_rm(p), 0, 0);
    else
        instruction(p, (struct op){1, 0x0f | (0x90 | cc) << 8, false, 0, true, 0},
                    any_destination(p, 1), 0, 0);
}

static void part_flags(struct program *p)
{
    static const uint8_t simple[] = {0xf5, 0xf8, 0xf9, 0xfc, 0x9e, 0x9f};
    unsigned v = simple[chance(p, ARRAY_SIZE(simple))];

    if (v == 0x9f && has_role(p, X86_RAX))
        v = 0xf5;
    if (percent(p, 30)) { /* PUSHF, POPF */
        byte(p, 0x9c);
        begin_part(p);
        byte(p, 0x9d);
        return;
    }
    byte(p, v);
}

static void part_multiply(struct program *p)
{
    unsigned size = any_size(p);

    if (percent(p, 40) && !has_role(p, X86_RAX) && !has_role(p, X86_RDX)) {
        /* MUL and IMUL; seldom DIV and IDIV, which mostly fault */
        unsigned op = percent(p, 95) ? 4 + chance(p, 2) : 6 + chance(p, 2);

        instruction(p, (struct op){size, 0xf6, true, op, true, 0}, any_rm(p), 0, 0);
        return;
    }
    size = wide_size(p);
    if (percent(p, 50))
        instruction(p, (struct op){size, 0x0f | 0xaf << 8, false, free_register(p), false, 0},
                    any_rm(p), 0, 0);
    else
        instruction(p, (struct op){size, 0x6b, false, free_register(p), false, 0}, any_rm(p),
                    immediate(p), 1);
}

static void part_atomic(struct program *p)
{
    unsigned size = any_size(p);
    struct rm m = percent(p, 80) ? memory_rm(p) : register_rm(destination(p, size));
    uint8_t lead = m.memory && percent(p, 60) ? LOCK : 0;

    switch (chance(p, 4)) {
    case 0: /* XCHG */
        instruction(p, (struct op){size, 0x86, true, destination(p, size), false, lead}, m, 0, 0);
        return;
    case 1: /* XADD */
        instruction(p, (struct op){size, 0x0f | 0xc0 << 8, true, destination(p, size), false, lead},
                    m, 0, 0);
        return;
    case 2: /* CMPXCHG */
        if (has_role(p, X86_RAX))
            return part_unary(p);
        instruction(p, (struct op){size, 0x0f | 0xb0 << 8, true, any_register(p), false, lead}, m, 0,
                    0);
        return;
    default: /* CMPXCHG8B, CMPXCHG16B */
        if (has_role(p, X86_RAX) || has_role(p, X86_RDX))
            return part_unary(p);
        m = memory_rm(p);
        instruction(p, (struct op){p->k->mode == CODE_64 && percent(p, 30) ? 8 : 4, 0x0f | 0xc7 << 8,
                                   false, 1, true, lead},
                    m, 0, 0);
        return;
    }
}

/* CBW, CWD and their like, and what handlers do rather than host code. */
static void part_odd(struct program *p)
{
    static const uint16_t selectors[] = {0, HOST_CS32, HOST_CS64, HOST_DS, LDT_SELECTOR(LDT_CODE16),
                                         LDT_SELECTOR(LDT_DATA), LDT_SELECTOR(LDT_ABSENT)};
    unsigned size = wide_size(p);

    switch (has_role(p, X86_RAX) ? 3 + chance(p, 4) : chance(p, 7)) {
    case 0:
    case 1:
        if (has_role(p, X86_RDX))
            break;
        if ((size == 2) != (p->k->mode == CODE_16) && size != 8)
            byte(p, 0x66);
        if (size == 8)
            byte(p, 0x48);
        byte(p, 0x98 | chance(p, 2));
        return;
    case 2: /* LAR, LSL of what both have */
        byte(p, 0xb8 | X86_RAX);
        number(p, selectors[chance(p, ARRAY_SIZE(selectors))], near_bytes(p));
        begin_part(p);
        p->part[p->parts - 1].is_target = false;
        instruction(p, (struct op){size, 0x0f | (2 | chance(p, 2)) << 8, false, free_register(p),
                                   false, 0},
                    register_rm(X86_RAX), 0, 0);
        return;
    case 3: /* MOV r, Sreg */
        instruction(p, (struct op){size, 0x8c, false, chance(p, 2) ? X86_SS : X86_DS, true, 0},
                    register_rm(free_register(p)), 0, 0);
        return;
    case 4: /* NOP with an operand, PREFETCH */
        instruction(p, (struct op){size, 0x0f | (percent(p, 50) ? 0x1fu : 0x18) << 8, false,
                                   chance(p, 4), true, 0},
                    memory_rm(p), 0, 0);
        return;
    case 5: /* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE */
        if (p->k->mode != CODE_64)
            break;
        size = chance(p, 4);
        instruction(p, (struct op){size < 2 ? 8 : 4, 0x0f | 0xae << 8, false, size, true, REP},
                    register_rm(free_register(p)), 0, 0);
        return;
    default: /* MOVNTI */
        instruction(p, (struct op){size == 2 ? 4 : size, 0x0f | 0xc3 << 8, false, any_register(p),
                                   false, 0},
                    memory_rm(p), 0, 0);
        return;
    }
    byte(p, 0x90);
}

/* ---- parts: the stack ---- */

static void push_register(struct program *p, unsigned opcode, unsigned reg)
{
    if (reg >= 8)
        byte(p, 0x41);
    byte(p, opcode | (reg & 7));
}

static void part_stack(struct program *p)
{
    switch (chance(p, 8)) {
    case 0: /* PUSH r/m, POP r/m */
        instruction(p, (struct op){0, 0xff, false, 6, true, 0}, memory_rm(p), 0, 0);
        break;
    case 1:
        byte(p, 0x6a);
        byte(p, chance(p, 256));
        break;
    case 2: /* PUSH RSP, POP RSP of the same */
        push_register(p, 0x50, X86_RSP);
        begin_part(p);
        push_register(p, 0x58, X86_RSP);
        return;
    default:
        push_register(p, 0x50, any_register(p));
        break;
    }
    for (unsigned n = chance(p, 3); n > 0 && p->parts < PARTS_MAX * 3; n--) {
        begin_part(p);
        part_alu(p);
    }
    begin_part(p);
    if (percent(p, 25))
        instruction(p, (struct op){0, 0x8f, false, 0, true, 0}, memory_rm(p), 0, 0);
    else
        push_register(p, 0x58, free_register(p));
}

static void part_string(struct program *p)
{
    static const uint8_t opcodes[] = {0xa4, 0xa6, 0xaa, 0xac, 0xae};
    unsigned size = any_size(p), opcode = opcodes[chance(p, ARRAY_SIZE(opcodes))];

    if (p->plan.pointer[1] != X86_RSI || p->plan.pointer[2] != X86_RDI || has_role(p, X86_RAX))
        return part_move(p);
    if (percent(p, 60) && !has_role(p, X86_RCX)) {
        byte(p, 0xb8 | X86_RCX);
        number(p, chance(p, 40), p->k->mode == CODE_16 ? 2 : 4);
        begin_part(p);
        byte(p, percent(p, 50) ? REP : REPNE);
    }
    if ((size == 2) != (p->k->mode == CODE_16) && size >= 2 && size <= 4)
        byte(p, 0x66);
    if (size == 8)
        byte(p, 0x48);
    byte(p, opcode | (size > 1));
}

/* ---- parts: control flow ---- */

static void branch_field(struct program *p, unsigned bytes)
{
    fix(p, bytes, FIX_BRANCH);
}

static void part_branch(struct program *p)
{
    bool near = percent(p, 30);
    unsigned cc = chance(p, 16);

    if (percent(p, 60)) { /* compared just before */
        part_alu(p);
        begin_part(p);
    }
    if (percent(p, 85)) {
        if (near)
            byte(p, 0x0f);
        byte(p, near ? 0x80 | cc : 0x70 | cc);
    } else {
        byte(p, near ? 0xe9 : 0xeb);
    }
    branch_field(p, near ? near_bytes(p) : 1);
}

/* MOV r, address; JMP or CALL r; or PUSH and RET. */
static void part_indirect(struct program *p)
{
    unsigned reg = free_register(p);
    struct fixup *address = &p->fixup[p->fixups];

    if (p->k->mode == CODE_64) {
        byte(p, 0x48 | reg >> 3 << 2);
        byte(p, 0x8d);
        byte(p, (reg & 7) << 3 | 5);
        branch_field(p, 4);
    } else {
        byte(p, 0xb8 | reg);
        fix(p, near_bytes(p), FIX_ADDRESS);
    }
    begin_part(p);
    p->part[p->parts - 1].is_target = false; /* not without an address */
    if (percent(p, 40)) {
        push_register(p, 0x50, reg);
        begin_part(p);
        p->part[p->parts - 1].is_target = false;
        byte(p, 0xc3);
    } else {
        if (reg >= 8)
            byte(p, 0x41);
        byte(p, 0xff);
        byte(p, (percent(p, 70) ? 0xe0 : 0xd0) | (reg & 7));
    }
    address->from = (uint16_t)p->parts; /* not to the jump itself */
}

static void part_plain(struct program *p);

/* CALL over a JMP to a subroutine; the JMP skips it. */
static void part_call(struct program *p)
{
    unsigned call, skip, n;

    byte(p, 0xe8);
    call = p->bytes;
    number(p, 0, near_bytes(p));
    begin_part(p);
    byte(p, 0xeb);
    skip = p->bytes;
    byte(p, 0);
    p->k->code[call] = 2; /* over the JMP */
    p->in_sub = true;
    for (n = 1 + chance(p, SUB_PARTS_MAX); n > 0; n--) {
        begin_part(p);
        part_plain(p);
    }
    begin_part(p);
    if (percent(p, 20)) {
        byte(p, 0xc2);
        number(p, 0, 2);
    } else {
        if (percent(p, 10))
            byte(p, REP);
        byte(p, 0xc3);
    }
    p->in_sub = false;
    p->k->code[skip] = (uint8_t)(p->bytes - skip - 1);
}

/* ---- parts: faults, all forms, code that changes ---- */

static void part_fault(struct program *p)
{
    struct rm m = memory_rm(p);

    switch (chance(p, 8)) {
    case 0:
        byte(p, 0x0f);
        byte(p, 0x0b); /* UD2 */
        return;
    case 1:
        byte(p, 0xf4); /* HLT: #GP */
        return;
    case 2:
        byte(p, 0xcc);
        return;
    case 3: /* division by zero */
        byte(p, 0x31);
        byte(p, 0xc9 | 0);
        begin_part(p);
        byte(p, 0xf7);
        byte(p, 0xf1);
        return;
    default: /* memory that is not there, or read-only; pages that end */
        m.rip = false;
        if (p->k->mode == CODE_16)
            m.disp = (int16_t)chance(p, 0x10000);
        else
            m.disp = percent(p, 50) ? (int32_t)(0x3000 - 0x1800 - chance(p, 12))
                                    : (int32_t)(rng_next(p->r) >> 40);
        m.wide = true;
        instruction(p, (struct op){any_size(p), percent(p, 50) ? 0x88 : 0x00, true, any_register(p),
                                   false, 0},
                    m, 0, 0);
        return;
    }
}

static void part_any(struct program *p)
{
    struct insn_decoded d;
    uint8_t bytes[15];
    struct block_plan plan = p->plan;
    unsigned n;
    bool branch;

    if (p->in_sub) {
        plan.pointer[0] = plan.pointer[1]; /* was RSP */
        plan.fixed |= 1u << X86_RSP;
    }
    n = block_instruction(p->r, p->f, &plan, p->k->mode, bytes, &d);
    branch = n && d.op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && d.op[0].imm.is_relative;

    if (!n || branch) {
        byte(p, 0x90);
        return;
    }
    for (unsigned k = 0; k < n; k++)
        byte(p, bytes[k]);
}

/* A pointer or the index moves, as in a loop over an array. */
static void part_step(struct program *p)
{
    unsigned n = chance(p, p->plan.pointers);
    unsigned reg = n && percent(p, 70) ? p->plan.pointer[n] : p->index;
    unsigned by = percent(p, 50) ? 1u << chance(p, 7) : chance(p, 256);
    struct rm m = register_rm(reg);

    if (p->k->mode != CODE_64)
        return part_alu(p);
    if (percent(p, 60))
        instruction(p, (struct op){8, 0x83, false, percent(p, 80) ? 0 : 5, true, 0}, m, by, 1);
    else if (percent(p, 50))
        instruction(p, (struct op){8, 0xff, false, chance(p, 2), true, 0}, m, 0, 0);
    else
        instruction(p, (struct op){8, 0x8d, false, reg, false, 0},
                    (struct rm){.memory = true, .base = (uint8_t)reg, .index = NO_INDEX,
                                .disp = (int8_t)by}, 0, 0);
}

static void part_victim(struct program *p)
{
    struct victim *v;
    unsigned reg = free_register(p);

    if (p->victims == VICTIMS_MAX)
        return part_alu(p);
    v = &p->victim[p->victims++];
    v->at = (uint16_t)p->bytes;
    if (reg >= 8)
        byte(p, 0x41);
    if (percent(p, 60)) { /* op r, imm8 */
        byte(p, 0x83);
        v->modrm = (uint8_t)(0xc0 | chance(p, 8) << 3 | (reg & 7));
        byte(p, v->modrm);
        v->imm_at = (uint16_t)p->bytes;
        byte(p, chance(p, 256));
    } else {
        byte(p, 0xb8 | (reg & 7));
        v->modrm = 0;
        v->imm_at = (uint16_t)p->bytes;
        number(p, rng_next(p->r), 4);
    }
    v->bytes = (uint16_t)(p->bytes - v->at);
}

/* A store to a victim: which one is known at the end. */
static void part_store_code(struct program *p)
{
    unsigned bytes = chance(p, 3); /* log2 */

    if (bytes == 1)
        byte(p, 0x66);
    byte(p, bytes == 0 ? 0xc6 : 0xc7);
    byte(p, 0x05);
    p->fixup[p->fixups++] = (struct fixup){.at = (uint16_t)p->bytes,
                                           .bytes = 4,
                                           .end = (uint16_t)(p->bytes + 4 + (1u << bytes)),
                                           .from = (uint16_t)p->parts,
                                           .kind = FIX_VICTIM};
    number(p, 0, 4);
    number(p, rng_next(p->r), 1u << bytes);
    if (percent(p, 40)) { /* the next instruction */
        begin_part(p);
        part_victim(p);
    }
}

/* What subroutines are made of too: no branch, no change of the stack. */
static void part_plain(struct program *p)
{
    static const struct {
        void (*make)(struct program *p);
        unsigned weight;
    } kinds[] = {
        {part_alu, 24},  {part_move, 16},      {part_lea, 4},      {part_unary, 6},
        {part_shift, 9}, {part_bits, 7},       {part_condition, 8}, {part_flags, 3},
        {part_multiply, 4}, {part_atomic, 5}, {part_odd, 3},        {part_any, 22},
        {part_string, 3}, {part_step, 5},
    };
    unsigned total = 0, n, at;

    for (n = 0; n < ARRAY_SIZE(kinds); n++)
        total += kinds[n].weight;
    at = chance(p, total);
    for (n = 0; at >= kinds[n].weight; n++)
        at -= kinds[n].weight;
    kinds[n].make(p);
}

/* A vector operand that has to be aligned. */
static void part_aligned(struct program *p)
{
    static const struct {
        uint32_t opcode;
        uint8_t lead;
    } forms[] = {
        {0x280f, 0}, {0x290f, 0}, {0x580f, 0}, {0x6f0f, 0x66}, {0x7f0f, 0x66}, {0xfe0f, 0x66},
    };
    struct rm m = memory_rm(p);
    unsigned form = chance(p, ARRAY_SIZE(forms));

    if (percent(p, 80))
        m.disp &= ~15;
    /* Of two bytes: an operand's size changes nothing. */
    instruction(p, (struct op){p->k->mode == CODE_16 ? 2 : 4, forms[form].opcode, false,
                               chance(p, 8), false, forms[form].lead}, m, 0, 0);
}

/* What loops over arrays are made of. */
static void part_of_loop(struct program *p)
{
    switch (chance(p, 8)) {
    case 0:
    case 1:
        part_step(p);
        break;
    case 2:
        part_aligned(p);
        break;
    case 3:
        part_alu(p);
        break;
    case 4:
        part_lea(p);
        break;
    case 5:
        part_plain(p);
        break;
    default:
        part_move(p);
        break;
    }
}

/* ---- the whole ---- */

/* Counter registers count down; DEC and SUB leave SF and OF for JG. */
static void loop_end(struct program *p, unsigned counter, unsigned head)
{
    int32_t distance;
    unsigned reg = p->counter[counter];
    struct rm m = register_rm(reg);
    unsigned size = p->k->mode == CODE_16 ? 2 : percent(p, 50) && p->k->mode == CODE_64 ? 8 : 4;

    begin_part(p);
    if (percent(p, 50))
        instruction(p, (struct op){size, 0xff, false, 1, true, 0}, m, 0, 0);
    else
        instruction(p, (struct op){size, 0x83, false, 5, true, 0}, m, 1, 1);
    begin_part(p);
    p->part[p->parts - 1].is_target = false; /* not without counting */
    distance = (int32_t)p->part[head].at - (int32_t)p->bytes - 2;
    if (distance >= -128 && percent(p, 80)) {
        byte(p, 0x7f);
        byte(p, (uint8_t)distance);
    } else {
        byte(p, 0x0f);
        byte(p, 0x8f);
        distance -= p->k->mode == CODE_16 ? 2 : 4;
        number(p, (uint64_t)(int64_t)distance, near_bytes(p));
    }
}

static void loop_begin(struct program *p, unsigned counter)
{
    unsigned reg = p->counter[counter];

    if (reg >= 8)
        byte(p, 0x41);
    byte(p, 0xb8 | (reg & 7));
    number(p, 1 + (percent(p, 20) ? chance(p, 100) : chance(p, 6)), near_bytes(p));
}

/* Small loops one after the other. */
static void make_loops(struct program *p)
{
    unsigned loops = 1 + chance(p, 2);

    for (unsigned n = 0; n < loops; n++) {
        unsigned head, parts = 2 + chance(p, 12);

        begin_part(p);
        loop_begin(p, n);
        if (percent(p, 50)) { /* code that starts where the loop does */
            byte(p, 0xeb);
            byte(p, 0);
        }
        head = p->parts;
        while (parts-- && p->bytes < INSN_CODE_MAX - 160) {
            begin_part(p);
            if (percent(p, 4))
                part_branch(p);
            else
                part_of_loop(p);
        }
        loop_end(p, n, head);
    }
}

static void make_parts(struct program *p)
{
    unsigned wanted = 2 + chance(p, PARTS_MAX - 1), loop_head[LOOPS], loop_left[LOOPS] = {0};
    unsigned depth = 0;
    bool faults = percent(p, 12);

    for (unsigned n = 0; n < wanted && p->bytes < INSN_CODE_MAX - 160; n++) {
        begin_part(p);
        while (depth && loop_left[depth - 1]-- == 0) {
            p->parts--; /* nothing is in it yet */
            loop_end(p, depth - 1, loop_head[depth - 1]);
            depth--;
            begin_part(p);
        }
        if (depth < LOOPS && percent(p, 6)) {
            loop_begin(p, depth);
            loop_head[depth] = p->parts;
            loop_left[depth] = 1 + chance(p, 8);
            depth++;
        } else if (p->k->writes_code && percent(p, 20)) {
            part_store_code(p);
        } else if (p->k->writes_code && percent(p, 20)) {
            part_victim(p);
        } else if (faults && percent(p, 6)) {
            part_fault(p);
        } else if (percent(p, 12)) {
            part_branch(p);
        } else if (percent(p, 3)) {
            part_call(p);
        } else if (percent(p, 3)) {
            part_indirect(p);
        } else if (percent(p, 6)) {
            part_stack(p);
        } else {
            part_plain(p);
        }
    }
    while (depth--)
        loop_end(p, depth, loop_head[depth]);
}

static void put_field(struct program *p, const struct fixup *x, int64_t v)
{
    memcpy(p->k->code + x->at, &v, x->bytes);
}

/* What a branch of so many bytes may go to: a later part, or the end. */
static unsigned branch_target(struct program *p, const struct fixup *x)
{
    for (unsigned attempt = 0; attempt < 20; attempt++) {
        unsigned part = x->from + chance(p, MIN(p->parts - x->from + 1, 12u));
        unsigned to = part >= p->parts ? p->bytes : p->part[part].at;

        if (part < p->parts && !p->part[part].is_target)
            continue;
        if (x->bytes > 1 || (to >= x->end && to - x->end <= 127))
            return to;
    }
    return x->end;
}

static void fix_victim(struct program *p, const struct fixup *x)
{
    const struct victim *v;
    unsigned bytes = x->end - x->at - 4u, to;

    if (!p->victims || percent(p, 20)) {
        /* Beside the code: the same line or another, the same page or another. */
        to = p->bytes + 1 + chance(p, percent(p, 50) ? 40 : 1500);
    } else {
        v = &p->victim[chance(p, p->victims)];
        to = v->imm_at;
        if (v->modrm && bytes == 2) {
            to--; /* another operation on the same register */
            p->k->code[x->end - 2] = (uint8_t)((v->modrm & 0xc7) | chance(p, 8) << 3);
        } else if (v->modrm && bytes == 1 && percent(p, 50)) {
            to--;
            p->k->code[x->end - 1] = (uint8_t)((v->modrm & 0xc7) | chance(p, 8) << 3);
        } else if (v->modrm && bytes == 4) {
            to = p->bytes + 1;
        }
    }
    if (p->k->mode == CODE_64)
        put_field(p, x, (int64_t)to - x->end);
    else
        put_field(p, x, (int64_t)(p->k->code_address + to));
}

static void fix_all(struct program *p)
{
    uint64_t ip = p->k->code_address - case_segment_base(p->k, ZYDIS_REGISTER_CS);

    for (unsigned n = 0; n < p->fixups; n++) {
        const struct fixup *x = &p->fixup[n];
        int32_t disp;

        switch (x->kind) {
        case FIX_BRANCH:
            put_field(p, x, (int64_t)branch_target(p, x) - x->end);
            break;
        case FIX_ADDRESS:
            put_field(p, x, (int64_t)(ip + branch_target(p, x)));
            break;
        case FIX_RIP_RELATIVE: /* what is there counts from CODE_BASE */
            memcpy(&disp, p->k->code + x->at, 4);
            put_field(p, x, disp - (int64_t)(p->k->code_address - CODE_BASE) - x->end);
            break;
        case FIX_VICTIM:
            fix_victim(p, x);
            break;
        }
    }
}

static unsigned role_register(struct program *p)
{
    unsigned reg;

    do {
        reg = free_register(p);
    } while (reg == X86_RAX && (p->k->mode != CODE_64 || percent(p, 80)));
    return reg;
}

/* RAX mostly stays free, because many instructions take no other register;
 * where there are only eight, always, so that there is one to write to. */
static void choose_roles(struct program *p)
{
    struct block_plan *plan = &p->plan;
    unsigned want = 2 + chance(p, 2);

    plan->pointer[plan->pointers++] = X86_RSP;
    plan->no_strings = true; /* only those of part_string */
    if (p->k->mode == CODE_16) {
        plan->pointer[plan->pointers++] = X86_RBX;
        plan->pointer[plan->pointers++] = X86_RBP;
        p->index = percent(p, 50) ? X86_RSI : X86_RDI;
    } else {
        if (percent(p, 40)) {
            plan->pointer[plan->pointers++] = X86_RSI;
            plan->pointer[plan->pointers++] = X86_RDI;
        }
        while (plan->pointers < want)
            plan->pointer[plan->pointers++] = (uint8_t)role_register(p);
        p->index = (uint8_t)role_register(p);
    }
    plan->fixed |= 1u << p->index;
    for (unsigned n = 0; n < LOOPS; n++) {
        p->counter[n] = (uint8_t)role_register(p);
        plan->fixed |= 1u << p->counter[n];
    }
}

static void set_state(struct program *p)
{
    static const uint16_t pages[] = {0x1800, 0x1c00, 0x2000, 0x2400, 0x6400, 0x6800, 0x8800};
    struct insn_case *k = p->k;
    struct insn_state *s = &k->in;
    uint64_t base;

    value_state(p->r, s, k->mode);
    s->rflags &= ~(uint64_t)(FLAG_AC | FLAG_NT);
    if (percent(p, 80))
        s->rflags &= ~(uint64_t)FLAG_TF;
    if (percent(p, 70))
        s->rflags &= ~(uint64_t)FLAG_DF;
    if (percent(p, 90)) {
        s->x.mxcsr |= 0x1f80;
        s->x.fcw |= 0x3f;
        s->x.fsw &= 0x7f7f & ~0x80;
    }
    if (k->mode != CODE_64) {
        uint16_t selector = k->mode == CODE_16                    ? LDT_SELECTOR(LDT_STACK16)
                            : k->writes_code || percent(p, 60) ? HOST_DS
                                                               : LDT_SELECTOR(LDT_DATA);

        for (unsigned n = 0; n < X86_SEG_COUNT; n++) {
            if (n != X86_CS)
                s->sel[n] = selector;
        }
    }
    base = case_segment_base(k, ZYDIS_REGISTER_DS);
    for (unsigned n = 0; n < p->plan.pointers; n++)
        s->gpr[p->plan.pointer[n]] = DATA_BASE + pages[chance(p, ARRAY_SIZE(pages))] - base +
                                     (percent(p, 20) ? chance(p, 64) : 0);
    /* Above what the other pointers reach. */
    s->gpr[X86_RSP] = DATA_BASE + 0x2c00 - base + (percent(p, 10) ? chance(p, 8) : 0);
    s->gpr[p->index] = chance(p, 64);
    for (unsigned n = 0; n < LOOPS; n++)
        s->gpr[p->counter[n]] = chance(p, 6);
}

bool gen_program(const struct insn_forms *f, struct insn_case *k)
{
    struct rng r = {k->seed * 0x2545f4914f6cdd1dull ^ (k->number + 0x9409)};
    struct program p = {.r = &r, .f = f, .k = k};

    rng_next(&r);
    k->patches = 0;
    k->mode = rng_percent(&r, 70) ? CODE_64 : rng_percent(&r, 60) ? CODE_32 : CODE_16;
    k->writes_code = k->mode != CODE_16 && rng_percent(&r, 15);
    choose_roles(&p);
    set_state(&p);
    if (k->mode == CODE_64 && !k->writes_code && rng_percent(&r, 12))
        make_loops(&p);
    else
        make_parts(&p);
    if (p.bytes > INSN_CODE_MAX || p.parts < 2)
        return false;
    k->code_bytes = p.bytes;
    k->count = p.parts;
    if (k->writes_code) /* in one page, or over two of them */
        k->code_address = SELF_BASE + (rng_percent(&r, 70) ? rng_below(&r, 2000)
                                                           : 4096 - rng_below(&r, p.bytes));
    else
        k->code_address = CODE_BASE + 4096 - rng_below(&r, 2048);
    k->in.rip = k->code_address - case_segment_base(k, ZYDIS_REGISTER_CS);
    fix_all(&p);
    return true;
}
