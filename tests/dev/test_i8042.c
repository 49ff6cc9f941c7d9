/*
 * Keyboard controller, keyboard and mouse through ports 60H and 64H. What
 * SeaBIOS and Linux do to them is repeated at the end.
 */
#include "dev/input/i8042.h"
#include "dev/input/keymap.h"
#include "dev/input/ps2_keyboard.h"
#include "dev/input/ps2_mouse.h"
#include "tests/dev/harness.h"
#include "vm/internal.h"

enum { KEYBOARD_IRQ = 1, MOUSE_IRQ = 12, INIT = 20 };
enum { DEV_CONTROLLER, DEV_KEYBOARD, DEV_MOUSE };
enum { DATA = 0x60, COMMAND = 0x64 };
enum { OBF = 1, SYSTEM = 4, COMMAND_LAST = 8, AUX = 0x20, TIMEOUT = 0x40 };
/* Linux' input event codes. */
enum {
    KEY_ESC = 1,
    KEY_A = 30,
    KEY_LEFTSHIFT = 42,
    KEY_F7 = 65,
    KEY_SYSRQ = 99,
    KEY_RIGHTALT = 100,
    KEY_UP = 103,
    KEY_PAUSE = 119,
    KEY_LEFTCTRL = 29,
    KEY_LEFTALT = 56,
    KEY_NEXTSONG = 163
};

static void build_with(struct harness *h, bool keyboard, bool mouse)
{
    struct i8042_config config = {
        .keyboard_irq = harness_line(h, KEYBOARD_IRQ),
        .mouse_irq = harness_line(h, MOUSE_IRQ),
        .init = harness_line(h, INIT),
    };

    if (keyboard) {
        h->dev[DEV_KEYBOARD] = ps2_keyboard_create(h->vm, "keyboard", NULL);
        config.keyboard = ps2_keyboard_device(h->dev[DEV_KEYBOARD]);
    }
    if (mouse) {
        h->dev[DEV_MOUSE] = ps2_mouse_create(h->vm, "mouse", NULL);
        config.mouse = ps2_mouse_device(h->dev[DEV_MOUSE]);
    }
    h->dev[DEV_CONTROLLER] = i8042_create(h->vm, &config, NULL);
    assert_non_null(h->dev[DEV_CONTROLLER]);
}

static void build(struct harness *h)
{
    build_with(h, true, true);
}

static void build_bare(struct harness *h)
{
    build_with(h, false, false);
}

static void key(struct harness *h, uint16_t keycode, bool down)
{
    ps2_keyboard_key(h->dev[DEV_KEYBOARD], keycode, down);
}

static void expect(struct harness *h, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!(inb(h, COMMAND) & OBF))
            fail_msg("byte %zu of %zu is missing", i, count);
        assert_int_equal(inb(h, DATA), (uint8_t)bytes[i]);
    }
    if (inb(h, COMMAND) & OBF)
        fail_msg("there is %02x after %zu bytes", inb(h, DATA), count);
}
#define EXPECT(h, bytes) expect(h, bytes, sizeof(bytes) - 1)

/* Command byte: no interrupts, no translation unless asked. */
static void set_ctr(struct harness *h, uint8_t ctr)
{
    outb(h, COMMAND, 0x60);
    outb(h, DATA, ctr);
}

static void test_controller(void **state)
{
    struct harness *h = harness_create(build);

    assert_int_equal(inb(h, COMMAND), 0x10);
    outb(h, COMMAND, 0xAA);
    assert_int_equal(inb(h, COMMAND), 0x10 | OBF | SYSTEM | COMMAND_LAST);
    EXPECT(h, "\x55");
    outb(h, COMMAND, 0xAB);
    EXPECT(h, "\0");
    outb(h, COMMAND, 0xA9);
    EXPECT(h, "\0");
    set_ctr(h, 0xFF);
    outb(h, COMMAND, 0x20);
    EXPECT(h, "\x7F");
    assert_int_equal(inb(h, COMMAND) & (OBF | COMMAND_LAST), COMMAND_LAST);
    set_ctr(h, 0x30);
    assert_int_equal(inb(h, COMMAND) & (SYSTEM | COMMAND_LAST), 0);
    outb(h, COMMAND, 0xAE);
    outb(h, COMMAND, 0xA8);
    outb(h, COMMAND, 0x20);
    EXPECT(h, "\x00");
    outb(h, COMMAND, 0xAD);
    outb(h, COMMAND, 0xA7);
    outb(h, COMMAND, 0x20);
    EXPECT(h, "\x30");
    /* The rest of its memory. */
    outb(h, COMMAND, 0x7F);
    outb(h, DATA, 0x99);
    outb(h, COMMAND, 0x3F);
    EXPECT(h, "\x99");
    outb(h, COMMAND, 0xC0);
    EXPECT(h, "\xA0");
    /* Its halves in the status, until the next command. */
    outb(h, COMMAND, 0xC1);
    assert_int_equal(inb(h, COMMAND), COMMAND_LAST);
    outb(h, COMMAND, 0xC2);
    assert_int_equal(inb(h, COMMAND), 0xA0 | COMMAND_LAST);
    outb(h, COMMAND, 0xA4);
    assert_int_equal(inb(h, COMMAND) & 0xF0, 0x10);
    EXPECT(h, "\xF1");
    outb(h, COMMAND, 0xE0);
    EXPECT(h, "\x00");
    /* Unknown ones are silent; a command forgets one that waits for data. */
    outb(h, COMMAND, 0x60);
    outb(h, COMMAND, 0x93);
    outb(h, COMMAND, 0x20);
    EXPECT(h, "\x30");
    harness_destroy(h);
}

static void test_output_port(void **state)
{
    struct harness *h = harness_create(build);

    outb(h, COMMAND, 0xD0);
    EXPECT(h, "\xCF");
    outb(h, COMMAND, 0xDD);
    outb(h, COMMAND, 0xD0);
    EXPECT(h, "\xCD");
    outb(h, COMMAND, 0xD1);
    outb(h, DATA, 0xFF);
    outb(h, COMMAND, 0xD0);
    EXPECT(h, "\xCF");
    assert_int_equal(h->line[INIT].rises, 0);
    outb(h, COMMAND, 0xFF);
    assert_int_equal(h->line[INIT].rises, 0);
    outb(h, COMMAND, 0xFE);
    assert_int_equal(h->line[INIT].rises, 1);
    outb(h, COMMAND, 0xD1);
    outb(h, DATA, 0xCE);
    assert_int_equal(h->line[INIT].rises, 2);
    harness_destroy(h);
}

static void test_reset_without_init(void **state)
{
    struct harness *h = harness_create(build_bare);
    static const struct i8042_config none;

    i8042_create(h->vm, &none, NULL); /* hides the first */
    outb(h, COMMAND, 0xFE);
    assert_int_equal(atomic_exchange(&h->vm->run->requests, 0), REQUEST_RESET);
    /* Nothing plugged in: the byte times out. */
    outb(h, DATA, 0xFF);
    assert_int_equal(inb(h, COMMAND) & (OBF | TIMEOUT | AUX), OBF | TIMEOUT);
    EXPECT(h, "\xFE");
    outb(h, COMMAND, 0xD4);
    outb(h, DATA, 0xFF);
    assert_int_equal(inb(h, COMMAND) & (OBF | TIMEOUT | AUX), OBF | TIMEOUT | AUX);
    EXPECT(h, "\xFE");
    harness_destroy(h);
}

static void test_interrupts(void **state)
{
    struct harness *h = harness_create(build);
    unsigned rises;

    set_ctr(h, 3);
    key(h, KEY_A, true);
    key(h, KEY_A, false);
    assert_true(h->line[KEYBOARD_IRQ].level);
    rises = h->line[KEYBOARD_IRQ].rises;
    assert_int_equal(inb(h, DATA), 0x1C);
    assert_int_equal(h->line[KEYBOARD_IRQ].rises, rises + 1); /* an edge for each byte */
    inb(h, DATA);
    inb(h, DATA);
    assert_false(h->line[KEYBOARD_IRQ].level);
    assert_int_equal(h->line[KEYBOARD_IRQ].rises, rises + 2);
    set_ctr(h, 0);
    key(h, KEY_A, true);
    assert_false(h->line[KEYBOARD_IRQ].level);
    set_ctr(h, 1); /* enabling with a byte there */
    assert_true(h->line[KEYBOARD_IRQ].level);
    EXPECT(h, "\x1C");
    /* As if from the mouse. */
    set_ctr(h, 2);
    outb(h, COMMAND, 0xD3);
    outb(h, DATA, 0xA5);
    assert_true(h->line[MOUSE_IRQ].level);
    assert_int_equal(inb(h, COMMAND) & (OBF | AUX), OBF | AUX);
    outb(h, COMMAND, 0xD0);
    EXPECT(h, "\xA5\xEF"); /* D0 saw the mouse's byte in the buffer */
    assert_false(h->line[MOUSE_IRQ].level);
    outb(h, COMMAND, 0xD2);
    outb(h, DATA, 0x5A);
    assert_int_equal(inb(h, COMMAND) & (OBF | AUX), OBF);
    EXPECT(h, "\x5A");
    harness_destroy(h);
}

static void test_translation(void **state)
{
    struct harness *h = harness_create(build);

    /* As it is after power-on: a kernel without firmware reads set 1. */
    key(h, KEY_A, true);
    key(h, KEY_A, false);
    key(h, KEY_UP, true);
    key(h, KEY_UP, false);
    key(h, KEY_F7, true);
    EXPECT(h, "\x1E\x9E\xE0\x48\xE0\xC8\x41");
    key(h, KEY_F7, false);
    EXPECT(h, "\xC1");
    key(h, KEY_PAUSE, true);
    key(h, KEY_PAUSE, false);
    EXPECT(h, "\xE1\x1D\x45\xE1\x9D\xC5");
    key(h, KEY_SYSRQ, true);
    key(h, KEY_SYSRQ, false);
    EXPECT(h, "\xE0\x2A\xE0\x37\xE0\xB7\xE0\xAA");
    harness_destroy(h);
}

/* All the keys that set 1 numbers as Linux does, through the translation. */
static void test_every_key(void **state)
{
    struct harness *h = harness_create(build);

    for (unsigned code = 1; code < 255; code++) {
        uint16_t set1 = keymap_set1((uint16_t)code);

        if (code == KEY_PAUSE || code == KEY_SYSRQ || !set1)
            continue;
        key(h, (uint16_t)code, true);
        if (set1 & KEYMAP_E0)
            assert_int_equal(inb(h, DATA), 0xE0);
        assert_int_equal(inb(h, DATA), set1 & 0x7F);
        key(h, (uint16_t)code, false);
        if (set1 & KEYMAP_E0)
            assert_int_equal(inb(h, DATA), 0xE0);
        assert_int_equal(inb(h, DATA), (set1 & 0x7F) | 0x80);
        assert_int_equal(inb(h, COMMAND) & OBF, 0);
    }
    key(h, 0, true);
    key(h, 84, true); /* no such key */
    key(h, 255, true);
    key(h, 65535, true);
    EXPECT(h, "");
    harness_destroy(h);
}

static void test_scan_sets(void **state)
{
    struct harness *h = harness_create(build);

    set_ctr(h, 0);
    outb(h, DATA, 0xF0);
    outb(h, DATA, 0);
    EXPECT(h, "\xFA\xFA\x02");
    key(h, KEY_A, true);
    key(h, KEY_A, false);
    key(h, KEY_RIGHTALT, true);
    key(h, KEY_RIGHTALT, false);
    EXPECT(h, "\x1C\xF0\x1C\xE0\x11\xE0\xF0\x11");
    key(h, KEY_LEFTCTRL, true);
    key(h, KEY_PAUSE, true);
    key(h, KEY_LEFTCTRL, false);
    EXPECT(h, "\x14\xE0\x7E\xE0\xF0\x7E\xF0\x14");
    key(h, KEY_PAUSE, false);
    key(h, KEY_LEFTALT, true);
    key(h, KEY_SYSRQ, true);
    key(h, KEY_SYSRQ, false);
    key(h, KEY_LEFTALT, false);
    EXPECT(h, "\x11\x84\xF0\x84\xF0\x11");
    key(h, KEY_NEXTSONG, true);
    key(h, KEY_NEXTSONG, false);
    EXPECT(h, "\xE0\x4D\xE0\xF0\x4D");
    outb(h, DATA, 0xF0);
    outb(h, DATA, 1);
    key(h, KEY_UP, true);
    key(h, KEY_UP, false);
    key(h, KEY_ESC, true);
    EXPECT(h, "\xFA\xFA\xE0\x48\xE0\xC8\x01");
    key(h, KEY_ESC, false);
    EXPECT(h, "\x81");
    /* Set 3: types of keys. */
    outb(h, DATA, 0xF0);
    outb(h, DATA, 3);
    EXPECT(h, "\xFA\xFA");
    key(h, KEY_A, true);
    key(h, KEY_A, false);
    key(h, KEY_LEFTSHIFT, true);
    key(h, KEY_LEFTSHIFT, false);
    EXPECT(h, "\x1C\x12\xF0\x12");
    outb(h, DATA, 0xFC);
    outb(h, DATA, 0x1C); /* A breaks, too */
    outb(h, DATA, 0xF4);
    EXPECT(h, "\xFA\xFA\xFA");
    key(h, KEY_A, true);
    key(h, KEY_A, false);
    EXPECT(h, "\x1C\xF0\x1C");
    outb(h, DATA, 0xF9); /* all only make */
    key(h, KEY_LEFTSHIFT, true);
    key(h, KEY_LEFTSHIFT, false);
    EXPECT(h, "\xFA\x12");
    outb(h, DATA, 0xF0);
    outb(h, DATA, 4); /* there is no set 4 */
    EXPECT(h, "\xFA\xFE");
    harness_destroy(h);
}

static void test_keyboard_commands(void **state)
{
    struct harness *h = harness_create(build);

    set_ctr(h, 0);
    outb(h, DATA, 0xEE);
    EXPECT(h, "\xEE");
    outb(h, DATA, 0xF2);
    EXPECT(h, "\xFA\xAB\x83");
    outb(h, DATA, 0xED);
    outb(h, DATA, 0x07);
    EXPECT(h, "\xFA\xFA");
    assert_int_equal(ps2_keyboard_leds(h->dev[DEV_KEYBOARD]), 7);
    outb(h, DATA, 0xED);
    outb(h, DATA, 0xF4); /* a command instead of the argument */
    EXPECT(h, "\xFA\xFA");
    assert_int_equal(ps2_keyboard_leds(h->dev[DEV_KEYBOARD]), 7);
    outb(h, DATA, 0x12);
    EXPECT(h, "\xFE");
    outb(h, DATA, 0xF5);
    EXPECT(h, "\xFA");
    key(h, KEY_A, true);
    key(h, KEY_A, false);
    EXPECT(h, "");
    outb(h, DATA, 0xF4);
    EXPECT(h, "\xFA");
    key(h, KEY_A, true);
    key(h, KEY_A, false);
    outb(h, DATA, 0xED); /* replies overtake keys, but not the one in the buffer */
    EXPECT(h, "\x1C\xFA\xF0\x1C");
    outb(h, DATA, 0);
    EXPECT(h, "\xFA");
    outb(h, DATA, 0xFE);
    EXPECT(h, "\xFA"); /* the last again */
    outb(h, DATA, 0xFF);
    EXPECT(h, "\xFA\xAA");
    harness_destroy(h);
}

static void test_typematic(void **state)
{
    struct harness *h = harness_create(build);
    unsigned count = 0;

    set_ctr(h, 0);
    key(h, KEY_A, true);
    EXPECT(h, "\x1C");
    key(h, KEY_A, true); /* the sender's repeats do not count */
    EXPECT(h, "");
    harness_advance(h, 499 * NS_PER_MS);
    EXPECT(h, "");
    harness_advance(h, 2 * NS_PER_MS);
    EXPECT(h, "\x1C");
    harness_advance(h, 10 * NS_PER_SEC); /* nobody reads: no backlog */
    assert_int_equal(inb(h, DATA), 0x1C);
    while (inb(h, COMMAND) & OBF) {
        assert_int_equal(inb(h, DATA), 0x1C);
        count++;
    }
    assert_in_range(count, 0, 1);
    key(h, KEY_A, false);
    EXPECT(h, "\xF0\x1C");
    assert_int_equal(harness_next_ns(h), TIME_NEVER);
    /* The fastest: 250 ms, 30 a second. */
    outb(h, DATA, 0xF3);
    outb(h, DATA, 0);
    EXPECT(h, "\xFA\xFA");
    key(h, KEY_A, true);
    EXPECT(h, "\x1C");
    harness_advance(h, 251 * NS_PER_MS);
    for (unsigned i = 0; i < 30; i++) {
        EXPECT(h, "\x1C");
        harness_advance(h, NS_PER_SEC / 30 + 1);
    }
    key(h, KEY_ESC, true); /* another key takes over */
    EXPECT(h, "\x1C\x76");
    key(h, KEY_A, false);
    EXPECT(h, "\xF0\x1C");
    harness_advance(h, 251 * NS_PER_MS);
    EXPECT(h, "\x76");
    harness_destroy(h);
}

static void test_keyboard_overrun(void **state)
{
    struct harness *h = harness_create(build);
    unsigned count = 0;
    uint8_t last = 0xEE;

    set_ctr(h, 0x10); /* its port is off: it keeps what it has */
    for (unsigned i = 0; i < 100; i++) {
        key(h, KEY_A, true);
        key(h, KEY_A, false);
    }
    EXPECT(h, "");
    outb(h, COMMAND, 0xAE);
    for (; inb(h, COMMAND) & OBF; count++)
        last = inb(h, DATA);
    assert_in_range(count, 16, PS2_QUEUE_BYTES);
    assert_int_equal(last, 0);
    key(h, KEY_A, true);
    EXPECT(h, "\x1C");
    harness_destroy(h);
}

static void mouse(struct harness *h, uint8_t byte)
{
    outb(h, COMMAND, 0xD4);
    outb(h, DATA, byte);
}

static void mouse_ack(struct harness *h, uint8_t byte)
{
    mouse(h, byte);
    EXPECT(h, "\xFA");
}

static void test_mouse(void **state)
{
    struct harness *h = harness_create(build);
    struct ps2_mouse *m = h->dev[DEV_MOUSE];

    set_ctr(h, 2);
    mouse(h, 0xFF);
    assert_int_equal(inb(h, COMMAND) & AUX, AUX);
    assert_true(h->line[MOUSE_IRQ].level);
    EXPECT(h, "\xFA\xAA\x00");
    ps2_mouse_move(m, 5, 5, 0, 0); /* not enabled */
    EXPECT(h, "");
    mouse(h, 0xF4);
    EXPECT(h, "\xFA");
    ps2_mouse_move(m, 5, 3, 0, PS2_MOUSE_LEFT);
    EXPECT(h, "\x29\x05\xFD");
    ps2_mouse_move(m, -600, 0, 0, 0); /* more than a packet holds */
    EXPECT(h, "\x18\x01\x00\x18\x01\x00\x18\xA6\x00");
    mouse(h, 0xE9);
    EXPECT(h, "\xFA\x20\x02\x64");
    mouse_ack(h, 0xE8);
    mouse_ack(h, 3);
    mouse(h, 0xE9);
    mouse(h, 0xE9); /* a command drops what waits, but for the byte on its way */
    EXPECT(h, "\xFA\xFA\x20\x03\x64");
    /* The knock. */
    static const uint8_t wheel[] = {0xF3, 200, 0xF3, 100, 0xF3, 80};
    for (unsigned i = 0; i < sizeof wheel; i++)
        mouse_ack(h, wheel[i]);
    mouse(h, 0xF2);
    EXPECT(h, "\xFA\x03");
    ps2_mouse_move(m, 0, 0, -1, PS2_MOUSE_RIGHT);
    EXPECT(h, "\x0A\x00\x00\xFF");
    static const uint8_t five[] = {0xF3, 200, 0xF3, 200, 0xF3, 80};
    for (unsigned i = 0; i < sizeof five; i++)
        mouse_ack(h, five[i]);
    mouse(h, 0xF2);
    EXPECT(h, "\xFA\x04");
    ps2_mouse_move(m, 0, 0, 1, PS2_MOUSE_4);
    EXPECT(h, "\x08\x00\x00\x11");
    mouse(h, 0xF0); /* remote: only when asked */
    EXPECT(h, "\xFA");
    ps2_mouse_move(m, 7, 0, 0, 0);
    EXPECT(h, "");
    mouse(h, 0xEB);
    EXPECT(h, "\xFA\x08\x07\x00\x00");
    mouse(h, 0xEE);
    EXPECT(h, "\xFA");
    mouse(h, 0xF2);
    EXPECT(h, "\xF2"); /* wrap */
    mouse(h, 0xEC);
    EXPECT(h, "\xFA");
    mouse(h, 0x55);
    EXPECT(h, "\xFE");
    mouse(h, 0x55);
    EXPECT(h, "\xFC");
    harness_destroy(h);
}

static void test_two_devices(void **state)
{
    struct harness *h = harness_create(build);

    set_ctr(h, 0x30); /* both off */
    key(h, KEY_A, true);
    mouse(h, 0xF4); /* turns the mouse's port on */
    assert_int_equal(inb(h, COMMAND) & (OBF | AUX), OBF | AUX);
    EXPECT(h, "\xFA");
    ps2_mouse_move(h->dev[DEV_MOUSE], 1, 0, 0, 0);
    outb(h, COMMAND, 0xAE);
    /* First what is in the buffer, then the keyboard, then the mouse. */
    EXPECT(h, "\x08\x1C\x01\x00");
    harness_destroy(h);
}

/* src/hw/ps2port.c: flush, self test, port test, reset, set 2, translation. */
static void test_as_seabios_does(void **state)
{
    struct harness *h = harness_create(build);

    while (inb(h, COMMAND) & OBF)
        inb(h, DATA);
    outb(h, COMMAND, 0xA7);
    outb(h, COMMAND, 0xAD);
    assert_int_equal(inb(h, COMMAND) & 2, 0);
    outb(h, COMMAND, 0xAA);
    EXPECT(h, "\x55");
    outb(h, COMMAND, 0xAB);
    EXPECT(h, "\x00");
    set_ctr(h, 0x30);
    outb(h, DATA, 0xFF);
    EXPECT(h, "\xFA\xAA");
    outb(h, DATA, 0xF5);
    EXPECT(h, "\xFA");
    outb(h, DATA, 0xF0);
    EXPECT(h, "\xFA");
    outb(h, DATA, 0x02);
    EXPECT(h, "\xFA");
    set_ctr(h, 0x61);
    outb(h, DATA, 0xF4);
    EXPECT(h, "\xFA");
    assert_true(h->line[KEYBOARD_IRQ].rises > 0);
    key(h, KEY_ESC, true);
    EXPECT(h, "\x01");
    harness_destroy(h);
}

/* drivers/input/serio/i8042.c: selftest, AUX loop, mux probe, IRQ delivery. */
static void test_as_linux_does(void **state)
{
    struct harness *h = harness_create(build);

    outb(h, COMMAND, 0x20);
    EXPECT(h, "\x41");
    set_ctr(h, 0x70);
    outb(h, COMMAND, 0xAA);
    EXPECT(h, "\x55");
    outb(h, COMMAND, 0xD3);
    outb(h, DATA, 0x5A);
    assert_int_equal(inb(h, COMMAND) & AUX, AUX);
    EXPECT(h, "\x5A");
    outb(h, COMMAND, 0xA7);
    outb(h, COMMAND, 0x20);
    assert_int_equal(inb(h, DATA) & 0x20, 0x20);
    outb(h, COMMAND, 0xA8);
    outb(h, COMMAND, 0x20);
    assert_int_equal(inb(h, DATA) & 0x20, 0);
    static const uint8_t mux[] = {0xF0, 0x56, 0xA4};
    for (unsigned i = 0; i < 3; i++) {
        outb(h, COMMAND, 0xD3);
        outb(h, DATA, mux[i]);
        assert_int_equal(inb(h, DATA), mux[i]); /* echoes all three: no multiplexer */
    }
    set_ctr(h, 0x52);
    outb(h, COMMAND, 0xD3);
    outb(h, DATA, 0xA5);
    assert_true(h->line[MOUSE_IRQ].level);
    EXPECT(h, "\xA5");
    /* atkbd: GETID through the translation is AB 41. */
    set_ctr(h, 0x41);
    outb(h, DATA, 0xF2);
    EXPECT(h, "\xFA\xAB\x41");
    harness_destroy(h);
}

static uint64_t op(struct harness *h, uint64_t random)
{
    uint8_t value = (uint8_t)(random >> 32);

    switch (random % 10) {
    case 0:
        harness_advance(h, random >> 34);
        return 0;
    case 1:
    case 2:
        key(h, value & 0x7F, random >> 8 & 1);
        return 0;
    case 3:
        ps2_mouse_move(h->dev[DEV_MOUSE], (int32_t)(random >> 32), (int8_t)(random >> 16),
                       (int8_t)(random >> 24), value);
        return 0;
    case 4:
        outb(h, COMMAND, value);
        return h->line[INIT].rises;
    case 5:
        outb(h, DATA, value);
        return 0;
    case 6:
        outb(h, DATA, value | 0xE0);
        return 0;
    case 7:
        mouse(h, value | 0xE0);
        return 0;
    case 8:
        return inb(h, COMMAND);
    default:
        return inb(h, DATA);
    }
}

static void test_state(void **state)
{
    for (unsigned seed = 1; seed <= 5; seed++)
        harness_fuzz(build, op, 8000, seed);
}

static void poke(struct harness *h)
{
    for (unsigned i = 0; i < 40; i++) {
        inb(h, DATA);
        key(h, KEY_A, i & 1);
        ps2_mouse_move(h->dev[DEV_MOUSE], 3, 3, 0, i);
        outb(h, i & 2 ? COMMAND : DATA, (uint8_t)(0xD0 + i));
    }
    harness_jump(h, NS_PER_SEC);
    atomic_store(&h->vm->run->requests, 0);
}

static void test_damaged_state(void **state)
{
    struct harness *h = harness_create(build);

    key(h, KEY_A, true);
    mouse(h, 0xF4);
    harness_corrupt(h, poke);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_controller),
        cmocka_unit_test(test_output_port),
        cmocka_unit_test(test_reset_without_init),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_translation),
        cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_scan_sets),
        cmocka_unit_test(test_keyboard_commands),
        cmocka_unit_test(test_typematic),
        cmocka_unit_test(test_keyboard_overrun),
        cmocka_unit_test(test_mouse),
        cmocka_unit_test(test_two_devices),
        cmocka_unit_test(test_as_seabios_does),
        cmocka_unit_test(test_as_linux_does),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_damaged_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
