/*
 * Units: the table, links between them, and forgetting.
 *
 * Units die when their bytes change: links into them go back to their stubs,
 * and the jump caches forget them. A unit that runs may die and run on, because
 * its code stays what it is until its region is evicted (evict.c).
 */
#include <string.h>

#include "cpu/x86/vec/vec.h"
#include "engine/interp/cache.h"
#include "engine/jit/emit.h"
#include "engine/jit/jit.h"

#define LINE_BYTES 64

/* ---- keys ---- */

static bool is_flat(const struct x86_vcpu *c)
{
    static const uint8_t segments[] = {X86_ES, X86_CS, X86_SS, X86_DS};

    if ((c->mode & (MODE_SIZE | MODE_REAL)) != MODE_32 || c->sp_mask != 0xffffffff ||
        c->code_span != 0xffffffff)
        return false;
    for (unsigned n = 0; n < ARRAY_SIZE(segments); n++) {
        unsigned s = segments[n];
        if (c->seg_base[s] || c->seg_read_last[s] != 0xffffffff ||
            (s != X86_CS && c->seg_write_last[s] != 0xffffffff))
            return false;
    }
    return true;
}

uint32_t jit_key(const struct x86_vcpu *c)
{
    uint32_t key = c->mode | (uint32_t)c->gate_blocked << KEY_GATE_SHIFT |
                   (uint32_t)c->tlb_class << KEY_CLASS_SHIFT;

    if (is_flat(c))
        key |= KEY_FLAT;
    if (jit_of(c)->is_counting)
        key |= KEY_COUNT;
    if (unlikely(vec_may_raise(c)))
        key |= KEY_UNMASKED;
    if (unlikely(vec_x87_may_raise(c)))
        key |= KEY_X87_UNMASKED;
    return key;
}

bool jit_allowed(const struct x86_vcpu *c)
{
    uint64_t rip, first;

    /* Alignment checks and data breakpoints close the fast way of all. */
    if (c->seg_read_last[X86_SS] == INT64_MIN)
        return false;
    if ((c->mode & MODE_SIZE) == MODE_64)
        return true;
    /* The whole page has to be within CS. */
    rip = c->s.reg[X86_RIP];
    first = rip - ((rip + c->seg_base[X86_CS]) & ~PAGE_MASK);
    return first <= rip && first + PAGE_SIZE - 1 <= c->code_span;
}

/* ---- tables ---- */

static unsigned unit_hash(const uint8_t *host, uint32_t key)
{
    uint64_t page = ((uint64_t)host >> 12 ^ (uint64_t)key << 32) * 0x9e3779b97f4a7c15ull;

    /* Neighbours in code are neighbours in the table: they are looked for together. */
    return (unsigned)(page >> 40 << 7 | ((uint64_t)host >> 5 & 0x7f)) % JIT_UNIT_HASH;
}

static unsigned page_hash(const uint8_t *page)
{
    return (unsigned)((uint64_t)page * 0x9e3779b97f4a7c15ull >> 40) % JIT_PAGE_HASH;
}

static const uint8_t *page_of(const uint8_t *host)
{
    return (const uint8_t *)((uint64_t)host & PAGE_MASK);
}

static struct jit_page *find_page(struct jit *j, const uint8_t *page)
{
    struct jit_page *p = j->pages[page_hash(page)];

    while (p && p->host != page)
        p = p->next;
    return p;
}

struct jit_unit *jit_find(struct jit *j, const uint8_t *host, uint32_t key)
{
    struct jit_unit *u = j->hash[unit_hash(host, key)];

    while (u && (u->host != host || u->key != key))
        u = u->hash_next;
    return u;
}

struct jit_unit *jit_find_covering(struct jit *j, const uint8_t *host, uint32_t key)
{
    struct jit_unit *u = jit_find(j, host, key);
    struct jit_page *p = find_page(j, page_of(host));

    if (u || !p)
        return u;
    for (u = p->units; u; u = u->page_next)
        if (u->key == key && host >= u->host && host < u->host + u->bytes)
            break;
    return u;
}

void jit_insert(struct jit *j, struct jit_unit *u)
{
    struct jit_unit **bucket = &j->hash[unit_hash(u->host, u->key)];
    const uint8_t *page = page_of(u->host);
    struct jit_page *p = find_page(j, page);

    u->hash_next = *bucket;
    *bucket = u;
    if (!p) {
        struct jit_page **at = &j->pages[page_hash(page)];
        p = jit_page_alloc(j);
        *p = (struct jit_page){.host = page, .next = *at};
        *at = p;
    }
    u->page_next = p->units;
    p->units = u;
    u->region_next = j->region[j->current_region].units;
    j->region[j->current_region].units = u;
}

/* ---- links ---- */

static void patch(struct jit *j, uint32_t rel32, uint32_t target)
{
    struct emit e = {.base = j->code.write};

    emit_patch(&e, rel32, target);
}

static void put32(struct jit *j, uint32_t at, uint32_t v)
{
    memcpy(j->code.write + at, &v, 4);
}

void jit_guard_set(struct jit *j, struct jit_link *l, uint64_t page_rip, bool is_global)
{
    unsigned which = !is_global;

    put32(j, l->guard_disp,
          (uint32_t)(JIT_AREA + offsetof(struct jit, generation) + 4 * which));
    put32(j, l->guard, j->generation[which]);
    put32(j, l->guard_rip, (uint32_t)page_rip);
    if (l->from->key & MODE_64)
        put32(j, l->guard_rip + 4, (uint32_t)(page_rip >> 32));
}

void jit_link_to(struct x86_vcpu *c, struct jit_link *l, struct jit_unit *to, uint64_t page_rip,
                 bool is_global)
{
    struct jit *j = jit_of(c);
    uint32_t entry = l->kind & LINK_FLAGS_HOST ? to->entry_flags : to->entry;

    if ((l->kind & LINK_FLAGS_LAZY) && to->needs_flags) {
        patch(j, l->fix_jump, to->entry);
        entry = l->fix;
    }

    if (l->kind & LINK_CROSS)
        jit_guard_set(j, l, page_rip, is_global);
    if (l->to == to)
        return;
    if (l->to) {
        struct jit_link **at = &l->to->incoming;
        while (*at != l)
            at = &(*at)->next;
        *at = l->next;
    }
    l->to = to;
    l->next = to->incoming;
    to->incoming = l;
    patch(j, l->jump, entry);
    j->stats.links++;
}

static void unlink_one(struct jit *j, struct jit_link *l)
{
    if (l->kind & LINK_CROSS)
        put32(j, l->guard, 0); /* before the page RIP moves */
    patch(j, l->jump, l->stub);
    l->to = NULL;
    j->stats.unlinks++;
}

static void unhash(struct jit *j, struct jit_unit *u)
{
    struct jit_unit **at = &j->hash[unit_hash(u->host, u->key)];

    while (*at != u)
        at = &(*at)->hash_next;
    *at = u->hash_next;
}

/* Nothing leads to it any more. */
static void forget_unit(struct jit_unit *u)
{
    if (u->block && u->block->unit == u)
        u->block->unit = NULL;
    u->incoming = NULL;
    u->host = NULL;
}

static void free_if_empty(struct jit *j, struct jit_page *p)
{
    struct jit_page **at = &j->pages[page_hash(p->host)];

    if (p->units)
        return;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    jit_page_free(j, p);
}

static void unlist(struct jit *j, struct jit_unit *u)
{
    struct jit_page *p = find_page(j, page_of(u->host));
    struct jit_unit **at = &p->units;

    while (*at != u)
        at = &(*at)->page_next;
    *at = u->page_next;
    free_if_empty(j, p);
}

static void kill_unit(struct jit *j, struct jit_unit *u)
{
    unhash(j, u);
    for (struct jit_link *l = u->incoming, *next; l; l = next) {
        next = l->next;
        unlink_one(j, l);
    }
    for (unsigned n = 0; n < u->link_count; n++) {
        struct jit_link *l = &u->links[n], **in;
        if (!l->to)
            continue;
        for (in = &l->to->incoming; *in != l;)
            in = &(*in)->next;
        *in = l->next;
        l->to = NULL;
    }
    jit_jumps_remove(j, u);
    forget_unit(u);
    j->stats.killed++;
}

void jit_kill(struct jit *j, struct jit_unit *u)
{
    unlist(j, u);
    kill_unit(j, u);
}

/* Of the links that lead there, those that stay. */
static void keep_staying(struct jit_unit *u)
{
    struct jit_link **at = &u->incoming, *l;

    while ((l = *at)) {
        if (l->from->is_leaving) {
            *at = l->next;
            l->to = NULL;
        } else {
            at = &l->next;
        }
    }
}

void jit_take_out(struct jit *j, struct jit_unit *u)
{
    unhash(j, u);
    unlist(j, u);
    for (struct jit_link *l = u->incoming, *next; l; l = next) {
        next = l->next;
        if (l->from->is_leaving)
            l->to = NULL;
        else
            unlink_one(j, l);
    }
    for (unsigned n = 0; n < u->link_count; n++) {
        if (u->links[n].to && !u->links[n].to->is_leaving)
            keep_staying(u->links[n].to);
    }
    forget_unit(u);
}

/* ---- forgetting ---- */

static void l0_clear_entry(struct jit_l0 *e)
{
    e->read = e->write = JIT_L0_NONE;
}

/* What is global stays: other address spaces have it, too, and the same there. */
static void l0_clear_local(struct jit *j, unsigned class)
{
    for (unsigned n = 0; n < JIT_L0_SLOTS; n++) {
        if (j->l0_kind[class][n] & L0_LOCAL)
            l0_clear_entry(&j->l0[class][n]);
    }
    j->l0_used[class] &= (uint8_t)~L0_LOCAL;
}

void jit_l0_clear(struct jit *j, bool global_too)
{
    j->l0_clears++;
    for (unsigned k = 0; k < TLB_CLASSES; k++) {
        if (!(j->l0_used[k] & (global_too ? L0_ANY : L0_LOCAL)))
            continue;
        j->stats.l0_drops++;
        if (!global_too) {
            l0_clear_local(j, k);
            continue;
        }
        for (unsigned n = 0; n < JIT_L0_SLOTS; n++)
            l0_clear_entry(&j->l0[k][n]);
        j->l0_used[k] = 0;
    }
}

void jit_l0_clear_page(struct jit *j, gva_t page)
{
    j->l0_clears++;
    for (unsigned k = 0; k < TLB_CLASSES; k++) {
        for (unsigned n = 0; j->l0_used[k] && n < JIT_L0_SLOTS; n++) {
            struct jit_l0 *e = &j->l0[k][n];
            bool large = j->l0_kind[k][n] & TLBE_LARGE;
            /* The largest pages are of 1 GiB. */
            if (!((e->read ^ page) >> (large ? 30 : 12)))
                l0_clear_entry(e);
        }
    }
}

/* Of the bytes [start, end) of a page. */
static uint64_t lines_of(uint64_t start, uint64_t end)
{
    return BITS((end - 1) / LINE_BYTES, start / LINE_BYTES);
}

static bool invalidate_page(struct jit *j, const uint8_t *page, uint64_t start, uint64_t end)
{
    struct jit_page *p = find_page(j, page);
    struct jit_unit **at;
    bool any = false;

    if (!p)
        return false;
    for (at = &p->units; *at;) {
        struct jit_unit *u = *at;
        uint64_t first = (uint64_t)(u->host - page);
        if (first >= end || first + u->bytes <= start ||
            !(lines_of(MAX(first, start), MIN(first + u->bytes, end)) & ~u->checked_lines)) {
            at = &u->page_next;
            continue;
        }
        *at = u->page_next;
        jit_forget_sites(j, u);
        kill_unit(j, u);
        any = true;
    }
    free_if_empty(j, p);
    return any;
}

bool jit_invalidate(struct x86_vcpu *c, struct ram_block *block, uint64_t offset, uint64_t bytes)
{
    struct jit *j = jit_of(c);
    uint64_t began = host_tsc(), end;
    bool any = false;

    j->stats.invalidations++;
    if (!block) {
        jit_flush(c);
        return true;
    }
    end = MIN(offset + bytes, block->bytes);
    for (uint64_t at = offset, stop; at < end; at = stop) {
        uint64_t page = align_down(at, PAGE_SIZE);
        stop = MIN(end, page + PAGE_SIZE);
        any |= invalidate_page(j, block->host + page, at - page, stop - page);
    }
    j->stats.invalidate_ticks += host_tsc() - began;
    return any;
}

void jit_forget_blocks(struct x86_vcpu *c)
{
    struct jit *j = jit_of(c);

    for (unsigned n = 0; n < JIT_PAGE_HASH; n++) {
        for (struct jit_page *p = j->pages[n]; p; p = p->next) {
            for (struct jit_unit *u = p->units; u; u = u->page_next) {
                if (u->block && u->block->unit == u)
                    u->block->unit = NULL;
                u->block = NULL;
            }
        }
    }
}

void jit_flush(struct x86_vcpu *c)
{
    struct jit *j = jit_of(c);

    jit_forget_blocks(c);
    memset(j->hash, 0, sizeof j->hash);
    memset(j->pages, 0, sizeof j->pages);
    jit_jumps_forget_all(c);
    jit_regions_reset(j);
    j->stats.flushes++;
}

uint64_t jit_page_lines(struct x86_vcpu *c, struct ram_block *block, uint64_t page_offset,
                        const struct told_code *told)
{
    const uint8_t *page = block->host + page_offset;
    struct jit_page *p = find_page(jit_of(c), page);
    uint64_t lines = 0;

    if (!p)
        return 0;
    for (const struct jit_unit *u = p->units; u; u = u->page_next) {
        uint64_t first = (uint64_t)(u->host - page);
        if (!is_told(told, block, page_offset + first, u->bytes))
            lines |= lines_of(first, first + u->bytes) & ~u->checked_lines;
    }
    return lines;
}
