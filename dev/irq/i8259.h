/*
 * Two 8259A interrupt controllers, cascaded as in a PC, with the ICH9's
 * edge/level control registers. See i8259.c.
 *
 * Threading: everything with the machine's lock held.
 */
#ifndef DEV_IRQ_I8259_H
#define DEV_IRQ_I8259_H

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct i8259;

struct i8259_config {
    struct irq_line intr; /* the master's INT output: the processor's INTR pin */
};

/* Ports 20H-21H, A0H-A1H, 4D0H-4D1H. NULL when there is no memory. */
struct i8259 *i8259_create(struct vm *vm, const struct i8259_config *config, struct error *err);

/* ISA interrupt n, 0..15. Input 2 is the cascade: what is driven there is lost. */
struct irq_line i8259_input(struct i8259 *pic, unsigned n);

/* The processor's interrupt acknowledge cycle (both INTA pulses): the vector.
 * Always answers; a request that has gone gives the spurious IRQ 7 or 15. */
uint8_t i8259_ack(void *pic);

/* Is interrupt n, which is not masked, requested and not acknowledged? */
bool i8259_waiting(const struct i8259 *pic, unsigned n);

/* Level of the INT output. */
bool i8259_intr(const struct i8259 *pic);

#endif
