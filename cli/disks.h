/*
 * --disk and --cdrom: what they say, and the images behind them.
 */
#ifndef CLI_DISKS_H
#define CLI_DISKS_H

#include "backend/disk/disk.h"
#include "board/pc.h"
#include "cli/options.h"
#include "dev/storage/nvme.h"
#include "dev/virtio/virtio_blk.h"

#define CLI_PATH_BYTES 4096
#define CLI_MAX_DISKS PC_MAX_BOOT

struct cli_disk_bus;

/* FILE[,format=auto|raw|qcow2][,bus=ahci|nvme|virtio][,readonly][,snapshot]
 * [,cache=writeback|none|unsafe][,serial=TEXT]; a comma in FILE is written twice. */
struct cli_disk_spec {
    char path[CLI_PATH_BYTES];
    char serial[DISK_SERIAL_BYTES + 1];
    bool readonly, snapshot;
    enum disk_format format;
    enum disk_cache cache;
    const struct cli_disk_bus *bus;
};

int cli_disk_parse(const char *spec, struct cli_disk_spec *disk, struct error *err);
/* What can be said before images are opened. */
int cli_disks_check(const struct cli_options *o, struct error *err);

struct cli_virtio_disk {
    char name[24];
    struct virtio_blk_config config;
};

struct cli_disks {
    struct disk *disk[CLI_MAX_DISKS];
    unsigned count;
    struct cli_virtio_disk virtio[CLI_MAX_DISKS];
    unsigned virtios;
    unsigned ports; /* of AHCI, that are taken */
    struct nvme_config nvme[CLI_MAX_DISKS]; /* the board reads it */
    char uefi_vars[CLI_PATH_BYTES + 16];
};

/* Opens all of them and gives them to the board: on SATA disks come first and CDs
 * behind them; firmware tries all disks, as they were given, and then CDs. private: no write reaches an image (machines that run side by
 * side). UEFI's variables go beside the first disk where --uefi-vars says nothing:
 * FILE.uefi-vars, read only if the disk is. After a failure there is nothing to
 * close. */
int cli_disks_open(struct cli_disks *disks, const struct cli_options *o, bool private,
                   struct vm *vm, struct pc_config *board, struct error *err);
/* After the last run, before the vm is destroyed. */
void cli_disks_close(struct cli_disks *disks);

#endif
