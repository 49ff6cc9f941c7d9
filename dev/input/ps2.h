/*
 * PS/2 devices as their controller sees them: bytes in, a queue of bytes out.
 * (IBM PS/2 Hardware Interface Technical Reference: keyboard, mouse.)
 */
#ifndef DEV_INPUT_PS2_H
#define DEV_INPUT_PS2_H

#include "vm/vm.h"

#define PS2_QUEUE_BYTES 64 /* of output waiting for the controller */

struct ps2_queue {
    uint8_t data[PS2_QUEUE_BYTES];
    uint8_t head, count;
};

extern const struct state_table ps2_queue_state;

void ps2_queue_clear(struct ps2_queue *q);
/* All of them or none: a key's codes are never torn apart. */
bool ps2_queue_put(struct ps2_queue *q, const uint8_t *data, unsigned count);
bool ps2_queue_get(struct ps2_queue *q, uint8_t *byte);
/* Hostile state: makes head and count legal; false if they were not. */
bool ps2_queue_is_valid(const struct ps2_queue *q);

/* Scan codes of set 2 as the 8042 translates them to set 1, and back (codes
 * below 80H; 0 if there is none). */
uint8_t ps2_set1_of_set2(uint8_t code);
uint8_t ps2_set2_of_set1(uint8_t code);

/* One end of the cable. The controller calls; the device calls ready(ctx)
 * when it has a byte, whenever that is. */
struct ps2_device {
    void *self;
    void (*write)(void *self, uint8_t byte); /* from the host */
    bool (*read)(void *self, uint8_t *byte); /* next byte for the host */
    /* Set by the controller. */
    void (*ready)(void *ctx);
    void *ready_ctx;
};

static inline void ps2_device_ready(struct ps2_device *d)
{
    if (d->ready)
        d->ready(d->ready_ctx);
}

#endif
