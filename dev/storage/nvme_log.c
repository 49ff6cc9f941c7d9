/*
 * Log pages (NVM Express 1.4c, 5.14.1), and the numbers in them: errors, health,
 * the firmware slot, commands and their effects.
 *
 * Numbers count since the machine was started, because nothing keeps them where
 * it is not.
 */
#include "dev/storage/nvme_internal.h"

const char nvme_revision[9] = "1.0     ";

enum log_field {
    LOG_RETAIN = 1 << 15,
    LOG_MAX = 4096,
};

enum error_entry { /* figure 194 */
                   ERROR_COUNT = 0,
                   ERROR_SQID = 8,
                   ERROR_CID = 10,
                   ERROR_STATUS = 12,
                   ERROR_LOCATION = 14,
                   ERROR_LBA = 16,
                   ERROR_NSID = 24,
                   ERROR_NOWHERE = 0xFFFF,
};

enum health_log { /* figure 195 */
                  HEALTH_WARNINGS = 0,
                  HEALTH_KELVIN = 1,
                  HEALTH_SPARE = 3,
                  HEALTH_SPARE_THRESHOLD = 4,
                  HEALTH_READ_UNITS = 32, /* of 1000 sectors, begun ones included */
                  HEALTH_WRITTEN_UNITS = 48,
                  HEALTH_READS = 64,
                  HEALTH_WRITES = 80,
                  HEALTH_BUSY_MINUTES = 96,
                  HEALTH_POWER_CYCLES = 112,
                  HEALTH_POWER_HOURS = 128,
                  HEALTH_MEDIA_ERRORS = 160,
                  HEALTH_ERRORS = 176,
                  HEALTH_BYTES = 512,
                  WARNING_TEMPERATURE = 1 << 1,
};

enum effects_log { /* figures 199 and 200 */
                   EFFECTS_IO = 1024,
                   EFFECT_SUPPORTED = 1 << 0,
                   EFFECT_CONTENT = 1 << 1,
};

#define NS_A_MINUTE (60 * (uint64_t)NS_PER_SEC)

/* ---- errors ---- */

/* Where in the command the mistake is: byte, and bit << 8. */
static unsigned location_of(const struct nvme_command *c, unsigned status)
{
    switch (status) {
    case NVME_INVALID_OPCODE:
        return 0;
    case NVME_INVALID_NAMESPACE:
        return 4;
    case NVME_PRP_OFFSET:
        return c->prp1 % 4 ? 24 : 32;
    case NVME_LBA_RANGE:
        return 40;
    default:
        return ERROR_NOWHERE;
    }
}

void nvme_log_error(struct nvme *n, const struct nvme_command *c, unsigned status)
{
    uint8_t *e = n->error[0];

    memmove(n->error[1], n->error[0], sizeof n->error - sizeof n->error[0]);
    memset(e, 0, NVME_ERROR_BYTES);
    le64_put(e + ERROR_COUNT, ++n->counters.errors);
    if (!c) {
        le16_put(e + ERROR_SQID, 0xFFFF);
        le16_put(e + ERROR_CID, 0xFFFF);
        le16_put(e + ERROR_LOCATION, ERROR_NOWHERE);
        return;
    }
    le16_put(e + ERROR_SQID, c->sqid);
    le16_put(e + ERROR_CID, c->cid);
    le16_put(e + ERROR_STATUS, (uint16_t)(status << 1));
    le16_put(e + ERROR_LOCATION, (uint16_t)location_of(c, status));
    if (c->sqid)
        le64_put(e + ERROR_LBA, (uint64_t)c->dw11 << 32 | c->dw10);
    le32_put(e + ERROR_NSID, c->nsid);
}

/* ---- health ---- */

uint8_t nvme_warnings(const struct nvme *n)
{
    bool is_hot = NVME_KELVIN >= n->features.hot, is_cold = NVME_KELVIN <= n->features.cold;

    return is_hot || is_cold ? WARNING_TEMPERATURE : 0;
}

static void health(const struct nvme *n, uint8_t *d)
{
    const struct nvme_counters *k = &n->counters;
    uint64_t now = clock_now_ns(&n->vm->clock);
    uint64_t busy = k->busy_ns + (n->in_flight ? now - MIN(now, k->busy_since_ns) : 0);

    d[HEALTH_WARNINGS] = nvme_warnings(n);
    le16_put(d + HEALTH_KELVIN, NVME_KELVIN);
    d[HEALTH_SPARE] = 100;
    d[HEALTH_SPARE_THRESHOLD] = 10;
    le64_put(d + HEALTH_READ_UNITS, (k->blocks_read + 999) / 1000);
    le64_put(d + HEALTH_WRITTEN_UNITS, (k->blocks_written + 999) / 1000);
    le64_put(d + HEALTH_READS, k->reads);
    le64_put(d + HEALTH_WRITES, k->writes);
    le64_put(d + HEALTH_BUSY_MINUTES, busy / NS_A_MINUTE);
    le64_put(d + HEALTH_POWER_CYCLES, 1);
    le64_put(d + HEALTH_POWER_HOURS, now / (60 * NS_A_MINUTE));
    le64_put(d + HEALTH_MEDIA_ERRORS, k->media_errors);
    le64_put(d + HEALTH_ERRORS, k->errors);
}

static void effects(uint8_t *d)
{
    static const uint8_t admin[] = {
        NVME_DELETE_SQ, NVME_CREATE_SQ, NVME_GET_LOG,      NVME_DELETE_CQ,    NVME_CREATE_CQ,
        NVME_IDENTIFY,  NVME_ABORT,     NVME_SET_FEATURES, NVME_GET_FEATURES, NVME_ASYNC_EVENT};
    static const uint8_t reading[] = {NVME_FLUSH, NVME_READ, NVME_COMPARE};
    static const uint8_t changing[] = {NVME_WRITE, NVME_WRITE_ZEROES, NVME_DATASET};

    for (size_t i = 0; i < ARRAY_SIZE(admin); i++)
        le32_put(d + 4 * admin[i], EFFECT_SUPPORTED);
    for (size_t i = 0; i < ARRAY_SIZE(reading); i++)
        le32_put(d + EFFECTS_IO + 4 * reading[i], EFFECT_SUPPORTED);
    for (size_t i = 0; i < ARRAY_SIZE(changing); i++)
        le32_put(d + EFFECTS_IO + 4 * changing[i], EFFECT_SUPPORTED | EFFECT_CONTENT);
}

/* ---- Get Log Page ---- */

unsigned nvme_get_log(struct nvme *n, const struct nvme_command *c)
{
    uint64_t wanted = (((uint64_t)c->dw11 & 0xFFFF) << 16 | c->dw10 >> 16) * 4 + 4;
    uint64_t offset = (uint64_t)c->dw13 << 32 | c->dw12;
    bool retain = c->dw10 & LOG_RETAIN, errors = false, is_health = false;
    uint8_t data[LOG_MAX] = {0};
    uint64_t bytes;
    unsigned status;

    switch (c->dw10 & 0xFF) {
    case PAGE_ERRORS:
        bytes = sizeof n->error;
        memcpy(data, n->error, sizeof n->error);
        errors = true;
        break;
    case PAGE_HEALTH: /* of the controller: namespaces have none of their own */
        if (c->nsid && c->nsid != NVME_ALL_NAMESPACES)
            return c->nsid == NVME_NAMESPACE ? NVME_INVALID_FIELD : NVME_INVALID_NAMESPACE;
        bytes = HEALTH_BYTES;
        health(n, data);
        is_health = true;
        break;
    case PAGE_FIRMWARE:
        bytes = 512;
        data[0] = 1; /* slot 1 is active */
        memcpy(data + 8, nvme_revision, 8);
        break;
    case PAGE_EFFECTS:
        bytes = 4096;
        effects(data);
        break;
    default:
        return NVME_INVALID_LOG;
    }
    if (wanted > NVME_DATA_MAX || offset % 4 || offset > bytes)
        return NVME_INVALID_FIELD;
    /* What is wanted past the end is undefined, and left as it is. */
    status = nvme_reply(n, c, wanted, data + offset, bytes - offset);
    if (!status && !retain && errors)
        nvme_events_seen(n, EVENT_TYPE_ERROR);
    if (!status && !retain && is_health)
        nvme_events_seen(n, EVENT_TYPE_HEALTH);
    return status;
}
