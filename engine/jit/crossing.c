/*
 * An instruction across two pages is a unit of its own, in its first page.
 *
 * Which page comes second depends on the address space, and on where in it the
 * first one is. So before the instruction is a test of the generation of fetch
 * translations in which the second page was seen, and of the page RIP. And since the unit belongs to its first
 * page only, stores to the second one do not find it: the bytes there are
 * compared with what was translated, each time. Whatever differs asks
 * jit_crossing, which sees where the second page is now, or gives the unit up.
 */
#include "engine/jit/crossing.h"

#include "engine/interp/interp.h"
#include "engine/jit/translate.h"

enum { CC_NE = 5 };

bool jit_crosses_to(const struct jit_unit *u, const uint8_t *second)
{
    return u->crossing ? u->crossing->second == second : !second;
}

static void compare(struct tr *t, const uint8_t *bytes, unsigned at, unsigned size)
{
    struct emit *e = &t->e;
    unsigned op = size == 1 ? 0x80 : size == 2 ? OP_66 | 0x81 : 0x81;

    emit_rm(e, op, 7, rm_mem(T0, (int32_t)at));
    for (unsigned n = 0; n < size; n++)
        emit8(e, bytes[at + n]);
}

/* Flags are in cc. */
void emit_crossing(struct tr *t)
{
    const struct jit_crossing *x = t->u->crossing;
    struct jit_link *l = &t->u->links[t->links++];
    struct emit *e = &t->e;

    *l = (struct jit_link){.from = t->u, .target = t->u->insn[0].offset, .kind = LINK_SECOND};
    emit_guard(t, l);
    l->jump = e->at; /* goes on here */
    emit_arena_load(t, &x->second);
    for (unsigned at = 0, size; at < x->count; at += size) {
        size = x->count - at >= 4 ? 4 : x->count - at >= 2 ? 2 : 1;
        compare(t, x->bytes, at, size);
        new_stub(t, STUB_LINK, emit_jcc(e, CC_NE))->link = l;
    }
}

/* No library's function: vectors may be in the host. */
static bool is_same(const struct jit_crossing *x)
{
    for (unsigned n = 0; n < x->count; n++) {
        if (x->second[n] != x->bytes[n])
            return false;
    }
    return true;
}

/* reg[X86_RIP] is the page RIP; when this returns it is so again, or true. */
const uint8_t *jit_crossing(struct x86_vcpu *c, struct jit_link *l)
{
    static const struct x86_insn at_start;
    struct jit *j = jit_of(c);
    const struct jit_crossing *x = l->from->crossing;
    uint64_t page_rip = c->s.reg[X86_RIP];
    const struct itlb_entry *e;
    gva_t next;

    c->s.reg[X86_RIP] = (page_rip + (uint64_t)(int64_t)l->target) & c->ip_mask;
    next = (c->s.reg[X86_RIP] + c->seg_base[X86_CS]) & PAGE_MASK;
    next += PAGE_SIZE;
    if ((c->mode & MODE_SIZE) != MODE_64)
        next = (uint32_t)next;
    /* The interpreter raises what there is to raise. */
    if (!l->from->host || !interp_fetch_allowed(c, l->from->bytes + x->count))
        return NULL;
    c->cur = &at_start; /* the fetch may fault */
    e = x86_fetch_page(c, next);
    if (e->host != x->second || !is_same(x)) {
        jit_kill(j, l->from);
        return NULL;
    }
    jit_fetched_add(c, next, e);
    /* As links: jit.c. */
    jit_guard_set(j, l, page_rip, e->global && !j->is_counting);
    c->s.reg[X86_RIP] = page_rip;
    return jit_exec(j, l->jump);
}
