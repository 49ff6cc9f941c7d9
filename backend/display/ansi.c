/*
 * From cells to escape sequences: only what differs from what is shown is
 * written. Interface: ansi.h.
 *
 * Colours that are a VGA's usual 16 use the terminal's own 16, which every
 * terminal has and a user may have chosen for his eyes; all others are 24-bit.
 *
 * Threading: whoever owns the screen.
 */
#include "backend/display/ansi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { HALF_BLOCK = 0x2580, SAMPLES = 3 };

static const uint32_t usual[16] = {
    0x000000, 0x0000AA, 0x00AA00, 0x00AAAA, 0xAA0000, 0xAA00AA, 0xAA5500, 0xAAAAAA,
    0x555555, 0x5555FF, 0x55FF55, 0x55FFFF, 0xFF5555, 0xFF55FF, 0xFFFF55, 0xFFFFFF,
};
/* ANSI counts red first. */
static const uint8_t ansi_of_vga[8] = {0, 4, 2, 6, 1, 5, 3, 7};

int ansi_resize(struct ansi_screen *s, unsigned columns, unsigned rows)
{
    size_t count;

    columns = MIN(columns, (unsigned)ANSI_MAX_COLUMNS);
    rows = MIN(rows, (unsigned)ANSI_MAX_ROWS);
    if (columns == s->columns && rows == s->rows)
        return 0;
    ansi_free(s);
    count = (size_t)columns * rows;
    s->wanted = calloc(count + 1, sizeof *s->wanted);
    s->shown = calloc(count + 1, sizeof *s->shown);
    if (!s->wanted || !s->shown) {
        ansi_free(s);
        return -ENOMEM;
    }
    s->columns = columns;
    s->rows = rows;
    return 0;
}

void ansi_free(struct ansi_screen *s)
{
    free(s->wanted);
    free(s->shown);
    memset(s, 0, sizeof *s);
}

/* ---- cells ---- */

static void clear(struct ansi_screen *s)
{
    for (size_t i = 0; i < (size_t)s->columns * s->rows; i++)
        s->wanted[i] = (struct ansi_cell){usual[7], usual[0], ' ', 0};
    s->cursor_wanted = false;
}

void ansi_from_text(struct ansi_screen *s, const struct text_screen *t)
{
    unsigned columns = MIN(s->columns, t->columns), rows = MIN(s->rows, t->rows);
    unsigned left = 0, top = 0;

    clear(s);
    if (!columns || !rows)
        return;
    if (t->cursor_visible) {
        if (t->cursor_row >= rows)
            top = t->cursor_row - rows + 1;
        if (t->cursor_column >= columns)
            left = t->cursor_column - columns + 1;
        s->cursor_wanted = true;
        s->cursor_column = t->cursor_column - left;
        s->cursor_row = t->cursor_row - top;
    }
    for (unsigned y = 0; y < rows; y++) {
        const struct text_cell *from = t->cell + (size_t)(top + y) * t->columns + left;
        struct ansi_cell *to = s->wanted + (size_t)y * s->columns;

        for (unsigned x = 0; x < columns; x++)
            to[x] = (struct ansi_cell){t->colour[from[x].foreground & 15],
                                       t->colour[from[x].background & 15],
                                       cp437_to_unicode(from[x].character), from[x].blinks};
    }
}

/* The mean of a few pixels of the box that x, y of columns x rows stands for. */
static uint32_t sample(const struct surface *i, unsigned x, unsigned y, unsigned columns,
                       unsigned rows)
{
    unsigned r = 0, g = 0, b = 0;

    for (unsigned n = 0; n < SAMPLES * SAMPLES; n++) {
        size_t px = (x * SAMPLES + n % SAMPLES) * (size_t)i->width / (columns * SAMPLES);
        size_t py = (y * SAMPLES + n / SAMPLES) * (size_t)i->height / (rows * SAMPLES);
        uint32_t pixel = i->pixels[py * i->width + px];

        r += pixel >> 16 & 0xFF;
        g += pixel >> 8 & 0xFF;
        b += pixel & 0xFF;
    }
    return r / (SAMPLES * SAMPLES) << 16 | g / (SAMPLES * SAMPLES) << 8 | b / (SAMPLES * SAMPLES);
}

void ansi_from_image(struct ansi_screen *s, const struct surface *image)
{
    unsigned columns = s->columns, rows = s->rows * 2;

    clear(s);
    if (!columns || !rows || !image->width || !image->height)
        return;
    /* As wide or as high as the terminal; half a cell is about square. */
    if ((uint64_t)image->width * rows > (uint64_t)image->height * columns)
        rows = (unsigned)MAX((uint64_t)image->height * columns / image->width, 1u);
    else
        columns = (unsigned)MAX((uint64_t)image->width * rows / image->height, 1u);
    for (unsigned y = 0; y < rows; y += 2) {
        struct ansi_cell *to = s->wanted + (size_t)(y / 2) * s->columns;

        for (unsigned x = 0; x < columns; x++) {
            to[x].code = HALF_BLOCK;
            to[x].ink = sample(image, x, y, columns, rows);
            to[x].paper = y + 1 < rows ? sample(image, x, y + 1, columns, rows) : 0;
        }
    }
}

void ansi_notice(struct ansi_screen *s, const char *text)
{
    struct ansi_cell *to;

    if (!s->rows)
        return;
    to = s->wanted + (size_t)(s->rows - 1) * s->columns;
    for (unsigned x = 0; x < s->columns; x++)
        to[x] = (struct ansi_cell){usual[0], usual[7], *text ? (uint8_t)*text++ : ' ', 0};
}

/* ---- sequences ---- */

static void put_bytes(struct ansi_bytes *out, const void *bytes, size_t count)
{
    if (!count)
        return;
    if (out->used + count > out->capacity) {
        size_t capacity = MAX(out->capacity * 2, (out->used + count) * 2);
        uint8_t *data = realloc(out->data, capacity);

        if (!data) {
            out->failed = true;
            return;
        }
        out->data = data;
        out->capacity = capacity;
    }
    memcpy(out->data + out->used, bytes, count);
    out->used += count;
}

void ansi_put(struct ansi_bytes *out, const char *text)
{
    put_bytes(out, text, strlen(text));
}

static void put_colour(struct ansi_bytes *out, uint32_t colour, bool paper)
{
    char text[32];

    for (unsigned i = 0; i < ARRAY_SIZE(usual); i++) {
        if (usual[i] == colour) {
            snprintf(text, sizeof text, ";%u",
                     (i < 8 ? 30u : 90u) + (paper ? 10u : 0u) + ansi_of_vga[i & 7]);
            ansi_put(out, text);
            return;
        }
    }
    snprintf(text, sizeof text, ";%d;2;%u;%u;%u", paper ? 48 : 38, colour >> 16 & 0xFF,
             colour >> 8 & 0xFF, colour & 0xFF);
    ansi_put(out, text);
}

static void put_style(struct ansi_bytes *out, const struct ansi_cell *c)
{
    ansi_put(out, c->blinks ? "\033[0;5" : "\033[0");
    put_colour(out, c->ink, false);
    put_colour(out, c->paper, true);
    ansi_put(out, "m");
}

static void put_position(struct ansi_bytes *out, unsigned column, unsigned row)
{
    char text[32];

    snprintf(text, sizeof text, "\033[%u;%uH", row + 1, column + 1);
    ansi_put(out, text);
}

/* Control codes of Unicode would be obeyed, not shown. */
static uint16_t printable(uint16_t code)
{
    return code < 0x20 || (code >= 0x7F && code < 0xA0) ? ' ' : code;
}

static bool same_style(const struct ansi_cell *a, const struct ansi_cell *b)
{
    return a->ink == b->ink && a->paper == b->paper && a->blinks == b->blinks;
}

void ansi_draw(struct ansi_screen *s, struct ansi_bytes *out)
{
    size_t count = (size_t)s->columns * s->rows, next = SIZE_MAX;
    const struct ansi_cell *style = NULL;
    bool drew = false;

    if (!s->known) {
        ansi_put(out, "\033[0m\033[2J\033[?25l");
        s->cursor_shown = false;
    }
    for (size_t i = 0; i < count; i++) {
        const struct ansi_cell *c = &s->wanted[i];
        uint8_t utf8[3];

        if (s->known && !memcmp(c, &s->shown[i], sizeof *c))
            continue;
        if (!drew && s->cursor_shown) {
            ansi_put(out, "\033[?25l");
            s->cursor_shown = false;
        }
        drew = true;
        if (i != next || i % s->columns == 0)
            put_position(out, (unsigned)(i % s->columns), (unsigned)(i / s->columns));
        if (!style || !same_style(style, c))
            put_style(out, c);
        style = c;
        put_bytes(out, utf8, utf8_put(utf8, printable(c->code)));
        s->shown[i] = *c;
        next = i + 1;
    }
    s->known = true;
    if (s->cursor_wanted &&
        (drew || !s->cursor_shown || s->cursor_at_column != s->cursor_column ||
         s->cursor_at_row != s->cursor_row)) {
        put_position(out, s->cursor_column, s->cursor_row);
        s->cursor_at_column = s->cursor_column;
        s->cursor_at_row = s->cursor_row;
    }
    if (s->cursor_wanted != s->cursor_shown)
        ansi_put(out, s->cursor_wanted ? "\033[?25h" : "\033[?25l");
    s->cursor_shown = s->cursor_wanted;
}
