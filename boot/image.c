/*
 * Files that a machine is started from; see image.h.
 */
#include "boot/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vm/memory.h"

#define IMAGE_PIPE_MAX (1 * GiB)
#define IMAGE_CHUNK (256 * KiB)

static int pipe_read(struct image *i, const char *what, struct error *err)
{
    uint64_t capacity = 0;

    for (;;) {
        ssize_t got;

        if (i->bytes == capacity) {
            uint64_t more = capacity ? capacity * 2 : IMAGE_CHUNK;
            uint8_t *p = more <= IMAGE_PIPE_MAX ? realloc(i->owned, more) : NULL;

            if (!p)
                return error_set(err, -ENOMEM,
                                 "%s '%s' is too large to be read from a pipe; "
                                 "put it in a file",
                                 what, i->name);
            i->owned = p;
            capacity = more;
        }
        got = read(i->fd, i->owned + i->bytes, capacity - i->bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int code = errno;

            return error_set(err, -code, "cannot read the %s '%s': %s", what, i->name,
                             strerror(code));
        }
        if (got == 0)
            break;
        i->bytes += (uint64_t)got;
    }
    i->data = i->owned;
    close(i->fd);
    i->fd = -1;
    return 0;
}

int image_open(struct image *i, const char *path, const char *what, struct error *err)
{
    struct stat st;
    int code;

    memset(i, 0, sizeof *i);
    snprintf(i->name, sizeof i->name, "%s", path);
    i->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (i->fd < 0) {
        code = errno;
        return error_set(err, -code, "cannot open the %s '%s': %s", what, path, strerror(code));
    }
    if (fstat(i->fd, &st) < 0) {
        code = errno;
        error_set(err, -code, "cannot look at the %s '%s': %s", what, path, strerror(code));
        goto fail;
    }
    if (S_ISDIR(st.st_mode)) {
        code = EISDIR;
        error_set(err, -code, "the %s '%s' is a directory; name a file", what, path);
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        code = -pipe_read(i, what, err);
        if (code)
            goto fail;
    } else {
        i->bytes = (uint64_t)st.st_size;
    }
    if (i->bytes == 0) {
        code = EINVAL;
        error_set(err, -code, "the %s '%s' is empty", what, path);
        goto fail;
    }
    return 0;
fail:
    image_close(i);
    return -code;
}

void image_from_memory(struct image *i, const char *name, const void *data, uint64_t bytes)
{
    memset(i, 0, sizeof *i);
    snprintf(i->name, sizeof i->name, "%s", name);
    i->fd = -1;
    i->data = data;
    i->bytes = bytes;
}

void image_close(struct image *i)
{
    if (i->fd >= 0)
        close(i->fd);
    free(i->owned);
    i->fd = -1;
    i->owned = NULL;
    i->data = NULL;
}

int image_read(const struct image *i, uint64_t offset, void *buf, uint64_t bytes, struct error *err)
{
    uint64_t done = 0;

    if (offset > i->bytes || bytes > i->bytes - offset)
        return error_set(
            err, -EINVAL, "'%s' is truncated: it ends at byte %llu, %llu are needed", i->name,
            (unsigned long long)i->bytes,
            (unsigned long long)(offset > UINT64_MAX - bytes ? UINT64_MAX : offset + bytes));
    if (i->data) {
        memcpy(buf, i->data + offset, bytes);
        return 0;
    }
    while (done < bytes) {
        ssize_t got = pread(i->fd, (uint8_t *)buf + done, bytes - done, (off_t)(offset + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int code = errno;

            return error_set(err, -code, "cannot read '%s': %s", i->name, strerror(code));
        }
        if (got == 0)
            return error_set(err, -EIO, "'%s' became shorter while it was read", i->name);
        done += (uint64_t)got;
    }
    return 0;
}

int image_load(const struct image *i, uint64_t offset, uint64_t bytes, struct address_space *as,
               gpa_t to, struct error *err)
{
    uint8_t *chunk = malloc(IMAGE_CHUNK);
    int ret = 0;

    if (!chunk)
        return error_set(err, -ENOMEM, "out of memory while '%s' was loaded", i->name);
    while (bytes) {
        uint64_t n = MIN(bytes, IMAGE_CHUNK);

        ret = image_read(i, offset, chunk, n, err);
        if (ret)
            break;
        ret = as_write(as, to, chunk, n);
        if (ret) {
            error_set(err, ret, "'%s' does not fit into memory at %llxH", i->name,
                      (unsigned long long)to);
            break;
        }
        offset += n;
        to += n;
        bytes -= n;
    }
    free(chunk);
    return ret;
}
