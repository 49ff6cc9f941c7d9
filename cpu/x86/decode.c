/*
 * The decoder: Zydis' view of an instruction becomes a bound struct x86_insn.
 * See decode.h. Three tables drive it: which CPUID feature an instruction set
 * needs, which binder a mnemonic has, and (in Zydis) the encodings.
 */
#include "cpu/x86/decode.h"

#include "cpu/x86/vec/vec.h"

/* ---- instruction sets and the features they need (both must be there) ---- */

struct isa_features {
    uint8_t first, second;
};

#define NEED(set, a)                                                                               \
    [ZYDIS_ISA_SET_##set] = {X86_FEAT_##a, X86_FEAT_ALWAYS}
#define NEED2(set, a, b)                                                                           \
    [ZYDIS_ISA_SET_##set] = {X86_FEAT_##a, X86_FEAT_##b}
/* The widths of an AVX-512 set: 128 and 256 bits need AVX512VL. */
#define NEED_VL(set, a)                                                                            \
    NEED2(set##_128, a, AVX512VL), NEED2(set##_256, a, AVX512VL), NEED(set##_512, a)

_Static_assert(X86_FEAT_NEVER < 256, "fits a byte");

/* What is not named here (zero: FPU, which no set but x87 means) never runs. */
static const struct isa_features isa_features[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    NEED(I86, ALWAYS),
    NEED(I186, ALWAYS),
    NEED(I286PROTECTED, ALWAYS),
    NEED(I286REAL, ALWAYS),
    NEED(I386, ALWAYS),
    NEED(I486, ALWAYS),
    NEED(I486REAL, ALWAYS),
    NEED(PENTIUMREAL, ALWAYS),
    NEED(PENTIUMMMX, MMX),
    NEED(PPRO, ALWAYS),
    NEED(FAT_NOP, ALWAYS),
    NEED(PREFETCH_NOP, ALWAYS),
    NEED(SSE_PREFETCH, ALWAYS),
    NEED(PREFETCHWT1, ALWAYS),
    NEED(PAUSE, ALWAYS),
    NEED(LONGMODE, LM),
    NEED(CMOV, CMOV),
    NEED2(FCMOV, CMOV, FPU),
    NEED(X87, FPU),
    NEED(RDPMC, ALWAYS),
    NEED(LAHF, ALWAYS),
    NEED(AMD, SYSCALL),
    NEED(AMD3DNOW, NEVER),
    NEED(CMPXCHG16B, CX16),
    NEED(MONITOR, MONITOR),
    NEED(FXSAVE, FXSR),
    NEED(FXSAVE64, FXSR),
    NEED(SSE, SSE),
    NEED(SSEMXCSR, SSE),
    NEED(SSE2, SSE2),
    NEED(SSE2MMX, SSE2),
    NEED(SSE3, SSE3),
    NEED2(SSE3X87, SSE3, FPU),
    NEED(SSSE3, SSSE3),
    NEED(SSSE3MMX, SSSE3),
    NEED(SSE4, SSE4_1),
    NEED(SSE42, SSE4_2),
    NEED(POPCNT, POPCNT),
    NEED(LZCNT, LZCNT),
    NEED(BMI1, BMI1),
    NEED(BMI2, BMI2),
    NEED(ADOX_ADCX, ADX),
    NEED(MOVBE, MOVBE),
    NEED(AES, AES),
    NEED(PCLMULQDQ, PCLMULQDQ),
    NEED(SHA, SHA),
    NEED(GFNI, GFNI),
    NEED(XSAVE, XSAVE),
    NEED(XSAVEOPT, XSAVEOPT),
    NEED(XSAVEC, XSAVEC),
    NEED(RDRAND, RDRAND),
    NEED(RDSEED, RDSEED),
    NEED(RDTSCP, RDTSCP),
    NEED(RDPID, RDPID),
    NEED(RDWRFSGS, FSGSBASE),
    NEED(INVPCID, INVPCID),
    NEED(SMAP, SMAP),
    NEED(PKU, PKU),
    NEED(CLFSH, CLFSH),
    NEED(CLFLUSHOPT, CLFLUSHOPT),
    NEED(CLWB, CLWB),
    NEED(AVX, AVX),
    NEED2(AVXAES, AVX, AES),
    NEED2(VPCLMULQDQ, VPCLMULQDQ, AVX),
    NEED(F16C, F16C),
    NEED(FMA, FMA),
    NEED(AVX2, AVX2),
    NEED(AVX2GATHER, AVX2),
    NEED2(AVX_GFNI, GFNI, AVX),
    NEED2(VAES, VAES, AVX),
    NEED(AVX_VNNI, AVX_VNNI),
    NEED_VL(AVX512F, AVX512F),
    NEED(AVX512F_128N, AVX512F),
    NEED(AVX512F_KOP, AVX512F),
    NEED(AVX512F_SCALAR, AVX512F),
    NEED_VL(AVX512BW, AVX512BW),
    NEED(AVX512BW_128N, AVX512BW),
    NEED(AVX512BW_KOP, AVX512BW),
    NEED_VL(AVX512DQ, AVX512DQ),
    NEED(AVX512DQ_128N, AVX512DQ),
    NEED(AVX512DQ_KOP, AVX512DQ),
    NEED(AVX512DQ_SCALAR, AVX512DQ),
    NEED_VL(AVX512CD, AVX512CD),
    NEED_VL(AVX512_BF16, AVX512_BF16),
    NEED_VL(AVX512_BITALG, AVX512_BITALG),
    NEED_VL(AVX512_IFMA, AVX512_IFMA),
    NEED_VL(AVX512_VBMI, AVX512_VBMI),
    NEED_VL(AVX512_VBMI2, AVX512_VBMI2),
    NEED_VL(AVX512_VNNI, AVX512_VNNI),
    NEED_VL(AVX512_VPOPCNTDQ, AVX512_VPOPCNTDQ),
    NEED2(AVX512_GFNI_128, GFNI, AVX512VL),
    NEED2(AVX512_GFNI_256, GFNI, AVX512VL),
    NEED2(AVX512_GFNI_512, GFNI, AVX512F),
    NEED2(AVX512_VAES_128, VAES, AVX512VL),
    NEED2(AVX512_VAES_256, VAES, AVX512VL),
    NEED2(AVX512_VAES_512, VAES, AVX512F),
    NEED2(AVX512_VPCLMULQDQ_128, VPCLMULQDQ, AVX512VL),
    NEED2(AVX512_VPCLMULQDQ_256, VPCLMULQDQ, AVX512VL),
    NEED2(AVX512_VPCLMULQDQ_512, VPCLMULQDQ, AVX512F),
};

static bool is_advertised(const struct x86_model *m, const ZydisDecodedInstruction *z)
{
    struct isa_features need = isa_features[z->meta.isa_set];

    if (need.first == 0 && need.second == 0)
        return false;
    if (z->mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B)
        return x86_model_has(m, X86_FEAT_CX8);
    if (z->mnemonic == ZYDIS_MNEMONIC_PREFETCHW || z->mnemonic == ZYDIS_MNEMONIC_PREFETCH)
        return true; /* hints */
    return x86_model_has(m, need.first) && x86_model_has(m, need.second);
}

/* ---- mnemonics and their binders ---- */

x86_binder bind_alu, bind_unary, bind_adx, bind_mov, bind_xchg, bind_extend, bind_lea, bind_cmov,
    bind_setcc, bind_bswap, bind_movbe, bind_xlat, bind_convert, bind_shift, bind_shift_double,
    bind_shift_x, bind_mul, bind_div, bind_mulx, bind_bt, bind_scan, bind_bmi, bind_crc32,
    bind_bcd, bind_jcc, bind_loop, bind_jmp_call, bind_ret, bind_iret, bind_int, bind_bound,
    bind_syscall, bind_push, bind_pop, bind_pusha, bind_pushf, bind_enter, bind_xadd,
    bind_cmpxchg, bind_cmpxchg8b, bind_string, bind_io, bind_flags, bind_nop, bind_ud,
    bind_load_far, bind_descriptor_query, bind_system_selector, bind_descriptor_table,
    bind_fsgsbase, bind_system;

#define BIND(M, b) [ZYDIS_MNEMONIC_##M] = b

static x86_binder *const binders[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    BIND(ADD, bind_alu), BIND(OR, bind_alu), BIND(ADC, bind_alu), BIND(SBB, bind_alu),
    BIND(AND, bind_alu), BIND(SUB, bind_alu), BIND(XOR, bind_alu), BIND(CMP, bind_alu),
    BIND(TEST, bind_alu),
    BIND(INC, bind_unary), BIND(DEC, bind_unary), BIND(NEG, bind_unary), BIND(NOT, bind_unary),
    BIND(ADCX, bind_adx), BIND(ADOX, bind_adx),
    BIND(MOV, bind_mov), BIND(XCHG, bind_xchg),
    BIND(MOVZX, bind_extend), BIND(MOVSX, bind_extend), BIND(MOVSXD, bind_extend),
    BIND(LEA, bind_lea), BIND(BSWAP, bind_bswap), BIND(MOVBE, bind_movbe), BIND(XLAT, bind_xlat),
    BIND(CBW, bind_convert), BIND(CWDE, bind_convert), BIND(CDQE, bind_convert),
    BIND(CWD, bind_convert), BIND(CDQ, bind_convert), BIND(CQO, bind_convert),
    BIND(CMOVB, bind_cmov), BIND(CMOVBE, bind_cmov), BIND(CMOVL, bind_cmov),
    BIND(CMOVLE, bind_cmov), BIND(CMOVNB, bind_cmov), BIND(CMOVNBE, bind_cmov),
    BIND(CMOVNL, bind_cmov), BIND(CMOVNLE, bind_cmov), BIND(CMOVNO, bind_cmov),
    BIND(CMOVNP, bind_cmov), BIND(CMOVNS, bind_cmov), BIND(CMOVNZ, bind_cmov),
    BIND(CMOVO, bind_cmov), BIND(CMOVP, bind_cmov), BIND(CMOVS, bind_cmov), BIND(CMOVZ, bind_cmov),
    BIND(SETB, bind_setcc), BIND(SETBE, bind_setcc), BIND(SETL, bind_setcc),
    BIND(SETLE, bind_setcc), BIND(SETNB, bind_setcc), BIND(SETNBE, bind_setcc),
    BIND(SETNL, bind_setcc), BIND(SETNLE, bind_setcc), BIND(SETNO, bind_setcc),
    BIND(SETNP, bind_setcc), BIND(SETNS, bind_setcc), BIND(SETNZ, bind_setcc),
    BIND(SETO, bind_setcc), BIND(SETP, bind_setcc), BIND(SETS, bind_setcc), BIND(SETZ, bind_setcc),
    BIND(SHL, bind_shift), BIND(SHR, bind_shift), BIND(SAR, bind_shift), BIND(ROL, bind_shift),
    BIND(ROR, bind_shift), BIND(RCL, bind_shift), BIND(RCR, bind_shift),
    BIND(SHLD, bind_shift_double), BIND(SHRD, bind_shift_double),
    BIND(SHLX, bind_shift_x), BIND(SHRX, bind_shift_x), BIND(SARX, bind_shift_x),
    BIND(RORX, bind_shift_x),
    BIND(MUL, bind_mul), BIND(IMUL, bind_mul), BIND(DIV, bind_div), BIND(IDIV, bind_div),
    BIND(MULX, bind_mulx),
    BIND(BT, bind_bt), BIND(BTS, bind_bt), BIND(BTR, bind_bt), BIND(BTC, bind_bt),
    BIND(BSF, bind_scan), BIND(BSR, bind_scan), BIND(TZCNT, bind_scan), BIND(LZCNT, bind_scan),
    BIND(POPCNT, bind_scan),
    BIND(ANDN, bind_bmi), BIND(BEXTR, bind_bmi), BIND(BZHI, bind_bmi), BIND(BLSI, bind_bmi),
    BIND(BLSMSK, bind_bmi), BIND(BLSR, bind_bmi), BIND(PDEP, bind_bmi), BIND(PEXT, bind_bmi),
    BIND(CRC32, bind_crc32),
    BIND(AAA, bind_bcd), BIND(AAS, bind_bcd), BIND(AAM, bind_bcd), BIND(AAD, bind_bcd),
    BIND(DAA, bind_bcd), BIND(DAS, bind_bcd),
    BIND(JB, bind_jcc), BIND(JBE, bind_jcc), BIND(JL, bind_jcc), BIND(JLE, bind_jcc),
    BIND(JNB, bind_jcc), BIND(JNBE, bind_jcc), BIND(JNL, bind_jcc), BIND(JNLE, bind_jcc),
    BIND(JNO, bind_jcc), BIND(JNP, bind_jcc), BIND(JNS, bind_jcc), BIND(JNZ, bind_jcc),
    BIND(JO, bind_jcc), BIND(JP, bind_jcc), BIND(JS, bind_jcc), BIND(JZ, bind_jcc),
    BIND(LOOP, bind_loop), BIND(LOOPE, bind_loop), BIND(LOOPNE, bind_loop),
    BIND(JCXZ, bind_loop), BIND(JECXZ, bind_loop), BIND(JRCXZ, bind_loop),
    BIND(JMP, bind_jmp_call), BIND(CALL, bind_jmp_call), BIND(RET, bind_ret),
    BIND(IRET, bind_iret), BIND(IRETD, bind_iret), BIND(IRETQ, bind_iret),
    BIND(INT, bind_int), BIND(INT3, bind_int), BIND(INTO, bind_int), BIND(INT1, bind_int),
    BIND(BOUND, bind_bound),
    BIND(SYSCALL, bind_syscall), BIND(SYSRET, bind_syscall), BIND(SYSENTER, bind_syscall),
    BIND(SYSEXIT, bind_syscall),
    BIND(PUSH, bind_push), BIND(POP, bind_pop),
    BIND(PUSHA, bind_pusha), BIND(PUSHAD, bind_pusha), BIND(POPA, bind_pusha),
    BIND(POPAD, bind_pusha),
    BIND(PUSHF, bind_pushf), BIND(PUSHFD, bind_pushf), BIND(PUSHFQ, bind_pushf),
    BIND(POPF, bind_pushf), BIND(POPFD, bind_pushf), BIND(POPFQ, bind_pushf),
    BIND(ENTER, bind_enter), BIND(LEAVE, bind_enter),
    BIND(XADD, bind_xadd), BIND(CMPXCHG, bind_cmpxchg), BIND(CMPXCHG8B, bind_cmpxchg8b),
    BIND(CMPXCHG16B, bind_cmpxchg8b),
    BIND(MOVSB, bind_string), BIND(MOVSW, bind_string), BIND(MOVSQ, bind_string),
    BIND(STOSB, bind_string), BIND(STOSW, bind_string), BIND(STOSD, bind_string),
    BIND(STOSQ, bind_string), BIND(LODSB, bind_string), BIND(LODSW, bind_string),
    BIND(LODSD, bind_string), BIND(LODSQ, bind_string), BIND(SCASB, bind_string),
    BIND(SCASW, bind_string), BIND(SCASD, bind_string), BIND(SCASQ, bind_string),
    BIND(CMPSB, bind_string), BIND(CMPSW, bind_string), BIND(CMPSQ, bind_string),
    BIND(INSB, bind_string), BIND(INSW, bind_string), BIND(INSD, bind_string),
    BIND(OUTSB, bind_string), BIND(OUTSW, bind_string), BIND(OUTSD, bind_string),
    BIND(IN, bind_io), BIND(OUT, bind_io),
    BIND(CLC, bind_flags), BIND(STC, bind_flags), BIND(CMC, bind_flags), BIND(CLD, bind_flags),
    BIND(STD, bind_flags), BIND(CLI, bind_flags), BIND(STI, bind_flags), BIND(CLAC, bind_flags),
    BIND(STAC, bind_flags), BIND(LAHF, bind_flags), BIND(SAHF, bind_flags),
    BIND(SALC, bind_flags), BIND(HLT, bind_flags), BIND(PAUSE, bind_flags),
    BIND(NOP, bind_nop), BIND(PREFETCH, bind_nop), BIND(PREFETCHW, bind_nop),
    BIND(PREFETCHNTA, bind_nop), BIND(PREFETCHT0, bind_nop), BIND(PREFETCHT1, bind_nop),
    BIND(PREFETCHT2, bind_nop), BIND(PREFETCHWT1, bind_nop),
    BIND(UD0, bind_ud), BIND(UD1, bind_ud), BIND(UD2, bind_ud), BIND(RSM, bind_ud),
    BIND(LDS, bind_load_far), BIND(LES, bind_load_far), BIND(LFS, bind_load_far),
    BIND(LGS, bind_load_far), BIND(LSS, bind_load_far),
    BIND(LAR, bind_descriptor_query), BIND(LSL, bind_descriptor_query),
    BIND(VERR, bind_descriptor_query), BIND(VERW, bind_descriptor_query),
    BIND(ARPL, bind_descriptor_query),
    BIND(LLDT, bind_system_selector), BIND(LTR, bind_system_selector),
    BIND(SLDT, bind_system_selector), BIND(STR, bind_system_selector),
    BIND(LGDT, bind_descriptor_table), BIND(LIDT, bind_descriptor_table),
    BIND(SGDT, bind_descriptor_table), BIND(SIDT, bind_descriptor_table),
    BIND(SWAPGS, bind_fsgsbase), BIND(RDFSBASE, bind_fsgsbase), BIND(RDGSBASE, bind_fsgsbase),
    BIND(WRFSBASE, bind_fsgsbase), BIND(WRGSBASE, bind_fsgsbase),
    BIND(CLTS, bind_system), BIND(LMSW, bind_system), BIND(SMSW, bind_system),
    BIND(RDMSR, bind_system), BIND(WRMSR, bind_system), BIND(RDTSC, bind_system),
    BIND(RDTSCP, bind_system), BIND(RDPMC, bind_system), BIND(RDPID, bind_system),
    BIND(CPUID, bind_system), BIND(INVLPG, bind_system), BIND(INVPCID, bind_system),
    BIND(INVD, bind_system), BIND(WBINVD, bind_system), BIND(CLFLUSH, bind_system),
    BIND(CLFLUSHOPT, bind_system), BIND(CLWB, bind_system), BIND(LFENCE, bind_system),
    BIND(SFENCE, bind_system), BIND(MFENCE, bind_system), BIND(RDRAND, bind_system),
    BIND(RDSEED, bind_system),
};

/* MOVSD and CMPSD are two instructions each: string, and scalar double. */
static x86_binder *binder_for(const ZydisDecodedInstruction *z)
{
    x86_binder *b;

    if ((z->mnemonic == ZYDIS_MNEMONIC_MOVSD || z->mnemonic == ZYDIS_MNEMONIC_CMPSD) &&
        z->meta.category == ZYDIS_CATEGORY_STRINGOP)
        return bind_string;
    b = binders[z->mnemonic];
    return b ? b : vec_binder_for(z);
}

/* ---- operands ---- */

unsigned x86_reg_offset(ZydisRegister r)
{
    if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
        return (unsigned)(r - ZYDIS_REGISTER_RAX) * 8;
    if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
        return (unsigned)(r - ZYDIS_REGISTER_EAX) * 8;
    if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
        return (unsigned)(r - ZYDIS_REGISTER_AX) * 8;
    if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
        return (unsigned)(r - ZYDIS_REGISTER_AL) * 8;
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        return (unsigned)(r - ZYDIS_REGISTER_AH) * 8 + 1;
    if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_DIL)
        return (unsigned)(r - ZYDIS_REGISTER_SPL + X86_RSP) * 8;
    if (r >= ZYDIS_REGISTER_R8B && r <= ZYDIS_REGISTER_R15B)
        return (unsigned)(r - ZYDIS_REGISTER_R8B + X86_R8) * 8;
    return X86_ZERO * 8;
}

static bool is_gpr(ZydisRegister r)
{
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return true;
    default:
        return false;
    }
}

enum x86_seg_index x86_seg_of(ZydisRegister r)
{
    switch (r) {
    case ZYDIS_REGISTER_ES:
        return X86_ES;
    case ZYDIS_REGISTER_CS:
        return X86_CS;
    case ZYDIS_REGISTER_SS:
        return X86_SS;
    case ZYDIS_REGISTER_FS:
        return X86_FS;
    case ZYDIS_REGISTER_GS:
        return X86_GS;
    default:
        return X86_DS;
    }
}

static void fill_memory(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o,
                        struct x86_insn *i)
{
    ZydisRegister base = o->mem.base;

    i->flags |= INSN_MEM;
    i->seg = x86_seg_of(o->mem.segment);
    i->disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
    /* Base 101B with ModRM.mod 0 is none but a displacement, whatever the fourth
     * bit is (SDM Vol. 2, table 2-5); Zydis 4.0 takes it for R13D where the
     * address size is 32. */
    if ((z->attributes & ZYDIS_ATTRIB_HAS_SIB) && z->raw.modrm.mod == 0 && z->raw.sib.base == 5) {
        base = ZYDIS_REGISTER_NONE;
        i->disp = z->raw.disp.value;
    }
    if (base == ZYDIS_REGISTER_RIP || base == ZYDIS_REGISTER_EIP) {
        i->base = X86_RIP;
        i->disp += i->offset + i->length;
    } else {
        i->base = base ? x86_reg_offset(base) / 8 : X86_ZERO;
    }
    if (o->mem.index && is_gpr(o->mem.index)) { /* not a vector index */
        i->index = x86_reg_offset(o->mem.index) / 8;
        i->scale = (uint8_t)__builtin_ctz(o->mem.scale | 8);
    }
}

void x86_decode_fill(struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedInstruction *z = &d->z;
    unsigned registers = 0, n;

    i->length = z->length;
    i->base = i->index = X86_ZERO;
    i->seg = X86_DS;
    i->addr_size = z->address_width / 8;
    i->ea_shift = (uint8_t)(64 - z->address_width);
    i->size = z->operand_width / 8;
    if ((d->mode & MODE_SIZE) == MODE_64)
        i->flags |= INSN_64;
    if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        i->flags |= INSN_LOCK;
    /* The last of F2 and F3 counts. */
    for (n = 0; n < z->raw.prefix_count; n++) {
        if (z->raw.prefixes[n].value == 0xf3)
            i->flags = (uint8_t)((i->flags & ~INSN_REPNE) | INSN_REP);
        else if (z->raw.prefixes[n].value == 0xf2)
            i->flags = (uint8_t)((i->flags & ~INSN_REP) | INSN_REPNE);
    }
    for (n = 0; n < z->operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            if (is_gpr(o->reg.value)) {
                if (registers++ == 0)
                    i->r0 = (uint16_t)x86_reg_offset(o->reg.value);
                else if (registers == 2)
                    i->r1 = (uint16_t)x86_reg_offset(o->reg.value);
            }
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            fill_memory(z, o, i);
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            if (o->imm.is_signed)
                i->imm = (uint64_t)o->imm.value.s;
            else
                i->imm = o->imm.value.u;
            break;
        default:
            break;
        }
    }
    /* The size of the operation is the size of its first operand. */
    if (z->operand_count_visible && z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
        unsigned bits = d->op[0].size;
        if ((d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && is_gpr(d->op[0].reg.value)) ||
            (d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY && bits <= 64))
            if (bits == 8 || bits == 16 || bits == 32 || bits == 64)
                i->size = (uint8_t)(bits / 8);
    } else if (z->operand_count_visible && d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
               is_gpr(d->op[0].reg.value)) {
        i->size = (uint8_t)(d->op[0].size / 8);
    }
    /* Implied memory operands with a segment that a prefix may change. */
    for (; n < z->operand_count; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || (i->flags & INSN_MEM))
            continue;
        switch (o->mem.base) {
        case ZYDIS_REGISTER_SI:
        case ZYDIS_REGISTER_ESI:
        case ZYDIS_REGISTER_RSI:
        case ZYDIS_REGISTER_BX:
        case ZYDIS_REGISTER_EBX:
        case ZYDIS_REGISTER_RBX:
            i->seg = x86_seg_of(o->mem.segment);
            break;
        default:
            break;
        }
    }
}

/* ---- one instruction ---- */

/* F3 90 is PAUSE, but with REX.B it is XCHG of r8, which Zydis does not know:
 * F3 means nothing then, and any other prefix without meaning serves as well. */
static ZyanStatus decode_xchg_r8(const ZydisDecoder *decoder, struct x86_decode *d,
                                 size_t available)
{
    uint8_t bytes[15];

    memcpy(bytes, d->bytes, MIN(available, sizeof bytes));
    for (unsigned n = 0; n < d->z.length; n++) {
        if (bytes[n] == 0xf3)
            bytes[n] = 0x3e;
    }
    return ZydisDecoderDecodeFull(decoder, bytes, MIN(available, sizeof bytes), &d->z, d->op);
}

static void decoder_for(const struct x86_vcpu *c, uint32_t mode, ZydisDecoder *decoder)
{
    static const struct {
        ZydisMachineMode machine;
        ZydisStackWidth stack;
    } by_size[] = {
        [MODE_16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
        [MODE_32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
        [MODE_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
    };
    unsigned size = mode & MODE_SIZE;

    ZydisDecoderInit(decoder, by_size[size].machine, by_size[size].stack);
    /* Encodings of features that are not there mean what they meant before. */
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_TZCNT,
                           x86_model_has(c->model, X86_FEAT_BMI1));
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_LZCNT,
                           x86_model_has(c->model, X86_FEAT_LZCNT));
}

/* In real and V86 mode VEX and EVEX encodings do not exist. */
static bool allowed_in_mode(const struct x86_decode *d)
{
    if ((d->mode & MODE_REAL) && d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    switch (d->z.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        return true;
    default:
        return false; /* 3DNow!, XOP, MVEX */
    }
}

enum x86_decode_result x86_decode_one(struct x86_vcpu *c, uint32_t mode, const uint8_t *bytes,
                                      size_t available, struct x86_insn *i)
{
    struct x86_decode d;

    return x86_decode_whole(c, mode, bytes, available, i, &d);
}

enum x86_decode_result x86_decode_whole(struct x86_vcpu *c, uint32_t mode, const uint8_t *bytes,
                                        size_t available, struct x86_insn *i,
                                        struct x86_decode *d)
{
    uint16_t offset = i->offset, number = i->number;
    ZydisDecoder decoder;
    ZyanStatus status;
    x86_binder *bind;

    d->c = c;
    d->mode = mode;
    d->bytes = bytes;
    decoder_for(c, mode, &decoder);
    status = ZydisDecoderDecodeFull(&decoder, bytes, MIN(available, 15), &d->z, d->op);
    if (ZYAN_SUCCESS(status) && d->z.mnemonic == ZYDIS_MNEMONIC_PAUSE && d->z.raw.rex.B)
        status = decode_xchg_r8(&decoder, d, available);
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return available < 15 ? DECODE_MORE : DECODE_TOO_LONG;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return DECODE_TOO_LONG;
    *i = (struct x86_insn){.offset = offset, .number = number};
    if (!ZYAN_SUCCESS(status) || !allowed_in_mode(d) || !is_advertised(c->model, &d->z))
        goto undefined;
    bind = binder_for(&d->z);
    if (!bind) {
        vlog(c->vm->log, CPU, GUEST, "no handler for %s: #UD",
             ZydisMnemonicGetString(d->z.mnemonic));
        goto undefined;
    }
    x86_decode_fill(d, i);
    if (bind(d, i))
        return DECODE_OK;
undefined:
    *i = (struct x86_insn){.offset = offset, .number = number, .length = 1,
                           .imm = ZYAN_SUCCESS(status) ? d->z.length : MIN(available, 15)};
    bind_ud(d, i);
    return DECODE_UNDEFINED;
}
