/*
 * Accesses off one base register share a lookup.
 *
 * The first of a run of accesses to [base + constant] looks ahead: if others
 * follow before base changes (it may move by constants: PUSH, POP, ADD), one
 * guard checks the whole range, and the others only load the entry's addend.
 * An L0 entry's addend stays good while a unit runs, though its tags may go:
 * what was translated before the unit's next safepoint may be used until then,
 * and a handler that drops translations does not come back into the unit.
 *
 * A range that has no room in its page, or whose guard fails for any other
 * reason, is given up for this time: the first instruction is executed by its
 * handler and the unit is left. If it is the page's end that is in the way, the
 * place is noted and its accesses stay single.
 */
#include "engine/jit/translate.h"

#define RANGE_MAX 1024

/* One access of an instruction off `guest`. */
struct access {
    bool any, is_write;
    int32_t disp;
    unsigned size;
};

static bool is_near_call(const struct x86_decode *d)
{
    return d->z.mnemonic == ZYDIS_MNEMONIC_CALL &&
           d->z.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR;
}

/* What instruction k reads or writes at [guest + disp], implicitly or not. Of
 * two accesses (PUSH [rsp + 8]) the explicit one comes first. */
static unsigned accesses_of(const struct tr *t, unsigned k, unsigned guest, struct access out[2])
{
    const struct x86_decode *d = &t->t->d[k];
    const struct x86_insn *i = &t->u->insn[k];
    unsigned n = 0;

    for (unsigned m = 0; m < d->z.operand_count_visible; m++) {
        const ZydisDecodedOperand *o = &d->op[m];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
            i->base != guest || i->index != X86_ZERO || i->ea_shift || i->seg >= X86_FS ||
            o->size < 8 || o->size > 512 || i->disp != (int32_t)i->disp)
            continue;
        out[n++] = (struct access){true, o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE,
                                   (int32_t)i->disp, o->size / 8u};
        break;
    }
    if (guest != X86_RSP || d->z.operand_width != 64)
        return n;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_PUSH || is_near_call(d))
        out[n++] = (struct access){true, true, -8, 8};
    else if (d->z.mnemonic == ZYDIS_MNEMONIC_POP || d->z.mnemonic == ZYDIS_MNEMONIC_RET)
        out[n++] = (struct access){true, false, 0, 8};
    return n;
}

static bool is_guest(ZydisRegister reg, unsigned guest)
{
    return ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR64 &&
           x86_reg_offset(reg) / 8 == guest;
}

/* A distance that a base may move. */
static bool is_near(int64_t v)
{
    return v == (int16_t)v;
}

/* How far `guest` moves by an instruction; false: not known. */
static bool moves(const struct x86_decode *d, unsigned guest, int32_t *by)
{
    const ZydisDecodedOperand *to = &d->op[0], *from = &d->op[1];

    *by = 0;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        if (guest == X86_RSP)
            *by = -(int32_t)d->z.operand_width / 8;
        return true;
    case ZYDIS_MNEMONIC_POP:
        if (guest != X86_RSP)
            break;
        *by = (int32_t)d->z.operand_width / 8;
        return to->type == ZYDIS_OPERAND_TYPE_REGISTER &&
               x86_reg_offset(to->reg.value) / 8 != X86_RSP;
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
        if (to->type == ZYDIS_OPERAND_TYPE_REGISTER && is_guest(to->reg.value, guest)) {
            *by = d->z.mnemonic == ZYDIS_MNEMONIC_INC ? 1 : -1;
            return true;
        }
        break;
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        if (to->type == ZYDIS_OPERAND_TYPE_REGISTER && is_guest(to->reg.value, guest) &&
            from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && is_near(from->imm.value.s)) {
            *by = (int32_t)from->imm.value.s;
            if (d->z.mnemonic == ZYDIS_MNEMONIC_SUB)
                *by = -*by;
            return true;
        }
        break;
    case ZYDIS_MNEMONIC_LEA:
        if (is_guest(to->reg.value, guest) && is_guest(from->mem.base, guest) &&
            !from->mem.index && is_near(from->mem.disp.value)) {
            *by = (int32_t)from->mem.disp.value;
            return true;
        }
        break;
    default:
        break;
    }
    return !tr_writes(d, guest);
}

/* Is base known behind instruction k? It may move. */
static bool survives(const struct tr *t, unsigned k, unsigned guest, int32_t *by)
{
    *by = 0;
    return guest == X86_RIP || moves(&t->t->d[k], guest, by);
}

/* Widens g by an access, if that is reasonable. */
static bool widen(struct group *g, const struct access *a, int32_t delta, unsigned guest)
{
    int32_t lo = MIN(g->lo, a->disp + delta);
    int32_t hi = MAX(g->hi, a->disp + delta + (int32_t)a->size);

    if (hi - lo > RANGE_MAX)
        return false;
    /* RIP-relative: constants of one page, or not at all. */
    if (guest == X86_RIP && (lo ^ (hi - 1)) & (int32_t)PAGE_MASK)
        return false;
    g->lo = lo;
    g->hi = hi;
    g->is_write |= a->is_write;
    return true;
}

/* Looks ahead from the access in hand; how many accesses g covers. */
static unsigned plan(const struct tr *t, unsigned guest, struct group *g, bool is_implicit)
{
    unsigned covered = 1;
    bool branched = false;
    int32_t delta = 0, by;

    for (unsigned k = t->k; k < t->end; k++) {
        struct access a[2];
        unsigned n = accesses_of(t, k, guest, a);

        for (unsigned m = 0; m < n; m++) {
            if (k == t->k && (m == 0 || is_implicit))
                continue; /* the one in hand, or before it */
            /* Whether a store behind a branch happens is not known here. */
            if (branched && a[m].is_write && !g->is_write)
                return covered;
            if (!widen(g, &a[m], delta, guest))
                return covered;
            covered++;
        }
        if (!survives(t, k, guest, &by) || t->t->is_slow[k])
            return covered;
        delta += by;
        branched |= (t->u->insn[k].flags & INSN_LAST) != 0;
    }
    return covered;
}

void group_after(struct tr *t)
{
    int32_t by;

    for (unsigned guest = 0; guest < ARRAY_SIZE(t->group); guest++) {
        if (!t->group[guest].active)
            continue;
        if (survives(t, t->k, guest, &by))
            t->group[guest].delta += by;
        else
            t->group[guest].active = false;
    }
}

void group_end_all(struct tr *t)
{
    for (unsigned guest = 0; guest < ARRAY_SIZE(t->group); guest++)
        t->group[guest].active = false;
}

bool group_covers(const struct tr *t, unsigned guest, int32_t disp, unsigned size, bool is_write)
{
    const struct group *g = &t->group[guest];

    return g->active && disp + g->delta >= g->lo && disp + g->delta + (int32_t)size <= g->hi &&
           (g->is_write || !is_write);
}

bool group_begin(struct tr *t, unsigned guest, int32_t disp, unsigned size, bool is_write,
                 bool is_implicit, struct group *g)
{
    *g = (struct group){.lo = disp, .hi = disp + (int32_t)size, .is_write = is_write};
    if (!t->is_64 || t->is_alone || jit_is_noted(t->j->single_sites, jit_guest_code(t->u, tr_insn(t))))
        return false;
    return plan(t, guest, g, is_implicit) > 1;
}
