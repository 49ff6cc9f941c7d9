; What may happen to code that has run often, so that an engine has made
; something faster of it: breakpoints, single steps and alignment checks that
; come after that, and faults in its middle, with the state of that instruction
; (SDM Vol. 3, 6.5, 6.15, chapter 18).
%define MODE 64
%include "common.inc"

WATCHED equ 0x30000
OTHER equ 0x30100
ABSENT equ 0x420000           ; a page that is taken away
ROUNDS equ 30000

%macro SET_DR7 1
    mov eax, %1
    mov dr7, rax
%endmacro
%macro CLEAR 0
    xor eax, eax
    mov dr6, rax
    mov qword [ev_count], 0
%endmacro
%macro HOT 0                  ; as often as it takes, and the right result
    mov esi, WATCHED
    mov ecx, ROUNDS
    call work
    CHECK rdi, ROUNDS * (ROUNDS + 1) / 2
%endmacro
%macro TEN 0
    mov esi, WATCHED
    mov ecx, 10
    call work
    mov r14, rdi
%endmacro

main:
    mov qword [ev_action], 2            ; return with RF
    HOT

    ; ---- code breakpoints ----
    mov rax, work.load
    mov dr0, rax
    SET_DR7 0x401
    CLEAR
    TEN
    CHECK [ev_count], 10
    CHECK r14, 55
    mov rax, work.load
    CHECK [ev_rip], rax
    CHECK_BITS [ev_dr6], 0xe00f, 1
    ; at its first instruction, where it is entered
    mov rax, work
    mov dr0, rax
    CLEAR
    TEN
    CHECK [ev_count], 1
    CHECK r14, 55
    SET_DR7 0x400
    CLEAR
    HOT
    CHECK [ev_count], 0

    ; ---- data breakpoints ----
    mov qword [ev_action], 1
    mov eax, WATCHED
    mov dr0, rax
    SET_DR7 0x401 | (1 | 3 << 2) << 16  ; writes of 4 bytes
    CLEAR
    TEN
    CHECK [ev_count], 10
    CHECK r14, 55
    mov rax, work.load
    CHECK [ev_rip], rax                 ; behind the store
    SET_DR7 0x401 | (3 | 3 << 2) << 16  ; reads as well
    CLEAR
    TEN
    CHECK [ev_count], 20
    CHECK r14, 55
    mov rax, work.next
    CHECK [ev_rip], rax
    SET_DR7 0x400
    CLEAR
    HOT
    CHECK [ev_count], 0
    ; switched on and off by the hot code itself
    mov edx, 0x400
    mov ebx, 0x400
    mov r13d, 200
.by_itself:
    mov esi, WATCHED
    call watches
    dec r13d
    jnz .by_itself
    CHECK [ev_count], 0
    mov edx, 0x401 | (1 | 3 << 2) << 16
    mov esi, WATCHED
    call watches
    CHECK [ev_count], 1
    mov rax, watches.behind
    CHECK [ev_rip], rax

    ; ---- single steps ----
    CLEAR
    mov esi, WATCHED
    mov ecx, 3
    pushfq
    or dword [rsp], 0x100
    popfq
    call work                           ; CALL, XOR, three times four, RET
    pushfq                              ; and these three
    and dword [rsp], ~0x100
    popfq
    CHECK [ev_count], 1 + 1 + 12 + 1 + 3
    CHECK rdi, 6
    ; by the hot code itself
    CLEAR
    mov edx, 2
    mov ebx, 2
    mov r13d, 200
.steps:
    call steps
    dec r13d
    jnz .steps
    CHECK [ev_count], 0
    mov edx, 0x102
    call steps
    CHECK [ev_count], 4                 ; two NOPs, PUSH, POPF
    mov rax, steps.end
    CHECK [ev_rip], rax

    ; ---- faults in the middle ----
    mov qword [ev_action], 0
    mov r13d, 200
.faultless:
    mov esi, WATCHED
    mov edi, OTHER
    xor ebx, ebx
    call stores
    dec r13d
    jnz .faultless
    CHECK rbx, 3
    mov qword [PT2 + 0x20 * 8], 0
    invlpg [ABSENT]
    mov dword [WATCHED], 0
    mov esi, WATCHED
    mov edi, ABSENT
    xor ebx, ebx
    TRY 14, 2, call stores
    CHECK [ev_cr2], ABSENT
    CHECK [WATCHED], 1                  ; what was before it is done
    mov rax, stores.second
    CHECK [ev_rip], rax
    CHECK_BITS [ev_flags], 0x8d5, 0x91  ; of the CMP
    mov rdi, 0x8000000000000000
    xor ebx, ebx
    TRY 13, 0, call stores
    mov rax, stores.second
    CHECK [ev_rip], rax
    ; in the midst of a REP: what is done is counted
    mov r13d, 200
.strings:
    mov esi, WATCHED
    mov edi, OTHER
    mov ecx, 24
    call copies
    dec r13d
    jnz .strings
    mov esi, WATCHED
    mov edi, ABSENT - 8
    mov ecx, 24
    TRY 14, 2, call copies
    CHECK [ev_rcx], 16
    CHECK [ev_cr2], ABSENT
    mov rax, copies
    CHECK [ev_rip], rax

%ifndef PEER_QEMU                       ; QEMU has no #AC
    ; ---- alignment checks ----
    mov rax, cr0
    bts rax, 18
    mov cr0, rax
    USER 6, 0, user_loads
    mov qword [user_flags], 0x40002
    USER 17, 0, user_loads
    mov rax, user_loads.load
    CHECK [ev_rip], rax
    CHECK [ev_rcx], ROUNDS              ; at the first that is not aligned
    mov qword [user_flags], 2
    USER 6, 0, user_loads
%endif
    PASS

; RDI = the sum of ECX..1, by way of memory
work:
    xor edi, edi
.top:
    mov [rsi], ecx
.load:
    add edi, [rsi]
.next:
    dec ecx
    jnz .top
    ret

watches:
    mov dr7, rdx
    mov [rsi], ebx
.behind:
    mov dr7, rbx
    ret

steps:
    push rdx
    popfq
    nop
    nop
    push rbx
    popfq
.end:
    ret

stores:
    inc ebx
    mov [rsi], ebx
    inc ebx
    cmp ebx, 7                          ; 2 - 7: CF, SF and AF
.second:
    mov [rdi], ebx
    inc ebx
    ret

copies:
    rep movsb
    ret

user_loads:
    mov edx, 2
    mov esi, WATCHED
.again:
    mov ecx, ROUNDS
.load:
    mov rbx, [rsi]
    dec ecx
    jnz .load
    inc rsi
    dec edx
    jnz .again
    ud2
ROM_END
