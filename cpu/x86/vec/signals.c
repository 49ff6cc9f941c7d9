/*
 * Catches what the host raises inside a thunk.
 *
 * SIGFPE: the guest unmasked a SIMD exception, and its instruction raised it.
 * The host has set the flags in MXCSR and written no result, exactly what the
 * guest must see (SDM Vol. 1, 11.5.2); so the handler notes MXCSR, restores the
 * default and returns from the thunk. SIGILL: the trial run of a new thunk, the
 * host does not know the instruction.
 *
 * Signal dispositions belong to the process, so their bookkeeping (a count of
 * users and the handlers to chain to) is the one thing here that is not in a
 * struct vec_runtime; it says nothing about any machine.
 *
 * Threading: acquire and release from any thread; arm and disarm act for the
 * calling thread.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include "cpu/x86/vec/vec_internal.h"

static __thread struct vec_runtime *vec_armed;

static const int vec_signal_numbers[] = {SIGFPE, SIGILL};

static struct {
    pthread_mutex_t lock;
    unsigned users;
    struct sigaction previous[ARRAY_SIZE(vec_signal_numbers)];
} vec_signal_seam = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void chain(int number, siginfo_t *info, void *context)
{
    unsigned n = number == vec_signal_numbers[0] ? 0 : 1;
    const struct sigaction *old = &vec_signal_seam.previous[n];

    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(number, info, context);
    else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN)
        old->sa_handler(number);
    else
        signal(number, SIG_DFL); /* the instruction faults again and ends the process */
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    struct vec_runtime *rt = vec_armed;
    ucontext_t *u = context;
    uint64_t rip = (uint64_t)u->uc_mcontext.gregs[REG_RIP];

    if (!rt || rip - (uint64_t)(uintptr_t)rt->code.exec >= rt->code.bytes) {
        chain(number, info, context);
        return;
    }
    rt->trap_mxcsr = u->uc_mcontext.fpregs->mxcsr;
    rt->trapped = true;
    u->uc_mcontext.fpregs->mxcsr = MXCSR_DEFAULT;
    u->uc_mcontext.gregs[REG_RIP] =
        (greg_t)(uintptr_t)(rt->code.exec + rt->return_stub);
}

int vec_signals_acquire(struct error *err)
{
    /* On the alternate stack where the thread has one, because a handler that
     * we chain to may count on it. */
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    int result = 0;

    sigemptyset(&action.sa_mask);
    pthread_mutex_lock(&vec_signal_seam.lock);
    if (!vec_signal_seam.users) {
        for (unsigned n = 0; n < ARRAY_SIZE(vec_signal_numbers); n++) {
            if (sigaction(vec_signal_numbers[n], &action, &vec_signal_seam.previous[n])) {
                result = error_set(err, -errno, "cannot install a handler for signal %d",
                                   vec_signal_numbers[n]);
                while (n--)
                    sigaction(vec_signal_numbers[n], &vec_signal_seam.previous[n], NULL);
                break;
            }
        }
    }
    if (!result)
        vec_signal_seam.users++;
    pthread_mutex_unlock(&vec_signal_seam.lock);
    return result;
}

void vec_signals_release(void)
{
    pthread_mutex_lock(&vec_signal_seam.lock);
    if (--vec_signal_seam.users == 0) {
        for (unsigned n = 0; n < ARRAY_SIZE(vec_signal_numbers); n++) {
            struct sigaction current;

            /* Somebody who came after us may chain to us: leave theirs alone. */
            if (!sigaction(vec_signal_numbers[n], NULL, &current) &&
                (current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_signal)
                sigaction(vec_signal_numbers[n], &vec_signal_seam.previous[n], NULL);
        }
    }
    pthread_mutex_unlock(&vec_signal_seam.lock);
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
