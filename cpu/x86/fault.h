/*
 * Faults and interrupts (SDM Vol. 3, chapter 6).
 *
 * An instruction that faults calls x86_raise*(); the call does not return: it
 * unwinds to the engine's loop, which delivers the fault with the RIP of the
 * current instruction (c->cur). Nothing architectural may have been written
 * before. Delivery itself may fault; x86_deliver_fault then makes a double
 * fault or a shutdown of it as table 6-5 says.
 */
#ifndef CPU_X86_FAULT_H
#define CPU_X86_FAULT_H

#include "cpu/x86/vcpu.h"

_Noreturn void x86_raise(struct x86_vcpu *c, enum x86_vector vector);
_Noreturn void x86_raise_error(struct x86_vcpu *c, enum x86_vector vector, uint32_t error);
/* Sets CR2. */
_Noreturn void x86_raise_page_fault(struct x86_vcpu *c, gva_t address, uint32_t error);

static inline _Noreturn void x86_raise_ud(struct x86_vcpu *c)
{
    x86_raise(c, VEC_UD);
}

static inline _Noreturn void x86_raise_gp(struct x86_vcpu *c, uint32_t error)
{
    x86_raise_error(c, VEC_GP, error);
}

/* What brings control to an interrupt gate: decides the EXT bit, DPL checks,
 * the saved RIP and RF. */
enum x86_event_kind {
    X86_EVENT_EXTERNAL, /* hardware interrupt, NMI */
    X86_EVENT_FAULT,    /* exception; saved RIP is the instruction's */
    X86_EVENT_TRAP,     /* #DB trap class: like FAULT, RIP already advanced, RF clear */
    X86_EVENT_SOFT_INT, /* INT n, INT3, INTO: gate DPL checked, no EXT */
    X86_EVENT_INT1,     /* ICEBP: no DPL check */
};

/* x86_insn.aux of INT3 and INTO: V86 mode extensions redirect INT n only. */
enum { X86_INT_NOT_REDIRECTED = 1 };

/*
 * Delivers one event through the IDT (or IVT in real mode): called with
 * reg[X86_RIP] == the RIP to save, outside of any instruction (c->cur is
 * NULL). Faults raised meanwhile unwind to a setjmp of its own and are
 * combined; on a triple fault activity becomes X86_SHUTDOWN. Afterwards
 * x86_state_changed() has been called.
 */
void x86_deliver(struct x86_vcpu *c, enum x86_event_kind kind, uint8_t vector, bool has_error,
                 uint32_t error);

/* The body, for INT n inside an instruction (return_rip: next instruction);
 * faults go to the caller's unwind. */
void x86_interrupt(struct x86_vcpu *c, enum x86_event_kind kind, uint8_t vector, bool has_error,
                   uint32_t error, uint64_t return_rip);

#endif
