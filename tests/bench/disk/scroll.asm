; A boot sector that prints LINES lines through INT 10H AH=0EH, a character at a
; time, on a text screen of 80x25, which scrolls for each but the first of them;
; then it switches the machine off by port F4H.

        org 0x7c00
        bits 16

%ifndef LINES
%define LINES 4000
%endif
COLUMNS equ 60

start:
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        mov ax, 0x0003
        int 0x10
        mov cx, LINES
        jcxz done
line:
        mov dl, COLUMNS
        mov al, cl
        and al, 15
        add al, 'A'
character:
        call put
        dec dl
        jnz character
        mov al, 13
        call put
        mov al, 10
        call put
        loop line
done:
        mov al, 0x10
        out 0xf4, al
        hlt

put:
        push ax
        mov ah, 0x0e
        mov bx, 0x0007
        int 0x10
        pop ax
        ret

        times 510 - ($ - $$) db 0
        dw 0xaa55
