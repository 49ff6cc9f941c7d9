/*
 * Access by address: single bus cycles, DMA. Interface: the last part of
 * vm/memory.h; mapping is in map.c.
 *
 * RAM is reached without a lock. A callback is reached with the machine's
 * lock, and the range is looked up again under it: while this thread waited
 * for the lock the region may have been moved or its device be gone.
 *
 * Guest RAM is written by several threads at once, as real memory is: aligned
 * accesses of 1, 2, 4 and 8 bytes are one host instruction, so they are as
 * atomic as on the host, whose memory order is the guest's. The functions that
 * touch it are hidden from the thread sanitizer for that reason.
 */
#include <assert.h>
#include <errno.h>

#include "vm/internal.h"

#define GUEST_RAM __attribute__((no_sanitize("thread"), noinline))

typedef uint16_t __attribute__((aligned(1), may_alias)) any16;
typedef uint32_t __attribute__((aligned(1), may_alias)) any32;
typedef uint64_t __attribute__((aligned(1), may_alias)) any64;

GUEST_RAM static uint64_t ram_get(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;

    switch (size) {
    case 1:
        return *(const volatile uint8_t *)p;
    case 2:
        return *(const volatile any16 *)p;
    case 4:
        return *(const volatile any32 *)p;
    case 8:
        return *(const volatile any64 *)p;
    default:
        for (unsigned i = 0; i < size; i++)
            v |= (uint64_t)((const volatile uint8_t *)p)[i] << (8 * i);
        return v;
    }
}

GUEST_RAM static void ram_put(uint8_t *p, uint64_t v, unsigned size)
{
    switch (size) {
    case 1:
        *(volatile uint8_t *)p = (uint8_t)v;
        break;
    case 2:
        *(volatile any16 *)p = (uint16_t)v;
        break;
    case 4:
        *(volatile any32 *)p = (uint32_t)v;
        break;
    case 8:
        *(volatile any64 *)p = v;
        break;
    default:
        for (unsigned i = 0; i < size; i++)
            ((volatile uint8_t *)p)[i] = (uint8_t)(v >> (8 * i));
        break;
    }
}

/* Between guest RAM and a buffer. One instruction that no sanitizer looks
 * into; what fits one access is one access (indices of rings). */
static void ram_copy(void *to, const void *from, uint64_t bytes)
{
    if (bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8) {
        ram_put(to, ram_get(from, (unsigned)bytes), (unsigned)bytes);
        return;
    }
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static void range_written(const struct flat_range *r, uint64_t addr, uint64_t bytes)
{
    ram_block_written(r->region->ram, r->region->ram_offset + r->offset + (addr - r->base), bytes);
}

/* ---- callbacks ---- */

/* One callback's worth of an access to a range without memory (or, written,
 * with read-only memory): offset and size as the device takes them, and where
 * in that the bytes lie that are meant. */
struct piece {
    uint64_t offset;
    unsigned size;  /* of the callback's access */
    unsigned skip;  /* bytes before those that are meant */
    unsigned bytes; /* that are meant */
};

static struct piece next_piece(const struct flat_range *r, uint64_t addr, unsigned size)
{
    const struct region_ops *ops = r->region->ops;
    unsigned min = ops->min_size ? ops->min_size : 1;
    unsigned max = ops->max_size ? ops->max_size : 4;
    struct piece p = {.offset = r->offset + (addr - r->base)};

    if (size - 1 > r->last - addr)
        size = (unsigned)(r->last - addr) + 1;
    p.size = MAX(min, max);
    while (p.size > min && (p.size > size || p.offset % p.size))
        p.size /= 2;
    p.skip = (unsigned)(p.offset % p.size); /* not 0 only where widened to min */
    p.offset -= p.skip;
    p.bytes = MIN(p.size - p.skip, size);
    return p;
}

static uint64_t byte_mask(unsigned bytes)
{
    return zext(~0ull, bytes);
}

/* With the lock: any mixture of memory, devices and nothing. */
static bool load_slow(struct address_space *as, uint64_t addr, unsigned size, uint64_t *value)
{
    bool claimed = true;

    *value = 0;
    for (unsigned done = 0; done < size;) {
        uint64_t at = addr + done, v = 0xff;
        /* Beyond the last address there is nothing, not address 0. */
        const struct flat_range *r = at >= addr ? address_space_find(as, at) : NULL;
        unsigned n = 1;

        if (!r) {
            claimed = false;
        } else if (r->region->ram) {
            v = ram_get(range_host(r, at), 1);
        } else {
            struct piece p = next_piece(r, at, size - done);

            n = p.bytes;
            v = r->region->ops->read
                    ? r->region->ops->read(r->region->ctx, p.offset, p.size) >> (8 * p.skip)
                    : ~0ull;
            v &= byte_mask(n);
        }
        *value |= v << (8 * done);
        done += n;
    }
    return claimed;
}

static bool store_slow(struct address_space *as, uint64_t addr, unsigned size, uint64_t value)
{
    bool claimed = true;

    for (unsigned done = 0; done < size;) {
        uint64_t at = addr + done, v = value >> (8 * done);
        const struct flat_range *r = at >= addr ? address_space_find(as, at) : NULL;
        unsigned n = 1;

        if (!r) {
            claimed = false;
        } else if (range_is_writable(r)) {
            ram_put(range_host(r, at), v & 0xff, 1);
            range_written(r, at, 1);
        } else if (r->region->ops) {
            struct piece p = next_piece(r, at, size - done);

            n = p.bytes;
            if (r->region->ops->write)
                r->region->ops->write(r->region->ctx, p.offset, (v & byte_mask(n)) << (8 * p.skip),
                                      p.size);
        }
        done += n;
    }
    return claimed;
}

bool as_load(struct address_space *as, uint64_t addr, unsigned size, uint64_t *value)
{
    const struct flat_range *r = address_space_find(as, addr);
    bool claimed;

    assert(size >= 1 && size <= 8);
    if (likely(r && r->region->ram && size - 1 <= r->last - addr)) {
        *value = ram_get(range_host(r, addr), size);
        return true;
    }
    vm_lock(as->vm);
    claimed = load_slow(as, addr, size, value);
    vm_unlock(as->vm);
    return claimed;
}

bool as_store(struct address_space *as, uint64_t addr, unsigned size, uint64_t value)
{
    const struct flat_range *r = address_space_find(as, addr);
    bool claimed;

    assert(size >= 1 && size <= 8);
    if (likely(r && range_is_writable(r) && size - 1 <= r->last - addr)) {
        ram_put(range_host(r, addr), value, size);
        range_written(r, addr, size);
        return true;
    }
    vm_lock(as->vm);
    claimed = store_slow(as, addr, size, value);
    vm_unlock(as->vm);
    return claimed;
}

/* ---- DMA ---- */

/* The largest naturally aligned bus cycle at addr within bytes. */
static unsigned cycle(uint64_t addr, uint64_t bytes)
{
    unsigned n = 8;

    while (n > bytes || addr % n)
        n /= 2;
    return n;
}

int as_read(struct address_space *as, uint64_t addr, void *buf, uint64_t bytes)
{
    uint8_t *to = buf;
    int code = 0;

    while (bytes) {
        const struct flat_range *r = address_space_find(as, addr);
        uint64_t n, value;

        if (r && r->region->ram) {
            n = MIN(bytes - 1, r->last - addr) + 1;
            ram_copy(to, range_host(r, addr), n);
        } else {
            n = cycle(addr, bytes);
            if (!as_load(as, addr, (unsigned)n, &value))
                code = -EFAULT;
            le_put(to, value, (unsigned)n);
        }
        to += n;
        bytes -= n;
        if (bytes && addr > UINT64_MAX - n) { /* no more addresses */
            memset(to, 0xff, bytes);
            return -EFAULT;
        }
        addr += n;
    }
    return code;
}

int as_write(struct address_space *as, uint64_t addr, const void *buf, uint64_t bytes)
{
    const uint8_t *from = buf;
    int code = 0;

    while (bytes) {
        const struct flat_range *r = address_space_find(as, addr);
        uint64_t n;

        if (r && range_is_writable(r)) {
            n = MIN(bytes - 1, r->last - addr) + 1;
            ram_copy(range_host(r, addr), from, n);
            range_written(r, addr, n);
        } else {
            n = cycle(addr, bytes);
            if (!as_store(as, addr, (unsigned)n, le_get(from, (unsigned)n)))
                code = -EFAULT;
        }
        from += n;
        bytes -= n;
        if (bytes && addr > UINT64_MAX - n)
            return -EFAULT;
        addr += n;
    }
    return code;
}
