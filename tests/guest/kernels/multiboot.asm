; A Multiboot 1 kernel that prints what it was given on COM1.
;
;   nasm -f bin            an ELF32 file, its headers written out below
;   nasm -f bin -DRAW      no ELF: load addresses in the Multiboot header
;
; It also clears nothing and checks that its bss was cleared.

        bits    32
%include "macros.inc"

LOAD    equ     0x100000
BSS     equ     8192

        org     LOAD
file:
%ifndef RAW
; ---- ELF32 header, one program header ----
        db      0x7f, "ELF", 1, 1, 1, 0
        times 8 db 0
        dw      2, 3                    ; ET_EXEC, EM_386
        dd      1, start
        dd      headers - file, 0, 0
        dw      52, 32, 1, 40, 0, 0
headers:
        dd      1, 0, file, file        ; PT_LOAD of the whole file
        dd      end - file, end - file + BSS, 7, 0x1000
%endif

MAGIC   equ     0x1badb002
%ifdef RAW
FLAGS   equ     0x10003
%else
FLAGS   equ     0x00003
%endif
        align   4
header:
        dd      MAGIC, FLAGS, -(MAGIC + FLAGS)
%ifdef RAW
        dd      header, file, end, end + BSS, start
%endif

start:
        mov     esp, end + BSS
        mov     ebp, eax
        cld
        text    "multiboot kernel", 10
        cmp     ebp, 0x2badb002
        je      .magic
        text    "bad magic ", 10
.magic:
        mov     ecx, BSS / 4 - 64       ; but the stack's end
        mov     edi, end
        xor     eax, eax
        repe    scasd
        je      .clear
        text    "bss is dirty", 10
.clear:
        text    "loader "
        mov     esi, [ebx + 64]
        call    puts
        putchar 10
        text    "cmdline "
        mov     esi, [ebx + 16]
        call    puts
        putchar 10
        text    "lower "
        mov     eax, [ebx + 4]
        call    puthex
        text    " upper "
        mov     eax, [ebx + 8]
        call    puthex
        putchar 10

; ---- modules: arguments, bytes, contents ----
        test    dword [ebx], 8
        jz      .memory
        mov     ebp, [ebx + 20]
        mov     edi, [ebx + 24]
        test    ebp, ebp                ; the flag may be set for none
        jz      .memory
.module:
        text    "module "
        mov     eax, [edi + 4]
        sub     eax, [edi]
        call    puthex
        test    dword [edi], 0xfff
        jz      .aligned
        text    " unaligned"
.aligned:
        putchar ' '
        mov     esi, [edi + 8]
        call    puts
        text    " = "
        mov     ecx, eax
        mov     esi, [edi]
        call    putn
        putchar 10
        add     edi, 16
        dec     ebp
        jnz     .module

; ---- memory map ----
.memory:
        mov     edi, [ebx + 48]
        mov     ebp, [ebx + 44]
        add     ebp, edi
.range:
        cmp     edi, ebp
        jae     .end
        text    "memory "
        lea     esi, [edi + 4]
        call    puthex64
        putchar ' '
        lea     esi, [edi + 12]
        call    puthex64
        putchar ' '
        mov     eax, [edi + 20]
        call    puthex
        putchar 10
        add     edi, [edi]
        add     edi, 4
        jmp     .range
.end:
        mov     esi, [ebx + 16]
        jmp     finish

%include "common.inc"
        align   4
end:
