/*
 * A virtio device on the PCI bus (virtio 1.2, sections 2 and 4.1): the modern
 * transport alone, with MSI-X or a pin. The rings are in queue.h.
 *
 * A device embeds a struct virtio_device, describes itself with a constant
 * virtio_type, and calls virtio_create; configuration space, status, features,
 * interrupts, reset and saved state are carried out here.
 *
 *     static const struct virtio_type type = {.id = 4, .serve = serve, ...};
 *
 *     virtio_init(&d->virtio, vm, bus, devfn, &config, err);
 *     ...
 *     vm_add_device(vm, &dev_type, d->virtio.name, d);
 *
 * and from the device's dev_type: reset -> virtio_reset, destroy ->
 * virtio_destroy, state -> STATE_STRUCT(struct x, virtio, &virtio_state).
 *
 * A doorbell does no more than note which queue it was. The queue is served on
 * the machine's I/O thread, with the machine's lock; deterministic machines,
 * which have one thread, serve it at once.
 *
 * What takes a driver's word and finds it impossible calls virtio_break: the
 * device shows DEVICE_NEEDS_RESET, interrupts (2.1.2), and does nothing more
 * until the driver resets it.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_VIRTIO_VIRTIO_H
#define DEV_VIRTIO_VIRTIO_H

#include "dev/pci/pci.h"
#include "dev/virtio/queue.h"

#define VIRTIO_QUEUES_MAX 16
#define VIRTIO_CONFIG_BYTES 256
#define VIRTIO_NAME_BYTES 24

enum virtio_id { /* section 5 */
    VIRTIO_ID_NET = 1,
    VIRTIO_ID_BLOCK = 2,
    VIRTIO_ID_CONSOLE = 3,
    VIRTIO_ID_RNG = 4,
    VIRTIO_ID_BALLOON = 5,
    VIRTIO_ID_9P = 9,
};

enum virtio_status { /* 2.1 */
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_FAILED = 128,
};

/* Feature bits that are the same for all devices (section 6). */
#define VIRTIO_F_INDIRECT_DESC BIT(28)
#define VIRTIO_F_EVENT_IDX BIT(29)
#define VIRTIO_F_VERSION_1 BIT(32)
#define VIRTIO_F_COMMON (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1)

struct virtio_device;

struct virtio_type {
    const char *name;
    uint16_t id;
    uint32_t class_code; /* of PCI: class << 16 | subclass << 8 | interface */

    /* A queue is rung: true, if the device sees to it in its own way, without serve.
     * May be NULL. */
    bool (*rung)(struct virtio_device *d, unsigned queue);
    /* A queue has been rung, or there is a reason to look. The device is running. */
    void (*serve)(struct virtio_device *d, unsigned queue);
    /* Everything back to power-on; afterwards nothing of the device touches guest
     * memory. Queues and features are still what they were. May be NULL. */
    void (*reset)(struct virtio_device *d);
    /* The driver has set DRIVER_OK: d->features holds. May be NULL. */
    void (*started)(struct virtio_device *d);
    /* Fills config_bytes of the device's own configuration; NULL: zeroes. */
    void (*config_read)(struct virtio_device *d, uint8_t *config);
    /* An aligned write of 1, 2 or 4 bytes within config_bytes; NULL: read-only. */
    void (*config_write)(struct virtio_device *d, unsigned offset, unsigned size, uint32_t value);
};

struct virtio_config {
    const struct virtio_type *type;
    const char *name;    /* of the instance, unique in the machine; copied */
    uint64_t features;   /* the device's own; VIRTIO_F_COMMON come with them */
    unsigned queues;
    uint16_t queue_size; /* a power of two; 0: VIRTIO_QUEUE_SIZE */
    unsigned config_bytes;
};

struct virtio_device {
    struct vm *vm;
    const struct virtio_type *type;
    char name[VIRTIO_NAME_BYTES];
    uint64_t offered;
    unsigned queue_count, config_bytes;
    unsigned window; /* offset of the PCI configuration access capability */
    bool deferred;   /* the I/O thread has been asked to serve */

    /* ---- saved ---- */
    struct pci_function pci;
    struct pci_msix msix;
    uint8_t status;
    uint8_t isr;
    uint8_t generation; /* of the device's configuration */
    uint64_t features;  /* what the driver has accepted */
    uint32_t device_select, driver_select;
    uint16_t queue_select, config_vector;
    uint32_t rung; /* bit n: queue n waits to be served */
    struct virtio_queue queue[VIRTIO_QUEUES_MAX];
};

/* The struct must be zeroed. After a failure there is nothing to destroy. */
int virtio_init(struct virtio_device *d, struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                const struct virtio_config *config, struct error *err);
void virtio_reset(struct virtio_device *d);
void virtio_destroy(struct virtio_device *d);
/* The outer table's after_load ends with virtio_restored, which serves what waits. */
extern const struct state_table virtio_state;
void virtio_restored(struct virtio_device *d);

/* DRIVER_OK is set, and nothing is broken. */
bool virtio_is_running(const struct virtio_device *d);
static inline bool virtio_has(const struct virtio_device *d, uint64_t feature)
{
    return d->features & feature;
}
/* Running, enabled by the driver, and allowed to reach memory. */
bool virtio_queue_is_live(const struct virtio_queue *q);

/* Serves a queue soon, as if the driver had rung. */
void virtio_ring(struct virtio_device *d, unsigned queue);
/* The device's configuration has changed: the driver is told. */
void virtio_config_changed(struct virtio_device *d);
/* The guest has given what cannot be. Logs it. */
void virtio_break(struct virtio_device *d, const char *why);

/* ---- between the files of the transport ---- */

/* Interrupt of a queue (its vector) or of the configuration. */
void virtio_interrupt(struct virtio_device *d, uint16_t vector, uint8_t isr_bit);
enum virtio_isr { VIRTIO_ISR_QUEUE = 1, VIRTIO_ISR_CONFIG = 2 };
#define VIRTIO_NO_VECTOR 0xFFFF

/* The queue is live and its tables are in memory. A queue that is live and has none
 * breaks the device. */
bool virtio_queue_is_mapped(struct virtio_queue *q);
/* A queue as it is before the driver has set it up. */
void virtio_queue_reset(struct virtio_queue *q);
/* Serves what has been rung, if it may be by now. */
void virtio_look_again(struct virtio_device *d);
void virtio_status_write(struct virtio_device *d, uint8_t value);
/* Registers and capabilities: virtio_pci.c. */
int virtio_pci_add(struct virtio_device *d, struct error *err);

#endif
