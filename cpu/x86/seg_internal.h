/*
 * What the files on segments, control transfers, interrupts and tasks share:
 * descriptors, stacks that are written as a whole, committing a new CS and SS.
 *
 * A transfer is planned first (read descriptors, check, probe the stack), and
 * written after the last thing that can fault.
 */
#ifndef CPU_X86_SEG_INTERNAL_H
#define CPU_X86_SEG_INTERNAL_H

#include "cpu/x86/debug.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/seg.h"

/* System descriptor types (SDM Vol. 3, table 3-2). */
enum x86_system_type {
    SYS_TSS16 = 0x1,
    SYS_LDT = 0x2,
    SYS_TSS16_BUSY = 0x3,
    SYS_CALL_GATE16 = 0x4,
    SYS_TASK_GATE = 0x5,
    SYS_INT_GATE16 = 0x6,
    SYS_TRAP_GATE16 = 0x7,
    SYS_TSS32 = 0x9, /* and the 64-bit one */
    SYS_TSS32_BUSY = 0xb,
    SYS_CALL_GATE32 = 0xc,
    SYS_INT_GATE32 = 0xe,
    SYS_TRAP_GATE32 = 0xf,
    SYS_TSS_BUSY_BIT = 0x2,
    SYS_386_BIT = 0x8, /* 32-bit TSS and gates */
};

enum x86_selector { SELECTOR_RPL = 3, SELECTOR_TI = 4 };

/* Bits of an error code that names a selector (SDM Vol. 3, 6.13). */
enum x86_selector_error { ERROR_EXT = 1, ERROR_IDT = 2 };

static inline bool selector_null(uint16_t selector)
{
    return (selector & ~SELECTOR_RPL) == 0;
}

/* ---- descriptors as they lie in memory ---- */

static inline uint32_t desc_attr(uint64_t raw)
{
    return (uint32_t)(raw >> 40) & 0xf0ff;
}

static inline unsigned desc_dpl(uint64_t raw)
{
    return raw >> 45 & 3;
}

static inline unsigned desc_type(uint64_t raw)
{
    return raw >> 40 & 0xf;
}

static inline bool desc_present(uint64_t raw)
{
    return raw >> 47 & 1;
}

/* Code or data (S set). */
static inline bool desc_segment(uint64_t raw)
{
    return raw >> 44 & 1;
}

static inline bool desc_code(uint64_t raw)
{
    return (raw >> 43 & 3) == 3;
}

static inline bool desc_conforming(uint64_t raw)
{
    return desc_attr(raw) & SEG_CONFORMING;
}

static inline bool desc_writable_data(uint64_t raw)
{
    return desc_segment(raw) && !desc_code(raw) && (desc_attr(raw) & SEG_WRITABLE);
}

static inline uint32_t desc_base(uint64_t raw)
{
    return (uint32_t)((raw >> 16 & 0xffffff) | (raw >> 32 & 0xff000000));
}

static inline uint32_t desc_limit(uint64_t raw)
{
    uint32_t limit = (uint32_t)((raw & 0xffff) | (raw >> 32 & 0xf0000));

    return raw >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

static inline bool desc_code64(uint64_t raw)
{
    return desc_attr(raw) & SEG_L;
}

/* A gate: target selector, offset as far as 8 bytes hold it. */
static inline uint16_t gate_selector(uint64_t raw)
{
    return (uint16_t)(raw >> 16);
}

static inline uint32_t gate_offset(uint64_t raw)
{
    uint32_t offset = raw & 0xffff;

    return desc_type(raw) & SYS_386_BIT ? offset | (uint32_t)(raw >> 32 & 0xffff0000) : offset;
}

/* Raises with the selector as error code, and EXT if an event is in delivery. */
_Noreturn void seg_raise(struct x86_vcpu *c, enum x86_vector vector, uint32_t selector);

/* Where the descriptor lies; false: beyond its table, or no LDT. bytes: 8, 16. */
bool seg_locate(const struct x86_vcpu *c, uint16_t selector, unsigned bytes, gva_t *gva);
/* Reads 8 bytes of it; vector(selector) is raised if seg_locate fails. */
uint64_t seg_fetch(struct x86_vcpu *c, uint16_t selector, enum x86_vector vector);
/* The upper 8 bytes of a 16-byte descriptor in long mode; its type must be 0. */
uint64_t seg_fetch_upper(struct x86_vcpu *c, uint16_t selector, enum x86_vector vector);
/* Sets the accessed bit in memory and in *raw. */
void seg_touch(struct x86_vcpu *c, uint16_t selector, uint64_t *raw);
void seg_fill(struct x86_seg *s, uint16_t selector, uint64_t raw);
/* Null selector: unusable. dpl matters for SS in 64-bit mode. */
void seg_fill_null(struct x86_seg *s, uint16_t selector, unsigned dpl);
/* As real and V86 mode have it: 64 KiB of read-write data. */
void seg_fill_v86(struct x86_seg *s, uint16_t selector);

/*
 * The checks that all loads of SS share, for privilege level cpl: table limit,
 * RPL, DPL, writable data (vector), present (#SS). Does not touch.
 */
uint64_t seg_check_ss(struct x86_vcpu *c, uint16_t selector, unsigned cpl, enum x86_vector vector);

/* #GP(0) unless code of that descriptor can be entered at rip: limit, or
 * canonical for 64-bit code. Returns what RIP becomes: outside 64-bit code the
 * pseudocode of IRET and RET looks at EIP only, also of a 64-bit frame. */
uint64_t seg_check_target(struct x86_vcpu *c, uint64_t raw, uint64_t rip);

/* The code segment that RET or IRET returns to, fully checked but for its limit. */
uint64_t seg_return_code(struct x86_vcpu *c, uint16_t selector);

/* Data segments that the outer level must not see become null (RET, IRET). */
void seg_hide_inner(struct x86_vcpu *c, unsigned cpl);

/* ---- stacks ---- */

struct x86_stack {
    struct x86_seg ss;
    uint64_t sp;
    bool long64; /* 64-bit mode: no segment, canonical addresses */
    bool user;   /* belongs to CPL 3 */
    uint32_t error; /* selector for #SS if it is too small */
};

/* The running program's stack. */
struct x86_stack stack_current(const struct x86_vcpu *c);

static inline uint64_t stack_mask(const struct x86_stack *st)
{
    return st->long64 ? ~0ull : st->ss.attr & SEG_DB ? 0xffffffff : 0xffff;
}

/*
 * Pushes count values of size bytes, the first one first, all or none; sp
 * moves. Raises #SS and #PF.
 */
void stack_push_all(struct x86_vcpu *c, struct x86_stack *st, const uint64_t *values,
                    unsigned count, unsigned size);

/* Pops from the running program's stack without moving it: the n-th value
 * above `skip` bytes. */
uint64_t stack_value(struct x86_vcpu *c, unsigned n, unsigned size, unsigned skip);

/*
 * The stack of an inner privilege level from the TSS (SDM Vol. 3, 5.8.5);
 * ist: 1..7 in long mode, else 0. Raises #TS and #SS. *ss_raw is its
 * descriptor (0 in long mode), still to be touched.
 */
struct x86_stack stack_inner(struct x86_vcpu *c, unsigned cpl, unsigned ist, uint64_t *ss_raw);

/* The stack of level cpl that RET or IRET pops (st->sp is the caller's); to_64:
 * its code is 64-bit. *ss_raw as above. */
void seg_outer_stack(struct x86_vcpu *c, struct x86_stack *st, uint16_t selector, unsigned cpl,
                     bool to_64, uint64_t *ss_raw);

/* RSP by the width of the (already loaded) stack: SP, ESP or RSP. */
static inline void stack_commit(struct x86_vcpu *c, const struct x86_stack *st)
{
    uint64_t mask = stack_mask(st);

    if (mask == 0xffff)
        X86_REG16(c, X86_RSP * 8) = (uint16_t)st->sp;
    else
        c->s.reg[X86_RSP] = st->sp & mask;
}

/* ---- flags ---- */

/* RFLAGS as a whole; recheck and derived state are the caller's. */
static inline void flags_set(struct x86_vcpu *c, uint64_t f)
{
    c->s.cc = x86_rflags_to_cc(f);
    c->s.rflags = (f & ~(uint64_t)FLAG_STATUS) | FLAG_R1;
}

/* Something that can let an interrupt in has happened: IF set, NMI unmasked. */
static inline void seg_recheck(struct x86_vcpu *c)
{
    if ((c->irq_held && (c->s.rflags & FLAG_IF)) || c->s.nmi_pending)
        c->recheck = true;
}

/* The image of RFLAGS that an event pushes. A fault must not meet the breakpoint
 * again that was served before it (SDM Vol. 3, 18.3.1.1). */
static inline uint64_t x86_event_flags(const struct x86_vcpu *c, enum x86_event_kind kind)
{
    return x86_rflags(&c->s) | (kind == X86_EVENT_FAULT ? FLAG_RF : 0);
}

/* ---- the usual transfers of 64-bit mode: transfer64.c ---- */

/* False: not as usual, and nothing has been written. flags: the image to push. */
bool event_through_gate64(struct x86_vcpu *c, uint8_t vector, bool software, bool has_error,
                          uint32_t error, uint64_t return_rip, uint64_t flags);
/* mask: the flags that are loaded. */
bool iretq_to_code64(struct x86_vcpu *c, uint64_t mask);

/* ---- V86, tasks ---- */

/* x86_task_switch, with RF in the EFLAGS image that is saved. */
void task_switch(struct x86_vcpu *c, uint16_t selector, enum x86_task_reason reason,
                 uint64_t return_rip, bool has_error, uint32_t error, bool rf);

/* An instruction without effect, at offset 0: what c->cur is outside of any. */
extern const struct x86_insn x86_no_insn;

#endif
