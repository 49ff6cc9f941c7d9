; Self-modifying code: behind and in front of RIP, in the running block, across
; pages, through another linear address, by string instructions, by the page
; tables (SDM Vol. 3, 8.1.3: without a jump in between, by this processor).
%define MODE 64
%include "common.inc"

CODE equ 0x410000             ; a page of its own
ALIAS equ 0x480000            ; the same page again
OTHER equ 0x411000

main:
    mov eax, CODE | 7
    mov [PT2 + 0x80 * 8], rax
    invlpg [ALIAS]

    ; ---- a routine is rewritten between calls ----
    mov byte [CODE], 0xb8               ; MOV EAX, imm32; RET
    mov dword [CODE + 1], 1
    mov byte [CODE + 5], 0xc3
    mov ebx, CODE
    call rbx
    CHECK rax, 1
    mov dword [CODE + 1], 2
    call rbx
    CHECK rax, 2
    mov byte [ALIAS + 1], 3             ; through another address
    call rbx
    CHECK rax, 3
    mov esi, new_routine
    mov edi, CODE
    mov ecx, 6
    rep movsb
    call rbx
    CHECK rax, 4
    mov eax, 0x90909090                 ; REP STOS over it: NOPs, then RET
    mov edi, CODE
    mov ecx, 4
    rep stosd
    mov byte [CODE + 16], 0xc3
    mov eax, 5
    call rbx
    CHECK rax, 5
    lock xor byte [CODE + 16], 0xc3 ^ 0x90
    mov byte [CODE + 17], 0xc3
    call rbx
    CHECK rax, 5
    ; the same bytes written again, many times
    mov ecx, 1000
.again:
    mov byte [CODE + 17], 0xc3
    call rbx
    dec ecx
    jnz .again

    ; ---- the next instruction, in the same block ----
    mov ecx, 3
    xor edx, edx
.loop:
    mov byte [.patched + 2], 1          ; ADD EDX, imm8
    nop
.patched:
    add edx, 0
    mov byte [.patched2 + 2], 0x10
.patched2:
    add edx, 0
    mov byte [.patched + 2], 0
    mov byte [.patched2 + 2], 0
    dec ecx
    jnz .loop
    CHECK rdx, 0x33
    ; a store that makes the very next instruction another one
    xor edx, edx
    mov word [.turned], 0xc2ff          ; INC EDX
.turned:
    ud2
    CHECK rdx, 1
    ; REP STOS over the instructions behind it
    mov edi, .filled
    mov ecx, 4
    mov al, 0x90
    rep stosb
.filled:
    ud2
    ud2
    ; PUSH onto the code
    mov rbp, rsp
    mov rsp, .pushed + 8
    mov rax, 0x9090909090909090
    push rax
.pushed:
    ud2
    ud2
    ud2
    ud2
    mov rsp, rbp
    ; an XCHG, an ADD and an SSE store
    mov ax, 0x9090
    xchg ax, [.exchanged]
.exchanged:
    ud2
    add word [.added], 0x9090 - 0x0b0f
.added:
    ud2
    mov rax, 0x9090909090909090
    movq xmm0, rax
    movlps [.vector], xmm0
.vector:
    times 4 ud2
    ; ---- an undefined instruction is made good by its last byte ----
    mov dword [CODE + 0x7e], 0xc3c801f0 ; LOCK ADD EAX, ECX; RET: #UD
    mov ebx, CODE + 0x7e
    TRY 6, 0, call rbx
    mov byte [CODE + 0x80], 0x0e        ; LOCK ADD [RSI], ECX
    mov esi, 0x412800
    mov qword [rsi], 5
    mov ecx, 3
    call rbx
    CHECK [0x412800], 8
    ; ---- an instruction across two pages ----
    mov byte [OTHER - 2], 0xb8          ; MOV EAX, imm32
    mov dword [OTHER - 1], 0x01020304
    mov byte [OTHER + 3], 0xc3
    mov ebx, OTHER - 2
    call rbx
    CHECK rax, 0x01020304
    mov byte [OTHER + 2], 9
    call rbx
    CHECK rax, 0x09020304
    mov byte [OTHER - 1], 7
    call rbx
    CHECK rax, 0x09020307
    ; its second page becomes another one
    mov dword [0x412000], 0xc30a0b0c
    mov rax, 0x412007
    mov [PT2 + 0x11 * 8], rax
    invlpg [OTHER]
    call rbx
%ifndef PEER_BOCHS                      ; Bochs keeps the decoded instruction
    CHECK rax, 0x0a0b0c07
%endif
    mov rax, OTHER | 7
    mov [PT2 + 0x11 * 8], rax
    invlpg [OTHER]
    call rbx
    CHECK rax, 0x09020307
    ; or goes away
    mov qword [PT2 + 0x11 * 8], 0
    invlpg [OTHER]
    TRY 14, 0x10, call rbx
%ifndef PEER_BOCHS                      ; Bochs names the instruction's last byte
    CHECK [ev_cr2], OTHER
%endif
    mov rax, OTHER | 7
    mov [PT2 + 0x11 * 8], rax
    invlpg [OTHER]

    ; ---- a page of code is mapped elsewhere: same address, other code ----
    mov dword [0x413000], 0x000001b8
    mov word [0x413004], 0xc300
    mov dword [0x414000], 0x000002b8
    mov word [0x414004], 0xc300
    mov ecx, 20
.remap:
    mov rax, 0x413007
    mov [PT2 + 0x90 * 8], rax
    invlpg [0x490000]
    mov ebx, 0x490000
    call rbx
    cmp eax, 1
    jne .wrong
    mov rax, 0x414007
    mov [PT2 + 0x90 * 8], rax
    invlpg [0x490000]
    call rbx
    cmp eax, 2
    jne .wrong
    dec ecx
    jnz .remap
    jmp .remapped
.wrong:
    CHECK rax, 0
.remapped:
    ; the same bytes as 16-, 32- and 64-bit code: 48 is DEC EAX or REX.W
    mov byte [CODE], 0x48
    mov word [CODE + 1], 0xc0ff         ; INC RAX / DEC EAX; INC EAX
    mov eax, 10
    mov rbx, .back64
    push SEL_CODE64
    push rbx
    push SEL_CODE64
    push CODE
    mov byte [CODE + 3], 0x48
    mov byte [CODE + 4], 0xcb           ; RETFQ
    o64 retf
.back64:
    CHECK rax, 11
    mov [resume_sp], rsp
    mov rax, .compat
    mov [resume], rax
    mov word [CODE + 3], 0x0b0f         ; UD2
    mov dword [far_pointer], CODE
    mov word [far_pointer + 4], SEL_CODE32
    mov eax, 10
    jmp far dword [far_pointer]
.compat:
    CHECK [ev_vec], 6
    CHECK [ev_rax], 10                  ; DEC, INC
    PASS

new_routine:
    mov eax, 4
    ret
align 8
far_pointer: dq 0
ROM_END
