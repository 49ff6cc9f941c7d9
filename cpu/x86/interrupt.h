/*
 * Which interrupt a processor takes at an instruction boundary (SDM Vol. 3,
 * 6.9, table 6-2). Threading: the processor's own thread.
 */
#ifndef CPU_X86_INTERRUPT_H
#define CPU_X86_INTERRUPT_H

#include "cpu/x86/vcpu.h"

/* NMI or a maskable interrupt, if one is due and nothing holds it back:
 * delivers it. Clears c->recheck when nothing is left that could come without
 * a new event or a change of IF. */
bool x86_deliver_interrupt(struct x86_vcpu *c);

/* A halted processor has a reason to go on. */
bool x86_has_wakeup(struct x86_vcpu *c);

/*
 * Handles what vcpu_take_events returned, as far as it is the processor's:
 * flushes, stale code, INIT, SIPI. True: run() has to return (pause).
 */
bool x86_handle_events(struct x86_vcpu *c, uint32_t events);

#endif
