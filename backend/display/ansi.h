/*
 * Screens for a terminal: cells of a character and two colours, and the escape
 * sequences (ECMA-48, xterm's) that bring a terminal from what it shows to
 * what it shall show.
 *
 * Threading: whoever owns the screen.
 */
#ifndef BACKEND_DISPLAY_ANSI_H
#define BACKEND_DISPLAY_ANSI_H

#include "backend/display/display.h"

#define ANSI_MAX_COLUMNS 512
#define ANSI_MAX_ROWS 256

/* Bytes to be written; failed: memory ran out, and some are missing. */
struct ansi_bytes {
    uint8_t *data;
    size_t used, capacity;
    bool failed;
};

struct ansi_cell {
    uint32_t ink, paper; /* 0x00RRGGBB */
    uint16_t code;       /* Unicode */
    uint16_t blinks;
};

/* All zero at first. */
struct ansi_screen {
    unsigned columns, rows;
    struct ansi_cell *wanted, *shown; /* rows of `columns` cells */
    bool known; /* the terminal shows `shown` */
    bool cursor_wanted, cursor_shown;
    unsigned cursor_column, cursor_row;
    unsigned cursor_at_column, cursor_at_row;
};

/* -ENOMEM leaves it of no size. A new size: nothing is known to be shown. */
int ansi_resize(struct ansi_screen *s, unsigned columns, unsigned rows);
void ansi_free(struct ansi_screen *s);

/* Fill `wanted`. What does not fit is cut; of a text screen the part with the
 * cursor is seen. */
void ansi_from_text(struct ansi_screen *s, const struct text_screen *t);
/* Two pixels a cell: upper half blocks. The image is scaled to fit. */
void ansi_from_image(struct ansi_screen *s, const struct surface *image);
/* A line in inverse colours at the bottom. */
void ansi_notice(struct ansi_screen *s, const char *text);

/* Appends the sequences and takes note of what is shown then. */
void ansi_draw(struct ansi_screen *s, struct ansi_bytes *out);
void ansi_put(struct ansi_bytes *out, const char *text);

#endif
