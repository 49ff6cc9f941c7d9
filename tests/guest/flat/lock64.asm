; Locked operations of two processors on the same memory: counters by every kind
; of LOCK, by spinlocks of XCHG, BTS and CMPXCHG, on operands that lie in one
; line, in two lines and in two pages; CMPXCHG8B and 16B. Then wake-ups out of
; HLT, of which none may be lost.
; vireo: --cpus 2
; qemu: -smp 2
; bochs: cpus=2
%define MODE 64
%include "common.inc"
%include "smp.inc"

%ifdef PEER
ROUNDS equ 1000
WAKES equ 100
%else
ROUNDS equ 5000
WAKES equ 300
%endif
LINE equ 0x600000             ; within a line
SPLIT equ 0x60003e            ; across two
PAGE equ 0x600ffe             ; across two pages (large ones)
PAGE2 equ 0x41fffe            ; across two small ones, of different frames
CODE equ 0x422000             ; data in a line with code

; Each adds 1 to a counter of ROUNDS by an instruction; R10 is where.
%macro COUNT 3+               ; address, mask of the result, instructions
    mov r10d, %1
    mov r11, %2
    mov rax, %%work
    call both
    jmp %%end
%%work:
    %3
    ret
%%end:
%endmacro
; All widths that can be counted in, at one place.
%macro PLACE 1
    COUNT %1, 0xffffffff, lock inc dword [r10]
    COUNT %1, -1, lock inc qword [r10]
    COUNT %1, 0xffff, lock inc word [r10]
    COUNT %1, 0xffffffff, lock add dword [r10], 1
    COUNT %1, -1, lock sub qword [r10], -1
    COUNT %1, 0xffffffff, call by_xadd
    COUNT %1, -1, call by_cmpxchg
    COUNT %1, 0xffffffff, call by_cmpxchg32
    COUNT %1, -1, call by_cmpxchg8b
    COUNT %1, 0xffffffff, call by_adc
    COUNT %1, 0xffffffff, call by_xchg_lock
    COUNT %1, 0xffffffff, call by_bts_lock
%endmacro

main:
    mov dword [PT2 + 0x20 * 8], 0x425007
    mov rax, cr3
    mov cr3, rax
    START_AP other
    PLACE LINE
    PLACE SPLIT
    PLACE PAGE
    PLACE PAGE2
    ; where code is, which each of them runs
    mov word [CODE + 4], 0xc390
    PLACE CODE + 8
    COUNT LINE, -1, call by_cmpxchg16b
    COUNT CODE + 16, -1, call by_cmpxchg16b
    ; split and whole at once: one counts in the middle of the other's operand
    mov qword [SPLIT], 0
    COUNT SPLIT, 0xffff, call mixed
    CHECK_BITS [SPLIT], 0xffff, ROUNDS * 2
    ; no load ever sees half of a locked split store
    call halves
    call wake_ups
    PASS

; RAX: work
both:
    mov [work], rax
    mov [where], r10
    mov qword [r10], 0
    mov qword [r10 + 8], 0
    mov dword [lock_word], 0
    BARRIER
    call count
    BARRIER
    mov r10, [where]
    mov rcx, ROUNDS * 2
    and rcx, r11
    mov rax, [r10]
    and rax, r11
    cmp rax, rcx
    jne .bad
    ret
.bad:
    jmp failed                          ; by the address of COUNT's call

count:
    mov r12d, ROUNDS
    mov rbp, [work]
    mov r10, [where]
.next:
    call rbp
    dec r12d
    jnz .next
    ret

other:
    BARRIER
    cmp qword [work], 0
    je .leave
    call count
    BARRIER
    jmp other
.leave:
    jmp other2

by_xadd:
    mov eax, 1
    lock xadd [r10], eax
    ret
by_cmpxchg:
    mov rax, [r10]
.again:
    lea rdx, [rax + 1]
    lock cmpxchg [r10], rdx
    jne .again
    ret
by_cmpxchg32:
    mov eax, [r10]
.again:
    lea edx, [rax + 1]
    lock cmpxchg [r10], edx
    jne .again
    ret
by_cmpxchg8b:
    mov eax, [r10]
    mov edx, [r10 + 4]
.again:
    mov ebx, eax
    mov ecx, edx
    add ebx, 1
    adc ecx, 0
    lock cmpxchg8b [r10]
    jne .again
    ret
by_cmpxchg16b:                          ; the high half counts down
    mov rax, [r10]
    mov rdx, [r10 + 8]
.again:
    lea rbx, [rax + 1]
    lea rcx, [rdx - 1]
    lock cmpxchg16b [r10]
    jne .again
    lea rcx, [rax + rdx]                ; what was there, at once
    test rcx, rcx
    jz .ok
    call failed
.ok:
    ret
by_adc:
    stc
    lock adc dword [r10], 0
    clc
    lock sbb dword [r10], 0
    ret
by_xchg_lock:
    mov eax, 1
.spin:
    pause
    xchg [lock_word], eax
    test eax, eax
    jnz .spin
    inc dword [r10]
    mov dword [lock_word], 0
    ret
by_bts_lock:
    lock bts dword [lock_word], 7
    jnc .mine
    pause
    jmp by_bts_lock
.mine:
    inc dword [r10]
    lock btr dword [lock_word], 7
    ret
mixed:                                  ; bytes of it, and all of it by nothing
    lock add word [r10], 1
    lock add dword [r10], 0
    lock or byte [r10 + 1], 0
    ret

; One stores 0 and -1 by XCHG, the other must find either by CMPXCHG.
halves:
    mov r10d, SPLIT
    mov rax, do_halves
    mov r11d, 0                         ; whatever the result
    call both
    mov r10d, PAGE
    mov rax, do_halves
    call both
    ret
do_halves:
    mov rax, r12
    and eax, 1
    neg rax                             ; 0 or -1
    xchg [r10], rax
    inc rax
    cmp rax, 1                          ; was 0 or -1
    jbe .ok
    call failed
.ok:
    ret

; ---- HLT: processor 0 wakes 1 by IPIs and waits for its answer, at all moments
; around its STI; HLT. A wake-up that is lost is the end of the test. ----
wake_ups:
    SET_GATE 0x40, on_wake
    SET_GATE 0x41, on_turn
    mov qword [work], 0
    mov qword [woken], 0
    BARRIER
    mov ebx, WAKES
.next:
    mov ecx, ebx
    and ecx, 63
.delay:
    dec ecx
    jns .delay
    mov rax, [woken]
    mov dword [r15 + APIC_ICR_HIGH], 1 << 24
    mov dword [r15 + APIC_ICR], 0x40
.wait:
    pause
    cmp [woken], rax
    je .wait
    dec ebx
    jnz .next
    ; both at once: each wakes the other, in turns
    mov qword [turn], 0
    BARRIER
    xor r12d, r12d
    call ping_pong
    BARRIER
    ret

other2:
    mov r15d, APIC
.next:
    sti
    hlt
    cli
    cmp qword [woken], WAKES
    jb .next
    BARRIER
    mov r12d, 1
    call ping_pong
    BARRIER
    cli
    hlt

; R12: who I am. The one whose turn it is gives it away by an IPI.
ping_pong:
    mov ebp, WAKES
.again:
    mov rax, [turn]
    and eax, 1
    cmp eax, r12d
    je .mine
    sti                                 ; looked with interrupts off: no race
    hlt
    cli
    jmp .again
.mine:
    inc qword [turn]
    mov eax, r12d
    xor eax, 1
    shl eax, 24
    mov dword [r15 + APIC_ICR_HIGH], eax
    mov dword [r15 + APIC_ICR], 0x41
    dec ebp
    jnz .again
    ret

on_turn:
    mov dword [r15 + APIC_EOI], 0
    iretq
on_wake:
    inc qword [woken]
    mov dword [r15 + APIC_EOI], 0
    iretq

align 64
work: dq 0
where: dq 0
align 64
lock_word: dd 0
align 64
woken: dq 0
align 64
turn: dq 0
ROM_END
