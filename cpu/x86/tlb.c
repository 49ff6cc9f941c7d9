/*
 * The translation look-aside buffers: their life, invalidation (SDM Vol. 3,
 * 4.10) and the choice of the one in use. Filling is in fill.c.
 *
 * A data TLB exists for each of a few recently used PCIDs ("slots") and for
 * each class of permissions (user, supervisor, supervisor with AC), so that
 * changes of ring, of AC and of CR3 swap a pointer.
 *
 * An engine that remembers translations is told what it must forget: of the
 * current slot at once, of others when they become current. What it may know of
 * is more than what is in the buffers, because entries make room for others.
 *
 * Threading: the owner's.
 */
#include <stdatomic.h>

#include "cpu/x86/fault.h"
#include "cpu/x86/mmu_internal.h"

/* ---- life ---- */

#define TABLE_BYTES (TLB_MAX_ENTRIES << TLB_ENTRY_SHIFT)
#define LIST_BYTES (TLB_MAX_ENTRIES * sizeof(uint16_t))
#define TABLES (TLB_PCID_SLOTS * TLB_CLASSES)

static void tlb_clear_entry(struct tlb_entry *e)
{
    e->read = e->write = NO_PAGE;
    e->addend = e->flags = 0;
}

static void tlb_set_entries(struct tlb *t, unsigned entries)
{
    t->index_mask = (uint64_t)(entries - 1) << TLB_ENTRY_SHIFT;
    t->evicted = t->idle = 0;
}

/*
 * Entries that nothing has touched are zero, which reads as page 0: so the places
 * where page 0 is looked for are cleared by hand. They are two: its own, and that
 * of the last page, because an access which begins there and goes around the end
 * of the address space is found by its first byte and compared by its last.
 */
int x86_mmu_create(struct x86_vcpu *c, struct error *err)
{
    struct x86_mmu *m = host_pages_alloc(align_up(sizeof *m, PAGE_SIZE), false);
    uint8_t *tables;

    _Static_assert(sizeof(struct tlb_entry) == 1 << TLB_ENTRY_SHIFT, "TLB_ENTRY_SHIFT");
    _Static_assert(TLB_MAX_ENTRIES <= 65536, "tlb.filled is of 16 bits");
    if (!m)
        goto no_memory;
    c->mmu = m;
    m->tables = tables = host_pages_alloc(TABLES * (TABLE_BYTES + LIST_BYTES), false);
    if (!tables)
        goto no_memory;
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++) {
        for (unsigned k = 0; k < TLB_CLASSES; k++) {
            struct tlb *t = &m->slot[s].tlb[k];
            t->table = (struct tlb_entry *)tables;
            t->filled = (uint16_t *)(tables + TABLE_BYTES);
            tables += TABLE_BYTES + LIST_BYTES;
            tlb_clear_entry(&t->table[0]);
            tlb_clear_entry(&t->table[TLB_MIN_ENTRIES - 1]);
            tlb_set_entries(t, TLB_MIN_ENTRIES);
        }
        m->slot[s].itlb.entry[0].tag = ITLB_NONE;
        m->slot[s].walks.generation = 1; /* memory that was never touched has none */
        m->slot[s].pcid = s ? PCID_NONE : 0;
    }
    x86_tlb_select(c);
    return 0;
no_memory:
    x86_mmu_destroy(c);
    return error_set(err, -12, "out of memory for a processor's translations");
}

void x86_mmu_destroy(struct x86_vcpu *c)
{
    if (!c->mmu)
        return;
    if (c->mmu->tables)
        host_pages_free(c->mmu->tables, TABLES * (TABLE_BYTES + LIST_BYTES));
    host_pages_free(c->mmu, align_up(sizeof *c->mmu, PAGE_SIZE));
    c->mmu = NULL;
}

/* ---- telling the engine ---- */

static void page_set_clear(struct page_set *s)
{
    if (!s->sizes)
        return;
    s->sizes = 0;
    for (unsigned n = 0; n < ARRAY_SIZE(s->bits); n++)
        s->bits[n] = 0;
}

static void tell_fetch_dropped(struct x86_vcpu *c, bool all, gva_t page, bool global_too)
{
    if (c->engine_ops && c->engine_ops->fetch_dropped)
        c->engine_ops->fetch_dropped(c, all, page, global_too);
}

/* What an engine has to hear of fetches that are void. */
struct void_fetches {
    bool local;  /* of the current slot */
    bool global; /* of any: engines may share these */
    bool large;  /* of a page, and more than 4 KiB of it */
    bool large_data; /* the page's data translations: more than 4 KiB, too */
};

/* Of slot s; what is only its own waits until it is current. */
static void fetches_void(struct x86_vcpu *c, struct tlb_slot *s, bool local, bool global,
                         struct void_fetches *v)
{
    v->global |= global;
    if (s == &c->mmu->slot[c->mmu->current])
        v->local |= local;
    else
        s->drop_pending |= local;
}

/* All fetches of these kinds are void, if there were any. */
static void fetches_dropped(struct x86_vcpu *c, struct tlb_slot *s, enum tlb_drop drop,
                            struct void_fetches *v)
{
    bool local = false, global = false;

    if (drop & DROP_NONGLOBAL) {
        local = s->fetched[KIND_NONGLOBAL].sizes;
        page_set_clear(&s->fetched[KIND_NONGLOBAL]);
        page_set_clear(&s->fetched_large[KIND_NONGLOBAL]);
    }
    if (drop & DROP_GLOBAL) {
        global = s->fetched[KIND_GLOBAL].sizes;
        page_set_clear(&s->fetched[KIND_GLOBAL]);
        page_set_clear(&s->fetched_large[KIND_GLOBAL]);
    }
    fetches_void(c, s, local, global, v);
}

/* Another slot is current. */
static void slot_switched(struct x86_vcpu *c)
{
    struct tlb_slot *s = &c->mmu->slot[c->mmu->current];

    x86_tlb_select(c);
    if (c->engine_ops && c->engine_ops->slot_switched)
        c->engine_ops->slot_switched(c, c->mmu->current);
    if (s->drop_pending) {
        s->drop_pending = false;
        tell_fetch_dropped(c, true, 0, false);
    }
    tlb_tell_dropped(c, false);
}

/* ---- invalidation ---- */

static bool drops_entry(enum tlb_drop drop, const struct tlb_entry *e)
{
    return drop & (e->flags & TLBE_GLOBAL ? DROP_GLOBAL : DROP_NONGLOBAL);
}

static void tlb_flush(struct x86_vcpu *c, struct tlb *t, enum tlb_drop drop)
{
    unsigned kept = 0, entries = tlb_entries(t);

    /* A table that flushes find nearly empty again and again gets smaller, and
     * does not keep what it could. */
    if (entries > TLB_MIN_ENTRIES && t->filled_count) {
        t->idle = t->filled_count < entries / 8 ? t->idle + 1 : 0;
        if (t->idle == 8)
            drop = DROP_ALL;
    }
    for (unsigned n = 0; n < t->filled_count; n++) {
        uint16_t index = t->filled[n];
        struct tlb_entry *e = &t->table[index];
        if (e->read == NO_PAGE || drops_entry(drop, e))
            tlb_clear_entry(e);
        else
            t->filled[kept++] = index;
    }
    t->filled_count = kept;
    t->evicted /= 2;
    if (t->idle == 8) {
        tlb_set_entries(t, entries / 2);
        if (c->tlb == t)
            c->tlb_index_mask = t->index_mask;
    }
}

static void itlb_flush(struct itlb *t, enum tlb_drop drop)
{
    unsigned kept = 0;

    for (unsigned n = 0; n < t->filled_count; n++) {
        struct itlb_entry *e = &t->entry[t->filled[n]];
        if (drop & (e->global ? DROP_GLOBAL : DROP_NONGLOBAL)) {
            e->tag = ITLB_NONE;
            e->listed = false;
        } else {
            t->filled[kept++] = t->filled[n];
        }
    }
    t->filled_count = kept;
}

static void slot_empty(struct x86_vcpu *c, struct tlb_slot *s, enum tlb_drop drop,
                       struct void_fetches *v)
{
    unsigned left = 0;

    for (unsigned k = 0; k < TLB_CLASSES; k++) {
        tlb_flush(c, &s->tlb[k], drop);
        left += s->tlb[k].filled_count;
    }
    if (!left) {
        page_set_clear(&s->large);
        page_set_clear(&s->global);
    }
    s->walks.generation++;
    itlb_flush(&s->itlb, drop);
    fetches_dropped(c, s, drop, v);
}

static void slot_flush(struct x86_vcpu *c, struct tlb_slot *s, enum tlb_drop drop)
{
    struct void_fetches v = {0};

    slot_empty(c, s, drop, &v);
    if (v.local || v.global)
        tell_fetch_dropped(c, true, 0, v.global);
    if (s == &c->mmu->slot[c->mmu->current])
        tlb_tell_dropped(c, drop & DROP_GLOBAL);
}

/* Told once, when all is done: an engine may look at the page tables, and keep
 * what it finds again. */
static void slots_flush(struct x86_vcpu *c, enum tlb_drop drop)
{
    struct void_fetches v = {0};

    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++)
        slot_empty(c, &c->mmu->slot[s], drop, &v);
    if (v.local || v.global)
        tell_fetch_dropped(c, true, 0, v.global);
    tlb_tell_dropped(c, drop & DROP_GLOBAL);
}

/* Is gva in the large page that flags is a fragment of? */
static bool same_large_page(uint64_t flags, gva_t gva)
{
    for (unsigned n = 1; n < PAGE_SIZES; n++)
        if (flags & 1u << (TLBE_SIZE_BIT + n))
            return !((flags ^ gva) >> page_shifts[n]);
    return false;
}

/* Entries stay in the list of filled ones: harmless. */
static void tlb_drop_entry(struct tlb_entry *e)
{
    tlb_clear_entry(e);
    e->flags = TLBE_FILLED;
}

static void tlb_flush_page(struct tlb *t, gva_t gva, enum tlb_drop drop, bool large)
{
    struct tlb_entry *e = &t->table[tlb_index(t, gva)];

    if ((e->flags & TLBE_FILLED) && (e->flags & PAGE_MASK) == (gva & PAGE_MASK) &&
        e->read != NO_PAGE && drops_entry(drop, e))
        tlb_drop_entry(e);
    for (unsigned n = 0; large && n < t->filled_count; n++) {
        e = &t->table[t->filled[n]];
        if (e->read != NO_PAGE && drops_entry(drop, e) && same_large_page(e->flags, gva))
            tlb_drop_entry(e);
    }
}

static void itlb_drop_entry(struct itlb_entry *e, gva_t gva, unsigned shift, enum tlb_drop drop)
{
    if (e->listed && ((e->tag ^ gva) & PAGE_MASK) >> shift == 0 &&
        (drop & (e->global ? DROP_GLOBAL : DROP_NONGLOBAL)))
        e->tag = ITLB_NONE;
}

static void itlb_flush_page(struct itlb *t, gva_t gva, enum tlb_drop drop, bool large)
{
    itlb_drop_entry(itlb_slot(t, gva), gva, 12, drop);
    for (unsigned n = 0; large && n < t->filled_count; n++) {
        struct itlb_entry *e = &t->entry[t->filled[n]];
        itlb_drop_entry(e, gva, e->shift, drop);
    }
}

/* Fetches from that page are void, if there were any. */
static void slot_flush_fetches(struct x86_vcpu *c, struct tlb_slot *s, gva_t gva,
                               enum tlb_drop drop, struct void_fetches *v)
{
    bool local = false, large = false, global = false;

    for (unsigned k = 0; k < KINDS; k++) {
        if (drop & 1u << k) {
            bool of_page = page_set_has(&s->fetched[k], gva, 0);
            bool of_large = page_set_has_large(&s->fetched_large[k], gva);
            local |= k == KIND_NONGLOBAL && (of_page || of_large);
            global |= k == KIND_GLOBAL && (of_page || of_large);
            large |= of_large;
        }
    }
    if (!local && !global)
        return;
    itlb_flush_page(&s->itlb, gva, drop, large);
    v->large |= large;
    fetches_void(c, s, local, global, v);
}

/* Fragments of one large page go together (SDM Vol. 3, 4.10.2.3). */
static void slot_flush_page(struct x86_vcpu *c, struct tlb_slot *s, gva_t gva, enum tlb_drop drop,
                            struct void_fetches *v)
{
    bool large = page_set_has_large(&s->large, gva);

    v->large_data |= large;
    for (unsigned k = 0; k < TLB_CLASSES; k++)
        tlb_flush_page(&s->tlb[k], gva, drop, large);
    slot_flush_fetches(c, s, gva, drop, v);
    /* All paging-structure caches of the PCID (4.10.4.1). */
    s->walks.generation++;
}

static void tell_page_dropped(struct x86_vcpu *c, gva_t gva, const struct void_fetches *v)
{
    if (v->local || v->global)
        tell_fetch_dropped(c, v->large, gva & PAGE_MASK, v->global);
    if (v->large_data)
        tlb_tell_dropped(c, true);
    else if (c->engine_ops && c->engine_ops->tlb_page_dropped)
        c->engine_ops->tlb_page_dropped(c, gva & PAGE_MASK);
}

/* May a global translation of gva be in that slot? */
static bool has_global(const struct tlb_slot *s, gva_t gva)
{
    return page_set_has(&s->global, gva, 0) || page_set_has_large(&s->global, gva) ||
           page_set_has(&s->fetched[KIND_GLOBAL], gva, 0) ||
           page_set_has_large(&s->fetched_large[KIND_GLOBAL], gva);
}

void x86_tlb_flush_all(struct x86_vcpu *c)
{
    slots_flush(c, DROP_ALL);
    c->mmu->ranges[0].bytes = c->mmu->ranges[1].bytes = 0;
}

void x86_tlb_reset(struct x86_vcpu *c)
{
    bool other = c->mmu->current != 0;

    x86_tlb_flush_all(c);
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++) {
        for (unsigned k = 0; k < TLB_CLASSES; k++)
            tlb_set_entries(&c->mmu->slot[s].tlb[k], TLB_MIN_ENTRIES);
        c->mmu->slot[s].pcid = PCID_NONE;
        c->mmu->slot[s].used_at = 0;
    }
    c->mmu->stamp = 0;
    c->mmu->current = 0;
    c->mmu->slot[0].pcid = c->s.cr4 & CR4_PCIDE ? c->s.cr3 & 0xfff : 0;
    if (other)
        slot_switched(c);
    else
        x86_tlb_select(c);
}

void x86_tlb_flush_nonglobal(struct x86_vcpu *c)
{
    slot_flush(c, &c->mmu->slot[c->mmu->current], DROP_NONGLOBAL);
}

void x86_tlb_flush_all_nonglobal(struct x86_vcpu *c)
{
    slots_flush(c, DROP_NONGLOBAL);
}

void x86_tlb_flush_page(struct x86_vcpu *c, gva_t gva)
{
    struct void_fetches v = {0};

    /* INVLPG also takes global translations of other PCIDs (4.10.4.1). */
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++) {
        struct tlb_slot *slot = &c->mmu->slot[s];
        if (s == c->mmu->current)
            slot_flush_page(c, slot, gva, DROP_ALL, &v);
        else if (has_global(slot, gva))
            slot_flush_page(c, slot, gva, DROP_GLOBAL, &v);
    }
    tell_page_dropped(c, gva, &v);
}

void x86_tlb_flush_pcid(struct x86_vcpu *c, unsigned pcid, bool page_only, gva_t gva)
{
    for (unsigned s = 0; s < TLB_PCID_SLOTS; s++) {
        struct tlb_slot *slot = &c->mmu->slot[s];
        if (slot->pcid != pcid)
            continue;
        if (page_only) {
            struct void_fetches v = {0};
            slot_flush_page(c, slot, gva, DROP_NONGLOBAL, &v);
            if (s == c->mmu->current)
                tell_page_dropped(c, gva, &v);
        } else {
            slot_flush(c, slot, DROP_NONGLOBAL);
        }
    }
}

static void revoke(struct tlb_entry *e)
{
    e->write = NO_PAGE;
    e->flags |= TLBE_CODE;
}

void x86_tlb_revoke_writes(struct x86_vcpu *c)
{
    for (unsigned n = 0; n < TABLES; n++) {
        struct tlb *t = &c->mmu->slot[n / TLB_CLASSES].tlb[n % TLB_CLASSES];
        for (unsigned k = 0; k < t->filled_count; k++) {
            struct tlb_entry *e = &t->table[t->filled[k]];
            struct ram_block *block;
            uint64_t offset;
            if (e->write == NO_PAGE ||
                !x86_host_to_block(c, (const void *)(e->write + e->addend), &block, &offset))
                continue;
            if (atomic_load_explicit(&block->code_lines[offset >> 12], memory_order_relaxed))
                revoke(e);
            else if (unlikely(!ram_log_allows_stores(block, offset)))
                e->write = NO_PAGE;
        }
    }
    tlb_tell_dropped(c, true);
}

void x86_tlb_revoke_page(struct x86_vcpu *c, const uint8_t *host)
{
    for (unsigned n = 0; n < TABLES; n++) {
        struct tlb *t = &c->mmu->slot[n / TLB_CLASSES].tlb[n % TLB_CLASSES];
        for (unsigned k = 0; k < t->filled_count; k++) {
            struct tlb_entry *e = &t->table[t->filled[k]];
            /* NO_PAGE makes an odd sum. */
            if (unlikely(e->write + e->addend == (uint64_t)host))
                revoke(e);
        }
    }
    tlb_tell_dropped(c, true);
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
    c->tlb_table = c->tlb->table;
    c->tlb_index_mask = c->tlb->index_mask;
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
            slot_flush(c, &m->slot[s], DROP_ALL);
            m->slot[s].pcid = pcid;
        }
        m->current = s;
        slot_switched(c);
    }
    m->slot[m->current].used_at = ++m->stamp;
    if (!keep)
        slot_flush(c, &m->slot[m->current], DROP_NONGLOBAL);
}
