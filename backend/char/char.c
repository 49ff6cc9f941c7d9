/*
 * Character back ends: what is common to them, and the null back end.
 *
 * Interface: backend/char/char.h; for the back ends themselves internal.h.
 * Threading: with the machine's lock held.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/char/internal.h"
#include "vm/vm.h"

enum {
    /* What a terminal takes without blocking once poll has called it writable
     * is not promised; this little has been observed never to. */
    CAUTIOUS_BYTES = 64,
    FLUSH_PATIENCE_MS = 200,
};

void char_attach(struct char_backend *b, const struct char_frontend *front)
{
    if (!b)
        return;
    b->front = *front;
    char_resume_input(b);
}

void char_destroy(struct char_backend *b)
{
    if (b)
        b->ops->destroy(b);
}

/* ---- input ---- */

void char_input_init(struct char_input *in, struct char_backend *backend, size_t bound)
{
    in->backend = backend;
    in->in_flight = 0;
    in->pumping = false;
    byte_queue_init(&in->queue, bound);
}

void char_input_free(struct char_input *in)
{
    byte_queue_free(&in->queue);
}

static void input_deliver(void *ctx, const uint8_t *data, size_t bytes)
{
    struct char_input *in = ctx;

    in->in_flight -= MIN(bytes, in->in_flight);
    in->backend->front.receive(in->backend->front.ctx, data, bytes);
}

void char_input_pump(struct char_input *in)
{
    struct char_backend *b = in->backend;

    /* receive() may call resume_input, which comes back here. */
    if (in->pumping || !b->front.receive)
        return;
    in->pumping = true;
    while (in->queue.used) {
        size_t room = b->front.room ? b->front.room(b->front.ctx) : 0;
        size_t bytes;
        const uint8_t *data = byte_queue_peek(&in->queue, &bytes);
        uint8_t copy[256];

        /* A deterministic machine delivers later: what is under way takes
         * the room that the front end still reports. */
        if (room <= in->in_flight)
            break;
        bytes = MIN(MIN(bytes, room - in->in_flight), sizeof copy);
        memcpy(copy, data, bytes);
        byte_queue_drop(&in->queue, bytes);
        in->in_flight += bytes;
        vm_input(b->vm, INPUT_SERIAL, b->front.name, input_deliver, in, copy, bytes);
    }
    in->pumping = false;
}

/* ---- output ---- */

void char_output_init(struct char_output *out, struct char_backend *backend, size_t bound)
{
    memset(out, 0, sizeof *out);
    out->backend = backend;
    out->fd = -1;
    byte_queue_init(&out->queue, bound);
}

void char_output_free(struct char_output *out)
{
    char_output_close(out);
    byte_queue_free(&out->queue);
}

static ssize_t write_once(struct char_output *out, const uint8_t *data, size_t bytes)
{
    if (out->is_socket)
        return send(out->fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (out->may_block) {
        struct pollfd p = {.fd = out->fd, .events = POLLOUT};

        if (poll(&p, 1, 0) <= 0) {
            errno = EAGAIN;
            return -1;
        }
        bytes = MIN(bytes, (size_t)CAUTIOUS_BYTES);
    }
    return write(out->fd, data, bytes);
}

/* Bytes taken by the host now; the descriptor may have died. */
static size_t write_now(struct char_output *out, const uint8_t *data, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t n = write_once(out, data + done, bytes - done);

        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            out->gone = true;
            vlog(out->backend->vm->log, BACKEND, WARN, "%s: output is lost: %s",
                 out->backend->front.name ? out->backend->front.name : "serial", strerror(errno));
            if (out->failed)
                out->failed(out->failed_ctx);
        }
        break;
    }
    return done;
}

static void drain(struct char_output *out)
{
    while (out->queue.used && out->fd >= 0 && !out->gone) {
        size_t bytes;
        const uint8_t *data = byte_queue_peek(&out->queue, &bytes);
        size_t done = write_now(out, data, bytes);

        byte_queue_drop(&out->queue, done);
        if (done < bytes)
            break;
    }
}

static void output_ready(void *ctx, int events);

/* Watches for writability exactly while bytes wait. */
static void watch_if_needed(struct char_output *out)
{
    bool needed = out->fd >= 0 && !out->gone && out->queue.used;

    if (needed && !out->watch) {
        /* Without a watch (a regular file on a full disk, say) the next write
         * tries again. */
        out->watch = loop_add_fd(out->backend->vm, out->fd, LOOP_WRITABLE, output_ready, out, NULL);
    } else if (!needed && out->watch) {
        loop_remove_fd(out->watch);
        out->watch = NULL;
    }
}

static void output_ready(void *ctx, int events)
{
    struct char_output *out = ctx;

    drain(out);
    watch_if_needed(out);
}

void char_output_open(struct char_output *out, int fd)
{
    struct stat st;
    bool known = fstat(fd, &st) == 0;
    int flags = fcntl(fd, F_GETFL);

    char_output_close(out);
    out->fd = fd;
    out->gone = false;
    out->is_socket = known && S_ISSOCK(st.st_mode);
    out->may_block = !(known && S_ISREG(st.st_mode)) && !(flags >= 0 && (flags & O_NONBLOCK));
    drain(out);
    watch_if_needed(out);
}

void char_output_close(struct char_output *out)
{
    if (out->watch)
        loop_remove_fd(out->watch);
    out->watch = NULL;
    out->fd = -1;
}

void char_output_write(struct char_output *out, const uint8_t *data, size_t bytes)
{
    size_t done = 0;

    if (out->gone)
        return;
    if (out->fd >= 0) {
        drain(out);
        if (!out->queue.used && !out->gone)
            done = write_now(out, data, bytes);
    }
    if (done < bytes && !out->gone)
        byte_queue_put_newest(&out->queue, data + done, bytes - done);
    watch_if_needed(out);
}

void char_output_flush(struct char_output *out)
{
    while (out->fd >= 0 && !out->gone && out->queue.used) {
        struct pollfd p = {.fd = out->fd, .events = POLLOUT};

        if (poll(&p, 1, FLUSH_PATIENCE_MS) <= 0)
            break;
        drain(out);
    }
}

/* ---- null ---- */

static void null_write(struct char_backend *b, const uint8_t *data, size_t bytes)
{
}

static void null_destroy(struct char_backend *b)
{
    free(b);
}

static const struct char_ops null_ops = {
    .write = null_write,
    .destroy = null_destroy,
};

struct char_backend *char_null_create(struct vm *vm, struct error *err)
{
    struct char_backend *b = calloc(1, sizeof *b);

    if (!b) {
        error_set(err, -ENOMEM, "out of memory for a serial line: use less --memory");
        return NULL;
    }
    b->ops = &null_ops;
    b->vm = vm;
    return b;
}
