/*
 * The virtio entropy device (virtio 1.2, section 5.4): the host's randomness, or of
 * a deterministic machine its own.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_VIRTIO_VIRTIO_RNG_H
#define DEV_VIRTIO_VIRTIO_RNG_H

#include "dev/pci/pci.h"

struct virtio_rng_config {
    const char *name; /* of the instance, unique in the machine */
};

/* config: struct virtio_rng_config. For pc_add_card. */
int virtio_rng_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                      struct error *err);

#endif
