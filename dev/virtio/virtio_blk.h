/*
 * The virtio block device (virtio 1.2, section 5.2): a disk with several queues.
 *
 * Threading: with the machine's lock held; the disk's threads read and write the
 * guest's buffers without it.
 */
#ifndef DEV_VIRTIO_VIRTIO_BLK_H
#define DEV_VIRTIO_VIRTIO_BLK_H

#include "backend/disk/disk.h"
#include "dev/pci/pci.h"

#define VIRTIO_BLK_QUEUES_MAX 4

struct virtio_blk_config {
    const char *name;  /* of the instance, unique in the machine */
    struct disk *disk; /* the caller's; destroyed before the vm */
    unsigned queues;   /* 1 to VIRTIO_BLK_QUEUES_MAX; as many as processors serve best */
};

/* config: struct virtio_blk_config. For pc_add_card. */
int virtio_blk_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                      struct error *err);

#endif
