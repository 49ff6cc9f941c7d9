/*
 * PCI buses: functions on them, configuration accesses, interrupt wires. See
 * pci.h. What a function's registers do is in pci_function.c, what is special
 * about a bridge in pci_bridge.c.
 *
 * Configuration mechanism #1 (PCI 3.0, section 3.2.2.3.2): a doubleword at
 * CF8H holds the address, CFCH-CFFH the data. Only doubleword accesses reach
 * the address register; bytes and words at CF8H-CFBH are ordinary I/O, and one
 * of those bytes, CF9H, is the ICH's reset control.
 */
#include "dev/pci/pci_internal.h"

#include <errno.h>
#include <stdlib.h>

enum {
    ADDRESS_PORT = 0xCF8,
    DATA_PORT = 0xCFC,
    CF9_OFFSET = 1,
};

enum pci_config_address {
    ADDRESS_ENABLE = 1u << 31,
    ADDRESS_MASK = 0x80FFFFFC, /* bits 30-24 and 1-0 read as 0 */
};

/* ECAM: 20 bits of each bus' address (PCI Express 2.0, section 7.2.2). */
enum {
    ECAM_BUS_SHIFT = 20,
    ECAM_DEVFN_SHIFT = 12,
};

static uint32_t ones(unsigned size)
{
    return (uint32_t)zext(~0u, size);
}

/* ---- configuration accesses ---- */

/* Who answers: down the bridges whose numbers include the bus. Numbers are what
 * software wrote and may be nonsense; the tree is ours, so this ends. */
static struct pci_function *find_function(struct pci_bus *bus, uint8_t number, uint8_t devfn)
{
    if (number == 0)
        return bus->functions[devfn];
    for (;;) {
        struct pci_bridge *next = NULL;

        for (unsigned i = 0; i < PCI_BUS_FUNCTIONS && !next; i++) {
            struct pci_function *f = bus->functions[i];

            if (f && f->bridge && pci_bridge_has_bus(f->bridge, number))
                next = f->bridge;
        }
        if (!next)
            return NULL;
        bus = &next->secondary;
        if (next->pci.config[PCI_SECONDARY_BUS] == number)
            return bus->functions[devfn];
    }
}

uint32_t pci_config_read(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset,
                         unsigned size)
{
    struct pci_function *f = find_function(&bus->root->bus, bus_number, devfn);

    if (!f || offset + size > f->config_bytes)
        return ones(size);
    if (f->config_reading)
        f->config_reading(f->ctx, offset, size);
    return (uint32_t)le_get(f->config + offset, size);
}

void pci_config_write(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset,
                      uint32_t value, unsigned size)
{
    struct pci_function *f = find_function(&bus->root->bus, bus_number, devfn);

    if (!f || offset + size > f->config_bytes)
        return;
    vlog(bus->vm->log, PCI, DEBUG, "%02x:%02x.%x: %u bytes at %03x <- %#x", bus_number,
         PCI_DEVICE_OF(devfn), PCI_FUNCTION_OF(devfn), size, offset, value);
    pci_function_write(f, offset, value, size);
}

static uint8_t cf9_read(struct pci_root *root)
{
    return root->cf9.read ? root->cf9.read(root->cf9.ctx) : 0xFF;
}

static uint64_t address_read(void *ctx, uint64_t offset, unsigned size)
{
    struct pci_root *root = ctx;
    uint32_t value = ones(size);

    if (size == 4)
        return root->address;
    if (offset <= CF9_OFFSET && CF9_OFFSET < offset + size) {
        unsigned shift = (unsigned)(CF9_OFFSET - offset) * 8;

        value = (value & ~(0xFFu << shift)) | (uint32_t)cf9_read(root) << shift;
    }
    return value;
}

static void address_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_root *root = ctx;

    if (size == 4)
        root->address = (uint32_t)value & ADDRESS_MASK;
    else if (offset <= CF9_OFFSET && CF9_OFFSET < offset + size && root->cf9.write)
        root->cf9.write(root->cf9.ctx, (uint8_t)(value >> (CF9_OFFSET - offset) * 8));
}

static uint64_t data_read(void *ctx, uint64_t offset, unsigned size)
{
    struct pci_root *root = ctx;

    if (!(root->address & ADDRESS_ENABLE))
        return ones(size);
    return pci_config_read(&root->bus, (uint8_t)(root->address >> 16), (uint8_t)(root->address >> 8),
                           (root->address & 0xFC) + (unsigned)offset, size);
}

static void data_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_root *root = ctx;

    if (!(root->address & ADDRESS_ENABLE))
        return;
    pci_config_write(&root->bus, (uint8_t)(root->address >> 16), (uint8_t)(root->address >> 8),
                     (root->address & 0xFC) + (unsigned)offset, (uint32_t)value, size);
}

static uint64_t ecam_read(void *ctx, uint64_t offset, unsigned size)
{
    return pci_config_read(ctx, (uint8_t)(offset >> ECAM_BUS_SHIFT),
                           (uint8_t)(offset >> ECAM_DEVFN_SHIFT), offset & 0xFFF, size);
}

static void ecam_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    pci_config_write(ctx, (uint8_t)(offset >> ECAM_BUS_SHIFT),
                     (uint8_t)(offset >> ECAM_DEVFN_SHIFT), offset & 0xFFF, (uint32_t)value, size);
}

static const struct region_ops address_ops = {address_read, address_write, 1, 4};
static const struct region_ops data_ops = {data_read, data_write, 1, 4};
static const struct region_ops ecam_ops = {ecam_read, ecam_write, 1, 4};

/* ---- ECAM ---- */

void pci_bus_set_ecam(struct pci_bus *bus, gpa_t base, uint64_t bytes, bool enabled)
{
    struct pci_root *root = bus->root;
    struct region *r = &root->ecam;

    if (!enabled) {
        if (root->ecam_added)
            region_enable(r, false);
        return;
    }
    /* A region's size is fixed while it stands. */
    if (root->ecam_added && r->size == bytes) {
        address_space_begin(&bus->vm->memory);
        region_move(r, base);
        region_enable(r, true);
        address_space_commit(&bus->vm->memory);
        return;
    }
    if (root->ecam_added)
        region_remove(r);
    *r = (struct region){
        .name = "ecam",
        .base = base,
        .size = bytes,
        .priority = PCI_ECAM_PRIORITY,
        .ops = &ecam_ops,
        .ctx = &root->bus,
    };
    root->ecam_added = region_add(&bus->vm->memory, r) == 0;
    if (!root->ecam_added)
        vlog(bus->vm->log, PCI, ERROR, "ECAM at %#llx: out of memory", (unsigned long long)base);
}

bool pci_bus_ecam(const struct pci_bus *bus, gpa_t *base, uint64_t *bytes)
{
    const struct pci_root *root = bus->root;

    if (!root->ecam_added || !root->ecam.enabled)
        return false;
    *base = root->ecam.base;
    *bytes = root->ecam.size;
    return true;
}

/* ---- interrupt wires ---- */

/* Which PIRQ a pin reaches. Behind a bridge pins are swizzled (Bridge
 * Architecture 1.2, section 9.1). */
static unsigned pirq_of(const struct pci_function *f, unsigned pin)
{
    const struct pci_irq_router *router = &f->bus->root->router;

    for (; f->bus->bridge; f = &f->bus->bridge->pci)
        pin = (pin + PCI_DEVICE_OF(f->devfn)) % 4;
    return router->map(router->ctx, f->devfn, pin) & (PCI_PIRQ_COUNT - 1);
}

/* Each PIRQ is the OR of the pins that the router sends there. */
void pci_bus_reroute(struct pci_bus *bus)
{
    struct pci_root *root = bus->root;
    uint8_t levels = 0, changed;

    if (!root->router.map)
        return;
    for (unsigned i = 0; i < root->function_count; i++) {
        const struct pci_function *f = root->list[i];
        unsigned pin = f->config[PCI_INTERRUPT_PIN];

        if (pin && f->intx && !(pci_command_of(f) & PCI_COMMAND_INTX_DISABLE) &&
            !pci_msi_is_enabled(f) && pci_power_is_on(f))
            levels |= 1u << pirq_of(f, pin - 1);
    }
    changed = levels ^ root->pirq_levels;
    root->pirq_levels = levels;
    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++) {
        if (changed & BIT(pirq))
            root->router.set(root->router.ctx, pirq, levels >> pirq & 1);
    }
}

void pci_bus_set_router(struct pci_bus *bus, const struct pci_irq_router *router)
{
    bus->root->router = *router;
}

void pci_bus_set_cf9(struct pci_bus *bus, const struct pci_cf9 *cf9)
{
    bus->root->cf9 = *cf9;
}

/* ---- functions on a bus ---- */

struct pci_function *pci_bus_function(struct pci_bus *bus, uint8_t devfn)
{
    return bus->functions[devfn];
}

int pci_bus_attach(struct pci_bus *bus, struct pci_function *f, struct error *err)
{
    struct pci_root *root = bus->root;

    if (bus->functions[f->devfn])
        return error_set(err, -EBUSY, "PCI slot %02x.%x is taken; choose another",
                         PCI_DEVICE_OF(f->devfn), PCI_FUNCTION_OF(f->devfn));
    if (bus->bridge && bus->bridge->pci.express && PCI_DEVICE_OF(f->devfn) != 0)
        return error_set(err, -EINVAL, "a root port leads to one device, number 0, not %u",
                         PCI_DEVICE_OF(f->devfn));
    if (root->function_count == PCI_MAX_FUNCTIONS)
        return error_set(err, -ENOSPC, "there are %u PCI functions already", PCI_MAX_FUNCTIONS);
    bus->functions[f->devfn] = f;
    root->list[root->function_count++] = f;
    return 0;
}

void pci_bus_detach(struct pci_bus *bus, struct pci_function *f)
{
    struct pci_root *root = bus->root;

    for (unsigned i = 0; i < root->function_count; i++) {
        if (root->list[i] == f) {
            root->list[i] = root->list[--root->function_count];
            bus->functions[f->devfn] = NULL;
            return;
        }
    }
}

void pci_bus_reset_functions(struct pci_bus *bus)
{
    for (unsigned i = 0; i < PCI_BUS_FUNCTIONS; i++) {
        struct pci_function *f = bus->functions[i];

        if (!f)
            continue;
        if (f->bridge)
            pci_bus_reset_functions(&f->bridge->secondary);
        if (f->reset)
            f->reset(f->ctx);
        else
            pci_function_reset(f);
    }
}

/* ---- life ---- */

static void root_reset(void *self)
{
    struct pci_root *root = self;

    /* Each function's own reset lowers its pin; this is the rest. */
    root->address = 0;
}

static void root_destroy(void *self)
{
    struct pci_root *root = self;

    region_remove(&root->address_region);
    region_remove(&root->data_region);
    if (root->ecam_added)
        region_remove(&root->ecam);
    free(root);
}

static int root_after_load(void *self, unsigned version)
{
    struct pci_root *root = self;

    root->address &= ADDRESS_MASK;
    return 0;
}

static const struct state_field root_fields[] = {
    STATE_INT(struct pci_root, address),
    STATE_INT(struct pci_root, pirq_levels),
    STATE_END,
};

static const struct state_table root_state = {
    .name = "pci-bus",
    .version = 1,
    .fields = root_fields,
    .after_load = root_after_load,
};

static const struct dev_type root_type = {
    .name = "pci-bus",
    .reset = root_reset,
    .destroy = root_destroy,
    .state = &root_state,
};

struct pci_bus *pci_bus_create(struct vm *vm, const struct irq_message_port *messages,
                               struct error *err)
{
    struct pci_root *root = calloc(1, sizeof *root);

    if (!root) {
        error_set(err, -ENOMEM, "out of memory for the PCI bus");
        return NULL;
    }
    root->bus.vm = vm;
    root->bus.root = root;
    if (messages)
        root->messages = *messages;
    root->address_region = (struct region){
        .name = "pci-address",
        .base = ADDRESS_PORT,
        .size = 4,
        .priority = 1,
        .ops = &address_ops,
        .ctx = root,
    };
    root->data_region = (struct region){
        .name = "pci-data",
        .base = DATA_PORT,
        .size = 4,
        .priority = 1,
        .ops = &data_ops,
        .ctx = root,
    };
    if (region_add(&vm->ports, &root->address_region) < 0)
        goto fail;
    if (region_add(&vm->ports, &root->data_region) < 0)
        goto fail_address;
    vm_add_device(vm, &root_type, "pci", root);
    return &root->bus;

fail_address:
    region_remove(&root->address_region);
fail:
    error_set(err, -ENOMEM, "cannot place the PCI configuration ports");
    free(root);
    return NULL;
}
