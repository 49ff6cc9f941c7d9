/*
 * Where two machines part: from "the same then, different now" to one block or
 * instruction. Interface: lockstep_find in cli/lockstep_internal.h.
 *
 * New machines start at the last checkpoint and go the same way again, stopping
 * only where the first ones stopped, and at one time more, at which everything
 * is compared. An engine that runs blocks runs the same blocks then, up to the
 * last one, which it may have to leave for the end of the run: so the first
 * time at which the machines differ is the end of a block that was run as one.
 *
 * While the interval is long they stop at several times on the way, which is
 * quicker. Should no difference show then, because stopping cut the block in
 * question in pieces, it goes on with one.
 *
 * Threading: one thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/lockstep_internal.h"

enum {
    STOPS = 16,
    STOPS_FROM_NS = 16384, /* intervals from this on are looked at in several places */
    FIRST_LINES_BYTES = 8 << 10,
};

/* Machines at the checkpoint and on to ns; *differ: are they different there? */
static int go_to(struct lockstep *l, struct lockstep_pair *p, uint64_t ns, bool *differ,
                 struct error *err)
{
    int r = lockstep_pair_create(l, p, LOCKSTEP_SIDES, err);

    if (!r)
        r = lockstep_pair_run_to(p, ns, err);
    *differ = !r && lockstep_compare(l, p, true, NULL, NULL);
    return r;
}

/* One pass from the last checkpoint with stops at *good and on the way to *bad,
 * which move towards each other. *found: a difference showed. */
static int narrow(struct lockstep *l, uint64_t *good, uint64_t *bad, bool *found, struct error *err)
{
    uint64_t from = *good, to = *bad;
    struct lockstep_pair p;
    int r = lockstep_pair_create(l, &p, LOCKSTEP_SIDES, err);

    *found = false;
    for (unsigned i = 1; i <= STOPS && !r && !*found; i++) {
        uint64_t at = i == STOPS ? to : from + (to - from) / STOPS * i;

        r = lockstep_pair_run_to(&p, at, err);
        *found = !r && lockstep_compare(l, &p, true, NULL, NULL);
        if (*found)
            *bad = at;
        else if (!r)
            *good = at;
    }
    lockstep_pair_destroy(&p);
    return r;
}

static bool interrupted(const struct lockstep *l)
{
    return l->config->stop && atomic_load(l->config->stop);
}

/* *good: the machines are the same there; *bad: they differ. */
static int search(struct lockstep *l, uint64_t *good, uint64_t *bad, struct error *err)
{
    uint64_t same = *good, different = *bad;
    struct lockstep_pair p;
    bool found = true, differ;
    int r = 0;

    while (!r && found && *bad - *good >= STOPS_FROM_NS && !interrupted(l))
        r = narrow(l, good, bad, &found, err);
    if (!r && !found) {
        *good = same;
        *bad = different;
    } else if (!r && *good != same) {
        /* What showed may have been the second time. */
        r = go_to(l, &p, *good, &differ, err);
        lockstep_pair_destroy(&p);
        if (!r && differ) {
            *bad = *good;
            *good = same;
        }
    }
    while (!r && *bad - *good > 1 && !interrupted(l)) {
        uint64_t middle = *good + (*bad - *good) / 2;

        r = go_to(l, &p, middle, &differ, err);
        lockstep_pair_destroy(&p);
        *(differ ? bad : good) = middle;
    }
    return r;
}

/* ---- the whole ---- */

struct first_lines {
    char *text;
    size_t used;
};

static void keep_line(void *ctx, const char *line)
{
    struct first_lines *lines = ctx;

    if (lines->text && lines->used + strlen(line) + 2 < FIRST_LINES_BYTES)
        lines->used += (size_t)sprintf(lines->text + lines->used, "%s\n", line);
}

static void say_first_lines(struct lockstep *l, struct first_lines *lines)
{
    char *next = NULL;

    if (!lines->text)
        return;
    for (char *line = strtok_r(lines->text, "\n", &next); line; line = strtok_r(NULL, "\n", &next))
        lockstep_say_difference(l, line);
}

int lockstep_find(struct lockstep *l, struct lockstep_pair *p, uint64_t good_ns, uint64_t bad_ns,
                  struct error *err)
{
    struct first_lines lines = {.text = calloc(1, FIRST_LINES_BYTES)};
    bool differ;
    int r;

    l->again = true;
    lockstep_say(l, "the machines differ after %llu ns; looking for the first difference",
                 (unsigned long long)bad_ns);
    lockstep_compare(l, p, true, keep_line, &lines);
    lockstep_pair_destroy(p);

    r = go_to(l, p, bad_ns, &differ, err);
    if (!r && differ) {
        lockstep_pair_destroy(p);
        r = search(l, &good_ns, &bad_ns, err);
        if (!r)
            r = go_to(l, p, bad_ns, &differ, err);
    }
    if (!r && differ) {
        r = lockstep_report(l, p, good_ns, bad_ns, err);
    } else if (!r) {
        lockstep_say(l,
                     "from the state at %llu ns on the difference does not show again: what the "
                     "tested engine does depends on more than the machine's state",
                     (unsigned long long)l->checkpoint.ns);
        lockstep_say(l, "differences between %llu and %llu ns:", (unsigned long long)good_ns,
                     (unsigned long long)bad_ns);
        say_first_lines(l, &lines);
    }
    lockstep_pair_destroy(p);
    free(lines.text);
    return r < 0 ? r : LOCKSTEP_DIFFERENT;
}
