/*
 * Bridges and root ports: bus numbers, windows, what comes up through them,
 * reset of what is below. A root port with a device, a bridge with two, one of
 * them behind another bridge.
 */
#include "tests/dev/harness.h"
#include "tests/dev/pci_toy.h"

#include <errno.h>

enum { DEV_BUS, DEV_PORT_BUS, DEV_PORT_TOY, DEV_BRIDGE_BUS, DEV_BRIDGE_TOY, DEV_DEEP_TOY };
enum { PORT = PCI_DEVFN(28, 0), BRIDGE = PCI_DEVFN(30, 0), DEEP = PCI_DEVFN(1, 0) };
#define ECAM 0xB0000000ull

static unsigned route(void *ctx, uint8_t devfn, unsigned pin)
{
    return (devfn == PORT ? 0 : 4) + pin;
}

static void wire(void *ctx, unsigned pirq, bool level)
{
    struct irq_line line = harness_line(ctx, pirq);

    irq_set(&line, level);
}

static void build(struct harness *h)
{
    const struct irq_message_port port = harness_port(h);
    const struct pci_irq_router router = {route, wire, h};
    struct pci_bus *bus = pci_bus_create(h->vm, &port, NULL), *behind, *deep;

    assert_non_null(bus);
    h->dev[DEV_BUS] = bus;
    pci_bus_set_router(bus, &router);
    pci_bus_set_ecam(bus, ECAM, 256 * MiB, true);
    h->dev[DEV_PORT_BUS] = behind = pcie_root_port_create(h->vm, bus, PORT, 1, "port", NULL);
    assert_non_null(behind);
    h->dev[DEV_PORT_TOY] = toy_create(h->vm, behind, 0, TOY_EXPRESS | TOY_MSI, "a");
    h->dev[DEV_BRIDGE_BUS] = behind = pci_bridge_create(h->vm, bus, BRIDGE, "bridge", NULL);
    assert_non_null(behind);
    h->dev[DEV_BRIDGE_TOY] = toy_create(h->vm, behind, PCI_DEVFN(2, 0), TOY_MSI, "b");
    deep = pcie_root_port_create(h->vm, behind, DEEP, 2, "deep", NULL);
    assert_non_null(deep);
    h->dev[DEV_DEEP_TOY] = toy_create(h->vm, deep, 0, TOY_MSI, "c");
    assert_true(h->dev[DEV_PORT_TOY] && h->dev[DEV_BRIDGE_TOY] && h->dev[DEV_DEEP_TOY]);
}

static gpa_t ecam(unsigned bus, uint8_t devfn, unsigned offset)
{
    return ECAM + ((uint64_t)bus << 20) + ((uint64_t)devfn << 12) + offset;
}

static uint32_t in(struct harness *h, unsigned bus, uint8_t devfn, unsigned offset, unsigned size)
{
    return (uint32_t)mm_in(h, ecam(bus, devfn, offset), size);
}

static void out(struct harness *h, unsigned bus, uint8_t devfn, unsigned offset, uint32_t value,
                unsigned size)
{
    mm_out(h, ecam(bus, devfn, offset), value, size);
}

static void number(struct harness *h, unsigned bus, uint8_t devfn, unsigned secondary,
                   unsigned subordinate)
{
    out(h, bus, devfn, PCI_PRIMARY_BUS, bus | secondary << 8 | subordinate << 16, 4);
}

/* As firmware leaves it: the port's bus is 1, the bridge's 2, the deep one 3. */
static void number_all(struct harness *h)
{
    number(h, 0, PORT, 1, 1);
    number(h, 0, BRIDGE, 2, 3);
    number(h, 2, DEEP, 3, 3);
    out(h, 0, PORT, PCI_COMMAND, 7, 2);
    out(h, 0, BRIDGE, PCI_COMMAND, 7, 2);
    out(h, 2, DEEP, PCI_COMMAND, 7, 2);
}

static void test_bus_numbers(void **state)
{
    struct harness *h = harness_create(build);

    /* By reset nothing is numbered, and bus 0 is bus 0. */
    assert_int_equal(in(h, 1, 0, 0, 4), 0xFFFFFFFF);
    assert_int_equal(in(h, 0, PORT, 0, 4), 0x29408086);
    assert_int_equal(in(h, 0, PORT, 0x0E, 1), 0x81);
    assert_int_equal(in(h, 0, BRIDGE, 0x08, 4) >> 8, 0x060401);
    number_all(h);
    assert_int_equal(in(h, 1, 0, 0, 4), 0x56781234);
    assert_int_equal(in(h, 1, PCI_DEVFN(1, 0), 0, 4), 0xFFFFFFFF);
    assert_int_equal(in(h, 2, PCI_DEVFN(2, 0), 0, 4), 0x56781234);
    assert_int_equal(in(h, 2, DEEP, 0, 4), 0x29428086);
    assert_int_equal(in(h, 3, 0, 0, 4), 0x56781234);
    assert_int_equal(in(h, 4, 0, 0, 4), 0xFFFFFFFF);
    /* Mechanism #1 gets there too. */
    io_out(h, 0xCF8, 0x80030000, 4);
    assert_int_equal(io_in(h, 0xCFC, 4), 0x56781234);
    /* Numbers move; a hole between; the bridge above decides. */
    number(h, 0, BRIDGE, 0x40, 0x7F);
    assert_int_equal(in(h, 3, 0, 0, 4), 0xFFFFFFFF);
    assert_int_equal(in(h, 0x40, DEEP, 0, 4), 0x29428086);
    number(h, 0x40, DEEP, 0x7F, 0xFF);
    assert_int_equal(in(h, 0x7F, 0, 0, 4), 0x56781234);
    number(h, 0x40, DEEP, 0x80, 0xFF);
    assert_int_equal(in(h, 0x80, 0, 0, 4), 0xFFFFFFFF);
    /* Nonsense: secondary after subordinate, all the same, itself. */
    number(h, 0, BRIDGE, 5, 4);
    assert_int_equal(in(h, 5, DEEP, 0, 4), 0xFFFFFFFF);
    number(h, 0, PORT, 1, 0xFF);
    number(h, 0, BRIDGE, 1, 0xFF);
    assert_int_equal(in(h, 1, 0, 0, 4), 0x56781234); /* the port is first */
    assert_int_equal(in(h, 0, PORT, 0, 4), 0x29408086);
    harness_destroy(h);
}

static void test_windows(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *t = h->dev[DEV_PORT_TOY];

    number_all(h);
    t->reg = 0x100;
    out(h, 1, 0, PCI_BAR0, 0x3000, 4);
    out(h, 1, 0, PCI_BAR0 + 4, 0xFD100000, 4);
    out(h, 1, 0, PCI_BAR0 + 8, 0x00000000, 4);
    out(h, 1, 0, PCI_BAR0 + 12, 0x00000010, 4);
    out(h, 1, 0, PCI_COMMAND, 7, 2);
    /* After reset the windows include 0 to FFFFF and no more. */
    assert_int_equal(mm_in(h, 0xFD100000, 4), 0xFFFFFFFF);
    out(h, 0, PORT, PCI_MEMORY_BASE, 0xFD10FD10, 4);
    assert_int_equal(mm_in(h, 0xFD100000, 4), 0x100);
    out(h, 0, PORT, PCI_IO_BASE, 0x3030, 2);
    assert_int_equal(in(h, 0, PORT, PCI_IO_BASE, 2), 0x3131);
    assert_int_equal(io_in(h, 0x3000, 4), 0x100);
    out(h, 0, PORT, PCI_PREFETCH_BASE, 0, 4);
    assert_int_equal(in(h, 0, PORT, PCI_PREFETCH_BASE, 4), 0x00010001);
    out(h, 0, PORT, PCI_PREFETCH_BASE_HIGH, 0x10, 4);
    assert_int_equal(mm_in(h, 0x1000000000, 4), 0xFFFFFFFF); /* base over limit: closed */
    out(h, 0, PORT, PCI_PREFETCH_LIMIT_HIGH, 0x10, 4);
    assert_int_equal(mm_in(h, 0x1000000000, 4), 0x100);
    /* Outside, closed, command, ISA. */
    out(h, 1, 0, PCI_BAR0 + 4, 0xFD200000, 4);
    assert_int_equal(mm_in(h, 0xFD200000, 4), 0xFFFFFFFF);
    out(h, 0, PORT, PCI_MEMORY_LIMIT, 0xFD20, 2);
    assert_int_equal(mm_in(h, 0xFD200000, 4), 0x100);
    out(h, 0, PORT, PCI_MEMORY_LIMIT, 0xFD00, 2);
    assert_int_equal(mm_in(h, 0xFD200000, 4), 0xFFFFFFFF);
    out(h, 0, PORT, PCI_BRIDGE_CONTROL, PCI_BRIDGE_ISA, 2);
    assert_int_equal(io_in(h, 0x3000, 4), 0x100);
    out(h, 1, 0, PCI_BAR0, 0x3100, 4);
    assert_int_equal(io_in(h, 0x3100, 4), 0xFFFFFFFF);
    out(h, 0, PORT, PCI_BRIDGE_CONTROL, 0, 2);
    assert_int_equal(io_in(h, 0x3100, 4), 0x100);
    out(h, 0, PORT, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(io_in(h, 0x3100, 4), 0xFFFFFFFF);
    assert_int_equal(mm_in(h, 0x1000000000, 4), 0x100);
    harness_reload(h); /* the window comes back with the bridge's registers */
    assert_int_equal(mm_in(h, 0x1000000000, 4), 0x100);
    out(h, 0, PORT, PCI_COMMAND, 0, 2);
    assert_int_equal(mm_in(h, 0x1000000000, 4), 0xFFFFFFFF);
    harness_destroy(h);
}

/* A BAR of 1 MiB over the seam of two windows that touch, and over an edge. */
static void test_seam(void **state)
{
    struct harness *h = harness_create(build);

    number_all(h);
    out(h, 1, 0, PCI_BAR0 + 8, 0xFD100000, 4);
    out(h, 1, 0, PCI_BAR0 + 12, 0, 4);
    out(h, 1, 0, PCI_COMMAND, 2, 2);
    out(h, 0, PORT, PCI_PREFETCH_BASE, 0xFD00FD00, 4);
    out(h, 0, PORT, PCI_MEMORY_BASE, 0xFD10FD10, 4);
    assert_int_equal(mm_in(h, 0xFD100000, 4), 0);
    out(h, 0, PORT, PCI_MEMORY_BASE, 0xFFF0FFF0, 4);
    assert_int_equal(mm_in(h, 0xFD100000, 4), 0xFFFFFFFF);
    out(h, 0, PORT, PCI_PREFETCH_BASE, 0xFFF0FFF0, 4);
    out(h, 0, PORT, PCI_PREFETCH_LIMIT_HIGH, 0xFFFFFFFF, 4);
    out(h, 0, PORT, PCI_PREFETCH_BASE_HIGH, 0, 4);
    assert_int_equal(mm_in(h, 0xFD100000, 4), 0xFFFFFFFF);
    harness_destroy(h);
}

static void test_subtractive(void **state)
{
    struct harness *h = harness_create(build);

    number_all(h);
    out(h, 2, PCI_DEVFN(2, 0), PCI_BAR0 + 4, 0xFC000000, 4);
    out(h, 2, PCI_DEVFN(2, 0), PCI_COMMAND, 2, 2);
    assert_int_equal(mm_in(h, 0xFC000000, 4), 0);
    out(h, 3, 0, PCI_BAR0 + 4, 0xFB000000, 4);
    out(h, 3, 0, PCI_COMMAND, 2, 2);
    assert_int_equal(mm_in(h, 0xFB000000, 4), 0xFFFFFFFF); /* the deep one has windows */
    out(h, 2, DEEP, PCI_MEMORY_BASE, 0xFB00FB00, 4);
    assert_int_equal(mm_in(h, 0xFB000000, 4), 0);
    out(h, 0, BRIDGE, PCI_COMMAND, 1, 2);
    assert_int_equal(mm_in(h, 0xFB000000, 4), 0xFFFFFFFF);
    assert_int_equal(mm_in(h, 0xFC000000, 4), 0xFFFFFFFF);
    harness_destroy(h);
}

static void test_pins(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *a = h->dev[DEV_PORT_TOY], *b = h->dev[DEV_BRIDGE_TOY], *c = h->dev[DEV_DEEP_TOY];

    pci_intx_set(&a->pci, true); /* device 0: INTA# stays INTA# */
    assert_true(h->line[0].level);
    pci_intx_set(&b->pci, true); /* device 2: INTC# */
    assert_true(h->line[6].level);
    pci_intx_set(&c->pci, true); /* device 0, then device 1: INTB# */
    assert_true(h->line[5].level);
    harness_reset(h);
    assert_false(h->line[0].level || h->line[5].level || h->line[6].level);
    harness_destroy(h);
}

static void test_upstream(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *c = h->dev[DEV_DEEP_TOY];
    const struct irq_message m = {0xFEE00000, 0x55};
    uint8_t byte;

    number_all(h);
    assert_false(pci_is_master(&c->pci));
    out(h, 3, 0, PCI_COMMAND, PCI_COMMAND_BUS_MASTER, 2);
    assert_true(pci_is_master(&c->pci));
    pci_message_send(&c->pci, m);
    assert_int_equal(h->message_count, 1);
    out(h, 0, BRIDGE, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_false(pci_is_master(&c->pci));
    pci_message_send(&c->pci, m);
    assert_int_equal(h->message_count, 1);
    assert_int_equal(pci_dma_read(&c->pci, 0, &byte, 1), -EACCES);
    harness_destroy(h);
}

static void test_secondary_reset(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *a = h->dev[DEV_PORT_TOY], *b = h->dev[DEV_BRIDGE_TOY], *c = h->dev[DEV_DEEP_TOY];

    number_all(h);
    a->reg = b->reg = c->reg = 9;
    out(h, 0, BRIDGE, PCI_BRIDGE_CONTROL, PCI_BRIDGE_RESET, 2);
    assert_int_equal(a->reg, 9);
    assert_int_equal(b->reg | c->reg, 0);
    assert_int_equal(b->resets, 1);
    assert_int_equal(c->resets, 1);
    assert_int_equal(in(h, 2, PCI_DEVFN(2, 0), 0, 4), 0xFFFFFFFF); /* held */
    out(h, 0, BRIDGE, PCI_BRIDGE_CONTROL, 0, 2);
    assert_int_equal(in(h, 2, PCI_DEVFN(2, 0), 0, 4), 0x56781234);
    assert_int_equal(in(h, 2, DEEP, PCI_PRIMARY_BUS, 4), 0); /* the bridge below lost its numbers */
    assert_int_equal(in(h, 0, BRIDGE, PCI_PRIMARY_BUS, 4), 0x00030200);
    harness_destroy(h);
}

static void test_places(void **state)
{
    struct harness *h = harness_create(build);

    /* Behind a root port there is device 0 and no other; slots are taken once. */
    assert_null(toy_create(h->vm, h->dev[DEV_PORT_BUS], PCI_DEVFN(1, 0), 0, "x"));
    assert_null(toy_create(h->vm, h->dev[DEV_PORT_BUS], 0, 0, "x"));
    assert_non_null(toy_create(h->vm, h->dev[DEV_PORT_BUS], PCI_DEVFN(0, 7), 0, "x"));
    assert_non_null(toy_create(h->vm, h->dev[DEV_BUS], 0, 0, "y"));
    harness_destroy(h);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    static const struct {
        uint8_t bus, devfn;
    } places[] = {{0, PORT}, {0, BRIDGE}, {1, 0}, {2, PCI_DEVFN(2, 0)}, {2, DEEP}, {3, 0}};
    unsigned i = random % ARRAY_SIZE(places), size = 1u << (random >> 8) % 3;
    unsigned offset = (random >> 16 & 0x7F) & ~(size - 1);
    uint32_t value = (uint32_t)(random >> 32);
    struct toy *t = h->dev[DEV_DEEP_TOY];

    switch (random >> 4 & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
        out(h, places[i].bus, places[i].devfn, offset, value, size);
        return 0;
    case 4:
        number_all(h);
        return 0;
    case 5:
        out(h, places[i].bus, places[i].devfn, PCI_COMMAND, value, 2);
        return 0;
    case 6:
        out(h, places[i].bus, places[i].devfn, PCI_MEMORY_BASE, value << 16 | (value & 0xFFF0), 4);
        return 0;
    case 7:
        pci_interrupt_set(&t->pci, value & 1);
        return h->message_count;
    case 8:
        return pci_is_master(&t->pci);
    case 9:
        return mm_in(h, le32_get(t->pci.config + PCI_BAR0 + 4) & ~0xFu, 4);
    case 10:
        return io_in(h, le32_get(t->pci.config + PCI_BAR0) & 0xFFFC, 4);
    case 11:
        out(h, 3, 0, PCI_BAR0 + (value & 1) * 4, value & 0xFFF0FF00, 4);
        return 0;
    default:
        return in(h, places[i].bus, places[i].devfn, offset, size);
    }
}

static void test_state(void **state)
{
    for (unsigned seed = 1; seed <= 4; seed++)
        harness_fuzz(build, op, 4000, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bus_numbers),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_seam),
        cmocka_unit_test(test_subtractive),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_upstream),
        cmocka_unit_test(test_secondary_reset),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
