/*
 * The virtio console (virtio 1.2, section 5.3). Interface: virtio_console.h.
 *
 * Bytes from outside wait in the back end until the driver has given buffers for
 * them. Bytes from the guest go to the back end, which never blocks.
 */
#include "dev/virtio/virtio_console.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/virtio/virtio.h"

enum {
    QUEUE_RECEIVE = 0,
    QUEUE_TRANSMIT = 1,
    QUEUES = 2,
    QUEUE_SIZE = 128,
    FEATURE_EMERGENCY = 1 << 2,
    CONFIG_EMERGENCY = 8, /* behind the size of the screen, which nobody knows */
    CONFIG_BYTES = 12,
    TRANSMIT_BYTES = 1 << 20, /* of one chain; nobody writes more at once in earnest */
    EMPTY_CHAINS = 16,
};

struct virtio_console {
    struct virtio_device virtio; /* first: dev_type's self */
    struct char_backend *chars;
};

static struct virtio_console *console_of(struct virtio_device *d)
{
    return CONTAINER_OF(d, struct virtio_console, virtio);
}

/* ---- to the guest ---- */

/* Room in the next buffer. What has none is given back, a few at a time. */
static size_t room(void *ctx)
{
    struct virtio_console *c = ctx;
    struct virtio_queue *q = &c->virtio.queue[QUEUE_RECEIVE];
    struct virtio_chain chain;

    for (unsigned n = 0; n < EMPTY_CHAINS && virtio_queue_take(q, &chain) > 0; n++) {
        if (chain.writable_bytes) {
            virtio_queue_untake(q, 1);
            return (size_t)chain.writable_bytes;
        }
        virtio_chain_done(&chain, 0);
        virtio_queue_interrupt(q);
    }
    return 0;
}

static void receive(void *ctx, const uint8_t *data, size_t bytes)
{
    struct virtio_console *c = ctx;
    struct virtio_queue *q = &c->virtio.queue[QUEUE_RECEIVE];
    struct virtio_chain chain;

    while (bytes && virtio_queue_take(q, &chain) > 0) {
        uint64_t part = virtio_chain_write(&chain, 0, data, bytes);

        virtio_chain_done(&chain, part);
        data += part;
        bytes -= part;
    }
    virtio_queue_interrupt(q);
}

/* ---- from the guest ---- */

static void transmit(struct virtio_console *c, struct virtio_chain *chain)
{
    uint64_t left = TRANSMIT_BYTES;

    for (unsigned n = 0; n < chain->readable && left; n++) {
        uint8_t copy[4096];
        uint64_t bytes = MIN(chain->span[n].bytes, left), part;

        left -= bytes;
        /* The back end is not shown memory that changes under its eyes. */
        for (uint64_t done = 0; done < bytes; done += part) {
            part = MIN(bytes - done, sizeof copy);
            memcpy(copy, (const uint8_t *)chain->span[n].data + done, part);
            char_write(c->chars, copy, part);
        }
    }
    virtio_chain_done(chain, 0);
}

static void serve(struct virtio_device *d, unsigned queue)
{
    struct virtio_console *c = console_of(d);
    struct virtio_queue *q = &d->queue[queue];
    struct virtio_chain chain;
    unsigned turn = 0;

    if (queue == QUEUE_RECEIVE) {
        virtio_queue_listen(q);
        char_resume_input(c->chars);
        return;
    }
    do {
        while (turn < QUEUE_SIZE && virtio_queue_take(q, &chain) > 0) {
            transmit(c, &chain);
            turn++;
        }
    } while (virtio_queue_listen(q) && turn < QUEUE_SIZE);
    if (turn == QUEUE_SIZE)
        virtio_ring(d, queue);
    if (turn)
        virtio_queue_interrupt(q);
}

/* 5.3.4: a character without a queue, for a kernel in distress. */
static void config_write(struct virtio_device *d, unsigned offset, unsigned size, uint32_t value)
{
    uint8_t byte = (uint8_t)value;

    if (offset == CONFIG_EMERGENCY)
        char_write(console_of(d)->chars, &byte, 1);
}

/* ---- life ---- */

static void console_reset(void *self)
{
    virtio_reset(self);
}

static void console_destroy(void *self)
{
    virtio_destroy(self);
    free(self);
}

static int console_after_load(void *self, unsigned version)
{
    virtio_restored(self);
    return 0;
}

static const struct state_field console_fields[] = {
    STATE_STRUCT(struct virtio_console, virtio, &virtio_state),
    STATE_END,
};

static const struct state_table console_state = {
    .name = "virtio-console",
    .version = 1,
    .fields = console_fields,
    .after_load = console_after_load,
};

static const struct dev_type console_dev = {
    .name = "virtio-console",
    .reset = console_reset,
    .destroy = console_destroy,
    .state = &console_state,
};

static const struct virtio_type console_type = {
    .name = "virtio-console",
    .id = VIRTIO_ID_CONSOLE,
    .class_code = 0x078000,
    .serve = serve,
    .config_write = config_write,
};

int virtio_console_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                          struct error *err)
{
    const struct virtio_console_config *c = config;
    const struct virtio_config virtio = {
        .type = &console_type,
        .name = c->name,
        .features = FEATURE_EMERGENCY,
        .queues = QUEUES,
        .queue_size = QUEUE_SIZE,
        .config_bytes = CONFIG_BYTES,
    };
    struct virtio_console *k = calloc(1, sizeof *k);
    int ret;

    if (!k)
        return error_set(err, -ENOMEM, "out of memory for a virtio console");
    ret = virtio_init(&k->virtio, vm, bus, devfn, &virtio, err);
    if (ret) {
        free(k);
        return ret;
    }
    k->chars = c->chars;
    if (k->chars) {
        const struct char_frontend front = {
            .name = k->virtio.name, .room = room, .receive = receive, .ctx = k};

        char_attach(k->chars, &front);
    }
    vm_add_device(vm, &console_dev, k->virtio.name, k);
    return 0;
}
