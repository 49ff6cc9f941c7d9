/*
 * The 82093AA I/O APIC as in the ICH9. See ioapic.c.
 *
 * Threading: everything with the machine's lock held.
 */
#ifndef DEV_IRQ_IOAPIC_H
#define DEV_IRQ_IOAPIC_H

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct ioapic;

#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_PINS 24

struct ioapic_config {
    /* Where interrupt messages go. They have MSI's format: destination and
     * its mode in the address, vector, delivery mode (ExtINT, NMI, SMI and
     * INIT too), level and trigger mode in the data. */
    struct irq_message_port port;
    uint64_t base; /* 0: IOAPIC_BASE */
};

/* 4 KiB of memory at base. NULL when there is no memory. */
struct ioapic *ioapic_create(struct vm *vm, const struct ioapic_config *config, struct error *err);

/* Pin n, 0..23. A level means "asserted", whatever polarity is programmed. */
struct irq_line ioapic_input(struct ioapic *io, unsigned n);

/* Has a processor not looked at pin n's last interrupt yet? */
bool ioapic_waiting(const struct ioapic *io, unsigned pin);

/* A local APIC broadcast the end of a level-triggered interrupt. */
void ioapic_eoi(void *io, uint8_t vector);

#endif
