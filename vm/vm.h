/*
 * A machine: everything of one guest, owned by one struct vm. No mutable
 * state lives outside it, so two machines in one process never meet.
 *
 * Life: vm_create -> board builds it (devices, vCPUs) -> vm_run until the
 * guest powers off, resets with no-reboot, or vm_stop -> vm_destroy.
 *
 * Threading: one mutex, the machine's lock, guards all device state and the
 * regions. vm_lock may be called again by its holder.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include "base/base.h"
#include "base/error.h"
#include "base/log.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/memory.h"
#include "vm/vcpu.h"

#define VM_MAX_VCPUS 64
#define VM_MAX_DEVICES 128

struct vm_config {
    bool deterministic;
    uint64_t seed;     /* of everything random in a deterministic machine */
    struct log *log;   /* may be NULL */
    uint64_t quantum;  /* deterministic: instructions a vCPU's turn; 0: default */
};

enum vm_exit {
    VM_EXIT_POWEROFF,     /* guest switched itself off; status from debug-exit, else 0 */
    VM_EXIT_TRIPLE_FAULT, /* with no_reboot */
    VM_EXIT_RESET,        /* with no_reboot: the guest asked for a reset */
    VM_EXIT_STOPPED,      /* vm_stop */
    VM_EXIT_LIMIT,        /* vm_run_until reached its time */
};

/* Something under way outside of the machine that a saved state cannot hold.
 * Before a machine in real time is saved it is brought to its end, with what
 * follows from it (interrupts, devices' state). Called with the lock held. */
struct vm_settler {
    void (*settle)(void *ctx);
    void *ctx;
    struct vm_settler *next;
};

struct vm_event_loop; /* fds and timerfd on the I/O thread: vm/loop.h */
struct timer_queue;
struct vm_run_state;

struct vm {
    struct log *log;
    struct clock clock;
    struct address_space memory;
    struct address_space ports;
    struct ram_block *ram_blocks;
    unsigned ram_block_count;

    struct vcpu *vcpus[VM_MAX_VCPUS];
    unsigned vcpu_count;

    struct {
        const struct dev_type *type;
        const char *instance;
        void *self;
    } devices[VM_MAX_DEVICES];
    unsigned device_count;

    bool deterministic;
    bool no_reboot;
    uint64_t quantum;
    uint64_t random_state; /* see vm_random */

    /* Set by the board: called with the lock held and all vCPUs stopped,
     * after devices and processors have been reset (direct boot: loads the
     * kernel again). Negative errno stops the machine. */
    int (*after_reset)(void *board, struct error *err);
    /* A processor shut down (triple fault); called before the reset, all
     * registers still there. */
    void (*on_shutdown)(void *board, struct vcpu *v);
    void *board;

    struct vm_settler *settlers;
    struct timer_queue *timers;
    struct vm_event_loop *loop;
    struct vm_run_state *run; /* vm.c's own */
    struct flat_view *retired_views;   /* memory.c: replaced, perhaps still read */
    _Atomic uint64_t view_generation;  /* counts replacements */
};

struct vm *vm_create(const struct vm_config *config, struct error *err);
void vm_destroy(struct vm *vm);

/* The board adds processors before vm_run; ops, state and self set by it. */
int vm_add_vcpu(struct vm *vm, struct vcpu *v);

void vm_lock(struct vm *vm);
/* False: somebody has it. For threads that have others to leave the work to. */
bool vm_try_lock(struct vm *vm);
void vm_unlock(struct vm *vm);

/* Runs to the end; the calling thread becomes the I/O thread (deterministic:
 * the only thread). *status: the exit status the guest asked for. err is
 * filled when a negative errno is returned. */
int vm_run(struct vm *vm, enum vm_exit *exit, int *status, struct error *err);
/* The same, but also returns (VM_EXIT_LIMIT, machine paused and intact, can be
 * run on, saved, hashed) once virtual time has reached ns. */
int vm_run_until(struct vm *vm, uint64_t ns, enum vm_exit *exit, int *status, struct error *err);

/* Ask from anywhere (device callbacks included); take effect when all vCPUs
 * have stopped. */
void vm_request_reset(struct vm *vm);
void vm_request_poweroff(struct vm *vm, int status);
void vm_stop(struct vm *vm); /* safe in a signal handler */

/* Stops and restarts all vCPUs (the clock too), from a thread that is none of
 * them. In a callback on the I/O thread as well: the machine's lock is released
 * while vm_pause waits. They nest. */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

/* With the lock held; the struct stays the caller's. */
void vm_add_settler(struct vm *vm, struct vm_settler *s);
void vm_remove_settler(struct vm *vm, struct vm_settler *s);

/* Randomness the guest may see (RDRAND, UUIDs): the host's, or seeded. */
uint64_t vm_random(struct vm *vm);
void vm_random_bytes(struct vm *vm, void *buf, size_t bytes);

/* ---- input: everything that comes from outside enters through here ---- */

enum vm_input_kind {
    INPUT_SERIAL, /* bytes for a character device */
    INPUT_KEY,    /* key events */
};

/* source: the instance name of the receiving device. deliver is called with
 * the lock held, now (real time) or at the next instruction boundary
 * (deterministic); record/replay logs exactly these calls. data is copied. */
void vm_input(struct vm *vm, enum vm_input_kind kind, const char *source,
              void (*deliver)(void *ctx, const uint8_t *data, size_t bytes), void *ctx,
              const uint8_t *data, size_t bytes);

#endif
