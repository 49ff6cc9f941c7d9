/*
 * The virtio memory balloon (virtio 1.2, section 5.5). Interface:
 * virtio_balloon.h.
 *
 * A page that the guest gives reads as zero when it comes back, so translations of
 * code in it go, as after any write. Pages of RAM only: of what else has host
 * memory (video memory, flash) nothing is given away.
 *
 * Reported free pages (5.5.6.7) are buffers that the guest does not use until it
 * has them back. Without the feature of hinting the reporting queue is number 3
 * for Linux up to 6.10 and, by the standard, number 4: both report here.
 */
#include "dev/virtio/virtio_balloon.h"

#include <errno.h>
#include <stdlib.h>

#include "base/host.h"
#include "dev/virtio/virtio.h"

enum {
    FEATURE_STATS = 1 << 1,
    FEATURE_DEFLATE_ON_OOM = 1 << 2,
    FEATURE_REPORTING = 1 << 5,

    QUEUE_INFLATE = 0,
    QUEUE_DEFLATE = 1,
    QUEUE_STATS = 2,
    QUEUE_REPORTING = 3,
    QUEUES = 5,
    QUEUE_SIZE = 128,

    CONFIG_TARGET = 0,
    CONFIG_ACTUAL = 4,
    CONFIG_BYTES = 8,

    PAGE = 4096,
    CHAIN_PAGES = 1024, /* of one chain: Linux gives 256 */
    TURN_CHAINS = 16,   /* each may cost as many calls of the host as it has pages */
    STAT_BYTES = 10,
    STATS = 10,
};

struct virtio_balloon {
    struct virtio_device virtio; /* first: dev_type's self */
    uint64_t stats_interval_ns;

    /* ---- saved, with the above ---- */
    uint32_t target, actual; /* pages */
    bool holds_stats;        /* the guest's buffer, until new ones are wanted */
    uint16_t stats_head;
    uint64_t stat[STATS]; /* by tag, 5.5.6.5.1 */
    struct timer timer;

    uint64_t inflated, reported; /* bytes, ever */
};

enum stat_tag {
    STAT_SWAP_IN,
    STAT_SWAP_OUT,
    STAT_MAJOR_FAULTS,
    STAT_MINOR_FAULTS,
    STAT_FREE,
    STAT_TOTAL,
    STAT_AVAILABLE,
    STAT_CACHES,
};

static struct virtio_balloon *balloon_of(struct virtio_device *d)
{
    return CONTAINER_OF(d, struct virtio_balloon, virtio);
}

/* ---- giving memory back ---- */

/* A run of host memory that is being collected. */
struct run {
    struct ram_block *block;
    uint64_t offset, bytes;
};

static void discard(struct virtio_balloon *b, struct run *r)
{
    if (!r->bytes)
        return;
    host_pages_discard(r->block->host + r->offset, r->bytes);
    ram_block_written(r->block, r->offset, r->bytes);
    r->bytes = 0;
}

/* One page of the guest's, together with its neighbours where they come in a row. */
static void give_page(struct virtio_balloon *b, struct run *r, uint64_t gpa)
{
    uint64_t bytes = PAGE, offset;
    struct ram_block *block;

    if (!as_map(&b->virtio.vm->memory, gpa, &bytes, true, &block, &offset) || bytes != PAGE ||
        offset % PAGE || block->kind != RAM_NORMAL)
        return;
    b->inflated += PAGE;
    if (r->bytes && r->block == block && offset == r->offset + r->bytes) {
        r->bytes += PAGE;
    } else if (r->bytes && r->block == block && offset + PAGE == r->offset) {
        r->offset = offset; /* Linux counts down */
        r->bytes += PAGE;
    } else {
        discard(b, r);
        *r = (struct run){block, offset, PAGE};
    }
}

static void inflate(struct virtio_balloon *b, struct virtio_chain *chain)
{
    uint64_t pages = MIN(chain->readable_bytes / sizeof(uint32_t), CHAIN_PAGES);
    uint8_t frame[CHAIN_PAGES * sizeof(uint32_t)];
    struct run r = {0};

    virtio_chain_read(chain, 0, frame, pages * sizeof(uint32_t));
    for (uint64_t n = 0; n < pages; n++)
        give_page(b, &r, (uint64_t)le32_get(frame + n * sizeof(uint32_t)) * PAGE);
    discard(b, &r);
    virtio_chain_done(chain, 0);
}

static void report(struct virtio_balloon *b, struct virtio_chain *chain)
{
    for (unsigned n = chain->readable; n < chain->spans; n++) {
        const struct virtio_home *home = &chain->home[n];
        uint64_t start = align_up(home->offset, PAGE);
        uint64_t end = align_down(home->offset + chain->span[n].bytes, PAGE);

        if (start >= end || home->block->kind != RAM_NORMAL)
            continue;
        host_pages_discard(home->block->host + start, end - start);
        b->reported += end - start;
    }
    virtio_chain_done(chain, 0);
}

/* ---- statistics ---- */

static void keep_stats(struct virtio_balloon *b, struct virtio_chain *chain)
{
    struct virtio_queue *q = chain->queue;
    uint8_t entry[STAT_BYTES];

    for (unsigned n = 0; n < 2 * STATS; n++) {
        uint16_t tag;

        if (virtio_chain_read(chain, (uint64_t)n * STAT_BYTES, entry, STAT_BYTES) != STAT_BYTES)
            break;
        tag = le16_get(entry);
        if (tag < STATS)
            b->stat[tag] = le64_get(entry + 2);
    }
    /* The buffer stays here until statistics are wanted anew (5.5.6.5). A second
     * one goes back. */
    if (b->holds_stats) {
        virtio_queue_return(q, chain->head);
        virtio_queue_interrupt(q);
        return;
    }
    b->holds_stats = true;
    b->stats_head = chain->head;
    vlog(b->virtio.vm->log, VIRTIO, INFO, "%s: the guest has %llu MiB free of %llu",
         b->virtio.name, (unsigned long long)(b->stat[STAT_FREE] / MiB),
         (unsigned long long)(b->stat[STAT_TOTAL] / MiB));
}

static void ask_again(void *ctx)
{
    struct virtio_balloon *b = ctx;
    struct virtio_queue *q = &b->virtio.queue[QUEUE_STATS];

    if (b->holds_stats && virtio_queue_is_live(q)) {
        b->holds_stats = false;
        virtio_queue_return(q, b->stats_head);
        virtio_queue_interrupt(q);
    }
    timer_arm(&b->timer, clock_now_ns(&b->virtio.vm->clock) + b->stats_interval_ns);
}

static void started(struct virtio_device *d)
{
    struct virtio_balloon *b = balloon_of(d);

    if (b->stats_interval_ns && virtio_has(d, FEATURE_STATS))
        timer_arm(&b->timer, clock_now_ns(&d->vm->clock) + b->stats_interval_ns);
}

/* ---- queues and configuration ---- */

static void serve(struct virtio_device *d, unsigned queue)
{
    struct virtio_balloon *b = balloon_of(d);
    struct virtio_queue *q = &d->queue[queue];
    struct virtio_chain chain;
    unsigned turn = 0;

    do {
        while (turn < TURN_CHAINS && virtio_queue_take(q, &chain) > 0) {
            turn++;
            if (queue == QUEUE_STATS)
                keep_stats(b, &chain);
            else if (queue == QUEUE_INFLATE)
                inflate(b, &chain);
            else if (queue >= QUEUE_REPORTING)
                report(b, &chain);
            else
                virtio_chain_done(&chain, 0); /* pages come back by being used */
        }
    } while (virtio_queue_listen(q) && turn < TURN_CHAINS);
    if (turn == TURN_CHAINS)
        virtio_ring(d, queue);
    if (turn && queue != QUEUE_STATS)
        virtio_queue_interrupt(q);
}

static void config_read(struct virtio_device *d, uint8_t *config)
{
    le32_put(config + CONFIG_TARGET, balloon_of(d)->target);
    le32_put(config + CONFIG_ACTUAL, balloon_of(d)->actual);
}

static void config_write(struct virtio_device *d, unsigned offset, unsigned size, uint32_t value)
{
    if (offset == CONFIG_ACTUAL && size == 4)
        balloon_of(d)->actual = value;
}

void virtio_balloon_set_target(struct virtio_balloon *b, uint64_t bytes)
{
    b->target = (uint32_t)MIN(bytes / PAGE, UINT32_MAX);
    virtio_config_changed(&b->virtio);
}

void virtio_balloon_status(const struct virtio_balloon *b, struct virtio_balloon_status *status)
{
    *status = (struct virtio_balloon_status){
        .target_bytes = (uint64_t)b->target * PAGE,
        .actual_bytes = (uint64_t)b->actual * PAGE,
        .inflated_bytes = b->inflated,
        .reported_bytes = b->reported,
        .free_bytes = b->stat[STAT_FREE],
        .total_bytes = b->stat[STAT_TOTAL],
        .available_bytes = b->stat[STAT_AVAILABLE],
        .cache_bytes = b->stat[STAT_CACHES],
        .major_faults = b->stat[STAT_MAJOR_FAULTS],
        .minor_faults = b->stat[STAT_MINOR_FAULTS],
        .swap_in_bytes = b->stat[STAT_SWAP_IN],
        .swap_out_bytes = b->stat[STAT_SWAP_OUT],
    };
}

/* ---- life ---- */

static void stop(struct virtio_device *d)
{
    struct virtio_balloon *b = balloon_of(d);

    timer_cancel(&b->timer);
    b->actual = 0;
    b->holds_stats = false;
    b->stats_head = 0;
    memset(b->stat, 0xFF, sizeof b->stat);
}

static void balloon_reset(void *self)
{
    virtio_reset(self);
}

static void balloon_destroy(void *self)
{
    struct virtio_balloon *b = self;

    timer_destroy(&b->timer);
    virtio_destroy(&b->virtio);
    free(b);
}

static int balloon_after_load(void *self, unsigned version)
{
    struct virtio_balloon *b = self;

    if (b->holds_stats && b->stats_head >= b->virtio.queue[QUEUE_STATS].size)
        return -EINVAL;
    if (timer_is_armed(&b->timer) && !b->stats_interval_ns)
        timer_cancel(&b->timer);
    virtio_restored(&b->virtio);
    return 0;
}

static const struct state_field balloon_fields[] = {
    STATE_STRUCT(struct virtio_balloon, virtio, &virtio_state),
    STATE_INT(struct virtio_balloon, target),
    STATE_INT(struct virtio_balloon, actual),
    STATE_INT(struct virtio_balloon, holds_stats),
    STATE_INT(struct virtio_balloon, stats_head),
    STATE_INTS(struct virtio_balloon, stat),
    STATE_TIMER(struct virtio_balloon, timer),
    STATE_END,
};

static const struct state_table balloon_state = {
    .name = "virtio-balloon",
    .version = 1,
    .fields = balloon_fields,
    .after_load = balloon_after_load,
};

static const struct dev_type balloon_dev = {
    .name = "virtio-balloon",
    .reset = balloon_reset,
    .destroy = balloon_destroy,
    .state = &balloon_state,
};

static const struct virtio_type balloon_type = {
    .name = "virtio-balloon",
    .id = VIRTIO_ID_BALLOON,
    .class_code = 0x00FF00,
    .serve = serve,
    .reset = stop,
    .started = started,
    .config_read = config_read,
    .config_write = config_write,
};

int virtio_balloon_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                          struct error *err)
{
    const struct virtio_balloon_config *c = config;
    const struct virtio_config virtio = {
        .type = &balloon_type,
        .name = c->name,
        .features = FEATURE_STATS | FEATURE_DEFLATE_ON_OOM | FEATURE_REPORTING,
        .queues = QUEUES,
        .queue_size = QUEUE_SIZE,
        .config_bytes = CONFIG_BYTES,
    };
    struct virtio_balloon *b = calloc(1, sizeof *b);
    int ret;

    if (!b)
        return error_set(err, -ENOMEM, "out of memory for a virtio balloon");
    ret = virtio_init(&b->virtio, vm, bus, devfn, &virtio, err);
    if (ret) {
        free(b);
        return ret;
    }
    timer_init(&b->timer, vm, ask_again, b);
    b->stats_interval_ns = c->stats_interval_ns;
    b->target = (uint32_t)MIN(c->target_bytes / PAGE, UINT32_MAX);
    memset(b->stat, 0xFF, sizeof b->stat);
    vm_add_device(vm, &balloon_dev, b->virtio.name, b);
    if (c->out)
        *c->out = b;
    return 0;
}
