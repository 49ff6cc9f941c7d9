/*
 * Handlers of 9P2000.L that need an open file: open, create, read, write, list,
 * sync, lock. Interface: nine.h.
 *
 * Flags of opening are Linux's (P9_DOTL_* have the numbers of O_* on x86). Only
 * plain files and directories are opened; the guest's kernel has pipes, sockets
 * and devices of its own behind their names.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/share/nine.h"

enum {
    SPANS = 600,
    READDIR_BYTES = 32768,
    ENTRY_BYTES = 13 + 8 + 1 + 2, /* of a directory, without its name */
    READ_HEADER = 4,
    WRITE_HEADER = NINE_HEADER + 4 + 8 + 4,
    LOCK_SUCCESS = 0,
    LOCK_BLOCKED = 1,
    LOCK_ERROR = 2,
    LOCK_TYPE_READ = 0,
    LOCK_TYPE_WRITE = 1,
    LOCK_TYPE_UNLOCK = 2,
};
_Static_assert(sizeof(struct share_span) == sizeof(struct iovec), "spans are handed on");

static int host_flags(uint32_t flags)
{
    return (int)(flags & (O_ACCMODE | O_TRUNC | O_APPEND | O_DSYNC | O_SYNC)) | O_NONBLOCK |
           O_NOCTTY;
}

/* The fid takes an open descriptor. */
static int opened(struct nine_call *c, struct nine_fid *fid, int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        close(fd);
        return -ENXIO;
    }
    fid->fd = fd;
    fid->kind = S_ISDIR(st.st_mode) ? NINE_DIRECTORY : NINE_FILE;
    c->nine->open_files++;
    nine_put_qid(&c->out, c->nine, &st);
    nine_put32(&c->out, 0); /* as much at once as a message holds */
    return 0;
}

int nine_lopen(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    uint32_t flags = nine_get32(&c->in);
    struct stat st;
    int fd;

    if (c->in.is_bad || !fid || fid->kind != NINE_CLOSED)
        return -EBADF;
    if (c->nine->readonly && ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC))
        return -EROFS;
    if (c->nine->open_files == NINE_OPEN_MAX)
        return -EMFILE;
    /* First without touching it: opening a device may do something. */
    fd = nine_host_open(c->nine, fid->path, O_PATH);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        st.st_mode = 0;
    close(fd);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return S_ISLNK(st.st_mode) ? -ELOOP : -ENXIO;
    fd = nine_host_open(c->nine, fid->path,
                        S_ISDIR(st.st_mode) ? O_RDONLY | O_DIRECTORY : host_flags(flags));
    return fd < 0 ? fd : opened(c, fid, fd);
}

int nine_lcreate(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    char name[NINE_NAME_MAX + 1], path[NINE_PATH_MAX + 1];
    uint32_t flags, mode;
    int ret, parent, fd;
    struct stat st;

    nine_get_string(&c->in, name, sizeof name);
    flags = nine_get32(&c->in);
    mode = nine_get32(&c->in);
    nine_get32(&c->in); /* the group: it is the user's who runs Vireo */
    if (c->in.is_bad)
        return -EINVAL;
    if (!fid || fid->kind != NINE_CLOSED)
        return -EBADF;
    if (c->nine->open_files == NINE_OPEN_MAX)
        return -EMFILE;
    ret = nine_check_name(name);
    if (!ret)
        ret = nine_join(path, fid->path, name);
    if (ret)
        return ret;
    parent = nine_host_open(c->nine, fid->path, O_PATH | O_DIRECTORY);
    if (parent < 0)
        return parent;
    /* Opening a device that is there already may do something. */
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode)) {
        close(parent);
        return flags & O_EXCL ? -EEXIST : S_ISDIR(st.st_mode) ? -EISDIR : -ENXIO;
    }
    fd = openat(parent, name,
                host_flags(flags) | (int)(flags & O_EXCL) | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
                mode & 0777);
    ret = fd < 0 ? -errno : 0;
    close(parent);
    if (ret)
        return ret;
    ret = nine_set_path(fid, path);
    if (ret) {
        close(fd);
        return ret;
    }
    if (flags & O_EXCL) /* the guest has applied its own mask, ours would be a second */
        fchmod(fd, mode & 0777);
    return opened(c, fid, fd);
}

/* ---- data ---- */

int nine_read(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    uint64_t offset = nine_get64(&c->in);
    uint32_t bytes = nine_get32(&c->in);
    struct share_span part[SPANS];
    unsigned parts;
    ssize_t done;

    if (c->in.is_bad || !fid)
        return -EBADF;
    bytes = MIN(bytes, c->reply_max - NINE_HEADER - READ_HEADER);
    if (fid->kind == NINE_XATTR_READ)
        return nine_xattr_read(c, fid, offset, bytes);
    if (fid->kind != NINE_FILE)
        return -EBADF;
    if (offset > INT64_MAX)
        return -EINVAL;
    parts = nine_slice(c->request->reply, c->request->reply_spans, NINE_HEADER + READ_HEADER,
                       bytes, part, SPANS);
    done = preadv(fid->fd, (const struct iovec *)part, (int)parts, (off_t)offset);
    if (done < 0)
        return -errno;
    nine_put32(&c->out, (uint32_t)done);
    c->data_bytes = (uint32_t)done;
    return 0;
}

int nine_write(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    uint64_t offset = nine_get64(&c->in);
    uint32_t bytes = nine_get32(&c->in);
    struct share_span part[SPANS];
    unsigned parts;
    ssize_t done;

    if (c->in.is_bad || bytes > c->message_bytes - WRITE_HEADER)
        return -EINVAL;
    if (!fid)
        return -EBADF;
    c->data_at = WRITE_HEADER;
    if (fid->kind == NINE_XATTR_WRITE)
        return nine_xattr_write(c, fid, offset, bytes);
    if (fid->kind != NINE_FILE)
        return -EBADF;
    if (offset > INT64_MAX)
        return -EINVAL;
    parts = nine_slice(c->request->message, c->request->message_spans, c->data_at, bytes, part,
                       SPANS);
    done = pwritev(fid->fd, (const struct iovec *)part, (int)parts, (off_t)offset);
    if (done < 0)
        return -errno;
    nine_put32(&c->out, (uint32_t)done);
    return 0;
}

/* ---- directories ---- */

static void put_entry(struct nine_call *c, const struct dirent64 *e)
{
    static const uint8_t qid_types[] = {[DT_DIR] = 0x80, [DT_LNK] = 0x02};
    uint8_t type = e->d_type < ARRAY_SIZE(qid_types) ? qid_types[e->d_type] : 0;

    nine_put8(&c->out, type);
    nine_put32(&c->out, 0);
    nine_put64(&c->out, e->d_ino);
    nine_put64(&c->out, (uint64_t)e->d_off);
    nine_put8(&c->out, e->d_type);
    nine_put_string(&c->out, e->d_name);
}

/* The place in a directory is the host's d_off. */
int nine_readdir(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    uint64_t offset = nine_get64(&c->in);
    uint32_t bytes = nine_get32(&c->in);
    char entries[READDIR_BYTES] __attribute__((aligned(8)));
    size_t count_at = c->out.used, end;
    ssize_t got, at;

    if (c->in.is_bad || !fid || fid->kind != NINE_DIRECTORY)
        return -EBADF;
    nine_put32(&c->out, 0);
    end = MIN(c->out.room, c->out.used + (size_t)bytes);
    if (offset > INT64_MAX || lseek(fid->fd, (off_t)offset, SEEK_SET) < 0)
        return -EINVAL;
    got = getdents64(fid->fd, entries, sizeof entries);
    if (got < 0)
        return -errno;
    for (at = 0; at < got;) {
        struct dirent64 *e = (struct dirent64 *)(entries + at);

        if (c->out.used + ENTRY_BYTES + strlen(e->d_name) > end)
            break;
        /* What is above the folder has no number here. */
        if (!strcmp(e->d_name, "..") && !*fid->path)
            e->d_ino = 1;
        put_entry(c, e);
        at += e->d_reclen;
    }
    if (got && !at)
        return -EINVAL; /* no room for a single one */
    le32_put(c->out.data + count_at, (uint32_t)(c->out.used - count_at - 4));
    return 0;
}

int nine_fsync(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    uint32_t only_data = c->in.left >= 4 ? nine_get32(&c->in) : 0;
    int ret;

    if (c->in.is_bad || !fid || fid->fd < 0)
        return -EBADF;
    ret = only_data ? fdatasync(fid->fd) : fsync(fid->fd);
    /* A directory that was opened to be read, on a file system that does not sync
     * those, is no failure. */
    return ret < 0 && errno != EINVAL ? -errno : 0;
}

/* ---- locks: of the open file, and never waited for ---- */

static bool lock_range(struct nine_call *c, struct flock *lock, uint64_t *start, uint64_t *length)
{
    *start = nine_get64(&c->in);
    *length = nine_get64(&c->in);
    if (*start > INT64_MAX || *length > INT64_MAX - *start)
        return false;
    lock->l_whence = SEEK_SET;
    lock->l_start = (off_t)*start;
    lock->l_len = (off_t)*length;
    lock->l_pid = 0;
    return true;
}

static short lock_type(uint8_t type)
{
    return type == LOCK_TYPE_READ ? F_RDLCK : type == LOCK_TYPE_WRITE ? F_WRLCK : F_UNLCK;
}

int nine_lock(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    uint8_t type = nine_get8(&c->in), status = LOCK_SUCCESS;
    struct flock lock = {.l_type = lock_type(type)};
    uint64_t start, length;

    nine_get32(&c->in); /* flags */
    if (!lock_range(c, &lock, &start, &length) || type > LOCK_TYPE_UNLOCK)
        return -EINVAL;
    if (c->in.is_bad || !fid || fid->kind != NINE_FILE)
        return -EBADF;
    /* EBADF: flock(2) of the guest locks files that are open for the other way, too.
     * Its own kernel keeps its processes apart; the host's cannot be told. */
    if (fcntl(fid->fd, F_OFD_SETLK, &lock) < 0 && errno != EBADF)
        status = errno == EAGAIN || errno == EACCES ? LOCK_BLOCKED : LOCK_ERROR;
    nine_put8(&c->out, status);
    return 0;
}

int nine_getlock(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    uint8_t type = nine_get8(&c->in);
    struct flock lock = {.l_type = lock_type(type)};
    char client[NINE_NAME_MAX + 1];
    uint64_t start, length;
    bool is_fine = lock_range(c, &lock, &start, &length);
    uint32_t process = nine_get32(&c->in);

    nine_get_string(&c->in, client, sizeof client);
    if (c->in.is_bad || !is_fine || type > LOCK_TYPE_UNLOCK)
        return -EINVAL;
    if (!fid || fid->kind != NINE_FILE)
        return -EBADF;
    if (fcntl(fid->fd, F_OFD_GETLK, &lock) < 0)
        return -errno;
    if (lock.l_type == F_UNLCK) {
        nine_put8(&c->out, LOCK_TYPE_UNLOCK);
    } else {
        nine_put8(&c->out, lock.l_type == F_RDLCK ? LOCK_TYPE_READ : LOCK_TYPE_WRITE);
        start = (uint64_t)lock.l_start;
        length = (uint64_t)lock.l_len;
    }
    nine_put64(&c->out, start);
    nine_put64(&c->out, length);
    nine_put32(&c->out, process);
    nine_put_string(&c->out, client);
    return 0;
}
