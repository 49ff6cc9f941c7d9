; Instructions across two pages, executed often: their second page's bytes
; change, another page takes its place, it goes away and comes back, and the
; first page is followed by different ones at two linear addresses. Jumps between
; such pages, too.
%define MODE 64
%include "common.inc"

V equ 0x440000                ; shows A, and behind it B or C
V2 equ 0x450000                ; A and C
PTE equ PT2 + 0x40 * 8
PTE2 equ PT2 + 0x50 * 8
A equ 0x500000
B equ 0x501000
C equ 0x502000
FN equ 0xffd                  ; MOV EAX, imm32 with two bytes in the second page; RET
P equ 7                       ; present, writable, user
TURNS equ 60

; calls the function at an address until it is hot: it returns that
%macro HOT 2
    mov esi, TURNS
%%next:
    mov eax, %1 + FN
    call rax
    mov ebx, eax
    CHECK rbx, %2
    dec esi
    jnz %%next
%endmacro

; three bytes in A, three in B or C: the upper half of what is returned
%macro FUNCTION 2
    mov dword [A + FN], 0x001111b8      ; the last byte is the next page's
    mov word [%1], %2
    mov byte [%1 + 2], 0xc3
%endmacro

main:
    FUNCTION C, 0x2222
    FUNCTION B, 0x1111
    mov qword [PTE], A | P
    mov qword [PTE + 8], B | P
    mov qword [PTE2], A | P
    mov qword [PTE2 + 8], C | P
    mov rax, cr3
    mov cr3, rax

    HOT V, 0x11111111
    ; ---- its bytes change ----
    mov byte [B], 0x33
    HOT V, 0x11331111
    mov edi, TURNS
.each:
    mov [B + 1], dil
    mov eax, V + FN
    call rax
    shr eax, 24
    cmp eax, edi
    je .same
    call failed
.same:
    dec edi
    jnz .each
    mov byte [A + FN + 1], 0x44         ; and in the first page
    mov word [B], 0x1111
    HOT V, 0x11111144
    mov byte [A + FN + 1], 0x11

    ; ---- another page ----
    mov edi, TURNS
.flip:
    mov qword [PTE + 8], C | P
    invlpg [V + 0x1000]
    mov eax, V + FN
    call rax
    mov ebx, eax
    CHECK rbx, 0x22221111
    mov qword [PTE + 8], B | P
    invlpg [V + 0x1000]
    mov eax, V + FN
    call rax
    mov ebx, eax
    CHECK rbx, 0x11111111
    dec edi
    jnz .flip
    mov qword [PTE + 8], C | P
    mov rax, cr3
    mov cr3, rax
    HOT V, 0x22221111
    mov qword [PTE + 8], B | P
    mov rax, cr3
    mov cr3, rax
    HOT V, 0x11111111

    ; ---- none ----
    mov qword [PTE + 8], 0
    invlpg [V + 0x1000]
    mov qword [resume], .gone
    mov [resume_sp], rsp
    mov eax, V + FN
    jmp rax
.gone:
    CHECK [ev_vec], 14
    CHECK [ev_err], 16            ; a fetch
    mov rbx, [ev_cr2]
    CHECK rbx, V + 0x1000
    mov rbx, [ev_rip]
    CHECK rbx, V + FN
    mov qword [PTE + 8], B | P
    HOT V, 0x11111111

    ; ---- two that follow the same first one ----
    mov edi, TURNS
.both:
    mov eax, V + FN
    call rax
    mov ebx, eax
    CHECK rbx, 0x11111111
    mov eax, V2 + FN
    call rax
    mov ebx, eax
    CHECK rbx, 0x22221111
    dec edi
    jnz .both
    HOT V2, 0x22221111
    HOT V, 0x11111111

    ; ---- flags and memory: ADD [RDI], EAX in two pages, then JC, then RET ----
    mov byte [A + 0xfff], 0x01          ; ADD [RDI], EAX
    mov dword [B], 0x90017207           ; 07; JC over a NOP
    mov word [B + 4], 0xc3f9            ; STC; RET: carry either way, RAX says which
    mov esi, TURNS
    xor ebx, ebx
    mov dword [number], 0
.add:
    lea rdi, [number]
    mov eax, 0x10000000
    mov ecx, V + 0xfff
    call rcx
    jc .carry
    call failed
.carry:
    add ebx, 0x10000000
    cmp ebx, [number]
    je .sum
    call failed
.sum:
    dec esi
    jnz .add

    ; ---- and jumps from one first page to different second ones ----
    mov byte [A + 0x800], 0xe9          ; JMP to 100H in the second page
    mov dword [A + 0x801], 0x1100 - 0x805
    mov byte [B + 0x100], 0xb8          ; MOV EAX, imm32; RET
    mov dword [B + 0x101], 0xb
    mov byte [B + 0x105], 0xc3
    mov byte [C + 0x100], 0xb8
    mov dword [C + 0x101], 0xc
    mov byte [C + 0x105], 0xc3
    mov edi, TURNS
.jumps:
    mov eax, V + 0x800
    call rax
    mov ebx, eax
    CHECK rbx, 0xb
    mov eax, V2 + 0x800
    call rax
    mov ebx, eax
    CHECK rbx, 0xc
    dec edi
    jnz .jumps
    PASS

number: dd 0
ROM_END
