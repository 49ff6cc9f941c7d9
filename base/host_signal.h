/*
 * The host's synchronous signals (SIGSEGV, SIGFPE, ...), raised by generated
 * code of ours and taken where they belong.
 *
 * Signal dispositions belong to the process, and so do the claims here; they
 * say nothing about any machine. A signal that no claim takes goes to whoever
 * handled it before us, or ends the process as it would have.
 *
 * Threading: claim and unclaim from any thread; a handler runs on the thread
 * that raised the signal and must be async-signal-safe.
 */
#ifndef BASE_HOST_SIGNAL_H
#define BASE_HOST_SIGNAL_H

#include <signal.h>

#include "base/base.h"
#include "base/error.h"

/* Returns whether the signal was its own and `context` (a ucontext_t) may go on. */
typedef bool host_signal_handler(void *context);

/* Counts: as many unclaims as claims. 0, or -errno with *err. */
int host_signal_claim(int number, host_signal_handler *handler, struct error *err);
void host_signal_unclaim(int number, host_signal_handler *handler);

#endif
