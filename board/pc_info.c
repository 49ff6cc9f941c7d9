/*
 * What the board says about itself: CMOS cells and fw_cfg items for firmware
 * (QEMU's docs/specs/fw_cfg and the names that SeaBIOS and OVMF read), ACPI
 * and SMBIOS tables, the memory map.
 *
 * ACPI is built each time firmware selects one of its files, from the chipset
 * as firmware has configured it by then.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "board/pc_internal.h"
#include "dev/misc/fw_cfg.h"

enum cmos_cell {
    CMOS_EQUIPMENT = 0x14,
    CMOS_BASE_KIB = 0x15,
    CMOS_EXTENDED_KIB = 0x17,
    CMOS_CHECKSUM_FIRST = 0x10,
    CMOS_CHECKSUM_LAST = 0x2d,
    CMOS_CHECKSUM = 0x2e, /* high byte first */
    CMOS_EXTENDED_KIB_AGAIN = 0x30,
    CMOS_ABOVE_16M = 0x34, /* 64 KiB units, up to 4 GiB */
    CMOS_BOOT_ORDER_2 = 0x38,
    CMOS_BOOT_ORDER_1 = 0x3d,
    CMOS_ABOVE_4G = 0x5b, /* 64 KiB units, three bytes */
    CMOS_CPU_COUNT_MINUS_1 = 0x5f,
};

enum {
    EQUIPMENT_FPU = 1 << 1,
    BOOT_DISK_THEN_CD = 0x32, /* low nibble first: 2 disk, 3 CD-ROM */
    BOOT_NO_FLOPPY_CHECK = 0x01,
    E820_BYTES = 20,
    BOOT_PATH_MAX = 64,
    FW_CFG_IRQ0_OVERRIDE = FW_CFG_ARCH_LOCAL + 2, /* interrupt 0 is GSI 2 */
};

static void cmos16(struct pc *pc, unsigned cell, uint64_t value)
{
    rtc_set_cmos(pc->rtc, cell, (uint8_t)value);
    rtc_set_cmos(pc->rtc, cell + 1, (uint8_t)(value >> 8));
}

static void fill_cmos(struct pc *pc)
{
    uint64_t extended = MIN((pc->low_ram_bytes - 1 * MiB) / KiB, 65535u);
    uint64_t above_16m = pc->low_ram_bytes > 16 * MiB ? pc->low_ram_bytes - 16 * MiB : 0;
    uint64_t above_4g = pc->high_ram_bytes / (64 * KiB);
    unsigned sum = 0;

    rtc_set_cmos(pc->rtc, CMOS_EQUIPMENT, EQUIPMENT_FPU);
    cmos16(pc, CMOS_BASE_KIB, 640);
    cmos16(pc, CMOS_EXTENDED_KIB, extended);
    cmos16(pc, CMOS_EXTENDED_KIB_AGAIN, extended);
    cmos16(pc, CMOS_ABOVE_16M, MIN(above_16m / (64 * KiB), 65535u));
    cmos16(pc, CMOS_ABOVE_4G, above_4g);
    rtc_set_cmos(pc->rtc, CMOS_ABOVE_4G + 2, (uint8_t)(above_4g >> 16));
    rtc_set_cmos(pc->rtc, CMOS_CPU_COUNT_MINUS_1, (uint8_t)(pc->cpu_count - 1));
    rtc_set_cmos(pc->rtc, CMOS_BOOT_ORDER_1, BOOT_DISK_THEN_CD);
    rtc_set_cmos(pc->rtc, CMOS_BOOT_ORDER_2, BOOT_NO_FLOPPY_CHECK);
    for (unsigned n = CMOS_CHECKSUM_FIRST; n <= CMOS_CHECKSUM_LAST; n++)
        sum += rtc_get_cmos(pc->rtc, n);
    rtc_set_cmos(pc->rtc, CMOS_CHECKSUM, (uint8_t)(sum >> 8));
    rtc_set_cmos(pc->rtc, CMOS_CHECKSUM + 1, (uint8_t)sum);
}

/* ---- tables ---- */

#define SMBIOS_TABLES "etc/smbios/smbios-tables"

static void set_windows(struct pc *pc, struct acpi_config *c)
{
    uint64_t first = MIN(MAX(c->ecam_base, PC_HOLE_BASE), PC_HOLE_END);
    uint64_t second = MIN(MAX(c->ecam_base + c->ecam_bytes, PC_HOLE_BASE), PC_HOLE_END);
    uint64_t high;

    if (!c->ecam_bytes)
        first = second = PC_HOLE_END;
    c->window32[0] = (struct acpi_window){PC_HOLE_BASE, first - PC_HOLE_BASE};
    c->window32[1] = (struct acpi_window){second, PC_HOLE_END - second};

    high = align_up(4 * GiB + pc->high_ram_bytes, PC_WINDOW64_BYTES);
    if (pc->model.phys_bits < 64 && high + PC_WINDOW64_BYTES <= BIT(pc->model.phys_bits))
        c->window64 = (struct acpi_window){high, PC_WINDOW64_BYTES};
}

void pc_build_acpi(struct pc *pc)
{
    struct acpi_config c = {
        .cpu_count = pc->cpu_count,
        .sci_gsi = ich9_lpc_sci_gsi(pc->lpc),
        .com_ports = pc->com_ports,
        .has_vga = pc->vga,
        .has_mouse = pc->mouse,
    };
    uint64_t base, bytes;

    if (!acpi_pm_base(ich9_lpc_pm(pc->lpc), &c.pm_base))
        c.pm_base = 0; /* firmware asked too early: its own mistake */
    if (pci_bus_ecam(pc->pci, &base, &bytes)) {
        c.ecam_base = base;
        c.ecam_bytes = bytes;
    }
    set_windows(pc, &c);
    acpi_build(&pc->acpi, &c);
}

void pc_build_smbios(struct pc *pc, gpa_t tables)
{
    struct smbios_config c = {
        .memory_bytes = pc->low_ram_bytes + pc->high_ram_bytes,
        .cpu_count = pc->cpu_count,
        .cpu_mhz = (unsigned)(pc->vm->clock.tsc_hz / 1000000),
        .has_firmware = !pc->kernel,
    };
    uint32_t leaf[4];

    x86_cpuid(pc->cpu[0], 1, 0, leaf);
    c.cpu_signature = leaf[CPUID_EAX];
    c.cpu_features = leaf[CPUID_EDX] | 1u << 9; /* the APIC, enabled or not just now */
    memcpy(c.uuid, pc->uuid, sizeof c.uuid);
    smbios_build(&pc->smbios, &c, tables);
}

void pc_memory_map(struct pc *pc, struct memory_map *map)
{
    uint64_t tables = pc->low_ram_bytes - PC_TABLES_BYTES;
    uint64_t ecam_base, ecam_bytes;

    map->count = 0;
    memory_map_add(map, 0, PC_EBDA, MEMORY_MAP_RAM);
    memory_map_add(map, PC_EBDA, PC_EBDA_BYTES, MEMORY_MAP_RESERVED);
    memory_map_add(map, PC_BIOS_AREA, PC_BIOS_AREA_BYTES, MEMORY_MAP_RESERVED);
    memory_map_add(map, 1 * MiB, tables - 1 * MiB, MEMORY_MAP_RAM);
    memory_map_add(map, tables, PC_TABLES_BYTES, MEMORY_MAP_RESERVED);
    if (pci_bus_ecam(pc->pci, &ecam_base, &ecam_bytes))
        memory_map_add(map, ecam_base, ecam_bytes, MEMORY_MAP_RESERVED);
    memory_map_add(map, pc->rom_region.base, pc->rom_region.size, MEMORY_MAP_RESERVED);
    memory_map_add(map, Q35_HIGH_RAM_BASE, pc->high_ram_bytes, MEMORY_MAP_RAM);
}

/* ---- fw_cfg ---- */

static void build_tables(void *ctx, uint8_t *data, size_t bytes)
{
    struct pc *pc = ctx;

    pc_build_acpi(pc);
    memcpy(data, pc->acpi.data, MIN(bytes, sizeof pc->acpi.data));
}

static void build_rsdp(void *ctx, uint8_t *data, size_t bytes)
{
    struct pc *pc = ctx;

    pc_build_acpi(pc);
    memcpy(data, pc->acpi.rsdp, MIN(bytes, sizeof pc->acpi.rsdp));
}

static void build_script(void *ctx, uint8_t *data, size_t bytes)
{
    struct pc *pc = ctx;
    uint8_t script[ACPI_LOADER_SCRIPT_MAX];
    size_t used;

    pc_build_acpi(pc);
    used = acpi_loader_script(&pc->acpi, script);
    memcpy(data, script, MIN(bytes, used)); /* the rest is zero: no command */
}

/* All with the largest size they can have: fw_cfg announces it beforehand. */
static int add_acpi(struct pc *pc, struct error *err)
{
    uint64_t bytes;
    int ret;

    pc_build_acpi(pc);
    /* ECAM may not be on yet; with it there are one table and two entries
     * more, far less than a page. */
    bytes = align_up(pc->acpi.bytes + 4 * KiB, 4 * KiB);
    assert(bytes <= sizeof pc->acpi.data);
    ret = fw_cfg_add_file_callback(pc->fw_cfg, ACPI_FILE_TABLES, bytes, build_tables, pc, err);
    if (!ret)
        ret = fw_cfg_add_file_callback(pc->fw_cfg, ACPI_FILE_RSDP, ACPI_RSDP_BYTES, build_rsdp, pc,
                                       err);
    if (!ret)
        ret = fw_cfg_add_file_callback(pc->fw_cfg, ACPI_FILE_LOADER, ACPI_LOADER_SCRIPT_MAX,
                                       build_script, pc, err);
    return ret;
}

static int add_smbios(struct pc *pc, struct error *err)
{
    int ret;

    pc_build_smbios(pc, 0);
    ret = fw_cfg_add_file(pc->fw_cfg, "etc/smbios/smbios-anchor", pc->smbios.anchor,
                          SMBIOS_ANCHOR_BYTES, err);
    if (!ret)
        ret = fw_cfg_add_file(pc->fw_cfg, SMBIOS_TABLES, pc->smbios.data,
                              pc->smbios.bytes, err);
    return ret;
}

/* RAM only, as firmware expects it: what else there is it knows itself. */
static int add_e820(struct pc *pc, struct error *err)
{
    uint8_t e820[2 * E820_BYTES] = {0};
    size_t bytes = E820_BYTES;

    le64_put(e820 + 8, pc->low_ram_bytes);
    le32_put(e820 + 16, MEMORY_MAP_RAM);
    if (pc->high_ram_bytes) {
        le64_put(e820 + E820_BYTES, Q35_HIGH_RAM_BASE);
        le64_put(e820 + E820_BYTES + 8, pc->high_ram_bytes);
        le32_put(e820 + E820_BYTES + 16, MEMORY_MAP_RAM);
        bytes *= 2;
    }
    return fw_cfg_add_file(pc->fw_cfg, "etc/e820", e820, bytes, err);
}

static int add_items(struct pc *pc, struct error *err)
{
    uint64_t ram = pc->low_ram_bytes + pc->high_ram_bytes;
    uint16_t cpus = (uint16_t)pc->cpu_count, one = 1;
    /* S0 and S5, no S3, no S4: bit 7 says that a state is there. */
    static const uint8_t system_states[6] = {0x80, 0, 0, 0, 0, 0x80};
    static const uint8_t irq0_override = 1;
    static const uint16_t sercon_port = 0x3f8;
    static const uint16_t menu_wait_ms = 1000;
    const struct {
        uint16_t key;
        const void *data;
        size_t bytes;
    } items[] = {
        {FW_CFG_UUID, pc->uuid, sizeof pc->uuid},
        {FW_CFG_RAM_SIZE, &ram, sizeof ram},
        {FW_CFG_NOGRAPHIC, &one, sizeof one},
        {FW_CFG_NB_CPUS, &cpus, sizeof cpus},
        {FW_CFG_MAX_CPUS, &cpus, sizeof cpus},
        {FW_CFG_BOOT_MENU, &one, sizeof one},
        {FW_CFG_IRQ0_OVERRIDE, &irq0_override, sizeof irq0_override},
    };
    const struct {
        const char *name;
        const void *data;
        size_t bytes;
    } files[] = {
        {"etc/system-states", system_states, sizeof system_states},
        {"etc/boot-menu-wait", &menu_wait_ms, sizeof menu_wait_ms},
        /* Last, and left out where nobody listens. */
        {"etc/sercon-port", &sercon_port, sizeof sercon_port},
    };
    int ret = 0;

    for (size_t n = 0; n < ARRAY_SIZE(items) && !ret; n++)
        ret = fw_cfg_add_bytes(pc->fw_cfg, items[n].key, items[n].data, items[n].bytes, err);
    for (size_t n = 0; n < ARRAY_SIZE(files) - !pc->has_sercon && !ret; n++)
        ret = fw_cfg_add_file(pc->fw_cfg, files[n].name, files[n].data, files[n].bytes, err);
    return ret;
}

/* A random UUID (RFC 4122, version 4), seeded in a deterministic machine. The
 * first three fields are little-endian in SMBIOS. */
static void make_uuid(struct pc *pc)
{
    le64_put(pc->uuid, vm_random(pc->vm));
    le64_put(pc->uuid + 8, vm_random(pc->vm));
    pc->uuid[7] = (uint8_t)((pc->uuid[7] & 0x0f) | 0x40);
    pc->uuid[8] = (uint8_t)((pc->uuid[8] & 0x3f) | 0x80);
}

void pc_identity_changed(struct pc *pc)
{
    fw_cfg_replace_bytes(pc->fw_cfg, FW_CFG_UUID, pc->uuid, sizeof pc->uuid);
    pc_build_smbios(pc, 0);
    fw_cfg_replace_file(pc->fw_cfg, SMBIOS_TABLES, pc->smbios.data, pc->smbios.bytes);
}

/* What firmware tries, a line each, by its path in Open Firmware's words. */
static int add_boot_order(struct pc *pc, const struct pc_config *config, struct error *err)
{
    char order[PC_MAX_BOOT * BOOT_PATH_MAX];
    size_t used = 0;

    for (unsigned n = 0; n < config->boot_count; n++) {
        const struct pc_boot_device *b = &config->boot[n];
        const char *line = used ? "\n" : "";
        char *at = order + used;

        if (b->node)
            used += (size_t)snprintf(at, BOOT_PATH_MAX, "%s/pci@i0cf8/%s@%x/%s", line, b->node,
                                     PC_FIRST_CARD + b->number, b->unit);
        else
            used += (size_t)snprintf(at, BOOT_PATH_MAX,
                                     "%s/pci@i0cf8/pci8086,2922@1f,2/drive@%u/disk@0", line,
                                     b->number);
        assert(used <= (n + 1) * (BOOT_PATH_MAX - 1));
    }
    return used ? fw_cfg_add_file(pc->fw_cfg, "bootorder", order, used + 1, err) : 0;
}

int pc_info_create(struct pc *pc, const struct pc_config *config, struct error *err)
{
    int ret;

    make_uuid(pc);
    fill_cmos(pc);
    ret = add_items(pc, err);
    if (!ret)
        ret = add_boot_order(pc, config, err);
    if (!ret)
        ret = add_e820(pc, err);
    if (!ret)
        ret = add_acpi(pc, err);
    if (!ret)
        ret = add_smbios(pc, err);
    return ret;
}
