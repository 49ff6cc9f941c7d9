/*
 * Fids: the guest's numbers for what it has walked to. Interface: nine.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/share/nine.h"

static struct nine_fid **bucket_of(struct nine *n, uint32_t number)
{
    return &n->bucket[(number * 0x9e3779b1u) >> 22];
}
_Static_assert(NINE_BUCKETS == 1 << (32 - 22), "the hash has as many bits as there are buckets");

struct nine_fid *nine_find(struct nine *n, uint32_t number)
{
    struct nine_fid *f = *bucket_of(n, number);

    while (f && f->number != number)
        f = f->next;
    return f;
}

int nine_add(struct nine *n, uint32_t number, const char *path, struct nine_fid **fid)
{
    struct nine_fid **bucket = bucket_of(n, number), *f;

    if (nine_find(n, number))
        return -EBADF;
    if (n->fids == NINE_FIDS_MAX)
        return -EMFILE;
    f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    f->path = strdup(path);
    if (!f->path) {
        free(f);
        return -ENOMEM;
    }
    f->number = number;
    f->fd = -1;
    f->next = *bucket;
    *bucket = f;
    n->fids++;
    *fid = f;
    return 0;
}

void nine_drop(struct nine *n, struct nine_fid *fid)
{
    struct nine_fid **at = bucket_of(n, fid->number);

    while (*at != fid)
        at = &(*at)->next;
    *at = fid->next;
    if (fid->fd >= 0) {
        close(fid->fd);
        n->open_files--;
    }
    n->fids--;
    free(fid->xattr);
    free(fid->path);
    free(fid);
}

int nine_set_path(struct nine_fid *fid, const char *path)
{
    char *copy = strdup(path);

    if (!copy)
        return -ENOMEM;
    free(fid->path);
    fid->path = copy;
    return 0;
}

void nine_renamed(struct nine *n, const char *from, const char *to)
{
    size_t length = strlen(from);

    for (unsigned b = 0; b < NINE_BUCKETS; b++) {
        for (struct nine_fid *f = n->bucket[b]; f; f = f->next) {
            const char *rest = f->path + length;
            char path[NINE_PATH_MAX + 1];

            if (strncmp(f->path, from, length) || (*rest && *rest != '/'))
                continue;
            /* One that becomes too long, or has no memory, finds nothing any more. */
            if (strlen(to) + strlen(rest) > NINE_PATH_MAX)
                continue;
            memcpy(path, to, strlen(to));
            memcpy(path + strlen(to), rest, strlen(rest) + 1);
            nine_set_path(f, path);
        }
    }
}

int nine_join(char out[NINE_PATH_MAX + 1], const char *parent, const char *name)
{
    size_t a = strlen(parent), b = strlen(name);

    if (a + 1 + b > NINE_PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(out, parent, a);
    if (a)
        out[a++] = '/';
    memcpy(out + a, name, b + 1);
    return 0;
}

int nine_check_name(const char *name)
{
    if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return -EINVAL;
    return strlen(name) > NINE_NAME_MAX ? -ENAMETOOLONG : 0;
}
