; Loops that an engine makes something of: accesses that move by the same distance
; each turn, and are not aligned in some turn after the first; jumps to themselves
; that lie across two pages; REP of no iterations, and operands that have to be
; aligned and are not, at a page that was not accessed yet; jumps to where no code can be.
%define MODE 64
%include "common.inc"

DATA equ 0x300000
CROSS equ 0x440000            ; code across pages
CLEAN equ 0x460000            ; a page of data
P equ 7                       ; present, writable, user
HIGH equ 0x500000             ; shown at the end of the lower half
HIGH_TABLES equ 0x180000
LAST_PAGE equ 0x7ffffffff000
ACCESSED equ 0x20
DIRTY equ 0x40
%define PTE(page) (PT2 + ((page) - 0x400000) / 4096 * 8)

; every register that could be lent is named, so that R13 to R15 have none
%macro ALL_NAMED 0
    lea rbx, [rbx + rdx]
    lea rbp, [rbp + rsi]
    lea rdi, [rdi + r8]
    lea r9, [r9 + r10]
    lea r11, [r11 + r12]
%endmacro

main:
    mov edi, DATA
    mov ecx, 4096 / 8
    mov eax, 0x12345678
    rep stosq

    ; ---- aligned only with the index, or not ----
%macro INDEXED 1
    mov qword [resume], %%gone
    mov [resume_sp], rsp
    mov eax, DATA
    xor r13d, r13d
    xor r14d, r14d
    mov ecx, 40
    jmp %%turn                          ; which is where the loop's code starts
align 16
%%turn:
    ALL_NAMED
%%load:
    movaps xmm0, [rax + %1]
    add rax, 16
    add %1, 8
    dec ecx
    jnz %%turn
    call no_event
%%gone:
    CHECK [ev_vec], 13
    mov rbx, %%load
    CHECK [ev_rip], rbx
%endmacro
    INDEXED r13
    INDEXED r14
    ; aligned in sum, though neither is
    mov eax, DATA + 8
    mov r13d, 8
    mov r15d, 50
.sum:
    ALL_NAMED
    movaps xmm1, [rax + r13]
    add rax, 8
    add r13, 8
    dec r15d
    jnz .sum
    movq rbx, xmm1
    CHECK rbx, 0x12345678

    ; ---- a jump to itself across pages: an interrupt ends it ----
    call cross

    ; ---- REP of nothing leaves no trace ----
    mov ebp, 40
.nothing:
    mov qword [PTE(CLEAN)], CLEAN | P
    invlpg [CLEAN]
    mov edi, CLEAN
    mov esi, DATA
    xor ecx, ecx
    call copy
    CHECK [PTE(CLEAN)], CLEAN | P
    mov edi, CLEAN
    xor ecx, ecx
    call fill
    CHECK [PTE(CLEAN)], CLEAN | P
    mov edi, DATA
    mov esi, CLEAN
    xor ecx, ecx
    call copy
    CHECK [PTE(CLEAN)], CLEAN | P
    mov edi, CLEAN
    mov ecx, 3
    call fill
    CHECK [PTE(CLEAN)], CLEAN | P | ACCESSED | DIRTY
    dec ebp
    jnz .nothing

    ; ---- nor does what is not aligned ----
%macro MISALIGNED 1+
    mov ebp, 40
%%again:
    mov qword [PTE(CLEAN)], CLEAN | P
    invlpg [CLEAN]
    mov ebx, CLEAN + 8
    mov r13d, 8
    FAULT 13, 0, %1
    CHECK [PTE(CLEAN)], CLEAN | P
    dec ebp
    jnz %%again
%endmacro
    MISALIGNED movaps xmm0, [rbx]
    MISALIGNED movaps [rbx], xmm0
    MISALIGNED movaps [rbx + r13 * 2], xmm0
    MISALIGNED paddd xmm0, [CLEAN + 8]
    MISALIGNED lock cmpxchg16b [rbx]
    MISALIGNED cmpxchg16b [rbx + r13 * 8]

    ; ---- jumps from the last page of the lower half to beyond it, again and again ----
    mov dword [PML4 + 255 * 8], HIGH_TABLES + 7
    mov dword [HIGH_TABLES + 511 * 8], HIGH_TABLES + 0x1000 + 7
    mov dword [HIGH_TABLES + 0x1ff8], HIGH_TABLES + 0x2000 + 7
    mov dword [HIGH_TABLES + 0x2ff8], HIGH + 7
    mov rax, cr3
    mov cr3, rax
%macro BEYOND 2                         ; opcode, its bytes
    mov ebp, 60
%%again:
    mov byte [HIGH + 0xf00], 0x90
    mov dword [HIGH + 0xf01], %1
    mov dword [HIGH + 0xf01 + %2], 0x1000
    mov rsp, STACK0
    mov rdx, LAST_PAGE + 0xf00
    mov qword [resume], %%after
    mov [resume_sp], rsp
    xor eax, eax
    jmp rdx
%%after:
    CHECK [ev_vec], 13
    mov rbx, LAST_PAGE + 0xf01
    CHECK [ev_rip], rbx
    CHECK [ev_rsp], STACK0
    dec ebp
    jnz %%again
%endmacro
    BEYOND 0xe8, 1                      ; CALL
    BEYOND 0xe9, 1                      ; JMP
    BEYOND 0x840f, 2                    ; JZ
    PASS

align 64
copy:
    rep movsb
    ret
fill:
    rep stosb
    ret

; JMP to itself, so many of its bytes in the second page. The APIC's timer comes, and
; goes on behind it.
APIC equ 0xfee00000
%macro TO_ITSELF 1
    mov r12d, 10
%%again:
    mov qword [resume], %%behind
    mov [resume_sp], rsp
    mov dword [CROSS + 4096 + %1 - 5], 0xfffffbe9
    mov byte [CROSS + 4096 + %1 - 1], 0xff
    mov dword [rdi + 0x380], 20000
    mov eax, CROSS + 4096 + %1 - 5
    sti
    jmp rax
%%behind:
    CHECK [ev_vec], 0x50
    mov rbx, [ev_rip]
    CHECK rbx, CROSS + 4096 + %1 - 5
    mov dword [rdi + 0xb0], 0
    dec r12d
    jnz %%again
%endmacro
cross:
    mov edi, APIC
    mov dword [rdi + 0xf0], 0x1ff
    mov dword [rdi + 0x3e0], 0xb
    mov dword [rdi + 0x320], 0x50
    TO_ITSELF 1
    TO_ITSELF 2
    TO_ITSELF 3
    TO_ITSELF 4
    ret
ROM_END
