/*
 * The virtio memory balloon (virtio 1.2, section 5.5): the guest gives memory
 * back to the host, as much as it is asked for, and reports pages that are free.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_VIRTIO_VIRTIO_BALLOON_H
#define DEV_VIRTIO_VIRTIO_BALLOON_H

#include "dev/pci/pci.h"

struct virtio_balloon;

struct virtio_balloon_config {
    const char *name;           /* of the instance, unique in the machine */
    uint64_t target_bytes;      /* what the guest is asked for from the start */
    uint64_t stats_interval_ns; /* how often it is asked for statistics; 0: never */
    struct virtio_balloon **out; /* where the device is told; or NULL */
};

/* config: struct virtio_balloon_config. For pc_add_card. */
int virtio_balloon_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                          struct error *err);

/* Asks the guest to give that much, or to take back what is more. */
void virtio_balloon_set_target(struct virtio_balloon *b, uint64_t bytes);

struct virtio_balloon_status {
    uint64_t target_bytes, actual_bytes;
    uint64_t inflated_bytes, reported_bytes; /* given back to the host, in all */
    /* The guest's last statistics; UINT64_MAX: it has not said. */
    uint64_t free_bytes, total_bytes, available_bytes, cache_bytes;
    uint64_t major_faults, minor_faults, swap_in_bytes, swap_out_bytes;
};

void virtio_balloon_status(const struct virtio_balloon *b, struct virtio_balloon_status *status);

#endif
