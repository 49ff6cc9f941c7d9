/*
 * The MC146818 real-time clock and 256 bytes of CMOS RAM, as in the ICH9.
 *
 * Follows: Motorola MC146818 data sheet (1984); Intel ICH9 data sheet,
 * sections 5.11 and 13.6. As in the ICH9, only the 32.768 kHz time base
 * exists, daylight saving has no effect, and ports 72H/73H reach the upper 128
 * bytes. Cell 32H holds the century, which the clock carries along: firmware
 * would otherwise do that.
 *
 * Nothing ticks. The cells hold the time as of the last second's end that
 * somebody looked at (second_ns); whoever looks again first advances it, and
 * with it the alarm, update and periodic flags. A host timer runs only while
 * an enabled interrupt can still come, that is until one is pending, because
 * nothing more is visible before register C is read.
 *
 * The time is UTC: vm->clock.epoch_ns plus virtual time. Software's changes
 * of it live as long as the machine, and survive a reset.
 *
 * Interface: rtc.h. Threading: with the machine's lock held.
 */
#include "dev/timer/rtc.h"

#include <errno.h>
#include <stdlib.h>

#include "vm/vm.h"

enum {
    PORT_RTC = 0x70,
    OFFSET_INDEX = 0, /* and, in bit 7, the NMI mask */
    OFFSET_DATA = 1,
    OFFSET_UPPER_INDEX = 2,
    OFFSET_UPPER_DATA = 3,
    INDEX_MASK = 0x7f,
    INDEX_NMI_DISABLE = 0x80,
    BANK_CELLS = 128,
    CELLS = 2 * BANK_CELLS,
};

enum cell {
    CELL_SECONDS = 0,
    CELL_SECONDS_ALARM = 1,
    CELL_MINUTES = 2,
    CELL_MINUTES_ALARM = 3,
    CELL_HOURS = 4,
    CELL_HOURS_ALARM = 5,
    CELL_WEEKDAY = 6, /* 1 is Sunday */
    CELL_DAY = 7,
    CELL_MONTH = 8,
    CELL_YEAR = 9,
    CELL_A = 10,
    CELL_B = 11,
    CELL_C = 12,
    CELL_D = 13,
    CELL_FIRST_RAM = 14,
    CELL_CENTURY = RTC_CMOS_CENTURY,
};

enum {
    A_RATE = 0x0f,          /* of the periodic interrupt; 0: none */
    A_DIVIDER_RESET = 0x60, /* bits 6:4; with both of these the divider stands, else it runs */
    A_UIP = 0x80,           /* an update is near: the time must not be read */
    A_DEFAULT = 0x26,
};

enum {
    B_DSE = 0x01,
    B_24H = 0x02,
    B_BINARY = 0x04,
    B_SQWE = 0x08,
    B_UIE = 0x10, /* the interrupt enables sit at the bits of their flags in C */
    B_AIE = 0x20,
    B_PIE = 0x40,
    B_SET = 0x80, /* no updates: software sets the time */
};

enum {
    C_UF = 0x10,
    C_AF = 0x20,
    C_PF = 0x40,
    C_IRQF = 0x80,
    C_FLAGS = C_UF | C_AF | C_PF,
};

enum {
    D_VRT = 0x80,     /* the battery is good */
    HOUR_PM = 0x80,   /* in 12-hour mode */
    ALARM_ANY = 0xc0, /* an alarm cell with these bits set matches always */
    SECONDS_A_DAY = 86400,
};

#define RTC_HZ 32768ull
/* UIP rises 244 us before the update cycle of 1984 us, at the end of which
 * the new time is there (MC146818, "Update Cycle"). */
#define UIP_NS ((244 + 1984) * NS_PER_US)

struct rtc {
    struct vm *vm;
    struct irq_line irq8;
    struct region region;
    uint8_t cmos[CELLS]; /* A without UIP; C and D are not kept here */
    uint8_t index;
    uint8_t upper_index;
    bool nmi_disabled;
    uint8_t flags; /* register C without IRQF */
    bool irq_level;
    int64_t second_ns;  /* virtual time of the last second's end accounted for */
    uint64_t looked_ns; /* virtual time up to which periodic ticks are accounted for */
    struct timer timer;
};

/* ---- the calendar ---- */

struct civil {
    int64_t second; /* of the day; more than a day where software wrote nonsense */
    int64_t year;
    int64_t month; /* 1..12 */
    int64_t day;   /* 1..31 */
};

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Days since 1970-01-01 in the Gregorian calendar. A year begins in March
 * here, so that the leap day is its last; 400 of them are 146097 days. */
static int64_t civil_to_days(const struct civil *t)
{
    int64_t months = t->month - 3;
    int64_t year = t->year + floor_div(months, 12);
    int64_t month = months - floor_div(months, 12) * 12;
    int64_t era = floor_div(year, 400);
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * month + 2) / 5 + t->day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static void civil_from_days(struct civil *t, int64_t days)
{
    int64_t shifted = days + 719468;
    int64_t era = floor_div(shifted, 146097);
    int64_t day_of_era = shifted - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153;

    t->day = day_of_year - (153 * month + 2) / 5 + 1;
    t->month = month < 10 ? month + 3 : month - 9;
    t->year = era * 400 + year_of_era + (t->month <= 2);
}

/* ---- cells ---- */

/* Every byte means something: cells are software's to fill. */
static unsigned cell_decode(const struct rtc *rtc, uint8_t v)
{
    return rtc->cmos[CELL_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t cell_encode(const struct rtc *rtc, unsigned v)
{
    return (uint8_t)(rtc->cmos[CELL_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned hour_decode(const struct rtc *rtc, uint8_t v)
{
    if (rtc->cmos[CELL_B] & B_24H)
        return cell_decode(rtc, v);
    return cell_decode(rtc, v & ~HOUR_PM) % 12 + (v & HOUR_PM ? 12 : 0);
}

static uint8_t hour_encode(const struct rtc *rtc, unsigned hour)
{
    if (rtc->cmos[CELL_B] & B_24H)
        return cell_encode(rtc, hour);
    return cell_encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static void rtc_get_time(const struct rtc *rtc, struct civil *t)
{
    const uint8_t *c = rtc->cmos;

    t->second = hour_decode(rtc, c[CELL_HOURS]) * 3600 + cell_decode(rtc, c[CELL_MINUTES]) * 60 +
                cell_decode(rtc, c[CELL_SECONDS]);
    t->day = cell_decode(rtc, c[CELL_DAY]);
    t->month = cell_decode(rtc, c[CELL_MONTH]);
    /* Ten thousand years change neither cell nor weekday, and month 0 of the
     * year 0 stays positive. */
    t->year = 10000 + cell_decode(rtc, c[CELL_CENTURY]) * 100 + cell_decode(rtc, c[CELL_YEAR]);
}

static void rtc_put_time(struct rtc *rtc, const struct civil *t)
{
    uint8_t *c = rtc->cmos;

    c[CELL_SECONDS] = cell_encode(rtc, (unsigned)(t->second % 60));
    c[CELL_MINUTES] = cell_encode(rtc, (unsigned)(t->second / 60 % 60));
    c[CELL_HOURS] = hour_encode(rtc, (unsigned)(t->second / 3600 % 24));
    c[CELL_DAY] = cell_encode(rtc, (unsigned)t->day);
    c[CELL_MONTH] = cell_encode(rtc, (unsigned)t->month);
    c[CELL_YEAR] = cell_encode(rtc, (unsigned)(t->year % 100));
    c[CELL_CENTURY] = cell_encode(rtc, (unsigned)(t->year / 100 % 100));
}

/* The clock's cells, seconds later. */
static void rtc_advance(struct rtc *rtc, int64_t seconds)
{
    struct civil t;
    int64_t days, weekday;

    rtc_get_time(rtc, &t);
    days = floor_div(t.second + seconds, SECONDS_A_DAY);
    t.second = t.second + seconds - days * SECONDS_A_DAY;
    if (days) {
        /* A counter of its own, which software need not have set truly. */
        weekday = (int64_t)cell_decode(rtc, rtc->cmos[CELL_WEEKDAY]) - 1 + days;
        rtc->cmos[CELL_WEEKDAY] =
            cell_encode(rtc, (unsigned)(weekday - floor_div(weekday, 7) * 7 + 1));
    }
    civil_from_days(&t, civil_to_days(&t) + days);
    rtc_put_time(rtc, &t);
}

/* Can the clock ever show what this alarm cell asks for? */
static bool alarm_cell_valid(const struct rtc *rtc, uint8_t want, unsigned limit)
{
    unsigned v = cell_decode(rtc, want);

    return want >= ALARM_ANY || (v < limit && cell_encode(rtc, v) == want);
}

static bool alarm_hour_valid(const struct rtc *rtc, uint8_t want)
{
    unsigned v = hour_decode(rtc, want);

    return want >= ALARM_ANY || (v < 24 && hour_encode(rtc, v) == want);
}

/* Seconds from the time in the cells to the next alarm, 1..86400; 0 if it
 * never comes. Cells are compared as they are, so an alarm in the wrong format
 * never comes. */
static unsigned rtc_seconds_to_alarm(const struct rtc *rtc)
{
    uint8_t want_s = rtc->cmos[CELL_SECONDS_ALARM];
    uint8_t want_m = rtc->cmos[CELL_MINUTES_ALARM];
    uint8_t want_h = rtc->cmos[CELL_HOURS_ALARM];
    struct civil t;
    unsigned now, at;

    /* The search below is short only if there is something to find. */
    if (!alarm_cell_valid(rtc, want_s, 60) || !alarm_cell_valid(rtc, want_m, 60) ||
        !alarm_hour_valid(rtc, want_h))
        return 0;
    rtc_get_time(rtc, &t);
    now = (unsigned)(t.second % SECONDS_A_DAY);
    for (at = now + 1; at <= now + SECONDS_A_DAY;) {
        if (want_h < ALARM_ANY && hour_encode(rtc, at / 3600 % 24) != want_h)
            at = (at / 3600 + 1) * 3600;
        else if (want_m < ALARM_ANY && cell_encode(rtc, at / 60 % 60) != want_m)
            at = (at / 60 + 1) * 60;
        else if (want_s < ALARM_ANY && cell_encode(rtc, at % 60) != want_s)
            at++;
        else
            return at - now;
    }
    return 0;
}

/* ---- time passes ---- */

static bool rtc_divider_stopped(const struct rtc *rtc)
{
    return (rtc->cmos[CELL_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

/* Do the cells follow time? */
static bool rtc_updates(const struct rtc *rtc)
{
    return !rtc_divider_stopped(rtc) && !(rtc->cmos[CELL_B] & B_SET);
}

/* Period of the periodic flag in ticks of 32.768 kHz, 0: none. */
static uint64_t rtc_period(const struct rtc *rtc)
{
    unsigned rate = rtc->cmos[CELL_A] & A_RATE;

    if (rate == 0 || rtc_divider_stopped(rtc))
        return 0;
    return BIT((rate <= 2 ? rate + 7 : rate) - 1);
}

/* Virtual time since the last second's end that is accounted for. */
static uint64_t rtc_since(const struct rtc *rtc, uint64_t ns)
{
    uint64_t d = ns - (uint64_t)rtc->second_ns;

    return (int64_t)d < 0 ? 0 : d;
}

/* Brings cells and flags to now. */
static void rtc_sync(struct rtc *rtc, uint64_t now)
{
    uint64_t period = rtc_period(rtc);
    uint64_t since = rtc_since(rtc, now);
    uint64_t seconds = since / NS_PER_SEC;

    if (period && clock_ticks(rtc_since(rtc, rtc->looked_ns), RTC_HZ) / period <
                      clock_ticks(since, RTC_HZ) / period)
        rtc->flags |= C_PF;
    rtc->looked_ns = MAX(rtc->looked_ns, now); /* host processors' clocks differ a little */
    if (seconds == 0 || rtc_divider_stopped(rtc))
        return;
    rtc->second_ns += (int64_t)(seconds * NS_PER_SEC);
    if (rtc_updates(rtc)) {
        unsigned alarm = rtc_seconds_to_alarm(rtc);

        rtc->flags |= C_UF;
        if (alarm && alarm <= seconds)
            rtc->flags |= C_AF;
        rtc_advance(rtc, (int64_t)seconds);
    }
}

static bool rtc_irqf(const struct rtc *rtc)
{
    return rtc->flags & rtc->cmos[CELL_B] & C_FLAGS;
}

/* Drives IRQ8 and arms the timer for the next interrupt. After rtc_sync. */
static void rtc_update_irq(struct rtc *rtc, uint64_t now)
{
    uint8_t b = rtc->cmos[CELL_B];
    uint64_t since = rtc_since(rtc, now);
    uint64_t period = rtc_period(rtc);
    uint64_t wait = TIME_NEVER; /* from the last second's end */

    if (rtc_irqf(rtc) != rtc->irq_level) {
        rtc->irq_level = rtc_irqf(rtc);
        irq_set(&rtc->irq8, rtc->irq_level);
    }
    if (!rtc->irq_level) {
        if ((b & B_PIE) && period)
            wait = clock_ticks_to_ns((clock_ticks(since, RTC_HZ) / period + 1) * period, RTC_HZ);
        if ((b & B_UIE) && rtc_updates(rtc))
            wait = MIN(wait, NS_PER_SEC);
        if ((b & B_AIE) && rtc_updates(rtc)) {
            unsigned alarm = rtc_seconds_to_alarm(rtc);

            if (alarm)
                wait = MIN(wait, alarm * NS_PER_SEC);
        }
    }
    timer_arm(&rtc->timer, wait == TIME_NEVER ? TIME_NEVER : (uint64_t)rtc->second_ns + wait);
}

static void rtc_fire(void *self)
{
    struct rtc *rtc = self;
    uint64_t now = clock_now_ns(&rtc->vm->clock);

    rtc_sync(rtc, now);
    rtc_update_irq(rtc, now);
}

/* ---- registers ---- */

static uint8_t rtc_read_a(const struct rtc *rtc, uint64_t now)
{
    bool uip = rtc_updates(rtc) && rtc_since(rtc, now) >= NS_PER_SEC - UIP_NS;

    return rtc->cmos[CELL_A] | (uip ? A_UIP : 0);
}

static uint8_t rtc_read_cell(struct rtc *rtc, unsigned cell)
{
    uint64_t now = clock_now_ns(&rtc->vm->clock);
    uint8_t v;

    if (cell >= CELL_FIRST_RAM && cell != CELL_CENTURY)
        return rtc->cmos[cell];
    rtc_sync(rtc, now);
    switch (cell) {
    case CELL_A:
        v = rtc_read_a(rtc, now);
        break;
    case CELL_C: /* reading acknowledges */
        v = rtc->flags | (rtc_irqf(rtc) ? C_IRQF : 0);
        rtc->flags = 0;
        break;
    case CELL_D:
        v = D_VRT;
        break;
    default:
        v = rtc->cmos[cell];
        break;
    }
    rtc_update_irq(rtc, now);
    return v;
}

static void rtc_write_a(struct rtc *rtc, uint64_t now, uint8_t v)
{
    bool was_stopped = rtc_divider_stopped(rtc);

    rtc->cmos[CELL_A] = v & ~A_UIP;
    /* Released from reset, the divider ends its first second after half of
     * one (MC146818, "Divider Control"). */
    if (was_stopped && !rtc_divider_stopped(rtc))
        rtc->second_ns = (int64_t)(now - NS_PER_SEC / 2);
}

static void rtc_write_cell(struct rtc *rtc, unsigned cell, uint8_t v)
{
    uint64_t now = clock_now_ns(&rtc->vm->clock);

    if (cell >= CELL_FIRST_RAM && cell != CELL_CENTURY) {
        rtc->cmos[cell] = v;
        return;
    }
    rtc_sync(rtc, now);
    switch (cell) {
    case CELL_A:
        rtc_write_a(rtc, now, v);
        break;
    case CELL_B: /* SET ends the update-ended interrupt */
        rtc->cmos[CELL_B] = v & B_SET ? v & ~B_UIE : v;
        break;
    case CELL_C:
    case CELL_D:
        vlog(rtc->vm->log, TIMER, GUEST, "rtc: write of %02XH to read-only register %c", v,
             cell == CELL_C ? 'C' : 'D');
        break;
    default:
        rtc->cmos[cell] = v;
        break;
    }
    rtc_update_irq(rtc, now);
}

static uint64_t rtc_read(void *self, uint64_t offset, unsigned size)
{
    struct rtc *rtc = self;

    switch (offset) {
    case OFFSET_DATA:
        return rtc_read_cell(rtc, rtc->index);
    case OFFSET_UPPER_DATA:
        return rtc->cmos[BANK_CELLS + rtc->upper_index];
    default:
        return 0xff; /* the indices are write-only */
    }
}

static void rtc_write(void *self, uint64_t offset, uint64_t value, unsigned size)
{
    struct rtc *rtc = self;

    switch (offset) {
    case OFFSET_INDEX:
        rtc->index = value & INDEX_MASK;
        rtc->nmi_disabled = value & INDEX_NMI_DISABLE;
        break;
    case OFFSET_DATA:
        vlog(rtc->vm->log, TIMER, DEBUG, "rtc: cell %02XH <- %02XH", rtc->index, (unsigned)value);
        rtc_write_cell(rtc, rtc->index, (uint8_t)value);
        break;
    case OFFSET_UPPER_INDEX:
        rtc->upper_index = value & INDEX_MASK;
        break;
    case OFFSET_UPPER_DATA:
        rtc->cmos[BANK_CELLS + rtc->upper_index] = (uint8_t)value;
        break;
    default:
        break;
    }
}

static const struct region_ops rtc_ops = {
    .read = rtc_read, .write = rtc_write, .min_size = 1, .max_size = 1};

void rtc_set_cmos(struct rtc *rtc, unsigned cell, uint8_t value)
{
    if (cell >= CELL_FIRST_RAM && cell < CELLS && cell != CELL_CENTURY)
        rtc->cmos[cell] = value;
}

uint8_t rtc_get_cmos(const struct rtc *rtc, unsigned cell)
{
    return cell < CELLS ? rtc->cmos[cell] : 0xff;
}

bool rtc_nmi_disabled(const struct rtc *rtc)
{
    return rtc->nmi_disabled;
}

/* ---- life ---- */

/* The RESET pin leaves time and memory alone: they have a battery. */
static void rtc_reset(void *self)
{
    struct rtc *rtc = self;
    uint64_t now = clock_now_ns(&rtc->vm->clock);

    rtc_sync(rtc, now);
    rtc->cmos[CELL_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    rtc->flags = 0;
    rtc->index = 0;
    rtc->upper_index = 0;
    rtc->nmi_disabled = false;
    rtc_update_irq(rtc, now);
}

static void rtc_destroy(void *self)
{
    struct rtc *rtc = self;

    timer_destroy(&rtc->timer);
    region_remove(&rtc->region);
    free(rtc);
}

static int rtc_after_load(void *self, unsigned version)
{
    struct rtc *rtc = self;

    if (rtc->index > INDEX_MASK || rtc->upper_index > INDEX_MASK || (rtc->flags & ~C_FLAGS) ||
        (rtc->cmos[CELL_A] & A_UIP))
        return -EINVAL;
    return 0;
}

static const struct state_field rtc_fields[] = {
    STATE_BYTES(struct rtc, cmos),      STATE_INT(struct rtc, index),
    STATE_INT(struct rtc, upper_index), STATE_INT(struct rtc, nmi_disabled),
    STATE_INT(struct rtc, flags),       STATE_INT(struct rtc, irq_level),
    STATE_INT(struct rtc, second_ns),   STATE_INT(struct rtc, looked_ns),
    STATE_TIMER(struct rtc, timer),     STATE_END,
};
static const struct state_table rtc_state = {"rtc", 1, rtc_fields, NULL, rtc_after_load};

static const struct dev_type rtc_type = {"rtc", rtc_reset, rtc_destroy, &rtc_state};

/* The battery has been there all the time: sets the date from the machine's
 * epoch, so that seconds end when the host's do. */
static void rtc_set_date(struct rtc *rtc)
{
    uint64_t now = clock_now_ns(&rtc->vm->clock);
    uint64_t wall = rtc->vm->clock.epoch_ns + now;
    int64_t seconds = (int64_t)(wall / NS_PER_SEC);
    struct civil t = {.second = seconds % SECONDS_A_DAY};

    rtc->cmos[CELL_A] = A_DEFAULT;
    rtc->cmos[CELL_B] = B_24H;
    civil_from_days(&t, seconds / SECONDS_A_DAY);
    rtc_put_time(rtc, &t);
    /* 1970-01-01 was a Thursday. */
    rtc->cmos[CELL_WEEKDAY] = cell_encode(rtc, (unsigned)((seconds / SECONDS_A_DAY + 4) % 7 + 1));
    rtc->second_ns = (int64_t)now - (int64_t)(wall % NS_PER_SEC);
    rtc->looked_ns = now;
}

struct rtc *rtc_create(struct vm *vm, const struct rtc_config *config, struct error *err)
{
    struct rtc *rtc = calloc(1, sizeof *rtc);

    if (!rtc)
        goto fail;
    rtc->vm = vm;
    rtc->irq8 = config->irq8;
    rtc->region = (struct region){
        .name = "rtc", .base = PORT_RTC, .size = 4, .priority = 1, .ops = &rtc_ops, .ctx = rtc};
    if (region_add(&vm->ports, &rtc->region) < 0)
        goto fail;
    timer_init(&rtc->timer, vm, rtc_fire, rtc);
    rtc_set_date(rtc);
    rtc_reset(rtc);
    vm_add_device(vm, &rtc_type, "rtc", rtc);
    return rtc;

fail:
    free(rtc);
    error_set(err, -ENOMEM, "out of memory for the real-time clock");
    return NULL;
}
