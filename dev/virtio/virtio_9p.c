/*
 * The virtio transport of 9P (virtio 1.2, section 5.8). Interface: virtio_9p.h.
 *
 * A chain is a message to read and room for its reply. Messages go to the share
 * as spans of the guest's memory.
 *
 * Open files are the host's and no part of a saved machine: a loaded device that
 * was in use asks its driver for a reset.
 */
#include "dev/virtio/virtio_9p.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/virtio/virtio.h"

enum {
    FEATURE_TAG = 1 << 0,
    CONFIG_TAG_BYTES = 0,
    CONFIG_TAG = 2,
    CONFIG_BYTES = CONFIG_TAG + SHARE_TAG_BYTES,
    QUEUE_SIZE = 128,
    SLOTS = QUEUE_SIZE,
};

struct slot {
    struct virtio_9p *device;
    bool busy;
    struct share_request request;
    struct virtio_chain chain;
};
_Static_assert(sizeof(struct virtio_span) == sizeof(struct share_span) &&
                   offsetof(struct virtio_span, bytes) == offsetof(struct share_span, bytes),
               "spans are handed on as they are");

struct virtio_9p {
    struct virtio_device virtio; /* first: dev_type's self */
    struct share *share;
    bool was_used; /* saved: there was a session */
    unsigned busy;
    struct slot *slot[SLOTS]; /* made as they are needed */
};

static struct virtio_9p *device_of(struct virtio_device *d)
{
    return CONTAINER_OF(d, struct virtio_9p, virtio);
}

static struct slot *find_slot(struct virtio_9p *p)
{
    for (unsigned n = 0; n < SLOTS; n++) {
        if (!p->slot[n]) {
            p->slot[n] = malloc(sizeof *p->slot[n]);
            if (!p->slot[n])
                return NULL;
            p->slot[n]->device = p;
            p->slot[n]->busy = false;
            memset(&p->slot[n]->request, 0, sizeof p->slot[n]->request);
        }
        if (!p->slot[n]->busy)
            return p->slot[n];
    }
    return NULL;
}

static void done(struct share_request *r)
{
    struct slot *slot = r->ctx;
    struct virtio_9p *p = slot->device;
    struct virtio_queue *q = &p->virtio.queue[0];
    bool was_full = p->busy == SLOTS;

    slot->busy = false;
    p->busy--;
    virtio_chain_done(&slot->chain, r->reply_bytes);
    virtio_queue_interrupt(q);
    if (was_full)
        virtio_ring(&p->virtio, 0);
}

static void submit(struct slot *slot)
{
    struct virtio_chain *c = &slot->chain;

    slot->busy = true;
    slot->device->busy++;
    slot->request = (struct share_request){
        .message = (const struct share_span *)c->span,
        .message_spans = c->readable,
        .message_bytes = c->readable_bytes,
        .reply = (const struct share_span *)c->span + c->readable,
        .reply_spans = c->spans - c->readable,
        .reply_room = c->writable_bytes,
        .done = done,
        .ctx = slot,
    };
    share_submit(slot->device->share, &slot->request);
}

static void serve(struct virtio_device *d, unsigned queue)
{
    struct virtio_9p *p = device_of(d);
    struct virtio_queue *q = &d->queue[queue];
    struct slot *slot;
    unsigned turn = 0;

    do {
        while (turn < SLOTS && (slot = find_slot(p)) &&
               virtio_queue_take(q, &slot->chain) > 0) {
            submit(slot);
            turn++;
        }
        /* All busy: done() looks again. */
    } while (virtio_queue_listen(q) && slot && turn < SLOTS);
    if (turn == SLOTS)
        virtio_ring(d, queue);
}

static void config_read(struct virtio_device *d, uint8_t *config)
{
    const char *tag = share_tag(device_of(d)->share);

    le16_put(config + CONFIG_TAG_BYTES, (uint16_t)strlen(tag));
    memcpy(config + CONFIG_TAG, tag, strlen(tag));
}

/* ---- life ---- */

static void withdraw_all(struct virtio_9p *p)
{
    for (unsigned n = 0; n < SLOTS; n++) {
        struct slot *slot = p->slot[n];

        if (!slot || !slot->busy)
            continue;
        share_withdraw(p->share, &slot->request);
        virtio_chain_forget(&slot->chain);
        slot->busy = false;
    }
    p->busy = 0;
}

static void stop(struct virtio_device *d)
{
    struct virtio_9p *p = device_of(d);

    withdraw_all(p);
    share_forget(p->share);
    p->was_used = false;
}

static void p9_reset(void *self)
{
    virtio_reset(self);
}

static void p9_destroy(void *self)
{
    struct virtio_9p *p = self;

    withdraw_all(p); /* the share is there, or had ended all of them */
    for (unsigned n = 0; n < SLOTS; n++)
        free(p->slot[n]);
    virtio_destroy(&p->virtio);
    free(p);
}

/* ---- state ---- */

static void p9_before_save(void *self)
{
    struct virtio_9p *p = self;

    p->was_used = p->was_used || share_is_used(p->share);
}

static int p9_after_load(void *self, unsigned version)
{
    struct virtio_9p *p = self;

    withdraw_all(p);
    share_forget(p->share);
    virtio_restored(&p->virtio);
    if (p->was_used)
        virtio_break(&p->virtio, "what was open in a shared folder is not in a saved machine");
    return 0;
}

static const struct state_field p9_fields[] = {
    STATE_STRUCT(struct virtio_9p, virtio, &virtio_state),
    STATE_INT(struct virtio_9p, was_used),
    STATE_END,
};

static const struct state_table p9_state = {
    .name = "virtio-9p",
    .version = 1,
    .fields = p9_fields,
    .before_save = p9_before_save,
    .after_load = p9_after_load,
};

static const struct dev_type p9_dev = {
    .name = "virtio-9p",
    .reset = p9_reset,
    .destroy = p9_destroy,
    .state = &p9_state,
};

static const struct virtio_type p9_type = {
    .name = "virtio-9p",
    .id = VIRTIO_ID_9P,
    .class_code = 0x018000,
    .serve = serve,
    .reset = stop,
    .config_read = config_read,
};

int virtio_9p_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                     struct error *err)
{
    const struct virtio_9p_config *c = config;
    const struct virtio_config virtio = {
        .type = &p9_type,
        .name = c->name,
        .features = FEATURE_TAG,
        .queues = 1,
        .queue_size = QUEUE_SIZE,
        .config_bytes = CONFIG_BYTES,
    };
    struct virtio_9p *p = calloc(1, sizeof *p);
    int ret;

    if (!p)
        return error_set(err, -ENOMEM, "out of memory for a shared folder");
    ret = virtio_init(&p->virtio, vm, bus, devfn, &virtio, err);
    if (ret) {
        free(p);
        return ret;
    }
    p->share = c->share;
    vm_add_device(vm, &p9_dev, p->virtio.name, p);
    return 0;
}
