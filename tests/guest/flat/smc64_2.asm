; The same with a second processor there, which makes another way of marking
; and forgetting code.
; vireo: --cpus 2
; qemu: -smp 2
%include "smc64.asm"
