/*
 * PCI as a device sees it (PCI Local Bus 3.0 chapter 6, PCI Express Base 2.0
 * chapter 7): functions with configuration space, BARs, a ROM, capabilities,
 * INTx, MSI and MSI-X, reset. docs/PCI.md has the whole picture.
 *
 * A device embeds a struct pci_function, fills identity and masks through the
 * helpers below, and adds its BARs and capabilities; the bus then owns
 * decoding: BARs are regions of vm->memory or vm->ports that follow the
 * command register, the power state and the windows of the bridges above. A
 * BAR has a lower priority than RAM and the chipset's own ranges, because the
 * host bridge decodes those first.
 *
 *     pci_function_init(&d->pci, bus, PCI_DEVFN(2, 0), &identity, err);
 *     d->pci.reset = d_reset, d->pci.ctx = d;
 *     pci_bar_add(&d->pci, 0, PCI_BAR_MEMORY32, false, "d", 4096, &ops, d, err);
 *     pci_power_add(&d->pci, err);
 *     pci_msi_add(&d->pci, 1, true, err);
 *     ...
 *     pci_interrupt_set(&d->pci, true);      the pin, or MSI where it is enabled
 *
 * Bridges and root ports are in pci_bridge.h: behind one is a bus of its own,
 * on which devices are made as on bus 0.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_PCI_PCI_H
#define DEV_PCI_PCI_H

#include "base/error.h"
#include "vm/vm.h"

#define PCI_DEVFN(device, function) ((uint8_t)((device) << 3 | (function)))
#define PCI_DEVICE_OF(devfn) ((unsigned)(devfn) >> 3)
#define PCI_FUNCTION_OF(devfn) ((unsigned)(devfn)&7)

#define PCI_CONFIG_BYTES 256
#define PCIE_CONFIG_BYTES 4096
#define PCI_BAR_COUNT 6
#define PCI_ROM PCI_BAR_COUNT /* the ROM's place in pci_function.bars */
#define PCI_PIRQ_COUNT 8 /* PIRQA-PIRQH of the ICH */
#define PCI_REGION_PRIORITY (-1)

/* Type 0 header (PCI 3.0, figure 6-1). */
enum pci_register {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION_ID = 0x08,
    PCI_CLASS_CODE = 0x09, /* programming interface, subclass, class */
    PCI_CACHE_LINE_SIZE = 0x0C,
    PCI_LATENCY_TIMER = 0x0D,
    PCI_HEADER_TYPE = 0x0E,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR_ID = 0x2C,
    PCI_SUBSYSTEM_ID = 0x2E,
    PCI_ROM_ADDRESS = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3C,
    PCI_INTERRUPT_PIN = 0x3D,
};

enum pci_command {
    PCI_COMMAND_IO = 1 << 0,
    PCI_COMMAND_MEMORY = 1 << 1,
    PCI_COMMAND_BUS_MASTER = 1 << 2,
    PCI_COMMAND_PARITY = 1 << 6,
    PCI_COMMAND_SERR = 1 << 8,
    PCI_COMMAND_INTX_DISABLE = 1 << 10,
};

enum pci_status {
    PCI_STATUS_INTX = 1 << 3,
    PCI_STATUS_CAPABILITIES = 1 << 4,
    PCI_STATUS_W1C = 0xF900, /* the error bits */
};

enum pci_header_type { PCI_HEADER_BRIDGE = 0x01, PCI_HEADER_MULTIFUNCTION = 0x80 };

enum pci_capability_id {
    PCI_CAP_POWER = 0x01,
    PCI_CAP_MSI = 0x05,
    PCI_CAP_SUBSYSTEM = 0x0D, /* of bridges */
    PCI_CAP_EXPRESS = 0x10,
    PCI_CAP_MSIX = 0x11,
    PCI_CAP_FLR = 0x13, /* "Advanced Features" */
};

/* Device/Port Type of the PCI Express capability. */
enum pci_express_type {
    PCI_EXPRESS_ENDPOINT = 0x0,
    PCI_EXPRESS_LEGACY_ENDPOINT = 0x1, /* one that has I/O BARs */
    PCI_EXPRESS_ROOT_PORT = 0x4,
    PCI_EXPRESS_INTEGRATED = 0x9, /* an endpoint of the root complex: on bus 0 */
};

enum pci_bar_kind {
    PCI_BAR_NONE,
    PCI_BAR_IO,
    PCI_BAR_MEMORY32,
    PCI_BAR_MEMORY64, /* takes two BAR registers */
};

struct pci_bus;
struct pci_bridge;
struct pci_msix;

struct pci_bar {
    enum pci_bar_kind kind;
    struct region region;
    bool added;
};

struct pci_function {
    struct pci_bus *bus;
    uint8_t devfn;
    uint16_t config_bytes;   /* 256, or 4096 for a PCI Express function */
    uint8_t next_capability; /* where the next one goes; may be moved up before it is added */

    /* Called after the guest's write has been merged; offset and size are of
     * the access, not of what changed. May be NULL. */
    void (*config_written)(void *ctx, unsigned offset, unsigned size);
    /* Called before the guest reads, for registers whose content is made then: it
     * puts them into config. May be NULL. */
    void (*config_reading)(void *ctx, unsigned offset, unsigned size);
    /* The guest has reset this function, or the bus it is on: everything that
     * the device's dev_type.reset does, pci_function_reset included. NULL:
     * pci_function_reset alone. The access that asked for it is complete. */
    void (*reset)(void *ctx);
    void *ctx;

    bool intx;                             /* what the device wants on its pin */
    uint8_t config[PCIE_CONFIG_BYTES];     /* as the guest reads it */
    uint8_t power_on[PCIE_CONFIG_BYTES];   /* what reset brings back */
    uint8_t write_mask[PCIE_CONFIG_BYTES]; /* bits the guest may change */
    uint8_t w1c_mask[PCIE_CONFIG_BYTES];   /* bits that clear when written 1 */
    struct pci_bar bars[PCI_BAR_COUNT + 1];

    /* Offsets of capabilities, 0: none. The core's own. */
    uint8_t power, msi, msix_capability, express, flr;
    struct pci_bridge *bridge; /* what this function is, if it is one */
    struct pci_msix *msix;
};

struct pci_identity {
    uint16_t vendor, device;
    uint16_t subsystem_vendor, subsystem;
    uint32_t class_code; /* class << 16 | subclass << 8 | interface */
    uint8_t revision;
    uint8_t interrupt_pin; /* 1: INTA# ... 4: INTD#, 0: none */
    bool multifunction;
    bool express; /* 4096 bytes of configuration space */
};

/* Where a function's INTx pin goes, and the wires themselves: given by the
 * ISA bridge. map returns 0 (PIRQA) to 7 (PIRQH). */
struct pci_irq_router {
    unsigned (*map)(void *ctx, uint8_t devfn, unsigned pin);
    void (*set)(void *ctx, unsigned pirq, bool level);
    void *ctx;
};

/* Byte 1 of the address port is the ICH's reset control register CF9H: byte
 * and word accesses go there, doubleword accesses do not. */
struct pci_cf9 {
    uint8_t (*read)(void *ctx);
    void (*write)(void *ctx, uint8_t value);
    void *ctx;
};

/* Bus 0 of the machine, with ports CF8H-CFFH. messages: where MSIs go (may be
 * all zero). */
struct pci_bus *pci_bus_create(struct vm *vm, const struct irq_message_port *messages,
                               struct error *err);
/* The rest of pci_bus_*: any bus of the machine stands for all of them, but for
 * pci_bus_function. */
void pci_bus_set_router(struct pci_bus *bus, const struct pci_irq_router *router);
void pci_bus_set_cf9(struct pci_bus *bus, const struct pci_cf9 *cf9);
/* Moves the ECAM window; bytes is a multiple of 1 MiB (one bus). */
void pci_bus_set_ecam(struct pci_bus *bus, gpa_t base, uint64_t bytes, bool enabled);
/* Where ECAM is now; false: it is disabled. */
bool pci_bus_ecam(const struct pci_bus *bus, gpa_t *base, uint64_t *bytes);
/* The router's map has changed, or who asserts: the wires are driven anew. */
void pci_bus_reroute(struct pci_bus *bus);
struct pci_function *pci_bus_function(struct pci_bus *bus, uint8_t devfn);

/* Fills the header and puts the function on the bus; -EBUSY if the place is
 * taken. The struct must be zeroed. */
int pci_function_init(struct pci_function *f, struct pci_bus *bus, uint8_t devfn,
                      const struct pci_identity *id, struct error *err);
/* From the device's reset: power-on values, BARs unmapped, INTx low. */
void pci_function_reset(struct pci_function *f);
/* From the device's destroy. */
void pci_function_destroy(struct pci_function *f);
/* For the device's state table: STATE_STRUCT(struct x, pci, &pci_function_state),
 * and pci_function_restored from its after_load. */
extern const struct state_table pci_function_state;
void pci_function_restored(struct pci_function *f);

/* Declare registers: value at power-on, bits the guest may write, and bits
 * that a written 1 clears. size 1, 2 or 4. */
void pci_register_define(struct pci_function *f, unsigned offset, unsigned size, uint32_t value,
                         uint32_t write_mask, uint32_t w1c_mask);
/* A capability of bytes bytes; returns its offset, or 0 when there is no
 * room (-> configuration error of ours). The caller defines its registers. */
unsigned pci_capability_add(struct pci_function *f, uint8_t id, unsigned bytes);

/* ---- capabilities that the core carries out; -ENOSPC when there is no room ---- */

/* Power management 1.2: D0 and D3hot. Outside D0 a function decodes no BAR,
 * masters no bus and interrupts nobody; its registers stay (No_Soft_Reset). */
int pci_power_add(struct pci_function *f, struct error *err);
/* The PCI Express capability (version 2, 60 bytes); endpoints can be reset by
 * it. The function's identity has said .express. */
int pci_express_add(struct pci_function *f, enum pci_express_type type, struct error *err);
/* "Advanced Features": function-level reset for a conventional function. */
int pci_flr_add(struct pci_function *f, struct error *err);

/* size is a power of two, at least 4 (I/O) or 16 (memory). ops see offsets in
 * the BAR. -EINVAL, -ENOMEM. */
int pci_bar_add(struct pci_function *f, unsigned index, enum pci_bar_kind kind, bool prefetchable,
                const char *name, uint64_t size, const struct region_ops *ops, void *ctx,
                struct error *err);
int pci_bar_add_ram(struct pci_function *f, unsigned index, enum pci_bar_kind kind,
                    const char *name, uint64_t size, struct ram_block *ram, struct error *err);
/* The expansion ROM: decoded while memory and the ROM's own bit are enabled.
 * size: a power of two from 2 KiB (one below 4 KiB is decoded as 4 KiB); rom
 * is a RAM_ROM block of at least align_up(size, 4 KiB). */
int pci_rom_add(struct pci_function *f, const char *name, uint64_t size, struct ram_block *rom,
                struct error *err);
/* Where a BAR (or PCI_ROM) is decoded now; false: nowhere. */
bool pci_bar_address(const struct pci_function *f, unsigned index, uint64_t *address);

/* The same accesses that the guest makes (board code that plays firmware).
 * size 1, 2 or 4, within the aligned doubleword. */
uint32_t pci_config_read(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset,
                         unsigned size);
void pci_config_write(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset,
                      uint32_t value, unsigned size);

/* ---- interrupts ---- */

/* A function's interrupt pin. Honours the command register; silent while MSI
 * or MSI-X is enabled, so that a device need not look. */
void pci_intx_set(struct pci_function *f, bool level);
/* For a device with one interrupt that is a level: pci_intx_set, and message 0
 * when the level rises. */
void pci_interrupt_set(struct pci_function *f, bool level);

/*
 * MSI (PCI 3.0, section 6.8.1), with 64-bit addresses. vectors: 1, 2, 4 ... 32.
 * maskable: with mask and pending bits for each vector.
 */
int pci_msi_add(struct pci_function *f, unsigned vectors, bool maskable, struct error *err);
/*
 * MSI-X (6.8.2). The table and the pending bits take a memory BAR of their
 * own, bar, which this adds. The device embeds the struct and saves it beside
 * its function: STATE_STRUCT(struct x, msix, &pci_msix_state).
 */
#define PCI_MSIX_MAX 128
struct pci_msix {
    struct pci_function *function;
    unsigned vectors;
    uint8_t table[PCI_MSIX_MAX * 16];
    uint8_t pending[PCI_MSIX_MAX / 8];
};
extern const struct state_table pci_msix_state;
int pci_msix_add(struct pci_function *f, struct pci_msix *msix, unsigned bar, unsigned vectors,
                 struct error *err);
/* Messages the guest has allotted: 0 (neither MSI nor MSI-X is enabled: use the
 * pin), or as many as vectors may differ. */
unsigned pci_msi_vectors(const struct pci_function *f);
/* Sends message vector (modulo what is allotted), or keeps it pending while it
 * is masked. Nothing happens while neither is enabled. */
void pci_msi_raise(struct pci_function *f, unsigned vector);

/* ---- bus mastering ---- */

/* May it: command register and power state, its own and of the bridges above. */
bool pci_is_master(const struct pci_function *f);
/* DMA and messages of a function: refused (-EACCES, dropped) unless it may. */
int pci_dma_read(struct pci_function *f, gpa_t address, void *buf, uint64_t bytes);
int pci_dma_write(struct pci_function *f, gpa_t address, const void *buf, uint64_t bytes);
/* A message is a write of 4 bytes. To FEExxxxxH it goes to the processors, into
 * RAM it is stored; elsewhere it is lost. */
void pci_message_send(struct pci_function *f, struct irq_message message);

static inline uint16_t pci_command_of(const struct pci_function *f)
{
    return le16_get(f->config + PCI_COMMAND);
}

#endif
