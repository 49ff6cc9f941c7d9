/*
 * What the host's processor can execute: CPUID of the host (SDM Vol. 2,
 * CPUID), and whether its operating system saves the registers in question
 * (SDM Vol. 1, 13.3, 14.3, 15.2).
 *
 * Interface: x86_host_has in cpuid.h. No state, any thread.
 */
#include <cpuid.h>

#include "cpu/x86/cpuid.h"
#include "cpu/x86/state.h"

/* Registers an instruction set needs enabled in the host's XCR0. */
enum host_registers {
    HOST_NOT_NEEDED, /* implemented without the host's instruction */
    HOST_PLAIN,      /* general or SSE registers */
    HOST_YMM,
    HOST_ZMM,
};

/* Features that run on the host processor; the rest is Vireo's own code. */
static const uint8_t host_needs[X86_FEAT_COUNT] = {
    [X86_FEAT_FPU] = HOST_PLAIN,         [X86_FEAT_MMX] = HOST_PLAIN,
    [X86_FEAT_SSE] = HOST_PLAIN,         [X86_FEAT_SSE2] = HOST_PLAIN,
    [X86_FEAT_SSE3] = HOST_PLAIN,        [X86_FEAT_SSSE3] = HOST_PLAIN,
    [X86_FEAT_SSE4_1] = HOST_PLAIN,      [X86_FEAT_SSE4_2] = HOST_PLAIN,
    [X86_FEAT_PCLMULQDQ] = HOST_PLAIN,   [X86_FEAT_AES] = HOST_PLAIN,
    [X86_FEAT_SHA] = HOST_PLAIN,         [X86_FEAT_GFNI] = HOST_PLAIN,
    [X86_FEAT_CX16] = HOST_PLAIN,        [X86_FEAT_POPCNT] = HOST_PLAIN,
    [X86_FEAT_LZCNT] = HOST_PLAIN,       [X86_FEAT_BMI1] = HOST_PLAIN,
    [X86_FEAT_BMI2] = HOST_PLAIN,        [X86_FEAT_ADX] = HOST_PLAIN,
    [X86_FEAT_AVX] = HOST_YMM,           [X86_FEAT_F16C] = HOST_YMM,
    [X86_FEAT_FMA] = HOST_YMM,           [X86_FEAT_AVX2] = HOST_YMM,
    [X86_FEAT_VAES] = HOST_YMM,          [X86_FEAT_VPCLMULQDQ] = HOST_YMM,
    [X86_FEAT_AVX_VNNI] = HOST_YMM,      [X86_FEAT_AVX512F] = HOST_ZMM,
    [X86_FEAT_AVX512DQ] = HOST_ZMM,      [X86_FEAT_AVX512_IFMA] = HOST_ZMM,
    [X86_FEAT_AVX512CD] = HOST_ZMM,      [X86_FEAT_AVX512BW] = HOST_ZMM,
    [X86_FEAT_AVX512VL] = HOST_ZMM,      [X86_FEAT_AVX512_VBMI] = HOST_ZMM,
    [X86_FEAT_AVX512_VBMI2] = HOST_ZMM,  [X86_FEAT_AVX512_VNNI] = HOST_ZMM,
    [X86_FEAT_AVX512_BITALG] = HOST_ZMM, [X86_FEAT_AVX512_VPOPCNTDQ] = HOST_ZMM,
    [X86_FEAT_AVX512_BF16] = HOST_ZMM,
};

enum { CPUID1_ECX_OSXSAVE = 1 << 27 };

static uint64_t host_xcr0(void)
{
    uint32_t eax, ebx, ecx, edx;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & CPUID1_ECX_OSXSAVE))
        return 0;
    __asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (uint64_t)edx << 32 | eax;
}

bool x86_host_has(enum x86_feature f)
{
    const uint64_t ymm = XCR0_SSE | XCR0_AVX;
    const uint64_t zmm = ymm | XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM;
    const struct x86_feature_info *info;
    uint32_t out[4];

    if (f >= X86_FEAT_COUNT)
        return f == X86_FEAT_ALWAYS;
    if (host_needs[f] == HOST_NOT_NEEDED)
        return true;
    info = &x86_feature_info[f];
    if (!__get_cpuid_count(info->leaf, info->subleaf, &out[CPUID_EAX], &out[CPUID_EBX],
                           &out[CPUID_ECX], &out[CPUID_EDX]))
        return false;
    if (!(out[info->reg] >> info->bit & 1))
        return false;
    if (host_needs[f] == HOST_YMM)
        return (host_xcr0() & ymm) == ymm;
    if (host_needs[f] == HOST_ZMM)
        return (host_xcr0() & zmm) == zmm;
    return true;
}
