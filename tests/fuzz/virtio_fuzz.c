/*
 * A hostile driver of the virtio devices: registers, rings, descriptors and
 * requests as they should not be, faults of the host, resets, configuration space
 * under a running device.
 *
 * usage: driver.h.
 *
 * Each case runs on two machines, one of which is saved and loaded now and then.
 * They must not crash or hang or touch what is not theirs (the sanitizers'
 * part), must read the same from all registers, and end as the same machine
 * with the same memory, image and console output, with no request left under way.
 *
 * Threading: one.
 */
#include <errno.h>

#include "tests/dev/virtio_guest.h"
#include "tests/fuzz/driver.h"

enum { HANG_SECONDS = 120, OPS = 300 };

struct fuzz {
    struct fuzz_driver d;
    struct harness *a, *b;
};

/* ---- values that are likely to hurt ---- */

static uint64_t address(struct source *s)
{
    static const uint64_t places[] = {
        VG_BUFFER,
        VG_BUFFER + 1,
        VG_BUFFER + 4095,
        VG_ROM,
        VG_ROM + 64 * KiB - 100,
        VG_BAR(VG_BLK),
        VG_BAR(VG_RNG) + VG_DOORBELLS,
        VG_MSIX(VG_BLK),
        VG_RAM_BYTES - 512,
        VG_RAM_BYTES - 1,
        VG_DESC(VG_BLK, 0),
        VG_AVAIL(VG_BLK, 1),
        VG_USED(VG_RNG, 0),
        VG_USED(VG_CONSOLE, 0),
        VG_ECAM + VG_DEVFN(VG_BLK) * 4096,
        0,
        0xFEE00000,
        0x100000000ull,
        0xFFFFFFFFFFFFFFF0ull,
        0xFFFFFFFFFFFFFC00ull,
    };

    return below(s, 8) == 0 ? PICK(s, places) : VG_BUFFER + below(s, 64) * 512;
}

static uint32_t length(struct source *s)
{
    static const uint32_t lengths[] = {0,    1,    15,    16,      17,      32,        511,
                                       512,  513,  528,   1024,    4096,    8192,      3000,
                                       4097, 8193, 65536, 1 << 20, 1 << 22, UINT32_MAX};

    return below(s, 16) == 0 ? PICK(s, lengths) : lengths[1 + below(s, 12)];
}

static uint32_t value(struct source *s)
{
    static const uint32_t values[] = {0,  1,    2,      3,          4,          8,
                                      15, 16,   0x40,   0x80,       0xFFFF,     0xFFFFFFFF,
                                      64, 0x6F, 0x1000, 0x30000000, 0x20000000, 0x80000000};

    return below(s, 4) ? PICK(s, values) : (uint32_t)next(s);
}

/* ---- operations: the same on both machines ---- */

static enum vg_device device(struct source *s)
{
    return (enum vg_device)below(s, VG_DEVICES);
}

static unsigned queue_of(struct source *s, enum vg_device d)
{
    static const uint8_t queues[VG_DEVICES] = {
        [VG_BLK] = 2, [VG_RNG] = 1, [VG_CONSOLE] = 2, [VG_BALLOON] = 5};

    return (unsigned)below(s, queues[d]);
}

static void write_register(struct fuzz *f)
{
    enum vg_device d = device(&f->d.from);
    unsigned offset = below(&f->d.from, 4) ? (unsigned)below(&f->d.from, 0x40)
                                           : VG_CONFIG + (unsigned)below(&f->d.from, 64);
    unsigned size = 1u << below(&f->d.from, 4);
    uint64_t v = below(&f->d.from, 4) ? value(&f->d.from) : address(&f->d.from);

    BOTH(f, mm_out(h, VG_BAR(d) + offset, v, size));
}

static void read_register(struct fuzz *f)
{
    static const uint16_t pages[] = {0, 0, VG_ISR, VG_CONFIG, VG_DOORBELLS, 0x8000, 0x8800};
    uint64_t at = VG_BAR(device(&f->d.from)) + PICK(&f->d.from, pages) + below(&f->d.from, 64);
    unsigned size = 1u << below(&f->d.from, 4);
    uint64_t a = mm_in(f->a, at, size), b = mm_in(f->b, at, size);

    if (a != b)
        fuzz_failed(&f->d, "address %llx reads as %llx, and as %llx after a reload",
                    (unsigned long long)at, (unsigned long long)a, (unsigned long long)b);
}

/* A chain of some descriptors, at times none that a driver would make. */
static void describe(struct fuzz *f, enum vg_device d, unsigned queue, unsigned first,
                     unsigned count, bool *writes)
{
    struct source *s = &f->d.from;

    for (unsigned n = 0; n < count; n++) {
        uint16_t flags = n + 1 < count ? VG_NEXT : 0;
        uint64_t at = address(s);
        uint32_t bytes = length(s);
        unsigned next_one = (first + n + 1) % VG_SIZE;

        *writes |= below(s, count) < n + (d == VG_RNG);
        flags |= *writes ? VG_WRITE : 0;
        if (below(s, 40) == 0)
            flags = (uint16_t)next(s);
        if (below(s, 40) == 0)
            next_one = (unsigned)below(s, 40);
        if (d == VG_BLK && n == 0 && below(s, 16))
            bytes = 16;
        if (d == VG_BLK && n + 1 == count && below(s, 8))
            bytes = 1, flags |= VG_WRITE;
        BOTH(f,
             vg_describe(h, d, queue, (first + n) % VG_SIZE, at, bytes, flags, (uint16_t)next_one));
    }
}

/* The same through an indirect table. */
static void indirect(struct fuzz *f, enum vg_device d, unsigned queue, unsigned head)
{
    struct source *s = &f->d.from;
    unsigned count = 1 + (unsigned)below(s, 6);
    uint64_t table = below(s, 16) ? VG_BUFFER + 0x10000 + below(s, 8) * 256 : address(s);
    uint32_t bytes = below(s, 16) ? count * 16 : length(s);
    bool writes = false;

    for (unsigned n = 0; n < count; n++) {
        uint64_t at = address(s), rest;

        writes |= below(s, count) < n + (d == VG_RNG);
        rest = length(s) |
               (uint64_t)((n + 1 < count ? VG_NEXT : 0) | (writes ? VG_WRITE : 0)) << 32 |
               (uint64_t)(n + 1) << 48;
        if (below(s, 40) == 0)
            rest = next(s);
        BOTH(f, le64_put(vg_ram(h, VG_BUFFER + 0x10000 + n * 16), at));
        BOTH(f, le64_put(vg_ram(h, VG_BUFFER + 0x10008 + n * 16), rest));
    }
    BOTH(f, vg_describe(h, d, queue, head, table, bytes, VG_INDIRECT, 0));
}

/* Headers of requests, frames, statistics: where buffers often are. */
static void content(struct fuzz *f)
{
    static const uint32_t types[] = {0, 0, 0, 1, 1, 1, 4, 8, 11, 13, 11, 13, 99, 2};
    static const uint64_t sectors[] = {0, 1, 7, 2040, 2047, 2048, UINT64_MAX, 1ull << 55};
    struct source *s = &f->d.from;
    uint64_t at = VG_BUFFER + below(s, 64) * 512;
    uint64_t low, high;

    switch (below(s, 3)) {
    case 0:
        low = PICK(s, types);
        high = PICK(s, sectors);
        break;
    case 1: /* frames */
        low = 0x200 + below(s, 64) + (0x200 + below(s, 64)) * 0x100000000;
        high = next(s);
        break;
    default: /* a range */
        low = PICK(s, sectors);
        high = below(s, 64) | below(s, 3) << 32;
        break;
    }
    BOTH(f, le64_put(vg_ram(h, at), low));
    BOTH(f, le64_put(vg_ram(h, at + 8), high));
}

static void prepare(struct fuzz *f)
{
    struct source *s = &f->d.from;
    enum vg_device d = device(s);
    unsigned queue = queue_of(s, d), head = (unsigned)below(s, VG_SIZE);
    unsigned count = 1 + (unsigned)below(s, d == VG_BLK ? 5 : 3);
    uint16_t offered = (uint16_t)(below(s, 40) ? head : below(s, 40));
    bool writes = d == VG_CONSOLE && queue == 0;

    content(f);
    if (below(s, 4))
        describe(f, d, queue, head, count, &writes);
    else
        indirect(f, d, queue, head);
    BOTH(f, vg_offer(h, d, queue, offered));
    if (below(s, 4))
        BOTH(f, vg_ring(h, d, queue));
}

/* A word of a ring or a table, or anything. */
static void poke(struct fuzz *f)
{
    enum vg_device d = device(&f->d.from);
    uint64_t at = VG_RINGS(d, queue_of(&f->d.from, d)) + below(&f->d.from, 3) * 0x1000 +
                  below(&f->d.from, 256);
    uint64_t v = below(&f->d.from, 2) ? address(&f->d.from) : value(&f->d.from);
    unsigned size = 1u << below(&f->d.from, 4);

    BOTH(f, le_put(vg_ram(h, at), v, size));
}

static void configuration(struct fuzz *f)
{
    enum vg_device d = device(&f->d.from);
    unsigned offset = (unsigned)below(&f->d.from, 256) & ~3u;
    uint32_t v = value(&f->d.from);

    BOTH(f, pci_config_write(h->dev[0], 0, VG_DEVFN(d), offset, v, 4));
}

/* What a driver does to bring it back, or nothing would work for long. */
static void revive(struct fuzz *f)
{
    enum vg_device d = device(&f->d.from);
    uint64_t features = below(&f->d.from, 2) ? VIRTIO_F_COMMON | (next(&f->d.from) & 0xFFFF) : 0;
    bool msix = below(&f->d.from, 2);

    BOTH(f, {
        pci_config_write(h->dev[0], 0, VG_DEVFN(d), PCI_BAR0, (uint32_t)VG_BAR(d), 4);
        pci_config_write(h->dev[0], 0, VG_DEVFN(d), PCI_BAR0 + 4, (uint32_t)VG_MSIX(d), 4);
        for (unsigned at = 0x40; at < 0x100; at += 4) /* D0, wherever that is */
            if (pci_config_read(h->dev[0], 0, VG_DEVFN(d), at, 1) == PCI_CAP_POWER)
                pci_config_write(h->dev[0], 0, VG_DEVFN(d), at + 4, 0, 2);
        pci_config_write(h->dev[0], 0, VG_DEVFN(d), PCI_COMMAND,
                         PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
        vg_start(h, d, features ? features & vg_offered(h, d) : 0, msix);
    });
}

static void fault(struct fuzz *f)
{
    static const enum disk_op ops[] = {DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD};
    enum disk_op op = PICK(&f->d.from, ops);
    bool full = vg_world(f->a)->shim->fault[SHIM_FAULTS - 1].times;

    if (!full)
        BOTH(f, shim_fail(vg_world(h)->shim, op, 0, VG_DISK_BYTES, 1, -EIO));
}

static void outside(struct fuzz *f)
{
    static const uint8_t text[64] = "what somebody types";
    size_t bytes = below(&f->d.from, sizeof text);
    uint64_t target = below(&f->d.from, 64) * 65536;

    if (below(&f->d.from, 2)) {
        BOTH(f, vg_type(h, text, bytes));
        return;
    }
    BOTH(f, {
        vm_lock(h->vm);
        virtio_balloon_set_target(vg_world(h)->balloon, target);
        vm_unlock(h->vm);
    });
}

static void one(struct fuzz *f)
{
    static const uint64_t times[] = {1, 1000, 19999, 25000, 60000, 200000, 1000000000};

    switch (below(&f->d.from, 16)) {
    case 0:
        write_register(f);
        break;
    case 1:
    case 2:
        read_register(f);
        break;
    case 3:
        poke(f);
        break;
    case 4:
        if (below(&f->d.from, 4) == 0)
            configuration(f);
        break;
    case 5:
    case 6:
        revive(f);
        break;
    case 7:
        fault(f);
        break;
    case 8:
        harness_reload(f->b);
        break;
    case 9:
        outside(f);
        break;
    case 10:
    case 11: {
        uint64_t ns = PICK(&f->d.from, times);

        BOTH(f, harness_advance(h, ns));
        break;
    }
    default:
        prepare(f);
        break;
    }
}

/* ---- a case ---- */

static void compare(struct fuzz *f)
{
    struct vg_world *x = vg_world(f->a), *y = vg_world(f->b);
    uint64_t a[2], b[2];

    if (disk_in_flight(x->disk) || disk_in_flight(y->disk))
        fuzz_failed(&f->d, "requests are still under way");
    if (memcmp(x->shim->bytes, y->shim->bytes, VG_DISK_BYTES))
        fuzz_failed(&f->d, "the image differs after reloads");
    if (x->output_bytes != y->output_bytes || memcmp(x->output, y->output, sizeof x->output))
        fuzz_failed(&f->d, "the console's output differs after reloads");
    vm_state_hash(f->a->vm, a);
    vm_state_hash(f->b->vm, b);
    if (memcmp(vg_ram(f->a, 0), vg_ram(f->b, 0), VG_RAM_BYTES))
        fuzz_failed(&f->d, "memory differs after reloads");
    if (memcmp(a, b, sizeof a))
        fuzz_failed(&f->d, "devices differ after reloads");
    if (f->a->message_count != f->b->message_count)
        fuzz_failed(&f->d, "%u messages, and %u after reloads", f->a->message_count,
                    f->b->message_count);
}

static void run_case(struct fuzz_driver *d)
{
    struct fuzz *f = (struct fuzz *)d;

    f->a = vg_create();
    f->b = vg_create();
    for (unsigned n = 0; n < VG_DEVICES; n++)
        BOTH(f, vg_start(h, (enum vg_device)n, 0, true));
    for (unsigned n = 0; n < OPS && !source_has_ended(&d->from); n++)
        one(f);
    BOTH(f, harness_advance(h, 10 * NS_PER_SEC));
    compare(f);
    harness_destroy(f->a);
    harness_destroy(f->b);
}

struct fuzz_driver *fuzz_driver(void)
{
    static struct fuzz f = {
        .d = {.name = "virtio_fuzz", .hang_seconds = HANG_SECONDS, .run = run_case}};

    return &f.d;
}
