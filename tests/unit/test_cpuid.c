/* Models and CPUID: cpu/x86/model.c, cpuid.c, host.c. */
#include "tests/unit/cpu_fixture.h"

#include <stdio.h>

static struct x86_model parse(const char *spec)
{
    struct x86_model m;
    struct error err = {""};

    assert_int_equal(x86_model_parse(&m, spec, &err), 0);
    assert_string_equal(err.text, "");
    return m;
}

static void refused(const char *spec, const char *word)
{
    struct x86_model m;
    struct error err = {""};

    assert_true(x86_model_parse(&m, spec, &err) < 0);
    assert_non_null(strstr(err.text, word));
    assert_null(strchr(err.text, '\n'));
}

static void test_models(void **state)
{
    struct x86_model m = parse("x86-64-v2");

    assert_true(x86_model_has(&m, X86_FEAT_SSE4_2));
    assert_true(x86_model_has(&m, X86_FEAT_NX));
    assert_false(x86_model_has(&m, X86_FEAT_AVX));
    assert_false(x86_model_has(&m, X86_FEAT_XSAVE));
    assert_int_equal(m.xcr0_mask, 0);
    assert_int_equal(m.linear_bits, 48);

    m = parse(NULL);
    assert_string_equal(m.name, "max");
    assert_false(x86_model_has(&m, X86_FEAT_LA57));
    assert_false(x86_model_has(&m, X86_FEAT_MONITOR));
    assert_false(x86_model_has(&m, X86_FEAT_OSXSAVE));
    assert_true(x86_model_has(&m, X86_FEAT_PCID));
    assert_true(x86_model_has(&m, X86_FEAT_ALWAYS));
    assert_false(x86_model_has(&m, X86_FEAT_NEVER));
    for (unsigned f = 0; f < X86_FEAT_COUNT; f++)
        if (x86_model_has(&m, f))
            assert_true(x86_host_has(f));

    m = parse("max,+la57");
    assert_true(x86_model_has(&m, X86_FEAT_LA57));
    assert_int_equal(m.linear_bits, 57);
}

static void test_dependencies(void **state)
{
    struct x86_model m = parse("max,-avx");

    assert_false(x86_model_has(&m, X86_FEAT_AVX2));
    assert_false(x86_model_has(&m, X86_FEAT_FMA));
    assert_false(x86_model_has(&m, X86_FEAT_F16C));
    assert_false(x86_model_has(&m, X86_FEAT_VAES));
    assert_false(x86_model_has(&m, X86_FEAT_AVX512F));
    assert_false(x86_model_has(&m, X86_FEAT_AVX512_BF16));
    assert_true(x86_model_has(&m, X86_FEAT_XSAVE));
    assert_int_equal(m.xcr0_mask & XCR0_AVX, 0);

    m = parse("max,-lm");
    assert_false(x86_model_has(&m, X86_FEAT_SYSCALL));
    assert_false(x86_model_has(&m, X86_FEAT_CX16));

    m = parse("max,-fpu");
    assert_false(x86_model_has(&m, X86_FEAT_SSE2));
    assert_false(x86_model_has(&m, X86_FEAT_LM));

    if (x86_host_has(X86_FEAT_AVX2)) {
        m = parse("x86-64-v2,+avx2");
        assert_true(x86_model_has(&m, X86_FEAT_AVX));
        assert_true(x86_model_has(&m, X86_FEAT_XSAVE));
        assert_int_equal(m.xcr0_mask, XCR0_X87 | XCR0_SSE | XCR0_AVX);
        m = parse("x86-64-v2,+avx2,-avx,+aes");
        assert_false(x86_model_has(&m, X86_FEAT_AVX2));
    }
}

static void test_refusals(void **state)
{
    refused("pentium", "pentium");
    refused("", "x86-64-v2");
    refused("max,+frob", "frob");
    refused("max,avx", "+feature");
    refused("max,", "+feature");
    refused("max,+", "+feature");
    refused("max,+monitor", "monitor");
    refused("max,-zero-fcs-fds", "zero-fcs-fds");
    refused("max,+osxsave", "osxsave");
    for (unsigned f = 0; f < X86_FEAT_COUNT; f++)
        if (!x86_host_has(f)) {
            char spec[64];

            snprintf(spec, sizeof spec, "max,+%s", x86_feature_name(f));
            refused(spec, "host");
        }
}

static void test_names_are_unique(void **state)
{
    for (unsigned a = 0; a < X86_FEAT_COUNT; a++)
        for (unsigned b = a + 1; b < X86_FEAT_COUNT; b++)
            assert_string_not_equal(x86_feature_name(a), x86_feature_name(b));
}

static void test_identity(void **state)
{
    struct fixture f;
    uint32_t out[4];
    char brand[49] = "";

    fixture_start(&f, "max", 1);
    x86_cpuid(f.cpu[0], 0, 0, out);
    assert_int_equal(out[CPUID_EAX], 0x1f);
    assert_memory_equal(&out[CPUID_EBX], "Genu", 4);
    assert_memory_equal(&out[CPUID_EDX], "ineI", 4);
    assert_memory_equal(&out[CPUID_ECX], "ntel", 4);
    x86_cpuid(f.cpu[0], 0x40000000, 0, out);
    assert_memory_equal(&out[CPUID_EBX], "VireoVireoVM", 12);
    for (unsigned n = 0; n < 3; n++)
        x86_cpuid(f.cpu[0], 0x80000002 + n, 0, (uint32_t *)(void *)(brand + n * 16));
    assert_string_equal(brand, "Vireo Virtual Processor");
    /* Beyond the last leaf: the last basic one. */
    x86_cpuid(f.cpu[0], 0x1f, 1, out);
    assert_int_equal(out[CPUID_ECX], 0x201);
    x86_cpuid(f.cpu[0], 0x12345678, 1, out);
    assert_int_equal(out[CPUID_ECX], 0x201);
    x86_cpuid(f.cpu[0], 0x80000009, 1, out);
    assert_int_equal(out[CPUID_ECX], 0x201);
    fixture_stop(&f);
}

/* Each feature of the model, and only those, shows where it belongs. */
static void test_features_show(void **state)
{
    static const char *const specs[] = {"x86-64-v2", "max", "max,-avx,-apic,-nx"};

    for (unsigned s = 0; s < ARRAY_SIZE(specs); s++) {
        struct fixture f;

        fixture_start(&f, specs[s], 1);
        /* SYSCALL is reported in 64-bit mode only. */
        f.cpu[0]->s.efer |= EFER_LMA | EFER_LME;
        f.cpu[0]->s.seg[X86_CS].attr |= SEG_L;
        for (unsigned n = 0; n < X86_FEAT_COUNT; n++) {
            const struct x86_feature_info *info = &x86_feature_info[n];
            uint32_t out[4];

            x86_cpuid(f.cpu[0], info->leaf, info->subleaf, out);
            assert_int_equal(out[info->reg] >> info->bit & 1, x86_model_has(&f.model, n));
        }
        fixture_stop(&f);
    }
}

static bool bit(struct x86_vcpu *c, enum x86_feature f)
{
    const struct x86_feature_info *info = &x86_feature_info[f];
    uint32_t out[4];

    x86_cpuid(c, info->leaf, info->subleaf, out);
    return out[info->reg] >> info->bit & 1;
}

static void test_dynamic_bits(void **state)
{
    struct fixture f;
    struct x86_vcpu *c;
    uint64_t value;

    fixture_start(&f, "max", 2);
    c = f.cpu[0];
    assert_false(bit(c, X86_FEAT_OSXSAVE));
    c->s.cr4 |= CR4_OSXSAVE | CR4_PKE;
    assert_true(bit(c, X86_FEAT_OSXSAVE));
    assert_true(bit(c, X86_FEAT_OSPKE));
    assert_true(bit(c, X86_FEAT_HTT));
    assert_false(bit(c, X86_FEAT_SYSCALL));
    assert_true(bit(c, X86_FEAT_APIC));
    assert_true(lapic_set_base_msr(c->lapic, 0xfee00000));
    assert_false(bit(c, X86_FEAT_APIC));

    /* The microcode revision appears with the instruction, not because the board
     * asks (tests/fuzz/corpus). */
    assert_true(x86_msr_write(c, 0x8b, 0));
    assert_true(x86_msr_read(c, 0x8b, &value));
    assert_int_equal(value, 0);
    bit(c, X86_FEAT_FPU);
    assert_true(x86_msr_read(c, 0x8b, &value));
    assert_int_equal(value, 0);
    fixture_stop(&f);
}

static void test_topology(void **state)
{
    static const struct {
        unsigned count, bits;
    } machines[] = {{1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {8, 3}};
    uint32_t out[4];

    for (unsigned m = 0; m < ARRAY_SIZE(machines); m++) {
        struct fixture f;
        unsigned last = machines[m].count - 1;

        fixture_start(&f, "max", machines[m].count);
        x86_cpuid(f.cpu[last], 0xb, 0, out);
        assert_int_equal(out[CPUID_EAX], 0);
        assert_int_equal(out[CPUID_ECX], 0x100);
        x86_cpuid(f.cpu[last], 0xb, 1, out);
        assert_int_equal(out[CPUID_EAX], machines[m].bits);
        assert_int_equal(out[CPUID_EBX], machines[m].count);
        assert_int_equal(out[CPUID_EDX], last);
        x86_cpuid(f.cpu[last], 0xb, 7, out);
        assert_int_equal(out[CPUID_EBX], 0);
        assert_int_equal(out[CPUID_ECX], 7);
        x86_cpuid(f.cpu[last], 1, 0, out);
        assert_int_equal(out[CPUID_EBX] >> 24, last);
        x86_cpuid(f.cpu[last], 4, 3, out); /* last level: shared by all */
        assert_int_equal(out[CPUID_EAX] >> 26, (1u << machines[m].bits) - 1);
        assert_int_equal(out[CPUID_EAX] >> 14 & 0xfff, (1u << machines[m].bits) - 1);
        x86_cpuid(f.cpu[last], 4, 4, out);
        assert_int_equal(out[CPUID_EAX], 0);
        fixture_stop(&f);
    }
}

static void test_xsave_sizes(void **state)
{
    struct fixture f;
    uint32_t out[4];

    if (!x86_host_has(X86_FEAT_AVX))
        skip();
    fixture_start(&f, "x86-64-v2,+avx,+pku,+xsavec", 1);
    f.cpu[0]->s.xcr0 = XCR0_X87;
    x86_cpuid(f.cpu[0], 0xd, 0, out);
    assert_int_equal(out[CPUID_EAX], XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_PKRU);
    assert_int_equal(out[CPUID_EBX], 576);
    assert_int_equal(out[CPUID_ECX], 2696);
    f.cpu[0]->s.xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    x86_cpuid(f.cpu[0], 0xd, 0, out);
    assert_int_equal(out[CPUID_EBX], 832);
    f.cpu[0]->s.xcr0 |= XCR0_PKRU;
    x86_cpuid(f.cpu[0], 0xd, 1, out);
    assert_int_equal(out[CPUID_EBX], 576 + 256 + 8);
    x86_cpuid(f.cpu[0], 0xd, 2, out);
    assert_int_equal(out[CPUID_EAX], 256);
    assert_int_equal(out[CPUID_EBX], 576);
    x86_cpuid(f.cpu[0], 0xd, 5, out);
    assert_int_equal(out[CPUID_EAX], 0);
    x86_cpuid(f.cpu[0], 0xd, 9, out);
    assert_int_equal(out[CPUID_EAX], 8);
    assert_int_equal(out[CPUID_EBX], 2688);
    x86_cpuid(f.cpu[0], 0xd, 63, out);
    assert_int_equal(out[CPUID_EAX], 0);
    fixture_stop(&f);
}

/* What an operating system computes from leaf 15H, in 32 bits as Linux does. */
static void test_frequencies(void **state)
{
    static const uint64_t hz[] = {1000000000, 2596154123, 2595124000, 3000000000, 3392144789,
                                  4999999999, 800000001,  5700000000, 4000000000};
    struct fixture f;
    uint32_t out[4];

    fixture_start(&f, "max", 1);
    for (unsigned n = 0; n < ARRAY_SIZE(hz); n++) {
        uint32_t khz;
        double exact;

        f.model.tsc_hz = hz[n];
        x86_cpuid(f.cpu[0], 0x15, 0, out);
        assert_in_range(out[CPUID_ECX], X86_CRYSTAL_HZ - X86_CRYSTAL_HZ / 40000,
                        X86_CRYSTAL_HZ + X86_CRYSTAL_HZ / 40000);
        assert_true(out[CPUID_EAX] && out[CPUID_EBX]);
        khz = out[CPUID_ECX] / 1000 * out[CPUID_EBX] / out[CPUID_EAX];
        assert_in_range(khz, hz[n] / 1000 - 6, hz[n] / 1000 + 6);
        exact = (double)out[CPUID_ECX] * out[CPUID_EBX] / out[CPUID_EAX];
        assert_true(exact / (double)hz[n] < 1.000001 && exact / (double)hz[n] > 0.999999);
        if (hz[n] % X86_CRYSTAL_HZ == 0)
            assert_int_equal(out[CPUID_EAX], 1);
        x86_cpuid(f.cpu[0], 0x16, 0, out);
        assert_int_equal(out[CPUID_EAX], (hz[n] + 500000) / 1000000);
        x86_cpuid(f.cpu[0], 0x40000010, 0, out);
        assert_int_equal(out[CPUID_EAX], hz[n] / 1000);
    }
    fixture_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),       cmocka_unit_test(test_dependencies),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_names_are_unique),
        cmocka_unit_test(test_identity),     cmocka_unit_test(test_features_show),
        cmocka_unit_test(test_dynamic_bits), cmocka_unit_test(test_topology),
        cmocka_unit_test(test_xsave_sizes),  cmocka_unit_test(test_frequencies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
