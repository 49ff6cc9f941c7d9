/*
 * The MMU's own structures, for its files and for the engines' instruction fetch.
 */
#ifndef CPU_X86_MMU_INTERNAL_H
#define CPU_X86_MMU_INTERNAL_H

#include "cpu/x86/mmu.h"

/* ---- data TLBs ---- */

#define TLB_MIN_ENTRIES 1024u
#define TLB_MAX_ENTRIES 32768u /* reaches 128 MiB */

/* tlb_entry.flags: the page address it was filled for, and: */
enum tlb_entry_flags {
    TLBE_FILLED = 1 << 0, /* is in the list of filled entries */
    TLBE_GLOBAL = 1 << 1,
    TLBE_CODE = 1 << 2, /* writable, but stores must look for cached code */
    /* Bit 3 + n: a fragment of a page of page_shifts[n], n > 0. */
    TLBE_LARGE = 7 << 4,
};
#define TLBE_SIZE_BIT 3

#define NO_PAGE 1ull /* no page address is odd */

/*
 * Memory that was never touched is a table without entries: all of it says
 * "page 0", which is looked for in entry 0 only, and that one is initialised.
 */
struct tlb {
    struct tlb_entry *table;
    /* Which entries were filled since the last flush, each once, so that a flush
     * costs what was filled. */
    uint16_t *filled;
    unsigned filled_count;
    unsigned evicted; /* how often an entry made room for another, fading */
    unsigned idle;    /* flushes in a row that found few entries */
    uint64_t index_mask; /* (entries - 1) << TLB_ENTRY_SHIFT */
};

static inline unsigned tlb_entries(const struct tlb *t)
{
    return (unsigned)(t->index_mask >> TLB_ENTRY_SHIFT) + 1;
}

static inline unsigned tlb_index(const struct tlb *t, gva_t gva)
{
    return (unsigned)(gva >> 12) & (tlb_entries(t) - 1);
}

/* ---- sets of pages, approximately ---- */

/* Sizes of pages: 4 KiB, 2 MiB, 4 MiB, 1 GiB. */
#define PAGE_SIZES 4
static const uint8_t page_shifts[PAGE_SIZES] = {12, 21, 22, 30};

static inline unsigned page_size_index(unsigned shift)
{
    return shift == 12 ? 0 : shift == 21 ? 1 : shift == 22 ? 2 : 3;
}

/* Says of pages that were added that they were, and sometimes of others. */
#define PAGE_SET_BITS 8192
struct page_set {
    uint8_t sizes; /* which sizes were added */
    uint64_t bits[PAGE_SET_BITS / 64];
};

static inline unsigned page_set_hash(gva_t gva, unsigned size)
{
    return (unsigned)(((gva >> page_shifts[size]) ^ (uint64_t)size << 58) * 0x9e3779b97f4a7c15ull >>
                      51);
}

static inline void page_set_add(struct page_set *s, gva_t gva, unsigned shift)
{
    unsigned size = page_size_index(shift), h = page_set_hash(gva, size);

    s->sizes |= (uint8_t)(1u << size);
    s->bits[h / 64] |= 1ull << h % 64;
}

static inline bool page_set_has(const struct page_set *s, gva_t gva, unsigned size)
{
    unsigned h;

    if (!(s->sizes & 1u << size))
        return false;
    h = page_set_hash(gva, size);
    return s->bits[h / 64] >> h % 64 & 1;
}

/* Is gva in a large page that was added? */
static inline bool page_set_has_large(const struct page_set *s, gva_t gva)
{
    return (s->sizes & ~1u) && (page_set_has(s, gva, 1) || page_set_has(s, gva, 2) ||
                                page_set_has(s, gva, 3));
}

/* ---- instruction TLBs ---- */

#define ITLB_NONE 2ull /* no tag has bit 1 */

struct itlb_entry {
    uint64_t tag; /* page | user */
    const uint8_t *host; /* of the page; NULL: not memory, fetch by gpa */
    struct ram_block *block;
    uint64_t offset; /* of the page in block */
    gpa_t gpa;       /* of the page */
    bool global;
    bool listed;     /* in itlb.filled */
    uint8_t shift;   /* log2 of the size of the page it is (a fragment) of */
};

/* Untouched memory: as in struct tlb. */
struct itlb {
    struct itlb_entry entry[ITLB_ENTRIES];
    unsigned filled_count;
    uint16_t filled[ITLB_ENTRIES];
};

static inline struct itlb_entry *itlb_slot(struct itlb *t, gva_t gva)
{
    return &t->entry[gva >> 12 & (ITLB_ENTRIES - 1)];
}

/* ---- paging-structure caches ---- */

/*
 * What a walk found on its way to an entry for 2 MiB of linear addresses: where
 * the page table is (or one half of it, where it is for 4 MiB), or a large page,
 * or 2 MiB of one. SDM Vol. 3, 4.10.3: such an entry is used only while it leads
 * to an access that succeeds; before a fault the walk begins at the top.
 */
struct walk_cache_entry {
    uint64_t tag;        /* gva >> 21 */
    uint64_t generation; /* of the slot it was made in */
    uint8_t *table;      /* NULL: a large page */
    uint64_t gpa;        /* of the table, or of those 2 MiB; low bits: below */
};
enum walk_cache_bits {
    WALKC_W = 1 << 0, /* combined rights of all levels above the table */
    WALKC_U = 1 << 1,
    WALKC_X = 1 << 2,
    /* Of a large page; its PKEY in bits 4..7, its size in bits 8..9. */
    WALKC_GLOBAL = 1 << 10,
    WALKC_DIRTY = 1 << 11,
};
#define WALKC_PKEY_SHIFT 4
#define WALKC_SIZE_SHIFT 8

#define WALK_CACHE_ENTRIES 512u
struct walk_cache {
    uint64_t generation; /* entries of others are void; never 0 */
    struct walk_cache_entry entry[WALK_CACHE_ENTRIES];
};

/* ---- an address space's translations ---- */

#define PCID_NONE 0xffffu

/* What to drop: a set. Also the index of what is kept of each kind, see below. */
enum tlb_drop {
    DROP_NONGLOBAL = 1,
    DROP_GLOBAL = 2,
    DROP_ALL = 3,
};
enum { KIND_NONGLOBAL, KIND_GLOBAL, KINDS };

struct tlb_slot {
    struct tlb tlb[TLB_CLASSES];
    unsigned pcid;
    uint64_t used_at;
    /* fetch_dropped that the engine must hear of when this slot is current. */
    bool drop_pending;
    /* Large pages whose fragments are in tlb[], and all global ones. */
    struct page_set large, global;
    /* Pages that were fetched from since the engine dropped all of their kind, and
     * large pages of which these are fragments. An engine's links live longer than
     * ITLB entries, and most INVLPGs are for data. */
    struct page_set fetched[KINDS], fetched_large[KINDS];
    struct itlb itlb;
    struct walk_cache walks;
};

/* A run of plain RAM. */
struct phys_range {
    gpa_t base;
    uint64_t bytes;
    uint8_t *host;
    struct ram_block *block;
    uint64_t offset; /* of base in block */
};

struct x86_mmu {
    struct tlb_slot slot[TLB_PCID_SLOTS];
    unsigned current;
    uint64_t stamp;
    struct phys_range ranges[2]; /* the last two that a walk or a fill found */
    void *tables; /* memory of all tables and lists */
};

/* The host address of [gva, gva + bytes), if the TLB has it for this kind of data
 * access at full speed; else NULL. Raises nothing and changes nothing. */
static inline void *x86_tlb_peek(struct x86_vcpu *c, enum tlb_class class, gva_t gva,
                                 unsigned bytes, enum x86_access access)
{
    const struct tlb *t = &c->mmu->slot[c->mmu->current].tlb[class];
    const struct tlb_entry *e = &t->table[tlb_index(t, gva)];
    uint64_t page = access == ACCESS_READ ? e->read : e->write;

    return ((gva + (bytes - 1)) & PAGE_MASK) == page && (gva & PAGE_MASK) == page
               ? (void *)(gva + e->addend)
               : NULL;
}

/* Translates the page of an instruction fetch; raises #PF. */
const struct itlb_entry *x86_fetch_translate(struct x86_vcpu *c, gva_t gva);
/* The engine was told that fetches are void and keeps what it knows of this page,
 * which it has found with this walk: it wants to hear of the next time, too. */
struct walk;
void x86_fetch_kept(struct x86_vcpu *c, gva_t gva, const struct walk *w);

static inline const struct itlb_entry *x86_fetch_page(struct x86_vcpu *c, gva_t gva)
{
    struct itlb_entry *e = itlb_slot(&c->mmu->slot[c->mmu->current].itlb, gva);

    if (likely(e->tag == ((gva & PAGE_MASK) | (c->s.cpl == 3))))
        return e;
    return x86_fetch_translate(c, gva);
}

/* The engine may remember data translations that are valid no longer. (Engines of
 * deterministic machines have to agree on when page tables are walked.) */
static inline void tlb_tell_dropped(struct x86_vcpu *c, bool global_too)
{
    if (c->engine_ops && c->engine_ops->tlb_dropped)
        c->engine_ops->tlb_dropped(c, global_too || c->vm->deterministic);
}

/* ---- walks (walk.c) ---- */

const struct phys_range *phys_find_range(struct x86_vcpu *c, gpa_t gpa);

/* The run of plain RAM that gpa is in, or NULL. */
static inline const struct phys_range *phys_range(struct x86_vcpu *c, gpa_t gpa)
{
    const struct phys_range *r = c->mmu->ranges;

    if (likely(gpa - r->base < r->bytes))
        return r;
    return phys_find_range(c, gpa);
}

/* What a walk found, for any access. */
struct walk {
    gpa_t gpa;       /* of the byte asked for */
    unsigned shift;  /* log2 of the page size */
    bool w, u, x;    /* combined rights */
    bool global, dirty;
    uint8_t pkey;
};

enum walk_result {
    WALK_OK,
    WALK_FAULT, /* *error is #PF's */
    WALK_FAR,   /* paging structures that are not plain RAM without code */
};

/*
 * Walks for an access with the rights of user or supervisor (ac: EFLAGS.AC
 * excuses it from SMAP); sets A and D. far: paging structures in devices and
 * beside code, too; else it ends there with WALK_FAR.
 */
enum walk_result walk_access(struct x86_vcpu *c, gva_t gva, enum x86_access access, bool user,
                             bool ac, bool far, struct walk *w, uint32_t *error);
/* Are the rights of a found page enough? */
bool walk_allows(const struct x86_vcpu *c, const struct walk *w, enum x86_access access,
                 bool user, bool ac, uint32_t *error);
/* Only looks. */
bool walk_look(struct x86_vcpu *c, gva_t gva, struct walk *w);
/* Reads an entry of a paging structure, wherever it is. */
uint64_t walk_read(struct x86_vcpu *c, gpa_t gpa, unsigned size);

/* The slow cases of paging structures (walk_far.c). */
uint64_t walk_far_read(struct x86_vcpu *c, gpa_t gpa, unsigned size);
void walk_far_set_bits(struct x86_vcpu *c, gpa_t gpa, unsigned size, uint64_t bits);

/* ---- fills (fill.c) ---- */

enum fill_result {
    FILL_DIRECT, /* *host */
    FILL_BUS,    /* *gpa: not memory, or ROM to be written */
    FILL_FAULT,  /* *error */
    FILL_FAR,    /* see WALK_FAR */
};

/* Translates for a data access, and fills the entry of class. */
enum fill_result tlb_fill(struct x86_vcpu *c, enum tlb_class class, gva_t gva,
                          enum x86_access access, bool far, gpa_t *gpa, uint8_t **host,
                          uint32_t *error);

bool x86_host_to_block(struct x86_vcpu *c, const void *host, struct ram_block **block,
                       uint64_t *offset);
/* This processor has stored into bytes that may hold cached code. */
void x86_code_stored(struct x86_vcpu *c, struct ram_block *block, uint64_t offset, uint64_t bytes);

#endif
