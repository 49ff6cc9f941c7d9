/*
 * Page-table walks (SDM Vol. 3, chapter 4): 32-bit, PAE, 4-level and 5-level
 * paging, rights, protection keys, accessed and dirty bits.
 *
 * Paging structures in plain RAM are handled here, others in walk_far.c.
 *
 * Threading: the owner's thread; paging structures are shared with others and
 * changed by compare-and-exchange only.
 */
#include <stdatomic.h>

#include "cpu/x86/mmu_internal.h"

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

/* ---- physical memory ---- */

const struct phys_range *phys_find_range(struct x86_vcpu *c, gpa_t gpa)
{
    struct phys_range *r = c->mmu->ranges, found = {.base = gpa, .bytes = UINT64_MAX};

    if (gpa - r[1].base < r[1].bytes)
        return &r[1];
    found.host = as_map(&c->vm->memory, gpa, &found.bytes, true, &found.block, &found.offset);
    if (!found.host)
        return NULL;
    /* Of two that end at the same place one is the longer; else the second makes
     * room, and the first stays what most memory is in. */
    if (r[0].bytes && r[0].base + r[0].bytes != gpa + found.bytes &&
        found.bytes < r[0].bytes)
        r++;
    *r = found;
    return r;
}

/* The host address of guest-physical memory that is plain RAM; NULL for
 * everything else. */
static uint8_t *phys_pointer(struct x86_vcpu *c, gpa_t gpa)
{
    const struct phys_range *r = phys_range(c, gpa);

    return likely(r) ? r->host + (gpa - r->base) : NULL;
}

uint64_t walk_read(struct x86_vcpu *c, gpa_t gpa, unsigned size)
{
    const uint8_t *p = phys_pointer(c, gpa);

    if (unlikely(!p))
        return walk_far_read(c, gpa, size);
    if (size == 8)
        return atomic_load_explicit((const _Atomic uint64_t *)p, memory_order_relaxed);
    return atomic_load_explicit((const _Atomic uint32_t *)p, memory_order_relaxed);
}

enum set_result { SET_DONE, SET_CHANGED, SET_FAR };

/* Sets bits of a paging-structure entry if it is still what the walk saw
 * (SDM Vol. 3, 4.8: accessed and dirty are set with a locked operation). */
static enum set_result set_bits(struct x86_vcpu *c, gpa_t gpa, unsigned size, uint64_t seen,
                                uint64_t bits, bool far)
{
    const struct phys_range *r = phys_range(c, gpa);
    struct ram_block *block;
    uint64_t offset;
    bool code, done;
    uint8_t *p;

    if (!r) {
        if (!far)
            return SET_FAR;
        walk_far_set_bits(c, gpa, size, bits);
        return SET_DONE;
    }
    p = r->host + (gpa - r->base);
    block = r->block;
    offset = r->offset + (gpa - r->base);
    /* Paging structures that are also code: absurd, but then it is stale. Where
     * marks appear only now, their maker waits for us before it reads the code;
     * pages it need not wait for have marks already. */
    code = atomic_load_explicit(&block->code_lines[offset >> 12], memory_order_relaxed);
    if (unlikely(code) && !far)
        return SET_FAR;
    if (size == 8) {
        done = atomic_compare_exchange_strong((_Atomic uint64_t *)p, &seen, seen | bits);
    } else {
        uint32_t seen32 = (uint32_t)seen;
        done = atomic_compare_exchange_strong((_Atomic uint32_t *)p, &seen32,
                                              seen32 | (uint32_t)bits);
    }
    if (done && unlikely(code))
        x86_code_stored(c, block, offset, size);
    return done ? SET_DONE : SET_CHANGED;
}

/* ---- the walk ---- */

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
bool walk_allows(const struct x86_vcpu *c, const struct walk *w, enum x86_access access,
                        bool user, bool ac, uint32_t *error)
{
    bool wp = c->s.cr0 & CR0_WP;
    bool ok;

    if (!(c->s.cr0 & CR0_PG)) /* then SMAP, too, has nothing to say */
        return true;
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

/* The entries a walk has passed, so that A and D can be set. */
struct walk_trail {
    unsigned count, size;
    gpa_t gpa[5];
    uint64_t entry[5];
};

/* The next entry on the way, unless it is where far would be needed. */
static bool trail_read(struct x86_vcpu *c, struct walk_trail *trail, gpa_t gpa, bool far,
                       uint64_t *entry)
{
    if (!far && unlikely(!phys_pointer(c, gpa)))
        return false;
    *entry = walk_read(c, gpa, trail->size);
    trail->gpa[trail->count] = gpa;
    trail->entry[trail->count++] = *entry;
    return true;
}

/* 32-bit paging (SDM Vol. 3, 4.3). */
static enum walk_result walk_32(struct x86_vcpu *c, gva_t gva, bool far, struct walk *w,
                                struct walk_trail *trail, uint32_t *fault)
{
    gpa_t table = c->s.cr3 & 0xfffff000;
    uint64_t pde, pte;

    trail->size = 4;
    if (!trail_read(c, trail, table | (gva >> 22 & 0x3ff) << 2, far, &pde))
        return WALK_FAR;
    if (!(pde & PTE_P))
        return WALK_FAULT;
    w->w = pde & PTE_W;
    w->u = pde & PTE_U;
    w->x = true;
    w->pkey = 0;
    if ((pde & PTE_PS) && (c->s.cr4 & CR4_PSE)) {
        /* PSE-36: bits 13..20 are address bits 32..39; bit 21 is reserved. */
        unsigned wide = MIN(c->model->phys_bits, 40u);
        uint64_t high = (pde >> 13 & 0xff) << 32;
        if ((pde & BIT(21)) || (high >> wide)) {
            *fault = PF_P | PF_RSVD;
            return WALK_FAULT;
        }
        w->shift = 22;
        w->gpa = high | (pde & 0xffc00000) | (gva & 0x3fffff);
        w->global = pde & PTE_G;
        w->dirty = pde & PTE_D;
        return WALK_OK;
    }
    if (!trail_read(c, trail, (pde & 0xfffff000) | (gva >> 12 & 0x3ff) << 2, far, &pte))
        return WALK_FAR;
    if (!(pte & PTE_P))
        return WALK_FAULT;
    w->w = w->w && (pte & PTE_W);
    w->u = w->u && (pte & PTE_U);
    w->shift = 12;
    w->gpa = (pte & 0xfffff000) | (gva & 0xfff);
    w->global = pte & PTE_G;
    w->dirty = pte & PTE_D;
    return WALK_OK;
}

/* One walk without rights checks. WALK_FAULT: *fault has P and RSVD. */
static enum walk_result walk_tables(struct x86_vcpu *c, gva_t gva, bool far, struct walk *w,
                                    struct walk_trail *trail, uint32_t *fault)
{
    bool nxe = c->s.efer & EFER_NXE;
    uint64_t phys_reserved = BITS(51, 0) & ~(BIT(c->model->phys_bits) - 1);
    uint64_t table;
    int level;

    *fault = 0;
    trail->count = 0;
    if (!(c->s.cr4 & CR4_PAE))
        return walk_32(c, gva, far, w, trail, fault);
    trail->size = 8;
    w->w = w->u = w->x = true;
    if (!x86_long_mode(&c->s)) {
        uint64_t pdpte = c->s.pdpte[gva >> 30 & 3];
        if (!(pdpte & PTE_P))
            return WALK_FAULT;
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
        uint64_t reserved = phys_reserved | (nxe ? 0 : PTE_NX);
        uint64_t e;

        if (!trail_read(c, trail, table | (gva >> shift & 0x1ff) << 3, far, &e))
            return WALK_FAR;
        if (!(e & PTE_P))
            return WALK_FAULT;
        if (level >= 4)
            reserved |= PTE_PS;
        else if (level == 3 && (e & PTE_PS))
            reserved |= x86_model_has(c->model, X86_FEAT_GBPAGES) ? BITS(29, 13) : PTE_PS;
        else if (level == 2 && (e & PTE_PS))
            reserved |= BITS(20, 13);
        if (e & reserved) {
            *fault = PF_P | PF_RSVD;
            return WALK_FAULT;
        }
        w->w = w->w && (e & PTE_W);
        w->u = w->u && (e & PTE_U);
        w->x = w->x && !(e & PTE_NX);
        if (level == 1 || ((e & PTE_PS) && level <= 3)) {
            uint64_t mask = BIT(shift) - 1;
            w->shift = shift;
            w->gpa = (e & BITS(51, 12) & ~mask) | (gva & mask);
            w->global = e & PTE_G;
            w->dirty = e & PTE_D;
            w->pkey = e >> 59 & 15;
            return WALK_OK;
        }
        table = e & BITS(51, 12);
    }
}

/* ---- the paging-structure cache ---- */

static struct walk_cache_entry *cache_entry(struct walk_cache *cache, gva_t gva)
{
    return &cache->entry[gva >> 21 & (WALK_CACHE_ENTRIES - 1)];
}

/* The end of a walk whose beginning is known. False: it must begin at the top. */
static bool walk_cached(struct x86_vcpu *c, gva_t gva, enum x86_access access, struct walk *w,
                        struct walk_trail *trail)
{
    struct walk_cache *cache = &c->mmu->slot[c->mmu->current].walks;
    const struct walk_cache_entry *k = cache_entry(cache, gva);
    uint64_t reserved, e;
    unsigned at;

    if (k->tag != gva >> 21 || k->generation != cache->generation)
        return false;
    w->w = k->gpa & WALKC_W;
    w->u = k->gpa & WALKC_U;
    w->x = k->gpa & WALKC_X;
    trail->count = 0;
    if (!k->table) {
        w->dirty = k->gpa & WALKC_DIRTY;
        if (access == ACCESS_WRITE && !w->dirty)
            return false;
        w->global = k->gpa & WALKC_GLOBAL;
        w->pkey = k->gpa >> WALKC_PKEY_SHIFT & 15;
        w->shift = page_shifts[k->gpa >> WALKC_SIZE_SHIFT & 3];
        w->gpa = (k->gpa & ~(2 * MiB - 1)) | (gva & (2 * MiB - 1));
        return true;
    }
    if (likely(c->s.cr4 & CR4_PAE)) {
        trail->size = 8;
        at = (gva >> 12 & 0x1ff) * 8;
        e = atomic_load_explicit((const _Atomic uint64_t *)(k->table + at), memory_order_relaxed);
        reserved = BITS(51, 0) & ~(BIT(c->model->phys_bits) - 1);
        if (!(c->s.efer & EFER_NXE))
            reserved |= PTE_NX;
        if (!x86_long_mode(&c->s))
            reserved |= BITS(62, 52);
        w->x = w->x && !(e & PTE_NX);
        w->pkey = e >> 59 & 15;
        w->gpa = (e & BITS(51, 12)) | (gva & 0xfff);
    } else {
        trail->size = 4;
        at = (gva >> 12 & 0x3ff) * 4;
        e = atomic_load_explicit((const _Atomic uint32_t *)(k->table + at), memory_order_relaxed);
        reserved = 0;
        w->pkey = 0;
        w->gpa = (e & 0xfffff000) | (gva & 0xfff);
    }
    if (!(e & PTE_P) || (e & reserved))
        return false;
    w->w = w->w && (e & PTE_W);
    w->u = w->u && (e & PTE_U);
    w->global = e & PTE_G;
    w->dirty = e & PTE_D;
    w->shift = 12;
    trail->gpa[0] = (k->gpa & PAGE_MASK) + at;
    trail->entry[0] = e;
    trail->count = 1;
    return true;
}

/* After a walk from the top that succeeded, with all A bits set. */
static void cache_walk(struct x86_vcpu *c, gva_t gva, const struct walk *w,
                       const struct walk_trail *trail)
{
    struct walk_cache *cache = &c->mmu->slot[c->mmu->current].walks;
    struct walk_cache_entry *k = cache_entry(cache, gva);
    uint64_t bits;

    if (w->shift == 12) {
        gpa_t table = trail->gpa[trail->count - 1] & PAGE_MASK;
        k->table = phys_pointer(c, table);
        if (!k->table) {
            k->generation = 0;
            return;
        }
        bits = WALKC_W | WALKC_U | WALKC_X;
        for (unsigned n = 0; n + 1 < trail->count; n++) {
            if (!(trail->entry[n] & PTE_W))
                bits &= ~(uint64_t)WALKC_W;
            if (!(trail->entry[n] & PTE_U))
                bits &= ~(uint64_t)WALKC_U;
            if (trail->size == 8 && (trail->entry[n] & PTE_NX))
                bits &= ~(uint64_t)WALKC_X;
        }
        k->gpa = table | bits;
    } else {
        bits = (w->w ? WALKC_W : 0) | (w->u ? WALKC_U : 0) | (w->x ? WALKC_X : 0) |
               (w->global ? WALKC_GLOBAL : 0) | (w->dirty ? WALKC_DIRTY : 0);
        bits |= (uint64_t)w->pkey << WALKC_PKEY_SHIFT;
        bits |= (uint64_t)page_size_index(w->shift) << WALKC_SIZE_SHIFT;
        if (w->global) /* perhaps of a device: in no TLB */
            page_set_add(&c->mmu->slot[c->mmu->current].global, gva, w->shift);
        k->table = NULL;
        k->gpa = (w->gpa & ~(2 * MiB - 1)) | bits;
    }
    k->tag = gva >> 21;
    k->generation = cache->generation;
}

/* ---- walks for accesses ---- */

enum walk_result walk_access(struct x86_vcpu *c, gva_t gva, enum x86_access access, bool user,
                             bool ac, bool far, struct walk *w, uint32_t *error)
{
    struct walk_trail trail;
    uint32_t fault;
    bool cached;

    if (!(c->s.cr0 & CR0_PG)) {
        *w = (struct walk){.gpa = gva, .shift = 12, .w = true, .u = true, .x = true,
                           .dirty = true};
        return WALK_OK;
    }
    cached = walk_cached(c, gva, access, w, &trail);
    if (cached && unlikely(!walk_allows(c, w, access, user, ac, error)))
        cached = false;
again:
    if (!cached) {
        switch (walk_tables(c, gva, far, w, &trail, &fault)) {
        case WALK_OK:
            break;
        case WALK_FAULT:
            *error = walk_fault(c, access, user, fault);
            return WALK_FAULT;
        default:
            return WALK_FAR;
        }
        if (!walk_allows(c, w, access, user, ac, error))
            return WALK_FAULT;
    }
    for (unsigned n = 0; n < trail.count; n++) {
        bool leaf = n + 1 == trail.count;
        uint64_t want = PTE_A | (leaf && access == ACCESS_WRITE ? PTE_D : 0);
        if (likely((trail.entry[n] & want) == want))
            continue;
        switch (set_bits(c, trail.gpa[n], trail.size, trail.entry[n], want, far)) {
        case SET_DONE:
            break;
        case SET_CHANGED: /* by somebody else: look again */
            cached = false;
            goto again;
        default:
            return WALK_FAR;
        }
    }
    if (access == ACCESS_WRITE)
        w->dirty = true;
    if (!cached)
        cache_walk(c, gva, w, &trail);
    w->global = w->global && (c->s.cr4 & CR4_PGE);
    return WALK_OK;
}

bool walk_look(struct x86_vcpu *c, gva_t gva, struct walk *w)
{
    struct walk_trail trail;
    uint32_t fault;

    if (!(c->s.cr0 & CR0_PG)) {
        *w = (struct walk){.gpa = gva, .shift = 12};
        return true;
    }
    return walk_tables(c, gva, true, w, &trail, &fault) == WALK_OK;
}
