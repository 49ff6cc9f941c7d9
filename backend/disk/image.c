/*
 * Opening an image: which format it is in, and the images that it stands on.
 * Interface: disk_image_open and disk_format_of in layer.h.
 *
 * Of a chain of backing files each is opened to read only. A chain that comes
 * back to itself, and one that is longer than anybody's, are refused. Names in
 * an image are files: relative ones begin where the image is; no other way of
 * naming (a protocol, JSON) is followed, because an image may come from anybody.
 *
 * Threading: any thread; nothing is kept.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "backend/disk/layer.h"
#include "backend/disk/qcow2.h"

enum { START_BYTES = 512, DEPTH_MAX = 64 };

/* The images above this one. */
struct chain {
    const struct chain *above;
    dev_t device;
    ino_t inode;
    unsigned depth;
};

const char *disk_format_of(const void *start, size_t bytes)
{
    static const struct {
        const char *magic, *name;
    } formats[] = {{"QFI\xfb", "qcow2"},
                   {"KDMV", "vmdk"},
                   {"vhdxfile", "vhdx"},
                   {"COWD", "vmdk"},
                   {"conectix", "vpc"},
                   {"QED", "qed"},
                   {"WithoutFreeSpace", "parallels"},
                   {"WithouFreSpacExt", "parallels"},
                   {"LUKS\xba\xbe", "luks"}};

    for (size_t n = 0; n < ARRAY_SIZE(formats); n++)
        if (strlen(formats[n].magic) <= bytes &&
            !memcmp(start, formats[n].magic, strlen(formats[n].magic)))
            return formats[n].name;
    if (bytes >= 68 && le32_get((const uint8_t *)start + 64) == 0xbeda107f)
        return "vdi";
    return NULL;
}

/* Of an image whose format nobody has said. */
static int find_format(struct disk_layer *file, const char *path, enum disk_format *format,
                       struct error *err)
{
    uint8_t start[START_BYTES];
    struct disk_span span = {start, sizeof start};
    int ret = file->ops->read(file, 0, &span, 1, sizeof start);
    const char *name;

    if (ret)
        return error_set(err, ret, "disk %s: cannot read: %s", path, strerror(-ret));
    name = disk_format_of(start, sizeof start);
    if (!name) {
        *format = DISK_FORMAT_RAW;
        disk_file_guard(file);
    } else if (!strcmp(name, "qcow2")) {
        *format = DISK_FORMAT_QCOW2;
    } else {
        return error_set(err, -EINVAL,
                         "disk %s is a %s image, and only raw and qcow2 ones are known: qemu-img "
                         "convert -O qcow2 %s NEW (or give format=raw, if it is none)",
                         path, name, path);
    }
    return 0;
}

/* The path of a file that an image names. */
static int resolve(const char *image, const char *name, char *out, size_t room, struct error *err)
{
    const char *slash = strrchr(image, '/');
    size_t scheme = strcspn(name, ":/");
    int length;

    if (!strncmp(name, "file:", 5)) {
        name += 5;
    } else if (name[scheme] == ':') {
        return error_set(err, -EINVAL,
                         "disk %s: its backing file '%.200s' is no file of this host: convert the "
                         "whole chain where it can be opened",
                         image, name);
    }
    if (name[0] == '/' || !slash)
        length = snprintf(out, room, "%s", name);
    else
        length = snprintf(out, room, "%.*s/%s", (int)(slash - image), image, name);
    if (length < 0 || (size_t)length >= room || !name[0])
        return error_set(err, -ENAMETOOLONG, "disk %s: the name of its backing file is wrong",
                         image);
    return 0;
}

static struct disk_layer *open_in_chain(const struct disk_image_config *config,
                                        const struct chain *above, struct log *log,
                                        struct error *err);

static int open_backing(struct disk_layer *image, const struct disk_image_config *config,
                        const struct chain *here, struct log *log, struct error *err)
{
    const char *format = qcow2_backing_format(image);
    struct disk_image_config below = {
        .readonly = true,
        .cache = config->cache,
        .format = DISK_FORMAT_AUTO,
    };
    struct disk_layer *layer;
    char path[PATH_MAX];
    int ret = resolve(config->path, qcow2_backing_name(image), path, sizeof path, err);

    if (ret)
        return ret;
    if (format[0] && !strcmp(format, "raw"))
        below.format = DISK_FORMAT_RAW;
    else if (format[0] && !strcmp(format, "qcow2"))
        below.format = DISK_FORMAT_QCOW2;
    else if (format[0])
        return error_set(err, -EINVAL,
                         "disk %s: its backing file is in the format '%.40s', and only raw and "
                         "qcow2 are known",
                         config->path, format);
    below.path = path;
    layer = open_in_chain(&below, here, log, err);
    if (!layer)
        return -EINVAL;
    qcow2_set_backing(image, layer);
    return 0;
}

static int enter_chain(struct chain *here, const struct chain *above, const char *path,
                       struct error *err)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return error_set(err, -errno, above ? "backing file %s: %s" : "disk %s: %s", path,
                         strerror(errno));
    *here = (struct chain){.above = above,
                           .device = st.st_dev,
                           .inode = st.st_ino,
                           .depth = above ? above->depth + 1 : 0};
    for (const struct chain *c = above; c; c = c->above)
        if (c->device == here->device && c->inode == here->inode)
            return error_set(err, -ELOOP,
                             "disk %s is its own backing file: the images name each other in a "
                             "circle",
                             path);
    if (here->depth > DEPTH_MAX)
        return error_set(err, -ELOOP,
                         "disk %s: more than %d images stand on each other: convert them to one",
                         path, DEPTH_MAX);
    return 0;
}

static struct disk_layer *open_in_chain(const struct disk_image_config *config,
                                        const struct chain *above, struct log *log,
                                        struct error *err)
{
    enum disk_format format = config->format;
    struct disk_layer *file, *image;
    struct chain here;

    if (enter_chain(&here, above, config->path, err))
        return NULL;
    file = disk_file_open(config->path, config->readonly, config->cache, log, err);
    if (!file)
        return NULL;
    if (format == DISK_FORMAT_AUTO && find_format(file, config->path, &format, err)) {
        disk_layer_destroy(file);
        return NULL;
    }
    if (format == DISK_FORMAT_RAW)
        return file;
    image = qcow2_open(file, config->path, config->cache, err);
    if (!image)
        return NULL;
    if (qcow2_backing_name(image)[0] && !config->no_backing &&
        open_backing(image, config, &here, log, err)) {
        disk_layer_destroy(image);
        return NULL;
    }
    return image;
}

struct disk_layer *disk_image_open(const struct disk_image_config *config, struct log *log,
                                   struct error *err)
{
    return open_in_chain(config, NULL, log, err);
}
