; Translations that were invalidated must not be used again (SDM Vol. 3, 4.10.4):
; INVLPG, MOV to CR3, CR4 and CR0, INVPCID of all types, pages of all sizes,
; global pages, PCIDs. Then one processor changes page tables while another uses
; them, and asks it by an interrupt to invalidate.
; vireo: --cpus 2
; qemu: -smp 2
; bochs: cpus=2
%define MODE 64
%include "common.inc"
%include "smp.inc"

V equ 0x440000                ; a page of 4 KiB
PTE equ PT2 + 0x40 * 8
A equ 0x500000                ; what it shows
B equ 0x501000
C equ 0x502000
LV equ 0x800000               ; a page of 2 MiB
LPDE equ PD0 + 4 * 8
LA equ 0x1000000
LB equ 0x1200000
LPT equ 0x105000              ; tables of our own
LPD equ 0x106000
GV equ 0x40000000             ; a page of 1 GiB
GPDPTE equ PDPT + 1 * 8
CR4_PGE equ 1 << 7
CR4_PCIDE equ 1 << 17
CR4_SMEP equ 1 << 20
CR4_SMAP equ 1 << 21
P equ 7                       ; present, writable, user
G equ 0x100

%macro SHOWS 2                ; address, byte, by load, by execution
    movzx ebx, byte [%1 + 1]
    CHECK rbx, %2
    mov ebx, %1
    call rbx
    CHECK rax, %2
%endmacro
; flags of the translation; what invalidates it
%macro FRESH 2+
    mov qword [PTE], A | (%1)
    invlpg [V]
    SHOWS V, 0xa
    mov qword [PTE], B | (%1)
    %2
    SHOWS V, 0xb
%endmacro
%macro CR4_FLIP 1
    mov rax, cr4
    xor rax, %1
    mov cr4, rax
    mov rax, cr4
    xor rax, %1
    mov cr4, rax
%endmacro
%macro LOAD_CR3 0
    mov rax, cr3
    mov cr3, rax
%endmacro
%macro INVPCID_ 3             ; type, PCID, address
    mov qword [descriptor], %2
    mov qword [descriptor + 8], %3
    mov eax, %1
    invpcid rax, [descriptor]
%endmacro
%macro SET_CR3 1
    mov rax, PML4 | (%1)
    mov cr3, rax
%endmacro
%define KEEP (1 << 63)

main:
    ; MOV EAX, tag; RET
    mov edi, A
    mov al, 0xa
    call tagged
    mov edi, B
    mov al, 0xb
    call tagged
    mov edi, C
    mov al, 0xc
    call tagged
    mov edi, LA
    mov al, 0xa
    call tagged_large
    mov edi, LB
    mov al, 0xb
    call tagged_large
    mov rax, cr4
    or eax, CR4_PGE
    mov cr4, rax

    ; ---- pages of 4 KiB ----
    FRESH P, invlpg [V]
    FRESH P, invlpg [V + 0xfff]
    FRESH P, LOAD_CR3
    FRESH P, CR4_FLIP CR4_PGE
    FRESH P | G, invlpg [V]
    FRESH P | G, CR4_FLIP CR4_PGE
    ; what is not there is not cached
    mov qword [PTE], 0
    invlpg [V]
    FAULT 14, 0, mov bl, [V]
    mov qword [PTE], A | P
    SHOWS V, 0xa
    mov qword [PTE], 0
    invlpg [V]
    FAULT 14, 2, mov [V], bl
    mov ebx, V
    TRY 14, 0x10, call rbx
    ; rights that are taken away
    mov rax, cr0
    or eax, 1 << 16
    mov cr0, rax
    mov qword [PTE], A | P
    SHOWS V, 0xa
    mov byte [V + 0x80], 1
    mov qword [PTE], A | 5
    invlpg [V]
    FAULT 14, 3, mov byte [V + 0x80], 2
    SHOWS V, 0xa
    bts qword [PTE], 63
    invlpg [V]
    mov ebx, V
    TRY 14, 0x11, call rbx
    movzx ebx, byte [V + 1]
    CHECK rbx, 0xa
    ; WP counts at once
    mov rax, cr0
    and eax, ~(1 << 16)
    mov cr0, rax
    mov byte [V + 0x80], 3
    mov rax, cr0
    or eax, 1 << 16
    mov cr0, rax
    FAULT 14, 3, mov byte [V + 0x80], 4
    ; A and D come again
    mov qword [PTE], A | P
    invlpg [V]
    mov bl, [V]
    CHECK [PTE], A | P | 0x20
    mov byte [V + 0x80], 5
    CHECK [PTE], A | P | 0x60
    mov qword [PTE], A | P
    invlpg [V]
    mov bl, [V]
    CHECK [PTE], A | P | 0x20
    mov byte [V + 0x80], 6
    CHECK [PTE], A | P | 0x60

    ; ---- SMEP and SMAP count at once, also for what the processor itself has
    ; read before. All but page V becomes the supervisor's. ----
    and byte [PD0], ~4
    and byte [PD0 + 8], ~4
    and byte [PDPT + 3 * 8], ~4
    LOAD_CR3
    mov eax, 7
    xor ecx, ecx
    cpuid
    mov [features7], ebx
    test bl, 1 << 7
    jz .no_smep
    SHOWS V, 0xa
    mov rax, cr4
    or eax, CR4_SMEP
    mov cr4, rax
    mov ebx, V
    TRY 14, 0x11, call rbx
    mov rax, cr4
    and eax, ~CR4_SMEP
    mov cr4, rax
    SHOWS V, 0xa
.no_smep:
    test byte [features7 + 2], 1 << 4
    jz .no_smap
    mov qword [PTE], idt | P
    invlpg [V]
    mov dword [idtr + 2], V             ; read through V
    lidt [idtr]
    mov qword [ev_action], 1
    int 0x50
    mov qword [ev_action], 0
    mov dword [idtr + 2], idt
    lidt [idtr]
    mov rax, cr4
    or eax, CR4_SMAP
    mov cr4, rax
    FAULT 14, 1, mov bl, [V]
    stac
    mov bl, [V]
    clac
    FAULT 14, 1, mov bl, [V]
    mov rax, cr4
    and eax, ~CR4_SMAP
    mov cr4, rax
    mov bl, [V]
.no_smap:
    or byte [PD0], 4
    or byte [PD0 + 8], 4
    or byte [PDPT + 3 * 8], 4
    LOAD_CR3

    ; ---- 2 MiB: all of it goes, by whichever address ----
%macro FRESH_LARGE 2+
    mov qword [LPDE], LA | 0x80 | (%1)
    invlpg [LV]
    SHOWS LV, 0xa
    SHOWS LV + 0x3000, 0xa
    SHOWS LV + 0x1ff000, 0xa
    mov qword [LPDE], LB | 0x80 | (%1)
    %2
    SHOWS LV, 0xb
    SHOWS LV + 0x3000, 0xb
    SHOWS LV + 0x1ff000, 0xb
%endmacro
%ifndef PEER_QEMU                       ; QEMU: does not take all of a large page
    FRESH_LARGE P, invlpg [LV]
    FRESH_LARGE P, invlpg [LV + 0x123456]
    FRESH_LARGE P, invlpg [LV + 0x1ff000]
    FRESH_LARGE P | G, invlpg [LV + 0x7000]
    FRESH_LARGE P, LOAD_CR3
    FRESH_LARGE P | G, CR4_FLIP CR4_PGE
%endif
    ; split into small pages, and put together
    mov edi, LPT
    mov eax, LA + P
    mov ecx, 512
.split:
    mov [rdi], rax
    add eax, 0x1000
    add edi, 8
    loop .split
    mov qword [LPDE], LPT + P
    invlpg [LV + 0x5000]
    SHOWS LV, 0xa
    SHOWS LV + 0x3000, 0xa
    mov qword [LPT + 3 * 8], LB + 0x3000 + P
    invlpg [LV + 0x3000]
    SHOWS LV, 0xa
    SHOWS LV + 0x3000, 0xb
    mov qword [LPDE], LB | 0x80 | P
    LOAD_CR3
    SHOWS LV, 0xb
    SHOWS LV + 0x3000, 0xb
    SHOWS LV + 0x1ff000, 0xb
    ; ---- a table replaced above ----
    mov qword [LPD], LA + 0x80 + P
    mov qword [GPDPTE], LPD + P
    SHOWS GV + 0x3000, 0xa
    mov qword [LPD], LB + 0x80 + P
    invlpg [GV + 0x3000]
    SHOWS GV + 0x3000, 0xb
    mov eax, 0x80000001
    cpuid
    test edx, 1 << 26
    jz .no_gb
    mov qword [GPDPTE], 0x80 + P        ; 1 GiB
    invlpg [GV]
    SHOWS GV + LA, 0xa
    SHOWS GV + LB + 0x1ff000, 0xb
    mov qword [GPDPTE], LPD + P
    invlpg [GV + LA]
    SHOWS GV + 0x1ff000, 0xb
    TRY 14, 0, mov bl, [GV + LA]
.no_gb:

    ; ---- INVPCID without PCIDs ----
    test byte [features7 + 1], 1 << 2
    jz .no_pcid
    FRESH P, INVPCID_ 0, 0, V
    FRESH P, INVPCID_ 1, 0, 0
    FRESH P, INVPCID_ 2, 0, 0
    FRESH P, INVPCID_ 3, 0, 0
    FRESH P | G, INVPCID_ 2, 0, 0
    mov qword [descriptor], 1
    mov qword [descriptor + 8], V
    mov qword [try_ax], 0
    FAULT 13, 0, invpcid rax, [descriptor]      ; a PCID without CR4.PCIDE
    mov qword [try_ax], 4
    FAULT 13, 0, invpcid rax, [descriptor]      ; no such type
    mov qword [try_ax], 1
    mov qword [descriptor], 0x1000
    FAULT 13, 0, invpcid rax, [descriptor]      ; reserved bits
    mov rax, KEEP | PML4
    mov [try_ax], rax
    FAULT 13, 0, mov cr3, rax

    ; ---- PCIDs ----
    mov eax, 1
    cpuid
    bt ecx, 17
    jnc .no_pcid
    SET_CR3 0x18                        ; PCD and PWT
    mov rax, cr4
    or eax, CR4_PCIDE
    mov [try_ax], rax
    FAULT 13, 0, mov cr4, rax           ; they would become a PCID
    SET_CR3 0
    mov rax, [try_ax]
    mov cr4, rax
    mov rax, 0x800000000000
    mov [descriptor + 8], rax
    mov qword [descriptor], 1
    mov qword [try_ax], 0
    FAULT 13, 0, invpcid rax, [descriptor]      ; not canonical
; seen under PCIDs 1 and 2; then under 2, what is to invalidate 1 (and is not
; asked what it does to 2), and back to 1 keeping what there is
%macro FRESH_PCID 3+          ; flags, what is shown under 1 then, instructions
    SET_CR3 1
    mov qword [PTE], A | (%1)
    invlpg [V]
    SHOWS V, 0xa
    SET_CR3 2
    SHOWS V, 0xa
    mov qword [PTE], B | (%1)
    %3
    SET_CR3 KEEP | 1
    SHOWS V, %2
%endmacro
    FRESH_PCID P, 0xb, INVPCID_ 0, 1, V
    FRESH_PCID P, 0xb, INVPCID_ 1, 1, 0
    FRESH_PCID P, 0xb, INVPCID_ 2, 0, 0
    FRESH_PCID P, 0xb, INVPCID_ 3, 0, 0
    FRESH_PCID P, 0xb, SET_CR3 1
    FRESH_PCID P, 0xb, CR4_FLIP CR4_PGE
    FRESH_PCID P | G, 0xb, INVPCID_ 2, 0, 0
    FRESH_PCID P | G, 0xb, invlpg [V]   ; global ones of all PCIDs
    FRESH_PCID P | G, 0xb, CR4_FLIP CR4_PGE
    ; more PCIDs than anybody keeps, each with a table entry of its own time
    mov ebx, 200
.many:
    mov ecx, ebx
    and ecx, 15
    inc ecx
    lea rax, [rcx + PML4]
    mov cr3, rax
    test bl, 1
    mov eax, A | P
    jz .even
    mov eax, B | P
.even:
    mov [PTE], rax
    invlpg [V]
    shr eax, 12
    and eax, 1
    add eax, 0xa
    movzx edx, byte [V + 1]
    cmp eax, edx
    je .many_ok
    call failed
.many_ok:
    ; all the others, one of which has seen the other page before
    mov [PTE], dword C | P
    mov esi, 16
.others:
    lea rax, [rsi + PML4]               ; not kept
    mov cr3, rax
    movzx edx, byte [V + 1]
    cmp edx, 0xc
    je .others_ok
    call failed
.others_ok:
    dec esi
    jnz .others
    sub ebx, 7
    jg .many
    ; PCIDE off: everything goes
    SET_CR3 3
    mov qword [PTE], A | P
    invlpg [V]
    SHOWS V, 0xa
    SET_CR3 0
    SHOWS V, 0xa
    mov qword [PTE], B | P
    mov rax, cr4
    and eax, ~CR4_PCIDE
    mov cr4, rax
    SHOWS V, 0xb
    mov rax, cr4
    or eax, CR4_PCIDE
    mov cr4, rax
    SET_CR3 KEEP | 3
    SHOWS V, 0xb
    SET_CR3 0
    mov rax, cr4
    and eax, ~CR4_PCIDE
    mov cr4, rax
.no_pcid:

    ; ---- two processors ----
    SET_GATE 0x40, invalidate
    START_AP other
%macro SHOOT 5                ; entry, flags, two frames, what invalidates
    mov qword [entry], %1
    mov qword [entry_flags], %2
    mov qword [frames], %3
    mov qword [frames + 8], %4
    mov rax, %5
    mov [how], rax
    call shoot
%endmacro
    mov qword [seen_at], V
    SHOOT PTE, P, A, B, by_invlpg
    SHOOT PTE, P | G, A, B, by_invlpg
    SHOOT PTE, P, A, B, by_cr3
    SHOOT PTE, P | G, A, B, by_cr4
    SHOOT PTE, P, A, B, by_invpcid0
    SHOOT PTE, P, A, B, by_invpcid1
    SHOOT PTE, P | G, A, B, by_invpcid2
    SHOOT PTE, P, A, B, by_invpcid3
    mov qword [seen_at], LV + 0x7000
    SHOOT LPDE, P | 0x80, LA, LB, by_invlpg
    SHOOT LPDE, P | 0x80 | G, LA, LB, by_invlpg
    SHOOT LPDE, P | 0x80 | G, LA, LB, by_cr4
    PASS

; MOV EAX, AL; RET at RDI
tagged:
    mov byte [rdi], 0xb8
    movzx eax, al
    mov [rdi + 1], eax
    mov byte [rdi + 5], 0xc3
    ret
; the same at the start of each page of 2 MiB
tagged_large:
    mov ecx, 512
.next:
    call tagged
    add edi, 0x1000
    loop .next
    ret

; The other one looks at a page that shows a generation; this one prepares the
; other frame with the next generation, maps it, has it invalidated there, and
; only then says that it is the generation.
shoot:
    mov dword [generation], 0
    mov dword [done], 0
    mov rdi, [frames]
    mov rax, [seen_at]
    and eax, 0x7000
    add rdi, rax
    xor eax, eax
    call tagged
    mov rax, [frames]
    or rax, [entry_flags]
    mov rdi, [entry]
    mov [rdi], rax
    mov rax, cr4                        ; nothing is cached here or there
    xor rax, CR4_PGE
    mov cr4, rax
    xor rax, CR4_PGE
    mov cr4, rax
    BARRIER
    BARRIER                             ; the other one has done the same
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov rbp, rax
    mov ebx, 1
.next:
    mov rsi, rbx
    and esi, 1
    mov rsi, [frames + rsi * 8]
    mov rdi, [seen_at]
    and edi, 0x7000
    add rdi, rsi
    mov dword [rdi + 1], ebx            ; see tagged
    mov byte [rdi], 0xb8
    mov byte [rdi + 5], 0xc3
    or rsi, [entry_flags]
    mov rdi, [entry]
    mov [rdi], rsi
    mov dword [r15 + APIC_ICR_HIGH], 1 << 24
    mov dword [r15 + APIC_ICR], 0x40
.wait:
    pause
    cmp [acknowledged], ebx
    jne .wait
    mov [generation], ebx
    ; what it writes by the old translation now would be seen here
    mov rsi, rbx
    dec esi
    and esi, 1
    mov rsi, [frames + rsi * 8]
    mov rdi, [seen_at]
    and edi, 0x7000
    mov eax, [rdi + rsi + 0x20]
    mov ecx, 50
.look:
    cmp [rdi + rsi + 0x20], eax
    jne .written
    dec ecx
    jnz .look
    inc ebx
    rdtsc                               ; many rounds if there is time
    shl rdx, 32
    or rax, rdx
    sub rax, rbp
    cmp ebx, 10
    jb .next
    cmp ebx, 500
    jae .enough
    cmp rax, 200000000
    jb .next
.enough:
    mov dword [done], 1
    BARRIER
    ret
.written:
    call failed

other:
    mov rax, cr0
    or eax, 1 << 16
    mov cr0, rax
    mov rax, cr4
    or eax, CR4_PGE
    mov cr4, rax
other_next:
    BARRIER
    mov dword [acknowledged], 0
    mov rax, cr4
    xor rax, CR4_PGE
    mov cr4, rax
    xor rax, CR4_PGE
    mov cr4, rax
    BARRIER
    mov rbx, [seen_at]
    sti
.next:
    mov r12d, [generation]
    mov eax, [rbx + 1]
    cmp eax, r12d
    jae .load_ok
    call failed
.load_ok:
    inc dword [rbx + 0x20]
    mov r12d, [generation]
    call rbx
    cmp eax, r12d
    jae .fetch_ok
    call failed
.fetch_ok:
    cmp dword [done], 0
    je .next
    cli
    BARRIER
    jmp other_next

invalidate:
    push rax
    push rcx
    mov rcx, [seen_at]
    call [how]
    inc dword [acknowledged]
    mov dword [r15 + APIC_EOI], 0
    pop rcx
    pop rax
    iretq
by_invlpg:
    invlpg [rcx]
    ret
by_cr3:
    mov rax, cr3
    mov cr3, rax
    ret
by_cr4:
    mov rax, cr4
    xor rax, CR4_PGE
    mov cr4, rax
    xor rax, CR4_PGE
    mov cr4, rax
    ret
%assign type 0
%rep 4
by_invpcid %+ type:
    test byte [features7 + 1], 1 << 2
    jz by_cr4
    mov qword [other_descriptor], 0
    mov [other_descriptor + 8], rcx
    mov eax, type
    invpcid rax, [other_descriptor]
    ret
  %assign type type + 1
%endrep

align 16
descriptor: dq 0, 0
other_descriptor: dq 0, 0
features7: dd 0
align 8
entry: dq 0
entry_flags: dq 0
frames: dq 0, 0
how: dq 0
seen_at: dq 0
align 64
generation: dd 0
done: dd 0
align 64
acknowledged: dd 0
ROM_END
