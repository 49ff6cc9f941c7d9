/*
 * ATA devices: a disk (ATA/ATAPI Command Set - 3) and a CD drive (PACKET
 * commands, cdrom.h), as a host adapter sees them: it hands over a command's
 * registers and is told what is to be done.
 *
 * The device knows no FIS and no guest memory. It answers at once with an
 * action; where that moves data or takes time, the adapter does it (with the
 * disk back end) and says how it ended with ata_finish.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_STORAGE_ATA_H
#define DEV_STORAGE_ATA_H

#include "backend/disk/disk.h"
#include "base/base.h"
#include "vm/state.h"

#define ATA_SECTOR 512u
#define ATA_REPLY_BYTES 4096 /* the longest reply from a buffer */
#define ATA_QUEUE_DEPTH 32

enum ata_status {
    ATA_ERR = 1 << 0, /* CHK in PACKET commands */
    ATA_DRQ = 1 << 3,
    ATA_DSC = 1 << 4, /* "seek complete": always set, as software expects it */
    ATA_DF = 1 << 5,
    ATA_DRDY = 1 << 6,
    ATA_BSY = 1 << 7,
    ATA_GOOD = ATA_DRDY | ATA_DSC,
};

enum ata_error {
    ATA_ABRT = 1 << 2,
    ATA_IDNF = 1 << 4,
    ATA_UNC = 1 << 6,
};

/* The registers of a command, both ways. */
struct ata_registers {
    uint8_t command, device, control;
    uint8_t status, error;
    uint16_t features, count;
    uint64_t lba; /* 48 bits */
};

enum ata_kind { ATA_ABSENT, ATA_DISK, ATA_CDROM };

enum ata_action_kind {
    ATA_DO_NOTHING, /* it has ended: registers say how */
    ATA_DO_REPLY,   /* `bytes` of device->reply to the guest */
    ATA_DO_TAKE,    /* `bytes` from the guest to ata_take */
    ATA_DO_READ,    /* from the disk to the guest */
    ATA_DO_WRITE,
    ATA_DO_VERIFY, /* from the disk to nobody */
    ATA_DO_FLUSH,
    ATA_DO_TRIM, /* `bytes` of the guest's list of ranges */
    ATA_ACTION_KINDS
};

enum ata_transfer { ATA_NO_DATA, ATA_PIO, ATA_DMA, ATA_QUEUED };

struct ata_action {
    enum ata_action_kind kind;
    enum ata_transfer transfer;
    bool fua;
    uint8_t tag;            /* of queued ones */
    uint64_t offset, bytes; /* offset: on the disk */
};

/* What a CD drive remembers: cdrom.c. */
struct cdrom {
    bool tray_open, locked;
    bool attention;         /* unit attention: sense 29H or 28H waits */
    uint8_t key, asc, ascq; /* of REQUEST SENSE */
    uint8_t attention_asc;  /* 28H: medium may have changed, 29H: reset */
    uint8_t media_event;    /* of GET EVENT STATUS NOTIFICATION */
};

struct ata_device {
    enum ata_kind kind;
    struct disk *disk; /* CD: may be NULL, no medium */
    uint64_t sectors;  /* of 512 bytes (disk) or 2048 (CD) */

    /* ---- saved ---- */
    struct ata_registers r; /* of the last command that was not queued */
    bool write_cache, look_ahead, smart;
    bool asleep, standby;
    uint8_t multiple; /* sectors, SET MULTIPLE MODE */
    uint8_t mode;     /* SET FEATURES 03H */
    /* A queued command has failed: all are refused until log 10H is read. */
    bool queue_failed;
    uint8_t failed_tag, failed_status, failed_error;
    uint16_t failed_count;
    uint64_t failed_lba;
    struct cdrom cd;

    /* Between ata_start and the end of the same call of the adapter's. */
    uint8_t reply[ATA_REPLY_BYTES];
};

extern const struct state_table ata_device_state;

/* What saved state cannot be: -EINVAL. */
int ata_device_check(const struct ata_device *d);

/* Power-on, COMRESET (hard) and software reset; registers hold the signature. */
void ata_reset(struct ata_device *d, bool hard);
/* A command that is not PACKET; d->r are its registers. Queued ones
 * (action->transfer ATA_QUEUED) leave d->r.status free for the next. */
void ata_start(struct ata_device *d, struct ata_action *action);
/* PACKET, with its command descriptor block. */
void ata_packet(struct ata_device *d, const uint8_t cdb[16], struct ata_action *action);
/* What ATA_DO_TAKE brought. */
void ata_take(struct ata_device *d, const uint8_t *data, size_t bytes);
/* The action has ended with 0 or a negative errno of the disk's, after `moved`
 * bytes: sets status, error and address. Not for queued commands. */
void ata_finish(struct ata_device *d, const struct ata_action *action, int result, uint64_t moved);
/* A queued command failed: for log 10H. *error: of the FIS. */
void ata_queue_failed(struct ata_device *d, const struct ata_action *action, int result,
                      uint64_t moved, uint8_t *error);
/* A range of DATA SET MANAGEMENT's list; false: it is outside the disk. */
bool ata_trim_range(const struct ata_device *d, const uint8_t entry[8], uint64_t *offset,
                    uint64_t *bytes);

/* ---- ata_data.c: what is told in sectors ---- */

/* Each fills d->reply; false: there is no such log. */
void ata_identify(struct ata_device *d);
bool ata_log_read(struct ata_device *d, uint8_t log, uint16_t page, unsigned pages);
void ata_smart_data(struct ata_device *d);
void ata_smart_thresholds(struct ata_device *d);
bool ata_smart_log(struct ata_device *d, uint8_t log);

/* ---- cdrom.c ---- */

void cdrom_reset(struct ata_device *d);
/* Returns false when it ends in CHECK CONDITION (d->cd has the sense). *bytes of
 * reply: before it is cut to what the guest has room for. */
bool cdrom_command(struct ata_device *d, const uint8_t cdb[16], struct ata_action *action);
bool cdrom_take(struct ata_device *d, const uint8_t *data, size_t bytes);
/* A read has failed. */
void cdrom_failed(struct ata_device *d, int result);
int cdrom_check(const struct cdrom *cd);

#endif
