/*
 * A hostile driver of the AHCI adapter: registers, command lists, tables and
 * PRDTs as they should not be, faults of the host, resets, configuration space
 * under the adapter's own DMA.
 *
 * usage: ahci_fuzz [--seconds S] [--cases N] [--seed SEED]
 *        ahci_fuzz --case SEED         one case again, as a failure names it
 *        ahci_fuzz --corpus FILE       the cases listed there (# begins a comment)
 *        ahci_fuzz --input FILE        what the file's bytes say, as a fuzzer makes it
 *
 * Each case runs on two machines, one of which is saved and loaded now and then.
 * They must not crash or hang or touch what is not theirs (the sanitizers'
 * part), must read the same from all registers, and end as the same machine
 * with the same memory and images, with no request left under way.
 *
 * Exit status: 0, or 1 and a line that says how to have the failure again.
 * Threading: one; a signal ends a case that hangs.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/dev/ahci_guest.h"
#include "tests/fuzz/fuzz.h"

enum { HANG_SECONDS = 120, OPS = 300, INPUT_MAX = 65536 };

/* Where a case's decisions come from: a seed, or a file until it ends. */
struct source {
    struct rng rng;
    const uint8_t *data;
    size_t left;
    bool is_file;
};

struct fuzz {
    struct harness *a, *b;
    struct source from;
    uint64_t seed;
};

static uint64_t next(struct source *s)
{
    uint64_t v = 0;

    if (!s->is_file)
        return rng_next(&s->rng);
    for (unsigned n = 0; n < 4 && s->left; n++, s->left--)
        v |= (uint64_t)*s->data++ << 8 * n;
    return v * 0x9e3779b97f4a7c15; /* small files decide much, too */
}

static uint64_t below(struct source *s, uint64_t n)
{
    return (next(s) >> 16) % n;
}

#define PICK(s, array) ((array)[below(s, ARRAY_SIZE(array))])

_Noreturn static void failed(struct fuzz *f, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "ahci_fuzz: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; again: ahci_fuzz --case 0x%llx\n", (unsigned long long)f->seed);
    exit(1);
}

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

#define BOTH(f, call)                                                                              \
    do {                                                                                           \
        struct harness *h = (f)->a;                                                                \
        call;                                                                                      \
        h = (f)->b;                                                                                \
        call;                                                                                      \
    } while (0)

static void write_register(struct fuzz *f)
{
    static const uint8_t port_registers[] = {PX_CLB,  PX_CLBU, PX_FB,  PX_FBU,  PX_IS,
                                             PX_IE,   PX_CMD,  PX_TFD, PX_SCTL, PX_SERR,
                                             PX_SACT, PX_CI,   PX_CI,  0x40,    PX_SSTS};
    unsigned port = (unsigned)below(&f->from, AG_PORTS);
    uint8_t offset = PICK(&f->from, port_registers);
    uint32_t v = value(&f->from);

    if ((offset == PX_CLB || offset == PX_FB) && below(&f->from, 2))
        v = (uint32_t)address(&f->from);
    BOTH(f, ag_put(h, port, offset, v));
}

static void write_generic(struct fuzz *f)
{
    static const uint8_t registers[] = {AHCI_CAP, AHCI_GHC, AHCI_IS, AHCI_PI, 0x14, 0x28};
    uint8_t offset = PICK(&f->from, registers);
    uint32_t v = value(&f->from);
    unsigned size = below(&f->from, 8) ? 4 : 1u << below(&f->from, 4);

    BOTH(f, mm_out(h, AG_ABAR + offset, v, size));
}

static void read_register(struct fuzz *f)
{
    uint64_t at = AG_ABAR + below(&f->from, AHCI_REGISTER_BYTES);
    unsigned size = 1u << below(&f->from, 4);
    uint64_t a = mm_in(f->a, at, size), b = mm_in(f->b, at, size);

    if (a != b)
        failed(f, "register %llx reads as %llx, and as %llx after a reload",
               (unsigned long long)(at - AG_ABAR), (unsigned long long)a, (unsigned long long)b);
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
    struct source *s = &f->from;
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
    unsigned port = (unsigned)below(&f->from, AG_PORTS);
    uint32_t slots = (uint32_t)next(&f->from);

    BOTH(f, ag_put(h, port, PX_SACT, slots));
    BOTH(f, ag_issue(h, port, slots));
}

/* A word of a list, a table, or anything. */
static void poke(struct fuzz *f)
{
    uint64_t at = below(&f->from, 4) ? AG_LIST(below(&f->from, 2)) + below(&f->from, 1024)
                                     : AG_TABLE(0, below(&f->from, 4)) + below(&f->from, 512);
    uint64_t v = below(&f->from, 2) ? address(&f->from) : value(&f->from);

    BOTH(f, le64_put(ag_ram(h, at), v));
}

static void configuration(struct fuzz *f)
{
    unsigned offset = (unsigned)below(&f->from, 256) & ~3u;
    uint32_t v = value(&f->from);

    BOTH(f, pci_config_write(h->dev[DEV_BUS], 0, AG_DEVFN, offset, v, 4));
}

/* What a driver does to bring it back, or nothing would work for long. */
static void revive(struct fuzz *f)
{
    bool comreset = below(&f->from, 2);

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
    enum disk_op op = PICK(&f->from, ops);
    unsigned which = (unsigned)below(&f->from, 2);
    bool full = ag_world(f->a)->shim[which]->fault[SHIM_FAULTS - 1].times;

    if (!full)
        BOTH(f, shim_fail(ag_world(h)->shim[which], op, 0, AG_DISK_BYTES, 1, -EIO));
}

static void one(struct fuzz *f)
{
    static const uint64_t times[] = {1, 1000, 19999, 25000, 60000, 200000, 10000000};

    switch (below(&f->from, 16)) {
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
        uint64_t ns = PICK(&f->from, times);

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
            failed(f, "requests are still under way");
        if (memcmp(x->shim[n]->bytes, y->shim[n]->bytes, n ? AG_CD_BYTES : AG_DISK_BYTES))
            failed(f, "image %u differs after reloads", n);
    }
    vm_state_hash(f->a->vm, a);
    vm_state_hash(f->b->vm, b);
    if (memcmp(ag_ram(f->a, 0), ag_ram(f->b, 0), AG_RAM_BYTES))
        failed(f, "memory differs after reloads");
    if (memcmp(a, b, sizeof a))
        failed(f, "devices differ after reloads");
    if (f->a->message_count != f->b->message_count)
        failed(f, "%u messages, and %u after reloads", f->a->message_count, f->b->message_count);
}

static void run_case(struct fuzz *f)
{
    alarm(HANG_SECONDS);
    f->a = ag_create();
    f->b = ag_create();
    BOTH(f, {
        ag_start_port(h, AG_DISK);
        ag_start_port(h, AG_CD);
    });
    for (unsigned n = 0; n < OPS && (!f->from.is_file || f->from.left); n++)
        one(f);
    BOTH(f, harness_advance(h, 10 * NS_PER_SEC));
    compare(f);
    ag_destroy(f->a);
    ag_destroy(f->b);
    alarm(0);
}

static void run_seed(struct fuzz *f, uint64_t seed)
{
    f->seed = seed;
    f->from = (struct source){.rng = {seed}};
    run_case(f);
}

static int run_corpus(struct fuzz *f, const char *path)
{
    FILE *file = fopen(path, "r");
    char line[256];
    unsigned count = 0;

    if (!file) {
        fprintf(stderr, "ahci_fuzz: %s: %s\n", path, strerror(errno));
        return 1;
    }
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#' || line[0] == '\n')
            continue;
        run_seed(f, strtoull(line, NULL, 0));
        count++;
    }
    fclose(file);
    printf("%u cases of the corpus\n", count);
    return 0;
}

static int run_input(struct fuzz *f, const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *file = fopen(path, "rb");

    if (!file) {
        fprintf(stderr, "ahci_fuzz: %s: %s\n", path, strerror(errno));
        return 1;
    }
    f->from =
        (struct source){.data = data, .left = fread(data, 1, sizeof data, file), .is_file = true};
    fclose(file);
    run_case(f);
    return 0;
}

static void hung(int signal)
{
    static const char text[] = "ahci_fuzz: a case hangs\n";

    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(2);
    abort();
}

int main(int argc, char **argv)
{
    struct fuzz f = {0};
    uint64_t seconds = 0, cases = 0, seed = 1, done = 0, end;

    signal(SIGALRM, hung);
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t number = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seconds"))
            seconds = number;
        else if (!strcmp(argv[i], "--cases"))
            cases = number;
        else if (!strcmp(argv[i], "--seed"))
            seed = number;
        else if (!strcmp(argv[i], "--case"))
            return run_seed(&f, number), 0;
        else if (!strcmp(argv[i], "--corpus"))
            return run_corpus(&f, argv[i + 1]);
        else if (!strcmp(argv[i], "--input"))
            return run_input(&f, argv[i + 1]);
    }
    f.from.rng.state = seed;
    end = host_monotonic_ns() + seconds * NS_PER_SEC;
    for (struct rng seeds = {seed}; done < cases || (seconds && host_monotonic_ns() < end); done++)
        run_seed(&f, rng_next(&seeds));
    printf("%llu cases from seed %llu\n", (unsigned long long)done, (unsigned long long)seed);
    return 0;
}
