/*
 * Model-specific registers (SDM Vol. 4): one table of rows, sorted by index.
 *
 * A row is a run of registers: 64-bit fields of struct x86_cpu with the bits
 * that may be written, or functions. What a processor without the row's
 * feature has not, does not exist for it. A register that is in no row is
 * #GP, logged once; registers that operating systems are known to try on this
 * family, prepared for #GP, have a row that says so and keeps the log quiet.
 *
 * Interface: msr.h. Threading: the vCPU's own.
 */
#include "cpu/x86/apic.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/msr_internal.h"
#include "cpu/x86/vec/vec.h"

enum msr_flags {
    MSR_READ = 1 << 0,
    MSR_WRITE = 1 << 1,
    MSR_RW = MSR_READ | MSR_WRITE,
    MSR_ABSENT = 1 << 2,      /* known, not here: #GP without a word */
    MSR_INIT_RESETS = 1 << 3, /* INIT is like RESET for it (SDM Vol. 3, table 9-1) */
};

struct msr_row {
    uint32_t first;
    uint16_t count;
    uint8_t feature; /* enum x86_feature */
    uint8_t flags;
    uint16_t field; /* offset in struct x86_cpu of the first; 0: none */
    uint64_t reset;
    uint64_t reserved; /* writing one of them is #GP */
    uint64_t ignored;  /* read as zero, whatever is written */
    bool (*valid)(const struct x86_vcpu *c, uint64_t value);
    bool (*read)(struct x86_vcpu *c, uint32_t n, uint64_t *value);
    bool (*write)(struct x86_vcpu *c, uint32_t n, uint64_t value);
};

#define FIELD(member) .field = offsetof(struct x86_cpu, member)

/* ---- values ---- */

#define PAT_RESET 0x0007040600070406ull

enum spec_ctrl_bits {
    SPEC_CTRL_IBRS = 1 << 0,
    SPEC_CTRL_STIBP = 1 << 1,
    SPEC_CTRL_SSBD = 1 << 2,
    SPEC_CTRL_BHI_DIS_S = 1 << 10, /* or Linux clears the history by a loop at each SYSCALL */
};
enum pred_cmd_bits { PRED_CMD_IBPB = 1 << 0 };
enum debugctl_bits { DEBUGCTL_LBR = 1 << 0, DEBUGCTL_BTF = 1 << 1 };
enum mcg_bits { MCG_CTL_P = 1 << 8, MCG_STATUS_BITS = 7 };

enum misc_enable_bits {
    MISC_FAST_STRINGS = 1 << 0,
    MISC_BTS_UNAVAILABLE = 1 << 11,
    MISC_PEBS_UNAVAILABLE = 1 << 12,
    MISC_LIMIT_CPUID = 1 << 22,
};
#define MISC_XD_DISABLE BIT(34)
/* Defined, and read-only because what they switch is not here: thermal control,
 * performance monitoring, BTS, PEBS, TM2, SpeedStep, MONITOR, lock, xTPR, turbo. */
#define MISC_READ_ONLY                                                                             \
    (BIT(3) | BIT(7) | BIT(11) | BIT(12) | BIT(13) | BIT(16) | BIT(18) | BIT(20) | BIT(23) |       \
     BIT(38))

/*
 * IA32_ARCH_CAPABILITIES: nothing of a guest runs speculatively on hardware of
 * its own that these could leak from, so every weakness that can be denied is.
 * (RSBA, TSX_CTRL, FB_CLEAR and RRSBA are left out: they announce trouble.)
 */
#define ARCH_CAPABILITIES                                                                          \
    (BIT(0)    /* RDCL_NO: Meltdown, L1TF */                                                       \
     | BIT(1)  /* IBRS_ALL: enhanced IBRS */                                                       \
     | BIT(3)  /* SKIP_L1DFL_VMENTRY */                                                            \
     | BIT(4)  /* SSB_NO */                                                                        \
     | BIT(5)  /* MDS_NO */                                                                        \
     | BIT(6)  /* IF_PSCHANGE_MC_NO: iTLB multihit */                                              \
     | BIT(8)  /* TAA_NO */                                                                        \
     | BIT(13) /* SBDR_SSDP_NO: MMIO stale data, with the next two */                              \
     | BIT(14) /* FBSDP_NO */                                                                      \
     | BIT(15) /* PSDP_NO */                                                                       \
     | BIT(20) /* BHI_NO */                                                                        \
     | BIT(24) /* PBRSB_NO */                                                                      \
     | BIT(26) /* GDS_NO */                                                                        \
     | BIT(27) /* RFDS_NO */                                                                       \
     | BIT(62) /* ITS_NO: for hypervisors to say */)

/* ---- registers that do something ---- */

uint64_t x86_tsc(struct x86_vcpu *c)
{
    x86_clock_leave(c);
    return clock_tsc(&c->vm->clock) + c->s.tsc_adjust;
}

static bool zero_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = 0;
    return true;
}

static bool nothing_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    return true;
}

static bool tsc_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = x86_tsc(c);
    return true;
}

/* SDM Vol. 3, 18.17.3: each write of one moves the other by as much. */
static bool tsc_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    c->s.tsc_adjust += value - x86_tsc(c);
    lapic_tsc_changed(c->lapic);
    return true;
}

static bool tsc_adjust_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    c->s.tsc_adjust = value;
    lapic_tsc_changed(c->lapic);
    return true;
}

static bool tsc_deadline_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = lapic_tsc_deadline(c->lapic);
    return true;
}

static bool tsc_deadline_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    lapic_set_tsc_deadline(c->lapic, value);
    return true;
}

static bool apic_base_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = lapic_base_msr(c->lapic);
    return true;
}

static bool apic_base_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    return lapic_set_base_msr(c->lapic, value);
}

static bool x2apic_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    return lapic_msr_read(c->lapic, MSR_X2APIC + n, value);
}

static bool x2apic_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    return lapic_msr_write(c->lapic, MSR_X2APIC + n, value);
}

static bool spec_ctrl_valid(const struct x86_vcpu *c, uint64_t value)
{
    if ((value & SPEC_CTRL_BHI_DIS_S) && !x86_model_has(c->model, X86_FEAT_BHI_CTRL))
        return false;
    return x86_model_has(c->model, X86_FEAT_SSBD) || !(value & SPEC_CTRL_SSBD);
}

/* A predictor barrier: there is nothing of the guest's to flush. */
static bool pred_cmd_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    return !(value & ~(uint64_t)PRED_CMD_IBPB);
}

static bool arch_capabilities_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = ARCH_CAPABILITIES;
    return true;
}

static bool misc_enable_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    uint64_t writable = MISC_FAST_STRINGS | MISC_LIMIT_CPUID;

    if (x86_model_has(c->model, X86_FEAT_NX))
        writable |= MISC_XD_DISABLE;
    if (value & ~(writable | MISC_READ_ONLY))
        return false;
    c->s.misc_enable = (c->s.misc_enable & ~writable) | (value & writable);
    return true;
}

/* Branch records and branch traps are not implemented; debuggers that try
 * them get an ordinary single step. */
static bool debugctl_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    if (value & ~(uint64_t)(DEBUGCTL_LBR | DEBUGCTL_BTF))
        return false;
    if (value)
        x86_log(c, MSR, GUEST, "cpu %u: IA32_DEBUGCTL = %#llx has no effect", c->vcpu.index,
                (unsigned long long)value);
    return true;
}

static bool mcg_cap_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = X86_MC_BANKS | MCG_CTL_P;
    return true;
}

enum mc_register { MC_CTL, MC_STATUS, MC_ADDR, MC_MISC };

static uint64_t *mc_register(struct x86_vcpu *c, uint32_t n)
{
    switch ((enum mc_register)(n & 3)) {
    case MC_CTL:
        return &c->s.mc_ctl[n >> 2];
    case MC_STATUS:
        return &c->s.mc_status[n >> 2];
    case MC_ADDR:
        return &c->s.mc_addr[n >> 2];
    default:
        return &c->s.mc_misc[n >> 2];
    }
}

static bool mc_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = *mc_register(c, n);
    return true;
}

/* SDM Vol. 3, 16.3.2: status, address and misc can be cleared, not set. */
static bool mc_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    if ((n & 3) != MC_CTL && value)
        return false;
    *mc_register(c, n) = value;
    return true;
}

static bool efer_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    const struct x86_model *m = c->model;
    uint64_t old = c->s.efer, allowed = 0;

    if (x86_model_has(m, X86_FEAT_SYSCALL))
        allowed |= EFER_SCE;
    if (x86_model_has(m, X86_FEAT_LM))
        allowed |= EFER_LME | EFER_LMA;
    if (x86_model_has(m, X86_FEAT_NX) && !(c->s.misc_enable & MISC_XD_DISABLE))
        allowed |= EFER_NXE;
    if (value & ~allowed)
        return false;
    /* LMA is read-only and follows LME and CR0.PG (SDM Vol. 3, 10.8.5). */
    value = (value & ~(uint64_t)EFER_LMA) | (old & EFER_LMA);
    if (((value ^ old) & EFER_LME) && (c->s.cr0 & CR0_PG))
        return false;
    c->s.efer = value;
    if ((value ^ old) & EFER_NXE)
        x86_tlb_flush_all(c);
    if (value != old)
        x86_state_changed(c);
    return true;
}

/* MSRs check against the widest address the processor knows, whatever CR4.LA57
 * says now. */
static bool canonical(const struct x86_vcpu *c, uint64_t value)
{
    unsigned shift = 64 - c->model->linear_bits;

    return (uint64_t)((int64_t)(value << shift) >> shift) == value;
}

static bool fs_gs_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = c->s.seg[X86_FS + n].base;
    return true;
}

static bool fs_gs_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    if (!canonical(c, value))
        return false;
    c->s.seg[X86_FS + n].base = value;
    x86_seg_changed(c, X86_FS + n);
    return true;
}

/* ---- the table ---- */

#define FEAT(id) X86_FEAT_##id
#define NOT_HERE(index)                                                                            \
    {                                                                                              \
        .first = (index), .count = 1, .feature = FEAT(ALWAYS), .flags = MSR_ABSENT                 \
    }

static const struct msr_row msr_rows[] = {
    {MSR_P5_MC_ADDR, 2, FEAT(MCE), MSR_RW, .read = zero_read, .write = nothing_write},
    {MSR_TSC, 1, FEAT(TSC), MSR_RW, .read = tsc_read, .write = tsc_write},
    {MSR_PLATFORM_ID, 1, FEAT(ALWAYS), MSR_READ, .read = zero_read},
    {MSR_APIC_BASE, 1, FEAT(APIC), MSR_RW, .read = apic_base_read, .write = apic_base_write},
    NOT_HERE(MSR_TEST_CTRL),
    NOT_HERE(MSR_SMI_COUNT),
    NOT_HERE(MSR_CORE_THREAD_COUNT),
    NOT_HERE(MSR_FEATURE_CONTROL), /* no VMX, SMX, SGX or LMCE to control */
    {MSR_TSC_ADJUST, 1, FEAT(TSC_ADJUST), MSR_RW, FIELD(tsc_adjust), .write = tsc_adjust_write},
    {MSR_SPEC_CTRL, 1, FEAT(SPEC_CTRL), MSR_RW, FIELD(spec_ctrl),
     .reserved = ~(uint64_t)(SPEC_CTRL_IBRS | SPEC_CTRL_STIBP | SPEC_CTRL_SSBD |
                            SPEC_CTRL_BHI_DIS_S),
     .valid = spec_ctrl_valid},
    {MSR_PRED_CMD, 1, FEAT(SPEC_CTRL), MSR_WRITE, .write = pred_cmd_write},
    NOT_HERE(MSR_PPIN_CTL),
    {MSR_BIOS_UPDT_TRIG, 1, FEAT(ALWAYS), MSR_WRITE, .write = nothing_write}, /* never newer */
    {MSR_BIOS_SIGN_ID, 1, FEAT(ALWAYS), MSR_RW, FIELD(bios_sign_id)},
    NOT_HERE(MSR_PLATFORM_INFO),
    NOT_HERE(MSR_CORE_CAPABILITIES),
    {MSR_MTRRCAP, 1, FEAT(MTRR), MSR_READ, .read = x86_mtrr_cap_read},
    {MSR_ARCH_CAPABILITIES, 1, FEAT(ARCH_CAPABILITIES), MSR_READ, .read = arch_capabilities_read},
    NOT_HERE(MSR_MISC_FEATURES_ENABLES),
    {MSR_SYSENTER_CS, 1, FEAT(SEP), MSR_RW, FIELD(sysenter_cs), .ignored = BITS(63, 32)},
    {MSR_SYSENTER_ESP, 1, FEAT(SEP), MSR_RW, FIELD(sysenter_esp), .valid = canonical},
    {MSR_SYSENTER_EIP, 1, FEAT(SEP), MSR_RW, FIELD(sysenter_eip), .valid = canonical},
    {MSR_MCG_CAP, 1, FEAT(MCA), MSR_READ, .read = mcg_cap_read},
    {MSR_MCG_STATUS, 1, FEAT(MCA), MSR_RW, FIELD(mcg_status),
     .reserved = ~(uint64_t)MCG_STATUS_BITS},
    {MSR_MCG_CTL, 1, FEAT(MCA), MSR_RW, FIELD(mcg_ctl)},
    {MSR_MISC_ENABLE, 1, FEAT(ALWAYS), MSR_RW, FIELD(misc_enable),
     .reset = MISC_FAST_STRINGS | MISC_BTS_UNAVAILABLE | MISC_PEBS_UNAVAILABLE,
     .write = misc_enable_write},
    NOT_HERE(MSR_TURBO_RATIO_LIMIT),
    {MSR_DEBUGCTL, 1, FEAT(ALWAYS), MSR_RW, .read = zero_read, .write = debugctl_write},
    {MSR_LAST_BRANCH, 4, FEAT(ALWAYS), MSR_READ, .read = zero_read},
    {MSR_MTRR_PHYS, 2 * X86_MTRR_VARIABLE, FEAT(MTRR), MSR_RW, .read = x86_mtrr_phys_read,
     .write = x86_mtrr_phys_write},
    {MSR_MTRR_FIX64K, 1, FEAT(MTRR), MSR_RW, FIELD(mtrr_fixed[0]), .valid = x86_mtrr_types_valid},
    {MSR_MTRR_FIX16K, 2, FEAT(MTRR), MSR_RW, FIELD(mtrr_fixed[1]), .valid = x86_mtrr_types_valid},
    {MSR_MTRR_FIX4K, 8, FEAT(MTRR), MSR_RW, FIELD(mtrr_fixed[3]), .valid = x86_mtrr_types_valid},
    {MSR_PAT, 1, FEAT(PAT), MSR_RW, FIELD(pat), .reset = PAT_RESET, .valid = x86_pat_valid},
    {MSR_MTRR_DEF_TYPE, 1, FEAT(MTRR), MSR_RW, FIELD(mtrr_def_type),
     .valid = x86_mtrr_def_type_valid},
    {MSR_MC0, 4 * X86_MC_BANKS, FEAT(MCA), MSR_RW, .read = mc_read, .write = mc_write},
    NOT_HERE(MSR_RAPL_POWER_UNIT),
    NOT_HERE(MSR_PPERF),
    {MSR_TSC_DEADLINE, 1, FEAT(TSC_DEADLINE), MSR_RW, .read = tsc_deadline_read,
     .write = tsc_deadline_write},
    {MSR_X2APIC, 256, FEAT(X2APIC), MSR_RW, .read = x2apic_read, .write = x2apic_write},
    {MSR_EFER, 1, FEAT(NX), MSR_RW | MSR_INIT_RESETS, FIELD(efer), .write = efer_write},
    {MSR_STAR, 1, FEAT(LM), MSR_RW, FIELD(star)},
    {MSR_LSTAR, 1, FEAT(LM), MSR_RW, FIELD(lstar), .valid = canonical},
    {MSR_CSTAR, 1, FEAT(LM), MSR_RW, FIELD(cstar), .valid = canonical},
    {MSR_FMASK, 1, FEAT(LM), MSR_RW, FIELD(fmask), .ignored = BITS(63, 32)},
    {MSR_FS_BASE, 2, FEAT(LM), MSR_RW, .read = fs_gs_read, .write = fs_gs_write},
    {MSR_KERNEL_GS_BASE, 1, FEAT(LM), MSR_RW, FIELD(kernel_gs_base), .valid = canonical},
    {MSR_TSC_AUX, 1, FEAT(RDTSCP), MSR_RW, FIELD(tsc_aux), .reserved = BITS(63, 32)},
    NOT_HERE(MSR_AMD_DE_CFG), /* to make LFENCE serializing, which it is */
};

/* ---- access ---- */

static const struct msr_row *row_find(uint32_t msr)
{
    unsigned low = 0, high = ARRAY_SIZE(msr_rows);

    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct msr_row *row = &msr_rows[middle];

        if (msr < row->first)
            high = middle;
        else if (msr - row->first >= row->count)
            low = middle + 1;
        else
            return row;
    }
    return NULL;
}

static uint64_t *row_field(struct x86_vcpu *c, const struct msr_row *row, uint32_t n)
{
    return (uint64_t *)((char *)&c->s + row->field) + n;
}

/* A guest that looks through all indexes gets a short log. */
static void unknown_log(struct x86_vcpu *c, uint32_t msr, const char *what)
{
    for (unsigned n = 0; n < c->msr_logged_count; n++)
        if (c->msr_logged[n] == msr)
            return;
    if (c->msr_logged_count == ARRAY_SIZE(c->msr_logged))
        return;
    c->msr_logged[c->msr_logged_count++] = msr;
    x86_log(c, MSR, GUEST, "cpu %u: %s of unknown MSR %#x", c->vcpu.index, what, msr);
}

static const struct msr_row *row_for(struct x86_vcpu *c, uint32_t msr, const char *what)
{
    const struct msr_row *row = row_find(msr);

    if (row && (row->flags & MSR_ABSENT))
        return NULL;
    if (!row || !x86_model_has(c->model, row->feature)) {
        unknown_log(c, msr, what);
        return NULL;
    }
    return row;
}

bool x86_msr_read(struct x86_vcpu *c, uint32_t msr, uint64_t *value)
{
    const struct msr_row *row = row_for(c, msr, "read");
    uint32_t n;

    if (!row || !(row->flags & MSR_READ))
        return false;
    n = msr - row->first;
    if (row->read)
        return row->read(c, n, value);
    *value = *row_field(c, row, n);
    return true;
}

bool x86_msr_write(struct x86_vcpu *c, uint32_t msr, uint64_t value)
{
    const struct msr_row *row = row_for(c, msr, "write");
    uint32_t n;

    if (!row || !(row->flags & MSR_WRITE) || (value & row->reserved) ||
        (row->valid && !row->valid(c, value)))
        return false;
    n = msr - row->first;
    if (row->write)
        return row->write(c, n, value);
    *row_field(c, row, n) = value & ~row->ignored;
    return true;
}

void x86_msr_reset(struct x86_vcpu *c, bool init_only)
{
    for (unsigned r = 0; r < ARRAY_SIZE(msr_rows); r++) {
        const struct msr_row *row = &msr_rows[r];

        if (!row->field || (init_only && !(row->flags & MSR_INIT_RESETS)))
            continue;
        for (uint32_t n = 0; n < row->count; n++)
            *row_field(c, row, n) = row->reset;
    }
    if (init_only)
        return;
    x86_mtrr_reset(c);
    memset(c->s.mc_ctl, 0, sizeof c->s.mc_ctl);
    memset(c->s.mc_status, 0, sizeof c->s.mc_status);
    memset(c->s.mc_addr, 0, sizeof c->s.mc_addr);
    memset(c->s.mc_misc, 0, sizeof c->s.mc_misc);
    c->s.feature_control = 0;
}
