/*
 * The virtio entropy device (virtio 1.2, section 5.4). Interface: virtio_rng.h.
 */
#include "dev/virtio/virtio_rng.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/virtio/virtio.h"

enum {
    QUEUE_SIZE = 64,
    CHAIN_BYTES = 4096, /* at once: a device may write less than there is room for */
};

struct virtio_rng {
    struct virtio_device virtio; /* first: dev_type's self */
};

static void fill(struct vm *vm, struct virtio_chain *chain)
{
    uint8_t bytes[CHAIN_BYTES];
    uint64_t count = MIN(sizeof bytes, chain->writable_bytes);

    vm_random_bytes(vm, bytes, count);
    virtio_chain_write(chain, 0, bytes, count);
    virtio_chain_done(chain, count);
}

static void serve(struct virtio_device *d, unsigned queue)
{
    struct virtio_queue *q = &d->queue[queue];
    struct virtio_chain chain;
    unsigned turn = 0;

    do {
        while (turn < QUEUE_SIZE && virtio_queue_take(q, &chain) > 0) {
            fill(d->vm, &chain);
            turn++;
        }
    } while (virtio_queue_listen(q) && turn < QUEUE_SIZE);
    if (turn == QUEUE_SIZE)
        virtio_ring(d, queue);
    if (turn)
        virtio_queue_interrupt(q);
}

static void rng_reset(void *self)
{
    virtio_reset(self);
}

static void rng_destroy(void *self)
{
    virtio_destroy(self);
    free(self);
}

static int rng_after_load(void *self, unsigned version)
{
    virtio_restored(self);
    return 0;
}

static const struct state_field rng_fields[] = {
    STATE_STRUCT(struct virtio_rng, virtio, &virtio_state),
    STATE_END,
};

static const struct state_table rng_state = {
    .name = "virtio-rng",
    .version = 1,
    .fields = rng_fields,
    .after_load = rng_after_load,
};

static const struct dev_type rng_dev = {
    .name = "virtio-rng",
    .reset = rng_reset,
    .destroy = rng_destroy,
    .state = &rng_state,
};

static const struct virtio_type rng_type = {
    .name = "virtio-rng",
    .id = VIRTIO_ID_RNG,
    .class_code = 0x00FF00,
    .serve = serve,
};

int virtio_rng_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                      struct error *err)
{
    const struct virtio_rng_config *c = config;
    const struct virtio_config virtio = {
        .type = &rng_type, .name = c->name, .queues = 1, .queue_size = QUEUE_SIZE};
    struct virtio_rng *r = calloc(1, sizeof *r);
    int ret;

    if (!r)
        return error_set(err, -ENOMEM, "out of memory for a virtio entropy device");
    ret = virtio_init(&r->virtio, vm, bus, devfn, &virtio, err);
    if (ret) {
        free(r);
        return ret;
    }
    vm_add_device(vm, &rng_dev, r->virtio.name, r);
    return 0;
}
