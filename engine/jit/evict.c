/*
 * Memory for units, and who makes room for new ones.
 *
 * Code memory and the arena are divided into regions. One is filled at a time;
 * when it is full the next one is, and what was there is evicted: the oldest
 * units go, an eighth of all, and the others stay. Nothing that runs has to know:
 * links into the region go back to their stubs, the jump caches forget what is
 * there, and a unit that is wanted again is translated again. A guest that makes
 * code without end pays for its own translations and little more.
 *
 * A region's end is where the largest unit no longer fits; so regions of a small
 * cache are fewer, not smaller.
 *
 * Pages are shared by units of all regions, and are handed out and taken back
 * one by one.
 *
 * Threading: the processor's own thread, outside host code.
 */
#include "engine/jit/jit.h"

/* More than a unit needs, of hot code, of stubs, and of the arena. */
#define UNIT_ROOM (64 * KiB)
#define MIN_REGION_BYTES (512 * KiB) /* of code */

/* Each page has a unit, and that needs two instructions and two links. */
_Static_assert(sizeof(struct jit_unit) + 2 * sizeof(struct x86_insn) +
                       2 * sizeof(struct jit_link) >= 8 * sizeof(struct jit_page),
               "an eighth of the arena is enough for pages");

static size_t part(size_t bytes, unsigned regions)
{
    return align_down(bytes / regions, PAGE_SIZE);
}

static size_t hot_bytes(const struct jit *j)
{
    return part(j->code.bytes * 3 / 8, j->regions);
}

static size_t cold_bytes(const struct jit *j)
{
    return part(j->code.bytes, j->regions) - hot_bytes(j);
}

static size_t arena_bytes(const struct jit *j)
{
    return part(j->arena_bytes - j->pages_bytes, j->regions);
}

/* Region n is empty, and is filled from now on. */
static void begin(struct jit *j, unsigned n)
{
    j->current_region = n;
    j->region[n] = (struct jit_region){0};
    j->hot_used = n * hot_bytes(j);
    j->hot_end = j->hot_used + hot_bytes(j);
    j->cold_used = j->regions * hot_bytes(j) + n * cold_bytes(j);
    j->cold_end = j->cold_used + cold_bytes(j);
    j->arena_used = j->pages_bytes + n * arena_bytes(j);
    j->arena_end = j->arena_used + arena_bytes(j);
}

void jit_regions_init(struct jit *j)
{
    j->regions = (unsigned)MAX(MIN(j->code.bytes / MIN_REGION_BYTES, (size_t)JIT_REGIONS), 2);
    jit_regions_reset(j);
}

void jit_regions_reset(struct jit *j)
{
    for (unsigned n = 0; n < j->regions; n++)
        j->region[n] = (struct jit_region){0};
    j->free_pages = NULL;
    j->pages_used = 0;
    begin(j, 0);
}

static size_t code_used(const struct jit *j)
{
    return j->hot_used + hot_bytes(j) - j->hot_end + j->cold_used + cold_bytes(j) - j->cold_end;
}

static size_t arena_used(const struct jit *j)
{
    return j->arena_used + arena_bytes(j) - j->arena_end;
}

static void evict(struct jit *j, unsigned n)
{
    uint64_t began = host_tsc();

    if (!j->region[n].units)
        return;
    for (struct jit_unit *u = j->region[n].units; u; u = u->region_next)
        u->is_leaving = true;
    for (struct jit_unit *u = j->region[n].units; u; u = u->region_next) {
        if (!u->host)
            continue;
        jit_take_out(j, u);
        j->stats.evicted++;
    }
    jit_jumps_remove_range(j, n * hot_bytes(j), (n + 1) * hot_bytes(j));
    j->stats.evictions++;
    j->stats.evict_ticks += host_tsc() - began;
}

void jit_make_room(struct x86_vcpu *c)
{
    struct jit *j = jit_of(c);
    unsigned next = (j->current_region + 1) % j->regions;

    if (likely(j->hot_used + UNIT_ROOM <= j->hot_end && j->cold_used + UNIT_ROOM <= j->cold_end &&
               j->arena_used + UNIT_ROOM <= j->arena_end))
        return;
    j->region[j->current_region].code_used = code_used(j);
    j->region[j->current_region].arena_used = arena_used(j);
    evict(j, next);
    begin(j, next);
}

void *jit_arena_alloc(struct jit *j, size_t bytes)
{
    void *p = j->arena + j->arena_used;

    j->arena_used += align_up(bytes, 16);
    return p;
}

struct jit_page *jit_page_alloc(struct jit *j)
{
    struct jit_page *p = j->free_pages;

    if (p) {
        j->free_pages = p->next;
        return p;
    }
    p = (struct jit_page *)(j->arena + j->pages_used);
    j->pages_used += sizeof *p;
    return p;
}

void jit_page_free(struct jit *j, struct jit_page *p)
{
    p->next = j->free_pages;
    j->free_pages = p;
}

size_t jit_code_used(const struct jit *j)
{
    size_t sum = code_used(j);

    for (unsigned n = 0; n < j->regions; n++)
        sum += n == j->current_region ? 0 : j->region[n].code_used;
    return sum;
}

size_t jit_arena_used(const struct jit *j)
{
    size_t sum = arena_used(j);

    for (unsigned n = 0; n < j->regions; n++)
        sum += n == j->current_region ? 0 : j->region[n].arena_used;
    return sum;
}
