/*
 * An overlay: what is written goes to a temporary file, the layer below is only
 * read. For --disk's `snapshot`. Interface: disk_overlay_create in layer.h.
 *
 * The temporary file is sparse, has no name from the start and is as large as
 * the disk; one bit a sector says whether it or the layer below has it. Bits
 * are in leaves of 4 KiB (16 MiB of disk), made when first needed. A sector is
 * the unit of all requests, so nothing is ever copied up, and two requests meet
 * only where the guest made them race.
 *
 * Threading: any thread. Bits are set after the bytes are in the file (release,
 * and acquire where they are read), leaves are put in place by compare and
 * exchange.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/disk/layer.h"

enum {
    LEAF_WORDS = 512,
    LEAF_SECTORS = LEAF_WORDS * 64,
    SPANS = 64,
};

struct leaf {
    _Atomic uint64_t word[LEAF_WORDS];
};

struct overlay {
    struct disk_layer layer;
    struct disk_layer *store; /* the temporary file */
    uint64_t leaf_count;
    _Atomic(struct leaf *) leaf[];
};

static struct overlay *of(struct disk_layer *l)
{
    return CONTAINER_OF(l, struct overlay, layer);
}

/* ---- whose sector is it ---- */

static bool is_stored(struct overlay *o, uint64_t sector)
{
    struct leaf *leaf = atomic_load_explicit(&o->leaf[sector / LEAF_SECTORS], memory_order_acquire);
    uint64_t bit = sector % LEAF_SECTORS;

    return leaf &&
           atomic_load_explicit(&leaf->word[bit / 64], memory_order_acquire) >> bit % 64 & 1;
}

static struct leaf *get_leaf(struct overlay *o, uint64_t index)
{
    struct leaf *leaf = atomic_load_explicit(&o->leaf[index], memory_order_acquire), *fresh;

    if (leaf)
        return leaf;
    fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return NULL;
    if (atomic_compare_exchange_strong(&o->leaf[index], &leaf, fresh))
        return fresh;
    free(fresh); /* another thread was faster */
    return leaf;
}

static int make_leaves(struct overlay *o, uint64_t sector, uint64_t count)
{
    for (uint64_t n = sector / LEAF_SECTORS; n <= (sector + count - 1) / LEAF_SECTORS; n++)
        if (!get_leaf(o, n))
            return -ENOMEM;
    return 0;
}

static void set_stored(struct overlay *o, uint64_t sector, uint64_t count)
{
    while (count) {
        struct leaf *leaf = atomic_load(&o->leaf[sector / LEAF_SECTORS]);
        uint64_t bit = sector % LEAF_SECTORS, n = MIN(64 - bit % 64, count);

        atomic_fetch_or_explicit(&leaf->word[bit / 64],
                                 (n == 64 ? ~0ull : (1ull << n) - 1) << bit % 64,
                                 memory_order_release);
        sector += n;
        count -= n;
    }
}

/* How many sectors from there on have the same answer. */
static uint64_t run_length(struct overlay *o, uint64_t sector, uint64_t count, bool stored)
{
    uint64_t n = 0;

    while (n < count) {
        uint64_t at = sector + n;

        if (at % LEAF_SECTORS == 0 && !stored && !atomic_load(&o->leaf[at / LEAF_SECTORS])) {
            n += MIN(LEAF_SECTORS, count - n);
            continue;
        }
        if (is_stored(o, at) != stored)
            break;
        n++;
    }
    return n;
}

/* ---- data ---- */

static int read_part(struct disk_layer *from, uint64_t offset, const struct disk_span *spans,
                     unsigned count, uint64_t skip, uint64_t bytes)
{
    struct disk_span part[SPANS];

    while (bytes) {
        uint64_t got;
        unsigned n = disk_spans_slice(spans, count, skip, bytes, part, SPANS, &got);
        int ret = n ? from->ops->read(from, offset, part, n, got) : -EINVAL;

        if (ret)
            return ret;
        offset += got;
        skip += got;
        bytes -= got;
    }
    return 0;
}

static int overlay_read(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                        unsigned count, uint64_t bytes)
{
    struct overlay *o = of(l);
    uint64_t done = 0;

    while (done < bytes) {
        uint64_t sector = (offset + done) / DISK_SECTOR_BYTES;
        bool stored = is_stored(o, sector);
        uint64_t n =
            run_length(o, sector, (bytes - done) / DISK_SECTOR_BYTES, stored) * DISK_SECTOR_BYTES;
        int ret = read_part(stored ? o->store : l->below, offset + done, spans, count, done, n);

        if (ret)
            return ret;
        done += n;
    }
    return 0;
}

static int overlay_read_now(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                            unsigned count, uint64_t bytes)
{
    struct overlay *o = of(l);
    uint64_t sector = offset / DISK_SECTOR_BYTES, sectors = bytes / DISK_SECTOR_BYTES;
    bool stored = is_stored(o, sector);
    struct disk_layer *from = stored ? o->store : l->below;

    if (!from->ops->read_now || run_length(o, sector, sectors, stored) < sectors)
        return -EAGAIN;
    return from->ops->read_now(from, offset, spans, count, bytes);
}

static int overlay_write(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                         unsigned count, uint64_t bytes)
{
    struct overlay *o = of(l);
    uint64_t sector = offset / DISK_SECTOR_BYTES, sectors = bytes / DISK_SECTOR_BYTES;
    int ret;

    if (!bytes)
        return 0;
    /* First what may fail: a sector that is written is never half known. */
    ret = make_leaves(o, sector, sectors);
    if (!ret)
        ret = o->store->ops->write(o->store, offset, spans, count, bytes);
    if (!ret)
        set_stored(o, sector, sectors);
    return ret;
}

static int overlay_flush(struct disk_layer *l)
{
    return 0; /* all of it is gone at the end */
}

static int overlay_zero(struct disk_layer *l, uint64_t offset, uint64_t bytes)
{
    struct overlay *o = of(l);
    uint64_t sector = offset / DISK_SECTOR_BYTES, sectors = bytes / DISK_SECTOR_BYTES;
    int ret;

    if (!bytes)
        return 0;
    ret = make_leaves(o, sector, sectors);
    if (!ret)
        ret = disk_layer_zero(o->store, offset, bytes);
    if (!ret)
        set_stored(o, sector, sectors);
    return ret;
}

static void overlay_destroy(struct disk_layer *l)
{
    struct overlay *o = of(l);

    for (uint64_t n = 0; n < o->leaf_count; n++)
        free(atomic_load(&o->leaf[n]));
    disk_layer_destroy(o->store);
    disk_layer_destroy(l->below);
    free(o);
}

static const struct disk_layer_ops overlay_ops = {
    .name = "overlay",
    .read = overlay_read,
    .read_now = overlay_read_now,
    .write = overlay_write,
    .flush = overlay_flush,
    .discard = overlay_zero,
    .zero = overlay_zero,
    .destroy = overlay_destroy,
};

/* ---- the temporary file ---- */

/* On a disk rather than in memory where there is a choice: it may grow large. */
static int open_temporary(uint64_t bytes, struct error *err)
{
    const char *given = getenv("TMPDIR");
    const char *const folders[] = {given && *given ? given : "/var/tmp", "/var/tmp", "/tmp"};
    char path[256];
    int fd = -1;

    for (size_t n = 0; n < ARRAY_SIZE(folders) && fd < 0; n++) {
        fd = open(folders[n], O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
        if (fd >= 0)
            break;
        /* A file system without files that have no name. */
        snprintf(path, sizeof path, "%s/vireo-XXXXXX", folders[n]);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0)
            unlink(path);
    }
    if (fd < 0)
        return error_set(err, -errno,
                         "snapshot: no temporary file in %s: %s: set TMPDIR to a folder with room",
                         folders[0], strerror(errno));
    if (ftruncate(fd, (off_t)bytes) < 0) {
        int code = error_set(err, -errno, "snapshot: a temporary file cannot have %llu bytes: %s",
                             (unsigned long long)bytes, strerror(errno));

        close(fd);
        return code;
    }
    return fd;
}

struct disk_layer *disk_overlay_create(struct disk_layer *below, struct error *err)
{
    uint64_t leaves = (below->bytes / DISK_SECTOR_BYTES + LEAF_SECTORS - 1) / LEAF_SECTORS;
    struct overlay *o = calloc(1, sizeof *o + leaves * sizeof o->leaf[0]);
    int fd;

    if (!o) {
        error_set(err, -ENOMEM, "out of memory for a snapshot");
        disk_layer_destroy(below);
        return NULL;
    }
    o->layer = (struct disk_layer){.ops = &overlay_ops, .bytes = below->bytes, .below = below};
    o->leaf_count = leaves;
    fd = open_temporary(below->bytes, err);
    if (fd >= 0) {
        o->store = disk_file_from_fd(fd, below->bytes);
        if (!o->store)
            error_set(err, -ENOMEM, "out of memory for a snapshot");
    }
    if (!o->store) {
        overlay_destroy(&o->layer);
        return NULL;
    }
    return &o->layer;
}
