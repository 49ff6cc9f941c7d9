/*
 * The architectural state of one x86-64 processor (Intel SDM Vol. 1 ch. 3,
 * Vol. 3 ch. 2), and nothing else: no pointers, so that it can be saved,
 * compared bit for bit, moved between engines and live in shared memory.
 */
#ifndef CPU_X86_STATE_H
#define CPU_X86_STATE_H

#include "base/base.h"

enum x86_gpr {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R15 = 15,
    X86_ZERO = 16, /* always 0: the absent base or index of an address */
    X86_RIP = 17,  /* at a block's start the instruction pointer; see insn.h */
    X86_REG_COUNT
};

enum x86_seg_index { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEG_COUNT };

/*
 * Segment attributes in the layout of VMX access rights, which is bits 40..55
 * of a descriptor (SDM Vol. 3, 3.4.5, 25.4.1).
 */
enum x86_seg_attr {
    SEG_TYPE = 0xf,
    SEG_ACCESSED = 1 << 0,
    SEG_WRITABLE = 1 << 1,    /* data */
    SEG_READABLE = 1 << 1,    /* code */
    SEG_EXPAND_DOWN = 1 << 2, /* data */
    SEG_CONFORMING = 1 << 2,  /* code */
    SEG_CODE = 1 << 3,
    SEG_S = 1 << 4, /* code or data, not system */
    SEG_DPL_SHIFT = 5,
    SEG_DPL = 3 << 5,
    SEG_P = 1 << 7,
    SEG_AVL = 1 << 12,
    SEG_L = 1 << 13,
    SEG_DB = 1 << 14,
    SEG_G = 1 << 15,
    SEG_UNUSABLE = 1 << 16, /* loaded with a null selector */
};

struct x86_seg {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied */
    uint32_t attr;
    uint16_t selector;
    uint16_t pad[3];
};

struct x86_dtr {
    uint64_t base;
    uint16_t limit;
    uint16_t pad[3];
};

enum x86_rflags {
    FLAG_CF = 1 << 0,
    FLAG_R1 = 1 << 1, /* always one */
    FLAG_PF = 1 << 2,
    FLAG_AF = 1 << 4,
    FLAG_ZF = 1 << 6,
    FLAG_SF = 1 << 7,
    FLAG_TF = 1 << 8,
    FLAG_IF = 1 << 9,
    FLAG_DF = 1 << 10,
    FLAG_OF = 1 << 11,
    FLAG_IOPL_SHIFT = 12,
    FLAG_IOPL = 3 << 12,
    FLAG_NT = 1 << 14,
    FLAG_RF = 1 << 16,
    FLAG_VM = 1 << 17,
    FLAG_AC = 1 << 18,
    FLAG_VIF = 1 << 19,
    FLAG_VIP = 1 << 20,
    FLAG_ID = 1 << 21,
    FLAG_STATUS = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF,
};

/*
 * The six status flags as LAHF and SETO leave them: AH = SF:ZF:0:AF:0:PF:1:CF,
 * AL = OF. Saving the host's flags is two cheap instructions in this form.
 */
enum x86_cc {
    CC_OF = 1 << 0,
    CC_CF = FLAG_CF << 8,
    CC_PF = FLAG_PF << 8,
    CC_AF = FLAG_AF << 8,
    CC_ZF = FLAG_ZF << 8,
    CC_SF = FLAG_SF << 8,
    CC_ONE = FLAG_R1 << 8,
};

enum x86_cr0 {
    CR0_PE = 1 << 0,
    CR0_MP = 1 << 1,
    CR0_EM = 1 << 2,
    CR0_TS = 1 << 3,
    CR0_ET = 1 << 4,
    CR0_NE = 1 << 5,
    CR0_WP = 1 << 16,
    CR0_AM = 1 << 18,
    CR0_NW = 1 << 29,
    CR0_CD = 1 << 30,
};
#define CR0_PG (1u << 31)

enum x86_cr4 {
    CR4_VME = 1 << 0,
    CR4_PVI = 1 << 1,
    CR4_TSD = 1 << 2,
    CR4_DE = 1 << 3,
    CR4_PSE = 1 << 4,
    CR4_PAE = 1 << 5,
    CR4_MCE = 1 << 6,
    CR4_PGE = 1 << 7,
    CR4_PCE = 1 << 8,
    CR4_OSFXSR = 1 << 9,
    CR4_OSXMMEXCPT = 1 << 10,
    CR4_UMIP = 1 << 11,
    CR4_LA57 = 1 << 12,
    CR4_FSGSBASE = 1 << 16,
    CR4_PCIDE = 1 << 17,
    CR4_OSXSAVE = 1 << 18,
    CR4_SMEP = 1 << 20,
    CR4_SMAP = 1 << 21,
    CR4_PKE = 1 << 22,
};

enum x86_efer {
    EFER_SCE = 1 << 0,
    EFER_LME = 1 << 8,
    EFER_LMA = 1 << 10,
    EFER_NXE = 1 << 11,
};

enum x86_xcr0 {
    XCR0_X87 = 1 << 0,
    XCR0_SSE = 1 << 1,
    XCR0_AVX = 1 << 2,
    XCR0_OPMASK = 1 << 5,
    XCR0_ZMM_HI256 = 1 << 6,
    XCR0_HI16_ZMM = 1 << 7,
    XCR0_PKRU = 1 << 9,
};

enum x86_vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_NMI = 2,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_MF = 16,
    VEC_AC = 17,
    VEC_MC = 18,
    VEC_XM = 19,
};

enum x86_pf_error {
    PF_P = 1 << 0,
    PF_W = 1 << 1,
    PF_U = 1 << 2,
    PF_RSVD = 1 << 3,
    PF_I = 1 << 4,
    PF_PK = 1 << 5,
};

/*
 * Vector and x87 state in the standard (not compacted) XSAVE layout (SDM Vol.
 * 1, 13.4), each component at the offset CPUID leaf DH reports; 64-aligned.
 * XINUSE is kept apart, see x86_cpu.xinuse.
 */
struct x86_xsave {
    uint16_t fcw;
    uint16_t fsw; /* TOP in bits 11..13 */
    uint8_t ftw;  /* abridged: one bit a physical register, 1 = not empty */
    uint8_t reserved0;
    uint16_t fop;
    uint64_t fip;
    uint64_t fdp;
    uint32_t mxcsr;
    uint32_t mxcsr_mask;
    uint8_t st[8][16]; /* ST(0).. in stack order, as FXSAVE */
    uint8_t xmm[16][16];
    uint8_t reserved1[96];
    uint64_t xstate_bv;
    uint64_t xcomp_bv;
    uint8_t header_reserved[48];
    uint8_t ymm_hi[16][16]; /* 576: component 2 */
    uint8_t gap[1088 - 832];
    uint64_t opmask[8];       /* 1088: component 5 */
    uint8_t zmm_hi[16][32];   /* 1152: component 6 */
    uint8_t hi16_zmm[16][64]; /* 1664: component 7 */
    uint32_t pkru;            /* 2688: component 9 */
    uint32_t pkru_pad;
    uint8_t pad[48];
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct x86_xsave, ymm_hi) == 576, "XSAVE layout");
_Static_assert(offsetof(struct x86_xsave, opmask) == 1088, "XSAVE layout");
_Static_assert(offsetof(struct x86_xsave, zmm_hi) == 1152, "XSAVE layout");
_Static_assert(offsetof(struct x86_xsave, hi16_zmm) == 1664, "XSAVE layout");
_Static_assert(offsetof(struct x86_xsave, pkru) == 2688, "XSAVE layout");

enum x86_activity { X86_RUNNING, X86_HALTED, X86_WAIT_SIPI, X86_SHUTDOWN };

/* Interrupt shadow: what MOV SS, POP SS and STI hold back for one instruction. */
enum x86_shadow { SHADOW_STI = 1, SHADOW_MOV_SS = 2 };

#define X86_MTRR_FIXED 11
#define X86_MTRR_VARIABLE 8
#define X86_MC_BANKS 1

struct x86_cpu {
    uint64_t reg[X86_REG_COUNT]; /* enum x86_gpr */
    uint64_t rflags; /* without the status flags, which are in cc; bit 1 set */
    uint16_t cc;     /* enum x86_cc */
    uint8_t shadow;  /* enum x86_shadow */
    uint8_t activity;
    uint8_t cpl; /* 3 in V86, 0 in real mode */
    uint8_t nmi_masked;
    uint8_t nmi_pending;
    uint8_t init_pending;
    uint8_t sipi_pending; /* 1: sipi_vector is valid */
    uint8_t sipi_vector;
    uint8_t intr_pin;  /* level of INTR (from the 8259) */
    uint8_t ferr_line; /* level of FERR# (to IRQ 13) */

    struct x86_seg seg[X86_SEG_COUNT];
    struct x86_seg ldtr, tr;
    struct x86_dtr gdtr, idtr;

    uint64_t cr0, cr2, cr3, cr4;
    uint64_t efer;
    uint64_t xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t pdpte[4]; /* PAE paging: loaded with CR3 (SDM Vol. 3, 4.4.1) */

    uint64_t star, lstar, cstar, fmask;
    uint64_t kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_aux;
    uint64_t tsc_adjust; /* IA32_TSC_ADJUST; guest TSC = clock + this */
    uint64_t pat;
    uint64_t misc_enable;
    uint64_t spec_ctrl;
    uint64_t mtrr_def_type;
    uint64_t mtrr_fixed[X86_MTRR_FIXED];
    uint64_t mtrr_base[X86_MTRR_VARIABLE], mtrr_mask[X86_MTRR_VARIABLE];
    uint64_t mcg_status, mcg_ctl;
    uint64_t mc_ctl[X86_MC_BANKS], mc_status[X86_MC_BANKS], mc_addr[X86_MC_BANKS],
        mc_misc[X86_MC_BANKS];
    uint64_t bios_sign_id;
    uint64_t feature_control;

    uint64_t monitor_gpa; /* line armed by MONITOR; UINT64_MAX: none */

    uint64_t icount; /* instructions retired (DESIGN.md: what counts) */
    uint64_t random; /* RDRAND/RDSEED in a deterministic machine */

    struct x86_xsave x; /* current vector, x87 and PKRU values */
    uint64_t xinuse;    /* components not in their initial configuration */

    uint64_t pending_db; /* DR6 bits of traps that #DB has still to report: debug.h */
};

/* ---- small accessors ---- */

static inline uint64_t x86_cc_to_rflags(uint16_t cc)
{
    return (cc >> 8 & (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF)) |
           (uint64_t)(cc & CC_OF) << 11;
}

static inline uint16_t x86_rflags_to_cc(uint64_t f)
{
    return (uint16_t)((f & (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF)) << 8 | CC_ONE |
                      (f >> 11 & 1));
}

static inline uint64_t x86_rflags(const struct x86_cpu *s)
{
    return s->rflags | x86_cc_to_rflags(s->cc);
}

static inline bool x86_real_mode(const struct x86_cpu *s)
{
    return !(s->cr0 & CR0_PE);
}

static inline bool x86_v86_mode(const struct x86_cpu *s)
{
    return s->rflags & FLAG_VM;
}

static inline bool x86_long_mode(const struct x86_cpu *s)
{
    return s->efer & EFER_LMA;
}

/* 64-bit mode, not compatibility mode. */
static inline bool x86_64bit_mode(const struct x86_cpu *s)
{
    return (s->efer & EFER_LMA) && (s->seg[X86_CS].attr & SEG_L);
}

static inline unsigned x86_iopl(const struct x86_cpu *s)
{
    return s->rflags >> FLAG_IOPL_SHIFT & 3;
}

#endif
