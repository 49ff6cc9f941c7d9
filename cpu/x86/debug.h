/*
 * Debug registers and the debug exception #DB (SDM Vol. 3, chapter 18).
 *
 * Traps (single step, data and I/O breakpoints, a task's T bit) are collected
 * in x86_cpu.pending_db while an instruction runs and delivered at the
 * boundary behind it; code breakpoints are faults, found before an instruction
 * runs. MOV DRn (x86_dr_read, x86_dr_write) is in msr.h.
 *
 * A loop that runs one instruction at a time (c->slow) does, for each:
 *
 *     x86_deliver_pending_db(c);          holds back behind MOV SS
 *     ... NMI, interrupts ...
 *     if (x86_code_breakpoint(c, linear address of RIP))
 *         start over;                     #DB was delivered
 *     x86_step_begin(c);                  remembers TF, consumes RF
 *     shadow = s.shadow, s.shadow = 0;
 *     ... the instruction ...             a fault calls nothing more
 *     x86_step_end(c);                    may add BS to pending_db
 *
 * Threading: the processor's own thread.
 */
#ifndef CPU_X86_DEBUG_H
#define CPU_X86_DEBUG_H

#include "cpu/x86/vcpu.h"

enum x86_dr6 {
    DR6_B0 = 1 << 0, /* B1..B3 follow */
    DR6_B = 0xf,
    DR6_BD = 1 << 13, /* MOV DR while DR7.GD */
    DR6_BS = 1 << 14, /* single step */
    DR6_BT = 1 << 15, /* task switch to a TSS with T set */
    DR6_WRITABLE = DR6_B | DR6_BD | DR6_BS | DR6_BT,
};
/* Always one: bits 4..11; RTM (16) and bus lock detect, which we do not have. */
#define DR6_ONES 0xffff0ff0ull

enum x86_dr7 {
    DR7_L0 = 1 << 0, /* L0 G0 L1 G1 L2 G2 L3 G3 */
    DR7_ENABLES = 0xff,
    DR7_LOCAL = 0x55,
    DR7_LE = 1 << 8,
    DR7_GE = 1 << 9,
    DR7_ONE = 1 << 10, /* always one */
    DR7_GD = 1 << 13,
    DR7_RW0_SHIFT = 16, /* 4 bits a breakpoint: R/W, then LEN */
};
#define DR7_WRITABLE 0xffff23ffull

enum x86_dr7_rw { DR7_EXECUTE, DR7_WRITE, DR7_IO, DR7_ACCESS };

static inline bool x86_dr7_enabled(uint64_t dr7, unsigned n)
{
    return dr7 >> (2 * n) & 3;
}

static inline enum x86_dr7_rw x86_dr7_rw(uint64_t dr7, unsigned n)
{
    return (enum x86_dr7_rw)(dr7 >> (DR7_RW0_SHIFT + 4 * n) & 3);
}

/* 1, 2, 4 or 8 (SDM Vol. 3, 18.2.4: 10B is 8 bytes). */
static inline unsigned x86_dr7_bytes(uint64_t dr7, unsigned n)
{
    static const uint8_t bytes[4] = {1, 2, 8, 4};

    return bytes[dr7 >> (DR7_RW0_SHIFT + 2 + 4 * n) & 3];
}

static inline bool x86_any_breakpoint(const struct x86_cpu *s)
{
    return s->dr7 & DR7_ENABLES;
}

/* What makes a processor go one instruction at a time, as far as debugging is
 * concerned; x86_state_changed asks. */
static inline bool x86_debug_slow(const struct x86_cpu *s)
{
    const uint64_t virtual_interrupt = FLAG_VIF | FLAG_VIP;

    return (s->rflags & (FLAG_TF | FLAG_RF)) || s->pending_db || x86_any_breakpoint(s) ||
           (s->rflags & virtual_interrupt) == virtual_interrupt;
}

/* True if accesses to that page must be shown to x86_data_breakpoint. */
bool x86_page_has_breakpoint(const struct x86_cpu *s, gva_t gva);

/* Before the instruction at lin: true if #DB (or the #GP of a virtual interrupt,
 * VIF and VIP both set) was delivered instead of it. */
bool x86_code_breakpoint(struct x86_vcpu *c, gva_t lin);

/* After the access has succeeded (or where it no longer can fault). */
void x86_data_breakpoint(struct x86_vcpu *c, gva_t lin, unsigned bytes, bool write);
void x86_io_breakpoint(struct x86_vcpu *c, uint16_t port, unsigned bytes);

/* Delivers pending traps; true if it did. Nothing while MOV SS shadows. */
bool x86_deliver_pending_db(struct x86_vcpu *c);

/* #DB has been delivered for another reason (INT1): it reports what MOV SS
 * held back as well. A second #DB on the handler's first instruction would
 * overwrite the first one's frame where the gate has a stack of its own. */
void x86_merge_pending_db(struct x86_vcpu *c);

/* Around one instruction. */
void x86_step_begin(struct x86_vcpu *c);
void x86_step_end(struct x86_vcpu *c);

/* For instructions that themselves decide whether a single step follows them
 * (INT n and SYSCALL, which clear TF: no; SYSRET, which sets it: yes). */
void x86_step_override(struct x86_vcpu *c, bool trap);

#endif
