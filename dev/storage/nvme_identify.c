/*
 * Identify (NVM Express 1.4c, 5.15): the controller, its one namespace, the list
 * of namespaces and the namespace's name.
 */
#include <stdio.h>

#include "dev/storage/nvme_internal.h"

enum identify_cns {
    CNS_NAMESPACE = 0x00,
    CNS_CONTROLLER = 0x01,
    CNS_ACTIVE_NAMESPACES = 0x02,
    CNS_DESCRIPTORS = 0x03,
};

/* Figure 247. */
enum identify_controller {
    IC_VENDOR = 0,
    IC_SUBSYSTEM_VENDOR = 2,
    IC_SERIAL = 4,
    IC_SERIAL_BYTES = 20,
    IC_MODEL = 24,
    IC_MODEL_BYTES = 40,
    IC_REVISION = 64,
    IC_REVISION_BYTES = 8,
    IC_BURST = 72,
    IC_MDTS = 77,
    IC_VERSION = 80,
    IC_TYPE = 111,
    IC_ABORTS = 258, /* 0's based, as are the next and ELPE */
    IC_EVENTS = 259,
    IC_FIRMWARE = 260,
    IC_LOGS = 261,
    IC_ERROR_ENTRIES = 262,
    IC_WARNING_KELVIN = 266,
    IC_CRITICAL_KELVIN = 268,
    IC_SQE_SIZES = 512,
    IC_CQE_SIZES = 513,
    IC_NAMESPACES = 516,
    IC_COMMANDS = 520,
    IC_WRITE_CACHE = 525,
    IC_NQN = 768,
    IC_NQN_BYTES = 256,
};

enum identify_controller_value {
    IC_IO_CONTROLLER = 1,
    IC_ABORT_LIMIT = 4,
    IC_ONE_FIXED_SLOT = 1 << 1 | 1, /* of firmware: the first is read only */
    IC_LOG_EFFECTS = 1 << 1,
    IC_LOG_EXTENDED = 1 << 2,
    IC_COMPARE = 1 << 0,
    IC_DATASET = 1 << 2,
    IC_WRITE_ZEROES = 1 << 3,
    IC_SELECT = 1 << 4, /* Select in Get Features, Save in Set Features */
    IC_CACHE_PRESENT = 1 << 0,
    IC_FLUSH_ALL = 3 << 1, /* Flush takes FFFFFFFFH for a namespace */
};

/* Figure 245. */
enum identify_namespace {
    IN_SIZE = 0,
    IN_CAPACITY = 8,
    IN_USED = 16,
    IN_FORMATS = 25, /* 0's based */
    IN_DEALLOCATED = 33,
    IN_ATTRIBUTES = 99,
    IN_FORMAT0 = 128,
};

enum identify_namespace_value {
    IN_READ_ZEROES = 1,            /* what was deallocated reads as zeroes */
    IN_ZEROES_DEALLOCATE = 1 << 3, /* Write Zeroes knows its Deallocate bit */
    IN_PROTECTED = 1 << 0,
    IN_BLOCK_POWER = 9,
    DESCRIPTOR_UUID = 3,
};

_Static_assert(1 << IN_BLOCK_POWER == NVME_BLOCK, "blocks are sectors");

static void put_text(uint8_t *at, size_t room, const char *text)
{
    size_t length = strlen(text);

    memset(at, ' ', room);
    memcpy(at, text, MIN(length, room));
}

static void controller(const struct nvme *n, uint8_t *d)
{
    const uint8_t *u = n->uuid[1];

    le16_put(d + IC_VENDOR, le16_get(n->pci.config + PCI_VENDOR_ID));
    le16_put(d + IC_SUBSYSTEM_VENDOR, le16_get(n->pci.config + PCI_SUBSYSTEM_VENDOR_ID));
    put_text(d + IC_SERIAL, IC_SERIAL_BYTES, disk_serial(n->disk));
    put_text(d + IC_MODEL, IC_MODEL_BYTES, "VIREO NVME");
    put_text(d + IC_REVISION, IC_REVISION_BYTES, nvme_revision);
    d[IC_BURST] = 3;
    d[IC_MDTS] = NVME_MDTS;
    le32_put(d + IC_VERSION, NVME_VERSION);
    d[IC_TYPE] = IC_IO_CONTROLLER;
    d[IC_ABORTS] = IC_ABORT_LIMIT - 1;
    d[IC_EVENTS] = NVME_EVENT_REQUESTS - 1;
    d[IC_FIRMWARE] = IC_ONE_FIXED_SLOT;
    d[IC_LOGS] = IC_LOG_EFFECTS | IC_LOG_EXTENDED;
    d[IC_ERROR_ENTRIES] = NVME_ERRORS - 1;
    le16_put(d + IC_WARNING_KELVIN, NVME_KELVIN_WARNING);
    le16_put(d + IC_CRITICAL_KELVIN, NVME_KELVIN_CRITICAL);
    d[IC_SQE_SIZES] = 0x66;
    d[IC_CQE_SIZES] = 0x44;
    le32_put(d + IC_NAMESPACES, 1);
    le16_put(d + IC_COMMANDS, IC_COMPARE | IC_DATASET | IC_WRITE_ZEROES | IC_SELECT);
    d[IC_WRITE_CACHE] = IC_CACHE_PRESENT | IC_FLUSH_ALL;
    /* 7.9: a name that contains a UUID. */
    snprintf((char *)d + IC_NQN, IC_NQN_BYTES,
             "nqn.2014-08.org.nvmexpress:uuid:"
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
             u[14], u[15]);
}

static void namespace(const struct nvme *n, uint8_t *d)
{
    le64_put(d + IN_SIZE, n->blocks);
    le64_put(d + IN_CAPACITY, n->blocks);
    le64_put(d + IN_USED, n->blocks);
    d[IN_FORMATS] = 0;
    d[IN_DEALLOCATED] = IN_READ_ZEROES | IN_ZEROES_DEALLOCATE;
    d[IN_ATTRIBUTES] = disk_is_readonly(n->disk) ? IN_PROTECTED : 0;
    d[IN_FORMAT0 + 2] = IN_BLOCK_POWER;
}

unsigned nvme_identify(struct nvme *n, const struct nvme_command *c)
{
    uint8_t data[NVME_PAGE] = {0};

    switch (c->dw10 & 0xFF) {
    case CNS_NAMESPACE:
        if (c->nsid != NVME_NAMESPACE)
            return NVME_INVALID_NAMESPACE;
        namespace(n, data);
        break;
    case CNS_CONTROLLER:
        controller(n, data);
        break;
    case CNS_ACTIVE_NAMESPACES: /* those behind NSID */
        if (c->nsid >= NVME_ALL_NAMESPACES - 1)
            return NVME_INVALID_NAMESPACE;
        le32_put(data, c->nsid < NVME_NAMESPACE ? NVME_NAMESPACE : 0);
        break;
    case CNS_DESCRIPTORS:
        if (c->nsid != NVME_NAMESPACE)
            return NVME_INVALID_NAMESPACE;
        data[0] = DESCRIPTOR_UUID;
        data[1] = sizeof n->uuid[0];
        memcpy(data + 4, n->uuid[0], sizeof n->uuid[0]);
        break;
    default:
        return NVME_INVALID_FIELD;
    }
    return nvme_reply(n, c, sizeof data, data, sizeof data);
}
