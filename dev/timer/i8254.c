/*
 * The 8254 programmable interval timer, and port 61H of the PC.
 *
 * Follows: Intel 8254 data sheet (order 231164), "Mode Definitions" and "Read
 * Operations"; Intel ICH9 data sheet, sections 5.7 and 13.3 and, for port 61H,
 * 13.7.1 (NMI_SC).
 *
 * Nothing ticks. A counter is described by the tick of the 1.193182 MHz clock
 * at which its counting element was loaded and the value that it got; count
 * and OUT at any time follow from these. A load that lies ahead (the next
 * clock after a write; the end of the period in modes 2 and 3) is remembered
 * with its tick and takes place when somebody looks at the counter after it.
 *
 * Only counter 0 has an interrupt. Its timer fires at rising edges of OUT;
 * falling edges are made up for when the next rising edge or a register
 * access comes, because nobody behind IRQ0 can tell. Edges nearer together
 * than rearm.h allows are merged; others that came too early for a late host
 * are made up for (catchup.h).
 *
 * Interface: i8254.h. Threading: with the machine's lock held.
 */
#include "dev/timer/i8254.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/timer/catchup.h"
#include "dev/timer/rearm.h"
#include "vm/vm.h"

enum {
    PORT_COUNTERS = 0x40, /* three, then the control word */
    PORT_SYSTEM_CONTROL = 0x61,
    OFFSET_CONTROL = 3,
    COUNTERS = 3,
    SPEAKER_COUNTER = 2,
};

/* Control word. */
enum {
    CONTROL_BCD = 0x01,
    CONTROL_MODE_SHIFT = 1, /* 3 bits; 6 and 7 are 2 and 3 */
    CONTROL_ACCESS_SHIFT = 4,
    CONTROL_COUNTER_SHIFT = 6,
    CONTROL_READ_BACK = 3, /* as a counter number */
};

enum access_mode {
    ACCESS_LATCH, /* as a command: latch the count */
    ACCESS_LOW,
    ACCESS_HIGH,
    ACCESS_BOTH, /* low byte, then high byte */
};

/* Read-back command; the counters are bits 1 to 3. Latching is active low. */
enum {
    READ_BACK_NO_STATUS = 0x10,
    READ_BACK_NO_COUNT = 0x20,
};

enum {
    STATUS_OUT = 0x80,
    STATUS_NULL_COUNT = 0x40, /* what was written is not being counted yet */
};

enum mode {
    MODE_TERMINAL_COUNT = 0,
    MODE_ONE_SHOT = 1,
    MODE_RATE = 2,
    MODE_SQUARE = 3,
    MODE_SOFT_STROBE = 4,
    MODE_HARD_STROBE = 5,
};

/* Port 61H, NMI status and control. */
enum {
    SYSTEM_GATE2 = 0x01,
    SYSTEM_SPEAKER = 0x02,
    SYSTEM_WRITABLE = 0x0f, /* and the two NMI masks, which have no source here */
    SYSTEM_REFRESH = 0x10,  /* toggles with each memory refresh */
    SYSTEM_OUT2 = 0x20,
    REFRESH_TICKS = 18, /* 15 us, what counter 1 used to be programmed for */
};

struct i8254_counter {
    /* Control. */
    uint8_t mode;   /* enum mode */
    uint8_t access; /* enum access_mode, not LATCH */
    bool bcd;
    bool gate;
    /* The CPU's side. */
    uint16_t reload;   /* CR */
    uint8_t write_low; /* of a two-byte write, while write_high */
    bool write_high;   /* the high byte is next */
    bool read_high;
    bool count_latched;
    bool status_latched;
    uint16_t latched_count;
    uint8_t latched_status;
    bool written; /* CR is complete: there is something to load */
    bool null_count;
    /* The counting element. */
    bool loaded;         /* it counts, or did until paused; OUT may have moved */
    bool paused;         /* by the gate */
    bool load_low;       /* mode 3: load_tick ends a high half, the low one is next */
    uint32_t initial;    /* what it was loaded with: 1..65536 */
    uint16_t idle_count; /* what is read while !loaded */
    uint64_t start;      /* tick of the load, unless paused */
    uint64_t elapsed;    /* ticks counted, if paused */
    uint64_t load_tick;  /* the next load of CR, or TIME_NEVER */
};

struct i8254 {
    struct vm *vm;
    struct irq_line irq0;
    struct irq_probe irq0_probe;
    struct region ports;
    struct region system_control;
    struct i8254_counter counter[COUNTERS];
    uint8_t system; /* port 61H, what can be written */
    bool irq_level;
    uint64_t edge_tick; /* counter 0: the next rising edge to deliver */
    uint32_t owed;      /* rising edges of counter 0 that are made up for: catchup.h */
    struct timer timer;
};

static uint64_t i8254_now(const struct i8254 *pit)
{
    return clock_ticks(clock_now_ns(&pit->vm->clock), I8254_HZ);
}

/* ---- one counter ---- */

static bool mode_is_periodic(unsigned mode)
{
    return mode == MODE_RATE || mode == MODE_SQUARE;
}

/* Modes in which a rising gate loads the counting element. */
static bool mode_is_triggered(unsigned mode)
{
    return mode != MODE_TERMINAL_COUNT && mode != MODE_SOFT_STROBE;
}

/* Modes in which a low gate stops counting. */
static bool mode_is_gated(unsigned mode)
{
    return mode != MODE_ONE_SHOT && mode != MODE_HARD_STROBE;
}

static uint32_t counter_modulus(const struct i8254_counter *c)
{
    return c->bcd ? 10000 : 65536;
}

/* What CR means: 0 is the largest count. Digits above 9 count as they are. */
static uint32_t counter_decode(const struct i8254_counter *c)
{
    uint32_t v = c->reload;

    if (c->bcd)
        v = (v >> 12) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
    if (v == 0)
        v = counter_modulus(c);
    /* 1 is not allowed in the periodic modes; do something harmless. */
    if (v == 1 && mode_is_periodic(c->mode))
        v = 2;
    return v;
}

static uint16_t counter_encode(const struct i8254_counter *c, uint32_t v)
{
    v %= counter_modulus(c);
    if (c->bcd)
        v = v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
    return (uint16_t)v;
}

/* Mode 3: the high half, which has the extra tick of an odd count. */
static uint32_t square_high(uint32_t initial)
{
    return (initial + 1) / 2;
}

static uint64_t counter_elapsed(const struct i8254_counter *c, uint64_t tick)
{
    uint64_t e = c->paused ? c->elapsed : tick - c->start;

    /* Two host processors may read the clock a little differently. */
    return (int64_t)e < 0 ? 0 : e;
}

static bool counter_out(const struct i8254_counter *c, uint64_t tick)
{
    uint64_t e = counter_elapsed(c, tick);

    if (!c->loaded)
        return c->mode != MODE_TERMINAL_COUNT;
    switch ((enum mode)c->mode) {
    case MODE_TERMINAL_COUNT:
    case MODE_ONE_SHOT:
        return e >= c->initial;
    case MODE_RATE: /* a low gate sets OUT at once */
        return c->paused || e % c->initial != c->initial - 1;
    case MODE_SQUARE:
        return c->paused || e % c->initial < square_high(c->initial);
    case MODE_SOFT_STROBE:
    case MODE_HARD_STROBE:
        return e != c->initial;
    }
    return true;
}

/* The counting element, as it would be read. */
static uint16_t counter_count(const struct i8254_counter *c, uint64_t tick)
{
    uint64_t e = counter_elapsed(c, tick);
    uint32_t m = counter_modulus(c);
    uint32_t n = c->initial;
    uint32_t phase, half;

    if (!c->loaded)
        return c->idle_count;
    switch ((enum mode)c->mode) {
    case MODE_RATE:
        return counter_encode(c, n - (uint32_t)(e % n));
    case MODE_SQUARE: /* counts by two, twice a period; an odd count less one */
        phase = (uint32_t)(e % n);
        half = square_high(n);
        return counter_encode(c, (n & ~1u) - 2 * (phase < half ? phase : phase - half));
    case MODE_TERMINAL_COUNT: /* the others wrap around and go on */
    case MODE_ONE_SHOT:
    case MODE_SOFT_STROBE:
    case MODE_HARD_STROBE:
        break;
    }
    return counter_encode(c, n % m + m - (uint32_t)(e % m));
}

/* The first rising edge of OUT after tick, as the counter is loaded now. */
static uint64_t counter_next_rise(const struct i8254_counter *c, uint64_t tick)
{
    uint64_t e = counter_elapsed(c, tick);

    if (!c->loaded || c->paused)
        return TIME_NEVER;
    switch ((enum mode)c->mode) {
    case MODE_TERMINAL_COUNT:
    case MODE_ONE_SHOT:
        return e < c->initial ? c->start + c->initial : TIME_NEVER;
    case MODE_RATE:
    case MODE_SQUARE:
        return tick - e % c->initial + c->initial;
    case MODE_SOFT_STROBE:
    case MODE_HARD_STROBE:
        return e <= c->initial ? c->start + c->initial + 1 : TIME_NEVER;
    }
    return TIME_NEVER;
}

/* The tick after `tick` at which modes 2 and 3 take a new count. */
static uint64_t counter_next_boundary(struct i8254_counter *c, uint64_t tick)
{
    uint32_t phase = (uint32_t)(counter_elapsed(c, tick) % c->initial);
    uint32_t high = square_high(c->initial);

    c->load_low = c->mode == MODE_SQUARE && phase < high;
    return tick - phase + (c->load_low ? high : c->initial);
}

/* Does the load that has become due. True if there was one. */
static bool counter_sync(struct i8254_counter *c, uint64_t tick)
{
    if (tick < c->load_tick)
        return false;
    c->initial = counter_decode(c);
    c->start = c->load_tick;
    c->elapsed = 0;
    if (c->load_low) /* pretend that the high half was of the new count too */
        c->start -= square_high(c->initial);
    c->loaded = true;
    c->paused = mode_is_gated(c->mode) && !c->gate;
    c->null_count = false;
    c->load_low = false;
    c->load_tick = TIME_NEVER;
    return true;
}

static void counter_set_gate(struct i8254_counter *c, uint64_t tick, bool gate)
{
    counter_sync(c, tick);
    if (gate == c->gate)
        return;
    c->gate = gate;
    if (gate) {
        if (c->paused) {
            c->paused = false;
            c->start = tick - c->elapsed;
        }
        if (mode_is_triggered(c->mode) && c->written) {
            c->load_tick = tick + 1;
            c->load_low = false;
        }
    } else if (mode_is_gated(c->mode)) {
        if (c->loaded && !c->paused) {
            c->elapsed = tick - c->start;
            c->paused = true;
        }
        /* The end of the period does not come any more; a load at the next
         * clock still does. */
        if (mode_is_periodic(c->mode) && c->load_tick != tick + 1)
            c->load_tick = TIME_NEVER;
    }
}

/* CR has been written in full. */
static void counter_write_reload(struct i8254_counter *c, uint64_t tick, uint16_t value)
{
    c->reload = value;
    c->written = true;
    c->null_count = true;
    switch ((enum mode)c->mode) {
    case MODE_TERMINAL_COUNT:
    case MODE_SOFT_STROBE:
        c->load_tick = tick + 1;
        break;
    case MODE_ONE_SHOT: /* the trigger loads */
    case MODE_HARD_STROBE:
        break;
    case MODE_RATE:
    case MODE_SQUARE:
        if (!c->loaded)
            c->load_tick = tick + 1;
        else if (!c->paused && c->load_tick == TIME_NEVER)
            c->load_tick = counter_next_boundary(c, tick);
        break;
    }
}

static void counter_write(struct i8254_counter *c, uint64_t tick, uint8_t v)
{
    switch ((enum access_mode)c->access) {
    case ACCESS_LOW:
        counter_write_reload(c, tick, v);
        break;
    case ACCESS_HIGH:
        counter_write_reload(c, tick, (uint16_t)(v << 8));
        break;
    case ACCESS_BOTH:
    case ACCESS_LATCH:
        if (c->write_high) {
            c->write_high = false;
            counter_write_reload(c, tick, (uint16_t)(v << 8 | c->write_low));
            break;
        }
        c->write_low = v;
        c->write_high = true;
        /* Mode 0 stops and lowers OUT at the first byte. */
        if (c->mode == MODE_TERMINAL_COUNT) {
            c->idle_count = counter_count(c, tick);
            c->loaded = false;
            c->load_tick = TIME_NEVER;
        }
        break;
    }
}

static uint8_t counter_status(const struct i8254_counter *c, uint64_t tick)
{
    return (counter_out(c, tick) ? STATUS_OUT : 0) | (c->null_count ? STATUS_NULL_COUNT : 0) |
           (uint8_t)(c->access << CONTROL_ACCESS_SHIFT) | (uint8_t)(c->mode << CONTROL_MODE_SHIFT) |
           (c->bcd ? CONTROL_BCD : 0);
}

/* A latched value stays until it is read, whatever latch commands follow. */
static void counter_latch(struct i8254_counter *c, uint64_t tick, bool count, bool status)
{
    if (count && !c->count_latched) {
        c->latched_count = counter_count(c, tick);
        c->count_latched = true;
    }
    if (status && !c->status_latched) {
        c->latched_status = counter_status(c, tick);
        c->status_latched = true;
    }
}

static uint8_t counter_read(struct i8254_counter *c, uint64_t tick)
{
    uint16_t count;
    bool high;

    if (c->status_latched) {
        c->status_latched = false;
        return c->latched_status;
    }
    count = c->count_latched ? c->latched_count : counter_count(c, tick);
    if (c->access == ACCESS_BOTH) {
        high = c->read_high;
        c->read_high = !high;
        if (high)
            c->count_latched = false;
    } else {
        high = c->access == ACCESS_HIGH;
        c->count_latched = false;
    }
    return high ? (uint8_t)(count >> 8) : (uint8_t)count;
}

static void counter_control(struct i8254_counter *c, uint64_t tick, uint8_t v)
{
    unsigned mode = v >> CONTROL_MODE_SHIFT & 7;

    c->idle_count = counter_count(c, tick);
    c->mode = (uint8_t)(mode > MODE_HARD_STROBE ? mode - 4 : mode);
    c->bcd = v & CONTROL_BCD;
    c->access = v >> CONTROL_ACCESS_SHIFT & 3;
    c->write_high = false;
    c->read_high = false;
    c->count_latched = false;
    c->status_latched = false;
    c->written = false;
    c->null_count = true;
    c->reload = 0;
    c->loaded = false;
    c->paused = false;
    c->load_low = false;
    c->load_tick = TIME_NEVER;
}

/* ---- counter 0's interrupt ---- */

static void i8254_drive(struct i8254 *pit, bool level)
{
    if (level != pit->irq_level) {
        pit->irq_level = level;
        irq_set(&pit->irq0, level);
    }
}

static uint64_t i8254_period_ns(const struct i8254 *pit)
{
    return clock_ticks_to_ns(pit->counter[0].initial, I8254_HZ);
}

/* Drives IRQ0 as OUT is. While an edge is owed the line does not rise on its
 * own. */
static void i8254_settle(struct i8254 *pit, uint64_t tick)
{
    bool out = counter_out(&pit->counter[0], tick);

    if (!out || !pit->owed)
        i8254_drive(pit, out);
}

/* Brings counter 0 and IRQ0 to tick. */
static void i8254_sync0(struct i8254 *pit, uint64_t tick)
{
    struct i8254_counter *c = &pit->counter[0];
    uint64_t loaded_at = c->load_tick;
    uint64_t edges = 0;

    if (tick >= pit->edge_tick)
        edges = mode_is_periodic(c->mode) ? (tick - pit->edge_tick) / c->initial + 1 : 1;
    if (counter_sync(c, tick) && counter_next_rise(c, loaded_at) <= tick)
        edges++;
    if (edges)
        pit->edge_tick = TIME_NEVER;
    if (!mode_is_periodic(c->mode))
        pit->owed = 0;
    if (mode_is_periodic(c->mode)
            ? tick_due(&pit->owed, edges, i8254_period_ns(pit), &pit->irq0_probe)
            : edges) {
        i8254_drive(pit, false);
        i8254_drive(pit, true);
    }
    i8254_settle(pit, tick);
}

/* Arms the timer for the next thing to happen to counter 0, edges not before
 * floor. */
static void i8254_arm(struct i8254 *pit, uint64_t tick, uint64_t floor)
{
    struct i8254_counter *c = &pit->counter[0];
    uint64_t next = counter_next_rise(c, tick);

    if (next < floor && mode_is_periodic(c->mode))
        next = counter_next_rise(c, floor - 1); /* of the same phase */
    pit->edge_tick = next;
    next = MIN(next, c->load_tick);
    next = next == TIME_NEVER ? TIME_NEVER : clock_ticks_to_ns(next, I8254_HZ);
    timer_arm(&pit->timer, MIN(next, tick_retry_ns(pit->owed, i8254_period_ns(pit),
                                                   clock_ticks_to_ns(tick, I8254_HZ))));
}

static void i8254_fire(void *self)
{
    struct i8254 *pit = self;
    uint64_t now_ns = clock_now_ns(&pit->vm->clock);
    uint64_t tick = clock_ticks(now_ns, I8254_HZ);
    uint64_t floor_ns;

    i8254_sync0(pit, tick);
    floor_ns = timer_rearm_floor(i8254_period_ns(pit), now_ns);
    i8254_arm(pit, tick, clock_ticks(floor_ns, I8254_HZ));
}

/* ---- registers ---- */

static void i8254_control(struct i8254 *pit, uint64_t tick, uint8_t v)
{
    unsigned n = v >> CONTROL_COUNTER_SHIFT;

    if (n == CONTROL_READ_BACK) {
        for (n = 0; n < COUNTERS; n++) {
            if (v & BIT(n + 1))
                counter_latch(&pit->counter[n], tick, !(v & READ_BACK_NO_COUNT),
                              !(v & READ_BACK_NO_STATUS));
        }
    } else if ((v >> CONTROL_ACCESS_SHIFT & 3) == ACCESS_LATCH) {
        counter_latch(&pit->counter[n], tick, true, false);
    } else {
        counter_control(&pit->counter[n], tick, v);
        if (n == 0)
            pit->owed = 0;
    }
}

static void i8254_sync(struct i8254 *pit, uint64_t tick)
{
    i8254_sync0(pit, tick);
    for (unsigned n = 1; n < COUNTERS; n++)
        counter_sync(&pit->counter[n], tick);
}

static uint64_t i8254_read(void *self, uint64_t offset, unsigned size)
{
    struct i8254 *pit = self;
    uint64_t tick = i8254_now(pit);
    bool pending = tick < pit->edge_tick && tick < pit->counter[0].load_tick;
    uint8_t v;

    if (offset == OFFSET_CONTROL)
        return 0xff; /* write-only */
    i8254_sync(pit, tick);
    v = counter_read(&pit->counter[offset], tick);
    if (!pending) /* this access was faster than the timer */
        i8254_arm(pit, tick, tick + 1);
    return v;
}

static void i8254_write(void *self, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8254 *pit = self;
    uint64_t tick = i8254_now(pit);

    vlog(pit->vm->log, TIMER, DEBUG, "8254: port %02XH <- %02XH",
         (unsigned)(PORT_COUNTERS + offset), (unsigned)value);
    i8254_sync(pit, tick);
    if (offset == OFFSET_CONTROL)
        i8254_control(pit, tick, (uint8_t)value);
    else
        counter_write(&pit->counter[offset], tick, (uint8_t)value);
    i8254_settle(pit, tick);
    i8254_arm(pit, tick, tick + 1);
}

static uint64_t system_read(void *self, uint64_t offset, unsigned size)
{
    struct i8254 *pit = self;
    uint64_t tick = i8254_now(pit);
    struct i8254_counter *c = &pit->counter[SPEAKER_COUNTER];

    counter_sync(c, tick);
    return pit->system | (tick / REFRESH_TICKS & 1 ? SYSTEM_REFRESH : 0) |
           (counter_out(c, tick) ? SYSTEM_OUT2 : 0);
}

static void system_write(void *self, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8254 *pit = self;

    pit->system = value & SYSTEM_WRITABLE;
    counter_set_gate(&pit->counter[SPEAKER_COUNTER], i8254_now(pit), value & SYSTEM_GATE2);
}

bool i8254_speaker_enabled(const struct i8254 *pit)
{
    return pit->system & SYSTEM_SPEAKER;
}

static const struct region_ops i8254_ops = {
    .read = i8254_read, .write = i8254_write, .min_size = 1, .max_size = 1};
static const struct region_ops system_ops = {
    .read = system_read, .write = system_write, .min_size = 1, .max_size = 1};

/* ---- life ---- */

/* The data sheet leaves the counters undefined until they are programmed;
 * here they stand still, with OUT low. */
static void i8254_reset(void *self)
{
    struct i8254 *pit = self;

    for (unsigned n = 0; n < COUNTERS; n++) {
        pit->counter[n] = (struct i8254_counter){
            .mode = MODE_TERMINAL_COUNT,
            .access = ACCESS_BOTH,
            .gate = n != SPEAKER_COUNTER,
            .null_count = true,
            .initial = 65536,
            .load_tick = TIME_NEVER,
        };
    }
    pit->system = 0;
    pit->edge_tick = TIME_NEVER;
    pit->owed = 0;
    timer_cancel(&pit->timer);
    i8254_drive(pit, false);
}

static void i8254_destroy(void *self)
{
    struct i8254 *pit = self;

    timer_destroy(&pit->timer);
    free(pit);
}

static int i8254_after_load(void *self, unsigned version)
{
    struct i8254 *pit = self;

    if ((pit->system & ~SYSTEM_WRITABLE) || pit->owed > TICKS_OWED_MAX)
        return -EINVAL;
    for (unsigned n = 0; n < COUNTERS; n++) {
        const struct i8254_counter *c = &pit->counter[n];

        if (c->mode > MODE_HARD_STROBE || c->access < ACCESS_LOW || c->access > ACCESS_BOTH ||
            c->initial < 1 || c->initial > 65536 ||
            (c->loaded && mode_is_periodic(c->mode) && c->initial < 2))
            return -EINVAL;
    }
    return 0;
}

static const struct state_field counter_fields[] = {
    STATE_INT(struct i8254_counter, mode),
    STATE_INT(struct i8254_counter, access),
    STATE_INT(struct i8254_counter, bcd),
    STATE_INT(struct i8254_counter, gate),
    STATE_INT(struct i8254_counter, reload),
    STATE_INT(struct i8254_counter, write_low),
    STATE_INT(struct i8254_counter, write_high),
    STATE_INT(struct i8254_counter, read_high),
    STATE_INT(struct i8254_counter, count_latched),
    STATE_INT(struct i8254_counter, status_latched),
    STATE_INT(struct i8254_counter, latched_count),
    STATE_INT(struct i8254_counter, latched_status),
    STATE_INT(struct i8254_counter, written),
    STATE_INT(struct i8254_counter, null_count),
    STATE_INT(struct i8254_counter, loaded),
    STATE_INT(struct i8254_counter, paused),
    STATE_INT(struct i8254_counter, load_low),
    STATE_INT(struct i8254_counter, initial),
    STATE_INT(struct i8254_counter, idle_count),
    STATE_INT(struct i8254_counter, start),
    STATE_INT(struct i8254_counter, elapsed),
    STATE_INT(struct i8254_counter, load_tick),
    STATE_END,
};
static const struct state_table counter_state = {"i8254-counter", 1, counter_fields, NULL, NULL};

static const struct state_field i8254_fields[] = {
    STATE_STRUCTS(struct i8254, counter, &counter_state),
    STATE_INT(struct i8254, system),
    STATE_INT(struct i8254, irq_level),
    STATE_INT(struct i8254, edge_tick),
    STATE_INT(struct i8254, owed),
    STATE_TIMER(struct i8254, timer),
    STATE_END,
};
static const struct state_table i8254_state = {"i8254", 2, i8254_fields, NULL, i8254_after_load};

static const struct dev_type i8254_type = {"i8254", i8254_reset, i8254_destroy, &i8254_state};

struct i8254 *i8254_create(struct vm *vm, const struct i8254_config *config, struct error *err)
{
    struct i8254 *pit = calloc(1, sizeof *pit);

    if (!pit)
        goto fail;
    pit->vm = vm;
    pit->irq0 = config->irq0;
    pit->irq0_probe = config->irq0_probe;
    pit->ports = (struct region){.name = "i8254",
                                 .base = PORT_COUNTERS,
                                 .size = 4,
                                 .priority = 1,
                                 .ops = &i8254_ops,
                                 .ctx = pit};
    pit->system_control = (struct region){.name = "port61",
                                          .base = PORT_SYSTEM_CONTROL,
                                          .size = 1,
                                          .priority = 1,
                                          .ops = &system_ops,
                                          .ctx = pit};
    if (region_add(&vm->ports, &pit->ports) < 0)
        goto fail;
    if (region_add(&vm->ports, &pit->system_control) < 0)
        goto fail_ports;
    timer_init(&pit->timer, vm, i8254_fire, pit);
    i8254_reset(pit);
    vm_add_device(vm, &i8254_type, "i8254", pit);
    return pit;

fail_ports:
    region_remove(&pit->ports);
fail:
    free(pit);
    error_set(err, -ENOMEM, "out of memory for the 8254 timer");
    return NULL;
}
