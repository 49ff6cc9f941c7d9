; Counts its starts in CMOS cell 60H (which a reset keeps), resets through port
; CF9H the first two times, and leaves with debug-exit the third.
%include "multiboot.inc"

CMOS_INDEX equ 0x70
CMOS_DATA equ 0x71
CELL equ 0x60

entry:
    mov esp, 0x200000
    mov esi, text
    call puts
    mov al, CELL
    out CMOS_INDEX, al
    in al, CMOS_DATA
    cmp al, 2
    jae .leave
    inc al
    mov bl, al
    mov al, CELL
    out CMOS_INDEX, al
    mov al, bl
    out CMOS_DATA, al
    mov dx, 0xcf9
    mov al, 0x02
    out dx, al
    mov al, 0x06                        ; hard reset
    out dx, al
.hang:
    hlt
    jmp .hang
.leave:
    mov al, 3
    mov dx, DEBUG_EXIT
    out dx, al
    jmp .hang

text: db "started", 13, 10, 0
