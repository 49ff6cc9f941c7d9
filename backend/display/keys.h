/*
 * From what a terminal sends to keys of a keyboard: characters of a US layout,
 * control characters, and the escape sequences of xterm, the Linux console and
 * their relatives.
 *
 * Threading: whoever owns the parser.
 */
#ifndef BACKEND_DISPLAY_KEYS_H
#define BACKEND_DISPLAY_KEYS_H

#include "base/base.h"

enum key_modifier {
    KEY_SHIFT = 1 << 0,
    KEY_ALT = 1 << 1,
    KEY_CTRL = 1 << 2,
};

/* A key that is pressed and released with modifiers held. */
struct key_stroke {
    uint16_t keycode; /* Linux' input event code; 0: none */
    uint8_t modifiers;
};

/* What a terminal says of its mouse (xterm's mode 1006). */
struct key_mouse {
    uint16_t column, row; /* from 1 on */
    uint16_t code;        /* enum key_mouse_code */
    bool released;
};

enum key_mouse_code {
    KEY_MOUSE_BUTTON = 3, /* left, middle, right, none */
    KEY_MOUSE_MOTION = 1 << 5,
    KEY_MOUSE_WHEEL = 1 << 6, /* up, down */
};

#define KEY_SEQUENCE_MAX 24

/* All zero at first. */
struct key_parser {
    uint8_t sequence[KEY_SEQUENCE_MAX]; /* from its ESC on */
    unsigned length;
    bool mouse_seen; /* by the last byte: not a key, but this */
    struct key_mouse mouse;
};

/* One byte more. True: *stroke has happened. */
bool key_parse(struct key_parser *p, uint8_t byte, struct key_stroke *stroke);
/* Is an ESC waiting that may be the key or begin a sequence? */
bool key_pending(const struct key_parser *p);
/* Nothing followed in time: what waits is the Escape key. */
bool key_timeout(struct key_parser *p, struct key_stroke *stroke);

#endif
