/*
 * The MMU's own structures, for mmu.c and for the engines' instruction fetch.
 */
#ifndef CPU_X86_MMU_INTERNAL_H
#define CPU_X86_MMU_INTERNAL_H

#include "cpu/x86/mmu.h"

/* tlb_entry.flags: the page address it was filled for, and: */
enum tlb_entry_flags {
    TLBE_FILLED = 1 << 0,
    TLBE_GLOBAL = 1 << 1,
    TLBE_CODE = 1 << 2, /* writable, but stores must look for cached code */
};

#define NO_PAGE 1ull /* no page address is odd */
#define ITLB_NONE 2ull /* no tag has bit 1 */
#define PCID_NONE 0xffffu

struct itlb_entry {
    uint64_t tag; /* page | user */
    const uint8_t *host; /* of the page; NULL: not memory, fetch by gpa */
    struct ram_block *block;
    uint64_t offset; /* of the page in block */
    gpa_t gpa;       /* of the page */
    bool global;
};

struct itlb {
    struct itlb_entry entry[ITLB_ENTRIES];
    bool any, large;
};

struct tlb_slot {
    struct tlb tlb[TLB_CLASSES];
    struct itlb itlb;
    unsigned pcid;
    uint64_t used_at;
};

/* The last run of plain RAM that a walk touched. */
struct phys_range {
    gpa_t base;
    uint64_t bytes;
    uint8_t *host;
};

struct x86_mmu {
    struct tlb_slot slot[TLB_PCID_SLOTS];
    unsigned current;
    uint64_t stamp;
    struct phys_range last_range;
};

static inline struct itlb_entry *itlb_slot(struct itlb *t, gva_t gva)
{
    return &t->entry[gva >> 12 & (ITLB_ENTRIES - 1)];
}

/* Translates the page of an instruction fetch; raises #PF. */
const struct itlb_entry *x86_fetch_translate(struct x86_vcpu *c, gva_t gva);

static inline const struct itlb_entry *x86_fetch_page(struct x86_vcpu *c, gva_t gva)
{
    struct itlb_entry *e = itlb_slot(&c->mmu->slot[c->mmu->current].itlb, gva);

    if (likely(e->tag == ((gva & PAGE_MASK) | (c->s.cpl == 3))))
        return e;
    return x86_fetch_translate(c, gva);
}

/* What a walk found, for any access. */
struct walk {
    gpa_t gpa;       /* of the byte asked for */
    uint64_t bytes;  /* page size */
    bool w, u, x;    /* combined rights */
    bool global, dirty;
    uint8_t pkey;
    bool user_page;
};

/* Walks for an access with the rights of user or supervisor (ac: EFLAGS.AC
 * excuses it from SMAP); sets A and D. False: *error is #PF's. */
bool walk_access(struct x86_vcpu *c, gva_t gva, enum x86_access access, bool user, bool ac,
                 struct walk *w, uint32_t *error);
/* Are the rights of a found page enough? */
bool walk_allows(const struct x86_vcpu *c, const struct walk *w, enum x86_access access,
                 bool user, bool ac, uint32_t *error);

bool x86_host_to_block(struct x86_vcpu *c, const void *host, struct ram_block **block,
                       uint64_t *offset);
/* This processor has stored into bytes that may hold cached code. */
void x86_code_stored(struct x86_vcpu *c, struct ram_block *block, uint64_t offset, uint64_t bytes);

#endif
