/*
 * SMBIOS tables; see smbios.h. Structures in the order of their types, each a
 * formatted area and its strings (DSP0134, 6.1.3).
 */
#include "board/smbios.h"

#include <assert.h>
#include <stdio.h>

#ifndef VIREO_VERSION
#define VIREO_VERSION "0"
#endif

#define MANUFACTURER "Vireo"

enum smbios_type {
    SMBIOS_BIOS = 0,
    SMBIOS_SYSTEM = 1,
    SMBIOS_CHASSIS = 3,
    SMBIOS_PROCESSOR = 4,
    SMBIOS_MEMORY_ARRAY = 16,
    SMBIOS_MEMORY_DEVICE = 17,
    SMBIOS_ARRAY_ADDRESS = 19,
    SMBIOS_BOOT = 32,
    SMBIOS_END = 127,
};

/* type << 8 | number */
enum smbios_handle {
    HANDLE_CHASSIS = 0x0300,
    HANDLE_ARRAY = 0x1000,
    HANDLE_NONE = 0xffff,
    HANDLE_NO_ERROR_INFO = 0xfffe,
};

/* One structure under construction. */
struct item {
    struct smbios *s;
    uint8_t *p;
    unsigned strings;
};

static uint8_t *reserve(struct smbios *s, size_t bytes)
{
    uint8_t *p = s->data + s->bytes;

    assert(bytes <= sizeof s->data - s->bytes);
    s->bytes += bytes;
    return p;
}

static struct item item_begin(struct smbios *s, enum smbios_type type, uint16_t handle,
                              uint8_t bytes)
{
    struct item i = {.s = s, .p = reserve(s, bytes)};

    memset(i.p, 0, bytes);
    i.p[0] = (uint8_t)type;
    i.p[1] = bytes;
    le16_put(i.p + 2, handle);
    return i;
}

/* Appends a string and puts its number at offset. Strings come after all
 * fields are reserved, in any order. */
static void item_string(struct item *i, unsigned offset, const char *text)
{
    size_t bytes = strlen(text) + 1;

    memcpy(reserve(i->s, bytes), text, bytes);
    i->p[offset] = (uint8_t)++i->strings;
}

static void item_end(struct item *i)
{
    size_t bytes = i->strings ? 1 : 2; /* an empty set of strings is two zeros */

    memset(reserve(i->s, bytes), 0, bytes);
}

static void put_bios(struct smbios *s)
{
    struct item i = item_begin(s, SMBIOS_BIOS, 0, 24);

    item_string(&i, 4, MANUFACTURER);
    item_string(&i, 5, VIREO_VERSION);
    le16_put(i.p + 6, 0xf000); /* starting segment */
    item_string(&i, 8, "01/01/2025");
    i.p[9] = 0;                 /* 64 KiB */
    le64_put(i.p + 10, 1 << 3); /* characteristics are not supported */
    i.p[18] = 0;
    i.p[19] = 1 << 2 | 1 << 4; /* targeted content; a virtual machine */
    i.p[20] = i.p[21] = 0;
    i.p[22] = i.p[23] = 0xff; /* no embedded controller */
    item_end(&i);
}

static void put_system(struct smbios *s, const struct smbios_config *c)
{
    struct item i = item_begin(s, SMBIOS_SYSTEM, 0x0100, 27);

    item_string(&i, 4, MANUFACTURER);
    item_string(&i, 5, "PC (Q35, ICH9)");
    item_string(&i, 6, VIREO_VERSION);
    memcpy(i.p + 8, c->uuid, sizeof c->uuid);
    i.p[24] = 6; /* woken by the power switch */
    item_end(&i);
}

static void put_chassis(struct smbios *s)
{
    struct item i = item_begin(s, SMBIOS_CHASSIS, HANDLE_CHASSIS, 22);

    item_string(&i, 4, MANUFACTURER);
    i.p[5] = 1;                     /* other */
    i.p[9] = i.p[10] = i.p[11] = 3; /* boot-up, power, thermal state: safe */
    i.p[12] = 2;                    /* security: unknown */
    item_end(&i);
}

static void put_processor(struct smbios *s, const struct smbios_config *c, unsigned n)
{
    struct item i = item_begin(s, SMBIOS_PROCESSOR, (uint16_t)(0x0400 + n), 48);
    char socket[16];

    snprintf(socket, sizeof socket, "CPU %u", n);
    item_string(&i, 4, socket);
    i.p[5] = 3; /* a central processor */
    i.p[6] = 1; /* family: other */
    item_string(&i, 7, MANUFACTURER);
    le32_put(i.p + 8, c->cpu_signature);
    le32_put(i.p + 12, c->cpu_features);
    le16_put(i.p + 20, (uint16_t)MIN(c->cpu_mhz, 65535u)); /* fastest supported */
    le16_put(i.p + 22, (uint16_t)MIN(c->cpu_mhz, 65535u)); /* now */
    i.p[24] = 1 << 6 | 1;                                  /* populated and enabled */
    i.p[25] = 1;                                           /* upgrade: other */
    le16_put(i.p + 26, HANDLE_NONE);                       /* caches: not described */
    le16_put(i.p + 28, HANDLE_NONE);
    le16_put(i.p + 30, HANDLE_NONE);
    i.p[35] = i.p[36] = i.p[37] = 1; /* cores, enabled ones, threads */
    le16_put(i.p + 38, 1 << 2);      /* 64-bit capable */
    le16_put(i.p + 40, 1);           /* family, once more */
    le16_put(i.p + 42, 1);
    le16_put(i.p + 44, 1);
    le16_put(i.p + 46, 1);
    item_end(&i);
}

static void put_memory(struct smbios *s, const struct smbios_config *c)
{
    uint64_t low = MIN(c->memory_bytes, 2 * GiB), high = c->memory_bytes - low;
    uint64_t mib = c->memory_bytes / MiB;
    struct item i = item_begin(s, SMBIOS_MEMORY_ARRAY, HANDLE_ARRAY, 23);

    i.p[4] = 1;                     /* location: other */
    i.p[5] = 3;                     /* system memory */
    i.p[6] = 6;                     /* multi-bit ECC, as servers expect */
    le32_put(i.p + 7, 0x80000000u); /* capacity: the extended field */
    le16_put(i.p + 11, HANDLE_NO_ERROR_INFO);
    le16_put(i.p + 13, 1);
    le64_put(i.p + 15, c->memory_bytes);
    item_end(&i);

    i = item_begin(s, SMBIOS_MEMORY_DEVICE, 0x1100, 40);
    le16_put(i.p + 4, HANDLE_ARRAY);
    le16_put(i.p + 6, HANDLE_NO_ERROR_INFO);
    le16_put(i.p + 8, 64);                                       /* total width */
    le16_put(i.p + 10, 64);                                      /* data width */
    le16_put(i.p + 12, (uint16_t)(mib < 0x7fff ? mib : 0x7fff)); /* 7FFFH: see below */
    i.p[14] = 9;                                                 /* DIMM */
    item_string(&i, 16, "DIMM 0");
    i.p[18] = 7;                /* RAM */
    le16_put(i.p + 19, 1 << 1); /* other */
    item_string(&i, 23, MANUFACTURER);
    le32_put(i.p + 28, (uint32_t)mib);
    item_end(&i);

    i = item_begin(s, SMBIOS_ARRAY_ADDRESS, 0x1300, 31);
    le32_put(i.p + 4, 0);
    le32_put(i.p + 8, (uint32_t)(low / KiB - 1)); /* the last KiB */
    le16_put(i.p + 12, HANDLE_ARRAY);
    i.p[14] = 1;
    item_end(&i);
    if (high) {
        i = item_begin(s, SMBIOS_ARRAY_ADDRESS, 0x1301, 31);
        le32_put(i.p + 4, UINT32_MAX); /* the extended fields */
        le32_put(i.p + 8, UINT32_MAX);
        le16_put(i.p + 12, HANDLE_ARRAY);
        i.p[14] = 1;
        le64_put(i.p + 15, 4 * GiB);
        le64_put(i.p + 23, 4 * GiB + high - 1);
        item_end(&i);
    }
}

void smbios_build(struct smbios *s, const struct smbios_config *c, gpa_t tables)
{
    uint8_t sum = 0, *a = s->anchor;
    struct item i;

    memset(s, 0, sizeof *s);
    if (!c->has_firmware)
        put_bios(s); /* else the firmware speaks for itself */
    put_system(s, c);
    put_chassis(s);
    for (unsigned n = 0; n < c->cpu_count; n++)
        put_processor(s, c, n);
    put_memory(s, c);
    i = item_begin(s, SMBIOS_BOOT, 0x2000, 11); /* status 0: no error */
    item_end(&i);
    i = item_begin(s, SMBIOS_END, 0x7f00, 4);
    item_end(&i);

    memcpy(a, "_SM3_", 5);
    a[6] = SMBIOS_ANCHOR_BYTES;
    a[7] = 3;  /* version 3.0, revision of the document 0 */
    a[10] = 1; /* revision of the entry point */
    le32_put(a + 12, (uint32_t)s->bytes);
    le64_put(a + 16, tables);
    for (unsigned n = 0; n < SMBIOS_ANCHOR_BYTES; n++)
        sum = (uint8_t)(sum + a[n]);
    a[5] = (uint8_t)-sum;
}
