/*
 * The local APIC (SDM Vol. 3, chapter 10): xAPIC and x2APIC.
 *
 * One belongs to each processor. Its registers are its processor's own; other
 * threads reach only the interrupt inbox (atomic request bits), so fast paths
 * take no lock. Messages (MSI, IOAPIC, IPIs) go through apic_send_message.
 */
#ifndef CPU_X86_APIC_H
#define CPU_X86_APIC_H

#include "cpu/x86/vcpu.h"
#include "vm/irq.h"

struct lapic *lapic_create(struct x86_vcpu *c, struct error *err);
void lapic_destroy(struct lapic *l);
void lapic_reset(struct lapic *l);
void lapic_init(struct lapic *l); /* INIT: APIC id and base stay */
extern const struct state_table lapic_state;

/* The 4 KiB page at IA32_APIC_BASE as this processor sees it (never on the
 * bus). True and handled if gpa is in it and the APIC is in xAPIC mode. */
bool lapic_page_match(const struct lapic *l, gpa_t gpa);
uint32_t lapic_mmio_read(struct lapic *l, unsigned offset, unsigned size);
void lapic_mmio_write(struct lapic *l, unsigned offset, uint32_t value, unsigned size);
/* x2APIC MSRs 800H..8FFH; false: #GP. */
bool lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value);
bool lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value);
uint64_t lapic_base_msr(const struct lapic *l);
bool lapic_set_base_msr(struct lapic *l, uint64_t value);
uint64_t lapic_tsc_deadline(const struct lapic *l);
void lapic_set_tsc_deadline(struct lapic *l, uint64_t tsc);
/* TSC_ADJUST or the TSC itself was written: the deadline moves. */
void lapic_tsc_changed(struct lapic *l);
uint8_t lapic_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, uint8_t v);
uint32_t lapic_id(const struct lapic *l);

/* Owner, at a block boundary with interrupts enabled or to learn whether a
 * halted processor wakes: moves the inbox to IRR, looks at the timer. */
bool lapic_has_interrupt(struct lapic *l);
/* Accepts the highest: vector, IRR -> ISR. -1: none above the PPR (call after
 * lapic_has_interrupt). */
int lapic_accept(struct lapic *l);
/* Would INTR (the 8259's pin) be taken: APIC disabled, or LINT0 = ExtINT. */
bool lapic_accepts_extint(const struct lapic *l);
/* NMI pin (LINT1) for the board. */
void lapic_lint(struct lapic *l, unsigned pin, bool level);

/* The INIT# pin, for the board: as an INIT message. */
void lapic_init_pin(struct lapic *l);

/* Owner, on EVENT_INIT or EVENT_STARTUP, before it looks at s.init_pending and
 * s.sipi_pending: moves there what other processors have sent. An INIT drops
 * the SIPI sent before it; the SIPI after it comes with the next EVENT_STARTUP.
 * The owner drops a SIPI unless activity is X86_WAIT_SIPI. */
void lapic_take_startup(struct lapic *l);

/* ---- the bus between them ---- */

/* Delivers an interrupt message {FEExxxxxH, data} to the processors it names;
 * a port for the IOAPIC and for MSI. Any thread. EOI of a level-triggered
 * vector is broadcast to eoi(ctx, vector) with the machine's lock held. */
struct apic_bus;
struct apic_bus *apic_bus_create(struct vm *vm);
void apic_bus_destroy(struct apic_bus *bus);
void apic_bus_add(struct apic_bus *bus, struct x86_vcpu *c);
struct irq_message_port apic_bus_port(struct apic_bus *bus);
void apic_bus_on_eoi(struct apic_bus *bus, void (*eoi)(void *ctx, uint8_t vector), void *ctx);

#endif
