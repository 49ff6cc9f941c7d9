/*
 * Catches what the host raises inside a thunk.
 *
 * SIGFPE: the guest unmasked a SIMD exception, and its instruction raised it.
 * The host has set the flags in MXCSR and written no result, exactly what the
 * guest must see (SDM Vol. 1, 11.5.2); so the handler notes MXCSR, restores the
 * default and returns from the thunk. SIGILL: the trial run of a new thunk, the
 * host does not know the instruction.
 *
 * Threading: acquire and release from any thread; arm and disarm act for the
 * calling thread.
 */
#include <signal.h>
#include <ucontext.h>

#include "base/host_signal.h"
#include "cpu/x86/vec/vec_internal.h"

static __thread struct vec_runtime *vec_armed;

static bool on_signal(void *context)
{
    struct vec_runtime *rt = vec_armed;
    ucontext_t *u = context;
    uint64_t rip = (uint64_t)u->uc_mcontext.gregs[REG_RIP];

    if (!rt || rip - (uint64_t)(uintptr_t)rt->code.exec >= rt->code.bytes)
        return false;
    rt->trap_mxcsr = u->uc_mcontext.fpregs->mxcsr;
    rt->trapped = true;
    u->uc_mcontext.fpregs->mxcsr = MXCSR_DEFAULT;
    u->uc_mcontext.gregs[REG_RIP] =
        (greg_t)(uintptr_t)(rt->code.exec + rt->return_stub);
    return true;
}

int vec_signals_acquire(struct error *err)
{
    int result = host_signal_claim(SIGFPE, on_signal, err);

    if (result)
        return result;
    result = host_signal_claim(SIGILL, on_signal, err);
    if (result)
        host_signal_unclaim(SIGFPE, on_signal);
    return result;
}

void vec_signals_release(void)
{
    host_signal_unclaim(SIGFPE, on_signal);
    host_signal_unclaim(SIGILL, on_signal);
}

void vec_signals_arm(struct vec_runtime *rt)
{
    rt->trapped = false;
    vec_armed = rt;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void vec_signals_disarm(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    vec_armed = NULL;
}
