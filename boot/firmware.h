/*
 * Firmware images: a ROM that ends at 4 GiB.
 */
#ifndef BOOT_FIRMWARE_H
#define BOOT_FIRMWARE_H

#include "boot/image.h"

#define FIRMWARE_MAX (16 * MiB)
#define VGABIOS_MAX (64 * KiB)

/* "bios": SeaBIOS where the distribution has it; else a path. The size is a
 * multiple of 64 KiB up to 16 MiB. */
int firmware_open(struct image *i, const char *name, struct error *err);
/* SeaBIOS' BIOS for a standard VGA, at most VGABIOS_MAX bytes. */
int firmware_open_vga(struct image *i, struct error *err);

#endif
