/*
 * base/patience.c: what it learns from waits, when it looks and when it does not, and
 * that what is looked for is seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <sched.h>
#include <unistd.h>

#include "base/host.h"
#include "base/patience.h"

static uint32_t window(const struct patience *p)
{
    return atomic_load(&p->window_ns);
}

static void learning(void **state)
{
    struct patience p = {0};

    patience_learn(&p, 10000);
    assert_int_equal(window(&p), 20000);
    patience_learn(&p, 150000);
    assert_int_equal(window(&p), PATIENCE_MAX_NS);
    /* Short waits shrink it slowly, to what they need. */
    for (unsigned n = 0; n < 200; n++)
        patience_learn(&p, 10000);
    assert_in_range(window(&p), 18000, 22000);
    /* Long ones soon end it, and an idle machine stays so. */
    for (unsigned n = 0; n < 4; n++)
        patience_learn(&p, 4000000);
    assert_int_equal(window(&p), 0);
    patience_learn(&p, UINT64_MAX);
    assert_int_equal(window(&p), 0);
    patience_learn(&p, 0);
    assert_int_equal(window(&p), 0);
}

static void none_to_begin_with(void **state)
{
    struct patience p = {0};
    _Atomic uint32_t word = 1;

    assert_false(patience_begin(&p));
    assert_false(patience_look(&p, &word, 1));
    assert_false(patience_look(&p, &word, 2)); /* it would have to be looked at */
}

struct setter {
    _Atomic uint32_t word;
    _Atomic uint32_t go;
};

static void *set_when_told(void *arg)
{
    struct setter *s = arg;

    while (!atomic_load(&s->go))
        sched_yield();
    atomic_store(&s->word, 1);
    return NULL;
}

static void sees(void **state)
{
    struct patience p = {0};
    unsigned seen = 0;

    if (host_processors() == 1)
        skip(); /* it never looks */
    for (unsigned n = 0; n < 200; n++) {
        struct setter s = {0};
        struct thread t;
        bool saw;

        assert_int_equal(thread_start(&t, "setter", set_when_told, &s), 0);
        p = (struct patience){0}; /* forgets that a busy host kept us waiting */
        patience_learn(&p, 150000);
        atomic_store(&s.go, 1);
        saw = patience_look(&p, &s.word, 0);
        assert_false(saw && !atomic_load(&s.word));
        seen += saw;
        thread_join(&t);
    }
    assert_true(seen > 0);
}

/* It ends by itself, and after a time in which others had the processor it does not
 * begin before the pause is over. */
static void ends(void **state)
{
    struct patience p = {0};
    _Atomic uint32_t word = 0;
    uint64_t pause;

    if (host_processors() == 1)
        skip();
    patience_learn(&p, 150000);
    assert_false(patience_look(&p, &word, 0));
    p = (struct patience){0};
    patience_learn(&p, 150000);
    assert_true(patience_begin(&p));
    usleep(5000); /* as if others had it */
    assert_false(patience_lasts(&p));
    pause = p.pause_ns;
    assert_true(pause > 0 && p.pause_end_ns == p.last_ns + pause);
    p.pause_end_ns += NS_PER_SEC; /* so that this host has not been slower */
    assert_false(patience_begin(&p));
    /* Again, soon after: a longer one. */
    p.pause_end_ns = 0;
    assert_true(patience_begin(&p));
    p.pause_end_ns = p.last_ns;
    usleep(5000);
    assert_false(patience_lasts(&p));
    assert_int_equal(p.pause_ns, 2 * pause);
    /* Long after: the first again. */
    p.pause_end_ns = 0;
    assert_true(patience_begin(&p));
    p.pause_end_ns = p.last_ns - 3 * p.pause_ns;
    usleep(5000);
    assert_false(patience_lasts(&p));
    assert_int_equal(p.pause_ns, pause);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learning),
        cmocka_unit_test(none_to_begin_with),
        cmocka_unit_test(sees),
        cmocka_unit_test(ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
