/*
 * Firmware images: a ROM that ends at 4 GiB.
 */
#ifndef BOOT_FIRMWARE_H
#define BOOT_FIRMWARE_H

#include "boot/image.h"

#define FIRMWARE_MAX (16 * MiB)
#define VGABIOS_MAX (64 * KiB)

#define UEFI_VARS_PATH "/usr/share/OVMF/OVMF_VARS_4M.fd"
#define UEFI_VARS_BYTES 540672u
#define UEFI_VARS_BASE 0xFFC00000ull /* the code follows, up to 4 GiB */
#define UEFI_CODE_BYTES 3653632u
#define UEFI_PHYS_BITS 40 /* as many as OVMF meets elsewhere */

/* "bios", "uefi": SeaBIOS, and the code of OVMF, where the distribution has
 * them; else a path. The size is a multiple of 64 KiB up to 16 MiB, but for
 * OVMF's: UEFI_CODE_BYTES. */
int firmware_open(struct image *i, const char *name, struct error *err);
/* SeaBIOS' BIOS for a standard VGA, at most VGABIOS_MAX bytes. */
int firmware_open_vga(struct image *i, struct error *err);

/* Firmware that has its variables in flash: "uefi". */
bool firmware_is_uefi(const char *name);

#endif
