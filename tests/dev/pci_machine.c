/*
 * Memory and a PCI bus for a device under test. Interface: pci_machine.h.
 */
#include "tests/dev/pci_machine.h"

void machine_no_reset(void *self)
{
}

void machine_add_memory(struct harness *h, struct machine_memory *m, uint64_t ram_bytes,
                        uint64_t rom, const struct machine_memory *old)
{
    m->ram = ram_block_create(h->vm, "ram", ram_bytes, RAM_NORMAL, NULL);
    assert_non_null(m->ram);
    m->ram_region = (struct region){.name = "ram", .size = ram_bytes, .ram = m->ram};
    assert_int_equal(region_add(&h->vm->memory, &m->ram_region), 0);
    if (old)
        memcpy(m->ram->host, old->ram->host, ram_bytes);
    if (!rom)
        return;
    m->rom = ram_block_create(h->vm, "rom", 64 * KiB, RAM_ROM, NULL);
    assert_non_null(m->rom);
    m->rom_region = (struct region){
        .name = "rom", .base = rom, .size = 64 * KiB, .ram = m->rom, .readonly = true};
    assert_int_equal(region_add(&h->vm->memory, &m->rom_region), 0);
}

static unsigned route_pin(void *ctx, uint8_t devfn, unsigned pin)
{
    return pin;
}

static void wire(void *ctx, unsigned pirq, bool level)
{
    struct irq_line line = harness_line(ctx, pirq);

    irq_set(&line, level);
}

struct pci_bus *machine_add_bus(struct harness *h, uint64_t ecam,
                                unsigned (*route)(void *ctx, uint8_t devfn, unsigned pin))
{
    const struct pci_irq_router router = {route ? route : route_pin, wire, h};
    struct irq_message_port port = harness_port(h);
    struct pci_bus *bus = pci_bus_create(h->vm, &port, NULL);

    assert_non_null(bus);
    pci_bus_set_router(bus, &router);
    pci_bus_set_ecam(bus, ecam, 1 * MiB, true);
    return bus;
}

struct shim *machine_shim(uint64_t bytes, const struct shim *old)
{
    struct shim *s = shim_create(bytes);
    uint64_t seed = bytes;

    for (uint64_t n = 0; n < bytes && !old; n += 8)
        le64_put(s->bytes + n, harness_random(&seed));
    if (old) {
        memcpy(s->bytes, old->bytes, bytes);
        memcpy(s->fault, old->fault, sizeof old->fault);
    }
    return s;
}
