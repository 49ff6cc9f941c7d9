/*
 * What host code an engine makes of guest idioms: the programs of a blob that
 * listing.py has assembled are run until they are hot, each on a processor of
 * its own, so that none knows of another, and their host code is printed.
 *
 * usage: listing ENGINE BLOB
 *
 * The blob: for each idiom its code size (16, 32, 64) and length, 32 bits each,
 * then the bytes. What changes with every build or run is named or left out:
 * places in the processor's state have their names, addresses outside of the
 * unit and references to the engine's tables are dots. Exit status 77: this
 * engine makes no host code.
 */
#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/x86/vcpu.h"
#include "engine/engine.h"
#include "engine/jit/jit.h"
#include "tests/insn/insn.h"

enum { SKIPPED = 77, RUNS = 40, CODE_MOST = 16384 };

/* ---- names ---- */

struct field {
    size_t at, bytes;
    const char *name;
};

#define CPU(member)                                                                                \
    {offsetof(struct x86_vcpu, member), sizeof(((struct x86_vcpu *)0)->member), #member}
#define JIT(member)                                                                                \
    {JIT_AREA + offsetof(struct jit, member), sizeof(((struct jit *)0)->member), "jit." #member}

static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8",
                                        "r9", "r10", "r11", "r12", "r13", "r14", "r15", "zero",
                                        "rip"};

/* The engine keeps the state where its stack pointer points. */
static void name_place(int64_t at, char *out, size_t bytes)
{
    const struct field fields[] = {
        CPU(s.cc), CPU(s.rflags), CPU(s.icount), CPU(s.x.xmm), CPU(s.x.mxcsr), CPU(s.x),
        CPU(s.seg), CPU(seg_base), CPU(seg_read_last), CPU(seg_write_last), CPU(budget_end),
        CPU(ip_mask), CPU(sp_mask), CPU(vcpu), CPU(slow), CPU(recheck), CPU(s),
        JIT(l0), JIT(jumps), JIT(generation), JIT(host_rsp), JIT(saved_t1), JIT(miss),
        JIT(call_slow), JIT(call_link), JIT(slow), JIT(link), JIT(leave), JIT(l0_used), JIT(stream), JIT(site),
        {JIT_AREA, sizeof(struct jit), "jit"}, {0, sizeof(struct x86_vcpu), "vcpu"},
    };
    size_t reg = offsetof(struct x86_vcpu, s.reg);

    if (at < 0) {
        snprintf(out, bytes, "[stack]");
        return;
    }
    if ((size_t)at >= reg && (size_t)at < reg + 8 * ARRAY_SIZE(gpr_names)) {
        snprintf(out, bytes, "[guest %s]", gpr_names[((size_t)at - reg) / 8]);
        return;
    }
    for (unsigned n = 0; n < ARRAY_SIZE(fields); n++) {
        size_t into = (size_t)at - fields[n].at;

        if ((size_t)at < fields[n].at || into >= fields[n].bytes)
            continue;
        if (!strcmp(fields[n].name, "jit.l0"))
            snprintf(out, bytes, "[l0 %s]",
                     into % 32 == 0 ? "read" : into % 32 == 8 ? "write" : "addend");
        else if (!strcmp(fields[n].name, "jit.site")) /* by the hash of an address */
            snprintf(out, bytes, "[jit.site]");
        else if (fields[n].bytes > 16 && into)
            snprintf(out, bytes, "[%s+%zu]", fields[n].name, into);
        else
            snprintf(out, bytes, "[%s]", fields[n].name);
        return;
    }
    snprintf(out, bytes, "[?]");
}

/* ---- one listing ---- */

static void replace(char *text, size_t bytes, const char *from, size_t from_bytes, const char *to)
{
    char *at = strstr(text, from), rest[128];

    if (!at)
        return;
    snprintf(rest, sizeof rest, "%s", at + from_bytes);
    snprintf(at, bytes - (size_t)(at - text), "%s%s", to, rest);
}

static void print_instruction(const struct insn_decoded *d, uint64_t at, uint64_t end)
{
    ZydisFormatter formatter;
    char text[192], name[96];
    char *open;

    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE,
                              ZYDIS_PADDING_DISABLED);
    ZydisFormatterFormatInstruction(&formatter, &d->z, d->op, d->z.operand_count_visible, text,
                                    sizeof text, at, NULL);
    for (unsigned n = 0; n < d->z.operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        ZyanU64 target;

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.base == ZYDIS_REGISTER_RSP &&
            o->mem.index == ZYDIS_REGISTER_NONE) {
            open = strchr(text, '[');
            name_place(o->mem.disp.value, name, sizeof name);
            if (open && strchr(open, ']'))
                replace(text, sizeof text, open, (size_t)(strchr(open, ']') + 1 - open), name);
        }
        if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->imm.is_relative &&
            ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&d->z, o, at, &target)) && target >= end) {
            open = strstr(text, " 0x");
            if (open)
                snprintf(open, 8, " ...");
        }
    }
    printf("    %3llx  %s\n", (unsigned long long)at, text);
}

static void print_code(const uint8_t *code, size_t bytes)
{
    struct insn_decoded d;

    for (size_t at = 0; at < bytes; at += d.z.length) {
        if (!insn_decode(CODE_64, code + at, (unsigned)(bytes - at), &d)) {
            printf("    %3zx  (data)\n", at);
            return;
        }
        print_instruction(&d, at, bytes);
        /* A call into the engine has the number of a table entry behind it. */
        if (d.z.mnemonic == ZYDIS_MNEMONIC_CALL && d.op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            printf("    %3zx  (reference)\n", at + d.z.length);
            at += 4;
        }
    }
}

/* Pointers everywhere, so that what is read is there. */
static void set_state(struct insn_case *k, enum code_size mode)
{
    struct insn_state *s = &k->in;
    uint64_t base;

    memset(s, 0, sizeof *s);
    s->sel[X86_CS] = mode == CODE_64   ? HOST_CS64
                     : mode == CODE_32 ? HOST_CS32
                                       : LDT_SELECTOR(LDT_CODE16);
    for (unsigned n = 0; n < X86_SEG_COUNT; n++) {
        if (n != X86_CS)
            s->sel[n] = mode == CODE_16 ? LDT_SELECTOR(LDT_STACK16) : HOST_DS;
    }
    k->mode = mode;
    base = case_segment_base(k, ZYDIS_REGISTER_DS);
    for (unsigned n = 0; n < 16; n++)
        s->gpr[n] = DATA_BASE + 0x1000 + n * 64 - base;
    s->gpr[X86_RCX] = 3;
    s->gpr[X86_RAX] = 5;
    s->gpr[X86_RDX] = 0;
    s->gpr[X86_RSP] = DATA_BASE + 0x2800 - base;
    s->rflags = FLAG_R1 | FLAG_IF;
    if (mode == CODE_64)
        s->fs_base = DATA_BASE + 0x1800;
    s->x.fcw = 0x37f;
    s->x.mxcsr = 0x1f80;
    k->code_address = CODE_BASE + 0x100;
    s->rip = k->code_address - case_segment_base(k, ZYDIS_REGISTER_CS);
}

static int listing(const struct x86_engine_ops *engine, FILE *blob)
{
    static uint8_t background[DATA_PAGES][4096], code[CODE_MOST];
    uint32_t head[2];
    unsigned number = 0;

    while (fread(head, sizeof head, 1, blob) == 1) {
        struct insn_case *k = calloc(1, sizeof *k);
        struct guest *g = guest_create(background, engine, true);
        size_t bytes;

        if (!k || head[1] > INSN_CODE_MAX || fread(k->code, 1, head[1], blob) != head[1]) {
            fprintf(stderr, "listing: the blob is damaged\n");
            return 2;
        }
        k->code_bytes = head[1];
        k->count = 2;
        set_state(k, head[0] == 64 ? CODE_64 : head[0] == 32 ? CODE_32 : CODE_16);
        bytes = guest_host_code(g, k, RUNS, code, sizeof code);
        printf("@%u\n", number++);
        if (bytes)
            print_code(code, bytes);
        else
            printf("         (interpreted)\n");
        guest_destroy(g);
        free(k);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct error err = {""};
    const struct x86_engine_ops *engine;
    unsigned a, b, c, d;
    FILE *blob;

    if (argc != 3) {
        fprintf(stderr, "usage: listing ENGINE BLOB\n");
        return 2;
    }
    engine = engine_find(argv[1], NULL, &err);
    blob = fopen(argv[2], "rb");
    if (!engine || !blob) {
        fprintf(stderr, "listing: %s\n", engine ? argv[2] : err.text);
        return 2;
    }
    if (!engine->host_code) {
        printf("engine %s makes no host code\n", engine->name);
        return SKIPPED;
    }
    __cpuid(1, a, b, c, d);
    printf("host %x\n", a & 0x0fff0ff0); /* which flags survive what depends on it */
    return listing(engine, blob);
}
