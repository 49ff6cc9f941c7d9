/*
 * Where the check of an address says yes and is wrong.
 *
 * The check (memory.c) compares the way from an L0 entry's page with a constant:
 * a sum and one comparison with what is known when the code is made. Whatever
 * an entry says, there are 4097 - size addresses that pass; for an empty one
 * these are in the page JIT_L0_NONE, which is far from canonical. A guest that
 * goes there must get #GP or #SS, and the host's processor raises just that for
 * the access, because adding an addend leaves such an address far from
 * canonical. An exact check would need another load or instruction each time;
 * instead the host's signal is taken here and the code goes on where it would
 * have gone, had the check said no: at the slow way, which calls the handler.
 *
 * No tables are needed for that. The code of a check and the load behind it are
 * 20 bytes that nothing else looks like (no guest immediate has more than 8),
 * with the slow way's address in them and, there, which entry it is; and between
 * them and the access there is nothing that the slow way would miss: scratch
 * registers and the host's flags change, guest registers, cc and what recipes
 * start from do not. An access that has no check of its own is behind one that
 * has and goes to the same page (group.c), so it never comes to that.
 *
 * Only this case is taken: a check for the entry is there, and the entry is
 * empty. Any other fault, the JIT's own mistakes included, goes to whoever was
 * there before.
 *
 * Threading: acquire and release from any thread; jit_run acts for its own.
 */
#include "engine/jit/jit.h"

#include <string.h>
#include <ucontext.h>

#include "base/host_signal.h"
#include "engine/interp/interp.h"

#define CHECK_BYTES 20
/* From a check's first byte to its access, at most: flags may be made between. */
#define CHECK_REACH 128
/* LEA, a test of alignment and the store of the argument, behind which the call of
 * jit_miss is. */
#define BEFORE_CALL (8 + 2 + 6 + 11)

static __thread struct x86_vcpu *jit_running;

/* The slow way of the check at `at`, if there is one and its entry is empty:
 *   cmp rax, imm32; ja miss; mov rax, [rsp + addend] */
static const uint8_t *slow_way(const struct jit *j, const uint8_t *at)
{
    const uint64_t l0 = JIT_AREA + offsetof(struct jit, l0);
    const uint8_t *end = j->code.exec + j->code.bytes, *p;
    const struct jit_l0 *entry;
    uint64_t offset;

    if (at[0] != 0x48 || at[1] != 0x3d || at[6] != 0x0f || at[7] != 0x87 || at[12] != 0x48 ||
        at[13] != 0x8b || at[14] != 0x84 || at[15] != 0x24)
        return NULL;
    offset = le32_get(at + 16) - l0 - offsetof(struct jit_l0, addend);
    if (offset >= sizeof j->l0 || offset % sizeof *entry)
        return NULL;
    entry = &j->l0[0][0] + offset / sizeof *entry;
    if (entry->read != JIT_L0_NONE && entry->write != JIT_L0_NONE)
        return NULL;
    p = at + 12 + (int32_t)le32_get(at + 8);
    if (p < j->code.exec || p > end - 64)
        return NULL;
    /* lea; mov [rsp + miss_argument], ..; call [rsp + miss], and its argument */
    for (unsigned n = 0; n <= BEFORE_CALL; n++) {
        const uint8_t *call = p + n, *argument = call + 7;
        if (call[0] == 0xff && call[1] == 0x94 && call[2] == 0x24 &&
            le32_get(call + 3) == JIT_AREA + offsetof(struct jit, miss) &&
            (le32_get(argument) & 0xffff) == offset)
            return argument + JIT_MISS_TO_SLOW +
                   (le32_get(argument) >> JIT_MISS_ONCE_BIT & 1) * JIT_MISS_ONCE_BYTES;
    }
    return NULL;
}

static const uint8_t *find_slow_way(const struct jit *j, uint64_t rip)
{
    uint64_t into = rip - (uint64_t)(uintptr_t)j->code.exec;
    const uint8_t *at = j->code.exec + into, *slow;

    if (into >= j->code.bytes)
        return NULL;
    for (uint64_t n = CHECK_BYTES; n <= CHECK_REACH && n <= into; n++) {
        slow = slow_way(j, at - n);
        if (slow)
            return slow;
    }
    return NULL;
}

static bool on_fault(void *context)
{
    struct x86_vcpu *c = jit_running;
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *slow;

    if (!c || (uint64_t)g[REG_RSP] != (uint64_t)(uintptr_t)c)
        return false;
    slow = find_slow_way(jit_of(c), (uint64_t)g[REG_RIP]);
    if (!slow)
        return false;
    g[REG_RIP] = (greg_t)(uintptr_t)slow;
    jit_of(c)->stats.false_hits++;
    return true;
}

/* The host's #GP is a SIGSEGV, its #SS a SIGBUS. */
int jit_faults_acquire(struct error *err)
{
    int result = host_signal_claim(SIGSEGV, on_fault, err);

    if (result)
        return result;
    result = host_signal_claim(SIGBUS, on_fault, err);
    if (result)
        host_signal_unclaim(SIGSEGV, on_fault);
    return result;
}

void jit_faults_release(void)
{
    host_signal_unclaim(SIGSEGV, on_fault);
    host_signal_unclaim(SIGBUS, on_fault);
}

enum vcpu_exit jit_run(struct x86_vcpu *c, uint64_t budget)
{
    struct x86_vcpu *outer = jit_running;
    enum vcpu_exit exit;

    jit_running = c;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    exit = interp_run(c, budget);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    jit_running = outer;
    return exit;
}
