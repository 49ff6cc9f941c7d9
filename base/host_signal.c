/*
 * Claims on the host's synchronous signals, and the chain to earlier handlers.
 */
#include "base/host_signal.h"

#include <errno.h>
#include <stdatomic.h>

#include "base/host.h"

#define MAX_HANDLERS 4

struct host_signal {
    int number;
    struct sigaction previous;
    /* A handler stays when its users are gone: a signal may be on its way. */
    struct claim {
        _Atomic(host_signal_handler *) handler;
        unsigned users;
    } claims[MAX_HANDLERS];
};

static struct {
    struct mutex lock;
    struct host_signal signals[4];
} host_signal_seam = {
    .lock = {PTHREAD_MUTEX_INITIALIZER},
    .signals = {{.number = SIGSEGV}, {.number = SIGBUS}, {.number = SIGFPE}, {.number = SIGILL}},
};

static struct host_signal *find_signal(int number)
{
    for (unsigned n = 0; n < ARRAY_SIZE(host_signal_seam.signals); n++)
        if (host_signal_seam.signals[n].number == number)
            return &host_signal_seam.signals[n];
    __builtin_unreachable();
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    const struct host_signal *s = find_signal(number);

    for (unsigned n = 0; n < MAX_HANDLERS; n++) {
        host_signal_handler *handler = atomic_load(&s->claims[n].handler);
        if (handler && handler(context))
            return;
    }
    if (s->previous.sa_flags & SA_SIGINFO)
        s->previous.sa_sigaction(number, info, context);
    else if (s->previous.sa_handler != SIG_DFL && s->previous.sa_handler != SIG_IGN)
        s->previous.sa_handler(number);
    else
        signal(number, SIG_DFL); /* the instruction faults again and ends the process */
}

static unsigned users_of(const struct host_signal *s)
{
    unsigned users = 0;

    for (unsigned n = 0; n < MAX_HANDLERS; n++)
        users += s->claims[n].users;
    return users;
}

/* The handler's claim, or a free one, or NULL. */
static struct claim *find_claim(struct host_signal *s, host_signal_handler *handler)
{
    struct claim *free = NULL;

    for (unsigned n = MAX_HANDLERS; n-- > 0;) {
        if (atomic_load(&s->claims[n].handler) == handler)
            return &s->claims[n];
        if (!s->claims[n].users)
            free = &s->claims[n];
    }
    return free;
}

int host_signal_claim(int number, host_signal_handler *handler, struct error *err)
{
    /* On the alternate stack where the thread has one, because a handler that
     * we chain to may count on it. */
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    struct host_signal *s = find_signal(number);
    struct claim *claim;
    int result = 0;

    sigemptyset(&action.sa_mask);
    mutex_lock(&host_signal_seam.lock);
    claim = find_claim(s, handler);
    if (!claim) {
        result = error_set(err, -ENOSPC, "too many handlers of signal %d", number);
    } else {
        atomic_store(&claim->handler, handler);
        if (!users_of(s) && sigaction(number, &action, &s->previous))
            result = error_set(err, -errno, "cannot install a handler for signal %d", number);
        else
            claim->users++;
    }
    mutex_unlock(&host_signal_seam.lock);
    return result;
}

void host_signal_unclaim(int number, host_signal_handler *handler)
{
    struct host_signal *s = find_signal(number);
    struct sigaction current;

    mutex_lock(&host_signal_seam.lock);
    find_claim(s, handler)->users--;
    /* Somebody who came after us may chain to us: leave theirs alone. */
    if (!users_of(s) && !sigaction(number, NULL, &current) && (current.sa_flags & SA_SIGINFO) &&
        current.sa_sigaction == on_signal)
        sigaction(number, &s->previous, NULL);
    mutex_unlock(&host_signal_seam.lock);
}
