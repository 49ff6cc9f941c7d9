/*
 * A shared folder: 9P2000.L as Linux speaks it, and as it does not; nothing
 * reaches what is outside of the folder.
 */
#include "tests/dev/harness.h"
#include "tests/dev/nine_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOT = 1 };

static struct nine_client *start_as(bool readonly, bool walking)
{
    struct nine_client *c = malloc(sizeof *c);

    assert_non_null(c);
    if (!nc_create(c, readonly, walking))
        fail_msg("no share: %s", strerror(errno));
    nc_begin(c, NINE_VERSION);
    nc_put(c, 65536, 4);
    nc_put_string(c, "9P2000.L");
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(nc_get(c, 4), 65536);
    nc_begin(c, NINE_ATTACH);
    nc_put(c, ROOT, 4);
    nc_put(c, UINT32_MAX, 4);
    nc_put_string(c, "root");
    nc_put_string(c, "");
    nc_put(c, 0, 4);
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(nc_get(c, 1), 0x80);
    return c;
}

static struct nine_client *start(bool readonly)
{
    return start_as(readonly, false);
}

static void end(struct nine_client *c)
{
    assert_true(nc_outside_is_fine(c));
    nc_destroy(c);
    free(c);
}

/* Walks from fid by names, of which an empty one ends the list. */
static int walk(struct nine_client *c, uint32_t fid, uint32_t to, const char *a, const char *b)
{
    nc_begin(c, NINE_WALK);
    nc_put(c, fid, 4);
    nc_put(c, to, 4);
    nc_put(c, (*a != 0) + (*b != 0), 2);
    if (*a)
        nc_put_string(c, a);
    if (*b)
        nc_put_string(c, b);
    return nc_send(c);
}

static int open_fid(struct nine_client *c, uint32_t fid, uint32_t flags)
{
    nc_begin(c, NINE_LOPEN);
    nc_put(c, fid, 4);
    nc_put(c, flags, 4);
    return nc_send(c);
}

static int create(struct nine_client *c, uint32_t fid, const char *name, uint32_t flags,
                  uint32_t mode)
{
    nc_begin(c, NINE_LCREATE);
    nc_put(c, fid, 4);
    nc_put_string(c, name);
    nc_put(c, flags, 4);
    nc_put(c, mode, 4);
    nc_put(c, 0, 4);
    return nc_send(c);
}

static int read_fid(struct nine_client *c, uint32_t fid, uint64_t offset, uint32_t bytes)
{
    nc_begin(c, NINE_READ);
    nc_put(c, fid, 4);
    nc_put(c, offset, 8);
    nc_put(c, bytes, 4);
    return nc_send(c);
}

static int write_fid(struct nine_client *c, uint32_t fid, uint64_t offset, const char *text)
{
    nc_begin(c, NINE_WRITE);
    nc_put(c, fid, 4);
    nc_put(c, offset, 8);
    nc_put(c, strlen(text), 4);
    memcpy(c->message + c->used, text, strlen(text));
    c->used += strlen(text);
    return nc_send(c);
}

static int clunk(struct nine_client *c, uint32_t fid)
{
    nc_begin(c, NINE_CLUNK);
    nc_put(c, fid, 4);
    return nc_send(c);
}

static int named(struct nine_client *c, uint8_t type, uint32_t fid, const char *name,
                 uint32_t value)
{
    nc_begin(c, type);
    nc_put(c, fid, 4);
    nc_put_string(c, name);
    nc_put(c, value, 4);
    nc_put(c, 0, 4);
    return nc_send(c);
}

static int getattr(struct nine_client *c, uint32_t fid, uint32_t *mode, uint64_t *size)
{
    int ret;

    nc_begin(c, NINE_GETATTR);
    nc_put(c, fid, 4);
    nc_put(c, 0x7ff, 8);
    ret = nc_send(c);
    if (ret)
        return ret;
    c->at += 8 + 13;
    *mode = (uint32_t)nc_get(c, 4);
    c->at += 4 + 4 + 8 + 8;
    *size = nc_get(c, 8);
    return 0;
}

static int setattr(struct nine_client *c, uint32_t fid, uint32_t valid, uint32_t mode,
                   uint64_t size, uint64_t nanoseconds)
{
    nc_begin(c, NINE_SETATTR);
    nc_put(c, fid, 4);
    nc_put(c, valid, 4);
    nc_put(c, mode, 4);
    nc_put(c, 12, 4);
    nc_put(c, 13, 4);
    nc_put(c, size, 8);
    for (unsigned n = 0; n < 2; n++) {
        nc_put(c, 1000000, 8);
        nc_put(c, nanoseconds, 8);
    }
    return nc_send(c);
}

/* ---- what Linux does ---- */

static void sessions(void **state)
{
    struct nine_client *c = start(false);

    nc_begin(c, NINE_VERSION);
    nc_put(c, 8 * MiB, 4);
    nc_put_string(c, "9P2000.u");
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(nc_get(c, 4), SHARE_MESSAGE_MAX);
    assert_int_equal(nc_get(c, 2), 7);
    assert_int_equal(walk(c, ROOT, 2, "", ""), EIO); /* no session */
    nc_begin(c, NINE_VERSION);
    nc_put(c, 100, 4);
    nc_put_string(c, "9P2000.L");
    assert_int_equal(nc_send(c), EMSGSIZE);
    end(c);
}

static void files(void **state)
{
    struct nine_client *c = start(false);
    uint32_t mode;
    uint64_t size;

    for (c->pieces = 0; c->pieces < 6; c->pieces++) {
        assert_int_equal(walk(c, ROOT, 2, "sub", "deep"), 0);
        assert_int_equal(nc_get(c, 2), 2);
        assert_int_equal(open_fid(c, 2, O_RDWR), 0);
        assert_int_equal(open_fid(c, 2, O_RDWR), EBADF);
        assert_int_equal(read_fid(c, 2, 1, 100), 0);
        assert_int_equal(nc_get(c, 4), 3);
        assert_memory_equal(c->reply + 11, "eep", 3);
        assert_int_equal(write_fid(c, 2, 4, " and more"), 0);
        assert_int_equal(nc_get(c, 4), 9);
        assert_int_equal(getattr(c, 2, &mode, &size), 0);
        assert_int_equal(size, 13);
        nc_begin(c, NINE_FSYNC);
        nc_put(c, 2, 4);
        nc_put(c, 1, 4);
        assert_int_equal(nc_send(c), 0);
        assert_int_equal(setattr(c, 2, 1 | 8, 0640, 4, 0), 0);
        assert_int_equal(getattr(c, 2, &mode, &size), 0);
        assert_int_equal(size, 4);
        assert_int_equal(mode, S_IFREG | 0640);
        assert_int_equal(clunk(c, 2), 0);
        assert_int_equal(clunk(c, 2), EBADF);
    }
    c->pieces = 0;
    /* Made, then removed while it is open. */
    assert_int_equal(walk(c, ROOT, 3, "", ""), 0);
    assert_int_equal(create(c, 3, "new", O_CREAT | O_EXCL | O_RDWR, 04666), 0);
    assert_int_equal(getattr(c, 3, &mode, &size), 0);
    assert_int_equal(mode, S_IFREG | 0666);
    assert_int_equal(write_fid(c, 3, 0, "text"), 0);
    assert_int_equal(named(c, NINE_UNLINKAT, ROOT, "new", 0), 0);
    assert_int_equal(read_fid(c, 3, 0, 10), 0);
    assert_int_equal(nc_get(c, 4), 4);
    assert_int_equal(getattr(c, 3, &mode, &size), 0);
    assert_int_equal(clunk(c, 3), 0);
    /* Locks. */
    assert_int_equal(walk(c, ROOT, 4, "file", ""), 0);
    assert_int_equal(open_fid(c, 4, O_RDONLY), 0);
    nc_begin(c, NINE_LOCK);
    nc_put(c, 4, 4);
    nc_put(c, 1, 1);
    nc_put(c, 0, 4);
    nc_put(c, 0, 8);
    nc_put(c, 0, 8);
    nc_put(c, 77, 4);
    nc_put_string(c, "client");
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(nc_get(c, 1), 0);
    nc_begin(c, NINE_FLUSH);
    nc_put(c, 3, 2);
    assert_int_equal(nc_send(c), 0);
    nc_begin(c, NINE_STATFS);
    nc_put(c, ROOT, 4);
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(c->bytes, NINE_HEADER + 60);
    end(c);
}

static void trees(void **state)
{
    struct nine_client *c = start(false);
    uint32_t mode;
    uint64_t size;
    unsigned seen = 0;
    uint32_t bytes;

    assert_int_equal(named(c, NINE_MKDIR, ROOT, "made", 02777), 0);
    assert_int_equal(named(c, NINE_MKDIR, ROOT, "made", 0777), EEXIST);
    assert_int_equal(walk(c, ROOT, 2, "made", ""), 0);
    assert_int_equal(getattr(c, 2, &mode, &size), 0);
    assert_int_equal(mode, S_IFDIR | 0777);
    assert_int_equal(walk(c, ROOT, 3, "sub", "deep"), 0);
    nc_begin(c, NINE_LINK);
    nc_put(c, 2, 4);
    nc_put(c, 3, 4);
    nc_put_string(c, "hard");
    assert_int_equal(nc_send(c), 0);
    nc_begin(c, NINE_SYMLINK);
    nc_put(c, 2, 4);
    nc_put_string(c, "soft");
    nc_put_string(c, "../../outside/secret");
    nc_put(c, 0, 4);
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(walk(c, 2, 4, "soft", ""), 0);
    nc_begin(c, NINE_READLINK);
    nc_put(c, 4, 4);
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(nc_get(c, 2), 20);
    assert_int_equal(open_fid(c, 4, O_RDONLY), ELOOP);
    /* Renamed above what fids know: they follow. */
    nc_begin(c, NINE_RENAMEAT);
    nc_put(c, ROOT, 4);
    nc_put_string(c, "made");
    nc_put(c, ROOT, 4);
    nc_put_string(c, "moved");
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(walk(c, 2, 5, "hard", ""), 0);
    assert_int_equal(getattr(c, 4, &mode, &size), 0);
    nc_begin(c, NINE_RENAME);
    nc_put(c, 5, 4);
    nc_put(c, ROOT, 4);
    nc_put_string(c, "hard2");
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(open_fid(c, 5, O_RDONLY), 0);
    /* Its list. */
    assert_int_equal(walk(c, ROOT, 6, "", ""), 0);
    assert_int_equal(open_fid(c, 6, O_RDONLY | O_DIRECTORY), 0);
    for (uint64_t offset = 0;; ) {
        nc_begin(c, NINE_READDIR);
        nc_put(c, 6, 4);
        nc_put(c, offset, 8);
        nc_put(c, 64, 4); /* two or so at a time */
        assert_int_equal(nc_send(c), 0);
        bytes = (uint32_t)nc_get(c, 4);
        if (!bytes)
            break;
        assert_true(bytes <= 64);
        for (size_t last = c->at + bytes; c->at < last; seen++) {
            c->at += 13;
            offset = nc_get(c, 8);
            c->at += 1;
            c->at += nc_get(c, 2);
        }
    }
    assert_int_equal(seen, 7); /* . .. file sub up moved hard2 */
    assert_int_equal(named(c, NINE_UNLINKAT, ROOT, "moved", 0x200), ENOTEMPTY);
    nc_begin(c, NINE_REMOVE);
    nc_put(c, 4, 4);
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(named(c, NINE_UNLINKAT, ROOT, "moved", 0x200), 0);
    /* Times, owner; a pipe, and what is refused. */
    assert_int_equal(setattr(c, 3, 0x1F0 | 6, 0, 0, 5), 0);
    assert_int_equal(setattr(c, 3, 0x1F0, 0, 0, UTIME_OMIT), EINVAL);
    assert_int_equal(named(c, NINE_MKNOD, ROOT, "pipe", S_IFIFO | 0600), 0);
    assert_int_equal(named(c, NINE_MKNOD, ROOT, "null", S_IFCHR | 0666), EPERM);
    assert_int_equal(walk(c, ROOT, 7, "pipe", ""), 0);
    assert_int_equal(open_fid(c, 7, O_RDONLY), ENXIO);
    assert_int_equal(walk(c, ROOT, 8, "", ""), 0);
    assert_int_equal(create(c, 8, "pipe", O_CREAT | O_RDWR, 0600), ENXIO);
    end(c);
}

static void attributes(void **state)
{
    struct nine_client *c = start(false);

    assert_int_equal(walk(c, ROOT, 2, "file", ""), 0);
    assert_int_equal(walk(c, ROOT, 3, "file", ""), 0);
    nc_begin(c, NINE_XATTRCREATE);
    nc_put(c, 3, 4);
    nc_put_string(c, "user.test");
    nc_put(c, 5, 8);
    nc_put(c, 0, 4);
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(write_fid(c, 3, 6, "x"), ENOSPC);
    assert_int_equal(write_fid(c, 3, 4, "xy"), ENOSPC);
    assert_int_equal(write_fid(c, 3, 0, "value"), 0);
    if (clunk(c, 3) == 0) { /* else the host's file system has none */
        nc_begin(c, NINE_XATTRWALK);
        nc_put(c, 2, 4);
        nc_put(c, 4, 4);
        nc_put_string(c, "user.test");
        assert_int_equal(nc_send(c), 0);
        assert_int_equal(nc_get(c, 8), 5);
        assert_int_equal(read_fid(c, 4, 1, 100), 0);
        assert_int_equal(nc_get(c, 4), 4);
        assert_memory_equal(c->reply + 11, "alue", 4);
    }
    nc_begin(c, NINE_XATTRWALK);
    nc_put(c, 2, 4);
    nc_put(c, 5, 4);
    nc_put_string(c, "security.capability");
    assert_int_equal(nc_send(c), EOPNOTSUPP);
    nc_begin(c, NINE_XATTRCREATE);
    nc_put(c, 2, 4);
    nc_put_string(c, "security.capability");
    nc_put(c, 20, 8);
    nc_put(c, 0, 4);
    assert_int_equal(nc_send(c), EOPNOTSUPP);
    nc_begin(c, NINE_XATTRCREATE);
    nc_put(c, 2, 4);
    nc_put_string(c, "user.large");
    nc_put(c, UINT64_MAX, 8);
    nc_put(c, 0, 4);
    assert_int_equal(nc_send(c), E2BIG);
    end(c);
}

/* ---- the way out ---- */

static void stays_inside(struct nine_client *c)
{
    static const char *const names[] = {"..", "../outside", "/etc", "/", "", ".", "up/secret",
                                        "sub/../../outside"};
    uint32_t mode;
    uint64_t size;

    /* ".." of the folder is the folder. */
    assert_int_equal(walk(c, ROOT, 2, "..", ".."), 0);
    assert_int_equal(walk(c, 2, 3, "outside", ""), ENOENT);
    assert_int_equal(walk(c, ROOT, 4, "sub", ".."), 0);
    assert_int_equal(walk(c, 4, 5, "file", ""), 0);
    for (size_t n = 1; n < ARRAY_SIZE(names); n++) {
        assert_int_not_equal(walk(c, ROOT, 20, "sub", *names[n] ? names[n] : "/") == 0 &&
                                 nc_get(c, 2) == 2, 1);
        assert_int_not_equal(named(c, NINE_MKDIR, ROOT, names[n], 0777), 0);
        assert_int_not_equal(named(c, NINE_UNLINKAT, ROOT, names[n], 0), 0);
        assert_int_not_equal(named(c, NINE_UNLINKAT, ROOT, names[n], 0x200), 0);
        assert_int_equal(walk(c, ROOT, 21, "", ""), 0);
        assert_int_not_equal(create(c, 21, names[n], O_CREAT | O_RDWR, 0666), 0);
        assert_int_equal(clunk(c, 21), 0);
    }
    /* Through links: of the folder's and of the guest's own. */
    assert_int_equal(walk(c, ROOT, 6, "up", ""), 0);
    assert_int_equal(getattr(c, 6, &mode, &size), 0);
    assert_int_equal(mode & S_IFMT, S_IFLNK);
    assert_int_not_equal(walk(c, 6, 7, "secret", ""), 0);
    assert_int_equal(walk(c, ROOT, 7, "up", "secret"), 0);
    assert_int_equal(nc_get(c, 2), 1); /* part of the way */
    assert_int_equal(clunk(c, 7), EBADF);
    assert_int_not_equal(named(c, NINE_MKDIR, 6, "x", 0777), 0);
    assert_int_not_equal(create(c, 6, "x", O_CREAT | O_RDWR, 0666), 0);
    assert_int_not_equal(named(c, NINE_UNLINKAT, 6, "secret", 0), 0);
    assert_int_equal(walk(c, ROOT, 8, "", ""), 0);
    assert_int_not_equal(create(c, 8, "up", O_CREAT | O_RDWR | O_TRUNC, 0666), 0);
    nc_begin(c, NINE_RENAMEAT);
    nc_put(c, ROOT, 4);
    nc_put_string(c, "file");
    nc_put(c, 6, 4);
    nc_put_string(c, "file");
    assert_int_not_equal(nc_send(c), 0);
    /* The mode and the times of a link are not those of where it leads. */
    setattr(c, 6, 1 | 0x1F0 | 6, 0, 0, 1);
    assert_int_not_equal(setattr(c, 6, 8, 0, 0, 0), 0);
    end(c);
}

static void confined(void **state)
{
    stays_inside(start_as(false, false));
    stays_inside(start_as(false, true));
}

static void readonly_share(void **state)
{
    struct nine_client *c = start(true);

    assert_int_equal(walk(c, ROOT, 2, "file", ""), 0);
    assert_int_equal(open_fid(c, 2, O_RDWR), EROFS);
    assert_int_equal(open_fid(c, 2, O_TRUNC), EROFS);
    assert_int_equal(open_fid(c, 2, O_RDONLY), 0);
    assert_int_equal(write_fid(c, 2, 0, "x"), EROFS);
    assert_int_equal(setattr(c, 2, 8, 0, 0, 0), EROFS);
    assert_int_equal(named(c, NINE_MKDIR, ROOT, "x", 0777), EROFS);
    assert_int_equal(named(c, NINE_UNLINKAT, ROOT, "file", 0), EROFS);
    nc_begin(c, NINE_REMOVE);
    nc_put(c, 2, 4);
    assert_int_equal(nc_send(c), EROFS);
    assert_int_equal(clunk(c, 2), EBADF);
    assert_int_equal(walk(c, ROOT, 2, "file", ""), 0);
    end(c);
}

/* ---- what no client sends ---- */

static void hostile(void **state)
{
    struct nine_client *c = start(false);
    unsigned before = nc_open_descriptors();

    /* A size that is not the message's. */
    nc_begin(c, NINE_CLUNK);
    nc_put(c, ROOT, 4);
    le32_put(c->message, 12);
    assert_int_equal(nc_send_raw(c, false), NINE_LERROR + 1);
    le32_put(c->message, 3);
    assert_int_equal(nc_send_raw(c, false), NINE_LERROR + 1);
    le32_put(c->message, 0xFFFFFFFF);
    assert_int_equal(nc_send_raw(c, false), NINE_LERROR + 1);
    c->used = 6;
    assert_int_equal(nc_send_raw(c, false), 0); /* not even a tag to answer to */
    /* A string that ends behind the message; one with a NUL. */
    nc_begin(c, NINE_MKDIR);
    nc_put(c, ROOT, 4);
    nc_put(c, 60000, 2);
    assert_int_equal(nc_send(c), EINVAL);
    nc_begin(c, NINE_MKDIR);
    nc_put(c, ROOT, 4);
    nc_put(c, 3, 2);
    nc_put(c, 0x610061, 3);
    nc_put(c, 0777, 4);
    nc_put(c, 0, 4);
    assert_int_equal(nc_send(c), EINVAL);
    /* Writes that say more than they have; offsets beyond all files. */
    assert_int_equal(walk(c, ROOT, 2, "file", ""), 0);
    assert_int_equal(open_fid(c, 2, O_RDWR), 0);
    nc_begin(c, NINE_WRITE);
    nc_put(c, 2, 4);
    nc_put(c, 0, 8);
    nc_put(c, 0xFFFFFFF0, 4);
    assert_int_equal(nc_send(c), EINVAL);
    assert_int_equal(write_fid(c, 2, UINT64_MAX - 1, "x"), EINVAL);
    assert_int_equal(read_fid(c, 2, UINT64_MAX, 100), EINVAL);
    assert_int_equal(read_fid(c, 2, 0, UINT32_MAX), 0);
    assert_int_equal(nc_get(c, 4), 8);
    assert_int_equal(setattr(c, 2, 8, 0, UINT64_MAX, 0), EFBIG);
    assert_int_equal(clunk(c, 2), 0);
    /* As many fids as it likes. */
    for (uint32_t n = 100; n < 100 + 2 * NINE_FIDS_MAX; n++)
        walk(c, ROOT, n, "", "");
    assert_int_equal(walk(c, ROOT, 99, "", ""), EMFILE);
    for (uint32_t n = 100; n < 100 + 2 * NINE_OPEN_MAX; n++)
        open_fid(c, n, O_RDONLY);
    assert_true(nc_open_descriptors() <= before + NINE_OPEN_MAX);
    nc_begin(c, NINE_VERSION);
    nc_put(c, 65536, 4);
    nc_put_string(c, "9P2000.L");
    assert_int_equal(nc_send(c), 0);
    assert_int_equal(nc_open_descriptors(), before);
    end(c);
}

/* ---- real time: the share's thread ---- */

struct question {
    struct share_request request;
    struct share_span to, from;
    uint8_t message[64], reply[64];
    unsigned done;
};

static void question_done(struct share_request *r)
{
    struct question *q = r->ctx;

    q->done++;
}

static void ask(struct share *s, struct question *q)
{
    static const uint8_t flush[] = {9, 0, 0, 0, NINE_FLUSH, 1, 0, 0, 0};

    memcpy(q->message, flush, sizeof flush);
    q->to = (struct share_span){q->message, sizeof flush};
    q->from = (struct share_span){q->reply, sizeof q->reply};
    q->request = (struct share_request){
        .message = &q->to,
        .message_spans = 1,
        .message_bytes = sizeof flush,
        .reply = &q->from,
        .reply_spans = 1,
        .reply_room = sizeof q->reply,
        .done = question_done,
        .ctx = q,
    };
    share_submit(s, &q->request);
}

/* Everything is answered once, but what was withdrawn; saving waits for all. */
static void real_time(void **state)
{
    enum { QUESTIONS = 64 };
    const struct vm_config config = {.deterministic = false};
    const struct share_config folder = {.path = "/tmp", .tag = "t", .readonly = true};
    struct question *q = calloc(QUESTIONS, sizeof *q);
    struct state_stream saved = {0};
    struct vm *vm = vm_create(&config, NULL);
    struct share *s;

    assert_non_null(q);
    assert_non_null(vm);
    s = share_open(vm, &folder, NULL);
    assert_non_null(s);
    for (unsigned round = 0; round < 200; round++) {
        vm_lock(vm);
        for (unsigned n = 0; n < QUESTIONS; n++)
            ask(s, &q[n]);
        for (unsigned n = 0; n < QUESTIONS; n += 3)
            share_withdraw(s, &q[n].request);
        vm_unlock(vm);
        if (round % 50 == 0) {
            assert_int_equal(vm_state_save(vm, &saved, NULL), 0);
            state_stream_free(&saved);
            memset(&saved, 0, sizeof saved);
            assert_int_equal(share_in_flight(s), 0);
        }
        vm_lock(vm);
        for (unsigned n = 0; n < QUESTIONS; n++) {
            share_withdraw(s, &q[n].request);
            assert_true(q[n].done <= (n % 3 != 0));
            q[n].done = 0;
        }
        assert_int_equal(share_in_flight(s), 0);
        vm_unlock(vm);
    }
    vm_lock(vm);
    for (unsigned n = 0; n < QUESTIONS; n++)
        ask(s, &q[n]);
    vm_unlock(vm);
    share_close(s);
    for (unsigned n = 0; n < QUESTIONS; n++) {
        assert_int_equal(q[n].done, 1);
        assert_int_equal(q[n].reply[4], NINE_LERROR + 1); /* no session */
    }
    vm_destroy(vm);
    free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions),   cmocka_unit_test(files),
        cmocka_unit_test(trees),      cmocka_unit_test(attributes),
        cmocka_unit_test(confined),   cmocka_unit_test(readonly_share),
        cmocka_unit_test(hostile),    cmocka_unit_test(real_time),
    };

    return cmocka_run_group_tests_name("share", tests, NULL, NULL);
}
