/*
 * Whole machines saved, loaded and run twice: the State proof.
 *
 * usage: state_test future GUEST CPUS POINTS SEED   at POINTS random times of the
 *           boot: save, load into a new machine, and see that both are the same
 *           then and a while later (hash, state, serial output)
 *        state_test twice GUEST CPUS POINTS [load]  boot twice and compare at POINTS
 *           times; the second time in pieces, and with `load` while other
 *           programs take the host's processors
 *        state_test hop GUEST CPUS  in real time: boot, and move to a new machine
 *           several times a second until the guest has answered
 *        state_test damage GUEST COUNT SEED         load COUNT damaged states, and run
 *           what loads: it must not crash
 *
 *    --engine NAME[,NAME] before all that: the engine (auto); with two of them the
 *    machines compared run on different ones, and `hop` goes from one to the other
 *
 *    GUEST: linux, bios or uefi. VIREO_GUESTS: the directory with vmlinuz-cloud and
 *    initramfs.cpio.gz (build/guests). Exit status 77: the guest is not there.
 *
 * Threading: one; the load are processes of their own.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "board/pc.h"
#include "boot/firmware.h"
#include "cpu/x86/vcpu.h"
#include "engine/engine.h"
#include "vm/vm.h"

enum { SKIPPED = 77, DIFFERENCES_TOLD = 24, MAX_POINTS = 1000 };

/* ---- the guests ---- */

struct guest {
    const char *name;
    const char *kernel, *initrd, *append, *firmware;
    uint64_t memory;
    uint64_t boot_ns;   /* virtual time in which all that is interesting happens */
    uint64_t future_ns; /* how far a loaded machine is run beside the saved one */
    const struct char_script_event *script;
    size_t script_length;
    const char *said; /* what the guest must have said at the end of boot_ns */
};

/* The shell is there after 1.5 to 3 virtual seconds; what is typed before waits
 * in the kernel's line buffer, and a chunk that is longer than the UART's FIFO
 * waits in the back end. */
static const struct char_script_event linux_script[] = {
    {1900 * NS_PER_MS, "echo $((6 * 7)) is the answer\n"},
    {2300 * NS_PER_MS, "cat /proc/interrupts | head -5; seq 1 200 | md5sum\n"},
    {2500 * NS_PER_MS, "(for i in 1 2 3 4; do (echo $i > /tmp/$i) & done; wait); cat /tmp/*\n"},
    {2900 * NS_PER_MS, "head -c 8 /dev/urandom | od -x; uptime; echo the-\"end\"\n"},
};

/* ESC, then a choice that is none. */
static const struct char_script_event bios_script[] = {
    {900 * NS_PER_MS, "\033"},
    {1500 * NS_PER_MS, "x"},
};

/* ESC to the shell, which then writes a variable. */
static const struct char_script_event uefi_script[] = {
    {2100 * NS_PER_MS, "\033"},
    {2300 * NS_PER_MS, "setvar Vireo -guid 9d4a8c1e-1b6d-4a54-9f0c-6a4e3b1f2d10 -nv -bs =0x11\r"},
};

static const struct guest guests[] = {
    {
        .name = "linux",
        .kernel = "vmlinuz-cloud",
        .initrd = "initramfs.cpio.gz",
        .append = "console=ttyS0",
        .memory = 192 * MiB,
        .boot_ns = 3400 * NS_PER_MS,
        .future_ns = 60 * NS_PER_MS,
        .script = linux_script,
        .script_length = ARRAY_SIZE(linux_script),
        .said = "the-end",
    },
    {
        .name = "bios",
        .firmware = "bios",
        .memory = 16 * MiB,
        .boot_ns = 2000 * NS_PER_MS,
        .future_ns = 60 * NS_PER_MS,
        .script = bios_script,
        .script_length = ARRAY_SIZE(bios_script),
        .said = "SeaBIOS",
    },
    {
        /* Its variables are in flash: written all through the boot. */
        .name = "uefi",
        .firmware = "uefi",
        .memory = 128 * MiB,
        .boot_ns = 2600 * NS_PER_MS,
        .future_ns = 60 * NS_PER_MS,
        .script = uefi_script,
        .script_length = ARRAY_SIZE(uefi_script),
        .said = "EDK II",
    },
};

/* ---- a machine ---- */

struct machine {
    struct vm *vm;
    struct pc *pc;
    struct char_backend *serial;
    char *output;
    size_t output_bytes, output_capacity;
};

static _Noreturn void fail(const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fputs("state_test: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static void take_output(void *ctx, const uint8_t *data, size_t n)
{
    struct machine *m = ctx;

    if (m->output_bytes + n + 1 > m->output_capacity) {
        m->output_capacity = (m->output_bytes + n + 1) * 2;
        m->output = realloc(m->output, m->output_capacity);
        if (!m->output)
            fail("out of memory");
    }
    if (n)
        memcpy(m->output + m->output_bytes, data, n);
    m->output_bytes += n;
    m->output[m->output_bytes] = 0;
}

static const char *guest_file(const char *name, char path[static 512])
{
    const char *directory = getenv("VIREO_GUESTS");

    snprintf(path, 512, "%s/%s", directory ? directory : "build/guests", name);
    if (access(path, R_OK)) {
        printf("no %s: scripts/guest-kernels.sh fetches it\n", path);
        exit(SKIPPED);
    }
    return path;
}

/* Of a pair of machines the first and the second. */
struct engines {
    const struct x86_engine_ops *first, *second;
};

/* seed 0: a machine in real time. */
static struct machine *machine_create(const struct guest *g, const struct x86_engine_ops *engine,
                                      unsigned cpus, uint64_t seed)
{
    struct machine *m = calloc(1, sizeof *m);
    struct vm_config config = {.deterministic = seed != 0, .seed = seed};
    struct pc_config board = {.memory_bytes = g->memory, .cpus = cpus, .engine = engine};
    char kernel[512], initrd[512];
    struct error err = {""};

    if (!m)
        fail("out of memory");
    take_output(m, NULL, 0); /* so that it is never NULL */
    if (g->kernel) {
        board.kernel = guest_file(g->kernel, kernel);
        board.initrd[0] = guest_file(g->initrd, initrd);
        board.initrd_count = 1;
        board.append = g->append;
    }
    board.firmware = g->firmware;
    board.vga = g->firmware ? "std" : "none";
    m->vm = vm_create(&config, &err);
    if (!m->vm)
        fail("%s", err.text);
    m->vm->no_reboot = true;
    m->serial = char_script_create(m->vm, g->script, g->script_length, take_output, m, &err);
    if (!m->serial)
        fail("%s", err.text);
    board.com[0] = m->serial;
    if (pc_create(m->vm, &board, &m->pc, &err))
        fail("%s", err.text);
    return m;
}

static void machine_end(struct machine *m)
{
    char_destroy(m->serial); /* its timer is the machine's */
    vm_destroy(m->vm);
    free(m->output);
    free(m);
}

static enum vm_exit run_until(struct machine *m, uint64_t ns)
{
    enum vm_exit exit;
    struct error err = {""};

    if (vm_run_until(m->vm, ns, &exit, NULL, &err))
        fail("run: %s", err.text);
    return exit;
}

/* ---- comparing ---- */

static void save(struct machine *m, struct state_stream *s)
{
    struct error err = {""};

    if (vm_state_save(m->vm, s, &err))
        fail("save: %s", err.text);
}

static void print_difference(void *ctx, const char *line)
{
    fprintf(stderr, "  %s\n", line);
}

static void tell_difference(struct machine *a, struct machine *b)
{
    struct state_stream x = {0}, y = {0};
    unsigned n;

    save(a, &x);
    save(b, &y);
    n = vm_state_diff(a->vm, &x, &y, print_difference, NULL, DIFFERENCES_TOLD);
    fprintf(stderr, "  %u differences\n", n);
    state_stream_free(&x);
    state_stream_free(&y);
}

static void must_be_same(struct machine *a, struct machine *b, const char *when, uint64_t ns)
{
    uint64_t x[2], y[2];

    vm_state_hash(a->vm, x);
    vm_state_hash(b->vm, y);
    if (memcmp(x, y, sizeof x)) {
        fprintf(stderr, "state_test: the machines differ %s %llu ns:\n", when,
                (unsigned long long)ns);
        tell_difference(a, b);
        exit(1);
    }
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static int compare_times(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void must_have_said(const struct guest *g, const struct machine *m)
{
    if (!strstr(m->output, g->said))
        fail("the guest did not get as far as saying \"%s\":\n%s", g->said, m->output);
}

/* ---- the same future ---- */

static void check_future(const struct guest *g, struct engines e, unsigned cpus, unsigned points,
                         uint64_t seed)
{
    struct machine *a = machine_create(g, e.first, cpus, seed);
    uint64_t random = seed, at[MAX_POINTS];
    uint64_t saved_bytes = 0;

    for (unsigned i = 0; i < points; i++)
        at[i] = next_random(&random) % g->boot_ns;
    qsort(at, points, sizeof at[0], compare_times);
    for (unsigned i = 0; i < points; i++) {
        struct machine *b = machine_create(g, e.second, cpus, seed);
        struct state_stream s = {0}, again = {0};
        struct error err = {""};
        uint64_t now;
        size_t before;
        enum vm_exit exit_a, exit_b;

        exit_a = run_until(a, at[i]);
        if (exit_a != VM_EXIT_LIMIT)
            fail("the machine ended before %llu ns", (unsigned long long)at[i]);
        now = clock_now_ns(&a->vm->clock);
        before = a->output_bytes;
        save(a, &s);
        saved_bytes += s.used;
        if (vm_state_load(b->vm, &s, &err))
            fail("load at %llu ns: %s", (unsigned long long)now, err.text);
        must_be_same(a, b, "right after loading, at", now);
        /* What is saved again is the same, byte for byte. */
        save(b, &again);
        if (again.used != s.used || memcmp(again.data, s.data, s.used))
            fail("saving the loaded machine gives another state at %llu ns",
                 (unsigned long long)now);
        state_stream_free(&s);
        state_stream_free(&again);

        exit_a = run_until(a, now + g->future_ns);
        exit_b = run_until(b, now + g->future_ns);
        if (exit_a != exit_b)
            fail("loaded at %llu ns, one ends by %d and one by %d", (unsigned long long)now,
                 exit_a, exit_b);
        must_be_same(a, b, "a while after being loaded at", now);
        if (a->output_bytes - before != b->output_bytes ||
            memcmp(a->output + before, b->output, b->output_bytes))
            fail("loaded at %llu ns, the machines say different things:\n%s\n%s",
                 (unsigned long long)now, a->output + before, b->output);
        machine_end(b);
    }
    if (run_until(a, g->boot_ns + g->future_ns) != VM_EXIT_LIMIT)
        fail("the machine ended early");
    must_have_said(g, a);
    printf("%s, %u processors, %s and %s: %u points, the same future at each; "
           "%llu KiB of state on average\n",
           g->name, cpus, e.first->name, e.second->name, points,
           (unsigned long long)(saved_bytes / points / KiB));
    machine_end(a);
}

/* ---- the same machine twice ---- */

static void load_host(pid_t *pids, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        pids[i] = fork();
        if (pids[i] < 0)
            fail("fork: %s", strerror(errno));
        if (!pids[i]) {
            /* Ends with its parent, and at the latest after some minutes. */
            pid_t parent = getppid();
            volatile uint64_t n = 0;

            alarm(900);
            while (getppid() == parent)
                for (unsigned spin = 0; spin < 50000000; spin++)
                    n += spin;
            _exit(0);
        }
    }
}

static void unload_host(const pid_t *pids, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
}

static void check_twice(const struct guest *g, struct engines e, unsigned cpus, unsigned points,
                        bool loaded)
{
    struct machine *a = machine_create(g, e.first, cpus, 1);
    struct machine *b = machine_create(g, e.second, cpus, 1);
    struct machine *other = machine_create(g, e.first, cpus, 2);
    uint64_t hash[MAX_POINTS][2], again[2], random = cpus;
    unsigned load = loaded ? 2 * (unsigned)sysconf(_SC_NPROCESSORS_ONLN) : 0;
    pid_t pids[64];

    for (unsigned i = 0; i < points; i++) {
        if (run_until(a, (i + 1) * g->boot_ns / points) != VM_EXIT_LIMIT)
            fail("the machine ended early");
        vm_state_hash(a->vm, hash[i]);
    }
    must_have_said(g, a);

    load = MIN(load, (unsigned)ARRAY_SIZE(pids));
    load_host(pids, load);
    for (unsigned i = 0; i < points; i++) {
        uint64_t end = (i + 1) * g->boot_ns / points;

        /* That a run was interrupted leaves no trace either, nor does a hash. */
        for (uint64_t now; (now = clock_now_ns(&b->vm->clock)) < end;) {
            uint64_t stop = now + 1 + next_random(&random) % (20 * NS_PER_MS);

            run_until(b, MIN(end, stop));
            if (next_random(&random) % 64 == 0)
                vm_state_hash(b->vm, again);
        }
        vm_state_hash(b->vm, again);
        if (memcmp(hash[i], again, sizeof again)) {
            unload_host(pids, load);
            machine_end(a);
            a = machine_create(g, e.first, cpus, 1);
            run_until(a, end);
            tell_difference(a, b);
            fail("the two runs differ at point %u of %u, %llu ns", i + 1, points,
                 (unsigned long long)end);
        }
    }
    unload_host(pids, load);
    if (a->output_bytes != b->output_bytes || memcmp(a->output, b->output, a->output_bytes))
        fail("the two runs say different things");

    /* A test that cannot fail is none: another seed is another machine. */
    run_until(other, g->boot_ns / points);
    vm_state_hash(other->vm, again);
    if (!memcmp(hash[0], again, sizeof again))
        fail("another seed gives the same state");
    printf("%s, %u processors, %s and %s: the same hash at %u points%s\n", g->name, cpus,
           e.first->name, e.second->name, points, loaded ? ", the host loaded" : "");
    machine_end(other);
    machine_end(b);
    machine_end(a);
}

/* ---- from machine to machine in real time ---- */

/* Each hop lasts a little longer than the one before, so that a slow host gets
 * there too: all code is decoded anew behind each. */
enum { HOP_MS = 100, HOP_MORE_MS = 10, HOPS_MOST = 600, ASKED_EVERY_MS = 1000, ASKED_MOST = 3000 };

static void check_hop(const struct guest *g, struct engines e, unsigned cpus)
{
    struct char_script_event asked[ASKED_MOST];
    struct guest patient = *g;
    struct machine *a, *b;
    unsigned hops = 0;
    uint64_t now = 0;

    /* When it will be ready nobody knows: it is asked again and again. */
    for (unsigned i = 0; i < ARRAY_SIZE(asked); i++)
        asked[i] = (struct char_script_event){(i + 1) * ASKED_EVERY_MS * NS_PER_MS,
                                              g->script[g->script_length - 1].bytes};
    patient.script = asked;
    patient.script_length = ARRAY_SIZE(asked);
    a = machine_create(&patient, e.first, cpus, 0);
    for (;;) {
        struct state_stream s = {0};
        struct error err = {""};

        if (run_until(a, now + (HOP_MS + HOP_MORE_MS * hops) * NS_PER_MS) != VM_EXIT_LIMIT)
            fail("the machine ended after %u hops:\n%s", hops, a->output);
        if (strstr(a->output, g->said))
            break;
        if (++hops == HOPS_MOST)
            fail("no answer after %u hops:\n%s", hops, a->output);
        save(a, &s);
        b = machine_create(&patient, hops % 2 ? e.second : e.first, cpus, 0);
        if (vm_state_load(b->vm, &s, &err))
            fail("load: %s", err.text);
        state_stream_free(&s);
        now = clock_now_ns(&a->vm->clock);
        if (clock_now_ns(&b->vm->clock) != now)
            fail("the loaded machine has another time");
        must_be_same(a, b, "in real time, right after loading, at", now);
        take_output(b, (const uint8_t *)a->output, a->output_bytes);
        machine_end(a);
        a = b;
    }
    printf("%s, %u processors, real time: answered after %u hops\n", g->name, cpus, hops);
    machine_end(a);
}

/* ---- damaged states ---- */

struct section {
    size_t at, bytes; /* header included */
};

/* The sections of a stream, as vm/state.c lays them out; pages of memory count
 * as part of the section before them. */
static unsigned find_sections(const struct state_stream *s, struct section *sections,
                              unsigned most)
{
    size_t at = 16; /* magic and layout */
    unsigned count = 0;

    while (count < most && at + 2 < s->used) {
        size_t start = at;
        uint64_t bytes;

        if (s->used - at < 4 || !memcmp(s->data + at, "end.", 4))
            break;
        at += 1u + s->data[at];
        at += 1u + s->data[at];
        at += 4;
        bytes = le64_get(s->data + at);
        at += 8 + bytes;
        sections[count++] = (struct section){start, at - start};
        if (!memcmp(s->data + start, "\003ram", 4)) {
            while (le64_get(s->data + at) != UINT64_MAX)
                at += 8 + 4096;
            at += 8;
        }
    }
    return count;
}

static void check_damage(const struct guest *g, struct engines e, unsigned count, uint64_t seed)
{
    struct machine *a = machine_create(g, e.first, 2, 1), *b = machine_create(g, e.second, 2, 1);
    struct state_stream s = {0};
    struct section sections[256];
    unsigned section_count, refused = 0, loaded = 0;
    uint64_t random = seed, hash[2], hash_b[2];
    struct error err;

    run_until(a, g->boot_ns / 2);
    save(a, &s);
    section_count = find_sections(&s, sections, ARRAY_SIZE(sections));
    if (section_count < 20)
        fail("only %u sections found in the saved state", section_count);
    for (unsigned i = 0; i < count; i++) {
        struct state_stream bad = {.data = malloc(s.used), .used = s.used};
        const struct section *where = &sections[next_random(&random) % section_count];
        unsigned flips = 1 + (unsigned)(next_random(&random) % 4);

        if (!bad.data)
            fail("out of memory");
        memcpy(bad.data, s.data, s.used);
        for (unsigned n = 0; n < flips; n++) {
            /* Mostly in the same section, with values that tend to be limits. */
            static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
            size_t at = where->at + next_random(&random) % where->bytes;
            uint64_t r = next_random(&random);

            if (r % 8 == 0)
                at = (r >> 8) % s.used;
            bad.data[at] = r & 0x80 ? (uint8_t)(r >> 16) : values[(r >> 16) % sizeof values];
        }
        if (next_random(&random) % 8 == 0)
            bad.used = next_random(&random) % (s.used + 1);
        /* Exactly as long as it says, so that a sanitizer sees a step beyond. */
        if (bad.used < s.used) {
            uint8_t *cut = malloc(bad.used ? bad.used : 1);

            if (!cut)
                fail("out of memory");
            memcpy(cut, bad.data, bad.used);
            free(bad.data);
            bad.data = cut;
        }
        err.text[0] = 0;
        if (vm_state_load(b->vm, &bad, &err)) {
            if (!err.text[0] || strchr(err.text, '\n'))
                fail("damaged state %u is refused without one line that says why", i);
            refused++;
        } else {
            loaded++;
            run_until(b, clock_now_ns(&b->vm->clock) + 200 * NS_PER_US);
            vm_state_hash(b->vm, hash);
        }
        free(bad.data);
    }
    /* After all that, the good one loads as if nothing had been. */
    if (vm_state_load(b->vm, &s, &err))
        fail("the undamaged state is refused: %s", err.text);
    vm_state_hash(a->vm, hash);
    vm_state_hash(b->vm, hash_b);
    if (memcmp(hash, hash_b, sizeof hash)) {
        fprintf(stderr, "state_test: the undamaged state does not come back:\n");
        tell_difference(a, b);
        exit(1);
    }
    printf("%s: %u damaged states: %u refused, %u loaded and run\n", g->name, count, refused,
           loaded);
    state_stream_free(&s);
    machine_end(b);
    machine_end(a);
}

/* ---- command line ---- */

static uint64_t number(const char *text, uint64_t most)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);

    if (!*text || *end || n < 1 || n > most)
        fail("%s is not a number from 1 to %llu", text, (unsigned long long)most);
    return n;
}

static struct engines find_engines(char *names)
{
    char *second = strchr(names, ',');
    struct error err = {""};
    struct engines e;

    if (second)
        *second++ = 0;
    e.first = engine_find(names, NULL, &err);
    e.second = second ? engine_find(second, NULL, &err) : e.first;
    if (!e.first || !e.second)
        fail("%s", err.text);
    return e;
}

int main(int argc, char **argv)
{
    const struct guest *g = NULL;
    char default_engine[] = "auto";
    struct engines e;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 2 && !strcmp(argv[1], "--engine")) {
        e = find_engines(argv[2]);
        argc -= 2;
        argv += 2;
    } else {
        e = find_engines(default_engine);
    }
    for (size_t i = 0; argc > 2 && i < ARRAY_SIZE(guests); i++)
        if (!strcmp(argv[2], guests[i].name))
            g = &guests[i];
    if (g && firmware_is_uefi(g->firmware) && access(UEFI_VARS_PATH, R_OK)) {
        printf("no %s: the package ovmf has it\n", UEFI_VARS_PATH);
        return SKIPPED;
    }
    if (g && argc == 6 && !strcmp(argv[1], "future"))
        check_future(g, e, (unsigned)number(argv[3], VM_MAX_VCPUS),
                     (unsigned)number(argv[4], MAX_POINTS), number(argv[5], UINT64_MAX));
    else if (g && (argc == 5 || argc == 6) && !strcmp(argv[1], "twice"))
        check_twice(g, e, (unsigned)number(argv[3], VM_MAX_VCPUS),
                    (unsigned)number(argv[4], MAX_POINTS), argc == 6 && !strcmp(argv[5], "load"));
    else if (g && argc == 4 && !strcmp(argv[1], "hop"))
        check_hop(g, e, (unsigned)number(argv[3], VM_MAX_VCPUS));
    else if (g && argc == 5 && !strcmp(argv[1], "damage"))
        check_damage(g, e, (unsigned)number(argv[3], UINT32_MAX), number(argv[4], UINT64_MAX));
    else
        fail("usage: [--engine NAME[,NAME]] future GUEST CPUS POINTS SEED | "
             "twice GUEST CPUS POINTS [load] | hop GUEST CPUS | damage GUEST COUNT SEED");
    return 0;
}
