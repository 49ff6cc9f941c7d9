/*
 * A network in user space, by libslirp: the guest sees a router that is also
 * DHCP and name server, and what it sends leaves the host as sockets of this
 * process. Interface: net.h.
 *
 * TCP segments of 64 KiB pass libslirp whole in both directions. From the guest
 * that needs nothing but right checksums, because its TCP takes a packet of any
 * length. Towards the guest libslirp cuts by the MSS that the guest's SYN
 * offered; where the adapter takes large segments that offer is raised, and
 * what comes is marked to be cut by the guest, should it ever leave it again.
 * So libslirp's MTU is as large as a packet can be, and IPv4 datagrams that are
 * longer than Ethernet's are fragmented here.
 *
 * libslirp's time is the machine's, so that nothing times out in a pause. It
 * keeps the current time and its caches of the host's addresses in variables of
 * its own, for all instances: machines in one process share those, harmlessly.
 *
 * Threading: all of libslirp on the back end's thread, and before that starts
 * and after it has ended on who creates and destroys.
 */
#include <errno.h>
#include <slirp/libslirp.h>
#include <stdlib.h>

#include "backend/net/host.h"
#include "backend/net/packet.h"
#include "vm/vm.h"

enum {
    SLIRP_MTU = 65521, /* libslirp's limit */
    RAISED_MSS = 32 * 1024,
    TIMERS = 4,
};

struct user_timer {
    struct user *user;
    bool used;
    SlirpTimerCb call;
    void *ctx;
    int64_t at_ms; /* INT64_MAX: not armed */
};

struct user {
    struct vm *vm;
    struct net *net;
    Slirp *slirp;
    struct user_timer timer[TIMERS];
    struct net_poll *poll; /* while prepare runs */
    bool filled;           /* the descriptors of this round are known */
    uint8_t scratch[NET_FRAME_MAX];
};

/* ---- what libslirp calls ---- */

static void emit_fragment(void *ctx, struct net_frame *f)
{
    struct user *u = ctx;

    f->offload.flags = NET_CHECKED;
    net_receive(u->net, f);
}

/* TCP with more data than Ethernet carries. */
static bool receive_large(struct user *u, struct net_frame *f, const struct packet *p)
{
    if (p->protocol != IP_TCP || !p->transport)
        return false;
    f->offload.gso = p->is_ipv4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6;
    f->offload.gso_bytes = (uint16_t)(NET_MTU - (p->payload - p->network));
    if (!packet_complete(f))
        return false;
    net_receive(u->net, f);
    return true;
}

static ssize_t on_packet(const void *data, size_t bytes, void *ctx)
{
    struct user *u = ctx;
    struct net_frame f = {.data = (uint8_t *)data, /* libslirp's own, and done with */
                          .bytes = (uint32_t)bytes,
                          .offload = {.flags = NET_CHECKED}};
    struct packet p;

    if (bytes > NET_FRAME_MAX)
        return (ssize_t)bytes;
    if (bytes <= NET_MTU + NET_HEADER_BYTES)
        net_receive(u->net, &f);
    else if (packet_parse(f.data, f.bytes, true, &p) && !receive_large(u, &f, &p))
        packet_fragment(&f, NET_MTU, u->scratch, emit_fragment, u);
    return (ssize_t)bytes;
}

static void on_guest_error(const char *text, void *ctx)
{
    struct user *u = ctx;

    vlog(u->vm->log, NET, GUEST, "user network: %s", text);
}

static int64_t on_clock(void *ctx)
{
    struct user *u = ctx;

    return (int64_t)clock_now_ns(&u->vm->clock);
}

static void *on_timer_new(SlirpTimerCb call, void *call_ctx, void *ctx)
{
    struct user *u = ctx;

    for (unsigned n = 0; n < TIMERS; n++) {
        struct user_timer *t = &u->timer[n];

        if (t->used)
            continue;
        *t = (struct user_timer){u, true, call, call_ctx, INT64_MAX};
        return t;
    }
    return NULL;
}

static void on_timer_free(void *timer, void *ctx)
{
    struct user_timer *t = timer;

    if (t)
        t->used = false;
}

static void on_timer_mod(void *timer, int64_t at_ms, void *ctx)
{
    struct user_timer *t = timer;

    if (t)
        t->at_ms = at_ms;
}

static void on_poll_fd(int fd, void *ctx)
{
}

static void on_notify(void *ctx)
{
}

static const SlirpCb callbacks = {
    .send_packet = on_packet,
    .guest_error = on_guest_error,
    .clock_get_ns = on_clock,
    .timer_new = on_timer_new,
    .timer_free = on_timer_free,
    .timer_mod = on_timer_mod,
    .register_poll_fd = on_poll_fd,
    .unregister_poll_fd = on_poll_fd,
    .notify = on_notify,
};

/* ---- rounds ---- */

static int on_add_poll(int fd, int events, void *ctx)
{
    struct user *u = ctx;
    int wanted = (events & SLIRP_POLL_IN ? POLLIN : 0) | (events & SLIRP_POLL_OUT ? POLLOUT : 0) |
                 (events & SLIRP_POLL_PRI ? POLLPRI : 0);

    return net_poll_add(u->poll, fd, (short)wanted);
}

static int on_get_events(int index, void *ctx)
{
    const struct net_poll *poll = ctx;
    int events;

    if (index < 0 || (unsigned)index >= poll->count)
        return 0;
    events = poll->fds[index].revents;
    return (events & POLLIN ? SLIRP_POLL_IN : 0) | (events & POLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & POLLPRI ? SLIRP_POLL_PRI : 0) | (events & POLLERR ? SLIRP_POLL_ERR : 0) |
           (events & POLLHUP ? SLIRP_POLL_HUP : 0);
}

static void user_prepare(void *host, struct net_poll *poll)
{
    struct user *u = host;
    uint32_t timeout = poll->timeout_ms < 0 ? UINT32_MAX : (uint32_t)poll->timeout_ms;
    int64_t now_ms = (int64_t)(clock_now_ns(&u->vm->clock) / NS_PER_MS);

    /* While the guest does not take what came, nothing is fetched. */
    u->filled = poll->may_read;
    if (!u->filled)
        return;
    u->poll = poll;
    slirp_pollfds_fill(u->slirp, &timeout, on_add_poll, u);
    for (unsigned n = 0; n < TIMERS; n++) {
        const struct user_timer *t = &u->timer[n];

        if (t->used && t->at_ms != INT64_MAX)
            timeout = (uint32_t)MIN((int64_t)timeout, MAX(t->at_ms - now_ms, 0));
    }
    poll->timeout_ms = timeout > INT32_MAX ? -1 : (int)timeout;
}

static void user_serve(void *host, const struct net_poll *poll)
{
    struct user *u = host;
    int64_t now_ms = (int64_t)(clock_now_ns(&u->vm->clock) / NS_PER_MS);

    if (!u->filled)
        return;
    slirp_pollfds_poll(u->slirp, 0, on_get_events, (void *)poll);
    for (unsigned n = 0; n < TIMERS; n++) {
        struct user_timer *t = &u->timer[n];

        if (!t->used || t->at_ms > now_ms)
            continue;
        t->at_ms = INT64_MAX;
        t->call(t->ctx);
    }
}

static int user_send(void *host, struct net_frame *f)
{
    struct user *u = host;
    unsigned takes = net_takes_now(u->net);

    if ((f->offload.gso && !packet_complete(f)) || !packet_checksum(f))
        return -EINVAL;
    if (takes & (NET_TAKES_TCPV4 | NET_TAKES_TCPV6))
        packet_raise_mss(f, RAISED_MSS);
    slirp_input(u->slirp, f->data, (int)f->bytes);
    return 0;
}

/* ---- life ---- */

static void user_destroy(void *host)
{
    struct user *u = host;

    if (u->slirp)
        slirp_cleanup(u->slirp);
    free(u);
}

static const struct net_host_ops user_ops = {
    .name = "user",
    .takes = NET_TAKES_CHECKSUM | NET_TAKES_TCPV4 | NET_TAKES_TCPV6, /* all done by send */
    .has_link = true,
    .prepare = user_prepare,
    .serve = user_serve,
    .send = user_send,
    .destroy = user_destroy,
};

static struct in_addr address(uint32_t host_order)
{
    return (struct in_addr){.s_addr = htonl(host_order)};
}

static int start_slirp(struct user *u, const struct net_user_config *config, struct error *err)
{
    SlirpConfig c = {
        .version = 4,
        .restricted = config->is_restricted,
        .in_enabled = true,
        .vnetwork = address(0x0A000200),
        .vnetmask = address(0xFFFFFF00),
        .vhost = address(0x0A000202),
        .vdhcp_start = address(0x0A00020F),
        .vnameserver = address(0x0A000203),
        .in6_enabled = true,
        .vprefix_len = 64,
        .tftp_path = config->tftp,
        .bootfile = config->boot_file,
        .if_mtu = SLIRP_MTU,
        .if_mru = SLIRP_MTU,
    };

    inet_pton(AF_INET6, "fec0::", &c.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &c.vhost6);
    inet_pton(AF_INET6, "fec0::3", &c.vnameserver6);
    u->slirp = slirp_new(&c, &callbacks, u);
    if (!u->slirp)
        return error_set(err, -EINVAL, "--net user: libslirp %s does not start",
                         slirp_version_string());
    for (unsigned n = 0; n < config->forward_count; n++) {
        const struct net_forward *f = &config->forwards[n];
        struct in_addr host, guest = {.s_addr = 0}; /* the first that DHCP gives */

        memcpy(&host, f->host, sizeof host);
        if (slirp_add_hostfwd(u->slirp, f->protocol == NET_UDP, host, f->host_port, guest,
                              f->guest_port) < 0)
            return error_set(err, -errno,
                             "--net user: cannot listen on %s port %u of %u.%u.%u.%u: %s",
                             f->protocol == NET_UDP ? "UDP" : "TCP", f->host_port, f->host[0],
                             f->host[1], f->host[2], f->host[3], strerror(errno));
    }
    return 0;
}

bool net_user_available(void)
{
    return true;
}

struct net *net_user_create(struct vm *vm, const struct net_user_config *config, struct error *err)
{
    struct user *u;
    struct net *net;

    if (vm->deterministic) {
        error_set(err, -EINVAL, "--net user is not repeatable: leave out --deterministic");
        return NULL;
    }
    u = calloc(1, sizeof *u);
    if (!u) {
        error_set(err, -ENOMEM, "out of memory for a network");
        return NULL;
    }
    u->vm = vm;
    net = net_create(vm, &user_ops, u, err);
    if (!net)
        return NULL;
    u->net = net;
    if (start_slirp(u, config, err) || net_start(net, err)) {
        net_destroy(net);
        return NULL;
    }
    return net;
}
