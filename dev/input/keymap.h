/*
 * Keys by Linux' input event code, and their scan codes.
 */
#ifndef DEV_INPUT_KEYMAP_H
#define DEV_INPUT_KEYMAP_H

#include "base/base.h"

enum keymap_special {
    KEYMAP_SYSRQ = 99, /* Print Screen */
    KEYMAP_PAUSE = 119,
    KEYMAP_LEFT_CTRL = 29,
    KEYMAP_LEFT_SHIFT = 42,
    KEYMAP_RIGHT_SHIFT = 54,
    KEYMAP_LEFT_ALT = 56,
    KEYMAP_RIGHT_CTRL = 97,
    KEYMAP_RIGHT_ALT = 100,
};

#define KEYMAP_E0 0x100 /* the code follows an E0H */

/* Set 1 code of a key, with KEYMAP_E0; 0: a keyboard has no such key. Print
 * Screen and Pause have sequences of their own. */
uint16_t keymap_set1(uint16_t keycode);
/* Set 3 code, 0: none. */
uint8_t keymap_set3(uint16_t keycode);

#endif
