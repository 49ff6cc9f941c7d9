/*
 * Raising faults, and delivering events with all that can go wrong on the way:
 * double fault and shutdown (SDM Vol. 3, 6.15, table 6-5). The delivery of one
 * event through the IDT is in gate.c.
 *
 * Interface in fault.h. Threading: the processor's own thread.
 */
#include "cpu/x86/seg_internal.h"
#include "cpu/x86/vec/vec.h"

const struct x86_insn x86_no_insn = {0};

/* ---- raising ---- */

static _Noreturn void unwind(struct x86_vcpu *c, enum x86_vector vector, bool has_error,
                             uint32_t error)
{
    c->fault_vector = (uint8_t)vector;
    c->fault_has_error = has_error;
    c->fault_error = error;
    c->delivery_error = 0;
    x86_throw(&c->unwind);
}

void x86_raise(struct x86_vcpu *c, enum x86_vector vector)
{
    unwind(c, vector, false, 0);
}

void x86_raise_error(struct x86_vcpu *c, enum x86_vector vector, uint32_t error)
{
    unwind(c, vector, true, error);
}

void x86_raise_page_fault(struct x86_vcpu *c, gva_t address, uint32_t error)
{
    c->s.cr2 = address;
    unwind(c, VEC_PF, true, error);
}

/* ---- delivering ---- */

struct event {
    enum x86_event_kind kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
};

/* Table 6-4. Interrupts are benign whatever their number. */
enum severity { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum severity severity_of(const struct event *e)
{
    if (e->kind != X86_EVENT_FAULT)
        return BENIGN;
    switch (e->vector) {
    case VEC_DE:
    case VEC_TS:
    case VEC_NP:
    case VEC_SS:
    case VEC_GP:
        return CONTRIBUTORY;
    case VEC_PF:
        return PAGE_FAULT;
    case VEC_DF:
        return DOUBLE_FAULT;
    default:
        return BENIGN;
    }
}

static unsigned code_bits(const struct x86_cpu *s)
{
    if (x86_64bit_mode(s))
        return 64;
    return s->seg[X86_CS].attr & SEG_DB ? 32 : 16;
}

/* A fault that was met; where more than three follow each other, the first
 * and the last two are kept. */
static void record(struct x86_vcpu *c, const struct event *e)
{
    struct x86_fault_record *f;

    if (c->fault_depth == ARRAY_SIZE(c->faults)) {
        c->faults[1] = c->faults[2];
        c->fault_depth--;
    }
    f = &c->faults[c->fault_depth++];
    f->vector = e->vector;
    f->has_error = e->has_error;
    f->error = e->error;
    f->cr2 = c->s.cr2;
    f->rip = c->s.reg[X86_RIP] & c->ip_mask;
    f->cs_bits = (uint8_t)code_bits(&c->s);
    f->code_length = 0;
    f->idt_entry_valid = false;
}

/* The bytes at RIP, once it is clear that somebody will want to see them. */
static void record_code(struct x86_vcpu *c, struct x86_fault_record *f)
{
    gva_t at = f->rip + c->seg_base[X86_CS];

    if (f->code_length)
        return;
    if (!x86_long_mode(&c->s))
        at = (uint32_t)at;
    f->code_length = (uint8_t)x86_debug_read(c, at, f->code, sizeof f->code);
}

/* False: another fault was raised meanwhile. */
static bool __attribute__((noinline)) try_event(struct x86_vcpu *c, const struct event *e)
{
    if (x86_catch(&c->unwind))
        return false;
    x86_interrupt(c, e->kind, e->vector, e->has_error, e->error, c->s.reg[X86_RIP] & c->ip_mask);
    return true;
}

/*
 * Benign events may follow each other without end: a task gate for #AC, and in
 * its task a misaligned stack at CPL 3 with AC set. A processor goes on for ever
 * and takes no interrupt; here it shuts down, since the host has to go on.
 */
#define MAX_IN_A_ROW 16

/* What becomes of a fault met while delivering e; false: shutdown. */
static bool combine(struct x86_vcpu *c, struct event *e)
{
    struct event second = {X86_EVENT_FAULT, c->fault_vector, c->fault_has_error, c->fault_error};
    enum severity s1 = severity_of(e), s2 = severity_of(&second);

    record_code(c, &c->faults[c->fault_depth - 1]);
    record(c, &second);
    record_code(c, &c->faults[c->fault_depth - 1]);
    if (s1 == DOUBLE_FAULT && s2 != BENIGN)
        return false;
    if ((s1 == CONTRIBUTORY && s2 == CONTRIBUTORY) || (s1 == PAGE_FAULT && s2 != BENIGN))
        second = (struct event){X86_EVENT_FAULT, VEC_DF, true, 0};
    *e = second;
    return true;
}

/* The event that the usual way could not deliver. */
static void __attribute__((noinline)) deliver_slowly(struct x86_vcpu *c, struct event e)
{
    struct x86_unwind saved = c->unwind;
    const struct x86_insn *cur = c->cur;
    bool in_insn = c->in_insn;
    unsigned in_a_row = 1;

    c->cur = &x86_no_insn;
    c->in_insn = true;
    c->fault_depth = 0;
    record(c, &e);
    while (!try_event(c, &e)) {
        if (!combine(c, &e) || ++in_a_row > MAX_IN_A_ROW) {
            c->s.activity = X86_SHUTDOWN;
            x86_state_changed(c);
            break;
        }
    }
    if (c->s.activity != X86_SHUTDOWN)
        c->fault_depth = 0;
    c->in_insn = in_insn;
    c->cur = cur;
    c->unwind = saved;
}

void x86_deliver(struct x86_vcpu *c, enum x86_event_kind kind, uint8_t vector, bool has_error,
                 uint32_t error)
{
    c->s.shadow = 0;
    c->step_trap = false;
    /* Time passes also in a guest whose handlers fault at once, for ever. */
    c->s.icount++;
    if (c->s.activity == X86_HALTED)
        c->s.activity = X86_RUNNING;
    /* The instruction starts again, and its breakpoints with it. */
    if (kind == X86_EVENT_FAULT)
        c->s.pending_db = 0;

    x86_log(c, CPU, DEBUG, "cpu %u: vector %u error %#x at %04x:%llx", c->vcpu.index, vector,
            has_error ? error : 0, c->s.seg[X86_CS].selector,
            (unsigned long long)c->s.reg[X86_RIP]);
    if (!event_through_gate64(c, vector, false, has_error, error, c->s.reg[X86_RIP] & c->ip_mask,
                              x86_event_flags(c, kind)))
        deliver_slowly(c, (struct event){kind, vector, has_error, error});
}
