/*
 * Headers, checksums and segments. Interface: packet.h.
 */
#include "backend/net/packet.h"

enum {
    IPV4_BYTES = 20,
    IPV4_LENGTH = 2,
    IPV4_ID = 4,
    IPV4_FRAGMENT = 6,
    IPV4_PROTOCOL = 9,
    IPV4_CHECKSUM = 10,
    IPV4_SOURCE = 12,
    IPV4_DO_NOT_FRAGMENT = 0x4000,
    IPV4_MORE = 0x2000,
    IPV4_OFFSET = 0x1FFF,
    IPV6_BYTES = 40,
    IPV6_LENGTH = 4,
    IPV6_NEXT = 6,
    IPV6_SOURCE = 8,
    IPV6_EXTENSIONS = 8, /* more than anybody has */
    TCP_BYTES = 20,
    TCP_SEQUENCE = 4,
    TCP_OFFSET = 12,
    TCP_FLAGS = 13,
    TCP_CHECKSUM = 16,
    TCP_FIN = 0x01,
    TCP_SYN = 0x02,
    TCP_PUSH = 0x08,
    TCP_CWR = 0x80,
    TCP_OPTION_END = 0,
    TCP_OPTION_NOP = 1,
    TCP_OPTION_MSS = 2,
    UDP_BYTES = 8,
    UDP_LENGTH = 4,
    UDP_CHECKSUM = 6,
};

enum ipv6_extension {
    IPV6_HOP_BY_HOP = 0,
    IPV6_ROUTING = 43,
    IPV6_FRAGMENT_HEADER = 44,
    IPV6_DESTINATION = 60,
};

/* ---- headers ---- */

static void parse_transport(const uint8_t *data, uint32_t at, struct packet *p)
{
    if (p->protocol == IP_TCP && at + TCP_BYTES <= p->end) {
        uint32_t length = (uint32_t)(data[at + TCP_OFFSET] >> 4) * 4;

        if (length < TCP_BYTES || at + length > p->end)
            return;
        p->transport = at;
        p->payload = at + length;
    } else if (p->protocol == IP_UDP && at + UDP_BYTES <= p->end) {
        p->transport = at;
        p->payload = at + UDP_BYTES;
    }
}

static bool parse_ipv4(const uint8_t *data, uint32_t bytes, bool whole, struct packet *p)
{
    const uint8_t *ip = data + p->network;
    uint32_t room = bytes - p->network, header, length;

    if (room < IPV4_BYTES || ip[0] >> 4 != 4)
        return false;
    header = (uint32_t)(ip[0] & 15) * 4;
    length = whole ? be16_get(ip + IPV4_LENGTH) : room;
    if (header < IPV4_BYTES || length < header || length > room)
        return false;
    p->is_ipv4 = true;
    p->end = p->network + length;
    p->protocol = ip[IPV4_PROTOCOL];
    p->is_fragment = be16_get(ip + IPV4_FRAGMENT) & (IPV4_MORE | IPV4_OFFSET);
    if (!p->is_fragment)
        parse_transport(data, p->network + header, p);
    return true;
}

static bool parse_ipv6(const uint8_t *data, uint32_t bytes, bool whole, struct packet *p)
{
    const uint8_t *ip = data + p->network;
    uint32_t room = bytes - p->network, length, at = p->network + IPV6_BYTES;
    uint8_t next;

    if (room < IPV6_BYTES || ip[0] >> 4 != 6)
        return false;
    length = whole ? be16_get(ip + IPV6_LENGTH) : room - IPV6_BYTES;
    if (length > room - IPV6_BYTES)
        return false;
    p->is_ipv6 = true;
    p->end = at + length;
    next = ip[IPV6_NEXT];
    for (unsigned n = 0; n < IPV6_EXTENSIONS; n++) {
        if (next == IPV6_FRAGMENT_HEADER) {
            p->is_fragment = true;
            return true;
        }
        if (next != IPV6_HOP_BY_HOP && next != IPV6_ROUTING && next != IPV6_DESTINATION)
            break;
        if (at + 8 > p->end)
            return true;
        next = data[at];
        at += ((uint32_t)data[at + 1] + 1) * 8;
        if (at > p->end)
            return true;
    }
    p->protocol = next;
    parse_transport(data, at, p);
    return true;
}

bool packet_parse(const uint8_t *data, uint32_t bytes, bool whole, struct packet *p)
{
    uint32_t at = NET_HEADER_BYTES;
    uint16_t type;

    *p = (struct packet){.is_ipv4 = false};
    if (bytes < NET_HEADER_BYTES)
        return false;
    type = be16_get(data + at - 2);
    for (unsigned n = 0; n < 2 && (type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ); n++) {
        at += NET_VLAN_BYTES;
        if (bytes < at)
            return false;
        type = be16_get(data + at - 2);
    }
    p->network = at;
    if (type == ETHERTYPE_IPV4)
        return parse_ipv4(data, bytes, whole, p);
    return type == ETHERTYPE_IPV6 && parse_ipv6(data, bytes, whole, p);
}

/* ---- checksums ---- */

uint16_t packet_sum(const uint8_t *data, uint64_t bytes, uint32_t start)
{
    uint64_t sum = 0;

    /* Sums of bytes swapped in pairs are swapped in pairs (RFC 1071, 2.B), and
     * wider words add up to the same. */
    for (; bytes >= 8; data += 8, bytes -= 8) {
        uint64_t v = le64_get(data);

        sum += v;
        sum += sum < v;
    }
    if (bytes) {
        uint64_t v = le_get(data, (unsigned)bytes);

        sum += v;
        sum += sum < v;
    }
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16 & 0xFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = __builtin_bswap16((uint16_t)sum) + (uint64_t)start;
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)((sum & 0xFFFF) + (sum >> 16));
}

uint16_t packet_pseudo_sum(const uint8_t *data, const struct packet *p, uint32_t length)
{
    const uint8_t *ip = data + p->network;
    uint32_t start = p->protocol + (length & 0xFFFF) + (length >> 16);

    return p->is_ipv4 ? packet_sum(ip + IPV4_SOURCE, 8, start)
                      : packet_sum(ip + IPV6_SOURCE, 32, start);
}

static uint32_t checksum_at(const struct packet *p)
{
    return p->transport + (p->protocol == IP_TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
}

static void fill_ipv4(uint8_t *data, const struct packet *p)
{
    uint8_t *ip = data + p->network;

    be16_put(ip + IPV4_CHECKSUM, 0);
    be16_put(ip + IPV4_CHECKSUM, (uint16_t)~packet_sum(ip, (uint64_t)(ip[0] & 15) * 4, 0));
}

void packet_fill_checksums(uint8_t *data, const struct packet *p)
{
    uint32_t length = p->end - p->transport;
    uint16_t sum;

    if (p->is_ipv4)
        fill_ipv4(data, p);
    if (!p->transport)
        return;
    be16_put(data + checksum_at(p), 0);
    sum = (uint16_t)~packet_sum(data + p->transport, length, packet_pseudo_sum(data, p, length));
    /* Of UDP a sum of zero is none. */
    be16_put(data + checksum_at(p), p->protocol == IP_UDP && !sum ? 0xFFFF : sum);
}

bool packet_checksum(struct net_frame *f)
{
    uint32_t start = f->offload.csum_start, at = start + f->offload.csum_offset;
    uint16_t sum;

    if (!(f->offload.flags & NET_NEEDS_CHECKSUM))
        return true;
    if (start >= f->bytes || at + 2 > f->bytes)
        return false;
    sum = (uint16_t)~packet_sum(f->data + start, f->bytes - start, 0);
    be16_put(f->data + at, sum ? sum : 0xFFFF);
    f->offload.flags &= (uint8_t)~NET_NEEDS_CHECKSUM;
    return true;
}

/* ---- segments ---- */

static bool parse_for_segments(const struct net_frame *f, struct packet *p)
{
    uint8_t gso = f->offload.gso & (uint8_t)~NET_GSO_ECN;

    if (!f->offload.gso_bytes || !packet_parse(f->data, f->bytes, false, p) || !p->transport)
        return false;
    switch (gso) {
    case NET_GSO_TCPV4:
        return p->is_ipv4 && p->protocol == IP_TCP;
    case NET_GSO_TCPV6:
        return p->is_ipv6 && p->protocol == IP_TCP;
    case NET_GSO_UDP:
        return p->protocol == IP_UDP;
    default:
        return false;
    }
}

/* Lengths of a packet that ends at p->end; false: too long for its headers. */
static bool put_lengths(uint8_t *data, const struct packet *p)
{
    uint32_t length = p->end - p->network - (p->is_ipv4 ? 0 : IPV6_BYTES);

    if (length > 0xFFFF)
        return false;
    be16_put(data + p->network + (p->is_ipv4 ? IPV4_LENGTH : IPV6_LENGTH), (uint16_t)length);
    if (p->protocol == IP_UDP)
        be16_put(data + p->transport + UDP_LENGTH, (uint16_t)(p->end - p->transport));
    return true;
}

bool packet_complete(struct net_frame *f)
{
    struct packet p;

    if (!parse_for_segments(f, &p) || !put_lengths(f->data, &p))
        return false;
    if (p.is_ipv4)
        fill_ipv4(f->data, &p);
    be16_put(f->data + checksum_at(&p), packet_pseudo_sum(f->data, &p, p.end - p.transport));
    f->offload.flags = NET_NEEDS_CHECKSUM;
    f->offload.header_bytes = (uint16_t)p.payload;
    f->offload.csum_start = (uint16_t)p.transport;
    f->offload.csum_offset = (uint16_t)(checksum_at(&p) - p.transport);
    return true;
}

bool packet_segment(const struct net_frame *f, uint8_t *scratch,
                    void (*emit)(void *ctx, struct net_frame *f), void *ctx)
{
    struct packet p;
    uint32_t data_bytes, done = 0, size = f->offload.gso_bytes;
    uint16_t id = 0;

    if (!parse_for_segments(f, &p))
        return false;
    data_bytes = f->bytes - p.payload;
    if (p.is_ipv4)
        id = be16_get(f->data + p.network + IPV4_ID);
    do {
        uint32_t part = MIN(size, data_bytes - done);
        struct packet s = p;
        struct net_frame out = {.data = scratch, .bytes = p.payload + part};

        memcpy(scratch, f->data, p.payload);
        memcpy(scratch + p.payload, f->data + p.payload + done, part);
        s.end = out.bytes;
        if (!put_lengths(scratch, &s))
            return false; /* the first, or none */
        if (p.is_ipv4)
            be16_put(scratch + p.network + IPV4_ID, id++);
        if (p.protocol == IP_TCP) {
            uint8_t *tcp = scratch + p.transport;

            be32_put(tcp + TCP_SEQUENCE, be32_get(tcp + TCP_SEQUENCE) + done);
            if (done + part < data_bytes)
                tcp[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PUSH);
            if (done)
                tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
        }
        packet_fill_checksums(scratch, &s);
        out.offload.flags = NET_CHECKED;
        emit(ctx, &out);
        done += part;
    } while (done < data_bytes);
    return true;
}

bool packet_fragment(const struct net_frame *f, unsigned mtu, uint8_t *scratch,
                     void (*emit)(void *ctx, struct net_frame *f), void *ctx)
{
    struct packet p;
    uint32_t header, size, done = 0, data_bytes;
    uint16_t field;

    if (!packet_parse(f->data, f->bytes, true, &p) || !p.is_ipv4)
        return false;
    header = (uint32_t)(f->data[p.network] & 15) * 4;
    field = be16_get(f->data + p.network + IPV4_FRAGMENT);
    if (mtu < header + 8 || field & (IPV4_DO_NOT_FRAGMENT | IPV4_MORE | IPV4_OFFSET))
        return false;
    size = (mtu - header) & ~7u;
    data_bytes = p.end - p.network - header;
    while (done < data_bytes) {
        uint32_t part = MIN(size, data_bytes - done), at = p.network + header;
        struct net_frame out = {.data = scratch, .bytes = at + part};

        memcpy(scratch, f->data, at);
        memcpy(scratch + at, f->data + at + done, part);
        be16_put(scratch + p.network + IPV4_LENGTH, (uint16_t)(header + part));
        be16_put(scratch + p.network + IPV4_FRAGMENT,
                 (uint16_t)(done / 8 | (done + part < data_bytes ? IPV4_MORE : 0)));
        fill_ipv4(scratch, &p);
        out.offload.flags = 0;
        emit(ctx, &out);
        done += part;
    }
    return true;
}

void packet_raise_mss(struct net_frame *f, uint16_t mss)
{
    struct packet p;
    uint8_t *tcp;
    uint32_t at;

    if (!packet_parse(f->data, f->bytes, true, &p) || !p.transport || p.protocol != IP_TCP)
        return;
    tcp = f->data + p.transport;
    if (!(tcp[TCP_FLAGS] & TCP_SYN))
        return;
    for (at = p.transport + TCP_BYTES; at + 4 <= p.payload;) {
        uint8_t kind = f->data[at], length = f->data[at + 1];
        uint16_t old;
        uint32_t sum;

        if (kind == TCP_OPTION_END)
            return;
        if (kind == TCP_OPTION_NOP) {
            at++;
            continue;
        }
        if (length < 2)
            return;
        if (kind != TCP_OPTION_MSS || length != 4) {
            at += length;
            continue;
        }
        old = be16_get(f->data + at + 2);
        /* RFC 1624; an option at an odd place has its bytes swapped in the sum. */
        if (old >= mss)
            return;
        be16_put(f->data + at + 2, mss);
        if ((at - p.transport) & 1) {
            old = __builtin_bswap16(old);
            mss = __builtin_bswap16(mss);
        }
        if (!(f->offload.flags & NET_NEEDS_CHECKSUM)) {
            sum = (uint16_t)~be16_get(tcp + TCP_CHECKSUM) + (uint32_t)(uint16_t)~old + mss;
            sum = (sum & 0xFFFF) + (sum >> 16);
            sum = (sum & 0xFFFF) + (sum >> 16);
            be16_put(tcp + TCP_CHECKSUM, (uint16_t)~sum);
        }
        return;
    }
}
