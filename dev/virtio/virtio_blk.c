/*
 * The virtio block device (virtio 1.2, section 5.2). Interface: virtio_blk.h.
 *
 * A request is a chain: a header to read, data, a status byte to write, cut
 * anywhere. What moves data goes to the disk with the spans of the guest's memory
 * as they are; as many are under way as the queues hold.
 *
 * In deterministic machines data moves when the request's virtual time has come,
 * and the chain is read again then, so that a saved machine needs no more of a
 * request than its head and its deadline.
 */
#include "dev/virtio/virtio_blk.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/virtio/virtio.h"

enum feature_bits { /* 5.2.3 */
    FEATURE_SEG_MAX = 1 << 2,
    FEATURE_READONLY = 1 << 5,
    FEATURE_BLOCK_SIZE = 1 << 6,
    FEATURE_FLUSH = 1 << 9,
    FEATURE_TOPOLOGY = 1 << 10,
    FEATURE_CONFIG_WCE = 1 << 11,
    FEATURE_QUEUES = 1 << 12,
    FEATURE_DISCARD = 1 << 13,
    FEATURE_WRITE_ZEROES = 1 << 14,
};

enum config { /* struct virtio_blk_config, 5.2.4 */
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_BLOCK_SIZE = 20,
    CONFIG_PHYSICAL_EXPONENT = 24,
    CONFIG_MIN_IO = 26,
    CONFIG_OPTIMAL_IO = 28,
    CONFIG_WRITEBACK = 32,
    CONFIG_QUEUES = 34,
    CONFIG_DISCARD_SECTORS = 36,
    CONFIG_DISCARD_SEGMENTS = 40,
    CONFIG_DISCARD_ALIGNMENT = 44,
    CONFIG_ZEROES_SECTORS = 48,
    CONFIG_ZEROES_SEGMENTS = 52,
    CONFIG_ZEROES_MAY_UNMAP = 56,
    CONFIG_BYTES = 60,
};

enum request { /* 5.2.6 */
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13,
    HEADER_BYTES = 16,
    RANGE_BYTES = 16,
    RANGE_UNMAP = 1,
    STATUS_OK = 0,
    STATUS_IO_ERROR = 1,
    STATUS_UNSUPPORTED = 2,
    ID_BYTES = 20,
};

enum {
    SLOTS = VIRTIO_QUEUE_SIZE, /* of a queue */
    SEGMENTS = SLOTS - 2,      /* header and status take two */
    RANGE_SECTORS_MAX = 1 << 22, /* 2 GiB in one discard */
    PHYSICAL_EXPONENT = 3,     /* the host's blocks are 4 KiB */
};

enum verdict {
    TO_DISK,
    ANSWERED, /* slot->status is its answer */
    BROKEN,
};

/* Saved as these bytes: no pointers, no holes. */
struct blk_slot_state {
    uint64_t deadline_ns;
    uint32_t sequence; /* in which order they were submitted */
    uint16_t head;
    uint16_t busy;
};

struct blk_slot {
    struct virtio_blk *blk;
    struct blk_slot_state *state;
    struct virtio_queue *queue;
    bool is_parsed;
    enum verdict verdict;
    uint8_t status; /* of what never reached the disk */
    struct disk_request request;
    struct virtio_chain chain;
    struct virtio_span data[VIRTIO_SPANS];
};
_Static_assert(sizeof(struct virtio_span) == sizeof(struct disk_span) &&
                   offsetof(struct virtio_span, bytes) == offsetof(struct disk_span, bytes),
               "spans are handed on as they are");

struct virtio_blk {
    struct virtio_device virtio; /* first: dev_type's self */
    struct disk *disk;

    /* ---- saved, with the above ---- */
    uint8_t writeback;
    uint32_t sequence;
    struct blk_slot_state state[VIRTIO_BLK_QUEUES_MAX][SLOTS];

    unsigned busy[VIRTIO_BLK_QUEUES_MAX];
    struct blk_slot *slot[VIRTIO_BLK_QUEUES_MAX][SLOTS]; /* made as they are needed */
};

/* ---- what a request says ---- */

static enum verdict answer(struct blk_slot *slot, uint8_t status)
{
    slot->status = status;
    return ANSWERED;
}

static enum verdict parse_data(struct blk_slot *slot, bool to_guest, uint64_t sector)
{
    struct virtio_chain *c = &slot->chain;
    struct disk_request *r = &slot->request;
    uint64_t sectors = disk_bytes(slot->blk->disk) / DISK_SECTOR_BYTES;
    uint64_t bytes = to_guest ? c->writable_bytes - 1 : c->readable_bytes - HEADER_BYTES;

    if (bytes % DISK_SECTOR_BYTES || sector > sectors ||
        bytes / DISK_SECTOR_BYTES > sectors - sector)
        return answer(slot, STATUS_IO_ERROR);
    if (!to_guest && disk_is_readonly(slot->blk->disk))
        return answer(slot, STATUS_IO_ERROR);
    if (!bytes)
        return answer(slot, STATUS_OK);
    r->op = to_guest ? DISK_READ : DISK_WRITE;
    r->fua = !to_guest && !slot->blk->writeback;
    r->offset = sector * DISK_SECTOR_BYTES;
    r->bytes = bytes;
    r->spans = (const struct disk_span *)slot->data;
    r->span_count = virtio_chain_slice(c, to_guest, to_guest ? 0 : HEADER_BYTES, bytes, slot->data,
                                       ARRAY_SIZE(slot->data));
    return TO_DISK;
}

/* DISCARD and WRITE ZEROES: one range, as the configuration says. */
static enum verdict parse_range(struct blk_slot *slot, bool is_discard)
{
    struct virtio_blk *b = slot->blk;
    struct disk_request *r = &slot->request;
    uint64_t sectors = disk_bytes(b->disk) / DISK_SECTOR_BYTES, first;
    uint32_t count, flags;
    uint8_t range[RANGE_BYTES];

    if (!virtio_has(&b->virtio, is_discard ? FEATURE_DISCARD : FEATURE_WRITE_ZEROES) ||
        slot->chain.readable_bytes != HEADER_BYTES + RANGE_BYTES)
        return answer(slot, STATUS_UNSUPPORTED);
    virtio_chain_read(&slot->chain, HEADER_BYTES, range, sizeof range);
    first = le64_get(range);
    count = le32_get(range + 8);
    flags = le32_get(range + 12);
    if (flags & ~(is_discard ? 0u : (uint32_t)RANGE_UNMAP))
        return answer(slot, STATUS_UNSUPPORTED);
    if (count > RANGE_SECTORS_MAX || first > sectors || count > sectors - first ||
        disk_is_readonly(b->disk))
        return answer(slot, STATUS_IO_ERROR);
    if (!count)
        return answer(slot, STATUS_OK);
    r->op = is_discard ? DISK_DISCARD : DISK_WRITE_ZEROES;
    r->fua = !is_discard && !b->writeback;
    r->offset = first * DISK_SECTOR_BYTES;
    r->bytes = (uint64_t)count * DISK_SECTOR_BYTES;
    r->spans = NULL;
    r->span_count = 0;
    return TO_DISK;
}

static enum verdict get_id(struct blk_slot *slot)
{
    uint8_t id[ID_BYTES] = {0};
    const char *serial = disk_serial(slot->blk->disk);

    memcpy(id, serial, strnlen(serial, sizeof id));
    virtio_chain_write(&slot->chain, 0, id, MIN(sizeof id, slot->chain.writable_bytes - 1));
    return answer(slot, STATUS_OK);
}

static enum verdict parse(struct blk_slot *slot)
{
    struct virtio_chain *c = &slot->chain;
    struct disk_request *r = &slot->request;
    uint8_t header[HEADER_BYTES];

    if (virtio_chain_load(slot->queue, slot->state->head, c))
        return BROKEN;
    if (c->readable_bytes < HEADER_BYTES || !c->writable_bytes) {
        virtio_break(&slot->blk->virtio, "a request without header or status");
        return BROKEN;
    }
    virtio_chain_read(c, 0, header, sizeof header);
    switch (le32_get(header)) {
    case TYPE_IN:
        return parse_data(slot, true, le64_get(header + 8));
    case TYPE_OUT:
        return parse_data(slot, false, le64_get(header + 8));
    case TYPE_FLUSH:
        r->op = DISK_FLUSH;
        r->fua = false;
        r->offset = r->bytes = 0;
        r->spans = NULL;
        r->span_count = 0;
        return TO_DISK;
    case TYPE_GET_ID:
        return get_id(slot);
    case TYPE_DISCARD:
        return parse_range(slot, true);
    case TYPE_WRITE_ZEROES:
        return parse_range(slot, false);
    default:
        return answer(slot, STATUS_UNSUPPORTED);
    }
}

/* ---- slots ---- */

static void init_slot(struct blk_slot *slot);

static struct blk_slot *slot_at(struct virtio_blk *b, unsigned queue, unsigned n)
{
    struct blk_slot *slot = b->slot[queue][n];

    if (!slot) {
        slot = malloc(sizeof *slot); /* large, and most of it is never touched */
        if (!slot)
            return NULL;
        slot->blk = b;
        slot->state = &b->state[queue][n];
        slot->queue = &b->virtio.queue[queue];
        init_slot(slot);
        b->slot[queue][n] = slot;
    }
    return slot;
}

/* The first that is free (NULL: none, or no memory), so that it does not depend on what has been before. */
static struct blk_slot *find_slot(struct virtio_blk *b, unsigned queue)
{
    if (b->busy[queue] == SLOTS)
        return NULL;
    for (unsigned n = 0; n < SLOTS; n++)
        if (!b->state[queue][n].busy)
            return slot_at(b, queue, n);
    return NULL;
}

static void free_slot(struct blk_slot *slot)
{
    virtio_chain_forget(&slot->chain);
    memset(slot->state, 0, sizeof *slot->state);
    slot->blk->busy[slot->queue->number]--;
}

static void complete(struct blk_slot *slot, uint8_t status)
{
    struct virtio_chain *c = &slot->chain;
    uint64_t written = status == STATUS_OK || c->writable_bytes == 1 ? c->writable_bytes : 0;

    virtio_chain_write(c, c->writable_bytes - 1, &status, 1);
    virtio_chain_done(c, written);
    free_slot(slot);
}

/* ---- to the disk and back ---- */

/* Deterministic machines come here when data moves, others within disk_submit. */
static int prepare(struct disk_request *r)
{
    struct blk_slot *slot = r->ctx;

    if (!slot->is_parsed)
        slot->verdict = parse(slot);
    /* What has become another request meanwhile does not reach the disk. */
    return slot->verdict == TO_DISK ? 0 : -ECANCELED;
}

static void done(struct disk_request *r)
{
    struct blk_slot *slot = r->ctx;
    struct virtio_blk *b = slot->blk;
    struct virtio_queue *q = slot->queue;
    bool was_full = b->busy[q->number] == SLOTS;

    if (slot->verdict == BROKEN)
        free_slot(slot);
    else if (slot->verdict == ANSWERED)
        complete(slot, slot->status);
    else
        complete(slot, r->result ? STATUS_IO_ERROR : STATUS_OK);
    virtio_queue_interrupt(q);
    if (was_full)
        virtio_ring(&b->virtio, q->number);
}

static void init_slot(struct blk_slot *slot)
{
    slot->chain.queue = slot->queue;
    slot->chain.readable = slot->chain.spans = 0;
    memset(&slot->request, 0, sizeof slot->request);
    slot->request.prepare = prepare;
    slot->request.done = done;
    slot->request.ctx = slot;
}

static void submit(struct blk_slot *slot, uint64_t deadline_ns)
{
    slot->is_parsed = !slot->blk->virtio.vm->deterministic;
    slot->request.deadline_ns = deadline_ns;
    disk_submit(slot->blk->disk, &slot->request);
    slot->state->deadline_ns = slot->request.deadline_ns;
}

/* True: something has been given back. */
static bool start(struct virtio_blk *b, struct blk_slot *slot, uint16_t head)
{
    b->busy[slot->queue->number]++;
    slot->state->busy = 1;
    slot->state->head = head;
    slot->state->sequence = b->sequence++;
    slot->verdict = parse(slot);
    switch (slot->verdict) {
    case TO_DISK:
        submit(slot, 0);
        return false;
    case ANSWERED:
        complete(slot, slot->status);
        return true;
    case BROKEN:
    default:
        free_slot(slot);
        return false;
    }
}

static void serve(struct virtio_device *d, unsigned queue)
{
    struct virtio_blk *b = CONTAINER_OF(d, struct virtio_blk, virtio);
    struct virtio_queue *q = &d->queue[queue];
    struct blk_slot *slot;
    unsigned turn = 0;
    bool any = false;

    disk_plug(b->disk);
    virtio_queue_quiet(q);
    do {
        uint16_t head;

        /* All slots busy, or no memory for one more: done() looks again. */
        while (turn < SLOTS && (slot = find_slot(b, queue)) && virtio_queue_next(q, &head) > 0) {
            any |= start(b, slot, head);
            turn++;
        }
    } while (virtio_queue_listen(q) && slot && turn < SLOTS);
    if (turn == SLOTS)
        virtio_ring(d, queue);
    if (any)
        virtio_queue_interrupt(q);
    disk_poll(b->disk);
}

/* ---- configuration ---- */

static void config_read(struct virtio_device *d, uint8_t *config)
{
    struct virtio_blk *b = CONTAINER_OF(d, struct virtio_blk, virtio);

    le64_put(config + CONFIG_CAPACITY, disk_bytes(b->disk) / DISK_SECTOR_BYTES);
    le32_put(config + CONFIG_SEG_MAX, SEGMENTS);
    le32_put(config + CONFIG_BLOCK_SIZE, DISK_SECTOR_BYTES);
    config[CONFIG_PHYSICAL_EXPONENT] = PHYSICAL_EXPONENT;
    le16_put(config + CONFIG_MIN_IO, 1 << PHYSICAL_EXPONENT);
    le32_put(config + CONFIG_OPTIMAL_IO, 0);
    config[CONFIG_WRITEBACK] = b->writeback;
    le16_put(config + CONFIG_QUEUES, (uint16_t)d->queue_count);
    le32_put(config + CONFIG_DISCARD_SECTORS, RANGE_SECTORS_MAX);
    le32_put(config + CONFIG_DISCARD_SEGMENTS, 1);
    le32_put(config + CONFIG_DISCARD_ALIGNMENT, 1 << PHYSICAL_EXPONENT);
    le32_put(config + CONFIG_ZEROES_SECTORS, RANGE_SECTORS_MAX);
    le32_put(config + CONFIG_ZEROES_SEGMENTS, 1);
    config[CONFIG_ZEROES_MAY_UNMAP] = 1;
}

static void config_write(struct virtio_device *d, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_blk *b = CONTAINER_OF(d, struct virtio_blk, virtio);

    if (offset == CONFIG_WRITEBACK && size == 1 && virtio_has(d, FEATURE_CONFIG_WCE))
        b->writeback = value & 1;
}

/* 5.2.5.2: a driver that does not know how to flush gets writes that stay. */
static void started(struct virtio_device *d)
{
    struct virtio_blk *b = CONTAINER_OF(d, struct virtio_blk, virtio);

    if (!virtio_has(d, FEATURE_FLUSH))
        b->writeback = 0;
}

/* ---- life ---- */

/* Afterwards nothing is under way; b->state is the caller's. */
static void forget_requests(struct virtio_blk *b)
{
    for (unsigned q = 0; q < VIRTIO_BLK_QUEUES_MAX; q++) {
        for (unsigned n = 0; n < SLOTS; n++) {
            struct blk_slot *slot = b->slot[q][n];

            if (slot && slot->request.state != DISK_IDLE)
                disk_withdraw(b->disk, &slot->request);
            if (slot)
                virtio_chain_forget(&slot->chain);
        }
        b->busy[q] = 0;
    }
}

static void stop(struct virtio_device *d)
{
    struct virtio_blk *b = CONTAINER_OF(d, struct virtio_blk, virtio);

    forget_requests(b);
    memset(b->state, 0, sizeof b->state);
    b->writeback = 1;
    b->sequence = 0;
}

static void blk_reset(void *self)
{
    virtio_reset(self);
}

static void blk_destroy(void *self)
{
    struct virtio_blk *b = self;

    forget_requests(b); /* the disk is there, or had ended all of them */
    for (unsigned q = 0; q < VIRTIO_BLK_QUEUES_MAX; q++)
        for (unsigned n = 0; n < SLOTS; n++)
            free(b->slot[q][n]);
    virtio_destroy(&b->virtio);
    free(b);
}

/* ---- state ---- */

static const struct state_field blk_fields[] = {
    STATE_STRUCT(struct virtio_blk, virtio, &virtio_state),
    STATE_INT(struct virtio_blk, writeback),
    STATE_INT(struct virtio_blk, sequence),
    STATE_BYTES(struct virtio_blk, state),
    STATE_END,
};

static bool state_is_possible(const struct virtio_blk *b, unsigned q, unsigned n)
{
    const struct blk_slot_state *s = &b->state[q][n];

    if (!s->busy)
        return !s->deadline_ns && !s->head && !s->sequence;
    return s->busy == 1 && q < b->virtio.queue_count && s->head < b->virtio.queue[q].size &&
           s->deadline_ns;
}

/* In the order in which they were submitted: ties between deadlines end alike. */
static int resubmit(struct virtio_blk *b)
{
    for (;;) {
        struct blk_slot_state *first = NULL;
        unsigned queue = 0, number = 0;
        struct blk_slot *slot;

        for (unsigned q = 0; q < b->virtio.queue_count; q++) {
            for (unsigned n = 0; n < SLOTS; n++) {
                struct blk_slot_state *s = &b->state[q][n];
                bool is_new = s->busy && (!b->slot[q][n] ||
                                          b->slot[q][n]->request.state == DISK_IDLE);

                if (is_new && (!first || (int32_t)(s->sequence - first->sequence) < 0)) {
                    first = s;
                    queue = q;
                    number = n;
                }
            }
        }
        if (!first)
            return 0;
        slot = slot_at(b, queue, number);
        if (!slot)
            return -ENOMEM;
        b->busy[queue]++;
        slot->request.op = DISK_READ; /* until prepare */
        slot->request.bytes = 0;
        slot->is_parsed = false;
        slot->request.deadline_ns = first->deadline_ns;
        disk_submit(b->disk, &slot->request);
    }
}

static int blk_after_load(void *self, unsigned version)
{
    struct virtio_blk *b = self;
    int ret;

    forget_requests(b);
    if (b->writeback > 1)
        return -EINVAL;
    for (unsigned q = 0; q < VIRTIO_BLK_QUEUES_MAX; q++)
        for (unsigned n = 0; n < SLOTS; n++)
            if (!state_is_possible(b, q, n))
                return -EINVAL;
    ret = resubmit(b);
    if (!ret)
        virtio_restored(&b->virtio);
    return ret;
}

static const struct state_table blk_state = {
    .name = "virtio-blk",
    .version = 1,
    .fields = blk_fields,
    .after_load = blk_after_load,
};

static const struct dev_type blk_dev = {
    .name = "virtio-blk",
    .reset = blk_reset,
    .destroy = blk_destroy,
    .state = &blk_state,
};

static const struct virtio_type blk_type = {
    .name = "virtio-blk",
    .id = VIRTIO_ID_BLOCK,
    .class_code = 0x010000,
    .serve = serve,
    .reset = stop,
    .started = started,
    .config_read = config_read,
    .config_write = config_write,
};

int virtio_blk_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                      struct error *err)
{
    const struct virtio_blk_config *c = config;
    bool readonly = disk_is_readonly(c->disk);
    struct virtio_config virtio = {
        .type = &blk_type,
        .name = c->name,
        .features = FEATURE_SEG_MAX | FEATURE_BLOCK_SIZE | FEATURE_FLUSH | FEATURE_TOPOLOGY |
                    FEATURE_CONFIG_WCE,
        .queues = MIN(MAX(c->queues, 1u), VIRTIO_BLK_QUEUES_MAX),
        .config_bytes = CONFIG_BYTES,
    };
    struct virtio_blk *b = calloc(1, sizeof *b);
    int ret;

    if (!b)
        return error_set(err, -ENOMEM, "out of memory for a virtio disk");
    virtio.features |= readonly ? FEATURE_READONLY : FEATURE_DISCARD | FEATURE_WRITE_ZEROES;
    if (virtio.queues > 1)
        virtio.features |= FEATURE_QUEUES;
    b->disk = c->disk;
    b->writeback = 1;
    ret = virtio_init(&b->virtio, vm, bus, devfn, &virtio, err);
    if (ret) {
        free(b);
        return ret;
    }
    vm_add_device(vm, &blk_dev, b->virtio.name, b);
    return 0;
}
