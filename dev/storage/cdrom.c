/*
 * The CD/DVD drive: SCSI commands as MMC-5 (INCITS 430) and SPC-3 (INCITS 408)
 * have them, for a disc with one session and one data track.
 * Interface: the end of ata.h.
 *
 * A command fails with a sense key and code ("CHECK CONDITION"), which REQUEST
 * SENSE tells and forgets. After a reset the first command that touches the
 * medium ends with a unit attention (SPC-3, 5.9.6).
 */
#include <errno.h>

#include "dev/storage/ata.h"

enum cd_command {
    CD_TEST_UNIT_READY = 0x00,
    CD_REQUEST_SENSE = 0x03,
    CD_INQUIRY = 0x12,
    CD_MODE_SELECT_6 = 0x15,
    CD_MODE_SENSE_6 = 0x1A,
    CD_START_STOP = 0x1B,
    CD_PREVENT_ALLOW = 0x1E,
    CD_READ_FORMAT_CAPACITIES = 0x23,
    CD_READ_CAPACITY = 0x25,
    CD_READ_10 = 0x28,
    CD_SEEK = 0x2B,
    CD_VERIFY = 0x2F,
    CD_SYNCHRONIZE_CACHE = 0x35,
    CD_READ_SUBCHANNEL = 0x42,
    CD_READ_TOC = 0x43,
    CD_READ_HEADER = 0x44,
    CD_GET_CONFIGURATION = 0x46,
    CD_GET_EVENT_STATUS = 0x4A,
    CD_READ_DISC_INFO = 0x51,
    CD_READ_TRACK_INFO = 0x52,
    CD_MODE_SELECT_10 = 0x55,
    CD_MODE_SENSE_10 = 0x5A,
    CD_REPORT_LUNS = 0xA0,
    CD_READ_12 = 0xA8,
    CD_GET_PERFORMANCE = 0xAC,
    CD_READ_STRUCTURE = 0xAD,
    CD_READ_CD_MSF = 0xB9,
    CD_SET_SPEED = 0xBB,
    CD_MECHANISM_STATUS = 0xBD,
    CD_READ_CD = 0xBE,
};

enum sense_key {
    KEY_NONE = 0,
    KEY_NOT_READY = 2,
    KEY_MEDIUM_ERROR = 3,
    KEY_ILLEGAL_REQUEST = 5,
    KEY_UNIT_ATTENTION = 6,
};

/* Additional sense code << 8 | qualifier. */
enum sense_code {
    SENSE_NONE = 0x0000,
    SENSE_READ_ERROR = 0x1100,
    SENSE_BAD_LENGTH = 0x1A00,
    SENSE_NO_COMMAND = 0x2000,
    SENSE_BAD_ADDRESS = 0x2100,
    SENSE_BAD_FIELD = 0x2400,
    SENSE_MEDIUM_CHANGED = 0x2800,
    SENSE_RESET = 0x2900,
    SENSE_NO_MEDIUM = 0x3A00,
    SENSE_TRAY_OPEN = 0x3A02,
    SENSE_LOCKED = 0x5302,
};

enum media_event { EVENT_NONE = 0, EVENT_NEW_MEDIA = 2, EVENT_REMOVED = 3 };

enum profile { PROFILE_CD_ROM = 0x0008, PROFILE_DVD_ROM = 0x0010 };

#define BLOCK 2048u
#define LEAD_OUT 0xAA
#define CD_BLOCKS_MAX 360000u /* 80 minutes: what is larger is a DVD */
#define MSF_OFFSET 150u       /* blocks before block 0, as times count them */

static bool refuse(struct ata_device *d, enum sense_key key, enum sense_code code)
{
    d->cd.key = (uint8_t)key;
    d->cd.asc = (uint8_t)(code >> 8);
    d->cd.ascq = (uint8_t)code;
    return false;
}

static bool bad_field(struct ata_device *d)
{
    return refuse(d, KEY_ILLEGAL_REQUEST, SENSE_BAD_FIELD);
}

static bool has_medium(const struct ata_device *d)
{
    return d->disk && !d->cd.tray_open;
}

/* An answer of `bytes`, of which the guest wants `room` at most. */
static bool answer(struct ata_action *a, size_t bytes, size_t room)
{
    a->bytes = MIN(bytes, room);
    a->kind = a->bytes ? ATA_DO_REPLY : ATA_DO_NOTHING;
    return true;
}

/* A block's address as be32 LBA or as minute, second, frame. */
static void put_address(uint8_t *p, uint64_t block, bool msf)
{
    if (!msf) {
        be32_put(p, (uint32_t)block);
        return;
    }
    block += MSF_OFFSET;
    p[0] = 0;
    p[1] = (uint8_t)MIN(block / (60 * 75), 255u);
    p[2] = (uint8_t)(block / 75 % 60);
    p[3] = (uint8_t)(block % 75);
}

/* ---- who it is ---- */

static bool inquiry(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    uint8_t *p = d->reply;
    size_t room = be16_get(cdb + 3), length;

    if (cdb[1] & 1) { /* vital product data */
        p[0] = 0x05;
        p[1] = cdb[2];
        switch (cdb[2]) {
        case 0x00:
            p[3] = 3;
            memcpy(p + 4, "\x00\x80\x83", 3);
            return answer(a, 7, room);
        case 0x80:
            length = d->disk ? strlen(disk_serial(d->disk)) : 0;
            p[3] = (uint8_t)length;
            if (length)
                memcpy(p + 4, disk_serial(d->disk), length);
            return answer(a, 4 + length, room);
        case 0x83:
            length = d->disk ? strlen(disk_serial(d->disk)) : 0;
            p[3] = (uint8_t)(12 + length);
            p[4] = 0x02; /* ASCII */
            p[5] = 0x01; /* vendor's identification */
            p[7] = (uint8_t)(8 + length);
            memcpy(p + 8, "VIREO   ", 8);
            if (length)
                memcpy(p + 16, disk_serial(d->disk), length);
            return answer(a, 16 + length, room);
        default:
            return bad_field(d);
        }
    }
    if (cdb[2])
        return bad_field(d);
    p[0] = 0x05; /* CD/DVD */
    p[1] = 0x80; /* removable */
    p[2] = 0x05; /* SPC-3 */
    p[3] = 0x02; /* format of this answer */
    p[4] = 31;
    memcpy(p + 8, "VIREO   DVD-ROM         1   ", 28);
    return answer(a, 36, room);
}

static bool request_sense(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    struct cdrom *cd = &d->cd;
    uint8_t *p = d->reply;

    if (cd->attention && !cd->key) {
        cd->key = KEY_UNIT_ATTENTION;
        cd->asc = cd->attention_asc;
        cd->ascq = 0;
        cd->attention = false;
    }
    p[0] = 0x70;
    p[2] = cd->key;
    p[7] = 10;
    p[12] = cd->asc;
    p[13] = cd->ascq;
    cd->key = cd->asc = cd->ascq = 0;
    return answer(a, 18, cdb[4]);
}

/* ---- mode pages ---- */

static size_t put_page(struct ata_device *d, size_t at, uint8_t page, bool changeable)
{
    uint8_t *p = d->reply + at;

    memset(p, 0, 32);
    p[0] = page;
    switch (page) {
    case 0x01: /* error recovery */
        p[1] = 10;
        p[3] = changeable ? 0 : 5; /* retries */
        return 12;
    case 0x08: /* caching */
        p[1] = 18;
        return 20;
    case 0x0D: /* times */
        p[1] = 6;
        if (!changeable) {
            p[5] = 60;
            p[7] = 75;
        }
        return 8;
    case 0x0E: /* audio */
        p[1] = 14;
        return 16;
    case 0x1A: /* power */
        p[1] = 10;
        return 12;
    case 0x2A: /* capabilities */
        p[1] = 22;
        if (changeable)
            return 24;
        p[2] = 0x3B; /* reads CD-R, CD-RW, DVD-ROM, DVD-R, method 2 */
        p[4] = 0x71; /* mode 2 forms, multisession, plays audio */
        p[5] = 0x03;
        p[6] = (uint8_t)(0x29 | d->cd.locked << 1); /* tray, ejects, locks */
        be16_put(p + 8, 2822);                      /* KB/s */
        be16_put(p + 10, 2);
        be16_put(p + 12, 512); /* KiB of buffer */
        be16_put(p + 14, 2822);
        return 24;
    default:
        return 0;
    }
}

static bool mode_sense(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    static const uint8_t pages[] = {0x01, 0x08, 0x0D, 0x0E, 0x1A, 0x2A};
    bool is_10 = cdb[0] == CD_MODE_SENSE_10;
    size_t header = is_10 ? 8 : 4, used = header;
    uint8_t page = cdb[2] & 0x3F, control = cdb[2] >> 6;

    if (control == 3 || (cdb[3] && cdb[3] != 0xFF)) /* no saved values, no subpages */
        return bad_field(d);
    for (size_t n = 0; n < sizeof pages; n++)
        if (page == 0x3F || page == pages[n])
            used += put_page(d, used, pages[n], control == 1);
    if (used == header)
        return bad_field(d);
    memset(d->reply, 0, header);
    if (is_10) {
        be16_put(d->reply, (uint16_t)(used - 2));
        d->reply[2] = has_medium(d) ? 0x01 : 0x70;
    } else {
        d->reply[0] = (uint8_t)(used - 1);
        d->reply[1] = has_medium(d) ? 0x01 : 0x70;
    }
    return answer(a, used, is_10 ? be16_get(cdb + 7) : cdb[4]);
}

static bool mode_select(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    size_t bytes = cdb[0] == CD_MODE_SELECT_10 ? be16_get(cdb + 7) : cdb[4];

    if (!(cdb[1] & 0x10) || cdb[1] & 1 || bytes > ATA_REPLY_BYTES)
        return bad_field(d);
    if (bytes) {
        a->kind = ATA_DO_TAKE;
        a->bytes = bytes;
    }
    return true;
}

/* Pages are taken and change nothing. */
bool cdrom_take(struct ata_device *d, const uint8_t *data, size_t bytes)
{
    return bytes < 4 ? refuse(d, KEY_ILLEGAL_REQUEST, SENSE_BAD_LENGTH) : true;
}

/* ---- the disc ---- */

static bool read_toc(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    uint8_t *p = d->reply, first = cdb[6], format = cdb[2] & 0x0F;
    bool msf = cdb[1] & 2;
    size_t used = 4;

    if (!format)
        format = cdb[9] >> 6; /* where older standards have it */
    p[2] = p[3] = 1;
    switch (format) {
    case 0: /* tracks */
        if (first > 1 && first != LEAD_OUT)
            return bad_field(d);
        if (first <= 1) {
            memcpy(p + used, "\x00\x14\x01\x00", 4);
            put_address(p + used + 4, 0, msf);
            used += 8;
        }
        memcpy(p + used, "\x00\x16\xAA\x00", 4);
        put_address(p + used + 4, d->sectors, msf);
        used += 8;
        break;
    case 1: /* sessions */
        memcpy(p + used, "\x00\x14\x01\x00", 4);
        put_address(p + used + 4, 0, msf);
        used += 8;
        break;
    case 2: { /* everything: first track, last track, lead-out, track 1 */
        static const uint8_t points[] = {0xA0, 0xA1, 0xA2, 1};

        for (size_t n = 0; n < sizeof points; n++, used += 11) {
            uint8_t *q = p + used;

            memset(q, 0, 11);
            q[0] = 1;
            q[1] = 0x14;
            q[3] = points[n];
            if (points[n] == 0xA2)
                put_address(q + 7, d->sectors, true);
            else if (points[n] == 1)
                put_address(q + 7, 0, true);
            else
                q[8] = 1;
        }
        break;
    }
    default:
        return bad_field(d);
    }
    be16_put(p, (uint16_t)(used - 2));
    return answer(a, used, be16_get(cdb + 7));
}

static bool read_disc_info(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    uint8_t *p = d->reply;

    if (cdb[1] & 7)
        return bad_field(d);
    be16_put(p, 32);
    p[2] = 0x0E; /* finished, last session complete */
    p[3] = p[4] = p[5] = p[6] = 1;
    p[7] = 0x20; /* for any use */
    memset(p + 16, 0xFF, 8);
    return answer(a, 34, be16_get(cdb + 7));
}

static bool read_track_info(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    uint8_t *p = d->reply;
    uint32_t number = be32_get(cdb + 2);

    if ((cdb[1] & 3) != 0 && number != 1)
        return bad_field(d);
    be16_put(p, 34);
    p[2] = p[3] = 1;
    p[5] = 0x04; /* data */
    p[6] = 0x01;
    be32_put(p + 24, (uint32_t)MIN(d->sectors, UINT32_MAX));
    return answer(a, 36, be16_get(cdb + 7));
}

static bool read_capacity(struct ata_device *d, struct ata_action *a)
{
    be32_put(d->reply, (uint32_t)MIN(d->sectors - 1, UINT32_MAX));
    be32_put(d->reply + 4, BLOCK);
    return answer(a, 8, 8);
}

static bool is_dvd(const struct ata_device *d)
{
    return d->sectors > CD_BLOCKS_MAX;
}

static uint8_t *put_feature(uint8_t *p, uint16_t code, uint8_t flags, const void *data,
                            uint8_t bytes)
{
    be16_put(p, code);
    p[2] = flags;
    p[3] = bytes;
    memcpy(p + 4, data, bytes);
    return p + 4 + bytes;
}

static bool get_configuration(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    enum { CURRENT = 1, PERSISTENT = 2 };
    uint8_t profiles[8] = {0, PROFILE_DVD_ROM, 0, 0, 0, PROFILE_CD_ROM, 0, 0};
    uint8_t *p = d->reply + 8, how = cdb[1] & 3;
    uint16_t first = be16_get(cdb + 2), profile = is_dvd(d) ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
    const struct {
        uint16_t code;
        uint8_t flags, bytes;
        const void *data;
    } features[] = {
        {0x0000, 0x03, sizeof profiles, profiles},
        {0x0001, 0x0B, 8, "\0\0\0\7\1\0\0\0"},     /* core: ATAPI */
        {0x0002, 0x07, 4, "\2\0\0\0"},             /* morphing */
        {0x0003, 0x03, 4, "\x29\0\0\0"},           /* removable medium: tray */
        {0x0010, 0x01, 8, "\0\0\x08\0\0\x10\0\0"}, /* random readable */
        {0x001E, 0x08, 4, "\0\0\0\0"},             /* CD read */
        {0x001F, 0x08, 4, "\0\0\0\0"},             /* DVD read */
        {0x0100, 0x03, 0, ""},                     /* power management */
        {0x0105, 0x03, 4, "\0\0\0\0"},             /* time-outs */
    };

    if (how == 3)
        return bad_field(d);
    if (has_medium(d)) {
        be16_put(d->reply + 6, profile);
        profiles[is_dvd(d) ? 2 : 6] = CURRENT;
    }
    for (size_t n = 0; n < ARRAY_SIZE(features); n++) {
        uint8_t flags = features[n].flags;

        if (features[n].code == (is_dvd(d) ? 0x1F : 0x1E) && has_medium(d))
            flags |= CURRENT;
        if (features[n].code < first || (how == 2 && features[n].code != first) ||
            (how == 1 && !(flags & CURRENT)))
            continue;
        p = put_feature(p, features[n].code, flags, features[n].data, features[n].bytes);
    }
    be32_put(d->reply, (uint32_t)(p - d->reply - 4));
    return answer(a, (size_t)(p - d->reply), be16_get(cdb + 7));
}

static bool get_event_status(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    enum { CLASS_MEDIA = 4, NO_EVENT = 0x80 };
    uint8_t *p = d->reply;

    if (!(cdb[1] & 1)) /* only polling */
        return bad_field(d);
    p[3] = 1 << CLASS_MEDIA;
    if (!(cdb[4] & 1 << CLASS_MEDIA)) {
        p[2] = NO_EVENT;
        be16_put(p, 2);
        return answer(a, 4, be16_get(cdb + 7));
    }
    p[2] = CLASS_MEDIA;
    be16_put(p, 6);
    p[4] = d->cd.media_event;
    p[5] = (uint8_t)(has_medium(d) << 1 | d->cd.tray_open);
    d->cd.media_event = EVENT_NONE;
    return answer(a, 8, be16_get(cdb + 7));
}

static bool start_stop(struct ata_device *d, const uint8_t *cdb)
{
    bool load_eject = cdb[4] & 2, start = cdb[4] & 1;

    if (!load_eject)
        return true; /* it always spins */
    if (!start && d->cd.locked)
        return refuse(d, d->cd.tray_open ? KEY_NOT_READY : KEY_ILLEGAL_REQUEST, SENSE_LOCKED);
    if (start == d->cd.tray_open) {
        d->cd.tray_open = !start;
        d->cd.media_event = start ? EVENT_NEW_MEDIA : EVENT_REMOVED;
        if (start) {
            d->cd.attention = true;
            d->cd.attention_asc = SENSE_MEDIUM_CHANGED >> 8;
        }
    }
    return true;
}

static bool read_blocks(struct ata_device *d, struct ata_action *a, uint64_t lba, uint64_t count)
{
    if (lba > d->sectors || count > d->sectors - lba)
        return refuse(d, KEY_ILLEGAL_REQUEST, SENSE_BAD_ADDRESS);
    if (count) {
        a->kind = ATA_DO_READ;
        a->offset = lba * BLOCK;
        a->bytes = count * BLOCK;
    }
    return true;
}

/* READ CD: of a data track the user data only. */
static bool read_cd(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    unsigned type = cdb[1] >> 2 & 7, parts = cdb[9] & 0xF8;
    uint64_t lba = be32_get(cdb + 2), count = be32_get(cdb + 5) & 0xFFFFFF;

    if (cdb[0] == CD_READ_CD_MSF) {
        uint64_t from = (cdb[3] * 60u + cdb[4]) * 75u + cdb[5];
        uint64_t to = (cdb[6] * 60u + cdb[7]) * 75u + cdb[8];

        if (from < MSF_OFFSET || to < from)
            return bad_field(d);
        lba = from - MSF_OFFSET;
        count = to - from;
    }
    if ((type != 0 && type != 2 && type != 4) || cdb[10] & 7)
        return bad_field(d);
    if (!parts)
        count = 0;
    else if (parts != 0x10)
        return bad_field(d);
    return read_blocks(d, a, lba, count);
}

/* ---- dispatch ---- */

/* What needs no medium, and does not care for an attention (SPC-3, 5.9.6). */
static bool is_always_allowed(uint8_t command)
{
    return command == CD_INQUIRY || command == CD_REQUEST_SENSE || command == CD_REPORT_LUNS ||
           command == CD_GET_CONFIGURATION || command == CD_GET_EVENT_STATUS;
}

static bool needs_medium(uint8_t command)
{
    switch (command) {
    case CD_TEST_UNIT_READY:
    case CD_READ_CAPACITY:
    case CD_READ_10:
    case CD_SEEK:
    case CD_VERIFY:
    case CD_READ_SUBCHANNEL:
    case CD_READ_TOC:
    case CD_READ_HEADER:
    case CD_READ_DISC_INFO:
    case CD_READ_TRACK_INFO:
    case CD_READ_12:
    case CD_READ_CD_MSF:
    case CD_READ_CD:
        return true;
    default:
        return false;
    }
}

static bool run_command(struct ata_device *d, const uint8_t *cdb, struct ata_action *a)
{
    uint8_t *p = d->reply;

    switch (cdb[0]) {
    case CD_TEST_UNIT_READY:
    case CD_SYNCHRONIZE_CACHE:
    case CD_SET_SPEED:
        return true;
    case CD_SEEK:
        return be32_get(cdb + 2) < d->sectors || refuse(d, KEY_ILLEGAL_REQUEST, SENSE_BAD_ADDRESS);
    case CD_VERIFY:
        if (!read_blocks(d, a, be32_get(cdb + 2), be16_get(cdb + 7)))
            return false;
        if (a->kind == ATA_DO_READ)
            a->kind = ATA_DO_VERIFY;
        return true;
    case CD_REQUEST_SENSE:
        return request_sense(d, cdb, a);
    case CD_INQUIRY:
        return inquiry(d, cdb, a);
    case CD_MODE_SENSE_6:
    case CD_MODE_SENSE_10:
        return mode_sense(d, cdb, a);
    case CD_MODE_SELECT_6:
    case CD_MODE_SELECT_10:
        return mode_select(d, cdb, a);
    case CD_START_STOP:
        return start_stop(d, cdb);
    case CD_PREVENT_ALLOW:
        d->cd.locked = cdb[4] & 1;
        return true;
    case CD_READ_CAPACITY:
        return read_capacity(d, a);
    case CD_READ_10:
        return read_blocks(d, a, be32_get(cdb + 2), be16_get(cdb + 7));
    case CD_READ_12:
        return read_blocks(d, a, be32_get(cdb + 2), be32_get(cdb + 6));
    case CD_READ_CD:
    case CD_READ_CD_MSF:
        return read_cd(d, cdb, a);
    case CD_READ_TOC:
        return read_toc(d, cdb, a);
    case CD_READ_HEADER:
        p[0] = 1; /* mode 1 */
        put_address(p + 4, be32_get(cdb + 2), cdb[1] & 2);
        return answer(a, 8, be16_get(cdb + 7));
    case CD_READ_SUBCHANNEL:
        p[1] = 0x15; /* nothing was played */
        return answer(a, 4, be16_get(cdb + 7));
    case CD_READ_DISC_INFO:
        return read_disc_info(d, cdb, a);
    case CD_READ_TRACK_INFO:
        return read_track_info(d, cdb, a);
    case CD_READ_FORMAT_CAPACITIES:
        p[3] = 8;
        be32_put(p + 4, (uint32_t)MIN(d->sectors, UINT32_MAX));
        be32_put(p + 8, BLOCK);
        p[8] = has_medium(d) ? 2 : 3; /* formatted, or no medium */
        return answer(a, 12, be16_get(cdb + 7));
    case CD_GET_CONFIGURATION:
        return get_configuration(d, cdb, a);
    case CD_GET_EVENT_STATUS:
        return get_event_status(d, cdb, a);
    case CD_GET_PERFORMANCE:
        be32_put(p, 4);
        return answer(a, 8, 8u + 16u * be16_get(cdb + 8));
    case CD_MECHANISM_STATUS:
        p[1] = (uint8_t)(d->cd.tray_open << 4);
        p[5] = 1;
        return answer(a, 8, be16_get(cdb + 8));
    case CD_REPORT_LUNS:
        be32_put(p, 8);
        return answer(a, 16, be32_get(cdb + 6));
    default:
        return refuse(d, KEY_ILLEGAL_REQUEST, SENSE_NO_COMMAND);
    }
}

bool cdrom_command(struct ata_device *d, const uint8_t cdb[16], struct ata_action *a)
{
    struct cdrom *cd = &d->cd;
    uint8_t command = cdb[0];

    if (command != CD_REQUEST_SENSE)
        cd->key = cd->asc = cd->ascq = 0;
    if (cd->attention && !is_always_allowed(command)) {
        cd->attention = false;
        return refuse(d, KEY_UNIT_ATTENTION, (enum sense_code)(cd->attention_asc << 8));
    }
    if (needs_medium(command) && !has_medium(d))
        return refuse(d, KEY_NOT_READY, cd->tray_open ? SENSE_TRAY_OPEN : SENSE_NO_MEDIUM);
    memset(d->reply, 0, 512); /* answers are shorter and mostly zeroes */
    return run_command(d, cdb, a);
}

void cdrom_failed(struct ata_device *d, int result)
{
    refuse(d, KEY_MEDIUM_ERROR, SENSE_READ_ERROR);
}

void cdrom_reset(struct ata_device *d)
{
    d->cd = (struct cdrom){
        .attention = true,
        .attention_asc = SENSE_RESET >> 8,
        .media_event = d->disk ? EVENT_NEW_MEDIA : EVENT_NONE,
    };
}

int cdrom_check(const struct cdrom *cd)
{
    return cd->key > 15 || cd->media_event > EVENT_REMOVED ? -EINVAL : 0;
}
