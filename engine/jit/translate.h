/*
 * Between the translator's files: the unit in the making.
 */
#ifndef ENGINE_JIT_TRANSLATE_H
#define ENGINE_JIT_TRANSLATE_H

#include "cpu/x86/decode.h"
#include "engine/jit/emit.h"
#include "engine/jit/jit.h"

#define T0 H_RAX
#define T1 H_R15
#define UNIT_MAX_INSNS 64
/* A unit that jumps to its own start has the way there twice: loop.c. */
#define LOOP_MAX_INSNS 64
#define UNIT_MAX_PLACES (UNIT_MAX_INSNS + 1 + LOOP_MAX_INSNS)
#define LOOP_MAX_EDGES 8

/* What an instruction does with the status flags. */
enum flags_use {
    FLAGS_NONE,
    FLAGS_KILL, /* writes all six, whatever they were */
    FLAGS_PASS, /* writes some, or leaves undefined ones to what they were */
    FLAGS_READ = 4,
};

/* Where the current flags are: a set. Empty: nowhere, nobody will ask. */
enum flags_at {
    FLAGS_IN_CC = 1,
    FLAGS_IN_HOST = 2,
    FLAGS_IN_RECIPE = 4, /* they can be computed again: struct recipe */
};

/* How to get flags again that an instruction has made, from what registers
 * still hold. */
enum recipe_kind {
    RECIPE_NONE,
    RECIPE_AGAIN, /* CMP, TEST: the operands are as they were */
    RECIPE_LOGIC, /* AND, OR, XOR: of the result alone */
    RECIPE_ADD,   /* ADD, SUB: back, and once more */
    RECIPE_SUB,
    RECIPE_NEG,
    RECIPE_INPUT, /* shifts: the operand was kept in jit.flag_input */
};
struct recipe {
    uint8_t kind;
    uint8_t k; /* the instruction */
};

/* Code out of line, emitted behind the unit. */
struct jit_stub {
    enum {
        STUB_SLOW, STUB_MISS, STUB_LINK, STUB_FIX, STUB_GROUP, STUB_VECTORS, STUB_TRIAL, STUB_SELF,
        STUB_EMPTY,
        STUB_AGAIN,  /* a loop goes on at `retry` */
        STUB_NO_ROOM /* its streams have found none: the first way */
    } kind;
    uint32_t jump; /* rel32 that comes here; more than one: chained by other stubs */
    uint8_t k;     /* instruction */
    uint8_t flags; /* enum flags_at, when it is entered */
    uint8_t lent;  /* struct tr.lent, then */
    struct recipe recipe;
    bool spilled;  /* STUB_MISS, STUB_GROUP: T1 is in saved_t1.. */
    bool ea_again; /* ..or can be computed again */
    uint8_t way;   /* enum way */
    uint8_t size, is_write, slot, class;
    uint8_t align;    /* STUB_MISS, STUB_GROUP: as struct tr's */
    uint8_t base;     /* STUB_MISS: linear address = base + disp */
    int32_t disp;
    uint32_t retry;
    int32_t lo;      /* STUB_GROUP: the range from base.. */
    uint16_t range;  /* ..its size, and whether any is a write */
    bool is_group_write;
    uint32_t done;   /* STUB_MISS: behind the check, the addend in T0; 0: only by a check */
    struct jit_link *link;
};
#define UNIT_MAX_STUBS (UNIT_MAX_PLACES * 5)

struct jit_translation {
    struct x86_decode d[UNIT_MAX_PLACES];
    struct jit_stub stub[UNIT_MAX_STUBS];
    uint8_t use[UNIT_MAX_PLACES];         /* enum flags_use */
    bool live[UNIT_MAX_PLACES + 1];       /* flags before it may be looked at */
    uint32_t after[UNIT_MAX_PLACES];      /* code offset behind it */
    uint8_t flags_after[UNIT_MAX_PLACES]; /* enum flags_at */
    uint8_t t1_after[UNIT_MAX_PLACES];    /* guest register in T1, or X86_ZERO */
    uint8_t vectors_after[UNIT_MAX_PLACES];
    uint16_t slot_key[JIT_L0_SLOTS];
    uint8_t stream_of[LOOP_MAX_INSNS], slot_of[LOOP_MAX_INSNS]; /* stream.c */
    uint8_t stream_bytes[LOOP_MAX_INSNS];
    bool is_slow[UNIT_MAX_PLACES]; /* known to call its handler */
    bool is_moving[UNIT_MAX_PLACES];
    uint32_t unlike[UNIT_MAX_INSNS * 3]; /* jumps of emit_verify */
    uint8_t copy[UNIT_MAX_INSNS * 15];
};

/* Where an access looks for its translation: site.c. */
enum way {
    WAY_L0,
    WAY_TLB,
    WAY_TRIAL, /* into the TLB, and measures which is better */
};

/* Accesses off one base that a guard has checked: group.c. */
struct group {
    bool active, is_write;
    bool is_kept; /* the addend is in jit_l0.kept */
    int32_t lo, hi; /* from base as it was at the guard */
    int32_t delta;  /* how far base has moved since */
};

/* Accesses to a sum of registers and near constants, all in one page for some turns
 * of a loop: stream.c. */
#define STREAMS_MAX 6
#define STREAM_TERMS 3
struct stream {
    uint8_t terms;
    struct {
        uint8_t reg, times;
    } term[STREAM_TERMS];
    int32_t lo, hi; /* from the sum as a turn starts */
    int32_t step;   /* what a turn adds to it */
    bool is_write;
};
/* Its addend, and what else stands still: reg << scale, or X86_ZERO. */
struct stream_slot {
    uint8_t stream, reg, scale;
};
/* Of a loan, instead of a guest register: slot n of jit.stream. */
#define LOAN_OF_STREAM 32

struct tr {
    struct x86_vcpu *c;
    struct jit *j;
    struct jit_translation *t;
    struct jit_unit *u;
    struct emit e;
    uint32_t key;
    unsigned k;        /* the instruction in hand.. */
    unsigned end;      /* ..and of those that are emitted in a row with it */
    /* loop.c: how many instructions are in the loop, 0: there is none; the second
     * way's first; jumps to where it starts. */
    unsigned loop, again, edges;
    uint32_t edge[LOOP_MAX_EDGES];
    uint8_t loop_vectors; /* enum vec_live, there */
    bool no_loop;
    /* In the loop guest registers without a host register have those of others that
     * it does not use: how many, and how many of them at this place. */
    struct {
        uint8_t from, to;
    } loan[3 + STREAM_SLOTS + 1];
    uint8_t loans, lent;
    struct stream stream[STREAMS_MAX];
    struct stream_slot slot[STREAM_SLOTS];
    unsigned streams, slots;
    bool in_streams; /* it is the second way that is emitted */
    bool loop_saves; /* flags are saved where it starts */
    struct recipe loop_recipe; /* where they are not */
    uint8_t flags;     /* enum flags_at */
    uint8_t class;     /* enum tlb_class, here: STAC and CLAC change it */
    struct recipe recipe;
    uint32_t hot_end, entry_exit;
    uint8_t vectors;   /* enum vec_live: what is known to be in the host */
    unsigned stubs;
    unsigned links;
    struct group group[X86_RIP + 1]; /* by base register */
    /* The guest register whose value T1 has before instruction cache_k, or
     * X86_ZERO; its home has it, too. */
    uint8_t cache, cache_k;
    bool trusts_t1; /* nothing of the instruction in hand has used T1 yet */
    bool is_64, is_flat, is_counting;
    bool is_trial, is_measured; /* has accesses that end its trial */
    bool ea_again; /* the check computes the operand's address, once for itself */
    bool is_alone; /* the access in hand may not happen: no group begins with it */
    bool is_run;   /* the access in hand may be of more bytes than it says */
    uint8_t align; /* the access in hand faults if its address has one of these bits */
    unsigned unlikes;
    bool is_changing; /* it has lines that change, or soon comes to some */
    bool failed; /* too many stubs */
};

static inline const struct x86_insn *tr_insn(const struct tr *t)
{
    return &t->u->insn[t->k];
}

/* Instructions of the unit, or of a turn of its loop, up to the one in hand. */
static inline unsigned tr_retired(const struct tr *t)
{
    return tr_insn(t)->number + 1u;
}

static inline const struct x86_decode *tr_decode(const struct tr *t)
{
    return &t->t->d[t->k];
}

static inline bool t1_holds(const struct tr *t, unsigned guest)
{
    return t->cache_k == t->k && t->cache == guest;
}

/* The instruction in hand leaves guest's value in T1. */
static inline void t1_keep(struct tr *t, unsigned guest)
{
    t->cache = (uint8_t)guest;
    t->cache_k = (uint8_t)(t->k + 1);
}

/* ---- state operands ---- */

#define CPU_RM(field) rm_mem(H_RSP, (int32_t)offsetof(struct x86_vcpu, field))
#define JIT_RM(field) rm_mem(H_RSP, (int32_t)(JIT_AREA + offsetof(struct jit, field)))
#define RM_PAGE_RIP rm_mem(H_RSP, 8 * X86_RIP)

static inline unsigned host_of_guest(unsigned guest)
{
    static const uint8_t map[X86_RIP + 1] = {
        H_R14, H_RCX, H_RDX, H_RBX, H_R13, H_RBP, H_RSI, H_RDI, 8,
        9, 10, 11, 12, H_NONE, H_NONE, H_NONE, H_NONE, H_NONE,
    };

    return map[guest];
}

/* The host register of a guest register, or H_NONE. */
static inline unsigned host_of(const struct tr *t, unsigned guest)
{
    for (unsigned n = 0; n < t->lent; n++) {
        if (guest == t->loan[n].to)
            return host_of_guest(t->loan[n].from);
        if (guest == t->loan[n].from)
            return H_NONE;
    }
    return host_of_guest(guest);
}

static inline struct rm guest_rm(const struct tr *t, unsigned guest)
{
    unsigned h = host_of(t, guest);

    return h != H_NONE ? rm_reg(h) : rm_mem(H_RSP, (int32_t)(8 * guest));
}

/* ---- flags.c ---- */

uint8_t flags_use(const struct tr *t, const struct x86_decode *d);
/* What the host's undefined flags depend on: for struct jit.host_kills. */
uint8_t flags_probe_host(void);
/* The host's flags are about to be destroyed by the instruction in hand: they
 * are somewhere else afterwards, if anybody may ask for them.. */
void flags_clobber(struct tr *t);
/* ..or in any case. */
void flags_leave_host(struct tr *t);
/* cc is true afterwards; the host's flags stay as they are. */
void flags_to_cc(struct tr *t);
/* The host's flags are the guest's afterwards. Uses T0. */
void flags_to_host(struct tr *t);
/* How the flags with which instruction `edge` goes to the loop's start can be made
 * again wherever somebody looks at them in the next turn. */
struct recipe recipe_for_loop(const struct tr *t, unsigned edge);
bool is_string(const struct x86_decode *d);
/* Does the instruction write a general register, or a part of it? */
bool tr_writes(const struct x86_decode *d, unsigned guest);
/* Before and after an instruction that writes flags. */
struct recipe recipe_plan(struct tr *t);
void flags_written(struct tr *t, struct recipe recipe);
/* To cc, from where they are: for stubs. */
void emit_flags_to_cc(struct tr *t, unsigned flags, struct recipe recipe);
void emit_flags_save(struct emit *e);
void emit_flags_load(struct emit *e);

/* ---- memory.c: the one seam ---- */

/* The memory operand of the instruction in hand as a host operand: checked,
 * and good until T0 or T1 is written. size: 1..64 bytes. Uses T0, and T1
 * where the operand says so. Flags must have been taken care of: it calls
 * flags_clobber. Before the access no guest register may change, nor cc: fault.c.
 * is_write: written, or read and written. */
struct rm mem_operand(struct tr *t, unsigned size, bool is_write);
/* The same for [guest RSP + disp]. */
struct rm mem_stack(struct tr *t, int32_t disp, unsigned size, bool is_write);
/* [base], a host register that holds a linear address: T1, or a guest's. id tells
 * addresses apart that go different ways: of guest register n, n + 1. */
struct rm mem_linear(struct tr *t, unsigned base, unsigned id, unsigned size, bool is_write);
/* [guest RBP], to be read. */
struct rm mem_frame(struct tr *t, unsigned size);
/* Can mem_operand do it? */
bool mem_possible(const struct tr *t);
/* A scratch register that rm does not use; rm may change. */
unsigned mem_spare(struct tr *t, struct rm *rm);
/* rm becomes [T1]: T0 is free. */
void mem_to_t1(struct tr *t, struct rm *rm);
/* [T1], size bytes: T0 = the TLB's entry, T1 is in jit.saved_t1. The returned rel32: there is
 * none. */
uint32_t mem_look_up(struct tr *t, unsigned size, bool is_write);
/* A jump on `condition` to the slow way of the instruction in hand. */
void slow_if(struct tr *t, unsigned condition);
struct jit_stub *new_stub(struct tr *t, unsigned kind, uint32_t jump);
/* Stubs: translate.c. */
void emit_miss_call(struct tr *t, const struct jit_stub *s);
/* The address in T0 is one for the handler to complain of, before anybody looks at
 * page tables, whose bits would tell: goes to where the rel32 is patched to; 0: no. */
uint32_t emit_misaligned(struct tr *t, const struct jit_stub *s);
void emit_slow_call(struct tr *t, unsigned k, enum slow_reason why);
/* One more, for --stats. Uses T0, no flags. */
void emit_count(struct tr *t, struct rm counter);
void emit_group_stub(struct tr *t, const struct jit_stub *s);
/* Effective address into register `to` (not T0 unless nothing else is in it). */
void emit_ea(struct tr *t, unsigned to);

/* translate.c. T0 = *p, which is in the arena; uses T1. Host code holds no host
 * address itself. */
void emit_arena_load(struct tr *t, const uint8_t *const *p);

/* ---- loop.c ---- */

/* Looks for a loop before the unit is emitted. */
void loop_find(struct tr *t);
/* A jump to `target` of the instruction in hand, on a condition or (16) always:
 * was it to the loop's start, and is emitted? */
bool loop_edge(struct tr *t, int32_t target, unsigned condition);
/* Registers as elsewhere; as in the loop. Flags stay. How many were lent. */
unsigned loop_give_back(struct tr *t);
void loop_lend(struct tr *t);
/* Emits the second way of the loop. False: again, as emit_unit. */
bool loop_emit(struct tr *t);

/* The host register that is lent to `to`, or H_NONE. */
unsigned loan_host(const struct tr *t, unsigned to);

/* ---- stream.c ---- */

/* Looks for streams in the loop. */
void streams_find(struct tr *t);
static inline struct rm stream_home(unsigned slot)
{
    return rm_mem(H_RSP, (int32_t)(JIT_AREA + offsetof(struct jit, stream) + 8 * slot));
}
/* In front of the second way: how many turns there are room for, and the slots. */
void streams_emit_start(struct tr *t);
/* At the start of a turn; if there is none left it goes on at `start`. */
void streams_emit_turn(struct tr *t, uint32_t start);
void emit_no_room_stub(struct tr *t, const struct jit_stub *s);
/* As mem_operand, which asks it first. False: the operand is in no stream. */
bool stream_operand(struct tr *t, unsigned size, bool is_write, struct rm *rm);

/* ---- crossing.c: before the one instruction of such a unit ---- */

void emit_crossing(struct tr *t);

/* ---- group.c ---- */

/* Was [guest + disp] checked by a guard before? */
bool group_covers(const struct tr *t, unsigned guest, int32_t disp, unsigned size, bool is_write);
/* Are there others to come that a guard should cover together with this access
 * of the instruction in hand? is_implicit: it is PUSH's or the like. */
bool group_begin(struct tr *t, unsigned guest, int32_t disp, unsigned size, bool is_write,
                 bool is_implicit, struct group *g);
/* The instruction in hand is through. */
void group_after(struct tr *t);
/* A handler was called. */
void group_end_all(struct tr *t);

/* ---- general.c, stack.c, branch.c, system.c, vector.c: false: not here ---- */

bool emit_general(struct tr *t);
bool emit_stack(struct tr *t);
bool emit_vector(struct tr *t);
/* A vector instruction whose mask is empty. */
void emit_empty_stub(struct tr *t, const struct jit_stub *s);
/* Calls what puts guest vectors into the host's registers. */
void emit_vectors_call(struct tr *t, unsigned live);
bool emit_branch(struct tr *t);
/* changing.c: are the unit's bytes what they were? And where it goes if not. */
void emit_verify(struct tr *t);
void emit_verify_stub(struct tr *t);
/* How many instructions of a unit with lines that change may go together. */
bool changing_may_store(const struct x86_decode *d, const struct x86_insn *i);
unsigned changing_cut(const struct tr *t, const struct x86_insn *i, unsigned count);
bool changing_moves(const struct tr *t, unsigned k);
bool emit_system(struct tr *t);
bool emit_divide(struct tr *t);
bool emit_string(struct tr *t);
bool emit_ring(struct tr *t);
/* branch.c. To the RIP in T1, if the jump cache knows it and nothing waits, else
 * to the handler: T0 is the index afterwards; emit_index makes it again. Then
 * there. */
void emit_index(struct tr *t);
void emit_lookup(struct tr *t);
void emit_go(struct tr *t);
/* system.c. An interrupt may be waiting for IF: the handler. */
void only_without_interrupts(struct tr *t);
/* What is emitted of it may call for the handler, and so leave the unit, though
 * it has no memory operand. */
bool system_may_leave(const struct x86_decode *d);
/* The way on behind the last instruction. */
void emit_fallthrough(struct tr *t);
/* Goes on at `target`, an offset from the page. Ends the code there. */
void emit_edge(struct tr *t, int32_t target, unsigned retired, bool is_backward);
/* Before what leads to another page: goes to call_link unless l was made to lead
 * there. Uses T0. */
void emit_guard(struct tr *t, struct jit_link *l);
/* icount += n, without flags. */
void emit_retired(struct tr *t, unsigned n);
/* Is anything waiting? Goes to where the returned rel32 is patched to. */
uint32_t emit_poll(struct tr *t);
/* translate.c: the instruction in hand. False: again, as emit_unit; *ended: and no
 * more of the unit. */
bool emit_one(struct tr *t, bool *ended);
void emit_stubs(struct tr *t);

#endif
