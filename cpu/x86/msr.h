/*
 * Model-specific registers as one table (SDM Vol. 4), and control registers.
 */
#ifndef CPU_X86_MSR_H
#define CPU_X86_MSR_H

#include "cpu/x86/vcpu.h"
#include "cpu/x86/vec/vec.h"

/* False: #GP(0) (unknown, logged once; reserved bits; read-only). */
bool x86_msr_read(struct x86_vcpu *c, uint32_t msr, uint64_t *value);
bool x86_msr_write(struct x86_vcpu *c, uint32_t msr, uint64_t value);

/* Before a look at the machine's clock: a host without an invariant TSC is asked
 * through the C library. */
static inline void x86_clock_leave(struct x86_vcpu *c)
{
    if (unlikely(!c->vm->clock.uses_host_tsc && !c->vm->clock.deterministic))
        vec_leave(c);
}

/* The guest's TSC now: clock + TSC_ADJUST. */
uint64_t x86_tsc(struct x86_vcpu *c);

/* MOV to control and debug registers: all checks (#GP), effects, flushes,
 * x86_state_changed. CR8 is the local APIC's TPR. */
uint64_t x86_cr_read(struct x86_vcpu *c, unsigned n);
void x86_cr_write(struct x86_vcpu *c, unsigned n, uint64_t value);
void x86_clts(struct x86_vcpu *c);
void x86_lmsw(struct x86_vcpu *c, uint16_t value);
uint64_t x86_dr_read(struct x86_vcpu *c, unsigned n);
void x86_dr_write(struct x86_vcpu *c, unsigned n, uint64_t value);
/* XSETBV; raises #GP. */
void x86_xsetbv(struct x86_vcpu *c, uint32_t index, uint64_t value);
/* Values of a freshly reset processor for everything in the MSR table. */
void x86_msr_reset(struct x86_vcpu *c, bool init_only);

#endif
