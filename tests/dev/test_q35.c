/*
 * The memory controller hub: where RAM is, PAM, SMRAM, PCIEXBAR. Intel 3
 * Series Express Chipset Family datasheet, section 5.1.
 */
#include "dev/pci/q35_mch.h"
#include "tests/dev/harness.h"

#define RAM_BYTES (2 * GiB + 64 * MiB) /* some of it above 4 GiB */

static struct ram_block *block(struct harness *h, const char *name)
{
    for (struct ram_block *b = h->vm->ram_blocks; b; b = b->next)
        if (!strcmp(b->name, name))
            return b;
    fail_msg("no block %s", name);
    return NULL;
}

static void build_with(struct harness *h, uint64_t ram_bytes)
{
    const struct irq_message_port port = harness_port(h);
    struct q35_mch_config config = {
        .ram = ram_block_create(h->vm, "ram", ram_bytes, RAM_NORMAL, NULL),
        .bios = ram_block_create(h->vm, "bios", 256 * KiB, RAM_ROM, NULL),
    };

    assert_non_null(config.ram);
    assert_non_null(config.bios);
    for (unsigned i = 0; i < 256 * KiB; i += 4)
        le32_put(config.bios->host + i, 0xB1050000 + i / 4);
    h->dev[0] = pci_bus_create(h->vm, &port, NULL);
    h->dev[1] = q35_mch_create(h->vm, h->dev[0], &config, NULL);
    assert_non_null(h->dev[1]);
}

static void build(struct harness *h)
{
    build_with(h, RAM_BYTES);
}

static uint32_t cfg_in(struct harness *h, unsigned offset, unsigned size)
{
    return pci_config_read(h->dev[0], 0, 0, offset, size);
}

static void cfg_out(struct harness *h, unsigned offset, uint32_t value, unsigned size)
{
    pci_config_write(h->dev[0], 0, 0, offset, value, size);
}

static void test_identity(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(cfg_in(h, 0x00, 4), 0x29C08086);
    assert_int_equal(cfg_in(h, 0x08, 4), 0x06000002);
    assert_int_equal(cfg_in(h, 0x2C, 4), 0x11001AF4);
    assert_int_equal(cfg_in(h, 0x0E, 1), 0);
    assert_int_equal(cfg_in(h, 0x04, 2), 6);
    cfg_out(h, 0x04, 0, 2);
    assert_int_equal(cfg_in(h, 0x04, 2), 6);
    assert_int_equal(cfg_in(h, 0xA0, 2), 33);     /* TOM: 64 MiB units */
    assert_int_equal(cfg_in(h, 0xA2, 2), 0x1040); /* TOUUD */
    assert_int_equal(cfg_in(h, 0xB0, 2), 0x8000); /* TOLUD */
    harness_destroy(h);
}

static void test_memory_map(void **state)
{
    struct harness *h = harness_create(build);
    uint8_t *ram = block(h, "ram")->host;

    ram[0] = 1;
    ram[0x9FFFF] = 2;
    ram[0xA0000] = 3;
    ram[0x100000] = 4;
    ram[0x7FFFFFFF] = 5;
    ram[0x80000000] = 6;
    ram[RAM_BYTES - 1] = 7;
    assert_int_equal(mm_in(h, 0, 1), 1);
    assert_int_equal(mm_in(h, 0x9FFFF, 1), 2);
    assert_int_equal(mm_in(h, 0xA0000, 1), 0xFF);
    assert_int_equal(mm_in(h, 0x100000, 1), 4);
    assert_int_equal(mm_in(h, 0x7FFFFFFF, 1), 5);
    assert_int_equal(mm_in(h, 0x80000000, 1), 0xFF);
    assert_int_equal(mm_in(h, 0x100000000, 1), 6);
    assert_int_equal(mm_in(h, 0x104000000 - 1, 1), 7);
    assert_int_equal(mm_in(h, 0x104000000, 1), 0xFF);
    harness_destroy(h);
}

/* Every segment in every state, the others left alone. */
static void test_pam(void **state)
{
    struct harness *h = harness_create(build);
    uint8_t *ram = block(h, "ram")->host, *bios = block(h, "bios")->host;

    for (unsigned i = 0; i < 13; i++) {
        uint64_t base = i == 12 ? 0xF0000 : 0xC0000 + i * 0x4000;
        uint64_t last = i == 12 ? 0xFFFFC : base + 0x3FFC;
        unsigned reg = i == 12 ? 0x90 : 0x91 + i / 2, shift = i == 12 || i % 2 ? 4 : 0;

        for (unsigned attr = 0; attr < 4; attr++) {
            for (unsigned end = 0; end < 2; end++) {
                uint64_t at = end ? last : base;
                uint32_t below = at < 0xE0000 ? 0xFFFFFFFF : le32_get(bios + at - 0xC0000);
                uint32_t in_ram = 0x12340000 + i;

                le32_put(ram + at, in_ram);
                cfg_out(h, reg, attr << shift, 1);
                assert_int_equal(cfg_in(h, reg, 1), attr << shift);
                assert_int_equal(mm_in(h, at, 4), attr & 1 ? in_ram : below);
                mm_out(h, at, 0xABCD, 4);
                assert_int_equal(le32_get(ram + at), attr & 2 ? 0xABCD : in_ram);
                assert_int_equal(mm_in(h, at, 4), attr == 3 ? 0xABCD : attr == 1 ? in_ram : below);
            }
        }
        cfg_out(h, reg, 0, 1);
    }
    /* Reserved bits read 0. */
    cfg_out(h, 0x90, 0xFFFFFFFF, 4);
    cfg_out(h, 0x94, 0xFFFFFF, 2);
    assert_int_equal(cfg_in(h, 0x90, 4), 0x33333330);
    harness_reset(h);
    assert_int_equal(cfg_in(h, 0x90, 4), 0);
    assert_int_equal(mm_in(h, 0xFFFF0, 4), le32_get(bios + 0x3FFF0));
    harness_destroy(h);
}

/* Firmware copies itself: reads from ROM, writes to RAM, then runs in RAM. */
static void test_shadowing(void **state)
{
    struct harness *h = harness_create(build);
    uint8_t buffer[4096];

    cfg_out(h, 0x90, 0x20, 1);
    for (uint64_t at = 0xF0000; at < 0x100000; at += sizeof buffer) {
        assert_int_equal(as_read(&h->vm->memory, at, buffer, sizeof buffer), 0);
        assert_int_equal(as_write(&h->vm->memory, at, buffer, sizeof buffer), 0);
    }
    cfg_out(h, 0x90, 0x10, 1);
    assert_memory_equal(block(h, "ram")->host + 0xF0000, block(h, "bios")->host + 0x30000, 0x10000);
    mm_out(h, 0xF0000, 0, 4);
    assert_int_equal(mm_in(h, 0xF0000, 4), 0xB1050000 + 0xC000);
    harness_destroy(h);
}

static void test_pciexbar(void **state)
{
    struct harness *h = harness_create(build);
    uint64_t bytes;
    gpa_t base;

    assert_int_equal(cfg_in(h, 0x60, 4), 0xE0000000);
    assert_false(pci_bus_ecam(h->dev[0], &base, &bytes));
    cfg_out(h, 0x64, 0, 4); /* as firmware does */
    cfg_out(h, 0x60, 0xB0000001, 4);
    assert_int_equal(mm_in(h, 0xB0000000, 4), 0x29C08086);
    assert_true(pci_bus_ecam(h->dev[0], &base, &bytes));
    assert_int_equal(bytes, 256 * MiB);
    cfg_out(h, 0x60, 0xBC000003, 4); /* 128 MiB: aligned down to that */
    assert_int_equal(mm_in(h, 0xB0000000, 4), 0xFFFFFFFF);
    assert_int_equal(mm_in(h, 0xB8000000, 4), 0x29C08086);
    cfg_out(h, 0x60, 0xBC000005, 4);
    assert_true(pci_bus_ecam(h->dev[0], &base, &bytes));
    assert_int_equal(base, 0xBC000000);
    assert_int_equal(bytes, 64 * MiB);
    cfg_out(h, 0x60, 0xBC000007, 4); /* reserved */
    assert_false(pci_bus_ecam(h->dev[0], &base, &bytes));
    cfg_out(h, 0x64, 0xFFFFFFFF, 4); /* 36 bits of address */
    cfg_out(h, 0x60, 0xFFFFFFF1, 4);
    assert_int_equal(cfg_in(h, 0x64, 4), 0xF);
    assert_int_equal(cfg_in(h, 0x60, 4), 0xFC000001);
    assert_int_equal(mm_in(h, 0xFF0000000, 4), 0x29C08086);
    cfg_out(h, 0x64, 0, 4);
    cfg_out(h, 0x60, 1, 4); /* not over address 0 */
    assert_false(pci_bus_ecam(h->dev[0], &base, &bytes));
    harness_destroy(h);
}

static void test_smram(void **state)
{
    struct harness *h = harness_create(build);

    block(h, "ram")->host[0xA0000] = 0x5A;
    assert_int_equal(cfg_in(h, 0x9D, 1), 0x02);
    assert_int_equal(cfg_in(h, 0x9E, 1), 0x38);
    cfg_out(h, 0x9D, 0x48, 1);
    assert_int_equal(mm_in(h, 0xA0000, 1), 0x5A);
    cfg_out(h, 0x9D, 0x40, 1); /* not without G_SMRAME */
    assert_int_equal(mm_in(h, 0xA0000, 1), 0xFF);
    cfg_out(h, 0xAC, 0x7F800000, 4);
    cfg_out(h, 0x9D, 0x58, 1); /* open and locked: closes */
    assert_int_equal(cfg_in(h, 0x9D, 1), 0x1A);
    assert_int_equal(mm_in(h, 0xA0000, 1), 0xFF);
    cfg_out(h, 0x9D, 0x48, 1);
    cfg_out(h, 0x9E, 0x07, 1);
    cfg_out(h, 0xAC, 0, 4);
    assert_int_equal(cfg_in(h, 0x9D, 1), 0x1A);
    assert_int_equal(cfg_in(h, 0x9E, 1), 0x38);
    assert_int_equal(cfg_in(h, 0xAC, 4), 0x7F800000);
    /* The lock moves with the machine, and a machine that is locked takes the
     * state of one that is not. */
    harness_reload(h);
    cfg_out(h, 0x9D, 0x48, 1);
    assert_int_equal(cfg_in(h, 0x9D, 1), 0x1A);
    harness_reset(h);
    cfg_out(h, 0x9D, 0x48, 1);
    assert_int_equal(cfg_in(h, 0x9D, 1), 0x4A);
    block(h, "ram")->host[0xA0000] = 0x5A; /* RAM was not moved */
    assert_int_equal(mm_in(h, 0xA0000, 1), 0x5A);
    harness_destroy(h);
}

static void build_small(struct harness *h)
{
    build_with(h, MiB);
}

static void test_small(void **state)
{
    struct harness *h = harness_create(build_small);
    struct error err;
    struct q35_mch_config config;

    assert_int_equal(mm_in(h, 0x100000, 4), 0xFFFFFFFF);
    assert_int_equal(mm_in(h, 0x9FFFC, 4), 0);
    config.ram = ram_block_create(h->vm, "tiny", 4096, RAM_NORMAL, NULL);
    assert_null(q35_mch_create(h->vm, h->dev[0], &config, &err));
    assert_string_equal(err.text, "a PC needs at least 1 MiB of memory");
    harness_destroy(h);
}

static void build_medium(struct harness *h)
{
    build_with(h, 2 * MiB);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    uint32_t value = (uint32_t)(random >> 32);

    switch (random % 5) {
    case 0:
        cfg_out(h, random >> 8 & 0xFF, value, 1);
        return 0;
    case 1:
        cfg_out(h, 0x60 + (random >> 8 & 7 & ~3u), value, 4);
        return 0;
    case 2:
        cfg_out(h, 0x90 + (random >> 8 & 7), value, 1);
        return 0;
    case 3:
        return cfg_in(h, random >> 8 & 0xFC, 4);
    default:
        return mm_in(h, 0xA0000 + (value & 0x7FFFC), 4);
    }
}

static void test_state(void **state)
{
    harness_fuzz(build_medium, op, 3000, 1);
    harness_fuzz(build_medium, op, 3000, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity), cmocka_unit_test(test_memory_map),
        cmocka_unit_test(test_pam),      cmocka_unit_test(test_shadowing),
        cmocka_unit_test(test_pciexbar), cmocka_unit_test(test_smram),
        cmocka_unit_test(test_small),    cmocka_unit_test(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
