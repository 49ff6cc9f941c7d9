/*
 * A guest that means no good: random code on random processor states, random
 * bus accesses, and firmware with damage, on whole deterministic machines.
 *
 * usage: guest_fuzz [--seconds S] [--cases N] [--seed SEED] [--kind KIND] [--firmware FILE]
 *        guest_fuzz --case SEED          one case again, as a failure names it
 *        guest_fuzz --corpus FILE        the cases listed there (# begins a comment)
 *        guest_fuzz --input FILE         code from a file, as a fuzzer makes it: 8 bytes that
 *                                        stand for the processor's state, then instructions
 *        --engine NAME[,NAME]            of the first and the second machine (interp,jit)
 *
 * For each case the program must not crash or hang, and must not read or write
 * what is not its own (the sanitizers' part); beyond that, with hashes of the
 * whole machine:
 *
 *   run(a + b) == run(a), run(b)       whatever the pieces, whatever the engine
 *   what is saved and loaded has the same future as the machine it came from
 *
 * For AFL++: afl-fuzz -i IN -o OUT -- guest_fuzz --input @@, built with its compiler. For
 * libFuzzer: scripts/fuzz.sh.
 *
 * Exit status: 0, or 1 and a line that says how to have the failure again.
 * Threading: one; a signal ends a case that hangs.
 */
#ifdef FUZZ_LIBFUZZER /* what only main() uses */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-const-variable"
#endif

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "board/pc.h"
#include "cpu/x86/vcpu.h"
#include "engine/engine.h"
#include "tests/fuzz/fuzz.h"
#include "vm/vm.h"

enum {
    HANG_SECONDS = 120, /* of a host that does much else */
    PIECES = 6,
    CASES_A_MACHINE = 64,
    DIFFERENCES_TOLD = 24,
};

enum kind { KIND_CODE, KIND_BUS, KIND_FIRMWARE, KINDS };
static const char *const kind_name[KINDS] = {"code", "bus", "firmware"};

struct machine {
    struct vm *vm;
    struct pc *pc;
    struct char_backend *serial, *debug;
    struct ram_block *ram, *rom;
};

/* Two machines of each number of processors, and how they were when new. */
struct pair {
    struct machine a, b;
    struct state_stream fresh;
    unsigned cases;
};

struct fuzz {
    struct pair pair[2];
    const struct x86_engine_ops *engine[2]; /* of machine a and machine b */
    const char *firmware;
    uint8_t *image; /* the firmware's bytes, undamaged */
    size_t image_bytes;
    uint64_t case_seed;
    unsigned kind;
    struct rng rng;
    uint64_t cases_of[KINDS], ended;
};

/* What the signal handler says; a program has one. */
static volatile uint64_t running_case;

static _Noreturn void fail(const struct fuzz *f, const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fprintf(stderr, "guest_fuzz: case %#llx: ", (unsigned long long)f->case_seed);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nguest_fuzz: again with: guest_fuzz --engine %s,%s --case %#llx\n",
            f->engine[0]->name, f->engine[1]->name, (unsigned long long)f->case_seed);
    exit(1);
}

static void on_hang(int signal)
{
    char text[64] = "\nguest_fuzz: hangs in case 0x";
    size_t n = strlen(text);

    for (int shift = 60; shift >= 0; shift -= 4)
        text[n++] = "0123456789abcdef"[running_case >> shift & 15];
    text[n++] = '\n';
    if (write(2, text, n) < 0)
        _exit(1);
    abort();
}

/* ---- machines ---- */

static void machine_create(struct fuzz *f, struct machine *m, const struct x86_engine_ops *engine,
                           unsigned cpus)
{
    struct vm_config config = {.deterministic = true, .seed = 1, .quantum = 200};
    struct pc_config board = {
        .memory_bytes = FUZZ_RAM,
        .cpus = cpus,
        .engine = engine,
        /* Cases are short; both ways of a block from one engine to the other. */
        .engine_options.jit_threshold = cpus == 1 ? X86_JIT_AT_ONCE : 1,
        .firmware = f->firmware,
        .devices = {"testdev"},
        .device_count = 1,
    };
    struct error err = {""};

    m->vm = vm_create(&config, &err);
    if (!m->vm)
        fail(f, "%s", err.text);
    m->serial = board.com[0] = char_null_create(m->vm, &err);
    m->debug = board.debug = char_null_create(m->vm, &err);
    if (!m->serial || !m->debug || pc_create(m->vm, &board, &m->pc, &err))
        fail(f, "%s", err.text);
    for (struct ram_block *b = m->vm->ram_blocks; b; b = b->next) {
        if (!strcmp(b->name, "ram"))
            m->ram = b;
        else if (!strcmp(b->name, "rom"))
            m->rom = b;
    }
    if (!m->ram || !m->rom)
        fail(f, "the board has no RAM or no ROM");
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

static struct pair *pair_of(struct fuzz *f, unsigned cpus)
{
    struct pair *p = &f->pair[cpus - 1];

    if (p->cases == CASES_A_MACHINE) {
        machine_end(&p->a);
        machine_end(&p->b);
        state_stream_free(&p->fresh);
        *p = (struct pair){0};
    }
    if (!p->a.vm) {
        machine_create(f, &p->a, f->engine[0], cpus);
        machine_create(f, &p->b, f->engine[1], cpus);
        save(f, &p->a, &p->fresh);
        if (!f->image) {
            f->image_bytes = p->a.rom->bytes;
            f->image = malloc(f->image_bytes);
            if (!f->image)
                fail(f, "out of memory");
            memcpy(f->image, p->a.rom->host, f->image_bytes);
        }
    }
    p->cases++;
    load(f, &p->a, &p->fresh);
    /* Whether a reset ends the case or is gone through. */
    p->a.vm->no_reboot = p->b.vm->no_reboot =
        f->kind == KIND_CODE ? !rng_one_in(&f->rng, 8) : rng_one_in(&f->rng, 4);
    return p;
}

/* ---- comparing ---- */

static void print_difference(void *ctx, const char *line)
{
    fprintf(stderr, "  %s\n", line);
}

static void must_be_same(const struct fuzz *f, struct pair *p, const char *when)
{
    struct state_stream x = {0}, y = {0};
    uint64_t a[2], b[2];

    vm_state_hash(p->a.vm, a);
    vm_state_hash(p->b.vm, b);
    if (!memcmp(a, b, sizeof a))
        return;
    save(f, &p->a, &x);
    save(f, &p->b, &y);
    vm_state_diff(p->a.vm, &x, &y, print_difference, NULL, DIFFERENCES_TOLD);
    fail(f, "the machines differ %s", when);
}

static enum vm_exit run_until(const struct fuzz *f, struct machine *m, uint64_t ns)
{
    enum vm_exit exit;
    int status;
    struct error err = {""};

    if (vm_run_until(m->vm, ns, &exit, &status, &err))
        fail(f, "run: %s", err.text);
    return exit;
}

/* A runs at once, B in pieces. False: the guest ended. */
static bool run_both(struct fuzz *f, struct pair *p, uint64_t ns, const char *when)
{
    uint64_t start = clock_now_ns(&p->a.vm->clock), end = start + ns, hash[2];
    enum vm_exit a = run_until(f, &p->a, end), b = VM_EXIT_LIMIT;
    unsigned pieces = (unsigned)rng_below(&f->rng, PIECES);

    for (unsigned n = 0; n < pieces && b == VM_EXIT_LIMIT; n++) {
        uint64_t now = clock_now_ns(&p->b.vm->clock);

        if (now >= end)
            break;
        b = run_until(f, &p->b, now + 1 + rng_below(&f->rng, end - now));
        if (rng_one_in(&f->rng, 4))
            vm_state_hash(p->b.vm, hash);
    }
    if (b == VM_EXIT_LIMIT)
        b = run_until(f, &p->b, end);
    if (a != b)
        fail(f, "%s: one machine ends by %d, the other by %d", when, a, b);
    must_be_same(f, p, when);
    f->ended += a != VM_EXIT_LIMIT;
    return a == VM_EXIT_LIMIT;
}

/* The pieces, then what was saved against what was loaded. */
static bool check_run(struct fuzz *f, struct pair *p, uint64_t ns)
{
    struct state_stream s = {0};

    if (!run_both(f, p, ns, "after running in pieces"))
        return false;
    save(f, &p->a, &s);
    load(f, &p->b, &s);
    state_stream_free(&s);
    must_be_same(f, p, "right after loading");
    return run_both(f, p, ns / 2 + 1, "a while after loading");
}

/* ---- the bus ---- */

/* Ports and addresses where something is, more often than elsewhere. */
static uint64_t bus_address(struct rng *r, struct address_space *as)
{
    const struct flat_view *view = as->view;
    uint64_t a;

    if (view->count && !rng_one_in(r, 8)) {
        const struct flat_range *range = &view->range[rng_below(r, view->count)];
        uint64_t bytes = range->last - range->base + 1;

        if (as->is_memory && range->region->ram && !rng_one_in(r, 8))
            return fuzz_device_address(r);
        a = range->base + rng_below(r, MIN(bytes, rng_one_in(r, 2) ? 64ull : 0x1000ull));
        return rng_one_in(r, 8) ? range->last - rng_below(r, 8) : a;
    }
    a = rng_next(r) >> rng_below(r, 64);
    return as->is_memory ? a : a & 0xffff;
}

static uint64_t bus_value(struct rng *r)
{
    switch (rng_below(r, 6)) {
    case 0:
        return 0;
    case 1:
        return ~0ull;
    case 2:
        return fuzz_value(r);
    case 3:
        return 1ull << rng_below(r, 64);
    case 4:
        return rng_below(r, 256);
    default:
        return rng_next(r);
    }
}

/* Count accesses to both machines, which must answer the same. */
static void access_bus(struct fuzz *f, struct pair *p, unsigned count)
{
    struct rng *r = &f->rng;

    vm_lock(p->a.vm);
    vm_lock(p->b.vm);
    for (unsigned n = 0; n < count; n++) {
        bool memory = rng_one_in(r, 2);
        struct address_space *a = memory ? &p->a.vm->memory : &p->a.vm->ports;
        struct address_space *b = memory ? &p->b.vm->memory : &p->b.vm->ports;
        uint64_t at = bus_address(r, a);
        unsigned size = 1u << rng_below(r, memory ? 4 : 3);
        uint64_t x = 0, y = 0;
        unsigned burst = rng_one_in(r, 4) ? 16 : 1;

        if (!memory && rng_one_in(r, 16)) { /* PCI configuration, by both ports */
            uint64_t where = 0x80000000 | (rng_one_in(r, 2) ? 31u << 11 : 0) |
                             rng_below(r, 3) << 8 | (rng_below(r, 256) & 0xfc);

            as_store(a, 0xcf8, 4, where);
            as_store(b, 0xcf8, 4, where);
            at = 0xcfc + rng_below(r, 4);
        }
        while (burst--) {
            if (rng_one_in(r, 2)) {
                bool known_a = as_load(a, at, size, &x), known_b = as_load(b, at, size, &y);

                if (x != y || known_a != known_b)
                    fail(f, "reading %u bytes at %#llx gives %#llx and %#llx", size,
                         (unsigned long long)at, (unsigned long long)x, (unsigned long long)y);
            } else {
                uint64_t v = bus_value(r);

                as_store(a, at, size, v);
                as_store(b, at, size, v);
            }
        }
    }
    vm_unlock(p->b.vm);
    vm_unlock(p->a.vm);
}

/* ---- cases ---- */

static void copy_to_b(struct fuzz *f, struct pair *p)
{
    struct state_stream s = {0};

    save(f, &p->a, &s);
    load(f, &p->a, &s); /* so that what was put there by hand is settled */
    load(f, &p->b, &s);
    state_stream_free(&s);
    must_be_same(f, p, "before they ran");
}

static unsigned code_bits(struct rng *r, enum fuzz_mode mode)
{
    static const unsigned bits[] = {16, 32, 64};

    if (rng_one_in(r, 8))
        return RNG_PICK(r, bits);
    switch (mode) {
    case FUZZ_LONG:
        return 64;
    case FUZZ_PROT32:
    case FUZZ_COMPAT:
        return 32;
    default:
        return 16;
    }
}

static void case_code(struct fuzz *f)
{
    struct rng *r = &f->rng;
    unsigned cpus = rng_one_in(r, 3) ? 2 : 1;
    struct pair *p = pair_of(f, cpus);
    enum fuzz_mode mode = (enum fuzz_mode)rng_below(r, FUZZ_MODES);
    uint8_t *ram = p->a.ram->host;

    fuzz_memory(r, ram, mode);
    for (unsigned at = FUZZ_CODE; at < FUZZ_CODE_END; at += 0x4000)
        fuzz_code(r, ram + at, 0x4000, code_bits(r, mode), f->image, f->image_bytes);
    for (unsigned n = 0; n < cpus; n++)
        if (n == 0 || !rng_one_in(r, 4))
            fuzz_cpu(r, pc_cpu(p->a.pc, n), ram, mode);
    copy_to_b(f, p);
    if (rng_one_in(r, 4)) { /* interrupts and timers on their way */
        access_bus(f, p, 40);
        must_be_same(f, p, "after bus accesses");
    }
    for (unsigned rounds = 1 + (unsigned)rng_below(r, 3); rounds; rounds--)
        if (!check_run(f, p, 1 + rng_below(r, rng_one_in(r, 4) ? 20000 : 1500)))
            return;
}

/* Somebody else's code, over and over through all of the code area: wherever the
 * processor is sent it meets it again, so that it gets hot. */
static void case_input(struct fuzz *f, const uint8_t *data, size_t bytes)
{
    struct rng *r = &f->rng;
    uint8_t seed[8] = {0};
    enum fuzz_mode mode;
    struct pair *p;
    uint8_t *ram;

    memcpy(seed, data, MIN(bytes, sizeof seed));
    f->case_seed = running_case = le64_get(seed);
    *r = (struct rng){f->case_seed};
    f->kind = KIND_CODE;
    data += MIN(bytes, sizeof seed);
    bytes -= MIN(bytes, sizeof seed);
    if (!bytes)
        return;
    alarm(HANG_SECONDS);
    p = pair_of(f, 1 + (unsigned)rng_below(r, 2));
    mode = (enum fuzz_mode)rng_below(r, FUZZ_MODES);
    ram = p->a.ram->host;
    fuzz_memory(r, ram, mode);
    for (unsigned at = FUZZ_CODE; at < FUZZ_CODE_END; at++)
        ram[at] = data[(at - FUZZ_CODE) % bytes];
    fuzz_cpu(r, pc_cpu(p->a.pc, 0), ram, mode);
    copy_to_b(f, p);
    for (unsigned rounds = 2; rounds; rounds--)
        if (!check_run(f, p, 1 + rng_below(r, 4000)))
            break;
    alarm(0);
    f->cases_of[KIND_CODE]++;
}

static void case_bus(struct fuzz *f)
{
    struct rng *r = &f->rng;
    struct pair *p = pair_of(f, rng_one_in(r, 4) ? 2 : 1);

    /* Processors that do nothing, or are interrupted out of doing nothing. */
    if (rng_one_in(r, 2)) {
        fuzz_memory(r, p->a.ram->host, FUZZ_REAL);
        memset(p->a.ram->host + FUZZ_CODE, 0xcf, FUZZ_CODE_END - FUZZ_CODE); /* IRET */
        fuzz_cpu(r, pc_cpu(p->a.pc, 0), p->a.ram->host, FUZZ_REAL);
        pc_cpu(p->a.pc, 0)->s.rflags |= FLAG_IF;
    }
    pc_cpu(p->a.pc, 0)->s.activity = X86_HALTED;
    copy_to_b(f, p);
    for (unsigned rounds = 8; rounds; rounds--) {
        access_bus(f, p, 60);
        must_be_same(f, p, "after bus accesses");
        if (!check_run(f, p, 1 + rng_below(r, 1u << rng_below(r, 17))))
            return;
    }
}

static void case_firmware(struct fuzz *f)
{
    struct rng *r = &f->rng;
    struct pair *p = pair_of(f, rng_one_in(r, 3) ? 2 : 1);
    uint8_t *rom = p->a.rom->host;
    uint64_t bytes = p->a.rom->bytes;
    struct state_stream s = {0};

    for (unsigned n = 1u << rng_below(r, 10); n; n--) {
        uint64_t at = rng_below(r, bytes);

        rom[at] =
            rng_one_in(r, 2) ? (uint8_t)rng_next(r) : rom[at] ^ (uint8_t)(1u << rng_below(r, 8));
    }
    /* From a new machine with that ROM in it. */
    save(f, &p->a, &s);
    load(f, &p->a, &s);
    load(f, &p->b, &s);
    state_stream_free(&s);
    for (unsigned rounds = 3; rounds; rounds--)
        if (!check_run(f, p, 1 + rng_below(r, 80000)))
            return;
}

static void run_case(struct fuzz *f, uint64_t seed, int kind)
{
    static void (*const cases[KINDS])(struct fuzz *) = {
        [KIND_CODE] = case_code, [KIND_BUS] = case_bus, [KIND_FIRMWARE] = case_firmware};
    static const uint8_t mix[] = {KIND_CODE, KIND_CODE, KIND_CODE, KIND_CODE, KIND_CODE,
                                  KIND_CODE, KIND_CODE, KIND_CODE, KIND_CODE, KIND_CODE,
                                  KIND_CODE, KIND_CODE, KIND_CODE, KIND_CODE, KIND_CODE,
                                  KIND_CODE, KIND_BUS,  KIND_BUS,  KIND_BUS,  KIND_FIRMWARE};

    f->case_seed = seed;
    running_case = seed;
    f->rng = (struct rng){seed};
    f->kind = RNG_PICK(&f->rng, mix);
    if (kind >= 0 && (unsigned)kind != f->kind)
        return;
    alarm(HANG_SECONDS);
    cases[f->kind](f);
    alarm(0);
    f->cases_of[f->kind]++;
}

static void run_corpus(struct fuzz *f, const char *path)
{
    FILE *file = fopen(path, "r");
    char line[256];

    if (!file)
        fail(f, "%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, file)) {
        char *end;
        uint64_t seed = strtoull(line, &end, 0);

        if (end != line)
            run_case(f, seed, -1);
    }
    fclose(file);
}

#ifdef FUZZ_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* One set of machines serves all inputs of the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct fuzz f = {.firmware = "bios", .engine = {&interp_engine, &jit_engine}};

    case_input(&f, data, bytes);
    return 0;
}

#else

static void run_input(struct fuzz *f, const char *path)
{
    static uint8_t data[FUZZ_CODE_END - FUZZ_CODE + 8];
    FILE *file = fopen(path, "rb");

    if (!file)
        fail(f, "%s: %s", path, strerror(errno));
    case_input(f, data, fread(data, 1, sizeof data, file));
    fclose(file);
}

static uint64_t seconds_now(void)
{
    return host_monotonic_ns() / NS_PER_SEC;
}

static void find_engines(struct fuzz *f, const char *names)
{
    size_t first = strcspn(names, ",");
    struct error err = {""};
    char name[64];

    snprintf(name, sizeof name, "%.*s", (int)first, names);
    f->engine[0] = engine_find(name, NULL, &err);
    f->engine[1] = names[first] ? engine_find(names + first + 1, NULL, &err) : f->engine[0];
    if (!f->engine[0] || !f->engine[1]) {
        fprintf(stderr, "guest_fuzz: %s\n", err.text);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct fuzz f = {.firmware = "bios", .engine = {&interp_engine, &jit_engine}};
    uint64_t seed = 1, cases = UINT64_MAX, seconds = 0, end;
    const char *corpus = NULL, *one = NULL, *input = NULL;
    int kind = -1;

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
        else if (!strcmp(argv[n], "--engine"))
            find_engines(&f, argv[n + 1]);
        else if (!strcmp(argv[n], "--firmware"))
            f.firmware = argv[n + 1];
        else if (!strcmp(argv[n], "--kind")) {
            for (int k = 0; k < KINDS; k++)
                if (!strcmp(argv[n + 1], kind_name[k]))
                    kind = k;
        }
    }
    if (argc % 2 == 0) {
        fprintf(stderr, "guest_fuzz: options come with a value\n");
        return 2;
    }
    signal(SIGALRM, on_hang);
    end = seconds ? seconds_now() + seconds : UINT64_MAX;
    if (input) {
        run_input(&f, input);
    } else if (one) {
        run_case(&f, strtoull(one, NULL, 0), -1);
    } else {
        struct rng seeds = {seed};

        if (corpus)
            run_corpus(&f, corpus);
        else if (cases == UINT64_MAX && !seconds)
            cases = 1000;
        for (uint64_t n = 0; !corpus && n < cases && seconds_now() < end; n++)
            run_case(&f, rng_next(&seeds), kind);
    }
    printf("guest_fuzz: %llu cases of code, %llu of bus accesses, %llu of firmware; "
           "%llu times the guest ended\n",
           (unsigned long long)f.cases_of[KIND_CODE], (unsigned long long)f.cases_of[KIND_BUS],
           (unsigned long long)f.cases_of[KIND_FIRMWARE], (unsigned long long)f.ended);
    for (unsigned n = 0; n < ARRAY_SIZE(f.pair); n++) {
        if (f.pair[n].a.vm) {
            machine_end(&f.pair[n].a);
            machine_end(&f.pair[n].b);
            state_stream_free(&f.pair[n].fresh);
        }
    }
    free(f.image);
    return 0;
}

#endif
