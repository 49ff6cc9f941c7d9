/*
 * The HPET, driven through its registers. A tick is 10 ns.
 */
#include "dev/timer/hpet.h"
#include "dev/timer/rearm.h"
#include "tests/dev/harness.h"

/* Harness lines: 0..23 are the GSIs. */
enum { LEGACY = 32, IRQ0, IRQ8 };
enum { CAPABILITIES = 0, CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0 };
enum { T_LEVEL = 2, T_ENABLE = 4, T_PERIODIC = 8, T_SET = 0x40, T_32 = 0x100, T_MESSAGE = 0x4000 };
enum { TICK = 10 };

static void build(struct harness *h)
{
    struct hpet_config config = {
        .legacy = harness_line(h, LEGACY),
        .irq0 = harness_line(h, IRQ0),
        .irq8 = harness_line(h, IRQ8),
        .port = harness_port(h),
    };

    for (unsigned gsi = 0; gsi < HPET_GSIS; gsi++)
        config.gsi[gsi] = harness_line(h, gsi);
    h->dev[0] = hpet_create(h->vm, &config, NULL);
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
    struct hpet_config config = {
        .legacy = harness_line(h, LEGACY),
        .irq0 = harness_line(h, IRQ0),
        .irq8 = harness_line(h, IRQ8),
        .irq0_probe = {busy, h, 0},
    };

    h->dev[0] = hpet_create(h->vm, &config, NULL);
    assert_non_null(h->dev[0]);
}

static uint64_t get(struct harness *h, unsigned reg)
{
    return mm_in(h, HPET_BASE + reg, 8);
}

static void put(struct harness *h, unsigned reg, uint64_t value)
{
    mm_out(h, HPET_BASE + reg, value, 8);
}

static void put32(struct harness *h, unsigned reg, uint32_t value)
{
    mm_out(h, HPET_BASE + reg, value, 4);
}

static unsigned config_of(unsigned n)
{
    return 0x100 + 0x20 * n;
}

static unsigned comparator_of(unsigned n)
{
    return 0x108 + 0x20 * n;
}

static uint32_t route(unsigned gsi)
{
    return gsi << 9;
}

static void to_count(struct harness *h, uint64_t count)
{
    harness_advance(h, (count - get(h, COUNTER)) * TICK);
    assert_int_equal(get(h, COUNTER), count);
}

static void test_registers(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(get(h, CAPABILITIES), 0x009896808086a201);
    assert_int_equal(mm_in(h, HPET_BASE + 4, 4), HPET_PERIOD_FS);
    assert_int_equal(mm_in(h, HPET_BASE, 4), HPET_BLOCK_ID);
    assert_int_equal(mm_in(h, HPET_BASE + 2, 2), 0x8086);
    assert_int_equal(get(h, config_of(0)), 0x00f0000000008030);
    assert_int_equal(get(h, config_of(1)), 0x00f0000000008000);
    assert_int_equal(get(h, config_of(2)), 0x00f0080000008000);
    assert_int_equal(get(h, comparator_of(0)), UINT64_MAX);
    assert_int_equal(get(h, comparator_of(1)), UINT32_MAX);
    /* Writes: reserved bits, abilities, routes that there are not. */
    put(h, CONFIG, 0xfffffffffffffffe);
    assert_int_equal(get(h, CONFIG), 2);
    put(h, CONFIG, 0);
    for (unsigned n = 0; n < 3; n++)
        put(h, config_of(n), (UINT64_MAX & ~(uint64_t)route(31)) | route(21));
    assert_int_equal(get(h, config_of(0)), 0x00f0000000008030 | 0x414e | route(21));
    assert_int_equal(get(h, config_of(1)), 0x00f0000000008000 | 0x4006 | route(21));
    assert_int_equal(get(h, config_of(2)), 0x00f0080000008000 | 0x4006 | route(21));
    put(h, config_of(1), route(11)); /* only timer 2 has it */
    assert_int_equal(get(h, config_of(1)) & route(31), route(21));
    put(h, config_of(2), route(11));
    assert_int_equal(get(h, config_of(2)) & route(31), route(11));
    put(h, config_of(2), route(31));
    assert_int_equal(get(h, config_of(2)) & route(31), route(11));
    put(h, 0x110, 0xfee0100000004055);
    put32(h, 0x114, 0xfee02000);
    assert_int_equal(get(h, 0x110), 0xfee0200000004055);
    /* Read-only, absent, too narrow. */
    put(h, CAPABILITIES, 0);
    assert_int_equal(get(h, CAPABILITIES), 0x009896808086a201);
    put(h, 0x160, UINT64_MAX);
    assert_int_equal(get(h, 0x160), 0);
    assert_int_equal(get(h, 0x118), 0);
    assert_int_equal(get(h, 0x3f8), 0);
    mm_out(h, HPET_BASE + CONFIG, 1, 1);
    mm_out(h, HPET_BASE + CONFIG, 1, 2);
    assert_int_equal(get(h, CONFIG), 0);
    harness_destroy(h);
}

static void test_counter(void **state)
{
    struct harness *h = harness_create(build);

    harness_advance(h, 12345);
    assert_int_equal(get(h, COUNTER), 0);
    put(h, COUNTER, 0x123456789a);
    put32(h, COUNTER, 0xfffffff0);
    assert_int_equal(get(h, COUNTER), 0x12fffffff0);
    put(h, CONFIG, 1);
    harness_advance(h, 1000);
    assert_int_equal(get(h, COUNTER), 0x12fffffff0 + 100);
    assert_int_equal(mm_in(h, HPET_BASE + COUNTER + 4, 4), 0x13);
    put(h, COUNTER, 0); /* ignored while it runs */
    harness_reload(h);
    assert_int_equal(get(h, COUNTER), 0x12fffffff0 + 100);
    put(h, CONFIG, 0);
    harness_advance(h, 1000);
    assert_int_equal(get(h, COUNTER), 0x12fffffff0 + 100);
    put(h, CONFIG, 1);
    harness_advance(h, 30);
    assert_int_equal(get(h, COUNTER), 0x12fffffff0 + 103);
    harness_destroy(h);
}

static void test_one_shot(void **state)
{
    struct harness *h = harness_create(build);

    put(h, CONFIG, 1);
    put(h, config_of(0), T_ENABLE | route(20));
    put(h, comparator_of(0), 1000);
    assert_int_equal(harness_next_ns(h), 1000 * TICK);
    to_count(h, 999);
    assert_int_equal(h->line[20].rises, 0);
    harness_reload(h);
    to_count(h, 1000);
    assert_int_equal(h->line[20].rises, 1);
    assert_int_equal(h->line[20].last_rise_ns, 1000 * TICK);
    assert_false(h->line[20].level);
    assert_int_equal(get(h, STATUS), 0); /* of level-triggered timers only */
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(h->line[20].rises, 1);
    /* One that has passed does not fire (64 bits: ever); one that is now does. */
    put(h, comparator_of(0), get(h, COUNTER) - 1);
    harness_advance(h, 100 * NS_PER_SEC);
    assert_int_equal(h->line[20].rises, 1);
    put(h, comparator_of(0), get(h, COUNTER));
    assert_int_equal(h->line[20].rises, 2);
    harness_advance(h, 100);
    assert_int_equal(h->line[20].rises, 2);
    /* Disabled, and then stopped. */
    put(h, comparator_of(0), get(h, COUNTER) + 100);
    put(h, config_of(0), route(20));
    harness_advance(h, 10000);
    put(h, config_of(0), T_ENABLE | route(20));
    put(h, comparator_of(0), get(h, COUNTER) + 100);
    put(h, CONFIG, 0);
    harness_advance(h, 10000);
    assert_int_equal(h->line[20].rises, 2);
    put(h, CONFIG, 1);
    harness_advance(h, 999);
    assert_int_equal(h->line[20].rises, 2);
    harness_advance(h, 1);
    assert_int_equal(h->line[20].rises, 3);
    harness_destroy(h);
}

static void test_32_bits(void **state)
{
    struct harness *h = harness_create(build);

    put(h, config_of(0), T_ENABLE | T_32 | route(20));
    put(h, config_of(1), T_ENABLE | route(21));
    put(h, comparator_of(0), 0xaaaaaaaa00000100);
    put(h, comparator_of(1), 0xaaaaaaaa00000200);
    assert_int_equal(get(h, comparator_of(0)), 0x100);
    assert_int_equal(get(h, comparator_of(1)), 0x200);
    put32(h, comparator_of(1) + 4, 0x55);
    assert_int_equal(get(h, comparator_of(1)), 0x200);
    /* The counter has 64 bits; they match whenever its low half does. */
    put(h, COUNTER, 0x7fffffff0);
    put(h, CONFIG, 1);
    to_count(h, 0x800000100);
    assert_int_equal(h->line[20].rises, 1);
    assert_int_equal(h->line[21].rises, 0);
    to_count(h, 0x900000100);
    assert_int_equal(h->line[20].rises, 2);
    assert_int_equal(h->line[21].rises, 1);
    /* A periodic comparator wraps around. */
    put(h, config_of(0), T_ENABLE | T_32 | T_PERIODIC | T_SET | route(20));
    put(h, comparator_of(0), 0xfffffff0);
    put(h, comparator_of(0), 0x100000);
    to_count(h, 0x9fffffff0);
    assert_int_equal(h->line[20].rises, 3);
    assert_int_equal(get(h, comparator_of(0)), 0xffff0);
    to_count(h, 0xa000ffff0);
    assert_int_equal(h->line[20].rises, 4);
    harness_destroy(h);
}

static void test_periodic(void **state)
{
    struct harness *h = harness_create(build);

    /* As Linux does: accumulator first, then the period. */
    put(h, CONFIG, 1);
    to_count(h, 500);
    put32(h, config_of(0), T_ENABLE | T_PERIODIC | T_SET | T_32 | route(22));
    put32(h, comparator_of(0), 10000);
    assert_int_equal(get(h, config_of(0)) & T_SET, 0);
    put32(h, comparator_of(0), 4000);
    assert_int_equal(get(h, comparator_of(0)), 10000);
    to_count(h, 10000);
    assert_int_equal(h->line[22].rises, 1);
    assert_int_equal(get(h, comparator_of(0)), 14000);
    to_count(h, 10000 + 4000 * 100 - 1);
    assert_int_equal(h->line[22].rises, 100);
    harness_reload(h);
    to_count(h, 10000 + 4000 * 100);
    assert_int_equal(h->line[22].rises, 101);
    assert_int_equal(h->line[22].last_rise_ns, (10000 + 4000 * 100) * TICK);
    /* A new period counts from the next match on. */
    put32(h, comparator_of(0), 6000);
    to_count(h, 414000);
    assert_int_equal(h->line[22].rises, 102);
    assert_int_equal(get(h, comparator_of(0)), 420000);
    to_count(h, 420000);
    assert_int_equal(h->line[22].rises, 103);
    /* 64 bits, set in halves: each wants the bit anew. */
    put(h, config_of(0), T_ENABLE | T_PERIODIC | T_SET | route(22));
    put32(h, comparator_of(0), 0x80000000);
    assert_int_equal(get(h, comparator_of(0)), 0x80000000);
    put32(h, comparator_of(0) + 4, 1);
    assert_int_equal(get(h, comparator_of(0)), 0x80000000); /* the period only */
    put(h, config_of(0), T_ENABLE | T_PERIODIC | T_SET | route(22));
    put32(h, comparator_of(0) + 4, 1);
    assert_int_equal(get(h, comparator_of(0)), 0x180000000);
    to_count(h, 0x180000000);
    assert_int_equal(h->line[22].rises, 104);
    assert_int_equal(get(h, comparator_of(0)), 0x300000000);
    /* Unseen and disabled it goes on. */
    put(h, config_of(0), T_PERIODIC | T_SET | route(22));
    put(h, comparator_of(0), 0x200000000);
    put(h, comparator_of(0), 1000);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    to_count(h, 0x200000000 + 5500);
    assert_int_equal(get(h, comparator_of(0)), 0x200000000 + 6000);
    put(h, config_of(0), T_ENABLE | T_PERIODIC | route(22));
    to_count(h, 0x200000000 + 6000);
    assert_int_equal(h->line[22].rises, 105);
    /* A period of nothing. */
    put(h, comparator_of(0), 0);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(h->line[22].rises, 106);
    harness_destroy(h);
}

static void test_level(void **state)
{
    struct harness *h = harness_create(build);

    put(h, CONFIG, 1);
    put(h, config_of(1), T_ENABLE | T_LEVEL | route(23));
    put(h, config_of(2), T_ENABLE | T_LEVEL | route(23));
    put(h, comparator_of(1), 100);
    put(h, comparator_of(2), 200);
    to_count(h, 100);
    assert_true(h->line[23].level);
    assert_int_equal(get(h, STATUS), 2);
    to_count(h, 200);
    assert_int_equal(get(h, STATUS), 6);
    put(h, STATUS, 2);
    assert_true(h->line[23].level); /* shared */
    harness_reload(h);
    put(h, STATUS, 0);
    assert_int_equal(get(h, STATUS), 4);
    put32(h, STATUS, 4);
    assert_false(h->line[23].level);
    /* Moving and disabling what is asserted. */
    put(h, comparator_of(2), 300);
    to_count(h, 300);
    assert_true(h->line[23].level);
    put(h, config_of(2), T_ENABLE | T_LEVEL | route(11));
    assert_false(h->line[23].level);
    assert_true(h->line[11].level);
    put(h, config_of(2), T_LEVEL | route(11));
    assert_false(h->line[11].level);
    assert_int_equal(get(h, STATUS), 4);
    put(h, config_of(2), T_ENABLE | T_LEVEL | route(11));
    assert_true(h->line[11].level);
    put(h, CONFIG, 0);
    assert_false(h->line[11].level);
    put(h, CONFIG, 1);
    assert_true(h->line[11].level);
    /* Becoming edge-triggered. */
    put(h, config_of(2), T_ENABLE | route(11));
    assert_false(h->line[11].level);
    assert_int_equal(get(h, STATUS), 0);
    /* A disabled timer shows its status. */
    put(h, config_of(1), 0);
    put(h, config_of(2), T_LEVEL | route(11));
    put(h, comparator_of(2), 1000);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    to_count(h, 1000);
    assert_int_equal(get(h, STATUS), 4);
    assert_false(h->line[11].level);
    harness_destroy(h);
}

static void test_legacy(void **state)
{
    struct harness *h = harness_create(build);

    put(h, config_of(0), T_ENABLE | route(20));
    put(h, config_of(1), T_ENABLE | route(21));
    put(h, config_of(2), T_ENABLE | route(22));
    put(h, CONFIG, 3);
    assert_true(h->line[LEGACY].level);
    for (unsigned n = 0; n < 3; n++)
        put(h, comparator_of(n), 100);
    to_count(h, 100);
    assert_int_equal(h->line[IRQ0].rises, 1);
    assert_int_equal(h->line[IRQ8].rises, 1);
    assert_int_equal(h->line[22].rises, 1);
    assert_int_equal(h->line[20].rises + h->line[21].rises, 0);
    put(h, CONFIG, 1);
    assert_false(h->line[LEGACY].level);
    /* A level moves along. */
    put(h, config_of(1), T_ENABLE | T_LEVEL | route(21));
    put(h, comparator_of(1), 200);
    to_count(h, 200);
    assert_true(h->line[21].level);
    put(h, CONFIG, 3);
    assert_false(h->line[21].level);
    assert_true(h->line[IRQ8].level);
    harness_reset(h);
    assert_false(h->line[IRQ8].level);
    assert_false(h->line[LEGACY].level);
    assert_int_equal(get(h, CONFIG), 0);
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    harness_destroy(h);
}

static void test_messages(void **state)
{
    struct harness *h = harness_create(build);

    put(h, CONFIG, 3);
    put(h, 0x110, 0xfee0300000000041);
    put(h, config_of(0), T_ENABLE | T_MESSAGE | T_LEVEL | T_PERIODIC | T_SET | route(20));
    put(h, comparator_of(0), 10000);
    to_count(h, 30000);
    assert_int_equal(h->message_count, 3);
    assert_int_equal(h->message[0].address, 0xfee03000);
    assert_int_equal(h->message[0].data, 0x41);
    assert_int_equal(h->line[IRQ0].rises + h->line[20].rises, 0);
    assert_int_equal(get(h, STATUS), 0);
    harness_destroy(h);
}

static void test_late(void **state)
{
    struct harness *h = harness_create(build);

    put(h, CONFIG, 1);
    put(h, config_of(0), T_ENABLE | T_PERIODIC | T_SET | route(20));
    put(h, comparator_of(0), 100000);
    assert_int_equal(harness_jump(h, 777 * NS_PER_MS), 1);
    assert_int_equal(h->line[20].rises, 1);
    assert_int_equal(harness_next_ns(h), 778 * NS_PER_MS);
    /* A reader that is faster than the host's timer. */
    h->vm->clock.turn_base_ns += 2 * NS_PER_MS;
    get(h, comparator_of(0));
    assert_int_equal(h->line[20].rises, 2);
    assert_int_equal(harness_next_ns(h), 780 * NS_PER_MS);
    assert_int_equal(harness_jump(h, 0), 0);
    /* Another processor's clock is a little behind. */
    h->vm->clock.turn_base_ns -= 5 * TICK;
    assert_int_equal(get(h, comparator_of(0)), 78000000);
    assert_int_equal(h->line[20].rises, 2);
    harness_destroy(h);
}

static void test_hostile_rate(void **state)
{
    struct harness *h = harness_create(build);
    static const uint32_t periods[] = {1, 2, 3, 1999, 2000, 2001};

    put(h, CONFIG, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(periods); i++) {
        uint64_t now = get(h, COUNTER), read;
        unsigned fired, before = h->line[20].rises;

        put(h, config_of(0), T_ENABLE | T_PERIODIC | T_SET | route(20));
        put(h, comparator_of(0), now + periods[i]);
        put(h, comparator_of(0), periods[i]);
        fired = harness_advance(h, NS_PER_SEC);
        assert_in_range(fired, 20000, 50010);
        assert_int_equal(h->line[20].rises - before, fired);
        if (periods[i] >= 2000) /* nothing merged */
            assert_int_equal(fired, NS_PER_SEC / TICK / periods[i]);
        /* The comparator shows every tick. */
        read = get(h, comparator_of(0));
        assert_in_range(read - get(h, COUNTER), 1, periods[i]);
        assert_int_equal((read - now) % periods[i], 0);
    }
    harness_destroy(h);
}

static void test_map(void **state)
{
    struct harness *h = harness_create(build);

    hpet_map(h->dev[0], HPET_BASE + 0x2000, true);
    assert_int_equal(mm_in(h, HPET_BASE, 4), UINT32_MAX);
    assert_int_equal(mm_in(h, HPET_BASE + 0x2000, 4), HPET_BLOCK_ID);
    hpet_map(h->dev[0], HPET_BASE + 0x2000, false);
    assert_int_equal(mm_in(h, HPET_BASE + 0x2000, 4), UINT32_MAX);
    harness_destroy(h);
}

/* Hostile values: near the counter, near the ends, or anything. */
static uint64_t any_value(struct harness *h, uint64_t r)
{
    switch (r >> 20 & 7) {
    case 0:
    case 1:
        return get(h, COUNTER) + (r >> 32 & 0xffff);
    case 2:
        return r >> 32 & 0xffff;
    case 3:
        return UINT64_MAX - (r >> 60);
    case 4:
        return r >> 60;
    case 5:
        return UINT32_MAX - (r >> 60) + (r >> 58 & 3);
    default:
        return r * 0x9e3779b97f4a7c15ull;
    }
}

static uint64_t any_op(struct harness *h, uint64_t r)
{
    unsigned n = (r >> 8) % 3;

    if (h->message_count > 500)
        h->message_count = 0;
    switch (r & 7) {
    case 0:
    case 1:
        harness_advance(h, r >> 8 & (r & 8 ? 0xfffff : 0xfff));
        return harness_now_ns(h);
    case 2:
        return get(h, (unsigned)(r >> 8) & 0x178);
    case 3:
        put(h, config_of(n),
            (r >> 24 & 0x417e) | (r >> 40 & 1 ? T_ENABLE : 0) | route(20 + (r >> 41 & 3)));
        return get(h, config_of(n));
    case 4:
        if (r & 8)
            put(h, comparator_of(n), any_value(h, r));
        else
            put32(h, comparator_of(n) + (r >> 3 & 4), (uint32_t)any_value(h, r));
        return get(h, comparator_of(n));
    case 5:
        put(h, STATUS, r >> 8);
        return get(h, STATUS);
    case 6:
        if (r >> 9 & 3)
            put(h, CONFIG, 1 | (r >> 11 & 2));
        else
            put(h, CONFIG, r >> 24);
        if (r >> 30 & 1)
            put(h, COUNTER, any_value(h, r));
        return get(h, COUNTER);
    default:
        if (r & 8)
            mm_out(h, HPET_BASE + (r >> 8 & 0x3ff), r >> 20, 1u << (r >> 4 & 3));
        else
            harness_jump(h, r >> 8 & 0xffffffff);
        return mm_in(h, HPET_BASE + (r >> 8 & 0x3ff), 1u << (r >> 4 & 3));
    }
}

static void test_random(void **state)
{
    harness_fuzz(build, any_op, 20000, 0x4be7);
}

static void poke(struct harness *h)
{
    uint64_t seed = 11;

    for (unsigned i = 0; i < 30; i++)
        any_op(h, harness_random(&seed));
}

/* A host that took the processor's thread away gives ticks of interrupt 0 back. */
static void test_catch_up(void **state)
{
    struct harness *h = harness_create(build_probed);
    bool waiting = false;
    unsigned before;

    h->test = &waiting;
    put(h, config_of(0), T_ENABLE | T_PERIODIC | T_SET);
    put(h, comparator_of(0), 100000);
    put(h, comparator_of(0), 100000); /* a millisecond */
    put(h, CONFIG, 3);
    harness_advance(h, 10 * NS_PER_MS);
    assert_in_range(h->line[IRQ0].rises, 9, 10);
    waiting = true;
    before = h->line[IRQ0].rises;
    harness_advance(h, 10 * NS_PER_MS);
    assert_int_equal(h->line[IRQ0].rises, before);
    waiting = false;
    harness_reload(h);
    harness_advance(h, 4 * NS_PER_MS);
    assert_in_range(h->line[IRQ0].rises - before, 13, 14);
    before = h->line[IRQ0].rises;
    harness_jump(h, 10 * NS_PER_MS);
    assert_int_equal(h->line[IRQ0].rises, before + 1);
    harness_advance(h, 4 * NS_PER_MS);
    assert_in_range(h->line[IRQ0].rises - before, 13, 14);
    /* Stopping forgets them. */
    waiting = true;
    harness_advance(h, 10 * NS_PER_MS);
    put(h, CONFIG, 2);
    put(h, CONFIG, 3);
    waiting = false;
    before = h->line[IRQ0].rises;
    harness_advance(h, 10 * NS_PER_MS);
    assert_in_range(h->line[IRQ0].rises - before, 9, 11);
    harness_destroy(h);
}

static void test_hostile_state(void **state)
{
    struct harness *h = harness_create(build);

    put(h, CONFIG, 3);
    harness_advance(h, NS_PER_SEC);
    put(h, config_of(0), T_ENABLE | T_PERIODIC | T_SET | route(20));
    put(h, comparator_of(0), get(h, COUNTER) + 10000);
    put(h, comparator_of(0), 10000);
    put(h, config_of(2), T_ENABLE | T_LEVEL | route(21));
    put(h, comparator_of(2), get(h, COUNTER) + 10);
    harness_advance(h, NS_PER_MS);
    harness_corrupt(h, poke);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers),     cmocka_unit_test(test_counter),
        cmocka_unit_test(test_one_shot),      cmocka_unit_test(test_32_bits),
        cmocka_unit_test(test_periodic),      cmocka_unit_test(test_level),
        cmocka_unit_test(test_legacy),        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_late),          cmocka_unit_test(test_hostile_rate),
        cmocka_unit_test(test_map),           cmocka_unit_test(test_random),
        cmocka_unit_test(test_catch_up),      cmocka_unit_test(test_hostile_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
