; 32-bit protected mode: call gates of both sizes with parameters, the stacks
; of inner levels from the TSS, far returns to outer levels (SDM Vol. 3, 5.8.3
; to 5.8.6; Vol. 2, CALL and RET).
%define MODE 32
%include "common.inc"

S_GATE equ 0x60
S_GATE16 equ 0x68
S_CONF equ 0x70               ; conforming code, DPL 0
S_SS equ 0x78                 ; what TSS.SS0 is for the test
S_RING1 equ 0x80              ; code, data of DPL 1
S_DATA1 equ 0x88
S_SMALL equ 0x90              ; stack of 16 bytes, DPL 0
S_DOWN equ 0x98               ; expand-down stack
S_CODE16 equ 0xa0             ; 16-bit code, base BASE
S_UCODE equ 0xa8              ; 32-bit code, DPL 3, base BASE

main:
    SET_DESC S_UCODE, DESC64(BASE, 0xffff, 0xfb, 0x4)
    SET_DESC S_GATE, GATE64(SEL_CODE32, A(gate_entry), 0xec, 2)
    SET_DESC S_GATE16, GATE64(SEL_CODE16, A(gate16_entry) - BASE, 0xe4, 3)
    SET_DESC S_CONF, DESC64(0, 0xfffff, 0x9e, 0xc)
    SET_DESC S_SS, DESC64(0, 0xfffff, 0x92, 0xc)
    SET_DESC S_RING1, DESC64(0, 0xfffff, 0xbb, 0xc)
    SET_DESC S_DATA1, DESC64(0, 0xfffff, 0xb3, 0xc)
    SET_DESC S_SMALL, DESC64(0x30000, 15, 0x93, 0x4)
    SET_DESC S_DOWN, DESC64(0x30000, 0xf, 0x97, 0x4)

    ; ---- CPL 3 through the gate and back ----
    USER 6, 0, user_call
    mov eax, user_call.end
    CHECK [ev_rip], eax
    CHECK [ev_rsp], STACK_USER          ; RET 8 took the parameters on both stacks
    CHECK [seen + 0], 0x08              ; CS at CPL 0
    CHECK [seen + 4], STACK_INT - 24    ; ESP in the gate's code
    mov eax, user_call.back
    CHECK [seen + 8], eax
    CHECK [seen + 12], SEL_UCODE32
    CHECK [seen + 16], 0x11111111
    CHECK [seen + 20], 0x22222222
    CHECK [seen + 24], STACK_USER - 8
    CHECK [seen + 28], SEL_UDATA
    CHECK_BITS [seen + 32], 0xffff, SEL_DATA ; SS came from the TSS
    CHECK_BITS [seen + 36], 0xffff, 0   ; DS of DPL 0 was taken away by RET
    CHECK_BITS [seen + 40], 0xffff, SEL_UDATA ; ES not

    ; ---- the same level by a gate: nothing but CS:EIP ----
    mov ebp, esp
    call S_GATE:0
.same:
    mov ecx, esp
    mov esp, ebp
    sub ebp, ecx                        ; RET 8 took 8 bytes that nobody pushed
    CHECK ebp, -8
    mov eax, .same
    CHECK [seen + 8], eax
    CHECK [seen + 12], SEL_CODE32

    ; ---- 16-bit gate from CPL 3 ----
    ; Its frame has 16 bits of EIP and ESP; so the caller's code starts at BASE.
    mov dword [user_cs], S_UCODE | 3
    USER 6, 0, R16(user_call16)
    mov dword [user_cs], SEL_UCODE32
    CHECK [ev_rsp], STACK_USER & 0xffff
    CHECK_BITS [seen], 0xffff, SEL_CODE16
    CHECK_BITS [seen + 8], 0xffff, 0x3333 ; last pushed is the lowest
    CHECK_BITS [seen + 12], 0xffff, 0x1111

    ; ---- conforming code keeps the level ----
    SET_DESC S_GATE, GATE64(S_CONF, A(conf_entry), 0xec, 0)
    USER 6, 0, user_conf
%ifndef PEER_QEMU                       ; QEMU goes to CPL 0 for conforming code
    CHECK_BITS [ev_cs], 0xffff, S_CONF | 3
    CHECK [ev_rsp], STACK_USER - 8
%endif

    ; ---- what forbids the gate ----
    SET_DESC S_GATE, GATE64(SEL_CODE32, A(gate_entry), 0x8c, 2)
    USER 13, S_GATE, user_call          ; DPL 0
    SET_DESC S_GATE, GATE64(SEL_CODE32, A(gate_entry), 0x6c, 2)
    USER 11, S_GATE, user_call          ; not present
    SET_DESC S_GATE, GATE64(SEL_CODE32, A(gate_entry), 0xec, 2)
    CHECK [ev_rsp], STACK_USER - 8      ; nothing was popped or pushed

    ; ---- the inner stack ----
%macro BAD_SS 4               ; vector, error, selector in the TSS, ESP0
    mov word [gate_ss], %3
    mov dword [gate_esp], %4
    USER %1, %2, user_bad_ss
%endmacro
    ; The gate leads to ring 1, so that the fault itself finds a good SS0.
    SET_DESC S_GATE, GATE64(S_RING1, A(ring1_entry), 0xec, 2)
    BAD_SS 10, 0, 0, STACK0
    BAD_SS 10, 0, 1, STACK0
    BAD_SS 10, 0x1f8, 0x1f9, STACK0
    BAD_SS 10, S_DATA1, S_DATA1, STACK0         ; RPL is not the new CPL
    BAD_SS 10, SEL_DATA, SEL_DATA | 1, STACK0   ; DPL is not
    BAD_SS 10, S_RING1, S_RING1 | 1, STACK0     ; code
    and byte [gdt + S_DATA1 + 5], 0x7f
%ifndef PEER_QEMU                       ; QEMU: raises #TS
    BAD_SS 12, S_DATA1, S_DATA1 | 1, STACK0     ; not present
%endif
    or byte [gdt + S_DATA1 + 5], 0x80
    SET_DESC S_DATA1, DESC64(0x30000, 23, 0xb3, 0x4)
    mov dword [0x30000 + 0], 0x55aa55aa
%ifndef PEER_QEMU                       ; QEMU: does not look at stack limits
    BAD_SS 12, S_DATA1, S_DATA1 | 1, 20         ; too small: #SS(new SS)
%endif
%ifndef PEER_BOCHS                      ; Bochs writes what still fits
    CHECK [0x30000], 0x55aa55aa                 ; and nothing written
%endif
    SET_DESC S_DATA1, DESC64(0, 0xfffff, 0xb3, 0xc)
    mov word [tss + 8 + 2], 0
    mov byte [gdt + SEL_TSS + 5], 0x89
    mov word [gdt + SEL_TSS], 16                ; ESP1 is at 12..17
    mov ax, SEL_TSS
    ltr ax
    BAD_SS 10, SEL_TSS, S_DATA1 | 1, STACK0
    mov byte [gdt + SEL_TSS + 5], 0x89
    mov word [gdt + SEL_TSS], 0xfff
    ltr ax

    ; ---- ring 1 runs, and an interrupt goes on to ring 0 ----
    BAD_SS 6, 0, S_DATA1 | 1, STACK_IST
    CHECK_BITS [ev_cs], 0xffff, S_RING1 | 1
    CHECK_BITS [ev_ss], 0xffff, S_DATA1 | 1
    CHECK [ev_rsp], STACK_IST - 24

    ; ---- stack limits of the running level ----
    mov ax, S_SMALL
    mov ss, ax
    mov esp, 16
    mov dword [0x30000], 0x12345678
    push dword 1
    push dword 2
    push dword 3
    push dword 4
    CHECK esp, 0
    mov ax, SEL_DATA
    mov ss, ax
    mov esp, STACK0
    CHECK [0x30000], 4
%ifndef PEER_QEMU                       ; QEMU does not look at limits of data
    ; expand-down: 0..15 is outside
    mov ax, S_DOWN
    mov fs, ax
    FAULT 13, 0, mov eax, [fs:0xf]
    FAULT 13, 0, mov eax, [fs:0xc]
    mov eax, [fs:0x10]
    FAULT 13, 0, mov eax, [fs:0xfffffffe]       ; above 4 GiB
%endif

    ; ---- RETF's checks ----
%macro RETFS 5                ; vector, error, CS, EIP, operand
    mov dword [new_cs], %3
    mov dword [new_eip], %4
    mov esp, STACK0 - 64
    push dword SEL_UDATA
    push dword STACK_USER
    push dword [new_cs]
    push dword [new_eip]
    FAULT %1, %2, retf %5
    CHECK esp, STACK0 - 80
    mov esp, STACK0
%endmacro
    RETFS 13, 0, 0, main, 0
    RETFS 13, 0, 3, main, 0
    RETFS 13, SEL_DATA, SEL_DATA, main, 0
    RETFS 13, 0x1f8, 0x1f8, main, 0
    RETFS 13, SEL_UCODE32 & ~3, SEL_UCODE32 & ~3, main, 0 ; DPL above RPL
    RETFS 13, SEL_CODE32, SEL_CODE32 | 3, main, 0         ; DPL below RPL
    RETFS 13, 0, SEL_UCODE32, main, 0x2000                ; SS from zeros behind
    PASS

user_call:
    mov ax, SEL_UDATA
    mov es, ax
    push dword 0x22222222
    push dword 0x11111111
    call S_GATE:0xdeadbeef
.back:
    mov [es:seen + 36], ds
    mov [es:seen + 40], es
.end:
    ud2

; copies its stack frame, CS, ESP and SS to seen
gate_entry:
    push ds
    push eax
    mov ax, SEL_DATA
    mov ds, ax
    mov [seen], cs
    lea eax, [esp + 8]
    mov [seen + 4], eax
%assign n 0
%rep 6
    mov eax, [esp + 8 + n * 4]
    mov [seen + 8 + n * 4], eax
%assign n n + 1
%endrep
    mov [seen + 32], ss
    pop eax
    add esp, 4                          ; DS stays SEL_DATA
    retf 8

user_call16:
    sub esp, 4
    push word 0x1111
    push word 0x2222
    push word 0x3333
    call S_GATE16:0
    add esp, 4
    ud2

ring1_entry:
    ud2

user_conf:
    call S_GATE:0
    ud2
conf_entry:
    ud2

user_bad_ss:
    push dword 0x22222222
    push dword 0x11111111
    mov eax, [gate_esp]
    mov [tss + 12], eax
    mov ax, [gate_ss]
    mov [tss + 16], ax
    call S_GATE:0
    ud2

bits 16
gate16_entry:                           ; CS:IP 2, CS 2, three words, SP, SS
    push ds
    push ax
    mov ax, SEL_DATA
    mov ds, ax
    mov [dword seen], cs
    mov ax, [dword esp + 8]
    mov [dword seen + 8], ax
    mov ax, [dword esp + 12]
    mov [dword seen + 12], ax
    pop ax
    pop ds
    o16 retf 6
bits 32

align 4
seen: times 16 dd 0
new_cs: dd 0
new_eip: dd 0
gate_ss: dd 0
gate_esp: dd 0
ROM_END
