/*
 * Character back ends: where the bytes of a serial port come from and go.
 *
 * The front end (a UART, a debug port) calls write and never blocks: a back
 * end queues what the host cannot take at once and calls can_write_again.
 * Bytes from the host reach the front end through vm_input(), only as many as
 * it said it has room for.
 * Threading: all calls with the machine's lock held.
 */
#ifndef BACKEND_CHAR_H
#define BACKEND_CHAR_H

#include "base/base.h"
#include "base/error.h"

struct vm;
struct char_backend;

/* What a front end gives a back end; set once with char_attach. */
struct char_frontend {
    const char *name; /* instance name of the device, for vm_input */
    /* Room for that many bytes now; 0: wait for char_resume_input. */
    size_t (*room)(void *ctx);
    void (*receive)(void *ctx, const uint8_t *data, size_t bytes);
    void *ctx;
    /* A break condition on the line (data is NULL); may be NULL: ignored. */
    void (*receive_break)(void *ctx, const uint8_t *data, size_t bytes);
};

struct char_ops {
    /* Takes all of it (queueing within a bound, then dropping the oldest). */
    void (*write)(struct char_backend *b, const uint8_t *data, size_t bytes);
    /* The front end has room again. */
    void (*resume_input)(struct char_backend *b);
    void (*destroy)(struct char_backend *b); /* flushes what it can, frees */
};

struct char_backend {
    const struct char_ops *ops;
    struct vm *vm;
    struct char_frontend front;
};

static inline void char_write(struct char_backend *b, const uint8_t *data, size_t bytes)
{
    if (b)
        b->ops->write(b, data, bytes);
}

static inline void char_resume_input(struct char_backend *b)
{
    if (b && b->ops->resume_input)
        b->ops->resume_input(b);
}

void char_attach(struct char_backend *b, const struct char_frontend *front);
void char_destroy(struct char_backend *b);

/* Back ends. Each starts reading when attached. */
struct char_backend *char_null_create(struct vm *vm, struct error *err);
/* Two host descriptors; in may be -1. escape: Ctrl-A x calls quit(ctx),
 * Ctrl-A Ctrl-A sends one Ctrl-A, Ctrl-A b sends a break; 0 to disable.
 * The caller owns the descriptors and the terminal's modes. */
struct char_backend *char_fd_create(struct vm *vm, int in, int out, bool escape,
                                    void (*quit)(void *ctx), void *ctx, struct error *err);
struct char_backend *char_file_create(struct vm *vm, const char *path, struct error *err);
/* A Unix stream socket that Vireo listens on; one client at a time; what is
 * written while nobody is connected is kept within a bound. */
struct char_backend *char_socket_create(struct vm *vm, const char *path, struct error *err);
/* Input from a script at virtual times, output to a sink: for tests. */
struct char_script_event {
    uint64_t at_ns;
    const char *bytes;
};
struct char_backend *char_script_create(struct vm *vm, const struct char_script_event *events,
                                        size_t count,
                                        void (*output)(void *ctx, const uint8_t *data, size_t n),
                                        void *ctx, struct error *err);

/* One more event of such a back end, in the order of time; the bytes stay the
 * caller's. -ENOMEM: it does not come. */
int char_script_add(struct char_backend *b, const struct char_script_event *event);
/* Bytes that wait for the front end to take them. */
size_t char_script_waiting(const struct char_backend *b);

#endif
