; One guest loop as a 64 KiB ROM image which Vireo and Bochs both run: enters
; 64-bit mode (tests/guest/flat/common.inc), calls the C function that is linked
; at LOOP_BASE, prints "TSC <instructions> SUM <checksum>" in hexadecimal on port
; 0xE9, and ends the machine through port 0xF4 (Vireo) or 0x8900 (Bochs).
;
; -DLOOP_IMAGE="file"  the flat binary of loops.c
%define MODE 64
%define PEER_BOCHS                  ; both ends, on either machine
%include "common.inc"

LOOP_BASE equ BASE + 0x4000

main:
    mov rsp, 0x3c000
    fninit
    rdtsc
    shl rdx, 32
    or rax, rdx
    push rax
    sub rsp, 8
    call LOOP_BASE
    add rsp, 8
    mov rbx, rax
    rdtsc
    shl rdx, 32
    or rax, rdx
    pop rcx
    sub rax, rcx
    push rax
    mov esi, tsc_text
    call print
    pop rax
    call print_hex
    mov esi, sum_text
    call print
    mov rax, rbx
    call print_hex
    mov al, 0
    jmp finish

tsc_text: db "TSC ", 0
sum_text: db "SUM ", 0

    times LOOP_BASE - BASE - ($ - $$) db 0
    incbin LOOP_IMAGE
ROM_END
