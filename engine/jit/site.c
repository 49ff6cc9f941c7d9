/*
 * Which way accesses go, by place in the code.
 *
 * Most look into the TLB, which costs a little more than a hit in L0 and far less
 * than a miss: programs follow pointers, and L0 is small. L0 is for the stack, for
 * constants, and for small loops, where some accesses stay in a page for hundreds
 * of times: there it puts nothing on the way of the address. Which these are shows
 * in a trial: the unit of a loop is translated with accesses that look into the
 * TLB and count how often they go to another page than the last time. When one of
 * them has been through so often, the unit is made anew with what was learned. So
 * have units that are no loop a trial if events, the guest's timer's most of all,
 * find them running again and again. A place that has a good part of all misses of L0,
 * and many of them in a short time, gets another slot, and is moved to the TLB if that
 * does not help.
 *
 * Sets and counters go by a hash of the guest code's address: somebody else's
 * place costs time and nothing else.
 */
#include <string.h>

#include "engine/jit/jit.h"

/* A change of page in so many uses is still a place for L0. A miss costs ten times
 * what is saved by a hit, and there are others. */
#define USES_PER_CHANGE 64
#define HOT_SAMPLES 2
/* So often a place that misses gets another slot, then it is moved to the TLB. */
#define SLOT_MOVES 2
/* In a trial: a loop is long from so many turns on, of JIT_TRIAL_SHIFT's uses. */
#define LONG_TURNS ((1u << JIT_TRIAL_SHIFT) / 16 * 15)

unsigned jit_site_hash(const uint8_t *guest_code)
{
    return (unsigned)((uint64_t)guest_code * 0x9e3779b97f4a7c15ull >> 40) % JIT_SITES;
}

bool jit_is_noted(const uint64_t *sites, const uint8_t *guest_code)
{
    unsigned h = jit_site_hash(guest_code);

    return sites[h / 64] >> h % 64 & 1;
}

void jit_note(uint64_t *sites, const uint8_t *guest_code)
{
    unsigned h = jit_site_hash(guest_code);

    sites[h / 64] |= 1ull << h % 64;
}

static void forget(uint64_t *sites, const uint8_t *guest_code)
{
    unsigned h = jit_site_hash(guest_code);

    sites[h / 64] &= ~(1ull << h % 64);
}

void jit_forget_sites(struct jit *j, const struct jit_unit *u)
{
    forget(j->tried_units, u->host);
    forget(j->hot_units, u->host);
    forget(j->long_units, u->host);
    j->slot_moves[jit_site_hash(u->host)] = 0;
    for (unsigned n = 0; n < u->count; n++) {
        const uint8_t *at = jit_guest_code(u, &u->insn[n]);
        forget(j->l0_sites, at);
        forget(j->tlb_sites, at);
        forget(j->single_sites, at);
    }
}

struct jit_unit *jit_unit_of(const struct x86_insn *i)
{
    const struct x86_insn *first = i - i->number;

    return (struct jit_unit *)((char *)(uintptr_t)first - offsetof(struct jit_unit, insn));
}

static void make_anew(struct jit *j, struct jit_unit *u)
{
    if (u->block)
        u->block->heat = (uint16_t)j->threshold;
    jit_kill(j, u);
}

void jit_sample(struct jit *j, struct jit_unit *u)
{
    if (!u->host || ++u->samples != HOT_SAMPLES || jit_is_noted(j->tried_units, u->host) ||
        jit_is_noted(j->hot_units, u->host))
        return;
    jit_note(j->hot_units, u->host);
    make_anew(j, u);
}

void jit_trial_over(struct jit *j, const struct x86_insn *i)
{
    struct jit_unit *u = jit_unit_of(i);
    struct jit_site *first;

    if (!u->host)
        return; /* it has ended before, or its code has changed */
    for (unsigned n = 0; n < u->count; n++) {
        const uint8_t *at = jit_guest_code(u, &u->insn[n]);
        struct jit_site *s = &j->site[jit_site_hash(at)];
        uint32_t uses = &u->insn[n] == i ? 1u << JIT_TRIAL_SHIFT : s->uses / JIT_TRIAL_STEP;
        if (!uses)
            continue;
        if (s->changes <= uses / USES_PER_CHANGE) {
            jit_note(j->l0_sites, at);
            j->stats.local_sites++;
        } else {
            j->stats.other_sites++;
        }
        s->page = s->changes = s->uses = 0;
    }
    first = &j->site[jit_site_hash(u->host)];
    if (first->turns >= LONG_TURNS)
        jit_note(j->long_units, u->host);
    *first = (struct jit_site){0};
    jit_note(j->tried_units, u->host);
    j->stats.trials++;
    make_anew(j, u);
}

void jit_streams_failed(struct jit *j, const struct x86_insn *i)
{
    struct jit_unit *u = jit_unit_of(i);

    if (!u->host)
        return;
    forget(j->long_units, u->host);
    make_anew(j, u);
}

void jit_many_misses(struct x86_vcpu *c, uint64_t host_code)
{
    struct jit *j = jit_of(c);
    unsigned counter = host_code >> 2 & (JIT_MISS_COUNTERS - 1);
    const struct x86_insn *i;
    uint64_t now = host_thread_ns();
    uint32_t argument, reference;
    struct jit_unit *u;
    uint8_t *moves;

    /* The window is over, or they came so slowly that most accesses are hits: what
     * empties L0 makes every place miss now and then. */
    if (j->misses[counter] < JIT_MISS_MANY ||
        now - j->misses_began > JIT_MISS_MANY * JIT_MISS_NS) {
        memset(j->misses, 0, sizeof j->misses);
        j->misses_left = JIT_MISS_WINDOW;
        j->misses_began = now;
        return;
    }
    j->misses[counter] = 0;
    memcpy(&argument, (const uint8_t *)(uintptr_t)host_code, 4);
    memcpy(&reference, (const uint8_t *)(uintptr_t)host_code + 4, 4);
    i = (const struct x86_insn *)(j->arena + (uint64_t)reference * 8);
    u = jit_unit_of(i);
    if (!u->host || argument & JIT_MISS_OF_TLB || jit_is_noted(j->tlb_sites, jit_guest_code(u, i)))
        return;
    /* It may be another unit's entry that it takes, and gets taken. */
    moves = &j->slot_moves[jit_site_hash(u->host)];
    if (*moves < SLOT_MOVES) {
        ++*moves;
        j->stats.slot_moves++;
    } else {
        jit_note(j->tlb_sites, jit_guest_code(u, i));
        j->stats.tlb_sites++;
    }
    make_anew(j, u);
}
