/*
 * The store of thunks: one bump-allocated piece of executable memory a vCPU,
 * equal code kept once. Freed as a whole by vec_flush().
 */
#include "cpu/x86/vec/vec_internal.h"

#define THUNK_ALIGN 16
#define TABLE_ENTRIES (1u << 18) /* twice what fits in the code memory: it never fills */

size_t vec_thunk_table_bytes(void)
{
    return TABLE_ENTRIES * sizeof(uint32_t);
}

static uint32_t hash_bytes(const uint8_t *p, unsigned n)
{
    uint64_t h = n;

    for (; n >= 8; p += 8, n -= 8)
        h = (h ^ le64_get(p)) * 0x9e3779b97f4a7c15ull ^ h >> 29;
    for (; n; p++, n--)
        h = (h ^ *p) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 40);
}

/*
 * Runs a new thunk once, on a state and memory of no consequence: what decodes
 * need not exist on this host (a reserved encoding, another vendor's), and
 * then it must be #UD for the guest rather than the end of this process.
 */
static bool trial(struct x86_vcpu *c, vec_thunk *fn)
{
    struct vec_runtime *rt = c->vec;
    uint8_t live = c->vec_live;

    memset(rt->trial_state, 0, sizeof *rt->trial_state);
    memset(rt->bounce, 0, sizeof rt->bounce);
    vec_x87_leave(c);
    vec_mxcsr_leave(c);
    vec_signals_arm(rt);
    fn(rt->trial_state, rt->bounce);
    vec_signals_disarm();
    __asm__ volatile("fninit");
    _mm_setcsr(MXCSR_DEFAULT);
    if (live & LIVE_MXCSR)
        vec_mxcsr_enter(c);
    if (live & LIVE_X87)
        vec_x87_enter(c);
    return !rt->trapped;
}

vec_thunk *vec_thunk_intern(struct x86_vcpu *c, const struct vec_emit *e, bool needs_trial)
{
    struct vec_runtime *rt = c->vec;
    uint32_t slot;
    vec_thunk *fn;

    if (e->n > sizeof e->b)
        return NULL;
    for (slot = hash_bytes(e->b, e->n) & (TABLE_ENTRIES - 1); rt->table[slot];
         slot = (slot + 1) & (TABLE_ENTRIES - 1)) {
        size_t at = (size_t)(rt->table[slot] - 1) * THUNK_ALIGN;

        if (at + e->n <= rt->used && !memcmp(rt->code.write + at, e->b, e->n))
            return (vec_thunk *)(uintptr_t)(rt->code.exec + at);
    }
    if (rt->used + e->n > rt->code.bytes) /* only without vec_needs_flush: see there */
        return NULL;
    memcpy(rt->code.write + rt->used, e->b, e->n);
    fn = (vec_thunk *)(uintptr_t)(rt->code.exec + rt->used);
    if (needs_trial && !trial(c, fn))
        return NULL;
    rt->table[slot] = (uint32_t)(rt->used / THUNK_ALIGN + 1);
    rt->used = align_up(rt->used + e->n, THUNK_ALIGN);
    rt->thunk_count++;
    return fn;
}
