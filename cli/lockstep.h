/*
 * Lockstep: the same deterministic machine twice, once on the reference and
 * once on the engine under test, side by side until their states differ.
 *
 * `vireo lockstep` (cli_lockstep) is the command; lockstep_run is what it and
 * its tests call. docs/LOCKSTEP.md says what is compared and when.
 *
 * Threading: one thread; `stop` may be set from any.
 */
#ifndef CLI_LOCKSTEP_H
#define CLI_LOCKSTEP_H

#include <stdatomic.h>

#include "board/pc.h"
#include "cli/options.h"

enum { LOCKSTEP_REFERENCE, LOCKSTEP_TESTED, LOCKSTEP_SIDES };

struct lockstep_config {
    struct pc_config board; /* engine and back ends are filled in */
    /* Whose disks each machine opens for itself, writes kept apart and gone at the
     * end; NULL: none. What is written is not in a saved state: with a disk that is
     * written to there must be no checkpoints. */
    const struct cli_options *disks;
    const struct x86_engine_ops *engine[LOCKSTEP_SIDES];
    uint64_t seed;
    bool no_reboot;
    struct log *log;       /* of the reference; may be NULL */
    uint64_t instructions; /* end after so much virtual time; 0: when the guest ends */
    uint64_t host_seconds; /* or after so much of the host's; 0: no limit */
    /* Instructions between saved states, from which a difference is looked for
     * anew; 0: none but the start. */
    uint64_t checkpoint;
    const _Atomic bool *stop; /* end soon; may be NULL */

    /* The guest's serial line, once. input waits for at most so many
     * milliseconds; NULL: nobody types. */
    void (*output)(void *ctx, const uint8_t *data, size_t bytes);
    size_t (*input)(void *ctx, char *text, size_t bytes, int timeout_ms);
    /* Progress and report, line by line. */
    void (*line)(void *ctx, const char *text);
    /* The tested engine is lost in host code, which has been reported; ends the
     * process. On a thread of its own; NULL: nobody watches. */
    void (*stuck)(void *ctx);
    uint64_t patience_ms; /* for a chunk, before it counts as lost; 0: 20 s */
    void *ctx;
};

enum lockstep_result {
    LOCKSTEP_SAME,
    LOCKSTEP_DIFFERENT, /* and the report has been written */
};

/* enum lockstep_result, or a negative errno with err filled. */
int lockstep_run(const struct lockstep_config *config, struct error *err);

/* The command; exit status as cli_run. */
int cli_lockstep(const struct cli_options *o, int *by_signal, struct error *err);

#endif
