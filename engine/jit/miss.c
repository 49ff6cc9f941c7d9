/*
 * Places in the code for which L0 is not the right thing: their addresses go
 * all over, so they look into the TLB at once, which costs more than a hit in
 * L0 and less than a miss.
 *
 * jit_miss counts by place; who has a good part of the misses of a window is
 * noted here by the address of its guest code, and its unit is made anew.
 */
#include <string.h>

#include "engine/jit/jit.h"

static unsigned site_hash(const uint8_t *guest_code)
{
    return (unsigned)((uint64_t)guest_code * 0x9e3779b97f4a7c15ull >> 40) % JIT_SITES;
}

bool jit_is_noted(const uint64_t *sites, const uint8_t *guest_code)
{
    unsigned h = site_hash(guest_code);

    return sites[h / 64] >> h % 64 & 1;
}

void jit_note(uint64_t *sites, const uint8_t *guest_code)
{
    unsigned h = site_hash(guest_code);

    sites[h / 64] |= 1ull << h % 64;
}

struct jit_unit *jit_unit_of(const struct x86_insn *i)
{
    const struct x86_insn *first = i - i->number;

    return (struct jit_unit *)((char *)(uintptr_t)first - offsetof(struct jit_unit, insn));
}

void jit_many_misses(struct x86_vcpu *c, uint64_t host_code)
{
    struct jit *j = jit_of(c);
    unsigned counter = host_code >> 2 & (JIT_MISS_COUNTERS - 1);
    const struct x86_insn *i;
    struct jit_unit *u;
    uint32_t reference;

    if (j->misses[counter] < JIT_MISS_MANY) { /* the window is over */
        memset(j->misses, 0, sizeof j->misses);
        j->misses_left = JIT_MISS_WINDOW;
        return;
    }
    j->misses[counter] = 0;
    memcpy(&reference, (const uint8_t *)(uintptr_t)host_code + 4, 4);
    i = (const struct x86_insn *)(j->arena + (uint64_t)reference * 8);
    u = jit_unit_of(i);
    if (!u->host || jit_is_noted(j->tlb_sites, jit_guest_code(u, i)))
        return;
    jit_note(j->tlb_sites, jit_guest_code(u, i));
    j->stats.tlb_sites++;
    if (u->block)
        u->block->heat = (uint16_t)j->threshold;
    jit_kill(j, u);
}
