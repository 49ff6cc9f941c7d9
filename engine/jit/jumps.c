/*
 * Jump caches: where indirect jumps lead, by RIP.
 *
 * An entry's index is salted. Another address space has another salt, so the
 * same RIP is never at the same place for two of them; to forget all entries is
 * to take a salt that was not used yet. Only when all have been is the table
 * emptied. Each class of rights has a table and salts of its own.
 */
#include "engine/jit/jit.h"

#define SALT_END (JIT_JUMPS << 1) /* salts are even: index and salt start at bit 1 */

static struct jit_jump *slot(struct jit *j, unsigned class, uint64_t rip, uint32_t salt)
{
    return &j->jumps[class][(rip ^ salt) >> 1 & (JIT_JUMPS - 1)];
}

static void make_empty(struct jit_jump *at)
{
    *at = (struct jit_jump){.rip = JIT_NO_RIP, .host = (uint64_t)(uintptr_t)jit_no_jump};
}

static void empty(struct jit *j, unsigned class)
{
    for (unsigned n = 0; n < JIT_JUMPS; n++)
        make_empty(&j->jumps[class][n]);
    j->stats.jumps_drops++;
}

/* A salt under which nothing is found. */
static uint32_t fresh(struct jit *j, unsigned class)
{
    if (j->next_salt[class] >= SALT_END) {
        empty(j, class);
        j->next_salt[class] = 0;
        for (unsigned n = 0; class == TLB_USER && n < TLB_PCID_SLOTS; n++) {
            j->slot_salt[n] = j->next_salt[class];
            j->next_salt[class] += 2;
        }
    }
    j->next_salt[class] += 2;
    return j->next_salt[class] - 2;
}

void jit_jumps_init(struct jit *j)
{
    for (unsigned k = 0; k < TLB_CLASSES; k++) {
        j->next_salt[k] = SALT_END;
        j->jump_salt[k] = fresh(j, k);
    }
    j->slot_salt[0] = j->jump_salt[TLB_USER];
}

void jit_jumps_forget(struct x86_vcpu *c, unsigned class)
{
    struct jit *j = jit_of(c);

    j->jump_salt[class] = fresh(j, class);
    if (class == TLB_USER)
        j->slot_salt[c->mmu->current] = j->jump_salt[class];
    j->jumps_local[class] = false;
}

void jit_jumps_switch(struct x86_vcpu *c)
{
    struct jit *j = jit_of(c);

    j->jump_salt[TLB_USER] = j->slot_salt[c->mmu->current];
    for (unsigned k = TLB_USER + 1; k < TLB_CLASSES; k++) {
        if (j->jumps_local[k])
            jit_jumps_forget(c, k);
    }
}

void jit_jumps_use(struct x86_vcpu *c, uint32_t key)
{
    struct jit *j = jit_of(c);
    unsigned class = key >> KEY_CLASS_SHIFT & 3;

    if (likely(j->jumps_key[class] == key))
        return;
    j->jumps_key[class] = key;
    for (unsigned n = 0; class == TLB_USER && n < TLB_PCID_SLOTS; n++)
        j->slot_salt[n] = fresh(j, class);
    jit_jumps_forget(c, class);
    /* STAC and CLAC lead from one to the other without asking. */
    if (class != TLB_USER)
        jit_jumps_use(c, key ^ (TLB_SUPERVISOR ^ TLB_SUPERVISOR_AC) << KEY_CLASS_SHIFT);
}

void jit_jumps_add(struct x86_vcpu *c, uint64_t rip, const struct jit_unit *u, bool is_global)
{
    struct jit *j = jit_of(c);
    unsigned class = c->tlb_class;

    j->jumps_local[class] |= !is_global;
    *slot(j, class, rip, j->jump_salt[class]) = (struct jit_jump){
        .rip = rip, .host = (uint64_t)(uintptr_t)jit_exec(j, u->entry)};
}

uint64_t jit_jumps_find(struct x86_vcpu *c, uint64_t rip, uint32_t key)
{
    struct jit *j = jit_of(c);
    unsigned class = c->tlb_class;
    const struct jit_jump *e = slot(j, class, rip, j->jump_salt[class]);

    return j->jumps_key[class] == key && e->rip == rip && rip != JIT_NO_RIP ? e->host : 0;
}

/* An index is made of a RIP's bits 1..15: of those only four depend on where
 * the page is mapped. */
_Static_assert(JIT_JUMPS == 1 << 15, "indexed by bits 1..15");

static void remove_entry(struct jit *j, unsigned class, const struct jit_unit *u, uint32_t salt)
{
    uint64_t entry = (uint64_t)(uintptr_t)jit_exec(j, u->entry);
    uint64_t offset = (uint64_t)u->host & ~PAGE_MASK;

    for (uint64_t page = 0; page < 16; page++) {
        struct jit_jump *at = slot(j, class, offset | page << 12, salt);
        if (at->host == entry)
            make_empty(at);
    }
}

void jit_jumps_remove(struct jit *j, const struct jit_unit *u)
{
    for (unsigned n = 0; n < TLB_PCID_SLOTS; n++)
        remove_entry(j, TLB_USER, u, j->slot_salt[n]);
    for (unsigned k = TLB_USER + 1; k < TLB_CLASSES; k++)
        remove_entry(j, k, u, j->jump_salt[k]);
}

void jit_jumps_remove_range(struct jit *j, size_t from, size_t to)
{
    uint64_t first = (uint64_t)(uintptr_t)j->code.exec + from;

    for (unsigned k = 0; k < TLB_CLASSES; k++) {
        for (unsigned n = 0; n < JIT_JUMPS; n++) {
            if (j->jumps[k][n].host - first < to - from)
                make_empty(&j->jumps[k][n]);
        }
    }
}

void jit_jumps_forget_all(struct x86_vcpu *c)
{
    struct jit *j = jit_of(c);

    for (unsigned k = 0; k < TLB_CLASSES; k++) {
        j->next_salt[k] = SALT_END;
        j->jump_salt[k] = fresh(j, k);
        j->jumps_local[k] = false;
    }
    j->slot_salt[c->mmu->current] = j->jump_salt[TLB_USER];
}
