/*
 * The AHCI adapter as a function on the bus: configuration space, generic host
 * control registers, interrupts, reset, saved state. Interface: ahci.h.
 *
 * The adapter does not answer to itself: an access to its registers that its
 * own DMA makes (a table or buffer placed over them) reads as ones and writes
 * nothing, as on a bus where it is the master.
 */
#include "dev/storage/ahci.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/storage/ahci_internal.h"

#define AHCI_VERSION 0x00010301 /* 1.3.1 */
#define CD_BLOCK_BYTES 2048

/* ICH9 datasheet, 15.1: the registers that software looks at. */
enum sata_config {
    SATA_MAP = 0x90,
    SATA_MAP_AHCI = 0x40,
    SATA_PORT_CONTROL = 0x92, /* PCS: ports enabled, ports present */
    SATA_PORTS = (1 << AHCI_PORTS) - 1,
    SATA_PRESENT_SHIFT = 8,
    SATA_CAPABILITY_POWER = 0x70,
    SATA_CAPABILITY_MSI = 0x80,
    SATA_CAPABILITY_AT = 0xA8,
    SATA_CAPABILITY = 0x12, /* index/data pair: BAR 4, offset 10H */
    SATA_CAPABILITY_BYTES = 8,
};

enum index_pair {
    IDP_BAR = 4,
    IDP_BYTES = 32,
    IDP_INDEX = 0x10,
    IDP_DATA = 0x14,
    IDP_INDEX_MASK = AHCI_REGISTER_BYTES - 4,
};

/* ---- interrupts ---- */

/*
 * IS holds which ports ask, as a latch of levels (10.7.1.2): what still asks
 * is there again as soon as it is cleared. The wire follows IS; a message is
 * sent when IS gains a bit, or keeps one that software has tried to clear.
 */
static void drive(struct ahci *h, bool again)
{
    bool level = h->ghc & GHC_INTERRUPTS && h->is;

    if (level == h->line && !again)
        return;
    h->line = level;
    pci_intx_set(&h->pci, level);
    if (level)
        pci_msi_raise(&h->pci, 0);
}

static void latch(struct ahci *h)
{
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        if (ahci_port_interrupts(&h->port[n]) & h->port[n].ie)
            h->is |= 1u << n;
}

void ahci_update_interrupt(struct ahci *h)
{
    uint32_t before = h->is;

    latch(h);
    drive(h, h->is != before);
}

static void write_interrupts(struct ahci *h, uint32_t value)
{
    h->is &= ~value;
    latch(h);
    drive(h, true);
}

/* ---- registers ---- */

static void adapter_reset(struct ahci *h)
{
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        ahci_port_reset(&h->port[n]);
    h->ghc = GHC_AHCI;
    h->is = 0;
    drive(h, false);
}

static uint32_t capabilities(const struct ahci *h)
{
    return (AHCI_PORTS - 1) | (AHCI_SLOTS - 1) << CAP_SLOTS_SHIFT | CAP_PARTIAL | CAP_SLUMBER |
           CAP_PIO_BLOCKS | CAP_AHCI_ONLY | CAP_GENERATION_3 | CAP_CLO | CAP_NCQ | CAP_64BIT |
           (h->spin_up ? CAP_STAGGERED_SPIN_UP : 0);
}

static uint32_t register_read(struct ahci *h, unsigned offset)
{
    unsigned port = (offset - AHCI_PORT_BASE) / AHCI_PORT_BYTES;

    if (offset >= AHCI_PORT_BASE)
        return port < AHCI_PORTS ? ahci_port_read(&h->port[port], offset % AHCI_PORT_BYTES) : 0;
    switch (offset) {
    case AHCI_CAP:
        return capabilities(h);
    case AHCI_GHC:
        return h->ghc;
    case AHCI_IS:
        return h->is;
    case AHCI_PI:
        return SATA_PORTS;
    case AHCI_VS:
        return AHCI_VERSION;
    default:
        return 0;
    }
}

static void register_write(struct ahci *h, unsigned offset, uint32_t value)
{
    unsigned port = (offset - AHCI_PORT_BASE) / AHCI_PORT_BYTES;

    if (offset >= AHCI_PORT_BASE) {
        if (port < AHCI_PORTS)
            ahci_port_write(&h->port[port], offset % AHCI_PORT_BYTES, value);
        return;
    }
    switch (offset) {
    case AHCI_CAP:
        /* Once, by firmware: devices spin up when they are told to. */
        if (!h->cap_written)
            h->spin_up = value & CAP_STAGGERED_SPIN_UP;
        h->cap_written = true;
        break;
    case AHCI_GHC:
        if (value & GHC_RESET) {
            adapter_reset(h);
            break;
        }
        h->ghc = GHC_AHCI | (value & GHC_INTERRUPTS);
        drive(h, true);
        break;
    case AHCI_IS:
        write_interrupts(h, value);
        break;
    default:
        break;
    }
}

static uint64_t abar_read(void *ctx, uint64_t offset, unsigned size)
{
    struct ahci *h = ctx;

    return h->dma.depth ? UINT32_MAX : register_read(h, (unsigned)offset);
}

static void abar_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct ahci *h = ctx;

    if (!h->dma.depth)
        register_write(h, (unsigned)offset, (uint32_t)value);
}

/* The registers through two ports, for real-mode software. */
static uint64_t idp_read(void *ctx, uint64_t offset, unsigned size)
{
    struct ahci *h = ctx;

    if (offset == IDP_INDEX)
        return h->index;
    return offset == IDP_DATA ? abar_read(h, h->index, size) : 0;
}

static void idp_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct ahci *h = ctx;

    if (offset == IDP_INDEX)
        h->index = value & IDP_INDEX_MASK;
    else if (offset == IDP_DATA)
        abar_write(h, h->index, value, size);
}

static const struct region_ops abar_ops = {abar_read, abar_write, 4, 4};
static const struct region_ops idp_ops = {idp_read, idp_write, 4, 4};

/* Bus mastering may be on now: what waits for it runs. */
static void config_written(void *ctx, unsigned offset, unsigned size)
{
    struct ahci *h = ctx;

    for (unsigned n = 0; n < AHCI_PORTS && !h->dma.depth; n++)
        ahci_port_run(&h->port[n]);
}

/* ---- life ---- */

static void ahci_reset(void *self)
{
    struct ahci *h = self;

    /* First what touches guest memory. */
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        ahci_port_abort(&h->port[n]);
    pci_function_reset(&h->pci);
    h->spin_up = h->cap_written = false;
    h->index = 0;
    h->line = false;
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        h->port[n].clb = h->port[n].fb = 0;
    adapter_reset(h);
}

/* By the guest, through configuration space; not by the adapter's own DMA. */
static void function_reset(void *ctx)
{
    struct ahci *h = ctx;

    if (!h->dma.depth)
        ahci_reset(h);
}

static void ahci_destroy(void *self)
{
    struct ahci *h = self;

    for (unsigned n = 0; n < AHCI_PORTS; n++)
        ahci_slots_destroy(&h->port[n]);
    pci_function_destroy(&h->pci);
    free(h);
}

/* ---- state ---- */

static const struct state_field port_fields[] = {
    STATE_STRUCT(struct ahci_port, device, &ata_device_state),
    STATE_INT(struct ahci_port, clb),
    STATE_INT(struct ahci_port, fb),
    STATE_INT(struct ahci_port, is),
    STATE_INT(struct ahci_port, ie),
    STATE_INT(struct ahci_port, cmd),
    STATE_INT(struct ahci_port, sctl),
    STATE_INT(struct ahci_port, serr),
    STATE_INT(struct ahci_port, sact),
    STATE_INT(struct ahci_port, ci),
    STATE_INT(struct ahci_port, sig),
    STATE_INT(struct ahci_port, ssts),
    STATE_INT(struct ahci_port, tfd_status),
    STATE_INT(struct ahci_port, tfd_error),
    STATE_INT(struct ahci_port, fetched),
    STATE_INT(struct ahci_port, slot_now),
    STATE_INT(struct ahci_port, halted),
    STATE_INT(struct ahci_port, soft_reset),
    STATE_INT(struct ahci_port, has_signature),
    STATE_INT(struct ahci_port, next_order),
    STATE_BYTES(struct ahci_port, state),
    STATE_END,
};

static const struct state_table port_state = {
    .name = "ahci-port",
    .version = 1,
    .fields = port_fields,
};

static int port_check(const struct ahci_port *p)
{
    if (p->slot_now >= AHCI_SLOTS || p->clb & (KiB - 1) || p->fb & 0xFF || p->ie & ~IE_MASK ||
        p->cmd & ~(uint32_t)(CMD_KEPT | CMD_SUD) || p->sctl & ~(uint32_t)SCTL_MASK ||
        (p->device.kind == ATA_ABSENT && (p->ssts & SCTL_DET) == LINK_UP))
        return -EINVAL;
    return ata_device_check(&p->device);
}

static int ahci_after_load(void *self, unsigned version)
{
    struct ahci *h = self;
    int ret = 0;

    pci_function_restored(&h->pci);
    h->ghc = GHC_AHCI | (h->ghc & GHC_INTERRUPTS);
    h->is &= SATA_PORTS;
    h->index &= IDP_INDEX_MASK;
    for (unsigned n = 0; n < AHCI_PORTS && !ret; n++)
        ret = port_check(&h->port[n]);
    for (unsigned n = 0; n < AHCI_PORTS && !ret; n++)
        ret = ahci_port_restored(&h->port[n]);
    return ret;
}

static const struct state_field ahci_fields[] = {
    STATE_STRUCT(struct ahci, pci, &pci_function_state),
    STATE_INT(struct ahci, ghc),
    STATE_INT(struct ahci, is),
    STATE_INT(struct ahci, spin_up),
    STATE_INT(struct ahci, cap_written),
    STATE_INT(struct ahci, index),
    STATE_INT(struct ahci, line),
    STATE_STRUCTS(struct ahci, port, &port_state),
    STATE_END,
};

static const struct state_table ahci_state = {
    .name = "ahci",
    .version = 1,
    .fields = ahci_fields,
    .after_load = ahci_after_load,
};

static const struct dev_type ahci_type = {
    .name = "ahci",
    .reset = ahci_reset,
    .destroy = ahci_destroy,
    .state = &ahci_state,
};

/* ---- creation ---- */

static int attach(struct ahci_port *p, enum ata_kind kind, struct disk *disk, struct error *err)
{
    uint64_t unit = kind == ATA_CDROM ? CD_BLOCK_BYTES : ATA_SECTOR;

    p->device.kind = kind;
    p->device.disk = disk;
    if (disk)
        p->device.sectors = disk_bytes(disk) / unit;
    if (kind == ATA_DISK && !disk)
        return error_set(err, -EINVAL, "a disk of the AHCI adapter has no image");
    if (disk && !p->device.sectors)
        return error_set(err, -EINVAL, "a CD image is shorter than a block of %d bytes",
                         CD_BLOCK_BYTES);
    return 0;
}

static int add_registers(struct ahci *h, struct error *err)
{
    unsigned capability;
    int ret =
        pci_bar_add(&h->pci, IDP_BAR, PCI_BAR_IO, false, "ahci-index", IDP_BYTES, &idp_ops, h, err);

    if (!ret)
        ret = pci_bar_add(&h->pci, AHCI_ABAR, PCI_BAR_MEMORY32, false, "ahci", AHCI_REGISTER_BYTES,
                          &abar_ops, h, err);
    if (ret)
        return ret;
    /* Where the ICH9 has them. */
    h->pci.next_capability = SATA_CAPABILITY_POWER;
    ret = pci_power_add(&h->pci, err);
    h->pci.next_capability = SATA_CAPABILITY_MSI;
    if (!ret)
        ret = pci_msi_add(&h->pci, 1, false, err);
    if (ret)
        return ret;
    h->pci.next_capability = SATA_CAPABILITY_AT;
    capability = pci_capability_add(&h->pci, SATA_CAPABILITY, SATA_CAPABILITY_BYTES);
    if (!capability)
        return error_set(err, -ENOSPC, "no room for a capability of the AHCI adapter");
    pci_register_define(&h->pci, capability + 2, 2, 0x0010, 0, 0); /* revision 1.0 */
    /* The pair is in BAR 4 (which the field calls 8) at doubleword 4. */
    pci_register_define(&h->pci, capability + 4, 4, 8 | (IDP_INDEX / 4) << 4, 0, 0);
    return pci_flr_add(&h->pci, err);
}

struct ahci *ahci_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                         const struct ahci_config *config, struct error *err)
{
    const struct pci_identity id = {
        .vendor = 0x8086,
        .device = 0x2922,
        .subsystem_vendor = 0x8086,
        .subsystem = 0x2922,
        .class_code = 0x010601,
        .revision = 2,
        .interrupt_pin = 2, /* INTB#, as D31IP has it after reset */
    };
    struct ahci *h = calloc(1, sizeof *h);
    uint16_t ports = SATA_PORTS;

    if (!h) {
        error_set(err, -ENOMEM, "out of memory for the AHCI adapter");
        return NULL;
    }
    h->vm = vm;
    h->dma = (struct dma_master){.vm = vm, .pci = &h->pci};
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        struct ahci_port *p = &h->port[n];

        p->hba = h;
        p->number = n;
        ahci_slots_init(p);
        if (attach(p, config->port[n].kind, config->port[n].disk, err))
            goto fail;
        if (p->device.kind != ATA_ABSENT)
            ports |= (uint16_t)(1 << (SATA_PRESENT_SHIFT + n));
    }
    if (pci_function_init(&h->pci, bus, devfn, &id, err))
        goto fail;
    h->pci.config_written = config_written;
    h->pci.reset = function_reset;
    h->pci.ctx = h;
    pci_register_define(&h->pci, SATA_MAP, 2, SATA_MAP_AHCI, 0, 0);
    pci_register_define(&h->pci, SATA_PORT_CONTROL, 2, ports, SATA_PORTS, 0);
    if (add_registers(h, err)) {
        pci_function_destroy(&h->pci);
        goto fail;
    }
    ahci_reset(h);
    vm_add_device(vm, &ahci_type, "ahci", h);
    return h;
fail:
    free(h);
    return NULL;
}
