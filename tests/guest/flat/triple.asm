; A triple fault ends the machine with a report of the faults that led to it.
; status: 3
; says: #GP
; says: #NP
; says: #UD|invalid opcode
%define MODE 64
%include "common.inc"
main:
    mov byte [idt + 6 * 16 + 5], 0x0e   ; #UD -> #NP
    mov byte [idt + 11 * 16 + 5], 0x0e  ; #NP -> #NP: double fault
    mov word [idt + 8 * 16 + 2], 0      ; #DF -> #GP: shutdown
    ud2
ROM_END
