/*
 * A file in the making. Interface: img.h.
 *
 * It has no name until it is whole (O_TMPFILE), so that nothing is left of it
 * whatever ends the process; where the host's file system cannot do that it has a
 * name of its own beside the final one. A block device is written in place.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/img.h"

/* The name behind symbolic links, if it is there. */
static int find_path(struct img_target *t, const char *path, struct error *err)
{
    char real[PATH_MAX];

    if (strlen(path) >= sizeof t->path)
        return error_set(err, -ENAMETOOLONG, "the name of the image is too long");
    snprintf(t->path, sizeof t->path, "%s", realpath(path, real) ? real : path);
    return 0;
}

/* Nobody may be using what it will replace. */
int img_target_check_unused(const char *path, struct error *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), ret = 0;

    if (fd < 0)
        return errno == ENOENT ? 0 : error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
        ret = error_set(err, -EBUSY, "%s is used by a machine: stop that one first", path);
    close(fd);
    return ret;
}

static int open_device(struct img_target *t, struct error *err)
{
    t->is_device = true;
    t->fd = open(t->path, O_RDWR | O_CLOEXEC | O_EXCL);
    return t->fd < 0 ? error_set(err, -errno, "%s: %s", t->path, strerror(errno)) : 0;
}

static int open_aside(struct img_target *t, struct error *err)
{
    char copy[PATH_MAX];
    mode_t mask = umask(0);
    int length;

    umask(mask);
    snprintf(copy, sizeof copy, "%s", t->path);
    length = snprintf(t->aside, sizeof t->aside, "%s.new-XXXXXX", t->path);
    if (length < 0 || (size_t)length >= sizeof t->aside)
        return error_set(err, -ENAMETOOLONG, "the name of the image is too long");
    t->fd = open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (t->fd >= 0) {
        t->aside[0] = '\0';
        return 0;
    }
    t->fd = mkostemp(t->aside, O_CLOEXEC);
    if (t->fd < 0) {
        t->aside[0] = '\0';
        return error_set(err, -errno, "cannot make %s: %s", t->path, strerror(errno));
    }
    fchmod(t->fd, 0666 & ~mask);
    return 0;
}

int img_target_open(struct img_target *t, const char *path, struct error *err)
{
    struct stat st;
    int ret;

    memset(t, 0, sizeof *t);
    t->fd = -1;
    ret = find_path(t, path, err);
    if (ret)
        return ret;
    if (stat(t->path, &st) == 0) {
        if (S_ISBLK(st.st_mode))
            return open_device(t, err);
        if (!S_ISREG(st.st_mode))
            return error_set(err, -EINVAL, "%s: give a file or a block device", t->path);
        ret = img_target_check_unused(t->path, err);
        if (ret)
            return ret;
    }
    return open_aside(t, err);
}

struct disk_layer *img_target_layer(struct img_target *t, struct error *err)
{
    off_t end = lseek(t->fd, 0, SEEK_END);
    int fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 0);
    struct disk_layer *l = fd >= 0 && end >= 0 ? disk_file_from_fd(fd, (uint64_t)end) : NULL;

    if (!l)
        error_set(err, -ENOMEM, "%s: cannot open it", t->path);
    return l;
}

/* A name for what has none; `path` is not there. */
static int give_name(const struct img_target *t, const char *path)
{
    char proc[64];

    snprintf(proc, sizeof proc, "/proc/self/fd/%d", t->fd);
    return linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static int replace(struct img_target *t)
{
    int ret;

    if (!t->aside[0]) {
        ret = give_name(t, t->path);
        if (ret != -EEXIST)
            return ret;
        /* There is no call that puts it in the place of another. */
        for (unsigned n = 0; n < 100 && ret == -EEXIST; n++) {
            if (snprintf(t->aside, sizeof t->aside, "%s.new-%d-%u", t->path, (int)getpid(), n) >=
                (int)sizeof t->aside)
                ret = -ENAMETOOLONG;
            else
                ret = give_name(t, t->aside);
        }
        if (ret) {
            t->aside[0] = '\0';
            return ret;
        }
    }
    if (rename(t->aside, t->path) < 0)
        return -errno;
    t->aside[0] = '\0';
    return 0;
}

int img_target_finish(struct img_target *t, bool flush, struct error *err)
{
    int ret = flush && fsync(t->fd) < 0 ? -errno : 0;

    if (!ret && !t->is_device)
        ret = replace(t);
    if (ret)
        error_set(err, ret, "cannot make %s: %s", t->path, strerror(-ret));
    img_target_discard(t);
    return ret;
}

void img_target_discard(struct img_target *t)
{
    if (t->aside[0])
        unlink(t->aside);
    t->aside[0] = '\0';
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
}
