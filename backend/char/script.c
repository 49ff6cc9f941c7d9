/*
 * A character back end for tests: input at given virtual times, output to a
 * function. In a deterministic machine the bytes arrive at the same
 * instruction in every run.
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
    arm_next(s);
    return &s->backend;
}
