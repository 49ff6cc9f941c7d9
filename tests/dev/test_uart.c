/*
 * The 16550A through its ports. The data sheet is National Semiconductor's
 * PC16550D; the last test repeats what Linux' driver does to find one.
 */
#include "dev/serial/uart16550.h"
#include "tests/dev/harness.h"

enum { IRQ4 = 4 };
enum { RBR = 0x3F8, IER, IIR, LCR, MCR, LSR, MSR, SCR };
enum { OUT2 = 8, LOOP = 0x10 };

/* A back end whose wire the test holds in its hands. */
struct wire {
    struct char_backend b;
    uint8_t sent[4096];
    unsigned sent_count, resumed;
};

static void wire_write(struct char_backend *b, const uint8_t *data, size_t bytes)
{
    struct wire *w = CONTAINER_OF(b, struct wire, b);

    for (size_t i = 0; i < bytes; i++)
        w->sent[w->sent_count++ % sizeof w->sent] = data[i];
}

static void wire_resume(struct char_backend *b)
{
    CONTAINER_OF(b, struct wire, b)->resumed++;
}

static const struct char_ops wire_ops = {.write = wire_write, .resume_input = wire_resume};

/* One for each of the machines that a fuzz run compares; it stays the same
 * when a machine is reloaded. */
static struct wire *wire_of(struct harness *h)
{
    static struct wire wires[2];
    static unsigned turn;

    if (!h->test) {
        h->test = &wires[turn++ % 2];
        memset(h->test, 0, sizeof wires[0]);
    }
    return h->test;
}

static void build(struct harness *h)
{
    struct wire *w = wire_of(h);
    const struct uart16550_config config = {
        .name = "serial0", .port = RBR, .irq = harness_line(h, IRQ4), .chars = &w->b};

    w->b.ops = &wire_ops;
    h->dev[0] = uart16550_create(h->vm, &config, NULL);
    assert_non_null(h->dev[0]);
}

static void end(struct harness *h)
{
    harness_destroy(h);
}

static size_t room(struct harness *h)
{
    return wire_of(h)->b.front.room(wire_of(h)->b.front.ctx);
}

/* As many bytes as it takes, as a back end does. */
static size_t receive(struct harness *h, const char *text)
{
    struct char_frontend *front = &wire_of(h)->b.front;
    size_t bytes = MIN(strlen(text), front->room(front->ctx));

    front->receive(front->ctx, (const uint8_t *)text, bytes);
    return bytes;
}

static void test_reset_values(void **state)
{
    struct harness *h = harness_create(build);

    for (int round = 0; round < 2; round++) {
        assert_int_equal(inb(h, IER), 0);
        assert_int_equal(inb(h, IIR), 1);
        assert_int_equal(inb(h, LCR), 0);
        assert_int_equal(inb(h, MCR), 0);
        assert_int_equal(inb(h, LSR), 0x60);
        assert_int_equal(inb(h, MSR), 0xB0);
        for (unsigned r = IER; r <= SCR; r++)
            outb(h, r, 0x5B);
        receive(h, "x");
        harness_reset(h);
    }
    end(h);
}

static void test_divisor_and_scratch(void **state)
{
    struct harness *h = harness_create(build);

    outb(h, SCR, 0xA5);
    outb(h, LCR, 0x83);
    outb(h, RBR, 0x34);
    outb(h, IER, 0x12);
    assert_int_equal(inb(h, RBR), 0x34);
    assert_int_equal(inb(h, IER), 0x12);
    outb(h, LCR, 3);
    assert_int_equal(inb(h, IER), 0);
    assert_int_equal(inb(h, SCR), 0xA5);
    assert_int_equal(wire_of(h)->sent_count, 0); /* the latch is no THR */
    outb(h, IER, 0xFF);
    assert_int_equal(inb(h, IER), 0x0F);
    outb(h, MCR, 0xFF);
    assert_int_equal(inb(h, MCR), 0x1F);
    end(h);
}

static void test_transmit(void **state)
{
    struct harness *h = harness_create(build);
    struct wire *w = wire_of(h);

    outb(h, LCR, 3);
    outb(h, RBR, 'A');
    outb(h, RBR, 0xFE);
    outb(h, LCR, 0); /* 5 bits */
    outb(h, RBR, 0xFF);
    assert_int_equal(w->sent_count, 3);
    assert_memory_equal(w->sent, "A\xFE\x1F", 3);
    outb(h, LCR, 0x43); /* break: nothing gets through */
    outb(h, RBR, 'x');
    assert_int_equal(w->sent_count, 3);
    /* A wide write to the port is the bus' matter: byte by byte. */
    outb(h, LCR, 3);
    io_out(h, SCR, 0x2211, 2);
    assert_int_equal(inb(h, SCR), 0x11);
    end(h);
}

static void test_thre_interrupt(void **state)
{
    struct harness *h = harness_create(build);

    outb(h, IER, 2);
    assert_false(h->line[IRQ4].level); /* OUT2 gates the line ... */
    assert_int_equal(inb(h, IIR), 2);  /* ... but not the identification */
    assert_int_equal(inb(h, IIR), 1);  /* which reading has cleared */
    outb(h, MCR, OUT2);
    assert_false(h->line[IRQ4].level);
    outb(h, RBR, 'a');
    assert_true(h->line[IRQ4].level);
    outb(h, RBR, 'b');
    assert_int_equal(h->line[IRQ4].rises, 1);
    assert_int_equal(inb(h, IIR), 2);
    assert_false(h->line[IRQ4].level);
    outb(h, IER, 0);
    outb(h, IER, 2); /* enabling asks again: how drivers start output */
    assert_true(h->line[IRQ4].level);
    outb(h, IER, 2);
    assert_int_equal(h->line[IRQ4].rises, 2);
    outb(h, MCR, 0);
    assert_false(h->line[IRQ4].level);
    end(h);
}

static void test_receive_without_fifo(void **state)
{
    struct harness *h = harness_create(build);
    unsigned resumed;

    outb(h, MCR, OUT2);
    outb(h, IER, 1);
    assert_int_equal(room(h), 1);
    assert_int_equal(receive(h, "pq"), 1);
    assert_int_equal(room(h), 0);
    assert_true(h->line[IRQ4].level);
    assert_int_equal(inb(h, IIR), 4);
    assert_int_equal(inb(h, LSR), 0x61);
    resumed = wire_of(h)->resumed;
    assert_int_equal(inb(h, RBR), 'p');
    assert_true(wire_of(h)->resumed > resumed);
    assert_false(h->line[IRQ4].level);
    assert_int_equal(inb(h, LSR), 0x60);
    assert_int_equal(inb(h, RBR), 'p');               /* the register keeps it */
    assert_int_equal(harness_next_ns(h), TIME_NEVER); /* no timeout without FIFOs */
    end(h);
}

static void test_fifo_triggers(void **state)
{
    static const unsigned triggers[] = {1, 4, 8, 14};
    struct harness *h = harness_create(build);

    outb(h, LCR, 3);
    outb(h, MCR, OUT2);
    outb(h, IER, 1);
    for (unsigned i = 0; i < 4; i++) {
        outb(h, IIR, (uint8_t)(i << 6 | 7));
        assert_int_equal(inb(h, IIR), 0xC1);
        for (unsigned n = 1; n <= triggers[i]; n++) {
            assert_false(h->line[IRQ4].level);
            receive(h, "c");
        }
        assert_true(h->line[IRQ4].level);
        assert_int_equal(inb(h, IIR), 0xC4);
        inb(h, RBR);
        assert_false(h->line[IRQ4].level);
    }
    /* Sixteen fit, in order. */
    outb(h, IIR, 7);
    assert_int_equal(receive(h, "0123456789abcdefXYZ"), 16);
    assert_int_equal(room(h), 0);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(inb(h, RBR), "0123456789abcdef"[i]);
    assert_int_equal(inb(h, LSR), 0x60);
    end(h);
}

static void test_character_timeout(void **state)
{
    struct harness *h = harness_create(build);
    /* 8N1 at 9600: 10 bits, 4 characters. */
    const uint64_t timeout = 4 * 10 * NS_PER_SEC / 9600;

    outb(h, LCR, 3);
    outb(h, MCR, OUT2);
    outb(h, IER, 1);
    outb(h, IIR, 0x81);
    receive(h, "ab");
    harness_advance(h, timeout - 1000);
    assert_false(h->line[IRQ4].level);
    receive(h, "c"); /* starts it again */
    harness_advance(h, timeout - 1000);
    assert_false(h->line[IRQ4].level);
    harness_advance(h, 2000);
    assert_true(h->line[IRQ4].level);
    assert_int_equal(inb(h, IIR), 0xCC);
    assert_int_equal(inb(h, IIR), 0xCC); /* only reading the data clears it */
    assert_int_equal(inb(h, RBR), 'a');
    assert_false(h->line[IRQ4].level);
    harness_advance(h, 2 * timeout);
    assert_int_equal(inb(h, IIR), 0xCC);
    inb(h, RBR);
    inb(h, RBR);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    /* A faster line, a shorter wait; divisor 0 counts 65536. */
    outb(h, LCR, 0x83);
    outb(h, RBR, 1);
    outb(h, IER, 0);
    outb(h, LCR, 3);
    receive(h, "d");
    assert_in_range(harness_next_ns(h) - harness_now_ns(h), 347000, 347300);
    outb(h, LCR, 0x83);
    outb(h, RBR, 0);
    outb(h, LCR, 3);
    receive(h, "e");
    assert_true(harness_next_ns(h) - harness_now_ns(h) > 22 * NS_PER_SEC);
    end(h);
}

static void test_line_status(void **state)
{
    struct harness *h = harness_create(build);
    struct char_frontend *front = &wire_of(h)->b.front;

    outb(h, MCR, OUT2);
    outb(h, IER, 4);
    outb(h, IIR, 1);
    receive(h, "x");
    front->receive_break(front->ctx, NULL, 0);
    /* The error is further down: bit 7 only, no interrupt yet. */
    assert_int_equal(inb(h, LSR), 0xE1);
    assert_false(h->line[IRQ4].level);
    assert_int_equal(inb(h, RBR), 'x');
    assert_true(h->line[IRQ4].level);
    assert_int_equal(inb(h, IIR), 0xC6);
    assert_int_equal(inb(h, LSR), 0xF9); /* BI and FE at the top */
    assert_int_equal(inb(h, LSR), 0x61);
    assert_false(h->line[IRQ4].level);
    assert_int_equal(inb(h, RBR), 0);
    /* Overrun: a back end that does not ask for room. */
    for (unsigned i = 0; i < 17; i++)
        front->receive(front->ctx, (const uint8_t *)"0123456789abcdefg" + i, 1);
    assert_int_equal(inb(h, LSR), 0x63);
    assert_int_equal(inb(h, LSR), 0x61);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(inb(h, RBR), "0123456789abcdef"[i]);
    /* Without FIFOs the new byte replaces the old. */
    outb(h, IIR, 0);
    front->receive(front->ctx, (const uint8_t *)"12", 2);
    assert_int_equal(inb(h, LSR), 0x63);
    assert_int_equal(inb(h, RBR), '2');
    assert_int_equal(inb(h, LSR), 0x60);
    end(h);
}

static void test_modem_and_loopback(void **state)
{
    struct harness *h = harness_create(build);

    outb(h, IER, 8);
    outb(h, MCR, LOOP | 0x0A); /* RTS, OUT2 */
    assert_int_equal(inb(h, MSR) & 0xF0, 0x90);
    assert_int_equal(inb(h, MSR), 0x90); /* deltas are gone */
    outb(h, MCR, LOOP | 0x05);           /* DTR, OUT1 */
    assert_int_equal(inb(h, IIR), 0);
    assert_int_equal(inb(h, MSR), 0x6B); /* RI and DSR; deltas of CTS, DSR, DCD */
    outb(h, MCR, LOOP);
    assert_int_equal(inb(h, MSR), 0x06); /* trailing edge of RI, delta of DSR */
    assert_int_equal(inb(h, IIR), 1);
    /* Data comes back, the wire sees none, and gives none. */
    outb(h, LCR, 3);
    outb(h, IIR, 1);
    assert_int_equal(room(h), 0);
    for (unsigned i = 0; i < 20; i++)
        outb(h, RBR, (uint8_t)(0x30 + i));
    assert_int_equal(wire_of(h)->sent_count, 0);
    assert_int_equal(inb(h, LSR), 0x63);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(inb(h, RBR), 0x30 + i);
    outb(h, LCR, 0x43);
    assert_int_equal(inb(h, LSR), 0xF9);
    assert_int_equal(inb(h, RBR), 0);
    outb(h, MCR, OUT2);
    assert_int_equal(inb(h, MSR) & 0xF0, 0xB0);
    assert_true(room(h) > 0);
    end(h);
}

static void test_priority(void **state)
{
    struct harness *h = harness_create(build);
    struct char_frontend *front = &wire_of(h)->b.front;

    outb(h, MCR, LOOP);
    outb(h, MCR, OUT2); /* modem deltas */
    outb(h, IER, 0x0F);
    front->receive_break(front->ctx, NULL, 0);
    assert_int_equal(inb(h, IIR), 6);
    inb(h, LSR);
    assert_int_equal(inb(h, IIR), 4);
    inb(h, RBR);
    assert_int_equal(inb(h, IIR), 2);
    assert_int_equal(inb(h, IIR), 0);
    inb(h, MSR);
    assert_int_equal(inb(h, IIR), 1);
    end(h);
}

static void test_fcr(void **state)
{
    struct harness *h = harness_create(build);

    outb(h, IIR, 0xC6); /* without the enable bit nothing is programmed */
    assert_int_equal(inb(h, IIR), 1);
    receive(h, "a");
    outb(h, IIR, 0x06);
    assert_int_equal(inb(h, LSR) & 1, 1);
    outb(h, IIR, 0x01); /* changing modes empties */
    assert_int_equal(inb(h, LSR) & 1, 0);
    receive(h, "abc");
    outb(h, IIR, 0x03);
    assert_int_equal(inb(h, LSR) & 1, 0);
    receive(h, "abc");
    outb(h, IIR, 0x00);
    assert_int_equal(inb(h, LSR) & 1, 0);
    assert_int_equal(inb(h, IIR), 1);
    end(h);
}

/* What drivers/tty/serial/8250 does to a port, in its order. */
static void test_as_linux_finds_it(void **state)
{
    struct harness *h = harness_create(build);

    outb(h, IER, 0);
    assert_int_equal(inb(h, IER), 0);
    outb(h, IER, 0x0F);
    assert_int_equal(inb(h, IER) & 0x0F, 0x0F);
    outb(h, IER, 0);
    outb(h, MCR, LOOP | 0x0A);
    assert_int_equal(inb(h, MSR) & 0xF0, 0x90);
    outb(h, MCR, 0);
    outb(h, LCR, 0xBF);
    outb(h, IIR, 0); /* EFR of a 16650: not there */
    outb(h, LCR, 0);
    outb(h, IIR, 1);
    assert_int_equal(inb(h, IIR) >> 6, 3); /* a 16550A */
    /* The THRE test: two interrupts for two enables. */
    outb(h, IER, 2);
    assert_int_equal(inb(h, IIR) & 0x0F, 2);
    outb(h, IER, 0);
    outb(h, IER, 2);
    assert_int_equal(inb(h, IIR) & 0x0F, 2);
    end(h);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    struct char_frontend *front = &wire_of(h)->b.front;
    uint64_t port = RBR + (random >> 8) % 8;

    switch (random % 8) {
    case 0:
        harness_advance(h, random >> 40);
        return 0;
    case 1:
        return receive(h, "abcdefghijklmnopq" + (random >> 16) % 17);
    case 2:
        if (random >> 16 & 7)
            return 0;
        front->receive_break(front->ctx, NULL, 0);
        return 0;
    case 3:
        outb(h, RBR, (uint8_t)(random >> 16));
        return 0;
    case 4:
        return inb(h, RBR);
    case 5:
        outb(h, port, (uint8_t)(random >> 16));
        return 0;
    default:
        return inb(h, port);
    }
}

static void test_state(void **state)
{
    for (unsigned seed = 1; seed <= 5; seed++)
        harness_fuzz(build, op, 5000, seed);
}

static void poke(struct harness *h)
{
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned r = 0; r < 8; r++)
            inb(h, RBR + r);
        receive(h, "0123456789abcdef");
    }
    outb(h, MCR, LOOP);
    outb(h, LCR, 3);
    for (unsigned i = 0; i < 20; i++)
        outb(h, RBR, (uint8_t)i);
}

static void test_damaged_state(void **state)
{
    struct harness *h = harness_create(build);

    outb(h, IIR, 1);
    receive(h, "abc");
    harness_corrupt(h, poke);
    end(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_values),
        cmocka_unit_test(test_divisor_and_scratch),
        cmocka_unit_test(test_transmit),
        cmocka_unit_test(test_thre_interrupt),
        cmocka_unit_test(test_receive_without_fifo),
        cmocka_unit_test(test_fifo_triggers),
        cmocka_unit_test(test_character_timeout),
        cmocka_unit_test(test_line_status),
        cmocka_unit_test(test_modem_and_loopback),
        cmocka_unit_test(test_priority),
        cmocka_unit_test(test_fcr),
        cmocka_unit_test(test_as_linux_finds_it),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_damaged_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
