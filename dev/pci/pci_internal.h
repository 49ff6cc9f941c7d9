/*
 * What the files of PCI's core share: pci.c (buses, configuration accesses,
 * wires), pci_function.c (registers, BARs), pci_capability.c, pci_msi.c,
 * pci_bridge.c.
 */
#ifndef DEV_PCI_PCI_INTERNAL_H
#define DEV_PCI_PCI_INTERNAL_H

#include "dev/pci/pci.h"
#include "dev/pci/pci_bridge.h"

#define PCI_BUS_FUNCTIONS 256
#define PCI_MAX_FUNCTIONS 256 /* of the whole machine */
/* The host bridge decodes ECAM before it looks for RAM or BARs. */
#define PCI_ECAM_PRIORITY 1

/* A bus: bus 0, or one behind a bridge. */
struct pci_bus {
    struct vm *vm;
    struct pci_root *root;
    struct pci_bridge *bridge;                         /* NULL: bus 0 */
    struct pci_function *functions[PCI_BUS_FUNCTIONS]; /* by devfn */
};

/* What there is once in a machine. */
struct pci_root {
    struct pci_bus bus;
    struct irq_message_port messages;
    struct pci_irq_router router;
    struct pci_cf9 cf9;
    struct region address_region, data_region;
    struct region ecam;
    bool ecam_added;
    struct pci_function *list[PCI_MAX_FUNCTIONS]; /* those present, on any bus */
    unsigned function_count;

    uint32_t address;    /* CF8H */
    uint8_t pirq_levels; /* as the router was last told */
};

struct pci_bridge {
    struct pci_function pci;
    struct pci_bus secondary;
    bool subtractive; /* what nobody else has claimed goes down too */
};

/* ---- pci.c ---- */

int pci_bus_attach(struct pci_bus *bus, struct pci_function *f, struct error *err);
void pci_bus_detach(struct pci_bus *bus, struct pci_function *f);
/* Resets all that is on a bus and below it. */
void pci_bus_reset_functions(struct pci_bus *bus);

/* ---- pci_function.c ---- */

/* Merges a write by the masks and carries out what follows from it. */
void pci_function_write(struct pci_function *f, unsigned offset, uint32_t value, unsigned size);
/* BARs, of a bridge also those of what is below, to where they are decoded now. */
void pci_function_update_bars(struct pci_function *f);

static inline bool pci_touches(unsigned offset, unsigned size, unsigned first, unsigned count)
{
    return offset < first + count && first < offset + size;
}

/* ---- pci_capability.c ---- */

/* Does the power state let it decode, master and interrupt? */
bool pci_power_is_on(const struct pci_function *f);
/* After a write has been merged; before: the state of then. */
void pci_power_written(struct pci_function *f, uint8_t before);
uint8_t pci_power_state(const struct pci_function *f);
/* Does this write ask for a reset of the function? */
bool pci_write_resets(const struct pci_function *f, unsigned offset, uint32_t value, unsigned size);

/* ---- pci_msi.c ---- */

bool pci_msi_is_enabled(const struct pci_function *f);
/* Something that masks may have changed: what is pending and can go, goes. */
void pci_msi_update(struct pci_function *f);
void pci_msi_reset(struct pci_function *f);
/* Pending bits are read-only and yet state: those of a loaded one. */
void pci_msi_restored(struct pci_function *f, uint32_t pending);
uint32_t pci_msi_pending(const struct pci_function *f);

/* ---- pci_bridge.c ---- */

/* Does a bridge pass accesses to all of first .. last down? */
bool pci_bridge_passes(const struct pci_bridge *b, bool is_io, uint64_t first, uint64_t last);
/* Do its bus numbers include that one? */
bool pci_bridge_has_bus(const struct pci_bridge *b, uint8_t number);

#endif
