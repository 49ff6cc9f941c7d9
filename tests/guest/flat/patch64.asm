; Code that is patched all the time, as operands put into instructions, sites that
; are turned on and off, functions compiled anew, data in its line. A store takes
; effect at the next instruction (SDM Vol. 3, 8.1.3), the ten-thousandth, too.
%define MODE 64
%include "common.inc"

TURNS equ 3000
CODE equ 0x800000

main:
    ; an immediate right ahead
    mov ecx, TURNS
align 64
.ahead:
    mov [.imm + 1], ecx
.imm:
    mov eax, 0x11111111
    cmp eax, ecx
    jne near .fail
    dec ecx
    jnz .ahead

    ; of one byte, behind other code
    xor ebx, ebx
    xor edx, edx
    mov ecx, TURNS
align 64
.byte:
    mov [.imm8 + 2], cl
    lea esi, [rcx + rcx * 2]
    xor esi, ecx
.imm8:
    add ebx, 1
    movsx eax, cl
    add edx, eax
    cmp ebx, edx
    jne near .fail
    dec ecx
    jnz .byte

    ; in turn two
    mov ecx, TURNS
align 64
.turn:
    test cl, 7
    jnz .imm32
    mov [.imm32 + 1], ecx
    mov ebp, ecx
.imm32:
    mov eax, 0x22222222
    cmp ecx, TURNS & ~7
    ja .skip
    cmp eax, ebp
    jne near .fail
.skip:
    dec ecx
    jnz .turn

    ; another instruction: INC EBX, DEC EBX
    xor ebx, ebx
    mov ecx, TURNS & ~1
align 64
.other:
    xor byte [.modrm + 1], 8
    nop
.modrm:
    inc ebx
    dec ecx
    jnz .other
    CHECK rbx, 0

    ; another length: MOV EAX, imm32; five times NOP; JMP .far
    xor ebx, ebx
    mov ecx, TURNS
align 64
.length:
    mov eax, ecx
    xor edx, edx
    div dword [three]
    mov rax, [shapes + rdx * 8]
    mov [.shape], eax
    shr rax, 32
    mov [.shape + 4], al
    xor eax, eax
    jmp short .shape
align 16
.shape:
    times 5 nop
    add ebx, eax                        ; skipped by the jump
    inc ebx
.far:
    dec ecx
    jnz .length
    CHECK rbx, TURNS / 3 * (1 + 1 + 1000)

    ; the third of three registers: ANDN EBX, ESI, EAX or R8D
    mov eax, 7
    xor ecx, ecx
    cpuid
    test ebx, 1 << 3                    ; BMI1
    jz .no_andn
    mov ecx, TURNS & ~1
    mov esi, 0xff
    mov eax, 0x1234
    mov r8d, 0x5678
    xor edx, edx
align 64
.third:
    xor byte [.andn + 1], 0x20          ; VEX.B
    nop
.andn:
    andn ebx, esi, eax
    add edx, ebx
    dec ecx
    jnz .third
    CHECK rdx, (TURNS / 2) * (0x1200 + 0x5600)
.no_andn:

    ; a displacement, and a store by what was patched
    mov ecx, TURNS
align 64
.disp:
    mov edx, ecx
    and edx, 31
    lea edx, [cells + rdx * 4]
    mov [.store + 3], edx
.store:
    mov [dword abs 0], ecx
    cmp [rdx], ecx
    jne near .fail
    dec ecx
    jnz .disp

    ; the patched instruction patches another
    mov ecx, TURNS
align 64
.chain:
    mov [.first + 7], ecx
.first:
    mov dword [dword abs .second + 1], 0x33333333
.second:
    mov eax, 0x44444444
    cmp eax, ecx
    jne near .fail
    dec ecx
    jnz .chain

    ; data in the line, and the code now and then
    mov ecx, TURNS
    xor ebp, ebp
    jmp .data
align 64
.count: dd 0
.data:
    inc dword [.count]
    test cl, 63
    jnz .same
    inc ebp
    mov [.now + 1], ebp
.same:
    cmp ebp, 0
    je .next
.now:
    mov eax, 0x55555555
    cmp eax, ebp
    jne near .fail
.next:
    dec ecx
    jnz .data
    mov eax, [.count]
    CHECK rax, TURNS

    ; functions compiled anew: ADD EAX, imm32 so many times, RET
    mov ebp, 200
.compile:
    mov edi, ebp
    and edi, 3
    shl edi, 5
    add edi, CODE
    mov rbx, rdi
    mov ecx, ebp
    and ecx, 15
    inc ecx
    mov edx, ecx
.emit:
    mov byte [rdi], 5
    mov [rdi + 1], ebp
    add edi, 5
    dec ecx
    jnz .emit
    mov byte [rdi], 0xc3
    imul edx, ebp
    mov ecx, 50
.call:
    xor eax, eax
    call rbx
    cmp eax, edx
    jne .fail
    dec ecx
    jnz .call
    dec ebp
    jnz .compile

    ; a run of stores over the code ahead
    mov ebp, TURNS / 10
align 64
.run:
    mov eax, ebp
    and eax, 1
    shl eax, 19
    add eax, 0xc2ff40                   ; 40H: a REX prefix; INC EDX, DEC EDX
    shl eax, 8
    mov al, 0x90
    xor edx, edx
    mov edi, .ran
    mov ecx, 4
    rep stosd
.ran:
    times 16 nop
    mov eax, ebp
    and eax, 1
    neg eax
    lea eax, [rax * 8 + 4]
    cmp eax, edx
    jne .fail
    dec ebp
    jnz .run
    PASS
.fail:
    mov edx, ecx
    call failed

align 8
shapes: dq 0x3e8b8, 0x9090909090, 0x90909007eb ; the last jumps over what follows
three: dd 3
align 64
cells: times 32 dd 0
ROM_END
