/*
 * A 16550A UART (National Semiconductor PC16550D datasheet): 16-byte FIFOs,
 * all interrupts, modem control and loopback, on an ISA port and line.
 *
 * What the guest transmits is with the back end at once: the transmitter is
 * always empty. Received bytes are taken from the back end only as the FIFO
 * has room, so that nothing is lost however slowly the guest reads.
 */
#ifndef DEV_SERIAL_UART16550_H
#define DEV_SERIAL_UART16550_H

#include "backend/char/char.h"
#include "vm/vm.h"

struct uart16550_config {
    const char *name; /* instance, a literal: "serial0" */
    uint16_t port;    /* 3F8H */
    struct irq_line irq;
    struct char_backend *chars; /* NULL: nothing is connected; stays the caller's */
};

struct uart16550;

struct uart16550 *uart16550_create(struct vm *vm, const struct uart16550_config *config,
                                   struct error *err);
/* A break condition on the line: one null character with BI and FE. */
void uart16550_break(struct uart16550 *u);

#endif
