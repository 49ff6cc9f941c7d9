/*
 * The 82540EM's receive side (3.2): filters, checksums, descriptors.
 */
#include <zlib.h>

#include "backend/net/packet.h"
#include "dev/net/e1000_internal.h"

/* ---- is it for us? (13.5, 3.2.2) ---- */

static bool matches_address(const struct e1000 *e, const uint8_t *data)
{
    for (unsigned n = 0; n < 16; n++) {
        uint32_t low = e->reg[REG_RA / 4 + n * 2], high = e->reg[REG_RA / 4 + n * 2 + 1];
        const uint8_t *address = high & RAH_SOURCE ? data + NET_MAC_BYTES : data;

        if (high & RAH_VALID && le32_get(address) == low &&
            le16_get(address + 4) == (high & 0xFFFF))
            return true;
    }
    return false;
}

static bool matches_multicast(const struct e1000 *e, const uint8_t *data)
{
    static const uint8_t shift[4] = {4, 3, 2, 0};
    unsigned offset = e->reg[REG_RCTL / 4] >> RCTL_MO_SHIFT & 3;
    unsigned hash = (unsigned)le16_get(data + 4) >> shift[offset] & 0xFFF;

    return e->reg[REG_MTA / 4 + (hash >> 5)] >> (hash & 31) & 1;
}

static bool passes_vlan(const struct e1000 *e, const uint8_t *data)
{
    uint32_t rctl = e->reg[REG_RCTL / 4];
    uint16_t tag;

    if (!(rctl & RCTL_VFE) || be16_get(data + 12) != e->reg[REG_VET / 4])
        return true;
    tag = be16_get(data + 14);
    if (rctl & RCTL_CFIEN && !!(tag & 0x1000) != !!(rctl & RCTL_CFI))
        return false;
    return e->reg[REG_VFTA / 4 + (tag >> 5 & 127)] >> (tag & 31) & 1;
}

/* *inexact: by the multicast filter. */
static bool is_wanted(const struct e1000 *e, const uint8_t *data, uint32_t bytes, bool *inexact)
{
    uint32_t rctl = e->reg[REG_RCTL / 4];
    bool is_group = data[0] & 1;
    bool is_broadcast = !(~le32_get(data) | (uint16_t)~le16_get(data + 4));

    *inexact = false;
    if (bytes > (rctl & RCTL_LPE ? (uint32_t)FRAME_LONG : FRAME_STANDARD) || !passes_vlan(e, data))
        return false;
    if ((is_broadcast && rctl & RCTL_BAM) || (is_group && rctl & RCTL_MPE) ||
        (!is_group && rctl & RCTL_UPE) || matches_address(e, data))
        return true;
    *inexact = is_group && matches_multicast(e, data);
    return *inexact;
}

/* ---- checksums (3.2.9) ---- */

static void check(const struct e1000 *e, const struct net_frame *f, const uint8_t *data,
                  uint32_t bytes, uint8_t *status, uint8_t *errors)
{
    uint32_t rxcsum = e->reg[REG_RXCSUM / 4];
    bool is_checked = f->offload.flags & NET_CHECKED;
    struct packet p;

    if (!packet_parse(data, bytes, true, &p) || !p.is_ipv4) {
        *status |= RX_IXSM;
        return;
    }
    if (rxcsum & RXCSUM_IP) {
        const uint8_t *ip = data + p.network;

        *status |= RX_IPCS;
        if (!is_checked && packet_sum(ip, (uint64_t)(ip[0] & 15) * 4, 0) != 0xFFFF)
            *errors |= RX_ERROR_IPE;
    }
    if (rxcsum & RXCSUM_TRANSPORT && p.transport) {
        uint32_t length = p.end - p.transport;

        /* UDP without a checksum is as it should be, and not checked. */
        if (p.protocol == IP_UDP && !be16_get(data + p.transport + 6))
            return;
        *status |= RX_TCPCS;
        if (!is_checked && packet_sum(data + p.transport, length,
                                      packet_pseudo_sum(data, &p, length)) != 0xFFFF)
            *errors |= RX_ERROR_TCPE;
    }
}

/* ---- the ring ---- */

static uint32_t buffer_bytes(const struct e1000 *e)
{
    uint32_t rctl = e->reg[REG_RCTL / 4], size = 2048u >> (rctl >> RCTL_BSIZE_SHIFT & 3);

    return rctl & RCTL_BSEX && size != 2048 ? size * 16 : size;
}

static uint32_t descriptors_left(const struct e1000 *e, uint32_t count)
{
    uint32_t head = e->reg[REG_RDH / 4], tail = e->reg[REG_RDT / 4];

    if (head >= count || tail >= count)
        return 0;
    return (tail + count - head) % count;
}

/* One buffer's worth; 3.2.3. */
static void put_piece(struct e1000 *e, uint32_t count, const uint8_t *data, uint32_t bytes,
                      const uint8_t *fields)
{
    uint32_t head = e->reg[REG_RDH / 4];
    uint64_t at = ((uint64_t)e->reg[REG_RDBAH / 4] << 32 | e->reg[REG_RDBAL / 4]) +
                  (uint64_t)head * DESCRIPTOR_BYTES;
    uint8_t d[DESCRIPTOR_BYTES];

    e1000_dma_read(e, at, d, sizeof d);
    if (le64_get(d)) /* a null descriptor (3.2.4) takes nothing */
        e1000_dma_write(e, le64_get(d), data, bytes);
    le16_put(d + 8, (uint16_t)bytes);
    memcpy(d + 10, fields, 6);
    /* The bit that says that it is there comes last. */
    d[12] = 0;
    e1000_dma_write(e, at, d, sizeof d);
    d[12] = fields[2];
    e1000_dma_write(e, at + 12, d + 12, 1);
    e->reg[REG_RDH / 4] = head + 1 == count ? 0 : head + 1;
}

static void count_received(struct e1000 *e, const uint8_t *data, uint32_t bytes)
{
    e1000_count(e, STAT_GPRC, 1);
    e1000_count(e, STAT_TPR, 1);
    e1000_count(e, STAT_PRC64 + e1000_size_class(bytes), 1);
    e1000_count_bytes(e, STAT_GORC, bytes);
    e1000_count_bytes(e, STAT_TOR, bytes);
    if (data[0] == 0xFF)
        e1000_count(e, STAT_BPRC, 1);
    else if (data[0] & 1)
        e1000_count(e, STAT_MPRC, 1);
}

static void tell(struct e1000 *e, uint32_t count)
{
    uint32_t threshold = count >> (1 + (e->reg[REG_RCTL / 4] >> RCTL_RDMTS_SHIFT & 3));

    if (descriptors_left(e, count) == threshold)
        e1000_raise(e, INT_RXDMT0);
    e1000_delay(e, &e->rx_delay, e->reg[REG_RDTR / 4], e->reg[REG_RADV / 4], INT_RXT0);
}

bool e1000_give(void *ctx, const struct net_frame *f)
{
    struct e1000 *e = ctx;
    uint32_t rctl = e->reg[REG_RCTL / 4], count = e1000_ring_count(e, REG_RDLEN);
    uint32_t bytes = MAX(f->bytes, (uint32_t)FRAME_MIN), size = buffer_bytes(e), done = 0, crc;
    bool inexact, strip;
    uint8_t frame[FRAME_LONG + CRC_BYTES], fields[6] = {0};

    e->is_starved = false;
    if (!(rctl & RCTL_EN) || !(e->link_up || e1000_phy_loops(e)) || !pci_is_master(&e->pci))
        return true; /* nobody listens */
    if (f->bytes > FRAME_LONG) {
        e1000_count(e, STAT_ROC, 1);
        return true;
    }
    memcpy(frame, f->data, f->bytes);
    memset(frame + f->bytes, 0, bytes - f->bytes);
    if (!is_wanted(e, frame, bytes, &inexact)) {
        e1000_count(e, STAT_TPR, 1);
        return true;
    }
    if ((uint64_t)descriptors_left(e, count) * size < bytes + CRC_BYTES) {
        e->is_starved = true;
        e1000_count(e, STAT_RNBC, 1);
        if (!(e->icr & INT_RXO))
            e1000_raise(e, INT_RXO);
        return false;
    }
    count_received(e, frame, bytes + CRC_BYTES);
    fields[2] = RX_DD | (inexact ? RX_PIF : 0);
    if (e->reg[REG_RXCSUM / 4] & (RXCSUM_IP | RXCSUM_TRANSPORT))
        check(e, f, frame, bytes, &fields[2], &fields[3]);
    else
        fields[2] |= RX_IXSM;
    strip = e->reg[REG_CTRL / 4] & CTRL_VME && be16_get(frame + 12) == e->reg[REG_VET / 4];
    if (strip) {
        fields[2] |= RX_VP;
        le16_put(fields + 4, be16_get(frame + 14));
        memmove(frame + 12, frame + 16, bytes - 16);
        bytes -= NET_VLAN_BYTES;
    }
    /* Of what is on the wire; with the tag taken out, of what is left. */
    crc = (uint32_t)crc32(0, frame, bytes);
    le32_put(frame + bytes, crc);
    if ((e->reg[REG_RXCSUM / 4] & RXCSUM_START) < bytes) {
        uint32_t start = e->reg[REG_RXCSUM / 4] & RXCSUM_START;

        be16_put(fields, packet_sum(frame + start, bytes - start, 0));
    }
    if (!(rctl & RCTL_SECRC))
        bytes += CRC_BYTES;
    while (done < bytes) {
        uint32_t part = MIN(size, bytes - done);

        if (done + part == bytes)
            fields[2] |= RX_EOP;
        put_piece(e, count, frame + done, part, fields);
        done += part;
    }
    tell(e, count);
    return true;
}
