/*
 * The network card of virtio (virtio 1.2, section 5.1): a queue each way and one
 * for control; mergeable buffers, checksums and TCP segmentation both ways,
 * filters by address and VLAN.
 *
 * Threading: with the machine's lock held. Both data queues are served by the
 * network's thread (backend/net/net.h), control by the I/O thread.
 */
#ifndef DEV_VIRTIO_VIRTIO_NET_H
#define DEV_VIRTIO_VIRTIO_NET_H

#include "backend/net/net.h"
#include "dev/pci/pci.h"

struct virtio_net_config {
    const char *name; /* unique in the machine; copied */
    struct net *net;  /* the caller's: destroyed after the last run, before the vm */
    uint8_t mac[NET_MAC_BYTES];
    const void *rom; /* expansion ROM, or NULL; copied */
    uint64_t rom_bytes;
};

/* For pc_add_card: config is a struct virtio_net_config. */
int virtio_net_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                      struct error *err);

#endif
