/*
 * Screenshots: what a display shows, into a file. Interface: display.h.
 *
 * PNG comes from libpng. It reports errors by longjmp, so all that must be
 * freed afterwards lives in one struct outside that frame.
 *
 * Threading: with the machine's lock held (display_shot); the rest has none.
 */
#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/display/display.h"

struct png_writer {
    FILE *out;
    png_structp png;
    png_infop info;
    uint8_t *row;
};

static void ignore_warning(png_structp png, png_const_charp text)
{
}

static void give_up(png_structp png, png_const_charp text)
{
    longjmp(png_jmpbuf(png), 1);
}

/* Level 1 is a third of the time of the default and hardly larger for screens. */
enum { COMPRESSION_LEVEL = 1 };

static int write_image(struct png_writer *w, const struct surface *s)
{
    if (setjmp(png_jmpbuf(w->png)))
        return -EIO;
    png_init_io(w->png, w->out);
    png_set_compression_level(w->png, COMPRESSION_LEVEL);
    png_set_IHDR(w->png, w->info, s->width, s->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(w->png, w->info);
    for (unsigned y = 0; y < s->height; y++) {
        const uint32_t *from = s->pixels + (size_t)y * s->width;

        for (unsigned x = 0; x < s->width; x++) {
            w->row[3 * x] = (uint8_t)(from[x] >> 16);
            w->row[3 * x + 1] = (uint8_t)(from[x] >> 8);
            w->row[3 * x + 2] = (uint8_t)from[x];
        }
        png_write_row(w->png, w->row);
    }
    png_write_end(w->png, w->info);
    return 0;
}

static int write_stream(FILE *out, const struct surface *s)
{
    struct png_writer w = {.out = out};
    int code = -ENOMEM;

    w.row = malloc((size_t)s->width * 3);
    w.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, give_up, ignore_warning);
    if (w.png)
        w.info = png_create_info_struct(w.png);
    if (w.row && w.info)
        code = write_image(&w, s);
    png_destroy_write_struct(&w.png, &w.info);
    free(w.row);
    return code;
}

int png_write(const char *path, const struct surface *s, struct error *err)
{
    char aside[4096];
    FILE *out;
    int code;

    if (!s->width || !s->height)
        return error_set(err, -EINVAL, "there is no picture to write to %s", path);
    if (snprintf(aside, sizeof aside, "%s.%d", path, (int)getpid()) >= (int)sizeof aside)
        return error_set(err, -ENAMETOOLONG, "the name of the screenshot is too long");
    out = fopen(aside, "wb");
    if (!out) {
        code = -errno;
        return error_set(err, code, "cannot write the screenshot %s: %s", path, strerror(-code));
    }
    code = write_stream(out, s);
    if (fclose(out) != 0 && !code)
        code = -errno;
    if (!code && rename(aside, path) != 0)
        code = -errno;
    if (code) {
        unlink(aside);
        return error_set(err, code, "cannot write the screenshot %s: %s", path, strerror(-code));
    }
    return 0;
}

static int text_shot(const struct display_source *source, const char *path, struct error *err)
{
    static const char *const notice[] = {"(the screen is blank)", "", "(a graphics mode)"};
    struct text_screen *t = calloc(1, sizeof *t);
    int code;

    if (!t)
        return error_set(err, -ENOMEM, "out of memory for a screenshot");
    if (!source->text(source->ctx, t)) {
        const char *words = notice[source->kind(source->ctx)];

        t->rows = 1;
        t->columns = (unsigned)strlen(words);
        for (unsigned i = 0; i < t->columns; i++)
            t->cell[i].character = (uint8_t)words[i];
    }
    code = text_screen_write(path, t, err);
    free(t);
    return code;
}

int display_shot(const struct display_source *source, const char *path, struct error *err)
{
    size_t length = strlen(path);
    struct surface s = {0};
    int code;

    if (length > 4 && !strcmp(path + length - 4, ".txt"))
        return text_shot(source, path, err);
    code = source->render(source->ctx, &s, true);
    if (code)
        error_set(err, code, "out of memory for a screenshot");
    else
        code = png_write(path, &s, err);
    surface_free(&s);
    return code;
}
