/*
 * What the files of vm/ share and nobody else includes: the state of a run,
 * and the calls between lock, scheduler, loop and timers.
 *
 * Lock order: the machine's lock, then at most one of the leaves (stop_lock,
 * the timers' lock, the loop's lock, a vCPU's code_lock, the input queue's).
 */
#ifndef VM_INTERNAL_H
#define VM_INTERNAL_H

#include <stdatomic.h>

#include "base/host.h"
#include "vm/vm.h"

/* What somebody wants of the thread in vm_run; bits of vm_run_state.requests. */
enum vm_request {
    REQUEST_STOP = 1 << 0,
    REQUEST_POWEROFF = 1 << 1,
    REQUEST_RESET = 1 << 2,
    REQUEST_SHUTDOWN = 1 << 3, /* a processor shut down: shutdown_vcpu */
    REQUEST_LIMIT = 1 << 4,    /* vm_run_until's time has come */
};

struct vm_input_item;

struct vm_run_state {
    /* ---- the machine's lock (lock.c) ---- */
    struct mutex lock;
    _Atomic(const void *) owner; /* vm_thread_self() of the holder */
    unsigned depth;              /* holder only */

    /* ---- stopping vCPUs (run.c); guarded by stop_lock ---- */
    struct mutex stop_lock;
    _Atomic uint32_t stop_wanted; /* how many want them stopped; read without the lock too */
    unsigned threads;             /* that have to park before the machine counts as stopped */
    unsigned parked;
    bool active; /* inside vm_run: the clock goes unless somebody wants it stopped */
    bool quit;   /* parked threads end */
    _Atomic uint32_t park_gate;   /* futex: changes when the parked have to look again */
    _Atomic uint32_t parked_bell; /* futex: changes when one more has parked */

    /* ---- requests; any thread ---- */
    _Atomic uint32_t requests;
    _Atomic int poweroff_status;
    _Atomic(struct vcpu *) shutdown_vcpu;
    _Atomic(const void *) runner; /* thread in vm_run, or NULL */

    /* ---- safepoints (vcpu.c) ---- */
    _Atomic uint32_t exclusive;         /* futex: 0, or 1 + index of who runs alone */
    _Atomic uint32_t safepoint_waiters; /* threads that want to hear of safepoints */
    _Atomic uint32_t safepoint_bell;    /* futex: changes at each while there are waiters */

    /* ---- the deterministic scheduler (det.c); its thread only ---- */
    struct vcpu *turn; /* whose run() is on the stack, or NULL */
    uint64_t turn_start_retired;
    uint64_t turn_end_ns; /* where the budget of that run() ends */
    unsigned turn_index;  /* whose turn it is, saved with the machine */
    uint64_t turn_left;   /* instructions of it left */

    /* ---- input (input.c) ---- */
    struct mutex input_lock;
    struct vm_input_item *input_first, **input_last;

    struct timer limit; /* of vm_run_until, real time only */
};

/* ---- lock.c ---- */

/* A value that no other thread has. */
const void *vm_thread_self(void);
/* The processor whose thread this is, or NULL. */
struct vcpu *vm_thread_vcpu(void);
void vm_thread_set_vcpu(struct vcpu *v);
bool vm_lock_is_mine(const struct vm *vm);
/* Lets go of the lock however often it is held, and takes it as often again. */
unsigned vm_lock_drop(struct vm *vm);
void vm_lock_restore(struct vm *vm, unsigned depth);

/* ---- run.c ---- */

void vm_request(struct vm *vm, uint32_t requests);
/* True if a vCPU must not run now. */
bool vm_must_park(const struct vm *vm);
/* A vCPU's thread, outside: waits while it must not run; true: ends. */
bool vm_park(struct vm *vm);
/* vm_run is over: there is no vCPU left to wait for. */
void vm_end_run(struct vm *vm);
/* All vCPUs stopped, lock held. Does what was requested; true: *exit is set
 * (or *code, a negative errno, with err filled) and vm_run ends. */
bool vm_handle_requests(struct vm *vm, enum vm_exit *exit, int *status, int *code,
                        struct error *err);

/* ---- vcpu.c ---- */

void vcpu_init(struct vcpu *v, struct vm *vm, unsigned index);
void vcpu_finish(struct vcpu *v); /* before ops->destroy */
void *vcpu_thread_main(void *v);
/* Every vCPU drops all cached code and translations before it executes again;
 * all are stopped. */
void vcpu_forget_everything(struct vm *vm);

/* ---- det.c ---- */

int det_run(struct vm *vm, uint64_t limit_ns, enum vm_exit *exit, int *status, struct error *err);
/* A timer was armed: a turn that would run past it ends early. */
void det_timer_armed(struct vm *vm, uint64_t deadline_ns);

/* ---- timer.c ---- */

int timers_create(struct vm *vm, struct error *err);
void timers_destroy(struct vm *vm);
/* The clock was stopped or started: real-time wake-ups follow. */
void timers_clock_changed(struct vm *vm);
/* Runs what is due, lock held; false: more was due than one may do at a time. */
bool timers_fire(struct vm *vm);
uint64_t timers_next_ns(struct vm *vm);

/* ---- loop.c ---- */

int loop_create(struct vm *vm, struct error *err);
void loop_destroy(struct vm *vm);
/* Serves descriptors and deferred calls, without the lock held; block: waits
 * for at least one (or loop_wake). */
void loop_poll(struct vm *vm, bool block);
/* Ends a loop_poll that blocks. Safe in a signal handler. */
void loop_wake(struct vm *vm);
/* Runs what was deferred, now. */
void loop_run_deferred(struct vm *vm);

/* ---- input.c ---- */

/* Delivers what is queued; lock held. */
void input_deliver(struct vm *vm);
void input_drop(struct vm *vm);

/* ---- state.c ---- */

/* How long a field is in a stream. */
uint64_t state_field_bytes(const struct state_field *f);

/* ---- snapshot.c: what a saved machine consists of, for state_diff.c ---- */

/* Clock, processors and devices; machine's lock held. Leaves no trace. */
void state_save_all_but_ram(struct vm *vm, struct state_stream *s);

#define STATE_MAGIC "VIREO state\n"
#define STATE_MAGIC_BYTES 12
#define STATE_PAGE 4096
#define STATE_NO_PAGE UINT64_MAX

extern const struct state_table vm_machine_state, vm_vcpu_state, vm_ram_state;

/* ---- ranges of memory (map.c, access.c) ---- */

static inline uint8_t *range_host(const struct flat_range *r, uint64_t addr)
{
    return r->region->ram->host + r->region->ram_offset + r->offset + (addr - r->base);
}

static inline bool range_is_writable(const struct flat_range *r)
{
    return r->region->ram && !r->region->readonly && r->region->ram->kind == RAM_NORMAL;
}

/* ---- memory.c ---- */

/* Frees replaced views that nobody can be reading; lock held, by somebody who
 * is about to release it. */
void views_reclaim(struct vm *vm);
void views_free_all(struct vm *vm);
void ram_blocks_free(struct vm *vm);
/* No line is code any more; all vCPUs are stopped and about to forget theirs. */
void ram_blocks_forget_code(struct vm *vm);

#endif
