; Rights of pages: U/S, R/W with and without CR0.WP, NX, SMEP, SMAP with AC,
; protection keys, UMIP, reserved bits; error codes and CR2 of page faults;
; accessed and dirty bits (SDM Vol. 3, 4.6 to 4.8).
; bochs: model=corei7_icelake_u
%define MODE 64
%include "common.inc"

; The page at 400000H + n * 4096 is PT2's entry n; P W U of interest.
PAGE equ 0x410000
PTE equ PT2 + 0x10 * 8
PAGE2 equ 0x411000
PTE2 equ PT2 + 0x11 * 8
NX equ 1 << 63

%macro SET_PTE 1
    mov rax, %1
    mov [PTE], rax
    invlpg [PAGE]
%endmacro
%ifdef PEER_QEMU              ; QEMU reports reserved bits without P
RSVD equ 8
%else
RSVD equ 9
%endif
; a read, write or call of PAGE at CPL 0 or 3 that faults
%macro PF_READ 1
    FAULT 14, %1, mov bl, [PAGE]
    CHECK [ev_cr2], PAGE
%endmacro
%macro PF_WRITE 1
    FAULT 14, %1, mov byte [PAGE + 8], 1
    CHECK [ev_cr2], PAGE + 8
%endmacro
%macro PF_FETCH 1
    mov rdx, PAGE + 0x10
    TRY 14, %1, jmp rdx
    CHECK [ev_cr2], PAGE + 0x10
    CHECK [ev_rip], PAGE + 0x10
%endmacro
%macro OK_FETCH 0
    mov rdx, PAGE + 0x10
    TRY 6, 0, jmp rdx
%endmacro
; at CPL 3: vector, error, routine
%macro U 3
    USER %1, %2, %3
%endmacro

main:
    mov word [PAGE + 0x10], 0x0b0f      ; UD2
    mov rax, cr0
    or eax, 1 << 16                     ; WP
    mov cr0, rax

    ; ---- not present ----
    SET_PTE PAGE | 6
    PF_READ 0
    PF_WRITE 2
    PF_FETCH 0x10                       ; NXE is set: I/D is reported
    U 14, 4, user_read
    U 14, 6, user_write
    U 14, 0x14, user_fetch
    CHECK [ev_cr2], PAGE + 0x10
    CHECK [PTE], PAGE | 6               ; no A in it

    ; ---- U/S and R/W ----
    SET_PTE PAGE | 3                    ; supervisor
    mov bl, [PAGE]
    CHECK [PTE], PAGE | 0x23            ; A
    mov byte [PAGE], 1
    CHECK [PTE], PAGE | 0x63            ; D
    OK_FETCH
    U 14, 5, user_read
    U 14, 7, user_write
    U 14, 0x15, user_fetch
    SET_PTE PAGE | 5                    ; user, read-only
    PF_WRITE 3
    U 6, 0, user_read
    U 14, 7, user_write
    U 6, 0, user_fetch
    CHECK [PTE], PAGE | 0x25            ; no D by a refused write
    mov rax, cr0
    and eax, ~(1 << 16)
    mov cr0, rax
    mov byte [PAGE + 8], 1              ; CPL 0 may without WP
    CHECK [PTE], PAGE | 0x65
    U 14, 7, user_write                 ; CPL 3 may not
    mov rax, cr0
    or eax, 1 << 16
    mov cr0, rax

    ; rights of the upper levels count: U/S of the directory entry
    SET_PTE PAGE | 7
    and byte [PD0 + 2 * 8], ~4 & 0xff
    invlpg [PAGE]
    U 14, 5, user_read
    or byte [PD0 + 2 * 8], 4
    and byte [PD0 + 2 * 8], ~2 & 0xff
    invlpg [PAGE]
    PF_WRITE 3
    or byte [PD0 + 2 * 8], 2
    invlpg [PAGE]
    mov byte [PAGE + 8], 1

    ; ---- a fault that spans pages: CR2 is in the second ----
    mov qword [PTE2], 0
    invlpg [PAGE2]
    mov qword [PAGE + 0xff8], -1
    FAULT 14, 2, mov qword [PAGE2 - 4], 0
    CHECK [ev_cr2], PAGE2
    CHECK [PAGE + 0xff8], -1            ; and nothing was written
    FAULT 14, 0, mov rbx, [PAGE2 - 1]
    CHECK [ev_cr2], PAGE2
    mov word [PAGE2 - 2], 0xb848        ; MOV RAX, imm64 across
    mov rdx, PAGE2 - 2
    TRY 14, 0x10, jmp rdx
    CHECK [ev_cr2], PAGE2
    CHECK [ev_rip], PAGE2 - 2
    mov qword [PTE2], PAGE2 | 7

    ; ---- NX ----
    SET_PTE PAGE | 7 | NX
    mov bl, [PAGE]
    PF_FETCH 0x11
    U 14, 0x15, user_fetch
    SET_PTE PAGE | 7
    mov rax, NX
    or [PD0 + 2 * 8], rax
    invlpg [PAGE]
    PF_FETCH 0x11
    mov rax, NX
    xor [PD0 + 2 * 8], rax
    invlpg [PAGE]
    OK_FETCH
    mov ecx, 0xc0000080
    rdmsr
    and eax, ~(1 << 11)
    wrmsr
    SET_PTE PAGE | 7 | NX               ; without NXE the bit is reserved
    PF_READ RSVD
    PF_FETCH RSVD                          ; and I/D is not reported
    mov ecx, 0xc0000080
    rdmsr
    or eax, 1 << 11
    wrmsr

    ; ---- reserved bits ----
    SET_PTE PAGE | 7 | 1 << 51
    PF_READ RSVD
    PF_WRITE RSVD | 2
    U 14, RSVD | 4, user_read
    SET_PTE PAGE | 7
    mov qword [PD0 + 3 * 8], 0x600000 | 1 << 13 | 0x87
    invlpg [0x600000]
    FAULT 14, RSVD, mov bl, [0x600000]     ; 2 MiB page, bit 13
    mov qword [PD0 + 3 * 8], 0x600087
    invlpg [0x600000]

    ; ---- SMEP ----
    SET_PTE PAGE | 7
    mov rbx, cr4
    ; this code lies in a user page: make it supervisor's first
    call supervisor_code
    bts rbx, 20
    mov cr4, rbx
    PF_FETCH 0x11
    mov bl, [PAGE]
    SET_PTE PAGE | 3
    OK_FETCH
    SET_PTE PAGE | 7

    ; ---- SMAP ----
    mov rbx, cr4
    btr rbx, 20
    bts rbx, 21
    mov cr4, rbx
    PF_READ 1
    PF_WRITE 3
    OK_FETCH                            ; not about fetches
    stac
    mov bl, [PAGE]
    mov byte [PAGE], 1
    clac
    PF_READ 1
    pushfq
    or dword [rsp], 0x40000
    popfq                               ; the same by POPF
    mov bl, [PAGE]
    pushfq
    and dword [rsp], ~0x40000
    popfq
    PF_READ 1
    ; implicit accesses are refused whatever AC says: a LDT in a user page
    SET_PTE PAGE | 7
    stac
    mov rax, DESC64(0, 0xfffff, 0x93, 0xc)
    mov [PAGE], rax
    SET_DESC 0x60, DESC64(PAGE, 15, 0x82, 0)
    mov ax, 0x60
    lldt ax
    mov qword [try_ax], 4
%ifndef PEER                            ; QEMU and Bochs let AC help
    mov rax, .implicit
    mov [resume], rax
    mov [resume_sp], rsp
    mov eax, 4
.load:
    mov es, ax
    call no_event
.implicit:
    CHECK [ev_vec], 14
    CHECK [ev_err], 1
    CHECK [ev_cr2], PAGE
%endif
    clac
    xor eax, eax
    lldt ax
    mov rbx, cr4
    btr rbx, 21
    mov cr4, rbx
    ; CR4.SMAP off: STAC is still there, and user pages are free
    mov bl, [PAGE]

    ; ---- UMIP ----
    mov rbx, cr4
    bts rbx, 11
    mov cr4, rbx
    call user_code_again
    sgdt [scratch]                      ; CPL 0 may
    smsw ax
    U 13, 0, user_sgdt
    U 13, 0, user_sidt
    U 13, 0, user_sldt
    U 13, 0, user_smsw
    U 13, 0, user_str
    mov rbx, cr4
    btr rbx, 11
    mov cr4, rbx
    U 6, 0, user_sgdt
    U 6, 0, user_str

%ifndef PEER_BOCHS                      ; Bochs mixes up user and supervisor keys
    ; ---- protection keys ----
    mov eax, 7
    xor ecx, ecx
    cpuid
    bt ecx, 3
    jnc .no_pku
    FAULT 6, 0, rdpkru                  ; CR4.PKE clear
    mov rbx, cr4
    bts rbx, 22
    mov cr4, rbx
    SET_PTE PAGE | 7 | 5 << 59          ; key 5
    xor ecx, ecx
    xor edx, edx
    mov eax, 1 << 10                    ; AD of key 5
    wrpkru
    rdpkru
    CHECK rax, 1 << 10
    PF_READ 0x21                        ; also supervisor accesses to user pages
    U 14, 0x25, user_read
    U 6, 0, user_fetch                  ; not fetches
    xor ecx, ecx
    xor edx, edx
    mov eax, 2 << 10                    ; WD
    wrpkru
    mov bl, [PAGE]
    PF_WRITE 0x23                       ; with WP
    U 14, 0x27, user_write
    U 6, 0, user_read
    mov rax, cr0
    btr rax, 16
    mov cr0, rax
    mov byte [PAGE], 1                  ; without WP supervisor may write
    U 14, 0x27, user_write
    mov rax, cr0
    bts rax, 16
    mov cr0, rax
    SET_PTE PAGE | 3 | 5 << 59          ; supervisor pages have no key
    mov byte [PAGE], 1
    mov ecx, 1
    mov qword [try_ax], 0
    FAULT 13, 0, rdpkru
    xor ecx, ecx
    xor edx, edx
    xor eax, eax
    wrpkru
.no_pku:
%endif

    ; ---- global pages survive MOV CR3, INVLPG does not spare them ----
    mov rbx, cr4
    bts rbx, 7
    mov cr4, rbx
    SET_PTE PAGE | 0x103
    mov bl, [PAGE]
    mov qword [PTE], 0
    invlpg [PAGE]
    PF_READ 0
    SET_PTE PAGE | 7

    ; ---- page faults while an event is delivered ----
    mov qword [PTE2], 0                 ; stack of CPL 0 in a page that is not there
    invlpg [PAGE2]
    mov qword [tss + 4], PAGE2 + 0x800
    ; #PF handler on IST1
    mov byte [idt + 14 * 16 + 4], 1
    USER 14, 2, user_ud
    CHECK [ev_cr2], PAGE2 + 0x7f8
    mov eax, user_ud
    CHECK [ev_rip], rax                 ; the #UD will come again
    CHECK [ev_cs], SEL_UCODE64
    mov qword [tss + 4], STACK_INT
    mov byte [idt + 14 * 16 + 4], 0
    PASS

supervisor_code:                        ; code, data, stacks: not user
    and byte [PD0], ~4 & 0xff
    mov rax, cr3
    mov cr3, rax
    ret
user_code_again:
    or byte [PD0], 4
    mov rax, cr3
    mov cr3, rax
    ret

user_read:
    mov bl, [PAGE]
    ud2
user_write:
    mov byte [PAGE + 8], 1
    ud2
user_fetch:
    mov rdx, PAGE + 0x10
    jmp rdx
user_ud:
    ud2
user_sgdt:
    sgdt [scratch]
    ud2
user_sidt:
    sidt [scratch]
    ud2
user_sldt:
    sldt ax
    ud2
user_smsw:
    smsw ax
    ud2
user_str:
    str ax
    ud2
align 8
scratch: times 2 dq 0
user_gdtr: dw 0
    dq 0
ROM_END
