/*
 * The display in the user's terminal: text modes as characters with colours
 * and cursor, graphics modes as half blocks; keys from the terminal to the
 * guest's keyboard and, when the user wants it, the mouse to the guest's.
 *
 * The caller owns the descriptors, the terminal's modes, and what is written
 * when the terminal is taken (TERMINAL_ENTER) and given back (TERMINAL_LEAVE):
 * it has to happen on every way out.
 *
 * Threading: created and destroyed while the machine does not run; the rest
 * with the machine's lock held.
 */
#ifndef BACKEND_DISPLAY_TERMINAL_H
#define BACKEND_DISPLAY_TERMINAL_H

#include "backend/display/display.h"

struct vm;
struct display_terminal;

/* The alternate screen, no wrapping at its edge; and what was before, without
 * reports of the mouse. */
#define TERMINAL_ENTER "\033[?1049h\033[?7l\033[2J"
#define TERMINAL_LEAVE "\033[?1003l\033[?1006l\033[0m\033[?7h\033[?25h\033[?1049l"

struct display_terminal_config {
    int in, out;
    struct display_source source;
    /* A key of the guest's keyboard (Linux' input event code) went down or up. */
    void (*key)(void *ctx, uint16_t keycode, bool down);
    /* The mouse was moved by so many dots, right and down, the wheel turned towards
     * the user; buttons: of ps2_mouse_move. NULL: the guest has none. */
    void (*mouse)(void *ctx, int dx, int dy, int dz, unsigned buttons);
    /* Ctrl-A x. */
    void (*quit)(void *ctx);
    void *ctx;
};

struct display_terminal *display_terminal_create(struct vm *vm,
                                                 const struct display_terminal_config *config,
                                                 struct error *err);
/* Somebody else has written to the terminal: all is drawn anew. */
void display_terminal_redraw(struct display_terminal *t);
void display_terminal_destroy(struct display_terminal *t);

#endif
