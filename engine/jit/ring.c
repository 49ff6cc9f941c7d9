/*
 * SYSCALL and SYSRET of 64-bit code (SDM Vol. 2; cpu/x86/syscall.c), to where
 * the jump cache of the other ring knows the way; else the handler.
 *
 * Usual is: EFER.SCE set, SMAP on and EFLAGS.AC clear at CPL 0, nothing to trap
 * and no interrupt to take. What x86_ring_changed would do is then to take the
 * other class's TLB.
 */
#include "engine/jit/translate.h"

enum { CC_E = 4, CC_NE = 5 };

/* Loaded into CS and SS: flat, accessed. */
enum ring_attr {
    RING_CODE = SEG_G | SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_L,
    RING_DATA = SEG_G | SEG_DB | SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED,
};

/* What SYSRET may set of RFLAGS, and what is not usual. */
#define SYSRET_FLAGS 0x3c7fd7
#define ODD_FLAGS (FLAG_TF | FLAG_AC | FLAG_VIF | FLAG_VIP)

static void test32(struct emit *e, struct rm rm, uint32_t bits)
{
    emit_rm(e, 0xf7, 0, rm);
    emit32(e, bits);
}

static void store32(struct emit *e, struct rm rm, uint32_t v)
{
    emit_rm(e, 0xc7, 0, rm);
    emit32(e, v);
}

static void store8(struct emit *e, struct rm rm, unsigned v)
{
    emit_rm(e, 0xc6, 0, rm);
    emit8(e, v);
}

static void compare8(struct emit *e, struct rm rm, unsigned v)
{
    emit_rm(e, 0x80, 7, rm);
    emit8(e, v);
}

/* The jump cache of that class is of units like this one. */
static void only_same_key(struct tr *t, unsigned class)
{
    struct emit *e = &t->e;

    emit_rm(e, 0x81, 7,
                rm_mem(H_RSP, (int32_t)(JIT_AREA + offsetof(struct jit, jumps_key) + 4 * class)));
    emit32(e, (t->key & ~(3u << KEY_CLASS_SHIFT)) | class << KEY_CLASS_SHIFT);
    slow_if(t, CC_NE);
}

static struct rm segment_rm(unsigned seg, size_t field)
{
    return rm_mem(H_RSP, (int32_t)(offsetof(struct x86_vcpu, s.seg) +
                                   seg * sizeof(struct x86_seg) + field));
}

/* Selector is in T0. */
static void load_segment(struct tr *t, unsigned seg, uint32_t attr)
{
    struct emit *e = &t->e;

    emit_rm(e, OP_66 | 0x89, T0, segment_rm(seg, offsetof(struct x86_seg, selector)));
    emit_rm(e, OP_W | 0xc7, 0, segment_rm(seg, offsetof(struct x86_seg, base)));
    emit32(e, 0);
    store32(e, segment_rm(seg, offsetof(struct x86_seg, limit)), UINT32_MAX);
    store32(e, segment_rm(seg, offsetof(struct x86_seg, attr)), attr);
}

/* RFLAGS from T0. */
static void load_flags(struct tr *t)
{
    struct emit *e = &t->e;

    emit_rm(e, 0x8b, T1, rm_reg(T0));
    emit_rm(e, 0xc1, 5, rm_reg(T0)); /* shr eax, 3: OF into AH */
    emit8(e, 3);
    emit_rm(e, 0x8a | OP_BYTE_RM | OP_BYTE_REG, T0, rm_reg(T1)); /* mov al, r15b */
    emit8(e, 0x86);                                              /* xchg al, ah */
    emit8(e, 0xc4);
    emit_alu_imm(e, 0, 4, rm_reg(T0), CC_OF | CC_CF | CC_PF | CC_AF | CC_ZF | CC_SF);
    emit_alu_imm(e, 0, 1, rm_reg(T0), CC_ONE);
    emit_rm(e, OP_66 | 0x89, T0, CPU_RM(s.cc));
    emit_alu_imm(e, 0, 4, rm_reg(T1), (int32_t)~(uint32_t)(FLAG_STATUS | FLAG_RF));
    emit_alu_imm(e, 0, 1, rm_reg(T1), FLAG_R1);
    emit_store(e, CPU_RM(s.rflags), T1);
}

_Static_assert(TLB_SUPERVISOR == TLB_USER + 1, "their TLBs are neighbours");

static void take_tlb(struct tr *t, unsigned class)
{
    int32_t by = class == TLB_USER ? -(int32_t)sizeof(struct tlb) : (int32_t)sizeof(struct tlb);
    struct emit *e = &t->e;

    emit_load(e, T0, CPU_RM(tlb));
    emit_lea(e, T0, rm_mem(T0, by));
    emit_store(e, CPU_RM(tlb), T0);
    emit_load(e, T1, rm_mem(T0, (int32_t)offsetof(struct tlb, table)));
    emit_store(e, CPU_RM(tlb_table), T1);
    emit_load(e, T1, rm_mem(T0, (int32_t)offsetof(struct tlb, index_mask)));
    emit_store(e, CPU_RM(tlb_index_mask), T1);
    store8(e, CPU_RM(tlb_class), class);
    store8(e, CPU_RM(s.cpl), class == TLB_USER ? 3 : 0);
    store8(e, CPU_RM(step_trap), 0);
}

static bool emit_syscall(struct tr *t)
{
    const struct x86_insn *i = tr_insn(t);
    struct emit *e = &t->e;

    if (t->class != TLB_USER)
        return false;
    flags_to_cc(t);
    flags_clobber(t);
    test32(e, CPU_RM(s.efer), EFER_SCE);
    slow_if(t, CC_E);
    test32(e, CPU_RM(s.cr4), CR4_SMAP);
    slow_if(t, CC_E);
    emit_load(e, T0, CPU_RM(s.fmask));
    emit_rm(e, OP_W | 0xf7, 2, rm_reg(T0)); /* not */
    emit_rm(e, OP_W | 0x23, T0, CPU_RM(s.rflags));
    test32(e, rm_reg(T0), ODD_FLAGS);
    slow_if(t, CC_NE);
    only_same_key(t, TLB_SUPERVISOR);
    t->class = TLB_SUPERVISOR;
    emit_load(e, T1, CPU_RM(s.lstar));
    emit_lookup(t);

    /* R11: as PUSHF has it, with RF. */
    emit_rm(e, OP_0F | 0xb7, T0, CPU_RM(s.cc)); /* movzx eax, [cc] */
    emit8(e, 0x86);                             /* xchg al, ah */
    emit8(e, 0xc4);
    emit8(e, 0xc0); /* shl ah, 3 */
    emit8(e, 0xe4);
    emit8(e, 3);
    emit_rm(e, OP_W | 0x0b, T0, CPU_RM(s.rflags));
    emit_mov(e, 11, T0);
    emit_load(e, T0, RM_PAGE_RIP);
    emit_lea(e, H_RCX, rm_mem(T0, i->offset + i->length));
    emit_load(e, T0, CPU_RM(s.fmask));
    emit_rm(e, OP_W | 0xf7, 2, rm_reg(T0));
    emit_rm(e, OP_W | 0x23, T0, rm_reg(11));
    load_flags(t);
    emit_rm(e, OP_0F | 0xb7, T0, rm_mem(H_RSP, (int32_t)offsetof(struct x86_vcpu, s.star) + 4));
    emit_lea(e, T1, rm_mem(T0, 8));
    emit_alu_imm(e, 0, 4, rm_reg(T0), 0xfffc);
    load_segment(t, X86_CS, RING_CODE);
    emit_mov(e, T0, T1);
    load_segment(t, X86_SS, RING_DATA);
    take_tlb(t, TLB_SUPERVISOR);
    emit_load(e, T1, CPU_RM(s.lstar));
    emit_index(t);
    emit_go(t);
    return true;
}

static bool emit_sysret(struct tr *t)
{
    struct emit *e = &t->e;

    if (t->class != TLB_SUPERVISOR || tr_insn(t)->size != 8)
        return false;
    flags_to_cc(t);
    flags_clobber(t);
    compare8(e, CPU_RM(s.cpl), 0);
    slow_if(t, CC_NE);
    compare8(e, CPU_RM(tlb_class), TLB_SUPERVISOR);
    slow_if(t, CC_NE);
    compare8(e, CPU_RM(s.nmi_pending), 0);
    slow_if(t, CC_NE);
    only_without_interrupts(t);
    test32(e, CPU_RM(s.efer), EFER_SCE);
    slow_if(t, CC_E);
    test32(e, CPU_RM(s.cr4), CR4_LA57);
    slow_if(t, CC_NE);
    test32(e, rm_reg(11), ODD_FLAGS);
    slow_if(t, CC_NE);
    emit_mov(e, T0, H_RCX); /* canonical? */
    emit_rm(e, OP_W | 0xc1, 4, rm_reg(T0));
    emit8(e, 16);
    emit_rm(e, OP_W | 0xc1, 7, rm_reg(T0));
    emit8(e, 16);
    emit_rm(e, OP_W | 0x3b, T0, rm_reg(H_RCX));
    slow_if(t, CC_NE);
    only_same_key(t, TLB_USER);
    t->class = TLB_USER;
    emit_mov(e, T1, H_RCX);
    emit_lookup(t);

    emit_rm(e, 0x8b, T0, rm_reg(11));
    emit_alu_imm(e, 0, 4, rm_reg(T0), SYSRET_FLAGS);
    load_flags(t);
    emit_rm(e, OP_0F | 0xb7, T0, rm_mem(H_RSP, (int32_t)offsetof(struct x86_vcpu, s.star) + 6));
    emit_lea(e, T1, rm_mem(T0, 8));
    emit_alu_imm(e, 0, 0, rm_reg(T0), 16);
    emit_alu_imm(e, 0, 1, rm_reg(T0), 3);
    load_segment(t, X86_CS, RING_CODE | SEG_DPL);
    emit_mov(e, T0, T1);
    emit_alu_imm(e, 0, 1, rm_reg(T0), 3);
    load_segment(t, X86_SS, RING_DATA | SEG_DPL);
    take_tlb(t, TLB_USER);
    emit_mov(e, T1, H_RCX);
    emit_index(t);
    emit_go(t);
    return true;
}

bool emit_ring(struct tr *t)
{
    if (!t->is_64)
        return false;
    switch (tr_decode(t)->z.mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
        return emit_syscall(t);
    case ZYDIS_MNEMONIC_SYSRET:
        return emit_sysret(t);
    default:
        return false;
    }
}
