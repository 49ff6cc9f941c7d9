/*
 * The virtio console (virtio 1.2, section 5.3): one port, hvc0 in Linux.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_VIRTIO_VIRTIO_CONSOLE_H
#define DEV_VIRTIO_VIRTIO_CONSOLE_H

#include "backend/char/char.h"
#include "dev/pci/pci.h"

struct virtio_console_config {
    const char *name;           /* of the instance, unique in the machine */
    struct char_backend *chars; /* the caller's; destroyed before the vm */
};

/* config: struct virtio_console_config. For pc_add_card. */
int virtio_console_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                          struct error *err);

#endif
