/*
 * Execution for vec_selftest: a stub on the host that loads a whole state, runs
 * the instructions and saves the state; and a guest of one processor without
 * an engine. See vec_selftest.h.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cpuid.h>

#include "tests/insn/vec_selftest.h"
#include "vm/vm.h"

#define RAM_BYTES (8 * MiB)

struct runner runner;

/* ---- random numbers ---- */

static uint64_t random_word;

void random_seed(uint64_t seed)
{
    random_word = seed;
}

uint64_t rnd(void)
{
    random_word += 0x9e3779b97f4a7c15ull;
    uint64_t z = random_word;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

unsigned below(unsigned n)
{
    return (unsigned)(rnd() % n);
}

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

void fill(void *p, size_t bytes)
{
    uint8_t *b = p;

    for (size_t n = 0; n < bytes; n += 8) {
        uint64_t v = interesting();
        memcpy(b + n, &v, MIN((size_t)8, bytes - n));
    }
}

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

void random_state(struct state *s)
{
    struct x86_xsave *x = &s->x;
    bool unmasked = below(4) == 0;

    memset(s, 0, sizeof *s);
    random_x87(x, unmasked);
    fill(x->xmm, sizeof x->xmm);
    if (runner.xcr0 & XCR0_AVX)
        fill(x->ymm_hi, sizeof x->ymm_hi);
    if (runner.xcr0 & XCR0_ZMM_HI256) {
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
    x->xstate_bv = runner.xcr0;
    for (unsigned n = 0; n < 16; n++)
        s->gpr[n] = below(2) ? rnd() : interesting();
    if (runner.is_32) {
        for (unsigned n = 0; n < 16; n++)
            s->gpr[n] = (uint32_t)s->gpr[n];
    }
    s->flags = 0x202 | (rnd() & FLAG_STATUS);
}

/* ---- the host side ---- */

enum { LINUX_CS32 = 0x23, LINUX_CS64 = 0x33, LINUX_DS = 0x2b };

static uint8_t *code; /* below 4 GiB, as all that 32-bit code needs */
static uint8_t *low_stack;
static sigjmp_buf host_fault;
static volatile bool host_running;

static void on_fault(int number, siginfo_t *info, void *context)
{
    ucontext_t *u = context;

    if (!host_running) {
        signal(number, SIG_DFL);
        return;
    }
    runner.host_vector = (int)u->uc_mcontext.gregs[REG_TRAPNO];
    runner.host_mxcsr = u->uc_mcontext.fpregs->mxcsr;
    siglongjmp(host_fault, 1);
}

static __attribute__((noinline)) size_t put(uint8_t *p, size_t at, const char *bytes, size_t n)
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
        if (runner.xcr0 & components[n].bit)
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

void host_run(struct state *state, const uint8_t *insn, unsigned length)
{
    static struct host_state h;
    struct host_state *s = &h;
    uint8_t *p = code;
    size_t at = 0, jump;
    uint32_t offset;

    PUT("\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57\x49\x89\xff"); /* push..; mov r15, rdi */
    PUT("\xb8");
    offset = (uint32_t)runner.xcr0;
    at = put(p, at, (char *)&offset, 4);
    PUT("\x31\xd2\x49\x0f\xae\x2f"); /* xor edx, edx; xrstor64 [r15] */
    offset = offsetof(struct host_state, s.flags);
    PUT("\x41\xff\xb7"); /* push [r15 + flags] */
    at = put(p, at, (char *)&offset, 4);
    PUT("\x9d");
    at = put_gprs(p, at, true);
    if (runner.is_32) {
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
    offset = (uint32_t)runner.xcr0;
    at = put(p, at, (char *)&offset, 4);
    PUT("\x31\xd2\x49\x0f\xae\x27\xdb\xe3"); /* xor edx, edx; xsave64 [r15]; fninit */
    PUT("\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3");

    memcpy(h.s.gpr, state->gpr, sizeof h.s.gpr);
    h.s.flags = state->flags;
    h.low_rsp = (uint64_t)(uintptr_t)low_stack + PAGE_SIZE;
    to_image(h.image, &state->x);
    runner.host_vector = -1;
    if (!sigsetjmp(host_fault, 1)) {
        host_running = true;
        ((void (*)(struct host_state *))(uintptr_t)code)(s);
    }
    host_running = false;
    __asm__ volatile("fninit");
    __builtin_ia32_ldmxcsr(0x1f80);
    if (runner.xcr0 & XCR0_AVX)
        __asm__ volatile("vzeroupper");
    memcpy(state->gpr, h.s.gpr, sizeof h.s.gpr);
    state->flags = h.s.flags;
    from_image(&state->x, h.image);
}

/* ---- the guest side ---- */

static struct vm *vm;
static struct x86_model model;
static struct ram_block *ram;

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
    struct x86_vcpu *cpu;
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
    cpu = x86_vcpu_create(vm, &model, &engine, NULL, &err);
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
    runner.guest_buffer = ram->host + GUEST_BUFFER;

    cpu->s.cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP | CR0_ET | CR0_WP;
    cpu->s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    cpu->s.efer = EFER_LMA | EFER_LME | EFER_NXE;
    cpu->s.xcr0 = model.xcr0_mask;
    cpu->s.seg[X86_CS].attr |= runner.is_32 ? SEG_DB | SEG_G : SEG_L;
    cpu->s.seg[X86_CS].base = 0;
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        cpu->s.seg[n].limit = 0xffffffff;
    x86_state_changed(cpu);
    x86_load_cr3(cpu, 0x1000);
    runner.cpu = cpu;
    return true;
fail:
    fprintf(stderr, "cannot make a machine: %s\n", err.text);
    return false;
}

int guest_run(struct state *s, const uint8_t *bytes, unsigned length)
{
    static struct x86_insn insn[SEQUENCE_MAX + 1];
    struct x86_vcpu *cpu = runner.cpu;
    volatile int vector = -1;
    unsigned at = 0, count = 0;

    memset(insn, 0, sizeof insn);
    if (vec_needs_flush(cpu)) {
        vec_sync(cpu);
        vec_flush(cpu);
    }
    while (at < length && count < SEQUENCE_MAX) {
        insn[count].offset = (uint16_t)at;
        insn[count].number = (uint16_t)count;
        if (x86_decode_one(cpu, cpu->mode, bytes + at, length - at, &insn[count]) != DECODE_OK)
            return -2;
        at += insn[count++].length;
    }
    insn[count].fn = stop;
    vec_sync(cpu);
    cpu->s.x = s->x;
    cpu->s.x.xstate_bv = 0;
    for (unsigned n = 0; n < 16; n++)
        cpu->s.reg[n] = s->gpr[n];
    cpu->s.reg[X86_RIP] = 0x1234000;
    cpu->s.cc = x86_rflags_to_cc(s->flags);
    cpu->in_insn = true;
    if (!x86_catch(&cpu->unwind))
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

/* ---- life ---- */

static void *low_pages(size_t bytes, int protection)
{
    void *p = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

int runner_start(bool is_32)
{
    struct sigaction action = {.sa_sigaction = on_fault,
                               .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    static uint8_t signal_stack[64 * KiB];
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    unsigned a, b, c, d;

    runner.is_32 = is_32;
    __cpuid(1, a, b, c, d);
    if (!(c & 1u << 27)) {
        puts("SKIP: the host's system does not enable XSAVE");
        return 77;
    }
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    runner.xcr0 = a & 0xe7;
    for (unsigned n = 0; n < ARRAY_SIZE(components); n++) {
        __cpuid_count(0xd, __builtin_ctzll(components[n].bit), a, b, c, d);
        components[n].host_offset = b;
    }
    code = low_pages(PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
    low_stack = low_pages(PAGE_SIZE, PROT_READ | PROT_WRITE);
    runner.host_buffer = low_pages(BUFFER_BYTES + PAGE_SIZE, PROT_READ | PROT_WRITE);
    mprotect(runner.host_buffer + BUFFER_BYTES, PAGE_SIZE, PROT_NONE);
    if (is_32) /* 64-bit Linux leaves these null, which 32-bit code does not bear */
        __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(LINUX_DS));
    sigaltstack(&stack, NULL);
    for (unsigned n = 0; n < ARRAY_SIZE(signals); n++) /* before the runtime's, which chains */
        sigaction(signals[n], &action, NULL);
    return guest_start() ? 0 : 1;
}

void runner_stop(void)
{
    vm_destroy(vm);
}
