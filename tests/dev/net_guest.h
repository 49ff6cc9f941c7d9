/*
 * A machine with two network cards, an 82540EM and virtio's, and a driver for
 * each: for tests without a processor. On the other end of each is a wire that
 * keeps what is sent, and takes what is to come.
 */
#ifndef TESTS_DEV_NET_GUEST_H
#define TESTS_DEV_NET_GUEST_H

#include "backend/net/host.h"
#include "backend/net/packet.h"
#include "dev/net/e1000_internal.h"
#include "dev/virtio/virtio_net_internal.h"
#include "tests/dev/pci_machine.h"

enum nic_card { NIC_E1000, NIC_VIRTIO, NIC_CARDS };

#define NIC_RAM_BYTES (4 * MiB)
#define NIC_ECAM 0xB0000000ull
#define NIC_BAR(card) (0xF0000000ull + (uint64_t)(card)*0x100000)
#define NIC_DEVFN(card) PCI_DEVFN(3 + (card), 0)
#define NIC_MAC "\x56\x49\x52\0\0\x07"

#define NIC_WIRE_FRAMES 64
#define NIC_WIRE_BYTES (NIC_WIRE_FRAMES * 2048)

struct nic_frame {
    uint32_t at, bytes;
    struct net_offload offload;
};

struct nic_wire {
    struct net *net;
    unsigned count; /* of frames since the test set it to 0; the first are kept */
    uint32_t used;
    uint64_t sum;   /* over all that was sent, for comparing machines */
    struct nic_frame frame[NIC_WIRE_FRAMES];
    uint8_t bytes[NIC_WIRE_BYTES + NET_FRAME_MAX];
};

struct nic_world {
    struct machine_memory memory;
    struct nic_wire *wire[NIC_CARDS];
};

/* The wires take segments whole, or not: for the next nic_create. */
void nic_build(struct harness *h);
void nic_build_plain(struct harness *h);
struct nic_world *nic_world(struct harness *h);
uint8_t *nic_ram(struct harness *h, uint64_t address);
/* A frame comes from outside. */
void nic_come(struct harness *h, enum nic_card card, const void *data, uint32_t bytes,
             const struct net_offload *offload);
const uint8_t *nic_sent(struct harness *h, enum nic_card card, unsigned n, uint32_t *bytes);

/* ---- the 82540EM ---- */

#define NIC_TX_RING 0x10000ull /* of 32 descriptors */
#define NIC_RX_RING 0x11000ull
#define NIC_RING 32
#define NIC_TX_BUFFER 0x100000ull
#define NIC_RX_BUFFER(n) (0x200000ull + (uint64_t)(n)*2048)

uint32_t nic_get(struct harness *h, unsigned reg);
void nic_put(struct harness *h, unsigned reg, uint32_t value);
/* Rings, buffers, both sides enabled, broadcast and our address, interrupts on. */
void nic_start(struct harness *h);
/* The next descriptor of each kind; nic_go makes them known. */
void nic_tx(struct harness *h, uint64_t low, uint64_t high);
void nic_go(struct harness *h);

/* An Ethernet frame with TCP over IPv4 and `bytes` of data; returns its length. */
uint32_t nic_tcp(uint8_t *to, uint32_t bytes, bool with_sums);

#endif
