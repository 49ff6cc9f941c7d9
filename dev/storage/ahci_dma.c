/*
 * A PRDT as the AHCI adapter walks it (AHCI 1.3.1, 4.2.3.3), read ahead by some
 * entries. How its extents meet the disk is in transfer.h.
 */
#include <errno.h>

#include "dev/storage/ahci_internal.h"

enum { PRDS_AT_ONCE = 64 };

/* ---- walking ---- */

/* Where a walk stands, and the entries that have been read ahead. */
struct walk {
    struct dma_extents extents;
    struct ahci_port *port;
    const struct ahci_slot_state *from;
    uint64_t table;
    uint32_t entries, prd, offset;
    bool interrupt;        /* an entry with its I bit has been passed */
    uint32_t first, count; /* of those in `entry` */
    uint8_t entry[PRDS_AT_ONCE * PRD_BYTES];
};

static struct walk *of(struct dma_extents *e)
{
    return CONTAINER_OF(e, struct walk, extents);
}

static void walk_start(struct dma_extents *e)
{
    struct walk *w = of(e);

    w->table = w->from->table + TABLE_PRDT;
    w->entries = w->from->prdt_entries;
    w->prd = w->from->prd;
    w->offset = w->from->prd_offset;
    w->interrupt = w->from->table_interrupt;
    w->first = w->count = 0;
}

/* What is left of the entry at hand: 1, 0 at the end, negative errno. */
static int walk_at(struct dma_extents *extents, uint64_t *address, uint64_t *bytes)
{
    struct walk *w = of(extents);
    const uint8_t *e;
    uint64_t length;

    if (w->prd >= w->entries)
        return 0;
    if (w->prd < w->first || w->prd >= w->first + w->count) {
        int ret;

        w->first = w->prd;
        w->count = MIN(w->entries - w->prd, PRDS_AT_ONCE);
        ret = dma_read(&w->port->hba->dma, w->table + (uint64_t)w->prd * PRD_BYTES, w->entry,
                       (uint64_t)w->count * PRD_BYTES);
        if (ret) {
            w->count = 0;
            return ret;
        }
    }
    e = w->entry + (size_t)(w->prd - w->first) * PRD_BYTES;
    length = (uint64_t)(le32_get(e + 12) & PRD_COUNT) + 1;
    if (w->offset >= length) /* the guest has changed it meanwhile */
        return -EFAULT;
    *address = le64_get(e) + w->offset;
    *bytes = length - w->offset;
    return 1;
}

static void walk_on(struct dma_extents *extents, uint64_t bytes)
{
    struct walk *w = of(extents);
    const uint8_t *e = w->entry + (size_t)(w->prd - w->first) * PRD_BYTES;
    uint32_t last = le32_get(e + 12);

    w->offset += (uint32_t)bytes;
    if (w->offset <= (last & PRD_COUNT))
        return;
    w->offset = 0;
    w->prd++;
    w->interrupt |= last >> 31;
}

static void walk_keep(const struct walk *w, struct ahci_slot_state *s)
{
    s->prd = w->prd;
    s->prd_offset = w->offset;
    s->table_interrupt = w->interrupt;
}

static void walk_init(struct walk *w, struct ahci_port *p, const struct ahci_slot_state *s)
{
    w->extents = (struct dma_extents){walk_start, walk_at, walk_on};
    w->port = p;
    w->from = s;
    walk_start(&w->extents);
}

int ahci_prdt_covers(struct ahci_port *p, const struct ahci_slot_state *s, uint64_t bytes)
{
    struct walk w;

    walk_init(&w, p, s);
    while (bytes) {
        uint64_t address, part;
        int ret = walk_at(&w.extents, &address, &part);

        if (ret <= 0)
            return ret;
        part = MIN(part, bytes);
        bytes -= part;
        walk_on(&w.extents, part);
    }
    return 1;
}

int ahci_prdt_copy(struct ahci_port *p, struct ahci_slot_state *s, void *buf, uint64_t bytes,
                   bool to_guest)
{
    struct walk w;
    int ret;

    walk_init(&w, p, s);
    ret = dma_copy(&p->hba->dma, &w.extents, buf, bytes, to_guest);
    walk_keep(&w, s);
    return ret;
}

/* ---- pieces ---- */

int ahci_piece_prepare(struct ahci_slot *slot)
{
    struct ahci_slot_state *s = &slot->port->state[slot->number];
    struct walk w;
    int ret;

    walk_init(&w, slot->port, s);
    ret = dma_piece_prepare(&slot->piece, &slot->port->hba->dma, &w.extents, s->bytes - s->moved,
                            false, &slot->request);
    slot->next_prd = w.prd;
    slot->next_prd_offset = w.offset;
    slot->next_interrupt = w.interrupt;
    return ret;
}

int ahci_piece_finish(struct ahci_slot *slot)
{
    struct ahci_slot_state *s = &slot->port->state[slot->number];
    uint64_t bytes = slot->request.bytes;
    int ret = 0;

    if (slot->piece.bounce && s->kind == ATA_DO_READ) {
        ret = ahci_prdt_copy(slot->port, s, slot->piece.bounce, bytes, true);
    } else {
        s->prd = slot->next_prd;
        s->prd_offset = slot->next_prd_offset;
        s->table_interrupt = slot->next_interrupt;
    }
    s->moved += bytes;
    dma_piece_forget(&slot->piece);
    return ret;
}
