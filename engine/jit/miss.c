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

static struct jit_unit *unit_at(struct jit *j, uint32_t code)
{
    for (unsigned n = 0; n < JIT_UNIT_HASH; n++) {
        for (struct jit_unit *u = j->hash[n]; u; u = u->hash_next) {
            if (code - (u->entry_flags & ~15u) < u->code_bytes)
                return u;
        }
    }
    return NULL;
}

void jit_many_misses(struct x86_vcpu *c, uint64_t host_code)
{
    struct jit *j = jit_of(c);
    unsigned counter = host_code >> 2 & (JIT_MISS_COUNTERS - 1);
    const uint8_t *exec = (const uint8_t *)(uintptr_t)host_code;
    struct jit_unit *u;
    const struct x86_insn *i;
    uint32_t argument;
    unsigned h;

    if (j->misses[counter] < JIT_MISS_MANY) { /* the window is over */
        memset(j->misses, 0, sizeof j->misses);
        j->misses_left = JIT_MISS_WINDOW;
        return;
    }
    j->misses[counter] = 0;
    u = unit_at(j, (uint32_t)(exec - j->code.exec));
    if (!u)
        return;
    memcpy(&argument, exec, 4);
    i = &u->insn[argument >> JIT_MISS_INSN_SHIFT];
    h = site_hash(u->host + i->offset - u->insn[0].offset);
    j->tlb_sites[h / 64] |= 1ull << h % 64;
    j->stats.tlb_sites++;
    if (u->block)
        u->block->heat = (uint16_t)j->threshold;
    jit_kill(j, u);
}
