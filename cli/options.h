/*
 * The command line: one table says which options there are, and the parser
 * and the help text both read it.
 *
 * Every mistake of the user is one line in struct error; nothing here prints
 * errors or ends the process.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdio.h>

#include "base/base.h"
#include "base/error.h"

#define CLI_LIST_MAX 32

enum cli_command {
    CLI_RUN,
    CLI_LOCKSTEP,
    CLI_DOCTOR,
    CLI_HELP,
    CLI_HELP_RUN,
    CLI_HELP_LOCKSTEP,
    CLI_HELP_DOCTOR,
    CLI_VERSION,
};

/* An option that may be given several times. */
struct cli_list {
    const char *item[CLI_LIST_MAX];
    unsigned count;
};

struct cli_options {
    enum cli_command command;
    const char *kernel;
    struct cli_list initrd;
    const char *append;
    const char *firmware;
    const char *uefi_vars;
    uint64_t memory_bytes;
    uint64_t cpus;
    const char *engine;
    uint64_t jit_threshold;
    uint64_t jit_cache_bytes;
    bool perf_map;
    bool stats;
    const char *cpu;
    const char *serial;
    const char *console; /* NULL: none */
    const char *balloon; /* NULL: none */
    bool rng;
    const char *display;
    const char *vga; /* NULL: not said */
    const char *screenshot;
    struct cli_list device;
    struct cli_list disk;
    struct cli_list cdrom;
    struct cli_list net;
    struct cli_list share;
    bool no_reboot;
    bool deterministic;
    uint64_t seed;
    bool seed_given;
    struct cli_list log;
    /* Of lockstep only. */
    uint64_t instructions;
    uint64_t seconds;
    uint64_t checkpoint;
};

/* 0, or a negative errno with the line to print. Strings point into argv. */
int cli_parse(struct cli_options *o, int argc, char **argv, struct error *err);

void cli_print_help(FILE *out);
void cli_print_help_run(FILE *out);
void cli_print_help_lockstep(FILE *out);
void cli_print_help_doctor(FILE *out);

/* "512M", "2G", "65536", "0x1000", "4K": false when it is none. */
bool cli_parse_size(const char *text, uint64_t *bytes);
/* Decimal or 0x hexadecimal, all of the text. */
bool cli_parse_number(const char *text, uint64_t *value);

enum cli_kind {
    CLI_FLAG,   /* bool */
    CLI_STRING, /* const char * */
    CLI_SIZE,   /* uint64_t, with K, M, G */
    CLI_NUMBER, /* uint64_t */
    CLI_LIST,   /* struct cli_list */
};

struct cli_option {
    const char *name;     /* without the dashes */
    const char *argument; /* what the help calls it; NULL: a flag */
    enum cli_kind kind;
    size_t offset;     /* in struct cli_options */
    uint64_t min, max; /* of sizes and numbers */
    const char *what;  /* what a right value is, for the error line */
    const char *help;  /* lines separated by \n */
};

extern const struct cli_option cli_run_options[];
extern const size_t cli_run_option_count;
/* What lockstep takes besides. */
extern const struct cli_option cli_lockstep_options[];
extern const size_t cli_lockstep_option_count;

#endif
