/*
 * PCI-to-PCI bridges (PCI-to-PCI Bridge Architecture 1.2, chapter 3) and PCI
 * Express root ports (PCI Express Base 2.0, section 7.5.3): a function with a
 * type 1 header, and the bus behind it.
 *
 * What is behind a bridge is reached by the bus numbers that software wrote:
 * configuration accesses go down where secondary <= number <= subordinate.
 * Memory and I/O go down through its three windows while its command register
 * lets them; DMA and messages come up while it is a bus master. INTx pins are
 * swizzled on their way up: pin (device + pin) % 4 of the bridge.
 *
 * A BAR is decoded if all of it is within windows; one that straddles the edge
 * of a window is not decoded. Legacy ranges (VGA) are never behind a bridge.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_PCI_PCI_BRIDGE_H
#define DEV_PCI_PCI_BRIDGE_H

#include "dev/pci/pci.h"

/* Type 1 header (Bridge Architecture 1.2, figure 3-3). */
enum pci_bridge_register {
    PCI_PRIMARY_BUS = 0x18,
    PCI_SECONDARY_BUS = 0x19,
    PCI_SUBORDINATE_BUS = 0x1A,
    PCI_SECONDARY_LATENCY = 0x1B,
    PCI_IO_BASE = 0x1C,
    PCI_IO_LIMIT = 0x1D,
    PCI_SECONDARY_STATUS = 0x1E,
    PCI_MEMORY_BASE = 0x20,
    PCI_MEMORY_LIMIT = 0x22,
    PCI_PREFETCH_BASE = 0x24,
    PCI_PREFETCH_LIMIT = 0x26,
    PCI_PREFETCH_BASE_HIGH = 0x28,
    PCI_PREFETCH_LIMIT_HIGH = 0x2C,
    PCI_IO_BASE_HIGH = 0x30,
    PCI_IO_LIMIT_HIGH = 0x32,
    PCI_BRIDGE_ROM = 0x38,
    PCI_BRIDGE_CONTROL = 0x3E,
};

enum pci_bridge_control {
    PCI_BRIDGE_PARITY = 1 << 0,
    PCI_BRIDGE_SERR = 1 << 1,
    PCI_BRIDGE_ISA = 1 << 2, /* the last 768 bytes of each KiB of ports stay above */
    PCI_BRIDGE_VGA = 1 << 3,
    PCI_BRIDGE_VGA16 = 1 << 4,
    PCI_BRIDGE_RESET = 1 << 6, /* the secondary bus is held in reset */
};

/* A PCI Express root port, as the ICH9 has them at 1CH.0 to 1CH.5. number: 1 to
 * 6, in its capabilities. Returns the bus behind it, on which a device has the
 * number 0; the machine owns it. name is a literal. */
struct pci_bus *pcie_root_port_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                                      unsigned number, const char *name, struct error *err);
/* The bridge from PCI Express to conventional PCI that the ICH9 has at 1EH.0. It
 * decodes subtractively: its windows are for software only. */
struct pci_bus *pci_bridge_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                                  const char *name, struct error *err);

#endif
