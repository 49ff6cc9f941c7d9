/*
 * A PS/2 mouse with three buttons, and as an IntelliMouse with a wheel and
 * five once the guest has knocked for it.
 */
#ifndef DEV_INPUT_PS2_MOUSE_H
#define DEV_INPUT_PS2_MOUSE_H

#include "dev/input/ps2.h"

struct ps2_mouse;

enum ps2_mouse_button {
    PS2_MOUSE_LEFT = 1 << 0,
    PS2_MOUSE_RIGHT = 1 << 1,
    PS2_MOUSE_MIDDLE = 1 << 2,
    PS2_MOUSE_4 = 1 << 3,
    PS2_MOUSE_5 = 1 << 4,
};

struct ps2_mouse *ps2_mouse_create(struct vm *vm, const char *name, struct error *err);
struct ps2_device *ps2_mouse_device(struct ps2_mouse *m);

/* Moved by (dx right, dy down, dz wheel towards the user) with these buttons
 * held now. Enters through vm_input. */
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons);

#endif
