/*
 * PCI configuration space in hostile hands: random accesses to a whole board's
 * (host bridge, LPC bridge, root ports, a bridge behind a bridge, functions
 * with every capability), by ports and ECAM, with what they decode, messages
 * and resets in between.
 *
 * usage: pci_fuzz [--seconds S] [--cases N] [--seed SEED]
 *        pci_fuzz --case SEED          one case again, as a failure names it
 *        pci_fuzz --corpus DIRECTORY   the operations in the files there
 *        pci_fuzz --input FILE         those in one file
 *
 * A case is a string of bytes, OP_BYTES an operation, made from a seed or read
 * from a file. Nothing may crash or hang (the sanitizers' part). Beyond that
 * the same operations go to two machines, one of which is saved and loaded now
 * and then: both answer alike, decode the same ranges, and have the same hash.
 * Each machine's BARs are where bus numbers and windows let them be: a function
 * that does not decode memory has no region in the view.
 *
 * For AFL++: afl-fuzz -i tests/fuzz/corpus/pci -o OUT -- pci_fuzz --input @@. For
 * libFuzzer: scripts/fuzz.sh.
 *
 * Exit status: 0, or 1 and a line that says how to have the failure again.
 * Threading: one; a signal ends a case that hangs.
 */
#ifdef FUZZ_LIBFUZZER /* what only main() uses */
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "base/host.h"
#include "board/pc.h"
#include "engine/engine.h"
#include "tests/dev/pci_toy.h"
#include "tests/fuzz/fuzz.h"
#include "vm/vm.h"

enum {
    HANG_SECONDS = 120,
    OP_BYTES = 8,
    OPS_MAX = 2048,
    CASES_A_MACHINE = 64,
    TOYS = 5,
    DIFFERENCES_TOLD = 24,
};

struct machine {
    struct vm *vm;
    struct pc *pc;
    struct pci_bus *bus;
    struct char_backend *serial, *debug;
    struct toy *toy[TOYS];
};

struct fuzz {
    struct machine a, b;
    struct state_stream fresh;
    unsigned cases_here;
    uint64_t seed;
    const char *file; /* where the case came from, or NULL: the seed */
    unsigned op;
    uint64_t cases, ops;
};

static _Noreturn void fail(const struct fuzz *f, const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fprintf(stderr, "pci_fuzz: operation %u: ", f->op);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    if (f->file)
        fprintf(stderr, "\npci_fuzz: again with: pci_fuzz --input %s\n", f->file);
    else
        fprintf(stderr, "\npci_fuzz: again with: pci_fuzz --case %#llx\n",
                (unsigned long long)f->seed);
    exit(1);
}

static void on_hang(int signal)
{
    static const char text[] = "\npci_fuzz: a case hangs\n";

    if (write(2, text, sizeof text - 1) < 0)
        _exit(1);
    abort();
}

/* ---- machines ---- */

static void add_toys(const struct fuzz *f, struct machine *m)
{
    static const char *const name[TOYS] = {"toy0", "toy1", "toy2", "toy3", "toy4"};
    struct error err = {""};
    struct pci_bus *behind[3];

    behind[0] = pcie_root_port_create(m->vm, m->bus, PCI_DEVFN(28, 0), 1, "port0", &err);
    behind[1] = pci_bridge_create(m->vm, m->bus, PCI_DEVFN(30, 0), "bridge", &err);
    if (!behind[0] || !behind[1])
        fail(f, "%s", err.text);
    behind[2] = pcie_root_port_create(m->vm, behind[1], PCI_DEVFN(1, 0), 2, "port1", &err);
    if (!behind[2])
        fail(f, "%s", err.text);
    m->toy[0] = toy_create(m->vm, m->bus, PCI_DEVFN(3, 0),
                           TOY_MSI | TOY_MASKABLE | TOY_FLR | TOY_ROM, name[0]);
    m->toy[1] = toy_create(m->vm, m->bus, PCI_DEVFN(3, 1), TOY_MSIX | TOY_EXPRESS, name[1]);
    m->toy[2] = toy_create(m->vm, behind[0], 0, TOY_MSIX | TOY_MSI | TOY_EXPRESS, name[2]);
    m->toy[3] = toy_create(m->vm, behind[1], PCI_DEVFN(2, 0), TOY_MSI | TOY_FLR, name[3]);
    m->toy[4] = toy_create(m->vm, behind[2], 0, TOY_MSIX | TOY_EXPRESS, name[4]);
    for (unsigned n = 0; n < TOYS; n++)
        if (!m->toy[n])
            fail(f, "cannot make a function");
}

static void machine_create(const struct fuzz *f, struct machine *m)
{
    struct vm_config config = {.deterministic = true, .seed = 1};
    struct pc_config board = {
        .memory_bytes = 2 * MiB,
        .cpus = 1,
        .engine = engine_find("interp", NULL, NULL),
        .firmware = "bios",
    };
    struct error err = {""};

    m->vm = vm_create(&config, &err);
    if (!m->vm)
        fail(f, "%s", err.text);
    m->serial = board.com[0] = char_null_create(m->vm, &err);
    m->debug = board.debug = char_null_create(m->vm, &err);
    if (!m->serial || !m->debug || pc_create(m->vm, &board, &m->pc, &err))
        fail(f, "%s", err.text);
    vm_lock(m->vm);
    m->bus = pc_pci_bus(m->pc);
    add_toys(f, m);
    vm_unlock(m->vm);
}

static void machine_end(struct machine *m)
{
    vm_destroy(m->vm);
    char_destroy(m->serial);
    char_destroy(m->debug);
    *m = (struct machine){0};
}

static void save(const struct fuzz *f, struct machine *m, struct state_stream *s)
{
    struct error err = {""};

    if (vm_state_save(m->vm, s, &err))
        fail(f, "save: %s", err.text);
}

static void load(const struct fuzz *f, struct machine *m, const struct state_stream *s)
{
    struct state_stream in = {.data = s->data, .used = s->used};
    struct error err = {""};

    if (vm_state_load(m->vm, &in, &err))
        fail(f, "load: %s", err.text);
}

static void machines_fresh(struct fuzz *f)
{
    if (f->cases_here == CASES_A_MACHINE) {
        machine_end(&f->a);
        machine_end(&f->b);
        state_stream_free(&f->fresh);
        f->cases_here = 0;
    }
    if (!f->a.vm) {
        machine_create(f, &f->a);
        machine_create(f, &f->b);
        save(f, &f->a, &f->fresh);
    }
    f->cases_here++;
    load(f, &f->a, &f->fresh);
    load(f, &f->b, &f->fresh);
}

/* ---- what must hold ---- */

static void print_difference(void *ctx, const char *line)
{
    fprintf(stderr, "  %s\n", line);
}

static void same_views(const struct fuzz *f, const struct address_space *a,
                       const struct address_space *b)
{
    const struct flat_view *x = a->view, *y = b->view;

    if (x->count != y->count)
        fail(f, "%s: %zu ranges and %zu", a->name, x->count, y->count);
    for (size_t n = 0; n < x->count; n++) {
        const struct flat_range *p = &x->range[n], *q = &y->range[n];

        if (p->base != q->base || p->last != q->last || p->offset != q->offset ||
            strcmp(p->region->name, q->region->name))
            fail(f, "%s: %s at %#llx and %s at %#llx", a->name, p->region->name,
                 (unsigned long long)p->base, q->region->name, (unsigned long long)q->base);
    }
}

static void must_be_same(const struct fuzz *f)
{
    struct state_stream x = {0}, y = {0};
    uint64_t a[2], b[2];

    same_views(f, &f->a.vm->memory, &f->b.vm->memory);
    same_views(f, &f->a.vm->ports, &f->b.vm->ports);
    vm_state_hash(f->a.vm, a);
    vm_state_hash(f->b.vm, b);
    if (!memcmp(a, b, sizeof a))
        return;
    save(f, (struct machine *)&f->a, &x);
    save(f, (struct machine *)&f->b, &y);
    vm_state_diff(f->a.vm, &x, &y, print_difference, NULL, DIFFERENCES_TOLD);
    fail(f, "the machines differ");
}

/* BARs are decoded where they say and nowhere else. */
static void must_decode(const struct fuzz *f, const struct machine *m)
{
    for (unsigned n = 0; n < TOYS; n++) {
        const struct pci_function *p = &m->toy[n]->pci;

        for (unsigned i = 0; i <= PCI_ROM; i++) {
            const struct pci_bar *bar = &p->bars[i];
            uint64_t address = 0;
            bool decoded = bar->added && pci_bar_address(p, i, &address);

            if (bar->added &&
                (bar->region.enabled != decoded || (decoded && bar->region.base != address)))
                fail(f, "toy %u: BAR %u is at %#llx, should be at %#llx", n, i,
                     (unsigned long long)bar->region.base, (unsigned long long)address);
            if (decoded && bar->kind != PCI_BAR_IO && address + bar->region.size > BIT(52))
                fail(f, "toy %u: BAR %u is beyond the address space", n, i);
        }
    }
}

/* ---- operations ---- */

/* Functions that are there, more often than others. */
static uint32_t config_address(const struct machine *m, unsigned which)
{
    static const uint8_t devfn[] = {0,
                                    PCI_DEVFN(31, 0),
                                    PCI_DEVFN(28, 0),
                                    PCI_DEVFN(30, 0),
                                    PCI_DEVFN(3, 0),
                                    PCI_DEVFN(3, 1),
                                    0,
                                    PCI_DEVFN(2, 0),
                                    PCI_DEVFN(1, 0),
                                    0};
    unsigned n = which % 12, bus = 0;

    if (n >= ARRAY_SIZE(devfn))
        return which << 8; /* whatever */
    if (n == 6)
        bus = pci_config_read(m->bus, 0, PCI_DEVFN(28, 0), PCI_SECONDARY_BUS, 1);
    else if (n == 7 || n == 8)
        bus = pci_config_read(m->bus, 0, PCI_DEVFN(30, 0), PCI_SECONDARY_BUS, 1);
    else if (n == 9)
        bus = pci_config_read(m->bus, 0, PCI_DEVFN(30, 0), PCI_SUBORDINATE_BUS, 1);
    return bus << 16 | (uint32_t)devfn[n] << 8;
}

/* Firmware's part, so that there is something to break. */
static void assign(struct machine *m, unsigned how)
{
    static const uint8_t port = PCI_DEVFN(28, 0), bridge = PCI_DEVFN(30, 0);
    uint32_t base = 0xC0000000u + (how & 0xFF) * 0x100000;

    pci_config_write(m->bus, 0, port, PCI_PRIMARY_BUS, 0x010100, 4);
    pci_config_write(m->bus, 0, bridge, PCI_PRIMARY_BUS, 0x030200, 4);
    pci_config_write(m->bus, 2, PCI_DEVFN(1, 0), PCI_PRIMARY_BUS, 0x030302, 4);
    for (unsigned n = 0; n < 3; n++) {
        uint8_t bus = n == 2 ? 2 : 0, devfn = n == 0 ? port : n == 1 ? bridge : PCI_DEVFN(1, 0);
        uint32_t window = (base >> 16) + n * 0x80;

        pci_config_write(m->bus, bus, devfn, PCI_MEMORY_BASE, window << 16 | window | 0x700000, 4);
        pci_config_write(m->bus, bus, devfn, PCI_COMMAND, 7, 2);
    }
    for (unsigned n = 0; n < TOYS; n++) {
        const struct pci_function *f = &m->toy[n]->pci;
        uint8_t bus = n < 2 ? 0 : n == 2 ? 1 : n == 3 ? 2 : 3;

        pci_config_write(m->bus, bus, f->devfn, PCI_BAR0, 0xC000 + n * 0x100, 4);
        pci_config_write(m->bus, bus, f->devfn, PCI_BAR0 + 4, base + n * 0x100000, 4);
        pci_config_write(m->bus, bus, f->devfn, PCI_BAR0 + 16, base + n * 0x100000 + 0x8000, 4);
        pci_config_write(m->bus, bus, f->devfn, PCI_COMMAND, 7, 2);
    }
}

static void start_messages(struct machine *m, unsigned n, uint32_t value)
{
    static const uint8_t bus[TOYS] = {0, 0, 1, 2, 3};
    const struct pci_function *f = &m->toy[n]->pci;

    if (f->msi) {
        pci_config_write(m->bus, bus[n], f->devfn, f->msi + 4u, 0xFEE00000, 4);
        pci_config_write(m->bus, bus[n], f->devfn, f->msi + 8u, 0, 4);
        pci_config_write(m->bus, bus[n], f->devfn, f->msi + 16u, value >> 8, 4);
        pci_config_write(m->bus, bus[n], f->devfn, f->msi + 2u, value >> 4 & 0x71, 2);
    }
    if (f->msix)
        pci_config_write(m->bus, bus[n], f->devfn, f->msix_capability + 2u, value >> 16 & 0xC000,
                         2);
    pci_config_write(m->bus, bus[n], f->devfn, PCI_COMMAND, 7, 2);
}

/* An address near something that is decoded. */
static uint64_t near_range(const struct address_space *as, unsigned which, unsigned offset)
{
    const struct flat_view *view = as->view;
    const struct flat_range *r = &view->range[which % view->count];

    return offset & 0x8000 ? r->last - (offset & 0xFF) : r->base + (offset & 0x7FFF);
}

static uint64_t bus_access(struct address_space *as, uint64_t at, unsigned size, bool write,
                           uint64_t value)
{
    uint64_t got = 0;

    if (write)
        as_store(as, at, size, value);
    else
        as_load(as, at, size, &got);
    return got;
}

/* One operation; returns what it saw. */
static uint64_t operate(struct machine *m, const uint8_t op[OP_BYTES])
{
    uint32_t value = le32_get(op + 4);
    unsigned which = op[1], offset = op[2] | (unsigned)op[3] << 8, size = 1u << (op[0] >> 4) % 3;
    bool write = op[0] & 0x80;
    struct toy *t = m->toy[which % TOYS];
    uint64_t base, bytes;

    switch (op[0] & 15) {
    case 0:
    case 1:
    case 2: /* by ports */
        as_store(&m->vm->ports, 0xCF8, 4, 0x80000000u | config_address(m, which) | (offset & 0xFC));
        return bus_access(&m->vm->ports, 0xCFC + (offset & 4 ? 0 : offset >> 8 & 3), size, write,
                          value);
    case 3:
    case 4: /* by ECAM */
        if (!pci_bus_ecam(m->bus, &base, &bytes))
            return 0;
        return bus_access(&m->vm->memory,
                          base + ((uint64_t)config_address(m, which) << 4) + (offset & 0xFFF), size,
                          write, value);
    case 5: /* the header's registers, whole */
        pci_config_write(m->bus, (uint8_t)(config_address(m, which) >> 16),
                         (uint8_t)(config_address(m, which) >> 8), offset & 0x3C, value, 4);
        return 0;
    case 6:
        return bus_access(&m->vm->memory, near_range(&m->vm->memory, which, offset), 1u << size % 4,
                          write, value);
    case 7:
        return bus_access(&m->vm->ports, near_range(&m->vm->ports, which, offset), size, write,
                          value);
    case 8:
        pci_msi_raise(&t->pci, value);
        return pci_msi_vectors(&t->pci);
    case 9:
        pci_interrupt_set(&t->pci, value & 1);
        return pci_is_master(&t->pci);
    case 10: { /* an entry of MSI-X, or the pending bits */
        uint64_t table;

        if (!t->pci.msix || !pci_bar_address(&t->pci, 4, &table))
            return 0;
        table += offset & 0x100 ? 0x800 + (offset & 4) : (offset & 0xFF) % 160 / 4 * 4;
        return bus_access(&m->vm->memory, table, 4, write,
                          write && offset & 4 ? value : 0xFEE00000u | (value & 0xFFFFF));
    }
    case 11:
        assign(m, value);
        return 0;
    case 12: /* command and power */
        pci_config_write(m->bus, (uint8_t)(config_address(m, which) >> 16),
                         (uint8_t)(config_address(m, which) >> 8), PCI_COMMAND, value, 2);
        return 0;
    case 13: { /* DMA by a function */
        uint64_t word = value;
        uint64_t at = (uint64_t)offset << 16 | (value & 0xFFFF);

        return write ? (uint64_t)pci_dma_write(&t->pci, at, &word, size)
                     : (uint64_t)pci_dma_read(&t->pci, at, &word, size) ^ word;
    }
    case 14: /* ECAM, PAM, PMBASE and what else the chipset has */
        pci_config_write(m->bus, 0, which & 1 ? PCI_DEVFN(31, 0) : 0, offset & 0xFC, value, 4);
        return 0;
    default: /* a reset of the device by its own; messages enabled and masked */
        if ((value & 0xF) == 0)
            toy_reset(t);
        else
            start_messages(m, which % TOYS, value);
        return 0;
    }
}

static void run_ops(struct fuzz *f, const uint8_t *data, size_t bytes)
{
    struct state_stream s = {0};

    alarm(HANG_SECONDS);
    machines_fresh(f);
    for (f->op = 0; f->op < OPS_MAX && (f->op + 1) * OP_BYTES <= bytes; f->op++) {
        const uint8_t *op = data + f->op * OP_BYTES;
        uint64_t x, y;

        vm_lock(f->a.vm);
        x = operate(&f->a, op);
        vm_unlock(f->a.vm);
        vm_lock(f->b.vm);
        y = operate(&f->b, op);
        vm_unlock(f->b.vm);
        if (x != y)
            fail(f, "answers %#llx and %#llx", (unsigned long long)x, (unsigned long long)y);
        if (f->op % 32 == 31) {
            must_decode(f, &f->a);
            must_decode(f, &f->b);
        }
        if (f->op % 64 == 63) {
            must_be_same(f);
            save(f, &f->b, &s);
            if (f->op % 512 == 511) { /* what is not saved is not there */
                machine_end(&f->b);
                machine_create(f, &f->b);
            }
            load(f, &f->b, &s);
            state_stream_free(&s);
            s = (struct state_stream){0};
            must_be_same(f);
        }
        f->ops++;
    }
    must_decode(f, &f->a);
    must_be_same(f);
    alarm(0);
    f->cases++;
}

static void run_seed(struct fuzz *f, uint64_t seed)
{
    static uint8_t data[OPS_MAX * OP_BYTES];
    struct rng r = {seed};
    size_t ops = 64 + rng_below(&r, OPS_MAX - 64);

    f->seed = seed;
    f->file = NULL;
    for (size_t n = 0; n < ops; n++) {
        uint8_t *op = data + n * OP_BYTES;

        le64_put(op, rng_next(&r));
        if (rng_one_in(&r, 3)) /* values that mean something */
            le32_put(op + 4, rng_one_in(&r, 2) ? ~0u : (uint32_t)1 << rng_below(&r, 32));
    }
    run_ops(f, data, ops * OP_BYTES);
}

#ifdef FUZZ_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct fuzz f = {.file = "INPUT"};

    run_ops(&f, data, bytes);
    return 0;
}

#else

static void run_file(struct fuzz *f, const char *path)
{
    static uint8_t data[OPS_MAX * OP_BYTES];
    FILE *file = fopen(path, "rb");
    size_t bytes;

    f->file = path;
    if (!file)
        fail(f, "%s: %s", path, strerror(errno));
    bytes = fread(data, 1, sizeof data, file);
    fclose(file);
    run_ops(f, data, bytes);
}

static void run_corpus(struct fuzz *f, const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    char name[4096];

    if (!directory)
        fail(f, "%s: %s", path, strerror(errno));
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        run_file(f, name);
    }
    closedir(directory);
}

static uint64_t seconds_now(void)
{
    return host_monotonic_ns() / NS_PER_SEC;
}

int main(int argc, char **argv)
{
    struct fuzz f = {0};
    uint64_t seed = 1, cases = 0, seconds = 0, end;
    const char *corpus = NULL, *one = NULL, *input = NULL;

    if (argc % 2 == 0) {
        fprintf(stderr, "pci_fuzz: options come with a value\n");
        return 2;
    }
    for (int n = 1; n + 1 < argc; n += 2) {
        if (!strcmp(argv[n], "--seconds"))
            seconds = strtoull(argv[n + 1], NULL, 0);
        else if (!strcmp(argv[n], "--cases"))
            cases = strtoull(argv[n + 1], NULL, 0);
        else if (!strcmp(argv[n], "--seed"))
            seed = strtoull(argv[n + 1], NULL, 0);
        else if (!strcmp(argv[n], "--case"))
            one = argv[n + 1];
        else if (!strcmp(argv[n], "--corpus"))
            corpus = argv[n + 1];
        else if (!strcmp(argv[n], "--input"))
            input = argv[n + 1];
    }
    signal(SIGALRM, on_hang);
    end = seconds ? seconds_now() + seconds : UINT64_MAX;
    if (input) {
        run_file(&f, input);
    } else if (one) {
        run_seed(&f, strtoull(one, NULL, 0));
    } else if (corpus) {
        run_corpus(&f, corpus);
    } else {
        struct rng seeds = {seed};

        if (!cases)
            cases = seconds ? UINT64_MAX : 100;
        for (uint64_t n = 0; n < cases && seconds_now() < end; n++)
            run_seed(&f, rng_next(&seeds));
    }
    printf("pci_fuzz: %llu cases, %llu operations\n", (unsigned long long)f.cases,
           (unsigned long long)f.ops);
    machine_end(&f.a);
    machine_end(&f.b);
    state_stream_free(&f.fresh);
    return 0;
}

#endif
