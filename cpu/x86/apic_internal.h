/*
 * What apic.c (registers), apic_timer.c and apic_bus.c share and nobody else
 * sees: the local APIC's struct, its registers and bits (SDM Vol. 3, 10.4 to
 * 10.12).
 */
#ifndef CPU_X86_APIC_INTERNAL_H
#define CPU_X86_APIC_INTERNAL_H

#include "cpu/x86/apic.h"

/* The crystal that CPUID leaf 15H reports; the APIC timer counts it. */
#define APIC_TIMER_HZ X86_CRYSTAL_HZ

/* Registers by number: xAPIC offset >> 4, x2APIC MSR - 800H (table 10-1, 10-6). */
enum apic_register {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10, /* eight each */
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_LVT_CMCI = 0x2f,
    REG_ICR = 0x30,
    REG_ICR_HIGH = 0x31,
    REG_LVT = 0x32, /* six: enum apic_lvt */
    REG_TIMER_INITIAL = 0x38,
    REG_TIMER_CURRENT = 0x39,
    REG_TIMER_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
};

/* Without CMCI, which MCG_CAP does not advertise: max LVT entry is 5. */
enum apic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

enum apic_base_bits {
    APIC_BASE_BSP = 1 << 8,
    APIC_BASE_EXTD = 1 << 10,
    APIC_BASE_EN = 1 << 11,
};

enum apic_version_bits {
    APIC_VERSION_INTEGRATED = 0x15,
    APIC_VERSION_MAX_LVT_SHIFT = 16,
    APIC_VERSION_EOI_SUPPRESSION = 1 << 24,
};

enum apic_svr_bits {
    SVR_VECTOR = 0xff,
    SVR_ENABLE = 1 << 8,
    SVR_FOCUS_OFF = 1 << 9, /* kept; only the P6 family looked for a focus processor */
    SVR_SUPPRESS_EOI = 1 << 12,
};

/* LVT and ICR share the place of vector and delivery mode. */
enum apic_lvt_bits {
    LVT_VECTOR = 0xff,
    LVT_MODE_SHIFT = 8,
    LVT_MODE = 7 << 8,
    LVT_STATUS = 1 << 12,
    LVT_POLARITY = 1 << 13,
    LVT_REMOTE_IRR = 1 << 14,
    LVT_LEVEL = 1 << 15,
    LVT_MASKED = 1 << 16,
    LVT_TIMER_MODE_SHIFT = 17,
    LVT_TIMER_MODE = 3 << 17,
};

enum apic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE, TIMER_RESERVED };

enum apic_delivery {
    DELIVERY_FIXED = 0,
    DELIVERY_LOWEST = 1,
    DELIVERY_SMI = 2,
    DELIVERY_RESERVED = 3,
    DELIVERY_NMI = 4,
    DELIVERY_INIT = 5,
    DELIVERY_STARTUP = 6, /* of IPIs; not of messages */
    DELIVERY_EXTINT = 7,  /* of messages and LINT0; not of IPIs */
};

enum apic_icr_bits {
    ICR_VECTOR = 0xff,
    ICR_MODE_SHIFT = 8,
    ICR_LOGICAL = 1 << 11,
    ICR_ASSERT = 1 << 14,
    ICR_LEVEL = 1 << 15,
    ICR_SHORTHAND_SHIFT = 18,
};

enum apic_shorthand { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

enum apic_esr_bits {
    ESR_SEND_VECTOR = 1 << 5,
    ESR_RECEIVE_VECTOR = 1 << 6,
    ESR_REGISTER = 1 << 7,
};

/* lapic.inbox: what others (and the timer's callback) left for the owner. */
enum apic_inbox {
    INBOX_WORDS = 0xf, /* one a word of lapic.request */
    INBOX_TIMER = 1 << 4,
    INBOX_BAD_VECTOR = 1 << 5,
    INBOX_EXTINT = 1 << 6,
    INBOX_LINT0 = 1 << 7, /* two: LINT1 is the next bit; a rising edge */
};

/* lapic.startup: INIT and SIPI that others sent. */
enum apic_startup {
    STARTUP_VECTOR = 0xff,
    STARTUP_SIPI = 1 << 8,
    STARTUP_INIT = 1 << 9,
};

/* lapic.address: all that a sender must know of a receiver, in one word. */
#define ADDRESS_ID(a) ((uint32_t)(a))
#define ADDRESS_LOGICAL_SHIFT 32 /* xAPIC: LDR[31:24] */
#define ADDRESS_CLUSTER BIT(40)  /* xAPIC: DFR asks for the cluster model */
#define ADDRESS_HARDWARE BIT(41) /* IA32_APIC_BASE.EN */
#define ADDRESS_X2APIC BIT(42)
#define ADDRESS_SOFTWARE BIT(43) /* SVR[8] */

#define APIC_WORDS 4 /* 256 vectors in 64-bit words */

struct lapic {
    struct x86_vcpu *c;
    struct apic_bus *bus;

    /* ---- the owner's ---- */
    uint64_t base;
    uint32_t tpr;
    uint32_t ldr, dfr; /* xAPIC; in x2APIC mode the LDR follows from the id */
    uint32_t svr;
    uint32_t esr, esr_latched; /* esr: collected since the last write */
    uint64_t icr;
    uint32_t lvt[LVT_COUNT];
    uint64_t irr[APIC_WORDS], isr[APIC_WORDS], tmr[APIC_WORDS];
    uint32_t extint;          /* an ExtINT message came and INTR has not dropped since */
    uint32_t lint_remote_irr; /* one bit a pin */

    /* The timer stood at timer_count at crystal tick timer_tick; 0: stopped. */
    uint32_t timer_initial, timer_count, timer_divide;
    uint64_t timer_tick;
    uint64_t tsc_deadline;
    struct timer timer;
    uint64_t timer_armed_ns; /* timer fires then, if not before: TIME_NEVER, not at all */

    /* ---- anybody's, by atomic operations only ---- */
    _Atomic uint64_t address;
    _Atomic uint32_t priority; /* copy of the PPR, for lowest-priority delivery */
    _Atomic uint32_t inbox;
    _Atomic uint32_t startup;
    _Atomic uint32_t lint_level;
    _Atomic uint64_t request[APIC_WORDS];
    _Atomic uint64_t level[APIC_WORDS];
};

static inline bool apic_hardware_enabled(const struct lapic *l)
{
    return l->base & APIC_BASE_EN;
}

static inline bool apic_x2apic(const struct lapic *l)
{
    return l->base & APIC_BASE_EXTD;
}

static inline bool apic_page_is(const struct lapic *l, gpa_t gpa)
{
    return ((gpa ^ l->base) & ~0xfffull) == 0 &&
           (l->base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN;
}

/* Owner: an interrupt from inside: LVT entries. */
void apic_local_interrupt(struct lapic *l, enum apic_lvt entry);

/* Any thread. Leaves an interrupt of the given delivery mode for l's owner. */
void apic_post(struct lapic *l, enum apic_delivery mode, uint8_t vector, bool level);

/* ---- apic_timer.c; all by the owner ---- */

void apic_timer_create(struct lapic *l);
void apic_timer_reset(struct lapic *l);
/* The machine's timer has fired: INBOX_TIMER was set. */
void apic_timer_fired(struct lapic *l);
/* Raises what is due, prepares what comes next. */
void apic_timer_look(struct lapic *l);
void apic_timer_set_initial(struct lapic *l, uint32_t count);
void apic_timer_set_divide(struct lapic *l, uint32_t divide);
uint32_t apic_timer_current(struct lapic *l);
/* The LVT entry changes to value; apic_timer_look has run. */
void apic_timer_set_lvt(struct lapic *l, uint32_t value);

/* ---- apic_bus.c ---- */

/* Owner: ICR was written. mda: destination, 32 bits in x2APIC mode, else 8. */
void apic_bus_ipi(struct lapic *l, uint32_t icr, uint32_t mda);
/* Owner: a level-triggered vector ended. Takes the machine's lock. */
void apic_bus_eoi(struct lapic *l, uint8_t vector);

#endif
