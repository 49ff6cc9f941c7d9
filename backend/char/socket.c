/*
 * A character back end on a Unix stream socket that Vireo listens on.
 *
 * One client at a time: while one is connected the next waits in the backlog.
 * What the guest writes while nobody is connected is kept within a bound, so
 * that a client which comes late still sees the beginning, or the latest part
 * of a long one.
 * Threading: with the machine's lock held.
 */
#define _GNU_SOURCE /* accept4 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/char/internal.h"
#include "vm/vm.h"

enum {
    INPUT_BOUND = 4 << 10,
    OUTPUT_BOUND = 256 << 10,
    BACKLOG = 4,
};

struct char_socket {
    struct char_backend backend;
    struct char_input input;
    struct char_output output;
    int listener, client; /* -1: none */
    struct loop_fd *listener_watch, *client_watch;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    dev_t path_dev; /* of the file that bind made: removed only if it is still ours */
    ino_t path_ino;
};

static void socket_write(struct char_backend *b, const uint8_t *data, size_t bytes)
{
    struct char_socket *s = CONTAINER_OF(b, struct char_socket, backend);

    char_output_write(&s->output, data, bytes);
}

static void client_leave(struct char_socket *s)
{
    if (s->client < 0)
        return;
    if (s->client_watch)
        loop_remove_fd(s->client_watch);
    s->client_watch = NULL;
    char_output_close(&s->output);
    s->output.gone = false;
    close(s->client);
    s->client = -1;
    if (s->listener_watch)
        loop_set_events(s->listener_watch, LOOP_READABLE);
}

static void client_watch_input(struct char_socket *s)
{
    bool space = s->input.queue.used < s->input.queue.bound;

    if (s->client_watch)
        loop_set_events(s->client_watch, space ? LOOP_READABLE : 0);
}

static void client_ready(void *ctx, int events)
{
    struct char_socket *s = ctx;
    uint8_t buffer[1024];

    while (s->client >= 0) {
        size_t space = s->input.queue.bound - s->input.queue.used;
        ssize_t n;

        if (space == 0)
            break;
        n = recv(s->client, buffer, MIN(space, sizeof buffer), MSG_DONTWAIT);
        if (n > 0) {
            byte_queue_put(&s->input.queue, buffer, (size_t)n);
            char_input_pump(&s->input);
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        } else {
            client_leave(s);
            return;
        }
    }
    client_watch_input(s);
}

static void listener_ready(void *ctx, int events)
{
    struct char_socket *s = ctx;
    int fd;

    if (s->client >= 0)
        return;
    fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return; /* it went away again, or we are out of descriptors: retried */
    s->client = fd;
    s->client_watch = loop_add_fd(s->backend.vm, fd, LOOP_READABLE, client_ready, s, NULL);
    if (!s->client_watch) {
        close(fd);
        s->client = -1;
        return;
    }
    loop_set_events(s->listener_watch, 0);
    char_output_open(&s->output, fd);
}

static void socket_resume_input(struct char_backend *b)
{
    struct char_socket *s = CONTAINER_OF(b, struct char_socket, backend);

    char_input_pump(&s->input);
    client_watch_input(s);
}

static void socket_destroy(struct char_backend *b)
{
    struct char_socket *s = CONTAINER_OF(b, struct char_socket, backend);
    struct stat st;

    char_output_flush(&s->output);
    if (s->listener_watch)
        loop_remove_fd(s->listener_watch);
    s->listener_watch = NULL;
    client_leave(s);
    char_output_free(&s->output);
    char_input_free(&s->input);
    if (s->listener >= 0)
        close(s->listener);
    if (s->path[0] && lstat(s->path, &st) == 0 && st.st_dev == s->path_dev &&
        st.st_ino == s->path_ino)
        unlink(s->path);
    free(s);
}

static const struct char_ops socket_ops = {
    .write = socket_write,
    .resume_input = socket_resume_input,
    .destroy = socket_destroy,
};

/* A socket file that nobody listens on any more is removed; anything else
 * that lies at the path is kept. */
static void remove_stale(const struct sockaddr_un *address)
{
    struct stat st;
    int probe;

    if (lstat(address->sun_path, &st) || !S_ISSOCK(st.st_mode))
        return;
    probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return;
    if (connect(probe, (const struct sockaddr *)address, sizeof *address) < 0 &&
        errno == ECONNREFUSED)
        unlink(address->sun_path);
    close(probe);
}

/* The listener, bound; negative errno. */
static int listen_at(struct char_socket *s, const struct sockaddr_un *address, struct error *err)
{
    const char *path = address->sun_path;
    struct stat st;
    int code;

    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener < 0) {
        code = -errno;
        return error_set(err, code, "cannot make a socket: %s; raise the limit on open files",
                         strerror(-code));
    }
    remove_stale(address);
    if (bind(s->listener, (const struct sockaddr *)address, sizeof *address) < 0) {
        code = -errno;
        if (code == -EADDRINUSE)
            return error_set(err, code, "%s exists: another machine uses it, choose another path",
                             path);
        return error_set(err, code, "cannot listen at %s: %s; choose another path", path,
                         strerror(-code));
    }
    if (lstat(path, &st) == 0) {
        s->path_dev = st.st_dev;
        s->path_ino = st.st_ino;
        memcpy(s->path, path, sizeof s->path);
    }
    if (listen(s->listener, BACKLOG) < 0) {
        code = -errno;
        return error_set(err, code, "cannot listen at %s: %s; choose another path", path,
                         strerror(-code));
    }
    s->listener_watch =
        loop_add_fd(s->backend.vm, s->listener, LOOP_READABLE, listener_ready, s, err);
    return s->listener_watch ? 0 : -ENOMEM;
}

struct char_backend *char_socket_create(struct vm *vm, const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct char_socket *s;

    if (!*path || strlen(path) >= sizeof address.sun_path) {
        error_set(err, -ENAMETOOLONG, "%s is %s for a socket: use a path of 1 to %zu bytes",
                  *path ? path : "an empty path", *path ? "too long" : "too short",
                  sizeof address.sun_path - 1);
        return NULL;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    s = calloc(1, sizeof *s);
    if (!s) {
        error_set(err, -ENOMEM, "out of memory for a serial line: use less --memory");
        return NULL;
    }
    s->backend.ops = &socket_ops;
    s->backend.vm = vm;
    s->listener = s->client = -1;
    char_input_init(&s->input, &s->backend, INPUT_BOUND);
    char_output_init(&s->output, &s->backend, OUTPUT_BOUND);
    if (listen_at(s, &address, err) < 0) {
        socket_destroy(&s->backend);
        return NULL;
    }
    return &s->backend;
}
