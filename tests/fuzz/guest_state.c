/*
 * Processors and tables for the fuzzer: descriptor tables, task-state segments
 * and page tables that are mostly right, so that something runs, and wrong
 * here and there; page tables that lead to devices, ROM, the local APIC, and
 * to themselves; registers that hold limits.
 */
#include <string.h>

#include "cpu/x86/cpuid.h"
#include "cpu/x86/debug.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_mode_name[FUZZ_MODES] = {
    "real", "protected 16", "protected 32", "V86", "compatibility", "64-bit",
};

/* ---- values ---- */

static const uint64_t devices[] = {
    0xfee00000, 0xfee00080, 0xfee000b0, 0xfee00300, 0xfee00320, 0xfee00380, 0xfec00000,
    0xfec00010, 0xfed00000, 0xfed000f0, 0xfed00100, 0xfed1c000, 0xfed1f000, 0xfff00000,
    0xfffe0000, 0xffffff00, 0xa0000,    0xc0000,    0xe0000,    0xf0000,    0xb0000000,
    0xb00f8000, 0xe0000000, 0x200000,   0x1fff000,  0x1ff000,   1ull << 32, 5ull << 30,
};

uint64_t fuzz_device_address(struct rng *r)
{
    uint64_t a = RNG_PICK(r, devices);

    if (rng_one_in(r, 2))
        a += rng_below(r, 0x1000);
    if (rng_one_in(r, 8))
        a -= rng_below(r, 8);
    return a;
}

uint64_t fuzz_value(struct rng *r)
{
    switch (rng_below(r, 12)) {
    case 0:
        return rng_below(r, 256);
    case 1:
        return 0 - rng_below(r, 64);
    case 2:
        return 1ull << rng_below(r, 64);
    case 3:
        return (1ull << rng_below(r, 64)) - 1 - rng_below(r, 8);
    case 4:
        return fuzz_device_address(r);
    case 5:
        return FUZZ_CODE + rng_below(r, FUZZ_CODE_END - FUZZ_CODE);
    case 6: /* the end of a page */
        return FUZZ_DATA + 0x1000 * rng_below(r, 9) - rng_below(r, 9);
    case 7:
        return rng_below(r, FUZZ_TABLES + FUZZ_TABLE_PAGES * 4096);
    case 8:
        return rng_next(r);
    case 9:
        return 0x00007ffffffffff0 + rng_below(r, 32);
    default:
        return FUZZ_DATA + rng_below(r, FUZZ_DATA_END - FUZZ_DATA);
    }
}

static void put(uint8_t *ram, uint64_t at, uint64_t v, unsigned bytes)
{
    memcpy(ram + at, &v, bytes);
}

/* ---- descriptors ---- */

/* Attributes as bits 40..55 of a descriptor hold them. Index n is for CPL n & 3. */
enum {
    GDT_HANDLER = 3,
    GDT_CODE = 4,
    GDT_DATA = 8,
    GDT_OTHER = 12,
    GDT_COUNT = 64,
    GDT_TSS = 40,
    GDT_LDT = 48
};

static uint64_t descriptor(uint32_t base, uint32_t limit, uint32_t attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xf0ff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(base >> 24) << 56;
}

static uint32_t fuzz_base(struct rng *r)
{
    if (!rng_one_in(r, 8))
        return 0;
    return rng_one_in(r, 3) ? (uint32_t)fuzz_value(r) : (uint32_t)rng_below(r, 0x10000);
}

static uint32_t fuzz_limit(struct rng *r, uint32_t *attr)
{
    if (rng_one_in(r, 6)) {
        *attr &= ~(uint32_t)SEG_G;
        return (uint32_t)rng_below(r, 0x100000);
    }
    *attr |= SEG_G;
    return rng_one_in(r, 8) ? (uint32_t)rng_below(r, 0x100000) : 0xfffff;
}

static uint64_t gate(struct rng *r)
{
    static const uint8_t types[] = {5, 6, 7, 14, 14, 14, 14, 15, 4, 12};
    uint64_t selector = (rng_one_in(r, 20) ? rng_below(r, GDT_COUNT) : GDT_HANDLER) * 8;
    uint64_t offset = FUZZ_CODE + rng_below(r, FUZZ_CODE_END - FUZZ_CODE);
    uint64_t attr = RNG_PICK(r, types) | rng_below(r, 4) << 5 | SEG_P;

    if ((attr & 15) == 5)
        selector = (GDT_TSS + rng_below(r, 8)) * 8;
    if (rng_one_in(r, 20))
        attr = rng_below(r, 256);
    return (offset & 0xffff) | selector << 16 | rng_below(r, 4) << 32 | attr << 40 |
           (offset >> 16) << 48;
}

static void fuzz_descriptors(struct rng *r, uint8_t *ram, enum fuzz_mode mode)
{
    bool lng = mode == FUZZ_LONG || mode == FUZZ_COMPAT;

    for (unsigned n = 1; n < GDT_COUNT; n++) {
        uint32_t attr = (n & 3) << SEG_DPL_SHIFT | SEG_P | SEG_S;
        uint32_t base = fuzz_base(r), limit;
        uint64_t d;

        if (n < GDT_DATA) {
            attr |= SEG_CODE | SEG_READABLE;
            if (n == GDT_HANDLER)
                attr &= ~(uint32_t)SEG_DPL;
            if (rng_one_in(r, 10))
                attr |= SEG_CONFORMING;
            if (mode == FUZZ_LONG || (mode == FUZZ_COMPAT && n == GDT_HANDLER))
                attr |= SEG_L;
            else if (mode != FUZZ_PROT16)
                attr |= SEG_DB;
        } else if (n < GDT_OTHER) {
            attr |= SEG_WRITABLE | (mode != FUZZ_PROT16 ? SEG_DB : 0);
        } else if (rng_one_in(r, 2)) {
            attr ^= (uint32_t)rng_below(r, 32) | (uint32_t)rng_below(r, 16) << 12;
        } else {
            attr = (uint32_t)rng_next(r) & 0xf0ff;
        }
        limit = fuzz_limit(r, &attr);
        if (n < GDT_OTHER && !rng_one_in(r, 30))
            base = 0, limit = 0xfffff, attr |= SEG_G;
        d = descriptor(base, limit, attr);
        if (n >= GDT_TSS && n < GDT_LDT) {
            d = descriptor(FUZZ_TSS + (n - GDT_TSS) * 0x200, 0x1ff + (uint32_t)rng_below(r, 0x2000),
                           SEG_P | (rng_one_in(r, 4) && !lng ? 1 : 9) | (rng_one_in(r, 8) ? 2 : 0));
        } else if (n >= GDT_LDT && n < GDT_LDT + 4) {
            d = descriptor(FUZZ_LDT, 0x1ff, SEG_P | 2);
        } else if (n >= GDT_LDT + 4 && n < GDT_LDT + 12) {
            d = gate(r);
        }
        put(ram, FUZZ_GDT + n * 8, d, 8);
        put(ram, FUZZ_LDT + n * 8, d, 8);
    }
    for (unsigned n = 0; n < 256; n++) {
        if (lng) {
            put(ram, FUZZ_IDT + n * 16, gate(r), 8);
            put(ram, FUZZ_IDT + n * 16 + 8, rng_one_in(r, 20) ? rng_next(r) : 0, 8);
        } else {
            put(ram, FUZZ_IDT + n * 8, gate(r), 8);
        }
    }
}

static void fuzz_tss(struct rng *r, uint8_t *ram, enum fuzz_mode mode)
{
    for (unsigned n = 0; n < 8; n++) {
        uint64_t at = FUZZ_TSS + n * 0x200;

        for (unsigned k = 0; k < 0x200; k += 4)
            put(ram, at + k, rng_one_in(r, 3) ? fuzz_value(r) : 0, 4);
        if (mode == FUZZ_LONG || mode == FUZZ_COMPAT) {
            for (unsigned k = 4; k < 0x60; k += 8)
                put(ram, at + k, rng_one_in(r, 12) ? fuzz_value(r) : FUZZ_STACK + 0x1000, 8);
        } else if (!rng_one_in(r, 8)) {
            for (unsigned k = 0; k < 3; k++) { /* stacks of rings 0 to 2 */
                put(ram, at + 4 + k * 8, FUZZ_STACK + 0x1000 * (k + 1), 4);
                put(ram, at + 8 + k * 8, (GDT_DATA + k) * 8 + k, 4);
            }
            put(ram, at + 0x1c, FUZZ_TABLES, 4);
            put(ram, at + 0x20, FUZZ_CODE + rng_below(r, 0x10000), 4);
            put(ram, at + 0x24, rng_next(r) & 0x3fed7 & ~(rng_one_in(r, 2) ? 0x20000ull : 0), 4);
            put(ram, at + 0x38, FUZZ_STACK + 0x2000, 4);
            for (unsigned k = 0; k < 6; k++)
                put(ram, at + 0x48 + k * 4,
                    k == 1 ? GDT_CODE * 8 : (rng_one_in(r, 6) ? rng_below(r, 512) : GDT_DATA * 8),
                    4);
            put(ram, at + 0x60, rng_one_in(r, 4) ? (GDT_LDT + rng_below(r, 4)) * 8 : 0, 4);
        }
        put(ram, at, rng_one_in(r, 3) ? (GDT_TSS + rng_below(r, 8)) * 8 : 0, 2); /* back link */
        put(ram, at + 0x66, rng_one_in(r, 4) ? rng_below(r, 0x400) : 0x88, 2);
    }
}

/* ---- page tables ---- */

static uint64_t entry_flags(struct rng *r)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   3,
                                   5,
                                   0x87,
                                   0x107,
                                   0x187,
                                   0x1f,
                                   0x67,
                                   0x8000000000000007,
                                   0x0010000000000007,
                                   0x4000000000000007,
                                   0xf800000000000067};

    return rng_one_in(r, 16) ? RNG_PICK(r, odd) : rng_one_in(r, 4) ? 0x07 : 0x67;
}

static uint64_t entry_target(struct rng *r)
{
    switch (rng_below(r, 4)) {
    case 0: /* the tables themselves */
        return FUZZ_TABLES + rng_below(r, FUZZ_TABLE_PAGES) * 0x1000;
    case 1:
        return fuzz_device_address(r) & ~0xfffull;
    case 2:
        return (rng_next(r) & 0xffffffffff000) >> rng_below(r, 32) & ~0xfffull;
    default:
        return rng_below(r, FUZZ_RAM / 4096) * 4096;
    }
}

/*
 * Pages of tables: 0 the root, 1 and 2 the levels below where there are so
 * many, 8 to 11 the lowest. Linear memory begins with RAM, nearly all of it
 * where it is in physical memory; then comes anything.
 */
static void fuzz_tables(struct rng *r, uint8_t *ram, enum fuzz_mode mode, bool pae, bool user)
{
    uint64_t flags = user ? 0x67 : 0x63;
    unsigned bytes = pae ? 8 : 4, count = 4096 / bytes;
    bool lng = mode == FUZZ_LONG || mode == FUZZ_COMPAT;

    for (unsigned page = 0; page < FUZZ_TABLE_PAGES; page++) {
        uint64_t at = FUZZ_TABLES + page * 0x1000ull;
        bool lowest = page >= 8;

        for (unsigned n = 0; n < count; n++) {
            uint64_t e = entry_target(r) | entry_flags(r);

            if (!lowest && n > 3 && n < count - 2 && !rng_one_in(r, 32))
                e = 0;
            if (lowest && page < 10 && !rng_one_in(r, 64))
                e = ((page - 8) * (uint64_t)count + n) << 12 | flags;
            put(ram, at + n * bytes, e, bytes);
        }
    }
    /* The way down. */
    if (lng) {
        put(ram, FUZZ_TABLES, (FUZZ_TABLES + 0x1000) | 0x67, 8);
        put(ram, FUZZ_TABLES + 0x1000, (FUZZ_TABLES + 0x2000) | 0x67, 8);
        for (unsigned n = 0; n < 4; n++)
            put(ram, FUZZ_TABLES + 0x2000 + n * 8, (FUZZ_TABLES + 0x8000 + n * 0x1000ull) | 0x67,
                8);
        put(ram, FUZZ_TABLES + 511 * 8, FUZZ_TABLES | 0x67, 8);
    } else if (pae) {
        for (unsigned n = 0; n < 4; n++)
            put(ram, FUZZ_TABLES + n * 8,
                (FUZZ_TABLES + 0x1000 + n * 0x1000ull) | (rng_one_in(r, 20) ? 0 : 1), 8);
        for (unsigned n = 0; n < 4; n++)
            put(ram, FUZZ_TABLES + 0x1000 + n * 8, (FUZZ_TABLES + 0x8000 + n * 0x1000ull) | 0x67,
                8);
    } else {
        for (unsigned n = 0; n < 4; n++)
            put(ram, FUZZ_TABLES + n * 4, (FUZZ_TABLES + 0x8000 + n * 0x1000ull) | 0x67, 4);
    }
}

void fuzz_memory(struct rng *r, uint8_t *ram, enum fuzz_mode mode)
{
    for (unsigned n = 0; n < 0x1000; n += 4)
        put(ram, n, rng_below(r, 0x1000) << 16 | rng_below(r, 0x10000), 4);
    if (mode == FUZZ_REAL || mode == FUZZ_V86)
        for (unsigned n = 0; n < 256; n++) /* handlers in the code */
            put(ram, n * 4ull, (FUZZ_CODE / 16 + rng_below(r, 0x800)) << 16 | rng_below(r, 0x8000),
                4);
    for (unsigned n = FUZZ_STACK; n < FUZZ_STACK_END; n += 8)
        put(ram, n, rng_one_in(r, 3) ? rng_next(r) : fuzz_value(r), 8);
    for (unsigned n = FUZZ_DATA; n < FUZZ_DATA_END; n += 8)
        put(ram, n, rng_one_in(r, 3) ? rng_next(r) : fuzz_value(r), 8);
    fuzz_descriptors(r, ram, mode);
    fuzz_tss(r, ram, mode);
}

/* ---- the processor ---- */

static void load_descriptor(struct x86_seg *d, const uint8_t *ram, uint16_t selector)
{
    uint64_t e;

    memcpy(&e, ram + FUZZ_GDT + (selector & ~7u), 8);
    d->selector = selector;
    d->base = (e >> 16 & 0xffffff) | (e >> 56) << 24;
    d->attr = e >> 40 & 0xf0ff;
    d->limit = (uint32_t)((e & 0xffff) | (e >> 48 & 15) << 16);
    if (d->attr & SEG_G)
        d->limit = d->limit << 12 | 0xfff;
    if (!(selector & ~3u))
        *d = (struct x86_seg){.attr = SEG_UNUSABLE};
}

static void real_segment(struct rng *r, struct x86_seg *d, uint32_t attr)
{
    d->selector = (uint16_t)(rng_one_in(r, 3) ? rng_next(r) : FUZZ_DATA / 16 + rng_below(r, 256));
    d->base = (uint64_t)d->selector << 4;
    d->limit = 0xffff;
    d->attr = attr;
}

static void fuzz_segments(struct rng *r, struct x86_cpu *s, const uint8_t *ram, enum fuzz_mode mode)
{
    if (mode == FUZZ_REAL || mode == FUZZ_V86) {
        uint32_t attr = SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED;

        if (mode == FUZZ_V86)
            attr |= SEG_DPL;
        for (unsigned n = 0; n < X86_SEG_COUNT; n++)
            real_segment(r, &s->seg[n], attr);
        if (mode == FUZZ_REAL && rng_one_in(r, 4)) /* "unreal" */
            s->seg[X86_DS].limit = s->seg[X86_ES].limit = 0xffffffff;
        s->seg[X86_CS].selector = FUZZ_CODE / 16 + (uint16_t)rng_below(r, 64);
        s->seg[X86_CS].base = (uint64_t)s->seg[X86_CS].selector << 4;
        s->seg[X86_SS].selector = FUZZ_STACK / 16;
        s->seg[X86_SS].base = FUZZ_STACK;
        return;
    }
    load_descriptor(&s->seg[X86_CS], ram, (uint16_t)((GDT_CODE + s->cpl) * 8 + s->cpl));
    load_descriptor(&s->seg[X86_SS], ram, (uint16_t)((GDT_DATA + s->cpl) * 8 + s->cpl));
    for (unsigned n = 0; n < X86_SEG_COUNT; n++) {
        if (n == X86_CS || n == X86_SS)
            continue;
        load_descriptor(&s->seg[n], ram, rng_one_in(r, 5) ? 0 : (uint16_t)((GDT_DATA + 3) * 8 + 3));
    }
}

static void fuzz_control(struct rng *r, struct x86_vcpu *c, enum fuzz_mode mode, bool pae,
                         bool paging)
{
    struct x86_cpu *s = &c->s;
    static const struct {
        uint32_t bit;
        enum x86_feature feature;
    } cr4[] = {
        {CR4_VME, X86_FEAT_VME},    {CR4_PVI, X86_FEAT_VME},   {CR4_TSD, X86_FEAT_TSC},
        {CR4_DE, X86_FEAT_DE},      {CR4_PSE, X86_FEAT_PSE},   {CR4_PGE, X86_FEAT_PGE},
        {CR4_PCE, X86_FEAT_ALWAYS}, {CR4_UMIP, X86_FEAT_UMIP}, {CR4_FSGSBASE, X86_FEAT_FSGSBASE},
        {CR4_SMEP, X86_FEAT_SMEP},  {CR4_SMAP, X86_FEAT_SMAP}, {CR4_PKE, X86_FEAT_PKU},
    };

    s->cr0 = CR0_ET;
    for (unsigned n = 0; n < 4; n++) {
        static const uint32_t bits[] = {CR0_WP, CR0_NE, CR0_MP, CR0_AM};

        if (rng_one_in(r, 2))
            s->cr0 |= bits[n];
    }
    if (rng_one_in(r, 12))
        s->cr0 |= CR0_TS;
    if (rng_one_in(r, 12))
        s->cr0 |= CR0_EM;
    if (mode != FUZZ_REAL)
        s->cr0 |= CR0_PE;
    if (paging)
        s->cr0 |= CR0_PG;
    s->cr4 = CR4_OSFXSR;
    for (unsigned n = 0; n < ARRAY_SIZE(cr4); n++)
        if (x86_model_has(c->model, cr4[n].feature) && rng_one_in(r, 4))
            s->cr4 |= cr4[n].bit;
    if (x86_model_has(c->model, X86_FEAT_XSAVE) && !rng_one_in(r, 4)) {
        s->cr4 |= CR4_OSXSAVE;
        s->xcr0 = c->model->xcr0_mask;
    }
    if (pae)
        s->cr4 |= CR4_PAE;
    s->efer = (rng_one_in(r, 2) ? EFER_SCE : 0) | (pae && rng_one_in(r, 2) ? EFER_NXE : 0);
    if (mode == FUZZ_LONG || mode == FUZZ_COMPAT) {
        s->efer |= EFER_LME | EFER_LMA;
        if (x86_model_has(c->model, X86_FEAT_PCID) && rng_one_in(r, 4))
            s->cr4 |= CR4_PCIDE;
    }
    s->cr3 = FUZZ_TABLES;
}

static uint64_t canonical(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16);
}

static void fuzz_msrs(struct rng *r, struct x86_cpu *s)
{
    uint64_t code = FUZZ_CODE + rng_below(r, 0x10000);

    s->star = (uint64_t)((GDT_CODE - 1 + rng_below(r, 6)) * 8) << 48 |
              (uint64_t)((GDT_CODE + rng_below(r, 4)) * 8) << 32 | code;
    s->lstar = rng_one_in(r, 6) ? canonical(fuzz_value(r)) : code;
    s->cstar = code;
    s->fmask = rng_next(r) & 0xffffffff;
    s->kernel_gs_base = canonical(fuzz_value(r));
    s->sysenter_cs = rng_one_in(r, 4) ? rng_below(r, 0x10000) : GDT_CODE * 8;
    s->sysenter_eip = rng_one_in(r, 8) ? canonical(fuzz_value(r)) : code;
    s->sysenter_esp = rng_one_in(r, 8) ? canonical(fuzz_value(r)) : FUZZ_STACK + 0x1000;
    s->tsc_aux = rng_next(r) & 0xffffffff;
}

void fuzz_cpu(struct rng *r, struct x86_vcpu *c, const uint8_t *ram_in, enum fuzz_mode mode)
{
    struct x86_cpu *s = &c->s;
    bool lng = mode == FUZZ_LONG || mode == FUZZ_COMPAT;
    bool paging = lng || (mode != FUZZ_REAL && rng_one_in(r, 2));
    bool pae = lng || rng_one_in(r, 2);
    uint8_t *ram = (uint8_t *)ram_in;

    for (unsigned n = 0; n < 16; n++)
        s->reg[n] = lng && mode == FUZZ_LONG ? fuzz_value(r) : (uint32_t)fuzz_value(r);
    s->reg[X86_RSP] = FUZZ_STACK + 0x1000 + rng_below(r, 0x6000);
    if (!rng_one_in(r, 4))
        s->reg[X86_RSP] &= ~7ull;
    s->reg[X86_RIP] = FUZZ_CODE + rng_below(r, FUZZ_CODE_END - FUZZ_CODE);
    s->cpl = mode == FUZZ_REAL  ? 0
             : mode == FUZZ_V86 ? 3
             : rng_one_in(r, 2) ? 0
                                : rng_below(r, 4) & 3;
    s->rflags = FLAG_R1 | (rng_next(r) & (FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_AC | FLAG_ID));
    if (rng_one_in(r, 16))
        s->rflags |= rng_next(r) & (FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VIF | FLAG_VIP);
    if (rng_one_in(r, 2))
        s->rflags &= ~(uint64_t)FLAG_DF;
    s->cc = x86_rflags_to_cc(rng_next(r));
    if (mode == FUZZ_V86)
        s->rflags |= FLAG_VM;
    fuzz_control(r, c, mode, pae, paging);
    if (paging)
        fuzz_tables(r, ram, mode, pae, s->cpl != 0 || !(s->cr4 & (CR4_SMEP | CR4_SMAP)));
    if (paging && pae && !lng)
        for (unsigned n = 0; n < 4; n++)
            memcpy(&s->pdpte[n], ram + FUZZ_TABLES + n * 8, 8);
    fuzz_segments(r, s, ram, mode);
    if (mode == FUZZ_REAL || mode == FUZZ_V86) {
        s->reg[X86_RIP] = rng_below(r, 0x8000);
        s->reg[X86_RSP] = rng_below(r, 0x7000);
    }
    s->gdtr = (struct x86_dtr){.base = FUZZ_GDT, .limit = GDT_COUNT * 8 - 1};
    s->idtr = (struct x86_dtr){.base = FUZZ_IDT, .limit = lng ? 0xfff : 0x7ff};
    if (mode == FUZZ_REAL)
        s->idtr = (struct x86_dtr){.base = 0, .limit = 0x3ff};
    if (mode != FUZZ_REAL) {
        load_descriptor(&s->tr, ram, (GDT_TSS + 1) * 8);
        s->tr.attr |= 2; /* busy */
        if (rng_one_in(r, 2))
            load_descriptor(&s->ldtr, ram, GDT_LDT * 8);
    }
    fuzz_msrs(r, s);
    if (rng_one_in(r, 12)) {
        for (unsigned n = 0; n < 4; n++)
            s->dr[n] =
                rng_one_in(r, 2) ? canonical(fuzz_value(r)) : FUZZ_CODE + rng_below(r, 0x10000);
        s->dr7 |= rng_next(r) & 0xffff03ff;
    }
    for (unsigned n = 0; n < 16; n++)
        for (unsigned k = 0; k < 16; k += 8)
            le64_put(s->x.xmm[n] + k, rng_one_in(r, 3) ? rng_next(r) : fuzz_value(r));
    if (rng_one_in(r, 8))
        s->x.mxcsr = (uint32_t)rng_next(r) & c->model->mxcsr_mask & 0xffff;
    if (rng_one_in(r, 8))
        s->x.fcw = (uint16_t)((rng_next(r) & 0x1f3f) | 0x40);
    s->activity = X86_RUNNING;
    s->shadow = 0;
    x86_state_changed(c);
}
