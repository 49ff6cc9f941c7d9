/*
 * Firmware images; see firmware.h.
 */
#include "boot/firmware.h"

#include <errno.h>
#include <unistd.h>

#define SEABIOS_PATH "/usr/share/seabios/bios-256k.bin"
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
