/*
 * An NVM Express controller (NVM Express Base Specification 1.4c) with one
 * namespace: a disk with blocks of 512 bytes. A PCI Express function of its own,
 * with 64 pairs of I/O queues, MSI-X, MSI and the pin.
 *
 * A command's PRPs become the spans of a request to the disk back end, which
 * reads and writes guest memory on its own threads (dev/storage/transfer.h).
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_STORAGE_NVME_H
#define DEV_STORAGE_NVME_H

#include "dev/pci/pci.h"

struct disk;

struct nvme_config {
    /* Stays the caller's, and outlives the last request: it is drained or
     * destroyed before the machine is. */
    struct disk *disk;
};

struct nvme;

struct nvme *nvme_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                         const struct nvme_config *config, struct error *err);

#endif
