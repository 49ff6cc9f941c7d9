/*
 * The 82540EM's registers, EEPROM, PHY and rings, without a processor.
 */
#include "tests/dev/net_guest.h"

#include <stdlib.h>

static uint64_t command(uint32_t cmd, uint32_t bytes)
{
    return (uint64_t)cmd | bytes;
}

#define EOP_RS (TX_EOP | TX_RS)

static void eeprom(void **state)
{
    struct harness *h = harness_create(nic_build);
    uint16_t sum = 0, by_wire[64];

    for (unsigned n = 0; n < 64; n++) {
        uint32_t v;

        nic_put(h, REG_EERD, n << 8 | EERD_START);
        v = nic_get(h, REG_EERD);
        assert_true(v & EERD_DONE);
        sum = (uint16_t)(sum + (v >> 16));
        if (n < 3)
            assert_int_equal(v >> 16, le16_get(NIC_MAC + n * 2));
    }
    assert_int_equal(sum, 0xBABA);
    /* The same by the four wires: start bit, READ, six bits of address. */
    for (unsigned n = 0; n < 64; n++) {
        uint32_t bits = 6u << 6 | n;
        uint16_t word = 0;

        nic_put(h, REG_EECD, EECD_REQ);
        assert_true(nic_get(h, REG_EECD) & EECD_GNT);
        for (int i = 8; i >= 0; i--) {
            uint32_t di = bits >> i & 1 ? EECD_DI : 0;

            nic_put(h, REG_EECD, EECD_REQ | EECD_CS | di);
            nic_put(h, REG_EECD, EECD_REQ | EECD_CS | di | EECD_SK);
        }
        nic_put(h, REG_EECD, EECD_REQ | EECD_CS);
        assert_false(nic_get(h, REG_EECD) & EECD_DO); /* the leading zero */
        for (unsigned i = 0; i < 16; i++) {
            nic_put(h, REG_EECD, EECD_REQ | EECD_CS | EECD_SK);
            word = (uint16_t)(word << 1 | !!(nic_get(h, REG_EECD) & EECD_DO));
            nic_put(h, REG_EECD, EECD_REQ | EECD_CS);
        }
        nic_put(h, REG_EECD, 0);
        by_wire[n] = word;
        sum = (uint16_t)(sum + word);
    }
    assert_int_equal(sum, (uint16_t)(0xBABA * 2));
    assert_int_equal(by_wire[0], le16_get(NIC_MAC));
    assert_int_equal(nic_get(h, REG_RA), le32_get(NIC_MAC));
    assert_int_equal(nic_get(h, REG_RA + 4), RAH_VALID | le16_get(NIC_MAC + 4));
    harness_destroy(h);
}

static uint32_t phy(struct harness *h, unsigned n)
{
    nic_put(h, REG_MDIC, MDIC_READ | 1u << MDIC_PHY_SHIFT | n << MDIC_REGISTER_SHIFT);
    assert_true(nic_get(h, REG_MDIC) & MDIC_READY);
    return nic_get(h, REG_MDIC) & 0xFFFF;
}

static void link_status(void **state)
{
    struct harness *h = harness_create(nic_build);

    assert_int_equal(phy(h, 2), 0x0141);
    assert_true(nic_get(h, REG_STATUS) & STATUS_LU);
    assert_int_equal(phy(h, 1) & 0x24, 0x24);
    nic_put(h, REG_IMS, INT_LSC);
    /* Negotiate again: the link goes, and comes back. */
    nic_put(h, REG_MDIC, MDIC_WRITE | 1u << MDIC_PHY_SHIFT | 0x1340);
    assert_false(nic_get(h, REG_STATUS) & STATUS_LU);
    assert_true(h->line[0].level);
    assert_int_equal(nic_get(h, REG_ICR) & INT_LSC, INT_LSC);
    assert_false(h->line[0].level);
    harness_advance(h, 20 * NS_PER_MS);
    assert_true(nic_get(h, REG_STATUS) & STATUS_LU);
    assert_true(h->line[0].level);
    /* There is no other PHY. */
    nic_put(h, REG_MDIC, MDIC_READ | 2u << MDIC_PHY_SHIFT);
    assert_true(nic_get(h, REG_MDIC) & MDIC_ERROR);
    harness_destroy(h);
}

static void legacy_transmit(void **state)
{
    struct harness *h = harness_create(nic_build);
    const uint8_t *sent;
    uint32_t bytes;

    nic_start(h);
    memset(nic_ram(h, NIC_TX_BUFFER), 0x11, 200);
    nic_tx(h, NIC_TX_BUFFER, command(TX_RS, 100)); /* in two pieces */
    nic_tx(h, NIC_TX_BUFFER + 100, command(EOP_RS, 50));
    nic_go(h);
    sent = nic_sent(h, NIC_E1000, 0, &bytes);
    assert_int_equal(bytes, 150);
    assert_int_equal(sent[149], 0x11);
    assert_int_equal(nic_get(h, REG_TDH), 2);
    assert_int_equal(*nic_ram(h, NIC_TX_RING + 12) & TX_DD, TX_DD);
    assert_int_equal(*nic_ram(h, NIC_TX_RING + 28) & TX_DD, TX_DD);
    assert_true(h->line[0].level);
    assert_int_equal(nic_get(h, REG_ICR) & INT_TXDW, INT_TXDW);
    assert_int_equal(nic_get(h, REG_STATISTICS + STAT_GPTC * 4), 1);
    assert_int_equal(nic_get(h, REG_STATISTICS + STAT_GPTC * 4), 0);
    /* Short ones are padded; a tag is put in. */
    nic_put(h, REG_CTRL, CTRL_VME);
    nic_put(h, REG_VET, ETHERTYPE_VLAN);
    nic_tx(h, NIC_TX_BUFFER, command(EOP_RS | TX_VLAN, 20) | 0x2345ull << 48);
    nic_go(h);
    sent = nic_sent(h, NIC_E1000, 1, &bytes);
    assert_int_equal(bytes, 60);
    assert_memory_equal(sent + 12, "\x81\x00\x23\x45", 4);
    /* A tail outside of the ring: nothing happens. */
    nic_put(h, REG_TDT, 5000);
    assert_int_equal(nic_world(h)->wire[NIC_E1000]->count, 2);
    harness_destroy(h);
}

static void put_context(struct harness *h, uint32_t payload, uint16_t mss, uint32_t flags)
{
    uint64_t low = 14 | 24u << 8 | 33u << 16 | 34ull << 32 | (34ull + 16) << 40;

    nic_tx(h, low, payload | TX_EXTENDED | flags | 54ull << 40 | (uint64_t)mss << 48);
}

static void offloads(void **state)
{
    struct harness *h = harness_create(nic_build_plain);
    uint8_t *frame = nic_ram(h, NIC_TX_BUFFER), good[2048];
    const uint8_t *sent;
    uint32_t bytes, whole;

    nic_start(h);
    whole = nic_tcp(good, 100, true);
    nic_tcp(frame, 100, false);
    be16_put(frame + 50, 0);
    put_context(h, 0, 0, TX_CONTEXT_TCP | TX_CONTEXT_IPV4);
    /* The driver puts the pseudo header's sum where the checksum goes. */
    {
        struct packet p;

        assert_true(packet_parse(frame, whole, true, &p));
        be16_put(frame + 50, packet_pseudo_sum(frame, &p, p.end - p.transport));
    }
    nic_tx(h, NIC_TX_BUFFER, command(TX_EXTENDED | TX_DATA | EOP_RS, whole) |
                               (uint64_t)(TX_POPTS_IP | TX_POPTS_TRANSPORT) << 40);
    nic_go(h);
    sent = nic_sent(h, NIC_E1000, 0, &bytes);
    assert_int_equal(bytes, whole);
    assert_memory_equal(sent, good, whole);
    /* Segmentation, cut by net.c because this wire takes whole frames only. */
    whole = nic_tcp(frame, 3000, false);
    be16_put(frame + 16, 0);
    put_context(h, 3000, 1460, TX_TSE | TX_CONTEXT_TCP | TX_CONTEXT_IPV4);
    nic_tx(h, NIC_TX_BUFFER, command(TX_EXTENDED | TX_DATA | TX_TSE, 54) | 3ull << 40);
    nic_tx(h, NIC_TX_BUFFER + 54, command(TX_EXTENDED | TX_DATA | TX_TSE | EOP_RS, whole - 54));
    nic_go(h);
    assert_int_equal(nic_world(h)->wire[NIC_E1000]->count, 4);
    for (unsigned n = 1; n < 4; n++) {
        struct packet p;

        sent = nic_sent(h, NIC_E1000, n, &bytes);
        assert_true(packet_parse(sent, bytes, true, &p));
        assert_int_equal(packet_sum(sent + p.transport, p.end - p.transport,
                                    packet_pseudo_sum(sent, &p, p.end - p.transport)),
                         0xFFFF);
        assert_int_equal(bytes, n < 3 ? 1514 : 54 + 3000 - 2 * 1460);
    }
    assert_int_equal(nic_get(h, REG_STATISTICS + STAT_TSCTC * 4), 1);
    harness_destroy(h);
}

static void receive(void **state)
{
    struct harness *h = harness_create(nic_build);
    uint8_t frame[2048];
    uint32_t bytes = nic_tcp(frame, 500, true);
    const uint8_t *d = nic_ram(h, NIC_RX_RING);

    nic_start(h);
    nic_put(h, REG_RXCSUM, RXCSUM_IP | RXCSUM_TRANSPORT);
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_int_equal(d[12], RX_DD | RX_EOP | RX_IPCS | RX_TCPCS);
    assert_int_equal(d[13], 0);
    assert_int_equal(le16_get(d + 8), bytes + CRC_BYTES);
    assert_memory_equal(nic_ram(h, NIC_RX_BUFFER(0)), frame, bytes);
    assert_true(h->line[0].level);
    assert_int_equal(nic_get(h, REG_ICR) & INT_RXT0, INT_RXT0);
    frame[100] ^= 1;
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_int_equal(d[16 + 13], RX_ERROR_TCPE);
    /* Not for us; then promiscuous. */
    frame[5]++;
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_int_equal(d[32 + 12], 0);
    nic_put(h, REG_RCTL, RCTL_EN | RCTL_UPE);
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_int_equal(d[32 + 12] & RX_DD, RX_DD);
    /* Groups by their hash: 01:00:5E:00:00:FB is bit FB0H with MO 0. */
    memcpy(frame, "\x01\x00\x5e\x00\x00\xfb", 6);
    nic_put(h, REG_RCTL, RCTL_EN);
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_int_equal(d[48 + 12], 0);
    nic_put(h, REG_MTA + 0xFB0 / 32 * 4, 1u << (0xFB0 % 32));
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_int_equal(d[48 + 12] & (RX_DD | RX_PIF), RX_DD | RX_PIF);
    /* Too long, until long ones are let in; then in buffers of 256 bytes. */
    memcpy(frame, NIC_MAC, 6);
    nic_come(h, NIC_E1000, frame, 1600, NULL);
    assert_int_equal(nic_get(h, REG_RDH), 4);
    nic_put(h, REG_RCTL, RCTL_EN | RCTL_LPE | 3 << RCTL_BSIZE_SHIFT | RCTL_SECRC);
    nic_come(h, NIC_E1000, frame, 1600, NULL);
    assert_int_equal(nic_get(h, REG_RDH), 11);
    assert_int_equal(d[9 * 16 + 12] & RX_EOP, 0);
    assert_int_equal(d[10 * 16 + 12] & RX_EOP, RX_EOP);
    assert_int_equal(le16_get(d + 10 * 16 + 8), 1600 - 6 * 256);
    harness_destroy(h);
}

/* Frames wait while there are no descriptors, and come when there are. */
static void starvation(void **state)
{
    struct harness *h = harness_create(nic_build);
    uint8_t frame[2048];
    uint32_t bytes = nic_tcp(frame, 500, true);

    nic_start(h);
    nic_put(h, REG_RDT, 2);
    for (unsigned n = 0; n < 4; n++)
        nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_int_equal(nic_get(h, REG_RDH), 2);
    assert_true(nic_get(h, REG_ICR) & INT_RXO);
    nic_put(h, REG_RDT, 3);
    assert_int_equal(nic_get(h, REG_RDH), 3);
    nic_put(h, REG_RDT, 30);
    assert_int_equal(nic_get(h, REG_RDH), 4);
    /* Who does not listen loses them. */
    nic_put(h, REG_RCTL, 0);
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    nic_put(h, REG_RCTL, RCTL_EN);
    assert_int_equal(nic_get(h, REG_RDH), 4);
    harness_destroy(h);
}

static void moderation(void **state)
{
    struct harness *h = harness_create(nic_build);
    uint8_t frame[256];
    uint32_t bytes = nic_tcp(frame, 50, true);

    nic_start(h);
    nic_put(h, REG_ITR, 400); /* 102.4 us */
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_true(h->line[0].level);
    nic_get(h, REG_ICR);
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_false(h->line[0].level);
    harness_advance(h, 102400);
    assert_true(h->line[0].level);
    nic_get(h, REG_ICR);
    /* Delays: the interrupt waits for a pause, but not for ever. */
    nic_put(h, REG_ITR, 0);
    nic_put(h, REG_RDTR, 20);
    nic_put(h, REG_RADV, 50);
    for (unsigned n = 0; n < 4; n++) {
        nic_come(h, NIC_E1000, frame, bytes, NULL);
        assert_false(h->line[0].level);
        harness_advance(h, 15 * 1024);
    }
    assert_true(h->line[0].level);
    harness_destroy(h);
}

static void vlans(void **state)
{
    struct harness *h = harness_create(nic_build);
    uint8_t frame[256];
    const uint8_t *d = nic_ram(h, NIC_RX_RING);
    uint32_t bytes = nic_tcp(frame, 100, true);

    nic_start(h);
    memmove(frame + 16, frame + 12, bytes - 12);
    memcpy(frame + 12, "\x81\x00\x20\x05", 4);
    bytes += 4;
    nic_put(h, REG_VET, ETHERTYPE_VLAN);
    nic_put(h, REG_CTRL, CTRL_VME);
    nic_put(h, REG_RCTL, RCTL_EN | RCTL_VFE);
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_int_equal(nic_get(h, REG_RDH), 0);
    nic_put(h, REG_VFTA, 1 << 5);
    nic_come(h, NIC_E1000, frame, bytes, NULL);
    assert_int_equal(d[12] & RX_VP, RX_VP);
    assert_int_equal(le16_get(d + 14), 0x2005);
    assert_int_equal(le16_get(d + 8), bytes - 4 + CRC_BYTES);
    assert_memory_equal(nic_ram(h, NIC_RX_BUFFER(0)) + 12, "\x08\x00", 2);
    harness_destroy(h);
}

/* Rings and buffers over the adapter's own registers, and outside of memory. */
static void hostile_addresses(void **state)
{
    static const uint64_t places[] = {NIC_BAR(NIC_E1000), NIC_BAR(NIC_E1000) + REG_TDBAL,
                                      NIC_RAM_BYTES - 8, 0xFFFFFFFFFFFFFFF0ull, NIC_ECAM};
    struct harness *h = harness_create(nic_build);
    uint8_t frame[256];
    uint32_t bytes = nic_tcp(frame, 50, true);

    for (size_t n = 0; n < ARRAY_SIZE(places); n++) {
        nic_start(h);
        le32_put(nic_ram(h, 0x8000), 0);
        nic_tx(h, places[n], command(EOP_RS, 1000));
        le64_put(nic_ram(h, NIC_RX_RING), places[n]);
        nic_go(h);
        nic_come(h, NIC_E1000, frame, bytes, NULL);
        assert_int_equal(nic_get(h, REG_TDH), 1);
        assert_int_equal(nic_get(h, REG_RDH), 1);
        nic_put(h, REG_TDT, 0);
        nic_put(h, REG_TDH, 0);
        nic_put(h, REG_TDBAL, (uint32_t)places[n]);
        nic_put(h, REG_TDBAH, (uint32_t)(places[n] >> 32));
        nic_put(h, REG_TDT, 20);
        nic_put(h, REG_RDBAL, (uint32_t)places[n]);
        nic_put(h, REG_RDBAH, (uint32_t)(places[n] >> 32));
        nic_come(h, NIC_E1000, frame, bytes, NULL);
        nic_put(h, REG_CTRL, CTRL_RST);
    }
    harness_destroy(h);
}

/* A packet without an end, and one of more than 64 KiB. */
static void endless(void **state)
{
    struct harness *h = harness_create(nic_build);

    nic_start(h);
    for (unsigned n = 0; n < NIC_RING - 1; n++)
        nic_tx(h, NIC_TX_BUFFER, command(TX_EXTENDED | TX_DATA | TX_TSE, 0xFFFFF));
    nic_go(h);
    assert_int_equal(nic_world(h)->wire[NIC_E1000]->count, 0);
    assert_int_equal(nic_get(h, REG_TDH), NIC_RING - 1);
    harness_destroy(h);
}

static void saved(void **state)
{
    struct harness *h = harness_create(nic_build);

    nic_start(h);
    memset(nic_ram(h, NIC_TX_BUFFER), 0x22, 200);
    nic_tx(h, NIC_TX_BUFFER, command(TX_RS, 100)); /* half a packet */
    nic_go(h);
    nic_put(h, REG_MDIC, MDIC_WRITE | 1u << MDIC_PHY_SHIFT | 0x1340);
    harness_reload(h);
    nic_tx(h, NIC_TX_BUFFER + 100, command(EOP_RS, 50));
    harness_advance(h, 20 * NS_PER_MS);
    nic_go(h);
    {
        uint32_t bytes;
        const uint8_t *sent = nic_sent(h, NIC_E1000, 0, &bytes);

        assert_int_equal(bytes, 150);
        assert_int_equal(sent[149], 0x22);
    }
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eeprom),     cmocka_unit_test(link_status),
        cmocka_unit_test(legacy_transmit), cmocka_unit_test(offloads),
        cmocka_unit_test(receive),    cmocka_unit_test(starvation),
        cmocka_unit_test(moderation), cmocka_unit_test(vlans),
        cmocka_unit_test(hostile_addresses), cmocka_unit_test(endless),
        cmocka_unit_test(saved),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
