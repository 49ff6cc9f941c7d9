/*
 * The VGA's ports 3B4H-3DFH: sequencer, graphics controller, CRTC, attribute
 * controller, DAC, and the registers outside them (IBM PS/2 Hardware Interface
 * Technical Reference, "Video Subsystem"). See vga_internal.h.
 *
 * Registers keep the bits that exist. What follows from them is worked out
 * when it is needed: the screen when it is drawn (vga_mode.c), the window at
 * A0000H when a register that it depends on changes.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/display/vga_internal.h"

static const uint8_t sequencer_mask[SR_COUNT] = {0x03, 0x3D, 0x0F, 0x3F, 0x0E};
static const uint8_t graphics_mask[GR_COUNT] = {0x0F, 0x0F, 0x0F, 0x1F, 0x03,
                                                0x7B, 0x0F, 0x0F, 0xFF};
static const uint8_t crtc_mask[CR_COUNT] = {
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0x3F, 0x7F, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xEF, 0xFF,
};
static const uint8_t attribute_mask[AR_COUNT] = {
    0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F,
    0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0xEF, 0xFF, 0x3F, 0x0F, 0x0F,
};

enum {
    MISC_MASK = 0xEF,
    FEATURE_MASK = 0x03,
    SEQUENCER_INDEX_MASK = 0x07,
    GRAPHICS_INDEX_MASK = 0x0F,
    CRTC_INDEX_MASK = 0x3F,
    ATTRIBUTE_INDEX_MASK = 0x1F,
    CRTC_PROTECTED = 8, /* registers 0 to 7 */
    DAC_STATE_READ = 3,
};

void vga_registers_reset(struct vga *v)
{
    v->misc = v->feature = 0;
    v->enable = 1;
    v->sequencer_index = v->graphics_index = v->crtc_index = v->attribute_index = 0;
    memset(v->sequencer, 0, sizeof v->sequencer);
    memset(v->graphics, 0, sizeof v->graphics);
    memset(v->crtc, 0, sizeof v->crtc);
    memset(v->attribute, 0, sizeof v->attribute);
    v->attribute_data = false;
    v->dac_mask = 0xFF;
    v->dac_index = v->dac_component = 0;
    v->dac_reading = false;
    memset(v->dac_staged, 0, sizeof v->dac_staged);
    memset(v->dac, 0, sizeof v->dac);
    v->latch = 0;
}

void vga_registers_mask(struct vga *v)
{
    v->misc &= MISC_MASK;
    v->feature &= FEATURE_MASK;
    v->enable &= 1;
    v->sequencer_index &= SEQUENCER_INDEX_MASK;
    v->graphics_index &= GRAPHICS_INDEX_MASK;
    v->crtc_index &= CRTC_INDEX_MASK;
    v->attribute_index &= ATTRIBUTE_INDEX_MASK | AR_INDEX_DISPLAY;
    for (unsigned i = 0; i < SR_COUNT; i++)
        v->sequencer[i] &= sequencer_mask[i];
    for (unsigned i = 0; i < GR_COUNT; i++)
        v->graphics[i] &= graphics_mask[i];
    for (unsigned i = 0; i < CR_COUNT; i++)
        v->crtc[i] &= crtc_mask[i];
    for (unsigned i = 0; i < AR_COUNT; i++)
        v->attribute[i] &= attribute_mask[i];
    v->dac_component %= 3;
}

/* ---- CRTC ---- */

static uint8_t crtc_read(const struct vga *v)
{
    if (v->crtc_index == CR_LATCH)
        return (uint8_t)(v->latch >> 8 * v->graphics[GR_READ_MAP]);
    return v->crtc_index < CR_COUNT ? v->crtc[v->crtc_index] : 0;
}

static void crtc_write(struct vga *v, uint8_t value)
{
    unsigned i = v->crtc_index;

    if (i >= CR_COUNT)
        return;
    value &= crtc_mask[i];
    if (i < CRTC_PROTECTED && (v->crtc[CR_V_RETRACE_END] & RETRACE_END_PROTECT)) {
        /* All but bit 8 of the line compare. */
        if (i != CR_OVERFLOW)
            return;
        value = (uint8_t)((v->crtc[i] & ~OVERFLOW_LINE_COMPARE) | (value & OVERFLOW_LINE_COMPARE));
    }
    v->crtc[i] = value;
}

/* ---- DAC ---- */

static uint8_t dac_data_read(struct vga *v)
{
    uint8_t value = v->dac[v->dac_index * 3 + v->dac_component];

    if (++v->dac_component == 3) {
        v->dac_component = 0;
        v->dac_index++;
    }
    return v->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC ? value : value & 0x3F;
}

static void dac_data_write(struct vga *v, uint8_t value)
{
    v->dac_staged[v->dac_component] = value;
    /* A colour changes as a whole, with its third component. */
    if (++v->dac_component < 3)
        return;
    memcpy(v->dac + v->dac_index * 3, v->dac_staged, 3);
    v->dac_component = 0;
    v->dac_index++;
}

/* ---- the ports ---- */

static uint8_t status1_read(struct vga *v)
{
    v->attribute_data = false;
    return vga_retrace_status(v);
}

static uint8_t attribute_data_read(const struct vga *v)
{
    unsigned i = v->attribute_index & ATTRIBUTE_INDEX_MASK;

    return i < AR_COUNT ? v->attribute[i] : 0;
}

/* The CRTC's ports are at one of two places. */
static bool answers(const struct vga *v, uint16_t port)
{
    switch (port) {
    case PORT_CRTC_INDEX_MONO:
    case PORT_CRTC_DATA_MONO:
    case PORT_STATUS1_MONO:
        return !(v->misc & MISC_COLOUR);
    case PORT_CRTC_INDEX:
    case PORT_CRTC_DATA:
    case PORT_STATUS1:
        return v->misc & MISC_COLOUR;
    default:
        return true;
    }
}

uint8_t vga_port_read(struct vga *v, uint16_t port)
{
    if (!answers(v, port))
        return 0xFF;
    switch ((enum vga_port)port) {
    case PORT_ATTRIBUTE:
        return v->attribute_index;
    case PORT_ATTRIBUTE_READ:
        return attribute_data_read(v);
    case PORT_MISC: /* input status 0: no switches, no interrupt */
        return 0;
    case PORT_ENABLE:
        return v->enable;
    case PORT_SEQUENCER_INDEX:
        return v->sequencer_index;
    case PORT_SEQUENCER_DATA:
        return v->sequencer_index < SR_COUNT ? v->sequencer[v->sequencer_index] : 0;
    case PORT_DAC_MASK:
        return v->dac_mask;
    case PORT_DAC_READ_INDEX:
        return v->dac_reading ? DAC_STATE_READ : 0;
    case PORT_DAC_WRITE_INDEX:
        return v->dac_index;
    case PORT_DAC_DATA:
        return dac_data_read(v);
    case PORT_FEATURE_READ:
        return v->feature;
    case PORT_MISC_READ:
        return v->misc;
    case PORT_GRAPHICS_INDEX:
        return v->graphics_index;
    case PORT_GRAPHICS_DATA:
        return v->graphics_index < GR_COUNT ? v->graphics[v->graphics_index] : 0;
    case PORT_CRTC_INDEX_MONO:
    case PORT_CRTC_INDEX:
        return v->crtc_index;
    case PORT_CRTC_DATA_MONO:
    case PORT_CRTC_DATA:
        return crtc_read(v);
    case PORT_STATUS1_MONO:
    case PORT_STATUS1:
        return status1_read(v);
    default:
        return 0xFF;
    }
}

static void attribute_write(struct vga *v, uint8_t value)
{
    unsigned i = v->attribute_index & ATTRIBUTE_INDEX_MASK;

    if (!v->attribute_data)
        v->attribute_index = value & (ATTRIBUTE_INDEX_MASK | AR_INDEX_DISPLAY);
    else if (i < AR_COUNT)
        v->attribute[i] = value & attribute_mask[i];
    v->attribute_data = !v->attribute_data;
}

static void sequencer_write(struct vga *v, uint8_t value)
{
    unsigned i = v->sequencer_index;

    if (i >= SR_COUNT)
        return;
    v->sequencer[i] = value & sequencer_mask[i];
    if (i == SR_MAP_MASK || i == SR_MEMORY)
        vga_window_update(v);
}

static void graphics_write(struct vga *v, uint8_t value)
{
    unsigned i = v->graphics_index;

    if (i >= GR_COUNT)
        return;
    v->graphics[i] = value & graphics_mask[i];
    if (i != GR_COLOUR_COMPARE && i != GR_COLOUR_IGNORE)
        vga_window_update(v);
}

void vga_port_write(struct vga *v, uint16_t port, uint8_t value)
{
    if (!answers(v, port))
        return;
    switch ((enum vga_port)port) {
    case PORT_ATTRIBUTE:
        attribute_write(v, value);
        break;
    case PORT_MISC:
        v->misc = value & MISC_MASK;
        vga_window_update(v);
        break;
    case PORT_ENABLE:
        v->enable = value & 1;
        vga_window_update(v);
        break;
    case PORT_SEQUENCER_INDEX:
        v->sequencer_index = value & SEQUENCER_INDEX_MASK;
        break;
    case PORT_SEQUENCER_DATA:
        sequencer_write(v, value);
        break;
    case PORT_DAC_MASK:
        v->dac_mask = value;
        break;
    case PORT_DAC_READ_INDEX:
    case PORT_DAC_WRITE_INDEX:
        v->dac_index = value;
        v->dac_component = 0;
        v->dac_reading = port == PORT_DAC_READ_INDEX;
        break;
    case PORT_DAC_DATA:
        dac_data_write(v, value);
        break;
    case PORT_GRAPHICS_INDEX:
        v->graphics_index = value & GRAPHICS_INDEX_MASK;
        break;
    case PORT_GRAPHICS_DATA:
        graphics_write(v, value);
        break;
    case PORT_CRTC_INDEX_MONO:
    case PORT_CRTC_INDEX:
        v->crtc_index = value & CRTC_INDEX_MASK;
        break;
    case PORT_CRTC_DATA_MONO:
    case PORT_CRTC_DATA:
        crtc_write(v, value);
        break;
    case PORT_STATUS1_MONO:
    case PORT_STATUS1:
        v->feature = value & FEATURE_MASK;
        break;
    default:
        break;
    }
}

static uint64_t mono_read(void *ctx, uint64_t offset, unsigned size)
{
    return vga_port_read(ctx, (uint16_t)(PORT_MONO_FIRST + offset));
}

static void mono_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    vga_port_write(ctx, (uint16_t)(PORT_MONO_FIRST + offset), (uint8_t)value);
}

static uint64_t ports_read(void *ctx, uint64_t offset, unsigned size)
{
    return vga_port_read(ctx, (uint16_t)(PORT_VGA_FIRST + offset));
}

static void ports_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    vga_port_write(ctx, (uint16_t)(PORT_VGA_FIRST + offset), (uint8_t)value);
}

/* A word to an index port is index and data. */
const struct region_ops vga_mono_port_ops = {mono_read, mono_write, 1, 1};
const struct region_ops vga_port_ops = {ports_read, ports_write, 1, 1};
