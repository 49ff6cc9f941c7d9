/*
 * The terminal and the signals of the process: raw mode while a machine runs
 * on standard input, and back to what it was on every way out.
 *
 * One a process. terminal_start before any other thread exists: it blocks the
 * asynchronous signals in all of them and receives them on a thread of its
 * own, where ordinary code may run; only a crash (SIGSEGV and its like) is
 * handled inside a signal handler.
 */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include "base/base.h"
#include "base/error.h"

struct terminal;

struct terminal_hooks {
    /* A signal asks the program to end: stop the machine, soon. */
    void (*stop)(void *ctx);
    /* Around the time that the process is stopped (SIGTSTP). */
    void (*pause)(void *ctx);
    void (*resume)(void *ctx);
    /* SIGUSR1; may be NULL. */
    void (*user)(void *ctx);
    /* The terminal has been taken again: what was on it is gone; may be NULL. */
    void (*redraw)(void *ctx);
    void *ctx;
};

struct terminal *terminal_start(struct error *err);

/* Before terminal_run: the machine's screen is on this terminal. What is written
 * to standard output when the terminal is taken and when it is given back, both
 * literals. Lines for a person are kept until then. */
void terminal_use_screen(struct terminal *t, const char *enter, const char *leave);

/* From here on signals reach the hooks (NULL: signals end the process), and
 * if raw is wanted and standard input is a terminal, keys come uncooked. */
void terminal_run(struct terminal *t, const struct terminal_hooks *hooks, bool raw);
/* The machine has ended: hooks are called no more, the terminal is as before. */
void terminal_leave(struct terminal *t);

/* Is the terminal raw now, so that a line on it needs \r\n? */
bool terminal_is_raw(const struct terminal *t);
/* One line on standard error, in one write. A raw terminal does not return the
 * carriage by itself. */
void terminal_print_line(struct terminal *t, const char *prefix, const char *text);

/* Restores everything. The signal that asked for the end, or 0. */
int terminal_finish(struct terminal *t);

/* Ends the process as that signal would have: what a shell expects to see. */
_Noreturn void terminal_die_by_signal(int signal_number);

#endif
