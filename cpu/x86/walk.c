/*
 * Page-table walks (SDM Vol. 3, chapter 4): 32-bit, PAE, 4-level and 5-level
 * paging, rights, protection keys, accessed and dirty bits.
 * Threading: the owner's thread; paging structures are shared with others and
 * changed by compare-and-exchange only.
 */
#include <stdatomic.h>

#include "cpu/x86/mmu_internal.h"
#include "cpu/x86/vec/vec.h"

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
    vec_leave(c);
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
        vec_leave(c);
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
bool walk_access(struct x86_vcpu *c, gva_t gva, enum x86_access access, bool user, bool ac,
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
