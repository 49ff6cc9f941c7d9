/*
 * Control registers (SDM Vol. 3, 2.5; Vol. 2, MOV to and from control
 * registers, LMSW, CLTS, XSETBV): checks, mode changes, TLB invalidation.
 *
 * Interface: msr.h. Everything raises before it changes anything. Privilege
 * is the instruction handler's to check, but for XSETBV.
 *
 * Invalidation follows Vol. 3, 4.10.4.1, and goes beyond it where our TLB
 * entries hold the result of a bit that a processor applies at each access:
 * CR0.WP, CR4.SMAP, CR4.PKE.
 *
 * Threading: the vCPU's own.
 */
#include "cpu/x86/apic.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/msr_internal.h"

#define CR0_ALL                                                                                    \
    ((uint64_t)CR0_PG | CR0_CD | CR0_NW | CR0_AM | CR0_WP | CR0_NE | CR0_ET | CR0_TS | CR0_EM |    \
     CR0_MP | CR0_PE)

#define CR3_KEEP BIT(63)    /* with CR4.PCIDE: keep what is cached of the PCID */
#define CR3_LOW_BITS 0xfffu /* PCID, or PWT and PCD */

/* Which bits of CR4 each feature brings. */
static const struct {
    uint32_t bits;
    enum x86_feature feature;
} cr4_features[] = {
    {CR4_VME | CR4_PVI, X86_FEAT_VME}, {CR4_TSD, X86_FEAT_TSC},    {CR4_DE, X86_FEAT_DE},
    {CR4_PSE, X86_FEAT_PSE},           {CR4_PAE, X86_FEAT_PAE},    {CR4_MCE, X86_FEAT_MCE},
    {CR4_PGE, X86_FEAT_PGE},           {CR4_PCE, X86_FEAT_ALWAYS}, {CR4_OSFXSR, X86_FEAT_FXSR},
    {CR4_OSXMMEXCPT, X86_FEAT_SSE},    {CR4_UMIP, X86_FEAT_UMIP},  {CR4_LA57, X86_FEAT_LA57},
    {CR4_FSGSBASE, X86_FEAT_FSGSBASE}, {CR4_PCIDE, X86_FEAT_PCID}, {CR4_OSXSAVE, X86_FEAT_XSAVE},
    {CR4_SMEP, X86_FEAT_SMEP},         {CR4_SMAP, X86_FEAT_SMAP},  {CR4_PKE, X86_FEAT_PKU},
};

static uint64_t cr4_allowed(const struct x86_vcpu *c)
{
    uint64_t bits = 0;

    for (size_t n = 0; n < ARRAY_SIZE(cr4_features); n++)
        if (x86_model_has(c->model, cr4_features[n].feature))
            bits |= cr4_features[n].bits;
    return bits;
}

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

/* TR holds a 16-bit TSS: types 1 and 3. */
static bool tss_is_16bit(const struct x86_vcpu *c)
{
    enum { TYPE_TSS16 = 1, TYPE_TSS_BUSY = 2 };

    return (c->s.tr.attr & (SEG_TYPE | SEG_S) & ~TYPE_TSS_BUSY) == TYPE_TSS16;
}

static void cr0_write(struct x86_vcpu *c, uint64_t value)
{
    const uint64_t pdpte_bits = (uint64_t)CR0_PG | CR0_CD | CR0_NW;
    struct x86_cpu *s = &c->s;
    uint64_t old = s->cr0, efer = s->efer, changed;

    if (value >> 32)
        x86_raise_gp(c, 0);
    value = (value & CR0_ALL) | CR0_ET; /* other bits read as zero */
    changed = old ^ value;
    if ((value & CR0_PG) && !(value & CR0_PE))
        x86_raise_gp(c, 0);
    if ((value & CR0_NW) && !(value & CR0_CD))
        x86_raise_gp(c, 0);

    if ((changed & CR0_PG) && (value & CR0_PG) && (efer & EFER_LME)) {
        /* Into IA-32e mode: Vol. 3, 10.8.5. */
        if (!(s->cr4 & CR4_PAE) || (s->seg[X86_CS].attr & SEG_L) || tss_is_16bit(c))
            x86_raise_gp(c, 0);
        efer |= EFER_LMA;
    } else if ((changed & CR0_PG) && !(value & CR0_PG)) {
        if (s->cr4 & CR4_PCIDE)
            x86_raise_gp(c, 0);
        if (efer & EFER_LMA) {
            if (s->seg[X86_CS].attr & SEG_L)
                x86_raise_gp(c, 0);
            efer &= ~(uint64_t)EFER_LMA;
        }
    }
    /* Vol. 3, 4.4.1. */
    if ((changed & pdpte_bits) && pae_paging(value, s->cr4, efer) &&
        !x86_load_pdptes(c, s->cr3, value, s->cr4, efer))
        x86_raise_gp(c, 0);

    s->cr0 = value;
    s->efer = efer;
    if (changed & ((uint64_t)CR0_PG | CR0_WP))
        x86_tlb_flush_all(c);
    x86_state_changed(c);
}

static void cr3_write(struct x86_vcpu *c, uint64_t value)
{
    if (x86_long_mode(&c->s)) {
        uint64_t reserved = ~(BIT(c->model->phys_bits) - 1);

        if (c->s.cr4 & CR4_PCIDE)
            reserved &= ~CR3_KEEP;
        if (value & reserved)
            x86_raise_gp(c, 0);
    }
    x86_load_cr3(c, value);
}

static void cr4_write(struct x86_vcpu *c, uint64_t value)
{
    const uint64_t pdpte_bits = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP;
    struct x86_cpu *s = &c->s;
    uint64_t old = s->cr4, changed = old ^ value;
    uint64_t on = changed & value, off = changed & old;

    if (value & ~cr4_allowed(c))
        x86_raise_gp(c, 0);
    if (x86_long_mode(s) && ((off & CR4_PAE) || (changed & CR4_LA57)))
        x86_raise_gp(c, 0);
    if ((on & CR4_PCIDE) && (!x86_long_mode(s) || (s->cr3 & CR3_LOW_BITS)))
        x86_raise_gp(c, 0);
    if ((changed & pdpte_bits) && pae_paging(s->cr0, value, s->efer) &&
        !x86_load_pdptes(c, s->cr3, s->cr0, value, s->efer))
        x86_raise_gp(c, 0);

    s->cr4 = value;
    if ((changed & (CR4_PGE | CR4_PAE | CR4_PKE)) || (off & CR4_PCIDE) ||
        (on & (CR4_SMEP | CR4_SMAP)))
        x86_tlb_flush_all(c);
    if (off & CR4_PCIDE)
        x86_load_cr3(c, s->cr3); /* PCID 000H from here on; cannot fault in this mode */
    x86_state_changed(c);
}

uint64_t x86_cr_read(struct x86_vcpu *c, unsigned n)
{
    switch (n) {
    case 0:
        return c->s.cr0;
    case 2:
        return c->s.cr2;
    case 3:
        return c->s.cr3;
    case 4:
        return c->s.cr4;
    case 8:
        return lapic_cr8(c->lapic);
    default:
        x86_raise_ud(c);
    }
}

void x86_cr_write(struct x86_vcpu *c, unsigned n, uint64_t value)
{
    switch (n) {
    case 0:
        cr0_write(c, value);
        break;
    case 2:
        c->s.cr2 = value;
        break;
    case 3:
        cr3_write(c, value);
        break;
    case 4:
        cr4_write(c, value);
        break;
    case 8:
        if (value > 0xf)
            x86_raise_gp(c, 0);
        lapic_set_cr8(c->lapic, (uint8_t)value);
        break;
    default:
        x86_raise_ud(c);
    }
}

void x86_clts(struct x86_vcpu *c)
{
    c->s.cr0 &= ~(uint64_t)CR0_TS;
    x86_state_changed(c);
}

void x86_lmsw(struct x86_vcpu *c, uint16_t value)
{
    const uint64_t low = CR0_PE | CR0_MP | CR0_EM | CR0_TS;

    /* PE can be set, not cleared. */
    cr0_write(c, (c->s.cr0 & ~(low & ~(uint64_t)CR0_PE)) | (value & low));
}

void x86_xsetbv(struct x86_vcpu *c, uint32_t index, uint64_t value)
{
    const uint64_t zmm = XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM;

    if (c->s.cpl || index || (value & ~c->model->xcr0_mask) || !(value & XCR0_X87))
        x86_raise_gp(c, 0);
    if ((value & XCR0_AVX) && !(value & XCR0_SSE))
        x86_raise_gp(c, 0);
    if ((value & zmm) && ((value & zmm) != zmm || !(value & XCR0_AVX)))
        x86_raise_gp(c, 0);
    c->s.xcr0 = value;
    x86_state_changed(c);
}
