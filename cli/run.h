/*
 * `vireo run` and `vireo doctor`: what main.c calls.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "cli/options.h"

enum cli_status {
    CLI_OK = 0,
    CLI_ERROR = 1,
    CLI_TRIPLE_FAULT = 3,
};

/* Builds the machine, runs it to its end and takes it down. The exit status,
 * with the line to print in err where it is CLI_ERROR. *by_signal: the signal
 * that ended it, 0 for none. */
int cli_run(const struct cli_options *o, int *by_signal, struct error *err);

#endif
