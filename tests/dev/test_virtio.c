/*
 * The virtio transport and split rings (virtio 1.2, sections 2 and 4.1), by way of
 * the entropy device, which writes to whatever it is given.
 */
#include "tests/dev/virtio_guest.h"

#include <stdlib.h>

/* ---- registers ---- */

static unsigned find_capability(struct harness *h, enum vg_device d, uint8_t type)
{
    struct pci_bus *bus = h->dev[0];
    unsigned at = pci_config_read(bus, 0, VG_DEVFN(d), PCI_CAPABILITIES, 1);

    for (; at; at = pci_config_read(bus, 0, VG_DEVFN(d), at + 1, 1))
        if (pci_config_read(bus, 0, VG_DEVFN(d), at, 1) == 9 &&
            pci_config_read(bus, 0, VG_DEVFN(d), at + 3, 1) == type)
            return at;
    fail_msg("no capability of type %u", type);
    return 0;
}

static void capabilities(void **state)
{
    static const struct {
        uint8_t type;
        uint32_t offset, bytes;
    } expected[] = {{1, 0, 0x38}, {3, 0x1000, 1}, {4, 0x2000, 60}, {2, 0x3000, 8}};
    struct harness *h = vg_create();
    struct pci_bus *bus = h->dev[0];
    unsigned at;

    assert_int_equal(pci_config_read(bus, 0, VG_DEVFN(VG_BLK), 0, 4), 0x10421AF4);
    assert_int_equal(pci_config_read(bus, 0, VG_DEVFN(VG_BALLOON), 0, 4), 0x10451AF4);
    for (size_t n = 0; n < ARRAY_SIZE(expected); n++) {
        at = find_capability(h, VG_BLK, expected[n].type);
        assert_int_equal(pci_config_read(bus, 0, VG_DEVFN(VG_BLK), at + 4, 1), 0);
        assert_int_equal(pci_config_read(bus, 0, VG_DEVFN(VG_BLK), at + 8, 4), expected[n].offset);
        assert_int_equal(pci_config_read(bus, 0, VG_DEVFN(VG_BLK), at + 12, 4), expected[n].bytes);
    }
    at = find_capability(h, VG_BLK, 2);
    assert_int_equal(pci_config_read(bus, 0, VG_DEVFN(VG_BLK), at + 16, 4), 4);

    /* The window: status and the number of queues through configuration space. */
    at = find_capability(h, VG_BLK, 5);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 8, VG_NUM_QUEUES, 4);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 12, 2, 4);
    assert_int_equal(pci_config_read(bus, 0, VG_DEVFN(VG_BLK), at + 16, 2), 2);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 8, VG_STATUS, 4);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 12, 1, 4);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 16, VIRTIO_ACKNOWLEDGE, 1);
    assert_int_equal(vg_get(h, VG_BLK, VG_STATUS, 1), VIRTIO_ACKNOWLEDGE);
    assert_int_equal(pci_config_read(bus, 0, VG_DEVFN(VG_BLK), at + 16, 1), VIRTIO_ACKNOWLEDGE);
    /* Odd lengths, offsets and BARs lead nowhere. */
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 12, 3, 4);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 16, 0, 1);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 12, 1, 4);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 4, 1, 1);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 16, 0, 1);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 4, 0, 1);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 8, 0xFFFFFFFC, 4);
    pci_config_write(bus, 0, VG_DEVFN(VG_BLK), at + 16, 0, 1);
    assert_int_equal(vg_get(h, VG_BLK, VG_STATUS, 1), VIRTIO_ACKNOWLEDGE);
    harness_reload(h);
    assert_int_equal(vg_get(h, VG_BLK, VG_STATUS, 1), VIRTIO_ACKNOWLEDGE);
    harness_destroy(h);
}

static void negotiate(struct harness *h, uint64_t features, uint8_t expected)
{
    vg_put(h, VG_RNG, VG_STATUS, 0, 1);
    vg_put(h, VG_RNG, VG_STATUS, VIRTIO_ACKNOWLEDGE, 1);
    vg_put(h, VG_RNG, VG_STATUS, VIRTIO_DRIVER, 1); /* bits are only added */
    assert_int_equal(vg_get(h, VG_RNG, VG_STATUS, 1), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    for (unsigned n = 0; n < 2; n++) {
        vg_put(h, VG_RNG, VG_DRIVER_SELECT, n, 4);
        vg_put(h, VG_RNG, VG_DRIVER_FEATURE, (uint32_t)(features >> 32 * n), 4);
        assert_int_equal(vg_get(h, VG_RNG, VG_DRIVER_FEATURE, 4), (uint32_t)(features >> 32 * n));
    }
    vg_put(h, VG_RNG, VG_STATUS, VG_RUNNING, 1);
    assert_int_equal(vg_get(h, VG_RNG, VG_STATUS, 1), expected);
}

static void status_and_features(void **state)
{
    const uint8_t refused = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER;
    struct harness *h = vg_create();

    assert_int_equal(vg_offered(h, VG_RNG), VIRTIO_F_COMMON);
    vg_put(h, VG_RNG, VG_FEATURE_SELECT, 2, 4);
    assert_int_equal(vg_get(h, VG_RNG, VG_FEATURE, 4), 0);
    negotiate(h, 0, refused);
    negotiate(h, VIRTIO_F_EVENT_IDX, refused);
    negotiate(h, VIRTIO_F_VERSION_1 | 1, refused);
    negotiate(h, VIRTIO_F_VERSION_1 | BIT(40), refused);
    negotiate(h, VIRTIO_F_VERSION_1, VG_RUNNING);
    /* Too late. */
    vg_put(h, VG_RNG, VG_DRIVER_SELECT, 0, 4);
    vg_put(h, VG_RNG, VG_DRIVER_FEATURE, (uint32_t)VIRTIO_F_EVENT_IDX, 4);
    assert_int_equal(vg_get(h, VG_RNG, VG_DRIVER_FEATURE, 4), 0);
    harness_reload(h);
    assert_int_equal(vg_get(h, VG_RNG, VG_STATUS, 1), VG_RUNNING);
    vg_put(h, VG_RNG, VG_STATUS, 0, 1);
    assert_int_equal(vg_get(h, VG_RNG, VG_STATUS, 1), 0);
    vg_put(h, VG_RNG, VG_STATUS, VIRTIO_DRIVER_OK, 1);
    assert_int_equal(vg_get(h, VG_RNG, VG_STATUS, 1), 0);
    harness_destroy(h);
}

static void queue_registers(void **state)
{
    struct harness *h = vg_create();

    assert_int_equal(vg_get(h, VG_RNG, VG_NUM_QUEUES, 2), 1);
    vg_put(h, VG_RNG, VG_QUEUE_SELECT, 1, 2);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_SIZE, 2), 0);
    vg_put(h, VG_RNG, VG_QUEUE_ENABLE, 1, 2);
    vg_put(h, VG_RNG, VG_QUEUE_SELECT, 0, 2);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_SIZE, 2), 64);
    for (unsigned bad = 0; bad < 3; bad++) {
        static const uint16_t sizes[] = {0, 24, 128};

        vg_put(h, VG_RNG, VG_QUEUE_SIZE, sizes[bad], 2);
        assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_SIZE, 2), 64);
    }
    vg_put(h, VG_RNG, VG_QUEUE_VECTOR, 1, 2);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_VECTOR, 2), 1);
    vg_put(h, VG_RNG, VG_QUEUE_VECTOR, 2, 2); /* there are two */
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_VECTOR, 2), VIRTIO_NO_VECTOR);
    mm_out(h, VG_BAR(VG_RNG) + VG_QUEUE_DESC, 0x123456789ABCDEF0, 8);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_DESC, 4), 0x9ABCDEF0);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_DESC + 4, 4), 0x12345678);
    /* Widths that are not the field's. */
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_SIZE, 1), 0);
    vg_put(h, VG_RNG, VG_QUEUE_SIZE, 8, 1);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_SIZE, 2), 64);
    vg_put(h, VG_RNG, VG_QUEUE_SIZE, 8, 2);
    vg_put(h, VG_RNG, VG_QUEUE_ENABLE, 1, 2);
    vg_put(h, VG_RNG, VG_QUEUE_ENABLE, 0, 2);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_ENABLE, 2), 1);
    vg_put(h, VG_RNG, VG_QUEUE_SIZE, 16, 2);
    vg_put(h, VG_RNG, VG_QUEUE_DESC, 0, 4);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_SIZE, 2), 8);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_DESC, 4), 0x9ABCDEF0);
    harness_reload(h);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_SIZE, 2), 8);
    vg_put(h, VG_RNG, VG_STATUS, 0, 1);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_SIZE, 2), 64);
    assert_int_equal(vg_get(h, VG_RNG, VG_QUEUE_ENABLE, 2), 0);
    harness_destroy(h);
}

/* ---- rings ---- */

static void give(struct harness *h, uint64_t address, uint32_t bytes)
{
    vg_describe(h, VG_RNG, 0, 0, address, bytes, VG_WRITE, 0);
    vg_offer(h, VG_RNG, 0, 0);
    vg_ring(h, VG_RNG, 0);
}

static unsigned zeroes(const uint8_t *p, unsigned bytes)
{
    unsigned count = 0;

    for (unsigned n = 0; n < bytes; n++)
        count += !p[n];
    return count;
}

static void chains(void **state)
{
    struct harness *h = vg_create();
    uint8_t *ram = vg_ram(h, VG_BUFFER);

    vg_start(h, VG_RNG, 0, false);
    give(h, VG_BUFFER, 64);
    assert_int_equal(vg_used(h, VG_RNG, 0), 1);
    assert_int_equal(vg_used_head(h, VG_RNG, 0, 0), 0);
    assert_int_equal(vg_used_bytes(h, VG_RNG, 0, 0), 64);
    assert_true(zeroes(ram, 64) < 10);
    assert_int_equal(zeroes(ram + 64, 64), 64);

    /* Two parts, of which one crosses into nothing else; something to read first. */
    memset(ram, 0, 256);
    vg_describe(h, VG_RNG, 0, 3, VG_BUFFER + 100, 5, VG_NEXT, 5);
    vg_describe(h, VG_RNG, 0, 5, VG_BUFFER, 8, VG_WRITE | VG_NEXT, 4);
    vg_describe(h, VG_RNG, 0, 4, VG_BUFFER + 16, 8, VG_WRITE, 0);
    vg_offer(h, VG_RNG, 0, 3);
    vg_ring(h, VG_RNG, 0);
    assert_int_equal(vg_used_head(h, VG_RNG, 0, 1), 3);
    assert_int_equal(vg_used_bytes(h, VG_RNG, 0, 1), 16);
    assert_int_equal(zeroes(ram + 8, 8), 8);
    assert_int_equal(zeroes(ram + 24, 100), 100);

    /* An indirect table behind a normal descriptor, in the last page of memory. */
    memset(ram, 0, 256);
    vg_describe(h, VG_RNG, 0, 1, VG_BUFFER, 8, VG_WRITE | VG_NEXT, 2);
    vg_describe(h, VG_RNG, 0, 2, VG_RAM_BYTES - 32, 32, VG_INDIRECT, 0);
    le64_put(vg_ram(h, VG_RAM_BYTES - 32), VG_BUFFER + 32);
    le64_put(vg_ram(h, VG_RAM_BYTES - 24), 8 | (uint64_t)(VG_WRITE | VG_NEXT) << 32 | 1ull << 48);
    le64_put(vg_ram(h, VG_RAM_BYTES - 16), VG_BUFFER + 64);
    le64_put(vg_ram(h, VG_RAM_BYTES - 8), 8 | (uint64_t)VG_WRITE << 32);
    vg_offer(h, VG_RNG, 0, 1);
    vg_ring(h, VG_RNG, 0);
    assert_int_equal(vg_used_bytes(h, VG_RNG, 0, 2), 24);
    assert_int_equal(zeroes(ram + 8, 24), 24);
    assert_true(zeroes(ram + 64, 8) < 4);

    /* No room, no bytes; more than is done at once. */
    give(h, VG_BUFFER, 0);
    assert_int_equal(vg_used_bytes(h, VG_RNG, 0, 3), 0);
    give(h, VG_BUFFER, 100000);
    assert_int_equal(vg_used_bytes(h, VG_RNG, 0, 4), 4096);
    assert_int_equal(vg_get(h, VG_RNG, VG_STATUS, 1), VG_RUNNING);

    /* Indices wrap. */
    for (unsigned n = 0; n < 70000; n++)
        give(h, VG_BUFFER, 1);
    assert_int_equal(vg_used(h, VG_RNG, 0), (70000 + 5) % 65536);
    harness_reload(h);
    give(h, VG_BUFFER, 1);
    assert_int_equal(vg_used(h, VG_RNG, 0), (70000 + 6) % 65536);
    harness_destroy(h);
}

static void interrupts(void **state)
{
    struct harness *h = vg_create();
    unsigned before;

    /* The pin, and the register that lowers it. */
    vg_start(h, VG_RNG, 0, false);
    give(h, VG_BUFFER, 1);
    assert_int_equal(vg_get(h, VG_RNG, VG_ISR, 1), VIRTIO_ISR_QUEUE);
    assert_int_equal(vg_get(h, VG_RNG, VG_ISR, 1), 0);
    give(h, VG_BUFFER, 1);
    harness_reload(h);
    assert_int_equal(vg_get(h, VG_RNG, VG_ISR, 1), VIRTIO_ISR_QUEUE);
    le16_put(vg_ram(h, VG_AVAIL(VG_RNG, 0)), 1); /* VIRTQ_AVAIL_F_NO_INTERRUPT */
    give(h, VG_BUFFER, 1);
    assert_int_equal(vg_get(h, VG_RNG, VG_ISR, 1), 0);

    /* Messages. */
    vg_start(h, VG_RNG, 0, true);
    before = h->message_count;
    give(h, VG_BUFFER, 1);
    assert_int_equal(h->message_count, before + 1);
    assert_int_equal(h->message[before].data, 0x4000 + VG_RNG * 16 + 1);
    assert_int_equal(vg_get(h, VG_RNG, VG_ISR, 1), 0);
    vg_put(h, VG_RNG, VG_QUEUE_SELECT, 0, 2);
    vg_put(h, VG_RNG, VG_QUEUE_VECTOR, VIRTIO_NO_VECTOR, 2);
    give(h, VG_BUFFER, 1);
    assert_int_equal(h->message_count, before + 1);

    /* Event index: told when the third is used, and not before. */
    vg_start(h, VG_RNG, VIRTIO_F_COMMON, true);
    before = h->message_count;
    le16_put(vg_ram(h, VG_AVAIL(VG_RNG, 0) + 4 + VG_SIZE * 2), 2);
    give(h, VG_BUFFER, 1); /* the first time it is told in any case */
    assert_int_equal(h->message_count, before + 1);
    give(h, VG_BUFFER, 1);
    assert_int_equal(h->message_count, before + 1);
    /* Where the device wants to be told itself. */
    assert_int_equal(le16_get(vg_ram(h, VG_USED(VG_RNG, 0) + 4 + VG_SIZE * 8)), 2);
    harness_reload(h);
    give(h, VG_BUFFER, 1);
    assert_int_equal(h->message_count, before + 2);
    give(h, VG_BUFFER, 1);
    assert_int_equal(h->message_count, before + 2);
    harness_destroy(h);
}

static void bus_master(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_RNG, 0, false);
    pci_config_write(h->dev[0], 0, VG_DEVFN(VG_RNG), PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    give(h, VG_BUFFER, 8);
    assert_int_equal(vg_used(h, VG_RNG, 0), 0);
    harness_reload(h);
    assert_int_equal(vg_used(h, VG_RNG, 0), 0);
    pci_config_write(h->dev[0], 0, VG_DEVFN(VG_RNG), PCI_COMMAND,
                     PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
    assert_int_equal(vg_used(h, VG_RNG, 0), 1);
    harness_destroy(h);
}

static void doorbells_too_early(void **state)
{
    struct harness *h = vg_create();

    vg_queue(h, VG_RNG, 0);
    give(h, VG_BUFFER, 8);
    assert_int_equal(vg_used(h, VG_RNG, 0), 0);
    for (unsigned q = 0; q < 1024; q++)
        vg_put(h, VG_RNG, VG_DOORBELLS + q * 4, q, 4);
    assert_int_equal(vg_get(h, VG_RNG, VG_STATUS, 1), 0);
    harness_destroy(h);
}

/* ---- what no driver does ---- */

enum { TABLE = 0x300000 };

static void indirect(struct harness *h, unsigned index, uint64_t address, uint32_t bytes,
                     uint16_t flags, uint16_t next)
{
    uint8_t *e = vg_ram(h, TABLE + index * 16);

    le64_put(e, address);
    le32_put(e + 8, bytes);
    le16_put(e + 12, flags);
    le16_put(e + 14, next);
}

static void loop(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, VG_BUFFER, 8, VG_WRITE | VG_NEXT, 1);
    vg_describe(h, VG_RNG, 0, 1, VG_BUFFER, 8, VG_WRITE | VG_NEXT, 0);
}

static void loop_of_nothing(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, 0, 0, VG_NEXT, 0);
}

static void next_outside(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, VG_BUFFER, 8, VG_WRITE | VG_NEXT, VG_SIZE);
}

static void read_after_write(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, VG_BUFFER, 8, VG_WRITE | VG_NEXT, 1);
    vg_describe(h, VG_RNG, 0, 1, VG_BUFFER, 8, 0, 0);
}

static void wild(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, VG_RAM_BYTES, 8, VG_WRITE, 0);
}

static void over_the_end(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, VG_RAM_BYTES - 8, 9, VG_WRITE, 0);
}

static void over_registers(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, VG_BAR(VG_RNG), 64, VG_WRITE, 0);
}

static void over_rom(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, VG_ROM, 64, VG_WRITE, 0);
}

static void wraps(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, UINT64_MAX - 7, 64, VG_WRITE, 0);
}

static void too_much(struct harness *h)
{
    for (unsigned n = 0; n < VG_SIZE; n++)
        vg_describe(h, VG_RNG, 0, n, VG_BUFFER, UINT32_MAX, VG_WRITE | VG_NEXT, n + 1);
}

static void indirect_in_indirect(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, TABLE, 32, VG_INDIRECT, 0);
    indirect(h, 0, TABLE + 64, 16, VG_INDIRECT, 0);
}

static void indirect_with_next(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, TABLE, 16, VG_INDIRECT | VG_NEXT, 1);
    indirect(h, 0, VG_BUFFER, 16, VG_WRITE, 0);
}

static void indirect_of_odd_length(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, TABLE, 24, VG_INDIRECT, 0);
    indirect(h, 0, VG_BUFFER, 16, VG_WRITE, 0);
}

static void indirect_of_nothing(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, TABLE, 0, VG_INDIRECT, 0);
}

static void indirect_too_long(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, TABLE, 0xFFFFFFF0, VG_INDIRECT, 0);
}

static void indirect_wild(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, VG_RAM_BYTES - 16, 32, VG_INDIRECT, 0);
    le64_put(vg_ram(h, VG_RAM_BYTES - 16), VG_BUFFER);
    le64_put(vg_ram(h, VG_RAM_BYTES - 8), 8 | (uint64_t)VG_WRITE << 32);
}

static void indirect_over_registers(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, VG_BAR(VG_RNG), 32, VG_INDIRECT, 0);
}

static void indirect_loop(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, TABLE, 32, VG_INDIRECT, 0);
    indirect(h, 0, VG_BUFFER, 1, VG_WRITE | VG_NEXT, 1);
    indirect(h, 1, VG_BUFFER, 1, VG_WRITE | VG_NEXT, 0);
}

static void indirect_next_outside(struct harness *h)
{
    vg_describe(h, VG_RNG, 0, 0, TABLE, 32, VG_INDIRECT, 0);
    indirect(h, 0, VG_BUFFER, 1, VG_WRITE | VG_NEXT, 2);
}

static void index_too_far(struct harness *h)
{
    le16_put(vg_ram(h, VG_AVAIL(VG_RNG, 0) + 2), VG_SIZE + 1);
}

static void head_outside(struct harness *h)
{
    le16_put(vg_ram(h, VG_AVAIL(VG_RNG, 0) + 4), VG_SIZE);
}

static void hostile_rings(void **state)
{
    static void (*const ways[])(struct harness *h) = {
        loop,          loop_of_nothing,       next_outside,         read_after_write,
        wild,          over_the_end,          over_registers,       over_rom,
        wraps,         too_much,              indirect_in_indirect, indirect_with_next,
        indirect_wild, indirect_of_nothing,   indirect_too_long,    indirect_of_odd_length,
        indirect_loop, indirect_next_outside, index_too_far,        head_outside,
        indirect_over_registers,
    };
    struct harness *h = vg_create();

    for (size_t n = 0; n < ARRAY_SIZE(ways); n++) {
        unsigned before;

        vg_start(h, VG_RNG, 0, true);
        give(h, VG_BUFFER, 8);
        assert_int_equal(vg_used(h, VG_RNG, 0), 1);
        memset(vg_ram(h, VG_RINGS(VG_RNG, 0)), 0, 0x2000);
        vg_start(h, VG_RNG, 0, true);
        memset(vg_ram(h, VG_BUFFER), 0, 4096);
        before = h->message_count;
        vg_offer(h, VG_RNG, 0, 0);
        ways[n](h);
        vg_ring(h, VG_RNG, 0);
        if (vg_get(h, VG_RNG, VG_STATUS, 1) != (VG_RUNNING | VIRTIO_NEEDS_RESET))
            fail_msg("way %zu does not ask for a reset", n);
        assert_int_equal(vg_used(h, VG_RNG, 0), 0);
        assert_int_equal(zeroes(vg_ram(h, VG_BUFFER), 4096), 4096);
        assert_int_equal(h->message_count, before + 1);
        assert_int_equal(h->message[before].data, 0x4000 + VG_RNG * 16);
        /* And nothing more until then. */
        vg_describe(h, VG_RNG, 0, 0, VG_BUFFER, 8, VG_WRITE, 0);
        le16_put(vg_ram(h, VG_AVAIL(VG_RNG, 0) + 2), 1);
        vg_ring(h, VG_RNG, 0);
        harness_reload(h);
        vg_put(h, VG_RNG, VG_STATUS, VG_RUNNING, 1);
        vg_ring(h, VG_RNG, 0);
        assert_int_equal(vg_used(h, VG_RNG, 0), 0);
        h->message_count = 0;
    }
    harness_destroy(h);
}

/* Tables that are not in memory, or not where they may be. */
static void hostile_tables(void **state)
{
    static const struct {
        unsigned which;
        uint64_t address;
    } bad[] = {
        {VG_QUEUE_DESC, VG_RAM_BYTES},
        {VG_QUEUE_DESC, VG_RAM_BYTES - 16},
        {VG_QUEUE_DESC, 0x200008},
        {VG_QUEUE_DRIVER, 0x200001},
        {VG_QUEUE_DRIVER, VG_RAM_BYTES - 4},
        {VG_QUEUE_DRIVER, VG_BAR(VG_RNG)},
        {VG_QUEUE_DEVICE, VG_ROM},
        {VG_QUEUE_DEVICE, 0x200002},
        {VG_QUEUE_DEVICE, 0xFFFFFFFFFFFFFFF8},
        {VG_QUEUE_DEVICE, VG_BAR(VG_RNG) + VG_DOORBELLS},
    };
    struct harness *h = vg_create();

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        vg_put(h, VG_RNG, VG_STATUS, 0, 1);
        vg_put(h, VG_RNG, VG_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, 1);
        vg_put(h, VG_RNG, VG_DRIVER_SELECT, 1, 4);
        vg_put(h, VG_RNG, VG_DRIVER_FEATURE, 1, 4);
        vg_put(h, VG_RNG, VG_STATUS, VIRTIO_FEATURES_OK, 1);
        memset(vg_ram(h, VG_RINGS(VG_RNG, 0)), 0, 0x3000);
        vg_put(h, VG_RNG, VG_QUEUE_SELECT, 0, 2);
        vg_put(h, VG_RNG, VG_QUEUE_SIZE, VG_SIZE, 2);
        vg_put(h, VG_RNG, VG_QUEUE_DESC, (uint32_t)VG_DESC(VG_RNG, 0), 4);
        vg_put(h, VG_RNG, VG_QUEUE_DRIVER, (uint32_t)VG_AVAIL(VG_RNG, 0), 4);
        vg_put(h, VG_RNG, VG_QUEUE_DEVICE, (uint32_t)VG_USED(VG_RNG, 0), 4);
        mm_out(h, VG_BAR(VG_RNG) + bad[n].which, bad[n].address, 8);
        vg_put(h, VG_RNG, VG_QUEUE_ENABLE, 1, 2);
        vg_put(h, VG_RNG, VG_STATUS, VIRTIO_DRIVER_OK, 1);
        give(h, VG_BUFFER, 8);
        if (vg_get(h, VG_RNG, VG_STATUS, 1) != (VG_RUNNING | VIRTIO_NEEDS_RESET))
            fail_msg("table %zu does not ask for a reset", n);
        assert_int_equal(vg_used(h, VG_RNG, 0), 0);
    }
    harness_destroy(h);
}

static void indirect_needs_the_feature(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_RNG, VIRTIO_F_VERSION_1, false);
    vg_describe(h, VG_RNG, 0, 0, TABLE, 16, VG_INDIRECT, 0);
    indirect(h, 0, VG_BUFFER, 8, VG_WRITE, 0);
    vg_offer(h, VG_RNG, 0, 0);
    vg_ring(h, VG_RNG, 0);
    assert_int_equal(vg_get(h, VG_RNG, VG_STATUS, 1), VG_RUNNING | VIRTIO_NEEDS_RESET);
    harness_destroy(h);
}

/* Memory that goes away and comes back while a ring is in it. */
static void memory_moves(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_RNG, 0, false);
    give(h, VG_BUFFER, 8);
    assert_int_equal(vg_used(h, VG_RNG, 0), 1);
    vm_lock(h->vm);
    region_enable(&vg_world(h)->memory.ram_region, false);
    vm_unlock(h->vm);
    vg_ring(h, VG_RNG, 0);
    assert_int_equal(vg_get(h, VG_RNG, VG_STATUS, 1), VG_RUNNING | VIRTIO_NEEDS_RESET);
    vm_lock(h->vm);
    region_enable(&vg_world(h)->memory.ram_region, true);
    vm_unlock(h->vm);
    vg_start(h, VG_RNG, 0, false);
    give(h, VG_BUFFER, 8);
    assert_int_equal(vg_used(h, VG_RNG, 0), 1);
    harness_destroy(h);
}

static void poke(struct harness *h)
{
    vg_ring(h, VG_RNG, 0);
    vg_get(h, VG_RNG, VG_STATUS, 1);
    vg_start(h, VG_RNG, 0, false);
    give(h, VG_BUFFER, 8);
}

static void damaged_state(void **state)
{
    struct harness *h = vg_create();

    vg_start(h, VG_RNG, 0, true);
    give(h, VG_BUFFER, 8);
    harness_corrupt_some(h, poke, 97);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capabilities),        cmocka_unit_test(status_and_features),
        cmocka_unit_test(queue_registers),     cmocka_unit_test(chains),
        cmocka_unit_test(interrupts),          cmocka_unit_test(bus_master),
        cmocka_unit_test(doorbells_too_early), cmocka_unit_test(hostile_rings),
        cmocka_unit_test(hostile_tables),      cmocka_unit_test(indirect_needs_the_feature),
        cmocka_unit_test(memory_moves),        cmocka_unit_test(damaged_state),
    };

    return cmocka_run_group_tests_name("virtio", tests, NULL, NULL);
}
