/*
 * What the JIT did, for --stats: counters as text, and the instructions that
 * still run by their handlers, by form ("MOV m32, r32") and by why.
 *
 * The cheap counters are always kept (struct jit_stats). Forms are kept only
 * when they were asked for: each instruction that is translated is noted then,
 * and call_slow's counting twin finds its form by its place.
 *
 * Threading: the processor's own thread, or with the processor stopped.
 */
#include "engine/jit/stats.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/host.h"
#include "engine/interp/interp.h"
#include "engine/interp/marks.h"
#include "engine/jit/jit.h"

#define FORMS 4096
#define SITES (1u << 20)
#define TOP 20
#define FORM_OPERANDS 3

struct form {
    uint16_t mnemonic; /* 0: free */
    uint8_t prefixes;  /* 1: LOCK, 2: REP */
    struct {
        uint8_t type; /* 0: none */
        uint16_t bits;
    } operand[FORM_OPERANDS];
    uint64_t count[SLOW_REASONS];
};

/* The forms, and which of them the instruction at a place has. Places that
 * meet in one entry take it from one another. */
struct jit_forms {
    struct form form[FORMS];
    struct {
        uint32_t reference, form;
    } site[SITES];
    uint64_t unknown;
};

int jit_forms_create(struct jit *j)
{
    j->forms = host_pages_alloc(sizeof *j->forms, false);
    return j->forms ? 0 : -12;
}

void jit_forms_destroy(struct jit *j)
{
    if (j->forms)
        host_pages_free(j->forms, sizeof *j->forms);
    j->forms = NULL;
}

static bool form_is(const struct form *a, const struct form *b)
{
    if (a->mnemonic != b->mnemonic || a->prefixes != b->prefixes)
        return false;
    for (unsigned n = 0; n < FORM_OPERANDS; n++)
        if (a->operand[n].type != b->operand[n].type || a->operand[n].bits != b->operand[n].bits)
            return false;
    return true;
}

static unsigned site_of(uint32_t reference)
{
    return (unsigned)(reference * 0x9e3779b1u) >> 12 & (SITES - 1);
}

void jit_forms_note(struct jit *j, uint32_t reference, const struct x86_decode *d)
{
    struct form f = {.mnemonic = (uint16_t)d->z.mnemonic};
    unsigned h;

    if (d->z.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        f.prefixes |= 1;
    if (d->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        f.prefixes |= 2;
    for (unsigned n = 0; n < FORM_OPERANDS && n < d->z.operand_count_visible; n++) {
        f.operand[n].type = (uint8_t)d->op[n].type;
        f.operand[n].bits = d->op[n].size;
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass class = ZydisRegisterGetClass(d->op[n].reg.value);
            /* Beyond the operand types: control, debug and segment registers. */
            if (class == ZYDIS_REGCLASS_CONTROL)
                f.operand[n].type = 0x10;
            else if (class == ZYDIS_REGCLASS_SEGMENT)
                f.operand[n].type = 0x11;
        }
    }
    h = (f.mnemonic * 31u + f.prefixes + f.operand[0].type * 7u + f.operand[0].bits * 3u +
         f.operand[1].type * 131u + f.operand[1].bits) %
        FORMS;
    for (unsigned tries = 0; tries < FORMS; tries++, h = (h + 1) % FORMS) {
        struct form *at = &j->forms->form[h];
        if (!at->mnemonic)
            *at = f;
        if (form_is(at, &f)) {
            unsigned site = site_of(reference);
            j->forms->site[site].reference = reference;
            j->forms->site[site].form = h;
            return;
        }
    }
}

void jit_forms_count(struct jit *j, uint32_t reference, enum slow_reason why)
{
    unsigned site = site_of(reference);

    if (j->forms->site[site].reference == reference)
        j->forms->form[j->forms->site[site].form].count[why]++;
    else
        j->forms->unknown++;
}

/* ---- as text ---- */

struct report {
    x86_report_line *line;
    void *ctx;
};

static void say(const struct report *r, const char *format, ...) PRINTF_LIKE(2, 3);

static void say(const struct report *r, const char *format, ...)
{
    char text[160];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->line(r->ctx, text);
}

static uint64_t form_sum(const struct form *f)
{
    uint64_t sum = 0;

    for (unsigned n = 0; n < SLOW_REASONS; n++)
        sum += f->count[n];
    return sum;
}

static void form_name(const struct form *f, char *text, size_t bytes)
{
    static const char *const types[] = {
        [ZYDIS_OPERAND_TYPE_REGISTER] = "r", [ZYDIS_OPERAND_TYPE_MEMORY] = "m",
        [ZYDIS_OPERAND_TYPE_POINTER] = "p",  [ZYDIS_OPERAND_TYPE_IMMEDIATE] = "i",
        [0x10] = "cr",                       [0x11] = "sreg"};
    int at = snprintf(text, bytes, "%s%s%s", f->prefixes & 1 ? "lock " : "",
                      f->prefixes & 2 ? "rep " : "",
                      ZydisMnemonicGetString((ZydisMnemonic)f->mnemonic));

    for (unsigned n = 0; n < FORM_OPERANDS && f->operand[n].type; n++)
        at += snprintf(text + at, bytes - (size_t)at, "%s%s%u", n ? ", " : " ",
                       types[f->operand[n].type], f->operand[n].bits);
}

static void say_slow(const struct report *r, const struct jit *j)
{
    uint64_t before = UINT64_MAX, sum = j->forms->unknown;
    unsigned last = FORMS;

    for (unsigned n = 0; n < FORMS; n++)
        sum += form_sum(&j->forms->form[n]);
    say(r, "  slow calls %llu; the most frequent (never emitted / memory / target or operand):",
        (unsigned long long)sum);
    /* The next smaller one, twenty times; equal ones by their place. */
    for (unsigned top = 0; top < TOP; top++) {
        unsigned best = FORMS;
        for (unsigned n = 0; n < FORMS; n++) {
            uint64_t v = form_sum(&j->forms->form[n]);
            if (!v || v > before || (v == before && n <= last))
                continue;
            if (best == FORMS || v > form_sum(&j->forms->form[best]))
                best = n;
        }
        if (best == FORMS)
            return;
        const struct form *f = &j->forms->form[best];
        char name[80];
        form_name(f, name, sizeof name);
        before = form_sum(f);
        last = best;
        say(r, "    %11llu  %4.1f %%  %-28s %llu / %llu / %llu", (unsigned long long)before,
            100.0 * (double)before / (double)sum, name, (unsigned long long)f->count[SLOW_ALWAYS],
            (unsigned long long)f->count[SLOW_MEMORY], (unsigned long long)f->count[SLOW_OTHER]);
    }
}

static double ratio(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 0;
}

#define N(v) ((unsigned long long)(v))

void jit_report(struct x86_vcpu *c, x86_report_line *line, void *ctx)
{
    static const char *const leaves[JIT_LEAVES] = {
        [LEAVE_EVENT] = "an event waits",       [LEAVE_STORE] = "code was stored to",
        [LEAVE_NO_UNIT] = "no unit there yet",  [LEAVE_FETCH] = "page not in the ITLB",
        [LEAVE_ODD] = "mode for the interpreter", [LEAVE_BUDGET] = "budget",
        [LEAVE_TARGET] = "target outside code", [LEAVE_WANTED] = "instruction wants the loop",
        [LEAVE_CHANGED] = "unit was not what is in memory"};
    static const char *const tries[JIT_TRIES] = {
        [TRY_COLD] = "cold",          [TRY_CROSSING] = "across two pages",
        [TRY_UNCACHED] = "not in RAM", [TRY_ODD] = "mode for the interpreter",
        [TRY_BUDGET] = "budget",      [TRY_FAILED] = "not translated"};
    struct jit *j = jit_of(c);
    const struct marks *marks = interp_marks(c);
    const struct jit_stats *s = &j->stats;
    struct report r = {line, ctx};
    uint64_t interpreted = 0, left = 0, lookups;
    double ns_per_tick = 1e9 / (double)host_tsc_hz();

    say(&r, "  translated: %llu units, %llu instructions, %llu bytes; %.0f ns an instruction (%.3f s)",
        N(s->units), N(s->guest_insns), N(s->guest_bytes),
        ratio(s->translate_ticks, s->guest_insns) * ns_per_tick,
        (double)s->translate_ticks * ns_per_tick / 1e9);
    say(&r, "  host bytes per guest byte %.1f, and %.1f of stubs; metadata per host byte %.2f",
        ratio(s->host_bytes, s->guest_bytes), ratio(s->cold_bytes, s->guest_bytes),
        ratio(jit_arena_used(j), s->host_bytes + s->cold_bytes));
    say(&r, "  memory accesses %llu, lookups %llu (%.2f an access)", N(s->accesses), N(s->lookups),
        ratio(s->lookups, s->accesses));
    say(&r, "  code cache %llu KiB of %llu; metadata %llu KiB of %llu; flushes %llu",
        N(jit_code_used(j) / KiB), N(j->code.bytes / KiB), N(jit_arena_used(j) / KiB),
        N(j->arena_bytes / KiB), N(s->flushes));
    say(&r, "  regions evicted %llu with %llu units (%.3f s)", N(s->evictions), N(s->evicted),
        (double)s->evict_ticks * ns_per_tick / 1e9);
    say(&r, "  units killed %llu by %llu invalidations (%.3f s); links made %llu, unmade %llu",
        N(s->killed), N(s->invalidations), (double)s->invalidate_ticks * ns_per_tick / 1e9,
        N(s->links), N(s->unlinks));
    say(&r, "  lines that change %llu; units that check themselves %llu, found stale %llu; "
            "instructions decoded again %llu",
        N(s->changing_lines), N(s->checked_units), N(s->stale_units), N(s->redecoded));
    say(&r, "  stores beside code %llu; jump caches emptied %llu times", N(s->stores_beside),
        N(s->jumps_drops));
    if (c->vm->vcpu_count > 1)
        say(&r, "  marks taken back, of lines that hold code no more: %llu, with all others stopped "
                "%llu times", N(marks->taken_back), N(marks->tried));
    say(&r, "  units run %llu; indirect jumps that hit %llu, that asked %llu (%.2f %%)",
        N(s->units_run), N(s->indirect_hits), N(s->dispatches),
        100 * ratio(s->dispatches, s->dispatches + s->indirect_hits));
    lookups = s->l0_lookups + s->tlb_lookups;
    say(&r, "  lookups run in L0 %llu, in the TLB %llu; %.2f %% hit there, %.3f %% walk the tables",
        N(s->l0_lookups), N(s->tlb_lookups), 100 - 100 * ratio(s->l0_misses, lookups),
        100 * ratio(s->refills, lookups));
    say(&r, "  misses %llu, walks %llu; L0 emptied %llu; false hits %llu", N(s->l0_misses),
        N(s->refills), N(s->l0_drops), N(s->false_hits));
    say(&r, "  trials of units %llu: %llu places for L0, %llu for the TLB, and %llu later; "
            "other slots %llu times",
        N(s->trials), N(s->local_sites), N(s->other_sites), N(s->tlb_sites), N(s->slot_moves));
    for (unsigned n = 0; n < JIT_LEAVES; n++)
        left += s->leave[n];
    say(&r, "  entered host code %llu; left it by a fault %llu, and because:", N(s->entered),
        N(s->entered > left ? s->entered - left : 0));
    for (unsigned n = 0; n < JIT_LEAVES; n++)
        if (s->leave[n])
            say(&r, "    %11llu  %s", N(s->leave[n]), leaves[n]);
    for (unsigned n = 0; n < JIT_TRIES; n++)
        interpreted += s->try_insns[n];
    say(&r, "  interpreted about %llu instructions, in blocks that are:", N(interpreted));
    for (unsigned n = 0; n < JIT_TRIES; n++)
        if (s->try_blocks[n])
            say(&r, "    %11llu  %s (%llu instructions)", N(s->try_blocks[n]), tries[n],
                N(s->try_insns[n]));
    say(&r, "  interpreter's cache: %llu blocks decoded, %llu invalidated, %llu flushes",
        N(interp_stats(c)->blocks), N(interp_stats(c)->invalidated), N(interp_stats(c)->flushes));
    if (j->forms)
        say_slow(&r, j);
}
