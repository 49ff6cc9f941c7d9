/*
 * What pci.c (the bus) and pci_function.c (a function's registers) share.
 */
#ifndef DEV_PCI_PCI_INTERNAL_H
#define DEV_PCI_PCI_INTERNAL_H

#include "dev/pci/pci.h"

#define PCI_MAX_FUNCTIONS 256
/* The host bridge decodes ECAM before it looks for RAM or BARs. */
#define PCI_ECAM_PRIORITY 1

struct pci_bus {
    struct vm *vm;
    struct irq_message_port messages;
    struct pci_irq_router router;
    struct pci_cf9 cf9;
    struct region address_region, data_region;
    struct region ecam;
    bool ecam_added;
    struct pci_function *functions[PCI_MAX_FUNCTIONS]; /* by devfn */
    struct pci_function *list[PCI_MAX_FUNCTIONS];      /* those present */
    unsigned function_count;

    uint32_t address;    /* CF8H */
    uint8_t pirq_levels; /* as the router was last told */
};

int pci_bus_attach(struct pci_bus *bus, struct pci_function *f, struct error *err);
void pci_bus_detach(struct pci_bus *bus, struct pci_function *f);
/* Merges a write by the masks and carries out what follows from it. */
void pci_function_write(struct pci_function *f, unsigned offset, uint32_t value, unsigned size);

#endif
