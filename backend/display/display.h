/*
 * What a display adapter shows, as whoever looks at it needs it: an image of
 * 32-bit pixels with the rectangles that have changed, and, in text modes, the
 * characters themselves.
 *
 * The adapter fills, a viewer (a file, a terminal, later a window or a network
 * client) reads. Threading: with the machine's lock held.
 */
#ifndef BACKEND_DISPLAY_DISPLAY_H
#define BACKEND_DISPLAY_DISPLAY_H

#include "base/base.h"
#include "base/error.h"

/* ---- an image ---- */

#define SURFACE_RECTS 16
#define SURFACE_MAX_SIDE 16384u

struct surface_rect {
    unsigned x, y, width, height;
};

/* All zero: an image of no size. */
struct surface {
    unsigned width, height;
    uint32_t *pixels; /* rows from the top, width pixels each: 0x00RRGGBB */
    size_t capacity;  /* pixels there is room for */
    /* What has changed since surface_clean; may cover more than that. */
    struct surface_rect dirty[SURFACE_RECTS];
    unsigned dirty_count;
};

/* A new size: all of it black and dirty; the old size: nothing happens.
 * -ENOMEM leaves it of no size. */
int surface_resize(struct surface *s, unsigned width, unsigned height);
/* These rows have changed; clipped to the image. */
void surface_touch_rows(struct surface *s, unsigned y, unsigned height);
void surface_touch(struct surface *s, struct surface_rect r);
void surface_clean(struct surface *s);
void surface_free(struct surface *s);

/* ---- a screen of characters ---- */

#define TEXT_MAX_COLUMNS 256
#define TEXT_MAX_ROWS 128

struct text_cell {
    uint8_t character; /* code page 437, unless the guest has loaded a font */
    uint8_t foreground, background; /* index of colour[] */
    bool blinks;
};

struct text_screen {
    unsigned columns, rows; /* 0: the screen is blank */
    struct text_cell cell[TEXT_MAX_ROWS * TEXT_MAX_COLUMNS]; /* rows of `columns` cells */
    bool cursor_visible;
    unsigned cursor_column, cursor_row;
    uint32_t colour[16]; /* 0x00RRGGBB */
};

/* Unicode of a character of code page 437 (0: a space). */
uint16_t cp437_to_unicode(uint8_t character);
/* UTF-8 of a code point below 10000H; the number of bytes, at most 3. */
unsigned utf8_put(uint8_t out[3], uint16_t code);

/* ---- the adapter ---- */

enum display_kind {
    DISPLAY_BLANK,
    DISPLAY_TEXT,
    DISPLAY_GRAPHICS,
};

/* What an adapter offers; ctx is the adapter's. */
struct display_source {
    enum display_kind (*kind)(void *ctx);
    /* Brings the image up to date, which was rendered before, and marks what has
     * changed; one viewer may do that. all: draws everything anew, with blinking
     * things visible, into any image and without a trace. -ENOMEM. */
    int (*render)(void *ctx, struct surface *s, bool all);
    /* False: this is no text mode. */
    bool (*text)(void *ctx, struct text_screen *t);
    void *ctx;
};

/* ---- files ---- */

/* A PNG of 8-bit RGB; a text as UTF-8, one line a row, trailing blanks cut. The
 * file appears whole or not at all. -errno with the line to print. */
int png_write(const char *path, const struct surface *s, struct error *err);
int text_screen_write(const char *path, const struct text_screen *t, struct error *err);

/* What is on the display now, into a file: its characters if the name ends in
 * .txt (in graphics modes a line that says so), else its picture. */
int display_shot(const struct display_source *source, const char *path, struct error *err);

#endif
