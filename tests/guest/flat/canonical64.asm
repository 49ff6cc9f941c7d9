; 64-bit mode: accesses to addresses that are not canonical end in #GP(0), or in
; #SS(0) off RSP and RBP (SDM Vol. 1, 3.3.7.1; Vol. 3, 6.15), by loads, stores,
; read-modify-writes, stack and vector instructions off all kinds of bases, with
; nothing changed. Each runs with good addresses first, and every time right
; after its translations were dropped; so an engine that remembers translations
; has none, and must not take an address for one of them. Indirect jumps to such
; addresses, and to the last byte of all.
%define MODE 64
%include "common.inc"

GOOD equ 0x480800             ; among pages of 4 KiB
BAD equ 1 << 62
P equ 0x33                    ; what an index register holds
GP equ 13
SS_ equ 12

; HAMMER vector, base register, what else the address is, instruction
; (a macro's may go on at BACK)
%assign hammers 0
%define BACK back_ %+ hammers
%macro HAMMER 4+
%assign hammers hammers + 1
%push hammer
    mov rax, addresses
    mov [turn], rax
%$again:
    mov rax, [turn]
    mov rax, [rax]
    mov [address], rax
    mov rax, BACK
    mov [GOOD], rax
    mov rax, %$after
    mov [resume], rax
    call set_registers
    lea rax, [rax - (%3)]
    mov [base], rax
    mov rax, cr3
    mov cr3, rax
    mov eax, 0x5a
    mov %2, [base]
    cmp r8, r9
%$insn:
    %4
BACK:
    mov rsp, [resume_sp]
    call went_well
    jmp %$next
%$after:
    call save_registers
    CHECK [ev_vec], %1
    CHECK [ev_err], 0
    mov rax, %$insn
    CHECK [ev_rip], rax
    mov rax, [base]
    CHECK %2_slot, rax
    mov %2_slot, %2_was
    call check_registers
%$next:
    add qword [turn], 8
    mov rax, [turn]
    cmp qword [rax], 0
    jne %$again
%pop
%endmacro

%define slot(n) qword [saved + (n) * 8]
%define rbx_slot slot(0)
%define rdx_slot slot(1)
%define rsi_slot slot(2)
%define rdi_slot slot(3)
%define rbp_slot slot(4)
%define r8_slot slot(5)
%define r9_slot slot(6)
%define r10_slot slot(7)
%define r11_slot slot(8)
%define r12_slot slot(9)
%define r13_slot slot(10)
%define r14_slot slot(11)
%define r15_slot slot(12)
%define rax_slot slot(13)
%define rcx_slot slot(14)
%define rsp_slot slot(15)
%define rbx_was 0x100
%define rdx_was 0x110
%define rsi_was GOOD + 0x100
%define rdi_was GOOD + 0x200
%define rbp_was 0x140
%define r8_was 0x150
%define r9_was 0x160
%define r10_was 0x170
%define r11_was 0x180
%define r12_was 0x190
%define r13_was 0x1a0
%define r14_was 0x1b0
%define r15_was 0x1c0
%define rax_was 0x5a
%define rcx_was P
%define rsp_was 0

%macro HAMMERS 2              ; vector, register
    HAMMER %1, %2, 0, mov rdx, [%2]
    HAMMER %1, %2, 0, mov [%2], dl
    HAMMER %1, %2, 0x7fffff00, mov [%2 + 0x7fffff00], rdx
    HAMMER %1, %2, -5, movzx esi, word [%2 - 5]
    HAMMER %1, %2, 5 + 2 * P, mov r8, [%2 + rcx * 2 + 5]
    HAMMER %1, %2, 0, add qword [%2], 7
    HAMMER %1, %2, 0, lock xadd [%2], r9
    HAMMER %1, %2, 0, adc dword [%2], 0x12345678
    HAMMER %1, %2, 1, push qword [%2 + 1]
    HAMMER %1, %2, 0, GROUP %2
    HAMMER %1, %2, 0, WIDE %2
%endmacro

%macro GROUP 1                ; may share a lookup
    mov r10, [%1]
    mov r11, [%1 + 8]
    mov [%1 + 16], r10d
%endmacro
%macro WIDE 1                 ; the same, and the first access is not the lowest
    movzx r10d, byte [%1]
    mov r11d, [%1 - 24]
    add [%1 - 16], r11d
%endmacro
%macro PUSHES 0
    push r14
    push rbx
    push strict dword 0x77
    pop rdx
    pop r8
    pop r13
%endmacro
%macro CALL_BACK 0
    call BACK
%endmacro
%macro POPS 0
    pop r15
    pop rbx
%endmacro

main:
    mov byte [idt + 12 * 16 + 4], 1 ; on their own stack
    mov byte [idt + 13 * 16 + 4], 1
    mov [resume_sp], rsp

    HAMMERS GP, rbx
    HAMMERS GP, r14           ; no register of the host's in the JIT
    HAMMERS SS_, rbp
    HAMMER GP, r12, 0, mov rdx, [r12]
    HAMMER GP, r13, 0, mov [r13], rdx
    HAMMER GP, rsi, 0, cmp [rsi], rdx
    HAMMER GP, rdi, 0, lock cmpxchg [rdi], rdx
    HAMMER GP, rdx, 0, xchg [rdx], r15
    HAMMER GP, rsi, 0, lock inc byte [rsi]
    HAMMER GP, rdi, 0, rcl word [rdi], 3
    HAMMER GP, rdx, 0, shl dword [rdx], cl
    HAMMER GP, r10, 0, mul qword [r10]
    HAMMER GP, r10, 0, imul rdx, [r10], 77
    HAMMER GP, r11, 0, bts qword [r11], 9
    HAMMER GP, r15, 0, setnz [r15]
    HAMMER GP, r15, 0, cmovnz r14, [r15]
    HAMMER GP, r15, 0, cmovz r14, [r15]
    HAMMER GP, rbx, 0, shrx rdx, [rbx], rsi
    HAMMER GP, rbx, 0, sbb [rbx], r13
    HAMMER GP, rbx, 0, jmp [rbx]
    HAMMER GP, rbx, 0, call [rbx]
    HAMMER GP, rbx, 0, fld qword [rbx]
    HAMMER GP, rbx, 0, movups xmm0, [rbx]
    HAMMER GP, rbx, 0, movsd [rbx], xmm1
    HAMMER SS_, rbp, 0, movdqu [rbp], xmm2
    HAMMER GP, rbx, 0, paddd xmm1, [rbx]
    HAMMER GP, rsi, 0, lodsd
    HAMMER GP, rdi, 0, stosq
    HAMMER GP, rdi, 0, scasd
    HAMMER GP, rdi, 0, rep stosd
    HAMMER GP, rdi, 0, movsb
    HAMMER GP, rsi, 0, movsq
    HAMMER GP, rdi, 0, rep movsb
    HAMMER GP, rsi, 0, rep movsd
    HAMMER GP, rdi, 0, cmpsw
    HAMMER SS_, rbp, 0, leave
    HAMMER SS_, rsp, 0, mov rdx, [rsp]
    HAMMER SS_, rsp, 0, pop rdx
    HAMMER SS_, rsp, 0, POPS
    HAMMER SS_, rsp, -8, push rdx
    HAMMER SS_, rsp, -8, push r14
    HAMMER SS_, rsp, -8, push strict dword 0x1234567
    HAMMER SS_, rsp, -8, push qword [GOOD]
    HAMMER SS_, rsp, -8, PUSHES
    HAMMER SS_, rsp, -8, CALL_BACK
    HAMMER SS_, rsp, 0, ret
    HAMMER SS_, rsp, 0, ret 24
    HAMMER SS_, rsp, 0, jmp [rsp]
    HAMMER SS_, rsp, 0, call [rsp]

    ; ---- jumps ----
%macro JUMP_TO 3+             ; target, vector, jump
%push jump
    mov qword [turn], 40
%$again:
    mov rax, %$well
    mov rdx, %1
    cmp qword [turn], 1
    cmove rax, rdx
    mov [GOOD], rax
    mov rax, %$after
    mov [resume], rax
    mov [resume_sp], rsp
    mov rbx, [GOOD]
    mov rdx, cr3
    mov cr3, rdx
    lea rsp, [rsp - 8]
    mov [rsp], rbx
%$jump:
    %3
    call no_event
%$well:
    mov rsp, [resume_sp]
    dec qword [turn]
    jnz %$again
    call no_event
%$after:
    CHECK [ev_vec], (%2)
%if (%2) == GP
    mov rdx, %$jump
%else
    mov rdx, %1
%endif
    CHECK [ev_rip], rdx
%pop
%endmacro
%macro JUMPS_TO 2
    JUMP_TO %1, %2, jmp rbx
    JUMP_TO %1, %2, call rbx
    JUMP_TO %1, %2, ret
    JUMP_TO %1, %2, jmp [GOOD]
%endmacro
    JUMPS_TO 0x8000000000000001, GP
    JUMPS_TO 0x8000000000000000, GP
    JUMPS_TO 0x4000000000000000, GP
    JUMPS_TO -1, 14
    JUMPS_TO -2, 14
    PASS

; All registers but RAX, which gets the address, and RSP.
set_registers:
    mov ecx, rcx_was
    mov ebx, rbx_was
    mov edx, rdx_was
    mov esi, rsi_was
    mov edi, rdi_was
    mov ebp, rbp_was
    mov r8d, r8_was
    mov r9d, r9_was
    mov r10d, r10_was
    mov r11d, r11_was
    mov r12d, r12_was
    mov r13d, r13_was
    mov r14d, r14_was
    mov r15d, r15_was
    fninit
    mov rax, [address]
    ret

save_registers:
    mov rbx_slot, rbx
    mov rdx_slot, rdx
    mov rsi_slot, rsi
    mov rdi_slot, rdi
    mov rbp_slot, rbp
    mov r8_slot, r8
    mov r9_slot, r9
    mov r10_slot, r10
    mov r11_slot, r11
    mov r12_slot, r12
    mov r13_slot, r13
    mov r14_slot, r14
    mov r15_slot, r15
    mov rax, [ev_rax]
    mov rax_slot, rax
    mov rax, [ev_rcx]
    mov rcx_slot, rax
    mov rax, [ev_rsp]
    cmp rax, [resume_sp]
    jne .is_base
    xor eax, eax
.is_base:
    mov rsp_slot, rax
    ret

check_registers:
    CHECK rbx_slot, rbx_was
    CHECK rdx_slot, rdx_was
    CHECK rsi_slot, rsi_was
    CHECK rdi_slot, rdi_was
    CHECK rbp_slot, rbp_was
    CHECK r8_slot, r8_was
    CHECK r9_slot, r9_was
    CHECK r10_slot, r10_was
    CHECK r11_slot, r11_was
    CHECK r12_slot, r12_was
    CHECK r13_slot, r13_was
    CHECK r14_slot, r14_was
    CHECK r15_slot, r15_was
    CHECK rax_slot, rax_was
    CHECK rcx_slot, rcx_was
    CHECK rsp_slot, rsp_was
    CHECK_BITS [ev_flags], 0x8d5, 0x85 ; of r8 - r9
    cmp qword [address], GOOD
    je near failed
    ret

went_well:
    CHECK [address], GOOD
    mov qword [resume], 0
    ret

align 8
turn: dq 0
address: dq 0
base: dq 0
saved: times 16 dq 0
; Good ones until it is translated, then others in between.
addresses:
    times 40 dq GOOD
%assign n 0
%rep 12
    dq BAD + n, GOOD
%assign n n + 0x15d
%endrep
    dq BAD + 0xf00, BAD + 0xfc0, BAD + 0xff0, BAD + 0xff8, BAD + 0xffc, GOOD, BAD + 0xffe
    dq BAD + 0xfff, BAD + 0x1000, BAD - 1, BAD - 8, GOOD, BAD + 0xff8, BAD, 0

ROM_END
