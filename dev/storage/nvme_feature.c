/*
 * Get and Set Features (NVM Express 1.4c, 5.14 and 5.21): what 1.4 makes
 * mandatory, and the volatile write cache. None can be saved; a reset brings the
 * defaults back.
 */
#include "dev/storage/nvme_internal.h"

enum feature_select { SELECT_CURRENT, SELECT_DEFAULT, SELECT_SAVED, SELECT_CAPABILITIES };

enum feature_bits {
    CAPABILITY_NAMESPACE = 1 << 1,
    CAPABILITY_CHANGEABLE = 1 << 2,
    ERROR_RECOVERY_TIME = 0xFFFF,
    TEMPERATURE_SENSOR_SHIFT = 16,
    TEMPERATURE_COLD = 1 << 20,
    TEMPERATURE_TYPE_SHIFT = 20,
    ALL_SENSORS = 15,
    VECTOR_NOT_COALESCED = 1 << 16,
    EVENTS_HEALTH = 0x3F, /* critical warnings that are events */
    QUEUES_NONE = 0xFFFF,
};
#define FEATURE_SAVE (1u << 31)

static const struct nvme_features defaults = {
    .arbitration = 3,
    .write_cache = 1,
    .hot = NVME_KELVIN_WARNING,
};

void nvme_features_reset(struct nvme *n)
{
    n->features = defaults;
}

bool nvme_features_are_possible(const struct nvme *n)
{
    const struct nvme_features *f = &n->features;

    for (unsigned v = 0; v < NVME_QUEUES; v++)
        if (f->not_coalesced[v] > 1)
            return false;
    return f->write_cache <= 1 && f->error_recovery <= ERROR_RECOVERY_TIME &&
           f->coalescing <= 0xFFFF && f->atomicity <= 1 && f->events <= EVENTS_HEALTH;
}

static unsigned temperature(const struct nvme_features *f, const struct nvme_command *c,
                            uint32_t *result)
{
    /* There is the composite temperature only, and thresholds on two sides. */
    if (c->dw11 >> TEMPERATURE_SENSOR_SHIFT & 15 || c->dw11 >> TEMPERATURE_TYPE_SHIFT & 3 & ~1u)
        return NVME_INVALID_FIELD;
    *result = c->dw11 & TEMPERATURE_COLD ? f->cold : f->hot;
    return NVME_OK;
}

static unsigned get(const struct nvme_features *f, const struct nvme_command *c, uint32_t *result)
{
    unsigned vector = c->dw11 & 0xFFFF;

    switch (c->dw10 & 0xFF) {
    case FEATURE_ARBITRATION:
        *result = f->arbitration;
        return NVME_OK;
    case FEATURE_POWER:
        *result = 0;
        return NVME_OK;
    case FEATURE_TEMPERATURE:
        return temperature(f, c, result);
    case FEATURE_ERROR_RECOVERY:
        *result = f->error_recovery;
        return NVME_OK;
    case FEATURE_WRITE_CACHE:
        *result = f->write_cache;
        return NVME_OK;
    case FEATURE_QUEUES:
        *result = (NVME_QUEUES - 2) | (NVME_QUEUES - 2) << 16;
        return NVME_OK;
    case FEATURE_COALESCING:
        *result = f->coalescing;
        return NVME_OK;
    case FEATURE_VECTOR:
        if (vector >= NVME_QUEUES)
            return NVME_INVALID_FIELD;
        *result = vector | (f->not_coalesced[vector] ? VECTOR_NOT_COALESCED : 0);
        return NVME_OK;
    case FEATURE_ATOMICITY:
        *result = f->atomicity;
        return NVME_OK;
    case FEATURE_EVENTS:
        *result = f->events;
        return NVME_OK;
    default:
        return NVME_INVALID_FIELD;
    }
}

static bool is_namespace_feature(const struct nvme_command *c)
{
    return (c->dw10 & 0xFF) == FEATURE_ERROR_RECOVERY;
}

unsigned nvme_get_features(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
    unsigned select = c->dw10 >> 8 & 7;
    unsigned status = get(select == SELECT_CURRENT ? &n->features : &defaults, c, result);

    if (status || select > SELECT_CAPABILITIES)
        return NVME_INVALID_FIELD;
    if (is_namespace_feature(c) && c->nsid != NVME_NAMESPACE && c->nsid != NVME_ALL_NAMESPACES)
        return NVME_INVALID_NAMESPACE;
    if (select == SELECT_CAPABILITIES)
        *result = CAPABILITY_CHANGEABLE | (is_namespace_feature(c) ? CAPABILITY_NAMESPACE : 0);
    return NVME_OK;
}

static unsigned set_temperature(struct nvme *n, const struct nvme_command *c)
{
    unsigned sensor = c->dw11 >> TEMPERATURE_SENSOR_SHIFT & 15;
    uint8_t before = nvme_warnings(n);

    if ((sensor && sensor != ALL_SENSORS) || c->dw11 >> TEMPERATURE_TYPE_SHIFT & 3 & ~1u)
        return NVME_INVALID_FIELD;
    if (c->dw11 & TEMPERATURE_COLD)
        n->features.cold = (uint16_t)c->dw11;
    else
        n->features.hot = (uint16_t)c->dw11;
    if (nvme_warnings(n) & ~before & n->features.events)
        nvme_event(n, EVENT_TEMPERATURE);
    return NVME_OK;
}

/* 5.21.1.7: before there are queues; as many as there are can be had. */
static unsigned set_queues(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
    if ((c->dw11 & 0xFFFF) == QUEUES_NONE || c->dw11 >> 16 == QUEUES_NONE)
        return NVME_INVALID_FIELD;
    for (unsigned id = 1; id < NVME_QUEUES; id++)
        if (n->sq[id].size || n->cq[id].size)
            return NVME_SEQUENCE_ERROR;
    return get(&n->features, c, result);
}

static unsigned set_vector(struct nvme *n, const struct nvme_command *c)
{
    unsigned vector = c->dw11 & 0xFFFF;

    if (vector >= NVME_QUEUES)
        return NVME_INVALID_FIELD;
    n->features.not_coalesced[vector] = c->dw11 & VECTOR_NOT_COALESCED ? 1 : 0;
    return NVME_OK;
}

static unsigned set(uint32_t *feature, uint32_t value, uint32_t allowed)
{
    if (value & ~allowed)
        return NVME_INVALID_FIELD;
    *feature = value;
    return NVME_OK;
}

unsigned nvme_set_features(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
    struct nvme_features *f = &n->features;
    bool of_namespace = c->nsid && c->nsid != NVME_ALL_NAMESPACES;
    uint32_t none;
    unsigned status = get(f, c, &none);

    if (status && (c->dw10 & 0xFF) != FEATURE_TEMPERATURE)
        return status;
    if (c->dw10 & FEATURE_SAVE)
        return NVME_NOT_SAVEABLE;
    if (is_namespace_feature(c) ? c->nsid != NVME_NAMESPACE && c->nsid != NVME_ALL_NAMESPACES
                                : of_namespace && c->nsid != NVME_NAMESPACE)
        return NVME_INVALID_NAMESPACE;
    if (of_namespace && !is_namespace_feature(c))
        return NVME_NOT_NAMESPACE;
    switch (c->dw10 & 0xFF) {
    case FEATURE_ARBITRATION: /* weights are kept; the round robin has none */
        f->arbitration = c->dw11 & 0xFFFFFF07;
        return NVME_OK;
    case FEATURE_POWER: /* there is state 0 only */
        return c->dw11 & 0x1F ? NVME_INVALID_FIELD : NVME_OK;
    case FEATURE_TEMPERATURE:
        return set_temperature(n, c);
    case FEATURE_ERROR_RECOVERY:
        return set(&f->error_recovery, c->dw11, ERROR_RECOVERY_TIME);
    case FEATURE_WRITE_CACHE:
        return set(&f->write_cache, c->dw11, 1);
    case FEATURE_QUEUES:
        return set_queues(n, c, result);
    case FEATURE_COALESCING:
        return set(&f->coalescing, c->dw11, 0xFFFF);
    case FEATURE_VECTOR:
        return set_vector(n, c);
    case FEATURE_ATOMICITY:
        return set(&f->atomicity, c->dw11, 1);
    case FEATURE_EVENTS:
        return set(&f->events, c->dw11, EVENTS_HEALTH);
    default:
        return NVME_INVALID_FIELD;
    }
}
