/*
 * A hostile client of a shared folder: messages of 9P2000.L that are right, nearly
 * right, cut, too long, of names that lead out.
 *
 * usage: nine_fuzz [--seconds S] [--cases N] [--seed SEED]
 *        nine_fuzz --case SEED         one case again, as a failure names it
 *        nine_fuzz --corpus FILE       the cases listed there (# begins a comment)
 *        nine_fuzz --input FILE        what the file's bytes say, as a fuzzer makes it
 *
 * The server must not crash or hang or touch what is not its own (the sanitizers'
 * part), what is outside of the folder stays as it was, and each case leaves as
 * many open descriptors as there were.
 *
 * Exit status: 0, or 1 and a line that says how to have the failure again.
 * Threading: one; a signal ends a case that hangs.
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
#include "tests/fuzz/fuzz.h"

enum { HANG_SECONDS = 120, MESSAGES = 400, INPUT_MAX = 65536, FIDS = 6 };

/* Where a case's decisions come from: a seed, or a file until it ends. */
struct source {
    struct rng rng;
    const uint8_t *data;
    size_t left;
    bool is_file;
};

struct fuzz {
    struct nine_client c;
    struct source from;
    uint64_t seed;
};

static uint64_t next(struct source *s)
{
    uint64_t v = 0;

    if (!s->is_file)
        return rng_next(&s->rng);
    for (unsigned n = 0; n < 4 && s->left; n++, s->left--)
        v |= (uint64_t)*s->data++ << 8 * n;
    return v * 0x9e3779b97f4a7c15; /* small files decide much, too */
}

static uint64_t below(struct source *s, uint64_t n)
{
    return (next(s) >> 16) % n;
}

#define PICK(s, array) ((array)[below(s, ARRAY_SIZE(array))])

_Noreturn static void failed(struct fuzz *f, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "nine_fuzz: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; again: nine_fuzz --case 0x%llx\n", (unsigned long long)f->seed);
    exit(1);
}

/* ---- what messages are made of ---- */

static void put_fid(struct fuzz *f)
{
    static const uint32_t odd[] = {0, UINT32_MAX, 0x80000000, 1000};

    nc_put(&f->c, below(&f->from, 32) ? below(&f->from, FIDS) : PICK(&f->from, odd), 4);
}

static void put_name(struct fuzz *f)
{
    static const char *const names[] = {
        "file", "sub",  "deep", "up",  "abs", "a",      "b",       "c",         "d",
        "..",   ".",    "",     "/",   "x/y", "../outside", "secret", "outside", "user.a",
        "user.", "security.x", "/etc/passwd", "a", "b",
    };
    const char *name = PICK(&f->from, names);
    unsigned odd = (unsigned)below(&f->from, 64);

    if (odd == 0) { /* a length that is not its own */
        nc_put(&f->c, next(&f->from), 2);
    } else if (odd < 3) {
        unsigned length = odd == 1 ? 255 : 256 + (unsigned)below(&f->from, 5000);

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

    nc_put(&f->c, below(&f->from, 16) ? PICK(&f->from, values) : next(&f->from), bytes);
}

/* Fields of each message: f fid, s string, digits bytes, w a walk, d data. */
static const struct {
    uint8_t type;
    const char *fields;
} shapes[] = {
    {NINE_STATFS, "f"},         {NINE_LOPEN, "f4"},         {NINE_LOPEN, "f4"},
    {NINE_LCREATE, "fs444"},    {NINE_LCREATE, "fs444"},    {NINE_SYMLINK, "fss4"},
    {NINE_MKNOD, "fs4444"},     {NINE_RENAME, "ffs"},       {NINE_READLINK, "f"},
    {NINE_GETATTR, "f8"},       {NINE_SETATTR, "f444488888"}, {NINE_XATTRWALK, "ffs"},
    {NINE_XATTRCREATE, "fs84"}, {NINE_READDIR, "f84"},      {NINE_FSYNC, "f4"},
    {NINE_LOCK, "f14884s"},     {NINE_GETLOCK, "f1884s"},   {NINE_LINK, "ffs"},
    {NINE_MKDIR, "fs44"},       {NINE_RENAMEAT, "fsfs"},    {NINE_UNLINKAT, "fs4"},
    {NINE_AUTH, "fss4"},        {NINE_FLUSH, "2"},          {NINE_WALK, "ffw"},
    {NINE_WALK, "ffw"},         {NINE_WALK, "ffw"},         {NINE_WALK, "ffw"},
    {NINE_READ, "f84"},         {NINE_READ, "f84"},         {NINE_READDIR, "f84"},
    {NINE_WRITE, "f8d"},        {NINE_WRITE, "f8d"},        {NINE_XATTRWALK, "ffs"},
    {NINE_LCREATE, "fs444"},    {NINE_LOCK, "f14884s"},     {NINE_WRITE, "f8d"},        {NINE_CLUNK, "f"},
    {NINE_REMOVE, "f"},         {99, "f"},                  {NINE_ATTACH, "ffss4"},
};

static void put_walk(struct fuzz *f)
{
    unsigned count = (unsigned)below(&f->from, 4);

    nc_put(&f->c, below(&f->from, 32) ? count : next(&f->from), 2);
    while (count--)
        put_name(f);
}

static void put_data(struct fuzz *f)
{
    unsigned count = (unsigned)below(&f->from, 3000);

    nc_put(&f->c, below(&f->from, 16) ? count : next(&f->from), 4);
    while (count--)
        nc_put(&f->c, count, 1);
}

static void session(struct fuzz *f)
{
    nc_begin(&f->c, NINE_VERSION);
    nc_put(&f->c, below(&f->from, 8) ? 65536 : next(&f->from) % 70000, 4);
    nc_put_string(&f->c, below(&f->from, 16) ? "9P2000.L" : "9P2000");
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
    unsigned shape = (unsigned)below(&f->from, ARRAY_SIZE(shapes));
    bool fix = below(&f->from, 40);

    if (below(&f->from, 100) == 0) {
        session(f);
        return;
    }
    f->c.pieces = (unsigned)below(&f->from, 8);
    nc_begin(&f->c, shapes[shape].type);
    for (const char *at = shapes[shape].fields; *at; at++) {
        if (below(&f->from, 100) == 0)
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
    if (below(&f->from, 64) == 0)
        f->c.used = below(&f->from, f->c.used + 1);
    if (!fix)
        le32_put(f->c.message, (uint32_t)next(&f->from));
    nc_send_raw(&f->c, fix);
    if (f->c.bytes && le32_get(f->c.reply) != f->c.bytes)
        failed(f, "a reply of %u bytes says that it has %u", f->c.bytes, le32_get(f->c.reply));
}

/* ---- a case ---- */

static void run_case(struct fuzz *f)
{
    unsigned before = nc_open_descriptors();

    alarm(HANG_SECONDS);
    if (!nc_create(&f->c, below(&f->from, 8) == 0, below(&f->from, 4) == 0))
        failed(f, "no folder: %s", strerror(errno));
    session(f);
    for (unsigned n = 0; n < MESSAGES && (!f->from.is_file || f->from.left); n++)
        one(f);
    if (!nc_outside_is_fine(&f->c))
        failed(f, "what is outside of the folder has changed");
    nc_destroy(&f->c);
    if (nc_open_descriptors() != before)
        failed(f, "%u descriptors are left open", nc_open_descriptors() - before);
    alarm(0);
}

static void run_seed(struct fuzz *f, uint64_t seed)
{
    f->seed = seed;
    f->from = (struct source){.rng = {seed}};
    run_case(f);
}

static int run_corpus(struct fuzz *f, const char *path)
{
    FILE *file = fopen(path, "r");
    char line[256];
    unsigned count = 0;

    if (!file) {
        fprintf(stderr, "nine_fuzz: %s: %s\n", path, strerror(errno));
        return 1;
    }
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#' || line[0] == '\n')
            continue;
        run_seed(f, strtoull(line, NULL, 0));
        count++;
    }
    fclose(file);
    printf("%u cases of the corpus\n", count);
    return 0;
}

static int run_input(struct fuzz *f, const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *file = fopen(path, "rb");

    if (!file) {
        fprintf(stderr, "nine_fuzz: %s: %s\n", path, strerror(errno));
        return 1;
    }
    f->from =
        (struct source){.data = data, .left = fread(data, 1, sizeof data, file), .is_file = true};
    fclose(file);
    run_case(f);
    return 0;
}

static void hung(int signal)
{
    static const char text[] = "nine_fuzz: a case hangs\n";

    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(2);
    abort();
}

int main(int argc, char **argv)
{
    struct fuzz f = {0};
    uint64_t seconds = 0, cases = 0, seed = 1, done = 0, end;

    signal(SIGALRM, hung);
    /* What libuv opens once in a process is not a case's. */
    if (nc_create(&f.c, false, false))
        nc_destroy(&f.c);
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t number = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seconds"))
            seconds = number;
        else if (!strcmp(argv[i], "--cases"))
            cases = number;
        else if (!strcmp(argv[i], "--seed"))
            seed = number;
        else if (!strcmp(argv[i], "--case"))
            return run_seed(&f, number), 0;
        else if (!strcmp(argv[i], "--corpus"))
            return run_corpus(&f, argv[i + 1]);
        else if (!strcmp(argv[i], "--input"))
            return run_input(&f, argv[i + 1]);
    }
    f.from.rng.state = seed;
    end = host_monotonic_ns() + seconds * NS_PER_SEC;
    for (struct rng seeds = {seed}; done < cases || (seconds && host_monotonic_ns() < end); done++)
        run_seed(&f, rng_next(&seeds));
    printf("%llu cases from seed %llu\n", (unsigned long long)done, (unsigned long long)seed);
    return 0;
}
