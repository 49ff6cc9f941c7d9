/*
 * The 8254 and port 61H, driven through their ports, to the tick. Mode
 * definitions and tables are those of the 8254 data sheet.
 */
#include "dev/timer/catchup.h"
#include "dev/timer/i8254.h"
#include "dev/timer/rearm.h"
#include "tests/dev/harness.h"

enum { IRQ0 = 0 }; /* harness line */
enum { LOW = 1, HIGH = 2, BOTH = 3, BCD = 1 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };

static void build(struct harness *h)
{
    struct i8254_config config = {.irq0 = harness_line(h, IRQ0)};

    h->dev[0] = i8254_create(h->vm, &config, NULL);
    assert_non_null(h->dev[0]);
}

/* The test says whether the last edge still waits for a processor. */
static bool busy(void *ctx, unsigned number)
{
    const struct harness *h = ctx;
    const bool *answer = h->test;

    return *answer;
}

static void build_probed(struct harness *h)
{
    struct i8254_config config = {.irq0 = harness_line(h, IRQ0), .irq0_probe = {busy, h, 0}};

    h->dev[0] = i8254_create(h->vm, &config, NULL);
    assert_non_null(h->dev[0]);
}

static uint64_t tick(struct harness *h)
{
    return clock_ticks(harness_now_ns(h), I8254_HZ);
}

static void to_tick(struct harness *h, uint64_t t)
{
    harness_advance(h, clock_ticks_to_ns(t, I8254_HZ) - harness_now_ns(h));
    assert_int_equal(tick(h), t);
}

static void control(struct harness *h, unsigned n, unsigned mode, unsigned access, unsigned bcd)
{
    outb(h, 0x43, (uint8_t)(n << 6 | access << 4 | mode << 1 | bcd));
}

static void write_count(struct harness *h, unsigned n, uint16_t count)
{
    outb(h, 0x40 + n, (uint8_t)count);
    outb(h, 0x40 + n, (uint8_t)(count >> 8));
}

static void program(struct harness *h, unsigned n, unsigned mode, uint16_t count)
{
    control(h, n, mode, BOTH, 0);
    write_count(h, n, count);
}

static uint16_t read_count(struct harness *h, unsigned n)
{
    uint16_t low;

    outb(h, 0x43, (uint8_t)(n << 6));
    low = inb(h, 0x40 + n);
    return (uint16_t)(low | inb(h, 0x40 + n) << 8);
}

static uint8_t read_status(struct harness *h, unsigned n)
{
    outb(h, 0x43, (uint8_t)(0xe0 | 2u << n));
    return inb(h, 0x40 + n);
}

static bool out(struct harness *h, unsigned n)
{
    return read_status(h, n) & STATUS_OUT;
}

/* Gate of counter 2, with the speaker off. */
static void gate2(struct harness *h, bool level)
{
    outb(h, 0x61, level);
}

static void test_mode0(void **state)
{
    struct harness *h = harness_create(build);

    to_tick(h, 100);
    control(h, 0, 0, BOTH, 0);
    assert_int_equal(read_status(h, 0), 0x70);
    write_count(h, 0, 4);
    assert_int_equal(read_status(h, 0), 0x70); /* loaded by the next clock */
    to_tick(h, 101);
    assert_int_equal(read_status(h, 0), 0x30);
    assert_int_equal(read_count(h, 0), 4);
    to_tick(h, 104);
    assert_int_equal(read_count(h, 0), 1);
    assert_false(out(h, 0));
    assert_false(h->line[IRQ0].level);
    to_tick(h, 105); /* N + 1 clocks after the write */
    assert_int_equal(read_count(h, 0), 0);
    assert_true(out(h, 0));
    assert_true(h->line[IRQ0].level);
    assert_int_equal(h->line[IRQ0].last_rise_ns, clock_ticks_to_ns(105, I8254_HZ));
    to_tick(h, 106); /* goes on from FFFFH, OUT stays */
    assert_int_equal(read_count(h, 0), 0xffff);
    assert_int_equal(harness_advance(h, NS_PER_SEC), 0);
    assert_int_equal(h->line[IRQ0].rises, 1);
    assert_true(h->line[IRQ0].level);
    /* The first byte of a new count stops and lowers OUT; the second starts. */
    to_tick(h, 2000000);
    outb(h, 0x40, 0x02);
    assert_false(out(h, 0));
    assert_false(h->line[IRQ0].level);
    to_tick(h, 2001000);
    assert_false(out(h, 0));
    harness_reload(h);
    outb(h, 0x40, 0x01);
    to_tick(h, 2001001 + 0x102 - 1);
    assert_false(h->line[IRQ0].level);
    to_tick(h, 2001001 + 0x102);
    assert_true(h->line[IRQ0].level);
    harness_destroy(h);
}

static void test_mode0_gate(void **state)
{
    struct harness *h = harness_create(build);

    program(h, 2, 0, 10); /* the gate is low: loaded, but waits */
    to_tick(h, 50);
    assert_int_equal(read_count(h, 2), 10);
    gate2(h, true);
    to_tick(h, 54);
    assert_int_equal(read_count(h, 2), 6);
    gate2(h, false);
    to_tick(h, 80);
    assert_int_equal(read_count(h, 2), 6);
    assert_int_equal(inb(h, 0x61) & 0x20, 0);
    gate2(h, true);
    harness_reload(h);
    to_tick(h, 85);
    assert_int_equal(inb(h, 0x61) & 0x20, 0);
    to_tick(h, 86);
    assert_int_equal(inb(h, 0x61) & 0x20, 0x20);
    /* Counter 2 has no interrupt. */
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    harness_destroy(h);
}

static void test_mode1(void **state)
{
    struct harness *h = harness_create(build);

    control(h, 2, 1, BOTH, 0);
    gate2(h, true); /* a trigger without a count */
    gate2(h, false);
    to_tick(h, 5);
    assert_true(out(h, 2));
    write_count(h, 2, 5);
    to_tick(h, 10);
    assert_int_equal(read_status(h, 2) & 0xc0, 0xc0); /* not triggered yet */
    gate2(h, true);
    to_tick(h, 11);
    assert_int_equal(read_status(h, 2) & 0xc0, 0);
    gate2(h, false); /* no matter */
    to_tick(h, 15);
    assert_false(out(h, 2));
    to_tick(h, 16);
    assert_true(out(h, 2));
    assert_int_equal(read_count(h, 2), 0);
    /* Retriggered in the middle; a new count waits for the trigger. */
    gate2(h, true);
    to_tick(h, 18);
    write_count(h, 2, 9);
    to_tick(h, 20);
    assert_int_equal(read_count(h, 2), 2);
    gate2(h, false);
    gate2(h, true);
    to_tick(h, 29);
    assert_false(out(h, 2));
    to_tick(h, 30);
    assert_true(out(h, 2));
    harness_destroy(h);
}

static void test_mode2(void **state)
{
    struct harness *h = harness_create(build);

    program(h, 0, 2, 1000);
    assert_true(out(h, 0));
    /* Programming raised OUT: an edge. */
    assert_int_equal(h->line[IRQ0].rises, 1);
    to_tick(h, 1);
    assert_int_equal(read_count(h, 0), 1000);
    to_tick(h, 1000);
    assert_int_equal(read_count(h, 0), 1);
    assert_false(out(h, 0));
    to_tick(h, 1001);
    assert_int_equal(read_count(h, 0), 1000);
    assert_true(out(h, 0));
    assert_int_equal(h->line[IRQ0].rises, 2);
    to_tick(h, 1 + 1000 * 500);
    assert_int_equal(h->line[IRQ0].rises, 1 + 500);
    assert_int_equal(h->line[IRQ0].last_rise_ns, clock_ticks_to_ns(500001, I8254_HZ));
    /* A new count takes effect at the end of the period. */
    to_tick(h, 500101);
    write_count(h, 0, 3000);
    assert_int_equal(read_status(h, 0) & STATUS_NULL, STATUS_NULL);
    assert_int_equal(read_count(h, 0), 900);
    to_tick(h, 500901);
    write_count(h, 0, 2000); /* the last one wins */
    harness_reload(h);
    to_tick(h, 501001);
    assert_int_equal(read_status(h, 0) & STATUS_NULL, 0);
    assert_int_equal(read_count(h, 0), 2000);
    assert_int_equal(h->line[IRQ0].rises, 502);
    to_tick(h, 503000);
    assert_int_equal(h->line[IRQ0].rises, 502);
    to_tick(h, 503001);
    assert_int_equal(h->line[IRQ0].rises, 503);
    harness_destroy(h);
}

static void test_mode2_gate(void **state)
{
    struct harness *h = harness_create(build);

    gate2(h, true);
    program(h, 2, 2, 100);
    to_tick(h, 100);
    assert_false(out(h, 2));
    gate2(h, false); /* sets OUT at once */
    assert_true(out(h, 2));
    write_count(h, 2, 50);
    to_tick(h, 500);
    assert_int_equal(read_count(h, 2), 1);
    gate2(h, true);
    to_tick(h, 501);
    assert_int_equal(read_count(h, 2), 50);
    to_tick(h, 550);
    assert_false(out(h, 2));
    /* A new count that a period's end would have taken, but the gate falls. */
    to_tick(h, 560);
    write_count(h, 2, 20);
    gate2(h, false);
    to_tick(h, 700);
    assert_int_equal(read_status(h, 2) & STATUS_NULL, STATUS_NULL);
    gate2(h, true);
    to_tick(h, 701);
    assert_int_equal(read_count(h, 2), 20);
    harness_destroy(h);
}

static void test_mode3(void **state)
{
    struct harness *h = harness_create(build);
    /* Even: 6 4 2, twice. Odd: 4 2 0 while high, 4 2 while low. */
    static const uint16_t even[] = {6, 4, 2, 6, 4, 2, 6};
    static const uint16_t odd[] = {4, 2, 0, 4, 2, 4};

    program(h, 0, 3, 6);
    for (unsigned i = 0; i < ARRAY_SIZE(even); i++) {
        to_tick(h, 1 + i);
        assert_int_equal(read_count(h, 0), even[i]);
        assert_int_equal(out(h, 0), i % 6 < 3);
    }
    to_tick(h, 20);
    program(h, 0, 7, 5); /* mode 7 is 3 */
    assert_int_equal(read_status(h, 0) & 0x0e, 0x06);
    for (unsigned i = 0; i < ARRAY_SIZE(odd); i++) {
        to_tick(h, 21 + i);
        assert_int_equal(read_count(h, 0), odd[i]);
        assert_int_equal(out(h, 0), i % 5 < 3);
    }
    /* A new count at the end of a half cycle: 40 high, then 50 low, 50 high. */
    to_tick(h, 100);
    program(h, 0, 3, 80);
    to_tick(h, 110);
    write_count(h, 0, 100);
    to_tick(h, 140);
    assert_true(out(h, 0));
    to_tick(h, 141);
    assert_false(out(h, 0));
    assert_int_equal(read_count(h, 0), 100);
    to_tick(h, 190);
    assert_false(out(h, 0));
    to_tick(h, 191);
    assert_true(out(h, 0));
    assert_true(h->line[IRQ0].level);
    assert_int_equal(h->line[IRQ0].last_rise_ns, clock_ticks_to_ns(191, I8254_HZ));
    to_tick(h, 241);
    assert_false(out(h, 0));
    /* And at the end of a low half. */
    write_count(h, 0, 20);
    to_tick(h, 291);
    assert_true(out(h, 0));
    assert_int_equal(read_count(h, 0), 20);
    to_tick(h, 301);
    assert_false(out(h, 0));
    to_tick(h, 311);
    assert_true(out(h, 0));
    harness_destroy(h);
}

static void test_strobes(void **state)
{
    struct harness *h = harness_create(build);

    program(h, 0, 4, 10);
    assert_true(h->line[IRQ0].level);
    to_tick(h, 10);
    assert_true(out(h, 0));
    to_tick(h, 11);
    assert_false(out(h, 0));
    to_tick(h, 12);
    assert_true(out(h, 0));
    assert_int_equal(h->line[IRQ0].rises, 2);
    assert_int_equal(read_count(h, 0), 0xffff);
    harness_advance(h, NS_PER_SEC); /* once only */
    assert_int_equal(h->line[IRQ0].rises, 2);
    /* Mode 5 does it after a trigger. */
    program(h, 2, 5, 10);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(read_status(h, 2) & 0xc0, 0xc0);
    to_tick(h, 3000000);
    gate2(h, true);
    to_tick(h, 3000010);
    assert_true(out(h, 2));
    to_tick(h, 3000011);
    assert_false(out(h, 2));
    to_tick(h, 3000012);
    assert_true(out(h, 2));
    harness_destroy(h);
}

static void test_bcd(void **state)
{
    struct harness *h = harness_create(build);

    control(h, 1, 2, BOTH, BCD);
    write_count(h, 1, 0x1000);
    to_tick(h, 1);
    assert_int_equal(read_count(h, 1), 0x1000);
    to_tick(h, 2);
    assert_int_equal(read_count(h, 1), 0x0999);
    to_tick(h, 1000);
    assert_int_equal(read_count(h, 1), 0x0001);
    assert_int_equal(read_status(h, 1), 0x35);
    /* 0 is 10000, and counting wraps around to 9999. */
    control(h, 1, 0, BOTH, BCD);
    write_count(h, 1, 0);
    to_tick(h, 1001);
    assert_int_equal(read_count(h, 1), 0);
    to_tick(h, 1002);
    assert_int_equal(read_count(h, 1), 0x9999);
    to_tick(h, 11000);
    assert_false(out(h, 1));
    to_tick(h, 11001);
    assert_true(out(h, 1));
    to_tick(h, 11002);
    assert_int_equal(read_count(h, 1), 0x9999);
    /* Digits that are none. */
    control(h, 1, 2, BOTH, BCD);
    write_count(h, 1, 0xffff);
    to_tick(h, 20000);
    read_count(h, 1);
    harness_destroy(h);
}

static void test_access_modes(void **state)
{
    struct harness *h = harness_create(build);

    control(h, 1, 2, LOW, 0);
    outb(h, 0x41, 0x80);
    to_tick(h, 1);
    assert_int_equal(inb(h, 0x41), 0x80);
    assert_int_equal(inb(h, 0x41), 0x80);
    control(h, 1, 2, HIGH, 0);
    outb(h, 0x41, 0x12);
    to_tick(h, 2);
    assert_int_equal(inb(h, 0x41), 0x12);
    to_tick(h, 3);
    assert_int_equal(inb(h, 0x41), 0x11);
    /* 0 is 65536. */
    program(h, 1, 2, 0);
    to_tick(h, 4);
    assert_int_equal(read_count(h, 1), 0);
    to_tick(h, 5);
    assert_int_equal(read_count(h, 1), 0xffff);
    to_tick(h, 4 + 65536);
    assert_int_equal(read_count(h, 1), 0);
    /* 1 is not allowed in modes 2 and 3, and harmless. */
    program(h, 1, 2, 1);
    to_tick(h, 70000);
    read_count(h, 1);
    /* The control port cannot be read. */
    assert_int_equal(inb(h, 0x43), 0xff);
    harness_destroy(h);
}

static void test_latches(void **state)
{
    struct harness *h = harness_create(build);

    program(h, 1, 2, 0x1000);
    to_tick(h, 1 + 0x10);
    outb(h, 0x43, 0x40);
    to_tick(h, 1 + 0x20);
    outb(h, 0x43, 0x40); /* ignored: not read yet */
    harness_reload(h);
    assert_int_equal(inb(h, 0x41), 0xf0);
    to_tick(h, 1 + 0x200);
    assert_int_equal(inb(h, 0x41), 0x0f);
    assert_int_equal(inb(h, 0x41), 0x00); /* live again: E00H */
    assert_int_equal(inb(h, 0x41), 0x0e);
    /* Both at once, of all counters: the status comes first. */
    outb(h, 0x43, 0xce);
    to_tick(h, 1 + 0x210);
    assert_int_equal(inb(h, 0x41), 0xb4);
    assert_int_equal(inb(h, 0x41), 0x00);
    assert_int_equal(inb(h, 0x41), 0x0e);
    assert_int_equal(inb(h, 0x41), 0xf0);
    assert_int_equal(inb(h, 0x41), 0x0d);
    /* Neither: nothing is latched. */
    outb(h, 0x43, 0xfe);
    assert_int_equal(inb(h, 0x41), 0xf0);
    assert_int_equal(inb(h, 0x41), 0x0d);
    /* A control word drops what was latched, and half-read pairs. */
    outb(h, 0x43, 0xcc);
    inb(h, 0x41);
    inb(h, 0x41);
    program(h, 1, 2, 0x2000);
    to_tick(h, 2 + 0x210);
    assert_int_equal(inb(h, 0x41), 0x00);
    assert_int_equal(inb(h, 0x41), 0x20);
    harness_destroy(h);
}

static void test_port61(void **state)
{
    struct harness *h = harness_create(build);
    unsigned toggles = 0;
    uint8_t last;

    outb(h, 0x61, 0xff);
    assert_int_equal(inb(h, 0x61) & 0xef, 0x0f);
    assert_true(i8254_speaker_enabled(h->dev[0]));
    outb(h, 0x61, 0x00);
    assert_false(i8254_speaker_enabled(h->dev[0]));
    /* 66 refreshes a millisecond. */
    last = inb(h, 0x61) & 0x10;
    for (unsigned i = 0; i < 1000; i++) {
        harness_advance(h, NS_PER_US);
        if ((inb(h, 0x61) & 0x10) != last) {
            last ^= 0x10;
            toggles++;
        }
    }
    assert_in_range(toggles, 65, 67);
    /* How programs measure time without an interrupt: 50 ms. */
    outb(h, 0x61, 0x01);
    program(h, 2, 0, 59659);
    harness_advance(h, 49 * NS_PER_MS);
    assert_int_equal(inb(h, 0x61) & 0x20, 0);
    harness_advance(h, 2 * NS_PER_MS);
    assert_int_equal(inb(h, 0x61) & 0x20, 0x20);
    harness_destroy(h);
}

/* 18.2 Hz for an hour: no drift. */
static void test_long_run(void **state)
{
    struct harness *h = harness_create(build);
    unsigned before;

    program(h, 0, 3, 0);
    before = h->line[IRQ0].rises;
    harness_advance(h, 3600 * NS_PER_SEC);
    assert_int_equal(h->line[IRQ0].rises - before, 3600 * I8254_HZ / 65536);
    harness_destroy(h);
}

/* A late host gets one edge for all that it missed, and the phase stays. */
static void test_late(void **state)
{
    struct harness *h = harness_create(build);
    unsigned before;

    program(h, 0, 2, 1000);
    to_tick(h, 1);
    before = h->line[IRQ0].rises;
    assert_int_equal(harness_jump(h, 100 * NS_PER_MS + 1), 1);
    assert_int_equal(h->line[IRQ0].rises - before, 1);
    assert_int_equal((clock_ticks(harness_next_ns(h), I8254_HZ) - 1) % 1000, 0);
    assert_in_range(harness_next_ns(h) - harness_now_ns(h), 1, 1000000);
    /* An access that is faster than the host's timer delivers the edge; the
     * timer does not do it again. */
    before = h->line[IRQ0].rises;
    h->vm->clock.turn_base_ns += 2 * NS_PER_MS;
    assert_true(harness_next_ns(h) < harness_now_ns(h));
    inb(h, 0x40);
    assert_int_equal(h->line[IRQ0].rises - before, 1);
    assert_true(harness_next_ns(h) > harness_now_ns(h));
    harness_destroy(h);
}

/* A host that took the processor's thread away gives the ticks back. */
static void test_catch_up(void **state)
{
    struct harness *h = harness_create(build_probed);
    bool waiting = false;
    unsigned before;

    h->test = &waiting;
    for (unsigned mode = 2; mode <= 3; mode++) {
        program(h, 0, mode, 1193); /* about a millisecond */
        harness_advance(h, 10 * NS_PER_MS);
        /* The processor takes nothing for ten periods, then all of it, soon. */
        waiting = true;
        before = h->line[IRQ0].rises;
        harness_advance(h, 10 * NS_PER_MS);
        assert_int_equal(h->line[IRQ0].rises, before);
        waiting = false;
        harness_advance(h, 4 * NS_PER_MS);
        assert_in_range(h->line[IRQ0].rises - before, 13, 14);
        before = h->line[IRQ0].rises;
        harness_reload(h);
        harness_advance(h, 10 * NS_PER_MS);
        assert_in_range(h->line[IRQ0].rises - before, 9, 11);
        /* The same where the timer's own thread was late. */
        before = h->line[IRQ0].rises;
        harness_jump(h, 10 * NS_PER_MS);
        assert_int_equal(h->line[IRQ0].rises, before + 1);
        harness_reload(h);
        harness_advance(h, 4 * NS_PER_MS);
        assert_in_range(h->line[IRQ0].rises - before, 13, 15);
    }

    /* A guest that never takes them costs little, and finds no more than this. */
    waiting = true;
    before = h->line[IRQ0].rises;
    harness_advance(h, 40 * NS_PER_MS);
    assert_true(harness_advance(h, 1000 * NS_PER_MS) <= 2010);
    assert_int_equal(h->line[IRQ0].rises, before);
    waiting = false;
    harness_advance(h, 20 * NS_PER_MS);
    assert_in_range(h->line[IRQ0].rises - before, TICKS_OWED_MAX + 18, TICKS_OWED_MAX + 21);

    /* What was owed of the old count is not owed of the new one. */
    waiting = true;
    harness_advance(h, 10 * NS_PER_MS);
    program(h, 0, 2, 1193);
    waiting = false;
    before = h->line[IRQ0].rises;
    harness_advance(h, 10 * NS_PER_MS);
    assert_in_range(h->line[IRQ0].rises - before, 9, 11);
    /* Fast ones are merged as ever, and a one-shot comes whatever waits. */
    program(h, 0, 2, 100);
    waiting = true;
    before = h->line[IRQ0].rises;
    harness_jump(h, 10 * NS_PER_MS);
    assert_int_equal(h->line[IRQ0].rises, before + 1);
    program(h, 0, 0, 100);
    before = h->line[IRQ0].rises;
    harness_advance(h, 10 * NS_PER_MS);
    assert_int_equal(h->line[IRQ0].rises, before + 1);
    harness_destroy(h);
}

/* Periods of a microsecond do not keep the host busy. */
static void test_hostile_rate(void **state)
{
    struct harness *h = harness_create(build);
    static const struct {
        unsigned mode;
        uint16_t count;
    } rates[] = {{2, 1}, {2, 2}, {3, 2}, {3, 3}, {2, 7}};

    for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
        unsigned before, fired;

        program(h, 0, rates[i].mode, rates[i].count);
        before = h->line[IRQ0].rises;
        fired = harness_advance(h, NS_PER_SEC);
        assert_in_range(fired, 1000, NS_PER_SEC / TIMER_MIN_PERIOD_NS + 10);
        assert_in_range(h->line[IRQ0].rises - before, 1000, fired + 1);
    }
    harness_destroy(h);
}

static void test_reset(void **state)
{
    struct harness *h = harness_create(build);

    program(h, 0, 2, 100);
    harness_advance(h, NS_PER_MS);
    assert_true(h->line[IRQ0].level);
    harness_reset(h);
    assert_false(h->line[IRQ0].level);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    assert_int_equal(inb(h, 0x61) & 0x0f, 0);
    harness_destroy(h);
}

static uint64_t any_op(struct harness *h, uint64_t r)
{
    switch (r & 7) {
    case 0:
        harness_advance(h, r >> 8 & 0xfff);
        return harness_now_ns(h);
    case 1:
        harness_advance(h, r >> 8 & (r & 8 ? 0xfffff : 0x3fffff));
        return h->line[IRQ0].rises;
    case 2:
    case 3:
        return inb(h, 0x40 + (r >> 8 & 3));
    case 4:
        outb(h, 0x43, (uint8_t)(r >> 8));
        return 0;
    case 5:
        if (r & 8)
            outb(h, 0x61, (uint8_t)(r >> 8));
        return inb(h, 0x61);
    case 6:
        harness_jump(h, r >> 8 & 0xfffff);
        return 0;
    default:
        outb(h, 0x40 + (r >> 8 & 1) * 2, (uint8_t)(r >> 16) & (r & 16 ? 0xff : 0x03));
        return 0;
    }
}

static void test_random(void **state)
{
    harness_fuzz(build, any_op, 20000, 0x8254);
}

static void poke(struct harness *h)
{
    uint64_t seed = 11;

    for (unsigned i = 0; i < 30; i++)
        any_op(h, harness_random(&seed));
}

static void test_hostile_state(void **state)
{
    struct harness *h = harness_create(build);

    harness_advance(h, NS_PER_SEC);
    program(h, 0, 2, 1000);
    program(h, 2, 3, 77);
    outb(h, 0x61, 1);
    outb(h, 0x43, 0xc2);
    harness_advance(h, NS_PER_MS);
    harness_corrupt(h, poke);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mode0),         cmocka_unit_test(test_mode0_gate),
        cmocka_unit_test(test_mode1),         cmocka_unit_test(test_mode2),
        cmocka_unit_test(test_mode2_gate),    cmocka_unit_test(test_mode3),
        cmocka_unit_test(test_strobes),       cmocka_unit_test(test_bcd),
        cmocka_unit_test(test_access_modes),  cmocka_unit_test(test_latches),
        cmocka_unit_test(test_port61),        cmocka_unit_test(test_long_run),
        cmocka_unit_test(test_late),          cmocka_unit_test(test_hostile_rate),
        cmocka_unit_test(test_catch_up),      cmocka_unit_test(test_reset),
        cmocka_unit_test(test_random),        cmocka_unit_test(test_hostile_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
