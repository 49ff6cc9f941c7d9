; Single step, breakpoints, RF, general detection, ICEBP, and who suppresses or
; delays debug traps (SDM Vol. 3, chapter 18; 6.8.3).
%define MODE 64
%include "common.inc"

DR7_GD equ 1 << 13
WATCHED equ 0x30000

; The handler returns by IRET; how often and where #DB came is in the events.
%macro STEP_ON 0
    mov qword [ev_count], 0
    pushfq
    or dword [rsp], 0x100
    popfq                               ; the trap comes behind the next one
%endmacro
%macro STEP_OFF 0
    pushfq
    and dword [rsp], ~0x100
    popfq
%endmacro
%macro CLEAR_DR6 0
    xor eax, eax
    mov dr6, rax
    mov qword [ev_count], 0
%endmacro
%macro SET_DR7 1
    mov eax, %1
    mov dr7, rax
%endmacro

main:
    mov qword [ev_action], 1

    ; ---- single step ----
    CLEAR_DR6
    STEP_ON
    nop
.step1:
    nop
.step2:
    STEP_OFF                            ; PUSHFQ AND POPFQ: three more
    CHECK [ev_count], 5
    CHECK_BITS [ev_dr6], 0xe00f, 0x4000
    CHECK_BITS [ev_dr6], 0xffff0ff0, 0xffff0ff0
    CHECK_BITS [ev_flags], 0x10100, 0   ; of the POPFQ that cleared TF; no RF
    CHECK_BITS [ev_inflags], 0x100, 0   ; TF off in the handler
    CHECK [ev_err], 0

    ; MOV SS delays: no trap behind it
    CLEAR_DR6
    mov ecx, SEL_DATA
    STEP_ON
    mov ss, ecx
    nop
.after_ss:
    STEP_OFF
    CHECK [ev_count], 4

    ; a faulting instruction has no step; the handler gets TF in its image
    CLEAR_DR6
    mov qword [ev_action], 0
    mov rax, .ud_done
    mov [resume], rax
    mov [resume_sp], rsp
    pushfq
    or dword [rsp], 0x100
    popfq
    ud2
.ud_done:
    CHECK [ev_vec], 6
    CHECK [ev_count], 1
%ifndef PEER_QEMU                       ; QEMU does not set RF for faults
    CHECK_BITS [ev_flags], 0x10100, 0x10100
%endif
    mov qword [ev_action], 1

    ; INT n clears TF: no step in the handler, none behind INT; IRET brings TF
    CLEAR_DR6
    STEP_ON
    int 0x55
    nop
    STEP_OFF
    CHECK [ev_count], 5                 ; INT, NOP, three of STEP_OFF
    CHECK [ev_vec], 1

    ; each iteration of a REP is an instruction to a stepper
    CLEAR_DR6
    mov edi, WATCHED
    mov ecx, 5
    STEP_ON
    rep stosb
.rep_done:
    STEP_OFF
    CHECK [ev_count], 5 + 3

%ifndef PEER_BOCHS                      ; Bochs traps behind SYSCALL
    ; SYSCALL with TF masked: no trap; SYSRET with TF in R11: at once
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 0x18 | (0x28 << 16)
    wrmsr
    mov ecx, 0xc0000082
    mov eax, .syscall
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x100
    wrmsr
    CLEAR_DR6
    mov rcx, user_syscall
    mov r11d, 0x102
    mov [resume_sp], rsp
    mov rsp, STACK_USER
    o64 sysret
.syscall:
    mov rsp, [resume_sp]
    CHECK r11, 0x102
    mov rax, user_syscall.nop
    CHECK [ev_rip], rax
    CHECK [ev_count], 2                 ; SYSRET's own trap, and NOP's

%endif
    ; ---- code breakpoints ----
    CLEAR_DR6
    mov qword [ev_action], 2            ; return with RF
    mov rax, .bp
    mov dr0, rax
    mov dr1, rax
    SET_DR7 0x405                       ; L0, L1
    xor ebx, ebx
.bp:
    inc ebx                             ; once
    SET_DR7 0x400
    CHECK rbx, 1
    CHECK [ev_count], 1
    CHECK_BITS [ev_dr6], 0xe00f, 0x0003
    mov rax, .bp
    CHECK [ev_rip], rax                 ; a fault: before it
    CHECK_BITS [ev_flags], 0x10000, 0   ; pushed without RF
    ; RF is used up by the instruction: the second turn breaks again
    CLEAR_DR6
    mov rax, .loop
    mov dr0, rax
    SET_DR7 0x401
    mov ecx, 3
.loop:
    loop .loop
    SET_DR7 0x400
    CHECK [ev_count], 3
    ; behind MOV SS a code breakpoint is not seen
    CLEAR_DR6
    mov rax, .behind_ss
    mov dr0, rax
    SET_DR7 0x401
    mov ecx, SEL_DATA
    mov ss, ecx
.behind_ss:
    nop
    SET_DR7 0x400
%ifndef PEER_QEMU                       ; QEMU sees it
    CHECK [ev_count], 0
%endif

    ; ---- data breakpoints: traps behind the access ----
    mov qword [ev_action], 1
%macro WATCH 2                ; DR7's R/W and LEN for DR0; address
    mov eax, %2
    mov dr0, rax
    SET_DR7 0x401 | (%1) << 16
    CLEAR_DR6
%endmacro
W1 equ 1
W2 equ 1 | 1 << 2
W4 equ 1 | 3 << 2
W8 equ 1 | 2 << 2
RW4 equ 3 | 3 << 2
    WATCH W4, WATCHED
    mov dword [WATCHED], 1
.w1:
    CHECK [ev_count], 1
    CHECK_BITS [ev_dr6], 0xe00f, 1
    mov rax, .w1
    CHECK [ev_rip], rax
    mov eax, [WATCHED]                  ; reads are not watched
    mov byte [WATCHED + 3], 2
    mov byte [WATCHED + 4], 2           ; beside it
    mov dword [WATCHED - 4], 2
    CHECK [ev_count], 2
    mov qword [WATCHED - 1], 2          ; overlaps
    CHECK [ev_count], 3
    WATCH W2, WATCHED + 2
    mov word [WATCHED], 1
    CHECK [ev_count], 0
    mov dword [WATCHED], 1
    CHECK [ev_count], 1
    WATCH W8, WATCHED + 8
    mov byte [WATCHED + 15], 1
    CHECK [ev_count], 1
    mov byte [WATCHED + 16], 1
    CHECK [ev_count], 1
    WATCH RW4, WATCHED
    mov eax, [WATCHED]
    CHECK [ev_count], 1
    lock xadd [WATCHED], eax
    CHECK [ev_count], 2
    push qword [WATCHED]
    CHECK [ev_count], 3
    pop rax
    mov esi, WATCHED
    mov edi, WATCHED + 0x100
    mov ecx, 2
    rep movsd                           ; the first iteration
%ifndef PEER_QEMU                       ; QEMU traps behind each iteration
    CHECK [ev_count], 4
    mov rax, [ev_rip]
    CHECK_BITS [rax], 0xffff, 0xa5f3    ; at the REP, which goes on
%endif
    mov dword [WATCHED], 0
    ; MOV SS from a watched word: held until the next instruction is done
    mov word [WATCHED], SEL_DATA
    CLEAR_DR6
    mov ss, [WATCHED]
    nop
.held:
    CHECK [ev_count], 1
%ifndef PEER_QEMU                       ; QEMU does not hold it
    mov rax, .held
    CHECK [ev_rip], rax
%endif
    ; with single step: one #DB with both bits
    CLEAR_DR6
    STEP_ON
    mov eax, [WATCHED]
    STEP_OFF
%ifndef PEER_QEMU                       ; QEMU makes two
    CHECK [ev_count], 4
%endif
    SET_DR7 0x400
    ; an access that faults has no breakpoint
    WATCH RW4, WATCHED
    mov qword [ev_action], 0
    mov rax, 0x8000000000000000
    mov [try_ax], rax
    FAULT 13, 0, mov ecx, [rax]
    CHECK [ev_count], 1
    mov qword [ev_action], 1
    SET_DR7 0x400

    ; ---- I/O breakpoints ----
    mov rax, cr4
    or eax, 8                           ; DE
    mov cr4, rax
    mov eax, 0x80
    mov dr2, rax
    SET_DR7 0x400 | 1 << 4 | 2 << 24    ; L2, I/O, one byte
    CLEAR_DR6
    out 0x80, al
.out:
    CHECK [ev_count], 1
    CHECK_BITS [ev_dr6], 0xe00f, 4
    mov rax, .out
    CHECK [ev_rip], rax
    out 0x84, al
    CHECK [ev_count], 1
    SET_DR7 0x400

    ; ---- DR4 and DR5, reserved bits, general detection ----
    mov qword [ev_action], 0
    FAULT 6, 0, mov rax, dr4
    FAULT 6, 0, mov dr5, rax
    mov rax, cr4
    and eax, ~8
    mov cr4, rax
    mov rax, dr4
    mov rbx, dr6
    CHECK rax, rbx
    mov rax, 1 << 32
    mov [try_ax], rax
    FAULT 13, 0, mov dr6, rax
    FAULT 13, 0, mov dr7, rax
    xor eax, eax
    mov dr6, rax
    mov rax, dr6
    CHECK rax, 0xffff0ff0
    mov eax, 0xffffffff
    mov dr6, rax
    mov rax, dr6
%ifndef PEER                            ; QEMU and Bochs keep reserved bits
    CHECK rax, 0xffffefff
%endif
    CLEAR_DR6
    mov eax, DR7_GD | 0x400
    mov dr7, rax
%ifndef PEER_QEMU                       ; QEMU has no GD
    FAULT 1, 0, mov rax, dr0
    CHECK_BITS [ev_dr6], 0xe00f, 0x2000
%ifndef PEER_BOCHS                      ; Bochs pushes no RF here
    CHECK_BITS [ev_flags], 0x10000, 0x10000
%endif
    CHECK_BITS [ev_dr7], DR7_GD, 0      ; cleared for the handler
    mov rax, dr7
    CHECK rax, 0x400
%endif
    USER 13, 0, user_dr

%ifndef PEER_QEMU                       ; QEMU takes INT1 for its debugger's
    ; ---- ICEBP: a trap of its own, DR6 as it was, no look at the gate's DPL ----
    CLEAR_DR6
    TRY 1, 0, int1
    mov rax, dr6
    CHECK_BITS rax, 0xe00f, 0
    USER 1, 0, user_int1
    mov eax, user_int1.after
    CHECK [ev_rip], rax
    mov byte [idt + 16 + 5], 0x0e
    FAULT 11, 1 * 8 + 3, int1           ; EXT: not an INT n
    mov byte [idt + 16 + 5], 0x8e

%endif
%ifndef PEER                            ; QEMU and Bochs sleep on
    ; ---- HLT and single step: the trap ends the halt ----
    CLEAR_DR6
    mov qword [ev_action], 1
    STEP_ON
    hlt
.halted:
    STEP_OFF
    CHECK [ev_count], 4
%endif
    PASS

user_syscall:
    nop
.nop:
    syscall
user_dr:
    mov rax, dr0
user_int1:
    int1
.after:
    ud2
ROM_END
