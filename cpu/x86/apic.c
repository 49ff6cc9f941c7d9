/*
 * The local APIC's registers (SDM Vol. 3, chapter 10): xAPIC page and x2APIC
 * MSRs, modes, interrupt acceptance by priority, EOI, local vector table,
 * errors. The timer is in apic_timer.c, routing in apic_bus.c.
 *
 * Interface: apic.h.
 *
 * Threading: all registers belong to the processor's thread. Other threads
 * leave interrupts in an inbox of atomic bits (apic_post) and ring the
 * doorbell; the owner moves them to IRR and TMR when it looks. No lock is
 * taken but by the EOI of a level-triggered vector, which tells the IOAPICs
 * under the machine's lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "cpu/x86/apic_internal.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/vec/vec.h"

#define BASE_DEFAULT 0xfee00000ull

/* What each LVT entry has; the rest is reserved or read-only (figure 10-8). */
static const uint32_t lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = LVT_VECTOR | LVT_MASKED | LVT_TIMER_MODE,
    [LVT_THERMAL] = LVT_VECTOR | LVT_MODE | LVT_MASKED,
    [LVT_PERF] = LVT_VECTOR | LVT_MODE | LVT_MASKED,
    [LVT_LINT0] = LVT_VECTOR | LVT_MODE | LVT_POLARITY | LVT_LEVEL | LVT_MASKED,
    [LVT_LINT1] = LVT_VECTOR | LVT_MODE | LVT_POLARITY | LVT_LEVEL | LVT_MASKED,
    [LVT_ERROR] = LVT_VECTOR | LVT_MASKED,
};

#define ICR_WRITABLE 0x000ccfffu
#define SVR_WRITABLE ((uint32_t)(SVR_VECTOR | SVR_ENABLE | SVR_FOCUS_OFF | SVR_SUPPRESS_EOI))

/* ---- 256 bits ---- */

static bool bit_test(const uint64_t *words, uint8_t vector)
{
    return words[vector >> 6] >> (vector & 63) & 1;
}

static void bit_set(uint64_t *words, uint8_t vector)
{
    words[vector >> 6] |= BIT(vector & 63);
}

static void bit_clear(uint64_t *words, uint8_t vector)
{
    words[vector >> 6] &= ~BIT(vector & 63);
}

/* The highest vector, or -1. */
static int highest(const uint64_t *words)
{
    for (int w = APIC_WORDS - 1; w >= 0; w--)
        if (words[w])
            return w * 64 + 63 - __builtin_clzll(words[w]);
    return -1;
}

/* ---- priority (10.8.3) ---- */

static uint8_t ppr(const struct lapic *l)
{
    int in_service = highest(l->isr);
    uint8_t isrv = in_service < 0 ? 0 : in_service;

    return (l->tpr & 0xf0) >= (isrv & 0xf0) ? l->tpr : isrv & 0xf0;
}

static int deliverable(const struct lapic *l)
{
    int vector = highest(l->irr);

    return vector >= 0 && (vector & 0xf0) > (ppr(l) & 0xf0) ? vector : -1;
}

/* TPR, ISR or IRR changed on the owner's side. */
static void priority_changed(struct lapic *l)
{
    /* Relaxed: a hint for lowest-priority delivery. */
    atomic_store_explicit(&l->priority, ppr(l), memory_order_relaxed);
    if (deliverable(l) >= 0)
        vcpu_post(&l->c->vcpu, EVENT_INTERRUPT);
}

static void accept_vector(struct lapic *l, uint8_t vector, bool level)
{
    bit_set(l->irr, vector);
    if (level)
        bit_set(l->tmr, vector);
    else
        bit_clear(l->tmr, vector);
    priority_changed(l);
}

/* ---- errors (10.5.3) ---- */

static void apic_error(struct lapic *l, uint32_t bit)
{
    bool armed = !l->esr;

    l->esr |= bit;
    /* A write to the ESR arms the interrupt again. */
    if (armed)
        apic_local_interrupt(l, LVT_ERROR);
}

/* ---- what comes from outside the owner's thread ---- */

void apic_post(struct lapic *l, enum apic_delivery mode, uint8_t vector, bool level)
{
    struct vcpu *v = &l->c->vcpu;
    uint32_t old, word;

    switch (mode) {
    case DELIVERY_FIXED:
    case DELIVERY_LOWEST:
        /* 10.4.7.2: a software-disabled APIC accepts no such interrupt. */
        if (!(atomic_load_explicit(&l->address, memory_order_acquire) & ADDRESS_SOFTWARE))
            return;
        if (vector < 16) {
            atomic_fetch_or_explicit(&l->inbox, INBOX_BAD_VECTOR, memory_order_release);
            break;
        }
        /* The trigger mode must be there before the request: the owner reads
         * the request with acquire, then the mode. The word's bit in inbox
         * comes last, so that an owner that clears it finds the request. */
        if (level)
            atomic_fetch_or_explicit(&l->level[vector >> 6], BIT(vector & 63),
                                     memory_order_relaxed);
        else
            atomic_fetch_and_explicit(&l->level[vector >> 6], ~BIT(vector & 63),
                                      memory_order_relaxed);
        atomic_fetch_or_explicit(&l->request[vector >> 6], BIT(vector & 63), memory_order_release);
        atomic_fetch_or_explicit(&l->inbox, 1u << (vector >> 6), memory_order_release);
        break;
    case DELIVERY_NMI:
        x86_post_nmi(l->c);
        return;
    case DELIVERY_INIT:
        /* The SIPI sent before is lost with the INIT: one word keeps the
         * order. Release: what the sender wrote for the receiver to find. */
        atomic_store_explicit(&l->startup, STARTUP_INIT, memory_order_release);
        vcpu_post(v, EVENT_INIT);
        return;
    case DELIVERY_STARTUP:
        old = atomic_load_explicit(&l->startup, memory_order_relaxed);
        do
            word = (old & STARTUP_INIT) | STARTUP_SIPI | vector;
        while (!atomic_compare_exchange_weak_explicit(&l->startup, &old, word, memory_order_release,
                                                      memory_order_relaxed));
        vcpu_post(v, EVENT_STARTUP);
        return;
    case DELIVERY_EXTINT:
        atomic_fetch_or_explicit(&l->inbox, INBOX_EXTINT, memory_order_release);
        break;
    case DELIVERY_SMI: /* no SMM here */
    case DELIVERY_RESERVED:
        return;
    }
    vcpu_post(v, EVENT_INTERRUPT);
}

void lapic_init_pin(struct lapic *l)
{
    apic_post(l, DELIVERY_INIT, 0, false);
}

void lapic_take_startup(struct lapic *l)
{
    uint32_t word = atomic_load_explicit(&l->startup, memory_order_relaxed), left;

    /* An INIT and the SIPI after it are two steps: the SIPI stays where a
     * newer INIT can still drop it, until the owner has done the INIT. */
    do
        left = word & STARTUP_INIT ? word & ~(uint32_t)STARTUP_INIT : 0;
    while (!atomic_compare_exchange_weak_explicit(&l->startup, &word, left, memory_order_acquire,
                                                  memory_order_relaxed));
    if (word & STARTUP_INIT) {
        l->c->s.init_pending = 1;
        l->c->s.sipi_pending = 0;
        if (left)
            vcpu_post(&l->c->vcpu, EVENT_STARTUP);
    } else if (word & STARTUP_SIPI) {
        l->c->s.sipi_pending = 1;
        l->c->s.sipi_vector = word & STARTUP_VECTOR;
    }
}

void lapic_lint(struct lapic *l, unsigned pin, bool level)
{
    uint32_t bit = 1u << pin;
    uint32_t old;

    /* Which LVT entry says what it means is the owner's to read. */
    if (level) {
        old = atomic_fetch_or_explicit(&l->lint_level, bit, memory_order_relaxed);
        if (old & bit)
            return;
        atomic_fetch_or_explicit(&l->inbox, INBOX_LINT0 << pin, memory_order_release);
        vcpu_post(&l->c->vcpu, EVENT_INTERRUPT);
    } else {
        atomic_fetch_and_explicit(&l->lint_level, ~bit, memory_order_relaxed);
    }
}

static void take_requests(struct lapic *l, uint32_t words)
{
    for (unsigned w = 0; w < APIC_WORDS; w++) {
        uint64_t bits, level;

        if (!(words & 1u << w))
            continue;
        bits = atomic_exchange_explicit(&l->request[w], 0, memory_order_acquire);
        level = atomic_load_explicit(&l->level[w], memory_order_relaxed);
        l->irr[w] |= bits;
        l->tmr[w] = (l->tmr[w] & ~bits) | (level & bits);
    }
}

static void lint_rose(struct lapic *l, unsigned pin)
{
    if (apic_hardware_enabled(l))
        apic_local_interrupt(l, LVT_LINT0 + pin);
    else if (pin == 1)
        x86_post_nmi(l->c); /* 10.4.3: the pins are INTR and NMI again */
}

static void drain(struct lapic *l)
{
    uint32_t what = atomic_load_explicit(&l->inbox, memory_order_relaxed);

    /* The 8259 was answered: what the ExtINT message announced is over. */
    if (l->extint && !atomic_load_explicit(&l->c->intr_level, memory_order_relaxed))
        l->extint = 0;
    /* Relaxed: whoever posted after this load also posts an event after it. */
    if (likely(!what))
        return;
    what = atomic_exchange_explicit(&l->inbox, 0, memory_order_acquire);
    take_requests(l, what & INBOX_WORDS);
    if (what & INBOX_BAD_VECTOR)
        apic_error(l, ESR_RECEIVE_VECTOR);
    if (what & INBOX_EXTINT)
        l->extint = 1;
    for (unsigned pin = 0; pin < 2; pin++)
        if (what & INBOX_LINT0 << pin)
            lint_rose(l, pin);
    if (what & INBOX_TIMER)
        apic_timer_fired(l);
}

/* ---- local vector table (10.5.1) ---- */

void apic_local_interrupt(struct lapic *l, enum apic_lvt entry)
{
    uint32_t lvt = l->lvt[entry];
    bool is_lint = entry == LVT_LINT0 || entry == LVT_LINT1;
    uint32_t pin = is_lint ? 1u << (entry - LVT_LINT0) : 0;

    if (lvt & LVT_MASKED)
        return;
    switch ((enum apic_delivery)((lvt & LVT_MODE) >> LVT_MODE_SHIFT)) {
    case DELIVERY_FIXED:
        if ((lvt & LVT_VECTOR) < 16) {
            /* If it is the error interrupt's own vector that is bad, the bit
             * is all that can be said. */
            if (entry == LVT_ERROR)
                l->esr |= ESR_RECEIVE_VECTOR;
            else
                apic_error(l, ESR_RECEIVE_VECTOR);
            break;
        }
        /* LINT1 knows edges only (10.5.1, trigger mode). */
        if (entry == LVT_LINT0 && (lvt & LVT_LEVEL)) {
            if (l->lint_remote_irr & pin)
                break;
            l->lint_remote_irr |= pin;
            accept_vector(l, lvt & LVT_VECTOR, true);
        } else {
            accept_vector(l, lvt & LVT_VECTOR, false);
        }
        break;
    case DELIVERY_NMI:
        x86_post_nmi(l->c);
        break;
    case DELIVERY_INIT:
        apic_post(l, DELIVERY_INIT, 0, false);
        break;
    case DELIVERY_EXTINT: /* the INTR pin: see lapic_accepts_extint */
    case DELIVERY_LOWEST:
    case DELIVERY_SMI:
    case DELIVERY_RESERVED:
    case DELIVERY_STARTUP:
        break;
    }
}

/* A level-triggered LINT0 that is still asserted interrupts again. */
static void lint_level_again(struct lapic *l)
{
    if ((l->lvt[LVT_LINT0] & LVT_LEVEL) &&
        (atomic_load_explicit(&l->lint_level, memory_order_relaxed) & 1))
        apic_local_interrupt(l, LVT_LINT0);
}

static uint32_t lvt_read(const struct lapic *l, enum apic_lvt entry)
{
    uint32_t v = l->lvt[entry];

    if (entry == LVT_LINT0 && (l->lint_remote_irr & 1))
        v |= LVT_REMOTE_IRR;
    return v;
}

static bool lvt_write(struct lapic *l, enum apic_lvt entry, uint32_t value)
{
    uint32_t writable = lvt_writable[entry];

    if (entry == LVT_TIMER && !x86_model_has(l->c->model, X86_FEAT_TSC_DEADLINE))
        writable &= ~(TIMER_TSC_DEADLINE << LVT_TIMER_MODE_SHIFT);
    if (apic_x2apic(l) && (value & ~(writable | LVT_STATUS | LVT_REMOTE_IRR)))
        return false;
    l->c->recheck = true; /* the INTR pin may count now */
    value &= writable;
    if (entry == LVT_TIMER && (value & LVT_TIMER_MODE) == LVT_TIMER_MODE) {
        if (apic_x2apic(l))
            return false;
        value &= ~(TIMER_PERIODIC << LVT_TIMER_MODE_SHIFT); /* 11: reserved */
    }
    if (!(l->svr & SVR_ENABLE))
        value |= LVT_MASKED; /* 10.4.7.2: cannot be cleared */
    if (entry == LVT_TIMER) {
        apic_timer_look(l); /* what was due under the old entry */
        apic_timer_set_lvt(l, value);
    } else {
        l->lvt[entry] = value;
        if (entry == LVT_LINT0) {
            if (!(value & LVT_LEVEL))
                l->lint_remote_irr &= ~1u;
            lint_level_again(l);
        }
    }
    return true;
}

/* ---- address: what senders see ---- */

static void address_publish(struct lapic *l)
{
    uint64_t a = l->c->vcpu.index;

    if (apic_hardware_enabled(l))
        a |= ADDRESS_HARDWARE;
    if (apic_x2apic(l))
        a |= ADDRESS_X2APIC;
    if (l->svr & SVR_ENABLE)
        a |= ADDRESS_SOFTWARE;
    if (!(l->dfr & 0x80000000u))
        a |= ADDRESS_CLUSTER;
    a |= (uint64_t)(l->ldr >> 24) << ADDRESS_LOGICAL_SHIFT;
    /* Release: see address_of in apic_bus.c. */
    atomic_store_explicit(&l->address, a, memory_order_release);
}

static void registers_reset(struct lapic *l)
{
    l->tpr = 0;
    l->ldr = 0;
    l->dfr = 0xffffffffu;
    l->svr = 0xff;
    l->esr = 0;
    l->esr_latched = 0;
    l->icr = 0;
    l->extint = 0;
    l->lint_remote_irr = 0;
    memset(l->irr, 0, sizeof l->irr);
    memset(l->isr, 0, sizeof l->isr);
    memset(l->tmr, 0, sizeof l->tmr);
    apic_timer_reset(l);
    for (unsigned n = 0; n < LVT_COUNT; n++)
        l->lvt[n] = LVT_MASKED;
    atomic_store_explicit(&l->inbox, 0, memory_order_relaxed);
    for (unsigned w = 0; w < APIC_WORDS; w++) {
        atomic_store_explicit(&l->request[w], 0, memory_order_relaxed);
        atomic_store_explicit(&l->level[w], 0, memory_order_relaxed);
    }
    atomic_store_explicit(&l->priority, 0, memory_order_relaxed);
    address_publish(l);
}

void lapic_reset(struct lapic *l)
{
    bool bsp = l->c->vcpu.index == 0;

    l->base = BASE_DEFAULT | (bsp ? APIC_BASE_BSP : 0);
    if (x86_model_has(l->c->model, X86_FEAT_APIC))
        l->base |= APIC_BASE_EN;
    atomic_store_explicit(&l->startup, 0, memory_order_relaxed);
    atomic_store_explicit(&l->lint_level, 0, memory_order_relaxed);
    registers_reset(l);
    /* Not the manual's reset value: on a PC the 8259 reaches the boot processor
     * before anybody has programmed the APIC, as chipsets' virtual wire and
     * other emulators have it. Masked, software that knows no APIC would get
     * no interrupts. */
    if (bsp)
        l->lvt[LVT_LINT0] = DELIVERY_EXTINT << LVT_MODE_SHIFT;
}

void lapic_init(struct lapic *l)
{
    /* 10.4.7.3: as after power-up, but for the id; IA32_APIC_BASE survives.
     * A SIPI sent since the INIT is in startup and survives too. */
    registers_reset(l);
}

/* ---- registers ---- */

static uint32_t words_read(const uint64_t *words, unsigned n)
{
    return (uint32_t)(words[n >> 1] >> (n & 1 ? 32 : 0));
}

/* False: no such register (or write-only). */
static bool register_read(struct lapic *l, unsigned reg, uint32_t *value)
{
    bool x2 = apic_x2apic(l);

    drain(l);
    switch (reg) {
    case REG_ID:
        *value = x2 ? lapic_id(l) : lapic_id(l) << 24;
        return true;
    case REG_VERSION:
        *value = APIC_VERSION_INTEGRATED | (LVT_COUNT - 1) << APIC_VERSION_MAX_LVT_SHIFT |
                 APIC_VERSION_EOI_SUPPRESSION;
        return true;
    case REG_TPR:
        *value = l->tpr;
        return true;
    case REG_PPR:
        *value = ppr(l);
        return true;
    case REG_EOI:
        *value = 0;
        return !x2;
    case REG_LDR:
        *value = x2 ? (lapic_id(l) >> 4) << 16 | 1u << (lapic_id(l) & 15) : l->ldr;
        return true;
    case REG_DFR:
        *value = l->dfr;
        return !x2;
    case REG_SVR:
        *value = l->svr;
        return true;
    case REG_ISR ... REG_ISR + 7:
        *value = words_read(l->isr, reg - REG_ISR);
        return true;
    case REG_TMR ... REG_TMR + 7:
        *value = words_read(l->tmr, reg - REG_TMR);
        return true;
    case REG_IRR ... REG_IRR + 7:
        *value = words_read(l->irr, reg - REG_IRR);
        return true;
    case REG_ESR:
        *value = l->esr_latched;
        return true;
    case REG_ICR:
        *value = (uint32_t)l->icr;
        return true;
    case REG_ICR_HIGH:
        *value = (uint32_t)(l->icr >> 32);
        return !x2;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        *value = lvt_read(l, reg - REG_LVT);
        return true;
    case REG_TIMER_INITIAL:
        *value = l->timer_initial;
        return true;
    case REG_TIMER_CURRENT:
        *value = apic_timer_current(l);
        return true;
    case REG_TIMER_DIVIDE:
        *value = l->timer_divide;
        return true;
    default:
        return false;
    }
}

static void eoi(struct lapic *l)
{
    int vector = highest(l->isr);

    if (vector < 0)
        return;
    bit_clear(l->isr, vector);
    priority_changed(l);
    if (!bit_test(l->tmr, vector))
        return;
    if ((l->lint_remote_irr & 1) && (l->lvt[LVT_LINT0] & LVT_VECTOR) == (uint32_t)vector) {
        l->lint_remote_irr &= ~1u;
        lint_level_again(l);
    }
    if (!(l->svr & SVR_SUPPRESS_EOI))
        apic_bus_eoi(l, vector);
}

static void svr_write(struct lapic *l, uint32_t value)
{
    l->svr = value & SVR_WRITABLE;
    l->c->recheck = true;
    if (!(l->svr & SVR_ENABLE)) {
        apic_timer_look(l);
        for (unsigned n = 0; n < LVT_COUNT; n++)
            l->lvt[n] |= LVT_MASKED;
        apic_timer_set_lvt(l, l->lvt[LVT_TIMER]);
    }
    address_publish(l);
}

static void icr_send(struct lapic *l)
{
    enum apic_delivery mode = l->icr >> ICR_MODE_SHIFT & 7;

    /* 10.5.3: an illegal vector is an error here, and is not sent. */
    if ((mode == DELIVERY_FIXED || mode == DELIVERY_LOWEST) && (l->icr & ICR_VECTOR) < 16) {
        apic_error(l, ESR_SEND_VECTOR);
        return;
    }
    apic_bus_ipi(l, (uint32_t)l->icr,
                 apic_x2apic(l) ? (uint32_t)(l->icr >> 32) : (uint32_t)(l->icr >> 56));
}

/* Reserved bits are #GP in x2APIC mode and ignored in xAPIC mode. False: no
 * such register, read-only, or reserved bits of an MSR. */
static bool register_write(struct lapic *l, unsigned reg, uint32_t value)
{
    bool x2 = apic_x2apic(l);

    drain(l);
    switch (reg) {
    case REG_TPR:
        if (x2 && value > 0xff)
            return false;
        l->tpr = value & 0xff;
        priority_changed(l);
        return true;
    case REG_EOI:
        if (x2 && value)
            return false;
        eoi(l);
        return true;
    case REG_LDR:
        if (x2)
            return false;
        l->ldr = value & 0xff000000u;
        address_publish(l);
        return true;
    case REG_DFR:
        if (x2)
            return false;
        l->dfr = value | 0x0fffffffu;
        address_publish(l);
        return true;
    case REG_SVR:
        if (x2 && (value & ~SVR_WRITABLE))
            return false;
        svr_write(l, value);
        return true;
    case REG_ESR:
        if (x2 && value)
            return false;
        l->esr_latched = l->esr;
        l->esr = 0;
        return true;
    case REG_ICR:
        if (x2)
            return false; /* 64 bits wide: lapic_msr_write */
        l->icr = (l->icr & ~0xffffffffull) | (value & ICR_WRITABLE);
        icr_send(l);
        return true;
    case REG_ICR_HIGH:
        if (x2)
            return false;
        l->icr = (uint32_t)l->icr | (uint64_t)(value & 0xff000000u) << 32;
        return true;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        return lvt_write(l, reg - REG_LVT, value);
    case REG_TIMER_INITIAL:
        apic_timer_look(l);
        apic_timer_set_initial(l, value);
        return true;
    case REG_TIMER_DIVIDE:
        if (x2 && (value & ~0xbu))
            return false;
        apic_timer_set_divide(l, value);
        return true;
    case REG_SELF_IPI:
        if (!x2 || value > 0xff)
            return false;
        if (value < 16)
            apic_error(l, ESR_SEND_VECTOR);
        else
            apic_post(l, DELIVERY_FIXED, value, false);
        return true;
    default:
        return false;
    }
}

/* ---- xAPIC page ---- */

bool lapic_page_match(const struct lapic *l, gpa_t gpa)
{
    return apic_page_is(l, gpa);
}

/* In a register's 16 bytes the low four mean something (10.4.1). */
uint32_t lapic_mmio_read(struct lapic *l, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    if ((offset & 0xf) >= 4)
        return 0;
    if (!register_read(l, offset >> 4 & 0xff, &value)) {
        value = 0;
        apic_error(l, ESR_REGISTER);
    }
    return (uint32_t)zext(value >> (offset & 3) * 8, size);
}

void lapic_mmio_write(struct lapic *l, unsigned offset, uint32_t value, unsigned size)
{
    unsigned reg = offset >> 4 & 0xff;

    /* 10.4.1: 32-bit accesses, aligned to 16 bytes; what others do is
     * undefined. */
    if ((offset & 0xf) || size < 4) {
        x86_log(l->c, APIC, GUEST, "cpu %u: write of %u bytes at offset %#x ignored",
                l->c->vcpu.index, size, offset);
        return;
    }
    if (register_write(l, reg, value))
        return;
    switch (reg) {
    case REG_ID: /* read-only, as in all processors with x2APIC */
    case REG_VERSION:
    case REG_PPR:
    case REG_ISR ... REG_ISR + 7:
    case REG_TMR ... REG_TMR + 7:
    case REG_IRR ... REG_IRR + 7:
    case REG_TIMER_CURRENT:
        break;
    default:
        apic_error(l, ESR_REGISTER);
    }
}

/* ---- x2APIC MSRs (10.12.1) ---- */

bool lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value)
{
    unsigned reg = msr & 0xff;
    uint32_t v;

    if (!apic_x2apic(l) || !register_read(l, reg, &v))
        return false;
    *value = reg == REG_ICR ? l->icr : v;
    return true;
}

bool lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value)
{
    unsigned reg = msr & 0xff;

    if (!apic_x2apic(l))
        return false;
    if (reg == REG_ICR) {
        /* 10.12.9: no delivery status; the whole high half is the destination. */
        if ((uint32_t)value & ~ICR_WRITABLE)
            return false;
        drain(l);
        l->icr = value;
        icr_send(l);
        return true;
    }
    return !(value >> 32) && register_write(l, reg, (uint32_t)value);
}

/* ---- IA32_APIC_BASE (10.4.4, 10.12.5) ---- */

uint64_t lapic_base_msr(const struct lapic *l)
{
    return l->base;
}

bool lapic_set_base_msr(struct lapic *l, uint64_t value)
{
    const struct x86_model *m = l->c->model;
    uint64_t allowed = BITS(m->phys_bits - 1, 12) | APIC_BASE_BSP | APIC_BASE_EN;
    bool was_on = l->base & APIC_BASE_EN, was_x2 = l->base & APIC_BASE_EXTD;
    bool on = value & APIC_BASE_EN, x2 = value & APIC_BASE_EXTD;

    if (x86_model_has(m, X86_FEAT_X2APIC))
        allowed |= APIC_BASE_EXTD;
    if (value & ~allowed)
        return false;
    /* Figure 10-27: x2APIC is entered from xAPIC and left to disabled only;
     * EXTD without EN is no mode. */
    if ((x2 && !on) || (was_x2 && on && !x2) || (!was_on && x2))
        return false;
    drain(l);
    if ((l->base ^ value) & BITS(63, 10))
        x86_tlb_flush_all(l->c); /* what is at the old and the new page changes */
    l->base = value;
    if (was_on && !on)
        registers_reset(l); /* 10.4.3: its state is lost */
    else if (!was_x2 && x2)
        l->icr = (uint32_t)l->icr;
    address_publish(l);
    vcpu_post(&l->c->vcpu, EVENT_INTERRUPT);
    return true;
}

uint8_t lapic_cr8(const struct lapic *l)
{
    return l->tpr >> 4;
}

void lapic_set_cr8(struct lapic *l, uint8_t v)
{
    l->tpr = (uint32_t)(v & 0xf) << 4;
    priority_changed(l);
}

uint32_t lapic_id(const struct lapic *l)
{
    return l->c->vcpu.index;
}

/* ---- interrupts to the processor ---- */

bool lapic_has_interrupt(struct lapic *l)
{
    drain(l);
    return apic_hardware_enabled(l) && deliverable(l) >= 0;
}

int lapic_accept(struct lapic *l)
{
    int vector = apic_hardware_enabled(l) ? deliverable(l) : -1;

    if (vector < 0)
        return -1;
    bit_clear(l->irr, vector);
    bit_set(l->isr, vector);
    atomic_store_explicit(&l->priority, ppr(l), memory_order_relaxed);
    return vector;
}

bool lapic_accepts_extint(const struct lapic *l)
{
    if (!apic_hardware_enabled(l) || l->extint)
        return true;
    return (l->lvt[LVT_LINT0] & (LVT_MASKED | LVT_MODE)) == DELIVERY_EXTINT << LVT_MODE_SHIFT;
}

/* ---- life and state ---- */

struct lapic *lapic_create(struct x86_vcpu *c, struct error *err)
{
    struct lapic *l = calloc(1, sizeof *l);

    if (!l) {
        error_set(err, -ENOMEM, "no memory for the local APIC of processor %u", c->vcpu.index);
        return NULL;
    }
    l->c = c;
    apic_timer_create(l);
    lapic_reset(l);
    return l;
}

void lapic_destroy(struct lapic *l)
{
    if (!l)
        return;
    timer_destroy(&l->timer);
    free(l);
}

static void before_save(void *self)
{
    struct lapic *l = self;
    uint32_t words = INBOX_WORDS;

    /* The processor is stopped: its thread's work may be done here. What is
     * left in the inbox acts on other state than this one's and is saved. */
    take_requests(l, words);
    atomic_fetch_and_explicit(&l->inbox, ~words, memory_order_relaxed);
    for (unsigned w = 0; w < APIC_WORDS; w++)
        atomic_store_explicit(&l->level[w], 0, memory_order_relaxed);
}

static int after_load(void *self, unsigned version)
{
    struct lapic *l = self;
    uint32_t startup, events = EVENT_INTERRUPT;
    uint64_t mode = l->base & (APIC_BASE_EN | APIC_BASE_EXTD);

    if (mode == APIC_BASE_EXTD || (l->base & ~BITS(51, 8)) || l->tpr > 0xff ||
        (l->svr & ~SVR_WRITABLE) || (l->icr & ~ICR_WRITABLE & 0xffffffffu) ||
        (l->timer_divide & ~0xbu) || (l->irr[0] | l->isr[0]) & 0xffff)
        return -EINVAL;
    for (unsigned n = 0; n < LVT_COUNT; n++)
        if (l->lvt[n] & ~lvt_writable[n])
            return -EINVAL;
    for (unsigned w = 0; w < APIC_WORDS; w++) {
        atomic_store_explicit(&l->request[w], 0, memory_order_relaxed);
        atomic_store_explicit(&l->level[w], 0, memory_order_relaxed);
    }
    l->timer_armed_ns = l->timer.deadline_ns;
    address_publish(l);
    atomic_store_explicit(&l->priority, ppr(l), memory_order_relaxed);
    startup = atomic_load_explicit(&l->startup, memory_order_relaxed);
    if (startup & STARTUP_INIT)
        events |= EVENT_INIT;
    if (startup & STARTUP_SIPI)
        events |= EVENT_STARTUP;
    vcpu_post(&l->c->vcpu, events);
    return 0;
}

/* Not here: address and priority follow from the rest; request and level are
 * merged into IRR and TMR before saving. */
static const struct state_field lapic_fields[] = {
    STATE_INT(struct lapic, base),          STATE_INT(struct lapic, tpr),
    STATE_INT(struct lapic, ldr),           STATE_INT(struct lapic, dfr),
    STATE_INT(struct lapic, svr),           STATE_INT(struct lapic, esr),
    STATE_INT(struct lapic, esr_latched),   STATE_INT(struct lapic, icr),
    STATE_INTS(struct lapic, lvt),          STATE_INTS(struct lapic, irr),
    STATE_INTS(struct lapic, isr),          STATE_INTS(struct lapic, tmr),
    STATE_INT(struct lapic, extint),        STATE_INT(struct lapic, lint_remote_irr),
    STATE_INT(struct lapic, timer_initial), STATE_INT(struct lapic, timer_count),
    STATE_INT(struct lapic, timer_divide),  STATE_INT(struct lapic, timer_tick),
    STATE_INT(struct lapic, tsc_deadline),  STATE_TIMER(struct lapic, timer),
    STATE_INT(struct lapic, inbox),         STATE_INT(struct lapic, startup),
    STATE_INT(struct lapic, lint_level),    STATE_END,
};

const struct state_table lapic_state = {
    .name = "lapic",
    .version = 1,
    .fields = lapic_fields,
    .before_save = before_save,
    .after_load = after_load,
};
