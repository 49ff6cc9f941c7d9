/*
 * Keys out of a terminal's bytes; see keys.h.
 *
 * Sequences: ESC [ parameters letter, ESC O letter, ESC [ [ letter (the Linux
 * console's F1 to F5), ESC character (Alt), ESC [ < three numbers M or m (the
 * mouse). In parameters the second number
 * minus one is xterm's set of modifiers, which has our bits.
 *
 * Threading: whoever owns the parser.
 */
#include "backend/display/keys.h"

enum {
    ESC = 0x1B,
    DEL = 0x7F,
    CODE_ESC = 1,
    CODE_BACKSPACE = 14,
    CODE_TAB = 15,
    CODE_ENTER = 28,
    CODE_SPACE = 57,
    CODE_F1 = 59,
    CODE_F11 = 87,
    CODE_F12 = 88,
    CODE_KEYPAD_ENTER = 96,
    CODE_HOME = 102,
    CODE_UP = 103,
    CODE_PAGE_UP = 104,
    CODE_LEFT = 105,
    CODE_RIGHT = 106,
    CODE_END = 107,
    CODE_DOWN = 108,
    CODE_PAGE_DOWN = 109,
    CODE_INSERT = 110,
    CODE_DELETE = 111,
};

/* The printing keys of a US keyboard in the order of their codes from 2 on. */
static const char plain[] = "1234567890-=\b\tqwertyuiop[]\n\001asdfghjkl;'`\001\\zxcvbnm,./";
static const char shifted[] = "!@#$%^&*()_+\b\tQWERTYUIOP{}\n\001ASDFGHJKL:\"~\001|ZXCVBNM<>?";
#define FIRST_PLAIN 2

static bool stroke_of_character(uint8_t c, struct key_stroke *s)
{
    const char *at;

    *s = (struct key_stroke){0, 0};
    switch (c) {
    case '\r':
    case '\n':
        s->keycode = CODE_ENTER;
        return true;
    case '\t':
        s->keycode = CODE_TAB;
        return true;
    case ' ':
        s->keycode = CODE_SPACE;
        return true;
    case DEL:
    case '\b':
        s->keycode = CODE_BACKSPACE;
        return true;
    case ESC:
        s->keycode = CODE_ESC;
        return true;
    case 0: /* Ctrl-space, or Ctrl-@ */
        *s = (struct key_stroke){CODE_SPACE, KEY_CTRL};
        return true;
    default:
        break;
    }
    if (c < 0x20) {
        bool ok = stroke_of_character(c <= 26 ? c - 1 + 'a' : c + 0x40, s);

        /* Ctrl-^ and Ctrl-_ need shift on this layout; keep it. */
        s->modifiers |= KEY_CTRL;
        return ok;
    }
    if (c >= 0x80)
        return false;
    at = strchr(plain, c);
    if (at) {
        s->keycode = (uint16_t)(FIRST_PLAIN + (at - plain));
        return true;
    }
    at = strchr(shifted, c);
    if (!at)
        return false;
    *s = (struct key_stroke){(uint16_t)(FIRST_PLAIN + (at - shifted)), KEY_SHIFT};
    return true;
}

/* ---- sequences ---- */

static uint16_t code_of_letter(uint8_t letter)
{
    switch (letter) {
    case 'A':
        return CODE_UP;
    case 'B':
        return CODE_DOWN;
    case 'C':
        return CODE_RIGHT;
    case 'D':
        return CODE_LEFT;
    case 'F':
        return CODE_END;
    case 'H':
        return CODE_HOME;
    case 'M':
        return CODE_KEYPAD_ENTER;
    case 'P':
    case 'Q':
    case 'R':
    case 'S':
        return (uint16_t)(CODE_F1 + letter - 'P');
    case 'Z':
        return CODE_TAB; /* with shift */
    default:
        return 0;
    }
}

static uint16_t code_of_number(unsigned n)
{
    /* From 11 on, with the gaps that a VT220's keyboard has. */
    static const uint8_t function[] = {CODE_F1,     CODE_F1 + 1, CODE_F1 + 2, CODE_F1 + 3,
                                       CODE_F1 + 4, 0,           CODE_F1 + 5, CODE_F1 + 6,
                                       CODE_F1 + 7, CODE_F1 + 8, CODE_F1 + 9, 0,
                                       CODE_F11,    CODE_F12};
    static const uint8_t editing[] = {0,        CODE_HOME,    CODE_INSERT,    CODE_DELETE, CODE_END,
                                      CODE_PAGE_UP, CODE_PAGE_DOWN, CODE_HOME,   CODE_END};

    if (n < ARRAY_SIZE(editing))
        return editing[n];
    return n >= 11 && n - 11 < ARRAY_SIZE(function) ? function[n - 11] : 0;
}

/* ESC [ < code ; column ; row M, or m where a button was released. */
static bool mouse_of_csi(const uint8_t *sequence, unsigned length, struct key_mouse *m)
{
    unsigned number[3] = {0, 0, 0}, n = 0;
    uint8_t final = sequence[length - 1];

    for (unsigned i = 3; i + 1 < length; i++) {
        if (sequence[i] == ';' && n < 2)
            n++;
        else if (sequence[i] >= '0' && sequence[i] <= '9')
            number[n] = (number[n] * 10 + sequence[i] - '0') % 10000;
        else
            return false;
    }
    *m = (struct key_mouse){.column = (uint16_t)number[1],
                            .row = (uint16_t)number[2],
                            .code = (uint16_t)number[0],
                            .released = final == 'm'};
    return n == 2 && (final == 'M' || final == 'm');
}

/* A whole CSI sequence. */
static struct key_stroke stroke_of_csi(const uint8_t *sequence, unsigned length)
{
    unsigned number[2] = {0, 0}, n = 0;
    uint8_t final = sequence[length - 1];
    struct key_stroke s = {0, 0};

    if (sequence[2] == '[') { /* ESC [ [ A */
        s.keycode = final >= 'A' && final <= 'E' ? (uint16_t)(CODE_F1 + final - 'A') : 0;
        return s;
    }
    for (unsigned i = 2; i + 1 < length; i++) {
        if (sequence[i] == ';' && n == 0)
            n = 1;
        else if (sequence[i] >= '0' && sequence[i] <= '9')
            number[n] = (number[n] * 10 + sequence[i] - '0') % 1000;
        else
            return s;
    }
    s.keycode = final == '~' ? code_of_number(number[0]) : code_of_letter(final);
    if (number[1])
        s.modifiers = (number[1] - 1) & (KEY_SHIFT | KEY_ALT | KEY_CTRL);
    if (final == 'Z')
        s.modifiers |= KEY_SHIFT;
    return s;
}

static bool is_final(const struct key_parser *p, uint8_t byte)
{
    if (p->length == 3 && byte == '[')
        return false; /* the Linux console's */
    return byte >= 0x40 && byte <= 0x7E;
}

/* With an ESC seen. */
static bool parse_sequence(struct key_parser *p, uint8_t byte, struct key_stroke *s)
{
    *s = (struct key_stroke){0, 0};
    if (p->length == 1 && byte == ESC) {
        s->keycode = CODE_ESC; /* and a second one waits */
        return true;
    }
    p->sequence[p->length++] = byte;
    if (p->length == 2) {
        if (byte == '[' || byte == 'O')
            return false;
        p->length = 0;
        if (!stroke_of_character(byte, s))
            return false;
        s->modifiers |= KEY_ALT;
        return true;
    }
    if (p->sequence[1] == 'O') {
        s->keycode = code_of_letter(byte);
        p->length = 0;
        return s->keycode;
    }
    if (is_final(p, byte) && p->sequence[2] == '<') {
        p->mouse_seen = mouse_of_csi(p->sequence, p->length, &p->mouse);
        p->length = 0;
        return false;
    }
    if (is_final(p, byte)) {
        *s = stroke_of_csi(p->sequence, p->length);
        p->length = 0;
        return s->keycode;
    }
    if (p->length == KEY_SEQUENCE_MAX)
        p->length = 0; /* nobody's */
    return false;
}

bool key_parse(struct key_parser *p, uint8_t byte, struct key_stroke *stroke)
{
    p->mouse_seen = false;
    if (p->length)
        return parse_sequence(p, byte, stroke);
    if (byte == ESC) {
        p->sequence[p->length++] = byte;
        return false;
    }
    return stroke_of_character(byte, stroke);
}

bool key_pending(const struct key_parser *p)
{
    return p->length;
}

bool key_timeout(struct key_parser *p, struct key_stroke *stroke)
{
    bool lone = p->length == 1, bracket = p->length == 2;
    uint8_t second = p->sequence[1];

    p->length = 0;
    if (bracket) { /* Alt-[ or Alt-O */
        bool ok = stroke_of_character(second, stroke);

        stroke->modifiers |= KEY_ALT;
        return ok;
    }
    *stroke = (struct key_stroke){CODE_ESC, 0};
    return lone;
}
