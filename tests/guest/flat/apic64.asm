; The local APIC (SDM Vol. 3, chapter 10), first as xAPIC, then as x2APIC:
; priorities, EOI, the timer in all its modes, interrupts between processors by
; all delivery modes, destinations and shorthands. Nothing asks how long
; something takes: the timer's tests ask for order and minimum counts.
; vireo: --cpus 2
; qemu: -smp 2
; bochs: cpus=2
%define MODE 64
%include "common.inc"
%include "smp.inc"

LVT_MASKED equ 1 << 16
PERIODIC equ 1 << 17
DEADLINE equ 2 << 17
MSR_DEADLINE equ 0x6e0
LOGICAL equ 1 << 11
LOWEST equ 1 << 8
NMI equ 4 << 8
INIT equ 5 << 8
SIPI equ 6 << 8
ASSERT equ 1 << 14
SELF equ 1 << 18
ALL equ 2 << 18
OTHERS equ 3 << 18

FIRST equ 0x30                ; vectors with a handler that counts
LAST equ 0x7f
%define GOT(cpu, vector) dword [counts + (cpu) * 1024 + (vector) * 4]

%macro WRITE 2                ; register, value
    mov ecx, %1
    mov eax, %2
    call apic_write
%endmacro
%macro READ 1                 ; to EAX
    mov ecx, %1
    call apic_read
%endmacro
%macro SEND 2                 ; destination, what
    mov esi, %1
    mov eax, %2
    call send
%endmacro
%macro WAIT_FOR 3             ; processor, vector, how many at least
    UNTIL ae, cmp GOT(%1, %2), %3
%endmacro
%macro COUNTED 3              ; exactly
    mov ebx, GOT(%1, %2)
    CHECK rbx, %3
%endmacro
%macro REGISTER 2
    READ %1
    mov ebx, eax
    CHECK rbx, %2
%endmacro

main:
    mov r15d, APIC
    xor r13d, r13d                      ; this processor's part of counts
    mov eax, handlers
    mov ecx, FIRST
.gates:
    mov edx, ecx
    shl edx, 4
    mov [idt + rdx], ax
    mov ebx, eax
    shr ebx, 16
    mov [idt + rdx + 6], bx
    add eax, 16
    inc ecx
    cmp ecx, LAST
    jbe .gates
    SET_GATE 2, on_nmi
    SET_GATE 0xff, spurious
    mov eax, 1
    cpuid
    mov [features], ecx
    call all
    bt dword [features], 21
    jnc .passed
    ; x2APIC mode is entered from xAPIC mode and not left to it
    call to_x2apic
    mov ecx, 0x1b
    rdmsr
    and eax, ~(1 << 10)
    mov [try_ax], rax
    FAULT 13, 0, wrmsr
    call all
    ; what is no MSR, cannot be read, or has reserved bits
    mov qword [try_ax], 0
    mov ecx, 0x80e                      ; DFR
    FAULT 13, 0, rdmsr
    mov ecx, 0x80b                      ; EOI
    FAULT 13, 0, rdmsr
    mov ecx, 0x831                      ; ICR's high half
    FAULT 13, 0, rdmsr
    mov ecx, 0x802                      ; ID
    xor edx, edx
    FAULT 13, 0, wrmsr
    mov ecx, 0x80d                      ; LDR
    xor edx, edx
    FAULT 13, 0, wrmsr
    mov qword [try_ax], 1
    mov ecx, 0x80b
    xor edx, edx
    FAULT 13, 0, wrmsr
    mov qword [try_ax], 0x100
    mov ecx, 0x808
    xor edx, edx
    FAULT 13, 0, wrmsr
    mov ecx, 0x80d
    rdmsr
    mov ebx, eax
    CHECK rbx, 1
.passed:
    PASS

all:
    WRITE APIC_SVR, 0x1ff
    xor eax, eax
    mov cr8, rax
    call priorities
    call shadows
    call timer
    bt dword [features], 24
    jnc .no_deadline
    call deadline
.no_deadline:
    call clear
    call start_other
    call between
    call startup
    ret

clear:
    mov edi, counts
    xor eax, eax
    mov ecx, 2048 / 4
    rep stosd
    mov [order], rax
    mov [order_next], eax
    ret

; ---- priorities ----
priorities:
    call clear
    cli
    SEND 0, SELF | 0x31
    SEND 0, SELF | 0x61
    SEND 0, SELF | 0x41
    SEND 0, SELF | 0x6f
    SEND 0, SELF | 0x41                 ; the same: one
    READ APIC_IRR + 0x30                ; 6FH and 61H
    mov ebx, eax
    CHECK rbx, 0x8002
    sti
    times 4 nop
    cli
    mov rax, [order]                    ; the highest first
    mov ebx, eax
    CHECK rbx, 0x3141616f
    COUNTED 0, 0x41, 1
    ; TPR holds back its class and those below; IRR keeps them
    call clear
    WRITE APIC_TPR, 0x5f
    REGISTER APIC_PPR, 0x5f
    mov rax, cr8
    CHECK rax, 5
    SEND 0, SELF | 0x51
    SEND 0, SELF | 0x5f
    SEND 0, SELF | 0x60
    sti
    times 4 nop
    COUNTED 0, 0x60, 1
    COUNTED 0, 0x5f, 0
    mov eax, 4
    mov cr8, rax
    times 4 nop
    cli
    COUNTED 0, 0x5f, 1
    COUNTED 0, 0x51, 1
    REGISTER APIC_TPR, 0x40
    xor eax, eax
    mov cr8, rax
    ; in service: PPR, and only a higher class gets through until EOI
    call clear
    mov qword [nested], in_service
    SEND 0, SELF | 0x45
    sti
    times 4 nop
    cli
    mov rax, [order]
    mov rcx, 0x4244475545
    CHECK rax, rcx
    REGISTER APIC_PPR, 0
    ; an illegal vector; errors are read after a write
%ifndef PEER_QEMU                       ; QEMU delivers it
    WRITE APIC_ESR, 0
    SEND 0, SELF | 0x0f
    WRITE APIC_ESR, 0
    READ APIC_ESR
    mov ebx, eax
%ifndef PEER                            ; QEMU and Bochs: keep no errors
    CHECK_BITS rbx, 0x20, 0x20          ; send illegal vector
%endif
    WRITE APIC_ESR, 0
    REGISTER APIC_ESR, 0
%endif
    ret

; In 45H's handler, interrupts off, before EOI.
in_service:
    mov qword [nested], 0
    READ APIC_PPR
    mov ebx, eax
    CHECK rbx, 0x40
    READ APIC_ISR + 0x20
    mov ebx, eax
    CHECK rbx, 0x20
    SEND 0, SELF | 0x42                 ; lower, same class
    SEND 0, SELF | 0x47                 ; higher, same class
    SEND 0, SELF | 0x44
    SEND 0, SELF | 0x55                 ; higher class
    sti
    times 4 nop
    cli
    COUNTED 0, 0x55, 1
    COUNTED 0, 0x47, 0
    ret

; ---- to oneself, in shadows: never in front of the instruction in the shadow ----
shadows:
    call clear
    mov edx, 10
.next:
    push rdx
    mov eax, .sti_done
    mov [not_before], rax
    WRITE APIC_TPR, 0
    mov esi, 0
    mov eax, SELF | 0x50
    mov ecx, SEL_DATA
    cmp byte [x2apic], 0
    jne .x2
    sti
    mov [r15 + APIC_ICR], eax
.sti_done:
    nop
    nop
    cli
    mov rax, .ss_done
    mov [not_before], rax
    mov eax, SELF | 0x50
    sti
    nop
    mov ss, ecx
    mov [r15 + APIC_ICR], eax
.ss_done:
    nop
    nop
    cli
    jmp .both
.x2:
    mov ecx, 0x83f
    mov eax, 0x50
    mov edx, 0
    mov rbx, .x2_done
    mov [not_before], rbx
    sti
    wrmsr
.x2_done:
    nop
    nop
    cli
    mov rbx, .x2_ss_done
    mov [not_before], rbx
    mov ebx, SEL_DATA
    sti
    nop
    mov ss, ebx
    wrmsr
.x2_ss_done:
    nop
    nop
    cli
.both:
    pop rdx
    dec edx
    jnz .next
    mov qword [not_before], 0
    COUNTED 0, 0x50, 20
    ret

; ---- timer ----
timer:
    ; one shot, with each divisor
    call clear
    mov r12d, 1
.divide:
    lea eax, [r12 - 1]                  ; bits 0, 1 and 3
    mov ebx, eax
    and eax, 3
    and ebx, 4
    lea eax, [rax + rbx * 2]
    mov ebp, eax
    WRITE APIC_TIMER_DIVIDE, ebp
    READ APIC_TIMER_DIVIDE
    mov ebx, eax
    CHECK rbx, rbp
    WRITE APIC_LVT_TIMER, 0x50
    WRITE APIC_TIMER_INITIAL, 500
    call halt_for_50
    READ APIC_TIMER_CURRENT
    mov ebx, eax
    CHECK rbx, 0
    REGISTER APIC_TIMER_INITIAL, 500
    mov ebx, GOT(0, 0x50)
    CHECK rbx, r12                      ; one each
    inc r12d
    cmp r12d, 8
    jbe .divide
    ; it counts down from the initial count, and a divisor may change meanwhile
    WRITE APIC_TIMER_DIVIDE, 0xb
    WRITE APIC_TIMER_INITIAL, 0xffffffff
    READ APIC_TIMER_CURRENT
    mov r12d, eax
    mov ebp, 10
.down:
    READ APIC_TIMER_CURRENT
    cmp eax, r12d
    jbe .is_down
    call failed
.is_down:
    mov r12d, eax
    mov ecx, 0xa                        ; by 128, by 1 in turns
    test ebp, 1
    jz .which
    mov ecx, 0xb
.which:
    mov edx, ecx
%ifndef PEER                            ; QEMU and Bochs: count from its start anew
    WRITE APIC_TIMER_DIVIDE, edx
%endif
    dec ebp
    jnz .down
    cmp r12d, 0x80000000
    ja .counts
    call failed
.counts:
    WRITE APIC_TIMER_INITIAL, 0         ; stops
    REGISTER APIC_TIMER_CURRENT, 0
    ; masked: nothing comes, then or later
    call clear
    WRITE APIC_TIMER_DIVIDE, 0xb
    WRITE APIC_LVT_TIMER, LVT_MASKED | 0x50
    WRITE APIC_TIMER_INITIAL, 1000
.masked:
    READ APIC_TIMER_CURRENT
    test eax, eax
    jnz .masked
    WRITE APIC_LVT_TIMER, 0x50
    sti
    times 8 nop
    cli
    COUNTED 0, 0x50, 0
    ; periodic
    WRITE APIC_LVT_TIMER, PERIODIC | 0x50
    WRITE APIC_TIMER_INITIAL, 50000
    mov ebp, 5
.periods:
    call halt_for_50
    READ APIC_TIMER_CURRENT
    cmp eax, 50000
    jbe .in_period
    call failed
.in_period:
    dec ebp
    jnz .periods
    WRITE APIC_TIMER_INITIAL, 0
    sti
    times 8 nop                         ; one may have come meanwhile
    cli
    mov ebp, GOT(0, 0x50)
    cmp ebp, 5
    jae .enough
    call failed
.enough:
    mov ecx, 3000
.quiet:
    in al, 0xed
    loop .quiet
    sti
    times 8 nop
    cli
    mov ebx, GOT(0, 0x50)
    CHECK rbx, rbp
    ; a period that is replaced by a shot
    WRITE APIC_TIMER_INITIAL, 2000
    WRITE APIC_LVT_TIMER, 0x51
.last_period:
    READ APIC_TIMER_CURRENT
    test eax, eax
    jnz .last_period
    sti
    times 8 nop
    cli
    call clear
    WRITE APIC_TIMER_INITIAL, 2000
    sti
    WAIT_FOR 0, 0x51, 1
    cli
    REGISTER APIC_TIMER_CURRENT, 0
%ifndef PEER_QEMU                       ; QEMU: can be unmasked then
    ; software disable masks, and does not unmask later
    WRITE APIC_SVR, 0xff
    READ APIC_LVT_TIMER
    mov ebx, eax
    CHECK_BITS rbx, LVT_MASKED, LVT_MASKED
    WRITE APIC_LVT_TIMER, 0x50
    READ APIC_LVT_TIMER
    mov ebx, eax
    CHECK_BITS rbx, LVT_MASKED, LVT_MASKED
    WRITE APIC_SVR, 0x1ff
    READ APIC_LVT_TIMER
    mov ebx, eax
    CHECK_BITS rbx, LVT_MASKED, LVT_MASKED
%endif
    ret

; Halts until vector 50H has come once more.
halt_for_50:
    mov ebx, GOT(0, 0x50)
.wait:
    cli
    cmp ebx, GOT(0, 0x50)
    jne .come
    sti
    hlt
    jmp .wait
.come:
    cli
    ret

%macro ARM 0                  ; RAX
    mov rdx, rax
    shr rdx, 32
    mov ecx, MSR_DEADLINE
    wrmsr
%endmacro
%macro ARMED 0                ; to RAX
    mov ecx, MSR_DEADLINE
    rdmsr
    shl rdx, 32
    or rax, rdx
%endmacro
%macro NOW 0
    rdtsc
    shl rdx, 32
    or rax, rdx
%endmacro
deadline:
    call clear
    ; in other modes it does not exist
    WRITE APIC_LVT_TIMER, 0x50
%ifndef PEER_BOCHS                      ; Bochs has it in all modes
    mov rax, -1
    ARM
    ARMED
    CHECK rax, 0
%endif
    WRITE APIC_LVT_TIMER, DEADLINE | 0x50
    mov ebp, 10
.next:
    NOW
    add rax, 200000
    mov r12, rax
    ARM
    call halt_for_50
    NOW
    cmp rax, r12
    jae .late
    call failed
.late:
    ARMED
    CHECK rax, 0
    dec ebp
    jnz .next
    COUNTED 0, 0x50, 10
    ; the past fires at once
    mov eax, 1
    ARM
    sti
    WAIT_FOR 0, 0x50, 11
    cli
    ; far away, and back to nothing; the counter does not work in this mode
    mov rax, 0x7000000000000000
    ARM
    ARMED
    mov rcx, 0x7000000000000000
    CHECK rax, rcx
    WRITE APIC_TIMER_INITIAL, 1000
    REGISTER APIC_TIMER_CURRENT, 0
    xor eax, eax
    ARM
    ARMED
    CHECK rax, 0
    ; a nearer one instead of a far one
    mov rax, 0x7000000000000000
    ARM
    NOW
    add rax, 100000
    ARM
    call halt_for_50
    COUNTED 0, 0x50, 12
    ; another mode disarms
    mov rax, 0x7000000000000000
    ARM
    WRITE APIC_LVT_TIMER, 0x50
    ARMED
    CHECK rax, 0
    WRITE APIC_LVT_TIMER, DEADLINE | 0x50
    ARMED
    CHECK rax, 0
    WRITE APIC_LVT_TIMER, LVT_MASKED | 0x50
    ret

; ---- between processors ----
%macro BOTH_GET 3             ; vector, how many processor 0 and 1 have
    sti
  %if %2
    WAIT_FOR 0, %1, %2
  %endif
  %if %3
    WAIT_FOR 1, %1, %3
  %endif
    cli
    call settle
    COUNTED 0, %1, %2
    COUNTED 1, %1, %3
%endmacro
between:
    SEND 1, 0x40
    BOTH_GET 0x40, 0, 1
    SEND 0, 0x41
    BOTH_GET 0x41, 1, 0
    SEND 0, SELF | 0x42
    BOTH_GET 0x42, 1, 0
    SEND 0, ALL | 0x43
    BOTH_GET 0x43, 1, 1
    SEND 0, OTHERS | 0x44
    BOTH_GET 0x44, 0, 1
    mov esi, 0xff
    cmp byte [x2apic], 0
    je .broadcast
    mov esi, -1
.broadcast:
    mov eax, 0x45
    call send
    BOTH_GET 0x45, 1, 1
    SEND 5, 0x46                        ; nobody
    BOTH_GET 0x46, 0, 0
    ; logical, flat: 1 and 2; in x2APIC mode these follow from the id
    mov dword [want_dfr], -1
    mov dword [want_ldr], 0x01000000
    mov dword [want_ldr + 4], 0x02000000
    call configure
    SEND 1, LOGICAL | 0x50
    BOTH_GET 0x50, 1, 0
    SEND 2, LOGICAL | 0x51
    BOTH_GET 0x51, 0, 1
    SEND 3, LOGICAL | 0x52
    BOTH_GET 0x52, 1, 1
    SEND 4, LOGICAL | 0x53
    BOTH_GET 0x53, 0, 0
    ; the lowest priority: one of both
    mov ebp, 20
.lowest:
    SEND 3, LOGICAL | LOWEST | 0x54
    sti
.one:
    pause
    mov eax, GOT(0, 0x54)
    add eax, GOT(1, 0x54)
    lea eax, [rax + rbp]
    cmp eax, 21
    jb .one
    cli
    dec ebp
    jnz .lowest
    call settle
    mov ebx, GOT(0, 0x54)
    add ebx, GOT(1, 0x54)
    CHECK rbx, 20
    ; the other's TPR
    mov dword [want_tpr], 0x50
    call configure
    SEND 1, 0x55
    SEND 1, 0x60
    BOTH_GET 0x60, 0, 1
    BOTH_GET 0x55, 0, 0
    mov dword [want_tpr], 0
    call configure
    BOTH_GET 0x55, 0, 1
%ifndef PEER_QEMU                       ; QEMU 7.2 delivers nothing here
    cmp byte [x2apic], 0
    jne .no_cluster
    ; clusters
    mov dword [want_dfr], 0x0fffffff
    mov dword [want_ldr], 0x11000000
    mov dword [want_ldr + 4], 0x22000000
    call configure
    SEND 0x11, LOGICAL | 0x70
    BOTH_GET 0x70, 1, 0
    SEND 0x2f, LOGICAL | 0x71
    BOTH_GET 0x71, 0, 1
    SEND 0x12, LOGICAL | 0x72
    BOTH_GET 0x72, 0, 0
    SEND 0xff, LOGICAL | 0x73
    BOTH_GET 0x73, 1, 1
    mov dword [want_dfr], -1
    call configure
.no_cluster:
%endif
    ; NMI: with interrupts off, and with whatever vector
    mov dword [nmis], 0
    mov dword [nmis + 4], 0
    SEND 1, NMI
    UNTIL e, cmp dword [nmis + 4], 1
    SEND 0, OTHERS | NMI | 0x33
    UNTIL e, cmp dword [nmis + 4], 2
    SEND 0, NMI
    UNTIL e, cmp dword [nmis], 1
    ; a thousand to the other, each acknowledged before the next
    mov ebp, 1
    mov dword [counts + 1024 + 0x56 * 4], 0
.many:
    SEND 1, 0x56
    WAIT_FOR 1, 0x56, ebp
    inc ebp
    cmp ebp, 200
    jbe .many
%ifndef PEER_QEMU                       ; QEMU: takes them
    ; software-disabled, it takes none, but an NMI
    mov dword [want_svr], 0xff
    call configure
    SEND 1, 0x57
    SEND 1, NMI
    UNTIL e, cmp dword [nmis + 4], 3
    mov dword [want_svr], 0x1ff
    call configure
    call settle
    COUNTED 1, 0x57, 0
%endif
    ret

; Time for what must not come.
settle:
    sti
    mov ecx, 200
.wait:
    in al, 0xed
    loop .wait
    cli
    ret

; ---- INIT and SIPI ----
startup:
    ; a SIPI to one that runs is nothing
    mov eax, [starts]
    mov ebp, eax
    SEND 1, SIPI | 0x09
    SEND 1, SIPI | AP_VECTOR
    ; nor is an INIT's level that ends
    SEND 1, INIT | (1 << 15)
    call alive
    mov ebx, [starts]
    CHECK rbx, rbp
    ; INIT stops it
    SEND 1, INIT | ASSERT
.stops:
    mov ebx, [heartbeat]
    mov ecx, 300
.beats:
    in al, 0xed
    loop .beats
    cmp ebx, [heartbeat]
    jne .stops
    SEND 1, 0x40                        ; an interrupt does not start it
    call settle
    cmp ebx, [heartbeat]
    je .stopped
    call failed
.stopped:
    ; another vector: real mode, at VV00:0000
    mov esi, probe
    mov edi, 0x9000
    mov ecx, probe_end - probe
    rep movsb
    mov dword [probed], 0
    SEND 1, SIPI | 0x09
    UNTIL e, cmp dword [probed], 1
    movzx ebx, word [probed + 4]
    CHECK rbx, 0x900
    mov ebx, [probed + 8]               ; CR0: no paging, no protection
    CHECK_BITS rbx, 0x80000001, 0
    mov ebx, [probed + 12]
    CHECK rbx, 3                        ; IP behind the CALL
    ; and from there by INIT and SIPI to where it was before
    call start_other
    call alive
    ret

alive:
    mov ebx, [heartbeat]
    UNTIL ne, cmp ebx, [heartbeat]
    ret

bits 16
probe:
    call .here
.here:
    pop cx
    mov ax, 0x4000
    mov ds, ax
    movzx ecx, cx
    mov [probed - 0x40000 + 12], ecx
    mov [probed - 0x40000 + 4], cs
    mov eax, cr0
    mov [probed - 0x40000 + 8], eax
    mov dword [probed - 0x40000], 1
    hlt
    jmp probe
probe_end:
bits 64
probed equ 0x40000            ; where 16-bit code reaches

; Processor 1 starts (again), by INIT and SIPI.
start_other:
    mov dword [want_svr], 0x1ff
    mov dword [want_tpr], 0
    mov ebx, [starts]
    cmp byte [x2apic], 0
    jne .x2
    START_AP other
    jmp .wait
.x2:
    mov esi, ap_real
    mov edi, AP_VECTOR << 12
    mov ecx, ap_real_end - ap_real
    rep movsb
    SEND 1, INIT | ASSERT
    call settle
    SEND 1, SIPI | AP_VECTOR
.wait:
    UNTIL ne, cmp ebx, [starts]
    ret

; Tells the other one its registers, and sets one's own.
configure:
    cmp byte [x2apic], 0
    jne .tell
    WRITE APIC_DFR, [want_dfr]
    WRITE APIC_LDR, [want_ldr]
.tell:
    inc dword [want]
    mov eax, [want]
.wait:
    pause
    cmp eax, [done]
    jne .wait
    ret

; Processor 1.
other:
    mov r13d, 1024
    cmp byte [x2apic], 0
    je .xapic
    mov ecx, 0x1b
    rdmsr
    bts eax, 10
    wrmsr
.xapic:
    WRITE APIC_SVR, 0x1ff
    mov eax, [want]
    mov [done], eax
    inc dword [starts]
    sti
.loop:
    inc dword [heartbeat]
    pause
    mov ebx, [want]
    cmp ebx, [done]
    je .loop
    cli
    WRITE APIC_TPR, [want_tpr]
    WRITE APIC_SVR, [want_svr]
    cmp byte [x2apic], 0
    jne .set
    WRITE APIC_DFR, [want_dfr]
    WRITE APIC_LDR, [want_ldr + 4]
.set:
    sti
    nop
    mov [done], ebx
    jmp .loop

to_x2apic:
    mov ecx, 0x1b
    rdmsr
    bts eax, 10
    wrmsr
    mov byte [x2apic], 1
    ret

; ECX: offset of the xAPIC page; EAX: value. Keeps all but RAX, RCX and RDX.
apic_write:
    cmp byte [x2apic], 0
    jne .x2
    mov [r15 + rcx], eax
    ret
.x2:
    shr ecx, 4
    add ecx, 0x800
    xor edx, edx
    wrmsr
    ret
apic_read:
    cmp byte [x2apic], 0
    jne .x2
    mov eax, [r15 + rcx]
    ret
.x2:
    shr ecx, 4
    add ecx, 0x800
    rdmsr
    ret
; ESI: destination; EAX: what
send:
    cmp byte [x2apic], 0
    jne .x2
    shl esi, 24
    mov [r15 + APIC_ICR_HIGH], esi
    mov [r15 + APIC_ICR], eax
.busy:
    bt dword [r15 + APIC_ICR], 12
    jc .busy
    ret
.x2:
    mov ecx, 0x830
    mov edx, esi
    wrmsr
    ret

spurious:
    iretq
on_nmi:
    push rax
    mov eax, r13d
    shr eax, 8
    inc dword [nmis + rax]
    pop rax
    iretq

; R13: the processor's part of counts. Processor 0 writes down the order.
%macro HANDLER 1
    align 16
    push rax
    mov eax, %1
    jmp near counted
%endmacro
align 16
handlers:
%assign vector FIRST
%rep LAST - FIRST + 1
    HANDLER vector
  %assign vector vector + 1
%endrep
counted:
    push rbx
    push rcx
    push rdx
    push rsi
    lea rbx, [counts + r13 + rax * 4]
    inc dword [rbx]
    test r13d, r13d
    jnz .eoi
    mov ecx, [order_next]
    and ecx, 7
    inc dword [order_next]
    mov [order + rcx], al
    mov rcx, [not_before]
    test rcx, rcx
    jz .any
    cmp [rsp + 40], rcx                 ; RIP of the frame
    jae .any
    call failed
.any:
    mov rcx, [nested]
    test rcx, rcx
    jz .eoi
    call rcx
.eoi:
    WRITE APIC_EOI, 0
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    iretq

align 64
counts: times 2048 db 0
order: dq 0
order_next: dd 0, 0
nested: dq 0
not_before: dq 0
features: dd 0
x2apic: db 0
align 64
want: dd 0
want_dfr: dd -1
want_ldr: dd 0, 0
want_tpr: dd 0
want_svr: dd 0x1ff
done: dd 0
starts: dd 0
nmis: dd 0, 0
align 64
heartbeat: dd 0
ROM_END
