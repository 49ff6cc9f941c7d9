/*
 * What the video BIOS would have done before a kernel is started: 80 x 25
 * characters, mode 03H of IBM's PS/2 Hardware Interface Technical Reference
 * ("BIOS modes"), with the font that is in the video BIOS.
 *
 * Threading: with the machine's lock held.
 */
#include "board/pc_internal.h"
#include "dev/display/vga.h"

enum {
    PORT_ATTRIBUTE = 0x3C0,
    PORT_MISC = 0x3C2,
    PORT_SEQUENCER = 0x3C4,
    PORT_DAC_MASK = 0x3C6,
    PORT_DAC_INDEX = 0x3C8,
    PORT_DAC_DATA = 0x3C9,
    PORT_GRAPHICS = 0x3CE,
    PORT_CRTC = 0x3D4,
    PORT_STATUS1 = 0x3DA,
    ATTRIBUTE_DISPLAY = 0x20,
    GLYPH_LINES = 16,
    GLYPH_STRIDE = 32,
    GLYPHS = 256,
    GREY_ON_BLACK_SPACE = 0x0720,
};

static const uint8_t sequencer[] = {0x03, 0x00, 0x03, 0x00, 0x02};
static const uint8_t crtc[] = {0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00,
                               0x4F, 0x0D, 0x0E, 0x00, 0x00, 0x00, 0x00, 0x9C, 0x8E,
                               0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF};
static const uint8_t graphics[] = {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF};
static const uint8_t attribute[] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14,
                                    0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D,
                                    0x3E, 0x3F, 0x0C, 0x00, 0x0F, 0x08, 0x00};
#define MISC_TEXT 0x67

static void outb(struct pc *pc, uint16_t port, uint8_t value)
{
    as_store(&pc->vm->ports, port, 1, value);
}

static void indexed(struct pc *pc, uint16_t port, unsigned index, uint8_t value)
{
    outb(pc, port, (uint8_t)index);
    outb(pc, port + 1, value);
}

static void set_registers(struct pc *pc)
{
    uint64_t ignored;

    outb(pc, PORT_MISC, MISC_TEXT);
    for (unsigned i = 0; i < ARRAY_SIZE(sequencer); i++)
        indexed(pc, PORT_SEQUENCER, i, sequencer[i]);
    indexed(pc, PORT_CRTC, 0x11, 0); /* unprotected */
    for (unsigned i = 0; i < ARRAY_SIZE(crtc); i++)
        indexed(pc, PORT_CRTC, i, crtc[i]);
    for (unsigned i = 0; i < ARRAY_SIZE(graphics); i++)
        indexed(pc, PORT_GRAPHICS, i, graphics[i]);
    as_load(&pc->vm->ports, PORT_STATUS1, 1, &ignored); /* an index comes next */
    for (unsigned i = 0; i < ARRAY_SIZE(attribute); i++) {
        outb(pc, PORT_ATTRIBUTE, (uint8_t)i);
        outb(pc, PORT_ATTRIBUTE, attribute[i]);
    }
    outb(pc, PORT_ATTRIBUTE, ATTRIBUTE_DISPLAY);
}

/* EGA's 64 colours: two bits a component, the lower ones in bits 5-3. */
static void set_colours(struct pc *pc)
{
    outb(pc, PORT_DAC_MASK, 0xFF);
    outb(pc, PORT_DAC_INDEX, 0);
    for (unsigned i = 0; i < 64; i++) {
        for (unsigned c = 3; c-- > 0;)
            outb(pc, PORT_DAC_DATA, (uint8_t)((i >> c & 1) * 0x2A + (i >> (c + 3) & 1) * 0x15));
    }
}

/* The 8 x 16 font among the video BIOS' bytes, known by its capital A. */
static const uint8_t *find_font(const uint8_t *rom, uint64_t bytes)
{
    static const uint8_t capital_a[GLYPH_LINES] = {0x00, 0x00, 0x10, 0x38, 0x6C, 0xC6, 0xC6, 0xFE,
                                                   0xC6, 0xC6, 0xC6, 0xC6, 0x00, 0x00, 0x00, 0x00};

    for (uint64_t at = 0; at + GLYPHS * GLYPH_LINES <= bytes; at++) {
        if (!memcmp(rom + at + 'A' * GLYPH_LINES, capital_a, GLYPH_LINES))
            return rom + at;
    }
    return NULL;
}

static void load_font(struct pc *pc)
{
    uint64_t bytes;
    const uint8_t *rom = vga_rom(pc->vga, &bytes), *font = find_font(rom, bytes);

    if (!font) /* another video BIOS: a screen without glyphs */
        return;
    indexed(pc, PORT_SEQUENCER, 2, 0x04); /* plane 2 alone, in sequence */
    indexed(pc, PORT_SEQUENCER, 4, 0x06);
    indexed(pc, PORT_GRAPHICS, 5, 0x00);
    indexed(pc, PORT_GRAPHICS, 6, 0x04);
    for (unsigned i = 0; i < GLYPHS; i++)
        as_write(&pc->vm->memory, 0xA0000 + i * GLYPH_STRIDE, font + i * GLYPH_LINES, GLYPH_LINES);
    indexed(pc, PORT_SEQUENCER, 2, sequencer[2]);
    indexed(pc, PORT_SEQUENCER, 4, sequencer[4]);
    indexed(pc, PORT_GRAPHICS, 5, graphics[5]);
    indexed(pc, PORT_GRAPHICS, 6, graphics[6]);
}

bool post_vga(struct pc *pc)
{
    if (!pc->vga)
        return false;
    pci_config_write(pc->pci, 0, PC_VGA_DEVFN, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY,
                     2);
    set_registers(pc);
    set_colours(pc);
    load_font(pc);
    for (unsigned i = 0; i < 80 * 25; i++)
        as_store(&pc->vm->memory, 0xB8000 + i * 2, 2, GREY_ON_BLACK_SPACE);
    return true;
}
