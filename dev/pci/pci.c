/*
 * PCI bus 0: functions on the bus, configuration accesses, interrupt wires.
 * See pci.h. What a function's registers do is in pci_function.c.
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

uint32_t pci_config_read(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset,
                         unsigned size)
{
    struct pci_function *f = bus_number == 0 ? bus->functions[devfn] : NULL;

    if (!f || offset + size > f->config_bytes)
        return ones(size);
    return (uint32_t)le_get(f->config + offset, size);
}

void pci_config_write(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset,
                      uint32_t value, unsigned size)
{
    struct pci_function *f = bus_number == 0 ? bus->functions[devfn] : NULL;

    if (!f || offset + size > f->config_bytes)
        return;
    vlog(bus->vm->log, PCI, DEBUG, "%02x.%x: %u bytes at %03x <- %#x", PCI_DEVICE_OF(devfn),
         PCI_FUNCTION_OF(devfn), size, offset, value);
    pci_function_write(f, offset, value, size);
}

static uint8_t cf9_read(struct pci_bus *bus)
{
    return bus->cf9.read ? bus->cf9.read(bus->cf9.ctx) : 0xFF;
}

static uint64_t address_read(void *ctx, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = ctx;
    uint32_t value = ones(size);

    if (size == 4)
        return bus->address;
    if (offset <= CF9_OFFSET && CF9_OFFSET < offset + size) {
        unsigned shift = (unsigned)(CF9_OFFSET - offset) * 8;

        value = (value & ~(0xFFu << shift)) | (uint32_t)cf9_read(bus) << shift;
    }
    return value;
}

static void address_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_bus *bus = ctx;

    if (size == 4)
        bus->address = (uint32_t)value & ADDRESS_MASK;
    else if (offset <= CF9_OFFSET && CF9_OFFSET < offset + size && bus->cf9.write)
        bus->cf9.write(bus->cf9.ctx, (uint8_t)(value >> (CF9_OFFSET - offset) * 8));
}

static uint64_t data_read(void *ctx, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = ctx;

    if (!(bus->address & ADDRESS_ENABLE))
        return ones(size);
    return pci_config_read(bus, (uint8_t)(bus->address >> 16), (uint8_t)(bus->address >> 8),
                           (bus->address & 0xFC) + (unsigned)offset, size);
}

static void data_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_bus *bus = ctx;

    if (!(bus->address & ADDRESS_ENABLE))
        return;
    pci_config_write(bus, (uint8_t)(bus->address >> 16), (uint8_t)(bus->address >> 8),
                     (bus->address & 0xFC) + (unsigned)offset, (uint32_t)value, size);
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
    struct region *r = &bus->ecam;

    if (!enabled) {
        if (bus->ecam_added)
            region_enable(r, false);
        return;
    }
    /* A region's size is fixed while it stands. */
    if (bus->ecam_added && r->size == bytes) {
        address_space_begin(&bus->vm->memory);
        region_move(r, base);
        region_enable(r, true);
        address_space_commit(&bus->vm->memory);
        return;
    }
    if (bus->ecam_added)
        region_remove(r);
    *r = (struct region){
        .name = "ecam",
        .base = base,
        .size = bytes,
        .priority = PCI_ECAM_PRIORITY,
        .ops = &ecam_ops,
        .ctx = bus,
    };
    bus->ecam_added = region_add(&bus->vm->memory, r) == 0;
    if (!bus->ecam_added)
        vlog(bus->vm->log, PCI, ERROR, "ECAM at %#llx: out of memory", (unsigned long long)base);
}

bool pci_bus_ecam(const struct pci_bus *bus, gpa_t *base, uint64_t *bytes)
{
    if (!bus->ecam_added || !bus->ecam.enabled)
        return false;
    *base = bus->ecam.base;
    *bytes = bus->ecam.size;
    return true;
}

/* ---- interrupt wires ---- */

/* Each PIRQ is the OR of the pins that the router sends there. */
void pci_bus_reroute(struct pci_bus *bus)
{
    uint8_t levels = 0, changed;

    if (!bus->router.map)
        return;
    for (unsigned i = 0; i < bus->function_count; i++) {
        const struct pci_function *f = bus->list[i];
        unsigned pin = f->config[PCI_INTERRUPT_PIN];

        if (pin && f->intx && !(pci_command_of(f) & PCI_COMMAND_INTX_DISABLE))
            levels |=
                1u << (bus->router.map(bus->router.ctx, f->devfn, pin - 1) & (PCI_PIRQ_COUNT - 1));
    }
    changed = levels ^ bus->pirq_levels;
    bus->pirq_levels = levels;
    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++) {
        if (changed & BIT(pirq))
            bus->router.set(bus->router.ctx, pirq, levels >> pirq & 1);
    }
}

void pci_bus_set_router(struct pci_bus *bus, const struct pci_irq_router *router)
{
    bus->router = *router;
}

void pci_bus_set_cf9(struct pci_bus *bus, const struct pci_cf9 *cf9)
{
    bus->cf9 = *cf9;
}

/* ---- functions on the bus ---- */

struct pci_function *pci_bus_function(struct pci_bus *bus, uint8_t devfn)
{
    return bus->functions[devfn];
}

int pci_bus_attach(struct pci_bus *bus, struct pci_function *f, struct error *err)
{
    if (bus->functions[f->devfn])
        return error_set(err, -EBUSY, "PCI slot %02x.%x is taken; choose another",
                         PCI_DEVICE_OF(f->devfn), PCI_FUNCTION_OF(f->devfn));
    bus->functions[f->devfn] = f;
    bus->list[bus->function_count++] = f;
    return 0;
}

void pci_bus_detach(struct pci_bus *bus, struct pci_function *f)
{
    for (unsigned i = 0; i < bus->function_count; i++) {
        if (bus->list[i] == f) {
            bus->list[i] = bus->list[--bus->function_count];
            bus->functions[f->devfn] = NULL;
            return;
        }
    }
}

/* ---- life ---- */

static void bus_reset(void *self)
{
    struct pci_bus *bus = self;

    /* Each function's own reset lowers its pin; this is the rest. */
    bus->address = 0;
}

static void bus_destroy(void *self)
{
    struct pci_bus *bus = self;

    region_remove(&bus->address_region);
    region_remove(&bus->data_region);
    if (bus->ecam_added)
        region_remove(&bus->ecam);
    free(bus);
}

static int bus_after_load(void *self, unsigned version)
{
    struct pci_bus *bus = self;

    bus->address &= ADDRESS_MASK;
    return 0;
}

static const struct state_field bus_fields[] = {
    STATE_INT(struct pci_bus, address),
    STATE_INT(struct pci_bus, pirq_levels),
    STATE_END,
};

static const struct state_table bus_state = {
    .name = "pci-bus",
    .version = 1,
    .fields = bus_fields,
    .after_load = bus_after_load,
};

static const struct dev_type bus_type = {
    .name = "pci-bus",
    .reset = bus_reset,
    .destroy = bus_destroy,
    .state = &bus_state,
};

struct pci_bus *pci_bus_create(struct vm *vm, const struct irq_message_port *messages,
                               struct error *err)
{
    struct pci_bus *bus = calloc(1, sizeof *bus);

    if (!bus) {
        error_set(err, -ENOMEM, "out of memory for the PCI bus");
        return NULL;
    }
    bus->vm = vm;
    if (messages)
        bus->messages = *messages;
    bus->address_region = (struct region){
        .name = "pci-address",
        .base = ADDRESS_PORT,
        .size = 4,
        .priority = 1,
        .ops = &address_ops,
        .ctx = bus,
    };
    bus->data_region = (struct region){
        .name = "pci-data",
        .base = DATA_PORT,
        .size = 4,
        .priority = 1,
        .ops = &data_ops,
        .ctx = bus,
    };
    if (region_add(&vm->ports, &bus->address_region) < 0)
        goto fail;
    if (region_add(&vm->ports, &bus->data_region) < 0)
        goto fail_address;
    vm_add_device(vm, &bus_type, "pci", bus);
    return bus;

fail_address:
    region_remove(&bus->address_region);
fail:
    error_set(err, -ENOMEM, "cannot place the PCI configuration ports");
    free(bus);
    return NULL;
}
