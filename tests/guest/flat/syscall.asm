; SYSCALL, SYSRET, SYSENTER, SYSEXIT as GenuineIntel has them (SDM Vol. 2;
; Vol. 3, 5.8.7, 5.8.8), SWAPGS and FSGSBASE.
%define MODE 64
%include "common.inc"

%macro WRMSR 2                ; number, value
    mov ecx, %1
    mov rax, %2
    mov rdx, rax
    shr rdx, 32
    wrmsr
%endmacro
EFER equ 0xc0000080
STAR equ 0xc0000081
LSTAR equ 0xc0000082
FMASK equ 0xc0000084
GSBASE equ 0xc0000101
KGSBASE equ 0xc0000102
SYSENTER_CS equ 0x174

main:
    WRMSR STAR, (SEL_CODE64 << 32) | (0x28 << 48)
    WRMSR LSTAR, entry
    WRMSR FMASK, 0x47700

    ; ---- SYSCALL from CPL 3 ----
    mov qword [user_flags], 0x40ed7 & ~0x100
    USER 6, 0, user_syscall
    mov eax, entry.at
    CHECK [ev_rip], rax
    CHECK [ev_cs], SEL_CODE64
    CHECK [ev_ss], SEL_DATA64
    CHECK [seen], user_syscall.after
    CHECK_BITS [seen + 8], 0xfffffffffffeffff, 0x40ed7 & ~0x100
%ifndef PEER_QEMU                       ; QEMU clears the status flags
    CHECK_BITS [ev_flags], 0x47fd7, 0x8d7
%endif
    CHECK [ev_rsp], STACK_USER          ; RSP is the caller's
    mov qword [user_flags], 2

    ; ---- SYSRET, 64 and 32 bits ----
    mov rax, .ret64
    mov [resume], rax
    mov [resume_sp], rsp
    mov rcx, at_ud
    mov r11, 0x3f7fd7 & ~0x100
    mov rsp, 0x123456789abcdef0
    o64 sysret
.ret64:
    CHECK [ev_vec], 6
    CHECK [ev_cs], SEL_UCODE64
    CHECK [ev_ss], SEL_UDATA
    mov rbx, 0x123456789abcdef0
    CHECK [ev_rsp], rbx
%ifndef PEER_QEMU                       ; QEMU loads no VIF and VIP
    CHECK_BITS [ev_flags], 0x3effff, 0x3c7fd7 & ~0x10100 ; no RF, no VM
%endif
    mov rax, .ret32
    mov [resume], rax
    mov rcx, 0xffffffff00000000 + A(at_ud)
    mov r11, 2
    sysret
.ret32:
    CHECK [ev_cs], SEL_UCODE32
    CHECK [ev_ss], SEL_UDATA
    mov eax, at_ud
    CHECK [ev_rip], rax
    ; RCX not canonical: #GP at CPL 0, with the kernel's RSP
    mov rcx, 0x800000000000
%ifndef PEER_QEMU                       ; QEMU faults at CPL 3, as AMD's do
    FAULT 13, 0, o64 sysret
    CHECK [ev_cs], SEL_CODE64
    CHECK rsp, STACK0
%endif
    USER 13, 0, user_sysret

    ; ---- #UD: EFER.SCE clear, compatibility mode ----
    mov ecx, EFER
    rdmsr
    and eax, ~1
    wrmsr
    FAULT 6, 0, syscall
    FAULT 6, 0, sysret
    or eax, 1
    mov ecx, EFER
    rdmsr
    or eax, 1
    wrmsr
    mov qword [user_cs], SEL_UCODE32
%ifndef PEER_QEMU                       ; QEMU has AMD's SYSCALL in compatibility mode
    USER 6, 0, user32_syscall
    CHECK [ev_rip], user32_syscall
%endif
    mov qword [user_cs], SEL_UCODE64

    ; ---- SYSENTER, SYSEXIT ----
    WRMSR SYSENTER_CS, 0
    FAULT 13, 0, sysenter
    FAULT 13, 0, sysexit
    WRMSR SYSENTER_CS, 3
%ifndef PEER_QEMU                       ; QEMU: looks at all bits
    FAULT 13, 0, sysenter
%endif
    WRMSR SYSENTER_CS, SEL_CODE64 | 3
    WRMSR 0x175, 0x2a100
    WRMSR 0x176, entry
    mov qword [user_flags], 0x3202
    USER 6, 0, user_sysenter
    CHECK [ev_cs], SEL_CODE64
    CHECK [ev_ss], SEL_DATA64
    CHECK [ev_rsp], 0x2a100
    CHECK_BITS [ev_flags], 0x3200, 0x3000
    mov qword [user_flags], 2
    mov qword [user_cs], SEL_UCODE32
    USER 6, 0, user32_sysenter
    CHECK [ev_cs], SEL_CODE64           ; 64-bit code also from compatibility mode
    mov qword [user_cs], SEL_UCODE64
    mov rax, .exit64
    mov [resume], rax
    mov [resume_sp], rsp
    mov rcx, 0x2b100
    mov rdx, at_ud
    o64 sysexit
.exit64:
    CHECK [ev_vec], 6
    CHECK [ev_cs], SEL_UCODE64
    CHECK [ev_ss], (SEL_CODE64 + 40) | 3
    CHECK [ev_rsp], 0x2b100
    mov rax, .exit32
    mov [resume], rax
    mov [resume_sp], rsp
    mov rcx, 0xfffffffff002b100
    mov rdx, 0xffffffff00000000 + A(at_ud)
    sysexit
.exit32:
    CHECK [ev_vec], 6
    CHECK [ev_cs], SEL_UCODE32
    CHECK [ev_ss], SEL_UDATA
    CHECK_BITS [ev_rsp], 0xffffffff, 0xf002b100
    mov rdx, 0x800000000000
    mov rcx, STACK_USER
%ifndef PEER_QEMU                       ; QEMU goes there first
    FAULT 13, 0, o64 sysexit
    xchg rcx, rdx
    FAULT 13, 0, o64 sysexit
%endif
    USER 13, 0, user_sysexit

    ; ---- SWAPGS, FSGSBASE ----
    WRMSR GSBASE, 0x11111000
    WRMSR KGSBASE, 0x22222000
    swapgs
    mov ecx, GSBASE
    rdmsr
    CHECK rax, 0x22222000
    mov ecx, KGSBASE
    rdmsr
    CHECK rax, 0x11111000
    USER 13, 0, user_swapgs
    FAULT 6, 0, rdgsbase rax
    mov rax, cr4
    or eax, 1 << 16
    mov cr4, rax
    mov rax, 0x7fff12345678
    wrgsbase rax
    xor eax, eax
    rdgsbase rax
    mov rbx, 0x7fff12345678
    CHECK rax, rbx
    mov rax, 0xffffffffffffffff
    wrfsbase eax                        ; 32-bit form: zero-extended
    rdfsbase rax
    mov ebx, 0xffffffff
    CHECK rax, rbx
    mov rax, 0x800000000000
    mov [try_ax], rax
%ifndef PEER_QEMU                       ; QEMU: takes any address
    FAULT 13, 0, wrfsbase rax
%endif
    WRMSR GSBASE, 0
    ; MSRs take canonical addresses only
    mov ecx, LSTAR
    xor eax, eax
    mov edx, 0x8000
    mov qword [try_ax], 0
%ifndef PEER_QEMU                       ; QEMU: takes any address
    FAULT 13, 0, wrmsr
%endif
    PASS

entry:
    mov [seen], rcx
    mov [seen + 8], r11
.at:
    ud2
at_ud:
    ud2
user_syscall:
    syscall
.after:
    ud2
user_sysret:
    o64 sysret
user_sysenter:
    sysenter
user_sysexit:
    sysexit
user_swapgs:
    swapgs
bits 32
user32_syscall:
    syscall
    ud2
user32_sysenter:
    sysenter
    ud2
bits 64
align 8
seen: dq 0, 0
ROM_END
