/*
 * 8042 keyboard controller. See i8042.h.
 *
 * Port 60H is the data, port 64H status and commands. There is one output
 * buffer for everything; the controller's own answers go first, then the
 * keyboard's bytes (translated to set 1 if the command byte says so), then the
 * mouse's. A device whose port is disabled keeps its bytes.
 *
 * Commands that only the PC/AT's controller had (ACH, the diagnostic dump) are as
 * unknown as to a PS/2's.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/input/i8042.h"

#include <errno.h>
#include <stdlib.h>

enum i8042_port {
    PORT_DATA = 0x60,
    PORT_COMMAND = 0x64,
};

enum i8042_status {
    STATUS_OBF = 1 << 0,
    STATUS_SYSTEM = 1 << 2,
    STATUS_COMMAND = 1 << 3, /* the last write went to port 64H */
    STATUS_UNLOCKED = 1 << 4,
    STATUS_AUX = 1 << 5, /* the byte in the output buffer is the mouse's */
    STATUS_TIMEOUT = 1 << 6,
};

/* The command byte, at address 0 of the controller's memory. */
enum i8042_command_byte {
    CTR_KEYBOARD_IRQ = 1 << 0,
    CTR_MOUSE_IRQ = 1 << 1,
    CTR_SYSTEM = 1 << 2,
    CTR_KEYBOARD_OFF = 1 << 4,
    CTR_MOUSE_OFF = 1 << 5,
    CTR_TRANSLATE = 1 << 6,
    CTR_WRITABLE = 0x7F,
    /* As a PC's firmware leaves it: a kernel that was started without
     * firmware and reads the port expects set 1. */
    CTR_RESET = CTR_TRANSLATE | CTR_KEYBOARD_IRQ,
};

enum i8042_command {
    CMD_READ_RAM = 0x20,  /* to 3FH */
    CMD_WRITE_RAM = 0x60, /* to 7FH */
    CMD_TEST_PASSWORD = 0xA4,
    CMD_MOUSE_OFF = 0xA7,
    CMD_MOUSE_ON = 0xA8,
    CMD_TEST_MOUSE = 0xA9,
    CMD_SELF_TEST = 0xAA,
    CMD_TEST_KEYBOARD = 0xAB,
    CMD_KEYBOARD_OFF = 0xAD,
    CMD_KEYBOARD_ON = 0xAE,
    CMD_READ_INPUT = 0xC0,
    CMD_POLL_INPUT_LOW = 0xC1,
    CMD_POLL_INPUT_HIGH = 0xC2,
    CMD_READ_OUTPUT = 0xD0,
    CMD_WRITE_OUTPUT = 0xD1,
    CMD_ECHO_KEYBOARD = 0xD2,
    CMD_ECHO_MOUSE = 0xD3,
    CMD_TO_MOUSE = 0xD4,
    CMD_A20_OFF = 0xDD,
    CMD_A20_ON = 0xDF,
    CMD_READ_TEST = 0xE0,
    CMD_PULSE = 0xF0, /* to FFH */
};

enum i8042_reply {
    REPLY_SELF_TEST_OK = 0x55,
    REPLY_PORT_OK = 0x00,
    REPLY_NO_PASSWORD = 0xF1,
    REPLY_NO_DEVICE = 0xFE,
};

enum i8042_output_port {
    OUTPUT_NOT_RESET = 1 << 0,
    OUTPUT_A20 = 1 << 1,
    OUTPUT_KEYBOARD_FULL = 1 << 4,
    OUTPUT_MOUSE_FULL = 1 << 5,
    OUTPUT_RESET = 0xCF,
    OUTPUT_STORED = 0xCF,
};

enum {
    RAM_BYTES = 32,
    INPUT_PORT = 0xA0, /* not locked, no manufacturing jumper */
    BREAK_PREFIX = 0xF0,
    REPLY_BYTES = 4,
};

enum source { SOURCE_KEYBOARD, SOURCE_MOUSE };

struct i8042 {
    struct vm *vm;
    struct i8042_config config;
    struct region data_port, command_port;

    uint8_t status;         /* without OBF and AUX */
    uint8_t ram[RAM_BYTES]; /* [0]: the command byte */
    uint8_t output_port;
    uint8_t command; /* waiting for its byte at port 60H; 0: none */
    uint8_t polled;  /* which CMD_POLL_* the status shows; 0: none */
    bool full;       /* the output buffer */
    uint8_t data;
    uint8_t source;  /* enum source */
    bool break_seen; /* translation: F0H was taken */
    /* The controller's own answers, while the buffer is full. */
    uint8_t replies[REPLY_BYTES];
    uint8_t reply_sources; /* a bit each */
    uint8_t reply_count;
    bool keyboard_irq, mouse_irq;
};

static uint8_t *command_byte(struct i8042 *c)
{
    return &c->ram[0];
}

/* ---- output buffer ---- */

static void update_irqs(struct i8042 *c)
{
    uint8_t ctr = c->ram[0];
    bool keyboard = c->full && c->source == SOURCE_KEYBOARD && (ctr & CTR_KEYBOARD_IRQ);
    bool mouse = c->full && c->source == SOURCE_MOUSE && (ctr & CTR_MOUSE_IRQ);

    if (keyboard != c->keyboard_irq) {
        c->keyboard_irq = keyboard;
        irq_set(&c->config.keyboard_irq, keyboard);
    }
    if (mouse != c->mouse_irq) {
        c->mouse_irq = mouse;
        irq_set(&c->config.mouse_irq, mouse);
    }
}

static void fill(struct i8042 *c, uint8_t data, enum source source)
{
    c->full = true;
    c->data = data;
    c->source = source;
}

/* Next byte of the keyboard's. A break prefix is swallowed and becomes bit 7
 * of the code that follows. */
static bool take_keyboard(struct i8042 *c)
{
    struct ps2_device *k = c->config.keyboard;
    uint8_t byte;

    if (!k || (*command_byte(c) & CTR_KEYBOARD_OFF))
        return false;
    while (k->read(k->self, &byte)) {
        if (!(*command_byte(c) & CTR_TRANSLATE)) {
            c->break_seen = false;
        } else if (byte == BREAK_PREFIX) {
            c->break_seen = true;
            continue;
        } else {
            byte = ps2_set1_of_set2(byte) | (c->break_seen ? 0x80 : 0);
            c->break_seen = false;
        }
        fill(c, byte, SOURCE_KEYBOARD);
        return true;
    }
    return false;
}

static bool take_mouse(struct i8042 *c)
{
    struct ps2_device *m = c->config.mouse;
    uint8_t byte;

    if (!m || (*command_byte(c) & CTR_MOUSE_OFF) || !m->read(m->self, &byte))
        return false;
    fill(c, byte, SOURCE_MOUSE);
    return true;
}

static bool take_reply(struct i8042 *c)
{
    if (!c->reply_count)
        return false;
    fill(c, c->replies[0], c->reply_sources & 1 ? SOURCE_MOUSE : SOURCE_KEYBOARD);
    memmove(c->replies, c->replies + 1, REPLY_BYTES - 1);
    c->reply_sources >>= 1;
    c->reply_count--;
    return true;
}

static void refill(struct i8042 *c)
{
    if (!c->full && !take_reply(c) && !take_keyboard(c))
        take_mouse(c);
    update_irqs(c);
}

static void device_ready(void *ctx)
{
    refill(ctx);
}

static void reply(struct i8042 *c, uint8_t byte, enum source source)
{
    /* A guest that commands and never reads loses answers, as there is one
     * buffer only. */
    if (c->reply_count == REPLY_BYTES) {
        vlog(c->vm->log, INPUT, GUEST, "8042: answer %#x lost, nobody reads", byte);
        return;
    }
    c->replies[c->reply_count] = byte;
    c->reply_sources &= ~(1u << c->reply_count);
    c->reply_sources |= (source == SOURCE_MOUSE) << c->reply_count;
    c->reply_count++;
    refill(c);
}

/* ---- commands ---- */

static void soft_reset(struct i8042 *c)
{
    vlog(c->vm->log, INPUT, INFO, "reset by the keyboard controller");
    if (c->config.init.set)
        irq_pulse(&c->config.init);
    else
        vm_request_reset(c->vm);
}

static void write_command_byte(struct i8042 *c, uint8_t value)
{
    *command_byte(c) = value & CTR_WRITABLE;
    c->status = (c->status & ~STATUS_SYSTEM) | (value & CTR_SYSTEM ? STATUS_SYSTEM : 0);
    refill(c);
}

static void write_output_port(struct i8042 *c, uint8_t value)
{
    c->output_port = value & OUTPUT_STORED;
    if (!(value & OUTPUT_NOT_RESET)) {
        c->output_port |= OUTPUT_NOT_RESET;
        soft_reset(c);
    }
}

static uint8_t read_output_port(const struct i8042 *c)
{
    uint8_t value = c->output_port;

    if (c->full)
        value |= c->source == SOURCE_MOUSE ? OUTPUT_MOUSE_FULL : OUTPUT_KEYBOARD_FULL;
    return value;
}

static void self_test(struct i8042 *c)
{
    c->full = false;
    update_irqs(c);
    c->reply_count = 0;
    c->reply_sources = 0;
    c->break_seen = false;
    c->status |= STATUS_SYSTEM;
    *command_byte(c) |= CTR_SYSTEM;
    reply(c, REPLY_SELF_TEST_OK, SOURCE_KEYBOARD);
}

static uint8_t read_test_inputs(struct i8042 *c)
{
    /* The clocks of enabled ports idle high. */
    return (*command_byte(c) & CTR_KEYBOARD_OFF ? 0 : 1) |
           (*command_byte(c) & CTR_MOUSE_OFF ? 0 : 2);
}

static void run_command(struct i8042 *c, uint8_t command)
{
    if (command >= CMD_READ_RAM && command < CMD_READ_RAM + RAM_BYTES) {
        reply(c, c->ram[command - CMD_READ_RAM], SOURCE_KEYBOARD);
        return;
    }
    if ((command >= CMD_WRITE_RAM && command < CMD_WRITE_RAM + RAM_BYTES) ||
        (command >= CMD_WRITE_OUTPUT && command <= CMD_TO_MOUSE)) {
        c->command = command;
        return;
    }
    if (command >= CMD_PULSE) {
        /* Bits 0-3 clear pulse bits 0-3 of the output port low. */
        if (!(command & OUTPUT_NOT_RESET))
            soft_reset(c);
        return;
    }
    switch ((enum i8042_command)command) {
    case CMD_TEST_PASSWORD:
        reply(c, REPLY_NO_PASSWORD, SOURCE_KEYBOARD);
        break;
    case CMD_MOUSE_OFF:
        write_command_byte(c, *command_byte(c) | CTR_MOUSE_OFF);
        break;
    case CMD_MOUSE_ON:
        write_command_byte(c, *command_byte(c) & ~CTR_MOUSE_OFF);
        break;
    case CMD_TEST_MOUSE:
    case CMD_TEST_KEYBOARD:
        reply(c, REPLY_PORT_OK, SOURCE_KEYBOARD);
        break;
    case CMD_SELF_TEST:
        self_test(c);
        break;
    case CMD_KEYBOARD_OFF:
        write_command_byte(c, *command_byte(c) | CTR_KEYBOARD_OFF);
        break;
    case CMD_KEYBOARD_ON:
        write_command_byte(c, *command_byte(c) & ~CTR_KEYBOARD_OFF);
        break;
    case CMD_READ_INPUT:
        reply(c, INPUT_PORT, SOURCE_KEYBOARD);
        break;
    case CMD_POLL_INPUT_LOW:
    case CMD_POLL_INPUT_HIGH:
        c->polled = command;
        break;
    case CMD_READ_OUTPUT:
        reply(c, read_output_port(c), SOURCE_KEYBOARD);
        break;
    case CMD_A20_OFF:
        c->output_port &= ~OUTPUT_A20;
        break;
    case CMD_A20_ON:
        c->output_port |= OUTPUT_A20;
        break;
    case CMD_READ_TEST:
        reply(c, read_test_inputs(c), SOURCE_KEYBOARD);
        break;
    default:
        vlog(c->vm->log, INPUT, GUEST, "8042: unknown command %02x", command);
        break;
    }
}

/* A byte for a device. Sending enables its port again. */
static void to_device(struct i8042 *c, struct ps2_device *d, uint8_t byte, enum source source)
{
    *command_byte(c) &= ~(source == SOURCE_MOUSE ? CTR_MOUSE_OFF : CTR_KEYBOARD_OFF);
    if (d) {
        c->status &= ~STATUS_TIMEOUT;
        d->write(d->self, byte);
        refill(c);
        return;
    }
    c->status |= STATUS_TIMEOUT;
    reply(c, REPLY_NO_DEVICE, source);
}

static void write_data(struct i8042 *c, uint8_t byte)
{
    uint8_t command = c->command;

    c->command = 0;
    c->status &= ~STATUS_COMMAND;
    if (command == CMD_WRITE_RAM) {
        write_command_byte(c, byte);
    } else if (command > CMD_WRITE_RAM && command < CMD_WRITE_RAM + RAM_BYTES) {
        c->ram[command - CMD_WRITE_RAM] = byte;
    } else if (command == CMD_WRITE_OUTPUT) {
        write_output_port(c, byte);
    } else if (command == CMD_ECHO_KEYBOARD) {
        reply(c, byte, SOURCE_KEYBOARD);
    } else if (command == CMD_ECHO_MOUSE) {
        reply(c, byte, SOURCE_MOUSE);
    } else if (command == CMD_TO_MOUSE) {
        to_device(c, c->config.mouse, byte, SOURCE_MOUSE);
    } else {
        to_device(c, c->config.keyboard, byte, SOURCE_KEYBOARD);
    }
}

/* ---- ports ---- */

static uint64_t data_read(void *ctx, uint64_t offset, unsigned size)
{
    struct i8042 *c = ctx;
    uint8_t data = c->data; /* the buffer keeps its last byte */

    if (c->full) {
        c->full = false;
        c->status &= ~STATUS_TIMEOUT;
        /* The line goes down in between, or the next byte has no edge. */
        update_irqs(c);
        refill(c);
    }
    vlog(c->vm->log, INPUT, DEBUG, "8042: data -> %02x", data);
    return data;
}

static void data_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8042 *c = ctx;

    vlog(c->vm->log, INPUT, DEBUG, "8042: data <- %02x", (unsigned)value);
    write_data(c, (uint8_t)value);
}

static uint64_t status_read(void *ctx, uint64_t offset, unsigned size)
{
    struct i8042 *c = ctx;
    uint8_t status = c->status | STATUS_UNLOCKED;

    if (c->full)
        status |= STATUS_OBF | (c->source == SOURCE_MOUSE ? STATUS_AUX : 0);
    if (c->polled)
        status = (status & 0x0F) |
                 (c->polled == CMD_POLL_INPUT_LOW ? INPUT_PORT << 4 : INPUT_PORT & 0xF0);
    return status;
}

static void command_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8042 *c = ctx;

    vlog(c->vm->log, INPUT, DEBUG, "8042: command <- %02x", (unsigned)value);
    c->status |= STATUS_COMMAND;
    c->command = 0;
    c->polled = 0;
    run_command(c, (uint8_t)value);
}

static const struct region_ops data_ops = {data_read, data_write, 1, 1};
static const struct region_ops command_ops = {status_read, command_write, 1, 1};

/* ---- life ---- */

static void power_on(struct i8042 *c)
{
    c->status = 0;
    memset(c->ram, 0, sizeof c->ram);
    *command_byte(c) = CTR_RESET;
    c->output_port = OUTPUT_RESET;
    c->command = 0;
    c->polled = 0;
    c->full = false;
    c->data = 0;
    c->source = SOURCE_KEYBOARD;
    c->break_seen = false;
    memset(c->replies, 0, sizeof c->replies);
    c->reply_sources = 0;
    c->reply_count = 0;
    c->keyboard_irq = false;
    c->mouse_irq = false;
}

static void i8042_reset(void *self)
{
    struct i8042 *c = self;

    power_on(c);
    irq_lower(&c->config.keyboard_irq);
    irq_lower(&c->config.mouse_irq);
}

static void i8042_destroy(void *self)
{
    struct i8042 *c = self;

    region_remove(&c->data_port);
    region_remove(&c->command_port);
    free(c);
}

static int i8042_after_load(void *self, unsigned version)
{
    struct i8042 *c = self;

    if (c->reply_count > REPLY_BYTES || c->source > SOURCE_MOUSE ||
        (c->polled && c->polled != CMD_POLL_INPUT_LOW && c->polled != CMD_POLL_INPUT_HIGH))
        return -EINVAL;
    return 0;
}

static const struct state_field i8042_fields[] = {
    STATE_INT(struct i8042, status),      STATE_BYTES(struct i8042, ram),
    STATE_INT(struct i8042, output_port), STATE_INT(struct i8042, command),
    STATE_INT(struct i8042, full),        STATE_INT(struct i8042, data),
    STATE_INT(struct i8042, source),      STATE_INT(struct i8042, break_seen),
    STATE_BYTES(struct i8042, replies),   STATE_INT(struct i8042, reply_sources),
    STATE_INT(struct i8042, reply_count), STATE_INT(struct i8042, keyboard_irq),
    STATE_INT(struct i8042, mouse_irq),   STATE_INT(struct i8042, polled),
    STATE_END,
};

static const struct state_table i8042_state = {
    .name = "i8042",
    .version = 1,
    .fields = i8042_fields,
    .after_load = i8042_after_load,
};

static const struct dev_type i8042_type = {
    .name = "i8042",
    .reset = i8042_reset,
    .destroy = i8042_destroy,
    .state = &i8042_state,
};

static void plug_in(struct i8042 *c, struct ps2_device *d)
{
    if (d) {
        d->ready = device_ready;
        d->ready_ctx = c;
    }
}

struct i8042 *i8042_create(struct vm *vm, const struct i8042_config *config, struct error *err)
{
    struct i8042 *c = calloc(1, sizeof *c);

    if (!c)
        goto fail;
    c->vm = vm;
    c->config = *config;
    c->data_port = (struct region){
        .name = "i8042-data",
        .base = PORT_DATA,
        .size = 1,
        .priority = 1,
        .ops = &data_ops,
        .ctx = c,
    };
    c->command_port = (struct region){
        .name = "i8042-command",
        .base = PORT_COMMAND,
        .size = 1,
        .priority = 1,
        .ops = &command_ops,
        .ctx = c,
    };
    if (region_add(&vm->ports, &c->data_port) < 0)
        goto fail_free;
    if (region_add(&vm->ports, &c->command_port) < 0)
        goto fail_data;
    power_on(c);
    plug_in(c, config->keyboard);
    plug_in(c, config->mouse);
    vm_add_device(vm, &i8042_type, "i8042", c);
    return c;

fail_data:
    region_remove(&c->data_port);
fail_free:
    free(c);
fail:
    error_set(err, -ENOMEM, "cannot place the keyboard controller");
    return NULL;
}
