/*
 * MSI, MSI-X, function-level reset, power states and ROM BARs, driven through
 * configuration space as a driver does it.
 */
#include "tests/dev/harness.h"
#include "tests/dev/pci_toy.h"

enum { DEV_BUS, DEV_MSI, DEV_MSIX, DEV_PLAIN };
enum { MSI_DEVFN = PCI_DEVFN(3, 0), MSIX_DEVFN = PCI_DEVFN(4, 0), PLAIN_DEVFN = PCI_DEVFN(5, 0) };
#define TABLE 0xFE000000ull /* MSI-X of DEV_MSIX */
#define MESSAGE 0xFEE01000u

static unsigned route(void *ctx, uint8_t devfn, unsigned pin)
{
    return PCI_DEVICE_OF(devfn) % 8;
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
    struct pci_bus *bus = pci_bus_create(h->vm, &port, NULL);
    struct ram_block *ram = ram_block_create(h->vm, "ram", 64 * KiB, RAM_NORMAL, NULL);
    struct region *r;

    assert_non_null(bus);
    assert_non_null(ram);
    h->dev[DEV_BUS] = bus;
    pci_bus_set_router(bus, &router);
    h->dev[DEV_MSI] = toy_create(h->vm, bus, MSI_DEVFN, TOY_MSI | TOY_MASKABLE | TOY_FLR, "msi");
    h->dev[DEV_MSIX] =
        toy_create(h->vm, bus, MSIX_DEVFN, TOY_MSI | TOY_MSIX | TOY_EXPRESS | TOY_ROM, "msix");
    h->dev[DEV_PLAIN] = toy_create(h->vm, bus, PLAIN_DEVFN, 0, "plain");
    assert_true(h->dev[DEV_MSI] && h->dev[DEV_MSIX] && h->dev[DEV_PLAIN]);
    r = &((struct toy *)h->dev[DEV_PLAIN])->ram;
    *r = (struct region){.name = "ram", .size = 64 * KiB, .ram = ram};
    assert_int_equal(region_add(&h->vm->memory, r), 0);
}

static uint32_t cfg_in(struct harness *h, uint8_t devfn, unsigned offset, unsigned size)
{
    io_out(h, 0xCF8, 0x80000000u | (uint32_t)devfn << 8 | (offset & 0xFC), 4);
    return (uint32_t)io_in(h, 0xCFC + (offset & 3), size);
}

static void cfg_out(struct harness *h, uint8_t devfn, unsigned offset, uint32_t value,
                    unsigned size)
{
    io_out(h, 0xCF8, 0x80000000u | (uint32_t)devfn << 8 | (offset & 0xFC), 4);
    io_out(h, 0xCFC + (offset & 3), value, size);
}

static unsigned capability(struct harness *h, uint8_t devfn, uint8_t id)
{
    unsigned at = cfg_in(h, devfn, PCI_CAPABILITIES, 1);

    for (unsigned n = 0; at && n < 48; n++) {
        if (cfg_in(h, devfn, at, 1) == id)
            return at;
        at = cfg_in(h, devfn, at + 1, 1);
    }
    fail_msg("no capability %#x", id);
    return 0;
}

static void last_message(struct harness *h, unsigned count, uint64_t address, uint32_t data)
{
    assert_int_equal(h->message_count, count);
    assert_int_equal(h->message[count - 1].address, address);
    assert_int_equal(h->message[count - 1].data, data);
}

static unsigned start_msi(struct harness *h, uint8_t devfn, unsigned allotted_log2)
{
    unsigned at = capability(h, devfn, PCI_CAP_MSI);

    cfg_out(h, devfn, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
    cfg_out(h, devfn, at + 4, MESSAGE | 3, 4);
    cfg_out(h, devfn, at + 8, 0, 4);
    cfg_out(h, devfn, at + 12, 0x4147, 2);
    cfg_out(h, devfn, at + 2, 1 | allotted_log2 << 4, 2);
    return at;
}

static void test_msi(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *t = h->dev[DEV_MSI];
    unsigned at = capability(h, MSI_DEVFN, PCI_CAP_MSI);

    /* Four vectors, 64 bits, maskable. */
    assert_int_equal(cfg_in(h, MSI_DEVFN, at + 2, 2), 0x0184);
    pci_msi_raise(&t->pci, 0);
    assert_int_equal(h->message_count, 0);
    assert_int_equal(pci_msi_vectors(&t->pci), 0);
    start_msi(h, MSI_DEVFN, 1);
    assert_int_equal(cfg_in(h, MSI_DEVFN, at + 4, 4), MESSAGE); /* bits 1-0 are not there */
    assert_int_equal(pci_msi_vectors(&t->pci), 2);
    pci_msi_raise(&t->pci, 0);
    last_message(h, 1, MESSAGE, 0x4146); /* the low bit is the vector's */
    pci_msi_raise(&t->pci, 1);
    last_message(h, 2, MESSAGE, 0x4147);
    pci_msi_raise(&t->pci, 3); /* folded */
    last_message(h, 3, MESSAGE, 0x4147);
    /* More than there are: what there are. */
    cfg_out(h, MSI_DEVFN, at + 2, 0x71, 2);
    assert_int_equal(pci_msi_vectors(&t->pci), 4);
    pci_msi_raise(&t->pci, 2);
    last_message(h, 4, MESSAGE, 0x4146);
    /* Above 4 GiB nobody takes a message; 64 bits are used. */
    cfg_out(h, MSI_DEVFN, at + 8, 1, 4);
    pci_msi_raise(&t->pci, 2);
    assert_int_equal(h->message_count, 4);
    cfg_out(h, MSI_DEVFN, at + 8, 0, 4);
    cfg_out(h, MSI_DEVFN, PCI_COMMAND, 0, 2);
    pci_msi_raise(&t->pci, 2); /* no bus master */
    assert_int_equal(h->message_count, 4);
    harness_destroy(h);
}

static void test_msi_masking(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *t = h->dev[DEV_MSI];
    unsigned at = start_msi(h, MSI_DEVFN, 2);

    cfg_out(h, MSI_DEVFN, at + 16, 0xFFFFFFFF, 4);
    assert_int_equal(cfg_in(h, MSI_DEVFN, at + 16, 4), 0xF);
    pci_msi_raise(&t->pci, 1);
    pci_msi_raise(&t->pci, 1);
    pci_msi_raise(&t->pci, 3);
    assert_int_equal(h->message_count, 0);
    assert_int_equal(cfg_in(h, MSI_DEVFN, at + 20, 4), 0xA);
    cfg_out(h, MSI_DEVFN, at + 20, 0, 4); /* read-only */
    assert_int_equal(cfg_in(h, MSI_DEVFN, at + 20, 4), 0xA);
    harness_reload(h); /* pending bits travel */
    t = h->dev[DEV_MSI];
    assert_int_equal(cfg_in(h, MSI_DEVFN, at + 20, 4), 0xA);
    cfg_out(h, MSI_DEVFN, at + 16, 0x8, 1);
    last_message(h, 1, MESSAGE, 0x4145); /* once, though raised twice */
    assert_int_equal(cfg_in(h, MSI_DEVFN, at + 20, 4), 0x8);
    /* Disabled: what is pending waits. */
    cfg_out(h, MSI_DEVFN, at + 2, 0x20, 2);
    cfg_out(h, MSI_DEVFN, at + 16, 0, 1);
    assert_int_equal(h->message_count, 1);
    cfg_out(h, MSI_DEVFN, at + 2, 0x21, 2);
    last_message(h, 2, MESSAGE, 0x4147);
    assert_int_equal(cfg_in(h, MSI_DEVFN, at + 20, 4), 0);
    harness_destroy(h);
}

static unsigned start_msix(struct harness *h)
{
    unsigned at = capability(h, MSIX_DEVFN, PCI_CAP_MSIX);

    cfg_out(h, MSIX_DEVFN, PCI_BAR0 + 16, (uint32_t)TABLE, 4);
    cfg_out(h, MSIX_DEVFN, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
    for (unsigned i = 0; i < 10; i++) {
        mm_out(h, TABLE + i * 16, MESSAGE | 1, 4);
        mm_out(h, TABLE + i * 16 + 8, 0x80 + i, 4);
    }
    cfg_out(h, MSIX_DEVFN, at + 2, 0x8000, 2);
    return at;
}

static void test_msix(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *t = h->dev[DEV_MSIX];
    unsigned at = start_msix(h);

    assert_int_equal(cfg_in(h, MSIX_DEVFN, at + 2, 2), 0x8009); /* ten vectors */
    assert_int_equal(cfg_in(h, MSIX_DEVFN, at + 4, 4), 4);      /* in BAR 4 */
    assert_int_equal(cfg_in(h, MSIX_DEVFN, at + 8, 4), 0x804);
    assert_int_equal(mm_in(h, TABLE + 12, 4), 1); /* masked by reset */
    assert_int_equal(mm_in(h, TABLE, 8), MESSAGE);
    pci_msi_raise(&t->pci, 9);
    pci_msi_raise(&t->pci, 2);
    assert_int_equal(h->message_count, 0);
    assert_int_equal(mm_in(h, TABLE + 0x800, 8), 0x204);
    mm_out(h, TABLE + 0x800, 0, 8); /* read-only */
    assert_int_equal(mm_in(h, TABLE + 0x800, 8), 0x204);
    harness_reload(h);
    t = h->dev[DEV_MSIX];
    assert_int_equal(mm_in(h, TABLE + 0x800, 8), 0x204);
    mm_out(h, TABLE + 9 * 16 + 12, 0xFFFFFFFE, 4);
    last_message(h, 1, MESSAGE, 0x89);
    assert_int_equal(mm_in(h, TABLE + 9 * 16 + 12, 4), 0); /* bit 0 alone is there */
    assert_int_equal(mm_in(h, TABLE + 0x800, 8), 4);
    pci_msi_raise(&t->pci, 9);
    last_message(h, 2, MESSAGE, 0x89);
    /* The function's mask, over all. */
    cfg_out(h, MSIX_DEVFN, at + 2, 0xC000, 2);
    mm_out(h, TABLE + 2 * 16 + 12, 0, 4);
    pci_msi_raise(&t->pci, 9);
    assert_int_equal(h->message_count, 2);
    cfg_out(h, MSIX_DEVFN, at + 3, 0x80, 1);
    assert_int_equal(h->message_count, 4);
    assert_int_equal(h->message[2].data, 0x82);
    assert_int_equal(h->message[3].data, 0x89);
    /* Beyond the table there is nothing; half an entry written by bytes. */
    mm_out(h, TABLE + 10 * 16, 0x55, 4);
    assert_int_equal(mm_in(h, TABLE + 10 * 16, 4), 0);
    mm_out(h, TABLE + 9, 0x77, 1);
    assert_int_equal(mm_in(h, TABLE + 8, 4), 0x7780);
    /* A vector that does not exist is one that does. */
    pci_msi_raise(&t->pci, 12);
    last_message(h, 5, MESSAGE, 0x82);
    harness_reset(h);
    assert_int_equal(t->msix.table[2 * 16 + 12], 1);
    assert_int_equal(pci_msi_vectors(&t->pci), 0);
    harness_destroy(h);
}

/* A message is a write: into RAM, and never into a device. */
static void test_messages_elsewhere(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *t = h->dev[DEV_MSIX];

    start_msix(h);
    mm_out(h, TABLE + 12, 0, 4);
    mm_out(h, TABLE, 0x1000, 4);
    mm_out(h, TABLE + 8, 0x12345678, 4);
    pci_msi_raise(&t->pci, 0);
    assert_int_equal(h->message_count, 0);
    assert_int_equal(mm_in(h, 0x1000, 4), 0x12345678);
    mm_out(h, TABLE, 64 * KiB - 4, 4);
    pci_msi_raise(&t->pci, 0);
    assert_int_equal(mm_in(h, 64 * KiB - 4, 4), 0x12345678);
    /* Its own table: would unmask vector 1, whose message.. */
    mm_out(h, TABLE, TABLE + 16 + 12, 4);
    mm_out(h, TABLE + 8, 0, 4);
    pci_msi_raise(&t->pci, 1);
    pci_msi_raise(&t->pci, 0);
    assert_int_equal(mm_in(h, TABLE + 16 + 12, 4), 1);
    assert_int_equal(h->message_count, 0);
    harness_destroy(h);
}

static void test_pin_and_messages(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *t = h->dev[DEV_MSI];
    unsigned at;

    pci_interrupt_set(&t->pci, true);
    assert_true(h->line[3].level);
    at = start_msi(h, MSI_DEVFN, 0);
    assert_false(h->line[3].level); /* MSI silences the pin */
    assert_int_equal(h->message_count, 0);
    pci_interrupt_set(&t->pci, false);
    pci_interrupt_set(&t->pci, true);
    pci_interrupt_set(&t->pci, true);
    assert_int_equal(h->message_count, 1);
    cfg_out(h, MSI_DEVFN, at + 2, 0, 2);
    assert_true(h->line[3].level);
    cfg_out(h, MSI_DEVFN, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE, 2);
    assert_false(h->line[3].level);
    harness_destroy(h);
}

static void test_power(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *t = h->dev[DEV_MSI];
    unsigned pm = capability(h, MSI_DEVFN, PCI_CAP_POWER);

    cfg_out(h, MSI_DEVFN, PCI_BAR0 + 4, 0xFD000000, 4);
    start_msi(h, MSI_DEVFN, 0);
    mm_out(h, 0xFD000000, 0x1234, 4);
    assert_int_equal(mm_in(h, 0xFD000000, 4), 0x1234);
    cfg_out(h, MSI_DEVFN, pm + 4, 2, 2); /* no D2 */
    assert_int_equal(cfg_in(h, MSI_DEVFN, pm + 4, 2), 8);
    cfg_out(h, MSI_DEVFN, pm + 4, 3, 2);
    assert_int_equal(cfg_in(h, MSI_DEVFN, pm + 4, 2), 11);
    assert_int_equal(mm_in(h, 0xFD000000, 4), 0xFFFFFFFF);
    pci_msi_raise(&t->pci, 0);
    assert_int_equal(h->message_count, 0);
    assert_false(pci_is_master(&t->pci));
    cfg_out(h, MSI_DEVFN, pm + 4, 1, 1); /* from D3hot to a state that is not there */
    assert_int_equal(cfg_in(h, MSI_DEVFN, pm + 4, 2), 11);
    cfg_out(h, MSI_DEVFN, pm + 4, 0, 2);
    assert_int_equal(mm_in(h, 0xFD000000, 4), 0x1234); /* nothing was lost */
    assert_true(pci_is_master(&t->pci));
    harness_destroy(h);
}

static void check_flr(struct harness *h, uint8_t devfn, struct toy *t, unsigned at, uint32_t value)
{
    cfg_out(h, devfn, PCI_BAR0 + 4, 0xFD000000, 4);
    start_msi(h, devfn, 0);
    t->reg = 7;
    pci_intx_set(&t->pci, true);
    cfg_out(h, devfn, at, 0x0010, 2); /* other bits do not */
    assert_int_equal(t->resets, 0);
    cfg_out(h, devfn, at, value, 2);
    assert_int_equal(t->resets, 1);
    assert_int_equal(t->reg, 0);
    assert_int_equal(cfg_in(h, devfn, PCI_COMMAND, 2), 0);
    assert_int_equal(cfg_in(h, devfn, PCI_BAR0 + 4, 4), 0);
    assert_int_equal(mm_in(h, 0xFD000000, 4), 0xFFFFFFFF);
    assert_int_equal(pci_msi_vectors(&t->pci), 0);
    assert_int_equal(cfg_in(h, devfn, at, 2) & value & 0x8001, 0);
    assert_int_equal(cfg_in(h, devfn, 0, 4), 0x56781234);
}

static void test_function_level_reset(void **state)
{
    struct harness *h = harness_create(build);

    check_flr(h, MSI_DEVFN, h->dev[DEV_MSI], capability(h, MSI_DEVFN, PCI_CAP_FLR) + 4, 1);
    check_flr(h, MSIX_DEVFN, h->dev[DEV_MSIX], capability(h, MSIX_DEVFN, PCI_CAP_EXPRESS) + 8,
              0x8000);
    /* By its second byte alone; by a doubleword over it. */
    cfg_out(h, MSIX_DEVFN, capability(h, MSIX_DEVFN, PCI_CAP_EXPRESS) + 9, 0x80, 1);
    cfg_out(h, MSIX_DEVFN, capability(h, MSIX_DEVFN, PCI_CAP_EXPRESS) + 8, 0x8000, 4);
    assert_int_equal(((struct toy *)h->dev[DEV_MSIX])->resets, 3);
    harness_destroy(h);
}

static void test_rom(void **state)
{
    struct harness *h = harness_create(build);

    cfg_out(h, MSIX_DEVFN, PCI_ROM_ADDRESS, 0xFFFFFFFE, 4);
    assert_int_equal(cfg_in(h, MSIX_DEVFN, PCI_ROM_ADDRESS, 4), 0xFFFF0000);
    cfg_out(h, MSIX_DEVFN, PCI_ROM_ADDRESS, 0xFC000000, 4);
    cfg_out(h, MSIX_DEVFN, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(mm_in(h, 0xFC000000, 4), 0xFFFFFFFF);
    cfg_out(h, MSIX_DEVFN, PCI_ROM_ADDRESS, 0xFC000001, 4);
    assert_int_equal(mm_in(h, 0xFC000000, 4), 0xAA55);
    mm_out(h, 0xFC000000, 0, 4);
    assert_int_equal(mm_in(h, 0xFC000000, 4), 0xAA55);
    cfg_out(h, MSIX_DEVFN, PCI_COMMAND, 0, 2);
    assert_int_equal(mm_in(h, 0xFC000000, 4), 0xFFFFFFFF);
    cfg_out(h, PLAIN_DEVFN, PCI_ROM_ADDRESS, 0xFFFFFFFF, 4);
    assert_int_equal(cfg_in(h, PLAIN_DEVFN, PCI_ROM_ADDRESS, 4), 0);
    harness_destroy(h);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    const uint8_t devfn = PCI_DEVFN(3 + random % 3, 0);
    struct toy *t = h->dev[DEV_MSI + random % 3];
    unsigned offset = random >> 16 & 0xFF, size = 1u << (random >> 8) % 3;
    uint32_t value = (uint32_t)(random >> 32);

    switch (random >> 4 & 15) {
    case 0:
    case 1:
    case 2:
        cfg_out(h, devfn, offset & ~(size - 1), value, size);
        return 0;
    case 3:
        start_msix(h);
        return 0;
    case 4:
        if (t->pci.msi)
            start_msi(h, devfn, value % 4);
        return 0;
    case 5:
    case 6:
        pci_msi_raise(&t->pci, value % 40);
        return h->message_count;
    case 7:
        pci_interrupt_set(&t->pci, value & 1);
        return 0;
    case 8:
        mm_out(h, TABLE + (value & 0xFFF), random, 1u << random % 4);
        return 0;
    case 9:
        mm_out(h, TABLE + (value % 10) * 16 + 12, value >> 8 & 1, 4);
        return 0;
    case 10:
        return mm_in(h, TABLE + (value & 0xFFF), 1);
    case 11:
        return mm_in(h, le32_get(t->pci.config + PCI_ROM_ADDRESS) & ~0xFFFFu, 4);
    default:
        return cfg_in(h, devfn, offset & ~(size - 1), size);
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
        cmocka_unit_test(test_msi),
        cmocka_unit_test(test_msi_masking),
        cmocka_unit_test(test_msix),
        cmocka_unit_test(test_messages_elsewhere),
        cmocka_unit_test(test_pin_and_messages),
        cmocka_unit_test(test_power),
        cmocka_unit_test(test_function_level_reset),
        cmocka_unit_test(test_rom),
        cmocka_unit_test(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
