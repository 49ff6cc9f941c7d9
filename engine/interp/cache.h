/*
 * The interpreter's cache of decoded code: blocks, found by the host address
 * of their first byte (which stands for RAM block and offset) and the mode.
 *
 * One cache a processor, used by its thread only. Protocol with those who
 * write code: docs/DESIGN.md, "Code that changes".
 */
#ifndef ENGINE_INTERP_CACHE_H
#define ENGINE_INTERP_CACHE_H

#include "cpu/x86/decode.h"
#include "cpu/x86/mmu_internal.h"

#define BLOCK_MAX_INSNS 64
#define JUMP_CACHE_SIZE 8192

struct x86_block {
    const uint8_t *host; /* NULL: dead, its code has changed */
    uint32_t mode;       /* enum x86_mode */
    uint16_t count;      /* instructions */
    uint16_t bytes;
    uint16_t looked; /* bytes that it was made from: more, where the last is undefined */
    bool cached; /* false: for one use only.. */
    bool is_unmarked; /* ..because its code changes all the time */
    struct x86_block *link[2]; /* successors by enum x86_next, within its page */
    struct x86_block *hash_next;
    /* An instruction that crosses into a second page is a block of its own,
     * valid only while that page follows: where the second page was. */
    const uint8_t *second_host;
    struct x86_block *page_next[2]; /* in the lists of first and second page */
    struct jit_unit *unit; /* host code that starts here, or NULL */
    uint16_t heat;         /* how often it ran without */
    struct x86_insn insn[];         /* count, and one more that ends the block */
};

struct interp;

int cache_create(struct x86_vcpu *c, struct error *err);
void cache_destroy(struct x86_vcpu *c);

/* The block at linear address lin, from the cache or decoded now. Raises what
 * the fetch raises, with c->cur at the block's start. May flush the cache:
 * no block pointer may be held. NULL: the code changed meanwhile or another
 * processor had to be waited for; handle events, then ask again. */
struct x86_block *cache_find(struct x86_vcpu *c, gva_t lin, uint32_t mode);

/* Forgets blocks made of those bytes; block NULL: all. True if the block that
 * is running was among them. */
bool cache_invalidate(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                      uint64_t bytes);

/* Code that is stale, though it has not gone yet. */
struct told_code {
    struct vcpu_code_range range[VCPU_CODE_RANGES];
    unsigned count;
};
static inline bool is_told(const struct told_code *t, const struct ram_block *block,
                           uint64_t offset, uint64_t bytes)
{
    for (unsigned n = 0; t && n < t->count; n++) {
        const struct vcpu_code_range *r = &t->range[n];
        if (r->block == block && offset < r->offset + r->bytes && r->offset < offset + bytes)
            return true;
    }
    return false;
}

/* Lines of a page that blocks and units were made from, as in ram_block.code_lines,
 * but for those in `told`; NULL: all. Also of another processor, while it is
 * outside and cannot come in. */
uint64_t cache_page_lines(struct x86_vcpu *c, struct ram_block *block, uint64_t page_offset,
                          const struct told_code *told);

#endif
