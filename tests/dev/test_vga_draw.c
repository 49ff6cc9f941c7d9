/*
 * The VGA's picture: modes are set as a BIOS does, memory is filled, and the
 * image is compared with small drawings made by hand, a character a pixel.
 *
 * The DAC is filled with greys: entry n is n << 2 | n >> 4 in each component,
 * so that '3' in a drawing is DAC entry 3 (hexadecimal digits; more below).
 */
#include "tests/dev/vga_fixture.h"

static uint32_t grey(unsigned n)
{
    n = n << 2 | n >> 4;
    return n << 16 | n << 8 | n;
}

static struct harness *create(const struct bios_mode *m)
{
    struct harness *h = create_vga();

    set_mode(h, m);
    for (unsigned i = 0; i < 64; i++)
        dac(h, (uint8_t)i, (uint8_t)i, (uint8_t)i, (uint8_t)i);
    for (unsigned i = 0; i < 16; i++)
        attr(h, (uint8_t)i, (uint8_t)i);
    attr(h, 0x10, m->attribute[0x10]);
    return h;
}

static void render(struct harness *h, struct surface *s)
{
    struct display_source source = vga_source(h->dev[DEV_VGA]);

    assert_int_equal(source.render(source.ctx, s, true), 0);
}

/* The image at (x, y), every step_x-th and step_y-th pixel of it. */
static void expect_drawing(struct harness *h, unsigned x, unsigned y, unsigned step_x,
                           unsigned step_y, const char *const rows[], unsigned count)
{
    struct surface s = {0};

    render(h, &s);
    for (unsigned j = 0; j < count; j++) {
        for (unsigned i = 0; rows[j][i]; i++) {
            unsigned px = x + i * step_x, py = y + j * step_y;
            char c = rows[j][i];
            unsigned n = c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);

            assert_true(px < s.width && py < s.height);
            if (s.pixels[py * s.width + px] != grey(n))
                fail_msg("row %u: %s: pixel %u is %06x", j, rows[j], i,
                         s.pixels[py * s.width + px]);
        }
    }
    surface_free(&s);
}

static void expect_size(struct harness *h, unsigned width, unsigned height)
{
    struct surface s = {0};

    render(h, &s);
    assert_int_equal(s.width, width);
    assert_int_equal(s.height, height);
    assert_int_equal(s.dirty_count, 1);
    assert_int_equal(s.dirty[0].height, height);
    surface_free(&s);
}

/* Byte of plane p at an offset, through BAR 0. */
static void set_plane(struct harness *h, unsigned p, unsigned offset, uint8_t value)
{
    mm_out(h, LFB + offset * 4 + p, value, 1);
}

static void set_glyph(struct harness *h, unsigned font, uint8_t character, const uint8_t *lines,
                      unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        set_plane(h, 2, font + character * 32u + i, lines[i]);
}

/* ---- text ---- */

static void test_text(void **state)
{
    /* 41H in attribute 1EH, C4H in 2FH (its 9th dot repeats the 8th), 41H in 07H */
    static const char *const first[] = {"E111111E1FFFFFFFFF700000070"};
    static const char *const second[] = {"1EEEEEE11222222222077777700"};
    static const char *const last[] = {"1111111E1222222222000000070"};
    static const uint8_t glyph_41[16] = {0x81, 0x7E, [15] = 0x01};
    static const uint8_t glyph_c4[16] = {0xFF, 0x00};
    struct harness *h = create(&mode_03);

    set_glyph(h, 0, 0x41, glyph_41, 16);
    set_glyph(h, 0, 0xC4, glyph_c4, 16);
    mm_out(h, 0xB8000, 0x1E41, 2);
    mm_out(h, 0xB8002, 0x2FC4, 2);
    mm_out(h, 0xB8004, 0x0741, 2);
    expect_size(h, 720, 400);
    /* The cursor is at cell 0, lines 13 and 14: elsewhere for this. */
    crtc(h, 0x0E, 0x07);
    expect_drawing(h, 0, 0, 1, 1, first, 1);
    expect_drawing(h, 0, 1, 1, 1, second, 1);
    expect_drawing(h, 0, 15, 1, 1, last, 1);
    /* Without line graphics the 9th dot is paper. */
    attr(h, 0x10, 0x08);
    expect_drawing(h, 9, 0, 1, 1, (const char *const[]){"FFFFFFFF2"}, 1);
    /* Eight dots. */
    seq(h, 1, 1);
    expect_size(h, 640, 400);
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"E111111EFFFFFFFF70000007"}, 1);
    /* Half the dot clock: everything twice as wide. */
    seq(h, 1, 9);
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"EE111111111111EEFF"}, 1);
    harness_destroy(h);
}

static void test_cursor_and_blink(void **state)
{
    static const uint8_t glyph[16] = {0x80};
    static const char *const cell[] = {
        "700000000", "000000000", "000000000", "000000000", "000000000", "000000000",
        "000000000", "000000000", "000000000", "000000000", "000000000", "000000000",
        "000000000", "777777777", "777777777", "000000000",
    };
    struct display_source source;
    struct surface s = {0};
    struct harness *h = create(&mode_03);

    source = vga_source(h->dev[DEV_VGA]);
    set_glyph(h, 0, 0x02, glyph, 16);
    mm_out(h, 0xB8000 + 81 * 2, 0x0702, 2);
    crtc(h, 0x0F, 81);
    expect_drawing(h, 9, 16, 1, 1, cell, 16);
    crtc(h, 0x0A, 0x2D); /* off */
    expect_drawing(h, 9, 29, 1, 1, cell + 15, 1);
    /* Bit 7 blinks, or is bright paper. */
    mm_out(h, 0xB8000 + 81 * 2, 0x9702, 2);
    expect_drawing(h, 9, 16, 1, 1, (const char *const[]){"711111111"}, 1);
    attr(h, 0x10, 0x04);
    expect_drawing(h, 9, 16, 1, 1, (const char *const[]){"799999999"}, 1);
    attr(h, 0x10, 0x0C);
    /* 16 frames of a 60th of a second on, 16 off. */
    assert_int_equal(source.render(source.ctx, &s, false), 0);
    assert_int_equal(s.pixels[16 * 720 + 9], grey(7));
    surface_clean(&s);
    harness_advance(h, 17 * 1000 * NS_PER_MS / 60);
    assert_int_equal(source.render(source.ctx, &s, false), 0);
    assert_int_equal(s.pixels[16 * 720 + 9], grey(1));
    assert_int_not_equal(s.dirty_count, 0);
    surface_free(&s);
    harness_destroy(h);
}

/* Drawn again, nothing is dirty; one cell changed, one row is. */
static void test_text_dirty(void **state)
{
    struct display_source source;
    struct surface s = {0};
    struct harness *h = create(&mode_03);

    source = vga_source(h->dev[DEV_VGA]);
    assert_int_equal(source.render(source.ctx, &s, false), 0);
    surface_clean(&s);
    assert_int_equal(source.render(source.ctx, &s, false), 0);
    assert_int_equal(s.dirty_count, 0);
    mm_out(h, 0xB8000 + 2 * (3 * 80 + 7), 0x1234, 2);
    assert_int_equal(source.render(source.ctx, &s, false), 0);
    assert_int_equal(s.dirty_count, 1);
    assert_int_equal(s.dirty[0].y, 48);
    assert_int_equal(s.dirty[0].height, 16);
    surface_free(&s);
    harness_destroy(h);
}

/* Two fonts, chosen by attribute bit 3. */
static void test_fonts(void **state)
{
    static const uint8_t one[] = {0xF0}, two[] = {0x0F};
    struct harness *h = create(&mode_03);

    crtc(h, 0x0A, 0x20);
    set_glyph(h, 0x4000, 0x41, one, 1); /* number 1: 16 KiB */
    set_glyph(h, 0x6000, 0x41, two, 1); /* number 5: 24 KiB */
    seq(h, 3, 0x01 | 0x04 | 0x20);      /* B: 1; A: 5 */
    mm_out(h, 0xB8000, 0x07410F41, 4);
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"0000FFFF0777700000"}, 1);
    harness_destroy(h);
}

static void test_scrolling(void **state)
{
    static const uint8_t lines[16] = {[0] = 0x80, [1] = 0x40, [2] = 0x20, [15] = 0x01};
    struct harness *h = create(&mode_03);

    crtc(h, 0x0A, 0x20);
    set_glyph(h, 0, 0x41, lines, 16);
    set_glyph(h, 0, 0x42, lines + 2, 1);
    mm_out(h, 0xB8000 + 2 * 160, 0x0741, 2); /* row 2 */
    mm_out(h, 0xB8000, 0x0742, 2);           /* row 0 */
    crtc(h, 0x0D, 160);
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"70000000", "07000000"}, 2);
    /* Two scan lines up. */
    crtc(h, 0x08, 2);
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"00700000", "00000000"}, 2);
    crtc(h, 0x08, 0);
    /* Pel panning with 9 dots: 8 is none, 0 is one. */
    attr(h, 0x13, 0);
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"00000000", "70000000"}, 2);
    attr(h, 0x13, 8);
    /* From line 32 on memory from 0. */
    crtc(h, 0x07, 0x0F);
    crtc(h, 0x09, 0x0F);
    crtc(h, 0x18, 31);
    expect_drawing(h, 0, 31, 1, 1, (const char *const[]){"00000000", "00700000"}, 2);
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"70000000"}, 1);
    harness_destroy(h);
}

/* ---- graphics ---- */

static void test_planar(void **state)
{
    struct harness *h = create(&mode_12);

    expect_size(h, 640, 480);
    set_plane(h, 0, 0, 0x55);
    set_plane(h, 1, 0, 0x33);
    set_plane(h, 2, 0, 0x0F);
    set_plane(h, 3, 1, 0xC3);
    set_plane(h, 0, 80, 0x01); /* line 1 */
    set_plane(h, 0, 81, 0x80);
    expect_drawing(h, 0, 0, 1, 1,
                   (const char *const[]){"0123456788000088", "0000000110000000"}, 2);
    attr(h, 0x13, 3); /* panned by 3 */
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"3456788000088", "0000110000000"}, 2);
    attr(h, 0x13, 0);
    attr(h, 0x12, 0x05); /* planes 0 and 2 */
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"0101454500000000"}, 1);
    attr(h, 0x12, 0x0F);
    crtc(h, 0x0D, 80); /* one line up */
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"0000000110000000"}, 1);
    crtc(h, 0x0D, 0);
    /* Split at line 100, the top panned alone. */
    crtc(h, 0x0D, 80);
    crtc(h, 0x18, 99);
    crtc(h, 0x07, 0x2E);
    crtc(h, 0x09, 0x00);
    attr(h, 0x10, 0x21);
    attr(h, 0x13, 7);
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"110000000"}, 1);
    expect_drawing(h, 0, 100, 1, 1,
                   (const char *const[]){"0123456788000088", "0000000110000000"}, 2);
    harness_destroy(h);
}

static void test_cga(void **state)
{
    struct harness *h = create(&mode_04);

    expect_size(h, 640, 400);
    /* Two bits a pixel; lines are doubled, odd ones are 2000H further. */
    mm_out(h, 0xB8000, 0xE41B, 2);
    mm_out(h, 0xB8000 + 80, 0x00FF, 2);
    mm_out(h, 0xBA000, 0x55AA, 2);
    expect_drawing(h, 0, 0, 2, 2,
                   (const char *const[]){"01233210", "22221111", "33330000"}, 3);
    expect_drawing(h, 1, 1, 2, 2,
                   (const char *const[]){"01233210", "22221111", "33330000"}, 3);
    harness_destroy(h);

    h = create(&mode_06);
    expect_size(h, 640, 400);
    mm_out(h, 0xB8000, 0xA5, 1);
    mm_out(h, 0xBA000, 0x0F, 1);
    mm_out(h, 0xB8000 + 80, 0x80, 1);
    expect_drawing(h, 0, 0, 1, 2, (const char *const[]){"10100101", "00001111", "10000000"}, 3);
    harness_destroy(h);
}

static void test_256(void **state)
{
    struct harness *h = create(&mode_13);

    expect_size(h, 640, 400);
    mm_out(h, 0xA0000, 0x04030201, 4);
    mm_out(h, 0xA0000 + 320, 0x0A0B0C0D, 4);
    expect_drawing(h, 0, 0, 2, 2, (const char *const[]){"12340", "DCBA0"}, 2);
    expect_drawing(h, 1, 1, 2, 2, (const char *const[]){"12340", "DCBA0"}, 2);
    outb(h, 0x3C6, 0x06); /* the mask of the DAC */
    expect_drawing(h, 0, 0, 2, 2, (const char *const[]){"02240"}, 1);
    outb(h, 0x3C6, 0xFF);
    attr(h, 0x13, 2); /* a pixel is two dots */
    expect_drawing(h, 0, 0, 2, 2, (const char *const[]){"2340"}, 1);
    attr(h, 0x13, 0);
    /* Mode X: unchained, 240 lines, two pages. */
    seq(h, 4, 6);
    crtc(h, 0x14, 0);
    crtc(h, 0x17, 0xE3);
    seq(h, 2, 2);
    mm_out(h, 0xA0000 + 0x4B00, 0x09, 1);
    crtc(h, 0x0C, 0x4B);
    expect_drawing(h, 0, 0, 2, 2, (const char *const[]){"0900"}, 1);
    harness_destroy(h);
}

static void test_packed(void **state)
{
    struct surface s = {0};
    struct harness *h = create(&mode_13);

    dispi_mode(h, 320, 200, 8);
    expect_size(h, 320, 200);
    mm_out(h, LFB + 320 * 2 + 5, 0x0605, 2);
    expect_drawing(h, 4, 2, 1, 1, (const char *const[]){"0560"}, 1);
    dispi(h, 6, 400); /* longer lines; a window into them */
    mm_out(h, LFB + 400 * 3 + 8, 0x0708, 2);
    dispi(h, 8, 8);
    dispi(h, 9, 3);
    expect_drawing(h, 0, 0, 1, 1, (const char *const[]){"870"}, 1);

    dispi_mode(h, 64, 32, 15);
    mm_out(h, LFB + 2, 0x001F7C00, 4);
    render(h, &s);
    assert_int_equal(s.pixels[1], 0xFF0000);
    assert_int_equal(s.pixels[2], 0x0000FF);
    dispi_mode(h, 64, 32, 16);
    mm_out(h, LFB, 0x841007E0, 4);
    render(h, &s);
    assert_int_equal(s.pixels[0], 0x00FF00);
    assert_int_equal(s.pixels[1], 0x848284);
    dispi_mode(h, 64, 32, 24);
    mm_out(h, LFB + 3, 0x112233, 4);
    render(h, &s);
    assert_int_equal(s.pixels[1], 0x112233);
    dispi_mode(h, 64, 32, 32);
    mm_out(h, LFB + 4 * (64 * 31 + 63), 0xFFABCDEF, 4);
    render(h, &s);
    assert_int_equal(s.pixels[64 * 31 + 63], 0xABCDEF);
    /* Screen off. */
    seq(h, 1, 0x21);
    render(h, &s);
    assert_int_equal(s.pixels[0], 0);
    assert_int_equal(s.width, 640);
    surface_free(&s);
    harness_destroy(h);
}

static void test_text_view(void **state)
{
    static struct text_screen t;
    struct display_source source;
    struct harness *h = create(&mode_03);
    uint8_t utf8[3];

    source = vga_source(h->dev[DEV_VGA]);
    assert_int_equal(source.kind(source.ctx), DISPLAY_TEXT);
    mm_out(h, 0xB8000 + 2 * (80 * 24 + 79), 0x9EB0, 2);
    crtc(h, 0x0E, (80 * 24 + 2) >> 8);
    crtc(h, 0x0F, (80 * 24 + 2) & 0xFF);
    assert_true(source.text(source.ctx, &t));
    assert_int_equal(t.columns, 80);
    assert_int_equal(t.rows, 25);
    assert_int_equal(t.cell[80 * 25 - 1].character, 0xB0);
    assert_int_equal(t.cell[80 * 25 - 1].foreground, 14);
    assert_int_equal(t.cell[80 * 25 - 1].background, 1);
    assert_true(t.cell[80 * 25 - 1].blinks);
    assert_true(t.cursor_visible);
    assert_int_equal(t.cursor_column, 2);
    assert_int_equal(t.cursor_row, 24);
    assert_int_equal(t.colour[5], grey(5));
    assert_int_equal(cp437_to_unicode(0xB0), 0x2591);
    assert_int_equal(cp437_to_unicode(0xCD), 0x2550);
    assert_int_equal(cp437_to_unicode(0x01), 0x263A);
    assert_int_equal(utf8_put(utf8, 0x2591), 3);
    assert_memory_equal(utf8, "\xE2\x96\x91", 3);
    set_mode(h, &mode_12);
    assert_false(source.text(source.ctx, &t));
    assert_int_equal(source.kind(source.ctx), DISPLAY_GRAPHICS);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),       cmocka_unit_test(test_cursor_and_blink),
        cmocka_unit_test(test_text_dirty), cmocka_unit_test(test_fonts),
        cmocka_unit_test(test_scrolling),  cmocka_unit_test(test_planar),
        cmocka_unit_test(test_cga),        cmocka_unit_test(test_256),
        cmocka_unit_test(test_packed),     cmocka_unit_test(test_text_view),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
