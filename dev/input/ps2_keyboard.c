/*
 * PS/2 keyboard: IBM PS/2 Hardware Interface Technical Reference, "101- and
 * 102-Key Keyboards". See ps2_keyboard.h.
 *
 * Replies to commands overtake waiting scan codes, as a keyboard answers a
 * command before it goes on with keys. Key codes are made for set 2 and, for
 * set 1, put through the same translation that the 8042 applies.
 *
 * Threading: with the machine's lock held, but for ps2_keyboard_key().
 */
#include "dev/input/ps2_keyboard.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/input/keymap.h"

enum keyboard_command {
    CMD_NONE = 0,
    CMD_SET_LEDS = 0xED,
    CMD_ECHO = 0xEE,
    CMD_SCAN_CODE_SET = 0xF0,
    CMD_IDENTIFY = 0xF2,
    CMD_TYPEMATIC = 0xF3,
    CMD_ENABLE = 0xF4,
    CMD_DEFAULT_DISABLE = 0xF5,
    CMD_DEFAULT = 0xF6,
    CMD_ALL_TYPEMATIC = 0xF7, /* F7-FD matter in set 3 only */
    CMD_ALL_MAKE_BREAK = 0xF8,
    CMD_ALL_MAKE = 0xF9,
    CMD_ALL_TYPEMATIC_MAKE_BREAK = 0xFA,
    CMD_KEY_TYPEMATIC = 0xFB,
    CMD_KEY_MAKE_BREAK = 0xFC,
    CMD_KEY_MAKE = 0xFD,
    CMD_RESEND = 0xFE,
    CMD_RESET = 0xFF,
};

enum keyboard_reply {
    REPLY_ACK = 0xFA,
    REPLY_RESEND = 0xFE,
    REPLY_BAT_OK = 0xAA,
    REPLY_ECHO = 0xEE,
    REPLY_OVERRUN_SET1 = 0xFF,
    REPLY_OVERRUN = 0x00,
};

enum {
    BREAK_PREFIX = 0xF0,
    E0_PREFIX = 0xE0,
    LED_MASK = 0x07,
    TYPEMATIC_DEFAULT = 0x2B, /* 500 ms, 10.9 a second */
    TYPEMATIC_MASK = 0x7F,
    KEY_COUNT = 256, /* key codes tracked as being down */
    SEQUENCE_MAX = 8,
};

/* Set 3: keys that send a break code, or repeat. */
enum key_type {
    KEY_BREAKS = 1 << 0,
    KEY_REPEATS = 1 << 1,
};

struct ps2_keyboard {
    struct vm *vm;
    const char *name;
    struct ps2_device device;

    struct ps2_queue replies, keys;
    bool overrun;    /* told once for a full queue */
    uint8_t command; /* waiting for its argument */
    uint8_t scan_set;
    bool scanning;
    uint8_t leds;
    uint8_t typematic;
    uint8_t last_sent;
    uint8_t key_types[256]; /* by set 3 code */
    uint8_t down[KEY_COUNT];
    uint16_t repeating; /* key code, 0: none */
    struct timer repeat;
};

/* ---- scan codes ---- */

static bool is_down(const struct ps2_keyboard *k, uint16_t a, uint16_t b)
{
    return k->down[a] || k->down[b];
}

static unsigned sequence_copy(uint8_t *out, const uint8_t *data, unsigned count)
{
    memcpy(out, data, count);
    return count;
}

/* Set 2. Print Screen carries the shift state that PC/XT software needed;
 * Pause has no break code. */
static unsigned sequence_set2(const struct ps2_keyboard *k, uint16_t keycode, bool down,
                              uint8_t out[SEQUENCE_MAX])
{
    static const uint8_t print_make[] = {0xE0, 0x12, 0xE0, 0x7C};
    static const uint8_t print_break[] = {0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12};
    static const uint8_t pause[] = {0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77};
    static const uint8_t ctrl_pause[] = {0xE0, 0x7E, 0xE0, 0xF0, 0x7E};
    bool ctrl = is_down(k, KEYMAP_LEFT_CTRL, KEYMAP_RIGHT_CTRL);
    bool shift = is_down(k, KEYMAP_LEFT_SHIFT, KEYMAP_RIGHT_SHIFT);
    bool alt = is_down(k, KEYMAP_LEFT_ALT, KEYMAP_RIGHT_ALT);
    unsigned count = 0;
    uint16_t set1;
    uint8_t code;

    if (keycode == KEYMAP_PAUSE) {
        if (!down)
            return 0;
        return ctrl ? sequence_copy(out, ctrl_pause, sizeof ctrl_pause)
                    : sequence_copy(out, pause, sizeof pause);
    }
    if (keycode == KEYMAP_SYSRQ && !alt && !ctrl && !shift)
        return down ? sequence_copy(out, print_make, sizeof print_make)
                    : sequence_copy(out, print_break, sizeof print_break);
    if (keycode == KEYMAP_SYSRQ) {
        set1 = alt ? 0x54 : KEYMAP_E0 | 0x37;
    } else {
        set1 = keymap_set1(keycode);
    }
    code = ps2_set2_of_set1(set1 & 0xFF);
    if (!set1 || !code)
        return 0;
    if (set1 & KEYMAP_E0)
        out[count++] = E0_PREFIX;
    if (!down)
        out[count++] = BREAK_PREFIX;
    out[count++] = code;
    return count;
}

static unsigned sequence_set1(const struct ps2_keyboard *k, uint16_t keycode, bool down,
                              uint8_t out[SEQUENCE_MAX])
{
    uint8_t set2[SEQUENCE_MAX], released = 0;
    unsigned count = 0, length = sequence_set2(k, keycode, down, set2);

    for (unsigned i = 0; i < length; i++) {
        if (set2[i] == BREAK_PREFIX) {
            released = 0x80;
            continue;
        }
        out[count++] = ps2_set1_of_set2(set2[i]) | released;
        released = 0;
    }
    return count;
}

static unsigned sequence_set3(const struct ps2_keyboard *k, uint16_t keycode, bool down,
                              uint8_t out[SEQUENCE_MAX])
{
    uint8_t code = keymap_set3(keycode);
    unsigned count = 0;

    if (!code || (!down && !(k->key_types[code] & KEY_BREAKS)))
        return 0;
    if (!down)
        out[count++] = BREAK_PREFIX;
    out[count++] = code;
    return count;
}

static void send_key(struct ps2_keyboard *k, uint16_t keycode, bool down)
{
    uint8_t sequence[SEQUENCE_MAX], lost;
    unsigned count;

    if (k->scan_set == 1)
        count = sequence_set1(k, keycode, down, sequence);
    else if (k->scan_set == 2)
        count = sequence_set2(k, keycode, down, sequence);
    else
        count = sequence_set3(k, keycode, down, sequence);
    if (!count)
        return;
    /* Room for the overrun code is kept at the end. */
    if (k->keys.count + count < PS2_QUEUE_BYTES) {
        ps2_queue_put(&k->keys, sequence, count);
        k->overrun = false;
    } else if (!k->overrun) {
        lost = k->scan_set == 1 ? REPLY_OVERRUN_SET1 : REPLY_OVERRUN;
        k->overrun = ps2_queue_put(&k->keys, &lost, 1);
    }
    ps2_device_ready(&k->device);
}

/* ---- typematic ---- */

static uint64_t repeat_delay_ns(const struct ps2_keyboard *k)
{
    return (1 + (k->typematic >> 5 & 3)) * 250 * NS_PER_MS;
}

/* (8 + A) * 2^B / 240 s. */
static uint64_t repeat_period_ns(const struct ps2_keyboard *k)
{
    return (8 + (k->typematic & 7)) * (NS_PER_SEC << (k->typematic >> 3 & 3)) / 240;
}

static bool key_repeats(const struct ps2_keyboard *k, uint16_t keycode)
{
    if (keycode == KEYMAP_PAUSE)
        return false;
    return k->scan_set != 3 || (k->key_types[keymap_set3(keycode)] & KEY_REPEATS);
}

static void repeat_stop(struct ps2_keyboard *k)
{
    k->repeating = 0;
    timer_cancel(&k->repeat);
}

static void repeat_fire(void *ctx)
{
    struct ps2_keyboard *k = ctx;

    if (!k->repeating)
        return;
    /* A guest that does not read gets no backlog of repeats. */
    if (!k->keys.count)
        send_key(k, k->repeating, true);
    timer_arm(&k->repeat, clock_now_ns(&k->vm->clock) + repeat_period_ns(k));
}

/* ---- keys from outside ---- */

static void key_event(void *ctx, const uint8_t *data, size_t bytes)
{
    struct ps2_keyboard *k = ctx;
    uint16_t keycode;
    bool down, was_down;

    if (bytes != 3)
        return;
    keycode = le16_get(data);
    down = data[2];
    if (!keycode || keycode >= KEY_COUNT)
        return;
    was_down = k->down[keycode];
    if (was_down == down)
        return; /* the sender's own repeats: ours come from the timer */
    k->down[keycode] = down;
    if (!down && k->repeating == keycode)
        repeat_stop(k);
    if (!k->scanning)
        return;
    send_key(k, keycode, down);
    if (down && key_repeats(k, keycode)) {
        k->repeating = keycode;
        timer_arm(&k->repeat, clock_now_ns(&k->vm->clock) + repeat_delay_ns(k));
    }
}

void ps2_keyboard_key(struct ps2_keyboard *k, uint16_t keycode, bool down)
{
    uint8_t data[3] = {0, 0, down};

    le16_put(data, keycode);
    vm_input(k->vm, INPUT_KEY, k->name, key_event, k, data, sizeof data);
}

uint8_t ps2_keyboard_leds(const struct ps2_keyboard *k)
{
    return k->leds;
}

/* ---- commands ---- */

static void reply(struct ps2_keyboard *k, uint8_t byte)
{
    ps2_queue_put(&k->replies, &byte, 1);
}

static void set_all_types(struct ps2_keyboard *k, uint8_t type)
{
    memset(k->key_types, type, sizeof k->key_types);
}

/* Set 3's own defaults: the typewriter keys repeat, shifts and locks make and
 * break, all others only make. */
static void default_types(struct ps2_keyboard *k)
{
    static const uint8_t make_break[] = {0x11, 0x12, 0x14, 0x19, 0x59};
    static const uint8_t typematic[][2] = {
        {0x0D, 0x0E}, {0x15, 0x16}, {0x1A, 0x1E}, {0x21, 0x26}, {0x29, 0x2E}, {0x31, 0x36},
        {0x3A, 0x3E}, {0x41, 0x46}, {0x49, 0x4E}, {0x52, 0x55}, {0x5A, 0x5C}, {0x60, 0x61},
        {0x63, 0x64}, {0x66, 0x66}, {0x6A, 0x6A}, {0x13, 0x13}, {0x7C, 0x7C},
    };

    set_all_types(k, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(typematic); i++)
        memset(k->key_types + typematic[i][0], KEY_REPEATS, typematic[i][1] - typematic[i][0] + 1u);
    for (unsigned i = 0; i < ARRAY_SIZE(make_break); i++)
        k->key_types[make_break[i]] = KEY_BREAKS;
}

static void defaults(struct ps2_keyboard *k)
{
    repeat_stop(k);
    ps2_queue_clear(&k->keys);
    k->overrun = false;
    k->typematic = TYPEMATIC_DEFAULT;
    k->scan_set = 2;
    default_types(k);
}

static void argument(struct ps2_keyboard *k, uint8_t command, uint8_t value)
{
    switch ((enum keyboard_command)command) {
    case CMD_SET_LEDS:
        k->leds = value & LED_MASK;
        reply(k, REPLY_ACK);
        break;
    case CMD_SCAN_CODE_SET:
        if (value > 3) {
            reply(k, REPLY_RESEND);
            break;
        }
        reply(k, REPLY_ACK);
        if (value == 0) {
            reply(k, k->scan_set);
            break;
        }
        repeat_stop(k);
        ps2_queue_clear(&k->keys);
        k->scan_set = value;
        break;
    case CMD_TYPEMATIC:
        k->typematic = value & TYPEMATIC_MASK;
        reply(k, REPLY_ACK);
        break;
    case CMD_KEY_TYPEMATIC:
    case CMD_KEY_MAKE_BREAK:
    case CMD_KEY_MAKE:
        k->key_types[value] = command == CMD_KEY_TYPEMATIC    ? KEY_REPEATS
                              : command == CMD_KEY_MAKE_BREAK ? KEY_BREAKS
                                                              : 0;
        reply(k, REPLY_ACK);
        k->command = command; /* more keys may follow, until a command */
        break;
    default:
        break;
    }
}

static void command(struct ps2_keyboard *k, uint8_t byte)
{
    switch ((enum keyboard_command)byte) {
    case CMD_SET_LEDS:
    case CMD_SCAN_CODE_SET:
    case CMD_TYPEMATIC:
        k->command = byte;
        reply(k, REPLY_ACK);
        break;
    case CMD_KEY_TYPEMATIC:
    case CMD_KEY_MAKE_BREAK:
    case CMD_KEY_MAKE:
        k->command = byte;
        k->scanning = false; /* as the manual has it: F4 goes on */
        repeat_stop(k);
        reply(k, REPLY_ACK);
        break;
    case CMD_ECHO:
        reply(k, REPLY_ECHO);
        break;
    case CMD_IDENTIFY:
        reply(k, REPLY_ACK);
        reply(k, 0xAB);
        reply(k, 0x83);
        break;
    case CMD_ENABLE:
        ps2_queue_clear(&k->keys);
        k->overrun = false;
        k->scanning = true;
        reply(k, REPLY_ACK);
        break;
    case CMD_DEFAULT_DISABLE:
        defaults(k);
        k->scanning = false;
        reply(k, REPLY_ACK);
        break;
    case CMD_DEFAULT:
        defaults(k);
        reply(k, REPLY_ACK);
        break;
    case CMD_ALL_TYPEMATIC:
        set_all_types(k, KEY_REPEATS);
        reply(k, REPLY_ACK);
        break;
    case CMD_ALL_MAKE_BREAK:
        set_all_types(k, KEY_BREAKS);
        reply(k, REPLY_ACK);
        break;
    case CMD_ALL_MAKE:
        set_all_types(k, 0);
        reply(k, REPLY_ACK);
        break;
    case CMD_ALL_TYPEMATIC_MAKE_BREAK:
        set_all_types(k, KEY_BREAKS | KEY_REPEATS);
        reply(k, REPLY_ACK);
        break;
    case CMD_RESEND:
        reply(k, k->last_sent);
        break;
    case CMD_RESET:
        defaults(k);
        ps2_queue_clear(&k->replies);
        k->leds = 0;
        k->scanning = true;
        reply(k, REPLY_ACK);
        reply(k, REPLY_BAT_OK);
        break;
    default:
        reply(k, REPLY_RESEND);
        break;
    }
}

static bool takes_argument(uint8_t pending, uint8_t byte)
{
    /* Set 3 codes of keys may look like commands only from EDH on. */
    return pending != CMD_NONE && byte < CMD_SET_LEDS;
}

static void keyboard_write(void *self, uint8_t byte)
{
    struct ps2_keyboard *k = self;
    uint8_t pending = k->command;

    k->command = CMD_NONE;
    if (takes_argument(pending, byte))
        argument(k, pending, byte);
    else
        command(k, byte);
    ps2_device_ready(&k->device);
}

static bool keyboard_read(void *self, uint8_t *byte)
{
    struct ps2_keyboard *k = self;

    if (!ps2_queue_get(&k->replies, byte) && !ps2_queue_get(&k->keys, byte))
        return false;
    if (*byte != REPLY_RESEND)
        k->last_sent = *byte;
    return true;
}

struct ps2_device *ps2_keyboard_device(struct ps2_keyboard *k)
{
    return &k->device;
}

/* ---- life ---- */

static void keyboard_reset(void *self)
{
    struct ps2_keyboard *k = self;

    defaults(k);
    ps2_queue_clear(&k->replies);
    k->command = CMD_NONE;
    k->scanning = true;
    k->leds = 0;
    k->last_sent = 0;
    memset(k->down, 0, sizeof k->down);
}

static void keyboard_destroy(void *self)
{
    struct ps2_keyboard *k = self;

    timer_destroy(&k->repeat);
    free(k);
}

static int keyboard_after_load(void *self, unsigned version)
{
    struct ps2_keyboard *k = self;

    if (!ps2_queue_is_valid(&k->replies) || !ps2_queue_is_valid(&k->keys) || k->scan_set < 1 ||
        k->scan_set > 3 || k->repeating >= KEY_COUNT)
        return -EINVAL;
    return 0;
}

static const struct state_field keyboard_fields[] = {
    STATE_STRUCT(struct ps2_keyboard, replies, &ps2_queue_state),
    STATE_STRUCT(struct ps2_keyboard, keys, &ps2_queue_state),
    STATE_INT(struct ps2_keyboard, overrun),
    STATE_INT(struct ps2_keyboard, command),
    STATE_INT(struct ps2_keyboard, scan_set),
    STATE_INT(struct ps2_keyboard, scanning),
    STATE_INT(struct ps2_keyboard, leds),
    STATE_INT(struct ps2_keyboard, typematic),
    STATE_INT(struct ps2_keyboard, last_sent),
    STATE_BYTES(struct ps2_keyboard, key_types),
    STATE_BYTES(struct ps2_keyboard, down),
    STATE_INT(struct ps2_keyboard, repeating),
    STATE_TIMER(struct ps2_keyboard, repeat),
    STATE_END,
};

static const struct state_table keyboard_state = {
    .name = "ps2-keyboard",
    .version = 1,
    .fields = keyboard_fields,
    .after_load = keyboard_after_load,
};

static const struct dev_type keyboard_type = {
    .name = "ps2-keyboard",
    .reset = keyboard_reset,
    .destroy = keyboard_destroy,
    .state = &keyboard_state,
};

struct ps2_keyboard *ps2_keyboard_create(struct vm *vm, const char *name, struct error *err)
{
    struct ps2_keyboard *k = calloc(1, sizeof *k);

    if (!k) {
        error_set(err, -ENOMEM, "out of memory for the keyboard");
        return NULL;
    }
    k->vm = vm;
    k->name = name;
    k->device = (struct ps2_device){.self = k, .write = keyboard_write, .read = keyboard_read};
    timer_init(&k->repeat, vm, repeat_fire, k);
    keyboard_reset(k);
    vm_add_device(vm, &keyboard_type, name, k);
    return k;
}
