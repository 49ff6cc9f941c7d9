; What system transitions cost: each line is TSC ticks for COUNT of them, the
; empty loop included. To be run by hand, see tests/bench/transitions.
%define MODE 64
%include "common.inc"

%ifndef COUNT
%define COUNT 200000
%endif

MSR_FS equ 0xc0000100
MSR_KGS equ 0xc0000102
X2_EOI equ 0x80b
X2_SELF equ 0x83f
MISSING equ 0x5000000000            ; nothing is mapped there

%macro SAY 1
    jmp %%over
%%text: db %1, 0
%%over:
    mov esi, %%text
    call print
%endmacro
; ticks since [t0], one line
%macro REPORT 1
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, [t0]
    mov [took], rax
    SAY %1
    mov rax, [took]
    call print_hex
    mov al, 10
    out 0xe9, al
%endmacro
%macro START 0
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov [t0], rax
    mov ecx, r12d
    xor eax, eax
    xor edx, edx
%endmacro
; ITEM "name", instructions (r15 counts; ECX is R12D, EDX:EAX 0 at first)
%macro ITEM 2+
    mov r15d, COUNT
    START
%%next:
    %2
    dec r15d
    jnz %%next
    REPORT %1
%endmacro
; the same with the body between two macros
%macro LOOP 0
    %push item
    mov r15d, COUNT
    START
%$next:
%endmacro
%macro ENDLOOP 1
    dec r15d
    jnz %$next
    REPORT %1
    %pop
%endmacro
; a 64-bit interrupt gate: vector, label, IST and DPL
%macro SET_GATE 4
    mov rax, GATE64(SEL_CODE64, A(%2), 0x8e | (%4 << 5), %3)
    mov [idt + %1 * 16], rax
%endmacro
; runs label at CPL 3 until it does INT 41H
%macro AT_USER 1
    mov [back_sp], rsp
    mov rax, %%after
    mov [back], rax
    push SEL_UDATA
    push STACK_USER
    push 0x202
    push SEL_UCODE64
    mov rax, %1
    push rax
    iretq
%%after:
%endmacro

main:
    mov r14d, 0xfee00000
    ; SYSCALL: CS 18H, SS 20H; SYSRET: CS 38H, SS 30H
    mov ecx, 0xc0000081
    mov edx, 0x00280018
    xor eax, eax
    wrmsr
    mov ecx, 0xc0000082
    mov eax, on_syscall
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x40700
    wrmsr
    SET_GATE 0x40, on_int, 0, 3
    SET_GATE 0x41, on_back, 0, 3
    SET_GATE 0x42, on_apic, 0, 0
    SET_GATE 0x43, on_int, 1, 3
    SET_GATE 0x44, on_report, 0, 3
    SET_GATE 14, on_fault, 0, 0
    SET_GATE 6, on_ud, 0, 0
    mov eax, 1
    cpuid
    mov [has], ecx
    mov rax, cr4
    or eax, 1 << 16 | 1 << 7            ; FSGSBASE, PGE
    bt dword [has], 17
    jnc .no_pcid
    or eax, 1 << 17
.no_pcid:
    mov cr4, rax

    ITEM "empty", nop
    ITEM "SWAPGS", swapgs
    ITEM "CLI", cli
    LOOP
    sti
    nop
    cli
    ENDLOOP "STI+NOP+CLI"
    LOOP
    pushfq
    popfq
    ENDLOOP "PUSHF+POPF"
    LOOP
    pushfq
    sti
    nop
    popfq
    ENDLOOP "PUSHF+STI+NOP+POPF"
    ITEM "STAC", stac
    LOOP
    stac
    clac
    ENDLOOP "STAC+CLAC"
    ITEM "RDTSC", rdtsc
    ITEM "INVLPG", invlpg [0x400000]
    LOOP
    mov rax, [0x400000]
    invlpg [0x400000]
    ENDLOOP "load+INVLPG"
    mov eax, SEL_DATA
    LOOP
    mov eax, SEL_DATA
    mov ds, eax
    ENDLOOP "MOV DS"
    LOOP
    xor eax, eax
    mov es, eax
    ENDLOOP "MOV ES, null"
    LOOP
    mov eax, SEL_DATA
    mov ss, eax
    ENDLOOP "MOV SS"
    ITEM "MOV from DS", mov eax, ds
    ITEM "RDGSBASE", rdgsbase rax
    LOOP
    xor eax, eax
    wrgsbase rax
    ENDLOOP "WRGSBASE"
    mov r12d, MSR_FS
    ITEM "RDMSR FS_BASE", rdmsr
    ITEM "WRMSR FS_BASE", wrmsr
    mov r12d, MSR_KGS
    ITEM "WRMSR KERNEL_GS_BASE", wrmsr
    ITEM "MOV from CR3", mov rax, cr3
    mov rbx, cr3
    ITEM "MOV CR3", mov cr3, rbx
    bt dword [has], 17
    jnc .skip_pcid
    LOOP
    mov rax, PML4 + 1
    bts rax, 63
    mov cr3, rax
    mov rax, PML4 + 2
    bts rax, 63
    mov cr3, rax
    ENDLOOP "2 MOV CR3 keep"
    mov rax, PML4
    mov cr3, rax
.skip_pcid:
    LOOP
    mov rax, cr4
    btc rax, 7
    mov cr4, rax
    ENDLOOP "MOV CR4 PGE"
    ITEM "CPUID", cpuid
    LOOP
    mov esi, 0x200000
    mov edi, 0x210000
    mov ecx, 8
    rep movsq
    ENDLOOP "REP MOVSQ 8"
    LOOP
    mov esi, 0x200000
    mov edi, 0x210000
    mov ecx, 512
    rep movsq
    ENDLOOP "REP MOVSQ 512"
    LOOP
    mov edi, 0x210000
    mov ecx, 512
    rep stosq
    ENDLOOP "REP STOSQ 512"
    LOOP
    int 0x40
    ENDLOOP "INT, same level"
    LOOP
    int 0x43
    ENDLOOP "INT, IST"
    LOOP
    ud2
    ENDLOOP "UD2, same level"
    mov rbx, MISSING
    LOOP
    mov al, [rbx]
    ENDLOOP "page fault, same level"
    AT_USER user_loops

    ; xAPIC
    mov dword [r14 + 0xf0], 0x1ff
    LOOP
    mov dword [r14 + 0x0b0], 0
    ENDLOOP "xAPIC EOI"
    LOOP
    mov dword [r14 + 0x300], 0x40042
    sti
    nop
    cli
    ENDLOOP "xAPIC self-IPI"
    bt dword [has], 21
    jnc .no_x2
    mov ecx, 0x1b
    rdmsr
    or eax, 0xc00
    wrmsr
    mov r12d, X2_EOI
    LOOP
    xor eax, eax
    xor edx, edx
    wrmsr
    ENDLOOP "x2APIC EOI"
    mov dword [eoi_x2], 1
    LOOP
    mov ecx, X2_SELF
    mov eax, 0x42
    xor edx, edx
    wrmsr
    sti
    nop
    cli
    ENDLOOP "x2APIC self-IPI"
    LOOP
    mov ecx, X2_SELF
    mov eax, 0x42
    xor edx, edx
    wrmsr
    sti
    hlt
    cli
    ENDLOOP "x2APIC self-IPI, HLT"
    mov ecx, 0x832
    mov eax, 0x40042
    xor edx, edx
    wrmsr
    LOOP
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov rcx, 100000000
    add rax, rcx
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0x6e0
    wrmsr
    ENDLOOP "TSC deadline, later"
    LOOP
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, 1
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0x6e0
    wrmsr
    sti
    nop
    cli
    ENDLOOP "TSC deadline, past, taken"
.no_x2:
    PASS

on_syscall:
    o64 sysret
on_int:
    iretq
on_back:
    mov rsp, [back_sp]
    mov eax, SEL_DATA
    mov ss, eax
    jmp [back]
; rdi: name; ticks since [t0]
on_report:
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, [t0]
    mov [took], rax
    mov rsi, rdi
    call print
    mov rax, [took]
    call print_hex
    mov al, 10
    out 0xe9, al
    iretq
on_fault:
    add rsp, 8
    add qword [rsp], 2
    iretq
on_ud:
    add qword [rsp], 2
    iretq
on_apic:
    cmp dword [eoi_x2], 0
    jne .x2
    mov dword [r14 + 0x0b0], 0
    iretq
.x2:
    push rcx
    push rax
    push rdx
    mov ecx, X2_EOI
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rax
    pop rcx
    iretq

; On a page of its own, as programs and kernels are.
align 4096
user_loops:
    mov r15d, COUNT
    START
.u1:
    syscall
    dec r15d
    jnz .u1
    mov rdi, name_syscall
    int 0x44
    mov r15d, COUNT
    START
.u2:
    int 0x40
    dec r15d
    jnz .u2
    mov rdi, name_int
    int 0x44
    mov rbx, MISSING
    mov r15d, COUNT
    START
.u3:
    mov al, [rbx]
    dec r15d
    jnz .u3
    mov rdi, name_pf
    int 0x44
    int 0x41

align 4096
name_syscall: db "SYSCALL+SYSRET", 0
name_int: db "INT, from user", 0
name_pf: db "page fault, from user", 0
align 8
t0: dq 0
took: dq 0
back: dq 0
back_sp: dq 0
has: dd 0
eoi_x2: dd 0
    ROM_END
