; Code without end: more of it is hot than a small code cache holds, so that what
; was translated makes room for what comes, while parts of it go on being called
; and jumped to, and the same places get other code again and again.
; vireo: --jit-cache 1M
%define MODE 64
%include "common.inc"

AREA equ 0x800000             ; functions
TABLE equ 0xa00000            ; where each of them is, for indirect jumps
CELLS equ 0xa80000            ; data they touch
STRIDE equ 128
COUNT equ 1024                ; functions
CHAIN equ 16                  ; of which so many come one after the other
CALLS equ 40                  ; of a chain, one after the other: more than makes it hot
ROUNDS equ 3

; EAX += 1111_1111H, which is patched. RSI: cells. Counts in ECX, by a helper
; that all have in common. Touches memory, so that there is much host code.
template:
    add eax, 0x11111111
    mov edx, [rsi + 64]
    add [rsi + 8], edx
    mov [rsi + 128], rax
    mov r9, [rsi + 72]
    xor [rsi + 256], r9
    add r9d, [rsi + 128]
    mov [rsi + 136], r9d
    mov r9d, eax
    test byte [rsi + 80], 1
.call:
    call template
.jump:
    jmp near template
    times 8 nop
.end:
CALL_AT equ template.call - template
JUMP_AT equ template.jump - template

helper:
    inc ecx
    mov [rsi + 512], ecx
    ret

; R10D: round. Function n adds (round << 20) + n; one in four chains goes through
; the table.
make:
    xor r11d, r11d
.next:
    imul edi, r11d, STRIDE
    add edi, AREA
    mov [TABLE + r11 * 8], rdi
    mov rbx, rdi
    mov esi, template
    mov ecx, template.end - template
    rep movsb
    mov eax, r10d
    shl eax, 20
    add eax, r11d
    mov [rbx + 1], eax
    mov eax, helper
    sub eax, ebx
    sub eax, CALL_AT + 5
    mov [rbx + CALL_AT + 1], eax
    lea eax, [r11 + 1]
    test eax, CHAIN - 1
    jz .last
    test eax, CHAIN
    jz .indirect
    mov dword [rbx + JUMP_AT + 1], STRIDE - JUMP_AT - 5
    jmp .made
.indirect:
    shl eax, 3
    add eax, TABLE
    mov byte [rbx + JUMP_AT], 0xff       ; JMP [TABLE + ..]
    mov word [rbx + JUMP_AT + 1], 0x2524
    mov [rbx + JUMP_AT + 3], eax
    jmp .made
.last:
    mov byte [rbx + JUMP_AT], 0xc3
.made:
    inc r11d
    cmp r11d, COUNT
    jb .next
    ret

; R11D: the chain's first function; R12D: how often it is called.
call_chain:
    imul ebx, r11d, STRIDE
    add ebx, AREA
    ; CHAIN * (round << 20) + CHAIN * first + 0 + 1 + ..
    mov r13d, r10d
    shl r13d, 20
    add r13d, r11d
    imul r13d, CHAIN
    add r13d, CHAIN * (CHAIN - 1) / 2
.next:
    xor eax, eax
    xor ecx, ecx
    mov esi, CELLS
    call rbx
    cmp eax, r13d
    jne .wrong
    cmp ecx, CHAIN
    jne .wrong
    dec r12d
    jnz .next
    ret
.wrong:
    mov eax, eax
    mov ecx, r13d
    call failed

main:
    mov r10d, 1
.round:
    call make
    ; each chain until it is hot
    xor r11d, r11d
.chain:
    mov r12d, CALLS
    call call_chain
    ; and, from time to time, one that was hot before
    mov r14d, r11d
    shr r11d, 1
    and r11d, ~(CHAIN - 1)
    mov r12d, 3
    call call_chain
    mov r11d, r14d
    add r11d, CHAIN
    cmp r11d, COUNT
    jb .chain
    ; all of them, in turns
    mov r15d, 20
.turn:
    xor r11d, r11d
.other:
    mov r12d, 1
    call call_chain
    add r11d, CHAIN
    cmp r11d, COUNT
    jb .other
    dec r15d
    jnz .turn
    inc r10d
    cmp r10d, ROUNDS
    jbe .round
    PASS
ROM_END
