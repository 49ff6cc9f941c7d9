/*
 * Marks of lines with code: see marks.h.
 *
 * With several processors a mark stays when code goes, because others may have
 * code of the line, too. Then memory that held code once, a program's that has
 * ended, a kernel's that was needed at the start, would be slow to store to for
 * ever: each store is a call and a message to all. So the processor that finds
 * itself hitting marks of a page runs alone for a moment, looks at what all have
 * of it, and leaves the marks that somebody needs.
 *
 * Why nothing is missed. Whoever made code is outside now, so either his code is
 * in his tables and counts; or he is waiting for others between mark and code,
 * and begins anew (marks_set says so by its answer). Code that its owner was told
 * of is dead: he executes none of it before he listens, which is at the next
 * boundary. The page becomes unsettled before marks go, so whoever marks it next
 * waits for all who store to it meanwhile without a look; if somebody is just
 * settling it, he would not, and all stays as it is.
 *
 * Stores of devices look at marks from other threads: they see a mark and tell, or
 * see none, and then there was no code to tell of, or its owner has been told.
 */
#include "engine/interp/marks.h"

#include <stdatomic.h>

#include "cpu/x86/vec/vec.h"
#include "engine/interp/cache.h"

#define LINE_BYTES 64
#define MANY_HITS 16 /* lines of a page, until it is looked at; then twice as many */

uint64_t marks_bits(uint64_t offset, uint64_t bytes)
{
    unsigned first = (unsigned)((offset & ~PAGE_MASK) / LINE_BYTES);
    unsigned last = (unsigned)(((offset & ~PAGE_MASK) + bytes - 1) / LINE_BYTES);

    return BITS(last, first);
}

bool marks_set(struct x86_vcpu *c, struct ram_block *ram, uint64_t offset, uint64_t bytes)
{
    uint64_t bits = marks_bits(offset, bytes), before;
    _Atomic uint64_t *word = &ram->code_lines[offset >> 12];
    _Atomic uint8_t *settled = &ram->code_settled[offset >> 12];
    bool alone = c->vm->vcpu_count == 1, mine;
    uint8_t found;

    /* Sequentially consistent, all of it: who fills a TLB entry for writing
     * loads the word, and either sees the mark or is found by the rendezvous
     * below. Who stores to a settled page looks at the word afterwards, and
     * either sees the mark or has stored before our caller compares. */
    before = atomic_load(word);
    if ((before & bits) != bits)
        before = atomic_fetch_or(word, bits);
    found = alone ? CODE_SETTLED : atomic_load(settled);
    if (!before || found != CODE_SETTLED)
        x86_tlb_revoke_page(c, ram->host + align_down(offset, PAGE_SIZE));
    if (found == CODE_SETTLED)
        return true;
    /* Marks of another processor do not help as long as it has not told
     * everybody: then some still store unnoticed, we ourselves among them. So
     * each tells everybody, and who was first settles the page for all. It may
     * be unsettled again later: engine/jit/store.c. */
    found = CODE_UNSETTLED;
    mine = atomic_compare_exchange_strong(settled, &found, CODE_SETTLING);
    vcpu_rendezvous(&c->vcpu, EVENT_REVOKE);
    if (mine)
        atomic_store(settled, CODE_SETTLED);
    return false;
}

void marks_code_gone(struct x86_vcpu *c, struct ram_block *block, uint64_t page_offset)
{
    if (c->vm->vcpu_count == 1)
        atomic_store_explicit(&block->code_lines[page_offset >> 12],
                              cache_page_lines(c, block, page_offset, NULL),
                              memory_order_relaxed);
}

/* ---- with several processors ---- */

void marks_hit(struct x86_vcpu *c, struct marks *m, struct ram_block *block, uint64_t offset,
               uint64_t bytes)
{
    uint64_t page = align_down(offset, PAGE_SIZE);
    struct marks_page *p = &m->page[(page >> 12) % HIT_PAGES];

    if (p->block != block || p->page != page)
        *p = (struct marks_page){.block = block, .page = page, .limit = MANY_HITS};
    p->hits += 1 + bytes / LINE_BYTES;
    if (p->hits < p->limit)
        return;
    p->limit *= 2;
    m->wanted = p;
    vcpu_post(&c->vcpu, EVENT_CODE); /* nothing but a reason to go to the loop */
}

/* Of all processors; none but this one is inside. */
static uint64_t lines_of_all(struct x86_vcpu *c, struct ram_block *block, uint64_t page)
{
    struct told_code told;
    uint64_t lines = 0;

    vec_leave(c);
    for (unsigned n = 0; n < c->vm->vcpu_count; n++) {
        struct vcpu *v = c->vm->vcpus[n];
        told.count = vcpu_code_told(v, told.range);
        if (told.count <= VCPU_CODE_RANGES) /* else everything */
            lines |= cache_page_lines(v->self, block, page, &told);
    }
    return lines;
}

void marks_tidy(struct x86_vcpu *c, struct marks *m)
{
    struct marks_page *p = m->wanted;
    _Atomic uint64_t *word;
    _Atomic uint8_t *settled;
    uint64_t before, lines;

    if (likely(!p))
        return;
    m->wanted = NULL;
    m->tried++;
    word = &p->block->code_lines[p->page >> 12];
    settled = &p->block->code_settled[p->page >> 12];
    vcpu_exclusive_begin(&c->vcpu);
    before = atomic_load(word);
    lines = before & lines_of_all(c, p->block, p->page);
    if (lines != before && atomic_load(settled) != CODE_SETTLING) {
        atomic_store(settled, CODE_UNSETTLED);
        atomic_store(word, lines);
        for (uint64_t gone = before & ~lines; gone; gone &= gone - 1)
            m->taken_back++;
        p->hits = 0;
        p->limit = MANY_HITS;
    }
    vcpu_exclusive_end(&c->vcpu);
}
