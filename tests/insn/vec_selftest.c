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
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cpuid.h>

#include "base/host.h"
#include "cpu/x86/apic.h"
#include "cpu/x86/decode.h"
#include "cpu/x86/fault.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/vec/vec.h"
#include "vm/vm.h"

#define RAM_BYTES (8 * MiB)
#define GUEST_BUFFER 0x200000ull /* two pages, and one that is not present */
#define BUFFER_BYTES (2 * PAGE_SIZE)
#define MAX_REPORTS 60

/* ---- random numbers ---- */

static uint64_t random_word;

static uint64_t rnd(void)
{
    random_word += 0x9e3779b97f4a7c15ull;
    uint64_t z = random_word;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static unsigned below(unsigned n)
{
    return (unsigned)(rnd() % n);
}

/* Elements that mean something: zeroes, ones, special floating-point values. */
static uint64_t interesting(void)
{
    static const uint64_t values[] = {
        0, 1, ~0ull, 0x8000000000000000, 0x7ff0000000000000, 0xfff0000000000000,
        0x7ff8000000000000, 0x7ff0000000000001, 0x3ff0000000000000, 0x000fffffffffffff,
        0x0010000000000000, 0x7fefffffffffffff, 0x3f8000003f800000, 0x7f8000007f800001,
        0x0000000100000001, 0x7f7fffff00800000, 0x7fc000007f800000, 0xff8000007f800000,
        0x3fe0000000000000, 0x4000000000000000, 0x43e0000000000000, 0x4f0000004b000000,
        0x7c007e003c000001, 0x8000800080008000, 0x7fff7fff7fff7fff, 0x3ca0000000000000,
    };
    switch (below(4)) {
    case 0:
        return values[below(ARRAY_SIZE(values))];
    case 1: { /* doubles and floats of moderate size */
        double d = (double)(int64_t)rnd() / (double)(1ull << below(63));
        uint64_t v;
        memcpy(&v, &d, 8);
        return v;
    }
    case 2: {
        float f[2] = {(float)(int32_t)rnd() / (float)(1u << below(31)),
                      (float)(int32_t)rnd() / 3.0f};
        uint64_t v;
        memcpy(&v, f, 8);
        return v;
    }
    default:
        return rnd();
    }
}

static void fill(void *p, size_t bytes)
{
    uint8_t *b = p;

    for (size_t n = 0; n < bytes; n += 8) {
        uint64_t v = interesting();
        memcpy(b + n, &v, MIN((size_t)8, bytes - n));
    }
}

/* ---- the host side ---- */

struct state {
    struct x86_xsave x;
    uint64_t gpr[16];
    uint64_t flags;
};

enum { LINUX_CS32 = 0x23, LINUX_CS64 = 0x33, LINUX_DS = 0x2b };

static bool is_32;
static uint8_t *code; /* below 4 GiB, as all that 32-bit code needs */
static uint8_t *low_stack;
static uint8_t *host_buffer;
static uint64_t host_xcr0;
static sigjmp_buf host_fault;
static volatile int host_vector;
static volatile uint32_t host_mxcsr;
static volatile bool host_running;

static void on_fault(int number, siginfo_t *info, void *context)
{
    ucontext_t *u = context;

    if (!host_running) {
        signal(number, SIG_DFL);
        return;
    }
    host_vector = (int)u->uc_mcontext.gregs[REG_TRAPNO];
    host_mxcsr = u->uc_mcontext.fpregs->mxcsr;
    siglongjmp(host_fault, 1);
}

static size_t put(uint8_t *p, size_t at, const char *bytes, size_t n)
{
    memcpy(p + at, bytes, n);
    return at + n;
}
#define PUT(s) at = put(p, at, s, sizeof(s) - 1)

/* Vendors place the extended components differently: CPUID leaf DH tells. */
static struct {
    uint64_t bit;
    size_t offset, bytes, host_offset;
} components[] = {
    {XCR0_AVX, offsetof(struct x86_xsave, ymm_hi), 256, 0},
    {XCR0_OPMASK, offsetof(struct x86_xsave, opmask), 64, 0},
    {XCR0_ZMM_HI256, offsetof(struct x86_xsave, zmm_hi), 512, 0},
    {XCR0_HI16_ZMM, offsetof(struct x86_xsave, hi16_zmm), 1024, 0},
};

struct host_state {
    uint8_t image[4096] __attribute__((aligned(64)));
    struct state s; /* general registers and flags only */
    uint64_t rsp, low_rsp;
};

static void to_image(uint8_t *image, const struct x86_xsave *x)
{
    memset(image, 0, 4096);
    memcpy(image, x, 576);
    for (unsigned n = 0; n < ARRAY_SIZE(components); n++) {
        if (host_xcr0 & components[n].bit)
            memcpy(image + components[n].host_offset, (uint8_t *)x + components[n].offset,
                   components[n].bytes);
    }
}

static void from_image(struct x86_xsave *x, const uint8_t *image)
{
    uint64_t in_use = le64_get(image + 512);

    memcpy(x, image, 512);
    for (unsigned n = 0; n < ARRAY_SIZE(components); n++) {
        if (in_use & components[n].bit)
            memcpy((uint8_t *)x + components[n].offset, image + components[n].host_offset,
                   components[n].bytes);
        else
            memset((uint8_t *)x + components[n].offset, 0, components[n].bytes);
    }
}

static size_t put_gprs(uint8_t *p, size_t at, bool load)
{
    for (unsigned n = 0; n < 15; n++) {
        uint32_t offset = (uint32_t)(offsetof(struct host_state, s.gpr) + n * 8);
        if (n == X86_RSP)
            continue;
        p[at++] = n < 8 ? 0x49 : 0x4d; /* [r15 + disp32] */
        p[at++] = load ? 0x8b : 0x89;
        p[at++] = (uint8_t)(0x87 | (n & 7) << 3);
        memcpy(p + at, &offset, 4);
        at += 4;
    }
    return at;
}

static void host_run(struct state *state, const uint8_t *insn, unsigned length)
{
    static struct host_state h;
    struct host_state *s = &h;
    uint8_t *p = code;
    size_t at = 0, jump;
    uint32_t offset;

    PUT("\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57\x49\x89\xff"); /* push..; mov r15, rdi */
    PUT("\xb8");
    offset = (uint32_t)host_xcr0;
    at = put(p, at, (char *)&offset, 4);
    PUT("\x31\xd2\x49\x0f\xae\x2f"); /* xor edx, edx; xrstor64 [r15] */
    offset = offsetof(struct host_state, s.flags);
    PUT("\x41\xff\xb7"); /* push [r15 + flags] */
    at = put(p, at, (char *)&offset, 4);
    PUT("\x9d");
    at = put_gprs(p, at, true);
    if (is_32) {
        PUT("\x49\x89\xa7"); /* mov [r15 + rsp], rsp; mov rsp, [r15 + low_rsp] */
        offset = offsetof(struct host_state, rsp);
        at = put(p, at, (char *)&offset, 4);
        PUT("\x49\x8b\xa7");
        offset = offsetof(struct host_state, low_rsp);
        at = put(p, at, (char *)&offset, 4);
        PUT("\x6a\x23\x68"); /* push 23h; push target; lretq */
        jump = at;
        at += 4;
        PUT("\x48\xcb");
        offset = (uint32_t)(uintptr_t)(p + at);
        memcpy(p + jump, &offset, 4);
        at = put(p, at, (const char *)insn, length);
        PUT("\xea"); /* ljmp 33h:next */
        offset = (uint32_t)(uintptr_t)(p + at + 6);
        at = put(p, at, (char *)&offset, 4);
        PUT("\x33\x00\x49\x8b\xa7"); /* mov rsp, [r15 + rsp] */
        offset = offsetof(struct host_state, rsp);
        at = put(p, at, (char *)&offset, 4);
        offset = offsetof(struct host_state, s.flags);
    } else {
        at = put(p, at, (const char *)insn, length);
    }
    at = put_gprs(p, at, false);
    PUT("\x9c\x41\x8f\x87");
    at = put(p, at, (char *)&offset, 4);
    PUT("\xb8");
    offset = (uint32_t)host_xcr0;
    at = put(p, at, (char *)&offset, 4);
    PUT("\x31\xd2\x49\x0f\xae\x27\xdb\xe3"); /* xor edx, edx; xsave64 [r15]; fninit */
    PUT("\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3");

    memcpy(h.s.gpr, state->gpr, sizeof h.s.gpr);
    h.s.flags = state->flags;
    h.low_rsp = (uint64_t)(uintptr_t)low_stack + PAGE_SIZE;
    to_image(h.image, &state->x);
    host_vector = -1;
    if (!sigsetjmp(host_fault, 1)) {
        host_running = true;
        ((void (*)(struct host_state *))(uintptr_t)code)(s);
    }
    host_running = false;
    __asm__ volatile("fninit");
    __builtin_ia32_ldmxcsr(0x1f80);
    if (host_xcr0 & XCR0_AVX)
        __asm__ volatile("vzeroupper");
    memcpy(state->gpr, h.s.gpr, sizeof h.s.gpr);
    state->flags = h.s.flags;
    from_image(&state->x, h.image);
}

/* ---- the guest side ---- */

static struct vm *vm;
static struct x86_model model;
static struct x86_vcpu *cpu;
static struct ram_block *ram;
static uint8_t *guest_buffer;

static enum x86_next stop(struct x86_vcpu *c, const struct x86_insn *i)
{
    return NEXT_LOOKUP;
}

static int engine_create(struct x86_vcpu *c, struct error *err)
{
    return 0;
}

static void engine_destroy(struct x86_vcpu *c)
{
}

static enum vcpu_exit engine_run(struct x86_vcpu *c, uint64_t budget)
{
    return VCPU_EXIT_EVENT;
}

static void engine_written(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                           uint64_t bytes)
{
}

static void engine_end(struct x86_vcpu *c)
{
}

static const struct x86_engine_ops engine = {
    .name = "none",
    .create = engine_create,
    .destroy = engine_destroy,
    .run = engine_run,
    .code_written = engine_written,
    .end_block = engine_end,
};

/* 64-bit mode, memory mapped one to one but for the page behind the buffer. */
static bool guest_start(void)
{
    static struct region region = {.name = "ram", .base = 0, .size = RAM_BYTES};
    struct vm_config config = {.deterministic = true, .seed = 1};
    struct error err = {""};
    uint64_t *table;

    if (x86_model_parse(&model, "max", &err) || !(vm = vm_create(&config, &err)) ||
        !(ram = ram_block_create(vm, "ram", RAM_BYTES, RAM_NORMAL, &err)))
        goto fail;
    model.cpu_count = 1;
    region.ram = ram;
    if (region_add(&vm->memory, &region))
        goto fail;
    cpu = x86_vcpu_create(vm, &model, &engine, &err);
    if (!cpu)
        goto fail;
    table = (uint64_t *)ram->host;
    table[512] = 0x2000 | 3;
    table[1024] = 0x3000 | 3;
    for (unsigned n = 0; n < RAM_BYTES / (2 * MiB); n++)
        table[1536 + n] = (0x4000 + n * 0x1000) | 3;
    for (unsigned n = 0; n < RAM_BYTES / PAGE_SIZE; n++)
        table[2048 + n] = n * PAGE_SIZE | 3;
    table[2048 + (GUEST_BUFFER + BUFFER_BYTES) / PAGE_SIZE] = 0;
    guest_buffer = ram->host + GUEST_BUFFER;

    cpu->s.cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP | CR0_ET | CR0_WP;
    cpu->s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    cpu->s.efer = EFER_LMA | EFER_LME | EFER_NXE;
    cpu->s.xcr0 = model.xcr0_mask;
    cpu->s.seg[X86_CS].attr |= is_32 ? SEG_DB | SEG_G : SEG_L;
    cpu->s.seg[X86_CS].base = 0;
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        cpu->s.seg[n].limit = 0xffffffff;
    x86_state_changed(cpu);
    x86_load_cr3(cpu, 0x1000);
    return true;
fail:
    fprintf(stderr, "cannot make a machine: %s\n", err.text);
    return false;
}

static int guest_run(struct state *s, const uint8_t *bytes, unsigned length)
{
    static struct x86_insn insn[2];
    volatile int vector = -1;

    memset(insn, 0, sizeof insn);
    if (vec_needs_flush(cpu)) {
        vec_sync(cpu);
        vec_flush(cpu);
    }
    if (x86_decode_one(cpu, cpu->mode, bytes, length, &insn[0]) != DECODE_OK)
        return -2;
    insn[1].fn = stop;
    vec_sync(cpu);
    cpu->s.x = s->x;
    cpu->s.x.xstate_bv = 0;
    for (unsigned n = 0; n < 16; n++)
        cpu->s.reg[n] = s->gpr[n];
    cpu->s.reg[X86_RIP] = 0x1234000;
    cpu->s.cc = x86_rflags_to_cc(s->flags);
    cpu->in_insn = true;
    if (!_setjmp(cpu->unwind))
        insn[0].fn(cpu, insn);
    else
        vector = cpu->fault_vector;
    cpu->in_insn = false;
    vec_sync(cpu);
    s->x = cpu->s.x;
    for (unsigned n = 0; n < 16; n++)
        s->gpr[n] = cpu->s.reg[n];
    s->flags = (s->flags & ~(uint64_t)FLAG_STATUS) | x86_cc_to_rflags(cpu->s.cc);
    return vector;
}

/* ---- one comparison ---- */

static unsigned reports, runs, faults, forms;

static void random_x87(struct x86_xsave *x, bool unmasked)
{
    x->fcw = (uint16_t)(0x40 | (rnd() & 0xf00) | 0x3f);
    if (unmasked)
        x->fcw &= (uint16_t)(~0x3f | rnd());
    x->fsw = (uint16_t)(rnd() & 0x7f47); /* TOP, conditions, some flags */
    if (below(3))
        x->fsw &= 0x7f00;
    if (unmasked && below(4)) /* mostly nothing pending */
        x->fsw &= (uint16_t)(x->fcw | ~0x3f);
    if (x->fsw & ~x->fcw & 0x3f)
        x->fsw |= 0x8080;
    x->ftw = below(3) ? 0xff : (uint8_t)rnd();
    for (unsigned n = 0; n < 8; n++) {
        uint64_t significand = rnd() | 1ull << 63;
        uint16_t exponent = (uint16_t)(0x3fff - 40 + below(80));
        memset(x->st[n], 0, 16);
        switch (below(8)) {
        case 0:
            significand = below(2) ? 0 : rnd();
            exponent = below(2) ? 0 : 0x7fff;
            break;
        case 1:
            significand = 1ull << 63 | (below(2) ? 0 : rnd());
            exponent = below(2) ? 0x7fff : (uint16_t)(below(2) ? 0x7ff0 + below(14) : below(20));
            break;
        case 2:
            significand = 1ull << 63;
            exponent = (uint16_t)(0x3fff + below(20));
            break;
        default:
            break;
        }
        le64_put(x->st[n], significand);
        le16_put(x->st[n] + 8, (uint16_t)(exponent | (below(2) << 15)));
    }
}

static void random_state(struct state *s)
{
    struct x86_xsave *x = &s->x;
    bool unmasked = below(4) == 0;

    memset(s, 0, sizeof *s);
    random_x87(x, unmasked);
    fill(x->xmm, sizeof x->xmm);
    if (host_xcr0 & XCR0_AVX)
        fill(x->ymm_hi, sizeof x->ymm_hi);
    if (host_xcr0 & XCR0_ZMM_HI256) {
        fill(x->zmm_hi, sizeof x->zmm_hi);
        fill(x->hi16_zmm, sizeof x->hi16_zmm);
        for (unsigned n = 0; n < 8; n++)
            x->opmask[n] = below(3) ? rnd() & rnd() : below(2) ? 0 : ~0ull;
    }
    x->mxcsr = 0x1f80;
    if (below(2)) {
        x->mxcsr |= rnd() & 0xe07f;
        if (unmasked)
            x->mxcsr &= (uint32_t)(~0x1f80u | rnd());
    }
    x->mxcsr_mask = 0xffff;
    x->xstate_bv = host_xcr0;
    for (unsigned n = 0; n < 16; n++)
        s->gpr[n] = below(2) ? rnd() : interesting();
    if (is_32) {
        for (unsigned n = 0; n < 16; n++)
            s->gpr[n] = (uint32_t)s->gpr[n];
    }
    s->flags = 0x202 | (rnd() & FLAG_STATUS);
}

/* Where processors differ and the manual decides: SHA's memory operands are
 * checked for alignment by Intel's (type 4), not by AMD's. */
static bool is_known_difference(const ZydisDecodedInstruction *z, int guest_vector)
{
    return z->meta.category == ZYDIS_CATEGORY_SHA && guest_vector == VEC_GP && host_vector != VEC_GP;
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
            differs("gpr", &host->gpr[n], &guest->gpr[n], is_32 ? 4 : 8, text, room)) {
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
    memcpy(host_buffer, memory, sizeof memory);
    memcpy(guest_buffer, memory, sizeof memory);
    host.gpr[X86_RDI] = host.gpr[X86_RSP] = 0;
    guest = host;
    if (has_memory) {
        host.gpr[X86_RAX] = (uint64_t)(uintptr_t)host_buffer + offset;
        guest.gpr[X86_RAX] = GUEST_BUFFER + offset;
        host.gpr[X86_RDI] = host.gpr[X86_RAX];
        guest.gpr[X86_RDI] = guest.gpr[X86_RAX];
    }
    struct state before = host;
    host_run(&host, bytes, z->length);
    vector = guest_run(&guest, bytes, z->length);
    runs++;
    if (host_vector != vector) {
        snprintf(text, sizeof text, "fault: host %d guest %d (offset %u, mxcsr %x fcw %x fsw %x)",
                 host_vector, vector, offset, before.x.mxcsr, before.x.fcw, before.x.fsw);
    } else if (vector >= 0) {
        faults++;
        if (vector == VEC_XM && host_mxcsr != guest.x.mxcsr)
            snprintf(text, sizeof text, "mxcsr at #XM: host %x guest %x", host_mxcsr,
                     guest.x.mxcsr);
    } else {
        for (unsigned n = 0; n < 16; n += 7) { /* addresses, where they are still there */
            if (has_memory && host.gpr[n] == (uint64_t)(uintptr_t)host_buffer + offset &&
                guest.gpr[n] == GUEST_BUFFER + offset)
                host.gpr[n] = guest.gpr[n];
        }
        compare(&host, &guest, vector, text, sizeof text);
    }
    if (!text[0] && memcmp(host_buffer, guest_buffer, BUFFER_BYTES)) {
        unsigned n = 0;
        while (host_buffer[n] == guest_buffer[n])
            n++;
        snprintf(text, sizeof text, "memory at %d (vector %d): host %02x guest %02x",
                 (int)n - (int)offset, vector, host_buffer[n], guest_buffer[n]);
    }
    if (text[0] && !is_known_difference(z, vector) && reports++ < MAX_REPORTS)
        describe(bytes, z, op, text);
}

/* ---- the sweep ---- */

static ZydisDecoder decoder;
static const char *filter;
static unsigned rounds = 3;

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
    bool has_memory = false, names_rax = false, is_done = false;
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
            if (op[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
                vsib = ZydisRegisterGetId(op[n].mem.index);
        }
    }
    for (unsigned n = 0; n < z.operand_count; n++) {
        if (op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
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
    if (x86_decode_one(cpu, cpu->mode, bytes, length, &probe) != DECODE_OK ||
        probe.length != z.length)
        return; /* #UD here */
    for (unsigned n = 0; n < rounds && !is_done; n++) {
        unsigned before = reports;
        run_one(bytes, &z, op, has_memory, vsib);
        is_done = reports != before;
    }
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
                for (unsigned rex = 0; rex < (is_32 ? 1 : 4); rex++)
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
                        b[n++] = (uint8_t)((is_32 ? 0x80 : rnd() & 0x80) | 0x40 |
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
                                           (is_32 ? 0xc0 : 0) | map);
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
    uint64_t in_use = rnd() & host_xcr0, comp = 0;

    random_state(&s);
    memcpy(image, &s.x, 160);
    memset(image + 512, 0, 64);
    if (compacted) {
        comp = (rnd() | in_use) & host_xcr0;
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
    memcpy(host_buffer, memory, sizeof memory);
    memcpy(guest_buffer, memory, sizeof memory);
    host.gpr[X86_RSP] = 0;
    host.gpr[X86_RAX] = rnd() & f->mask;
    if (is_32 && f->kind == SAVE) /* always initial outside 64-bit mode; AMD disagrees */
        host.gpr[X86_RAX] &= ~(uint64_t)XCR0_HI16_ZMM;
    host.gpr[X86_RDX] = 0;
    guest = host;
    host.gpr[X86_RDI] = (uint64_t)(uintptr_t)host_buffer + offset;
    guest.gpr[X86_RDI] = GUEST_BUFFER + offset;
    host_run(&host, (const uint8_t *)f->bytes, f->length);
    vector = guest_run(&guest, (const uint8_t *)f->bytes, f->length);
    runs++;
    host.gpr[X86_RDI] = guest.gpr[X86_RDI];
    for (unsigned n = 0; n < 2; n++) { /* pointers and MXCSR_MASK are not compared */
        uint8_t *image = (n ? guest_buffer : host_buffer) + offset;
        memset(image + f->skip_from, 0, f->skip_to - f->skip_from);
        if (f->skip_to == 24)
            memset(image + 28, 0, 4);
    }
    if (host_vector != vector)
        snprintf(text, sizeof text, "fault: host %d guest %d", host_vector, vector);
    else if (vector < 0)
        compare(&host, &guest, vector, text, sizeof text);
    else
        faults++;
    if (!text[0])
        differs("memory", host_buffer, guest_buffer, BUFFER_BYTES, text, sizeof text);
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

static void *low_pages(size_t bytes, int protection)
{
    void *p = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = on_fault,
                               .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    static uint8_t signal_stack[64 * KiB];
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    unsigned a, b, c, d;

    random_word = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 3;
    is_32 = argc > 3 && !strcmp(argv[3], "32");
    filter = argc > 4 ? argv[4] : NULL;
    __cpuid(1, a, b, c, d);
    if (!(c & 1u << 27)) {
        puts("SKIP: the host's system does not enable XSAVE");
        return 77;
    }
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    host_xcr0 = a & 0xe7;
    for (unsigned n = 0; n < ARRAY_SIZE(components); n++) {
        __cpuid_count(0xd, __builtin_ctzll(components[n].bit), a, b, c, d);
        components[n].host_offset = b;
    }
    code = low_pages(PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
    low_stack = low_pages(PAGE_SIZE, PROT_READ | PROT_WRITE);
    host_buffer = low_pages(BUFFER_BYTES + PAGE_SIZE, PROT_READ | PROT_WRITE);
    mprotect(host_buffer + BUFFER_BYTES, PAGE_SIZE, PROT_NONE);
    if (is_32) /* 64-bit Linux leaves these null, which 32-bit code does not bear */
        __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(LINUX_DS));
    sigaltstack(&stack, NULL);
    for (unsigned n = 0; n < ARRAY_SIZE(signals); n++) /* before the runtime's, which chains */
        sigaction(signals[n], &action, NULL);
    if (!guest_start())
        return 1;
    ZydisDecoderInit(&decoder, is_32 ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LONG_64,
                     is_32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
    sweep_x87();
    sweep_state();
    sweep_legacy();
    if (host_xcr0 & XCR0_AVX)
        sweep_vex();
    if (host_xcr0 & XCR0_ZMM_HI256)
        sweep_evex();
    printf("%u forms, %u runs, %u faults, %u differences\n", forms, runs, faults, reports);
    vm_destroy(vm);
    return reports ? 1 : 0;
}
