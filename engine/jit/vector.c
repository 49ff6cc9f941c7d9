/*
 * Vector instructions: the guest's own, with guest registers in the host's of
 * the same numbers.
 *
 * The registers are loaded when a unit first needs them, which is the test of a
 * byte while they are (struct x86_vcpu.vec_live, cpu/x86/vec/registers.c), and
 * they stay from unit to unit. Whoever calls C that uses them gives them back;
 * so after each call of a handler the test comes again, and a handler called
 * out of line is followed by what loads them.
 *
 * Not here: gathers and scatters, and everything while MXCSR unmasks an
 * exception, since then the host would raise it: units say in their key which it
 * is.
 */
#include "engine/jit/vector.h"

#include "cpu/x86/vec/vec.h"
#include "cpu/x86/vec/vec_runtime.h"

/* Its code comes before all else in a function, and uses vector registers. */
#ifdef __SANITIZE_THREAD__
#define KEEPS_VECTORS false
#else
#define KEEPS_VECTORS true
#endif

#define LEVEL_YMM LIVE_VEC
#define LEVEL_ALL (LIVE_VEC | LIVE_VEC_ALL)

enum { CC_E = 4 };

/* ---- the state of the host ---- */

void vector_need(struct tr *t, unsigned live)
{
    struct emit *e = &t->e;
    struct jit_stub *s;

    if ((t->vectors & live) == live)
        return;
    flags_clobber(t);
    emit_rm(e, 0xf6, 0, CPU_RM(vec_live)); /* test byte [vec_live], .. */
    emit8(e, live & LIVE_VEC_ALL ? LIVE_VEC_ALL : live);
    s = new_stub(t, STUB_VECTORS, emit_jcc(e, 4));
    t->vectors |= (uint8_t)live;
    s->size = t->vectors;
    s->retry = e->at;
}

void emit_vectors_call(struct tr *t, unsigned live)
{
    unsigned lent = loop_give_back(t);

    emit_rm(&t->e, 0xff, 2, JIT_RM(call_enter_vectors));
    emit32(&t->e, live);
    if (lent)
        loop_lend(t);
}

/* ---- operands ---- */

static bool find_register(struct vector_form *f, const ZydisDecodedOperand *op)
{
    unsigned id = (unsigned)(uint8_t)ZydisRegisterGetId(op->reg.value);

    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
    case ZYDIS_REGCLASS_MASK:
        break;
    case ZYDIS_REGCLASS_MMX:
        f->is_mmx = true;
        break;
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            f->gpr_reg = op;
        else if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            f->gpr_rm = op;
        else
            f->string_compare = true;
        return true;
    case ZYDIS_REGCLASS_FLAGS:
    case ZYDIS_REGCLASS_CONTROL:
        return op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    default:
        return op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
               op->reg.value == ZYDIS_REGISTER_MXCSR;
    }
    switch (op->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        f->reg = (uint8_t)id;
        return true;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        f->rm = (uint8_t)id;
        return true;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        f->vvvv = (uint8_t)id;
        return true;
    case ZYDIS_OPERAND_ENCODING_IS4:
        f->is4 = true;
        return true;
    case ZYDIS_OPERAND_ENCODING_MASK:
    case ZYDIS_OPERAND_ENCODING_NONE: /* XMM0, implied */
        return true;
    default:
        return false;
    }
}

static bool is_string_compare(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
    case ZYDIS_MNEMONIC_VPCMPISTRI:
    case ZYDIS_MNEMONIC_VPCMPISTRM:
        return true;
    default:
        return false;
    }
}

static bool find_form(struct vector_form *f, const struct x86_decode *d)
{
    const ZydisDecodedInstruction *z = &d->z;

    *f = (struct vector_form){.reg = z->raw.modrm.reg, .rm = z->raw.modrm.rm};
    for (unsigned n = 0; n < z->operand_count; n++) {
        const ZydisDecodedOperand *op = &d->op[n];

        switch (op->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            if (!find_register(f, op))
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM ||
                op->mem.type != ZYDIS_MEMOP_TYPE_MEM || f->mem)
                return false;
            f->mem = op;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            break;
        default:
            return false;
        }
    }
    return !f->string_compare || is_string_compare(z->mnemonic);
}

/* Outside 64-bit mode W means nothing where general registers are concerned:
 * too rare to be encoded another way here. */
static bool is_odd_w(const struct x86_decode *d, const struct vector_form *f)
{
    if (d->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
        return false;
    switch (d->z.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        return d->z.raw.vex.W && (f->gpr_reg || f->gpr_rm || f->string_compare || f->mem);
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        return true;
    default:
        return false;
    }
}

static bool is_masked(const ZydisDecodedInstruction *z)
{
    return z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && z->raw.evex.aaa;
}

/* VMASKMOVPS and its like: the mask is the sign bits of a vector. */
static bool is_maskmov(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return true;
    default:
        return false;
    }
}

/* ---- emission ---- */

static unsigned guest_of(const ZydisDecodedOperand *o)
{
    return x86_reg_offset(o->reg.value) / 8;
}

static bool writes(const ZydisDecodedOperand *o)
{
    return o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

/* A misaligned operand is for the handler to complain of. A page's address is
 * a multiple of any alignment, in the host as well. */
static void check_aligned(struct tr *t, struct rm *rm, unsigned mask)
{
    struct emit *e = &t->e;

    if ((uint32_t)rm->disp & mask || rm->base == T0 || (rm->index != T0 && rm->index != H_NONE))
        mem_to_t1(t, rm);
    emit_rm(e, OP_BYTE_RM | 0xf6, 0, rm_reg(rm->base)); /* test base, mask */
    emit8(e, mask);
    slow_if(t, 5);
}

/* The host register that stands for a general register; scratch if it has none. */
static unsigned enter_gpr(struct tr *t, const ZydisDecodedOperand *o, unsigned scratch)
{
    unsigned h = host_of(t, guest_of(o));

    if (h != H_NONE)
        return h;
    if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        emit_load(&t->e, scratch, guest_rm(t, guest_of(o)));
    return scratch;
}

static void leave_gpr(struct tr *t, const ZydisDecodedOperand *o, unsigned host)
{
    if (host_of(t, guest_of(o)) == H_NONE && writes(o))
        emit_store(&t->e, guest_rm(t, guest_of(o)), host);
}

/* Does each bit of its mask stand for an element of memory, which is left alone if
 * the bit is clear? Of many others, among them all that permute, not. */
static bool is_by_element(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_VMOVDQU8:
    case ZYDIS_MNEMONIC_VMOVDQU16:
    case ZYDIS_MNEMONIC_VMOVDQU32:
    case ZYDIS_MNEMONIC_VMOVDQU64:
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VPCMPB:
    case ZYDIS_MNEMONIC_VPCMPUB:
    case ZYDIS_MNEMONIC_VPCMPW:
    case ZYDIS_MNEMONIC_VPCMPUW:
    case ZYDIS_MNEMONIC_VPCMPD:
    case ZYDIS_MNEMONIC_VPCMPUD:
    case ZYDIS_MNEMONIC_VPCMPQ:
    case ZYDIS_MNEMONIC_VPCMPUQ:
    case ZYDIS_MNEMONIC_VPCMPEQB:
    case ZYDIS_MNEMONIC_VPCMPEQW:
    case ZYDIS_MNEMONIC_VPCMPEQD:
    case ZYDIS_MNEMONIC_VPCMPEQQ:
        return true;
    default:
        return is_maskmov(m);
    }
}

/* What a broadcast fills, as far as it matters: of more, the first 16 may be asked. */
static unsigned broadcast_lanes(const struct x86_decode *d)
{
    switch (d->z.avx.broadcast.mode) {
    case ZYDIS_BROADCAST_MODE_1_TO_2:
        return 2;
    case ZYDIS_BROADCAST_MODE_1_TO_4:
    case ZYDIS_BROADCAST_MODE_2_TO_4:
        return 4;
    case ZYDIS_BROADCAST_MODE_1_TO_8:
    case ZYDIS_BROADCAST_MODE_2_TO_8:
    case ZYDIS_BROADCAST_MODE_4_TO_8:
        return 8;
    default:
        return 16;
    }
}

/*
 * Memory under a mask. The host may do it if all of the operand could be
 * accessed, except that an empty mask touches nothing, not even page tables:
 * then the operand is another one, out of line.
 */
static void check_mask(struct tr *t, const struct vector_form *f)
{
    const struct x86_decode *d = tr_decode(t);
    struct emit *e = &t->e;

    flags_clobber(t);
    if (is_maskmov(d->z.mnemonic)) { /* VMOVMSKPS eax, vvvv or VMOVMSKPD */
        bool is_wide = d->z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD ||
                       d->z.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ;
        emit8(e, 0xc4);
        emit8(e, f->vvvv < 8 ? 0xe1 : 0xc1);
        emit8(e, 0x78 | (unsigned)d->z.raw.vex.L << 2 | is_wide);
        emit8(e, 0x50);
        emit8(e, 0xc0 | (f->vvvv & 7));
        emit_rm(e, 0x85, T0, rm_reg(T0));
    } else { /* KMOVW, KMOVD or KMOVQ: the mask's own width, all elements or one */
        unsigned lanes = d->z.avx.broadcast.mode ? broadcast_lanes(d) : f->mem->element_count;
        emit8(e, 0xc4);
        emit8(e, 0xe1);
        emit8(e, lanes > 32 ? 0xfb : lanes > 16 ? 0x7b : 0x78);
        emit8(e, 0x93);
        emit8(e, 0xc0 | d->z.raw.evex.aaa);
        if (lanes > 32) {
            emit_rm(e, OP_W | 0x85, T0, rm_reg(T0));
        } else {
            emit_rm(e, 0xf7, 0, rm_reg(T0));
            emit32(e, (uint32_t)BITS(lanes - 1, 0));
        }
    }
    if (is_by_element(d->z.mnemonic))
        new_stub(t, STUB_EMPTY, emit_jcc(e, CC_E));
    else
        slow_if(t, CC_E);
}

void emit_empty_stub(struct tr *t, const struct jit_stub *s)
{
    const struct x86_decode *d = &t->t->d[s->k];
    struct vector_form f;

    find_form(&f, d);
    vector_encode(&t->e, d, &f, f.reg, JIT_RM(nothing));
    emit_patch(&t->e, emit_jmp(&t->e), t->t->after[s->k]);
}

static bool emit_form(struct tr *t, const struct vector_form *f)
{
    const struct x86_decode *d = tr_decode(t);
    const struct x86_insn *i = tr_insn(t);
    unsigned use = t->t->use[t->k], reg = f->reg;
    bool needs_flags = (use & FLAGS_READ) || ((use & FLAGS_PASS) && t->t->live[t->k + 1]);
    bool is_under_mask = f->mem && (is_masked(&d->z) || is_maskmov(d->z.mnemonic));
    struct emit *e = &t->e;
    struct rm rm = rm_reg(f->rm);

    if (f->mem) {
        if (is_under_mask)
            check_mask(t, f);
        if (i->aux2)
            flags_clobber(t);
        t->is_alone = is_under_mask;
        t->align = i->aux2;
        rm = mem_operand(t, i->size, writes(f->mem));
        t->align = 0;
        t->is_alone = false;
        if (i->aux2)
            check_aligned(t, &rm, i->aux2);
        if ((needs_flags || f->string_compare) && rm.is_mem && (rm.index != H_NONE || rm.base == T0))
            mem_to_t1(t, &rm);
    }
    if (needs_flags)
        flags_to_host(t);
    if (f->gpr_rm)
        rm = rm_reg(enter_gpr(t, f->gpr_rm, T0));
    if (f->gpr_reg)
        reg = enter_gpr(t, f->gpr_reg, f->mem ? mem_spare(t, &rm) : T0);
    if (f->string_compare)
        emit_mov(e, H_RAX, H_R14);
    vector_encode(e, d, f, reg, rm);
    if (f->gpr_rm)
        leave_gpr(t, f->gpr_rm, rm.base);
    if (f->gpr_reg)
        leave_gpr(t, f->gpr_reg, reg);
    if (use & (FLAGS_PASS | FLAGS_KILL))
        flags_written(t, (struct recipe){RECIPE_NONE, 0});
    return true;
}

/* VZEROUPPER and VZEROALL: in 64-bit mode they are of all sixteen registers. */
static bool emit_clear(struct tr *t)
{
    if (!t->is_64)
        return false;
    vector_need(t, LEVEL_YMM);
    emit8(&t->e, 0xc5);
    emit8(&t->e, 0xf8 | (unsigned)tr_decode(t)->z.raw.vex.L << 2);
    emit8(&t->e, 0x77);
    return true;
}

/* What unmasks an exception, or is not valid, is for the handler. Memory may
 * change under us: the host loads what was looked at. */
static bool emit_ldmxcsr(struct tr *t)
{
    struct emit *e = &t->e;
    struct rm rm;

    if (!mem_possible(t))
        return false;
    vector_need(t, LEVEL_YMM);
    flags_clobber(t);
    rm = mem_operand(t, 4, false);
    emit_rm(e, 0x8b, T1, rm);
    emit_store(e, JIT_RM(saved_t1), T1);
    emit_alu_imm(e, 0, 4, rm_reg(T1), (int32_t)(~t->c->model->mxcsr_mask | MXCSR_MASKS)); /* and */
    emit_alu_imm(e, 0, 7, rm_reg(T1), MXCSR_MASKS);                                       /* cmp */
    slow_if(t, 5);
    emit_rm(e, OP_0F | 0xae, 2, JIT_RM(saved_t1)); /* ldmxcsr */
    return true;
}

bool emit_vector(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const struct x86_insn *i = tr_insn(t);
    x86_binder *binder = vec_binder_for(&d->z);
    struct vector_form f;

    if (!KEEPS_VECTORS || !binder || (i->gate & (uint8_t)(t->key >> KEY_GATE_SHIFT)))
        return false;
    if (binder == bind_x87)
        return emit_x87(t);
    if (binder != bind_vector || (t->key & KEY_UNMASKED))
        return false;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || d->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL)
        return emit_clear(t);
    if (d->z.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || d->z.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR)
        return emit_ldmxcsr(t);
    if (!find_form(&f, d) || is_odd_w(d, &f))
        return false;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_EMMS)
        f.is_mmx = true;
    if (!f.is_mmx && !(i->gate & (GATE_SSE | GATE_AVX | GATE_AVX512)))
        return false;
    if (f.is_mmx && (t->key & KEY_X87_UNMASKED))
        return false;
    if (f.mem && (!mem_possible(t) || !i->size || i->size > 64 || !f.mem->element_count))
        return false;
    if (f.is_mmx)
        vector_need(t, LIVE_X87);
    /* CVTPS2PI of memory has no XMM register, but needs MXCSR. */
    if (!f.is_mmx || d->z.meta.isa_ext != ZYDIS_ISA_EXT_MMX)
        vector_need(t, i->gate & GATE_AVX512 ? LEVEL_ALL : LEVEL_YMM);
    return emit_form(t, &f);
}
