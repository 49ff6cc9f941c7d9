/*
 * `vireo lockstep`: options to a configuration, the guest's serial line on this
 * terminal, the result to an exit status. Interface: cli/lockstep.h.
 *
 * Threading: the main thread, except the hooks of the terminal (its signal
 * thread), which only set a flag.
 */
#include "cli/lockstep.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/run.h"
#include "cli/terminal.h"
#include "engine/engine.h"

enum { ESCAPE = 'a' & 0x1f }; /* Ctrl-A */

struct command {
    struct terminal *terminal;
    struct log log;
    _Atomic bool stop;
    int out;     /* the serial line; -1: nowhere */
    bool typing; /* standard input is the serial line's, and not at its end */
    bool is_tty, escaped;
    bool out_failed;
};

static void log_sink(void *ctx, enum log_area area, enum log_level level, const char *line)
{
    struct command *c = ctx;
    char prefix[64];

    snprintf(prefix, sizeof prefix, "vireo: %s %s: ", log_area_name(area), log_level_name(level));
    terminal_print_line(c->terminal, prefix, line);
}

static void say(void *ctx, const char *text)
{
    struct command *c = ctx;

    terminal_print_line(c->terminal, "vireo: lockstep: ", text);
}

/* ---- the serial line ---- */

/* Waits where the reader is slow: there is no real time that could be missed. */
static void output(void *ctx, const uint8_t *data, size_t bytes)
{
    struct command *c = ctx;

    while (bytes && c->out >= 0 && !c->out_failed && !atomic_load(&c->stop)) {
        ssize_t n = write(c->out, data, bytes);

        if (n > 0) {
            data += n;
            bytes -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = c->out, .events = POLLOUT};

            poll(&p, 1, 100);
        } else if (n < 0 && errno != EINTR) {
            c->out_failed = true;
        }
    }
}

/* Ctrl-A x leaves, Ctrl-A Ctrl-A is one Ctrl-A; on a terminal only. */
static size_t take_escapes(struct command *c, char *text, size_t bytes)
{
    size_t used = 0;

    for (size_t i = 0; i < bytes; i++) {
        if (!c->escaped && text[i] == ESCAPE) {
            c->escaped = true;
            continue;
        }
        if (c->escaped && text[i] == 'x')
            atomic_store(&c->stop, true);
        else if (!c->escaped || text[i] == ESCAPE)
            text[used++] = text[i];
        c->escaped = false;
    }
    return used;
}

static size_t input(void *ctx, char *text, size_t bytes, int timeout_ms)
{
    struct command *c = ctx;
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    ssize_t n;

    if (!c->typing || poll(&p, 1, timeout_ms) <= 0)
        return 0;
    n = read(STDIN_FILENO, text, bytes);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        c->typing = false;
    if (n <= 0)
        return 0;
    return c->is_tty ? take_escapes(c, text, (size_t)n) : (size_t)n;
}

static int open_serial(struct command *c, const char *where, struct error *err)
{
    c->out = -1;
    if (!strcmp(where, "stdio")) {
        c->out = STDOUT_FILENO;
        c->typing = true;
        c->is_tty = isatty(STDIN_FILENO);
        return 0;
    }
    if (!strcmp(where, "none"))
        return 0;
    if (strncmp(where, "file:", 5) || !where[5])
        return error_set(err, -EINVAL, "--serial %.64s: lockstep takes stdio, none or file:PATH",
                         where);
    c->out = open(where + 5, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (c->out < 0)
        return error_set(err, -errno, "cannot write to %.200s: %s", where + 5, strerror(errno));
    return 0;
}

/* ---- signals ---- */

static void hook_stop(void *ctx)
{
    struct command *c = ctx;

    atomic_store(&c->stop, true);
}

/* Virtual time does not go on while the process is stopped. */
static void hook_nothing(void *ctx)
{
}

/* The main thread will not come back. */
static void stuck(void *ctx)
{
    struct command *c = ctx;

    terminal_leave(c->terminal);
    _exit(CLI_DIFFERENT);
}

int cli_lockstep(const struct cli_options *o, int *by_signal, struct error *err)
{
    struct command c = {.out = -1};
    const struct terminal_hooks hooks = {hook_stop, hook_nothing, hook_nothing, NULL, NULL, &c};
    struct lockstep_config config = {
        .engine = {&interp_engine, engine_find(o->engine, NULL, err)},
        .seed = o->seed,
        .no_reboot = o->no_reboot,
        .log = &c.log,
        .instructions = o->instructions,
        .host_seconds = o->seconds,
        .checkpoint = o->disk.count ? 0 : o->checkpoint,
        .disks = o,
        .stop = &c.stop,
        .output = output,
        .input = input,
        .line = say,
        .stuck = stuck,
        .ctx = &c,
    };
    int r = -EINVAL;

    *by_signal = 0;
    if (!config.engine[LOCKSTEP_TESTED])
        return CLI_ERROR;
    c.terminal = terminal_start(err);
    if (!c.terminal)
        return CLI_ERROR;
    log_init(&c.log, log_sink, &c);
    cli_board_config(o, &config.board);
    if (!cli_configure_log(o, &c.log, err) && !open_serial(&c, o->serial, err)) {
        terminal_run(c.terminal, &hooks, c.is_tty);
        r = lockstep_run(&config, err);
        terminal_leave(c.terminal);
    }
    if (c.out >= 0 && c.out != STDOUT_FILENO)
        close(c.out);
    *by_signal = terminal_finish(c.terminal);
    return r < 0 ? CLI_ERROR : r == LOCKSTEP_DIFFERENT ? CLI_DIFFERENT : CLI_OK;
}
