/*
 * Between the files of vec/ only: the runtime, operand access, the emitter.
 */
#ifndef CPU_X86_VEC_INTERNAL_H
#define CPU_X86_VEC_INTERNAL_H

#include <immintrin.h>

#include "base/host.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/vec/vec.h"
#include "cpu/x86/vec/vec_runtime.h"

enum x87_bits {
    FCW_WRITABLE = 0x1f3f,
    FCW_ONE = 0x40, /* reads as one */
    FCW_INIT = 0x37f,
    FSW_EXCEPTIONS = 0x3f,
    FSW_ERRORS_BEFORE_STORE = 0x1f, /* all but PE: unmasked, they keep a store back */
    FSW_B = 0x8000,
    FSW_TOP_SHIFT = 11,
    FSW_TOP = 7 << 11,
};

/* Host code: s is the guest's state, mem the memory operand. Uses caller-saved
 * registers only and never moves the stack pointer, so that execution can be
 * taken out of it at any instruction by returning. */
typedef void vec_thunk(struct x86_cpu *s, void *mem);

/* ---- signals.c ---- */

int vec_signals_acquire(struct error *err);
void vec_signals_release(void);
/* While set, a SIGFPE or SIGILL in this runtime's thunks returns from the thunk. */
void vec_signals_arm(struct vec_runtime *rt);
void vec_signals_disarm(void);

/* ---- leaving and entering the host: leave.c, runtime.c ---- */

/* Makes LIVE_MXCSR true if the guest masks all exceptions. */
bool vec_mxcsr_enter(struct x86_vcpu *c);
void vec_x87_enter(struct x86_vcpu *c);

enum vec_flags {
    VF_MXCSR = 1 << 0, /* reads or sets MXCSR */
    VF_X87 = 1 << 1,   /* x87 or MMX registers */
    VF_STORE = 1 << 2, /* the memory operand is written */
    /* x87 only */
    XF_NO_WAIT = 1 << 3, /* does not look at pending errors */
    XF_CONTROL = 1 << 4, /* leaves FIP, FDP and FOP alone */
    XF_REAL = 1 << 5,    /* FIP and FDP are linear: real and V86 mode */
};

/* Runs a thunk under the guest's own MXCSR, unmasked exceptions included:
 * raises #XM (or #UD). */
void vec_run_mxcsr(struct x86_vcpu *c, vec_thunk *fn, void *mem);
/* Runs with whatever the flags ask for. */
void vec_run(struct x86_vcpu *c, unsigned flags, vec_thunk *fn, void *mem);

/* Before a waiting x87 or MMX instruction: #MF, or FERR#. */
void vec_x87_wait(struct x86_vcpu *c);
/* FSW.ES and .B as FCW and the flags have them; drives FERR#. */
void vec_x87_summarize(struct x86_vcpu *c);
/* True if the x87 state is (now) resident. Call after vec_x87_wait. */
bool vec_x87_try_enter(struct x86_vcpu *c);
void vec_set_ferr(struct x86_vcpu *c, bool level);

static inline void vec_x87_prepare(struct x86_vcpu *c)
{
    if (likely(c->vec_live & LIVE_X87))
        return;
    vec_x87_wait(c);
    vec_x87_try_enter(c);
}

/* ---- operand access ---- */

#define VEC_GATE(c, i)                                                                             \
    do {                                                                                           \
        if (unlikely((i)->gate & (c)->gate_blocked))                                               \
            vec_gate_fault((c), (i));                                                              \
    } while (0)

/* The host address of [ea, ea+n) if reading it needs nothing more, else NULL. */
static inline void *vec_fast_read(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned n)
{
    uint64_t lin = ea + c->seg_base[seg];
    const struct tlb_entry *e = tlb_slot(c, lin);

    if (likely((int64_t)(ea + (n - 1)) <= c->seg_read_last[seg] &&
               ((lin + (n - 1)) & PAGE_MASK) == e->read))
        return (void *)(lin + e->addend);
    return NULL;
}

static inline void *vec_fast_write(struct x86_vcpu *c, unsigned seg, uint64_t ea, unsigned n)
{
    uint64_t lin = ea + c->seg_base[seg];
    const struct tlb_entry *e = tlb_slot(c, lin);

    if (likely((int64_t)(ea + (n - 1)) <= c->seg_write_last[seg] &&
               ((lin + (n - 1)) & PAGE_MASK) == e->write))
        return (void *)(lin + e->addend);
    return NULL;
}

/* Alignment #GP(0) comes before page faults, after segment checks (SDM Vol. 3,
 * table 6-2 leaves their order open; limit and canonical checks go first). */
void vec_misaligned(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea, bool write);

static inline void vec_check_aligned(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea,
                                     unsigned mask, bool write)
{
    if (unlikely((ea + c->seg_base[i->seg]) & mask))
        vec_misaligned(c, i, ea, write);
}

static inline void *vec_read_pointer(struct x86_vcpu *c, const struct x86_insn *i, uint64_t ea,
                                     unsigned n)
{
    void *p = vec_fast_read(c, i->seg, ea, n);

    if (likely(p))
        return p;
    x86_read_bytes(c, i->seg, ea, c->vec->bounce, n);
    return c->vec->bounce;
}

static inline vec_thunk *vec_thunk_of(const struct x86_insn *i)
{
    return (vec_thunk *)i->thunk;
}

/* ---- registers as C sees them ---- */

static inline __m128i vec_xmm(const struct x86_vcpu *c, unsigned n)
{
    return _mm_load_si128((const __m128i *)c->s.x.xmm[n]);
}

static inline void vec_set_xmm(struct x86_vcpu *c, unsigned n, __m128i v)
{
    _mm_store_si128((__m128i *)c->s.x.xmm[n], v);
}

/* Any of 32 registers, whole. */
void vec_get_reg(const struct x86_cpu *s, unsigned n, uint8_t out[64]);
/* Writes `bytes` and clears the rest, as every VEX and EVEX instruction does. */
void vec_set_reg(struct x86_cpu *s, unsigned n, const uint8_t *v, unsigned bytes);

/* ---- host code: emit.c, thunk.c ---- */

struct vec_emit {
    uint8_t b[384];
    unsigned n;
};

void emit_bytes(struct vec_emit *e, const void *p, unsigned n);
void emit_u8(struct vec_emit *e, unsigned v);

/* A thunk for a decoded instruction, its memory operand at mem; NULL if the
 * host does not execute it (#UD). */
vec_thunk *vec_thunk_make(struct x86_decode *d);
vec_thunk *vec_thunk_make_clear(struct x86_vcpu *c, unsigned registers, bool whole);
/* Any code as a thunk; deduplicated. */
vec_thunk *vec_thunk_intern(struct x86_vcpu *c, const struct vec_emit *e, bool trial);
size_t vec_thunk_table_bytes(void);

/* ---- binding ---- */

x86_binder bind_vec_move;   /* moves in C; false: not one of them */
x86_binder bind_vec_masked; /* element-wise memory under a mask */
x86_binder bind_vec_gather; /* gathers and scatters */
x86_binder bind_vec_state;  /* LDMXCSR, STMXCSR, VZEROUPPER, VZEROALL, PKRU */
x86_binder bind_x87_state;  /* FLDENV and friends */

/* The operand that is memory (NULL: none). */
const ZydisDecodedOperand *vec_mem_operand(const struct x86_decode *d);
bool vec_is_valid(const struct x86_decode *d);
/* Required alignment of the memory operand - 1. */
unsigned vec_align_mask(const struct x86_decode *d);
uint8_t vec_gate_of(const struct x86_decode *d);
unsigned vec_flags_of(const struct x86_decode *d);

static inline unsigned vec_reg_id(const ZydisDecodedOperand *op)
{
    return (unsigned)ZydisRegisterGetId(op->reg.value);
}

static inline ZydisRegisterClass vec_reg_class(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(op->reg.value)
                                                   : ZYDIS_REGCLASS_INVALID;
}

static inline bool vec_is_vector(ZydisRegisterClass k)
{
    return k == ZYDIS_REGCLASS_XMM || k == ZYDIS_REGCLASS_YMM || k == ZYDIS_REGCLASS_ZMM;
}

static inline bool vec_is_gpr(ZydisRegisterClass k)
{
    return k == ZYDIS_REGCLASS_GPR8 || k == ZYDIS_REGCLASS_GPR16 || k == ZYDIS_REGCLASS_GPR32 ||
           k == ZYDIS_REGCLASS_GPR64;
}

static inline unsigned vec_reg_bytes(ZydisRegisterClass k)
{
    return k == ZYDIS_REGCLASS_XMM ? 16 : k == ZYDIS_REGCLASS_YMM ? 32 : 64;
}

#endif
