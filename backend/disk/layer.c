/*
 * What layers of a disk share: cutting lists of spans, zeroes.
 * Interface: layer.h. Threading: any thread.
 */
#include "backend/disk/layer.h"

#include <errno.h>

enum { ZERO_BYTES = 64 * 1024, ZERO_SPANS = 64 };

static const uint8_t zeroes[ZERO_BYTES];

unsigned disk_spans_slice(const struct disk_span *spans, unsigned count, uint64_t skip,
                          uint64_t bytes, struct disk_span *out, unsigned room, uint64_t *got)
{
    unsigned used = 0;

    *got = 0;
    for (unsigned n = 0; n < count && bytes && used < room; n++) {
        uint64_t part = spans[n].bytes;

        if (skip >= part) {
            skip -= part;
            continue;
        }
        part = MIN(part - skip, bytes);
        out[used].data = (uint8_t *)spans[n].data + skip;
        out[used].bytes = part;
        used++;
        skip = 0;
        bytes -= part;
        *got += part;
    }
    return used;
}

void disk_spans_zero(const struct disk_span *spans, unsigned count, uint64_t skip, uint64_t bytes)
{
    for (unsigned n = 0; n < count && bytes; n++) {
        uint64_t part = spans[n].bytes;

        if (skip >= part) {
            skip -= part;
            continue;
        }
        part = MIN(part - skip, bytes);
        memset((uint8_t *)spans[n].data + skip, 0, part);
        skip = 0;
        bytes -= part;
    }
}

int disk_layer_zero(struct disk_layer *l, uint64_t offset, uint64_t bytes)
{
    struct disk_span spans[ZERO_SPANS];
    int ret = l->ops->zero ? l->ops->zero(l, offset, bytes) : -EOPNOTSUPP;

    if (ret != -EOPNOTSUPP)
        return ret;
    for (ret = 0; bytes && !ret;) {
        uint64_t part = 0;
        unsigned n;

        for (n = 0; n < ZERO_SPANS && part < bytes; n++) {
            /* Only read from: a layer's write does not write there. */
            spans[n].data = (void *)(uintptr_t)zeroes;
            spans[n].bytes = MIN(bytes - part, ZERO_BYTES);
            part += spans[n].bytes;
        }
        ret = l->ops->write(l, offset, spans, n, part);
        offset += part;
        bytes -= part;
    }
    return ret;
}

int disk_layer_map(struct disk_layer *l, uint64_t offset, uint64_t bytes, uint64_t *run)
{
    int kind;

    *run = bytes;
    for (;;) {
        kind = l->ops->map ? l->ops->map(l, offset, *run, run) : DISK_MAP_DATA;
        if (kind != DISK_MAP_BELOW)
            return kind;
        l = l->below;
        if (!l || offset >= l->bytes)
            return DISK_MAP_ZERO;
        *run = MIN(*run, l->bytes - offset);
    }
}
