/*
 * Comparison of two results, and the report of a difference: bytes and
 * disassembly, what of the initial state the instruction reads, and each thing
 * that differs, host first.
 */
#include "tests/insn/insn.h"

#include <stdio.h>

static const char *const gpr_name[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const seg_name[6] = {"es", "cs", "ss", "ds", "fs", "gs"};

struct diff {
    FILE *out; /* NULL: only whether */
    unsigned count;
    const char *name[2]; /* whose results they are: host and vireo, or two engines */
};

static void differ(struct diff *d, const char *what, uint64_t host, uint64_t guest)
{
    d->count++;
    if (d->out)
        fprintf(d->out, "  %-10s %s %016llx  %s %016llx  (xor %llx)\n", what, d->name[0],
                (unsigned long long)host, d->name[1], (unsigned long long)guest,
                (unsigned long long)(host ^ guest));
}

static void check(struct diff *d, const char *what, uint64_t host, uint64_t guest)
{
    if (host != guest)
        differ(d, what, host, guest);
}

static void hex(FILE *out, const uint8_t *v, unsigned bytes)
{
    for (unsigned n = bytes; n-- > 0;)
        fprintf(out, "%02x%s", v[n], n && n % 8 == 0 ? "_" : "");
}

static void check_bytes(struct diff *d, const char *what, unsigned number, const uint8_t *host,
                        const uint8_t *guest, unsigned bytes)
{
    if (!memcmp(host, guest, bytes))
        return;
    d->count++;
    if (!d->out)
        return;
    fprintf(d->out, "  %s%u\n    %-6s ", what, number, d->name[0]);
    hex(d->out, host, bytes);
    fprintf(d->out, "\n    %-6s ", d->name[1]);
    hex(d->out, guest, bytes);
    fprintf(d->out, "\n");
}

static bool has_error(int vector)
{
    return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

static void vector_register(const struct x86_xsave *x, unsigned n, uint8_t out[64])
{
    if (n >= 16) {
        memcpy(out, x->hi16_zmm[n - 16], 64);
        return;
    }
    memcpy(out, x->xmm[n], 16);
    memcpy(out + 16, x->ymm_hi[n], 16);
    memcpy(out + 32, x->zmm_hi[n], 32);
}

static void check_x(struct diff *d, const struct x86_xsave *h, const struct x86_xsave *g,
                    uint32_t ignore, bool is_single)
{
    unsigned width = ignore & IGN_UPPER ? 16 : 64;

    if (!(ignore & IGN_X87)) {
        check(d, "fcw", h->fcw, g->fcw);
        check(d, "fsw", h->fsw, g->fsw);
        check(d, "ftw", h->ftw, g->ftw);
        for (unsigned n = 0; n < 8; n++)
            check_bytes(d, "st", n, h->st[n], g->st[n], 10);
        /* AMD's processors show these while an error is pending; the guest has
         * FDP_EXCPTN_ONLY, where what only later became an error does not count. */
        if (h->fsw & 0x80) {
            check(d, "fip", h->fip, g->fip);
            if (is_single) {
                check(d, "fop", h->fop, g->fop);
                check(d, "fdp", h->fdp, g->fdp);
            }
        }
    }
    check(d, "mxcsr", h->mxcsr, g->mxcsr);
    for (unsigned n = 0; n < 8; n++) {
        char name[8];

        snprintf(name, sizeof name, "k%u", n);
        check(d, name, h->opmask[n], g->opmask[n]);
    }
    if (!memcmp(h->xmm, g->xmm, sizeof h->xmm) && !memcmp(h->ymm_hi, g->ymm_hi, sizeof h->ymm_hi) &&
        !memcmp(h->zmm_hi, g->zmm_hi, sizeof h->zmm_hi) &&
        !memcmp(h->hi16_zmm, g->hi16_zmm, sizeof h->hi16_zmm))
        return;
    for (unsigned n = 0; n < 32; n++) {
        uint8_t a[64], b[64];

        vector_register(h, n, a);
        vector_register(g, n, b);
        check_bytes(d, "zmm", n, a, b, width);
    }
}

/* Nothing but MXCSR_MASK, which is 4-aligned, with MM on the host. */
static bool only_mxcsr_mask(const uint8_t *h, const uint8_t *g)
{
    for (unsigned at = 0; at < 4096; at += 4) {
        if (memcmp(h + at, g + at, 4) &&
            (le32_get(h + at) != 0x2ffff || le32_get(g + at) != 0xffff))
            return false;
    }
    return true;
}

static void check_memory(struct diff *d, const struct insn_case *k, const struct insn_result *h,
                         const struct insn_result *g, uint32_t ignore)
{
    for (unsigned n = 0; n < DATA_PAGES; n++) {
        unsigned shown = 0;

        if (!case_writes(k, n) || !memcmp(h->mem[n], g->mem[n], 4096))
            continue;
        if ((ignore & IGN_MXCSR_MASK) && only_mxcsr_mask(h->mem[n], g->mem[n]))
            continue;
        d->count++;
        if (!d->out)
            continue;
        for (unsigned at = 0; at < 4096 && shown < 12; at += 8) {
            if (!memcmp(h->mem[n] + at, g->mem[n] + at, 8))
                continue;
            shown++;
            fprintf(d->out, "  [%llx] %s %016llx  %s %016llx\n",
                    (unsigned long long)data_page[n].address + at, d->name[0],
                    (unsigned long long)le64_get(h->mem[n] + at), d->name[1],
                    (unsigned long long)le64_get(g->mem[n] + at));
        }
    }
}

/* The host's kernel returns to user mode by IRET, which makes null selectors 0
 * in data segment registers. */
static uint16_t selector(unsigned n, uint16_t v)
{
    return n != X86_CS && n != X86_SS && v < 4 ? 0 : v;
}

static void compare(struct diff *d, const struct insn_case *k, const struct insn_result *h,
                    const struct insn_result *g, uint32_t ignore)
{
    uint64_t flags = 0x3fffff & ~(uint64_t)(ignore & (FLAG_STATUS | FLAG_RF));
    /* Compatibility mode has no upper half of RSP to keep. */
    uint64_t wide =
        h->out.sel[X86_CS] == HOST_CS64 && k->mode == CODE_64 ? ~0ull : 0xffffffff;

    if (ignore & IGN_CASE)
        return;
    check(d, "vector", (uint64_t)(int64_t)h->vector, (uint64_t)(int64_t)g->vector);
    if (h->vector < 0 && h->vector != VECTOR_TIMEOUT)
        return; /* nobody saved its state */
    if (has_error(h->vector) && h->vector == g->vector && !(ignore & (IGN_ERROR | IGN_FAULT))) {
        /* The host's kernel does not tell what of its half is mapped. */
        uint32_t hide = h->vector == VEC_PF && h->cr2 >= 0x7ffffffff000 ? PF_P : 0;

        check(d, "error", h->error | hide, g->error | hide);
    }
    if (!(ignore & (IGN_CR2 | IGN_FAULT)))
        check(d, "cr2", h->cr2, g->cr2);
    if (!(ignore & IGN_RIP))
        check(d, "rip", h->out.rip, g->out.rip);
    check(d, "rflags", h->out.rflags & flags, g->out.rflags & flags);
    for (unsigned n = 0; n < 16; n++)
        check(d, gpr_name[n], h->out.gpr[n] & (n == X86_RSP ? wide : ~0ull),
              g->out.gpr[n] & (n == X86_RSP ? wide : ~0ull));
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        check(d, seg_name[n], selector(n, h->out.sel[n]), selector(n, g->out.sel[n]));
    if (h->out.sel[X86_CS] == HOST_CS64 && k->mode == CODE_64 && !(ignore & IGN_BASES)) {
        check(d, "fs_base", h->out.fs_base, g->out.fs_base);
        check(d, "gs_base", h->out.gs_base, g->out.gs_base);
    }
    check_x(d, &h->out.x, &g->out.x, ignore, k->count == 1);
    if (!(ignore & IGN_MEM))
        check_memory(d, k, h, g, ignore);
}

bool result_equal(const struct insn_case *k, const struct insn_result *host,
                  const struct insn_result *guest)
{
    struct diff d = {0};

    compare(&d, k, host, guest, 0);
    if (!d.count)
        return true;
    d.count = 0;
    compare(&d, k, host, guest, known_ignore(k, host, guest));
    return d.count == 0;
}

/* ---- two engines ---- */

bool result_identical(const struct insn_case *k, const struct insn_result *a,
                      const struct insn_result *b)
{
    if (a->vector != b->vector || a->error != b->error || a->cr2 != b->cr2 ||
        a->retired != b->retired || a->dr6 != b->dr6 || memcmp(&a->out, &b->out, sizeof a->out))
        return false;
    for (unsigned n = 0; n < DATA_PAGES; n++) {
        if (case_writes(k, n) && memcmp(a->mem[n], b->mem[n], 4096))
            return false;
    }
    return true;
}

static void compare_engines(struct diff *d, const struct insn_case *k, const struct insn_result *a,
                            const struct insn_result *b)
{
    const struct x86_xsave *x = &a->out.x, *y = &b->out.x;

    check(d, "vector", (uint64_t)(int64_t)a->vector, (uint64_t)(int64_t)b->vector);
    check(d, "error", a->error, b->error);
    check(d, "cr2", a->cr2, b->cr2);
    check(d, "retired", a->retired, b->retired);
    check(d, "dr6", a->dr6, b->dr6);
    check(d, "rip", a->out.rip, b->out.rip);
    check(d, "rflags", a->out.rflags, b->out.rflags);
    for (unsigned n = 0; n < 16; n++)
        check(d, gpr_name[n], a->out.gpr[n], b->out.gpr[n]);
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        check(d, seg_name[n], a->out.sel[n], b->out.sel[n]);
    check(d, "fs_base", a->out.fs_base, b->out.fs_base);
    check(d, "gs_base", a->out.gs_base, b->out.gs_base);
    check_x(d, x, y, 0, true);
    check(d, "fip", x->fip, y->fip);
    check(d, "fdp", x->fdp, y->fdp);
    check(d, "fop", x->fop, y->fop);
    check_memory(d, k, a, b, 0);
    if (!d->count && memcmp(x, y, sizeof *x))
        check_bytes(d, "other parts of the XSAVE area", 0, (const uint8_t *)x, (const uint8_t *)y,
                    sizeof *x);
}

/* ---- the report ---- */

static void show_operand(const struct insn_case *k, const ZydisDecodedOperand *o)
{
    const struct x86_xsave *x = &k->in.x;

    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        ZydisRegisterClass c = ZydisRegisterGetClass(o->reg.value);
        unsigned id = (unsigned)ZydisRegisterGetId(o->reg.value) & 31;
        uint8_t v[64];

        switch (c) {
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
        case ZYDIS_REGCLASS_ZMM:
            vector_register(x, id, v);
            printf("  in %s ", ZydisRegisterGetString(o->reg.value));
            hex(stdout, v, o->size / 8);
            printf("\n");
            break;
        case ZYDIS_REGCLASS_MASK:
            printf("  in k%u %016llx\n", id & 7, (unsigned long long)x->opmask[id & 7]);
            break;
        case ZYDIS_REGCLASS_X87:
        case ZYDIS_REGCLASS_MMX:
            if (c == ZYDIS_REGCLASS_MMX)
                id = (id - (x->fsw >> 11 & 7)) & 7;
            printf("  in st%u ", id & 7);
            hex(stdout, x->st[id & 7], 10);
            printf("\n");
            break;
        default:
            break;
        }
    }
}

static void show_initial(const struct insn_case *k, const struct insn_decoded *d)
{
    const struct insn_state *s = &k->in;

    for (unsigned n = 0; n < (k->mode == CODE_64 ? 16u : 8u); n++)
        printf("%s%s=%llx", n % 8 == 0 ? "  in " : " ", gpr_name[n], (unsigned long long)s->gpr[n]),
            n % 8 == 7 ? (void)printf("\n") : (void)0;
    printf("  in rip=%llx rflags=%llx es=%x cs=%x ss=%x ds=%x fs=%x gs=%x", 
           (unsigned long long)s->rip, (unsigned long long)s->rflags, s->sel[0], s->sel[1],
           s->sel[2], s->sel[3], s->sel[4], s->sel[5]);
    if (k->mode == CODE_64)
        printf(" fsbase=%llx gsbase=%llx", (unsigned long long)s->fs_base,
               (unsigned long long)s->gs_base);
    printf("\n  in mxcsr=%x fcw=%x fsw=%x ftw=%x\n", s->x.mxcsr, s->x.fcw, s->x.fsw, s->x.ftw);
    for (unsigned n = 0; n < d->z.operand_count; n++)
        show_operand(k, &d->op[n]);
    for (unsigned p = 0; p < k->patches; p++) {
        printf("  in [%llx] ", (unsigned long long)k->patch[p].address);
        hex(stdout, k->patch_data + k->patch[p].offset, MIN(k->patch[p].bytes, 64u));
        printf(" (%u bytes, last first)\n", k->patch[p].bytes);
    }
}

void result_report(const struct insn_forms *f, const struct insn_finding *finding)
{
    static const char *const modes[] = {"16-bit", "32-bit", "64-bit"};
    const struct insn_case *k = finding->k;
    const struct insn_result *const *result = finding->result;
    struct diff d = {.out = stdout, .name = {finding->name[0], finding->name[1]}};
    struct insn_decoded first, i;
    ZydisFormatter formatter;

    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    printf("---- %s: %s\n", modes[k->mode],
           k->count == 1       ? f->form[k->form].name
           : k->writes_code ? "code that changes itself"
                            : "block");
    insn_decode(k->mode, k->code, k->code_bytes, &first);
    for (unsigned at = 0; at < k->code_bytes; at += i.z.length) {
        char text[128];

        if (!insn_decode(k->mode, k->code + at, k->code_bytes - at, &i))
            break;
        ZydisFormatterFormatInstruction(&formatter, &i.z, i.op, i.z.operand_count_visible, text,
                                        sizeof text, k->in.rip + at, NULL);
        printf("  %llx: ", (unsigned long long)k->in.rip + at);
        for (unsigned n = 0; n < i.z.length; n++)
            printf("%02x", k->code[at + n]);
        printf("  %s\n", text);
    }
    show_initial(k, &first);
    printf("  %s: vector %d error %x; %s: vector %d error %x", finding->name[0], result[0]->vector,
           result[0]->error, finding->name[1], result[1]->vector, result[1]->error);
    if (finding->run)
        printf(", when it ran for the %uth time", finding->run);
    printf("\n");
    if (finding->strict)
        compare_engines(&d, k, result[0], result[1]);
    else
        compare(&d, k, result[0], result[1], known_ignore(k, result[0], result[1]));
    printf("  again: %s\n", finding->command);
    fflush(stdout);
}
