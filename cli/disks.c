/*
 * --disk and --cdrom. Interface: disks.h.
 */
#include "cli/disks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The next piece up to a comma that is not doubled; NULL: it is too long. */
static const char *take_path(const char *spec, char *out, size_t room)
{
    size_t used = 0;

    while (*spec && !(spec[0] == ',' && spec[1] != ',')) {
        if (used + 1 >= room)
            return NULL;
        spec += spec[0] == ',';
        out[used++] = *spec++;
    }
    out[used] = '\0';
    return spec;
}

/* ---- buses ---- */

/* Where a disk is put in. */
struct cli_disk_bus {
    const char *name;
    int (*attach)(struct cli_disks *disks, struct disk *disk, struct pc_config *board,
                  struct error *err);
};

static void add_sata(struct cli_disks *disks, enum ata_kind kind, struct disk *disk,
                     struct pc_config *board)
{
    unsigned port = disks->ports++;

    board->sata.port[port].kind = kind;
    board->sata.port[port].disk = disk;
    pc_add_boot(board, (struct pc_boot_device){.number = port});
}

static int attach_ahci(struct cli_disks *disks, struct disk *disk, struct pc_config *board,
                       struct error *err)
{
    add_sata(disks, ATA_DISK, disk, board);
    return 0;
}

static int create_nvme(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                       struct error *err)
{
    return nvme_create(vm, bus, devfn, config, err) ? 0 : -ENOMEM;
}

/* A controller for each disk. Firmware knows its path by the number that QEMU's
 * first controllers had. */
static int attach_nvme(struct cli_disks *disks, struct disk *disk, struct pc_config *board,
                       struct error *err)
{
    struct nvme_config *config = &disks->nvme[disks->count - 1];

    *config = (struct nvme_config){.disk = disk};
    pc_add_boot(board, (struct pc_boot_device){.node = "pci8086,5845",
                                               .unit = "namespace@1,0",
                                               .number = board->card_count});
    return pc_add_card(board, create_nvme, config, err);
}

static int attach_virtio(struct cli_disks *disks, struct disk *disk, struct pc_config *board,
                         struct error *err)
{
    struct cli_virtio_disk *v = &disks->virtio[disks->virtios];

    snprintf(v->name, sizeof v->name, "virtio-blk%u", disks->virtios++);
    v->config = (struct virtio_blk_config){.name = v->name, .disk = disk, .queues = board->cpus};
    pc_add_boot(board, (struct pc_boot_device){
                           .node = "scsi", .unit = "disk@0,0", .number = board->card_count});
    return pc_add_card(board, virtio_blk_create, &v->config, err);
}

static const struct cli_disk_bus buses[] = {
    {"ahci", attach_ahci}, /* what a disk is on that says nothing */
    {"nvme", attach_nvme},
    {"virtio", attach_virtio},
};

/* ---- what an option says ---- */

static bool is_key(const char *item, size_t length, const char *key)
{
    return strlen(key) == length && !memcmp(item, key, length);
}

static int set_cache(struct cli_disk_spec *disk, const char *value, size_t length)
{
    static const char *const names[] = {
        [DISK_WRITEBACK] = "writeback", [DISK_NONE] = "none", [DISK_UNSAFE] = "unsafe"};

    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        if (is_key(value, length, names[n])) {
            disk->cache = (enum disk_cache)n;
            return 0;
        }
    }
    return -EINVAL;
}

static int set_format(struct cli_disk_spec *disk, const char *value, size_t length)
{
    static const char *const names[] = {
        [DISK_FORMAT_AUTO] = "auto", [DISK_FORMAT_RAW] = "raw", [DISK_FORMAT_QCOW2] = "qcow2"};

    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        if (is_key(value, length, names[n])) {
            disk->format = (enum disk_format)n;
            return 0;
        }
    }
    return -EINVAL;
}

static int set_serial(struct cli_disk_spec *disk, const char *value, size_t length)
{
    if (!length || length > DISK_SERIAL_BYTES)
        return -EINVAL;
    for (size_t n = 0; n < length; n++)
        if (value[n] < ' ' || value[n] > '~')
            return -EINVAL;
    memcpy(disk->serial, value, length);
    disk->serial[length] = '\0';
    return 0;
}

static int set_bus(struct cli_disk_spec *disk, const char *value, size_t length, struct error *err)
{
    char names[64] = "";

    for (size_t n = 0; n < ARRAY_SIZE(buses); n++) {
        size_t used = strlen(names);

        if (is_key(value, length, buses[n].name)) {
            disk->bus = &buses[n];
            return 0;
        }
        snprintf(names + used, sizeof names - used, "%s%s", n ? ", " : "", buses[n].name);
    }
    return error_set(err, -EINVAL, "--disk: there is no bus '%.*s': give bus= one of %s",
                     (int)MIN(length, 64u), value, names);
}

static int set_item(struct cli_disk_spec *disk, const char *item, size_t length, struct error *err)
{
    size_t key = strcspn(item, "=,");
    const char *value = item + key + 1;
    size_t value_length = key < length ? length - key - 1 : 0;
    bool has_value = key < length;

    if (!has_value && is_key(item, length, "readonly")) {
        disk->readonly = true;
    } else if (!has_value && is_key(item, length, "snapshot")) {
        disk->snapshot = true;
    } else if (has_value && is_key(item, key, "bus")) {
        return set_bus(disk, value, value_length, err);
    } else if (has_value && is_key(item, key, "format")) {
        if (set_format(disk, value, value_length))
            return error_set(err, -EINVAL, "--disk: format is auto, raw or qcow2, not '%.*s'",
                             (int)MIN(value_length, 64u), value);
    } else if (has_value && is_key(item, key, "cache")) {
        if (set_cache(disk, value, value_length))
            return error_set(err, -EINVAL, "--disk: cache is writeback, none or unsafe, not '%.*s'",
                             (int)MIN(value_length, 64u), value);
    } else if (has_value && is_key(item, key, "serial")) {
        if (set_serial(disk, value, value_length))
            return error_set(err, -EINVAL,
                             "--disk: a serial number is 1 to %d printable characters",
                             DISK_SERIAL_BYTES);
    } else {
        return error_set(err, -EINVAL,
                         "--disk has no option '%.*s': there are format=FORMAT, bus=BUS, "
                         "readonly, snapshot, cache=MODE and serial=TEXT (a comma in a file's name is written ,,)",
                         (int)MIN(length, 64u), item);
    }
    return 0;
}

int cli_disk_parse(const char *spec, struct cli_disk_spec *disk, struct error *err)
{
    memset(disk, 0, sizeof *disk);
    disk->bus = &buses[0];
    spec = take_path(spec, disk->path, sizeof disk->path);
    if (!spec || !disk->path[0])
        return error_set(err, -EINVAL, "--disk: give the name of an image first");
    while (*spec == ',') {
        size_t length = strcspn(spec + 1, ",");
        int ret = set_item(disk, spec + 1, length, err);

        if (ret)
            return ret;
        spec += 1 + length;
    }
    return 0;
}

int cli_disks_check(const struct cli_options *o, struct error *err)
{
    unsigned sata = o->cdrom.count;
    struct cli_disk_spec disk;

    if (o->disk.count + o->cdrom.count > CLI_MAX_DISKS)
        return error_set(err, -E2BIG, "%u disks and CDs are too many: there may be %d",
                         o->disk.count + o->cdrom.count, CLI_MAX_DISKS);
    for (unsigned n = 0; n < o->disk.count; n++) {
        int ret = cli_disk_parse(o->disk.item[n], &disk, err);

        if (ret)
            return ret;
        sata += disk.bus->attach == attach_ahci;
    }
    if (sata > AHCI_PORTS)
        return error_set(err, -E2BIG, "%u disks and CDs are too many: there are %d SATA ports",
                         sata, AHCI_PORTS);
    return 0;
}

/* ---- opening ---- */

static struct disk *open_one(struct cli_disks *disks, const struct disk_config *config,
                             struct vm *vm, struct error *err)
{
    struct disk *d = disk_open(vm, config, err);

    if (d)
        disks->disk[disks->count++] = d;
    return d;
}

/* A block device has no place beside it. */
static void place_uefi_vars(struct cli_disks *disks, const struct cli_disk_spec *first,
                            bool private, struct pc_config *board)
{
    struct stat st;

    if (board->uefi_vars || !board->firmware || strcmp(board->firmware, "uefi") ||
        stat(first->path, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    snprintf(disks->uefi_vars, sizeof disks->uefi_vars, "%s.uefi-vars", first->path);
    board->uefi_vars = disks->uefi_vars;
    board->uefi_vars_volatile = private || first->readonly || first->snapshot;
}

int cli_disks_open(struct cli_disks *disks, const struct cli_options *o, bool private,
                   struct vm *vm, struct pc_config *board, struct error *err)
{
    int ret = cli_disks_check(o, err);
    struct disk *disk;

    memset(disks, 0, sizeof *disks);
    for (unsigned n = 0; n < o->disk.count && !ret; n++) {
        struct cli_disk_spec spec;
        struct disk_config config;
        char serial[DISK_SERIAL_BYTES + 1];

        ret = cli_disk_parse(o->disk.item[n], &spec, err);
        if (ret)
            break;
        snprintf(serial, sizeof serial, "VIREO-%04u", n);
        config = (struct disk_config){
            .path = spec.path,
            .format = spec.format,
            .readonly = spec.readonly,
            .snapshot = spec.snapshot || private,
            .cache = spec.cache,
            .serial = spec.serial[0] ? spec.serial : serial,
        };
        disk = open_one(disks, &config, vm, err);
        ret = disk ? spec.bus->attach(disks, disk, board, err) : -EINVAL;
        if (n == 0 && !ret)
            place_uefi_vars(disks, &spec, private, board);
    }
    for (unsigned n = 0; n < o->cdrom.count && !ret; n++) {
        struct disk_config config = {
            .path = o->cdrom.item[n],
            .format = DISK_FORMAT_RAW,
            .readonly = true,
            .serial = "VIREO-CD",
        };

        disk = open_one(disks, &config, vm, err);
        if (disk)
            add_sata(disks, ATA_CDROM, disk, board);
        else
            ret = -EINVAL;
    }
    if (ret)
        cli_disks_close(disks);
    return ret;
}

void cli_disks_close(struct cli_disks *disks)
{
    for (unsigned n = 0; n < disks->count; n++)
        disk_destroy(disks->disk[n]);
    disks->count = 0;
}
