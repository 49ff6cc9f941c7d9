/*
 * The flash: modes, commands and their errors, what reaches the store and what
 * happens where the store fails, and that it is memory again afterwards.
 */
#include "dev/storage/cfi_flash.h"
#include "tests/dev/harness.h"

#include <errno.h>

#define BASE 0xFFC00000ull
#define SECTORS 5u
#define BYTES ((uint64_t)SECTORS * 4096)

struct shelf {
    uint8_t data[BYTES];
    unsigned writes;
    int fail; /* what the next writes return */
};

static struct shelf shelf_of[1]; /* what outlives the machine; one test at a time */

static int shelf_write(void *ctx, uint64_t offset, const void *data, uint64_t bytes)
{
    struct shelf *s = ctx;

    assert_true(offset < BYTES && bytes <= BYTES - offset);
    if (s->fail)
        return s->fail;
    memcpy(s->data + offset, data, bytes);
    s->writes++;
    return 0;
}

static void build(struct harness *h)
{
    const struct cfi_flash_config config = {
        .name = "flash",
        .base = BASE,
        .bytes = BYTES,
        .contents = shelf_of->data,
        .store = {shelf_write, shelf_of},
    };

    h->dev[0] = cfi_flash_create(h->vm, &config, NULL);
    assert_non_null(h->dev[0]);
}

static struct harness *start(void)
{
    memset(shelf_of, 0, sizeof *shelf_of);
    for (unsigned i = 0; i < BYTES; i++)
        shelf_of->data[i] = (uint8_t)(i ^ i >> 8);
    return harness_create(build);
}

static void command(struct harness *h, uint64_t offset, uint8_t first, int second)
{
    mm_out(h, BASE + offset, first, 1);
    if (second >= 0)
        mm_out(h, BASE + offset, (uint8_t)second, 1);
}

static void expect_status(struct harness *h, uint8_t status)
{
    command(h, 0, 0x70, -1);
    assert_int_equal(mm_in(h, BASE + 77, 1), status);
    command(h, 0, 0x50, -1);
    assert_int_equal(mm_in(h, BASE, 1), 0);
    command(h, 0, 0xFF, -1);
}

/* How OVMF looks whether there is flash. */
static void test_detection(void **state)
{
    struct harness *h = start();
    uint8_t original = (uint8_t)mm_in(h, BASE + 3, 1);

    command(h, 3, 0x50, -1);
    assert_int_equal(mm_in(h, BASE + 3, 1), original);
    command(h, 3, 0x70, -1);
    assert_int_equal(mm_in(h, BASE + 3, 1), 0); /* and nothing else will do */
    command(h, 3, 0xFF, -1);
    assert_int_equal(mm_in(h, BASE + 3, 1), original);
    harness_destroy(h);
}

static void test_program(void **state)
{
    struct harness *h = start();

    command(h, 4096 + 5, 0x20, 0xD0);
    command(h, 4096 + 16, 0x10, 0xA5);
    command(h, 4096 + 17, 0x40, 0xF0);
    assert_int_equal(mm_in(h, BASE + 4096, 1), 0x80); /* still status */
    command(h, 0, 0xFF, -1);
    assert_int_equal(mm_in(h, BASE + 4096 + 16, 4), 0xFFFFF0A5);
    assert_int_equal(mm_in(h, BASE + 4095, 1), 0xFF ^ 0x0F);
    assert_int_equal(mm_in(h, BASE + 8192, 1), 0x20);
    assert_int_equal(le32_get(shelf_of->data + 4096 + 16), 0xFFFFF0A5);
    assert_int_equal(shelf_of->writes, 3);
    /* Bits go from 1 to 0 only. */
    command(h, 4096 + 16, 0x10, 0x5A);
    command(h, 0, 0xFF, -1);
    assert_int_equal(mm_in(h, BASE + 4096 + 16, 1), 0);
    expect_status(h, 0x80);
    /* In array mode a plain byte is a command and no data. */
    mm_out(h, BASE + 4096 + 20, 0x00, 1);
    assert_int_equal(mm_in(h, BASE + 4096 + 20, 1), 0xFF);
    harness_destroy(h);
}

static void test_buffer(void **state)
{
    struct harness *h = start();

    command(h, 0, 0x20, 0xD0);
    command(h, 0x10, 0xE8, -1);
    assert_int_equal(mm_in(h, BASE, 1), 0x80); /* a buffer is free */
    mm_out(h, BASE + 0x10, 31, 1);
    for (unsigned i = 0; i < 32; i++)
        mm_out(h, BASE + 0x10 + i, i, 1);
    mm_out(h, BASE + 0x10, 0xD0, 1);
    command(h, 0, 0xFF, -1);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(mm_in(h, BASE + 0x10 + i, 1), i);
    assert_int_equal(mm_in(h, BASE + 0x30, 1), 0xFF);
    assert_int_equal(shelf_of->writes, 2); /* the buffer at once */
    /* Too many; another sector; no confirmation. */
    command(h, 0, 0xE8, 32);
    expect_status(h, 0xB0);
    command(h, 4095, 0xE8, 1);
    mm_out(h, BASE + 4095, 0, 1);
    mm_out(h, BASE + 4096, 0, 1);
    expect_status(h, 0xB0);
    command(h, 0, 0xE8, 0);
    mm_out(h, BASE, 0, 1);
    mm_out(h, BASE, 0x11, 1);
    expect_status(h, 0xB0);
    assert_int_equal(mm_in(h, BASE, 1), 0xFF);
    harness_destroy(h);
}

static void test_wrong_sequences(void **state)
{
    struct harness *h = start();

    command(h, 0, 0x20, 0x55);
    expect_status(h, 0xB0);
    command(h, 0, 0x60, 0x55);
    expect_status(h, 0xB0);
    command(h, 0, 0x20, 0xFF); /* not even this one takes it back */
    assert_int_equal(mm_in(h, BASE, 1), 0xB0);
    expect_status(h, 0xB0);
    for (unsigned c = 0; c < 256; c++) {
        command(h, 4096, (uint8_t)c, -1);
        command(h, 4096, 0x77, -1);
        command(h, 4096, 0xFF, -1);
        command(h, 4096, 0xFF, -1);
        command(h, 4096, 0x50, -1);
        command(h, 4096, 0xFF, -1);
        harness_reset(h);
        assert_int_equal(mm_in(h, BASE + 8192, 1), 0x20);
    }
    harness_destroy(h);
}

static void test_locks(void **state)
{
    struct harness *h = start();
    uint8_t before = (uint8_t)mm_in(h, BASE + 4096, 1);

    command(h, 4096, 0x60, 0x01);
    command(h, 4096 + 9, 0x10, 0x00);
    expect_status(h, 0x92);
    command(h, 4096, 0x20, 0xD0);
    expect_status(h, 0xA2);
    assert_int_equal(mm_in(h, BASE + 4096, 1), before);
    command(h, 4096, 0x90, -1);
    assert_int_equal(mm_in(h, BASE + 4096, 4), 0x00011889);
    assert_int_equal(mm_in(h, BASE + 8192, 4), 0x00001889);
    command(h, 4096, 0x60, 0xD0);
    command(h, 4096, 0x20, 0xD0);
    expect_status(h, 0x80);
    assert_int_equal(mm_in(h, BASE + 4096, 1), 0xFF);
    harness_destroy(h);
}

static void test_query(void **state)
{
    struct harness *h = start();

    command(h, 0x55, 0x98, -1);
    assert_int_equal(mm_in(h, BASE + 0x10, 2), 'Q' | 'R' << 8);
    assert_int_equal(mm_in(h, BASE + 0x13, 2), 1);
    assert_int_equal(mm_in(h, BASE + 0x27, 1), 15); /* 20 KiB: 32 KiB */
    assert_int_equal(mm_in(h, BASE + 0x2A, 2), 5);
    assert_int_equal(mm_in(h, BASE + 0x2C, 1), 1);
    assert_int_equal(mm_in(h, BASE + 0x2D, 4), 0x00100000 | (SECTORS - 1));
    assert_int_equal(mm_in(h, BASE + 0x31, 4), 'P' | 'R' << 8 | 'I' << 16 | '1' << 24);
    assert_int_equal(mm_in(h, BASE + 0x90, 1), 0);
    command(h, 0, 0xFF, -1);
    assert_int_equal(mm_in(h, BASE + 0x10, 1), 0x10);
    harness_destroy(h);
}

static void test_store_fails(void **state)
{
    struct harness *h = start();
    uint8_t before = (uint8_t)mm_in(h, BASE + 9, 1);

    shelf_of->fail = -ENOSPC;
    command(h, 9, 0x10, 0);
    expect_status(h, 0x90);
    command(h, 9, 0x20, 0xD0);
    expect_status(h, 0xA0);
    assert_int_equal(mm_in(h, BASE + 9, 1), before);
    shelf_of->fail = 0;
    command(h, 9, 0x10, 0);
    expect_status(h, 0x80);
    assert_int_equal(mm_in(h, BASE + 9, 1), 0);
    harness_destroy(h);
}

static void test_memory(void **state)
{
    struct harness *h = start();
    struct ram_block *block;
    uint64_t bytes = BYTES;
    const uint8_t *host = as_map(&h->vm->memory, BASE, &bytes, false, &block, NULL);

    assert_non_null(host); /* memory, for reads and for code */
    assert_int_equal(bytes, BYTES);
    assert_null(as_map(&h->vm->memory, BASE, &bytes, true, NULL, NULL));
    command(h, 0, 0x70, -1);
    assert_null(as_map(&h->vm->memory, BASE, &bytes, false, NULL, NULL));
    harness_reload(h);
    assert_int_equal(mm_in(h, BASE, 4), 0x80808080);
    harness_reset(h);
    assert_non_null(as_map(&h->vm->memory, BASE, &bytes, false, NULL, NULL));
    /* Wider accesses are bytes. */
    mm_out(h, BASE, 0xD0202020, 4); /* erase what? 20 20: wrong; 20 D0: erase */
    expect_status(h, 0xB0);
    assert_int_equal(mm_in(h, BASE, 4), 0xFFFFFFFF);
    harness_destroy(h);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    static const uint8_t commands[] = {0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xB0,
                                       0xD0, 0xE8, 0xFF, 0x01, 0x2F, 0x02, 0x00};
    uint64_t at = (random >> 16) % BYTES;

    switch (random & 3) {
    case 0:
        return mm_in(h, BASE + at, 1);
    case 1:
        mm_out(h, BASE + at, random >> 40, 1u << (random >> 8) % 4);
        return 0;
    default:
        mm_out(h, BASE + (at & 0xFF), commands[random >> 40 & 15], 1);
        return 0;
    }
}

static void test_state(void **state)
{
    for (unsigned seed = 1; seed <= 3; seed++) {
        memset(shelf_of, 0, sizeof *shelf_of); /* all zeros: programming changes nothing */
        shelf_of->fail = -EIO;                 /* nor erasing: two machines share it */
        harness_fuzz(build, op, 4000, seed);
    }
}

static void poke(struct harness *h)
{
    for (unsigned i = 0; i < 64; i++)
        mm_out(h, BASE + i * 300, i * 37, 1);
    mm_in(h, BASE, 8);
}

static void test_damaged_state(void **state)
{
    struct harness *h = start();

    command(h, 4096, 0xE8, 3);
    mm_out(h, BASE + 4096, 1, 1);
    harness_corrupt(h, poke);
    harness_destroy(h);
}

static void test_impossible(void **state)
{
    struct harness *h = start();
    struct cfi_flash_config config = {.name = "x", .base = 0, .bytes = 4097, .contents = NULL};
    struct error err;

    assert_null(cfi_flash_create(h->vm, &config, &err));
    config.bytes = 0;
    assert_null(cfi_flash_create(h->vm, &config, &err));
    config.bytes = CFI_FLASH_MAX_BYTES + 4096;
    assert_null(cfi_flash_create(h->vm, &config, &err));
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_detection),   cmocka_unit_test(test_program),
        cmocka_unit_test(test_buffer),      cmocka_unit_test(test_wrong_sequences),
        cmocka_unit_test(test_locks),       cmocka_unit_test(test_query),
        cmocka_unit_test(test_store_fails), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_state),       cmocka_unit_test(test_damaged_state),
        cmocka_unit_test(test_impossible),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
