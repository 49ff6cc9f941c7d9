/*
 * Two machines that are the same but for their engines, and how they run.
 * Interface: cli/lockstep_internal.h.
 *
 * Everything else that could make them differ is the same for both: time is
 * retired instructions, randomness is seeded, the serial line is a script (what
 * is typed becomes part of it, at the time when both have stopped), and
 * nothing else is connected to the host.
 *
 * Threading: one thread.
 */
#include <errno.h>

#include "cli/lockstep_internal.h"

#define IDLE_CHUNK_NS NS_PER_SEC
enum { DIFFERENCES_TOLD = 40 };

static void take_output(void *ctx, const uint8_t *data, size_t bytes)
{
    struct lockstep_side *s = ctx;
    const struct lockstep_config *config = s->l->config;

    state_hash_put(&s->output, data, bytes);
    if (s->speaks && config->output)
        config->output(config->ctx, data, bytes);
}

static int side_create(struct lockstep *l, struct lockstep_side *s, unsigned which,
                       struct error *err)
{
    const struct lockstep_config *config = l->config;
    const struct lockstep_checkpoint *from = &l->checkpoint;
    struct vm_config machine = {.deterministic = true, .seed = config->seed};
    struct pc_config board = config->board;
    struct state_stream state = {.data = from->state.data, .used = from->state.used};
    int r;

    s->l = l;
    state_hash_init(&s->output);
    if (which == LOCKSTEP_REFERENCE && !l->again)
        machine.log = config->log;
    s->vm = vm_create(&machine, err);
    if (!s->vm)
        return -ENOMEM;
    s->vm->no_reboot = config->no_reboot;
    s->serial = char_script_create(s->vm, l->input.events, from->inputs, take_output, s, err);
    if (!s->serial)
        return -ENOMEM;
    board.engine = config->engine[which];
    board.com[0] = s->serial;
    r = config->disks ? cli_disks_open(&s->disks, config->disks, true, s->vm, &board, err) : 0;
    if (!r && config->disks)
        r = cli_nets_open(&s->nets, config->disks, s->vm, &board, err);
    if (!r && config->disks)
        r = cli_cards_add(&s->cards, config->disks, NULL, true, s->vm, &board, err);
    if (!r)
        r = pc_create(s->vm, &board, &s->pc, err);
    if (!r && state.used)
        r = vm_state_load(s->vm, &state, err);
    for (size_t i = from->inputs; i < l->input.count && !r; i++)
        if (char_script_add(s->serial, &l->input.events[i]))
            r = error_set(err, -ENOMEM, "out of memory for what was typed");
    return r;
}

void lockstep_pair_start_schedule(struct lockstep_pair *p)
{
    p->schedule = (struct lockstep_schedule){
        .end_ns = lockstep_now(p) + LOCKSTEP_CHUNK_NS,
        .step_ns = LOCKSTEP_CHUNK_NS,
        .retired = lockstep_retired(&p->side[LOCKSTEP_REFERENCE]),
    };
}

int lockstep_pair_create(struct lockstep *l, struct lockstep_pair *p, unsigned sides,
                         struct error *err)
{
    int r = 0;

    memset(p, 0, sizeof *p);
    p->sides = sides;
    for (unsigned i = 0; i < sides && !r; i++)
        r = side_create(l, &p->side[i], i, err);
    if (!r)
        lockstep_pair_start_schedule(p);
    return r;
}

void lockstep_pair_destroy(struct lockstep_pair *p)
{
    for (unsigned i = 0; i < p->sides; i++) {
        struct lockstep_side *s = &p->side[i];

        if (s->serial)
            char_destroy(s->serial); /* its timer is the machine's */
        cli_disks_close(&s->disks);
        cli_nets_close(&s->nets);
        cli_cards_close(&s->cards);
        vm_destroy(s->vm);
    }
    memset(p, 0, sizeof *p);
}

/* ---- looking at them ---- */

uint64_t lockstep_now(const struct lockstep_pair *p)
{
    return clock_now_ns(&p->side[LOCKSTEP_REFERENCE].vm->clock);
}

const struct x86_vcpu *lockstep_cpu(const struct lockstep_side *s, unsigned index)
{
    return s->vm->vcpus[index]->self;
}

uint64_t lockstep_retired(const struct lockstep_side *s)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < s->vm->vcpu_count; i++)
        n += lockstep_cpu(s, i)->s.icount;
    return n;
}

bool lockstep_pair_ended(const struct lockstep_pair *p)
{
    for (unsigned i = 0; i < p->sides; i++)
        if (p->side[i].ended)
            return true;
    return false;
}

unsigned lockstep_compare(struct lockstep *l, struct lockstep_pair *p, bool with_ram,
                          void (*tell)(void *ctx, const char *line), void *ctx)
{
    struct lockstep_side *a = &p->side[LOCKSTEP_REFERENCE], *b = &p->side[LOCKSTEP_TESTED];
    unsigned count = 0;

    if (a->ended != b->ended || a->exit != b->exit || a->status != b->status) {
        count++;
        if (tell)
            tell(ctx, "one machine ended in another way, or the other one did not end");
    }
    if (memcmp(&a->output, &b->output, sizeof a->output)) {
        count++;
        if (tell)
            tell(ctx, "the machines say different things on their serial lines");
    }
    return count + vm_state_compare(a->vm, b->vm, with_ram, &l->comparison, tell, ctx,
                                    tell ? DIFFERENCES_TOLD : 0);
}

/* ---- running ---- */

static int side_run(struct lockstep_side *s, uint64_t ns, struct error *err)
{
    enum vm_exit exit;
    int r;

    if (s->ended)
        return 0;
    r = vm_run_until(s->vm, ns, &exit, &s->status, err);
    if (r < 0)
        return r;
    s->exit = exit;
    s->ended = exit != VM_EXIT_LIMIT;
    return 0;
}

static void next_chunk(struct lockstep_pair *p)
{
    struct lockstep_schedule *schedule = &p->schedule;
    uint64_t retired = lockstep_retired(&p->side[LOCKSTEP_REFERENCE]);
    bool idle = retired == schedule->retired;

    schedule->step_ns = idle ? MIN(schedule->step_ns * 2, IDLE_CHUNK_NS) : LOCKSTEP_CHUNK_NS;
    schedule->end_ns = lockstep_now(p) + schedule->step_ns;
    schedule->retired = retired;
}

int lockstep_pair_run(struct lockstep_pair *p, uint64_t until_ns, struct error *err)
{
    uint64_t end = MIN(p->schedule.end_ns, until_ns);
    int r = 0;

    for (unsigned i = 0; i < p->sides && !r; i++)
        r = side_run(&p->side[i], end, err);
    if (!r && end == p->schedule.end_ns)
        next_chunk(p);
    return r;
}

int lockstep_pair_run_to(struct lockstep_pair *p, uint64_t ns, struct error *err)
{
    int r = 0;

    while (!r && lockstep_now(p) < ns && !lockstep_pair_ended(p))
        r = lockstep_pair_run(p, ns, err);
    return r;
}
