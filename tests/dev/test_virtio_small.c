/*
 * The virtio console and balloon (virtio 1.2, sections 5.3 and 5.5).
 */
#include "tests/dev/virtio_guest.h"

#include <stdlib.h>

enum { RECEIVE, TRANSMIT };
enum { INFLATE, DEFLATE, STATS, REPORTING };

static void offer(struct harness *h, enum vg_device d, unsigned queue, unsigned index,
                  uint64_t address, uint32_t bytes, uint16_t flags)
{
    vg_describe(h, d, queue, index, address, bytes, flags, 0);
    vg_offer(h, d, queue, index);
    vg_ring(h, d, queue);
}

/* ---- console ---- */

static void console_out(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_CONSOLE, 0, false);
    memcpy(vg_ram(h, VG_BUFFER), "hello, world", 12);
    vg_describe(h, VG_CONSOLE, TRANSMIT, 0, VG_BUFFER, 5, VG_NEXT, 1);
    vg_describe(h, VG_CONSOLE, TRANSMIT, 1, VG_BUFFER + 5, 7, 0, 0);
    vg_offer(h, VG_CONSOLE, TRANSMIT, 0);
    vg_ring(h, VG_CONSOLE, TRANSMIT);
    assert_int_equal(vg_world(h)->output_bytes, 12);
    assert_memory_equal(vg_world(h)->output, "hello, world", 12);
    assert_int_equal(vg_used(h, VG_CONSOLE, TRANSMIT), 1);
    assert_int_equal(vg_used_bytes(h, VG_CONSOLE, TRANSMIT, 0), 0);
    /* Emergency: before there is a driver. */
    vg_put(h, VG_CONSOLE, VG_STATUS, 0, 1);
    vg_put(h, VG_CONSOLE, VG_CONFIG + 8, '!', 4);
    assert_int_equal(vg_world(h)->output_bytes, 13);
    /* As much as there is memory: it ends. */
    vg_start(h, VG_CONSOLE, 0, false);
    vg_describe(h, VG_CONSOLE, TRANSMIT, 0, 0, VG_RAM_BYTES, 0, 0);
    vg_offer(h, VG_CONSOLE, TRANSMIT, 0);
    vg_ring(h, VG_CONSOLE, TRANSMIT);
    assert_int_equal(vg_world(h)->output_bytes, 13 + MiB);
    harness_destroy(h);
}

static void console_in(void **state)
{
    struct harness *h = vg_create();

    assert_int_equal(vg_type(h, "lost", 4), 0); /* no driver, no room */
    vg_start(h, VG_CONSOLE, 0, false);
    assert_int_equal(vg_type(h, "early", 5), 0);
    offer(h, VG_CONSOLE, RECEIVE, 0, VG_BUFFER, 4, VG_WRITE);
    offer(h, VG_CONSOLE, RECEIVE, 1, VG_BUFFER + 16, 100, VG_WRITE);
    assert_int_equal(vg_type(h, "abcdef", 6), 4);
    harness_reload(h);
    assert_int_equal(vg_type(h, "ef", 2), 2);
    assert_int_equal(vg_used(h, VG_CONSOLE, RECEIVE), 2);
    assert_int_equal(vg_used_bytes(h, VG_CONSOLE, RECEIVE, 1), 2);
    assert_memory_equal(vg_ram(h, VG_BUFFER), "abcd", 4);
    assert_memory_equal(vg_ram(h, VG_BUFFER + 16), "ef", 2);
    assert_int_equal(vg_type(h, "g", 1), 0);
    /* Buffers without room are given back, a bad one breaks the device. */
    offer(h, VG_CONSOLE, RECEIVE, 0, VG_BUFFER, 4, 0);
    offer(h, VG_CONSOLE, RECEIVE, 1, VG_BUFFER, 1, VG_WRITE);
    assert_int_equal(vg_type(h, "hi", 2), 1);
    assert_int_equal(vg_used(h, VG_CONSOLE, RECEIVE), 4);
    offer(h, VG_CONSOLE, RECEIVE, 0, VG_ROM, 4, VG_WRITE);
    assert_int_equal(vg_type(h, "x", 1), 0);
    assert_int_equal(vg_get(h, VG_CONSOLE, VG_STATUS, 1), VG_RUNNING | VIRTIO_NEEDS_RESET);
    harness_destroy(h);
}

/* ---- balloon ---- */

#define GIVEN 0x300000ull

static void fill_pages(struct harness *h, unsigned pages)
{
    memset(vg_ram(h, GIVEN), 0xAA, pages * 4096);
}

static bool page_is(struct harness *h, unsigned page, uint8_t value)
{
    const uint8_t *p = vg_ram(h, GIVEN + page * 4096);

    for (unsigned n = 0; n < 4096; n++)
        if (p[n] != value)
            return false;
    return true;
}

static void balloon_inflates(void **state)
{
    struct harness *h = vg_create();
    struct virtio_balloon_status s;

    vg_start(h, VG_BALLOON, 0, true);
    assert_int_equal(vg_get(h, VG_BALLOON, VG_CONFIG, 4), 16);
    fill_pages(h, 16);
    /* Up, down, once more, nowhere. */
    static const uint32_t frames[] = {0x300, 0x301, 0x305, 0x304, 0x301, 0x30A,
                                      0x800, 0xF0000, 0xFFFFFFFF};
    for (unsigned n = 0; n < ARRAY_SIZE(frames); n++)
        le32_put(vg_ram(h, VG_BUFFER + n * 4), frames[n]);
    offer(h, VG_BALLOON, INFLATE, 0, VG_BUFFER, sizeof frames, 0);
    assert_int_equal(vg_used(h, VG_BALLOON, INFLATE), 1);
    for (unsigned n = 0; n < 16; n++)
        assert_true(page_is(h, n, n < 2 || n == 4 || n == 5 || n == 10 ? 0 : 0xAA));
    vg_put(h, VG_BALLOON, VG_CONFIG + 4, 5, 4);
    harness_reload(h);
    assert_int_equal(vg_get(h, VG_BALLOON, VG_CONFIG + 4, 4), 5);
    virtio_balloon_status(vg_world(h)->balloon, &s);
    assert_int_equal(s.actual_bytes, 5 * 4096);
    assert_int_equal(s.target_bytes, 16 * 4096);
    offer(h, VG_BALLOON, DEFLATE, 0, VG_BUFFER, sizeof frames, 0);
    assert_int_equal(vg_used(h, VG_BALLOON, DEFLATE), 1);
    /* Another target: the driver hears. */
    h->message_count = 0;
    vm_lock(h->vm);
    virtio_balloon_set_target(vg_world(h)->balloon, 8192);
    vm_unlock(h->vm);
    assert_int_equal(vg_get(h, VG_BALLOON, VG_CONFIG, 4), 2);
    assert_int_equal(vg_get(h, VG_BALLOON, VG_GENERATION, 1), 1);
    assert_int_equal(h->message_count, 1);
    assert_int_equal(h->message[0].data, 0x4000 + VG_BALLOON * 16);
    harness_destroy(h);
}

static void balloon_reports(void **state)
{
    struct harness *h = vg_create();
    struct virtio_balloon_status s;

    vg_start(h, VG_BALLOON, 0, false);
    fill_pages(h, 8);
    vg_describe(h, VG_BALLOON, REPORTING, 0, GIVEN, 8192, VG_WRITE | VG_NEXT, 1);
    vg_describe(h, VG_BALLOON, REPORTING, 1, GIVEN + 3 * 4096 + 100, 8192, VG_WRITE, 0);
    vg_offer(h, VG_BALLOON, REPORTING, 0);
    vg_ring(h, VG_BALLOON, REPORTING);
    for (unsigned n = 0; n < 8; n++)
        assert_true(page_is(h, n, n < 2 || n == 4 ? 0 : 0xAA));
    virtio_balloon_status(vg_world(h)->balloon, &s);
    assert_int_equal(s.reported_bytes, 3 * 4096);
    /* Not what the device may only read. */
    offer(h, VG_BALLOON, REPORTING + 1, 0, GIVEN + 2 * 4096, 4096, 0);
    assert_true(page_is(h, 2, 0xAA));
    assert_int_equal(vg_used(h, VG_BALLOON, REPORTING + 1), 1);
    harness_destroy(h);
}

static void balloon_statistics(void **state)
{
    struct harness *h = vg_create();
    struct virtio_balloon_status s;

    vg_start(h, VG_BALLOON, 0, false);
    le16_put(vg_ram(h, VG_BUFFER), 4); /* VIRTIO_BALLOON_S_MEMFREE */
    le64_put(vg_ram(h, VG_BUFFER + 2), 12345);
    le16_put(vg_ram(h, VG_BUFFER + 10), 999);
    offer(h, VG_BALLOON, STATS, 0, VG_BUFFER, 20, 0);
    virtio_balloon_status(vg_world(h)->balloon, &s);
    assert_int_equal(s.free_bytes, 12345);
    assert_int_equal(s.total_bytes, UINT64_MAX);
    assert_int_equal(vg_used(h, VG_BALLOON, STATS), 0);
    harness_reload(h);
    harness_advance(h, NS_PER_SEC + 1);
    assert_int_equal(vg_used(h, VG_BALLOON, STATS), 1);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(vg_used(h, VG_BALLOON, STATS), 1);
    /* Two at once: one stays. */
    offer(h, VG_BALLOON, STATS, 0, VG_BUFFER, 20, 0);
    offer(h, VG_BALLOON, STATS, 1, VG_BUFFER, 20, 0);
    assert_int_equal(vg_used(h, VG_BALLOON, STATS), 2);
    vg_put(h, VG_BALLOON, VG_STATUS, 0, 1);
    harness_advance(h, 10 * NS_PER_SEC);
    virtio_balloon_status(vg_world(h)->balloon, &s);
    assert_int_equal(s.free_bytes, UINT64_MAX);
    harness_destroy(h);
}

static void poke(struct harness *h)
{
    harness_advance(h, 2 * NS_PER_SEC);
    vg_start(h, VG_BALLOON, 0, false);
    offer(h, VG_BALLOON, STATS, 0, VG_BUFFER, 20, 0);
    harness_advance(h, 2 * NS_PER_SEC);
}

static void damaged_state(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_BALLOON, 0, true);
    vg_start(h, VG_CONSOLE, 0, true);
    offer(h, VG_BALLOON, STATS, 0, VG_BUFFER, 20, 0);
    harness_corrupt_some(h, poke, 331);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(console_out),      cmocka_unit_test(console_in),
        cmocka_unit_test(balloon_inflates), cmocka_unit_test(balloon_reports),
        cmocka_unit_test(balloon_statistics), cmocka_unit_test(damaged_state),
    };

    return cmocka_run_group_tests_name("virtio_small", tests, NULL, NULL);
}
