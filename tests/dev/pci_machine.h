/*
 * What a PCI device under test stands on: memory, a bus, the content of a disk.
 * Where an older machine's part is given (harness_reload), its content is taken
 * over.
 */
#ifndef TESTS_DEV_PCI_MACHINE_H
#define TESTS_DEV_PCI_MACHINE_H

#include "dev/pci/pci.h"
#include "tests/dev/disk_shim.h"
#include "tests/dev/harness.h"

struct machine_memory {
    struct ram_block *ram, *rom;
    struct region ram_region, rom_region;
};

/* RAM from 0 on; 64 KiB of ROM at `rom`, 0: none. */
void machine_add_memory(struct harness *h, struct machine_memory *m, uint64_t ram_bytes,
                        uint64_t rom, const struct machine_memory *old);
/* ECAM of 1 MiB. Pin n of every device is line n, unless `route` says otherwise
 * (struct pci_irq_router). */
struct pci_bus *machine_add_bus(struct harness *h, uint64_t ecam,
                                unsigned (*route)(void *ctx, uint8_t devfn, unsigned pin));
/* Random bytes, the same each time for that size. */
struct shim *machine_shim(uint64_t bytes, const struct shim *old);
/* For a dev_type: nothing is to do. */
void machine_no_reset(void *self);

#endif
