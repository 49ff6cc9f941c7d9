/*
 * A PCI function's registers: PCI Local Bus 3.0, chapter 6. See pci.h.
 *
 * Configuration space is bytes and masks: what a write may change, and what
 * it clears. Two things follow from a write for every function: BARs move
 * with their registers and the command register, and the interrupt wire
 * follows the command register. The rest is the device's own.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/pci/pci_internal.h"

#include <errno.h>

enum {
    BAR_SPACE_IO = 1,
    BAR_MEMORY_64 = 2 << 1,
    BAR_PREFETCHABLE = 1 << 3,
    BAR_IO_FLAGS = 0x3,
    BAR_MEMORY_FLAGS = 0xF,
    CAPABILITIES_START = 0x40,
};

#define PORT_SPACE_END 0x10000ull
#define MEMORY32_END 0x100000000ull
#define MEMORY64_END BIT(52) /* what a processor can address */

static unsigned bar_offset(unsigned index)
{
    return PCI_BAR0 + index * 4;
}

/* ---- BARs ---- */

/* The address in the register; false when nothing can be decoded there: zero
 * (not assigned yet), beyond the space, or the all-ones pattern that software
 * writes to learn the size. */
static bool bar_target(const struct pci_function *f, unsigned index, uint64_t *address)
{
    const struct pci_bar *bar = &f->bars[index];
    const uint8_t *reg = f->config + bar_offset(index);
    uint64_t base, end;
    uint16_t command = pci_command_of(f);

    switch (bar->kind) {
    case PCI_BAR_IO:
        base = le32_get(reg) & ~(uint32_t)BAR_IO_FLAGS;
        end = PORT_SPACE_END;
        if (!(command & PCI_COMMAND_IO))
            return false;
        break;
    case PCI_BAR_MEMORY32:
        base = le32_get(reg) & ~(uint32_t)BAR_MEMORY_FLAGS;
        end = MEMORY32_END - 1; /* the topmost byte: a BAR being sized */
        if (!(command & PCI_COMMAND_MEMORY))
            return false;
        break;
    case PCI_BAR_MEMORY64:
        base = le64_get(reg) & ~(uint64_t)BAR_MEMORY_FLAGS;
        end = MEMORY64_END;
        if (!(command & PCI_COMMAND_MEMORY) || base + bar->region.size == MEMORY32_END)
            return false;
        break;
    case PCI_BAR_NONE:
    default:
        return false;
    }
    if (base == 0 || base >= end || bar->region.size > end - base)
        return false;
    *address = base;
    return true;
}

static void update_bars(struct pci_function *f)
{
    struct vm *vm = f->bus->vm;
    bool changes = false;

    /* Most writes move nothing: leave the views alone then. */
    for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
        const struct region *r = &f->bars[i].region;
        uint64_t address = 0;
        bool decoded = bar_target(f, i, &address);

        if (f->bars[i].added && (decoded != r->enabled || (decoded && address != r->base)))
            changes = true;
    }
    if (!changes)
        return;
    address_space_begin(&vm->memory);
    address_space_begin(&vm->ports);
    for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
        struct pci_bar *bar = &f->bars[i];
        uint64_t address;

        if (!bar->added)
            continue;
        if (!bar_target(f, i, &address)) {
            region_enable(&bar->region, false);
            continue;
        }
        region_move(&bar->region, address);
        region_enable(&bar->region, true);
        vlog(vm->log, PCI, DEBUG, "%02x.%x: %s at %#llx", PCI_DEVICE_OF(f->devfn),
             PCI_FUNCTION_OF(f->devfn), bar->region.name, (unsigned long long)address);
    }
    address_space_commit(&vm->ports);
    address_space_commit(&vm->memory);
}

static bool bar_is_free(const struct pci_function *f, unsigned index)
{
    return index < PCI_BAR_COUNT && f->bars[index].kind == PCI_BAR_NONE &&
           (index == 0 || f->bars[index - 1].kind != PCI_BAR_MEMORY64);
}

static int bar_add(struct pci_function *f, unsigned index, enum pci_bar_kind kind,
                   bool prefetchable, const struct region *template, struct error *err)
{
    struct pci_bar *bar = &f->bars[index];
    uint64_t size = template->size, mask = ~(size - 1);
    unsigned offset = bar_offset(index);
    bool is_io = kind == PCI_BAR_IO;
    struct vm *vm = f->bus->vm;
    int rc;

    if (kind == PCI_BAR_NONE || !bar_is_free(f, index) ||
        (kind == PCI_BAR_MEMORY64 && !bar_is_free(f, index + 1)) || (size & (size - 1)) ||
        size < (is_io ? 4 : 16) || (is_io && size > 256) ||
        (kind == PCI_BAR_MEMORY32 && size > 2 * GiB))
        return error_set(err, -EINVAL, "%s: impossible PCI BAR %u of %llu bytes", template->name,
                         index, (unsigned long long)size);
    bar->region = *template;
    bar->region.priority = PCI_REGION_PRIORITY;
    bar->region.base = size; /* anywhere: it is disabled before it is seen */
    /* Both spaces stay unpublished until the region is off again. */
    address_space_begin(is_io ? &vm->ports : &vm->memory);
    rc = region_add(is_io ? &vm->ports : &vm->memory, &bar->region);
    if (rc == 0)
        region_enable(&bar->region, false);
    address_space_commit(is_io ? &vm->ports : &vm->memory);
    if (rc < 0)
        return error_set(err, rc, "%s: cannot add PCI BAR %u", template->name, index);
    bar->kind = kind;
    bar->added = true;
    if (is_io) {
        /* All 32 bits, though ports are 16: firmware computes the size from
         * the whole register. */
        pci_register_define(f, offset, 4, BAR_SPACE_IO, (uint32_t)mask, 0);
    } else {
        uint32_t flags =
            (kind == PCI_BAR_MEMORY64 ? BAR_MEMORY_64 : 0) | (prefetchable ? BAR_PREFETCHABLE : 0);

        pci_register_define(f, offset, 4, flags, (uint32_t)mask, 0);
        if (kind == PCI_BAR_MEMORY64)
            pci_register_define(f, offset + 4, 4, 0, (uint32_t)(mask >> 32), 0);
    }
    return 0;
}

int pci_bar_add(struct pci_function *f, unsigned index, enum pci_bar_kind kind, bool prefetchable,
                const char *name, uint64_t size, const struct region_ops *ops, void *ctx,
                struct error *err)
{
    const struct region r = {.name = name, .size = size, .ops = ops, .ctx = ctx};

    return bar_add(f, index, kind, prefetchable, &r, err);
}

int pci_bar_add_ram(struct pci_function *f, unsigned index, enum pci_bar_kind kind,
                    const char *name, uint64_t size, struct ram_block *ram, struct error *err)
{
    const struct region r = {
        .name = name, .size = size, .ram = ram, .readonly = ram->kind == RAM_ROM};

    if (size < 4096 || size > ram->bytes)
        return error_set(err, -EINVAL, "%s: a memory BAR of %llu bytes does not fit its block",
                         name, (unsigned long long)size);
    return bar_add(f, index, kind, true, &r, err);
}

bool pci_bar_address(const struct pci_function *f, unsigned index, uint64_t *address)
{
    return index < PCI_BAR_COUNT && bar_target(f, index, address);
}

/* ---- registers ---- */

static void update_status(struct pci_function *f)
{
    uint16_t status = le16_get(f->config + PCI_STATUS) & ~PCI_STATUS_INTX;

    /* Shows the device's wish, whether or not the pin is disabled (6.2.3). */
    if (f->intx)
        status |= PCI_STATUS_INTX;
    le16_put(f->config + PCI_STATUS, status);
}

void pci_function_write(struct pci_function *f, unsigned offset, uint32_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        unsigned at = offset + i;
        uint8_t byte = (uint8_t)(value >> i * 8), mask = f->write_mask[at];

        f->config[at] = (f->config[at] & ~mask) | (byte & mask);
        f->config[at] &= ~(byte & f->w1c_mask[at]);
    }
    /* Command, or any BAR. */
    if (offset < PCI_BAR0 + PCI_BAR_COUNT * 4) {
        update_bars(f);
        if (offset < PCI_COMMAND + 2)
            pci_bus_reroute(f->bus);
    }
    if (f->config_written)
        f->config_written(f->ctx, offset, size);
}

void pci_register_define(struct pci_function *f, unsigned offset, unsigned size, uint32_t value,
                         uint32_t write_mask, uint32_t w1c_mask)
{
    le_put(f->config + offset, value, size);
    le_put(f->power_on + offset, value, size);
    le_put(f->write_mask + offset, write_mask, size);
    le_put(f->w1c_mask + offset, w1c_mask, size);
}

unsigned pci_capability_add(struct pci_function *f, uint8_t id, unsigned bytes)
{
    unsigned offset = f->next_capability, tail = PCI_CAPABILITIES;
    uint16_t status = le16_get(f->power_on + PCI_STATUS) | PCI_STATUS_CAPABILITIES;

    if (bytes < 2 || offset + bytes > PCI_CONFIG_BYTES)
        return 0;
    /* Append, so that the list reads in the order of creation. */
    while (f->power_on[tail])
        tail = f->power_on[tail] + 1;
    pci_register_define(f, tail, 1, offset, 0, 0);
    pci_register_define(f, offset, 1, id, 0, 0);
    pci_register_define(f, offset + 1, 1, 0, 0, 0);
    pci_register_define(f, PCI_STATUS, 2, status, 0, PCI_STATUS_W1C);
    f->next_capability = (uint8_t)align_up(offset + bytes, 4);
    return offset;
}

/* ---- interrupts and DMA ---- */

void pci_intx_set(struct pci_function *f, bool level)
{
    if (f->intx == level)
        return;
    f->intx = level;
    update_status(f);
    pci_bus_reroute(f->bus);
}

static bool is_master(const struct pci_function *f)
{
    return pci_command_of(f) & PCI_COMMAND_BUS_MASTER;
}

int pci_dma_read(struct pci_function *f, gpa_t address, void *buf, uint64_t bytes)
{
    return is_master(f) ? as_read(&f->bus->vm->memory, address, buf, bytes) : -EACCES;
}

int pci_dma_write(struct pci_function *f, gpa_t address, const void *buf, uint64_t bytes)
{
    return is_master(f) ? as_write(&f->bus->vm->memory, address, buf, bytes) : -EACCES;
}

void pci_message_send(struct pci_function *f, struct irq_message message)
{
    if (is_master(f))
        irq_message_send(&f->bus->messages, message);
}

/* ---- life and state ---- */

int pci_function_init(struct pci_function *f, struct pci_bus *bus, uint8_t devfn,
                      const struct pci_identity *id, struct error *err)
{
    const uint16_t command_mask = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER |
                                  PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE;
    int rc;

    f->bus = bus;
    f->devfn = devfn;
    f->config_bytes = id->express ? PCIE_CONFIG_BYTES : PCI_CONFIG_BYTES;
    f->next_capability = CAPABILITIES_START;
    rc = pci_bus_attach(bus, f, err);
    if (rc < 0)
        return rc;
    pci_register_define(f, PCI_VENDOR_ID, 2, id->vendor, 0, 0);
    pci_register_define(f, PCI_DEVICE_ID, 2, id->device, 0, 0);
    pci_register_define(f, PCI_COMMAND, 2, 0, command_mask, 0);
    pci_register_define(f, PCI_STATUS, 2, 0, 0, PCI_STATUS_W1C);
    pci_register_define(f, PCI_REVISION_ID, 4, id->class_code << 8 | id->revision, 0, 0);
    pci_register_define(f, PCI_CACHE_LINE_SIZE, 1, 0, 0xFF, 0);
    pci_register_define(f, PCI_HEADER_TYPE, 1, id->multifunction ? PCI_HEADER_MULTIFUNCTION : 0, 0,
                        0);
    pci_register_define(f, PCI_SUBSYSTEM_VENDOR_ID, 2, id->subsystem_vendor, 0, 0);
    pci_register_define(f, PCI_SUBSYSTEM_ID, 2, id->subsystem, 0, 0);
    pci_register_define(f, PCI_INTERRUPT_LINE, 1, 0, id->interrupt_pin ? 0xFF : 0, 0);
    pci_register_define(f, PCI_INTERRUPT_PIN, 1, id->interrupt_pin, 0, 0);
    return 0;
}

void pci_function_reset(struct pci_function *f)
{
    f->intx = false;
    memcpy(f->config, f->power_on, sizeof f->config);
    update_bars(f);
    pci_bus_reroute(f->bus);
}

void pci_function_destroy(struct pci_function *f)
{
    for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
        if (f->bars[i].added)
            region_remove(&f->bars[i].region);
        f->bars[i].added = false;
    }
    pci_bus_detach(f->bus, f);
}

/* What a saved state says is believed only where the guest could have written
 * it; the rest is what this machine has. */
void pci_function_restored(struct pci_function *f)
{
    for (unsigned i = 0; i < PCIE_CONFIG_BYTES; i++) {
        uint8_t changeable = f->write_mask[i] | f->w1c_mask[i];

        f->config[i] = (f->config[i] & changeable) | (f->power_on[i] & ~changeable);
    }
    update_status(f);
    update_bars(f);
}

static const struct state_field function_fields[] = {
    STATE_INT(struct pci_function, intx),
    STATE_BYTES(struct pci_function, config),
    STATE_END,
};

const struct state_table pci_function_state = {
    .name = "pci-function",
    .version = 1,
    .fields = function_fields,
};
