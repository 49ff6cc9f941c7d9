/*
 * `vireo run`: what main.c calls, and what other commands share with it.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "base/log.h"
#include "cli/options.h"

struct pc_config;

enum cli_status {
    CLI_OK = 0,
    CLI_ERROR = 1,
    CLI_TRIPLE_FAULT = 3,
    CLI_DIFFERENT = 4, /* lockstep */
};

/* Builds the machine, runs it to its end and takes it down. The exit status,
 * with the line to print in err where it is CLI_ERROR. *by_signal: the signal
 * that ended it, 0 for none. */
int cli_run(const struct cli_options *o, int *by_signal, struct error *err);

/* What options say of the log and of the board; engine, serial line and hooks are
 * the caller's. */
int cli_configure_log(const struct cli_options *o, struct log *log, struct error *err);
void cli_board_config(const struct cli_options *o, struct pc_config *config);

#endif
