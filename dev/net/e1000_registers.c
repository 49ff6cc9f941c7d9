/*
 * The 82540EM's registers (chapter 13), through memory and through the pair of
 * ports IOADDR and IODATA (4.1.4).
 *
 * Accesses are of 32 bits. Most registers only hold what is written; a table
 * says which bits. The addresses of the 82542, which this adapter answers too
 * (13.1, "alternate offset"), become the new ones first.
 */
#include "dev/net/e1000_internal.h"

static const struct {
    uint16_t first, last;
    uint32_t mask;
} kept[] = {
    {REG_CTRL, REG_CTRL, 0x7FFFFFFF & ~CTRL_RST},
    {REG_CTRL_EXT, REG_CTRL_EXT, 0x00CFFFFF},
    {REG_FCAL, REG_FCAL, 0xFFFFFFFF},
    {REG_FCAH, REG_FCT, 0xFFFF},
    {REG_VET, REG_VET, 0xFFFF},
    {REG_ITR, REG_ITR, 0xFFFF},
    {REG_RCTL, REG_RCTL, 0x06DFB3FE},
    {REG_FCTTV, REG_FCTTV, 0xFFFF},
    {REG_TXCW, REG_TXCW, 0xC000FFFF},
    {REG_TCTL, REG_TCTL, 0x03FFFFFA},
    {REG_TIPG, REG_TIPG, 0x3FFFFFFF},
    {REG_AIT, REG_AIT, 0xFFFF},
    {REG_LEDCTL, REG_LEDCTL, 0xDFDFDFDF},
    {REG_FCRTL, REG_FCRTL, 0x8000FFF8},
    {REG_FCRTH, REG_FCRTH, 0x0000FFF8},
    {REG_RDFH, REG_RDFH, 0x1FFF},
    {REG_RDFT, REG_RDFT, 0x1FFF},
    {REG_RDFHS, REG_RDFHS, 0x1FFF},
    {REG_RDFTS, REG_RDFTS, 0x1FFF},
    {REG_RDFPC, REG_RDFPC, 0x1FFF},
    {REG_RDBAL, REG_RDBAL, 0xFFFFFFF0},
    {REG_RDBAH, REG_RDBAH, 0xFFFFFFFF},
    {REG_RDLEN, REG_RDLEN, 0x000FFF80},
    {REG_RDH, REG_RDH, 0xFFFF},
    {REG_RDT, REG_RDT, 0xFFFF},
    {REG_RDTR, REG_RDTR, 0xFFFF},
    {REG_RXDCTL, REG_RXDCTL, 0x013F3F3F},
    {REG_RADV, REG_RADV, 0xFFFF},
    {REG_RSRPD, REG_RSRPD, 0x0FFF},
    {REG_TXDMAC, REG_TXDMAC, 1},
    {REG_TDFH, REG_TDFH, 0x1FFF},
    {REG_TDFT, REG_TDFT, 0x1FFF},
    {REG_TDFHS, REG_TDFHS, 0x1FFF},
    {REG_TDFTS, REG_TDFTS, 0x1FFF},
    {REG_TDFPC, REG_TDFPC, 0x1FFF},
    {REG_TDBAL, REG_TDBAL, 0xFFFFFFF0},
    {REG_TDBAH, REG_TDBAH, 0xFFFFFFFF},
    {REG_TDLEN, REG_TDLEN, 0x000FFF80},
    {REG_TDH, REG_TDH, 0xFFFF},
    {REG_TDT, REG_TDT, 0xFFFF},
    {REG_TIDV, REG_TIDV, 0xFFFF},
    {REG_TXDCTL, REG_TXDCTL, 0xFF3F3F3F},
    {REG_TADV, REG_TADV, 0xFFFF},
    {REG_TSPMT, REG_TSPMT, 0xFFFFFFFF},
    {REG_RXCSUM, REG_RXCSUM, 0x3FF},
    {REG_MTA, REG_MTA + 127 * 4, 0xFFFFFFFF},
    {REG_VFTA, REG_VFTA + 127 * 4, 0xFFFFFFFF},
    {REG_WUC, REG_WUC, 0x5},
    {REG_WUFC, REG_WUFC, 0x000F00FF},
    {REG_IPAV, REG_IPAV, 0x1000F},
    {REG_IP4AT, REG_IP4AT + 7 * 4, 0xFFFFFFFF},
    {REG_IP6AT, REG_IP6AT + 3 * 4, 0xFFFFFFFF},
    {REG_WUPL, REG_WUPL, 0xFFF},
    {REG_FFLT, REG_FFLT + 7 * 4, 0x7FF},
};

uint32_t e1000_register_mask(unsigned offset)
{
    /* Receive addresses: 32 bits, then 16, the select and the valid bit. */
    if (offset >= REG_RA && offset < REG_RA + 16 * 8)
        return offset & 4 ? 0x8003FFFF : 0xFFFFFFFF;
    for (size_t n = 0; n < ARRAY_SIZE(kept); n++)
        if (offset >= kept[n].first && offset <= kept[n].last)
            return kept[n].mask;
    return 0;
}

/* ---- the 82542's places ---- */

static unsigned current_place(unsigned offset)
{
    static const struct {
        uint16_t first, last, to;
    } moved[] = {
        {0x040, 0x0BC, REG_RA},    {0x108, 0x108, REG_RDTR},  {0x110, 0x118, REG_RDBAL},
        {0x120, 0x120, REG_RDH},   {0x128, 0x128, REG_RDT},   {0x160, 0x160, REG_FCRTH},
        {0x168, 0x168, REG_FCRTL}, {0x200, 0x3FC, REG_MTA},   {0x420, 0x428, REG_TDBAL},
        {0x430, 0x430, REG_TDH},   {0x438, 0x438, REG_TDT},   {0x440, 0x440, REG_TIDV},
        {0x600, 0x7FC, REG_VFTA},
    };

    if (offset >= 0x800)
        return offset;
    for (size_t n = 0; n < ARRAY_SIZE(moved); n++)
        if (offset >= moved[n].first && offset <= moved[n].last)
            return moved[n].to + (offset - moved[n].first);
    return offset;
}

/* ---- reading ---- */

static bool is_long_statistic(unsigned n)
{
    n &= ~1u;
    return n == STAT_GORC || n == STAT_GOTC || n == STAT_TOR || n == STAT_TOT;
}

/* They begin anew when they have been read; those of 64 bits with the high half. */
static uint32_t read_statistic(struct e1000 *e, unsigned n)
{
    uint32_t value = e->statistics[n];

    if (!is_long_statistic(n))
        e->statistics[n] = 0;
    else if (n & 1)
        e->statistics[n] = e->statistics[n - 1] = 0;
    return value;
}

static uint32_t read_icr(struct e1000 *e)
{
    uint32_t value = e->icr;

    e->icr = 0;
    e1000_update_interrupt(e);
    return value;
}

static uint32_t read_status(const struct e1000 *e)
{
    return STATUS_FD | STATUS_SPEED_1000 | STATUS_ASDV_1000 | (e->link_up ? STATUS_LU : 0);
}

static uint32_t register_read(struct e1000 *e, unsigned offset)
{
    offset = current_place(offset);
    switch (offset) {
    case REG_CTRL_SHADOW:
        return e->reg[REG_CTRL / 4];
    case REG_STATUS:
        return read_status(e);
    case REG_EECD:
        return e1000_eeprom_read_control(e);
    case REG_ICR:
        return read_icr(e);
    case REG_IMS:
        return e->ims;
    case REG_PBA:
        return e->reg[REG_PBA / 4] | (64 - e->reg[REG_PBA / 4]) << 16;
    default:
        if (offset >= REG_STATISTICS && offset < REG_STATISTICS_END)
            return read_statistic(e, (offset - REG_STATISTICS) / 4);
        return offset < REG_KEPT_END ? e->reg[offset / 4] : 0;
    }
}

/* ---- writing ---- */

static void write_ctrl(struct e1000 *e, uint32_t value)
{
    if (value & CTRL_RST) {
        e1000_soft_reset(e);
        return;
    }
    e->reg[REG_CTRL / 4] = value & e1000_register_mask(REG_CTRL);
    if (value & CTRL_PHY_RST) {
        e1000_phy_reset(e);
        e1000_negotiate(e);
    }
}

static void register_write(struct e1000 *e, unsigned offset, uint32_t value)
{
    offset = current_place(offset);
    if (offset < REG_KEPT_END && offset != REG_CTRL) {
        uint32_t mask = e1000_register_mask(offset);

        if (mask)
            e->reg[offset / 4] = value & mask;
    }
    switch (offset) {
    case REG_CTRL:
    case REG_CTRL_SHADOW:
        write_ctrl(e, value);
        break;
    case REG_EECD:
        e1000_eeprom_write_control(e, value);
        break;
    case REG_EERD:
        e1000_eeprom_read_word(e, value);
        break;
    case REG_MDIC:
        e1000_phy_access(e, value);
        break;
    case REG_ICR:
        e->icr &= ~value;
        e1000_update_interrupt(e);
        break;
    case REG_ITR:
        e1000_update_interrupt(e);
        break;
    case REG_ICS:
        e1000_raise(e, value & INT_ALL);
        break;
    case REG_IMS:
        e->ims |= value & INT_ALL;
        e1000_update_interrupt(e);
        break;
    case REG_IMC:
        e->ims &= ~value;
        e1000_update_interrupt(e);
        break;
    case REG_PBA:
        e->reg[REG_PBA / 4] = MIN(value & 0x7F, 64u);
        break;
    case REG_RCTL:
    case REG_RDH:
    case REG_RDT:
    case REG_RDLEN:
        if (e->is_starved)
            net_kick(e->net);
        break;
    case REG_TCTL:
    case REG_TDT:
    case REG_TDH:
    case REG_TDLEN:
        if (e->reg[REG_TCTL / 4] & TCTL_EN && e->reg[REG_TDT / 4] != e->reg[REG_TDH / 4])
            net_kick(e->net);
        break;
    case REG_RDTR:
        if (value & RDTR_FLUSH)
            e1000_delay_flush(e, &e->rx_delay, INT_RXT0);
        break;
    case REG_TIDV:
        if (value & TIDV_FLUSH)
            e1000_delay_flush(e, &e->tx_delay, INT_TXDW);
        break;
    default:
        break;
    }
}

/* ---- the two ways in ---- */

static uint64_t memory_read(void *ctx, uint64_t offset, unsigned size)
{
    struct e1000 *e = ctx;

    return e->dma_depth ? UINT32_MAX : register_read(e, (unsigned)offset);
}

static void memory_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct e1000 *e = ctx;

    if (!e->dma_depth)
        register_write(e, (unsigned)offset, (uint32_t)value);
}

enum e1000_port { PORT_ADDRESS = 0, PORT_DATA = 4 };

static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    struct e1000 *e = ctx;

    if (offset == PORT_ADDRESS)
        return e->io_address;
    if (offset != PORT_DATA || e->io_address >= REG_BYTES)
        return 0;
    return memory_read(ctx, e->io_address & ~3u, size);
}

static void port_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct e1000 *e = ctx;

    if (offset == PORT_ADDRESS)
        e->io_address = (uint32_t)value;
    else if (offset == PORT_DATA && e->io_address < REG_BYTES)
        memory_write(ctx, e->io_address & ~3u, value, size);
}

const struct region_ops e1000_memory_ops = {memory_read, memory_write, 4, 4};
const struct region_ops e1000_port_ops = {port_read, port_write, 4, 4};
