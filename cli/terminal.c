/*
 * Raw mode, and the signals that end, stop or crash the process.
 *
 * Asynchronous signals (INT, TERM, HUP, QUIT, TSTP, CONT, USR1) are blocked in all
 * threads and read from a signalfd by one of ours. The first that asks for the
 * end stops the machine in good order; a second one, or a machine that does
 * not stop in time, ends the process at once, terminal restored.
 *
 * Synchronous ones (SEGV, BUS, ILL, FPE, ABRT, TRAP, SYS) are a crash: the
 * handler restores the terminal and hands on to whatever was there before.
 * Engines that use such signals themselves install their handlers later and
 * chain to this one for what is not theirs.
 *
 * crash_terminal is the one mutable variable of file scope in the program: a
 * signal handler has no other way to its data. It is the process's terminal,
 * not a machine's, and library code has none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "cli/terminal.h"

enum { STOP_PATIENCE_MS = 3000, LINES_BYTES = 32 << 10 };

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};

struct terminal {
    /* Constant after terminal_start. */
    bool is_tty;
    struct termios cooked;
    sigset_t caught, mask_before;
    struct sigaction crash_before[ARRAY_SIZE(crash_signals)];
    struct sigaction pipe_before;
    int signal_fd, wake_fd;
    pthread_t thread;

    pthread_mutex_t lock;
    /* Guarded by lock. */
    struct terminal_hooks hooks;
    bool running;
    bool want_raw;

    const char *enter, *leave; /* of a screen, or NULL */
    /* Lines that wait for the end of the screen; guarded by lines_lock. */
    pthread_mutex_t lines_lock;
    char lines[LINES_BYTES];
    size_t lines_used;

    _Atomic bool raw;
    _Atomic int end_signal;
    _Atomic bool finished;
};

static _Atomic(struct terminal *) crash_terminal;

static bool in_foreground(void)
{
    return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/* Async-signal-safe. */
static void write_sequence(const char *sequence)
{
    size_t left = sequence ? strlen(sequence) : 0;

    while (left) {
        ssize_t n = write(STDOUT_FILENO, sequence, left);

        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return;
        if (n > 0) {
            sequence += n;
            left -= (size_t)n;
        }
    }
}

static void set_raw(struct terminal *t)
{
    struct termios raw = t->cooked;

    /* A background process that touches the modes would be stopped. */
    if (!t->is_tty || !in_foreground())
        return;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0) {
        atomic_store(&t->raw, true);
        write_sequence(t->enter);
        if (t->hooks.redraw)
            t->hooks.redraw(t->hooks.ctx);
    }
}

/* Async-signal-safe. */
static void set_cooked(struct terminal *t)
{
    if (!atomic_exchange(&t->raw, false))
        return;
    write_sequence(t->leave);
    tcsetattr(STDIN_FILENO, TCSANOW, &t->cooked);
}

void terminal_die_by_signal(int signal_number)
{
    sigset_t only;

    signal(signal_number, SIG_DFL);
    sigemptyset(&only);
    sigaddset(&only, signal_number);
    pthread_sigmask(SIG_UNBLOCK, &only, NULL);
    kill(getpid(), signal_number);
    /* Another thread may be the one that takes it. */
    for (;;)
        pause();
}

static void crash_handler(int signal_number, siginfo_t *info, void *context)
{
    struct terminal *t = atomic_load(&crash_terminal);
    size_t i;

    if (t) {
        set_cooked(t);
        for (i = 0; i < ARRAY_SIZE(crash_signals); i++) {
            if (crash_signals[i] == signal_number) {
                sigaction(signal_number, &t->crash_before[i], NULL);
                break;
            }
        }
    } else {
        signal(signal_number, SIG_DFL);
    }
    /* A fault comes again at the same instruction and meets the action that
     * was there before; what was sent by somebody has to be sent again. */
    if (info->si_code <= 0 || signal_number == SIGABRT || signal_number == SIGTRAP)
        raise(signal_number);
}

/* SIGTSTP: gives the terminal back, stops, and takes it again. */
static void suspend(struct terminal *t)
{
    sigset_t stop;

    pthread_mutex_lock(&t->lock);
    if (t->running && t->hooks.pause)
        t->hooks.pause(t->hooks.ctx);
    set_cooked(t);
    pthread_mutex_unlock(&t->lock);

    sigemptyset(&stop);
    sigaddset(&stop, SIGTSTP);
    raise(SIGTSTP); /* pending until it is unblocked */
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
    /* Stopped here; somebody has continued us. */
    pthread_sigmask(SIG_BLOCK, &stop, NULL);

    pthread_mutex_lock(&t->lock);
    if (t->running && t->want_raw)
        set_raw(t);
    if (t->running && t->hooks.resume)
        t->hooks.resume(t->hooks.ctx);
    pthread_mutex_unlock(&t->lock);
}

static void end_by(struct terminal *t, int signal_number)
{
    bool handed_on;

    pthread_mutex_lock(&t->lock);
    handed_on = t->running && t->hooks.stop && atomic_load(&t->end_signal) == 0;
    if (handed_on) {
        atomic_store(&t->end_signal, signal_number);
        t->hooks.stop(t->hooks.ctx);
    }
    pthread_mutex_unlock(&t->lock);
    if (!handed_on) {
        set_cooked(t);
        terminal_die_by_signal(signal_number);
    }
}

static void take_signal(struct terminal *t)
{
    struct signalfd_siginfo info;

    if (read(t->signal_fd, &info, sizeof info) != sizeof info)
        return;
    switch (info.ssi_signo) {
    case SIGTSTP:
        suspend(t);
        break;
    case SIGCONT:
        /* Stopped by SIGSTOP, the shell has changed the modes meanwhile. */
        pthread_mutex_lock(&t->lock);
        if (t->running && t->want_raw)
            set_raw(t);
        pthread_mutex_unlock(&t->lock);
        break;
    case SIGUSR1:
        pthread_mutex_lock(&t->lock);
        if (t->running && t->hooks.user)
            t->hooks.user(t->hooks.ctx);
        pthread_mutex_unlock(&t->lock);
        break;
    default:
        end_by(t, (int)info.ssi_signo);
        break;
    }
}

static void *signal_thread(void *arg)
{
    struct terminal *t = arg;
    struct pollfd fds[2] = {
        {.fd = t->signal_fd, .events = POLLIN},
        {.fd = t->wake_fd, .events = POLLIN},
    };

    for (;;) {
        bool ending = atomic_load(&t->end_signal) != 0;
        int n = poll(fds, 2, ending ? STOP_PATIENCE_MS : -1);

        if (atomic_load(&t->finished))
            return NULL;
        if (n < 0)
            continue;
        if (n == 0) {
            /* The machine does not stop: its thread hangs in the host. */
            set_cooked(t);
            terminal_die_by_signal(atomic_load(&t->end_signal));
        }
        if (fds[0].revents & POLLIN)
            take_signal(t);
    }
}

static void block_signals(struct terminal *t)
{
    size_t i;

    sigemptyset(&t->caught);
    for (i = 0; i < ARRAY_SIZE(ending_signals); i++) {
        struct sigaction now;

        /* nohup and background jobs of simple shells: ignored stays so. */
        if (sigaction(ending_signals[i], NULL, &now) == 0 && now.sa_handler == SIG_IGN)
            continue;
        sigaddset(&t->caught, ending_signals[i]);
    }
    sigaddset(&t->caught, SIGTSTP);
    sigaddset(&t->caught, SIGCONT);
    sigaddset(&t->caught, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &t->caught, &t->mask_before);
}

static void catch_crashes(struct terminal *t)
{
    struct sigaction action = {.sa_sigaction = crash_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    size_t i;

    sigemptyset(&action.sa_mask);
    for (i = 0; i < ARRAY_SIZE(crash_signals); i++)
        sigaction(crash_signals[i], &action, &t->crash_before[i]);
    /* A reader that went away is an error of write(), not our end. */
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, &t->pipe_before);
}

struct terminal *terminal_start(struct error *err)
{
    struct terminal *t = calloc(1, sizeof *t);

    if (!t) {
        error_set(err, -ENOMEM, "out of memory: end other programs and try again");
        return NULL;
    }
    pthread_mutex_init(&t->lock, NULL);
    pthread_mutex_init(&t->lines_lock, NULL);
    t->is_tty = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &t->cooked) == 0;
    block_signals(t);
    t->signal_fd = signalfd(-1, &t->caught, SFD_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (t->signal_fd < 0 || t->wake_fd < 0 ||
        pthread_create(&t->thread, NULL, signal_thread, t) != 0) {
        error_set(err, -EMFILE,
                  "cannot watch for signals: raise the limits on open files and "
                  "threads (ulimit -n, ulimit -u)");
        if (t->signal_fd >= 0)
            close(t->signal_fd);
        if (t->wake_fd >= 0)
            close(t->wake_fd);
        pthread_sigmask(SIG_SETMASK, &t->mask_before, NULL);
        free(t);
        return NULL;
    }
    atomic_store(&crash_terminal, t);
    catch_crashes(t);
    return t;
}

void terminal_use_screen(struct terminal *t, const char *enter, const char *leave)
{
    t->enter = enter;
    t->leave = leave;
}

/* What was said while the screen was in the way. */
static void print_kept_lines(struct terminal *t)
{
    pthread_mutex_lock(&t->lines_lock);
    if (t->lines_used)
        fwrite(t->lines, 1, t->lines_used, stderr);
    t->lines_used = 0;
    pthread_mutex_unlock(&t->lines_lock);
}

static void keep_line(struct terminal *t, const char *prefix, const char *text)
{
    int n;

    pthread_mutex_lock(&t->lines_lock);
    n = snprintf(t->lines + t->lines_used, LINES_BYTES - t->lines_used, "%s%s\n", prefix, text);
    /* What does not fit is lost; the first lines tell most. */
    if (n > 0 && (size_t)n < LINES_BYTES - t->lines_used)
        t->lines_used += (size_t)n;
    pthread_mutex_unlock(&t->lines_lock);
}

void terminal_run(struct terminal *t, const struct terminal_hooks *hooks, bool raw)
{
    pthread_mutex_lock(&t->lock);
    if (hooks)
        t->hooks = *hooks;
    else
        memset(&t->hooks, 0, sizeof t->hooks);
    t->running = true;
    t->want_raw = raw;
    if (raw)
        set_raw(t);
    pthread_mutex_unlock(&t->lock);
}

void terminal_leave(struct terminal *t)
{
    pthread_mutex_lock(&t->lock);
    t->running = false;
    set_cooked(t);
    pthread_mutex_unlock(&t->lock);
    print_kept_lines(t);
}

bool terminal_is_raw(const struct terminal *t)
{
    return t && atomic_load(&t->raw);
}

void terminal_print_line(struct terminal *t, const char *prefix, const char *text)
{
    bool raw = terminal_is_raw(t) && isatty(STDERR_FILENO);

    if (raw && t->enter) {
        keep_line(t, prefix, text);
        return;
    }
    fprintf(stderr, "%s%s%s", prefix, text, raw ? "\r\n" : "\n");
}

int terminal_finish(struct terminal *t)
{
    uint64_t one = 1;
    size_t i;
    int signal_number;

    if (!t)
        return 0;
    terminal_leave(t);
    atomic_store(&t->finished, true);
    if (write(t->wake_fd, &one, sizeof one) == sizeof one)
        pthread_join(t->thread, NULL);
    atomic_store(&crash_terminal, NULL);
    for (i = 0; i < ARRAY_SIZE(crash_signals); i++)
        sigaction(crash_signals[i], &t->crash_before[i], NULL);
    sigaction(SIGPIPE, &t->pipe_before, NULL);
    pthread_sigmask(SIG_SETMASK, &t->mask_before, NULL);
    close(t->signal_fd);
    close(t->wake_fd);
    signal_number = atomic_load(&t->end_signal);
    pthread_mutex_destroy(&t->lock);
    pthread_mutex_destroy(&t->lines_lock);
    free(t);
    return signal_number;
}
