; A boot sector: asks the BIOS for the PS/2 mouse (INT 15H, AX=C2xxH: IBM PS/2
; BIOS Interface Technical Reference) and shows how far it has been moved since,
; right and up, and which buttons are held.

        org 0x7c00
        bits 16

start:
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        cld
        mov ax, 0x0003
        int 0x10
        mov ax, 0xc205          ; initialize: packets of three bytes
        mov bh, 3
        int 0x15
        jc failed
        mov ax, 0xc207          ; the handler is at ES:BX
        mov bx, moved
        int 0x15
        jc failed
        mov ax, 0xc200          ; enable
        mov bh, 1
        int 0x15
        jc failed

show:   mov ah, 2               ; cursor to the first line
        xor bh, bh
        xor dx, dx
        int 0x10
        mov si, text_buttons
        call say
        mov al, [buttons]
        call digit
        mov si, text_x
        call say
        mov ax, [x]
        call word_of
        mov si, text_y
        call say
        mov ax, [y]
        call word_of
        mov cx, 0               ; a look in 20 ms is enough
        mov dx, 20000
        mov ah, 0x86
        int 0x15
        jmp show

failed: mov si, text_failed
        call say
        hlt
        jmp $ - 1

; Called far by the BIOS, with status, X, Y and 0 pushed in this order.
moved:  push bp
        mov bp, sp
        push ax
        push bx
        mov bl, [bp + 12]
        mov al, [bp + 10]
        mov ah, 0
        test bl, 0x10
        jz .right
        mov ah, 0xff
.right: add [cs:x], ax
        mov al, [bp + 8]
        mov ah, 0
        test bl, 0x20
        jz .up
        mov ah, 0xff
.up:    add [cs:y], ax
        and bl, 7
        mov [cs:buttons], bl
        pop bx
        pop ax
        pop bp
        retf

say:    lodsb
        test al, al
        jz .end
        call put
        jmp say
.end:   ret

word_of:
        mov cx, 4
.next:  rol ax, 4
        push ax
        call digit
        pop ax
        loop .next
        ret

digit:  and al, 15
        add al, '0'
        cmp al, '9'
        jbe put
        add al, 'A' - '9' - 1
put:    mov ah, 0x0e
        mov bx, 7
        int 0x10
        ret

text_buttons    db "buttons ", 0
text_x          db " x ", 0
text_y          db " y ", 0
text_failed     db "no mouse", 0
x       dw 0
y       dw 0
buttons db 0

        times 510 - ($ - $$) db 0
        dw 0xaa55
