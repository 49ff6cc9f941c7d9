/*
 * A machine with an AHCI adapter, and a driver. Interface: ahci_guest.h.
 */
#include "tests/dev/ahci_guest.h"

#include <stdlib.h>

/* ---- the machine ---- */

/* Destroyed after the adapter: it was added before. */
static void world_destroy(void *self)
{
    struct ag_world *w = self;

    for (unsigned n = 0; n < 2; n++)
        disk_destroy(w->disk[n]);
    free(w);
}

static const struct dev_type world_type = {
    .name = "world", .reset = machine_no_reset, .destroy = world_destroy};

void ag_build(struct harness *h)
{
    static const uint64_t bytes[2] = {AG_DISK_BYTES, AG_CD_BYTES};
    struct ag_world *old = h->test, *w = calloc(1, sizeof *w);
    struct ahci_config config = {.port = {{ATA_DISK, NULL}, {ATA_CDROM, NULL}, {ATA_CDROM, NULL}}};
    struct error err = {.text = ""};

    assert_non_null(w);
    h->test = w;
    vm_add_device(h->vm, &world_type, "world", w);
    machine_add_memory(h, &w->memory, AG_RAM_BYTES, AG_ROM, old ? &old->memory : NULL);
    for (unsigned n = 0; n < 2; n++) {
        w->shim[n] = machine_shim(bytes[n], old ? old->shim[n] : NULL);
        w->disk[n] = disk_create(h->vm, &w->shim[n]->layer, "shim", NULL);
        assert_non_null(w->disk[n]);
        disk_set_serial(w->disk[n], n ? "CD" : "DISK");
        config.port[n].disk = w->disk[n];
    }
    h->dev[DEV_BUS] = machine_add_bus(h, AG_ECAM, NULL);
    h->dev[DEV_AHCI] = ahci_create(h->vm, h->dev[DEV_BUS], AG_DEVFN, &config, &err);
    if (!h->dev[DEV_AHCI])
        fail_msg("%s", err.text);
    pci_config_write(h->dev[DEV_BUS], 0, AG_DEVFN, PCI_BAR0 + 4 * AHCI_ABAR, AG_ABAR, 4);
    pci_config_write(h->dev[DEV_BUS], 0, AG_DEVFN, PCI_BAR0 + 4 * 4, AG_IDP, 4);
    pci_config_write(h->dev[DEV_BUS], 0, AG_DEVFN, PCI_COMMAND,
                     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
}

struct harness *ag_create(void)
{
    return harness_create(ag_build);
}

void ag_destroy(struct harness *h)
{
    harness_destroy(h);
}

struct ag_world *ag_world(struct harness *h)
{
    return h->test;
}

/* ---- the driver ---- */

static uint64_t register_at(unsigned port, unsigned offset)
{
    return AG_ABAR + AHCI_PORT_BASE + port * AHCI_PORT_BYTES + offset;
}

uint32_t ag_get(struct harness *h, unsigned port, unsigned offset)
{
    return (uint32_t)mm_in(h, register_at(port, offset), 4);
}

void ag_put(struct harness *h, unsigned port, unsigned offset, uint32_t value)
{
    mm_out(h, register_at(port, offset), value, 4);
}

uint8_t *ag_ram(struct harness *h, uint64_t address)
{
    assert_true(address < AG_RAM_BYTES);
    return ag_world(h)->memory.ram->host + address;
}

void ag_start_port(struct harness *h, unsigned port)
{
    mm_out(h, AG_ABAR + AHCI_GHC, GHC_AHCI | GHC_INTERRUPTS, 4);
    ag_put(h, port, PX_CLB, (uint32_t)AG_LIST(port));
    ag_put(h, port, PX_CLBU, 0);
    ag_put(h, port, PX_FB, (uint32_t)AG_FIS(port));
    ag_put(h, port, PX_FBU, 0);
    ag_put(h, port, PX_SERR, UINT32_MAX);
    ag_put(h, port, PX_IS, UINT32_MAX);
    ag_put(h, port, PX_IE, UINT32_MAX);
    ag_put(h, port, PX_CMD, CMD_FRE | CMD_SUD);
    ag_put(h, port, PX_CMD, CMD_FRE | CMD_SUD | CMD_ST);
}

void ag_stop_port(struct harness *h, unsigned port)
{
    ag_put(h, port, PX_CMD, CMD_FRE | CMD_SUD);
}

void ag_prepare(struct harness *h, unsigned port, unsigned slot, const struct ag_command *c)
{
    uint8_t *header = ag_ram(h, AG_LIST(port) + slot * HEADER_BYTES);
    uint8_t *table = ag_ram(h, AG_TABLE(port, slot));

    memset(header, 0, HEADER_BYTES);
    memset(table, 0, TABLE_PRDT);
    le32_put(header, FIS_H2D_DWORDS | (c->cdb ? HEADER_ATAPI : 0) | c->prds << HEADER_PRDTL_SHIFT);
    le64_put(header + 8, AG_TABLE(port, slot));
    table[0] = FIS_H2D;
    table[1] = FIS_COMMAND;
    table[2] = c->command;
    table[3] = (uint8_t)c->features;
    table[11] = (uint8_t)(c->features >> 8);
    table[7] = c->device ? c->device : 0x40;
    for (unsigned n = 0; n < 3; n++) {
        table[4 + n] = (uint8_t)(c->lba >> 8 * n);
        table[8 + n] = (uint8_t)(c->lba >> (24 + 8 * n));
    }
    le16_put(table + 12, c->count);
    if (c->cdb)
        memcpy(table + TABLE_ACMD, c->cdb, 16);
    for (unsigned n = 0; n < c->prds; n++) {
        uint8_t *prd = table + TABLE_PRDT + n * PRD_BYTES;

        le64_put(prd, c->prd[n].address);
        le32_put(prd + 8, 0);
        le32_put(prd + 12, (c->prd[n].bytes - 1) | (c->prd[n].interrupt ? PRD_INTERRUPT : 0));
    }
}

void ag_issue(struct harness *h, unsigned port, uint32_t slots)
{
    ag_put(h, port, PX_CI, slots);
}

uint32_t ag_run(struct harness *h, unsigned port, const struct ag_command *c)
{
    ag_put(h, port, PX_IS, UINT32_MAX);
    ag_prepare(h, port, 0, c);
    ag_issue(h, port, 1);
    harness_advance(h, NS_PER_SEC);
    return ag_get(h, port, PX_TFD);
}

uint32_t ag_packet(struct harness *h, const uint8_t *cdb, uint32_t bytes)
{
    struct ag_prd prd = {AG_BUFFER, bytes, false};
    struct ag_command c = {
        .command = 0xA0, .features = 1, .cdb = cdb, .prd = &prd, .prds = bytes ? 1 : 0};

    return ag_run(h, AG_CD, &c);
}
