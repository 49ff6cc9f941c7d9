/*
 * fw_cfg by its selector and data ports and by DMA, with what a guest may do
 * wrong.
 */
#include "dev/misc/fw_cfg.h"
#include "tests/dev/harness.h"

#include <errno.h>
#include <stdio.h>

enum { SELECT = 0x510, DATA = 0x511, DMA_HIGH = 0x514, DMA_LOW = 0x518 };
enum { ERROR = 1, READ = 2, SKIP = 4, CHOOSE = 8, WRITE = 16 };
#define RAM_BYTES (4 * MiB)
#define DESCRIPTOR 0x1000ull
#define BUFFER 0x2000ull

/* What the callbacks of the current machine did. */
struct calls {
    unsigned built, written;
    size_t offset, bytes;
};

static void build_file(void *ctx, uint8_t *data, size_t bytes)
{
    struct harness *h = ctx;
    struct calls *c = h->test;

    assert_int_equal(bytes, 100);
    data[0] = 0xB0;
    data[1] = (uint8_t)harness_now_ns(h); /* something that changes */
    c->built++;
}

static void file_written(void *ctx, size_t offset, size_t bytes)
{
    struct harness *h = ctx;
    struct calls *c = h->test;

    c->written++;
    c->offset = offset;
    c->bytes = bytes;
}

static void build(struct harness *h)
{
    static struct calls calls[2];
    static unsigned turn;
    static struct region ram_regions[8]; /* never more machines at a time */
    static unsigned ram_turn;
    struct region *r = &ram_regions[ram_turn++ % ARRAY_SIZE(ram_regions)];
    struct ram_block *ram = ram_block_create(h->vm, "ram", RAM_BYTES, RAM_NORMAL, NULL);
    struct fw_cfg *f = fw_cfg_create(h->vm, NULL);

    if (!h->test)
        h->test = &calls[turn++ % 2];
    assert_non_null(ram);
    assert_non_null(f);
    h->dev[0] = f;
    *r = (struct region){.name = "ram", .size = RAM_BYTES, .ram = ram};
    assert_int_equal(region_add(&h->vm->memory, r), 0);
    assert_int_equal(fw_cfg_add_bytes(f, FW_CFG_NB_CPUS, "\x04\x00", 2, NULL), 0);
    assert_int_equal(fw_cfg_add_bytes(f, FW_CFG_ARCH_LOCAL + 3, "e820", 4, NULL), 0);
    assert_int_equal(fw_cfg_add_file(f, "etc/zebra", "zzz", 3, NULL), 0);
    assert_int_equal(fw_cfg_add_file_static(f, "bootorder", "hd", 3, NULL), 0);
    assert_int_equal(fw_cfg_add_file_callback(f, "etc/acpi/tables", 100, build_file, h, NULL), 0);
    assert_int_equal(
        fw_cfg_add_file_writable(f, "etc/writable", "12345678", 8, file_written, h, NULL), 0);
    assert_int_equal(fw_cfg_add_file(f, "empty", NULL, 0, NULL), 0);
}

static void choose(struct harness *h, uint16_t key)
{
    io_out(h, SELECT, key, 2);
}

static uint32_t be32(struct harness *h)
{
    uint32_t v = 0;

    for (unsigned i = 0; i < 4; i++)
        v = v << 8 | inb(h, DATA);
    return v;
}

/* Looks a file up in the directory, as firmware does. */
static uint16_t find(struct harness *h, const char *name, uint32_t *bytes)
{
    uint32_t count;

    choose(h, FW_CFG_FILE_DIR);
    count = be32(h);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t size = be32(h), select = be32(h) >> 16;
        char entry[56];

        for (unsigned c = 0; c < sizeof entry; c++)
            entry[c] = (char)inb(h, DATA);
        if (!strcmp(entry, name)) {
            *bytes = size;
            return (uint16_t)select;
        }
    }
    return 0;
}

static void descriptor(struct harness *h, uint32_t control, uint32_t bytes, uint64_t address)
{
    uint8_t d[16];

    le32_put(d, __builtin_bswap32(control));
    le32_put(d + 4, __builtin_bswap32(bytes));
    le64_put(d + 8, __builtin_bswap64(address));
    assert_int_equal(as_write(&h->vm->memory, DESCRIPTOR, d, sizeof d), 0);
}

static uint32_t go(struct harness *h, uint64_t where)
{
    io_out(h, DMA_HIGH, __builtin_bswap32((uint32_t)(where >> 32)), 4);
    io_out(h, DMA_LOW, __builtin_bswap32((uint32_t)where), 4);
    return __builtin_bswap32((uint32_t)mm_in(h, where, 4));
}

static uint32_t dma(struct harness *h, uint32_t control, uint32_t bytes, uint64_t address)
{
    descriptor(h, control, bytes, address);
    return go(h, DESCRIPTOR);
}

static void test_ports(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(inb(h, DATA), 0); /* nothing is selected */
    choose(h, FW_CFG_SIGNATURE);
    assert_int_equal(be32(h), 0x51454D55);
    assert_int_equal(inb(h, DATA), 0); /* past the end */
    choose(h, FW_CFG_ID);
    assert_int_equal(be32(h), 0x03000000);
    choose(h, FW_CFG_NB_CPUS | 0x4000); /* the old write flag */
    assert_int_equal(inb(h, DATA), 4);
    outb(h, DATA, 9); /* the port cannot be written */
    choose(h, FW_CFG_NB_CPUS);
    assert_int_equal(inb(h, DATA), 4);
    choose(h, FW_CFG_ARCH_LOCAL + 3);
    assert_int_equal(be32(h), 0x65383230);
    choose(h, 3); /* not the same without bit 15 */
    assert_int_equal(be32(h), 0);
    choose(h, FW_CFG_SIGNATURE);
    outb(h, SELECT, 5); /* a byte selects nothing */
    assert_int_equal(inb(h, DATA), 'Q');
    assert_int_equal(inb(h, SELECT), 0xFF);
    choose(h, 0xFFFF);
    assert_int_equal(be32(h), 0);
    harness_reset(h);
    assert_int_equal(inb(h, DATA), 0);
    harness_destroy(h);
}

static void test_directory(void **state)
{
    static const char *const sorted[] = {"bootorder", "empty", "etc/acpi/tables", "etc/writable",
                                         "etc/zebra"};
    static const uint32_t sizes[] = {3, 0, 100, 8, 3};
    struct harness *h = harness_create(build);
    uint32_t bytes = 0;

    choose(h, FW_CFG_FILE_DIR);
    assert_int_equal(be32(h), 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(find(h, sorted[i], &bytes), FW_CFG_FILE_FIRST + i);
        assert_int_equal(bytes, sizes[i]);
    }
    choose(h, find(h, "etc/zebra", &bytes));
    assert_int_equal(be32(h), 0x7A7A7A00);
    assert_int_equal(find(h, "none", &bytes), 0);
    harness_destroy(h);
}

static void test_built(void **state)
{
    struct harness *h = harness_create(build);
    struct calls *calls = h->test;
    uint32_t bytes;
    uint16_t key = find(h, "etc/acpi/tables", &bytes);
    unsigned before = calls->built;

    harness_advance(h, 7);
    choose(h, key);
    assert_int_equal(calls->built, before + 1);
    harness_advance(h, 1);
    assert_int_equal(be32(h), 0xB0070000); /* as it was when it was selected */
    assert_int_equal(calls->built, before + 1);
    choose(h, key);
    assert_int_equal(be32(h), 0xB0080000);
    assert_int_equal(dma(h, (uint32_t)key << 16 | CHOOSE | READ, 100, BUFFER), 0);
    assert_int_equal(mm_in(h, BUFFER, 2), 0x08B0);
    assert_int_equal(calls->built, before + 3);
    /* In the middle of it, the machine moves. */
    choose(h, key);
    inb(h, DATA);
    harness_advance(h, 1);
    harness_reload(h);
    assert_int_equal(inb(h, DATA), 8);
    harness_destroy(h);
}

static void test_dma(void **state)
{
    struct harness *h = harness_create(build);
    uint32_t bytes;
    uint16_t key = find(h, "etc/zebra", &bytes);

    assert_int_equal(io_in(h, DMA_HIGH, 4), 0x554D4551); /* "QEMU CFG" */
    assert_int_equal(io_in(h, DMA_HIGH, 8), 0x47464320554D4551);
    mm_out(h, BUFFER, ~0ull, 8);
    /* Past the end come zeros. */
    assert_int_equal(dma(h, (uint32_t)key << 16 | CHOOSE | READ, 5, BUFFER), 0);
    assert_int_equal(mm_in(h, BUFFER, 8), 0xFFFFFF00007A7A7A);
    /* Select, skip, read as three. */
    assert_int_equal(dma(h, CHOOSE, 0, 0), 0);
    assert_int_equal(dma(h, SKIP, 2, 0), 0);
    assert_int_equal(dma(h, READ, 2, BUFFER), 0);
    assert_int_equal(mm_in(h, BUFFER, 2), 0x554D);
    assert_int_equal(dma(h, CHOOSE | SKIP, 0xFFFFFFFF, 0), 0);
    assert_int_equal(dma(h, SKIP, 0xFFFFFFFF, 0), 0); /* does not come round */
    assert_int_equal(inb(h, DATA), 0);
    /* The data port goes on where DMA stopped. */
    assert_int_equal(dma(h, CHOOSE | READ, 1, BUFFER), 0);
    assert_int_equal(inb(h, DATA), 'E');
    /* As one access of 8 bytes, and by bytes, which does nothing. */
    descriptor(h, CHOOSE | READ, 4, BUFFER);
    io_out(h, DMA_HIGH, __builtin_bswap64(DESCRIPTOR), 8);
    assert_int_equal(mm_in(h, DESCRIPTOR, 4), 0);
    assert_int_equal(mm_in(h, BUFFER, 4), 0x554D4551);
    descriptor(h, READ, 4, BUFFER);
    for (unsigned i = 0; i < 8; i++)
        outb(h, DMA_HIGH + i, 0);
    assert_int_equal(mm_in(h, DESCRIPTOR, 4), __builtin_bswap32(READ));
    harness_destroy(h);
}

static void test_writable(void **state)
{
    struct harness *h = harness_create(build);
    struct calls *calls = h->test;
    uint32_t bytes;
    uint16_t key = find(h, "etc/writable", &bytes);
    unsigned before = calls->written;

    mm_out(h, BUFFER, 0x44434241, 4);
    assert_int_equal(dma(h, (uint32_t)key << 16 | CHOOSE | SKIP, 4, 0), 0);
    assert_int_equal(dma(h, WRITE, 4, BUFFER), 0);
    assert_int_equal(calls->written, before + 1);
    assert_int_equal(calls->offset, 4);
    assert_int_equal(calls->bytes, 4);
    assert_memory_equal(fw_cfg_file(h->dev[0], "etc/writable", NULL), "1234ABCD", 8);
    harness_reload(h);
    assert_memory_equal(fw_cfg_file(h->dev[0], "etc/writable", NULL), "1234ABCD", 8);
    /* Past its end, at its end, into another item: errors that change nothing. */
    assert_int_equal(dma(h, WRITE, 1, BUFFER), ERROR);
    assert_int_equal(dma(h, (uint32_t)key << 16 | CHOOSE | WRITE, 9, BUFFER), ERROR);
    assert_int_equal(dma(h, (uint32_t)key << 16 | CHOOSE | WRITE, 0xFFFFFFFF, BUFFER), ERROR);
    assert_int_equal(dma(h, (uint32_t)FW_CFG_NB_CPUS << 16 | CHOOSE | WRITE, 1, BUFFER), ERROR);
    assert_int_equal(dma(h, 0x3FFFu << 16 | CHOOSE | WRITE, 1, BUFFER), ERROR);
    assert_int_equal(dma(h, (uint32_t)key << 16 | CHOOSE | WRITE, 4, RAM_BYTES - 2), ERROR);
    assert_int_equal(calls->written, before + 1);
    harness_reset(h);
    assert_memory_equal(fw_cfg_file(h->dev[0], "etc/writable", NULL), "12345678", 8);
    harness_destroy(h);
}

static void test_hostile_dma(void **state)
{
    struct harness *h = harness_create(build);

    /* Buffers that are nowhere, leave RAM, or wrap. */
    assert_int_equal(dma(h, CHOOSE | READ, 4, RAM_BYTES), ERROR);
    assert_int_equal(dma(h, CHOOSE | READ, 4, RAM_BYTES - 2), ERROR);
    assert_int_equal(dma(h, CHOOSE | READ, 0x100, UINT64_MAX - 0x7F), ERROR);
    assert_int_equal(dma(h, CHOOSE | READ, 0xFFFFFFFF, BUFFER), ERROR);
    /* Which wrote zeros over the descriptor's neighbourhood, not our memory. */
    assert_int_equal(mm_in(h, RAM_BYTES - 8, 8), 0);
    /* Both directions, neither, all bits. */
    assert_int_equal(dma(h, CHOOSE | READ | WRITE | SKIP, 2, BUFFER), 0);
    assert_int_equal(dma(h, 0, 2, BUFFER), 0);
    dma(h, 0xFFFFFFFF, 2, BUFFER);
    /* Descriptors that are nowhere, half there, or wrap. */
    io_out(h, DMA_HIGH, __builtin_bswap32(0x80), 4);
    io_out(h, DMA_LOW, 0, 4);
    io_out(h, DMA_LOW, __builtin_bswap32(RAM_BYTES - 8), 4);
    io_out(h, DMA_HIGH, 0xFFFFFFFF, 4);
    io_out(h, DMA_LOW, __builtin_bswap32(0xFFFFFFF8), 4);
    /* A descriptor on top of its own buffer. */
    descriptor(h, CHOOSE | READ, 64, DESCRIPTOR);
    go(h, DESCRIPTOR);
    choose(h, 0);
    assert_int_equal(be32(h), 0x51454D55);
    harness_destroy(h);
}

static void test_refused(void **state)
{
    static uint8_t big[FW_CFG_WRITABLE_MAX];
    struct harness *h = harness_create(build);
    struct fw_cfg *f = h->dev[0];
    char name[80];
    struct error err;
    int rc = 0;

    assert_int_equal(fw_cfg_add_bytes(f, FW_CFG_ID, "x", 1, NULL), -EEXIST);
    assert_int_equal(fw_cfg_add_bytes(f, FW_CFG_FILE_FIRST, "x", 1, NULL), -EINVAL);
    assert_int_equal(fw_cfg_add_bytes(f, 0x4001, "x", 1, NULL), -EINVAL);
    assert_int_equal(fw_cfg_add_file(f, "etc/zebra", "x", 1, &err), -EEXIST);
    assert_string_equal(err.text, "fw_cfg: file etc/zebra exists already");
    assert_int_equal(fw_cfg_add_file(f, "", "x", 1, NULL), -EINVAL);
    memset(name, 'n', sizeof name);
    name[56] = 0;
    assert_int_equal(fw_cfg_add_file(f, name, "x", 1, NULL), -EINVAL);
    name[55] = 0;
    assert_int_equal(fw_cfg_add_file(f, name, "x", 1, NULL), 0);
    assert_int_equal(fw_cfg_add_file_callback(f, "b", FW_CFG_BUILT_MAX + 1, build_file, h, NULL),
                     -ENOSPC);
    assert_int_equal(fw_cfg_add_file_writable(f, "w", big, sizeof big, NULL, NULL, NULL), -ENOSPC);
    for (unsigned i = 0; i < FW_CFG_FILE_COUNT && rc == 0; i++) {
        snprintf(name, sizeof name, "file%u", i);
        rc = fw_cfg_add_file(f, name, "x", 1, NULL);
    }
    assert_int_equal(rc, -ENOSPC);
    harness_destroy(h);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    uint32_t value = (uint32_t)(random >> 32);

    switch (random % 6) {
    case 0:
        choose(h, (uint16_t)(FW_CFG_FILE_FIRST + value % 6));
        return 0;
    case 1:
        choose(h, (uint16_t)value & 0xC03F);
        return 0;
    case 2:
        io_out(h, DMA_HIGH, 0, 4);
        return 0;
    case 3:
        /* RAM is not moved with the devices, so the whole of it goes in one op. */
        mm_out(h, BUFFER, random, 8);
        return dma(h, (FW_CFG_FILE_FIRST + value % 6) << 16 | CHOOSE | (value >> 8 & 0x1E),
                   value >> 16 & 15, BUFFER);
    case 4:
        harness_advance(h, value & 0xFF);
        return 0;
    default:
        return be32(h);
    }
}

static void test_state(void **state)
{
    harness_fuzz(build, op, 3000, 1);
    harness_fuzz(build, op, 3000, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ports),    cmocka_unit_test(test_directory),
        cmocka_unit_test(test_built),    cmocka_unit_test(test_dma),
        cmocka_unit_test(test_writable), cmocka_unit_test(test_hostile_dma),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
