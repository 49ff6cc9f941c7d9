/*
 * Which pages links and jump caches lead to, and where they were found.
 *
 * Systems drop all translations now and then for the sake of a few pages of
 * data. Every link across pages and every entry of the jump caches would have
 * to ask again, though code has moved nowhere. So the pages that they lead to
 * are remembered, and looked for in the page tables when translations are
 * dropped: if all of them are where they were, nothing is forgotten. That is
 * what a processor does that fetches ahead right after the flush (SDM Vol. 3,
 * 4.10.2.3 allows it to at any time).
 *
 * Deterministic machines forget, because engines have to agree on when page
 * tables are walked.
 */
#include <string.h>

#include "engine/jit/jit.h"

#define PAGE_USER 1ull /* in jit_fetched.page */

static unsigned place(gva_t page)
{
    return (unsigned)((page >> 12) * 0x9e3779b97f4a7c15ull >> 40) % JIT_FETCHED;
}

static struct jit_fetched *find(struct jit_fetched_set *s, gva_t page)
{
    unsigned n = place(page);

    while (s->page[n].host && (s->page[n].page & PAGE_MASK) != page)
        n = (n + 1) % JIT_FETCHED;
    return &s->page[n];
}

static struct jit_fetched_set *set_of(struct x86_vcpu *c, bool is_global)
{
    struct jit *j = jit_of(c);

    return is_global ? &j->fetched_global : &j->fetched[c->mmu->current];
}

void jit_fetched_add(struct x86_vcpu *c, gva_t lin, const struct itlb_entry *e)
{
    struct jit_fetched_set *s = set_of(c, e->global);
    struct jit_fetched *at;

    if (s->is_full)
        return;
    at = find(s, lin & PAGE_MASK);
    if (at->host && at->host == e->host)
        return;
    /* Full, or another page where one was: nothing is known any more. */
    if (at->host || s->count == JIT_FETCHED * 3 / 4) {
        s->is_full = true;
        return;
    }
    *at = (struct jit_fetched){(lin & PAGE_MASK) | (c->s.cpl == 3 ? PAGE_USER : 0), e->host};
    s->count++;
}

/* And as global as it was: what is global is kept over changes of CR3. */
static bool is_there(struct x86_vcpu *c, const struct jit_fetched *f, bool is_global)
{
    uint64_t bytes = PAGE_SIZE, offset;
    struct ram_block *block;
    const uint8_t *host;
    uint32_t error;
    struct walk w;

    if (!walk_look(c, f->page & PAGE_MASK, &w) ||
        !walk_allows(c, &w, ACCESS_FETCH, f->page & PAGE_USER, false, &error) ||
        w.global != is_global)
        return false;
    host = as_map(&c->vm->memory, w.gpa & PAGE_MASK, &bytes, false, &block, &offset);
    if (host != f->host || bytes < PAGE_SIZE)
        return false;
    x86_fetch_kept(c, f->page & PAGE_MASK, &w);
    return true;
}

bool jit_fetched_all_there(struct x86_vcpu *c, bool is_global)
{
    struct jit_fetched_set *s = set_of(c, is_global);

    if (s->is_full || jit_of(c)->is_counting)
        return false;
    for (unsigned n = 0; n < JIT_FETCHED; n++) {
        if (s->page[n].host && !is_there(c, &s->page[n], is_global))
            return false;
    }
    return true;
}

bool jit_fetched_is_there(struct x86_vcpu *c, gva_t lin)
{
    struct jit *j = jit_of(c);

    if (j->is_counting)
        return false;
    for (unsigned n = 0; n < 2; n++) {
        struct jit_fetched_set *s = set_of(c, n);
        struct jit_fetched *at = find(s, lin & PAGE_MASK);
        if (s->is_full || (at->host && !is_there(c, at, n)))
            return false;
    }
    return true;
}

void jit_fetched_clear(struct x86_vcpu *c, bool is_global)
{
    struct jit_fetched_set *s = set_of(c, is_global);

    if (s->count || s->is_full)
        memset(s, 0, sizeof *s);
}
