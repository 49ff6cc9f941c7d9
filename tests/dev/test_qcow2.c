/*
 * qcow2 as a layer: random operations against a model, for clusters and refcounts
 * of all sizes, with backing files, snapshots and compressed clusters; power cuts;
 * faults of the host; threads; images that lie.
 *
 * A sector's content is its number and a stamp, so that a model is one number a
 * sector. After each test the image is checked: no damage, and no leak where
 * nothing has failed.
 */
#include "backend/disk/qcow2.h"
#include "tests/dev/disk_shim.h"
#include "tests/dev/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECTOR = DISK_SECTOR_BYTES, SPAN_SECTORS = 600 };

static uint64_t random_below(uint64_t *seed, uint64_t n)
{
    return (harness_random(seed) >> 16) % n;
}

/* 1 to most, and not beyond the end. */
static uint64_t random_sectors(uint64_t *seed, uint64_t most, uint64_t left)
{
    uint64_t n = 1 + random_below(seed, most);

    return MIN(n, left);
}

/* ---- sectors ---- */

static void fill_sector(uint8_t *p, uint64_t sector, uint64_t stamp)
{
    uint64_t *word = (uint64_t *)(void *)p;

    for (unsigned n = 0; n < SECTOR / 8; n++)
        word[n] = stamp ? stamp << 20 ^ sector ^ (n >= 32 ? ~0ull : 0) : 0;
}

/* The stamp, or UINT64_MAX: this was never written there. */
static uint64_t stamp_of(const uint8_t *p, uint64_t sector)
{
    uint64_t expected[SECTOR / 8], first;

    memcpy(&first, p, sizeof first);
    fill_sector((uint8_t *)expected, sector, first ? (first ^ sector) >> 20 : 0);
    return memcmp(expected, p, SECTOR) ? UINT64_MAX : first ? (first ^ sector) >> 20 : 0;
}

/* ---- an image under test ---- */

struct image {
    int fd; /* of a memory file, or -1: on a shim */
    struct shim *shim;
    struct disk_layer *l;
    uint64_t sectors, stamp;
    uint64_t *model;
    uint64_t *kept;             /* of a snapshot; a test's own */
    struct disk_layer *backing; /* owned by l */
    uint64_t backing_sectors;
};

static struct disk_layer *memory_file(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return disk_file_from_fd(dup(fd), (uint64_t)st.st_size);
}

static int transfer(struct disk_layer *l, bool is_write, uint64_t sector, void *data,
                    uint64_t sectors)
{
    /* In three spans, where there is enough. */
    uint64_t third = sectors / 3 * SECTOR, bytes = sectors * SECTOR;
    struct disk_span spans[3] = {{data, third},
                                 {(uint8_t *)data + third, third},
                                 {(uint8_t *)data + 2 * third, bytes - 2 * third}};

    return (is_write ? l->ops->write : l->ops->read)(l, sector * SECTOR, spans, 3, bytes);
}

static struct disk_layer *make_backing(uint64_t sectors)
{
    int fd = memfd_create("backing", MFD_CLOEXEC);
    uint8_t sector[SECTOR];

    assert_true(fd >= 0);
    for (uint64_t n = 0; n < sectors; n++) {
        fill_sector(sector, n, n % 5 ? 1 : 0);
        assert_int_equal(pwrite(fd, sector, SECTOR, (off_t)(n * SECTOR)), SECTOR);
    }
    return disk_file_from_fd(fd, sectors * SECTOR);
}

static struct disk_layer *open_layer(struct disk_layer *file, bool to_check)
{
    struct error err = {.text = ""};
    struct disk_layer *l = to_check ? qcow2_open_to_check(file, "test", &err)
                                    : qcow2_open(file, "test", DISK_WRITEBACK, &err);

    if (!l)
        fail_msg("%s", err.text);
    return l;
}

static void image_open(struct image *im)
{
    im->l = open_layer(memory_file(im->fd), false);
    if (im->backing_sectors)
        qcow2_set_backing(im->l, make_backing(im->backing_sectors));
}

static void image_create(struct image *im, const struct qcow2_options *o, uint64_t backing_sectors)
{
    struct error err = {.text = ""};
    struct disk_layer *file;

    memset(im, 0, sizeof *im);
    im->fd = memfd_create("qcow2", MFD_CLOEXEC);
    assert_true(im->fd >= 0);
    file = memory_file(im->fd);
    if (qcow2_create(file, o, &err))
        fail_msg("%s", err.text);
    disk_layer_destroy(file);
    im->sectors = o->virtual_bytes / SECTOR;
    im->model = calloc(im->sectors, sizeof *im->model);
    im->backing_sectors = backing_sectors;
    im->stamp = 1;
    for (uint64_t n = 0; n < MIN(backing_sectors, im->sectors); n++)
        im->model[n] = n % 5 ? 1 : 0;
    image_open(im);
}

static void print_line(void *ctx, const char *line)
{
    print_message("%s\n", line);
}

static void check_file(struct disk_layer *file, bool leaks_are_fine)
{
    struct qcow2_check check = {.tell = leaks_are_fine ? NULL : print_line};
    struct error err = {.text = ""};
    struct disk_layer *l = open_layer(file, true);

    if (qcow2_check(l, QCOW2_REPAIR_NONE, &check, &err))
        fail_msg("%s", err.text);
    assert_int_equal(check.corruptions, 0);
    if (!leaks_are_fine)
        assert_int_equal(check.leaks, 0);
    disk_layer_destroy(l);
}

static void image_check(struct image *im, bool leaks_are_fine)
{
    check_file(memory_file(im->fd), leaks_are_fine);
}

/* Reads that do not block; how many sectors could be read so. */
static uint64_t image_verify_now(struct image *im)
{
    uint8_t data[16 * SECTOR];
    uint64_t answered = 0;

    for (uint64_t at = 0, n; at < im->sectors; at += n) {
        struct disk_span spans[2];

        n = MIN(im->sectors - at, 1 + at % 16);
        memset(data, 0x5a, sizeof data);
        spans[0] = (struct disk_span){data, n / 2 * SECTOR};
        spans[1] = (struct disk_span){data + n / 2 * SECTOR, (n - n / 2) * SECTOR};
        if (im->l->ops->read_now(im->l, at * SECTOR, spans, 2, n * SECTOR))
            continue;
        for (uint64_t i = 0; i < n; i++)
            assert_int_equal(stamp_of(data + i * SECTOR, at + i), im->model[at + i]);
        answered += n;
    }
    return answered;
}

static void image_verify(struct image *im)
{
    static uint8_t data[SPAN_SECTORS * SECTOR] __attribute__((aligned(4096)));

    for (uint64_t at = 0, n; at < im->sectors; at += n) {
        n = MIN(im->sectors - at, SPAN_SECTORS);
        assert_int_equal(transfer(im->l, false, at, data, n), 0);
        for (uint64_t i = 0; i < n; i++)
            if (stamp_of(data + i * SECTOR, at + i) != im->model[at + i])
                fail_msg("sector %llu has stamp %llu and not %llu", (unsigned long long)(at + i),
                         (unsigned long long)stamp_of(data + i * SECTOR, at + i),
                         (unsigned long long)im->model[at + i]);
    }
    image_verify_now(im);
}

static void image_close(struct image *im)
{
    disk_layer_destroy(im->l);
    im->l = NULL;
}

static void image_destroy(struct image *im)
{
    image_close(im);
    image_check(im, false);
    close(im->fd);
    free(im->model);
}

/* ---- beside the other program ---- */

/* Its status; 127: it is not installed. */
static int ask_qemu(const char *command)
{
    char line[512];
    int status;

    snprintf(line, sizeof line, "%s >/dev/null 2>&1", command);
    status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool qemu_img_is_content(int fd)
{
    char command[96];
    int status;

    snprintf(command, sizeof command, "qemu-img check -q -U -f qcow2 /proc/%d/fd/%d", (int)getpid(),
             fd);
    status = ask_qemu(command);
    return !status || status == 3 || status == 127; /* 3: leaks */
}

/* It reads what the model has, and goes on with zeroes of its own. The image is
 * closed, and has no backing file. */
static void image_give_to_qemu(struct image *im, uint64_t *seed)
{
    int fd = memfd_create("raw", 0), status;
    char command[384];
    uint64_t first[2], count[2];
    uint8_t sector[SECTOR] __attribute__((aligned(8)));

    for (uint64_t n = 0; n < im->sectors; n++) {
        fill_sector(sector, n, im->model[n]);
        assert_int_equal(pwrite(fd, sector, SECTOR, (off_t)(n * SECTOR)), SECTOR);
    }
    assert_true(qemu_img_is_content(im->fd));
    snprintf(command, sizeof command,
             "qemu-img compare -U -f raw -F qcow2 /proc/%d/fd/%d /proc/%d/fd/%d", (int)getpid(), fd,
             (int)getpid(), im->fd);
    status = ask_qemu(command);
    assert_true(status == 0 || status == 127);
    close(fd);
    for (unsigned n = 0; n < 2; n++) {
        first[n] = random_below(seed, im->sectors);
        count[n] = random_sectors(seed, 300, im->sectors - first[n]);
    }
    snprintf(command, sizeof command,
             "qemu-io -f qcow2 -c 'write -z %llu %llu' -c 'write -z -u %llu %llu' /proc/%d/fd/%d",
             (unsigned long long)first[0] * SECTOR, (unsigned long long)count[0] * SECTOR,
             (unsigned long long)first[1] * SECTOR, (unsigned long long)count[1] * SECTOR,
             (int)getpid(), im->fd);
    status = ask_qemu(command);
    assert_true(status == 0 || status == 127);
    for (unsigned n = 0; n < 2 && !status; n++)
        memset(im->model + first[n], 0, count[n] * sizeof *im->model);
}

/* ---- random operations ---- */

struct variant {
    unsigned version, cluster_bits, refcount_bits;
    uint64_t sectors, backing_sectors;
    enum qcow2_compression compression;
    unsigned ops;
    bool extended_l2;
};

enum op { OP_WRITE, OP_ZERO, OP_DISCARD, OP_FLUSH, OP_PACKED, OPS };

static int do_op(struct image *im, enum op op, uint64_t sector, uint64_t sectors)
{
    static uint8_t data[SPAN_SECTORS * SECTOR] __attribute__((aligned(4096)));
    uint64_t stamp = op == OP_WRITE ? ++im->stamp : 0;
    int ret;

    switch (op) {
    case OP_WRITE:
        for (uint64_t n = 0; n < sectors; n++)
            fill_sector(data + n * SECTOR, sector + n, stamp);
        ret = transfer(im->l, true, sector, data, sectors);
        break;
    case OP_ZERO:
        ret = disk_layer_zero(im->l, sector * SECTOR, sectors * SECTOR);
        break;
    case OP_FLUSH:
        return im->l->ops->flush(im->l);
    case OP_DISCARD:
    case OP_PACKED:
    default:
        return 0;
    }
    for (uint64_t n = 0; n < sectors && !ret; n++)
        im->model[sector + n] = stamp;
    return ret;
}

/* The sectors of whole clusters in a range; the disk's last cluster may be longer
 * than the disk. */
static void whole_clusters(const struct image *im, unsigned cluster_bits, uint64_t *sector,
                           uint64_t *sectors)
{
    uint64_t cluster = BIT(cluster_bits) / SECTOR, end = *sector + *sectors;

    *sector = align_up(*sector, cluster);
    if (end != im->sectors)
        end = align_down(end, cluster);
    *sectors = end > *sector ? end - *sector : 0;
}

/* Zeroes in whole clusters; what else is zeroes is the layer's choice: it says. */
static void discard(struct image *im, const struct variant *v, uint64_t sector, uint64_t sectors)
{
    static uint8_t data[SPAN_SECTORS * SECTOR] __attribute__((aligned(4096)));
    uint64_t first = sector, count = sectors;

    assert_int_equal(im->l->ops->discard(im->l, sector * SECTOR, sectors * SECTOR), 0);
    assert_int_equal(transfer(im->l, false, sector, data, sectors), 0);
    whole_clusters(im, v->cluster_bits, &first, &count);
    for (uint64_t n = 0; n < sectors; n++) {
        uint64_t stamp = stamp_of(data + n * SECTOR, sector + n);
        bool is_whole = sector + n >= first && sector + n < first + count;

        assert_true(stamp == 0 || stamp == im->model[sector + n]);
        /* Version 2 cannot hide a backing file. */
        if (is_whole && (v->version >= 3 || !im->backing_sectors))
            assert_int_equal(stamp, 0);
        im->model[sector + n] = stamp;
    }
}

/* A compressed cluster where nothing is yet; elsewhere it is refused. */
static void write_packed(struct image *im, unsigned cluster_bits, uint64_t sector)
{
    uint64_t cluster = BIT(cluster_bits), first = align_down(sector * SECTOR, cluster) / SECTOR;
    uint64_t sectors = cluster / SECTOR, stamp = im->stamp + 1;
    uint8_t *data = calloc(1, cluster), *room = malloc(cluster);
    struct qcow2_packer *packer = qcow2_packer_create(im->l);
    size_t packed;
    int ret;

    for (uint64_t n = 0; n < sectors; n++)
        fill_sector(data + n * SECTOR, first + n, stamp);
    packed = qcow2_pack(packer, data, room);
    qcow2_packer_destroy(packer);
    if (packed && first + sectors <= im->sectors) {
        ret = qcow2_write_packed(im->l, &(struct qcow2_packed){first * SECTOR, room, packed}, 1);
        assert_true(ret == 0 || ret == -EEXIST);
        for (uint64_t n = 0; n < sectors && !ret; n++)
            im->model[first + n] = stamp;
        im->stamp += !ret;
    }
    free(data);
    free(room);
}

static struct qcow2_options options_of(const struct variant *v)
{
    return (struct qcow2_options){.virtual_bytes = v->sectors * SECTOR,
                                  .version = v->version,
                                  .cluster_bits = v->cluster_bits,
                                  .refcount_bits = v->refcount_bits,
                                  .compression = v->compression,
                                  .extended_l2 = v->extended_l2};
}

static void random_ops(struct image *im, const struct variant *v, uint64_t *seed, unsigned ops)
{
    for (unsigned n = 0; n < ops; n++) {
        enum op op = random_below(seed, 4) ? OP_WRITE : random_below(seed, OPS);
        uint64_t sectors = 1 + random_below(seed, random_below(seed, 4) ? 16 : SPAN_SECTORS);
        uint64_t sector = random_below(seed, im->sectors);

        sectors = MIN(sectors, im->sectors - sector);
        if (op == OP_DISCARD)
            discard(im, v, sector, sectors);
        else if (op == OP_PACKED)
            write_packed(im, v->cluster_bits, sector);
        else
            assert_int_equal(do_op(im, op, sector, sectors), 0);
    }
}

static const struct variant variants[] = {
    {3, 16, 16, 40000, 0, QCOW2_ZLIB, 600, false},
    {3, 16, 16, 40000, 30001, QCOW2_ZSTD, 600, false},
    {2, 16, 16, 40000, 0, QCOW2_ZLIB, 600, false},
    {2, 12, 16, 20000, 9999, QCOW2_ZLIB, 600, false},
    {3, 9, 16, 20000, 0, QCOW2_ZSTD, 500, false},
    {3, 9, 64, 20000, 20000, QCOW2_ZLIB, 500, false},
    {3, 12, 1, 20000, 5000, QCOW2_ZLIB, 600, false},
    {3, 12, 2, 20000, 0, QCOW2_ZSTD, 600, false},
    {3, 13, 4, 20001, 30000, QCOW2_ZLIB, 600, false},
    {3, 10, 8, 20000, 0, QCOW2_ZLIB, 600, false},
    {3, 17, 32, 60000, 100, QCOW2_ZSTD, 400, false},
    {3, 21, 16, 60000, 50000, QCOW2_ZLIB, 150, false},
    {3, 14, 16, 40000, 0, QCOW2_ZLIB, 900, true},
    {3, 14, 1, 20000, 9999, QCOW2_ZSTD, 900, true},
    {3, 16, 16, 40000, 30001, QCOW2_ZLIB, 900, true},
    {3, 17, 64, 60001, 70000, QCOW2_ZSTD, 600, true},
    {3, 21, 16, 60000, 50000, QCOW2_ZLIB, 300, true},
};

static void model(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
        const struct variant *v = &variants[i];
        struct qcow2_options o = options_of(v);
        uint64_t seed = 77 + i;
        struct image im;

        image_create(&im, &o, v->backing_sectors);
        for (unsigned round = 0; round < 4; round++) {
            random_ops(&im, v, &seed, v->ops / 4);
            image_verify(&im);
            image_close(&im);
            image_check(&im, false);
            if (!v->backing_sectors && (v->extended_l2 || round == 0))
                image_give_to_qemu(&im, &seed);
            image_open(&im);
            image_verify(&im);
        }
        image_destroy(&im);
    }
}

/* ---- snapshots ---- */

enum { SNAPSHOTS = 4 };

static void snapshots(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
        const struct variant *v = &variants[i];
        struct qcow2_options o = options_of(v);
        uint64_t seed = 99 + i, *kept[SNAPSHOTS] = {NULL}, bytes = v->sectors * 8;
        struct error err = {.text = ""};
        struct image im;

        image_create(&im, &o, v->backing_sectors);
        for (unsigned round = 0; round < 16; round++) {
            unsigned which = (unsigned)random_below(&seed, SNAPSHOTS);
            char name[8];

            snprintf(name, sizeof name, "s%u", which);
            random_ops(&im, v, &seed, v->ops / 12);
            if (!kept[which]) {
                int ret = qcow2_snapshot_create(im.l, name, &err);

                if (ret == -ERANGE && v->refcount_bits <= 2)
                    continue; /* so few bits cannot count that */
                if (ret)
                    fail_msg("%s", err.text);
                kept[which] = malloc(bytes);
                memcpy(kept[which], im.model, bytes);
            } else if (random_below(&seed, 2)) {
                int ret = qcow2_snapshot_apply(im.l, name, &err);

                if (ret == -ERANGE && v->refcount_bits <= 2)
                    continue;
                if (ret)
                    fail_msg("%s", err.text);
                memcpy(im.model, kept[which], bytes);
            } else {
                if (qcow2_snapshot_delete(im.l, name, &err))
                    fail_msg("%s", err.text);
                free(kept[which]);
                kept[which] = NULL;
            }
            image_verify(&im);
            if (round % 4 == 3) {
                image_close(&im);
                image_check(&im, false);
                image_open(&im);
            }
        }
        for (unsigned which = 0; which < SNAPSHOTS; which++)
            free(kept[which]);
        image_destroy(&im);
    }
}

/* ---- size ---- */

static void sizes(void **state)
{
    static const struct variant v = {3, 12, 16, 20000, 25000, QCOW2_ZLIB, 0, false};
    struct qcow2_options o = options_of(&v);
    uint64_t seed = 5, before = v.sectors;
    struct image im;

    image_create(&im, &o, v.backing_sectors);
    for (unsigned round = 0; round < 8; round++) {
        /* The last is as many entries of L1 as fill all words but one bit. */
        uint64_t sectors = round < 7 ? 1000 + random_below(&seed, 60000) : 4095ull * 512 * 8;

        random_ops(&im, &v, &seed, 100);
        assert_int_equal(im.l->ops->resize(im.l, sectors * SECTOR), 0);
        assert_int_equal(im.l->bytes, sectors * SECTOR);
        im.model = realloc(im.model, sectors * sizeof *im.model);
        if (sectors > before)
            memset(im.model + before, 0, (sectors - before) * sizeof *im.model);
        before = im.sectors = sectors;
        image_verify(&im);
    }
    image_destroy(&im);
}

/* ---- power cuts ---- */

/* Of snapshots, which are not in `enum op`: taken, gone back to, deleted. */
enum { OP_TAKE = OPS, OP_APPLY, OP_DELETE };

struct done {
    unsigned op;
    uint64_t sector, sectors, stamp;
    uint64_t *content; /* of the whole disk, where it is not one stamp */
    unsigned events_before, events_after;
};

enum { CRASH_OPS = 120, SHIM_BYTES = 3 << 20, CRASH_SECTORS = 1500, QEMU_CHECKS = 11 };

/* May the sector have that stamp after a cut behind `events` events? */
static bool is_allowed(const struct done *ops, unsigned count, unsigned events, uint64_t sector,
                       uint64_t stamp)
{
    unsigned from = 0;
    uint64_t promised = 0;
    bool fine = false;

    /* Each operation on snapshots flushes what was before it. */
    for (unsigned n = 0; n < count; n++)
        if ((ops[n].op == OP_FLUSH || ops[n].op >= OPS) && ops[n].events_after <= events)
            from = n + (ops[n].op == OP_APPLY);
    for (unsigned n = 0; n < count && ops[n].events_before <= events; n++) {
        const struct done *d = &ops[n];
        uint64_t now = d->content ? d->content[sector] : d->stamp;

        if (d->op == OP_FLUSH || d->op == OP_TAKE || d->op == OP_DELETE || sector < d->sector ||
            sector >= d->sector + d->sectors)
            continue;
        if (n < from)
            promised = now;
        else
            fine |= now == stamp;
    }
    return fine || promised == stamp;
}

/* What was taken and not deleted is there. */
static void check_snapshots(struct disk_layer *l, const struct done *ops, unsigned count,
                            unsigned events)
{
    const struct done *kept = NULL;
    uint8_t *data = malloc(CRASH_SECTORS * SECTOR);
    struct error err = {.text = ""};

    for (unsigned n = 0; n < count && ops[n].events_before < events; n++)
        if (ops[n].op == OP_DELETE)
            kept = NULL;
        else if (ops[n].op == OP_TAKE && ops[n].events_after <= events)
            kept = &ops[n];
    if (kept && qcow2_snapshot_apply(l, "kept", &err))
        fail_msg("%s", err.text);
    if (kept)
        assert_int_equal(transfer(l, false, 0, data, CRASH_SECTORS), 0);
    for (uint64_t n = 0; n < CRASH_SECTORS && kept; n++)
        assert_int_equal(stamp_of(data + n * SECTOR, n), kept->content[n]);
    free(data);
}

static void cut(struct shim *s, const struct done *ops, unsigned count, unsigned events,
                uint64_t seed)
{
    uint8_t *data = malloc(CRASH_SECTORS * SECTOR);
    uint8_t *image = malloc(s->layer.bytes);
    int fd = memfd_create("cut", 0);
    struct qcow2_check check = {0};
    struct error err = {.text = ""};
    struct qcow2_info info;
    struct disk_layer *l;

    shim_crash(s, events, image, seed);
    assert_int_equal(write(fd, image, s->layer.bytes), s->layer.bytes);
    free(image);
    l = open_layer(memory_file(fd), true);
    qcow2_get_info(l, &info);
    /* In the middle of an operation on snapshots: as the next opening leaves it. */
    if (info.is_dirty && qcow2_check(l, QCOW2_REPAIR_ALL, &check, &err))
        fail_msg("%s", err.text);
    assert_int_equal(qcow2_check(l, QCOW2_REPAIR_NONE, &check, &err), 0);
    if (check.corruptions) {
        check.tell = print_line;
        qcow2_check(l, QCOW2_REPAIR_NONE, &check, &err);
        fail_msg("after %u of %u events the image is damaged", events, s->events);
    }
    if (events % QEMU_CHECKS == 0 && !qemu_img_is_content(fd))
        fail_msg("after %u of %u events qemu-img finds damage", events, s->events);
    assert_int_equal(transfer(l, false, 0, data, CRASH_SECTORS), 0);
    for (uint64_t n = 0; n < CRASH_SECTORS; n++)
        if (!is_allowed(ops, count, events, n, stamp_of(data + n * SECTOR, n)))
            fail_msg("after %u of %u events sector %llu has stamp %llu", events, s->events,
                     (unsigned long long)n, (unsigned long long)stamp_of(data + n * SECTOR, n));
    check_snapshots(l, ops, count, events);
    disk_layer_destroy(l);
    close(fd);
    free(data);
}

static uint64_t *copy_model(const struct image *im)
{
    uint64_t *copy = malloc(im->sectors * sizeof *copy);

    return memcpy(copy, im->model, im->sectors * sizeof *copy);
}

/* One operation, at random, and what has to be known of it later. */
static void crash_op(struct image *im, const struct variant *v, uint64_t *seed, bool *is_taken,
                     struct done *d)
{
    static const unsigned kinds[] = {OP_WRITE, OP_WRITE, OP_WRITE,   OP_WRITE,
                                     OP_FLUSH, OP_ZERO,  OP_DISCARD, OP_PACKED};
    uint64_t sector = random_below(seed, CRASH_SECTORS), cluster = BIT(v->cluster_bits) / SECTOR;
    uint64_t stamp = im->stamp;
    struct error err = {.text = ""};
    int ret = 0;

    *d = (struct done){.op = kinds[random_below(seed, ARRAY_SIZE(kinds))],
                       .sector = sector,
                       .sectors = random_sectors(seed, 40, CRASH_SECTORS - sector)};
    if (v->ops && !random_below(seed, 24))
        d->op = !*is_taken ? OP_TAKE : random_below(seed, 2) ? OP_APPLY : OP_DELETE;
    switch (d->op) {
    case OP_DISCARD:
        discard(im, v, d->sector, d->sectors);
        d->content = copy_model(im); /* what is zeroes now is the layer's choice */
        return;
    case OP_PACKED:
        write_packed(im, v->cluster_bits, sector);
        d->sector = align_down(sector, cluster);
        d->sectors = im->stamp > stamp ? MIN(cluster, CRASH_SECTORS - d->sector) : 0;
        d->stamp = im->stamp;
        return;
    case OP_TAKE:
    case OP_APPLY:
        if (d->op == OP_TAKE) {
            ret = qcow2_snapshot_create(im->l, "kept", &err);
            im->kept = copy_model(im);
        } else {
            ret = qcow2_snapshot_apply(im->l, "kept", &err);
            memcpy(im->model, im->kept, CRASH_SECTORS * sizeof *im->kept);
        }
        *is_taken = true;
        d->content = im->kept;
        d->sector = 0;
        d->sectors = CRASH_SECTORS;
        break;
    case OP_DELETE:
        ret = qcow2_snapshot_delete(im->l, "kept", &err);
        *is_taken = false;
        break;
    default:
        ret = do_op(im, d->op, d->sector, d->sectors);
        d->stamp = d->op == OP_WRITE ? im->stamp : 0;
    }
    if (ret)
        fail_msg("%d %s", ret, err.text);
}

static void power_cuts(void **state)
{
    /* ops: with snapshots. */
    static const struct variant kinds[] = {{3, 9, 16, CRASH_SECTORS, 0, QCOW2_ZLIB, 0, false},
                                           {3, 12, 16, CRASH_SECTORS, 0, QCOW2_ZSTD, 1, false},
                                           {3, 16, 16, CRASH_SECTORS, 0, QCOW2_ZLIB, 0, false},
                                           {2, 11, 16, CRASH_SECTORS, 0, QCOW2_ZLIB, 0, false},
                                           {3, 9, 64, CRASH_SECTORS, 0, QCOW2_ZLIB, 0, false},
                                           {3, 10, 1, CRASH_SECTORS, 0, QCOW2_ZLIB, 0, false},
                                           {3, 14, 8, CRASH_SECTORS, 0, QCOW2_ZLIB, 1, false},
                                           {3, 10, 16, CRASH_SECTORS, 0, QCOW2_ZLIB, 1, false},
                                           {3, 14, 16, CRASH_SECTORS, 0, QCOW2_ZLIB, 0, true},
                                           {3, 14, 16, CRASH_SECTORS, 0, QCOW2_ZSTD, 1, true},
                                           {3, 16, 16, CRASH_SECTORS, 0, QCOW2_ZLIB, 1, true}};
    const char *rounds = getenv("QCOW2_CUT_ROUNDS");
    unsigned cuts = rounds ? (unsigned)atoi(rounds) : 60;

    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct qcow2_options o = options_of(&kinds[k]);
        struct done ops[CRASH_OPS];
        struct shim *s = shim_create(SHIM_BYTES);
        struct error err = {.text = ""};
        struct image im = {.sectors = CRASH_SECTORS, .stamp = 1};
        uint64_t seed = 31 + k;
        unsigned count = 0;
        bool is_taken = false;

        im.model = calloc(CRASH_SECTORS, sizeof *im.model);
        assert_int_equal(qcow2_create(&s->layer, &o, &err), 0);
        shim_mark(s);
        im.l = open_layer(&s->layer, false);
        while (count < CRASH_OPS && s->events + 400 < SHIM_EVENTS) {
            struct done *d = &ops[count++];
            unsigned before = s->events;

            crash_op(&im, &kinds[k], &seed, &is_taken, d);
            d->events_before = before;
            d->events_after = s->events;
        }
        for (unsigned n = 0; n < cuts; n++)
            cut(s, ops, count, (unsigned)random_below(&seed, s->events + 1), seed);
        disk_layer_destroy(im.l);
        for (unsigned n = 0; n < count; n++)
            if (ops[n].op != OP_APPLY) /* which has OP_TAKE's */
                free(ops[n].content);
        free(im.model);
    }
}

/* ---- faults of the host ---- */

static void faults(void **state)
{
    static const int errors[] = {-EIO, -ENOSPC};

    for (unsigned round = 0; round < 60; round++) {
        static const unsigned bits[] = {9, 12, 14};
        struct variant v = {3, bits[round % 3], 16, CRASH_SECTORS,
                            0, QCOW2_ZLIB,      0,  round % 3 == 2};
        struct qcow2_options o = options_of(&v);
        struct shim *s = shim_create(SHIM_BYTES), *after = shim_create(SHIM_BYTES);
        struct image im = {.sectors = CRASH_SECTORS, .stamp = 1};
        struct error err = {.text = ""};
        uint64_t seed = 1000 + round;
        bool *unsure = calloc(CRASH_SECTORS, sizeof *unsure);
        uint8_t data[SECTOR] __attribute__((aligned(8)));

        im.model = calloc(CRASH_SECTORS, sizeof *im.model);
        assert_int_equal(qcow2_create(&s->layer, &o, &err), 0);
        im.l = open_layer(&s->layer, false);
        for (unsigned n = 0; n < 150; n++) {
            uint64_t sector = random_below(&seed, CRASH_SECTORS);
            uint64_t sectors = random_sectors(&seed, 40, CRASH_SECTORS - sector);
            enum op op = random_below(&seed, 8) ? OP_WRITE : OP_FLUSH;

            shim_mark(s); /* the log is not needed */
            if (!random_below(&seed, 6)) {
                memset(s->fault, 0, sizeof s->fault);
                shim_fail(s, random_below(&seed, 4) ? DISK_WRITE : DISK_FLUSH, 0, SHIM_BYTES, 1,
                          errors[random_below(&seed, 2)]);
                s->fault[0].after = (unsigned)random_below(&seed, 6);
            }
            for (uint64_t i = 0; i < sectors && op == OP_WRITE; i++)
                unsure[sector + i] = false;
            if (do_op(&im, op, sector, sectors) && op == OP_WRITE)
                for (uint64_t i = 0; i < sectors; i++)
                    unsure[sector + i] = true;
        }
        memset(s->fault, 0, sizeof s->fault);
        for (uint64_t n = 0; n < CRASH_SECTORS; n++) {
            assert_int_equal(transfer(im.l, false, n, data, 1), 0);
            if (!unsure[n])
                assert_int_equal(stamp_of(data, n), im.model[n]);
        }
        shim_mark(s);
        assert_int_equal(im.l->ops->flush(im.l), 0);
        memcpy(after->bytes, s->bytes, SHIM_BYTES);
        shim_mark(s);
        disk_layer_destroy(im.l);
        check_file(&after->layer, true);
        free(im.model);
        free(unsure);
    }
}

/* ---- threads ---- */

enum { THREADS = 4, THREAD_OPS = 1500, THREAD_SECTORS = 6000 };

struct worker {
    struct thread thread;
    struct disk_layer *l;
    unsigned number;
    uint64_t model[THREAD_SECTORS];
    const char *wrong;
};

/* Sectors n with n % THREADS == number are its own; clusters are everybody's. */
static void *work(void *arg)
{
    struct worker *w = arg;
    uint64_t seed = 7 + w->number, stamp = 1;
    uint8_t data[SECTOR] __attribute__((aligned(8)));

    for (unsigned n = 0; n < THREAD_OPS && !w->wrong; n++) {
        uint64_t sector = random_below(&seed, THREAD_SECTORS / THREADS) * THREADS + w->number;
        int ret = 0;

        switch (random_below(&seed, 8)) {
        case 0:
            ret = disk_layer_zero(w->l, sector * SECTOR, SECTOR);
            w->model[sector] = 0;
            break;
        case 1:
            ret = n % 7 ? 0 : w->l->ops->flush(w->l);
            break;
        case 2:
        case 3:
        case 4:
            ret = transfer(w->l, false, sector, data, 1);
            if (stamp_of(data, sector) != w->model[sector])
                w->wrong = "a sector has another's content";
            break;
        default:
            fill_sector(data, sector, ++stamp);
            w->model[sector] = stamp;
            ret = transfer(w->l, true, sector, data, 1);
        }
        if (ret)
            w->wrong = strerror(-ret);
    }
    return NULL;
}

static void threads(void **state)
{
    static const unsigned bits[] = {9, 12, 16, 14, 16};
    static struct worker workers[THREADS];

    for (size_t b = 0; b < ARRAY_SIZE(bits); b++) {
        struct variant v = {3, bits[b], 16, THREAD_SECTORS, 0, QCOW2_ZLIB, 0, b >= 3};
        struct qcow2_options o = options_of(&v);
        struct image im;

        image_create(&im, &o, 0);
        for (unsigned n = 0; n < THREADS; n++) {
            workers[n] = (struct worker){.l = im.l, .number = n};
            assert_int_equal(thread_start(&workers[n].thread, "test", work, &workers[n]), 0);
        }
        for (unsigned n = 0; n < THREADS; n++) {
            thread_join(&workers[n].thread);
            if (workers[n].wrong)
                fail_msg("thread %u: %s", n, workers[n].wrong);
        }
        for (uint64_t n = 0; n < THREAD_SECTORS; n++)
            im.model[n] = workers[n % THREADS].model[n];
        image_verify(&im);
        image_destroy(&im);
    }
}

/* ---- repair ---- */

/* Counts of clusters of 4 KiB, as the first refcount block has them, become `count`. */
static void spoil_counts(int fd, uint16_t count)
{
    uint8_t be[8];
    uint64_t block;

    assert_int_equal(pread(fd, be, 8, 48), 8);
    assert_int_equal(pread(fd, be, 8, (off_t)be64_get(be)), 8);
    block = be64_get(be);
    be16_put(be, count);
    for (unsigned n = 4; n < 2000; n += 3)
        assert_int_equal(pwrite(fd, be, 2, (off_t)(block + n * 2)), 2);
}

static void repairs(void **state)
{
    static const struct variant v = {3, 12, 16, 20000, 0, QCOW2_ZLIB, 0, false};
    struct qcow2_options o = options_of(&v);
    struct qcow2_check check = {0};
    struct error err = {.text = ""};
    uint64_t seed = 3;
    uint8_t bytes[8];
    struct image im;

    image_create(&im, &o, 0);
    random_ops(&im, &v, &seed, 300);
    assert_int_equal(qcow2_snapshot_create(im.l, "kept", &err), 0);
    random_ops(&im, &v, &seed, 300);
    image_close(&im);
    /* Refcounts of rubbish, and the dirty bit: repaired by opening it. */
    spoil_counts(im.fd, 7);
    be64_put(bytes, 1);
    assert_int_equal(pwrite(im.fd, bytes, 8, 72), 8);
    image_open(&im);
    image_verify(&im);
    random_ops(&im, &v, &seed, 100);
    assert_int_equal(qcow2_snapshot_apply(im.l, "kept", &err), 0);
    image_close(&im);
    image_check(&im, false);
    /* The same without the bit: for check -r. */
    image_open(&im);
    memset(im.model, 0, im.sectors * sizeof *im.model);
    assert_int_equal(disk_layer_zero(im.l, 0, im.sectors * SECTOR), 0);
    random_ops(&im, &v, &seed, 100);
    image_close(&im);
    spoil_counts(im.fd, 0);
    im.l = open_layer(memory_file(im.fd), true);
    assert_int_equal(qcow2_check(im.l, QCOW2_REPAIR_ALL, &check, &err), 0);
    assert_int_equal(check.corruptions + check.leaks, 0);
    image_close(&im);
    image_open(&im);
    image_verify(&im);
    image_destroy(&im);
}

/* ---- images that lie ---- */

static void poke(int fd, uint64_t offset, uint64_t value, unsigned bytes)
{
    uint8_t be[8];

    be64_put(be, value);
    assert_int_equal(pwrite(fd, be + 8 - bytes, bytes, (off_t)offset), bytes);
}

static void lies(void **state)
{
    static const struct {
        uint64_t offset, value;
        unsigned bytes;
        const char *words;
    } pokes[] = {
        {0, 0, 4, "no qcow2"},
        {4, 4, 4, "version 4"},
        {8, 3, 8, "backing file"},
        {8, 70000, 8, "backing file"},
        {20, 8, 4, "2^8"},
        {20, 40, 4, "2^40"},
        {24, BIT(60), 8, "size of the disk"},
        {24, BIT(40), 8, "L1 table"},
        {32, 1, 4, "AES"},
        {32, 2, 4, "LUKS"},
        {36, 0xffffffff, 4, "L1 table"},
        {40, BIT(50), 8, "place of the L1"},
        {40, 3, 8, "place of the L1"},
        {48, BIT(62), 8, "refcount table"},
        {56, 0xffffffff, 4, "refcount table"},
        {60, 0xffffffff, 4, "snapshots"},
        {72, 2, 8, "marked as damaged"},
        {72, 4, 8, "another file"},
        {72, BIT(40), 8, "number 40"},
        {72, 8, 8, "kind 0"},
        {96, 7, 4, "width"},
        {100, 12, 4, "length of its header"},
        {104, 5, 1, "kind 5"},
        {116, 0xffffffff, 4, "header extension"},
    };
    static const struct variant v = {3, 16, 16, 20000, 0, QCOW2_ZLIB, 0, false};
    struct qcow2_options o = options_of(&v);

    for (size_t n = 0; n < ARRAY_SIZE(pokes); n++) {
        struct error err = {.text = ""};
        struct image im;

        image_create(&im, &o, 0);
        image_close(&im);
        poke(im.fd, pokes[n].offset, pokes[n].value, pokes[n].bytes);
        im.l = qcow2_open(memory_file(im.fd), "test", DISK_WRITEBACK, &err);
        if (im.l || !strstr(err.text, pokes[n].words) || strchr(err.text, '\n'))
            fail_msg("'%s' is not in '%s'", pokes[n].words, err.text);
        close(im.fd);
        free(im.model);
    }
}

/* What is written and zeroed of a cluster on a backing file: so many subclusters and
 * no more. */
static void subclusters(void **state)
{
    static const struct variant v = {3, 16, 16, 20000, 20000, QCOW2_ZLIB, 0, true};
    struct qcow2_options o = options_of(&v);
    uint8_t word[8];
    struct image im;

    image_create(&im, &o, v.backing_sectors);
    assert_int_equal(do_op(&im, OP_WRITE, 9, 1), 0);  /* part of the third */
    assert_int_equal(do_op(&im, OP_WRITE, 28, 4), 0); /* the eighth */
    assert_int_equal(do_op(&im, OP_ZERO, 39, 10), 0); /* one sector, two, one sector */
    assert_int_equal(do_op(&im, OP_ZERO, 28, 4), 0);
    assert_int_equal(do_op(&im, OP_WRITE, 126, 4), 0); /* the last, and the next cluster's first */
    assert_int_equal(im.l->ops->flush(im.l), 0);
    assert_int_equal(pread(im.fd, word, 8, 0x40008), 8);
    assert_int_equal(be64_get(word),
                     BIT(2) | BIT(9) | BIT(12) | BIT(31) | BIT(39) | BIT(42) | BIT(43));
    assert_int_equal(pread(im.fd, word, 8, 0x40018), 8);
    assert_int_equal(be64_get(word), BIT(0));
    image_verify(&im);
    image_destroy(&im);
}

/* Subclusters that are data and zeroes at once, or data nowhere: damage to a check and
 * errors to a reader, and the clusters beside them are as they were. */
static void wrong_bitmaps(void **state)
{
    static const struct variant v = {3, 16, 16, 20000, 0, QCOW2_ZLIB, 0, true};
    static const struct {
        bool has_place;
        uint64_t bits;
    } words[] = {{true, BIT(0) | BIT(32)}, {true, UINT64_MAX}, {false, BIT(0)}};
    struct qcow2_options o = options_of(&v);
    uint8_t data[SECTOR] __attribute__((aligned(8)));

    for (size_t n = 0; n < ARRAY_SIZE(words); n++) {
        struct qcow2_check check = {0};
        struct error err = {.text = ""};
        struct image im;

        image_create(&im, &o, 0);
        assert_int_equal(do_op(&im, OP_WRITE, 0, 1), 0);
        assert_int_equal(do_op(&im, OP_WRITE, 128, 1), 0);
        image_close(&im);
        if (!words[n].has_place)
            poke(im.fd, 0x40000, 0, 8);
        poke(im.fd, 0x40008, words[n].bits, 8);
        im.l = open_layer(memory_file(im.fd), true);
        assert_int_equal(qcow2_check(im.l, QCOW2_REPAIR_NONE, &check, &err), 0);
        assert_true(check.corruptions > 0);
        image_close(&im);
        image_open(&im);
        assert_int_equal(transfer(im.l, false, 0, data, 1), -EIO);
        assert_int_equal(transfer(im.l, true, 0, data, 1), -EIO);
        assert_int_equal(transfer(im.l, false, 128, data, 1), 0);
        assert_int_equal(stamp_of(data, 128), im.model[128]);
        image_close(&im);
        close(im.fd);
        free(im.model);
    }
}

/* Tables that refer to what is not theirs: an error, and nothing of the header or
 * the tables is written over. */
static void wrong_tables(void **state)
{
    static const struct variant v = {3, 16, 16, 20000, 0, QCOW2_ZLIB, 0, false};
    static const uint64_t entries[] = {
        QCOW2_CLUSTER_BITS_MIN,      /* reserved bits */
        BIT(63) | 0x10000,           /* the refcount table */
        BIT(63) | 0x30000,           /* L1 */
        BIT(63) | BIT(50),           /* behind the end */
        BIT(63) | 0x12345600,        /* between clusters */
        BIT(62) | BIT(61) | BIT(55), /* compressed, nowhere */
        BIT(62) | 0x10000,           /* compressed, and rubbish */
    };
    struct qcow2_options o = options_of(&v);
    uint8_t header[512], again[512], data[SECTOR] = {1};

    for (size_t n = 0; n < ARRAY_SIZE(entries); n++) {
        struct image im;

        image_create(&im, &o, 0);
        assert_int_equal(do_op(&im, OP_WRITE, 0, 1), 0);
        image_close(&im);
        poke(im.fd, 0x40000, entries[n], 8); /* the first L2 table */
        assert_int_equal(pread(im.fd, header, sizeof header, 0x30000), sizeof header);
        image_open(&im);
        if (transfer(im.l, true, 0, data, 1))
            transfer(im.l, false, 0, data, 1);
        im.l->ops->discard(im.l, 0, BIT(16));
        image_close(&im);
        assert_int_equal(pread(im.fd, again, sizeof again, 0x30000), sizeof again);
        assert_memory_equal(header, again, sizeof header);
        close(im.fd);
        free(im.model);
    }
}

/* What is in memory is read without blocking: zeroes always, data where the host has
 * such reads for memory files; what is not, and what is packed, is not. */
static void reads_now(void **state)
{
    const struct variant v = {3, 16, 16, 4096, 0, QCOW2_ZLIB, 0, false};
    struct qcow2_options o = options_of(&v);
    uint8_t data[4 * SECTOR];
    struct disk_span span = {data, sizeof data};
    bool host_can;
    struct image im;

    (void)state;
    image_create(&im, &o, 0);
    host_can = preadv2(im.fd, &(struct iovec){data, SECTOR}, 1, 0, RWF_NOWAIT) == SECTOR;
    assert_int_equal(image_verify_now(&im), im.sectors); /* no table yet */
    assert_int_equal(do_op(&im, OP_WRITE, 0, 256), 0);   /* two clusters */
    assert_true(image_verify_now(&im) >= im.sectors - (host_can ? 0 : 256 + 32));
    write_packed(&im, v.cluster_bits, 1024);
    assert_int_equal(im.l->ops->read_now(im.l, 1024 * SECTOR, &span, 1, sizeof data), -EAGAIN);
    assert_int_equal(im.l->ops->flush(im.l), 0);
    image_close(&im);

    image_open(&im);
    assert_int_equal(image_verify_now(&im), 0); /* a table that is not in memory yet */
    assert_int_equal(transfer(im.l, false, 2048, data, 4), 0);
    assert_true(image_verify_now(&im) >= im.sectors - 128 - 32 - (host_can ? 0 : 256 + 32));
    image_destroy(&im);
}

/* An argument: that test alone. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model),         cmocka_unit_test(snapshots),
        cmocka_unit_test(sizes),         cmocka_unit_test(power_cuts),
        cmocka_unit_test(faults),        cmocka_unit_test(threads),
        cmocka_unit_test(repairs),       cmocka_unit_test(lies),
        cmocka_unit_test(wrong_tables),  cmocka_unit_test(subclusters),
        cmocka_unit_test(wrong_bitmaps), cmocka_unit_test(reads_now),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
