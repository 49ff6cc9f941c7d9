/*
 * The AHCI host adapter of the ICH9 (Serial ATA AHCI 1.3.1; ICH9 datasheet,
 * chapter 15: D31:F2), six ports with a disk or a CD drive each.
 *
 * Guest memory and images meet without a copy: a command's PRDT becomes the
 * spans of a request to the disk back end, which reads and writes them on its
 * own threads. What is not plain memory goes through a buffer and the bus.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_STORAGE_AHCI_H
#define DEV_STORAGE_AHCI_H

#include "dev/pci/pci.h"
#include "dev/storage/ata.h"

#define AHCI_PORTS 6
#define AHCI_ABAR 5 /* which BAR has the registers */

struct ahci_config {
    /* The disks stay the caller's, and outlive the last request: they are
     * drained or destroyed before the machine is. */
    struct {
        enum ata_kind kind;
        struct disk *disk;
    } port[AHCI_PORTS];
};

struct ahci;

/* -EINVAL: a CD image without a block, a disk without a sector. */
struct ahci *ahci_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                         const struct ahci_config *config, struct error *err);

#endif
