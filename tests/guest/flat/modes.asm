; In and out of long mode: what EFER, CR0 and CR4 refuse, compatibility mode of
; 32 and 16 bits, segments in 64-bit mode, instructions that are invalid there,
; canonical addresses (SDM Vol. 3, 9.8.5, 3.4.4, 4.1; Vol. 2).
%define MODE 64
%include "common.inc"

S_C16 equ 0x60                ; 16-bit code, base BASE, DPL 0
S_SMALL equ 0x68              ; data of 16 bytes at 30000H
S_GATE equ 0x70               ; call gate, 16 bytes
S_CODE32B equ 0x80            ; 32-bit code, base BASE, limit 64 KiB

main:
    SET_DESC S_C16, DESC64(BASE, 0xffff, 0x9b, 0)
    SET_DESC S_SMALL, DESC64(0x30000, 15, 0x93, 4)
    SET_DESC S_CODE32B, DESC64(BASE, 0xffff, 0x9b, 4)

    ; ---- refused in long mode ----
%ifndef PEER_QEMU                       ; QEMU takes all of these
    mov rax, cr4
    btr rax, 5                          ; PAE
    mov [try_ax], rax
    FAULT 13, 0, mov cr4, rax
    mov rax, cr0
    bts rax, 40                         ; upper half
    mov [try_ax], rax
    FAULT 13, 0, mov cr0, rax
    mov ecx, 0xc0000080
    rdmsr
    CHECK_BITS rax, 0xd01, 0xd01        ; NXE LMA LME SCE
    btr eax, 8
    mov [try_ax], rax
    mov ecx, 0xc0000080
    FAULT 13, 0, wrmsr                  ; LME while paging
    mov rax, 1 << 60
    mov [try_ax], rax
    FAULT 13, 0, mov cr3, rax           ; reserved
%endif
    FAULT 6, 0, db 0x0f, 0x22, 0xc8     ; MOV CR1

    ; ---- segments of 64-bit mode: no base, no limit, but FS and GS ----
    mov ax, S_SMALL
    mov ds, ax
    mov es, ax
    mov rbx, [scratch]
    db 0x26                             ; ES: is ignored
    mov [scratch], rbx
    mov fs, ax
    mov qword [0x30008], 0x1234
    CHECK [fs:8], 0x1234                ; its base counts
    mov rbx, [fs:0x1000]                ; its limit does not
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    ; a negative offset from a base wraps
    mov rax, -8
    CHECK [fs:rax + 16], 0x1234
    ; null selectors are good
    xor eax, eax
    mov ds, ax
    mov rbx, [scratch]
    mov ax, SEL_DATA
    mov ds, ax

    ; ---- canonical addresses ----
    mov rax, 0x800000000000
    mov [try_ax], rax
    FAULT 13, 0, mov rbx, [rax]
%ifndef PEER_QEMU                       ; QEMU finds the absent page first
    FAULT 13, 0, mov rbx, [rax - 1]     ; the last byte is not
    FAULT 13, 0, mov rbx, [rax - 7]
%endif
    FAULT 14, 0, mov rbx, [rax - 8]
%ifndef PEER_QEMU                       ; QEMU faults at the target
    FAULT 13, 0, jmp rax
    FAULT 13, 0, call rax
%endif
%ifndef PEER_QEMU                       ; QEMU raises #GP for the stack too
    mov rbx, rsp
    mov rsp, 0x800000000010
    mov rax, .stack
    mov [resume], rax
    mov [resume_sp], rbx
    ; a push there: #SS(0), whose own frame goes to IST1
    mov byte [idt + 12 * 16 + 4], 1
.push:
    push rbx
    call no_event
.stack:
    mov byte [idt + 12 * 16 + 4], 0
    CHECK [ev_vec], 12
    CHECK [ev_err], 0
    mov rax, .push
    CHECK [ev_rip], rax
    mov rax, 0x800000000000
    mov rbp, rax
    FAULT 12, 0, mov rbx, [rbp]
    FAULT 12, 0, db 0x3e, 0x48, 0x8b, 0x5d, 0x00 ; DS: is ignored as well
%endif
    mov rbx, 0x800000000000
    FAULT 13, 0, mov [rbx], rax
    invlpg [rbx]                        ; not canonical: nothing
    push rbx
%ifndef PEER_QEMU
    FAULT 13, 0, ret                    ; at the RET, before it pops
%endif
    pop rbx
    ; running into the hole: fetched from the last canonical page is absent here

    ; ---- invalid in 64-bit mode ----
    FAULT 6, 0, db 0x06                 ; PUSH ES
    FAULT 6, 0, db 0x0e
    FAULT 6, 0, db 0x16
    FAULT 6, 0, db 0x17                 ; POP SS
    FAULT 6, 0, db 0x1e
    FAULT 6, 0, db 0x27                 ; DAA
    FAULT 6, 0, db 0x2f
    FAULT 6, 0, db 0x37
    FAULT 6, 0, db 0x3f
    FAULT 6, 0, db 0x60                 ; PUSHA
    FAULT 6, 0, db 0x61
    FAULT 6, 0, db 0x9a, 0, 0, 0, 0, 8, 0 ; CALL ptr16:32
    FAULT 6, 0, db 0xea, 0, 0, 0, 0, 8, 0
    FAULT 6, 0, db 0xc4, 0x00           ; LES (with mod 0)
    FAULT 6, 0, db 0xce                 ; INTO
    FAULT 6, 0, db 0xd4, 0x0a           ; AAM
    FAULT 6, 0, db 0xd5, 0x0a
    FAULT 6, 0, db 0xd6
    FAULT 6, 0, db 0x82, 0xc0, 0x00     ; alias of 80H
    FAULT 6, 0, db 0x8e, 0xc8           ; MOV CS, AX
    FAULT 6, 0, db 0x8c, 0xf0           ; MOV AX, segment 6

    ; ---- compatibility mode, 32 bits ----
    mov [resume_sp], rsp
    mov rax, .compat_done
    mov [resume], rax
    mov dword [far_pointer], compat32
    mov word [far_pointer + 4], SEL_CODE32
    mov r8, 0x1122334455667788
    mov rbx, 0x1122334455667788
    jmp far dword [far_pointer]
.compat_done:
    CHECK [ev_vec], 6
    CHECK [ev_cs], SEL_CODE32
    mov eax, compat32.end
    CHECK [ev_rip], rax
    CHECK [seen], 0x0304                ; 67H is a 16-bit address there: see compat32
    mov rax, 0x1122334455667788
    CHECK r8, rax                       ; R8 is out of reach and lives
%ifndef PEER_QEMU                       ; QEMU does not look at limits
    ; limits are checked there
    mov rax, .limit_done
    mov [resume], rax
    mov dword [far_pointer], compat_limit
    jmp far dword [far_pointer]
.limit_done:
    CHECK [ev_vec], 13
    CHECK [ev_err], 0
    mov eax, compat_limit.at
    CHECK [ev_rip], rax
    ; running beyond the code segment's limit
    mov word [0x1fffe], 0x9090
    mov rax, .end_done
    mov [resume], rax
    mov dword [far_pointer], 0xfffe
    mov word [far_pointer + 4], S_CODE32B
    jmp far dword [far_pointer]
.end_done:
    CHECK [ev_vec], 13
    CHECK [ev_rip], 0x10000
%endif

    ; ---- compatibility mode: linear addresses wrap at 4 GiB ----
    ; whatever 64-bit code has in the TLB beyond
    mov qword [PDPT + 4 * 8], 0x201000 | 7 ; 4 GiB + 400000H is at 600000H
    mov qword [0x201000 + 2 * 8], 0x600000 | 0x87
    mov rbx, 0x1005c2800
    mov dword [0x5c2800], 0x32
    mov dword [rbx], 0x64
    mov eax, SEL_DATA
    mov fs, ax
    mov ecx, 0xc0000100                 ; FS base: 4 GiB
    xor eax, eax
    mov edx, 1
    wrmsr
    mov rax, .wrap_done
    mov [resume], rax
    mov dword [far_pointer], compat_wrap
    mov word [far_pointer + 4], SEL_CODE32
    jmp far dword [far_pointer]
.wrap_done:
    CHECK [ev_vec], 6
    CHECK [seen], 0x32
    CHECK [0x5c2800], 0x33
    CHECK [rbx], 0x64

    ; ---- compatibility mode, 16 bits ----
    mov rax, .c16_done
    mov [resume], rax
    mov dword [far_pointer], R16(compat16)
    mov word [far_pointer + 4], S_C16
    jmp far dword [far_pointer]
.c16_done:
    CHECK [ev_vec], 6
    CHECK [ev_cs], S_C16
    CHECK_BITS [seen], 0xffffffff, 0x00015678 ; 16-bit add, upper half alone
    ; by a 64-bit call gate out of compatibility mode
    mov rax, GATE64(SEL_CODE64, A(from_gate), 0x8c, 0)
    mov [gdt + S_GATE], rax
    mov qword [gdt + S_GATE + 8], 0
    mov rax, .gate_done
    mov [resume], rax
    mov qword [resume_sp], 0x2a000      ; keeps off the gate's frame
    mov dword [far_pointer], compat_gate
    mov word [far_pointer + 4], SEL_CODE32
    jmp far dword [far_pointer]
.gate_done:
    CHECK [ev_vec], 6
    CHECK [ev_cs], SEL_CODE64
    mov rsp, [ev_rsp]
    pop rax
    mov ebx, compat_gate.back
    CHECK rax, rbx
    pop rax
    CHECK rax, SEL_CODE32
    mov rsp, STACK0

    ; ---- out of long mode and in again ----
    mov dword [far_pointer], leave_long
    mov word [far_pointer + 4], SEL_CODE32
    jmp far dword [far_pointer]
back_in_long:
    mov ecx, 0xc0000080
    rdmsr
    CHECK_BITS rax, 0x500, 0x500
    CHECK [seen], 0x100                 ; LME stayed, LMA went
    mov rax, 0x1122334455667788
    CHECK r8, rax
    ; deeper still: real mode
    mov dword [far_pointer], leave_protected
    mov word [far_pointer + 4], SEL_CODE32
    jmp far dword [far_pointer]
back_from_real:
    CHECK_BITS [seen], 0xffff, 0x0010   ; what real mode saw of CR0
    PASS

from_gate:
    ud2

bits 32
compat32:
    mov ax, SEL_DATA
    mov ds, ax
    mov ss, ax
    mov esp, STACK0
    mov dword [seen], 0
    mov al, 3
    db 0x40                             ; INC EAX, not a REX prefix
    mov ah, 3
    mov [seen], ax
    mov dword [seen + 4], 0
    push dword 1
    pop ebx
    daa
    les ebx, [pointer32]
.end:
    ud2
compat_limit:
    mov ax, S_SMALL
    mov fs, ax
    mov eax, [fs:12]
.at:
    mov eax, [fs:13]
    ud2
compat_wrap:
    mov eax, [fs:0x5c2800]
    mov [seen], eax
    inc dword [fs:0x5c2800]
    ud2
compat_gate:
    call S_GATE:0
.back:
    ud2
leave_long:
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0x500
    mov [seen], eax
    mov dword [seen + 4], 0
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp SEL_CODE64:back_in_long
leave_protected:
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ax, SEL_DATA16
    mov ss, ax
    mov ds, ax
    mov es, ax
    jmp SEL_CODE16:R16(.p16)
bits 16
.p16:
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp (BASE >> 4):R16(.real)
.real:
    mov ax, BASE >> 4
    mov ds, ax
    smsw ax
    and ax, 0x11
    mov [R16(seen)], ax
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword SEL_CODE32:.p32
bits 32
.p32:
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, STACK0
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp SEL_CODE64:back_from_real
bits 16
compat16:
    mov ax, SEL_DATA
    mov ds, ax
    mov eax, 0x0001ffff
    add ax, 0x5679
    mov [dword seen], eax
    ud2
bits 64

align 8
scratch: dq 0
seen: dq 0
far_pointer: dq 0, 0
pointer32: dd 0
    dw SEL_DATA
ROM_END
