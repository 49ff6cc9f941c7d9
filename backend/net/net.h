/*
 * Network back ends: the wire of a network adapter.
 *
 * A struct net is what an adapter is plugged into; behind it is the host: a
 * network of libslirp's (user.c), a tap interface (tap.c), or nothing (null.c).
 * Frames are Ethernet frames without preamble and checksum (FCS). A frame may
 * carry work that its sender left to others, in virtio's words (virtio 1.2,
 * 5.1.6): a checksum to fill in, TCP data to cut into segments. What a side
 * does not take net.c does for it.
 *
 * Both directions pull, which is all the back-pressure there is: an adapter's
 * frames stay in the guest's ring until the host takes them, and the host's
 * stay in its sockets while the guest has no buffers.
 *
 * A back end in real time has a thread. It takes the machine's lock for a batch
 * of frames, so that no processor copies them, and holds it for some tens of
 * microseconds at most. Nothing moves while the machine is paused. Synchronous
 * back ends (null.c, the tests') have none: frames move within net_kick and
 * net_receive.
 *
 * Nothing of this is part of a saved machine: frames under way are lost, as on
 * any network. What comes from outside comes at no time of the machine's, so
 * deterministic machines have synchronous back ends only.
 *
 * Threading: everything with the machine's lock held but for net_destroy, which
 * is called without it, after the last run and before the vm is destroyed.
 * Adapters' operations are called with it.
 */
#ifndef BACKEND_NET_NET_H
#define BACKEND_NET_NET_H

#include "base/base.h"
#include "base/error.h"

struct vm;
struct net;

#define NET_MAC_BYTES 6
#define NET_MTU 1500
#define NET_HEADER_BYTES 14 /* destination, source, type */
#define NET_VLAN_BYTES 4
/* An IP packet of 64 KiB, with room for two VLAN tags. */
#define NET_FRAME_MAX (65535 + NET_HEADER_BYTES + 2 * NET_VLAN_BYTES)

enum net_offload_flags {
    NET_NEEDS_CHECKSUM = 1, /* from csum_start on, to csum_start + csum_offset, where the
                             * sum of the pseudo header is */
    NET_CHECKED = 2,        /* its checksums are right */
};

enum net_gso {
    NET_GSO_NONE = 0,
    NET_GSO_TCPV4 = 1,
    NET_GSO_TCPV6 = 4,
    NET_GSO_UDP = 5, /* each piece a datagram (virtio's GSO_UDP_L4) */
    NET_GSO_ECN = 0x80,
};

/* struct virtio_net_hdr, byte by byte; what Linux' tap has before each frame. */
struct net_offload {
    uint8_t flags;
    uint8_t gso;
    uint16_t header_bytes; /* of all headers; a hint */
    uint16_t gso_bytes;    /* of data in each segment */
    uint16_t csum_start, csum_offset;
};
_Static_assert(sizeof(struct net_offload) == 10, "as in virtio 1.2, 5.1.6, without num_buffers");

struct net_frame {
    uint8_t *data;
    uint32_t bytes;
    struct net_offload offload;
};

/* What an adapter takes beside whole frames with all checksums in place. */
enum net_takes {
    NET_TAKES_CHECKSUM = 1 << 0, /* NET_NEEDS_CHECKSUM */
    NET_TAKES_TCPV4 = 1 << 1,
    NET_TAKES_TCPV6 = 1 << 2,
};

/* An adapter. None of these calls net_* but for net_kick. */
struct net_adapter {
    /* The next frame that the guest sends, into f->data, where there is room for
     * NET_FRAME_MAX bytes. False: there is none; net_kick says when. */
    bool (*take)(void *ctx, struct net_frame *f);
    /* A frame for the guest. False: no room for it, and it will be given again
     * after a net_kick. A frame that the adapter does not want is taken, too. */
    bool (*give)(void *ctx, const struct net_frame *f);
    /* After some of either: the guest may be told. Or NULL. */
    void (*flush)(void *ctx);
    void *ctx;
};

/* One adapter for each back end. It stays until the machine ends. */
void net_attach(struct net *n, const struct net_adapter *adapter);
/* There are frames to send, or there is room again. Costs little. */
void net_kick(struct net *n);
/* The adapter's state was loaded: its rings may hold frames. */
void net_restored(struct net *n);
/* enum net_takes; 0 at first. */
void net_set_takes(struct net *n, unsigned takes);
/* Is there anything on the other end? */
bool net_link(const struct net *n);

struct net_counters {
    uint64_t sent, sent_bytes;         /* frames that left the guest's card, unsegmented */
    uint64_t received, received_bytes; /* that reached it */
    uint64_t dropped; /* that the host had no room for, or that made no sense */
};
struct net_counters net_count(const struct net *n);

/* ---- back ends ---- */

enum net_protocol { NET_TCP, NET_UDP };

struct net_forward {
    enum net_protocol protocol;
    uint8_t host[4]; /* address to listen on */
    uint16_t host_port, guest_port;
};

struct net_user_config {
    const struct net_forward *forwards;
    unsigned forward_count;
    bool is_restricted;    /* nothing gets out; forwarded ports work */
    const char *tftp;      /* folder, or NULL */
    const char *boot_file; /* what DHCP says to boot, or NULL */
};

/* 10.0.2.0/24 and fec0::/64: the guest is 10.0.2.15 by DHCP, the host 10.0.2.2,
 * a name server 10.0.2.3. -ENOTSUP: built without libslirp. */
struct net *net_user_create(struct vm *vm, const struct net_user_config *config,
                            struct error *err);
/* Is libslirp in this build? */
bool net_user_available(void);
/* An interface that exists, or that this process may make. */
struct net *net_tap_create(struct vm *vm, const char *name, struct error *err);
/* No cable: what is sent is gone. */
struct net *net_null_create(struct vm *vm, struct error *err);
void net_destroy(struct net *n);

#endif
