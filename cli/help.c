/*
 * Help, printed from the table of options.
 */
#include "base/log.h"
#include "cli/options.h"

enum { HELP_COLUMN = 24, LAST_COLUMN = 92 };

void cli_print_help(FILE *out)
{
    fputs(
        "Vireo: a machine in a program. Runs unmodified operating systems on any x86-64 Linux\n"
        "host, with or without hardware virtualization.\n"
        "\n"
        "usage: vireo run [options]   start a machine (vireo run --help)\n"
        "       vireo img COMMAND     make, look at, check and convert images of disks (vireo img "
        "--help)\n"
        "       vireo lockstep [options]  run two engines side by side and find where they differ\n"
        "       vireo doctor          what this host offers, and what would help\n"
        "       vireo --version\n"
        "       vireo --help\n"
        "\n"
        "examples:\n"
        "  vireo run disk.img\n"
        "  vireo run --kernel vmlinuz --initrd initrd.gz --append \"console=ttyS0\"\n",
        out);
}

void cli_print_help_doctor(FILE *out)
{
    fputs("usage: vireo doctor\n"
          "\n"
          "Prints which engines, processor features and firmware files this host offers, and\n"
          "for what is missing, why and what would help.\n",
          out);
}

static void print_option(FILE *out, const struct cli_option *o)
{
    const char *line = o->help;
    int column =
        fprintf(out, "  --%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");

    while (line) {
        const char *end = strchr(line, '\n');
        int length = end ? (int)(end - line) : (int)strlen(line);

        fprintf(out, "%*s%.*s\n", column < HELP_COLUMN ? HELP_COLUMN - column : 1, "", length,
                line);
        column = 0;
        line = end ? end + 1 : NULL;
    }
}

/* Below --log: the areas, wrapped. */
static void print_areas(FILE *out)
{
    int column = 0, i;

    for (i = 0; i < LOG_AREA_COUNT; i++) {
        const char *name = log_area_name(i);
        int length = (int)strlen(name);

        if (column == 0 || column + 2 + length > LAST_COLUMN)
            column = fprintf(out, "%s%*s%s", column ? ",\n" : "", HELP_COLUMN, "", name) -
                     (column ? 2 : 0);
        else
            column += fprintf(out, ", %s", name);
    }
    fputs(", all\n", out);
}

/* Those of run, in the order of the table. */
static void print_run_options(FILE *out)
{
    size_t i;

    for (i = 0; i < cli_run_option_count; i++) {
        print_option(out, &cli_run_options[i]);
        if (!strcmp(cli_run_options[i].name, "log"))
            print_areas(out);
    }
}

void cli_print_help_run(FILE *out)
{
    fputs("usage: vireo run disk.img [options]\n"
          "       vireo run --cdrom FILE.iso [options]\n"
          "       vireo run --kernel FILE [--initrd FILE] [--append TEXT] [options]\n"
          "       vireo run --firmware bios|uefi|FILE [options]\n"
          "\n",
          out);
    print_run_options(out);
    fputs("\n"
          "exit status: 0 the guest switched itself off; 1 an error of the host or of this\n"
          "command line; 3 a triple fault with --no-reboot; (value<<1)|1 by debug-exit.\n",
          out);
}

void cli_print_help_lockstep(FILE *out)
{
    size_t i;

    fputs("usage: vireo lockstep --kernel FILE [--initrd FILE] [--append TEXT] [options]\n"
          "       vireo lockstep --firmware bios|uefi|FILE [options]\n"
          "\n"
          "Runs the same deterministic machine twice, by the interpreter and by the engine that\n"
          "--engine names (jit), and compares processors, devices and memory on the way. Ends\n"
          "when the guest does; at the first difference it says which, after which guest code,\n"
          "and shows the host code that was made of it.\n"
          "\n",
          out);
    for (i = 0; i < cli_lockstep_option_count; i++)
        print_option(out, &cli_lockstep_options[i]);
    fputs("\n"
          "and the options of vireo run:\n"
          "\n",
          out);
    print_run_options(out);
    fputs("\n"
          "exit status: 0 no difference; 1 an error of the host or of this command line; 4 a\n"
          "difference.\n",
          out);
}
