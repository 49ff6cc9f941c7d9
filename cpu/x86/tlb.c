/*
 * The translation look-aside buffers: their life, invalidation (SDM Vol. 3,
 * 4.10) and the choice of the one in use.
 *
 * A data TLB exists for each of a few recently used PCIDs ("slots") and for
 * each class of permissions (user, supervisor, supervisor with AC), so that
 * changes of ring, of AC and of CR3 swap a pointer. Threading: the owner's.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "cpu/x86/fault.h"
#include "cpu/x86/mmu_internal.h"

/* ---- life and invalidation ---- */

static void tlb_clear_entry(struct tlb_entry *e)
{
    e->read = e->write = NO_PAGE;
    e->addend = e->flags = 0;
}

static void tlb_init(struct tlb *t)
{
    for (unsigned n = 0; n < TLB_ENTRIES; n++)
        tlb_clear_entry(&t->entry[n]);
    t->filled_count = 0;
    t->large_base = 0;
    t->large_mask = 0;
}

static void itlb_init(struct itlb *t)
{
    for (unsigned n = 0; n < ITLB_ENTRIES; n++)
        t->entry[n].tag = ITLB_NONE;
    t->any = false;
}

int x86_mmu_create(struct x86_vcpu *c, struct error *err)
{
    struct x86_mmu *m = host_pages_alloc(align_up(sizeof *m, PAGE_SIZE), false);

    if (!m)
        return error_set(err, -12, "out of memory for a processor's translations");
    c->mmu = m;
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++) {
        for (unsigned k = 0; k < TLB_CLASSES; k++)
            tlb_init(&m->slot[s].tlb[k]);
        itlb_init(&m->slot[s].itlb);
        m->slot[s].pcid = s ? PCID_NONE : 0;
    }
    c->tlb = &m->slot[0].tlb[TLB_SUPERVISOR_AC];
    return 0;
}

void x86_mmu_destroy(struct x86_vcpu *c)
{
    if (c->mmu)
        host_pages_free(c->mmu, align_up(sizeof *c->mmu, PAGE_SIZE));
    c->mmu = NULL;
}

static void tlb_flush(struct tlb *t, bool keep_global)
{
    unsigned kept = 0;

    for (unsigned n = 0; n < t->filled_count; n++) {
        uint16_t index = t->filled[n];
        struct tlb_entry *e = &t->entry[index];
        if (keep_global && (e->flags & TLBE_GLOBAL))
            t->filled[kept++] = index;
        else
            tlb_clear_entry(e);
    }
    t->filled_count = kept;
    if (!keep_global || !kept)
        t->large_mask = t->large_base = 0;
}

static void itlb_flush(struct itlb *t, bool keep_global)
{
    if (!t->any)
        return;
    for (unsigned n = 0; n < ITLB_ENTRIES; n++)
        if (!keep_global || !t->entry[n].global)
            t->entry[n].tag = ITLB_NONE;
    t->any = keep_global;
}

static void slot_flush(struct tlb_slot *s, bool keep_global)
{
    for (unsigned k = 0; k < TLB_CLASSES; k++)
        tlb_flush(&s->tlb[k], keep_global);
    itlb_flush(&s->itlb, keep_global);
}

static void tlb_flush_page(struct tlb *t, gva_t gva, bool keep_global)
{
    struct tlb_entry *e = &t->entry[gva >> 12 & (TLB_ENTRIES - 1)];

    /* Fragments of one large page go together (SDM Vol. 3, 4.10.2.3). */
    if (t->large_mask && ((gva ^ t->large_base) & t->large_mask) == 0) {
        tlb_flush(t, keep_global);
        return;
    }
    if ((e->flags & TLBE_FILLED) && (e->flags & PAGE_MASK) == (gva & PAGE_MASK) &&
        !(keep_global && (e->flags & TLBE_GLOBAL))) {
        /* Stays in the list of filled entries: harmless. */
        tlb_clear_entry(e);
        e->flags = TLBE_FILLED;
    }
}

static void slot_flush_page(struct tlb_slot *s, gva_t gva, bool keep_global)
{
    for (unsigned k = 0; k < TLB_CLASSES; k++)
        tlb_flush_page(&s->tlb[k], gva, keep_global);
    if (s->itlb.large)
        itlb_flush(&s->itlb, keep_global);
    else {
        struct itlb_entry *e = itlb_slot(&s->itlb, gva);
        if ((e->tag & PAGE_MASK) == (gva & PAGE_MASK) && !(keep_global && e->global))
            e->tag = ITLB_NONE;
    }
}

void x86_tlb_flush_all(struct x86_vcpu *c)
{
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++)
        slot_flush(&c->mmu->slot[s], false);
    c->mmu->last_range.bytes = 0;
}

void x86_tlb_reset(struct x86_vcpu *c)
{
    x86_tlb_flush_all(c);
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++) {
        c->mmu->slot[s].pcid = PCID_NONE;
        c->mmu->slot[s].used_at = 0;
    }
    c->mmu->stamp = 0;
    c->mmu->current = 0;
    c->mmu->slot[0].pcid = c->s.cr4 & CR4_PCIDE ? c->s.cr3 & 0xfff : 0;
    x86_tlb_select(c);
}

void x86_tlb_flush_nonglobal(struct x86_vcpu *c)
{
    slot_flush(&c->mmu->slot[c->mmu->current], true);
}

void x86_tlb_flush_all_nonglobal(struct x86_vcpu *c)
{
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++)
        slot_flush(&c->mmu->slot[s], true);
}

void x86_tlb_flush_page(struct x86_vcpu *c, gva_t gva)
{
    /* INVLPG also takes global translations of other PCIDs (4.10.4.1). */
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++)
        slot_flush_page(&c->mmu->slot[s], gva, false);
}

void x86_tlb_flush_pcid(struct x86_vcpu *c, unsigned pcid, bool page_only, gva_t gva)
{
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++) {
        struct tlb_slot *slot = &c->mmu->slot[s];
        if (slot->pcid != pcid)
            continue;
        if (page_only)
            slot_flush_page(slot, gva, true);
        else
            slot_flush(slot, true);
    }
}

void x86_tlb_revoke_writes(struct x86_vcpu *c)
{
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++) {
        for (unsigned k = 0; k < TLB_CLASSES; k++) {
            struct tlb *t = &c->mmu->slot[s].tlb[k];
            for (unsigned n = 0; n < t->filled_count; n++) {
                struct tlb_entry *e = &t->entry[t->filled[n]];
                if (e->write != NO_PAGE) {
                    const void *host = (const void *)(e->write + e->addend);
                    struct ram_block *block;
                    uint64_t offset;
                    if (x86_host_to_block(c, host, &block, &offset) &&
                        atomic_load_explicit(&block->code_lines[offset >> 12],
                                             memory_order_relaxed)) {
                        e->write = NO_PAGE;
                        e->flags |= TLBE_CODE;
                    }
                }
            }
        }
    }
}

void x86_pkru_changed(struct x86_vcpu *c)
{
    if (c->s.cr4 & CR4_PKE)
        x86_tlb_flush_all(c);
}

/* ---- slots ---- */

void x86_tlb_select(struct x86_vcpu *c)
{
    if (c->s.cpl == 3)
        c->tlb_class = TLB_USER;
    else if ((c->s.rflags & FLAG_AC) || !(c->s.cr4 & CR4_SMAP))
        c->tlb_class = TLB_SUPERVISOR_AC;
    else
        c->tlb_class = TLB_SUPERVISOR;
    c->tlb = &c->mmu->slot[c->mmu->current].tlb[c->tlb_class];
}

void x86_load_cr3(struct x86_vcpu *c, uint64_t value)
{
    struct x86_mmu *m = c->mmu;
    bool pcide = c->s.cr4 & CR4_PCIDE;
    bool keep = pcide && (value >> 63);
    unsigned pcid = pcide ? value & 0xfff : 0;

    value &= ~(1ull << 63);
    if (!x86_load_pdptes(c, value, c->s.cr0, c->s.cr4, c->s.efer))
        x86_raise_error(c, VEC_GP, 0);
    c->s.cr3 = value;
    if (m->slot[m->current].pcid != pcid) {
        unsigned victim = 0, s;
        for (s = 0; s < TLB_PCID_SLOTS; s++)
            if (m->slot[s].pcid == pcid)
                break;
        if (s == TLB_PCID_SLOTS) {
            for (unsigned n = 1; n < TLB_PCID_SLOTS; n++)
                if (m->slot[n].used_at < m->slot[victim].used_at)
                    victim = n;
            s = victim;
            slot_flush(&m->slot[s], false);
            m->slot[s].pcid = pcid;
        }
        m->current = s;
    }
    m->slot[m->current].used_at = ++m->stamp;
    if (!keep)
        slot_flush(&m->slot[m->current], true);
    x86_tlb_select(c);
}
