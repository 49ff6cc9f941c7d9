/*
 * Processor models: which features a guest's processor has.
 *
 * A model is a named set of features, changed by +feature and -feature.
 * Features need others (SDM Vol. 1, 13 to 15; Vol. 2, "Detection" of each
 * extension): adding one adds what it needs, removing one removes what needs
 * it. What this host cannot execute or Vireo does not implement is refused.
 *
 * Interface: x86_model_parse and x86_feature_name in cpuid.h. No state.
 */
#include <errno.h>
#include <string.h>

#include "cpu/x86/cpuid.h"
#include "cpu/x86/state.h"

enum {
    PHYS_BITS_MAX = 46,    /* as servers have it */
    PHYS_BITS_LEVELS = 40, /* without 1 GiB pages firmware maps all of it in small ones */
    LINEAR_BITS = 48,
    LINEAR_BITS_LA57 = 57,
    MXCSR_BITS = 0xffff, /* with DAZ; every x86-64 processor but the first ones */
};

const struct x86_feature_info x86_feature_info[X86_FEAT_COUNT] = {
#define X(id, name, leaf, subleaf, reg, bit) {name, leaf, subleaf, CPUID_##reg, bit},
    X86_FEATURES(X)
#undef X
};

/* First needs second. */
static const uint8_t feature_needs[][2] = {
#define NEEDS(a, b)                                                                                \
    {                                                                                              \
        X86_FEAT_##a, X86_FEAT_##b                                                                 \
    }
    NEEDS(MMX, FPU),
    NEEDS(FXSR, FPU),
    NEEDS(SSE, FXSR),
    NEEDS(SSE2, SSE),
    NEEDS(SSE3, SSE2),
    NEEDS(SSSE3, SSE3),
    NEEDS(SSE4_1, SSSE3),
    NEEDS(SSE4_2, SSE4_1),
    NEEDS(PCLMULQDQ, SSE2),
    NEEDS(AES, SSE2),
    NEEDS(SHA, SSSE3),
    NEEDS(GFNI, SSE2),
    NEEDS(FDP_EXCPTN_ONLY, FPU),
    NEEDS(ZERO_FCS_FDS, FPU),
    NEEDS(XSAVE, FXSR),
    NEEDS(XSAVEOPT, XSAVE),
    NEEDS(XSAVEC, XSAVE),
    NEEDS(XGETBV1, XSAVE),
    NEEDS(PKU, XSAVE),
    NEEDS(PKU, LM),
    NEEDS(AVX, XSAVE),
    NEEDS(AVX, SSE4_2),
    NEEDS(F16C, AVX),
    NEEDS(FMA, AVX),
    NEEDS(AVX2, AVX),
    NEEDS(VAES, AVX),
    NEEDS(VAES, AES),
    NEEDS(VPCLMULQDQ, AVX),
    NEEDS(VPCLMULQDQ, PCLMULQDQ),
    NEEDS(AVX_VNNI, AVX2),
    NEEDS(AVX512F, AVX2),
    NEEDS(AVX512F, FMA),
    NEEDS(AVX512F, F16C),
    NEEDS(AVX512DQ, AVX512F),
    NEEDS(AVX512_IFMA, AVX512F),
    NEEDS(AVX512CD, AVX512F),
    NEEDS(AVX512BW, AVX512F),
    NEEDS(AVX512VL, AVX512F),
    NEEDS(AVX512_VBMI, AVX512BW),
    NEEDS(AVX512_VBMI2, AVX512BW),
    NEEDS(AVX512_VNNI, AVX512F),
    NEEDS(AVX512_BITALG, AVX512BW),
    NEEDS(AVX512_VPOPCNTDQ, AVX512F),
    NEEDS(AVX512_BF16, AVX512BW),
    NEEDS(X2APIC, APIC),
    NEEDS(X2APIC, MSR),
    NEEDS(APIC, MSR),
    NEEDS(TSC_DEADLINE, APIC),
    NEEDS(TSC_DEADLINE, TSC),
    NEEDS(ARAT, APIC),
    NEEDS(TSC_ADJUST, TSC),
    NEEDS(TSC_ADJUST, MSR),
    NEEDS(RDTSCP, TSC),
    NEEDS(RDPID, RDTSCP),
    NEEDS(INVARIANT_TSC, TSC),
    NEEDS(SEP, MSR),
    NEEDS(MTRR, MSR),
    NEEDS(PAT, MSR),
    NEEDS(MCE, MSR),
    NEEDS(MCA, MCE),
    NEEDS(PSE36, PSE),
    NEEDS(NX, PAE),
    NEEDS(NX, MSR),
    NEEDS(LM, PAE),
    NEEDS(LM, NX),
    NEEDS(LM, MSR),
    NEEDS(LM, PGE),
    NEEDS(LM, CX8),
    NEEDS(LM, CMOV),
    NEEDS(LM, SSE2),
    NEEDS(SYSCALL, LM),
    NEEDS(LAHF64, LM),
    NEEDS(GBPAGES, LM),
    NEEDS(LA57, LM),
    NEEDS(PCID, LM),
    NEEDS(CX16, LM),
    NEEDS(FSGSBASE, LM),
    NEEDS(SPEC_CTRL, MSR),
    NEEDS(SSBD, SPEC_CTRL),
    NEEDS(BHI_CTRL, SPEC_CTRL),
    NEEDS(ARCH_CAPABILITIES, MSR),
#undef NEEDS
};

/* What every model has: the system's side of a 64-bit processor, which costs
 * no instructions of the host. */
#define SYSTEM_FEATURES(X)                                                                         \
    X(FPU)                                                                                         \
    X(VME) X(DE) X(PSE) X(TSC) X(MSR) X(PAE) X(MCE) X(CX8) X(APIC) X(SEP) X(MTRR) X(PGE) X(MCA)    \
        X(CMOV) X(PAT) X(PSE36) X(CLFSH) X(MMX) X(FXSR) X(SSE) X(SSE2) X(SS) X(PCID) X(X2APIC)     \
            X(TSC_DEADLINE) X(HYPERVISOR) X(ARAT) X(TSC_ADJUST) X(SMEP) X(SMAP) X(UMIP) X(ERMS)    \
                X(FSRM) X(INVPCID) X(ZERO_FCS_FDS) X(FDP_EXCPTN_ONLY) X(MD_CLEAR) X(SPEC_CTRL)     \
                    X(ARCH_CAPABILITIES) X(SSBD) X(BHI_CTRL) X(PREFETCHW) X(SYSCALL) X(NX) X(RDTSCP) X(LM)     \
                        X(INVARIANT_TSC)

/* The levels of the x86-64 psABI, 3.1.1, with what came beside them. */
#define V2_FEATURES(X) X(CX16) X(LAHF64) X(POPCNT) X(SSE3) X(SSSE3) X(SSE4_1) X(SSE4_2)
#define V3_FEATURES(X)                                                                             \
    X(AVX)                                                                                         \
    X(AVX2) X(BMI1) X(BMI2) X(F16C) X(FMA) X(LZCNT) X(MOVBE) X(XSAVE) X(XSAVEOPT) X(AES)           \
        X(PCLMULQDQ) X(FSGSBASE) X(RDRAND)

#define X(id) X86_FEAT_##id,
static const uint8_t v2_list[] = {SYSTEM_FEATURES(X) V2_FEATURES(X)};
static const uint8_t v3_list[] = {SYSTEM_FEATURES(X) V2_FEATURES(X) V3_FEATURES(X)};
#undef X

/* Known by name, and not implemented. MWAIT would need stores of others to
 * wake a processor. */
static const uint8_t unimplemented[] = {X86_FEAT_MONITOR};

/* Implemented, and not part of max: costs a level of every page walk. */
static const uint8_t on_request[] = {X86_FEAT_LA57};

/* CPUID's own to add, from the processor's state or the machine's size. */
static const uint8_t not_chosen[] = {X86_FEAT_HTT, X86_FEAT_OSXSAVE, X86_FEAT_OSPKE};

static const struct {
    const char *name;
    const uint8_t *list; /* NULL: all that host and Vireo have */
    unsigned count;
    unsigned phys_bits;
} models[] = {
    {"max", NULL, 0, PHYS_BITS_MAX},
    {"x86-64-v2", v2_list, ARRAY_SIZE(v2_list), PHYS_BITS_LEVELS},
    {"x86-64-v3", v3_list, ARRAY_SIZE(v3_list), PHYS_BITS_LEVELS},
};

/* What every model keeps: the host's x87 unit does not tell the selectors of the
 * last instruction and operand, so FCS and FDS cannot be anything but zero. */
static const uint8_t kept[] = {X86_FEAT_ZERO_FCS_FDS};

static bool listed(const uint8_t *list, size_t count, enum x86_feature f)
{
    for (size_t n = 0; n < count; n++)
        if (list[n] == f)
            return true;
    return false;
}

const char *x86_feature_name(enum x86_feature f)
{
    return f < X86_FEAT_COUNT ? x86_feature_info[f].name : "none";
}

static bool feature_find(const char *name, size_t length, enum x86_feature *f)
{
    for (unsigned n = 0; n < X86_FEAT_COUNT; n++)
        if (strlen(x86_feature_info[n].name) == length &&
            !memcmp(x86_feature_info[n].name, name, length)) {
            *f = n;
            return true;
        }
    return false;
}

static void feature_put(struct x86_model *m, enum x86_feature f, bool on)
{
    if (on)
        m->features[f / 64] |= BIT(f % 64);
    else
        m->features[f / 64] &= ~BIT(f % 64);
}

static void feature_remove(struct x86_model *m, enum x86_feature f)
{
    if (!x86_model_has(m, f))
        return;
    feature_put(m, f, false);
    for (size_t n = 0; n < ARRAY_SIZE(feature_needs); n++)
        if (feature_needs[n][1] == f)
            feature_remove(m, feature_needs[n][0]);
}

static int feature_add(struct x86_model *m, enum x86_feature f, struct error *err)
{
    if (x86_model_has(m, f))
        return 0;
    if (listed(unimplemented, ARRAY_SIZE(unimplemented), f))
        return error_set(err, -ENOTSUP,
                         "Vireo does not implement the processor feature '%s': leave it out of "
                         "--cpu",
                         x86_feature_name(f));
    if (!x86_host_has(f))
        return error_set(err, -ENOTSUP,
                         "this host's processor cannot execute '%s': choose a smaller --cpu model "
                         "or leave the feature out",
                         x86_feature_name(f));
    feature_put(m, f, true);
    for (size_t n = 0; n < ARRAY_SIZE(feature_needs); n++) {
        int r = feature_needs[n][0] == f ? feature_add(m, feature_needs[n][1], err) : 0;

        if (r)
            return r;
    }
    return 0;
}

/* Everything there is, less what lacks something that it needs. */
static void max_features(struct x86_model *m)
{
    for (unsigned f = 0; f < X86_FEAT_COUNT; f++)
        feature_put(m, f, true);
    for (unsigned f = 0; f < X86_FEAT_COUNT; f++)
        if (!x86_host_has(f) || listed(unimplemented, ARRAY_SIZE(unimplemented), f) ||
            listed(on_request, ARRAY_SIZE(on_request), f) ||
            listed(not_chosen, ARRAY_SIZE(not_chosen), f))
            feature_remove(m, f);
}

static int model_change(struct x86_model *m, const char *word, size_t length, struct error *err)
{
    enum x86_feature f;

    if (length < 2 || (word[0] != '+' && word[0] != '-'))
        return error_set(err, -EINVAL,
                         "'%.*s' in --cpu is not +feature or -feature, for example max,-avx2",
                         (int)length, word);
    if (!feature_find(word + 1, length - 1, &f))
        return error_set(err, -EINVAL,
                         "no processor feature is called '%.*s': 'vireo doctor' lists them",
                         (int)length - 1, word + 1);
    if (listed(not_chosen, ARRAY_SIZE(not_chosen), f))
        return error_set(
            err, -EINVAL,
            "the processor feature '%s' follows from the others: leave it out of --cpu",
            x86_feature_name(f));
    if (word[0] == '+')
        return feature_add(m, f, err);
    if (listed(kept, ARRAY_SIZE(kept), f))
        return error_set(err, -ENOTSUP,
                         "Vireo has no processor without '%s': do not take it away in --cpu",
                         x86_feature_name(f));
    feature_remove(m, f);
    return 0;
}

int x86_model_parse(struct x86_model *m, const char *spec, struct error *err)
{
    const char *word = spec ? spec : "max";
    size_t length = strcspn(word, ",");
    unsigned n;
    int r;

    memset(m, 0, sizeof *m);
    for (n = 0; n < ARRAY_SIZE(models); n++)
        if (strlen(models[n].name) == length && !memcmp(models[n].name, word, length))
            break;
    if (n == ARRAY_SIZE(models))
        return error_set(err, -EINVAL,
                         "no processor model is called '%.*s': choose max, x86-64-v2 or x86-64-v3",
                         (int)length, word);
    m->name = models[n].name;
    m->phys_bits = models[n].phys_bits;
    m->mxcsr_mask = MXCSR_BITS;
    m->cpu_count = 1;

    if (!models[n].list)
        max_features(m);
    for (unsigned f = 0; f < models[n].count; f++) {
        r = feature_add(m, models[n].list[f], err);
        if (r)
            return r;
    }
    for (word += length; *word == ','; word += length) {
        length = strcspn(++word, ",");
        r = model_change(m, word, length, err);
        if (r)
            return r;
    }

    m->linear_bits = x86_model_has(m, X86_FEAT_LA57) ? LINEAR_BITS_LA57 : LINEAR_BITS;
    if (x86_model_has(m, X86_FEAT_XSAVE))
        m->xcr0_mask = XCR0_X87 | (x86_model_has(m, X86_FEAT_SSE) ? XCR0_SSE : 0);
    if (x86_model_has(m, X86_FEAT_AVX))
        m->xcr0_mask |= XCR0_AVX;
    if (x86_model_has(m, X86_FEAT_AVX512F))
        m->xcr0_mask |= XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM;
    if (x86_model_has(m, X86_FEAT_PKU))
        m->xcr0_mask |= XCR0_PKRU;
    return 0;
}
