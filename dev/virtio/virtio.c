/*
 * What all virtio devices have (virtio 1.2, sections 2.1, 2.2, 2.4, 2.5): status,
 * features, reset, whose turn it is to be served, saved state. Interface:
 * virtio.h; the registers are in virtio_pci.c.
 */
#include "dev/virtio/virtio.h"

#include <errno.h>
#include <stdio.h>

#include "vm/loop.h"

#define STATUS_SETTABLE                                                                            \
    (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED)
#define STATUS_ALL (STATUS_SETTABLE | VIRTIO_NEEDS_RESET)

bool virtio_is_running(const struct virtio_device *d)
{
    return d->status & VIRTIO_DRIVER_OK && !(d->status & (VIRTIO_NEEDS_RESET | VIRTIO_FAILED));
}

bool virtio_queue_is_live(const struct virtio_queue *q)
{
    return q->enabled && virtio_is_running(q->device) && pci_is_master(&q->device->pci);
}

/* ---- serving ---- */

static bool may_serve(const struct virtio_device *d)
{
    return virtio_is_running(d) && pci_is_master(&d->pci);
}

static void serve_rung(struct virtio_device *d)
{
    /* What rings meanwhile (a device that has more than it does at once) gets the
     * next turn, so that others have theirs. */
    uint32_t rung = d->rung;

    if (!may_serve(d))
        return; /* the bits stay, and config_written looks at them */
    d->rung = 0;
    for (unsigned n = 0; n < d->queue_count; n++)
        if (rung & BIT(n) && virtio_queue_is_live(&d->queue[n]))
            d->type->serve(d, n);
}

static void deferred(void *ctx)
{
    struct virtio_device *d = ctx;

    d->deferred = false;
    serve_rung(d);
}

static void schedule(struct virtio_device *d)
{
    if (!d->rung || d->deferred)
        return;
    if (d->vm->deterministic) {
        /* One thread, in which order is everything; a device that rings itself
         * while it is served is served again, a bounded number of times. */
        d->deferred = true;
        for (unsigned n = 0; n < VIRTIO_QUEUE_SIZE_MAX && d->rung && may_serve(d); n++)
            serve_rung(d);
        d->deferred = false;
        return;
    }
    d->deferred = true;
    if (loop_defer(d->vm, deferred, d))
        deferred(d); /* no memory to remember it by: then now */
}

void virtio_ring(struct virtio_device *d, unsigned queue)
{
    if (queue >= d->queue_count || !virtio_is_running(d) || !d->queue[queue].enabled)
        return;
    if (d->type->rung && d->type->rung(d, queue))
        return;
    d->rung |= (uint32_t)BIT(queue);
    schedule(d);
}

/* ---- interrupts ---- */

void virtio_interrupt(struct virtio_device *d, uint16_t vector, uint8_t isr_bit)
{
    if (pci_msi_vectors(&d->pci)) {
        if (vector < d->msix.vectors)
            pci_msi_raise(&d->pci, vector);
        return;
    }
    d->isr |= isr_bit;
    pci_intx_set(&d->pci, true);
}

void virtio_config_changed(struct virtio_device *d)
{
    d->generation++;
    if (d->status & VIRTIO_DRIVER_OK)
        virtio_interrupt(d, d->config_vector, VIRTIO_ISR_CONFIG);
}

void virtio_break(struct virtio_device *d, const char *why)
{
    if (d->status & VIRTIO_NEEDS_RESET)
        return;
    vlog(d->vm->log, VIRTIO, GUEST, "%s: %s: the device waits for its driver to reset it", d->name,
         why);
    d->status |= VIRTIO_NEEDS_RESET;
    if (d->status & VIRTIO_DRIVER_OK)
        virtio_interrupt(d, d->config_vector, VIRTIO_ISR_CONFIG);
}

/* ---- status ---- */

/* What the driver's reset does; the PCI function stays as it is. */
static void device_reset(struct virtio_device *d)
{
    if (d->type->reset)
        d->type->reset(d);
    for (unsigned n = 0; n < d->queue_count; n++)
        virtio_queue_reset(&d->queue[n]);
    d->status = d->isr = d->generation = 0;
    d->features = 0;
    d->device_select = d->driver_select = 0;
    d->queue_select = 0;
    d->config_vector = VIRTIO_NO_VECTOR;
    d->rung = 0;
    pci_intx_set(&d->pci, false);
}

/* 2.2.2: only what was offered, and never without VERSION_1 (6.1). */
static bool features_are_fine(const struct virtio_device *d)
{
    return !(d->features & ~d->offered) && d->features & VIRTIO_F_VERSION_1;
}

void virtio_status_write(struct virtio_device *d, uint8_t value)
{
    uint8_t added = value & STATUS_SETTABLE & ~d->status;

    if (!value) {
        device_reset(d);
        return;
    }
    /* Bits are only added (2.1.1). DRIVER_OK means nothing before the features
     * are agreed on. */
    if (added & VIRTIO_FEATURES_OK && !features_are_fine(d)) {
        vlog(d->vm->log, VIRTIO, GUEST, "%s: features %llx are not among the %llx offered",
             d->name, (unsigned long long)d->features, (unsigned long long)d->offered);
        added &= (uint8_t)~VIRTIO_FEATURES_OK;
    }
    if (!((d->status | added) & VIRTIO_FEATURES_OK))
        added &= (uint8_t)~VIRTIO_DRIVER_OK;
    d->status |= added;
    if (!(added & VIRTIO_DRIVER_OK) || !virtio_is_running(d))
        return;
    if (d->type->started)
        d->type->started(d);
    for (unsigned n = 0; n < d->queue_count; n++)
        virtio_ring(d, n);
}

/* ---- life ---- */

void virtio_reset(struct virtio_device *d)
{
    device_reset(d);
    pci_function_reset(&d->pci);
}

static void function_reset(void *ctx)
{
    virtio_reset(ctx);
}

void virtio_destroy(struct virtio_device *d)
{
    pci_function_destroy(&d->pci);
}

int virtio_init(struct virtio_device *d, struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                const struct virtio_config *config, struct error *err)
{
    const struct pci_identity id = {
        .vendor = 0x1AF4, /* 4.1.2 */
        .device = (uint16_t)(0x1040 + config->type->id),
        .subsystem_vendor = 0x1AF4,
        .subsystem = (uint16_t)(0x1040 + config->type->id),
        .class_code = config->type->class_code,
        .revision = 1,
        .interrupt_pin = 1,
    };
    int ret;

    d->vm = vm;
    d->type = config->type;
    d->offered = config->features | VIRTIO_F_COMMON;
    d->queue_count = config->queues;
    d->config_bytes = config->config_bytes;
    snprintf(d->name, sizeof d->name, "%s", config->name);
    for (unsigned n = 0; n < d->queue_count; n++) {
        struct virtio_queue *q = &d->queue[n];

        q->device = d;
        q->number = n;
        q->size_max = config->queue_size ? config->queue_size : VIRTIO_QUEUE_SIZE;
        virtio_queue_reset(q);
    }
    d->config_vector = VIRTIO_NO_VECTOR;
    ret = pci_function_init(&d->pci, bus, devfn, &id, err);
    if (ret)
        return ret;
    d->pci.reset = function_reset;
    d->pci.ctx = d;
    ret = virtio_pci_add(d, err);
    if (ret)
        pci_function_destroy(&d->pci);
    return ret;
}

/* ---- state ---- */

void virtio_restored(struct virtio_device *d)
{
    schedule(d);
}

void virtio_look_again(struct virtio_device *d)
{
    schedule(d);
}

static const struct state_field virtio_fields[] = {
    STATE_STRUCT(struct virtio_device, pci, &pci_function_state),
    STATE_STRUCT(struct virtio_device, msix, &pci_msix_state),
    STATE_INT(struct virtio_device, status),
    STATE_INT(struct virtio_device, isr),
    STATE_INT(struct virtio_device, generation),
    STATE_INT(struct virtio_device, features),
    STATE_INT(struct virtio_device, device_select),
    STATE_INT(struct virtio_device, driver_select),
    STATE_INT(struct virtio_device, queue_select),
    STATE_INT(struct virtio_device, config_vector),
    STATE_INT(struct virtio_device, rung),
    STATE_STRUCTS(struct virtio_device, queue, &virtio_queue_state),
    STATE_END,
};

static int virtio_after_load(void *self, unsigned version)
{
    struct virtio_device *d = self;

    pci_function_restored(&d->pci);
    if (d->status & ~STATUS_ALL || d->isr & ~(VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG) ||
        (d->status & VIRTIO_FEATURES_OK && !features_are_fine(d)) ||
        (d->status & VIRTIO_DRIVER_OK && !(d->status & VIRTIO_FEATURES_OK)) ||
        d->rung & ~(BIT(d->queue_count) - 1))
        return -EINVAL;
    return 0;
}

const struct state_table virtio_state = {
    .name = "virtio",
    .version = 1,
    .fields = virtio_fields,
    .after_load = virtio_after_load,
};
