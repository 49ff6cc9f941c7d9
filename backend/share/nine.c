/*
 * 9P2000.L messages: their bytes, and who answers which. Interface: nine.h.
 *
 *     size[4] type[1] tag[2] ...      all little-endian; s: length[2] and bytes
 *
 * A message is copied before it is looked at, but for the data of a write; the
 * data of a read go straight to where the reply is.
 */
#include "backend/share/nine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    MESSAGE_MIN = 4096,
    QID_DIRECTORY = 0x80,
    QID_SYMLINK = 0x02,
};

/* ---- bytes ---- */

static const uint8_t *take(struct nine_reader *r, size_t bytes)
{
    const uint8_t *at = r->at;

    if (bytes > r->left) {
        r->is_bad = true;
        r->left = 0;
        return NULL;
    }
    r->at += bytes;
    r->left -= bytes;
    return at;
}

static uint64_t get(struct nine_reader *r, unsigned bytes)
{
    const uint8_t *at = take(r, bytes);

    return at ? le_get(at, bytes) : 0;
}

uint8_t nine_get8(struct nine_reader *r)
{
    return (uint8_t)get(r, 1);
}

uint16_t nine_get16(struct nine_reader *r)
{
    return (uint16_t)get(r, 2);
}

uint32_t nine_get32(struct nine_reader *r)
{
    return (uint32_t)get(r, 4);
}

uint64_t nine_get64(struct nine_reader *r)
{
    return get(r, 8);
}

void nine_get_string(struct nine_reader *r, char *out, size_t room)
{
    uint16_t length = nine_get16(r);
    const uint8_t *at = take(r, length);

    out[0] = '\0';
    if (!at)
        return;
    if (length >= room || memchr(at, '\0', length)) {
        r->is_bad = true;
        return;
    }
    memcpy(out, at, length);
    out[length] = '\0';
}

static void put(struct nine_writer *w, uint64_t v, unsigned bytes)
{
    if (bytes > w->room - w->used) {
        w->is_full = true;
        return;
    }
    le_put(w->data + w->used, v, bytes);
    w->used += bytes;
}

void nine_put8(struct nine_writer *w, uint8_t v)
{
    put(w, v, 1);
}

void nine_put16(struct nine_writer *w, uint16_t v)
{
    put(w, v, 2);
}

void nine_put32(struct nine_writer *w, uint32_t v)
{
    put(w, v, 4);
}

void nine_put64(struct nine_writer *w, uint64_t v)
{
    put(w, v, 8);
}

void nine_put_string(struct nine_writer *w, const char *s)
{
    size_t length = strlen(s);

    put(w, length, 2);
    if (length > w->room - w->used) {
        w->is_full = true;
        return;
    }
    memcpy(w->data + w->used, s, length);
    w->used += length;
}

void nine_put_qid(struct nine_writer *w, const struct nine *n, const struct stat *st)
{
    uint64_t path = st->st_ino;

    /* Other file systems below the folder count their files from the start, too. */
    if (st->st_dev != n->root_device)
        path ^= (uint64_t)st->st_dev * 0x9e3779b97f4a7c15;
    nine_put8(w, S_ISDIR(st->st_mode)   ? QID_DIRECTORY
                 : S_ISLNK(st->st_mode) ? QID_SYMLINK
                                        : 0);
    nine_put32(w, (uint32_t)st->st_mtim.tv_sec ^ (uint32_t)(st->st_size << 8));
    nine_put64(w, path);
}

unsigned nine_slice(const struct share_span *from, unsigned count, uint64_t offset, uint64_t bytes,
                    struct share_span *out, unsigned room)
{
    unsigned used = 0;

    for (unsigned n = 0; n < count && bytes && used < room; n++) {
        uint64_t part;

        if (offset >= from[n].bytes) {
            offset -= from[n].bytes;
            continue;
        }
        part = MIN(from[n].bytes - offset, bytes);
        out[used++] = (struct share_span){(uint8_t *)from[n].data + offset, part};
        bytes -= part;
        offset = 0;
    }
    return used;
}

static void gather(const struct share_span *from, unsigned count, uint8_t *to, size_t bytes)
{
    for (unsigned n = 0; n < count && bytes; n++) {
        size_t part = MIN(from[n].bytes, bytes);

        memcpy(to, from[n].data, part);
        to += part;
        bytes -= part;
    }
}

static void scatter(const struct share_span *to, unsigned count, const uint8_t *from, size_t bytes)
{
    for (unsigned n = 0; n < count && bytes; n++) {
        size_t part = MIN(to[n].bytes, bytes);

        memcpy(to[n].data, from, part);
        from += part;
        bytes -= part;
    }
}

/* ---- the session ---- */

static int version(struct nine_call *c)
{
    uint32_t max = nine_get32(&c->in);
    char name[32];

    nine_get_string(&c->in, name, sizeof name);
    if (c->in.is_bad)
        return -EINVAL;
    if (max < MESSAGE_MIN)
        return -EMSGSIZE;
    nine_forget(c->nine);
    c->nine->message_max = (uint32_t)MIN(max, SHARE_MESSAGE_MAX);
    nine_put32(&c->out, c->nine->message_max);
    if (strcmp(name, "9P2000.L")) {
        c->nine->message_max = 0;
        nine_put_string(&c->out, "unknown");
    } else {
        nine_put_string(&c->out, name);
    }
    return 0;
}

/* Messages are answered in order: what it was to stop has been answered. */
static int flush(struct nine_call *c)
{
    nine_get16(&c->in);
    return 0;
}

static int auth(struct nine_call *c)
{
    return -EOPNOTSUPP; /* nobody need prove who he is */
}

void nine_forget(struct nine *n)
{
    for (unsigned b = 0; b < NINE_BUCKETS; b++)
        while (n->bucket[b])
            nine_drop(n, n->bucket[b]);
    n->message_max = 0;
}

/* ---- who answers ---- */

struct handler {
    uint8_t type;
    bool changes; /* refused in a share that is only read */
    int (*answer)(struct nine_call *c);
};

static const struct handler handlers[] = {
    {NINE_READ, false, nine_read},
    {NINE_WRITE, true, nine_write},
    {NINE_GETATTR, false, nine_getattr},
    {NINE_WALK, false, nine_walk},
    {NINE_CLUNK, false, nine_clunk},
    {NINE_LOPEN, false, nine_lopen}, /* looks for itself */
    {NINE_READDIR, false, nine_readdir},
    {NINE_LCREATE, true, nine_lcreate},
    {NINE_STATFS, false, nine_statfs},
    {NINE_SYMLINK, true, nine_symlink},
    {NINE_MKNOD, true, nine_mknod},
    {NINE_RENAME, true, nine_rename},
    {NINE_READLINK, false, nine_readlink},
    {NINE_SETATTR, true, nine_setattr},
    {NINE_XATTRWALK, false, nine_xattrwalk},
    {NINE_XATTRCREATE, true, nine_xattrcreate},
    {NINE_FSYNC, false, nine_fsync},
    {NINE_LOCK, false, nine_lock},
    {NINE_GETLOCK, false, nine_getlock},
    {NINE_LINK, true, nine_link},
    {NINE_MKDIR, true, nine_mkdir},
    {NINE_RENAMEAT, true, nine_renameat},
    {NINE_UNLINKAT, true, nine_unlinkat},
    {NINE_VERSION, false, version},
    {NINE_AUTH, false, auth},
    {NINE_ATTACH, false, nine_attach},
    {NINE_FLUSH, false, flush},
    {NINE_REMOVE, false, nine_remove}, /* the fid goes in any case */
};

static int answer(struct nine_call *c, uint8_t type)
{
    for (size_t n = 0; n < ARRAY_SIZE(handlers); n++) {
        int ret;

        if (handlers[n].type != type)
            continue;
        if (!c->nine->message_max && type != NINE_VERSION)
            return -EIO;
        if (handlers[n].changes && c->nine->readonly)
            return -EROFS;
        ret = handlers[n].answer(c);
        if (ret)
            return ret;
        return c->in.is_bad ? -EINVAL : c->out.is_full ? -EMSGSIZE : 0;
    }
    return -EOPNOTSUPP;
}

uint32_t nine_handle(struct nine *n, const struct share_request *r)
{
    uint8_t message[NINE_MESSAGE_LINEAR];
    size_t linear = MIN(r->message_bytes, sizeof message);
    uint64_t room = MIN(r->reply_room, SHARE_MESSAGE_MAX);
    struct nine_call c = {.nine = n, .request = r};
    uint8_t type = 0;
    int ret = -EINVAL;

    if (room < NINE_HEADER + 4 || linear < NINE_HEADER)
        return 0;
    gather(r->message, r->message_spans, message, linear);
    c.message_bytes = le32_get(message);
    if (c.message_bytes >= NINE_HEADER && c.message_bytes <= r->message_bytes &&
        (!n->message_max || c.message_bytes <= n->message_max)) {
        type = message[4];
        c.in = (struct nine_reader){.at = message + NINE_HEADER,
                                    .left = MIN(c.message_bytes, linear) - NINE_HEADER};
        c.reply_max = (uint32_t)(n->message_max ? MIN(room, n->message_max) : room);
        c.out = (struct nine_writer){.data = n->reply,
                                     .used = NINE_HEADER,
                                     .room = MIN(c.reply_max, sizeof n->reply)};
        ret = answer(&c, type);
    }
    if (ret) {
        c.out = (struct nine_writer){.data = n->reply, .used = NINE_HEADER,
                                     .room = NINE_HEADER + 4};
        c.data_bytes = 0;
        type = NINE_LERROR;
        nine_put32(&c.out, (uint32_t)-ret);
    }
    le32_put(n->reply, (uint32_t)c.out.used + c.data_bytes);
    n->reply[4] = type + 1;
    le16_put(n->reply + 5, le16_get(message + 5));
    scatter(r->reply, r->reply_spans, n->reply, c.out.used);
    return (uint32_t)c.out.used + c.data_bytes;
}

/* ---- life ---- */

int nine_open(struct nine *n, const char *path, bool readonly)
{
    struct stat st;
    int fd;

    n->readonly = readonly;
    n->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (n->root < 0)
        return -errno;
    if (fstat(n->root, &st) < 0) {
        fd = -errno;
        close(n->root);
        return fd;
    }
    n->root_device = st.st_dev;
    n->has_openat2 = true;
    fd = nine_host_open(n, "", O_PATH);
    if (fd < 0)
        n->has_openat2 = false; /* ENOSYS, or what a sandbox says instead */
    else
        close(fd);
    return 0;
}

void nine_close(struct nine *n)
{
    nine_forget(n);
    close(n->root);
}
