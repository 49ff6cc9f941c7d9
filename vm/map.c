/*
 * From an address to what is there, in the view that is published: ranges, and
 * host pointers to memory. Interface: vm/memory.h.
 *
 * Threading: vm/memory.h, at address_space_find.
 */
#include "vm/internal.h"

const struct flat_range *address_space_find(struct address_space *as, uint64_t addr)
{
    const struct flat_view *view = atomic_load(&as->view);
    size_t low = 0, high = view ? view->count : 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (view->range[middle].last < addr)
            low = middle + 1;
        else
            high = middle;
    }
    return view && low < view->count && view->range[low].base <= addr ? &view->range[low] : NULL;
}

void *as_map(struct address_space *as, uint64_t addr, uint64_t *bytes, bool write,
             struct ram_block **block, uint64_t *offset)
{
    const struct flat_range *r = address_space_find(as, addr);
    struct ram_block *ram;
    uint64_t start, length;
    uint8_t *host;

    if (!r || !r->region->ram || (write && !range_is_writable(r)) || !*bytes)
        return NULL;
    ram = r->region->ram;
    host = range_host(r, addr);
    start = (uint64_t)(host - ram->host);
    length = r->last - addr + 1; /* a range of memory is no longer than its block */
    /* Goes on while the next range is the next part of the same block. */
    while (length < *bytes && addr + length > addr) {
        r = address_space_find(as, addr + length);
        if (!r || r->region->ram != ram || (write && !range_is_writable(r)) ||
            range_host(r, addr + length) != host + length)
            break;
        length += r->last - (addr + length) + 1;
    }
    *bytes = MIN(*bytes, length);
    if (block)
        *block = ram;
    if (offset)
        *offset = start;
    return host;
}
