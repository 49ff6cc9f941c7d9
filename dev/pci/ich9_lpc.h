/*
 * The ICH9's LPC bridge (Intel I/O Controller Hub 9 datasheet, chapter 13:
 * D31:F0; chapter 10: chipset configuration registers): PIRQ and SCI routing,
 * where ACPI PM, GPIO and the RCRB are, and what the bridge contains: power
 * management with its TCO timer (dev/misc/acpi_pm.h) and the reset ports
 * (dev/misc/reset_ports.h). It becomes the bus' interrupt router.
 *
 * Its output to an 8259 input is the OR of the PIRQs and the SCI routed there;
 * where an ISA device drives the same input the board ORs again.
 */
#ifndef DEV_PCI_ICH9_LPC_H
#define DEV_PCI_ICH9_LPC_H

#include "dev/misc/acpi_pm.h"
#include "dev/misc/reset_ports.h"
#include "dev/pci/pci.h"

struct ich9_lpc_config {
    struct irq_line pic[16];    /* the 8259s' inputs, for PIRQs and SCI */
    struct irq_line ioapic[24]; /* 9-11 and 16-23 are used */
    struct irq_line init;       /* see reset_ports.h */
};

struct ich9_lpc;

struct ich9_lpc *ich9_lpc_create(struct vm *vm, struct pci_bus *bus,
                                 const struct ich9_lpc_config *config, struct error *err);
struct acpi_pm *ich9_lpc_pm(struct ich9_lpc *lpc);
/* The GSI that SCI is on now (ACPI_CNTL): for the MADT and FADT. */
unsigned ich9_lpc_sci_gsi(const struct ich9_lpc *lpc);

#endif
