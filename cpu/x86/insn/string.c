/*
 * String instructions: MOVS STOS LODS SCAS CMPS INS OUTS, with REP (SDM Vol. 2).
 *
 * A REP form is restartable: registers always show the iterations done, so a
 * fault, an interrupt or the end of the budget leaves RIP on the instruction.
 * Each iteration counts as one retired instruction. Runs within pages of plain
 * memory are the host's own REP, but for LODS, and downwards for all but MOVS,
 * which copies to a higher address that way.
 */
#include "cpu/x86/debug.h"
#include "cpu/x86/insn/ops.h"
#include "cpu/x86/seg.h"
#include "cpu/x86/vec/vec.h"

enum string_op { STR_MOVS, STR_STOS, STR_LODS, STR_SCAS, STR_CMPS, STR_INS, STR_OUTS };

static uint64_t address_mask(const struct x86_insn *i)
{
    return i->addr_size == 8 ? ~0ull : i->addr_size == 4 ? 0xffffffff : 0xffff;
}

static void advance(struct x86_vcpu *c, const struct x86_insn *i, unsigned reg, int64_t by)
{
    uint64_t v = c->s.reg[reg] + (uint64_t)by;

    if (i->addr_size == 2)
        X86_REG16(c, reg * 8) = (uint16_t)v;
    else
        c->s.reg[reg] = v & address_mask(i);
}

#define COMPARE_FN(bits, type, sfx)                                                                \
    static void compare##bits(struct x86_vcpu *c, type a, type b)                                  \
    {                                                                                              \
        uint32_t cc;                                                                               \
        __asm__("cmp" sfx " %2, %1\n\t" FLAGS_SAVE : "=&a"(cc) : "r"(a), "r"(b) : "cc");           \
        c->s.cc = (uint16_t)cc;                                                                    \
    }
SIZES(COMPARE_FN)

static void compare(struct x86_vcpu *c, uint64_t a, uint64_t b, unsigned size)
{
    switch (size) {
    case 1:
        compare8(c, (uint8_t)a, (uint8_t)b);
        break;
    case 2:
        compare16(c, (uint16_t)a, (uint16_t)b);
        break;
    case 4:
        compare32(c, (uint32_t)a, (uint32_t)b);
        break;
    default:
        compare64(c, a, b);
        break;
    }
}

/* One iteration; raises before it changes a register. */
static inline void string_step(struct x86_vcpu *c, const struct x86_insn *i, enum string_op op)
{
    uint64_t mask = address_mask(i);
    uint64_t si = c->s.reg[X86_RSI] & mask, di = c->s.reg[X86_RDI] & mask, v;
    unsigned size = i->size;
    int64_t by = c->s.rflags & FLAG_DF ? -(int64_t)size : (int64_t)size;

    switch (op) {
    case STR_MOVS:
        v = x86_read(c, i->seg, si, size);
        x86_write(c, X86_ES, di, v, size);
        break;
    case STR_STOS:
        x86_write(c, X86_ES, di, c->s.reg[X86_RAX], size);
        break;
    case STR_LODS:
        x86_reg_set(c, X86_RAX * 8, size, x86_read(c, i->seg, si, size));
        break;
    case STR_SCAS:
        compare(c, zext(c->s.reg[X86_RAX], size), x86_read(c, X86_ES, di, size), size);
        break;
    case STR_CMPS:
        v = x86_read(c, i->seg, si, size);
        compare(c, v, x86_read(c, X86_ES, di, size), size);
        break;
    case STR_INS: {
        uint16_t port = (uint16_t)c->s.reg[X86_RDX];
        x86_check_io(c, port, size);
        x86_probe_write(c, X86_ES, di, size);
        v = ~0ull;
        vec_leave(c);
        as_load(&c->vm->ports, port, size, &v);
        x86_write(c, X86_ES, di, v, size);
        x86_io_breakpoint(c, port, size);
        break;
    }
    case STR_OUTS: {
        uint16_t port = (uint16_t)c->s.reg[X86_RDX];
        x86_check_io(c, port, size);
        v = x86_read(c, i->seg, si, size);
        vec_leave(c);
        as_store(&c->vm->ports, port, size, v);
        x86_io_breakpoint(c, port, size);
        break;
    }
    }
    if (op != STR_STOS && op != STR_SCAS && op != STR_INS)
        advance(c, i, X86_RSI, by);
    if (op != STR_LODS && op != STR_OUTS)
        advance(c, i, X86_RDI, by);
}

/* The host's own instructions: what they do where the two areas overlap is what
 * the guest's would do, and they use no vector registers (docs/VECTOR.md). */
#define STRING_FNS(bits, type, sfx)                                                                \
    static void host_movs##bits(void *d, const void *s, uint64_t n)                                \
    {                                                                                              \
        __asm__ volatile("rep movs" sfx : "+D"(d), "+S"(s), "+c"(n) : : "memory");                 \
    }                                                                                              \
    static void host_stos##bits(void *d, uint64_t v, uint64_t n)                                   \
    {                                                                                              \
        __asm__ volatile("rep stos" sfx : "+D"(d), "+c"(n) : "a"(v) : "memory");                   \
    }
SIZES(STRING_FNS)

static void host_movs(void *d, const void *s, uint64_t n, unsigned size)
{
    switch (size) {
    case 1:
        host_movs8(d, s, n);
        break;
    case 2:
        host_movs16(d, s, n);
        break;
    case 4:
        host_movs32(d, s, n);
        break;
    default:
        host_movs64(d, s, n);
        break;
    }
}

static void host_stos(void *d, uint64_t v, uint64_t n, unsigned size)
{
    switch (size) {
    case 1:
        host_stos8(d, v, n);
        break;
    case 2:
        host_stos16(d, v, n);
        break;
    case 4:
        host_stos32(d, v, n);
        break;
    default:
        host_stos64(d, v, n);
        break;
    }
}

/* The same downwards, from the highest element on. */
#define STRING_DOWN_FNS(bits, type, sfx)                                                           \
    static void host_movs_down##bits(void *d, const void *s, uint64_t n)                           \
    {                                                                                              \
        __asm__ volatile("std\n\trep movs" sfx "\n\tcld"                                          \
                         : "+D"(d), "+S"(s), "+c"(n)                                               \
                         :                                                                         \
                         : "memory", "cc");                                                        \
    }
SIZES(STRING_DOWN_FNS)

static void host_movs_down(uint8_t *d, const uint8_t *s, uint64_t n, unsigned size)
{
    d += (n - 1) * size;
    s += (n - 1) * size;
    switch (size) {
    case 1:
        host_movs_down8(d, s, n);
        break;
    case 2:
        host_movs_down16(d, s, n);
        break;
    case 4:
        host_movs_down32(d, s, n);
        break;
    default:
        host_movs_down64(d, s, n);
        break;
    }
}

/* Returns what is left of n, which is not 0; cc: of the last comparison. */
#define COMPARE_RUN_FNS(bits, type, sfx)                                                           \
    static uint64_t host_cmps##bits(const void *s, const void *d, uint64_t n, bool equal,          \
                                    uint32_t *cc)                                                  \
    {                                                                                              \
        if (equal)                                                                                 \
            __asm__ volatile("repe cmps" sfx "\n\t" FLAGS_SAVE                                     \
                             : "+S"(s), "+D"(d), "+c"(n), "=&a"(*cc)                               \
                             :                                                                     \
                             : "memory", "cc");                                                    \
        else                                                                                       \
            __asm__ volatile("repne cmps" sfx "\n\t" FLAGS_SAVE                                    \
                             : "+S"(s), "+D"(d), "+c"(n), "=&a"(*cc)                               \
                             :                                                                     \
                             : "memory", "cc");                                                    \
        return n;                                                                                  \
    }                                                                                              \
    static uint64_t host_scas##bits(uint64_t v, const void *d, uint64_t n, bool equal,             \
                                    uint32_t *cc)                                                  \
    {                                                                                              \
        if (equal)                                                                                 \
            __asm__ volatile("repe scas" sfx "\n\t" FLAGS_SAVE                                     \
                             : "+D"(d), "+c"(n), "+a"(v)                                           \
                             :                                                                     \
                             : "memory", "cc");                                                    \
        else                                                                                       \
            __asm__ volatile("repne scas" sfx "\n\t" FLAGS_SAVE                                    \
                             : "+D"(d), "+c"(n), "+a"(v)                                           \
                             :                                                                     \
                             : "memory", "cc");                                                    \
        *cc = (uint32_t)v;                                                                         \
        return n;                                                                                  \
    }
SIZES(COMPARE_RUN_FNS)

/* How many elements from address on, upwards or downwards, lie in its page. */
static uint64_t page_run(uint64_t lin, unsigned size, bool down)
{
    uint64_t at = lin & ~PAGE_MASK;

    if (!down)
        return (PAGE_SIZE - at) / size;
    return at + size > PAGE_SIZE ? 0 : at / size + 1;
}

/* Does a run from ea on go around the end of the address space? */
static bool run_wraps(uint64_t ea, uint64_t bytes, unsigned size, uint64_t mask, bool down)
{
    return down ? bytes - size > ea || size > mask - ea : bytes > mask - ea;
}

/* Where a run can be read at full speed; NULL: the general way has to. */
static const uint8_t *run_to_read(struct x86_vcpu *c, unsigned seg, uint64_t ea, uint64_t bytes)
{
    uint64_t lin = ea + c->seg_base[seg];
    const struct tlb_entry *e = tlb_slot(c, lin);

    if ((int64_t)(ea + bytes - 1) > c->seg_read_last[seg] ||
        ((lin + bytes - 1) & PAGE_MASK) != e->read)
        return NULL;
    return (const uint8_t *)(lin + e->addend);
}

/* Whole runs of plain memory at once; returns the iterations done, 0 where
 * the general way has to do the next one. */
static uint64_t fast_run(struct x86_vcpu *c, const struct x86_insn *i, enum string_op op,
                         uint64_t count)
{
    uint64_t mask = address_mask(i), size = i->size, n = count, bytes, below;
    uint64_t si = c->s.reg[X86_RSI] & mask, di = c->s.reg[X86_RDI] & mask;
    bool has_code = false, down = c->s.rflags & FLAG_DF;
    const uint8_t *s;
    int64_t by;
    uint8_t *d;

    if (down && op == STR_STOS)
        return 0;
    n = MIN(n, page_run(di + c->seg_base[X86_ES], i->size, down));
    if (op == STR_MOVS)
        n = MIN(n, page_run(si + c->seg_base[i->seg], i->size, down));
    bytes = n * size;
    if (!n || run_wraps(di, bytes, i->size, mask, down) ||
        (op == STR_MOVS && run_wraps(si, bytes, i->size, mask, down)))
        return 0;
    below = down ? bytes - size : 0;
    d = x86_rmw_fast(c, X86_ES, di - below, (unsigned)bytes);
    if (!d) {
        /* One look for all of it, and one message to others. */
        d = x86_run_beside_code(c, X86_ES, di - below, (unsigned)bytes);
        has_code = true;
    }
    if (!d)
        return 0;
    by = down ? -(int64_t)bytes : (int64_t)bytes;
    if (op == STR_MOVS) {
        s = run_to_read(c, i->seg, si - below, bytes);
        if (!s)
            return 0;
        if (down)
            host_movs_down(d, s, n, i->size);
        else
            host_movs(d, s, n, i->size);
        advance(c, i, X86_RSI, by);
    } else {
        host_stos(d, c->s.reg[X86_RAX], n, i->size);
    }
    advance(c, i, X86_RDI, by);
    if (has_code)
        x86_run_stored(c, d, (unsigned)bytes);
    return n;
}

/* The same for REPE and REPNE: up to where it ends, or to a page's end. */
static uint64_t compare_run(struct x86_vcpu *c, const struct x86_insn *i, enum string_op op,
                            uint64_t count)
{
    uint64_t mask = address_mask(i), size = i->size, n, left, v = c->s.reg[X86_RAX];
    uint64_t si = c->s.reg[X86_RSI] & mask, di = c->s.reg[X86_RDI] & mask;
    bool equal = i->flags & INSN_REP;
    const uint8_t *d, *s = NULL;
    uint32_t cc;

    if (c->s.rflags & FLAG_DF)
        return 0;
    n = MIN(count, page_run(di + c->seg_base[X86_ES], i->size, false));
    if (op == STR_CMPS)
        n = MIN(n, page_run(si + c->seg_base[i->seg], i->size, false));
    if (!n || run_wraps(di, n * size, i->size, mask, false) ||
        (op == STR_CMPS && run_wraps(si, n * size, i->size, mask, false)))
        return 0;
    d = run_to_read(c, X86_ES, di, n * size);
    if (op == STR_CMPS)
        s = run_to_read(c, i->seg, si, n * size);
    if (!d || (op == STR_CMPS && !s))
        return 0;
#define RUN(bits)                                                                                  \
    (s ? host_cmps##bits(s, d, n, equal, &cc) : host_scas##bits(v, d, n, equal, &cc))
    left = size == 1 ? RUN(8) : size == 2 ? RUN(16) : size == 4 ? RUN(32) : RUN(64);
#undef RUN
    c->s.cc = (uint16_t)cc;
    n -= left;
    if (op == STR_CMPS)
        advance(c, i, X86_RSI, (int64_t)(n * size));
    advance(c, i, X86_RDI, (int64_t)(n * size));
    return n;
}

static inline enum x86_next string_rep(struct x86_vcpu *c, const struct x86_insn *i,
                                       enum string_op op)
{
    uint64_t mask = address_mask(i);
    uint64_t done = 0, budget;
    bool compares = op == STR_SCAS || op == STR_CMPS;
    bool devices = op == STR_INS || op == STR_OUTS;

    X86_BEGIN(c, i);
    if ((c->s.reg[X86_RCX] & mask) == 0) {
        /* With a 32-bit count of zero, the upper half is cleared all the same
         * only where the count register is written: it is not. */
        X86_END_FALLTHROUGH(c, i);
    }
    for (;;) {
        uint64_t left = c->s.reg[X86_RCX] & mask, n = 0;

        budget = c->budget_end - c->s.icount - i->number;
        /* While c->slow there may be a trap behind each iteration. */
        if ((op == STR_MOVS || op == STR_STOS) && !c->slow)
            n = fast_run(c, i, op, MIN(left, budget));
        else if (compares && !c->slow)
            n = compare_run(c, i, op, MIN(left, budget));
        if (!n) {
            string_step(c, i, op);
            n = 1;
        }
        advance(c, i, X86_RCX, -(int64_t)n);
        /* Visible at once: a fault in the next iteration keeps this one. */
        c->s.icount += n;
        done += n;
        left -= n;
        if (left == 0)
            break;
        if (compares && ((c->s.cc & CC_ZF) != 0) != ((i->flags & INSN_REP) != 0))
            break;
        /* Interrupts, single steps and the end of the budget fall between
         * iterations; so do device accesses that changed the machine. */
        if (c->s.icount + i->number >= c->budget_end || c->slow ||
            ((done & 63) < n &&
             atomic_load_explicit(&c->vcpu.events, memory_order_relaxed)) ||
            (devices && atomic_load_explicit(&c->vcpu.events, memory_order_relaxed))) {
            c->s.icount--; /* the loop counts one for leaving here */
            /* What comes in between sees RF, so that the rest does not meet
             * the instruction's own breakpoint again (SDM Vol. 3, 18.3.1.1). */
            c->s.rflags |= FLAG_RF;
            c->slow = 1;
            c->s.reg[X86_RIP] = x86_cur_rip(c);
            return NEXT_LOOKUP;
        }
    }
    c->s.icount--;
    X86_END_FALLTHROUGH(c, i);
}

#define STRING_HANDLERS(name, op)                                                                  \
    HANDLER(name)                                                                                  \
    {                                                                                              \
        X86_BEGIN(c, i);                                                                           \
        string_step(c, i, op);                                                                     \
        if (op == STR_INS || op == STR_OUTS)                                                       \
            X86_END_FALLTHROUGH(c, i);                                                             \
        X86_NEXT(c, i);                                                                            \
    }                                                                                              \
    HANDLER(rep_##name)                                                                            \
    {                                                                                              \
        return string_rep(c, i, op);                                                               \
    }
STRING_HANDLERS(movs, STR_MOVS)
STRING_HANDLERS(stos, STR_STOS)
STRING_HANDLERS(lods, STR_LODS)
STRING_HANDLERS(scas, STR_SCAS)
STRING_HANDLERS(cmps, STR_CMPS)
STRING_HANDLERS(ins, STR_INS)
STRING_HANDLERS(outs, STR_OUTS)

bool bind_string(struct x86_decode *d, struct x86_insn *i)
{
    static x86_handler *const table[][2] = {
        {movs, rep_movs}, {stos, rep_stos}, {lods, rep_lods}, {scas, rep_scas},
        {cmps, rep_cmps}, {ins, rep_ins},   {outs, rep_outs},
    };
    enum string_op op;

    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ:
        op = STR_MOVS;
        break;
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
        op = STR_STOS;
        break;
    case ZYDIS_MNEMONIC_LODSB:
    case ZYDIS_MNEMONIC_LODSW:
    case ZYDIS_MNEMONIC_LODSD:
    case ZYDIS_MNEMONIC_LODSQ:
        op = STR_LODS;
        break;
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ:
        op = STR_SCAS;
        break;
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
        op = STR_CMPS;
        break;
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
        op = STR_INS;
        break;
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
        op = STR_OUTS;
        break;
    default:
        return false;
    }
    /* The opcode's low bit is the width: 8 bits or the operand size. */
    i->size = d->z.opcode & 1 ? d->z.operand_width / 8 : 1;
    if (op == STR_INS || op == STR_OUTS) {
        i->size = MIN(i->size, 4);
        i->flags |= INSN_LAST;
    }
    if (i->flags & (INSN_REP | INSN_REPNE))
        i->flags |= INSN_LAST;
    i->fn = table[op][(i->flags & (INSN_REP | INSN_REPNE)) != 0];
    return true;
}
