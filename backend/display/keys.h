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

#define KEY_SEQUENCE_MAX 16

/* All zero at first. */
struct key_parser {
    uint8_t sequence[KEY_SEQUENCE_MAX]; /* from its ESC on */
    unsigned length;
};

/* One byte more. True: *stroke has happened. */
bool key_parse(struct key_parser *p, uint8_t byte, struct key_stroke *stroke);
/* Is an ESC waiting that may be the key or begin a sequence? */
bool key_pending(const struct key_parser *p);
/* Nothing followed in time: what waits is the Escape key. */
bool key_timeout(struct key_parser *p, struct key_stroke *stroke);

#endif
