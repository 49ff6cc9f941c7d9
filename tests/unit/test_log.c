/*
 * base/log.c and base/error.c: thresholds, the rate limit, one-line errors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>

#include "base/error.h"
#include "base/host.h"
#include "base/log.h"

struct sink {
    _Atomic unsigned lines;
    enum log_area area;
    enum log_level level;
    char last[600];
};

static void sink_one(void *ctx, enum log_area area, enum log_level level, const char *line)
{
    struct sink *s = ctx;

    atomic_fetch_add(&s->lines, 1);
    s->area = area;
    s->level = level;
    snprintf(s->last, sizeof s->last, "%s", line);
}

static void sink_count(void *ctx, enum log_area area, enum log_level level, const char *line)
{
    atomic_fetch_add((_Atomic unsigned *)ctx, 1);
}

static int evaluated(int *count)
{
    return ++*count;
}

static void test_thresholds(void **state)
{
    struct sink s = {0};
    struct log log;
    int count = 0;

    log_init(&log, sink_one, &s);
    vlog(&log, CPU, WARN, "processor %d", 3);
    assert_string_equal(s.last, "processor 3");
    assert_int_equal(s.area, LOG_CPU);
    assert_int_equal(s.level, LOG_WARN);
    vlog(&log, CPU, GUEST, "shown by default");
    assert_int_equal(s.lines, 2);
    vlog(&log, CPU, INFO, "%d", evaluated(&count));
    assert_int_equal(s.lines, 2);
    assert_int_equal(count, 0); /* nobody listens: not even evaluated */
    vlog((struct log *)NULL, CPU, ERROR, "%d", evaluated(&count));
    assert_int_equal(count, 0);
}

static void test_configure(void **state)
{
    struct sink s = {0};
    struct log log;

    log_init(&log, sink_one, &s);
    assert_int_equal(log_configure(&log, "pci"), 0);
    assert_int_equal(log.threshold[LOG_PCI], LOG_DEBUG);
    assert_int_equal(log.threshold[LOG_CPU], LOG_GUEST);
    assert_int_equal(log_configure(&log, "all=error,apic=info"), 0);
    assert_int_equal(log.threshold[LOG_PCI], LOG_ERROR);
    assert_int_equal(log.threshold[LOG_APIC], LOG_INFO);
    assert_int_equal(log_configure(&log, "nonsense"), -EINVAL);
    assert_int_equal(log_configure(&log, "pci=loud"), -EINVAL);
    assert_int_equal(log_configure(&log, "pci="), -EINVAL);
    assert_int_equal(log_configure(&log, ""), -EINVAL);
    assert_int_equal(log_configure(&log, "pc"), -EINVAL);
    for (int i = 0; i < LOG_AREA_COUNT; i++)
        assert_int_equal(log_configure(&log, log_area_name((enum log_area)i)), 0);
    assert_string_equal(log_level_name(LOG_GUEST), "guest");
}

static void test_rate(void **state)
{
    struct sink s = {0};
    struct log log;
    unsigned shown;

    log_init(&log, sink_one, &s);
    for (int i = 0; i < 1000; i++)
        vlog(&log, PCI, GUEST, "again");
    /* A window may have ended in the middle, so up to two windows' worth. */
    assert_in_range(s.lines, 20, 41);
    shown = s.lines;
    vlog(&log, APIC, GUEST, "other areas have their own limit");
    assert_int_equal(s.lines, shown + 1);
    for (int i = 0; i < 100; i++)
        vlog(&log, PCI, ERROR, "errors of the host are never left out");
    assert_int_equal(s.lines, shown + 101);

    log.rate[LOG_PCI].window_start_ns = host_monotonic_ns() - 2 * NS_PER_SEC;
    shown = s.lines;
    vlog(&log, PCI, GUEST, "next window");
    assert_int_equal(s.lines, shown + 2); /* how many were left out, and the line */
    assert_string_equal(s.last, "next window");
    assert_int_equal(log.rate[LOG_PCI].suppressed, 0);
}

static void *write_many(void *arg)
{
    for (int i = 0; i < 2000; i++)
        vlog((struct log *)arg, VM, GUEST, "%d", i);
    return NULL;
}

static void test_threads(void **state)
{
    _Atomic unsigned lines = 0;
    struct thread t[4];
    struct log log;

    log_init(&log, sink_count, &lines);
    for (int i = 0; i < 4; i++)
        assert_int_equal(thread_start(&t[i], "log", write_many, &log), 0);
    for (int i = 0; i < 4; i++)
        thread_join(&t[i]);
    assert_in_range(lines, 20, 8000);
}

static void test_long_line(void **state)
{
    struct sink s = {0};
    struct log log;
    char text[2000];

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    log_init(&log, sink_one, &s);
    vlog(&log, VM, ERROR, "%s", text);
    assert_int_equal(strlen(s.last), 511);
}

static void test_error(void **state)
{
    struct error err;

    assert_int_equal(error_set(&err, -ENOENT, "cannot open \"%s\"", "a\nb\033[31m"), -ENOENT);
    assert_string_equal(err.text, "cannot open \"a?b?[31m\"");
    assert_int_equal(error_set(NULL, -EINVAL, "nobody reads %d", 1), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thresholds), cmocka_unit_test(test_configure),
        cmocka_unit_test(test_rate),       cmocka_unit_test(test_threads),
        cmocka_unit_test(test_long_line),  cmocka_unit_test(test_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
