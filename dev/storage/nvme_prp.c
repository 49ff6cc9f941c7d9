/*
 * PRPs (NVM Express 1.4c, 4.3): the pages of a command's data.
 *
 * PRP 1 is the first page, from an offset on. PRP 2 is the second and last page,
 * or the address of a list of all pages but the first. The last entry of a list
 * that fills its page is the address of the next list where more are needed. As
 * a command has 1 MiB of data at most, a walk reads three lists at most.
 *
 * Wrong offsets are -EBADR: PRP 1 not of whole doublewords, a list not of whole
 * quadwords, any other page or list that does not begin with a page.
 */
#include <errno.h>

#include "dev/storage/nvme_internal.h"

enum { ENTRY_BYTES = 8, ENTRIES_AT_ONCE = 64, COMPARE_AT_ONCE = 4096 };

static struct nvme_prp_walk *of(struct dma_extents *e)
{
    return CONTAINER_OF(e, struct nvme_prp_walk, extents);
}

static uint64_t first_bytes(const struct nvme_prp_walk *w)
{
    unsigned page = nvme_page_bytes(w->nvme);

    return page - w->prp1 % page;
}

/* Data pages, without the first. */
static unsigned pages_behind_first(const struct nvme_prp_walk *w)
{
    unsigned page = nvme_page_bytes(w->nvme);
    uint64_t first = first_bytes(w);

    return w->bytes > first ? (unsigned)((w->bytes - first + page - 1) / page) : 0;
}

/* A list at that address, for pages from `first` on. */
static void set_list(struct nvme_prp_walk *w, uint64_t address, unsigned first)
{
    unsigned page = nvme_page_bytes(w->nvme);
    unsigned entries = (unsigned)(page - address % page) / ENTRY_BYTES;
    unsigned left = pages_behind_first(w) + 1 - first;

    w->list = address;
    w->list_first = first;
    w->list_data = left <= entries ? left : entries - 1;
    w->count = 0;
}

static void start(struct dma_extents *e)
{
    struct nvme_prp_walk *w = of(e);

    w->done = w->from;
    w->first = 0;
    set_list(w, w->prp2, 1);
}

/* Moves on to the list that has page n. */
static int find_list(struct nvme_prp_walk *w, unsigned n)
{
    while (n >= w->list_first + w->list_data) {
        uint8_t next[ENTRY_BYTES];
        int ret = dma_read(&w->nvme->dma, w->list + (uint64_t)w->list_data * ENTRY_BYTES, next,
                           sizeof next);

        if (ret)
            return ret;
        if (le64_get(next) % nvme_page_bytes(w->nvme))
            return -EBADR;
        set_list(w, le64_get(next), w->list_first + w->list_data);
    }
    return 0;
}

/* The address of page n of the data, n > 0. */
static int page_address(struct nvme_prp_walk *w, unsigned n, uint64_t *address)
{
    int ret;

    if (pages_behind_first(w) == 1) {
        *address = w->prp2;
    } else {
        if (w->prp2 % ENTRY_BYTES)
            return -EBADR;
        ret = find_list(w, n);
        if (ret)
            return ret;
        if (n < w->first || n >= w->first + w->count) {
            w->first = n;
            w->count = MIN(w->list_first + w->list_data - n, ENTRIES_AT_ONCE);
            ret = dma_read(&w->nvme->dma, w->list + (uint64_t)(n - w->list_first) * ENTRY_BYTES,
                           w->entry, (uint64_t)w->count * ENTRY_BYTES);
            if (ret) {
                w->count = 0;
                return ret;
            }
        }
        *address = le64_get(w->entry + (size_t)(n - w->first) * ENTRY_BYTES);
    }
    return *address % nvme_page_bytes(w->nvme) ? -EBADR : 0;
}

static int at(struct dma_extents *e, uint64_t *address, uint64_t *bytes)
{
    struct nvme_prp_walk *w = of(e);
    unsigned page = nvme_page_bytes(w->nvme);
    uint64_t first = first_bytes(w), in_page;
    int ret;

    if (w->done >= w->bytes)
        return 0;
    if (w->done < first) {
        if (w->prp1 % 4)
            return -EBADR;
        *address = w->prp1 + w->done;
        *bytes = MIN(first, w->bytes) - w->done;
        return 1;
    }
    in_page = (w->done - first) % page;
    ret = page_address(w, 1 + (unsigned)((w->done - first) / page), address);
    if (ret)
        return ret;
    *address += in_page;
    *bytes = MIN(page - in_page, w->bytes - w->done);
    return 1;
}

static void on(struct dma_extents *e, uint64_t bytes)
{
    of(e)->done += bytes;
}

void nvme_prp_start(struct nvme_prp_walk *w, struct nvme *n, uint64_t prp1, uint64_t prp2,
                    uint64_t bytes, uint64_t from)
{
    w->extents = (struct dma_extents){start, at, on};
    w->nvme = n;
    w->prp1 = prp1;
    w->prp2 = prp2;
    w->bytes = bytes;
    w->from = from;
    start(&w->extents);
}

unsigned nvme_reply(struct nvme *n, const struct nvme_command *c, uint64_t wanted, void *buf,
                    uint64_t bytes)
{
    struct nvme_prp_walk w;

    nvme_prp_start(&w, n, c->prp1, c->prp2, wanted, 0);
    return nvme_status_of(dma_copy(&n->dma, &w.extents, buf, MIN(bytes, wanted), true),
                          NVME_DO_READ);
}

int nvme_prp_compare(struct nvme_prp_walk *w, const uint8_t *data, uint64_t bytes)
{
    uint8_t part[COMPARE_AT_ONCE];

    while (bytes) {
        uint64_t now = MIN(bytes, sizeof part);
        int ret = dma_copy(&w->nvme->dma, &w->extents, part, now, false);

        if (ret)
            return ret;
        if (memcmp(part, data, now))
            return 1;
        data += now;
        bytes -= now;
    }
    return 0;
}
