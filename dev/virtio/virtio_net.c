/*
 * The virtio network card. Interface: virtio_net.h; files: virtio_net_internal.h.
 *
 * A doorbell of a data queue wakes the network's thread, which takes frames out
 * of the transmit queue and puts them into the receive queue. It asks to be rung
 * only when it has found a queue empty.
 */
#include "dev/virtio/virtio_net.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/virtio/virtio_net_internal.h"

enum config { CONFIG_STATUS = 6, CONFIG_BYTES = 12, STATUS_LINK_UP = 1, ROM_MAX = 1 << 20 };

static struct virtio_net *of(struct virtio_device *d)
{
    return CONTAINER_OF(d, struct virtio_net, virtio);
}

/* ---- from the guest ---- */

/* What the header says, as far as it was agreed on; false: nonsense. */
static bool check_offload(const struct virtio_net *n, struct net_offload *o)
{
    if (!virtio_has(&n->virtio, FEATURE_CSUM))
        o->flags = 0;
    o->flags &= NET_NEEDS_CHECKSUM;
    switch (o->gso) {
    case NET_GSO_NONE:
        o->gso_bytes = 0;
        return true;
    case NET_GSO_TCPV4:
        return o->gso_bytes && virtio_has(&n->virtio, FEATURE_HOST_TSO4);
    case NET_GSO_TCPV6:
        return o->gso_bytes && virtio_has(&n->virtio, FEATURE_HOST_TSO6);
    default:
        return false;
    }
}

/* The frame of a chain; false: none. */
static bool load_frame(struct virtio_net *n, const struct virtio_chain *c, struct net_frame *f)
{
    uint64_t bytes = c->readable_bytes;

    if (bytes < HEADER_BYTES + NET_HEADER_BYTES || bytes > HEADER_BYTES + NET_FRAME_MAX)
        return false;
    virtio_chain_read(c, 0, &f->offload, sizeof f->offload);
    f->bytes = (uint32_t)virtio_chain_read(c, HEADER_BYTES, f->data, bytes - HEADER_BYTES);
    return check_offload(n, &f->offload);
}

static bool net_take(void *ctx, struct net_frame *f)
{
    struct virtio_net *n = ctx;
    struct virtio_queue *q = &n->virtio.queue[QUEUE_TRANSMIT];
    unsigned bad = 0;

    for (;;) {
        bool good;

        if (virtio_queue_take(q, &n->chain) <= 0) {
            n->has_quiet_driver = false;
            if (!virtio_queue_listen(q))
                return false;
            continue;
        }
        if (!n->has_quiet_driver) {
            n->has_quiet_driver = true;
            virtio_queue_quiet(q);
        }
        good = load_frame(n, &n->chain, f);
        virtio_chain_done(&n->chain, 0);
        n->told_sent = true;
        if (good)
            return true;
        vlog(n->virtio.vm->log, NET, GUEST, "%s: a packet that cannot be is dropped",
             n->virtio.name);
        if (++bad >= q->size)
            return false; /* others have their turn; the next doorbell goes on */
    }
}

/* ---- to the guest ---- */

/* Too few chains. The driver shall ring for what it adds behind those that were
 * looked at, so it is told before they are given back. */
static int wait_for_more(struct virtio_queue *q, unsigned count)
{
    bool more = virtio_queue_listen(q);

    virtio_queue_untake(q, count);
    return more ? -EINTR : -EAGAIN;
}

/* Puts the frame into as many chains as it needs. 0; -EAGAIN: there are too few;
 * -EINTR: but more have come meanwhile; -EBADMSG: the ring is bad; -EMSGSIZE: it
 * fits into none. */
static int store_frame(struct virtio_net *n, struct virtio_queue *q, const uint8_t *header,
                       const struct net_frame *f)
{
    bool merges = virtio_has(&n->virtio, FEATURE_MRG_RXBUF);
    uint8_t count_bytes[2];
    uint64_t first_bytes;
    uint32_t done;
    unsigned count = 1;
    int ret = virtio_queue_take(q, &n->first);

    if (ret <= 0)
        return ret ? -EBADMSG : wait_for_more(q, 0);
    first_bytes = n->first.writable_bytes;
    if (first_bytes < HEADER_BYTES || (!merges && first_bytes < HEADER_BYTES + f->bytes)) {
        virtio_chain_done(&n->first, 0);
        return -EMSGSIZE;
    }
    done = (uint32_t)virtio_chain_write(&n->first, HEADER_BYTES, f->data, f->bytes);
    while (done < f->bytes) {
        uint32_t part;

        ret = count == q->size ? 0 : virtio_queue_take(q, &n->chain);
        if (ret < 0)
            return -EBADMSG;
        if (!ret && count < q->size)
            return wait_for_more(q, count);
        if (!ret) {
            virtio_queue_untake(q, count);
            return -EMSGSIZE;
        }
        part = (uint32_t)virtio_chain_write(&n->chain, 0, f->data + done, f->bytes - done);
        virtio_chain_put(&n->chain, count++, part);
        done += part;
    }
    le16_put(count_bytes, (uint16_t)count);
    virtio_chain_write(&n->first, 0, header, HEADER_NUM_BUFFERS);
    virtio_chain_write(&n->first, HEADER_NUM_BUFFERS, count_bytes, sizeof count_bytes);
    virtio_chain_put(&n->first, 0, MIN(first_bytes, HEADER_BYTES + (uint64_t)f->bytes));
    virtio_queue_publish(q, count);
    return 0;
}

static bool net_give(void *ctx, const struct net_frame *f)
{
    struct virtio_net *n = ctx;
    struct virtio_queue *q = &n->virtio.queue[QUEUE_RECEIVE];
    struct net_offload offload = f->offload;
    int ret;

    if (!virtio_queue_is_live(q) || !virtio_net_wants(n, f->data, f->bytes))
        return true;
    if (!virtio_has(&n->virtio, FEATURE_GUEST_CSUM))
        offload.flags = 0;
    do
        ret = store_frame(n, q, (const uint8_t *)&offload, f);
    while (ret == -EINTR);
    if (ret == -EAGAIN)
        return false;
    if (ret != -EBADMSG)
        n->told_received = true;
    return true;
}

static void net_flush(void *ctx)
{
    struct virtio_net *n = ctx;

    if (n->told_received)
        virtio_queue_interrupt(&n->virtio.queue[QUEUE_RECEIVE]);
    if (n->told_sent)
        virtio_queue_interrupt(&n->virtio.queue[QUEUE_TRANSMIT]);
    n->told_received = n->told_sent = false;
}

/* ---- what the transport calls ---- */

static bool net_rung(struct virtio_device *d, unsigned queue)
{
    if (queue == QUEUE_CONTROL)
        return false;
    net_kick(of(d)->net);
    return true;
}

static void net_serve(struct virtio_device *d, unsigned queue)
{
    if (queue == QUEUE_CONTROL)
        virtio_net_control(of(d));
}

static void net_started(struct virtio_device *d)
{
    unsigned takes = 0;

    if (virtio_has(d, FEATURE_GUEST_CSUM))
        takes |= NET_TAKES_CHECKSUM | (virtio_has(d, FEATURE_GUEST_TSO4) ? NET_TAKES_TCPV4 : 0) |
                 (virtio_has(d, FEATURE_GUEST_TSO6) ? NET_TAKES_TCPV6 : 0);
    net_set_takes(of(d)->net, takes);
}

static void net_stop(struct virtio_device *d)
{
    struct virtio_net *n = of(d);

    net_set_takes(n->net, 0);
    virtio_net_filters_reset(n);
    n->told_received = n->told_sent = n->has_quiet_driver = false;
}

static void net_config_read(struct virtio_device *d, uint8_t *config)
{
    memcpy(config, of(d)->mac, NET_MAC_BYTES);
    le16_put(config + CONFIG_STATUS, net_link(of(d)->net) ? STATUS_LINK_UP : 0);
}

/* ---- life ---- */

static void net_reset(void *self)
{
    virtio_reset(self);
}

static void net_destroy_card(void *self)
{
    struct virtio_net *n = self;

    virtio_destroy(&n->virtio);
    free(n);
}

/* ---- state ---- */

static int net_after_load(void *self, unsigned version)
{
    struct virtio_net *n = self;

    if (n->mode & ~MODE_ALL || n->unicast.count > ADDRESSES + 1 ||
        n->multicast.count > ADDRESSES + 1)
        return -EINVAL;
    n->told_received = n->told_sent = n->has_quiet_driver = false;
    if (virtio_is_running(&n->virtio))
        net_started(&n->virtio);
    else
        net_set_takes(n->net, 0);
    net_restored(n->net);
    virtio_restored(&n->virtio);
    return 0;
}

static const struct state_field net_fields[] = {
    STATE_STRUCT(struct virtio_net, virtio, &virtio_state),
    STATE_BYTES(struct virtio_net, mac),
    STATE_INT(struct virtio_net, mode),
    STATE_INT(struct virtio_net, filters_vlans),
    STATE_INT(struct virtio_net, unicast.count),
    STATE_BYTES(struct virtio_net, unicast.address),
    STATE_INT(struct virtio_net, multicast.count),
    STATE_BYTES(struct virtio_net, multicast.address),
    STATE_BYTES(struct virtio_net, vlans),
    STATE_END,
};

static const struct state_table net_state = {
    .name = "virtio-net",
    .version = 1,
    .fields = net_fields,
    .after_load = net_after_load,
};

static const struct dev_type net_dev = {
    .name = "virtio-net",
    .reset = net_reset,
    .destroy = net_destroy_card,
    .state = &net_state,
};

static const struct virtio_type net_type = {
    .name = "virtio-net",
    .id = VIRTIO_ID_NET,
    .class_code = 0x020000,
    .rung = net_rung,
    .serve = net_serve,
    .reset = net_stop,
    .started = net_started,
    .config_read = net_config_read,
};

static int add_rom(struct virtio_net *n, const struct virtio_net_config *c, struct error *err)
{
    uint64_t bytes = 4 * KiB;

    if (!c->rom)
        return 0;
    if (!c->rom_bytes || c->rom_bytes > ROM_MAX)
        return error_set(err, -EINVAL, "a network adapter's ROM has 1 byte to 1 MiB");
    while (bytes < c->rom_bytes)
        bytes *= 2;
    n->rom = ram_block_create(n->virtio.vm, "virtio-net-rom", bytes, RAM_ROM, err);
    if (!n->rom)
        return -ENOMEM;
    memcpy(n->rom->host, c->rom, c->rom_bytes);
    return pci_rom_add(&n->virtio.pci, "virtio-net-rom", bytes, n->rom, err);
}

int virtio_net_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                      struct error *err)
{
    const struct virtio_net_config *c = config;
    const struct virtio_config virtio = {
        .type = &net_type,
        .name = c->name,
        .features = FEATURE_CSUM | FEATURE_GUEST_CSUM | FEATURE_MAC | FEATURE_GUEST_TSO4 |
                    FEATURE_GUEST_TSO6 | FEATURE_HOST_TSO4 | FEATURE_HOST_TSO6 |
                    FEATURE_MRG_RXBUF | FEATURE_STATUS | FEATURE_CTRL_VQ | FEATURE_CTRL_RX |
                    FEATURE_CTRL_VLAN | FEATURE_CTRL_RX_EXTRA | FEATURE_CTRL_MAC_ADDR,
        .queues = QUEUES,
        .config_bytes = CONFIG_BYTES,
    };
    struct net_adapter adapter = {.take = net_take, .give = net_give, .flush = net_flush};
    struct virtio_net *n = calloc(1, sizeof *n);
    int ret;

    if (!n)
        return error_set(err, -ENOMEM, "out of memory for a network adapter");
    n->net = c->net;
    memcpy(n->burnt_in, c->mac, sizeof n->burnt_in);
    ret = virtio_init(&n->virtio, vm, bus, devfn, &virtio, err);
    if (ret) {
        free(n);
        return ret;
    }
    ret = add_rom(n, c, err);
    if (ret) {
        virtio_destroy(&n->virtio);
        free(n);
        return ret;
    }
    virtio_net_filters_reset(n);
    adapter.ctx = n;
    net_attach(c->net, &adapter);
    vm_add_device(vm, &net_dev, n->virtio.name, n);
    return 0;
}
