/*
 * Catch and throw (see unwind.h; System V ABI for x86-64, 3.2.1).
 *
 * Threading: touches what it is given only.
 */
#include "cpu/x86/unwind.h"

_Static_assert(offsetof(struct x86_unwind, rip) == 56, "offsets in the code below");

__asm__(".text\n\t"
        ".p2align 4\n\t"
        ".globl x86_catch\n\t"
        ".hidden x86_catch\n\t"
        ".type x86_catch, @function\n"
        "x86_catch:\n\t"
        "mov %rbx, (%rdi)\n\t"
        "mov %rbp, 8(%rdi)\n\t"
        "mov %r12, 16(%rdi)\n\t"
        "mov %r13, 24(%rdi)\n\t"
        "mov %r14, 32(%rdi)\n\t"
        "mov %r15, 40(%rdi)\n\t"
        "lea 8(%rsp), %rdx\n\t"
        "mov (%rsp), %rax\n\t"
        "mov %rdx, 48(%rdi)\n\t"
        "mov %rax, 56(%rdi)\n\t"
        "xor %eax, %eax\n\t"
        "ret\n\t"
        ".size x86_catch, . - x86_catch\n\t"
        ".p2align 4\n\t"
        ".globl x86_throw\n\t"
        ".hidden x86_throw\n\t"
        ".type x86_throw, @function\n"
        "x86_throw:\n\t"
        "mov (%rdi), %rbx\n\t"
        "mov 8(%rdi), %rbp\n\t"
        "mov 16(%rdi), %r12\n\t"
        "mov 24(%rdi), %r13\n\t"
        "mov 32(%rdi), %r14\n\t"
        "mov 40(%rdi), %r15\n\t"
        "mov 48(%rdi), %rsp\n\t"
        "mov $1, %eax\n\t"
        "jmp *56(%rdi)\n\t"
        ".size x86_throw, . - x86_throw\n\t"
        ".previous");
