/*
 * Guest memory in translated code: the one seam.
 *
 * An access that stays in a page for long (site.c) takes the page of an L0 entry
 * that belongs to its base register and place from its address: that costs no
 * index and puts nothing on the way of the address; the entry's addend makes the
 * linear address the host's. If the difference leaves no room for the access in
 * the page, it goes to jit_miss (entry.c), which looks into the TLB, and from
 * there to the instruction's handler. Other accesses look into the TLB at once.
 */
#include "engine/jit/translate.h"

#define L0_RM(class, slot, field)                                                                  \
    rm_mem(H_RSP, (int32_t)(JIT_AREA + offsetof(struct jit, l0) +                                  \
                            ((class) * JIT_L0_SLOTS + (slot)) * sizeof(struct jit_l0) +            \
                            offsetof(struct jit_l0, field)))

struct jit_stub *new_stub(struct tr *t, unsigned kind, uint32_t jump)
{
    struct jit_stub *s;

    if (t->stubs == UNIT_MAX_STUBS) {
        t->failed = true;
        t->stubs--;
    }
    s = &t->t->stub[t->stubs++];
    *s = (struct jit_stub){.kind = kind, .jump = jump, .k = (uint8_t)t->k, .flags = t->flags,
                           .recipe = t->recipe, .class = t->class, .lent = t->lent};
    return s;
}

void slow_if(struct tr *t, unsigned condition)
{
    new_stub(t, STUB_SLOW, emit_jcc(&t->e, condition));
}

/* Slots go by base register and place in the code; within a unit different
 * bases have different ones, as long as there are any. Slot 0 is the stack's. A unit
 * that others took its entries from has other slots than before: site.c. */
static unsigned slot_for(struct tr *t, unsigned id)
{
    uint64_t h = ((uint64_t)t->u->host >> 8) * 0x9e3779b97f4a7c15ull + id * 0x85ebca6bull +
                 t->j->slot_moves[jit_site_hash(t->u->host)] * 0xc2b2ae3d27d4eb4full;
    unsigned slot, first;

    if (id == X86_RSP + 1)
        return 0;
    first = slot = 1 + (unsigned)(h >> 40) % (JIT_L0_SLOTS - 1);
    while (t->t->slot_key[slot] && t->t->slot_key[slot] != id) {
        slot = slot % (JIT_L0_SLOTS - 1) + 1;
        if (slot == first)
            break;
    }
    t->t->slot_key[slot] = (uint16_t)id;
    return slot;
}

/* T0 = the way from the page of an L0 entry to [base + disp]; carry on if there
 * is room for size bytes, else (the returned rel32) not. */
static uint32_t emit_check(struct tr *t, unsigned base, int32_t disp, unsigned size,
                           bool is_write, unsigned slot)
{
    unsigned class = t->class;
    struct emit *e = &t->e;

    emit_lea(e, T0, rm_mem(base, disp));
    emit_rm(e, OP_W | 0x2b, T0, /* sub */
            is_write ? L0_RM(class, slot, write) : L0_RM(class, slot, read));
    emit8(e, 0x48); /* cmp rax, 4096 - size */
    emit8(e, 0x3d);
    emit32(e, (uint32_t)PAGE_SIZE - size);
    return emit_jcc(e, 7); /* ja */
}

/* Counts in trials: T1 = the page. */
static void emit_measure(struct tr *t)
{
    unsigned n = jit_site_hash(jit_guest_code(t->u, tr_insn(t)));
    struct emit *e = &t->e;
    uint32_t same;

#define SITE_RM(field)                                                                             \
    rm_mem(H_RSP, (int32_t)(JIT_AREA + offsetof(struct jit, site) + n * sizeof(struct jit_site) +  \
                            offsetof(struct jit_site, field)))
    emit_rm(e, 0x3b, T1, SITE_RM(page)); /* cmp */
    same = emit_jcc(e, 4);
    emit_rm(e, 0x89, T1, SITE_RM(page));
    emit_alu_imm(e, 0, 0, SITE_RM(changes), 1);
    emit_patch(e, same, e->at);
    emit_rm(e, 0x81, 0, SITE_RM(uses)); /* add */
    emit32(e, JIT_TRIAL_STEP);
#undef SITE_RM
    new_stub(t, STUB_TRIAL, emit_jcc(e, 2)); /* jc */
}

/* T0 = the TLB's entry for [base + disp], size bytes. Destroys T1, and keeps it
 * in saved_t1 if it is the base. The returned rel32: not there. */
static uint32_t emit_tlb_check(struct tr *t, unsigned base, int32_t disp, unsigned size,
                               bool is_write)
{
    struct emit *e = &t->e;

    if (t->ea_again)
        emit_ea(t, T0);
    else
        emit_lea(e, T0, rm_mem(base, disp));
    if (base == T1 && !t->ea_again)
        emit_store(e, JIT_RM(saved_t1), T1);
    emit_lea(e, T1, rm_mem(T0, (int32_t)size - 1));
    emit_rm(e, OP_W | 0xc1, 5, rm_reg(T0)); /* shr T0, 12 - 5 */
    emit8(e, 12 - TLB_ENTRY_SHIFT);
    emit_rm(e, OP_W | 0x23, T0, CPU_RM(tlb_index_mask));
    emit_alu_imm(e, OP_W, 4, rm_reg(T1), -4096);
    emit_rm(e, OP_W | 0x03, T0, CPU_RM(tlb_table));
    emit_rm(e, OP_W | 0x3b, T1,
            rm_mem(T0, is_write ? (int32_t)offsetof(struct tlb_entry, write)
                                : (int32_t)offsetof(struct tlb_entry, read)));
    return emit_jcc(e, 5);
}

/* What runs, for --stats. */
static void count_lookup(struct tr *t, enum way way)
{
    if (t->j->forms)
        emit_count(t, way == WAY_L0 ? JIT_RM(stats.l0_lookups) : JIT_RM(stats.tlb_lookups));
}

uint32_t mem_look_up(struct tr *t, unsigned size, bool is_write)
{
    count_lookup(t, WAY_TLB);
    return emit_tlb_check(t, T1, 0, size, is_write);
}

/* Behind emit_tlb_check: T0 = the addend, T1 what it was if it is the base. */
static void emit_tlb_addend(struct tr *t, unsigned base, enum way way)
{
    struct emit *e = &t->e;

    if (way == WAY_TRIAL) {
        t->is_measured = true;
        emit_measure(t);
    }
    if (t->ea_again)
        emit_ea(t, T1);
    else if (base == T1)
        emit_load(e, T1, JIT_RM(saved_t1));
    emit_load(e, T0, rm_mem(T0, (int32_t)offsetof(struct tlb_entry, addend)));
}

static struct jit_stub *miss_stub(struct tr *t, unsigned kind, uint32_t jump, unsigned base,
                                  int32_t disp, unsigned size, bool is_write, unsigned slot)
{
    struct jit_stub *s = new_stub(t, kind, jump);

    s->base = (uint8_t)base;
    s->disp = disp;
    s->size = (uint8_t)size;
    s->is_write = is_write;
    s->slot = (uint8_t)slot;
    s->align = t->align;
    t->j->stats.lookups++;
    return s;
}

/* [base + disp], base a host register: linear. */
static struct rm check(struct tr *t, unsigned base, int32_t disp, unsigned size, bool is_write,
                       unsigned slot, enum way way)
{
    struct emit *e = &t->e;
    struct jit_stub *s;
    uint32_t retry, jump;

    count_lookup(t, way);
    retry = e->at;
    jump = way == WAY_L0 ? emit_check(t, base, disp, size, is_write, slot)
                         : emit_tlb_check(t, base, disp, size, is_write);
    s = miss_stub(t, STUB_MISS, jump, base, disp, size, is_write, slot);
    s->retry = retry;
    s->way = way;
    s->spilled = way != WAY_L0 && base == T1;
    s->ea_again = t->ea_again;
    if (way == WAY_L0)
        emit_load(e, T0, L0_RM(t->class, slot, addend));
    else
        emit_tlb_addend(t, base, way);
    s->done = t->is_run ? 0 : e->at;
    return rm_mem_index(base, T0, 0, disp);
}

/* What fails a group's guard: a miss of the first access, or the range. */
void emit_group_stub(struct tr *t, const struct jit_stub *s)
{
    struct emit *e = &t->e;
    uint32_t over, back, fails, again, misaligned;

    if (s->spilled)
        emit_load(e, T1, JIT_RM(saved_t1));
    emit_lea(e, T0, rm_mem(s->base, s->disp));
    misaligned = emit_misaligned(t, s);
    emit_miss_call(t, s);
    over = emit_jmp(e);
    fails = e->at; /* 13 bytes behind the call */
    if (misaligned)
        emit_patch(e, misaligned, fails);
    emit_flags_to_cc(t, s->flags, s->recipe);
    emit_slow_call(t, s->k, SLOW_GROUP);
    emit_patch(e, over, e->at);
    again = s->way == WAY_L0 ? emit_check(t, s->base, s->lo, s->range, s->is_group_write, s->slot)
                             : emit_tlb_check(t, s->base, s->lo, s->range, s->is_group_write);
    emit_patch(e, again, fails);
    back = emit_jmp(e);
    emit_patch(e, back, s->retry);
}

/* [guest + disp] where guest is in host register `base`; shares its lookup with
 * what comes. */
static struct rm check_shared(struct tr *t, unsigned guest, unsigned base, int32_t disp,
                              unsigned size, bool is_write, bool is_implicit, unsigned slot,
                              enum way way)
{
    struct emit *e = &t->e;
    struct jit_stub *s;
    struct group g;
    unsigned range;
    uint32_t jump;

    t->j->stats.accesses++;
    if (group_covers(t, guest, disp, size, is_write)) {
        emit_load(e, T0, t->group[guest].is_kept ? L0_RM(t->class, slot, kept)
                                                 : L0_RM(t->class, slot, addend));
        return rm_mem_index(base, T0, 0, disp);
    }
    flags_clobber(t);
    t->group[guest].active = false; /* its entry may become another page's */
    if (!group_begin(t, guest, disp, size, is_write, is_implicit, &g))
        return check(t, base, disp, size, is_write, slot, way);
    range = (unsigned)(g.hi - g.lo);
    count_lookup(t, way);
    jump = way == WAY_L0 ? emit_check(t, base, g.lo, range, g.is_write, slot)
                         : emit_tlb_check(t, base, g.lo, range, g.is_write);
    s = miss_stub(t, STUB_GROUP, jump, base, disp, size, is_write, slot);
    s->lo = g.lo;
    s->range = (uint16_t)range;
    s->is_group_write = g.is_write;
    s->way = way;
    s->spilled = way != WAY_L0 && base == T1;
    s->retry = e->at;
    if (way == WAY_L0) {
        emit_load(e, T0, L0_RM(t->class, slot, addend));
    } else {
        emit_tlb_addend(t, base, way);
        emit_store(e, L0_RM(t->class, slot, kept), T0);
    }
    g.active = true;
    g.is_kept = way != WAY_L0;
    t->group[guest] = g;
    return rm_mem_index(base, T0, 0, disp);
}

static bool has_plain_segment(const struct tr *t, unsigned seg)
{
    if (seg == X86_FS || seg == X86_GS)
        return false;
    /* CS is flat with the others, but not writable. */
    return t->is_64 || (t->is_flat && seg != X86_CS);
}

/* The stack, constants and what segments lead to: few pages. */
static enum way way_of(const struct tr *t, bool is_plain)
{
    const struct x86_insn *i = tr_insn(t);
    const uint8_t *at = jit_guest_code(t->u, i);

    if (jit_is_noted(t->j->tlb_sites, at))
        return WAY_TLB;
    if (!is_plain || i->base == X86_RSP || i->base == X86_RIP ||
        (i->base == X86_ZERO && i->index == X86_ZERO) || jit_is_noted(t->j->l0_sites, at))
        return WAY_L0;
    return t->is_trial ? WAY_TRIAL : WAY_TLB;
}

bool mem_possible(const struct tr *t)
{
    const struct x86_insn *i = tr_insn(t);

    return i->disp >= INT32_MIN + 64 && i->disp <= INT32_MAX - 128;
}

void emit_ea(struct tr *t, unsigned to)
{
    const struct x86_insn *i = tr_insn(t);
    struct emit *e = &t->e;
    int32_t disp = (int32_t)i->disp;
    unsigned base = i->base == X86_ZERO ? H_NONE : host_of(t, i->base);
    unsigned index = i->index == X86_ZERO ? H_NONE : host_of(t, i->index);
    unsigned lea = (i->ea_shift == 0 ? OP_W : 0) | 0x8d;

    if (i->index != X86_ZERO && index == H_NONE) {
        /* T0 serves the index, `to` the base. */
        emit_load(e, T0, guest_rm(t, i->index));
        index = T0;
    }
    if (i->base != X86_ZERO && base == H_NONE) {
        unsigned r = index == T0 ? T1 : to;
        emit_load(e, r, guest_rm(t, i->base));
        base = r;
    }
    if (base == H_NONE && index == H_NONE) {
        emit_rm(e, (i->ea_shift == 0 ? OP_W : 0) | 0xc7, 0, rm_reg(to));
        emit32(e, (uint32_t)disp);
    } else if (base == H_NONE) {
        /* No base: SIB with base 5, mod 0, disp32. */
        unsigned rex = (i->ea_shift == 0 ? 8u : 0) | (to >> 3) << 2 | (index >> 3) << 1;
        if (rex)
            emit8(e, 0x40 | rex);
        emit8(e, 0x8d);
        emit8(e, (to & 7) << 3 | 4);
        emit8(e, (unsigned)i->scale << 6 | (index & 7) << 3 | 5);
        emit32(e, (uint32_t)disp);
    } else {
        struct rm rm = index == H_NONE ? rm_mem(base, disp)
                                       : rm_mem_index(base, index, i->scale, disp);
        emit_rm(e, lea, to, rm);
    }
    if (i->ea_shift == 48)
        emit_rm(e, OP_0F | 0xb7, to, rm_reg(to)); /* movzx to, to16 */
}

/* Is emit_ea one instruction that needs no scratch register? Then it may as well be
 * repeated, which costs less than to keep its result. */
static bool is_one_lea(const struct tr *t)
{
    const struct x86_insn *i = tr_insn(t);

    return i->ea_shift == 0 && (i->base == X86_ZERO || host_of(t, i->base) != H_NONE) &&
           (i->index == X86_ZERO || host_of(t, i->index) != H_NONE) &&
           (i->base != X86_ZERO || i->index != X86_ZERO);
}

struct rm mem_operand(struct tr *t, unsigned size, bool is_write)
{
    const struct x86_insn *i = tr_insn(t);
    struct emit *e = &t->e;
    int32_t disp = (int32_t)i->disp;
    bool is_plain = has_plain_segment(t, i->seg);
    enum way way = way_of(t, is_plain);
    unsigned base = T1, id = i->base + 1u;
    struct rm rm;

    if (stream_operand(t, size, is_write, &rm)) {
        t->j->stats.accesses++;
        return rm;
    }
    if (i->base == X86_RIP)
        id = (unsigned)(0x100 + ((uint32_t)disp >> 12 & 0xfff));
    else if (i->index != X86_ZERO) /* not where a group may be */
        id |= 0x1000u | (unsigned)i->index << 13;
    if (!is_plain)
        id = 0x40u + i->seg;
    if (i->ea_shift == 0 && i->index == X86_ZERO && is_plain && i->base != X86_ZERO) {
        base = host_of(t, i->base);
        if (base == H_NONE) {
            base = T1;
            if (!t->trusts_t1 || !t1_holds(t, i->base))
                emit_load(e, T1, guest_rm(t, i->base));
        }
        return check_shared(t, i->base, base, disp, size, is_write, false, slot_for(t, id), way);
    } else if (t->is_64 && i->ea_shift == 0 && i->index == X86_ZERO && i->base == X86_ZERO) {
        flags_clobber(t);
        if (is_plain)
            emit_ea(t, T1);
        else
            emit_load(e, T1, rm_mem(H_RSP, (int32_t)(offsetof(struct x86_vcpu, seg_base) +
                                                     8u * i->seg)));
        if (is_plain)
            disp = 0;
    } else {
        flags_clobber(t);
        disp = 0;
        if (way != WAY_L0 && is_plain && t->is_64 && is_one_lea(t)) {
            t->ea_again = true;
            rm = check(t, T1, 0, size, is_write, slot_for(t, id), way);
            t->ea_again = false;
            t->j->stats.accesses++;
            return rm;
        }
        emit_ea(t, T1);
        if (!is_plain && !t->is_64) {
            size_t last = is_write ? offsetof(struct x86_vcpu, seg_write_last)
                                   : offsetof(struct x86_vcpu, seg_read_last);
            emit_lea(e, T0, rm_mem(T1, (int32_t)size - 1));
            emit_rm(e, OP_W | 0x3b, T0, rm_mem(H_RSP, (int32_t)(last + 8u * i->seg)));
            slow_if(t, 15); /* jg */
        }
        if (!is_plain)
            emit_rm(e, OP_W | 0x03, T1,
                    rm_mem(H_RSP, (int32_t)(offsetof(struct x86_vcpu, seg_base) + 8u * i->seg)));
    }
    t->j->stats.accesses++;
    return check(t, base, disp, size, is_write, slot_for(t, id), way);
}

struct rm mem_linear(struct tr *t, unsigned base, unsigned id, unsigned size, bool is_write)
{
    flags_clobber(t);
    t->j->stats.accesses++;
    return check(t, base, 0, size, is_write, slot_for(t, id), way_of(t, false));
}

/* T1, on a stack of 16 bits, becomes linear; any other stack, and what goes beyond
 * its limit, is the handler's. */
static void emit_in_stack(struct tr *t, unsigned size, bool is_write)
{
    struct emit *e = &t->e;
    size_t last = is_write ? offsetof(struct x86_vcpu, seg_write_last[X86_SS])
                           : offsetof(struct x86_vcpu, seg_read_last[X86_SS]);

    emit_rm(e, OP_W | 0x81, 7, CPU_RM(sp_mask)); /* cmp */
    emit32(e, 0xffff);
    slow_if(t, 5);
    emit_rm(e, OP_0F | 0xb7, T1, rm_reg(T1)); /* movzx */
    emit_lea(e, T0, rm_mem(T1, (int32_t)size - 1));
    emit_rm(e, OP_W | 0x3b, T0, rm_mem(H_RSP, (int32_t)last));
    slow_if(t, 15); /* jg */
    emit_rm(e, OP_W | 0x03, T1, CPU_RM(seg_base[X86_SS]));
}

struct rm mem_stack(struct tr *t, int32_t disp, unsigned size, bool is_write)
{
    if (t->is_64)
        return check_shared(t, X86_RSP, H_R13, disp, size, is_write, true, 0, WAY_L0);
    flags_clobber(t);
    t->j->stats.accesses++;
    emit_rm(&t->e, 0x8d, T1, rm_mem(H_R13, disp)); /* lea, 32 bits */
    if (!t->is_flat)
        emit_in_stack(t, size, is_write);
    return check(t, T1, 0, size, is_write, 0, WAY_L0);
}

struct rm mem_frame(struct tr *t, unsigned size)
{
    unsigned base = H_RBP;

    flags_clobber(t);
    if (!t->is_64) {
        emit_rm(&t->e, 0x8b, T1, rm_reg(H_RBP));
        base = T1;
    }
    t->j->stats.accesses++;
    return check(t, base, 0, size, false, slot_for(t, X86_RBP + 1), WAY_L0);
}

unsigned mem_spare(struct tr *t, struct rm *rm)
{
    if (!rm->is_mem || (rm->base != T1 && rm->base != T0 && rm->index != T1))
        return T1;
    if (rm->base == T0)
        return T1;
    if (rm->index == H_NONE)
        return T0;
    emit_lea(&t->e, T0, *rm);
    *rm = rm_mem(T0, 0);
    return T1;
}

void mem_to_t1(struct tr *t, struct rm *rm)
{
    emit_lea(&t->e, T1, *rm);
    *rm = rm_mem(T1, 0);
}
