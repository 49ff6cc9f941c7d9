/*
 * Intel 82540EM, a gigabit Ethernet controller (PCI/PCI-X Family of Gigabit
 * Ethernet Controllers Software Developer's Manual, 317453): "the manual".
 *
 * Legacy and extended descriptors, checksums and TCP segmentation on the way
 * out, checksums and filters on the way in, VLAN tags, interrupt moderation,
 * EEPROM, PHY, statistics. Not here: TBI and flash, which it has not, flow
 * control on a wire that needs none, and waking up, which a machine without a
 * standby state cannot; their registers hold what is written.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_NET_E1000_H
#define DEV_NET_E1000_H

#include "backend/net/net.h"
#include "dev/pci/pci.h"

struct e1000_config {
    const char *name; /* a literal, unique in the machine */
    struct net *net;  /* the caller's: destroyed after the last run, before the vm */
    uint8_t mac[NET_MAC_BYTES];
    const void *rom; /* expansion ROM, or NULL; copied */
    uint64_t rom_bytes; /* up to 1 MiB */
};

/* For pc_add_card: config is a struct e1000_config. */
int e1000_card(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
               struct error *err);

#endif
