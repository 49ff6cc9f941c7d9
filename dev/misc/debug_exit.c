/*
 * debug-exit. See debug_exit.h.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/misc/debug_exit.h"

#include <errno.h>
#include <stdlib.h>

struct debug_exit {
    struct vm *vm;
    struct region region;
};

static uint64_t exit_read(void *ctx, uint64_t offset, unsigned size)
{
    return 0;
}

static void exit_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct debug_exit *d = ctx;
    /* A process has 8 bits of status, and (v << 1) | 1 is never success. */
    int status = (int)(((uint32_t)value << 1 | 1) & 0xFF);

    vlog(d->vm->log, PM, INFO, "debug-exit with status %d", status);
    vm_request_poweroff(d->vm, status);
}

static const struct region_ops exit_ops = {exit_read, exit_write, 1, 4};

static void debug_exit_destroy(void *self)
{
    struct debug_exit *d = self;

    region_remove(&d->region);
    free(d);
}

static void debug_exit_reset(void *self)
{
}

static const struct dev_type debug_exit_type = {
    .name = "debug-exit",
    .reset = debug_exit_reset,
    .destroy = debug_exit_destroy,
};

struct debug_exit *debug_exit_create(struct vm *vm, uint16_t port, unsigned bytes,
                                     struct error *err)
{
    struct debug_exit *d;

    if ((bytes != 1 && bytes != 2 && bytes != 4) || port + bytes > 0x10000) {
        error_set(err, -EINVAL, "debug-exit: size must be 1, 2 or 4 and end below port 10000H");
        return NULL;
    }
    d = calloc(1, sizeof *d);
    if (!d) {
        error_set(err, -ENOMEM, "out of memory for debug-exit");
        return NULL;
    }
    d->vm = vm;
    d->region = (struct region){
        .name = "debug-exit",
        .base = port,
        .size = bytes,
        .priority = 2, /* the person who placed it meant it */
        .ops = &exit_ops,
        .ctx = d,
    };
    if (region_add(&vm->ports, &d->region) < 0) {
        error_set(err, -ENOMEM, "cannot place debug-exit at port %#x", port);
        free(d);
        return NULL;
    }
    vm_add_device(vm, &debug_exit_type, "debug-exit", d);
    return d;
}
