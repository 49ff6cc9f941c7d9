/*
 * The fixed host code: into translated code and out of it, L0 misses, calls
 * of C. See jit.h for where everything is.
 *
 * These are functions of assembler text only; what they find at [rsp + n] is
 * given by the offsets of the C structures.
 */
#include "engine/jit/jit.h"

#define CPU(field) [c_##field] "i"(offsetof(struct x86_vcpu, field))
#define REG(name) "i"(8 * X86_##name)
#define JIT(field) "i"(JIT_AREA + offsetof(struct jit, field))

/* Guest registers from and to their homes; RSP is at the state. */
#define LOAD_REGS                                                                                  \
    "mov 0(%%rsp), %%r14\n\t"                                                                      \
    "mov 8(%%rsp), %%rcx\n\t"                                                                      \
    "mov 16(%%rsp), %%rdx\n\t"                                                                     \
    "mov 24(%%rsp), %%rbx\n\t"                                                                     \
    "mov 32(%%rsp), %%r13\n\t"                                                                     \
    "mov 40(%%rsp), %%rbp\n\t"                                                                     \
    "mov 48(%%rsp), %%rsi\n\t"                                                                     \
    "mov 56(%%rsp), %%rdi\n\t"                                                                     \
    "mov 64(%%rsp), %%r8\n\t"                                                                      \
    "mov 72(%%rsp), %%r9\n\t"                                                                      \
    "mov 80(%%rsp), %%r10\n\t"                                                                     \
    "mov 88(%%rsp), %%r11\n\t"                                                                     \
    "mov 96(%%rsp), %%r12\n\t"
#define STORE_REGS(pushed)                                                                         \
    "mov %%r14, 0+" pushed "(%%rsp)\n\t"                                                           \
    "mov %%rcx, 8+" pushed "(%%rsp)\n\t"                                                           \
    "mov %%rdx, 16+" pushed "(%%rsp)\n\t"                                                          \
    "mov %%rbx, 24+" pushed "(%%rsp)\n\t"                                                          \
    "mov %%r13, 32+" pushed "(%%rsp)\n\t"                                                          \
    "mov %%rbp, 40+" pushed "(%%rsp)\n\t"                                                          \
    "mov %%rsi, 48+" pushed "(%%rsp)\n\t"                                                          \
    "mov %%rdi, 56+" pushed "(%%rsp)\n\t"                                                          \
    "mov %%r8, 64+" pushed "(%%rsp)\n\t"                                                           \
    "mov %%r9, 72+" pushed "(%%rsp)\n\t"                                                           \
    "mov %%r10, 80+" pushed "(%%rsp)\n\t"                                                          \
    "mov %%r11, 88+" pushed "(%%rsp)\n\t"                                                          \
    "mov %%r12, 96+" pushed "(%%rsp)\n\t"

__attribute__((naked)) void jit_enter(struct x86_vcpu *c, const void *entry)
{
    __asm__ volatile("push %%rbx\n\t"
                     "push %%rbp\n\t"
                     "push %%r12\n\t"
                     "push %%r13\n\t"
                     "push %%r14\n\t"
                     "push %%r15\n\t"
                     "sub $8, %%rsp\n\t"
                     "mov %%rsp, %c[host_rsp](%%rdi)\n\t"
                     "mov %%rdi, %%rsp\n\t"
                     "mov %%rsi, %%rax\n\t" LOAD_REGS "jmp *%%rax"
                     :
                     : [host_rsp] JIT(host_rsp));
}

__attribute__((naked)) void jit_leave(void)
{
    __asm__ volatile("mov %c[host_rsp](%%rsp), %%rsp\n\t"
                     "add $8, %%rsp\n\t"
                     "pop %%r15\n\t"
                     "pop %%r14\n\t"
                     "pop %%r13\n\t"
                     "pop %%r12\n\t"
                     "pop %%rbp\n\t"
                     "pop %%rbx\n\t"
                     "cld\n\t"
                     "ret"
                     :
                     : [host_rsp] JIT(host_rsp));
}

/*
 * Where the jump caches' empty entries lead: to JIT_NO_RIP, by the interpreter.
 * The jump is complete but for the low bits of RIP.
 */
__attribute__((naked)) void jit_no_jump(void)
{
    __asm__ volatile(STORE_REGS("0") "movq %[rip], %c[home](%%rsp)\n\t"
                     "jmp jit_leave"
                     :
                     : [rip] "i"((int32_t)JIT_NO_RIP), [home] REG(RIP));
}

/*
 * Called with a 32-bit argument behind the call. The C function's answer is 0:
 * go on behind the argument; else an address to go on at.
 */
#define CALL_C(function)                                                                           \
    __asm__ volatile(STORE_REGS("8") "pop %%rbp\n\t"                                               \
                     "mov (%%rbp), %%esi\n\t"                                                      \
                     "mov %%rsp, %%rdi\n\t"                                                        \
                     "mov %%rsp, %%rbx\n\t"                                                        \
                     "mov %c[host_rsp](%%rdi), %%rsp\n\t"                                          \
                     "call *%c[fn](%%rdi)\n\t"                                                     \
                     "mov %%rbx, %%rsp\n\t"                                                        \
                     "lea 4(%%rbp), %%r15\n\t"                                                     \
                     "test %%rax, %%rax\n\t"                                                       \
                     "cmovnz %%rax, %%r15\n\t" LOAD_REGS "jmp *%%r15"                              \
                     :                                                                             \
                     : [host_rsp] JIT(host_rsp), [fn] JIT(function))

__attribute__((naked)) void jit_call_slow(void)
{
    CALL_C(slow);
}

__attribute__((naked)) void jit_call_slow_vector(void)
{
    CALL_C(slow_vector);
}

__attribute__((naked)) void jit_call_enter_vectors(void)
{
    CALL_C(enter_vectors);
}

__attribute__((naked)) void jit_call_link(void)
{
    CALL_C(link);
}

/*
 * An access that its L0 entry does not cover: rax is the linear address of the
 * first byte, and behind the call are 32 bits that say which entry (offset in
 * bits 0..15), the size - 1 (bits 16..23) and whether it is a write (bit 24),
 * and 32 bits that say which instruction.
 * Copies the TLB's entry; then goes on 8 bytes behind the call, where the check
 * is repeated, or 13 bytes behind it, where the slow way begins. With
 * JIT_MISS_ONCE_BIT that is 18 bytes behind, and at 13 goes on what may be done
 * once, the addend in rax.
 */
_Static_assert(sizeof(struct jit_l0) == 32, "as jit_miss has it");
_Static_assert((int)L0_LOCAL == (int)TLBE_GLOBAL && offsetof(struct tlb_entry, flags) == 24,
               "as jit_miss has it");

__attribute__((naked)) void jit_miss(void)
{
    __asm__ volatile(
        "push %%rdx\n\t"
        "push %%rcx\n\t"
        "push %%rbx\n\t"
        "push %%rsi\n\t"
        "mov 40+%c[argument](%%rsp), %%ecx\n\t"
        "incq 40+%c[l0_misses](%%rsp)\n"
        "0:\n\t"
        "mov %%rax, %%rdx\n\t"
        "shr $7, %%rdx\n\t"
        "and 40+%c[mask](%%rsp), %%rdx\n\t"
        "add 40+%c[table](%%rsp), %%rdx\n\t"
        "mov %%ecx, %%ebx\n\t"
        "shr $16, %%ebx\n\t"
        "movzbl %%bl, %%ebx\n\t"
        "add %%rax, %%rbx\n\t"
        "and $-4096, %%rbx\n\t"
        "xor %%esi, %%esi\n\t"
        "bt $24, %%ecx\n\t"
        "adc %%esi, %%esi\n\t"
        "cmp %%rbx, (%%rdx, %%rsi, 8)\n\t"
        "jne 1f\n\t"
        "movzwl %%cx, %%ecx\n\t"
        "mov %%ecx, %%ebx\n\t"
        "shr %[class_shift], %%ebx\n\t"
        "mov 24(%%rdx), %%esi\n\t" /* L0_ANY, and L0_LOCAL if not TLBE_GLOBAL */
        "not %%esi\n\t"
        "and $2, %%esi\n\t"
        "or $1, %%esi\n\t"
        "or %%sil, 40+%c[used](%%rsp, %%rbx)\n\t"
        "mov %%ecx, %%ebx\n\t"
        "shr $5, %%ebx\n\t"
        "mov %%sil, 40+%c[kind](%%rsp, %%rbx)\n\t"
        "mov 24(%%rdx), %%esi\n\t"
        "and %[large], %%esi\n\t"
        "or %%sil, 40+%c[kind](%%rsp, %%rbx)\n\t"
        "lea 40+%c[l0](%%rsp, %%rcx), %%rcx\n\t"
        "mov 0(%%rdx), %%rbx\n\t"
        "test $1, %%bl\n\t"
        "cmovnz 40+%c[none](%%rsp), %%rbx\n\t"
        "mov %%rbx, 0(%%rcx)\n\t"
        "mov 8(%%rdx), %%rbx\n\t"
        "test $1, %%bl\n\t"
        "cmovnz 40+%c[none](%%rsp), %%rbx\n\t"
        "mov %%rbx, 8(%%rcx)\n\t"
        "mov 16(%%rdx), %%rbx\n\t"
        "mov %%rbx, 16(%%rcx)\n\t"
        "mov 32(%%rsp), %%rbx\n\t"
        "shr $2, %%rbx\n\t"
        "and %[counters], %%ebx\n\t"
        "addw $1, 40+%c[misses](%%rsp, %%rbx, 2)\n\t"
        "cmpw %[many], 40+%c[misses](%%rsp, %%rbx, 2)\n\t"
        "jae 3f\n\t"
        "decl 40+%c[left](%%rsp)\n\t"
        "js 3f\n"
        "4:\n\t"
        "pop %%rsi\n\t"
        "pop %%rbx\n\t"
        "pop %%rcx\n\t"
        "pop %%rdx\n\t"
        "addq $8, (%%rsp)\n\t"
        "ret\n"
        /* Not in the TLB: a walk, unless the access is one for the slow way. */
        "1:\n\t"
        "push %%rdi\n\t"
        "push %%r8\n\t"
        "push %%r9\n\t"
        "push %%r10\n\t"
        "push %%r11\n\t"
        "push %%rcx\n\t"
        "push %%rax\n\t"
        "mov %%rsp, %%rbx\n\t"
        "lea 96(%%rsp), %%rdi\n\t"
        "mov %%esi, %%edx\n\t"
        "mov %%ecx, %%esi\n\t"
        "shr $16, %%esi\n\t"
        "movzbl %%sil, %%esi\n\t"
        "mov %%esi, %%r8d\n\t"
        "lea (%%rax, %%rsi), %%rcx\n\t"
        "mov %%rax, %%rsi\n\t"
        "xor %%rax, %%rcx\n\t"
        "xor %%eax, %%eax\n\t"
        "test $-4096, %%rcx\n\t" /* across two pages */
        "jnz 2f\n\t"
        "mov %%r8d, %%ecx\n\t"
        "mov %c[host_rsp](%%rdi), %%rsp\n\t"
        "call *%c[refill](%%rdi)\n\t"
        "mov %%rbx, %%rsp\n"
        "2:\n\t"
        "cmp %[in_tlb], %%eax\n\t"
        "pop %%rax\n\t"
        "pop %%rcx\n\t"
        "pop %%r11\n\t"
        "pop %%r10\n\t"
        "pop %%r9\n\t"
        "pop %%r8\n\t"
        "pop %%rdi\n\t"
        "je 0b\n\t"
        "ja 5f\n\t"
        "shr %[once_bit], %%ecx\n\t"
        "lea %c[to_slow](%%rcx, %%rcx, 4), %%ecx\n\t"
        "add %%rcx, 32(%%rsp)\n\t"
        "jmp 6f\n"
        "5:\n\t"
        "bt %[once_bit], %%ecx\n\t"
        "jnc 7f\n\t"
        "mov 40+%c[once](%%rsp), %%rax\n\t"
        "7:\n\t"
        "addq %[to_slow], 32(%%rsp)\n"
        "6:\n\t"
        "pop %%rsi\n\t"
        "pop %%rbx\n\t"
        "pop %%rcx\n\t"
        "pop %%rdx\n\t"
        "ret\n"
        "3:\n\t"
        "push %%rdi\n\t"
        "push %%r8\n\t"
        "push %%r9\n\t"
        "push %%r10\n\t"
        "push %%r11\n\t"
        "mov %%rsp, %%rbx\n\t"
        "mov 72(%%rsp), %%rsi\n\t"
        "lea 80(%%rsp), %%rdi\n\t"
        "mov %c[host_rsp](%%rdi), %%rsp\n\t"
        "call *%c[many_fn](%%rdi)\n\t"
        "mov %%rbx, %%rsp\n\t"
        "pop %%r11\n\t"
        "pop %%r10\n\t"
        "pop %%r9\n\t"
        "pop %%r8\n\t"
        "pop %%rdi\n\t"
        "jmp 4b"
        :
        : [mask] "i"(offsetof(struct x86_vcpu, tlb_index_mask)),
          [table] "i"(offsetof(struct x86_vcpu, tlb_table)), [used] JIT(l0_used), [l0] JIT(l0),
          [kind] JIT(l0_kind), [large] "i"(TLBE_LARGE),
          [none] JIT(l0_none), [host_rsp] JIT(host_rsp), [refill] JIT(refill), [argument] JIT(miss_argument),
          [misses] JIT(misses), [left] JIT(misses_left), [many_fn] JIT(many),
          [many] "i"(JIT_MISS_MANY), [counters] "i"(JIT_MISS_COUNTERS - 1),
          [class_shift] "i"(JIT_L0_CLASS_SHIFT), [l0_misses] JIT(stats.l0_misses),
          [to_slow] "i"(JIT_MISS_TO_SLOW), [once] JIT(once_addend), [once_bit] "i"(JIT_MISS_ONCE_BIT),
          [in_tlb] "i"(FOUND_IN_TLB));
}
