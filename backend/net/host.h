/*
 * Between net.c and what is behind it: the host's side of a network back end.
 *
 * Threading: prepare, serve and send are called by the back end's thread,
 * without the machine's lock; with a synchronous one send alone, by whoever
 * kicks, with it. takes_changed with the lock, by any thread. destroy by who
 * called net_destroy, when the thread has ended.
 */
#ifndef BACKEND_NET_HOST_H
#define BACKEND_NET_HOST_H

#include <poll.h>

#include "backend/net/net.h"

/* What net_host_ops.prepare fills in. */
struct net_poll {
    struct pollfd *fds; /* kept between rounds; grows */
    unsigned count, capacity;
    int timeout_ms;  /* -1: for ever */
    bool may_read;   /* there is room for frames */
    bool wants_send; /* the last send was refused */
};

struct net_host_ops {
    const char *name;
    unsigned takes;     /* enum net_takes: what send can be given */
    bool is_synchronous; /* no thread: prepare and serve are not called */
    bool has_link;
    /* Which descriptors to wait for (net_poll_add), and how long. */
    void (*prepare)(void *host, struct net_poll *poll);
    /* They are ready, or the time has come: frames go to net_receive. */
    void (*serve)(void *host, const struct net_poll *poll);
    /* 0, or -EAGAIN: again when its descriptor is writable; other errors lose it.
     * The frame's bytes may be changed. */
    int (*send)(void *host, struct net_frame *f);
    void (*takes_changed)(void *host, unsigned takes); /* or NULL */
    void (*destroy)(void *host);
};

/* Takes host, also when it fails: the thread starts with net_start. */
struct net *net_create(struct vm *vm, const struct net_host_ops *ops, void *host,
                       struct error *err);
int net_start(struct net *n, struct error *err);
/* Index of the entry, or -1 without memory. */
int net_poll_add(struct net_poll *poll, int fd, short events);
/* A frame from the host; dropped when there is no room. */
void net_receive(struct net *n, const struct net_frame *f);
/* Do frames wait for the guest? A synchronous one's only. */
bool net_has_waiting(struct net *n);
/* What the adapter takes now. Any thread. */
unsigned net_takes_now(const struct net *n);

#endif
