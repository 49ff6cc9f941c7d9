/*
 * A machine with virtio devices, and a driver. Interface: virtio_guest.h.
 */
#include "tests/dev/virtio_guest.h"

#include <stdlib.h>

#include "dev/virtio/virtio_blk.h"
#include "dev/virtio/virtio_console.h"
#include "dev/virtio/virtio_rng.h"

/* ---- the machine ---- */

/* Destroyed after the devices: it was added before. */
static void world_destroy(void *self)
{
    struct vg_world *w = self;

    disk_destroy(w->disk);
    free(w);
}

static const struct dev_type world_type = {
    .name = "world", .reset = machine_no_reset, .destroy = world_destroy};

static void chars_write(struct char_backend *b, const uint8_t *data, size_t bytes)
{
    struct vg_world *w = CONTAINER_OF(b, struct vg_world, chars);

    for (size_t n = 0; n < bytes; n++)
        w->output[w->output_bytes++ % sizeof w->output] = data[n];
}

static const struct char_ops chars_ops = {.write = chars_write};

static void add_disk(struct harness *h, struct vg_world *w, struct vg_world *old)
{
    w->shim = machine_shim(VG_DISK_BYTES, old ? old->shim : NULL);
    if (old)
        w->readonly = old->readonly;
    w->shim->layer.readonly = w->readonly;
    w->disk = disk_create(h->vm, &w->shim->layer, "shim", NULL);
    assert_non_null(w->disk);
    disk_set_serial(w->disk, "SHIM");
}

static void add_devices(struct harness *h, struct vg_world *w)
{
    const struct virtio_blk_config blk = {.name = "blk", .disk = w->disk, .queues = 2};
    const struct virtio_rng_config rng = {.name = "rng"};
    const struct virtio_console_config console = {.name = "console", .chars = &w->chars};
    const struct virtio_balloon_config balloon = {.name = "balloon",
                                                  .target_bytes = 64 * KiB,
                                                  .stats_interval_ns = NS_PER_SEC,
                                                  .out = &w->balloon};
    struct pci_bus *bus = h->dev[0];
    struct error err = {.text = ""};

    if (virtio_blk_create(h->vm, bus, VG_DEVFN(VG_BLK), &blk, &err) ||
        virtio_rng_create(h->vm, bus, VG_DEVFN(VG_RNG), &rng, &err) ||
        virtio_console_create(h->vm, bus, VG_DEVFN(VG_CONSOLE), &console, &err) ||
        virtio_balloon_create(h->vm, bus, VG_DEVFN(VG_BALLOON), &balloon, &err))
        fail_msg("%s", err.text);
    for (unsigned d = 0; d < VG_DEVICES; d++) {
        pci_config_write(bus, 0, VG_DEVFN(d), PCI_BAR0, (uint32_t)VG_BAR(d), 4);
        pci_config_write(bus, 0, VG_DEVFN(d), PCI_BAR0 + 4, (uint32_t)VG_MSIX(d), 4);
        pci_config_write(bus, 0, VG_DEVFN(d), PCI_COMMAND,
                         PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
    }
}

static void build(struct harness *h, bool readonly)
{
    struct vg_world *old = h->test, *w = calloc(1, sizeof *w);

    assert_non_null(w);
    h->test = w;
    w->readonly = readonly;
    vm_add_device(h->vm, &world_type, "world", w);
    machine_add_memory(h, &w->memory, VG_RAM_BYTES, VG_ROM, old ? &old->memory : NULL);
    add_disk(h, w, old);
    w->chars = (struct char_backend){.ops = &chars_ops, .vm = h->vm};
    if (old) {
        h->vm->random_state = old->memory.ram->vm->random_state;
        memcpy(w->output, old->output, sizeof w->output);
        w->output_bytes = old->output_bytes;
    }
    h->dev[0] = machine_add_bus(h, VG_ECAM, NULL);
    add_devices(h, w);
}

void vg_build(struct harness *h)
{
    build(h, false);
}

static void build_readonly(struct harness *h)
{
    build(h, true);
}

struct harness *vg_create(void)
{
    return harness_create(vg_build);
}

struct harness *vg_create_readonly(void)
{
    return harness_create(build_readonly);
}

struct vg_world *vg_world(struct harness *h)
{
    return h->test;
}

/* ---- the driver ---- */

uint32_t vg_get(struct harness *h, enum vg_device d, unsigned offset, unsigned size)
{
    return (uint32_t)mm_in(h, VG_BAR(d) + offset, size);
}

void vg_put(struct harness *h, enum vg_device d, unsigned offset, uint32_t value, unsigned size)
{
    mm_out(h, VG_BAR(d) + offset, value, size);
}

uint8_t *vg_ram(struct harness *h, uint64_t address)
{
    assert_true(address < VG_RAM_BYTES);
    return vg_world(h)->memory.ram->host + address;
}

uint64_t vg_offered(struct harness *h, enum vg_device d)
{
    uint64_t low;

    vg_put(h, d, VG_FEATURE_SELECT, 0, 4);
    low = vg_get(h, d, VG_FEATURE, 4);
    vg_put(h, d, VG_FEATURE_SELECT, 1, 4);
    return low | (uint64_t)vg_get(h, d, VG_FEATURE, 4) << 32;
}

void vg_queue(struct harness *h, enum vg_device d, unsigned queue)
{
    vg_put(h, d, VG_QUEUE_SELECT, queue, 2);
    vg_put(h, d, VG_QUEUE_SIZE, VG_SIZE, 2);
    vg_put(h, d, VG_QUEUE_DESC, (uint32_t)VG_DESC(d, queue), 4);
    vg_put(h, d, VG_QUEUE_DRIVER, (uint32_t)VG_AVAIL(d, queue), 4);
    vg_put(h, d, VG_QUEUE_DEVICE, (uint32_t)VG_USED(d, queue), 4);
    memset(vg_ram(h, VG_RINGS(d, queue)), 0, 0x3000);
    vg_put(h, d, VG_QUEUE_ENABLE, 1, 2);
}

static void set_vectors(struct harness *h, enum vg_device d, unsigned queues)
{
    unsigned capability = PCI_CAPABILITIES;

    do {
        capability = pci_config_read(h->dev[0], 0, VG_DEVFN(d), capability == PCI_CAPABILITIES
                                                                    ? PCI_CAPABILITIES
                                                                    : capability + 1, 1);
        assert_int_not_equal(capability, 0);
    } while (pci_config_read(h->dev[0], 0, VG_DEVFN(d), capability, 1) != PCI_CAP_MSIX);
    pci_config_write(h->dev[0], 0, VG_DEVFN(d), capability + 2, 1 << 15, 2);
    for (unsigned v = 0; v <= queues; v++) {
        mm_out(h, VG_MSIX(d) + v * 16, 0xFEE00000, 4);
        mm_out(h, VG_MSIX(d) + v * 16 + 8, 0x4000 + d * 16 + v, 4);
        mm_out(h, VG_MSIX(d) + v * 16 + 12, 0, 4);
    }
    vg_put(h, d, VG_CONFIG_VECTOR, 0, 2);
    for (unsigned q = 0; q < queues; q++) {
        vg_put(h, d, VG_QUEUE_SELECT, q, 2);
        vg_put(h, d, VG_QUEUE_VECTOR, q + 1, 2);
    }
}

void vg_start(struct harness *h, enum vg_device d, uint64_t features, bool msix)
{
    unsigned queues = vg_get(h, d, VG_NUM_QUEUES, 2);

    vg_put(h, d, VG_STATUS, 0, 1);
    vg_put(h, d, VG_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, 1);
    if (!features)
        features = vg_offered(h, d) & ~VIRTIO_F_EVENT_IDX;
    for (unsigned n = 0; n < 2; n++) {
        vg_put(h, d, VG_DRIVER_SELECT, n, 4);
        vg_put(h, d, VG_DRIVER_FEATURE, (uint32_t)(features >> 32 * n), 4);
    }
    vg_put(h, d, VG_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK, 1);
    if (msix)
        set_vectors(h, d, queues);
    for (unsigned q = 0; q < queues; q++)
        vg_queue(h, d, q);
    vg_put(h, d, VG_STATUS, VG_RUNNING, 1);
}

void vg_describe(struct harness *h, enum vg_device d, unsigned queue, unsigned index,
                 uint64_t address, uint32_t bytes, uint16_t flags, uint16_t next)
{
    uint8_t *e = vg_ram(h, VG_DESC(d, queue) + index * 16);

    le64_put(e, address);
    le32_put(e + 8, bytes);
    le16_put(e + 12, flags);
    le16_put(e + 14, next);
}

void vg_offer(struct harness *h, enum vg_device d, unsigned queue, uint16_t head)
{
    uint8_t *ring = vg_ram(h, VG_AVAIL(d, queue));
    uint16_t index = le16_get(ring + 2);

    le16_put(ring + 4 + index % VG_SIZE * 2, head);
    le16_put(ring + 2, index + 1);
}

void vg_ring(struct harness *h, enum vg_device d, unsigned queue)
{
    vg_put(h, d, VG_DOORBELLS + queue * 4, queue, 2);
}

uint16_t vg_used(struct harness *h, enum vg_device d, unsigned queue)
{
    return le16_get(vg_ram(h, VG_USED(d, queue) + 2));
}

uint32_t vg_used_head(struct harness *h, enum vg_device d, unsigned queue, unsigned n)
{
    return le32_get(vg_ram(h, VG_USED(d, queue) + 4 + n % VG_SIZE * 8));
}

uint32_t vg_used_bytes(struct harness *h, enum vg_device d, unsigned queue, unsigned n)
{
    return le32_get(vg_ram(h, VG_USED(d, queue) + 8 + n % VG_SIZE * 8));
}

size_t vg_type(struct harness *h, const void *data, size_t bytes)
{
    const struct char_frontend *front = &vg_world(h)->chars.front;
    size_t room;

    vm_lock(h->vm);
    room = front->room(front->ctx);
    bytes = MIN(bytes, room);
    if (bytes)
        front->receive(front->ctx, data, bytes);
    vm_unlock(h->vm);
    return bytes;
}
