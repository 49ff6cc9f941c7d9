/*
 * The two 8259As, driven through their ports. Sections named are those of the
 * 8259A data sheet.
 */
#include "dev/irq/i8259.h"
#include "tests/dev/harness.h"

enum { INTR = 0 }; /* harness line */

static void build(struct harness *h)
{
    struct i8259_config config = {.intr = harness_line(h, INTR)};

    h->dev[0] = i8259_create(h->vm, &config, NULL);
    assert_non_null(h->dev[0]);
}

static void set_input(struct harness *h, unsigned n, bool level)
{
    struct irq_line line = i8259_input(h->dev[0], n);

    irq_set(&line, level);
}

static void pulse(struct harness *h, unsigned n)
{
    set_input(h, n, true);
    set_input(h, n, false);
}

static bool intr(struct harness *h)
{
    assert_int_equal(h->line[INTR].level, i8259_intr(h->dev[0]));
    return h->line[INTR].level;
}

static unsigned ack(struct harness *h)
{
    return i8259_ack(h->dev[0]);
}

static void init_chip(struct harness *h, uint16_t port, uint8_t base, uint8_t icw3, uint8_t icw4)
{
    outb(h, port, 0x11);
    outb(h, port + 1, base);
    outb(h, port + 1, icw3);
    outb(h, port + 1, icw4);
}

/* As a PC's firmware does, vectors 20H and 28H. */
static struct harness *start(uint8_t icw4)
{
    struct harness *h = harness_create(build);

    init_chip(h, 0x20, 0x20, 0x04, icw4);
    init_chip(h, 0xa0, 0x28, 0x02, icw4);
    return h;
}

static uint8_t read_irr(struct harness *h, uint16_t port)
{
    outb(h, port, 0x0a);
    return inb(h, port);
}

static uint8_t read_isr(struct harness *h, uint16_t port)
{
    outb(h, port, 0x0b);
    return inb(h, port);
}

static void test_silent_before_initialization(void **state)
{
    struct harness *h = harness_create(build);

    set_input(h, 0, true);
    set_input(h, 9, true);
    assert_false(intr(h));
    outb(h, 0x21, 0);
    assert_false(intr(h));
    /* ICW1 wants a new edge. */
    init_chip(h, 0x20, 0x20, 0x04, 0x01);
    assert_false(intr(h));
    pulse(h, 0);
    assert_false(intr(h)); /* it was high: no edge */
    pulse(h, 0);
    assert_true(intr(h));
    harness_destroy(h);
}

static void test_basic(void **state)
{
    struct harness *h = start(0x01);

    assert_false(intr(h));
    pulse(h, 3);
    assert_true(intr(h));
    assert_int_equal(read_irr(h, 0x20), 0x08);
    assert_int_equal(read_isr(h, 0x20), 0x00);
    assert_int_equal(ack(h), 0x23);
    assert_false(intr(h));
    assert_int_equal(read_irr(h, 0x20), 0x00);
    assert_int_equal(read_isr(h, 0x20), 0x08);
    outb(h, 0x20, 0x20);
    assert_int_equal(inb(h, 0x20), 0x00); /* the choice of ISR stays */
    /* Masked requests wait in IRR. */
    outb(h, 0x21, 0x08);
    assert_int_equal(inb(h, 0x21), 0x08);
    pulse(h, 3);
    assert_false(intr(h));
    assert_int_equal(read_irr(h, 0x20), 0x08);
    assert_false(i8259_waiting(h->dev[0], 3));
    outb(h, 0x21, 0x00);
    assert_true(intr(h));
    assert_true(i8259_waiting(h->dev[0], 3));
    assert_false(i8259_waiting(h->dev[0], 11));
    assert_int_equal(ack(h), 0x23);
    assert_false(i8259_waiting(h->dev[0], 3));
    harness_destroy(h);
}

static void test_nesting(void **state)
{
    struct harness *h = start(0x01);

    pulse(h, 3);
    assert_int_equal(ack(h), 0x23);
    pulse(h, 4);
    assert_false(intr(h)); /* lower than what is in service */
    pulse(h, 3);
    assert_false(intr(h)); /* equal */
    pulse(h, 1);
    assert_true(intr(h));
    assert_int_equal(ack(h), 0x21);
    outb(h, 0x20, 0x20); /* ends the highest, 1 */
    assert_int_equal(read_isr(h, 0x20), 0x08);
    assert_false(intr(h));
    outb(h, 0x20, 0x63); /* specific: 3 */
    assert_true(intr(h));
    assert_int_equal(ack(h), 0x23);
    outb(h, 0x20, 0x20);
    assert_int_equal(ack(h), 0x24);
    harness_destroy(h);
}

static void test_cascade(void **state)
{
    struct harness *h = start(0x01);

    pulse(h, 12);
    pulse(h, 8);
    assert_true(intr(h));
    assert_int_equal(read_irr(h, 0x20), 0x04);
    assert_int_equal(ack(h), 0x28);
    assert_int_equal(read_isr(h, 0x20), 0x04);
    assert_int_equal(read_isr(h, 0xa0), 0x01);
    assert_false(intr(h));
    outb(h, 0x20, 0x20); /* the master alone: the slave still serves 8 */
    assert_false(intr(h));
    outb(h, 0xa0, 0x20);
    assert_true(intr(h));
    assert_int_equal(ack(h), 0x2c);
    /* A higher slave level has to wait for the master's EOI ... */
    pulse(h, 9);
    assert_false(intr(h));
    outb(h, 0x20, 0x20);
    assert_true(intr(h));
    assert_int_equal(ack(h), 0x29);
    /* A masked slave request takes back the cascade. */
    outb(h, 0xa0, 0x20);
    outb(h, 0xa0, 0x20);
    outb(h, 0x20, 0x20);
    pulse(h, 10);
    assert_true(intr(h));
    outb(h, 0xa1, 0x04);
    assert_false(intr(h));
    assert_int_equal(read_irr(h, 0x20), 0x00);
    /* What is driven on input 2 is lost. */
    pulse(h, 2);
    assert_false(intr(h));
    harness_destroy(h);
}

static void test_special_fully_nested(void **state)
{
    struct harness *h = start(0x01);

    /* ... unless the master is in special fully nested mode. */
    init_chip(h, 0x20, 0x20, 0x04, 0x11);
    pulse(h, 12);
    assert_int_equal(ack(h), 0x2c);
    pulse(h, 13);
    assert_false(intr(h)); /* lower in the slave */
    pulse(h, 9);
    assert_true(intr(h));
    assert_int_equal(ack(h), 0x29);
    /* The slave in service still blocks the master's lower levels. */
    pulse(h, 3);
    assert_false(intr(h));
    pulse(h, 1);
    assert_true(intr(h));
    harness_destroy(h);
}

static void test_spurious(void **state)
{
    struct harness *h = start(0x01);

    outb(h, 0x4d0, 0x20); /* IRQ 5 is level-triggered */
    set_input(h, 5, true);
    assert_true(intr(h));
    set_input(h, 5, false);
    assert_false(intr(h));
    assert_int_equal(ack(h), 0x27); /* the processor was faster */
    assert_int_equal(read_isr(h, 0x20), 0x00);
    /* A real IRQ 7 has its bit set. */
    pulse(h, 7);
    assert_int_equal(ack(h), 0x27);
    assert_int_equal(read_isr(h, 0x20), 0x80);
    harness_destroy(h);
}

static void test_level(void **state)
{
    struct harness *h = start(0x01);

    outb(h, 0x4d0, 0xff);
    outb(h, 0x4d1, 0xff);
    assert_int_equal(inb(h, 0x4d0), 0xf8);
    assert_int_equal(inb(h, 0x4d1), 0xde);
    assert_int_equal(io_in(h, 0x4d0, 2), 0xdef8);
    set_input(h, 11, true);
    assert_int_equal(ack(h), 0x2b);
    assert_int_equal(read_irr(h, 0xa0), 0x08); /* the input is still there */
    outb(h, 0xa0, 0x20);
    outb(h, 0x20, 0x20);
    assert_true(intr(h));
    assert_int_equal(ack(h), 0x2b);
    set_input(h, 11, false);
    outb(h, 0xa0, 0x20);
    outb(h, 0x20, 0x20);
    assert_false(intr(h));
    /* Becoming a level input, a high line requests at once; becoming an edge
     * input takes that back. */
    outb(h, 0x4d1, 0x00);
    set_input(h, 11, true);
    assert_int_equal(ack(h), 0x2b);
    outb(h, 0xa0, 0x20);
    outb(h, 0x20, 0x20);
    assert_false(intr(h));
    outb(h, 0x4d1, 0x08);
    assert_true(intr(h));
    outb(h, 0x4d1, 0x00);
    assert_false(intr(h));
    harness_destroy(h);
}

static void test_rotation(void **state)
{
    struct harness *h = start(0x01);

    outb(h, 0x20, 0xc3); /* 3 is the lowest, 4 the highest */
    pulse(h, 3);
    pulse(h, 5);
    assert_int_equal(ack(h), 0x25);
    assert_false(intr(h));
    outb(h, 0x20, 0xa0); /* end of 5, which becomes the lowest: 6, 7, 0, ... */
    assert_int_equal(ack(h), 0x23);
    pulse(h, 5);
    assert_false(intr(h));
    pulse(h, 6);
    assert_int_equal(ack(h), 0x26);
    outb(h, 0x20, 0xe6); /* specific, 6 becomes the lowest */
    assert_int_equal(read_isr(h, 0x20), 0x08);
    pulse(h, 6);
    assert_false(intr(h));
    outb(h, 0x20, 0x20);
    assert_int_equal(ack(h), 0x25);
    harness_destroy(h);
}

static void test_automatic_eoi(void **state)
{
    struct harness *h = start(0x03);

    pulse(h, 4);
    pulse(h, 9);
    pulse(h, 10);
    assert_int_equal(ack(h), 0x29);
    assert_true(intr(h)); /* both chips are done at once: the slave asks again */
    assert_int_equal(ack(h), 0x2a);
    assert_int_equal(ack(h), 0x24);
    assert_false(intr(h));
    assert_int_equal(read_isr(h, 0x20) | read_isr(h, 0xa0), 0x00);
    /* Rotating. */
    outb(h, 0x20, 0x80);
    pulse(h, 4);
    assert_int_equal(ack(h), 0x24);
    pulse(h, 4);
    pulse(h, 7);
    assert_int_equal(ack(h), 0x27);
    assert_int_equal(ack(h), 0x24);
    outb(h, 0x20, 0x00);
    pulse(h, 6);
    assert_int_equal(ack(h), 0x26);
    pulse(h, 6);
    pulse(h, 7);
    assert_int_equal(ack(h), 0x26); /* 4 is still the lowest */
    harness_destroy(h);
}

static void test_special_mask(void **state)
{
    struct harness *h = start(0x01);

    pulse(h, 3);
    assert_int_equal(ack(h), 0x23);
    outb(h, 0x21, 0x08);
    pulse(h, 4);
    assert_false(intr(h)); /* masked, but in service */
    outb(h, 0x20, 0x68);   /* ESMM, SMM */
    assert_true(intr(h));
    assert_int_equal(ack(h), 0x24);
    outb(h, 0x20, 0x20); /* passes over 3, which is masked */
    assert_int_equal(read_isr(h, 0x20), 0x08);
    outb(h, 0x20, 0x20);
    assert_int_equal(read_isr(h, 0x20), 0x08);
    outb(h, 0x20, 0x08); /* without ESMM nothing changes */
    pulse(h, 4);
    assert_true(intr(h));
    outb(h, 0x20, 0x48); /* off */
    assert_false(intr(h));
    outb(h, 0x20, 0x20);
    assert_int_equal(read_isr(h, 0x20), 0x00);
    assert_true(intr(h));
    harness_destroy(h);
}

static void test_poll(void **state)
{
    struct harness *h = start(0x01);

    outb(h, 0x20, 0x0c);
    assert_int_equal(inb(h, 0x20), 0x00);
    pulse(h, 6);
    pulse(h, 14);
    outb(h, 0x20, 0x0c);
    assert_int_equal(inb(h, 0x20), 0x82); /* the cascade */
    assert_int_equal(read_isr(h, 0x20), 0x04);
    outb(h, 0xa0, 0x0c);
    assert_int_equal(inb(h, 0xa1), 0x86); /* either port */
    assert_int_equal(inb(h, 0xa1), 0x00); /* one read only */
    assert_int_equal(read_isr(h, 0xa0), 0x40);
    outb(h, 0x20, 0x20);
    outb(h, 0xa0, 0x20);
    outb(h, 0x20, 0x0c);
    assert_int_equal(inb(h, 0x20), 0x86);
    assert_false(intr(h));
    harness_destroy(h);
}

static void test_initialization_variants(void **state)
{
    struct harness *h = start(0x03);

    /* No ICW3, no ICW4: also turns automatic EOI off. */
    outb(h, 0x20, 0x12);
    outb(h, 0x21, 0x47);
    outb(h, 0x21, 0xf0); /* this is the mask already */
    assert_int_equal(inb(h, 0x21), 0xf0);
    pulse(h, 1);
    assert_int_equal(ack(h), 0x41);
    assert_int_equal(read_isr(h, 0x20), 0x02);
    /* ICW1 forgets what was in service, masked and rotated; in the middle of
     * the words nothing is requested. */
    outb(h, 0x20, 0xc3);
    outb(h, 0x20, 0x11);
    pulse(h, 5);
    pulse(h, 0);
    assert_false(intr(h));
    outb(h, 0x21, 0x20);
    outb(h, 0x21, 0x04);
    harness_reload(h);
    outb(h, 0x21, 0x01);
    assert_int_equal(inb(h, 0x21), 0x00);
    assert_int_equal(ack(h), 0x20);
    outb(h, 0x20, 0x20);
    assert_int_equal(ack(h), 0x25);
    harness_destroy(h);
}

static void test_reset(void **state)
{
    struct harness *h = start(0x01);

    pulse(h, 1);
    outb(h, 0x4d0, 0xf8);
    assert_true(intr(h));
    harness_reset(h);
    assert_false(intr(h));
    assert_int_equal(inb(h, 0x4d0), 0x00);
    harness_destroy(h);
}

static uint64_t any_op(struct harness *h, uint64_t r)
{
    static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
    uint16_t port = ports[(r >> 8) % ARRAY_SIZE(ports)];

    switch (r & 7) {
    case 0:
    case 1:
        set_input(h, r >> 8 & 15, r >> 12 & 1);
        return intr(h);
    case 2:
        return inb(h, port);
    case 3:
        return ack(h);
    case 4: /* whole initializations, lest everything stays silent */
        if (r >> 20 & 7) {
            outb(h, r >> 8 & 1 ? 0x20 : 0xa0, 0x20);
        } else {
            init_chip(h, 0x20, r >> 24 & 0xf8, 4, r >> 32 & 0x1f);
            init_chip(h, 0xa0, r >> 40 & 0xf8, 2, r >> 48 & 0x1f);
        }
        return intr(h);
    default:
        /* Commands without ICW1 most of the time. */
        outb(h, port, (uint8_t)(r >> 16) & (r >> 24 & 3 ? 0xef : 0xff));
        return intr(h);
    }
}

static void test_random(void **state)
{
    harness_fuzz(build, any_op, 20000, 0x8259);
}

static void poke(struct harness *h)
{
    uint64_t seed = 7;

    for (unsigned i = 0; i < 50; i++)
        any_op(h, harness_random(&seed));
}

static void test_hostile_state(void **state)
{
    struct harness *h = start(0x01);

    pulse(h, 1);
    ack(h);
    pulse(h, 9);
    harness_corrupt(h, poke);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silent_before_initialization),
        cmocka_unit_test(test_basic),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_cascade),
        cmocka_unit_test(test_special_fully_nested),
        cmocka_unit_test(test_spurious),
        cmocka_unit_test(test_level),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_automatic_eoi),
        cmocka_unit_test(test_special_mask),
        cmocka_unit_test(test_poll),
        cmocka_unit_test(test_initialization_variants),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_hostile_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
