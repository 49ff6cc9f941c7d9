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

static bool same_recipe(struct recipe a, struct recipe b)
{
    return a.kind == b.kind && a.k == b.k;
}

void loop_find(struct tr *t)
{
    struct jit_translation *s = t->t;
    struct x86_insn *insn = t->u->insn;
    unsigned edges = 0;

    t->loop = 0;
    t->edges = 0;
    t->loop_saves = false;
    if (t->is_trial || t->no_loop)
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

static void emit_start(struct tr *t)
{
    struct emit *e = &t->e;

    t->flags = FLAGS_IN_HOST;
    t->recipe = t->loop_recipe;
    if (t->loop_saves)
        flags_to_cc(t);
    flags_leave_host(t);
    if (t->is_counting) {
        emit_load(e, T0, CPU_RM(s.icount));
        emit_lea(e, T0, rm_mem(T0, (int32_t)t->loop));
        emit_rm(e, OP_W | 0x3b, T0, CPU_RM(budget_end));
        leave_if(t, emit_jcc(e, 7)); /* ja */
    }
    leave_if(t, emit_poll(t));
}

bool loop_emit(struct tr *t)
{
    const struct x86_insn *last = &t->u->insn[t->loop - 1];
    uint32_t start = t->e.at;
    unsigned first_edges = t->edges;
    bool ended = false;

    for (unsigned n = 0; n < first_edges; n++)
        emit_patch(&t->e, t->edge[n], start);
    t->edges = 0;
    t->end = t->again + t->loop;
    t->k = t->again;
    t->vectors = t->loop_vectors;
    t->cache = X86_ZERO;
    group_end_all(t);
    emit_start(t);
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
