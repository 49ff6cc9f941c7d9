/*
 * Linear memory as an instruction sees it: segmentation limits, paging, TLB
 * (SDM Vol. 3, chapters 3, 4 and 5).
 *
 * Accessors either succeed or raise. "data" accessors act for the program at
 * its CPL through a segment; "system" accessors are the processor's own
 * implicit supervisor accesses (descriptor tables, TSS), by linear address.
 * An access that crosses a page translates both before it transfers anything.
 */
#ifndef CPU_X86_MMU_H
#define CPU_X86_MMU_H

#include "cpu/x86/insn.h"
#include "cpu/x86/vcpu.h"

#define PAGE_SIZE 4096ull
#define PAGE_MASK (~(PAGE_SIZE - 1))

int x86_mmu_create(struct x86_vcpu *c, struct error *err);
void x86_mmu_destroy(struct x86_vcpu *c);

/* ---- invalidation ---- */
/* Everything, PCID slots too: after a state was loaded. */
void x86_tlb_reset(struct x86_vcpu *c);
void x86_tlb_flush_all(struct x86_vcpu *c);            /* global, all PCIDs */
void x86_tlb_flush_nonglobal(struct x86_vcpu *c);      /* current PCID: MOV CR3 */
void x86_tlb_flush_page(struct x86_vcpu *c, gva_t gva); /* INVLPG */
void x86_tlb_flush_pcid(struct x86_vcpu *c, unsigned pcid, bool page_only, gva_t gva);
void x86_tlb_flush_all_nonglobal(struct x86_vcpu *c);  /* INVPCID type 3 */
/* No writable translation to pages with cached code remains (EVENT_REVOKE). */
void x86_tlb_revoke_writes(struct x86_vcpu *c);
/* The same for the one page of guest memory at host. */
void x86_tlb_revoke_page(struct x86_vcpu *c, const uint8_t *host);
/* CR3 was written (value checked): switches PCID slot, flushes as the
 * architecture asks (bit 63 = keep); loads PDPTEs in PAE mode (may raise #GP). */
void x86_load_cr3(struct x86_vcpu *c, uint64_t value);
/* Loads PDPTEs if PAE paging is (to be) in force; false: reserved bits set. */
bool x86_load_pdptes(struct x86_vcpu *c, uint64_t cr3, uint64_t cr0, uint64_t cr4, uint64_t efer);

/* PKRU was written (WRPKRU, XRSTOR): rights in the TLB are stale. */
void x86_pkru_changed(struct x86_vcpu *c);

/* ---- translation ---- */
enum x86_access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

/* Walks the page tables for an access of this kind, at CPL (user) or as
 * supervisor; sets A and D. False: *error is the #PF error code. */
bool x86_walk(struct x86_vcpu *c, gva_t gva, enum x86_access access, bool user, gpa_t *gpa,
              uint32_t *error);
/* For debuggers: no A/D, no permissions. */
bool x86_walk_debug(struct x86_vcpu *c, gva_t gva, gpa_t *gpa);
/* Reads linear memory without side effects; bytes read before the first hole. */
size_t x86_debug_read(struct x86_vcpu *c, gva_t gva, void *buf, size_t bytes);

/*
 * For engines with lookups of their own: after a miss of a data access by the
 * current instruction's rights, makes the entry such that a lookup hits. Raises
 * nothing, calls no libc and touches no vector register. False: the slow
 * functions have to do it (a fault, a device, ROM, a store to a page with code,
 * breakpoints, alignment checks); then nothing was done that they would not do.
 * Segment limits were checked before.
 */
bool x86_tlb_refill(struct x86_vcpu *c, gva_t lin, bool write);

/* ---- data accesses of the current instruction ---- */
uint64_t x86_read_slow(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned size);
void x86_write_slow(struct x86_vcpu *c, unsigned seg, uint64_t ea, uint64_t v, unsigned size);

static inline struct tlb_entry *tlb_slot(struct x86_vcpu *c, uint64_t lin)
{
    return (struct tlb_entry *)((char *)c->tlb_table +
                                (lin >> (12 - TLB_ENTRY_SHIFT) & c->tlb_index_mask));
}

#define X86_READ_FN(bits, bytes)                                                                   \
    static inline uint##bits##_t x86_read##bits(struct x86_vcpu *c, unsigned seg, uint64_t ea)     \
    {                                                                                              \
        uint64_t lin = ea + c->seg_base[seg];                                                      \
        const struct tlb_entry *e = tlb_slot(c, lin);                                              \
        if (likely((int64_t)(ea + (bytes - 1)) <= c->seg_read_last[seg] &&                         \
                   ((lin + (bytes - 1)) & PAGE_MASK) == e->read)) {                                \
            uint##bits##_t v;                                                                      \
            memcpy(&v, (const void *)(lin + e->addend), bytes);                                    \
            return v;                                                                              \
        }                                                                                          \
        return (uint##bits##_t)x86_read_slow(c, seg, ea, bytes);                                   \
    }
#define X86_WRITE_FN(bits, bytes)                                                                  \
    static inline void x86_write##bits(struct x86_vcpu *c, unsigned seg, uint64_t ea,              \
                                       uint##bits##_t v)                                           \
    {                                                                                              \
        uint64_t lin = ea + c->seg_base[seg];                                                      \
        const struct tlb_entry *e = tlb_slot(c, lin);                                              \
        if (likely((int64_t)(ea + (bytes - 1)) <= c->seg_write_last[seg] &&                        \
                   ((lin + (bytes - 1)) & PAGE_MASK) == e->write)) {                               \
            memcpy((void *)(lin + e->addend), &v, bytes);                                          \
            return;                                                                                \
        }                                                                                          \
        x86_write_slow(c, seg, ea, v, bytes);                                                      \
    }
X86_READ_FN(8, 1)
X86_READ_FN(16, 2)
X86_READ_FN(32, 4)
X86_READ_FN(64, 8)
X86_WRITE_FN(8, 1)
X86_WRITE_FN(16, 2)
X86_WRITE_FN(32, 4)
X86_WRITE_FN(64, 8)

/* The host address for a read-modify-write at full speed, or NULL: then
 * x86_probe_write, x86_read and x86_write do it. */
static inline void *x86_rmw_fast(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes)
{
    uint64_t lin = ea + c->seg_base[seg];
    const struct tlb_entry *e = tlb_slot(c, lin);

    if (likely((int64_t)(ea + (bytes - 1)) <= c->seg_write_last[seg] &&
               ((lin + (bytes - 1)) & PAGE_MASK) == e->write))
        return (void *)(lin + e->addend);
    return NULL;
}

/* The same in a page with cached code: x86_run_stored follows the store. */
void *x86_run_beside_code(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes);
void x86_run_stored(struct x86_vcpu *c, const void *host, unsigned bytes);

static inline uint64_t x86_read(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned size)
{
    switch (size) {
    case 1:
        return x86_read8(c, seg, ea);
    case 2:
        return x86_read16(c, seg, ea);
    case 4:
        return x86_read32(c, seg, ea);
    default:
        return x86_read64(c, seg, ea);
    }
}

static inline void x86_write(struct x86_vcpu *c, unsigned seg, uint64_t ea, uint64_t v,
                             unsigned size)
{
    switch (size) {
    case 1:
        x86_write8(c, seg, ea, (uint8_t)v);
        break;
    case 2:
        x86_write16(c, seg, ea, (uint16_t)v);
        break;
    case 4:
        x86_write32(c, seg, ea, (uint32_t)v);
        break;
    default:
        x86_write64(c, seg, ea, v);
        break;
    }
}

/* Any length up to a page (vectors, XSAVE areas); all or nothing on faults. */
void x86_read_bytes(struct x86_vcpu *c, unsigned seg, uint64_t ea, void *buf, unsigned bytes);
void x86_write_bytes(struct x86_vcpu *c, unsigned seg, uint64_t ea, const void *buf,
                     unsigned bytes);
/* Without alignment checks: gathers, scatters and masked moves. */
uint64_t x86_element_read(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned size);
void x86_element_write(struct x86_vcpu *c, unsigned seg, uint64_t ea, uint64_t v, unsigned size);
void x86_element_probe(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes);
/* Raises whatever reading that byte would raise, and does not read it: it may be
 * a device's. */
void x86_probe_read(struct x86_vcpu *c, unsigned seg, uint64_t ea);
/* Raises whatever writing those bytes would raise; sets A and D. */
void x86_probe_write(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes);
/* The host address for an atomic read-modify-write of an operand that lies in
 * one page of plain RAM without cached code; else NULL (after raising what
 * the write would raise): then the caller works under vcpu_exclusive_begin. */
void *x86_rmw_pointer(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes);

/* The linear address of a data access after all segment checks (limit, type,
 * canonical: #GP or #SS), without touching memory. */
gva_t x86_linear(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes,
                 enum x86_access access);

/* ---- accesses by linear address ---- */
/* Implicit supervisor accesses: descriptor tables, TSS (SMAP: EFLAGS.AC does
 * not help them). bytes <= 8. */
uint64_t x86_system_read(struct x86_vcpu *c, gva_t gva, unsigned bytes);
void x86_system_write(struct x86_vcpu *c, gva_t gva, uint64_t v, unsigned bytes);
/* Sets bits of a descriptor byte atomically (accessed, busy). */
void x86_system_or8(struct x86_vcpu *c, gva_t gva, uint8_t bits);
/* Explicit accesses by linear address with the rights of cpl: the stacks of
 * other privilege levels (user = cpl == 3). bytes <= 8. */
uint64_t x86_lin_read(struct x86_vcpu *c, gva_t gva, unsigned bytes, bool user);
void x86_lin_write(struct x86_vcpu *c, gva_t gva, uint64_t v, unsigned bytes, bool user);
void x86_lin_probe_write(struct x86_vcpu *c, gva_t gva, unsigned bytes, bool user);

static inline bool x86_is_canonical(const struct x86_vcpu *c, uint64_t a)
{
    unsigned shift = c->s.cr4 & CR4_LA57 ? 64 - 57 : 64 - 48;

    return (uint64_t)((int64_t)(a << shift) >> shift) == a;
}

#endif
