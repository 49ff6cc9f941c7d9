/*
 * The table of options and the parser that reads it.
 *
 * Accepts --name value and --name=value; -- ends options. Of an option given
 * twice the last counts, except for lists, which collect.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "board/pc.h"
#include "cli/cards.h"
#include "cli/disks.h"
#include "cli/nets.h"
#include "cli/options.h"
#include "cpu/x86/vcpu.h"
#include "vm/vm.h"

#define FIELD(member) offsetof(struct cli_options, member)

const struct cli_option cli_run_options[] = {
    {"kernel", "FILE", CLI_STRING, FIELD(kernel), 0, 0, "a file",
     "Linux bzImage (32- or 64-bit), ELF kernel with a PVH note, or\n"
     "Multiboot kernel: told apart by looking at the file"},
    {"initrd", "FILE", CLI_LIST, FIELD(initrd), 0, 0, "a file",
     "initial RAM disk; of a Multiboot kernel a module, with its\n"
     "command line after the first blank; may be repeated there"},
    {"append", "TEXT", CLI_STRING, FIELD(append), 0, 0, "the kernel's command line",
     "the kernel's command line"},
    {"firmware", "FILE", CLI_STRING, FIELD(firmware), 0, 0, "bios, uefi or a file",
     "boot through firmware: 'bios' is SeaBIOS, 'uefi' is OVMF, from\n"
     "Debian's packages; else a ROM image that ends at 4 GiB"},
    {"uefi-vars", "FILE", CLI_STRING, FIELD(uefi_vars), 0, 0, "a file",
     "where --firmware uefi keeps its variables; made if it is not there\n"
     "(DISK.uefi-vars beside the first disk; without one: in memory)"},
    {"disk", "FILE", CLI_LIST, FIELD(disk), 0, 0, "an image",
     "a disk, from a raw or qcow2 image or a block device; after it\n"
     ",format=auto, raw or qcow2, ,readonly or ,snapshot (writes are gone\n"
     "at the end), ,cache=writeback, none or unsafe, ,serial=TEXT,\n"
     ",bus=ahci, nvme or virtio; may be repeated; a FILE alone on the\n"
     "command line is one too"},
    {"cdrom", "FILE", CLI_LIST, FIELD(cdrom), 0, 0, "an image",
     "a CD or DVD drive with that ISO image; may be repeated"},
    {"net", "WHAT", CLI_LIST, FIELD(net), 0, 0, "user, tap,name=NAME or none",
     "a network card: user (NAT and DHCP without root, the default) with\n"
     ",forward=tcp:[ADDRESS:]PORT:GUESTPORT, ,restrict, ,tftp=DIR,\n"
     ",bootfile=NAME; tap,name=NAME; or none; after each ,mac=ADDRESS,\n"
     ",model=virtio or e1000, ,rom=FILE; may be repeated: docs/NETWORK.md"},
    {"share", "DIR,tag=NAME", CLI_LIST, FIELD(share), 0, 0, "a folder and a tag",
     "a folder of this host for the guest: mount -t 9p -o trans=virtio NAME\n"
     "/mnt; ,readonly after it; may be repeated: docs/VIRTIO.md"},
    {"memory", "SIZE", CLI_SIZE, FIELD(memory_bytes), PC_MIN_MEMORY, PC_MAX_MEMORY,
     "a size from 2M to 64G, such as 512M", "guest memory, with K, M or G (512M)"},
    {"cpus", "N", CLI_NUMBER, FIELD(cpus), 1, VM_MAX_VCPUS, "a number from 1 to 64",
     "processors (1)"},
    {"cpu", "MODEL", CLI_STRING, FIELD(cpu), 0, 0, "a processor model",
     "x86-64-v2, x86-64-v3 or max, with ,+feature or ,-feature after\n"
     "it (max: all that this host and Vireo have)"},
    {"engine", "NAME", CLI_STRING, FIELD(engine), 0, 0, "auto, jit or interp",
     "what executes the guest: jit (recompiles hot code), interp (the\n"
     "strict reference), or auto, the fastest that this host can run"},
    {"jit-threshold", "N", CLI_NUMBER, FIELD(jit_threshold), 0, 60000, "a number up to 60000",
     "how often code is executed before the JIT recompiles it (16)"},
    {"jit-cache", "SIZE", CLI_SIZE, FIELD(jit_cache_bytes), 1 * MiB, 8 * GiB,
     "a size from 1M to 8G", "how much host code the JIT keeps, for all processors together (256M)"},
    {"perf-map", NULL, CLI_FLAG, FIELD(perf_map), 0, 0, NULL,
     "write /tmp/perf-PID.map, where perf(1) looks for the names of the\n"
     "JIT's code: docs/JIT.md"},
    {"stats", NULL, CLI_FLAG, FIELD(stats), 0, 0, NULL,
     "say at the end what the engine did, and where its time went"},
    {"serial", "WHERE", CLI_STRING, FIELD(serial), 0, 0, "stdio, none, file:PATH or socket:PATH",
     "the first serial port: stdio, none, file:PATH, or socket:PATH, a\n"
     "Unix socket to connect to (stdio, or none with --display terminal;\n"
     "Ctrl-A x leaves, Ctrl-A h helps)"},
    {"console", "WHERE", CLI_STRING, FIELD(console), 0, 0,
     "stdio, none, file:PATH or socket:PATH",
     "a virtio console (hvc0 in Linux), WHERE as for --serial, which is none\n"
     "by default where this is stdio"},
    {"rng", NULL, CLI_FLAG, FIELD(rng), 0, 0, NULL,
     "a virtio entropy device: the host's randomness for the guest"},
    {"balloon", "SIZE", CLI_STRING, FIELD(balloon), 0, 0, "a size such as 256M, or 0",
     "a virtio memory balloon that takes SIZE from the guest as soon as it has\n"
     "a driver, and gives the host what the guest does not use; after it\n"
     ",stats=SECONDS asks for statistics, which --log virtio=info shows"},
    {"display", "WHERE", CLI_STRING, FIELD(display), 0, 0, "none or terminal",
     "where the screen is shown: none, or terminal, in this terminal, which\n"
     "is the guest's keyboard then (none; Ctrl-A x leaves, Ctrl-A h helps)"},
    {"vga", "TYPE", CLI_STRING, FIELD(vga), 0, 0, "std or none",
     "the display adapter: std, a standard VGA with VESA modes, or none\n"
     "(std with --firmware, --display or --screenshot, else none)"},
    {"screenshot", "FILE", CLI_STRING, FIELD(screenshot), 0, 0, "a file",
     "what the screen shows at the end, and whenever SIGUSR1 comes: a\n"
     "PNG, or a text screen's characters if the name ends in .txt"},
    {"device", "NAME", CLI_LIST, FIELD(device), 0, 0, "a device",
     "add a device, options after commas: debug-exit (port 0xF4 ends\n"
     "Vireo with status (value<<1)|1), root-ports (of PCI Express,\n"
     "count=1 to 6) or testdev (for test suites of hypervisors); may\n"
     "be repeated"},
    {"no-reboot", NULL, CLI_FLAG, FIELD(no_reboot), 0, 0, NULL,
     "end instead of starting again when the guest resets; status 3 and\n"
     "a report after a triple fault"},
    {"deterministic", NULL, CLI_FLAG, FIELD(deterministic), 0, 0, NULL,
     "one thread, virtual time by instructions: the same run each time"},
    {"seed", "N", CLI_NUMBER, FIELD(seed), 0, UINT64_MAX, "a number",
     "of all that is random in a deterministic machine (1)"},
    {"log", "AREA", CLI_LIST, FIELD(log), 0, 0, "AREA or AREA=LEVEL",
     "log more or less: AREA or AREA=LEVEL, LEVEL being error, warn,\n"
     "guest, info or debug; may be repeated; areas:"},
};

const size_t cli_run_option_count = ARRAY_SIZE(cli_run_options);

const struct cli_option cli_lockstep_options[] = {
    {"instructions", "N", CLI_NUMBER, FIELD(instructions), 1, UINT64_MAX / 4, "a number",
     "end after so much virtual time, an instruction being a nanosecond"},
    {"seconds", "N", CLI_NUMBER, FIELD(seconds), 1, UINT32_MAX, "a number",
     "end after so many seconds on the host"},
    {"checkpoint", "N", CLI_NUMBER, FIELD(checkpoint), 0, UINT64_MAX, "a number",
     "instructions between saved states, from which a difference is\n"
     "looked for anew; 0: from the start (200000000)"},
};

const size_t cli_lockstep_option_count = ARRAY_SIZE(cli_lockstep_options);

bool cli_parse_number(const char *text, uint64_t *value)
{
    char *end;

    /* strtoull takes signs and blanks, which no number here has. */
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    /* Not base 0: "010" is ten. */
    *value = strtoull(text, &end, text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10);
    return errno == 0 && *end == '\0';
}

bool cli_parse_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    size_t length = strlen(text);
    char digits[32];
    unsigned shift = 0;
    const char *unit;

    if (length == 0 || length >= sizeof digits)
        return false;
    memcpy(digits, text, length + 1);
    /* 512M, 512m, 512MB and 512MiB are all the same to a person. */
    if (length > 3 && !strcmp(digits + length - 2, "iB") && digits[length - 3] > '9')
        digits[length -= 2] = '\0';
    else if (length > 2 && digits[length - 1] == 'B' && digits[length - 2] > '9')
        digits[length -= 1] = '\0';
    unit = strchr(units, digits[length - 1] & ~0x20);
    if (unit && *unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        digits[length - 1] = '\0';
    }
    if (!cli_parse_number(digits, bytes) || *bytes > UINT64_MAX >> shift)
        return false;
    *bytes <<= shift;
    return true;
}

static int set_value(struct cli_options *o, const struct cli_option *spec, const char *value,
                     struct error *err)
{
    void *field = (char *)o + spec->offset;
    struct cli_list *list = field;
    uint64_t number;
    bool ok;

    switch (spec->kind) {
    case CLI_FLAG:
        *(bool *)field = true;
        return 0;
    case CLI_STRING:
        *(const char **)field = value;
        return 0;
    case CLI_SIZE:
    case CLI_NUMBER:
        ok = spec->kind == CLI_SIZE ? cli_parse_size(value, &number)
                                    : cli_parse_number(value, &number);
        if (!ok || number < spec->min || number > spec->max)
            return error_set(err, -EINVAL, "--%s %s: give %s", spec->name, value, spec->what);
        *(uint64_t *)field = number;
        return 0;
    case CLI_LIST:
        if (list->count == CLI_LIST_MAX)
            return error_set(err, -E2BIG, "--%s is given more than %u times: leave some out",
                             spec->name, CLI_LIST_MAX);
        list->item[list->count++] = value;
        return 0;
    }
    return 0;
}

/* Option i of a command, NULL behind the last. */
static const struct cli_option *option_at(const struct cli_options *o, size_t i)
{
    if (i < cli_run_option_count)
        return &cli_run_options[i];
    i -= cli_run_option_count;
    if (o->command == CLI_LOCKSTEP && i < cli_lockstep_option_count)
        return &cli_lockstep_options[i];
    return NULL;
}

static const char *command_name(const struct cli_options *o)
{
    return o->command == CLI_LOCKSTEP ? "lockstep" : "run";
}

static const struct cli_option *find_option(const struct cli_options *o, const char *name,
                                            size_t length)
{
    const struct cli_option *spec;
    size_t i;

    for (i = 0; (spec = option_at(o, i)); i++)
        if (strlen(spec->name) == length && !memcmp(spec->name, name, length))
            return spec;
    return NULL;
}

/* How alike two names are: single-letter edits, for short words. */
static unsigned distance(const char *a, size_t a_length, const char *b)
{
    enum { LONGEST = 32 };
    size_t b_length = strlen(b), i, j;
    unsigned row[LONGEST + 1];

    if (a_length > LONGEST || b_length > LONGEST)
        return LONGEST;
    for (j = 0; j <= b_length; j++)
        row[j] = (unsigned)j;
    for (i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (j = 1; j <= b_length; j++) {
            unsigned substitute = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            row[j] = MIN(substitute, MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_length];
}

static int unknown_option(const struct cli_options *o, const char *argument, struct error *err)
{
    const char *name = argument + strspn(argument, "-");
    const struct cli_option *spec, *best = NULL;
    size_t length = strcspn(name, "="), i;
    unsigned best_distance = 3;

    for (i = 0; (spec = option_at(o, i)); i++) {
        unsigned d = distance(name, length, spec->name);

        if (d < best_distance) {
            best_distance = d;
            best = spec;
        }
    }
    if (best)
        return error_set(err, -EINVAL, "unknown option %.*s: did you mean --%s?",
                         (int)MIN(strcspn(argument, "="), 64u), argument, best->name);
    return error_set(err, -EINVAL, "unknown option %.64s: see vireo %s --help", argument,
                     command_name(o));
}

static int parse_run(struct cli_options *o, int argc, char **argv, struct error *err)
{
    int i, r;

    for (i = 0; i < argc; i++) {
        const char *argument = argv[i];
        const struct cli_option *spec;
        const char *value = NULL;
        size_t length;

        if (!strcmp(argument, "--help") || !strcmp(argument, "-h")) {
            o->command = o->command == CLI_LOCKSTEP ? CLI_HELP_LOCKSTEP : CLI_HELP_RUN;
            return 0;
        }
        if (argument[0] != '-') { /* the image of a disk */
            r = set_value(o, find_option(o, "disk", 4), argument, err);
            if (r < 0)
                return r;
            continue;
        }
        if (argument[1] == '\0')
            return error_set(err, -EINVAL, "'-' is no option: see vireo %s --help",
                             command_name(o));
        if (strncmp(argument, "--", 2))
            return unknown_option(o, argument, err);
        length = strcspn(argument + 2, "=");
        spec = find_option(o, argument + 2, length);
        if (!spec)
            return unknown_option(o, argument, err);
        if (argument[2 + length] == '=')
            value = argument + 2 + length + 1;
        if (spec->kind == CLI_FLAG && value)
            return error_set(err, -EINVAL, "--%s takes no value: leave out '=%.64s'", spec->name,
                             value);
        if (spec->kind != CLI_FLAG && !value) {
            if (i + 1 == argc)
                return error_set(err, -EINVAL, "--%s needs a value: give %s", spec->name,
                                 spec->what);
            value = argv[++i];
        }
        r = set_value(o, spec, value, err);
        if (r < 0)
            return r;
        if (spec->offset == FIELD(seed))
            o->seed_given = true;
    }
    return 0;
}

static bool shows_terminal(const struct cli_options *o)
{
    return !strcmp(o->display, "terminal");
}

/* What no single option can tell. */
static int check_run(const struct cli_options *o, struct error *err)
{
    int r = cli_disks_check(o, err);

    if (r == 0)
        r = cli_cards_check(o, err);
    if (r == 0)
        r = cli_nets_check(o, err);
    if (r < 0)
        return r;
    if (o->console && !strcmp(o->console, "stdio") &&
        (shows_terminal(o) || (o->serial && !strcmp(o->serial, "stdio"))))
        return error_set(err, -EINVAL,
                         "--console stdio wants this terminal for itself: give --%s none, or "
                         "--console file:PATH or socket:PATH",
                         shows_terminal(o) ? "display" : "serial");
    if (!o->kernel && !o->firmware)
        return error_set(err, -EINVAL,
                         "nothing to start: give a disk image, --cdrom FILE, --kernel FILE or "
                         "--firmware bios, see vireo %s --help",
                         command_name(o));
    if (o->kernel && o->firmware)
        return error_set(err, -EINVAL,
                         "--kernel and --firmware exclude each other: leave one of them out");
    if (o->vga && strcmp(o->vga, "std") && strcmp(o->vga, "none"))
        return error_set(err, -EINVAL, "--vga %.64s: give std or none", o->vga);
    if (strcmp(o->display, "none") && strcmp(o->display, "terminal"))
        return error_set(err, -EINVAL, "--display %.64s: give none or terminal", o->display);
    if (shows_terminal(o) && o->serial && !strcmp(o->serial, "stdio"))
        return error_set(err, -EINVAL,
                         "--display terminal and --serial stdio both want this terminal: give "
                         "--serial none, file:PATH or socket:PATH");
    if (shows_terminal(o) && o->vga && !strcmp(o->vga, "none"))
        return error_set(err, -EINVAL, "--display needs a display adapter: give --vga std");
    if (o->screenshot && o->vga && !strcmp(o->vga, "none"))
        return error_set(err, -EINVAL, "--screenshot needs a display adapter: give --vga std");
    if (o->uefi_vars && (!o->firmware || strcmp(o->firmware, "uefi") != 0))
        return error_set(err, -EINVAL, "--uefi-vars needs UEFI: give --firmware uefi too");
    if (o->initrd.count && !o->kernel)
        return error_set(err, -EINVAL, "--initrd needs a kernel: give --kernel FILE too");
    if (o->append && !o->kernel)
        return error_set(err, -EINVAL, "--append needs a kernel: give --kernel FILE too");
    if (o->seed_given && !o->deterministic)
        return error_set(err, -EINVAL,
                         "--seed is for deterministic machines: give --deterministic too");
    return 0;
}

int cli_parse(struct cli_options *o, int argc, char **argv, struct error *err)
{
    const char *command;
    int r;

    memset(o, 0, sizeof *o);
    o->memory_bytes = 512 * MiB;
    o->cpus = 1;
    o->engine = "auto";
    o->display = "none";
    o->seed = 1;
    o->jit_threshold = X86_JIT_THRESHOLD;

    if (argc < 2)
        return error_set(err, -EINVAL, "no command: try vireo run --kernel FILE, or vireo --help");
    command = argv[1];
    if (!strcmp(command, "--help") || !strcmp(command, "-h") || !strcmp(command, "help")) {
        o->command = CLI_HELP;
        return 0;
    }
    if (!strcmp(command, "--version") || !strcmp(command, "-V")) {
        o->command = CLI_VERSION;
        return 0;
    }
    if (!strcmp(command, "doctor")) {
        o->command = CLI_DOCTOR;
        if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h")))
            o->command = CLI_HELP_DOCTOR;
        else if (argc > 2)
            return error_set(err, -EINVAL, "doctor takes no '%.64s': run vireo doctor alone",
                             argv[2]);
        return 0;
    }
    if (!strcmp(command, "lockstep")) {
        o->command = CLI_LOCKSTEP;
        o->deterministic = true;
        o->engine = "jit";
        o->checkpoint = 200000000;
    } else if (strcmp(command, "run")) {
        return error_set(err, -EINVAL,
                         "unknown %s '%.64s': use run, img, lockstep or doctor, see vireo --help",
                         command[0] == '-' ? "option" : "command", command);
    }
    r = parse_run(o, argc - 2, argv + 2, err);
    if (r < 0 || (o->command != CLI_RUN && o->command != CLI_LOCKSTEP))
        return r;
    /* Who gives a disk and no kernel wants to boot from it. */
    if (!o->kernel && !o->firmware && o->disk.count + o->cdrom.count)
        o->firmware = "bios";
    r = check_run(o, err);
    if (!o->vga)
        o->vga = o->firmware || o->screenshot || shows_terminal(o) ? "std" : "none";
    if (!o->serial)
        o->serial = shows_terminal(o) || (o->console && !strcmp(o->console, "stdio")) ? "none"
                                                                                     : "stdio";
    return r;
}
