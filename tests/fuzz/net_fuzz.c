/*
 * A hostile driver of the network cards: registers, descriptors and rings of the
 * 82540EM and of virtio's card as they should not be, frames from outside as a
 * network would not send them, resets, time.
 *
 * usage: driver.h.
 *
 * Each case runs on two machines, one of which is saved and loaded now and then.
 * They must not crash or hang or touch what is not theirs (the sanitizers'
 * part), must read the same from all registers, send the same, and end as the
 * same machine with the same memory.
 */
#include "tests/dev/net_guest.h"
#include "tests/fuzz/driver.h"

enum { HANG_SECONDS = 120, OPS = 300, COMMON_SELECT = 0x16 };

struct fuzz {
    struct fuzz_driver d;
    struct harness *a, *b;
};

/* ---- values that are likely to hurt ---- */

static uint64_t address(struct source *s)
{
    static const uint64_t places[] = {
        NIC_TX_RING,
        NIC_RX_RING,
        NIC_RX_RING + 8,
        NIC_BAR(NIC_E1000),
        NIC_BAR(NIC_E1000) + REG_TDT,
        NIC_BAR(NIC_VIRTIO) + 0x3000,
        NIC_ECAM + NIC_DEVFN(NIC_E1000) * 4096,
        NIC_RAM_BYTES - 1,
        NIC_RAM_BYTES - 64,
        0,
        0xFEE00000,
        0x100000000ull,
        0xFFFFFFFFFFFFFFF0ull,
        0xFFFFFFFFFFFFFC00ull,
    };

    return below(s, 6) == 0 ? PICK(s, places) : NIC_TX_BUFFER + below(s, 4096) * 64;
}

static uint32_t length(struct source *s)
{
    static const uint32_t lengths[] = {0,    1,    13,   14,    15,    54,    60,     64,
                                       200,  512,  1514, 1518,  1600,  4096,  9000,   16384,
                                       2048, 3000, 256,  65535, 65536, 65557, 0xFFFFF};

    return PICK(s, lengths);
}

static uint32_t value(struct source *s)
{
    static const uint32_t values[] = {0,      1,      2,      0x1F,       0x20,       0x80,
                                      0xFFFF, 0x1000, 0x4000, 0xFFFFFFFF, 0x80000000, 0x7F,
                                      3,      16,     31,     1460};

    return below(s, 3) ? PICK(s, values) : (uint32_t)next(s);
}

/* ---- the 82540EM ---- */

static void e1000_register(struct fuzz *f)
{
    static const uint16_t liked[] = {
        REG_CTRL,  REG_EECD,  REG_EERD,  REG_MDIC,  REG_ICR,   REG_ITR,    REG_ICS,  REG_IMS,
        REG_IMC,   REG_RCTL,  REG_TCTL,  REG_RDLEN, REG_RDH,   REG_RDT,    REG_RDTR, REG_RADV,
        REG_TDLEN, REG_TDH,   REG_TDT,   REG_TIDV,  REG_TXDCTL, REG_RXCSUM, REG_RA,  REG_RA + 4,
        REG_TDBAL, REG_RDBAL, REG_TDBAH, REG_VET,   REG_PBA,   REG_STATUS, 0x4074,   0x108};
    struct source *s = &f->d.from;
    unsigned reg = below(s, 8) ? PICK(s, liked) : (unsigned)below(s, REG_BYTES) & ~3u;
    uint32_t v = value(s);

    if (reg == REG_TDBAL || reg == REG_RDBAL)
        v = (uint32_t)address(s);
    else if (reg == REG_MDIC)
        v = (v & 0x1FFFFF) | 1u << MDIC_PHY_SHIFT | (uint32_t)below(s, 4) << 26;
    else if (reg == REG_CTRL && below(s, 4))
        v &= ~(uint32_t)CTRL_RST;
    if (below(s, 3)) {
        BOTH(f, nic_put(h, reg, v));
    } else if (nic_get(f->a, reg) != nic_get(f->b, reg)) {
        fuzz_failed(&f->d, "a register of the 82540EM differs");
    }
}

static void e1000_descriptor(struct fuzz *f)
{
    struct source *s = &f->d.from;
    uint64_t low = address(s), high;
    uint32_t slot = (uint32_t)below(s, NIC_RING);

    if (below(s, 4) == 0) { /* to receive into */
        BOTH(f, le64_put(nic_ram(h, NIC_RX_RING + slot * 16), low));
        return;
    }
    high = (length(s) & 0xFFFFF) | (uint64_t)(below(s, 256)) << 24;
    if (below(s, 2))
        high |= TX_EOP;
    if (below(s, 2))
        high |= TX_EXTENDED | (below(s, 3) ? TX_DATA : 0);
    high |= (below(s, 2) ? 54ull : below(s, 256)) << 40 |
            (uint64_t)(below(s, 2) ? 1460 : value(s) & 0xFFFF) << 48;
    if (high & TX_EXTENDED && !(high & TX_DATA))
        low = below(s, 2) ? 14 | 24u << 8 | 33u << 16 | 34ull << 32 | 50ull << 40 : next(s);
    BOTH(f, nic_tx(h, low, high));
    if (below(s, 2))
        BOTH(f, nic_go(h));
}

static void e1000_start(struct fuzz *f)
{
    BOTH(f, nic_start(h));
    BOTH(f, le32_put(nic_ram(h, 0x8000), 0));
}

/* A frame in the guest's buffer that is nearly right. */
static void prepare_frame(struct fuzz *f)
{
    struct source *s = &f->d.from;
    uint32_t bytes = (uint32_t)below(s, 4000), at = (uint32_t)below(s, 60), v = value(s);

    BOTH(f, nic_tcp(nic_ram(h, NIC_TX_BUFFER), bytes, true));
    if (below(s, 2))
        BOTH(f, le16_put(nic_ram(h, NIC_TX_BUFFER + at), (uint16_t)v));
}

/* ---- virtio ---- */

static uint64_t ring_at(unsigned queue, unsigned part)
{
    return 0x20000 + (uint64_t)queue * 0x3000 + (uint64_t)part * 0x1000;
}

static uint64_t bar(unsigned offset)
{
    return NIC_BAR(NIC_VIRTIO) + offset;
}

static void virtio_start(struct fuzz *f)
{
    struct source *s = &f->d.from;
    uint32_t features = below(s, 2) ? 0xFFFFFFFF : (uint32_t)next(s);

    BOTH(f, mm_out(h, bar(0x14), 0, 1));
    BOTH(f, mm_out(h, bar(0x14), 3, 1));
    for (unsigned half = 0; half < 2; half++) {
        BOTH(f, mm_out(h, bar(0x00), half, 4));
        BOTH(f, mm_out(h, bar(0x08), half, 4));
        BOTH(f, mm_out(h, bar(0x0C),
                       mm_in(h, bar(0x04), 4) & (half ? UINT32_MAX : features), 4));
    }
    BOTH(f, mm_out(h, bar(0x14), 11, 1));
    for (unsigned q = 0; q < QUEUES; q++) {
        BOTH(f, memset(nic_ram(h, ring_at(q, 0)), 0, 0x3000));
        BOTH(f, mm_out(h, bar(COMMON_SELECT), q, 2));
        BOTH(f, mm_out(h, bar(0x18), 16, 2));
        for (unsigned part = 0; part < 3; part++)
            BOTH(f, mm_out(h, bar(0x20 + part * 8), ring_at(q, part), 4));
        BOTH(f, mm_out(h, bar(0x1C), 1, 2));
    }
    BOTH(f, mm_out(h, bar(0x14), 15, 1));
}

/* A chain of a few descriptors, made available. */
static void virtio_chain_op(struct fuzz *f)
{
    struct source *s = &f->d.from;
    unsigned q = (unsigned)below(s, QUEUES), count = 1 + (unsigned)below(s, 4);
    unsigned head = (unsigned)below(s, 12);
    uint16_t index = le16_get(nic_ram(f->a, ring_at(q, 1) + 2));
    uint64_t header = NIC_TX_BUFFER - 12;
    uint32_t words[3];

    for (unsigned n = 0; n < 3; n++)
        words[n] = value(s);
    if (below(s, 2)) { /* of a packet that has work left in it */
        words[0] = 1 | (uint32_t)below(s, 2) << 8 | 54u << 16;
        words[1] = 1460 | 34u << 16;
        words[2] = 16;
    }
    BOTH(f, memcpy(nic_ram(h, header), words, 12));
    for (unsigned n = 0; n < count; n++) {
        uint64_t at = n == 0 && q == QUEUE_TRANSMIT && below(s, 4) ? header : address(s);
        uint32_t bytes = length(s);
        uint16_t flags = (uint16_t)((n + 1 < count ? 1 : 0) |
                                    (q == QUEUE_RECEIVE || (q == QUEUE_CONTROL && n) ? 2 : 0));

        if (below(s, 16) == 0)
            flags = (uint16_t)below(s, 8);
        BOTH(f, le64_put(nic_ram(h, ring_at(q, 0) + (head + n) * 16), at));
        BOTH(f, le32_put(nic_ram(h, ring_at(q, 0) + (head + n) * 16 + 8), bytes));
        BOTH(f, le16_put(nic_ram(h, ring_at(q, 0) + (head + n) * 16 + 12), flags));
        BOTH(f, le16_put(nic_ram(h, ring_at(q, 0) + (head + n) * 16 + 14), (uint16_t)(head + n + 1)));
    }
    BOTH(f, le16_put(nic_ram(h, ring_at(q, 1) + 4 + index % 16 * 2), (uint16_t)head));
    BOTH(f, le16_put(nic_ram(h, ring_at(q, 1) + 2), (uint16_t)(index + 1)));
    BOTH(f, mm_out(h, bar(0x3000 + q * 4), q, 2));
}

static void virtio_register(struct fuzz *f)
{
    struct source *s = &f->d.from;
    unsigned offset = (unsigned)(below(s, 2) ? below(s, 0x40) : below(s, 0x4000)) & ~3u;
    unsigned size = 1u << below(s, 3);
    uint32_t v = value(s);

    if (below(s, 4) == 0)
        BOTH(f, mm_out(h, bar(offset), v, size));
    else if (mm_in(f->a, bar(offset), size) != mm_in(f->b, bar(offset), size))
        fuzz_failed(&f->d, "a register of the virtio card differs");
}

/* ---- from outside, and the rest ---- */

static void come(struct fuzz *f)
{
    static uint8_t frame[NET_FRAME_MAX];
    struct source *s = &f->d.from;
    enum nic_card card = (enum nic_card)below(s, NIC_CARDS);
    uint32_t data_bytes = length(s), other = length(s), bytes;
    struct net_offload offload = {.flags = (uint8_t)below(s, 4)};

    bytes = nic_tcp(frame, MIN(data_bytes, 60000u), true);
    if (below(s, 4) == 0)
        bytes = MIN(other, (uint32_t)NET_FRAME_MAX);
    if (below(s, 2))
        le32_put(frame + below(s, 60), value(s));
    if (below(s, 3) == 0) {
        offload.gso = (uint8_t)(below(s, 2) ? 1 : below(s, 256));
        offload.gso_bytes = (uint16_t)(100 + below(s, 3000));
    }
    offload.csum_start = (uint16_t)(below(s, 2) ? 34 : value(s));
    offload.csum_offset = (uint16_t)(below(s, 2) ? 16 : value(s));
    BOTH(f, nic_come(h, card, frame, bytes, &offload));
}

static void pass(struct fuzz *f)
{
    uint64_t ns = below(&f->d.from, 8) ? below(&f->d.from, 300000) : 30 * NS_PER_MS;

    if (harness_advance(f->a, ns) != harness_advance(f->b, ns))
        fuzz_failed(&f->d, "timers differ");
}

/* Frames that wait outside of the guest are no part of its state: where there
 * are some, both machines lose them. */
static void reload(struct fuzz *f)
{
    bool waits = false;

    for (unsigned n = 0; n < NIC_CARDS; n++)
        waits |= net_has_waiting(nic_world(f->a)->wire[n]->net);
    if (waits)
        harness_reload(f->a);
    harness_reload(f->b);
}

static void operation(struct fuzz *f)
{
    struct source *s = &f->d.from;

    switch (below(s, 16)) {
    case 0:
        if (below(s, 4))
            e1000_start(f);
        else
            BOTH(f, harness_reset(h));
        break;
    case 1:
        virtio_start(f);
        break;
    case 2:
    case 3:
    case 4:
        e1000_register(f);
        break;
    case 5:
    case 6:
    case 7:
        e1000_descriptor(f);
        break;
    case 8:
    case 9:
    case 10:
        virtio_chain_op(f);
        break;
    case 11:
        virtio_register(f);
        break;
    case 12:
        prepare_frame(f);
        break;
    case 13:
        pass(f);
        break;
    default:
        come(f);
        break;
    }
    if (below(s, 50) == 0)
        reload(f);
}

/* ---- cases ---- */

static void map_again(struct harness *h)
{
    pci_config_write(h->dev[0], 0, NIC_DEVFN(NIC_E1000), PCI_BAR0, (uint32_t)NIC_BAR(NIC_E1000), 4);
    pci_config_write(h->dev[0], 0, NIC_DEVFN(NIC_VIRTIO), PCI_BAR0, (uint32_t)NIC_BAR(NIC_VIRTIO), 4);
    for (unsigned n = 0; n < NIC_CARDS; n++)
        pci_config_write(h->dev[0], 0, NIC_DEVFN(n), PCI_COMMAND,
                         PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
}

static void run_case(struct fuzz_driver *d)
{
    struct fuzz *f = (struct fuzz *)d;
    bool plain = below(&d->from, 2);

    f->a = harness_create(plain ? nic_build_plain : nic_build);
    f->b = harness_create(plain ? nic_build_plain : nic_build);
    e1000_start(f);
    virtio_start(f);
    for (unsigned n = 0; n < OPS && !source_has_ended(&d->from); n++) {
        operation(f);
        if (n % 64 == 63)
            BOTH(f, map_again(h));
    }
    reload(f);
    for (unsigned n = 0; n < NIC_CARDS; n++)
        if (nic_world(f->a)->wire[n]->sum != nic_world(f->b)->wire[n]->sum)
            fuzz_failed(d, "what was sent differs after reloads");
    if (memcmp(nic_ram(f->a, 0), nic_ram(f->b, 0), NIC_RAM_BYTES))
        fuzz_failed(d, "memory differs after reloads");
    harness_destroy(f->a);
    harness_destroy(f->b);
}

struct fuzz_driver *fuzz_driver(void)
{
    static struct fuzz f = {
        .d = {.name = "net_fuzz", .hang_seconds = HANG_SECONDS, .run = run_case}};

    return &f.d;
}
