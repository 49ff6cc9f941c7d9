/*
 * Firmware images; see firmware.h.
 */
#include "boot/firmware.h"

#include <errno.h>
#include <unistd.h>

#define SEABIOS_PATH "/usr/share/seabios/bios-256k.bin"
#define VGABIOS_PATH "/usr/share/seabios/vgabios-stdvga.bin"
/* Not the builds with secure boot: they need SMM. */
#define OVMF_CODE_PATH "/usr/share/OVMF/OVMF_CODE_4M.fd"
#define FIRMWARE_UNIT (64 * KiB)

bool firmware_is_uefi(const char *name)
{
    return name && strcmp(name, "uefi") == 0;
}

/* What a name stands for; *expected: its size, or 0. */
static const char *known_path(const char *name, uint64_t *expected, struct error *err)
{
    static const struct {
        const char *name, *what, *package, *path[2];
        uint64_t bytes;
    } known[] = {
        {"bios", "SeaBIOS", "seabios", {SEABIOS_PATH, NULL}, 0},
        {"uefi", "OVMF", "ovmf", {OVMF_CODE_PATH, UEFI_VARS_PATH}, UEFI_CODE_BYTES},
    };

    *expected = 0;
    for (size_t n = 0; n < ARRAY_SIZE(known); n++) {
        if (strcmp(name, known[n].name) != 0)
            continue;
        *expected = known[n].bytes;
        for (unsigned i = 0; i < 2 && known[n].path[i]; i++) {
            if (access(known[n].path[i], R_OK) != 0) {
                error_set(err, -ENOENT, "%s is not installed (%s); install the package %s",
                          known[n].what, known[n].path[i], known[n].package);
                return NULL;
            }
        }
        return known[n].path[0];
    }
    return name;
}

int firmware_open(struct image *i, const char *name, struct error *err)
{
    uint64_t expected;
    int ret;

    name = known_path(name, &expected, err);
    if (!name)
        return -ENOENT;
    ret = image_open(i, name, "firmware", err);
    if (ret)
        return ret;
    if (expected && i->bytes != expected) {
        error_set(err, -EINVAL,
                  "the firmware '%s' has %llu bytes, not %llu: not the build that "
                  "this machine can start",
                  name, (unsigned long long)i->bytes, (unsigned long long)expected);
        image_close(i);
        return -EINVAL;
    }
    if (!expected && (i->bytes % FIRMWARE_UNIT || i->bytes > FIRMWARE_MAX)) {
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
