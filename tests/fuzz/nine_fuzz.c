/*
 * A hostile client of a shared folder: messages of 9P2000.L that are right, nearly
 * right, cut, too long, of names that lead out.
 *
 * usage: driver.h.
 *
 * The server must not crash or hang or touch what is not its own (the sanitizers'
 * part), what is outside of the folder stays as it was, and each case leaves as
 * many open descriptors as there were.
 *
 * Threading: one.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/host.h"
#include "tests/dev/nine_client.h"
#include "tests/fuzz/driver.h"

enum { HANG_SECONDS = 120, MESSAGES = 400, FIDS = 6 };

struct fuzz {
    struct fuzz_driver d;
    struct nine_client c;
};

/* ---- what messages are made of ---- */

static void put_fid(struct fuzz *f)
{
    static const uint32_t odd[] = {0, UINT32_MAX, 0x80000000, 1000};

    nc_put(&f->c, below(&f->d.from, 32) ? below(&f->d.from, FIDS) : PICK(&f->d.from, odd), 4);
}

static void put_name(struct fuzz *f)
{
    static const char *const names[] = {
        "file",    "sub",    "deep",  "up",         "abs",         "a",   "b",          "c",
        "d",       "..",     ".",     "",           "/",           "x/y", "../outside", "secret",
        "outside", "user.a", "user.", "security.x", "/etc/passwd", "a",   "b",
    };
    const char *name = PICK(&f->d.from, names);
    unsigned odd = (unsigned)below(&f->d.from, 64);

    if (odd == 0) { /* a length that is not its own */
        nc_put(&f->c, next(&f->d.from), 2);
    } else if (odd < 3) {
        unsigned length = odd == 1 ? 255 : 256 + (unsigned)below(&f->d.from, 5000);

        nc_put(&f->c, length, 2);
        for (unsigned n = 0; n < length; n++)
            nc_put(&f->c, 'n', 1);
    } else {
        nc_put_string(&f->c, name);
    }
}

static void put_value(struct fuzz *f, unsigned bytes)
{
    static const uint64_t values[] = {0,    1,     2,       3,     8,          0x200,     0777,
                                      4096, 65536, 0x241,   0xFF,  0x1FF,      INT64_MAX, 7,
                                      5,    0x41,  0104777, 01000, UINT64_MAX, 0x80,      0xC2};

    nc_put(&f->c, below(&f->d.from, 16) ? PICK(&f->d.from, values) : next(&f->d.from), bytes);
}

/* Fields of each message: f fid, s string, digits bytes, w a walk, d data. */
static const struct {
    uint8_t type;
    const char *fields;
} shapes[] = {
    {NINE_STATFS, "f"},
    {NINE_LOPEN, "f4"},
    {NINE_LOPEN, "f4"},
    {NINE_LCREATE, "fs444"},
    {NINE_LCREATE, "fs444"},
    {NINE_SYMLINK, "fss4"},
    {NINE_MKNOD, "fs4444"},
    {NINE_RENAME, "ffs"},
    {NINE_READLINK, "f"},
    {NINE_GETATTR, "f8"},
    {NINE_SETATTR, "f444488888"},
    {NINE_XATTRWALK, "ffs"},
    {NINE_XATTRCREATE, "fs84"},
    {NINE_READDIR, "f84"},
    {NINE_FSYNC, "f4"},
    {NINE_LOCK, "f14884s"},
    {NINE_GETLOCK, "f1884s"},
    {NINE_LINK, "ffs"},
    {NINE_MKDIR, "fs44"},
    {NINE_RENAMEAT, "fsfs"},
    {NINE_UNLINKAT, "fs4"},
    {NINE_AUTH, "fss4"},
    {NINE_FLUSH, "2"},
    {NINE_WALK, "ffw"},
    {NINE_WALK, "ffw"},
    {NINE_WALK, "ffw"},
    {NINE_WALK, "ffw"},
    {NINE_READ, "f84"},
    {NINE_READ, "f84"},
    {NINE_READDIR, "f84"},
    {NINE_WRITE, "f8d"},
    {NINE_WRITE, "f8d"},
    {NINE_XATTRWALK, "ffs"},
    {NINE_LCREATE, "fs444"},
    {NINE_LOCK, "f14884s"},
    {NINE_WRITE, "f8d"},
    {NINE_CLUNK, "f"},
    {NINE_REMOVE, "f"},
    {99, "f"},
    {NINE_ATTACH, "ffss4"},
};

static void put_walk(struct fuzz *f)
{
    unsigned count = (unsigned)below(&f->d.from, 4);

    nc_put(&f->c, below(&f->d.from, 32) ? count : next(&f->d.from), 2);
    while (count--)
        put_name(f);
}

static void put_data(struct fuzz *f)
{
    unsigned count = (unsigned)below(&f->d.from, 3000);

    nc_put(&f->c, below(&f->d.from, 16) ? count : next(&f->d.from), 4);
    while (count--)
        nc_put(&f->c, count, 1);
}

static void session(struct fuzz *f)
{
    nc_begin(&f->c, NINE_VERSION);
    nc_put(&f->c, below(&f->d.from, 8) ? 65536 : next(&f->d.from) % 70000, 4);
    nc_put_string(&f->c, below(&f->d.from, 16) ? "9P2000.L" : "9P2000");
    nc_send_raw(&f->c, true);
    for (unsigned n = 0; n < 3; n++) {
        nc_begin(&f->c, NINE_ATTACH);
        nc_put(&f->c, n, 4);
        nc_put(&f->c, UINT32_MAX, 4);
        nc_put_string(&f->c, "");
        nc_put_string(&f->c, "");
        nc_put(&f->c, 0, 4);
        nc_send_raw(&f->c, true);
    }
}

static void one(struct fuzz *f)
{
    unsigned shape = (unsigned)below(&f->d.from, ARRAY_SIZE(shapes));
    bool fix = below(&f->d.from, 40);

    if (below(&f->d.from, 100) == 0) {
        session(f);
        return;
    }
    f->c.pieces = (unsigned)below(&f->d.from, 8);
    nc_begin(&f->c, shapes[shape].type);
    for (const char *at = shapes[shape].fields; *at; at++) {
        if (below(&f->d.from, 100) == 0)
            continue;
        if (*at == 'f')
            put_fid(f);
        else if (*at == 's')
            put_name(f);
        else if (*at == 'w')
            put_walk(f);
        else if (*at == 'd')
            put_data(f);
        else
            put_value(f, (unsigned)(*at - '0'));
    }
    if (below(&f->d.from, 64) == 0)
        f->c.used = below(&f->d.from, f->c.used + 1);
    if (!fix)
        le32_put(f->c.message, (uint32_t)next(&f->d.from));
    nc_send_raw(&f->c, fix);
    if (f->c.bytes && le32_get(f->c.reply) != f->c.bytes)
        fuzz_failed(&f->d, "a reply of %u bytes says that it has %u", f->c.bytes,
                    le32_get(f->c.reply));
}

/* ---- a case ---- */

static void run_case(struct fuzz_driver *d)
{
    struct fuzz *f = (struct fuzz *)d;
    unsigned before = nc_open_descriptors();

    if (!nc_create(&f->c, below(&f->d.from, 8) == 0, below(&f->d.from, 4) == 0))
        fuzz_failed(&f->d, "no folder: %s", strerror(errno));
    session(f);
    for (unsigned n = 0; n < MESSAGES && !source_has_ended(&d->from); n++)
        one(f);
    if (!nc_outside_is_fine(&f->c))
        fuzz_failed(&f->d, "what is outside of the folder has changed");
    nc_destroy(&f->c);
    if (nc_open_descriptors() != before)
        fuzz_failed(&f->d, "%u descriptors are left open", nc_open_descriptors() - before);
}

struct fuzz_driver *fuzz_driver(void)
{
    static struct fuzz f = {
        .d = {.name = "nine_fuzz", .hang_seconds = HANG_SECONDS, .run = run_case}};

    /* What libuv opens once in a process is not a case's. */
    if (nc_create(&f.c, false, false))
        nc_destroy(&f.c);
    return &f.d;
}
