/*
 * The log: thresholds by area, formatting, and the rate limit that keeps a
 * guest from filling its owner's disk. Interface: base/log.h.
 *
 * Threading: log_write may be called by any thread at any time, so the sink
 * may be, too; thresholds are set before machines run. The rate counters are
 * plain integers that are only touched by __atomic operations, all relaxed:
 * they guard nothing but themselves, and a race at the change of a window
 * costs one line more or less.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/host.h"

#define RATE_WINDOW_NS NS_PER_SEC
#define RATE_LINES 20 /* of LOG_GUEST, an area and window */

static const char *const area_names[LOG_AREA_COUNT] = {
#define X(id, name) [LOG_##id] = name,
    LOG_AREAS(X)
#undef X
};

static const char *const level_names[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn",   [LOG_GUEST] = "guest",
    [LOG_INFO] = "info",   [LOG_DEBUG] = "debug",
};

const char *log_area_name(enum log_area area)
{
    return (unsigned)area < LOG_AREA_COUNT ? area_names[area] : "?";
}

const char *log_level_name(enum log_level level)
{
    return (unsigned)level < ARRAY_SIZE(level_names) ? level_names[level] : "?";
}

void log_init(struct log *log, void (*sink)(void *, enum log_area, enum log_level, const char *),
              void *ctx)
{
    memset(log, 0, sizeof *log);
    log->sink = sink;
    log->ctx = ctx;
    memset(log->threshold, LOG_GUEST, sizeof log->threshold);
}

static bool name_is(const char *name, const char *s, size_t length)
{
    return strlen(name) == length && !memcmp(name, s, length);
}

/* One AREA or AREA=LEVEL. Without a level: all there is. */
static int configure_one(struct log *log, const char *spec, size_t length)
{
    const char *equals = memchr(spec, '=', length);
    size_t area_length = equals ? (size_t)(equals - spec) : length;
    enum log_level level = LOG_DEBUG;
    bool found = false;

    if (equals) {
        for (unsigned i = 0; i < ARRAY_SIZE(level_names) && !found; i++) {
            found = name_is(level_names[i], equals + 1, length - area_length - 1);
            level = (enum log_level)i;
        }
        if (!found)
            return -EINVAL;
        found = false;
    }
    for (unsigned i = 0; i < LOG_AREA_COUNT; i++) {
        if (name_is(area_names[i], spec, area_length) || name_is("all", spec, area_length)) {
            log->threshold[i] = level;
            found = true;
        }
    }
    return found ? 0 : -EINVAL;
}

int log_configure(struct log *log, const char *spec)
{
    for (;;) {
        size_t length = strcspn(spec, ",");
        int r = configure_one(log, spec, length);

        if (r || !spec[length])
            return r;
        spec += length + 1;
    }
}

/* Whether a line the guest provoked may pass; *skipped is how many did not in
 * the window that has just ended. */
static bool rate_allows(struct log *log, enum log_area area, uint32_t *skipped)
{
    uint64_t *window = &log->rate[area].window_start_ns;
    uint32_t *lines = &log->rate[area].in_window;
    uint32_t *suppressed = &log->rate[area].suppressed;
    uint64_t now = host_monotonic_ns();
    uint64_t start = __atomic_load_n(window, __ATOMIC_RELAXED);

    *skipped = 0;
    if (now - start >= RATE_WINDOW_NS &&
        __atomic_compare_exchange_n(window, &start, now, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED)) {
        __atomic_store_n(lines, 0, __ATOMIC_RELAXED);
        *skipped = __atomic_exchange_n(suppressed, 0, __ATOMIC_RELAXED);
    }
    if (__atomic_fetch_add(lines, 1, __ATOMIC_RELAXED) < RATE_LINES)
        return true;
    __atomic_fetch_add(suppressed, 1, __ATOMIC_RELAXED);
    return false;
}

void log_write(struct log *log, enum log_area area, enum log_level level, const char *format, ...)
{
    char line[512];
    uint32_t skipped;
    va_list args;

    if (!log || !log->sink)
        return;
    if (level == LOG_GUEST) {
        if (!rate_allows(log, area, &skipped))
            return;
        if (skipped) {
            snprintf(line, sizeof line, "(%u lines like these were left out)", skipped);
            log->sink(log->ctx, area, level, line);
        }
    }
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log->sink(log->ctx, area, level, line);
}
