/*
 * The 8042 keyboard controller: ports 60H and 64H (IBM PS/2 Hardware Interface
 * Technical Reference, "Keyboard and Auxiliary Device Controller"), with a
 * keyboard on the first port and, if given, a mouse on the second.
 *
 * Its reset line is the processor's INIT# on a PC: it pulses the line the board
 * gives, and asks for a machine reset when the board gives none. Address line
 * 20 is never masked; its bit of the output port reads back.
 */
#ifndef DEV_INPUT_I8042_H
#define DEV_INPUT_I8042_H

#include "dev/input/ps2.h"

struct i8042_config {
    struct irq_line keyboard_irq; /* IRQ 1 */
    struct irq_line mouse_irq;    /* IRQ 12 */
    struct irq_line init;
    struct ps2_device *keyboard; /* NULL: nothing is plugged in */
    struct ps2_device *mouse;
};

struct i8042;

struct i8042 *i8042_create(struct vm *vm, const struct i8042_config *config, struct error *err);

#endif
