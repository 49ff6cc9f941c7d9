/*
 * System instructions: control and debug registers, MSRs, time stamp, CPUID,
 * cache and TLB control, random numbers (SDM Vol. 2). Those that may change
 * the mode, translations or time of the next instruction end their block.
 */
#include "cpu/x86/apic.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/insn/ops.h"
#include "cpu/x86/msr.h"
#include "cpu/x86/seg.h"

static void require_cpl0(struct x86_vcpu *c)
{
    if (c->s.cpl != 0)
        x86_raise_gp(c, 0);
}

/* ---- MOV CRn, DRn; CLTS; LMSW; SMSW; XSETBV ---- */

HANDLER(mov_from_cr)
{
    X86_BEGIN(c, i);
    require_cpl0(c);
    x86_reg_set(c, i->r0, i->size, x86_cr_read(c, i->aux));
    X86_NEXT(c, i);
}

HANDLER(mov_to_cr)
{
    X86_BEGIN(c, i);
    x86_drain_stores();
    require_cpl0(c);
    x86_cr_write(c, i->aux, x86_reg_get(c, i->r0, i->size));
    X86_END_FALLTHROUGH(c, i);
}

HANDLER(mov_from_dr)
{
    X86_BEGIN(c, i);
    x86_reg_set(c, i->r0, i->size, x86_dr_read(c, i->aux));
    X86_NEXT(c, i);
}

HANDLER(mov_to_dr)
{
    X86_BEGIN(c, i);
    x86_drain_stores();
    x86_dr_write(c, i->aux, x86_reg_get(c, i->r0, i->size));
    X86_END_FALLTHROUGH(c, i);
}

bool bind_mov_cr(struct x86_decode *d, struct x86_insn *i)
{
    ZydisRegisterClass class0 = ZydisRegisterGetClass(d->op[0].reg.value);
    bool to = class0 == ZYDIS_REGCLASS_CONTROL || class0 == ZYDIS_REGCLASS_DEBUG;
    ZydisRegister special = d->op[to ? 0 : 1].reg.value;
    bool debug = ZydisRegisterGetClass(special) == ZYDIS_REGCLASS_DEBUG;

    i->aux = (uint8_t)(special - (debug ? ZYDIS_REGISTER_DR0 : ZYDIS_REGISTER_CR0));
    if (debug ? i->aux > 7 : (i->aux == 1 || (i->aux > 4 && i->aux != 8)))
        return false;
    if (!debug && i->aux == 8 && !(i->flags & INSN_64))
        return false;
    i->size = i->flags & INSN_64 ? 8 : 4;
    if (to)
        i->flags |= INSN_LAST;
    i->fn = debug ? (to ? mov_to_dr : mov_from_dr) : (to ? mov_to_cr : mov_from_cr);
    return true;
}

HANDLER(clts)
{
    X86_BEGIN(c, i);
    x86_drain_stores();
    require_cpl0(c);
    x86_clts(c);
    X86_END_FALLTHROUGH(c, i);
}

HANDLER(lmsw)
{
    X86_BEGIN(c, i);
    x86_drain_stores();
    require_cpl0(c);
    x86_lmsw(c, i->flags & INSN_MEM ? x86_read16(c, i->seg, x86_ea(c, i)) : X86_REG16(c, i->r0));
    X86_END_FALLTHROUGH(c, i);
}

HANDLER(smsw)
{
    X86_BEGIN(c, i);
    if ((c->s.cr4 & CR4_UMIP) && c->s.cpl > 0)
        x86_raise_gp(c, 0);
    if (i->flags & INSN_MEM)
        x86_write16(c, i->seg, x86_ea(c, i), (uint16_t)c->s.cr0);
    else
        x86_reg_set(c, i->r0, i->size, c->s.cr0);
    X86_NEXT(c, i);
}

/* ---- MSRs, time, CPUID ---- */

HANDLER(rdmsr)
{
    uint64_t v;

    X86_BEGIN(c, i);
    require_cpl0(c);
    if (!x86_msr_read(c, (uint32_t)c->s.reg[X86_RCX], &v))
        x86_raise_gp(c, 0);
    c->s.reg[X86_RAX] = (uint32_t)v;
    c->s.reg[X86_RDX] = v >> 32;
    X86_END_FALLTHROUGH(c, i);
}

HANDLER(wrmsr)
{
    X86_BEGIN(c, i);
    x86_drain_stores();
    require_cpl0(c);
    if (!x86_msr_write(c, (uint32_t)c->s.reg[X86_RCX],
                       c->s.reg[X86_RDX] << 32 | (uint32_t)c->s.reg[X86_RAX]))
        x86_raise_gp(c, 0);
    X86_END_FALLTHROUGH(c, i);
}

HANDLER(rdtsc)
{
    uint64_t v;

    X86_BEGIN(c, i);
    if ((c->s.cr4 & CR4_TSD) && c->s.cpl > 0)
        x86_raise_gp(c, 0);
    v = x86_tsc(c);
    c->s.reg[X86_RAX] = (uint32_t)v;
    c->s.reg[X86_RDX] = v >> 32;
    if (i->aux) /* RDTSCP */
        c->s.reg[X86_RCX] = (uint32_t)c->s.tsc_aux;
    X86_NEXT(c, i);
}

/* No performance counters are advertised: every index is out of range. */
HANDLER(rdpmc)
{
    X86_BEGIN(c, i);
    x86_raise_gp(c, 0);
}

HANDLER(rdpid)
{
    x86_reg_set(c, i->r0, i->flags & INSN_64 ? 8 : 4, (uint32_t)c->s.tsc_aux);
    X86_NEXT(c, i);
}

HANDLER(cpuid)
{
    uint32_t out[4];

    X86_BEGIN(c, i);
    x86_drain_stores();
    x86_cpuid(c, (uint32_t)c->s.reg[X86_RAX], (uint32_t)c->s.reg[X86_RCX], out);
    /* The update revision appears when CPUID(1) runs: SDM Vol. 3, 9.11.7.1. */
    if ((uint32_t)c->s.reg[X86_RAX] == 1)
        c->s.bios_sign_id = (uint64_t)X86_MICROCODE_REVISION << 32;
    c->s.reg[X86_RAX] = out[CPUID_EAX];
    c->s.reg[X86_RBX] = out[CPUID_EBX];
    c->s.reg[X86_RCX] = out[CPUID_ECX];
    c->s.reg[X86_RDX] = out[CPUID_EDX];
    X86_END_FALLTHROUGH(c, i); /* serializing */
}

/* ---- caches and translations ---- */

HANDLER(invlpg)
{
    uint64_t lin = x86_ea(c, i) + c->seg_base[i->seg];

    X86_BEGIN(c, i);
    x86_drain_stores();
    require_cpl0(c);
    /* A non-canonical address makes it a NOP; limits are not checked. */
    if (!(i->flags & INSN_64))
        lin = (uint32_t)lin;
    if (x86_is_canonical(c, lin))
        x86_tlb_flush_page(c, lin);
    X86_END_FALLTHROUGH(c, i);
}

HANDLER(invpcid)
{
    uint64_t type, descriptor[2];

    X86_BEGIN(c, i);
    x86_drain_stores();
    require_cpl0(c);
    type = x86_reg_get(c, i->r0, i->flags & INSN_64 ? 8 : 4);
    x86_read_bytes(c, i->seg, x86_ea(c, i), descriptor, 16);
    if (type > 3)
        x86_raise_gp(c, 0);
    if (type < 2 && (descriptor[0] >> 12)) /* reserved bits */
        x86_raise_gp(c, 0);
    if (type < 2 && !(c->s.cr4 & CR4_PCIDE) && (descriptor[0] & 0xfff))
        x86_raise_gp(c, 0);
    switch (type) {
    case 0:
        if (!x86_is_canonical(c, descriptor[1]))
            x86_raise_gp(c, 0);
        x86_tlb_flush_pcid(c, descriptor[0] & 0xfff, true, descriptor[1]);
        break;
    case 1:
        x86_tlb_flush_pcid(c, descriptor[0] & 0xfff, false, 0);
        break;
    case 2:
        x86_tlb_flush_all(c);
        break;
    default:
        x86_tlb_flush_all_nonglobal(c);
        break;
    }
    X86_END_FALLTHROUGH(c, i);
}

/* INVD, WBINVD: memory is coherent here. */
HANDLER(cache_cpl0)
{
    X86_BEGIN(c, i);
    x86_drain_stores();
    require_cpl0(c);
    X86_END_FALLTHROUGH(c, i);
}

/* CLFLUSH and relatives fault as a load of their byte does, but are none. */
HANDLER(clflush)
{
    X86_BEGIN(c, i);
    x86_probe_read(c, i->seg, x86_ea(c, i));
    X86_NEXT(c, i);
}

HANDLER(fence)
{
    x86_drain_stores();
    X86_NEXT(c, i);
}

/* ---- RDRAND, RDSEED ---- */

HANDLER(random_op)
{
    uint64_t v;

    X86_BEGIN(c, i);
    vec_leave(c);
    v = vm_random(c->vm);
    x86_reg_set(c, i->r0, i->size, v);
    c->s.cc = CC_ONE | CC_CF; /* valid; the other flags are cleared */
    X86_NEXT(c, i);
}

bool bind_system(struct x86_decode *d, struct x86_insn *i)
{
    bool last = true;

    switch (d->z.mnemonic) {
#define CASE(M, f)                                                                                 \
    case ZYDIS_MNEMONIC_##M:                                                                       \
        i->fn = f;                                                                                 \
        break;
        CASE(CLTS, clts)
        CASE(LMSW, lmsw)
        CASE(RDMSR, rdmsr)
        CASE(WRMSR, wrmsr)
        CASE(CPUID, cpuid)
        CASE(INVLPG, invlpg)
        CASE(INVPCID, invpcid)
        CASE(INVD, cache_cpl0)
        CASE(WBINVD, cache_cpl0)
    default:
        last = false;
        switch (d->z.mnemonic) {
            CASE(RDTSC, rdtsc)
            CASE(RDPMC, rdpmc)
            CASE(RDPID, rdpid)
            CASE(CLFLUSH, clflush)
            CASE(CLFLUSHOPT, clflush)
            CASE(CLWB, clflush)
            CASE(LFENCE, fence)
            CASE(SFENCE, fence)
            CASE(MFENCE, fence)
            CASE(RDRAND, random_op)
            CASE(RDSEED, random_op)
#undef CASE
        case ZYDIS_MNEMONIC_RDTSCP:
            i->aux = 1;
            i->fn = rdtsc;
            break;
        case ZYDIS_MNEMONIC_SMSW:
            i->size = d->z.operand_width / 8;
            i->fn = smsw;
            break;
        default:
            return false;
        }
    }
    if (last)
        i->flags |= INSN_LAST;
    return true;
}
