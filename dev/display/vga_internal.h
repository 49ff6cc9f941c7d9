/*
 * Between the parts of the VGA: vga.c (life, PCI, state), vga_registers.c
 * (ports), vga_dispi.c (DISPI, BAR 2), vga_edid.c (the monitor), vga_memory.c
 * (A0000H-BFFFFH), vga_mode.c (what the registers mean), vga_draw.c (pixels and
 * characters).
 *
 * Where bytes lie in video memory: four planes side by side, so that plane p
 * at offset o is byte 4 * o + p, and the four bytes of a latch are one word.
 * Chain-4 address a is plane a % 4 at offset a / 4, hence byte a: what a
 * processor sees through chain 4 is what it sees through BAR 0. Odd/even
 * address a is plane a % 2 at offset a / 2. (IBM's VGA leaves holes between the
 * offsets instead, and has the CRTC shift its addresses to skip them: word and
 * doubleword mode, which mean nothing here.)
 *
 * The text window. In text and CGA modes the 32 KiB at B0000H or B8000H are
 * plane 0 and 1 alternating, which no mapping of video memory can show. While
 * accesses there have no side effects (`text_live`), a RAM block of its own
 * stands for offsets 0 to 3FFFH of these planes; it is copied from and to
 * video memory when that begins and ends.
 */
#ifndef DEV_DISPLAY_VGA_INTERNAL_H
#define DEV_DISPLAY_VGA_INTERNAL_H

#include "dev/display/vga.h"
#include "dev/pci/pci.h"

/* ---- registers (IBM PS/2 Hardware Interface Technical Reference, "Video
 * Subsystem"; FreeVGA's names) ---- */

enum vga_port {
    PORT_CRTC_INDEX_MONO = 0x3B4,
    PORT_CRTC_DATA_MONO = 0x3B5,
    PORT_STATUS1_MONO = 0x3BA, /* written: feature control */
    PORT_ATTRIBUTE = 0x3C0,
    PORT_ATTRIBUTE_READ = 0x3C1,
    PORT_MISC = 0x3C2, /* read: input status 0 */
    PORT_ENABLE = 0x3C3,
    PORT_SEQUENCER_INDEX = 0x3C4,
    PORT_SEQUENCER_DATA = 0x3C5,
    PORT_DAC_MASK = 0x3C6,
    PORT_DAC_READ_INDEX = 0x3C7, /* read: DAC state */
    PORT_DAC_WRITE_INDEX = 0x3C8,
    PORT_DAC_DATA = 0x3C9,
    PORT_FEATURE_READ = 0x3CA,
    PORT_MISC_READ = 0x3CC,
    PORT_GRAPHICS_INDEX = 0x3CE,
    PORT_GRAPHICS_DATA = 0x3CF,
    PORT_CRTC_INDEX = 0x3D4,
    PORT_CRTC_DATA = 0x3D5,
    PORT_STATUS1 = 0x3DA,

    PORT_MONO_FIRST = 0x3B0,
    PORT_MONO_COUNT = 0x0C,
    PORT_VGA_FIRST = 0x3C0,
    PORT_VGA_COUNT = 0x20,
};

enum vga_misc {
    MISC_COLOUR = 1 << 0, /* CRTC at 3D4H, not 3B4H */
    MISC_RAM = 1 << 1,    /* A0000H-BFFFFH answer */
    MISC_CLOCK_SHIFT = 2,
};

enum vga_status1 {
    STATUS1_BLANKED = 1 << 0, /* no pixel is being shown */
    STATUS1_RETRACE = 1 << 3,
};

enum vga_sequencer {
    SR_RESET,
    SR_CLOCKING,
    SR_MAP_MASK,
    SR_FONTS,
    SR_MEMORY,
    SR_COUNT,
};

enum {
    CLOCKING_8_DOTS = 1 << 0,
    CLOCKING_HALF = 1 << 3,
    CLOCKING_SCREEN_OFF = 1 << 5,
    MEMORY_NO_ODD_EVEN = 1 << 2,
    MEMORY_CHAIN4 = 1 << 3,
};

enum vga_graphics {
    GR_SET_RESET,
    GR_ENABLE_SET_RESET,
    GR_COLOUR_COMPARE,
    GR_ROTATE,
    GR_READ_MAP,
    GR_MODE,
    GR_MISC,
    GR_COLOUR_IGNORE,
    GR_BIT_MASK,
    GR_COUNT,
};

enum {
    ROTATE_COUNT = 7,
    ROTATE_FUNCTION_SHIFT = 3, /* 0 replace, 1 AND, 2 OR, 3 XOR */
    MODE_WRITE = 3,
    MODE_READ_COMPARE = 1 << 3,
    MODE_ODD_EVEN = 1 << 4,
    MODE_INTERLEAVE = 1 << 5, /* CGA's two bits a pixel */
    MODE_256 = 1 << 6,
    MISC_GRAPHICS = 1 << 0,
    MISC_MAP_SHIFT = 2,
};

enum vga_map { MAP_A0000_128K, MAP_A0000_64K, MAP_B0000_32K, MAP_B8000_32K };

enum vga_crtc {
    CR_H_TOTAL = 0x00,
    CR_H_DISPLAY_END = 0x01,
    CR_V_TOTAL = 0x06,
    CR_OVERFLOW = 0x07,
    CR_PRESET_ROW = 0x08,
    CR_MAX_SCAN = 0x09,
    CR_CURSOR_START = 0x0A,
    CR_CURSOR_END = 0x0B,
    CR_START_HIGH = 0x0C,
    CR_START_LOW = 0x0D,
    CR_CURSOR_HIGH = 0x0E,
    CR_CURSOR_LOW = 0x0F,
    CR_V_RETRACE_START = 0x10,
    CR_V_RETRACE_END = 0x11,
    CR_V_DISPLAY_END = 0x12,
    CR_OFFSET = 0x13,
    CR_UNDERLINE = 0x14,
    CR_MODE = 0x17,
    CR_LINE_COMPARE = 0x18,
    CR_COUNT = 0x19,
    CR_LATCH = 0x22, /* read-only: the latch of the read map */
};

enum {
    OVERFLOW_LINE_COMPARE = 1 << 4,
    MAX_SCAN_DOUBLE = 1 << 7,
    MAX_SCAN_LINE_COMPARE = 1 << 6,
    CURSOR_OFF = 1 << 5,
    RETRACE_END_PROTECT = 1 << 7,
    CRTC_NO_MAP13 = 1 << 0,
    CRTC_NO_MAP14 = 1 << 1,
    CRTC_BYTE_MODE = 1 << 6,
};

enum vga_attribute {
    AR_PALETTE = 0x00, /* 16 */
    AR_MODE = 0x10,
    AR_OVERSCAN = 0x11,
    AR_PLANE_ENABLE = 0x12,
    AR_PAN = 0x13,
    AR_COLOUR_SELECT = 0x14,
    AR_COUNT = 0x15,
    AR_INDEX_DISPLAY = 1 << 5, /* in the index: the palette feeds the screen */
};

enum {
    ATTRIBUTE_MONO = 1 << 1,
    ATTRIBUTE_LINE_GRAPHICS = 1 << 2,
    ATTRIBUTE_BLINK = 1 << 3,
    ATTRIBUTE_PAN_TOP_ONLY = 1 << 5,
    ATTRIBUTE_SELECT_54 = 1 << 7,
};

/* ---- DISPI ---- */

enum dispi_register {
    DISPI_ID,
    DISPI_XRES,
    DISPI_YRES,
    DISPI_BPP,
    DISPI_ENABLE,
    DISPI_BANK,
    DISPI_VIRT_WIDTH,
    DISPI_VIRT_HEIGHT,
    DISPI_X_OFFSET,
    DISPI_Y_OFFSET,
    DISPI_MEMORY_64K,
    DISPI_COUNT,
};

enum dispi_enable {
    DISPI_ENABLED = 1 << 0,
    DISPI_GETCAPS = 1 << 1,
    DISPI_8BIT_DAC = 1 << 5,
    DISPI_LINEAR = 1 << 6,
    DISPI_NO_CLEAR = 1 << 7,
};

enum {
    DISPI_ID_FIRST = 0xB0C0,
    DISPI_ID_LAST = 0xB0C5,
    DISPI_MAX_XRES = 16000,
    DISPI_MAX_YRES = 12000,
    DISPI_MAX_BPP = 32,
};

#define VGA_PLANE_BYTES (64 * KiB)
#define VGA_BANK_BYTES (64 * KiB)
#define VGA_TEXT_BYTES (32 * KiB)
#define VGA_WINDOW_BASE 0xA0000ull
#define VGA_WINDOW_BYTES (128 * KiB)
#define VGA_FONT_BYTES (8 * KiB)
#define VGA_FONT_PLANE 2
#define VGA_EDID_BYTES 128

/* ---- the device ---- */

/* What of the screen was drawn last, to draw only what is new. */
struct vga_drawn;

struct vga {
    struct vm *vm;
    struct pci_function pci;
    struct ram_block *vram, *text, *rom;
    uint32_t vram_mask; /* bytes - 1 */
    struct region mono_ports, vga_ports, dispi_index_port, dispi_data_port;
    struct region window, linear, text_window;

    uint8_t misc, feature, enable;
    uint8_t sequencer_index, sequencer[SR_COUNT];
    uint8_t graphics_index, graphics[GR_COUNT];
    uint8_t crtc_index, crtc[CR_COUNT];
    uint8_t attribute_index, attribute[AR_COUNT];
    bool attribute_data; /* the next write to 3C0H is data */
    uint8_t dac_mask, dac_index, dac_component;
    bool dac_reading;
    uint8_t dac_staged[3];
    uint8_t dac[256 * 3]; /* as written: 6 bits, or 8 */
    uint32_t latch;
    uint16_t dispi_index, dispi[DISPI_COUNT];
    bool text_live;

    uint8_t edid[VGA_EDID_BYTES]; /* constant */
    struct vga_drawn *drawn;      /* host: no state of the machine */
};

/* ---- vga_registers.c ---- */

void vga_registers_reset(struct vga *v);
uint8_t vga_port_read(struct vga *v, uint16_t port);
void vga_port_write(struct vga *v, uint16_t port, uint8_t value);
/* Registers that came from a file, made legal. */
void vga_registers_mask(struct vga *v);
extern const struct region_ops vga_mono_port_ops, vga_port_ops;

/* ---- vga_dispi.c ---- */

void vga_dispi_reset(struct vga *v);
void vga_dispi_mask(struct vga *v);
/* A mode of 8 bits a pixel or more is on. */
bool vga_dispi_is_packed(const struct vga *v);
/* The mode after all limits. */
struct dispi_mode {
    unsigned width, height, bits; /* 4, 8, 15, 16, 24, 32 */
    uint32_t pitch;               /* bytes a line in video memory, 4 bits: of all planes */
    uint32_t start;               /* byte in video memory */
};
void vga_dispi_mode(const struct vga *v, struct dispi_mode *m);
extern const struct region_ops vga_dispi_index_ops, vga_dispi_data_ops, vga_mmio_ops;

/* ---- vga_edid.c ---- */

void vga_edid_fill(uint8_t p[VGA_EDID_BYTES]);

/* ---- vga_memory.c ---- */

/* Registers that decide how A0000H-BFFFFH behave have changed. */
void vga_window_update(struct vga *v);
/* The regions as the (loaded) registers want them; text_live stays. */
void vga_window_restored(struct vga *v);
/* Brings the text window's bytes to video memory. */
void vga_text_flush(struct vga *v);
extern const struct region_ops vga_window_ops;

/* ---- vga_mode.c ---- */

enum vga_kind {
    VGA_BLANK,
    VGA_TEXT,
    VGA_PLANAR, /* 4 planes, a bit a pixel each (16 colours, 2 colours) */
    VGA_CGA,    /* 2 bits a pixel, interleaved */
    VGA_256,    /* a byte a pixel */
    VGA_PACKED, /* DISPI, 8 bits a pixel or more */
};

/* What the registers mean: all that drawing depends on, but for palette and
 * memory. Lines and dots are the monitor's. */
struct vga_mode {
    enum vga_kind kind;
    unsigned width, height; /* of the image */
    unsigned dot_scale;     /* dots of the image a pixel of memory */
    unsigned cell_width;    /* 8 or 9: text */
    unsigned cell_height;   /* scan lines a row of memory, 1 to 32 */
    bool line_double;       /* each scan line twice */
    unsigned columns;       /* character clocks a line; text: characters */
    uint32_t start, pitch;  /* plane offsets; VGA_PACKED: bytes */
    uint32_t offset_mask;   /* plane offsets wrap here */
    unsigned row_preset;    /* the first line is this one of its row */
    unsigned pan;           /* pixels to the left */
    bool pan_top_only;
    unsigned split_line;    /* from here on memory from 0; >= height: never */
    bool map13, map14;      /* row scan bits replace address bits */
    unsigned map13_bit, map14_bit;
    unsigned bits;          /* VGA_PACKED */
    uint32_t font[2];       /* byte of plane 2 for attribute bit 3 = 0, 1 */
    bool blink, line_graphics, mono;
    unsigned underline;
    bool cursor_on;
    unsigned cursor_first, cursor_last;
    uint32_t cursor;        /* plane offset */
    uint8_t plane_enable;
};

void vga_mode_get(const struct vga *v, struct vga_mode *m);
/* 256 colours of the DAC, and the 16 that the attribute controller makes of 4
 * bits: 0x00RRGGBB. */
void vga_palette256(const struct vga *v, uint32_t colour[256]);
void vga_palette16(const struct vga *v, uint32_t colour[16]);
/* Character and attribute at a plane offset. */
void vga_cell(const struct vga *v, uint32_t offset, uint8_t *character, uint8_t *attribute);
/* Frames since the machine started, for blinking. */
uint64_t vga_frames(const struct vga *v);
/* Input status 1, but for bits that are always 0. */
uint8_t vga_retrace_status(const struct vga *v);

/* ---- vga_draw.c ---- */

enum display_kind vga_kind(void *self);
int vga_render(void *self, struct surface *s, bool all);
bool vga_text(void *self, struct text_screen *t);
void vga_drawn_free(struct vga *v);

#endif
