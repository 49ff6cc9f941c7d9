/*
 * Guest vector registers in the host's, of the same numbers: into them and back
 * (SDM Vol. 1, 13.4 for where they are in memory). Interface: vec.h.
 *
 * Two levels, since few guests use AVX-512: XMM and YMM registers alone, while
 * all of the state beyond them is zero; or everything. At the first level VEX
 * instructions, which clear bits 256 and up, are right as they are.
 *
 * Where the upper parts of registers 0 to 15 are all zero they are made so by
 * VZEROUPPER, at both levels: an SSE instruction keeps the upper part of its
 * destination, and has to wait for what was in it before where the processor does
 * not know it to be zero, which a load of zeroes does not tell it. (A loop of
 * independent additions takes three times as long.)
 *
 * Plain moves: XSAVE and XRSTOR take three times as long. Compiled without
 * vector registers: all use of them is in the assembler text, which names no
 * clobbers because that is its purpose. Threading: the vCPU's thread only.
 */
#include "cpu/x86/vec/vec.h"
#include "cpu/x86/vec/vec_runtime.h"

#define FOR_8 ".irp n,0,1,2,3,4,5,6,7\n\t"
#define FOR_16 ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
#define FOR_HI16 ".irp n,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t"
#define END "\n\t.endr\n\t"

#define OFFSETS                                                                                    \
    [xmm] "i"(offsetof(struct x86_xsave, xmm)), [ymm] "i"(offsetof(struct x86_xsave, ymm_hi)),     \
        [zmm] "i"(offsetof(struct x86_xsave, zmm_hi)),                                             \
        [hi16] "i"(offsetof(struct x86_xsave, hi16_zmm)),                                          \
        [mask] "i"(offsetof(struct x86_xsave, opmask))

/* Destroys vector register 0. */
static bool upper_halves_are_zero(const struct x86_xsave *x)
{
    bool zero;

    __asm__ volatile("vmovdqu %c[ymm](%[x]), %%ymm0\n\t"
                     ".irp n,1,2,3,4,5,6,7\n\t"
                     "vpor %c[ymm]+32*\\n(%[x]), %%ymm0, %%ymm0" END
                     "vptest %%ymm0, %%ymm0"
                     : "=@ccz"(zero)
                     : [x] "r"(x), OFFSETS
                     : "memory");
    return zero;
}

/* Bits 256 and up of registers 0 to 15. Destroys vector register 0 and mask
 * register 1. */
static bool zmm_halves_are_zero(const struct x86_xsave *x)
{
    bool zero;

    __asm__ volatile("vmovdqu64 %c[zmm](%[x]), %%zmm0\n\t"
                     ".irp n,1,2,3,4,5,6,7\n\t"
                     "vporq %c[zmm]+64*\\n(%[x]), %%zmm0, %%zmm0" END
                     "vptestmq %%zmm0, %%zmm0, %%k1\n\t"
                     "kortestw %%k1, %%k1"
                     : "=@ccz"(zero)
                     : [x] "r"(x), OFFSETS
                     : "memory");
    return zero;
}

/* Registers 16 to 31 and the masks. Destroys as above. */
static bool other_avx512_is_zero(const struct x86_xsave *x)
{
    bool zero;

    __asm__ volatile("vmovdqu64 %c[mask](%[x]), %%zmm0\n\t"
                     FOR_16 "vporq %c[hi16]+64*\\n(%[x]), %%zmm0, %%zmm0" END
                     "vptestmq %%zmm0, %%zmm0, %%k1\n\t"
                     "kortestw %%k1, %%k1"
                     : "=@ccz"(zero)
                     : [x] "r"(x), OFFSETS
                     : "memory");
    return zero;
}

static void load_xmm(const struct x86_xsave *x)
{
    __asm__ volatile(FOR_16 "movups %c[xmm]+16*\\n(%[x]), %%xmm\\n" END : : [x] "r"(x), OFFSETS
                     : "memory");
}

static void load_ymm(const struct x86_xsave *x)
{
    __asm__ volatile(FOR_16 "vmovups %c[xmm]+16*\\n(%[x]), %%xmm\\n" END FOR_16
                            "vinsertf128 $1, %c[ymm]+16*\\n(%[x]), %%ymm\\n, %%ymm\\n" END
                     :
                     : [x] "r"(x), OFFSETS
                     : "memory");
}

/* Above the YMM registers, which are in place. */
static void load_zmm(const struct x86_xsave *x)
{
    __asm__ volatile(FOR_16 "vinsertf64x4 $1, %c[zmm]+32*\\n(%[x]), %%zmm\\n, %%zmm\\n" END
                     :
                     : [x] "r"(x), OFFSETS
                     : "memory");
}

static void load_other_avx512(const struct x86_xsave *x, bool wide_masks)
{
    __asm__ volatile(FOR_HI16 "vmovups %c[hi16]+64*(\\n-16)(%[x]), %%zmm\\n" END
                     :
                     : [x] "r"(x), OFFSETS
                     : "memory");
    if (wide_masks)
        __asm__ volatile(FOR_8 "kmovq %c[mask]+8*\\n(%[x]), %%k\\n" END : : [x] "r"(x), OFFSETS
                         : "memory");
    else
        __asm__ volatile(FOR_8 "kmovw %c[mask]+8*\\n(%[x]), %%k\\n" END : : [x] "r"(x), OFFSETS
                         : "memory");
}

static void store_xmm(struct x86_xsave *x)
{
    __asm__ volatile(FOR_16 "movups %%xmm\\n, %c[xmm]+16*\\n(%[x])" END : : [x] "r"(x), OFFSETS
                     : "memory");
}

static void store_ymm(struct x86_xsave *x)
{
    __asm__ volatile(FOR_16 "vmovups %%xmm\\n, %c[xmm]+16*\\n(%[x])" END FOR_16
                            "vextractf128 $1, %%ymm\\n, %c[ymm]+16*\\n(%[x])" END
                     :
                     : [x] "r"(x), OFFSETS
                     : "memory");
}

static void store_avx512(struct x86_xsave *x, bool wide_masks)
{
    __asm__ volatile(FOR_16 "vextractf64x4 $1, %%zmm\\n, %c[zmm]+32*\\n(%[x])" END FOR_HI16
                            "vmovups %%zmm\\n, %c[hi16]+64*(\\n-16)(%[x])" END
                     :
                     : [x] "r"(x), OFFSETS
                     : "memory");
    if (wide_masks)
        __asm__ volatile(FOR_8 "kmovq %%k\\n, %c[mask]+8*\\n(%[x])" END : : [x] "r"(x), OFFSETS
                         : "memory");
    else
        __asm__ volatile(FOR_8 "kmovw %%k\\n, %c[mask]+8*\\n(%[x])" END : : [x] "r"(x), OFFSETS
                         : "memory");
}

void vec_registers_store(struct x86_vcpu *c)
{
    const struct vec_runtime *rt = c->vec;

    if (!rt->has_avx) {
        store_xmm(&c->s.x);
    } else {
        store_ymm(&c->s.x);
        if (c->vec_live & LIVE_VEC_ALL)
            store_avx512(&c->s.x, rt->has_avx512bw);
        __asm__ volatile("vzeroupper");
    }
    c->vec_live &= (uint8_t)~(LIVE_VEC | LIVE_VEC_ALL);
}

void vec_registers_enter(struct x86_vcpu *c, bool with_all)
{
    const struct vec_runtime *rt = c->vec;
    const struct x86_xsave *x = &c->s.x;
    uint8_t want = with_all ? LIVE_VEC | LIVE_VEC_ALL : LIVE_VEC;
    bool has_zmm;

    if (!(c->vec_live & LIVE_MXCSR)) {
        __asm__ volatile("ldmxcsr %0" : : "m"(x->mxcsr));
        c->vec_live |= LIVE_MXCSR;
    }
    if ((c->vec_live & want) == want)
        return;
    vec_registers_leave(c);
    has_zmm = rt->has_avx512 && !zmm_halves_are_zero(x);
    if (rt->has_avx512 && (has_zmm || !other_avx512_is_zero(x)))
        want = LIVE_VEC | LIVE_VEC_ALL;
    if (!rt->has_avx) {
        load_xmm(x);
    } else if (!has_zmm && upper_halves_are_zero(x)) {
        __asm__ volatile("vzeroupper");
        load_xmm(x);
    } else {
        load_ymm(x);
        if (has_zmm)
            load_zmm(x);
    }
    if (want & LIVE_VEC_ALL)
        load_other_avx512(x, rt->has_avx512bw);
    c->vec_live |= want;
}
