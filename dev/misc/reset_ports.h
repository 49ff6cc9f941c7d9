/*
 * Ports that reset the machine: CF9H, reset control (ICH9 datasheet section
 * 13.7.5), and 92H, fast A20 and INIT (13.7.2).
 *
 * A hard reset is vm_request_reset. A soft reset (CF9H without SYS_RST, port
 * 92H bit 0) is INIT#, which keeps devices and memory: it pulses the line the
 * board gives, and is a hard reset when the board gives none (a machine
 * without firmware has nothing at the reset vector).
 *
 * Address line 20 is never masked. The bit at port 92H reads back as written.
 */
#ifndef DEV_MISC_RESET_PORTS_H
#define DEV_MISC_RESET_PORTS_H

#include "dev/pci/pci.h"

struct reset_ports;

/* Created by the LPC bridge. CF9H is decoded by the PCI bus, whose address
 * port it overlaps. */
struct reset_ports *reset_ports_create(struct vm *vm, struct pci_bus *bus,
                                       const struct irq_line *init, struct error *err);

#endif
