/*
 * The whole board without a running processor: what is where, how interrupts
 * travel, what firmware and a kernel find, and that reset brings it all back.
 */
#include "tests/unit/cpu_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "board/pc.h"
#include "dev/pci/pci.h"
#include "tests/unit/boot_images.h"

#define VIREO_RSDP 0xf0000

struct board {
    struct vm *vm;
    struct pc *pc;
    struct error err;
    char kernel[32];
};

static void kernel_make(char path[32])
{
    struct test_image t;
    int fd;

    make_pvh32(&t);
    strcpy(path, "/tmp/vireo-pc-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, t.data, t.bytes), (ssize_t)t.bytes);
    close(fd);
}

static struct pc_config default_config(struct board *b)
{
    return (struct pc_config){
        .memory_bytes = 64 * MiB,
        .cpus = 2,
        .engine = &fixture_engine,
        .cpu = "x86-64-v2",
        .kernel = b->kernel,
    };
}

static int board_start(struct board *b, const struct pc_config *config)
{
    struct vm_config vm_config = {.deterministic = true, .seed = 7};

    b->vm = vm_create(&vm_config, &b->err);
    assert_non_null(b->vm);
    return pc_create(b->vm, config, &b->pc, &b->err);
}

static void board_begin(struct board *b)
{
    memset(b, 0, sizeof *b);
    kernel_make(b->kernel);
}

static void board_end(struct board *b)
{
    vm_destroy(b->vm);
    b->vm = NULL;
}

static uint64_t mem(struct board *b, gpa_t at, unsigned size)
{
    uint64_t v = 0;

    as_load(&b->vm->memory, at, size, &v);
    return v;
}

static uint64_t in(struct board *b, uint16_t port, unsigned size)
{
    uint64_t v = 0;

    as_load(&b->vm->ports, port, size, &v);
    return v;
}

static void out(struct board *b, uint16_t port, unsigned size, uint64_t v)
{
    as_store(&b->vm->ports, port, size, v);
}

static uint8_t fw_cfg_byte(struct board *b)
{
    return (uint8_t)in(b, 0x511, 1);
}

/* The selector of a file; 0: there is none. */
static uint16_t fw_cfg_file_find(struct board *b, const char *name, uint32_t *bytes)
{
    uint32_t count = 0;

    out(b, 0x510, 2, 0x19);
    for (unsigned n = 0; n < 4; n++)
        count = count << 8 | fw_cfg_byte(b);
    while (count--) {
        uint8_t e[64];

        for (unsigned n = 0; n < sizeof e; n++)
            e[n] = fw_cfg_byte(b);
        if (strcmp((char *)e + 8, name) == 0) {
            *bytes = __builtin_bswap32(le32_get(e));
            return __builtin_bswap16(le16_get(e + 4));
        }
    }
    return 0;
}

static void a_direct_boot_finds_a_posted_machine(void **state)
{
    struct board b;
    struct pc_config config;
    struct x86_cpu *s;
    uint64_t rsdp, v;

    board_begin(&b);
    config = default_config(&b);
    assert_int_equal(board_start(&b, &config), 0);
    s = &pc_cpu(b.pc, 0)->s;
    assert_int_equal(s->reg[X86_RIP], 0x200200);
    assert_int_equal(mem(&b, 0x200200, 1), 0xcc);

    /* RSDP in the F-segment, tables below the end of RAM, ECAM with the host
     * bridge in it. */
    rsdp = mem(&b, s->reg[X86_RBX] + 32, 8);
    assert_int_equal(rsdp, VIREO_RSDP);
    assert_int_equal(mem(&b, rsdp, 8), le64_get("RSD PTR "));
    v = mem(&b, rsdp + 24, 8);
    assert_true(v >= 64 * MiB - 64 * KiB && v < 64 * MiB);
    assert_int_equal(mem(&b, v, 4), le32_get("XSDT"));
    assert_int_equal(mem(&b, rsdp + 0x40, 4), le32_get("_SM3"));
    assert_int_equal(mem(&b, 0xb0000000, 4), 0x29c08086);
    assert_int_equal(mem(&b, 0xb0000000 + (31 << 15), 4), 0x29188086);

    /* The BIOS area is write-protected, its reset vector jumps. */
    as_store(&b.vm->memory, 0xffff0, 1, 0);
    assert_int_equal(mem(&b, 0xffff0, 1), 0xe9);
    assert_int_equal(mem(&b, 0xfffffff0, 1), 0xe9);
    assert_int_equal(mem(&b, 0x10 * 4 + 2, 2), 0xf000);
    assert_int_equal(mem(&b, 0x40e, 2), 0x9fc0);
    assert_int_equal(mem(&b, 0x400, 2), 0x3f8);

    /* PM base, SCI enabled; timer counting there. */
    assert_int_equal(in(&b, 0x604, 2) & 1, 1);
    /* Virtual wire mode; MTRRs alike on both processors. */
    assert_int_equal(lapic_mmio_read(pc_cpu(b.pc, 0)->lapic, 0x350, 4) & 0x107ff, 0x700);
    assert_int_equal(lapic_mmio_read(pc_cpu(b.pc, 0)->lapic, 0x360, 4) & 0x107ff, 0x400);
    assert_memory_equal(s->mtrr_fixed, pc_cpu(b.pc, 1)->s.mtrr_fixed, sizeof s->mtrr_fixed);
    assert_int_equal(s->mtrr_def_type, 0xc06);
    assert_int_equal(s->mtrr_base[0], 0x80000000);
    board_end(&b);
    unlink(b.kernel);
}

static void reset_loads_everything_again(void **state)
{
    struct board b;
    struct pc_config config;
    uint64_t first[2], again[2];

    board_begin(&b);
    config = default_config(&b);
    assert_int_equal(board_start(&b, &config), 0);
    vm_state_hash(b.vm, first);
    as_store(&b.vm->memory, 0x200200, 8, 0);
    as_store(&b.vm->memory, 64 * MiB - 64 * KiB, 8, 0);
    out(&b, 0xcf8, 4, 0x80000090); /* PAM0 */
    out(&b, 0xcfc, 1, 0x30);
    as_store(&b.vm->memory, VIREO_RSDP, 8, 0);
    pc_cpu(b.pc, 0)->s.reg[X86_RIP] = 0;
    for (unsigned n = 0; n < b.vm->device_count; n++)
        if (b.vm->devices[n].type->reset)
            b.vm->devices[n].type->reset(b.vm->devices[n].self);
    for (unsigned n = 0; n < b.vm->vcpu_count; n++)
        b.vm->vcpus[n]->ops->reset(b.vm->vcpus[n]);
    vm_lock(b.vm);
    assert_int_equal(b.vm->after_reset(b.vm->board, &b.err), 0);
    vm_unlock(b.vm);
    vm_state_hash(b.vm, again);
    assert_int_equal(mem(&b, 0x200200, 1), 0xcc);
    assert_int_equal(mem(&b, VIREO_RSDP, 8), le64_get("RSD PTR "));
    assert_int_equal(pc_cpu(b.pc, 0)->s.reg[X86_RIP], 0x200200);
    assert_memory_equal(first, again, sizeof first);

    /* A kernel that went away is an error, not a crash. */
    assert_int_equal(truncate(b.kernel, 10), 0);
    vm_lock(b.vm);
    assert_true(b.vm->after_reset(b.vm->board, &b.err) < 0);
    vm_unlock(b.vm);
    assert_true(b.err.text[0] != '\0');
    board_end(&b);
    unlink(b.kernel);
}

static void interrupts_reach_both_controllers(void **state)
{
    struct board b;
    struct pc_config config;
    struct x86_vcpu *c;

    board_begin(&b);
    config = default_config(&b);
    config.devices[config.device_count++] = "testdev";
    assert_int_equal(board_start(&b, &config), 0);
    c = pc_cpu(b.pc, 0);
    out(&b, 0x21, 1, 0xe9); /* unmask 1, 2 and 4 at the 8259 */
    out(&b, 0xa1, 1, 0xfd); /* and 9 */

    /* GSI 1 by testdev: INTR, and vector 8 + 1 at the acknowledge. */
    out(&b, 0x2001, 1, 1);
    assert_true(c->s.intr_pin || atomic_load(&c->vcpu.events) & EVENT_INTERRUPT);
    assert_int_equal(c->intr_ack(c->intr_ack_ctx), 8 + 1);
    out(&b, 0x20, 1, 0x20);
    out(&b, 0x2001, 1, 0);
    /* SCI 9 is level-triggered behind the cascade. */
    out(&b, 0x2009, 1, 1);
    assert_int_equal(c->intr_ack(c->intr_ack_ctx), 0x70 + 1);
    out(&b, 0x2009, 1, 0);
    out(&b, 0xa0, 1, 0x20);
    out(&b, 0x20, 1, 0x20);

    /* The same line at the IOAPIC: input 1, and input 2 for GSI 0, where the
     * 8254's output has to be low for an edge: mode 0. */
    out(&b, 0x43, 1, 0x30);
    for (unsigned gsi = 0; gsi < 2; gsi++) {
        unsigned pin = gsi ? 1 : 2;

        as_store(&b.vm->memory, 0xfec00000, 4, 0x10 + 2 * pin);
        as_store(&b.vm->memory, 0xfec00010, 4, 0x40 + pin); /* fixed, edge, unmasked */
        out(&b, (uint16_t)(0x2000 + gsi), 1, 1);
        assert_true(lapic_has_interrupt(c->lapic));
        assert_int_equal(lapic_accept(c->lapic), 0x40 + (int)pin);
        lapic_mmio_write(c->lapic, 0xb0, 0, 4);
        out(&b, (uint16_t)(0x2000 + gsi), 1, 0);
    }

    /* FERR# is IRQ 13 until port F0H is written. */
    out(&b, 0x21, 1, 0xfb);
    out(&b, 0xa1, 1, 0xdf);
    irq_raise(&c->ferr);
    assert_int_equal(c->intr_ack(c->intr_ack_ctx), 0x70 + 5);
    out(&b, 0xa0, 1, 0x20);
    out(&b, 0x20, 1, 0x20);
    irq_lower(&c->ferr);
    out(&b, 0xf0, 1, 0);
    irq_raise(&c->ferr);
    assert_int_equal(c->intr_ack(c->intr_ack_ctx), 0x70 + 5);
    board_end(&b);
    unlink(b.kernel);
}

static void firmware_is_told_about_the_machine(void **state)
{
    char rom[] = "/tmp/vireo-rom-XXXXXX";
    struct board b;
    struct pc_config config;
    uint32_t bytes;
    uint16_t key;
    uint8_t e820[40];
    int fd = mkstemp(rom);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 256 * KiB), 0);
    assert_int_equal(pwrite(fd, "\xea", 1, 256 * KiB - 16), 1);
    assert_int_equal(pwrite(fd, "low", 3, 128 * KiB), 3);
    close(fd);
    board_begin(&b);
    config = default_config(&b);
    config.kernel = NULL;
    config.firmware = rom;
    config.memory_bytes = 3 * GiB;
    assert_int_equal(board_start(&b, &config), 0);

    /* ROM below 4 GiB, its last 128 KiB below 1 MiB, RAM split at 2 GiB. */
    assert_int_equal(mem(&b, 0xfffffff0, 1), 0xea);
    assert_int_equal(mem(&b, 0xffff0, 1), 0xea);
    assert_int_equal(mem(&b, 0xe0000, 2), le16_get("lo"));
    as_store(&b.vm->memory, 0xfffffff0, 1, 0);
    assert_int_equal(mem(&b, 0xfffffff0, 1), 0xea);
    as_store(&b.vm->memory, 0x7ffffff8, 8, 1);
    assert_int_equal(mem(&b, 0x7ffffff8, 8), 1);
    assert_int_equal(mem(&b, 0x80000000, 8), ~0ull);
    as_store(&b.vm->memory, 5 * GiB - 8, 8, 2);
    assert_int_equal(mem(&b, 5 * GiB - 8, 8), 2);
    assert_int_equal(mem(&b, 5 * GiB, 8), ~0ull);

    out(&b, 0x70, 1, 0x5f);
    assert_int_equal(in(&b, 0x71, 1), 1);
    out(&b, 0x70, 1, 0x5c);
    assert_int_equal(in(&b, 0x71, 1), 1 * GiB / (64 * KiB) >> 8);
    out(&b, 0x510, 2, 5);
    assert_int_equal(fw_cfg_byte(&b), 2);

    key = fw_cfg_file_find(&b, "etc/e820", &bytes);
    assert_int_equal(bytes, sizeof e820);
    out(&b, 0x510, 2, key);
    for (unsigned n = 0; n < sizeof e820; n++)
        e820[n] = fw_cfg_byte(&b);
    assert_int_equal(le64_get(e820 + 8), 2 * GiB);
    assert_int_equal(le64_get(e820 + 20), 4 * GiB);
    assert_int_equal(le64_get(e820 + 28), 1 * GiB);
    assert_int_equal(fw_cfg_file_find(&b, "etc/sercon-port", &bytes), 0);

    /* ACPI is built for the chipset as it is when selected: move ECAM. */
    pci_config_write(pc_pci_bus(b.pc), 0, PCI_DEVFN(0, 0), 0x60, 0xc0000001, 4);
    key = fw_cfg_file_find(&b, "etc/acpi/tables", &bytes);
    assert_true(key != 0);
    out(&b, 0x510, 2, key);
    {
        uint8_t *tables = malloc(bytes);
        uint8_t *mcfg = NULL;

        assert_non_null(tables);
        for (uint32_t n = 0; n < bytes; n++)
            tables[n] = fw_cfg_byte(&b);
        for (uint32_t n = 0; n + 60 <= bytes; n += 16)
            if (memcmp(tables + n, "MCFG", 4) == 0)
                mcfg = tables + n;
        assert_non_null(mcfg);
        assert_int_equal(le64_get(mcfg + 44), 0xc0000000);
        free(tables);
    }
    board_end(&b);
    unlink(b.kernel);
    unlink(rom);
}

static void wrong_configurations_are_one_line(void **state)
{
    static const struct {
        const char *spec;
        const char *says;
    } devices[] = {
        {"nothing", "there is no device"},      {"", "there is no device"},
        {"testdev,a=1", "takes no options"},    {"debug-exit,port", "no option"},
        {"debug-exit,port=", "no option"},      {"debug-exit,port=x", "not a number"},
        {"debug-exit,port=-1", "not a number"}, {"debug-exit,port=65536", "not a number"},
        {"debug-exit,size=3", "1, 2 or 4"},     {"debug-exit,wrong=3", "no option"},
        {"debug-exit,", "no option"},
    };
    struct board b;
    struct pc_config config;

    board_begin(&b);
    for (size_t n = 0; n < ARRAY_SIZE(devices); n++) {
        assert_int_equal(pc_device_check(devices[n].spec, &b.err), -EINVAL);
        assert_non_null(strstr(b.err.text, devices[n].says));
    }
    assert_int_equal(pc_device_check("debug-exit", &b.err), 0);
    assert_int_equal(pc_device_check("debug-exit,port=0x501,size=1", &b.err), 0);

    config = default_config(&b);
    config.memory_bytes = 1 * MiB;
    assert_int_equal(board_start(&b, &config), -EINVAL);
    assert_non_null(strstr(b.err.text, "--memory"));
    board_end(&b);
    config = default_config(&b);
    config.memory_bytes = 2 * MiB; /* the kernel is linked there */
    assert_int_equal(board_start(&b, &config), -ENOMEM);
    board_end(&b);
    config = default_config(&b);
    config.cpu = "486";
    assert_int_equal(board_start(&b, &config), -EINVAL);
    board_end(&b);
    config = default_config(&b);
    config.kernel = NULL;
    assert_int_equal(board_start(&b, &config), -EINVAL);
    board_end(&b);
    config = default_config(&b);
    config.devices[0] = config.devices[1] = "debug-exit";
    config.device_count = 2;
    assert_int_equal(board_start(&b, &config), -EEXIST);
    board_end(&b);
    unlink(b.kernel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_direct_boot_finds_a_posted_machine),
        cmocka_unit_test(reset_loads_everything_again),
        cmocka_unit_test(interrupts_reach_both_controllers),
        cmocka_unit_test(firmware_is_told_about_the_machine),
        cmocka_unit_test(wrong_configurations_are_one_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
