; #GP(1234H) at a known instruction, then #NP because its gate is not present,
; which makes a double fault, whose gate is not present either.
%include "multiboot.inc"

entry:
    mov esp, 0x200000
    mov esi, text
    call puts
    lidt [idtr]
    mov ebx, 0xcafe0001
    mov eax, 0x1234
fault:
    mov ds, eax
.hang:
    hlt
    jmp .hang

text: db "about to fault", 13, 10, 0
    align 8
idt:
    times 8 dq 0
    dq 0x00000e0000080000               ; 8: 32-bit interrupt gate, not present
    times 2 dq 0
    dq 0x00000e0000080000               ; 11
    dq 0
    dq 0x00104e0000085678               ; 13: DPL 2, 0008:00105678, not present
idtr:
    dw $ - idt - 1
    dd idt
