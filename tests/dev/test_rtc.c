/*
 * The real-time clock and its CMOS, driven through their ports. Sections named
 * are those of the MC146818 data sheet.
 */
#include "dev/timer/rtc.h"
#include "tests/dev/harness.h"

enum { IRQ8 = 0 }; /* harness line */
enum { A = 10, B = 11, C = 12, D = 13 };
enum { UIP = 0x80, SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 0x04, H24 = 0x02 };
enum { IRQF = 0x80, PF = 0x40, AF = 0x20, UF = 0x10 };

/* 2023-12-31 23:59:58.5, a Sunday. */
#define EPOCH_NS 1704067198500000000ull

static void build(struct harness *h)
{
    struct rtc_config config = {.irq8 = harness_line(h, IRQ8)};

    h->vm->clock.epoch_ns = EPOCH_NS;
    h->dev[0] = rtc_create(h->vm, &config, NULL);
    assert_non_null(h->dev[0]);
}

static uint8_t get(struct harness *h, uint8_t cell)
{
    outb(h, 0x70, cell);
    return inb(h, 0x71);
}

static void put(struct harness *h, uint8_t cell, uint8_t value)
{
    outb(h, 0x70, cell);
    outb(h, 0x71, value);
}

/* century year month day, hour minute second: as hexadecimal digits. */
static uint64_t date(struct harness *h)
{
    return (uint64_t)get(h, 0x32) << 48 | (uint64_t)get(h, 9) << 40 | (uint64_t)get(h, 8) << 32 |
           (uint64_t)get(h, 7) << 24 | get(h, 4) << 16 | get(h, 2) << 8 | get(h, 0);
}

static void set_date(struct harness *h, uint64_t v)
{
    static const uint8_t cells[] = {0, 2, 4, 7, 8, 9, 0x32};
    uint8_t b = get(h, B);

    put(h, B, b | SET);
    for (unsigned i = 0; i < ARRAY_SIZE(cells); i++)
        put(h, cells[i], (uint8_t)(v >> 8 * i));
    put(h, B, b);
}

static void to_ms(struct harness *h, uint64_t ms)
{
    harness_advance(h, ms * NS_PER_MS - harness_now_ns(h));
}

static void test_date(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(get(h, A), 0x26);
    assert_int_equal(get(h, B), 0x02);
    assert_int_equal(get(h, D), 0x80);
    assert_int_equal(date(h), 0x20231231235958);
    assert_int_equal(get(h, 6), 1);
    to_ms(h, 499);
    assert_int_equal(date(h), 0x20231231235958);
    to_ms(h, 500); /* the wall clock's second */
    assert_int_equal(date(h), 0x20231231235959);
    to_ms(h, 1500);
    assert_int_equal(date(h), 0x20240101000000);
    assert_int_equal(get(h, 6), 2);
    harness_reload(h);
    /* A leap day, and a long time unseen. */
    to_ms(h, 1500 + 59ull * 86400 * 1000 + 1);
    assert_int_equal(date(h), 0x20240229000000);
    to_ms(h, 1500 + (366ull * 86400 + 3600) * 1000);
    assert_int_equal(date(h), 0x20250101010000);
    assert_int_equal(get(h, 6), 4);
    harness_destroy(h);
}

static void test_formats(void **state)
{
    struct harness *h = harness_create(build);

    /* Binary. */
    put(h, B, H24 | BINARY | SET);
    put(h, 0, 59);
    put(h, 2, 59);
    put(h, 4, 23);
    put(h, 7, 28);
    put(h, 8, 2);
    put(h, 9, 99);
    put(h, 0x32, 20);
    put(h, 6, 7);
    put(h, B, H24 | BINARY);
    to_ms(h, 500);
    assert_int_equal(get(h, 0) | get(h, 2) << 8 | get(h, 4) << 16, 0);
    assert_int_equal(get(h, 7), 1);
    assert_int_equal(get(h, 8), 3);
    assert_int_equal(get(h, 6), 1);
    /* The century follows. */
    put(h, B, H24 | BINARY | SET);
    put(h, 0, 59);
    put(h, 2, 59);
    put(h, 4, 23);
    put(h, 7, 31);
    put(h, 8, 12);
    put(h, B, H24 | BINARY);
    to_ms(h, 1500);
    assert_int_equal(get(h, 9), 0);
    assert_int_equal(get(h, 0x32), 21);
    assert_int_equal(get(h, 8), 1);
    /* 12 hours, BCD: 11:59:59 AM is followed by 12:00:00 PM ... */
    put(h, B, 0);
    set_date(h, 0x20240315115959);
    to_ms(h, 2500);
    assert_int_equal(date(h), 0x20240315920000);
    to_ms(h, 2500 + 3600 * 1000);
    assert_int_equal(date(h), 0x20240315810000);
    /* ... and 11:59:59 PM by 12:00:00 AM. */
    set_date(h, 0x20240315915959);
    to_ms(h, 3500 + 3600 * 1000);
    assert_int_equal(date(h), 0x20240316120000);
    /* 12 hours, binary. */
    put(h, B, BINARY);
    put(h, 4, 0x8b);
    put(h, 2, 59);
    put(h, 0, 59);
    to_ms(h, 4500 + 3600 * 1000);
    assert_int_equal(get(h, 4), 12);
    harness_destroy(h);
}

static void test_set(void **state)
{
    struct harness *h = harness_create(build);

    put(h, A, 0x20);
    put(h, B, H24 | SET | UIE);
    assert_int_equal(get(h, B), H24 | SET); /* SET clears UIE */
    to_ms(h, 5250);
    assert_int_equal(date(h), 0x20231231235958);
    assert_int_equal(get(h, C), 0);
    put(h, B, H24);
    to_ms(h, 5499);
    assert_int_equal(date(h), 0x20231231235958);
    to_ms(h, 5500); /* the divider has gone on */
    assert_int_equal(date(h), 0x20231231235959);
    assert_int_equal(get(h, C), UF);
    /* Held in reset, the divider starts with half a second. */
    put(h, A, 0x70);
    to_ms(h, 9900);
    assert_int_equal(date(h), 0x20231231235959);
    put(h, A, 0x20);
    to_ms(h, 10399);
    assert_int_equal(date(h), 0x20231231235959);
    harness_reload(h);
    to_ms(h, 10400);
    assert_int_equal(date(h), 0x20240101000000);
    to_ms(h, 11400);
    assert_int_equal(date(h), 0x20240101000001);
    harness_destroy(h);
}

static void test_uip(void **state)
{
    struct harness *h = harness_create(build);

    to_ms(h, 497);
    assert_int_equal(get(h, A), 0x26);
    harness_advance(h, 772 * NS_PER_US - 1);
    assert_int_equal(get(h, A), 0x26);
    harness_advance(h, 1);
    assert_int_equal(get(h, A), 0x26 | UIP);
    to_ms(h, 499);
    assert_int_equal(get(h, A), 0x26 | UIP);
    put(h, A, 0xff & ~0x50); /* not writable */
    to_ms(h, 500);
    assert_int_equal(get(h, A) & UIP, 0);
    /* Not while SET, nor with the divider in reset. */
    put(h, B, H24 | SET);
    to_ms(h, 1499);
    assert_int_equal(get(h, A) & UIP, 0);
    put(h, B, H24);
    assert_int_equal(get(h, A) & UIP, UIP);
    put(h, A, 0x66);
    assert_int_equal(get(h, A), 0x66);
    harness_destroy(h);
}

static void test_update_interrupt(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    put(h, A, 0x20); /* no periodic flag, no alarm */
    put(h, 1, 0x60);
    put(h, B, H24 | UIE);
    to_ms(h, 499);
    assert_false(h->line[IRQ8].level);
    to_ms(h, 500);
    assert_true(h->line[IRQ8].level);
    assert_int_equal(h->line[IRQ8].last_rise_ns, 500 * NS_PER_MS);
    /* Nothing more until somebody reads C. */
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    to_ms(h, 7000);
    assert_int_equal(h->line[IRQ8].rises, 1);
    assert_int_equal(get(h, C), IRQF | UF);
    assert_false(h->line[IRQ8].level);
    assert_int_equal(get(h, C), 0);
    harness_reload(h);
    to_ms(h, 7500);
    assert_true(h->line[IRQ8].level);
    /* Disabling takes the interrupt back, not the flag; enabling brings it. */
    put(h, B, H24);
    assert_false(h->line[IRQ8].level);
    put(h, B, H24 | UIE);
    assert_true(h->line[IRQ8].level);
    assert_int_equal(get(h, C), IRQF | UF);
    harness_destroy(h);
}

static void test_alarm(void **state)
{
    struct harness *h = harness_create(build);

    put(h, A, 0x20);
    put(h, 1, 0x05);
    put(h, 3, 0x01);
    put(h, 5, 0x00);
    put(h, B, H24 | AIE);
    assert_int_equal(harness_next_ns(h), (1500 + 65000) * NS_PER_MS);
    harness_advance(h, 66499 * NS_PER_MS);
    assert_false(h->line[IRQ8].level);
    to_ms(h, 66500);
    assert_true(h->line[IRQ8].level);
    assert_int_equal(get(h, C), IRQF | AF | UF);
    assert_int_equal(date(h), 0x20240101000105);
    /* The next one a day later. */
    assert_int_equal(harness_next_ns(h), 66500 * NS_PER_MS + 86400 * NS_PER_SEC);
    /* Don't care: every hour, every minute, every second. */
    put(h, 5, 0xff);
    assert_int_equal(harness_next_ns(h), 66500 * NS_PER_MS + 3600 * NS_PER_SEC);
    put(h, 3, 0xc0);
    assert_int_equal(harness_next_ns(h), 66500 * NS_PER_MS + 60 * NS_PER_SEC);
    put(h, 1, 0xdf);
    assert_int_equal(harness_next_ns(h), 67500 * NS_PER_MS);
    /* What the clock never shows never comes. */
    put(h, 1, 0x60);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    put(h, 1, 0x0a);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    put(h, 1, 0x10);
    put(h, 5, 0x92); /* PM, but in 24-hour mode */
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    /* In 12-hour mode it is noon. */
    put(h, 3, 0x00);
    put(h, B, AIE);
    assert_int_not_equal(harness_next_ns(h), TIME_NEVER);
    harness_advance(h, 86400 * NS_PER_SEC);
    assert_int_equal(h->line[IRQ8].rises, 2);
    assert_int_equal(get(h, C) & AF, AF);
    /* Without the interrupt the flag shows that it has passed. */
    put(h, B, 0);
    harness_advance(h, 86400 * NS_PER_SEC);
    assert_int_equal(h->line[IRQ8].rises, 2);
    assert_int_equal(get(h, C), AF | UF);
    harness_advance(h, 3600 * NS_PER_SEC);
    assert_int_equal(get(h, C), UF);
    harness_destroy(h);
}

static void test_periodic(void **state)
{
    static const unsigned hz[16] = {0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                    256, 128, 64,  32,   16,   8,    4,    2};
    struct harness *h = harness_create(build);

    for (unsigned rate = 0; rate < 16; rate++) {
        uint64_t end;
        unsigned count = 0;

        to_ms(h, (rate + 1) * 3000ull + 500); /* on a second */
        put(h, A, (uint8_t)(0x20 | rate));
        get(h, C);
        put(h, B, H24 | PIE);
        end = harness_now_ns(h) + NS_PER_SEC;
        while (harness_next_ns(h) <= end) {
            harness_advance(h, harness_next_ns(h) - harness_now_ns(h));
            assert_true(h->line[IRQ8].level);
            assert_int_equal(get(h, C) & (IRQF | PF), IRQF | PF);
            assert_false(h->line[IRQ8].level);
            count++;
        }
        assert_int_equal(count, hz[rate]);
        put(h, B, H24);
    }
    /* One that nobody acknowledges costs nothing. */
    put(h, A, 0x23);
    put(h, B, H24 | PIE);
    assert_int_equal(harness_advance(h, 10 * NS_PER_SEC), 1);
    harness_reload(h);
    assert_int_equal(get(h, C), IRQF | PF | UF);
    /* SET does not stop it, the divider's reset does. */
    put(h, B, H24 | PIE | SET);
    harness_advance(h, NS_PER_MS);
    assert_int_equal(get(h, C), IRQF | PF);
    put(h, A, 0x63);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    /* Polled, without the interrupt. */
    put(h, A, 0x26);
    put(h, B, H24);
    get(h, C);
    harness_advance(h, 500 * NS_PER_US);
    assert_int_equal(get(h, C), 0);
    harness_advance(h, 500 * NS_PER_US);
    assert_int_equal(get(h, C), PF);
    harness_destroy(h);
}

static void test_cmos(void **state)
{
    struct harness *h = harness_create(build);

    rtc_set_cmos(h->dev[0], 0x15, 0x80);
    rtc_set_cmos(h->dev[0], 0xff, 0x77);
    rtc_set_cmos(h->dev[0], 0x100, 0x66);
    rtc_set_cmos(h->dev[0], 0x0b, 0xff); /* the clock's: left alone */
    assert_int_equal(get(h, 0x15), 0x80);
    assert_int_equal(get(h, B), H24);
    for (unsigned cell = 14; cell < 128; cell++) {
        if (cell != RTC_CMOS_CENTURY)
            put(h, (uint8_t)cell, (uint8_t)(cell * 7));
    }
    outb(h, 0x72, 0xff); /* 7 bits */
    assert_int_equal(inb(h, 0x73), 0x77);
    for (unsigned cell = 0; cell < 128; cell++) {
        outb(h, 0x72, (uint8_t)cell);
        outb(h, 0x73, (uint8_t)(cell * 5));
    }
    harness_reset(h); /* a battery */
    harness_reload(h);
    for (unsigned cell = 14; cell < 128; cell++) {
        if (cell != RTC_CMOS_CENTURY)
            assert_int_equal(get(h, (uint8_t)cell), (uint8_t)(cell * 7));
    }
    for (unsigned cell = 0; cell < 128; cell++)
        assert_int_equal(rtc_get_cmos(h->dev[0], 128 + cell), (uint8_t)(cell * 5));
    /* The indices cannot be read; C and D not written. */
    assert_int_equal(inb(h, 0x70), 0xff);
    assert_int_equal(inb(h, 0x72), 0xff);
    put(h, C, 0xff);
    put(h, D, 0x00);
    assert_int_equal(get(h, D), 0x80);
    /* NMI mask. */
    outb(h, 0x70, 0x8f);
    assert_true(rtc_nmi_disabled(h->dev[0]));
    assert_int_equal(inb(h, 0x71), (uint8_t)(15 * 7));
    outb(h, 0x70, 0x0f);
    assert_false(rtc_nmi_disabled(h->dev[0]));
    harness_destroy(h);
}

static void test_reset(void **state)
{
    struct harness *h = harness_create(build);

    put(h, B, H24 | PIE | AIE | UIE | 0x08 | 0x01);
    set_date(h, 0x20300102030405);
    to_ms(h, 1000);
    assert_true(h->line[IRQ8].level);
    harness_reset(h);
    assert_false(h->line[IRQ8].level);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    assert_int_equal(get(h, B), H24 | 0x01);
    assert_int_equal(get(h, C), 0);
    assert_int_equal(date(h), 0x20300102030406); /* what was set stays */
    harness_destroy(h);
}

/* Whatever is in the cells, the clock goes on and comes to sense. */
static void test_hostile_cells(void **state)
{
    struct harness *h = harness_create(build);
    uint64_t seed = 0x146818;

    for (unsigned i = 0; i < 3000; i++) {
        uint64_t r = harness_random(&seed);

        put(h, B, (uint8_t)(r & (SET | BINARY | H24 | AIE)));
        for (unsigned cell = 0; cell < 10; cell++)
            put(h, (uint8_t)cell, (uint8_t)harness_random(&seed));
        put(h, 0x32, (uint8_t)harness_random(&seed));
        put(h, B, H24 | AIE | UIE);
        harness_advance(h, 3 * NS_PER_SEC);
        get(h, C);
        assert_in_range(get(h, 0), 0, 0x59);
        assert_in_range(get(h, 2), 0, 0x59);
        assert_in_range(get(h, 4), 0, 0x23);
        assert_in_range(get(h, 7), 1, 0x31);
        assert_in_range(get(h, 8), 1, 0x12);
        assert_in_range(get(h, 9), 0, 0x99);
        assert_in_range(get(h, 0x32), 0, 0x99);
    }
    harness_destroy(h);
}

static uint64_t any_op(struct harness *h, uint64_t r)
{
    switch (r & 7) {
    case 0:
        harness_advance(h, r >> 8 & 0xfffffff);
        return harness_now_ns(h);
    case 1:
        if (r & 8)
            harness_advance(h, r >> 8 & 0x3ffffffff);
        else
            harness_jump(h, r >> 8 & 0xfffffffffff);
        return h->line[IRQ8].rises;
    case 2:
        return get(h, r >> 8 & 15);
    case 3:
        return date(h);
    case 4:
        put(h, r >> 8 & 15, (uint8_t)(r >> 16));
        return 0;
    case 5:
        put(h, A, r & 0x100 ? 0x26 : (uint8_t)(r >> 16));
        return 0;
    case 6:
        put(h, B, (uint8_t)(r >> 16) & (r & 0x100 ? 0x7f : 0xff));
        return 0;
    default:
        return get(h, C);
    }
}

static void test_random(void **state)
{
    harness_fuzz(build, any_op, 8000, 0x146818);
}

static void poke(struct harness *h)
{
    uint64_t seed = 11;

    for (unsigned i = 0; i < 20; i++)
        any_op(h, harness_random(&seed));
}

static void test_hostile_state(void **state)
{
    struct harness *h = harness_create(build);

    put(h, B, H24 | PIE | AIE | UIE);
    to_ms(h, 1234567);
    harness_corrupt(h, poke);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_date),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_uip),
        cmocka_unit_test(test_update_interrupt),
        cmocka_unit_test(test_alarm),
        cmocka_unit_test(test_periodic),
        cmocka_unit_test(test_cmos),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_hostile_cells),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_hostile_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
