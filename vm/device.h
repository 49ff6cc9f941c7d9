/*
 * Devices: a plain struct of the device's own, and a constant dev_type.
 *
 * A device is created by its own uart_create(vm, config..., &err), which
 * allocates, registers regions, and ends with vm_add_device(). reset() brings
 * registers to their power-on values, lowers lines and cancels timers.
 */
#ifndef VM_DEVICE_H
#define VM_DEVICE_H

#include "base/base.h"
#include "vm/clock.h"
#include "vm/irq.h"
#include "vm/memory.h"
#include "vm/state.h"

struct dev_type {
    const char *name;
    void (*reset)(void *self);
    void (*destroy)(void *self); /* frees; regions were not removed before */
    const struct state_table *state; /* NULL: the device has none */
};

/* Registers a device; they are reset and saved in order of registration and
 * destroyed in reverse. The instance name is a literal, unique in the machine.
 * Never fails after vm_create (it asserts that the table of devices holds). */
void vm_add_device(struct vm *vm, const struct dev_type *type, const char *instance, void *self);

#endif
