/*
 * The memory map as a sorted table without overlaps; see memory_map.h.
 */
#include "boot/memory_map.h"

#include <assert.h>

static void range_insert(struct memory_map *m, unsigned at, struct memory_map_range r)
{
    assert(m->count < MEMORY_MAP_MAX);
    memmove(&m->range[at + 1], &m->range[at], (m->count - at) * sizeof m->range[0]);
    m->range[at] = r;
    m->count++;
}

static void range_delete(struct memory_map *m, unsigned at)
{
    m->count--;
    memmove(&m->range[at], &m->range[at + 1], (m->count - at) * sizeof m->range[0]);
}

/* Takes [base, end) out of whatever is there. */
static void carve(struct memory_map *m, uint64_t base, uint64_t end)
{
    for (unsigned i = 0; i < m->count;) {
        struct memory_map_range *r = &m->range[i];
        uint64_t r_end = r->base + r->bytes;

        if (r_end <= base || r->base >= end) {
            i++;
        } else if (r->base < base && r_end > end) {
            struct memory_map_range tail = {end, r_end - end, r->type};

            r->bytes = base - r->base;
            range_insert(m, i + 1, tail);
            i += 2;
        } else if (r->base < base) {
            r->bytes = base - r->base;
            i++;
        } else if (r_end > end) {
            r->base = end;
            r->bytes = r_end - end;
            i++;
        } else {
            range_delete(m, i);
        }
    }
}

void memory_map_add(struct memory_map *m, uint64_t base, uint64_t bytes, uint32_t type)
{
    unsigned at = 0;

    if (!bytes)
        return;
    carve(m, base, base + bytes);
    while (at < m->count && m->range[at].base < base)
        at++;
    range_insert(m, at, (struct memory_map_range){base, bytes, type});
    /* Neighbours of one type are one range. */
    for (unsigned i = at ? at - 1 : 0; i + 1 < m->count && i <= at;) {
        struct memory_map_range *r = &m->range[i], *next = r + 1;

        if (r->type == next->type && r->base + r->bytes == next->base) {
            r->bytes += next->bytes;
            range_delete(m, i + 1);
        } else {
            i++;
        }
    }
}

uint64_t memory_map_ram_end(const struct memory_map *m, uint64_t base)
{
    /* Sorted, and neighbours of one type were joined. */
    for (unsigned i = 0; i < m->count; i++) {
        const struct memory_map_range *r = &m->range[i];

        if (r->type == MEMORY_MAP_RAM && base >= r->base && base - r->base < r->bytes)
            return r->base + r->bytes;
    }
    return base;
}

bool memory_map_is_ram(const struct memory_map *m, uint64_t base, uint64_t bytes)
{
    return bytes == 0 || memory_map_ram_end(m, base) - base >= bytes;
}

bool memory_map_place_high(const struct memory_map *m, uint64_t bytes, uint64_t align,
                           uint64_t lowest, uint64_t highest, uint64_t *base)
{
    for (unsigned i = m->count; i-- > 0;) {
        const struct memory_map_range *r = &m->range[i];
        uint64_t from, last, at;

        if (r->type != MEMORY_MAP_RAM)
            continue;
        from = MAX(r->base, lowest);
        last = MIN(r->base + r->bytes - 1, highest);
        if (last < from || last - from + 1 < bytes)
            continue;
        at = align_down(last + 1 - bytes, align);
        if (at < from)
            continue;
        *base = at;
        return true;
    }
    return false;
}
