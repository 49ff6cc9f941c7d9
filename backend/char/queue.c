/*
 * A bounded queue of bytes: a ring that grows by doubling up to its bound.
 *
 * Running out of memory looks like a full queue: bytes of a serial line may
 * get lost, the machine goes on.
 * Threading: with the machine's lock held.
 */
#include <stdlib.h>

#include "backend/char/internal.h"

void byte_queue_init(struct byte_queue *q, size_t bound)
{
    memset(q, 0, sizeof *q);
    q->bound = bound;
}

void byte_queue_free(struct byte_queue *q)
{
    free(q->data);
    byte_queue_init(q, q->bound);
}

static void grow(struct byte_queue *q, size_t wanted)
{
    size_t capacity = q->capacity ? q->capacity : 256;
    uint8_t *data;
    size_t head;

    while (capacity < wanted)
        capacity *= 2;
    capacity = MIN(capacity, q->bound);
    if (capacity <= q->capacity)
        return;
    data = malloc(capacity);
    if (!data)
        return;
    head = MIN(q->used, q->capacity - q->first);
    if (q->used) {
        memcpy(data, q->data + q->first, head);
        memcpy(data + head, q->data, q->used - head);
    }
    free(q->data);
    q->data = data;
    q->capacity = capacity;
    q->first = 0;
}

size_t byte_queue_put(struct byte_queue *q, const uint8_t *data, size_t bytes)
{
    size_t end, run;

    bytes = MIN(bytes, q->bound - q->used);
    if (q->used + bytes > q->capacity)
        grow(q, q->used + bytes);
    bytes = MIN(bytes, q->capacity - q->used);
    if (bytes == 0)
        return 0;
    end = (q->first + q->used) % q->capacity;
    run = MIN(bytes, q->capacity - end);
    memcpy(q->data + end, data, run);
    memcpy(q->data, data + run, bytes - run);
    q->used += bytes;
    return bytes;
}

void byte_queue_put_newest(struct byte_queue *q, const uint8_t *data, size_t bytes)
{
    if (bytes > q->bound) {
        data += bytes - q->bound;
        bytes = q->bound;
    }
    if (q->used + bytes > q->bound)
        byte_queue_drop(q, q->used + bytes - q->bound);
    byte_queue_put(q, data, bytes);
}

const uint8_t *byte_queue_peek(const struct byte_queue *q, size_t *bytes)
{
    *bytes = MIN(q->used, q->capacity - q->first);
    return *bytes ? q->data + q->first : NULL;
}

void byte_queue_drop(struct byte_queue *q, size_t bytes)
{
    bytes = MIN(bytes, q->used);
    if (bytes == 0)
        return;
    q->first = (q->first + bytes) % q->capacity;
    q->used -= bytes;
}
