/*
 * DISPI: Bochs' interface to resolutions and depths that no VGA has (its
 * "VBE display" version B0C5H), at ports 1CEH and 1CFH and in BAR 2. See
 * vga_internal.h.
 *
 * Registers hold what the guest wrote; vga_dispi_mode() makes a mode of them
 * that fits into video memory, whatever they hold.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/display/vga_internal.h"

enum mmio_offset {
    MMIO_EDID = 0x000,
    MMIO_VGA = 0x400, /* ports 3C0H-3DFH */
    MMIO_DISPI = 0x500,
    MMIO_EXTENSION = 0x600, /* its size, then the byte order */
    MMIO_EXTENSION_BYTES = 8,
    MMIO_BYTE_ORDER = 0x604,
};

#define LITTLE_ENDIAN_MAGIC 0x1E1E1E1Eu

void vga_dispi_reset(struct vga *v)
{
    v->dispi_index = 0;
    memset(v->dispi, 0, sizeof v->dispi);
    v->dispi[DISPI_ID] = DISPI_ID_LAST;
}

static unsigned bank_count(const struct vga *v)
{
    return (v->vram_mask + 1) / VGA_BANK_BYTES;
}

void vga_dispi_mask(struct vga *v)
{
    if (v->dispi[DISPI_ID] < DISPI_ID_FIRST || v->dispi[DISPI_ID] > DISPI_ID_LAST)
        v->dispi[DISPI_ID] = DISPI_ID_LAST;
    v->dispi[DISPI_BANK] &= (uint16_t)(bank_count(v) - 1);
}

static unsigned bits_of(const struct vga *v)
{
    switch (v->dispi[DISPI_BPP]) {
    case 4:
    case 15:
    case 16:
    case 24:
    case 32:
        return v->dispi[DISPI_BPP];
    default: /* 0 means 8; so does nonsense */
        return 8;
    }
}

bool vga_dispi_is_packed(const struct vga *v)
{
    return (v->dispi[DISPI_ENABLE] & DISPI_ENABLED) && bits_of(v) != 4;
}

/* Bytes of video memory that so many pixels of a line take; with 4 bits a
 * pixel, 8 pixels are a byte in each of 4 planes. */
static uint32_t line_bytes(unsigned pixels, unsigned bits)
{
    return bits == 4 ? pixels / 8 * 4 : pixels * ((bits + 7) / 8);
}

void vga_dispi_mode(const struct vga *v, struct dispi_mode *m)
{
    const uint64_t memory = (uint64_t)v->vram_mask + 1;
    unsigned virtual_width, x = v->dispi[DISPI_X_OFFSET], y = v->dispi[DISPI_Y_OFFSET];

    m->bits = bits_of(v);
    m->width = (unsigned)align_down(MIN(v->dispi[DISPI_XRES], DISPI_MAX_XRES), 8);
    m->width = MAX(m->width, 8u);
    virtual_width = (unsigned)align_down(MIN(v->dispi[DISPI_VIRT_WIDTH], DISPI_MAX_XRES), 8);
    virtual_width = MAX(virtual_width, m->width);
    m->pitch = line_bytes(virtual_width, m->bits);
    m->height = MIN(v->dispi[DISPI_YRES], DISPI_MAX_YRES);
    /* At least 1 MiB of memory, and no line is longer than 64 KiB. */
    m->height = (unsigned)MIN((uint64_t)MAX(m->height, 1u), memory / m->pitch);
    if (m->bits == 4)
        m->start = y * m->pitch + x / 8 * 4;
    else
        m->start = y * m->pitch + x * ((m->bits + 7) / 8);
    /* A window that does not fit is not moved. */
    if ((uint64_t)y * m->pitch + m->start % m->pitch + (uint64_t)m->height * m->pitch > memory ||
        x > virtual_width - m->width)
        m->start = 0;
}

/* ---- registers ---- */

static uint16_t dispi_read(struct vga *v, unsigned index)
{
    bool caps = v->dispi[DISPI_ENABLE] & DISPI_GETCAPS;
    bool enabled = v->dispi[DISPI_ENABLE] & DISPI_ENABLED;
    struct dispi_mode m;

    vga_dispi_mode(v, &m);
    switch (index) {
    case DISPI_XRES:
        return caps ? DISPI_MAX_XRES : enabled ? (uint16_t)m.width : v->dispi[index];
    case DISPI_YRES:
        return caps ? DISPI_MAX_YRES : enabled ? (uint16_t)m.height : v->dispi[index];
    case DISPI_BPP:
        return caps ? DISPI_MAX_BPP : enabled ? (uint16_t)m.bits : v->dispi[index];
    case DISPI_VIRT_WIDTH:
        if (!enabled)
            return v->dispi[index];
        return (uint16_t)(m.bits == 4 ? m.pitch / 4 * 8 : m.pitch / ((m.bits + 7) / 8));
    case DISPI_VIRT_HEIGHT: /* as many lines as memory holds */
        return enabled ? (uint16_t)MIN((v->vram_mask + 1ull) / m.pitch, 0xFFFFu) : v->dispi[index];
    case DISPI_MEMORY_64K:
        return (uint16_t)bank_count(v);
    default:
        return index < DISPI_COUNT ? v->dispi[index] : 0;
    }
}

static void clear_screen(struct vga *v)
{
    struct dispi_mode m;
    uint64_t bytes;

    vga_dispi_mode(v, &m);
    bytes = MIN((uint64_t)m.pitch * m.height, v->vram_mask + 1ull);
    memset(v->vram->host, 0, bytes);
    ram_block_written(v->vram, 0, bytes);
}

static void enable_write(struct vga *v, uint16_t value)
{
    uint16_t before = v->dispi[DISPI_ENABLE];

    v->dispi[DISPI_ENABLE] =
        value & (DISPI_ENABLED | DISPI_GETCAPS | DISPI_8BIT_DAC | DISPI_LINEAR | DISPI_NO_CLEAR);
    if ((value & DISPI_ENABLED) && !(before & DISPI_ENABLED)) {
        v->dispi[DISPI_VIRT_WIDTH] = v->dispi[DISPI_VIRT_HEIGHT] = 0;
        v->dispi[DISPI_X_OFFSET] = v->dispi[DISPI_Y_OFFSET] = 0;
        v->dispi[DISPI_BANK] = 0;
        /* Before the clearing: what is in the text window is gone too. */
        vga_window_update(v);
        if (!(value & DISPI_NO_CLEAR))
            clear_screen(v);
    } else if (!(value & DISPI_ENABLED)) {
        v->dispi[DISPI_BANK] = 0;
        vga_window_update(v);
    }
}

static void dispi_write(struct vga *v, unsigned index, uint16_t value)
{
    switch (index) {
    case DISPI_ID:
        if (value >= DISPI_ID_FIRST && value <= DISPI_ID_LAST)
            v->dispi[index] = value;
        break;
    case DISPI_XRES:
    case DISPI_YRES:
    case DISPI_VIRT_WIDTH:
    case DISPI_X_OFFSET:
    case DISPI_Y_OFFSET:
        v->dispi[index] = value;
        break;
    case DISPI_BPP:
        v->dispi[index] = value;
        vga_window_update(v);
        break;
    case DISPI_BANK:
        v->dispi[index] = value & (bank_count(v) - 1);
        vga_window_update(v);
        break;
    case DISPI_ENABLE:
        enable_write(v, value);
        break;
    default: /* the rest cannot be written */
        break;
    }
}

/* ---- ports: 16-bit registers at adjacent byte addresses ---- */

static uint64_t index_read(void *ctx, uint64_t offset, unsigned size)
{
    return ((struct vga *)ctx)->dispi_index;
}

static void index_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    ((struct vga *)ctx)->dispi_index = (uint16_t)value & 0xFF;
}

static uint64_t data_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vga *v = ctx;

    /* The second byte of a word read from the index, or nonsense. */
    return size == 2 ? dispi_read(v, v->dispi_index) : 0;
}

static void data_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct vga *v = ctx;

    if (size == 2)
        dispi_write(v, v->dispi_index, (uint16_t)value);
}

/* A word at 1CEH is cut in two by the bus: the index's low byte, which is all
 * of it that counts, and a byte that the data port does not take. */
const struct region_ops vga_dispi_index_ops = {index_read, index_write, 1, 1};
const struct region_ops vga_dispi_data_ops = {data_read, data_write, 1, 2};

/* ---- BAR 2 ---- */

static uint16_t mmio_read16(struct vga *v, unsigned offset)
{
    if (offset >= MMIO_DISPI && offset < MMIO_DISPI + 2 * DISPI_COUNT)
        return dispi_read(v, (offset - MMIO_DISPI) / 2);
    if (offset == MMIO_EXTENSION)
        return MMIO_EXTENSION_BYTES;
    if (offset >= MMIO_BYTE_ORDER && offset < MMIO_BYTE_ORDER + 4)
        return (uint16_t)LITTLE_ENDIAN_MAGIC;
    return 0;
}

static uint64_t mmio_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vga *v = ctx;
    uint64_t value = 0;

    if (offset < MMIO_EDID + VGA_EDID_BYTES) {
        for (unsigned i = 0; i < size && offset + i < VGA_EDID_BYTES; i++)
            value |= (uint64_t)v->edid[offset + i] << 8 * i;
        return value;
    }
    if (offset >= MMIO_VGA && offset < MMIO_VGA + PORT_VGA_COUNT) {
        for (unsigned i = 0; i < size; i++)
            value |= (uint64_t)vga_port_read(v, (uint16_t)(PORT_VGA_FIRST + offset - MMIO_VGA + i))
                     << 8 * i;
        return value;
    }
    if (size == 1)
        return mmio_read16(v, (unsigned)offset & ~1u) >> 8 * (offset & 1) & 0xFF;
    for (unsigned i = 0; i < size; i += 2)
        value |= (uint64_t)mmio_read16(v, (unsigned)offset + i) << 8 * i;
    return value;
}

static void mmio_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct vga *v = ctx;

    if (offset >= MMIO_VGA && offset < MMIO_VGA + PORT_VGA_COUNT) {
        for (unsigned i = 0; i < size; i++)
            vga_port_write(v, (uint16_t)(PORT_VGA_FIRST + offset - MMIO_VGA + i),
                           (uint8_t)(value >> 8 * i));
        return;
    }
    /* The byte order is little and stays so. */
    for (unsigned i = 0; i + 2 <= size; i += 2) {
        if (offset + i >= MMIO_DISPI && offset + i < MMIO_DISPI + 2 * DISPI_COUNT)
            dispi_write(v, (unsigned)(offset + i - MMIO_DISPI) / 2, (uint16_t)(value >> 8 * i));
    }
}

const struct region_ops vga_mmio_ops = {mmio_read, mmio_write, 1, 4};
