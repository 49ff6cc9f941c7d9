/*
 * Reset control CF9H and port 92H. See reset_ports.h.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/misc/reset_ports.h"

#include <errno.h>
#include <stdlib.h>

enum reset_control {
    RST_CNT_SYS_RST = 1 << 1,  /* 1: hard reset, 0: INIT# */
    RST_CNT_RST_CPU = 1 << 2,  /* 0 to 1 resets */
    RST_CNT_FULL_RST = 1 << 3, /* a hard reset cycles the power */
    RST_CNT_WRITABLE = 0x0E,
};

enum port92 {
    PORT92 = 0x92,
    PORT92_INIT_NOW = 1 << 0, /* 0 to 1 resets */
    PORT92_A20 = 1 << 1,
    PORT92_WRITABLE = 0x03,
};

struct reset_ports {
    struct vm *vm;
    struct irq_line init;
    struct region port92_region;
    uint8_t rst_cnt;
    uint8_t port92;
};

static void soft_reset(struct reset_ports *r)
{
    if (r->init.set)
        irq_pulse(&r->init);
    else
        vm_request_reset(r->vm);
}

static uint8_t cf9_read(void *ctx)
{
    struct reset_ports *r = ctx;

    return r->rst_cnt;
}

static void cf9_write(void *ctx, uint8_t value)
{
    struct reset_ports *r = ctx;
    bool triggered = (value & RST_CNT_RST_CPU) && !(r->rst_cnt & RST_CNT_RST_CPU);

    r->rst_cnt = value & RST_CNT_WRITABLE;
    if (!triggered)
        return;
    vlog(r->vm->log, PM, INFO, "reset by port CF9H, value %#x", value);
    if (value & RST_CNT_SYS_RST)
        vm_request_reset(r->vm);
    else
        soft_reset(r);
}

static uint64_t port92_read(void *ctx, uint64_t offset, unsigned size)
{
    struct reset_ports *r = ctx;

    return r->port92;
}

static void port92_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct reset_ports *r = ctx;
    bool triggered = (value & PORT92_INIT_NOW) && !(r->port92 & PORT92_INIT_NOW);

    r->port92 = (uint8_t)value & PORT92_WRITABLE;
    if (triggered) {
        vlog(r->vm->log, PM, INFO, "reset by port 92H");
        soft_reset(r);
    }
}

static const struct region_ops port92_ops = {port92_read, port92_write, 1, 1};

static void reset_ports_reset(void *self)
{
    struct reset_ports *r = self;

    r->rst_cnt = 0;
    r->port92 = 0;
}

static void reset_ports_destroy(void *self)
{
    struct reset_ports *r = self;

    region_remove(&r->port92_region);
    free(r);
}

static const struct state_field reset_ports_fields[] = {
    STATE_INT(struct reset_ports, rst_cnt),
    STATE_INT(struct reset_ports, port92),
    STATE_END,
};

static const struct state_table reset_ports_state = {
    .name = "reset-ports",
    .version = 1,
    .fields = reset_ports_fields,
};

static const struct dev_type reset_ports_type = {
    .name = "reset-ports",
    .reset = reset_ports_reset,
    .destroy = reset_ports_destroy,
    .state = &reset_ports_state,
};

struct reset_ports *reset_ports_create(struct vm *vm, struct pci_bus *bus,
                                       const struct irq_line *init, struct error *err)
{
    struct reset_ports *r = calloc(1, sizeof *r);
    const struct pci_cf9 cf9 = {.read = cf9_read, .write = cf9_write, .ctx = r};

    if (!r) {
        error_set(err, -ENOMEM, "out of memory for the reset ports");
        return NULL;
    }
    r->vm = vm;
    r->init = *init;
    r->port92_region = (struct region){
        .name = "port92",
        .base = PORT92,
        .size = 1,
        .priority = 1,
        .ops = &port92_ops,
        .ctx = r,
    };
    if (region_add(&vm->ports, &r->port92_region) < 0) {
        error_set(err, -ENOMEM, "cannot place port 92H");
        free(r);
        return NULL;
    }
    pci_bus_set_cf9(bus, &cf9);
    vm_add_device(vm, &reset_ports_type, "reset-ports", r);
    return r;
}
