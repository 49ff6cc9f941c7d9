/*
 * A character back end for tests: input at given virtual times, output to a
 * function. In a deterministic machine the bytes arrive at the same
 * instruction in every run.
 *
 * Unlike what comes from the host, a script is part of the machine's future:
 * how far it has been read is saved with the machine (as a device that has
 * nothing but state), and a machine that is loaded reads on from there. The
 * script itself is the configuration's.
 *
 * Threading: with the machine's lock held; output is called with it too.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/char/internal.h"
#include "vm/vm.h"

enum { INPUT_BOUND = 64 << 10 };

struct char_script {
    struct char_backend backend;
    struct char_input input;
    struct timer timer;
    struct char_script_event *events; /* our copy; the bytes stay the caller's */
    size_t count, next;
    uint32_t saved_next;   /* what the state table knows them as */
    uint64_t saved_queued; /* bytes of the events before next that still wait */
    void (*output)(void *ctx, const uint8_t *data, size_t n);
    void *output_ctx;
};

static void arm_next(struct char_script *s)
{
    if (s->next < s->count)
        timer_arm(&s->timer, s->events[s->next].at_ns);
}

static void script_fire(void *ctx)
{
    struct char_script *s = ctx;
    uint64_t now = clock_now_ns(&s->backend.vm->clock);

    while (s->next < s->count && s->events[s->next].at_ns <= now) {
        const char *bytes = s->events[s->next++].bytes;

        byte_queue_put(&s->input.queue, (const uint8_t *)bytes, strlen(bytes));
    }
    char_input_pump(&s->input);
    arm_next(s);
}

static void script_write(struct char_backend *b, const uint8_t *data, size_t bytes)
{
    struct char_script *s = CONTAINER_OF(b, struct char_script, backend);

    if (s->output)
        s->output(s->output_ctx, data, bytes);
}

static void script_resume_input(struct char_backend *b)
{
    struct char_script *s = CONTAINER_OF(b, struct char_script, backend);

    char_input_pump(&s->input);
}

static void script_destroy(struct char_backend *b)
{
    struct char_script *s = CONTAINER_OF(b, struct char_script, backend);

    timer_destroy(&s->timer);
    char_input_free(&s->input);
    free(s->events);
    free(s);
}

static const struct char_ops script_ops = {
    .write = script_write,
    .resume_input = script_resume_input,
    .destroy = script_destroy,
};

/* ---- state ---- */

static void script_before_save(void *self)
{
    struct char_script *s = self;

    s->saved_next = (uint32_t)s->next;
    s->saved_queued = s->input.queue.used + s->input.in_flight;
}

/* The bytes that wait are the last ones of the events that have come. */
static int script_after_load(void *self, unsigned version)
{
    struct char_script *s = self;
    struct byte_queue *q = &s->input.queue;
    uint64_t left = s->saved_queued;
    size_t first = s->saved_next;

    if (s->saved_next > s->count || left > INPUT_BOUND)
        return -EINVAL;
    while (left && first) { /* back to the event in which they begin */
        uint64_t bytes = strlen(s->events[--first].bytes);

        left -= MIN(left, bytes);
    }
    byte_queue_drop(q, q->used);
    for (size_t i = first; i < s->saved_next; i++)
        byte_queue_put_newest(q, (const uint8_t *)s->events[i].bytes, strlen(s->events[i].bytes));
    if (q->used < s->saved_queued)
        return -EINVAL;
    byte_queue_drop(q, q->used - s->saved_queued);
    s->input.in_flight = 0;
    s->next = s->saved_next;
    return 0;
}

static const struct state_field script_fields[] = {
    STATE_INT(struct char_script, saved_next),
    STATE_INT(struct char_script, saved_queued),
    STATE_TIMER(struct char_script, timer),
    STATE_END,
};

static const struct state_table script_state = {"char-script", 1, script_fields, script_before_save,
                                                script_after_load};

/* Its backend owns it: there is nothing to destroy, and a reset of the machine
 * does not reach the other end of the line. */
static void script_reset(void *self)
{
}

static const struct dev_type script_type = {
    .name = "char-script",
    .reset = script_reset,
    .state = &script_state,
};

struct char_backend *char_script_create(struct vm *vm, const struct char_script_event *events,
                                        size_t count,
                                        void (*output)(void *ctx, const uint8_t *data, size_t n),
                                        void *ctx, struct error *err)
{
    struct char_script *s = calloc(1, sizeof *s);
    struct char_script_event *copy = calloc(count + 1, sizeof *copy);

    if (!s || !copy) {
        free(s);
        free(copy);
        error_set(err, -ENOMEM, "out of memory for a serial line: use less --memory");
        return NULL;
    }
    if (count)
        memcpy(copy, events, count * sizeof *copy);
    s->backend.ops = &script_ops;
    s->backend.vm = vm;
    s->events = copy;
    s->count = count;
    s->output = output;
    s->output_ctx = ctx;
    char_input_init(&s->input, &s->backend, INPUT_BOUND);
    timer_init(&s->timer, vm, script_fire, s);
    vm_add_device(vm, &script_type, "script", s);
    arm_next(s);
    return &s->backend;
}

int char_script_add(struct char_backend *b, const struct char_script_event *event)
{
    struct char_script *s = CONTAINER_OF(b, struct char_script, backend);
    struct char_script_event *more = realloc(s->events, (s->count + 1) * sizeof *more);

    if (!more)
        return -ENOMEM;
    vm_lock(b->vm);
    s->events = more;
    s->events[s->count++] = *event;
    if (s->next + 1 == s->count) /* else it is armed for an earlier one */
        arm_next(s);
    vm_unlock(b->vm);
    return 0;
}

size_t char_script_waiting(const struct char_backend *b)
{
    const struct char_script *s = CONTAINER_OF(b, struct char_script, backend);

    return s->input.queue.used + s->input.in_flight;
}
