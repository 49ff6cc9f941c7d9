/*
 * The JIT engine: the interpreter's loop and block cache, with host code for
 * what is hot. Interface: jit_engine in engine/engine.h.
 *
 * The interpreter keeps all that is rare: events, single steps, breakpoints,
 * budgets smaller than a unit, instructions across pages. From its loop a unit
 * is entered where one exists; host code then goes from unit to unit and comes
 * back for what it cannot do.
 */
#include "engine/jit/jit.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/x86/vec/vec.h"
#include "engine/engine.h"
#include "engine/interp/cache.h"
#include "engine/interp/interp.h"
#include "engine/jit/crossing.h"
#include "engine/jit/translate.h"

#define CACHE_BYTES (256 * MiB) /* of all processors */
#define MIN_CODE_BYTES (512 * KiB)
/* Units are named by 29 bits, in steps of 8 bytes: enum slow_reason. */
#define MAX_CODE_BYTES (1 * GiB)

/* ---- C that host code calls ---- */

/*
 * First in all that host code calls: the runtime of AddressSanitizer or libFuzzer
 * may come with any C, and uses vector registers. Units cope, for a handler that is slow may
 * do the same; who answers a miss has to load them again (docs/VECTOR.md).
 */
static inline void leave_for_sanitizer(struct x86_vcpu *c)
{
#if defined(__SANITIZE_ADDRESS__) || defined(FUZZ_LIBFUZZER)
    vec_registers_leave(c);
#endif
}

/* What asks for the interpreter's loop at the next boundary. */
static inline bool wants_out(const struct x86_vcpu *c)
{
    return atomic_load_explicit(&c->vcpu.events, memory_order_relaxed) | c->slow | c->recheck |
           c->s.activity;
}

static uint64_t leave_for(struct x86_vcpu *c, enum jit_leave_reason why)
{
    jit_of(c)->stats.leave[why]++;
    return (uint64_t)(uintptr_t)jit_leave;
}

/* Where faults of a fetch find their RIP. */
static const struct x86_insn at_start;

/* A unit for reg[X86_RIP], if there is one that may be entered now; then
 * reg[X86_RIP] becomes the page RIP. Raises what the fetch raises; never
 * translates. */
static struct jit_unit *unit_here(struct x86_vcpu *c, const struct itlb_entry **page,
                                  enum jit_leave_reason *why)
{
    struct jit *j = jit_of(c);
    uint64_t rip = c->s.reg[X86_RIP];
    gva_t lin = rip + c->seg_base[X86_CS];
    const struct itlb_entry *e;
    struct jit_unit *u;

    if ((c->mode & MODE_SIZE) != MODE_64)
        lin = (uint32_t)lin;
    *why = LEAVE_ODD;
    if (!jit_allowed(c))
        return NULL;
    /* A fetch sets A bits and faults: not before its time. */
    *why = LEAVE_BUDGET;
    if (j->is_counting && c->s.icount >= c->budget_end)
        return NULL;
    *why = LEAVE_FETCH;
    if (unlikely(rip + c->code_bias > c->code_span))
        return NULL;
    c->cur = &at_start;
    e = x86_fetch_page(c, lin);
    if (!e->host)
        return NULL;
    *why = LEAVE_EVENT; /* of code in the page, perhaps: as in run_blocks */
    if (unlikely(atomic_load_explicit(&c->vcpu.events, memory_order_acquire)))
        return NULL;
    u = jit_find(j, e->host + (lin & ~PAGE_MASK), jit_key(c));
    *why = LEAVE_NO_UNIT;
    if (!u)
        return NULL;
    *why = LEAVE_BUDGET;
    if (j->is_counting && u->count > c->budget_end - c->s.icount)
        return NULL;
    c->s.reg[X86_RIP] = rip - (lin & ~PAGE_MASK);
    jit_jumps_use(c, u->key);
    *page = e;
    return u;
}

/* Whether what leads to a page holds in all address spaces. In a deterministic
 * machine it does not: each has its own ITLB, and A bits are set when that is
 * filled. */
static bool is_shared(const struct jit *j, const struct itlb_entry *page)
{
    return page->global && !j->is_counting;
}

/* After an instruction that ended its unit: reg[X86_RIP] is true. */
static uint64_t dispatch(struct x86_vcpu *c)
{
    struct jit *j = jit_of(c);
    uint64_t rip = c->s.reg[X86_RIP];
    const struct itlb_entry *page;
    enum jit_leave_reason why;
    struct jit_unit *u;

    j->stats.dispatches++;
    if (wants_out(c) || j->leaving)
        return leave_for(c, j->leaving ? LEAVE_WANTED : LEAVE_EVENT);
    if ((c->mode & MODE_SIZE) == MODE_64 && jit_allowed(c)) {
        uint64_t host = jit_jumps_find(c, rip, jit_key(c));
        if (host) { /* after IRETQ, most of all */
            c->s.reg[X86_RIP] = rip & PAGE_MASK;
            return host;
        }
    }
    u = unit_here(c, &page, &why);
    if (!u)
        return leave_for(c, why);
    j->stats.dispatch_hits++;
    if (u->key & (KEY_FLAT | MODE_64)) {
        jit_fetched_add(c, rip, page);
        jit_jumps_add(c, rip, u, is_shared(j, page));
    }
    return (uint64_t)(uintptr_t)jit_exec(j, u->entry);
}

enum { NEXT_IN_UNIT = NEXT_LOOKUP + 1 };

static enum x86_next end_of_slow(struct x86_vcpu *c, const struct x86_insn *i)
{
    return (enum x86_next)NEXT_IN_UNIT;
}

/* The guard before instruction i: where the end of a page is in its way, that
 * may last. */
static void group_failed(struct x86_vcpu *c, const struct x86_insn *i)
{
    struct jit *j = jit_of(c);
    struct jit_unit *u = jit_unit_of(i);
    uint64_t room = PAGE_SIZE - (c->s.reg[i->base] + (uint64_t)i->disp) % PAGE_SIZE;
    uint64_t below = c->s.reg[i->base == X86_ZERO ? X86_RSP : i->base] % PAGE_SIZE;

    j->stats.group_fails++;
    if (!u->host || (room > 1024 && below > 1024 && below < PAGE_SIZE - 1024))
        return;
    jit_note(j->single_sites, jit_guest_code(u, i));
    if (u->block)
        u->block->heat = (uint16_t)j->threshold;
    jit_kill(j, u);
}

/* Is code behind i still what the unit makes of it? RIP says where the handler
 * has gone; then it becomes the page RIP again. */
static bool goes_on(struct x86_vcpu *c, const struct x86_insn *i, uint64_t page_rip)
{
    const struct jit_unit *u = jit_unit_of(i);
    struct jit *j = jit_of(c);
    uint64_t rip = c->s.reg[X86_RIP];
    gva_t lin = rip + c->seg_base[X86_CS];
    const struct itlb_entry *e;

    if (rip != ((page_rip + i->offset + i->length) & c->ip_mask) || wants_out(c) ||
        j->leaving || !u->host || !jit_allowed(c) ||
        jit_key(c) != ((u->key & ~(3u << KEY_CLASS_SHIFT)) | i->spare << KEY_CLASS_SHIFT))
        return false;
    /* The iterations of REP count, and are not in the unit's number. */
    if (j->is_counting && u->count > c->budget_end - c->s.icount)
        return false;
    if ((c->mode & MODE_SIZE) != MODE_64)
        lin = (uint32_t)lin;
    lin -= i->length; /* the page that i is in */
    e = itlb_slot(&c->mmu->slot[c->mmu->current].itlb, lin);
    if (e->tag != ((lin & PAGE_MASK) | (c->s.cpl == 3)) ||
        e->host != (const uint8_t *)((uint64_t)u->host & PAGE_MASK))
        return false;
    c->s.reg[X86_RIP] = page_rip;
    return true;
}

/* Executes one instruction by its handler. */
static uint64_t call_slow(struct x86_vcpu *c, uint64_t reference)
{
    struct jit *j = jit_of(c);
    const struct x86_insn *i =
        (const struct x86_insn *)(j->arena + (reference & SLOW_REFERENCE) * 8);
    enum slow_reason reason = reference >> SLOW_REASON_SHIFT & 7;
    bool is_group = reason == SLOW_GROUP, leaves = is_group || reason == SLOW_TRIAL || reason == SLOW_STREAMS;
    uint64_t clears = j->l0_clears;
    uint64_t page_rip = c->s.reg[X86_RIP], rip;
    enum x86_next next;

    leave_for_sanitizer(c);
    if (unlikely(reason >= SLOW_MOVING) &&
        (reason == SLOW_STALE || !jit_refresh(c, (struct x86_insn *)(uintptr_t)i))) {
        jit_is_stale(j, i);
        c->s.icount += i->number;
        c->s.reg[X86_RIP] = (page_rip + i->offset) & c->ip_mask;
        return leave_for(c, LEAVE_CHANGED);
    }
    j->stats.slow_calls++;
    if (is_group)
        group_failed(c, i);
    if (reason == SLOW_TRIAL)
        jit_trial_over(j, i);
    if (reason == SLOW_STREAMS)
        jit_streams_failed(j, i);
    j->pair[0] = *i;
    c->cur = j->pair;
    c->block = &j->slow_block;
    next = i->fn(c, j->pair);
    c->block = NULL;
    if (likely((unsigned)next == NEXT_IN_UNIT)) {
        /* Lookups that are shared hold until translations are dropped. */
        if (likely(!wants_out(c) && !j->leaving && !leaves && clears == j->l0_clears))
            return 0;
        rip = c->s.reg[X86_RIP] + i->offset + i->length;
        c->s.reg[X86_RIP] = rip & c->ip_mask;
        c->s.icount += i->number + 1u;
        return leave_for(c, j->leaving ? LEAVE_WANTED : LEAVE_EVENT);
    }
    if ((i->flags & INSN_GOES_ON) && !leaves && clears == j->l0_clears &&
        goes_on(c, i, page_rip))
        return 0;
    c->s.icount += i->number + 1u;
    if (unlikely(wants_out(c)))
        jit_sample(j, jit_unit_of(i));
    return dispatch(c);
}

/* The same, counting which. */
static uint64_t call_slow_counting(struct x86_vcpu *c, uint64_t reference)
{
    vec_registers_leave(c);
    jit_forms_count(jit_of(c), (uint32_t)(reference & SLOW_REFERENCE),
                    (enum slow_reason)(reference >> SLOW_REASON_SHIFT));
    return call_slow(c, reference);
}

/* The same of an instruction whose handler uses the host's vector registers. */
static uint64_t call_slow_vector(struct x86_vcpu *c, uint64_t reference)
{
    vec_registers_leave(c);
    return jit_of(c)->slow(c, reference);
}

/* live: a set of enum vec_live. */
static uint64_t enter_vectors(struct x86_vcpu *c, uint64_t live)
{
    if (live & ~c->vec_live & LIVE_X87) {
        live |= c->vec_live;
        vec_x87_load(c);
    }
    if (live & LIVE_VEC)
        vec_registers_enter(c, live & LIVE_VEC_ALL);
    return 0;
}

/* A direct jump whose target is not known, or not yet, or no longer. */
static uint64_t call_link(struct x86_vcpu *c, uint64_t reference)
{
    struct jit *j = jit_of(c);
    struct jit_link *l = (struct jit_link *)(j->arena + reference * 8);
    uint64_t page_rip = c->s.reg[X86_RIP];
    uint64_t rip = (page_rip + (uint64_t)(int64_t)l->target) & c->ip_mask;
    const struct itlb_entry *page;
    enum jit_leave_reason why;
    struct jit_unit *u;

    leave_for_sanitizer(c);
    if (l->kind & LINK_SECOND) {
        const uint8_t *to = jit_crossing(c, l);
        return to ? (uint64_t)(uintptr_t)to : leave_for(c, LEAVE_NO_UNIT);
    }
    if (unlikely(rip + c->code_bias > c->code_span) && l->retired) {
        /* Not a place to go to: the branch itself has to find out. */
        const struct x86_insn *i = &l->from->insn[l->retired - 1];
        if ((int32_t)i->offset + i->length != l->target) {
            if (l->is_call)
                c->s.reg[X86_RSP] += (c->mode & MODE_SIZE) == MODE_64 ? 8 : 4;
            if (j->is_counting)
                c->s.icount--; /* it alone is not retired */
            c->s.reg[X86_RIP] = (page_rip + i->offset) & c->ip_mask;
            j->refuses = true; /* or it would come here again */
            return leave_for(c, LEAVE_TARGET);
        }
    }
    c->s.reg[X86_RIP] = rip;
    if (wants_out(c)) {
        jit_sample(j, l->from);
        if (l->to && l->to != l->from)
            jit_sample(j, l->to);
        return leave_for(c, LEAVE_EVENT);
    }
    u = unit_here(c, &page, &why);
    if (!u)
        return leave_for(c, why);
    /* Another page: where RIP wraps and where CS ends depends on its base. */
    if ((l->kind & LINK_CROSS) && !(u->key & (KEY_FLAT | MODE_64)))
        return (uint64_t)(uintptr_t)jit_exec(j, u->entry);
    if (l != l->from->links && l->from->host &&
        u->key == ((l->from->key & ~(3u << KEY_CLASS_SHIFT)) |
                   (uint32_t)l->class << KEY_CLASS_SHIFT)) {
        jit_fetched_add(c, rip, page);
        jit_link_to(c, l, u, page_rip, is_shared(j, page));
    }
    return (uint64_t)(uintptr_t)jit_exec(j, u->entry);
}

/* The unit counts on what it had before a miss. */
static void enter_again(struct x86_vcpu *c, uint8_t live)
{
    if (unlikely(live & ~c->vec_live & (LIVE_VEC | LIVE_X87)))
        enter_vectors(c, live);
}

static enum jit_found refill(struct x86_vcpu *c, uint64_t lin, uint64_t is_write, uint64_t last)
{
    uint8_t live = c->vec_live;
    enum jit_found found;

    leave_for_sanitizer(c);
    found = jit_refill(c, lin, is_write, last);
    enter_again(c, live); /* a page table in a device's memory */
    return found;
}

static void many_misses(struct x86_vcpu *c, uint64_t host_code)
{
    uint8_t live = c->vec_live;

    leave_for_sanitizer(c);
    jit_many_misses(c, host_code);
    enter_again(c, live);
}

/* ---- from the interpreter's loop ---- */

/* The interpreter runs it. */
static bool not_now(struct jit *j, const struct x86_block *b, enum jit_try_reason why)
{
    j->stats.try_blocks[why]++;
    j->stats.try_insns[why] += b->count;
    return false;
}

bool jit_try(struct x86_vcpu *c, struct x86_block *b, gva_t lin)
{
    struct jit *j = jit_of(c);
    struct jit_unit *u = b->unit;
    uint32_t key;

    if (unlikely(j->refuses) || !jit_allowed(c)) {
        j->refuses = false;
        return not_now(j, b, TRY_ODD);
    }
    /* Behind the last byte of all is no other. */
    if (b->second_host && !interp_fetch_allowed(c, b->bytes))
        return not_now(j, b, TRY_CROSSING);
    key = jit_key(c);
    if (!u || u->key != key) {
        const struct itlb_entry *page, *second = NULL;
        /* Units come of hot blocks: of a lukewarm one there is none. */
        u = b->heat && b->heat < j->threshold && b->cached ? NULL : jit_find(j, b->host, key);
        if (u && !jit_crosses_to(u, b->second_host))
            return not_now(j, b, TRY_CROSSING);
        if (!u) {
            if (!b->cached && !b->is_unmarked)
                return not_now(j, b, TRY_UNCACHED);
            if (!b->is_unmarked && b->heat++ < j->threshold)
                return not_now(j, b, b->second_host ? TRY_CROSSING : TRY_COLD);
            b->heat = 0;
            if (b->second_host) {
                gva_t next = (lin & PAGE_MASK) + PAGE_SIZE;
                if (!(key & (KEY_FLAT | MODE_64)))
                    return not_now(j, b, TRY_CROSSING);
                second = x86_fetch_page(c, key & MODE_64 ? next : (uint32_t)next);
                if (second->host != b->second_host)
                    return not_now(j, b, TRY_CROSSING);
            }
            page = x86_fetch_page(c, lin);
            if (!page->host)
                return not_now(j, b, TRY_UNCACHED);
            jit_make_room(c);
            u = jit_translate(c, lin, page, second, key);
            if (!u)
                return not_now(j, b, TRY_FAILED);
            jit_perf_note(c, u, c->s.reg[X86_RIP]);
        }
        if (b->cached) {
            u->block = b;
            b->unit = u;
        }
    }
    if (j->is_counting && u->count > c->budget_end - c->s.icount)
        return not_now(j, b, TRY_BUDGET);
    c->s.reg[X86_RIP] -= lin & ~PAGE_MASK;
    jit_jumps_use(c, key);
    j->leaving = false;
    j->stats.entered++;
    jit_enter(c, jit_exec(j, u->entry));
    leave_for_sanitizer(c);
    return true;
}

/* ---- the engine's operations ---- */

static void jit_code_written(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                             uint64_t bytes)
{
    uint64_t blocks = interp_stats(c)->invalidated;
    struct jit *j = jit_of(c);
    bool any;

    /* Whatever runs: it may be what was written, and its links are gone. */
    any = jit_invalidate(c, block, offset, bytes);
    if (any)
        j->leaving = true;
    interp_code_written(c, block, offset, bytes);
    if (block && (any || interp_stats(c)->invalidated != blocks))
        jit_note_change(c, block, offset, bytes);
}

static void jit_end_block(struct x86_vcpu *c)
{
    struct jit *j = jit_of(c);

    j->leaving = true;
    if (c->block != &j->slow_block)
        interp_end_block(c);
}

static void jit_tlb_dropped(struct x86_vcpu *c, bool global_too)
{
    jit_l0_clear(jit_of(c), global_too);
}

static void jit_tlb_page_dropped(struct x86_vcpu *c, gva_t page)
{
    jit_l0_clear_page(jit_of(c), page);
}

static void jit_fetch_dropped(struct x86_vcpu *c, bool all, gva_t page, bool global_too)
{
    struct jit *j = jit_of(c);
    bool global_stays, local_stays;

    if (!all && jit_fetched_is_there(c, page))
        return;
    global_stays = !global_too || (all && jit_fetched_all_there(c, true));
    local_stays = all && jit_fetched_all_there(c, false);
    if (!global_stays) {
        j->generation[0] = j->next_generation++;
        jit_fetched_clear(c, true);
    }
    if (!local_stays) {
        j->generation[1] = j->next_generation++;
        j->slot_generation[c->mmu->current] = j->generation[1];
        jit_fetched_clear(c, false);
    }
    for (unsigned k = 0; k < TLB_CLASSES; k++) {
        if ((!local_stays && (k == TLB_USER || j->jumps_local[k])) ||
            (!global_stays && k != TLB_USER))
            jit_jumps_forget(c, k);
    }
}

static void jit_slot_switched(struct x86_vcpu *c, unsigned slot)
{
    struct jit *j = jit_of(c);

    if (!j->slot_generation[slot])
        j->slot_generation[slot] = j->next_generation++;
    j->generation[1] = j->slot_generation[slot];
    jit_jumps_switch(c);
}

static void jit_destroy(struct x86_vcpu *c)
{
    struct jit *j = jit_of(c);

    if (j->arena)
        host_pages_free(j->arena, j->arena_bytes);
    exec_memory_destroy(&j->code);
    if (j->catches_faults)
        jit_faults_release();
    j->catches_faults = false;
    free(j->translation);
    jit_forms_destroy(j);
    jit_perf_close(j);
    j->arena = NULL;
    j->translation = NULL;
    cache_destroy(c);
}

/* This processor's part of the machine's cache. */
static size_t code_bytes(const struct x86_vcpu *c)
{
    uint64_t bytes = c->engine_options.jit_cache_bytes ? c->engine_options.jit_cache_bytes
                                                       : CACHE_BYTES;

    bytes /= MAX(c->model->cpu_count, 1u);
    return align_down(MIN(MAX(bytes, MIN_CODE_BYTES), MAX_CODE_BYTES), PAGE_SIZE);
}

/* Not __builtin_cpu_supports: clang 14 does not know the name. */
static bool host_has_movbe(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_MOVBE);
}

static int jit_create(struct x86_vcpu *c, struct error *err)
{
    const struct x86_engine_options *options = &c->engine_options;
    struct jit *j = jit_of(c);
    int r;

    j->perf_fd = -1;
    r = cache_create(c, err);
    if (r < 0)
        return r;
    r = exec_memory_create(&j->code, code_bytes(c), err);
    if (r < 0)
        goto fail;
    r = jit_faults_acquire(err);
    if (r < 0)
        goto fail;
    j->catches_faults = true;
    j->pages_bytes = align_up(j->code.bytes / 4, PAGE_SIZE);
    j->arena_bytes = j->pages_bytes + 2 * j->code.bytes; /* measured: 1.5 */
    j->arena = host_pages_alloc(j->arena_bytes, false);
    j->translation = malloc(jit_translation_bytes());
    if (!j->arena || !j->translation || (options->stats && jit_forms_create(j) < 0)) {
        r = error_set(err, -ENOMEM, "out of memory for the JIT");
        goto fail;
    }
    j->threshold = options->jit_threshold ? options->jit_threshold : X86_JIT_THRESHOLD;
    if (j->threshold == X86_JIT_AT_ONCE)
        j->threshold = 0;
    j->is_counting = c->vm->deterministic;
    j->host_kills = flags_probe_host();
    j->has_movbe = host_has_movbe();
    j->slow = options->stats ? call_slow_counting : call_slow;
    j->link = call_link;
    j->refill = refill;
    j->many = many_misses;
    j->misses_left = JIT_MISS_WINDOW;
    j->miss = jit_miss;
    j->call_slow = jit_call_slow;
    j->call_link = jit_call_link;
    j->slow_vector = call_slow_vector;
    j->call_slow_vector = jit_call_slow_vector;
    j->enter_vectors = enter_vectors;
    j->call_enter_vectors = jit_call_enter_vectors;
    j->pair[1].fn = end_of_slow;
    jit_regions_init(j);
    j->next_generation = 3;
    j->generation[0] = 1;
    j->generation[1] = j->slot_generation[0] = 2;
    for (unsigned k = 0; k < TLB_CLASSES; k++)
        j->l0_used[k] = L0_ANY;
    jit_jumps_init(j);
    j->l0_none = JIT_L0_NONE;
    jit_l0_clear(j, true);
    jit_perf_open(c);
    c->has_jit = true;
    return 0;
fail:
    jit_destroy(c);
    return r;
}

const struct x86_engine_ops jit_engine = {
    .name = "jit",
    .below_bytes = JIT_STACK_BYTES,
    .above_bytes = sizeof(struct jit),
    .create = jit_create,
    .destroy = jit_destroy,
    .run = jit_run,
    .code_written = jit_code_written,
    .end_block = jit_end_block,
    .code_stored = interp_code_stored,
    .tlb_dropped = jit_tlb_dropped,
    .tlb_page_dropped = jit_tlb_page_dropped,
    .fetch_dropped = jit_fetch_dropped,
    .slot_switched = jit_slot_switched,
    .host_code = jit_host_code,
    .report = jit_report,
};
