/*
 * A machine with one virtio device of each kind and nothing else, and a driver
 * for them: for tests without a processor. The disk is a shim (disk_shim.h), the
 * console's back end keeps what it is given.
 *
 * harness_reload keeps memory, image and output: a build function that finds an
 * older world takes over what is in it.
 */
#ifndef TESTS_DEV_VIRTIO_GUEST_H
#define TESTS_DEV_VIRTIO_GUEST_H

#include "backend/char/char.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtio_balloon.h"
#include "tests/dev/pci_machine.h"

enum vg_device { VG_BLK, VG_RNG, VG_CONSOLE, VG_BALLOON, VG_DEVICES };

#define VG_RAM_BYTES (4 * MiB)
#define VG_ROM 0x800000ull /* 64 KiB of ROM */
#define VG_ECAM 0xB0000000ull
#define VG_DISK_BYTES (1 * MiB)
#define VG_BAR(device) (0xF0000000ull + (uint64_t)(device)*0x10000)
#define VG_MSIX(device) (VG_BAR(device) + 0x8000)
#define VG_DEVFN(device) PCI_DEVFN(3 + (device), 0)

/* Where the driver has its rings: of 16 entries, a page each. */
#define VG_SIZE 16
#define VG_QUEUES 5
#define VG_RINGS(device, queue) (0x10000ull + ((uint64_t)(device)*VG_QUEUES + (queue)) * 0x3000)
#define VG_DESC(device, queue) VG_RINGS(device, queue)
#define VG_AVAIL(device, queue) (VG_RINGS(device, queue) + 0x1000)
#define VG_USED(device, queue) (VG_RINGS(device, queue) + 0x2000)
#define VG_BUFFER 0x200000ull

/* Offsets in the BAR. */
enum vg_register {
    VG_FEATURE_SELECT = 0x00,
    VG_FEATURE = 0x04,
    VG_DRIVER_SELECT = 0x08,
    VG_DRIVER_FEATURE = 0x0C,
    VG_CONFIG_VECTOR = 0x10,
    VG_NUM_QUEUES = 0x12,
    VG_STATUS = 0x14,
    VG_GENERATION = 0x15,
    VG_QUEUE_SELECT = 0x16,
    VG_QUEUE_SIZE = 0x18,
    VG_QUEUE_VECTOR = 0x1A,
    VG_QUEUE_ENABLE = 0x1C,
    VG_QUEUE_NOTIFY = 0x1E,
    VG_QUEUE_DESC = 0x20,
    VG_QUEUE_DRIVER = 0x28,
    VG_QUEUE_DEVICE = 0x30,
    VG_ISR = 0x1000,
    VG_CONFIG = 0x2000,
    VG_DOORBELLS = 0x3000,
};

enum vg_descriptor { VG_NEXT = 1, VG_WRITE = 2, VG_INDIRECT = 4 };

#define VG_RUNNING                                                                                 \
    (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK)

struct vg_world {
    struct shim *shim;
    struct disk *disk;
    struct machine_memory memory;
    struct char_backend chars;
    uint8_t output[4096]; /* of the console: the last bytes, as a ring */
    uint64_t output_bytes;
    struct virtio_balloon *balloon;
    bool readonly; /* of the disk: set before vg_create by vg_create_readonly */
};

void vg_build(struct harness *h);
struct harness *vg_create(void);
struct harness *vg_create_readonly(void);
struct vg_world *vg_world(struct harness *h);

uint32_t vg_get(struct harness *h, enum vg_device d, unsigned offset, unsigned size);
void vg_put(struct harness *h, enum vg_device d, unsigned offset, uint32_t value, unsigned size);
uint8_t *vg_ram(struct harness *h, uint64_t address);
uint64_t vg_offered(struct harness *h, enum vg_device d);

/* Reset, features, all queues, DRIVER_OK; the rings' memory is cleared. features 0:
 * all that are offered but the event index. msix: vector n+1 for queue n, 0 for the
 * configuration; message n goes out as data 0x4000 + device * 16 + vector. */
void vg_start(struct harness *h, enum vg_device d, uint64_t features, bool msix);
void vg_queue(struct harness *h, enum vg_device d, unsigned queue);
void vg_describe(struct harness *h, enum vg_device d, unsigned queue, unsigned index,
                 uint64_t address, uint32_t bytes, uint16_t flags, uint16_t next);
/* Puts a head into the ring; the doorbell is vg_ring's. */
void vg_offer(struct harness *h, enum vg_device d, unsigned queue, uint16_t head);
void vg_ring(struct harness *h, enum vg_device d, unsigned queue);
/* The index of the used ring, and its entry n. */
uint16_t vg_used(struct harness *h, enum vg_device d, unsigned queue);
uint32_t vg_used_head(struct harness *h, enum vg_device d, unsigned queue, unsigned n);
uint32_t vg_used_bytes(struct harness *h, enum vg_device d, unsigned queue, unsigned n);
/* Bytes from outside for the console; returns how many it took. */
size_t vg_type(struct harness *h, const void *data, size_t bytes);

#endif
