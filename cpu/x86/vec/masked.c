/*
 * Memory operands under a mask: AVX-512 opmasks with fault suppression (SDM
 * Vol. 1, 15.6.4), expand and compress, VMASKMOV, MASKMOVDQU and MASKMOVQ.
 *
 * While the whole operand can be reached without a fault, the thunk works on
 * guest memory directly and the host does the masking. Otherwise only the
 * elements that the mask selects are translated and moved, through the bounce
 * buffer; all of them before anything is written.
 */
#include "cpu/x86/vec/vec_internal.h"

/* In x86_insn.spare. */
struct mask_info {
    uint8_t reg;          /* opmask or vector register that holds the mask */
    uint8_t element_log2; /* bytes of a memory element */
    uint8_t count;        /* memory elements */
    uint8_t lanes;        /* mask bits: more than count when the operand is broadcast */
};
_Static_assert(sizeof(struct mask_info) == sizeof(uint32_t), "fits x86_insn.spare");

static inline struct mask_info info_of(const struct x86_insn *i)
{
    struct mask_info m;

    memcpy(&m, &i->spare, sizeof m);
    return m;
}

static inline uint64_t low_bits(unsigned n)
{
    return n >= 64 ? ~0ull : BIT(n) - 1;
}

/* One operand begins at ea: its parts do not wrap at the address size. */
static inline uint64_t element_ea(const struct x86_insn *i, uint64_t ea, unsigned offset)
{
    return ea + offset;
}

static uint64_t opmask_of(const struct x86_vcpu *c, struct mask_info m)
{
    return c->s.x.opmask[m.reg] & low_bits(m.lanes);
}

/* Which memory elements the mask needs. */
static uint64_t needed(uint64_t mask, struct mask_info m)
{
    uint64_t all = mask;

    for (unsigned n = m.count; n < m.lanes; n += m.count)
        all |= mask >> n;
    return all & low_bits(m.count);
}

/* VMASKMOV and VPMASKMOV never check alignment (exception type 6), the others do
 * for each element. */
static void read_elements(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea,
                          uint64_t elements, unsigned log2, bool is_checked)
{
    uint8_t *to = c->vec->bounce;

    memset(to, 0, 64);
    for (; elements; elements &= elements - 1) {
        unsigned offset = (unsigned)__builtin_ctzll(elements) << log2;
        uint64_t at = element_ea(i, ea, offset);
        uint64_t v = is_checked ? x86_read(c, i->seg, at, 1u << log2)
                                : x86_element_read(c, i->seg, at, 1u << log2);

        le_put(to + offset, v, 1u << log2);
    }
}

static void probe_elements(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea,
                           uint64_t elements, unsigned log2, bool is_checked)
{
    for (; elements; elements &= elements - 1) {
        unsigned offset = (unsigned)__builtin_ctzll(elements) << log2;
        uint64_t at = element_ea(i, ea, offset);

        if (is_checked)
            x86_probe_write(c, i->seg, at, 1u << log2);
        else
            x86_element_probe(c, i->seg, at, 1u << log2);
    }
}

static void write_elements(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea,
                           uint64_t elements, unsigned log2)
{
    for (; elements; elements &= elements - 1) {
        unsigned offset = (unsigned)__builtin_ctzll(elements) << log2;

        x86_element_write(c, i->seg, element_ea(i, ea, offset),
                          le_get(c->vec->bounce + offset, 1u << log2), 1u << log2);
    }
}

/* ---- opmask ---- */

static enum x86_next opmask_load(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct mask_info m = info_of(i);
    uint64_t ea, mask;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    mask = opmask_of(c, m);
    if (mask) /* a whole operand that is not accessed may lie anywhere */
        vec_check_aligned(c, i, ea, i->aux2, false);
    p = vec_fast_read(c, i->seg, ea, i->size);
    if (unlikely(!p)) {
        p = c->vec->bounce;
        read_elements(c, i, ea, needed(mask, m), m.element_log2, true);
    }
    vec_run(c, i->aux, vec_thunk_of(i), p);
    X86_NEXT(c, i);
}

static enum x86_next opmask_store(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct mask_info m = info_of(i);
    uint64_t ea, mask;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    mask = opmask_of(c, m);
    if (mask)
        vec_check_aligned(c, i, ea, i->aux2, true);
    p = vec_fast_write(c, i->seg, ea, i->size);
    if (unlikely(!p))
        probe_elements(c, i, ea, mask, m.element_log2, true);
    vec_run(c, i->aux, vec_thunk_of(i), p ? p : c->vec->bounce);
    if (unlikely(!p))
        write_elements(c, i, ea, mask, m.element_log2);
    X86_NEXT(c, i);
}

/* Without fault suppression the whole operand must be writable. */
static enum x86_next opmask_store_nf(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct mask_info m = info_of(i);
    uint64_t ea;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    p = vec_fast_write(c, i->seg, ea, i->size);
    if (unlikely(!p))
        x86_probe_write(c, i->seg, ea, i->size);
    vec_run(c, i->aux, vec_thunk_of(i), p ? p : c->vec->bounce);
    if (unlikely(!p))
        write_elements(c, i, ea, opmask_of(c, m), m.element_log2);
    X86_NEXT(c, i);
}

/* Memory holds the selected elements only, side by side. */
static enum x86_next expand(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct mask_info m = info_of(i);
    uint64_t ea;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    p = vec_fast_read(c, i->seg, ea, i->size);
    if (unlikely(!p)) {
        p = c->vec->bounce;
        read_elements(c, i, ea, low_bits((unsigned)__builtin_popcountll(opmask_of(c, m))),
                      m.element_log2, true);
    }
    vec_run(c, i->aux, vec_thunk_of(i), p);
    X86_NEXT(c, i);
}

static enum x86_next compress(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct mask_info m = info_of(i);
    uint64_t ea, elements;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    elements = low_bits((unsigned)__builtin_popcountll(opmask_of(c, m)));
    p = vec_fast_write(c, i->seg, ea, i->size);
    if (unlikely(!p))
        probe_elements(c, i, ea, elements, m.element_log2, true);
    vec_run(c, i->aux, vec_thunk_of(i), p ? p : c->vec->bounce);
    if (unlikely(!p))
        write_elements(c, i, ea, elements, m.element_log2);
    X86_NEXT(c, i);
}

/* ---- VMASKMOVPS/PD, VPMASKMOVD/Q: the sign bits of a vector register ---- */

static uint64_t sign_mask(const struct x86_vcpu *c, struct mask_info m)
{
    uint8_t v[64];
    uint64_t mask = 0;
    unsigned bytes = 1u << m.element_log2;

    vec_get_reg(&c->s, m.reg, v);
    for (unsigned n = 0; n < m.count; n++)
        mask |= (uint64_t)(v[n * bytes + bytes - 1] >> 7) << n;
    return mask;
}

static enum x86_next vmaskmov_load(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct mask_info m = info_of(i);
    uint64_t ea;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    p = vec_fast_read(c, i->seg, ea, i->size);
    if (unlikely(!p)) {
        p = c->vec->bounce;
        read_elements(c, i, ea, sign_mask(c, m), m.element_log2, false);
    }
    vec_thunk_of(i)(&c->s, p);
    X86_NEXT(c, i);
}

static enum x86_next vmaskmov_store(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct mask_info m = info_of(i);
    uint64_t ea, mask;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    ea = x86_ea(c, i);
    p = vec_fast_write(c, i->seg, ea, i->size);
    if (likely(p)) {
        vec_thunk_of(i)(&c->s, p);
    } else {
        mask = sign_mask(c, m);
        probe_elements(c, i, ea, mask, m.element_log2, false);
        vec_thunk_of(i)(&c->s, c->vec->bounce);
        write_elements(c, i, ea, mask, m.element_log2);
    }
    X86_NEXT(c, i);
}

/* ---- MASKMOVDQU, MASKMOVQ: bytes to seg:[rDI] ---- */

/* The manual leaves open whether bytes that are not selected fault; they do on
 * the processors at hand. */
static void store_bytes(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea,
                        const uint8_t *data, const uint8_t *mask, unsigned bytes)
{
    uint64_t selected = 0;

    for (unsigned n = 0; n < bytes; n += 8) /* alignment is checked for quadwords */
        x86_probe_write(c, i->seg, ea + n, 8);
    for (unsigned n = 0; n < bytes; n++)
        selected |= (uint64_t)(mask[n] >> 7) << n;
    memcpy(c->vec->bounce, data, bytes);
    write_elements(c, i, ea, selected, 0);
}

static enum x86_next maskmovdqu(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    store_bytes(c, i, x86_ea(c, i), c->s.x.xmm[i->r0], c->s.x.xmm[i->r1], 16);
    X86_NEXT(c, i);
}

/* The MMX registers are the x87 registers by physical number. */
static enum x86_next maskmovq(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct x86_xsave *x = &c->s.x;
    uint8_t physical[8][16];
    unsigned top;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_x87_wait(c);
    vec_x87_leave(c);
    top = x->fsw >> FSW_TOP_SHIFT & 7;
    for (unsigned n = 0; n < 8; n++)
        memcpy(physical[(top + n) & 7], x->st[n], 16);
    store_bytes(c, i, x86_ea(c, i), physical[i->r0], physical[i->r1], 8);
    x->fsw &= ~FSW_TOP; /* the transition to MMX */
    x->ftw = 0xff;
    memcpy(x->st, physical, sizeof physical);
    X86_NEXT(c, i);
}

/* ---- binding ---- */

static bool suppresses_faults(const struct x86_decode *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VDBPSADBW:
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
        return false; /* type E4NF: mask bits and memory elements do not correspond */
    default:
        break;
    }
    switch (d->z.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E2:
    case ZYDIS_EXCEPTION_CLASS_E3:
    case ZYDIS_EXCEPTION_CLASS_E4:
    case ZYDIS_EXCEPTION_CLASS_E5:
    case ZYDIS_EXCEPTION_CLASS_E6:
    case ZYDIS_EXCEPTION_CLASS_E10:
    case ZYDIS_EXCEPTION_CLASS_E11:
        return true;
    default:
        return false;
    }
}

/* Mask bits of a broadcast operand; 0: not a broadcast. */
static unsigned broadcast_lanes(ZydisBroadcastMode mode)
{
    switch (mode) {
    case ZYDIS_BROADCAST_MODE_1_TO_2:
        return 2;
    case ZYDIS_BROADCAST_MODE_1_TO_4:
    case ZYDIS_BROADCAST_MODE_2_TO_4:
        return 4;
    case ZYDIS_BROADCAST_MODE_1_TO_8:
    case ZYDIS_BROADCAST_MODE_2_TO_8:
    case ZYDIS_BROADCAST_MODE_4_TO_8:
        return 8;
    case ZYDIS_BROADCAST_MODE_1_TO_16:
    case ZYDIS_BROADCAST_MODE_2_TO_16:
    case ZYDIS_BROADCAST_MODE_4_TO_16:
    case ZYDIS_BROADCAST_MODE_8_TO_16:
        return 16;
    case ZYDIS_BROADCAST_MODE_1_TO_32:
        return 32;
    case ZYDIS_BROADCAST_MODE_1_TO_64:
        return 64;
    default:
        return 0;
    }
}

static unsigned mask_element_bytes(const struct x86_decode *d, const ZydisDecodedOperand *mem)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_VDPBF16PS: /* pairs and quadruples under one mask bit */
    case ZYDIS_MNEMONIC_VPDPBUSD:
    case ZYDIS_MNEMONIC_VPDPBUSDS:
    case ZYDIS_MNEMONIC_VPDPWSSD:
    case ZYDIS_MNEMONIC_VPDPWSSDS:
        return 4;
    default:
        return mem->element_size / 8;
    }
}

static bool bind_maskmov(struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedOperand *mem = vec_mem_operand(d);

    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        i->fn = maskmovdqu;
        break;
    case ZYDIS_MNEMONIC_MASKMOVQ:
        i->fn = maskmovq;
        break;
    default:
        return false;
    }
    i->r0 = (uint16_t)vec_reg_id(&d->op[0]);
    i->r1 = (uint16_t)vec_reg_id(&d->op[1]);
    i->base = X86_RDI; /* the hidden operand */
    i->index = X86_ZERO;
    i->scale = 0;
    i->disp = 0;
    i->addr_size = d->z.address_width / 8;
    i->ea_shift = (uint8_t)(64 - d->z.address_width);
    i->seg = (uint8_t)x86_seg_of(mem->mem.segment);
    return true;
}

static bool bind_vmaskmov(struct x86_decode *d, struct x86_insn *i)
{
    struct mask_info m = {.element_log2 = 2};

    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        m.element_log2 = 3;
        break;
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
        break;
    default:
        return false;
    }
    m.reg = (uint8_t)vec_reg_id(&d->op[1]);
    m.count = (uint8_t)(i->size >> m.element_log2);
    m.lanes = m.count;
    memcpy(&i->spare, &m, sizeof m);
    i->fn = i->aux & VF_STORE ? vmaskmov_store : vmaskmov_load;
    return true;
}

bool bind_vec_masked(struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedOperand *mem = vec_mem_operand(d);
    struct mask_info m;
    unsigned bytes, lanes;

    if (bind_maskmov(d, i) || bind_vmaskmov(d, i))
        return true;
    if (d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX ||
        d->z.avx.mask.mode <= ZYDIS_MASK_MODE_DISABLED ||
        d->z.avx.mask.reg == ZYDIS_REGISTER_K0 || d->z.avx.mask.reg == ZYDIS_REGISTER_NONE)
        return false;

    bytes = mask_element_bytes(d, mem);
    lanes = broadcast_lanes(d->z.avx.broadcast.mode);
    m.reg = (uint8_t)ZydisRegisterGetId(d->z.avx.mask.reg);
    m.element_log2 = (uint8_t)__builtin_ctz(bytes);
    m.count = (uint8_t)(i->size / bytes);
    m.lanes = (uint8_t)MAX(lanes, m.count);
    memcpy(&i->spare, &m, sizeof m);
    if (d->z.meta.category == ZYDIS_CATEGORY_EXPAND ||
        d->z.meta.category == ZYDIS_CATEGORY_COMPRESS ||
        d->z.meta.category == ZYDIS_CATEGORY_VBMI2) {
        switch (d->z.mnemonic) {
        case ZYDIS_MNEMONIC_VEXPANDPS:
        case ZYDIS_MNEMONIC_VEXPANDPD:
        case ZYDIS_MNEMONIC_VPEXPANDB:
        case ZYDIS_MNEMONIC_VPEXPANDW:
        case ZYDIS_MNEMONIC_VPEXPANDD:
        case ZYDIS_MNEMONIC_VPEXPANDQ:
            i->fn = expand;
            return true;
        case ZYDIS_MNEMONIC_VCOMPRESSPS:
        case ZYDIS_MNEMONIC_VCOMPRESSPD:
        case ZYDIS_MNEMONIC_VPCOMPRESSB:
        case ZYDIS_MNEMONIC_VPCOMPRESSW:
        case ZYDIS_MNEMONIC_VPCOMPRESSD:
        case ZYDIS_MNEMONIC_VPCOMPRESSQ:
            i->fn = compress;
            return true;
        default:
            break;
        }
    }
    if (i->aux & VF_STORE)
        i->fn = suppresses_faults(d) ? opmask_store : opmask_store_nf;
    else if (suppresses_faults(d))
        i->fn = opmask_load;
    return i->fn;
}
