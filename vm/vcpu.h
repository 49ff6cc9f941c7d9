/*
 * What the machine knows about a processor: it runs, it can be kicked, it
 * reaches safepoints. No x86 here.
 *
 * Threading: one thread a vCPU (all on one thread in a deterministic
 * machine). events is the doorbell: anyone sets bits with vcpu_post; the
 * processor looks at it at block boundaries.
 *
 * A vCPU is "inside" while it executes guest code without looking at events;
 * everywhere else (asleep, waiting for a lock or a rendezvous) it is
 * "outside", and then it handles its events before it goes inside again.
 */
#ifndef VM_VCPU_H
#define VM_VCPU_H

#include <stdatomic.h>

#include "base/base.h"
#include "base/host.h"
#include "base/patience.h"

struct vm;
struct vcpu;
struct ram_block;
struct state_table;

enum vcpu_event {
    EVENT_INTERRUPT = 1 << 0, /* pins, local APIC or its timer: look again */
    EVENT_INIT = 1 << 1,
    EVENT_STARTUP = 1 << 2,
    EVENT_FLUSH = 1 << 3,      /* the memory view changed: drop translations */
    EVENT_CODE = 1 << 4,       /* cached code became stale: see vcpu_code_written */
    EVENT_REVOKE = 1 << 5,     /* drop writable translations of code pages, and of
                                * pages that have left a ram_log */
    EVENT_PAUSE = 1 << 6,      /* stop at the next instruction boundary */
    EVENT_EXCLUSIVE = 1 << 7,  /* somebody wants to run alone */
};

enum vcpu_exit {
    VCPU_EXIT_EVENT,    /* pause, exclusive or budget: call run again later */
    VCPU_EXIT_HALT,     /* wait for an event (HLT, wait-for-SIPI) */
    VCPU_EXIT_SHUTDOWN, /* triple fault: the board decides (reset) */
};

struct vcpu_ops {
    /* Runs guest code until an exit: calls vcpu_enter first and vcpu_leave
     * last. budget: at most so many instructions (deterministic), or
     * UINT64_MAX. Events are handled inside: after vcpu_enter, and at block
     * boundaries, where events is not 0, by vcpu_take_events. */
    enum vcpu_exit (*run)(struct vcpu *v, uint64_t budget);
    /* Instructions retired since reset; exact inside a device callback. */
    uint64_t (*retired)(struct vcpu *v);
    /* True if a halted processor has a reason to run. */
    bool (*has_work)(struct vcpu *v);
    void (*reset)(struct vcpu *v);
    void (*destroy)(struct vcpu *v);
    /* Cached code made from [offset, offset+bytes) is stale. Runs on the
     * vCPU's own thread, at a safepoint. */
    void (*code_written)(struct vcpu *v, struct ram_block *block, uint64_t offset, uint64_t bytes);
    /* What EVENT_REVOKE asks for, on the vCPU's own thread, possibly in the
     * middle of an instruction: vcpu_enter calls it (and clears the event) for
     * a processor that slept through a rendezvous, in vm_lock for example. */
    void (*revoke)(struct vcpu *v);
};

/* For as long as a loaded host keeps a processor waiting: without room for one
 * more, near ones are joined, and then all code goes. */
#define VCPU_CODE_RANGES 64
struct vcpu_code_range {
    struct ram_block *block;
    uint64_t offset, bytes;
};

struct vcpu {
    struct vm *vm;
    unsigned index;
    const struct vcpu_ops *ops;
    const struct state_table *state; /* of self */
    void *self;
    _Atomic uint32_t events;
    _Atomic uint32_t sleeping;  /* futex word: enum in vcpu.c */
    struct patience patience;   /* owner only: before it sleeps */
    _Atomic uint32_t inside;    /* 1 while executing guest code */
    bool halted;                /* owner only: waits for has_work */
    uint64_t run_ns;            /* for --stats */
    struct thread thread;
    /* Stale code that this vCPU has to drop, appended by others. */
    struct mutex code_lock;
    struct vcpu_code_range code_ranges[VCPU_CODE_RANGES];
    unsigned code_range_count; /* more than there are: drop everything */
    _Atomic uint64_t safepoints; /* how many it has passed by vcpu_take_events */
    _Atomic uint64_t view_seen;  /* newest memory view acknowledged: memory.c */
    bool reenter;                /* owner only: vm_lock left, vm_unlock enters */
};

/* Rings the doorbell; wakes it if it sleeps. Any thread. */
void vcpu_post(struct vcpu *v, uint32_t events);

/* Called by the processor's run(): */
/* Marks the transitions; vcpu_leave/enter bracket everything that may block.
 * vcpu_enter waits while another runs exclusively. They nest not. */
void vcpu_enter(struct vcpu *v);
void vcpu_leave(struct vcpu *v);
/*
 * A safepoint: clears and returns all pending events; the caller handles them
 * before it runs guest code, and holds no host pointer and no flat_range here.
 * For EVENT_PAUSE it leaves run() with VCPU_EXIT_EVENT; for EVENT_EXCLUSIVE it
 * does that, or calls vcpu_leave and vcpu_enter. Called inside. Never clear
 * bits of events by hand: those who wait in vcpu_rendezvous, and the memory
 * views, are told here.
 */
uint32_t vcpu_take_events(struct vcpu *v);

/* Delivers the queued stale-code ranges to ops->code_written (NULL block:
 * drop everything). Called on EVENT_CODE. */
void vcpu_drain_code(struct vcpu *v);

/* Bytes that may hold cached code changed: tells all vCPUs but `writer`
 * (NULL: all). The bytes must have been stored before. */
void vcpu_code_written(struct vm *vm, struct vcpu *writer, struct ram_block *block,
                       uint64_t offset, uint64_t bytes);

/* What v has been told of and not listened to yet (vcpu_drain_code): how many
 * ranges; more than there are: everything. */
unsigned vcpu_code_told(struct vcpu *v, struct vcpu_code_range ranges[VCPU_CODE_RANGES]);

/* Posts events to all other vCPUs and returns when each has passed a
 * safepoint since (or is outside). self counts as outside meanwhile, so this
 * is a safepoint of its own, and so is vcpu_exclusive_begin: what was
 * translated before is looked up again afterwards.
 * Called inside, without the machine's lock; returns inside. */
void vcpu_rendezvous(struct vcpu *self, uint32_t events);

/* The same from a thread that is no vCPU's and runs the machine, or while none
 * runs; the machine's lock may be held. */
void vcpu_wait_all(struct vm *vm, uint32_t events);

/* From begin to end no other vCPU is inside. Called inside, without the
 * machine's lock. For split locks and other things that no host instruction
 * makes atomic. Device accesses are allowed in between; they nest not. */
void vcpu_exclusive_begin(struct vcpu *self);
void vcpu_exclusive_end(struct vcpu *self);

#endif
