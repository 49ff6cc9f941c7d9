/*
 * What the monitor says of itself: 128 bytes of EDID, which the guest finds at
 * the start of BAR 2, as with QEMU's "std" VGA; Linux's bochs driver takes its
 * modes from there.
 *
 * Follows: VESA Enhanced EDID Standard 1.4, section 3; the preferred mode's
 * timing is CVT with reduced blanking (VESA CVT 1.2). A monitor as no factory
 * makes it: any frequency, the colours of sRGB, about 100 dots an inch.
 *
 * Threading: constant.
 */
#include "dev/display/vga_internal.h"

/* Where things are (table 3.1). */
enum edid_offset {
    EDID_MANUFACTURER = 8, /* three letters of 5 bits, the most significant byte first */
    EDID_PRODUCT = 10,
    EDID_WEEK = 16, /* FFH: the year is the model's */
    EDID_YEAR = 17, /* since 1990 */
    EDID_VERSION = 18,
    EDID_INPUT = 20,
    EDID_SIZE = 21, /* centimetres */
    EDID_GAMMA = 23,
    EDID_FEATURES = 24,
    EDID_COLOURS = 25,
    EDID_ESTABLISHED = 35,
    EDID_STANDARD = 38,
    EDID_DETAILED = 54,
    EDID_NAME = 72,
    EDID_RANGE = 90,
    EDID_DUMMY = 108,
    EDID_CHECKSUM = 127,
    DESCRIPTOR_TAG = 3,
    DESCRIPTOR_DATA = 5,
    DESCRIPTOR_BYTES = 18,
};

enum {
    INPUT_DIGITAL_8BIT = 0xA0,
    INPUT_DISPLAY_PORT = 5,
    FEATURE_SRGB = 1 << 2,
    FEATURE_PREFERRED_IS_NATIVE = 1 << 1,
    TAG_NAME = 0xFC,
    TAG_RANGE = 0xFD,
    TAG_DUMMY = 0x10,
    TIMING_SEPARATE_SYNC = 0x18,
    TIMING_HSYNC_POSITIVE = 1 << 1,
};

enum aspect { ASPECT_16_10, ASPECT_4_3, ASPECT_5_4, ASPECT_16_9 };

/* The preferred mode: 1280 x 800 at 60 Hz. */
enum {
    PIXEL_CLOCK_10KHZ = 7100,
    H_ACTIVE = 1280,
    H_BLANK = 160,
    H_FRONT = 48,
    H_SYNC = 32,
    V_ACTIVE = 800,
    V_BLANK = 23,
    V_FRONT = 3,
    V_SYNC = 6,
    WIDTH_MM = 325,
    HEIGHT_MM = 203,
};

/* 60 Hz all of them; none needs more memory than there is by default. */
static const struct {
    uint16_t width;
    uint8_t aspect;
} standard_modes[8] = {
    {1920, ASPECT_16_10}, {1920, ASPECT_16_9},  {1680, ASPECT_16_10}, {1600, ASPECT_4_3},
    {1600, ASPECT_16_9},  {1440, ASPECT_16_10}, {1280, ASPECT_5_4},   {1280, ASPECT_16_9},
};

/* Red, green, blue and white in sRGB: x and y in 1/1024. */
static const uint16_t colours[8] = {655, 338, 307, 614, 154, 61, 320, 337};

static void put_colours(uint8_t *p)
{
    for (unsigned n = 0; n < 8; n++) {
        p[n / 4] |= (uint8_t)((colours[n] & 3) << (6 - 2 * (n % 4)));
        p[2 + n] = (uint8_t)(colours[n] >> 2);
    }
}

static void put_preferred(uint8_t *p)
{
    le16_put(p, PIXEL_CLOCK_10KHZ);
    p[2] = H_ACTIVE & 0xFF;
    p[3] = H_BLANK & 0xFF;
    p[4] = (H_ACTIVE >> 8) << 4 | H_BLANK >> 8;
    p[5] = V_ACTIVE & 0xFF;
    p[6] = V_BLANK & 0xFF;
    p[7] = (V_ACTIVE >> 8) << 4 | V_BLANK >> 8;
    p[8] = H_FRONT;
    p[9] = H_SYNC;
    p[10] = V_FRONT << 4 | V_SYNC;
    p[12] = WIDTH_MM & 0xFF;
    p[13] = HEIGHT_MM & 0xFF;
    p[14] = (WIDTH_MM >> 8) << 4 | HEIGHT_MM >> 8;
    p[17] = TIMING_SEPARATE_SYNC | TIMING_HSYNC_POSITIVE;
}

static uint8_t *put_descriptor(uint8_t *p, uint8_t tag)
{
    p[DESCRIPTOR_TAG] = tag;
    return p + DESCRIPTOR_DATA;
}

void vga_edid_fill(uint8_t p[VGA_EDID_BYTES])
{
    static const uint8_t header[8] = {0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0};
    static const char name[] = "Vireo\n       ", letters[] = "VRE";
    /* 50 to 125 Hz, 30 to 160 kHz, 250 MHz, no formula for other timings. */
    static const uint8_t range[13] = {50, 125, 30, 160, 25, 1, '\n', ' ', ' ', ' ', ' ', ' ', ' '};
    uint8_t *d, sum = 0;
    unsigned id = 0;

    memset(p, 0, VGA_EDID_BYTES);
    memcpy(p, header, sizeof header);
    for (unsigned n = 0; n < 3; n++)
        id = id << 5 | (unsigned)(letters[n] - 'A' + 1);
    p[EDID_MANUFACTURER] = (uint8_t)(id >> 8);
    p[EDID_MANUFACTURER + 1] = (uint8_t)id;
    p[EDID_PRODUCT] = 1;
    p[EDID_WEEK] = 0xFF;
    p[EDID_YEAR] = 2026 - 1990;
    p[EDID_VERSION] = 1;
    p[EDID_VERSION + 1] = 4;
    p[EDID_INPUT] = INPUT_DIGITAL_8BIT | INPUT_DISPLAY_PORT;
    p[EDID_SIZE] = (WIDTH_MM + 5) / 10;
    p[EDID_SIZE + 1] = (HEIGHT_MM + 5) / 10;
    p[EDID_GAMMA] = 220 - 100;
    p[EDID_FEATURES] = FEATURE_SRGB | FEATURE_PREFERRED_IS_NATIVE;
    put_colours(p + EDID_COLOURS);
    p[EDID_ESTABLISHED] = 1 << 5 | 1 << 0; /* 640 x 480 and 800 x 600, 60 Hz */
    p[EDID_ESTABLISHED + 1] = 1 << 3;      /* 1024 x 768, 60 Hz */
    for (unsigned n = 0; n < ARRAY_SIZE(standard_modes); n++) {
        p[EDID_STANDARD + 2 * n] = (uint8_t)(standard_modes[n].width / 8 - 31);
        p[EDID_STANDARD + 2 * n + 1] = (uint8_t)(standard_modes[n].aspect << 6);
    }
    put_preferred(p + EDID_DETAILED);
    memcpy(put_descriptor(p + EDID_NAME, TAG_NAME), name, DESCRIPTOR_BYTES - DESCRIPTOR_DATA);
    d = put_descriptor(p + EDID_RANGE, TAG_RANGE);
    memcpy(d, range, sizeof range);
    put_descriptor(p + EDID_DUMMY, TAG_DUMMY);
    for (unsigned n = 0; n < EDID_CHECKSUM; n++)
        sum += p[n];
    p[EDID_CHECKSUM] = (uint8_t)-sum;
}
