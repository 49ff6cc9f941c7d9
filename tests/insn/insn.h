/*
 * The instruction tests: random instructions on the host processor, in the
 * interpreter and in another engine, from the same state, with everything
 * compared: the interpreter with the host, as far as the manual says what has to
 * come out (known.c); the engine with the interpreter, bit for bit, retired
 * instructions included, many times over, because an engine may do something
 * else with code that is hot.
 *
 * One case is one state, some code and some memory. The memory layout below is
 * the same, at the same linear addresses, in the host's child process
 * (host_child.c) and in the guest (guest.c): code and data lie below 4 GiB, so
 * that 16- and 32-bit code reach them, and nothing else does.
 *
 *   forms.c   which instruction forms there are
 *   gen.c     from a form and a seed to a case (operands.c, values.c help)
 *   block.c   blocks of instructions of all kinds
 *   host.c    cases to and from the child that runs them on this processor
 *   program.c programs: loops, calls, hot code, code that changes itself
 *   guest.c   cases in an engine
 *   known.c   differences that are right, each with its reason
 *   report.c  comparison and reports
 */
#ifndef TESTS_INSN_INSN_H
#define TESTS_INSN_INSN_H

#include <Zydis/Zydis.h>

#include "cpu/x86/state.h"

/* ---- memory ---- */

#define CODE_BASE 0x10000000ull
#define CODE_PAGES 2 /* readable and executable; what follows is unmapped */
#define CODE_BYTES (CODE_PAGES * 4096)
#define CODE_FILL 0xcc /* INT3 */

#define DATA_BASE 0x20000000ull
#define HIGH_BASE 0x7e0000000000ull /* 64-bit code only */

enum page_right { PAGE_NONE, PAGE_RO, PAGE_RW, PAGE_RWX };

struct page_info {
    uint64_t address;
    enum page_right right;
};

/* All mapped data pages; their neighbours are unmapped unless listed. The last
 * ones hold the code that writes to itself: they count only in a case that says
 * so. */
#define DATA_PAGES 9
#define PLAIN_PAGES 7
#define SELF_BASE (CODE_BASE + 0x4000)
static const struct page_info data_page[DATA_PAGES] = {
    {DATA_BASE + 0x1000, PAGE_RW}, {DATA_BASE + 0x2000, PAGE_RW}, {DATA_BASE + 0x3000, PAGE_RO},
    {DATA_BASE + 0x5000, PAGE_RO}, {DATA_BASE + 0x6000, PAGE_RW}, {DATA_BASE + 0x8000, PAGE_RW},
    {HIGH_BASE + 0x1000, PAGE_RW}, {SELF_BASE, PAGE_RWX}, {SELF_BASE + 0x1000, PAGE_RWX},
};

/* ---- segments ---- */

/* Selectors of the host's kernel that user code may hold. */
enum host_selector {
    HOST_CS32 = 0x23,
    HOST_DS = 0x2b,
    HOST_CS64 = 0x33,
};

/* The LDT, as modify_ldt takes it. */
struct ldt_info {
    uint32_t base, limit;
    bool is_32bit, code, expand_down, read_exec_only, pages, not_present;
};

enum ldt_index {
    LDT_CODE32, LDT_CODE16, LDT_DATA, LDT_DATA_RO, LDT_STACK16, LDT_EXPAND_DOWN, LDT_DATA_SHORT,
    LDT_DATA_PAGES, LDT_ABSENT, LDT_CODE_X, LDT_COUNT
};
#define LDT_SELECTOR(index) ((uint16_t)((index) << 3 | 7))

static const struct ldt_info ldt_info[LDT_COUNT] = {
    [LDT_CODE32] = {CODE_BASE, 0xffff, .is_32bit = true, .code = true},
    [LDT_CODE16] = {CODE_BASE, 0xffff, .code = true},
    [LDT_DATA] = {DATA_BASE, 0xffff, .is_32bit = true},
    [LDT_DATA_RO] = {DATA_BASE, 0xffff, .is_32bit = true, .read_exec_only = true},
    [LDT_STACK16] = {DATA_BASE, 0xffff},
    [LDT_EXPAND_DOWN] = {DATA_BASE, 0x17ff, .is_32bit = true, .expand_down = true},
    [LDT_DATA_SHORT] = {DATA_BASE, 0x2345, .is_32bit = true},
    [LDT_DATA_PAGES] = {DATA_BASE, 2, .is_32bit = true, .pages = true},
    [LDT_ABSENT] = {DATA_BASE, 0xffff, .is_32bit = true, .not_present = true},
    [LDT_CODE_X] = {CODE_BASE, 0xffff, .is_32bit = true, .code = true, .read_exec_only = true},
};

/* ---- cases and results ---- */

enum code_size { CODE_16, CODE_32, CODE_64, CODE_SIZES };

struct insn_state {
    uint64_t gpr[16]; /* enum x86_gpr */
    uint64_t rip;     /* offset in CS */
    uint64_t rflags;
    uint64_t fs_base, gs_base; /* 64-bit mode only */
    uint16_t sel[X86_SEG_COUNT];
    uint16_t pad[2];
    struct x86_xsave x;
};

#define INSN_PATCHES 8
#define INSN_PATCH_BYTES 8192
#define INSN_CODE_MAX 640

struct insn_patch {
    uint64_t address;
    uint32_t bytes, offset; /* in patch_data */
};

struct insn_case {
    /* How to make it again. */
    uint64_t seed, number;
    uint32_t form;
    uint32_t mode; /* enum code_size */

    uint64_t code_address; /* linear */
    uint32_t code_bytes;
    uint32_t count; /* instructions */
    uint32_t writes_code; /* lies at SELF_BASE, and those pages count */
    uint8_t code[INSN_CODE_MAX];
    uint32_t patches;
    struct insn_patch patch[INSN_PATCHES];
    uint8_t patch_data[INSN_PATCH_BYTES];
    struct insn_state in;
};

enum { VECTOR_TIMEOUT = -1, VECTOR_DIED = -2, VECTOR_LOST = -3 };

struct insn_result {
    int32_t vector; /* enum x86_vector, or VECTOR_* */
    uint32_t error;
    uint64_t cr2; /* #PF only */
    uint64_t retired, dr6; /* in an engine only */
    struct insn_state out;
    uint8_t mem[DATA_PAGES][4096]; /* only of pages that case_writes() */
};

/* Is a page one that this case may have changed? */
static inline bool case_writes(const struct insn_case *k, unsigned page)
{
    return data_page[page].right == PAGE_RW ||
           (data_page[page].right == PAGE_RWX && k->writes_code);
}

/* ---- shared with the child ---- */

#define INSN_BATCH 32

struct insn_shared {
    uint8_t background[DATA_PAGES][4096];
    volatile uint32_t count;
    volatile uint32_t current;
    struct insn_case batch[2][INSN_BATCH];
    volatile uint32_t which;
    struct insn_result result[INSN_BATCH];
};

enum { CHILD_FD_SHARED = 100, CHILD_FD_GO = 101, CHILD_FD_DONE = 102 };

/* ---- random numbers ---- */

struct rng {
    uint64_t s;
};

static inline uint64_t rng_next(struct rng *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static inline uint32_t rng_below(struct rng *r, uint32_t n)
{
    return (uint32_t)((rng_next(r) >> 32) * n >> 32);
}

static inline bool rng_percent(struct rng *r, unsigned n)
{
    return rng_below(r, 100) < n;
}

/* ---- forms.c ---- */

/* The encoding from which instances of a form are made. */
struct insn_template {
    bool valid;
    uint8_t encoding; /* ZydisInstructionEncoding */
    uint8_t prefix_count, prefix[3];
    uint8_t map; /* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A */
    uint8_t opcode, modrm;
    bool rex_w;
    uint8_t pp, length; /* vector length */
    bool w, b, z;
    uint8_t aaa;
};

struct insn_form {
    char *name;
    ZydisMnemonic mnemonic;
    struct insn_template t[CODE_SIZES];
};

struct insn_forms {
    struct insn_form *form;
    unsigned count, capacity;
};

void forms_create(struct insn_forms *f);
void forms_destroy(struct insn_forms *f);
unsigned template_bytes(const struct insn_template *t, enum code_size mode, uint8_t *out);
ZydisDecoder *insn_decoder(enum code_size mode);

struct insn_decoded {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};
bool insn_decode(enum code_size mode, const uint8_t *bytes, unsigned n, struct insn_decoded *d);
/* The name of the form that an instruction is of. */
void form_name(const struct insn_decoded *d, char *out, size_t bytes);

/* ---- values.c ---- */

uint64_t value_integer(struct rng *r, unsigned bytes);
void value_vector(struct rng *r, uint8_t *out, unsigned bytes);
void value_x87(struct rng *r, uint8_t out[10]);
void value_background(uint64_t seed, uint8_t out[DATA_PAGES][4096]);
void value_state(struct rng *r, struct insn_state *s, enum code_size mode);

/* ---- gen.c, operands.c ---- */

/* False: this form does not exist in that mode, or nothing came of it. */
bool gen_case(const struct insn_forms *f, struct insn_case *k);
bool gen_block(const struct insn_forms *f, struct insn_case *k);
bool gen_program(const struct insn_forms *f, struct insn_case *k);
unsigned gen_bytes(struct rng *r, const struct insn_form *form, enum code_size mode,
                   uint8_t out[15], struct insn_decoded *d);
void gen_operands(struct rng *r, struct insn_case *k, struct insn_decoded *d, uint8_t *code,
                  uint64_t address);

/* What the instructions of a block may do with registers. */
struct block_plan {
    uint8_t pointer[5]; /* into the test's memory; instructions do not write them */
    uint8_t pointers;
    uint32_t fixed; /* mask of others that are not written, by nothing at all */
    bool no_strings; /* their registers are no pointers */
};
/* A random instruction of any form that goes along with that; its bytes, or 0. */
unsigned block_instruction(struct rng *r, const struct insn_forms *f, const struct block_plan *plan,
                           enum code_size mode, uint8_t out[15], struct insn_decoded *d);
void case_patch(struct insn_case *k, uint64_t address, const void *data, unsigned bytes);
uint64_t case_segment_base(const struct insn_case *k, ZydisRegister seg);

/* ---- host.c ---- */

struct host;
struct host *host_create(const char *child_path);
void host_destroy(struct host *h);
struct insn_shared *host_shared(struct host *h);
/* Runs batch[which][0..count); results are there after host_wait. */
void host_start(struct host *h, unsigned which, unsigned count);
void host_wait(struct host *h);

/* ---- guest.c ---- */

struct guest;
struct x86_engine_ops;
struct guest *guest_create(const uint8_t background[DATA_PAGES][4096],
                           const struct x86_engine_ops *engine, bool in_real_time);
void guest_destroy(struct guest *g);
void guest_run(struct guest *g, const struct insn_case *k, struct insn_result *out);
/* Several times from the same state, the code staying where it is, so that it
 * gets hot. Which run, from 1, was the first whose result is not as expected,
 * with that result in out; 0: none. */
unsigned guest_repeat(struct guest *g, const struct insn_case *k, unsigned times,
                      const struct insn_result *expected, struct insn_result *out);
/* The host code of the case's first block after as many runs; 0: there is none. */
size_t guest_host_code(struct guest *g, const struct insn_case *k, unsigned times, uint8_t *out,
                       size_t most);

/* ---- known.c ---- */

enum known_ignore {
    IGN_FLAG_CF = FLAG_CF,
    IGN_FLAG_PF = FLAG_PF,
    IGN_FLAG_AF = FLAG_AF,
    IGN_FLAG_ZF = FLAG_ZF,
    IGN_FLAG_SF = FLAG_SF,
    IGN_FLAG_OF = FLAG_OF,
    IGN_FLAG_RF = FLAG_RF,
    IGN_ERROR = 1 << 24,
    IGN_CR2 = 1 << 25,
    IGN_BASES = 1 << 26,
    IGN_CASE = 1 << 27, /* the whole case */
    IGN_X87 = 1 << 28,
    IGN_MEM = 1 << 29,
    IGN_MXCSR_MASK = 1 << 30, /* in a stored image */
    IGN_UPPER = 1 << 22,      /* bits of vector registers above 127 */
    IGN_RIP = 1 << 21,
    IGN_FAULT = 1 << 23,      /* error code and CR2; the case if the vectors differ */
};

/* NULL: may run. Else why it is never run on the host. */
const char *known_never(ZydisMnemonic m);
/* Some row of the table is about this mnemonic. */
bool known_mentions(ZydisMnemonic m);
/* What does not count in this case, after both have run. */
uint32_t known_ignore(const struct insn_case *k, const struct insn_result *host,
                      const struct insn_result *guest);

/* ---- report.c ---- */

bool result_equal(const struct insn_case *k, const struct insn_result *host,
                  const struct insn_result *guest);
/* Of two engines: bit for bit. */
bool result_identical(const struct insn_case *k, const struct insn_result *a,
                      const struct insn_result *b);

/* What is told of a difference; strict: between engines. */
struct insn_finding {
    const struct insn_case *k;
    const char *name[2];
    const struct insn_result *result[2];
    bool strict;
    unsigned run; /* of how often it ran, or 0 */
    const char *command;
};
void result_report(const struct insn_forms *f, const struct insn_finding *finding);

#endif
