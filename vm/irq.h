/*
 * Interrupt lines: a small value the board hands to a device.
 *
 * A device drives its line's level and does not know what is behind it.
 * Threading: with the machine's lock held.
 */
#ifndef VM_IRQ_H
#define VM_IRQ_H

#include "base/base.h"

struct irq_line {
    void (*set)(void *ctx, unsigned number, bool level); /* NULL: not connected */
    void *ctx;
    unsigned number;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->ctx, line->number, level);
}

static inline void irq_raise(const struct irq_line *line)
{
    irq_set(line, true);
}

static inline void irq_lower(const struct irq_line *line)
{
    irq_set(line, false);
}

/* An edge. */
static inline void irq_pulse(const struct irq_line *line)
{
    irq_set(line, true);
    irq_set(line, false);
}

/*
 * What became of a line's last edge: does it still wait for a processor that has
 * not looked since? Apart from lines, because few devices may know.
 */
struct irq_probe {
    bool (*waiting)(void *ctx, unsigned number); /* NULL: nobody knows */
    void *ctx;
    unsigned number;
};

static inline bool irq_is_waiting(const struct irq_probe *probe)
{
    return probe->waiting && probe->waiting(probe->ctx, probe->number);
}

/*
 * A message-signalled interrupt, as MSI, MSI-X and the IOAPIC send it
 * (Intel SDM Vol. 3, "Message Signalled Interrupts": address FEExxxxxH).
 */
struct irq_message {
    uint64_t address;
    uint32_t data;
};

struct irq_message_port {
    void (*send)(void *ctx, struct irq_message message);
    void *ctx;
    /* Has a processor that gets this message one with its vector already, which
     * it has not looked at? May be NULL: nobody knows. */
    bool (*waiting)(void *ctx, struct irq_message message);
};

static inline void irq_message_send(const struct irq_message_port *port, struct irq_message m)
{
    if (port->send)
        port->send(port->ctx, m);
}

#endif
