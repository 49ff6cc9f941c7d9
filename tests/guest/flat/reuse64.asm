; Memory that holds code, then data, then other code, with two processors that both
; execute the code: data is stored there whatever was there before, by runs and one
; by one, by one processor and by both; no processor executes what was there before.
; vireo: --cpus 2
; qemu: -smp 2
; bochs: cpus=2
%define MODE 64
%include "common.inc"
%include "smp.inc"

PAGES equ 16
FIRST equ 0x1000000
HOT equ 24                    ; calls
FNS equ 8                     ; of a page, in lines of their own
%ifdef PEER
ROUNDS equ 9
%else
ROUNDS equ 15
%endif

; Eight functions MOV EAX, R13D + n; RET in the page at RBX.
make:
    xor ecx, ecx
.next:
    mov edi, ecx
    shl edi, 9
    add rdi, rbx
    lea eax, [r13 + rcx]
    mov byte [rdi], 0xb8
    mov [rdi + 1], eax
    mov byte [rdi + 5], 0xc3
    inc ecx
    cmp ecx, FNS
    jb .next
    ret

; Calls them all, often.
hot:
    xor ecx, ecx
.next:
    mov edi, ecx
    shl edi, 9
    add rdi, rbx
    mov edx, HOT
.again:
    xor eax, eax
    call rdi
    sub eax, ecx
    cmp eax, r13d
    jne .wrong
    dec edx
    jnz .again
    inc ecx
    cmp ecx, FNS
    jb .next
    ret
.wrong:
    mov ecx, r13d
    call failed

; Stores R13 to the words [RSI, RDI) one by one.
fill:
    mov [rsi], r13
    add rsi, 8
    cmp rsi, rdi
    jb fill
    ret

; The words [RSI, RDI) are R13.
check:
    cmp [rsi], r13
    jne hot.wrong
    add rsi, 8
    cmp rsi, rdi
    jb check
    ret

; A serializing instruction; RBX is kept.
%macro SERIALIZE 0
    push rbx
    xor eax, eax
    cpuid
    pop rbx
%endmacro

; What both do, with the page in RBX and the round in R12; %1 is the processor.
%macro TURN 1
    lea r13, [r12 + 0x1000]
%if %1 == 0
    call make
%endif
    BARRIER
    SERIALIZE
    call hot
    BARRIER
    mov eax, r12d
    xor edx, edx
    mov ecx, 3
    div ecx
    cmp edx, 1
    jb %%run
    je %%one
    ; both, each a half
    mov rsi, rbx
%if %1 == 1
    add rsi, 2048
%endif
    lea rdi, [rsi + 2048]
    call fill
    jmp %%done
%%run:
%if %1 == 0
    mov rdi, rbx
    mov rax, r13
    mov ecx, 4096 / 8
    rep stosq
%endif
    jmp %%done
%%one:
%if %1 == 1
    mov rsi, rbx
    lea rdi, [rsi + 4096]
    call fill
%endif
%%done:
    BARRIER
    mov rsi, rbx
    lea rdi, [rsi + 4096]
    call check
    BARRIER
    lea r13, [r12 + 0x2000]
%if %1 == 1
    call make
%endif
    BARRIER
    SERIALIZE
    call hot
    BARRIER
%endmacro

main:
    START_AP other
    xor r12d, r12d
.round:
    mov ebx, FIRST
.page:
    TURN 0
    add ebx, 4096
    cmp ebx, FIRST + PAGES * 4096
    jb .page
    inc r12d
    cmp r12d, ROUNDS
    jb .round
    PASS

other:
    xor r12d, r12d
.round:
    mov ebx, FIRST
.page:
    TURN 1
    add ebx, 4096
    cmp ebx, FIRST + PAGES * 4096
    jb .page
    inc r12d
    cmp r12d, ROUNDS
    jb .round
.end:
    hlt
    jmp .end
ROM_END
