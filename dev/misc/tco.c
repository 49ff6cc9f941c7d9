/*
 * The ICH9's TCO watchdog. See tco.h.
 */
#include "dev/misc/tco.h"

#include <errno.h>

/* Doublewords of the block; narrower registers share them. */
enum tco_doubleword {
    TCO_RLD = 0x00,     /* with DAT_IN in byte 2 and DAT_OUT in byte 3 */
    TCO_STS = 0x04,     /* TCO1_STS, TCO2_STS */
    TCO_CNT = 0x08,     /* TCO1_CNT, TCO2_CNT */
    TCO_MESSAGE = 0x0C, /* MESSAGE1, MESSAGE2, WDCNT */
    TCO_SW_IRQ = 0x10,  /* SW_IRQ_GEN, TCO_TMR in the upper half */
};

enum tco_status1 {
    STS1_SW_TCO_SMI = 1 << 1,
    STS1_OS_TCO_SMI = 1 << 2,
    STS1_TIMEOUT = 1 << 3,
    STS1_W1C = 0x338E, /* DMI*, BIOSWR, NEWCENTURY, TIMEOUT, OS/SW SMI */
};

enum tco_status2 {
    STS2_SECOND_TIMEOUT = 1 << 1,
    STS2_BOOT = 1 << 2,
    STS2_W1C = 0x0017,
};

enum tco_control1 {
    CNT1_NMI2SMI = 1 << 9,
    CNT1_HALT = 1 << 11,
    CNT1_LOCK = 1 << 12, /* stays set until reset */
    CNT1_WRITABLE = CNT1_NMI2SMI | CNT1_HALT,
};

enum tco_field {
    COUNT_MASK = 0x3FF,
    COUNT_MIN = 2, /* smaller values are ignored */
    INITIAL_RESET = 4,
    CNT2_WRITABLE = 0x003E,
    CNT2_RESET = 0x0008,
};

static bool is_counting(const struct tco *t)
{
    return t->started && !(t->cnt1 & CNT1_HALT);
}

static uint16_t count_now(const struct tco *t)
{
    uint64_t now = clock_now_ns(&t->vm->clock);

    if (!is_counting(t) || !timer_is_armed(&t->timer))
        return t->stopped_count;
    if (t->timer.deadline_ns <= now)
        return 0;
    return (uint16_t)((t->timer.deadline_ns - now + TCO_TICK_NS - 1) / TCO_TICK_NS);
}

static void start(struct tco *t, uint16_t count)
{
    t->started = true;
    t->stopped_count = count;
    if (is_counting(t))
        timer_arm(&t->timer, clock_now_ns(&t->vm->clock) + count * TCO_TICK_NS);
}

static void expired(void *ctx)
{
    struct tco *t = ctx;

    if (!is_counting(t))
        return;
    if (!t->timed_out) {
        t->timed_out = true;
        t->sts1 |= STS1_TIMEOUT;
        start(t, t->initial);
        return;
    }
    t->timed_out = false;
    t->sts2 |= STS2_SECOND_TIMEOUT | STS2_BOOT;
    if (t->no_reboot) {
        start(t, t->initial);
        return;
    }
    t->started = false;
    vlog(t->vm->log, PM, WARN, "the guest's TCO watchdog ran out: resetting the machine");
    vm_request_reset(t->vm);
}

uint32_t tco_read(struct tco *t, unsigned offset)
{
    switch ((enum tco_doubleword)offset) {
    case TCO_RLD:
        return count_now(t) | (uint32_t)t->data_in << 16 | (uint32_t)t->data_out << 24;
    case TCO_STS:
        return t->sts1 | (uint32_t)t->sts2 << 16;
    case TCO_CNT:
        return t->cnt1 | (uint32_t)t->cnt2 << 16;
    case TCO_MESSAGE:
        return t->message[0] | (uint32_t)t->message[1] << 8 | (uint32_t)t->wdcnt << 16;
    case TCO_SW_IRQ:
        return t->sw_irq_gen | (uint32_t)t->initial << 16;
    }
    return 0;
}

static void merge8(uint8_t *reg, uint32_t value, uint32_t mask, unsigned shift)
{
    uint8_t m = (uint8_t)(mask >> shift);

    *reg = (*reg & ~m) | ((value >> shift) & m);
}

static void write_control1(struct tco *t, uint16_t value, uint16_t mask)
{
    uint16_t count = count_now(t), before = t->cnt1;

    mask &= CNT1_WRITABLE;
    t->cnt1 = (before & ~mask) | (value & mask) | (value & CNT1_LOCK) | (before & CNT1_LOCK);
    if (!((before ^ t->cnt1) & CNT1_HALT))
        return;
    if (t->cnt1 & CNT1_HALT) {
        timer_cancel(&t->timer);
        t->stopped_count = count;
    } else {
        start(t, MAX(count, 1));
    }
}

static void write_initial(struct tco *t, uint16_t value, uint16_t mask)
{
    uint16_t initial = ((t->initial & ~mask) | (value & mask)) & COUNT_MASK;

    if (mask && initial >= COUNT_MIN)
        t->initial = initial;
}

void tco_write(struct tco *t, unsigned offset, uint32_t value, uint32_t mask)
{
    value &= mask;
    switch ((enum tco_doubleword)offset) {
    case TCO_RLD:
        if (mask & 0xFFFF) {
            t->timed_out = false;
            start(t, t->initial);
        }
        /* A byte to DAT_IN or DAT_OUT would tell an SMI handler or the OS. */
        merge8(&t->data_in, value, mask, 16);
        merge8(&t->data_out, value, mask, 24);
        if (mask & 0x00FF0000)
            t->sts1 |= STS1_SW_TCO_SMI;
        if (mask & 0xFF000000)
            t->sts1 |= STS1_OS_TCO_SMI;
        break;
    case TCO_STS:
        t->sts1 &= ~(value & STS1_W1C);
        t->sts2 &= ~((value >> 16) & STS2_W1C);
        break;
    case TCO_CNT:
        if (mask & 0xFFFF)
            write_control1(t, (uint16_t)value, (uint16_t)mask);
        mask = mask >> 16 & CNT2_WRITABLE;
        t->cnt2 = (uint16_t)((t->cnt2 & ~mask) | ((value >> 16) & mask));
        break;
    case TCO_MESSAGE:
        merge8(&t->message[0], value, mask, 0);
        merge8(&t->message[1], value, mask, 8);
        merge8(&t->wdcnt, value, mask, 16);
        break;
    case TCO_SW_IRQ:
        merge8(&t->sw_irq_gen, value, mask & 3, 0);
        write_initial(t, (uint16_t)(value >> 16), (uint16_t)(mask >> 16));
        break;
    }
}

bool tco_is_locked(const struct tco *t)
{
    return t->cnt1 & CNT1_LOCK;
}

void tco_init(struct tco *t, struct vm *vm)
{
    t->vm = vm;
    timer_init(&t->timer, vm, expired, t);
    tco_reset(t);
    t->sts2 = 0;
}

void tco_destroy(struct tco *t)
{
    timer_destroy(&t->timer);
}

/* TCO2_STS is in the resume well: a driver reads there that the watchdog has
 * caused this reset. */
void tco_reset(struct tco *t)
{
    timer_cancel(&t->timer);
    t->data_in = 0;
    t->data_out = 0;
    t->message[0] = 0;
    t->message[1] = 0;
    t->wdcnt = 0;
    t->sw_irq_gen = 3;
    t->sts1 = 0;
    t->cnt1 = 0;
    t->cnt2 = CNT2_RESET;
    t->initial = INITIAL_RESET;
    t->started = false;
    t->timed_out = false;
    t->stopped_count = INITIAL_RESET;
}

static const struct state_field tco_fields[] = {
    STATE_INT(struct tco, no_reboot), STATE_INT(struct tco, data_in),
    STATE_INT(struct tco, data_out),  STATE_BYTES(struct tco, message),
    STATE_INT(struct tco, wdcnt),     STATE_INT(struct tco, sw_irq_gen),
    STATE_INT(struct tco, sts1),      STATE_INT(struct tco, sts2),
    STATE_INT(struct tco, cnt1),      STATE_INT(struct tco, cnt2),
    STATE_INT(struct tco, initial),   STATE_INT(struct tco, started),
    STATE_INT(struct tco, timed_out), STATE_INT(struct tco, stopped_count),
    STATE_TIMER(struct tco, timer),   STATE_END,
};

const struct state_table tco_state = {
    .name = "tco",
    .version = 1,
    .fields = tco_fields,
};
