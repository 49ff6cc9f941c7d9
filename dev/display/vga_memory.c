/*
 * A0000H-BFFFFH: how a processor reaches the planes (IBM PS/2 Hardware
 * Interface Technical Reference, "Video Subsystem": "Graphics Controller").
 * See vga_internal.h for where bytes lie.
 *
 * Three regions, of which one answers: `linear` maps 64 KiB of video memory
 * (DISPI's packed modes, and chain 4 while writes do nothing but store),
 * `text_window` maps the text block (odd/even, likewise), and below both
 * `window` takes each access through latches, write modes and read modes.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/display/vga_internal.h"

#define TEXT_CELLS (VGA_TEXT_BYTES / 2)

enum plane_bits { PLANES_EVEN = 0x5, PLANES_ODD = 0xA, PLANES_ALL = 0xF };

/* ---- which of them ---- */

static bool is_decoded(const struct vga *v)
{
    return (pci_command_of(&v->pci) & PCI_COMMAND_MEMORY) && (v->misc & MISC_RAM) && v->enable;
}

static enum vga_map map_of(const struct vga *v)
{
    return v->graphics[GR_MISC] >> MISC_MAP_SHIFT & 3;
}

/* A write stores its byte and a read returns it, without a latch. */
static bool is_plain(const struct vga *v)
{
    return !(v->graphics[GR_MODE] & (MODE_WRITE | MODE_READ_COMPARE)) &&
           !v->graphics[GR_ENABLE_SET_RESET] && !v->graphics[GR_ROTATE] &&
           v->graphics[GR_BIT_MASK] == 0xFF;
}

static bool is_chain4(const struct vga *v)
{
    return v->sequencer[SR_MEMORY] & MEMORY_CHAIN4;
}

static bool is_odd_even(const struct vga *v)
{
    return v->graphics[GR_MODE] & MODE_ODD_EVEN;
}

static bool wants_linear(const struct vga *v)
{
    if (!is_decoded(v) || map_of(v) > MAP_A0000_64K)
        return false;
    return vga_dispi_is_packed(v) ||
           (is_chain4(v) && is_plain(v) && v->sequencer[SR_MAP_MASK] == PLANES_ALL);
}

static bool wants_text(const struct vga *v)
{
    return is_decoded(v) && !vga_dispi_is_packed(v) && map_of(v) >= MAP_B0000_32K &&
           is_odd_even(v) && !(v->sequencer[SR_MEMORY] & (MEMORY_NO_ODD_EVEN | MEMORY_CHAIN4)) &&
           v->sequencer[SR_MAP_MASK] == 3 && !(v->graphics[GR_READ_MAP] & 2) && is_plain(v) &&
           !v->dispi[DISPI_BANK];
}

/* ---- the text block ---- */

static void text_load(struct vga *v)
{
    const uint8_t *from = v->vram->host;
    uint8_t *to = v->text->host;

    for (unsigned i = 0; i < TEXT_CELLS; i++) {
        to[2 * i] = from[4 * i];
        to[2 * i + 1] = from[4 * i + 1];
    }
    ram_block_written(v->text, 0, VGA_TEXT_BYTES);
}

void vga_text_flush(struct vga *v)
{
    const uint8_t *from = v->text->host;
    uint8_t *to = v->vram->host;

    if (!v->text_live)
        return;
    for (unsigned i = 0; i < TEXT_CELLS; i++) {
        uint16_t cell = le16_get(from + 2 * i);

        /* What stays as it is needs not be drawn again. */
        if (le16_get(to + 4 * i) != cell) {
            le16_put(to + 4 * i, cell);
            ram_block_written(v->vram, 4 * i, 2);
        }
    }
}

static void regions_update(struct vga *v)
{
    struct address_space *memory = &v->vm->memory;
    uint64_t bank = (uint64_t)v->dispi[DISPI_BANK] * VGA_BANK_BYTES & v->vram_mask;
    uint64_t text_base = map_of(v) == MAP_B0000_32K ? 0xB0000 : 0xB8000;
    bool linear = wants_linear(v);

    address_space_begin(memory);
    if (v->window.enabled != is_decoded(v))
        region_enable(&v->window, !v->window.enabled);
    if (linear && v->linear.ram_offset != bank)
        region_retarget(&v->linear, v->vram, bank, false);
    if (v->linear.enabled != linear)
        region_enable(&v->linear, linear);
    if (v->text_live && v->text_window.base != text_base)
        region_move(&v->text_window, text_base);
    if (v->text_window.enabled != v->text_live)
        region_enable(&v->text_window, v->text_live);
    address_space_commit(memory);
}

void vga_window_update(struct vga *v)
{
    bool text = wants_text(v);

    if (text && !v->text_live)
        text_load(v);
    else if (!text)
        vga_text_flush(v);
    v->text_live = text;
    regions_update(v);
}

void vga_window_restored(struct vga *v)
{
    /* A file may say anything; the text block is copied where it is in use
     * only, so a lie costs no more than the wrong characters. */
    v->text_live = wants_text(v);
    regions_update(v);
}

/* ---- an access ---- */

/* Offset in the window as GR6 selects it; false: that address is nobody's. */
static bool select_offset(const struct vga *v, uint64_t offset, uint32_t *address)
{
    switch (map_of(v)) {
    case MAP_A0000_128K:
        *address = (uint32_t)offset;
        break;
    case MAP_A0000_64K:
        *address = (uint32_t)offset;
        if (offset >= 0x10000)
            return false;
        break;
    case MAP_B0000_32K:
        *address = (uint32_t)offset - 0x10000;
        if (offset < 0x10000 || offset >= 0x18000)
            return false;
        break;
    case MAP_B8000_32K:
        *address = (uint32_t)offset - 0x18000;
        if (offset < 0x18000)
            return false;
        break;
    }
    /* Banks are DISPI's; with a VGA mode there is bank 0. */
    *address += v->dispi[DISPI_BANK] * VGA_BANK_BYTES;
    return true;
}

/* The word that holds the four planes of a plane offset. */
static uint8_t *planes_at(const struct vga *v, uint32_t plane_offset)
{
    return v->vram->host + (plane_offset * 4 & v->vram_mask);
}

/* Each bit of four as a byte. */
static uint32_t expand(unsigned bits)
{
    return ((bits & 1) | (bits & 2) << 7 | (bits & 4) << 14 | (bits & 8) << 21) * 0xFFu;
}

static uint32_t repeat(uint8_t byte)
{
    return byte * 0x01010101u;
}

/* Plane offset of an address and the planes that it may touch. */
static uint32_t chain(const struct vga *v, uint32_t address, unsigned *planes)
{
    if (is_chain4(v)) {
        *planes = 1u << (address & 3);
        return address >> 2;
    }
    if (is_odd_even(v)) {
        *planes = address & 1 ? PLANES_ODD : PLANES_EVEN;
        return address >> 1;
    }
    *planes = PLANES_ALL;
    return address;
}

static uint8_t window_read(struct vga *v, uint64_t offset)
{
    uint32_t address, plane_offset, wrong;
    unsigned planes, plane;

    if (!select_offset(v, offset, &address))
        return 0xFF;
    plane_offset = chain(v, address, &planes);
    v->latch = le32_get(planes_at(v, plane_offset));
    if (is_chain4(v))
        return (uint8_t)(v->latch >> 8 * (address & 3));
    if (v->graphics[GR_MODE] & MODE_READ_COMPARE) {
        /* A bit is 1 where all planes that count have the colour's. */
        wrong = (v->latch ^ expand(v->graphics[GR_COLOUR_COMPARE])) &
                expand(v->graphics[GR_COLOUR_IGNORE]);
        wrong |= wrong >> 16;
        return (uint8_t)~(wrong | wrong >> 8);
    }
    plane = v->graphics[GR_READ_MAP];
    if (is_odd_even(v))
        plane = (plane & 2) | (address & 1);
    return (uint8_t)(v->latch >> 8 * plane);
}

/* What the write mode makes of a byte: the bits of all planes, and which of
 * them come from the latch instead. */
static uint32_t write_value(const struct vga *v, uint8_t byte)
{
    unsigned count = v->graphics[GR_ROTATE] & ROTATE_COUNT;
    uint8_t rotated = (uint8_t)(byte >> count | byte << (8 - count));
    uint8_t bit_mask = v->graphics[GR_BIT_MASK];
    uint32_t value, mask, set;

    switch (v->graphics[GR_MODE] & MODE_WRITE) {
    case 0:
        set = expand(v->graphics[GR_ENABLE_SET_RESET]);
        value = (repeat(rotated) & ~set) | (expand(v->graphics[GR_SET_RESET]) & set);
        break;
    case 1:
        return v->latch;
    case 2:
        value = expand(byte & PLANES_ALL);
        break;
    case 3:
    default:
        bit_mask &= rotated;
        value = expand(v->graphics[GR_SET_RESET]);
        break;
    }
    switch (v->graphics[GR_ROTATE] >> ROTATE_FUNCTION_SHIFT) {
    case 0:
        break;
    case 1:
        value &= v->latch;
        break;
    case 2:
        value |= v->latch;
        break;
    case 3:
        value ^= v->latch;
        break;
    }
    mask = repeat(bit_mask);
    return (value & mask) | (v->latch & ~mask);
}

static void window_write(struct vga *v, uint64_t offset, uint8_t byte)
{
    uint32_t address, plane_offset, mask, word;
    unsigned planes;
    uint8_t *at;

    if (!select_offset(v, offset, &address))
        return;
    plane_offset = chain(v, address, &planes);
    planes &= v->sequencer[SR_MAP_MASK];
    if (!planes)
        return;
    at = planes_at(v, plane_offset);
    mask = expand(planes);
    word = le32_get(at);
    le32_put(at, (word & ~mask) | (write_value(v, byte) & mask));
    ram_block_written(v->vram, (uint64_t)(at - v->vram->host), 4);
}

static uint64_t read_bytes(void *ctx, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)window_read(ctx, offset + i) << 8 * i;
    return value;
}

static void write_bytes(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        window_write(ctx, offset + i, (uint8_t)(value >> 8 * i));
}

const struct region_ops vga_window_ops = {read_bytes, write_bytes, 1, 8};
