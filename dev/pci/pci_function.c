/*
 * A PCI function's registers: PCI Local Bus 3.0, chapter 6. See pci.h.
 *
 * Configuration space is bytes and masks: what a write may change, and what
 * it clears. What follows from a write for every function is here: BARs move
 * with their registers, the command register, the power state and the windows
 * of bridges; the interrupt wire follows the command register and MSI's
 * enable bits; pending messages go; a reset is carried out. The rest is the
 * device's own.
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
    ROM_ENABLE = 1,
    ROM_FLAGS = 0x7FF,
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

/* Do all bridges above pass it down? */
static bool path_is_open(const struct pci_function *f, bool is_io, uint64_t base, uint64_t size)
{
    for (const struct pci_bus *bus = f->bus; bus->bridge; bus = bus->bridge->pci.bus) {
        if (!pci_bridge_passes(bus->bridge, is_io, base, base + size - 1))
            return false;
    }
    return true;
}

/* The address in the register; false when nothing can be decoded there: zero
 * (not assigned yet), beyond the space, or the all-ones pattern that software
 * writes to learn the size. */
static bool bar_target(const struct pci_function *f, unsigned index, uint64_t *address)
{
    const struct pci_bar *bar = &f->bars[index];
    const uint8_t *reg = f->config + (index == PCI_ROM ? PCI_ROM_ADDRESS : bar_offset(index));
    bool is_io = bar->kind == PCI_BAR_IO;
    uint64_t base, end;

    if (!(pci_command_of(f) & (is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) ||
        !pci_power_is_on(f))
        return false;
    switch (bar->kind) {
    case PCI_BAR_IO:
        base = le32_get(reg) & ~(uint32_t)BAR_IO_FLAGS;
        end = PORT_SPACE_END;
        break;
    case PCI_BAR_MEMORY32:
        base = le32_get(reg) & ~(uint32_t)(index == PCI_ROM ? ROM_FLAGS : BAR_MEMORY_FLAGS);
        end = MEMORY32_END - 1; /* the topmost byte: a BAR being sized */
        if (index == PCI_ROM && !(reg[0] & ROM_ENABLE))
            return false;
        break;
    case PCI_BAR_MEMORY64:
        base = le64_get(reg) & ~(uint64_t)BAR_MEMORY_FLAGS;
        end = MEMORY64_END;
        if (base + bar->region.size == MEMORY32_END)
            return false;
        break;
    case PCI_BAR_NONE:
    default:
        return false;
    }
    if (base == 0 || base >= end || bar->region.size > end - base)
        return false;
    *address = base;
    return path_is_open(f, is_io, base, bar->region.size);
}

static void update_own_bars(struct pci_function *f)
{
    bool changes = false;

    /* Most writes move nothing: leave the views alone then. */
    for (unsigned i = 0; i < ARRAY_SIZE(f->bars); i++) {
        const struct region *r = &f->bars[i].region;
        uint64_t address = 0;
        bool decoded = bar_target(f, i, &address);

        if (f->bars[i].added && (decoded != r->enabled || (decoded && address != r->base)))
            changes = true;
    }
    if (!changes)
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(f->bars); i++) {
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
        vlog(f->bus->vm->log, PCI, DEBUG, "%02x.%x: %s at %#llx", PCI_DEVICE_OF(f->devfn),
             PCI_FUNCTION_OF(f->devfn), bar->region.name, (unsigned long long)address);
    }
}

static void update_tree(struct pci_function *f)
{
    update_own_bars(f);
    for (unsigned i = 0; f->bridge && i < PCI_BUS_FUNCTIONS; i++) {
        if (f->bridge->secondary.functions[i])
            update_tree(f->bridge->secondary.functions[i]);
    }
}

void pci_function_update_bars(struct pci_function *f)
{
    struct vm *vm = f->bus->vm;

    address_space_begin(&vm->memory);
    address_space_begin(&vm->ports);
    update_tree(f);
    address_space_commit(&vm->ports);
    address_space_commit(&vm->memory);
}

static bool bar_is_free(const struct pci_function *f, unsigned index)
{
    return index < PCI_BAR_COUNT && f->bars[index].kind == PCI_BAR_NONE &&
           (index == 0 || f->bars[index - 1].kind != PCI_BAR_MEMORY64);
}

/* The region, not decoded yet. */
static int place_region(struct pci_function *f, unsigned index, enum pci_bar_kind kind,
                        const struct region *template, struct error *err)
{
    struct vm *vm = f->bus->vm;
    struct address_space *as = kind == PCI_BAR_IO ? &vm->ports : &vm->memory;
    struct pci_bar *bar = &f->bars[index];
    int rc;

    bar->region = *template;
    bar->region.priority = PCI_REGION_PRIORITY;
    bar->region.base = template->size; /* anywhere: it is disabled before it is seen */
    /* The space stays unpublished until the region is off again. */
    address_space_begin(as);
    rc = region_add(as, &bar->region);
    if (rc == 0)
        region_enable(&bar->region, false);
    address_space_commit(as);
    if (rc < 0)
        return error_set(err, rc, "%s: cannot add PCI BAR %u", template->name, index);
    bar->kind = kind;
    bar->added = true;
    return 0;
}

static int bar_add(struct pci_function *f, unsigned index, enum pci_bar_kind kind,
                   bool prefetchable, const struct region *template, struct error *err)
{
    uint64_t size = template->size, mask = ~(size - 1);
    unsigned offset = bar_offset(index);
    bool is_io = kind == PCI_BAR_IO;
    int rc;

    if (kind == PCI_BAR_NONE || !bar_is_free(f, index) ||
        (kind == PCI_BAR_MEMORY64 && !bar_is_free(f, index + 1)) || (size & (size - 1)) ||
        size < (is_io ? 4 : 16) || (is_io && size > 256) ||
        (kind == PCI_BAR_MEMORY32 && size > 2 * GiB) || (f->bridge && index > 1))
        return error_set(err, -EINVAL, "%s: impossible PCI BAR %u of %llu bytes", template->name,
                         index, (unsigned long long)size);
    rc = place_region(f, index, kind, template, err);
    if (rc < 0)
        return rc;
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

int pci_rom_add(struct pci_function *f, const char *name, uint64_t size, struct ram_block *rom,
                struct error *err)
{
    const struct region r = {.name = name, .size = size, .ram = rom, .readonly = true};
    int rc;

    if (f->bridge || f->bars[PCI_ROM].added || size < 4 * KiB || size > 16 * MiB ||
        (size & (size - 1)) || size > rom->bytes)
        return error_set(err, -EINVAL, "%s: impossible PCI ROM of %llu bytes", name,
                         (unsigned long long)size);
    rc = place_region(f, PCI_ROM, PCI_BAR_MEMORY32, &r, err);
    if (rc == 0)
        pci_register_define(f, PCI_ROM_ADDRESS, 4, 0, (uint32_t)~(size - 1) | ROM_ENABLE, 0);
    return rc;
}

bool pci_bar_address(const struct pci_function *f, unsigned index, uint64_t *address)
{
    return index < ARRAY_SIZE(f->bars) && bar_target(f, index, address);
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

/* The header's registers that move BARs, INTx or what is behind a bridge. */
static void header_written(struct pci_function *f, unsigned offset, unsigned size)
{
    unsigned bars_end = f->bridge ? PCI_BRIDGE_CONTROL + 2 : PCI_BAR0 + PCI_BAR_COUNT * 4;

    if (pci_touches(offset, size, PCI_COMMAND, 2) ||
        pci_touches(offset, size, PCI_BAR0, bars_end - PCI_BAR0) ||
        pci_touches(offset, size, PCI_ROM_ADDRESS, 4))
        pci_function_update_bars(f);
    if (pci_touches(offset, size, PCI_COMMAND, 2)) {
        pci_bus_reroute(f->bus);
        pci_msi_update(f);
    }
}

void pci_function_write(struct pci_function *f, unsigned offset, uint32_t value, unsigned size)
{
    uint8_t power_before = pci_power_state(f);

    for (unsigned i = 0; i < size; i++) {
        unsigned at = offset + i;
        uint8_t byte = (uint8_t)(value >> i * 8), mask = f->write_mask[at];

        f->config[at] = (f->config[at] & ~mask) | (byte & mask);
        f->config[at] &= ~(byte & f->w1c_mask[at]);
    }
    header_written(f, offset, size);
    if (offset >= CAPABILITIES_START) {
        pci_power_written(f, power_before);
        if (f->msi || f->msix) {
            pci_bus_reroute(f->bus);
            pci_msi_update(f);
        }
    }
    if (f->config_written)
        f->config_written(f->ctx, offset, size);
    if (pci_write_resets(f, offset, value, size)) {
        if (f->reset)
            f->reset(f->ctx);
        else
            pci_function_reset(f);
    }
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

void pci_interrupt_set(struct pci_function *f, bool level)
{
    bool rises = level && !f->intx;

    pci_intx_set(f, level);
    if (rises)
        pci_msi_raise(f, 0);
}

bool pci_is_master(const struct pci_function *f)
{
    for (;; f = &f->bus->bridge->pci) {
        if (!(pci_command_of(f) & PCI_COMMAND_BUS_MASTER) || !pci_power_is_on(f))
            return false;
        if (!f->bus->bridge)
            return true;
    }
}

int pci_dma_read(struct pci_function *f, gpa_t address, void *buf, uint64_t bytes)
{
    return pci_is_master(f) ? as_read(&f->bus->vm->memory, address, buf, bytes) : -EACCES;
}

int pci_dma_write(struct pci_function *f, gpa_t address, const void *buf, uint64_t bytes)
{
    return pci_is_master(f) ? as_write(&f->bus->vm->memory, address, buf, bytes) : -EACCES;
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
    pci_msi_reset(f);
    pci_function_update_bars(f);
    pci_bus_reroute(f->bus);
}

void pci_function_destroy(struct pci_function *f)
{
    for (unsigned i = 0; i < ARRAY_SIZE(f->bars); i++) {
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
    uint32_t pending = pci_msi_pending(f);

    for (unsigned i = 0; i < PCIE_CONFIG_BYTES; i++) {
        uint8_t changeable = f->write_mask[i] | f->w1c_mask[i];

        f->config[i] = (f->config[i] & changeable) | (f->power_on[i] & ~changeable);
    }
    pci_msi_restored(f, pending);
    update_status(f);
    pci_function_update_bars(f);
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
