/*
 * The PCI bus and what every function has: configuration mechanism #1, ECAM,
 * BARs, INTx. A router and two functions of the test's own.
 */
#include "dev/pci/pci.h"
#include "tests/dev/harness.h"

#include <errno.h>
#include <stdlib.h>

enum { DEV_BUS, DEV_A, DEV_B };
enum { A_DEVFN = PCI_DEVFN(3, 0), B_DEVFN = PCI_DEVFN(3, 1) };
#define ECAM_BASE 0xB0000000ull

/* A function with one BAR of each kind. */
struct toy {
    struct pci_function pci;
    unsigned config_writes;
    uint8_t cf9;
    uint32_t io, mem;
};

static uint64_t io_read(void *ctx, uint64_t offset, unsigned size)
{
    return zext(((struct toy *)ctx)->io >> offset % 4 * 8, size);
}

static void io_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    ((struct toy *)ctx)->io = (uint32_t)value;
}

static uint64_t mem_read(void *ctx, uint64_t offset, unsigned size)
{
    return zext(0x11223344 + offset, size);
}

static void mem_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    ((struct toy *)ctx)->mem = (uint32_t)value;
}

static const struct region_ops io_ops = {io_read, io_write, 1, 4};
static const struct region_ops mem_ops = {mem_read, mem_write, 4, 4};

static void toy_config_written(void *ctx, unsigned offset, unsigned size)
{
    ((struct toy *)ctx)->config_writes++;
}

static void toy_reset(void *self)
{
    pci_function_reset(&((struct toy *)self)->pci);
}

static void toy_destroy(void *self)
{
    pci_function_destroy(&((struct toy *)self)->pci);
    free(self);
}

static int toy_after_load(void *self, unsigned version)
{
    pci_function_restored(&((struct toy *)self)->pci);
    return 0;
}

static const struct state_field toy_fields[] = {
    STATE_STRUCT(struct toy, pci, &pci_function_state),
    STATE_INT(struct toy, cf9),
    STATE_INT(struct toy, io),
    STATE_INT(struct toy, mem),
    STATE_END,
};
static const struct state_table toy_state = {
    .name = "toy", .version = 1, .fields = toy_fields, .after_load = toy_after_load};
static const struct dev_type toy_type = {"toy", toy_reset, toy_destroy, &toy_state};

static unsigned route(void *ctx, uint8_t devfn, unsigned pin)
{
    return (PCI_FUNCTION_OF(devfn) + pin) % 8;
}

static void wire(void *ctx, unsigned pirq, bool level)
{
    struct irq_line line = harness_line(ctx, pirq);

    irq_set(&line, level);
}

static uint8_t cf9_read(void *ctx)
{
    return ((struct toy *)ctx)->cf9;
}

static void cf9_write(void *ctx, uint8_t value)
{
    ((struct toy *)ctx)->cf9 = value;
}

static struct toy *toy_create(struct harness *h, uint8_t devfn, bool express, const char *name)
{
    const struct pci_identity id = {
        .vendor = 0x1234,
        .device = 0x5678,
        .subsystem_vendor = 0x1AF4,
        .subsystem = 0x1100,
        .class_code = 0x020000,
        .revision = 7,
        .interrupt_pin = 1,
        .multifunction = true,
        .express = express,
    };
    struct toy *t = calloc(1, sizeof *t);

    assert_non_null(t);
    assert_int_equal(pci_function_init(&t->pci, h->dev[DEV_BUS], devfn, &id, NULL), 0);
    t->pci.config_written = toy_config_written;
    t->pci.ctx = t;
    assert_int_equal(pci_bar_add(&t->pci, 0, PCI_BAR_IO, false, "io", 32, &io_ops, t, NULL), 0);
    assert_int_equal(
        pci_bar_add(&t->pci, 1, PCI_BAR_MEMORY32, false, "mem32", 4096, &mem_ops, t, NULL), 0);
    assert_int_equal(
        pci_bar_add(&t->pci, 2, PCI_BAR_MEMORY64, true, "mem64", 8 * GiB, &mem_ops, t, NULL), 0);
    vm_add_device(h->vm, &toy_type, name, t);
    return t;
}

static void build(struct harness *h)
{
    const struct irq_message_port port = harness_port(h);
    const struct pci_irq_router router = {route, wire, h};
    struct pci_cf9 cf9 = {cf9_read, cf9_write, NULL};
    struct pci_bus *bus = pci_bus_create(h->vm, &port, NULL);

    assert_non_null(bus);
    h->dev[DEV_BUS] = bus;
    pci_bus_set_router(bus, &router);
    h->dev[DEV_A] = toy_create(h, A_DEVFN, false, "a");
    h->dev[DEV_B] = toy_create(h, B_DEVFN, true, "b");
    cf9.ctx = h->dev[DEV_A];
    pci_bus_set_cf9(bus, &cf9);
    pci_bus_set_ecam(bus, ECAM_BASE, 256 * MiB, true);
}

static uint32_t address(uint8_t devfn, unsigned offset)
{
    return 0x80000000u | (uint32_t)devfn << 8 | (offset & 0xFC);
}

static uint32_t cfg_in(struct harness *h, uint8_t devfn, unsigned offset, unsigned size)
{
    io_out(h, 0xCF8, address(devfn, offset), 4);
    return (uint32_t)io_in(h, 0xCFC + (offset & 3), size);
}

static void cfg_out(struct harness *h, uint8_t devfn, unsigned offset, uint32_t value,
                    unsigned size)
{
    io_out(h, 0xCF8, address(devfn, offset), 4);
    io_out(h, 0xCFC + (offset & 3), value, size);
}

static void test_mechanism_1(void **state)
{
    struct harness *h = harness_create(build);

    /* How software finds the mechanism. */
    io_out(h, 0xCF8, 0x80000000, 4);
    assert_int_equal(io_in(h, 0xCF8, 4), 0x80000000);
    io_out(h, 0xCF8, 0xFFFFFFFF, 4);
    assert_int_equal(io_in(h, 0xCF8, 4), 0x80FFFFFC);
    assert_int_equal(cfg_in(h, A_DEVFN, 0, 4), 0x56781234);
    assert_int_equal(cfg_in(h, A_DEVFN, 2, 2), 0x5678);
    assert_int_equal(cfg_in(h, A_DEVFN, 3, 1), 0x56);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x08, 4), 0x02000007);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x0E, 1), 0x80);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x2C, 4), 0x11001AF4);
    /* Nobody there, another bus, not enabled. */
    assert_int_equal(cfg_in(h, PCI_DEVFN(4, 0), 0, 4), 0xFFFFFFFF);
    assert_int_equal(cfg_in(h, PCI_DEVFN(4, 0), 1, 1), 0xFF);
    io_out(h, 0xCF8, address(A_DEVFN, 0) | 0x10000, 4);
    assert_int_equal(io_in(h, 0xCFC, 4), 0xFFFFFFFF);
    io_out(h, 0xCF8, address(A_DEVFN, 0x3C) & ~0x80000000u, 4);
    assert_int_equal(io_in(h, 0xCFC, 2), 0xFFFF);
    io_out(h, 0xCFC, 0x55, 1);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x3C, 1), 0);
    cfg_out(h, A_DEVFN, 0x3C, 0x0B, 1);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x3C, 2), 0x010B);
    /* Identity is not writable, whatever the width. */
    for (unsigned i = 0; i < 16; i += 4)
        if (i != 4 && i != 12)
            cfg_out(h, A_DEVFN, i, 0, 4);
    assert_int_equal(cfg_in(h, A_DEVFN, 0, 4), 0x56781234);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x08, 4), 0x02000007);
    harness_destroy(h);
}

static void test_cf9_hole(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *a = h->dev[DEV_A];

    io_out(h, 0xCF8, address(A_DEVFN, 8), 4);
    outb(h, 0xCF9, 0x0E);
    assert_int_equal(a->cf9, 0x0E);
    assert_int_equal(inb(h, 0xCF9), 0x0E);
    assert_int_equal(io_in(h, 0xCF8, 2), 0x0EFF);
    io_out(h, 0xCF8, 0x02FF, 2);
    assert_int_equal(a->cf9, 2);
    outb(h, 0xCF8, 0xFF); /* not the address register's bytes */
    outb(h, 0xCFA, 0xFF);
    assert_int_equal(a->cf9, 2);
    assert_int_equal(inb(h, 0xCFB), 0xFF);
    assert_int_equal(io_in(h, 0xCF8, 4), address(A_DEVFN, 8));
    io_out(h, 0xCF8, 0x80000E00, 4); /* a doubleword over CF9 is no reset */
    assert_int_equal(a->cf9, 2);
    harness_destroy(h);
}

static void test_ecam(void **state)
{
    struct harness *h = harness_create(build);
    const gpa_t b = ECAM_BASE + ((uint64_t)B_DEVFN << 12),
                a = ECAM_BASE + ((uint64_t)A_DEVFN << 12);
    uint64_t bytes;
    gpa_t base;

    assert_int_equal(mm_in(h, b, 4), 0x56781234);
    assert_int_equal(mm_in(h, b + 2, 2), 0x5678);
    assert_int_equal(mm_in(h, b + 0x100, 4), 0);          /* extended space: no capability */
    assert_int_equal(mm_in(h, a + 0x100, 4), 0xFFFFFFFF); /* a conventional function has none */
    assert_int_equal(mm_in(h, ECAM_BASE + (1 << 20), 4), 0xFFFFFFFF);
    mm_out(h, b + 0x3C, 0x0A, 1);
    assert_int_equal(cfg_in(h, B_DEVFN, 0x3C, 1), 0x0A);
    /* Eight bytes are two accesses. */
    assert_int_equal(mm_in(h, b, 8), 0x0000000056781234);
    /* It moves and goes. */
    pci_bus_set_ecam(h->dev[DEV_BUS], 0xE0000000, 64 * MiB, true);
    assert_int_equal(mm_in(h, b, 4), 0xFFFFFFFF);
    assert_int_equal(mm_in(h, 0xE0000000 + ((uint64_t)B_DEVFN << 12), 4), 0x56781234);
    assert_true(pci_bus_ecam(h->dev[DEV_BUS], &base, &bytes));
    assert_int_equal(base, 0xE0000000);
    assert_int_equal(bytes, 64 * MiB);
    pci_bus_set_ecam(h->dev[DEV_BUS], 0, 0, false);
    assert_false(pci_bus_ecam(h->dev[DEV_BUS], &base, &bytes));
    harness_destroy(h);
}

static void test_bars(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *a = h->dev[DEV_A];
    uint64_t where;

    /* Sizing, as firmware does it. */
    for (unsigned i = 0; i < 6; i++)
        cfg_out(h, A_DEVFN, 0x10 + i * 4, 0xFFFFFFFF, 4);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x10, 4), 0xFFFFFFE1);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x14, 4), 0xFFFFF000);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x18, 4), 0x0000000C);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x1C, 4), 0xFFFFFFFE);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x20, 4), 0);
    /* Sizing with decoding on maps nothing over the top of memory. */
    cfg_out(h, A_DEVFN, 4, 7, 2);
    assert_int_equal(mm_in(h, 0xFFFFF000, 4), 0xFFFFFFFF);
    cfg_out(h, A_DEVFN, 4, 0, 2);

    cfg_out(h, A_DEVFN, 0x10, 0xC000, 4);
    cfg_out(h, A_DEVFN, 0x14, 0xFE000000, 4);
    cfg_out(h, A_DEVFN, 0x18, 0, 4);
    cfg_out(h, A_DEVFN, 0x1C, 0x10, 4);
    assert_int_equal(io_in(h, 0xC000, 4), 0xFFFFFFFF);
    assert_false(pci_bar_address(&a->pci, 0, &where));
    cfg_out(h, A_DEVFN, 4, PCI_COMMAND_IO, 2);
    io_out(h, 0xC004, 0xCAFE, 4);
    assert_int_equal(io_in(h, 0xC000, 4), 0xCAFE);
    assert_int_equal(mm_in(h, 0xFE000000, 4), 0xFFFFFFFF);
    cfg_out(h, A_DEVFN, 4, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(io_in(h, 0xC000, 4), 0xFFFFFFFF);
    assert_int_equal(mm_in(h, 0xFE000010, 4), 0x11223354);
    assert_int_equal(mm_in(h, 0x1000000000 + 8 * GiB - 4, 4), 0x11223340);
    assert_true(pci_bar_address(&a->pci, 2, &where));
    assert_int_equal(where, 0x1000000000);
    /* Moved a byte at a time while decoding. */
    cfg_out(h, A_DEVFN, 0x17, 0xFD, 1);
    assert_int_equal(mm_in(h, 0xFE000010, 4), 0xFFFFFFFF);
    assert_int_equal(mm_in(h, 0xFD000010, 4), 0x11223354);
    /* Out of the space: an I/O BAR above FFFFH, a 64-bit one above 2^52. */
    cfg_out(h, A_DEVFN, 4, 3, 2);
    cfg_out(h, A_DEVFN, 0x10, 0x1C000, 4);
    assert_false(pci_bar_address(&a->pci, 0, &where));
    cfg_out(h, A_DEVFN, 0x1C, 0x100000, 4);
    assert_false(pci_bar_address(&a->pci, 2, &where));
    cfg_out(h, A_DEVFN, 0x1C, 0xFFFFFFFE, 4);
    assert_false(pci_bar_address(&a->pci, 2, &where));
    harness_reset(h);
    assert_int_equal(mm_in(h, 0xFD000010, 4), 0xFFFFFFFF);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x14, 4), 0);
    assert_int_equal(cfg_in(h, A_DEVFN, 4, 2), 0);
    harness_destroy(h);
}

static void test_command_and_status(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *a = h->dev[DEV_A];

    cfg_out(h, A_DEVFN, 4, 0xFFFF, 2);
    assert_int_equal(cfg_in(h, A_DEVFN, 4, 2), 0x0547);
    le16_put(a->pci.config + PCI_STATUS, 0xF900);
    cfg_out(h, A_DEVFN, 6, 0x8000, 2);
    assert_int_equal(cfg_in(h, A_DEVFN, 6, 2), 0x7900);
    /* A doubleword write of the command clears what it writes ones to, only. */
    cfg_out(h, A_DEVFN, 4, 0x0007, 4);
    assert_int_equal(cfg_in(h, A_DEVFN, 4, 4), 0x79000007);
    harness_destroy(h);
}

static void test_intx(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *a = h->dev[DEV_A], *b = h->dev[DEV_B];

    pci_intx_set(&a->pci, true);
    assert_true(h->line[0].level);
    assert_int_equal(cfg_in(h, A_DEVFN, 6, 2), 8);
    cfg_out(h, A_DEVFN, 4, PCI_COMMAND_INTX_DISABLE, 2);
    assert_false(h->line[0].level);
    assert_int_equal(cfg_in(h, A_DEVFN, 6, 2), 8); /* still wants it */
    cfg_out(h, A_DEVFN, 4, 0, 2);
    assert_true(h->line[0].level);
    pci_intx_set(&b->pci, true);
    assert_true(h->line[1].level);
    /* Both on one wire: it falls with the last. */
    b->pci.config[PCI_INTERRUPT_PIN] = 8;
    pci_bus_reroute(h->dev[DEV_BUS]);
    assert_false(h->line[1].level);
    pci_intx_set(&a->pci, false);
    assert_true(h->line[0].level);
    pci_intx_set(&b->pci, false);
    assert_false(h->line[0].level);
    assert_int_equal(h->line[0].rises, 2);
    pci_intx_set(&a->pci, true);
    harness_reset(h);
    assert_false(h->line[0].level);
    assert_int_equal(cfg_in(h, A_DEVFN, 6, 2), 0);
    harness_destroy(h);
}

static void test_bus_mastering(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *a = h->dev[DEV_A];
    const struct irq_message m = {0xFEE00000, 0x41};
    uint8_t byte = 0;

    pci_message_send(&a->pci, m);
    assert_int_equal(h->message_count, 0);
    assert_int_equal(pci_dma_read(&a->pci, ECAM_BASE, &byte, 1), -EACCES);
    cfg_out(h, A_DEVFN, 4, PCI_COMMAND_BUS_MASTER, 2);
    pci_message_send(&a->pci, m);
    assert_int_equal(h->message_count, 1);
    assert_int_equal(h->message[0].data, 0x41);
    assert_int_equal(pci_dma_read(&a->pci, 0x10, &byte, 1), -EFAULT);
    assert_int_equal(byte, 0xFF);
    harness_destroy(h);
}

static void test_capabilities(void **state)
{
    struct harness *h = harness_create(build);
    struct toy *a = h->dev[DEV_A];
    unsigned pm = pci_capability_add(&a->pci, 1, 8), msi = pci_capability_add(&a->pci, 5, 14);

    assert_int_equal(cfg_in(h, A_DEVFN, 6, 2) & 0x10, 0x10);
    assert_int_equal(cfg_in(h, A_DEVFN, 0x34, 1), pm);
    assert_int_equal(cfg_in(h, A_DEVFN, pm, 2), msi << 8 | 1);
    assert_int_equal(cfg_in(h, A_DEVFN, msi, 2), 5);
    assert_int_equal(pci_capability_add(&a->pci, 9, 200), 0);
    harness_destroy(h);
}

static void test_impossible(void **state)
{
    struct harness *h = harness_create(build);
    const struct pci_identity id = {.vendor = 1};
    struct pci_function *f = calloc(1, sizeof *f);
    struct toy *a = h->dev[DEV_A];
    struct error err;

    assert_non_null(f);
    assert_int_equal(pci_function_init(f, h->dev[DEV_BUS], A_DEVFN, &id, &err), -EBUSY);
    assert_string_equal(err.text, "PCI slot 03.0 is taken; choose another");
    assert_int_equal(pci_bar_add(&a->pci, 0, PCI_BAR_IO, false, "x", 32, &io_ops, a, NULL),
                     -EINVAL);
    assert_int_equal(pci_bar_add(&a->pci, 4, PCI_BAR_IO, false, "x", 33, &io_ops, a, NULL),
                     -EINVAL);
    assert_int_equal(pci_bar_add(&a->pci, 4, PCI_BAR_IO, false, "x", 512, &io_ops, a, NULL),
                     -EINVAL);
    assert_int_equal(pci_bar_add(&a->pci, 5, PCI_BAR_MEMORY64, false, "x", 32, &io_ops, a, NULL),
                     -EINVAL);
    assert_int_equal(pci_bar_add(&a->pci, 6, PCI_BAR_IO, false, "x", 32, &io_ops, a, NULL),
                     -EINVAL);
    assert_int_equal(pci_bar_add(&a->pci, 3, PCI_BAR_IO, false, "x", 32, &io_ops, a, NULL),
                     -EINVAL); /* the upper half of BAR 2 */
    free(f);
    harness_destroy(h);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    const uint8_t devfn = random >> 8 & 1 ? A_DEVFN : B_DEVFN;
    struct toy *t = h->dev[random >> 8 & 1 ? DEV_A : DEV_B];
    unsigned offset = random >> 16 & 0x3F;
    uint32_t value = (uint32_t)(random >> 32);

    switch (random % 8) {
    case 0:
        cfg_out(h, devfn, offset & ~3u, value, 4);
        return 0;
    case 1:
        cfg_out(h, devfn, offset, value, 1);
        return 0;
    case 2:
        cfg_out(h, devfn, 4, value, 2);
        return 0;
    case 3:
        pci_intx_set(&t->pci, value & 1);
        return 0;
    case 4:
        return io_in(h, value & 0xFFFF, 1);
    case 5:
        /* Where a BAR may be. */
        return mm_in(h, le32_get(t->pci.config + 0x14) & ~0xFFFu, 4);
    case 6:
        return mm_in(h, le64_get(t->pci.config + 0x18) & ~0xFFFull & (BIT(52) - 1), 4);
    default:
        return cfg_in(h, devfn, offset & ~3u, 4);
    }
}

static void test_state(void **state)
{
    for (unsigned seed = 1; seed <= 3; seed++)
        harness_fuzz(build, op, 3000, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mechanism_1),
        cmocka_unit_test(test_cf9_hole),
        cmocka_unit_test(test_ecam),
        cmocka_unit_test(test_bars),
        cmocka_unit_test(test_command_and_status),
        cmocka_unit_test(test_intx),
        cmocka_unit_test(test_bus_mastering),
        cmocka_unit_test(test_capabilities),
        cmocka_unit_test(test_impossible),
        cmocka_unit_test(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
