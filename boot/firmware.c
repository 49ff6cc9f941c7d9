/*
 * Firmware images; see firmware.h.
 */
#include "boot/firmware.h"

#include <errno.h>
#include <unistd.h>

#define SEABIOS_PATH "/usr/share/seabios/bios-256k.bin"
#define VGABIOS_PATH "/usr/share/seabios/vgabios-stdvga.bin"
#define FIRMWARE_UNIT (64 * KiB)

int firmware_open(struct image *i, const char *name, struct error *err)
{
    int ret;

    if (strcmp(name, "bios") == 0) {
        name = SEABIOS_PATH;
        if (access(name, R_OK) != 0)
            return error_set(err, -ENOENT,
                             "SeaBIOS is not installed (%s); install the package "
                             "seabios",
                             name);
    }
    ret = image_open(i, name, "firmware", err);
    if (ret)
        return ret;
    if (i->bytes % FIRMWARE_UNIT || i->bytes > FIRMWARE_MAX) {
        error_set(err, -EINVAL,
                  "the firmware '%s' has %llu bytes; a ROM image has a multiple of "
                  "64 KiB, up to 16 MiB",
                  name, (unsigned long long)i->bytes);
        image_close(i);
        return -EINVAL;
    }
    return 0;
}

int firmware_open_vga(struct image *i, struct error *err)
{
    int ret;

    if (access(VGABIOS_PATH, R_OK) != 0)
        return error_set(err, -ENOENT,
                         "the video BIOS is not installed (%s); install the package seabios, or "
                         "give --vga none",
                         VGABIOS_PATH);
    ret = image_open(i, VGABIOS_PATH, "video BIOS", err);
    if (ret == 0 && (i->bytes == 0 || i->bytes > VGABIOS_MAX)) {
        image_close(i);
        return error_set(err, -EINVAL, "%s is no video BIOS: install the package seabios again",
                         VGABIOS_PATH);
    }
    return ret;
}
