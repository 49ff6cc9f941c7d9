; x87 errors as a PC without CR0.NE reports them: FERR# to IRQ 13, cleared by
; a write to port F0H (SDM Vol. 1, 8.7; Vol. 3, 2.5); #MF with CR0.NE; and the
; 32-bit protected-mode environment image (Vol. 1, 8.1.10). QEMU's machine does
; not wire FERR#, so that part is left out there.
%define MODE 32
%include "common.inc"

PIC1 equ 0x20
PIC2 equ 0xa0

%macro OUTB 2
    mov al, %2
    out %1, al
%endmacro

main:
    ; 8259s at vectors 20H and 28H; only the cascade and IRQ 13 are open.
    OUTB PIC1, 0x11
    OUTB PIC1 + 1, 0x20
    OUTB PIC1 + 1, 4
    OUTB PIC1 + 1, 1
    OUTB PIC2, 0x11
    OUTB PIC2 + 1, 0x28
    OUTB PIC2 + 1, 2
    OUTB PIC2 + 1, 1
    OUTB PIC1 + 1, 0xfb
    OUTB PIC2 + 1, 0xdf
    mov dword [ev_action], 1

%ifndef PEER_QEMU
    ; ---- NE = 0: the interrupt, once, at the next waiting instruction ----
    mov eax, cr0
    and eax, ~(1 << 5 | 1 << 2)         ; NE, EM
    mov cr0, eax
    fninit
    fldcw [unmask_zero_divide]
    mov dword [ev_count], 0
    sti
    fld1
    fldz
    fdivp st1, st0
    nop
    nop
    CHECK [ev_count], 0                 ; pending, but nobody has waited
    fwait
    nop
    nop
    CHECK [ev_count], 1
    CHECK [ev_vec], 0x2d
    cli
    fnclex
    xor al, al
    out 0xf0, al
    OUTB PIC2, 0x20
    OUTB PIC1, 0x20
    sti
    nop
    nop
    CHECK [ev_count], 1
    ; and again
    fninit
    fldcw [unmask_zero_divide]
    fld1
    fldz
    fdivp st1, st0
    fwait
    nop
    nop
    CHECK [ev_count], 2
    cli
    fnclex
    xor al, al
    out 0xf0, al
    OUTB PIC2, 0x20
    OUTB PIC1, 0x20

%endif
    ; ---- NE = 1: #MF on the waiting instruction ----
    mov eax, cr0
    or eax, 1 << 5
    mov cr0, eax
    mov dword [ev_action], 0
    fninit
    fldcw [unmask_zero_divide]
    fld1
    fldz
divide:
    fdivp st1, st0
    FAULT 16, 0, fwait
%ifndef PEER_QEMU                       ; QEMU: constants do not wait
    FAULT 16, 0, fld1                   ; any waiting instruction
%endif
    fnstenv [environment]               ; not this one; it masks everything
    fwait
    mov eax, [environment + 0]
    CHECK_BITS eax, 0x3f, 0x3f & ~4     ; the image has the control word as it was
    CHECK_BITS [environment + 4], 0x80ff, 0x8084 ; B, ES, ZE
    CHECK [environment + 12], divide    ; FIP
    fnclex
    ; the image goes back
    fninit
    mov word [environment + 4], 0x3800  ; TOP 7
    mov word [environment + 8], 0x3fff  ; register 7 in use, the others empty
    fldenv [environment]
    fnstsw ax
    movzx eax, ax
    CHECK_BITS eax, 0x3800, 0x3800
    fnstcw [word_out]
    CHECK_BITS [word_out], 0x3f, 0x3f & ~4

    ; ---- MMX touches the tags: TOP 0, all in use; EMMS empties them ----
    fninit
    movd mm0, eax
    fnstenv [environment]
    CHECK_BITS [environment + 4], 0x3800, 0
    mov eax, [environment + 8]          ; no tag is 11B
    mov ecx, eax
    shr ecx, 1
    and eax, ecx
    and eax, 0x5555
    CHECK eax, 0
    emms
    fnstenv [environment]
    CHECK_BITS [environment + 8], 0xffff, 0xffff
    PASS

unmask_zero_divide: dw 0x37b
align 4
word_out: dd 0
environment: times 7 dd 0
ROM_END
