/*
 * Gathers and scatters (SDM Vol. 2, VGATHERDPS, VPGATHERDD, VSCATTERDPS..).
 *
 * Element by element in C, from the lowest: each element that is done clears
 * its mask bit, so that after a fault the instruction can be restarted and
 * does only the rest. Gathers with a vector mask are AVX2's, with an opmask
 * AVX-512's.
 */
#include "cpu/x86/vec/vec_internal.h"

/* In x86_insn: r0 data register, r1 index register, aux2 mask register,
 * scale as usual; spare holds: */
struct gather_info {
    uint8_t data_log2, index_log2; /* bytes of an element */
    uint8_t count;
    uint8_t bytes; /* of the data register that are written: count << data_log2, 16 at least */
};
_Static_assert(sizeof(struct gather_info) == sizeof(uint32_t), "fits x86_insn.spare");

struct gather {
    struct gather_info g;
    uint8_t data[64], index[64];
};

static void gather_begin(struct gather *s, const struct x86_vcpu *c, const struct x86_insn *i)
{
    memcpy(&s->g, &i->spare, sizeof s->g);
    vec_get_reg(&c->s, i->r0, s->data);
    vec_get_reg(&c->s, i->r1, s->index);
}

static uint64_t element_ea(const struct gather *s, const struct x86_vcpu *c,
                           const struct x86_insn *i, unsigned n)
{
    unsigned size = 1u << s->g.index_log2;
    uint64_t index = (uint64_t)sext(le_get(s->index + n * size, size), size);
    uint64_t ea = c->s.reg[i->base] + (index << i->scale) + (uint64_t)i->disp;

    return ea << i->ea_shift >> i->ea_shift;
}

/* Progress so far becomes visible before anything can fault. */
static void put_element(struct x86_vcpu *c, unsigned reg, unsigned offset, const uint8_t *from,
                        unsigned size)
{
    uint8_t *to;

    if (reg >= 16)
        to = c->s.x.hi16_zmm[reg - 16] + offset;
    else if (offset < 16)
        to = c->s.x.xmm[reg] + offset;
    else if (offset < 32)
        to = c->s.x.ymm_hi[reg] + offset - 16;
    else
        to = c->s.x.zmm_hi[reg] + offset - 32;
    memcpy(to, from, size);
}

static enum x86_next gather_opmask(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct gather s;
    uint64_t *mask = &c->s.x.opmask[i->aux2];
    unsigned size;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    gather_begin(&s, c, i);
    size = 1u << s.g.data_log2;
    for (unsigned n = 0; n < s.g.count; n++) {
        if (!(*mask >> n & 1))
            continue;
        le_put(s.data + n * size, x86_element_read(c, i->seg, element_ea(&s, c, i, n), size), size);
        put_element(c, i->r0, n * size, s.data + n * size, size);
        *mask &= ~BIT(n);
    }
    *mask = 0;
    vec_set_reg(&c->s, i->r0, s.data, (unsigned)s.g.count << s.g.data_log2);
    X86_NEXT(c, i);
}

static enum x86_next gather_vector(struct x86_vcpu *c, const struct x86_insn *i)
{
    static const uint8_t zero[64];
    struct gather s;
    uint8_t mask[64];
    unsigned size;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    gather_begin(&s, c, i);
    vec_get_reg(&c->s, i->aux2, mask);
    size = 1u << s.g.data_log2;
    for (unsigned n = 0; n < s.g.count; n++) {
        /* Also where nothing is selected the mask is cleared on the way. */
        if (!(mask[n * size + size - 1] >> 7)) {
            put_element(c, i->aux2, n * size, zero, size);
            continue;
        }
        le_put(s.data + n * size, x86_element_read(c, i->seg, element_ea(&s, c, i, n), size), size);
        put_element(c, i->r0, n * size, s.data + n * size, size);
        put_element(c, i->aux2, n * size, zero, size);
    }
    vec_set_reg(&c->s, i->aux2, zero, 0);
    vec_set_reg(&c->s, i->r0, s.data, (unsigned)s.g.count << s.g.data_log2);
    X86_NEXT(c, i);
}

static enum x86_next scatter(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct gather s;
    uint64_t *mask = &c->s.x.opmask[i->aux2];
    unsigned size;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    gather_begin(&s, c, i);
    size = 1u << s.g.data_log2;
    for (unsigned n = 0; n < s.g.count; n++) {
        if (!(*mask >> n & 1))
            continue;
        x86_element_write(c, i->seg, element_ea(&s, c, i, n), le_get(s.data + n * size, size), size);
        *mask &= ~BIT(n);
    }
    *mask = 0;
    X86_NEXT(c, i);
}

/* ---- binding ---- */

/* Names are V[P]GATHER|SCATTER, index D or Q, data type. */
static bool find_kind(ZydisMnemonic m, struct gather_info *g, bool *is_scatter)
{
#define KIND(name, index, data)                                                                    \
    case ZYDIS_MNEMONIC_##name:                                                                    \
        g->index_log2 = index;                                                                     \
        g->data_log2 = data;                                                                       \
        return true;
    *is_scatter = false;
    switch (m) {
        KIND(VGATHERDPS, 2, 2)
        KIND(VGATHERDPD, 2, 3)
        KIND(VGATHERQPS, 3, 2)
        KIND(VGATHERQPD, 3, 3)
        KIND(VPGATHERDD, 2, 2)
        KIND(VPGATHERDQ, 2, 3)
        KIND(VPGATHERQD, 3, 2)
        KIND(VPGATHERQQ, 3, 3)
    default:
        break;
    }
    *is_scatter = true;
    switch (m) {
        KIND(VSCATTERDPS, 2, 2)
        KIND(VSCATTERDPD, 2, 3)
        KIND(VSCATTERQPS, 3, 2)
        KIND(VSCATTERQPD, 3, 3)
        KIND(VPSCATTERDD, 2, 2)
        KIND(VPSCATTERDQ, 2, 3)
        KIND(VPSCATTERQD, 3, 2)
        KIND(VPSCATTERQQ, 3, 3)
    default:
        return false;
    }
#undef KIND
}

bool bind_vec_gather(struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedOperand *mem = vec_mem_operand(d);
    struct gather_info g;
    bool is_scatter, evex = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    unsigned widest, index, data, mask;

    if (!find_kind(d->z.mnemonic, &g, &is_scatter))
        return false;
    i->fn = NULL;
    if (!mem || mem->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
        return true; /* without an index register: #UD */
    widest = MAX(g.data_log2, g.index_log2);
    g.count = (uint8_t)(d->z.avx.vector_length / 8 >> widest);
    g.bytes = (uint8_t)(g.count << g.data_log2);
    data = vec_reg_id(&d->op[is_scatter ? 2 : 0]);
    index = (unsigned)ZydisRegisterGetId(mem->mem.index);
    mask = evex ? (unsigned)ZydisRegisterGetId(d->z.avx.mask.reg) : vec_reg_id(&d->op[2]);
    if (evex ? !mask : mask == data || mask == index)
        return true; /* #UD */
    if (!is_scatter && data == index)
        return true;
    i->r0 = (uint16_t)data;
    i->r1 = (uint16_t)index;
    i->aux2 = (uint8_t)mask;
    memcpy(&i->spare, &g, sizeof g);
    i->index = X86_ZERO;
    i->scale = (uint8_t)__builtin_ctz(mem->mem.scale ? mem->mem.scale : 1);
    i->addr_size = d->z.address_width / 8;
    i->ea_shift = (uint8_t)(64 - d->z.address_width);
    i->seg = (uint8_t)x86_seg_of(mem->mem.segment);
    i->fn = is_scatter ? scatter : evex ? gather_opmask : gather_vector;
    return true;
}
