/*
 * vireo img: its commands, and what they share. Interface: img.h.
 */
#include "cli/img.h"

#include <errno.h>
#include <stdio.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv, struct img_job *job, struct error *err);
} commands[] = {
    {"create", img_create},   {"info", img_info},     {"check", img_check},
    {"convert", img_convert}, {"resize", img_resize}, {"snapshot", img_snapshot},
};

int cli_img(int argc, char **argv, int *by_signal, struct error *err)
{
    struct img_job job = {0};
    int ret;

    if (argc < 2)
        return error_set(err, 1,
                         "img: give a command: create, info, check, convert, resize or snapshot");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        cli_print_help_img(stdout);
        return 0;
    }
    for (size_t n = 0; n < ARRAY_SIZE(commands); n++) {
        if (strcmp(argv[1], commands[n].name))
            continue;
        if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
            cli_print_help_img(stdout);
            return 0;
        }
        ret = commands[n].run(argc - 1, argv + 1, &job, err);
        *by_signal = job.signal;
        return ret < 0 ? 1 : ret;
    }
    return error_set(err, 1,
                     "img has no command '%.32s': there are create, info, check, convert, resize "
                     "and snapshot",
                     argv[1]);
}

struct disk_layer *img_open(const char *path, const char *format, bool readonly, bool no_backing,
                            struct error *err)
{
    struct disk_image_config config = {
        .path = path, .readonly = readonly, .no_backing = no_backing};

    if (img_format_of(format, &config.format, err))
        return NULL;
    return disk_image_open(&config, NULL, err);
}

const char *img_size_text(uint64_t bytes, char *out, size_t room)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, room, "%.3g %s", value, units[unit]);
    return out;
}

void img_resolve(const char *image, const char *name, char *out, size_t room)
{
    const char *slash = strrchr(image, '/');

    if (!strncmp(name, "file:", 5))
        name += 5;
    if (name[0] == '/' || !slash)
        snprintf(out, room, "%s", name);
    else
        snprintf(out, room, "%.*s/%s", (int)(slash - image), image, name);
}

void cli_print_help_img(FILE *out)
{
    fputs(
        "usage: vireo img create [-f FORMAT] [-b BACKING [-F FORMAT]] [-o OPTIONS] FILE [SIZE]\n"
        "       vireo img info [-f FORMAT] [--json] FILE\n"
        "       vireo img check [-f FORMAT] [-r leaks|all] [--json] FILE\n"
        "       vireo img convert [-f FORMAT] [-O FORMAT] [-o OPTIONS] [-c] [-S SIZE]\n"
        "                         [-l SNAPSHOT] [-B BACKING [-F FORMAT]] FILE NEW\n"
        "       vireo img resize [-f FORMAT] [--shrink] FILE [+|-]SIZE\n"
        "       vireo img snapshot [-l | -c NAME | -a NAME | -d NAME] FILE\n"
        "\n"
        "Formats are raw and qcow2 (create and convert: raw if nothing is said; else: what the\n"
        "file looks like). Sizes have K, M, G or T. What is made gets its name when it is whole.\n"
        "\n"
        "  -o OPTIONS            of qcow2: cluster_size=64K, compat=1.1 or 0.10, "
        "refcount_bits=16,\n"
        "                        lazy_refcounts=on, extended_l2=on, compression_type=zlib or "
        "zstd,\n"
        "                        backing_file=F, backing_fmt=FORMAT; preallocation=off, metadata, "
        "falloc or full\n"
        "  -b BACKING            what is not written is as in that image\n"
        "  -B BACKING            convert: only what differs from that image is in the new one\n"
        "  -F FORMAT             of the backing file\n"
        "  -l SNAPSHOT           convert: as FILE is in that snapshot (its name or id)\n"
        "  -c                    convert: compressed clusters\n"
        "  -S SIZE               convert: zeroes of that length need no space (4K; 0: all is\n"
        "                        written)\n"
        "  -t unsafe             convert: do not wait until all is on the host's disk\n"
        "  -m N                  convert: threads\n"
        "  -r leaks, -r all      check: repair refcounts, or all that can be\n"
        "  -q                    no bar, nothing but errors\n"
        "\n"
        "exit status: 0; 1 an error; of check 2 damage and 3 leaks.\n",
        out);
}
