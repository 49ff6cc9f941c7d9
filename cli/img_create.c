/*
 * vireo img create and resize, and how an image is made for convert.
 * Interface: img.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/host.h"
#include "cli/img.h"

/* ---- making ---- */

static int reserve(struct img_target *t, uint64_t bytes, bool full, struct error *err)
{
    enum { PIECE = 1 << 20 };
    uint8_t *zeroes;
    int ret = posix_fallocate(t->fd, 0, (off_t)bytes);

    if (ret || !full)
        return ret ? error_set(err, -ret, "%s: no room for %llu bytes: %s", t->path,
                               (unsigned long long)bytes, strerror(ret))
                   : 0;
    zeroes = calloc(1, PIECE);
    if (!zeroes)
        return error_set(err, -ENOMEM, "out of memory");
    for (uint64_t at = 0; at < bytes && !ret;) {
        ssize_t n = pwrite(t->fd, zeroes, MIN(bytes - at, PIECE), (off_t)at);

        if (n < 0 && errno != EINTR)
            ret = error_set(err, -errno, "%s: %s", t->path, strerror(errno));
        at += n > 0 ? (uint64_t)n : 0;
    }
    free(zeroes);
    return ret;
}

static int make_raw(struct img_target *t, const struct img_options *o, struct disk_layer **out,
                    struct error *err)
{
    uint64_t bytes = o->qcow2.virtual_bytes;
    int ret = 0;

    if (!t->is_device) {
        if (ftruncate(t->fd, (off_t)bytes) < 0)
            return error_set(err, -errno, "%s cannot have %llu bytes: %s", t->path,
                             (unsigned long long)bytes, strerror(errno));
        if (o->prealloc)
            ret = reserve(t, bytes, o->prealloc == IMG_PREALLOC_FULL, err);
    }
    if (ret)
        return ret;
    *out = img_target_layer(t, err);
    if (!*out)
        return -ENOMEM;
    if ((*out)->bytes >= bytes)
        return 0;
    ret = error_set(err, -ENOSPC, "%s has %llu bytes, and the image is of %llu", t->path,
                    (unsigned long long)(*out)->bytes, (unsigned long long)bytes);
    disk_layer_destroy(*out);
    return ret;
}

static int make_qcow2(struct img_target *t, struct img_options *o, struct disk_layer **out,
                      struct error *err)
{
    struct disk_layer *file = img_target_layer(t, err);
    int ret;

    if (!file)
        return -ENOMEM;
    ret = qcow2_create(file, &o->qcow2, err);
    if (ret) {
        disk_layer_destroy(file);
        return ret;
    }
    *out = qcow2_open(file, t->path, DISK_UNSAFE, err);
    if (!*out)
        return -EINVAL;
    if (o->prealloc)
        ret = qcow2_preallocate(*out, err);
    if (!ret && o->prealloc > IMG_PREALLOC_METADATA) {
        off_t end = lseek(t->fd, 0, SEEK_END);
        uint64_t data = o->qcow2.virtual_bytes;

        /* The data is a hole in the file: so is fallocate's. */
        ret = posix_fallocate(t->fd, 0, end);
        if (ret)
            ret = error_set(err, -ret, "%s: no room for %llu bytes: %s", t->path,
                            (unsigned long long)data, strerror(ret));
    }
    if (ret)
        disk_layer_destroy(*out);
    return ret;
}

int img_make(struct img_target *t, enum disk_format format, struct img_options *o,
             struct disk_layer **out, struct error *err)
{
    if (format == DISK_FORMAT_QCOW2)
        return make_qcow2(t, o, out, err);
    return make_raw(t, o, out, err);
}

/* ---- create ---- */

struct creating {
    struct img_target target;
    struct img_options options;
    enum disk_format format;
};

static int run_create(struct img_job *job, struct error *err)
{
    struct creating *c = job->ctx;
    struct disk_layer *layer;
    int ret = img_make(&c->target, c->format, &c->options, &layer, err);

    if (!ret)
        disk_layer_destroy(layer);
    return ret;
}

int img_look_at_backing(struct img_options *o, const char *image, struct disk_layer **out,
                        struct error *err)
{
    struct disk_layer *backing;
    char path[PATH_MAX];

    img_resolve(image, o->backing, path, sizeof path);
    backing = img_open(path, o->backing_format[0] ? o->backing_format : NULL, true, false, err);
    if (!backing)
        return -EINVAL;
    /* The target was nobody's before the images below it were opened. */
    if (img_target_check_unused(image, err)) {
        disk_layer_destroy(backing);
        return error_set(err, -ELOOP, "%s would stand on itself: choose another name", image);
    }
    if (o->qcow2.virtual_bytes == UINT64_MAX)
        o->qcow2.virtual_bytes = backing->bytes;
    /* Said once and for all: what a guest writes into it must not say it later. */
    if (!o->backing_format[0])
        snprintf(o->backing_format, sizeof o->backing_format, "%s",
                 qcow2_is(backing) ? "qcow2" : "raw");
    if (out)
        *out = backing;
    else
        disk_layer_destroy(backing);
    return 0;
}

/* What -b, -F and -o say of it, where it is. */
int img_take_backing(struct img_options *o, const struct img_args *a, enum disk_format format,
                     struct error *err)
{
    if (a->backing && strlen(a->backing) >= sizeof o->backing)
        return error_set(err, -ENAMETOOLONG, "the backing file's name is longer than %d bytes",
                         QCOW2_NAME_BYTES - 1);
    if (a->backing)
        snprintf(o->backing, sizeof o->backing, "%s", a->backing);
    if (a->backing_format)
        snprintf(o->backing_format, sizeof o->backing_format, "%s", a->backing_format);
    if (!o->backing[0])
        return 0;
    if (format != DISK_FORMAT_QCOW2)
        return error_set(err, -EINVAL,
                         "only qcow2 images have a backing file: give -f qcow2 to "
                         "create one, -O qcow2 to convert");
    if (o->backing_format[0] && strcmp(o->backing_format, "raw") &&
        strcmp(o->backing_format, "qcow2"))
        return error_set(err, -EINVAL, "-F %s: the backing file is raw or qcow2",
                         o->backing_format);
    o->qcow2.backing = o->backing;
    return 0;
}

static int prepare_create(struct creating *c, const struct img_args *a, struct error *err)
{
    struct img_options *o = &c->options;
    int ret = img_format_of(a->format ? a->format : "raw", &c->format, err);

    if (ret)
        return ret;
    if (c->format == DISK_FORMAT_AUTO)
        return error_set(err, -EINVAL, "img create: give -f raw or -f qcow2");
    ret = img_options_parse(o, a->options, c->format, err);
    if (ret)
        return ret;
    ret = img_take_backing(o, a, c->format, err);
    if (ret)
        return ret;
    if (!o->qcow2.virtual_bytes)
        o->qcow2.virtual_bytes = UINT64_MAX;
    if (a->words == 2 && !cli_parse_size(a->word[1], &o->qcow2.virtual_bytes))
        return error_set(err, -EINVAL, "img create: %.32s is no size: give one such as 8G",
                         a->word[1]);
    ret = img_target_open(&c->target, a->word[0], err);
    if (!ret && o->backing[0] && !a->no_backing_check)
        ret = img_look_at_backing(o, c->target.path, NULL, err);
    if (o->backing_format[0])
        o->qcow2.backing_format = o->backing_format;
    if (!ret && o->qcow2.virtual_bytes == UINT64_MAX)
        ret = error_set(err, -EINVAL, "img create: give a size, such as 8G");
    if (!ret && o->qcow2.virtual_bytes > BIT(56))
        ret = error_set(err, -EFBIG, "img create: that is more than any disk has");
    o->qcow2.virtual_bytes = align_up(o->qcow2.virtual_bytes, DISK_SECTOR_BYTES);
    return ret;
}

int img_create(int argc, char **argv, struct img_job *job, struct error *err)
{
    struct creating c = {.target.fd = -1};
    struct img_args a;
    char text[32];
    int ret = img_args_parse(&a, argc, argv, "f:o:b:F:quS:", "create", err);

    if (ret)
        return ret;
    if (a.words < 1 || a.words > 2)
        return error_set(err, -EINVAL, "img create: give a file and a size");
    ret = prepare_create(&c, &a, err);
    if (!ret) {
        job->verb = "creating";
        job->quiet = a.quiet;
        job->run = run_create;
        job->ctx = &c;
        ret = img_job_run(job, err);
    }
    if (!ret && !job->signal)
        ret = img_target_finish(&c.target, true, err);
    else
        img_target_discard(&c.target);
    if (!ret && !job->signal && !a.quiet)
        printf("%s: %s of %s\n", a.word[0], c.format == DISK_FORMAT_QCOW2 ? "qcow2" : "raw",
               img_size_text(c.options.qcow2.virtual_bytes, text, sizeof text));
    return ret;
}

/* ---- resize ---- */

static int find_new_size(const char *text, uint64_t now, uint64_t *bytes, struct error *err)
{
    uint64_t number;
    bool ok = cli_parse_size(text + strspn(text, "+-"), &number) && strspn(text, "+-") <= 1;

    if (ok && text[0] == '+')
        *bytes = now + number;
    else if (ok && text[0] == '-')
        ok = number < now && (*bytes = now - number);
    else if (ok)
        *bytes = number;
    if (!ok || *bytes > BIT(56) || (text[0] == '+' && *bytes < now))
        return error_set(err, -EINVAL,
                         "img resize: %.32s is no size: give one such as 8G, +1G or -1G", text);
    *bytes = align_up(*bytes, DISK_SECTOR_BYTES);
    return 0;
}

struct resizing {
    struct disk_layer *layer;
    uint64_t bytes;
};

static int run_resize(struct img_job *job, struct error *err)
{
    struct resizing *r = job->ctx;
    int ret = r->layer->ops->resize ? r->layer->ops->resize(r->layer, r->bytes) : -EOPNOTSUPP;

    if (ret == -EOPNOTSUPP)
        return error_set(err, ret, "img resize: a block device has the size it has");
    if (!ret)
        ret = r->layer->ops->flush(r->layer);
    return ret ? error_set(err, ret, "img resize: %s", strerror(-ret)) : 0;
}

int img_resize(int argc, char **argv, struct img_job *job, struct error *err)
{
    struct resizing r = {0};
    struct img_args a;
    char text[32];
    int ret = img_args_parse(&a, argc, argv, "f:q", "resize", err);

    if (ret)
        return ret;
    if (a.words != 2)
        return error_set(err, -EINVAL, "img resize: give a file and a size");
    r.layer = img_open(a.word[0], a.format, false, false, err);
    if (!r.layer)
        return -EINVAL;
    ret = find_new_size(a.word[1], r.layer->bytes, &r.bytes, err);
    if (!ret && r.bytes < r.layer->bytes && !a.shrink)
        ret = error_set(err, -EINVAL,
                        "img resize: %s would lose what is behind %s: give --shrink if that is "
                        "meant",
                        a.word[0], img_size_text(r.bytes, text, sizeof text));
    if (!ret) {
        job->verb = "resizing";
        job->quiet = a.quiet;
        job->run = run_resize;
        job->ctx = &r;
        ret = img_job_run(job, err);
    }
    disk_layer_destroy(r.layer);
    if (!ret && !a.quiet)
        printf("%s: now of %s\n", a.word[0], img_size_text(r.bytes, text, sizeof text));
    return ret;
}
