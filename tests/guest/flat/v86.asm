; Virtual-8086 mode: entry by IRET, exit by interrupt, sensitive instructions at
; IOPL 0 and 3, the VME redirection bitmap with VIF and VIP, I/O by the TSS's
; bitmap (SDM Vol. 3, chapter 20).
;
; 8086 code runs at V86_SEG (a copy of v86_code); its stack is at STACK_V86.
%define MODE 32
%include "common.inc"

V86_SEG equ 0x3000
STACK_V86 equ 0x3f00          ; in V86_SEG: 33F00H
S_CONF equ 0x60
S_CODE1 equ 0x68
IVT equ 0                     ; linear 0: the 8086's own vectors

; Runs 8086 code at label until an event.
%macro V86 3                  ; vector, error, label
    mov eax, %%after
    mov [resume], eax
    mov [resume_sp], esp
    push dword V86_SEG | 0x40           ; GS
    push dword V86_SEG | 0x30           ; FS
    push dword V86_SEG                  ; DS
    push dword V86_SEG | 0x20           ; ES
    push dword V86_SEG                  ; SS
    push dword STACK_V86
    push dword [v86_flags]
    push dword V86_SEG
    push dword (%3) - v86_code
    iretd
%%after:
    CHECK [ev_vec], %1
    CHECK [ev_err], %2
%endmacro
%macro AT 1                   ; the event's CS:IP
    CHECK [ev_cs], V86_SEG
    CHECK [ev_rip], (%1) - v86_code
%endmacro
%macro MAP_INT 2              ; vector, 1 to the IDT, 0 to the 8086
  %if %2
    or byte [tss + 104 + (%1) / 8], 1 << ((%1) & 7)
  %else
    and byte [tss + 104 + (%1) / 8], ~(1 << ((%1) & 7)) & 0xff
  %endif
%endmacro
IOPL3 equ 0x3000
VM equ 0x20000
VIF equ 0x80000
VIP equ 0x100000

main:
    mov esi, v86_code
    mov edi, V86_SEG << 4
    mov ecx, v86_end - v86_code
    rep movsb
    ; redirection bitmap at 104, I/O bitmap behind it
    mov word [tss + 102], 104 + 32
    mov edi, tss + 104
    mov ecx, 32 + 8192 / 8 + 1
    mov al, 0xff
    rep stosb
    mov edi, idt + 0x40 * 8             ; vectors from 40H: DPL 3
    mov ecx, 0x40
.dpl:
    or byte [edi + 5], 0x60
    add edi, 8
    loop .dpl

    ; ---- entry and exit ----
    mov dword [v86_flags], VM | 2 | IOPL3
    V86 6, 0, v_ud
    AT v_ud.at
    CHECK [ev_ss], V86_SEG
    CHECK [ev_rsp], STACK_V86
%ifndef PEER_QEMU                       ; QEMU does not set RF for faults
    CHECK_BITS [ev_flags], 0xffffffff, VM | 2 | IOPL3 | 0x10000
%endif
    CHECK [ev_frame], STACK_INT - 9 * 4 - 8
    mov ebx, [ev_frame]
    CHECK [ebx + 8 + 20], V86_SEG | 0x20 ; ES DS FS GS above SS:ESP
    CHECK [ebx + 8 + 24], V86_SEG
    CHECK [ebx + 8 + 28], V86_SEG | 0x30
    CHECK [ebx + 8 + 32], V86_SEG | 0x40
    CHECK_BITS [ev_inflags], VM | 0x10300 | 0x4000, 0
    CHECK_BITS [ev_ds], 0xffff, 0       ; data segments are null for the handler
    mov ax, fs
    CHECK_BITS eax, 0xffff, 0
    V86 6, 0, v_segments
    CHECK_BITS [ev_rax], 0xffff, 0xbeef

    ; limits are 64 KiB, wherever the base
%ifndef PEER_QEMU                       ; QEMU does not look at limits
    V86 13, 0, v_limit
    AT v_limit.at
    V86 12, 0, v_limit_ss
    AT v_limit_ss.at
%endif

    ; ---- instructions that are #UD or #GP whatever IOPL is ----
    V86 6, 0, v_lldt
    V86 6, 0, v_lar
    V86 13, 0, v_hlt
    V86 13, 0, v_clts
    V86 13, 0, v_movcr
    V86 13, 0, v_lgdt

    ; ---- IOPL 3: as an 8086 ----
    mov dword [v86_flags], VM | 2 | IOPL3
    V86 6, 0, v_cli
    AT v_cli.at
    CHECK_BITS [ev_flags], 0x200, 0
    V86 6, 0, v_sti
    CHECK_BITS [ev_flags], 0x200, 0x200
    V86 6, 0, v_popf
    CHECK_BITS [ev_flags], 0x7fd7, 0x0246 | IOPL3 ; IOPL stays
    V86 0x45, 0, v_int45                ; through the IDT
    CHECK [ev_rip], v_int45.after - v86_code
    CHECK_BITS [ev_flags], 0x10000, 0
    V86 6, 0, v_iret
    AT v_iret.at
    CHECK_BITS [ev_flags], 0x7fd7, 0x0003 | IOPL3
    mov dword [v86_flags], VM | 2 | IOPL3
    and byte [idt + 0x45 * 8 + 5], 0x9f ; gate of DPL 0
    V86 13, 0x45 * 8 + 2, v_int45
    AT v_int45
    or byte [idt + 0x45 * 8 + 5], 0x60
    mov byte [idt + 3 * 8 + 5], 0xee
    mov byte [idt + 4 * 8 + 5], 0xee
    V86 3, 0, v_int3
    V86 4, 0, v_into

    ; ---- IOPL 0 without VME: everything sensitive is #GP(0) ----
    mov dword [v86_flags], VM | 2
    V86 13, 0, v_cli
    AT v_cli
    V86 13, 0, v_sti
    V86 13, 0, v_pushf
    V86 13, 0, v_popf.at_popf
    V86 13, 0, v_int45
    V86 13, 0, v_iret
    V86 3, 0, v_int3                    ; not IOPL-sensitive
    V86 4, 0, v_into

    ; ---- the handler's code segment ----
    SET_DESC S_CONF, DESC64(0, 0xfffff, 0x9f, 0xc)
    SET_DESC S_CODE1, DESC64(0, 0xfffff, 0xbb, 0xc)
    mov dword [v86_flags], VM | 2 | IOPL3
    mov word [idt + 0x45 * 8 + 2], S_CONF
    V86 13, S_CONF, v_int45
    mov word [idt + 0x45 * 8 + 2], S_CODE1
%ifndef PEER_QEMU                       ; QEMU: looks for the stack of level 1 first
    V86 13, S_CODE1, v_int45            ; only level 0
%endif
    mov word [idt + 0x45 * 8 + 2], SEL_CODE32

    ; ---- I/O: the bitmap, not IOPL ----
    V86 13, 0, v_in
    and byte [tss + 104 + 32 + 0x61 / 8], ~2 & 0xff
    V86 6, 0, v_in
    V86 13, 0, v_in16                   ; 62H is still forbidden
    and byte [tss + 104 + 32 + 0x61 / 8], ~4 & 0xff
    V86 6, 0, v_in16

%ifndef PEER_QEMU                       ; QEMU redirects nothing
    ; ---- VME ----
    mov eax, cr4
    or eax, 1
    mov cr4, eax
    mov word [IVT + 0x45 * 4], v_handler - v86_code
    mov word [IVT + 0x45 * 4 + 2], V86_SEG
    mov word [IVT + 3 * 4], v_bad - v86_code
    mov word [IVT + 3 * 4 + 2], V86_SEG
    mov dword [v86_flags], VM | 2 | IOPL3 | 0x200
    V86 0x45, 0, v_int45                ; bit 1: IDT
    mov dword [v86_flags], VM | 2
    V86 13, 0, v_int45
    MAP_INT 0x45, 0
    mov dword [v86_flags], VM | 2 | IOPL3 | 0x4200
    V86 6, 0, v_int45                   ; its own handler, IOPL 3
    AT v_handler
    CHECK [ev_rsp], STACK_V86 - 6
    CHECK_BITS [(V86_SEG << 4) + STACK_V86 - 6], 0xffff, v_int45.after - v86_code
    CHECK_BITS [(V86_SEG << 4) + STACK_V86 - 4], 0xffff, V86_SEG
    CHECK_BITS [(V86_SEG << 4) + STACK_V86 - 2], 0x7202, 0x7202
    CHECK_BITS [ev_flags], 0x200, 0     ; IF cleared
    mov dword [v86_flags], VM | 2 | VIF | 0x200
    V86 6, 0, v_int45                   ; IOPL 0: VIF in the place of IF
    AT v_handler
    CHECK_BITS [(V86_SEG << 4) + STACK_V86 - 2], 0x3202, 0x3202
    CHECK_BITS [ev_flags], VIF | 0x200, 0x200
    MAP_INT 3, 0
    V86 3, 0, v_int3                    ; INT3 is never redirected
    MAP_INT 4, 0
    V86 4, 0, v_into

    mov dword [v86_flags], VM | 2
    V86 6, 0, v_sti
    CHECK_BITS [ev_flags], VIF | 0x200, VIF
    mov dword [v86_flags], VM | 2 | VIF | 0x200
    V86 6, 0, v_cli
    CHECK_BITS [ev_flags], VIF | 0x200, 0x200
    V86 6, 0, v_pushf
    CHECK_BITS [(V86_SEG << 4) + STACK_V86 - 2], 0x3202, 0x3202
    V86 6, 0, v_popf
    CHECK_BITS [ev_flags], VIF | 0x7fd7, VIF | 0x0246
    V86 6, 0, v_popf.at_popf            ; pops zeros
    CHECK_BITS [ev_flags], VIF | 0x200, 0x200
    mov dword [v86_flags], VM | 2 | VIP
    V86 13, 0, v_sti                    ; an interrupt waits
    AT v_sti
    V86 13, 0, v_popf
    V86 6, 0, v_popf.at_popf
    V86 13, 0, v_iret_if
    AT v_iret_if.at
    mov dword [v86_flags], VM | 2
    V86 6, 0, v_iret
    AT v_iret.at
    V86 6, 0, v_iret_if
    CHECK_BITS [ev_flags], VIF | 0x200, VIF
    V86 13, 0, v_popf_tf                ; TF is the monitor's affair
    V86 13, 0, v_pushfd                 ; 32-bit forms are not virtualized
    V86 13, 0, v_iretd
    mov dword [v86_flags], VM | 2 | VIP | VIF
    V86 13, 0, v_ud                     ; noticed before the first instruction
    AT v_ud
    ; the redirection map has to be inside the TSS
    mov byte [gdt + SEL_TSS + 5], 0x89
    mov word [gdt + SEL_TSS], 104 + 0x45 / 8 - 1
    mov ax, SEL_TSS
    ltr ax
    mov dword [v86_flags], VM | 2 | IOPL3
    V86 13, 0, v_int45

    ; ---- PVI: CLI and STI at CPL 3 of protected mode ----
    mov byte [gdt + SEL_TSS + 5], 0x89
    mov word [gdt + SEL_TSS], 0xfff
    mov ax, SEL_TSS
    ltr ax
    mov eax, cr4
    and eax, ~1
    mov cr4, eax
    USER 13, 0, user_sti
    or eax, 2
    mov eax, cr4
    or eax, 2
    mov cr4, eax
    USER 6, 0, user_sti
    CHECK_BITS [ev_flags], VIF | 0x200, VIF
    mov dword [user_flags], 2 | VIF | 0x200
    USER 6, 0, user_cli
    CHECK_BITS [ev_flags], VIF | 0x200, 0x200
    mov dword [user_flags], 2 | VIP
    USER 13, 0, user_sti
%endif
    PASS

user_sti:
    sti
    ud2
user_cli:
    cli
    ud2

bits 16
align 16
v86_code:
v_ud:
.at:
    ud2
v_bad:
    mov ax, 0xdead
    ud2
v_segments:
    mov ax, 0x1234
    mov es, ax
    mov word [v_word - v86_code], 0xbeef
    mov ax, V86_SEG - 0x1000
    mov fs, ax
    mov si, v_word - v86_code
    mov bx, ds
    mov es, bx
    mov ax, [es:si]
    ud2
v_word: dw 0
v_limit:
    mov bx, 0xffff
.at:
    mov ax, [bx]
    ud2
v_limit_ss:
    mov bp, 0xffff
.at:
    mov ax, [bp]
    ud2
v_lldt:
    lldt ax
    ud2
v_lar:
    lar ax, ax
v_hlt:
    hlt
v_clts:
    clts
v_movcr:
    mov eax, cr0
v_lgdt:
    lgdt [bx]
v_cli:
    cli
.at:
    ud2
v_sti:
    sti
    ud2
v_pushf:
    pushf
    ud2
v_pushfd:
    pushfd
    ud2
v_popf:
    push 0x0246
    popf
    ud2
.at_popf:
    popf
    ud2
v_popf_tf:
    push 0x0102
    popf
    ud2
v_int45:
    int 0x45
.after:
    mov ax, 0xdead
    ud2
v_int3:
    int3
    ud2
v_into:
    mov al, 0x7f
    inc al
    into
    ud2
v_iret:
    push 0x0003
    push cs
    push .at - v86_code
    iret
    hlt
.at:
    ud2
v_iret_if:
    push 0x0203
    push cs
    push .target - v86_code
.at:
    iret
    hlt
.target:
    ud2
v_iretd:
    o32 iret
v_in:
    in al, 0x61
    ud2
v_in16:
    in ax, 0x61
    ud2
v_handler:
    ud2
v86_end:
bits 32

align 4
v86_flags: dd 0
ROM_END
