/*
 * What the files of the virtio network card share.
 *
 *   virtio_net.c          the device, its data queues, life
 *   virtio_net_control.c  the control queue, and the filters that it sets
 */
#ifndef DEV_VIRTIO_VIRTIO_NET_INTERNAL_H
#define DEV_VIRTIO_VIRTIO_NET_INTERNAL_H

#include "dev/virtio/virtio.h"
#include "dev/virtio/virtio_net.h"

enum virtio_net_queue { QUEUE_RECEIVE, QUEUE_TRANSMIT, QUEUE_CONTROL, QUEUES };

/* 5.1.3 */
#define FEATURE_CSUM BIT(0)
#define FEATURE_GUEST_CSUM BIT(1)
#define FEATURE_MAC BIT(5)
#define FEATURE_GUEST_TSO4 BIT(7)
#define FEATURE_GUEST_TSO6 BIT(8)
#define FEATURE_HOST_TSO4 BIT(11)
#define FEATURE_HOST_TSO6 BIT(12)
#define FEATURE_MRG_RXBUF BIT(15)
#define FEATURE_STATUS BIT(16)
#define FEATURE_CTRL_VQ BIT(17)
#define FEATURE_CTRL_RX BIT(18)
#define FEATURE_CTRL_VLAN BIT(19)
#define FEATURE_CTRL_RX_EXTRA BIT(20)
#define FEATURE_CTRL_MAC_ADDR BIT(23)

enum virtio_net_sizes {
    HEADER_BYTES = 12,      /* struct net_offload, and num_buffers */
    HEADER_NUM_BUFFERS = 10,
    ADDRESSES = 64,         /* of each kind in the filter; more are as if all */
    VLANS = 4096,
};

enum virtio_net_mode { /* VIRTIO_NET_CTRL_RX: bits, in the order of the commands */
                       MODE_PROMISCUOUS = 1 << 0,
                       MODE_ALL_MULTICAST = 1 << 1,
                       MODE_ALL_UNICAST = 1 << 2,
                       MODE_NO_MULTICAST = 1 << 3,
                       MODE_NO_UNICAST = 1 << 4,
                       MODE_NO_BROADCAST = 1 << 5,
                       MODE_COUNT = 6,
                       MODE_ALL = (1 << MODE_COUNT) - 1,
};

/* Of one kind, one-card or group. */
struct virtio_net_addresses {
    uint32_t count; /* more than ADDRESSES: all pass */
    uint8_t address[ADDRESSES * NET_MAC_BYTES];
};

struct virtio_net {
    struct virtio_device virtio;
    struct net *net;
    struct ram_block *rom;
    uint8_t burnt_in[NET_MAC_BYTES];
    bool told_sent, told_received; /* the driver is to hear of it in flush */
    bool has_quiet_driver;         /* it need not ring for what it sends */

    /* ---- saved ---- */
    uint8_t mac[NET_MAC_BYTES];
    uint8_t mode;
    bool filters_vlans; /* once one was asked for (5.1.6.5.3) */
    struct virtio_net_addresses unicast, multicast;
    uint8_t vlans[VLANS / 8];

    /* Scratch. */
    struct virtio_chain chain, first;
};

/* Filters as they are after a reset: what is ours, and all groups. */
void virtio_net_filters_reset(struct virtio_net *n);
bool virtio_net_wants(const struct virtio_net *n, const uint8_t *data, uint32_t bytes);
void virtio_net_control(struct virtio_net *n);

#endif
