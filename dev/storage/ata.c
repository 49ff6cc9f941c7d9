/*
 * The ATA command set (INCITS 522, ACS-3; Serial ATA 3.2, 13.6 for queued
 * commands): what software of today and firmware use. Interface: ata.h.
 *
 * Everything else ends with "command aborted", which is how the set says that
 * a command is not there.
 */
#include "dev/storage/ata.h"

#include <errno.h>

enum ata_command {
    CMD_NOP = 0x00,
    CMD_DATA_SET_MANAGEMENT = 0x06,
    CMD_DEVICE_RESET = 0x08,
    CMD_RECALIBRATE = 0x10,
    CMD_READ = 0x20,
    CMD_READ_NO_RETRY = 0x21,
    CMD_READ_EXT = 0x24,
    CMD_READ_DMA_EXT = 0x25,
    CMD_READ_NATIVE_MAX_EXT = 0x27,
    CMD_READ_MULTIPLE_EXT = 0x29,
    CMD_READ_LOG_EXT = 0x2F,
    CMD_WRITE = 0x30,
    CMD_WRITE_NO_RETRY = 0x31,
    CMD_WRITE_EXT = 0x34,
    CMD_WRITE_DMA_EXT = 0x35,
    CMD_WRITE_MULTIPLE_EXT = 0x39,
    CMD_WRITE_DMA_FUA_EXT = 0x3D,
    CMD_VERIFY = 0x40,
    CMD_VERIFY_NO_RETRY = 0x41,
    CMD_VERIFY_EXT = 0x42,
    CMD_READ_LOG_DMA_EXT = 0x47,
    CMD_READ_FPDMA = 0x60,
    CMD_WRITE_FPDMA = 0x61,
    CMD_SEEK = 0x70,
    CMD_DIAGNOSTIC = 0x90,
    CMD_INITIALIZE_PARAMETERS = 0x91,
    CMD_PACKET = 0xA0,
    CMD_IDENTIFY_PACKET = 0xA1,
    CMD_SMART = 0xB0,
    CMD_READ_MULTIPLE = 0xC4,
    CMD_WRITE_MULTIPLE = 0xC5,
    CMD_SET_MULTIPLE = 0xC6,
    CMD_READ_DMA = 0xC8,
    CMD_READ_DMA_NO_RETRY = 0xC9,
    CMD_WRITE_DMA = 0xCA,
    CMD_WRITE_DMA_NO_RETRY = 0xCB,
    CMD_WRITE_MULTIPLE_FUA_EXT = 0xCE,
    CMD_STANDBY_IMMEDIATE = 0xE0,
    CMD_IDLE_IMMEDIATE = 0xE1,
    CMD_STANDBY = 0xE2,
    CMD_IDLE = 0xE3,
    CMD_CHECK_POWER = 0xE5,
    CMD_SLEEP = 0xE6,
    CMD_FLUSH = 0xE7,
    CMD_FLUSH_EXT = 0xEA,
    CMD_IDENTIFY = 0xEC,
    CMD_SET_FEATURES = 0xEF,
    CMD_READ_NATIVE_MAX = 0xF8,
};

enum ata_feature {
    FEATURE_WRITE_CACHE = 0x02,
    FEATURE_TRANSFER_MODE = 0x03,
    FEATURE_SATA_ON = 0x10,
    FEATURE_NO_LOOK_AHEAD = 0x55,
    FEATURE_KEEP_SETTINGS = 0x66,
    FEATURE_NO_WRITE_CACHE = 0x82,
    FEATURE_SATA_OFF = 0x90,
    FEATURE_LOOK_AHEAD = 0xAA,
    FEATURE_DEFAULT_SETTINGS = 0xCC,
};

enum smart_feature {
    SMART_READ_DATA = 0xD0,
    SMART_READ_THRESHOLDS = 0xD1,
    SMART_AUTOSAVE = 0xD2,
    SMART_OFFLINE = 0xD4,
    SMART_READ_LOG = 0xD5,
    SMART_ENABLE = 0xD8,
    SMART_DISABLE = 0xD9,
    SMART_STATUS = 0xDA,
};

#define SMART_KEY 0xC24F00u /* LBA bits 23-8 */
#define SMART_KEY_MASK 0xFFFF00u
#define DEVICE_LBA 0x40
#define DEVICE_FUA 0x80 /* of queued writes */
#define DEVICE_HEAD 0x0F
#define POWER_ACTIVE 0xFF
#define POWER_STANDBY 0x00
#define TRIM_FEATURE 0x01
#define MULTIPLE_MAX 16
#define TRIM_BLOCKS_MAX (ATA_REPLY_BYTES / ATA_SECTOR)
#define LOG_QUEUE 0x10
#define CHS_HEADS 16
#define CHS_SECTORS 63

/* ---- how a command ends ---- */

static void good(struct ata_device *d)
{
    d->r.status = ATA_GOOD;
    d->r.error = 0;
}

static void fail(struct ata_device *d, uint8_t error)
{
    d->r.status = ATA_GOOD | ATA_ERR;
    d->r.error = error;
}

static void reply(struct ata_action *a, enum ata_transfer transfer, uint64_t bytes)
{
    a->kind = ATA_DO_REPLY;
    a->transfer = transfer;
    a->bytes = bytes;
}

/* The signature (ACS-3, 7.1 and Serial ATA 3.2, 11.4). */
static void set_signature(struct ata_device *d)
{
    bool is_cd = d->kind == ATA_CDROM;

    d->r = (struct ata_registers){
        .status = is_cd ? 0 : ATA_GOOD,
        .error = 1, /* diagnostics passed */
        .count = 1,
        .lba = is_cd ? 0xEB1401 : 0x000001,
    };
}

void ata_reset(struct ata_device *d, bool hard)
{
    d->queue_failed = false;
    d->asleep = d->standby = false;
    if (hard) {
        d->write_cache = d->look_ahead = d->smart = true;
        d->multiple = MULTIPLE_MAX;
        d->mode = 0x46; /* UDMA 6 */
        if (d->kind == ATA_CDROM)
            cdrom_reset(d);
    }
    set_signature(d);
}

/* ---- addresses ---- */

/* Commands without EXT: 28 bits, or cylinder, head and sector. */
static bool address28(const struct ata_registers *r, uint64_t *lba)
{
    unsigned sector = r->lba & 0xFF, head = r->device & DEVICE_HEAD;

    if (r->device & DEVICE_LBA) {
        *lba = (r->lba & 0xFFFFFF) | (uint64_t)head << 24;
        return true;
    }
    *lba = ((r->lba >> 8 & 0xFFFF) * CHS_HEADS + head) * CHS_SECTORS + sector - 1;
    return sector >= 1 && sector <= CHS_SECTORS;
}

/* Where a command goes, and how far; false: it has failed. */
static bool find_range(struct ata_device *d, bool ext, uint64_t *offset, uint64_t *bytes)
{
    uint64_t lba = d->r.lba, count;
    bool exists = true;

    if (ext) {
        count = d->r.count ? d->r.count : 65536;
    } else {
        count = d->r.count & 0xFF ? d->r.count & 0xFF : 256;
        exists = address28(&d->r, &lba);
    }
    if (!exists || lba > d->sectors || count > d->sectors - lba) {
        fail(d, ATA_IDNF | ATA_ABRT);
        return false;
    }
    *offset = lba * ATA_SECTOR;
    *bytes = count * ATA_SECTOR;
    return true;
}

/* ---- commands that move data ---- */

enum move_flag { MOVE_WRITE = 1, MOVE_EXT = 2, MOVE_FUA = 4, MOVE_MULTIPLE = 8 };

static void start_move(struct ata_device *d, struct ata_action *a, enum ata_transfer transfer,
                       unsigned flags)
{
    if ((flags & MOVE_MULTIPLE) && !d->multiple) {
        fail(d, ATA_ABRT);
        return;
    }
    if ((flags & MOVE_WRITE) && disk_is_readonly(d->disk)) {
        fail(d, ATA_ABRT);
        return;
    }
    if (!find_range(d, flags & MOVE_EXT, &a->offset, &a->bytes))
        return;
    a->kind = flags & MOVE_WRITE ? ATA_DO_WRITE : ATA_DO_READ;
    a->transfer = transfer;
    /* Without a write cache what has been written is on the disk. */
    a->fua = flags & MOVE_WRITE && (flags & MOVE_FUA || !d->write_cache);
}

static void start_queued(struct ata_device *d, struct ata_action *a, bool write)
{
    uint64_t count = d->r.features ? d->r.features : 65536, lba = d->r.lba;

    a->transfer = ATA_QUEUED;
    a->tag = (d->r.count >> 3) & (ATA_QUEUE_DEPTH - 1);
    a->offset = lba * ATA_SECTOR;
    a->bytes = count * ATA_SECTOR;
    if (!(d->r.device & DEVICE_LBA) || (write && disk_is_readonly(d->disk)))
        fail(d, ATA_ABRT);
    else if (lba > d->sectors || count > d->sectors - lba)
        fail(d, ATA_IDNF | ATA_ABRT);
    else
        a->kind = write ? ATA_DO_WRITE : ATA_DO_READ;
    a->fua = write && (d->r.device & DEVICE_FUA || !d->write_cache);
}

static void start_trim(struct ata_device *d, struct ata_action *a)
{
    if (d->r.features != TRIM_FEATURE || !d->r.count || d->r.count > TRIM_BLOCKS_MAX ||
        disk_is_readonly(d->disk)) {
        fail(d, ATA_ABRT);
        return;
    }
    a->kind = ATA_DO_TRIM;
    a->transfer = ATA_DMA;
    a->bytes = (uint64_t)d->r.count * ATA_SECTOR;
}

bool ata_trim_range(const struct ata_device *d, const uint8_t entry[8], uint64_t *offset,
                    uint64_t *bytes)
{
    uint64_t e = le64_get(entry), lba = e & BITS(47, 0), count = e >> 48;

    *offset = lba * ATA_SECTOR;
    *bytes = count * ATA_SECTOR;
    return lba <= d->sectors && count <= d->sectors - lba;
}

/* ---- settings ---- */

static void set_features(struct ata_device *d)
{
    good(d);
    switch (d->r.features & 0xFF) {
    case FEATURE_WRITE_CACHE:
        d->write_cache = true;
        break;
    case FEATURE_NO_WRITE_CACHE:
        d->write_cache = false;
        break;
    case FEATURE_LOOK_AHEAD:
        d->look_ahead = true;
        break;
    case FEATURE_NO_LOOK_AHEAD:
        d->look_ahead = false;
        break;
    case FEATURE_TRANSFER_MODE: {
        unsigned kind = d->r.count >> 3 & 0x1F, mode = d->r.count & 7;

        /* PIO 0-4, multiword DMA 0-2, Ultra DMA 0-6. */
        if ((kind > 1 && kind != 4 && kind != 8) || (kind == 1 && mode > 4) ||
            (kind == 4 && mode > 2) || (kind == 8 && mode > 6))
            fail(d, ATA_ABRT);
        else if (kind > 1)
            d->mode = (uint8_t)d->r.count;
        break;
    }
    case FEATURE_SATA_ON:
    case FEATURE_SATA_OFF:
        /* DIPM and the like: there is no link that they could change. */
        if (d->r.count != 3 && d->r.count != 6)
            fail(d, ATA_ABRT);
        break;
    case FEATURE_KEEP_SETTINGS:
    case FEATURE_DEFAULT_SETTINGS:
        break;
    default:
        fail(d, ATA_ABRT);
        break;
    }
}

static void smart(struct ata_device *d, struct ata_action *a)
{
    uint8_t feature = d->r.features & 0xFF;

    if ((d->r.lba & SMART_KEY_MASK) != SMART_KEY || (!d->smart && feature != SMART_ENABLE)) {
        fail(d, ATA_ABRT);
        return;
    }
    good(d);
    switch (feature) {
    case SMART_READ_DATA:
        ata_smart_data(d);
        reply(a, ATA_PIO, ATA_SECTOR);
        break;
    case SMART_READ_THRESHOLDS:
        ata_smart_thresholds(d);
        reply(a, ATA_PIO, ATA_SECTOR);
        break;
    case SMART_READ_LOG:
        if ((d->r.count & 0xFF) == 1 && ata_smart_log(d, d->r.lba & 0xFF))
            reply(a, ATA_PIO, ATA_SECTOR);
        else
            fail(d, ATA_ABRT);
        break;
    case SMART_ENABLE:
    case SMART_DISABLE:
        d->smart = feature == SMART_ENABLE;
        break;
    case SMART_AUTOSAVE:
    case SMART_OFFLINE: /* a self-test that has passed already */
    case SMART_STATUS:  /* the key unchanged: nothing is exceeded */
        break;
    default:
        fail(d, ATA_ABRT);
        break;
    }
}

static void read_log(struct ata_device *d, struct ata_action *a, enum ata_transfer transfer)
{
    uint8_t log = d->r.lba & 0xFF;
    uint16_t page = (uint16_t)((d->r.lba >> 8 & 0xFF) | (d->r.lba >> 32 & 0xFF) << 8);

    if (!ata_log_read(d, log, page, d->r.count)) {
        fail(d, ATA_ABRT);
        return;
    }
    if (log == LOG_QUEUE)
        d->queue_failed = false;
    good(d);
    reply(a, transfer, (uint64_t)d->r.count * ATA_SECTOR);
}

static void native_max(struct ata_device *d, bool ext)
{
    uint64_t last = d->sectors - 1;

    good(d);
    if (ext) {
        d->r.lba = last & BITS(47, 0);
        return;
    }
    last = MIN(last, BITS(27, 0) - 1);
    d->r.lba = last & BITS(23, 0);
    d->r.device = (uint8_t)((d->r.device & ~DEVICE_HEAD) | last >> 24);
}

/* ---- commands of all devices ---- */

static bool start_common(struct ata_device *d, struct ata_action *a)
{
    switch (d->r.command) {
    case CMD_DIAGNOSTIC:
        set_signature(d);
        return true;
    case CMD_SET_FEATURES:
        set_features(d);
        return true;
    case CMD_STANDBY_IMMEDIATE:
    case CMD_STANDBY:
    case CMD_SLEEP:
        d->standby = true;
        d->asleep = d->r.command == CMD_SLEEP;
        good(d);
        if (d->kind == ATA_DISK)
            a->kind = ATA_DO_FLUSH; /* before the power may go */
        return true;
    case CMD_IDLE_IMMEDIATE:
    case CMD_IDLE:
        d->standby = false;
        good(d);
        return true;
    case CMD_CHECK_POWER:
        good(d);
        d->r.count = d->standby ? POWER_STANDBY : POWER_ACTIVE;
        return true;
    default:
        return false;
    }
}

static void start_cdrom(struct ata_device *d, struct ata_action *a)
{
    switch (d->r.command) {
    case CMD_IDENTIFY_PACKET:
        ata_identify(d);
        good(d);
        reply(a, ATA_PIO, ATA_SECTOR);
        break;
    case CMD_DEVICE_RESET:
        ata_reset(d, false);
        break;
    case CMD_IDENTIFY:
    case CMD_READ:
        /* So that software which does not know sees what it is. */
        set_signature(d);
        fail(d, ATA_ABRT);
        break;
    default:
        fail(d, ATA_ABRT);
        break;
    }
}

static void start_disk(struct ata_device *d, struct ata_action *a)
{
    switch (d->r.command) {
    case CMD_IDENTIFY:
        ata_identify(d);
        good(d);
        reply(a, ATA_PIO, ATA_SECTOR);
        break;
    case CMD_READ:
    case CMD_READ_NO_RETRY:
        start_move(d, a, ATA_PIO, 0);
        break;
    case CMD_READ_EXT:
        start_move(d, a, ATA_PIO, MOVE_EXT);
        break;
    case CMD_READ_MULTIPLE:
        start_move(d, a, ATA_PIO, MOVE_MULTIPLE);
        break;
    case CMD_READ_MULTIPLE_EXT:
        start_move(d, a, ATA_PIO, MOVE_MULTIPLE | MOVE_EXT);
        break;
    case CMD_READ_DMA:
    case CMD_READ_DMA_NO_RETRY:
        start_move(d, a, ATA_DMA, 0);
        break;
    case CMD_READ_DMA_EXT:
        start_move(d, a, ATA_DMA, MOVE_EXT);
        break;
    case CMD_WRITE:
    case CMD_WRITE_NO_RETRY:
        start_move(d, a, ATA_PIO, MOVE_WRITE);
        break;
    case CMD_WRITE_EXT:
        start_move(d, a, ATA_PIO, MOVE_WRITE | MOVE_EXT);
        break;
    case CMD_WRITE_MULTIPLE:
        start_move(d, a, ATA_PIO, MOVE_WRITE | MOVE_MULTIPLE);
        break;
    case CMD_WRITE_MULTIPLE_EXT:
        start_move(d, a, ATA_PIO, MOVE_WRITE | MOVE_MULTIPLE | MOVE_EXT);
        break;
    case CMD_WRITE_MULTIPLE_FUA_EXT:
        start_move(d, a, ATA_PIO, MOVE_WRITE | MOVE_MULTIPLE | MOVE_EXT | MOVE_FUA);
        break;
    case CMD_WRITE_DMA:
    case CMD_WRITE_DMA_NO_RETRY:
        start_move(d, a, ATA_DMA, MOVE_WRITE);
        break;
    case CMD_WRITE_DMA_EXT:
        start_move(d, a, ATA_DMA, MOVE_WRITE | MOVE_EXT);
        break;
    case CMD_WRITE_DMA_FUA_EXT:
        start_move(d, a, ATA_DMA, MOVE_WRITE | MOVE_EXT | MOVE_FUA);
        break;
    case CMD_READ_FPDMA:
        start_queued(d, a, false);
        break;
    case CMD_WRITE_FPDMA:
        start_queued(d, a, true);
        break;
    case CMD_VERIFY:
    case CMD_VERIFY_NO_RETRY:
    case CMD_VERIFY_EXT:
        if (find_range(d, d->r.command == CMD_VERIFY_EXT, &a->offset, &a->bytes))
            a->kind = ATA_DO_VERIFY;
        break;
    case CMD_DATA_SET_MANAGEMENT:
        start_trim(d, a);
        break;
    case CMD_FLUSH:
    case CMD_FLUSH_EXT:
        a->kind = ATA_DO_FLUSH;
        break;
    case CMD_READ_LOG_EXT:
        read_log(d, a, ATA_PIO);
        break;
    case CMD_READ_LOG_DMA_EXT:
        read_log(d, a, ATA_DMA);
        break;
    case CMD_SMART:
        smart(d, a);
        break;
    case CMD_SET_MULTIPLE:
        good(d);
        if (d->r.count > MULTIPLE_MAX || (d->r.count & (d->r.count - 1)))
            fail(d, ATA_ABRT);
        else
            d->multiple = (uint8_t)d->r.count;
        break;
    case CMD_READ_NATIVE_MAX:
    case CMD_READ_NATIVE_MAX_EXT:
        native_max(d, d->r.command == CMD_READ_NATIVE_MAX_EXT);
        break;
    case CMD_RECALIBRATE:
    case CMD_SEEK:
    case CMD_INITIALIZE_PARAMETERS:
        good(d);
        break;
    default:
        fail(d, ATA_ABRT);
        break;
    }
}

void ata_start(struct ata_device *d, struct ata_action *a)
{
    bool reads_queue_log =
        (d->r.command == CMD_READ_LOG_EXT || d->r.command == CMD_READ_LOG_DMA_EXT) &&
        (d->r.lba & 0xFF) == LOG_QUEUE;

    *a = (struct ata_action){.kind = ATA_DO_NOTHING};
    if (d->asleep) { /* only a reset wakes it; commands are not even refused */
        fail(d, ATA_ABRT);
        return;
    }
    if (d->queue_failed && !reads_queue_log) {
        fail(d, ATA_ABRT);
        return;
    }
    if (start_common(d, a))
        return;
    if (d->kind == ATA_CDROM)
        start_cdrom(d, a);
    else
        start_disk(d, a);
    if (a->kind == ATA_DO_READ || a->kind == ATA_DO_WRITE)
        d->standby = false;
}

/* ---- PACKET ---- */

#define PACKET_DMA 0x01
#define REASON_DONE 0x03 /* interrupt reason: command/data and input/output */

static void end_packet(struct ata_device *d, bool fine)
{
    if (fine)
        good(d);
    else
        fail(d, (uint8_t)(d->cd.key << 4 | ATA_ABRT));
    d->r.count = REASON_DONE;
}

void ata_packet(struct ata_device *d, const uint8_t cdb[16], struct ata_action *a)
{
    *a = (struct ata_action){.kind = ATA_DO_NOTHING};
    if (d->kind != ATA_CDROM || d->asleep) {
        fail(d, ATA_ABRT);
        return;
    }
    end_packet(d, cdrom_command(d, cdb, a));
    if (a->kind != ATA_DO_NOTHING && a->kind != ATA_DO_VERIFY)
        a->transfer = d->r.features & PACKET_DMA ? ATA_DMA : ATA_PIO;
}

void ata_take(struct ata_device *d, const uint8_t *data, size_t bytes)
{
    end_packet(d, cdrom_take(d, data, bytes));
}

/* ---- the end of what takes time ---- */

static uint8_t error_bits(const struct ata_action *a, int result)
{
    /* What cannot be read is gone; what cannot be written was refused. */
    return (a->kind == ATA_DO_READ || a->kind == ATA_DO_VERIFY) && result != -EOVERFLOW ? ATA_UNC
                                                                                        : ATA_ABRT;
}

void ata_finish(struct ata_device *d, const struct ata_action *a, int result, uint64_t moved)
{
    uint64_t lba = (a->offset + moved) / ATA_SECTOR;

    if (d->kind == ATA_CDROM) {
        if (result)
            cdrom_failed(d, result);
        end_packet(d, !result);
        return;
    }
    if (!result) {
        good(d);
        return;
    }
    fail(d, error_bits(a, result));
    d->r.lba = lba & BITS(47, 0); /* of the first that failed, or near it */
}

void ata_queue_failed(struct ata_device *d, const struct ata_action *a, int result, uint64_t moved,
                      uint8_t *error)
{
    *error = result ? error_bits(a, result) : d->r.error;
    d->queue_failed = true;
    d->failed_tag = a->tag;
    d->failed_status = ATA_GOOD | ATA_ERR;
    d->failed_error = *error;
    d->failed_lba = ((a->offset + moved) / ATA_SECTOR) & BITS(47, 0);
    d->failed_count = (uint16_t)(a->bytes / ATA_SECTOR);
}

/* ---- state ---- */

int ata_device_check(const struct ata_device *d)
{
    if (d->multiple > MULTIPLE_MAX || d->failed_tag >= ATA_QUEUE_DEPTH ||
        d->failed_lba > BITS(47, 0) || d->r.lba > BITS(47, 0))
        return -EINVAL;
    return cdrom_check(&d->cd);
}

static const struct state_field fields[] = {
    STATE_INT(struct ata_device, r.command),      STATE_INT(struct ata_device, r.device),
    STATE_INT(struct ata_device, r.control),      STATE_INT(struct ata_device, r.status),
    STATE_INT(struct ata_device, r.error),        STATE_INT(struct ata_device, r.features),
    STATE_INT(struct ata_device, r.count),        STATE_INT(struct ata_device, r.lba),
    STATE_INT(struct ata_device, write_cache),    STATE_INT(struct ata_device, look_ahead),
    STATE_INT(struct ata_device, smart),          STATE_INT(struct ata_device, asleep),
    STATE_INT(struct ata_device, standby),        STATE_INT(struct ata_device, multiple),
    STATE_INT(struct ata_device, mode),           STATE_INT(struct ata_device, queue_failed),
    STATE_INT(struct ata_device, failed_tag),     STATE_INT(struct ata_device, failed_status),
    STATE_INT(struct ata_device, failed_error),   STATE_INT(struct ata_device, failed_count),
    STATE_INT(struct ata_device, failed_lba),     STATE_INT(struct ata_device, cd.tray_open),
    STATE_INT(struct ata_device, cd.locked),      STATE_INT(struct ata_device, cd.attention),
    STATE_INT(struct ata_device, cd.key),         STATE_INT(struct ata_device, cd.asc),
    STATE_INT(struct ata_device, cd.ascq),        STATE_INT(struct ata_device, cd.attention_asc),
    STATE_INT(struct ata_device, cd.media_event), STATE_END,
};

const struct state_table ata_device_state = {
    .name = "ata-device",
    .version = 1,
    .fields = fields,
};
