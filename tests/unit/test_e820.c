/*
 * The memory map: sorted, without overlaps, joined; and placing things in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "boot/memory_map.h"

static void assert_range(const struct memory_map *m, unsigned n, uint64_t base, uint64_t bytes,
                         uint32_t type)
{
    assert_true(n < m->count);
    assert_int_equal(m->range[n].base, base);
    assert_int_equal(m->range[n].bytes, bytes);
    assert_int_equal(m->range[n].type, type);
}

static void later_ranges_carve_their_place(void **state)
{
    struct memory_map m = {.count = 0};

    memory_map_add(&m, 0, 1 * MiB, MEMORY_MAP_RAM);
    memory_map_add(&m, 0xa0000, 0x20000, MEMORY_MAP_RESERVED);
    assert_int_equal(m.count, 3);
    assert_range(&m, 0, 0, 0xa0000, MEMORY_MAP_RAM);
    assert_range(&m, 1, 0xa0000, 0x20000, MEMORY_MAP_RESERVED);
    assert_range(&m, 2, 0xc0000, 0x40000, MEMORY_MAP_RAM);

    /* Over the end of one and the start of the next. */
    memory_map_add(&m, 0xb0000, 0x20000, MEMORY_MAP_ACPI);
    assert_int_equal(m.count, 4);
    assert_range(&m, 1, 0xa0000, 0x10000, MEMORY_MAP_RESERVED);
    assert_range(&m, 2, 0xb0000, 0x20000, MEMORY_MAP_ACPI);
    assert_range(&m, 3, 0xd0000, 0x30000, MEMORY_MAP_RAM);

    /* Over everything. */
    memory_map_add(&m, 0, 1 * MiB, MEMORY_MAP_RAM);
    assert_int_equal(m.count, 1);
    assert_range(&m, 0, 0, 1 * MiB, MEMORY_MAP_RAM);

    memory_map_add(&m, 0x1000, 0, MEMORY_MAP_RESERVED);
    assert_int_equal(m.count, 1);
}

static void neighbours_of_a_type_are_joined(void **state)
{
    struct memory_map m = {.count = 0};

    memory_map_add(&m, 2 * MiB, 1 * MiB, MEMORY_MAP_RAM);
    memory_map_add(&m, 0, 1 * MiB, MEMORY_MAP_RAM);
    assert_int_equal(m.count, 2);
    memory_map_add(&m, 1 * MiB, 1 * MiB, MEMORY_MAP_RAM);
    assert_int_equal(m.count, 1);
    assert_range(&m, 0, 0, 3 * MiB, MEMORY_MAP_RAM);
    memory_map_add(&m, 3 * MiB, 1 * MiB, MEMORY_MAP_RESERVED);
    assert_int_equal(m.count, 2);
}

static void questions_are_answered_at_the_edges(void **state)
{
    struct memory_map m = {.count = 0};

    memory_map_add(&m, 1 * MiB, 1 * MiB, MEMORY_MAP_RAM);
    assert_true(memory_map_is_ram(&m, 1 * MiB, 1 * MiB));
    assert_false(memory_map_is_ram(&m, 1 * MiB, 1 * MiB + 1));
    assert_false(memory_map_is_ram(&m, 1 * MiB - 1, 2));
    assert_false(memory_map_is_ram(&m, 2 * MiB, 1));
    assert_false(memory_map_is_ram(&m, 1 * MiB, UINT64_MAX));
    assert_false(memory_map_is_ram(&m, UINT64_MAX, 2));
    assert_true(memory_map_is_ram(&m, 5 * MiB, 0));
    assert_int_equal(memory_map_ram_end(&m, 1 * MiB + 5), 2 * MiB);
    assert_int_equal(memory_map_ram_end(&m, 5), 5);
}

static void things_are_placed_as_high_as_they_may(void **state)
{
    struct memory_map m = {.count = 0};
    uint64_t at;

    memory_map_add(&m, 0, 1 * MiB, MEMORY_MAP_RAM);
    memory_map_add(&m, 2 * MiB, 2 * MiB, MEMORY_MAP_RAM);
    memory_map_add(&m, 4 * GiB, 1 * GiB, MEMORY_MAP_RAM);
    assert_true(memory_map_place_high(&m, 0x1001, 0x1000, 0, UINT32_MAX, &at));
    assert_int_equal(at, 4 * MiB - 0x2000);
    assert_true(memory_map_place_high(&m, 2 * MiB, 0x1000, 0, UINT32_MAX, &at));
    assert_int_equal(at, 2 * MiB);
    assert_true(memory_map_place_high(&m, 0x1000, 0x1000, 0, 3 * MiB + 0x1800, &at));
    assert_int_equal(at, 3 * MiB);
    assert_true(memory_map_place_high(&m, 1, 1, 0, UINT64_MAX, &at));
    assert_int_equal(at, 5 * GiB - 1);
    assert_false(memory_map_place_high(&m, 2 * MiB + 1, 1, 0, UINT32_MAX, &at));
    assert_false(memory_map_place_high(&m, 1 * MiB, 1, 3 * MiB + 1, UINT32_MAX, &at));
    assert_false(memory_map_place_high(&m, UINT64_MAX, 1, 0, UINT64_MAX, &at));
    /* Aligned down it would start below what is allowed. */
    assert_false(memory_map_place_high(&m, 1, 1 * MiB, 3 * MiB + 1, 4 * MiB - 1, &at));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(later_ranges_carve_their_place),
        cmocka_unit_test(neighbours_of_a_type_are_joined),
        cmocka_unit_test(questions_are_answered_at_the_edges),
        cmocka_unit_test(things_are_placed_as_high_as_they_may),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
