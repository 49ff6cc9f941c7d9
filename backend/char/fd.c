/*
 * A character back end on two host descriptors: standard input and output.
 *
 * The descriptors are shared with whoever started us (a shell, a pipeline), so
 * their O_NONBLOCK, which belongs to the open file description, is left
 * alone. Instead terminals and pipes are opened once more through
 * /proc/self/fd, which makes a description of our own; sockets are written
 * with MSG_DONTWAIT; where neither is possible we poll and write little.
 *
 * Input is read even when the guest has no room, as long as the escape is on:
 * Ctrl-A x has to work on a guest that hangs.
 * Threading: with the machine's lock held.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/char/internal.h"
#include "vm/vm.h"

enum {
    INPUT_BOUND = 64 << 10,
    OUTPUT_BOUND = 1 << 20,
    ESCAPE = 'A' & 0x1f, /* Ctrl-A */
};

struct char_fd {
    struct char_backend backend;
    struct char_input input;
    struct char_output output;
    int in; /* ours, or the caller's (in_owned) */
    bool in_owned, out_owned;
    int out;
    bool in_pollable; /* epoll takes it: terminal, pipe, socket */
    bool in_ended;
    bool in_stopped; /* queue full: not watched */
    struct loop_fd *watch;
    struct timer again; /* the next read of an unpollable file */
    bool escape;
    bool escape_seen; /* Ctrl-A was typed; the next byte decides */
    void (*quit)(void *ctx);
    void *quit_ctx;
};

/* A description of our own for a terminal or pipe, non-blocking; else fd. */
static int reopen(int fd, int mode, bool *owned)
{
    char path[32];
    struct stat st;
    int copy;

    *owned = false;
    if (fd < 0 || fstat(fd, &st) || !(S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
        return fd;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    copy = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (copy < 0)
        return fd;
    *owned = true;
    return copy;
}

static void fd_write(struct char_backend *b, const uint8_t *data, size_t bytes)
{
    struct char_fd *f = CONTAINER_OF(b, struct char_fd, backend);

    char_output_write(&f->output, data, bytes);
}

static void escape_help(struct char_fd *f)
{
    static const char text[] = "\r\n"
                               "Ctrl-A x       leave, the machine is lost\r\n"
                               "Ctrl-A b       send a break\r\n"
                               "Ctrl-A Ctrl-A  send one Ctrl-A\r\n"
                               "Ctrl-A h       this help\r\n";

    char_output_write(&f->output, (const uint8_t *)text, sizeof text - 1);
}

/* The byte after Ctrl-A. */
static void escaped(struct char_fd *f, uint8_t c)
{
    struct char_frontend *front = &f->backend.front;

    switch (c) {
    case ESCAPE:
        byte_queue_put(&f->input.queue, &c, 1);
        break;
    case 'x':
    case 'X':
        if (f->quit)
            f->quit(f->quit_ctx);
        break;
    case 'b':
    case 'B':
        /* After what was typed before it. */
        char_input_pump(&f->input);
        if (front->receive_break)
            vm_input(f->backend.vm, INPUT_SERIAL, front->name, front->receive_break, front->ctx,
                     NULL, 0);
        break;
    case 'h':
    case 'H':
    case '?':
        escape_help(f);
        break;
    default:
        break; /* a slip of the fingers */
    }
}

static void take(struct char_fd *f, const uint8_t *data, size_t bytes)
{
    size_t i;

    if (!f->escape) {
        byte_queue_put(&f->input.queue, data, bytes);
        return;
    }
    for (i = 0; i < bytes; i++) {
        if (f->escape_seen) {
            f->escape_seen = false;
            escaped(f, data[i]);
        } else if (data[i] == ESCAPE) {
            f->escape_seen = true;
        } else {
            byte_queue_put(&f->input.queue, &data[i], 1);
        }
    }
}

static void input_ended(struct char_fd *f)
{
    f->in_ended = true;
    if (f->watch)
        loop_remove_fd(f->watch);
    f->watch = NULL;
}

/* Reads until there is nothing, or no space for it. */
static void read_available(struct char_fd *f)
{
    uint8_t buffer[1024];

    for (;;) {
        size_t space = f->input.queue.bound - f->input.queue.used;
        size_t wanted = f->escape ? sizeof buffer : MIN(space, sizeof buffer);
        struct pollfd p = {.fd = f->in, .events = POLLIN};
        ssize_t n;

        if (wanted == 0 || f->in_ended)
            break;
        /* The descriptor may be a blocking one that another process shares. */
        if (!f->in_owned && f->in_pollable && poll(&p, 1, 0) <= 0)
            break;
        n = read(f->in, buffer, wanted);
        if (n > 0) {
            take(f, buffer, (size_t)n);
            char_input_pump(&f->input);
            /* A regular file never runs dry: one piece a turn of the loop. */
            if (!f->in_pollable)
                break;
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        } else {
            /* End of file, or the terminal is gone: the machine runs on. */
            input_ended(f);
        }
    }
    if (f->watch) {
        f->in_stopped = !f->escape && f->input.queue.used == f->input.queue.bound;
        loop_set_events(f->watch, f->in_stopped ? 0 : LOOP_READABLE);
    }
}

static void input_ready(void *ctx, int events)
{
    read_available(ctx);
}

static void read_more(struct char_fd *f);

static void read_again(void *ctx)
{
    struct char_fd *f = ctx;

    read_available(f);
    read_more(f);
}

/* Regular files and /dev/null cannot be watched; they are read whenever all
 * that was read before has gone to the guest. */
static void read_more(struct char_fd *f)
{
    if (f->in < 0 || f->in_pollable || f->in_ended || f->input.queue.used)
        return;
    if (!timer_is_armed(&f->again))
        timer_arm(&f->again, clock_now_ns(&f->backend.vm->clock));
}

static void fd_resume_input(struct char_backend *b)
{
    struct char_fd *f = CONTAINER_OF(b, struct char_fd, backend);

    char_input_pump(&f->input);
    if (f->in_stopped && f->watch && f->input.queue.used < f->input.queue.bound) {
        f->in_stopped = false;
        loop_set_events(f->watch, LOOP_READABLE);
    }
    read_more(f);
}

static void fd_destroy(struct char_backend *b)
{
    struct char_fd *f = CONTAINER_OF(b, struct char_fd, backend);

    char_output_flush(&f->output);
    char_output_free(&f->output);
    if (f->watch)
        loop_remove_fd(f->watch);
    f->watch = NULL;
    if (f->in_owned)
        close(f->in);
    if (f->out_owned)
        close(f->out);
    timer_destroy(&f->again);
    char_input_free(&f->input);
    free(f);
}

static const struct char_ops fd_ops = {
    .write = fd_write,
    .resume_input = fd_resume_input,
    .destroy = fd_destroy,
};

static struct char_fd *create(struct vm *vm, int in, int out, struct error *err)
{
    struct char_fd *f = calloc(1, sizeof *f);

    if (!f) {
        error_set(err, -ENOMEM, "out of memory for a serial line: use less --memory");
        return NULL;
    }
    f->backend.ops = &fd_ops;
    f->backend.vm = vm;
    timer_init(&f->again, vm, read_again, f);
    char_input_init(&f->input, &f->backend, INPUT_BOUND);
    char_output_init(&f->output, &f->backend, OUTPUT_BOUND);
    f->in = reopen(in, O_RDONLY, &f->in_owned);
    f->out = reopen(out, O_WRONLY, &f->out_owned);
    return f;
}

struct char_backend *char_fd_create(struct vm *vm, int in, int out, bool escape,
                                    void (*quit)(void *ctx), void *ctx, struct error *err)
{
    struct char_fd *f = create(vm, in, out, err);

    if (!f)
        return NULL;
    f->escape = escape;
    f->quit = quit;
    f->quit_ctx = ctx;
    char_output_open(&f->output, f->out);
    if (in >= 0) {
        f->watch = loop_add_fd(vm, f->in, LOOP_READABLE, input_ready, f, NULL);
        /* epoll refuses what is always ready. */
        f->in_pollable = f->watch != NULL;
    }
    return &f->backend;
}

struct char_backend *char_file_create(struct vm *vm, const char *path, struct error *err)
{
    struct char_fd *f;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);

    if (fd < 0) {
        int code = -errno;

        if (code == -ENXIO)
            error_set(err, code,
                      "cannot write %s: nobody reads this pipe yet, start the reader first", path);
        else
            error_set(err, code, "cannot write %s: %s; choose another file for --serial file:PATH",
                      path, strerror(-code));
        return NULL;
    }
    f = create(vm, -1, -1, err);
    if (!f) {
        close(fd);
        return NULL;
    }
    f->in = -1;
    f->out = fd;
    f->out_owned = true;
    char_output_open(&f->output, fd);
    return &f->backend;
}
