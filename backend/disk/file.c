/*
 * A regular file or a block device of the host: a raw image, or what an image
 * format stands on. Interface: disk_file_* in layer.h.
 *
 * Data goes by preadv and pwritev straight between the file and the spans.
 * cache=none opens the file a second time with O_DIRECT; a request that the
 * host cannot take so (spans or offset not aligned to its blocks) goes through
 * the first, and Linux keeps both views the same.
 *
 * An image whose size is no multiple of a sector is rounded up: what is missing
 * of the last sector reads as zeroes, and exists once it is written. So does
 * what a format writes beyond the end.
 *
 * An open file description lock on the whole image, shared by readers, keeps a
 * second machine from writing what a first one uses.
 *
 * Threading: any thread; nothing changes after disk_file_open but what is
 * atomic.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/disk/layer.h"
#include "base/log.h"

enum {
    SPANS_A_CALL = 128,
    DIRECT_ALIGN = 512, /* where the host says nothing else */
    GUARDED_BYTES = 512,
};

struct file_layer {
    struct disk_layer layer;
    int fd;
    int direct; /* the same with O_DIRECT, or -1 */
    unsigned direct_align, memory_align;
    bool is_guarded, is_device;
    _Atomic uint64_t file_bytes;     /* before rounding up; grows with what is written */
    atomic_bool no_discard, no_zero; /* the host has said so */
    _Atomic int lost;                /* errno: what the cache held may be gone; or 0 */
};

static_assert(sizeof(struct disk_span) == sizeof(struct iovec) &&
                  offsetof(struct disk_span, data) == offsetof(struct iovec, iov_base) &&
                  offsetof(struct disk_span, bytes) == offsetof(struct iovec, iov_len),
              "spans are passed to the host as they are");

static struct file_layer *of(struct disk_layer *l)
{
    return CONTAINER_OF(l, struct file_layer, layer);
}

/* ---- data ---- */

static int choose_fd(const struct file_layer *f, bool is_write, uint64_t offset,
                     const struct disk_span *spans, unsigned count, uint64_t bytes)
{
    if (f->direct < 0 || (offset | bytes) % f->direct_align ||
        (!is_write && offset + bytes > f->file_bytes))
        return f->fd;
    for (unsigned n = 0; n < count; n++)
        if (((uintptr_t)spans[n].data) % f->memory_align || spans[n].bytes % f->memory_align)
            return f->fd;
    return f->direct;
}

static void note_written(struct file_layer *f, uint64_t end)
{
    uint64_t was = atomic_load(&f->file_bytes);

    while (was < end && !atomic_compare_exchange_weak(&f->file_bytes, &was, end))
        ;
}

/* One direction of all spans, in as many calls as the host wants. */
static int transfer(struct file_layer *f, bool is_write, uint64_t offset,
                    const struct disk_span *spans, unsigned count, uint64_t bytes)
{
    int fd = choose_fd(f, is_write, offset, spans, count, bytes);
    struct disk_span part[SPANS_A_CALL];
    uint64_t done = 0;

    while (done < bytes) {
        uint64_t got;
        unsigned n = disk_spans_slice(spans, count, done, bytes - done, part, SPANS_A_CALL, &got);
        const struct iovec *iov = (const struct iovec *)part;
        ssize_t moved;

        if (!n)
            return -EINVAL; /* spans hold less than was said */
        moved = is_write ? pwritev(fd, iov, (int)n, (off_t)(offset + done))
                         : preadv(fd, iov, (int)n, (off_t)(offset + done));
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0 && errno == EINVAL && fd != f->fd) {
            fd = f->fd; /* its rules for direct I/O are not those it told */
            continue;
        }
        if (moved < 0)
            return -errno;
        if (moved == 0) {
            /* The end of the file: of a read, what rounding up added. */
            if (is_write || offset + done < f->file_bytes)
                return -EIO;
            disk_spans_zero(spans, count, done, bytes - done);
            return 0;
        }
        done += (uint64_t)moved;
        if (fd != f->fd && (uint64_t)moved % f->direct_align)
            fd = f->fd;
    }
    if (is_write)
        note_written(f, offset + bytes);
    return 0;
}

/* Would the image look like another format afterwards? */
static bool breaks_guard(struct file_layer *f, uint64_t offset, const struct disk_span *spans,
                         unsigned count, uint64_t bytes)
{
    uint8_t start[GUARDED_BYTES] = {0};
    uint64_t at = 0;

    if (!f->is_guarded || offset >= GUARDED_BYTES)
        return false;
    if (pread(f->fd, start, sizeof start, 0) < 0)
        return true;
    for (unsigned n = 0; n < count && at < bytes && offset + at < GUARDED_BYTES; n++) {
        uint64_t part = MIN(MIN(spans[n].bytes, bytes - at), GUARDED_BYTES - (offset + at));

        memcpy(start + offset + at, spans[n].data, part);
        at += spans[n].bytes;
    }
    return disk_format_of(start, sizeof start) != NULL;
}

static int file_read(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                     unsigned count, uint64_t bytes)
{
    return transfer(of(l), false, offset, spans, count, bytes);
}

/* From the host's cache, if all of it is there. */
static int file_read_now(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                         unsigned count, uint64_t bytes)
{
    struct file_layer *f = of(l);
    ssize_t moved;

    if (f->direct >= 0 || count > SPANS_A_CALL)
        return -EAGAIN;
    moved = preadv2(f->fd, (const struct iovec *)spans, (int)count, (off_t)offset, RWF_NOWAIT);
    return moved == (ssize_t)bytes ? 0 : -EAGAIN;
}

static int file_write(struct disk_layer *l, uint64_t offset, const struct disk_span *spans,
                      unsigned count, uint64_t bytes)
{
    if (breaks_guard(of(l), offset, spans, count, bytes))
        return -EPERM;
    return transfer(of(l), true, offset, spans, count, bytes);
}

/* The host tells once that it could not write what was in its cache, and drops
 * it: later calls would go well. Whoever asks shall hear of it as long as the
 * image is open (the guest's own copy is gone by then). */
static int file_flush(struct disk_layer *l)
{
    struct file_layer *f = of(l);
    int lost = 0;

    while (fdatasync(f->fd) < 0) {
        if (errno == EINTR)
            continue;
        /* Relaxed: the error and nothing else. */
        atomic_compare_exchange_strong_explicit(&f->lost, &lost, errno, memory_order_relaxed,
                                                memory_order_relaxed);
        break;
    }
    return -atomic_load_explicit(&f->lost, memory_order_relaxed);
}

static int change(struct file_layer *f, int mode, uint64_t offset, uint64_t bytes)
{
    while (fallocate(f->fd, mode, (off_t)offset, (off_t)bytes) < 0) {
        if (errno == EINTR)
            continue;
        return errno == ENOSYS || errno == ENODEV || errno == EINVAL ? -EOPNOTSUPP : -errno;
    }
    return 0;
}

static int file_discard(struct disk_layer *l, uint64_t offset, uint64_t bytes)
{
    struct file_layer *f = of(l);
    int ret;

    if (!bytes || atomic_load(&f->no_discard))
        return 0;
    ret = change(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
    if (ret != -EOPNOTSUPP)
        return ret;
    atomic_store(&f->no_discard, true);
    return 0;
}

static int file_zero(struct disk_layer *l, uint64_t offset, uint64_t bytes)
{
    struct file_layer *f = of(l);
    int ret;

    /* Zeroes beyond the end are written, so that they exist. */
    if (!bytes || offset + bytes > f->file_bytes)
        return bytes ? -EOPNOTSUPP : 0;
    if (atomic_load(&f->no_zero))
        return -EOPNOTSUPP;
    ret = change(f, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, bytes);
    if (ret == -EOPNOTSUPP)
        ret = change(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
    if (ret == -EOPNOTSUPP)
        atomic_store(&f->no_zero, true);
    return ret;
}

/* The host's holes; what it cannot say is data. */
static int file_map(struct disk_layer *l, uint64_t offset, uint64_t bytes, uint64_t *run)
{
    struct file_layer *f = of(l);
    off_t data, hole;

    *run = bytes;
    if (f->is_device)
        return DISK_MAP_DATA;
    if (offset >= f->file_bytes)
        return DISK_MAP_ZERO;
    data = lseek(f->fd, (off_t)offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? DISK_MAP_ZERO : DISK_MAP_DATA;
    if ((uint64_t)data / DISK_SECTOR_BYTES > offset / DISK_SECTOR_BYTES) {
        *run = MIN(bytes, align_down((uint64_t)data, DISK_SECTOR_BYTES) - offset);
        return DISK_MAP_ZERO;
    }
    hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
    if (hole > 0 && (uint64_t)hole > offset)
        *run = MIN(bytes, align_up((uint64_t)hole, DISK_SECTOR_BYTES) - offset);
    return DISK_MAP_DATA;
}

static int file_resize(struct disk_layer *l, uint64_t bytes)
{
    struct file_layer *f = of(l);

    if (f->is_device)
        return -EOPNOTSUPP;
    while (ftruncate(f->fd, (off_t)bytes) < 0)
        if (errno != EINTR)
            return -errno;
    f->file_bytes = bytes;
    l->bytes = align_up(bytes, DISK_SECTOR_BYTES);
    return 0;
}

static void file_destroy(struct disk_layer *l)
{
    struct file_layer *f = of(l);

    if (f->direct >= 0)
        close(f->direct);
    if (f->fd >= 0)
        close(f->fd);
    free(f);
}

static const struct disk_layer_ops file_ops = {
    .name = "file",
    .read = file_read,
    .read_now = file_read_now,
    .write = file_write,
    .flush = file_flush,
    .discard = file_discard,
    .zero = file_zero,
    .map = file_map,
    .resize = file_resize,
    .destroy = file_destroy,
};

/* ---- opening ---- */

static int open_image(struct file_layer *f, const char *path, struct error *err)
{
    struct stat st;
    int mode = f->layer.readonly ? O_RDONLY : O_RDWR;

    if (stat(path, &st) < 0)
        return error_set(err, -errno, "disk %s: %s", path, strerror(errno));
    f->is_device = S_ISBLK(st.st_mode);
    if (!S_ISREG(st.st_mode) && !f->is_device)
        return error_set(err, -EINVAL, "disk %s: give a file or a block device", path);
    f->fd = open(path, mode | O_CLOEXEC | O_NOCTTY);
    if (f->fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM) && mode == O_RDWR)
        return error_set(err, -errno,
                         "disk %s: %s: give ,readonly or ,snapshot after it, or permission to "
                         "write",
                         path, strerror(errno));
    if (f->fd < 0)
        return error_set(err, -errno, "disk %s: %s", path, strerror(errno));
    return 0;
}

static int find_size(struct file_layer *f, const char *path, struct error *err)
{
    off_t end = lseek(f->fd, 0, SEEK_END);

    if (end < 0)
        return error_set(err, -errno, "disk %s: no size: %s", path, strerror(errno));
    f->file_bytes = (uint64_t)end;
    f->layer.bytes = align_up(f->file_bytes, DISK_SECTOR_BYTES);
    return 0;
}

static int lock_image(struct file_layer *f, const char *path, struct log *log, struct error *err)
{
    struct flock lock = {.l_type = f->layer.readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(f->fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return error_set(err, -EBUSY,
                         f->layer.readonly
                             ? "disk %s: another machine writes to it: stop that one first"
                             : "disk %s is used by another machine: stop that one, or give both "
                               ",readonly or ,snapshot",
                         path);
    if (log)
        vlog(log, BACKEND, WARN,
             "disk %s: the host cannot lock it (%s): use it in one machine only", path,
             strerror(errno));
    return 0;
}

static int open_direct(struct file_layer *f, const char *path, struct error *err)
{
    int mode = f->layer.readonly ? O_RDONLY : O_RDWR;
    struct stat a, b;
    int block;

    f->direct_align = f->memory_align = DIRECT_ALIGN;
    f->direct = open(path, mode | O_DIRECT | O_CLOEXEC | O_NOCTTY);
    if (f->direct < 0)
        return error_set(err, -errno,
                         "disk %s: no O_DIRECT here (%s): use cache=writeback, not none", path,
                         strerror(errno));
    if (fstat(f->fd, &a) || fstat(f->direct, &b) || a.st_ino != b.st_ino || a.st_dev != b.st_dev)
        return error_set(err, -EAGAIN, "disk %s was replaced while it was opened: try again", path);
    if (S_ISBLK(a.st_mode) && ioctl(f->fd, BLKSSZGET, &block) == 0 && block > 0)
        f->direct_align = f->memory_align = (unsigned)block;
#ifdef STATX_DIOALIGN
    struct statx sx;

    if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
        (sx.stx_mask & STATX_DIOALIGN) && sx.stx_dio_offset_align) {
        f->direct_align = sx.stx_dio_offset_align;
        f->memory_align = MAX(sx.stx_dio_mem_align, 1u);
    }
#endif
    return 0;
}

static struct file_layer *file_create(bool readonly)
{
    struct file_layer *f = calloc(1, sizeof *f);

    if (!f)
        return NULL;
    f->layer.ops = &file_ops;
    f->layer.readonly = readonly;
    f->fd = f->direct = -1;
    return f;
}

struct disk_layer *disk_file_from_fd(int fd, uint64_t bytes)
{
    struct file_layer *f = file_create(false);

    if (!f) {
        close(fd);
        return NULL;
    }
    f->fd = fd;
    f->file_bytes = f->layer.bytes = bytes;
    return &f->layer;
}

struct disk_layer *disk_file_open(const char *path, bool readonly, enum disk_cache cache,
                                  struct log *log, struct error *err)
{
    struct file_layer *f = file_create(readonly);

    if (!f) {
        error_set(err, -ENOMEM, "out of memory for a disk");
        return NULL;
    }
    if (open_image(f, path, err) || find_size(f, path, err) || lock_image(f, path, log, err) ||
        (cache == DISK_NONE && open_direct(f, path, err))) {
        file_destroy(&f->layer);
        return NULL;
    }
    return &f->layer;
}

void disk_file_guard(struct disk_layer *l)
{
    of(l)->is_guarded = true;
}

bool disk_file_can_grow(const struct disk_layer *l)
{
    return !CONTAINER_OF(l, const struct file_layer, layer)->is_device;
}
