/*
 * Paging and the translation look-aside buffers (SDM Vol. 3, chapter 4).
 *
 * A data TLB exists for each of a few recently used PCIDs ("slots") and for
 * each class of permissions (user, supervisor, supervisor with AC), so that
 * changes of ring, of AC and of CR3 swap a pointer. An entry is made by
 * x86_walk and holds exactly what the walk allowed; whatever the fast path in
 * mmu.h must not do alone (devices, stores to pages that hold cached code,
 * accesses across pages, alignment checks, breakpoints) misses there and ends
 * in the slow functions here.
 *
 * Threading: the owner's thread only.
 */
#include "cpu/x86/mmu.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "cpu/x86/apic.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/mmu_internal.h"

#define NO_PAGE 1ull /* no page address is odd */

enum pte_bits {
    PTE_P = 1 << 0,
    PTE_W = 1 << 1,
    PTE_U = 1 << 2,
    PTE_A = 1 << 5,
    PTE_D = 1 << 6,
    PTE_PS = 1 << 7,
    PTE_G = 1 << 8,
};
#define PTE_NX (1ull << 63)

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
    for (unsigned s = 1; s < TLB_PCID_SLOTS; s++)
        c->mmu->slot[s].pcid = PCID_NONE;
    c->mmu->current = 0;
    c->mmu->slot[0].pcid = c->s.cr4 & CR4_PCIDE ? c->s.cr3 & 0xfff : 0;
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

/* ---- physical memory ---- */

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

/* The host address of guest-physical memory that is plain RAM or ROM up to the
 * end of its page; NULL for everything else. */
static uint8_t *phys_pointer(struct x86_vcpu *c, gpa_t gpa, bool write)
{
    struct phys_range *r = &c->mmu->last_range;
    uint64_t bytes = UINT64_MAX, offset;
    struct ram_block *block;
    uint8_t *p;

    if (likely(gpa - r->base < r->bytes))
        return r->host + (gpa - r->base);
    p = as_map(&c->vm->memory, gpa, &bytes, write, &block, &offset);
    if (!p)
        return NULL;
    if (write && bytes >= PAGE_SIZE) { /* plain RAM: remember the run */
        r->base = gpa;
        r->host = p;
        r->bytes = bytes;
    }
    return p;
}

static uint64_t phys_read(struct x86_vcpu *c, gpa_t gpa, unsigned size)
{
    uint64_t v = ~0ull;
    const uint8_t *p = phys_pointer(c, gpa, true);

    if (likely(p)) {
        if (size == 8)
            return atomic_load_explicit((const _Atomic uint64_t *)p, memory_order_relaxed);
        return atomic_load_explicit((const _Atomic uint32_t *)p, memory_order_relaxed);
    }
    as_load(&c->vm->memory, gpa, size, &v);
    return zext(v, size);
}

/* Sets bits of a paging-structure entry if it is still what the walk saw
 * (SDM Vol. 3, 4.8: accessed and dirty are set with a locked operation). */
static bool phys_set_bits(struct x86_vcpu *c, gpa_t gpa, unsigned size, uint64_t seen,
                          uint64_t bits)
{
    uint8_t *p = phys_pointer(c, gpa, true);
    struct ram_block *block;
    uint64_t offset;
    bool done;

    if (!p) {
        uint64_t v = 0;
        as_load(&c->vm->memory, gpa, size, &v);
        as_store(&c->vm->memory, gpa, size, zext(v, size) | bits);
        return true;
    }
    if (size == 8) {
        done = atomic_compare_exchange_strong((_Atomic uint64_t *)p, &seen, seen | bits);
    } else {
        uint32_t seen32 = (uint32_t)seen;
        done = atomic_compare_exchange_strong((_Atomic uint32_t *)p, &seen32,
                                              seen32 | (uint32_t)bits);
    }
    /* Paging structures that are also code: absurd, but then it is stale. */
    if (done && x86_host_to_block(c, p, &block, &offset) &&
        unlikely(atomic_load_explicit(&block->code_lines[offset >> 12], memory_order_relaxed)))
        x86_code_stored(c, block, offset, size);
    return done;
}

/* ---- the walk ---- */

/* What a walk found, for any access. */
struct walk {
    gpa_t gpa;       /* of the byte asked for */
    uint64_t bytes;  /* page size */
    bool w, u, x;    /* combined rights */
    bool global, dirty;
    uint8_t pkey;
    bool user_page;
};

static uint32_t walk_fault(const struct x86_vcpu *c, enum x86_access access, bool user,
                           uint32_t bits)
{
    bool nx = (c->s.efer & EFER_NXE) && (c->s.cr4 & CR4_PAE);

    if (access == ACCESS_WRITE)
        bits |= PF_W;
    if (user)
        bits |= PF_U;
    if (access == ACCESS_FETCH && (nx || (c->s.cr4 & CR4_SMEP)))
        bits |= PF_I;
    return bits;
}

/* Are the rights of the found page enough? (SDM Vol. 3, 4.6.1, 4.6.2) */
static bool walk_allows(const struct x86_vcpu *c, const struct walk *w, enum x86_access access,
                        bool user, bool ac, uint32_t *error)
{
    bool wp = c->s.cr0 & CR0_WP;
    bool ok;

    if (user) {
        ok = w->u && (access == ACCESS_READ || (access == ACCESS_WRITE && w->w) ||
                      (access == ACCESS_FETCH && w->x));
    } else {
        switch (access) {
        case ACCESS_FETCH:
            ok = w->x && !(w->u && (c->s.cr4 & CR4_SMEP));
            break;
        case ACCESS_WRITE:
            ok = (w->w || !wp) && !(w->u && (c->s.cr4 & CR4_SMAP) && !ac);
            break;
        default:
            ok = !(w->u && (c->s.cr4 & CR4_SMAP) && !ac);
            break;
        }
    }
    if (!ok) {
        *error = walk_fault(c, access, user, PF_P);
        /* A protection-key violation is reported along with others. */
    }
    if (w->u && access != ACCESS_FETCH && (c->s.cr4 & CR4_PKE) && x86_long_mode(&c->s)) {
        unsigned rights = c->s.x.pkru >> (w->pkey * 2) & 3;
        if ((rights & 1) || ((rights & 2) && access == ACCESS_WRITE && (user || wp))) {
            *error = walk_fault(c, access, user, PF_P | PF_PK);
            return false;
        }
    }
    return ok;
}

/* 32-bit paging (SDM Vol. 3, 4.3). */
static bool walk_32(struct x86_vcpu *c, gva_t gva, struct walk *w, gpa_t *leaf, uint64_t *entry,
                    gpa_t *upper, uint64_t *upper_entry, uint32_t *fault)
{
    gpa_t table = c->s.cr3 & 0xfffff000;
    gpa_t pde_gpa = table | (gva >> 22 & 0x3ff) << 2;
    uint32_t pde = (uint32_t)phys_read(c, pde_gpa, 4), pte;

    *upper = 0;
    if (!(pde & PTE_P))
        return false;
    w->w = pde & PTE_W;
    w->u = pde & PTE_U;
    w->x = true;
    w->pkey = 0;
    if ((pde & PTE_PS) && (c->s.cr4 & CR4_PSE)) {
        /* PSE-36: bits 13..20 are address bits 32..39; bit 21 is reserved. */
        unsigned wide = MIN(c->model->phys_bits, 40u);
        uint64_t high = (uint64_t)(pde >> 13 & 0xff) << 32;
        if ((pde & BIT(21)) || (high >> wide)) {
            *fault = PF_P | PF_RSVD;
            return false;
        }
        w->bytes = 4 * MiB;
        w->gpa = high | (pde & 0xffc00000) | (gva & 0x3fffff);
        *leaf = pde_gpa;
        *entry = pde;
        w->global = pde & PTE_G;
        w->dirty = pde & PTE_D;
        return true;
    }
    *upper = pde_gpa;
    *upper_entry = pde;
    *leaf = (pde & 0xfffff000) | (gva >> 12 & 0x3ff) << 2;
    pte = (uint32_t)phys_read(c, *leaf, 4);
    *entry = pte;
    if (!(pte & PTE_P))
        return false;
    w->w = w->w && (pte & PTE_W);
    w->u = w->u && (pte & PTE_U);
    w->bytes = PAGE_SIZE;
    w->gpa = (pte & 0xfffff000) | (gva & 0xfff);
    w->global = pte & PTE_G;
    w->dirty = pte & PTE_D;
    return true;
}

/* One walk without rights checks: 0 found, 1 fault (*fault: P/RSVD), with the
 * entries passed kept so that A and D can be set. */
struct walk_trail {
    unsigned count, size;
    gpa_t gpa[5];
    uint64_t entry[5];
};

static bool walk_tables(struct x86_vcpu *c, gva_t gva, struct walk *w, struct walk_trail *trail,
                        uint32_t *fault)
{
    bool nxe = c->s.efer & EFER_NXE;
    uint64_t phys_reserved = BITS(51, 0) & ~(BIT(c->model->phys_bits) - 1);
    uint64_t table;
    int level;

    *fault = 0;
    trail->count = 0;
    if (!(c->s.cr4 & CR4_PAE)) {
        gpa_t leaf = 0, upper = 0;
        uint64_t entry = 0, upper_entry = 0;
        trail->size = 4;
        if (!walk_32(c, gva, w, &leaf, &entry, &upper, &upper_entry, fault))
            return false;
        if (upper) {
            trail->gpa[trail->count] = upper;
            trail->entry[trail->count++] = upper_entry;
        }
        trail->gpa[trail->count] = leaf;
        trail->entry[trail->count++] = entry;
        return true;
    }
    trail->size = 8;
    w->w = w->u = w->x = true;
    if (!x86_long_mode(&c->s)) {
        uint64_t pdpte = c->s.pdpte[gva >> 30 & 3];
        if (!(pdpte & PTE_P))
            return false;
        table = pdpte & BITS(51, 12);
        level = 2;
        /* In PAE paging bits 62..52 of entries are reserved too. */
        phys_reserved |= BITS(62, 52);
    } else {
        table = c->s.cr3 & BITS(51, 12);
        level = c->s.cr4 & CR4_LA57 ? 5 : 4;
    }
    for (;; level--) {
        unsigned shift = 12 + 9 * (unsigned)(level - 1);
        gpa_t at = table | (gva >> shift & 0x1ff) << 3;
        uint64_t e = phys_read(c, at, 8);
        uint64_t reserved = phys_reserved | (nxe ? 0 : PTE_NX);

        if (!(e & PTE_P))
            return false;
        if (level >= 4)
            reserved |= PTE_PS;
        else if (level == 3 && (e & PTE_PS))
            reserved |= x86_model_has(c->model, X86_FEAT_GBPAGES) ? BITS(29, 13) : PTE_PS;
        else if (level == 2 && (e & PTE_PS))
            reserved |= BITS(20, 13);
        if (e & reserved) {
            *fault = PF_P | PF_RSVD;
            return false;
        }
        trail->gpa[trail->count] = at;
        trail->entry[trail->count++] = e;
        w->w = w->w && (e & PTE_W);
        w->u = w->u && (e & PTE_U);
        w->x = w->x && !(e & PTE_NX);
        if (level == 1 || ((e & PTE_PS) && level <= 3)) {
            w->bytes = 1ull << shift;
            w->gpa = (e & BITS(51, 12) & ~(w->bytes - 1)) | (gva & (w->bytes - 1));
            w->global = e & PTE_G;
            w->dirty = e & PTE_D;
            w->pkey = e >> 59 & 15;
            return true;
        }
        table = e & BITS(51, 12);
    }
}

/* Walk, check, set A and D. */
static bool walk_access(struct x86_vcpu *c, gva_t gva, enum x86_access access, bool user, bool ac,
                        struct walk *w, uint32_t *error)
{
    struct walk_trail trail;
    uint32_t fault;

    if (!(c->s.cr0 & CR0_PG)) {
        *w = (struct walk){.gpa = gva, .bytes = PAGE_SIZE, .w = true, .u = true, .x = true,
                           .dirty = true};
        return true;
    }
again:
    if (!walk_tables(c, gva, w, &trail, &fault)) {
        *error = walk_fault(c, access, user, fault);
        return false;
    }
    if (!walk_allows(c, w, access, user, ac, error))
        return false;
    for (unsigned n = 0; n < trail.count; n++) {
        bool leaf = n + 1 == trail.count;
        uint64_t want = PTE_A | (leaf && access == ACCESS_WRITE ? PTE_D : 0);
        if ((trail.entry[n] & want) != want &&
            !phys_set_bits(c, trail.gpa[n], trail.size, trail.entry[n], want))
            goto again; /* somebody changed it: look again */
    }
    if (access == ACCESS_WRITE)
        w->dirty = true;
    w->global = w->global && (c->s.cr4 & CR4_PGE);
    return true;
}

bool x86_walk(struct x86_vcpu *c, gva_t gva, enum x86_access access, bool user, gpa_t *gpa,
              uint32_t *error)
{
    struct walk w;
    bool ac = (c->s.rflags & FLAG_AC) != 0;

    if (!walk_access(c, gva, access, user, ac, &w, error))
        return false;
    *gpa = w.gpa;
    return true;
}

bool x86_walk_debug(struct x86_vcpu *c, gva_t gva, gpa_t *gpa)
{
    struct walk_trail trail;
    struct walk w;
    uint32_t fault;

    if (!(c->s.cr0 & CR0_PG)) {
        *gpa = gva;
        return true;
    }
    if (!walk_tables(c, gva, &w, &trail, &fault))
        return false;
    *gpa = w.gpa;
    return true;
}

size_t x86_debug_read(struct x86_vcpu *c, gva_t gva, void *buf, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        uint64_t run = UINT64_MAX, offset;
        struct ram_block *block;
        const uint8_t *p;
        gpa_t gpa;
        size_t n = MIN(bytes - done, PAGE_SIZE - ((gva + done) & ~PAGE_MASK));

        /* Memory only: looking at a device's registers would change it. */
        if (!x86_walk_debug(c, gva + done, &gpa))
            break;
        p = as_map(&c->vm->memory, gpa, &run, false, &block, &offset);
        if (!p)
            break;
        n = MIN(n, run);
        memcpy((uint8_t *)buf + done, p, n);
        done += n;
    }
    return done;
}

bool x86_load_pdptes(struct x86_vcpu *c, uint64_t cr3, uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    uint64_t pdpte[4];
    uint64_t reserved = BITS(63, 52) | (BITS(51, 0) & ~(BIT(c->model->phys_bits) - 1)) |
                        BITS(8, 5) | BITS(2, 1);

    if (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE) || (efer & EFER_LMA))
        return true;
    for (unsigned n = 0; n < 4; n++) {
        pdpte[n] = phys_read(c, (cr3 & 0xffffffe0) + n * 8, 8);
        if ((pdpte[n] & PTE_P) && (pdpte[n] & reserved))
            return false;
    }
    memcpy(c->s.pdpte, pdpte, sizeof pdpte);
    return true;
}

/* ---- filling the TLB ---- */

/*
 * Translates for a data access and fills the entry of class. Raises #PF.
 * *gpa is always set. Returns the host address if the page is memory that
 * this access may touch directly, else NULL.
 */
static uint8_t *tlb_fill(struct x86_vcpu *c, enum tlb_class class, gva_t gva,
                         enum x86_access access, gpa_t *gpa)
{
    struct tlb *t = &c->mmu->slot[c->mmu->current].tlb[class];
    unsigned index = gva >> 12 & (TLB_ENTRIES - 1);
    struct tlb_entry *e = &t->entry[index];
    bool user = class == TLB_USER;
    bool ac = class == TLB_SUPERVISOR_AC;
    uint64_t bytes = UINT64_MAX, offset = 0, page_gpa;
    struct ram_block *block = NULL;
    struct walk w;
    uint32_t error;
    uint8_t *host;
    bool writable;

    if (!walk_access(c, gva, access, user, ac, &w, &error))
        x86_raise_page_fault(c, gva, error);
    *gpa = w.gpa;
    page_gpa = w.gpa & PAGE_MASK;
    if (lapic_page_match(c->lapic, w.gpa))
        return NULL;
    host = as_map(&c->vm->memory, page_gpa, &bytes, true, &block, &offset);
    writable = host && bytes >= PAGE_SIZE;
    if (!writable) {
        bytes = UINT64_MAX;
        host = as_map(&c->vm->memory, page_gpa, &bytes, false, &block, &offset);
        if (!host || bytes < PAGE_SIZE)
            return NULL;
    }

    if (!(e->flags & TLBE_FILLED))
        t->filled[t->filled_count++] = (uint16_t)index;
    e->flags = (gva & PAGE_MASK) | TLBE_FILLED | (w.global ? TLBE_GLOBAL : 0);
    e->addend = (uint64_t)host - (gva & PAGE_MASK);
    e->read = gva & PAGE_MASK;
    e->write = NO_PAGE;
    if (writable && w.dirty && walk_allows(c, &w, ACCESS_WRITE, user, ac, &error)) {
        if (atomic_load_explicit(&block->code_lines[offset >> 12], memory_order_relaxed))
            e->flags |= TLBE_CODE;
        else
            e->write = gva & PAGE_MASK;
    }
    /* A write-only right does not exist; but with protection keys a page can
     * be unreadable only altogether, so readable holds whenever we get here. */
    if (w.bytes > PAGE_SIZE) {
        uint64_t mask = ~(w.bytes - 1);
        if (!t->large_mask) {
            t->large_base = gva & mask;
            t->large_mask = mask;
        } else {
            t->large_mask &= mask;
            while ((gva ^ t->large_base) & t->large_mask)
                t->large_mask <<= 1;
            t->large_base &= t->large_mask;
            if (!t->large_mask) /* everything: any INVLPG flushes */
                t->large_mask = 1ull << 63, t->large_base = gva & t->large_mask;
        }
    }
    if (access == ACCESS_WRITE && !writable)
        return NULL; /* ROM: the bus decides */
    return host + (gva & ~PAGE_MASK);
}

/* Where a data access by class goes: host memory, or NULL and *gpa. */
static uint8_t *translate(struct x86_vcpu *c, enum tlb_class class, gva_t gva,
                          enum x86_access access, gpa_t *gpa, bool *holds_code)
{
    struct tlb_entry *e =
        &c->mmu->slot[c->mmu->current].tlb[class].entry[gva >> 12 & (TLB_ENTRIES - 1)];
    uint64_t page = gva & PAGE_MASK;
    uint8_t *p;

    *holds_code = false;
    if (access == ACCESS_READ ? e->read == page : e->write == page)
        return (uint8_t *)(gva + e->addend);
    if (e->read == page && (e->flags & TLBE_CODE)) {
        *holds_code = true;
        return (uint8_t *)(gva + e->addend);
    }
    p = tlb_fill(c, class, gva, access, gpa);
    if (p && access == ACCESS_WRITE)
        *holds_code = e->flags & TLBE_CODE;
    return p;
}

/* ---- one access within a page ---- */

void x86_code_stored(struct x86_vcpu *c, struct ram_block *block, uint64_t offset, uint64_t bytes)
{
    c->engine_ops->code_written(c, block, offset, bytes);
    if (c->vm->vcpu_count > 1)
        vcpu_code_written(c->vm, &c->vcpu, block, offset, bytes);
}

static void note_stored(struct x86_vcpu *c, const uint8_t *p, unsigned bytes)
{
    struct ram_block *block;
    uint64_t offset;

    if (x86_host_to_block(c, p, &block, &offset))
        x86_code_stored(c, block, offset, bytes);
}

/* A device may have changed what the next instruction sees. */
static void after_device(struct x86_vcpu *c)
{
    if (unlikely(atomic_load_explicit(&c->vcpu.events, memory_order_relaxed)))
        c->engine_ops->end_block(c);
}

static uint64_t device_read(struct x86_vcpu *c, gpa_t gpa, unsigned bytes)
{
    uint64_t v = ~0ull;

    if (lapic_page_match(c->lapic, gpa)) {
        v = bytes == 8 ? lapic_mmio_read(c->lapic, gpa & 0xfff, 4)
                       : lapic_mmio_read(c->lapic, gpa & 0xfff, bytes);
    } else {
        as_load(&c->vm->memory, gpa, bytes, &v);
    }
    after_device(c);
    return zext(v, bytes);
}

static void device_write(struct x86_vcpu *c, gpa_t gpa, uint64_t v, unsigned bytes)
{
    if (lapic_page_match(c->lapic, gpa))
        lapic_mmio_write(c->lapic, gpa & 0xfff, (uint32_t)v, MIN(bytes, 4u));
    else
        as_store(&c->vm->memory, gpa, bytes, v);
    after_device(c);
}

/* bytes <= 8 within one page; not a power of two when part of a split. */
static uint64_t page_read(struct x86_vcpu *c, enum tlb_class class, gva_t gva, unsigned bytes)
{
    bool code;
    gpa_t gpa;
    const uint8_t *p = translate(c, class, gva, ACCESS_READ, &gpa, &code);
    uint64_t v = 0;

    if (likely(p)) {
        memcpy(&v, p, bytes);
        return v;
    }
    for (unsigned done = 0; done < bytes;) {
        unsigned n = 8;
        while (n > bytes - done)
            n /= 2;
        v |= device_read(c, gpa + done, n) << (done * 8);
        done += n;
    }
    return v;
}

static void page_write(struct x86_vcpu *c, enum tlb_class class, gva_t gva, uint64_t v,
                       unsigned bytes)
{
    bool code;
    gpa_t gpa;
    uint8_t *p = translate(c, class, gva, ACCESS_WRITE, &gpa, &code);

    if (likely(p)) {
        /* One host store for the sizes that are atomic on hardware. */
        if (bytes == 8)
            memcpy(p, &v, 8);
        else if (bytes == 4)
            memcpy(p, &v, 4);
        else if (bytes == 2)
            memcpy(p, &v, 2);
        else
            memcpy(p, &v, bytes);
        if (code)
            note_stored(c, p, bytes);
        return;
    }
    for (unsigned done = 0; done < bytes;) {
        unsigned n = 8;
        while (n > bytes - done)
            n /= 2;
        device_write(c, gpa + done, zext(v >> (done * 8), n), n);
        done += n;
    }
}

static bool crosses_page(gva_t gva, unsigned bytes)
{
    return (gva & ~PAGE_MASK) + bytes > PAGE_SIZE;
}

/* The linear address after gva by n bytes: wraps at 4 GiB outside 64-bit mode. */
static gva_t lin_add(const struct x86_vcpu *c, gva_t gva, uint64_t n)
{
    return x86_64bit_mode(&c->s) ? gva + n : (uint32_t)(gva + n);
}

static uint64_t class_read(struct x86_vcpu *c, enum tlb_class class, gva_t gva, unsigned bytes)
{
    unsigned first;
    uint64_t low, high;
    gva_t second;
    gpa_t gpa;
    bool code;

    if (likely(!crosses_page(gva, bytes)))
        return page_read(c, class, gva, bytes);
    first = (unsigned)(PAGE_SIZE - (gva & ~PAGE_MASK));
    second = lin_add(c, gva, first);
    translate(c, class, gva, ACCESS_READ, &gpa, &code); /* lower page faults first */
    translate(c, class, second, ACCESS_READ, &gpa, &code);
    low = page_read(c, class, gva, first);
    high = page_read(c, class, second, bytes - first);
    return low | high << (first * 8);
}

static void class_write(struct x86_vcpu *c, enum tlb_class class, gva_t gva, uint64_t v,
                        unsigned bytes)
{
    unsigned first;
    gva_t second;
    gpa_t gpa;
    bool code;

    if (likely(!crosses_page(gva, bytes))) {
        page_write(c, class, gva, v, bytes);
        return;
    }
    first = (unsigned)(PAGE_SIZE - (gva & ~PAGE_MASK));
    second = lin_add(c, gva, first);
    translate(c, class, gva, ACCESS_WRITE, &gpa, &code);
    translate(c, class, second, ACCESS_WRITE, &gpa, &code);
    page_write(c, class, gva, v, first);
    page_write(c, class, second, v >> (first * 8), bytes - first);
}

/* ---- segmentation ---- */

static _Noreturn void raise_segment(struct x86_vcpu *c, unsigned seg)
{
    x86_raise_error(c, seg == X86_SS ? VEC_SS : VEC_GP, 0);
}

gva_t x86_linear(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes,
                 enum x86_access access)
{
    const struct x86_seg *d = &c->s.seg[seg];
    uint64_t last = ea + (bytes - 1);
    gva_t lin;

    if (x86_64bit_mode(&c->s)) {
        lin = ea + c->seg_base[seg];
        if (!x86_is_canonical(c, lin) || !x86_is_canonical(c, lin + (bytes - 1)))
            raise_segment(c, seg);
        return lin;
    }
    if (!x86_real_mode(&c->s) && !x86_v86_mode(&c->s)) {
        if (d->attr & SEG_UNUSABLE)
            raise_segment(c, seg);
        if (d->attr & SEG_CODE) {
            if (access == ACCESS_WRITE || !(d->attr & SEG_READABLE))
                raise_segment(c, seg);
        } else if (access == ACCESS_WRITE && !(d->attr & SEG_WRITABLE)) {
            raise_segment(c, seg);
        }
    }
    if ((d->attr & (SEG_CODE | SEG_EXPAND_DOWN)) == SEG_EXPAND_DOWN) {
        uint64_t top = d->attr & SEG_DB ? 0xffffffff : 0xffff;
        if (ea <= d->limit || last > top)
            raise_segment(c, seg);
    } else if (last > d->limit) {
        /* With a limit of 4 GiB - 1 an operand that wraps is let through, as
         * processors do (SDM Vol. 3, 5.3: implementation-specific). */
        if (!(d->limit == 0xffffffff && ea <= 0xffffffff && bytes <= 8))
            raise_segment(c, seg);
    }
    return (uint32_t)(ea + d->base);
}

static bool alignment_checked(const struct x86_vcpu *c)
{
    return c->s.cpl == 3 && (c->s.cr0 & CR0_AM) && (c->s.rflags & FLAG_AC);
}

/* Segment, alignment and breakpoints of a data access. */
static gva_t data_linear(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes,
                         enum x86_access access)
{
    gva_t lin = x86_linear(c, seg, ea, bytes, access);

    if (unlikely(alignment_checked(c)) && (lin & (bytes - 1)) && (bytes & (bytes - 1)) == 0 &&
        bytes <= 8)
        x86_raise_error(c, VEC_AC, 0);
    return lin;
}

static void data_breakpoint(struct x86_vcpu *c, gva_t lin, unsigned bytes, bool write)
{
    if (unlikely(c->s.dr7 & 0xff))
        x86_data_breakpoint(c, lin, bytes, write);
}

uint64_t x86_read_slow(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned size)
{
    gva_t lin = data_linear(c, seg, ea, size, ACCESS_READ);
    uint64_t v = class_read(c, c->tlb_class, lin, size);

    data_breakpoint(c, lin, size, false);
    return v;
}

void x86_write_slow(struct x86_vcpu *c, unsigned seg, uint64_t ea, uint64_t v, unsigned size)
{
    gva_t lin = data_linear(c, seg, ea, size, ACCESS_WRITE);

    class_write(c, c->tlb_class, lin, zext(v, size), size);
    data_breakpoint(c, lin, size, true);
}

void x86_probe_write(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes)
{
    gva_t lin = data_linear(c, seg, ea, bytes, ACCESS_WRITE);
    gpa_t gpa;
    bool code;

    translate(c, c->tlb_class, lin, ACCESS_WRITE, &gpa, &code);
    if (crosses_page(lin, bytes))
        translate(c, c->tlb_class, lin_add(c, lin, PAGE_SIZE - (lin & ~PAGE_MASK)), ACCESS_WRITE,
                  &gpa, &code);
}

void *x86_rmw_pointer(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes)
{
    gva_t lin = data_linear(c, seg, ea, bytes, ACCESS_WRITE);
    uint8_t *p;
    gpa_t gpa;
    bool code;

    if (crosses_page(lin, bytes)) {
        x86_probe_write(c, seg, ea, bytes);
        return NULL;
    }
    p = translate(c, c->tlb_class, lin, ACCESS_WRITE, &gpa, &code);
    if (code || unlikely(c->s.dr7 & 0xff))
        return NULL;
    return p;
}

void x86_read_bytes(struct x86_vcpu *c, unsigned seg, uint64_t ea, void *buf, unsigned bytes)
{
    gva_t lin = x86_linear(c, seg, ea, bytes, ACCESS_READ);
    unsigned first = (unsigned)MIN((uint64_t)bytes, PAGE_SIZE - (lin & ~PAGE_MASK));
    uint8_t *out = buf;
    uint8_t *p, *q = NULL;
    gpa_t gpa = 0, gpa2 = 0;
    bool code;

    p = translate(c, c->tlb_class, lin, ACCESS_READ, &gpa, &code);
    if (first < bytes)
        q = translate(c, c->tlb_class, lin_add(c, lin, first), ACCESS_READ, &gpa2, &code);
    if (likely(p))
        memcpy(out, p, first);
    else
        for (unsigned n = 0; n < first; n++)
            out[n] = (uint8_t)device_read(c, gpa + n, 1);
    if (first < bytes) {
        if (q)
            memcpy(out + first, q, bytes - first);
        else
            for (unsigned n = 0; n < bytes - first; n++)
                out[first + n] = (uint8_t)device_read(c, gpa2 + n, 1);
    }
    data_breakpoint(c, lin, bytes, false);
}

static void part_write(struct x86_vcpu *c, uint8_t *p, gpa_t gpa, const uint8_t *in, unsigned n,
                       bool code)
{
    if (likely(p)) {
        memcpy(p, in, n);
        if (code)
            note_stored(c, p, n);
        return;
    }
    for (unsigned k = 0; k < n; k++)
        device_write(c, gpa + k, in[k], 1);
}

void x86_write_bytes(struct x86_vcpu *c, unsigned seg, uint64_t ea, const void *buf,
                     unsigned bytes)
{
    gva_t lin = x86_linear(c, seg, ea, bytes, ACCESS_WRITE);
    unsigned first = (unsigned)MIN((uint64_t)bytes, PAGE_SIZE - (lin & ~PAGE_MASK));
    uint8_t *p, *q = NULL;
    gpa_t gpa = 0, gpa2 = 0;
    bool code, code2 = false;

    p = translate(c, c->tlb_class, lin, ACCESS_WRITE, &gpa, &code);
    if (first < bytes)
        q = translate(c, c->tlb_class, lin_add(c, lin, first), ACCESS_WRITE, &gpa2, &code2);
    part_write(c, p, gpa, buf, first, code);
    if (first < bytes)
        part_write(c, q, gpa2, (const uint8_t *)buf + first, bytes - first, code2);
    data_breakpoint(c, lin, bytes, true);
}

/* ---- by linear address ---- */

uint64_t x86_system_read(struct x86_vcpu *c, gva_t gva, unsigned bytes)
{
    return class_read(c, TLB_SUPERVISOR, x86_long_mode(&c->s) ? gva : (uint32_t)gva, bytes);
}

void x86_system_write(struct x86_vcpu *c, gva_t gva, uint64_t v, unsigned bytes)
{
    class_write(c, TLB_SUPERVISOR, x86_long_mode(&c->s) ? gva : (uint32_t)gva, v, bytes);
}

void x86_system_or8(struct x86_vcpu *c, gva_t gva, uint8_t bits)
{
    bool code;
    gpa_t gpa = 0;
    uint8_t *p;

    if (!x86_long_mode(&c->s))
        gva = (uint32_t)gva;
    p = translate(c, TLB_SUPERVISOR, gva, ACCESS_WRITE, &gpa, &code);
    if (!p) {
        device_write(c, gpa, device_read(c, gpa, 1) | bits, 1);
        return;
    }
    atomic_fetch_or((_Atomic uint8_t *)p, bits);
    if (code)
        note_stored(c, p, 1);
}

static enum tlb_class lin_class(const struct x86_vcpu *c, bool user)
{
    if (user)
        return TLB_USER;
    return (c->s.rflags & FLAG_AC) || !(c->s.cr4 & CR4_SMAP) ? TLB_SUPERVISOR_AC : TLB_SUPERVISOR;
}

uint64_t x86_lin_read(struct x86_vcpu *c, gva_t gva, unsigned bytes, bool user)
{
    return class_read(c, lin_class(c, user), x86_long_mode(&c->s) ? gva : (uint32_t)gva, bytes);
}

void x86_lin_write(struct x86_vcpu *c, gva_t gva, uint64_t v, unsigned bytes, bool user)
{
    class_write(c, lin_class(c, user), x86_long_mode(&c->s) ? gva : (uint32_t)gva, v, bytes);
}

void x86_lin_probe_write(struct x86_vcpu *c, gva_t gva, unsigned bytes, bool user)
{
    enum tlb_class class = lin_class(c, user);
    gpa_t gpa;
    bool code;

    if (!x86_long_mode(&c->s))
        gva = (uint32_t)gva;
    translate(c, class, gva, ACCESS_WRITE, &gpa, &code);
    if (crosses_page(gva, bytes))
        translate(c, class, lin_add(c, gva, PAGE_SIZE - (gva & ~PAGE_MASK)), ACCESS_WRITE, &gpa,
                  &code);
}

/* ---- instruction fetch ---- */

const struct itlb_entry *x86_fetch_translate(struct x86_vcpu *c, gva_t gva)
{
    struct itlb *t = &c->mmu->slot[c->mmu->current].itlb;
    struct itlb_entry *e = itlb_slot(t, gva);
    bool user = c->s.cpl == 3;
    uint64_t bytes = UINT64_MAX;
    struct walk w;
    uint32_t error;

    if (!walk_access(c, gva, ACCESS_FETCH, user, false, &w, &error))
        x86_raise_page_fault(c, gva, error);
    e->tag = (gva & PAGE_MASK) | user;
    e->gpa = w.gpa & PAGE_MASK;
    e->global = w.global;
    e->host = as_map(&c->vm->memory, e->gpa, &bytes, false, &e->block, &e->offset);
    if (!e->host || bytes < PAGE_SIZE || lapic_page_match(c->lapic, e->gpa)) {
        e->host = NULL;
        e->block = NULL;
    }
    if (w.bytes > PAGE_SIZE)
        t->large = true;
    t->any = true;
    return e;
}
