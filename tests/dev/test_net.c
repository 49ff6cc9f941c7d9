/*
 * Network back ends without a host: headers, checksums, segments, fragments, and
 * the way of a frame between card and host (backend/net).
 */
#include "tests/dev/net_guest.h"

#include <stdlib.h>

struct kept {
    unsigned count;
    uint32_t data_bytes;
    uint32_t bytes[64];
    uint8_t frame[64][2048];
};

static void keep(void *ctx, struct net_frame *f)
{
    struct kept *k = ctx;

    assert_true(k->count < 64 && f->bytes <= 2048);
    k->bytes[k->count] = f->bytes;
    memcpy(k->frame[k->count++], f->data, f->bytes);
}

/* The sums of a whole frame are right when they add up to ones. */
static bool sums_are_right(const uint8_t *data, uint32_t bytes)
{
    struct packet p;

    return packet_parse(data, bytes, true, &p) && p.transport &&
           (!p.is_ipv4 || packet_sum(data + p.network, 20, 0) == 0xFFFF) &&
           packet_sum(data + p.transport, p.end - p.transport,
                      packet_pseudo_sum(data, &p, p.end - p.transport)) == 0xFFFF;
}

static void sums(void **state)
{
    /* The example of RFC 1071, section 3. */
    static const uint8_t words[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    uint8_t odd[19];
    uint32_t slow = 0;

    assert_int_equal(packet_sum(words, 8, 0), 0xddf2);
    for (unsigned n = 0; n < sizeof odd; n++)
        odd[n] = (uint8_t)(n * 37 + 200);
    for (unsigned n = 0; n < sizeof odd; n++)
        slow += n & 1 ? odd[n] : (uint32_t)odd[n] << 8;
    slow = (slow & 0xFFFF) + (slow >> 16);
    assert_int_equal(packet_sum(odd, sizeof odd, 0), slow);
    assert_int_equal(packet_sum(odd, sizeof odd, 0x1FFFE), packet_sum(odd, sizeof odd, 0));
}

static void parsing(void **state)
{
    uint8_t data[256];
    uint32_t bytes = nic_tcp(data, 10, true);
    struct packet p;

    assert_true(packet_parse(data, bytes, true, &p));
    assert_true(p.is_ipv4 && p.protocol == IP_TCP && p.transport == 34 && p.payload == 54);
    assert_true(sums_are_right(data, bytes));
    /* Every shorter piece is refused, or has no transport header. */
    for (uint32_t n = 0; n < bytes; n++)
        assert_false(packet_parse(data, n, true, &p));
    data[46] = 0xF0; /* a header longer than the packet */
    assert_true(packet_parse(data, bytes, true, &p));
    assert_int_equal(p.transport, 0);
    data[14] = 0x44; /* shorter than any */
    assert_false(packet_parse(data, bytes, true, &p));
    /* IPv6 with extension headers that point at each other's end. */
    memset(data, 0, sizeof data);
    be16_put(data + 12, ETHERTYPE_IPV6);
    data[14] = 0x60;
    be16_put(data + 18, 200);
    for (unsigned n = 54; n < sizeof data; n += 8)
        data[n + 1] = 0;
    assert_true(packet_parse(data, sizeof data, true, &p));
    assert_int_equal(p.transport, 0);
}

static void segments(void **state)
{
    static uint8_t data[NET_FRAME_MAX], scratch[NET_FRAME_MAX];
    static struct kept k;
    struct net_frame f = {.data = data, .offload = {.gso = NET_GSO_TCPV4, .gso_bytes = 1000}};
    uint32_t done = 0;

    f.bytes = nic_tcp(data, 4500, false);
    be16_put(data + 16, 0); /* as drivers leave it */
    assert_true(packet_complete(&f));
    assert_int_equal(be16_get(data + 16), 4540);
    assert_int_equal(f.offload.csum_start, 34);
    k.count = 0;
    assert_true(packet_segment(&f, scratch, keep, &k));
    assert_int_equal(k.count, 5);
    for (unsigned n = 0; n < 5; n++) {
        assert_true(sums_are_right(k.frame[n], k.bytes[n]));
        assert_int_equal(be32_get(k.frame[n] + 38), 1000 + done);
        assert_int_equal(be16_get(k.frame[n] + 18), 0x1234 + n);
        assert_int_equal(k.frame[n][47], n == 4 ? 0x19 : 0x10);
        assert_memory_equal(k.frame[n] + 54, data + 54 + done, k.bytes[n] - 54);
        done += k.bytes[n] - 54;
    }
    assert_int_equal(done, 4500);
    /* What is not what it says it is. */
    f.offload.gso = NET_GSO_TCPV6;
    assert_false(packet_segment(&f, scratch, keep, &k));
    f.offload.gso = NET_GSO_UDP;
    assert_false(packet_complete(&f));
    f.offload.gso = NET_GSO_TCPV4;
    f.offload.gso_bytes = 0;
    assert_false(packet_segment(&f, scratch, keep, &k));
    assert_int_equal(k.count, 5);
}

static void fragments(void **state)
{
    static uint8_t data[4096], scratch[NET_FRAME_MAX];
    static struct kept k;
    struct net_frame f = {.data = data};
    uint32_t done = 0;

    f.bytes = nic_tcp(data, 3000, true);
    data[23] = IP_UDP;
    k.count = 0;
    assert_true(packet_fragment(&f, 1500, scratch, keep, &k));
    assert_int_equal(k.count, 3);
    for (unsigned n = 0; n < 3; n++) {
        assert_int_equal(packet_sum(k.frame[n] + 14, 20, 0), 0xFFFF);
        assert_int_equal(be16_get(k.frame[n] + 20), done / 8 | (n < 2 ? 0x2000u : 0));
        assert_memory_equal(k.frame[n] + 34, data + 34 + done, k.bytes[n] - 34);
        done += k.bytes[n] - 34;
    }
    assert_int_equal(done, 3020);
    data[20] = 0x40; /* do not fragment */
    assert_false(packet_fragment(&f, 1500, scratch, keep, &k));
}

static void offered_mss(void **state)
{
    uint8_t data[128];
    struct net_frame f = {.data = data};
    struct packet p;

    for (unsigned nops = 0; nops < 2; nops++) {
        f.bytes = nic_tcp(data, 8, false);
        data[46] = 0x70;
        data[47] = 0x02;
        memset(data + 54, 1, 8);
        memcpy(data + 54 + nops, "\x02\x04\x05\xb4", 4);
        assert_true(packet_parse(data, f.bytes, true, &p));
        packet_fill_checksums(data, &p);
        packet_raise_mss(&f, 32768);
        assert_int_equal(be16_get(data + 56 + nops), 32768);
        assert_true(sums_are_right(data, f.bytes));
        packet_raise_mss(&f, 1000); /* never lowered */
        assert_int_equal(be16_get(data + 56 + nops), 32768);
    }
    /* An option without an end, and of no length. */
    memset(data + 54, 3, 8);
    packet_raise_mss(&f, 40000);
    data[55] = 0;
    packet_raise_mss(&f, 40000);
}

/* What is not taken whole arrives cut, with its checksums. */
static void down_the_wire(void **state)
{
    static uint8_t data[NET_FRAME_MAX];
    struct harness *h = harness_create(nic_build);
    struct net_frame f = {.data = data, .offload = {.gso = NET_GSO_TCPV4, .gso_bytes = 1460}};
    unsigned done = 0;

    nic_start(h);
    f.bytes = nic_tcp(data, 5000, false);
    assert_true(packet_complete(&f));
    nic_come(h, NIC_E1000, data, f.bytes, &f.offload);
    for (unsigned n = 0; n < 4; n++) {
        const uint8_t *d = nic_ram(h, NIC_RX_RING + n * 16);

        assert_int_equal(d[12] & (RX_DD | RX_EOP), RX_DD | RX_EOP);
        assert_true(sums_are_right(nic_ram(h, NIC_RX_BUFFER(n)), le16_get(d + 8) - CRC_BYTES));
        done += le16_get(d + 8) - CRC_BYTES - 54u;
    }
    assert_int_equal(done, 5000);
    assert_int_equal(net_count(nic_world(h)->wire[NIC_E1000]->net).received, 4);
    /* Nonsense is dropped and counted. */
    f.offload.gso = NET_GSO_TCPV6;
    nic_come(h, NIC_E1000, data, f.bytes, &f.offload);
    nic_come(h, NIC_E1000, data, 5, NULL);
    assert_int_equal(net_count(nic_world(h)->wire[NIC_E1000]->net).dropped, 2);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums),        cmocka_unit_test(parsing),
        cmocka_unit_test(segments),    cmocka_unit_test(fragments),
        cmocka_unit_test(offered_mss), cmocka_unit_test(down_the_wire),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
