; 32-bit protected mode: limits and types of segments at use, null segments,
; 16-bit addressing, I/O permission, IOPL, what CPL 3 may not, interrupt gates
; of 16 bits and to inner levels, INT error codes (SDM Vol. 3, chapters 5, 6).
%define MODE 32
%include "common.inc"

S_BYTE equ 0x60               ; data, limit 17H
S_PAGE equ 0x68               ; data, limit 0FFFH by pages: 1 page
S_RO equ 0x70
S_XO equ 0x78                 ; execute-only code
S_RX equ 0x80                 ; readable code
S_DOWN16 equ 0x88             ; expand-down, 16-bit: 101H..FFFFH
S_STACK16 equ 0x90            ; 16-bit stack, base 30000H, 64 KiB
S_NP equ 0x98
S_CODE1 equ 0xa0

main:
    SET_DESC S_BYTE, DESC64(0x30000, 0x17, 0x93, 0x4)
    SET_DESC S_PAGE, DESC64(0x30000, 0, 0x93, 0xc)
    SET_DESC S_RO, DESC64(0, 0xfffff, 0x91, 0xc)
    SET_DESC S_XO, DESC64(0, 0xfffff, 0x99, 0xc)
    SET_DESC S_RX, DESC64(0, 0xfffff, 0x9b, 0xc)
    SET_DESC S_DOWN16, DESC64(0x30000, 0x100, 0x97, 0)
    SET_DESC S_STACK16, DESC64(0x30000, 0xffff, 0x93, 0)
    SET_DESC S_NP, DESC64(0, 0xfffff, 0x13, 0xc)
    SET_DESC S_CODE1, DESC64(0, 0xfffff, 0xbb, 0xc)

%ifndef PEER_QEMU                       ; QEMU does not look at limits and types
    ; ---- limits ----
    mov ax, S_BYTE
    mov fs, ax
    mov eax, [fs:0x14]
    mov ax, [fs:0x16]
    mov al, [fs:0x17]
    FAULT 13, 0, mov eax, [fs:0x15]
    FAULT 13, 0, mov ax, [fs:0x17]
    FAULT 13, 0, mov al, [fs:0x18]
    FAULT 13, 0, mov [fs:0x15], eax
    mov ebx, -1
    FAULT 13, 0, mov al, [fs:ebx]
%ifndef PEER_BOCHS                      ; goes around: SDM Vol. 3, 5.3 lets it
    ; an instruction whose second byte would be behind 4 GiB, often: the ROM ends in 0
    mov edi, 100
.last_byte:
    mov edx, -1
    TRY 13, 0, jmp edx
    CHECK [ev_rip], -1
    dec edi
    jnz .last_byte
%endif
    mov ebx, -1
    FAULT 13, 0, mov eax, [fs:ebx - 2]
    FAULT 13, 0, add dword [fs:0x15], 1
    FAULT 13, 0, cmpxchg8b [fs:0x11]
    movq mm0, [fs:0x10]
    FAULT 13, 0, fild qword [fs:0x11]
    mov ax, S_PAGE
    mov fs, ax
    mov eax, [fs:0xffc]
    FAULT 13, 0, mov eax, [fs:0xffd]
    ; expand-down, 16-bit: limit+1 .. FFFFH
    mov ax, S_DOWN16
    mov fs, ax
    mov al, [fs:0x101]
    mov al, [fs:0xffff]
    FAULT 13, 0, mov al, [fs:0x100]
    FAULT 13, 0, mov ax, [fs:0xffff]
    FAULT 13, 0, mov al, [fs:0x10000]

    ; ---- types ----
    mov ax, S_RO
    mov fs, ax
    mov eax, [fs:main]
    FAULT 13, 0, mov [fs:main], eax
    FAULT 13, 0, xchg [fs:main], eax
    FAULT 13, 0, mov [cs:main], eax     ; code is never written
    mov ax, S_RX
    mov fs, ax
    mov eax, [fs:main]
    FAULT 13, 0, mov [fs:main], eax
    xor eax, eax
    mov fs, ax
    FAULT 13, 0, mov eax, [fs:main]     ; null
    FAULT 13, 0, mov [fs:0], al
    jmp S_XO:.execute_only
.execute_only:
    FAULT 13, 0, mov eax, [cs:main]
    jmp SEL_CODE32:.readable
.readable:
    mov eax, [cs:main]
    ; ES of string instructions, SS of the stack's
    mov ax, S_BYTE
    mov es, ax
    mov edi, 0x15
    FAULT 13, 0, stosd
    CHECK edi, 0x15
    mov ax, SEL_DATA
    mov es, ax
    mov ax, S_BYTE
    mov es, ax
    mov edi, 0x10
    mov ecx, 4
    mov eax, .rep_fault
    mov [resume], eax
    mov [resume_sp], esp
.rep:
    rep stosd                           ; two fit
    call no_event
.rep_fault:
    CHECK [ev_vec], 13
    CHECK edi, 0x18
    CHECK [ev_rcx], 2
    mov eax, .rep
    CHECK [ev_rip], eax
    mov ax, S_BYTE
    mov ss, ax
    mov esp, 4
    push eax                            ; to 0
    CHECK esp, 0
    mov ax, SEL_DATA
    mov ss, ax
    mov esp, STACK0

    ; ---- 16-bit stacks: SP wraps, ESP's upper half stays ----
    mov ax, S_STACK16
    mov ss, ax
    mov esp, 0x12340000
    push dword 0x55667788
    mov ebx, esp
    pop ecx
    mov edx, esp
    mov ax, SEL_DATA
    mov ss, ax
    mov esp, STACK0
    CHECK ebx, 0x1234fffc
    CHECK edx, 0x12340000
    CHECK [0x3fffc], 0x55667788
%endif

    ; ---- I/O: IOPL, then the bitmap ----
    USER 13, 0, user_in
    mov word [tss + 102], 104
    mov dword [tss + 104 + 0x60 / 8], ~2
    USER 6, 0, user_in
    USER 13, 0, user_in16
    mov dword [tss + 104 + 0x60 / 8], ~6
    USER 6, 0, user_in16
    mov dword [user_flags], 0x3002
    mov word [tss + 102], 0x1000
    USER 6, 0, user_in                  ; IOPL 3
    mov dword [user_flags], 2
    ; the byte behind a port's own is read too, and must be inside
    mov word [tss + 102], 0xfff - 0x61 / 8
    USER 13, 0, user_in
    mov word [tss + 102], 0xffe - 0x61 / 8
    USER 6, 0, user_in

    ; ---- IOPL-sensitive and privileged ----
    USER 13, 0, user_cli
    USER 13, 0, user_sti
    USER 13, 0, user_hlt
    USER 13, 0, user_lgdt
    USER 13, 0, user_lmsw
    USER 13, 0, user_invd
    USER 13, 0, user_rdmsr
    USER 13, 0, user_ltr
    USER 6, 0, user_popf                ; silently keeps IF and IOPL
    CHECK_BITS [ev_flags], 0x3200, 0
    mov eax, cr4
    or eax, 4                           ; TSD
    mov cr4, eax
    USER 13, 0, user_rdtsc
    rdtsc
    mov eax, cr4
    and eax, ~4
    mov cr4, eax
    USER 6, 0, user_rdtsc

    ; ---- gates ----
    mov byte [idt + 0x50 * 8 + 5], 0x0e
    FAULT 11, 0x50 * 8 + 2, int 0x50
    mov byte [idt + 0x50 * 8 + 5], 0x8c ; a call gate
    FAULT 13, 0x50 * 8 + 2, int 0x50
    mov byte [idt + 0x50 * 8 + 5], 0x8e
    mov word [idt + 0x50 * 8 + 2], S_CODE1
    FAULT 13, S_CODE1, int 0x50         ; DPL above CPL
    mov word [idt + 0x50 * 8 + 2], S_NP
    FAULT 13, S_NP, int 0x50            ; not code
    mov word [idt + 0x50 * 8 + 2], 0
    FAULT 13, 0, int 0x50
    mov word [idt + 0x50 * 8 + 2], SEL_CODE32
    USER 13, 0x50 * 8 + 2, user_int
    CHECK [ev_rsp], STACK_USER
    mov byte [idt + 0x50 * 8 + 5], 0xee
    USER 0x50, 0, user_int
    CHECK [ev_cs], SEL_UCODE32
    CHECK_BITS [ev_ss], 0xffff, SEL_UDATA
    CHECK [ev_rsp], STACK_USER
    mov eax, user_int.after
    CHECK [ev_rip], eax
    ; trap gates leave IF
    mov dword [user_flags], 0x202
    mov byte [idt + 0x50 * 8 + 5], 0xef
    USER 0x50, 0, user_int
    CHECK_BITS [ev_inflags], 0x200, 0x200
    mov byte [idt + 0x50 * 8 + 5], 0xee
    USER 0x50, 0, user_int
    CHECK_BITS [ev_inflags], 0x200, 0
    mov dword [user_flags], 2
    ; a gate of 16 bits: six bytes, to IP below 64 KiB
    mov dword [0x500], 0x9090f4fa
    mov byte [0x500], 0xe9              ; JMP rel32 to gate16
    mov dword [0x501], A(gate16) - 0x505
    mov word [idt + 0x51 * 8], 0x500
    mov word [idt + 0x51 * 8 + 2], SEL_CODE32
    mov word [idt + 0x51 * 8 + 4], 0x8600
%ifndef PEER_QEMU                       ; QEMU takes all 32 bits
    mov word [idt + 0x51 * 8 + 6], 0xffff ; ignored
%else
    mov word [idt + 0x51 * 8 + 6], 0
%endif
    mov ebp, esp
    int 0x51
.int51:
    CHECK esp, ebp
    mov eax, .int51
    and eax, 0xffff
    CHECK_BITS [seen], 0xffff, eax
    CHECK_BITS [seen + 2], 0xffff, SEL_CODE32
    ; the inner stack of an interrupt: TSS too small, SS0 bad. The #TS itself
    ; comes by a task gate's absence: it would fail the same way, so a ring-1
    ; handler is asked for, while ring 0 is good
    mov word [idt + 0x50 * 8 + 2], S_CODE1
    mov word [tss + 16], 0
    USER 10, 0, user_int
    mov word [tss + 16], SEL_DATA | 1
    USER 10, SEL_DATA, user_int
    mov word [tss + 16], 0x1f9
    USER 10, 0x1f8, user_int
    mov byte [idt + 6 * 8 + 5], 0x8e
    mov word [idt + 6 * 8 + 2], S_CODE1
%ifndef PEER_QEMU                       ; QEMU knows no EXT
    USER 10, 0x1f9, user_ud             ; with EXT
%endif
    mov word [idt + 6 * 8 + 2], SEL_CODE32
    ; ARPL, LSL and VERW
    mov ax, 0x10
    mov bx, 0x23
    arpl ax, bx
    setz cl
    movzx ecx, cl
    CHECK_BITS eax, 0xffff, 0x13
    PASS

gate16:                                 ; IP, CS, FLAGS of 16 bits
    push eax
    mov eax, [esp + 4]
    mov [seen], eax
    ; back without a 16-bit IRET, whose IP cannot reach
    pop eax
    add esp, 6
    jmp main.int51

user_in:
    in al, 0x61
    ud2
user_in16:
    in ax, 0x61
    ud2
user_cli:
    cli
user_sti:
    sti
user_hlt:
    hlt
user_lgdt:
    lgdt [gdtr]
user_lmsw:
    lmsw ax
user_invd:
    invd
user_rdmsr:
    mov ecx, 0x10
    rdmsr
user_ltr:
    ltr ax
user_popf:
    push dword 0x3202
    popfd
user_ud:
    ud2
user_rdtsc:
    rdtsc
    ud2
user_int:
    int 0x50
.after:
    ud2

align 4
seen: dd 0, 0
ROM_END
