/*
 * What is between the local APICs (SDM Vol. 3, 10.6 and 10.11): who receives
 * an IPI or an interrupt message, lowest-priority arbitration, EOI broadcast.
 *
 * A sender reads each receiver's mode, id and logical id from one atomic word
 * (lapic.address), so routing takes no lock, from whichever thread.
 *
 * Threading: the list of processors is constant once the machine runs.
 * apic_bus_eoi takes the machine's lock; nothing else here does.
 */
#include <stdlib.h>

#include "cpu/x86/apic_internal.h"
#include "cpu/x86/vec/vec.h"

struct apic_bus {
    struct vm *vm;
    struct x86_vcpu *cpu[VM_MAX_VCPUS]; /* by APIC id, which is the vCPU's index */
    unsigned count;
    void (*eoi)(void *ctx, uint8_t vector);
    void *eoi_ctx;
};

/* Message address and data: 10.11.1 and 10.11.2. */
enum message_bits {
    MSG_DEST_SHIFT = 12,
    MSG_REDIRECT = 1 << 3,
    MSG_LOGICAL = 1 << 2,
    MSG_VECTOR = 0xff,
    MSG_MODE_SHIFT = 8,
    MSG_LEVEL = 1 << 15,
};
#define MSG_ADDRESS 0xfee00000ull

#define XAPIC_BROADCAST 0xffu
#define X2APIC_BROADCAST 0xffffffffu

struct destination {
    uint32_t mda;
    bool logical;
    bool broadcast;
};

struct apic_bus *apic_bus_create(struct vm *vm)
{
    struct apic_bus *bus = calloc(1, sizeof *bus);

    if (bus)
        bus->vm = vm;
    return bus;
}

void apic_bus_destroy(struct apic_bus *bus)
{
    free(bus);
}

void apic_bus_add(struct apic_bus *bus, struct x86_vcpu *c)
{
    unsigned id = c->vcpu.index;

    bus->cpu[id] = c;
    bus->count = MAX(bus->count, id + 1);
    c->lapic->bus = bus;
}

void apic_bus_on_eoi(struct apic_bus *bus, void (*eoi)(void *ctx, uint8_t vector), void *ctx)
{
    bus->eoi = eoi;
    bus->eoi_ctx = ctx;
}

void apic_bus_eoi(struct lapic *l, uint8_t vector)
{
    struct apic_bus *bus = l->bus;

    if (!bus || !bus->eoi)
        return;
    vec_leave(l->c);
    vm_lock(bus->vm);
    bus->eoi(bus->eoi_ctx, vector);
    vm_unlock(bus->vm);
}

/* Does a receiver with this address answer to the destination? (10.6.2) */
static bool destination_matches(uint64_t address, const struct destination *d)
{
    uint32_t id = ADDRESS_ID(address);
    uint8_t logical = address >> ADDRESS_LOGICAL_SHIFT & 0xff;

    if (!(address & ADDRESS_HARDWARE))
        return false;
    if (d->broadcast)
        return true;
    if (!d->logical)
        return id == d->mda;
    if (address & ADDRESS_X2APIC) {
        /* 10.12.10.2: cluster = id[19:4], member = 1 << id[3:0]. */
        return d->mda >> 16 == id >> 4 && (d->mda & 0xffff & 1u << (id & 15));
    }
    if (d->mda > 0xff)
        return false;
    if (address & ADDRESS_CLUSTER) {
        if (d->mda >> 4 != 0xf && d->mda >> 4 != logical >> 4)
            return false;
        return d->mda & logical & 0xf;
    }
    return d->mda & logical;
}

static uint64_t address_of(struct lapic *l)
{
    /* Acquire, with the release in apic.c: who saw the receiver's last change
     * of mode in guest memory sees it here too. */
    return atomic_load_explicit(&l->address, memory_order_acquire);
}

/*
 * Lowest priority: among those that would accept it, the one with the lowest
 * processor priority. Equals are told apart by the vector, so that different
 * interrupts spread over processors, and the same machine decides the same.
 */
static struct lapic *lowest_priority(struct apic_bus *bus, const struct destination *d,
                                     uint8_t vector, const struct lapic *skip)
{
    struct lapic *best[VM_MAX_VCPUS];
    unsigned ties = 0;
    uint32_t lowest = UINT32_MAX;

    for (unsigned n = 0; n < bus->count; n++) {
        struct lapic *l = bus->cpu[n] ? bus->cpu[n]->lapic : NULL;
        uint32_t priority;

        if (!l || l == skip || !destination_matches(address_of(l), d) ||
            !(address_of(l) & ADDRESS_SOFTWARE))
            continue;
        /* Relaxed: a hint; the receiver may change it right afterwards. */
        priority = atomic_load_explicit(&l->priority, memory_order_relaxed) >> 4;
        if (priority < lowest) {
            lowest = priority;
            ties = 0;
        }
        if (priority == lowest)
            best[ties++] = l;
    }
    return ties ? best[vector % ties] : NULL;
}

static void bus_send(struct apic_bus *bus, const struct destination *d, enum apic_delivery mode,
                     uint8_t vector, bool level, const struct lapic *skip)
{
    if (mode == DELIVERY_LOWEST) {
        struct lapic *l = lowest_priority(bus, d, vector, skip);

        if (l)
            apic_post(l, DELIVERY_FIXED, vector, level);
        return;
    }
    if (!d->logical && !d->broadcast) {
        if (d->mda < bus->count && bus->cpu[d->mda]) {
            struct lapic *l = bus->cpu[d->mda]->lapic;

            if (l != skip && (address_of(l) & ADDRESS_HARDWARE))
                apic_post(l, mode, vector, level);
        }
        return;
    }
    for (unsigned n = 0; n < bus->count; n++) {
        struct lapic *l = bus->cpu[n] ? bus->cpu[n]->lapic : NULL;

        if (l && l != skip && destination_matches(address_of(l), d))
            apic_post(l, mode, vector, level);
    }
}

void apic_bus_ipi(struct lapic *l, uint32_t icr, uint32_t mda)
{
    enum apic_delivery mode = icr >> ICR_MODE_SHIFT & 7;
    enum apic_shorthand shorthand = icr >> ICR_SHORTHAND_SHIFT & 3;
    uint8_t vector = icr & ICR_VECTOR;
    struct destination d = {
        .mda = mda,
        .logical = icr & ICR_LOGICAL,
        .broadcast = mda == (apic_x2apic(l) ? X2APIC_BROADCAST : XAPIC_BROADCAST),
    };
    const struct lapic *skip = NULL;

    if (mode == DELIVERY_RESERVED || mode == DELIVERY_EXTINT || mode == DELIVERY_SMI) {
        x86_log(l->c, APIC, GUEST, "cpu %u: IPI with delivery mode %u goes nowhere",
                l->c->vcpu.index, mode);
        return;
    }
    /* The INIT level de-assert of old ended arbitration-id synchronization;
     * since the Pentium 4 it does nothing (10.6.1). */
    if (mode == DELIVERY_INIT && (icr & ICR_LEVEL) && !(icr & ICR_ASSERT))
        return;

    switch (shorthand) {
    case SHORTHAND_NONE:
        break;
    case SHORTHAND_SELF: /* table 10-4: fixed only */
        if (mode == DELIVERY_FIXED)
            apic_post(l, DELIVERY_FIXED, vector, false);
        return;
    case SHORTHAND_ALL: /* fixed only; the others are invalid */
        if (mode != DELIVERY_FIXED)
            return;
        d.broadcast = true;
        break;
    case SHORTHAND_OTHERS:
        d.broadcast = true;
        skip = l;
        break;
    }
    if (!l->bus) {
        if (skip != l && destination_matches(address_of(l), &d))
            apic_post(l, mode == DELIVERY_LOWEST ? DELIVERY_FIXED : mode, vector, false);
        return;
    }
    /* The trigger mode of an IPI is ignored: always an edge (10.6.1). */
    bus_send(l->bus, &d, mode, vector, false, skip);
}

static struct destination message_destination(struct irq_message m)
{
    uint32_t mda = m.address >> MSG_DEST_SHIFT & 0xff;

    return (struct destination){
        .mda = mda,
        .logical = m.address & MSG_LOGICAL,
        .broadcast = mda == XAPIC_BROADCAST,
    };
}

static void port_send(void *ctx, struct irq_message m)
{
    struct apic_bus *bus = ctx;
    enum apic_delivery mode = m.data >> MSG_MODE_SHIFT & 7;
    struct destination d = message_destination(m);

    if ((m.address & ~0xfffffull) != MSG_ADDRESS || mode == DELIVERY_RESERVED ||
        mode == DELIVERY_STARTUP) {
        vlog(bus->vm->log, APIC, GUEST, "interrupt message %#llx at %#llx goes nowhere",
             (unsigned long long)m.data, (unsigned long long)m.address);
        return;
    }
    /* 10.11.1: the redirection hint asks for lowest priority among several. */
    if ((m.address & MSG_REDIRECT) && d.logical && mode == DELIVERY_FIXED)
        mode = DELIVERY_LOWEST;
    bus_send(bus, &d, mode, m.data & MSG_VECTOR, m.data & MSG_LEVEL, NULL);
}

/* Any of those that the message could go to: which one got the last message
 * with lowest priority is not known. */
static bool port_waiting(void *ctx, struct irq_message m)
{
    struct apic_bus *bus = ctx;
    uint8_t vector = m.data & MSG_VECTOR;
    struct destination d = message_destination(m);

    for (unsigned n = 0; n < bus->count; n++) {
        struct lapic *l = bus->cpu[n] ? bus->cpu[n]->lapic : NULL;

        /* Relaxed: a hint, the owner may take it right afterwards. */
        if (l && destination_matches(address_of(l), &d) &&
            (atomic_load_explicit(&l->request[vector >> 6], memory_order_relaxed) &
             BIT(vector & 63)))
            return true;
    }
    return false;
}

struct irq_message_port apic_bus_port(struct apic_bus *bus)
{
    return (struct irq_message_port){.send = port_send, .ctx = bus, .waiting = port_waiting};
}
