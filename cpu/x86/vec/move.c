/*
 * The commonest vector instructions, which only move or clear, without host
 * code of their own: SSE and AVX moves of 4, 8, 16 and 32 bytes, between
 * registers, memory and general registers (SDM Vol. 2, MOVAPS to MOVQ).
 *
 * r0 is the vector register's number, r1 the other's; or the byte offset of a
 * general register as usual.
 */
#include "cpu/x86/vec/vec_internal.h"

/* VEX instructions clear what they do not write. */
static inline void clear_above_xmm(struct x86_vcpu *c, unsigned n)
{
    _mm_store_si128((__m128i *)c->s.x.ymm_hi[n], _mm_setzero_si128());
    _mm_store_si128((__m128i *)c->s.x.zmm_hi[n], _mm_setzero_si128());
    _mm_store_si128((__m128i *)c->s.x.zmm_hi[n] + 1, _mm_setzero_si128());
}

static inline void clear_above_ymm(struct x86_vcpu *c, unsigned n)
{
    _mm_store_si128((__m128i *)c->s.x.zmm_hi[n], _mm_setzero_si128());
    _mm_store_si128((__m128i *)c->s.x.zmm_hi[n] + 1, _mm_setzero_si128());
}

#define MOVE(name)                                                                                 \
    static enum x86_next name(struct x86_vcpu *c, const struct x86_insn *i)                        \
    {                                                                                              \
        X86_BEGIN(c, i);                                                                           \
        VEC_GATE(c, i);
#define MOVE_END                                                                                   \
    X86_NEXT(c, i);                                                                                \
    }

/* Whole registers; VEX variants clear above. */
MOVE(mov_rr)
    vec_set_xmm(c, i->r0, vec_xmm(c, i->r1));
MOVE_END

MOVE(vmov_rr)
    vec_set_xmm(c, i->r0, vec_xmm(c, i->r1));
    clear_above_xmm(c, i->r0);
MOVE_END

MOVE(vmov_rr_ymm)
    vec_set_xmm(c, i->r0, vec_xmm(c, i->r1));
    memcpy(c->s.x.ymm_hi[i->r0], c->s.x.ymm_hi[i->r1], 16);
    clear_above_ymm(c, i->r0);
MOVE_END

static inline __m128i load_16(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t ea = x86_ea(c, i);

    vec_check_aligned(c, i, ea, i->aux2, false);
    return _mm_loadu_si128(vec_read_pointer(c, i, ea, 16));
}

MOVE(mov_load)
    vec_set_xmm(c, i->r0, load_16(c, i));
MOVE_END

MOVE(vmov_load)
    vec_set_xmm(c, i->r0, load_16(c, i));
    clear_above_xmm(c, i->r0);
MOVE_END

MOVE(vmov_load_ymm)
    uint64_t ea = x86_ea(c, i);
    const __m128i *p;

    vec_check_aligned(c, i, ea, i->aux2, false);
    p = vec_read_pointer(c, i, ea, 32);
    vec_set_xmm(c, i->r0, _mm_loadu_si128(p));
    _mm_store_si128((__m128i *)c->s.x.ymm_hi[i->r0], _mm_loadu_si128(p + 1));
    clear_above_ymm(c, i->r0);
MOVE_END

MOVE(mov_store)
    uint64_t ea = x86_ea(c, i);
    void *p;

    vec_check_aligned(c, i, ea, i->aux2, true);
    p = vec_fast_write(c, i->seg, ea, 16);
    if (likely(p))
        _mm_storeu_si128(p, vec_xmm(c, i->r0));
    else
        x86_write_bytes(c, i->seg, ea, c->s.x.xmm[i->r0], 16);
MOVE_END

MOVE(mov_store_ymm)
    uint64_t ea = x86_ea(c, i);
    void *p;

    vec_check_aligned(c, i, ea, i->aux2, true);
    p = vec_fast_write(c, i->seg, ea, 32);
    if (likely(p)) {
        _mm_storeu_si128(p, vec_xmm(c, i->r0));
        _mm_storeu_si128((__m128i *)p + 1, *(__m128i *)c->s.x.ymm_hi[i->r0]);
    } else {
        memcpy(c->vec->bounce, c->s.x.xmm[i->r0], 16);
        memcpy(c->vec->bounce + 16, c->s.x.ymm_hi[i->r0], 16);
        x86_write_bytes(c, i->seg, ea, c->vec->bounce, 32);
    }
MOVE_END

/* 4 and 8 bytes from memory or a general register: zero-extended. */
MOVE(mov_load_4)
    vec_set_xmm(c, i->r0, _mm_cvtsi32_si128((int)x86_read32(c, i->seg, x86_ea(c, i))));
MOVE_END

MOVE(vmov_load_4)
    vec_set_xmm(c, i->r0, _mm_cvtsi32_si128((int)x86_read32(c, i->seg, x86_ea(c, i))));
    clear_above_xmm(c, i->r0);
MOVE_END

MOVE(mov_load_8)
    vec_set_xmm(c, i->r0, _mm_cvtsi64_si128((int64_t)x86_read64(c, i->seg, x86_ea(c, i))));
MOVE_END

MOVE(vmov_load_8)
    vec_set_xmm(c, i->r0, _mm_cvtsi64_si128((int64_t)x86_read64(c, i->seg, x86_ea(c, i))));
    clear_above_xmm(c, i->r0);
MOVE_END

MOVE(mov_from_gpr4)
    vec_set_xmm(c, i->r0, _mm_cvtsi32_si128((int)X86_REG32(c, i->r1)));
MOVE_END

MOVE(vmov_from_gpr4)
    vec_set_xmm(c, i->r0, _mm_cvtsi32_si128((int)X86_REG32(c, i->r1)));
    clear_above_xmm(c, i->r0);
MOVE_END

MOVE(mov_from_gpr8)
    vec_set_xmm(c, i->r0, _mm_cvtsi64_si128((int64_t)X86_REG64(c, i->r1)));
MOVE_END

MOVE(vmov_from_gpr8)
    vec_set_xmm(c, i->r0, _mm_cvtsi64_si128((int64_t)X86_REG64(c, i->r1)));
    clear_above_xmm(c, i->r0);
MOVE_END

MOVE(mov_low_8) /* MOVQ xmm, xmm */
    vec_set_xmm(c, i->r0, _mm_move_epi64(vec_xmm(c, i->r1)));
MOVE_END

MOVE(vmov_low_8)
    vec_set_xmm(c, i->r0, _mm_move_epi64(vec_xmm(c, i->r1)));
    clear_above_xmm(c, i->r0);
MOVE_END

/* The low 4 or 8 bytes to memory or a general register: SSE and VEX alike. */
MOVE(mov_store_4)
    x86_write32(c, i->seg, x86_ea(c, i), le32_get(c->s.x.xmm[i->r0]));
MOVE_END

MOVE(mov_store_8)
    x86_write64(c, i->seg, x86_ea(c, i), le64_get(c->s.x.xmm[i->r0]));
MOVE_END

MOVE(mov_to_gpr4)
    X86_REG64(c, i->r1) = le32_get(c->s.x.xmm[i->r0]);
MOVE_END

MOVE(mov_to_gpr8)
    X86_REG64(c, i->r1) = le64_get(c->s.x.xmm[i->r0]);
MOVE_END

/* Halves. */
MOVE(mov_store_high)
    x86_write64(c, i->seg, x86_ea(c, i), le64_get(c->s.x.xmm[i->r0] + 8));
MOVE_END

MOVE(mov_load_low)
    le64_put(c->s.x.xmm[i->r0], x86_read64(c, i->seg, x86_ea(c, i)));
MOVE_END

MOVE(mov_load_high)
    le64_put(c->s.x.xmm[i->r0] + 8, x86_read64(c, i->seg, x86_ea(c, i)));
MOVE_END

MOVE(movss_rr)
    memcpy(c->s.x.xmm[i->r0], c->s.x.xmm[i->r1], 4);
MOVE_END

MOVE(movsd_rr)
    memcpy(c->s.x.xmm[i->r0], c->s.x.xmm[i->r1], 8);
MOVE_END

/* The idiom for zero. */
MOVE(zero_xmm)
    vec_set_xmm(c, i->r0, _mm_setzero_si128());
MOVE_END

MOVE(vzero)
    vec_set_xmm(c, i->r0, _mm_setzero_si128());
    clear_above_xmm(c, i->r0);
MOVE_END

/* MOVNTI: a general register to memory; needs no vector state at all. */
static enum x86_next movnti(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    x86_write(c, i->seg, x86_ea(c, i), x86_reg_get(c, i->r1, i->size), i->size);
    X86_NEXT(c, i);
}

/* ---- binding ---- */

/* The shape of a move: what its two operands are. */
enum shape { LOAD, STORE, RR, FROM_GPR, TO_GPR, SHAPES };

struct moves {
    x86_handler *fn[SHAPES];
};

static const struct moves whole = {{mov_load, mov_store, mov_rr, NULL, NULL}},
                          whole_vex = {{vmov_load, mov_store, vmov_rr, NULL, NULL}},
                          whole_ymm = {{vmov_load_ymm, mov_store_ymm, vmov_rr_ymm, NULL, NULL}},
                          dword = {{mov_load_4, mov_store_4, NULL, mov_from_gpr4, mov_to_gpr4}},
                          dword_vex = {{vmov_load_4, mov_store_4, NULL, vmov_from_gpr4,
                                        mov_to_gpr4}},
                          qword = {{mov_load_8, mov_store_8, mov_low_8, mov_from_gpr8,
                                    mov_to_gpr8}},
                          qword_vex = {{vmov_load_8, mov_store_8, vmov_low_8, vmov_from_gpr8,
                                        mov_to_gpr8}},
                          ss = {{mov_load_4, mov_store_4, movss_rr, NULL, NULL}},
                          sd = {{mov_load_8, mov_store_8, movsd_rr, NULL, NULL}},
                          /* the VEX register forms have three operands: thunks */
                          ss_vex = {{vmov_load_4, mov_store_4, NULL, NULL, NULL}},
                          sd_vex = {{vmov_load_8, mov_store_8, NULL, NULL, NULL}},
                          low = {{mov_load_low, mov_store_8, NULL, NULL, NULL}},
                          high = {{mov_load_high, mov_store_high, NULL, NULL, NULL}},
                          low_vex = {{NULL, mov_store_8, NULL, NULL, NULL}},
                          high_vex = {{NULL, mov_store_high, NULL, NULL, NULL}};

static const struct moves *find_moves(const struct x86_decode *d, bool ymm, unsigned width)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTDQA:
        return &whole;
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VLDDQU:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
        return ymm ? &whole_ymm : &whole_vex;
    case ZYDIS_MNEMONIC_MOVD:
    case ZYDIS_MNEMONIC_MOVQ:
        return width == 8 ? &qword : &dword;
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VMOVQ:
        return width == 8 ? &qword_vex : &dword_vex;
    case ZYDIS_MNEMONIC_MOVSS:
        return &ss;
    case ZYDIS_MNEMONIC_MOVSD:
        return &sd;
    case ZYDIS_MNEMONIC_VMOVSS:
        return &ss_vex;
    case ZYDIS_MNEMONIC_VMOVSD:
        return &sd_vex;
    case ZYDIS_MNEMONIC_MOVLPS:
    case ZYDIS_MNEMONIC_MOVLPD:
        return &low;
    case ZYDIS_MNEMONIC_MOVHPS:
    case ZYDIS_MNEMONIC_MOVHPD:
        return &high;
    case ZYDIS_MNEMONIC_VMOVLPS:
    case ZYDIS_MNEMONIC_VMOVLPD:
        return &low_vex;
    case ZYDIS_MNEMONIC_VMOVHPS:
    case ZYDIS_MNEMONIC_VMOVHPD:
        return &high_vex;
    default:
        return NULL;
    }
}

static bool bind_zero(const struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedOperand *op = d->op;
    bool vex = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;

    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_PXOR:
    case ZYDIS_MNEMONIC_XORPS:
    case ZYDIS_MNEMONIC_XORPD:
    case ZYDIS_MNEMONIC_VPXOR:
    case ZYDIS_MNEMONIC_VXORPS:
    case ZYDIS_MNEMONIC_VXORPD:
        break;
    default:
        return false;
    }
    if (!vec_is_vector(vec_reg_class(&op[vex])) || !vec_is_vector(vec_reg_class(&op[1 + vex])) ||
        vec_reg_id(&op[vex]) != vec_reg_id(&op[1 + vex]))
        return false;
    i->r0 = (uint16_t)vec_reg_id(&op[0]);
    i->fn = vex ? vzero : zero_xmm;
    return true;
}

static bool bind_movnti(const struct x86_decode *d, struct x86_insn *i)
{
    if (d->z.mnemonic != ZYDIS_MNEMONIC_MOVNTI)
        return false;
    i->r1 = (uint16_t)x86_reg_offset(d->op[1].reg.value);
    i->gate = 0;
    i->fn = movnti;
    return true;
}

bool bind_vec_move(struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedOperand *op = d->op;
    ZydisRegisterClass k0 = vec_reg_class(&op[0]), k1 = vec_reg_class(&op[1]);
    const struct moves *m;
    unsigned width;
    enum shape shape;

    if (d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        return false;
    if (bind_zero(d, i) || bind_movnti(d, i))
        return true;
    if (d->z.operand_count_visible != 2)
        return false;
    /* MOVQ with a memory operand or a 64-bit register, and between registers. */
    width = d->z.mnemonic == ZYDIS_MNEMONIC_MOVQ || d->z.mnemonic == ZYDIS_MNEMONIC_VMOVQ ? 8 : 4;
    m = find_moves(d, k0 == ZYDIS_REGCLASS_YMM || k1 == ZYDIS_REGCLASS_YMM, width);
    if (!m)
        return false;
    if (vec_is_vector(k0) && op[1].type == ZYDIS_OPERAND_TYPE_MEMORY)
        shape = LOAD;
    else if (op[0].type == ZYDIS_OPERAND_TYPE_MEMORY && vec_is_vector(k1))
        shape = STORE;
    else if (vec_is_vector(k0) && vec_is_vector(k1))
        shape = RR;
    else if (vec_is_vector(k0) && vec_is_gpr(k1))
        shape = FROM_GPR;
    else if (vec_is_gpr(k0) && vec_is_vector(k1))
        shape = TO_GPR;
    else
        return false; /* MMX registers */
    if (!m->fn[shape])
        return false;
    i->fn = m->fn[shape];
    i->r0 = (uint16_t)vec_reg_id(shape == STORE || shape == TO_GPR ? &op[1] : &op[0]);
    if (shape == RR)
        i->r1 = (uint16_t)vec_reg_id(&op[1]);
    if (shape == FROM_GPR)
        i->r1 = (uint16_t)x86_reg_offset(op[1].reg.value);
    if (shape == TO_GPR)
        i->r1 = (uint16_t)x86_reg_offset(op[0].reg.value);
    return true;
}
