/*
 * The display in a terminal. Interface: terminal.h; cells and sequences are in
 * ansi.c, keys in keys.c.
 *
 * A timer looks at the screen, often while it changes and seldom while it does
 * not. A terminal that takes no more is waited for, and frames are left out
 * meanwhile, so that a slow line costs the guest nothing.
 *
 * Keys are given to the guest at the pace of a fast typist, because keyboard
 * controllers and the BIOS keep few of them.
 *
 * Threading: with the machine's lock held.
 */
#include "backend/display/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "backend/display/ansi.h"
#include "backend/display/keys.h"
#include "vm/loop.h"
#include "vm/vm.h"

enum {
    ESCAPE = 'A' & 0x1F, /* Ctrl-A */
    STROKES = 4096,      /* typed or pasted ahead */
    FAST_MS = 33,
    SLOW_MS = 100,
    GRAPHICS_MS = 80,
    STROKE_MS = 8,
    ESC_MS = 40,
    NOTICE_FRAMES = 50,
    IDLE_FRAMES = 15, /* without a change until the timer slows down */
    CODE_CTRL = 29,
    CODE_SHIFT = 42,
    CODE_ALT = 56,
    CODE_DELETE = 111,
    CELL_WIDTH = 8, /* dots that the mouse moves for a cell */
    CELL_HEIGHT = 16,
};

/* Every motion (1003), with numbers as text (1006). */
#define MOUSE_ON "\033[?1003h\033[?1006h"
#define MOUSE_OFF "\033[?1003l\033[?1006l"

static const char help_text[] =
    " Ctrl-A x: leave, the machine is lost   Ctrl-A Ctrl-A: Ctrl-A   Ctrl-A d: Ctrl-Alt-Del   "
    "Ctrl-A m: mouse   Ctrl-A l: redraw";

struct display_terminal {
    struct vm *vm;
    struct display_terminal_config config;
    int in, out; /* descriptions of our own, where that was possible */
    struct loop_fd *watch, *writable;
    struct timer frame, stroke, esc;

    struct text_screen text;
    struct surface image;
    struct ansi_screen screen;
    struct ansi_bytes bytes; /* written up to `written` */
    size_t written;
    unsigned idle, notice;

    struct key_parser parser;
    bool escape_seen;
    bool mouse_wanted, mouse_known; /* known: the terminal has been told */
    bool mouse_placed;              /* column and row are where it is */
    unsigned column, row, buttons;
    struct key_stroke strokes[STROKES];
    unsigned first, count;
};

/* ---- output ---- */

static void write_on(struct display_terminal *t);

static void can_write(void *ctx, int events)
{
    write_on(ctx);
}

static void write_on(struct display_terminal *t)
{
    while (t->written < t->bytes.used) {
        struct pollfd p = {.fd = t->out, .events = POLLOUT};
        ssize_t n;

        /* A description that is not ours may block: only when there is room. */
        if (poll(&p, 1, 0) <= 0)
            n = -1, errno = EAGAIN;
        else
            n = write(t->out, t->bytes.data + t->written,
                      MIN(t->bytes.used - t->written, (size_t)4096));
        if (n > 0) {
            t->written += (size_t)n;
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!t->writable)
                t->writable = loop_add_fd(t->vm, t->out, LOOP_WRITABLE, can_write, t, NULL);
            else
                loop_set_events(t->writable, LOOP_WRITABLE);
            return;
        } else {
            break; /* the terminal is gone; signals will tell */
        }
    }
    t->bytes.used = t->written = 0;
    if (t->writable)
        loop_set_events(t->writable, 0);
}

static bool fit_terminal(struct display_terminal *t)
{
    struct winsize size;

    if (ioctl(t->config.out, TIOCGWINSZ, &size) != 0 || !size.ws_col || !size.ws_row) {
        size.ws_col = 80;
        size.ws_row = 25;
    }
    return ansi_resize(&t->screen, size.ws_col, size.ws_row) == 0;
}

/* Brings the cells up to date; the time until the next look. */
static unsigned look(struct display_terminal *t)
{
    const struct display_source *source = &t->config.source;

    if (source->text(source->ctx, &t->text)) {
        ansi_from_text(&t->screen, &t->text);
        return FAST_MS;
    }
    if (source->kind(source->ctx) == DISPLAY_GRAPHICS) {
        if (source->render(source->ctx, &t->image, false) == 0) {
            surface_clean(&t->image);
            ansi_from_image(&t->screen, &t->image);
        }
        return GRAPHICS_MS;
    }
    t->text.columns = t->text.rows = 0;
    t->text.cursor_visible = false;
    ansi_from_text(&t->screen, &t->text);
    return FAST_MS;
}

static void arm_frame(struct display_terminal *t, unsigned ms)
{
    timer_arm(&t->frame, clock_now_ns(&t->vm->clock) + ms * NS_PER_MS);
}

static void frame(void *ctx)
{
    struct display_terminal *t = ctx;
    unsigned ms = FAST_MS;

    if (!t->bytes.used && fit_terminal(t)) {
        ms = look(t);
        if (t->notice) {
            t->notice--;
            ansi_notice(&t->screen, help_text);
        }
        ansi_draw(&t->screen, &t->bytes);
        if (!t->mouse_known)
            ansi_put(&t->bytes, t->mouse_wanted ? MOUSE_ON : MOUSE_OFF);
        t->mouse_known = true;
        if (t->bytes.failed) { /* what was shown is unknown now */
            t->bytes.failed = false;
            t->screen.known = false;
        }
        t->idle = t->bytes.used ? 0 : t->idle + 1;
        write_on(t);
    }
    if (t->idle > IDLE_FRAMES && !t->notice)
        ms = MAX(ms, (unsigned)SLOW_MS);
    arm_frame(t, ms);
}

void display_terminal_redraw(struct display_terminal *t)
{
    t->screen.known = false;
    t->mouse_known = !t->mouse_wanted; /* TERMINAL_LEAVE has switched it off */
    t->idle = 0;
}

/* ---- keys ---- */

static void press(struct display_terminal *t, const struct key_stroke *s)
{
    static const struct {
        uint8_t modifier;
        uint16_t keycode;
    } held[] = {{KEY_CTRL, CODE_CTRL}, {KEY_ALT, CODE_ALT}, {KEY_SHIFT, CODE_SHIFT}};
    void *ctx = t->config.ctx;

    for (unsigned i = 0; i < ARRAY_SIZE(held); i++) {
        if (s->modifiers & held[i].modifier)
            t->config.key(ctx, held[i].keycode, true);
    }
    t->config.key(ctx, s->keycode, true);
    t->config.key(ctx, s->keycode, false);
    for (unsigned i = ARRAY_SIZE(held); i-- > 0;) {
        if (s->modifiers & held[i].modifier)
            t->config.key(ctx, held[i].keycode, false);
    }
}

static void next_stroke(void *ctx)
{
    struct display_terminal *t = ctx;

    if (!t->count)
        return;
    press(t, &t->strokes[t->first]);
    t->first = (t->first + 1) % STROKES;
    t->count--;
    timer_arm(&t->stroke, clock_now_ns(&t->vm->clock) + STROKE_MS * NS_PER_MS);
    /* The answer shall be seen soon. */
    t->idle = 0;
    if (t->frame.deadline_ns > t->stroke.deadline_ns)
        arm_frame(t, STROKE_MS);
}

static void queue_stroke(struct display_terminal *t, struct key_stroke s)
{
    if (t->count == STROKES)
        return;
    t->strokes[(t->first + t->count++) % STROKES] = s;
    if (!timer_is_armed(&t->stroke))
        timer_arm(&t->stroke, clock_now_ns(&t->vm->clock));
}

/* ---- the mouse ---- */

/* The terminal tells cells, the guest wants dots. */
static void mouse(struct display_terminal *t, const struct key_mouse *m)
{
    static const uint8_t button[] = {1 << 0, 1 << 2, 1 << 1, 0}; /* as PS/2 has them */
    unsigned which = button[m->code & KEY_MOUSE_BUTTON];
    int dx = 0, dy = 0, dz = 0;

    if (!t->mouse_wanted)
        return;
    if (m->code & KEY_MOUSE_WHEEL) {
        dz = m->code & 1 ? 1 : -1;
    } else if (!(m->code & KEY_MOUSE_MOTION)) {
        t->buttons = m->released ? t->buttons & ~which : t->buttons | which;
    }
    if (t->mouse_placed) {
        dx = ((int)m->column - (int)t->column) * CELL_WIDTH;
        dy = ((int)m->row - (int)t->row) * CELL_HEIGHT;
    }
    t->mouse_placed = true;
    t->column = m->column;
    t->row = m->row;
    t->config.mouse(t->config.ctx, dx, dy, dz, t->buttons);
    t->idle = 0;
}

static void toggle_mouse(struct display_terminal *t)
{
    if (!t->config.mouse)
        return;
    t->mouse_wanted = !t->mouse_wanted;
    t->mouse_known = t->mouse_placed = false;
    t->idle = 0;
    if (t->buttons && !t->mouse_wanted)
        t->config.mouse(t->config.ctx, 0, 0, 0, 0);
    t->buttons = 0;
}

/* The byte after Ctrl-A. */
static void escaped(struct display_terminal *t, uint8_t c)
{
    struct key_stroke s;

    switch (c) {
    case ESCAPE:
        if (key_parse(&t->parser, c, &s))
            queue_stroke(t, s);
        break;
    case 'x':
    case 'X':
        t->config.quit(t->config.ctx);
        break;
    case 'd':
    case 'D':
        queue_stroke(t, (struct key_stroke){CODE_DELETE, KEY_CTRL | KEY_ALT});
        break;
    case 'm':
    case 'M':
        toggle_mouse(t);
        break;
    case 'l':
    case 'L':
        display_terminal_redraw(t);
        break;
    case 'h':
    case 'H':
    case '?':
        t->notice = NOTICE_FRAMES;
        t->idle = 0;
        break;
    default:
        break; /* a slip of the fingers */
    }
}

static void take(struct display_terminal *t, uint8_t byte)
{
    struct key_stroke s;

    if (t->escape_seen) {
        t->escape_seen = false;
        escaped(t, byte);
    } else if (byte == ESCAPE) {
        t->escape_seen = true;
    } else if (key_parse(&t->parser, byte, &s)) {
        queue_stroke(t, s);
    } else if (t->parser.mouse_seen) {
        mouse(t, &t->parser.mouse);
    }
}

static void esc_alone(void *ctx)
{
    struct display_terminal *t = ctx;
    struct key_stroke s;

    if (key_pending(&t->parser) && key_timeout(&t->parser, &s))
        queue_stroke(t, s);
}

static void can_read(void *ctx, int events)
{
    struct display_terminal *t = ctx;
    struct pollfd p = {.fd = t->in, .events = POLLIN};
    uint8_t buffer[256];

    for (;;) {
        ssize_t n;

        if (poll(&p, 1, 0) <= 0)
            break;
        n = read(t->in, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n <= 0) { /* the terminal is gone */
            loop_set_events(t->watch, 0);
            break;
        }
        for (ssize_t i = 0; i < n; i++)
            take(t, buffer[i]);
    }
    if (key_pending(&t->parser))
        timer_arm(&t->esc, clock_now_ns(&t->vm->clock) + ESC_MS * NS_PER_MS);
    else
        timer_cancel(&t->esc);
}

/* ---- life ---- */

/* A description of our own, so that O_NONBLOCK is ours alone. */
static int reopen(int fd, int mode)
{
    char path[32];
    int copy;

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    copy = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return copy < 0 ? fd : copy;
}

struct display_terminal *display_terminal_create(struct vm *vm,
                                                 const struct display_terminal_config *config,
                                                 struct error *err)
{
    struct display_terminal *t = calloc(1, sizeof *t);

    if (!t) {
        error_set(err, -ENOMEM, "out of memory for the display");
        return NULL;
    }
    t->vm = vm;
    t->config = *config;
    t->mouse_known = true; /* off */
    t->in = reopen(config->in, O_RDONLY);
    t->out = reopen(config->out, O_WRONLY);
    timer_init(&t->frame, vm, frame, t);
    timer_init(&t->stroke, vm, next_stroke, t);
    timer_init(&t->esc, vm, esc_alone, t);
    t->watch = loop_add_fd(vm, t->in, LOOP_READABLE, can_read, t, err);
    if (!t->watch) {
        display_terminal_destroy(t);
        return NULL;
    }
    arm_frame(t, 0);
    return t;
}

void display_terminal_destroy(struct display_terminal *t)
{
    if (!t)
        return;
    if (t->watch)
        loop_remove_fd(t->watch);
    if (t->writable)
        loop_remove_fd(t->writable);
    timer_destroy(&t->frame);
    timer_destroy(&t->stroke);
    timer_destroy(&t->esc);
    if (t->in != t->config.in)
        close(t->in);
    if (t->out != t->config.out)
        close(t->out);
    ansi_free(&t->screen);
    surface_free(&t->image);
    free(t->bytes.data);
    free(t);
}
