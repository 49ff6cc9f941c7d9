/*
 * Segmentation and control transfers between segments and privilege levels
 * (SDM Vol. 3, chapters 3, 5, 6 and 7). All raise; all leave state untouched
 * when they do, except where a task switch is past its point of no return.
 */
#ifndef CPU_X86_SEG_H
#define CPU_X86_SEG_H

#include "cpu/x86/vcpu.h"

/* MOV/POP/LxS to a segment register (not CS): checks by mode, loads. */
void x86_load_seg(struct x86_vcpu *c, enum x86_seg_index seg, uint16_t selector);
/* Real and V86 mode: base = selector << 4. */
void x86_load_seg_real(struct x86_vcpu *c, enum x86_seg_index seg, uint16_t selector);

/* Far transfers of the current instruction; size = operand size in bytes.
 * They set CS, RIP (and SS, RSP, CPL, flags) and call x86_state_changed. */
void x86_far_jump(struct x86_vcpu *c, uint16_t selector, uint64_t offset, unsigned size,
                  uint64_t return_rip);
void x86_far_call(struct x86_vcpu *c, uint16_t selector, uint64_t offset, unsigned size,
                  uint64_t return_rip);
void x86_far_return(struct x86_vcpu *c, unsigned size, unsigned pop_bytes);
void x86_iret(struct x86_vcpu *c, unsigned size);
void x86_syscall(struct x86_vcpu *c, uint64_t return_rip);
void x86_sysret(struct x86_vcpu *c, unsigned size);
void x86_sysenter(struct x86_vcpu *c);
void x86_sysexit(struct x86_vcpu *c, unsigned size);

void x86_lldt(struct x86_vcpu *c, uint16_t selector);
void x86_ltr(struct x86_vcpu *c, uint16_t selector);
/* LAR, LSL, VERR, VERW: false leaves ZF clear. */
bool x86_lar(struct x86_vcpu *c, uint16_t selector, uint32_t *rights);
bool x86_lsl(struct x86_vcpu *c, uint16_t selector, uint32_t *limit);
bool x86_verify(struct x86_vcpu *c, uint16_t selector, bool write);

enum x86_task_reason { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_INTERRUPT };

/* Hardware task switch (SDM Vol. 3, 7.3). */
void x86_task_switch(struct x86_vcpu *c, uint16_t tss_selector, enum x86_task_reason reason,
                     uint64_t return_rip, bool has_error, uint32_t error);

/* I/O permission by IOPL and the TSS bitmap: raises #GP(0). */
void x86_check_io(struct x86_vcpu *c, uint16_t port, unsigned size);

/* Writes flags as POPF/IRET may at the current privilege: mask = which bits. */
void x86_write_rflags(struct x86_vcpu *c, uint64_t value, uint64_t mask);

#endif
