/*
 * What the VGA's registers mean: the mode, its colours, where on the screen the
 * beam is (IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem":
 * CRT and attribute controllers). See vga_internal.h.
 *
 * The image has the monitor's dots and lines: 320 x 200 is 640 x 400, as the
 * CRTC doubles lines and the attribute controller dots.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/display/vga_internal.h"

enum {
    BLANK_WIDTH = 640,
    BLANK_HEIGHT = 480,
    CLOCK_25 = 25175000, /* Hz */
    CLOCK_28 = 28322000,
    FRAMES_PER_SECOND = 60, /* of blinking */
    MAX_TEXT_COLUMNS = 256,
};

static unsigned v_display_end(const struct vga *v)
{
    unsigned overflow = v->crtc[CR_OVERFLOW];

    return v->crtc[CR_V_DISPLAY_END] | (overflow & 0x02) << 7 | (overflow & 0x40) << 3;
}

static unsigned line_compare(const struct vga *v)
{
    return v->crtc[CR_LINE_COMPARE] | (v->crtc[CR_OVERFLOW] & OVERFLOW_LINE_COMPARE) << 4 |
           (v->crtc[CR_MAX_SCAN] & MAX_SCAN_LINE_COMPARE) << 3;
}

static bool is_blank(const struct vga *v)
{
    return !(v->attribute_index & AR_INDEX_DISPLAY) ||
           (v->sequencer[SR_CLOCKING] & CLOCKING_SCREEN_OFF) || !v->enable;
}

static uint32_t font_offset(unsigned select)
{
    return (uint32_t)((select & 3) * 2 + (select >> 2 & 1)) * VGA_FONT_BYTES;
}

static void text_mode(const struct vga *v, struct vga_mode *m)
{
    unsigned fonts = v->sequencer[SR_FONTS];

    m->kind = VGA_TEXT;
    m->cell_width = v->sequencer[SR_CLOCKING] & CLOCKING_8_DOTS ? 8 : 9;
    m->width = m->columns * m->cell_width * m->dot_scale;
    m->font[0] = font_offset((fonts & 3) | (fonts >> 4 & 1) << 2);
    m->font[1] = font_offset((fonts >> 2 & 3) | (fonts >> 5 & 1) << 2);
    m->cursor = (uint32_t)(v->crtc[CR_CURSOR_HIGH] << 8 | v->crtc[CR_CURSOR_LOW]);
    m->cursor_first = v->crtc[CR_CURSOR_START] & 0x1F;
    m->cursor_last = v->crtc[CR_CURSOR_END] & 0x1F;
    m->cursor_on =
        !(v->crtc[CR_CURSOR_START] & CURSOR_OFF) && m->cursor_first <= m->cursor_last;
    m->underline = v->crtc[CR_UNDERLINE] & 0x1F;
    /* With 9 dots a value of 8 is the unmoved screen (and 0 one dot). */
    if (m->cell_width == 9)
        m->pan = (m->pan & 15) >= 8 ? 0 : m->pan + 1;
    else
        m->pan &= 7;
}

static void graphics_mode(const struct vga *v, struct vga_mode *m)
{
    unsigned mode = v->graphics[GR_MODE], crtc = v->crtc[CR_MODE];
    unsigned word = !(crtc & CRTC_BYTE_MODE);

    m->map13 = !(crtc & CRTC_NO_MAP13);
    m->map14 = !(crtc & CRTC_NO_MAP14);
    m->map13_bit = 13 - word; /* see vga_internal.h: offsets have no holes */
    m->map14_bit = 14 - word;
    if (mode & MODE_256) {
        m->kind = VGA_256;
        m->dot_scale *= 2;
        m->pan = m->pan >> 1 & 3;
        m->width = m->columns * 4 * m->dot_scale;
        return;
    }
    m->kind = mode & MODE_INTERLEAVE ? VGA_CGA : VGA_PLANAR;
    m->pan &= 7;
    m->width = m->columns * 8 * m->dot_scale;
}

static void dispi_mode(const struct vga *v, struct vga_mode *m)
{
    struct dispi_mode d;

    vga_dispi_mode(v, &d);
    m->kind = d.bits == 4 ? VGA_PLANAR : VGA_PACKED;
    m->bits = d.bits;
    m->width = d.width;
    m->height = d.height;
    m->dot_scale = 1;
    m->columns = d.width / 8;
    m->cell_height = 1;
    m->start = d.bits == 4 ? d.start / 4 : d.start;
    m->pitch = d.bits == 4 ? d.pitch / 4 : d.pitch;
    m->offset_mask = d.bits == 4 ? v->vram_mask >> 2 : v->vram_mask;
    m->split_line = d.height;
}

void vga_mode_get(const struct vga *v, struct vga_mode *m)
{
    memset(m, 0, sizeof *m); /* padding too: modes are compared as bytes */
    m->plane_enable = v->attribute[AR_PLANE_ENABLE] & 15;
    if (is_blank(v)) {
        m->kind = VGA_BLANK;
        m->width = BLANK_WIDTH;
        m->height = BLANK_HEIGHT;
        return;
    }
    if (v->dispi[DISPI_ENABLE] & DISPI_ENABLED) {
        dispi_mode(v, m);
        return;
    }
    m->columns = MIN(v->crtc[CR_H_DISPLAY_END] + 1u, (unsigned)MAX_TEXT_COLUMNS);
    m->height = v_display_end(v) + 1;
    m->dot_scale = v->sequencer[SR_CLOCKING] & CLOCKING_HALF ? 2 : 1;
    m->cell_height = (v->crtc[CR_MAX_SCAN] & 0x1F) + 1;
    m->line_double = v->crtc[CR_MAX_SCAN] & MAX_SCAN_DOUBLE;
    m->start = (uint32_t)(v->crtc[CR_START_HIGH] << 8 | v->crtc[CR_START_LOW]) +
               (v->crtc[CR_PRESET_ROW] >> 5 & 3);
    m->pitch = v->crtc[CR_OFFSET] * 2u;
    m->offset_mask = VGA_PLANE_BYTES - 1;
    m->row_preset = v->crtc[CR_PRESET_ROW] & 0x1F;
    m->split_line = line_compare(v) + 1;
    m->pan = v->attribute[AR_PAN];
    m->pan_top_only = v->attribute[AR_MODE] & ATTRIBUTE_PAN_TOP_ONLY;
    m->blink = v->attribute[AR_MODE] & ATTRIBUTE_BLINK;
    m->line_graphics = v->attribute[AR_MODE] & ATTRIBUTE_LINE_GRAPHICS;
    m->mono = v->attribute[AR_MODE] & ATTRIBUTE_MONO;
    if (v->graphics[GR_MISC] & MISC_GRAPHICS)
        graphics_mode(v, m);
    else
        text_mode(v, m);
}

/* ---- colours ---- */

static uint32_t component(const struct vga *v, uint8_t value)
{
    if (v->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC)
        return value;
    value &= 0x3F;
    return (uint32_t)(value << 2 | value >> 4);
}

static uint32_t dac_colour(const struct vga *v, uint8_t index)
{
    const uint8_t *rgb = v->dac + (index & v->dac_mask) * 3;

    return component(v, rgb[0]) << 16 | component(v, rgb[1]) << 8 | component(v, rgb[2]);
}

void vga_palette256(const struct vga *v, uint32_t colour[256])
{
    for (unsigned i = 0; i < 256; i++)
        colour[i] = dac_colour(v, (uint8_t)i);
}

void vga_palette16(const struct vga *v, uint32_t colour[16])
{
    unsigned select = v->attribute[AR_COLOUR_SELECT];

    for (unsigned i = 0; i < 16; i++) {
        unsigned index = v->attribute[AR_PALETTE + i];

        if (v->attribute[AR_MODE] & ATTRIBUTE_SELECT_54)
            index = (index & 0x0F) | (select & 3) << 4;
        index |= (select & 0xC) << 4;
        colour[i] = dac_colour(v, (uint8_t)index);
    }
}

void vga_cell(const struct vga *v, uint32_t offset, uint8_t *character, uint8_t *attribute)
{
    const uint8_t *at;

    offset &= VGA_PLANE_BYTES - 1;
    if (v->text_live && offset < VGA_TEXT_BYTES / 2)
        at = v->text->host + offset * 2;
    else
        at = v->vram->host + (offset * 4 & v->vram_mask);
    *character = at[0];
    *attribute = at[1];
}

/* ---- time ---- */

uint64_t vga_frames(const struct vga *v)
{
    return clock_ticks(clock_now_ns(&v->vm->clock), FRAMES_PER_SECOND);
}

uint8_t vga_retrace_status(const struct vga *v)
{
    unsigned overflow = v->crtc[CR_OVERFLOW];
    unsigned dots = v->sequencer[SR_CLOCKING] & CLOCKING_8_DOTS ? 8 : 9;
    uint64_t line_dots = (v->crtc[CR_H_TOTAL] + 5u) * dots;
    uint64_t lines =
        (v->crtc[CR_V_TOTAL] | (overflow & 0x01) << 8 | (overflow & 0x20) << 4) + 2u;
    uint64_t shown = v_display_end(v) + 1u;
    uint64_t retrace = v->crtc[CR_V_RETRACE_START] | (overflow & 0x04) << 6 |
                       (overflow & 0x80) << 2;
    uint64_t hz = (v->misc >> MISC_CLOCK_SHIFT & 3) == 1 ? CLOCK_28 : CLOCK_25;
    uint64_t dot, line, length;
    uint8_t status = 0;

    if (v->sequencer[SR_CLOCKING] & CLOCKING_HALF)
        hz /= 2;
    /* Software waits for a retrace whatever was programmed: there is one. */
    shown = MIN(shown, lines - 1);
    if (retrace < shown || retrace >= lines)
        retrace = shown;
    length = (v->crtc[CR_V_RETRACE_END] - retrace) & 15;
    length = length ? length : 16;
    dot = clock_ticks(clock_now_ns(&v->vm->clock), hz) % (lines * line_dots);
    line = dot / line_dots;
    if (line >= shown || dot % line_dots >= (v->crtc[CR_H_DISPLAY_END] + 1u) * dots)
        status |= STATUS1_BLANKED;
    if (line >= retrace && line < retrace + length)
        status |= STATUS1_RETRACE;
    return status;
}
