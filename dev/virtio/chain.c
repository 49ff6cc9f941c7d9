/*
 * Split virtqueues: chains of descriptors (virtio 1.2, 2.7.5), and their bytes.
 * Interface: queue.h.
 *
 * A descriptor is copied before it is looked at, because its owner may change it
 * meanwhile. A chain is no longer than VIRTIO_CHAIN_MAX, and as no descriptor
 * makes it longer without being counted, a loop ends there.
 */
#include <errno.h>

#include "dev/virtio/virtio.h"

enum descriptor {
    DESCRIPTOR_NEXT = 1,
    DESCRIPTOR_WRITE = 2,
    DESCRIPTOR_INDIRECT = 4,
    DESCRIPTOR_BYTES = 16,
};

struct descriptor_entry {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags, next;
};

/* 2.7.4: a chain has 2^32 bytes at most. */
#define CHAIN_BYTES_MAX BIT(32)

/* ---- from descriptors to spans ---- */

struct walk {
    struct virtio_chain *chain;
    unsigned count; /* descriptors so far */
};

static const char *add_buffer(struct walk *w, const struct descriptor_entry *e)
{
    struct virtio_chain *c = w->chain;
    bool write = e->flags & DESCRIPTOR_WRITE;
    uint64_t address = e->address, left = e->bytes;
    uint64_t *total = write ? &c->writable_bytes : &c->readable_bytes;

    if (!write && c->writable_bytes)
        return "a buffer to read follows one to write";
    if (left > CHAIN_BYTES_MAX - c->readable_bytes - c->writable_bytes)
        return "a chain of more than 4 GiB";
    *total += left;
    while (left) {
        struct virtio_home *home = &c->home[c->spans];
        uint64_t part = left;
        void *host;

        if (c->spans == VIRTIO_SPANS)
            return "a chain of too many pieces";
        host = as_map(&c->queue->device->vm->memory, address, &part, write, &home->block,
                      &home->offset);
        if (!host)
            return "a buffer is not in memory";
        c->span[c->spans++] = (struct virtio_span){host, part};
        c->readable += !write;
        left -= part;
        address += part; /* no memory wraps: the next as_map would fail at 0 or find RAM */
        if (left && !address)
            return "a buffer goes beyond the last address";
    }
    return NULL;
}

/* One table from `first` to the end of its chain; where the last descriptor is an
 * indirect one, *last is that. */
static const char *walk_table(struct walk *w, const uint8_t *table, unsigned entries,
                              unsigned first, bool is_indirect, struct descriptor_entry *last)
{
    const uint16_t forbidden = is_indirect ? DESCRIPTOR_INDIRECT : 0;
    unsigned at = first;

    for (;;) {
        struct descriptor_entry e;
        const char *why;

        memcpy(&e, table + (size_t)at * DESCRIPTOR_BYTES, sizeof e);
        __asm__ volatile("" : : : "memory"); /* once */
        if (e.flags & forbidden)
            return "an indirect table in an indirect table";
        if (e.flags & DESCRIPTOR_INDIRECT) {
            *last = e;
            return e.flags & DESCRIPTOR_NEXT ? "an indirect descriptor with a next one" : NULL;
        }
        if (++w->count > VIRTIO_CHAIN_MAX)
            return "a chain is too long, or a loop";
        why = add_buffer(w, &e);
        if (why || !(e.flags & DESCRIPTOR_NEXT))
            return why;
        if (e.next >= entries)
            return "a descriptor's next is outside of its table";
        at = e.next;
    }
}

static const char *walk_indirect(struct walk *w, const struct descriptor_entry *e)
{
    struct virtio_device *d = w->chain->queue->device;
    uint8_t table[VIRTIO_CHAIN_MAX * DESCRIPTOR_BYTES];
    struct descriptor_entry none;
    uint64_t mapped = e->bytes;
    const void *host;

    if (!virtio_has(d, VIRTIO_F_INDIRECT_DESC))
        return "an indirect descriptor, which was not agreed on";
    if (!e->bytes || e->bytes % DESCRIPTOR_BYTES || e->bytes > sizeof table)
        return "an indirect table of an impossible length";
    host = as_map(&d->vm->memory, e->address, &mapped, false, NULL, NULL);
    if (!host)
        return "an indirect table is not in memory";
    if (mapped == e->bytes)
        return walk_table(w, host, e->bytes / DESCRIPTOR_BYTES, 0, true, &none);
    /* In pieces of memory that are no neighbours. */
    for (uint64_t done = 0; done < e->bytes; done += mapped) {
        mapped = e->bytes - done;
        host = as_map(&d->vm->memory, e->address + done, &mapped, false, NULL, NULL);
        if (!host || e->address + done < e->address)
            return "an indirect table is not in memory";
        memcpy(table + done, host, mapped);
    }
    return walk_table(w, table, e->bytes / DESCRIPTOR_BYTES, 0, true, &none);
}

int virtio_chain_load(struct virtio_queue *q, uint16_t head, struct virtio_chain *chain)
{
    struct walk w = {.chain = chain};
    struct descriptor_entry last = {0};
    const char *why;

    chain->queue = q;
    chain->head = head;
    chain->readable = chain->spans = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    /* A head that was taken earlier: the tables may be gone meanwhile. */
    if (!virtio_queue_is_mapped(q) || head >= q->size)
        return -EBADMSG;
    why = walk_table(&w, q->descriptor_table, q->size, head, false, &last);
    if (!why && last.flags & DESCRIPTOR_INDIRECT)
        why = walk_indirect(&w, &last);
    if (why) {
        virtio_break(q->device, why);
        chain->readable = chain->spans = 0;
        chain->readable_bytes = chain->writable_bytes = 0;
        return -EBADMSG;
    }
    return 0;
}

/* ---- bytes ---- */

unsigned virtio_chain_slice(const struct virtio_chain *chain, bool writable, uint64_t offset,
                            uint64_t bytes, struct virtio_span *out, unsigned room)
{
    unsigned n = writable ? chain->readable : 0, end = writable ? chain->spans : chain->readable;
    unsigned count = 0;

    for (; n < end && bytes; n++) {
        const struct virtio_span *s = &chain->span[n];
        uint64_t part;

        if (offset >= s->bytes) {
            offset -= s->bytes;
            continue;
        }
        if (count == room)
            return 0;
        part = MIN(s->bytes - offset, bytes);
        out[count++] = (struct virtio_span){(uint8_t *)s->data + offset, part};
        bytes -= part;
        offset = 0;
    }
    return bytes ? 0 : count;
}

uint64_t virtio_chain_read(const struct virtio_chain *chain, uint64_t offset, void *buf,
                           uint64_t bytes)
{
    uint8_t *to = buf;
    uint64_t done = 0;

    for (unsigned n = 0; n < chain->readable && done < bytes; n++) {
        const struct virtio_span *s = &chain->span[n];
        uint64_t part;

        if (offset >= s->bytes) {
            offset -= s->bytes;
            continue;
        }
        part = MIN(s->bytes - offset, bytes - done);
        memcpy(to + done, (const uint8_t *)s->data + offset, part);
        done += part;
        offset = 0;
    }
    return done;
}

uint64_t virtio_chain_write(struct virtio_chain *chain, uint64_t offset, const void *buf,
                            uint64_t bytes)
{
    const uint8_t *from = buf;
    uint64_t done = 0;

    for (unsigned n = chain->readable; n < chain->spans && done < bytes; n++) {
        const struct virtio_span *s = &chain->span[n];
        uint64_t part;

        if (offset >= s->bytes) {
            offset -= s->bytes;
            continue;
        }
        part = MIN(s->bytes - offset, bytes - done);
        memcpy((uint8_t *)s->data + offset, from + done, part);
        done += part;
        offset = 0;
    }
    return done;
}
