/*
 * What the files of lockstep share: two machines side by side, and how to get
 * them to a given virtual time, again and again, in the same way.
 *
 * Threading: one thread.
 */
#ifndef CLI_LOCKSTEP_INTERNAL_H
#define CLI_LOCKSTEP_INTERNAL_H

#include "base/host.h"
#include "cli/cards.h"
#include "cli/disks.h"
#include "cli/nets.h"
#include "cli/lockstep.h"
#include "cpu/x86/vcpu.h"
#include "vm/state.h"
#include "vm/state_hash.h"
#include "vm/vm.h"

/* Instructions between two looks at the registers: many enough that looking
 * costs a few hundredths. While all processors sleep chunks grow. */
#define LOCKSTEP_CHUNK_NS 16384

struct lockstep;

struct lockstep_side {
    struct lockstep *l;
    struct vm *vm;
    struct pc *pc;
    struct char_backend *serial;
    struct cli_disks disks;
    struct cli_nets nets;
    struct cli_cards cards;
    bool speaks; /* its output goes to the user */
    struct state_hash output;
    bool ended;
    enum vm_exit exit;
    int status;
};

/*
 * Machines run in chunks, to ends that depend on nothing but what they
 * execute: where a run is interrupted, blocks are, and a difference shall show
 * again when the same way is gone once more.
 */
struct lockstep_schedule {
    uint64_t end_ns, step_ns;
    uint64_t retired; /* by the reference, at the start of the chunk */
};

struct lockstep_pair {
    struct lockstep_side side[LOCKSTEP_SIDES];
    unsigned sides; /* 1: only the reference */
    struct lockstep_schedule schedule;
};

/* What was typed, and when it reached the machines. */
struct lockstep_input {
    struct char_script_event *events;
    size_t count;
};

/* Where both machines were the same for certain, and from where they are run
 * again. No state: the start. */
struct lockstep_checkpoint {
    struct state_stream state;
    uint64_t ns;
    size_t inputs; /* that had reached them */
};

/* See lockstep_watch.c. */
struct lockstep_watch {
    struct thread thread;
    bool started;
    _Atomic bool end;
    _Atomic bool running;     /* in a chunk */
    _Atomic uint32_t beat;    /* changes with each */
    _Atomic uint64_t good_ns; /* where it began */
};

struct lockstep {
    const struct lockstep_config *config;
    struct lockstep_input input;
    struct lockstep_checkpoint checkpoint;
    struct state_comparison comparison;
    struct lockstep_watch watch;
    bool again; /* looking for a difference: what is said has been said */
};

/* ---- lockstep_pair.c ---- */

/* New machines at the checkpoint, all that was typed since then ahead of them;
 * to be destroyed in any case. */
int lockstep_pair_create(struct lockstep *l, struct lockstep_pair *p, unsigned sides,
                         struct error *err);
void lockstep_pair_destroy(struct lockstep_pair *p);
/* A chunk begins here. */
void lockstep_pair_start_schedule(struct lockstep_pair *p);
/* One chunk, or the part of it up to `until_ns`. */
int lockstep_pair_run(struct lockstep_pair *p, uint64_t until_ns, struct error *err);
/* As many as it takes, to the end of one of them at most. */
int lockstep_pair_run_to(struct lockstep_pair *p, uint64_t ns, struct error *err);
bool lockstep_pair_ended(const struct lockstep_pair *p);
/* Virtual time of the reference. */
uint64_t lockstep_now(const struct lockstep_pair *p);
/* Instructions that the processors of a machine have retired; falls at a reset. */
uint64_t lockstep_retired(const struct lockstep_side *s);
/* How many differences; tell may be NULL. */
unsigned lockstep_compare(struct lockstep *l, struct lockstep_pair *p, bool with_ram,
                          void (*tell)(void *ctx, const char *line), void *ctx);
const struct x86_vcpu *lockstep_cpu(const struct lockstep_side *s, unsigned index);

/* ---- lockstep_find.c ---- */

/* The machines were the same at good_ns and differ at bad_ns: finds where they
 * part and reports. Destroys the pair. */
int lockstep_find(struct lockstep *l, struct lockstep_pair *p, uint64_t good_ns, uint64_t bad_ns,
                  struct error *err);

/* ---- lockstep_report.c ---- */

PRINTF_LIKE(2, 3) void lockstep_say(struct lockstep *l, const char *format, ...);
void lockstep_say_difference(void *lockstep, const char *line);
/* p: at bad_ns, differing; the same at good_ns. */
int lockstep_report(struct lockstep *l, struct lockstep_pair *p, uint64_t good_ns, uint64_t bad_ns,
                    struct error *err);
/* Of that the guest's code up to ns only. */
int lockstep_report_code(struct lockstep *l, uint64_t ns, struct error *err);

/* ---- lockstep_watch.c ---- */

int lockstep_watch_start(struct lockstep *l, struct error *err);
void lockstep_watch_end(struct lockstep *l);

#endif
