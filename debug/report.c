/*
 * The report of a triple fault: the three faults that led to the shutdown
 * (SDM Vol. 3, 6.15 "Interrupt 8"), the gate that each was to be delivered
 * through (6.11, 6.14.1; real mode: 20.1.4), and the registers.
 *
 * Reads the processor only. Called on the processor's own thread, or with all
 * processors stopped.
 */
#include <stdarg.h>
#include <stdio.h>

#include "debug/disasm.h"
#include "debug/report.h"

struct report {
    struct x86_vcpu *c;
    void (*line)(void *ctx, const char *text);
    void *ctx;
};

static void say(const struct report *r, const char *format, ...) PRINTF_LIKE(2, 3);

static void say(const struct report *r, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->line(r->ctx, text);
}

/* ---- names ---- */

static const struct {
    const char *mnemonic, *name;
} vector_names[32] = {
    [VEC_DE] = {"#DE", "divide error"},
    [VEC_DB] = {"#DB", "debug exception"},
    [VEC_NMI] = {"NMI", "non-maskable interrupt"},
    [VEC_BP] = {"#BP", "breakpoint"},
    [VEC_OF] = {"#OF", "overflow"},
    [VEC_BR] = {"#BR", "bound range exceeded"},
    [VEC_UD] = {"#UD", "invalid opcode"},
    [VEC_NM] = {"#NM", "device not available"},
    [VEC_DF] = {"#DF", "double fault"},
    [VEC_TS] = {"#TS", "invalid TSS"},
    [VEC_NP] = {"#NP", "segment not present"},
    [VEC_SS] = {"#SS", "stack fault"},
    [VEC_GP] = {"#GP", "general protection"},
    [VEC_PF] = {"#PF", "page fault"},
    [VEC_MF] = {"#MF", "x87 error"},
    [VEC_AC] = {"#AC", "alignment check"},
    [VEC_MC] = {"#MC", "machine check"},
    [VEC_XM] = {"#XM", "SIMD floating-point exception"},
};

struct bit_name {
    uint64_t bit;
    const char *name;
};

static const struct bit_name rflags_names[] = {
    {FLAG_ID, "ID"}, {FLAG_VIP, "VIP"}, {FLAG_VIF, "VIF"}, {FLAG_AC, "AC"}, {FLAG_VM, "VM"},
    {FLAG_RF, "RF"}, {FLAG_NT, "NT"},   {FLAG_OF, "OF"},   {FLAG_DF, "DF"}, {FLAG_IF, "IF"},
    {FLAG_TF, "TF"}, {FLAG_SF, "SF"},   {FLAG_ZF, "ZF"},   {FLAG_AF, "AF"}, {FLAG_PF, "PF"},
    {FLAG_CF, "CF"}, {0, NULL},
};

static const struct bit_name cr0_names[] = {
    {CR0_PG, "PG"}, {CR0_CD, "CD"}, {CR0_NW, "NW"}, {CR0_AM, "AM"}, {CR0_WP, "WP"}, {CR0_NE, "NE"},
    {CR0_ET, "ET"}, {CR0_TS, "TS"}, {CR0_EM, "EM"}, {CR0_MP, "MP"}, {CR0_PE, "PE"}, {0, NULL},
};

static const struct bit_name cr4_names[] = {
    {CR4_PKE, "PKE"},
    {CR4_SMAP, "SMAP"},
    {CR4_SMEP, "SMEP"},
    {CR4_OSXSAVE, "OSXSAVE"},
    {CR4_PCIDE, "PCIDE"},
    {CR4_FSGSBASE, "FSGSBASE"},
    {CR4_LA57, "LA57"},
    {CR4_UMIP, "UMIP"},
    {CR4_OSXMMEXCPT, "OSXMMEXCPT"},
    {CR4_OSFXSR, "OSFXSR"},
    {CR4_PCE, "PCE"},
    {CR4_PGE, "PGE"},
    {CR4_MCE, "MCE"},
    {CR4_PAE, "PAE"},
    {CR4_PSE, "PSE"},
    {CR4_DE, "DE"},
    {CR4_TSD, "TSD"},
    {CR4_PVI, "PVI"},
    {CR4_VME, "VME"},
    {0, NULL},
};

static const struct bit_name efer_names[] = {
    {EFER_NXE, "NXE"}, {EFER_LMA, "LMA"}, {EFER_LME, "LME"}, {EFER_SCE, "SCE"}, {0, NULL},
};

static const char *bit_names(char *text, size_t bytes, const struct bit_name *names, uint64_t value)
{
    size_t used = 0;

    text[0] = '\0';
    for (; names->name && used < bytes; names++) {
        if (value & names->bit)
            used +=
                (size_t)snprintf(text + used, bytes - used, "%s%s", used ? " " : "", names->name);
    }
    return text;
}

/* ---- error codes ---- */

/* SDM Vol. 3, 4.7. */
static void page_fault_error(char *text, size_t bytes, uint32_t e)
{
    snprintf(text, bytes, "%s by %s code, %s%s%s",
             e & PF_I   ? "instruction fetch"
             : e & PF_W ? "write"
                        : "read",
             e & PF_U ? "user" : "supervisor",
             e & PF_RSVD ? "reserved bit set in a paging entry"
             : e & PF_P  ? "page present, access not allowed"
                         : "page not present",
             e & PF_PK ? ", protection key" : "", e & PF_RSVD && !(e & PF_P) ? " (P clear)" : "");
}

/* SDM Vol. 3, 6.13. */
static void selector_error(char *text, size_t bytes, uint32_t e)
{
    enum { ERROR_EXT = 1 << 0, ERROR_IDT = 1 << 1, ERROR_TI = 1 << 2 };
    const char *ext = e & ERROR_EXT ? ", while an event was delivered" : "";

    if ((e & ~(uint32_t)ERROR_EXT) == 0)
        snprintf(text, bytes, "no selector%s", ext);
    else if (e & ERROR_IDT)
        snprintf(text, bytes, "IDT entry %u%s", e >> 3 & 0x1fff, ext);
    else
        snprintf(text, bytes, "selector %04xH, %s entry %u%s", e & 0xfffc,
                 e & ERROR_TI ? "LDT" : "GDT", e >> 3 & 0x1fff, ext);
}

static void describe_error(char *text, size_t bytes, const struct x86_fault_record *f)
{
    char meaning[128] = "";

    if (!f->has_error) {
        snprintf(text, bytes, "no error code");
        return;
    }
    switch (f->vector) {
    case VEC_PF:
        page_fault_error(meaning, sizeof meaning, f->error);
        break;
    case VEC_TS:
    case VEC_NP:
    case VEC_SS:
    case VEC_GP:
        selector_error(meaning, sizeof meaning, f->error);
        break;
    default:
        break;
    }
    snprintf(text, bytes, "error code %04xH%s%s%s", f->error, meaning[0] ? " (" : "", meaning,
             meaning[0] ? ")" : "");
}

/* ---- gates ---- */

static const char *gate_type_name(unsigned type, bool long_mode)
{
    if (long_mode)
        return type == 0xe   ? "64-bit interrupt gate"
               : type == 0xf ? "64-bit trap gate"
                             : "no gate in long mode";
    switch (type) {
    case 0x5:
        return "task gate";
    case 0x6:
        return "16-bit interrupt gate";
    case 0x7:
        return "16-bit trap gate";
    case 0xe:
        return "32-bit interrupt gate";
    case 0xf:
        return "32-bit trap gate";
    default:
        return "no gate";
    }
}

/* The 8 or 16 bytes of a protected-mode gate. */
static void describe_protected_gate(const struct report *r, const struct x86_fault_record *f,
                                    unsigned vector)
{
    uint64_t low = f->idt_entry[0], high = f->idt_entry[1];
    bool long_mode = x86_long_mode(&r->c->s);
    unsigned type = low >> 40 & 0xf, selector = low >> 16 & 0xffff;
    unsigned dpl = low >> 45 & 3, ist = long_mode ? low >> 32 & 7 : 0;
    bool is_system = !(low >> 44 & 1), is_wide = type >= 8; /* offset of 32 bits or more */
    const char *present = low >> 47 & 1 ? "present" : "NOT PRESENT";
    uint64_t offset = (low & 0xffff) | (is_wide ? low >> 32 & 0xffff0000 : 0);
    char stack[16] = "";

    if (long_mode)
        say(r, "    IDT entry %u at %016llx: %016llx %016llx", vector,
            (unsigned long long)f->idt_entry_gva, (unsigned long long)high,
            (unsigned long long)low);
    else
        say(r, "    IDT entry %u at %08llx: %016llx", vector, (unsigned long long)f->idt_entry_gva,
            (unsigned long long)low);
    if (type == 0x5 && is_system && !long_mode) {
        say(r, "        task gate, TSS selector %04x, DPL %u, %s", selector, dpl, present);
        return;
    }
    if (long_mode)
        offset |= high << 32;
    if (ist)
        snprintf(stack, sizeof stack, ", IST %u", ist);
    say(r, "        %s, %04x:%0*llx, DPL %u%s, %s",
        is_system ? gate_type_name(type, long_mode) : "no system descriptor", selector,
        long_mode ? 16 : 8, (unsigned long long)offset, dpl, stack, present);
}

/* vector: what was being delivered when the next fault was met. */
static void describe_gate(const struct report *r, const struct x86_fault_record *f, unsigned vector)
{
    const struct x86_cpu *s = &r->c->s;
    uint64_t low = f->idt_entry[0];
    unsigned entry_bytes = x86_real_mode(s) ? 4 : x86_long_mode(s) ? 16 : 8;

    if (!f->idt_entry_valid) {
        uint64_t last = (uint64_t)vector * entry_bytes + entry_bytes - 1;

        if (last > s->idtr.limit)
            say(r, "    IDT entry %u: beyond the limit %04xH of the IDT", vector, s->idtr.limit);
        else
            say(r, "    IDT entry %u at %016llx: could not be read", vector,
                (unsigned long long)(s->idtr.base + (uint64_t)vector * entry_bytes));
        return;
    }
    if (x86_real_mode(s)) {
        say(r, "    vector %u at %08llx: %04x:%04x", vector, (unsigned long long)f->idt_entry_gva,
            (unsigned)(low >> 16 & 0xffff), (unsigned)(low & 0xffff));
        return;
    }
    describe_protected_gate(r, f, vector);
}

/* ---- faults ---- */

static void describe_fault(const struct report *r, const char *which,
                           const struct x86_fault_record *f)
{
    const char *mnemonic = f->vector < 32 ? vector_names[f->vector].mnemonic : NULL;
    const char *name = f->vector < 32 ? vector_names[f->vector].name : NULL;
    char error[192], text[128], bytes[3 * sizeof f->code + 1];
    unsigned i, length;

    describe_error(error, sizeof error, f);
    say(r, "  %s: vector %u%s%s%s%s, %s", which, f->vector, mnemonic ? " " : "",
        mnemonic ? mnemonic : "", name ? " " : "", name ? name : "", error);
    if (f->vector == VEC_PF)
        say(r, "    CR2 %016llx", (unsigned long long)f->cr2);
    length = debug_disassemble(text, sizeof text, f->rip, f->cs_bits, f->code,
                               MIN((size_t)f->code_length, sizeof f->code));
    if (length == 0)
        length = MIN((unsigned)f->code_length, (unsigned)sizeof f->code);
    bytes[0] = '\0';
    for (i = 0; i < length; i++)
        snprintf(bytes + strlen(bytes), 4, i ? " %02x" : "%02x", f->code[i]);
    say(r, "    RIP %016llx (%u-bit code): %s", (unsigned long long)f->rip, f->cs_bits, text);
    if (length)
        say(r, "        bytes %s", bytes);
}

/* ---- registers ---- */

static const char *segment_type(uint32_t attr, char *text, size_t bytes)
{
    static const char *const system_names[16] = {
        [1] = "16-bit TSS", [2] = "LDT", [3] = "16-bit TSS, busy", [9] = "TSS", [11] = "TSS, busy",
    };
    unsigned dpl = (attr & SEG_DPL) >> SEG_DPL_SHIFT;

    if (attr & SEG_UNUSABLE) {
        snprintf(text, bytes, "unusable");
    } else if (!(attr & SEG_S)) {
        const char *name = system_names[attr & SEG_TYPE];

        snprintf(text, bytes, "%s, DPL %u%s", name ? name : "system", dpl,
                 attr & SEG_P ? "" : ", not present");
    } else if (attr & SEG_CODE) {
        snprintf(text, bytes, "code%s %s%s, DPL %u%s",
                 attr & SEG_L    ? "64"
                 : attr & SEG_DB ? "32"
                                 : "16",
                 attr & SEG_READABLE ? "readable" : "execute-only",
                 attr & SEG_CONFORMING ? ", conforming" : "", dpl,
                 attr & SEG_P ? "" : ", not present");
    } else {
        snprintf(text, bytes, "data%s %s%s, DPL %u%s", attr & SEG_DB ? "32" : "16",
                 attr & SEG_WRITABLE ? "writable" : "read-only",
                 attr & SEG_EXPAND_DOWN ? ", expand-down" : "", dpl,
                 attr & SEG_P ? "" : ", not present");
    }
    return text;
}

static void describe_segment(const struct report *r, const char *name, const struct x86_seg *seg)
{
    char type[80];

    say(r, "    %-4s %04x  base %016llx  limit %08x  attributes %05x  %s", name, seg->selector,
        (unsigned long long)seg->base, seg->limit, seg->attr,
        segment_type(seg->attr, type, sizeof type));
}

static void describe_registers(const struct report *r)
{
    static const char *const names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    static const char *const segments[X86_SEG_COUNT] = {"ES", "CS", "SS", "DS", "FS", "GS"};
    const struct x86_cpu *s = &r->c->s;
    char text[128];
    unsigned i;

    say(r, "  registers before the reset:");
    for (i = 0; i < 16; i += 4)
        say(r, "    %-3s %016llx  %-3s %016llx  %-3s %016llx  %-3s %016llx", names[i],
            (unsigned long long)s->reg[i], names[i + 1], (unsigned long long)s->reg[i + 1],
            names[i + 2], (unsigned long long)s->reg[i + 2], names[i + 3],
            (unsigned long long)s->reg[i + 3]);
    say(r, "    RIP %016llx  RFLAGS %08llx [%s]  CPL %u", (unsigned long long)s->reg[X86_RIP],
        (unsigned long long)x86_rflags(s),
        bit_names(text, sizeof text, rflags_names, x86_rflags(s)), s->cpl);
    for (i = 0; i < X86_SEG_COUNT; i++)
        describe_segment(r, segments[i], &s->seg[i]);
    describe_segment(r, "LDTR", &s->ldtr);
    describe_segment(r, "TR", &s->tr);
    say(r, "    GDTR       base %016llx  limit %04x", (unsigned long long)s->gdtr.base,
        s->gdtr.limit);
    say(r, "    IDTR       base %016llx  limit %04x", (unsigned long long)s->idtr.base,
        s->idtr.limit);
    say(r, "    CR0 %08llx [%s]", (unsigned long long)s->cr0,
        bit_names(text, sizeof text, cr0_names, s->cr0));
    say(r, "    CR2 %016llx  CR3 %016llx", (unsigned long long)s->cr2, (unsigned long long)s->cr3);
    say(r, "    CR4 %08llx [%s]", (unsigned long long)s->cr4,
        bit_names(text, sizeof text, cr4_names, s->cr4));
    say(r, "    EFER %08llx [%s]", (unsigned long long)s->efer,
        bit_names(text, sizeof text, efer_names, s->efer));
}

void report_triple_fault(struct x86_vcpu *c, void (*line)(void *ctx, const char *text), void *ctx)
{
    const struct report r = {.c = c, .line = line, .ctx = ctx};

    say(&r, "triple fault on processor %u after %llu instructions", c->vcpu.index,
        (unsigned long long)c->s.icount);
    describe_fault(&r, "first fault", &c->faults[0]);
    describe_gate(&r, &c->faults[0], c->faults[0].vector);
    /* Met while the first was delivered; together they are a double fault,
     * and its gate is the one that was tried next. */
    describe_fault(&r, "second fault", &c->faults[1]);
    say(&r, "    makes a double fault (vector 8 #DF)");
    describe_gate(&r, &c->faults[1], VEC_DF);
    describe_fault(&r, "third fault", &c->faults[2]);
    say(&r, "    shuts the processor down");
    describe_registers(&r);
}
