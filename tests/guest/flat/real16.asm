; Real mode: the vector table, segment wrap and limits, 32-bit operands in
; 16-bit code, big real mode, the way to protected mode and back, instructions
; that are undefined here (SDM Vol. 3, chapter 20).
%define MODE 16
%include "common.inc"

SAVED equ 0x7000              ; linear; DS = 0 here
%define CODE_SEG (BASE >> 4)

%macro CHECK16 2
    mov ax, %1
    cmp ax, %2
    je %%ok
    mov cx, %2
    call failed16
%%ok:
%endmacro
; an instruction that must raise vector (saved CS:IP is its own)
%macro FAULT16 2+
    mov word [cs:R16(resume16)], R16(%%after)
    mov [cs:R16(resume_sp16)], sp
    mov byte [cs:R16(vector16)], 0xff
%%insn:
    %2
    call nothing16
%%after:
    mov al, [cs:R16(vector16)]
    xor ah, ah
    CHECK16 ax, %1
    mov ax, [cs:R16(ip16)]
    CHECK16 ax, R16(%%insn)
%endmacro

main:
    mov ax, CODE_SEG
    mov ds, ax
    xor ax, ax
    mov es, ax
    mov ss, ax
    mov sp, 0xf000
    ; vectors 0..1F: to stubs of 5 bytes
    xor di, di
    mov ax, R16(stubs16)
    mov cx, 0x20
.vector:
    stosw
    mov word [es:di], CODE_SEG
    add di, 2
    add ax, 5
    loop .vector

    ; ---- INT, IRET ----
    mov word [es:0x60 * 4], R16(int60)
    mov word [es:0x60 * 4 + 2], CODE_SEG
    mov bp, sp
    push word 0x3246
    popf
    int 0x60
.back:
    pushf
    pop bx
    CHECK16 sp, bp
    and bx, 0x3ed7
    CHECK16 bx, 0x3246                  ; IRET brought all of it back, IOPL too
    CHECK16 [seen], R16(.back)
    CHECK16 [seen + 2], CODE_SEG
    mov bx, [seen + 4]
    and bx, 0x3ed7
    CHECK16 bx, 0x3246
    mov bx, [seen + 6]
    and bx, 0x300
    CHECK16 bx, 0                       ; IF and TF cleared
    push word 2
    popf

    ; ---- faults: no error codes, IP of the instruction ----
    FAULT16 0, div byte [zero16]
    FAULT16 6, ud2
    FAULT16 5, bound ax, [R16(bounds)]
%ifndef PEER_QEMU                       ; QEMU does not look at limits
    mov bx, 0xffff
    FAULT16 13, mov ax, [bx]
    FAULT16 13, mov eax, [bx - 2]
    mov al, [bx]
    mov bp, 0xffff
    FAULT16 12, mov ax, [bp]
    mov ebx, 0x10000
    FAULT16 13, mov al, [ebx]
%endif
    FAULT16 6, lldt ax
    FAULT16 6, str ax
    FAULT16 6, lar ax, ax
    FAULT16 6, verr ax
    FAULT16 13, sysenter
    FAULT16 6, db 0xf0, 0x90            ; LOCK NOP
    ; the stack pointer wraps at 64 KiB between pushes, not within one
    mov dx, sp
    mov sp, 0
    push word 0x55aa
    mov bx, sp
    mov sp, dx
    CHECK16 bx, 0xfffe
    ; 32-bit pushes and far transfers in 16-bit code
    push dword 0x12345678
    pop ax
    pop bx
    CHECK16 ax, 0x5678
    CHECK16 bx, 0x1234
    push dword CODE_SEG
    push dword R16(.far32)
    o32 retf
.far32:
    CHECK16 sp, dx
    call dword CODE_SEG:R16(far_target)
    CHECK16 sp, dx
    ; a 32-bit offset beyond the limit
    push dword CODE_SEG
    push dword 0x10000
%ifndef PEER_QEMU                       ; QEMU does not look at limits
    FAULT16 13, o32 retf
%endif
    add sp, 8
    ; operands of 20 bits and more: FFFF:0010 is 100000H
    mov ax, 0xffff
    mov es, ax
    mov byte [es:0x10], 0x77
    mov al, [es:0x10]
    CHECK16 ax, 0xff77

    ; ---- IDTR's limit: #GP, and its own delivery must be inside ----
    lidt [R16(idtr_small)]
    FAULT16 13, int 0x60
    lidt [R16(idtr_real)]

    ; ---- to protected mode and back, with 4 GiB limits left behind ----
    cli
    o32 lgdt [R16(gdtr)]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp SEL_CODE16:R16(.protected)
.protected:
    mov ax, SEL_DATA                    ; 4 GiB
    mov fs, ax
    mov ax, SEL_DATA16
    mov ds, ax
    mov es, ax
    mov ss, ax
    smsw ax
    mov [seen], ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp CODE_SEG:R16(.real)
.real:
    mov ax, CODE_SEG
    mov ds, ax
    xor ax, ax
    mov ss, ax
    mov es, ax
    CHECK16 [seen], 0x11
    mov dword [dword fs:0x200000], 0xcafe1234
    mov ax, [dword fs:0x200000]
    CHECK16 ax, 0x1234
    mov ax, 0x1000                      ; a load here keeps the limit
    mov fs, ax
    mov ax, [dword fs:0x1f0000]
    CHECK16 ax, 0x1234
    ; ES had 64 KiB
    mov ebx, 0x10000
%ifndef PEER_QEMU                       ; QEMU does not look at limits
    FAULT16 13, mov al, [es:ebx]
%endif

    ; ---- the same often: segments, the stack and its end ----
    mov cx, 100
.hot:
    mov ax, cx
    add ax, 0x5000
    mov es, ax
    mov fs, ax
    mov gs, [R16(high_segment)]
    mov [es:0], cx
    CHECK16 [dword fs:0], cx
    mov bx, gs
    CHECK16 bx, 0xffff
    mov si, sp
    push ecx
    push cx
    push word 0x1234
    push dword 0x56789abc
    pop eax
    CHECK16 ax, 0x9abc
    pop dx
    CHECK16 dx, 0x1234
    pop dx
    CHECK16 dx, cx
    pop edx
    CHECK16 dx, cx
    CHECK16 sp, si
    mov sp, 0
    push cx
    mov bx, sp
    pop dx
    mov di, sp
    mov sp, si
    CHECK16 bx, 0xfffe
    CHECK16 di, 0
    CHECK16 dx, cx
    dec cx
    jnz .hot
%ifndef PEER_QEMU                       ; QEMU does not look at limits
    mov ebx, 0x10000
    FAULT16 13, mov al, [es:ebx]
%endif
    mov ax, 0x1000
    mov fs, ax
    CHECK16 [dword fs:0x1f0000], 0x1234
    xor ax, ax
    mov es, ax

    ; ---- LOADALL of small things: XLAT, LES, string wrap ----
    mov si, 0xffff
    mov ax, 0x2000
    mov es, ax
    mov di, 0xfffe
    mov cx, 4
    xor al, al
    rep stosb                           ; DI wraps
    CHECK16 di, 2
    mov di, 0xffff
%ifndef PEER_QEMU                       ; QEMU does not look at limits
    FAULT16 13, stosw
%endif
    mov ax, CODE_SEG
    les bx, [R16(pointer)]
    CHECK16 bx, 0x1234
    mov bx, es
    CHECK16 bx, 0x5678
    mov si, pass16
    call print16
    mov al, 0
    jmp finish16

int60:
    push ax
    push bp
    mov bp, sp
    mov ax, [ss:bp + 4]
    mov [seen], ax
    mov ax, [ss:bp + 6]
    mov [seen + 2], ax
    mov ax, [ss:bp + 8]
    mov [seen + 4], ax
    pushf
    pop ax
    mov [seen + 6], ax
    pop bp
    pop ax
    iret

far_target:
    o32 retf

stubs16:
%assign vec 0
%rep 0x20
    push byte vec
    jmp strict near fault16
%assign vec vec + 1
%endrep
fault16:
    pop ax
    mov [cs:R16(vector16)], al
    pop ax
    mov [cs:R16(ip16)], ax
    mov sp, [cs:R16(resume_sp16)]
    xor ax, ax
    xchg ax, [cs:R16(resume16)]
    test ax, ax
    jz .unexpected
    jmp ax
.unexpected:
    mov di, [cs:R16(ip16)]
    mov si, unexpected16
    call print16
    jmp print_at16

nothing16:
failed16:
    pop di                              ; where
    mov bx, ax
    mov si, fail16
    call print16
    call hex16
    mov bx, cx
    call hex16
print_at16:
    mov si, at16
    call print16
    mov bx, 1
    call hex16_bare
    mov bx, di
    call hex16
    mov al, 2
finish16:
    push ax
    mov al, 10
    out 0xe9, al
    pop ax
    out 0xf4, al
%ifdef PEER_BOCHS
    push cs
    pop ds
    mov dx, 0x8900
    mov si, R16(shutdown16)
    mov cx, 8
    rep outsb
%endif
    cli
    hlt
    jmp finish16
print16:                                ; at CS:(SI - BASE)
    cs lodsb
    test al, al
    jz .done
    out 0xe9, al
    jmp print16
.done:
    ret
hex16:
    call hex16_bare
    mov al, ' '
    out 0xe9, al
    ret
hex16_bare:
    push cx
    mov cx, 4
.digit:
    rol bx, 4
    mov al, bl
    and al, 15
    cmp al, 10
    jb .number
    add al, 7
.number:
    add al, '0'
    out 0xe9, al
    loop .digit
    pop cx
    ret

pass16 equ $ - rom_begin
    db "PASS", 0
fail16 equ $ - rom_begin
    db "FAIL: got, want: ", 0
at16 equ $ - rom_begin
    db "at ", 0
unexpected16 equ $ - rom_begin
    db "FAIL: unexpected event ", 0
shutdown16: db "Shutdown"
seen equ $ - rom_begin
    times 4 dw 0
zero16 equ $ - rom_begin
    dw 0
bounds: dw 0x7000, 0x7001
pointer: dw 0x1234, 0x5678
resume16: dw 0
resume_sp16: dw 0
vector16: db 0
ip16: dw 0
idtr_real: dw 0x3ff
    dd 0
idtr_small: dw 0x60 * 4 + 2
    dd 0
high_segment: dw 0xffff
ROM_END
