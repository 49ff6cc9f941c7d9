/*
 * What is inside of a frame: headers, checksums, segments (RFC 791, 8200, 9293,
 * 768, 1071; IEEE 802.1Q).
 *
 * Frames come from guests: each length is checked against the bytes there are,
 * and what does not parse is refused.
 *
 * Threading: functions of their arguments.
 */
#ifndef BACKEND_NET_PACKET_H
#define BACKEND_NET_PACKET_H

#include "backend/net/net.h"

enum packet_type {
    ETHERTYPE_IPV4 = 0x0800,
    ETHERTYPE_IPV6 = 0x86DD,
    ETHERTYPE_VLAN = 0x8100,
    ETHERTYPE_QINQ = 0x88A8,
};

enum packet_protocol { IP_TCP = 6, IP_UDP = 17 };

struct packet {
    bool is_ipv4, is_ipv6;
    bool is_fragment;
    uint8_t protocol;  /* of the last header; 0: unknown */
    uint32_t network;  /* where the IP header is */
    uint32_t transport; /* where TCP or UDP is; 0: none, or cut off */
    uint32_t payload;  /* behind that */
    uint32_t end;      /* of the IP packet; the frame may be longer */
};

/* False: neither IPv4 nor IPv6, or damaged. whole: the lengths in the headers
 * are believed, else (TCP to be segmented, some drivers leave them out) what
 * there is counts. */
bool packet_parse(const uint8_t *data, uint32_t bytes, bool whole, struct packet *p);
/* Ones' complement sum, not inverted; start is added. */
uint16_t packet_sum(const uint8_t *data, uint64_t bytes, uint32_t start);
/* Of the pseudo header, for `length` bytes of transport header and data. */
uint16_t packet_pseudo_sum(const uint8_t *data, const struct packet *p, uint32_t length);
/* The right transport checksum, put in place; IPv4's header too. */
void packet_fill_checksums(uint8_t *data, const struct packet *p);

/* Carries out NET_NEEDS_CHECKSUM. False: it points past the frame. */
bool packet_checksum(struct net_frame *f);
/* A frame to be segmented whose lengths and pseudo header sum may be missing:
 * puts them right, with checksum fields as NET_NEEDS_CHECKSUM has them. False:
 * it is not what its offload says. */
bool packet_complete(struct net_frame *f);
/* Cuts a frame that packet_complete has been over into segments with all
 * checksums; scratch has room for NET_FRAME_MAX. False as above; nothing was
 * emitted then. */
bool packet_segment(const struct net_frame *f, uint8_t *scratch,
                    void (*emit)(void *ctx, struct net_frame *f), void *ctx);
/* An IPv4 frame longer than mtu into fragments. False: it may not be, or is none. */
bool packet_fragment(const struct net_frame *f, unsigned mtu, uint8_t *scratch,
                     void (*emit)(void *ctx, struct net_frame *f), void *ctx);
/* Raises the largest segment that a TCP SYN offers to mss. */
void packet_raise_mss(struct net_frame *f, uint16_t mss);

#endif
