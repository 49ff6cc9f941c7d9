/*
 * The I/O APIC, driven through its registers. Sections named are those of the
 * 82093AA data sheet.
 */
#include "dev/irq/ioapic.h"
#include "tests/dev/harness.h"

enum { MASKED = 1 << 16, LEVEL = 1 << 15, REMOTE_IRR = 1 << 14, LOGICAL = 1 << 11 };

static void build(struct harness *h)
{
    struct ioapic_config config = {.port = harness_port(h)};

    h->dev[0] = ioapic_create(h->vm, &config, NULL);
    assert_non_null(h->dev[0]);
}

static void set_pin(struct harness *h, unsigned pin, bool level)
{
    struct irq_line line = ioapic_input(h->dev[0], pin);

    irq_set(&line, level);
}

static uint32_t get(struct harness *h, unsigned reg)
{
    mm_out(h, IOAPIC_BASE, reg, 4);
    return (uint32_t)mm_in(h, IOAPIC_BASE + 0x10, 4);
}

static void put(struct harness *h, unsigned reg, uint32_t value)
{
    mm_out(h, IOAPIC_BASE, reg, 4);
    mm_out(h, IOAPIC_BASE + 0x10, value, 4);
}

static void put_entry(struct harness *h, unsigned pin, uint64_t entry)
{
    put(h, 0x10 + 2 * pin, MASKED);
    put(h, 0x11 + 2 * pin, (uint32_t)(entry >> 32));
    put(h, 0x10 + 2 * pin, (uint32_t)entry);
}

static uint64_t get_entry(struct harness *h, unsigned pin)
{
    return get(h, 0x10 + 2 * pin) | (uint64_t)get(h, 0x11 + 2 * pin) << 32;
}

/* How many messages since the last call. */
static unsigned sent(struct harness *h)
{
    unsigned n = h->message_count;

    h->message_count = 0;
    return n;
}

static void test_registers(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(get(h, 0x01), 0x00170020);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        assert_int_equal(get_entry(h, pin), MASKED);
    put(h, 0x00, 0xffffffff);
    assert_int_equal(get(h, 0x00), 0x0f000000);
    assert_int_equal(get(h, 0x02), 0x0f000000);
    put(h, 0x01, 0xffffffff);
    put(h, 0x02, 0);
    assert_int_equal(get(h, 0x01), 0x00170020);
    assert_int_equal(get(h, 0x02), 0x0f000000);
    /* Reserved and read-only bits. */
    put_entry(h, 23, 0xffffffffffffffff);
    assert_int_equal(get_entry(h, 23), 0xff0000000001afff);
    /* Registers that are not there. */
    put(h, 0x40, 0xffffffff);
    assert_int_equal(get(h, 0x40), 0);
    put(h, 0x0f, 0xffffffff);
    assert_int_equal(get(h, 0x0f), 0);
    put(h, 0xff, 0xffffffff);
    assert_int_equal(get(h, 0xff), 0);
    /* Index: 8 bits; parts of the window can be read but not written. */
    mm_out(h, IOAPIC_BASE, 0xabcdef01, 4);
    assert_int_equal(mm_in(h, IOAPIC_BASE, 4), 0x01);
    assert_int_equal(mm_in(h, IOAPIC_BASE + 0x12, 2), 0x0017);
    assert_int_equal(mm_in(h, IOAPIC_BASE + 0x10, 1), 0x20);
    mm_out(h, IOAPIC_BASE, 0x10, 1);
    mm_out(h, IOAPIC_BASE + 0x10, 0x55, 1);
    mm_out(h, IOAPIC_BASE + 0x12, 0, 2);
    assert_int_equal(get(h, 0x10), MASKED);
    assert_int_equal(mm_in(h, IOAPIC_BASE + 0x20, 4), 0);
    assert_int_equal(mm_in(h, IOAPIC_BASE + 0xffc, 4), 0);
    harness_destroy(h);
}

static void test_edge(void **state)
{
    struct harness *h = harness_create(build);

    put_entry(h, 4, 0x0300000000000000 | 0x34);
    set_pin(h, 4, true);
    assert_int_equal(sent(h), 1);
    assert_int_equal(h->message[0].address, 0xfee03000);
    assert_int_equal(h->message[0].data, 0x4034);
    set_pin(h, 4, true);
    ioapic_eoi(h->dev[0], 0x34);
    assert_int_equal(sent(h), 0);
    set_pin(h, 4, false);
    assert_int_equal(sent(h), 0);
    set_pin(h, 4, true);
    assert_int_equal(sent(h), 1);
    /* "Edge-sensitive interrupts signaled on a masked pin are ignored". */
    set_pin(h, 4, false);
    put(h, 0x18, 0x34 | MASKED);
    set_pin(h, 4, true);
    put(h, 0x18, 0x34);
    assert_int_equal(sent(h), 0);
    harness_destroy(h);
}

static bool answer_waiting(void *ctx, struct irq_message m)
{
    return m.address == 0xfee03000 && m.data == 0x4034;
}

static void build_waiting(struct harness *h)
{
    struct ioapic_config config = {.port = harness_port(h)};

    config.port.waiting = answer_waiting;
    h->dev[0] = ioapic_create(h->vm, &config, NULL);
    assert_non_null(h->dev[0]);
}

/* What the processors say of a pin's message. */
static void test_waiting(void **state)
{
    struct harness *h = harness_create(build_waiting);

    put_entry(h, 4, 0x0300000000000000 | 0x34);
    put_entry(h, 5, 0x0200000000000000 | 0x34);
    put_entry(h, 6, 0x0300000000000000 | 0x34 | MASKED);
    assert_true(ioapic_waiting(h->dev[0], 4));
    assert_false(ioapic_waiting(h->dev[0], 5));
    assert_false(ioapic_waiting(h->dev[0], 6));
    harness_destroy(h);
    h = harness_create(build);
    put_entry(h, 4, 0x0300000000000000 | 0x34);
    assert_false(ioapic_waiting(h->dev[0], 4));
    harness_destroy(h);
}

static void test_level(void **state)
{
    struct harness *h = harness_create(build);

    put_entry(h, 16, 0xff00000000000000 | 0x51 | LEVEL | LOGICAL | 1 << 8);
    set_pin(h, 16, true);
    assert_int_equal(sent(h), 1);
    assert_int_equal(h->message[0].address, 0xfeeff00c);
    assert_int_equal(h->message[0].data, 0xc151);
    assert_int_equal(get(h, 0x30) & REMOTE_IRR, REMOTE_IRR);
    set_pin(h, 16, false);
    set_pin(h, 16, true);
    put(h, 0x30, 0x51 | LEVEL | LOGICAL | 1 << 8);
    assert_int_equal(sent(h), 0); /* in service */
    harness_reload(h);
    ioapic_eoi(h->dev[0], 0x52);
    assert_int_equal(sent(h), 0);
    ioapic_eoi(h->dev[0], 0x51);
    assert_int_equal(sent(h), 1); /* still asserted */
    set_pin(h, 16, false);
    mm_out(h, IOAPIC_BASE + 0x40, 0x51, 4); /* the EOI register */
    assert_int_equal(sent(h), 0);
    assert_int_equal(get(h, 0x30) & REMOTE_IRR, 0);
    mm_out(h, IOAPIC_BASE + 0x40, 0x51, 1);
    /* Masked levels wait. */
    put(h, 0x30, 0x51 | LEVEL | MASKED);
    set_pin(h, 16, true);
    assert_int_equal(sent(h), 0);
    put(h, 0x30, 0x51 | LEVEL);
    assert_int_equal(sent(h), 1);
    /* Masking in service leaves the remote IRR to the EOI. */
    put(h, 0x30, 0x51 | LEVEL | MASKED);
    assert_int_equal(get(h, 0x30) & REMOTE_IRR, REMOTE_IRR);
    ioapic_eoi(h->dev[0], 0x51);
    assert_int_equal(get(h, 0x30) & REMOTE_IRR, 0);
    assert_int_equal(sent(h), 0);
    harness_destroy(h);
}

static void test_remote_irr_cleared_by_edge(void **state)
{
    struct harness *h = harness_create(build);

    put_entry(h, 20, 0x60 | LEVEL);
    set_pin(h, 20, true);
    assert_int_equal(sent(h), 1);
    put(h, 0x38, 0x60 | MASKED); /* edge for a moment */
    assert_int_equal(get(h, 0x38) & REMOTE_IRR, 0);
    put(h, 0x38, 0x60 | LEVEL);
    assert_int_equal(sent(h), 1);
    harness_destroy(h);
}

static void test_shared_vector(void **state)
{
    struct harness *h = harness_create(build);

    put_entry(h, 16, 0x70 | LEVEL);
    put_entry(h, 17, 0x70 | LEVEL);
    set_pin(h, 16, true);
    set_pin(h, 17, true);
    assert_int_equal(sent(h), 2);
    set_pin(h, 16, false);
    ioapic_eoi(h->dev[0], 0x70);
    assert_int_equal(sent(h), 1);
    set_pin(h, 17, false);
    ioapic_eoi(h->dev[0], 0x70);
    assert_int_equal(sent(h), 0);
    assert_int_equal((get(h, 0x30) | get(h, 0x32)) & REMOTE_IRR, 0);
    harness_destroy(h);
}

static void test_delivery_modes(void **state)
{
    struct harness *h = harness_create(build);
    static const unsigned modes[] = {2, 3, 4, 5, 6, 7};

    /* ExtINT, NMI and the like travel in the data, once an edge, with no
     * remote IRR even if programmed as levels. */
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        put_entry(h, 0, modes[i] << 8 | LEVEL | 0x22);
        set_pin(h, 0, true);
        assert_int_equal(sent(h), 1);
        assert_int_equal(h->message[0].data, 0x4022 | modes[i] << 8);
        assert_int_equal(h->message[0].address, 0xfee00000);
        assert_int_equal(get(h, 0x10) & REMOTE_IRR, 0);
        set_pin(h, 0, false);
        set_pin(h, 0, true);
        assert_int_equal(sent(h), 1);
        set_pin(h, 0, false);
    }
    harness_destroy(h);
}

static void test_reset(void **state)
{
    struct harness *h = harness_create(build);

    put_entry(h, 3, 0x30 | LEVEL);
    set_pin(h, 3, true);
    assert_int_equal(sent(h), 1);
    harness_reset(h);
    assert_int_equal(get_entry(h, 3), MASKED);
    /* The line is its device's: still asserted. */
    put_entry(h, 3, 0x30 | LEVEL);
    assert_int_equal(sent(h), 1);
    assert_null(ioapic_input(h->dev[0], 24).set);
    harness_destroy(h);
}

static uint64_t any_op(struct harness *h, uint64_t r)
{
    if (h->message_count > 500)
        h->message_count = 0;
    switch (r & 7) {
    case 0:
    case 1:
    case 2:
        set_pin(h, (r >> 8) % IOAPIC_PINS, r >> 16 & 1);
        return 0;
    case 3:
        ioapic_eoi(h->dev[0], (uint8_t)(r >> 8 & 0x13));
        return 0;
    case 4:
        put(h, r >> 8 & 0x3f, (uint32_t)(r >> 16) & 0xffffff13);
        return 0;
    case 5:
        return get(h, r >> 8 & 0x3f);
    case 6:
        mm_out(h, IOAPIC_BASE + (r >> 8 & 0x5f), r >> 16, 1u << (r >> 48 & 3));
        return 0;
    default:
        return mm_in(h, IOAPIC_BASE + (r >> 8 & 0xfff), 1u << (r >> 48 & 3));
    }
}

static void test_random(void **state)
{
    harness_fuzz(build, any_op, 20000, 0x82093);
}

static void poke(struct harness *h)
{
    uint64_t seed = 7;

    for (unsigned i = 0; i < 50; i++)
        any_op(h, harness_random(&seed));
}

static void test_hostile_state(void **state)
{
    struct harness *h = harness_create(build);

    put_entry(h, 3, 0x30 | LEVEL);
    set_pin(h, 3, true);
    harness_corrupt(h, poke);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers),     cmocka_unit_test(test_edge),
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_level),         cmocka_unit_test(test_remote_irr_cleared_by_edge),
        cmocka_unit_test(test_shared_vector), cmocka_unit_test(test_delivery_modes),
        cmocka_unit_test(test_reset),         cmocka_unit_test(test_random),
        cmocka_unit_test(test_hostile_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
