/*
 * A hostile driver of the NVMe controller: registers, doorbells, queues, PRP
 * lists and commands as they should not be, faults of the host, resets,
 * configuration space under the controller's own DMA.
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
#include <stdio.h>

#include "tests/dev/nvme_guest.h"
#include "tests/fuzz/driver.h"
#include "vm/state.h"

enum { HANG_SECONDS = 120, OPS = 300 };

struct fuzz {
    struct fuzz_driver d;
    struct harness *a, *b;
};

/* ---- values that are likely to hurt ---- */

static uint64_t address(struct source *s)
{
    static const uint64_t places[] = {
        NG_BUFFER,
        NG_BUFFER + 4,
        NG_BUFFER + 4092,
        NG_LIST,
        NG_LIST + 4088,
        NG_LIST + 8192,
        NG_ROM,
        NG_ROM + 64 * KiB - 4096,
        NG_BAR,
        NG_BAR + NVME_CC,
        NG_BAR + NVME_DOORBELLS,
        NG_BAR + NVME_DOORBELLS + 8,
        NG_MSIX,
        NG_RAM_BYTES - 4096,
        NG_RAM_BYTES - 512,
        NG_SQ(0),
        NG_SQ(1),
        NG_CQ(0),
        NG_CQ(1),
        NG_ECAM + NG_DEVFN * 4096,
        0,
        0xFEE00000,
        0x100000000ull,
        0xFFFFFFFFFFFFF000ull,
        0xFFFFFFFFFFFFFFF8ull,
    };

    if (!below(s, 8))
        return next(s) % (NG_RAM_BYTES + 4096);
    return below(s, 2) ? NG_BUFFER + below(s, 64) * 4096 : PICK(s, places);
}

static uint32_t value(struct source *s)
{
    static const uint32_t values[] = {
        0,       1,       2,    3,        7,      8,  31,         32,         0x1000,  0xFFFF,
        0x10000, 0x10001, 1023, 0x1F0001, 0x7FFF, 64, 0xFFFFFFFF, 0x80000000, 0x460001};

    return below(s, 4) ? PICK(s, values) : (uint32_t)next(s);
}

/* ---- operations: the same on both machines ---- */

static void write_register(struct fuzz *f)
{
    static const uint16_t registers[] = {NVME_INTMS, NVME_INTMC, NVME_CC,      NVME_CSTS, NVME_AQA,
                                         NVME_ASQ,   NVME_ACQ,   NVME_ASQ + 4, 0x20,      NVME_CC};
    unsigned offset = PICK(&f->d.from, registers);
    uint32_t v = value(&f->d.from);
    unsigned size = below(&f->d.from, 8) ? 4 : 1u << below(&f->d.from, 4);

    if (offset == NVME_CC && below(&f->d.from, 2))
        v = CC_EN | 6 << CC_IOSQES_SHIFT | 4 << CC_IOCQES_SHIFT |
            (uint32_t)below(&f->d.from, 4) << 14 | (uint32_t)below(&f->d.from, 6) << CC_MPS_SHIFT;
    BOTH(f, mm_out(h, NG_BAR + offset, v, size));
}

static void doorbell(struct fuzz *f)
{
    unsigned id = (unsigned)below(&f->d.from, below(&f->d.from, 8) ? 4 : 80);
    unsigned which = (unsigned)below(&f->d.from, 2) * 4;
    uint32_t v =
        below(&f->d.from, 4) ? (uint32_t)below(&f->d.from, NG_ENTRIES + 1) : value(&f->d.from);

    BOTH(f, ng_put(h, NVME_DOORBELLS + id * 8 + which, v));
}

static void read_register(struct fuzz *f)
{
    uint64_t at = NG_BAR + below(&f->d.from, below(&f->d.from, 4) ? 0x40 : NVME_REGISTER_BYTES);
    unsigned size = 1u << below(&f->d.from, 4);
    uint64_t a = mm_in(f->a, at, size), b = mm_in(f->b, at, size);

    if (a != b)
        fuzz_failed(&f->d, "register %llx reads as %llx, and as %llx after a reload",
                    (unsigned long long)(at - NG_BAR), (unsigned long long)a,
                    (unsigned long long)b);
}

/* A command that may well be good. */
static struct nvme_command command(struct source *s, unsigned id)
{
    static const uint8_t io[] = {NVME_READ,         NVME_WRITE,   NVME_READ,
                                 NVME_WRITE,        NVME_FLUSH,   NVME_COMPARE,
                                 NVME_WRITE_ZEROES, NVME_DATASET, 4};
    static const uint8_t admins[] = {NVME_CREATE_CQ,    NVME_CREATE_SQ, NVME_DELETE_SQ,
                                     NVME_DELETE_CQ,    NVME_CREATE_CQ, NVME_CREATE_SQ,
                                     NVME_GET_LOG,      NVME_IDENTIFY,  NVME_SET_FEATURES,
                                     NVME_GET_FEATURES, NVME_ABORT,     NVME_ASYNC_EVENT};
    static const uint8_t pages[] = {1, 2, 3, 5, 7};
    struct nvme_command c = {
        .opcode = id ? PICK(s, io) : PICK(s, admins),
        .sqid = (uint16_t)id,
        .cid = (uint16_t)(1 + below(s, 64)),
        .nsid = below(s, 8) ? 1 : value(s),
        .prp1 = address(s),
        .prp2 = below(s, 2) ? NG_LIST + below(s, 512) * 8 : address(s),
        .dw10 = (uint32_t)below(s, NG_BLOCKS + 2),
        .dw12 = (uint32_t)below(s, below(s, 4) ? 32 : 2100),
    };

    if (!below(s, 8))
        c.dw12 |= (uint32_t)next(s) & 0xFFFF0000;
    if (c.opcode == NVME_DATASET && id) {
        c.dw10 = (uint32_t)below(s, 6);
        c.dw11 = (uint32_t)below(s, 8);
    }
    if (!id) {
        unsigned queue = (unsigned)below(s, 4);

        c.dw12 = 0;
        switch (c.opcode) {
        case NVME_CREATE_CQ:
            c.prp1 = below(s, 8) ? NG_CQ(queue) : address(s);
            c.dw10 = queue | (uint32_t)(below(s, 8) ? NG_ENTRIES - 1 : below(s, 1030)) << 16;
            c.dw11 = 3 | (uint32_t)below(s, 8) << 16;
            break;
        case NVME_CREATE_SQ:
            c.prp1 = below(s, 8) ? NG_SQ(queue) : address(s);
            c.dw10 = queue | (uint32_t)(below(s, 8) ? NG_ENTRIES - 1 : below(s, 1030)) << 16;
            c.dw11 = 1 | (uint32_t)(below(s, 4) ? queue : below(s, 5)) << 16;
            break;
        case NVME_DELETE_CQ:
        case NVME_DELETE_SQ:
            c.dw10 = queue;
            break;
        case NVME_GET_LOG:
            c.nsid = below(s, 2) ? 0 : c.nsid;
            c.dw10 = PICK(s, pages) | (uint32_t)below(s, 2) << 15 | (uint32_t)below(s, 1100) << 16;
            c.dw12 = (uint32_t)below(s, 3) * 4;
            break;
        case NVME_IDENTIFY:
            c.dw10 = (uint32_t)below(s, 5);
            break;
        case NVME_ABORT:
            c.dw10 = (uint32_t)below(s, 4) | (uint32_t)(1 + below(s, 64)) << 16;
            break;
        default: /* features */
            c.nsid = below(s, 2) ? 0 : c.nsid;
            c.dw10 = (uint32_t)below(s, 14) | (uint32_t)below(s, 5) << 8;
            c.dw11 = value(s);
            break;
        }
    }
    return c;
}

static void prepare(struct fuzz *f)
{
    unsigned id = (unsigned)below(&f->d.from, 4), count = 1 + (unsigned)below(&f->d.from, 6);

    while (count--) {
        struct nvme_command c = command(&f->d.from, id);

        if (!below(&f->d.from, 16))
            c.opcode = (uint8_t)next(&f->d.from);
        if (!below(&f->d.from, 16))
            c.flags = (uint8_t)next(&f->d.from);
        BOTH(f, {
            ng_world(h)->size[id] = NG_ENTRIES;
            ng_put_command(h, c);
        });
    }
    if (below(&f->d.from, 8))
        BOTH(f, ng_ring(h, id));
}

/* A PRP list, a range, or anything. */
static void poke(struct fuzz *f)
{
    uint64_t at = below(&f->d.from, 4) ? NG_LIST + below(&f->d.from, 1536) * 8
                                       : below(&f->d.from, NG_RAM_BYTES - 8);
    uint64_t v = below(&f->d.from, 2) ? address(&f->d.from) : value(&f->d.from);

    BOTH(f, le64_put(ng_ram(h, at), v));
}

/* What a driver does with what is done. */
static void take(struct fuzz *f)
{
    unsigned id = (unsigned)below(&f->d.from, 4);

    BOTH(f, {
        ng_world(h)->size[id] = NG_ENTRIES;
        for (unsigned n = 0; n < NG_ENTRIES && ng_next(h, id).found; n++)
            continue;
    });
}

static void configuration(struct fuzz *f)
{
    unsigned offset = (unsigned)below(&f->d.from, 256) & ~3u;
    uint32_t v = value(&f->d.from);

    BOTH(f, pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, offset, v, 4));
}

/* A queue pair, whatever its queue says to it. */
static void add_queue(struct harness *h, unsigned id)
{
    struct nvme_command c = {.opcode = NVME_CREATE_CQ,
                             .prp1 = NG_CQ(id),
                             .dw10 = id | (NG_ENTRIES - 1) << 16,
                             .dw11 = 3};

    ng_world(h)->tail[id] = ng_world(h)->head[id] = 0;
    ng_world(h)->size[id] = NG_ENTRIES;
    ng_world(h)->phase[id] = true;
    memset(ng_ram(h, NG_CQ(id)), 0, NG_ENTRIES * NVME_CQE_BYTES);
    ng_put_command(h, c);
    c.opcode = NVME_CREATE_SQ;
    c.prp1 = NG_SQ(id);
    c.dw11 = 1 | id << 16;
    ng_put_command(h, c);
}

/* What a driver does to bring it back, or nothing would work for long. */
static void revive(struct fuzz *f)
{
    bool msix = below(&f->d.from, 2);

    BOTH(f, {
        struct nvme *n = h->dev[DEV_NVME];

        pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, PCI_BAR0, NG_BAR, 4);
        pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, PCI_BAR0 + 4, 0, 4);
        pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, PCI_BAR0 + 16, NG_MSIX, 4);
        pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, n->pci.power + 4u, 0, 2); /* D0 */
        pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, PCI_COMMAND,
                         PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
        if (msix)
            ng_use_msix(h);
        ng_enable(h);
        for (unsigned id = 1; id < 4; id++)
            add_queue(h, id);
        ng_ring(h, 0);
        harness_advance(h, 1000000);
        while (ng_next(h, 0).found)
            continue;
    });
}

static void fault(struct fuzz *f)
{
    static const enum disk_op faults[] = {DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD};
    static const int errors[] = {-EIO, -ENOSPC, -EINVAL};
    enum disk_op op = PICK(&f->d.from, faults);
    int error = PICK(&f->d.from, errors);
    bool full = ng_world(f->a)->shim->fault[SHIM_FAULTS - 1].times;

    if (!full)
        BOTH(f, shim_fail(ng_world(h)->shim, op, 0, NG_DISK_BYTES, 1, error));
}

static void one(struct fuzz *f)
{
    static const uint64_t times[] = {1, 1000, 19999, 25000, 60000, 200000, 10000000};

    switch (below(&f->d.from, 20)) {
    case 0:
        write_register(f);
        break;
    case 1:
    case 2:
        doorbell(f);
        break;
    case 3:
        read_register(f);
        break;
    case 4:
    case 5:
        poke(f);
        break;
    case 6:
        configuration(f);
        break;
    case 7:
        revive(f);
        break;
    case 8:
        fault(f);
        break;
    case 9:
        harness_reload(f->b);
        break;
    case 10:
    case 11:
    case 12:
        take(f);
        break;
    case 13:
    case 14: {
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

static void tell(void *ctx, const char *line)
{
    fprintf(stderr, "nvme_fuzz: %s\n", line);
}

static void compare(struct fuzz *f)
{
    struct state_comparison with = {0};
    struct ng_world *x = ng_world(f->a), *y = ng_world(f->b);
    uint64_t a[2], b[2];

    if (disk_in_flight(x->disk) || disk_in_flight(y->disk))
        fuzz_failed(&f->d, "requests are still under way");
    if (memcmp(x->shim->bytes, y->shim->bytes, NG_DISK_BYTES))
        fuzz_failed(&f->d, "the image differs after reloads");
    vm_state_hash(f->a->vm, a);
    vm_state_hash(f->b->vm, b);
    if (memcmp(ng_ram(f->a, 0), ng_ram(f->b, 0), NG_RAM_BYTES))
        fuzz_failed(&f->d, "memory differs after reloads");
    if (memcmp(a, b, sizeof a) && vm_state_compare(f->a->vm, f->b->vm, false, &with, tell, NULL, 8))
        fuzz_failed(&f->d, "devices differ after reloads");
    if (f->a->message_count != f->b->message_count)
        fuzz_failed(&f->d, "%u messages, and %u after reloads", f->a->message_count,
                    f->b->message_count);
}

static void run_case(struct fuzz_driver *d)
{
    struct fuzz *f = (struct fuzz *)d;

    f->a = ng_create();
    f->b = ng_create();
    revive(f);
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
        .d = {.name = "nvme_fuzz", .hang_seconds = HANG_SECONDS, .run = run_case}};

    return &f.d;
}
