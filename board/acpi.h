/*
 * ACPI tables of the board (ACPI specification 6.0; RSDP in 5.2.5, system
 * description tables from 5.2.6 on).
 *
 * The tables are one block of bytes in which every address is still an offset
 * into the block, and a list of what is to be done to it: add the block's
 * address here, compute a checksum there. A direct boot does it
 * (acpi_place); firmware does it from fw_cfg's etc/table-loader
 * (acpi_loader_script), which says the same in QEMU's linker/loader commands.
 */
#ifndef BOARD_ACPI_H
#define BOARD_ACPI_H

#include "base/base.h"

#define ACPI_TABLES_MAX (32 * KiB)
#define ACPI_RSDP_BYTES 36
#define ACPI_MAX_FIXUPS 48
#define ACPI_LOADER_COMMAND_BYTES 128
#define ACPI_LOADER_SCRIPT_MAX ((ACPI_MAX_FIXUPS + 2) * ACPI_LOADER_COMMAND_BYTES)

/* fw_cfg names that the script refers to. */
#define ACPI_FILE_TABLES "etc/acpi/tables"
#define ACPI_FILE_RSDP "etc/acpi/rsdp"
#define ACPI_FILE_LOADER "etc/table-loader"

struct acpi_window {
    uint64_t base, bytes; /* bytes 0: none */
};

struct acpi_config {
    unsigned cpu_count; /* local APIC ids are 0 to cpu_count - 1 */
    uint16_t pm_base;   /* PMBASE as it is now */
    unsigned sci_gsi;
    uint64_t ecam_base, ecam_bytes; /* bytes 0: not decoded, no MCFG */
    /* What the root bridge passes on: below and above ECAM, and above RAM. */
    struct acpi_window window32[2], window64;
    uint8_t com_ports; /* bit n: COM(n+1) is there */
    bool has_vga, has_mouse;
};

enum acpi_file { ACPI_IN_TABLES, ACPI_IN_RSDP };

struct acpi_fixup {
    enum { ACPI_POINTER, ACPI_CHECKSUM } kind;
    enum acpi_file file;    /* where it is done; pointers are to the tables */
    uint32_t offset;        /* of the pointer or of the checksum byte */
    uint32_t size;          /* pointer: 4 or 8 */
    uint32_t start, length; /* checksum: what it is over */
};

struct acpi_tables {
    uint8_t data[ACPI_TABLES_MAX];
    size_t bytes;
    uint8_t rsdp[ACPI_RSDP_BYTES];
    struct acpi_fixup fixup[ACPI_MAX_FIXUPS];
    unsigned fixup_count;
};

void acpi_build(struct acpi_tables *t, const struct acpi_config *config);
/* Resolves everything for tables at that address. */
void acpi_place(struct acpi_tables *t, gpa_t tables);
/* Writes the script; returns its bytes (at most ACPI_LOADER_SCRIPT_MAX). */
size_t acpi_loader_script(const struct acpi_tables *t, uint8_t *out);

/* dsdt.asl, compiled */
extern const uint8_t *const dsdt_aml;
extern const size_t dsdt_aml_bytes;

#endif
