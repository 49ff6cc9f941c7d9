/*
 * `vireo run`: options to a machine, the machine to its end, its end to an
 * exit status.
 *
 * Threading: everything here runs on the main thread, except the hooks of the
 * terminal (its signal thread), the sink of the log (any thread) and the
 * report of a triple fault (with the processors stopped).
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "backend/display/display.h"
#include "backend/display/terminal.h"
#include "board/pc.h"
#include "cli/cards.h"
#include "cli/disks.h"
#include "cli/nets.h"
#include "cli/run.h"
#include "cli/terminal.h"
#include "cpu/x86/vcpu.h"
#include "dev/input/ps2_keyboard.h"
#include "dev/input/ps2_mouse.h"
#include "debug/report.h"
#include "engine/engine.h"
#include "vm/loop.h"
#include "vm/vm.h"

struct run {
    const struct cli_options *options;
    struct terminal *terminal;
    struct log log;
    struct vm *vm;
    struct pc *pc;
    struct char_backend *serial;
    struct char_backend *console; /* or NULL */
    struct cli_cards cards;
    struct display_terminal *display; /* or NULL */
    struct cli_disks disks;
    struct cli_nets nets;
};

static void log_sink(void *ctx, enum log_area area, enum log_level level, const char *line)
{
    struct run *r = ctx;
    char prefix[64];

    snprintf(prefix, sizeof prefix, "vireo: %s %s: ", log_area_name(area), log_level_name(level));
    terminal_print_line(r->terminal, prefix, line);
}

static void report_line(void *ctx, const char *text)
{
    struct run *r = ctx;

    terminal_print_line(r->terminal, "vireo: ", text);
}

static void on_shutdown(void *ctx, struct x86_vcpu *cpu)
{
    struct run *r = ctx;

    if (r->options->no_reboot)
        report_triple_fault(cpu, report_line, r);
    else
        vlog(&r->log, CPU, GUEST,
             "processor %u: triple fault at RIP %llx: reset (--no-reboot stops with a report)",
             cpu->vcpu.index, (unsigned long long)cpu->s.reg[X86_RIP]);
}

/* ---- from options to parts ---- */

int cli_configure_log(const struct cli_options *o, struct log *log, struct error *err)
{
    unsigned i;

    for (i = 0; i < o->log.count; i++) {
        if (log_configure(log, o->log.item[i]) < 0)
            return error_set(err, -EINVAL,
                             "--log %.64s: no such area or level, see vireo run --help",
                             o->log.item[i]);
    }
    return 0;
}

void cli_board_config(const struct cli_options *o, struct pc_config *config)
{
    unsigned i;

    *config = (struct pc_config){
        .memory_bytes = o->memory_bytes,
        .cpus = (unsigned)o->cpus,
        .cpu = o->cpu,
        .firmware = o->firmware,
        .uefi_vars = o->uefi_vars,
        /* Two machines at once cannot both own it. */
        .uefi_vars_volatile = o->command == CLI_LOCKSTEP,
        .kernel = o->kernel,
        .append = o->append,
        .vga = o->vga,
        .engine_options = {
            .jit_threshold = o->jit_threshold ? (uint32_t)o->jit_threshold : X86_JIT_AT_ONCE,
            .jit_cache_bytes = o->jit_cache_bytes,
            .stats = o->stats,
            .perf_map = o->perf_map,
        },
    };
    for (i = 0; i < o->initrd.count && i < PC_MAX_INITRDS; i++)
        config->initrd[config->initrd_count++] = o->initrd.item[i];
    for (i = 0; i < o->device.count && i < PC_MAX_DEVICES; i++)
        config->devices[config->device_count++] = o->device.item[i];
}

/* ---- the screen ---- */

/* With the machine's lock, or after its end. */
static int take_screenshot(struct run *r, struct error *err)
{
    struct display_source source;

    if (!pc_display(r->pc, &source))
        return error_set(err, -ENODEV, "--screenshot: the machine has no display adapter");
    return display_shot(&source, r->options->screenshot, err);
}

static void screenshot_now(void *ctx)
{
    struct run *r = ctx;
    struct error err = {0};

    if (take_screenshot(r, &err) < 0)
        report_line(r, err.text);
}

/* Ctrl-A x. */
static void quit(void *ctx)
{
    struct run *r = ctx;

    vm_stop(r->vm);
}

static void key(void *ctx, uint16_t keycode, bool down)
{
    struct run *r = ctx;

    ps2_keyboard_key(pc_keyboard(r->pc), keycode, down);
}

static void mouse(void *ctx, int dx, int dy, int dz, unsigned buttons)
{
    struct run *r = ctx;

    ps2_mouse_move(pc_mouse(r->pc), dx, dy, dz, buttons);
}

static int create_display(struct run *r, struct error *err)
{
    struct display_terminal_config config = {
        .in = STDIN_FILENO, .out = STDOUT_FILENO, .key = key, .quit = quit, .ctx = r};

    if (strcmp(r->options->display, "terminal"))
        return 0;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return error_set(err, -ENOTTY,
                         "--display terminal needs a terminal on standard input and output");
    if (!pc_display(r->pc, &config.source))
        return error_set(err, -ENODEV, "--display: the machine has no display adapter");
    if (pc_mouse(r->pc))
        config.mouse = mouse;
    r->display = display_terminal_create(r->vm, &config, err);
    if (!r->display)
        return -ENOMEM;
    terminal_use_screen(r->terminal, TERMINAL_ENTER, TERMINAL_LEAVE);
    return 0;
}

/* ---- the serial line and the console ---- */

static struct char_backend *create_chars(struct run *r, const char *option, const char *where,
                                         struct error *err)
{
    if (!strcmp(where, "stdio"))
        /* What comes from a file or a program is passed on as it is. */
        return char_fd_create(r->vm, STDIN_FILENO, STDOUT_FILENO, isatty(STDIN_FILENO), quit, r,
                              err);
    if (!strcmp(where, "none"))
        return char_null_create(r->vm, err);
    if (!strncmp(where, "file:", 5) && where[5])
        return char_file_create(r->vm, where + 5, err);
    if (!strncmp(where, "socket:", 7) && where[7])
        return char_socket_create(r->vm, where + 7, err);
    error_set(err, -EINVAL, "--%s %.64s: use stdio, none, file:PATH or socket:PATH", option,
              where);
    return NULL;
}

static int create_board(struct run *r, struct error *err)
{
    struct pc_config config;
    int ret;

    cli_board_config(r->options, &config);
    config.com[0] = r->serial;
    config.on_shutdown = on_shutdown;
    config.on_shutdown_ctx = r;
    config.engine = engine_find(r->options->engine, &r->log, err);
    if (!config.engine)
        return -EINVAL;
    if (r->options->console) {
        r->console = create_chars(r, "console", r->options->console, err);
        if (!r->console)
            return -EINVAL;
    }
    ret = cli_disks_open(&r->disks, r->options, false, r->vm, &config, err);
    if (!ret)
        ret = cli_nets_open(&r->nets, r->options, r->vm, &config, err);
    if (!ret)
        ret = cli_cards_add(&r->cards, r->options, r->console, false, r->vm, &config, err);
    if (ret)
        return ret;
    return pc_create(r->vm, &config, &r->pc, err);
}

/* ---- signals ---- */

static void hook_stop(void *ctx)
{
    struct run *r = ctx;

    vm_stop(r->vm);
}

static void hook_pause(void *ctx)
{
    struct run *r = ctx;

    vm_pause(r->vm);
}

static void hook_resume(void *ctx)
{
    struct run *r = ctx;

    vm_resume(r->vm);
}

/* SIGUSR1: on the signal thread, which may not wait for the machine. */
static void hook_user(void *ctx)
{
    struct run *r = ctx;

    if (r->options->screenshot)
        loop_defer(r->vm, screenshot_now, r);
}

static void redraw_now(void *ctx)
{
    struct run *r = ctx;

    if (r->display)
        display_terminal_redraw(r->display);
}

static void hook_redraw(void *ctx)
{
    struct run *r = ctx;

    loop_defer(r->vm, redraw_now, r);
}

/* ---- the machine's life ---- */

static int exit_status(enum vm_exit exit, int guest_status)
{
    switch (exit) {
    case VM_EXIT_POWEROFF:
        return guest_status;
    case VM_EXIT_TRIPLE_FAULT:
        return CLI_TRIPLE_FAULT;
    case VM_EXIT_RESET:
    case VM_EXIT_STOPPED:
    case VM_EXIT_LIMIT:
        break;
    }
    return CLI_OK;
}

/* --stats. The processors have stopped. */
static void report_stats(struct run *r)
{
    struct x86_vcpu *c;

    for (unsigned n = 0; n < r->vm->vcpu_count; n++) {
        char line[96];

        c = pc_cpu(r->pc, n);
        snprintf(line, sizeof line, "processor %u, engine %s: ran for %.3f s", n,
                 c->engine_ops->name, (double)c->vcpu.run_ns / 1e9);
        report_line(r, line);
        if (c->engine_ops->report)
            c->engine_ops->report(c, report_line, r);
    }
    cli_nets_report(&r->nets, report_line, r);
}

static int run_machine(struct run *r, struct error *err)
{
    const struct terminal_hooks hooks = {hook_stop, hook_pause, hook_resume,
                                         hook_user, hook_redraw, r};
    bool raw = r->display || !strcmp(r->options->serial, "stdio") ||
               (r->options->console && !strcmp(r->options->console, "stdio"));
    enum vm_exit exit = VM_EXIT_STOPPED;
    int guest_status = 0, code;

    terminal_run(r->terminal, &hooks, raw);
    code = vm_run(r->vm, &exit, &guest_status, err);
    terminal_leave(r->terminal);
    if (r->options->stats)
        report_stats(r);
    if (code >= 0 && r->options->screenshot)
        code = take_screenshot(r, err);
    return code < 0 ? CLI_ERROR : exit_status(exit, guest_status);
}

int cli_run(const struct cli_options *o, int *by_signal, struct error *err)
{
    struct vm_config config = {.deterministic = o->deterministic, .seed = o->seed};
    struct run r = {.options = o};
    int status = CLI_ERROR;

    *by_signal = 0;
    /* Before any thread, so that all of them have its signal mask. */
    r.terminal = terminal_start(err);
    if (!r.terminal)
        return CLI_ERROR;
    log_init(&r.log, log_sink, &r);
    if (cli_configure_log(o, &r.log, err) < 0)
        goto finish;
    config.log = &r.log;
    r.vm = vm_create(&config, err);
    if (!r.vm)
        goto finish;
    r.vm->no_reboot = o->no_reboot;
    r.serial = create_chars(&r, "serial", o->serial, err);
    if (!r.serial)
        goto destroy_vm;
    if (create_board(&r, err) == 0 && create_display(&r, err) == 0) {
        status = run_machine(&r, err);
        display_terminal_destroy(r.display);
        r.display = NULL;
    }
    /* They still need the machine's loop and log. */
    cli_disks_close(&r.disks);
    cli_nets_close(&r.nets);
    cli_cards_close(&r.cards);
    char_destroy(r.serial);
    if (r.console)
        char_destroy(r.console);
destroy_vm:
    vm_destroy(r.vm);
finish:
    *by_signal = terminal_finish(r.terminal);
    return status;
}
