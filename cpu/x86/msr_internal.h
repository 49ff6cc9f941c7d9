/*
 * What msr.c, mtrr.c and cr.c share.
 */
#ifndef CPU_X86_MSR_INTERNAL_H
#define CPU_X86_MSR_INTERNAL_H

#include "cpu/x86/msr.h"

enum msr_index {
    MSR_P5_MC_ADDR = 0x0,
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_TEST_CTRL = 0x33,
    MSR_SMI_COUNT = 0x34,
    MSR_CORE_THREAD_COUNT = 0x35,
    MSR_FEATURE_CONTROL = 0x3a,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_PPIN_CTL = 0x4e,
    MSR_BIOS_UPDT_TRIG = 0x79,
    MSR_BIOS_SIGN_ID = 0x8b,
    MSR_PLATFORM_INFO = 0xce,
    MSR_CORE_CAPABILITIES = 0xcf,
    MSR_MTRRCAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_MISC_FEATURES_ENABLES = 0x140,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MCG_CTL = 0x17b,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_TURBO_RATIO_LIMIT = 0x1ad,
    MSR_DEBUGCTL = 0x1d9,
    MSR_LAST_BRANCH = 0x1db, /* four */
    MSR_MTRR_PHYS = 0x200,   /* base and mask of each */
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K = 0x258, /* two */
    MSR_MTRR_FIX4K = 0x268,  /* eight */
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_MC0 = 0x400, /* CTL, STATUS, ADDR, MISC of each bank */
    MSR_RAPL_POWER_UNIT = 0x606,
    MSR_PPERF = 0x64e,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800, /* 256 */
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_FMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define MSR_AMD_DE_CFG 0xc0011029u

/* mtrr.c: n counts from the row's first MSR. */
bool x86_mtrr_cap_read(struct x86_vcpu *c, uint32_t n, uint64_t *value);
bool x86_mtrr_phys_read(struct x86_vcpu *c, uint32_t n, uint64_t *value);
bool x86_mtrr_phys_write(struct x86_vcpu *c, uint32_t n, uint64_t value);
bool x86_mtrr_types_valid(const struct x86_vcpu *c, uint64_t value); /* a fixed register */
bool x86_mtrr_def_type_valid(const struct x86_vcpu *c, uint64_t value);
bool x86_pat_valid(const struct x86_vcpu *c, uint64_t value);
void x86_mtrr_reset(struct x86_vcpu *c);

#endif
