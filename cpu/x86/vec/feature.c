/*
 * What an instruction is: whether it is bound here, the gate by encoding and
 * registers, alignment by exception type (SDM Vol. 2, 2.4 and 2.8), and use of
 * MXCSR and of the x87 registers.
 */
#include "cpu/x86/vec/vec_internal.h"

/* Instruction sets whose instructions are bound here; which feature each needs
 * is the decoder's to know. */
static bool is_vector_set(ZydisISASet set)
{
    switch (set) {
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_GFNI:
    case ZYDIS_ISA_SET_PKU:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_AVX_GFNI:
    case ZYDIS_ISA_SET_AVX_VNNI:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_VAES:
    case ZYDIS_ISA_SET_VPCLMULQDQ:
    case ZYDIS_ISA_SET_AVX512BW_128 ... ZYDIS_ISA_SET_AVX512DQ_SCALAR:
    case ZYDIS_ISA_SET_AVX512F_128 ... ZYDIS_ISA_SET_AVX512F_SCALAR:
    case ZYDIS_ISA_SET_AVX512_BF16_128 ... ZYDIS_ISA_SET_AVX512_BITALG_512:
    case ZYDIS_ISA_SET_AVX512_GFNI_128 ... ZYDIS_ISA_SET_AVX512_VNNI_512:
    case ZYDIS_ISA_SET_AVX512_VPCLMULQDQ_128 ... ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_512:
        return true;
    default:
        return false;
    }
}

/* Of the sets above, what is an integer instruction all the same. */
static bool is_integer(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
        return true;
    default:
        return false;
    }
}

x86_binder *vec_binder_for(const ZydisDecodedInstruction *z)
{
    if (z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->meta.category == ZYDIS_CATEGORY_X87_ALU)
        return bind_x87;
    switch (z->meta.isa_set) {
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
        return bind_fxsave;
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_XSAVEOPT:
        return bind_xsave;
    default:
        break;
    }
    return is_vector_set(z->meta.isa_set) && !is_integer(z->mnemonic) ? bind_vector : NULL;
}

/* What the instruction set and Zydis do not tell. */
bool vec_is_valid(const struct x86_decode *d)
{
    /* The 128-bit VEX form is older than the VPCLMULQDQ feature. */
    if (d->z.mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ && d->z.meta.isa_set == ZYDIS_ISA_SET_AVX)
        return x86_model_has(d->c->model, X86_FEAT_PCLMULQDQ);
    /* VPEXTRQ and VPINSRQ are #UD outside 64-bit mode rather than VPEXTRD and
     * VPINSRD (SDM Vol. 2, PEXTRQ, PINSRQ); EVEX.W is ignored. */
    if (d->z.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 &&
        d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && d->z.raw.vex.W)
        return d->z.mnemonic != ZYDIS_MNEMONIC_VPEXTRD && d->z.mnemonic != ZYDIS_MNEMONIC_VPINSRD;
    return true;
}

uint8_t vec_gate_of(const struct x86_decode *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    bool mmx = z->meta.isa_ext == ZYDIS_ISA_EXT_MMX, xmm = z->meta.isa_set == ZYDIS_ISA_SET_SSEMXCSR;

    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
        z->meta.isa_ext == ZYDIS_ISA_EXT_AVX512VEX)
        return GATE_AVX512;
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        return GATE_AVX;
    for (unsigned n = 0; n < z->operand_count; n++) {
        ZydisRegisterClass k = vec_reg_class(&d->op[n]);

        mmx |= k == ZYDIS_REGCLASS_MMX;
        xmm |= k == ZYDIS_REGCLASS_XMM;
    }
    /* MMX registers alone need no FXSAVE support (SDM Vol. 3, 13.1.3). */
    return xmm ? GATE_SSE : mmx ? GATE_MMX : 0;
}

unsigned vec_align_mask(const struct x86_decode *d)
{
    const ZydisDecodedOperand *mem = vec_mem_operand(d);
    unsigned bytes = mem ? mem->size / 8 : 0;

    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return 0;
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVDQA32:
    case ZYDIS_MNEMONIC_VMOVDQA64:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
        return bytes - 1;
    default:
        return d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && bytes == 16 ? 15 : 0;
    }
}

static bool uses_mxcsr(const struct x86_decode *d)
{
    const ZydisDecodedInstruction *z = &d->z;

    switch (z->meta.category) {
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_LOGICAL_FP:
    case ZYDIS_CATEGORY_BROADCAST:
    case ZYDIS_CATEGORY_BLEND:
    case ZYDIS_CATEGORY_KMASK:
        return false;
    default:
        break;
    }
    switch (z->mnemonic) { /* the common ones that only move */
    case ZYDIS_MNEMONIC_UNPCKLPS:
    case ZYDIS_MNEMONIC_UNPCKHPS:
    case ZYDIS_MNEMONIC_UNPCKLPD:
    case ZYDIS_MNEMONIC_UNPCKHPD:
    case ZYDIS_MNEMONIC_SHUFPS:
    case ZYDIS_MNEMONIC_SHUFPD:
    case ZYDIS_MNEMONIC_VUNPCKLPS:
    case ZYDIS_MNEMONIC_VUNPCKLPD:
    case ZYDIS_MNEMONIC_VUNPCKHPS:
    case ZYDIS_MNEMONIC_VUNPCKHPD:
    case ZYDIS_MNEMONIC_VSHUFPS:
    case ZYDIS_MNEMONIC_VSHUFPD:
        return false;
    default:
        break;
    }
    if (z->meta.category == ZYDIS_CATEGORY_CONVERT)
        return true;
    switch (z->meta.exception_class) { /* the types with floating-point exceptions */
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:
    case ZYDIS_EXCEPTION_CLASS_E2 ... ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E11:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return true;
    default:
        break;
    }
    /* Anything else on floating-point elements: saying yes too often costs a
     * little time, saying no wrongly would lose flags. */
    for (unsigned n = 0; n < z->operand_count; n++) {
        switch (d->op[n].element_type) {
        case ZYDIS_ELEMENT_TYPE_FLOAT16:
        case ZYDIS_ELEMENT_TYPE_FLOAT32:
        case ZYDIS_ELEMENT_TYPE_FLOAT64:
            return true;
        default:
            break;
        }
    }
    return false;
}

unsigned vec_flags_of(const struct x86_decode *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    const ZydisDecodedOperand *mem = vec_mem_operand(d);
    unsigned flags = uses_mxcsr(d) ? VF_MXCSR : 0;

    if (z->meta.isa_ext == ZYDIS_ISA_EXT_MMX)
        flags |= VF_X87;
    for (unsigned n = 0; n < z->operand_count; n++) {
        if (vec_reg_class(&d->op[n]) == ZYDIS_REGCLASS_MMX)
            flags |= VF_X87;
    }
    if (mem && (mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
        flags |= VF_STORE;
    return flags;
}

const ZydisDecodedOperand *vec_mem_operand(const struct x86_decode *d)
{
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &d->op[n];
    }
    return NULL;
}
