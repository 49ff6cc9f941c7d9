/*
 * The VGA's registers, the window at A0000H in its modes, DISPI: what a guest
 * writes and reads, with expectations from the manuals. Pictures are in
 * test_vga_draw.c.
 */
#include "tests/dev/vga_fixture.h"

/* ---- registers ---- */

static void test_registers(void **state)
{
    struct harness *h = create_vga();

    assert_int_equal(mm_in(h, ROM, 4), 0x08AA55);
    /* The CRTC is at 3B4H until misc says colour. */
    assert_int_equal(inb(h, 0x3D4), 0xFF);
    outb(h, 0x3B4, 0x0C);
    assert_int_equal(inb(h, 0x3B4), 0x0C);
    outb(h, 0x3C2, 0x67);
    assert_int_equal(inb(h, 0x3CC), 0x67);
    assert_int_equal(inb(h, 0x3B4), 0xFF);
    assert_int_equal(inb(h, 0x3D4), 0x0C);
    /* Index and data in one word; bits that do not exist read as 0. */
    seq(h, 2, 0xFF);
    assert_int_equal(io_in(h, 0x3C4, 2), 0x0F02);
    gfx(h, 5, 0xFF);
    assert_int_equal(inb(h, 0x3CF), 0x7B);
    gfx(h, 0x0D, 0xFF); /* no such register */
    assert_int_equal(inb(h, 0x3CF), 0);
    /* Protection of CRTC registers 0 to 7, but for bit 4 of 7. */
    crtc(h, 0x00, 0x5F);
    crtc(h, 0x07, 0x1F);
    crtc(h, 0x11, 0x8E);
    crtc(h, 0x00, 0x11);
    crtc(h, 0x07, 0xE0);
    outb(h, 0x3D4, 0x00);
    assert_int_equal(inb(h, 0x3D5), 0x5F);
    outb(h, 0x3D4, 0x07);
    assert_int_equal(inb(h, 0x3D5), 0x0F);
    crtc(h, 0x07, 0x10);
    outb(h, 0x3D4, 0x07);
    assert_int_equal(inb(h, 0x3D5), 0x1F);
    /* Feature control is written at 3DAH and read at 3CAH. */
    outb(h, 0x3DA, 0x03);
    assert_int_equal(inb(h, 0x3CA), 0x03);
    harness_destroy(h);
}

static void test_attribute(void **state)
{
    struct harness *h = create_vga();

    outb(h, 0x3C2, 0x67);
    inb(h, 0x3DA);
    outb(h, 0x3C0, 0x05);
    outb(h, 0x3C0, 0xFF);
    assert_int_equal(inb(h, 0x3C1), 0x3F);
    assert_int_equal(inb(h, 0x3C0), 0x05);
    /* Data and index take turns; 3DAH says that an index comes next. */
    outb(h, 0x3C0, 0x06);
    inb(h, 0x3DA);
    outb(h, 0x3C0, 0x14);
    outb(h, 0x3C0, 0x0A);
    outb(h, 0x3C0, 0x06);
    assert_int_equal(inb(h, 0x3C1), 0);
    outb(h, 0x3C0, 0x22);
    outb(h, 0x3C0, 0x34);
    assert_int_equal(inb(h, 0x3C0), 0x34);
    assert_int_equal(inb(h, 0x3C1), 0x0A);
    harness_destroy(h);
}

static void test_dac(void **state)
{
    struct harness *h = create_vga();

    dac(h, 0xFE, 0x3F, 0x20, 0x01);
    /* The index goes on by itself, and wraps. */
    outb(h, 0x3C9, 0x01);
    outb(h, 0x3C9, 0x02);
    outb(h, 0x3C9, 0x03);
    assert_int_equal(inb(h, 0x3C7), 0);
    assert_int_equal(inb(h, 0x3C8), 0x00);
    outb(h, 0x3C7, 0xFE);
    assert_int_equal(inb(h, 0x3C7), 3);
    assert_int_equal(inb(h, 0x3C9), 0x3F);
    assert_int_equal(inb(h, 0x3C9), 0x20);
    assert_int_equal(inb(h, 0x3C9), 0x01);
    assert_int_equal(inb(h, 0x3C9), 0x01);
    /* A colour that was begun and not ended is not changed. */
    outb(h, 0x3C8, 0xFE);
    outb(h, 0x3C9, 0x11);
    outb(h, 0x3C7, 0xFE);
    assert_int_equal(inb(h, 0x3C9), 0x3F);
    /* Six bits, unless DISPI says eight. */
    dac(h, 7, 0xAB, 0, 0);
    outb(h, 0x3C7, 7);
    assert_int_equal(inb(h, 0x3C9), 0x2B);
    dispi(h, 4, 0x20);
    outb(h, 0x3C7, 7);
    assert_int_equal(inb(h, 0x3C9), 0xAB);
    harness_destroy(h);
}

/* 449 lines of 900 dots at 28.322 MHz: 70 Hz, 400 lines of them shown. */
static void test_retrace(void **state)
{
    struct harness *h = create_vga();
    unsigned blanked = 0, retrace = 0, edges = 0, before = 0;

    set_mode(h, &mode_03);
    for (unsigned i = 0; i < 100000; i++) { /* a second */
        unsigned status = inb(h, 0x3DA);

        assert_int_equal(status & ~9u, 0);
        blanked += status & 1;
        retrace += status >> 3;
        edges += (status & ~before) >> 3;
        before = status & 8;
        if (status & 8)
            assert_true(status & 1);
        harness_advance(h, 10000);
    }
    assert_int_equal(edges, 70);
    assert_in_range(retrace, 2 * 100000 / 449 - 30, 2 * 100000 / 449 + 30);
    /* 720 of 900 dots in 400 of 449 lines */
    assert_in_range(blanked, 28000, 29500);
    /* Whatever the registers say, there is a retrace. */
    for (unsigned i = 0; i < 25; i++)
        crtc(h, (uint8_t)i, 0);
    for (before = 0; before < 100000 && !(inb(h, 0x3DA) & 8); before++)
        harness_advance(h, 100);
    assert_true(before < 100000);
    harness_destroy(h);
}

/* ---- the window ---- */

static uint32_t planes(struct harness *h, unsigned offset)
{
    return (uint32_t)mm_in(h, LFB + offset * 4, 4);
}

static void set_planes(struct harness *h, unsigned offset, uint32_t value)
{
    mm_out(h, LFB + offset * 4, value, 4);
}

static void test_decoding(void **state)
{
    struct harness *h = create_vga();

    set_mode(h, &mode_12);
    mm_out(h, 0xA0000, 0x12, 1);
    assert_int_equal(mm_in(h, 0xA0000, 1), 0x12);
    assert_int_equal(mm_in(h, 0xB0000, 1), 0xFF);
    /* GR6: 128 KiB at A0000H, 32 KiB at B0000H or B8000H. */
    gfx(h, 6, 0x01);
    mm_out(h, 0xB0000, 0x34, 1);
    assert_int_equal(planes(h, 0x10000), 0x34343434);
    gfx(h, 6, 0x09);
    assert_int_equal(mm_in(h, 0xB0000, 1), 0x12);
    assert_int_equal(mm_in(h, 0xA0000, 1), 0xFF);
    gfx(h, 6, 0x0D);
    assert_int_equal(mm_in(h, 0xB8000, 1), 0x12);
    assert_int_equal(mm_in(h, 0xB0000, 1), 0xFF);
    /* Memory off in misc, off in the command register; ports off there. */
    outb(h, 0x3C2, 0xE1);
    assert_int_equal(mm_in(h, 0xB8000, 1), 0xFF);
    outb(h, 0x3C2, 0xE3);
    assert_int_equal(mm_in(h, 0xB8000, 1), 0x12);
    config_out(h, 4, 1);
    assert_int_equal(mm_in(h, 0xB8000, 1), 0xFF);
    assert_int_equal(inb(h, 0x3CC), 0xE3);
    config_out(h, 4, 2);
    assert_int_equal(mm_in(h, 0xB8000, 1), 0x12);
    assert_int_equal(inb(h, 0x3CC), 0xFF);
    harness_destroy(h);
}

static void test_write_mode_0(void **state)
{
    struct harness *h = create_vga();

    set_mode(h, &mode_12);
    /* The map mask chooses planes. */
    seq(h, 2, 0x05);
    mm_out(h, 0xA0010, 0xA5, 1);
    assert_int_equal(planes(h, 0x10), 0x00A500A5);
    seq(h, 2, 0x0F);
    /* Rotation to the right. */
    gfx(h, 3, 3);
    mm_out(h, 0xA0011, 0x81, 1);
    assert_int_equal(planes(h, 0x11), 0x30303030);
    gfx(h, 3, 0);
    /* Set/reset where it is enabled. */
    gfx(h, 0, 0x0A);
    gfx(h, 1, 0x0C);
    mm_out(h, 0xA0012, 0x3C, 1);
    assert_int_equal(planes(h, 0x12), 0xFF003C3C);
    gfx(h, 1, 0);
    /* The bit mask takes the rest from the latch, which a read fills. */
    set_planes(h, 0x13, 0x44332211);
    mm_in(h, 0xA0013, 1);
    gfx(h, 8, 0x0F);
    mm_out(h, 0xA0014, 0xFF, 1);
    assert_int_equal(planes(h, 0x14), 0x4F3F2F1F);
    gfx(h, 8, 0xFF);
    /* AND, OR, XOR with the latch. */
    gfx(h, 3, 1 << 3);
    mm_out(h, 0xA0015, 0x0F, 1);
    assert_int_equal(planes(h, 0x15), 0x04030201);
    gfx(h, 3, 2 << 3);
    mm_out(h, 0xA0015, 0x0F, 1);
    assert_int_equal(planes(h, 0x15), 0x4F3F2F1F);
    gfx(h, 3, 3 << 3);
    mm_out(h, 0xA0015, 0xFF, 1);
    assert_int_equal(planes(h, 0x15), 0xBBCCDDEE);
    harness_destroy(h);
}

static void test_write_modes_1_2_3(void **state)
{
    struct harness *h = create_vga();

    set_mode(h, &mode_12);
    set_planes(h, 0x20, 0xDEADBEEF);
    gfx(h, 5, 1);
    mm_in(h, 0xA0020, 1);
    gfx(h, 8, 0x00); /* means nothing here */
    seq(h, 2, 0x0E);
    mm_out(h, 0xA0021, 0x55, 1);
    assert_int_equal(planes(h, 0x21), 0xDEADBE00);
    seq(h, 2, 0x0F);
    /* Mode 2: the byte is a colour. */
    gfx(h, 5, 2);
    gfx(h, 8, 0xF0);
    set_planes(h, 0x22, 0x11223344);
    mm_in(h, 0xA0022, 1);
    mm_out(h, 0xA0022, 0x09, 1);
    assert_int_equal(planes(h, 0x22), 0xF10203F4);
    /* Mode 3: the byte, rotated, is a bit mask for the colour in set/reset. */
    gfx(h, 5, 3);
    gfx(h, 8, 0x3F);
    gfx(h, 0, 0x06);
    gfx(h, 3, 4);
    set_planes(h, 0x23, 0xFF00FF00);
    mm_in(h, 0xA0023, 1);
    mm_out(h, 0xA0023, 0x2F, 1); /* rotated F2H, masked 32H */
    assert_int_equal(planes(h, 0x23), 0xCD32FF00);
    harness_destroy(h);
}

static void test_read_modes(void **state)
{
    struct harness *h = create_vga();

    set_mode(h, &mode_12);
    set_planes(h, 0x30, 0x0FF03355);
    for (unsigned i = 0; i < 4; i++) {
        gfx(h, 4, (uint8_t)i);
        assert_int_equal(mm_in(h, 0xA0030, 1), 0x0FF03355 >> 8 * i & 0xFF);
        outb(h, 0x3D4, 0x22);
        assert_int_equal(inb(h, 0x3D5), 0x0FF03355 >> 8 * i & 0xFF);
    }
    /* Mode 1: where are pixels of colour 5? By hand, plane 0 55H, 1 33H, 2
     * F0H, 3 0FH: colours from bit 7 on are 4, 5, 6, 7, 8, 9, 10, 11. */
    gfx(h, 5, 8);
    gfx(h, 2, 5);
    gfx(h, 7, 0x0F);
    assert_int_equal(mm_in(h, 0xA0030, 1), 0x40);
    gfx(h, 7, 0x0E); /* plane 0 does not matter: 4 and 5 */
    assert_int_equal(mm_in(h, 0xA0030, 1), 0xC0);
    gfx(h, 7, 0x00);
    assert_int_equal(mm_in(h, 0xA0030, 1), 0xFF);
    /* A word is two bytes, the latch is the second's. */
    gfx(h, 5, 0);
    gfx(h, 4, 1);
    set_planes(h, 0x31, 0x0000AA00);
    assert_int_equal(mm_in(h, 0xA0030, 2), 0xAA33);
    gfx(h, 5, 1);
    mm_out(h, 0xA0040, 0, 1);
    assert_int_equal(planes(h, 0x40), 0x0000AA00);
    harness_destroy(h);
}

/* Odd and even addresses are planes, with and without the mapped block. */
static void test_odd_even(void **state)
{
    struct harness *h = create_vga();

    set_mode(h, &mode_03);
    for (unsigned i = 0; i < 16; i++)
        mm_out(h, 0xB8000 + i, 0x40 + i, 1);
    mm_out(h, 0xBFFFE, 0xBEEF, 2);
    assert_int_equal(mm_in(h, 0xB8002, 4), 0x45444342);
    /* Map mask 1: writes to odd addresses go nowhere, and what was written
     * before is still there. */
    seq(h, 2, 1);
    mm_out(h, 0xB8004, 0x7777, 2);
    assert_int_equal(mm_in(h, 0xB8004, 2), 0x4577);
    /* Sequential access, as fonts are loaded: plane 2 alone. */
    seq(h, 2, 4);
    seq(h, 4, 6);
    gfx(h, 5, 0);
    gfx(h, 6, 4);
    gfx(h, 4, 2);
    mm_out(h, 0xA0000 + 0x41 * 32, 0x18, 1);
    assert_int_equal(mm_in(h, 0xA0000 + 0x41 * 32, 1), 0x18);
    assert_int_equal(planes(h, 0x41 * 32), 0x180000);
    assert_int_equal(planes(h, 2), 0x4577);
    assert_int_equal(planes(h, 0x3FFF), 0xBEEF);
    /* And back: planes 0 and 1 are text again, plane 2 is hidden. */
    set_planes(h, 3, 0xFFFF2F58);
    set_mode(h, &mode_03);
    assert_int_equal(mm_in(h, 0xB8006, 2), 0x2F58);
    assert_int_equal(mm_in(h, 0xB8004, 2), 0x4577);
    assert_int_equal(mm_in(h, 0xBFFFE, 2), 0xBEEF);
    /* MDA's address. */
    mm_out(h, 0xB8000, 0x1234, 2);
    gfx(h, 6, 0x0A);
    assert_int_equal(mm_in(h, 0xB0000, 2), 0x1234);
    assert_int_equal(mm_in(h, 0xB8000, 2), 0xFFFF);
    harness_destroy(h);
}

static void test_chain4(void **state)
{
    struct harness *h = create_vga();

    set_mode(h, &mode_13);
    for (unsigned i = 0; i < 12; i++)
        mm_out(h, 0xA0000 + i, 0xA0 + i, 1);
    assert_int_equal(mm_in(h, 0xA0004, 4), 0xA7A6A5A4);
    assert_int_equal(mm_in(h, LFB + 4, 4), 0xA7A6A5A4);
    /* Unchained, the same four pixels are four planes of one offset. */
    seq(h, 4, 6);
    gfx(h, 4, 2);
    assert_int_equal(mm_in(h, 0xA0001, 1), 0xA6);
    seq(h, 2, 8);
    mm_out(h, 0xA0001, 0x11, 1);
    /* Chained with a map mask: only plane 3 is written. */
    seq(h, 4, 0x0E);
    mm_out(h, 0xA0008, 0x55555555, 4);
    assert_int_equal(mm_in(h, LFB + 4, 8), 0x55AAA9A811A6A5A4);
    /* With a bit mask: the latch of what was read last. */
    seq(h, 2, 0x0F);
    gfx(h, 8, 0xF0);
    assert_int_equal(mm_in(h, 0xA0004, 1), 0xA4);
    mm_out(h, 0xA0000, 0x33, 1);
    assert_int_equal(mm_in(h, LFB, 1), 0x34);
    harness_destroy(h);
}

/* ---- DISPI ---- */

static void test_dispi(void **state)
{
    struct harness *h = create_vga();

    assert_int_equal(dispi_get(h, 0), 0xB0C5);
    dispi(h, 0, 0xB0C2);
    assert_int_equal(dispi_get(h, 0), 0xB0C2);
    dispi(h, 0, 0x1234);
    assert_int_equal(dispi_get(h, 0), 0xB0C2);
    assert_int_equal(dispi_get(h, 10), VGA_BYTES / (64 * KiB));
    assert_int_equal(io_in(h, 0x1CE, 2), 10);
    dispi(h, 4, 2); /* what is the most? */
    assert_int_equal(dispi_get(h, 1), 16000);
    assert_int_equal(dispi_get(h, 2), 12000);
    assert_int_equal(dispi_get(h, 3), 32);

    set_mode(h, &mode_13);
    mm_out(h, LFB + 100, 0x12345678, 4);
    dispi_mode(h, 320, 240, 32);
    assert_int_equal(mm_in(h, LFB + 100, 4), 0); /* cleared */
    assert_int_equal(dispi_get(h, 6), 320);
    assert_int_equal(dispi_get(h, 7), VGA_BYTES / (320 * 4));
    /* Banks of 64 KiB at A0000H. */
    dispi(h, 5, 2);
    mm_out(h, 0xA0004, 0xCAFE, 2);
    assert_int_equal(mm_in(h, LFB + 0x20004, 2), 0xCAFE);
    dispi(h, 5, 0x12); /* of 16 */
    assert_int_equal(dispi_get(h, 5), 2);
    /* Not cleared when asked not to. */
    dispi(h, 4, 0);
    dispi(h, 4, 0xC1);
    assert_int_equal(mm_in(h, LFB + 0x20004, 2), 0xCAFE);
    /* What does not fit is cut. */
    dispi(h, 2, 2000);
    assert_int_equal(dispi_get(h, 2), VGA_BYTES / (320 * 4));
    dispi(h, 3, 7);
    assert_int_equal(dispi_get(h, 3), 8);

    /* The same registers in BAR 2. */
    assert_int_equal(mm_in(h, MMIO + 0x500 + 2, 2), 320);
    mm_out(h, MMIO + 0x500 + 2, 640, 2);
    assert_int_equal(dispi_get(h, 1), 640);
    mm_out(h, MMIO + 0x404, 0x0502, 2); /* port 3C4H */
    outb(h, 0x3C4, 2);
    assert_int_equal(inb(h, 0x3C5), 5);
    assert_int_equal(mm_in(h, MMIO + 0x600, 4), 8);
    assert_int_equal(mm_in(h, MMIO + 0x604, 4), 0x1E1E1E1E);
    harness_destroy(h);
}

/* The monitor: checksum, the preferred mode, a name, and nothing behind it. */
static void test_edid(void **state)
{
    struct harness *h = create_vga();
    uint8_t e[128], sum = 0;

    for (unsigned n = 0; n < sizeof e; n++)
        sum += e[n] = (uint8_t)mm_in(h, MMIO + n, 1);
    assert_int_equal(sum, 0);
    assert_memory_equal(e, "\0\xFF\xFF\xFF\xFF\xFF\xFF\0", 8);
    assert_int_equal(e[56] | (e[58] & 0xF0) << 4, 1280);
    assert_int_equal(e[59] | (e[61] & 0xF0) << 4, 800);
    assert_memory_equal(e + 75, "\xFC\0Vireo\n", 8);
    for (unsigned n = 0; n < sizeof e; n += 4)
        assert_int_equal(mm_in(h, MMIO + n, 4), le32_get(e + n));
    for (unsigned n = sizeof e; n < 0x400; n += 4)
        assert_int_equal(mm_in(h, MMIO + n, 4), 0);
    mm_out(h, MMIO + 56, 0, 4);
    assert_int_equal(mm_in(h, MMIO + 56, 1), e[56]);
    harness_destroy(h);
}

/* ---- hostile registers ---- */

static uint64_t any_op(struct harness *h, uint64_t random)
{
    static const uint16_t ports[] = {0x3B4, 0x3B5, 0x3BA, 0x3C0, 0x3C1, 0x3C2, 0x3C4, 0x3C5, 0x3C6,
                                     0x3C7, 0x3C8, 0x3C9, 0x3CE, 0x3CF, 0x3D4, 0x3D5, 0x3DA};
    struct display_source source = vga_source(h->dev[DEV_VGA]);
    uint32_t value = (uint32_t)(random >> 32);
    uint64_t at = 0xA0000 + (random >> 8) % 0x20000;
    struct text_screen *text;
    struct surface s = {0};
    uint64_t sum = 0;

    switch (random % 16) {
    case 0:
    case 1:
        mm_out(h, at, value, 1u << (random >> 28 & 3));
        return 0;
    case 2:
        return mm_in(h, at, 1u << (random >> 28 & 3));
    case 3:
        /* The modes that are real are rarely met by chance. */
        set_mode(h, (const struct bios_mode *[]){&mode_03, &mode_04, &mode_06, &mode_12,
                                                 &mode_13}[(random >> 8) % 5]);
        return 0;
    case 4:
    case 5:
        dispi(h, (random >> 8) % 11, random >> 20 & 1 ? (uint16_t)value : (uint16_t)(value & 0xFF));
        return dispi_get(h, (random >> 12) % 11);
    case 6:
        mm_out(h, MMIO + (random >> 8) % 0x1000, value, 1u << (random >> 28) % 3);
        return 0;
    case 7:
        mm_out(h, LFB + (random >> 8) % VGA_BYTES, value, 1);
        return 0;
    case 8:
        if (random >> 8 & 15) /* costs most */
            return 0;
        if (source.render(source.ctx, &s, random >> 16 & 1) == 0)
            for (size_t i = 0; i < (size_t)s.width * s.height; i += 97)
                sum = sum * 31 + s.pixels[i];
        surface_free(&s);
        return sum;
    case 9:
        text = test_calloc(1, sizeof *text);
        if (source.text(source.ctx, text))
            sum = text->columns * 1000 + text->rows;
        for (unsigned i = 0; i < text->columns * text->rows; i++)
            sum = sum * 31 + text->cell[i].character;
        test_free(text);
        return sum;
    case 10:
        config_out(h, 4, (uint32_t)(random >> 8 & 3));
        return 0;
    case 11:
        power_up(h);
        attr(h, 0x10, (uint8_t)value); /* the screen on */
        return 0;
    default:
        if (random >> 40 & 1)
            return inb(h, ports[(random >> 8) % ARRAY_SIZE(ports)]);
        outb(h, ports[(random >> 8) % ARRAY_SIZE(ports)], (uint8_t)value);
        return 0;
    }
}

static void test_fuzz(void **state)
{
    for (uint64_t seed = 1; seed <= 4; seed++)
        harness_fuzz(build_vga, any_op, 15000, seed * 7919);
}

static void test_reset(void **state)
{
    struct harness *h = create_vga();

    set_mode(h, &mode_03);
    dispi_mode(h, 640, 480, 32);
    harness_reset(h);
    assert_int_equal(inb(h, 0x3CC), 0xFF); /* claims nothing */
    assert_int_equal(mm_in(h, 0xB8000, 1), 0xFF);
    power_up(h);
    assert_int_equal(inb(h, 0x3CC), 0);
    assert_int_equal(dispi_get(h, 4), 0);
    harness_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers),    cmocka_unit_test(test_attribute),
        cmocka_unit_test(test_dac),          cmocka_unit_test(test_retrace),
        cmocka_unit_test(test_decoding),     cmocka_unit_test(test_write_mode_0),
        cmocka_unit_test(test_write_modes_1_2_3), cmocka_unit_test(test_read_modes),
        cmocka_unit_test(test_odd_even),     cmocka_unit_test(test_chain4),
        cmocka_unit_test(test_dispi),        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_edid),         cmocka_unit_test(test_fuzz),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
