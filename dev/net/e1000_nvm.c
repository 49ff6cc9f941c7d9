/*
 * The 82540EM's EEPROM (5.3, 5.6: a 93C46 of 64 words behind EECD, or by EERD)
 * and its PHY (chapter 11, a Marvell 88E1011 behind MDIC).
 *
 * Writes to the EEPROM last as long as the machine.
 */
#include "dev/net/e1000_internal.h"

/* ---- what is in the EEPROM (5.6) ---- */

enum eeprom_word {
    WORD_MAC = 0x00,
    WORD_PBA = 0x08,
    WORD_CONTROL1 = 0x0A,
    WORD_SUBSYSTEM = 0x0B,
    WORD_SUBSYSTEM_VENDOR = 0x0C,
    WORD_DEVICE = 0x0D,
    WORD_VENDOR = 0x0E,
    WORD_CONTROL2 = 0x0F,
    WORD_LED = 0x2F,
    WORD_CHECKSUM = 0x3F,
    CONTROL1_SIGNATURE = 1 << 14,
    CONTROL1_PM = 1 << 3,
    CONTROL1_LOADS_IDS = 3,
    CONTROL2_PAUSE = 3 << 12,
    LED_DEFAULT = 0x0706,
};
#define EEPROM_SUM 0xBABA

void e1000_eeprom_fill(struct e1000 *e)
{
    uint16_t sum = 0;

    for (unsigned n = 0; n < EEPROM_WORDS; n++)
        e->eeprom[n] = 0xFFFF;
    for (unsigned n = 0; n < 3; n++)
        e->eeprom[WORD_MAC + n] = le16_get(e->mac + n * 2);
    for (unsigned n = 3; n < 8; n++)
        e->eeprom[n] = 0;
    e->eeprom[WORD_PBA] = 0x5649; /* any number will do: the board's */
    e->eeprom[WORD_PBA + 1] = 0x5200;
    e->eeprom[WORD_CONTROL1] = CONTROL1_SIGNATURE | CONTROL1_PM | CONTROL1_LOADS_IDS;
    e->eeprom[WORD_SUBSYSTEM] = 0x001E;
    e->eeprom[WORD_SUBSYSTEM_VENDOR] = 0x8086;
    e->eeprom[WORD_DEVICE] = 0x100E;
    e->eeprom[WORD_VENDOR] = 0x8086;
    e->eeprom[WORD_CONTROL2] = CONTROL2_PAUSE;
    e->eeprom[WORD_LED] = LED_DEFAULT;
    for (unsigned n = 0; n < WORD_CHECKSUM; n++)
        sum = (uint16_t)(sum + e->eeprom[n]);
    e->eeprom[WORD_CHECKSUM] = (uint16_t)(EEPROM_SUM - sum);
}

/* ---- its serial interface (93C46: start bit, two bits, six of address) ---- */

enum microwire {
    COMMAND_BITS = 9,
    WRITE_BITS = COMMAND_BITS + 16,
    OP_EXTENDED = 0,
    OP_WRITE = 1,
    OP_READ = 2,
    OP_ERASE = 3,
    EXTENDED_DISABLE = 0, /* the two highest bits of the address */
    EXTENDED_WRITE_ALL = 1,
    EXTENDED_ERASE_ALL = 2,
    EXTENDED_ENABLE = 3,
};

static void write_words(struct e1000 *e, unsigned first, unsigned count, uint16_t value)
{
    for (unsigned n = first; n < first + count && e->eeprom_writable; n++)
        e->eeprom[n] = value;
}

static void extended_command(struct e1000 *e, unsigned address)
{
    switch (address >> 4) {
    case EXTENDED_ENABLE:
        e->eeprom_writable = true;
        break;
    case EXTENDED_DISABLE:
        e->eeprom_writable = false;
        break;
    case EXTENDED_ERASE_ALL:
        write_words(e, 0, EEPROM_WORDS, 0xFFFF);
        break;
    case EXTENDED_WRITE_ALL: /* its data is still to come */
        break;
    }
}

static void shift_in(struct e1000 *e, bool bit)
{
    unsigned op, address;

    if (!e->eeprom_count && !bit)
        return; /* zeros before the start bit */
    if (e->eeprom_count >= WRITE_BITS)
        return;
    e->eeprom_in = e->eeprom_in << 1 | bit;
    e->eeprom_count++;
    if (e->eeprom_count == COMMAND_BITS) {
        op = e->eeprom_in >> 6 & 3;
        address = e->eeprom_in & 63;
        if (op == OP_READ) {
            e->eeprom_out = e->eeprom[address];
            e->eeprom_out_count = 17; /* a zero comes first */
        } else if (op == OP_ERASE) {
            write_words(e, address, 1, 0xFFFF);
        } else if (op == OP_EXTENDED) {
            extended_command(e, address);
        }
    } else if (e->eeprom_count == WRITE_BITS) {
        op = e->eeprom_in >> 22 & 3;
        address = e->eeprom_in >> 16 & 63;
        if (op == OP_WRITE)
            write_words(e, address, 1, (uint16_t)e->eeprom_in);
        else if (op == OP_EXTENDED && address >> 4 == EXTENDED_WRITE_ALL)
            write_words(e, 0, EEPROM_WORDS, (uint16_t)e->eeprom_in);
    }
}

void e1000_eeprom_write_control(struct e1000 *e, uint32_t value)
{
    uint32_t old = e->reg[REG_EECD / 4];

    e->reg[REG_EECD / 4] = value & (EECD_SK | EECD_CS | EECD_DI | EECD_REQ);
    if (!(value & EECD_CS)) {
        e->eeprom_in = e->eeprom_count = 0;
        e->eeprom_out_count = 0;
        return;
    }
    if (!(value & EECD_SK) || old & EECD_SK)
        return;
    /* Bits move when the clock rises. */
    if (e->eeprom_out_count > 1) {
        e->eeprom_out_count--;
    } else if (e->eeprom_out_count == 1) {
        /* The next word follows the last bit of this one. */
        e->eeprom_in = (e->eeprom_in & ~63u) | ((e->eeprom_in + 1) & 63);
        e->eeprom_out = e->eeprom[e->eeprom_in & 63];
        e->eeprom_out_count = 16;
    } else {
        shift_in(e, value & EECD_DI);
    }
}

uint32_t e1000_eeprom_read_control(const struct e1000 *e)
{
    uint32_t value = e->reg[REG_EECD / 4] | EECD_PRES;
    bool out = true; /* ready, when nothing is read */

    if (e->eeprom_out_count == 17)
        out = false;
    else if (e->eeprom_out_count)
        out = e->eeprom_out >> (e->eeprom_out_count - 1) & 1;
    if (out)
        value |= EECD_DO;
    if (value & EECD_REQ)
        value |= EECD_GNT;
    return value;
}

void e1000_eeprom_read_word(struct e1000 *e, uint32_t value)
{
    unsigned address = value >> 8 & 0xFF;

    if (value & EERD_START)
        value = (uint32_t)(address < EEPROM_WORDS ? e->eeprom[address] : 0xFFFF) << 16 |
                address << 8 | EERD_DONE;
    e->reg[REG_EERD / 4] = value;
}

/* ---- PHY (IEEE 802.3, clause 22; 88E1011) ---- */

enum phy_register {
    PHY_CONTROL = 0,
    PHY_STATUS = 1,
    PHY_ID1 = 2,
    PHY_ID2 = 3,
    PHY_ADVERTISE = 4,
    PHY_PARTNER = 5,
    PHY_EXPANSION = 6,
    PHY_NEXT_PAGE = 7,
    PHY_GIGABIT_CONTROL = 9,
    PHY_GIGABIT_STATUS = 10,
    PHY_EXTENDED_STATUS = 15,
    PHY_SPECIFIC_CONTROL = 16,
    PHY_SPECIFIC_STATUS = 17,
    PHY_INTERRUPT_ENABLE = 18,
    PHY_INTERRUPT_STATUS = 19,
    PHY_EXTENDED_CONTROL = 20,
    PHY_RECEIVE_ERRORS = 21,
    PHY_PAGE = 29,
    PHY_PAGE_DATA = 30,
    THE_PHY = 1, /* its address */
};

enum phy_bits {
    CONTROL_RESET = 1 << 15,
    CONTROL_LOOPBACK = 1 << 14,
    CONTROL_RESTART = 1 << 9,
    PHY_STATUS_NEGOTIATED = 1 << 5,
    PHY_STATUS_LINK = 1 << 2,
    SPECIFIC_LINK = 1 << 10,
    INTERRUPT_LINK = 1 << 10,
};

static const struct {
    uint16_t value, writable;
} phy_table[PHY_REGISTERS] = {
    [PHY_CONTROL] = {0x1140, 0x7DC0}, /* negotiates; full duplex; 1000 Mb/s */
    [PHY_STATUS] = {0x7949, 0},
    [PHY_ID1] = {0x0141, 0},
    [PHY_ID2] = {0x0C20, 0},
    [PHY_ADVERTISE] = {0x0DE1, 0xBFFF},
    [PHY_PARTNER] = {0xCDE1, 0}, /* what is on the other end can do all this */
    [PHY_EXPANSION] = {0x000D, 0},
    [PHY_NEXT_PAGE] = {0x2001, 0xBFFF},
    [PHY_GIGABIT_CONTROL] = {0x0E00, 0xFF00},
    [PHY_GIGABIT_STATUS] = {0x3C00, 0},
    [PHY_EXTENDED_STATUS] = {0x3000, 0},
    [PHY_SPECIFIC_CONTROL] = {0x0068, 0xFFFF},
    [PHY_SPECIFIC_STATUS] = {0xA848, 0}, /* 1000 Mb/s, full duplex, resolved */
    [PHY_INTERRUPT_ENABLE] = {0, 0xFFFF},
    [PHY_EXTENDED_CONTROL] = {0x0D60, 0xFFFF},
    [PHY_PAGE] = {0, 0x00FF},
    [PHY_PAGE_DATA] = {0, 0xFFFF},
};

void e1000_phy_reset(struct e1000 *e)
{
    for (unsigned n = 0; n < PHY_REGISTERS; n++)
        e->phy[n] = phy_table[n].value;
}

bool e1000_phy_loops(const struct e1000 *e)
{
    return e->phy[PHY_CONTROL] & CONTROL_LOOPBACK;
}

static uint16_t phy_read(struct e1000 *e, unsigned n)
{
    uint16_t value = e->phy[n];

    switch (n) {
    case PHY_STATUS:
        return e->link_up ? value | PHY_STATUS_LINK | PHY_STATUS_NEGOTIATED : value;
    case PHY_SPECIFIC_STATUS:
        return e->link_up ? value | SPECIFIC_LINK : value;
    case PHY_PARTNER:
    case PHY_GIGABIT_STATUS:
        return e->link_up ? value : 0;
    case PHY_INTERRUPT_STATUS:
        e->phy[n] = 0; /* by reading */
        return value;
    default:
        return value;
    }
}

static void phy_write(struct e1000 *e, unsigned n, uint16_t value)
{
    e->phy[n] = (uint16_t)((e->phy[n] & ~phy_table[n].writable) | (value & phy_table[n].writable));
    if (n != PHY_CONTROL)
        return;
    if (value & CONTROL_RESET) {
        uint16_t kept = e->phy[PHY_CONTROL];

        /* Software reset: the modes stay, and take effect now. */
        e1000_phy_reset(e);
        e->phy[PHY_CONTROL] = (uint16_t)(kept & ~CONTROL_LOOPBACK);
    }
    if (value & (CONTROL_RESET | CONTROL_RESTART))
        e1000_negotiate(e);
}

void e1000_phy_access(struct e1000 *e, uint32_t value)
{
    unsigned n = value >> MDIC_REGISTER_SHIFT & 31, phy = value >> MDIC_PHY_SHIFT & 31;

    value &= ~(uint32_t)(MDIC_READY | MDIC_ERROR);
    if (phy != THE_PHY)
        value |= MDIC_ERROR;
    else if ((value & MDIC_OPERATION) == MDIC_READ)
        value = (value & ~0xFFFFu) | phy_read(e, n);
    else if ((value & MDIC_OPERATION) == MDIC_WRITE)
        phy_write(e, n, (uint16_t)value);
    e->reg[REG_MDIC / 4] = value | MDIC_READY;
    if (value & MDIC_INTERRUPT)
        e1000_raise(e, INT_MDAC);
}
