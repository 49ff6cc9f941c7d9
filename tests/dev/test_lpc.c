/*
 * The LPC bridge: where it puts its blocks, how PIRQs and SCI are routed, and
 * the reset ports. ICH9 datasheet, chapters 10 and 13.
 */
#include "dev/pci/ich9_lpc.h"
#include "tests/dev/harness.h"
#include "vm/internal.h"

enum { DEV_BUS, DEV_LPC, DEV_NIC };
enum { LPC = PCI_DEVFN(31, 0), NIC = PCI_DEVFN(2, 0) };
/* Lines: the 8259 inputs from 0, the IOAPIC inputs from 16, INIT. */
enum { PIC = 0, IOAPIC = 16, INIT = 40 };

/* Functions with pins, for the wires: the second is in device 29. */
struct nic {
    struct pci_function pci[2];
};

static void nic_reset(void *self)
{
    pci_function_reset(&((struct nic *)self)->pci[0]);
    pci_function_reset(&((struct nic *)self)->pci[1]);
}

static void nic_destroy(void *self)
{
    pci_function_destroy(&((struct nic *)self)->pci[0]);
    pci_function_destroy(&((struct nic *)self)->pci[1]);
    test_free(self);
}

static int nic_after_load(void *self, unsigned version)
{
    pci_function_restored(&((struct nic *)self)->pci[0]);
    pci_function_restored(&((struct nic *)self)->pci[1]);
    return 0;
}

static const struct state_field nic_fields[] = {
    STATE_STRUCTS(struct nic, pci, &pci_function_state),
    STATE_END,
};
static const struct state_table nic_state = {
    .name = "nic", .version = 1, .fields = nic_fields, .after_load = nic_after_load};
static const struct dev_type nic_type = {"nic", nic_reset, nic_destroy, &nic_state};

static void build_with(struct harness *h, bool init)
{
    const struct pci_identity id = {.vendor = 0x1234, .device = 1, .interrupt_pin = 1};
    struct ich9_lpc_config config = {.init = {NULL, NULL, 0}};
    struct nic *nic = test_calloc(1, sizeof *nic);

    for (unsigned i = 0; i < 16; i++)
        config.pic[i] = harness_line(h, PIC + i);
    for (unsigned i = 0; i < 24; i++)
        config.ioapic[i] = harness_line(h, IOAPIC + i);
    if (init)
        config.init = harness_line(h, INIT);
    h->dev[DEV_BUS] = pci_bus_create(h->vm, NULL, NULL);
    h->dev[DEV_LPC] = ich9_lpc_create(h->vm, h->dev[DEV_BUS], &config, NULL);
    assert_non_null(h->dev[DEV_LPC]);
    h->dev[DEV_NIC] = nic;
    assert_int_equal(pci_function_init(&nic->pci[0], h->dev[DEV_BUS], NIC, &id, NULL), 0);
    assert_int_equal(pci_function_init(&nic->pci[1], h->dev[DEV_BUS], PCI_DEVFN(29, 0), &id, NULL),
                     0);
    vm_add_device(h->vm, &nic_type, "nic", nic);
}

static void build(struct harness *h)
{
    build_with(h, true);
}

static void build_without_init(struct harness *h)
{
    build_with(h, false);
}

static uint32_t cfg_in(struct harness *h, unsigned offset, unsigned size)
{
    return pci_config_read(h->dev[DEV_BUS], 0, LPC, offset, size);
}

static void cfg_out(struct harness *h, unsigned offset, uint32_t value, unsigned size)
{
    pci_config_write(h->dev[DEV_BUS], 0, LPC, offset, value, size);
}

static void intx(struct harness *h, unsigned which, bool level)
{
    pci_intx_set(&((struct nic *)h->dev[DEV_NIC])->pci[which], level);
}

static void test_identity(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(cfg_in(h, 0x00, 4), 0x29188086);
    assert_int_equal(cfg_in(h, 0x08, 4), 0x06010002);
    assert_int_equal(cfg_in(h, 0x2C, 4), 0x11001AF4);
    assert_int_equal(cfg_in(h, 0x0E, 1), 0x80);
    assert_int_equal(cfg_in(h, 0x04, 4), 0x02000007);
    assert_int_equal(cfg_in(h, 0x60, 4), 0x80808080);
    assert_int_equal(cfg_in(h, 0x68, 4), 0x80808080);
    assert_int_equal(cfg_in(h, 0x40, 4), 1);
    assert_int_equal(cfg_in(h, 0x48, 4), 1);
    harness_destroy(h);
}

static void test_windows(void **state)
{
    struct harness *h = harness_create(build);
    struct acpi_pm *pm = ich9_lpc_pm(h->dev[DEV_LPC]);
    uint16_t base;

    assert_false(acpi_pm_base(pm, &base));
    cfg_out(h, 0x40, 0xFFFFF67F, 4);
    assert_int_equal(cfg_in(h, 0x40, 4), 0xF601);
    assert_int_equal(io_in(h, 0xF608, 4), 0xFFFFFFFF); /* not without ACPI_EN */
    cfg_out(h, 0x44, 0x80, 1);
    assert_true(acpi_pm_base(pm, &base));
    assert_int_equal(base, 0xF600);
    assert_int_equal(io_in(h, 0xF630, 4), 0x22);
    cfg_out(h, 0x40, 0x601, 4);
    assert_int_equal(io_in(h, 0xF630, 4), 0xFFFFFFFF);
    assert_int_equal(io_in(h, 0x630, 4), 0x22);
    cfg_out(h, 0x40, 1, 4); /* not at port 0 */
    assert_false(acpi_pm_base(pm, &base));

    cfg_out(h, 0x48, 0x501, 4);
    assert_int_equal(io_in(h, 0x504, 4), 0xFFFFFFFF);
    cfg_out(h, 0x4C, 0x10, 1);
    assert_int_equal(io_in(h, 0x504, 4), 0xE0EA6FFF);
    /* Outputs keep what is written, inputs do not. */
    io_out(h, 0x504, 0xFFFFFFFE, 4);
    io_out(h, 0x50C, 0x00000003, 4);
    assert_int_equal(io_in(h, 0x50C, 4), 0x02FE0101);
    io_out(h, 0x508, 0xFFFFFFFF, 4); /* reserved */
    assert_int_equal(io_in(h, 0x508, 4), 0);

    cfg_out(h, 0xF0, 0xFED1C001, 4);
    assert_int_equal(cfg_in(h, 0xF0, 4), 0xFED1C001);
    assert_int_equal(mm_in(h, 0xFED1C000 + 0x3140, 2), 0x3210);
    assert_int_equal(mm_in(h, 0xFED1C000 + 0x3410, 4), 0x20);
    assert_int_equal(mm_in(h, 0xFED1C000 + 0x3404, 4), 0x80); /* the HPET is on */
    assert_int_equal(mm_in(h, 0xFED1C000 + 0x31FF, 1), 1);    /* and the IOAPIC */
    assert_int_equal(mm_in(h, 0xFED1C000, 4), 0);
    cfg_out(h, 0xF0, 0, 4);
    assert_int_equal(mm_in(h, 0xFED1C000 + 0x3140, 2), 0xFFFF);
    harness_reset(h);
    assert_int_equal(io_in(h, 0x504, 4), 0xFFFFFFFF);
    harness_destroy(h);
}

static void test_pirq_map(void **state)
{
    struct harness *h = harness_create(build);
    struct ich9_lpc *lpc = h->dev[DEV_LPC];

    for (unsigned device = 1; device < 25; device++)
        for (unsigned pin = 0; pin < 4; pin++)
            assert_int_equal(ich9_lpc_pirq(lpc, PCI_DEVFN(device, 0), pin), 4 + (device + pin) % 4);
    for (unsigned device = 25; device < 32; device++)
        for (unsigned pin = 0; pin < 4; pin++)
            assert_int_equal(ich9_lpc_pirq(lpc, PCI_DEVFN(device, 5), pin),
                             device == 30 ? 4 + pin : pin);
    /* Device 2's INTA# is PIRQG: IOAPIC 22; routing off, so not the 8259. */
    intx(h, 0, true);
    assert_true(h->line[IOAPIC + 22].level);
    for (unsigned i = 0; i < 16; i++)
        assert_false(h->line[PIC + i].level);
    cfg_out(h, 0x6A, 11, 1);
    assert_true(h->line[PIC + 11].level);
    cfg_out(h, 0x6A, 10, 1);
    assert_false(h->line[PIC + 11].level);
    assert_true(h->line[PIC + 10].level);
    cfg_out(h, 0x6A, 0x8A, 1);
    assert_false(h->line[PIC + 10].level);
    for (unsigned irq = 0; irq < 16; irq++) {
        static const uint16_t reserved = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 13;

        cfg_out(h, 0x6A, irq, 1);
        assert_int_equal(h->line[PIC + irq].level, !(reserved >> irq & 1));
    }
    assert_true(h->line[IOAPIC + 22].level);
    intx(h, 0, false);
    assert_false(h->line[IOAPIC + 22].level);
    assert_false(h->line[PIC + 15].level);
    harness_destroy(h);
}

static void test_shared_and_rerouted(void **state)
{
    struct harness *h = harness_create(build);

    /* Device 29's INTA# is PIRQA until D29IR says otherwise. */
    cfg_out(h, 0x60, 11, 1);
    cfg_out(h, 0x6A, 11, 1);
    cfg_out(h, 0xF0, 0xFED1C001, 4);
    intx(h, 0, true);
    intx(h, 1, true);
    assert_true(h->line[IOAPIC + 16].level);
    assert_true(h->line[IOAPIC + 22].level);
    assert_int_equal(h->line[PIC + 11].rises, 1);
    intx(h, 0, false);
    assert_true(h->line[PIC + 11].level);
    mm_out(h, 0xFED1C000 + 0x3144, 0x3217, 2); /* INTA# to PIRQH */
    assert_int_equal(mm_in(h, 0xFED1C000 + 0x3144, 4), 0x32103217);
    assert_false(h->line[IOAPIC + 16].level);
    assert_true(h->line[IOAPIC + 23].level);
    assert_false(h->line[PIC + 11].level);
    harness_reset(h);
    for (unsigned i = 0; i < 40; i++)
        assert_false(h->line[i].level);
    intx(h, 1, true);
    assert_true(h->line[IOAPIC + 16].level);
    harness_destroy(h);
}

static void test_sci_routing(void **state)
{
    static const unsigned gsis[] = {9, 10, 11, 9, 20, 21, 22, 23};
    struct harness *h = harness_create(build);
    struct acpi_pm *pm = ich9_lpc_pm(h->dev[DEV_LPC]);

    cfg_out(h, 0x40, 0x601, 4);
    cfg_out(h, 0x44, 0x80, 1);
    io_out(h, 0x602, 0x0100, 2);
    acpi_pm_set_sci_enabled(pm, true);
    acpi_pm_power_button(pm);
    for (unsigned select = 0; select < 8; select++) {
        cfg_out(h, 0x44, 0x80 | select, 1);
        assert_int_equal(ich9_lpc_sci_gsi(h->dev[DEV_LPC]), gsis[select]);
        for (unsigned i = 0; i < 24; i++)
            assert_int_equal(h->line[IOAPIC + i].level, i == gsis[select]);
        for (unsigned i = 0; i < 16; i++)
            assert_int_equal(h->line[PIC + i].level, i == gsis[select]);
    }
    /* Shared with a PIRQ: the wire is up as long as either wants it. */
    cfg_out(h, 0x44, 0x86, 1);
    intx(h, 0, true);
    io_out(h, 0x600, 0x0100, 2);
    assert_true(h->line[IOAPIC + 22].level);
    intx(h, 0, false);
    assert_false(h->line[IOAPIC + 22].level);
    harness_destroy(h);
}

static bool reset_requested(struct harness *h)
{
    return atomic_exchange(&h->vm->run->requests, 0) & REQUEST_RESET;
}

static void test_reset_ports(void **state)
{
    struct harness *h = harness_create(build);

    outb(h, 0x92, 2);
    assert_int_equal(inb(h, 0x92), 2);
    assert_int_equal(h->line[INIT].rises, 0);
    outb(h, 0x92, 0xFF);
    assert_int_equal(inb(h, 0x92), 3);
    assert_int_equal(h->line[INIT].rises, 1);
    outb(h, 0x92, 3); /* only the edge */
    assert_int_equal(h->line[INIT].rises, 1);
    /* CF9: soft, then hard. */
    outb(h, 0xCF9, 0);
    outb(h, 0xCF9, 4);
    assert_int_equal(h->line[INIT].rises, 2);
    outb(h, 0xCF9, 6);
    assert_int_equal(h->line[INIT].rises, 2);
    assert_false(reset_requested(h));
    outb(h, 0xCF9, 2);
    assert_int_equal(inb(h, 0xCF9), 2);
    outb(h, 0xCF9, 6);
    assert_true(reset_requested(h));
    harness_reset(h);
    assert_int_equal(inb(h, 0xCF9), 0);
    outb(h, 0xCF9, 0x0E); /* as the FADT's reset register */
    assert_true(reset_requested(h));
    assert_int_equal(h->line[INIT].rises, 2);
    harness_destroy(h);

    h = harness_create(build_without_init);
    outb(h, 0x92, 1);
    assert_true(reset_requested(h));
    outb(h, 0xCF9, 4);
    assert_true(reset_requested(h));
    harness_destroy(h);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    uint32_t value = (uint32_t)(random >> 32);

    switch (random % 8) {
    case 0:
        cfg_out(h, random >> 8 & 0xFF, value, 1);
        return 0;
    case 1:
        cfg_out(h, 0x60 + (random >> 8 & 0xF), value, 1);
        return 0;
    case 2:
        intx(h, value & 1, value >> 1 & 1);
        return 0;
    case 3:
        cfg_out(h, 0x44, value, 1);
        return 0;
    case 4:
        cfg_out(h, 0xF0, 0xFED1C001, 4);
        mm_out(h, 0xFED1C000 + 0x3140 + (random >> 8 & 0x1C), value, 4);
        return 0;
    case 5:
        cfg_out(h, 0x40, 0x600, 4);
        io_out(h, 0x600 + (random >> 8 & 0x7C), value & ~0x2000u, 4);
        harness_advance(h, value);
        return 0;
    case 6:
        acpi_pm_power_button(ich9_lpc_pm(h->dev[DEV_LPC]));
        return io_in(h, 0x600 + (random >> 8 & 0x7C), 4);
    default:
        return cfg_in(h, random >> 8 & 0xFC, 4);
    }
}

static void test_state(void **state)
{
    for (unsigned seed = 1; seed <= 3; seed++)
        harness_fuzz(build, op, 4000, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),    cmocka_unit_test(test_windows),
        cmocka_unit_test(test_pirq_map),    cmocka_unit_test(test_shared_and_rerouted),
        cmocka_unit_test(test_sci_routing), cmocka_unit_test(test_reset_ports),
        cmocka_unit_test(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
