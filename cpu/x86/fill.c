/*
 * Filling the data TLBs, and their size. Interface: mmu_internal.h, and
 * x86_tlb_refill in mmu.h.
 *
 * A table begins small, because what is touched should fit in the host's caches,
 * and doubles when entries often make room for others; tlb.c halves it when
 * flushes find it nearly empty. Sizes follow from the accesses alone, so that
 * deterministic machines repeat them.
 *
 * Threading: the owner's thread only.
 */
#include <stdatomic.h>

#include "cpu/x86/apic_internal.h"
#include "cpu/x86/mmu_internal.h"

bool x86_host_to_block(struct x86_vcpu *c, const void *host, struct ram_block **block,
                       uint64_t *offset)
{
    for (struct ram_block *b = c->vm->ram_blocks; b; b = b->next) {
        uint64_t o = (uint64_t)((const uint8_t *)host - b->host);
        if (o < b->bytes) {
            *block = b;
            *offset = o;
            return true;
        }
    }
    return false;
}

/* ---- size ---- */

/* Doubles the table: each entry stays, or goes as far up as the table was long,
 * where nothing is. */
static void tlb_grow(struct x86_vcpu *c, struct tlb *t)
{
    unsigned kept = 0;

    t->index_mask = t->index_mask * 2 + (1u << TLB_ENTRY_SHIFT);
    t->evicted = 0;
    /* The last page's place is another one now: see x86_mmu_create. */
    t->table[tlb_entries(t) - 1] = (struct tlb_entry){.read = NO_PAGE, .write = NO_PAGE};
    for (unsigned n = 0; n < t->filled_count; n++) {
        unsigned from = t->filled[n], to;
        struct tlb_entry *e = &t->table[from];

        if (e->read == NO_PAGE) { /* invalidated since */
            e->flags = 0;
            continue;
        }
        to = tlb_index(t, e->flags & PAGE_MASK);
        if (to != from) {
            t->table[to] = *e;
            *e = (struct tlb_entry){.read = NO_PAGE, .write = NO_PAGE};
        }
        t->filled[kept++] = (uint16_t)to;
    }
    t->filled_count = kept;
    if (c->tlb == t)
        c->tlb_index_mask = t->index_mask;
}

/* A valid entry is about to make room. */
static void note_eviction(struct x86_vcpu *c, struct tlb *t)
{
    if (++t->evicted >= tlb_entries(t) / 2 && tlb_entries(t) < TLB_MAX_ENTRIES)
        tlb_grow(c, t);
}

/* ---- filling ---- */

enum fill_result tlb_fill(struct x86_vcpu *c, enum tlb_class class, gva_t gva,
                          enum x86_access access, bool far, gpa_t *gpa, uint8_t **host,
                          uint32_t *error)
{
    struct tlb_slot *slot = &c->mmu->slot[c->mmu->current];
    struct tlb *t = &slot->tlb[class];
    uint64_t page = gva & PAGE_MASK, addend;
    bool user = class == TLB_USER;
    bool ac = class == TLB_SUPERVISOR_AC;
    uint64_t bytes = UINT64_MAX, offset = 0;
    const struct phys_range *range;
    struct ram_block *block = NULL;
    struct tlb_entry *e;
    struct walk w;
    uint32_t unused;
    unsigned index;
    uint8_t *p;
    bool writable;

    switch (walk_access(c, gva, access, user, ac, far, &w, error)) {
    case WALK_OK:
        break;
    case WALK_FAULT:
        return FILL_FAULT;
    default:
        return FILL_FAR;
    }
    *gpa = w.gpa;
    if (apic_page_is(c->lapic, w.gpa))
        return FILL_BUS;
    range = phys_range(c, w.gpa & PAGE_MASK);
    writable = range;
    if (likely(range)) {
        uint64_t at = (w.gpa & PAGE_MASK) - range->base;
        p = range->host + at;
        block = range->block;
        offset = range->offset + at;
    } else {
        p = as_map(&c->vm->memory, w.gpa & PAGE_MASK, &bytes, false, &block, &offset);
        if (!p || bytes < PAGE_SIZE)
            return FILL_BUS;
    }

    addend = (uint64_t)p - page;
    e = &t->table[tlb_index(t, gva)];
    if ((e->flags & TLBE_FILLED) && e->read != NO_PAGE) {
        if (c->vm->deterministic && (e->read != page || e->addend != addend))
            tlb_tell_dropped(c, true);
        if (e->read != page)
            note_eviction(c, t);
    }
    index = tlb_index(t, gva);
    e = &t->table[index];
    if (!(e->flags & TLBE_FILLED))
        t->filled[t->filled_count++] = (uint16_t)index;
    e->flags = page | TLBE_FILLED | (w.global ? TLBE_GLOBAL : 0);
    e->addend = addend;
    e->read = page;
    e->write = NO_PAGE;
    if (writable && w.dirty && walk_allows(c, &w, ACCESS_WRITE, user, ac, &unused)) {
        if (atomic_load_explicit(&block->code_lines[offset >> 12], memory_order_relaxed))
            e->flags |= TLBE_CODE;
        else if (access == ACCESS_WRITE || ram_log_allows_stores(block, offset))
            e->write = page;
        if (access == ACCESS_WRITE)
            ram_log_note(block, offset);
    }
    /* A write-only right does not exist; but with protection keys a page can
     * be unreadable only altogether, so readable holds whenever we get here. */
    if (w.shift > 12) {
        e->flags |= 1u << (TLBE_SIZE_BIT + page_size_index(w.shift));
        page_set_add(&slot->large, gva, w.shift);
    }
    if (w.global)
        page_set_add(&slot->global, gva, w.shift);
    if (access == ACCESS_WRITE && !writable)
        return FILL_BUS; /* ROM: the bus decides */
    *host = p + (gva & ~PAGE_MASK);
    return FILL_DIRECT;
}

bool x86_tlb_refill(struct x86_vcpu *c, gva_t lin, bool write)
{
    const struct tlb_entry *e = tlb_slot(c, lin);
    uint64_t page = lin & PAGE_MASK;
    uint32_t error;
    uint8_t *host;
    gpa_t gpa;

    /* What raises or reports before or after a translation. */
    if ((c->s.dr7 & 0xff) || (c->s.cpl == 3 && (c->s.cr0 & CR0_AM) && (c->s.rflags & FLAG_AC)))
        return false;
    if (x86_64bit_mode(&c->s)) {
        /* In the last page before the hole an operand may reach into it. */
        if (!x86_is_canonical(c, lin) || !x86_is_canonical(c, page + PAGE_SIZE))
            return false;
    } else if (lin >> 32) {
        return false;
    }
    if (e->read == page && (!write || (e->flags & TLBE_CODE)))
        return !write;
    if (tlb_fill(c, c->tlb_class, lin, write ? ACCESS_WRITE : ACCESS_READ, false, &gpa, &host,
                 &error) != FILL_DIRECT)
        return false;
    return !write || tlb_slot(c, lin)->write == page;
}
