; A PVH kernel that prints what it was given on COM1.
;
;   nasm -f bin            an ELF32 file
;   nasm -f bin -DELF64    an ELF64 file; the entry point is 32-bit all the same

        bits    32
%include "macros.inc"

LOAD    equ     0x200000
BSS     equ     8192

        org     LOAD
file:
        db      0x7f, "ELF"
%ifdef ELF64
        db      2, 1, 1, 0
        times 8 db 0
        dw      2, 62                   ; ET_EXEC, EM_X86_64
        dd      1
        dq      start, headers - file, 0
        dd      0
        dw      64, 56, 2, 64, 0, 0
headers:
        dd      1, 7                    ; PT_LOAD
        dq      0, file, file, end - file, end - file + BSS, 0x1000
        dd      4, 4                    ; PT_NOTE
        dq      note - file, note, note, note_end - note, note_end - note, 4
%else
        db      1, 1, 1, 0
        times 8 db 0
        dw      2, 3                    ; ET_EXEC, EM_386
        dd      1, start, headers - file, 0, 0
        dw      52, 32, 2, 40, 0, 0
headers:
        dd      1, 0, file, file, end - file, end - file + BSS, 7, 0x1000
        dd      4, note - file, note, note, note_end - note, note_end - note, 4, 4
%endif
        align   4
note:
        dd      4, 4, 6                 ; XEN_ELFNOTE_GUEST_OS, to be skipped
        db      "Xen", 0, "test"
%ifdef ELF64
        dd      4, 8, 18                ; XEN_ELFNOTE_PHYS32_ENTRY
        db      "Xen", 0
        dq      start
%else
        dd      4, 4, 18
        db      "Xen", 0
        dd      start
%endif
note_end:

start:
        mov     esp, end + BSS
        cld
        text    "pvh kernel "
        mov     eax, [ebx + 4]          ; version
        call    puthex
        putchar 10
        cmp     dword [ebx], 0x336ec578
        je      .magic
        text    "bad magic", 10
.magic:
        mov     eax, cr0
        and     eax, 0x80000001
        cmp     eax, 1
        je      .mode
        text    "bad cr0", 10
.mode:
        text    "cmdline "
        mov     esi, [ebx + 24]
        call    puts
        putchar 10
        text    "rsdp "
        mov     esi, [ebx + 32]
        mov     ecx, 8
        call    putn
        putchar 10

        mov     ebp, [ebx + 12]
        test    ebp, ebp
        jz      .memory
        mov     edi, [ebx + 16]
        text    "module "
        mov     eax, [edi + 8]
        call    puthex
        text    " = "
        mov     ecx, eax
        mov     esi, [edi]
        call    putn
        putchar 10

.memory:
        mov     edi, [ebx + 40]
        mov     ebp, [ebx + 48]
.range:
        test    ebp, ebp
        jz      .end
        text    "memory "
        mov     esi, edi
        call    puthex64
        putchar ' '
        lea     esi, [edi + 8]
        call    puthex64
        putchar ' '
        mov     eax, [edi + 16]
        call    puthex
        putchar 10
        add     edi, 24
        dec     ebp
        jmp     .range
.end:
        mov     esi, [ebx + 24]
        jmp     finish

%include "common.inc"
        align   4
end:
