/*
 * Jumps, calls, returns: links between units, and the jump cache.
 *
 * A direct jump is a link: to a stub that asks for its target at first, then
 * to the target's unit. Within a page a link always holds, because a page of
 * code is one page wherever it is mapped. Across pages it is guarded by a
 * generation, which changes with the fetch translations (units.c). An indirect
 * jump looks into a table by RIP; where that fails, the instruction's handler
 * runs, so nothing may be committed before.
 *
 * Interrupts and other events are noticed on backward jumps and on indirect
 * ones: there is no loop without either.
 */
#include "engine/jit/translate.h"

#define RET_NEAR 0xc3

static struct jit_link *new_link(struct tr *t, int32_t target, unsigned retired, unsigned kind)
{
    struct jit_link *l = &t->u->links[t->links++];

    *l = (struct jit_link){.from = t->u, .target = target, .retired = (uint16_t)retired,
                           .kind = (uint8_t)kind, .class = t->class,
                           .is_call = tr_decode(t)->z.mnemonic == ZYDIS_MNEMONIC_CALL};
    return l;
}

void emit_retired(struct tr *t, unsigned n)
{
    struct emit *e = &t->e;

    if (!t->is_counting)
        return;
    emit_load(e, T0, CPU_RM(s.icount));
    emit_lea(e, T0, rm_mem(T0, (int32_t)n));
    emit_store(e, CPU_RM(s.icount), T0);
}

static bool crosses(int32_t target)
{
    return target < 0 || target >= (int32_t)PAGE_SIZE;
}

uint32_t emit_poll(struct tr *t)
{
    struct emit *e = &t->e;

    emit_rm(e, 0x83, 7, CPU_RM(vcpu.events)); /* cmp dword [events], 0 */
    emit8(e, 0);
    return emit_jcc(e, 5);
}

/* The flags' way over a link, as they are now. */
static unsigned link_flags(const struct tr *t)
{
    if (!t->flags || (t->flags & FLAGS_IN_CC))
        return 0;
    return t->flags & FLAGS_IN_HOST ? LINK_FLAGS_HOST : LINK_FLAGS_LAZY;
}

static void link_stubs(struct tr *t, struct jit_link *l)
{
    new_stub(t, STUB_LINK, l->jump)->link = l;
    if (l->kind & LINK_FLAGS_LAZY)
        new_stub(t, STUB_FIX, 0)->link = l;
}

/* Fetches may have changed, or the page is elsewhere now, where another follows. */
void emit_guard(struct tr *t, struct jit_link *l)
{
    struct emit *e = &t->e;

    emit_rm(e, 0x81, 7, JIT_RM(generation)); /* cmp dword, never equal to 0 */
    l->guard_disp = e->at - 4;
    l->guard = e->at;
    emit32(e, 0);
    new_stub(t, STUB_LINK, emit_jcc(e, 5))->link = l;
    if (t->is_64) {
        emit8(e, 0x48); /* mov rax, imm64 */
        emit8(e, 0xb8);
        l->guard_rip = e->at;
        emit64(e, 0);
        emit_rm(e, OP_W | 0x3b, T0, RM_PAGE_RIP);
    } else {
        emit_rm(e, 0x81, 7, RM_PAGE_RIP);
        l->guard_rip = e->at;
        emit32(e, 0);
    }
    new_stub(t, STUB_LINK, emit_jcc(e, 5))->link = l;
}

/* How long the unit's loop is: site.c. */
static void count_turn(struct tr *t)
{
    emit_alu_imm(&t->e, 0, 0,
                 rm_mem(H_RSP, (int32_t)(JIT_AREA + offsetof(struct jit, site) +
                                         jit_site_hash(t->u->host) * sizeof(struct jit_site) +
                                         offsetof(struct jit_site, turns))), 1);
}

void emit_edge(struct tr *t, int32_t target, unsigned retired, bool is_backward)
{
    struct emit *e = &t->e;
    struct jit_link *l;
    unsigned lent = loop_give_back(t);

    emit_retired(t, retired);
    if (is_backward || crosses(target))
        flags_leave_host(t); /* what waits may be an interrupt, which shows them */
    if (t->is_trial && target == t->u->insn[0].offset)
        count_turn(t);
    l = new_link(t, target, retired, link_flags(t) | (crosses(target) ? LINK_CROSS : 0));
    if (is_backward)
        new_stub(t, STUB_LINK, emit_poll(t))->link = l;
    if (crosses(target)) {
        emit_guard(t, l);
        emit_alu_imm(e, t->is_64 ? OP_W : 0, 0, RM_PAGE_RIP, target & (int32_t)PAGE_MASK);
        l->jump = emit_jmp(e);
        if (l->kind & LINK_FLAGS_LAZY)
            new_stub(t, STUB_FIX, 0)->link = l;
        t->lent = (uint8_t)lent; /* what is emitted next comes from elsewhere */
        return;
    }
    l->jump = emit_jmp(e);
    link_stubs(t, l);
    t->lent = (uint8_t)lent;
}

void emit_fallthrough(struct tr *t)
{
    const struct x86_insn *last = &t->u->insn[t->u->count - 1];

    t->k = t->u->count - 1u;
    emit_edge(t, (int32_t)last->offset + last->length, t->u->count, false);
}

/* Offset from the page that a relative branch goes to. */
static bool target_of(const struct tr *t, int32_t *target)
{
    const struct x86_insn *i = tr_insn(t);
    int64_t to = i->target;

    /* 16 and 32-bit RIPs wrap; where the page is not known, only what stays in
     * it is certain not to: all of a page is within CS. */
    if (!t->is_64 && !t->is_flat && (to < 0 || to >= (int64_t)PAGE_SIZE))
        return false;
    if (i->size == 2 && (t->key & MODE_SIZE) != MODE_16)
        return false;
    if (to != (int32_t)to)
        return false;
    *target = (int32_t)to;
    return true;
}

static bool emit_jcc_insn(struct tr *t)
{
    const struct x86_insn *i = tr_insn(t);
    unsigned condition = tr_decode(t)->z.opcode & 15;
    struct emit *e = &t->e;
    int32_t target;
    uint8_t flags;

    if (!target_of(t, &target))
        return false;
    flags_to_host(t);
    if (loop_edge(t, target, condition))
        return true;
    if (!crosses(target) && target > i->offset && !t->is_counting && !t->lent) {
        struct jit_link *l = new_link(t, target, tr_retired(t), link_flags(t));
        l->jump = emit_jcc(e, condition);
        link_stubs(t, l);
        if (t->cache_k == t->k)
            t1_keep(t, t->cache);
        return true;
    }
    {
        uint32_t over = emit_jcc(e, condition ^ 1);
        flags = t->flags;
        emit_edge(t, target, tr_retired(t), target <= (int32_t)i->offset);
        t->flags = flags;
        emit_patch(e, over, e->at);
    }
    return true;
}

static void emit_xchg_count(struct emit *e) /* rcx, rax */
{
    emit8(e, 0x48);
    emit8(e, 0x91);
}

/* The host's own JRCXZ or JECXZ over `bytes`: no flags are touched. */
static void emit_jump_if_none(struct emit *e, unsigned size, unsigned bytes)
{
    if (size == 4)
        emit8(e, 0x67);
    emit8(e, 0xe3);
    emit8(e, bytes);
}

/* Over it: the rel32, unless the count is zero. */
static uint32_t jump_unless_none(struct tr *t, unsigned size)
{
    struct emit *e = &t->e;
    uint32_t over;

    if (size != 2) {
        emit_jump_if_none(e, size, 5);
        return emit_jmp(e);
    }
    emit_rm(e, OP_0F | 0xb7, T0, rm_reg(H_RCX)); /* in RCX's place meanwhile */
    emit_xchg_count(e);
    emit_jump_if_none(e, 8, 2 + 5);
    emit_xchg_count(e);
    over = emit_jmp(e);
    emit_xchg_count(e);
    return over;
}

/* Over it, if the count is zero. */
static uint32_t jump_if_none(struct tr *t, unsigned size)
{
    struct emit *e = &t->e;

    if (size == 2) {
        emit_rm(e, OP_0F | 0xb7, T0, rm_reg(H_RCX));
        emit_xchg_count(e);
        emit_jump_if_none(e, 8, 4);
        emit_xchg_count(e);
        emit8(e, 0xeb);
        emit8(e, 2 + 5);
        emit_xchg_count(e);
    } else {
        emit_jump_if_none(e, size, 2);
        emit8(e, 0xeb);
        emit8(e, 5);
    }
    return emit_jmp(e);
}

/* LOOP, LOOPE, LOOPNE, JCXZ and its like: by the host's JRCXZ, which is the only
 * jump that asks a register and leaves flags alone. */
static bool emit_loop(struct tr *t)
{
    const struct x86_insn *i = tr_insn(t);
    ZydisMnemonic m = tr_decode(t)->z.mnemonic;
    bool counts = m == ZYDIS_MNEMONIC_LOOP || m == ZYDIS_MNEMONIC_LOOPE ||
                  m == ZYDIS_MNEMONIC_LOOPNE;
    uint32_t over, also = 0;
    struct emit *e = &t->e;
    int32_t target;
    uint8_t flags;

    /* A target that is no place to go to sends the branch to its handler, which
     * would count once more: pages are whole. */
    if (!target_of(t, &target) || (counts && crosses(target)))
        return false;
    if (counts && m != ZYDIS_MNEMONIC_LOOP)
        flags_to_host(t);
    if (counts && i->addr_size == 2) {
        emit_lea(e, T0, rm_mem(H_RCX, -1));
        emit_rm(e, OP_66 | 0x89, T0, rm_reg(H_RCX));
    } else if (counts) {
        emit_rm(e, (i->addr_size == 8 ? OP_W : 0) | 0x8d, H_RCX, rm_mem(H_RCX, -1));
    }
    if (counts && m != ZYDIS_MNEMONIC_LOOP)
        also = emit_jcc(e, m == ZYDIS_MNEMONIC_LOOPE ? 5 : 4);
    over = counts ? jump_if_none(t, i->addr_size) : jump_unless_none(t, i->addr_size);
    flags = t->flags;
    emit_edge(t, target, tr_retired(t), target <= (int32_t)i->offset);
    t->flags = flags;
    emit_patch(e, over, e->at);
    if (also)
        emit_patch(e, also, e->at);
    return true;
}

/* T0 = index into the jump cache for the RIP in T1, times two. */
void emit_index(struct tr *t)
{
    unsigned class = t->class;
    struct emit *e = &t->e;

    emit_rm(e, 0x8b, T0, rm_reg(T1)); /* mov eax, r15d */
    emit_rm(e, 0x33, T0,
            rm_mem(H_RSP, (int32_t)(JIT_AREA + offsetof(struct jit, jump_salt) + 4 * class)));
    emit_alu_imm(e, 0, 4, rm_reg(T0), (JIT_JUMPS - 1) << 1);
}

/* To the RIP in T1, if the jump cache knows it; else the handler. T0 holds
 * the index afterwards. */
void emit_lookup(struct tr *t)
{
    unsigned class = t->class;
    int32_t table = (int32_t)(JIT_AREA + offsetof(struct jit, jumps) +
                              class * sizeof(struct jit_jump[JIT_JUMPS]));
    struct emit *e = &t->e;

    emit_index(t);
    emit_rm(e, OP_W | 0x3b, T1, rm_mem_index(H_RSP, T0, 3, table));
    slow_if(t, 5);
    emit_rm(e, 0x83, 7, CPU_RM(vcpu.events));
    emit8(e, 0);
    slow_if(t, 5);
}

void emit_go(struct tr *t)
{
    unsigned class = t->class;
    int32_t table = (int32_t)(JIT_AREA + offsetof(struct jit, jumps) +
                              class * sizeof(struct jit_jump[JIT_JUMPS]) + 8);
    struct emit *e = &t->e;

    emit_alu_imm(e, OP_W, 4, rm_reg(T1), -4096);
    emit_store(e, RM_PAGE_RIP, T1);
    if (t->is_counting)
        emit_alu_imm(e, OP_W, 0, CPU_RM(s.icount), (int32_t)t->k + 1);
    if (t->j->forms)
        emit_alu_imm(e, OP_W, 0, JIT_RM(stats.indirect_hits), 1);
    emit_rm(e, 0xff, 4, rm_mem_index(H_RSP, T0, 3, table)); /* jmp [..] */
}

static bool emit_ret(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    unsigned size = t->is_64 ? 8 : 4;
    struct emit *e = &t->e;
    struct rm rm;

    if (d->z.operand_width / 8 != size || d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return false;
    flags_to_cc(t); /* for whoever is there */
    rm = mem_stack(t, 0, size, false);
    emit_rm(e, (t->is_64 ? OP_W : 0) | 0x8b, T1, rm);
    emit_lookup(t);
    emit_rm(e, (t->is_64 ? OP_W : 0) | 0x8d, H_R13,
            rm_mem(H_R13, (int32_t)size + (d->z.opcode == RET_NEAR
                                               ? 0
                                               : (int32_t)(uint16_t)d->z.raw.imm[0].value.u)));
    emit_go(t);
    return true;
}

/* Stores the address of the next instruction on the stack; T1 is used. */
static void push_return(struct tr *t)
{
    const struct x86_insn *i = tr_insn(t);
    unsigned size = t->is_64 ? 8 : 4;
    struct emit *e = &t->e;
    struct rm rm = mem_stack(t, -(int32_t)size, size, true);

    if (rm.base == T1) {
        emit_lea(e, T0, rm);
        rm = rm_mem(T0, 0);
    }
    emit_load(e, T1, RM_PAGE_RIP);
    emit_lea(e, T1, rm_mem(T1, i->offset + i->length));
    emit_rm(e, (t->is_64 ? OP_W : 0) | 0x89, T1, rm);
    emit_rm(e, (t->is_64 ? OP_W : 0) | 0x8d, H_R13, rm_mem(H_R13, -(int32_t)size));
}

/* Where nothing is flat this much can be done: target_of looks at the page. */
static bool is_jump_in_page(const struct x86_decode *d)
{
    return d->z.mnemonic == ZYDIS_MNEMONIC_JMP && d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

static bool emit_jmp_call(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);
    const struct x86_insn *i = tr_insn(t);
    bool is_call = d->z.mnemonic == ZYDIS_MNEMONIC_CALL;
    struct emit *e = &t->e;
    int32_t target;

    if (d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ||
        (d->z.operand_width != (t->is_64 ? 64 : 32) && !is_jump_in_page(d)))
        return false;
    if (d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        if (!target_of(t, &target))
            return false;
        if (is_call)
            push_return(t);
        else if (loop_edge(t, target, 16))
            return true;
        emit_edge(t, target, tr_retired(t), target <= (int32_t)i->offset);
        return true;
    }
    flags_to_cc(t);
    flags_clobber(t);
    if (d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct rm rm;
        if (!mem_possible(t))
            return false;
        rm = mem_operand(t, t->is_64 ? 8 : 4, false);
        emit_rm(e, (t->is_64 ? OP_W : 0) | 0x8b, T1, rm);
    } else {
        emit_rm(e, (t->is_64 ? OP_W : 0) | 0x8b, T1,
                guest_rm(t, x86_reg_offset(d->op[0].reg.value) / 8));
    }
    emit_lookup(t);
    if (is_call) {
        emit_store(e, JIT_RM(saved_t1), T1);
        push_return(t);
        emit_load(e, T1, JIT_RM(saved_t1));
        emit_index(t);
    }
    emit_go(t);
    return true;
}

bool emit_branch(struct tr *t)
{
    const struct x86_decode *d = tr_decode(t);

    if (d->z.meta.category == ZYDIS_CATEGORY_COND_BR) {
        bool near = (d->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && d->z.opcode >= 0x70 &&
                     d->z.opcode <= 0x7f) ||
                    (d->z.opcode_map == ZYDIS_OPCODE_MAP_0F && d->z.opcode >= 0x80 &&
                     d->z.opcode <= 0x8f);
        return near ? emit_jcc_insn(t) : emit_loop(t);
    }
    if (!t->is_64 && !t->is_flat && !is_jump_in_page(d))
        return false;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_RET:
        return emit_ret(t);
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        return emit_jmp_call(t);
    default:
        return emit_ring(t);
    }
}
