/*
 * A machine with network cards, and drivers. Interface: net_guest.h.
 */
#include "tests/dev/net_guest.h"

#include <stdlib.h>

enum { DEV_BUS };

/* ---- the wire ---- */

static int wire_send(void *host, struct net_frame *f)
{
    struct nic_wire *w = host;

    w->sum = w->sum * 0x9e3779b97f4a7c15 + f->bytes + f->offload.gso_bytes +
             packet_sum(f->data, f->bytes, 0);
    if (w->count < NIC_WIRE_FRAMES && w->used + f->bytes <= sizeof w->bytes) {
        w->frame[w->count] = (struct nic_frame){w->used, f->bytes, f->offload};
        memcpy(w->bytes + w->used, f->data, f->bytes);
        w->used += f->bytes;
    }
    w->count++;
    return 0;
}

static void wire_destroy(void *host)
{
    free(host);
}

static const struct net_host_ops wire_ops = {
    .name = "wire",
    .takes = NET_TAKES_CHECKSUM | NET_TAKES_TCPV4 | NET_TAKES_TCPV6,
    .is_synchronous = true,
    .has_link = true,
    .send = wire_send,
    .destroy = wire_destroy,
};

static const struct net_host_ops plain_ops = {
    .name = "wire",
    .is_synchronous = true,
    .has_link = true,
    .send = wire_send,
    .destroy = wire_destroy,
};

/* ---- the machine ---- */

/* Destroyed after the cards: it was added before. */
static void world_destroy(void *self)
{
    struct nic_world *w = self;

    for (unsigned n = 0; n < NIC_CARDS; n++)
        net_destroy(w->wire[n]->net); /* with the wire */
    free(w);
}

static const struct dev_type world_type = {
    .name = "world", .reset = machine_no_reset, .destroy = world_destroy};

static unsigned route(void *ctx, uint8_t devfn, unsigned pin)
{
    return PCI_DEVICE_OF(devfn) - 3;
}

static void build(struct harness *h, const struct net_host_ops *ops)
{
    struct nic_world *old = h->test, *w = calloc(1, sizeof *w);
    struct error err = {.text = ""};

    assert_non_null(w);
    h->test = w;
    vm_add_device(h->vm, &world_type, "world", w);
    machine_add_memory(h, &w->memory, NIC_RAM_BYTES, 0, old ? &old->memory : NULL);
    for (unsigned n = 0; n < NIC_CARDS; n++) {
        struct nic_wire *wire = calloc(1, sizeof *wire);

        assert_non_null(wire);
        if (old)
            memcpy(wire, old->wire[n], sizeof *wire);
        wire->net = net_create(h->vm, ops, wire, &err);
        assert_non_null(wire->net);
        w->wire[n] = wire;
    }
    h->dev[DEV_BUS] = machine_add_bus(h, NIC_ECAM, route);
    for (unsigned n = 0; n < NIC_CARDS; n++) {
        struct e1000_config e1000 = {.name = "e1000", .net = w->wire[n]->net};
        struct virtio_net_config virtio = {.name = "virtio-net", .net = w->wire[n]->net};
        int ret;

        memcpy(e1000.mac, NIC_MAC, NET_MAC_BYTES);
        memcpy(virtio.mac, NIC_MAC, NET_MAC_BYTES);
        ret = n == NIC_E1000
                  ? e1000_card(h->vm, h->dev[DEV_BUS], NIC_DEVFN(n), &e1000, &err)
                  : virtio_net_create(h->vm, h->dev[DEV_BUS], NIC_DEVFN(n), &virtio, &err);
        if (ret)
            fail_msg("%s", err.text);
        pci_config_write(h->dev[DEV_BUS], 0, NIC_DEVFN(n), PCI_BAR0, (uint32_t)NIC_BAR(n), 4);
        if (n == NIC_VIRTIO)
            pci_config_write(h->dev[DEV_BUS], 0, NIC_DEVFN(n), PCI_BAR0 + 4,
                             (uint32_t)NIC_BAR(n) + 0x8000, 4);
        else
            pci_config_write(h->dev[DEV_BUS], 0, NIC_DEVFN(n), PCI_BAR0 + 8, 0x1000, 4);
        pci_config_write(h->dev[DEV_BUS], 0, NIC_DEVFN(n), PCI_COMMAND,
                         PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
    }
}

void nic_build(struct harness *h)
{
    build(h, &wire_ops);
}

void nic_build_plain(struct harness *h)
{
    build(h, &plain_ops);
}

struct nic_world *nic_world(struct harness *h)
{
    return h->test;
}

uint8_t *nic_ram(struct harness *h, uint64_t address)
{
    assert_true(address < NIC_RAM_BYTES);
    return nic_world(h)->memory.ram->host + address;
}

void nic_come(struct harness *h, enum nic_card card, const void *data, uint32_t bytes,
             const struct net_offload *offload)
{
    uint8_t copy[NET_FRAME_MAX];
    struct net_frame f = {.data = copy, .bytes = bytes};

    memcpy(copy, data, bytes);
    if (offload)
        f.offload = *offload;
    vm_lock(h->vm);
    net_receive(nic_world(h)->wire[card]->net, &f);
    vm_unlock(h->vm);
}

const uint8_t *nic_sent(struct harness *h, enum nic_card card, unsigned n, uint32_t *bytes)
{
    struct nic_wire *w = nic_world(h)->wire[card];

    assert_true(n < w->count && n < NIC_WIRE_FRAMES);
    *bytes = w->frame[n].bytes;
    return w->bytes + w->frame[n].at;
}

/* ---- the 82540EM ---- */

uint32_t nic_get(struct harness *h, unsigned reg)
{
    return (uint32_t)mm_in(h, NIC_BAR(NIC_E1000) + reg, 4);
}

void nic_put(struct harness *h, unsigned reg, uint32_t value)
{
    mm_out(h, NIC_BAR(NIC_E1000) + reg, value, 4);
}

void nic_start(struct harness *h)
{
    for (unsigned n = 0; n < NIC_RING; n++) {
        le64_put(nic_ram(h, NIC_RX_RING + n * 16), NIC_RX_BUFFER(n));
        le64_put(nic_ram(h, NIC_RX_RING + n * 16 + 8), 0);
    }
    nic_put(h, REG_TDBAL, (uint32_t)NIC_TX_RING);
    nic_put(h, REG_TDLEN, NIC_RING * 16);
    nic_put(h, REG_TDH, 0);
    nic_put(h, REG_TDT, 0);
    nic_put(h, REG_RDBAL, (uint32_t)NIC_RX_RING);
    nic_put(h, REG_RDLEN, NIC_RING * 16);
    nic_put(h, REG_RDH, 0);
    nic_put(h, REG_RDT, NIC_RING - 1);
    nic_put(h, REG_TCTL, TCTL_EN | TCTL_PSP);
    nic_put(h, REG_RCTL, RCTL_EN | RCTL_BAM);
    nic_put(h, REG_IMS, INT_TXDW | INT_RXT0 | INT_LSC | INT_RXO);
}

void nic_tx(struct harness *h, uint64_t low, uint64_t high)
{
    /* The card may have written there. */
    uint32_t *next = (uint32_t *)nic_ram(h, 0x8000), tail = *next % NIC_RING;

    le64_put(nic_ram(h, NIC_TX_RING + tail * 16), low);
    le64_put(nic_ram(h, NIC_TX_RING + tail * 16 + 8), high);
    *next = (tail + 1) % NIC_RING;
}

void nic_go(struct harness *h)
{
    nic_put(h, REG_TDT, le32_get(nic_ram(h, 0x8000)));
}

/* ---- frames ---- */

uint32_t nic_tcp(uint8_t *to, uint32_t bytes, bool with_sums)
{
    uint32_t whole = 14 + 20 + 20 + bytes;
    struct packet p;

    memset(to, 0, 54);
    memcpy(to, NIC_MAC, 6);
    memcpy(to + 6, "\x02\0\0\0\0\x01", 6);
    be16_put(to + 12, ETHERTYPE_IPV4);
    to[14] = 0x45;
    be16_put(to + 16, (uint16_t)(whole - 14));
    be16_put(to + 18, 0x1234);
    to[22] = 64;
    to[23] = IP_TCP;
    be32_put(to + 26, 0x0A000202);
    be32_put(to + 30, 0x0A00020F);
    be16_put(to + 34, 80);
    be16_put(to + 36, 4000);
    be32_put(to + 38, 1000);
    to[46] = 0x50;
    to[47] = 0x19; /* ACK, PUSH, FIN */
    for (uint32_t n = 0; n < bytes; n++)
        to[54 + n] = (uint8_t)(n * 7 + n / 256);
    if (with_sums) {
        assert_true(packet_parse(to, whole, true, &p));
        packet_fill_checksums(to, &p);
    }
    return whole;
}
