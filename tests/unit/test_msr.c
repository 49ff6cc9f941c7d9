/* Model-specific and control registers: cpu/x86/msr.c, mtrr.c, cr.c. */
#include "tests/unit/cpu_fixture.h"

#include "cpu/x86/msr_internal.h"

static struct fixture f;
static struct x86_vcpu *c;

static int start_max(void **state)
{
    fixture_start(&f, "max", 1);
    c = f.cpu[0];
    return 0;
}

static int start_la57(void **state)
{
    fixture_start(&f, "max,+la57", 1);
    c = f.cpu[0];
    return 0;
}

static int start_small(void **state)
{
    fixture_start(&f, "x86-64-v2,-lm,-mca,-rdtscp,-ssbd", 1);
    c = f.cpu[0];
    return 0;
}

static int stop(void **state)
{
    fixture_stop(&f);
    return 0;
}

static uint64_t rd(uint32_t msr)
{
    uint64_t value = 0xdead;

    assert_true(x86_msr_read(c, msr, &value));
    return value;
}

static void wr(uint32_t msr, uint64_t value)
{
    assert_true(x86_msr_write(c, msr, value));
}

static void rd_gp(uint32_t msr)
{
    uint64_t value;

    assert_false(x86_msr_read(c, msr, &value));
}

static void wr_gp(uint32_t msr, uint64_t value)
{
    assert_false(x86_msr_write(c, msr, value));
}

static void test_reset_values(void **state)
{
    assert_int_equal(rd(MSR_APIC_BASE), 0xfee00900);
    assert_int_equal(rd(MSR_PAT), 0x0007040600070406ull);
    assert_int_equal(rd(MSR_EFER), 0);
    assert_int_equal(rd(MSR_MTRR_DEF_TYPE), 0);
    assert_int_equal(rd(MSR_MISC_ENABLE), 0x1801);
    assert_int_equal(rd(MSR_MTRRCAP), 0x508);
    assert_int_equal(rd(MSR_MCG_CAP), 0x101);
    /* Linux: enhanced IBRS, and nothing is affected. */
    assert_int_equal(rd(MSR_ARCH_CAPABILITIES), 0x400000000d10e17bull);
}

/* What INIT keeps and what it resets: SDM Vol. 3, table 9-1. */
static void test_reset_and_init(void **state)
{
    wr(MSR_LSTAR, 0x1234);
    wr(MSR_PAT, 0);
    wr(MSR_EFER, EFER_SCE | EFER_NXE);
    wr(MSR_MTRR_PHYS + 3, 0x800);
    wr(MSR_MC0, 5);
    x86_msr_reset(c, true);
    assert_int_equal(rd(MSR_LSTAR), 0x1234);
    assert_int_equal(rd(MSR_PAT), 0);
    assert_int_equal(rd(MSR_MTRR_PHYS + 3), 0x800);
    assert_int_equal(rd(MSR_EFER), 0);
    x86_msr_reset(c, false);
    assert_int_equal(rd(MSR_LSTAR), 0);
    assert_int_equal(rd(MSR_PAT), 0x0007040600070406ull);
    assert_int_equal(rd(MSR_MTRR_PHYS + 3), 0);
    assert_int_equal(rd(MSR_MC0), 0);
}

static void test_unknown(void **state)
{
    rd_gp(0x12345);
    wr_gp(0x12345, 0);
    rd_gp(0xc0010015);
    rd_gp(0x3a);
    wr_gp(MSR_ARCH_CAPABILITIES, 0);
    wr_gp(MSR_MTRRCAP, 0);
    wr_gp(MSR_MCG_CAP, 0);
    rd_gp(MSR_PRED_CMD);
    rd_gp(0x800); /* x2APIC, in xAPIC mode */
    rd_gp(0xda0);
}

/* Every index, any value: nothing but true or #GP. */
static void test_sweep(void **state)
{
    static const uint64_t values[] = {0, 1, ~0ull, 0x8000000000000000ull, 0x0606060606060606ull};
    static const uint32_t bases[] = {0, 0xc0000000, 0x40000000, 0xfffff000};
    uint64_t value;

    for (unsigned b = 0; b < ARRAY_SIZE(bases); b++)
        for (uint32_t n = 0; n < 0x1000; n++)
            for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
                x86_msr_write(c, bases[b] + n, values[v]);
                x86_msr_read(c, bases[b] + n, &value);
            }
    assert_true(c->msr_logged_count <= ARRAY_SIZE(c->msr_logged));
}

static void test_features_gate(void **state)
{
    rd_gp(MSR_STAR);
    rd_gp(MSR_FS_BASE);
    rd_gp(MSR_TSC_AUX);
    rd_gp(MSR_MCG_CAP);
    wr_gp(MSR_EFER, EFER_SCE);
    wr_gp(MSR_EFER, EFER_LME);
    wr(MSR_EFER, EFER_NXE);
    wr_gp(MSR_SPEC_CTRL, 4);
    wr(MSR_SPEC_CTRL, 3);
}

static void test_tsc(void **state)
{
    fixture_set_time(&f, 1000);
    assert_int_equal(x86_tsc(c), 1000);
    wr(MSR_TSC, 5000);
    assert_int_equal(rd(MSR_TSC), 5000);
    assert_int_equal(rd(MSR_TSC_ADJUST), 4000);
    fixture_set_time(&f, 1500);
    assert_int_equal(rd(MSR_TSC), 5500);
    wr(MSR_TSC_ADJUST, (uint64_t)-500);
    assert_int_equal(rd(MSR_TSC), 1000);
    wr(MSR_TSC, 0);
    assert_int_equal(rd(MSR_TSC_ADJUST), (uint64_t)-1500);
}

static void test_efer(void **state)
{
    wr_gp(MSR_EFER, BIT(1));
    wr_gp(MSR_EFER, BIT(12));          /* SVME is another vendor's */
    wr(MSR_EFER, EFER_LMA | EFER_NXE); /* LMA is read-only */
    assert_int_equal(rd(MSR_EFER), EFER_NXE);
    wr(MSR_EFER, EFER_LME);
    c->s.cr0 |= CR0_PG | CR0_PE;
    c->s.efer |= EFER_LMA;
    wr_gp(MSR_EFER, 0);
    wr(MSR_EFER, EFER_LME | EFER_SCE | EFER_NXE);
    assert_int_equal(rd(MSR_EFER), EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE);
    c->s.efer = 0;
    wr_gp(MSR_EFER, EFER_LME);
    c->s.cr0 &= ~(uint64_t)CR0_PG;
    /* XD disabled by firmware: no NXE. */
    wr(MSR_MISC_ENABLE, BIT(34));
    wr_gp(MSR_EFER, EFER_NXE);
}

static void test_canonical(void **state)
{
    static const uint32_t msrs[] = {MSR_LSTAR,       MSR_CSTAR,          MSR_FS_BASE,
                                    MSR_GS_BASE,     MSR_KERNEL_GS_BASE, MSR_SYSENTER_ESP,
                                    MSR_SYSENTER_EIP};

    for (unsigned n = 0; n < ARRAY_SIZE(msrs); n++) {
        wr(msrs[n], 0xffff800000000000ull);
        assert_int_equal(rd(msrs[n]), 0xffff800000000000ull);
        wr(msrs[n], 0x00007fffffffffffull);
        wr_gp(msrs[n], 0x0000800000000000ull);
        wr_gp(msrs[n], 0x8000000000000000ull);
        assert_int_equal(rd(msrs[n]), 0x00007fffffffffffull);
    }
    assert_int_equal(c->s.seg[X86_GS].base, 0x00007fffffffffffull);
    wr(MSR_TSC_AUX, 0xffffffff);
    wr_gp(MSR_TSC_AUX, 0x100000000);
    wr(MSR_STAR, ~0ull);
    wr(MSR_FMASK, ~0ull);
    assert_int_equal(rd(MSR_FMASK), 0xffffffff);
}

static void test_canonical_la57(void **state)
{
    wr(MSR_LSTAR, 0x0000800000000000ull);
    wr(MSR_LSTAR, 0x00ffffffffffffffull);
    wr_gp(MSR_LSTAR, 0x0100000000000000ull);
}

static void test_memory_types(void **state)
{
    wr(MSR_PAT, 0x0706050401000000ull);
    wr_gp(MSR_PAT, 0x0200000000000000ull);
    wr_gp(MSR_PAT, 0x08);
    wr(MSR_MTRR_FIX64K, 0x0606060606060606ull);
    wr_gp(MSR_MTRR_FIX64K, 0x07);
    wr_gp(MSR_MTRR_FIX4K + 7, 0x02);
    wr(MSR_MTRR_FIX16K + 1, 1);
    wr(MSR_MTRR_FIX4K, 4);
    wr(MSR_MTRR_FIX4K + 7, 5);
    assert_int_equal(c->s.mtrr_fixed[0], 0x0606060606060606ull);
    assert_int_equal(c->s.mtrr_fixed[2], 1);
    assert_int_equal(c->s.mtrr_fixed[3], 4);
    assert_int_equal(c->s.mtrr_fixed[10], 5);
    wr(MSR_MTRR_DEF_TYPE, 0xc06);
    wr_gp(MSR_MTRR_DEF_TYPE, 0x1006);
    wr_gp(MSR_MTRR_DEF_TYPE, 0x003);
    wr(MSR_MTRR_PHYS + 14, 0x80000006);
    wr_gp(MSR_MTRR_PHYS + 14, 0x80000106);
    wr_gp(MSR_MTRR_PHYS + 14, 0x80000002);
    wr_gp(MSR_MTRR_PHYS + 14, BIT(f.model.phys_bits));
    wr(MSR_MTRR_PHYS + 15, BIT(f.model.phys_bits) - 0x1000 + 0x800);
    wr_gp(MSR_MTRR_PHYS + 15, 0x801);
    rd_gp(MSR_MTRR_PHYS + 16);
}

static void test_machine_check(void **state)
{
    wr(MSR_MC0, ~0ull);
    wr(MSR_MC0 + 1, 0);
    wr_gp(MSR_MC0 + 1, 1);
    wr_gp(MSR_MC0 + 2, 1);
    rd_gp(MSR_MC0 + 4);
    wr(MSR_MCG_STATUS, 7);
    wr_gp(MSR_MCG_STATUS, 8);
    wr(MSR_MCG_CTL, ~0ull);
    assert_int_equal(rd(MSR_MCG_CTL), ~0ull);
}

static void test_speculation(void **state)
{
    wr(MSR_SPEC_CTRL, 7);
    assert_int_equal(rd(MSR_SPEC_CTRL), 7);
    wr_gp(MSR_SPEC_CTRL, 8);
    wr(MSR_PRED_CMD, 1);
    wr_gp(MSR_PRED_CMD, 2);
    wr(MSR_MISC_ENABLE, rd(MSR_MISC_ENABLE) | BIT(22));
    assert_int_equal(rd(MSR_MISC_ENABLE), 0x401801);
    wr_gp(MSR_MISC_ENABLE, BIT(1));
}

/* ---- control registers ---- */

static void cr0(struct x86_vcpu *cpu, uint64_t v)
{
    x86_cr_write(cpu, 0, v);
}

static void cr3(struct x86_vcpu *cpu, uint64_t v)
{
    x86_cr_write(cpu, 3, v);
}

static void cr4(struct x86_vcpu *cpu, uint64_t v)
{
    x86_cr_write(cpu, 4, v);
}

static void cr8(struct x86_vcpu *cpu, uint64_t v)
{
    x86_cr_write(cpu, 8, v);
}

static void lmsw(struct x86_vcpu *cpu, uint64_t v)
{
    x86_lmsw(cpu, (uint16_t)v);
}

static void xcr0(struct x86_vcpu *cpu, uint64_t v)
{
    x86_xsetbv(cpu, 0, v);
}

static void ok(void (*call)(struct x86_vcpu *, uint64_t), uint64_t v)
{
    assert_int_equal(fixture_fault(c, call, v), -1);
}

static void gp(void (*call)(struct x86_vcpu *, uint64_t), uint64_t v)
{
    struct x86_cpu before = c->s;

    assert_int_equal(fixture_fault(c, call, v), VEC_GP);
    assert_memory_equal(&before, &c->s, sizeof before); /* nothing happened */
}

static void to_long_mode(void)
{
    ok(cr0, CR0_PE);
    ok(cr4, CR4_PAE);
    wr(MSR_EFER, EFER_LME);
    c->s.tr.attr = 0x8b; /* busy 32-bit TSS */
    ok(cr0, CR0_PG | CR0_PE);
    assert_int_equal(c->s.efer, EFER_LME | EFER_LMA);
}

static void test_cr0(void **state)
{
    gp(cr0, CR0_PG);
    gp(cr0, CR0_NW);
    gp(cr0, BIT(32));
    ok(cr0, CR0_NW | CR0_CD);
    ok(cr0, 0x1ffaffc0 | CR0_PE); /* bits that are none read as zero */
    assert_int_equal(c->s.cr0, CR0_PE | CR0_ET);
    ok(cr0, CR0_PE | CR0_TS | CR0_EM | CR0_MP | CR0_NE | CR0_WP | CR0_AM);
    x86_clts(c);
    assert_int_equal(c->s.cr0 & CR0_TS, 0);
}

static void test_lmsw(void **state)
{
    ok(cr0, CR0_NE);
    ok(lmsw, 0xfff0 | CR0_TS);
    assert_int_equal(c->s.cr0, CR0_NE | CR0_ET | CR0_TS);
    ok(lmsw, CR0_PE);
    assert_int_equal(c->s.cr0, CR0_NE | CR0_ET | CR0_PE);
    ok(lmsw, 0); /* cannot leave */
    assert_int_equal(c->s.cr0, CR0_NE | CR0_ET | CR0_PE);
}

static void test_long_mode(void **state)
{
    ok(cr0, CR0_PE);
    wr(MSR_EFER, EFER_LME);
    gp(cr0, CR0_PG | CR0_PE); /* no PAE */
    ok(cr4, CR4_PAE);
    c->s.tr.attr = 0x83; /* busy 16-bit TSS */
    gp(cr0, CR0_PG | CR0_PE);
    c->s.tr.attr = 0x8b;
    c->s.seg[X86_CS].attr |= SEG_L;
    gp(cr0, CR0_PG | CR0_PE);
    c->s.seg[X86_CS].attr &= ~(uint32_t)SEG_L;
    ok(cr0, CR0_PG | CR0_PE);
    assert_int_equal(c->s.efer, EFER_LME | EFER_LMA);
    gp(cr4, 0);      /* PAE stays */
    gp(cr0, CR0_PG); /* PE too */
    c->s.seg[X86_CS].attr |= SEG_L;
    gp(cr0, CR0_PE); /* not from 64-bit mode */
    c->s.seg[X86_CS].attr &= ~(uint32_t)SEG_L;
    ok(cr0, CR0_PE);
    assert_int_equal(c->s.efer, EFER_LME);
    ok(cr4, 0);
}

static void test_cr3(void **state)
{
    to_long_mode();
    ok(cr3, 0x12345018);
    assert_int_equal(c->s.cr3, 0x12345018);
    gp(cr3, BIT(f.model.phys_bits));
    gp(cr3, BIT(62));
    gp(cr3, BIT(63));             /* means something with PCIDE only */
    gp(cr4, CR4_PAE | CR4_PCIDE); /* CR3[11:0] is not zero */
    ok(cr3, 0x12345000);
    ok(cr4, CR4_PAE | CR4_PCIDE);
    ok(cr3, BIT(63) | 0x12345abc);
    assert_int_equal(c->s.cr3, 0x12345abc);
    gp(cr0, CR0_PE); /* PG stays with PCIDE */
    ok(cr4, CR4_PAE);
    assert_int_equal(c->s.cr3, 0x12345abc);
}

static void test_cr4(void **state)
{
    gp(cr4, BIT(13)); /* VMXE */
    gp(cr4, BIT(14)); /* SMXE */
    gp(cr4, BIT(15));
    gp(cr4, BIT(23)); /* CET */
    gp(cr4, BIT(31));
    gp(cr4, BIT(32));
    gp(cr4, CR4_LA57);  /* the model has none */
    gp(cr4, CR4_PCIDE); /* not in long mode */
    ok(cr4, CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PGE | CR4_MCE | CR4_PCE |
                CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_OSXSAVE | CR4_SMEP |
                CR4_SMAP | CR4_PKE);
}

static void test_la57(void **state)
{
    ok(cr4, CR4_PAE | CR4_LA57);
    to_long_mode();
    gp(cr4, CR4_PAE | CR4_LA57);
}

static void test_cr8(void **state)
{
    ok(cr8, 0xf);
    assert_int_equal(x86_cr_read(c, 8), 0xf);
    gp(cr8, 0x10);
    gp(cr8, BIT(63));
}

static void test_xcr0(void **state)
{
    c->s.cpl = 0;
    gp(xcr0, 0);
    gp(xcr0, XCR0_SSE);
    gp(xcr0, XCR0_X87 | XCR0_AVX);
    gp(xcr0, XCR0_X87 | BIT(3));
    gp(xcr0, XCR0_X87 | BIT(62));
    ok(xcr0, XCR0_X87 | XCR0_SSE);
    assert_int_equal(c->s.xcr0, 3);
    if (f.model.xcr0_mask & XCR0_AVX)
        ok(xcr0, 7);
    if (f.model.xcr0_mask & XCR0_OPMASK) {
        gp(xcr0, 7 | XCR0_OPMASK);
        gp(xcr0, 3 | XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM);
        ok(xcr0, f.model.xcr0_mask);
    }
    c->s.cpl = 3;
    gp(xcr0, 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start_max, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reset_values),
        TEST(test_reset_and_init),
        TEST(test_unknown),
        TEST(test_sweep),
        cmocka_unit_test_setup_teardown(test_features_gate, start_small, stop),
        TEST(test_tsc),
        TEST(test_efer),
        TEST(test_canonical),
        cmocka_unit_test_setup_teardown(test_canonical_la57, start_la57, stop),
        TEST(test_memory_types),
        TEST(test_machine_check),
        TEST(test_speculation),
        TEST(test_cr0),
        TEST(test_lmsw),
        TEST(test_long_mode),
        TEST(test_cr3),
        TEST(test_cr4),
        cmocka_unit_test_setup_teardown(test_la57, start_la57, stop),
        TEST(test_cr8),
        TEST(test_xcr0),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
