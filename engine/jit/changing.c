/*
 * Code that changes again and again.
 *
 * Usually a line with code is marked, and a store to it kills what was made of it.
 * Some code is patched all the time, or has data beside it that is: programs that
 * put an operand into an instruction ahead, JIT compilers, call sites that are
 * turned on and off. To translate it each time costs a thousand times what it
 * does. So a line whose code was killed often is no longer marked. A unit with
 * such lines compares their bytes with what it was made from when it is entered,
 * and is made anew if they differ.
 *
 * It may go on only as long as nothing stores: it ends behind the first
 * instruction that may, and the next unit compares what it has. So a store to an
 * instruction right ahead takes effect there (SDM Vol. 3, 8.1.3), and what other
 * processors and devices store does no later than after the next such end or
 * jump, as if it had been told.
 *
 * An instruction that was found changed often is not compared. It is executed by
 * its handler, and decoded again when its bytes are others, which serves whatever
 * keeps its length and does not jump: other operands, most of all.
 *
 * The interpreter has no blocks of such lines. It asks for a unit at once, and
 * else executes one instruction at a time, decoded from what is there.
 *
 * Counters go by a hash of line or place and are halved from time to time: after
 * many changes, and after many comparisons. A unit that finds itself at such a
 * moment is made anew, and is an ordinary one if its lines have been calm: a kernel
 * patches its hottest places at the start and then never again. Someone else's
 * counter costs time only.
 *
 * Threading: the processor's own thread. Each processor has counters of its own;
 * marks that others need stay.
 */
#include <string.h>

#include "cpu/x86/vec/vec.h"
#include "engine/interp/interp.h"
#include "engine/jit/translate.h"

#define LINE_BYTES 64
#define MANY_CHANGES 8 /* of a line, until it is not marked */
#define MANY_MOVES 4   /* of an instruction in such a line, until it is not compared */
#define HALVE_AFTER 16384
#define CALM 60000 /* executions of moving instructions without a change */
#define HALVE_AFTER_CHECKS 30000

static uint8_t *counter(const struct jit *j, const void *place, bool is_line)
{
    uint64_t h = ((uint64_t)place << 1 | is_line) * 0x9e3779b97f4a7c15ull;

    return (uint8_t *)(uintptr_t)&j->changing[(h >> 40) % JIT_CHANGING];
}

static const uint8_t *line_of(const uint8_t *host)
{
    return (const uint8_t *)align_down((uint64_t)host, LINE_BYTES);
}

static void halve(struct jit *j)
{
    j->changes = 0;
    for (unsigned k = 0; k < JIT_CHANGING; k++)
        j->changing[k] /= 2;
}

static void count(struct jit *j, uint8_t *n)
{
    if (*n < UINT8_MAX)
        ++*n;
    if (++j->changes == HALVE_AFTER)
        halve(j);
}

void jit_note_change(struct x86_vcpu *c, struct ram_block *block, uint64_t offset, uint64_t bytes)
{
    struct jit *j = jit_of(c);
    uint64_t line = align_down(offset, LINE_BYTES);
    uint8_t *n = counter(j, block->host + line, true);

    /* What is stored in one piece, not a page that is loaded. */
    if (offset + bytes > line + LINE_BYTES)
        return;
    count(j, n);
    if (*n != MANY_CHANGES)
        return;
    /* What else was made of it has marked it. */
    j->stats.changing_lines++;
    if (jit_invalidate(c, block, line, LINE_BYTES))
        j->leaving = true;
    interp_code_written(c, block, line, LINE_BYTES);
}

uint64_t jit_changing_lines(const struct jit *j, const uint8_t *host, uint64_t bytes)
{
    uint64_t lines = 0;

    for (const uint8_t *at = line_of(host); at < host + bytes; at += LINE_BYTES) {
        if (*counter(j, at, true) >= MANY_CHANGES)
            lines |= BIT(((uint64_t)at & ~PAGE_MASK) / LINE_BYTES);
    }
    return lines;
}

bool jit_is_moving(const struct jit *j, const uint8_t *host)
{
    return *counter(j, host, false) >= MANY_MOVES;
}

bool jit_leaves_unmarked(const struct jit *j, const uint8_t *host)
{
    uint64_t rest = PAGE_SIZE - ((uint64_t)host & ~PAGE_MASK);

    return jit_changing_lines(j, host, MIN(rest, 2 * LINE_BYTES));
}

/* ---- what the unit asks for ---- */

void jit_is_stale(struct jit *j, const struct x86_insn *i)
{
    struct jit_unit *u = jit_unit_of(i);

    bool is_stale = false;

    if ((int32_t)j->checks_left < 0) {
        j->checks_left = HALVE_AFTER_CHECKS;
        halve(j);
    }
    if (!u->host)
        return;
    for (unsigned n = 0; n < u->count; n++) {
        const struct x86_insn *k = &u->insn[n];
        const uint8_t *at = jit_guest_code(u, k);
        if (memcmp(at, u->seen + k->offset - u->insn[0].offset, k->length) == 0)
            continue;
        is_stale = true;
        count(j, counter(j, at, false));
        count(j, counter(j, line_of(at), true));
    }
    j->stats.stale_units += is_stale;
    jit_kill(j, u);
}

bool jit_refresh(struct x86_vcpu *c, struct x86_insn *i)
{
    struct jit_unit *u = jit_unit_of(i);
    struct x86_insn fresh = {.offset = i->offset, .number = i->number};
    struct x86_decode *d = jit_of(c)->translation->d;
    uint8_t *seen, bytes[15];
    const uint8_t *at;

    if (!u->host)
        return false;
    at = jit_guest_code(u, i);
    seen = u->seen + (i->offset - u->insn[0].offset);
    memcpy(bytes, at, i->length);
    if (memcmp(bytes, seen, i->length) == 0) {
        if (++u->calm < CALM)
            return true;
        *counter(jit_of(c), at, false) = 0;
        return false;
    }
    vec_leave(c); /* decoding is not compiled without vector registers */
    u->calm = 0;
    jit_of(c)->stats.redecoded++;
    /* Any handler will do that comes back, and after which nothing is compared;
     * vector instructions are called otherwise and keep host code. */
    if (vec_needs_flush(c) ||
        x86_decode_whole(c, u->key & KEY_MODE, bytes, i->length, &fresh, d) != DECODE_OK ||
        fresh.length != i->length || (fresh.flags & INSN_LAST) || vec_binder_for(&d->z) ||
        (changing_may_store(d, &fresh) && i->number + 1u < u->count))
        return false;
    *i = fresh;
    memcpy(seen, bytes, i->length);
    return true;
}

/* ---- for the translator ---- */

/* Of those that a block ends with for other reasons. */
static bool stores_nothing(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_STI || m == ZYDIS_MNEMONIC_POPF || m == ZYDIS_MNEMONIC_POPFD ||
           m == ZYDIS_MNEMONIC_POPFQ;
}

bool changing_may_store(const struct x86_decode *d, const struct x86_insn *i)
{
    if ((i->flags & INSN_GOES_ON) && !stores_nothing(d->z.mnemonic))
        return true;
    switch (d->z.meta.category) {
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_STRINGOP:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_X87_ALU:
        return true;
    default:
        break;
    }
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (d->op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return true;
    }
    return false;
}

unsigned changing_cut(const struct tr *t, const struct x86_insn *i, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        if (changing_may_store(&t->t->d[n], &i[n]))
            return n + 1;
    }
    return count;
}

static bool is_checked(const struct jit_unit *u, const uint8_t *at)
{
    return u->checked_lines >> ((uint64_t)at & ~PAGE_MASK) / LINE_BYTES & 1;
}

bool changing_moves(const struct tr *t, unsigned k)
{
    const struct x86_insn *i = &t->u->insn[k];
    const uint8_t *at = jit_guest_code(t->u, i);

    return !(i->flags & (INSN_LAST | INSN_GOES_ON)) && is_checked(t->u, at) &&
           is_checked(t->u, at + i->length - 1) && !vec_binder_for(&t->t->d[k].z) &&
           jit_is_moving(t->j, at);
}

/* bytes: 1, 2, 4 or 8; at is from the unit's first byte. */
static void compare(struct tr *t, unsigned at, unsigned bytes)
{
    const uint8_t *seen = t->u->seen + at;
    struct rm rm = rm_mem(T0, (int32_t)at);
    struct emit *e = &t->e;

    switch (bytes) {
    case 8:
        emit8(e, 0x49); /* mov r15, imm64 */
        emit8(e, 0xbf);
        emit64(e, le64_get(seen));
        emit_rm(e, OP_W | 0x39, T1, rm);
        break;
    case 4:
        emit_alu_imm(e, 0, 7, rm, (int32_t)le32_get(seen));
        break;
    case 2:
        emit_rm(e, OP_66 | 0x81, 7, rm);
        emit16(e, (unsigned)(seen[0] | seen[1] << 8));
        break;
    default:
        emit_rm(e, OP_BYTE_RM | 0x80, 7, rm);
        emit8(e, seen[0]);
        break;
    }
    if (t->unlikes == ARRAY_SIZE(t->t->unlike)) {
        t->failed = true;
        t->unlikes--;
    }
    t->t->unlike[t->unlikes++] = emit_jcc(e, 5);
}

static void compare_run(struct tr *t, unsigned at, unsigned end)
{
    unsigned bytes = 8;

    while (bytes > end - at)
        bytes /= 2;
    for (; at + bytes <= end; at += bytes)
        compare(t, at, bytes);
    if (at < end) /* again what was compared */
        compare(t, end - bytes, bytes);
}

void emit_verify(struct tr *t)
{
    struct jit_unit *u = t->u;
    unsigned run = 0, at = 0;

    t->unlikes = 0;
    if (!u->checked_lines)
        return;
    emit_alu_imm(&t->e, 0, 5, JIT_RM(checks_left), 1);
    t->t->unlike[t->unlikes++] = emit_jcc(&t->e, 8); /* js: jit_is_stale */
    emit_arena_load(t, &u->checked_at);
    for (unsigned k = 0; k < u->count; k++) {
        for (unsigned end = at + u->insn[k].length; at < end; at++) {
            if (!t->t->is_moving[k] && is_checked(u, u->host + at))
                continue;
            if (run < at)
                compare_run(t, run, at);
            run = at + 1;
        }
    }
    if (run < at)
        compare_run(t, run, at);
}

void emit_verify_stub(struct tr *t)
{
    if (!t->unlikes)
        return;
    for (unsigned n = 0; n < t->unlikes; n++)
        emit_patch(&t->e, t->t->unlike[n], t->e.at);
    emit_slow_call(t, 0, SLOW_STALE);
}
