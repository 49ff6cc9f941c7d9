/*
 * The variable store's file; see uefi_vars.h.
 */
#include "boot/uefi_vars.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "boot/image.h"

static int write_all(int fd, const uint8_t *data, uint64_t bytes, uint64_t offset)
{
    while (bytes) {
        ssize_t n = pwrite(fd, data, bytes, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

/* All of it or nothing: under another name first. */
static int make_file(const struct uefi_vars *v, struct error *err)
{
    char temporary[sizeof v->name + 8];
    int fd, code;

    snprintf(temporary, sizeof temporary, "%s.XXXXXX", v->name);
    fd = mkstemp(temporary);
    if (fd < 0) {
        code = errno;
        return error_set(err, -code, "cannot make the UEFI variable store '%s': %s", v->name,
                         strerror(code));
    }
    code = write_all(fd, v->data, v->bytes, 0);
    if (code == 0 && (fchmod(fd, 0644) < 0 || fsync(fd) < 0))
        code = -errno;
    if (close(fd) < 0 && code == 0)
        code = -errno;
    if (code == 0 && rename(temporary, v->name) < 0)
        code = -errno;
    if (code < 0) {
        unlink(temporary);
        return error_set(err, code, "cannot write the UEFI variable store '%s': %s", v->name,
                         strerror(-code));
    }
    return 0;
}

/* The file's content takes the place of the pristine one. */
static int read_file(struct uefi_vars *v, struct error *err)
{
    uint64_t done = 0;
    struct stat st;
    int code;

    if (fstat(v->fd, &st) < 0) {
        code = errno;
        return error_set(err, -code, "cannot look at the UEFI variable store '%s': %s", v->name,
                         strerror(code));
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != v->bytes)
        return error_set(err, -EINVAL,
                         "'%s' is no UEFI variable store: that is a file of %llu bytes; name "
                         "another or remove it",
                         v->name, (unsigned long long)v->bytes);
    while (done < v->bytes) {
        ssize_t n = pread(v->fd, v->data + done, v->bytes - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            code = n < 0 ? errno : EIO;
            return error_set(err, -code, "cannot read the UEFI variable store '%s': %s", v->name,
                             strerror(code));
        }
        done += (uint64_t)n;
    }
    return 0;
}

static int open_file(struct uefi_vars *v, const char *path, bool keep, struct error *err)
{
    int flags = (keep ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY, code;

    if ((size_t)snprintf(v->name, sizeof v->name, "%s", path) >= sizeof v->name)
        return error_set(err, -ENAMETOOLONG, "the name of the UEFI variable store is too long");
    v->fd = open(path, flags);
    if (v->fd < 0 && errno == ENOENT) {
        if (!keep)
            return 0; /* as a new one would be */
        code = make_file(v, err);
        if (code < 0)
            return code;
        v->fd = open(path, flags);
    }
    if (v->fd < 0) {
        code = errno;
        return error_set(err, -code, "cannot open the UEFI variable store '%s': %s", path,
                         strerror(code));
    }
    if (keep && flock(v->fd, LOCK_EX | LOCK_NB) < 0)
        return error_set(err, -EBUSY,
                         "the UEFI variable store '%s' is in use by another machine; give this "
                         "one its own with --uefi-vars FILE",
                         path);
    return read_file(v, err);
}

int uefi_vars_open(struct uefi_vars *v, const char *path, bool keep, const char *pristine,
                   struct error *err)
{
    struct image image;
    int ret;

    memset(v, 0, sizeof *v);
    v->fd = -1;
    ret = image_open(&image, pristine, "UEFI variable store", err);
    if (ret)
        return ret;
    v->bytes = image.bytes;
    v->data = malloc(v->bytes);
    ret = v->data ? image_read(&image, 0, v->data, v->bytes, err)
                  : error_set(err, -ENOMEM, "out of memory for the UEFI variables");
    image_close(&image);
    if (ret == 0 && path)
        ret = open_file(v, path, keep, err);
    if (ret < 0) {
        uefi_vars_close(v);
        return ret;
    }
    if (!keep && v->fd >= 0) {
        close(v->fd);
        v->fd = -1;
    }
    return 0;
}

void uefi_vars_close(struct uefi_vars *v)
{
    if (v->fd >= 0) {
        if (fsync(v->fd) < 0 && v->log)
            vlog(v->log, FIRMWARE, ERROR, "UEFI variable store '%s': %s", v->name, strerror(errno));
        close(v->fd);
    }
    free(v->data);
    v->data = NULL;
    v->fd = -1;
}

int uefi_vars_write(struct uefi_vars *v, uint64_t offset, const void *data, uint64_t bytes)
{
    int code;

    if (v->fd < 0)
        return 0;
    code = write_all(v->fd, data, bytes, offset);
    if (code < 0 && v->log)
        vlog(v->log, FIRMWARE, ERROR, "UEFI variable store '%s': %s; the guest is told", v->name,
             strerror(-code));
    return code;
}
