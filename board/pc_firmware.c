/*
 * What the processors start from: the ROM that ends at 4 GiB (firmware, or the
 * stub of post.c), and below OVMF's code the flash with its variables.
 *
 * Threading: before the machine runs; the store is written with the machine's
 * lock held.
 */
#include <errno.h>

#include "board/pc_internal.h"
#include "boot/firmware.h"
#include "dev/storage/cfi_flash.h"

static int fill_rom(struct pc *pc, const struct pc_config *c, struct error *err)
{
    struct image image = {.fd = -1};
    uint64_t bytes = BOARD_ROM_BYTES;
    int ret = 0;

    if (c->firmware) {
        ret = firmware_open(&image, c->firmware, err);
        if (ret)
            return ret;
        bytes = image.bytes;
    }
    pc->rom = ram_block_create(pc->vm, "rom", bytes, RAM_ROM, err);
    if (!pc->rom)
        ret = -ENOMEM;
    else if (c->firmware)
        ret = image_read(&image, 0, pc->rom->host, bytes, err);
    else
        board_rom_fill(pc->rom->host);
    image_close(&image);
    return ret;
}

static int write_vars(void *ctx, uint64_t offset, const void *data, uint64_t bytes)
{
    return uefi_vars_write(ctx, offset, data, bytes);
}

static int create_flash(struct pc *pc, const struct pc_config *c, struct error *err)
{
    struct cfi_flash_config flash = {
        .name = "uefi-vars",
        .base = UEFI_VARS_BASE,
        .bytes = UEFI_VARS_BYTES,
        .store = {write_vars, &pc->uefi_vars},
    };
    int ret =
        uefi_vars_open(&pc->uefi_vars, c->uefi_vars, !c->uefi_vars_volatile, UEFI_VARS_PATH, err);

    if (ret)
        return ret;
    pc->uefi_vars.log = pc->vm->log;
    if (pc->uefi_vars.bytes != UEFI_VARS_BYTES)
        return error_set(err, -EINVAL,
                         "'%s' has %llu bytes, not %u: not the build that this "
                         "machine can start",
                         UEFI_VARS_PATH, (unsigned long long)pc->uefi_vars.bytes, UEFI_VARS_BYTES);
    flash.contents = pc->uefi_vars.data;
    return cfi_flash_create(pc->vm, &flash, err) ? 0 : -ENOMEM;
}

int pc_firmware_create(struct pc *pc, const struct pc_config *c, struct error *err)
{
    int ret = fill_rom(pc, c, err);

    if (ret)
        return ret;
    pc->rom_region = (struct region){
        .name = "rom",
        .base = 4 * GiB - pc->rom->bytes,
        .size = pc->rom->bytes,
        .priority = 0,
        .ram = pc->rom,
        .readonly = true,
    };
    ret = region_add(&pc->vm->memory, &pc->rom_region);
    if (ret)
        return error_set(err, ret, "out of memory");
    return firmware_is_uefi(c->firmware) ? create_flash(pc, c, err) : 0;
}
