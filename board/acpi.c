/*
 * ACPI tables of the board; see acpi.h.
 *
 * What is always the same is in dsdt.asl; what firmware or the command line
 * decides are integers there, which are set here. Processors are in an SSDT.
 */
#include "board/acpi.h"

#include <assert.h>
#include <stdio.h>

#include "board/aml.h"
#include "cpu/x86/apic.h"
#include "dev/irq/ioapic.h"
#include "dev/misc/acpi_pm.h"
#include "dev/timer/hpet.h"
#include "dev/timer/rtc.h"

#define OEM_ID "VIREO "
#define OEM_TABLE_ID "VIREOPC "
#define CREATOR_ID "VIRE"
#define LAPIC_BASE 0xfee00000u
#define RESET_PORT 0xcf9
#define RESET_VALUE 6 /* SYS_RST and RST_CPU: a hard reset */

enum acpi_header {
    HEADER_LENGTH = 4,
    HEADER_REVISION = 8,
    HEADER_CHECKSUM = 9,
    HEADER_BYTES = 36,
};

/* table 5-34 */
enum fadt_field {
    FADT_FIRMWARE_CTRL = 36,
    FADT_DSDT = 40,
    FADT_SCI_INT = 46,
    FADT_SMI_CMD = 48,
    FADT_ACPI_ENABLE = 52,
    FADT_ACPI_DISABLE = 53,
    FADT_PM1A_EVT_BLK = 56,
    FADT_PM1A_CNT_BLK = 64,
    FADT_PM_TMR_BLK = 76,
    FADT_GPE0_BLK = 80,
    FADT_PM1_EVT_LEN = 88,
    FADT_PM1_CNT_LEN = 89,
    FADT_PM_TMR_LEN = 91,
    FADT_GPE0_BLK_LEN = 92,
    FADT_P_LVL2_LAT = 96,
    FADT_P_LVL3_LAT = 98,
    FADT_CENTURY = 108,
    FADT_IAPC_BOOT_ARCH = 109,
    FADT_FLAGS = 112,
    FADT_RESET_REG = 116,
    FADT_RESET_VALUE = 128,
    FADT_X_DSDT = 140,
    FADT_X_PM1A_EVT_BLK = 148,
    FADT_X_PM1A_CNT_BLK = 172,
    FADT_X_PM_TMR_BLK = 208,
    FADT_X_GPE0_BLK = 220,
    FADT_BYTES = 276, /* revision 6 */
};

enum fadt_flags {
    FADT_WBINVD = 1 << 0,
    FADT_PROC_C1 = 1 << 2,
    FADT_SLP_BUTTON = 1 << 5, /* none as a fixed feature */
    FADT_RESET_REG_SUP = 1 << 10,
    FADT_PCI_EXP_WAK = 1 << 14,
    FADT_USE_PLATFORM_CLOCK = 1 << 15,
};

enum fadt_boot_arch {
    BOOT_ARCH_LEGACY_DEVICES = 1 << 0,
    BOOT_ARCH_8042 = 1 << 1,
    BOOT_ARCH_NO_VGA = 1 << 2,
};

enum madt_type {
    MADT_LAPIC = 0,
    MADT_IOAPIC = 1,
    MADT_OVERRIDE = 2,
    MADT_LAPIC_NMI = 4,
    MADT_X2APIC = 9,
    MADT_X2APIC_NMI = 10,
};

enum madt_flags {
    MADT_PCAT_COMPAT = 1 << 0,
    MADT_ENABLED = 1 << 0,        /* of a local APIC */
    MADT_ACTIVE_HIGH_LEVEL = 0xd, /* polarity 01, trigger mode 11 */
};

enum aml_byte { AML_NAME_OP = 0x08, AML_DWORD_PREFIX = 0x0c }; /* 20.2.2, 20.2.3 */

enum gas_space { GAS_MEMORY = 0, GAS_IO = 1 };

/* ---- the block ---- */

static uint8_t *reserve(struct acpi_tables *t, size_t bytes, size_t align)
{
    size_t at = align_up(t->bytes, align);

    assert(at + bytes <= sizeof t->data);
    t->bytes = at + bytes;
    return t->data + at;
}

static uint32_t offset_of(const struct acpi_tables *t, const uint8_t *p)
{
    return (uint32_t)(p - t->data);
}

static void fixup_add(struct acpi_tables *t, struct acpi_fixup f)
{
    assert(t->fixup_count < ACPI_MAX_FIXUPS);
    t->fixup[t->fixup_count++] = f;
}

static void pointer_set(struct acpi_tables *t, uint8_t *at, unsigned size, uint32_t target)
{
    le_put(at, target, size);
    fixup_add(t, (struct acpi_fixup){.kind = ACPI_POINTER,
                                     .file = ACPI_IN_TABLES,
                                     .offset = offset_of(t, at),
                                     .size = size});
}

/* A table's header; bytes with it. */
static uint8_t *table_begin(struct acpi_tables *t, const char *signature, uint8_t revision,
                            size_t bytes)
{
    uint8_t *p = reserve(t, bytes, 16);

    memcpy(p, signature, 4);
    p[HEADER_REVISION] = revision;
    memcpy(p + 10, OEM_ID, 6);
    memcpy(p + 16, OEM_TABLE_ID, 8);
    le32_put(p + 24, 1); /* OEM revision */
    memcpy(p + 28, CREATOR_ID, 4);
    le32_put(p + 32, 1);
    return p;
}

static uint32_t table_end(struct acpi_tables *t, uint8_t *p)
{
    uint32_t at = offset_of(t, p);
    uint32_t length = (uint32_t)(t->bytes - at);

    le32_put(p + HEADER_LENGTH, length);
    p[HEADER_CHECKSUM] = 0;
    fixup_add(t, (struct acpi_fixup){.kind = ACPI_CHECKSUM,
                                     .file = ACPI_IN_TABLES,
                                     .offset = at + HEADER_CHECKSUM,
                                     .start = at,
                                     .length = length});
    return at;
}

static void gas_put(uint8_t *p, enum gas_space space, unsigned bits, unsigned access,
                    uint64_t address)
{
    p[0] = (uint8_t)space;
    p[1] = (uint8_t)bits;
    p[2] = 0;
    p[3] = (uint8_t)access; /* 1 byte, 2 word, 3 doubleword */
    le64_put(p + 4, address);
}

/* ---- tables ---- */

static uint32_t build_facs(struct acpi_tables *t)
{
    uint8_t *p = reserve(t, 64, 64);

    memcpy(p, "FACS", 4);
    le32_put(p + 4, 64);
    p[32] = 2; /* version */
    return offset_of(t, p);
}

/* Sets Name (name, 4-byte constant) in the DSDT at p. */
static void dsdt_set(uint8_t *p, const char *name, uint64_t value)
{
    uint8_t pattern[6] = {AML_NAME_OP};

    memcpy(pattern + 1, name, 4);
    pattern[5] = AML_DWORD_PREFIX;
    for (size_t n = HEADER_BYTES; n + sizeof pattern + 4 <= dsdt_aml_bytes; n++) {
        if (memcmp(p + n, pattern, sizeof pattern) == 0) {
            assert(value <= UINT32_MAX);
            le32_put(p + n + sizeof pattern, (uint32_t)value);
            return;
        }
    }
    assert(!"dsdt.asl has lost a name");
}

static uint32_t build_dsdt(struct acpi_tables *t, const struct acpi_config *c)
{
    uint8_t *p = reserve(t, dsdt_aml_bytes, 16);

    memcpy(p, dsdt_aml, dsdt_aml_bytes);
    dsdt_set(p, "VPMB", c->pm_base);
    dsdt_set(p, "VECM", c->ecam_base / MiB);
    dsdt_set(p, "VECL", c->ecam_bytes);
    dsdt_set(p, "VW0B", c->window32[0].base);
    dsdt_set(p, "VW0L", c->window32[0].bytes);
    dsdt_set(p, "VW1B", c->window32[1].base);
    dsdt_set(p, "VW1L", c->window32[1].bytes);
    dsdt_set(p, "VW2G", c->window64.base / GiB);
    dsdt_set(p, "VW2L", c->window64.bytes / GiB);
    dsdt_set(p, "VCOM", c->com_ports);
    dsdt_set(p, "VMOU", c->has_mouse);
    return table_end(t, p);
}

static uint32_t build_ssdt(struct acpi_tables *t, const struct acpi_config *c)
{
    uint8_t *p = table_begin(t, "SSDT", 2, HEADER_BYTES);
    struct aml a = {.data = t->data + t->bytes, .capacity = sizeof t->data - t->bytes};
    size_t scope = aml_scope_begin(&a, "\\_SB_");

    for (unsigned n = 0; n < c->cpu_count; n++) {
        char name[5];
        size_t device;

        snprintf(name, sizeof name, "C%03X", n & 0xfff);
        device = aml_device_begin(&a, name);
        aml_name_string(&a, "_HID", "ACPI0007"); /* a processor (5.6.7) */
        aml_name_integer(&a, "_UID", n);
        aml_end(&a, device);
    }
    aml_end(&a, scope);
    t->bytes += a.used;
    return table_end(t, p);
}

static uint32_t build_fadt(struct acpi_tables *t, const struct acpi_config *c, uint32_t facs,
                           uint32_t dsdt)
{
    uint8_t *p = table_begin(t, "FACP", 6, FADT_BYTES);

    pointer_set(t, p + FADT_FIRMWARE_CTRL, 4, facs);
    pointer_set(t, p + FADT_DSDT, 4, dsdt);
    pointer_set(t, p + FADT_X_DSDT, 8, dsdt);
    le16_put(p + FADT_SCI_INT, (uint16_t)c->sci_gsi);
    le32_put(p + FADT_SMI_CMD, ACPI_APM_CONTROL_PORT);
    p[FADT_ACPI_ENABLE] = ACPI_APM_ENABLE;
    p[FADT_ACPI_DISABLE] = ACPI_APM_DISABLE;
    le32_put(p + FADT_PM1A_EVT_BLK, c->pm_base + ACPI_PM1_STS);
    le32_put(p + FADT_PM1A_CNT_BLK, c->pm_base + ACPI_PM1_CNT);
    le32_put(p + FADT_PM_TMR_BLK, c->pm_base + ACPI_PM1_TMR);
    le32_put(p + FADT_GPE0_BLK, c->pm_base + ACPI_GPE0_STS);
    p[FADT_PM1_EVT_LEN] = 4;
    p[FADT_PM1_CNT_LEN] = 2;
    p[FADT_PM_TMR_LEN] = 4;
    p[FADT_GPE0_BLK_LEN] = 16;
    le16_put(p + FADT_P_LVL2_LAT, 0x0fff); /* more than 100 us: no C2 */
    le16_put(p + FADT_P_LVL3_LAT, 0x0fff); /* more than 1000 us: no C3 */
    p[FADT_CENTURY] = RTC_CMOS_CENTURY;
    le16_put(p + FADT_IAPC_BOOT_ARCH, BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_8042 |
                                          (c->has_vga ? 0 : BOOT_ARCH_NO_VGA));
    le32_put(p + FADT_FLAGS, FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_RESET_REG_SUP |
                                 FADT_PCI_EXP_WAK | FADT_USE_PLATFORM_CLOCK);
    gas_put(p + FADT_RESET_REG, GAS_IO, 8, 1, RESET_PORT);
    p[FADT_RESET_VALUE] = RESET_VALUE;
    gas_put(p + FADT_X_PM1A_EVT_BLK, GAS_IO, 32, 2, c->pm_base + ACPI_PM1_STS);
    gas_put(p + FADT_X_PM1A_CNT_BLK, GAS_IO, 16, 2, c->pm_base + ACPI_PM1_CNT);
    gas_put(p + FADT_X_PM_TMR_BLK, GAS_IO, 32, 3, c->pm_base + ACPI_PM1_TMR);
    gas_put(p + FADT_X_GPE0_BLK, GAS_IO, 128, 1, c->pm_base + ACPI_GPE0_STS);
    return table_end(t, p);
}

static void madt_cpu(struct acpi_tables *t, unsigned id)
{
    uint8_t *p;

    if (id < 255) {
        p = reserve(t, 8, 1);
        p[0] = MADT_LAPIC;
        p[1] = 8;
        p[2] = (uint8_t)id; /* ACPI processor UID */
        p[3] = (uint8_t)id; /* APIC id */
        le32_put(p + 4, MADT_ENABLED);
    } else {
        p = reserve(t, 16, 1);
        p[0] = MADT_X2APIC;
        p[1] = 16;
        le32_put(p + 4, id);
        le32_put(p + 8, MADT_ENABLED);
        le32_put(p + 12, id);
    }
}

static void madt_override(struct acpi_tables *t, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    uint8_t *p = reserve(t, 10, 1);

    p[0] = MADT_OVERRIDE;
    p[1] = 10;
    p[2] = 0; /* ISA */
    p[3] = irq;
    le32_put(p + 4, gsi);
    le16_put(p + 8, flags);
}

static uint32_t build_madt(struct acpi_tables *t, const struct acpi_config *c)
{
    uint8_t *p = table_begin(t, "APIC", 4, HEADER_BYTES + 8);
    uint8_t *e;

    le32_put(p + HEADER_BYTES, LAPIC_BASE);
    le32_put(p + HEADER_BYTES + 4, MADT_PCAT_COMPAT);
    for (unsigned n = 0; n < c->cpu_count; n++)
        madt_cpu(t, n);
    e = reserve(t, 12, 1);
    e[0] = MADT_IOAPIC;
    e[1] = 12;
    e[2] = 0; /* its id */
    le32_put(e + 4, (uint32_t)IOAPIC_BASE);
    le32_put(e + 8, 0);        /* first GSI */
    madt_override(t, 0, 2, 0); /* the 8254; as the bus has it: edge, high */
    if (c->sci_gsi < 16)
        madt_override(t, (uint8_t)c->sci_gsi, c->sci_gsi, MADT_ACTIVE_HIGH_LEVEL);
    e = reserve(t, 6, 1);
    e[0] = MADT_LAPIC_NMI;
    e[1] = 6;
    e[2] = 0xff; /* all processors */
    e[5] = 1;    /* LINT1 */
    if (c->cpu_count > 255) {
        e = reserve(t, 12, 1);
        e[0] = MADT_X2APIC_NMI;
        e[1] = 12;
        le32_put(e + 4, UINT32_MAX);
        e[8] = 1;
    }
    return table_end(t, p);
}

static uint32_t build_hpet(struct acpi_tables *t)
{
    uint8_t *p = table_begin(t, "HPET", 1, 56);

    le32_put(p + 36, HPET_BLOCK_ID);
    gas_put(p + 40, GAS_MEMORY, 64, 0, HPET_BASE);
    p[52] = 0;              /* number */
    le16_put(p + 53, 0x80); /* fewest ticks in periodic mode without loss */
    p[55] = 0;              /* no promise about what else is in its page */
    return table_end(t, p);
}

static uint32_t build_mcfg(struct acpi_tables *t, const struct acpi_config *c)
{
    uint8_t *p = table_begin(t, "MCFG", 1, 60);

    le64_put(p + 44, c->ecam_base);
    le16_put(p + 52, 0); /* segment */
    p[54] = 0;
    p[55] = (uint8_t)(c->ecam_bytes / MiB - 1); /* last bus */
    return table_end(t, p);
}

static uint32_t build_root(struct acpi_tables *t, const char *signature, unsigned entry_bytes,
                           const uint32_t *tables, unsigned count)
{
    uint8_t *p = table_begin(t, signature, 1, HEADER_BYTES + count * entry_bytes);

    for (unsigned n = 0; n < count; n++)
        pointer_set(t, p + HEADER_BYTES + n * entry_bytes, entry_bytes, tables[n]);
    return table_end(t, p);
}

static void build_rsdp(struct acpi_tables *t, uint32_t rsdt, uint32_t xsdt)
{
    uint8_t *p = t->rsdp;

    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, OEM_ID, 6);
    p[15] = 2; /* revision */
    le32_put(p + 16, rsdt);
    le32_put(p + 20, ACPI_RSDP_BYTES);
    le64_put(p + 24, xsdt);
    fixup_add(t, (struct acpi_fixup){
                     .kind = ACPI_POINTER, .file = ACPI_IN_RSDP, .offset = 16, .size = 4});
    fixup_add(t, (struct acpi_fixup){
                     .kind = ACPI_POINTER, .file = ACPI_IN_RSDP, .offset = 24, .size = 8});
    /* The first over what ACPI 1.0 had, the second over everything. */
    fixup_add(t, (struct acpi_fixup){
                     .kind = ACPI_CHECKSUM, .file = ACPI_IN_RSDP, .offset = 8, .length = 20});
    fixup_add(t, (struct acpi_fixup){.kind = ACPI_CHECKSUM,
                                     .file = ACPI_IN_RSDP,
                                     .offset = 32,
                                     .length = ACPI_RSDP_BYTES});
}

void acpi_build(struct acpi_tables *t, const struct acpi_config *c)
{
    uint32_t tables[8], facs, dsdt, rsdt, xsdt;
    unsigned count = 0;

    memset(t, 0, sizeof *t);
    facs = build_facs(t);
    dsdt = build_dsdt(t, c);
    tables[count++] = build_fadt(t, c, facs, dsdt);
    tables[count++] = build_ssdt(t, c);
    tables[count++] = build_madt(t, c);
    tables[count++] = build_hpet(t);
    if (c->ecam_bytes)
        tables[count++] = build_mcfg(t, c);
    rsdt = build_root(t, "RSDT", 4, tables, count);
    xsdt = build_root(t, "XSDT", 8, tables, count);
    build_rsdp(t, rsdt, xsdt);
}

/* ---- both ways to place them ---- */

void acpi_place(struct acpi_tables *t, gpa_t tables)
{
    /* In order: a checksum comes after the pointers it covers. */
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned n = 0; n < t->fixup_count; n++) {
            const struct acpi_fixup *f = &t->fixup[n];
            uint8_t *base = f->file == ACPI_IN_TABLES ? t->data : t->rsdp;

            if (pass == 0 && f->kind == ACPI_POINTER) {
                le_put(base + f->offset, le_get(base + f->offset, f->size) + tables, f->size);
            } else if (pass == 1 && f->kind == ACPI_CHECKSUM) {
                uint8_t sum = 0;

                base[f->offset] = 0;
                for (uint32_t i = 0; i < f->length; i++)
                    sum = (uint8_t)(sum + base[f->start + i]);
                base[f->offset] = (uint8_t)-sum;
            }
        }
    }
}

enum loader_command { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER = 2, LOADER_ADD_CHECKSUM = 3 };
enum loader_zone { LOADER_ZONE_HIGH = 1, LOADER_ZONE_FSEG = 2 };
#define LOADER_NAME_BYTES 56

static uint8_t *command(uint8_t **out, enum loader_command c)
{
    uint8_t *p = *out;

    memset(p, 0, ACPI_LOADER_COMMAND_BYTES);
    le32_put(p, c);
    *out = p + ACPI_LOADER_COMMAND_BYTES;
    return p + 4;
}

static void name_put(uint8_t *p, const char *name)
{
    memcpy(p, name, strlen(name) + 1);
}

static const char *file_name(enum acpi_file f)
{
    return f == ACPI_IN_TABLES ? ACPI_FILE_TABLES : ACPI_FILE_RSDP;
}

size_t acpi_loader_script(const struct acpi_tables *t, uint8_t *out)
{
    uint8_t *next = out, *p;

    p = command(&next, LOADER_ALLOCATE);
    name_put(p, ACPI_FILE_TABLES);
    le32_put(p + LOADER_NAME_BYTES, 64); /* the FACS' alignment */
    p[LOADER_NAME_BYTES + 4] = LOADER_ZONE_HIGH;
    p = command(&next, LOADER_ALLOCATE);
    name_put(p, ACPI_FILE_RSDP);
    le32_put(p + LOADER_NAME_BYTES, 16);
    p[LOADER_NAME_BYTES + 4] = LOADER_ZONE_FSEG;

    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned n = 0; n < t->fixup_count; n++) {
            const struct acpi_fixup *f = &t->fixup[n];

            if (pass == 0 && f->kind == ACPI_POINTER) {
                p = command(&next, LOADER_ADD_POINTER);
                name_put(p, file_name(f->file));
                name_put(p + LOADER_NAME_BYTES, ACPI_FILE_TABLES);
                le32_put(p + 2 * LOADER_NAME_BYTES, f->offset);
                p[2 * LOADER_NAME_BYTES + 4] = (uint8_t)f->size;
            } else if (pass == 1 && f->kind == ACPI_CHECKSUM) {
                p = command(&next, LOADER_ADD_CHECKSUM);
                name_put(p, file_name(f->file));
                le32_put(p + LOADER_NAME_BYTES, f->offset);
                le32_put(p + LOADER_NAME_BYTES + 4, f->start);
                le32_put(p + LOADER_NAME_BYTES + 8, f->length);
            }
        }
    }
    return (size_t)(next - out);
}
