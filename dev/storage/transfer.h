/*
 * A command's data between a disk and guest memory, for any adapter.
 *
 * What the adapter's tables say (AHCI's PRDT, NVMe's PRPs) is a list of extents
 * of guest memory, which the adapter walks; here extents become the spans of a
 * request to the disk, so that data moves without a copy. It moves in pieces: as
 * many spans as there are, or 64 KiB through a buffer where an extent is a
 * device, read-only memory or nothing. So hostile tables cost a bounded amount
 * of memory.
 *
 * An adapter does not answer its own DMA: while dma_master.depth is not 0 its
 * registers read as ones and write nothing, as on a bus where it is the master.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_STORAGE_TRANSFER_H
#define DEV_STORAGE_TRANSFER_H

#include "backend/disk/disk.h"
#include "dev/pci/pci.h"

#define DMA_SPANS 257 /* of one piece: 1 MiB in pages of 4 KiB that begins anywhere */
#define DMA_BOUNCE_BYTES 65536

struct dma_master {
    struct vm *vm;
    struct pci_function *pci;
    unsigned depth;
};

int dma_read(struct dma_master *m, uint64_t address, void *buf, uint64_t bytes);
int dma_write(struct dma_master *m, uint64_t address, const void *buf, uint64_t bytes);

/* A walk over extents; the adapter's struct has this one in it. */
struct dma_extents {
    /* To where the command stands. */
    void (*start)(struct dma_extents *e);
    /* What is left of the extent at hand: 1, 0 at the end, negative errno. */
    int (*at)(struct dma_extents *e, uint64_t *address, uint64_t *bytes);
    /* On by so much, at most what at() has told. */
    void (*on)(struct dma_extents *e, uint64_t bytes);
};

/* From where the walk stands; -EFAULT where it ends before. Skip: moves nothing. */
int dma_copy(struct dma_master *m, struct dma_extents *e, void *buf, uint64_t bytes, bool to_guest);
int dma_skip(struct dma_extents *e, uint64_t bytes);

struct dma_piece {
    bool to_guest;
    unsigned homes;  /* spans that are guest memory */
    uint8_t *bounce; /* else the buffer */
    struct disk_span span[DMA_SPANS];
    /* Of each span its place in a RAM block: who caches code of it is told. */
    struct dma_home {
        struct ram_block *block;
        uint64_t offset;
    } home[DMA_SPANS];
};

/*
 * The next piece of a command that has `wanted` bytes (whole sectors) left, as
 * r's spans and bytes (whole sectors, too). r->op says which way. The walk is
 * started, and stands behind the piece afterwards. bounce: through the buffer in
 * any case.
 */
int dma_piece_prepare(struct dma_piece *p, struct dma_master *m, struct dma_extents *e,
                      uint64_t wanted, bool bounce, struct disk_request *r);
/* Its data has moved, or it was given up: code in the range is forgotten, and so
 * is the buffer. What was read into that is dma_copied before. */
void dma_piece_forget(struct dma_piece *p);

#endif
