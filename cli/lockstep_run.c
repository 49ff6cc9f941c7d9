/*
 * Lockstep to its end or to the first difference. Interface: cli/lockstep.h.
 *
 *    each chunk (16384 instructions)  clock, processors, devices, serial output
 *    now and then, at the end         all memory too, for a small part of the time
 *    each checkpoint                  all of it, and the state is saved
 *
 * Looking leaves no trace in a machine. A checkpoint does (translations and
 * decoded code go, as if the state had been loaded), so checkpoints come after
 * a number of instructions, not of seconds: each run of lockstep is the same.
 *
 * Threading: one thread.
 */
#include <errno.h>
#include <stdlib.h>

#include "cli/lockstep_internal.h"

/* Comparing memory takes at most a part of the time. */
enum { RAM_SHARE = 25 };
/* What is waited for somebody to type while the guest sleeps. */
enum { TYPING_MS = 10, INPUT_BYTES = 64 };

static bool must_stop(const struct lockstep *l, uint64_t started_ns)
{
    const struct lockstep_config *config = l->config;

    if (config->stop && atomic_load(config->stop))
        return true;
    return config->host_seconds &&
           host_monotonic_ns() - started_ns >= config->host_seconds * NS_PER_SEC;
}

static void input_free(struct lockstep_input *input)
{
    for (size_t i = 0; i < input->count; i++)
        free((char *)input->events[i].bytes);
    free(input->events);
}

/* Text becomes an event at the time at which both machines stand. */
static int type(struct lockstep *l, struct lockstep_pair *p, const char *text, struct error *err)
{
    struct char_script_event event = {.at_ns = lockstep_now(p), .bytes = strdup(text)};
    struct char_script_event *more = realloc(l->input.events, (l->input.count + 1) * sizeof *more);
    int r = 0;

    if (more)
        l->input.events = more;
    if (!more || !event.bytes) {
        free((char *)event.bytes);
        return error_set(err, -ENOMEM, "out of memory for what was typed");
    }
    l->input.events[l->input.count++] = event;
    for (unsigned i = 0; i < p->sides && !r; i++)
        r = char_script_add(p->side[i].serial, &event);
    return r ? error_set(err, r, "out of memory for what was typed") : 0;
}

/* While the guest sleeps its time passes as ours does, or nobody could type at
 * the right moment. */
static int take_input(struct lockstep *l, struct lockstep_pair *p, struct error *err)
{
    const struct lockstep_config *config = l->config;
    uint64_t idle_ms = p->schedule.step_ns / NS_PER_MS;
    char text[INPUT_BYTES + 1];
    size_t bytes, used = 0;

    if (!config->input || char_script_waiting(p->side[LOCKSTEP_REFERENCE].serial))
        return 0;
    bytes = config->input(config->ctx, text, INPUT_BYTES, (int)MIN(idle_ms, (uint64_t)TYPING_MS));
    for (size_t i = 0; i < bytes; i++) /* a script's strings end at a NUL */
        if (text[i])
            text[used++] = text[i];
    text[used] = '\0';
    return used ? type(l, p, text, err) : 0;
}

/* Both are the same, memory included. */
static int save_checkpoint(struct lockstep *l, struct lockstep_pair *p, struct error *err)
{
    struct state_hash hash;
    struct state_stream nowhere = {.hash = &hash};
    int r;

    l->checkpoint.state.used = 0;
    l->checkpoint.ns = lockstep_now(p);
    l->checkpoint.inputs = l->input.count;
    r = vm_state_save(p->side[LOCKSTEP_REFERENCE].vm, &l->checkpoint.state, err);
    if (r)
        return r;
    /* The other one loses its translations in the same way. */
    state_hash_init(&hash);
    r = vm_state_save(p->side[LOCKSTEP_TESTED].vm, &nowhere, err);
    lockstep_pair_start_schedule(p);
    return r;
}

static const char *ending(const struct lockstep_pair *p)
{
    const struct lockstep_side *s = &p->side[LOCKSTEP_REFERENCE];

    if (!s->ended)
        return "stopped here";
    switch (s->exit) {
    case VM_EXIT_POWEROFF:
        return "the guest switched itself off";
    case VM_EXIT_TRIPLE_FAULT:
        return "the guest ended in a triple fault";
    case VM_EXIT_RESET:
        return "the guest reset";
    case VM_EXIT_STOPPED:
    case VM_EXIT_LIMIT:
        break;
    }
    return "the machine stopped";
}

int lockstep_run(const struct lockstep_config *config, struct error *err)
{
    struct lockstep l = {.config = config};
    struct lockstep_pair p;
    uint64_t limit = config->instructions ? config->instructions : TIME_NEVER;
    uint64_t started = host_monotonic_ns(), compared = started, compare_ns = 0;
    uint64_t retired = 0, total = 0, saved_at = 0, same_ns = 0;
    int r = lockstep_pair_create(&l, &p, LOCKSTEP_SIDES, err);

    p.side[LOCKSTEP_REFERENCE].speaks = true;
    if (!r)
        r = lockstep_watch_start(&l, err);
    while (!r) {
        uint64_t now;
        bool full, last;

        r = take_input(&l, &p, err);
        if (!r) {
            atomic_store(&l.watch.good_ns, lockstep_now(&p));
            atomic_fetch_add(&l.watch.beat, 1);
            atomic_store(&l.watch.running, true);
            r = lockstep_pair_run(&p, limit, err);
            atomic_store(&l.watch.running, false);
        }
        if (r)
            break;
        now = lockstep_retired(&p.side[LOCKSTEP_REFERENCE]);
        total += now >= retired ? now - retired : now;
        retired = now;
        last = lockstep_pair_ended(&p) || lockstep_now(&p) >= limit || must_stop(&l, started);
        full = last || (config->checkpoint && total - saved_at >= config->checkpoint) ||
               host_monotonic_ns() - compared >= RAM_SHARE * compare_ns;
        compared = full ? host_monotonic_ns() : compared;
        if (lockstep_compare(&l, &p, full, NULL, NULL)) {
            r = lockstep_find(&l, &p, same_ns, lockstep_now(&p), err);
            break;
        }
        if (full) {
            same_ns = lockstep_now(&p);
            compare_ns = host_monotonic_ns() - compared;
            compared += compare_ns;
        }
        if (last) {
            lockstep_say(&l,
                         "no difference in %llu instructions, %llu.%03llu s of virtual time: %s",
                         (unsigned long long)total, (unsigned long long)(same_ns / NS_PER_SEC),
                         (unsigned long long)(same_ns / NS_PER_MS % 1000), ending(&p));
            r = LOCKSTEP_SAME;
            break;
        }
        if (config->checkpoint && total - saved_at >= config->checkpoint) {
            saved_at = total;
            r = save_checkpoint(&l, &p, err);
        }
    }
    lockstep_watch_end(&l);
    lockstep_pair_destroy(&p);
    state_stream_free(&l.checkpoint.state);
    state_comparison_free(&l.comparison);
    input_free(&l.input);
    return r;
}
