; IRET in 64-bit and compatibility mode: same and outer level, null and bad
; stack selectors, flags that may change, RSP of 16-bit stacks, segments that
; the outer level must not keep (SDM Vol. 2, IRET; Vol. 3, 6.14.3).
%define MODE 64
%include "common.inc"

S_C16_3 equ 0x60              ; 16-bit code, DPL 3
S_D16_3 equ 0x68              ; 16-bit data, DPL 3
S_NP3 equ 0x70                ; data, DPL 3, not present
S_CNP3 equ 0x78               ; code, DPL 3, not present
S_LD3 equ 0x80                ; code with L and D
S_RO3 equ 0x88
S_CONF equ 0x90               ; conforming 64-bit, DPL 0
S_CODE1 equ 0x98
S_DATA1 equ 0xa0

; IRETQ of a frame: SS, RSP, flags, CS, RIP
%macro FRAME 5
    mov rax, %5
    mov [fr], rax
    mov qword [fr + 8], %4
    mov qword [fr + 16], %3
    mov rax, %2
    mov [fr + 24], rax
    mov qword [fr + 32], %1
%endmacro
; that faults at the IRETQ: vector, error, the frame
%macro BADF 7
    FRAME %3, %4, %5, %6, %7
    mov rax, %%after
    mov [resume], rax
    mov [resume_sp], rsp
    mov rsp, fr
    jmp do_iret
%%after:
    CHECK [ev_vec], %1
    CHECK [ev_err], %2
    mov eax, do_iret
    CHECK [ev_rip], rax
    CHECK [ev_rsp], fr
    CHECK_BITS [ev_cs], 0xffff, SEL_CODE64
%endmacro
; that works, and ends in #UD
%macro RUN 5
    FRAME %1, %2, %3, %4, %5
    mov rax, %%after
    mov [resume], rax
    mov [resume_sp], rsp
    mov rsp, fr
    jmp do_iret
%%after:
    CHECK [ev_vec], 6
%endmacro
U64 equ SEL_UCODE64
U32 equ SEL_UCODE32
UD equ SEL_UDATA
SU equ STACK_USER

main:
    SET_DESC S_C16_3, DESC64(BASE, 0xffff, 0xfb, 0)
    SET_DESC S_D16_3, DESC64(BASE, 0xffff, 0xf3, 0)
    SET_DESC S_NP3, DESC64(0, 0xfffff, 0x73, 0xc)
    SET_DESC S_CNP3, DESC64(0, 0xfffff, 0x7b, 0xa)
    SET_DESC S_LD3, DESC64(0, 0xfffff, 0xfb, 0xe)
    SET_DESC S_RO3, DESC64(0, 0xfffff, 0xf1, 0xc)
    SET_DESC S_CONF, DESC64(0, 0xfffff, 0x9f, 0xa)
    SET_DESC S_CODE1, DESC64(0, 0xfffff, 0xbb, 0xa)
    SET_DESC S_DATA1, DESC64(0, 0xfffff, 0xb3, 0xc)

    ; ---- the same level pops SS:RSP too ----
    RUN SEL_DATA, 0x2a123, 2, SEL_CODE64, at_ud
    CHECK [ev_rsp], 0x2a123
    CHECK [ev_ss], SEL_DATA
    RUN 0, 0x2a000, 2, SEL_CODE64, at_ud          ; null SS at CPL 0
    CHECK [ev_ss], 0
    RUN SEL_DATA, 0x2a000, 2, S_CONF, at_ud
    RUN SEL_DATA, 0x2a000, 2, SEL_CODE32, at_ud   ; to compatibility mode, CPL 0
    CHECK [ev_cs], SEL_CODE32
%ifndef PEER                            ; QEMU and Bochs take any null SS
    BADF 13, 0, 3, 0x2a000, 2, SEL_CODE64, at_ud
    BADF 13, 0, 0, 0x2a000, 2, SEL_CODE32, at_ud
%endif
    BADF 13, UD & ~3, UD, SU, 2, SEL_CODE64, at_ud

    ; ---- CS ----
    BADF 13, 0, UD, SU, 2, 0, at_ud
    BADF 13, 0, UD, SU, 2, 3, at_ud
    BADF 13, 0x1f8, UD, SU, 2, 0x1fb, at_ud
    BADF 13, UD & ~3, UD, SU, 2, UD, at_ud
    BADF 13, SEL_CODE64, UD, SU, 2, SEL_CODE64 | 3, at_ud
    BADF 13, U64 & ~3, UD, SU, 2, U64 & ~3, at_ud
    BADF 11, S_CNP3, UD, SU, 2, S_CNP3 | 3, at_ud
%ifndef PEER_QEMU                       ; QEMU takes L with D
    BADF 13, S_LD3, UD, SU, 2, S_LD3 | 3, at_ud
%endif
%ifndef PEER_QEMU                       ; QEMU commits first
    BADF 13, 0, UD, SU, 2, U64, 0x800000000000
    BADF 13, 0, SEL_DATA, SU, 2, SEL_CODE64, 0x800000000000
%endif
    ; outside 64-bit code the upper half of the frame's RIP does not count
    RUN UD, SU, 2, U32, 0x100000000 + A(at_ud)
%ifndef PEER_QEMU                       ; QEMU runs at the whole of it
    mov eax, at_ud
    CHECK [ev_rip], rax
%endif

    ; ---- SS of an outer level ----
    BADF 13, 0, 0, SU, 2, U64, at_ud
    BADF 13, 0, 3, SU, 2, U64, at_ud
    BADF 13, 0x1f8, 0x1fb, SU, 2, U64, at_ud
    BADF 13, SEL_DATA, SEL_DATA, SU, 2, U64, at_ud
    BADF 13, SEL_DATA, SEL_DATA | 3, SU, 2, U64, at_ud
    BADF 13, UD & ~3, UD & ~3, SU, 2, U64, at_ud
    BADF 13, S_RO3, S_RO3 | 3, SU, 2, U64, at_ud
    BADF 13, U64 & ~3, U64, SU, 2, U64, at_ud
%ifndef PEER                            ; QEMU and Bochs raise #NP
    BADF 12, S_NP3, S_NP3 | 3, SU, 2, U64, at_ud
%endif
    RUN 1, SU, 2, S_CODE1 | 1, at_ud              ; null with RPL 1 at CPL 1
    CHECK [ev_cs], S_CODE1 | 1
    CHECK [ev_ss], 1
    RUN S_DATA1 | 1, SU, 2, S_CODE1 | 1, at_ud
    CHECK [ev_ss], S_DATA1 | 1

    ; ---- RSP that is not canonical is loaded all the same ----
    mov rbx, 0x123456789abcdef0
    RUN UD, rbx, 2, U64, at_ud
    mov rbx, 0x123456789abcdef0
    CHECK [ev_rsp], rbx
    ; 32-bit stacks take ESP, 16-bit stacks SP
    RUN UD, 0x2b000, 2, U32, at_ud
    CHECK_BITS [ev_rsp], 0xffffffff, 0x2b000
    RUN S_D16_3 | 3, 0x12348, 2, S_C16_3 | 3, R16(at_ud)
    CHECK_BITS [ev_rsp], 0xffff, 0x2348
    CHECK_BITS [ev_rip], 0xffff, R16(at_ud)

    ; ---- flags ----
    RUN UD, SU, 0x3f7fd7, U64, at_ud
%ifndef PEER_QEMU                       ; QEMU loads no VIF and VIP
    CHECK_BITS [ev_flags], 0x3eefd7, 0x3c6fd7 ; all but VM
%endif
    RUN UD, SU, 0x3202, U64, at_ud                ; IOPL 3, IF
    CHECK_BITS [ev_flags], 0x3202, 0x3202
    RUN UD, SU, 0x20002, U64, at_ud               ; VM is ignored in long mode
    CHECK_BITS [ev_flags], 0x20000, 0
    ; CPL 3, IOPL 0: IOPL and IF stay as they are
    mov qword [user_flags], 2
    USER 6, 0, user_iret
    CHECK_BITS [ev_flags], 0x3202, 2
    CHECK_BITS [ev_flags], 0x40cd5, 0x40cd5       ; AC and the others change
    mov qword [user_flags], 0x3002                ; IOPL 3: IF changes, IOPL not
    USER 6, 0, user_iret
    CHECK_BITS [ev_flags], 0x3202, 0x3202
    mov qword [user_flags], 2

    ; 16- and 32-bit forms
    mov rsp, STACK0
    sub rsp, 5 * 4
    mov dword [rsp], at_ud
    mov dword [rsp + 4], SEL_CODE64
    mov dword [rsp + 8], 0x40002
    mov dword [rsp + 12], 0x2a000
    mov dword [rsp + 16], SEL_DATA
    TRY 6, 0, iretd
%ifndef PEER_BOCHS                      ; Bochs pops SS:ESP with IRETQ only
    CHECK [ev_rsp], 0x2a000
%endif
    CHECK_BITS [ev_flags], 0x40000, 0x40000
    mov rsp, STACK0

    ; NT: no tasks in long mode
    pushfq
    or dword [rsp], 0x4000
    popfq
    FAULT 13, 0, iretq
    CHECK_BITS [ev_inflags], 0x4000, 0

    ; ---- data segments: DPL below the new CPL become null, null loses its RPL ----
    mov ax, SEL_DATA
    mov ds, ax
    mov fs, ax
    mov ax, SEL_UDATA
    mov es, ax
    mov ax, S_CONF
    mov gs, ax
    RUN UD, SU, 2, U64, user_segments
    mov ax, SEL_DATA
    mov ds, ax
    CHECK [seen], 0
    CHECK [seen + 8], UD
    CHECK [seen + 16], 0
    CHECK [seen + 24], S_CONF
%ifndef PEER_QEMU                       ; QEMU keeps RPL of null FS and GS
    mov ax, 3
    mov fs, ax
    RUN UD, SU, 2, U64, user_segments
    CHECK [seen + 16], 0
%endif

    ; FS base survives with a null selector
    xor eax, eax
    mov fs, ax
    mov ecx, 0xc0000100
    mov eax, 0x12345000
    xor edx, edx
    wrmsr
    RUN UD, SU, 2, U64, at_ud
    mov ecx, 0xc0000100
    rdmsr
    CHECK rax, 0x12345000

    ; ---- compatibility mode: pops SS:ESP only to an outer level ----
    push SEL_CODE32
    mov eax, compat
    push rax
    mov rax, .compat_done
    mov [resume], rax
    mov [resume_sp], rsp
    o64 retf
.compat_done:
    CHECK [ev_vec], 6
    CHECK [ev_cs], SEL_CODE32
    CHECK [ev_rsp], STACK_USER
    mov eax, compat.end
    CHECK [ev_rip], rax

    ; ---- RETF from 64-bit mode ----
    mov rsp, STACK0
    push UD
    push SU
    push U64
    push at_ud
    TRY 6, 0, o64 retf
    CHECK [ev_cs], U64
    CHECK [ev_rsp], SU
    mov rsp, STACK0
    push 0
    push SU
    push U64
    push at_ud
    FAULT 13, 0, o64 retf
    mov rsp, STACK0
    push 0x1234
    push SEL_CODE64
    push at_ud
    TRY 6, 0, o64 retf 8
    CHECK [ev_rsp], STACK0
    mov rsp, STACK0
    mov rax, 0x800000000000
    push SEL_CODE64
    push rax
%ifndef PEER_QEMU
    FAULT 13, 0, o64 retf
%endif
    mov rsp, STACK0

    ; ---- RF holds until the next instruction: an interrupt before it saves it ----
    mov edi, 0xfee00000
    mov dword [rdi + 0xf0], 0x1ff       ; the APIC: on
    mov ebp, 50
.held:
    mov dword [rdi + 0x300], 0x40050    ; an interrupt to itself
    FRAME SEL_DATA, STACK0, 0x10202, SEL_CODE64, .resumed
    mov qword [resume], .taken
    mov [resume_sp], rsp
    mov rsp, fr
    jmp do_iret
.resumed:
    call no_event
.taken:
    CHECK [ev_vec], 0x50
    mov eax, .resumed
    CHECK [ev_rip], rax
    CHECK_BITS [ev_flags], 0x10200, 0x10200
    mov dword [rdi + 0xb0], 0
    ; and none is there when it was executed
    FRAME SEL_DATA, STACK0, 0x10002, SEL_CODE64, .executed
    mov qword [resume], .behind
    mov [resume_sp], rsp
    mov rsp, fr
    jmp do_iret
.executed:
    nop
    int 0x51
.behind:
    CHECK [ev_vec], 0x51
%ifndef PEER_QEMU                       ; keeps RF until the handler
    CHECK_BITS [ev_flags], 0x10200, 0
%endif
    dec ebp
    jnz .held
    PASS

do_iret:
    iretq
at_ud:
    ud2
user_iret:
    push SEL_UDATA
    push STACK_USER
    push 0x40ed7 & ~0x100
    push SEL_UCODE64
    push at_ud
    iretq
user_segments:
    mov ax, ds
    movzx eax, ax
    mov [seen], rax
    mov ax, es
    mov [seen + 8], rax
    mov ax, fs
    mov [seen + 16], rax
    mov ax, gs
    mov [seen + 24], rax
    ud2
bits 32
compat:
    mov ax, SEL_DATA
    mov ss, ax
    mov esp, STACK_USER
    pushfd
    push SEL_CODE32
    push .end
    iretd
.end:
    ud2
bits 64
align 8
    times 32 dq 0             ; a stack for events
fr: times 5 dq 0
seen: times 4 dq 0
ROM_END
