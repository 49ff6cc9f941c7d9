/*
 * From a path in a shared folder to a descriptor. Interface: nine.h.
 *
 * openat2 resolves a path below the folder and refuses symbolic links on the way.
 * Where the host has none (before Linux 5.6, or a sandbox), the path is walked name
 * by name with O_NOFOLLOW, which comes to the same, as no name is "..".
 *
 * O_PATH descriptors stand for a place; what no call takes such a descriptor for
 * goes through /proc/self/fd, which leads to that very file, link or not.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/share/nine.h"

enum { AGAIN = 8 }; /* openat2 says EAGAIN when something is renamed meanwhile */

static int open_beneath(const struct nine *n, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd = -1;

    for (unsigned tries = 0; tries < AGAIN; tries++) {
        fd = syscall(SYS_openat2, n->root, path, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN)
            break;
    }
    return fd < 0 ? -errno : (int)fd;
}

static int open_walking(const struct nine *n, const char *path, int flags)
{
    int at = fcntl(n->root, F_DUPFD_CLOEXEC, 0);

    while (at >= 0) {
        const char *slash = strchr(path, '/');
        char name[NINE_NAME_MAX + 1];
        int next, error;

        if (slash) {
            if ((size_t)(slash - path) > NINE_NAME_MAX) {
                close(at);
                return -ENAMETOOLONG;
            }
            memcpy(name, path, (size_t)(slash - path));
            name[slash - path] = '\0';
            next = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        } else {
            next = openat(at, path, flags | O_NOFOLLOW | O_CLOEXEC);
        }
        error = errno;
        close(at);
        errno = error;
        at = next;
        if (!slash)
            break;
        path = slash + 1;
    }
    return at < 0 ? -errno : at;
}

int nine_host_open(const struct nine *n, const char *path, int flags)
{
    if (!*path)
        path = ".";
    return n->has_openat2 ? open_beneath(n, path, flags) : open_walking(n, path, flags);
}

int nine_host_parent(const struct nine *n, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    char parent[NINE_PATH_MAX + 1];

    if (!*path)
        return -EBUSY;
    *name = slash ? slash + 1 : path;
    memcpy(parent, path, slash ? (size_t)(slash - path) : 0);
    parent[slash ? slash - path : 0] = '\0';
    return nine_host_open(n, parent, O_PATH | O_DIRECTORY);
}

void nine_host_proc(char out[NINE_PROC_BYTES], int fd)
{
    snprintf(out, NINE_PROC_BYTES, "/proc/self/fd/%d", fd);
}

int nine_host_chmod(int fd, mode_t mode)
{
    char proc[NINE_PROC_BYTES];

    nine_host_proc(proc, fd);
    return chmod(proc, mode & (S_IRWXU | S_IRWXG | S_IRWXO | S_ISVTX)) < 0 ? -errno : 0;
}

int nine_host_place(const struct nine *n, const struct nine_fid *fid, bool *close_it)
{
    *close_it = fid->fd < 0;
    return fid->fd < 0 ? nine_host_open(n, fid->path, O_PATH) : fid->fd;
}
