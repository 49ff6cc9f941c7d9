/*
 * A 101/102-key PS/2 keyboard: scan code sets 1, 2 and 3, all commands,
 * typematic repeat.
 */
#ifndef DEV_INPUT_PS2_KEYBOARD_H
#define DEV_INPUT_PS2_KEYBOARD_H

#include "dev/input/ps2.h"

struct ps2_keyboard;

/* name: the instance, a literal. */
struct ps2_keyboard *ps2_keyboard_create(struct vm *vm, const char *name, struct error *err);
struct ps2_device *ps2_keyboard_device(struct ps2_keyboard *k);

/* A key went down or up. keycode is Linux' input event code (KEY_A is 30).
 * Enters through vm_input; from the I/O thread or with the lock held. */
void ps2_keyboard_key(struct ps2_keyboard *k, uint16_t keycode, bool down);
/* The lamps as the guest set them: bit 0 scroll, 1 num, 2 caps lock. */
uint8_t ps2_keyboard_leds(const struct ps2_keyboard *k);

#endif
