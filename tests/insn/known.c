/*
 * Differences between this host and Vireo's processor that are right, each
 * with its reason: what must not run in the child, and what does not count
 * when it has run.
 */
#include "tests/insn/insn.h"

static const struct {
    ZydisMnemonic mnemonic;
    const char *why;
} never[] = {
    {ZYDIS_MNEMONIC_SYSCALL, "enters the host's kernel"},
    {ZYDIS_MNEMONIC_SYSENTER, "enters the host's kernel"},
    {ZYDIS_MNEMONIC_CPUID, "the model's, not the host's"},
    {ZYDIS_MNEMONIC_RDTSC, "time"},
    {ZYDIS_MNEMONIC_RDTSCP, "time, and the host's processor number"},
    {ZYDIS_MNEMONIC_RDPID, "the host's processor number"},
    {ZYDIS_MNEMONIC_RDPMC, "the host's counters, if CR4.PCE lets us"},
    {ZYDIS_MNEMONIC_RDRAND, "random"},
    {ZYDIS_MNEMONIC_RDSEED, "random"},
    {ZYDIS_MNEMONIC_XGETBV, "the host kernel's XCR0; XINUSE as the host tracks it"},
    {ZYDIS_MNEMONIC_SGDT, "the host kernel emulates what UMIP forbids"},
    {ZYDIS_MNEMONIC_SIDT, "the host kernel emulates what UMIP forbids"},
    {ZYDIS_MNEMONIC_SLDT, "the host kernel emulates what UMIP forbids"},
    {ZYDIS_MNEMONIC_STR, "the host kernel emulates what UMIP forbids"},
    {ZYDIS_MNEMONIC_SMSW, "the host kernel emulates what UMIP forbids"},
};

const char *known_never(ZydisMnemonic m)
{
    for (unsigned n = 0; n < ARRAY_SIZE(never); n++) {
        if (never[n].mnemonic == m)
            return never[n].why;
    }
    return NULL;
}

#define BCD_WHY "undefined flags; 64-bit mode has no such instruction to take them from"

#define WRAP_WHY "elements of AMD's masked moves wrap at the address size, one operand does not"
#define TF_WHY "a fault after some elements may become a trap (SDM Vol. 2, VGATHERDPS)"

/* What else must hold for a row to count. */
enum when {
    WHEN_ALWAYS,
    WHEN_BOTH_PF,      /* both page faults */
    WHEN_HOST_GP,      /* only the host raises #GP */
    WHEN_HOST_GP_SEG,  /* or #SS, where there are segments */
    WHEN_GUEST_GP,     /* only the guest does */
    WHEN_PUSH_SEG,     /* a segment register of 32 bits */
    WHEN_POP_SEG,
    WHEN_FAR_FAULT,
    WHEN_AVX512_IMAGE, /* XSAVE of components beyond AVX */
    WHEN_REX_W,
    WHEN_FAR_W,
    WHEN_HOST_AC,      /* only the host raises #AC */
    WHEN_GUEST_AC,     /* only the guest does */
    WHEN_FAR_MODE,     /* from or to 64-bit mode */
    WHEN_BORDER,
    WHEN_HOST_MM,
    WHEN_WRAPPED,      /* page faults 4 GiB apart, with 32-bit addresses */
    WHEN_CPU_SELECTOR,
    WHEN_FAR_SP16,
    WHEN_SS,           /* the host #GP, the guest #SS */
    WHEN_ALL_FAULT,    /* both fault, perhaps differently */
    WHEN_STORE,        /* only the guest faults, writing */
    WHEN_COMPAT,       /* not 64-bit code */
    WHEN_TRAP,         /* both #DB in a string instruction */
    WHEN_BASE,         /* 64-bit code, FS or GS base involved */
    WHEN_FAULT,        /* both fault alike */
    WHEN_TF,
    WHEN_LIMIT,        /* the host by the segment's limit, the guest at its last page */
};

static const struct {
    ZydisMnemonic first, last; /* INVALID: any */
    enum when when;
    uint32_t ignore;
    const char *why;
} known[] = {
#define ONE(m) ZYDIS_MNEMONIC_##m, ZYDIS_MNEMONIC_##m
#define ANY ONE(INVALID)
    {ANY, WHEN_LIMIT, IGN_CASE,
     "an access over the end of a segment of 4 GiB may be a fault of the segment or go on at 0 "
     "(SDM Vol. 3, 5.3)"},
    {ONE(PUSH), WHEN_PUSH_SEG, IGN_MEM,
     "PUSH Sreg of 32 bits writes two bytes on Intel's processors, four on AMD's"},
    {ONE(PUSH), WHEN_PUSH_SEG, IGN_FAULT, "and so faults at other places"},
    {ONE(POP), WHEN_POP_SEG, IGN_FAULT,
     "POP Sreg reads two bytes on Intel's processors, the operand size on AMD's"},
    {ONE(NOP), WHEN_ALWAYS, IGN_CASE,
     "0F 0D with a register is #UD on AMD's processors, a hint on Intel's"},
    {ZYDIS_MNEMONIC_SHA1MSG1, ZYDIS_MNEMONIC_SHA256RNDS2, WHEN_GUEST_GP, IGN_CASE,
     "AMD's SHA instructions do not check alignment, Intel's do (exception type 4)"},
    {ANY, WHEN_TRAP, IGN_FLAG_RF,
     "a trap between iterations saves RF set on Intel's processors (SDM Vol. 3, 17.3.1.1), clear "
     "on AMD's"},
    {ONE(SYSRET), WHEN_COMPAT, IGN_CASE, "#UD outside 64-bit mode on Intel's processors only"},
    {ONE(JMP), WHEN_FAR_W, IGN_CASE, "AMD has no far pointers of 80 bits"},
    {ONE(CALL), WHEN_FAR_W, IGN_CASE, "AMD has no far pointers of 80 bits"},
    {ONE(LSS), WHEN_REX_W, IGN_CASE, "AMD has no far pointers of 80 bits"},
    {ONE(LFS), WHEN_REX_W, IGN_CASE, "AMD has no far pointers of 80 bits"},
    {ONE(LGS), WHEN_REX_W, IGN_CASE, "AMD has no far pointers of 80 bits"},
    {ANY, WHEN_BASE, IGN_CASE,
     "AMD wants the offset to be canonical, Intel only the sum with the base"},
    {ZYDIS_MNEMONIC_VPCOMPRESSB, ZYDIS_MNEMONIC_VPCOMPRESSW, WHEN_GUEST_AC, IGN_CASE,
     "AMD checks the alignment of elements even without a mask"},
    {ZYDIS_MNEMONIC_VPEXPANDB, ZYDIS_MNEMONIC_VPEXPANDW, WHEN_GUEST_AC, IGN_CASE,
     "AMD checks the alignment of elements even without a mask"},
    {ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FXSAVE64, WHEN_HOST_AC, IGN_CASE,
     "#AC instead of #GP is up to the implementation (SDM Vol. 2, FXSAVE)"},
    {ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XSAVES64, WHEN_HOST_AC, IGN_CASE,
     "#AC instead of #GP is up to the implementation (SDM Vol. 2, XSAVE)"},
    {ANY, WHEN_SS, IGN_CASE,
     "an address that is neither aligned nor canonical: AMD looks at alignment first"},
    {ONE(INT1), WHEN_ALWAYS, IGN_RIP,
     "a trap (SDM Vol. 2, INT n), but this hypervisor reports the instruction's own RIP"},
    {ONE(ARPL), WHEN_STORE, IGN_CASE, "AMD writes only what changes"},
    {ONE(ENTER), WHEN_ALL_FAULT, IGN_MEM, "AMD has pushed before it looks at the new stack"},
    {ZYDIS_MNEMONIC_CMPSB, ZYDIS_MNEMONIC_CMPSW, WHEN_ALL_FAULT, IGN_CASE,
     "which of the two operands is read first"},
    {ONE(AAA), WHEN_ALWAYS, FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF, BCD_WHY},
    {ONE(AAS), WHEN_ALWAYS, FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF, BCD_WHY},
    {ONE(DAA), WHEN_ALWAYS, FLAG_OF, BCD_WHY},
    {ONE(DAS), WHEN_ALWAYS, FLAG_OF, BCD_WHY},
    {ONE(AAD), WHEN_ALWAYS, FLAG_OF | FLAG_AF | FLAG_CF, BCD_WHY},
    {ONE(AAM), WHEN_ALWAYS, FLAG_OF | FLAG_AF | FLAG_CF, BCD_WHY},
    {ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XSAVES64, WHEN_AVX512_IMAGE, IGN_CASE,
     "AMD has AVX-512 state at other offsets"},
    {ZYDIS_MNEMONIC_VCOMPRESSPD, ZYDIS_MNEMONIC_VCOMPRESSPS, WHEN_GUEST_AC, IGN_CASE,
     "AMD checks the alignment of elements even without a mask"},
    {ZYDIS_MNEMONIC_VEXPANDPD, ZYDIS_MNEMONIC_VEXPANDPS, WHEN_GUEST_AC, IGN_CASE,
     "AMD checks the alignment of elements even without a mask"},
    {ONE(CALL), WHEN_ALL_FAULT, IGN_CASE, "AMD pushes before it looks at the target"},
    {ONE(CALL), WHEN_FAR_MODE, IGN_CASE,
     "whether a far call into another mode pushes by the old or the new mode's stack"},
    {ZYDIS_MNEMONIC_VPMASKMOVD, ZYDIS_MNEMONIC_VPMASKMOVQ, WHEN_WRAPPED, IGN_CR2, WRAP_WHY},
    {ZYDIS_MNEMONIC_VMASKMOVPD, ZYDIS_MNEMONIC_VMASKMOVPS, WHEN_WRAPPED, IGN_CR2, WRAP_WHY},
    {ANY, WHEN_CPU_SELECTOR, IGN_CASE,
     "the host's GDT has the processor's number in the limit of segment 15"},
    {ANY, WHEN_HOST_MM, IGN_CASE, "MXCSR.MM, which only AMD's processors have, was set"},
    {ONE(RET), WHEN_FAR_W, IGN_CASE,
     "AMD compares all 64 bits of the offset with the limit of a compatibility segment"},
    {ONE(RET), WHEN_FAR_SP16, IGN_CASE,
     "AMD adds the immediate of a far return to ESP on a 16-bit stack"},
    {ANY, WHEN_BORDER, IGN_CASE,
     "an operand that begins below the canonical border and ends above it: AMD looks at its "
     "beginning first, and at its alignment"},
    {ONE(CVTPI2PD), WHEN_FAULT, IGN_X87, "AMD makes the transition to MMX even with #XM"},
    {ONE(CVTPI2PS), WHEN_FAULT, IGN_X87, "AMD makes the transition to MMX even with #XM"},
    {ONE(CVTPD2PI), WHEN_FAULT, IGN_X87, "AMD makes the transition to MMX even with #XM"},
    {ONE(CVTPS2PI), WHEN_FAULT, IGN_X87, "AMD makes the transition to MMX even with #XM"},
    {ONE(CVTTPD2PI), WHEN_FAULT, IGN_X87, "AMD makes the transition to MMX even with #XM"},
    {ONE(CVTTPS2PI), WHEN_FAULT, IGN_X87, "AMD makes the transition to MMX even with #XM"},
    {ZYDIS_MNEMONIC_VGATHERDPD, ZYDIS_MNEMONIC_VGATHERQPS, WHEN_TF, IGN_CASE, TF_WHY},
    {ZYDIS_MNEMONIC_VPGATHERDD, ZYDIS_MNEMONIC_VPGATHERQQ, WHEN_TF, IGN_CASE, TF_WHY},
    {ZYDIS_MNEMONIC_VSCATTERDPD, ZYDIS_MNEMONIC_VSCATTERQPS, WHEN_TF, IGN_CASE, TF_WHY},
    {ZYDIS_MNEMONIC_VPSCATTERDD, ZYDIS_MNEMONIC_VPSCATTERQQ, WHEN_TF, IGN_CASE, TF_WHY},
    {ONE(MASKMOVQ), WHEN_FAULT, IGN_X87,
     "AMD's makes the transition to MMX even if the store faults"},
    {ZYDIS_MNEMONIC_INSB, ZYDIS_MNEMONIC_INSW, WHEN_HOST_GP, IGN_CASE,
     "with a count of zero AMD checks the port all the same"},
    {ZYDIS_MNEMONIC_OUTSB, ZYDIS_MNEMONIC_OUTSW, WHEN_HOST_GP, IGN_CASE,
     "with a count of zero AMD checks the port all the same"},
    {ZYDIS_MNEMONIC_CMPSB, ZYDIS_MNEMONIC_CMPSW, WHEN_BOTH_PF, IGN_CR2 | IGN_ERROR,
     "which of the two operands is read first"},
    {ONE(RET), WHEN_FAR_FAULT, IGN_CASE, "in which order a far return reads and checks"},
    {ONE(CALL), WHEN_FAR_FAULT, IGN_CASE, "in which order a far call checks and pushes"},
    {ONE(IRET), WHEN_ALL_FAULT, IGN_CASE, "in which order IRET reads and checks"},
    {ONE(IRETD), WHEN_ALL_FAULT, IGN_CASE, "in which order IRET reads and checks"},
    {ONE(IRETQ), WHEN_ALL_FAULT, IGN_CASE, "in which order IRET reads and checks"},
    {ONE(POPA), WHEN_ALL_FAULT, IGN_CASE, "AMD keeps what it has popped before a fault"},
    {ONE(PUSHA), WHEN_ALL_FAULT, IGN_MEM, "AMD has pushed some before a fault"},
    {ONE(PUSHAD), WHEN_ALL_FAULT, IGN_MEM, "AMD has pushed some before a fault"},
    {ONE(POPAD), WHEN_ALL_FAULT, IGN_CASE, "AMD keeps what it has popped before a fault"},
    {ONE(ARPL), WHEN_GUEST_GP, IGN_CASE, "AMD writes only what changes"},
    {ONE(ARPL), WHEN_ALL_FAULT, IGN_ERROR, "AMD writes only what changes"},
    {ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FXSAVE64, WHEN_BOTH_PF, IGN_CR2 | IGN_ERROR,
     "in which order a state image is touched"},
    {ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XSAVES64, WHEN_BOTH_PF, IGN_CR2 | IGN_ERROR,
     "in which order a state image is touched"},
    {ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XSAVES64, WHEN_HOST_GP_SEG, IGN_CASE,
     "AMD wants the largest image within the segment's limit, not what is asked for"},
    {ONE(FRSTOR), WHEN_BOTH_PF, IGN_CR2 | IGN_ERROR, "in which order a state image is touched"},
    {ONE(FLDENV), WHEN_BOTH_PF, IGN_CR2 | IGN_ERROR, "in which order a state image is touched"},
    {ONE(FNSTENV), WHEN_BOTH_PF, IGN_CR2 | IGN_ERROR, "in which order a state image is touched"},
    {ONE(FNSAVE), WHEN_BOTH_PF, IGN_CR2 | IGN_ERROR, "in which order a state image is touched"},
    {ONE(FRSTOR), WHEN_HOST_AC, IGN_CASE, "a part within the segment's limit, before one beyond"},
    {ONE(FLDENV), WHEN_HOST_AC, IGN_CASE, "a part within the segment's limit, before one beyond"},
    {ONE(FNSTENV), WHEN_HOST_AC, IGN_CASE, "a part within the segment's limit, before one beyond"},
    {ONE(FNSAVE), WHEN_HOST_AC, IGN_CASE, "a part within the segment's limit, before one beyond"},
    {ZYDIS_MNEMONIC_FXSAVE, ZYDIS_MNEMONIC_FXSAVE64, WHEN_ALWAYS, IGN_MXCSR_MASK,
     "the host has MXCSR.MM, which only AMD's processors have"},
    {ZYDIS_MNEMONIC_XSAVE, ZYDIS_MNEMONIC_XSAVES64, WHEN_ALWAYS, IGN_MXCSR_MASK,
     "the host has MXCSR.MM, which only AMD's processors have"},
    {ZYDIS_MNEMONIC_VGATHERDPD, ZYDIS_MNEMONIC_VGATHERQPS, WHEN_FAULT, IGN_UPPER,
     "when the rest of the destination is cleared in a gather that faults"},
    {ZYDIS_MNEMONIC_VPGATHERDD, ZYDIS_MNEMONIC_VPGATHERQQ, WHEN_FAULT, IGN_UPPER,
     "when the rest of the destination is cleared in a gather that faults"},
#undef ONE
#undef ANY
};

static bool is_segment(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static bool is_fault(int vector)
{
    return vector >= VEC_SS && vector <= VEC_AC;
}

static bool applies(enum when when, const struct insn_case *k, const struct insn_decoded *d,
                    const struct insn_result *host, const struct insn_result *guest)
{
    bool same = host->vector == guest->vector;

    switch (when) {
    case WHEN_ALWAYS:
        return true;
    case WHEN_BOTH_PF:
        return same && host->vector == VEC_PF;
    case WHEN_HOST_GP:
        return host->vector == VEC_GP && !same;
    case WHEN_HOST_GP_SEG:
        return k->mode != CODE_64 && (host->vector == VEC_GP || host->vector == VEC_SS) && !same;
    case WHEN_LIMIT:
        return k->mode != CODE_64 && (host->vector == VEC_GP || host->vector == VEC_SS) &&
               guest->vector == VEC_PF && (uint32_t)guest->cr2 >= 0xffffffc0;
    case WHEN_GUEST_GP:
        return guest->vector == VEC_GP && !same;
    case WHEN_PUSH_SEG:
        return d->z.operand_width == 32 && is_segment(&d->op[0]);
    case WHEN_POP_SEG:
        return is_segment(&d->op[0]);
    case WHEN_FAR_FAULT:
        return d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && is_fault(host->vector) &&
               is_fault(guest->vector);
    case WHEN_AVX512_IMAGE:
        return k->in.gpr[X86_RAX] & (XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM);
    case WHEN_REX_W:
        return d->z.raw.rex.W;
    case WHEN_FAR_MODE:
        return d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR &&
               ((host->out.sel[X86_CS] == HOST_CS64) != (k->mode == CODE_64) ||
                (guest->out.sel[X86_CS] == HOST_CS64) != (k->mode == CODE_64));
    case WHEN_BORDER:
        if (k->mode != CODE_64 || (guest->vector != VEC_GP && guest->vector != VEC_SS))
            return false;
        return host->vector == VEC_AC || (host->vector == VEC_PF && host->cr2 >= 0x7ffffffff000 &&
                                          host->cr2 < 0x800000000000);
    case WHEN_WRAPPED:
        return d->z.address_width == 32 && host->cr2 + 0x100000000 == guest->cr2;
    case WHEN_CPU_SELECTOR:
        for (unsigned n = 0; n < X86_SEG_COUNT; n++) {
            if ((host->out.sel[n] & ~3) == 0x78)
                return true;
        }
        return false;
    case WHEN_HOST_MM:
        return host->out.x.mxcsr >> 17 & 1;
    case WHEN_FAR_SP16:
        return d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR &&
               k->in.sel[X86_SS] == LDT_SELECTOR(LDT_STACK16);
    case WHEN_FAR_W:
        return d->z.raw.rex.W && d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    case WHEN_HOST_AC:
        return host->vector == VEC_AC && !same;
    case WHEN_GUEST_AC:
        return guest->vector == VEC_AC && !same;
    case WHEN_SS:
        return host->vector == VEC_GP && guest->vector == VEC_SS;
    case WHEN_ALL_FAULT:
        return is_fault(host->vector) && is_fault(guest->vector);
    case WHEN_STORE:
        return guest->vector == VEC_PF && (guest->error & PF_W);
    case WHEN_COMPAT:
        return k->mode != CODE_64;
    case WHEN_TRAP:
        return host->vector == VEC_DB && same && d->z.meta.category == ZYDIS_CATEGORY_STRINGOP;
    case WHEN_BASE:
        if (k->mode != CODE_64 || host->vector != VEC_GP ||
            (guest->vector != VEC_PF && guest->vector != VEC_AC))
            return false;
        for (unsigned n = 0; n < d->z.operand_count; n++) {
            const ZydisDecodedOperand *o = &d->op[n];

            if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
                ((o->mem.segment == ZYDIS_REGISTER_FS && k->in.fs_base) ||
                 (o->mem.segment == ZYDIS_REGISTER_GS && k->in.gs_base)))
                return true;
        }
        return false;
    case WHEN_FAULT:
        return same && host->vector != VEC_BP;
    case WHEN_TF:
        return k->in.rflags & FLAG_TF;
    }
    return false;
}

bool known_mentions(ZydisMnemonic m)
{
    for (unsigned n = 0; n < ARRAY_SIZE(known); n++) {
        if (m >= known[n].first && m <= known[n].last)
            return true;
    }
    return false;
}

uint32_t known_ignore(const struct insn_case *k, const struct insn_result *host,
                      const struct insn_result *guest)
{
    struct insn_decoded d;
    uint32_t ignore = 0;

    for (unsigned at = 0; at < k->code_bytes; at += d.z.length) {
        if (!insn_decode(k->mode, k->code + at, k->code_bytes - at, &d))
            break;
        /* In a block only the instruction that ended it. */
        if (k->count > 1 && k->in.rip + at != host->out.rip && k->in.rip + at != guest->out.rip &&
            !(host->out.x.mxcsr >> 17 & 1))
            continue;
        for (unsigned n = 0; n < ARRAY_SIZE(known); n++) {
            if ((known[n].first == ZYDIS_MNEMONIC_INVALID ||
                 (d.z.mnemonic >= known[n].first && d.z.mnemonic <= known[n].last)) &&
                applies(known[n].when, k, &d, host, guest))
                ignore |= known[n].ignore;
        }
    }
    /* It branched to itself, or loops for long. */
    if (host->vector == VECTOR_TIMEOUT || (k->count > 1 && guest->vector == VECTOR_TIMEOUT))
        ignore |= IGN_CASE;
    /* Where they fault matters for all that follows. */
    if ((ignore & IGN_FAULT) &&
        (host->vector != guest->vector || host->out.rip != guest->out.rip))
        ignore |= IGN_CASE;
    return ignore;
}
