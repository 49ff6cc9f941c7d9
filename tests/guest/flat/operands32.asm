; Memory operands of two parts that reach beyond what the address size can name:
; an operand is one piece of linear memory, and its second part does not wrap to
; the segment's beginning.
%define MODE 32
%include "common.inc"

LAST equ 0x10000                ; behind the last byte of a 16-bit address

main:
    ; wrong: what lies at address 0
    mov dword [0], 0x11111111
    mov dword [4], 0x11111111

    mov word [LAST - 2], 0x7ff
    mov dword [LAST], idt
    a16 lidt [word LAST - 2]
    sidt [image]
    CHECK [image + 2], idt
    mov dword [LAST], 0x00123456
    a16 lgdt [word LAST - 2]
    sgdt [image]
    lgdt [gdtr]
    CHECK [image + 2], 0x00123456
    a16 sgdt [word LAST - 2]
    CHECK [LAST], gdt

    mov dword [LAST - 4], 0x12345678
    mov word [LAST], SEL_DATA
    a16 les ecx, [word LAST - 4]
    mov [image], ecx
    mov eax, es
    CHECK rA, SEL_DATA
    CHECK [image], 0x12345678
    mov word [LAST - 2], 0x4321
    a16 o16 lfs cx, [word LAST - 2]
    mov eax, fs
    CHECK rA, SEL_DATA

    ; 11 is not in [0, 10]; it is in [0, 11111111H]
    mov dword [LAST - 4], 0
    mov dword [LAST], 10
    mov eax, 11
    mov [try_ax], eax
    TRY 5, 0, a16 bound eax, [word LAST - 4]
    mov eax, 10
    a16 bound eax, [word LAST - 4]

    mov dword [LAST - 4], .jumped
    mov word [LAST], SEL_CODE32
    a16 jmp far [word LAST - 4]
    call no_event
.jumped:
    mov dword [LAST - 4], .called
    a16 call far [word LAST - 4]
    call no_event
.called:
    add esp, 8

    ; The limit holds for all of it: a 64 KiB segment.
    SET_DESC SEL_FREE, DESC64(0, 0xffff, 0x93, 4)
    mov eax, SEL_FREE
    mov gs, eax
    mov [try_ax], eax
    FAULT 13, 0, a16 les ecx, [gs:word LAST - 4]
    FAULT 13, 0, a16 jmp far [gs:word LAST - 4]
    FAULT 13, 0, a16 lidt [gs:word LAST - 2]
    FAULT 13, 0, a16 bound eax, [gs:word LAST - 4]
    PASS

align 8
image: dq 0
ROM_END
