/*
 * A shared folder: a directory of the host that speaks 9P2000.L (the protocol of
 * Linux's v9fs). A device hands messages over and gives the replies back.
 *
 * The guest reaches what is in the folder and nothing else: names are single
 * components, paths are resolved below the folder's own descriptor without
 * following any symbolic link (links are data, which the guest resolves for itself),
 * and device files are neither opened nor made. What it does is done as the user
 * that runs Vireo; set-user-ID and set-group-ID bits are never set, and of extended
 * attributes there are those of "user." only.
 *
 * Messages are carried out one after the other by a thread of the share's own, or
 * in a deterministic machine at once. Which files are open is no part of a saved
 * machine.
 *
 * Threading: with the machine's lock held; done() is called on the I/O thread with
 * it, never from inside share_submit but in a deterministic machine.
 */
#ifndef BACKEND_SHARE_SHARE_H
#define BACKEND_SHARE_SHARE_H

#include "base/base.h"
#include "base/error.h"

struct vm;
struct share;

#define SHARE_TAG_BYTES 32
/* The largest message, its header included. */
#define SHARE_MESSAGE_MAX (512 * KiB)

struct share_config {
    const char *path;
    const char *tag; /* by which the guest mounts it; 1 to SHARE_TAG_BYTES - 1 characters */
    bool readonly;
};

/* Host memory, laid out as the host's struct iovec. */
struct share_span {
    void *data;
    size_t bytes;
};

enum share_request_state { SHARE_IDLE, SHARE_QUEUED, SHARE_RUNNING, SHARE_DONE };

/* The device's from before share_submit to done(), then its own again. */
struct share_request {
    const struct share_span *message, *reply;
    unsigned message_spans, reply_spans;
    uint64_t message_bytes, reply_room;
    uint32_t reply_bytes; /* 0: there is no reply */
    void (*done)(struct share_request *r);
    void *ctx;

    /* The share's: */
    enum share_request_state state;
    struct share_request *next;
};

/* Every failure is one line in err that says what to do. */
struct share *share_open(struct vm *vm, const struct share_config *config, struct error *err);
/* Ends what is under way. Before the vm, after its last run. */
void share_close(struct share *s);
const char *share_tag(const struct share *s);

void share_submit(struct share *s, struct share_request *r);
/* The request is the caller's afterwards, done() is not called; waits for one that
 * is being carried out. */
void share_withdraw(struct share *s, struct share_request *r);
/* As a new session begins: nothing is open. Nothing may be under way. */
void share_forget(struct share *s);
/* Has a session begun? Then a loaded machine that had one has lost it. */
bool share_is_used(const struct share *s);
unsigned share_in_flight(const struct share *s);

#endif
