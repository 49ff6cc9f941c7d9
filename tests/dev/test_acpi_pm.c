/*
 * ICH9 power management through its ports: PM1, timer, GPE0, SMI_EN, APM, TCO.
 * Datasheet sections 13.7-13.9.
 */
#include "dev/misc/acpi_pm.h"
#include "dev/misc/tco.h"
#include "tests/dev/harness.h"
#include "vm/internal.h"

enum { SCI = 9 };
enum { PM = 0x600, STS = PM, EN = PM + 2, CNT = PM + 4, TMR = PM + 8 };
enum {
    TCO_RLD = PM + 0x60,
    TCO1_STS = PM + 0x64,
    TCO2_STS = PM + 0x66,
    TCO1_CNT = PM + 0x68,
    TCO_TMR = PM + 0x72
};
enum { PWRBTN = 0x100, RTC = 0x400, TMROF = 1 };
/* 2^23 ticks of the timer: how often its highest bit changes. */
#define HALF_NS clock_ticks_to_ns(1 << 23, ACPI_PM_TIMER_HZ)

static void build(struct harness *h)
{
    const struct irq_line sci = harness_line(h, SCI);

    h->dev[0] = acpi_pm_create(h->vm, &sci, NULL);
    assert_non_null(h->dev[0]);
    acpi_pm_set_base(h->dev[0], PM, true);
}

static unsigned requests(struct harness *h)
{
    return atomic_exchange(&h->vm->run->requests, 0);
}

static void test_timer(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(io_in(h, TMR, 4), 0);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(io_in(h, TMR, 4), 3579545);
    assert_int_equal(io_in(h, TMR, 2), 3579545 & 0xFFFF);
    assert_int_equal(inb(h, TMR + 2), 3579545 >> 16);
    io_out(h, TMR, 0, 4); /* read-only */
    assert_int_equal(io_in(h, TMR, 4), 3579545);
    harness_advance(h, 4 * NS_PER_SEC);
    assert_int_equal(io_in(h, TMR, 4), 5ull * 3579545 & 0xFFFFFF); /* 24 bits */
    harness_destroy(h);
}

static void test_timer_status(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(harness_next_ns(h), TIME_NEVER); /* an idle machine sleeps */
    harness_advance(h, HALF_NS - 1000);
    assert_int_equal(io_in(h, STS, 2), 0);
    harness_advance(h, 2000);
    assert_int_equal(io_in(h, STS, 2), TMROF);
    assert_false(h->line[SCI].level);
    io_out(h, CNT, 1, 2);
    io_out(h, EN, TMROF, 2);
    assert_true(h->line[SCI].level);
    io_out(h, STS, TMROF, 2);
    assert_false(h->line[SCI].level);
    assert_int_equal(io_in(h, STS, 2), 0);
    harness_advance(h, HALF_NS - 2000);
    assert_false(h->line[SCI].level);
    harness_advance(h, 2000);
    assert_true(h->line[SCI].level);
    assert_int_equal(harness_next_ns(h), TIME_NEVER); /* until it is acknowledged */
    /* Late by several halves: one acknowledgement is enough. */
    harness_advance(h, 10 * HALF_NS);
    io_out(h, STS, TMROF, 2);
    assert_false(h->line[SCI].level);
    io_out(h, EN, 0, 2);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    harness_destroy(h);
}

static void test_sci(void **state)
{
    struct harness *h = harness_create(build);
    struct irq_line rtc = acpi_pm_rtc_line(h->dev[0]);

    acpi_pm_power_button(h->dev[0]);
    assert_int_equal(io_in(h, STS, 2), PWRBTN);
    io_out(h, EN, 0xFFFF, 2);
    assert_int_equal(io_in(h, EN, 2), 0x4521);
    assert_false(h->line[SCI].level); /* SCI_EN is clear: it would be an SMI */
    io_out(h, CNT, 1, 2);
    assert_true(h->line[SCI].level);
    io_out(h, STS, 0, 2);
    assert_true(h->line[SCI].level);
    outb(h, STS + 1, PWRBTN >> 8); /* the upper byte alone */
    assert_false(h->line[SCI].level);
    irq_set(&rtc, true);
    assert_int_equal(io_in(h, STS, 2), RTC);
    assert_true(h->line[SCI].level);
    irq_set(&rtc, false);
    assert_true(h->line[SCI].level); /* status stays */
    /* Status and enable as one doubleword. */
    io_out(h, STS, (uint32_t)PWRBTN << 16 | RTC, 4);
    assert_int_equal(io_in(h, STS, 4), (uint32_t)PWRBTN << 16);
    assert_false(h->line[SCI].level);
    acpi_pm_power_button(h->dev[0]);
    harness_reset(h);
    assert_false(h->line[SCI].level);
    assert_int_equal(io_in(h, STS, 4), 0);
    assert_int_equal(io_in(h, CNT, 4), 0);
    harness_destroy(h);
}

static void test_gpe(void **state)
{
    struct harness *h = harness_create(build);

    io_out(h, CNT, 1, 2);
    acpi_pm_gpe(h->dev[0], 2);
    acpi_pm_gpe(h->dev[0], 33);
    acpi_pm_gpe(h->dev[0], 64); /* there is none */
    assert_int_equal(io_in(h, PM + 0x20, 4), 4);
    assert_int_equal(io_in(h, PM + 0x24, 4), 2);
    assert_false(h->line[SCI].level);
    outb(h, PM + 0x28, 0xFF);
    outb(h, PM + 0x2C, 2);
    assert_int_equal(io_in(h, PM + 0x28, 8), 0x00000002000000FF);
    assert_true(h->line[SCI].level);
    outb(h, PM + 0x20, 4);
    assert_true(h->line[SCI].level);
    outb(h, PM + 0x24, 2);
    assert_false(h->line[SCI].level);
    harness_destroy(h);
}

static void test_sleep(void **state)
{
    struct harness *h = harness_create(build);

    io_out(h, CNT, 5 << 10, 2); /* without SLP_EN: kept */
    assert_int_equal(io_in(h, CNT, 2), 5 << 10);
    assert_int_equal(requests(h), 0);
    io_out(h, CNT, 5 << 10 | 1 << 13, 2); /* S3: not offered */
    assert_int_equal(requests(h), 0);
    io_out(h, CNT, 1 << 10 | 1 << 13, 2); /* S1: wakes at once */
    assert_int_equal(io_in(h, STS, 2), 0x8000);
    assert_int_equal(requests(h), 0);
    io_out(h, CNT, 1 << 13, 2);
    assert_int_equal(requests(h), REQUEST_POWEROFF);
    assert_int_equal(atomic_load(&h->vm->run->poweroff_status), 0);
    assert_int_equal(io_in(h, CNT, 2), 0); /* SLP_EN reads 0 */
    outb(h, CNT + 1, 0x20);                /* the byte that holds it */
    assert_int_equal(requests(h), REQUEST_POWEROFF);
    io_out(h, CNT, 7 << 10 | 1 << 13, 4);
    assert_int_equal(requests(h), REQUEST_POWEROFF);
    harness_destroy(h);
}

static void test_smi_and_apm(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(io_in(h, PM + 0x30, 4) & 0x20, 0x20); /* APMC_EN: no SMM here */
    outb(h, 0xB2, 2);
    assert_int_equal(io_in(h, CNT, 2), 1);
    assert_int_equal(inb(h, 0xB2), 2);
    assert_int_equal(io_in(h, PM + 0x34, 4), 0x20);
    io_out(h, PM + 0x34, 0x20, 4);
    assert_int_equal(io_in(h, PM + 0x34, 4), 0);
    outb(h, 0xB2, 3);
    assert_int_equal(io_in(h, CNT, 2), 0);
    outb(h, 0xB2, 0x55);
    assert_int_equal(io_in(h, CNT, 2), 0);
    outb(h, 0xB3, 0xAA);
    assert_int_equal(inb(h, 0xB3), 0xAA);
    assert_int_equal(io_in(h, 0xB2, 2), 0xAA55);
    /* The global lock's two bits. */
    io_out(h, PM + 0x30, 0x80, 4);
    assert_int_equal(io_in(h, STS, 2), 0x20);
    io_out(h, CNT, 4, 2);
    assert_int_equal(io_in(h, PM + 0x34, 4) & 4, 4);
    assert_int_equal(io_in(h, CNT, 2), 0);
    harness_destroy(h);
}

static void test_watchdog(void **state)
{
    struct harness *h = harness_create(build);

    harness_advance(h, 100 * NS_PER_SEC); /* does not run by itself */
    assert_int_equal(io_in(h, TCO1_STS, 4), 0);
    assert_int_equal(io_in(h, TCO_TMR, 2), 4);
    io_out(h, TCO_TMR, 1, 2); /* too small */
    assert_int_equal(io_in(h, TCO_TMR, 2), 4);
    io_out(h, TCO_TMR, 0xFC0A, 2);
    assert_int_equal(io_in(h, TCO_TMR, 2), 10);
    io_out(h, TCO_RLD, 1, 2);
    assert_int_equal(io_in(h, TCO_RLD, 2), 10);
    harness_advance(h, 1300 * NS_PER_MS);
    assert_int_equal(io_in(h, TCO_RLD, 2), 8);
    io_out(h, TCO_RLD, 1, 2);
    harness_advance(h, 5900 * NS_PER_MS);
    assert_int_equal(io_in(h, TCO1_STS, 2), 0);
    /* Halted, it keeps its count. */
    io_out(h, TCO1_CNT, 0x800, 2);
    assert_int_equal(io_in(h, TCO_RLD, 2), 1);
    harness_advance(h, 100 * NS_PER_SEC);
    assert_int_equal(io_in(h, TCO_RLD, 2), 1);
    io_out(h, TCO1_CNT, 0, 2);
    harness_advance(h, 600 * NS_PER_MS);
    assert_int_equal(io_in(h, TCO1_STS, 2), 8);
    assert_int_equal(requests(h), 0);
    harness_advance(h, 6 * NS_PER_SEC);
    assert_int_equal(requests(h), REQUEST_RESET);
    harness_reset(h);
    assert_int_equal(io_in(h, TCO2_STS, 2), 6); /* tells who it was */
    io_out(h, TCO2_STS, 6, 2);
    assert_int_equal(io_in(h, TCO2_STS, 2), 0);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    /* NO_REBOOT: it goes round and round. */
    acpi_pm_set_no_reboot(h->dev[0], true);
    io_out(h, TCO_RLD, 1, 2);
    harness_advance(h, 20 * NS_PER_SEC);
    assert_int_equal(requests(h), 0);
    assert_int_equal(io_in(h, TCO2_STS, 2), 6);
    harness_destroy(h);
}

static void test_tco_lock(void **state)
{
    struct harness *h = harness_create(build);

    io_out(h, TCO1_CNT, 0x1000, 2);
    io_out(h, TCO1_CNT, 0, 2);
    assert_int_equal(io_in(h, TCO1_CNT, 2), 0x1000);
    io_out(h, PM + 0x30, 0x2000, 4); /* TCO_EN cannot change any more */
    assert_int_equal(io_in(h, PM + 0x30, 4) & 0x2000, 0);
    outb(h, PM + 0x62, 0x12);
    assert_int_equal(inb(h, PM + 0x62), 0x12);
    assert_int_equal(io_in(h, TCO1_STS, 2), 2);
    harness_destroy(h);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    uint32_t value = (uint32_t)(random >> 32);

    switch (random % 6) {
    case 0:
        harness_advance(h, value);
        return requests(h);
    case 1:
        io_out(h, PM + (random >> 8 & 0x7F), value, 1 << (random >> 16 & 1));
        return requests(h);
    case 2:
        io_out(h, PM + (random >> 8 & 0x7C), value, 4);
        return requests(h);
    case 3:
        acpi_pm_gpe(h->dev[0], value & 63);
        acpi_pm_power_button(h->dev[0]);
        return 0;
    case 4:
        io_out(h, CNT, 1, 4);
        return io_in(h, STS, 4);
    default:
        return io_in(h, PM + (random >> 8 & 0x7F), 4);
    }
}

static void test_state(void **state)
{
    for (unsigned seed = 1; seed <= 5; seed++)
        harness_fuzz(build, op, 5000, seed);
}

static void poke(struct harness *h)
{
    harness_jump(h, NS_PER_SEC);
    for (unsigned i = 0; i < 0x80; i += 4) {
        io_out(h, PM + i, 0xFFFFFFFF, 4);
        io_in(h, PM + i, 4);
    }
    requests(h);
}

static void test_damaged_state(void **state)
{
    struct harness *h = harness_create(build);

    io_out(h, TCO_RLD, 1, 2);
    io_out(h, EN, TMROF, 2);
    harness_corrupt(h, poke);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timer),    cmocka_unit_test(test_timer_status),
        cmocka_unit_test(test_sci),      cmocka_unit_test(test_gpe),
        cmocka_unit_test(test_sleep),    cmocka_unit_test(test_smi_and_apm),
        cmocka_unit_test(test_watchdog), cmocka_unit_test(test_tco_lock),
        cmocka_unit_test(test_state),    cmocka_unit_test(test_damaged_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
