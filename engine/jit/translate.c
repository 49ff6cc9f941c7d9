/*
 * From guest bytes to a unit of host code.
 *
 * A unit is a run of instructions without a gap: it goes on behind a few
 * conditional jumps that are not taken, unless a unit is there already (and the
 * place is not hot), and ends with any other transfer of control, at the page's
 * end, or when it is long enough. One entry, many exits.
 *
 * What is not emitted is called: the instruction's handler, with everything in
 * its place in memory. So any instruction may be in a unit.
 */
#include "cpu/x86/vec/vec.h"
#include "engine/interp/marks.h"
#include "engine/jit/crossing.h"
#include "engine/jit/translate.h"

#include <string.h>

#include "cpu/x86/vec/vec.h"

/* Host code of one unit at most; what does not fit is cut short. */
#define UNIT_MAX_CODE (48 * KiB)

/* Conditional jumps that a unit goes on behind, and the last one. */
#define UNIT_MAX_JUMPS 3
/* Where events found it: it may be a loop that is entered in its middle, too. */
#define HOT_UNIT_MAX_JUMPS 8

/* How far the end of a small loop jumps back from its unit's start, at most. */
#define LOOP_REACH 256

#define LINE_BYTES 64

size_t jit_translation_bytes(void)
{
    return sizeof(struct jit_translation);
}

/* Jcc, LOOP and JCXZ with their like. */
static bool is_jcc(const ZydisDecodedInstruction *z)
{
    return z->meta.category == ZYDIS_CATEGORY_COND_BR &&
           ((z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
             ((z->opcode & 0xf0) == 0x70 || (z->opcode & 0xfc) == 0xe0)) ||
            (z->opcode_map == ZYDIS_OPCODE_MAP_0F && (z->opcode & 0xf0) == 0x80));
}

/* Ends a block, and goes on behind itself. */
static bool goes_on(const struct x86_insn *i, const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_WRMSR:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_CLTS:
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_INVPCID:
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_MOV: /* to segment, control, debug registers */
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
        return true;
    default:
        return z->meta.category == ZYDIS_CATEGORY_STRINGOP ||
               z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
    }
}

/* Decodes into the translation's scratch; the unit's instructions are at `at`. */
static unsigned decode(struct tr *t, const uint8_t *host, struct x86_insn *at, unsigned offset,
                       size_t available, unsigned most)
{
    struct jit_translation *s = t->t;
    unsigned n = 0, done = 0, jumps = 0;
    bool is_hot = jit_is_noted(t->j->hot_units, host);

    while (n < most) {
        struct x86_insn *i = &at[n];
        *i = (struct x86_insn){.offset = (uint16_t)(offset + done), .number = (uint16_t)n};
        if (x86_decode_whole(t->c, t->key & KEY_MODE, s->copy + done, available - done, i,
                             &s->d[n]) != DECODE_OK)
            break;
        n++;
        done += i->length;
        if ((i->flags & INSN_LAST) && goes_on(i, &s->d[n - 1].z))
            i->flags ^= INSN_LAST | INSN_GOES_ON;
        if (t->is_changing && changing_may_store(&s->d[n - 1], i))
            break;
        if (!(i->flags & INSN_LAST))
            continue;
        if (!is_jcc(&s->d[n - 1].z))
            break;
        /* What comes is there already, or less likely to be executed. */
        if (is_hot ? ++jumps == HOT_UNIT_MAX_JUMPS
                   : ++jumps == UNIT_MAX_JUMPS || jit_find(t->j, host + done, t->key))
            break;
    }
    return n;
}

/* May what follows see the flags as they are before it? A fault may. */
static bool may_leave(const struct tr *t, unsigned k)
{
    const struct x86_decode *d = &t->t->d[k];

    if ((t->u->insn[k].flags & (INSN_LAST | INSN_GOES_ON)) || system_may_leave(d))
        return true;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_LEA || d->z.mnemonic == ZYDIS_MNEMONIC_NOP)
        return false;
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return true;
    }
    return false;
}

/* Is it a small loop, or the end of one? */
static bool is_loop(const struct tr *t)
{
    for (unsigned n = 0; n < t->u->count; n++) {
        const ZydisDecodedInstruction *z = &t->t->d[n].z;
        const struct x86_insn *i = &t->u->insn[n];
        int64_t target = i->offset + i->length + z->raw.imm[0].value.s;

        if ((is_jcc(z) || (z->mnemonic == ZYDIS_MNEMONIC_JMP && z->raw.imm[0].is_relative)) &&
            target <= t->u->insn[0].offset && target >= t->u->insn[0].offset - LOOP_REACH)
            return true;
    }
    return false;
}

static void analyse_flags(struct tr *t)
{
    struct jit_translation *s = t->t;
    unsigned n = t->u->count;

    s->live[n] = true;
    while (n--) {
        s->use[n] = flags_use(t, &s->d[n]);
        if (s->is_slow[n] || may_leave(t, n) || (s->use[n] & FLAGS_READ))
            s->live[n] = true;
        else if (s->use[n] & FLAGS_KILL)
            s->live[n] = false;
        else
            s->live[n] = s->live[n + 1];
    }
}

static void emit_call(struct emit *e, struct rm target, uint32_t argument)
{
    emit_rm(e, 0xff, 2, target);
    emit32(e, argument);
}

static uint32_t reference(const struct tr *t, const void *p)
{
    return (uint32_t)(((const uint8_t *)p - t->j->arena) / 8);
}

void emit_arena_load(struct tr *t, const uint8_t *const *p)
{
    struct emit *e = &t->e;

    emit8(e, 0xb8); /* mov eax, imm32 */
    emit32(e, reference(t, p));
    emit_load(e, T1, JIT_RM(arena));
    emit_load(e, T0, rm_mem_index(T1, T0, 3, 0));
}

/* Instruction k, or that of which it is the copy. */
static const struct x86_insn *original(const struct tr *t, unsigned k)
{
    return &t->u->insn[t->u->insn[k].number];
}

void emit_slow_call(struct tr *t, unsigned k, enum slow_reason why)
{
    bool is_vector = vec_binder_for(&t->t->d[k].z);
    unsigned lent = loop_give_back(t);
    uint32_t at = reference(t, original(t, k));

    if (t->j->forms)
        jit_forms_note(t->j, at, &t->t->d[k]);
    emit_call(&t->e, is_vector ? JIT_RM(call_slow_vector) : JIT_RM(call_slow),
              at | (uint32_t)why << SLOW_REASON_SHIFT);
    if (lent)
        loop_lend(t);
}

/* May jit_miss let it store where nothing else may be stored? */
static bool may_be_once(const struct jit_stub *s)
{
    return s->is_write && s->done;
}

void emit_miss_call(struct tr *t, const struct jit_stub *s)
{
    uint32_t argument = (uint32_t)((s->class * JIT_L0_SLOTS + s->slot) * sizeof(struct jit_l0)) |
                        (s->size - 1u) << 16 | (uint32_t)s->is_write << 24 |
                        (s->way != WAY_L0 ? JIT_MISS_OF_TLB : 0) |
                        (uint32_t)may_be_once(s) << JIT_MISS_ONCE_BIT;

    /* Stored, because code is not in the host's data cache. */
    emit_rm(&t->e, 0xc7, 0, JIT_RM(miss_argument));
    emit32(&t->e, argument);
    emit_call(&t->e, JIT_RM(miss), argument);
    emit32(&t->e, reference(t, original(t, s->k)));
}

uint32_t emit_misaligned(struct tr *t, const struct jit_stub *s)
{
    if (!s->align)
        return 0;
    emit8(&t->e, 0xa8); /* test al, .. */
    emit8(&t->e, s->align);
    return emit_jcc(&t->e, 5);
}

static void emit_slow_stub(struct tr *t, const struct jit_stub *s)
{
    struct emit *e = &t->e;
    unsigned k = s->k;
    uint32_t back;

    emit_flags_to_cc(t, s->flags, s->recipe);
    emit_slow_call(t, k, s->kind == STUB_MISS ? SLOW_MEMORY : SLOW_OTHER);
    if ((t->u->insn[k].flags & INSN_LAST) && !is_jcc(&t->t->d[k].z))
        return; /* it never comes back */
    if (t->t->vectors_after[k])
        emit_vectors_call(t, t->t->vectors_after[k]);
    if (t->t->flags_after[k] & FLAGS_IN_HOST)
        emit_flags_load(e);
    if (t->t->t1_after[k] != X86_ZERO)
        emit_load(e, T1, guest_rm(t, t->t->t1_after[k]));
    back = emit_jmp(e);
    emit_patch(e, back, t->t->after[k]);
}

static void emit_miss_stub(struct tr *t, const struct jit_stub *s)
{
    struct emit *e = &t->e;
    uint32_t back, misaligned;

    t->k = s->k;
    if (s->ea_again)
        emit_ea(t, T1);
    else if (s->spilled)
        emit_load(e, T1, JIT_RM(saved_t1));
    emit_lea(e, T0, rm_mem(s->base, s->disp));
    misaligned = emit_misaligned(t, s);
    emit_miss_call(t, s);
    back = emit_jmp(e);
    emit_patch(e, back, s->retry);
    if (may_be_once(s)) {
        back = emit_jmp(e);
        emit_patch(e, back, s->done);
    }
    if (misaligned)
        emit_patch(e, misaligned, e->at);
    emit_slow_stub(t, s);
}

static void emit_link_stub(struct tr *t, const struct jit_stub *s)
{
    struct jit_link *l = s->link;
    struct emit *e = &t->e;

    if (l->kind & LINK_CROSS)
        emit_patch(e, l->jump, e->at);
    l->stub = e->at;
    emit_flags_to_cc(t, s->flags, s->recipe);
    emit_call(e, JIT_RM(call_link), reference(t, l));
}

/* A lazy link's way to a unit that wants the flags. */
static void emit_fix_stub(struct tr *t, const struct jit_stub *s)
{
    struct jit_link *l = s->link;

    l->fix = t->e.at;
    emit_flags_to_cc(t, s->flags, s->recipe);
    l->fix_jump = emit_jmp(&t->e);
}

/* The unit's own link: out, before its first instruction. */
static void emit_self(struct tr *t)
{
    struct jit_link *l = &t->u->links[0];

    *l = (struct jit_link){.from = t->u, .target = t->u->insn[0].offset};
    l->stub = t->e.at;
    if (t->entry_exit)
        emit_patch(&t->e, t->entry_exit, l->stub);
    emit_call(&t->e, JIT_RM(call_link), reference(t, l));
}

void emit_count(struct tr *t, struct rm counter)
{
    emit_load(&t->e, T0, counter);
    emit_lea(&t->e, T0, rm_mem(T0, 1));
    emit_store(&t->e, counter, T0);
}

void emit_stubs(struct tr *t)
{
    emit_self(t);
    emit_verify_stub(t);
    for (unsigned n = 0; n < t->stubs; n++) {
        const struct jit_stub *s = &t->t->stub[n];
        t->class = s->class;
        t->lent = s->lent;
        if (s->kind != STUB_FIX)
            emit_patch(&t->e, s->jump, t->e.at);
        switch (s->kind) {
        case STUB_SLOW:
            emit_slow_stub(t, s);
            break;
        case STUB_MISS:
            emit_miss_stub(t, s);
            break;
        case STUB_GROUP:
            emit_group_stub(t, s);
            break;
        case STUB_TRIAL: /* leaves the unit */
            emit_flags_to_cc(t, s->flags, s->recipe);
            emit_slow_call(t, s->k, SLOW_TRIAL);
            break;
        case STUB_SELF:
            emit_flags_to_cc(t, s->flags, s->recipe);
            loop_give_back(t);
            emit_patch(&t->e, emit_jmp(&t->e), t->u->links[0].stub);
            break;
        case STUB_AGAIN:
            loop_give_back(t);
            emit_patch(&t->e, emit_jmp(&t->e), s->retry);
            break;
        case STUB_NO_ROOM:
            emit_no_room_stub(t, s);
            break;
        case STUB_EMPTY:
            emit_empty_stub(t, s);
            break;
        case STUB_FIX:
            emit_fix_stub(t, s);
            break;
        case STUB_VECTORS:
            emit_vectors_call(t, s->size);
            emit_patch(&t->e, emit_jmp(&t->e), s->retry);
            break;
        default:
            emit_link_stub(t, s);
            break;
        }
    }
}

static void emit_entry(struct tr *t)
{
    struct emit *e = &t->e;

    /* Where instructions are counted the unit may be left at once. */
    bool needs = t->t->live[0] || t->is_counting;

    t->u->entry_flags = e->at;
    if (needs)
        emit_flags_save(e);
    t->u->entry = e->at;
    t->u->needs_flags = needs;
    t->flags = needs ? FLAGS_IN_CC : 0;
    t->recipe = (struct recipe){RECIPE_NONE, 0};
    if (t->j->forms)
        emit_count(t, JIT_RM(stats.units_run));
    t->entry_exit = 0;
    if (!t->is_counting)
        return;
    emit_load(e, T0, CPU_RM(s.icount));
    emit_lea(e, T0, rm_mem(T0, t->u->count));
    emit_rm(e, OP_W | 0x3b, T0, CPU_RM(budget_end));
    t->entry_exit = emit_jcc(e, 7); /* ja */
}

bool emit_one(struct tr *t, bool *ended)
{
    struct emit *e = &t->e;
    unsigned k = t->k, stubs = t->stubs, links = t->links;
    bool is_last = t->u->insn[k].flags & INSN_LAST, done;
    uint8_t flags = t->flags, class = t->class;
    struct recipe recipe = t->recipe;
    struct group group[ARRAY_SIZE(t->group)];
    uint32_t at = e->at;

    memcpy(group, t->group, sizeof group);
    if (t->u->insn[k].flags & INSN_GOES_ON)
        t->u->insn[k].spare = class;
    if (t->t->is_moving[k])
        done = false;
    else if (is_last)
        done = emit_branch(t);
    else
        done = emit_stack(t) || emit_general(t) || emit_system(t) || emit_vector(t);
    if (!done) {
        e->at = at;
        t->stubs = stubs;
        t->links = links;
        t->flags = flags;
        t->class = class;
        t->recipe = recipe;
        memcpy(t->group, group, sizeof group);
        if (!t->t->live[k]) {
            t->t->is_slow[t->u->insn[k].number] = true;
            return false;
        }
        flags_to_cc(t);
        emit_slow_call(t, k, t->t->is_moving[k] ? SLOW_MOVING : SLOW_ALWAYS);
        t->flags = FLAGS_IN_CC;
        group_end_all(t);
        t->vectors = 0;
        if (is_last && is_jcc(&t->t->d[k].z)) {
            if (t->loop) {
                t->no_loop = true;
                return false;
            }
            /* The entry holds the count that the unit had. */
            if (t->is_counting && t->u->count != k + 1) {
                t->u->count = (uint16_t)(k + 1);
                return false;
            }
            t->u->count = (uint16_t)(k + 1);
            *ended = true;
        }
    }
    group_after(t);
    *ended |= is_last && !is_jcc(&t->t->d[k].z);
    t->t->after[k] = e->at;
    t->t->flags_after[k] = t->flags;
    t->t->t1_after[k] = t->cache_k == k + 1 ? t->cache : X86_ZERO;
    t->t->vectors_after[k] = t->vectors;
    return true;
}

/* Emits the unit. False: again, with more known in is_slow[]. */
static bool emit_unit(struct tr *t)
{
    struct emit *e = &t->e;
    bool ended = false;

    e->at = (uint32_t)t->j->hot_used;
    e->limit = e->at + UNIT_MAX_CODE;
    t->stubs = 0;
    t->links = 1; /* 0 is its own */
    t->cache = X86_ZERO;
    t->cache_k = 0;
    t->vectors = 0;
    t->class = t->key >> KEY_CLASS_SHIFT & 3;
    memset(t->t->slot_key, 0, sizeof t->t->slot_key);
    t->end = t->u->count;
    t->lent = 0;
    analyse_flags(t);
    if (t->u->crossing)
        t->t->live[0] = true;
    loop_find(t);
    group_end_all(t);
    emit_entry(t);
    t->k = 0;
    if (t->u->crossing)
        emit_crossing(t);
    emit_verify(t);
    for (t->k = 0; t->k < t->end && !ended; t->k++) {
        if (!emit_one(t, &ended))
            return false;
    }
    if (!ended)
        emit_fallthrough(t);
    if (t->edges && !loop_emit(t))
        return false;
    t->hot_end = e->at;
    e->at = (uint32_t)t->j->cold_used;
    e->limit = e->at + UNIT_MAX_CODE;
    emit_stubs(t);
    return true;
}

/* The instruction's bytes in its second page. */
static struct jit_crossing *note_crossing(struct tr *t, const struct itlb_entry *second,
                                          unsigned in_first, unsigned bytes)
{
    struct jit_crossing *x = jit_arena_alloc(t->j, sizeof *x);

    *x = (struct jit_crossing){.second = second->host, .count = (uint8_t)(bytes - in_first)};
    memcpy(x->bytes, t->t->copy + in_first, x->count);
    return x;
}

static size_t bytes_of(const struct x86_insn *i, unsigned count)
{
    size_t bytes = 0;

    for (unsigned n = 0; n < count; n++)
        bytes += i[n].length;
    return bytes;
}

/* marks_set, but for those that change all the time. */
static bool mark(struct x86_vcpu *c, struct ram_block *ram, uint64_t offset, uint64_t bytes,
                 uint64_t but)
{
    if (!but)
        return marks_set(c, ram, offset, bytes);
    for (uint64_t at = offset, stop; at < offset + bytes; at = stop) {
        stop = MIN(offset + bytes, align_down(at, LINE_BYTES) + LINE_BYTES);
        if (!(but >> (at & ~PAGE_MASK) / LINE_BYTES & 1) &&
            !marks_set(c, ram, at, stop - at))
            return false;
    }
    return true;
}

struct jit_unit *jit_translate(struct x86_vcpu *c, gva_t lin, const struct itlb_entry *page,
                               const struct itlb_entry *second, uint32_t key)
{
    struct jit *j = jit_of(c);
    unsigned offset = (unsigned)(lin & ~PAGE_MASK), count, jumps = 0;
    size_t available = MIN(PAGE_SIZE - offset, sizeof j->translation->copy);
    const uint8_t *host = page->host + offset;
    struct ram_block *ram = page->block;
    uint64_t ram_offset = page->offset + offset;
    uint64_t began = host_tsc();
    size_t arena_used = j->arena_used, bytes = 0, in_first;
    struct tr t = {.c = c, .j = j, .t = j->translation, .key = key};
    /* loop.c's, for as long as the unit is made */
    unsigned copies = second ? 0 : LOOP_MAX_INSNS;
    struct x86_insn *decoded;
    struct jit_link *links;
    uint8_t *seen = NULL;
    uint64_t checked;
    struct jit_unit *u;

    vec_leave(c); /* decoding is not compiled without vector registers */
    t.is_64 = (key & MODE_SIZE) == MODE_64;
    t.is_flat = key & KEY_FLAT;
    t.is_counting = key & KEY_COUNT;
    t.is_changing = jit_leaves_unmarked(j, host);
    memset(t.t->is_slow, 0, sizeof t.t->is_slow);
    memset(t.t->is_moving, 0, sizeof t.t->is_moving);
    memcpy(t.t->copy, host, available);
    u = jit_arena_alloc(j, sizeof *u + (UNIT_MAX_INSNS + 1) * sizeof(struct x86_insn));
    if (second) {
        memcpy(t.t->copy + available, second->host, 15);
        available += 15;
    }
    count = decode(&t, host, u->insn, offset, available, second ? 1 : UNIT_MAX_INSNS);
    j->arena_used = arena_used;
    if (!count || (second && (u->insn[0].flags & INSN_GOES_ON)))
        return NULL;
    bytes = bytes_of(u->insn, count);
    checked = jit_changing_lines(j, host, MIN(bytes, PAGE_SIZE - offset));
    if (checked) {
        count = changing_cut(&t, u->insn, count);
        bytes = bytes_of(u->insn, count);
        checked = jit_changing_lines(j, host, MIN(bytes, PAGE_SIZE - offset));
    }
    if (second) /* its second page is compared as it is */
        checked = 0;
    for (unsigned n = 0; n < count; n++)
        jumps += is_jcc(&t.t->d[n].z);
    in_first = MIN(bytes, PAGE_SIZE - offset);
    if (second && bytes == in_first)
        return NULL;
    if (!mark(c, ram, ram_offset, in_first, checked) || memcmp(t.t->copy, host, in_first) != 0)
        return NULL;
    links = jit_arena_alloc(j, (2 * jumps + 4) * sizeof(struct jit_link));
    if (checked)
        seen = jit_arena_alloc(j, bytes);
    decoded = u->insn;
    u = jit_arena_alloc(j, sizeof *u + (count + 1 + copies) * sizeof(struct x86_insn));
    for (unsigned n = count + 1; n-- > 0;)
        u->insn[n] = decoded[n];
    *u = (struct jit_unit){.host = host, .key = key, .count = (uint16_t)count,
                           .checked_lines = checked, .checked_at = host, .links = links,
                           .seen = seen};
    t.u = u;
    if (second)
        u->crossing = note_crossing(&t, second, (unsigned)in_first, (unsigned)bytes);
    if (checked) {
        memcpy(seen, t.t->copy, bytes);
        t.no_loop = true;
        for (unsigned n = 0; n < count; n++)
            t.t->is_moving[n] = t.t->is_slow[n] = changing_moves(&t, n);
    }
    t.is_trial = !checked && j->threshold > 1 && !jit_is_noted(j->tried_units, host) &&
                 (jit_is_noted(j->hot_units, host) || is_loop(&t));
    t.e = (struct emit){.base = j->code.write};
    while (!emit_unit(&t))
        ;
    if (t.is_trial && !t.is_measured) { /* it would last for ever */
        jit_note(j->tried_units, host);
        t.is_trial = false;
        while (!emit_unit(&t))
            ;
    }
    if (t.e.full || t.failed) {
        j->arena_used = arena_used;
        return NULL;
    }
    j->arena_used -= copies * sizeof(struct x86_insn);
    u->code_bytes = t.hot_end - (uint32_t)j->hot_used;
    u->cold = (uint32_t)j->cold_used;
    u->cold_bytes = t.e.at - u->cold;
    u->link_count = t.links;
    for (unsigned n = 0; n < u->count; n++)
        u->bytes = (uint16_t)(u->bytes + u->insn[n].length);
    u->bytes = (uint16_t)MIN(u->bytes, PAGE_SIZE - offset);
    j->hot_used = align_up(t.hot_end, 16);
    j->cold_used = t.e.at;
    j->stats.units++;
    j->stats.checked_units += checked != 0;
    j->stats.guest_insns += u->count;
    j->stats.guest_bytes += u->bytes;
    j->stats.host_bytes += u->code_bytes;
    j->stats.cold_bytes += u->cold_bytes;
    jit_insert(j, u);
    j->stats.translate_ticks += host_tsc() - began;
    return u;
}
