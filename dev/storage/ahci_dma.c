/*
 * Guest memory as the AHCI adapter reaches it (AHCI 1.3.1, 4.2.3.3): walking a
 * PRDT, spans of plain memory for the disk, and a buffer for all the rest.
 *
 * A command's data moves in pieces: as many entries as there are spans for, or
 * 64 KiB through a buffer where an entry points to a device, to read-only
 * memory or to nothing. So a hostile PRDT costs a bounded amount of memory.
 */
#include <errno.h>
#include <stdlib.h>

#include "dev/storage/ahci_internal.h"

enum { PRDS_AT_ONCE = 64 };

int ahci_dma_read(struct ahci *h, uint64_t address, void *buf, uint64_t bytes)
{
    int ret;

    h->dma_depth++;
    ret = pci_dma_read(&h->pci, address, buf, bytes);
    h->dma_depth--;
    return ret;
}

int ahci_dma_write(struct ahci *h, uint64_t address, const void *buf, uint64_t bytes)
{
    int ret;

    h->dma_depth++;
    ret = pci_dma_write(&h->pci, address, buf, bytes);
    h->dma_depth--;
    return ret;
}

/* ---- walking ---- */

/* Where a walk stands, and the entries that have been read ahead. */
struct walk {
    struct ahci_port *port;
    uint64_t table;
    uint32_t entries, prd, offset;
    bool interrupt;        /* an entry with its I bit has been passed */
    uint32_t first, count; /* of those in `entry` */
    uint8_t entry[PRDS_AT_ONCE * PRD_BYTES];
};

static void walk_start(struct walk *w, struct ahci_port *p, const struct ahci_slot_state *s)
{
    w->port = p;
    w->table = s->table + TABLE_PRDT;
    w->entries = s->prdt_entries;
    w->prd = s->prd;
    w->offset = s->prd_offset;
    w->interrupt = s->table_interrupt;
    w->first = w->count = 0;
}

/* What is left of the entry at hand: 1, 0 at the end, negative errno. */
static int walk_at(struct walk *w, uint64_t *address, uint64_t *bytes)
{
    const uint8_t *e;
    uint64_t length;

    if (w->prd >= w->entries)
        return 0;
    if (w->prd < w->first || w->prd >= w->first + w->count) {
        int ret;

        w->first = w->prd;
        w->count = MIN(w->entries - w->prd, PRDS_AT_ONCE);
        ret = ahci_dma_read(w->port->hba, w->table + (uint64_t)w->prd * PRD_BYTES, w->entry,
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

static void walk_on(struct walk *w, uint64_t bytes)
{
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

int ahci_prdt_covers(struct ahci_port *p, const struct ahci_slot_state *s, uint64_t bytes)
{
    struct walk w;

    walk_start(&w, p, s);
    while (bytes) {
        uint64_t address, part;
        int ret = walk_at(&w, &address, &part);

        if (ret <= 0)
            return ret;
        part = MIN(part, bytes);
        bytes -= part;
        walk_on(&w, part);
    }
    return 1;
}

static int copy(struct walk *w, uint8_t *buf, uint64_t bytes, bool to_guest)
{
    while (bytes) {
        uint64_t address, part;
        int ret = walk_at(w, &address, &part);

        if (ret <= 0)
            return ret ? ret : -EFAULT;
        part = MIN(part, bytes);
        ret = to_guest ? ahci_dma_write(w->port->hba, address, buf, part)
                       : ahci_dma_read(w->port->hba, address, buf, part);
        if (ret)
            return ret;
        buf += part;
        bytes -= part;
        walk_on(w, part);
    }
    return 0;
}

int ahci_prdt_copy(struct ahci_port *p, struct ahci_slot_state *s, void *buf, uint64_t bytes,
                   bool to_guest)
{
    struct walk w;
    int ret;

    walk_start(&w, p, s);
    ret = copy(&w, buf, bytes, to_guest);
    walk_keep(&w, s);
    return ret;
}

/* ---- pieces ---- */

/* Plain memory from where the walk stands; bytes that got a span. */
static int gather(struct ahci_slot *slot, struct walk *w, uint64_t bytes, uint64_t *gathered)
{
    struct address_space *memory = &slot->port->hba->vm->memory;
    bool to_guest = slot->port->state[slot->number].kind == ATA_DO_READ;

    *gathered = 0;
    slot->homes = 0;
    while (*gathered < bytes && slot->homes < AHCI_SPANS) {
        struct ahci_home *home = &slot->home[slot->homes];
        uint64_t address, part;
        int ret = walk_at(w, &address, &part);
        void *host;

        if (ret < 0)
            return ret;
        if (ret == 0)
            return -EFAULT; /* it was long enough when the command started */
        part = MIN(part, bytes - *gathered);
        host = as_map(memory, address, &part, to_guest, &home->block, &home->offset);
        if (!host)
            break;
        slot->span[slot->homes++] = (struct disk_span){host, part};
        *gathered += part;
        walk_on(w, part);
    }
    return 0;
}

/* Leaves whole sectors: the rest waits for the next piece. */
static void trim_spans(struct ahci_slot *slot, uint64_t bytes)
{
    uint64_t have = 0;

    for (unsigned n = 0; n < slot->homes; n++) {
        if (have + slot->span[n].bytes > bytes)
            slot->span[n].bytes = bytes - have;
        have += slot->span[n].bytes;
        if (have == bytes) {
            slot->homes = n + 1;
            return;
        }
    }
}

/* Walks again, over what the piece really has. */
static int walk_over(struct ahci_slot *slot, struct walk *w, uint64_t bytes)
{
    walk_start(w, slot->port, &slot->port->state[slot->number]);
    while (bytes) {
        uint64_t address, part;
        int ret = walk_at(w, &address, &part);

        if (ret <= 0)
            return ret ? ret : -EFAULT;
        part = MIN(part, bytes);
        bytes -= part;
        walk_on(w, part);
    }
    return 0;
}

static int prepare_bounce(struct ahci_slot *slot, struct walk *w, uint64_t bytes)
{
    struct ahci_slot_state *s = &slot->port->state[slot->number];
    int ret = 0;

    slot->bounce = malloc(bytes);
    if (!slot->bounce)
        return -ENOMEM;
    walk_start(w, slot->port, s);
    if (s->kind == ATA_DO_WRITE)
        ret = copy(w, slot->bounce, bytes, false);
    slot->homes = 0;
    slot->span[0] = (struct disk_span){slot->bounce, bytes};
    slot->request.span_count = 1;
    slot->request.bytes = bytes;
    return ret;
}

int ahci_piece_prepare(struct ahci_slot *slot)
{
    struct ahci_slot_state *s = &slot->port->state[slot->number];
    struct disk_request *r = &slot->request;
    uint64_t wanted = s->bytes - s->moved, gathered;
    struct walk w;
    int ret;

    ahci_piece_forget(slot);
    r->spans = slot->span;
    walk_start(&w, slot->port, s);
    ret = gather(slot, &w, wanted, &gathered);
    if (ret)
        return ret;
    if (gathered < wanted) {
        gathered = align_down(gathered, DISK_SECTOR_BYTES);
        trim_spans(slot, gathered);
        if (gathered)
            ret = walk_over(slot, &w, gathered);
        else
            ret = prepare_bounce(slot, &w, MIN(wanted, AHCI_BOUNCE_BYTES));
    }
    if (ret || !gathered)
        goto out;
    r->span_count = slot->homes;
    r->bytes = gathered;
out:
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

    if (slot->bounce && s->kind == ATA_DO_READ) {
        ret = ahci_prdt_copy(slot->port, s, slot->bounce, bytes, true);
    } else {
        s->prd = slot->next_prd;
        s->prd_offset = slot->next_prd_offset;
        s->table_interrupt = slot->next_interrupt;
    }
    s->moved += bytes;
    ahci_piece_forget(slot);
    return ret;
}

void ahci_piece_forget(struct ahci_slot *slot)
{
    /* A piece that was given up may have written something. */
    for (unsigned n = 0; n < slot->homes && slot->request.op == DISK_READ; n++)
        ram_block_written(slot->home[n].block, slot->home[n].offset, slot->span[n].bytes);
    free(slot->bounce);
    slot->bounce = NULL;
    slot->homes = 0;
}
