; 32-bit paging with 4 MiB pages and PSE-36, PAE paging with its PDPTEs, what
; the TLB keeps and what flushes it, CR0 and CR4 rules (SDM Vol. 3, 4.1 to 4.4,
; 4.10).
%define MODE 32
%include "common.inc"

PD equ 0x100000
PT1 equ 0x101000              ; of 400000H
PDPT32 equ 0x102000           ; 32-byte table of PAE
PDA equ 0x104000              ; PAE's first directory
PTA equ 0x105000              ; PAE: of 400000H
PAGE equ 0x410000
PTE equ PT1 + 0x10 * 4

%macro CR4_SET 1
    mov eax, cr4
    or eax, %1
    mov cr4, eax
%endmacro
%macro CR4_CLEAR 1
    mov eax, cr4
    and eax, ~(%1)
    mov cr4, eax
%endmacro
%macro FLUSH 0
    mov eax, cr3
    mov cr3, eax
%endmacro

main:
    ; ---- rules of CR0 and CR4 ----
%ifndef PEER_QEMU                       ; QEMU takes anything
    mov dword [try_ax], 0x80000010      ; PG without PE
    FAULT 13, 0, mov cr0, eax
    mov dword [try_ax], 0x20000011      ; NW without CD
    FAULT 13, 0, mov cr0, eax
    mov dword [try_ax], 1 << 31
    FAULT 13, 0, mov cr4, eax           ; reserved
    mov dword [try_ax], 1 << 17         ; PCIDE outside long mode
    FAULT 13, 0, mov cr4, eax
%endif
    mov eax, cr0
    and eax, 0x1fffffff                 ; caches on
    mov cr0, eax

    ; ---- 4 MiB pages: identity ----
    mov edi, PD
    mov eax, 0x87
    mov ecx, 1024
.pd:
    stosd
    add eax, 0x400000
    loop .pd
    mov edi, PT1
    mov eax, 0x400007
    mov ecx, 1024
.pt:
    stosd
    add eax, 0x1000
    loop .pt
    CR4_SET 0x10                        ; PSE
    mov eax, PD
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000                  ; PG, WP
    mov cr0, eax
    jmp .paged
.paged:
    mov dword [PAGE], 0x11112222
    CHECK [PD + 4], 0x4000e7            ; A and D of a large page
    CHECK [PD], 0xa7                    ; only read so far
    ; without PSE the bit is ignored: the entry would be a table
    mov dword [PD + 4], PT1 | 7
    invlpg [PAGE]
    CHECK [PAGE], 0x11112222
    CHECK [PTE], PAGE | 0x27
    CHECK_BITS [PD + 4], 0xff, 0x27     ; A, no D in a directory entry

    ; ---- faults ----
    mov dword [PTE], 0
    invlpg [PAGE]
    FAULT 14, 0, mov ebx, [PAGE]
    CHECK [ev_cr2], PAGE
    FAULT 14, 2, mov [PAGE + 4], ebx
    mov dword [PTE], PAGE | 5
    FAULT 14, 3, mov [PAGE + 4], ebx    ; WP
    mov ebx, [PAGE]
    USER 14, 7, user_write
    USER 6, 0, user_read
    mov dword [PTE], PAGE | 3
    invlpg [PAGE]
    USER 14, 5, user_read
    ; fetches have no bit of their own without NX and SMEP
    mov dword [PTE], 0
    invlpg [PAGE]
    mov edx, PAGE
    TRY 14, 0, jmp edx
    ; a large page's reserved bits: 21, and those above MAXPHYADDR
    mov dword [PD + 8], 0x800087 | 1 << 21
    invlpg [0x800000]
%ifdef PEER_QEMU                        ; QEMU reports reserved bits without P
    FAULT 14, 8, mov ebx, [0x800000]
%else
    FAULT 14, 9, mov ebx, [0x800000]
%endif
    mov dword [PD + 8], 0x800087
    invlpg [0x800000]

    ; ---- what the TLB may keep: an entry changed without a flush ----
    mov dword [PTE], PAGE | 7
    invlpg [PAGE]
    mov ebx, [PAGE]
    mov dword [PTE], 0x411007
    mov dword [0x411000], 0x33334444
    invlpg [PAGE + 0x123]               ; any address of the page
    CHECK [PAGE], 0x33334444
    mov dword [PTE], PAGE | 7
    FLUSH
    CHECK [PAGE], 0x11112222
    ; more rights need no flush
    mov dword [PTE], PAGE | 5
    FLUSH
    mov ebx, [PAGE]
    mov dword [PTE], PAGE | 7
    mov dword [PAGE], 0x11112222
    ; global pages: MOV CR3 keeps them, a change of PGE does not
    CR4_SET 0x80
    mov dword [PTE], PAGE | 0x107
    invlpg [PAGE]
    mov ebx, [PAGE]
    mov dword [PTE], 0x411107
    FLUSH
    mov eax, [PAGE]                     ; old or new: both are allowed
    CR4_CLEAR 0x80
    CHECK [PAGE], 0x33334444
    mov dword [PTE], PAGE | 7
    FLUSH
    ; turning paging off and on
    mov dword [PTE], 0x411007
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    CHECK [PAGE], 0x11112222
    or eax, 0x80000000
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    CHECK [PAGE], 0x33334444

    ; ---- PSE-36: physical address above 4 GiB is nobody's ----
    mov dword [PD + 12], 0x00c00087 | 1 << 13
    invlpg [0xc00000]
%ifndef PEER_QEMU                       ; QEMU: reads zeros where nothing is
    CHECK [0xc00000], -1
%endif
    mov dword [PD + 12], 0x00c00087
    invlpg [0xc00000]


    ; ---- linear addresses wrap at 4 GiB ----
    mov ebx, 0xfffffff0
    mov eax, [ebx + 0x10 + PAGE]
    CHECK eax, 0x33334444

    ; ---- PAE ----
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov edi, PDPT32
    xor eax, eax
    mov ecx, 0x4000 / 4
    rep stosd
    mov dword [PDPT32], PDA | 1
    mov dword [PDPT32 + 24], PDA | 1
    mov edi, PDA
    mov eax, 0x87
    mov ecx, 512
.pda:
    mov [edi], eax
    add edi, 8
    add eax, 0x200000
    loop .pda
    mov dword [PDA + 16], PTA | 7
    mov edi, PTA
    mov eax, 0x400007
    mov ecx, 512
.pta:
    mov [edi], eax
    mov dword [edi + 4], 0
    add edi, 8
    add eax, 0x1000
    loop .pta
    CR4_SET 0x20
    ; reserved bits of a PDPTE: MOV to CR3, CR0 faults
    mov eax, PDPT32
    mov cr3, eax                        ; paging is off: not looked at
    or dword [PDPT32], 6
    mov eax, cr0
    or eax, 0x80000000
    mov [try_ax], eax
%ifndef PEER_QEMU                       ; QEMU does not look at PDPTEs here
    FAULT 13, 0, mov cr0, eax
%endif
    and dword [PDPT32], ~6
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    CHECK [PAGE], 0x11112222
    or dword [PDPT32 + 8], 0x20 | 1
    mov dword [try_ax], PDPT32
%ifndef PEER_QEMU
    FAULT 13, 0, mov cr3, eax
%endif
    and dword [PDPT32 + 8], ~0x21
    ; PDPTEs are loaded with CR3, not walked: a change waits for MOV CR3
    CHECK [0xc0000000 + PAGE], 0x11112222
    mov dword [PDPT32 + 24], 0
    invlpg [0xc0000000 + PAGE]
%ifndef PEER_QEMU                       ; QEMU walks them
    CHECK [0xc0000000 + PAGE], 0x11112222
%endif
    FLUSH
    FAULT 14, 0, mov ebx, [0xc0000000 + PAGE]
    ; NX in PAE
    mov ecx, 0xc0000080
    rdmsr
    or eax, 1 << 11
    wrmsr
    mov dword [PTA + 0x10 * 8 + 4], 0x80000000
    invlpg [PAGE]
    mov edx, PAGE
    TRY 14, 0x11, jmp edx
    mov ebx, [PAGE]
    mov dword [PTA + 0x10 * 8 + 4], 0
    mov ecx, 0xc0000080
    rdmsr
    and eax, ~(1 << 11)
    wrmsr
    ; a bit between MAXPHYADDR and 62
    mov dword [PTA + 0x10 * 8 + 4], 0x00080000
    invlpg [PAGE]
%ifdef PEER_QEMU
    FAULT 14, 8, mov ebx, [PAGE]
%else
    FAULT 14, 9, mov ebx, [PAGE]
%endif
    mov dword [PTA + 0x10 * 8 + 4], 0
    invlpg [PAGE]
    CHECK [PAGE], 0x11112222
    PASS

user_write:
    mov [PAGE], eax
    ud2
user_read:
    mov eax, [PAGE]
    ud2
ROM_END
