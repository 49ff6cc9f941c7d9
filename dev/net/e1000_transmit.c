/*
 * The 82540EM's transmit side (3.3-3.5): descriptors to frames.
 *
 * The back end asks for frames; descriptors are fetched until one ends a packet.
 * A packet to be segmented leaves whole, with the words of backend/net/net.h for
 * what is to be done with it, and what cannot be said in them (headers that do
 * not parse, packets beyond 64 KiB) is dropped. All other checksums are put in
 * here, wherever the descriptors say.
 */
#include "backend/net/packet.h"
#include "dev/net/e1000_internal.h"

void e1000_transmit_reset(struct e1000 *e)
{
    e->tx.bytes = 0;
    e->tx.started = e->tx.too_long = false;
}

/* ---- descriptors ---- */

static void load_context(struct e1000 *e, const uint8_t *d)
{
    struct e1000_context *c = &e->context;

    c->ip_start = d[0];
    c->ip_offset = d[1];
    c->ip_end = le16_get(d + 2);
    c->transport_start = d[4];
    c->transport_offset = d[5];
    c->transport_end = le16_get(d + 6);
    c->payload_bytes = le32_get(d + 8) & 0xFFFFF;
    c->command = d[11];
    c->header_bytes = d[13];
    c->mss = le16_get(d + 14);
}

/* A piece of the packet. Its options count in the first one (3.3.7.2), the VLAN
 * tag in the last. */
static void load_data(struct e1000 *e, const uint8_t *d, uint32_t command)
{
    bool extended = command & TX_EXTENDED;
    uint32_t bytes = command & (extended ? 0xFFFFF : 0xFFFF);

    if (!e->tx.started) {
        e->tx.started = true;
        e->tx.is_legacy = !extended;
        e->tx.segmented = extended && command & TX_TSE;
        e->tx.popts = extended ? d[13] : 0;
    }
    if (e->tx.too_long || bytes > sizeof e->tx.data - NET_VLAN_BYTES - e->tx.bytes) {
        e->tx.too_long = true;
        return;
    }
    /* What cannot be read is ones; the descriptor is done all the same. */
    e1000_dma_read(e, le64_get(d), e->tx.data + e->tx.bytes, bytes);
    e->tx.bytes += bytes;
}

/* ---- a whole packet ---- */

/* end 0: to the end of the packet (3.3.6). */
static void insert_checksum(struct e1000 *e, uint32_t start, uint32_t at, uint32_t end)
{
    uint32_t bytes = end && end < e->tx.bytes ? end + 1 : e->tx.bytes;

    if (start < bytes && at + 2 <= e->tx.bytes)
        be16_put(e->tx.data + at, (uint16_t)~packet_sum(e->tx.data + start, bytes - start, 0));
}

static void insert_vlan(struct e1000 *e)
{
    uint8_t *tag = e->tx.data + 2 * NET_MAC_BYTES;

    if (e->tx.bytes < NET_HEADER_BYTES)
        return;
    memmove(tag + NET_VLAN_BYTES, tag, e->tx.bytes - 2 * NET_MAC_BYTES);
    be16_put(tag, (uint16_t)e->reg[REG_VET / 4]);
    be16_put(tag + 2, e->tx.vlan_tag);
    e->tx.bytes += NET_VLAN_BYTES;
}

static void count_sent(struct e1000 *e, uint32_t bytes, uint32_t frames)
{
    uint32_t whole = MAX(bytes, (uint32_t)FRAME_MIN) + CRC_BYTES;

    e1000_count(e, STAT_GPTC, frames);
    e1000_count(e, STAT_TPT, frames);
    e1000_count(e, STAT_PTC64 + e1000_size_class(whole / frames), frames);
    e1000_count_bytes(e, STAT_GOTC, whole);
    e1000_count_bytes(e, STAT_TOT, whole);
    if (e->tx.data[0] == 0xFF)
        e1000_count(e, STAT_BPTC, frames);
    else if (e->tx.data[0] & 1)
        e1000_count(e, STAT_MPTC, frames);
}

/* TCP segmentation (3.5). False: not what it says it is. */
static bool describe_segments(struct e1000 *e, struct net_frame *f)
{
    struct packet p;
    uint32_t frames;

    f->offload.gso = !(e->context.command & (TX_CONTEXT_TCP >> 24)) ? NET_GSO_UDP
                     : e->context.command & (TX_CONTEXT_IPV4 >> 24) ? NET_GSO_TCPV4
                                                                    : NET_GSO_TCPV6;
    f->offload.gso_bytes = e->context.mss;
    if (!packet_complete(f) || !packet_parse(f->data, f->bytes, true, &p))
        return false;
    frames = (f->bytes - p.payload + e->context.mss - 1) / e->context.mss;
    if (frames <= 1) { /* nothing to cut */
        f->offload.gso = NET_GSO_NONE;
        f->offload.gso_bytes = 0;
        if (!packet_checksum(f))
            return false;
        frames = 1;
    } else {
        e1000_count(e, STAT_TSCTC, 1);
    }
    count_sent(e, f->bytes + (frames - 1) * (p.payload + CRC_BYTES), frames);
    return true;
}

static void loop_segment(void *ctx, struct net_frame *f)
{
    e1000_give(ctx, f);
}

/* To ourselves: RCTL.LBM, or the PHY. */
static void loop_back(struct e1000 *e, struct net_frame *f)
{
    if (f->offload.gso)
        packet_segment(f, e->scratch, loop_segment, e);
    else
        e1000_give(e, f);
}

/* True: f is a frame for the wire. */
static bool finish_packet(struct e1000 *e, struct net_frame *f)
{
    bool is_good = e->tx.bytes >= NET_HEADER_BYTES && !e->tx.too_long;

    f->offload = (struct net_offload){.flags = 0};
    if (is_good && !e->tx.segmented && !e->tx.is_legacy) {
        const struct e1000_context *c = &e->context;

        if (e->tx.popts & TX_POPTS_IP)
            insert_checksum(e, c->ip_start, c->ip_offset, c->ip_end);
        if (e->tx.popts & TX_POPTS_TRANSPORT)
            insert_checksum(e, c->transport_start, c->transport_offset, c->transport_end);
    }
    if (is_good && !e->tx.segmented && e->tx.bytes > FRAME_LONG)
        is_good = false;
    if (is_good && e->tx.vlan && e->reg[REG_CTRL / 4] & CTRL_VME)
        insert_vlan(e);
    if (is_good) {
        if (!e->tx.segmented && e->tx.bytes < FRAME_MIN) {
            memset(e->tx.data + e->tx.bytes, 0, FRAME_MIN - e->tx.bytes);
            e->tx.bytes = FRAME_MIN;
        }
        memcpy(f->data, e->tx.data, e->tx.bytes);
        f->bytes = e->tx.bytes;
        if (e->tx.segmented)
            is_good = describe_segments(e, f);
        else
            count_sent(e, f->bytes, 1);
    }
    e1000_transmit_reset(e);
    if (!is_good) {
        vlog(e->vm->log, NET, GUEST, "e1000: a packet that cannot be sent is dropped");
        return false;
    }
    if (e1000_phy_loops(e) || (e->reg[REG_RCTL / 4] & RCTL_LOOPBACK) == RCTL_LOOPBACK) {
        loop_back(e, f);
        return false;
    }
    return e->link_up;
}

/* ---- the ring ---- */

static void report(struct e1000 *e, uint64_t at, uint32_t command, const uint8_t *d)
{
    uint8_t status = (uint8_t)(d[TX_STATUS] | TX_DD);

    if (!(command & TX_RS))
        return;
    e1000_dma_write(e, at + TX_STATUS, &status, 1);
    e1000_delay(e, &e->tx_delay, command & TX_DELAY ? e->reg[REG_TIDV / 4] : 0,
                e->reg[REG_TADV / 4], INT_TXDW);
}

/* The one at TDH. True: it ends a packet. */
static bool fetch(struct e1000 *e, uint32_t count)
{
    uint32_t head = e->reg[REG_TDH / 4], command, left, low;
    uint64_t at = ((uint64_t)e->reg[REG_TDBAH / 4] << 32 | e->reg[REG_TDBAL / 4]) +
                  (uint64_t)head * DESCRIPTOR_BYTES;
    uint8_t d[DESCRIPTOR_BYTES];
    bool ends = false;

    e1000_dma_read(e, at, d, sizeof d);
    command = le32_get(d + 8);
    if (command & TX_EXTENDED && !(command & TX_DATA)) {
        load_context(e, d);
    } else {
        load_data(e, d, command);
        ends = command & TX_EOP;
    }
    if (ends) {
        e->tx.vlan = command & TX_VLAN;
        e->tx.vlan_tag = le16_get(d + 14);
        if (e->tx.is_legacy && command & TX_LEGACY_CHECKSUM && !e->tx.too_long)
            insert_checksum(e, d[13], d[10], 0);
    }
    e->reg[REG_TDH / 4] = head + 1 == count ? 0 : head + 1;
    report(e, at, command, d);
    left = (e->reg[REG_TDT / 4] + count - e->reg[REG_TDH / 4]) % count;
    low = (e->reg[REG_TXDCTL / 4] >> 25) * 8;
    if (low && left == low)
        e1000_raise(e, INT_TXD_LOW);
    if (!left)
        e1000_raise(e, INT_TXQE);
    return ends;
}

bool e1000_take(void *ctx, struct net_frame *f)
{
    struct e1000 *e = ctx;
    uint32_t count = e1000_ring_count(e, REG_TDLEN);
    /* A packet that loops back or is dropped is none for the host; as many of
     * those as there are descriptors, once around. */
    uint32_t bound = count;

    if (!(e->reg[REG_TCTL / 4] & TCTL_EN) || !pci_is_master(&e->pci) ||
        e->reg[REG_TDH / 4] >= count || e->reg[REG_TDT / 4] >= count)
        return false;
    while (e->reg[REG_TDH / 4] != e->reg[REG_TDT / 4] && bound-- > 0)
        if (fetch(e, count) && finish_packet(e, f))
            return true;
    return false;
}
