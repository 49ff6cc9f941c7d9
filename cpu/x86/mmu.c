/*
 * Accesses to linear memory: from a segment and an offset to host memory or a
 * device (SDM Vol. 3, chapters 3 to 5). Interface: mmu.h; walks are in walk.c,
 * the buffers in tlb.c and fill.c.
 *
 * Whatever the fast path in mmu.h must not do alone (devices, stores to pages
 * that hold cached code, accesses across pages, alignment checks, breakpoints)
 * misses there and ends in the slow functions here.
 *
 * Threading: the owner's thread only.
 */
#include "cpu/x86/mmu.h"

#include <stdatomic.h>

#include "cpu/x86/apic_internal.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/mmu_internal.h"
#include "cpu/x86/vec/vec.h"

/* ---- translation ---- */

/* Where a data access by class goes: host memory, or NULL and *gpa. Raises #PF. */
static uint8_t *translate(struct x86_vcpu *c, enum tlb_class class, gva_t gva,
                          enum x86_access access, gpa_t *gpa, bool *holds_code)
{
    struct tlb *t = &c->mmu->slot[c->mmu->current].tlb[class];
    struct tlb_entry *e = &t->table[tlb_index(t, gva)];
    uint64_t page = gva & PAGE_MASK;
    uint32_t error;
    uint8_t *p;

    *holds_code = false;
    if (access == ACCESS_READ ? e->read == page : e->write == page)
        return (uint8_t *)(gva + e->addend);
    if (e->read == page && (e->flags & TLBE_CODE)) {
        *holds_code = true;
        return (uint8_t *)(gva + e->addend);
    }
    switch (tlb_fill(c, class, gva, access, true, gpa, &p, &error)) {
    case FILL_DIRECT:
        if (access == ACCESS_WRITE) /* the table may have grown */
            *holds_code = t->table[tlb_index(t, gva)].flags & TLBE_CODE;
        return p;
    case FILL_FAULT:
        x86_raise_page_fault(c, gva, error);
    default:
        return NULL;
    }
}

/* ---- one access within a page ---- */

void x86_code_stored(struct x86_vcpu *c, struct ram_block *block, uint64_t offset, uint64_t bytes)
{
    ram_log_note(block, offset);
    /* Data beside code must not cost more than this look. */
    if (!ram_block_has_code(block, offset, bytes))
        return;
    c->engine_ops->code_written(c, block, offset, bytes);
    if (c->vm->vcpu_count > 1) {
        vec_leave(c);
        vcpu_code_written(c->vm, &c->vcpu, block, offset, bytes);
        c->engine_ops->code_stored(c, block, offset, bytes);
    }
}

static void note_stored(struct x86_vcpu *c, const uint8_t *p, unsigned bytes)
{
    struct ram_block *block;
    uint64_t offset;

    if (x86_host_to_block(c, p, &block, &offset))
        x86_code_stored(c, block, offset, bytes);
}

void *x86_run_beside_code(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes)
{
    uint64_t lin = ea + c->seg_base[seg];
    const struct tlb_entry *e = tlb_slot(c, lin);

    if ((int64_t)(ea + (bytes - 1)) > c->seg_write_last[seg] || !(e->flags & TLBE_CODE) ||
        ((lin + (bytes - 1)) & PAGE_MASK) != e->read)
        return NULL;
    return (void *)(lin + e->addend);
}

void x86_run_stored(struct x86_vcpu *c, const void *host, unsigned bytes)
{
    note_stored(c, host, bytes);
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

    if (apic_page_is(c->lapic, gpa)) {
        v = bytes == 8 ? lapic_mmio_read(c->lapic, gpa & 0xfff, 4)
                       : lapic_mmio_read(c->lapic, gpa & 0xfff, bytes);
    } else {
        vec_leave(c);
        as_load(&c->vm->memory, gpa, bytes, &v);
    }
    after_device(c);
    return zext(v, bytes);
}

static void device_write(struct x86_vcpu *c, gpa_t gpa, uint64_t v, unsigned bytes)
{
    if (apic_page_is(c->lapic, gpa)) {
        lapic_mmio_write(c->lapic, gpa & 0xfff, (uint32_t)v, MIN(bytes, 4u));
    } else {
        vec_leave(c);
        as_store(&c->vm->memory, gpa, bytes, v);
    }
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

/* What alignment is checked for (SDM Vol. 3, table 6-7); where a vector operand
 * must be aligned to its size, #GP came before. */
static unsigned alignment_of(unsigned bytes)
{
    switch (bytes) {
    case 10: /* double extended precision */
        return 8;
    case 14: /* x87 environments and states, of 16-bit and of 32-bit shape */
    case 94:
        return 2;
    case 28:
    case 108:
        return 4;
    default:
        return bytes & (bytes - 1) || bytes > 64 ? 1 : MIN(bytes, 16u);
    }
}

/* Segment and alignment of a data access. */
static gva_t data_linear(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes,
                         enum x86_access access)
{
    gva_t lin = x86_linear(c, seg, ea, bytes, access);

    if (unlikely(alignment_checked(c)) && (lin & (alignment_of(bytes) - 1)))
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

uint64_t x86_element_read(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned size)
{
    gva_t lin = x86_linear(c, seg, ea, size, ACCESS_READ);
    uint64_t v = class_read(c, c->tlb_class, lin, size);

    data_breakpoint(c, lin, size, false);
    return v;
}

void x86_element_write(struct x86_vcpu *c, unsigned seg, uint64_t ea, uint64_t v, unsigned size)
{
    gva_t lin = x86_linear(c, seg, ea, size, ACCESS_WRITE);

    class_write(c, c->tlb_class, lin, zext(v, size), size);
    data_breakpoint(c, lin, size, true);
}

void x86_probe_read(struct x86_vcpu *c, unsigned seg, uint64_t ea)
{
    gva_t lin = x86_linear(c, seg, ea, 1, ACCESS_READ);
    gpa_t gpa;
    bool code;

    translate(c, c->tlb_class, lin, ACCESS_READ, &gpa, &code);
    data_breakpoint(c, lin, 1, false);
}

static void probe_write(struct x86_vcpu *c, gva_t lin, unsigned bytes)
{
    gpa_t gpa;
    bool code;

    translate(c, c->tlb_class, lin, ACCESS_WRITE, &gpa, &code);
    if (crosses_page(lin, bytes))
        translate(c, c->tlb_class, lin_add(c, lin, PAGE_SIZE - (lin & ~PAGE_MASK)), ACCESS_WRITE,
                  &gpa, &code);
}

void x86_element_probe(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes)
{
    probe_write(c, x86_linear(c, seg, ea, bytes, ACCESS_WRITE), bytes);
}

void x86_probe_write(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned bytes)
{
    probe_write(c, data_linear(c, seg, ea, bytes, ACCESS_WRITE), bytes);
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
    gva_t lin = data_linear(c, seg, ea, bytes, ACCESS_READ);
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
    gva_t lin = data_linear(c, seg, ea, bytes, ACCESS_WRITE);
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

static void note_fetched(struct tlb_slot *slot, gva_t gva, const struct walk *w)
{
    unsigned kind = w->global ? KIND_GLOBAL : KIND_NONGLOBAL;

    page_set_add(&slot->fetched[kind], gva, 12);
    if (w->shift > 12)
        page_set_add(&slot->fetched_large[kind], gva, w->shift);
}

void x86_fetch_kept(struct x86_vcpu *c, gva_t gva, const struct walk *w)
{
    note_fetched(&c->mmu->slot[c->mmu->current], gva, w);
}

const struct itlb_entry *x86_fetch_translate(struct x86_vcpu *c, gva_t gva)
{
    struct tlb_slot *slot = &c->mmu->slot[c->mmu->current];
    struct itlb *t = &slot->itlb;
    struct itlb_entry *e = itlb_slot(t, gva);
    bool user = c->s.cpl == 3;
    const struct phys_range *range;
    uint64_t bytes = UINT64_MAX;
    gva_t old = e->tag & PAGE_MASK;
    bool was_global = e->global, evicted = e->listed && !(e->tag & ITLB_NONE);
    struct walk w;
    uint32_t error;

    if (walk_access(c, gva, ACCESS_FETCH, user, false, true, &w, &error) != WALK_OK)
        x86_raise_page_fault(c, gva, error);
    e->tag = (gva & PAGE_MASK) | user;
    e->gpa = w.gpa & PAGE_MASK;
    e->global = w.global;
    e->shift = (uint8_t)w.shift;
    range = phys_range(c, e->gpa);
    if (apic_page_is(c->lapic, e->gpa)) {
        e->host = NULL;
    } else if (likely(range)) {
        e->host = range->host + (e->gpa - range->base);
        e->block = range->block;
        e->offset = range->offset + (e->gpa - range->base);
    } else {
        e->host = as_map(&c->vm->memory, e->gpa, &bytes, false, &e->block, &e->offset);
        if (bytes < PAGE_SIZE)
            e->host = NULL;
    }
    if (!e->host)
        e->block = NULL;
    if (!e->listed) {
        e->listed = true;
        t->filled[t->filled_count++] = (uint16_t)(gva >> 12 & (ITLB_ENTRIES - 1));
    }
    note_fetched(slot, gva, &w);
    if (evicted && c->vm->deterministic && c->engine_ops->fetch_dropped)
        c->engine_ops->fetch_dropped(c, false, old, was_global);
    return e;
}
