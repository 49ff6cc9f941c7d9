/*
 * virtio's network card, without a processor: mergeable buffers, checksums and
 * segments both ways, the control queue and its filters, hostile rings, saved
 * state. Driver: this file's, of the card in net_guest.h.
 */
#include "tests/dev/net_guest.h"
#include "tests/dev/virtio_guest.h"

#include <stdlib.h>

#define RING(queue, part) (0x20000ull + (uint64_t)(queue)*0x3000 + (uint64_t)(part)*0x1000)
#define RX(n) NIC_RX_BUFFER(n)
#define TX NIC_TX_BUFFER
#define COMMAND 0x180000ull
#define ACK 0x181000ull
#define ALL_FEATURES UINT64_MAX
#define SEGMENTS (FEATURE_HOST_TSO4 | FEATURE_HOST_TSO6 | FEATURE_GUEST_TSO4 | FEATURE_GUEST_TSO6)

enum ring_part { DESCRIPTORS, AVAILABLE, USED, PARTS };

static const struct net_offload plain;

/* ---- the driver ---- */

static uint32_t get(struct harness *h, unsigned offset, unsigned size)
{
    return (uint32_t)mm_in(h, NIC_BAR(NIC_VIRTIO) + offset, size);
}

static void put(struct harness *h, unsigned offset, uint32_t value, unsigned size)
{
    mm_out(h, NIC_BAR(NIC_VIRTIO) + offset, value, size);
}

static void start(struct harness *h, uint64_t features)
{
    put(h, VG_STATUS, 0, 1);
    put(h, VG_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, 1);
    for (unsigned half = 0; half < 2; half++) {
        uint64_t wanted = (features & ~VIRTIO_F_EVENT_IDX) | VIRTIO_F_VERSION_1;

        put(h, VG_FEATURE_SELECT, half, 4);
        put(h, VG_DRIVER_SELECT, half, 4);
        put(h, VG_DRIVER_FEATURE, get(h, VG_FEATURE, 4) & (uint32_t)(wanted >> 32 * half), 4);
    }
    put(h, VG_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK, 1);
    for (unsigned q = 0; q < QUEUES; q++) {
        put(h, VG_QUEUE_SELECT, q, 2);
        put(h, VG_QUEUE_SIZE, VG_SIZE, 2);
        put(h, VG_QUEUE_DESC, (uint32_t)RING(q, DESCRIPTORS), 4);
        put(h, VG_QUEUE_DRIVER, (uint32_t)RING(q, AVAILABLE), 4);
        put(h, VG_QUEUE_DEVICE, (uint32_t)RING(q, USED), 4);
        memset(nic_ram(h, RING(q, 0)), 0, PARTS * 0x1000);
        put(h, VG_QUEUE_ENABLE, 1, 2);
    }
    put(h, VG_STATUS, VG_RUNNING, 1);
    assert_int_equal(get(h, VG_STATUS, 1), VG_RUNNING);
}

static struct harness *create(void (*build)(struct harness *h), uint64_t features)
{
    struct harness *h = harness_create(build);

    start(h, features);
    return h;
}

static void describe(struct harness *h, unsigned queue, unsigned index, uint64_t address,
                     uint32_t bytes, uint16_t flags, uint16_t next)
{
    uint8_t *d = nic_ram(h, RING(queue, DESCRIPTORS) + index * 16);

    le64_put(d, address);
    le32_put(d + 8, bytes);
    le16_put(d + 12, flags);
    le16_put(d + 14, next);
}

/* Into the ring, without a doorbell. */
static void add(struct harness *h, unsigned queue, uint16_t head)
{
    uint8_t *ring = nic_ram(h, RING(queue, AVAILABLE));
    uint16_t index = le16_get(ring + 2);

    le16_put(ring + 4 + index % VG_SIZE * 2, head);
    le16_put(ring + 2, (uint16_t)(index + 1));
}

static void ring(struct harness *h, unsigned queue)
{
    put(h, VG_DOORBELLS + queue * 4, queue, 2);
    harness_advance(h, NS_PER_MS);
}

static unsigned used(struct harness *h, unsigned queue)
{
    return le16_get(nic_ram(h, RING(queue, USED) + 2));
}

static uint32_t used_bytes(struct harness *h, unsigned queue, unsigned n)
{
    return le32_get(nic_ram(h, RING(queue, USED) + 8 + n % VG_SIZE * 8));
}

static unsigned sent(struct harness *h)
{
    return nic_world(h)->wire[NIC_VIRTIO]->count;
}

/* The frame at TX, with a header before it in a descriptor of its own. */
static void transmit(struct harness *h, const struct net_offload *o, uint32_t bytes)
{
    uint8_t *header = nic_ram(h, TX - HEADER_BYTES);

    memcpy(header, o, sizeof *o);
    le16_put(header + HEADER_NUM_BUFFERS, 0);
    describe(h, QUEUE_TRANSMIT, 0, TX - HEADER_BYTES, HEADER_BYTES, VG_NEXT, 1);
    describe(h, QUEUE_TRANSMIT, 1, TX, bytes, 0, 0);
    add(h, QUEUE_TRANSMIT, 0);
    ring(h, QUEUE_TRANSMIT);
}

/* Buffers first to last of `bytes` each, to receive into. */
static void offer(struct harness *h, unsigned first, unsigned last, uint32_t bytes)
{
    for (unsigned n = first; n <= last; n++) {
        memset(nic_ram(h, RX(n)), 0xEE, 2048);
        describe(h, QUEUE_RECEIVE, n, RX(n), bytes, VG_WRITE, 0);
        add(h, QUEUE_RECEIVE, (uint16_t)n);
    }
    ring(h, QUEUE_RECEIVE);
}

/* A command with its data; returns what the card answers. */
static uint8_t control(struct harness *h, uint8_t class, uint8_t command, const void *data,
                       uint32_t bytes)
{
    uint8_t *c = nic_ram(h, COMMAND);
    unsigned before = used(h, QUEUE_CONTROL);

    c[0] = class;
    c[1] = command;
    if (bytes)
        memcpy(c + 2, data, bytes);
    *nic_ram(h, ACK) = 0xEE;
    describe(h, QUEUE_CONTROL, 0, COMMAND, 2, VG_NEXT, 1);
    describe(h, QUEUE_CONTROL, 1, COMMAND + 2, bytes, VG_NEXT, 2);
    describe(h, QUEUE_CONTROL, 2, ACK, 1, VG_WRITE, 0);
    if (!bytes)
        describe(h, QUEUE_CONTROL, 0, COMMAND, 2, VG_NEXT, 2);
    add(h, QUEUE_CONTROL, 0);
    ring(h, QUEUE_CONTROL);
    assert_int_equal(used(h, QUEUE_CONTROL), (before + 1) & 0xFFFF);
    assert_int_equal(used_bytes(h, QUEUE_CONTROL, before), 1);
    return *nic_ram(h, ACK);
}

static bool sum_is_right(const uint8_t *data, uint32_t bytes)
{
    struct packet p;

    return packet_parse(data, bytes, true, &p) && p.transport &&
           packet_sum(data + p.transport, p.end - p.transport,
                      packet_pseudo_sum(data, &p, p.end - p.transport)) == 0xFFFF;
}

/* TCP whose checksum is left to others: the pseudo header's sum is in its place. */
static uint32_t unfinished(uint8_t *frame, uint32_t data_bytes, struct net_offload *o)
{
    uint32_t bytes = nic_tcp(frame, data_bytes, true);
    struct packet p;

    assert_true(packet_parse(frame, bytes, true, &p));
    be16_put(frame + 50, packet_pseudo_sum(frame, &p, p.end - p.transport));
    *o = (struct net_offload){.flags = NET_NEEDS_CHECKSUM, .csum_start = 34, .csum_offset = 16};
    return bytes;
}

/* ---- what it says of itself ---- */

static void identity(void **state)
{
    struct harness *h = harness_create(nic_build);
    uint32_t low;

    put(h, VG_FEATURE_SELECT, 0, 4);
    low = get(h, VG_FEATURE, 4);
    assert_int_equal(low & (FEATURE_CSUM | FEATURE_GUEST_CSUM | FEATURE_MAC | FEATURE_MRG_RXBUF |
                            FEATURE_STATUS | FEATURE_CTRL_VQ | SEGMENTS),
                     FEATURE_CSUM | FEATURE_GUEST_CSUM | FEATURE_MAC | FEATURE_MRG_RXBUF |
                         FEATURE_STATUS | FEATURE_CTRL_VQ | SEGMENTS);
    assert_int_equal(get(h, VG_NUM_QUEUES, 2), QUEUES);
    for (unsigned n = 0; n < NET_MAC_BYTES; n++)
        assert_int_equal(get(h, VG_CONFIG + n, 1), (uint8_t)NIC_MAC[n]);
    assert_int_equal(get(h, VG_CONFIG + 6, 2), 1); /* VIRTIO_NET_S_LINK_UP */
    harness_destroy(h);
}

/* ---- to the wire ---- */

static void transmits(void **state)
{
    struct harness *h = create(nic_build, ALL_FEATURES);
    uint32_t whole = nic_tcp(nic_ram(h, TX), 200, true), bytes;

    transmit(h, &plain, whole);
    assert_int_equal(sent(h), 1);
    assert_memory_equal(nic_sent(h, NIC_VIRTIO, 0, &bytes), nic_ram(h, TX), whole);
    assert_int_equal(bytes, whole);
    assert_int_equal(used(h, QUEUE_TRANSMIT), 1);
    assert_int_equal(used_bytes(h, QUEUE_TRANSMIT, 0), 0);
    assert_true(h->line[1].level);
    assert_int_equal(get(h, VG_ISR, 1), 1);
    assert_false(h->line[1].level);
    /* Header and frame in one descriptor; and the header in pieces (2.7.4). */
    describe(h, QUEUE_TRANSMIT, 0, TX - HEADER_BYTES, HEADER_BYTES + whole, 0, 0);
    add(h, QUEUE_TRANSMIT, 0);
    describe(h, QUEUE_TRANSMIT, 2, TX - HEADER_BYTES, 5, VG_NEXT, 3);
    describe(h, QUEUE_TRANSMIT, 3, TX - HEADER_BYTES + 5, 27, VG_NEXT, 4);
    describe(h, QUEUE_TRANSMIT, 4, TX + 20, whole - 20, 0, 0);
    add(h, QUEUE_TRANSMIT, 2);
    ring(h, QUEUE_TRANSMIT);
    assert_int_equal(sent(h), 3);
    for (unsigned n = 1; n < 3; n++) {
        assert_memory_equal(nic_sent(h, NIC_VIRTIO, n, &bytes), nic_ram(h, TX), whole);
        assert_int_equal(bytes, whole);
    }
    /* More than the ring holds, one after the other. */
    for (unsigned n = 0; n < 40; n++)
        transmit(h, &plain, whole);
    assert_int_equal(sent(h), 43);
    harness_destroy(h);
}

static void sends_offloads(void **state)
{
    struct harness *h = create(nic_build_plain, ALL_FEATURES);
    struct net_offload o;
    uint32_t whole, bytes, done = 0;
    const uint8_t *frame;

    whole = unfinished(nic_ram(h, TX), 300, &o);
    transmit(h, &o, whole);
    frame = nic_sent(h, NIC_VIRTIO, 0, &bytes);
    assert_true(bytes == whole && sum_is_right(frame, bytes));
    /* Cut by net.c, because this wire takes whole frames only. */
    whole = unfinished(nic_ram(h, TX), 4000, &o);
    o.gso = NET_GSO_TCPV4;
    o.gso_bytes = 1460;
    o.header_bytes = 54;
    transmit(h, &o, whole);
    assert_int_equal(sent(h), 4);
    for (unsigned n = 1; n < 4; n++) {
        frame = nic_sent(h, NIC_VIRTIO, n, &bytes);
        assert_true(sum_is_right(frame, bytes));
        assert_memory_equal(frame + 54, nic_ram(h, TX) + 54 + done, bytes - 54);
        done += bytes - 54;
    }
    assert_int_equal(done, 4000);
    harness_destroy(h);
    /* A wire that takes them has them whole. */
    h = create(nic_build, ALL_FEATURES);
    unfinished(nic_ram(h, TX), 4000, &o);
    o.gso = NET_GSO_TCPV4;
    o.gso_bytes = 1460;
    transmit(h, &o, whole);
    nic_sent(h, NIC_VIRTIO, 0, &bytes);
    assert_int_equal(bytes, whole);
    assert_memory_equal(&nic_world(h)->wire[NIC_VIRTIO]->frame[0].offload, &o, sizeof o);
    harness_destroy(h);
}

/* Packets that cannot be: none leaves, each chain comes back. */
static void refuses(void **state)
{
    struct harness *h = create(nic_build, ALL_FEATURES & ~SEGMENTS);
    struct net_offload o = {.gso = NET_GSO_TCPV4, .gso_bytes = 1460};
    uint32_t whole = nic_tcp(nic_ram(h, TX), 200, true);

    transmit(h, &o, whole); /* not agreed on */
    start(h, ALL_FEATURES);
    o.gso_bytes = 0;
    transmit(h, &o, whole);
    o = (struct net_offload){.gso = 77, .gso_bytes = 1460};
    transmit(h, &o, whole);
    o.gso = NET_GSO_UDP;
    transmit(h, &o, whole);
    transmit(h, &plain, NET_HEADER_BYTES - 1);
    transmit(h, &plain, NET_FRAME_MAX + 1);
    describe(h, QUEUE_TRANSMIT, 0, TX, HEADER_BYTES - 1, 0, 0);
    add(h, QUEUE_TRANSMIT, 0);
    ring(h, QUEUE_TRANSMIT);
    assert_int_equal(sent(h), 0);
    assert_int_equal(used(h, QUEUE_TRANSMIT), 6);
    transmit(h, &plain, whole);
    assert_int_equal(sent(h), 1);
    /* A sum that lies outside of the frame is lost on the way. */
    o = (struct net_offload){
        .flags = NET_NEEDS_CHECKSUM, .csum_start = 0xFFF0, .csum_offset = 0xFFF0};
    harness_destroy(h);
    h = create(nic_build_plain, ALL_FEATURES);
    nic_tcp(nic_ram(h, TX), 200, true);
    transmit(h, &o, whole);
    assert_int_equal(sent(h), 0);
    /* Without FEATURE_CSUM nobody looks at it. */
    start(h, ALL_FEATURES & ~(FEATURE_CSUM | SEGMENTS));
    transmit(h, &o, whole);
    assert_int_equal(sent(h), 1);
    harness_destroy(h);
}

/* ---- from the wire ---- */

/* The header's last word says in how many buffers a frame is. */
static void mergeable(void **state)
{
    static uint8_t frame[8192], got[8192];
    struct harness *h = create(nic_build, ALL_FEATURES);
    const struct net_offload o = {.flags = NET_NEEDS_CHECKSUM,
                                  .gso = NET_GSO_TCPV4,
                                  .gso_bytes = 1460,
                                  .csum_start = 34,
                                  .csum_offset = 16};
    uint32_t bytes = nic_tcp(frame, 5000, true), done;

    offer(h, 0, 5, 2048);
    nic_come(h, NIC_VIRTIO, frame, bytes, &o);
    assert_int_equal(used(h, QUEUE_RECEIVE), 3);
    assert_memory_equal(nic_ram(h, RX(0)), &o, sizeof o);
    assert_int_equal(le16_get(nic_ram(h, RX(0)) + HEADER_NUM_BUFFERS), 3);
    assert_int_equal(used_bytes(h, QUEUE_RECEIVE, 0), 2048);
    assert_int_equal(used_bytes(h, QUEUE_RECEIVE, 1), 2048);
    assert_int_equal(used_bytes(h, QUEUE_RECEIVE, 2), HEADER_BYTES + bytes - 4096);
    memcpy(got, nic_ram(h, RX(0)) + HEADER_BYTES, 2048 - HEADER_BYTES);
    done = 2048 - HEADER_BYTES;
    memcpy(got + done, nic_ram(h, RX(1)), 2048);
    memcpy(got + done + 2048, nic_ram(h, RX(2)), bytes - done - 2048);
    assert_memory_equal(got, frame, bytes);
    assert_int_equal(*(nic_ram(h, RX(2)) + bytes - done - 2048), 0xEE);
    /* What fits into one; its sums are right, says the wire. */
    bytes = nic_tcp(frame, 100, true);
    nic_come(h, NIC_VIRTIO, frame, bytes, &(struct net_offload){.flags = NET_CHECKED});
    assert_int_equal(used(h, QUEUE_RECEIVE), 4);
    assert_int_equal(*nic_ram(h, RX(3)), NET_CHECKED);
    assert_int_equal(le16_get(nic_ram(h, RX(3)) + HEADER_NUM_BUFFERS), 1);
    /* Three are wanted and two are left: it waits for the third, whole. */
    bytes = nic_tcp(frame, 5000, true);
    nic_come(h, NIC_VIRTIO, frame, bytes, &o);
    assert_int_equal(used(h, QUEUE_RECEIVE), 4);
    offer(h, 6, 6, 2048);
    assert_int_equal(used(h, QUEUE_RECEIVE), 7);
    assert_int_equal(le16_get(nic_ram(h, RX(4)) + HEADER_NUM_BUFFERS), 3);
    assert_memory_equal(nic_ram(h, RX(4)) + HEADER_BYTES, frame, 2048 - HEADER_BYTES);
    harness_destroy(h);
}

static void receives_plainly(void **state)
{
    static uint8_t frame[8192];
    struct harness *h = create(nic_build, FEATURE_MAC | FEATURE_STATUS);
    struct net_offload o;
    uint32_t bytes = unfinished(frame, 300, &o);

    /* Neither checksums nor segments were agreed on: all is done before. */
    offer(h, 0, 7, 1526);
    nic_come(h, NIC_VIRTIO, frame, bytes, &o);
    assert_int_equal(used(h, QUEUE_RECEIVE), 1);
    assert_memory_equal(nic_ram(h, RX(0)), "\0\0", 2);                     /* flags, segmentation */
    assert_int_equal(le16_get(nic_ram(h, RX(0)) + HEADER_NUM_BUFFERS), 1); /* 5.1.6.4.1 */
    assert_true(sum_is_right(nic_ram(h, RX(0)) + HEADER_BYTES, bytes));
    bytes = unfinished(frame, 4000, &o);
    o.gso = NET_GSO_TCPV4;
    o.gso_bytes = 1460;
    nic_come(h, NIC_VIRTIO, frame, bytes, &o);
    assert_int_equal(used(h, QUEUE_RECEIVE), 4);
    for (unsigned n = 1; n < 4; n++)
        assert_true(sum_is_right(nic_ram(h, RX(n)) + HEADER_BYTES,
                                 used_bytes(h, QUEUE_RECEIVE, n) - HEADER_BYTES));
    /* Longer than a buffer: lost, and the buffer is given back empty. */
    nic_come(h, NIC_VIRTIO, frame, 1515, &plain);
    assert_int_equal(used(h, QUEUE_RECEIVE), 5);
    assert_int_equal(used_bytes(h, QUEUE_RECEIVE, 4), 0);
    assert_int_equal(*nic_ram(h, RX(4)), 0xEE);
    nic_come(h, NIC_VIRTIO, frame, 1514, &plain);
    assert_int_equal(used_bytes(h, QUEUE_RECEIVE, 5), 1526);
    harness_destroy(h);
}

/* ---- the control queue ---- */

static bool arrives(struct harness *h, const char *to, int vlan)
{
    unsigned before = used(h, QUEUE_RECEIVE);
    uint8_t frame[256];

    nic_tcp(frame, 100, true);
    memcpy(frame, to, NET_MAC_BYTES);
    if (vlan >= 0) {
        be16_put(frame + 12, ETHERTYPE_VLAN);
        be16_put(frame + 14, (uint16_t)(0x2000 | vlan));
    }
    offer(h, 0, 0, 2048);
    nic_come(h, NIC_VIRTIO, frame, 154, NULL);
    if (used(h, QUEUE_RECEIVE) != before)
        return true;
    /* Promiscuous for a moment, so that the buffer is not left there. */
    assert_int_equal(control(h, 0, 0, "\1", 1), 0);
    nic_come(h, NIC_VIRTIO, frame, 154, NULL);
    assert_int_not_equal(used(h, QUEUE_RECEIVE), before);
    assert_int_equal(control(h, 0, 0, "\0", 1), 0);
    return false;
}

#define OTHER "\x52\0\0\0\0\1"
#define GROUP "\x33\x33\0\0\0\1"
#define EVERYBODY "\xFF\xFF\xFF\xFF\xFF\xFF"

static void modes(void **state)
{
    struct harness *h = create(nic_build, ALL_FEATURES);
    /* Command, and who then is heard: we, another card, a group, everybody. */
    static const struct {
        uint8_t command;
        bool own, other, group, everybody;
    } cases[] = {
        {0, true, true, true, true},   {1, true, false, true, true},  {2, true, true, true, true},
        {3, true, false, false, true}, {4, false, false, true, true}, {5, true, false, true, false},
    };

    assert_true(arrives(h, NIC_MAC, -1) && arrives(h, GROUP, -1) && arrives(h, EVERYBODY, -1));
    assert_false(arrives(h, OTHER, -1));
    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        assert_int_equal(control(h, 0, cases[n].command, "\1", 1), 0);
        assert_int_equal(arrives(h, NIC_MAC, -1), cases[n].own);
        if (cases[n].command) /* arrives() ends it */
            assert_int_equal(arrives(h, OTHER, -1), cases[n].other);
        assert_int_equal(arrives(h, GROUP, -1), cases[n].group);
        assert_int_equal(arrives(h, EVERYBODY, -1), cases[n].everybody);
        assert_int_equal(control(h, 0, cases[n].command, "\0", 1), 0);
    }
    assert_int_equal(control(h, 0, 6, "\1", 1), 1); /* no such mode */
    assert_int_equal(control(h, 0, 0, NULL, 0), 1); /* without its byte */
    assert_int_equal(control(h, 9, 0, "\1", 1), 1); /* no such class */
    /* A driver that did not ask for them has none. */
    start(h, ALL_FEATURES & ~FEATURE_CTRL_RX_EXTRA);
    assert_int_equal(control(h, 0, 2, "\1", 1), 1);
    start(h, ALL_FEATURES & ~FEATURE_CTRL_RX);
    assert_int_equal(control(h, 0, 0, "\1", 1), 1);
    harness_destroy(h);
}

static void addresses(void **state)
{
    static uint8_t table[2048];
    struct harness *h = create(nic_build, ALL_FEATURES);

    /* One card's and one group's. */
    le32_put(table, 1);
    memcpy(table + 4, OTHER, 6);
    le32_put(table + 10, 1);
    memcpy(table + 14, GROUP, 6);
    assert_int_equal(control(h, 1, 0, table, 20), 0);
    assert_true(arrives(h, OTHER, -1) && arrives(h, GROUP, -1) && arrives(h, NIC_MAC, -1));
    assert_false(arrives(h, "\x33\x33\0\0\0\2", -1));
    assert_false(arrives(h, "\x52\0\0\0\0\2", -1));
    /* Lists that end too early, or say that they are longer than there is: all
     * stays as it was. */
    for (uint32_t bytes = 0; bytes < 20; bytes++)
        assert_int_equal(control(h, 1, 0, table, bytes), 1);
    le32_put(table, UINT32_MAX);
    assert_int_equal(control(h, 1, 0, table, 20), 1);
    le32_put(table, 0x2AAAAAAB); /* times 6 is 2 more than 4 GiB */
    assert_int_equal(control(h, 1, 0, table, 20), 1);
    assert_true(arrives(h, OTHER, -1));
    assert_false(arrives(h, "\x33\x33\0\0\0\2", -1));
    /* It outlives a save. */
    harness_reload(h);
    assert_true(arrives(h, OTHER, -1));
    assert_false(arrives(h, "\x33\x33\0\0\0\2", -1));
    /* More than there is room for: all pass, which a filter may do (5.1.6.5.1). */
    memset(table, 0, sizeof table);
    le32_put(table, ADDRESSES + 1);
    assert_int_equal(control(h, 1, 0, table, 8 + (ADDRESSES + 1) * 6), 0);
    assert_true(arrives(h, OTHER, -1));
    assert_false(arrives(h, GROUP, -1));
    /* Another address of its own, until the reset. */
    assert_int_equal(control(h, 1, 0, "\0\0\0\0\0\0\0\0", 8), 0);
    assert_int_equal(control(h, 1, 1, OTHER, 6), 0);
    assert_true(arrives(h, OTHER, -1));
    assert_false(arrives(h, NIC_MAC, -1));
    assert_int_equal(get(h, VG_CONFIG, 1), 0x52);
    assert_int_equal(control(h, 1, 1, OTHER, 5), 1);
    assert_int_equal(control(h, 1, 2, OTHER, 6), 1);
    start(h, ALL_FEATURES & ~FEATURE_CTRL_MAC_ADDR);
    assert_true(arrives(h, NIC_MAC, -1));
    assert_int_equal(control(h, 1, 1, OTHER, 6), 1);
    harness_destroy(h);
}

static void vlans(void **state)
{
    struct harness *h = create(nic_build, ALL_FEATURES);

    assert_true(arrives(h, NIC_MAC, 5));
    assert_int_equal(control(h, 2, 0, "\5\0", 2), 0);
    assert_true(arrives(h, NIC_MAC, 5) && arrives(h, NIC_MAC, -1));
    assert_false(arrives(h, NIC_MAC, 6));
    assert_int_equal(control(h, 2, 0, "\xFF\x0F", 2), 0);
    assert_true(arrives(h, NIC_MAC, 0xFFF));
    assert_int_equal(control(h, 2, 1, "\5\0", 2), 0);
    assert_false(arrives(h, NIC_MAC, 5));
    assert_int_equal(control(h, 2, 0, "\0\x10", 2), 1); /* 4096 */
    assert_int_equal(control(h, 2, 2, "\5\0", 2), 1);
    assert_int_equal(control(h, 2, 0, "\5", 1), 1);
    start(h, ALL_FEATURES & ~FEATURE_CTRL_VLAN);
    assert_true(arrives(h, NIC_MAC, 6));
    assert_int_equal(control(h, 2, 0, "\5\0", 2), 1);
    harness_destroy(h);
}

/* ---- hostile rings ---- */

/* Each leaves a card that waits for its reset, and does nothing else until then. */
static void hostile(void **state)
{
    static uint8_t frame[256];
    uint32_t whole = nic_tcp(frame, 100, true);

    for (unsigned n = 0; n < 6; n++) {
        struct harness *h = create(nic_build, ALL_FEATURES);
        unsigned q = n % QUEUES;
        uint16_t flags = q == QUEUE_RECEIVE ? VG_WRITE : 0;

        memcpy(nic_ram(h, TX), frame, whole);
        if (n < QUEUES) { /* a chain that bites its tail */
            describe(h, q, 0, TX, 100, flags | VG_NEXT, 1);
            describe(h, q, 1, TX, 100, flags | VG_NEXT, 0);
            add(h, q, 0);
        } else { /* a head beyond the table */
            add(h, q, VG_SIZE);
        }
        ring(h, q);
        nic_come(h, NIC_VIRTIO, frame, whole, NULL);
        assert_int_equal(get(h, VG_STATUS, 1), VG_RUNNING | VIRTIO_NEEDS_RESET);
        assert_int_equal(sent(h), 0);
        /* Good ones now do nothing. */
        le16_put(nic_ram(h, RING(QUEUE_TRANSMIT, AVAILABLE) + 2), 0);
        transmit(h, &plain, whole);
        assert_int_equal(sent(h), 0);
        start(h, ALL_FEATURES);
        transmit(h, &plain, whole);
        assert_int_equal(sent(h), 1);
        assert_true(arrives(h, NIC_MAC, -1));
        harness_destroy(h);
    }
}

/* Buffers over the card's own registers, the other's, and outside of all: nothing
 * is changed there. */
static void hostile_buffers(void **state)
{
    static const uint64_t places[] = {NIC_BAR(NIC_VIRTIO), NIC_BAR(NIC_VIRTIO) + VG_DOORBELLS,
                                      NIC_BAR(NIC_E1000),  NIC_ECAM,
                                      NIC_RAM_BYTES - 8,   0xFFFFFFFFFFFFFFF0ull};
    static uint8_t frame[256];
    uint32_t whole = nic_tcp(frame, 100, true);

    for (size_t n = 0; n < ARRAY_SIZE(places); n++) {
        struct harness *h = create(nic_build, ALL_FEATURES);

        describe(h, QUEUE_RECEIVE, 0, places[n], 2048, VG_WRITE, 0);
        add(h, QUEUE_RECEIVE, 0);
        ring(h, QUEUE_RECEIVE);
        nic_come(h, NIC_VIRTIO, frame, whole, NULL);
        describe(h, QUEUE_TRANSMIT, 0, places[n], 300, 0, 0);
        add(h, QUEUE_TRANSMIT, 0);
        ring(h, QUEUE_TRANSMIT);
        assert_true(get(h, VG_STATUS, 1) & VIRTIO_DRIVER_OK);
        start(h, ALL_FEATURES);
        assert_true(arrives(h, NIC_MAC, -1));
        harness_destroy(h);
    }
}

/* ---- saved ---- */

static void saved(void **state)
{
    struct harness *h = create(nic_build, ALL_FEATURES);
    uint8_t frame[256];
    uint32_t bytes = nic_tcp(frame, 100, true);

    offer(h, 0, 2, 2048);
    nic_come(h, NIC_VIRTIO, frame, bytes, NULL);
    nic_tcp(nic_ram(h, TX), 100, true);
    transmit(h, &plain, bytes);
    harness_reload(h);
    assert_int_equal(get(h, VG_STATUS, 1), VG_RUNNING);
    nic_come(h, NIC_VIRTIO, frame, bytes, NULL);
    assert_int_equal(used(h, QUEUE_RECEIVE), 2);
    assert_memory_equal(nic_ram(h, RX(1)) + HEADER_BYTES, frame, bytes);
    transmit(h, &plain, bytes);
    assert_int_equal(sent(h), 2);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity),        cmocka_unit_test(transmits),
        cmocka_unit_test(sends_offloads),  cmocka_unit_test(refuses),
        cmocka_unit_test(mergeable),       cmocka_unit_test(receives_plainly),
        cmocka_unit_test(modes),           cmocka_unit_test(addresses),
        cmocka_unit_test(vlans),           cmocka_unit_test(hostile),
        cmocka_unit_test(hostile_buffers), cmocka_unit_test(saved),
    };

    return cmocka_run_group_tests_name("virtio_net", tests, NULL, NULL);
}
