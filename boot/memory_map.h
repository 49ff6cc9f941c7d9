/*
 * The memory map that a machine tells its guest (ACPI specification, 15 "System
 * Address Map Interfaces"): what is RAM, what is not to be touched.
 *
 * The board fills it; fw_cfg, the zero page of Linux, PVH and Multiboot all
 * speak of the same ranges. Kept sorted and free of overlaps: what is added
 * later carves its place out of what was there.
 * Threading: a value of its owner.
 */
#ifndef BOOT_MEMORY_MAP_H
#define BOOT_MEMORY_MAP_H

#include "base/base.h"

#define MEMORY_MAP_MAX 32

enum memory_map_type {
    MEMORY_MAP_RAM = 1,
    MEMORY_MAP_RESERVED = 2,
    MEMORY_MAP_ACPI = 3, /* tables, RAM once they have been read */
    MEMORY_MAP_NVS = 4,
};

struct memory_map_range {
    uint64_t base;
    uint64_t bytes;
    uint32_t type; /* enum memory_map_type */
};

struct memory_map {
    struct memory_map_range range[MEMORY_MAP_MAX];
    unsigned count;
};

/* bytes == 0 adds nothing. Asserts that the table holds (the board's own
 * ranges are a handful). */
void memory_map_add(struct memory_map *m, uint64_t base, uint64_t bytes, uint32_t type);

/* Is all of [base, base+bytes) RAM? */
bool memory_map_is_ram(const struct memory_map *m, uint64_t base, uint64_t bytes);

/* The end of the run of RAM that holds base; base itself if it is no RAM. */
uint64_t memory_map_ram_end(const struct memory_map *m, uint64_t base);

/* The highest place for `bytes` of RAM, aligned (a power of two), that lies
 * within [lowest, highest]; false if there is none. */
bool memory_map_place_high(const struct memory_map *m, uint64_t bytes, uint64_t align,
                           uint64_t lowest, uint64_t highest, uint64_t *base);

#endif
