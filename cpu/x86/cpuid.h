/*
 * CPUID as one table, and the features behind it: what is advertised is
 * implemented, and what is not advertised does not execute (#UD).
 *
 * A feature is one bit of a CPUID leaf. The decoder asks x86_has() for the
 * feature of an instruction's set when it binds the instruction.
 */
#ifndef CPU_X86_CPUID_H
#define CPU_X86_CPUID_H

#include "base/base.h"
#include "base/error.h"

struct x86_vcpu;

/* The core crystal clock of leaf 15H, which the local APIC's timer counts. UEFI
 * firmware for virtual machines takes it for 1 GHz without asking (OVMF's
 * PcdFSBClock), so 1 GHz it is. */
#define X86_CRYSTAL_HZ 1000000000u

/* The microcode update revision that IA32_BIOS_SIGN_ID shows after CPUID(1). */
#define X86_MICROCODE_REVISION 1u

enum x86_cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* X(id, name for --cpu +name, leaf, subleaf, register, bit) */
#define X86_FEATURES(X)                                                                            \
    X(FPU, "fpu", 1, 0, EDX, 0)                                                                    \
    X(VME, "vme", 1, 0, EDX, 1)                                                                    \
    X(DE, "de", 1, 0, EDX, 2)                                                                      \
    X(PSE, "pse", 1, 0, EDX, 3)                                                                    \
    X(TSC, "tsc", 1, 0, EDX, 4)                                                                    \
    X(MSR, "msr", 1, 0, EDX, 5)                                                                    \
    X(PAE, "pae", 1, 0, EDX, 6)                                                                    \
    X(MCE, "mce", 1, 0, EDX, 7)                                                                    \
    X(CX8, "cx8", 1, 0, EDX, 8)                                                                    \
    X(APIC, "apic", 1, 0, EDX, 9)                                                                  \
    X(SEP, "sep", 1, 0, EDX, 11)                                                                   \
    X(MTRR, "mtrr", 1, 0, EDX, 12)                                                                 \
    X(PGE, "pge", 1, 0, EDX, 13)                                                                   \
    X(MCA, "mca", 1, 0, EDX, 14)                                                                   \
    X(CMOV, "cmov", 1, 0, EDX, 15)                                                                 \
    X(PAT, "pat", 1, 0, EDX, 16)                                                                   \
    X(PSE36, "pse36", 1, 0, EDX, 17)                                                               \
    X(CLFSH, "clfsh", 1, 0, EDX, 19)                                                               \
    X(MMX, "mmx", 1, 0, EDX, 23)                                                                   \
    X(FXSR, "fxsr", 1, 0, EDX, 24)                                                                 \
    X(SSE, "sse", 1, 0, EDX, 25)                                                                   \
    X(SSE2, "sse2", 1, 0, EDX, 26)                                                                 \
    X(SS, "ss", 1, 0, EDX, 27)                                                                     \
    X(HTT, "htt", 1, 0, EDX, 28)                                                                   \
    X(SSE3, "sse3", 1, 0, ECX, 0)                                                                  \
    X(PCLMULQDQ, "pclmulqdq", 1, 0, ECX, 1)                                                        \
    X(MONITOR, "monitor", 1, 0, ECX, 3)                                                            \
    X(SSSE3, "ssse3", 1, 0, ECX, 9)                                                                \
    X(FMA, "fma", 1, 0, ECX, 12)                                                                   \
    X(CX16, "cx16", 1, 0, ECX, 13)                                                                 \
    X(PCID, "pcid", 1, 0, ECX, 17)                                                                 \
    X(SSE4_1, "sse4_1", 1, 0, ECX, 19)                                                             \
    X(SSE4_2, "sse4_2", 1, 0, ECX, 20)                                                             \
    X(X2APIC, "x2apic", 1, 0, ECX, 21)                                                             \
    X(MOVBE, "movbe", 1, 0, ECX, 22)                                                               \
    X(POPCNT, "popcnt", 1, 0, ECX, 23)                                                             \
    X(TSC_DEADLINE, "tsc-deadline", 1, 0, ECX, 24)                                                 \
    X(AES, "aes", 1, 0, ECX, 25)                                                                   \
    X(XSAVE, "xsave", 1, 0, ECX, 26)                                                               \
    X(OSXSAVE, "osxsave", 1, 0, ECX, 27)                                                           \
    X(AVX, "avx", 1, 0, ECX, 28)                                                                   \
    X(F16C, "f16c", 1, 0, ECX, 29)                                                                 \
    X(RDRAND, "rdrand", 1, 0, ECX, 30)                                                             \
    X(HYPERVISOR, "hypervisor", 1, 0, ECX, 31)                                                     \
    X(ARAT, "arat", 6, 0, EAX, 2)                                                                  \
    X(FSGSBASE, "fsgsbase", 7, 0, EBX, 0)                                                          \
    X(TSC_ADJUST, "tsc-adjust", 7, 0, EBX, 1)                                                      \
    X(BMI1, "bmi1", 7, 0, EBX, 3)                                                                  \
    X(AVX2, "avx2", 7, 0, EBX, 5)                                                                  \
    X(FDP_EXCPTN_ONLY, "fdp-excptn-only", 7, 0, EBX, 6)                                            \
    X(SMEP, "smep", 7, 0, EBX, 7)                                                                  \
    X(BMI2, "bmi2", 7, 0, EBX, 8)                                                                  \
    X(ERMS, "erms", 7, 0, EBX, 9)                                                                  \
    X(INVPCID, "invpcid", 7, 0, EBX, 10)                                                           \
    X(ZERO_FCS_FDS, "zero-fcs-fds", 7, 0, EBX, 13)                                                 \
    X(AVX512F, "avx512f", 7, 0, EBX, 16)                                                           \
    X(AVX512DQ, "avx512dq", 7, 0, EBX, 17)                                                         \
    X(RDSEED, "rdseed", 7, 0, EBX, 18)                                                             \
    X(ADX, "adx", 7, 0, EBX, 19)                                                                   \
    X(SMAP, "smap", 7, 0, EBX, 20)                                                                 \
    X(AVX512_IFMA, "avx512ifma", 7, 0, EBX, 21)                                                    \
    X(CLFLUSHOPT, "clflushopt", 7, 0, EBX, 23)                                                     \
    X(CLWB, "clwb", 7, 0, EBX, 24)                                                                 \
    X(AVX512CD, "avx512cd", 7, 0, EBX, 28)                                                         \
    X(SHA, "sha", 7, 0, EBX, 29)                                                                   \
    X(AVX512BW, "avx512bw", 7, 0, EBX, 30)                                                         \
    X(AVX512VL, "avx512vl", 7, 0, EBX, 31)                                                         \
    X(AVX512_VBMI, "avx512vbmi", 7, 0, ECX, 1)                                                     \
    X(UMIP, "umip", 7, 0, ECX, 2)                                                                  \
    X(PKU, "pku", 7, 0, ECX, 3)                                                                    \
    X(OSPKE, "ospke", 7, 0, ECX, 4)                                                                \
    X(AVX512_VBMI2, "avx512vbmi2", 7, 0, ECX, 6)                                                   \
    X(GFNI, "gfni", 7, 0, ECX, 8)                                                                  \
    X(VAES, "vaes", 7, 0, ECX, 9)                                                                  \
    X(VPCLMULQDQ, "vpclmulqdq", 7, 0, ECX, 10)                                                     \
    X(AVX512_VNNI, "avx512vnni", 7, 0, ECX, 11)                                                    \
    X(AVX512_BITALG, "avx512bitalg", 7, 0, ECX, 12)                                                \
    X(AVX512_VPOPCNTDQ, "avx512vpopcntdq", 7, 0, ECX, 14)                                          \
    X(LA57, "la57", 7, 0, ECX, 16)                                                                 \
    X(RDPID, "rdpid", 7, 0, ECX, 22)                                                               \
    X(FSRM, "fsrm", 7, 0, EDX, 4)                                                                  \
    X(MD_CLEAR, "md-clear", 7, 0, EDX, 10)                                                         \
    X(SPEC_CTRL, "spec-ctrl", 7, 0, EDX, 26)                                                       \
    X(ARCH_CAPABILITIES, "arch-capabilities", 7, 0, EDX, 29)                                       \
    X(SSBD, "ssbd", 7, 0, EDX, 31)                                                                 \
    X(AVX_VNNI, "avx-vnni", 7, 1, EAX, 4)                                                          \
    X(AVX512_BF16, "avx512-bf16", 7, 1, EAX, 5)                                                    \
    X(BHI_CTRL, "bhi-ctrl", 7, 2, EDX, 4)                                                          \
    X(XSAVEOPT, "xsaveopt", 0xd, 1, EAX, 0)                                                        \
    X(XSAVEC, "xsavec", 0xd, 1, EAX, 1)                                                            \
    X(XGETBV1, "xgetbv1", 0xd, 1, EAX, 2)                                                          \
    X(LAHF64, "lahf-lm", 0x80000001, 0, ECX, 0)                                                    \
    X(LZCNT, "lzcnt", 0x80000001, 0, ECX, 5)                                                       \
    X(PREFETCHW, "prefetchw", 0x80000001, 0, ECX, 8)                                               \
    X(SYSCALL, "syscall", 0x80000001, 0, EDX, 11)                                                  \
    X(NX, "nx", 0x80000001, 0, EDX, 20)                                                            \
    X(GBPAGES, "pdpe1gb", 0x80000001, 0, EDX, 26)                                                  \
    X(RDTSCP, "rdtscp", 0x80000001, 0, EDX, 27)                                                    \
    X(LM, "lm", 0x80000001, 0, EDX, 29)                                                            \
    X(INVARIANT_TSC, "invtsc", 0x80000007, 0, EDX, 8)

enum x86_feature {
#define X(id, name, leaf, subleaf, reg, bit) X86_FEAT_##id,
    X86_FEATURES(X)
#undef X
        X86_FEAT_COUNT,
    X86_FEAT_ALWAYS = X86_FEAT_COUNT, /* an 8086 had it */
    X86_FEAT_NEVER,                   /* nobody has it here */
};

/* Where a feature is reported, and what --cpu calls it. */
struct x86_feature_info {
    const char *name;
    uint32_t leaf;
    uint8_t subleaf, reg, bit;
};
extern const struct x86_feature_info x86_feature_info[X86_FEAT_COUNT];

/* A processor model with its features chosen: immutable once made. */
struct x86_model {
    const char *name;
    uint64_t features[(X86_FEAT_COUNT + 63) / 64];
    unsigned phys_bits, linear_bits;
    uint64_t xcr0_mask;    /* XCR0 bits the guest may set */
    uint32_t mxcsr_mask;
    uint64_t tsc_hz;       /* reported by leaves 15H and 16H */
    unsigned cpu_count;    /* of the machine: topology leaves */
};

static inline bool x86_model_has(const struct x86_model *m, enum x86_feature f)
{
    return f == X86_FEAT_ALWAYS || (f < X86_FEAT_COUNT && (m->features[f / 64] >> (f % 64) & 1));
}

/* spec: MODEL[,+feature,-feature]...; NULL means "max". */
int x86_model_parse(struct x86_model *m, const char *spec, struct error *err);

/* What the guest reads, dynamic bits (OSXSAVE, OSPKE, APIC id, XSAVE sizes)
 * included. Changes nothing: the board asks too. */
void x86_cpuid(struct x86_vcpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

/* Can this host execute instructions of that feature (asked by max, doctor)? */
bool x86_host_has(enum x86_feature f);

const char *x86_feature_name(enum x86_feature f);

#endif
