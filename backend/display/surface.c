/*
 * Images in memory and what has changed of them. Interface: display.h.
 *
 * Dirty rectangles are kept few: one that touches another is merged with it,
 * and when there is no room all become their bounding box.
 *
 * Threading: whoever owns the surface.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/display/display.h"

void surface_clean(struct surface *s)
{
    s->dirty_count = 0;
}

void surface_free(struct surface *s)
{
    free(s->pixels);
    memset(s, 0, sizeof *s);
}

int surface_resize(struct surface *s, unsigned width, unsigned height)
{
    size_t count = (size_t)width * height;

    if (s->width == width && s->height == height)
        return 0;
    if (width > SURFACE_MAX_SIDE || height > SURFACE_MAX_SIDE)
        return -EINVAL;
    if (count > s->capacity) {
        uint32_t *pixels = realloc(s->pixels, count * sizeof *pixels);

        if (!pixels) {
            s->width = s->height = 0;
            s->dirty_count = 0;
            return -ENOMEM;
        }
        s->pixels = pixels;
        s->capacity = count;
    }
    s->width = width;
    s->height = height;
    if (count)
        memset(s->pixels, 0, count * sizeof *s->pixels);
    s->dirty_count = 0;
    surface_touch_rows(s, 0, height);
    return 0;
}

static struct surface_rect join(struct surface_rect a, struct surface_rect b)
{
    unsigned x = MIN(a.x, b.x), y = MIN(a.y, b.y);

    return (struct surface_rect){x, y, MAX(a.x + a.width, b.x + b.width) - x,
                                 MAX(a.y + a.height, b.y + b.height) - y};
}

static bool touches(struct surface_rect a, struct surface_rect b)
{
    return a.x <= b.x + b.width && b.x <= a.x + a.width && a.y <= b.y + b.height &&
           b.y <= a.y + a.height;
}

void surface_touch(struct surface *s, struct surface_rect r)
{
    if (r.x >= s->width || r.y >= s->height || !r.width || !r.height)
        return;
    r.width = MIN(r.width, s->width - r.x);
    r.height = MIN(r.height, s->height - r.y);
    for (unsigned i = 0; i < s->dirty_count; i++) {
        if (touches(s->dirty[i], r)) {
            s->dirty[i] = join(s->dirty[i], r);
            return;
        }
    }
    if (s->dirty_count == SURFACE_RECTS) {
        for (unsigned i = 0; i < s->dirty_count; i++)
            r = join(r, s->dirty[i]);
        s->dirty_count = 0;
    }
    s->dirty[s->dirty_count++] = r;
}

void surface_touch_rows(struct surface *s, unsigned y, unsigned height)
{
    surface_touch(s, (struct surface_rect){0, y, s->width, height});
}
