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
/* Which PIRQ (0: A ... 7: H) a function's pin (0: INTA#) reaches. Devices 1-24
 * are swizzled over PIRQE-H: E + (device + pin) % 4; devices 25-29 and 31 go
 * where their DxxIR registers say (at reset INTA# to PIRQA and so on), device
 * 30's INTA#-INTD# to PIRQE-H. PIRQ n drives IOAPIC input 16 + n, and the 8259
 * input that PIRQn_ROUT names. For _PRT. */
unsigned ich9_lpc_pirq(const struct ich9_lpc *lpc, uint8_t devfn, unsigned pin);
/* The GSI that SCI is on now (ACPI_CNTL): for the MADT and FADT. */
unsigned ich9_lpc_sci_gsi(const struct ich9_lpc *lpc);

#endif
