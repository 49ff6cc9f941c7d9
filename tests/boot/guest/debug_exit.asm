; Says hello and leaves with debug-exit: status (21 << 1) | 1 = 43.
%include "multiboot.inc"

entry:
    mov esp, 0x200000
    mov esi, text
    call puts
    mov al, 21
    mov dx, DEBUG_EXIT
    out dx, al
.hang:
    hlt
    jmp .hang

text: db "about to exit", 13, 10, 0
