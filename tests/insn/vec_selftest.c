/*
 * Sweeps the opcode space of vector and x87 instructions: every encoding that
 * decodes and is bound by cpu/x86/vec runs from the same random state on the
 * host processor and through its handler, and everything is compared: vector,
 * mask, x87 and general registers, flags, MXCSR, memory, and the fault if there
 * is one. Operands are aligned or not, cross into an unmapped page, and
 * exceptions are masked or not.
 *
 * In 32-bit mode the host runs them in compatibility mode, entered by a far
 * return to Linux's 32-bit code segment.
 *
 * usage: vec_selftest [SEED [ROUNDS [64|32 [MNEMONIC]]]]
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/insn/vec_selftest.h"

#define MAX_REPORTS 60

/* ---- one comparison ---- */

static unsigned reports, runs, faults, forms;

/* Where processors differ and the manual decides: SHA's memory operands are
 * checked for alignment by Intel's (type 4), not by AMD's. */
static bool is_known_difference(const ZydisDecodedInstruction *z, int guest_vector)
{
    return z->meta.category == ZYDIS_CATEGORY_SHA && guest_vector == VEC_GP && runner.host_vector != VEC_GP;
}

static void describe(const uint8_t *bytes, const ZydisDecodedInstruction *z,
                     const ZydisDecodedOperand *op, const char *what)
{
    ZydisFormatter formatter;
    char text[128];

    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, z, op, z->operand_count_visible, text, sizeof text,
                                    0, NULL);
    printf("%-60s ", text);
    for (unsigned n = 0; n < z->length; n++)
        printf("%02x", bytes[n]);
    printf("  %s\n", what);
}

static bool differs(const char *what, const void *host, const void *guest, size_t bytes, char *text,
                    size_t room)
{
    const uint8_t *h = host, *g = guest;

    for (size_t n = 0; n < bytes; n++) {
        if (h[n] != g[n]) {
            size_t at = n & ~(size_t)7;
            snprintf(text, room, "%s +%zu: host %016llx guest %016llx", what, at,
                     (unsigned long long)le_get(h + at, (unsigned)MIN((size_t)8, bytes - at)),
                     (unsigned long long)le_get(g + at, (unsigned)MIN((size_t)8, bytes - at)));
            return true;
        }
    }
    return false;
}

static bool compare(const struct state *host, const struct state *guest, int vector, char *text,
                    size_t room)
{
    const struct x86_xsave *h = &host->x, *g = &guest->x;

    for (unsigned n = 0; n < 15; n++) {
        /* Outside 64-bit mode nobody sees the upper halves. */
        if (n != X86_RSP &&
            differs("gpr", &host->gpr[n], &guest->gpr[n], runner.is_32 ? 4 : 8, text, room)) {
            size_t used = strlen(text);
            snprintf(text + used, room - used, " (%u)", n);
            return true;
        }
    }
    return differs("fcw", &h->fcw, &g->fcw, 2, text, room) ||
           differs("fsw", &h->fsw, &g->fsw, 2, text, room) ||
           differs("ftw", &h->ftw, &g->ftw, 1, text, room) ||
           differs("st", h->st, g->st, sizeof h->st, text, room) ||
           differs("mxcsr", &h->mxcsr, &g->mxcsr, 4, text, room) ||
           differs("xmm", h->xmm, g->xmm, sizeof h->xmm, text, room) ||
           differs("ymm_hi", h->ymm_hi, g->ymm_hi, sizeof h->ymm_hi, text, room) ||
           differs("opmask", h->opmask, g->opmask, sizeof h->opmask, text, room) ||
           differs("zmm_hi", h->zmm_hi, g->zmm_hi, sizeof h->zmm_hi, text, room) ||
           differs("hi16", h->hi16_zmm, g->hi16_zmm, sizeof h->hi16_zmm, text, room) ||
           differs("flags", &host->flags, &guest->flags, 8, text, room);
}

static void run_one(const uint8_t *bytes, const ZydisDecodedInstruction *z,
                    const ZydisDecodedOperand *op, bool has_memory, int vsib)
{
    static struct state host, guest;
    static uint8_t memory[BUFFER_BYTES];
    char text[256] = "";
    unsigned offset;
    int vector;

    random_state(&host);
    fill(memory, sizeof memory);
    offset = PAGE_SIZE - 64 + below(64);
    if (below(4))
        offset &= ~63u;
    if (below(8) == 0) /* ends in, or crosses into, the page that is not there */
        offset = BUFFER_BYTES - below(80);
    if (z->mnemonic == ZYDIS_MNEMONIC_FBLD && offset < BUFFER_BYTES - 10) {
        for (unsigned n = 0; n < 9; n++) /* other digits are undefined */
            memory[offset + n] = (uint8_t)(below(10) << 4 | below(10));
    }
    if (vsib >= 0) { /* indices within the buffer, in bytes */
        uint8_t *v = vsib < 16 ? NULL : host.x.hi16_zmm[vsib - 16];
        for (unsigned n = 0; n < 64; n++) {
            uint8_t *b = v ? v + n
                           : n < 16 ? host.x.xmm[vsib] + n
                                    : n < 32 ? host.x.ymm_hi[vsib] + n - 16
                                             : host.x.zmm_hi[vsib] + n - 32;
            *b = n % 4 == 0 ? (uint8_t)rnd() : 0;
            if (n % 8 >= 4 && op->size) /* quadword indices are small as well */
                *b = 0;
        }
        offset = below(2) ? 1024 : BUFFER_BYTES - 256;
    }
    memcpy(runner.host_buffer, memory, sizeof memory);
    memcpy(runner.guest_buffer, memory, sizeof memory);
    host.gpr[X86_RDI] = host.gpr[X86_RSP] = 0;
    guest = host;
    if (has_memory) {
        host.gpr[X86_RAX] = (uint64_t)(uintptr_t)runner.host_buffer + offset;
        guest.gpr[X86_RAX] = GUEST_BUFFER + offset;
        host.gpr[X86_RDI] = host.gpr[X86_RAX];
        guest.gpr[X86_RDI] = guest.gpr[X86_RAX];
    }
    struct state before = host;
    host_run(&host, bytes, z->length);
    vector = guest_run(&guest, bytes, z->length);
    runs++;
    if (runner.host_vector != vector) {
        snprintf(text, sizeof text, "fault: host %d guest %d (offset %u, mxcsr %x fcw %x fsw %x)",
                 runner.host_vector, vector, offset, before.x.mxcsr, before.x.fcw, before.x.fsw);
    } else if (vector >= 0) {
        faults++;
        if (vector == VEC_XM && runner.host_mxcsr != guest.x.mxcsr)
            snprintf(text, sizeof text, "mxcsr at #XM: host %x guest %x", runner.host_mxcsr,
                     guest.x.mxcsr);
    } else {
        for (unsigned n = 0; n < 16; n += 7) { /* addresses, where they are still there */
            if (has_memory && host.gpr[n] == (uint64_t)(uintptr_t)runner.host_buffer + offset &&
                guest.gpr[n] == GUEST_BUFFER + offset)
                host.gpr[n] = guest.gpr[n];
        }
        compare(&host, &guest, vector, text, sizeof text);
    }
    if (!text[0] && memcmp(runner.host_buffer, runner.guest_buffer, BUFFER_BYTES)) {
        unsigned n = 0;
        while (runner.host_buffer[n] == runner.guest_buffer[n])
            n++;
        snprintf(text, sizeof text, "memory at %d (vector %d): host %02x guest %02x",
                 (int)n - (int)offset, vector, runner.host_buffer[n], runner.guest_buffer[n]);
    }
    if (text[0] && !is_known_difference(z, vector) && reports++ < MAX_REPORTS)
        describe(bytes, z, op, text);
}

/* ---- sequences: state that stays in the host between instructions ---- */

#define POOL_FORMS 20000

struct pool {
    struct {
        uint8_t bytes[15], length;
    } form[POOL_FORMS];
    unsigned seen;
};
static struct pool x87_pool, other_pool; /* x87 and MMX are few and are to meet often */

/* Keeps a fair sample of all that are offered. */
static void pool_add(struct pool *p, const uint8_t *bytes, unsigned length)
{
    unsigned n = p->seen < POOL_FORMS ? p->seen : below(p->seen + 1);

    p->seen++;
    if (n >= POOL_FORMS)
        return;
    memcpy(p->form[n].bytes, bytes, length);
    p->form[n].length = (uint8_t)length;
}

static ZydisDecoder decoder;
static const char *filter;
static unsigned rounds = 3;

static void describe_sequence(const uint8_t *bytes, unsigned length, const char *text)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

    for (unsigned at = 0; at < length; at += z.length) {
        ZydisDecoderDecodeFull(&decoder, bytes + at, length - at, &z, op);
        describe(bytes + at, &z, op, at + z.length == length ? text : "");
    }
}

static void run_sequence(void)
{
    static struct state host, guest;
    uint8_t bytes[SEQUENCE_MAX * 15], memory[BUFFER_BYTES];
    unsigned length = 0, count = 2 + below(SEQUENCE_MAX - 1), offset = PAGE_SIZE;
    unsigned often_x87 = below(3);
    char text[256] = "";
    int vector;

    for (unsigned n = 0; n < count; n++) {
        struct pool *p = below(2) < often_x87 ? &x87_pool : &other_pool;
        unsigned k = below(MIN(p->seen, (unsigned)POOL_FORMS));
        memcpy(bytes + length, p->form[k].bytes, p->form[k].length);
        length += p->form[k].length;
    }
    random_state(&host);
    fill(memory, sizeof memory);
    memcpy(runner.host_buffer, memory, sizeof memory);
    memcpy(runner.guest_buffer, memory, sizeof memory);
    host.gpr[X86_RSP] = 0;
    guest = host;
    host.gpr[X86_RAX] = (uint64_t)(uintptr_t)runner.host_buffer + offset;
    guest.gpr[X86_RAX] = GUEST_BUFFER + offset;
    host_run(&host, bytes, length);
    vector = guest_run(&guest, bytes, length);
    host.gpr[X86_RAX] = guest.gpr[X86_RAX];
    runs++;
    if (runner.host_vector != vector)
        snprintf(text, sizeof text, "fault: host %d guest %d", runner.host_vector, vector);
    else if (vector < 0)
        compare(&host, &guest, vector, text, sizeof text);
    else
        faults++;
    if (!text[0])
        differs("memory", runner.host_buffer, runner.guest_buffer, BUFFER_BYTES, text, sizeof text);
    if (text[0] && reports++ < MAX_REPORTS)
        describe_sequence(bytes, length, text);
}

/* ---- the sweep ---- */

static bool is_system(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_RDPKRU:
    case ZYDIS_MNEMONIC_WRPKRU:
    case ZYDIS_MNEMONIC_FNSAVE: /* hold FCS, FDS and pointers that differ */
    case ZYDIS_MNEMONIC_FNSTENV:
        return true;
    default:
        return z->meta.category == ZYDIS_CATEGORY_XSAVE ||
               z->meta.category == ZYDIS_CATEGORY_XSAVEOPT ||
               z->meta.isa_set == ZYDIS_ISA_SET_FXSAVE ||
               z->meta.isa_set == ZYDIS_ISA_SET_FXSAVE64;
    }
}

static void try(const uint8_t *bytes, unsigned length)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    bool has_memory = false, names_rax = false, uses_rdi = false, is_done = false;
    bool uses_x87;
        struct x86_insn probe = {0};
    int vsib = -1;

    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, length, &z, op)))
        return;
    if (!vec_binder_for(&z) || is_system(&z) || (z.attributes & ZYDIS_ATTRIB_HAS_LOCK))
        return;
    if (filter && strcmp(filter, ZydisMnemonicGetString(z.mnemonic)))
        return;
    for (unsigned n = 0; n < z.operand_count; n++) {
        if (op[n].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            has_memory = true;
            if (ZydisRegisterGetId(op[n].mem.base) != X86_RAX &&
                ZydisRegisterGetId(op[n].mem.base) != X86_RDI)
                return;
            uses_rdi |= ZydisRegisterGetId(op[n].mem.base) == X86_RDI;
            if (op[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
                vsib = ZydisRegisterGetId(op[n].mem.index);
        }
    }
    uses_x87 = vec_binder_for(&z) == bind_x87 || z.meta.isa_ext == ZYDIS_ISA_EXT_MMX;
    for (unsigned n = 0; n < z.operand_count; n++) {
        if (op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        uses_x87 |= ZydisRegisterGetClass(op[n].reg.value) == ZYDIS_REGCLASS_MMX;
        ZydisRegister r = op[n].reg.value;
        ZydisRegisterClass k = ZydisRegisterGetClass(r);
        if (k >= ZYDIS_REGCLASS_GPR8 && k <= ZYDIS_REGCLASS_GPR64) {
            int id = ZydisRegisterGetId(r);
            if (id == 4 || id == 15)
                return; /* the harness needs them */
            names_rax |= id == 0 || id == 7;
        }
    }
    if (has_memory && names_rax &&
        !(z.mnemonic >= ZYDIS_MNEMONIC_PCMPESTRI && z.mnemonic <= ZYDIS_MNEMONIC_PCMPESTRM) &&
        (op[1].type == ZYDIS_OPERAND_TYPE_REGISTER))
        return; /* would store an address */
    if (x86_decode_one(runner.cpu, runner.cpu->mode, bytes, length, &probe) != DECODE_OK ||
        probe.length != z.length)
        return; /* #UD here */
    for (unsigned n = 0; n < rounds && !is_done; n++) {
        unsigned before = reports;
        run_one(bytes, &z, op, has_memory, vsib);
        is_done = reports != before;
    }
    if (!names_rax && vsib < 0 && !uses_rdi && z.meta.category != ZYDIS_CATEGORY_SHA &&
        z.mnemonic != ZYDIS_MNEMONIC_FBLD && !is_done)
        pool_add(uses_x87 ? &x87_pool : &other_pool, bytes, z.length);
    forms++;
}

static unsigned put_modrm(uint8_t *p, unsigned kind)
{
    if (kind < 8) { /* [rax], all values of reg */
        p[0] = (uint8_t)(kind << 3);
        return 1;
    }
    p[0] = (uint8_t)(0xc0 | (rnd() & 0x3f));
    return 1;
}

static void sweep_legacy(void)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf3, 0xf2};
    static const char *const maps[] = {"\x0f", "\x0f\x38", "\x0f\x3a"};

    for (unsigned m = 0; m < 3; m++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned prefix = 0; prefix < 4; prefix++)
                for (unsigned rex = 0; rex < (runner.is_32 ? 1 : 4); rex++)
                    for (unsigned kind = 0; kind < 16; kind++) {
                        uint8_t b[16];
                        unsigned n = 0;
                        if (prefixes[prefix])
                            b[n++] = prefixes[prefix];
                        if (rex) /* W, then R and B of registers */
                            b[n++] = (uint8_t)(0x40 | (rex & 1) << 3 |
                                               (rex & 2 ? kind < 8 ? 4 : 5 : 0));
                        memcpy(b + n, maps[m], strlen(maps[m]));
                        n += (unsigned)strlen(maps[m]);
                        b[n++] = (uint8_t)opcode;
                        n += put_modrm(b + n, kind);
                        b[n++] = (uint8_t)rnd();
                        try(b, n);
                    }
}

static void sweep_x87(void)
{
    for (unsigned opcode = 0xd8; opcode < 0xe0; opcode++)
        for (unsigned modrm = 0; modrm < 256; modrm++) {
            uint8_t b[2] = {(uint8_t)opcode, (uint8_t)modrm};
            if (modrm >= 0xc0 || (modrm & 0xc7) == 0)
                for (unsigned n = 0; n < 8; n++)
                    try(b, 2);
        }
    try((const uint8_t *)"\x9b", 1);
}

static void sweep_vex(void)
{
    for (unsigned map = 1; map < 4; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned pp = 0; pp < 4; pp++)
                for (unsigned wl = 0; wl < 4; wl++)
                    for (unsigned kind = 0; kind < 14; kind++) {
                        uint8_t b[16];
                        unsigned n = 0, vvvv = kind & 1 ? 15 : below(16);
                        bool mem = kind < 8;
                        b[n++] = 0xc4;
                        b[n++] = (uint8_t)((runner.is_32 ? 0x80 : rnd() & 0x80) | 0x40 |
                                           (mem ? 0x20 : rnd() & 0x20) | map);
                        b[n++] = (uint8_t)((wl & 1) << 7 | vvvv << 3 | (wl & 2) << 1 | pp);
                        b[n++] = (uint8_t)opcode;
                        if (mem && opcode >= 0x90 && opcode <= 0x93 && map == 2) {
                            b[n++] = (uint8_t)(4 | below(8) << 3); /* [rax + vector * 1] */
                            b[n++] = (uint8_t)(below(8) << 3);
                        } else {
                            n += put_modrm(b + n, kind);
                        }
                        b[n++] = (uint8_t)rnd();
                        try(b, n);
                    }
}

static void sweep_evex(void)
{
    for (unsigned map = 1; map < 4; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned pp = 0; pp < 4; pp++)
                for (unsigned w = 0; w < 2; w++)
                    for (unsigned kind = 0; kind < 48; kind++) {
                        uint8_t b[16];
                        unsigned n = 0, vvvv = kind & 2 ? 31 : below(32);
                        bool mem = kind & 1;
                        unsigned mask = kind & 4 ? 1 + below(7) : 0;
                        unsigned ll = kind >> 3 & 3;
                        b[n++] = 0x62;
                        b[n++] = (uint8_t)((rnd() & 0x90) | (mem ? 0x60 : rnd() & 0x60) |
                                           (runner.is_32 ? 0xc0 : 0) | map);
                        b[n++] = (uint8_t)(w << 7 | (vvvv & 15) << 3 | 4 | pp);
                        b[n++] = (uint8_t)((mask && below(2) ? 0x80 : 0) | ll << 5 |
                                           (kind >= 24 && below(2) ? 0x10 : 0) |
                                           (vvvv & 16 ? 8 : 0) | mask);
                        b[n++] = (uint8_t)opcode;
                        if (mem && map == 2 &&
                            ((opcode >= 0x90 && opcode <= 0x93) ||
                             (opcode >= 0xa0 && opcode <= 0xa3))) {
                            b[n++] = (uint8_t)(4 | below(8) << 3);
                            b[n++] = (uint8_t)(below(8) << 3);
                        } else {
                            n += put_modrm(b + n, mem ? below(8) : 8);
                        }
                        b[n++] = (uint8_t)rnd();
                        try(b, n);
                    }
}

/* ---- instructions on the state as a whole ---- */

/* Images to restore from: registers random, control fields sensible, the
 * XSAVE header right, and now and then wrong. */
static void prepare_image(uint8_t *image, bool compacted)
{
    static struct state s;
    uint64_t in_use = rnd() & runner.xcr0, comp = 0;

    random_state(&s);
    memcpy(image, &s.x, 160);
    memset(image + 512, 0, 64);
    if (compacted) {
        comp = (rnd() | in_use) & runner.xcr0;
        comp |= 1ull << 63;
    }
    le64_put(image + 512, in_use);
    le64_put(image + 520, comp);
    if (below(16) == 0)
        image[512 + below(64)] ^= (uint8_t)(1 << below(8));
    if (below(16) == 0)
        image[27] ^= (uint8_t)(1 << below(8)); /* AMD has a bit 17 more than Intel */
}

struct state_form {
    const char *bytes;
    unsigned length;
    uint64_t mask;  /* for EDX:EAX */
    unsigned skip_from, skip_to; /* of the image: pointers, where processors differ */
    unsigned alignment;
    enum { SAVE, RESTORE, RESTORE_COMPACTED } kind;
};

/* Operand [rdi]. Standard XSAVE images differ above AVX between vendors. */
static const struct state_form state_forms[] = {
    {"\x0f\xae\x07", 3, 0, 5, 24, 16, SAVE}, /* FXSAVE */
    {"\x0f\xae\x0f", 3, 0, 0, 0, 16, RESTORE},
    {"\xd9\x37", 2, 0, 12, 28, 1, SAVE}, /* FNSTENV */
    {"\x66\xd9\x37", 3, 0, 6, 14, 1, SAVE},
    {"\xdd\x37", 2, 0, 12, 28, 1, SAVE}, /* FNSAVE */
    {"\x66\xdd\x37", 3, 0, 6, 14, 1, SAVE},
    {"\xd9\x27", 2, 0, 0, 0, 1, RESTORE}, /* FLDENV */
    {"\x66\xd9\x27", 3, 0, 0, 0, 1, RESTORE},
    {"\xdd\x27", 2, 0, 0, 0, 1, RESTORE}, /* FRSTOR */
    {"\x66\xdd\x27", 3, 0, 0, 0, 1, RESTORE},
    {"\x0f\xae\x27", 3, 7, 5, 24, 64, SAVE}, /* XSAVE */
    {"\x0f\xae\x37", 3, 7, 5, 24, 64, SAVE}, /* XSAVEOPT */
    {"\x0f\xae\x2f", 3, 7, 0, 0, 64, RESTORE}, /* XRSTOR */
    {"\x0f\xae\x2f", 3, 0xe7, 0, 0, 64, RESTORE_COMPACTED},
    {"\x0f\xc7\x27", 3, 0xe7, 5, 24, 64, SAVE}, /* XSAVEC */
};

static void run_state_form(const struct state_form *f)
{
    static struct state host, guest;
    static uint8_t memory[BUFFER_BYTES];
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    char text[256] = "";
    unsigned offset = PAGE_SIZE - 1024;
    int vector;

    ZydisDecoderDecodeFull(&decoder, f->bytes, f->length, &z, op);
    if (filter && strcmp(filter, ZydisMnemonicGetString(z.mnemonic)))
        return;
    random_state(&host);
    fill(memory, sizeof memory);
    if (below(8) == 0)
        offset += below(64);
    if (f->kind == SAVE)
        memset(memory + offset + 512, 0, 64);
    else
        prepare_image(memory + offset, f->kind == RESTORE_COMPACTED);
    if (f->kind == RESTORE && f->alignment == 1) { /* reserved bits of the environment */
        uint8_t *p = memory + offset;
        unsigned step = f->length == 2 ? 4 : 2;
        le16_put(p + step, (uint16_t)rnd());
        le16_put(p + 2 * step, (uint16_t)rnd());
    }
    memcpy(runner.host_buffer, memory, sizeof memory);
    memcpy(runner.guest_buffer, memory, sizeof memory);
    host.gpr[X86_RSP] = 0;
    host.gpr[X86_RAX] = rnd() & f->mask;
    if (runner.is_32 && f->kind == SAVE) /* always initial outside 64-bit mode; AMD disagrees */
        host.gpr[X86_RAX] &= ~(uint64_t)XCR0_HI16_ZMM;
    host.gpr[X86_RDX] = 0;
    guest = host;
    host.gpr[X86_RDI] = (uint64_t)(uintptr_t)runner.host_buffer + offset;
    guest.gpr[X86_RDI] = GUEST_BUFFER + offset;
    host_run(&host, (const uint8_t *)f->bytes, f->length);
    vector = guest_run(&guest, (const uint8_t *)f->bytes, f->length);
    runs++;
    host.gpr[X86_RDI] = guest.gpr[X86_RDI];
    for (unsigned n = 0; n < 2; n++) { /* pointers and MXCSR_MASK are not compared */
        uint8_t *image = (n ? runner.guest_buffer : runner.host_buffer) + offset;
        memset(image + f->skip_from, 0, f->skip_to - f->skip_from);
        if (f->skip_to == 24)
            memset(image + 28, 0, 4);
    }
    if (runner.host_vector != vector)
        snprintf(text, sizeof text, "fault: host %d guest %d", runner.host_vector, vector);
    else if (vector < 0)
        compare(&host, &guest, vector, text, sizeof text);
    else
        faults++;
    if (!text[0])
        differs("memory", runner.host_buffer, runner.guest_buffer, BUFFER_BYTES, text, sizeof text);
    if (text[0] && reports++ < MAX_REPORTS) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, " (image +%u, mask %x)", offset,
                 (unsigned)guest.gpr[X86_RAX]);
        describe((const uint8_t *)f->bytes, &z, op, text);
    }
}

static void sweep_state(void)
{
    for (unsigned n = 0; n < ARRAY_SIZE(state_forms); n++) {
        for (unsigned k = 0; k < rounds * 50; k++)
            run_state_form(&state_forms[n]);
        forms++;
    }
}

int main(int argc, char **argv)
{
    int result = runner_start(argc > 3 && !strcmp(argv[3], "32"));

    if (result)
        return result;
    random_seed(argc > 1 ? strtoull(argv[1], NULL, 0) : 1);
    rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 3;
    filter = argc > 4 ? argv[4] : NULL;
    ZydisDecoderInit(&decoder,
                     runner.is_32 ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LONG_64,
                     runner.is_32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
    sweep_x87();
    sweep_state();
    sweep_legacy();
    if (runner.xcr0 & XCR0_AVX)
        sweep_vex();
    if (runner.xcr0 & XCR0_ZMM_HI256)
        sweep_evex();
    for (unsigned n = 0; x87_pool.seen && other_pool.seen && n < rounds * 50000; n++)
        run_sequence();
    printf("%u forms, %u runs, %u faults, %u differences\n", forms, runs, faults, reports);
    runner_stop();
    return reports ? 1 : 0;
}
