/*
 * What is told of a difference: what differs, both processors' registers side
 * by side, the guest's code up to there, and the host's code for it where the
 * engine has some. Interface: cli/lockstep_internal.h.
 *
 * The guest's code comes from the reference alone, which goes the last steps
 * once more, one at a time.
 *
 * Threading: one thread.
 */
#include <stdarg.h>
#include <stdio.h>

#include "cli/lockstep_internal.h"
#include "cpu/x86/decode.h"
#include "cpu/x86/mmu.h"
#include "debug/disasm.h"

enum {
    TRACE_NS = 48,
    CODE_BYTES = 15, /* the longest instruction */
    HOST_CODE_LINES_MOST = 400,
    LINE_BYTES = 256,
};

void lockstep_say(struct lockstep *l, const char *format, ...)
{
    char text[LINE_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    l->config->line(l->config->ctx, text);
}

void lockstep_say_difference(void *lockstep, const char *line)
{
    lockstep_say(lockstep, "  %s", line);
}

/* ---- the way there ---- */

struct trace_entry {
    unsigned cpu;
    uint64_t rip;
    gva_t lin;
    unsigned bits, length, code_bytes;
    uint8_t code[CODE_BYTES];
};

struct trace {
    struct trace_entry entry[TRACE_NS + 1];
    unsigned count;
};

static unsigned code_bits(const struct x86_vcpu *c)
{
    return (c->mode & MODE_SIZE) == MODE_64 ? 64 : (c->mode & MODE_SIZE) == MODE_32 ? 32 : 16;
}

static struct trace_entry entry_of(struct x86_vcpu *c)
{
    struct trace_entry e = {.cpu = c->vcpu.index, .rip = c->s.reg[X86_RIP], .bits = code_bits(c)};
    char text[LINE_BYTES];

    e.lin = e.rip + c->seg_base[X86_CS];
    if (e.bits != 64)
        e.lin = (uint32_t)e.lin;
    e.code_bytes = (unsigned)x86_debug_read(c, e.lin, e.code, sizeof e.code);
    e.length = debug_disassemble(text, sizeof text, e.rip, e.bits, e.code, e.code_bytes);
    return e;
}

/* Iterations of one REP are one line. */
static void trace_add(struct trace *t, const struct trace_entry *e)
{
    const struct trace_entry *last = t->count ? &t->entry[t->count - 1] : NULL;

    if (last && last->cpu == e->cpu && last->lin == e->lin)
        return;
    if (t->count < ARRAY_SIZE(t->entry))
        t->entry[t->count++] = *e;
}

static int trace_to(struct lockstep *l, uint64_t ns, struct trace *t, struct error *err)
{
    uint64_t from = MAX(l->checkpoint.ns, ns - MIN(ns, (uint64_t)TRACE_NS)), now;
    struct lockstep_pair p;
    int r = lockstep_pair_create(l, &p, 1, err);

    if (!r)
        r = lockstep_pair_run_to(&p, from, err);
    while (!r && (now = lockstep_now(&p)) < ns && !lockstep_pair_ended(&p)) {
        struct lockstep_side *s = &p.side[LOCKSTEP_REFERENCE];
        struct trace_entry before[VM_MAX_VCPUS];
        uint64_t retired[VM_MAX_VCPUS];

        for (unsigned i = 0; i < s->vm->vcpu_count; i++) {
            before[i] = entry_of(s->vm->vcpus[i]->self);
            retired[i] = lockstep_cpu(s, i)->s.icount;
        }
        r = lockstep_pair_run_to(&p, now + 1, err);
        for (unsigned i = 0; i < s->vm->vcpu_count && !r; i++)
            if (lockstep_cpu(s, i)->s.icount != retired[i])
                trace_add(t, &before[i]);
    }
    lockstep_pair_destroy(&p);
    return r;
}

/* The first of the entries that lead to the last one without a jump. */
static unsigned block_start(const struct trace *t)
{
    unsigned n = t->count - 1;

    while (n && t->entry[n - 1].cpu == t->entry[n].cpu &&
           t->entry[n - 1].lin + t->entry[n - 1].length == t->entry[n].lin)
        n--;
    return n;
}

static void say_trace(struct lockstep *l, const struct trace *t, unsigned start)
{
    lockstep_say(l, "guest code up to the difference ('>': since the last jump):");
    for (unsigned i = 0; i < t->count; i++) {
        const struct trace_entry *e = &t->entry[i];
        char text[LINE_BYTES / 2], bytes[2 * CODE_BYTES + 1] = "";
        unsigned shown = e->length ? e->length : MIN(e->code_bytes, 4u);

        debug_disassemble(text, sizeof text, e->rip, e->bits, e->code, e->code_bytes);
        for (unsigned b = 0; b < shown; b++)
            snprintf(bytes + 2 * b, 3, "%02x", e->code[b]);
        lockstep_say(l, "  %c processor %u  %016llx  %-22s  %s", i >= start ? '>' : ' ', e->cpu,
                     (unsigned long long)e->rip, bytes, text);
    }
}

/* ---- registers ---- */

struct both {
    struct lockstep *l;
    const struct x86_cpu *a, *b;
};

static void say_value(const struct both *r, const char *name, uint64_t a, uint64_t b)
{
    lockstep_say(r->l, "  %-8s %016llx  %016llx%s", name, (unsigned long long)a,
                 (unsigned long long)b, a != b ? "  *" : "");
}

static void say_segment(const struct both *r, const char *name, const struct x86_seg *a,
                        const struct x86_seg *b)
{
    bool same = a->selector == b->selector && a->base == b->base && a->limit == b->limit &&
                a->attr == b->attr;

    lockstep_say(r->l, "  %-4s     %04x %016llx %08x %05x  %04x %016llx %08x %05x%s", name,
                 a->selector, (unsigned long long)a->base, a->limit, a->attr, b->selector,
                 (unsigned long long)b->base, b->limit, b->attr, same ? "" : "  *");
}

static void hex(char *text, const uint8_t *high, size_t high_bytes, const uint8_t *low)
{
    for (size_t i = 0; i < high_bytes; i++)
        text += sprintf(text, "%02x", high[high_bytes - 1 - i]);
    for (size_t i = 0; i < 16; i++)
        text += sprintf(text, "%02x", low[15 - i]);
}

/* Only what differs: there are many. */
static void say_vectors(const struct both *r)
{
    const struct x86_xsave *a = &r->a->x, *b = &r->b->x;
    char x[80], y[80];

    for (unsigned i = 0; i < 16; i++) {
        if (memcmp(a->xmm[i], b->xmm[i], 16) || memcmp(a->ymm_hi[i], b->ymm_hi[i], 16)) {
            hex(x, a->ymm_hi[i], 16, a->xmm[i]);
            hex(y, b->ymm_hi[i], 16, b->xmm[i]);
            lockstep_say(r->l, "  YMM%-5u %s  %s  *", i, x, y);
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        if (memcmp(a->st[i], b->st[i], 10)) {
            hex(x, NULL, 0, a->st[i]);
            hex(y, NULL, 0, b->st[i]);
            lockstep_say(r->l, "  ST%-6u %s  %s  *", i, x + 12, y + 12);
        }
        if (a->opmask[i] != b->opmask[i]) {
            snprintf(x, sizeof x, "k%u", i);
            say_value(r, x, a->opmask[i], b->opmask[i]);
        }
    }
}

static void say_registers(const struct both *r)
{
    static const char *const names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    static const char *const segments[X86_SEG_COUNT] = {"ES", "CS", "SS", "DS", "FS", "GS"};
    const struct x86_cpu *a = r->a, *b = r->b;

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        say_value(r, names[i], a->reg[i], b->reg[i]);
    say_value(r, "RIP", a->reg[X86_RIP], b->reg[X86_RIP]);
    say_value(r, "RFLAGS", x86_rflags(a), x86_rflags(b));
    say_value(r, "retired", a->icount, b->icount);
    say_value(r, "CR0", a->cr0, b->cr0);
    say_value(r, "CR2", a->cr2, b->cr2);
    say_value(r, "CR3", a->cr3, b->cr3);
    say_value(r, "CR4", a->cr4, b->cr4);
    say_value(r, "EFER", a->efer, b->efer);
    say_value(r, "FCW", a->x.fcw, b->x.fcw);
    say_value(r, "FSW", a->x.fsw, b->x.fsw);
    say_value(r, "MXCSR", a->x.mxcsr, b->x.mxcsr);
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        say_segment(r, segments[i], &a->seg[i], &b->seg[i]);
    say_vectors(r);
}

/* ---- host code ---- */

static void say_host_code(struct lockstep *l, struct x86_vcpu *c, const struct trace *t,
                          unsigned start)
{
    const uint8_t *code = NULL;
    size_t bytes = 0, at = 0;
    unsigned lines = 0;

    if (!c->engine_ops->host_code) {
        lockstep_say(l, "engine %s makes no host code", c->engine_ops->name);
        return;
    }
    for (; start < t->count && !bytes; start++)
        bytes = c->engine_ops->host_code(c, t->entry[start].lin, &code);
    if (!bytes) {
        lockstep_say(l, "engine %s has no host code for these instructions", c->engine_ops->name);
        return;
    }
    lockstep_say(l, "host code for the block at %016llx, %zu bytes:",
                 (unsigned long long)t->entry[start - 1].rip, bytes);
    while (at < bytes && lines++ < HOST_CODE_LINES_MOST) {
        char text[LINE_BYTES / 2];
        unsigned n = debug_disassemble(text, sizeof text, (uint64_t)(uintptr_t)(code + at), 64,
                                       code + at, bytes - at);

        lockstep_say(l, "  %06zx  %s", at, text);
        at += n ? n : 1;
    }
    if (at < bytes)
        lockstep_say(l, "  %zu more bytes", bytes - at);
}

int lockstep_report(struct lockstep *l, struct lockstep_pair *p, uint64_t good_ns, uint64_t bad_ns,
                    struct error *err)
{
    const char *names[] = {l->config->engine[LOCKSTEP_REFERENCE]->name,
                           l->config->engine[LOCKSTEP_TESTED]->name};
    struct trace t = {.count = 0};
    unsigned cpu = 0, start = 0;
    int r = trace_to(l, bad_ns, &t, err);

    if (r)
        return r;
    if (t.count) {
        start = block_start(&t);
        cpu = t.entry[t.count - 1].cpu;
        lockstep_say(l,
                     "the machines are the same at %llu ns and differ at %llu ns, on processor "
                     "%u, after the instruction at RIP %016llx or within the block that ends "
                     "with it",
                     (unsigned long long)good_ns, (unsigned long long)bad_ns, cpu,
                     (unsigned long long)t.entry[t.count - 1].rip);
    } else {
        lockstep_say(l,
                     "the machines are the same at %llu ns and differ at %llu ns; no "
                     "instruction was executed in between",
                     (unsigned long long)good_ns, (unsigned long long)bad_ns);
    }
    lockstep_say(l, "differences (%s and %s):", names[0], names[1]);
    lockstep_compare(l, p, true, lockstep_say_difference, l);
    lockstep_say(l, "processor %u (%s, %s; '*' differs):", cpu, names[0], names[1]);
    say_registers(&(struct both){.l = l,
                                 .a = &lockstep_cpu(&p->side[LOCKSTEP_REFERENCE], cpu)->s,
                                 .b = &lockstep_cpu(&p->side[LOCKSTEP_TESTED], cpu)->s});
    if (t.count) {
        say_trace(l, &t, start);
        say_host_code(l, p->side[LOCKSTEP_TESTED].vm->vcpus[cpu]->self, &t, start);
    }
    return 0;
}

int lockstep_report_code(struct lockstep *l, uint64_t ns, struct error *err)
{
    struct trace t = {.count = 0};
    int r = trace_to(l, ns, &t, err);

    if (!r && t.count)
        say_trace(l, &t, block_start(&t));
    return r;
}
