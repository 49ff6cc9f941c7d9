/*
 * Scan codes of a 101/102-key keyboard and of the keys that followed it. See
 * keymap.h. Linux numbers keys by their set 1 codes as far as those go (up to
 * F10's block, F11, F12), so only the rest needs a table.
 */
#include "dev/input/keymap.h"

enum {
    LAST_PLAIN = 83,  /* keypad dot */
    FIRST_EXTRA = 86, /* the 102nd key */
    LAST_EXTRA = 127,
};

/* Set 1; E0 as bit 7, which a make code never has. */
static const uint8_t extra_set1[LAST_EXTRA - FIRST_EXTRA + 1] = {
    [86 - FIRST_EXTRA] = 0x56,         /* 102nd */
    [87 - FIRST_EXTRA] = 0x57,         /* F11 */
    [88 - FIRST_EXTRA] = 0x58,         /* F12 */
    [89 - FIRST_EXTRA] = 0x73,         /* ro */
    [92 - FIRST_EXTRA] = 0x79,         /* henkan */
    [93 - FIRST_EXTRA] = 0x70,         /* katakana/hiragana */
    [94 - FIRST_EXTRA] = 0x7B,         /* muhenkan */
    [96 - FIRST_EXTRA] = 0x80 | 0x1C,  /* keypad enter */
    [97 - FIRST_EXTRA] = 0x80 | 0x1D,  /* right ctrl */
    [98 - FIRST_EXTRA] = 0x80 | 0x35,  /* keypad slash */
    [100 - FIRST_EXTRA] = 0x80 | 0x38, /* right alt */
    [102 - FIRST_EXTRA] = 0x80 | 0x47, /* home */
    [103 - FIRST_EXTRA] = 0x80 | 0x48, /* up */
    [104 - FIRST_EXTRA] = 0x80 | 0x49, /* page up */
    [105 - FIRST_EXTRA] = 0x80 | 0x4B, /* left */
    [106 - FIRST_EXTRA] = 0x80 | 0x4D, /* right */
    [107 - FIRST_EXTRA] = 0x80 | 0x4F, /* end */
    [108 - FIRST_EXTRA] = 0x80 | 0x50, /* down */
    [109 - FIRST_EXTRA] = 0x80 | 0x51, /* page down */
    [110 - FIRST_EXTRA] = 0x80 | 0x52, /* insert */
    [111 - FIRST_EXTRA] = 0x80 | 0x53, /* delete */
    [113 - FIRST_EXTRA] = 0x80 | 0x20, /* mute */
    [114 - FIRST_EXTRA] = 0x80 | 0x2E, /* volume down */
    [115 - FIRST_EXTRA] = 0x80 | 0x30, /* volume up */
    [116 - FIRST_EXTRA] = 0x80 | 0x5E, /* power */
    [117 - FIRST_EXTRA] = 0x59,        /* keypad equal */
    [121 - FIRST_EXTRA] = 0x7E,        /* keypad comma */
    [124 - FIRST_EXTRA] = 0x7D,        /* yen */
    [125 - FIRST_EXTRA] = 0x80 | 0x5B, /* left meta */
    [126 - FIRST_EXTRA] = 0x80 | 0x5C, /* right meta */
    [127 - FIRST_EXTRA] = 0x80 | 0x5D, /* menu */
};

/* Multimedia keys, all with E0. */
static const struct {
    uint16_t keycode;
    uint8_t set1;
} media_set1[] = {
    {128, 0x68}, {140, 0x21}, {142, 0x5F}, {143, 0x63}, {155, 0x6C}, {156, 0x66},
    {157, 0x6B}, {158, 0x6A}, {159, 0x69}, {163, 0x19}, {164, 0x22}, {165, 0x10},
    {166, 0x24}, {172, 0x32}, {173, 0x67}, {217, 0x65},
};

/* Set 3, by key code (IBM PS/2 Hardware Interface Technical Reference). */
static const uint8_t set3[128] = {
    [1] = 0x08,   [2] = 0x16,   [3] = 0x1E,   [4] = 0x26,   [5] = 0x25,   [6] = 0x2E,
    [7] = 0x36,   [8] = 0x3D,   [9] = 0x3E,   [10] = 0x46,  [11] = 0x45,  [12] = 0x4E,
    [13] = 0x55,  [14] = 0x66,  [15] = 0x0D,  [16] = 0x15,  [17] = 0x1D,  [18] = 0x24,
    [19] = 0x2D,  [20] = 0x2C,  [21] = 0x35,  [22] = 0x3C,  [23] = 0x43,  [24] = 0x44,
    [25] = 0x4D,  [26] = 0x54,  [27] = 0x5B,  [28] = 0x5A,  [29] = 0x11,  [30] = 0x1C,
    [31] = 0x1B,  [32] = 0x23,  [33] = 0x2B,  [34] = 0x34,  [35] = 0x33,  [36] = 0x3B,
    [37] = 0x42,  [38] = 0x4B,  [39] = 0x4C,  [40] = 0x52,  [41] = 0x0E,  [42] = 0x12,
    [43] = 0x5C,  [44] = 0x1A,  [45] = 0x22,  [46] = 0x21,  [47] = 0x2A,  [48] = 0x32,
    [49] = 0x31,  [50] = 0x3A,  [51] = 0x41,  [52] = 0x49,  [53] = 0x4A,  [54] = 0x59,
    [55] = 0x7E,  [56] = 0x19,  [57] = 0x29,  [58] = 0x14,  [59] = 0x07,  [60] = 0x0F,
    [61] = 0x17,  [62] = 0x1F,  [63] = 0x27,  [64] = 0x2F,  [65] = 0x37,  [66] = 0x3F,
    [67] = 0x47,  [68] = 0x4F,  [69] = 0x76,  [70] = 0x5F,  [71] = 0x6C,  [72] = 0x75,
    [73] = 0x7D,  [74] = 0x84,  [75] = 0x6B,  [76] = 0x73,  [77] = 0x74,  [78] = 0x7C,
    [79] = 0x69,  [80] = 0x72,  [81] = 0x7A,  [82] = 0x70,  [83] = 0x71,  [86] = 0x13,
    [87] = 0x56,  [88] = 0x5E,  [96] = 0x79,  [97] = 0x58,  [98] = 0x77,  [99] = 0x57,
    [100] = 0x39, [102] = 0x6E, [103] = 0x63, [104] = 0x6F, [105] = 0x61, [106] = 0x6A,
    [107] = 0x65, [108] = 0x60, [109] = 0x6D, [110] = 0x67, [111] = 0x64, [119] = 0x62,
    [125] = 0x8B, [126] = 0x8C, [127] = 0x8D,
};

uint16_t keymap_set1(uint16_t keycode)
{
    if (keycode <= LAST_PLAIN)
        return keycode;
    if (keycode >= FIRST_EXTRA && keycode <= LAST_EXTRA) {
        uint8_t code = extra_set1[keycode - FIRST_EXTRA];

        return code & 0x80 ? KEYMAP_E0 | (code & 0x7F) : code;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(media_set1); i++) {
        if (media_set1[i].keycode == keycode)
            return KEYMAP_E0 | media_set1[i].set1;
    }
    return 0;
}

uint8_t keymap_set3(uint16_t keycode)
{
    return keycode < ARRAY_SIZE(set3) ? set3[keycode] : 0;
}
