/*
 * Debug ports, debug-exit and testdev.
 */
#include "dev/misc/debug_exit.h"
#include "dev/misc/debug_port.h"
#include "dev/misc/testdev.h"
#include "tests/dev/harness.h"
#include "vm/internal.h"

#include <errno.h>

/* A back end and a log that keep what they get. */
struct sink {
    struct char_backend b;
    char bytes[1024];
    unsigned count;
    char lines[16][256];
    unsigned line_count;
};

static void sink_write(struct char_backend *b, const uint8_t *data, size_t bytes)
{
    struct sink *s = CONTAINER_OF(b, struct sink, b);

    for (size_t i = 0; i < bytes; i++)
        s->bytes[s->count++ % sizeof s->bytes] = (char)data[i];
}

static void sink_line(void *ctx, enum log_area area, enum log_level level, const char *line)
{
    struct sink *s = ctx;

    if (area != LOG_FIRMWARE)
        return;
    strncpy(s->lines[s->line_count % 16], line, sizeof s->lines[0] - 1);
    s->line_count++;
}

static const struct char_ops sink_ops = {.write = sink_write};

static struct sink *sink_of(struct harness *h)
{
    static struct sink sinks[2];
    static struct log logs[2];
    static unsigned turn;

    if (!h->test) {
        h->test = &sinks[turn % 2];
        memset(h->test, 0, sizeof sinks[0]);
        log_init(&logs[turn % 2], sink_line, h->test);
        assert_int_equal(log_configure(&logs[turn % 2], "firmware=info"), 0);
        turn++;
    }
    h->vm->log = &logs[(struct sink *)h->test - sinks];
    return h->test;
}

static void build_debug(struct harness *h)
{
    sink_of(h)->b.ops = &sink_ops;
    h->dev[0] = debug_port_create(h->vm, &sink_of(h)->b, NULL);
    assert_non_null(h->dev[0]);
}

static void print(struct harness *h, uint16_t port, const char *text)
{
    for (; *text; text++)
        outb(h, port, (uint8_t)*text);
}

static void test_debug_port(void **state)
{
    struct harness *h = harness_create(build_debug);
    struct sink *s = sink_of(h);

    assert_int_equal(inb(h, 0x402), 0xE9);
    assert_int_equal(inb(h, 0xE9), 0xE9);
    print(h, 0x402, "SeaBIOS (version 1)\r\nhalf");
    assert_int_equal(s->line_count, 1);
    assert_string_equal(s->lines[0], "SeaBIOS (version 1)");
    harness_reload(h); /* half a line moves with the machine */
    print(h, 0xE9, " and \x1B[2Jhalf\n\n");
    /* (The old machine has shown what it had when it went.) */
    assert_int_equal(s->line_count, 3);
    assert_string_equal(s->lines[2], "half and .[2Jhalf");
    assert_memory_equal(s->bytes, "SeaBIOS (version 1)\r\nhalf and \x1B[2Jhalf\n\n", 41);
    for (unsigned i = 0; i < 400; i++)
        outb(h, 0x402, 'x');
    assert_int_equal(s->line_count, 5); /* no line is endless */
    outb(h, 0x80, 0x5A);
    assert_int_equal(inb(h, 0x80), 0x5A);
    assert_int_equal(debug_port_post_code(h->dev[0]), 0x5A);
    harness_reset(h);
    assert_int_equal(s->line_count, 6); /* the rest is shown */
    assert_int_equal(inb(h, 0x80), 0);
    harness_destroy(h);
}

static void poke_debug(struct harness *h)
{
    for (unsigned i = 0; i < 200; i++)
        outb(h, 0x402, (uint8_t)i);
}

static void test_debug_port_damaged(void **state)
{
    struct harness *h = harness_create(build_debug);

    print(h, 0xE9, "abc");
    harness_corrupt(h, poke_debug);
    harness_destroy(h);
}

static void build_exit(struct harness *h)
{
    h->dev[0] = debug_exit_create(h->vm, DEBUG_EXIT_PORT, DEBUG_EXIT_BYTES, NULL);
    assert_non_null(h->dev[0]);
}

static void test_debug_exit(void **state)
{
    struct harness *h = harness_create(build_exit);
    struct vm_run_state *run = h->vm->run;
    struct error err;

    io_in(h, 0xF4, 4);
    assert_int_equal(atomic_load(&run->requests), 0);
    io_out(h, 0xF4, 0, 4);
    assert_int_equal(atomic_exchange(&run->requests, 0), REQUEST_POWEROFF);
    assert_int_equal(atomic_load(&run->poweroff_status), 1);
    outb(h, 0xF4, 0x21);
    assert_int_equal(atomic_load(&run->poweroff_status), 0x43);
    io_out(h, 0xF4, 0xFFFFFF80, 4);
    assert_int_equal(atomic_load(&run->poweroff_status), 1);
    atomic_store(&run->requests, 0);
    assert_non_null(debug_exit_create(h->vm, 0x501, 1, NULL));
    outb(h, 0x502, 0);
    assert_int_equal(atomic_load(&run->requests), 0);
    outb(h, 0x501, 0);
    assert_int_equal(atomic_exchange(&run->requests, 0), REQUEST_POWEROFF);
    assert_null(debug_exit_create(h->vm, 0x501, 3, &err));
    assert_null(debug_exit_create(h->vm, 0xFFFE, 4, &err));
    harness_destroy(h);
}

static void build_testdev(struct harness *h)
{
    struct irq_line gsi[TESTDEV_GSI_COUNT];

    for (unsigned i = 0; i < TESTDEV_GSI_COUNT; i++)
        gsi[i] = harness_line(h, i);
    h->dev[0] = testdev_create(h->vm, gsi, NULL);
    assert_non_null(h->dev[0]);
}

static void test_testdev(void **state)
{
    struct harness *h = harness_create(build_testdev);
    uint64_t before;

    /* The latch by every width; E8H is the same one. */
    io_out(h, 0xE0, 0x12345678, 4);
    assert_int_equal(io_in(h, 0xE0, 4), 0x12345678);
    assert_int_equal(io_in(h, 0xE0, 1), 0x78);
    assert_int_equal(io_in(h, 0xE2, 2), 0x1234);
    outb(h, 0xE3, 0xAA);
    assert_int_equal(io_in(h, 0xE8, 4), 0xAA345678);
    io_out(h, 0xE8, 0xDEADBEEF, 4);
    assert_int_equal(io_in(h, 0xE0, 4), 0xDEADBEEF);
    io_out(h, 0xE9, 0x1122, 2);
    assert_int_equal(io_in(h, 0xE8, 4), 0xDE1122EF);
    /* Interrupt lines. */
    for (unsigned i = 0; i < 24; i++) {
        outb(h, 0x2000 + i, 1);
        assert_true(h->line[i].level);
        assert_int_equal(h->line[i].rises, 1);
    }
    outb(h, 0x2005, 0);
    assert_false(h->line[5].level);
    io_out(h, 0x2004, 0, 4); /* one line a write, whatever its width */
    assert_false(h->line[4].level);
    assert_true(h->line[6].level);
    outb(h, 0x2018, 1);
    /* Scratch, by every width. */
    mm_out(h, 0xFF000000, 0x1122334455667788, 8);
    assert_int_equal(mm_in(h, 0xFF000000, 8), 0x1122334455667788);
    assert_int_equal(mm_in(h, 0xFF000003, 4), 0x22334455);
    mm_out(h, 0xFF00FFFF, 0xEE, 1);
    assert_int_equal(mm_in(h, 0xFF00FFFE, 2), 0xEE00);
    assert_int_equal(mm_in(h, 0xFF010000, 4), 0xFFFFFFFF);
    /* A flush changes the view twice, which every processor is told of. */
    before = atomic_load(&h->vm->view_generation);
    io_out(h, 0xE4, 0x12345000, 4);
    assert_int_equal(atomic_load(&h->vm->view_generation), before + 2);
    assert_int_equal(mm_in(h, 0xFF00FFFF, 1), 0xEE);
    harness_reload(h);
    assert_int_equal(mm_in(h, 0xFF00FFFF, 1), 0xEE);
    assert_int_equal(io_in(h, 0xE0, 4), 0xDE1122EF);
    harness_reset(h);
    assert_int_equal(io_in(h, 0xE0, 4), 0);
    assert_int_equal(mm_in(h, 0xFF000000, 8), 0);
    assert_false(h->line[6].level);
    harness_destroy(h);
}

static uint64_t op_testdev(struct harness *h, uint64_t random)
{
    uint64_t at = 0xFF000000 + (random >> 48) % (64 * KiB);
    unsigned size = 1u << (random >> 8 & 3);

    switch (random % 6) {
    case 0:
        io_out(h, 0xE0 + (random >> 16) % 12, random >> 32, size);
        return 0;
    case 1:
        return io_in(h, 0xE0 + (random >> 16) % 12, size);
    case 2:
        io_out(h, 0x2000 + (random >> 16) % 24, random >> 32 & 1, size);
        return 0;
    case 3:
        mm_out(h, at, random, size);
        return 0;
    default:
        return mm_in(h, at, size);
    }
}

static void test_testdev_state(void **state)
{
    harness_fuzz(build_testdev, op_testdev, 3000, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_debug_port),    cmocka_unit_test(test_debug_port_damaged),
        cmocka_unit_test(test_debug_exit),    cmocka_unit_test(test_testdev),
        cmocka_unit_test(test_testdev_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
