/*
 * The virtio block device (virtio 1.2, section 5.2): requests, errors of the host,
 * hostile requests, saved and reset while requests are under way, real time.
 */
#include "tests/dev/virtio_guest.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/virtio/virtio_blk.h"

enum type { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum status { OK, IO_ERROR, UNSUPPORTED, UNTOUCHED = 0xEE };

#define HEADER(slot) (0x180000ull + (slot)*64)
#define STATUS(slot) (HEADER(slot) + 32)

/* A request of three descriptors (3 * slot and on), which the doorbell is rung for. */
static void request(struct harness *h, unsigned queue, unsigned slot, enum type type,
                    uint64_t sector, uint64_t data, uint32_t bytes)
{
    unsigned first = slot * 3;
    bool write = type == IN || type == GET_ID;

    le32_put(vg_ram(h, HEADER(slot)), type);
    le32_put(vg_ram(h, HEADER(slot) + 4), 0);
    le64_put(vg_ram(h, HEADER(slot) + 8), sector);
    *vg_ram(h, STATUS(slot)) = UNTOUCHED;
    vg_describe(h, VG_BLK, queue, first, HEADER(slot), 16, VG_NEXT, bytes ? first + 1 : first + 2);
    vg_describe(h, VG_BLK, queue, first + 1, data, bytes, VG_NEXT | (write ? VG_WRITE : 0),
                first + 2);
    vg_describe(h, VG_BLK, queue, first + 2, STATUS(slot), 1, VG_WRITE, 0);
    vg_offer(h, VG_BLK, queue, first);
    vg_ring(h, VG_BLK, queue);
}

static uint8_t status(struct harness *h, unsigned slot)
{
    return *vg_ram(h, STATUS(slot));
}

static uint8_t run(struct harness *h, enum type type, uint64_t sector, uint64_t data,
                   uint32_t bytes)
{
    request(h, 0, 0, type, sector, data, bytes);
    harness_advance(h, NS_PER_SEC);
    return status(h, 0);
}

static uint8_t range(struct harness *h, enum type type, uint64_t sector, uint32_t sectors,
                     uint32_t flags)
{
    le64_put(vg_ram(h, VG_BUFFER), sector);
    le32_put(vg_ram(h, VG_BUFFER + 8), sectors);
    le32_put(vg_ram(h, VG_BUFFER + 12), flags);
    return run(h, type, 0, VG_BUFFER, 16);
}

static uint8_t *image(struct harness *h)
{
    return vg_world(h)->shim->bytes;
}

static void configuration(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_BLK, 0, false);
    assert_int_equal(vg_get(h, VG_BLK, VG_CONFIG, 4), VG_DISK_BYTES / 512);
    assert_int_equal(vg_get(h, VG_BLK, VG_CONFIG + 4, 4), 0);
    assert_int_equal(vg_get(h, VG_BLK, VG_CONFIG + 12, 4), 254);
    assert_int_equal(vg_get(h, VG_BLK, VG_CONFIG + 20, 4), 512);
    assert_int_equal(vg_get(h, VG_BLK, VG_CONFIG + 32, 1), 1);
    assert_int_equal(vg_get(h, VG_BLK, VG_CONFIG + 34, 2), 2);
    assert_int_equal(vg_get(h, VG_BLK, VG_CONFIG + 58, 4), 0); /* over the end */
    vg_put(h, VG_BLK, VG_CONFIG + 32, 0, 1);
    harness_reload(h);
    assert_int_equal(vg_get(h, VG_BLK, VG_CONFIG + 32, 1), 0);
    vg_put(h, VG_BLK, VG_STATUS, 0, 1);
    assert_int_equal(vg_get(h, VG_BLK, VG_CONFIG + 32, 1), 1);
    harness_destroy(h);
}

static void transfers(void **state)
{
    struct harness *h = vg_create();
    unsigned flushes;

    vg_start(h, VG_BLK, 0, true);
    assert_int_equal(run(h, IN, 3, VG_BUFFER, 8192), OK);
    assert_memory_equal(vg_ram(h, VG_BUFFER), image(h) + 3 * 512, 8192);
    assert_int_equal(vg_used_bytes(h, VG_BLK, 0, 0), 8193);
    assert_int_equal(h->message[h->message_count - 1].data, 0x4000 + VG_BLK * 16 + 1);
    memset(vg_ram(h, VG_BUFFER), 0x5A, 4096);
    assert_int_equal(run(h, OUT, 2048 - 8, VG_BUFFER, 4096), OK);
    assert_memory_equal(vg_ram(h, VG_BUFFER), image(h) + VG_DISK_BYTES - 4096, 4096);
    assert_int_equal(vg_used_bytes(h, VG_BLK, 0, 1), 1);
    flushes = vg_world(h)->shim->flushes;
    assert_int_equal(run(h, FLUSH, 0, 0, 0), OK);
    assert_int_equal(vg_world(h)->shim->flushes, flushes + 1);
    /* Without the write cache each write is. */
    vg_put(h, VG_BLK, VG_CONFIG + 32, 0, 1);
    assert_int_equal(run(h, OUT, 0, VG_BUFFER, 512), OK);
    assert_int_equal(vg_world(h)->shim->flushes, flushes + 2);
    memset(vg_ram(h, VG_BUFFER), 0xFF, 64);
    assert_int_equal(run(h, GET_ID, 0, VG_BUFFER, 20), OK);
    assert_memory_equal(vg_ram(h, VG_BUFFER), "SHIM\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xFF", 21);
    assert_int_equal(run(h, GET_ID, 0, VG_BUFFER + 32, 2), OK);
    assert_memory_equal(vg_ram(h, VG_BUFFER + 32), "SH\xFF", 3);
    assert_int_equal(range(h, WRITE_ZEROES, 16, 8, 1), OK);
    for (unsigned n = 0; n < 4096; n++)
        assert_int_equal(image(h)[16 * 512 + n], 0);
    assert_int_equal(range(h, DISCARD, 32, 8, 0), OK);
    assert_int_equal(vg_world(h)->shim->discards, 1);
    /* The second queue. */
    request(h, 1, 1, IN, 0, VG_BUFFER, 512);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(status(h, 1), OK);
    assert_int_equal(vg_used(h, VG_BLK, 1), 1);
    assert_int_equal(h->message[h->message_count - 1].data, 0x4000 + VG_BLK * 16 + 2);
    harness_destroy(h);
}

/* A header cut in two, data and status in one descriptor: the layout is free. */
static void any_layout(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_BLK, 0, false);
    le32_put(vg_ram(h, HEADER(0)), IN);
    le64_put(vg_ram(h, HEADER(0) + 8), 7);
    vg_describe(h, VG_BLK, 0, 0, HEADER(0), 5, VG_NEXT, 1);
    vg_describe(h, VG_BLK, 0, 1, HEADER(0) + 5, 11, VG_NEXT, 2);
    vg_describe(h, VG_BLK, 0, 2, VG_BUFFER + 1, 100, VG_NEXT | VG_WRITE, 3);
    vg_describe(h, VG_BLK, 0, 3, VG_BUFFER + 101, 413, VG_WRITE, 0);
    vg_ram(h, VG_BUFFER)[513] = UNTOUCHED;
    vg_offer(h, VG_BLK, 0, 0);
    vg_ring(h, VG_BLK, 0);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(vg_ram(h, VG_BUFFER)[513], OK);
    assert_memory_equal(vg_ram(h, VG_BUFFER + 1), image(h) + 7 * 512, 512);

    le32_put(vg_ram(h, HEADER(0)), OUT);
    memset(vg_ram(h, HEADER(0) + 16), 0x77, 512);
    vg_describe(h, VG_BLK, 0, 0, HEADER(0), 528, VG_NEXT, 1);
    vg_describe(h, VG_BLK, 0, 1, VG_BUFFER, 1, VG_WRITE, 0);
    vg_offer(h, VG_BLK, 0, 0);
    vg_ring(h, VG_BLK, 0);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(*vg_ram(h, VG_BUFFER), OK);
    assert_int_equal(image(h)[7 * 512 + 511], 0x77);
    harness_destroy(h);
}

static void errors(void **state)
{
    struct harness *h = vg_create();
    struct shim *shim;

    vg_start(h, VG_BLK, 0, false);
    assert_int_equal(run(h, IN, 2048, VG_BUFFER, 512), IO_ERROR);
    assert_int_equal(run(h, IN, 2047, VG_BUFFER, 1024), IO_ERROR);
    assert_int_equal(run(h, OUT, UINT64_MAX, VG_BUFFER, 512), IO_ERROR);
    assert_int_equal(run(h, OUT, 0x0080000000000000, VG_BUFFER, 512), IO_ERROR);
    assert_int_equal(run(h, IN, 0, VG_BUFFER, 511), IO_ERROR);
    assert_int_equal(run(h, IN, 0, 0, 0), OK);
    assert_int_equal(run(h, 99, 0, VG_BUFFER, 512), UNSUPPORTED);
    assert_int_equal(range(h, DISCARD, 0, 8, 1), UNSUPPORTED);
    assert_int_equal(range(h, WRITE_ZEROES, 0, 8, 2), UNSUPPORTED);
    assert_int_equal(range(h, WRITE_ZEROES, 2047, 2, 0), IO_ERROR);
    assert_int_equal(range(h, DISCARD, UINT64_MAX, 2, 0), IO_ERROR);
    assert_int_equal(range(h, DISCARD, 0, UINT32_MAX, 0), IO_ERROR);
    assert_int_equal(run(h, DISCARD, 0, VG_BUFFER, 32), UNSUPPORTED);
    shim = vg_world(h)->shim;
    shim_fail(shim, DISK_READ, 0, 512, 1, -EIO);
    shim_fail(shim, DISK_WRITE, 0, 512, 1, -ENOSPC);
    shim_fail(shim, DISK_FLUSH, 0, 512, 1, -EIO);
    assert_int_equal(run(h, IN, 0, VG_BUFFER, 512), IO_ERROR);
    assert_int_equal(run(h, OUT, 0, VG_BUFFER, 512), IO_ERROR);
    assert_int_equal(run(h, FLUSH, 0, 0, 0), IO_ERROR);
    assert_int_equal(run(h, IN, 0, VG_BUFFER, 512), OK);
    assert_int_equal(vg_get(h, VG_BLK, VG_STATUS, 1), VG_RUNNING);

    /* Neither header nor status: nobody can be told but by a reset. */
    vg_describe(h, VG_BLK, 0, 0, HEADER(0), 15, VG_NEXT, 1);
    vg_describe(h, VG_BLK, 0, 1, STATUS(0), 1, VG_WRITE, 0);
    vg_offer(h, VG_BLK, 0, 0);
    vg_ring(h, VG_BLK, 0);
    assert_int_equal(vg_get(h, VG_BLK, VG_STATUS, 1), VG_RUNNING | VIRTIO_NEEDS_RESET);
    vg_start(h, VG_BLK, 0, false);
    vg_describe(h, VG_BLK, 0, 0, HEADER(0), 16, 0, 0);
    vg_offer(h, VG_BLK, 0, 0);
    vg_ring(h, VG_BLK, 0);
    assert_int_equal(vg_get(h, VG_BLK, VG_STATUS, 1), VG_RUNNING | VIRTIO_NEEDS_RESET);
    harness_destroy(h);
}

static void readonly_disk(void **state)
{
    struct harness *h = vg_create_readonly();

    assert_true(vg_offered(h, VG_BLK) & BIT(5));
    assert_false(vg_offered(h, VG_BLK) & (BIT(13) | BIT(14)));
    vg_start(h, VG_BLK, 0, false);
    assert_int_equal(run(h, OUT, 0, VG_BUFFER, 512), IO_ERROR);
    assert_int_equal(range(h, WRITE_ZEROES, 0, 8, 0), UNSUPPORTED);
    assert_int_equal(run(h, IN, 0, VG_BUFFER, 512), OK);
    harness_destroy(h);
}

/* Saved, and changed by the guest, while requests wait for their time. */
static void saved_in_flight(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_BLK, 0, false);
    for (unsigned n = 0; n < 4; n++)
        request(h, n & 1, n, IN, n * 8, VG_BUFFER + n * 4096, 4096);
    assert_int_equal(disk_in_flight(vg_world(h)->disk), 4);
    harness_reload(h);
    assert_int_equal(disk_in_flight(vg_world(h)->disk), 4);
    harness_advance(h, NS_PER_SEC);
    for (unsigned n = 0; n < 4; n++)
        assert_int_equal(status(h, n), OK);
    assert_memory_equal(vg_ram(h, VG_BUFFER), image(h), 4 * 4096);

    /* The header becomes that of another request. */
    request(h, 0, 0, OUT, 0, VG_BUFFER, 512);
    le32_put(vg_ram(h, HEADER(0)), 99);
    harness_reload(h);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(status(h, 0), UNSUPPORTED);
    /* The chain becomes impossible. */
    request(h, 0, 0, IN, 0, VG_BUFFER, 512);
    vg_describe(h, VG_BLK, 0, 1, VG_BAR(VG_BLK), 512, VG_WRITE | VG_NEXT, 2);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(status(h, 0), UNTOUCHED);
    assert_int_equal(vg_get(h, VG_BLK, VG_STATUS, 1), VG_RUNNING | VIRTIO_NEEDS_RESET);
    assert_int_equal(disk_in_flight(vg_world(h)->disk), 0);
    harness_destroy(h);
}

static void reset_in_flight(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_BLK, 0, false);
    request(h, 0, 0, IN, 0, VG_BUFFER, 512);
    vg_put(h, VG_BLK, VG_STATUS, 0, 1);
    assert_int_equal(disk_in_flight(vg_world(h)->disk), 0);
    vg_start(h, VG_BLK, 0, false);
    request(h, 0, 0, IN, 0, VG_BUFFER, 512);
    harness_reset(h);
    assert_int_equal(disk_in_flight(vg_world(h)->disk), 0);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(status(h, 0), UNTOUCHED);
    harness_destroy(h);
}

/* The same head again and again: more than there is room for waits. */
static void more_than_slots(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_BLK, 0, false);
    for (unsigned n = 0; n < 40; n++) {
        request(h, 0, 0, IN, 0, VG_BUFFER, 512);
        for (unsigned i = 1; i < VG_SIZE; i++)
            vg_offer(h, VG_BLK, 0, 0);
        vg_ring(h, VG_BLK, 0);
    }
    assert_true(disk_in_flight(vg_world(h)->disk) <= VIRTIO_QUEUE_SIZE);
    harness_reload(h);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(disk_in_flight(vg_world(h)->disk), 0);
    harness_destroy(h);
}

static void poke(struct harness *h)
{
    harness_advance(h, NS_PER_SEC);
    vg_start(h, VG_BLK, 0, false);
    request(h, 0, 0, IN, 0, VG_BUFFER, 512);
    harness_advance(h, NS_PER_SEC);
}

static void damaged_state(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_BLK, 0, true);
    request(h, 0, 0, IN, 0, VG_BUFFER, 512);
    request(h, 1, 1, OUT, 0, VG_BUFFER, 512);
    harness_corrupt_some(h, poke, 331);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configuration),   cmocka_unit_test(transfers),
        cmocka_unit_test(any_layout),      cmocka_unit_test(errors),
        cmocka_unit_test(readonly_disk),   cmocka_unit_test(saved_in_flight),
        cmocka_unit_test(reset_in_flight), cmocka_unit_test(more_than_slots),
        cmocka_unit_test(damaged_state),
    };

    return cmocka_run_group_tests_name("virtio_blk", tests, NULL, NULL);
}
