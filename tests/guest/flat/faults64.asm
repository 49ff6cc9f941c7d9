; 64-bit mode: faults of segment loads, far transfers and of delivery itself,
; with their error codes (SDM Vol. 2, MOV JMP CALL INT; Vol. 3, 6.13, 6.14).
%define MODE 64
%include "common.inc"

%ifdef PEER_QEMU              ; QEMU counts IDT entries as 16 bytes in long mode
%define IDT_ERROR(vector) ((vector) * 16 + 2)
%else
%define IDT_ERROR(vector) ((vector) * 8 + 2)
%endif

S_NP equ 0x60                 ; data, not present
S_RO equ 0x68                 ; data, read-only
S_XO equ 0x70                 ; code, execute-only
S_LDT equ 0x78                ; 16 bytes
S_C32 equ 0x88                ; 32-bit code, DPL 0
S_CONF equ 0x90               ; conforming 64-bit code, DPL 0
S_LD equ 0x98                 ; code with L and D
S_CGATE equ 0xa0              ; 16 bytes
S_CNP equ 0xb0                ; 64-bit code, not present
S_D3 equ 0xb8                 ; data, DPL 3
S_BAD equ 0xc0                ; LDT whose base is not canonical, 16 bytes
S_TSSB equ 0xd0               ; 16 bytes, a second TSS

main:
    SET_DESC S_NP, DESC64(0, 0xfffff, 0x13, 0xc)
    SET_DESC S_RO, DESC64(0, 0xfffff, 0x90, 0xc)
    SET_DESC S_XO, DESC64(0, 0xfffff, 0x98, 0xa)
    SET_DESC S_LDT, DESC64(A(ldt), 15, 0x82, 0)
    SET_DESC S_C32, DESC64(0, 0xfffff, 0x9b, 0xc)
    SET_DESC S_CONF, DESC64(0, 0xfffff, 0x9f, 0xa)
    SET_DESC S_LD, DESC64(0, 0xfffff, 0x9b, 0xe)
    SET_DESC S_CNP, DESC64(0, 0xfffff, 0x1b, 0xa)
    SET_DESC S_D3, DESC64(0, 0xfffff, 0xf2, 0xc)
    SET_DESC S_BAD, DESC64(0, 15, 0x82, 0)
    SET_DESC S_BAD + 8, 0x00800000
    SET_DESC S_TSSB, DESC64(0x3c000, 0xfff, 0x89, 0)

    ; ---- around the end of the address space ----
    FAULT 14, 0, mov rbx, [dword -4]    ; page 0 is there, the last one is not
    mov rax, cr2
    CHECK rax, -4
    FAULT 14, 2, mov [dword -1], ebx
    FAULT 14, 0, movups xmm0, [dword -8]

    ; ---- data segments ----
%macro LOAD 4                 ; vector, error, register, selector
    mov word [try_ax], %4
    FAULT %1, %2, mov %3, ax
%endmacro
%macro LOADS 2                ; a good load
    mov ax, %2
    mov %1, ax
    mov ax, %1
    CHECK_BITS rax, 0xffff, %2
%endmacro
    LOAD 13, 0x1f8, ds, 0x1f8           ; beyond the GDT
    LOAD 13, 0x1f8, es, 0x1fb
    LOAD 11, S_NP, ds, S_NP
    LOAD 11, S_NP, fs, S_NP | 0
    LOAD 13, S_XO, gs, S_XO             ; not readable
    LOAD 13, SEL_TSS, ds, SEL_TSS       ; a system segment
    LOAD 13, S_NP, es, S_NP | 3         ; RPL before P
    LOAD 13, SEL_DATA, ds, SEL_DATA | 1
    LOAD 13, 0x0c, ds, 0x0c             ; no LDT: error has TI
    LOADS ds, S_RO
    LOADS ds, S_CONF
    LOADS es, 0
    LOADS ds, 3
    LOADS es, S_D3 | 3
    mov rax, [gdt + S_D3]
    bt rax, 40                          ; accessed now
    mov eax, 0
    setc al
    CHECK rax, 1
    mov rax, [gdt + S_NP]
    bt rax, 40
    LOADS ds, SEL_DATA

    ; ---- SS ----
    LOAD 13, 0x1f8, ss, 0x1f8
    LOAD 13, S_RO, ss, S_RO
    LOAD 13, SEL_CODE64, ss, SEL_CODE64
    LOAD 13, SEL_DATA, ss, SEL_DATA | 3 ; RPL is not CPL
    LOAD 13, S_D3, ss, S_D3             ; DPL is not CPL
    LOAD 12, S_NP, ss, S_NP             ; not present: #SS
%ifndef PEER_QEMU                       ; QEMU takes any null SS at CPL < 3
    LOAD 13, 0, ss, 3                   ; null, RPL is not CPL
%endif
    LOADS ss, 0                         ; null is good at CPL 0
    LOADS ss, SEL_DATA

    ; ---- LLDT, LTR ----
%macro SYSLOAD 4
    mov word [try_ax], %4
    FAULT %1, %2, %3 ax
%endmacro
    SYSLOAD 13, SEL_DATA, lldt, SEL_DATA
    SYSLOAD 13, 0x1f8, lldt, 0x1f8
    SYSLOAD 13, 0x0c, lldt, 0x0c
    SYSLOAD 13, SEL_TSS, lldt, SEL_TSS
%ifndef PEER_QEMU                       ; QEMU: takes any base
    SYSLOAD 13, S_BAD, lldt, S_BAD      ; base not canonical
%endif
    SYSLOAD 13, SEL_TSS, ltr, SEL_TSS   ; busy
%ifndef PEER_QEMU                       ; QEMU: takes a null TR
    SYSLOAD 13, 0, ltr, 0
%endif
    SYSLOAD 13, S_LDT, ltr, S_LDT
    mov byte [gdt + S_LDT + 5], 0x02
    SYSLOAD 11, S_LDT, lldt, S_LDT
    mov byte [gdt + S_LDT + 5], 0x82
    mov byte [gdt + S_LDT + 13], 1      ; upper type not 0
%ifndef PEER_QEMU                       ; QEMU: does not look at LDT's upper type
    SYSLOAD 13, S_LDT, lldt, S_LDT
%endif
    mov byte [gdt + S_LDT + 13], 0
    mov ax, S_LDT
    lldt ax
    LOADS es, 0x04                      ; first of the LDT
    LOAD 13, 0x14, es, 0x14             ; its limit
    LOADS es, SEL_DATA
    mov ax, S_TSSB
    ltr ax
    CHECK_BITS [gdt + S_TSSB], 0xf << 40, 0xb << 40
    mov byte [gdt + SEL_TSS + 5], 0x89
    mov ax, SEL_TSS
    ltr ax
    xor eax, eax
    lldt ax
    LOAD 13, 0x04, es, 0x04

    ; ---- LAR, LSL, VERR, VERW ----
    mov eax, 0x1234
    mov ecx, 0x1f8
    lar eax, ecx
    setz bl
    CHECK_BITS rbx, 0xff, 0
    CHECK rax, rax
    mov ecx, SEL_DATA
    lar eax, ecx
    CHECK_BITS rax, 0xf0ffff, 0xc09300 & 0xf0ffff
    mov ecx, SEL_TSS
    lsl eax, ecx
    CHECK rax, 0xfff
    mov ecx, SEL_DATA
    lsl rax, rcx
    CHECK rax, 0xffffffff
%macro ZF 3                   ; instruction, selector, expected
    mov eax, %2
    %1
    setz al
    movzx eax, al
    CHECK rax, %3
%endmacro
    ZF {verr ax}, SEL_DATA, 1
    ZF {verw ax}, SEL_DATA, 1
    ZF {verw ax}, S_RO, 0
    ZF {verr ax}, S_RO, 1
    ZF {verr ax}, S_XO, 0
    ZF {verr ax}, S_CONF, 1
    ZF {verw ax}, S_CONF, 0
    ZF {verr ax}, SEL_DATA | 3, 0
    ZF {verr ax}, 0, 0
    ZF {verr ax}, S_NP, 1               ; P is not asked
    ZF {verr ax}, SEL_TSS, 0
    ZF {lsl ecx, eax}, S_CGATE, 0
    ZF {lar ecx, eax}, S_LDT, 1

    ; ---- far jumps ----
%macro FARJMP 4               ; vector, error, selector, offset or main for any
    %ifidn %4, main
    mov dword [far_offset], %%main
    %else
    mov dword [far_offset], %4
    %endif
    mov word [far_offset + 4], %3
    FAULT %1, %2, jmp far dword [far_offset]
    jmp %%good
%%main:
    call no_event
%%good:
%endmacro
    FARJMP 13, 0, 0, main
    FARJMP 13, 0, 3, main
    FARJMP 13, 0x1f8, 0x1f8, main
    FARJMP 13, SEL_DATA, SEL_DATA, main
    FARJMP 11, S_CNP, S_CNP, main
%ifndef PEER_QEMU                       ; QEMU: does not look at D with L
    FARJMP 13, S_LD, S_LD, main
%endif
    FARJMP 13, SEL_CODE64, SEL_CODE64 | 1, main
    FARJMP 13, SEL_UCODE64 & ~3, SEL_UCODE64 & ~3, main
    FARJMP 13, SEL_TSS, SEL_TSS, main   ; no tasks in long mode
    FARJMP 13, S_LDT, S_LDT, main
    mov dword [gdt + S_C32], 0x0000000f ; limit 0000FH, byte granular
    mov dword [gdt + S_C32 + 4], 0x00409b00
    FARJMP 13, 0, S_C32, 0x10
    mov rax, 0x800000000000
    mov [far_offset], rax
    mov word [far_offset + 8], SEL_CODE64
%ifndef PEER_QEMU                       ; QEMU: commits CS, then faults at the target
    FAULT 13, 0, jmp far qword [far_offset] ; m16:64
%endif
    mov dword [far_offset], .conf
    mov word [far_offset + 4], S_CONF | 3
    jmp far dword [far_offset]
.conf:
    mov ax, cs
    CHECK_BITS rax, 0xffff, S_CONF      ; RPL became CPL
    FARJMP 13, S_LDT, S_LDT, main

    ; ---- call gates ----
%macro SETGATE 5              ; selector of code, offset, access, upper type, upper offset
    mov rax, GATE64(%1, %2, %3, 0)
    mov [gdt + S_CGATE], rax
    mov dword [gdt + S_CGATE + 8], %5
    mov dword [gdt + S_CGATE + 12], (%4) << 8
%endmacro
    SETGATE SEL_CODE64, A(.never), 0x8c, 0, 0x8000
%ifndef PEER_QEMU                       ; QEMU: commits CS, then faults at the target
    FARJMP 13, 0, S_CGATE, 0            ; target not canonical
%endif
    SETGATE SEL_CODE64, A(.never), 0x8c, 1, 0
    FARJMP 13, S_CGATE, S_CGATE, 0      ; upper type
    SETGATE SEL_CODE64, A(.never), 0x0c, 0, 0
    FARJMP 11, S_CGATE, S_CGATE, 0
    SETGATE SEL_CODE64, A(.never), 0x84, 0, 0
    FARJMP 13, S_CGATE, S_CGATE, 0      ; a 16-bit gate
    SETGATE SEL_CODE64, A(.never), 0x8c, 0, 0
    FARJMP 13, S_CGATE, S_CGATE | 1, 0  ; RPL above DPL
    SETGATE SEL_CODE32, A(.never), 0x8c, 0, 0
    FARJMP 13, SEL_CODE32, S_CGATE, 0   ; not 64-bit code
    SETGATE 0, A(.never), 0x8c, 0, 0
    FARJMP 13, 0, S_CGATE, 0
    SETGATE SEL_UCODE64, A(.never), 0x8c, 0, 0
    FARJMP 13, SEL_UCODE64 & ~3, S_CGATE, 0
    SETGATE S_CNP, A(.never), 0x8c, 0, 0
%ifndef PEER_QEMU                       ; QEMU: raises #GP
    FARJMP 11, S_CNP, S_CGATE, 0
%endif
    SETGATE SEL_CODE64, A(.gate), 0x8c, 0, 0
    jmp far dword [far_offset]
.never:
    call no_event
.gate:
    mov ax, cs
    CHECK_BITS rax, 0xffff, SEL_CODE64

    ; ---- delivery ----
    mov byte [idt + 0x50 * 16 + 5], 0x0e        ; gate not present
    FAULT 11, IDT_ERROR(0x50), int 0x50
    mov byte [idt + 0x50 * 16 + 5], 0x85        ; task gate: not in long mode
    FAULT 13, IDT_ERROR(0x50), int 0x50
    mov byte [idt + 0x50 * 16 + 5], 0x86        ; 16-bit
    FAULT 13, IDT_ERROR(0x50), int 0x50
    mov byte [idt + 0x50 * 16 + 5], 0x8e
    mov word [idt + 0x50 * 16 + 2], SEL_CODE32
    FAULT 13, SEL_CODE32, int 0x50
    mov word [idt + 0x50 * 16 + 2], 0
    FAULT 13, 0, int 0x50
    mov word [idt + 0x50 * 16 + 2], S_CNP
    FAULT 11, S_CNP, int 0x50
    mov word [idt + 0x50 * 16 + 2], SEL_DATA
    FAULT 13, SEL_DATA, int 0x50
    mov word [idt + 0x50 * 16 + 2], 0x1fb
    FAULT 13, 0x1f8, int 0x50
%ifndef PEER_QEMU                       ; QEMU knows no EXT bit
    ; with EXT: the fault's own delivery fails (vector 6 through the same)
    mov word [idt + 6 * 16 + 2], 0x1fb
    FAULT 13, 0x1f9, ud2
    mov word [idt + 6 * 16 + 2], 0
    FAULT 13, 1, ud2
    mov word [idt + 6 * 16 + 2], SEL_CODE64
    mov byte [idt + 6 * 16 + 5], 0x0e
    FAULT 11, 6 * 8 + 3, ud2
    mov byte [idt + 6 * 16 + 5], 0x8e
%endif
    mov word [short_idtr], 0x50 * 16 + 14
    lidt [short_idtr]
    FAULT 13, IDT_ERROR(0x50), int 0x50
    FAULT 13, IDT_ERROR(0x51), int 0x51
    lidt [idtr]
    mov word [idt + 0x50 * 16 + 2], SEL_CODE64
    TRY 0x50, 0, int 0x50
    mov dword [idt + 0x50 * 16 + 8], 0x8000     ; handler not canonical
%ifndef PEER_QEMU                       ; QEMU: commits, then faults at the target
    FAULT 13, 0, int 0x50
%endif
    mov dword [idt + 0x50 * 16 + 8], 0

    ; INT n to a gate of DPL 0 from CPL 3, other vectors by DPL 3
    USER 13, IDT_ERROR(0x50), user_int50
    mov byte [idt + 0x50 * 16 + 5], 0xee
    USER 0x50, 0, user_int50
    mov eax, user_int50.after
    CHECK [ev_rip], rax
    CHECK [ev_cs], SEL_UCODE64
    CHECK [ev_ss], SEL_UDATA
    CHECK [ev_rsp], STACK_USER
    CHECK [ev_frame], STACK_INT - 7 * 8
    USER 3, 0, user_int3b

    ; alignment of the frame, IST, RSP not canonical
    mov rsp, STACK0 - 0x108 + 3
    TRY 0x50, 0, int 0x50
    CHECK [ev_rsp], STACK0 - 0x108 + 3
    CHECK [ev_frame], STACK0 - 0x110 - 7 * 8
    mov rsp, STACK0
    mov byte [idt + 0x50 * 16 + 4], 1
    TRY 0x50, 0, int 0x50
    CHECK [ev_frame], STACK_IST - 7 * 8
    CHECK [ev_ss], SEL_DATA
    mov rax, 0x8000000000000000
    mov [tss + 36], rax
%ifndef PEER_BOCHS                      ; Bochs names the selector of SS
    FAULT 12, 0, int 0x50               ; #SS(0): a software interrupt has no EXT
    mov byte [idt + 0x50 * 16 + 4], 0
    mov byte [idt + 6 * 16 + 4], 1
%ifndef PEER_QEMU                       ; QEMU: knows no EXT bit
    FAULT 12, 1, ud2                    ; but an exception has
%endif
%endif
    mov byte [idt + 6 * 16 + 4], 0
    mov word [gdt + SEL_TSS], 42        ; limit: IST1 is at 36..43
    mov byte [gdt + SEL_TSS + 5], 0x89
    mov ax, SEL_TSS
    ltr ax
    mov byte [idt + 0x50 * 16 + 4], 1
    FAULT 10, SEL_TSS, int 0x50
    PASS

bits 64
user_int50:
    int 0x50
.after:
    ud2
user_int3b:                             ; INT3 by its two-byte form, DPL 0: #GP
    mov byte [idt + 3 * 16 + 5], 0xee
    db 0xcd, 3
    ud2

align 8
far_offset: dq 0, 0
short_idtr: dw 0
    dq idt
ldt:
    DESC 0, 0xfffff, 0x93, 0xc
    DESC 0, 0xfffff, 0x93, 0xc
ROM_END
