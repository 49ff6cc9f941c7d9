; Code that another processor changes (SDM Vol. 3, 8.1.3): who has seen what the
; other stored behind the code, and has serialized, must execute the new code.
; And both processors enter fresh code that changes itself at the same moment.
; vireo: --cpus 2
; qemu: -smp 2
; bochs: cpus=2
%define MODE 64
%include "common.inc"
%include "smp.inc"

%ifdef PEER
CALLS equ 2000
PAGES equ 500
%else
CALLS equ 4000
PAGES equ 4000
%endif
PATIENCE equ 30000000
CODE equ 0x420000
ALIAS equ 0x430000
FRESH equ 0x1000000           ; PAGES pages
; Functions MOV EAX, imm32; RET with an aligned immediate: CODE + 103H and one
; with its RET in the next page, CODE + FFBH
FN equ CODE + 0x103
FN_END equ CODE + 0xffb

; The other processor changes the function by instructions (the value is in
; EDX), this one calls it, until it has done so often enough.
%macro CROSS 2+
    mov rax, %%change
    mov rbx, %1
    call cross
    jmp %%end
align 64
%%change:
    %2
    ret
%%end:
%endmacro

main:
    mov dword [PT2 + 0x30 * 8], CODE + 7
    mov dword [PT2 + 0x31 * 8], CODE + 0x1000 + 7
    mov rax, cr3
    mov cr3, rax
    START_AP other

    CROSS FN, mov [FN + 1], edx
    CROSS FN, mov [FN + 1 - CODE + ALIAS], edx
    CROSS FN - CODE + ALIAS, mov [FN + 1], edx
    CROSS FN, {xchg [FN + 1], edx}
    CROSS FN, {lock cmpxchg [FN + 1], edx}      ; EAX is the value before
    CROSS FN_END, mov [FN_END + 1], edx
    CROSS FN_END, mov [FN_END + 1 - CODE + ALIAS], edx
    CROSS FN, call by_string
    CROSS FN, call by_vector
    CROSS FN, call by_pages
    CROSS FN, call by_itself                    ; who executes it as well
%ifndef PEER_QEMU                       ; QEMU: an own store is not seen, seldom
    call fresh
%endif
    PASS

by_string:
    mov edi, FN + 1
    mov [temporary], edx
    mov esi, temporary
    movsd
    ret
by_vector:
    movd xmm0, edx
    movd [FN + 1], xmm0
    ret
; by turns in two pages' worth of stores: the page, and one that is no code
by_pages:
    mov [CODE + 0x800], edx
    mov [FN + 1], edx
    mov [CODE + 0x1800], edx
    ret
by_itself:
    mov [FN + 1], edx
    mov ebp, FN
    call rbp
    ret

; RBX: function, RAX: changes it
cross:
    mov byte [rbx], 0xb8
    mov dword [rbx + 1], 0
    mov byte [rbx + 5], 0xc3
    mov [change], rax
    mov qword [stored], 0
    mov qword [enough], 0
    BARRIER
    mov ebp, CALLS
    xor r12d, r12d
.again:
    mov r13d, [stored]
    push rbx
    xor eax, eax
    cpuid                               ; serializes
    pop rbx
    call rbx
    cmp eax, r13d                       ; this one, or newer
    jae .new
    call failed
.new:
    cmp eax, r12d                       ; and never back
    jae .forward
    call failed
.forward:
    mov r12d, eax
    dec ebp
    jnz .again
    mov qword [enough], 1
    BARRIER
    ret

other:
    BARRIER
    xor edx, edx
    mov rbx, [change]
    test rbx, rbx
    jz fresh_other
.again:
    mov eax, edx
    inc edx
    push rdx
    call rbx
    pop rdx
    mov [stored], edx
    mov ecx, 20                         ; gives the caller time to decode
.pause:
    dec ecx
    jnz .pause
    cmp qword [enough], 0
    je .again
    BARRIER
    jmp other

; ---- fresh pages: both write to the page, then run code there that stores into
; the instruction behind. Each must execute what it stored itself. ----
fresh:
    mov edi, FRESH
    mov ebx, PAGES
.page:
    mov rsi, fresh_code
    mov ecx, fresh_code_end - fresh_code
    push rdi
    rep movsb
    pop rdi
    add edi, 0x1000
    dec ebx
    jnz .page
    mov qword [change], 0
    BARRIER
    xor r11d, r11d
    call enter_all
    BARRIER
    ret
fresh_other:
    mov r11d, 64
    call enter_all
    BARRIER
    jmp other

enter_all:
    mov edi, FRESH
    mov ebx, 1
    mov r12d, r11d
    xor r12d, 64
.page:
    test ebx, 255
    jnz .no_barrier
    BARRIER
.no_barrier:
    mov [rdi + 0x800 + r11], ebx        ; a translation for writing
    mov [progress + r11], ebx
.wait:
    cmp [progress + r12], ebx
    jae .go
    dec dword [patience + r11]
    jg .wait
.go:
    mov edx, 0x12345678
    call rdi
    cmp eax, edx
    je .right
    mov rdx, rdi
    call failed
.right:
    add edi, 0x1000
    inc ebx
    cmp ebx, PAGES
    jbe .page
    ret

fresh_code:
    mov [rdi + fresh_imm - fresh_code], edx
    times 4 nop
    mov eax, 0x55555555
fresh_imm equ $ - 4
    ret
fresh_code_end:

align 64
change: dq 0
enough: dq 0
temporary: dq 0
align 64
stored: dq 0
align 64
progress: times 16 dq 0
patience: dd PATIENCE
    times 15 dd 0
    dd PATIENCE
ROM_END
