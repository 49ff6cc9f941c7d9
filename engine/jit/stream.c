/*
 * Streams: accesses of a loop whose addresses move by the same distance each turn.
 *
 * In the second way of a long loop (loop.c) one lookup serves many turns. In front
 * of it each stream's address is computed, looked up in the TLB, and what room its
 * page leaves is divided by the distance: the smallest result is the number of
 * turns in which no stream leaves its page. The turns count it down, and need no
 * poll meanwhile; when it is used up the loop comes by here again. Where a lookup
 * fails or an access crosses pages the unit's first way does a turn.
 *
 * Which accesses these are comes from the registers: an address is a sum of
 * registers, as they are when a turn starts, and a constant, followed through MOV,
 * LEA, ADD, SUB, INC and DEC of 64 bits; a register that has moved by a constant
 * at every end of a turn, or not at all, may be part of it. Addresses with the same
 * sum are one stream, whatever their constants, if these are near each other.
 *
 * An operand of guest code is then one of the host's: a register that moves, and a
 * "slot", the stream's addend with what else is in the sum and stands still. Slots
 * and the count are in host registers of guest registers that the loop leaves alone,
 * as long as there are any, and else in struct jit.
 *
 * What the TLB said holds until the next safepoint, as for groups (group.c): turns
 * are at most a page's bytes, and a handler that drops translations does not come
 * back into the unit.
 */
#include "engine/jit/translate.h"

#include <string.h>

#define RANGE_MAX 1024
#define STEP_MAX 512
/* Where nothing moves. */
#define TURNS_MAX 1024
/* room / step is room * RECIPROCAL(step) >> 24 for all there are. */
#define RECIPROCAL(step) (((1u << 24) + (step) - 1) / (step))

/* A sum: of registers, as a turn starts with them, and a constant. */
struct sum {
    bool known;
    uint8_t count; /* of each register, 0 to 8 */
    struct {
        uint8_t reg, times;
    } term[STREAM_TERMS];
    int64_t constant;
};

static bool add_term(struct sum *s, unsigned reg, unsigned times)
{
    unsigned n = 0;

    while (n < s->count && s->term[n].reg < reg)
        n++;
    if (n < s->count && s->term[n].reg == reg) {
        times += s->term[n].times;
    } else {
        if (s->count == STREAM_TERMS)
            return false;
        memmove(&s->term[n + 1], &s->term[n], (s->count++ - n) * sizeof s->term[0]);
        s->term[n].reg = (uint8_t)reg;
    }
    s->term[n].times = (uint8_t)times;
    return times == 1 || times == 2 || times == 4 || times == 8;
}

/* A displacement, even with an operand's size and a range around it. */
static bool is_small(int64_t constant)
{
    return constant > -(1 << 30) && constant < 1 << 30;
}

/* a += b << scale */
static void add(struct sum *a, const struct sum *b, unsigned scale)
{
    a->known = a->known && b->known;
    for (unsigned n = 0; a->known && n < b->count; n++)
        a->known = add_term(a, b->term[n].reg, (unsigned)b->term[n].times << scale);
    if (!a->known)
        return;
    a->constant += b->constant * (1 << scale);
    a->known = is_small(a->constant);
}

static struct sum constant(int64_t v)
{
    return (struct sum){.known = is_small(v), .constant = v};
}

/* Of the instruction's memory operand or LEA's. */
static struct sum address(const struct x86_insn *i, const struct sum *reg)
{
    struct sum s = constant(i->disp);

    if (i->base == X86_RIP) /* there is no sum of that */
        s.known = false;
    else if (i->base != X86_ZERO)
        add(&s, &reg[i->base], 0);
    if (i->index != X86_ZERO)
        add(&s, &reg[i->index], i->scale);
    return s;
}

static int full_register(const ZydisDecodedOperand *o)
{
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
        ZydisRegisterGetClass(o->reg.value) != ZYDIS_REGCLASS_GPR64)
        return -1;
    return (int)x86_reg_offset(o->reg.value) / 8;
}

static void begin_turn(struct sum reg[16])
{
    for (unsigned r = 0; r < 16; r++)
        reg[r] = (struct sum){.known = true, .count = 1, .term = {{(uint8_t)r, 1}}};
}

/* What registers are behind instruction k. */
static void follow(const struct tr *t, unsigned k, struct sum reg[16])
{
    const struct x86_decode *d = &t->t->d[k];
    const struct x86_insn *i = &t->u->insn[k];
    int to = d->z.operand_count_visible ? full_register(&d->op[0]) : -1;
    int from = d->z.operand_count_visible > 1 ? full_register(&d->op[1]) : -1;
    bool is_immediate = d->z.operand_count_visible > 1 &&
                        d->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    struct sum s = {.known = false}, by = s;

    if (is_immediate)
        by = constant(d->op[1].imm.value.s);
    else if (from >= 0)
        by = reg[from];
    if (to >= 0) {
        s = reg[to];
        switch (d->z.mnemonic) {
        case ZYDIS_MNEMONIC_MOV:
            s = by;
            break;
        case ZYDIS_MNEMONIC_ADD:
            add(&s, &by, 0);
            break;
        case ZYDIS_MNEMONIC_SUB:
            by.constant = -by.constant;
            by.known = is_immediate;
            add(&s, &by, 0);
            break;
        case ZYDIS_MNEMONIC_INC:
        case ZYDIS_MNEMONIC_DEC:
            by = constant(d->z.mnemonic == ZYDIS_MNEMONIC_INC ? 1 : -1);
            add(&s, &by, 0);
            break;
        case ZYDIS_MNEMONIC_LEA:
            s = i->ea_shift || i->base == X86_RIP ? by : address(i, reg);
            break;
        default:
            s.known = false;
            break;
        }
    }
    for (unsigned r = 0; r < 16; r++) {
        if (tr_writes(d, r)) {
            if ((int)r == to)
                reg[r] = s;
            else
                reg[r].known = false;
        }
    }
}

/* BT and its like reach beyond their operand. */
static bool is_bit_string(const struct x86_decode *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:
        return d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    default:
        return false;
    }
}

/* The operand in memory that mem_operand is called for, if it may be a stream's. */
static const ZydisDecodedOperand *operand(const struct x86_decode *d, const struct x86_insn *i)
{
    if (i->ea_shift || i->seg >= X86_FS || i->base == X86_RIP ||
        is_string(d) || d->z.mnemonic == ZYDIS_MNEMONIC_LEA || i->disp != (int32_t)i->disp ||
        is_bit_string(d))
        return NULL;
    for (unsigned m = 0; m < d->z.operand_count_visible; m++) {
        const ZydisDecodedOperand *o = &d->op[m];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
            return o->mem.type == ZYDIS_MEMOP_TYPE_MEM && o->size >= 8 && o->size <= 512 ? o : NULL;
    }
    return NULL;
}

/* How far a register has moved at the end of each turn. */
struct motion {
    bool known[16];
    int32_t by[16];
};

static bool same_terms(const struct stream *s, const struct sum *a)
{
    return s->terms == a->count && memcmp(s->term, a->term, a->count * sizeof a->term[0]) == 0;
}

static int32_t step_of(const struct stream *s, const struct motion *m)
{
    int64_t by = 0;

    for (unsigned n = 0; n < s->terms; n++) {
        unsigned reg = s->term[n].reg;
        if (!m->known[reg] || m->by[reg] > STEP_MAX || m->by[reg] < -STEP_MAX)
            return INT32_MAX;
        by += (int64_t)m->by[reg] * s->term[n].times;
    }
    return by > STEP_MAX || by < -STEP_MAX ? INT32_MAX : (int32_t)by;
}

/* Instruction k reads or writes there; a stream of its own, another one's, or none. */
static void note(struct tr *t, unsigned k, const struct sum *a, unsigned size, bool is_write,
                 bool is_certain)
{
    struct stream *s;
    int64_t lo = a->constant, hi = lo + size;

    for (unsigned n = 0; n < t->streams; n++) {
        s = &t->stream[n];
        if (!same_terms(s, a) || MAX(s->hi, hi) - MIN(s->lo, lo) > RANGE_MAX ||
            (is_write && !is_certain && !s->is_write))
            continue;
        s->lo = (int32_t)MIN(s->lo, lo);
        s->hi = (int32_t)MAX(s->hi, hi);
        s->is_write |= is_write;
        t->t->stream_of[k] = (uint8_t)(n + 1);
        t->t->stream_bytes[k] = (uint8_t)size;
        return;
    }
    /* A page that cannot be accessed would end streams for good. */
    if (t->streams == STREAMS_MAX || !is_certain)
        return;
    s = &t->stream[t->streams++];
    *s = (struct stream){.terms = a->count, .lo = (int32_t)lo, .hi = (int32_t)hi,
                         .is_write = is_write};
    memcpy(s->term, a->term, sizeof s->term);
    t->t->stream_of[k] = (uint8_t)t->streams;
    t->t->stream_bytes[k] = (uint8_t)size;
}

static bool stands_still(const struct tr *t, unsigned reg)
{
    for (unsigned k = 0; k < t->loop; k++) {
        if (tr_writes(&t->t->d[k], reg))
            return false;
    }
    return true;
}

/* The slot that goes with what moves in the operand of instruction k. */
static void choose_slot(struct tr *t, unsigned k)
{
    const struct x86_insn *i = &t->u->insn[k];
    struct stream_slot s = {.stream = (uint8_t)(t->t->stream_of[k] - 1), .reg = X86_ZERO};

    if (i->base != X86_ZERO && i->index != X86_ZERO) {
        if (stands_still(t, i->index)) {
            s.reg = i->index;
            s.scale = i->scale;
        } else if (stands_still(t, i->base)) {
            s.reg = i->base;
        }
    }
    for (unsigned n = 0; n < t->slots; n++) {
        if (t->slot[n].stream == s.stream && t->slot[n].reg == s.reg &&
            t->slot[n].scale == s.scale) {
            t->t->slot_of[k] = (uint8_t)n;
            return;
        }
    }
    if (t->slots == STREAM_SLOTS) {
        t->t->stream_of[k] = 0;
        return;
    }
    t->slot[t->slots] = s;
    t->t->slot_of[k] = (uint8_t)t->slots++;
}

static bool ends_turn(const struct tr *t, unsigned k)
{
    return (t->u->insn[k].flags & INSN_LAST) && t->u->insn[k].target == t->u->insn[0].offset;
}

/* What moves, and by how much, at all ends of a turn alike. */
static struct motion motion_of(const struct tr *t)
{
    struct motion m;
    struct sum reg[16];
    bool is_first = true;

    begin_turn(reg);
    for (unsigned k = 0; k < t->loop; k++) {
        follow(t, k, reg);
        if (!ends_turn(t, k))
            continue;
        for (unsigned r = 0; r < 16; r++) {
            const struct sum *s = &reg[r];
            bool known = s->known && s->count == 1 && s->term[0].reg == r &&
                         s->term[0].times == 1;
            if (is_first) {
                m.known[r] = known;
                m.by[r] = (int32_t)s->constant;
            } else {
                m.known[r] = m.known[r] && known && m.by[r] == (int32_t)s->constant;
            }
        }
        is_first = false;
    }
    return m;
}

void streams_find(struct tr *t)
{
    struct sum reg[16];
    struct motion m;
    bool is_certain = true;

    t->streams = 0;
    t->slots = 0;
    memset(t->t->stream_of, 0, sizeof t->t->stream_of);
    t->in_streams = false;
    if (!t->is_64 || !t->loop ||
        (t->j->threshold > 1 && !jit_is_noted(t->j->long_units, t->u->host)))
        return;
    for (unsigned k = 0; k < t->loop; k++) {
        if (t->t->is_slow[k])
            return;
    }
    m = motion_of(t);
    begin_turn(reg);
    for (unsigned k = 0; k < t->loop; k++) {
        const struct x86_insn *i = &t->u->insn[k];
        const ZydisDecodedOperand *o = operand(&t->t->d[k], i);
        struct sum a = address(i, reg);

        if (o && a.known) {
            struct stream s = {.terms = a.count};

            memcpy(s.term, a.term, sizeof s.term);
            if (step_of(&s, &m) != INT32_MAX)
                note(t, k, &a, o->size / 8, o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE,
                     is_certain);
        }
        is_certain &= !(i->flags & INSN_LAST);
        follow(t, k, reg);
    }
    for (unsigned n = 0; n < t->streams; n++)
        t->stream[n].step = step_of(&t->stream[n], &m);
    for (unsigned k = 0; k < t->loop; k++) {
        if (t->t->stream_of[k])
            choose_slot(t, k);
    }
}

/* T1 = where the stream's accesses begin. */
static void emit_address(struct tr *t, const struct stream *s)
{
    struct emit *e = &t->e;

    if (!s->terms) {
        emit_rm(e, OP_W | 0xc7, 0, rm_reg(T1));
        emit32(e, (uint32_t)s->lo);
        return;
    }
    for (unsigned n = 0; n < s->terms; n++) {
        unsigned host = host_of(t, s->term[n].reg);
        unsigned scale = (unsigned)__builtin_ctz(s->term[n].times);
        if (n == 0) {
            emit_load(e, T1, guest_rm(t, s->term[n].reg));
            if (scale) {
                emit_rm(e, OP_W | 0xc1, 4, rm_reg(T1)); /* shl */
                emit8(e, scale);
            }
            continue;
        }
        if (host == H_NONE)
            emit_load(e, host = T0, guest_rm(t, s->term[n].reg));
        emit_lea(e, T1, rm_mem_index(T1, host, scale, 0));
    }
    emit_lea(e, T1, rm_mem(T1, s->lo));
}

/* T1 = the turns that the stream at T1 has in its page. */
static void emit_turns(struct tr *t, const struct stream *s)
{
    unsigned size = (unsigned)(s->hi - s->lo), step = (unsigned)(s->step < 0 ? -s->step : s->step);
    struct emit *e = &t->e;

    emit_alu_imm(e, 0, 4, rm_reg(T1), ~(int32_t)PAGE_MASK); /* and */
    if (s->step > 0) {
        emit_rm(e, 0xf7, 3, rm_reg(T1)); /* neg */
        emit_alu_imm(e, 0, 0, rm_reg(T1), (int32_t)(PAGE_SIZE - size));
    }
    if ((step & (step - 1)) == 0) {
        if (step > 1) {
            emit_rm(e, 0xc1, 5, rm_reg(T1)); /* shr */
            emit8(e, (unsigned)__builtin_ctz(step));
        }
    } else {
        emit_rm(e, OP_W | 0x69, T1, rm_reg(T1)); /* imul */
        emit32(e, RECIPROCAL(step));
        emit_rm(e, OP_W | 0xc1, 5, rm_reg(T1));
        emit8(e, 24);
    }
    emit_lea(e, T1, rm_mem(T1, 1));
}

static void emit_slots(struct tr *t, unsigned stream)
{
    struct emit *e = &t->e;

    for (unsigned n = 0; n < t->slots; n++) {
        const struct stream_slot *s = &t->slot[n];
        unsigned host;
        if (s->stream != stream)
            continue;
        if (s->reg == X86_ZERO) {
            emit_store(e, stream_home(n), T0);
            continue;
        }
        host = host_of(t, s->reg);
        if (host == H_NONE)
            emit_load(e, host = T1, guest_rm(t, s->reg));
        emit_lea(e, T1, rm_mem_index(T0, host, s->scale, 0));
        emit_store(e, stream_home(n), T1);
    }
}

static struct rm failures(const struct tr *t)
{
    return rm_mem(H_RSP, (int32_t)(JIT_AREA + offsetof(struct jit, site) +
                                   jit_site_hash(t->u->host) * sizeof(struct jit_site) +
                                   offsetof(struct jit_site, failures)));
}

void streams_emit_start(struct tr *t)
{
    struct emit *e = &t->e;
    bool is_bound = false; /* by a stream that moves */

    for (unsigned n = 0; n < t->streams; n++) {
        const struct stream *s = &t->stream[n];
        emit_address(t, s);
        new_stub(t, STUB_NO_ROOM, mem_look_up(t, (unsigned)(s->hi - s->lo), s->is_write));
        emit_load(e, T0, rm_mem(T0, (int32_t)offsetof(struct tlb_entry, addend)));
        emit_slots(t, n);
        if (!s->step)
            continue;
        emit_load(e, T1, JIT_RM(saved_t1));
        emit_turns(t, s);
        if (is_bound) {
            emit_load(e, T0, stream_home(STREAM_TURNS));
            emit_rm(e, OP_W | 0x3b, T1, rm_reg(T0));         /* cmp */
            emit_rm(e, OP_W | OP_0F | 0x47, T1, rm_reg(T0)); /* cmova */
        }
        emit_store(e, stream_home(STREAM_TURNS), T1);
        is_bound = true;
    }
    if (!is_bound) {
        emit_rm(e, OP_W | 0xc7, 0, stream_home(STREAM_TURNS));
        emit32(e, TURNS_MAX);
    }
    emit_rm(e, 0xc7, 0, failures(t));
    emit32(e, 0);
}

static struct rm stream_rm(const struct tr *t, unsigned slot)
{
    unsigned host = loan_host(t, LOAN_OF_STREAM + slot);

    return host != H_NONE ? rm_reg(host) : stream_home(slot);
}

void streams_emit_turn(struct tr *t, uint32_t start)
{
    emit_alu_imm(&t->e, OP_W, 5, stream_rm(t, STREAM_TURNS), 1); /* sub */
    new_stub(t, STUB_AGAIN, emit_jcc(&t->e, 2))->retry = start;  /* jc */
}

bool stream_operand(struct tr *t, unsigned size, bool is_write, struct rm *rm)
{
    const struct x86_insn *i = tr_insn(t);
    unsigned number = t->k - t->again, stream;
    struct emit *e = &t->e;
    struct rm slot;
    unsigned moves, s;

    if (!t->in_streams || t->k < t->again || !t->t->stream_of[number])
        return false;
    stream = t->t->stream_of[number] - 1u;
    if (size > t->t->stream_bytes[number] || (is_write && !t->stream[stream].is_write))
        return false;
    s = t->t->slot_of[number];
    slot = stream_rm(t, s);
    if (slot.is_mem) {
        emit_load(e, T0, slot);
        slot = rm_reg(T0);
    }
    if (i->base == X86_ZERO && i->index == X86_ZERO) {
        *rm = rm_mem(slot.base, (int32_t)i->disp);
    } else if (t->slot[s].reg == X86_ZERO && i->base != X86_ZERO && i->index != X86_ZERO) {
        unsigned base = host_of(t, i->base), index = host_of(t, i->index);
        if (base == H_NONE) {
            emit_load(e, T1, guest_rm(t, i->base));
            base = T1;
        }
        if (index == H_NONE) {
            emit_lea(e, T1, rm_mem_index(base, slot.base, 0, (int32_t)i->disp));
            emit_load(e, T0, guest_rm(t, i->index));
            /* An index in T0 would look like an addend, a multiple of a page. */
            emit_lea(e, T1, rm_mem_index(T1, T0, i->scale, 0));
            *rm = rm_mem(T1, 0);
        } else {
            emit_lea(e, T1, rm_mem_index(base, index, i->scale, (int32_t)i->disp));
            *rm = rm_mem_index(T1, slot.base, 0, 0);
        }
    } else {
        bool is_index = i->base == X86_ZERO || t->slot[s].reg == i->base;
        unsigned scale = is_index ? i->scale : 0, host;
        moves = is_index ? i->index : i->base;
        host = host_of(t, moves);
        if (host == H_NONE) {
            emit_load(e, T1, guest_rm(t, moves));
            emit_lea(e, T1, rm_mem_index(slot.base, T1, scale, (int32_t)i->disp));
            *rm = rm_mem(T1, 0);
        } else {
            *rm = rm_mem_index(slot.base, host, scale, (int32_t)i->disp);
        }
    }
    return true;
}

void emit_no_room_stub(struct tr *t, const struct jit_stub *s)
{
    struct emit *e = &t->e;
    uint32_t often;

    emit_flags_to_cc(t, s->flags, s->recipe);
    emit_rm(e, 0x81, 0, failures(t)); /* add */
    emit32(e, STREAM_FAILURE);
    often = emit_jcc(e, 2); /* jc */
    emit_patch(e, emit_jmp(e), t->u->entry);
    emit_patch(e, often, e->at);
    emit_slow_call(t, s->k, SLOW_STREAMS); /* leaves the unit */
}
