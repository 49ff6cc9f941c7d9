; What CR0, CR4 and XCR0 deny to x87, MMX, SSE, AVX and XSAVE: #UD or #NM (SDM
; Vol. 3, tables 2-2 and 13-1; Vol. 2, 2.8), and #XM against #UD by
; OSXMMEXCPT. 64-bit mode. QEMU 7.2 is no third opinion here: EMMS, XSAVE and AVX
; look at other bits there than the manual says.
%define MODE 64
%include "common.inc"

CR0_MP equ 1 << 1
CR0_EM equ 1 << 2
CR0_TS equ 1 << 3
CR4_OSFXSR equ 1 << 9
CR4_OSXMMEXCPT equ 1 << 10
CR4_OSXSAVE equ 1 << 18

%macro CR0_IS 1                         ; these of MP, EM, TS
    mov rax, cr0
    and rax, ~(CR0_MP | CR0_EM | CR0_TS)
    or rax, %1
    mov cr0, rax
%endmacro
%macro CR4_SET 1
    mov rax, cr4
    or rax, %1
    mov cr4, rax
%endmacro
%macro CR4_CLEAR 1
    mov rax, cr4
    and rax, ~(%1)
    mov cr4, rax
%endmacro
%macro XCR0_IS 1
    xor ecx, ecx
    xor edx, edx
    mov eax, %1
    xsetbv
%endmacro

main:
    fninit                              ; RESET leaves x87 errors unmasked
    ; ---- TS: #NM for all; FWAIT only with MP ----
    CR0_IS CR0_TS
    fwait
    FAULT 7, 0, fld1
    FAULT 7, 0, fnstcw [scratch]
    FAULT 7, 0, movd mm0, eax
%ifndef PEER_QEMU                       ; QEMU: EMMS asks nothing
    FAULT 7, 0, emms
%endif
    FAULT 7, 0, movaps xmm0, xmm1
    FAULT 7, 0, ldmxcsr [mxcsr]
    FAULT 7, 0, fxsave [area]
    movnti [scratch], eax               ; no vector register
    prefetcht0 [scratch]
    lfence
    CR0_IS CR0_TS | CR0_MP
    FAULT 7, 0, fwait
    FAULT 7, 0, fld1
    CR0_IS CR0_MP
    fwait
    fld1
    clts

    ; ---- EM: #NM for x87, #UD for MMX and SSE ----
    CR0_IS CR0_EM
    fwait
    FAULT 7, 0, fld1
    FAULT 6, 0, movd mm0, eax
%ifndef PEER_QEMU
    FAULT 6, 0, emms
%endif
    FAULT 6, 0, movaps xmm0, xmm1
    FAULT 6, 0, addsd xmm0, xmm1
    FAULT 7, 0, fxsave [area]
    CR0_IS CR0_EM | CR0_TS
%ifndef PEER_QEMU                       ; QEMU: #NM before #UD
    FAULT 6, 0, movaps xmm0, xmm1       ; #UD before #NM
    FAULT 6, 0, paddb mm0, mm1
%endif
    CR0_IS 0

    ; ---- OSFXSR: #UD for SSE, not for MMX ----
    CR4_CLEAR CR4_OSFXSR
    FAULT 6, 0, movaps xmm0, xmm1
    FAULT 6, 0, ldmxcsr [mxcsr]
    paddb mm0, mm1
    emms
    fxsave [area]
    CR4_SET CR4_OSFXSR
    movaps xmm0, xmm1

    ; ---- OSXSAVE: #UD for XSAVE, XGETBV and AVX ----
    mov eax, 1
    cpuid
    bt ecx, 26
    jnc .no_xsave
    bt ecx, 27                          ; OSXSAVE is CR4's bit
    jc .osxsave_shown
    jmp .osxsave_hidden
.osxsave_shown:
    mov rdi, .osxsave_hidden
    jmp fail_at
.osxsave_hidden:
    xor ecx, ecx
    FAULT 6, 0, xgetbv
    FAULT 6, 0, xsave [area]
    FAULT 6, 0, xrstor [area]
    CR4_SET CR4_OSXSAVE
    mov eax, 1
    cpuid
    bt ecx, 27
    jc .osxsave_ok
    mov rdi, .osxsave_ok
    jmp fail_at
.osxsave_ok:
    mov esi, ecx                        ; bit 28: AVX
    xor ecx, ecx
    xgetbv
    CHECK_BITS rax, 1, 1
    mov eax, 3
    xor edx, edx
    xsave [area]
    CR0_IS CR0_TS
    FAULT 7, 0, xsave [area]
    xor ecx, ecx
    xgetbv                              ; does not look at TS
    CR0_IS 0
    ; XSETBV's rules
    xor ecx, ecx
    xor edx, edx
    mov qword [try_ax], 2               ; x87 cannot be off
    FAULT 13, 0, xsetbv
    mov qword [try_ax], 5               ; AVX without SSE
    FAULT 13, 0, xsetbv
    mov ecx, 1                          ; no such register
    mov qword [try_ax], 1
    FAULT 13, 0, xsetbv

    ; ---- XCR0: #UD for AVX without its components ----
    bt esi, 28
    jnc .no_avx
    XCR0_IS 1
    FAULT 6, 0, vaddps ymm0, ymm1, ymm2
    FAULT 6, 0, vzeroupper
    movaps xmm0, xmm1                   ; SSE does not ask XCR0
    XCR0_IS 3
    FAULT 6, 0, vaddps xmm0, xmm1, xmm2
    XCR0_IS 7
    vaddps ymm0, ymm1, ymm2
    CR0_IS CR0_TS
    FAULT 7, 0, vaddps ymm0, ymm1, ymm2
    CR0_IS CR0_EM                       ; AVX does not look at EM
%ifndef PEER_QEMU                       ; QEMU: does
    vaddps ymm0, ymm1, ymm2
%endif
    CR0_IS 0
    mov eax, 7
    xor ecx, ecx
    cpuid
    bt ebx, 16
    jnc .no_avx
    FAULT 6, 0, vaddps zmm0, zmm1, zmm2
    FAULT 6, 0, kmovw k1, k2
    FAULT 6, 0, vaddps xmm16, xmm1, xmm2
    mov qword [try_ax], 0x67            ; the three of AVX-512 go together
    xor ecx, ecx
    xor edx, edx
    FAULT 13, 0, xsetbv
    XCR0_IS 0xe7
    vaddps zmm0, zmm1, zmm2
    kmovw k1, k2
.no_avx:

    ; ---- SIMD errors: #XM, or #UD without OSXMMEXCPT ----
    ldmxcsr [mxcsr_unmasked]
    xorps xmm1, xmm1
    mov eax, 1
    cvtsi2sd xmm0, eax
    FAULT 19, 0, divsd xmm0, xmm1
    stmxcsr [scratch]
    CHECK_BITS [scratch], 0x3f, 4       ; ZE
    CR4_CLEAR CR4_OSXMMEXCPT
    FAULT 6, 0, divsd xmm0, xmm1
    CR4_SET CR4_OSXMMEXCPT
    ; the destination is as it was
    ldmxcsr [mxcsr]
    cvttsd2si eax, xmm0
    CHECK rax, 1
    ; reserved bits of MXCSR
    FAULT 13, 0, ldmxcsr [mxcsr_reserved]
    PASS
.no_xsave:
    PASS

align 8
mxcsr: dd 0x1f80
mxcsr_unmasked: dd 0x1d80
mxcsr_reserved: dd 0x10001f80
align 8
scratch: dq 0
area equ 0x200000
ROM_END
