/*
 * Keys out of a terminal's bytes, and escape sequences out of screens.
 */
#include <setjmp.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "backend/display/ansi.h"
#include "backend/display/keys.h"

#include <cmocka.h>

/* ---- keys ---- */

static void expect_keys(const char *bytes, size_t count, const struct key_stroke *want, size_t n)
{
    struct key_parser p = {.length = 0};
    struct key_stroke s;
    size_t got = 0;

    for (size_t i = 0; i < count; i++) {
        if (!key_parse(&p, (uint8_t)bytes[i], &s))
            continue;
        assert_true(got < n);
        assert_int_equal(s.keycode, want[got].keycode);
        assert_int_equal(s.modifiers, want[got].modifiers);
        got++;
    }
    assert_int_equal(got, n);
    assert_false(key_pending(&p));
}

#define EXPECT_KEYS(text, ...)                                                                     \
    do {                                                                                           \
        const struct key_stroke want[] = {__VA_ARGS__};                                            \
        expect_keys(text, sizeof(text) - 1, want, ARRAY_SIZE(want));                               \
    } while (0)

static void test_characters(void **state)
{
    EXPECT_KEYS("aZ1!", {30, 0}, {44, KEY_SHIFT}, {2, 0}, {2, KEY_SHIFT});
    EXPECT_KEYS("\r\t \x7f", {28, 0}, {15, 0}, {57, 0}, {14, 0});
    EXPECT_KEYS("\\|`~/?", {43, 0}, {43, KEY_SHIFT}, {41, 0}, {41, KEY_SHIFT}, {53, 0},
                {53, KEY_SHIFT});
    EXPECT_KEYS("\x03\x1d", {46, KEY_CTRL}, {27, KEY_CTRL});
    EXPECT_KEYS("\xc3\xa4x", {45, 0}); /* no such key */
}

static void test_sequences(void **state)
{
    EXPECT_KEYS("\033[A\033OB\033[1;5C", {103, 0}, {108, 0}, {106, KEY_CTRL});
    EXPECT_KEYS("\033[H\033[4~\033[5~\033[3;2~", {102, 0}, {107, 0}, {104, 0}, {111, KEY_SHIFT});
    EXPECT_KEYS("\033OP\033[15~\033[24~\033[[E\033[17;3~", {59, 0}, {63, 0}, {88, 0}, {63, 0},
                {64, KEY_ALT});
    EXPECT_KEYS("\033x\033[Z", {45, KEY_ALT}, {15, KEY_SHIFT});
    EXPECT_KEYS("\033[?1;2cq", {16, 0}); /* an answer, not a key */
}

static void test_lone_escape(void **state)
{
    struct key_parser p = {.length = 0};
    struct key_stroke s;

    assert_false(key_parse(&p, 0x1B, &s));
    assert_true(key_pending(&p));
    assert_true(key_timeout(&p, &s));
    assert_int_equal(s.keycode, 1);
    assert_false(key_pending(&p));
    /* Twice. */
    assert_false(key_parse(&p, 0x1B, &s));
    assert_true(key_parse(&p, 0x1B, &s));
    assert_int_equal(s.keycode, 1);
    assert_true(key_timeout(&p, &s));
    /* Alt-[ */
    assert_false(key_parse(&p, 0x1B, &s));
    assert_false(key_parse(&p, '[', &s));
    assert_true(key_timeout(&p, &s));
    assert_int_equal(s.keycode, 26);
    assert_int_equal(s.modifiers, KEY_ALT);
}

/* Whatever comes, it ends. */
static void test_random_bytes(void **state)
{
    struct key_parser p = {.length = 0};
    struct key_stroke s;
    uint64_t x = 88172645463325252ull;

    for (unsigned i = 0; i < 1000000; i++) {
        uint8_t byte;

        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        byte = x >> 8 & 3 ? (uint8_t)("\033[O;0123456789~A"[x >> 16 & 15]) : (uint8_t)(x >> 24);
        if (key_parse(&p, byte, &s) && s.keycode)
            assert_true(s.keycode < 128 && s.modifiers < 8);
        assert_true(p.length < KEY_SEQUENCE_MAX);
        if ((x >> 40) % 1000 == 0)
            key_timeout(&p, &s);
    }
}

/* ---- screens ---- */

static void expect_drawn(struct ansi_screen *s, const char *want)
{
    struct ansi_bytes out = {.data = NULL};

    ansi_draw(s, &out);
    ansi_put(&out, "");
    assert_false(out.failed);
    assert_int_equal(out.used, strlen(want));
    if (out.used)
        assert_memory_equal(out.data, want, out.used);
    free(out.data);
}

static void test_text_screen(void **state)
{
    static struct text_screen t;
    struct ansi_screen s = {.columns = 0};

    t.columns = 4;
    t.rows = 2;
    t.colour[7] = 0xAAAAAA;
    t.colour[1] = 0x0000AA;
    t.colour[14] = 0x123456;
    for (unsigned i = 0; i < 8; i++)
        t.cell[i] = (struct text_cell){' ', 7, 0, false};
    t.cell[1] = (struct text_cell){0xC9, 14, 1, false};
    assert_int_equal(ansi_resize(&s, 4, 2), 0);
    ansi_from_text(&s, &t);
    expect_drawn(&s, "\033[0m\033[2J\033[?25l\033[1;1H\033[0;37;40m "
                     "\033[0;38;2;18;52;86;44m\xE2\x95\x94\033[0;37;40m  \033[2;1H    ");
    expect_drawn(&s, "");
    /* One character and the cursor. */
    t.cell[6] = (struct text_cell){'x', 7, 0, true};
    t.cursor_visible = true;
    t.cursor_column = 3;
    t.cursor_row = 1;
    ansi_from_text(&s, &t);
    expect_drawn(&s, "\033[2;3H\033[0;5;37;40mx\033[2;4H\033[?25h");
    /* A smaller terminal shows where the cursor is. */
    assert_int_equal(ansi_resize(&s, 2, 1), 0);
    ansi_from_text(&s, &t);
    expect_drawn(&s, "\033[0m\033[2J\033[?25l\033[1;1H\033[0;5;37;40mx\033[0;37;40m "
                     "\033[1;2H\033[?25h");
    assert_int_equal(ansi_resize(&s, 0, 0), 0);
    ansi_from_text(&s, &t);
    ansi_notice(&s, "nowhere");
    ansi_free(&s);
}

static void test_image(void **state)
{
    uint32_t pixels[4] = {0xFFFFFF, 0x000000, 0x0000AA, 0x010203};
    struct surface image = {.width = 2, .height = 2, .pixels = pixels};
    struct ansi_screen s = {.columns = 0};

    assert_int_equal(ansi_resize(&s, 2, 1), 0);
    ansi_from_image(&s, &image);
    expect_drawn(&s, "\033[0m\033[2J\033[?25l\033[1;1H\033[0;97;44m\xE2\x96\x80"
                     "\033[0;30;48;2;1;2;3m\xE2\x96\x80");
    ansi_free(&s);
}

static void test_dirty_rectangles(void **state)
{
    struct surface s = {.width = 0};

    assert_int_equal(surface_resize(&s, 100, 100), 0);
    assert_int_equal(s.dirty_count, 1);
    assert_int_equal(surface_resize(&s, 100000, 1), -EINVAL);
    surface_clean(&s);
    surface_touch_rows(&s, 10, 5);
    surface_touch_rows(&s, 15, 5); /* touches: one */
    surface_touch_rows(&s, 90, 50);
    surface_touch_rows(&s, 100, 1); /* outside */
    assert_int_equal(s.dirty_count, 2);
    assert_int_equal(s.dirty[0].height, 10);
    assert_int_equal(s.dirty[1].height, 10);
    surface_clean(&s);
    for (unsigned i = 0; i < 40; i++)
        surface_touch(&s, (struct surface_rect){i % 7 * 12, i % 8 * 12, 1, 1});
    assert_true(s.dirty_count <= SURFACE_RECTS);
    surface_free(&s);
}

static bool mouse_of(const char *bytes, struct key_mouse *m)
{
    struct key_parser p = {.length = 0};
    struct key_stroke s;

    for (; *bytes; bytes++) {
        assert_false(key_parse(&p, (uint8_t)*bytes, &s));
        assert_int_equal(p.mouse_seen && bytes[1], 0);
    }
    *m = p.mouse;
    return p.mouse_seen;
}

static void test_mouse(void **state)
{
    struct key_mouse m;

    assert_true(mouse_of("\33[<35;120;40M", &m));
    assert_int_equal(m.code, 35);
    assert_int_equal(m.column, 120);
    assert_int_equal(m.row, 40);
    assert_false(m.released);
    assert_true(mouse_of("\33[<0;1;2m", &m));
    assert_true(m.released);
    assert_true(mouse_of("\33[<65;9999;9999M", &m));
    assert_int_equal(m.row, 9999);
    assert_false(mouse_of("\33[<35;120M", &m));
    assert_false(mouse_of("\33[<35;1;2;3M", &m));
    assert_false(mouse_of("\33[<35;1;2~", &m));
    assert_false(mouse_of("\33[<M", &m));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mouse),
        cmocka_unit_test(test_characters),   cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_lone_escape),  cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_text_screen),  cmocka_unit_test(test_image),
        cmocka_unit_test(test_dirty_rectangles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
