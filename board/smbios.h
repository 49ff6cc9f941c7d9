/*
 * SMBIOS tables (DMTF DSP0134): what the computer says it is. The 3.0 entry
 * point and structure versions; firmware gets them from fw_cfg, a direct boot
 * finds them in the F-segment.
 */
#ifndef BOARD_SMBIOS_H
#define BOARD_SMBIOS_H

#include "base/base.h"

#define SMBIOS_TABLES_MAX (16 * KiB)
#define SMBIOS_ANCHOR_BYTES 24 /* "_SM3_" entry point (5.2.2) */

struct smbios_config {
    uint64_t memory_bytes;
    unsigned cpu_count;
    uint32_t cpu_signature; /* CPUID leaf 1: EAX and EDX, the processor id */
    uint32_t cpu_features;
    unsigned cpu_mhz;
    uint8_t uuid[16];
    bool has_firmware; /* a direct boot names no BIOS of its own */
};

struct smbios {
    uint8_t data[SMBIOS_TABLES_MAX];
    size_t bytes;
    uint8_t anchor[SMBIOS_ANCHOR_BYTES];
};

/* The anchor is complete for tables at that address (firmware: 0, it puts the
 * address in and computes the checksum anew). */
void smbios_build(struct smbios *s, const struct smbios_config *config, gpa_t tables);

#endif
