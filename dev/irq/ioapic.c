/*
 * The I/O APIC: 24 pins, each with a redirection entry.
 *
 * Follows: Intel 82093AA data sheet (order 290566), section 3; Intel ICH9
 * data sheet, section 13.5 (version 20H, with the EOI register).
 *
 * A pin's interrupt leaves as a message; since nothing on the way can refuse
 * it, the delivery status bit always reads idle. The polarity bit is kept but
 * changes nothing: the board's lines carry "asserted", not volts.
 *
 * Interface: ioapic.h. Threading: with the machine's lock held.
 */
#include "dev/irq/ioapic.h"

#include <errno.h>
#include <stdlib.h>

#include "vm/vm.h"

/* Memory-mapped registers. */
enum {
    IOAPIC_REG_SELECT = 0x00, /* IOREGSEL: 8 bits */
    IOAPIC_REG_WINDOW = 0x10, /* IOWIN: 32 bits, the selected register */
    IOAPIC_REG_EOI = 0x40,    /* 8 bits: a vector */
    IOAPIC_BYTES = 0x1000,
};

/* Indirect registers. */
enum {
    IOAPIC_ID = 0x00,
    IOAPIC_VERSION = 0x01,
    IOAPIC_ARBITRATION = 0x02,
    IOAPIC_REDIRECTION = 0x10, /* two for each pin */
};

enum {
    IOAPIC_ID_MASK = 0x0f000000,
    IOAPIC_VERSION_VALUE = 0x20 | (IOAPIC_PINS - 1) << 16,
};

/* A redirection entry. */
#define ENTRY_VECTOR 0xffull
#define ENTRY_DELIVERY_SHIFT 8 /* 3 bits, enum delivery_mode */
#define ENTRY_LOGICAL BIT(11)
#define ENTRY_DELIVERY_STATUS BIT(12) /* read-only, always idle */
#define ENTRY_ACTIVE_LOW BIT(13)
#define ENTRY_REMOTE_IRR BIT(14) /* read-only: sent, and no EOI yet */
#define ENTRY_LEVEL BIT(15)
#define ENTRY_MASKED BIT(16)
#define ENTRY_DESTINATION_SHIFT 56

#define ENTRY_WRITABLE_LOW 0x0001afffull
#define ENTRY_WRITABLE_HIGH 0xff00000000000000ull

enum delivery_mode {
    DELIVER_FIXED = 0,
    DELIVER_LOWEST = 1,
    DELIVER_SMI = 2,
    DELIVER_NMI = 4,
    DELIVER_INIT = 5,
    DELIVER_EXTINT = 7,
};

/* The message (SDM Vol. 3, "Message Signalled Interrupts"). */
#define MESSAGE_ADDRESS 0xfee00000ull
enum {
    MESSAGE_DESTINATION_SHIFT = 12,
    MESSAGE_REDIRECTION_HINT = 1 << 3,
    MESSAGE_LOGICAL = 1 << 2,
    MESSAGE_ASSERT = 1 << 14,
    MESSAGE_LEVEL = 1 << 15,
};

struct ioapic {
    struct vm *vm;
    struct irq_message_port port;
    struct region region;
    uint8_t select;
    uint32_t id;
    uint32_t lines; /* levels of the pins */
    uint64_t entry[IOAPIC_PINS];
};

static enum delivery_mode entry_delivery(uint64_t entry)
{
    return (enum delivery_mode)(entry >> ENTRY_DELIVERY_SHIFT & 7);
}

/* Only these two know levels and EOIs; the others are edges whatever the
 * trigger mode says (82093AA, "Delivery Mode"). */
static bool entry_is_level(uint64_t entry)
{
    return (entry & ENTRY_LEVEL) && entry_delivery(entry) <= DELIVER_LOWEST;
}

static struct irq_message entry_message(uint64_t entry)
{
    enum delivery_mode mode = entry_delivery(entry);
    struct irq_message m = {
        .address = MESSAGE_ADDRESS | entry >> ENTRY_DESTINATION_SHIFT << MESSAGE_DESTINATION_SHIFT,
        .data = (uint32_t)(entry & ENTRY_VECTOR) | (uint32_t)mode << ENTRY_DELIVERY_SHIFT |
                MESSAGE_ASSERT,
    };

    if (entry & ENTRY_LOGICAL)
        m.address |= MESSAGE_LOGICAL;
    if (mode == DELIVER_LOWEST)
        m.address |= MESSAGE_REDIRECTION_HINT;
    if (entry_is_level(entry))
        m.data |= MESSAGE_LEVEL;
    return m;
}

static void ioapic_send(struct ioapic *io, unsigned pin)
{
    uint64_t entry = io->entry[pin];

    /* Before sending: the processor may end the interrupt at once. */
    if (entry_is_level(entry))
        io->entry[pin] |= ENTRY_REMOTE_IRR;
    irq_message_send(&io->port, entry_message(entry));
}

bool ioapic_waiting(const struct ioapic *io, unsigned pin)
{
    uint64_t entry = io->entry[pin];

    return !(entry & ENTRY_MASKED) && entry_delivery(entry) <= DELIVER_LOWEST &&
           io->port.waiting && io->port.waiting(io->port.ctx, entry_message(entry));
}

/* A level pin that is asserted, not masked and not in service sends. */
static void ioapic_look(struct ioapic *io, unsigned pin)
{
    uint64_t entry = io->entry[pin];

    if ((io->lines & BIT(pin)) && entry_is_level(entry) &&
        !(entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        ioapic_send(io, pin);
}

static void ioapic_set_pin(void *self, unsigned pin, bool level)
{
    struct ioapic *io = self;
    bool rises = level && !(io->lines & BIT(pin));

    if (level)
        io->lines |= (uint32_t)BIT(pin);
    else
        io->lines &= ~(uint32_t)BIT(pin);
    if (entry_is_level(io->entry[pin]))
        ioapic_look(io, pin);
    else if (rises && !(io->entry[pin] & ENTRY_MASKED))
        ioapic_send(io, pin); /* an edge on a masked pin is lost, as documented */
}

struct irq_line ioapic_input(struct ioapic *io, unsigned n)
{
    if (n >= IOAPIC_PINS)
        return (struct irq_line){NULL, NULL, 0};
    return (struct irq_line){ioapic_set_pin, io, n};
}

void ioapic_eoi(void *self, uint8_t vector)
{
    struct ioapic *io = self;

    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if (!(io->entry[pin] & ENTRY_REMOTE_IRR) || (io->entry[pin] & ENTRY_VECTOR) != vector)
            continue;
        io->entry[pin] &= ~ENTRY_REMOTE_IRR;
        ioapic_look(io, pin);
    }
}

/* ---- registers ---- */

static uint32_t ioapic_indirect_read(const struct ioapic *io)
{
    unsigned pin;

    switch (io->select) {
    case IOAPIC_ID:
    case IOAPIC_ARBITRATION: /* loaded with the ID and, without an APIC bus, never rotated */
        return io->id;
    case IOAPIC_VERSION:
        return IOAPIC_VERSION_VALUE;
    default:
        break;
    }
    pin = (io->select - IOAPIC_REDIRECTION) / 2u;
    if (io->select < IOAPIC_REDIRECTION || pin >= IOAPIC_PINS)
        return 0;
    return (uint32_t)(io->entry[pin] >> (io->select & 1) * 32);
}

static void ioapic_entry_write(struct ioapic *io, unsigned pin, bool high, uint32_t value)
{
    uint64_t entry = io->entry[pin];

    if (high) {
        entry &= ~ENTRY_WRITABLE_HIGH;
        entry |= (uint64_t)value << 32 & ENTRY_WRITABLE_HIGH;
    } else {
        entry &= ~ENTRY_WRITABLE_LOW;
        entry |= value & ENTRY_WRITABLE_LOW;
        /* Without levels there is nothing that an EOI could end. Software
         * for older versions relies on it: it makes a pin an edge for a
         * moment in order to clear the remote IRR. */
        if (!entry_is_level(entry))
            entry &= ~ENTRY_REMOTE_IRR;
    }
    io->entry[pin] = entry;
    ioapic_look(io, pin);
}

static void ioapic_indirect_write(struct ioapic *io, uint32_t value)
{
    unsigned pin = (io->select - IOAPIC_REDIRECTION) / 2u;

    vlog(io->vm->log, IRQ, DEBUG, "ioapic: register %02XH <- %08XH", io->select, value);
    if (io->select == IOAPIC_ID)
        io->id = value & IOAPIC_ID_MASK;
    else if (io->select >= IOAPIC_REDIRECTION && pin < IOAPIC_PINS)
        ioapic_entry_write(io, pin, io->select & 1, value);
    else
        vlog(io->vm->log, IRQ, GUEST, "ioapic: write of %08XH to register %02XH, which is %s",
             value, io->select, io->select <= IOAPIC_ARBITRATION ? "read-only" : "reserved");
}

static uint64_t ioapic_read(void *self, uint64_t offset, unsigned size)
{
    struct ioapic *io = self;
    uint64_t reg = align_down(offset, 4);
    uint32_t value = 0;

    if (reg == IOAPIC_REG_SELECT)
        value = io->select;
    else if (reg == IOAPIC_REG_WINDOW)
        value = ioapic_indirect_read(io);
    return zext(value >> (offset & 3) * 8, size);
}

static void ioapic_write(void *self, uint64_t offset, uint64_t value, unsigned size)
{
    struct ioapic *io = self;

    switch (offset) {
    case IOAPIC_REG_SELECT:
        io->select = (uint8_t)value;
        break;
    case IOAPIC_REG_EOI:
        ioapic_eoi(io, (uint8_t)value);
        break;
    case IOAPIC_REG_WINDOW:
        if (size == 4) {
            ioapic_indirect_write(io, (uint32_t)value);
            break;
        }
        __attribute__((fallthrough)); /* the window takes 32 bits only */
    default:
        vlog(io->vm->log, IRQ, GUEST, "ioapic: write of %u bytes at offset %03llXH ignored", size,
             (unsigned long long)offset);
        break;
    }
}

static const struct region_ops ioapic_ops = {
    .read = ioapic_read, .write = ioapic_write, .min_size = 1, .max_size = 4};

/* ---- life ---- */

/* The lines stay: they belong to the devices that drive them. */
static void ioapic_reset(void *self)
{
    struct ioapic *io = self;

    io->select = 0;
    io->id = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->entry[pin] = ENTRY_MASKED;
}

static void ioapic_destroy(void *self)
{
    struct ioapic *io = self;

    region_remove(&io->region);
    free(io);
}

static int ioapic_after_load(void *self, unsigned version)
{
    struct ioapic *io = self;

    if ((io->id & ~(uint32_t)IOAPIC_ID_MASK) || io->lines >= BIT(IOAPIC_PINS))
        return -EINVAL;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = io->entry[pin];

        if (entry & ~(ENTRY_WRITABLE_LOW | ENTRY_WRITABLE_HIGH | ENTRY_REMOTE_IRR))
            return -EINVAL;
        if ((entry & ENTRY_REMOTE_IRR) && !entry_is_level(entry))
            return -EINVAL;
    }
    return 0;
}

static const struct state_field ioapic_fields[] = {
    STATE_INT(struct ioapic, select),
    STATE_INT(struct ioapic, id),
    STATE_INT(struct ioapic, lines),
    STATE_INTS(struct ioapic, entry),
    STATE_END,
};
static const struct state_table ioapic_state = {"ioapic", 1, ioapic_fields, NULL,
                                                ioapic_after_load};

static const struct dev_type ioapic_type = {"ioapic", ioapic_reset, ioapic_destroy, &ioapic_state};

struct ioapic *ioapic_create(struct vm *vm, const struct ioapic_config *config, struct error *err)
{
    struct ioapic *io = calloc(1, sizeof *io);

    if (!io)
        goto fail;
    io->vm = vm;
    io->port = config->port;
    io->region = (struct region){.name = "ioapic",
                                 .base = config->base ? config->base : IOAPIC_BASE,
                                 .size = IOAPIC_BYTES,
                                 .priority = 1,
                                 .ops = &ioapic_ops,
                                 .ctx = io};
    if (region_add(&vm->memory, &io->region) < 0)
        goto fail;
    ioapic_reset(io);
    vm_add_device(vm, &ioapic_type, "ioapic", io);
    return io;

fail:
    free(io);
    error_set(err, -ENOMEM, "out of memory for the I/O APIC");
    return NULL;
}
