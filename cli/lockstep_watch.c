/*
 * An engine that does not come back: what it was executing.
 * Interface: lockstep_watch_* in cli/lockstep_internal.h.
 *
 * A thread watches that chunks end. When one does not for a long while, the
 * thread in the engine is lost, for nothing can take it out of there. Where it
 * got lost is found as a difference is, by halves, each attempt in a child
 * process that builds its own machines at the checkpoint and is ended when it
 * takes too long (or ends by itself, if the engine crashes there).
 *
 * Threading: the watching thread only reads the checkpoint and what was typed,
 * which change between chunks only; beat and good_ns are atomic.
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/lockstep_internal.h"

/* A chunk takes a millisecond, or some where all is slow. A replay takes as long
 * as the way to the start of the chunk takes, and LOST_MS at most. */
enum { LOOK_MS = 200, PATIENCE_MS = 20000, REPLAY_MOST_MS = 600000, LOST_MS = 2000 };

static void sleep_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

/* Does a machine get from the checkpoint to ns? In a process of its own. */
static bool comes_back(struct lockstep *l, uint64_t ns, uint64_t patience_ms)
{
    uint64_t end = host_monotonic_ns() + patience_ms * NS_PER_MS;
    int status = 0;
    pid_t pid = fork(), done = 0;

    if (!pid) {
        struct lockstep_pair p;
        struct error err = {""};
        int r = lockstep_pair_create(l, &p, LOCKSTEP_SIDES, &err);

        if (!r)
            r = lockstep_pair_run_to(&p, ns, &err);
        _exit(r ? 1 : 0);
    }
    while (pid > 0 && !(done = waitpid(pid, &status, WNOHANG)) && host_monotonic_ns() < end)
        sleep_ms(5);
    if (pid > 0 && !done) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    return done > 0 && WIFEXITED(status) && !WEXITSTATUS(status);
}

static void find_stuck(struct lockstep *l)
{
    uint64_t good = atomic_load(&l->watch.good_ns), bad = good + LOCKSTEP_CHUNK_NS;
    const char *name = l->config->engine[LOCKSTEP_TESTED]->name;
    uint64_t patience_ms, started = host_monotonic_ns();
    struct error err = {""};
    bool same;

    l->again = true;
    lockstep_say(l,
                 "engine %s does not come back from a run that began at %llu ns; looking for "
                 "the code",
                 name, (unsigned long long)good);
    same = comes_back(l, good, REPLAY_MOST_MS);
    patience_ms = LOST_MS + 4 * ((host_monotonic_ns() - started) / NS_PER_MS);
    if (!same || comes_back(l, bad, patience_ms)) {
        lockstep_say(l, "it does not happen again from the state at %llu ns on",
                     (unsigned long long)l->checkpoint.ns);
        return;
    }
    while (bad - good > 1) {
        uint64_t middle = good + (bad - good) / 2;

        *(comes_back(l, middle, patience_ms) ? &good : &bad) = middle;
    }
    lockstep_say(l, "it comes back from %llu ns and not from %llu ns", (unsigned long long)good,
                 (unsigned long long)bad);
    if (lockstep_report_code(l, bad, &err))
        lockstep_say(l, "%s", err.text);
}

static void *watch(void *ctx)
{
    struct lockstep *l = ctx;
    uint32_t beat = atomic_load(&l->watch.beat);
    uint64_t since = host_monotonic_ns();
    uint64_t patience_ms = l->config->patience_ms ? l->config->patience_ms : PATIENCE_MS;

    while (!atomic_load(&l->watch.end)) {
        uint32_t now = atomic_load(&l->watch.beat);

        sleep_ms(LOOK_MS);
        if (now != beat || !atomic_load(&l->watch.running)) {
            beat = now;
            since = host_monotonic_ns();
        } else if (host_monotonic_ns() - since >= patience_ms * NS_PER_MS) {
            find_stuck(l);
            l->config->stuck(l->config->ctx);
        }
    }
    return NULL;
}

int lockstep_watch_start(struct lockstep *l, struct error *err)
{
    int r;

    if (!l->config->stuck)
        return 0;
    r = thread_start(&l->watch.thread, "watch", watch, l);
    l->watch.started = !r;
    return r ? error_set(err, r, "cannot start a thread: %s", strerror(-r)) : 0;
}

void lockstep_watch_end(struct lockstep *l)
{
    atomic_store(&l->watch.end, true);
    if (l->watch.started)
        thread_join(&l->watch.thread);
}
