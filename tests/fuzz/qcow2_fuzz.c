/*
 * Hostile qcow2 images: headers, tables and refcounts as they should not be,
 * compressed data that is none, lists of snapshots that lie, chains of images that
 * name each other; then used, checked and repaired.
 *
 * usage: driver.h; --input FILE is an image, used as it is with seed 1.
 *
 * A case makes a good image with data, compressed clusters and snapshots, spoils
 * some of it, and does at random what a machine and vireo img do. It must not
 * crash or hang or use memory without end (the sanitizers' part); files may not
 * grow beyond a limit, which is a full disk to the image. An image that nobody has
 * spoiled has to be without damage at the end, and one that was repaired without
 * an error may have no leaks and no wrong counts.
 *
 * Threading: one.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/disk/layer.h"
#include "backend/disk/qcow2.h"
#include "base/host.h"
#include "tests/fuzz/driver.h"

enum { HANG_SECONDS = 60, SPAN_BYTES = 128 << 10, CHAIN = 4 };

#define FILE_LIMIT (256 * MiB)

struct fuzz {
    struct fuzz_driver d; /* a case that is had again prints what checks find */
    uint8_t data[SPAN_BYTES];
};

static struct disk_layer *layer_of(int fd, bool readonly)
{
    struct stat st;
    struct disk_layer *l;

    if (fstat(fd, &st))
        return NULL;
    l = disk_file_from_fd(dup(fd), (uint64_t)st.st_size);
    if (l)
        l->readonly = readonly;
    return l;
}

/* ---- use ---- */

static void use(struct fuzz *f, struct disk_layer *l)
{
    struct rng *r = &f->d.from.rng;
    uint64_t sectors = l->bytes / DISK_SECTOR_BYTES, sector, bytes, run;
    struct disk_span span;

    if (!sectors)
        return;
    sector =
        rng_one_in(r, 3) ? sectors - 1 - rng_below(r, MIN(sectors, 64)) : rng_below(r, sectors);
    bytes =
        MIN(rng_below(r, SPAN_BYTES / DISK_SECTOR_BYTES) + 1, sectors - sector) * DISK_SECTOR_BYTES;
    span = (struct disk_span){f->data, bytes};
    switch (rng_below(r, l->readonly ? 3 : 8)) {
    case 0:
    case 1:
        /* As a disk asks: first whether it is in memory. */
        if (!l->ops->read_now || l->ops->read_now(l, sector * DISK_SECTOR_BYTES, &span, 1, bytes))
            l->ops->read(l, sector * DISK_SECTOR_BYTES, &span, 1, bytes);
        break;
    case 2:
        disk_layer_map(l, sector * DISK_SECTOR_BYTES, bytes, &run);
        break;
    case 3:
    case 4:
        l->ops->write(l, sector * DISK_SECTOR_BYTES, &span, 1, bytes);
        break;
    case 5:
        disk_layer_zero(l, sector * DISK_SECTOR_BYTES, bytes);
        break;
    case 6:
        if (l->ops->discard)
            l->ops->discard(l, sector * DISK_SECTOR_BYTES, bytes);
        break;
    case 7:
        l->ops->flush(l);
        break;
    }
}

static void use_snapshots(struct fuzz *f, struct disk_layer *l)
{
    struct qcow2_snapshots list;
    struct error err;
    char which[8];

    snprintf(which, sizeof which, "%llu", (unsigned long long)rng_below(&f->d.from.rng, 4));
    if (l->readonly) {
        qcow2_snapshot_view(l, which, &err);
        return;
    }
    switch (rng_below(&f->d.from.rng, 4)) {
    case 0:
        if (!qcow2_snapshots_read(l, &list, &err))
            qcow2_snapshots_free(&list);
        break;
    case 1:
        qcow2_snapshot_create(l, which, &err);
        break;
    case 2:
        qcow2_snapshot_apply(l, which, &err);
        break;
    case 3:
        qcow2_snapshot_delete(l, which, &err);
        break;
    }
}

static void use_packed(struct fuzz *f, struct disk_layer *l)
{
    struct qcow2_packer *packer;
    struct qcow2_info info;
    uint64_t cluster, guest;
    uint8_t *data, *room;
    size_t packed;

    qcow2_get_info(l, &info);
    cluster = BIT(info.cluster_bits);
    if (l->bytes < cluster)
        return;
    data = calloc(1, cluster);
    room = malloc(cluster);
    guest = rng_below(&f->d.from.rng, l->bytes / cluster);
    for (uint64_t n = 0; n < cluster; n += 1 + rng_below(&f->d.from.rng, 97))
        data[n] = (uint8_t)n;
    packer = qcow2_packer_create(l);
    packed = qcow2_pack(packer, data, room);
    qcow2_packer_destroy(packer);
    if (packed)
        qcow2_write_packed(l, &(struct qcow2_packed){guest * cluster, room, packed}, 1);
    free(data);
    free(room);
}

static void use_all(struct fuzz *f, struct disk_layer *l, unsigned ops)
{
    for (unsigned n = 0; n < ops; n++) {
        if (qcow2_is(l) && rng_one_in(&f->d.from.rng, 12))
            use_snapshots(f, l);
        else if (!l->readonly && qcow2_is(l) && rng_one_in(&f->d.from.rng, 8))
            use_packed(f, l);
        else
            use(f, l);
    }
}

/* ---- check ---- */

static void print_line(void *ctx, const char *line)
{
    puts(line);
}

static void check(struct fuzz *f, int fd, bool is_good, enum qcow2_repair repair)
{
    struct qcow2_check k = {0};
    struct error err = {.text = ""};
    struct disk_layer *l =
        qcow2_open_to_check(layer_of(fd, repair == QCOW2_REPAIR_NONE), "fuzz", &err);
    int ret;

    if (!l) {
        if (is_good)
            fuzz_failed(&f->d, err.text);
        return;
    }
    ret = qcow2_check(l, repair, &k, &err);
    if (is_good && (ret || k.corruptions || k.leaks))
        fuzz_failed(&f->d, "an image that nobody has spoiled is damaged");
    if (!ret && repair == QCOW2_REPAIR_ALL) {
        uint64_t corruptions = k.corruptions;

        k.tell = f->d.is_again ? print_line : NULL;
        ret = qcow2_check(l, QCOW2_REPAIR_NONE, &k, &err);
        if (f->d.is_again)
            printf("status %d, %llu damages after %llu, %llu leaks\n", ret,
                   (unsigned long long)k.corruptions, (unsigned long long)corruptions,
                   (unsigned long long)k.leaks);
        /* Tables that lie over each other change each other's references. */
        if (ret || (k.leaks && !k.corruptions) || k.corruptions > corruptions)
            fuzz_failed(&f->d, "a repair has left leaks, or made damage");
    }
    disk_layer_destroy(l);
}

/* ---- making and spoiling ---- */

static struct qcow2_options choose_options(struct rng *r)
{
    struct qcow2_options o = {.version = rng_one_in(r, 4) ? 2 : 3};

    o.cluster_bits = rng_one_in(r, 3) ? 9 : 9 + (unsigned)rng_below(r, 8);
    o.refcount_bits = o.version == 2 ? 16 : 1u << rng_below(r, 7);
    o.compression = o.version == 3 && rng_one_in(r, 2) ? QCOW2_ZSTD : QCOW2_ZLIB;
    o.lazy_refcounts = o.version == 3 && rng_one_in(r, 4);
    if (o.version == 3 && rng_one_in(r, 4)) {
        o.extended_l2 = true;
        o.cluster_bits = 14 + (unsigned)rng_below(r, 4);
    }
    o.virtual_bytes = (1 + rng_below(r, 4096)) * DISK_SECTOR_BYTES;
    return o;
}

static void make(struct fuzz *f, int fd, const struct qcow2_options *o)
{
    struct error err = {.text = ""};
    struct disk_layer *file = layer_of(fd, false), *l;

    if (qcow2_create(file, o, &err))
        fuzz_failed(&f->d, err.text);
    disk_layer_destroy(file);
    l = qcow2_open(layer_of(fd, false), "fuzz", DISK_UNSAFE, &err);
    if (!l)
        fuzz_failed(&f->d, err.text);
    use_all(f, l, 30);
    disk_layer_destroy(l);
}

static uint64_t wild(struct rng *r, uint64_t file_bytes, unsigned cluster_bits)
{
    static const uint64_t flags[] = {BIT(63), BIT(62), BIT(62) | BIT(61), 1, 0, 0, BIT(55), BIT(8)};

    switch (rng_below(r, 6)) {
    case 0:
        return rng_next(r);
    case 1:
        return rng_next(r) >> rng_below(r, 64);
    case 2:
        return BIT(rng_below(r, 64)) - rng_below(r, 2);
    case 3:
        return rng_below(r, file_bytes + 4096);
    default:
        return rng_below(r, (file_bytes >> cluster_bits) + 2) << cluster_bits | RNG_PICK(r, flags);
    }
}

static void poke(int fd, uint64_t offset, uint64_t value, unsigned bytes)
{
    uint8_t be[8];

    be64_put(be, value);
    if (pwrite(fd, be + 8 - bytes, bytes, (off_t)offset) < 0)
        return;
}

static uint64_t peek(int fd, uint64_t offset)
{
    uint8_t be[8] = {0};

    return pread(fd, be, 8, (off_t)offset) < 0 ? 0 : be64_get(be);
}

static void spoil(struct fuzz *f, int fd, unsigned cluster_bits)
{
    static const uint8_t fields[] = {8, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112};
    struct rng *r = &f->d.from.rng;
    struct stat st;
    uint64_t bytes, l1, l2, table;

    if (fstat(fd, &st) || st.st_size < 512)
        return;
    bytes = (uint64_t)st.st_size;
    l1 = peek(fd, 40);
    l2 = peek(fd, l1 + rng_below(r, 4) * 8) & BITS(55, 9);
    table = peek(fd, 48);
    for (unsigned n = 1 + (unsigned)rng_below(r, 6); n; n--) {
        uint64_t value = wild(r, bytes, cluster_bits);

        switch (rng_below(r, 8)) {
        case 0:
            poke(fd, RNG_PICK(r, fields) + rng_below(r, 8), value, 1 + (unsigned)rng_below(r, 8));
            break;
        case 1:
            poke(fd, l1 + rng_below(r, 8) * 8, value, 8);
            break;
        case 2:
        case 3:
            poke(fd, l2 + rng_below(r, BIT(cluster_bits) / 8) * 8, value, 8);
            break;
        case 4:
            poke(fd, table + rng_below(r, 4) * 8, value, 8);
            break;
        case 5:
            poke(fd, peek(fd, table) + rng_below(r, BIT(cluster_bits)), value, 1);
            break;
        case 6:
            poke(fd, peek(fd, 64) + rng_below(r, 128), value, 1 + (unsigned)rng_below(r, 8));
            break;
        default:
            poke(fd, rng_below(r, bytes), value, 1 + (unsigned)rng_below(r, 8));
        }
    }
    if (rng_one_in(r, 10) && ftruncate(fd, (off_t)rng_below(r, bytes)))
        fuzz_failed(&f->d, "cannot cut the image");
    if (rng_one_in(r, 5))
        poke(fd, 72, 1, 8); /* repaired when it is opened */
}

/* ---- cases ---- */

static void use_file(struct fuzz *f, int fd)
{
    struct rng *r = &f->d.from.rng;
    struct error err = {.text = ""};
    struct disk_layer *l =
        qcow2_open(layer_of(fd, rng_one_in(r, 4)), "fuzz",
                   rng_one_in(r, 2) ? DISK_UNSAFE : DISK_WRITEBACK, &err);

    if (!l) {
        if (!err.text[0] || strchr(err.text, '\n'))
            fuzz_failed(&f->d, "an error that is not one line");
        return;
    }
    use_all(f, l, 60);
    if (!l->readonly && rng_one_in(r, 4))
        l->ops->resize(l, rng_below(r, BIT(10 + rng_below(r, 13))) * DISK_SECTOR_BYTES);
    use_all(f, l, 10);
    disk_layer_destroy(l);
}

static void case_alone(struct fuzz *f)
{
    struct qcow2_options o = choose_options(&f->d.from.rng);
    bool is_good = rng_one_in(&f->d.from.rng, 6);
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    make(f, fd, &o);
    if (!is_good)
        spoil(f, fd, o.cluster_bits);
    check(f, fd, is_good, QCOW2_REPAIR_NONE);
    use_file(f, fd);
    check(f, fd, is_good, QCOW2_REPAIR_NONE);
    if (rng_one_in(&f->d.from.rng, 2)) {
        check(f, fd, is_good, QCOW2_REPAIR_ALL);
        use_file(f, fd);
    }
    close(fd);
}

/* Images that name each other: some of these chains end, some are circles. */
static void case_chain(struct fuzz *f)
{
    static const char *const names[] = {"0", "1", "2", "3", "./2", "nbd://x", "json:{}", "4"};
    static const char *const formats[] = {NULL, "qcow2", "raw", "vmdk"};
    char folder[] = "/tmp/qcow2-fuzz-XXXXXX", path[64];
    struct disk_layer *l;
    struct error err = {.text = ""};

    if (!mkdtemp(folder))
        fuzz_failed(&f->d, "cannot make a folder");
    for (unsigned n = 0; n < CHAIN; n++) {
        struct qcow2_options o = choose_options(&f->d.from.rng);
        int fd;

        o.backing = rng_one_in(&f->d.from.rng, 5) ? NULL : RNG_PICK(&f->d.from.rng, names);
        if (o.backing)
            o.backing_format = RNG_PICK(&f->d.from.rng, formats);
        snprintf(path, sizeof path, "%s/%u", folder, n);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        make(f, fd, &o);
        if (rng_one_in(&f->d.from.rng, 4))
            spoil(f, fd, o.cluster_bits);
        close(fd);
    }
    snprintf(path, sizeof path, "%s/0", folder);
    l = disk_image_open(
        &(struct disk_image_config){.path = path, .readonly = rng_one_in(&f->d.from.rng, 4)}, NULL,
        &err);
    if (l) {
        use_all(f, l, 40);
        disk_layer_destroy(l);
    }
    for (unsigned n = 0; n < CHAIN; n++) {
        snprintf(path, sizeof path, "%s/%u", folder, n);
        unlink(path);
    }
    rmdir(folder);
}

static void run_case(struct fuzz_driver *d)
{
    struct fuzz *f = (struct fuzz *)d;

    for (size_t n = 0; n < sizeof f->data; n++)
        f->data[n] = (uint8_t)(n * 7 ^ n >> 9);
    if (rng_one_in(&d->from.rng, 5))
        case_chain(f);
    else
        case_alone(f);
}

static int run_file(struct fuzz_driver *d, const char *path)
{
    struct fuzz *f = (struct fuzz *)d;
    int from = open(path, O_RDONLY | O_CLOEXEC), fd = memfd_create("fuzz", MFD_CLOEXEC);
    ssize_t n;

    if (from < 0) {
        fprintf(stderr, "qcow2_fuzz: %s: %s\n", path, strerror(errno));
        return 1;
    }
    while ((n = read(from, f->data, sizeof f->data)) > 0)
        if (write(fd, f->data, (size_t)n) != n)
            return 1;
    close(from);
    alarm(HANG_SECONDS);
    d->from.rng.state = d->seed = 1;
    check(f, fd, false, QCOW2_REPAIR_NONE);
    use_file(f, fd);
    check(f, fd, false, QCOW2_REPAIR_ALL);
    use_file(f, fd);
    close(fd);
    return 0;
}

struct fuzz_driver *fuzz_driver(void)
{
    static struct fuzz f = {.d = {.name = "qcow2_fuzz",
                                  .hang_seconds = HANG_SECONDS,
                                  .run = run_case,
                                  .run_file = run_file}};
    struct rlimit limit = {FILE_LIMIT, FILE_LIMIT};

    signal(SIGXFSZ, SIG_IGN); /* a full disk */
    setrlimit(RLIMIT_FSIZE, &limit);
    return &f.d;
}
