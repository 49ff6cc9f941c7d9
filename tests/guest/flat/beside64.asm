; Data beside code, in the same page and in the same line: stores to it are data,
; stores to the code are seen, whatever stored there before, how often, and by
; which processor; and code is made where data was a moment ago.
; vireo: --cpus 2
; qemu: -smp 2
; bochs: cpus=2
%define MODE 64
%include "common.inc"
%include "smp.inc"

P equ 0x420000                ; a page of 4 KiB with code and data
FN equ P + 0x200              ; MOV EAX, imm32; RET, and data behind it in its line
HOT equ 60                    ; calls
ROUNDS equ 100
%ifdef PEER
TURNS equ 500
%else
TURNS equ 1500
%endif

; MOV EAX, EDX; RET at RDI
make:
    mov byte [rdi], 0xb8
    mov [rdi + 1], edx
    mov byte [rdi + 5], 0xc3
    ret

; The function at RBX returns EDX, again and again, with stores beside it.
hot:
    mov ecx, HOT
.next:
    inc qword [P + 0x400]               ; of another line
    add [rbx + 8], edx                  ; of the code's
    mov [rbx + 63 - 8], rcx             ; into the next
    xor eax, eax
    call rbx
    cmp eax, edx
    jne .wrong
    dec ecx
    jnz .next
    ret
.wrong:
    mov ecx, edx
    call failed

main:
    mov dword [PT2 + 0x30 * 8], P + 7
    mov rax, cr3
    mov cr3, rax

    ; a function changes, by a store that is elsewhere most of the time
    mov ebp, ROUNDS
.change:
    mov ebx, FN
    lea edx, [ebp + 0x1000]
    mov edi, ebx
    call make
    mov qword [P + 0x400], 0
    mov dword [rbx + 8], 0
    call hot
    CHECK [P + 0x400], HOT
    mov ebx, FN
    imul eax, edx, HOT
    mov ecx, [rbx + 8]
    CHECK rcx, rax
    dec ebp
    jnz .change

    ; runs that begin beside code and go over it
    mov ebp, ROUNDS
.run:
    mov ebx, FN
    lea edx, [ebp + 0x2000]
    mov edi, ebx
    call make
    call hot
    mov edi, FN - 0x80
    mov ecx, 0x90
    mov eax, 0xc3                       ; RET
    rep stosb
    call FN
    CHECK rax, 0xc3
    lea edx, [ebp + 0x3000]
    mov edi, FN
    call make
    mov ebx, FN
    call hot
    mov byte [P + 0x7f], 0xb8           ; and by a copy
    mov edi, FN - 0x88
    mov esi, P + 0x80 - 0x89
    mov ecx, 0x90
    mov dword [P + 0x80], 0
    rep movsb
    mov edi, FN
    mov edx, ebp
    call make
    call FN
    CHECK rax, rbp
    dec ebp
    jnz .run

    ; code where data was stored a moment ago, line by line
    mov ebp, ROUNDS
.fresh:
    mov edi, ebp
    and edi, 31
    shl edi, 6
    add edi, P + 0x800
    mov ecx, HOT
.data:
    mov [rdi + rcx], ecx
    dec ecx
    jns .data
    mov edx, ebp
    call make
    mov ebx, edi
    call hot
    dec ebp
    jnz .fresh

    ; another processor executes what this one writes, beside what both write
    START_AP other
    mov ebp, 1
.turn:
    mov ecx, 40
.beside:
    mov [P + 0x40 + rcx * 4], ecx
    dec ecx
    jnz .beside
    mov edi, ebp
    and edi, 31
    shl edi, 6
    lea edi, [edi + P + 0x800 + 0x10]
    mov edx, ebp
    call make
    mov [function], edi
    mov [turn], ebp
    UNTIL e, {cmp [seen], ebp}
    inc ebp
    cmp ebp, TURNS
    jb .turn
    PASS

other:
    mov ebp, 1
.turn:
    UNTIL e, {cmp [turn], ebp}
    push rbx
    xor eax, eax
    cpuid                               ; serializes
    pop rbx
    mov ebx, [function]
    mov ecx, 20
.call:
    inc dword [P + 0xfc0]
    call rbx
    cmp eax, ebp
    jne .wrong
    dec ecx
    jnz .call
    mov [seen], ebp
    inc ebp
    jmp .turn
.wrong:
    mov ecx, ebp
    call failed

align 64
turn: dd 0
align 64
seen: dd 0
function: dd 0
ROM_END
