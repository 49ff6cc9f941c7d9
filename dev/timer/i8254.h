/*
 * The 8254 interval timer with the PC's port 61H. See i8254.c.
 *
 * Threading: everything with the machine's lock held.
 */
#ifndef DEV_TIMER_I8254_H
#define DEV_TIMER_I8254_H

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct i8254;

#define I8254_HZ 1193182ull

struct i8254_config {
    struct irq_line irq0; /* OUT of counter 0 */
    struct irq_probe irq0_probe; /* may be empty: see catchup.h */
};

/* Ports 40H-43H and 61H. NULL when there is no memory. */
struct i8254 *i8254_create(struct vm *vm, const struct i8254_config *config, struct error *err);

/* Is the speaker being driven, and how high: for a sound back end or a test. */
bool i8254_speaker_enabled(const struct i8254 *pit);

#endif
