/*
 * Instructions about flags beyond the six, interrupts, the time stamp, segment
 * selectors and bases: the cases that change nothing but a word of state. What
 * faults, lets a pending interrupt in or wants anything else unusual is the
 * handler's.
 */
#include "engine/jit/translate.h"

enum { CC_E = 4, CC_NE = 5, CC_S = 8 };

/* What POPF can load beside the status flags, IF among them. */
#define POPF_FLAGS                                                                                 \
    (FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID)

bool system_may_leave(const struct x86_decode *d)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_SWAPGS:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
    case ZYDIS_MNEMONIC_RDPKRU:
    case ZYDIS_MNEMONIC_MOV: /* of control registers */
        return d->z.mnemonic != ZYDIS_MNEMONIC_MOV || d->z.opcode_map == ZYDIS_OPCODE_MAP_0F;
    default:
        return false;
    }
}

static void compare8(struct emit *e, struct rm rm, unsigned v)
{
    emit_rm(e, 0x80, 7, rm);
    emit8(e, v);
}

static void test32(struct emit *e, struct rm rm, uint32_t bits)
{
    emit_rm(e, 0xf7, 0, rm);
    emit32(e, bits);
}

static void set_rflags(struct tr *t, uint32_t bits)
{
    emit_alu_imm(&t->e, 0, 1, CPU_RM(s.rflags), (int32_t)bits);
}

static void clear_rflags(struct tr *t, uint32_t bits)
{
    emit_alu_imm(&t->e, 0, 4, CPU_RM(s.rflags), (int32_t)~bits);
}

/* Elsewhere than at CPL 0: the handler. Host flags are gone. */
static bool only_cpl0(struct tr *t)
{
    if (t->class == TLB_USER || (!t->is_64 && !t->is_flat))
        return false;
    flags_clobber(t);
    compare8(&t->e, CPU_RM(s.cpl), 0);
    slow_if(t, CC_NE);
    return true;
}

/* ---- IF ---- */

_Static_assert(offsetof(struct x86_vcpu, irq_held) == offsetof(struct x86_vcpu, recheck) + 1,
               "looked at together");

void only_without_interrupts(struct tr *t)
{
    struct emit *e = &t->e;

    emit_alu_imm(e, OP_66, 7, CPU_RM(recheck), 0); /* and irq_held */
    slow_if(t, CC_NE);
    emit_alu_imm(e, 0, 7, CPU_RM(vcpu.events), 0);
    slow_if(t, CC_NE);
}

static bool emit_cli(struct tr *t)
{
    if (!only_cpl0(t))
        return false;
    clear_rflags(t, FLAG_IF);
    return true;
}

/* Where nothing waits, what STI holds back for an instruction can only come
 * with that instruction, and then it is late enough; so it has to be in this
 * unit, which is not left before it. */
static bool emit_sti(struct tr *t)
{
    if (t->k + 1u == t->end || !only_cpl0(t))
        return false;
    only_without_interrupts(t);
    set_rflags(t, FLAG_IF);
    return true;
}

static unsigned stack_size(const struct tr *t)
{
    unsigned size = t->is_64 ? 8 : 4;

    return (t->is_64 || t->is_flat) && tr_decode(t)->z.operand_width == size * 8 ? size : 0;
}

static void move_sp(struct tr *t, int32_t n)
{
    emit_rm(&t->e, (t->is_64 ? OP_W : 0) | 0x8d, H_R13, rm_mem(H_R13, n));
}

static bool emit_pushf(struct tr *t)
{
    unsigned size = stack_size(t);
    struct emit *e = &t->e;
    struct rm rm;

    if (!size)
        return false;
    flags_to_cc(t);
    flags_clobber(t);
    rm = mem_stack(t, -(int32_t)size, size, true);
    mem_to_t1(t, &rm);
    emit_rm(e, OP_0F | 0xb7, T0, CPU_RM(s.cc)); /* movzx eax, [cc] */
    emit8(e, 0x86);                             /* xchg al, ah: OF is in AH */
    emit8(e, 0xc4);
    emit8(e, 0xc0); /* shl ah, 3 */
    emit8(e, 0xe4);
    emit8(e, 3);
    emit_rm(e, 0x0b, T0, CPU_RM(s.rflags));
    emit_alu_imm(e, 0, 4, rm_reg(T0), ~(FLAG_VM | FLAG_RF));
    emit_rm(e, (size == 8 ? OP_W : 0) | 0x89, T0, rm);
    move_sp(t, -(int32_t)size);
    t->flags = FLAGS_IN_CC;
    return true;
}

static bool emit_popf(struct tr *t)
{
    bool is_user = t->class == TLB_USER;
    unsigned size = stack_size(t);
    struct emit *e = &t->e;
    uint32_t same;
    struct rm rm;

    if (!size)
        return false;
    flags_clobber(t);
    rm = mem_stack(t, 0, size, false);
    emit_rm(e, (size == 8 ? OP_W : 0) | 0x8b, T1, rm);
    emit_rm(e, 0x8b, T0, rm_reg(T1));
    emit_rm(e, 0x33, T0, CPU_RM(s.rflags)); /* what changes */
    if (is_user) {
        test32(e, rm_reg(T0), POPF_FLAGS);
        slow_if(t, CC_NE);
    } else {
        test32(e, rm_reg(T0), POPF_FLAGS & ~FLAG_IF);
        slow_if(t, CC_NE);
        compare8(e, CPU_RM(s.cpl), 0);
        slow_if(t, CC_NE);
        /* One may be waiting for IF, if that is what is set. */
        emit_alu_imm(e, 0, 4, rm_reg(T0), FLAG_IF);
        same = emit_jcc(e, CC_E);
        only_without_interrupts(t);
        emit_patch(e, same, e->at);
        emit_rm(e, 0x31, T0, CPU_RM(s.rflags)); /* xor */
    }
    emit_rm(e, 0x8b, T0, rm_reg(T1));
    emit_rm(e, 0xc1, 5, rm_reg(T0)); /* shr eax, 3: OF into AH */
    emit8(e, 3);
    emit_rm(e, 0x8a | OP_BYTE_RM | OP_BYTE_REG, T0, rm_reg(T1)); /* mov al, r15b */
    emit8(e, 0x86);                                              /* xchg al, ah */
    emit8(e, 0xc4);
    emit_alu_imm(e, 0, 4, rm_reg(T0), CC_OF | CC_CF | CC_PF | CC_AF | CC_ZF | CC_SF);
    emit_alu_imm(e, 0, 1, rm_reg(T0), CC_ONE);
    emit_rm(e, OP_66 | 0x89, T0, CPU_RM(s.cc));
    move_sp(t, (int32_t)size);
    t->flags = FLAGS_IN_CC;
    return true;
}

/* ---- DF, AC ---- */

static bool emit_direction(struct tr *t)
{
    flags_clobber(t);
    if (tr_decode(t)->z.mnemonic == ZYDIS_MNEMONIC_STD)
        set_rflags(t, FLAG_DF);
    else
        clear_rflags(t, FLAG_DF);
    return true;
}

_Static_assert(TLB_SUPERVISOR_AC == TLB_SUPERVISOR + 1, "their TLBs are neighbours");

/* The two classes of a supervisor. Where SMAP is off there is but one; code that
 * was translated before it was switched off may be of the other, which does no
 * harm: switching it on drops what was found meanwhile. */
static bool emit_ac(struct tr *t)
{
    bool set = tr_decode(t)->z.mnemonic == ZYDIS_MNEMONIC_STAC;
    unsigned to = set ? TLB_SUPERVISOR_AC : TLB_SUPERVISOR;
    struct emit *e = &t->e;

    if ((!set && !(t->c->s.cr4 & CR4_SMAP)) || !only_cpl0(t))
        return false;
    if (t->class != to) {
        compare8(e, CPU_RM(tlb_class), t->class);
        slow_if(t, CC_NE);
    }
    if (!set) {
        test32(e, CPU_RM(s.cr4), CR4_SMAP);
        slow_if(t, CC_E);
        clear_rflags(t, FLAG_AC);
    } else {
        set_rflags(t, FLAG_AC);
    }
    if (t->class == to)
        return true;
    emit_load(e, T0, CPU_RM(tlb));
    emit_lea(e, T0, rm_mem(T0, set ? (int32_t)sizeof(struct tlb) : -(int32_t)sizeof(struct tlb)));
    emit_store(e, CPU_RM(tlb), T0);
    emit_load(e, T1, rm_mem(T0, (int32_t)offsetof(struct tlb, table)));
    emit_store(e, CPU_RM(tlb_table), T1);
    emit_load(e, T1, rm_mem(T0, (int32_t)offsetof(struct tlb, index_mask)));
    emit_store(e, CPU_RM(tlb_index_mask), T1);
    emit_rm(e, 0xc6, 0, CPU_RM(tlb_class));
    emit8(e, to);
    t->class = (uint8_t)to;
    group_end_all(t);
    return true;
}

/* ---- LAHF, SAHF ---- */

static bool emit_ah_flags(struct tr *t)
{
    bool store = tr_decode(t)->z.mnemonic == ZYDIS_MNEMONIC_SAHF;
    struct emit *e = &t->e;

    flags_to_host(t); /* SAHF leaves OF alone */
    emit_mov(e, H_RAX, H_R14);
    emit8(e, store ? 0x9e : 0x9f);
    if (store)
        flags_written(t, (struct recipe){RECIPE_NONE, 0});
    else
        emit_mov(e, H_R14, H_RAX);
    return true;
}

/* ---- time ---- */

#define CLOCK_RM(field) rm_mem(T1, (int32_t)offsetof(struct vm, clock.field))

/* As x86_tsc, while the clock goes with the host's TSC. */
static bool emit_rdtsc(struct tr *t)
{
    struct emit *e = &t->e;

    if (t->is_counting || !t->c->vm->clock.uses_host_tsc)
        return false;
    flags_clobber(t);
    test32(e, CPU_RM(s.cr4), CR4_TSD);
    slow_if(t, CC_NE);
    emit_load(e, T1, CPU_RM(vm));
    emit_alu_imm(e, OP_W, 7, CLOCK_RM(paused_at), -1); /* TIME_NEVER */
    slow_if(t, CC_NE);
    emit_load(e, T0, CLOCK_RM(tsc_hz));
    emit_rm(e, OP_W | 0x3b, T0, CLOCK_RM(host_hz));
    slow_if(t, CC_NE);
    emit8(e, 0x0f); /* rdtsc */
    emit8(e, 0x31);
    emit_rm(e, OP_W | 0xc1, 4, rm_reg(H_RDX)); /* shl rdx, 32 */
    emit8(e, 32);
    emit_rm(e, OP_W | 0x0b, H_RAX, rm_reg(H_RDX));
    emit_rm(e, OP_W | 0x2b, H_RAX, CLOCK_RM(host_base));
    slow_if(t, CC_S);
    emit_rm(e, OP_W | 0x03, H_RAX, CPU_RM(s.tsc_adjust));
    emit_rm(e, 0x8b, H_R14, rm_reg(H_RAX));
    emit_mov(e, H_RDX, H_RAX);
    emit_rm(e, OP_W | 0xc1, 5, rm_reg(H_RDX));
    emit8(e, 32);
    if (tr_decode(t)->z.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
        emit_rm(e, 0x8b, H_RCX, CPU_RM(s.tsc_aux));
    return true;
}

/* ---- segments ---- */

static struct rm selector_rm(unsigned seg)
{
    return rm_mem(H_RSP, (int32_t)(offsetof(struct x86_vcpu, s.seg) +
                                   seg * sizeof(struct x86_seg) +
                                   offsetof(struct x86_seg, selector)));
}

/* MOV r, CR0..CR4 */
static bool emit_mov_from_cr(struct tr *t)
{
    static const uint16_t at[] = {
        [0] = offsetof(struct x86_vcpu, s.cr0), [2] = offsetof(struct x86_vcpu, s.cr2),
        [3] = offsetof(struct x86_vcpu, s.cr3), [4] = offsetof(struct x86_vcpu, s.cr4),
    };
    unsigned n = tr_insn(t)->aux, g = tr_insn(t)->r0 / 8;

    if (n >= ARRAY_SIZE(at) || !t->is_64 || !only_cpl0(t))
        return false;
    emit_load(&t->e, T0, rm_mem(H_RSP, at[n]));
    emit_store(&t->e, guest_rm(t, g), T0);
    return true;
}

#define SEGMENT_RM(seg, field)                                                                     \
    rm_mem(H_RSP, (int32_t)(offsetof(struct x86_vcpu, s.seg) + (seg) * sizeof(struct x86_seg) +    \
                            offsetof(struct x86_seg, field)))
#define BY_SEGMENT_RM(array, seg)                                                                  \
    rm_mem(H_RSP, (int32_t)(offsetof(struct x86_vcpu, array) + 8u * (seg)))

/* MOV to ES, DS, FS, GS in real mode: x86_load_seg_real, which keeps limits. In
 * virtual-8086 mode CPL is 3. */
static bool emit_mov_to_real(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    unsigned seg = tr_insn(t)->aux;
    struct emit *e = &t->e;
    struct rm rm;

    if (!(t->key & MODE_REAL) || seg == X86_SS || seg == X86_CS)
        return false;
    flags_clobber(t);
    if (d->op[1].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!mem_possible(t))
            return false;
        rm = mem_operand(t, 2, false);
    } else {
        rm = guest_rm(t, x86_reg_offset(d->op[1].reg.value) / 8);
    }
    emit_rm(e, OP_0F | 0xb7, T1, rm); /* movzx */
    compare8(e, CPU_RM(s.cpl), 0);
    slow_if(t, CC_NE);
    test32(e, SEGMENT_RM(seg, attr), SEG_UNUSABLE);
    slow_if(t, CC_NE);
    emit_rm(e, OP_66 | 0x89, T1, SEGMENT_RM(seg, selector));
    emit_rm(e, 0xc1, 4, rm_reg(T1)); /* shl r15d, 4 */
    emit8(e, 4);
    emit_rm(e, 0x8b, T0, rm_reg(T1));
    emit_rm(e, 0xf7, 2, rm_reg(T0)); /* not eax: to where addresses wrap */
    emit_rm(e, 0x3b, T0, SEGMENT_RM(seg, limit));
    emit_rm(e, OP_0F | 0x47, T0, SEGMENT_RM(seg, limit)); /* cmova */
    emit_store(e, BY_SEGMENT_RM(seg_read_last, seg), T0);
    emit_store(e, BY_SEGMENT_RM(seg_write_last, seg), T0);
    emit_store(e, SEGMENT_RM(seg, base), T1);
    emit_store(e, BY_SEGMENT_RM(seg_base, seg), T1);
    return true;
}

/* MOV r/m, Sreg */
static bool emit_mov_from(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const ZydisDecodedOperand *o = &d->op[0];
    unsigned seg = tr_insn(t)->aux, g, h;
    struct emit *e = &t->e;

    if (d->z.opcode_map == ZYDIS_OPCODE_MAP_0F && d->z.opcode == 0x20)
        return emit_mov_from_cr(t);
    if (d->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && d->z.opcode == 0x8e)
        return emit_mov_to_real(t);
    if (d->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || d->z.opcode != 0x8c)
        return false;
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct rm rm;
        if (!mem_possible(t))
            return false;
        rm = mem_operand(t, 2, true);
        mem_to_t1(t, &rm);
        emit_rm(e, OP_0F | 0xb7, T0, selector_rm(seg));
        emit_rm(e, OP_66 | 0x89, T0, rm);
        return true;
    }
    g = x86_reg_offset(o->reg.value) / 8;
    h = host_of(t, g);
    if (h != H_NONE && d->z.operand_width != 16) {
        emit_rm(e, OP_0F | 0xb7, h, selector_rm(seg));
        return true;
    }
    emit_rm(e, OP_0F | 0xb7, T0, selector_rm(seg));
    emit_rm(e, (d->z.operand_width == 16 ? OP_66 : OP_W) | 0x89, T0, guest_rm(t, g));
    return true;
}

static bool emit_swapgs(struct tr *t)
{
    struct emit *e = &t->e;

    if (!only_cpl0(t))
        return false;
    emit_load(e, T0, CPU_RM(s.seg[X86_GS].base));
    emit_load(e, T1, CPU_RM(s.kernel_gs_base));
    emit_store(e, CPU_RM(s.kernel_gs_base), T0);
    emit_store(e, CPU_RM(s.seg[X86_GS].base), T1);
    emit_store(e, CPU_RM(seg_base[X86_GS]), T1);
    return true;
}

/* RDFSBASE RDGSBASE WRFSBASE WRGSBASE */
static bool emit_segment_base(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    ZydisMnemonic m = d->z.mnemonic;
    bool is_fs = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_WRFSBASE;
    bool is_write = m == ZYDIS_MNEMONIC_WRFSBASE || m == ZYDIS_MNEMONIC_WRGSBASE;
    struct rm base = is_fs ? CPU_RM(s.seg[X86_FS].base) : CPU_RM(s.seg[X86_GS].base);
    struct rm r = guest_rm(t, x86_reg_offset(d->op[0].reg.value) / 8);
    unsigned word = d->z.operand_width == 64 ? OP_W : 0;
    struct emit *e = &t->e;

    flags_clobber(t);
    emit_rm(e, 0x8b, T0, CPU_RM(s.cr4));
    emit_alu_imm(e, 0, 4, rm_reg(T0), CR4_FSGSBASE | CR4_LA57);
    emit_alu_imm(e, 0, 7, rm_reg(T0), CR4_FSGSBASE);
    slow_if(t, CC_NE);
    if (!is_write) {
        emit_rm(e, word | 0x8b, T0, base);
        emit_store(e, r, T0);
        return true;
    }
    emit_rm(e, word | 0x8b, T1, r);
    if (word) { /* canonical */
        emit_mov(e, T0, T1);
        emit_rm(e, OP_W | 0xc1, 4, rm_reg(T0));
        emit8(e, 16);
        emit_rm(e, OP_W | 0xc1, 7, rm_reg(T0));
        emit8(e, 16);
        emit_rm(e, OP_W | 0x3b, T0, rm_reg(T1));
        slow_if(t, CC_NE);
    }
    emit_store(e, base, T1);
    emit_store(e, is_fs ? CPU_RM(seg_base[X86_FS]) : CPU_RM(seg_base[X86_GS]), T1);
    return true;
}

static bool emit_rdpkru(struct tr *t)
{
    struct emit *e = &t->e;

    flags_clobber(t);
    test32(e, CPU_RM(s.cr4), CR4_PKE);
    slow_if(t, CC_E);
    emit_alu_imm(e, 0, 7, rm_reg(H_RCX), 0);
    slow_if(t, CC_NE);
    emit_rm(e, 0x8b, H_R14, CPU_RM(s.x.pkru));
    emit_rm(e, 0x33, H_RDX, rm_reg(H_RDX)); /* xor edx, edx */
    return true;
}

/* ---- PAUSE, fences: the host's own ---- */

static bool emit_itself(struct tr *t, unsigned a, unsigned b, unsigned c)
{
    emit8(&t->e, a);
    emit8(&t->e, b);
    if (c)
        emit8(&t->e, c);
    return true;
}

bool emit_system(struct tr *t)
{
    switch (tr_decode(t)->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        return emit_cli(t);
    case ZYDIS_MNEMONIC_STI:
        return emit_sti(t);
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
        return emit_pushf(t);
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        return emit_popf(t);
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        return emit_direction(t);
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        return emit_ac(t);
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
        return emit_ah_flags(t);
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        return emit_rdtsc(t);
    case ZYDIS_MNEMONIC_MOV:
        return emit_mov_from(t);
    case ZYDIS_MNEMONIC_RDPKRU:
        return emit_rdpkru(t);
    case ZYDIS_MNEMONIC_SWAPGS:
        return emit_swapgs(t);
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        return emit_segment_base(t);
    case ZYDIS_MNEMONIC_PAUSE:
        return emit_itself(t, 0xf3, 0x90, 0);
    case ZYDIS_MNEMONIC_LFENCE:
        return emit_itself(t, 0x0f, 0xae, 0xe8);
    case ZYDIS_MNEMONIC_MFENCE:
        return emit_itself(t, 0x0f, 0xae, 0xf0);
    case ZYDIS_MNEMONIC_SFENCE:
        return emit_itself(t, 0x0f, 0xae, 0xf8);
    default:
        return emit_string(t);
    }
}
