/*
 * Vireo's command line: the only code that ends the process.
 *
 * What the options are is in cli/options.c, what happens to the terminal and
 * to signals in cli/terminal.c, what a machine's life looks like in cli/run.c,
 * that of two in cli/lockstep.c, what images of disks are in cli/img.c.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cli/img.h"
#include "cli/lockstep.h"
#include "cli/options.h"
#include "cli/run.h"
#include "cli/terminal.h"
#include "debug/doctor.h"

static void print_line(void *ctx, const char *text)
{
    puts(text);
}

/* Standard output may be a full disk or a closed pipe. */
static int finish_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return CLI_OK;
    fputs("vireo: cannot write to standard output: free some space, or send it elsewhere\n",
          stderr);
    return CLI_ERROR;
}

int main(int argc, char **argv)
{
    struct error err = {.text = ""};
    struct cli_options options;
    int status = CLI_ERROR, by_signal = 0;

    if (argc > 1 && !strcmp(argv[1], "img")) {
        status = cli_img(argc - 1, argv + 1, &by_signal, &err);
        if (by_signal)
            terminal_die_by_signal(by_signal);
        if (err.text[0])
            fprintf(stderr, "vireo: %s\n", err.text);
        return status ? status : finish_output();
    }
    if (cli_parse(&options, argc, argv, &err) < 0) {
        fprintf(stderr, "vireo: %s\n", err.text);
        return CLI_ERROR;
    }
    switch (options.command) {
    case CLI_RUN:
    case CLI_LOCKSTEP:
        status = options.command == CLI_RUN ? cli_run(&options, &by_signal, &err)
                                            : cli_lockstep(&options, &by_signal, &err);
        if (by_signal)
            terminal_die_by_signal(by_signal);
        if (err.text[0])
            fprintf(stderr, "vireo: %s\n", err.text);
        return status;
    case CLI_DOCTOR:
        doctor_examine(print_line, NULL);
        break;
    case CLI_HELP:
        cli_print_help(stdout);
        break;
    case CLI_HELP_RUN:
        cli_print_help_run(stdout);
        break;
    case CLI_HELP_LOCKSTEP:
        cli_print_help_lockstep(stdout);
        break;
    case CLI_HELP_DOCTOR:
        cli_print_help_doctor(stdout);
        break;
    case CLI_VERSION:
        puts("vireo " VIREO_VERSION);
        break;
    }
    return finish_output();
}
