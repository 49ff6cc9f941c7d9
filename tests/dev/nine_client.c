/*
 * A client of a share. Interface: nine_client.h.
 */
#include "tests/dev/nine_client.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SPANS = 8 };

static bool write_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    if (!f)
        return false;
    fputs(text, f);
    return fclose(f) == 0;
}

static bool make_tree(const char *dir)
{
    char path[256], to[256];

    snprintf(path, sizeof path, "%s/inside", dir);
    snprintf(to, sizeof to, "%s/outside", dir);
    if (mkdir(path, 0755) || mkdir(to, 0755) || !write_file(dir, "inside/file", "contents") ||
        !write_file(dir, "outside/secret", "secret"))
        return false;
    snprintf(path, sizeof path, "%s/inside/sub", dir);
    if (mkdir(path, 0755) || !write_file(dir, "inside/sub/deep", "deep"))
        return false;
    snprintf(path, sizeof path, "%s/inside/up", dir);
    if (symlink("../outside", path))
        return false;
    snprintf(path, sizeof path, "%s/inside/sub/abs", dir);
    return symlink(to, path) == 0;
}

bool nc_create(struct nine_client *c, bool readonly, bool walking)
{
    const struct vm_config config = {.deterministic = true, .seed = 1};
    struct share_config share = {.path = c->dir, .tag = "test", .readonly = readonly};
    char inside[128];

    memset(c, 0, sizeof *c);
    snprintf(c->dir, sizeof c->dir, "/tmp/vireo-share-XXXXXX");
    if (!mkdtemp(c->dir) || !make_tree(c->dir))
        return false;
    snprintf(inside, sizeof inside, "%s/inside", c->dir);
    share.path = inside;
    if (walking) {
        c->nine = calloc(1, sizeof *c->nine);
        if (!c->nine || nine_open(c->nine, inside, readonly))
            return false;
        c->nine->has_openat2 = false;
        return true;
    }
    c->vm = vm_create(&config, NULL);
    c->share = c->vm ? share_open(c->vm, &share, NULL) : NULL;
    return c->share;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *f)
{
    remove(path);
    return 0;
}

void nc_destroy(struct nine_client *c)
{
    if (c->nine) {
        nine_close(c->nine);
        free(c->nine);
    } else {
        share_close(c->share);
        vm_destroy(c->vm);
    }
    nftw(c->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

bool nc_outside_is_fine(const struct nine_client *c)
{
    char path[128], text[16] = "";
    struct dirent *e;
    unsigned names = 0;
    bool is_fine;
    FILE *f;
    DIR *d;

    snprintf(path, sizeof path, "%s/outside", c->dir);
    d = opendir(path);
    if (!d)
        return false;
    while ((e = readdir(d)))
        names++;
    closedir(d);
    snprintf(path, sizeof path, "%s/outside/secret", c->dir);
    f = fopen(path, "r");
    if (!f)
        return false;
    is_fine = fread(text, 1, sizeof text - 1, f) == 6 && !strcmp(text, "secret");
    fclose(f);
    return is_fine && names == 3;
}

unsigned nc_open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned count = 0;

    while (d && readdir(d))
        count++;
    if (d)
        closedir(d);
    return count;
}

void nc_begin(struct nine_client *c, uint8_t type)
{
    c->used = 0;
    nc_put(c, 0, 4);
    nc_put(c, type, 1);
    nc_put(c, 0x1234, 2);
}

void nc_put(struct nine_client *c, uint64_t v, unsigned bytes)
{
    if (c->used + bytes > sizeof c->message)
        return;
    le_put(c->message + c->used, v, bytes);
    c->used += bytes;
}

void nc_put_string(struct nine_client *c, const char *s)
{
    size_t length = strlen(s);

    nc_put(c, length, 2);
    if (c->used + length > sizeof c->message)
        return;
    memcpy(c->message + c->used, s, length);
    c->used += length;
}

static void done(struct share_request *r)
{
    struct nine_client *c = r->ctx;

    c->bytes = r->reply_bytes;
    c->got_done++;
}

static unsigned cut(uint8_t *data, size_t bytes, unsigned pieces, struct share_span *out)
{
    unsigned count = MIN(MAX(pieces, 1u), (unsigned)SPANS);
    size_t at = 0;

    for (unsigned n = 0; n < count; n++) {
        size_t part = n + 1 == count ? bytes - at : MIN((n + 1) * 3, bytes - at);

        out[n] = (struct share_span){data + at, part};
        at += part;
    }
    return count;
}

uint8_t nc_send_raw(struct nine_client *c, bool fix_size)
{
    struct share_span message[SPANS], reply[SPANS];
    struct share_request r = {
        .message = message,
        .reply = reply,
        .message_bytes = c->used,
        .reply_room = sizeof c->reply,
        .done = done,
        .ctx = c,
    };

    if (fix_size)
        le32_put(c->message, (uint32_t)c->used);
    r.message_spans = cut(c->message, c->used, c->pieces, message);
    r.reply_spans = cut(c->reply, sizeof c->reply, c->pieces, reply);
    if (c->nine) {
        c->bytes = nine_handle(c->nine, &r);
    } else {
        vm_lock(c->vm);
        share_submit(c->share, &r);
        vm_unlock(c->vm);
    }
    c->at = NINE_HEADER;
    return c->bytes ? c->reply[4] : 0;
}

int nc_send(struct nine_client *c)
{
    uint8_t type = nc_send_raw(c, true);

    if (!type || le32_get(c->reply) != c->bytes || le16_get(c->reply + 5) != 0x1234)
        return -1;
    if (type == NINE_LERROR + 1)
        return (int)le32_get(c->reply + NINE_HEADER);
    return type == c->message[4] + 1 ? 0 : -1;
}

uint64_t nc_get(struct nine_client *c, unsigned bytes)
{
    uint64_t v = c->at + bytes <= c->bytes ? le_get(c->reply + c->at, bytes) : 0;

    c->at += bytes;
    return v;
}
