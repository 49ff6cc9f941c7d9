/*
 * A 16550A UART: National Semiconductor PC16550D datasheet, section 8
 * (registers) and 8.4-8.8 (interrupts, FIFO modes). See uart16550.h.
 *
 * The transmitter hands each byte to the back end at once, so THR and the
 * shift register are always empty; a THRE interrupt is due again right after
 * each write. Only what the guest can tell from time is timed: the character
 * timeout interrupt, at four character times of the programmed line rate.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/serial/uart16550.h"

#include <errno.h>
#include <stdlib.h>

#define FIFO_BYTES 16
#define UART_PORTS 8
#define UART_CLOCK_HZ 1843200ull /* the PC's crystal; 16 clocks a bit */

enum uart_register {
    UART_RBR_THR = 0, /* DLL with DLAB */
    UART_IER = 1,     /* DLM with DLAB */
    UART_IIR_FCR = 2,
    UART_LCR = 3,
    UART_MCR = 4,
    UART_LSR = 5,
    UART_MSR = 6,
    UART_SCR = 7,
};

enum uart_ier {
    IER_RECEIVED = 1 << 0, /* data available, and character timeout */
    IER_THR_EMPTY = 1 << 1,
    IER_LINE_STATUS = 1 << 2,
    IER_MODEM_STATUS = 1 << 3,
    IER_MASK = 0x0F,
};

/* Interrupt identification, highest priority first (datasheet table V). */
enum uart_iir {
    IIR_LINE_STATUS = 0x06,
    IIR_RECEIVED = 0x04,
    IIR_TIMEOUT = 0x0C,
    IIR_THR_EMPTY = 0x02,
    IIR_MODEM_STATUS = 0x00,
    IIR_NONE = 0x01,
    IIR_FIFOS = 0xC0,
};

enum uart_fcr {
    FCR_ENABLE = 1 << 0,
    FCR_CLEAR_RX = 1 << 1,
    FCR_CLEAR_TX = 1 << 2,
    FCR_DMA = 1 << 3,
    FCR_TRIGGER_SHIFT = 6,
    FCR_STORED = 0xC9, /* the clear bits clear themselves */
};

enum uart_lcr {
    LCR_LENGTH = 3, /* plus 5 data bits */
    LCR_STOP = 1 << 2,
    LCR_PARITY = 1 << 3,
    LCR_BREAK = 1 << 6,
    LCR_DLAB = 1 << 7,
};

enum uart_mcr {
    MCR_DTR = 1 << 0,
    MCR_RTS = 1 << 1,
    MCR_OUT1 = 1 << 2,
    MCR_OUT2 = 1 << 3, /* on a PC: gates the interrupt line */
    MCR_LOOP = 1 << 4,
    MCR_MASK = 0x1F,
};

enum uart_lsr {
    LSR_DATA_READY = 1 << 0,
    LSR_OVERRUN = 1 << 1,
    LSR_PARITY = 1 << 2,
    LSR_FRAMING = 1 << 3,
    LSR_BREAK = 1 << 4,
    LSR_THR_EMPTY = 1 << 5,
    LSR_TX_EMPTY = 1 << 6,
    LSR_FIFO_ERROR = 1 << 7,
    LSR_CHARACTER_ERRORS = LSR_PARITY | LSR_FRAMING | LSR_BREAK,
    LSR_ERRORS = LSR_OVERRUN | LSR_CHARACTER_ERRORS,
};

enum uart_msr {
    MSR_DCTS = 1 << 0,
    MSR_DDSR = 1 << 1,
    MSR_TERI = 1 << 2, /* RI went from active to inactive */
    MSR_DDCD = 1 << 3,
    MSR_DELTAS = 0x0F,
    MSR_CTS = 1 << 4,
    MSR_DSR = 1 << 5,
    MSR_RI = 1 << 6,
    MSR_DCD = 1 << 7,
};

static const uint8_t rx_triggers[4] = {1, 4, 8, 14};

struct uart16550 {
    /* configuration */
    struct vm *vm;
    const char *name;
    struct irq_line irq;
    struct char_backend *chars;
    struct region region;

    /* registers */
    uint8_t ier, fcr, lcr, mcr, msr, scr;
    uint8_t line_errors; /* LSR bits 1-4, until LSR is read */
    uint16_t divisor;

    /* Receiver; without FIFO mode one byte deep. */
    uint8_t rx_data[FIFO_BYTES];
    uint8_t rx_errors[FIFO_BYTES]; /* LSR bits of bytes not yet at the top */
    uint8_t rx_head, rx_count;
    bool rx_timed_out;
    struct timer rx_timer;

    bool thre_pending; /* the interrupt, not the state: that is always empty */
    bool irq_level;
};

static bool fifo_mode(const struct uart16550 *u)
{
    return u->fcr & FCR_ENABLE;
}

static unsigned rx_depth(const struct uart16550 *u)
{
    return fifo_mode(u) ? FIFO_BYTES : 1;
}

static bool rx_at_trigger(const struct uart16550 *u)
{
    unsigned trigger = fifo_mode(u) ? rx_triggers[u->fcr >> FCR_TRIGGER_SHIFT] : 1;

    return u->rx_count >= trigger;
}

/* The highest pending and enabled interrupt. */
static uint8_t interrupt_id(const struct uart16550 *u)
{
    if ((u->ier & IER_LINE_STATUS) && u->line_errors)
        return IIR_LINE_STATUS;
    if ((u->ier & IER_RECEIVED) && rx_at_trigger(u))
        return IIR_RECEIVED;
    if ((u->ier & IER_RECEIVED) && u->rx_timed_out)
        return IIR_TIMEOUT;
    if ((u->ier & IER_THR_EMPTY) && u->thre_pending)
        return IIR_THR_EMPTY;
    if ((u->ier & IER_MODEM_STATUS) && (u->msr & MSR_DELTAS))
        return IIR_MODEM_STATUS;
    return IIR_NONE;
}

/* The line passes a buffer that OUT2 enables; loopback forces the OUT2 pin
 * inactive (datasheet 8.6.2), so nothing gets out then either. */
static void update_irq(struct uart16550 *u)
{
    bool gate = (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    bool level = gate && interrupt_id(u) != IIR_NONE;

    if (level != u->irq_level) {
        u->irq_level = level;
        irq_set(&u->irq, level);
    }
}

/* ---- receiver ---- */

static uint64_t character_ns(const struct uart16550 *u)
{
    /* A divisor of 0 divides by 65536, as the counter wraps. */
    uint64_t divisor = u->divisor ? u->divisor : 65536;
    unsigned bits =
        1 + 5 + (u->lcr & LCR_LENGTH) + !!(u->lcr & LCR_PARITY) + 1 + !!(u->lcr & LCR_STOP);

    return bits * 16 * divisor * NS_PER_SEC / UART_CLOCK_HZ;
}

/* Datasheet 8.4.1 "FIFO interrupt mode": four character times without a byte
 * in or out while at least one waits. */
static void restart_timeout(struct uart16550 *u)
{
    if (fifo_mode(u) && u->rx_count)
        timer_arm(&u->rx_timer, clock_now_ns(&u->vm->clock) + 4 * character_ns(u));
    else
        timer_cancel(&u->rx_timer);
}

static void rx_timeout(void *ctx)
{
    struct uart16550 *u = ctx;

    if (fifo_mode(u) && u->rx_count) {
        u->rx_timed_out = true;
        update_irq(u);
    }
}

/* A byte's errors show in LSR when it becomes the next one to be read. */
static void reveal_top_errors(struct uart16550 *u)
{
    if (u->rx_count) {
        u->line_errors |= u->rx_errors[u->rx_head];
        u->rx_errors[u->rx_head] = 0;
    }
}

static void rx_push(struct uart16550 *u, uint8_t byte, uint8_t errors)
{
    unsigned place;

    if (u->rx_count >= rx_depth(u)) {
        /* In FIFO mode the shift register is lost; without, the byte that
         * was waiting (datasheet 8.6.3, bit 1). */
        u->line_errors |= LSR_OVERRUN;
        if (!fifo_mode(u)) {
            u->rx_data[u->rx_head] = byte;
            u->line_errors |= errors;
        }
        return;
    }
    place = (u->rx_head + u->rx_count) % FIFO_BYTES;
    u->rx_data[place] = byte;
    u->rx_errors[place] = errors;
    if (u->rx_count++ == 0)
        reveal_top_errors(u);
    restart_timeout(u);
}

static uint8_t rx_pop(struct uart16550 *u)
{
    uint8_t byte = u->rx_data[u->rx_head];

    if (!u->rx_count)
        return byte; /* the last byte again, as the holding register keeps it */
    if (--u->rx_count)
        u->rx_head = (u->rx_head + 1) % FIFO_BYTES;
    reveal_top_errors(u);
    u->rx_timed_out = false;
    restart_timeout(u);
    return byte;
}

static void rx_clear(struct uart16550 *u)
{
    u->rx_head = 0;
    u->rx_count = 0;
    memset(u->rx_errors, 0, sizeof u->rx_errors);
    u->rx_timed_out = false;
    timer_cancel(&u->rx_timer);
}

/* In loopback the serial input is disconnected: the back end keeps its bytes. */
static size_t front_room(void *ctx)
{
    struct uart16550 *u = ctx;

    if (u->mcr & MCR_LOOP)
        return 0;
    return rx_depth(u) - MIN(u->rx_count, rx_depth(u));
}

static void front_receive(void *ctx, const uint8_t *data, size_t bytes)
{
    struct uart16550 *u = ctx;

    for (size_t i = 0; i < bytes; i++)
        rx_push(u, data[i], 0);
    update_irq(u);
}

static void front_receive_break(void *ctx, const uint8_t *data, size_t bytes)
{
    uart16550_break(ctx);
}

void uart16550_break(struct uart16550 *u)
{
    if (u->mcr & MCR_LOOP)
        return;
    rx_push(u, 0, LSR_BREAK | LSR_FRAMING);
    update_irq(u);
}

static void resume_input(struct uart16550 *u)
{
    if (front_room(u))
        char_resume_input(u->chars);
}

/* ---- modem control ---- */

/* What the four modem inputs read now: in loopback the outputs, else a
 * terminal that is always ready, or nothing. */
static uint8_t modem_inputs(const struct uart16550 *u)
{
    uint8_t in = 0;

    if (!(u->mcr & MCR_LOOP))
        return u->chars ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
    if (u->mcr & MCR_RTS)
        in |= MSR_CTS;
    if (u->mcr & MCR_DTR)
        in |= MSR_DSR;
    if (u->mcr & MCR_OUT1)
        in |= MSR_RI;
    if (u->mcr & MCR_OUT2)
        in |= MSR_DCD;
    return in;
}

static void update_modem(struct uart16550 *u)
{
    uint8_t before = u->msr & ~MSR_DELTAS, now = modem_inputs(u);
    uint8_t changed = before ^ now;

    u->msr = (u->msr & MSR_DELTAS) | now;
    if (changed & MSR_CTS)
        u->msr |= MSR_DCTS;
    if (changed & MSR_DSR)
        u->msr |= MSR_DDSR;
    if (changed & before & MSR_RI)
        u->msr |= MSR_TERI;
    if (changed & MSR_DCD)
        u->msr |= MSR_DDCD;
}

/* ---- registers ---- */

static uint8_t line_status(const struct uart16550 *u)
{
    uint8_t lsr = LSR_THR_EMPTY | LSR_TX_EMPTY | u->line_errors;

    if (u->rx_count)
        lsr |= LSR_DATA_READY;
    if (fifo_mode(u)) {
        uint8_t errors = u->line_errors & LSR_CHARACTER_ERRORS;

        for (unsigned i = 0; i < FIFO_BYTES; i++)
            errors |= u->rx_errors[i];
        if (errors)
            lsr |= LSR_FIFO_ERROR;
    }
    return lsr;
}

static uint64_t uart_read(void *ctx, uint64_t offset, unsigned size)
{
    struct uart16550 *u = ctx;
    uint8_t value;

    switch ((enum uart_register)offset) {
    case UART_RBR_THR:
        if (u->lcr & LCR_DLAB)
            return u->divisor & 0xFF;
        value = rx_pop(u);
        update_irq(u);
        resume_input(u);
        return value;
    case UART_IER:
        return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
    case UART_IIR_FCR:
        value = interrupt_id(u);
        /* Reading it clears a THRE interrupt, if that is what it reports. */
        if (value == IIR_THR_EMPTY)
            u->thre_pending = false;
        update_irq(u);
        return value | (fifo_mode(u) ? IIR_FIFOS : 0);
    case UART_LCR:
        return u->lcr;
    case UART_MCR:
        return u->mcr;
    case UART_LSR:
        value = line_status(u);
        u->line_errors = 0;
        update_irq(u);
        return value;
    case UART_MSR:
        value = u->msr;
        u->msr &= ~MSR_DELTAS;
        update_irq(u);
        return value;
    case UART_SCR:
        return u->scr;
    }
    return 0xFF;
}

static void transmit(struct uart16550 *u, uint8_t byte)
{
    /* Short characters leave their upper bits behind. */
    byte &= 0xFF >> (3 - (u->lcr & LCR_LENGTH));
    if (u->mcr & MCR_LOOP)
        rx_push(u, byte, 0);
    else if (!(u->lcr & LCR_BREAK)) /* a line held at break carries nothing */
        char_write(u->chars, &byte, 1);
    u->thre_pending = true;
}

static void write_fcr(struct uart16550 *u, uint8_t value)
{
    /* The other bits are not programmed unless FIFO enable is written with
     * them; changing it empties both FIFOs (datasheet 8.6.4). */
    if ((u->fcr ^ value) & FCR_ENABLE)
        value |= FCR_CLEAR_RX | FCR_CLEAR_TX;
    if (!(value & FCR_ENABLE))
        value &= FCR_CLEAR_RX | FCR_CLEAR_TX;
    if (value & FCR_CLEAR_RX && (value & FCR_ENABLE || fifo_mode(u)))
        rx_clear(u);
    if (value & FCR_CLEAR_TX && (value & FCR_ENABLE || fifo_mode(u)))
        u->thre_pending = true;
    u->fcr = value & FCR_STORED;
    update_irq(u);
    resume_input(u);
}

static void write_ier(struct uart16550 *u, uint8_t value)
{
    uint8_t raised = value & ~u->ier;

    u->ier = value & IER_MASK;
    /* Enabling it while THR is empty requests the interrupt at once: drivers
     * start their output this way. */
    if (raised & IER_THR_EMPTY)
        u->thre_pending = true;
    update_irq(u);
}

static void uart_write(void *ctx, uint64_t offset, uint64_t wide, unsigned size)
{
    struct uart16550 *u = ctx;
    uint8_t value = (uint8_t)wide, before;

    switch ((enum uart_register)offset) {
    case UART_RBR_THR:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u->divisor & 0xFF00) | value;
        else
            transmit(u, value);
        update_irq(u);
        break;
    case UART_IER:
        if (u->lcr & LCR_DLAB)
            u->divisor = (uint16_t)(value << 8 | (u->divisor & 0xFF));
        else
            write_ier(u, value);
        break;
    case UART_IIR_FCR:
        write_fcr(u, value);
        break;
    case UART_LCR:
        before = u->lcr;
        u->lcr = value;
        /* In loopback the receiver sees its own transmitter's break. */
        if ((u->mcr & MCR_LOOP) && (value & ~before & LCR_BREAK)) {
            rx_push(u, 0, LSR_BREAK | LSR_FRAMING);
            update_irq(u);
        }
        break;
    case UART_MCR:
        u->mcr = value & MCR_MASK;
        update_modem(u);
        update_irq(u);
        resume_input(u);
        break;
    case UART_LSR:
        break; /* for the factory's tests only (datasheet 8.6.3) */
    case UART_MSR:
        break;
    case UART_SCR:
        u->scr = value;
        break;
    }
}

static const struct region_ops uart_ops = {
    .read = uart_read,
    .write = uart_write,
    .min_size = 1,
    .max_size = 1,
};

/* ---- life ---- */

/* Master reset (datasheet table I); the divisor and scratch registers are not
 * reset by it, and start at 9600 baud and 0 as after power-on firmware. */
static void power_on(struct uart16550 *u)
{
    u->ier = 0;
    u->fcr = 0;
    u->lcr = 0;
    u->mcr = 0;
    u->scr = 0;
    u->divisor = 12;
    u->line_errors = 0;
    u->thre_pending = false;
    rx_clear(u);
    memset(u->rx_data, 0, sizeof u->rx_data);
    u->msr = modem_inputs(u);
    u->irq_level = false;
}

static void uart_reset(void *self)
{
    struct uart16550 *u = self;

    power_on(u);
    irq_lower(&u->irq);
    resume_input(u);
}

static void uart_destroy(void *self)
{
    struct uart16550 *u = self;

    timer_destroy(&u->rx_timer);
    region_remove(&u->region);
    free(u);
}

static int uart_after_load(void *self, unsigned version)
{
    struct uart16550 *u = self;

    if (u->rx_head >= FIFO_BYTES || u->rx_count > rx_depth(u))
        return -EINVAL;
    u->ier &= IER_MASK;
    u->mcr &= MCR_MASK;
    u->fcr &= FCR_STORED;
    resume_input(u);
    return 0;
}

static const struct state_field uart_fields[] = {
    STATE_INT(struct uart16550, ier),
    STATE_INT(struct uart16550, fcr),
    STATE_INT(struct uart16550, lcr),
    STATE_INT(struct uart16550, mcr),
    STATE_INT(struct uart16550, msr),
    STATE_INT(struct uart16550, scr),
    STATE_INT(struct uart16550, line_errors),
    STATE_INT(struct uart16550, divisor),
    STATE_BYTES(struct uart16550, rx_data),
    STATE_BYTES(struct uart16550, rx_errors),
    STATE_INT(struct uart16550, rx_head),
    STATE_INT(struct uart16550, rx_count),
    STATE_INT(struct uart16550, rx_timed_out),
    STATE_TIMER(struct uart16550, rx_timer),
    STATE_INT(struct uart16550, thre_pending),
    STATE_INT(struct uart16550, irq_level),
    STATE_END,
};

static const struct state_table uart_state = {
    .name = "uart16550",
    .version = 1,
    .fields = uart_fields,
    .after_load = uart_after_load,
};

static const struct dev_type uart_type = {
    .name = "uart16550",
    .reset = uart_reset,
    .destroy = uart_destroy,
    .state = &uart_state,
};

struct uart16550 *uart16550_create(struct vm *vm, const struct uart16550_config *config,
                                   struct error *err)
{
    struct uart16550 *u = calloc(1, sizeof *u);

    if (!u) {
        error_set(err, -ENOMEM, "out of memory for %s", config->name);
        return NULL;
    }
    u->vm = vm;
    u->name = config->name;
    u->irq = config->irq;
    u->chars = config->chars;
    u->region = (struct region){
        .name = config->name,
        .base = config->port,
        .size = UART_PORTS,
        .priority = 1,
        .ops = &uart_ops,
        .ctx = u,
    };
    if (region_add(&vm->ports, &u->region) < 0) {
        error_set(err, -EINVAL, "cannot place %s at port %#x", config->name, config->port);
        free(u);
        return NULL;
    }
    timer_init(&u->rx_timer, vm, rx_timeout, u);
    power_on(u);
    vm_add_device(vm, &uart_type, config->name, u);
    if (u->chars) {
        const struct char_frontend front = {
            .name = config->name,
            .room = front_room,
            .receive = front_receive,
            .receive_break = front_receive_break,
            .ctx = u,
        };

        char_attach(u->chars, &front);
    }
    return u;
}
