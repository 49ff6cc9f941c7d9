/*
 * The memory controller hub of a Q35 (Intel 3 Series Express Chipset
 * datasheet, chapter 5: D0:F0): guest RAM below 4 GiB and above it, the
 * programmable attribute maps, ECAM.
 *
 * It maps all RAM itself, because it decides what is seen from A0000H to
 * FFFFFH. The board maps the firmware below 4 GiB; its alias at E0000H is
 * mapped here.
 */
#ifndef DEV_PCI_Q35_MCH_H
#define DEV_PCI_Q35_MCH_H

#include "dev/pci/pci.h"

#define Q35_LOW_RAM_END 0x80000000ull /* RAM beyond it starts at 4 GiB */
#define Q35_HIGH_RAM_BASE 0x100000000ull

struct q35_mch_config {
    struct ram_block *ram;  /* all of it, at least 1 MiB */
    struct ram_block *bios; /* NULL: none; its last 128 KiB appear at E0000H */
};

struct q35_mch;

struct q35_mch *q35_mch_create(struct vm *vm, struct pci_bus *bus,
                               const struct q35_mch_config *config, struct error *err);

#endif
