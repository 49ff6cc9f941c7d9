/*
 * The JIT's own structures: where the guest's registers are in host code, what
 * host code finds at fixed offsets from the stack pointer, units, links.
 *
 * While host code runs, RSP points at struct x86_vcpu, with struct jit right
 * behind it and a small stack below it for calls and signals; so the state is
 * reached without a register of its own, and guest registers that have no host
 * register are ordinary [rsp + n] operands. C runs on the thread's own stack.
 *
 *   guest RAX -> r14   RCX RDX RBX -> themselves   RSP -> r13
 *   RBP RSI RDI R8..R12 -> themselves              R13 R14 R15 -> [rsp + 8 n]
 *   host RAX, R15: scratch (T0, T1), dead between guest instructions
 *
 * reg[X86_RIP] holds the RIP of the first byte of the unit's page ("page RIP"),
 * and all offsets in a unit's instructions count from there: so code is the
 * same wherever its page is mapped.
 *
 * Status flags are in the host's EFLAGS, in x86_cpu.cc, or in both; which of
 * them, the translator knows at each instruction. Between units: in cc, unless
 * a link says otherwise (struct jit_link).
 *
 * Threading: everything here belongs to one processor's thread.
 */
#ifndef ENGINE_JIT_H
#define ENGINE_JIT_H

#include "base/host.h"
#include "cpu/x86/mmu_internal.h"
#include "cpu/x86/vcpu.h"
#include "engine/interp/cache.h"
#include "engine/jit/stats.h"

#define JIT_STACK_BYTES (64 * KiB)
#define JIT_L0_SLOTS 128 /* a class */
#define JIT_L0_CLASS_SHIFT 12 /* log2(bytes of a class) */
#define JIT_JUMPS 32768   /* entries of a jump cache: a power of two */

/* A translation that was used before, by base register and place: a subset of
 * the TLB, found without computing an index, for accesses that stay in a page.
 * An access of n bytes at a hits if a - read <= 4096 - n, unsigned. */
struct jit_l0 {
    uint64_t read, write; /* linear page address, or JIT_L0_NONE */
    uint64_t addend;      /* host address - linear address */
    uint64_t kept;        /* the addend that a group of accesses found in the TLB */
};
/* Hit by addresses only that are far from canonical, and they stay so when any
 * addend is added: the host's processor refuses them, and fault.c sees to it. */
#define JIT_L0_NONE 0x4000000000000000ull

/* What is in a class's L0. */
enum jit_l0_used {
    L0_ANY = 1 << 0,
    L0_LOCAL = 1 << 1, /* the place of TLBE_GLOBAL: pages that are not */
    /* and TLBE_LARGE, in l0_kind */
};

/* A place in the code that has so many of the last so many L0 misses, and in so
 * short a time each, looks into the TLB from then on. */
#define JIT_MISS_COUNTERS 1024
#define JIT_MISS_WINDOW 8192
#define JIT_MISS_MANY 250
#define JIT_MISS_NS 400

/* An access during its unit's trial, by place in guest code (a hash): site.c. */
struct jit_site {
    uint32_t page;    /* that it went to last, bits 31..12 */
    uint32_t changes; /* how often that was another one */
    uint32_t uses;    /* in steps of JIT_TRIAL_STEP: overflows at the end */
    union { /* of the first place of a unit: */
        uint32_t turns;    /* how often it jumped to its own start, in its trial */
        uint32_t failures; /* in steps of STREAM_FAILURE, afterwards */
    };
};
#define JIT_TRIAL_SHIFT 9 /* log2(uses) until the trial is over */
#define JIT_TRIAL_STEP (1u << (32 - JIT_TRIAL_SHIFT))
#define JIT_SITES 65536

/* What a loop keeps for its streams: stream.c; the last is the turns that are left. */
#define STREAM_SLOTS 8
#define STREAM_TURNS STREAM_SLOTS
/* So often in a row a loop may find no room for its streams. */
#define STREAM_FAILURES_SHIFT 6
#define STREAM_FAILURE (1u << (32 - STREAM_FAILURES_SHIFT))

/* Where an indirect jump to rip leads. */
struct jit_jump {
    uint64_t rip;  /* odd bits and all; JIT_NO_RIP: empty */
    uint64_t host; /* entry of a unit: executable address; empty: jit_no_jump */
};
/* The last byte of all. A guest may jump there, and finds empty entries; so it
 * has to be a RIP that a jump may be completed to: jit_no_jump leaves for it. */
#define JIT_NO_RIP UINT64_MAX

/* What else decides the meaning of bytes, beyond enum x86_mode. */
enum jit_key {
    KEY_MODE = 0xff,
    KEY_GATE_SHIFT = 8,   /* gate_blocked */
    KEY_CLASS_SHIFT = 16, /* enum tlb_class */
    KEY_FLAT = 1 << 18,   /* ES, CS, SS, DS: base 0, 4 GiB, 32-bit stack */
    KEY_UNMASKED = 1 << 24, /* MXCSR lets exceptions through */
    KEY_X87_UNMASKED = 1 << 25, /* so does FCW, or one is pending */
    KEY_COUNT = 1 << 19,  /* deterministic: instructions are counted */
};

struct jit_unit;

/* In units' copies of instructions (enum x86_insn_flags): what the interpreter
 * ends a block with, because it may change anything, and what seldom does. A
 * unit goes on behind it if nothing has changed. Instead of INSN_LAST; the class
 * it is executed in is in x86_insn.spare. */
#define INSN_GOES_ON (1 << 7)

enum jit_link_kind {
    LINK_FLAGS_HOST = 1 << 0, /* the jump comes with the flags in EFLAGS */
    LINK_CROSS = 1 << 1,      /* leaves the page: guarded by a generation */
    LINK_SECOND = 1 << 3,     /* of no jump: guards a unit's second page: crossing.c */
    LINK_FLAGS_LAZY = 1 << 2, /* the jump comes without flags: `fix` makes them */
};

/* A direct jump from one unit to another. */
struct jit_link {
    struct jit_unit *from;
    struct jit_unit *to;   /* NULL: goes to its stub */
    struct jit_link *next; /* of those that go to `to` */
    uint32_t jump;         /* code offset of the rel32 */
    uint32_t stub;         /* code offset */
    uint32_t fix;          /* LINK_FLAGS_LAZY: code offset of what puts flags into cc.. */
    uint32_t fix_jump;     /* ..and goes on by this rel32 */
    uint32_t guard;        /* LINK_CROSS: code offset of the generation, never 0.. */
    uint32_t guard_disp;   /* ..of the displacement that says which one.. */
    uint32_t guard_rip;    /* ..and of the page RIP it is good for */
    int32_t target;        /* offset from the page's start */
    uint16_t retired;      /* instructions before it in the unit: KEY_COUNT */
    uint8_t kind;
    uint8_t class; /* enum tlb_class, there */
    bool is_call;  /* has pushed its return address */
};

struct jit_unit {
    const uint8_t *host; /* of the first guest byte; NULL: dead */
    uint32_t key;
    uint16_t count, bytes; /* guest instructions and bytes, contiguous */
    bool needs_flags;      /* looks at the flags it is entered with */
    uint8_t samples;       /* how often an event found it running */
    uint32_t entry;        /* code offset: flags are in cc */
    uint32_t entry_flags;  /* code offset: flags are in EFLAGS */
    uint32_t code_bytes;   /* from entry_flags.. */
    uint32_t cold, cold_bytes; /* ..and its stubs, elsewhere */
    uint32_t link_count;
    struct jit_link *links;    /* out of it */
    struct jit_link *incoming; /* into it */
    struct jit_unit *hash_next;
    struct jit_unit *page_next; /* in the list of its page */
    struct jit_unit *region_next; /* in the list of its region, dead or alive */
    bool is_leaving;              /* its region is evicted */
    struct x86_block *block;    /* the interpreter's block at its start */
    struct jit_crossing *crossing; /* NULL: all of it is in one page */
    /* Lines of its page that it does not count on to be marked: it compares their
     * bytes when it is entered. Its bytes, as they were. changing.c */
    uint64_t checked_lines;
    const uint8_t *checked_at; /* host, alive or dead: read by host code */
    uint8_t *seen;
    uint16_t calm; /* how often nothing had moved */
    struct x86_insn insn[];     /* count and one; offsets count from the page */
};

struct jit_page {
    const uint8_t *host;
    struct jit_unit *units;
    struct jit_page *next;
};

/* A page that links or jump caches lead to: fetched.c. */
struct jit_fetched {
    uint64_t page;       /* linear, and a bit for user */
    const uint8_t *host; /* NULL: none */
};
#define JIT_FETCHED 1024
struct jit_fetched_set {
    unsigned count;
    bool is_full; /* there were more */
    struct jit_fetched page[JIT_FETCHED];
};

/* Memory for code and what belongs to it, filled and evicted as one: evict.c. */
#define JIT_REGIONS 8
#define JIT_CHANGING 65536
struct jit_region {
    struct jit_unit *units;
    size_t code_used, arena_used; /* when it was left for the next */
};

#define JIT_UNIT_HASH 262144
#define JIT_PAGE_HASH 32768

/* What jit_refill found for an access within a page. */
enum jit_found {
    FOUND_NOTHING, /* the instruction's handler knows more */
    FOUND_IN_TLB,
    FOUND_ONCE, /* once_addend is good for this access, and for no other */
};

/* A page with code that was stored to: store.c. */
struct jit_store_page {
    struct ram_block *block;
    uint64_t offset; /* of the page */
    const uint8_t *host;
    _Atomic uint64_t *lines;
    _Atomic uint8_t *settled;
    unsigned stores; /* the slow way, since it was unsettled */
};
#define JIT_STORE_PAGES 64

/* C that host code calls; each returns where host code goes on, or 0. */
typedef uint64_t jit_c_function(struct x86_vcpu *c, uint64_t argument);

struct jit {
    /* ---- read and written by host code ---- */
    uint64_t host_rsp; /* of the thread, while host code runs */
    uint64_t saved_t1;
    uint64_t saved_value; /* of two operands the first, meanwhile */
    uint64_t flag_input;
    uint64_t stream[STREAM_SLOTS + 1]; /* of a loop, while it runs: stream.c */
    uint8_t nothing[64];  /* what an access under an empty mask does not touch */
    uint32_t jump_salt[TLB_CLASSES]; /* xor'ed into a RIP before it is an index */
    uint32_t generation[2]; /* of global and of other pages' fetch translations */
    uint8_t l0_used[4];     /* by class: enum jit_l0_used, of all its entries */
    uint64_t l0_none;       /* JIT_L0_NONE */
    /* How often L0 misses of late, by place in the code: see site.c. */
    uint16_t misses[JIT_MISS_COUNTERS];
    uint32_t misses_left; /* until all are forgotten */
    uint32_t miss_argument; /* of jit_miss: also behind its call */
    jit_c_function *slow, *slow_vector, *link, *enter_vectors;
    void (*many)(struct x86_vcpu *c, uint64_t host_code);
    enum jit_found (*refill)(struct x86_vcpu *c, uint64_t lin, uint64_t is_write, uint64_t last);
    uint64_t once_addend; /* of FOUND_ONCE */
    uint32_t checks_left; /* until counters of changes are halved: changing.c */
    void *leave; /* address of jit_leave */
    void *miss;  /* jit_miss, jit_call_slow, jit_call_link */
    void *call_slow, *call_slow_vector, *call_link, *call_enter_vectors;
    uint8_t l0_kind[TLB_CLASSES][JIT_L0_SLOTS]; /* enum jit_l0_used, of each */
    struct jit_l0 l0[TLB_CLASSES][JIT_L0_SLOTS];
    struct jit_jump jumps[TLB_CLASSES][JIT_JUMPS];
    struct jit_site site[JIT_SITES];

    /* ---- C only ---- */
    bool leaving;           /* after the current instruction */
    bool refuses;           /* what comes next is the interpreter's: LEAVE_TARGET */
    bool catches_faults;    /* jit_faults_acquire */
    struct x86_insn pair[2];
    struct x86_block slow_block; /* c->block meanwhile */
    uint32_t jumps_key[TLB_CLASSES];
    uint32_t next_salt[TLB_CLASSES], slot_salt[TLB_PCID_SLOTS]; /* jumps.c */
    bool jumps_local[TLB_CLASSES]; /* to pages that are not global */
    uint32_t slot_generation[TLB_PCID_SLOTS];
    struct jit_fetched_set fetched_global, fetched[TLB_PCID_SLOTS];
    uint32_t next_generation;
    struct exec_memory code;
    /* Code memory: what runs often in front, stubs behind, so that the processor's
     * caches hold little of them. Both and the arena have a part for each region;
     * these are of the region that is filled now. */
    size_t hot_used, hot_end, cold_used, cold_end;
    uint8_t *arena; /* pages, then units and links */
    size_t arena_used, arena_end, arena_bytes, pages_used, pages_bytes;
    struct jit_page *free_pages;
    struct jit_region region[JIT_REGIONS];
    unsigned regions, current_region;
    struct jit_unit *hash[JIT_UNIT_HASH];
    struct jit_page *pages[JIT_PAGE_HASH];
    struct jit_store_page store_pages[JIT_STORE_PAGES]; /* by page number */
    unsigned threshold;
    bool is_counting;
    uint8_t host_kills; /* enum jit_host_kills: flags.c */
    /* Of what models offer without the host (cpu/x86/host.c), this is emitted as
     * it is; all else that is emitted the host has if the guest does. */
    bool has_movbe;
    /* Places in guest code, by hash of their address: go to L0; not even if they
     * did; share no lookup; and units that had their trial. */
    uint64_t l0_sites[JIT_SITES / 64], tlb_sites[JIT_SITES / 64];
    uint64_t single_sites[JIT_SITES / 64], tried_units[JIT_SITES / 64];
    uint64_t hot_units[JIT_SITES / 64]; /* to have a trial, loop or not */
    uint64_t long_units[JIT_SITES / 64]; /* loops of many turns */
    /* How often a unit's L0 slots had to be others: by hash of its place. */
    uint8_t slot_moves[JIT_SITES];
    uint64_t l0_clears; /* how often L0 was emptied */
    /* How often code has changed, by hash of its line or place; how often any has. */
    uint8_t changing[JIT_CHANGING];
    unsigned changes;
    uint64_t misses_began; /* when misses[] was emptied: host_thread_ns */
    struct jit_translation *translation; /* scratch of the translator */
    struct jit_stats stats;
    struct jit_forms *forms; /* stats.c; NULL: nobody asked */
    int perf_fd;             /* perf.c; -1: nobody asked */
};

#define JIT_AREA align_up(sizeof(struct x86_vcpu), 64)

static inline struct jit *jit_of(const struct x86_vcpu *c)
{
    return (struct jit *)((char *)(uintptr_t)c + JIT_AREA);
}

static inline const uint8_t *jit_exec(const struct jit *j, uint32_t offset)
{
    return j->code.exec + offset;
}

/* ---- units.c: finding, linking, forgetting ---- */

uint32_t jit_key(const struct x86_vcpu *c);
/* False: alignment checks, breakpoints or odd segments need the interpreter. */
bool jit_allowed(const struct x86_vcpu *c);
struct jit_unit *jit_find(struct jit *j, const uint8_t *host, uint32_t key);
/* A unit made from the byte at host: one that starts there if there is one. */
struct jit_unit *jit_find_covering(struct jit *j, const uint8_t *host, uint32_t key);
void jit_insert(struct jit *j, struct jit_unit *u);
void jit_link_to(struct x86_vcpu *c, struct jit_link *l, struct jit_unit *to, uint64_t page_rip,
                 bool is_global);
/* True if units went. */
bool jit_invalidate(struct x86_vcpu *c, struct ram_block *block, uint64_t offset, uint64_t bytes);
void jit_flush(struct x86_vcpu *c);
/* The guard of a link, or of a unit across two pages: good from now on, where
 * the first page is at page_rip. */
void jit_guard_set(struct jit *j, struct jit_link *l, uint64_t page_rip, bool is_global);
/* The interpreter's blocks are gone. */
void jit_forget_blocks(struct x86_vcpu *c);
/* Forgets one unit, to be made anew. */
void jit_kill(struct jit *j, struct jit_unit *u);
/* cache_page_lines, of units. */
uint64_t jit_page_lines(struct x86_vcpu *c, struct ram_block *block, uint64_t page_offset,
                        const struct told_code *told);
void jit_l0_clear(struct jit *j, bool global_too);
/* And what else was of the same large page. */
void jit_l0_clear_page(struct jit *j, gva_t page);
/* The same of many units at once: is_leaving is set in all of them. */
void jit_take_out(struct jit *j, struct jit_unit *u);

/* ---- evict.c: memory for units ---- */

/* Divides code memory and arena, whose sizes are given, into regions. */
void jit_regions_init(struct jit *j);
/* Everything is forgotten. */
void jit_regions_reset(struct jit *j);
/* Room for the largest unit; its oldest neighbours may have to go. Host code must
 * not be running. */
void jit_make_room(struct x86_vcpu *c);
void *jit_arena_alloc(struct jit *j, size_t bytes);
struct jit_page *jit_page_alloc(struct jit *j);
void jit_page_free(struct jit *j, struct jit_page *p);
/* In all regions, by what was handed out. */
size_t jit_code_used(const struct jit *j);
size_t jit_arena_used(const struct jit *j);

/* ---- jumps.c ---- */

void jit_jumps_init(struct jit *j);
/* Of one class (enum tlb_class), in the current address space; of all. */
void jit_jumps_forget(struct x86_vcpu *c, unsigned class);
void jit_jumps_forget_all(struct x86_vcpu *c);
/* Another TLB slot is current. */
void jit_jumps_switch(struct x86_vcpu *c);
/* Units of this key are entered: what is known is of no other, anywhere. */
void jit_jumps_use(struct x86_vcpu *c, uint32_t key);
void jit_jumps_add(struct x86_vcpu *c, uint64_t rip, const struct jit_unit *u, bool is_global);
/* Where host code of that key would go on; 0: it would have to ask. */
uint64_t jit_jumps_find(struct x86_vcpu *c, uint64_t rip, uint32_t key);
void jit_jumps_remove(struct jit *j, const struct jit_unit *u);
/* To code offsets [from, to). */
void jit_jumps_remove_range(struct jit *j, size_t from, size_t to);

/* ---- fetched.c ---- */

void jit_fetched_add(struct x86_vcpu *c, gva_t lin, const struct itlb_entry *e);
/* Is everything that was remembered where it was, global pages or others of the
 * current address space? A single page, if it was remembered at all? */
bool jit_fetched_all_there(struct x86_vcpu *c, bool is_global);
bool jit_fetched_is_there(struct x86_vcpu *c, gva_t lin);
void jit_fetched_clear(struct x86_vcpu *c, bool is_global);

/* ---- site.c ---- */

unsigned jit_site_hash(const uint8_t *guest_code);
/* Sets of places, by hash: now and then somebody else's. */
bool jit_is_noted(const uint64_t *sites, const uint8_t *guest_code);
void jit_note(uint64_t *sites, const uint8_t *guest_code);
/* The code has changed: nothing is known of its places. */
void jit_forget_sites(struct jit *j, const struct jit_unit *u);
/* An event has found the unit running. */
void jit_sample(struct jit *j, struct jit_unit *u);
/* Access i ends the trial of its unit, which is to be made anew. */
void jit_trial_over(struct jit *j, const struct x86_insn *i);
/* The unit of i finds no room for its streams. */
void jit_streams_failed(struct jit *j, const struct x86_insn *i);
/* L0 misses too often for the access before this return address. */
void jit_many_misses(struct x86_vcpu *c, uint64_t host_code);
/* The unit of an instruction, and where the instruction's bytes are. */
struct jit_unit *jit_unit_of(const struct x86_insn *i);
static inline const uint8_t *jit_guest_code(const struct jit_unit *u, const struct x86_insn *i)
{
    return u->host + i->offset - u->insn[0].offset;
}

/* ---- store.c ---- */

/* For jit_miss: [lin, lin + last] is not in the TLB. */
enum jit_found jit_refill(struct x86_vcpu *c, uint64_t lin, uint64_t is_write, uint64_t last);

/* ---- changing.c ---- */

/* Code of [offset, offset + bytes) was killed by a store. */
void jit_note_change(struct x86_vcpu *c, struct ram_block *block, uint64_t offset, uint64_t bytes);
/* The lines that change, of those from host on: as ram_block.code_lines. */
uint64_t jit_changing_lines(const struct jit *j, const uint8_t *host, uint64_t bytes);
/* Is it an instruction that changes? */
bool jit_is_moving(const struct jit *j, const uint8_t *host);
/* SLOW_MOVING: decodes i again if it has changed. False: it is no longer what the
 * unit needs. */
bool jit_refresh(struct x86_vcpu *c, struct x86_insn *i);
/* The unit of i is not what is in memory. */
void jit_is_stale(struct jit *j, const struct x86_insn *i);
/* Not marked by the interpreter, which executes one instruction at a time. */
bool jit_leaves_unmarked(const struct jit *j, const uint8_t *host);

/* ---- perf.c ---- */

void jit_perf_open(struct x86_vcpu *c);
void jit_perf_close(struct jit *j);
void jit_perf_note(struct x86_vcpu *c, const struct jit_unit *u, gva_t rip);
/* x86_engine_ops.host_code */
size_t jit_host_code(struct x86_vcpu *c, gva_t lin, const uint8_t **code);

/* ---- translate.c ---- */

/* NULL: not worth it, or not now. Never faults. */
/* second: the page in which the instruction at lin ends; NULL: it fits. */
struct jit_unit *jit_translate(struct x86_vcpu *c, gva_t lin, const struct itlb_entry *page,
                               const struct itlb_entry *second, uint32_t key);
size_t jit_translation_bytes(void);

/* ---- entry.c: the fixed host code ---- */

/* Runs from a unit's entry until something calls for C. State is in memory
 * before and after. */
void jit_enter(struct x86_vcpu *c, const void *entry);
void jit_leave(void);
void jit_miss(void);
/* From the return address of a call of jit_miss to the slow way. */
#define JIT_MISS_TO_SLOW 13
/* In its argument, behind offset in l0, size less one, and is_write: the access
 * does not look into L0; the slow way is so many bytes farther on, behind a jump
 * to where an address is used that is good for once. */
#define JIT_MISS_OF_TLB (1u << 25)
#define JIT_MISS_ONCE_BIT 26
#define JIT_MISS_ONCE_BYTES 5
void jit_no_jump(void);
void jit_call_slow(void);
void jit_call_slow_vector(void);
void jit_call_link(void);
void jit_call_enter_vectors(void);

/* ---- fault.c: the host's faults ---- */

/* A user more or less of the process's handlers. */
int jit_faults_acquire(struct error *err);
void jit_faults_release(void);
/* interp_run, with this thread's faults caught. */
enum vcpu_exit jit_run(struct x86_vcpu *c, uint64_t budget);

/* ---- jit.c ---- */

/* From the interpreter's loop: runs or translates what starts at block b.
 * False: nothing was run. */
bool jit_try(struct x86_vcpu *c, struct x86_block *b, gva_t lin);

#endif
