/*
 * Loops: a unit that jumps to its own start has the way there twice.
 *
 * The first way is as any unit's code; its jumps to the start go on at the second
 * way, and the second's own too. So the second knows what is true wherever a turn
 * ends, where a unit knows nothing: which vectors are in the host, and how the
 * flags can be made again. It need not save flags that hardly anybody looks at,
 * nor test what has been tested, and a turn ends with one jump.
 *
 * In front of the second way is what every backward jump needs: the poll for
 * events and, where instructions are counted, the test of the budget. Both leave
 * by the unit's own link. The second way ends where the loop does, at its last
 * jump to the start; what is behind is another unit's, or the first way's rest.
 *
 * Where the loop has streams (stream.c), what they need is made there, too, and then
 * turns follow each other with nothing but a count between them.
 *
 * Guest registers that have no host register, and are used in the loop, have one in
 * the second way if the loop leaves one alone: whose that is, is in its home
 * meanwhile. They change places in front of the second way, and back wherever it is
 * left or C is called.
 *
 * The copies of the instructions exist for the translator only: what host code
 * refers to are the originals.
 */
#include "engine/jit/translate.h"

#include <string.h>

#define ALWAYS 16

/* Does instruction n jump to the unit's start? LOOP and JCXZ do not count. */
static bool is_edge(const struct tr *t, unsigned n)
{
    const struct x86_insn *i = &t->u->insn[n];

    return (i->flags & INSN_LAST) && i->size != 2 &&
           t->t->d[n].z.raw.imm[0].is_relative && i->target == t->u->insn[0].offset &&
           ((t->t->d[n].z.meta.category == ZYDIS_CATEGORY_COND_BR &&
             (t->t->d[n].z.opcode & 0xfc) != 0xe0) ||
            t->t->d[n].z.mnemonic == ZYDIS_MNEMONIC_JMP);
}

static bool names(ZydisRegister reg, unsigned guest)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return x86_reg_offset(reg) / 8 == guest;
    default:
        return false;
    }
}

static bool same_recipe(struct recipe a, struct recipe b)
{
    return a.kind == b.kind && a.k == b.k;
}

/* Is the register named in the loop, openly or not? */
static bool is_used(const struct tr *t, unsigned guest)
{
    for (unsigned n = 0; n < t->loop; n++) {
        const struct x86_decode *d = &t->t->d[n];
        if (t->u->insn[n].base == guest || t->u->insn[n].index == guest)
            return true;
        for (unsigned m = 0; m < d->z.operand_count; m++) {
            const ZydisDecodedOperand *o = &d->op[m];
            if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
                (names(o->mem.base, guest) || names(o->mem.index, guest)))
                return true;
            if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && names(o->reg.value, guest))
                return true;
        }
    }
    return false;
}

/* Lends a host register to `to`, if there is one left. */
static void lend(struct tr *t, unsigned to)
{
    static const uint8_t lenders[] = {12, X86_RBP, X86_RBX, 11, 10,
                                      9, X86_R8, X86_RDI, X86_RSI, X86_RDX};

    for (unsigned n = 0; n < sizeof lenders; n++) {
        bool is_free = !is_used(t, lenders[n]);
        for (unsigned m = 0; m < t->loans; m++)
            is_free &= t->loan[m].from != lenders[n];
        if (is_free) {
            t->loan[t->loans].from = lenders[n];
            t->loan[t->loans++].to = (uint8_t)to;
            return;
        }
    }
}

static void find_loans(struct tr *t)
{
    t->loans = 0;
    for (unsigned to = 13; to <= X86_R15; to++) {
        if (is_used(t, to))
            lend(t, to);
    }
    if (!t->streams)
        return;
    lend(t, LOAN_OF_STREAM + STREAM_TURNS);
    for (unsigned n = 0; n < t->slots; n++)
        lend(t, LOAN_OF_STREAM + n);
}

/* Of a guest register, or of what LOAN_OF_STREAM says. */
static struct rm home(unsigned of)
{
    return of < LOAN_OF_STREAM ? rm_mem(H_RSP, (int32_t)(8 * of))
                               : stream_home(of - LOAN_OF_STREAM);
}

unsigned loan_host(const struct tr *t, unsigned to)
{
    for (unsigned n = 0; n < t->lent; n++) {
        if (t->loan[n].to == to)
            return host_of_guest(t->loan[n].from);
    }
    return H_NONE;
}

/* Host registers of t->loan[] change owners. */
static void change(struct tr *t, bool lend)
{
    for (unsigned n = 0; n < t->loans; n++) {
        unsigned from = t->loan[n].from, to = t->loan[n].to, host;
        t->lent = 0;
        host = host_of(t, from);
        if (lend || to < LOAN_OF_STREAM || to == LOAN_OF_STREAM + STREAM_TURNS)
            emit_store(&t->e, home(lend ? from : to), host); /* slots do not change */
        emit_load(&t->e, host, home(lend ? to : from));
    }
    t->lent = lend ? t->loans : 0;
}

unsigned loop_give_back(struct tr *t)
{
    unsigned lent = t->lent;

    if (lent)
        change(t, false);
    return lent;
}

void loop_lend(struct tr *t)
{
    change(t, true);
}

void loop_find(struct tr *t)
{
    struct jit_translation *s = t->t;
    struct x86_insn *insn = t->u->insn;
    unsigned edges = 0;

    t->loop = 0;
    t->edges = 0;
    t->streams = 0;
    t->in_streams = false;
    t->loop_saves = false;
    /* A jump across two pages to itself would not look at its second page again, and
     * has no room for the copies. */
    if (t->is_trial || t->no_loop || t->u->crossing)
        return;
    for (unsigned n = 0; n < MIN(t->u->count, (unsigned)LOOP_MAX_INSNS); n++) {
        ZydisMnemonic m = s->d[n].z.mnemonic;
        if ((insn[n].flags & INSN_GOES_ON) || m == ZYDIS_MNEMONIC_STAC ||
            m == ZYDIS_MNEMONIC_CLAC)
            break;
        if (is_edge(t, n))
            t->loop = n + 1;
    }
    for (unsigned n = 0; n < t->loop; n++) {
        struct recipe r;
        if (!is_edge(t, n))
            continue;
        r = recipe_for_loop(t, n);
        if (edges++ && !same_recipe(r, t->loop_recipe))
            t->loop_saves = true;
        t->loop_recipe = r;
    }
    t->loop_saves |= t->loop_recipe.kind == RECIPE_NONE;
    if (t->loop_saves)
        t->loop_recipe = (struct recipe){RECIPE_NONE, 0};
    streams_find(t);
    find_loans(t);
    t->again = t->u->count + 1u;
    memcpy(&s->d[t->again], s->d, t->loop * sizeof s->d[0]);
    memcpy(&s->use[t->again], s->use, t->loop * sizeof s->use[0]);
    memcpy(&s->live[t->again], s->live, t->loop * sizeof s->live[0]);
    memcpy(&s->is_slow[t->again], s->is_slow, t->loop * sizeof s->is_slow[0]);
    memcpy(&insn[t->again], insn, t->loop * sizeof insn[0]);
    s->live[t->again + t->loop] = true;
}

bool loop_edge(struct tr *t, int32_t target, unsigned condition)
{
    struct emit *e = &t->e;
    uint32_t over = 0;

    if (tr_insn(t)->number >= t->loop || target != t->u->insn[0].offset ||
        t->edges == LOOP_MAX_EDGES)
        return false;
    flags_to_host(t);
    t->loop_vectors = t->edges ? t->loop_vectors & t->vectors : t->vectors;
    if (t->is_counting) {
        if (condition != ALWAYS)
            over = emit_jcc(e, condition ^ 1);
        emit_retired(t, tr_retired(t));
        t->edge[t->edges++] = emit_jmp(e);
        if (condition != ALWAYS)
            emit_patch(e, over, e->at);
    } else {
        t->edge[t->edges++] = condition == ALWAYS ? emit_jmp(e) : emit_jcc(e, condition);
    }
    if (t->cache_k == t->k)
        t1_keep(t, t->cache);
    return true;
}

/* A jump out, to the unit's own link. */
static void leave_if(struct tr *t, uint32_t jump)
{
    new_stub(t, STUB_SELF, jump);
}

static void leave_flags(struct tr *t)
{
    t->flags = FLAGS_IN_HOST;
    t->recipe = t->loop_recipe;
    if (t->loop_saves)
        flags_to_cc(t);
    flags_leave_host(t);
}

static void emit_budget(struct tr *t)
{
    struct emit *e = &t->e;

    if (t->is_counting) {
        emit_load(e, T0, CPU_RM(s.icount));
        emit_lea(e, T0, rm_mem(T0, (int32_t)t->loop));
        emit_rm(e, OP_W | 0x3b, T0, CPU_RM(budget_end));
        leave_if(t, emit_jcc(e, 7)); /* ja */
    }
}

/* What comes before each turn; returns where turns end. */
static uint32_t emit_start(struct tr *t)
{
    struct emit *e = &t->e;
    uint32_t start, into = 0, turn;

    if (!t->streams) {
        loop_lend(t);
        turn = e->at;
        leave_flags(t);
        emit_budget(t);
        leave_if(t, emit_poll(t));
        return turn;
    }
    leave_flags(t);
    start = e->at;
    leave_if(t, emit_poll(t));
    streams_emit_start(t);
    loop_lend(t);
    if (t->loop_saves)
        into = emit_jmp(e);
    turn = e->at;
    leave_flags(t);
    if (t->loop_saves)
        emit_patch(e, into, e->at);
    emit_budget(t);
    streams_emit_turn(t, start);
    return turn;
}

bool loop_emit(struct tr *t)
{
    const struct x86_insn *last = &t->u->insn[t->loop - 1];
    uint32_t start;
    unsigned first_edges = t->edges;
    bool ended = false;

    for (unsigned n = 0; n < first_edges; n++)
        emit_patch(&t->e, t->edge[n], t->e.at);
    t->edges = 0;
    t->end = t->again + t->loop;
    t->k = t->again;
    t->vectors = t->loop_vectors;
    t->cache = X86_ZERO;
    group_end_all(t);
    t->in_streams = t->streams != 0;
    start = emit_start(t);
    for (; t->k < t->end && !ended; t->k++) {
        if (!emit_one(t, &ended))
            return false;
    }
    for (unsigned n = 0; n < t->edges; n++)
        emit_patch(&t->e, t->edge[n], start);
    if (!ended) {
        t->k = t->end - 1;
        emit_edge(t, (int32_t)last->offset + last->length, t->loop, false);
    }
    return true;
}
