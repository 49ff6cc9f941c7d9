/*
 * Looking before sleeping. Interface: patience.h.
 */
#include "base/patience.h"

#include <sched.h>

#include "base/host.h"

enum {
    MIN_WINDOW_NS = 4000, /* less is not worth it */
    LOOKS = 50,           /* of a word, between two yields: a microsecond or two */
    /* Between two looks: what others of this machine do for a request is shorter, a
     * turn of the host's scheduler longer. */
    AWAY_NS = 1000 * 1000,
    PAUSE_MIN_NS = 100 * 1000 * 1000,
    PAUSE_MAX_NS = 1000 * 1000 * 1000,
};

void patience_learn(struct patience *p, uint64_t waited_ns)
{
    uint32_t window = atomic_load_explicit(&p->window_ns, memory_order_relaxed);

    if (waited_ns > PATIENCE_MAX_NS)
        window /= 2;
    else if (2 * waited_ns > window)
        window = (uint32_t)MIN(2 * waited_ns, PATIENCE_MAX_NS);
    else
        window -= window / 16;
    if (window < MIN_WINDOW_NS)
        window = 0;
    atomic_store_explicit(&p->window_ns, window, memory_order_relaxed);
}

bool patience_begin(struct patience *p)
{
    uint32_t window = atomic_load_explicit(&p->window_ns, memory_order_relaxed);
    uint64_t now;

    if (!window)
        return false;
    if (!p->processors)
        p->processors = host_processors();
    if (p->processors == 1)
        return false;
    now = host_monotonic_ns();
    p->last_ns = now;
    p->end_ns = now + window;
    return now >= p->pause_end_ns;
}

bool patience_lasts(struct patience *p)
{
    uint64_t before = p->last_ns, now;

    sched_yield();
    now = p->last_ns = host_monotonic_ns();
    if (now - before > AWAY_NS) {
        /* Longer each time, if the last was not long ago. */
        bool again = before - p->pause_end_ns < p->pause_ns;

        p->pause_ns = again ? MIN(2 * p->pause_ns, PAUSE_MAX_NS) : PAUSE_MIN_NS;
        p->pause_end_ns = now + p->pause_ns;
        return false;
    }
    return now < p->end_ns;
}

bool patience_look(struct patience *p, const _Atomic uint32_t *word, uint32_t value)
{
    for (bool looks = patience_begin(p); looks; looks = patience_lasts(p)) {
        for (unsigned n = 0; n < LOOKS; n++) {
            if (atomic_load_explicit(word, memory_order_acquire) != value)
                return true;
            __builtin_ia32_pause();
        }
    }
    return false;
}
