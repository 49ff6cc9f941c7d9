/*
 * A tap interface of Linux (Documentation/networking/tuntap.rst): frames are
 * read from and written to a descriptor, each behind a struct virtio_net_hdr,
 * so that large segments pass whole. Interface: net.h.
 *
 * The interface may be made beforehand (`ip tuntap add dev tap0 mode tap user
 * ME`), and then no right is needed; else it is made here and goes with us.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/net/host.h"
#include "vm/vm.h"

#define TUN_PATH "/dev/net/tun"
#define FRAMES_A_ROUND 64

struct tap {
    struct vm *vm;
    struct net *net;
    char name[IFNAMSIZ];
    int fd, index;
    bool is_gone; /* deleted under us: that is for ever */
    uint8_t frame[NET_FRAME_MAX];
};

static void tap_prepare(void *host, struct net_poll *poll)
{
    struct tap *t = host;
    int events = (poll->may_read ? POLLIN : 0) | (poll->wants_send ? POLLOUT : 0);

    t->index = events && !t->is_gone ? net_poll_add(poll, t->fd, (short)events) : -1;
}

static void tap_serve(void *host, const struct net_poll *poll)
{
    struct tap *t = host;

    if (t->index < 0)
        return;
    /* An error is there at once whenever one waits. */
    if (poll->fds[t->index].revents & (POLLERR | POLLHUP | POLLNVAL)) {
        vlog(t->vm->log, BACKEND, ERROR, "--net tap: %s is gone", t->name);
        t->is_gone = true;
        return;
    }
    if (!(poll->fds[t->index].revents & POLLIN))
        return;
    for (unsigned n = 0; n < FRAMES_A_ROUND; n++) {
        struct net_frame f = {.data = t->frame};
        struct iovec part[2] = {{&f.offload, sizeof f.offload}, {t->frame, sizeof t->frame}};
        ssize_t got = readv(t->fd, part, 2);

        if (got < (ssize_t)sizeof f.offload)
            return;
        f.bytes = (uint32_t)((size_t)got - sizeof f.offload);
        /* The kernel's word for it: VIRTIO_NET_HDR_F_DATA_VALID is NET_CHECKED. */
        net_receive(t->net, &f);
    }
}

static int tap_send(void *host, struct net_frame *f)
{
    struct tap *t = host;
    struct iovec part[2] = {{&f->offload, sizeof f->offload}, {f->data, f->bytes}};

    if (!f->offload.gso)
        f->offload.gso_bytes = 0;
    f->offload.flags &= NET_NEEDS_CHECKSUM;
    if (writev(t->fd, part, 2) >= 0)
        return 0;
    return errno == EAGAIN ? -EAGAIN : -EIO;
}

/* What may be refused is done by net.c then. */
static void tap_takes_changed(void *host, unsigned takes)
{
    struct tap *t = host;
    unsigned long offload = 0;

    if (takes & NET_TAKES_CHECKSUM)
        offload = TUN_F_CSUM | (takes & NET_TAKES_TCPV4 ? TUN_F_TSO4 : 0) |
                  (takes & NET_TAKES_TCPV6 ? TUN_F_TSO6 : 0);
    if (ioctl(t->fd, TUNSETOFFLOAD, offload) < 0)
        ioctl(t->fd, TUNSETOFFLOAD, 0ul);
}

static void tap_destroy(void *host)
{
    struct tap *t = host;

    if (t->fd >= 0)
        close(t->fd);
    free(t);
}

static const struct net_host_ops tap_ops = {
    .name = "tap",
    .takes = NET_TAKES_CHECKSUM | NET_TAKES_TCPV4 | NET_TAKES_TCPV6,
    .has_link = true,
    .prepare = tap_prepare,
    .serve = tap_serve,
    .send = tap_send,
    .takes_changed = tap_takes_changed,
    .destroy = tap_destroy,
};

static int tap_open(struct tap *t, const char *name, struct error *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header = sizeof(struct net_offload);

    t->fd = open(TUN_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->fd < 0)
        return error_set(err, -errno, "--net tap: cannot open " TUN_PATH ": %s; give --net user",
                         strerror(errno));
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    memcpy(t->name, request.ifr_name, sizeof t->name);
    if (ioctl(t->fd, TUNSETIFF, &request) < 0) {
        if (errno == EPERM)
            return error_set(err, -EPERM,
                             "--net tap: you may not use %s; as root, run: ip tuntap add dev %s "
                             "mode tap user $USER && ip link set %s up",
                             name, name, name);
        return error_set(err, -errno, "--net tap: cannot use %s: %s", name,
                         errno == EBUSY ? "another program has it" : strerror(errno));
    }
    if (ioctl(t->fd, TUNSETVNETHDRSZ, &header) < 0)
        return error_set(err, -errno, "--net tap: %s: this kernel's tap is too old", name);
    ioctl(t->fd, TUNSETOFFLOAD, 0ul);
    return 0;
}

struct net *net_tap_create(struct vm *vm, const char *name, struct error *err)
{
    struct tap *t;

    if (vm->deterministic) {
        error_set(err, -EINVAL, "--net tap is not repeatable: leave out --deterministic");
        return NULL;
    }
    t = calloc(1, sizeof *t);
    if (!t) {
        error_set(err, -ENOMEM, "out of memory for a network");
        return NULL;
    }
    t->vm = vm;
    if (tap_open(t, name, err)) {
        tap_destroy(t);
        return NULL;
    }
    t->net = net_create(vm, &tap_ops, t, err);
    if (t->net && net_start(t->net, err)) {
        net_destroy(t->net);
        return NULL;
    }
    return t->net;
}
