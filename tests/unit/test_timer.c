/*
 * vm/clock.c and vm/timer.c: exact conversions, the order of firing against a
 * sorted model, timers of the host, clocks that never go back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

#include "vm/vm.h"

static struct vm *make(bool deterministic)
{
    struct vm_config config = {.deterministic = deterministic};
    struct vm *vm = vm_create(&config, NULL);

    assert_non_null(vm);
    return vm;
}

static void run_until(struct vm *vm, uint64_t ns, enum vm_exit expected)
{
    enum vm_exit exit;

    assert_int_equal(vm_run_until(vm, ns, &exit, NULL, NULL), 0);
    assert_int_equal(exit, expected);
}

static uint64_t random64(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* ---- conversions ---- */

static void test_conversions(void **state)
{
    static const uint64_t rates[] = {1193182, 3579545, 14318180,   100000000,
                                     32768,   1,       3000000001, NS_PER_SEC};
    uint64_t seed = 1;

    assert_int_equal(clock_ticks(NS_PER_SEC, 1193182), 1193182);
    assert_int_equal(clock_ticks(NS_PER_SEC - 1, 1193182), 1193181);
    /* A hundred years in, nothing has drifted. */
    assert_int_equal(clock_ticks(3153600000ull * NS_PER_SEC, 14318180), 3153600000ull * 14318180);
    for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
        for (int n = 0; n < 1000; n++) {
            uint64_t ticks = random64(&seed) % (rates[i] * 3000000);
            uint64_t ns = clock_ticks_to_ns(ticks, rates[i]);

            /* The first nanosecond at which the count is reached. */
            assert_true(clock_ticks(ns, rates[i]) >= ticks);
            if (ns)
                assert_true(clock_ticks(ns - 1, rates[i]) < ticks);
        }
    }
    /* What a guest can write is no time of this machine: never. */
    assert_int_equal(clock_ticks_to_ns(UINT64_MAX, 1193182), TIME_NEVER);
    assert_int_equal(clock_ticks_to_ns(UINT64_MAX, NS_PER_SEC), UINT64_MAX);
}

static void test_tsc(void **state)
{
    struct vm *vm = make(true);
    uint64_t seed = 5;

    assert_int_equal(vm->clock.tsc_hz, NS_PER_SEC);
    vm->clock.tsc_hz = 2999999999;
    for (int n = 0; n < 1000; n++) {
        uint64_t tsc = random64(&seed) >> 10;
        uint64_t ns = clock_tsc_to_ns(&vm->clock, tsc);

        assert_true(clock_ns_to_tsc(&vm->clock, ns) >= tsc);
        assert_true(clock_ns_to_tsc(&vm->clock, ns - 1) < tsc);
    }
    vm_destroy(vm);
}

/* ---- the clock does not go back ---- */

static void check_monotonic(void *ctx)
{
    struct vm *vm = ctx;
    uint64_t ns = clock_now_ns(&vm->clock), tsc = clock_tsc(&vm->clock);

    for (int i = 0; i < 200; i++) {
        uint64_t ns2, tsc2;

        vm_pause(vm);
        ns2 = clock_now_ns(&vm->clock);
        tsc2 = clock_tsc(&vm->clock);
        assert_true(ns2 >= ns);
        assert_true(tsc2 >= tsc);
        vm_resume(vm);
        ns = clock_now_ns(&vm->clock);
        tsc = clock_tsc(&vm->clock);
        assert_true(ns >= ns2);
        assert_true(tsc >= tsc2);
    }
    vm_stop(vm);
}

static void test_monotonic(void **state)
{
    struct vm *vm = make(false);
    struct timer t;

    timer_init(&t, vm, check_monotonic, vm);
    for (int i = 0; i < 2; i++) {
        timer_arm(&t, 0);
        run_until(vm, TIME_NEVER, VM_EXIT_STOPPED);
        /* A machine that came from a host of another frequency. */
        clock_set(&vm->clock, clock_now_ns(&vm->clock), 1234567890);
    }
    timer_destroy(&t);
    vm_destroy(vm);
}

/* ---- order ---- */

#define TIMERS 50

struct one {
    struct timer timer;
    struct order *order;
    uint64_t due; /* TIME_NEVER: must not fire */
};

struct order {
    struct vm *vm;
    struct one one[TIMERS];
    uint64_t last_ns;
    unsigned last_id;
    unsigned fired;
    uint64_t seed;
    bool rearm;
};

static void one_fires(void *ctx)
{
    struct one *t = ctx;
    struct order *o = t->order;
    uint64_t now = clock_now_ns(&o->vm->clock);

    assert_int_equal(t->due, now); /* nothing runs, so time jumps to each */
    assert_false(timer_is_armed(&t->timer));
    if (now == o->last_ns)
        assert_true(t->timer.id > o->last_id);
    o->last_ns = now;
    o->last_id = t->timer.id;
    o->fired++;
    t->due = TIME_NEVER;
    if (!o->rearm)
        return;
    /* Changes others, which may be due at this very moment. */
    t = &o->one[random64(&o->seed) % TIMERS];
    if (random64(&o->seed) % 3) {
        t->due = now + 1 + random64(&o->seed) % 50;
        timer_arm(&t->timer, t->due);
    } else {
        t->due = TIME_NEVER;
        timer_cancel(&t->timer);
    }
}

static void test_order(void **state)
{
    struct order *o = calloc(1, sizeof *o);
    uint64_t at = 0;

    o->vm = make(true);
    o->seed = 3;
    for (unsigned i = 0; i < TIMERS; i++) {
        o->one[i].order = o;
        o->one[i].due = TIME_NEVER;
        timer_init(&o->one[i].timer, o->vm, one_fires, &o->one[i]);
        assert_false(timer_is_armed(&o->one[i].timer));
    }
    for (int round = 0; round < 500; round++) {
        for (int n = 0; n < 40; n++) {
            struct one *t = &o->one[random64(&o->seed) % TIMERS];

            t->due = at + 1 + random64(&o->seed) % 30; /* many ties */
            timer_arm(&t->timer, t->due);
            assert_true(timer_is_armed(&t->timer));
            if (random64(&o->seed) % 4 == 0) {
                t = &o->one[random64(&o->seed) % TIMERS];
                t->due = TIME_NEVER;
                timer_cancel(&t->timer);
            }
        }
        o->rearm = round % 2;
        at += 20;
        run_until(o->vm, at, VM_EXIT_LIMIT);
        o->last_id = 0;
        for (unsigned i = 0; i < TIMERS; i++) /* nobody was forgotten */
            assert_true(o->one[i].due > at);
    }
    assert_true(o->fired > 5000);
    for (unsigned i = 0; i < TIMERS; i++)
        timer_destroy(&o->one[i].timer);
    vm_destroy(o->vm);
    free(o);
}

/* ---- timers that have passed, and time that stands ---- */

struct stubborn {
    struct timer timer, other;
    struct vm *vm;
    unsigned fired, other_fired;
};

static void stubborn_fires(void *ctx)
{
    struct stubborn *s = ctx;

    s->fired++;
    timer_arm(&s->timer, 0); /* a device that never catches up */
}

static void stubborn_other(void *ctx)
{
    struct stubborn *s = ctx;

    s->other_fired++;
    vm_stop(s->vm);
}

static void test_past(void **state)
{
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        struct stubborn s = {.vm = make(deterministic)};

        timer_init(&s.timer, s.vm, stubborn_fires, &s);
        timer_init(&s.other, s.vm, stubborn_other, &s);
        timer_arm(&s.timer, 0);
        timer_arm(&s.other, 0);
        assert_int_equal(s.fired, 0); /* never inside the call */
        timer_arm(&s.timer, 0);
        run_until(s.vm, TIME_NEVER, VM_EXIT_STOPPED);
        assert_true(s.fired >= 1); /* the machine could be stopped all the same */
        timer_destroy(&s.timer);
        timer_destroy(&s.other);
        vm_destroy(s.vm);
    }
}

/* ---- real time ---- */

struct early {
    struct timer timer;
    struct vm *vm;
    uint64_t due;
    unsigned fired;
    uint64_t seed;
};

static void early_fires(void *ctx)
{
    struct early *e = ctx;
    uint64_t now = clock_now_ns(&e->vm->clock);

    assert_true(now >= e->due);
    if (++e->fired == 50) {
        vm_stop(e->vm);
        return;
    }
    e->due = now + random64(&e->seed) % (400 * NS_PER_US);
    timer_arm(&e->timer, e->due + NS_PER_SEC); /* moved to and fro, as guests do */
    timer_arm(&e->timer, e->due);
}

/* Armed by other threads while the I/O thread sleeps. */
static void *arm_from_thread(void *arg)
{
    struct early *e = arg;

    e->due = clock_now_ns(&e->vm->clock) + NS_PER_MS;
    timer_arm(&e->timer, e->due);
    return NULL;
}

static void test_real(void **state)
{
    struct early e = {.vm = make(false), .seed = 11};
    struct thread t;

    timer_init(&e.timer, e.vm, early_fires, &e);
    timer_arm(&e.timer, 0);
    run_until(e.vm, TIME_NEVER, VM_EXIT_STOPPED);
    assert_int_equal(e.fired, 50);

    e.fired = 49;
    assert_int_equal(thread_start(&t, "arm", arm_from_thread, &e), 0);
    run_until(e.vm, TIME_NEVER, VM_EXIT_STOPPED);
    thread_join(&t);
    assert_int_equal(e.fired, 50);
    timer_destroy(&e.timer);
    timer_destroy(&e.timer); /* twice does no harm */
    vm_destroy(e.vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversions), cmocka_unit_test(test_tsc),
        cmocka_unit_test(test_monotonic),   cmocka_unit_test(test_order),
        cmocka_unit_test(test_past),        cmocka_unit_test(test_real),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
