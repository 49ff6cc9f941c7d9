/*
 * Guest memory as a disk adapter reaches it. Interface: transfer.h.
 */
#include "dev/storage/transfer.h"

#include <errno.h>
#include <stdlib.h>

int dma_read(struct dma_master *m, uint64_t address, void *buf, uint64_t bytes)
{
    int ret;

    m->depth++;
    ret = pci_dma_read(m->pci, address, buf, bytes);
    m->depth--;
    return ret;
}

int dma_write(struct dma_master *m, uint64_t address, const void *buf, uint64_t bytes)
{
    int ret;

    m->depth++;
    ret = pci_dma_write(m->pci, address, buf, bytes);
    m->depth--;
    return ret;
}

int dma_copy(struct dma_master *m, struct dma_extents *e, void *buf, uint64_t bytes, bool to_guest)
{
    uint8_t *at = buf;

    while (bytes) {
        uint64_t address, part;
        int ret = e->at(e, &address, &part);

        if (ret <= 0)
            return ret ? ret : -EFAULT;
        part = MIN(part, bytes);
        ret = to_guest ? dma_write(m, address, at, part) : dma_read(m, address, at, part);
        if (ret)
            return ret;
        at += part;
        bytes -= part;
        e->on(e, part);
    }
    return 0;
}

int dma_skip(struct dma_extents *e, uint64_t bytes)
{
    while (bytes) {
        uint64_t address, part;
        int ret = e->at(e, &address, &part);

        if (ret <= 0)
            return ret ? ret : -EFAULT;
        part = MIN(part, bytes);
        bytes -= part;
        e->on(e, part);
    }
    return 0;
}

/* ---- pieces ---- */

/* What lies behind the last span in the same block makes that longer. */
static void add_span(struct dma_piece *p, void *host, uint64_t bytes, struct dma_home home)
{
    if (p->homes) {
        struct disk_span *last = &p->span[p->homes - 1];

        if (p->home[p->homes - 1].block == home.block &&
            (uint8_t *)last->data + last->bytes == host) {
            last->bytes += bytes;
            return;
        }
    }
    p->span[p->homes] = (struct disk_span){host, bytes};
    p->home[p->homes++] = home;
}

/* Plain memory from where the walk stands; bytes that got a span. */
static int gather(struct dma_piece *p, struct dma_master *m, struct dma_extents *e, uint64_t bytes,
                  uint64_t *gathered)
{
    struct address_space *memory = &m->vm->memory;

    *gathered = 0;
    while (*gathered < bytes && p->homes < DMA_SPANS) {
        struct dma_home home;
        uint64_t address, part;
        int ret = e->at(e, &address, &part);
        void *host;

        if (ret <= 0) /* it was long enough when the command started */
            return ret ? ret : -EFAULT;
        part = MIN(part, bytes - *gathered);
        host = as_map(memory, address, &part, p->to_guest, &home.block, &home.offset);
        if (!host)
            break;
        add_span(p, host, part, home);
        *gathered += part;
        e->on(e, part);
    }
    return 0;
}

/* Leaves whole sectors: the rest waits for the next piece. */
static void trim_spans(struct dma_piece *p, uint64_t bytes)
{
    uint64_t have = 0;

    for (unsigned n = 0; n < p->homes; n++) {
        if (have + p->span[n].bytes > bytes)
            p->span[n].bytes = bytes - have;
        have += p->span[n].bytes;
        if (have == bytes) {
            p->homes = n + 1;
            return;
        }
    }
}

static int prepare_bounce(struct dma_piece *p, struct dma_master *m, struct dma_extents *e,
                          uint64_t bytes, struct disk_request *r)
{
    p->homes = 0;
    p->bounce = malloc(bytes);
    if (!p->bounce)
        return -ENOMEM;
    p->span[0] = (struct disk_span){p->bounce, bytes};
    r->span_count = 1;
    r->bytes = bytes;
    e->start(e);
    return p->to_guest ? dma_skip(e, bytes) : dma_copy(m, e, p->bounce, bytes, false);
}

int dma_piece_prepare(struct dma_piece *p, struct dma_master *m, struct dma_extents *e,
                      uint64_t wanted, bool bounce, struct disk_request *r)
{
    uint64_t gathered = 0;
    int ret;

    dma_piece_forget(p);
    p->to_guest = r->op == DISK_READ;
    r->spans = p->span;
    e->start(e);
    if (!bounce) {
        if (!pci_is_master(m->pci))
            return -EFAULT;
        ret = gather(p, m, e, wanted, &gathered);
        if (ret)
            return ret;
    }
    if (gathered < wanted) {
        gathered = align_down(gathered, DISK_SECTOR_BYTES);
        trim_spans(p, gathered);
        if (!gathered)
            return prepare_bounce(p, m, e, MIN(wanted, DMA_BOUNCE_BYTES), r);
        e->start(e);
        ret = dma_skip(e, gathered);
        if (ret)
            return ret;
    }
    r->span_count = p->homes;
    r->bytes = gathered;
    return 0;
}

void dma_piece_forget(struct dma_piece *p)
{
    /* A piece that was given up may have written something. */
    for (unsigned n = 0; n < p->homes && p->to_guest; n++)
        ram_block_written(p->home[n].block, p->home[n].offset, p->span[n].bytes);
    free(p->bounce);
    p->bounce = NULL;
    p->homes = 0;
}
