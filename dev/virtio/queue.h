/*
 * Split virtqueues (virtio 1.2, section 2.7): what a driver has put into a ring,
 * as spans of host memory.
 *
 *     while (virtio_queue_take(q, &chain) > 0) {
 *         virtio_chain_read(&chain, 0, &header, sizeof header);
 *         ...
 *         virtio_chain_write(&chain, 0, reply, bytes);
 *         virtio_chain_done(&chain, bytes);
 *     }
 *     virtio_queue_interrupt(q);
 *
 * Rings are hostile. Every table is read once and checked; what a chain
 * describes is plain memory (RAM, or ROM for what is only read) or the device
 * needs a reset: loops, wild addresses, buffers over devices, lengths that wrap,
 * descriptors in the wrong order. Then virtio_queue_take and virtio_chain_load
 * say so with a negative errno, once, and every queue of the device is empty
 * until the driver resets it.
 *
 * Threading: with the machine's lock. The spans of a chain stay memory as long as
 * the machine lives, so that threads may read and write them without it; whose
 * they are ends with virtio_chain_done, or with the device's reset.
 */
#ifndef DEV_VIRTIO_QUEUE_H
#define DEV_VIRTIO_QUEUE_H

#include "vm/memory.h"
#include "vm/state.h"

#define VIRTIO_QUEUE_SIZE 256 /* what a queue offers unless its device says otherwise */
#define VIRTIO_QUEUE_SIZE_MAX 1024
/* Descriptors of one chain, those in an indirect table included. The standard
 * says as many as the queue has; drivers with small queues give more. */
#define VIRTIO_CHAIN_MAX 512
#define VIRTIO_SPANS 544 /* a buffer that crosses ranges of memory is several */

struct virtio_device;

/* Laid out as struct disk_span and the host's struct iovec. */
struct virtio_span {
    void *data;
    size_t bytes;
};

/* Where in guest memory a span is: who caches code of it is told. */
struct virtio_home {
    struct ram_block *block;
    uint64_t offset;
};

struct virtio_queue {
    struct virtio_device *device;
    unsigned number;
    uint16_t size_max;

    /* ---- saved ---- */
    uint16_t size, vector;
    bool enabled;
    uint64_t descriptors, driver, used; /* guest-physical: descriptor table and the two rings */
    uint16_t next_avail, next_used;
    uint16_t signalled; /* next_used when the driver was last told .. */
    bool has_signalled; /* .. or would have been */

    /* Where the three are, while no region has changed since. */
    uint64_t mapped_at;
    uint8_t *descriptor_table, *driver_ring, *used_ring;
    struct virtio_home used_home;
};

struct virtio_chain {
    struct virtio_queue *queue;
    uint16_t head;
    /* span[0 .. readable): for the device to read; [readable .. spans): to write */
    unsigned readable, spans;
    uint64_t readable_bytes, writable_bytes;
    struct virtio_span span[VIRTIO_SPANS];
    struct virtio_home home[VIRTIO_SPANS];
};

extern const struct state_table virtio_queue_state;

/* ---- taking ---- */

/* The head of the next chain: 1; 0: there is none; negative: see above. */
int virtio_queue_next(struct virtio_queue *q, uint16_t *head);
/* What is behind a head. 0, or negative. */
int virtio_chain_load(struct virtio_queue *q, uint16_t head, struct virtio_chain *chain);
/* Both: 1, 0 or negative. */
int virtio_queue_take(struct virtio_queue *q, struct virtio_chain *chain);
/* The last `count` that were taken are as if they had not been. */
void virtio_queue_untake(struct virtio_queue *q, unsigned count);
/* Chains that wait to be taken; 0 where the ring is bad. */
unsigned virtio_queue_waiting(struct virtio_queue *q);

/* The driver need not ring for what it adds now. */
void virtio_queue_quiet(struct virtio_queue *q);
/* It shall, from here on. True: something has been added meanwhile. */
bool virtio_queue_listen(struct virtio_queue *q);

/* ---- what is in a chain ---- */

/* Copies from the readable, into the writable part; returns how many bytes there
 * were room for. */
uint64_t virtio_chain_read(const struct virtio_chain *chain, uint64_t offset, void *buf,
                           uint64_t bytes);
uint64_t virtio_chain_write(struct virtio_chain *chain, uint64_t offset, const void *buf,
                            uint64_t bytes);
/* The spans of a part of the readable or the writable bytes; returns how many
 * (0 also where it does not fit into room). */
unsigned virtio_chain_slice(const struct virtio_chain *chain, bool writable, uint64_t offset,
                            uint64_t bytes, struct virtio_span *out, unsigned room);

/* ---- giving back ---- */

/* The chain is used, `written` of its writable bytes have been. The driver sees
 * it; it is told by virtio_queue_interrupt. */
void virtio_chain_done(struct virtio_chain *chain, uint64_t written);
/* The same in two steps, for chains that become visible together: put the first
 * with ahead 0, the second with 1 ..., and then publish so many. */
void virtio_chain_put(struct virtio_chain *chain, unsigned ahead, uint64_t written);
void virtio_queue_publish(struct virtio_queue *q, unsigned count);
/* A chain that will not be given back, after the device's reset: something may
 * have been written to it. */
void virtio_chain_forget(struct virtio_chain *chain);
/* For a head whose chain was not loaded. */
void virtio_queue_return(struct virtio_queue *q, uint16_t head);
/* Interrupts, if the driver wants to be told of what was given back since. */
void virtio_queue_interrupt(struct virtio_queue *q);

#endif
