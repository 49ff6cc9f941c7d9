/*
 * A hostile driver of the AHCI adapter: registers, command lists, tables and
 * PRDTs as they should not be, faults of the host, resets, configuration space
 * under the adapter's own DMA.
 *
 * usage: driver.h.
 *
 * Each case runs on two machines, one of which is saved and loaded now and then.
 * They must not crash or hang or touch what is not theirs (the sanitizers'
 * part), must read the same from all registers, and end as the same machine
 * with the same memory and images, with no request left under way.
 *
 * Threading: one.
 */
#include <errno.h>

#include "tests/dev/ahci_guest.h"
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
        AG_BUFFER,
        AG_BUFFER + 1,
        AG_BUFFER + 4095,
        AG_ROM,
        AG_ROM + 64 * KiB - 100,
        AG_ABAR,
        AG_ABAR + 0x100 + PX_CI,
        AG_ABAR + 0x100 + PX_CMD,
        AG_ABAR + AHCI_GHC,
        AG_ABAR + AHCI_REGISTER_BYTES - 4,
        AG_RAM_BYTES - 512,
        AG_RAM_BYTES - 1,
        AG_LIST(0),
        AG_LIST(1) + 0x20,
        AG_FIS(0),
        AG_TABLE(0, 0),
        AG_TABLE(0, 1) + 0x80,
        AG_ECAM + AG_DEVFN * 4096,
        AG_ECAM + AG_DEVFN * 4096 + PCI_BAR0 + 0x14,
        AG_ECAM + AG_DEVFN * 4096 + 0xB0,
        0,
        0xFEE00000,
        0x100000000ull,
        0xFFFFFFFFFFFFFFF0ull,
        0xFFFFFFFFFFFFFC00ull,
    };

    return below(s, 8) ? PICK(s, places) : next(s) % (AG_RAM_BYTES + 4096);
}

static uint32_t length(struct source *s)
{
    static const uint32_t lengths[] = {1,    2,    511,  512,   513,     1024,    2048,
                                       4096, 8192, 3000, 65536, 1 << 20, 1 << 22, 36};

    return PICK(s, lengths);
}

static uint32_t value(struct source *s)
{
    static const uint32_t values[] = {0,          1, 0x10, 0x11,  0x17, 0xFFFFFFFF, 0x80000000,
                                      0x80000002, 2, 4,    0x301, 8,    0x1000,     0x60000017};

    return below(s, 4) ? PICK(s, values) : (uint32_t)next(s);
}

/* ---- operations: the same on both machines ---- */

static void write_register(struct fuzz *f)
{
    static const uint8_t port_registers[] = {PX_CLB,  PX_CLBU, PX_FB,  PX_FBU,  PX_IS,
                                             PX_IE,   PX_CMD,  PX_TFD, PX_SCTL, PX_SERR,
                                             PX_SACT, PX_CI,   PX_CI,  0x40,    PX_SSTS};
    unsigned port = (unsigned)below(&f->d.from, AG_PORTS);
    uint8_t offset = PICK(&f->d.from, port_registers);
    uint32_t v = value(&f->d.from);

    if ((offset == PX_CLB || offset == PX_FB) && below(&f->d.from, 2))
        v = (uint32_t)address(&f->d.from);
    BOTH(f, ag_put(h, port, offset, v));
}

static void write_generic(struct fuzz *f)
{
    static const uint8_t registers[] = {AHCI_CAP, AHCI_GHC, AHCI_IS, AHCI_PI, 0x14, 0x28};
    uint8_t offset = PICK(&f->d.from, registers);
    uint32_t v = value(&f->d.from);
    unsigned size = below(&f->d.from, 8) ? 4 : 1u << below(&f->d.from, 4);

    BOTH(f, mm_out(h, AG_ABAR + offset, v, size));
}

static void read_register(struct fuzz *f)
{
    uint64_t at = AG_ABAR + below(&f->d.from, AHCI_REGISTER_BYTES);
    unsigned size = 1u << below(&f->d.from, 4);
    uint64_t a = mm_in(f->a, at, size), b = mm_in(f->b, at, size);

    if (a != b)
        fuzz_failed(&f->d, "register %llx reads as %llx, and as %llx after a reload",
                    (unsigned long long)(at - AG_ABAR), (unsigned long long)a,
                    (unsigned long long)b);
}

static void prepare(struct fuzz *f)
{
    static const uint8_t commands[] = {0x25, 0x35, 0x60, 0x61, 0x60, 0x61, 0x24, 0x34, 0xC8, 0xCA,
                                       0xEC, 0xA1, 0xA0, 0xA0, 0xE7, 0xEA, 0x06, 0x06, 0x2F, 0x47,
                                       0xB0, 0xEF, 0xE6, 0xE0, 0x08, 0x90, 0x42, 0x3D, 0xC6, 0xF8};
    static const uint8_t packets[] = {0x00, 0x03, 0x12, 0x15, 0x1A, 0x1B, 0x1E, 0x23, 0x25,
                                      0x28, 0x28, 0x2B, 0x42, 0x43, 0x44, 0x46, 0x4A, 0x51,
                                      0x52, 0x55, 0x5A, 0xA0, 0xA8, 0xAC, 0xB9, 0xBD, 0xBE};
    static const uint64_t lbas[] = {0, 1, 8, 0x10, 2047, 2048, 0xC24F00, BITS(47, 0), 127, 500};
    struct source *s = &f->d.from;
    unsigned port = (unsigned)below(s, AG_EMPTY + 1), slot = (unsigned)below(s, 32);
    struct ag_prd prd[40];
    uint8_t cdb[16] = {0};
    struct ag_command c = {
        .command = PICK(s, commands),
        .features = (uint16_t)(below(s, 3) ? 1 + below(s, 16) : next(s)),
        .count = (uint16_t)(below(s, 3) ? 1 + below(s, 16) : next(s)),
        .lba = PICK(s, lbas),
        .prd = prd,
        .prds = (unsigned)(below(s, 8) ? below(s, 6) : below(s, ARRAY_SIZE(prd))),
    };

    if (c.command == 0x60 || c.command == 0x61)
        c.count = (uint16_t)((below(s, 16) ? slot : below(s, 32)) << 3);
    for (unsigned n = 0; n < c.prds; n++)
        prd[n] = (struct ag_prd){below(s, 3) ? AG_BUFFER + n * 8192 : address(s), length(s),
                                 below(s, 8) == 0};
    if (c.command == 0xA0) {
        cdb[0] = PICK(s, packets);
        for (unsigned n = 1; n < 12; n++)
            cdb[n] = below(s, 3) ? 0 : (uint8_t)below(s, 40);
        c.cdb = cdb;
    }
    BOTH(f, ag_prepare(h, port, slot, &c));
    if (below(s, 4)) {
        BOTH(f, ag_put(h, port, PX_SACT, 1u << slot));
        BOTH(f, ag_issue(h, port, 1u << slot));
    }
}

static void issue(struct fuzz *f)
{
    unsigned port = (unsigned)below(&f->d.from, AG_PORTS);
    uint32_t slots = (uint32_t)next(&f->d.from);

    BOTH(f, ag_put(h, port, PX_SACT, slots));
    BOTH(f, ag_issue(h, port, slots));
}

/* A word of a list, a table, or anything. */
static void poke(struct fuzz *f)
{
    uint64_t at = below(&f->d.from, 4) ? AG_LIST(below(&f->d.from, 2)) + below(&f->d.from, 1024)
                                       : AG_TABLE(0, below(&f->d.from, 4)) + below(&f->d.from, 512);
    uint64_t v = below(&f->d.from, 2) ? address(&f->d.from) : value(&f->d.from);

    BOTH(f, le64_put(ag_ram(h, at), v));
}

static void configuration(struct fuzz *f)
{
    unsigned offset = (unsigned)below(&f->d.from, 256) & ~3u;
    uint32_t v = value(&f->d.from);

    BOTH(f, pci_config_write(h->dev[DEV_BUS], 0, AG_DEVFN, offset, v, 4));
}

/* What a driver does to bring it back, or nothing would work for long. */
static void revive(struct fuzz *f)
{
    bool comreset = below(&f->d.from, 2);

    BOTH(f, {
        pci_config_write(h->dev[DEV_BUS], 0, AG_DEVFN, PCI_BAR0 + 4 * AHCI_ABAR, AG_ABAR, 4);
        pci_config_write(h->dev[DEV_BUS], 0, AG_DEVFN, 0x74, 0, 2); /* D0 */
        pci_config_write(h->dev[DEV_BUS], 0, AG_DEVFN, PCI_COMMAND,
                         PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
        for (unsigned port = 0; port < AG_PORTS; port++) {
            ag_stop_port(h, port);
            if (comreset) {
                ag_put(h, port, PX_SCTL, DET_RESET);
                ag_put(h, port, PX_SCTL, 0);
            }
            ag_start_port(h, port);
        }
    });
}

static void fault(struct fuzz *f)
{
    static const enum disk_op ops[] = {DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD};
    enum disk_op op = PICK(&f->d.from, ops);
    unsigned which = (unsigned)below(&f->d.from, 2);
    bool full = ag_world(f->a)->shim[which]->fault[SHIM_FAULTS - 1].times;

    if (!full)
        BOTH(f, shim_fail(ag_world(h)->shim[which], op, 0, AG_DISK_BYTES, 1, -EIO));
}

static void one(struct fuzz *f)
{
    static const uint64_t times[] = {1, 1000, 19999, 25000, 60000, 200000, 10000000};

    switch (below(&f->d.from, 16)) {
    case 0:
    case 1:
        write_register(f);
        break;
    case 2:
        write_generic(f);
        break;
    case 3:
    case 4:
        read_register(f);
        break;
    case 5:
        issue(f);
        break;
    case 6:
        poke(f);
        break;
    case 7:
        configuration(f);
        break;
    case 8:
        revive(f);
        break;
    case 9:
        fault(f);
        break;
    case 10:
        harness_reload(f->b);
        break;
    case 11:
    case 12: {
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
    uint64_t a[2], b[2];

    for (unsigned n = 0; n < 2; n++) {
        struct ag_world *x = ag_world(f->a), *y = ag_world(f->b);

        if (disk_in_flight(x->disk[n]) || disk_in_flight(y->disk[n]))
            fuzz_failed(&f->d, "requests are still under way");
        if (memcmp(x->shim[n]->bytes, y->shim[n]->bytes, n ? AG_CD_BYTES : AG_DISK_BYTES))
            fuzz_failed(&f->d, "image %u differs after reloads", n);
    }
    vm_state_hash(f->a->vm, a);
    vm_state_hash(f->b->vm, b);
    if (memcmp(ag_ram(f->a, 0), ag_ram(f->b, 0), AG_RAM_BYTES))
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

    f->a = ag_create();
    f->b = ag_create();
    BOTH(f, {
        ag_start_port(h, AG_DISK);
        ag_start_port(h, AG_CD);
    });
    for (unsigned n = 0; n < OPS && !source_has_ended(&d->from); n++)
        one(f);
    BOTH(f, harness_advance(h, 10 * NS_PER_SEC));
    compare(f);
    ag_destroy(f->a);
    ag_destroy(f->b);
}

struct fuzz_driver *fuzz_driver(void)
{
    static struct fuzz f = {
        .d = {.name = "ahci_fuzz", .hang_seconds = HANG_SECONDS, .run = run_case}};

    return &f.d;
}
