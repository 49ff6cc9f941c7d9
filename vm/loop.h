/*
 * The event loop of the I/O thread: file descriptors and deferred calls.
 * libuv is behind it and shows nowhere else.
 *
 * Callbacks run on the I/O thread with the machine's lock held. In a
 * deterministic machine descriptors are polled between turns, and what they
 * bring is no part of the deterministic promise unless it comes from a script.
 */
#ifndef VM_LOOP_H
#define VM_LOOP_H

#include "base/base.h"
#include "base/error.h"

struct vm;
struct loop_fd;

enum loop_events { LOOP_READABLE = 1, LOOP_WRITABLE = 2, LOOP_HANGUP = 4 };

/* fd stays the caller's. events may be changed later (0: none). */
struct loop_fd *loop_add_fd(struct vm *vm, int fd, int events,
                            void (*ready)(void *ctx, int events), void *ctx, struct error *err);
void loop_set_events(struct loop_fd *f, int events);
void loop_remove_fd(struct loop_fd *f);

/* Runs call(ctx) soon on the I/O thread. Any thread, no allocation failure:
 * returns -ENOMEM instead. */
int loop_defer(struct vm *vm, void (*call)(void *ctx), void *ctx);

#endif
