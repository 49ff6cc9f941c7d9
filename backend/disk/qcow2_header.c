/*
 * The header of a qcow2 image and its extensions ("Header", "Header extensions"),
 * and images made new. Interface: qcow2_internal.h, qcow2.h.
 *
 * Everything in a header may be an attack: sizes are bounded before anything is
 * allocated, and what the file does not have is refused.
 *
 * Threading: opening and creating; qcow2_header_write with the commit lock, or
 * while no request is under way.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/disk/qcow2_internal.h"

/* Offsets of fields. */
enum {
    H_MAGIC = 0,
    H_VERSION = 4,
    H_BACKING_OFFSET = 8,
    H_BACKING_BYTES = 16,
    H_CLUSTER_BITS = 20,
    H_SIZE = 24,
    H_CRYPT = 32,
    H_L1_ENTRIES = 36,
    H_L1_OFFSET = 40,
    H_TABLE_OFFSET = 48,
    H_TABLE_CLUSTERS = 56,
    H_SNAPSHOTS = 60,
    H_SNAPSHOTS_OFFSET = 64,
    H_INCOMPATIBLE = 72,
    H_COMPATIBLE = 80,
    H_AUTOCLEAR = 88,
    H_REFCOUNT_ORDER = 96,
    H_HEADER_BYTES = 100,
    H_COMPRESSION = 104,
};

enum { CREATED_HEADER_BYTES = 112, FEATURE_BYTES = 48, FEATURE_NAME_BYTES = 46 };

/* Types of extensions. */
#define X_END 0u
#define X_BACKING_FORMAT 0xe2792acau
#define X_FEATURES 0x6803f857u
#define X_BITMAPS 0x23852875u

uint64_t qcow2_l1_needed(unsigned cluster_bits, bool extended, uint64_t virtual_bytes)
{
    unsigned shift = cluster_bits + cluster_bits - (extended ? 4 : 3);

    return (virtual_bytes >> shift) + ((virtual_bytes & (BIT(shift) - 1)) != 0);
}

static int read_at(struct disk_layer *file, uint64_t offset, void *data, uint64_t bytes)
{
    struct disk_span span = {data, bytes};

    return file->ops->read(file, offset, &span, 1, bytes);
}

/* ---- reading ---- */

static void parse_fields(struct qcow2_header *h)
{
    const uint8_t *s = h->sector;

    h->version = be32_get(s + H_VERSION);
    h->cluster_bits = be32_get(s + H_CLUSTER_BITS);
    h->virtual_bytes = be64_get(s + H_SIZE);
    h->l1_entries = be32_get(s + H_L1_ENTRIES);
    h->l1_offset = be64_get(s + H_L1_OFFSET);
    h->table_offset = be64_get(s + H_TABLE_OFFSET);
    h->table_clusters = be32_get(s + H_TABLE_CLUSTERS);
    h->snapshots = be32_get(s + H_SNAPSHOTS);
    h->snapshots_offset = be64_get(s + H_SNAPSHOTS_OFFSET);
    h->refcount_order = 4;
    h->header_bytes = QCOW2_V2_HEADER_BYTES;
    if (h->version < 3)
        return;
    h->incompatible = be64_get(s + H_INCOMPATIBLE);
    h->compatible = be64_get(s + H_COMPATIBLE);
    h->autoclear = be64_get(s + H_AUTOCLEAR);
    h->refcount_order = be32_get(s + H_REFCOUNT_ORDER);
    h->header_bytes = be32_get(s + H_HEADER_BYTES);
}

/* The name that the image gives to a feature that nobody here knows. */
static void name_feature(const uint8_t *table, uint64_t bytes, unsigned bit, char *out)
{
    snprintf(out, FEATURE_NAME_BYTES + 1, "number %u", bit);
    for (; bytes >= FEATURE_BYTES; table += FEATURE_BYTES, bytes -= FEATURE_BYTES) {
        if (table[0] != 0 || table[1] != bit || !table[2])
            continue;
        for (unsigned n = 0; n < FEATURE_NAME_BYTES; n++) {
            uint8_t c = table[2 + n];

            out[n] = c && (c < ' ' || c > '~') ? '?' : (char)c;
        }
        out[FEATURE_NAME_BYTES] = '\0';
        return;
    }
}

static int check_features(const struct qcow2_header *h, const uint8_t *names, uint64_t name_bytes,
                          const char *name, struct error *err)
{
    const uint64_t known = QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION_TYPE | QCOW2_EXTENDED_L2;
    char feature[FEATURE_NAME_BYTES + 1];

    if (h->incompatible & QCOW2_EXTERNAL_DATA)
        return error_set(err, -ENOTSUP,
                         "disk %s keeps its data in another file, which is not known here: "
                         "qemu-img convert -O qcow2 %s NEW",
                         name, name);
    if (h->incompatible & QCOW2_EXTENDED_L2 && h->cluster_bits < QCOW2_EXTENDED_CLUSTER_BITS_MIN)
        return error_set(err, -EINVAL,
                         "disk %s is damaged: its clusters are too small for extended L2 entries",
                         name);
    if (h->incompatible & ~known) {
        name_feature(names, name_bytes, (unsigned)__builtin_ctzll(h->incompatible & ~known),
                     feature);
        return error_set(err, -ENOTSUP, "disk %s uses a feature that is not known here: %s", name,
                         feature);
    }
    return 0;
}

/* Extensions in the first cluster, and the backing file's name. */
static int parse_rest(struct qcow2_header *h, const uint8_t *first, uint64_t bytes,
                      const char *name, struct error *err)
{
    uint64_t backing_offset = be64_get(h->sector + H_BACKING_OFFSET);
    uint32_t backing_bytes = be32_get(h->sector + H_BACKING_BYTES);
    uint64_t end = backing_offset ? MIN(backing_offset, bytes) : bytes;
    const uint8_t *features = NULL;
    uint64_t feature_bytes = 0;

    for (uint64_t at = h->header_bytes; at + 8 <= end;) {
        uint32_t type = be32_get(first + at), length = be32_get(first + at + 4);
        const uint8_t *data = first + at + 8;

        if (type == X_END)
            break;
        if (length > end - at - 8)
            return error_set(err, -EINVAL, "disk %s: a header extension is longer than its place",
                             name);
        if (type == X_BACKING_FORMAT && length < sizeof h->backing_format) {
            memcpy(h->backing_format, data, length);
            h->backing_format[length] = '\0';
        } else if (type == X_FEATURES) {
            features = data;
            feature_bytes = length;
        } else if (type == X_BITMAPS && length >= 24) {
            h->bitmaps = be32_get(data);
            h->bitmap_directory_bytes = be64_get(data + 8);
            h->bitmap_directory_offset = be64_get(data + 16);
        }
        at += 8 + align_up(length, 8);
    }
    if (backing_offset) {
        if (backing_offset < h->header_bytes || backing_offset > bytes || !backing_bytes ||
            backing_bytes >= QCOW2_NAME_BYTES || backing_bytes > bytes - backing_offset ||
            memchr(first + backing_offset, '\0', backing_bytes))
            return error_set(err, -EINVAL, "disk %s: the name of its backing file is wrong", name);
        memcpy(h->backing, first + backing_offset, backing_bytes);
        h->backing[backing_bytes] = '\0';
    }
    return check_features(h, features, feature_bytes, name, err);
}

static int check_fields(const struct qcow2_header *h, uint64_t file_bytes, const char *name,
                        struct error *err)
{
    uint64_t cluster = BIT(h->cluster_bits), l1_bytes = (uint64_t)h->l1_entries * 8;
    const char *wrong = NULL;

    if (h->refcount_order > 6)
        wrong = "the width of refcounts";
    else if (h->virtual_bytes > BIT(56))
        wrong = "the size of the disk";
    else if (l1_bytes > QCOW2_L1_BYTES_MAX ||
             h->l1_entries < qcow2_l1_needed(h->cluster_bits, h->incompatible & QCOW2_EXTENDED_L2,
                                             h->virtual_bytes))
        wrong = "the size of the L1 table";
    else if (h->l1_entries && (h->l1_offset % cluster || !h->l1_offset || h->l1_offset > BIT(56) ||
                               h->l1_offset + l1_bytes > file_bytes))
        wrong = "the place of the L1 table";
    else if (!h->table_clusters || h->table_clusters > QCOW2_TABLE_BYTES_MAX / cluster)
        wrong = "the size of the refcount table";
    else if (h->table_offset % cluster || !h->table_offset || h->table_offset > BIT(56) ||
             h->table_offset >= file_bytes)
        wrong = "the place of the refcount table";
    else if (h->snapshots > QCOW2_SNAPSHOTS_MAX)
        wrong = "the number of snapshots";
    else if (h->snapshots && (h->snapshots_offset % cluster || !h->snapshots_offset ||
                              h->snapshots_offset >= file_bytes))
        wrong = "the place of the snapshot table";
    if (wrong)
        return error_set(err, -EINVAL, "disk %s is damaged: %s is wrong in its header", name,
                         wrong);
    return 0;
}

static int check_start(const struct qcow2_header *h, const char *name, struct error *err)
{
    uint32_t crypt = be32_get(h->sector + H_CRYPT);

    if (be32_get(h->sector + H_MAGIC) != QCOW2_MAGIC)
        return error_set(err, -EINVAL, "disk %s is no qcow2 image: leave out format=qcow2", name);
    if (h->version != 2 && h->version != 3)
        return error_set(err, -ENOTSUP, "disk %s is qcow2 of version %u: 2 and 3 are known", name,
                         h->version);
    if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN || h->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return error_set(err, -EINVAL,
                         "disk %s has clusters of 2^%u bytes: from 512 bytes to 2M is possible",
                         name, h->cluster_bits);
    if (crypt)
        return error_set(err, -ENOTSUP,
                         "disk %s is encrypted (%s), which is not known here: qemu-img convert "
                         "with its secret makes one that is not",
                         name, crypt == 2 ? "LUKS" : "AES");
    if (h->version >= 3 && (h->header_bytes < QCOW2_V3_HEADER_BYTES || h->header_bytes % 8 ||
                            h->header_bytes > BIT(h->cluster_bits)))
        return error_set(err, -EINVAL, "disk %s is damaged: the length of its header is wrong",
                         name);
    return 0;
}

static int find_compression(struct qcow2_header *h, const char *name, struct error *err)
{
    unsigned type = 0;

    if (h->version >= 3 && h->header_bytes > H_COMPRESSION)
        type = h->sector[H_COMPRESSION];
    if (type > QCOW2_ZSTD || (type != QCOW2_ZLIB) != !!(h->incompatible & QCOW2_COMPRESSION_TYPE))
        return error_set(err, -EINVAL,
                         "disk %s has compressed clusters of kind %u: zlib and zstd are known",
                         name, type);
    h->compression = type;
    return 0;
}

int qcow2_header_read(struct disk_layer *file, const char *name, struct qcow2_header *h,
                      struct error *err)
{
    uint8_t *first;
    int ret;

    memset(h, 0, sizeof *h);
    ret = read_at(file, 0, h->sector, sizeof h->sector);
    if (ret)
        return error_set(err, ret, "disk %s: cannot read: %s", name, strerror(-ret));
    parse_fields(h);
    ret = check_start(h, name, err);
    if (ret)
        return ret;
    first = malloc(BIT(h->cluster_bits));
    if (!first)
        return error_set(err, -ENOMEM, "out of memory for disk %s", name);
    ret = read_at(file, 0, first, BIT(h->cluster_bits));
    if (ret)
        error_set(err, ret, "disk %s: cannot read: %s", name, strerror(-ret));
    else
        ret = parse_rest(h, first, BIT(h->cluster_bits), name, err);
    free(first);
    if (!ret)
        ret = check_fields(h, file->bytes, name, err);
    if (!ret)
        ret = find_compression(h, name, err);
    return ret;
}

int qcow2_header_write(struct qcow2 *q)
{
    struct qcow2_header *h = &q->header;
    uint8_t *s = h->sector;

    be64_put(s + H_SIZE, h->virtual_bytes);
    be32_put(s + H_L1_ENTRIES, h->l1_entries);
    be64_put(s + H_L1_OFFSET, h->l1_offset);
    be64_put(s + H_TABLE_OFFSET, h->table_offset);
    be32_put(s + H_TABLE_CLUSTERS, h->table_clusters);
    be32_put(s + H_SNAPSHOTS, h->snapshots);
    be64_put(s + H_SNAPSHOTS_OFFSET, h->snapshots_offset);
    if (h->version >= 3) {
        be64_put(s + H_INCOMPATIBLE, h->incompatible);
        be64_put(s + H_COMPATIBLE, h->compatible);
        be64_put(s + H_AUTOCLEAR, h->autoclear);
    }
    return qcow2_write_file(q, 0, s, sizeof h->sector);
}

/* ---- new images ---- */

static int check_options(const struct qcow2_options *o, struct error *err)
{
    if (o->version != 2 && o->version != 3)
        return error_set(err, -EINVAL, "qcow2 has version 2 (compat=0.10) and 3 (compat=1.1)");
    if (o->cluster_bits < QCOW2_CLUSTER_BITS_MIN || o->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return error_set(err, -EINVAL, "cluster_size is a power of 2 from 512 to 2M");
    if (!o->refcount_bits || o->refcount_bits > 64 || (o->refcount_bits & (o->refcount_bits - 1)))
        return error_set(err, -EINVAL, "refcount_bits is a power of 2 up to 64");
    if (o->version == 2 &&
        (o->refcount_bits != 16 || o->lazy_refcounts || o->compression || o->extended_l2))
        return error_set(
            err, -EINVAL,
            "refcount_bits, lazy_refcounts, compression_type and extended_l2 need compat=1.1");
    if (o->extended_l2 && o->cluster_bits < QCOW2_EXTENDED_CLUSTER_BITS_MIN)
        return error_set(err, -EINVAL, "extended_l2 needs a cluster_size of 16K at least");
    if (qcow2_l1_needed(o->cluster_bits, o->extended_l2, o->virtual_bytes) * 8 >
            QCOW2_L1_BYTES_MAX ||
        o->virtual_bytes > BIT(56))
        return error_set(err, -EFBIG,
                         "a disk of %llu bytes is too large for such clusters: give a larger "
                         "cluster_size",
                         (unsigned long long)o->virtual_bytes);
    if (o->backing && strlen(o->backing) >= QCOW2_NAME_BYTES)
        return error_set(err, -ENAMETOOLONG, "the backing file's name is longer than %d bytes",
                         QCOW2_NAME_BYTES - 1);
    return 0;
}

static uint8_t *put_extension(uint8_t *p, uint32_t type, const void *data, uint32_t bytes)
{
    be32_put(p, type);
    be32_put(p + 4, bytes);
    memcpy(p + 8, data, bytes);
    return p + 8 + align_up(bytes, 8);
}

/* So that who does not know a feature can say which it is. */
static uint8_t *put_features(uint8_t *p)
{
    static const struct {
        uint8_t type, bit;
        const char *name;
    } features[] = {{0, 0, "dirty bit"},
                    {0, 1, "corrupt bit"},
                    {0, 3, "compression type"},
                    {0, 4, "extended L2 entries"},
                    {1, 0, "lazy refcounts"}};
    uint8_t table[ARRAY_SIZE(features) * FEATURE_BYTES] = {0};

    for (size_t n = 0; n < ARRAY_SIZE(features); n++) {
        uint8_t *entry = table + n * FEATURE_BYTES;

        entry[0] = features[n].type;
        entry[1] = features[n].bit;
        memcpy(entry + 2, features[n].name, strlen(features[n].name));
    }
    return put_extension(p, X_FEATURES, table, sizeof table);
}

/* The first cluster; NULL: the names do not fit. */
static bool fill_header(uint8_t *first, const struct qcow2_options *o)
{
    unsigned order = (unsigned)__builtin_ctz(o->refcount_bits);
    uint64_t cluster = BIT(o->cluster_bits), backing_bytes = o->backing ? strlen(o->backing) : 0;
    uint8_t *p = first + (o->version >= 3 ? CREATED_HEADER_BYTES : QCOW2_V2_HEADER_BYTES);

    be32_put(first + H_MAGIC, QCOW2_MAGIC);
    be32_put(first + H_VERSION, o->version);
    be32_put(first + H_CLUSTER_BITS, o->cluster_bits);
    be64_put(first + H_SIZE, o->virtual_bytes);
    if (o->version >= 3) {
        be64_put(first + H_INCOMPATIBLE, (o->compression ? QCOW2_COMPRESSION_TYPE : 0) |
                                             (o->extended_l2 ? QCOW2_EXTENDED_L2 : 0));
        be64_put(first + H_COMPATIBLE, o->lazy_refcounts ? QCOW2_LAZY_REFCOUNTS : 0);
        be32_put(first + H_REFCOUNT_ORDER, order);
        be32_put(first + H_HEADER_BYTES, CREATED_HEADER_BYTES);
        first[H_COMPRESSION] = (uint8_t)o->compression;
    }
    if (o->backing && o->backing_format)
        p = put_extension(p, X_BACKING_FORMAT, o->backing_format,
                          (uint32_t)strlen(o->backing_format));
    /* Only where there is room: clusters may be of 512 bytes. */
    if (o->version >= 3 && cluster >= 4096)
        p = put_features(p);
    p += 8; /* the end */
    if ((uint64_t)(p - first) + backing_bytes > cluster)
        return false;
    if (o->backing) {
        be64_put(first + H_BACKING_OFFSET, (uint64_t)(p - first));
        be32_put(first + H_BACKING_BYTES, (uint32_t)backing_bytes);
        memcpy(p, o->backing, backing_bytes);
    }
    return true;
}

/*
 * A new image is: header, refcount table, refcount blocks, L1. All of it is small
 * but for the L1 of a very large disk with small clusters, so it is made in
 * memory as a whole.
 */
int qcow2_create(struct disk_layer *file, const struct qcow2_options *o, struct error *err)
{
    uint64_t cluster = BIT(o->cluster_bits);
    unsigned order;
    uint64_t block_entries, l1_entries, l1_clusters, table, blocks, total;
    struct disk_span span;
    uint8_t *image;
    int ret = check_options(o, err);

    if (ret)
        return ret;
    order = (unsigned)__builtin_ctz(o->refcount_bits);
    block_entries = cluster * 8 >> order;
    l1_entries = MAX(qcow2_l1_needed(o->cluster_bits, o->extended_l2, o->virtual_bytes), 1);
    l1_clusters = (l1_entries * 8 + cluster - 1) >> o->cluster_bits;
    for (table = blocks = 1;;) {
        uint64_t need_blocks, need_table;

        total = 1 + table + blocks + l1_clusters;
        need_blocks = (total + block_entries - 1) / block_entries;
        need_table = (need_blocks * 8 + cluster - 1) >> o->cluster_bits;
        if (need_blocks <= blocks && need_table <= table)
            break;
        blocks = MAX(blocks, need_blocks);
        table = MAX(table, need_table);
    }
    image = calloc(1, total << o->cluster_bits);
    if (!image)
        return error_set(err, -ENOMEM, "out of memory for a new image");
    if (!fill_header(image, o)) {
        free(image);
        return error_set(err, -ENAMETOOLONG,
                         "the backing file's name does not fit into a cluster: give a larger "
                         "cluster_size or a shorter name");
    }
    be64_put(image + H_TABLE_OFFSET, cluster);
    be32_put(image + H_TABLE_CLUSTERS, (uint32_t)table);
    be32_put(image + H_L1_ENTRIES, (uint32_t)l1_entries);
    be64_put(image + H_L1_OFFSET, (1 + table + blocks) << o->cluster_bits);
    for (uint64_t n = 0; n < blocks; n++)
        be64_put(image + cluster + n * 8, (1 + table + n) << o->cluster_bits);
    for (uint64_t n = 0; n < total; n++)
        qcow2_field_set(image + ((1 + table + n / block_entries) << o->cluster_bits), order,
                        n % block_entries, 1);
    span = (struct disk_span){image, total << o->cluster_bits};
    ret = file->ops->write(file, 0, &span, 1, span.bytes);
    free(image);
    if (ret)
        return error_set(err, ret, "cannot write: %s", strerror(-ret));
    if (file->bytes < total << o->cluster_bits && file->ops->resize)
        file->ops->resize(file, total << o->cluster_bits);
    return 0;
}
