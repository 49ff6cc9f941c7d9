/*
 * x87 instructions (SDM Vol. 1, chapter 8; Vol. 2, F..), run by the host's x87
 * unit under the scheme of runtime.c; and what Vireo keeps itself:
 *
 * FIP is the RIP of the last instruction that is not a control instruction;
 * FOP and FDP change when an instruction raises an unmasked exception, as
 * FDP_EXCPTN_ONLY in CPUID promises (without that feature, with every
 * instruction). FCS and FDS read as zero (ZERO_FCS_FDS), so none is kept. In
 * real and V86 mode FIP and FDP are linear addresses, because that is what the
 * environment image of these modes holds.
 *
 * In struct x86_insn: size is the memory operand's, aux holds enum vec_flags,
 * spare the opcode as FOP has it.
 */
#include "cpu/x86/vec/vec_internal.h"

static inline void note_pointer(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t rip = x86_cur_rip(c);

    if (i->aux & XF_CONTROL)
        return;
    if (unlikely(i->aux & XF_REAL))
        rip += c->s.seg[X86_CS].base;
    c->s.x.fip = rip;
}

static void note_operand(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea)
{
    if (i->aux & XF_CONTROL)
        return;
    c->s.x.fop = (uint16_t)i->spare;
    if (i->flags & INSN_MEM)
        c->s.x.fdp = i->aux & XF_REAL ? ea + c->s.seg[i->seg].base : ea;
}

/*
 * The instruction with the state not resident: an exception may be unmasked.
 * True if it raised one now.
 */
static bool run_exactly(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea, void *mem)
{
    bool pending = c->s.x.fsw & FSW_ES;

    vec_run(c, i->aux | VF_X87, vec_thunk_of(i), mem);
    if (pending || !(c->s.x.fsw & FSW_ES))
        return false;
    note_operand(c, i, ea);
    return true;
}

static inline void run(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea, void *mem)
{
    if (likely(c->vec_live & LIVE_X87))
        vec_thunk_of(i)(&c->s, mem);
    else
        run_exactly(c, i, ea, mem);
    note_pointer(c, i);
    if (unlikely(c->vec->track_x87))
        note_operand(c, i, ea);
}

static inline void begin(struct x86_vcpu *c, const struct x86_insn *i)
{
    if (unlikely(!(c->vec_live & LIVE_X87)) && !(i->aux & XF_NO_WAIT))
        vec_x87_wait(c);
}

static enum x86_next x87_register(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    begin(c, i);
    vec_x87_try_enter(c);
    run(c, i, 0, NULL);
    X86_NEXT(c, i);
}

static enum x86_next x87_load(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t ea;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    begin(c, i);
    ea = x86_ea(c, i);
    p = vec_read_pointer(c, i, ea, i->size);
    vec_x87_try_enter(c);
    run(c, i, ea, p);
    X86_NEXT(c, i);
}

static enum x86_next x87_store(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint64_t ea;
    void *p;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    begin(c, i);
    ea = x86_ea(c, i);
    p = vec_fast_write(c, i->seg, ea, i->size);
    if (unlikely(!p))
        x86_probe_write(c, i->seg, ea, i->size);
    if (vec_x87_try_enter(c)) {
        vec_thunk_of(i)(&c->s, p ? p : c->vec->bounce);
    } else if (run_exactly(c, i, ea, p ? p : c->vec->bounce) &&
               (c->s.x.fsw & ~c->s.x.fcw & FSW_ERRORS_BEFORE_STORE)) {
        p = c->vec; /* the error held the store back */
    }
    note_pointer(c, i);
    if (unlikely(c->vec->track_x87))
        note_operand(c, i, ea);
    if (unlikely(!p))
        x86_write_bytes(c, i->seg, ea, c->vec->bounce, i->size);
    X86_NEXT(c, i);
}

/* FLDCW may unmask what is flagged already: then it runs on saved state. */
static enum x86_next x87_load_cw(struct x86_vcpu *c, const struct x86_insn *i)
{
    uint16_t cw;

    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    begin(c, i);
    cw = x86_read16(c, i->seg, x86_ea(c, i));
    if ((cw & FCW_MASKS) == FCW_MASKS && (c->vec_live & LIVE_X87)) {
        __asm__ volatile("fldcw %0" : : "m"(cw));
    } else {
        vec_x87_leave(c);
        c->s.x.fcw = (cw & FCW_WRITABLE) | FCW_ONE;
        vec_x87_summarize(c);
    }
    X86_NEXT(c, i);
}

static enum x86_next x87_init(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_run(c, i->aux | VF_X87, vec_thunk_of(i), NULL);
    c->s.x.fip = c->s.x.fdp = 0;
    c->s.x.fop = 0;
    X86_NEXT(c, i);
}

static enum x86_next x87_wait(struct x86_vcpu *c, const struct x86_insn *i)
{
    X86_BEGIN(c, i);
    VEC_GATE(c, i);
    vec_x87_wait(c);
    X86_NEXT(c, i);
}

static unsigned control_flags(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FENI8087_NOP: /* did something on the 8087 and the 287 only */
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
        return XF_NO_WAIT | XF_CONTROL;
    case ZYDIS_MNEMONIC_FLDCW:
        return XF_CONTROL;
    default:
        return 0;
    }
}

bool bind_x87(struct x86_decode *d, struct x86_insn *i)
{
    const ZydisDecodedOperand *mem = vec_mem_operand(d);
    unsigned flags = VF_X87 | control_flags(d->z.mnemonic);
    vec_thunk *fn;

    if (i->flags & INSN_LOCK)
        return false;
    i->fn = NULL;
    i->gate = GATE_X87;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_FWAIT) {
        i->gate = GATE_WAIT;
        i->fn = x87_wait;
        return true;
    }
    if (bind_x87_state(d, i))
        return i->fn;
    if (d->mode & MODE_REAL)
        flags |= XF_REAL;
    if (mem) {
        i->size = (uint8_t)(mem->size / 8);
        if (mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            flags |= VF_STORE;
    }
    i->aux = (uint8_t)flags;
    i->spare = (d->z.opcode & 7u) << 8 | (unsigned)d->z.raw.modrm.mod << 6 |
               (unsigned)d->z.raw.modrm.reg << 3 | d->z.raw.modrm.rm;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_FLDCW) {
        i->fn = x87_load_cw;
        return true;
    }
    fn = vec_thunk_make(d);
    if (!fn)
        return false;
    i->thunk = (void *)fn;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_FNINIT)
        i->fn = x87_init;
    else
        i->fn = !mem ? x87_register : flags & VF_STORE ? x87_store : x87_load;
    return true;
}
