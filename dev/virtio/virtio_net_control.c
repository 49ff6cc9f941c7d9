/*
 * The virtio network card's control queue (virtio 1.2, 5.1.6.5), and the filters
 * that are set through it.
 */
#include "dev/virtio/virtio_net_internal.h"

enum control {
    CLASS_RECEIVE = 0,
    CLASS_MAC = 1,
    CLASS_VLAN = 2,
    MAC_TABLE_SET = 0,
    MAC_ADDRESS_SET = 1,
    VLAN_ADD = 0,
    VLAN_REMOVE = 1,
    ACK_OK = 0,
    ACK_ERROR = 1,
    COMMAND_BYTES = 2,
};

/* ---- filters ---- */

void virtio_net_filters_reset(struct virtio_net *n)
{
    memcpy(n->mac, n->burnt_in, sizeof n->mac);
    n->mode = 0;
    n->filters_vlans = false;
    memset(&n->unicast, 0, sizeof n->unicast);
    memset(&n->multicast, 0, sizeof n->multicast);
    memset(n->vlans, 0, sizeof n->vlans);
    /* A driver that cannot ask for groups gets all of them. */
    n->multicast.count = ADDRESSES + 1;
}

static bool is_among(const struct virtio_net_addresses *a, const uint8_t *address)
{
    if (a->count > ADDRESSES)
        return true;
    for (uint32_t i = 0; i < a->count; i++)
        if (!memcmp(a->address + (size_t)i * NET_MAC_BYTES, address, NET_MAC_BYTES))
            return true;
    return false;
}

bool virtio_net_wants(const struct virtio_net *n, const uint8_t *data, uint32_t bytes)
{
    static const uint8_t broadcast[NET_MAC_BYTES] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    static const uint8_t tagged[2] = {0x81, 0x00};

    if (n->mode & MODE_PROMISCUOUS)
        return true;
    if (n->filters_vlans && bytes >= NET_HEADER_BYTES + NET_VLAN_BYTES &&
        !memcmp(data + 12, tagged, sizeof tagged)) {
        unsigned id = (unsigned)(data[14] << 8 | data[15]) & (VLANS - 1);

        if (!(n->vlans[id / 8] >> (id % 8) & 1))
            return false;
    }
    if (!memcmp(data, broadcast, NET_MAC_BYTES))
        return !(n->mode & MODE_NO_BROADCAST);
    if (data[0] & 1)
        return !(n->mode & MODE_NO_MULTICAST) &&
               (n->mode & MODE_ALL_MULTICAST || is_among(&n->multicast, data));
    if (n->mode & MODE_NO_UNICAST)
        return false;
    return n->mode & MODE_ALL_UNICAST || !memcmp(data, n->mac, NET_MAC_BYTES) ||
           is_among(&n->unicast, data);
}

/* ---- commands ---- */

static bool read_exactly(const struct virtio_chain *c, uint64_t offset, void *buf, uint64_t bytes)
{
    return virtio_chain_read(c, offset, buf, bytes) == bytes;
}

static uint8_t set_mode(struct virtio_net *n, const struct virtio_chain *c, uint8_t command)
{
    uint8_t on;

    if (command >= MODE_COUNT || !read_exactly(c, COMMAND_BYTES, &on, 1))
        return ACK_ERROR;
    if (command >= 2 && !virtio_has(&n->virtio, FEATURE_CTRL_RX_EXTRA))
        return ACK_ERROR;
    n->mode = (uint8_t)((n->mode & ~(1u << command)) | (unsigned)!!on << command);
    return ACK_OK;
}

/* One list; *offset moves behind it. */
static bool read_addresses(const struct virtio_chain *c, uint64_t *offset,
                           struct virtio_net_addresses *a)
{
    uint64_t bytes;

    if (!read_exactly(c, *offset, &a->count, sizeof a->count))
        return false;
    *offset += sizeof a->count;
    bytes = (uint64_t)a->count * NET_MAC_BYTES;
    if (*offset > c->readable_bytes || bytes > c->readable_bytes - *offset)
        return false;
    memset(a->address, 0, sizeof a->address);
    if (a->count > ADDRESSES)
        a->count = ADDRESSES + 1;
    else if (!read_exactly(c, *offset, a->address, bytes))
        return false;
    *offset += bytes;
    return true;
}

static uint8_t set_addresses(struct virtio_net *n, const struct virtio_chain *c, uint8_t command)
{
    struct virtio_net_addresses unicast, multicast;
    uint64_t offset = COMMAND_BYTES;

    if (command == MAC_ADDRESS_SET && virtio_has(&n->virtio, FEATURE_CTRL_MAC_ADDR)) {
        uint8_t mac[NET_MAC_BYTES];

        if (!read_exactly(c, offset, mac, sizeof mac))
            return ACK_ERROR;
        memcpy(n->mac, mac, sizeof mac);
        return ACK_OK;
    }
    if (command != MAC_TABLE_SET || !read_addresses(c, &offset, &unicast) ||
        !read_addresses(c, &offset, &multicast))
        return ACK_ERROR;
    n->unicast = unicast;
    n->multicast = multicast;
    return ACK_OK;
}

static uint8_t set_vlan(struct virtio_net *n, const struct virtio_chain *c, uint8_t command)
{
    uint8_t id_bytes[2];
    unsigned id;

    if (command > VLAN_REMOVE || !virtio_has(&n->virtio, FEATURE_CTRL_VLAN) ||
        !read_exactly(c, COMMAND_BYTES, id_bytes, sizeof id_bytes))
        return ACK_ERROR;
    id = le16_get(id_bytes);
    if (id >= VLANS)
        return ACK_ERROR;
    n->filters_vlans = true;
    if (command == VLAN_ADD)
        n->vlans[id / 8] |= (uint8_t)(1 << id % 8);
    else
        n->vlans[id / 8] &= (uint8_t)~(1 << id % 8);
    return ACK_OK;
}

static uint8_t carry_out(struct virtio_net *n, const struct virtio_chain *c)
{
    uint8_t command[COMMAND_BYTES];

    if (!read_exactly(c, 0, command, sizeof command))
        return ACK_ERROR;
    if (command[0] == CLASS_RECEIVE && virtio_has(&n->virtio, FEATURE_CTRL_RX))
        return set_mode(n, c, command[1]);
    if (command[0] == CLASS_MAC && virtio_has(&n->virtio, FEATURE_CTRL_RX))
        return set_addresses(n, c, command[1]);
    if (command[0] == CLASS_VLAN)
        return set_vlan(n, c, command[1]);
    return ACK_ERROR;
}

void virtio_net_control(struct virtio_net *n)
{
    struct virtio_queue *q = &n->virtio.queue[QUEUE_CONTROL];
    unsigned left = q->size;

    do {
        while (left && virtio_queue_take(q, &n->chain) > 0) {
            uint8_t ack = carry_out(n, &n->chain);

            left--;
            virtio_chain_done(&n->chain, virtio_chain_write(&n->chain, 0, &ack, 1));
        }
    } while (left && virtio_queue_listen(q));
    virtio_queue_interrupt(q);
    if (!left)
        virtio_ring(&n->virtio, QUEUE_CONTROL);
}
