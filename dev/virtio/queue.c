/*
 * Split virtqueues: the rings (virtio 1.2, 2.7.6 to 2.7.10). Interface: queue.h;
 * chains are in chain.c.
 *
 * The three tables are used through host pointers, which hold as long as no
 * region of the machine changes: mapped_at is the generation of the view that
 * they were looked up in.
 *
 * Memory order. The driver runs on other threads. Its index is loaded with
 * acquire, ours is stored with release; and between our store (of an index, of
 * the event we wait for) and the load that decides whether somebody has to be
 * told there is a full fence, as 2.7.13.4.1 and 2.7.7.2 have it for the driver.
 */
#include "dev/virtio/queue.h"

#include <errno.h>

#include "base/host.h"
#include "dev/virtio/virtio.h"

enum ring { /* driver ("available") ring and device ("used") ring */
    RING_FLAGS = 0,
    RING_INDEX = 2,
    RING_ENTRIES = 4,
    DRIVER_ENTRY_BYTES = 2,
    USED_ENTRY_BYTES = 8,
    EVENT_BYTES = 2,
    DRIVER_NO_INTERRUPT = 1,
    USED_NO_NOTIFY = 1,
    DESCRIPTOR_BYTES = 16,
    DRIVER_ALIGN = 2,
    USED_ALIGN = 4,
};

static uint16_t load16(const uint8_t *p)
{
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}

static void store16(uint8_t *p, uint16_t value)
{
    __atomic_store_n((uint16_t *)p, value, __ATOMIC_RELEASE);
}

/* ---- where the tables are ---- */

static uint64_t driver_bytes(const struct virtio_queue *q)
{
    return RING_ENTRIES + (uint64_t)q->size * DRIVER_ENTRY_BYTES + EVENT_BYTES;
}

static uint64_t used_bytes(const struct virtio_queue *q)
{
    return RING_ENTRIES + (uint64_t)q->size * USED_ENTRY_BYTES + EVENT_BYTES;
}

/* All of a table as one piece of memory; as_map stops at the last address. */
static uint8_t *map_table(struct virtio_queue *q, uint64_t address, uint64_t bytes, unsigned align,
                          bool write, struct virtio_home *home)
{
    uint64_t mapped = bytes;
    uint8_t *host;

    if (address % align)
        return NULL;
    host = as_map(&q->device->vm->memory, address, &mapped, write, home ? &home->block : NULL,
                  home ? &home->offset : NULL);
    /* Host memory is aligned as guest memory is, but for a block that starts at
     * an odd place; the atomics rely on it. */
    return host && mapped == bytes && (uintptr_t)host % align == 0 ? host : NULL;
}

bool virtio_queue_is_mapped(struct virtio_queue *q)
{
    struct virtio_device *d = q->device;
    uint64_t view = atomic_load(&d->vm->view_generation);

    if (!virtio_queue_is_live(q))
        return false;
    if (likely(q->mapped_at == view))
        return true;
    q->descriptor_table = map_table(q, q->descriptors, (uint64_t)q->size * DESCRIPTOR_BYTES,
                                    DESCRIPTOR_BYTES, false, NULL);
    q->driver_ring = map_table(q, q->driver, driver_bytes(q), DRIVER_ALIGN, false, NULL);
    q->used_ring = map_table(q, q->used, used_bytes(q), USED_ALIGN, true, &q->used_home);
    if (!q->descriptor_table || !q->driver_ring || !q->used_ring) {
        virtio_break(d, "a ring is not in memory");
        return false;
    }
    q->mapped_at = view;
    return true;
}

static void used_written(struct virtio_queue *q, uint64_t offset, uint64_t bytes)
{
    ram_block_written(q->used_home.block, q->used_home.offset + offset, bytes);
}

static bool has_events(const struct virtio_queue *q)
{
    return virtio_has(q->device, VIRTIO_F_EVENT_IDX);
}

void virtio_queue_reset(struct virtio_queue *q)
{
    q->size = q->size_max;
    q->vector = VIRTIO_NO_VECTOR;
    q->enabled = false;
    q->descriptors = q->driver = q->used = 0;
    q->next_avail = q->next_used = q->signalled = 0;
    q->has_signalled = false;
    q->mapped_at = UINT64_MAX;
}

/* ---- the driver's ring ---- */

/* How many there are; negative: more than a ring holds. */
static int available(struct virtio_queue *q)
{
    uint16_t count = (uint16_t)(load16(q->driver_ring + RING_INDEX) - q->next_avail);

    if (count <= q->size)
        return count;
    virtio_break(q->device, "the driver's index is further than its ring is long");
    return -EBADMSG;
}

unsigned virtio_queue_waiting(struct virtio_queue *q)
{
    int count = virtio_queue_is_mapped(q) ? available(q) : 0;

    return count > 0 ? (unsigned)count : 0;
}

int virtio_queue_next(struct virtio_queue *q, uint16_t *head)
{
    int count = virtio_queue_is_mapped(q) ? available(q) : 0;

    if (count <= 0)
        return count;
    *head = load16(q->driver_ring + RING_ENTRIES +
                   (size_t)(q->next_avail & (q->size - 1)) * DRIVER_ENTRY_BYTES);
    if (*head >= q->size) {
        virtio_break(q->device, "a chain starts outside of the descriptor table");
        return -EBADMSG;
    }
    q->next_avail++;
    return 1;
}

int virtio_queue_take(struct virtio_queue *q, struct virtio_chain *chain)
{
    uint16_t head;
    int ret = virtio_queue_next(q, &head);

    if (ret > 0 && virtio_chain_load(q, head, chain))
        return -EBADMSG;
    return ret;
}

void virtio_queue_untake(struct virtio_queue *q, unsigned count)
{
    q->next_avail = (uint16_t)(q->next_avail - count);
}

void virtio_queue_quiet(struct virtio_queue *q)
{
    /* With events the driver rings when it passes the event, which is behind it. */
    if (!virtio_queue_is_mapped(q) || has_events(q))
        return;
    store16(q->used_ring + RING_FLAGS, USED_NO_NOTIFY);
    used_written(q, RING_FLAGS, sizeof(uint16_t));
}

bool virtio_queue_listen(struct virtio_queue *q)
{
    uint64_t at;

    if (!virtio_queue_is_mapped(q))
        return false;
    at = has_events(q) ? used_bytes(q) - EVENT_BYTES : RING_FLAGS;
    store16(q->used_ring + at, has_events(q) ? q->next_avail : 0);
    used_written(q, at, sizeof(uint16_t));
    host_store_load_fence();
    return available(q) > 0;
}

/* ---- the device's ring ---- */

static void put(struct virtio_queue *q, unsigned ahead, uint16_t head, uint64_t written)
{
    uint16_t slot = (uint16_t)(q->next_used + ahead) & (uint16_t)(q->size - 1);
    uint64_t at = RING_ENTRIES + (uint64_t)slot * USED_ENTRY_BYTES;

    le32_put(q->used_ring + at, head);
    le32_put(q->used_ring + at + 4, (uint32_t)MIN(written, UINT32_MAX));
    used_written(q, at, USED_ENTRY_BYTES);
}

void virtio_chain_forget(struct virtio_chain *chain)
{
    for (unsigned n = chain->readable; n < chain->spans; n++)
        ram_block_written(chain->home[n].block, chain->home[n].offset, chain->span[n].bytes);
    chain->readable = chain->spans = 0;
}

void virtio_chain_put(struct virtio_chain *chain, unsigned ahead, uint64_t written)
{
    virtio_chain_forget(chain);
    if (virtio_queue_is_mapped(chain->queue))
        put(chain->queue, ahead, chain->head, written);
}

void virtio_queue_publish(struct virtio_queue *q, unsigned count)
{
    if (!count || !virtio_queue_is_mapped(q))
        return;
    q->next_used = (uint16_t)(q->next_used + count);
    store16(q->used_ring + RING_INDEX, q->next_used);
    used_written(q, RING_INDEX, sizeof(uint16_t));
}

void virtio_chain_done(struct virtio_chain *chain, uint64_t written)
{
    virtio_chain_put(chain, 0, written);
    virtio_queue_publish(chain->queue, 1);
}

void virtio_queue_return(struct virtio_queue *q, uint16_t head)
{
    if (!virtio_queue_is_mapped(q))
        return;
    put(q, 0, head, 0);
    virtio_queue_publish(q, 1);
}

/* 2.7.7: has next_used passed the entry at which the driver wants to be told? */
static bool wants_interrupt(struct virtio_queue *q)
{
    uint16_t event, before = q->signalled;
    bool had = q->has_signalled;

    host_store_load_fence();
    if (!has_events(q))
        return !(load16(q->driver_ring + RING_FLAGS) & DRIVER_NO_INTERRUPT);
    event = load16(q->driver_ring + driver_bytes(q) - EVENT_BYTES);
    q->signalled = q->next_used;
    q->has_signalled = true;
    return !had || (uint16_t)(q->next_used - event - 1) < (uint16_t)(q->next_used - before);
}

void virtio_queue_interrupt(struct virtio_queue *q)
{
    if (virtio_queue_is_mapped(q) && wants_interrupt(q))
        virtio_interrupt(q->device, q->vector, VIRTIO_ISR_QUEUE);
}

/* ---- state ---- */

static const struct state_field queue_fields[] = {
    STATE_INT(struct virtio_queue, size),
    STATE_INT(struct virtio_queue, vector),
    STATE_INT(struct virtio_queue, enabled),
    STATE_INT(struct virtio_queue, descriptors),
    STATE_INT(struct virtio_queue, driver),
    STATE_INT(struct virtio_queue, used),
    STATE_INT(struct virtio_queue, next_avail),
    STATE_INT(struct virtio_queue, next_used),
    STATE_INT(struct virtio_queue, signalled),
    STATE_INT(struct virtio_queue, has_signalled),
    STATE_END,
};

static int queue_after_load(void *self, unsigned version)
{
    struct virtio_queue *q = self;

    q->mapped_at = UINT64_MAX;
    /* A queue that this device does not have is all zero. */
    if (q->size & (q->size - 1) || q->size > q->size_max || (q->size_max && !q->size) ||
        (q->enabled && !q->size_max))
        return -EINVAL;
    return 0;
}

const struct state_table virtio_queue_state = {
    .name = "virtio-queue",
    .version = 1,
    .fields = queue_fields,
    .after_load = queue_after_load,
};
