/*
 * The ICH9's high-precision event timers. See hpet.c.
 *
 * Threading: everything with the machine's lock held.
 */
#ifndef DEV_TIMER_HPET_H
#define DEV_TIMER_HPET_H

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct hpet;

#define HPET_BASE 0xfed00000ull
#define HPET_GSIS 24
/* "Event Timer Block ID" of the ACPI table: the low half of GCAP_ID. */
#define HPET_BLOCK_ID 0x8086a201u
#define HPET_PERIOD_FS 10000000u /* 10 ns */

struct hpet_config {
    struct irq_line gsi[HPET_GSIS]; /* IOAPIC pins; what is not connected is not offered */
    /* Legacy replacement: while `legacy` is high, irq0 and irq8 take the
     * places of the 8254's and the RTC's interrupts, and the board keeps
     * those two away from the interrupt controllers. */
    struct irq_line legacy;
    struct irq_line irq0;
    struct irq_line irq8;
    struct irq_probe irq0_probe; /* may be empty: see catchup.h */
    /* "FSB delivery": messages of MSI's format. Not offered if not connected. */
    struct irq_message_port port;
    uint64_t base; /* 0: HPET_BASE */
};

/* 1 KiB of memory at base. NULL when there is no memory. */
struct hpet *hpet_create(struct vm *vm, const struct hpet_config *config, struct error *err);

/* Moves or hides the registers (the ICH9's HPTC register decides where). */
void hpet_map(struct hpet *hpet, uint64_t base, bool enabled);

#endif
