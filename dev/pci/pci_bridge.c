/*
 * Bridges: the type 1 header, its windows and the bus behind it. See
 * pci_bridge.h.
 *
 * Identities are those of the ICH9 (datasheet 316972): root ports 28:0-5
 * (chapter 20), DMI-to-PCI bridge 30:0 (chapter 11).
 *
 * Threading: with the machine's lock held.
 */
#include <errno.h>
#include <stdlib.h>

#include "dev/pci/pci_internal.h"

enum {
    IO_32_BIT = 0x01,
    IO_ADDRESS = 0xF0,
    PREFETCH_64_BIT = 0x01,
    WINDOW_ADDRESS = 0xFFF0, /* bits 31-20 */
    SUBSYSTEM_VENDOR = 4,    /* of PCI_CAP_SUBSYSTEM */
    SUBSYSTEM_BYTES = 8,
    CONTROL_WRITABLE = PCI_BRIDGE_PARITY | PCI_BRIDGE_SERR | PCI_BRIDGE_ISA | PCI_BRIDGE_VGA |
                       PCI_BRIDGE_VGA16 | PCI_BRIDGE_RESET,
};

struct window {
    uint64_t first, last; /* first > last: closed */
};

/* ---- windows (3.2.5.6 to 3.2.5.10) ---- */

static struct window io_window(const struct pci_bridge *b)
{
    const uint8_t *c = b->pci.config;

    return (struct window){
        .first = (uint64_t)(c[PCI_IO_BASE] & IO_ADDRESS) << 8 |
                 (uint64_t)le16_get(c + PCI_IO_BASE_HIGH) << 16,
        .last = (uint64_t)(c[PCI_IO_LIMIT] & IO_ADDRESS) << 8 | 0xFFF |
                (uint64_t)le16_get(c + PCI_IO_LIMIT_HIGH) << 16,
    };
}

static struct window memory_window(const struct pci_bridge *b)
{
    const uint8_t *c = b->pci.config;

    return (struct window){
        .first = (uint64_t)(le16_get(c + PCI_MEMORY_BASE) & WINDOW_ADDRESS) << 16,
        .last = (uint64_t)(le16_get(c + PCI_MEMORY_LIMIT) & WINDOW_ADDRESS) << 16 | 0xFFFFF,
    };
}

static struct window prefetch_window(const struct pci_bridge *b)
{
    const uint8_t *c = b->pci.config;

    return (struct window){
        .first = (uint64_t)(le16_get(c + PCI_PREFETCH_BASE) & WINDOW_ADDRESS) << 16 |
                 (uint64_t)le32_get(c + PCI_PREFETCH_BASE_HIGH) << 32,
        .last = (uint64_t)(le16_get(c + PCI_PREFETCH_LIMIT) & WINDOW_ADDRESS) << 16 | 0xFFFFF |
                (uint64_t)le32_get(c + PCI_PREFETCH_LIMIT_HIGH) << 32,
    };
}

static bool window_has(struct window w, uint64_t address)
{
    return w.first <= address && address <= w.last;
}

static bool io_passes(const struct pci_bridge *b, uint64_t first, uint64_t last)
{
    struct window w = io_window(b);

    if (!window_has(w, first) || !window_has(w, last))
        return false;
    /* An I/O BAR has at most 256 ports, aligned: all in one quarter of a KiB. */
    return !(b->pci.config[PCI_BRIDGE_CONTROL] & PCI_BRIDGE_ISA) || first > 0xFFFF ||
           !(first & 0x300);
}

bool pci_bridge_passes(const struct pci_bridge *b, bool is_io, uint64_t first, uint64_t last)
{
    const struct window windows[] = {memory_window(b), prefetch_window(b)};
    uint16_t command = pci_command_of(&b->pci);

    if (!(command & (is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) || !pci_power_is_on(&b->pci) ||
        (b->pci.config[PCI_BRIDGE_CONTROL] & PCI_BRIDGE_RESET))
        return false;
    if (b->subtractive)
        return true;
    if (is_io)
        return io_passes(b, first, last);
    /* The two windows may touch: go on from the end of one in the other. */
    for (unsigned i = 0; i < ARRAY_SIZE(windows); i++) {
        const struct window *other = &windows[!i];

        if (!window_has(windows[i], first))
            continue;
        if (last <= windows[i].last ||
            (window_has(*other, windows[i].last + 1) && last <= other->last))
            return true;
    }
    return false;
}

bool pci_bridge_has_bus(const struct pci_bridge *b, uint8_t number)
{
    const uint8_t *c = b->pci.config;

    /* 0 is what reset leaves: no bus assigned. */
    return c[PCI_SECONDARY_BUS] && c[PCI_SECONDARY_BUS] <= number &&
           number <= c[PCI_SUBORDINATE_BUS] && !(c[PCI_BRIDGE_CONTROL] & PCI_BRIDGE_RESET);
}

/* ---- registers ---- */

static void bridge_config_written(void *ctx, unsigned offset, unsigned size)
{
    struct pci_bridge *b = ctx;

    if (pci_touches(offset, size, PCI_BRIDGE_CONTROL, 1) &&
        (b->pci.config[PCI_BRIDGE_CONTROL] & PCI_BRIDGE_RESET))
        pci_bus_reset_functions(&b->secondary);
}

static void define_registers(struct pci_function *f, bool express)
{
    pci_register_define(f, PCI_HEADER_TYPE, 1,
                        PCI_HEADER_BRIDGE | (express ? PCI_HEADER_MULTIFUNCTION : 0), 0, 0);
    pci_register_define(f, PCI_PRIMARY_BUS, 1, 0, 0xFF, 0);
    pci_register_define(f, PCI_SECONDARY_BUS, 1, 0, 0xFF, 0);
    pci_register_define(f, PCI_SUBORDINATE_BUS, 1, 0, 0xFF, 0);
    pci_register_define(f, PCI_SECONDARY_LATENCY, 1, 0, express ? 0 : 0xF8, 0);
    pci_register_define(f, PCI_IO_BASE, 1, IO_32_BIT, IO_ADDRESS, 0);
    pci_register_define(f, PCI_IO_LIMIT, 1, IO_32_BIT, IO_ADDRESS, 0);
    pci_register_define(f, PCI_SECONDARY_STATUS, 2, 0, 0, PCI_STATUS_W1C);
    pci_register_define(f, PCI_MEMORY_BASE, 2, 0, WINDOW_ADDRESS, 0);
    pci_register_define(f, PCI_MEMORY_LIMIT, 2, 0, WINDOW_ADDRESS, 0);
    pci_register_define(f, PCI_PREFETCH_BASE, 2, PREFETCH_64_BIT, WINDOW_ADDRESS, 0);
    pci_register_define(f, PCI_PREFETCH_LIMIT, 2, PREFETCH_64_BIT, WINDOW_ADDRESS, 0);
    pci_register_define(f, PCI_PREFETCH_BASE_HIGH, 4, 0, 0xFFFFFFFF, 0);
    pci_register_define(f, PCI_PREFETCH_LIMIT_HIGH, 4, 0, 0xFFFFFFFF, 0);
    pci_register_define(f, PCI_IO_BASE_HIGH, 2, 0, 0xFFFF, 0);
    pci_register_define(f, PCI_IO_LIMIT_HIGH, 2, 0, 0xFFFF, 0);
    pci_register_define(f, PCI_BRIDGE_CONTROL, 2, 0, CONTROL_WRITABLE, 0);
}

static int add_subsystem(struct pci_function *f, struct error *err)
{
    unsigned at = pci_capability_add(f, PCI_CAP_SUBSYSTEM, SUBSYSTEM_BYTES);

    if (!at)
        return error_set(err, -ENOSPC, "no room for a bridge's PCI capabilities");
    pci_register_define(f, at + SUBSYSTEM_VENDOR, 4, 0x11001AF4, 0, 0);
    return 0;
}

/* ---- life ---- */

static void bridge_reset(void *self)
{
    struct pci_bridge *b = self;

    pci_function_reset(&b->pci);
}

static void bridge_destroy(void *self)
{
    struct pci_bridge *b = self;

    pci_function_destroy(&b->pci);
    free(b);
}

static int bridge_after_load(void *self, unsigned version)
{
    struct pci_bridge *b = self;

    pci_function_restored(&b->pci);
    return 0;
}

static const struct state_field bridge_fields[] = {
    STATE_STRUCT(struct pci_bridge, pci, &pci_function_state),
    STATE_END,
};

static const struct state_table bridge_state = {
    .name = "pci-bridge",
    .version = 1,
    .fields = bridge_fields,
    .after_load = bridge_after_load,
};

static const struct dev_type bridge_type = {
    .name = "pci-bridge",
    .reset = bridge_reset,
    .destroy = bridge_destroy,
    .state = &bridge_state,
};

static struct pci_bridge *bridge_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                                        const struct pci_identity *identity, struct error *err)
{
    struct pci_bridge *b = calloc(1, sizeof *b);

    if (!b) {
        error_set(err, -ENOMEM, "out of memory for a PCI bridge");
        return NULL;
    }
    b->secondary.vm = vm;
    b->secondary.root = bus->root;
    b->secondary.bridge = b;
    b->pci.bridge = b;
    if (pci_function_init(&b->pci, bus, devfn, identity, err) < 0) {
        free(b);
        return NULL;
    }
    b->pci.config_written = bridge_config_written;
    b->pci.reset = bridge_reset;
    b->pci.ctx = b;
    define_registers(&b->pci, identity->express);
    return b;
}

struct pci_bus *pcie_root_port_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                                      unsigned number, const char *name, struct error *err)
{
    const struct pci_identity identity = {
        .vendor = 0x8086,
        .device = (uint16_t)(0x2940 + 2 * (number - 1)),
        .class_code = 0x060400,
        .revision = 2,
        .interrupt_pin = (uint8_t)(1 + (number - 1) % 4),
        .multifunction = true,
        .express = true,
    };
    struct pci_bridge *b = bridge_create(vm, bus, devfn, &identity, err);

    if (!b)
        return NULL;
    /* In the chip's order, at its places. */
    if (pci_express_add(&b->pci, PCI_EXPRESS_ROOT_PORT, err) < 0)
        goto fail;
    b->pci.next_capability = 0x80;
    if (pci_msi_add(&b->pci, 1, true, err) < 0 || add_subsystem(&b->pci, err) < 0 ||
        pci_power_add(&b->pci, err) < 0)
        goto fail;
    vm_add_device(vm, &bridge_type, name, b);
    return &b->secondary;

fail:
    pci_function_destroy(&b->pci);
    free(b);
    return NULL;
}

struct pci_bus *pci_bridge_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                                  const char *name, struct error *err)
{
    static const struct pci_identity identity = {
        .vendor = 0x8086,
        .device = 0x244E,
        .class_code = 0x060401, /* subtractive decode */
        .revision = 0x92,
    };
    struct pci_bridge *b = bridge_create(vm, bus, devfn, &identity, err);

    if (!b)
        return NULL;
    b->subtractive = true;
    if (add_subsystem(&b->pci, err) < 0) {
        pci_function_destroy(&b->pci);
        free(b);
        return NULL;
    }
    vm_add_device(vm, &bridge_type, name, b);
    return &b->secondary;
}
