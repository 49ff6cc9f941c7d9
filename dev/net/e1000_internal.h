/*
 * What the files of the 82540EM share: registers, descriptors, the adapter.
 *
 *   e1000.c            the function on the bus, interrupts, link, life
 *   e1000_registers.c  reads and writes of registers
 *   e1000_nvm.c        the EEPROM and the PHY behind their serial interfaces
 *   e1000_transmit.c   from the transmit ring to frames
 *   e1000_receive.c    filters, and from frames to the receive ring
 *
 * Section numbers are the manual's (e1000.h). Everything in a ring is hostile:
 * descriptors are read once, and what a frame may grow to is bounded.
 */
#ifndef DEV_NET_E1000_INTERNAL_H
#define DEV_NET_E1000_INTERNAL_H

#include "dev/net/e1000.h"

/* ---- registers (13.4) ---- */

enum e1000_register {
    REG_CTRL = 0x0000,
    REG_CTRL_SHADOW = 0x0004,
    REG_STATUS = 0x0008,
    REG_EECD = 0x0010,
    REG_EERD = 0x0014,
    REG_CTRL_EXT = 0x0018,
    REG_MDIC = 0x0020,
    REG_FCAL = 0x0028,
    REG_FCAH = 0x002C,
    REG_FCT = 0x0030,
    REG_VET = 0x0038,
    REG_ICR = 0x00C0,
    REG_ITR = 0x00C4,
    REG_ICS = 0x00C8,
    REG_IMS = 0x00D0,
    REG_IMC = 0x00D8,
    REG_RCTL = 0x0100,
    REG_FCTTV = 0x0170,
    REG_TXCW = 0x0178,
    REG_RXCW = 0x0180,
    REG_TCTL = 0x0400,
    REG_TIPG = 0x0410,
    REG_AIT = 0x0458,
    REG_LEDCTL = 0x0E00,
    REG_PBA = 0x1000,
    REG_FCRTL = 0x2160,
    REG_FCRTH = 0x2168,
    REG_RDFH = 0x2410,
    REG_RDFT = 0x2418,
    REG_RDFHS = 0x2420,
    REG_RDFTS = 0x2428,
    REG_RDFPC = 0x2430,
    REG_RDBAL = 0x2800,
    REG_RDBAH = 0x2804,
    REG_RDLEN = 0x2808,
    REG_RDH = 0x2810,
    REG_RDT = 0x2818,
    REG_RDTR = 0x2820,
    REG_RXDCTL = 0x2828,
    REG_RADV = 0x282C,
    REG_RSRPD = 0x2C00,
    REG_TXDMAC = 0x3000,
    REG_TDFH = 0x3410,
    REG_TDFT = 0x3418,
    REG_TDFHS = 0x3420,
    REG_TDFTS = 0x3428,
    REG_TDFPC = 0x3430,
    REG_TDBAL = 0x3800,
    REG_TDBAH = 0x3804,
    REG_TDLEN = 0x3808,
    REG_TDH = 0x3810,
    REG_TDT = 0x3818,
    REG_TIDV = 0x3820,
    REG_TXDCTL = 0x3828,
    REG_TADV = 0x382C,
    REG_TSPMT = 0x3830,
    REG_STATISTICS = 0x4000,
    REG_STATISTICS_END = 0x4100,
    REG_RXCSUM = 0x5000,
    REG_MTA = 0x5200,
    REG_RA = 0x5400,
    REG_VFTA = 0x5600,
    REG_WUC = 0x5800,
    REG_WUFC = 0x5808,
    REG_WUS = 0x5810,
    REG_IPAV = 0x5838,
    REG_IP4AT = 0x5840,
    REG_IP6AT = 0x5880,
    REG_WUPL = 0x5900,
    REG_WUPM = 0x5A00,
    REG_FFLT = 0x5F00,
    REG_KEPT_END = 0x6000, /* of those in struct e1000.reg */
    REG_BYTES = 0x20000,
};

enum e1000_ctrl {
    CTRL_FD = 1 << 0,
    CTRL_SLU = 1 << 6,
    CTRL_SPEED_1000 = 2 << 8,
    CTRL_RST = 1 << 26,
    CTRL_VME = 1 << 30,
};
#define CTRL_PHY_RST (1u << 31)

enum e1000_status {
    STATUS_FD = 1 << 0,
    STATUS_LU = 1 << 1,
    STATUS_SPEED_1000 = 2 << 6,
    STATUS_ASDV_1000 = 2 << 8,
};

enum e1000_eecd {
    EECD_SK = 1 << 0,
    EECD_CS = 1 << 1,
    EECD_DI = 1 << 2,
    EECD_DO = 1 << 3,
    EECD_REQ = 1 << 6,
    EECD_GNT = 1 << 7,
    EECD_PRES = 1 << 8,
};

enum e1000_eerd { EERD_START = 1 << 0, EERD_DONE = 1 << 4 };

enum e1000_mdic {
    MDIC_REGISTER_SHIFT = 16,
    MDIC_PHY_SHIFT = 21,
    MDIC_WRITE = 1 << 26,
    MDIC_READ = 2 << 26,
    MDIC_OPERATION = 3 << 26,
    MDIC_READY = 1 << 28,
    MDIC_INTERRUPT = 1 << 29,
    MDIC_ERROR = 1 << 30,
};

enum e1000_interrupt { /* ICR, ICS, IMS, IMC */
                       INT_TXDW = 1 << 0,
                       INT_TXQE = 1 << 1,
                       INT_LSC = 1 << 2,
                       INT_RXDMT0 = 1 << 4,
                       INT_RXO = 1 << 6,
                       INT_RXT0 = 1 << 7,
                       INT_MDAC = 1 << 9,
                       INT_TXD_LOW = 1 << 15,
                       INT_SRPD = 1 << 16,
                       INT_ALL = 0x1F6DF,
};

enum e1000_rctl {
    RCTL_EN = 1 << 1,
    RCTL_UPE = 1 << 3,
    RCTL_MPE = 1 << 4,
    RCTL_LPE = 1 << 5,
    RCTL_LOOPBACK = 3 << 6,
    RCTL_RDMTS_SHIFT = 8,
    RCTL_MO_SHIFT = 12,
    RCTL_BAM = 1 << 15,
    RCTL_BSIZE_SHIFT = 16,
    RCTL_VFE = 1 << 18,
    RCTL_CFIEN = 1 << 19,
    RCTL_CFI = 1 << 20,
    RCTL_BSEX = 1 << 25,
    RCTL_SECRC = 1 << 26,
};

enum e1000_tctl { TCTL_EN = 1 << 1, TCTL_PSP = 1 << 3 };
enum e1000_rxcsum { RXCSUM_START = 0xFF, RXCSUM_IP = 1 << 8, RXCSUM_TRANSPORT = 1 << 9 };
enum e1000_ra { RAH_SOURCE = 1 << 16 };
#define RAH_VALID (1u << 31)
#define RDTR_FLUSH (1u << 31)
#define TIDV_FLUSH (1u << 31)

/* Statistics (13.7), by their place behind REG_STATISTICS. */
enum e1000_statistic {
    STAT_MPC = 0x10 / 4,
    STAT_PRC64 = 0x5C / 4,
    STAT_GPRC = 0x74 / 4,
    STAT_BPRC = 0x78 / 4,
    STAT_MPRC = 0x7C / 4,
    STAT_GPTC = 0x80 / 4,
    STAT_GORC = 0x88 / 4,
    STAT_GOTC = 0x90 / 4,
    STAT_RNBC = 0xA0 / 4,
    STAT_ROC = 0xAC / 4,
    STAT_TOR = 0xC0 / 4,
    STAT_TOT = 0xC8 / 4,
    STAT_TPR = 0xD0 / 4,
    STAT_TPT = 0xD4 / 4,
    STAT_PTC64 = 0xD8 / 4,
    STAT_MPTC = 0xF0 / 4,
    STAT_BPTC = 0xF4 / 4,
    STAT_TSCTC = 0xF8 / 4,
    STAT_COUNT = 64,
};

/* ---- descriptors (3.2, 3.3) ---- */

enum e1000_descriptor {
    DESCRIPTOR_BYTES = 16,
    /* Transmit: of the doubleword at 8. */
    TX_EOP = 1 << 24,
    TX_TSE = 1 << 26,
    TX_LEGACY_CHECKSUM = 1 << 26,
    TX_RS = 1 << 27,
    TX_EXTENDED = 1 << 29,
    TX_VLAN = 1 << 30,
    TX_DATA = 1 << 20, /* DTYP */
    TX_CONTEXT_TCP = 1 << 24,
    TX_CONTEXT_IPV4 = 1 << 25,
    TX_STATUS = 12,
    TX_DD = 1 << 0,
    TX_POPTS_IP = 1 << 0,
    TX_POPTS_TRANSPORT = 1 << 1,
    /* Receive: bytes 12 and 13. */
    RX_DD = 1 << 0,
    RX_EOP = 1 << 1,
    RX_IXSM = 1 << 2,
    RX_VP = 1 << 3,
    RX_TCPCS = 1 << 5,
    RX_IPCS = 1 << 6,
    RX_PIF = 1 << 7,
    RX_ERROR_TCPE = 1 << 5,
    RX_ERROR_IPE = 1 << 6,
};
#define TX_DELAY (1u << 31)

enum e1000_sizes {
    EEPROM_WORDS = 64,
    PHY_REGISTERS = 32,
    CRC_BYTES = 4,
    FRAME_MIN = 60,              /* what is shorter is padded */
    FRAME_STANDARD = 1518,       /* of them, with a VLAN tag, without CRC */
    FRAME_LONG = 16384 - CRC_BYTES,
    INTERRUPT_TICK_NS = 256,     /* of ITR */
    DELAY_TICK_NS = 1024,        /* of TIDV, TADV, RDTR, RADV */
};

/* The offload context (3.3.6). */
struct e1000_context {
    uint8_t ip_start, ip_offset, transport_start, transport_offset, header_bytes, command;
    uint16_t ip_end, transport_end, mss;
    uint32_t payload_bytes;
};

struct e1000_delay {
    struct timer timer;
    uint64_t absolute_ns; /* TIME_NEVER: nothing waits */
};

struct e1000 {
    struct vm *vm;
    struct net *net;
    struct pci_function pci;
    struct ram_block *rom;
    uint8_t mac[NET_MAC_BYTES];
    unsigned dma_depth; /* the adapter does not answer to itself */
    bool is_starved;    /* frames wait for receive descriptors */

    uint32_t reg[REG_KEPT_END / 4];
    uint32_t statistics[STAT_COUNT];
    uint32_t io_address; /* IOADDR */
    uint32_t icr, ims;
    bool asserted;
    uint64_t next_interrupt_ns; /* ITR: not before */
    struct timer interrupt_timer;
    struct timer link_timer;
    struct e1000_delay rx_delay, tx_delay;

    /* EEPROM, and the state of its serial interface. */
    uint16_t eeprom[EEPROM_WORDS];
    uint32_t eeprom_in;   /* bits shifted in, first one highest */
    uint8_t eeprom_count; /* of them, from the start bit on */
    uint16_t eeprom_out;
    uint8_t eeprom_out_count; /* bits left to shift out, the leading zero included */
    bool eeprom_writable;
    uint16_t phy[PHY_REGISTERS];
    bool link_up;

    /* The packet that is being collected. */
    struct e1000_context context;
    struct {
        uint32_t bytes;
        bool started, too_long;
        bool is_legacy, segmented;
        uint8_t popts;
        bool vlan;
        uint16_t vlan_tag;
        uint8_t data[NET_FRAME_MAX];
    } tx;
    uint8_t scratch[NET_FRAME_MAX]; /* of segments that loop back; no state */
};

/* ---- e1000.c ---- */

void e1000_raise(struct e1000 *e, uint32_t causes);
/* Enables, causes or throttling have changed. */
void e1000_update_interrupt(struct e1000 *e);
/* TXDW or RXT0, now or when its delay has passed. */
void e1000_delay(struct e1000 *e, struct e1000_delay *d, uint32_t delay, uint32_t absolute,
                 uint32_t cause);
void e1000_delay_flush(struct e1000 *e, struct e1000_delay *d, uint32_t cause);
/* The PHY negotiates anew: the link goes, and comes back. */
void e1000_negotiate(struct e1000 *e);
/* CTRL.RST: everything but what the PCI function and the PHY hold. */
void e1000_soft_reset(struct e1000 *e);
int e1000_dma_read(struct e1000 *e, uint64_t address, void *buf, uint64_t bytes);
int e1000_dma_write(struct e1000 *e, uint64_t address, const void *buf, uint64_t bytes);
/* Adds to a statistic, which stays at its end; of a 64-bit one the low half. */
void e1000_count(struct e1000 *e, unsigned statistic, uint64_t by);
void e1000_count_bytes(struct e1000 *e, unsigned statistic, uint64_t by);
/* Which of PRC64...: by length with CRC. */
unsigned e1000_size_class(uint32_t bytes);

static inline uint32_t e1000_ring_count(const struct e1000 *e, unsigned length_register)
{
    return e->reg[length_register / 4] / DESCRIPTOR_BYTES;
}

/* ---- e1000_registers.c ---- */

extern const struct region_ops e1000_memory_ops, e1000_port_ops;
/* Bits that are kept of what is written to the register at `offset` (below
 * REG_KEPT_END, a multiple of 4). */
uint32_t e1000_register_mask(unsigned offset);

/* ---- e1000_nvm.c ---- */

void e1000_eeprom_fill(struct e1000 *e);
void e1000_eeprom_write_control(struct e1000 *e, uint32_t value);
uint32_t e1000_eeprom_read_control(const struct e1000 *e);
void e1000_eeprom_read_word(struct e1000 *e, uint32_t value);
void e1000_phy_reset(struct e1000 *e);
void e1000_phy_access(struct e1000 *e, uint32_t value);
bool e1000_phy_loops(const struct e1000 *e);

/* ---- e1000_transmit.c ---- */

bool e1000_take(void *ctx, struct net_frame *f);
void e1000_transmit_reset(struct e1000 *e);

/* ---- e1000_receive.c ---- */

bool e1000_give(void *ctx, const struct net_frame *f);

#endif
