/*
 * A PCI function of the tests' own, with everything the core offers, and
 * configuration accesses by ports. For test_pci_msi.c, test_pci_bridge.c and
 * the fuzzer of configuration space.
 */
#ifndef TESTS_DEV_PCI_TOY_H
#define TESTS_DEV_PCI_TOY_H

#include <stdlib.h>

#include "dev/pci/pci.h"
#include "dev/pci/pci_bridge.h"

struct toy {
    struct pci_function pci;
    struct pci_msix msix;
    uint32_t reg;
    unsigned resets;   /* asked for by the guest */
    struct region ram; /* for a test that wants some */
};

enum { TOY_MSI = 1, TOY_MSIX = 2, TOY_EXPRESS = 4, TOY_FLR = 8, TOY_ROM = 16, TOY_MASKABLE = 32 };

static uint64_t toy_read(void *ctx, uint64_t offset, unsigned size)
{
    return zext(((struct toy *)ctx)->reg + (offset & ~3ull), size);
}

static void toy_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    ((struct toy *)ctx)->reg = (uint32_t)value;
}

static const struct region_ops toy_ops = {toy_read, toy_write, 4, 4};

static inline void toy_reset(void *self)
{
    struct toy *t = self;

    t->reg = 0;
    pci_function_reset(&t->pci);
}

static inline void toy_reset_by_guest(void *self)
{
    ((struct toy *)self)->resets++;
    toy_reset(self);
}

static inline void toy_destroy(void *self)
{
    struct toy *t = self;

    if (t->ram.as)
        region_remove(&t->ram);
    pci_function_destroy(&t->pci);
    free(t);
}

static inline int toy_after_load(void *self, unsigned version)
{
    pci_function_restored(&((struct toy *)self)->pci);
    return 0;
}

static const struct state_field toy_fields[] = {
    STATE_STRUCT(struct toy, pci, &pci_function_state),
    STATE_STRUCT(struct toy, msix, &pci_msix_state),
    STATE_INT(struct toy, reg),
    STATE_END,
};
static const struct state_table toy_state = {
    .name = "toy", .version = 1, .fields = toy_fields, .after_load = toy_after_load};
static const struct dev_type toy_type = {"toy", toy_reset, toy_destroy, &toy_state};

/* BAR 0: 256 ports, BAR 1: 4 KiB, BAR 2: 1 MiB of 64 bits; MSI-X in BAR 4. NULL:
 * the core refused. */
static inline struct toy *toy_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                                     unsigned what, const char *name)
{
    const struct pci_identity id = {
        .vendor = 0x1234,
        .device = 0x5678,
        .class_code = 0xFF0000,
        .interrupt_pin = 1,
        .multifunction = true,
        .express = what & TOY_EXPRESS,
    };
    struct toy *t = calloc(1, sizeof *t);
    struct ram_block *rom;

    if (!t || pci_function_init(&t->pci, bus, devfn, &id, NULL) < 0)
        goto fail;
    t->pci.reset = toy_reset_by_guest;
    t->pci.ctx = t;
    if (pci_bar_add(&t->pci, 0, PCI_BAR_IO, false, "io", 256, &toy_ops, t, NULL) < 0 ||
        pci_bar_add(&t->pci, 1, PCI_BAR_MEMORY32, false, "mem", 4 * KiB, &toy_ops, t, NULL) < 0 ||
        pci_bar_add(&t->pci, 2, PCI_BAR_MEMORY64, true, "mem64", MiB, &toy_ops, t, NULL) < 0 ||
        pci_power_add(&t->pci, NULL) < 0)
        goto fail;
    if ((what & TOY_MSI) && pci_msi_add(&t->pci, 4, what & TOY_MASKABLE, NULL) < 0)
        goto fail;
    if ((what & TOY_MSIX) && pci_msix_add(&t->pci, &t->msix, 4, 10, NULL) < 0)
        goto fail;
    if ((what & TOY_EXPRESS) && pci_express_add(&t->pci, PCI_EXPRESS_LEGACY_ENDPOINT, NULL) < 0)
        goto fail;
    if ((what & TOY_FLR) && pci_flr_add(&t->pci, NULL) < 0)
        goto fail;
    if (what & TOY_ROM) {
        rom = ram_block_create(vm, "toy-rom", 64 * KiB, RAM_ROM, NULL);
        if (!rom || pci_rom_add(&t->pci, "toy-rom", 64 * KiB, rom, NULL) < 0)
            goto fail;
        le32_put(rom->host, 0xAA55);
    }
    vm_add_device(vm, &toy_type, name, t);
    return t;

fail:
    if (t && t->pci.bus && pci_bus_function(bus, devfn) == &t->pci)
        pci_function_destroy(&t->pci);
    free(t);
    return NULL;
}

#endif
