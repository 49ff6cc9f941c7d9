/*
 * Interrupts at instruction boundaries, and the events of the doorbell.
 * See interrupt.h.
 */
#include "cpu/x86/interrupt.h"

#include <stdatomic.h>

#include "cpu/x86/apic.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/vec/vec.h"

static bool extint_pending(struct x86_vcpu *c)
{
    return atomic_load_explicit(&c->intr_level, memory_order_acquire) &&
           lapic_accepts_extint(c->lapic);
}

static void take_nmi(struct x86_vcpu *c)
{
    if (atomic_load_explicit(&c->nmi_inbox, memory_order_relaxed)) {
        atomic_store_explicit(&c->nmi_inbox, 0, memory_order_relaxed);
        c->s.nmi_pending = 1;
    }
}

bool x86_deliver_interrupt(struct x86_vcpu *c)
{
    int vector;

    take_nmi(c);
    /* MOV SS holds back everything; STI holds back maskable interrupts, and
     * NMI too on some processors (SDM Vol. 3, 6.8.3): here it does. */
    if (c->s.shadow)
        return false;
    if (c->s.nmi_pending && !c->s.nmi_masked) {
        c->s.nmi_pending = 0;
        c->s.nmi_masked = 1;
        x86_deliver(c, X86_EVENT_EXTERNAL, VEC_NMI, false, 0);
        return true;
    }
    if (!c->recheck)
        return false;
    if (!(c->s.rflags & FLAG_IF)) {
        c->recheck = false;
        c->irq_held = true;
        return false;
    }
    if (lapic_has_interrupt(c->lapic)) {
        vector = lapic_accept(c->lapic);
        if (vector >= 0) {
            x86_deliver(c, X86_EVENT_EXTERNAL, (uint8_t)vector, false, 0);
            return true; /* there may be more: recheck stays */
        }
    }
    if (extint_pending(c) && c->intr_ack) {
        vec_leave(c);
        x86_deliver(c, X86_EVENT_EXTERNAL, c->intr_ack(c->intr_ack_ctx), false, 0);
        return true;
    }
    c->recheck = c->irq_held = false;
    return false;
}

bool x86_has_wakeup(struct x86_vcpu *c)
{
    take_nmi(c);
    if (c->s.activity == X86_RUNNING)
        return true;
    if (atomic_load(&c->vcpu.events) & (EVENT_INIT | EVENT_STARTUP))
        return true;
    if (c->s.activity != X86_HALTED)
        return false;
    if (c->s.nmi_pending && !c->s.nmi_masked)
        return true;
    if (!(c->s.rflags & FLAG_IF))
        return false;
    return lapic_has_interrupt(c->lapic) || extint_pending(c);
}

static void startup(struct x86_vcpu *c)
{
    lapic_take_startup(c->lapic);
    if (c->s.init_pending) {
        c->s.init_pending = 0;
        x86_vcpu_init(c);
    }
    if (c->s.sipi_pending) {
        c->s.sipi_pending = 0;
        if (c->s.activity != X86_WAIT_SIPI)
            return;
        /* SDM Vol. 3, 8.4.4.1: execution starts at 000VV000H. */
        c->s.seg[X86_CS].selector = (uint16_t)(c->s.sipi_vector << 8);
        c->s.seg[X86_CS].base = (uint64_t)c->s.sipi_vector << 12;
        c->s.reg[X86_RIP] = 0;
        c->s.activity = X86_RUNNING;
        x86_state_changed(c);
    }
}

bool x86_handle_events(struct x86_vcpu *c, uint32_t events)
{
    if (events & EVENT_FLUSH)
        x86_tlb_reset(c);
    else if (events & EVENT_REVOKE)
        x86_tlb_revoke_writes(c);
    if (events & EVENT_CODE) {
        vec_leave(c);
        vcpu_drain_code(&c->vcpu);
    }
    if (events & (EVENT_INIT | EVENT_STARTUP))
        startup(c);
    if (events & EVENT_INTERRUPT)
        c->recheck = true;
    if (events & EVENT_EXCLUSIVE) {
        vcpu_leave(&c->vcpu);
        vcpu_enter(&c->vcpu);
    }
    return events & EVENT_PAUSE;
}
