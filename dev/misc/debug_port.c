/*
 * Debug output ports 402H and E9H, POST code port 80H. See debug_port.h.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/misc/debug_port.h"

#include <errno.h>
#include <stdlib.h>

#define LINE_BYTES 160 /* a longer line is logged in pieces */
#define READBACK 0xE9  /* tells firmware that somebody listens */

enum debug_port_number {
    PORT_FIRMWARE = 0x402,
    PORT_BOCHS = 0xE9,
    PORT_POST = 0x80,
};

struct debug_port {
    struct vm *vm;
    struct char_backend *chars;
    struct region firmware, bochs, post;
    uint8_t line[LINE_BYTES];
    uint8_t line_length;
    uint8_t post_code;
};

static void flush_line(struct debug_port *d)
{
    if (d->line_length)
        vlog(d->vm->log, FIRMWARE, INFO, "%.*s", (int)d->line_length, (const char *)d->line);
    d->line_length = 0;
}

static uint64_t debug_read(void *ctx, uint64_t offset, unsigned size)
{
    return READBACK;
}

static void debug_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct debug_port *d = ctx;
    uint8_t byte = (uint8_t)value;

    char_write(d->chars, &byte, 1);
    if (byte == '\n') {
        flush_line(d);
        return;
    }
    if (byte == '\r')
        return;
    /* The log is read on terminals: no control characters from a guest. */
    d->line[d->line_length++] = byte >= ' ' && byte != 0x7F ? byte : '.';
    if (d->line_length == LINE_BYTES)
        flush_line(d);
}

static uint64_t post_read(void *ctx, uint64_t offset, unsigned size)
{
    struct debug_port *d = ctx;

    return d->post_code;
}

static void post_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct debug_port *d = ctx;

    d->post_code = (uint8_t)value;
    vlog(d->vm->log, FIRMWARE, DEBUG, "POST code %02x", d->post_code);
}

static const struct region_ops debug_ops = {debug_read, debug_write, 1, 1};
static const struct region_ops post_ops = {post_read, post_write, 1, 1};

uint8_t debug_port_post_code(const struct debug_port *d)
{
    return d->post_code;
}

static void debug_port_reset(void *self)
{
    struct debug_port *d = self;

    flush_line(d);
    memset(d->line, 0, sizeof d->line);
    d->post_code = 0;
}

static void debug_port_destroy(void *self)
{
    struct debug_port *d = self;

    flush_line(d);
    region_remove(&d->firmware);
    region_remove(&d->bochs);
    region_remove(&d->post);
    free(d);
}

static int debug_port_after_load(void *self, unsigned version)
{
    struct debug_port *d = self;

    return d->line_length < LINE_BYTES ? 0 : -EINVAL;
}

static const struct state_field debug_port_fields[] = {
    STATE_BYTES(struct debug_port, line),
    STATE_INT(struct debug_port, line_length),
    STATE_INT(struct debug_port, post_code),
    STATE_END,
};

static const struct state_table debug_port_state = {
    .name = "debug-port",
    .version = 1,
    .fields = debug_port_fields,
    .after_load = debug_port_after_load,
};

static const struct dev_type debug_port_type = {
    .name = "debug-port",
    .reset = debug_port_reset,
    .destroy = debug_port_destroy,
    .state = &debug_port_state,
};

static int add_port(struct debug_port *d, struct region *r, const char *name, uint16_t port,
                    const struct region_ops *ops)
{
    *r =
        (struct region){.name = name, .base = port, .size = 1, .priority = 1, .ops = ops, .ctx = d};
    return region_add(&d->vm->ports, r);
}

struct debug_port *debug_port_create(struct vm *vm, struct char_backend *chars, struct error *err)
{
    struct debug_port *d = calloc(1, sizeof *d);

    if (!d)
        goto fail;
    d->vm = vm;
    d->chars = chars;
    if (add_port(d, &d->firmware, "debug-402", PORT_FIRMWARE, &debug_ops) < 0)
        goto fail_free;
    if (add_port(d, &d->bochs, "debug-e9", PORT_BOCHS, &debug_ops) < 0)
        goto fail_firmware;
    if (add_port(d, &d->post, "post-code", PORT_POST, &post_ops) < 0)
        goto fail_bochs;
    vm_add_device(vm, &debug_port_type, "debug-port", d);
    return d;

fail_bochs:
    region_remove(&d->bochs);
fail_firmware:
    region_remove(&d->firmware);
fail_free:
    free(d);
fail:
    error_set(err, -ENOMEM, "out of memory for the debug ports");
    return NULL;
}
