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
    return (unsigned)((uint64_t)guest_code * 0x9e3779b97f4a7c15ull >> 40) % JIT_TLB_SITES;
}

bool jit_uses_tlb(const struct jit *j, const uint8_t *guest_code)
{
    unsigned h = site_hash(guest_code);

    return j->tlb_sites[h / 64] >> h % 64 & 1;
}

void jit_many_misses(struct x86_vcpu *c, uint64_t host_code)
{
    struct jit *j = jit_of(c);
    unsigned counter = host_code >> 2 & (JIT_MISS_COUNTERS - 1);
    const struct x86_insn *i;
    const uint8_t *guest_code;
    struct jit_unit *u;
    uint32_t reference;
    unsigned h;

    if (j->misses[counter] < JIT_MISS_MANY) { /* the window is over */
        memset(j->misses, 0, sizeof j->misses);
        j->misses_left = JIT_MISS_WINDOW;
        return;
    }
    j->misses[counter] = 0;
    memcpy(&reference, (const uint8_t *)(uintptr_t)host_code + 4, 4);
    i = (const struct x86_insn *)(j->arena + (uint64_t)reference * 8);
    u = (struct jit_unit *)((char *)(uintptr_t)(i - i->number) - offsetof(struct jit_unit, insn));
    if (!u->host)
        return;
    guest_code = u->host + i->offset - u->insn[0].offset;
    if (jit_uses_tlb(j, guest_code))
        return;
    h = site_hash(guest_code);
    j->tlb_sites[h / 64] |= 1ull << h % 64;
    j->stats.tlb_sites++;
    if (u->block)
        u->block->heat = (uint16_t)j->threshold;
    jit_kill(j, u);
}
