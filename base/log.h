/*
 * The log: what the guest or the host did that a person may want to know.
 *
 * A struct log belongs to whoever runs machines (main.c, a test) and is
 * pointed to by struct vm. Lines go to one sink function. Thread-safe. Lines
 * at LOG_GUEST level are limited in rate, per call site area, because the
 * guest decides how often they occur.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/base.h"

enum log_level {
    LOG_ERROR, /* host failed: always shown */
    LOG_WARN,  /* shown by default */
    LOG_GUEST, /* the guest misbehaved: shown by default, rate-limited */
    LOG_INFO,  /* shown on request */
    LOG_DEBUG, /* every register access */
};

/* One area a room of the house; --log takes these names in lower case. */
#define LOG_AREAS(X)                                                                               \
    X(VM, "vm")                                                                                    \
    X(MEM, "mem")                                                                                  \
    X(CPU, "cpu")                                                                                  \
    X(MMU, "mmu")                                                                                  \
    X(MSR, "msr")                                                                                  \
    X(APIC, "apic")                                                                                \
    X(ENGINE, "engine")                                                                            \
    X(IRQ, "irq")                                                                                  \
    X(TIMER, "timer")                                                                              \
    X(SERIAL, "serial")                                                                            \
    X(PCI, "pci")                                                                                  \
    X(DISK, "disk")                                                                                \
    X(VIRTIO, "virtio")                                                                            \
    X(NET, "net")                                                                                  \
    X(PM, "pm")                                                                                    \
    X(INPUT, "input")                                                                              \
    X(FWCFG, "fwcfg")                                                                              \
    X(BOARD, "board")                                                                              \
    X(BOOT, "boot")                                                                                \
    X(BACKEND, "backend")                                                                          \
    X(FIRMWARE, "firmware") /* what the guest prints on ports 0x402 and 0xE9 */

enum log_area {
#define X(id, name) LOG_##id,
    LOG_AREAS(X)
#undef X
        LOG_AREA_COUNT
};

struct log {
    void (*sink)(void *ctx, enum log_area area, enum log_level level, const char *line);
    void *ctx;
    uint8_t threshold[LOG_AREA_COUNT]; /* enum log_level: the most detailed level shown */
    struct {
        uint64_t window_start_ns; /* atomics, see log.c */
        uint32_t in_window;
        uint32_t suppressed;
    } rate[LOG_AREA_COUNT];
};

void log_init(struct log *log, void (*sink)(void *, enum log_area, enum log_level, const char *),
              void *ctx);

/* "AREA", "AREA=LEVEL", "all=debug"; -EINVAL when it names nothing known. */
int log_configure(struct log *log, const char *spec);

const char *log_area_name(enum log_area area);
const char *log_level_name(enum log_level level);

static inline bool log_wants(const struct log *log, enum log_area area, enum log_level level)
{
    return log && level <= log->threshold[area];
}

void log_write(struct log *log, enum log_area area, enum log_level level, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* Arguments are not evaluated when nobody listens. */
#define vlog(log, area, level, ...)                                                                \
    do {                                                                                           \
        if (unlikely(log_wants(log, LOG_##area, LOG_##level)))                                     \
            log_write(log, LOG_##area, LOG_##level, __VA_ARGS__);                                  \
    } while (0)

#endif
