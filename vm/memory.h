/*
 * Guest-physical memory and I/O ports: RAM blocks, regions, address spaces.
 *
 * A ram_block is host memory that a guest can see: RAM, ROM, flash, video
 * memory. A region places something at an address: a part of a ram_block, or
 * callbacks. An address_space (memory, or I/O ports) holds regions that may
 * overlap; the higher priority wins, and its flattened view is a sorted table
 * that is replaced as a whole and read without a lock.
 *
 * Threading: regions change under the machine's lock only. Callbacks of
 * regions are called with the machine's lock held. as_* accessors may be
 * called from a vCPU thread (they take the lock where a callback is reached)
 * and from any thread that holds the lock.
 */
#ifndef VM_MEMORY_H
#define VM_MEMORY_H

#include <stdatomic.h>

#include "base/base.h"
#include "base/error.h"

struct vm;

/* ---- RAM blocks ---- */

enum ram_kind {
    RAM_NORMAL, /* guest may write */
    RAM_ROM,    /* guest writes are dropped; the host may write */
};

/* Does everybody who stores to a page look at its code_lines afterwards? */
enum code_settled {
    CODE_UNSETTLED, /* perhaps not: who marks lines has to wait for all others */
    CODE_SETTLING,  /* who looks here now does; somebody waits for the others */
    CODE_SETTLED,
};

struct ram_block {
    struct vm *vm;
    const char *name;
    uint8_t *host;  /* page-aligned, bytes long */
    uint64_t bytes; /* multiple of 4 KiB */
    enum ram_kind kind;
    unsigned id; /* order of creation: the stable name in saved state */
    /*
     * One word a 4 KiB page, one bit a 64-byte line: some engine has cached
     * code made from that line. Set atomically before the bytes are read
     * (see engine/), so every writer must look here after it has written.
     */
    _Atomic uint64_t *code_lines;
    /* One byte a page: enum code_settled. */
    _Atomic uint8_t *code_settled;
    /* One byte a page: it may have been written since ram_log_take. NULL until
     * ram_log_start. */
    _Atomic(_Atomic uint8_t *) written;
    struct ram_block *next;
};

/* Name must be a literal. Owned by the vm; freed with it. */
struct ram_block *ram_block_create(struct vm *vm, const char *name, uint64_t bytes,
                                   enum ram_kind kind, struct error *err);

/* Tells every processor that bytes of a block have changed by other means
 * than its own stores (DMA, loading): cached code of the range goes. Called
 * by as_write and by whoever writes through a host pointer. */
void ram_block_written(struct ram_block *block, uint64_t offset, uint64_t bytes);

/* Is there cached code in that range? For a writer within one page, after it has
 * written: who makes code of the range later sees the new bytes. */
bool ram_block_has_code(const struct ram_block *block, uint64_t offset, uint64_t bytes);

/*
 * Which pages are written. Whoever shows a block's bytes (a display) starts the
 * log once and then takes what has been written since the last time: pages of
 * ceil(bytes / 4 KiB) bytes, not 0 where it was. False: no page was, which
 * costs a look at the log and nothing on any processor. Bytes that are read
 * afterwards are at least as new as the log says.
 *
 * A processor's translation lets it store to a page of such a block only after
 * the page is in the log; taking a page out of it takes back these rights. So
 * not in deterministic machines (start: -ENOTSUP): when rights are taken back
 * there is a matter of the host's time. -ENOMEM. Take: on the I/O thread, or
 * while no vCPU runs, with the machine's lock.
 */
int ram_log_start(struct ram_block *block);
bool ram_log_take(struct ram_block *block, uint8_t *pages);
/* For those who store on behalf of a guest, before they do. */
static inline void ram_log_note(struct ram_block *block, uint64_t offset)
{
    _Atomic uint8_t *written = atomic_load_explicit(&block->written, memory_order_relaxed);

    if (unlikely(written))
        atomic_store_explicit(&written[offset >> 12], 1, memory_order_relaxed);
}
/* May a translation for reading allow stores too? */
static inline bool ram_log_allows_stores(const struct ram_block *block, uint64_t offset)
{
    _Atomic uint8_t *written = atomic_load_explicit(&block->written, memory_order_relaxed);

    return likely(!written) ||
           atomic_load_explicit(&written[offset >> 12], memory_order_relaxed);
}

/* ---- regions ---- */

/*
 * offset is relative to the region's base. size is 1, 2, 4 or 8 and within
 * [min_size, max_size]; the bus splits and widens accesses so that callbacks
 * see only that, and offset is a multiple of size. Reads return the value in
 * the low size bytes. Where an access is widened to min_size, a read is cut
 * from the wider one, and a write has zeroes in the bytes it did not carry: a
 * region whose registers are written in parts has a min_size of 1.
 */
struct region_ops {
    uint64_t (*read)(void *ctx, uint64_t offset, unsigned size);
    void (*write)(void *ctx, uint64_t offset, uint64_t value, unsigned size);
    uint8_t min_size; /* 0 means 1 */
    uint8_t max_size; /* 0 means 4 */
};

struct region {
    const char *name;
    uint64_t base; /* in its address space */
    uint64_t size; /* bytes; UINT64_MAX is not allowed */
    int priority;  /* higher hides lower; RAM 0, devices usually 1, PAM 2 */
    /* Either callbacks ... */
    const struct region_ops *ops;
    void *ctx;
    /* ... or memory: */
    struct ram_block *ram;
    uint64_t ram_offset;
    bool readonly; /* memory: guest writes go to ops->write if given, else are dropped */
    /* Owned by the address space: */
    struct address_space *as;
    bool enabled;
    struct region *next;
    unsigned sequence;             /* of equal priorities the last added hides the others */
    const struct region *original; /* in the copies that views hold: whose copy it is */
};

/* One piece of a flattened view. region is the view's own copy, which does not
 * change while the view is read; region->original tells whose copy. */
struct flat_range {
    uint64_t base;
    uint64_t last; /* inclusive */
    const struct region *region;
    uint64_t offset; /* of base within the region */
};

struct flat_view {
    size_t count;
    struct flat_view *next_retired;
    uint64_t retired_at; /* generation, see memory.c */
    size_t capacity;     /* ranges there is room for */
    size_t copies_capacity;
    struct region *copies; /* behind the ranges */
    struct flat_range range[];
};

/* Told about each change, removals before additions, with the lock held. */
struct view_listener {
    void (*removed)(void *ctx, const struct flat_range *range);
    void (*added)(void *ctx, const struct flat_range *range);
    void *ctx;
    struct view_listener *next;
};

struct address_space {
    struct vm *vm;
    const char *name;
    bool is_memory; /* changes flush the processors' translations */
    struct region *regions;
    struct view_listener *listeners;
    _Atomic(struct flat_view *) view;
    unsigned batch_depth;
    bool batch_dirty;
    unsigned region_count, next_sequence;
    struct flat_view *spare; /* the next view's memory, so that a change cannot fail */
};

void address_space_init(struct address_space *as, struct vm *vm, const char *name, bool is_memory);
void address_space_destroy(struct address_space *as);

/* Adds a region, enabled. The struct stays the caller's and must outlive its
 * stay; -EINVAL where it wraps or is empty, is no multiple of min_size, or is
 * memory not in whole pages of its block; -ENOMEM. */
int region_add(struct address_space *as, struct region *r);
void region_remove(struct region *r);
/* Any of them may change at once; the view is rebuilt once. */
void region_move(struct region *r, uint64_t base);
void region_enable(struct region *r, bool enabled);
/* Memory regions: redirect to another part of a block, change readonly. */
void region_retarget(struct region *r, struct ram_block *ram, uint64_t ram_offset, bool readonly);
/* Several changes as one: nothing is visible until the outermost commit. */
void address_space_begin(struct address_space *as);
void address_space_commit(struct address_space *as);

void address_space_listen(struct address_space *as, struct view_listener *l);

/* The range that holds addr, or NULL where nobody answers. The result lives
 * to the caller's next safepoint (vCPU; an as_* call that reaches a device is
 * one) or until it releases the lock or changes a region. Host pointers into
 * blocks outlive it: blocks stay as long as the machine. */
const struct flat_range *address_space_find(struct address_space *as, uint64_t addr);

/* ---- access by address ---- */

/*
 * One bus access of 1..8 bytes; what nobody claims reads as all ones and
 * swallows writes. Takes the machine's lock for callbacks unless the caller
 * has it (a vCPU inside a callback, the I/O thread): the lock is recursive in
 * that sense. Returns false if nobody claimed (part of) it.
 */
bool as_load(struct address_space *as, uint64_t addr, unsigned size, uint64_t *value);
bool as_store(struct address_space *as, uint64_t addr, unsigned size, uint64_t value);

/* DMA: any length, RAM and devices alike, wrapping never; 0, or -EFAULT when
 * part of it is nobody's (that part reads as ones). Tells ram_block_written. */
int as_read(struct address_space *as, uint64_t addr, void *buf, uint64_t bytes);
int as_write(struct address_space *as, uint64_t addr, const void *buf, uint64_t bytes);

/* A host pointer to the longest run of plain RAM at addr, at most *bytes
 * (which is lowered to what is contiguous); NULL if addr is not RAM, or is
 * read-only and write is wanted. Lives as address_space_find's result; after
 * writing call ram_block_written. */
void *as_map(struct address_space *as, uint64_t addr, uint64_t *bytes, bool write,
             struct ram_block **block, uint64_t *offset);

#endif
