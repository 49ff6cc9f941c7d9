/*
 * Guest vector registers into the host's and back (cpu/x86/vec/registers.c): what
 * of them is zero decides how they are loaded, and nothing may be lost by it.
 */
#include "tests/unit/cpu_fixture.h"

#include "cpu/x86/vec/vec.h"
#include "cpu/x86/vec/vec_runtime.h"

enum { UPPER = 1, ZMM = 2, OTHER = 4, MASKS = 8, COMBINATIONS = 16 };

static void fill(void *to, size_t bytes, bool some, uint64_t *seed)
{
    uint8_t *p = to;

    memset(p, 0, bytes);
    /* A single byte, anywhere: each of them is looked at. */
    *seed = *seed * 6364136223846793005 + 1442695040888963407;
    if (some)
        p[(*seed >> 33) % bytes] = (uint8_t)(*seed >> 24 | 1);
}

/* No vector register of the compiler's in between. */
static __attribute__((target("general-regs-only"), noinline)) void
there_and_back(struct x86_vcpu *c, bool with_all)
{
    volatile uint8_t *x = (volatile uint8_t *)&c->s.x;
    bool all;

    vec_registers_enter(c, with_all);
    all = c->vec_live & LIVE_VEC_ALL;
    /* They are in the host, so memory is free. */
    for (size_t n = offsetof(struct x86_xsave, xmm); n < offsetof(struct x86_xsave, pkru); n++)
        if (n < offsetof(struct x86_xsave, reserved1) ||
            (n >= offsetof(struct x86_xsave, ymm_hi) && n < offsetof(struct x86_xsave, gap)) ||
            (all && n >= offsetof(struct x86_xsave, opmask)))
            x[n] = 0xEE;
    vec_registers_leave(c);
}

static void test_combinations(void **state)
{
    struct fixture f;
    struct x86_vcpu *c;
    struct x86_xsave before;
    uint64_t seed = 1;

    fixture_start(&f, "max", 1);
    c = f.cpu[0];
    if (!c->vec->has_avx) {
        fixture_stop(&f);
        skip();
    }
    for (unsigned n = 0; n < 64 * COMBINATIONS; n++) {
        struct x86_xsave *x = &c->s.x;
        bool with_all = c->vec->has_avx512 && n / COMBINATIONS % 2;
        bool zmm = c->vec->has_avx512;

        fill(x->xmm, sizeof x->xmm, true, &seed);
        fill(x->ymm_hi, sizeof x->ymm_hi, n & UPPER, &seed);
        fill(x->zmm_hi, sizeof x->zmm_hi, zmm && n & ZMM, &seed);
        fill(x->hi16_zmm, sizeof x->hi16_zmm, zmm && n & OTHER, &seed);
        fill(x->opmask, sizeof x->opmask, false, &seed);
        if (zmm && n & MASKS)
            x->opmask[n / COMBINATIONS % 8] = 1 + (seed >> 49);
        before = *x;
        there_and_back(c, with_all);
        assert_memory_equal(x, &before, sizeof before);
        assert_int_equal(c->vec_live & (LIVE_VEC | LIVE_VEC_ALL), 0);
    }
    vec_sync(c);
    fixture_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_combinations)};

    return cmocka_run_group_tests_name("vector registers", tests, NULL, NULL);
}
