/*
 * Handlers of 9P2000.L about the tree: walking, what a file is, making, linking,
 * renaming, removing. Interface: nine.h.
 *
 * Whoever runs Vireo owns what the guest makes. Changing an owner is tried, and
 * that it is not allowed is no failure, because the guest's root expects to be able
 * to (cp -a, tar, dpkg).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "backend/share/nine.h"

enum {
    GETATTR_BASIC = 0x7FF, /* all but birth time, generation, data version */
    SETATTR_MODE = 1 << 0,
    SETATTR_UID = 1 << 1,
    SETATTR_GID = 1 << 2,
    SETATTR_SIZE = 1 << 3,
    SETATTR_ATIME = 1 << 4,
    SETATTR_MTIME = 1 << 5,
    SETATTR_ATIME_SET = 1 << 7,
    SETATTR_MTIME_SET = 1 << 8,
    V9FS_MAGIC_NUMBER = 0x01021997,
};

/* ---- walking ---- */

int nine_attach(struct nine_call *c)
{
    uint32_t number = nine_get32(&c->in);
    struct nine_fid *fid;
    struct stat st;
    int ret;

    /* Who asks, and for which of several trees: there is one, for all. */
    if (c->in.is_bad)
        return -EINVAL;
    if (fstat(c->nine->root, &st) < 0)
        return -errno;
    ret = nine_add(c->nine, number, "", &fid);
    if (!ret)
        nine_put_qid(&c->out, c->nine, &st);
    return ret;
}

/* One step: path becomes what is there. */
static int step(struct nine *n, char path[NINE_PATH_MAX + 1], const char *name, struct stat *st)
{
    char next[NINE_PATH_MAX + 1];
    int ret, fd;

    if (!strcmp(name, "..")) { /* above the folder is the folder */
        char *slash = strrchr(path, '/');

        memcpy(next, path, strlen(path) + 1);
        next[slash ? slash - path : 0] = '\0';
    } else {
        ret = nine_check_name(name);
        if (!ret)
            ret = nine_join(next, path, name);
        if (ret)
            return ret == -EINVAL ? -ENOENT : ret;
    }
    fd = nine_host_open(n, next, O_PATH);
    if (fd < 0)
        return fd;
    ret = fstat(fd, st) < 0 ? -errno : 0;
    close(fd);
    if (!ret)
        memcpy(path, next, strlen(next) + 1);
    return ret;
}

int nine_walk(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in)), *made;
    uint32_t number = nine_get32(&c->in);
    unsigned count = nine_get16(&c->in), done;
    size_t count_at = c->out.used;
    char path[NINE_PATH_MAX + 1];
    int ret = 0;

    if (c->in.is_bad || count > NINE_WALK_MAX)
        return -EINVAL;
    if (!fid || fid->kind == NINE_XATTR_READ || fid->kind == NINE_XATTR_WRITE)
        return -EBADF;
    if (fid->number == number ? fid->kind != NINE_CLOSED : !!nine_find(c->nine, number))
        return -EBADF;
    memcpy(path, fid->path, strlen(fid->path) + 1);
    nine_put16(&c->out, 0);
    for (done = 0; done < count; done++) {
        char name[NINE_NAME_MAX + 1];
        struct stat st;

        nine_get_string(&c->in, name, sizeof name);
        ret = c->in.is_bad ? -EINVAL : step(c->nine, path, name, &st);
        if (ret)
            break;
        nine_put_qid(&c->out, c->nine, &st);
    }
    if (ret && (done == 0 || c->in.is_bad))
        return ret;
    le16_put(c->out.data + count_at, (uint16_t)done);
    if (ret) /* part of the way: the new fid is not made */
        return 0;
    return fid->number == number ? nine_set_path(fid, path)
                                 : nine_add(c->nine, number, path, &made);
}

int nine_clunk(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    int ret = 0;

    if (c->in.is_bad || !fid)
        return -EBADF;
    if (fid->kind == NINE_XATTR_WRITE)
        ret = nine_xattr_clunk(c->nine, fid);
    nine_drop(c->nine, fid);
    return ret;
}

/* ---- what a file is ---- */

int nine_statfs(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    struct statfs st;
    bool close_it;
    int fd, ret;

    if (c->in.is_bad || !fid)
        return -EBADF;
    fd = nine_host_place(c->nine, fid, &close_it);
    if (fd < 0)
        return fd;
    ret = fstatfs(fd, &st) < 0 ? -errno : 0;
    if (close_it)
        close(fd);
    if (ret)
        return ret;
    nine_put32(&c->out, V9FS_MAGIC_NUMBER);
    nine_put32(&c->out, (uint32_t)st.f_bsize);
    nine_put64(&c->out, st.f_blocks);
    nine_put64(&c->out, st.f_bfree);
    nine_put64(&c->out, st.f_bavail);
    nine_put64(&c->out, st.f_files);
    nine_put64(&c->out, st.f_ffree);
    nine_put64(&c->out, 0);
    nine_put32(&c->out, (uint32_t)MIN((uint64_t)st.f_namelen, (uint64_t)NINE_NAME_MAX));
    return 0;
}

static void put_time(struct nine_writer *w, struct timespec t)
{
    nine_put64(w, (uint64_t)t.tv_sec);
    nine_put64(w, (uint64_t)t.tv_nsec);
}

int nine_getattr(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    struct stat st;
    bool close_it;
    int fd, ret;

    nine_get64(&c->in); /* what is wanted: all that there is comes */
    if (c->in.is_bad || !fid)
        return -EBADF;
    fd = nine_host_place(c->nine, fid, &close_it);
    if (fd < 0)
        return fd;
    ret = fstat(fd, &st) < 0 ? -errno : 0;
    if (close_it)
        close(fd);
    if (ret)
        return ret;
    nine_put64(&c->out, GETATTR_BASIC);
    nine_put_qid(&c->out, c->nine, &st);
    nine_put32(&c->out, st.st_mode);
    nine_put32(&c->out, st.st_uid);
    nine_put32(&c->out, st.st_gid);
    nine_put64(&c->out, st.st_nlink);
    nine_put64(&c->out, st.st_rdev);
    nine_put64(&c->out, (uint64_t)st.st_size);
    nine_put64(&c->out, (uint64_t)st.st_blksize);
    nine_put64(&c->out, (uint64_t)st.st_blocks);
    put_time(&c->out, st.st_atim);
    put_time(&c->out, st.st_mtim);
    put_time(&c->out, st.st_ctim);
    for (unsigned n = 0; n < 4; n++) /* birth time, generation, data version */
        nine_put64(&c->out, 0);
    return 0;
}

struct attributes {
    uint32_t valid, mode, uid, gid;
    uint64_t size;
    struct timespec time[2];
};

static int set_size(const struct nine *n, const struct nine_fid *fid, uint64_t size)
{
    struct stat st;
    int fd, ret;

    if (size > INT64_MAX)
        return -EFBIG;
    if (fid->kind == NINE_FILE && ftruncate(fid->fd, (off_t)size) == 0)
        return 0;
    fd = nine_host_open(n, fid->path, O_PATH);
    if (fd < 0)
        return fd;
    ret = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
    close(fd);
    if (ret)
        return ret;
    fd = nine_host_open(n, fid->path, O_WRONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd;
    ret = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
    close(fd);
    return ret;
}

static int set_owner(int fd, const struct attributes *a)
{
    uid_t uid = a->valid & SETATTR_UID ? a->uid : (uid_t)-1;
    gid_t gid = a->valid & SETATTR_GID ? a->gid : (gid_t)-1;

    if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0 || errno == EPERM)
        return 0;
    return -errno;
}

static int set_times(int fd, const struct attributes *a)
{
    struct timespec time[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    char proc[NINE_PROC_BYTES];

    for (unsigned n = 0; n < 2; n++) {
        if (!(a->valid & SETATTR_ATIME << n))
            continue;
        time[n] = a->time[n];
        if (!(a->valid & SETATTR_ATIME_SET << n))
            time[n].tv_nsec = UTIME_NOW;
        else if (time[n].tv_nsec < 0 || time[n].tv_nsec >= (long)NS_PER_SEC)
            return -EINVAL;
    }
    nine_host_proc(proc, fd);
    return utimensat(AT_FDCWD, proc, time, 0) < 0 ? -errno : 0;
}

int nine_setattr(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    struct attributes a = {.valid = nine_get32(&c->in)};
    bool close_it;
    int fd, ret = 0;

    a.mode = nine_get32(&c->in);
    a.uid = nine_get32(&c->in);
    a.gid = nine_get32(&c->in);
    a.size = nine_get64(&c->in);
    for (unsigned n = 0; n < 2; n++) {
        a.time[n].tv_sec = (time_t)nine_get64(&c->in);
        a.time[n].tv_nsec = (long)nine_get64(&c->in);
    }
    if (c->in.is_bad)
        return -EINVAL;
    if (!fid || fid->kind == NINE_XATTR_READ || fid->kind == NINE_XATTR_WRITE)
        return -EBADF;
    if (a.valid & SETATTR_SIZE)
        ret = set_size(c->nine, fid, a.size);
    if (ret)
        return ret;
    fd = nine_host_place(c->nine, fid, &close_it);
    if (fd < 0)
        return fd;
    if (a.valid & (SETATTR_UID | SETATTR_GID))
        ret = set_owner(fd, &a);
    if (!ret && a.valid & SETATTR_MODE)
        ret = nine_host_chmod(fd, a.mode);
    if (!ret && a.valid & (SETATTR_ATIME | SETATTR_MTIME))
        ret = set_times(fd, &a);
    if (close_it)
        close(fd);
    return ret;
}

int nine_readlink(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    char target[NINE_PATH_MAX + 1];
    ssize_t length;
    int fd;

    if (c->in.is_bad || !fid)
        return -EBADF;
    fd = nine_host_open(c->nine, fid->path, O_PATH);
    if (fd < 0)
        return fd;
    length = readlinkat(fd, "", target, sizeof target - 1);
    if (length < 0)
        length = errno == ENOENT ? -EINVAL : -errno; /* it is no link */
    close(fd);
    if (length < 0)
        return (int)length;
    target[length] = '\0';
    nine_put_string(&c->out, target);
    return 0;
}

/* ---- making ---- */

/* The directory of a fid and a new name in it: fid[4] name[s]. */
struct place {
    int parent; /* the caller closes it */
    char name[NINE_NAME_MAX + 1];
    char path[NINE_PATH_MAX + 1];
};

static int place_of(struct nine_call *c, const struct nine_fid *directory, struct place *p)
{
    int ret = c->in.is_bad ? -EINVAL : directory ? nine_check_name(p->name) : -EBADF;

    if (!ret)
        ret = nine_join(p->path, directory->path, p->name);
    if (ret)
        return ret;
    p->parent = nine_host_open(c->nine, directory->path, O_PATH | O_DIRECTORY);
    return p->parent < 0 ? p->parent : 0;
}

/* Ends it: the qid of what has been made, or what errno says. */
static int made(struct nine_call *c, struct place *p, bool is_done, mode_t mode, bool has_mode)
{
    int ret = is_done ? 0 : -errno, fd;
    struct stat st;

    close(p->parent);
    if (ret)
        return ret;
    fd = nine_host_open(c->nine, p->path, O_PATH);
    if (fd < 0)
        return fd;
    if (has_mode)
        nine_host_chmod(fd, mode); /* past the mask of this process */
    ret = fstat(fd, &st) < 0 ? -errno : 0;
    close(fd);
    if (!ret)
        nine_put_qid(&c->out, c->nine, &st);
    return ret;
}

int nine_symlink(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    char target[NINE_PATH_MAX + 1];
    struct place p;
    int ret;

    nine_get_string(&c->in, p.name, sizeof p.name);
    nine_get_string(&c->in, target, sizeof target);
    ret = place_of(c, fid, &p);
    return ret ? ret : made(c, &p, symlinkat(target, p.parent, p.name) == 0, 0, false);
}

int nine_mkdir(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    struct place p;
    uint32_t mode;
    int ret;

    nine_get_string(&c->in, p.name, sizeof p.name);
    mode = nine_get32(&c->in);
    ret = place_of(c, fid, &p);
    return ret ? ret : made(c, &p, mkdirat(p.parent, p.name, mode & 0777) == 0, mode, true);
}

/* Plain files, pipes and sockets, which are harmless names on the host. */
int nine_mknod(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    struct place p;
    uint32_t mode;
    int ret;

    nine_get_string(&c->in, p.name, sizeof p.name);
    mode = nine_get32(&c->in);
    if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
        return -EPERM;
    ret = place_of(c, fid, &p);
    return ret ? ret
               : made(c, &p, mknodat(p.parent, p.name, mode & (S_IFMT | 0777), 0) == 0, mode,
                      true);
}

int nine_link(struct nine_call *c)
{
    struct nine_fid *directory = nine_find(c->nine, nine_get32(&c->in));
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    const char *name;
    struct place p;
    int ret, from;

    nine_get_string(&c->in, p.name, sizeof p.name);
    if (!fid)
        return -EBADF;
    ret = place_of(c, directory, &p);
    if (ret)
        return ret;
    from = nine_host_parent(c->nine, fid->path, &name);
    ret = from < 0 ? from : linkat(from, name, p.parent, p.name, 0) < 0 ? -errno : 0;
    if (from >= 0)
        close(from);
    close(p.parent);
    return ret;
}

/* ---- renaming and removing ---- */

static int rename_to(struct nine_call *c, const char *from, struct place *p)
{
    char old[NINE_PATH_MAX + 1];
    const char *name;
    int parent = nine_host_parent(c->nine, from, &name);
    int ret = parent < 0                                            ? parent
              : renameat(parent, name, p->parent, p->name) < 0 ? -errno
                                                                    : 0;

    if (parent >= 0)
        close(parent);
    close(p->parent);
    if (ret)
        return ret;
    memcpy(old, from, strlen(from) + 1); /* it is the path of a fid that changes */
    nine_renamed(c->nine, old, p->path);
    return 0;
}

int nine_rename(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    struct nine_fid *directory = nine_find(c->nine, nine_get32(&c->in));
    struct place p;
    int ret;

    nine_get_string(&c->in, p.name, sizeof p.name);
    if (!fid)
        return -EBADF;
    ret = place_of(c, directory, &p);
    return ret ? ret : rename_to(c, fid->path, &p);
}

int nine_renameat(struct nine_call *c)
{
    struct nine_fid *old = nine_find(c->nine, nine_get32(&c->in)), *directory;
    char name[NINE_NAME_MAX + 1], from[NINE_PATH_MAX + 1];
    struct place p;
    int ret;

    nine_get_string(&c->in, name, sizeof name);
    directory = nine_find(c->nine, nine_get32(&c->in));
    nine_get_string(&c->in, p.name, sizeof p.name);
    if (!old)
        return -EBADF;
    ret = c->in.is_bad ? -EINVAL : nine_check_name(name);
    if (!ret)
        ret = nine_join(from, old->path, name);
    if (!ret)
        ret = place_of(c, directory, &p);
    return ret ? ret : rename_to(c, from, &p);
}

int nine_unlinkat(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    struct place p;
    uint32_t flags;
    int ret;

    nine_get_string(&c->in, p.name, sizeof p.name);
    flags = nine_get32(&c->in);
    ret = place_of(c, fid, &p);
    if (ret)
        return ret;
    ret = unlinkat(p.parent, p.name, (int)(flags & AT_REMOVEDIR)) < 0 ? -errno : 0;
    close(p.parent);
    return ret;
}

int nine_remove(struct nine_call *c)
{
    struct nine_fid *fid = nine_find(c->nine, nine_get32(&c->in));
    const char *name;
    int ret, parent;

    if (c->in.is_bad || !fid)
        return -EBADF;
    parent = c->nine->readonly ? -EROFS : nine_host_parent(c->nine, fid->path, &name);
    ret = parent < 0 ? parent : 0;
    if (!ret && unlinkat(parent, name, 0) < 0)
        ret = errno == EISDIR && unlinkat(parent, name, AT_REMOVEDIR) == 0 ? 0 : -errno;
    if (parent >= 0)
        close(parent);
    nine_drop(c->nine, fid); /* in any case */
    return ret;
}
