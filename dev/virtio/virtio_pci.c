/*
 * The modern PCI transport (virtio 1.2, section 4.1): one BAR with four pages of
 * registers, the capabilities that say where they are, MSI-X in a BAR of its own.
 *
 *     BAR 0   0000H  common configuration      4.1.4.3
 *             1000H  interrupt status          4.1.4.5
 *             2000H  the device's configuration
 *             3000H  doorbells, 4 bytes a queue 4.1.4.4
 *     BAR 1   MSI-X: a vector a queue, and one for the configuration
 *
 * The BAR is below 4 GiB, where firmware reaches it. Fields are accessed with
 * their own width, 64-bit ones in halves (4.1.3.1); anything else reads as zero
 * and writes nothing.
 */
#include <errno.h>

#include "dev/virtio/virtio.h"

enum layout {
    REGISTER_BAR = 0,
    MSIX_BAR = 1,
    PAGE_BYTES = 0x1000,
    COMMON_PAGE = 0,
    ISR_PAGE = 1,
    DEVICE_PAGE = 2,
    NOTIFY_PAGE = 3,
    BAR_BYTES = 4 * PAGE_BYTES,
    NOTIFY_MULTIPLIER = 4,
};

enum common { /* struct virtio_pci_common_cfg */
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0C,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    DEVICE_STATUS = 0x14,
    CONFIG_GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1A,
    QUEUE_ENABLE = 0x1C,
    QUEUE_NOTIFY_OFF = 0x1E,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    COMMON_BYTES = 0x38,
};

enum capability { /* struct virtio_pci_cap, 4.1.4 */
    CAP_VENDOR = 0x09,
    CAP_LENGTH = 2,
    CAP_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_BYTES_AT = 12,
    CAP_BYTES = 16,
    CAP_MULTIPLIER = 16, /* of the doorbells' capability */
    CAP_NOTIFY_BYTES = 20,
    CAP_DATA = 16, /* of the window's */
    CAP_WINDOW_BYTES = 20,
    TYPE_COMMON = 1,
    TYPE_NOTIFY = 2,
    TYPE_ISR = 3,
    TYPE_DEVICE = 4,
    TYPE_WINDOW = 5,
};

/* ---- common configuration ---- */

/* What the fields of the queue that is selected speak about; NULL: there is none. */
static struct virtio_queue *selected(struct virtio_device *d)
{
    return d->queue_select < d->queue_count ? &d->queue[d->queue_select] : NULL;
}

static uint32_t half(uint64_t value, unsigned which)
{
    return which < 2 ? (uint32_t)(value >> 32 * which) : 0;
}

static uint32_t queue_read(struct virtio_device *d, unsigned offset, unsigned size)
{
    const struct virtio_queue *q = selected(d);

    if (!q)
        return offset == QUEUE_VECTOR && size == 2 ? VIRTIO_NO_VECTOR : 0;
    if (size == 4) {
        if (offset >= QUEUE_DEVICE)
            return half(q->used, (offset - QUEUE_DEVICE) / 4);
        if (offset >= QUEUE_DRIVER)
            return half(q->driver, (offset - QUEUE_DRIVER) / 4);
        return offset >= QUEUE_DESC ? half(q->descriptors, (offset - QUEUE_DESC) / 4) : 0;
    }
    if (size != 2)
        return 0;
    switch (offset) {
    case QUEUE_SIZE:
        return q->size;
    case QUEUE_VECTOR:
        return q->vector;
    case QUEUE_ENABLE:
        return q->enabled;
    case QUEUE_NOTIFY_OFF:
        return q->number;
    default:
        return 0;
    }
}

static uint32_t common_read(struct virtio_device *d, unsigned offset, unsigned size)
{
    /* Drivers read as wide as a field is (4.1.3.1), but iPXE reads two bytes of the
     * features and lives on what is in them. */
    if (size < 4 && (offset < CONFIG_VECTOR || offset >= QUEUE_DESC))
        return (uint32_t)zext(common_read(d, offset & ~3u, 4) >> offset % 4 * 8, size);
    /* Field and width: no two fields share an offset. */
    switch (offset << 4 | size) {
    case DEVICE_FEATURE_SELECT << 4 | 4:
        return d->device_select;
    case DEVICE_FEATURE << 4 | 4:
        return half(d->offered, d->device_select);
    case DRIVER_FEATURE_SELECT << 4 | 4:
        return d->driver_select;
    case DRIVER_FEATURE << 4 | 4:
        return half(d->features, d->driver_select);
    case CONFIG_VECTOR << 4 | 2:
        return d->config_vector;
    case NUM_QUEUES << 4 | 2:
        return d->queue_count;
    case DEVICE_STATUS << 4 | 1:
        return d->status;
    case CONFIG_GENERATION << 4 | 1:
        return d->generation;
    case QUEUE_SELECT << 4 | 2:
        return d->queue_select;
    default:
        return offset >= QUEUE_SIZE && offset < COMMON_BYTES ? queue_read(d, offset, size) : 0;
    }
}

static void put_half(uint64_t *field, unsigned which, uint32_t value)
{
    *field = which ? (*field & UINT32_MAX) | (uint64_t)value << 32
                   : (*field & ~(uint64_t)UINT32_MAX) | value;
}

static uint16_t vector_of(const struct virtio_device *d, uint32_t value)
{
    return value < d->msix.vectors ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

static void queue_write(struct virtio_device *d, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_queue *q = selected(d);

    if (!q)
        return;
    if (size == 2 && offset == QUEUE_VECTOR)
        q->vector = vector_of(d, value);
    if (q->enabled)
        return; /* what describes it stays until the reset */
    if (size == 4 && offset >= QUEUE_DESC) {
        uint64_t *field = offset >= QUEUE_DEVICE   ? &q->used
                          : offset >= QUEUE_DRIVER ? &q->driver
                                                   : &q->descriptors;

        put_half(field, offset / 4 % 2, value);
    } else if (size == 2 && offset == QUEUE_SIZE) {
        /* A power of two, no more than was offered (4.1.4.3.2). */
        if (value && value <= q->size_max && !(value & (value - 1)))
            q->size = (uint16_t)value;
    } else if (size == 2 && offset == QUEUE_ENABLE && value == 1) {
        q->enabled = true;
    }
}

static void common_write(struct virtio_device *d, unsigned offset, unsigned size, uint32_t value)
{
    switch (offset << 4 | size) {
    case DEVICE_FEATURE_SELECT << 4 | 4:
        d->device_select = value;
        break;
    case DRIVER_FEATURE_SELECT << 4 | 4:
        d->driver_select = value;
        break;
    case DRIVER_FEATURE << 4 | 4:
        if (!(d->status & VIRTIO_FEATURES_OK) && d->driver_select < 2)
            put_half(&d->features, d->driver_select, value);
        break;
    case CONFIG_VECTOR << 4 | 2:
        d->config_vector = vector_of(d, value);
        break;
    case DEVICE_STATUS << 4 | 1:
        virtio_status_write(d, (uint8_t)value);
        break;
    case QUEUE_SELECT << 4 | 2:
        d->queue_select = (uint16_t)value;
        break;
    default:
        if (offset >= QUEUE_SIZE && offset < COMMON_BYTES)
            queue_write(d, offset, size, value);
        break;
    }
}

/* ---- the other pages ---- */

static uint32_t isr_read(struct virtio_device *d)
{
    uint8_t isr = d->isr;

    d->isr = 0;
    pci_intx_set(&d->pci, false);
    return isr;
}

static uint32_t config_read(struct virtio_device *d, unsigned offset, unsigned size)
{
    uint8_t config[VIRTIO_CONFIG_BYTES] = {0};

    if (offset >= d->config_bytes || size > d->config_bytes - offset)
        return 0;
    if (d->type->config_read)
        d->type->config_read(d, config);
    return (uint32_t)le_get(config + offset, size);
}

static uint64_t bar_read(void *ctx, uint64_t offset, unsigned size)
{
    struct virtio_device *d = ctx;
    unsigned in_page = offset % PAGE_BYTES;

    switch (offset / PAGE_BYTES) {
    case COMMON_PAGE:
        return common_read(d, in_page, size);
    case ISR_PAGE:
        return in_page == 0 ? isr_read(d) : 0;
    case DEVICE_PAGE:
        return config_read(d, in_page, size);
    default:
        return 0;
    }
}

static void bar_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_device *d = ctx;
    unsigned in_page = offset % PAGE_BYTES;

    switch (offset / PAGE_BYTES) {
    case NOTIFY_PAGE:
        if (in_page % NOTIFY_MULTIPLIER == 0)
            virtio_ring(d, in_page / NOTIFY_MULTIPLIER);
        break;
    case COMMON_PAGE:
        common_write(d, in_page, size, (uint32_t)value);
        break;
    case DEVICE_PAGE:
        if (in_page < d->config_bytes && size <= d->config_bytes - in_page &&
            d->type->config_write)
            d->type->config_write(d, in_page, size, (uint32_t)value);
        break;
    default:
        break;
    }
}

static const struct region_ops bar_ops = {bar_read, bar_write, 1, 4};

/* ---- the window in configuration space (4.1.4.9) ---- */

/* Where it points to now; false: nowhere. */
static bool window_target(const struct virtio_device *d, uint32_t *offset, uint32_t *bytes)
{
    const uint8_t *cap = d->pci.config + d->window;

    *offset = le32_get(cap + CAP_OFFSET);
    *bytes = le32_get(cap + CAP_BYTES_AT);
    return cap[CAP_BAR] == REGISTER_BAR && (*bytes == 1 || *bytes == 2 || *bytes == 4) &&
           *offset % *bytes == 0 && *offset < BAR_BYTES;
}

static bool touches_window(const struct virtio_device *d, unsigned offset, unsigned size)
{
    unsigned data = d->window + CAP_DATA;

    return offset < data + 4 && data < offset + size;
}

static void config_reading(void *ctx, unsigned offset, unsigned size)
{
    struct virtio_device *d = ctx;
    uint32_t at, bytes;

    if (touches_window(d, offset, size) && window_target(d, &at, &bytes))
        le32_put(d->pci.config + d->window + CAP_DATA, (uint32_t)bar_read(d, at, bytes));
}

static void config_written(void *ctx, unsigned offset, unsigned size)
{
    struct virtio_device *d = ctx;
    uint32_t at, bytes;

    if (touches_window(d, offset, size) && window_target(d, &at, &bytes))
        bar_write(d, at, le_get(d->pci.config + d->window + CAP_DATA, bytes), bytes);
    virtio_look_again(d); /* it may master the bus now */
}

/* ---- capabilities ---- */

static int add_capability(struct virtio_device *d, uint8_t type, unsigned bytes, uint32_t offset,
                          uint32_t length, unsigned *at, struct error *err)
{
    struct pci_function *f = &d->pci;

    *at = pci_capability_add(f, CAP_VENDOR, bytes);
    if (!*at)
        return error_set(err, -ENOSPC, "%s: no room for a PCI capability", d->name);
    pci_register_define(f, *at + CAP_LENGTH, 1, bytes, 0, 0);
    pci_register_define(f, *at + CAP_TYPE, 1, type, 0, 0);
    pci_register_define(f, *at + CAP_BAR, 4, REGISTER_BAR, 0, 0);
    pci_register_define(f, *at + CAP_OFFSET, 4, offset, 0, 0);
    pci_register_define(f, *at + CAP_BYTES_AT, 4, length, 0, 0);
    return 0;
}

static int add_capabilities(struct virtio_device *d, struct error *err)
{
    struct pci_function *f = &d->pci;
    unsigned at;

    if (add_capability(d, TYPE_COMMON, CAP_BYTES, COMMON_PAGE * PAGE_BYTES, COMMON_BYTES, &at,
                       err) ||
        add_capability(d, TYPE_ISR, CAP_BYTES, ISR_PAGE * PAGE_BYTES, 1, &at, err))
        return -ENOSPC;
    if (d->config_bytes && add_capability(d, TYPE_DEVICE, CAP_BYTES, DEVICE_PAGE * PAGE_BYTES,
                                          (uint32_t)align_up(d->config_bytes, 4), &at, err))
        return -ENOSPC;
    if (add_capability(d, TYPE_NOTIFY, CAP_NOTIFY_BYTES, NOTIFY_PAGE * PAGE_BYTES,
                       d->queue_count * NOTIFY_MULTIPLIER, &at, err))
        return -ENOSPC;
    pci_register_define(f, at + CAP_MULTIPLIER, 4, NOTIFY_MULTIPLIER, 0, 0);
    if (add_capability(d, TYPE_WINDOW, CAP_WINDOW_BYTES, 0, 0, &d->window, err))
        return -ENOSPC;
    pci_register_define(f, d->window + CAP_BAR, 1, 0, 0xFF, 0);
    pci_register_define(f, d->window + CAP_OFFSET, 4, 0, 0xFFFFFFFF, 0);
    pci_register_define(f, d->window + CAP_BYTES_AT, 4, 0, 0xFFFFFFFF, 0);
    pci_register_define(f, d->window + CAP_DATA, 4, 0, 0xFFFFFFFF, 0);
    return 0;
}

int virtio_pci_add(struct virtio_device *d, struct error *err)
{
    struct pci_function *f = &d->pci;
    int ret;

    ret = pci_bar_add(f, REGISTER_BAR, PCI_BAR_MEMORY32, false, d->name, BAR_BYTES, &bar_ops, d,
                      err);
    if (!ret)
        ret = pci_msix_add(f, &d->msix, MSIX_BAR, d->queue_count + 1, err);
    if (!ret)
        ret = add_capabilities(d, err);
    if (!ret)
        ret = pci_power_add(f, err);
    if (!ret)
        ret = pci_flr_add(f, err);
    if (ret)
        return ret;
    f->config_reading = config_reading;
    f->config_written = config_written;
    return 0;
}
