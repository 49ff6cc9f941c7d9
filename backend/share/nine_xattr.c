/*
 * Extended attributes in 9P2000.L: a fid that is read or written like a file.
 * Interface: nine.h.
 *
 * Names that begin with "user." only: the others mean something to the host
 * (capabilities, labels, access lists).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "backend/share/nine.h"

#define PREFIX "user."

static bool is_ours(const char *name)
{
    return !strncmp(name, PREFIX, strlen(PREFIX));
}

/* What there is, names one after the other, without those of others. */
static ssize_t list(const char *proc, uint8_t *out)
{
    char names[NINE_XATTR_MAX];
    ssize_t bytes = listxattr(proc, names, sizeof names), used = 0;

    if (bytes < 0)
        return -errno;
    for (ssize_t at = 0; at < bytes; at += (ssize_t)strlen(names + at) + 1) {
        size_t length = strlen(names + at) + 1;

        if (!is_ours(names + at))
            continue;
        memcpy(out + used, names + at, length);
        used += (ssize_t)length;
    }
    return used;
}

static ssize_t fetch(struct nine *n, const struct nine_fid *fid, const char *name, uint8_t *out)
{
    char proc[NINE_PROC_BYTES];
    bool close_it;
    int fd = nine_host_place(n, fid, &close_it);
    ssize_t bytes;

    if (fd < 0)
        return fd;
    nine_host_proc(proc, fd);
    if (!*name) {
        bytes = list(proc, out);
    } else {
        bytes = getxattr(proc, name, out, NINE_XATTR_MAX);
        if (bytes < 0)
            bytes = -errno;
    }
    if (close_it)
        close(fd);
    return bytes;
}

int nine_xattrwalk(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in)), *made;
    uint32_t number = nine_get32(&c->in);
    char name[NINE_NAME_MAX + 1];
    ssize_t bytes;
    uint8_t *data;
    int ret;

    nine_get_string(&c->in, name, sizeof name);
    if (c->in.is_bad)
        return -EINVAL;
    if (!fid || fid->kind == NINE_XATTR_READ || fid->kind == NINE_XATTR_WRITE)
        return -EBADF;
    if (*name && !is_ours(name))
        return -EOPNOTSUPP;
    data = malloc(NINE_XATTR_MAX);
    if (!data)
        return -ENOMEM;
    bytes = fetch(c->nine, fid, name, data);
    ret = bytes < 0 ? (int)bytes : nine_add(c->nine, number, fid->path, &made);
    if (ret) {
        free(data);
        return ret;
    }
    made->kind = NINE_XATTR_READ;
    made->xattr = realloc(data, bytes ? (size_t)bytes : 1);
    if (!made->xattr)
        made->xattr = data;
    made->xattr_bytes = (uint32_t)bytes;
    nine_put64(&c->out, (uint64_t)bytes);
    return 0;
}

int nine_xattrcreate(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    char name[NINE_NAME_MAX + 1];
    uint64_t bytes;
    uint32_t flags;

    nine_get_string(&c->in, name, sizeof name);
    bytes = nine_get64(&c->in);
    flags = nine_get32(&c->in);
    if (c->in.is_bad || flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if (!fid || fid->kind != NINE_CLOSED)
        return -EBADF;
    if (!is_ours(name))
        return -EOPNOTSUPP;
    if (bytes > NINE_XATTR_MAX)
        return -E2BIG;
    fid->xattr = calloc(1, bytes ? bytes : 1);
    if (!fid->xattr)
        return -ENOMEM;
    fid->kind = NINE_XATTR_WRITE;
    fid->xattr_bytes = (uint32_t)bytes;
    fid->xattr_flags = (int)flags;
    memcpy(fid->xattr_name, name, sizeof name);
    return 0;
}

int nine_xattr_read(struct nine_call *c, struct nine_fid *fid, uint64_t offset, uint32_t bytes)
{
    uint64_t left = offset < fid->xattr_bytes ? fid->xattr_bytes - offset : 0;
    size_t part = MIN(MIN(left, bytes), c->out.room - c->out.used - 4);

    nine_put32(&c->out, (uint32_t)part);
    if (part)
        memcpy(c->out.data + c->out.used, fid->xattr + offset, part);
    c->out.used += part;
    return 0;
}

int nine_xattr_write(struct nine_call *c, struct nine_fid *fid, uint64_t offset, uint32_t bytes)
{
    uint64_t at = c->data_at, end = c->data_at + bytes;

    if (offset > fid->xattr_bytes || bytes > fid->xattr_bytes - offset)
        return -ENOSPC;
    while (at < end) {
        struct share_span part;

        if (!nine_slice(c->request->message, c->request->message_spans, at, end - at, &part, 1))
            return -EINVAL;
        memcpy(fid->xattr + offset, part.data, part.bytes);
        offset += part.bytes;
        at += part.bytes;
    }
    nine_put32(&c->out, bytes);
    return 0;
}

/* The attribute as a whole: one of no bytes is removed, as Linux asks for it. */
int nine_xattr_clunk(struct nine *n, struct nine_fid *fid)
{
    int fd = nine_host_open(n, fid->path, O_PATH), ret;
    char proc[NINE_PROC_BYTES];

    if (fd < 0)
        return fd;
    nine_host_proc(proc, fd);
    if (fid->xattr_bytes)
        ret = setxattr(proc, fid->xattr_name, fid->xattr, fid->xattr_bytes, fid->xattr_flags);
    else
        ret = removexattr(proc, fid->xattr_name);
    ret = ret < 0 ? -errno : 0;
    close(fd);
    return ret;
}
