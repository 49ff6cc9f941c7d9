/*
 * One running x86 processor: its architectural state, and what is derived
 * from it or belongs to this host (translations, current instruction, links
 * to the machine). Everything outside x86_cpu can be rebuilt from it with
 * x86_state_changed().
 *
 * Threading: owned by the vCPU's thread. Others reach it through vcpu_post()
 * and the local APIC's atomics only.
 */
#ifndef CPU_X86_VCPU_H
#define CPU_X86_VCPU_H

#include "base/base.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/state.h"
#include "cpu/x86/unwind.h"
#include "vm/vm.h"

struct x86_insn;
struct x86_block;
struct lapic;

/* What a handler returns when its block is over: see insn.h. */
enum x86_next {
    NEXT_LINK0,  /* successor 0: fixed offset from the block (not taken, or only) */
    NEXT_LINK1,  /* successor 1: fixed offset from the block (taken) */
    NEXT_LOOKUP, /* reg[X86_RIP] may be anything now */
};

struct x86_vcpu;
typedef enum x86_next x86_handler(struct x86_vcpu *c, const struct x86_insn *i);

/* ---- translation look-aside buffers: see mmu.h ---- */

#define ITLB_ENTRIES 1024 /* a power of two */
#define TLB_PCID_SLOTS 8 /* Linux uses 6 */

/* Which set of permissions a data access has. */
enum tlb_class {
    TLB_USER,       /* CPL 3 */
    TLB_SUPERVISOR, /* CPL < 3, SMAP applies */
    TLB_SUPERVISOR_AC, /* CPL < 3, EFLAGS.AC set or SMAP off */
    TLB_CLASSES
};

struct tlb_entry {
    uint64_t read;  /* linear page address if readable at full speed, else odd */
    uint64_t write; /* the same for writing (dirty set, holds no code) */
    uint64_t addend; /* host address - linear address */
    uint64_t flags; /* page it was filled for, global, large, ..: mmu_internal.h */
};
#define TLB_ENTRY_SHIFT 5 /* log2(sizeof(struct tlb_entry)) */

struct tlb; /* mmu_internal.h */

/* What is denied to the current instruction stream: insn->gate is tested
 * against x86_vcpu.gate_blocked before anything else of that instruction. */
enum x86_gate {
    GATE_X87 = 1 << 0,    /* CR0.EM or TS: #NM */
    GATE_WAIT = 1 << 1,   /* CR0.MP and TS: #NM */
    GATE_MMX = 1 << 2,    /* EM: #UD; TS: #NM */
    GATE_SSE = 1 << 3,    /* EM or !OSFXSR: #UD; TS: #NM */
    GATE_AVX = 1 << 4,    /* no OSXSAVE, XCR0, real/V86: #UD; TS: #NM */
    GATE_AVX512 = 1 << 5, /* the same with opmask and ZMM */
    GATE_XSAVE = 1 << 6,  /* no OSXSAVE: #UD; TS: #NM */
    GATE_FXSR = 1 << 7,   /* FXSAVE: EM or TS: #NM */
};

/* A fault on its way, and the history a triple-fault report needs. */
struct x86_fault_record {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t cr2;
    uint64_t rip;
    uint8_t cs_bits;   /* 16, 32 or 64: how to disassemble */
    uint8_t code_length;
    uint8_t code[15];
    /* While delivering it: the descriptor in question, if one was read. */
    bool idt_entry_valid;
    uint64_t idt_entry[2];
    uint64_t idt_entry_gva;
};

#define X86_JIT_THRESHOLD 16
#define X86_JIT_AT_ONCE UINT32_MAX

/* What a user may choose of how an engine works; 0 stands for the default. */
struct x86_engine_options {
    uint32_t jit_threshold;   /* executions before code is recompiled, or X86_JIT_AT_ONCE */
    uint64_t jit_cache_bytes; /* host code of all the machine's processors together */
    bool stats;               /* count what is told by x86_engine_ops.report */
    bool perf_map;            /* tell perf(1) where the guest's code is */
};

/* Takes one line of a report. */
typedef void x86_report_line(void *ctx, const char *text);

struct x86_vcpu {
    struct x86_cpu s; /* first: architectural state */

    /* ---- derived from s by x86_state_changed ---- */
    uint64_t ip_mask;      /* FFFFH, FFFFFFFFH, or all ones, by CS */
    uint64_t sp_mask;      /* the same by SS; all ones in 64-bit mode */
    uint64_t seg_base[X86_SEG_COUNT]; /* 0 for ES, CS, SS, DS in 64-bit mode */
    /* An access to [ea, ea+size) needs no look at the descriptor when
     * (int64_t)(ea + size - 1) <= seg_read_last[seg] (or write).
     * INT64_MIN: never (kernel addresses are negative). */
    int64_t seg_read_last[X86_SEG_COUNT];
    int64_t seg_write_last[X86_SEG_COUNT];
    /* A near target is good when rip + code_bias <= code_span: CS limit, or
     * canonical in 64-bit mode. */
    uint64_t code_bias, code_span;
    uint32_t mode;         /* key of decoded code: enum x86_mode in decode.h */
    uint8_t gate_blocked;  /* enum x86_gate */
    uint8_t slow;          /* one instruction at a time: TF, shadow, breakpoints */
    uint8_t tlb_class;
    /* The TLB in use: that of the current slot and class. A lookup takes the entry
     * at (lin >> 12 << TLB_ENTRY_SHIFT) & tlb_index_mask bytes into the table. The
     * mask may change whenever an entry is filled; the table only with the slot or
     * the class. */
    struct tlb_entry *tlb_table;
    uint64_t tlb_index_mask;
    struct tlb *tlb;

    /* ---- execution ---- */
    const struct x86_insn *cur; /* the instruction being executed */
    struct x86_block *block;
    struct x86_unwind unwind;   /* a fault leaves the instruction through here */
    bool in_insn;               /* unwind is valid */
    uint8_t vec_live;           /* enum vec_live in vec/vec.h */
    uint64_t budget_end;        /* icount at which run() has to return */
    struct x86_insn *patched;   /* stops the running block: its own handler is kept */
    x86_handler *patched_fn;
    _Atomic uint8_t intr_level; /* INTR pin, driven by others */
    _Atomic uint8_t nmi_inbox;  /* an NMI from others */
    char lapic_name[12];
    bool exclusive;             /* runs alone: ended by the loop if it faults */
    bool recheck;               /* an interrupt may be due: x86_deliver_interrupt */
    bool irq_held;              /* IF may have held one back: who sets IF asks again */
    /* The fault that x86_raise unwound with, delivered by the loop. */
    uint8_t fault_vector;
    bool fault_has_error;
    uint32_t fault_error;

    struct x86_fault_record faults[3]; /* first, second, third */
    unsigned fault_depth; /* how many of them are in delivery */

    /* msr.c: unknown MSRs the log has mentioned. */
    uint32_t msr_logged[32];
    unsigned msr_logged_count;
    bool step_trap;       /* the running instruction ends in a single-step trap: debug.h */
    uint64_t delivery_error; /* EXT bit of the event in delivery: fault.c */

    struct vcpu vcpu; /* the machine's view of this processor */
    struct vm *vm;
    const struct x86_model *model;
    struct lapic *lapic;
    struct x86_mmu *mmu;
    void *engine; /* the engine's own part (block cache) */
    const struct x86_engine_ops *engine_ops;
    struct x86_engine_options engine_options;
    bool has_jit; /* the interpreter's loop may enter host code */
    struct vec_runtime *vec; /* host execution of vector and x87 code */

    /* Wired by the board. Called with the machine's lock taken by the callee. */
    uint8_t (*intr_ack)(void *ctx); /* 8259: vector for INTR */
    void *intr_ack_ctx;
    struct irq_line ferr; /* to IRQ 13, for CR0.NE = 0 */
};

/* Recomputes everything derived. Cheap enough for every mode change; loading
 * a single data segment uses x86_seg_changed. */
void x86_state_changed(struct x86_vcpu *c);
void x86_seg_changed(struct x86_vcpu *c, enum x86_seg_index seg);
/* The same where nothing but CS, SS, CPL and RFLAGS may have changed, and the
 * usual case is 64-bit code before and after. */
void x86_ring_changed(struct x86_vcpu *c);
/* CPL, EFLAGS.AC or CR4.SMAP changed: choose the TLB. (Called by the above.) */
void x86_tlb_select(struct x86_vcpu *c);

struct x86_engine_ops {
    const char *name;
    /* Memory that the engine wants right below struct x86_vcpu and right above it
     * (from a multiple of 64): zeroed, of the processor's life. */
    size_t below_bytes, above_bytes;
    int (*create)(struct x86_vcpu *c, struct error *err);
    void (*destroy)(struct x86_vcpu *c);
    enum vcpu_exit (*run)(struct x86_vcpu *c, uint64_t budget);
    /* Cached code of a range became stale; NULL block: all of it. */
    void (*code_written)(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                         uint64_t bytes);
    /* This processor, of several, has stored to bytes with cached code, and others
     * have been told. May be in the middle of an instruction. */
    void (*code_stored)(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                        uint64_t bytes);
    /* Leave the running block after the current instruction. */
    void (*end_block)(struct x86_vcpu *c);

    /* For engines that remember translations beside the TLBs; NULL: it does not.
     * They may be called out of a fill, with guest vector state in the host. */

    /* Data translations that were found in the TLB since the last such call may be
     * gone, narrower, or another address space's: all classes, the current slot; of
     * global pages only if global_too.
     * A valid entry that made room for another is told of in deterministic
     * machines only: there engines have to agree on when page tables are walked. */
    void (*tlb_dropped)(struct x86_vcpu *c, bool global_too);
    /* The same of one page, 4 KiB, global or not. */
    void (*tlb_page_dropped)(struct x86_vcpu *c, gva_t page);
    /* Translations for instruction fetch of the current slot: all, or that of one
     * page; of global pages only if global_too. Called only where such a
     * page may have been fetched from; entries that made room for others as above.
     * What happens to another slot is told when that becomes the current one, but
     * at once where it is global, for engines may share that among slots. */
    void (*fetch_dropped)(struct x86_vcpu *c, bool all, gva_t page, bool global_too);
    /* Another slot is current: TLBs and fetches are of another address space.
     * tlb_dropped follows, and fetch_dropped if the slot has something to tell. */
    void (*slot_switched)(struct x86_vcpu *c, unsigned slot);

    /* For people (vireo lockstep): the host code that stands for the guest's
     * block at a linear address, valid until the processor runs again; 0 bytes
     * where there is none. NULL: the engine makes no host code. */
    size_t (*host_code)(struct x86_vcpu *c, gva_t lin, const uint8_t **code);
    /* For people (--stats): what this processor's engine did; it does not run. NULL:
     * nothing to tell. */
    void (*report)(struct x86_vcpu *c, x86_report_line *line, void *ctx);
};

/* ---- life (cpu.c) ---- */

/* Adds a processor to the machine; owned by the vm afterwards. options NULL: all
 * defaults. model->cpu_count says how many share what is given for the machine. */
struct x86_vcpu *x86_vcpu_create(struct vm *vm, const struct x86_model *model,
                                 const struct x86_engine_ops *engine,
                                 const struct x86_engine_options *options, struct error *err);
void x86_vcpu_reset(struct x86_vcpu *c); /* RESET#: SDM Vol. 3, table 9-1 */
void x86_vcpu_init(struct x86_vcpu *c);  /* INIT: the same, less what survives */
/* Level of the INTR pin; any thread that holds the lock. */
void x86_set_intr(struct x86_vcpu *c, bool level);
void x86_post_nmi(struct x86_vcpu *c);

extern const struct state_table x86_cpu_state;

#endif
