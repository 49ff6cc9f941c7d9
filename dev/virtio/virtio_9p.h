/*
 * The virtio transport of 9P (virtio 1.2, section 5.8): a shared folder for the
 * guest.
 *
 * Threading: with the machine's lock held; the share's thread reads and writes the
 * guest's buffers without it.
 */
#ifndef DEV_VIRTIO_VIRTIO_9P_H
#define DEV_VIRTIO_VIRTIO_9P_H

#include "backend/share/share.h"
#include "dev/pci/pci.h"

struct virtio_9p_config {
    const char *name;    /* of the instance, unique in the machine */
    struct share *share; /* the caller's; closed before the vm */
};

/* config: struct virtio_9p_config. For pc_add_card. */
int virtio_9p_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                     struct error *err);

#endif
