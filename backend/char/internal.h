/*
 * What the character back ends share: a bounded queue of bytes, input that
 * waits for the front end to have room, output that waits for the host.
 *
 * Threading: with the machine's lock held, like all of backend/char.
 */
#ifndef BACKEND_CHAR_INTERNAL_H
#define BACKEND_CHAR_INTERNAL_H

#include "backend/char/char.h"
#include "vm/loop.h"

/* ---- a queue of bytes that grows up to a bound ---- */

struct byte_queue {
    uint8_t *data;
    size_t first, used, capacity;
    size_t bound;
};

void byte_queue_init(struct byte_queue *q, size_t bound);
void byte_queue_free(struct byte_queue *q);
/* Appends what the bound allows; the number of bytes taken. */
size_t byte_queue_put(struct byte_queue *q, const uint8_t *data, size_t bytes);
/* Appends all of it and lets the oldest bytes go where the bound is passed. */
void byte_queue_put_newest(struct byte_queue *q, const uint8_t *data, size_t bytes);
/* The longest contiguous run at the front. */
const uint8_t *byte_queue_peek(const struct byte_queue *q, size_t *bytes);
void byte_queue_drop(struct byte_queue *q, size_t bytes);

/* ---- host to guest ---- */

struct char_input {
    struct char_backend *backend;
    struct byte_queue queue;
    size_t in_flight; /* given to vm_input, not yet at the front end */
    bool pumping;
};

void char_input_init(struct char_input *in, struct char_backend *backend, size_t bound);
void char_input_free(struct char_input *in);
/* Passes on as much of the queue as the front end has room for. */
void char_input_pump(struct char_input *in);

/* ---- guest to host ---- */

struct char_output {
    struct char_backend *backend;
    int fd;         /* -1: nobody there; bytes are kept within the bound */
    bool is_socket; /* send() instead of write() */
    bool may_block; /* poll first and write little */
    bool gone;      /* the reader has left for good: bytes are dropped */
    struct byte_queue queue;
    struct loop_fd *watch; /* set while the host takes no more */
    /* The descriptor died (EPIPE, EIO..); may be NULL. */
    void (*failed)(void *ctx);
    void *failed_ctx;
};

void char_output_init(struct char_output *out, struct char_backend *backend, size_t bound);
void char_output_free(struct char_output *out);
/* Chooses how to write to fd and sends what has been kept. */
void char_output_open(struct char_output *out, int fd);
/* Forgets fd (which stays the caller's). */
void char_output_close(struct char_output *out);
void char_output_write(struct char_output *out, const uint8_t *data, size_t bytes);
/* Before the end: waits a moment for a slow reader, never for a stuck one. */
void char_output_flush(struct char_output *out);

#endif
