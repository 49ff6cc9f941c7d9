/*
 * The VGA's screen as pixels and as characters. See vga_internal.h, and
 * backend/display/display.h for who wants them.
 *
 * A walk over the scan lines, as the CRTC does it: each shows one scan line of
 * a row of memory. A line is drawn if what it shows may have changed since the
 * last time: in text modes the cells are compared with those drawn last, in
 * graphics modes the pages of video memory that were written (ram_log_take).
 *
 * Nothing a guest does can lead outside video memory or the image: offsets
 * are masked where memory is read, lines are as long as the image is wide.
 *
 * Threading: with the machine's lock held; incremental drawing on the I/O
 * thread only.
 */
#include "dev/display/vga_internal.h"

#include <errno.h>
#include <stdlib.h>

#define MAX_COLUMNS 257 /* one more shows in part when the screen is panned */
#define DRAWN_ROWS 256  /* whose cells are kept; what is below is always drawn */

enum {
    ATTRIBUTE_BLINKS = 0x80,
    ATTRIBUTE_FONT = 0x08,
    CURSOR_FRAMES_SHIFT = 3, /* on and off for 8 frames each */
    BLINK_FRAMES_SHIFT = 4,
    LINE_GRAPHICS_FIRST = 0xC0,
    LINE_GRAPHICS_LAST = 0xDF,
};

struct cell {
    uint8_t character, attribute, cursor, unused;
};

struct vga_drawn {
    bool valid;
    bool blink_off;
    struct vga_mode mode;
    uint32_t colour16[16], colour256[256];
    struct cell cells[DRAWN_ROWS][MAX_COLUMNS]; /* by row of memory */
    /* Of video memory, by page: may have been written since it was drawn. */
    bool has_log, any_written;
    uint8_t *written;
};

/* ---- the walk ---- */

struct scan {
    uint32_t offset; /* plane offset (VGA_PACKED: byte) where the line begins */
    unsigned row;    /* rows of memory shown before this one */
    unsigned line;   /* of its row */
    unsigned pan;
    bool again;      /* the second time of a doubled line */
};

static void scan_begin(struct scan *s, const struct vga_mode *m)
{
    *s = (struct scan){.offset = m->start, .line = m->row_preset, .pan = m->pan};
}

/* To scan line y, the one after the last. */
static void scan_next(struct scan *s, const struct vga_mode *m, unsigned y)
{
    if (y == m->split_line) {
        s->row++;
        s->offset = 0;
        s->line = 0;
        s->again = false;
        if (m->pan_top_only)
            s->pan = 0;
        return;
    }
    if (m->line_double && !s->again) {
        s->again = true;
        return;
    }
    s->again = false;
    if (s->line == m->cell_height - 1) {
        s->line = 0;
        s->row++;
        s->offset += m->pitch;
    } else {
        s->line = (s->line + 1) & 31;
    }
}

/* ---- graphics ---- */

/* Where a column of a line is: the CRTC's address, bits replaced. */
static uint32_t plane_offset(const struct vga_mode *m, const struct scan *s, uint32_t column)
{
    uint32_t offset = s->offset + column;

    if (m->map13)
        offset = (offset & ~(1u << m->map13_bit)) | (s->line & 1) << m->map13_bit;
    if (m->map14)
        offset = (offset & ~(1u << m->map14_bit)) | (s->line >> 1 & 1) << m->map14_bit;
    return offset & m->offset_mask;
}

static uint32_t word_at(const struct vga *v, const struct vga_mode *m, const struct scan *s,
                        uint32_t column)
{
    return le32_get(v->vram->host + (plane_offset(m, s, column) * 4 & v->vram_mask));
}

static uint32_t *put(uint32_t *to, uint32_t colour, unsigned scale)
{
    for (unsigned i = 0; i < scale; i++)
        *to++ = colour;
    return to;
}

static void draw_planar(const struct vga *v, const struct vga_drawn *d, const struct scan *s,
                        uint32_t *to)
{
    const struct vga_mode *m = &d->mode;
    const uint32_t *colour = d->colour16;
    unsigned pixels = m->columns * 8;
    uint32_t word = word_at(v, m, s, s->pan / 8);

    for (unsigned x = 0; x < pixels; x++) {
        unsigned n = x + s->pan, bit = 7 - n % 8, index;

        if (n % 8 == 0)
            word = word_at(v, m, s, n / 8);
        index = (word >> bit & 1) | (word >> (7 + bit) & 2) | (word >> (14 + bit) & 4) |
                (word >> (21 + bit) & 8);
        to = put(to, colour[index & m->plane_enable], m->dot_scale);
    }
}

/* Four pixels of plane 0 (and 2 above it), then four of plane 1 (and 3). */
static void draw_cga(const struct vga *v, const struct vga_drawn *d, const struct scan *s,
                     uint32_t *to)
{
    const struct vga_mode *m = &d->mode;
    const uint32_t *colour = d->colour16;
    unsigned pixels = m->columns * 8;

    for (unsigned x = 0; x < pixels; x++) {
        unsigned n = x + s->pan, shift = 6 - n % 4 * 2, index;
        uint32_t word = word_at(v, m, s, n / 8) >> (n & 4 ? 8 : 0);

        index = (word >> shift & 3) | (word >> (16 + shift) & 3) << 2;
        to = put(to, colour[index & m->plane_enable], m->dot_scale);
    }
}

static void draw_256(const struct vga *v, const struct vga_drawn *d, const struct scan *s,
                     uint32_t *to)
{
    const struct vga_mode *m = &d->mode;
    const uint32_t *colour = d->colour256;
    unsigned pixels = m->columns * 4;

    for (unsigned x = 0; x < pixels; x++) {
        unsigned n = x + s->pan;

        to = put(to, colour[word_at(v, m, s, n / 4) >> n % 4 * 8 & 0xFF], m->dot_scale);
    }
}

/* bits of a component, the lowest at shift, as 8 bits */
static uint32_t widen(uint32_t pixel, unsigned shift, unsigned bits)
{
    uint32_t value = pixel >> shift & ((1u << bits) - 1);

    return value << (8 - bits) | value >> (2 * bits - 8);
}

static uint32_t packed_colour(const struct vga_drawn *d, unsigned bits, const uint8_t *at)
{
    uint32_t pixel;

    switch (bits) {
    case 8:
        return d->colour256[at[0]];
    case 15:
        pixel = le16_get(at);
        return widen(pixel, 10, 5) << 16 | widen(pixel, 5, 5) << 8 | widen(pixel, 0, 5);
    case 16:
        pixel = le16_get(at);
        return widen(pixel, 11, 5) << 16 | widen(pixel, 5, 6) << 8 | widen(pixel, 0, 5);
    case 24:
        return (uint32_t)(at[2] << 16 | at[1] << 8 | at[0]);
    default:
        return le32_get(at) & 0xFFFFFF;
    }
}

static void draw_packed(const struct vga *v, const struct vga_drawn *d, const struct scan *s,
                        uint32_t *to)
{
    const struct vga_mode *m = &d->mode;
    unsigned bytes = (m->bits + 7) / 8;
    uint32_t length = m->width * bytes, offset = s->offset & m->offset_mask;
    const uint8_t *host = v->vram->host;

    /* The mode fits into memory (vga_dispi_mode); a line never wraps. */
    if (offset > v->vram_mask || length > v->vram_mask + 1ull - offset)
        return;
    for (unsigned x = 0; x < m->width; x++)
        to[x] = packed_colour(d, m->bits, host + offset + x * bytes);
}

/* ---- text ---- */

static void fetch_cells(const struct vga *v, const struct vga_mode *m, const struct scan *s,
                        bool cursor, struct cell cells[MAX_COLUMNS])
{
    for (unsigned i = 0; i <= m->columns; i++) {
        uint32_t offset = (s->offset + i) & m->offset_mask;

        cells[i].unused = 0;
        cells[i].cursor = cursor && m->cursor_on && offset == m->cursor;
        vga_cell(v, offset, &cells[i].character, &cells[i].attribute);
    }
}

/* The dots of a cell's scan line, the leftmost in bit 8; 9th dot in bit 0. */
static unsigned glyph_line(const struct vga *v, const struct vga_mode *m, const struct cell *c,
                           unsigned line)
{
    uint32_t at = m->font[c->attribute & ATTRIBUTE_FONT ? 1 : 0] + c->character * 32u + line;
    unsigned dots = v->vram->host[(at * 4 + VGA_FONT_PLANE) & v->vram_mask] << 1;

    /* Lines of boxes reach into the gap between characters. */
    if (m->line_graphics && c->character >= LINE_GRAPHICS_FIRST &&
        c->character <= LINE_GRAPHICS_LAST)
        dots |= dots >> 1 & 1;
    if (m->mono && line == m->underline && (c->attribute & 7) == 1)
        dots = 0x1FF;
    return dots;
}

static void draw_text(const struct vga *v, const struct vga_drawn *d, const struct scan *s,
                      const struct cell cells[MAX_COLUMNS], uint32_t *to)
{
    const struct vga_mode *m = &d->mode;
    unsigned skip = s->pan, left = m->columns * m->cell_width;

    for (unsigned i = 0; left && i <= m->columns; i++) {
        const struct cell *c = &cells[i];
        unsigned attribute = c->attribute, dots = glyph_line(v, m, c, s->line);
        uint32_t ink, paper;

        if (m->blink && (attribute & ATTRIBUTE_BLINKS)) {
            attribute &= ~(unsigned)ATTRIBUTE_BLINKS;
            if (d->blink_off)
                dots = 0;
        }
        if (c->cursor && s->line >= m->cursor_first && s->line <= m->cursor_last)
            dots = 0x1FF;
        ink = d->colour16[attribute & 15 & m->plane_enable];
        paper = d->colour16[attribute >> 4 & m->plane_enable];
        for (unsigned x = skip; left && x < m->cell_width; x++, left--)
            to = put(to, dots >> (8 - x) & 1 ? ink : paper, m->dot_scale);
        skip = 0;
    }
}

/* ---- drawing what is new ---- */

static void touch_line(struct surface *s, unsigned y)
{
    struct surface_rect *last = s->dirty_count ? &s->dirty[s->dirty_count - 1] : NULL;

    if (last && last->y + last->height == y && last->width == s->width)
        last->height++;
    else
        surface_touch_rows(s, y, 1);
}

static void draw_text_screen(const struct vga *v, struct vga_drawn *d, struct surface *s, bool all,
                             bool cursor)
{
    const struct vga_mode *m = &d->mode;
    struct cell now[MAX_COLUMNS];
    bool changed = true;
    unsigned row = UINT32_MAX;
    struct scan scan;

    scan_begin(&scan, m);
    for (unsigned y = 0; y < m->height; y++) {
        if (y)
            scan_next(&scan, m, y);
        if (scan.row != row) {
            struct cell *before = d->cells[MIN(scan.row, DRAWN_ROWS - 1u)];

            row = scan.row;
            fetch_cells(v, m, &scan, cursor, now);
            changed = all || row >= DRAWN_ROWS - 1u ||
                      memcmp(now, before, (m->columns + 1) * sizeof *now) != 0;
            memcpy(before, now, (m->columns + 1) * sizeof *now);
        }
        if (!changed)
            continue;
        draw_text(v, d, &scan, now, s->pixels + (size_t)y * s->width);
        touch_line(s, y);
    }
}

/* May what a line shows have been written? */
static bool line_written(const struct vga *v, const struct vga_drawn *d, const struct scan *s)
{
    const struct vga_mode *m = &d->mode;
    uint64_t first, bytes;

    if (!d->has_log)
        return true;
    if (!d->any_written)
        return false;
    if (m->kind == VGA_PACKED) {
        first = s->offset & m->offset_mask;
        bytes = (uint64_t)m->width * ((m->bits + 7) / 8);
    } else {
        uint32_t last = s->offset + m->columns;

        /* Address bits are replaced, or the offset wraps, somewhere within. */
        if ((s->offset ^ last) & ~0xFFFu & (m->map13 || m->map14 ? ~0u : ~m->offset_mask))
            return true;
        first = (uint64_t)plane_offset(m, s, 0) * 4;
        bytes = (uint64_t)(m->columns + 1) * 4;
    }
    for (uint64_t page = first >> 12; page <= (first + bytes - 1) >> 12; page++) {
        if (page > v->vram_mask >> 12 || d->written[page])
            return true;
    }
    return false;
}

static void draw_graphics_screen(const struct vga *v, const struct vga_drawn *d, struct surface *s,
                                 bool all)
{
    const struct vga_mode *m = &d->mode;
    struct scan scan;

    scan_begin(&scan, m);
    for (unsigned y = 0; y < m->height; y++) {
        uint32_t *to = s->pixels + (size_t)y * s->width;

        if (y)
            scan_next(&scan, m, y);
        if (!all && !line_written(v, d, &scan))
            continue;
        if (m->kind == VGA_PLANAR)
            draw_planar(v, d, &scan, to);
        else if (m->kind == VGA_CGA)
            draw_cga(v, d, &scan, to);
        else if (m->kind == VGA_256)
            draw_256(v, d, &scan, to);
        else
            draw_packed(v, d, &scan, to);
        touch_line(s, y);
    }
}

/* What drawing depends on, but for memory; true: it is as it was. */
static bool colours_same(const struct vga *v, struct vga_drawn *d)
{
    uint32_t colour16[16], colour256[256];
    bool same;

    vga_palette16(v, colour16);
    vga_palette256(v, colour256);
    same = !memcmp(colour16, d->colour16, sizeof colour16) &&
           !memcmp(colour256, d->colour256, sizeof colour256);
    memcpy(d->colour16, colour16, sizeof colour16);
    memcpy(d->colour256, colour256, sizeof colour256);
    return same;
}

/* The cursor moves and blinks without everything being drawn anew. */
static bool modes_same(struct vga_mode a, const struct vga_mode *b)
{
    a.cursor = b->cursor;
    return !memcmp(&a, b, sizeof a);
}

static int draw(struct vga *v, struct vga_drawn *d, struct surface *s, bool all, bool blink_off,
                bool cursor)
{
    struct vga_mode mode;
    int code;

    vga_mode_get(v, &mode);
    all |= !d->valid || !modes_same(mode, &d->mode) || d->blink_off != blink_off ||
           s->width != mode.width || s->height != mode.height;
    all |= !colours_same(v, d);
    d->mode = mode;
    d->blink_off = blink_off;
    d->valid = false;
    code = surface_resize(s, mode.width, mode.height);
    if (code)
        return code;
    d->valid = true;
    if (mode.kind == VGA_BLANK) {
        if (all) {
            memset(s->pixels, 0, (size_t)s->width * s->height * sizeof *s->pixels);
            surface_touch_rows(s, 0, s->height);
        }
        return 0;
    }
    if (mode.kind != VGA_TEXT)
        vga_text_flush(v);
    if (!all && d->has_log)
        d->any_written = ram_log_take(v->vram, d->written);
    if (mode.kind == VGA_TEXT) /* its font is in video memory */
        draw_text_screen(v, d, s, all || (d->has_log && d->any_written), cursor);
    else
        draw_graphics_screen(v, d, s, all);
    return 0;
}

static struct vga_drawn *drawn_create(struct vga *v, bool wants_log)
{
    struct vga_drawn *d = calloc(1, sizeof *d);

    if (!d)
        return NULL;
    if (wants_log) {
        d->written = malloc(v->vram->bytes >> 12);
        /* Without one all is drawn each time. */
        d->has_log = d->written && ram_log_start(v->vram) == 0;
    }
    return d;
}

static void drawn_free(struct vga_drawn *d)
{
    if (d)
        free(d->written);
    free(d);
}

int vga_render(void *self, struct surface *s, bool all)
{
    struct vga *v = self;
    uint64_t frames = vga_frames(v);
    struct vga_drawn *d;
    int code;

    if (all) {
        d = drawn_create(v, false);
        code = d ? draw(v, d, s, true, false, true) : -ENOMEM;
        drawn_free(d);
        return code;
    }
    if (!v->drawn)
        v->drawn = drawn_create(v, true);
    if (!v->drawn)
        return -ENOMEM;
    return draw(v, v->drawn, s, false, frames >> BLINK_FRAMES_SHIFT & 1,
                !(frames >> CURSOR_FRAMES_SHIFT & 1));
}

/* ---- as characters ---- */

enum display_kind vga_kind(void *self)
{
    struct vga_mode m;

    vga_mode_get(self, &m);
    return m.kind == VGA_BLANK ? DISPLAY_BLANK : m.kind == VGA_TEXT ? DISPLAY_TEXT
                                                                    : DISPLAY_GRAPHICS;
}

static void put_row(const struct vga *v, const struct vga_mode *m, const struct scan *s,
                    struct text_screen *t)
{
    struct text_cell *cell = t->cell + (size_t)t->rows * t->columns;

    for (unsigned i = 0; i < t->columns; i++) {
        uint32_t offset = (s->offset + i) & m->offset_mask;
        uint8_t attribute;

        vga_cell(v, offset, &cell[i].character, &attribute);
        cell[i].blinks = m->blink && (attribute & ATTRIBUTE_BLINKS);
        if (m->blink)
            attribute &= ~ATTRIBUTE_BLINKS;
        cell[i].foreground = attribute & 15 & m->plane_enable;
        cell[i].background = attribute >> 4 & m->plane_enable;
        if (offset == m->cursor && m->cursor_on) {
            t->cursor_visible = true;
            t->cursor_column = i;
            t->cursor_row = t->rows;
        }
    }
    t->rows++;
}

bool vga_text(void *self, struct text_screen *t)
{
    struct vga *v = self;
    struct vga_mode m;
    struct scan scan;
    unsigned row = UINT32_MAX;

    t->columns = t->rows = 0;
    t->cursor_visible = false;
    vga_mode_get(v, &m);
    if (m.kind != VGA_TEXT)
        return false;
    vga_palette16(v, t->colour);
    t->columns = MIN(m.columns, (unsigned)TEXT_MAX_COLUMNS);
    scan_begin(&scan, &m);
    for (unsigned y = 0; y < m.height && t->rows < TEXT_MAX_ROWS; y++) {
        if (y)
            scan_next(&scan, &m, y);
        if (scan.row != row)
            put_row(v, &m, &scan, t);
        row = scan.row;
    }
    return true;
}

void vga_drawn_free(struct vga *v)
{
    drawn_free(v->drawn);
    v->drawn = NULL;
}
