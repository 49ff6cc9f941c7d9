; Hardware task switching: JMP, CALL and IRET between 32-bit TSSs and a 16-bit
; one, task gates for interrupts and exceptions with error codes, busy bits,
; links, NT, TS, the T bit, faults before and behind the point of no return
; (SDM Vol. 3, chapter 7).
%define MODE 32
%include "common.inc"

S_TSS2 equ 0x60
S_TSS3 equ 0x68               ; 16-bit
S_TGATE equ 0x70              ; task gate to TSS2
S_LDT equ 0x78
S_NPDATA equ 0x80
S_TSS4 equ 0x88               ; of the #TS/#NP handler's task
TSS2 equ 0x3c000
TSS3 equ 0x3b000
TSS4 equ 0x3a000
T_LINK equ 0
T_CR3 equ 0x1c
T_EIP equ 0x20
T_FLAGS equ 0x24
T_EAX equ 0x28
T_ESP equ 0x38
T_ES equ 0x48
T_CS equ 0x4c
T_SS equ 0x50
T_DS equ 0x54
T_FS equ 0x58
T_GS equ 0x5c
T_LDT equ 0x60
T_TRAP equ 0x64

; fills a 32-bit TSS: base, EIP, ESP
%macro FILL 3
    mov edi, %1
    xor eax, eax
    mov ecx, 104 / 4
    rep stosd
    mov dword [%1 + T_EIP], %2
    mov dword [%1 + T_ESP], %3
    mov dword [%1 + T_FLAGS], 2
    mov word [%1 + T_CS], SEL_CODE32
    mov word [%1 + T_SS], SEL_DATA
    mov word [%1 + T_DS], SEL_DATA
    mov word [%1 + T_ES], SEL_DATA
    mov word [%1 + 102], 104
%endmacro
%macro BUSY 2                 ; selector, 1 or 0
    CHECK_BITS [gdt + %1 + 4], 0x200, (%2) * 0x200
%endmacro

main:
    SET_DESC S_TSS2, DESC64(TSS2, 103, 0x89, 0)
    SET_DESC S_TSS3, DESC64(TSS3, 43, 0x81, 0)
    SET_DESC S_TSS4, DESC64(TSS4, 103, 0x89, 0)
    SET_DESC S_TGATE, GATE64(S_TSS2, 0, 0x85, 0)
    SET_DESC S_LDT, DESC64(A(ldt), 15, 0x82, 0)
    SET_DESC S_NPDATA, DESC64(0, 0xfffff, 0x13, 0xc)
    FILL TSS4, handler, STACK_IST

    ; ---- CALL by TSS and IRET back ----
    FILL TSS2, task2, STACK_USER
    mov word [TSS2 + T_LDT], S_LDT
    mov word [TSS2 + T_FS], 0x04        ; from the LDT
    mov dword [TSS2 + T_EAX], 0xcafe
    BUSY SEL_TSS, 1
    mov ebp, 0x12345678
    call S_TSS2:0xdeadbeef
.called:
    CHECK ebp, 0x12345678               ; registers of this task are its own
    CHECK [seen], 0xcafe
    mov eax, .called
    CHECK [tss + T_EIP], eax
    CHECK [tss + 0x3c], ebp
    CHECK [seen + 4], SEL_TSS           ; link
    CHECK_BITS [seen + 8], 0x4000, 0x4000 ; NT in the nested task
    CHECK [seen + 12], S_TSS2           ; TR
    CHECK_BITS [seen + 16], 8, 8        ; CR0.TS
    CHECK [seen + 20], S_LDT
    CHECK [seen + 24], 0x04
    CHECK [seen + 28], 0x202            ; both busy
    CHECK_BITS [TSS2 + T_FLAGS], 0x4000, 0 ; NT left by IRET in the saved image
    mov eax, task2.again
    CHECK [TSS2 + T_EIP], eax
    BUSY SEL_TSS, 1
    BUSY S_TSS2, 0
    pushfd
    pop eax
    CHECK_BITS eax, 0x4000, 0
    str ax
    movzx eax, ax
    CHECK eax, SEL_TSS
    sldt ax
    CHECK_BITS eax, 0xffff, 0
    clts

    ; ---- JMP by a task gate, and back by JMP ----
    FILL TSS2, task2_jump, STACK_USER
    jmp S_TGATE:0
.jumped:
    mov eax, .jumped
    CHECK [tss + T_EIP], eax
    CHECK [seen], 0x200                 ; in task 2: old not busy, new busy
    CHECK_BITS [seen + 4], 0x4000, 0    ; no NT
    BUSY SEL_TSS, 1
    BUSY S_TSS2, 0
    CHECK [TSS2], 0                     ; no link

    ; ---- 16-bit TSS ----
    mov word [TSS3 + 0x0e], task3_entry - rom_begin
    mov word [TSS3 + 0x10], 2
    mov word [TSS3 + 0x12], 0x1234
    mov word [TSS3 + 0x1a], 0xfff0
    mov word [TSS3 + 0x22], SEL_DATA
    mov word [TSS3 + 0x24], SEL_CODE16
    mov word [TSS3 + 0x26], SEL_DATA
    mov word [TSS3 + 0x28], SEL_DATA
    mov ax, SEL_DATA
    mov fs, ax
    call S_TSS3:0
    CHECK_BITS [seen], 0xffff, 0x1234
    CHECK_BITS [seen + 4], 0xffff, 0    ; FS is not in a 16-bit TSS: null
    CHECK_BITS [TSS3], 0xffff, SEL_TSS
    CHECK_BITS [TSS3 + 0x12], 0xffff, 0x5678
    mov ax, fs
    CHECK_BITS eax, 0xffff, SEL_DATA
    mov eax, esp
    CHECK eax, STACK0

    ; ---- interrupts and exceptions through task gates ----
    FILL TSS2, task2_interrupt, STACK_USER
    mov dword [idt + 0x60 * 8], S_TSS2 << 16
    mov dword [idt + 0x60 * 8 + 4], 0x8500
    int 0x60
.int60:
    mov eax, .int60
    CHECK [tss + T_EIP], eax
    CHECK [seen], STACK_USER            ; no error code
    mov eax, [idt + 13 * 8]
    mov [saved_gate], eax
    mov eax, [idt + 13 * 8 + 4]
    mov [saved_gate + 4], eax
    mov dword [idt + 13 * 8], S_TSS2 << 16
    mov dword [idt + 13 * 8 + 4], 0x8500
    FILL TSS2, task2_gp, STACK_USER
    mov ax, 0x1f8
.gp:
    mov ds, ax
    CHECK [seen], STACK_USER - 4
    CHECK [seen + 4], 0x1f8             ; the error code
    mov eax, .gp
    CHECK [seen + 8], eax               ; the fault's EIP was saved
%ifndef PEER_QEMU                       ; QEMU: saves no RF
    CHECK_BITS [seen + 12], 0x10000, 0x10000 ; with RF
%endif
    mov eax, [saved_gate]
    mov [idt + 13 * 8], eax
    mov eax, [saved_gate + 4]
    mov [idt + 13 * 8 + 4], eax
    clts

    ; ---- refused before the switch ----
    FAULT 13, SEL_TSS, jmp SEL_TSS:0    ; busy
    FAULT 13, SEL_TSS, call SEL_TSS:0
    FAULT 13, S_TSS2, jmp S_TSS2 | 1:0  ; RPL above DPL
    and byte [gdt + S_TSS2 + 5], 0x7f
    FAULT 11, S_TSS2, jmp S_TSS2:0
    FAULT 11, S_TSS2, jmp S_TGATE:0
    FAULT 11, S_TSS2, int 0x60
    or byte [gdt + S_TSS2 + 5], 0x80
    mov word [gdt + S_TSS2], 102
    FAULT 10, S_TSS2, jmp S_TSS2:0      ; limit
    mov word [gdt + S_TSS2], 103
    and byte [gdt + S_TGATE + 5], 0x7f
    FAULT 11, S_TGATE, jmp S_TGATE:0
    SET_DESC S_TGATE, GATE64(0x64, 0, 0x85, 0)
%ifndef PEER_QEMU                       ; QEMU: raises #TS
    FAULT 13, 0x64, jmp S_TGATE:0       ; in the LDT
%endif
    SET_DESC S_TGATE, GATE64(SEL_DATA, 0, 0x85, 0)
    FAULT 13, SEL_DATA, jmp S_TGATE:0
    SET_DESC S_TGATE, GATE64(0x1f8, 0, 0x85, 0)
    FAULT 13, 0x1f8, jmp S_TGATE:0
    mov word [tss], S_TSS2
    pushfd
    or dword [esp], 0x4000
    popfd
    FAULT 10, S_TSS2, iretd             ; link to a task that is not busy
    mov word [tss], 0x1f8
    pushfd
    or dword [esp], 0x4000
    popfd
    FAULT 10, 0x1f8, iretd
    pushfd
    pop eax
    CHECK_BITS eax, 0x4000, 0
    str ax
    CHECK_BITS eax, 0xffff, SEL_TSS

    ; ---- faults in the new task's context: #TS, #NP, #SS by a task gate ----
    mov dword [idt + 10 * 8], S_TSS4 << 16
    mov dword [idt + 10 * 8 + 4], 0x8500
    mov dword [idt + 11 * 8], S_TSS4 << 16
    mov dword [idt + 11 * 8 + 4], 0x8500
    mov dword [idt + 12 * 8], S_TSS4 << 16
    mov dword [idt + 12 * 8 + 4], 0x8500
%macro LATE 3                 ; field, selector, error code
    FILL TSS2, never, STACK_USER
    FILL TSS4, handler, STACK_IST
    mov byte [gdt + S_TSS2 + 5], 0x89
    mov byte [gdt + S_TSS4 + 5], 0x89
    mov word [TSS2 + %1], %2
    mov dword [seen + 4], 0
    mov dword [after_late], %%after
    jmp S_TSS2:0
%%after:
    CHECK [seen], %3
    CHECK [seen + 4], S_TSS2            ; the handler's link: the new task
%ifndef PEER_QEMU                       ; QEMU reports an address of the old task
    mov eax, never
    CHECK [TSS2 + T_EIP], eax           ; at its first instruction
%endif
    CHECK_BITS [TSS2 + %1], 0xffff, %2
%endmacro
    LATE T_LDT, SEL_DATA, SEL_DATA
    LATE T_LDT, 0x1f8, 0x1f8
    LATE T_CS, SEL_DATA, SEL_DATA
    LATE T_CS, 0, 0
%ifndef PEER_BOCHS                      ; Bochs looks at SS first, not as table 7-1
    LATE T_CS, SEL_CODE32 | 3, SEL_CODE32 ; though SS does not fit CPL 3 either
%endif
    LATE T_SS, 0, 0
    LATE T_SS, SEL_CODE32, SEL_CODE32
    LATE T_SS, S_NPDATA, S_NPDATA
    LATE T_SS, SEL_DATA | 3, SEL_DATA
    LATE T_DS, SEL_TSS, SEL_TSS
    LATE T_ES, S_NPDATA, S_NPDATA
    LATE T_GS, 0x1f8, 0x1f8
    clts

%ifndef PEER_QEMU                       ; QEMU has no T bit
    ; ---- T: #DB in the new task before its first instruction ----
    FILL TSS2, task2_trap, STACK_USER
    mov byte [gdt + S_TSS2 + 5], 0x89
    mov word [TSS2 + T_TRAP], 1
    mov dword [ev_action], 1
    mov dword [ev_count], 0
    xor eax, eax
    mov dr6, eax
    call S_TSS2:0
    CHECK [ev_count], 1
    CHECK [ev_vec], 1
    CHECK_BITS [ev_dr6], 0xe00f, 0x8000
    mov eax, task2_trap
    CHECK [ev_rip], eax
%endif
    PASS

task2:
    mov [seen], eax
    movzx eax, word [TSS2 + T_LINK]
    mov [seen + 4], eax
    pushfd
    pop dword [seen + 8]
    str eax
    mov [seen + 12], eax
    mov eax, cr0
    mov [seen + 16], eax
    sldt eax
    mov [seen + 20], eax
    mov eax, fs
    mov [seen + 24], eax
    mov eax, [gdt + SEL_TSS + 4]
    and eax, 0x200
    mov [seen + 28], eax
    mov eax, [gdt + S_TSS2 + 4]
    and eax, 0x200
    shr eax, 8
    or [seen + 28], eax
    iretd
.again:
    ud2

task2_jump:
    mov eax, [gdt + S_TSS2 + 4]
    and eax, 0x200
    mov ebx, [gdt + SEL_TSS + 4]
    and ebx, 0x200
    shr ebx, 8
    or eax, ebx
    mov [seen], eax
    pushfd
    pop dword [seen + 4]
    jmp SEL_TSS:0
    ud2

task2_interrupt:
    mov [seen], esp
    iretd
    ud2

task2_gp:
    mov [seen], esp
    pop dword [seen + 4]
    mov eax, [tss + T_EIP]
    mov [seen + 8], eax
    mov eax, [tss + T_FLAGS]
    mov [seen + 12], eax
    mov dword [tss + 0x28], SEL_DATA    ; its EAX: the load is good now
    iretd
    ud2

task2_trap:
    iretd
    ud2

never:
    ud2

handler:                                ; the task that takes #TS, #NP, #SS
    pop dword [seen]
    movzx eax, word [TSS4 + T_LINK]
    mov [seen + 4], eax
    ; back to the first task as if it had called this one
    mov eax, [after_late]
    mov [tss + T_EIP], eax
    jmp SEL_TSS:0

bits 16
task3_entry:
    mov [dword seen], ax
    mov ax, fs
    mov [dword seen + 4], ax
    mov ax, 0x5678
    iret
bits 32

align 8
ldt: DESC 0, 0xfffff, 0x93, 0xc
    DESC 0, 0xfffff, 0x93, 0xc
seen: times 16 dd 0
saved_gate: dd 0, 0
after_late: dd 0
ROM_END
