/*
 * How long a thread looks for work before it sleeps for it.
 *
 * To be woken by another processor takes 20 us, and the waker pays a part of them;
 * what is looked for is seen at once. So it pays to look first where waits are short,
 * which is learned from those that were, as KVM does for halted processors
 * (halt_poll_ns, whose bound is the same). Long ones end it: an idle machine sleeps.
 *
 * A host processor that somebody else wants is his: looking yields. Where that took
 * long (others are busy, or a container has used up its share of processor time)
 * nobody looks for a while: a thread that slept gets its processor sooner than one
 * that yielded.
 */
#ifndef BASE_PATIENCE_H
#define BASE_PATIENCE_H

#include <stdatomic.h>

#include "base/base.h"

#define PATIENCE_MAX_NS 200000

/* Zeroed: none, until it has learned some. None ever where the process has but one
 * processor, on which nothing happens while somebody looks. */
struct patience {
    _Atomic uint32_t window_ns; /* how long to look */
    /* Who looks only: */
    unsigned processors; /* of the process; 0: not asked yet */
    uint64_t end_ns, last_ns;
    uint64_t pause_ns, pause_end_ns; /* after somebody else wanted the processor */
};

/* A wait took so long, looking or asleep or both. One thread at a time. */
void patience_learn(struct patience *p, uint64_t waited_ns);

/* Whether to look, and having looked for about a microsecond, whether to look again:
 *     for (bool looks = patience_begin(p); looks; looks = patience_lasts(p))
 * One thread at a time, which may be another than the one that learns. */
bool patience_begin(struct patience *p);
bool patience_lasts(struct patience *p);

/* Looks for as long as that; true as soon as *word is not value. */
bool patience_look(struct patience *p, const _Atomic uint32_t *word, uint32_t value);

#endif
