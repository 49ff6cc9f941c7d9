/*
 * L0 misses that the TLB does not know either, and stores to pages that hold
 * code.
 *
 * A page with code has no TLB entry for writing, so that no store to the code
 * goes unnoticed. Most such stores are beside it, to lines without code. Then
 * host code is given the address for this one store: jit_miss comes back behind
 * the check, with the addend, and no entry is made.
 *
 * With one processor nobody makes code between this look at the line and the
 * store. With more, who stores has to look again afterwards (docs/DESIGN.md,
 * "Code that changes"), unless the page is not settled: then who makes code
 * waits for all others to pass a safepoint after the lines are marked, and host
 * code passes none between our look and the store. So a page with many such
 * stores is unsettled again here, at the price of one rendezvous when the next
 * code is made of it.
 *
 * Why nothing is missed. U is what made the page unsettled, L our look at the
 * line after we found it unsettled, M a mark of the line, S how its maker finds
 * the page afterwards; all are sequentially consistent. Either M comes before L,
 * and we see it. Or L comes before M, and so U before S. If S finds the page
 * unsettled or settling, its maker waits for us, reads the bytes again, and we
 * see M from then on. If S finds it settled, then somebody settled it after U:
 * he first made it "settling", at which we would have gone the slow way, and
 * then waited for all who had found it unsettled before, us among them; so our
 * store was done before S, and the maker compares what he has with it. Only he
 * who began to settle ends it, so that nobody ends another's.
 *
 * Threading: the processor's own thread. May run with guest vector state in the
 * host's registers.
 */
#include "engine/jit/jit.h"

/* Stores the slow way after which a page is unsettled: it has to be worth a
 * rendezvous. */
#define MANY_STORES 256
#define LINE_BYTES 64

static struct jit_store_page *store_page(struct x86_vcpu *c, const uint8_t *host)
{
    struct jit *j = jit_of(c);
    const uint8_t *page = (const uint8_t *)((uint64_t)host & PAGE_MASK);
    struct jit_store_page *p = &j->store_pages[(uint64_t)page >> 12 & (JIT_STORE_PAGES - 1)];
    struct ram_block *block;
    uint64_t offset;

    if (p->host != page) {
        if (!x86_host_to_block(c, page, &block, &offset))
            return NULL;
        *p = (struct jit_store_page){.host = page,
                                     .block = block,
                                     .offset = offset,
                                     .lines = &block->code_lines[offset >> 12],
                                     .settled = &block->code_settled[offset >> 12]};
    }
    return p;
}

/* May the store to [at, at + last] of the page be done without a look afterwards? */
static bool is_beside_code(struct x86_vcpu *c, struct jit_store_page *p, uint64_t at, uint64_t last)
{
    uint64_t lines = BITS((at + last) / LINE_BYTES, at / LINE_BYTES);
    uint8_t settled = CODE_SETTLED;

    if (c->vm->vcpu_count == 1)
        return !(atomic_load_explicit(p->lines, memory_order_relaxed) & lines);
    if (atomic_load(p->settled) != CODE_UNSETTLED) {
        if ((atomic_load_explicit(p->lines, memory_order_relaxed) & lines) ||
            ++p->stores < MANY_STORES)
            return false;
        p->stores = 0;
        if (!atomic_compare_exchange_strong(p->settled, &settled, CODE_UNSETTLED))
            return false;
    }
    return !(atomic_load(p->lines) & lines);
}

enum jit_found jit_refill(struct x86_vcpu *c, uint64_t lin, uint64_t is_write, uint64_t last)
{
    struct jit *j = jit_of(c);
    struct jit_store_page *p;
    struct tlb_entry *e;

    j->stats.refills++;
    if (x86_tlb_refill(c, lin, is_write))
        return FOUND_IN_TLB;
    e = tlb_slot(c, lin);
    if (!is_write || e->read != (lin & PAGE_MASK) || !(e->flags & TLBE_CODE) || !jit_allowed(c) ||
        !(p = store_page(c, (const uint8_t *)(lin + e->addend))))
        return FOUND_NOTHING;
    ram_log_note(p->block, p->offset); /* who looks at it waits for our store */
    if (!atomic_load(p->lines)) {
        /* Its code is gone. As when an entry is filled: who marks it next sees to it
         * that we hear of it before he counts on the mark. */
        e->write = e->read;
        e->flags &= ~(uint64_t)TLBE_CODE;
        return FOUND_IN_TLB;
    }
    if (!is_beside_code(c, p, lin & ~PAGE_MASK, last))
        return FOUND_NOTHING;
    j->once_addend = e->addend;
    j->stats.stores_beside++;
    return FOUND_ONCE;
}
