/*
 * A standard VGA with Bochs' DISPI extension: PCI function 1234:1111, as
 * QEMU's "std" VGA and its firmware (vgabios-stdvga.bin) know it. See
 * docs/DISPLAY.md.
 *
 *     BAR 0    video memory, linear
 *     BAR 2    4 KiB: 0 the monitor's EDID, 400H-41FH ports 3C0H-3DFH, 500H- DISPI's registers
 *     ROM      the video BIOS
 *     ports    3B4H, 3B5H, 3BAH, 3C0H-3DFH (VGA), 1CEH-1D0H (DISPI)
 *     A0000H-BFFFFH, as much as GR6 selects
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_DISPLAY_VGA_H
#define DEV_DISPLAY_VGA_H

#include "backend/display/display.h"
#include "dev/pci/pci.h"

#define VGA_DEFAULT_BYTES (16 * MiB)
#define VGA_MIN_BYTES (1 * MiB)
#define VGA_MAX_BYTES (256 * MiB)

struct vga_config {
    uint8_t devfn;
    uint64_t memory_bytes; /* a power of two; 0: the default */
    /* The video BIOS, or NULL: none. A power of two, at most 64 KiB; copied. */
    const void *rom;
    uint64_t rom_bytes;
};

struct vga;

struct vga *vga_create(struct vm *vm, struct pci_bus *bus, const struct vga_config *config,
                       struct error *err);
/* The video BIOS; NULL: there is none. */
const uint8_t *vga_rom(const struct vga *v, uint64_t *bytes);
struct display_source vga_source(struct vga *v);

#endif
