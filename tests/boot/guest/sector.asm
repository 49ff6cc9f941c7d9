; A boot sector: reads the disk it came from through INT 13H (the next sectors by
; CHS and far ones by LBA), writes one and reads it again, adds up what came, says
; so through INT 10H (which SeaBIOS repeats on the serial line), and switches the
; machine off by port F4H.
;
; Sectors 1-8 and FAR_LBA.. hold numbers whose sums are known here: the test makes
; the image (tests/boot/test_disk.py).

        org 0x7c00
        bits 16

BUFFER  equ 0x9000
FAR_LBA equ 100000

start:
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        cld
        mov [drive], dl
        mov si, hello
        call say

        mov ax, 0x0208          ; 8 sectors, CHS 0/0/2
        mov cx, 0x0002
        xor dh, dh
        mov dl, [drive]
        mov bx, BUFFER
        int 0x13
        jc failed
        call sum
        cmp ax, [expect_near]
        jne wrong

        mov ah, 0x42            ; 32 sectors by LBA
        call by_lba
        jc failed
        call sum_far
        cmp ax, [expect_far]
        jne wrong

        mov word [BUFFER], 0xbeef
        mov word [packet + 2], 1
        mov ah, 0x43            ; write the first of them
        xor al, al
        call by_lba
        jc failed
        mov word [BUFFER], 0
        mov ah, 0x42
        call by_lba
        jc failed
        cmp word [BUFFER], 0xbeef
        jne wrong
        mov si, fine
        call say
        mov al, 0x10
        jmp leave
wrong:  mov si, bad_sum
        jmp short complain
failed: mov si, bad_read
complain:
        call say
        mov al, 0x20
leave:  sti
        mov cx, 4               ; clock ticks, in which SeaBIOS sends the rest
.tick:  hlt
        loop .tick
        mov dx, 0xf4
        out dx, al
        hlt
        jmp leave

by_lba: mov si, packet
        mov dl, [drive]
        int 0x13
        ret

sum:    mov cx, 8 * 256
        jmp short add_up
sum_far:
        mov cx, 32 * 256
add_up: mov si, BUFFER
        xor bx, bx
.next:  lodsw
        add bx, ax
        loop .next
        mov ax, bx
        ret

say:    lodsb
        test al, al
        jz .done
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        jmp short say
.done:  ret

hello:    db "boot sector", 13, 10, 0
fine:     db "sectors are right", 13, 10, 0
bad_sum:  db "wrong bytes", 13, 10, 0
bad_read: db "INT 13H failed", 13, 10, 0
drive:    db 0
        align 4
packet: db 16, 0
        dw 32, BUFFER, 0
        dd FAR_LBA, 0

        times 506 - ($ - $$) db 0
expect_near: dw 0               ; filled in by the test
expect_far:  dw 0
        dw 0xaa55
