/*
 * Decoded blocks: lookup, decoding, invalidation. See cache.h.
 *
 * Memory for blocks comes from an arena with a bound; when it is full,
 * everything is forgotten at once. Dead blocks stay in the arena until then,
 * marked, so that links to them can be noticed and never dangle.
 */
#include "engine/interp/cache.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "cpu/x86/fault.h"
#include "cpu/x86/vec/vec.h"
#include "engine/interp/interp.h"
#include "engine/interp/marks.h"
#include "engine/jit/jit.h"

#define ARENA_BYTES (24 * MiB)
#define HASH_SIZE 131072
#define PAGE_HASH_SIZE 4096

/* A guest page that holds code of ours. */
struct code_page {
    const uint8_t *host;
    struct ram_block *block;
    uint64_t offset;
    struct x86_block *blocks; /* linked by page_next[] */
    struct code_page *next;
};

struct interp {
    struct x86_block *jump[JUMP_CACHE_SIZE];
    struct x86_block *hash[HASH_SIZE];
    struct code_page *pages[PAGE_HASH_SIZE];
    uint8_t *arena;
    size_t used;
    struct interp_stats stats;
    struct marks marks;
    /* For code that is not in memory, and one that ends in a fault: used at
     * once and never cached. */
    struct x86_block *scratch;
};

static struct interp *interp_of(struct x86_vcpu *c)
{
    return c->engine;
}

int cache_create(struct x86_vcpu *c, struct error *err)
{
    struct interp *in = host_pages_alloc(align_up(sizeof *in, PAGE_SIZE), false);

    if (!in)
        goto no_memory;
    c->engine = in;
    in->arena = host_pages_alloc(ARENA_BYTES, false);
    in->scratch = calloc(1, sizeof *in->scratch + 2 * sizeof(struct x86_insn));
    if (!in->arena || !in->scratch)
        goto no_memory;
    return 0;
no_memory:
    cache_destroy(c);
    return error_set(err, -12, "out of memory for the interpreter's code cache");
}

void cache_destroy(struct x86_vcpu *c)
{
    struct interp *in = interp_of(c);

    if (!in)
        return;
    if (in->arena)
        host_pages_free(in->arena, ARENA_BYTES);
    free(in->scratch);
    host_pages_free(in, align_up(sizeof *in, PAGE_SIZE));
    c->engine = NULL;
}

struct interp_stats *interp_stats(struct x86_vcpu *c)
{
    return &interp_of(c)->stats;
}

struct marks *interp_marks(struct x86_vcpu *c)
{
    return &interp_of(c)->marks;
}

static void *arena_alloc(struct interp *in, size_t bytes)
{
    void *p = in->arena + in->used;

    in->used += align_up(bytes, 16);
    return p;
}

/* ---- lookup tables ---- */

/* Neighbours in code are neighbours in the table: they are looked for together. */
static unsigned host_hash(const uint8_t *host, uint32_t mode)
{
    uint64_t page = ((uint64_t)host >> 12 ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;

    return (unsigned)(page >> 40 << 8 | ((uint64_t)host >> 4 & 0xff));
}

static unsigned page_hash(const uint8_t *page)
{
    return (unsigned)((uint64_t)page * 0x9e3779b97f4a7c15ull >> 40) % PAGE_HASH_SIZE;
}

static const uint8_t *page_of(const uint8_t *host)
{
    return (const uint8_t *)((uint64_t)host & PAGE_MASK);
}

static struct code_page *find_page(struct interp *in, const uint8_t *page)
{
    struct code_page *p = in->pages[page_hash(page)];

    while (p && p->host != page)
        p = p->next;
    return p;
}

static void list_block(struct interp *in, struct x86_block *b, unsigned which,
                       struct ram_block *ram, uint64_t page_offset)
{
    const uint8_t *page = ram->host + page_offset;
    struct code_page *p = find_page(in, page);

    if (!p) {
        struct code_page **bucket = &in->pages[page_hash(page)];
        p = arena_alloc(in, sizeof *p);
        *p = (struct code_page){.host = page, .block = ram, .offset = page_offset,
                                .next = *bucket};
        *bucket = p;
    }
    b->page_next[which] = p->blocks;
    p->blocks = b;
}

static unsigned which_page(const struct x86_block *b, const uint8_t *page)
{
    return page_of(b->host) == page ? 0 : 1;
}

/* ---- forgetting ---- */

uint64_t cache_page_lines(struct x86_vcpu *c, struct ram_block *block, uint64_t page_offset,
                          const struct told_code *told)
{
    const uint8_t *page = block->host + page_offset;
    const struct code_page *p = find_page(interp_of(c), page);
    uint64_t lines = 0;

    for (const struct x86_block *b = p ? p->blocks : NULL; b; b = b->page_next[which_page(b, page)]) {
        uint64_t start = (uint64_t)(b->host - page), bytes = b->looked;
        if (which_page(b, page) == 1) {
            bytes = b->looked - (PAGE_SIZE - ((uint64_t)b->host & ~PAGE_MASK));
            start = 0;
        } else {
            bytes = MIN(bytes, PAGE_SIZE - start);
        }
        if (!is_told(told, block, page_offset + start, bytes))
            lines |= marks_bits(start, bytes);
    }
    if (c->has_jit)
        lines |= jit_page_lines(c, block, page_offset, told);
    return lines;
}

static void forget_everything(struct x86_vcpu *c)
{
    struct interp *in = interp_of(c);
    bool forget_thunks;

    vec_leave(c);
    forget_thunks = vec_needs_flush(c);
    /* Units hold on to thunks, and can do without blocks. */
    if (c->has_jit && forget_thunks)
        jit_flush(c);
    else if (c->has_jit)
        jit_forget_blocks(c);

    for (unsigned n = 0; n < PAGE_HASH_SIZE; n++) {
        for (struct code_page *p = in->pages[n]; p; p = p->next) {
            p->blocks = NULL;
            marks_code_gone(c, p->block, p->offset);
        }
    }
    memset(in->jump, 0, sizeof in->jump);
    memset(in->hash, 0, sizeof in->hash);
    memset(in->pages, 0, sizeof in->pages);
    in->used = 0;
    in->stats.flushes++;
    if (forget_thunks)
        vec_flush(c);
}

static void kill_block(struct interp *in, struct x86_block *b)
{
    unsigned h = host_hash(b->host, b->mode);
    struct x86_block **at = &in->hash[h % HASH_SIZE];

    while (*at && *at != b)
        at = &(*at)->hash_next;
    if (*at)
        *at = b->hash_next;
    if (in->jump[h % JUMP_CACHE_SIZE] == b)
        in->jump[h % JUMP_CACHE_SIZE] = NULL;
    in->stats.invalidated++;
}

static void unlist(struct interp *in, struct x86_block *b, const uint8_t *page)
{
    struct code_page *p = find_page(in, page);
    struct x86_block **at;

    if (!p)
        return;
    for (at = &p->blocks; *at; at = &(*at)->page_next[which_page(*at, page)]) {
        if (*at == b) {
            *at = b->page_next[which_page(b, page)];
            return;
        }
    }
}

/* Kills the blocks of one page that overlap [start, end) of it. */
static bool invalidate_page(struct x86_vcpu *c, struct ram_block *block, uint64_t page_offset,
                            uint64_t start, uint64_t end)
{
    const uint8_t *page = block->host + page_offset;
    struct interp *in = interp_of(c);
    struct code_page *p = find_page(in, page);
    bool running = false, any = false;
    struct x86_block *b, *next;

    for (b = p ? p->blocks : NULL; b; b = next) {
        unsigned which = which_page(b, page);
        uint64_t at = which ? 0 : (uint64_t)(b->host - page);
        uint64_t last = which ? b->looked - (PAGE_SIZE - ((uint64_t)b->host & ~PAGE_MASK))
                              : at + b->looked;
        next = b->page_next[which];
        if (at >= end || last <= start)
            continue;
        kill_block(in, b);
        if (b->second_host)
            unlist(in, b, which ? page_of(b->host) : b->second_host);
        unlist(in, b, page);
        running = running || b == c->block;
        b->host = NULL;
        any = true;
    }
    if (any || c->vm->vcpu_count == 1)
        marks_code_gone(c, block, page_offset);
    return running;
}

bool cache_invalidate(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                      uint64_t bytes)
{
    bool running = false;
    uint64_t at = offset, end;

    if (!block) {
        /* At a safepoint: nothing runs, so everything may go. */
        forget_everything(c);
        return c->block != NULL;
    }
    end = MIN(offset + bytes, block->bytes);
    while (at < end) {
        uint64_t page = align_down(at, PAGE_SIZE), stop = MIN(end, page + PAGE_SIZE);
        running |= invalidate_page(c, block, page, at - page, stop - page);
        at = stop;
    }
    return running;
}

/* ---- decoding ---- */

static enum x86_next end_of_block(struct x86_vcpu *c, const struct x86_insn *i)
{
    c->cur = i - 1;
    c->s.reg[X86_RIP] = (c->s.reg[X86_RIP] + i->offset) & c->ip_mask;
    return NEXT_LINK0;
}

static void terminate(struct x86_block *b)
{
    b->insn[b->count] =
        (struct x86_insn){.fn = end_of_block, .offset = b->bytes, .number = b->count};
}

static enum x86_next raise_too_long(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    x86_raise_gp(c, 0);
}

/*
 * Decodes from a copy of the page's rest into the arena. Stops at a control
 * transfer, at the limit, or before an instruction that is not whole. Returns
 * the number of instructions: 0 if the first is not whole in `available`.
 */
static unsigned decode_run(struct x86_vcpu *c, struct x86_block *b, const uint8_t *bytes,
                           size_t available, uint32_t mode)
{
    unsigned limit = mode & MODE_SINGLE ? 1 : BLOCK_MAX_INSNS;

    b->count = 0;
    b->bytes = b->looked = 0;
    while (b->count < limit) {
        struct x86_insn *i = &b->insn[b->count];
        enum x86_decode_result result;

        i->offset = b->bytes;
        i->number = b->count;
        result = x86_decode_one(c, mode, bytes + b->bytes, available - b->bytes, i);
        switch (result) {
        case DECODE_MORE:
            return b->count;
        case DECODE_TOO_LONG:
            *i = (struct x86_insn){.fn = raise_too_long, .offset = b->bytes, .number = b->count,
                                   .length = 15, .flags = INSN_LAST};
            break;
        case DECODE_OK:
        case DECODE_UNDEFINED:
            break;
        }
        b->count++;
        b->bytes += i->length;
        b->looked = b->bytes;
        if (result == DECODE_UNDEFINED)
            b->looked = (uint16_t)(i->offset + i->imm);
        if (i->flags & INSN_LAST)
            break;
    }
    return b->count;
}

/* Bytes [lin, lin+n) fetched one page after the other; raises as a fetch. */
static void fetch_bytes(struct x86_vcpu *c, gva_t lin, uint8_t *buf, unsigned n)
{
    unsigned done = 0;

    while (done < n) {
        gva_t at = x86_64bit_mode(&c->s) ? lin + done : (uint32_t)(lin + done);
        const struct itlb_entry *e = x86_fetch_page(c, at);
        unsigned run = (unsigned)MIN((uint64_t)n - done, PAGE_SIZE - (at & ~PAGE_MASK));
        if (e->host) {
            memcpy(buf + done, e->host + (at & ~PAGE_MASK), run);
        } else {
            vec_leave(c);
            as_read(&c->vm->memory, e->gpa + (at & ~PAGE_MASK), buf + done, run);
        }
        done += run;
    }
}

/* An instruction that is not in plain memory, or lies in two pages of which
 * one is not: decoded afresh each time. */
static struct x86_block *uncached(struct x86_vcpu *c, gva_t lin, uint32_t mode)
{
    struct x86_block *b = interp_of(c)->scratch;
    uint8_t bytes[15];
    unsigned n;

    vec_leave(c); /* decoding is not compiled without vector registers */
    /* One more byte at a time, so that no byte is fetched that the
     * instruction does not have. */
    for (n = 1; n <= 15; n++) {
        fetch_bytes(c, lin, bytes, n);
        if (decode_run(c, b, bytes, n, mode | MODE_SINGLE))
            break;
    }
    b->mode = mode;
    b->host = (const uint8_t *)b; /* never NULL, never found */
    b->cached = b->is_unmarked = false;
    b->link[0] = b->link[1] = NULL;
    b->second_host = NULL;
    terminate(b);
    return b;
}

/* One instruction of a page, as it is now: nobody will tell when it changes. NULL:
 * not in one page. */
static struct x86_block *unmarked(struct x86_vcpu *c, gva_t lin, uint32_t mode,
                                  const uint8_t *host)
{
    struct x86_block *b = interp_of(c)->scratch;
    uint64_t available = MIN(PAGE_SIZE - (lin & ~PAGE_MASK), 15);
    uint8_t bytes[15];

    memcpy(bytes, host, available);
    if (!decode_run(c, b, bytes, available, mode | MODE_SINGLE))
        return NULL; /* it ends in the next page */
    b->mode = mode;
    b->host = host;
    b->cached = false;
    b->is_unmarked = true;
    b->link[0] = b->link[1] = NULL;
    b->second_host = NULL;
    terminate(b);
    return b;
}

static void insert(struct interp *in, struct x86_block *b)
{
    unsigned h = host_hash(b->host, b->mode);

    b->cached = true;
    b->hash_next = in->hash[h % HASH_SIZE];
    in->hash[h % HASH_SIZE] = b;
    in->jump[h % JUMP_CACHE_SIZE] = b;
    in->stats.blocks++;
    in->stats.decoded += b->count;
}

/* An instruction across two pages of memory. */
static struct x86_block *decode_crossing(struct x86_vcpu *c, gva_t lin, uint32_t mode,
                                         const struct itlb_entry *first)
{
    struct interp *in = interp_of(c);
    unsigned in_first = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
    gva_t second_lin = x86_64bit_mode(&c->s) ? lin + in_first : (uint32_t)(lin + in_first);
    const uint8_t *host = first->host + (lin & ~PAGE_MASK);
    struct ram_block *ram = first->block, *ram2;
    uint64_t offset = first->offset, offset2;
    const struct itlb_entry *second = x86_fetch_page(c, second_lin);
    struct x86_block *b;
    uint8_t bytes[15], again[15];

    if (!second->host)
        return uncached(c, lin, mode);
    ram2 = second->block;
    offset2 = second->offset;
    memcpy(bytes, host, in_first);
    memcpy(bytes + in_first, second->host, 15 - in_first);
    b = arena_alloc(in, sizeof *b + 2 * sizeof(struct x86_insn));
    *b = (struct x86_block){.mode = mode};
    decode_run(c, b, bytes, 15, mode | MODE_SINGLE);
    b->host = host;
    b->second_host = ram2->host + offset2;
    if (b->looked <= in_first) /* it fits after all: the page was cut short */
        b->second_host = NULL;
    else if (!marks_set(c, ram2, offset2, b->looked - in_first))
        return NULL;
    if (!marks_set(c, ram, offset + (lin & ~PAGE_MASK), MIN(in_first, b->looked)))
        return NULL;
    memcpy(again, host, in_first);
    memcpy(again + in_first, ram2->host + offset2, 15 - in_first);
    if (memcmp(bytes, again, b->looked) != 0)
        return NULL;
    terminate(b);
    insert(in, b);
    list_block(in, b, 0, ram, offset);
    if (b->second_host)
        list_block(in, b, 1, ram2, offset2);
    return b;
}

static struct x86_block *decode_block(struct x86_vcpu *c, gva_t lin, uint32_t mode,
                                      const struct itlb_entry *page)
{
    struct interp *in = interp_of(c);
    const uint8_t *host = page->host + (lin & ~PAGE_MASK);
    size_t available = MIN(PAGE_SIZE - (lin & ~PAGE_MASK), BLOCK_MAX_INSNS * 15);
    struct ram_block *ram = page->block;
    uint64_t page_offset = page->offset;
    uint8_t copy[BLOCK_MAX_INSNS * 15];
    struct x86_block *b;
    size_t used;

    memcpy(copy, host, available);
    used = in->used;
    b = arena_alloc(in, sizeof *b + (BLOCK_MAX_INSNS + 1) * sizeof(struct x86_insn));
    *b = (struct x86_block){.host = host, .mode = mode};
    if (decode_run(c, b, copy, available, mode) == 0) {
        in->used = used;
        return decode_crossing(c, lin, mode, page);
    }
    in->used = used;
    if (!marks_set(c, ram, page_offset + (lin & ~PAGE_MASK), b->looked))
        return NULL;
    if (memcmp(copy, host, b->looked) != 0)
        return NULL;
    arena_alloc(in, sizeof *b + (b->count + 1u) * sizeof(struct x86_insn));
    terminate(b);
    insert(in, b);
    list_block(in, b, 0, ram, page_offset);
    return b;
}

struct x86_block *cache_find(struct x86_vcpu *c, gva_t lin, uint32_t mode)
{
    struct interp *in = interp_of(c);
    const struct itlb_entry *page = x86_fetch_page(c, lin);
    const uint8_t *host = page->host + (lin & ~PAGE_MASK);
    struct x86_block *b;
    unsigned h;

    if (unlikely(!page->host))
        return uncached(c, lin, mode);
    h = host_hash(host, mode);
    b = in->jump[h % JUMP_CACHE_SIZE];
    if (unlikely(!b || b->host != host || b->mode != mode)) {
        for (b = in->hash[h % HASH_SIZE]; b; b = b->hash_next)
            if (b->host == host && b->mode == mode)
                break;
        if (b)
            in->jump[h % JUMP_CACHE_SIZE] = b;
    }
    if (likely(b)) {
        if (likely(!b->second_host))
            return b;
        gva_t second = lin + (PAGE_SIZE - (lin & ~PAGE_MASK));
        page = x86_fetch_page(c, x86_64bit_mode(&c->s) ? second : (uint32_t)second);
        if (page->host == b->second_host)
            return b;
        /* The pages now follow one another differently: decode again. */
        return uncached(c, lin, mode);
    }
    vec_leave(c); /* as in uncached() */
    if (in->used + 64 * KiB > ARENA_BYTES || vec_needs_flush(c)) {
        forget_everything(c);
        page = x86_fetch_page(c, lin);
    }
    host = page->host + (lin & ~PAGE_MASK);
    if (c->has_jit && jit_leaves_unmarked(jit_of(c), host)) {
        b = unmarked(c, lin, mode, host);
        if (b)
            return b;
    }
    return decode_block(c, lin, mode, page);
}
