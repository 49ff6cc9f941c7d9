/*
 * fw_cfg: how firmware learns from the host what the machine is (QEMU's
 * docs/specs/fw_cfg: selector port 510H, data port 511H, DMA at 514H).
 *
 * Items are numbered; files are items with a name, listed in a directory that
 * is sorted by name. An item's bytes are fixed, or built when the firmware
 * selects it: ACPI tables are built so, because firmware moves ECAM, PMBASE
 * and BARs first. A built item announces its largest size in the directory
 * and is padded with zeros.
 *
 * Threading: items are added before the machine runs; the rest with the
 * machine's lock held.
 */
#ifndef DEV_MISC_FW_CFG_H
#define DEV_MISC_FW_CFG_H

#include "vm/vm.h"

#define FW_CFG_PORT 0x510
#define FW_CFG_FILE_NAME_BYTES 56      /* with its terminating 0 */
#define FW_CFG_BUILT_MAX (256 * KiB)   /* of an item built on selection */
#define FW_CFG_WRITABLE_MAX (16 * KiB) /* of all writable items together */

/* Well-known items. */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00, /* provided by the device */
    FW_CFG_ID = 0x01,        /* provided by the device */
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_BOOT_MENU = 0x0E,
    FW_CFG_MAX_CPUS = 0x0F,
    FW_CFG_FILE_DIR = 0x19, /* provided by the device */
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_FILE_COUNT = 0x40,
    FW_CFG_ARCH_LOCAL = 0x8000,
};

struct fw_cfg;

struct fw_cfg *fw_cfg_create(struct vm *vm, struct error *err);

/* data is copied. -EEXIST, -ENOMEM, -ENOSPC, -EINVAL (name too long). */
int fw_cfg_add_bytes(struct fw_cfg *f, uint16_t key, const void *data, size_t bytes,
                     struct error *err);
int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t bytes,
                    struct error *err);
/* The same without a copy: data stays the caller's and outlives the machine
 * (an initrd). */
int fw_cfg_add_file_static(struct fw_cfg *f, const char *name, const void *data, size_t bytes,
                           struct error *err);
/* build fills data (zeroed, exactly bytes long) each time the guest selects
 * the file. bytes <= FW_CFG_BUILT_MAX. */
int fw_cfg_add_file_callback(struct fw_cfg *f, const char *name, size_t bytes,
                             void (*build)(void *ctx, uint8_t *data, size_t bytes), void *ctx,
                             struct error *err);
/* Guests may write it by DMA; written (may be NULL) is told afterwards. Reset
 * brings the initial bytes back. */
int fw_cfg_add_file_writable(struct fw_cfg *f, const char *name, const void *data, size_t bytes,
                             void (*written)(void *ctx, size_t offset, size_t bytes), void *ctx,
                             struct error *err);
/* New bytes, as many as before, for what was added with a copy (a machine was
 * loaded whose identity is another). */
void fw_cfg_replace_bytes(struct fw_cfg *f, uint16_t key, const void *data, size_t bytes);
void fw_cfg_replace_file(struct fw_cfg *f, const char *name, const void *data, size_t bytes);
/* A file's bytes now (not of a built one): NULL if there is none. */
const void *fw_cfg_file(const struct fw_cfg *f, const char *name, size_t *bytes);

#endif
