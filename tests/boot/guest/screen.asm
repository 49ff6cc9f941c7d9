; A boot sector that shows one thing after the other through the video BIOS,
; a key between each: tests/boot/test_screen.py says what must be seen.
;
;   text      attributes, box characters, scrolling, cursor       (INT 10H, 13H)
;   40        40 columns
;   04H       CGA's four colours, pixels by INT 10H
;   12H       16 colours: pixels by INT 10H, lines by write mode 2
;   13H       256 colours with a palette of our own
;   101H      VESA, 640 x 480 x 8, through banks of 64 KiB
;   112H      VESA, 640 x 480 x 24, linear, from unreal mode
;   text      again

        bits 16
        org 0x7c00

        cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        sti
        cld
        mov [drive], dl
        mov ah, 0x42                    ; the rest of us, from the disk
        mov si, packet
        mov dl, [drive]
        int 0x13
        jc .failed
        jmp main
.failed:
        mov si, no_disk
        call print
        jmp $

print:                                  ; SI: text ending in 0
        lodsb
        test al, al
        jz .done
        mov ah, 0x0e
        mov bx, 0x0007
        int 0x10
        jmp print
.done:
        ret

key:
        xor ah, ah
        int 0x16
        ret

drive:  db 0
no_disk: db "INT 13H failed", 0
        align 4
packet: db 16, 0
        dw 7                            ; sectors
        dw 0x7e00, 0
        dq 1

        times 510 - ($ - $$) db 0
        dw 0xaa55

mode:                                   ; AL
        xor ah, ah
        int 0x10
        ret

main:
; ---- text ----
        mov ax, 0x0003
        call mode
        mov si, hello
        call print
        mov dx, 0x0305                  ; row 3, column 5: yellow on blue, by AH=09H
        mov ah, 2
        xor bx, bx
        int 0x10
        mov ax, 0x09cd                  ; double line
        mov bx, 0x001e
        mov cx, 20
        int 0x10
        mov ax, 0xb800                  ; and into memory: row 5
        mov es, ax
        mov di, 5 * 160
        mov si, box
        mov ah, 0x4f
.box:
        lodsb
        test al, al
        jz .boxed
        stosw
        jmp .box
.boxed:
        mov ax, 0x0601                  ; rows 6 to 24 up by one, cleared in green
        mov bh, 0x20
        mov cx, 0x0600
        mov dx, 0x184f
        int 0x10
        mov dx, 0x0a0c                  ; the cursor to row 10, column 12
        mov ah, 2
        xor bx, bx
        int 0x10
        call key

; ---- 40 columns ----
        mov ax, 0x0001
        call mode
        mov si, forty
        call print
        call key

; ---- CGA ----
        mov ax, 0x0004
        call mode
        mov cx, 0                       ; x; y = x / 2, colour = x mod 4
.cga:
        mov ax, cx
        and al, 3
        mov ah, 0x0c
        mov dx, cx
        shr dx, 1
        xor bx, bx
        int 0x10
        inc cx
        cmp cx, 320
        jb .cga
        call key

; ---- 16 colours ----
        mov ax, 0x0012
        call mode
        mov cx, 0                       ; a diagonal of all colours
.diagonal:
        mov ax, cx
        and al, 15
        mov ah, 0x0c
        mov dx, cx
        xor bx, bx
        int 0x10
        inc cx
        cmp cx, 480
        jb .diagonal
        mov ax, 0xa000
        mov es, ax
        mov dx, 0x3ce
        mov ax, 0x0205                  ; write mode 2
        out dx, ax
        mov ax, 0x0f08                  ; the right half of each byte
        out dx, ax
        mov di, 0
        mov cx, 480
.line:                                  ; byte 70 of line y: colour y mod 16
        mov al, [es:di + 70]            ; the latch
        mov ax, 480
        sub ax, cx
        mov [es:di + 70], al
        add di, 80
        loop .line
        mov ax, 0x0005
        out dx, ax
        mov ax, 0xff08
        out dx, ax
        call key

; ---- 256 colours ----
        mov ax, 0x0013
        call mode
        call palette
        mov ax, 0xa000
        mov es, ax
        xor di, di
        xor dx, dx
.y13:
        xor cx, cx
.x13:
        mov al, cl
        xor al, dl
        stosb
        inc cx
        cmp cx, 320
        jb .x13
        inc dx
        cmp dx, 200
        jb .y13
        call key

; ---- VESA, banks ----
        mov ax, 0x4f02
        mov bx, 0x0101
        int 0x10
        cmp ax, 0x004f
        jne failed
        call palette
        mov ax, 0xa000
        mov es, ax
        xor si, si                      ; bank: pixel n is n / 256 + n
.bank:
        mov ax, 0x4f05
        xor bx, bx
        mov dx, si
        int 0x10
        xor di, di
.fill:
        mov ax, di
        add al, ah
        stosb
        test di, di
        jnz .fill
        inc si
        cmp si, 5
        jb .bank
        call key

; ---- VESA, linear ----
        push ds
        pop es
        mov ax, 0x4f01
        mov cx, 0x0112
        mov di, 0x9000
        int 0x10
        cmp ax, 0x004f
        jne failed
        mov ax, 0x4f02
        mov bx, 0x4112
        int 0x10
        cmp ax, 0x004f
        jne failed
        cli
        lgdt [gdt_pointer]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        mov bx, 8
        mov fs, bx
        and al, 0xfe
        mov cr0, eax
        mov bx, 0
        mov fs, bx
        sti
        mov edi, [0x9000 + 40]          ; PhysBasePtr
        xor dx, dx
.y24:
        xor cx, cx
        push edi
.x24:                                   ; blue x, green y, red x ^ y
        mov [fs:edi], cl
        mov [fs:edi + 1], dl
        mov al, cl
        xor al, dl
        mov [fs:edi + 2], al
        add edi, 3
        inc cx
        cmp cx, 640
        jb .x24
        pop edi
        movzx eax, word [0x9000 + 16]   ; BytesPerScanLine
        add edi, eax
        inc dx
        cmp dx, 480
        jb .y24
        call key

; ---- and back ----
        mov ax, 0x0003
        call mode
        mov si, done
        call print
        jmp $

failed:
        mov ax, 0x0003
        call mode
        mov si, no_vesa
        call print
        jmp $

palette:                                ; red n / 4, green 63 - n / 4, blue n mod 64
        mov dx, 0x3c8
        xor al, al
        out dx, al
        inc dx
        xor cx, cx
.next:
        mov al, cl
        shr al, 2
        out dx, al
        xor al, 63
        out dx, al
        mov al, cl
        and al, 63
        out dx, al
        inc cl
        jnz .next
        ret

hello:  db "Hello from INT 10H", 13, 10, "second line", 0
forty:  db "forty columns", 0
done:   db "back in text mode", 0
no_vesa: db "VESA failed", 0
box:    db 0xda, 0xc4, 0xc4, 0xbf, " ", 0xb0, 0xb1, 0xb2, 0xdb, 0

        align 8
gdt:    dq 0
        dq 0x00cf92000000ffff
gdt_pointer:
        dw 15
        dd gdt

        times 8 * 512 - ($ - $$) db 0
