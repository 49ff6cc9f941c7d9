; Memory order between two processors (SDM Vol. 3, 8.2.3), by litmus tests: each
; is run thousands of times, both processors starting each round together. What
; the manual forbids must never be seen; that a load may pass an older store to
; another location is only allowed, so it is not asked for.
;
; Which instructions keep a load from passing an older store: locked ones and
; XCHG, MFENCE, serializing instructions (8.3) and I/O instructions (8.2.5).
; vireo: --cpus 2
; qemu: -smp 2
; bochs: cpus=2
%define MODE 64
%include "common.inc"
%include "smp.inc"

%ifdef PEER_BOCHS
ROUNDS equ 300
%else
ROUNDS equ 3000
%endif
CHUNK equ 256
PATIENCE equ 30000000          ; looks at the other's progress, in all rounds
LINES equ 0x600000            ; each round's X, and Y on the next line
RESULT0 equ 0x700000          ; two values a round
RESULT1 equ 0x710000
SINK equ 0x720000

; LITMUS processor 0's part, processor 1's part, judge (label): the parts find X
; by R8, Y by R9, the round in R13D; EAX and EBX are what they loaded; the judge runs on
; processor 0 with its values in EAX, EBX, those of processor 1 in ECX, EDX, what
; X and Y hold in the end in R8D, R9D, the round in R12D. X and Y are 0 at first.
%macro LITMUS 3
    mov rax, %1
    mov [parts], rax
    mov rax, %2
    mov [parts + 8], rax
    mov rax, %3
    mov [judge], rax
    call litmus
%endmacro

; SB with an instruction between store and load: both loads may not be 0.
%macro SB_FENCED 1+
    jmp %%run
%%p0:
    mov [r8], r13d
    %1
    mov ebx, [r9]
    ret
%%p1:
    mov [r9], r13d
    %1
    mov ebx, [r8]
    ret
%%run:
    LITMUS %%p0, %%p1, judge_sb
%endmacro

main:
    mov eax, 7
    xor ecx, ecx
    cpuid
    shr ebx, 10
    mov [has_invpcid], bl
    mov qword [SINK], 0
    mov qword [SINK + 8], 0
    START_AP other
    ; ---- SB: the loads may pass the stores, so anything goes ----
    LITMUS sb0, sb1, judge_any
    ; ---- but not across these ----
    SB_FENCED mfence
    SB_FENCED xchg [SINK + 0x40], eax
    SB_FENCED lock or dword [rsp], 0
    SB_FENCED lock xadd [SINK + 0x40], eax
    SB_FENCED lock cmpxchg [SINK + 0x40], eax
    SB_FENCED lock cmpxchg16b [SINK]
    SB_FENCED lock inc dword [SINK + 0x7e]        ; across two lines
    SB_FENCED lock inc dword [SINK + 0xcfe]     ; across two pages
    LITMUS sb_xchg0, sb_xchg1, judge_sb         ; the store itself is locked
    LITMUS sb_add0, sb_add1, judge_sb
%ifndef PEER_QEMU                       ; QEMU drains nothing here
    SB_FENCED call do_cpuid
    SB_FENCED call do_iret
    SB_FENCED call do_cr3
    SB_FENCED call do_cr0
    SB_FENCED call do_cr4
    SB_FENCED call do_dr
    SB_FENCED call do_wrmsr
    SB_FENCED invlpg [SINK]
    SB_FENCED wbinvd
    SB_FENCED lgdt [gdtr]
    SB_FENCED lidt [idtr]
    SB_FENCED call do_lldt
    SB_FENCED call do_invpcid
%endif
    SB_FENCED in al, 0xed
    SB_FENCED out 0xed, al
    ; ---- MP: data, then a flag; and read the other way round ----
    LITMUS mp0, mp1, judge_mp
    LITMUS mp0_wide, mp1, judge_mp
    LITMUS mp0_string, mp1, judge_mp
    ; ---- LB: loads do not pass what comes behind ----
    LITMUS lb0, lb1, judge_lb
    ; ---- S, R with a fence, 2+2W ----
    LITMUS s0, s1, judge_s
    LITMUS r0, r1, judge_r
    LITMUS w0, w1, judge_w
    ; ---- a processor sees its own stores first (n6, n5, forwarding) ----
    LITMUS n6_0, n6_1, judge_n6
    LITMUS n5_0, n5_1, judge_n5
    LITMUS fwd0, fwd1, judge_fwd
    ; ---- coherence: two loads of one location never go back ----
    LITMUS corr0, corr1, judge_corr
    ; ---- 8 bytes are stored and loaded at once, 16 by CMPXCHG16B ----
    LITMUS atom0, atom1, judge_atom
    LITMUS atom0_unaligned, atom1_unaligned, judge_atom
    PASS

; Each round has lines of its own, so that the processors meet once for all
; many rounds. Within these they wait for one another at each round as long as
; patience lasts: on a busy host the other may not be running at all.
litmus:
    mov rax, [rsp]
    mov [where], rax
    xor eax, eax
    mov edi, LINES
    mov ecx, ROUNDS * 128 / 8
    rep stosq
    mov [progress], eax
    mov [progress + 64], eax
    BARRIER                             ; the parts are there
    mov rbp, [parts]
    mov edi, RESULT0
    xor r11d, r11d
    call rounds
    BARRIER                             ; the results are there
    xor r12d, r12d
.judge:
    mov eax, [RESULT0 + r12 * 8]
    mov ebx, [RESULT0 + r12 * 8 + 4]
    mov ecx, [RESULT1 + r12 * 8]
    mov edx, [RESULT1 + r12 * 8 + 4]
    mov esi, r12d
    shl esi, 7
    mov r8d, [LINES + rsi]
    mov r9d, [LINES + rsi + 64]
    inc r12d
    call [judge]
    cmp r12d, ROUNDS
    jb .judge
    ret

; Processor 1.
other:
    BARRIER
    mov rbp, [parts + 8]
    mov edi, RESULT1
    mov r11d, 64
    call rounds
    BARRIER
    jmp other

; RBP: part; RDI: results; R11: offset of own progress, the other's is the other
rounds:
    mov r8d, LINES
    lea r9, [r8 + 64]
    mov r13d, 1
    mov r12d, r11d
    xor r12d, 64
.round:
    test r13d, CHUNK - 1
    jnz .no_barrier
    BARRIER                             ; here both are running
.no_barrier:
    push rdi
    push r11
    mov [progress + r11], r13d
.wait:
    cmp [progress + r12], r13d
    jae .go
    dec dword [patience + r11]
    jg .wait
.go:
    call rbp
    pop r11
    pop rdi
    mov [rdi], eax
    mov [rdi + 4], ebx
    add rdi, 8
    sub r8, -128
    sub r9, -128
    inc r13d
    cmp r13d, ROUNDS
    jbe .round
    ret

; ---- parts ----

%macro PART 2+
align 64
%1:
    %2
%endmacro

PART sb0, mov [r8], r13d
    mov ebx, [r9]
    ret
PART sb1, mov [r9], r13d
    mov ebx, [r8]
    ret
PART sb_xchg0, mov eax, r13d
    xchg [r8], eax
    mov ebx, [r9]
    ret
PART sb_xchg1, mov eax, r13d
    xchg [r9], eax
    mov ebx, [r8]
    ret
PART sb_add0, lock add [r8], r13d
    mov ebx, [r9]
    ret
PART sb_add1, lock add [r9], r13d
    mov ebx, [r8]
    ret
PART mp0, mov [r8], r13d
    mov [r9], r13d
    ret
PART mp0_wide, movd xmm0, r13d
    movdqu [r8], xmm0
    movd [r9], xmm0
    ret
PART mp0_string, mov eax, r13d          ; what follows a string comes behind it
    mov edi, r8d
    mov ecx, 1
    rep stosd
    mov [r9], r13d
    ret
PART mp1, mov eax, [r9]
    mov ebx, [r8]
    ret
PART lb0, mov eax, [r8]
    mov [r9], r13d
    ret
PART lb1, mov eax, [r9]
    mov [r8], r13d
    ret
PART s0, lea eax, [r13 + 1]
    mov [r8], eax
    mov [r9], r13d
    ret
PART s1, mov eax, [r9]
    mov [r8], r13d
    ret
PART r0, mov [r8], r13d
    mov [r9], r13d
    ret
PART r1, lea eax, [r13 + 1]
    mov [r9], eax
    mfence
    mov ebx, [r8]
    ret
PART w0, mov [r8], r13d
    lea eax, [r13 + 1]
    mov [r9], eax
    ret
PART w1, mov [r9], r13d
    lea eax, [r13 + 1]
    mov [r8], eax
    ret
PART n6_0, mov [r8], r13d
    mov eax, [r8]
    mov ebx, [r9]
    ret
PART n6_1, lea eax, [r13 + 1]
    mov [r9], r13d
    mov [r8], eax
    ret
PART n5_0, mov [r8], r13d
    mov eax, [r8]
    ret
PART n5_1, lea eax, [r13 + 1]
    mov [r8], eax
    mov eax, [r8]
    ret
PART fwd0, mov [r8], r13d
    mov eax, [r8]
    mov ebx, [r9]
    ret
PART fwd1, mov [r9], r13d
    mov eax, [r9]
    mov ebx, [r8]
    ret
PART corr0, mov [r8], r13d
    ret
PART corr1, mov eax, [r8]
    mov ebx, [r8]
    ret
PART atom0, mov rax, r13
    shl rax, 32
    or rax, r13
    mov [r8], rax
    ret
PART atom1, mov rax, [r8]
    mov rbx, rax
    shr rbx, 32
    ret
PART atom0_unaligned, mov rax, r13      ; within one line (8.1.1)
    shl rax, 32
    or rax, r13
    mov [r8 + 3], rax
    ret
PART atom1_unaligned, mov rax, [r8 + 3]
    mov rbx, rax
    shr rbx, 32
    ret

; ---- fences; they keep RBX, R12 to R15 ----

do_cpuid:
    push rbx
    xor eax, eax
    cpuid
    pop rbx
    ret
do_iret:
    mov rax, rsp
    push SEL_DATA
    push rax
    push 2
    push SEL_CODE64
    push .there
    iretq
.there:
    ret
do_cr3:
    mov rax, cr3
    mov cr3, rax
    ret
do_cr0:
    mov rax, cr0
    mov cr0, rax
    ret
do_cr4:
    mov rax, cr4
    mov cr4, rax
    ret
do_dr:
    xor eax, eax
    mov dr3, rax
    ret
do_wrmsr:
    mov ecx, 0xc0000102                 ; KERNEL_GS_BASE
    xor eax, eax
    xor edx, edx
    wrmsr
    ret
do_lldt:
    xor eax, eax
    lldt ax
    ret
do_invpcid:
    test byte [has_invpcid], 1
    jz do_cpuid
    mov eax, 2
    invpcid rax, [SINK]
    ret

; ---- judges ----

judge_any:
    ret
; neither saw the other's
judge_sb:
    or ebx, edx
    cmp ebx, 0
    jne good
    jmp bad
judge_mp:                               ; saw the flag, not the data
    cmp ecx, r12d
    jne good
    cmp edx, r12d
    je good
    jmp bad
judge_lb:                               ; both saw what comes later
    test eax, eax
    je good
    test ecx, ecx
    je good
    jmp bad
judge_s:                                ; saw Y, and yet X is the older store
    cmp ecx, r12d
    jne good
    cmp r8d, r12d
    je good
    jmp bad
judge_r:                                ; Y's last is P1's, which did not see X
    lea eax, [r12 + 1]
    cmp r9d, eax
    jne good
    cmp edx, r12d
    je good
    jmp bad
judge_w:                                ; each one's first store is the last
    cmp r8d, r12d
    jne good
    cmp r9d, r12d
    jne good
    jmp bad
judge_n6:                               ; allowed: own X, old Y, X is P0's in the
    cmp eax, 0                          ; end. Forbidden: not to see one's own.
    jne good
    jmp bad
judge_n5:                               ; each saw the other's, against own order
    lea r10d, [r12 + 1]
    cmp eax, r10d
    jne .own
    cmp ecx, r12d
    jne good
    jmp bad
.own:
    cmp eax, r12d
    je good
    jmp bad
judge_fwd:                              ; own stores at once; other's when it likes
    cmp eax, r12d
    jne .bad
    cmp ecx, r12d
    je good
.bad:
    jmp bad
judge_corr:
    cmp ecx, r12d
    jne good
    cmp edx, r12d
    je good
    jmp bad
judge_atom:
    cmp ecx, edx
    je good
    jmp bad
good:
    ret
bad:                                    ; of the LITMUS, not of its judge
    push qword [where]
    jmp failed

align 64
progress: times 16 dq 0
patience: dd PATIENCE
    times 15 dd 0
    dd PATIENCE
    times 15 dd 0
parts: dq 0, 0
judge: dq 0
where: dq 0
has_invpcid: db 0
ROM_END
