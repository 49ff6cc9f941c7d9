; NMI and its blocking, interrupt shadows of STI and MOV SS, HLT, double faults,
; which exceptions combine to what, and alignment checks (SDM Vol. 3, 6.7, 6.8,
; table 6-5, 6.15). Interrupts and NMIs come from the local APIC to itself.
%define MODE 64
%include "common.inc"

APIC equ 0xfee00000
SVR equ 0xf0
EOI equ 0xb0
ICR equ 0x300

%macro SEND 1                 ; ICR: to self by destination 0, physical
    mov dword [r15 + 0x310], 0
    mov dword [r15 + ICR], %1
%endmacro
; vector 40H to itself; waits until it is pending in IRR
%macro SEND_40 0
    mov dword [r15 + ICR], 0x40040
%%wait:
    bt dword [r15 + 0x220], 0
    jnc %%wait
%endmacro
%macro SEND_NMI 0
    SEND 0x400
%endmacro
; time for an NMI to arrive, and boundaries to take it at
%macro SETTLE 0
  %rep 16
    nop
    jmp short $ + 2
  %endrep
%endmacro
%macro END_IRQ 0
    mov dword [r15 + EOI], 0
%endmacro

main:
    ; The processor's number is 0; software enable.
    mov r15d, APIC
    mov dword [r15 + SVR], 0x1ff
    xor eax, eax
    mov cr8, rax
    mov qword [ev_action], 1

    ; ---- STI's shadow ----
    SEND_40
    mov qword [ev_count], 0
    sti
    nop
.after_sti:
    nop
    cli
    CHECK [ev_count], 1
    CHECK [ev_vec], 0x40
    mov rax, .after_sti
    CHECK [ev_rip], rax                 ; one instruction was let through
    CHECK_BITS [ev_flags], 0x200, 0x200
    CHECK_BITS [ev_inflags], 0x200, 0
    END_IRQ
    ; STI with IF already set has no shadow to speak of; STI then CLI lets none in
    SEND_40
    mov qword [ev_count], 0
    sti
    cli
    nop
    CHECK [ev_count], 0
    ; POPF and IRET have none
    pushfq
    or dword [rsp], 0x200
    popfq
.after_popf:
    nop
    cli
    CHECK [ev_count], 1
    mov rax, .after_popf
    CHECK [ev_rip], rax
    END_IRQ
    ; MOV SS holds back for one instruction, with IF set
    mov ecx, SEL_DATA
    SEND_40
    mov qword [ev_count], 0
    pushfq
    pop rbx
    or ebx, 0x200
    push rbx
    sti
    mov ss, ecx                         ; in STI's shadow, and makes its own
    nop
.after_ss:
    nop
    cli
    pop rbx
    CHECK [ev_count], 1
    mov rax, .after_ss
%ifndef PEER_QEMU                       ; QEMU: has one shadow for both
    CHECK [ev_rip], rax
%endif
    END_IRQ
    ; CR8 holds back vector 40H
    mov eax, 4
    mov cr8, rax
    SEND_40
    mov qword [ev_count], 0
    sti
    nop
    nop
    CHECK [ev_count], 0
    mov eax, 3
    mov cr8, rax
    nop
    CHECK [ev_count], 1
    cli
    END_IRQ
    xor eax, eax
    mov cr8, rax

    ; ---- HLT: STI; HLT wakes behind the HLT ----
    SEND_40
    mov qword [ev_count], 0
    sti
    hlt
.after_hlt:
    cli
    CHECK [ev_count], 1
    mov rax, .after_hlt
    CHECK [ev_rip], rax
    END_IRQ

    ; an interrupt keeps RF as it is, with TF it comes behind the step's trap
    ; ---- NMI ----
    mov qword [ev_count], 0
    SEND_NMI
    SETTLE
    CHECK [ev_count], 1
    CHECK [ev_vec], 2
    ; in the handler another one waits until IRET
    mov eax, nmi_stub
    mov [idt + 2 * 16], ax
    shr eax, 16
    mov [idt + 2 * 16 + 6], ax
    mov qword [nmi_count], 0
    SEND_NMI
    SETTLE
    CHECK [nmi_count], 2                ; the first sends two: they merge
    CHECK [nmi_depth_max], 1
    ; an IRET that faults unblocks as well
    mov qword [nmi_count], 0
    mov qword [nmi_bad_iret], 1
    mov rax, .bad_iret
    mov [resume], rax
    mov [resume_sp], rsp
    mov qword [ev_action], 0
    SEND_NMI
    SETTLE
    call no_event
.bad_iret:
    CHECK [ev_vec], 13
    mov qword [nmi_bad_iret], 0
    SEND_NMI
    SETTLE
%ifndef PEER_QEMU                       ; QEMU: unblocks by good IRETs only
    CHECK [nmi_count], 2
%endif

    ; ---- what combines to a double fault ----
    ; contributory (#GP) while delivering contributory (#NP, #GP, #TS, #DE)
    mov byte [idt + 13 * 16 + 5], 0x0e  ; #GP's gate is not present: #NP
    mov byte [idt + 8 * 16 + 4], 1      ; #DF on IST1
    mov ax, 0x1f8
    mov [try_ax], ax
    FAULT 8, 0, mov es, ax
    mov byte [idt + 0 * 16 + 5], 0x0e   ; #DE -> #NP: double
    FAULT 8, 0, div ah
    mov byte [idt + 0 * 16 + 5], 0x8e
    ; benign (#UD) then contributory: just the second
    mov byte [idt + 6 * 16 + 5], 0x0e
%ifdef PEER_QEMU                        ; QEMU counts otherwise, without EXT
    FAULT 11, 6 * 16 + 2, ud2
%else
    FAULT 11, 6 * 8 + 3, ud2
%endif
    mov byte [idt + 6 * 16 + 5], 0x8e
    ; INT n is benign
    mov byte [idt + 0x50 * 16 + 5], 0x0e
%ifdef PEER_QEMU
    FAULT 11, 0x50 * 16 + 2, int 0x50
%else
    FAULT 11, 0x50 * 8 + 2, int 0x50
%endif
    ; contributory then #PF: the #PF
    mov byte [idt + 13 * 16 + 5], 0x8e
    mov byte [idt + 13 * 16 + 4], 2     ; #GP on IST2, which is not there
    mov qword [PT2 + 0x20 * 8], 0
    invlpg [0x420000]
    mov qword [tss + 44], 0x420800
    FAULT 14, 2, mov es, ax
    CHECK [ev_cr2], 0x4207f8
    ; #PF then #GP, #PF then #PF: double
    mov byte [idt + 14 * 16 + 4], 2
    FAULT 8, 0, mov bl, [0x420000]
    CHECK [ev_cr2], 0x4207f8            ; CR2 of the second
    mov byte [idt + 14 * 16 + 4], 0
    mov byte [idt + 14 * 16 + 5], 0x0e
    FAULT 8, 0, mov bl, [0x420000]
    CHECK [ev_cr2], 0x420000
    mov byte [idt + 14 * 16 + 5], 0x8e
    ; #GP, then #PF, then #NP (#PF's gate): #PF was first of this pair: double
    mov byte [idt + 14 * 16 + 5], 0x0e
    FAULT 8, 0, mov es, ax
    mov byte [idt + 14 * 16 + 5], 0x8e
    mov byte [idt + 13 * 16 + 4], 0
    ; #DF's error code is 0 and its saved RIP the instruction's (FAULT asks)

%ifndef PEER_QEMU                       ; QEMU has no #AC
    ; ---- #AC ----
    mov rax, cr0
    bts rax, 18
    mov cr0, rax
    mov qword [user_flags], 0x40002
    USER 17, 0, user_unaligned
    mov eax, user_unaligned
    CHECK [ev_rip], rax
    USER 6, 0, user_aligned
    USER 17, 0, user_push
    mov qword [user_flags], 2
    USER 6, 0, user_unaligned
    pushfq
    or dword [rsp], 0x40000
    popfq
    mov rbx, [scratch + 1]              ; CPL 0: never
    pushfq
    and dword [rsp], ~0x40000
    popfq
    ; #GP (canonical) and #PF against #AC: #AC comes before #PF
    mov qword [user_flags], 0x40002
    USER 17, 0, user_unaligned_absent
    mov qword [user_flags], 2
%endif

    ; ---- order of faults of one instruction ----
    ; code fetch limit, #UD of decoding, #NM, #GP, memory
    mov rax, cr0
    bts rax, 3                          ; TS
    mov cr0, rax
    FAULT 7, 0, fld qword [0x420000]    ; #NM before #PF
    FAULT 7, 0, movaps xmm0, [scratch + 1] ; before #GP of alignment
    db 0x0f, 0x06                       ; CLTS
    FAULT 13, 0, movaps xmm0, [0x420001] ; #GP of alignment before #PF
    FAULT 14, 0, movaps xmm0, [0x420000]
    USER 13, 0, user_hlt
    USER 13, 0, user_movcr
    ; an instruction of more than 15 bytes
    mov rax, long_instruction
    mov qword [try_ax], rax
    TRY 13, 0, jmp rax
    CHECK [ev_rip], long_instruction
    FAULT 6, 0, db 0xf0, 0x90           ; LOCK NOP
    FAULT 6, 0, db 0xf0, 0x01, 0xc0     ; LOCK ADD EAX, EAX
    FAULT 0, 0, div dword [zero]
    PASS

nmi_stub:
    push rax
    inc qword [nmi_count]
    inc qword [nmi_depth]
    mov rax, [nmi_depth]
    cmp rax, [nmi_depth_max]
    jbe .no_max
    mov [nmi_depth_max], rax
.no_max:
    cmp qword [nmi_bad_iret], 0
    jne .bad
    cmp qword [nmi_count], 1
    jne .leave
    SEND_NMI
    SETTLE
    SEND_NMI
    SETTLE
    cmp qword [nmi_count], 1
    je .leave
    call no_event
.leave:
    dec qword [nmi_depth]
    pop rax
    iretq
.bad:
    dec qword [nmi_depth]
    mov qword [rsp + 16], 0             ; CS null
    pop rax
    iretq

user_unaligned:
    mov rbx, [scratch + 1]
    ud2
user_aligned:
    mov bx, [scratch + 2]
    mov bl, [scratch + 1]
    mov ebx, [scratch + 4]
    ud2
user_push:
    inc rsp
    push rax
    ud2
user_unaligned_absent:
    mov rbx, [0x420001]
    ud2
user_hlt:
    hlt
user_movcr:
    mov rax, cr0
long_instruction:
    times 15 db 0x66
    nop

align 8
scratch: times 4 dq 0
zero: dd 0, 0
nmi_count: dq 0
nmi_depth: dq 0
nmi_depth_max: dq 0
nmi_bad_iret: dq 0
ROM_END
