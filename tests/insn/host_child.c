/*
 * The host's side of the instruction tests, a program of its own: maps the
 * memory of insn.h, then runs batch after batch of cases. Everything happens
 * in one signal handler on its own stack: the trap that ends a case brings the
 * whole state of the processor in its frame; the handler keeps it, puts the
 * next case's state in its place and returns, and the kernel loads it, XSAVE
 * components included, and goes to the case's code.
 *
 * While a case runs nothing of this program's registers is left, FS among
 * them, so the handler calls no library. A seccomp filter keeps an instruction
 * that goes astray from doing harm.
 */
#include <asm/ldt.h>
#include <cpuid.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/insn/insn.h"

/* Offset of struct _fpx_sw_bytes in the frame's FXSAVE area. */
#define SW_BYTES 464
#define CHILD_EXIT_STATUS 3
#define ALARM_MS 100

static struct insn_shared *shared;
static uint8_t *code_view; /* where code is written; the case's own view is read-only */
static bool is_started;
static bool is_running; /* a case's code runs */
static uint32_t last_alarm = UINT32_MAX;
static uint32_t avx_offset, opmask_offset, zmm_hi_offset, hi16_offset; /* 0: not there */

static const unsigned greg_of[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

/* ---- without a library ---- */

static long raw_syscall(long number, long a, long b, long c)
{
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

static void copy(void *to, const void *from, size_t bytes)
{
    __asm__ volatile("cld; rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static void fill(void *to, uint8_t byte, size_t bytes)
{
    __asm__ volatile("cld; rep stosb" : "+D"(to), "+c"(bytes) : "a"(byte) : "memory");
}

static void clear(void *to, size_t bytes)
{
    fill(to, 0, bytes);
}

/* ---- one case ---- */

static void save_x(struct x86_xsave *x, const uint8_t *fp)
{
    uint64_t bv;

    copy(&bv, fp + 512, 8);
    clear(x, sizeof *x);
    copy(x, fp, 416);
    if (!(bv & XCR0_X87)) {
        clear(x, 24);
        clear(x->st, sizeof x->st);
        x->fcw = 0x37f;
    }
    if (!(bv & XCR0_SSE))
        clear(x->xmm, sizeof x->xmm);
    if (avx_offset && (bv & XCR0_AVX))
        copy(x->ymm_hi, fp + avx_offset, sizeof x->ymm_hi);
    if (opmask_offset && (bv & XCR0_OPMASK))
        copy(x->opmask, fp + opmask_offset, sizeof x->opmask);
    if (zmm_hi_offset && (bv & XCR0_ZMM_HI256))
        copy(x->zmm_hi, fp + zmm_hi_offset, sizeof x->zmm_hi);
    if (hi16_offset && (bv & XCR0_HI16_ZMM))
        copy(x->hi16_zmm, fp + hi16_offset, sizeof x->hi16_zmm);
}

static void load_x(uint8_t *fp, const struct x86_xsave *x)
{
    uint64_t bv = XCR0_X87 | XCR0_SSE;

    copy(fp, x, 28); /* MXCSR_MASK stays */
    copy(fp + 32, (const uint8_t *)x + 32, 416 - 32);
    if (avx_offset) {
        copy(fp + avx_offset, x->ymm_hi, sizeof x->ymm_hi);
        bv |= XCR0_AVX;
    }
    if (opmask_offset) {
        copy(fp + opmask_offset, x->opmask, sizeof x->opmask);
        copy(fp + zmm_hi_offset, x->zmm_hi, sizeof x->zmm_hi);
        copy(fp + hi16_offset, x->hi16_zmm, sizeof x->hi16_zmm);
        bv |= XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM;
    }
    clear(fp + 512, 64);
    copy(fp + 512, &bv, 8);
}

static void save_case(struct insn_result *r, const struct insn_case *k, const ucontext_t *u)
{
    const greg_t *g = u->uc_mcontext.gregs;
    uint64_t csgsfs = (uint64_t)g[REG_CSGSFS];
    struct insn_state *s = &r->out;
    uint16_t v;

    for (unsigned n = 0; n < 16; n++)
        s->gpr[n] = (uint64_t)g[greg_of[n]];
    s->rip = (uint64_t)g[REG_RIP];
    s->rflags = (uint64_t)g[REG_EFL];
    s->sel[X86_CS] = (uint16_t)csgsfs;
    s->sel[X86_SS] = (uint16_t)(csgsfs >> 48);
    __asm__ volatile("mov %%ds, %0" : "=r"(v));
    s->sel[X86_DS] = v;
    __asm__ volatile("mov %%es, %0" : "=r"(v));
    s->sel[X86_ES] = v;
    __asm__ volatile("mov %%fs, %0" : "=r"(v));
    s->sel[X86_FS] = v;
    __asm__ volatile("mov %%gs, %0" : "=r"(v));
    s->sel[X86_GS] = v;
    __asm__ volatile("rdfsbase %0" : "=r"(s->fs_base));
    __asm__ volatile("rdgsbase %0" : "=r"(s->gs_base));
    save_x(&s->x, (const uint8_t *)u->uc_mcontext.fpregs);
    r->vector = (int32_t)g[REG_TRAPNO];
    r->error = (uint32_t)g[REG_ERR];
    r->cr2 = r->vector == VEC_PF ? (uint64_t)g[REG_CR2] : 0;
    for (unsigned n = 0; n < DATA_PAGES; n++) {
        if (case_writes(k, n))
            copy(r->mem[n], (const void *)data_page[n].address, 4096);
    }
}

/* Neither signals nor returning from them change these two. */
static void load_flags(uint64_t rflags)
{
    __asm__ volatile("pushfq; andq %0, (%%rsp); orq %1, (%%rsp); popfq"
                     :
                     : "r"((uint64_t) ~(uint64_t)(FLAG_NT | FLAG_ID)),
                       "r"(rflags & (FLAG_NT | FLAG_ID))
                     : "cc", "memory");
}

static uint8_t *code_at(const struct insn_case *k)
{
    if (k->code_address >= SELF_BASE)
        return (uint8_t *)k->code_address;
    return code_view + (k->code_address - CODE_BASE);
}

static void load_case(const struct insn_case *k, ucontext_t *u)
{
    greg_t *g = u->uc_mcontext.gregs;
    const struct insn_state *s = &k->in;

    for (unsigned n = 0; n < DATA_PAGES; n++) {
        if (case_writes(k, n))
            copy((void *)data_page[n].address, shared->background[n], 4096);
    }
    for (unsigned n = 0; n < k->patches; n++)
        copy((void *)k->patch[n].address, k->patch_data + k->patch[n].offset, k->patch[n].bytes);
    copy(code_at(k), k->code, k->code_bytes);

    for (unsigned n = 0; n < 16; n++)
        g[greg_of[n]] = (greg_t)s->gpr[n];
    g[REG_RIP] = (greg_t)s->rip;
    g[REG_EFL] = (greg_t)s->rflags;
    g[REG_CSGSFS] = (greg_t)(s->sel[X86_CS] | (uint64_t)s->sel[X86_SS] << 48);
    u->uc_flags |= 2 | 4; /* SS is in the frame, and to be taken as it is */
    load_x((uint8_t *)u->uc_mcontext.fpregs, &s->x);
    __asm__ volatile("mov %0, %%ds" : : "r"(s->sel[X86_DS]));
    __asm__ volatile("mov %0, %%es" : : "r"(s->sel[X86_ES]));
    __asm__ volatile("mov %0, %%fs" : : "r"(s->sel[X86_FS]));
    __asm__ volatile("mov %0, %%gs" : : "r"(s->sel[X86_GS]));
    if (k->mode == CODE_64) {
        __asm__ volatile("wrfsbase %0" : : "r"(s->fs_base));
        __asm__ volatile("wrgsbase %0" : : "r"(s->gs_base));
    }
    load_flags(s->rflags);
}

static void next_case(ucontext_t *u)
{
    char byte = 0;

    if (is_started && shared->current + 1 < shared->count) {
        shared->current++;
    } else {
        if (is_started)
            raw_syscall(SYS_write, CHILD_FD_DONE, (long)&byte, 1);
        if (raw_syscall(SYS_read, CHILD_FD_GO, (long)&byte, 1) != 1)
            raw_syscall(SYS_exit_group, 0, 0, 0);
        is_started = true;
    }
    last_alarm = UINT32_MAX;
    load_case(&shared->batch[shared->which][shared->current], u);
    is_running = true;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    const struct insn_case *k = &shared->batch[shared->which][shared->current];
    struct insn_result *r = &shared->result[shared->current];

    /* The case's flags are still there; with AC set our accesses would fault. */
    __asm__ volatile("pushfq; andq %0, (%%rsp); popfq"
                     :
                     : "r"(~(uint64_t)(FLAG_AC | FLAG_NT | FLAG_DF))
                     : "cc", "memory");
    if (number == SIGALRM) {
        /* Twice in the same case: it does not end. */
        if (!is_running || last_alarm != shared->current) {
            last_alarm = shared->current;
            if (is_running)
                load_flags((uint64_t)u->uc_mcontext.gregs[REG_EFL]);
            return;
        }
    }
    if (is_running) {
        save_case(r, k, u);
        if (number == SIGALRM)
            r->vector = VECTOR_TIMEOUT;
        fill(code_at(k), CODE_FILL, k->code_bytes);
    }
    is_running = false;
    next_case(u);
}

/* ---- before the first case ---- */

/* fd -1: memory of its own. */
static void map(uint64_t address, size_t bytes, int protection, int fd)
{
    int flags = MAP_FIXED_NOREPLACE | MAP_POPULATE;
    void *p = mmap((void *)address, bytes, protection,
                   flags | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), fd, 0);

    if (p != (void *)address) {
        perror("insn child: mmap");
        exit(CHILD_EXIT_STATUS);
    }
}

static void map_memory(void)
{
    int fd = memfd_create("code", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, CODE_BYTES)) {
        perror("insn child: memfd_create");
        exit(CHILD_EXIT_STATUS);
    }
    code_view =
        mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (code_view == MAP_FAILED) {
        perror("insn child: mmap");
        exit(CHILD_EXIT_STATUS);
    }
    memset(code_view, CODE_FILL, CODE_BYTES);
    map(CODE_BASE, CODE_BYTES, PROT_READ | PROT_EXEC, fd);
    for (unsigned n = 0; n < DATA_PAGES; n++) {
        map(data_page[n].address, 4096,
            PROT_READ | PROT_WRITE | (data_page[n].right == PAGE_RWX ? PROT_EXEC : 0), -1);
        memcpy((void *)data_page[n].address, shared->background[n], 4096);
        if (data_page[n].right == PAGE_RO)
            mprotect((void *)data_page[n].address, 4096, PROT_READ);
    }
}

static void set_ldt(void)
{
    for (unsigned n = 0; n < LDT_COUNT; n++) {
        const struct ldt_info *l = &ldt_info[n];
        struct user_desc d = {
            .entry_number = n,
            .base_addr = l->base,
            .limit = l->limit,
            .seg_32bit = l->is_32bit,
            .contents = l->code ? 2 : l->expand_down ? 1 : 0,
            .read_exec_only = l->read_exec_only,
            .limit_in_pages = l->pages,
            .seg_not_present = l->not_present,
        };

        if (syscall(SYS_modify_ldt, 0x11, &d, sizeof d) != 0) {
            perror("insn child: modify_ldt");
            exit(CHILD_EXIT_STATUS);
        }
    }
}

static uint32_t component(unsigned n)
{
    uint32_t a, b, c, d, xcr0, high;

    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    if (!(xcr0 >> n & 1))
        return 0;
    __cpuid_count(0xd, n, a, b, c, d);
    return b;
}

static void filter_syscalls(void)
{
#define ALLOW(nr)                                                                                  \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xc000003e, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_read),
        ALLOW(SYS_write),
        ALLOW(SYS_rt_sigreturn),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        perror("insn child: seccomp (going on without)");
}

int main(void)
{
    static const int numbers[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGALRM};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct itimerval timer = {{0, ALARM_MS * 1000}, {0, ALARM_MS * 1000}};
    stack_t stack = {.ss_size = 256 * 1024};

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, CHILD_FD_SHARED, 0);
    if (shared == MAP_FAILED) {
        perror("insn child: shared memory");
        return CHILD_EXIT_STATUS;
    }
    stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    avx_offset = component(2);
    opmask_offset = component(5);
    zmm_hi_offset = component(6);
    hi16_offset = component(7);
    map_memory();
    set_ldt();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigaltstack(&stack, NULL);
    sigfillset(&action.sa_mask);
    for (unsigned n = 0; n < ARRAY_SIZE(numbers); n++)
        sigaction(numbers[n], &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    filter_syscalls();
    __asm__ volatile("int3");
    return CHILD_EXIT_STATUS;
}
