/*
 * PS/2 mouse: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; the
 * wheel and buttons 4 and 5 as Microsoft's IntelliMouse has them (sample rates
 * 200, 100, 80 make it a 3; 200, 200, 80 a 4). See ps2_mouse.h.
 *
 * Motion is summed up and turned into packets as the guest takes them, so
 * that a slow guest gets fewer packets and never a backlog.
 *
 * Threading: with the machine's lock held, but for ps2_mouse_move().
 */
#include "dev/input/ps2_mouse.h"

#include <errno.h>
#include <stdlib.h>

enum mouse_command {
    CMD_NONE = 0,
    CMD_SCALING_1 = 0xE6,
    CMD_SCALING_2 = 0xE7,
    CMD_RESOLUTION = 0xE8,
    CMD_STATUS = 0xE9,
    CMD_STREAM = 0xEA,
    CMD_READ_DATA = 0xEB,
    CMD_WRAP_OFF = 0xEC,
    CMD_WRAP = 0xEE,
    CMD_REMOTE = 0xF0,
    CMD_IDENTIFY = 0xF2,
    CMD_SAMPLE_RATE = 0xF3,
    CMD_ENABLE = 0xF4,
    CMD_DISABLE = 0xF5,
    CMD_DEFAULT = 0xF6,
    CMD_RESEND = 0xFE,
    CMD_RESET = 0xFF,
};

enum mouse_reply {
    REPLY_ACK = 0xFA,
    REPLY_BAT_OK = 0xAA,
    REPLY_ERROR = 0xFC, /* the second wrong byte in a row */
    REPLY_RESEND = 0xFE,
};

enum mouse_id {
    ID_STANDARD = 0,
    ID_WHEEL = 3,
    ID_FIVE_BUTTONS = 4,
};

enum mouse_status {
    STATUS_SCALING_2 = 1 << 4,
    STATUS_ENABLED = 1 << 5,
    STATUS_REMOTE = 1 << 6,
};

enum mouse_packet {
    PACKET_ALWAYS_1 = 1 << 3,
    PACKET_X_SIGN = 1 << 4,
    PACKET_Y_SIGN = 1 << 5,
    PACKET_BUTTONS = 7,
};

struct ps2_mouse {
    struct vm *vm;
    const char *name;
    struct ps2_device device;

    struct ps2_queue queue;
    uint8_t command; /* waiting for its argument */
    uint8_t id;
    uint8_t rates[3]; /* the last sample rates set, for the knock */
    uint8_t sample_rate, resolution;
    bool scaling_2, remote, wrap, enabled;
    bool wrong; /* the last byte was no command */
    uint8_t last_sent;
    uint8_t buttons, sent_buttons;
    int32_t dx, dy, dz; /* not sent yet; dy up, as in packets */
};

#define DELTA_LIMIT 4096 /* motion that a guest has not fetched by then is stale */

/* ---- packets ---- */

static int32_t clamp(int32_t v, int32_t limit)
{
    return v > limit ? limit : v < -limit ? -limit : v;
}

/* Non-linear scaling for 2:1 in stream mode. */
static int32_t scaled(int32_t v)
{
    static const uint8_t small[6] = {0, 1, 1, 3, 6, 9};
    int32_t magnitude = abs(v);

    magnitude = magnitude < 6 ? small[magnitude] : 2 * magnitude;
    return v < 0 ? -magnitude : magnitude;
}

static unsigned packet_bytes(const struct ps2_mouse *m)
{
    return m->id == ID_STANDARD ? 3 : 4;
}

static bool put_packet(struct ps2_mouse *m)
{
    int32_t limit = m->scaling_2 && !m->remote ? 127 : 255;
    int32_t dx = clamp(m->dx, limit), dy = clamp(m->dy, limit);
    int32_t dz = m->id == ID_STANDARD ? 0 : clamp(m->dz, 7);
    int32_t out_x = dx, out_y = dy;
    uint8_t packet[4];

    if (m->queue.count + packet_bytes(m) > PS2_QUEUE_BYTES)
        return false;
    if (m->scaling_2 && !m->remote) {
        out_x = scaled(dx);
        out_y = scaled(dy);
    }
    packet[0] = PACKET_ALWAYS_1 | (m->buttons & PACKET_BUTTONS) | (out_x < 0 ? PACKET_X_SIGN : 0) |
                (out_y < 0 ? PACKET_Y_SIGN : 0);
    packet[1] = (uint8_t)out_x;
    packet[2] = (uint8_t)out_y;
    packet[3] = (uint8_t)dz;
    if (m->id == ID_FIVE_BUTTONS)
        packet[3] = (uint8_t)((dz & 0x0F) | (m->buttons & (PS2_MOUSE_4 | PS2_MOUSE_5)) << 1);
    ps2_queue_put(&m->queue, packet, packet_bytes(m));
    m->dx -= dx;
    m->dy -= dy;
    m->dz = m->id == ID_STANDARD ? 0 : m->dz - dz;
    m->sent_buttons = m->buttons;
    return true;
}

static bool has_news(const struct ps2_mouse *m)
{
    return m->dx || m->dy || (m->dz && m->id != ID_STANDARD) || m->buttons != m->sent_buttons;
}

/* Stream mode: one packet at a time, the next when it has been read. */
static void stream(struct ps2_mouse *m)
{
    if (m->enabled && !m->remote && !m->wrap && !m->queue.count && has_news(m) && put_packet(m))
        ps2_device_ready(&m->device);
}

/* ---- motion from outside ---- */

enum move_event { MOVE_DX = 0, MOVE_DY = 4, MOVE_DZ = 8, MOVE_BUTTONS = 12, MOVE_BYTES = 13 };

static void move_event(void *ctx, const uint8_t *data, size_t bytes)
{
    struct ps2_mouse *m = ctx;

    if (bytes != MOVE_BYTES)
        return;
    m->dx = clamp(m->dx + clamp((int32_t)le32_get(data + MOVE_DX), DELTA_LIMIT), DELTA_LIMIT);
    m->dy = clamp(m->dy - clamp((int32_t)le32_get(data + MOVE_DY), DELTA_LIMIT), DELTA_LIMIT);
    m->dz = clamp(m->dz + clamp((int32_t)le32_get(data + MOVE_DZ), DELTA_LIMIT), DELTA_LIMIT);
    m->buttons = data[MOVE_BUTTONS] & 0x1F;
    stream(m);
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons)
{
    uint8_t data[MOVE_BYTES];

    le32_put(data + MOVE_DX, (uint32_t)dx);
    le32_put(data + MOVE_DY, (uint32_t)dy);
    le32_put(data + MOVE_DZ, (uint32_t)dz);
    data[MOVE_BUTTONS] = (uint8_t)buttons;
    vm_input(m->vm, INPUT_KEY, m->name, move_event, m, data, sizeof data);
}

/* ---- commands ---- */

static void reply(struct ps2_mouse *m, uint8_t byte)
{
    ps2_queue_put(&m->queue, &byte, 1);
}

static void forget_motion(struct ps2_mouse *m)
{
    m->dx = 0;
    m->dy = 0;
    m->dz = 0;
}

static void defaults(struct ps2_mouse *m)
{
    m->sample_rate = 100;
    m->resolution = 2;
    m->scaling_2 = false;
    m->remote = false;
    m->wrap = false;
    m->enabled = false;
    forget_motion(m);
}

static void set_sample_rate(struct ps2_mouse *m, uint8_t rate)
{
    m->sample_rate = rate;
    m->rates[0] = m->rates[1];
    m->rates[1] = m->rates[2];
    m->rates[2] = rate;
    if (m->rates[0] == 200 && m->rates[1] == 100 && m->rates[2] == 80)
        m->id = ID_WHEEL;
    else if (m->rates[0] == 200 && m->rates[1] == 200 && m->rates[2] == 80)
        m->id = ID_FIVE_BUTTONS;
}

static void report_status(struct ps2_mouse *m)
{
    /* Left is bit 2, middle 1, right 0: not the order of packets. */
    uint8_t buttons = (m->buttons & PS2_MOUSE_LEFT ? 4 : 0) |
                      (m->buttons & PS2_MOUSE_MIDDLE ? 2 : 0) |
                      (m->buttons & PS2_MOUSE_RIGHT ? 1 : 0);

    reply(m, REPLY_ACK);
    reply(m, buttons | (m->scaling_2 ? STATUS_SCALING_2 : 0) | (m->enabled ? STATUS_ENABLED : 0) |
                 (m->remote ? STATUS_REMOTE : 0));
    reply(m, m->resolution);
    reply(m, m->sample_rate);
}

static void reset_by_command(struct ps2_mouse *m)
{
    defaults(m);
    m->id = ID_STANDARD;
    memset(m->rates, 0, sizeof m->rates);
    reply(m, REPLY_ACK);
    reply(m, REPLY_BAT_OK);
    reply(m, ID_STANDARD);
}

static void command(struct ps2_mouse *m, uint8_t byte)
{
    bool wrong = false;

    switch ((enum mouse_command)byte) {
    case CMD_SCALING_1:
    case CMD_SCALING_2:
        m->scaling_2 = byte == CMD_SCALING_2;
        reply(m, REPLY_ACK);
        break;
    case CMD_RESOLUTION:
    case CMD_SAMPLE_RATE:
        m->command = byte;
        reply(m, REPLY_ACK);
        break;
    case CMD_STATUS:
        report_status(m);
        break;
    case CMD_STREAM:
    case CMD_REMOTE:
        m->remote = byte == CMD_REMOTE;
        forget_motion(m);
        reply(m, REPLY_ACK);
        break;
    case CMD_READ_DATA:
        reply(m, REPLY_ACK);
        put_packet(m);
        break;
    case CMD_WRAP_OFF:
        reply(m, REPLY_ACK);
        break;
    case CMD_WRAP:
        m->wrap = true;
        forget_motion(m);
        reply(m, REPLY_ACK);
        break;
    case CMD_IDENTIFY:
        reply(m, REPLY_ACK);
        reply(m, m->id);
        break;
    case CMD_ENABLE:
    case CMD_DISABLE:
        m->enabled = byte == CMD_ENABLE;
        forget_motion(m);
        reply(m, REPLY_ACK);
        break;
    case CMD_DEFAULT:
        defaults(m);
        reply(m, REPLY_ACK);
        break;
    case CMD_RESEND:
        reply(m, m->last_sent);
        break;
    case CMD_RESET:
        reset_by_command(m);
        break;
    default:
        reply(m, m->wrong ? REPLY_ERROR : REPLY_RESEND);
        wrong = true;
        break;
    }
    m->wrong = wrong;
}

static void mouse_write(void *self, uint8_t byte)
{
    struct ps2_mouse *m = self;
    uint8_t pending = m->command;

    /* Each command interrupts what was being sent. */
    ps2_queue_clear(&m->queue);
    m->command = CMD_NONE;
    if (m->wrap && byte != CMD_RESET && byte != CMD_WRAP_OFF) {
        reply(m, byte);
    } else if (m->wrap && byte == CMD_WRAP_OFF) {
        m->wrap = false;
        reply(m, REPLY_ACK);
    } else if (pending == CMD_RESOLUTION && byte <= 3) {
        m->resolution = byte;
        reply(m, REPLY_ACK);
    } else if (pending == CMD_SAMPLE_RATE && byte && byte <= 200) {
        set_sample_rate(m, byte);
        reply(m, REPLY_ACK);
    } else {
        command(m, byte);
    }
    ps2_device_ready(&m->device);
}

static bool mouse_read(void *self, uint8_t *byte)
{
    struct ps2_mouse *m = self;

    if (!m->queue.count && m->enabled && !m->remote && !m->wrap && has_news(m))
        put_packet(m);
    if (!ps2_queue_get(&m->queue, byte))
        return false;
    m->last_sent = *byte;
    return true;
}

struct ps2_device *ps2_mouse_device(struct ps2_mouse *m)
{
    return &m->device;
}

/* ---- life ---- */

static void mouse_reset(void *self)
{
    struct ps2_mouse *m = self;

    defaults(m);
    ps2_queue_clear(&m->queue);
    m->command = CMD_NONE;
    m->id = ID_STANDARD;
    memset(m->rates, 0, sizeof m->rates);
    m->wrong = false;
    m->last_sent = 0;
    m->buttons = 0;
    m->sent_buttons = 0;
}

static void mouse_destroy(void *self)
{
    free(self);
}

static int mouse_after_load(void *self, unsigned version)
{
    struct ps2_mouse *m = self;

    if (!ps2_queue_is_valid(&m->queue) ||
        (m->id != ID_STANDARD && m->id != ID_WHEEL && m->id != ID_FIVE_BUTTONS))
        return -EINVAL;
    m->dx = clamp(m->dx, DELTA_LIMIT);
    m->dy = clamp(m->dy, DELTA_LIMIT);
    m->dz = clamp(m->dz, DELTA_LIMIT);
    return 0;
}

static const struct state_field mouse_fields[] = {
    STATE_STRUCT(struct ps2_mouse, queue, &ps2_queue_state),
    STATE_INT(struct ps2_mouse, command),
    STATE_INT(struct ps2_mouse, id),
    STATE_BYTES(struct ps2_mouse, rates),
    STATE_INT(struct ps2_mouse, sample_rate),
    STATE_INT(struct ps2_mouse, resolution),
    STATE_INT(struct ps2_mouse, scaling_2),
    STATE_INT(struct ps2_mouse, remote),
    STATE_INT(struct ps2_mouse, wrap),
    STATE_INT(struct ps2_mouse, enabled),
    STATE_INT(struct ps2_mouse, wrong),
    STATE_INT(struct ps2_mouse, last_sent),
    STATE_INT(struct ps2_mouse, buttons),
    STATE_INT(struct ps2_mouse, sent_buttons),
    STATE_INT(struct ps2_mouse, dx),
    STATE_INT(struct ps2_mouse, dy),
    STATE_INT(struct ps2_mouse, dz),
    STATE_END,
};

static const struct state_table mouse_state = {
    .name = "ps2-mouse",
    .version = 1,
    .fields = mouse_fields,
    .after_load = mouse_after_load,
};

static const struct dev_type mouse_type = {
    .name = "ps2-mouse",
    .reset = mouse_reset,
    .destroy = mouse_destroy,
    .state = &mouse_state,
};

struct ps2_mouse *ps2_mouse_create(struct vm *vm, const char *name, struct error *err)
{
    struct ps2_mouse *m = calloc(1, sizeof *m);

    if (!m) {
        error_set(err, -ENOMEM, "out of memory for the mouse");
        return NULL;
    }
    m->vm = vm;
    m->name = name;
    m->device = (struct ps2_device){.self = m, .write = mouse_write, .read = mouse_read};
    mouse_reset(m);
    vm_add_device(vm, &mouse_type, name, m);
    return m;
}
