/*
 * CPUID (SDM Vol. 2, CPUID): one table of leaves. A row gives fixed values, a
 * function for what depends on model, machine or state, or both; the bits of
 * X86_FEATURES are added to whichever leaf they live in.
 *
 * The processor shows family 6, model 8FH (Sapphire Rapids): with the
 * hypervisor bit and IA32_ARCH_CAPABILITIES (msr.c), Linux finds every known
 * weakness "Not affected" or answered by enhanced IBRS, and none of its
 * quirks by model asks for registers that are not here.
 *
 * Threading: the owner's; reads the vCPU's state.
 */
#include "cpu/x86/cpuid.h"
#include "cpu/x86/apic.h"
#include "cpu/x86/msr.h"

#define ANY_SUBLEAF UINT32_MAX

enum cpuid_limits {
    MAX_BASIC = 0x1f,
    MAX_BASIC_LIMITED = 2, /* IA32_MISC_ENABLE[22] */
};
#define HYPERVISOR_BASE 0x40000000u
#define HYPERVISOR_MAX 0x40000010u
#define EXTENDED_BASE 0x80000000u
#define EXTENDED_MAX 0x80000008u

#define SIGNATURE 0x000806f8u /* family 6, model 8FH, stepping 8 */

#define MISC_ENABLE_LIMIT_CPUID BIT(22)
#define MISC_ENABLE_XD_DISABLE BIT(34)

struct cpuid_row {
    uint32_t leaf, subleaf;
    uint32_t fixed[4];
    void (*fill)(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4]);
};

static uint32_t cpu_count(const struct x86_vcpu *c)
{
    return MAX(c->model->cpu_count, 1u);
}

/* Bits of an APIC id that tell the processors of the package apart. */
static unsigned id_bits(const struct x86_vcpu *c)
{
    uint32_t last = cpu_count(c) - 1;

    return last ? 32 - (unsigned)__builtin_clz(last) : 0;
}

static uint64_t tsc_hz(const struct x86_vcpu *c)
{
    return c->model->tsc_hz ? c->model->tsc_hz : c->vm->clock.tsc_hz;
}

static void leaf_0(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    if (c->s.misc_enable & MISC_ENABLE_LIMIT_CPUID)
        out[CPUID_EAX] = MAX_BASIC_LIMITED;
}

static void leaf_1(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    out[CPUID_EBX] |= lapic_id(c->lapic) << 24;
    if (cpu_count(c) > 1) {
        out[CPUID_EBX] |= 1u << id_bits(c) << 16;
        out[CPUID_EDX] |= 1u << 28; /* HTT: that field means something */
    }
    if (c->s.cr4 & CR4_OSXSAVE)
        out[CPUID_ECX] |= 1u << 27;
    if (!(lapic_base_msr(c->lapic) & BIT(11)))
        out[CPUID_EDX] &= ~(1u << 9); /* APIC globally disabled: SDM Vol. 3, 10.4.3 */
}

/* Leaf 4. sharing: log2 of how many processors at most, or the package. */
static const struct cache {
    uint8_t type, level; /* 1 data, 2 instructions, 3 both */
    bool package;
    uint16_t ways;
    uint32_t sets;
} caches[] = {
    {1, 1, false, 12, 64},   /* 48 KiB */
    {2, 1, false, 8, 64},    /* 32 KiB */
    {3, 2, false, 16, 2048}, /* 2 MiB */
    {3, 3, true, 16, 16384}, /* 16 MiB */
};

static void leaf_4(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    uint32_t package = (1u << id_bits(c)) - 1;
    const struct cache *cache;

    if (subleaf >= ARRAY_SIZE(caches))
        return;
    cache = &caches[subleaf];
    out[CPUID_EAX] = cache->type | (uint32_t)cache->level << 5 | 1u << 8 |
                     (cache->package ? package : 0) << 14 | package << 26;
    out[CPUID_EBX] = (64 - 1) | (cache->ways - 1u) << 22;
    out[CPUID_ECX] = cache->sets - 1;
}

static void leaf_7(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    out[CPUID_EAX] = 2; /* subleaves */
    if (c->s.cr4 & CR4_PKE)
        out[CPUID_ECX] |= 1u << 4; /* OSPKE */
}

/* Leaves BH and 1FH: every processor is a core of the only package. */
static void leaf_topology(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    enum { LEVEL_SMT = 1, LEVEL_CORE = 2 };

    out[CPUID_ECX] = subleaf & 0xff;
    out[CPUID_EDX] = lapic_id(c->lapic);
    if (subleaf == 0) {
        out[CPUID_EBX] = 1;
        out[CPUID_ECX] |= LEVEL_SMT << 8;
    } else if (subleaf == 1) {
        out[CPUID_EAX] = id_bits(c);
        out[CPUID_EBX] = cpu_count(c);
        out[CPUID_ECX] |= LEVEL_CORE << 8;
    }
}

/* Extended components of the XSAVE area: where struct x86_xsave has them. */
static const struct {
    uint16_t offset, size;
} xsave_component[] = {
    [2] = {offsetof(struct x86_xsave, ymm_hi), 256},
    [5] = {offsetof(struct x86_xsave, opmask), 64},
    [6] = {offsetof(struct x86_xsave, zmm_hi), 512},
    [7] = {offsetof(struct x86_xsave, hi16_zmm), 1024},
    [9] = {offsetof(struct x86_xsave, pkru), 8},
};

enum { XSAVE_LEGACY_AND_HEADER = 576 };

static uint32_t xsave_bytes(uint64_t components, bool compact)
{
    uint32_t end = XSAVE_LEGACY_AND_HEADER;

    for (unsigned n = 2; n < ARRAY_SIZE(xsave_component); n++)
        if (components >> n & 1)
            end = (compact ? end : xsave_component[n].offset) + xsave_component[n].size;
    return end;
}

static void leaf_d(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    uint64_t mask = c->model->xcr0_mask;

    if (!x86_model_has(c->model, X86_FEAT_XSAVE))
        return;
    if (subleaf == 0) {
        out[CPUID_EAX] = (uint32_t)mask;
        out[CPUID_EBX] = xsave_bytes(c->s.xcr0, false);
        out[CPUID_ECX] = xsave_bytes(mask, false);
        out[CPUID_EDX] = (uint32_t)(mask >> 32);
    } else if (subleaf == 1) {
        if (x86_model_has(c->model, X86_FEAT_XSAVEC))
            out[CPUID_EBX] = xsave_bytes(c->s.xcr0, true);
    } else if (subleaf < ARRAY_SIZE(xsave_component) && (mask >> subleaf & 1)) {
        out[CPUID_EAX] = xsave_component[subleaf].size;
        out[CPUID_EBX] = xsave_component[subleaf].offset;
    }
}

/*
 * TSC = crystal * EBX / EAX: the closest such fraction. Linux multiplies the
 * crystal's kHz by EBX in 32 bits, which bounds EBX, and so leaves an error of up
 * to 25 in a million. A clock that time is kept by should have less, one that
 * events are timed by need not: so what is left goes into the crystal.
 */
static void leaf_15(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    const uint64_t limit = UINT32_MAX / (X86_CRYSTAL_HZ / 1000);
    uint64_t hz = tsc_hz(c), best = UINT64_MAX;

    for (uint64_t d = 1;; d++) {
        uint64_t n = (hz * d + X86_CRYSTAL_HZ / 2) / X86_CRYSTAL_HZ;
        int64_t off = (int64_t)(n * X86_CRYSTAL_HZ - hz * d);
        uint64_t error = (uint64_t)(off < 0 ? -off : off) * 1000 / d; /* in mHz */

        if (n > limit || d > limit)
            break;
        if (error < best) {
            best = error;
            out[CPUID_EAX] = (uint32_t)d;
            out[CPUID_EBX] = (uint32_t)n;
        }
        if (!error)
            break;
    }
    out[CPUID_ECX] = (uint32_t)((hz * out[CPUID_EAX] + out[CPUID_EBX] / 2) / out[CPUID_EBX]);
}

static void leaf_16(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    uint32_t mhz = (uint32_t)((tsc_hz(c) + 500000) / 1000000) & 0xffff;

    out[CPUID_EAX] = mhz; /* base */
    out[CPUID_EBX] = mhz; /* maximum */
    out[CPUID_ECX] = 100; /* bus */
}

/* The timing leaf that several hypervisors have, in kHz. */
static void leaf_hypervisor_timing(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    out[CPUID_EAX] = (uint32_t)(tsc_hz(c) / 1000);
    out[CPUID_EBX] = X86_CRYSTAL_HZ / 1000;
}

static void leaf_extended_1(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    /* Intel reports SYSCALL in 64-bit mode only. */
    if (!x86_64bit_mode(&c->s))
        out[CPUID_EDX] &= ~(1u << 11);
    if (c->s.misc_enable & MISC_ENABLE_XD_DISABLE)
        out[CPUID_EDX] &= ~(1u << 20);
}

static void leaf_sizes(struct x86_vcpu *c, uint32_t subleaf, uint32_t out[4])
{
    out[CPUID_EAX] = c->model->phys_bits | c->model->linear_bits << 8;
}

#define CHARS(a, b, c, d) ((uint32_t)(a) | (b) << 8 | (c) << 16 | (uint32_t)(d) << 24)

static const struct cpuid_row cpuid_rows[] = {
    {0,
     ANY_SUBLEAF,
     {MAX_BASIC, CHARS('G', 'e', 'n', 'u'), CHARS('n', 't', 'e', 'l'), CHARS('i', 'n', 'e', 'I')},
     leaf_0},
    {1, ANY_SUBLEAF, {SIGNATURE, 64 / 8 << 8, 0, 0}, leaf_1}, /* CLFLUSH line: 64 bytes */
    /* TLBs as descriptors B5H, 63H, C3H; 64-byte prefetch; caches: leaf 4. */
    {2, ANY_SUBLEAF, {0x63b5ff01, 0x0000c3f0, 0, 0}, NULL},
    {4, ANY_SUBLEAF, {0}, leaf_4},
    {6, ANY_SUBLEAF, {0}, NULL}, /* ARAT, from the features */
    {7, 0, {0}, leaf_7},
    {7, 1, {0}, NULL},
    {7, 2, {0}, NULL},
    {0xa, ANY_SUBLEAF, {0}, NULL}, /* no performance counters */
    {0xb, ANY_SUBLEAF, {0}, leaf_topology},
    {0xd, 1, {0}, leaf_d},
    {0xd, ANY_SUBLEAF, {0}, leaf_d},
    {0x15, ANY_SUBLEAF, {0}, leaf_15},
    {0x16, ANY_SUBLEAF, {0}, leaf_16},
    {0x1f, ANY_SUBLEAF, {0}, leaf_topology},
    {HYPERVISOR_BASE,
     ANY_SUBLEAF,
     {HYPERVISOR_MAX, CHARS('V', 'i', 'r', 'e'), CHARS('o', 'V', 'i', 'r'),
      CHARS('e', 'o', 'V', 'M')},
     NULL},
    {HYPERVISOR_MAX, ANY_SUBLEAF, {0}, leaf_hypervisor_timing},
    {EXTENDED_BASE, ANY_SUBLEAF, {EXTENDED_MAX, 0, 0, 0}, NULL},
    {0x80000001, ANY_SUBLEAF, {0}, leaf_extended_1},
    {0x80000002,
     ANY_SUBLEAF,
     {CHARS('V', 'i', 'r', 'e'), CHARS('o', ' ', 'V', 'i'), CHARS('r', 't', 'u', 'a'),
      CHARS('l', ' ', 'P', 'r')},
     NULL},
    {0x80000003, ANY_SUBLEAF, {CHARS('o', 'c', 'e', 's'), CHARS('s', 'o', 'r', 0), 0, 0}, NULL},
    {0x80000006, ANY_SUBLEAF, {0, 0, 2048u << 16 | 8u << 12 | 64, 0}, NULL}, /* L2 */
    {0x80000007, ANY_SUBLEAF, {0}, NULL},
    {0x80000008, ANY_SUBLEAF, {0}, leaf_sizes},
};

static bool leaf_exists(const struct x86_vcpu *c, uint32_t leaf)
{
    if (leaf >= EXTENDED_BASE)
        return leaf <= EXTENDED_MAX;
    if (leaf >= HYPERVISOR_BASE && x86_model_has(c->model, X86_FEAT_HYPERVISOR))
        return leaf <= HYPERVISOR_MAX;
    return leaf <= MAX_BASIC;
}

void x86_cpuid(struct x86_vcpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    const struct cpuid_row *row = cpuid_rows;
    const struct cpuid_row *end = row + ARRAY_SIZE(cpuid_rows);

    memset(out, 0, 4 * sizeof out[0]);
    /* Beyond the last leaf, Intel answers with the highest basic one. */
    if (!leaf_exists(c, leaf))
        leaf = MAX_BASIC;
    while (row < end &&
           (row->leaf != leaf || (row->subleaf != ANY_SUBLEAF && row->subleaf != subleaf)))
        row++;
    if (row == end)
        return;
    memcpy(out, row->fixed, sizeof row->fixed);
    for (unsigned f = 0; f < X86_FEAT_COUNT; f++) {
        const struct x86_feature_info *info = &x86_feature_info[f];

        if (info->leaf == leaf && info->subleaf == (row->subleaf == ANY_SUBLEAF ? 0 : subleaf) &&
            x86_model_has(c->model, f))
            out[info->reg] |= 1u << info->bit;
    }
    if (row->fill)
        row->fill(c, subleaf, out);
}
