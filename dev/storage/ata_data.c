/*
 * What ATA devices tell about themselves in sectors: IDENTIFY DEVICE (ACS-3,
 * 7.12), IDENTIFY PACKET DEVICE (7.13), logs (annex A), SMART data.
 *
 * Words are numbered as the standard numbers them.
 */
#include "dev/storage/ata.h"

enum {
    LOG_DIRECTORY = 0x00,
    LOG_SMART_SUMMARY = 0x01,
    LOG_SELF_TEST = 0x06,
    LOG_QUEUE = 0x10,
};

enum {
    SERIAL_WORDS = 10,
    FIRMWARE_WORDS = 4,
    MODEL_WORDS = 20,
    CYLINDERS_MAX = 16383, /* what geometry can say */
    HEADS = 16,
    TRACK_SECTORS = 63,
    TRIM_BLOCKS = ATA_REPLY_BYTES / ATA_SECTOR,
};

#define FIRMWARE_REVISION "1"
#define WORD_VALID 0x4000 /* bits 15-14 are 01b: the word says something */

static void put(struct ata_device *d, unsigned word, uint16_t value)
{
    le16_put(d->reply + 2 * word, value);
}

/* Two characters a word, the first in the high byte, filled with blanks. */
static void put_text(struct ata_device *d, unsigned word, unsigned words, const char *text)
{
    for (unsigned n = 0; n < words; n++) {
        uint8_t first = *text ? (uint8_t)*text++ : ' ';
        uint8_t second = *text ? (uint8_t)*text++ : ' ';

        put(d, word + n, (uint16_t)(first << 8 | second));
    }
}

static void put_checksum(uint8_t *sector)
{
    uint8_t sum = 0;

    for (unsigned n = 0; n < ATA_SECTOR - 1; n++)
        sum += sector[n];
    sector[ATA_SECTOR - 1] = (uint8_t)-sum;
}

/* A name that is the same for the same serial number (NAA 5). */
static uint64_t world_wide_name(const char *serial)
{
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */

    for (; *serial; serial++)
        hash = (hash ^ (uint8_t)*serial) * 0x100000001b3;
    return 5ull << 60 | (hash & BITS(59, 0));
}

/* ---- IDENTIFY ---- */

static void identify_both(struct ata_device *d, const char *serial, const char *model)
{
    memset(d->reply, 0, ATA_SECTOR);
    put_text(d, 10, SERIAL_WORDS, serial);
    put_text(d, 23, FIRMWARE_WORDS, FIRMWARE_REVISION);
    put_text(d, 27, MODEL_WORDS, model);
    put(d, 49, 0x2F00); /* DMA, LBA, IORDY, standby timers */
    put(d, 50, WORD_VALID);
    put(d, 53, 0x0007); /* words 54-58, 64-70 and 88 say something */
    put(d, 63, (uint16_t)(0x0007 | (d->mode >> 3 == 4 ? 0x100 << (d->mode & 7) : 0)));
    put(d, 64, 0x0003); /* PIO 3 and 4 */
    for (unsigned word = 65; word <= 68; word++)
        put(d, word, 120); /* ns a cycle */
    put(d, 88, (uint16_t)(0x007F | (d->mode >> 3 == 8 ? 0x100 << (d->mode & 7) : 0)));
    put(d, 80, 0x03F0);  /* ATA/ATAPI-4 to ACS-2 */
    put(d, 222, 0x101F); /* serial transport, up to SATA 3.0 */
}

static void identify_disk(struct ata_device *d)
{
    uint64_t cylinders = MIN(d->sectors / (HEADS * TRACK_SECTORS), CYLINDERS_MAX);
    uint64_t chs = cylinders * HEADS * TRACK_SECTORS, name = world_wide_name(disk_serial(d->disk));
    uint32_t lba28 = (uint32_t)MIN(d->sectors, BITS(27, 0));
    uint16_t smart = d->smart, cache = (uint16_t)(d->write_cache << 5);
    uint16_t look_ahead = (uint16_t)(d->look_ahead << 6);

    identify_both(d, disk_serial(d->disk), "VIREO HARDDISK");
    put(d, 0, 0x0040); /* fixed */
    put(d, 1, (uint16_t)cylinders);
    put(d, 3, HEADS);
    put(d, 6, TRACK_SECTORS);
    put(d, 47, 0x8010); /* READ MULTIPLE moves up to 16 sectors */
    put(d, 54, (uint16_t)cylinders);
    put(d, 55, HEADS);
    put(d, 56, TRACK_SECTORS);
    put(d, 57, (uint16_t)chs);
    put(d, 58, (uint16_t)(chs >> 16));
    put(d, 59, (uint16_t)(d->multiple ? 0x0100 | d->multiple : 0));
    le32_put(d->reply + 2 * 60, lba28);
    put(d, 75, ATA_QUEUE_DEPTH - 1);
    put(d, 76, 0x010E);              /* queueing; generations 1 to 3 */
    put(d, 77, 3 << 1);              /* now 3 */
    put(d, 82, 0x4069);              /* NOP, look-ahead, write cache, power management, SMART */
    put(d, 83, WORD_VALID | 0x3400); /* FLUSH CACHE (EXT), 48-bit addresses */
    put(d, 84, WORD_VALID | 0x0163); /* name, WRITE FUA, general logs, SMART's logs */
    put(d, 85, (uint16_t)(0x4008 | smart | cache | look_ahead));
    put(d, 86, 0x8000 | 0x3400);
    put(d, 87, WORD_VALID | 0x0163);
    le64_put(d->reply + 2 * 100, d->sectors);
    put(d, 105, TRIM_BLOCKS);
    put(d, 106, WORD_VALID);
    for (unsigned n = 0; n < 4; n++)
        put(d, 108 + n, (uint16_t)(name >> (48 - 16 * n)));
    put(d, 119, WORD_VALID);
    put(d, 120, WORD_VALID);
    put(d, 169, 1); /* TRIM */
    put(d, 217, 1); /* does not rotate */
}

static void identify_cdrom(struct ata_device *d)
{
    identify_both(d, d->disk ? disk_serial(d->disk) : "", "VIREO DVD-ROM");
    put(d, 0, 0x85C0); /* PACKET device, CD, removable, commands of 12 bytes */
    put(d, 49, 0x0F00);
    put(d, 76, 0x000E);
    put(d, 77, 3 << 1);
    put(d, 82, 0x4218); /* NOP, DEVICE RESET, PACKET, power management */
    put(d, 83, WORD_VALID);
    put(d, 84, WORD_VALID);
    put(d, 85, 0x4218);
    put(d, 87, WORD_VALID);
}

void ata_identify(struct ata_device *d)
{
    if (d->kind == ATA_CDROM)
        identify_cdrom(d);
    else
        identify_disk(d);
    d->reply[510] = 0xA5; /* word 255: there is a checksum */
    put_checksum(d->reply);
}

/* ---- logs ---- */

static void queue_log(struct ata_device *d)
{
    uint8_t *p = d->reply;

    /* Byte 0, bit 7: the last command was no queued one. */
    p[0] = d->queue_failed ? d->failed_tag : 0x80;
    p[2] = d->failed_status;
    p[3] = d->failed_error;
    for (unsigned n = 0; n < 3; n++) {
        p[4 + n] = (uint8_t)(d->failed_lba >> 8 * n);
        p[8 + n] = (uint8_t)(d->failed_lba >> (24 + 8 * n));
    }
    p[7] = 0x40;
    le16_put(p + 12, d->failed_count);
    put_checksum(p);
}

bool ata_log_read(struct ata_device *d, uint8_t log, uint16_t page, unsigned pages)
{
    if (page || pages != 1)
        return false;
    memset(d->reply, 0, ATA_SECTOR);
    switch (log) {
    case LOG_DIRECTORY:
        put(d, 0, 1); /* version */
        put(d, LOG_QUEUE, 1);
        return true;
    case LOG_QUEUE:
        queue_log(d);
        return true;
    default:
        return false;
    }
}

/* ---- SMART ---- */

struct smart_attribute {
    uint8_t id;
    uint16_t flags;
    uint8_t value, worst, threshold;
    uint32_t raw;
};

/* A disk in good health. */
static const struct smart_attribute attributes[] = {
    {1, 0x0003, 100, 100, 6, 0},                                  /* read errors */
    {5, 0x0033, 100, 100, 36, 0},                                 /* reallocated sectors */
    {9, 0x0032, 100, 100, 0, 1},                                  /* hours */
    {12, 0x0032, 100, 100, 0, 1},                                 /* power cycles */
    {190, 0x0022, 69, 69, 50, 31},                                /* temperature */
    {194, 0x0022, 31, 31, 0, 31},  {197, 0x0012, 100, 100, 0, 0}, /* pending sectors */
    {199, 0x003E, 200, 200, 0, 0},                                /* transfer errors */
};

void ata_smart_data(struct ata_device *d)
{
    memset(d->reply, 0, ATA_SECTOR);
    put(d, 0, 1);
    for (size_t n = 0; n < ARRAY_SIZE(attributes); n++) {
        uint8_t *p = d->reply + 2 + 12 * n;

        p[0] = attributes[n].id;
        le16_put(p + 1, attributes[n].flags);
        p[3] = attributes[n].value;
        p[4] = attributes[n].worst;
        le32_put(p + 5, attributes[n].raw);
    }
    d->reply[362] = 0x02;              /* collection completed */
    d->reply[367] = 0x19;              /* self-tests, off-line at once */
    d->reply[368] = 0x03;              /* saved over power states */
    d->reply[370] = 0x01;              /* has an error log */
    d->reply[372] = d->reply[373] = 1; /* minutes of a self-test */
    put_checksum(d->reply);
}

void ata_smart_thresholds(struct ata_device *d)
{
    memset(d->reply, 0, ATA_SECTOR);
    put(d, 0, 1);
    for (size_t n = 0; n < ARRAY_SIZE(attributes); n++) {
        d->reply[2 + 12 * n] = attributes[n].id;
        d->reply[3 + 12 * n] = attributes[n].threshold;
    }
    put_checksum(d->reply);
}

bool ata_smart_log(struct ata_device *d, uint8_t log)
{
    memset(d->reply, 0, ATA_SECTOR);
    switch (log) {
    case LOG_DIRECTORY:
        put(d, 0, 1);
        put(d, LOG_SMART_SUMMARY, 1);
        put(d, LOG_SELF_TEST, 1);
        return true;
    case LOG_SMART_SUMMARY: /* no errors */
    case LOG_SELF_TEST:     /* none was run */
        put(d, 0, 1);
        put_checksum(d->reply);
        return true;
    default:
        return false;
    }
}
