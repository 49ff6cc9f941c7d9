/*
 * ACPI and SMBIOS tables: sums and links hold, the loader script does the same
 * as placing them directly, and iasl reads them all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "board/acpi.h"
#include "board/aml.h"
#include "board/smbios.h"

#define TABLES 0x7fff0000u

static const struct acpi_config config = {
    .cpu_count = 3,
    .pm_base = 0x600,
    .sci_gsi = 9,
    .ecam_base = 0xb0000000,
    .ecam_bytes = 256 * MiB,
    .window32 = {{0x80000000, 0x30000000}, {0xc0000000, 0x3ec00000}},
    .window64 = {0x800000000, 32 * GiB},
    .com_ports = 1,
};

static uint8_t sum(const uint8_t *p, size_t bytes)
{
    uint8_t s = 0;

    while (bytes--)
        s = (uint8_t)(s + *p++);
    return s;
}

/* The table at a physical address, checked. */
static const uint8_t *table(const struct acpi_tables *t, uint64_t at)
{
    const uint8_t *p = t->data + (at - TABLES);
    uint32_t length;

    assert_true(at >= TABLES && at - TABLES + 36 <= t->bytes);
    length = le32_get(p + 4);
    assert_true(length >= 36 && at - TABLES + length <= t->bytes);
    assert_int_equal(sum(p, length), 0);
    return p;
}

static const uint8_t *find(const struct acpi_tables *t, const char *signature)
{
    const uint8_t *xsdt = table(t, le64_get(t->rsdp + 24));

    for (uint32_t n = 36; n < le32_get(xsdt + 4); n += 8) {
        const uint8_t *p = table(t, le64_get(xsdt + n));

        if (memcmp(p, signature, 4) == 0)
            return p;
    }
    return NULL;
}

static void tables_are_linked_and_sum_to_zero(void **state)
{
    static struct acpi_tables t;
    const uint8_t *rsdt, *xsdt, *fadt, *facs, *mcfg;

    acpi_build(&t, &config);
    acpi_place(&t, TABLES);
    assert_memory_equal(t.rsdp, "RSD PTR ", 8);
    assert_int_equal(sum(t.rsdp, 20), 0);
    assert_int_equal(sum(t.rsdp, 36), 0);
    rsdt = table(&t, le32_get(t.rsdp + 16));
    xsdt = table(&t, le64_get(t.rsdp + 24));
    assert_memory_equal(rsdt, "RSDT", 4);
    assert_memory_equal(xsdt, "XSDT", 4);
    assert_int_equal((le32_get(rsdt + 4) - 36) / 4, (le32_get(xsdt + 4) - 36) / 8);
    for (uint32_t n = 0; 36 + n * 4 < le32_get(rsdt + 4); n++)
        assert_int_equal(le32_get(rsdt + 36 + n * 4), le64_get(xsdt + 36 + n * 8));

    fadt = find(&t, "FACP");
    assert_non_null(fadt);
    assert_int_equal(le32_get(fadt + 4), 276);
    assert_int_equal(le16_get(fadt + 46), 9);
    assert_int_equal(le32_get(fadt + 56), 0x600);
    assert_int_equal(le64_get(fadt + 148 + 4), 0x600);
    assert_int_equal(le32_get(fadt + 76), 0x608);
    assert_int_equal(le64_get(fadt + 116 + 4), 0xcf9);
    assert_int_equal(le32_get(fadt + 40), le64_get(fadt + 140));
    assert_memory_equal(table(&t, le32_get(fadt + 40)), "DSDT", 4);
    facs = t.data + (le32_get(fadt + 36) - TABLES);
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal(le32_get(fadt + 36) % 64, 0);

    mcfg = find(&t, "MCFG");
    assert_non_null(mcfg);
    assert_int_equal(le64_get(mcfg + 44), 0xb0000000);
    assert_int_equal(mcfg[55], 255);
    assert_non_null(find(&t, "HPET"));
    assert_non_null(find(&t, "SSDT"));
}

static void madt_lists_processors_and_overrides(void **state)
{
    static struct acpi_tables t;
    struct acpi_config c = config;
    unsigned cpus = 0, overrides = 0, nmis = 0, ioapics = 0;
    const uint8_t *madt;

    acpi_build(&t, &c);
    acpi_place(&t, TABLES);
    madt = find(&t, "APIC");
    assert_non_null(madt);
    for (uint32_t n = 44; n < le32_get(madt + 4); n += madt[n + 1]) {
        const uint8_t *e = madt + n;

        assert_true(e[1] >= 2);
        switch (e[0]) {
        case 0:
            assert_int_equal(e[3], cpus++);
            assert_int_equal(le32_get(e + 4), 1);
            break;
        case 1:
            ioapics++;
            break;
        case 2:
            assert_int_equal(e[3], overrides ? 9 : 0);
            assert_int_equal(le32_get(e + 4), overrides ? 9 : 2);
            assert_int_equal(le16_get(e + 8), overrides ? 0xd : 0);
            overrides++;
            break;
        case 4:
            assert_int_equal(e[5], 1);
            nmis++;
            break;
        default:
            fail();
        }
    }
    assert_int_equal(cpus, 3);
    assert_int_equal(ioapics, 1);
    assert_int_equal(overrides, 2);
    assert_int_equal(nmis, 1);

    /* An SCI above the ISA interrupts needs no override. */
    c.sci_gsi = 20;
    acpi_build(&t, &c);
    acpi_place(&t, TABLES);
    madt = find(&t, "APIC");
    for (uint32_t n = 44; n < le32_get(madt + 4); n += madt[n + 1])
        assert_true(madt[n] != 2 || madt[n + 3] == 0);
}

static void no_ecam_means_no_mcfg(void **state)
{
    static struct acpi_tables t;
    struct acpi_config c = config;

    c.ecam_bytes = 0;
    acpi_build(&t, &c);
    acpi_place(&t, TABLES);
    assert_null(find(&t, "MCFG"));
}

static void the_largest_machine_fits(void **state)
{
    static struct acpi_tables t;
    struct acpi_config c = config;

    c.cpu_count = 64;
    acpi_build(&t, &c);
    assert_true(t.bytes <= ACPI_TABLES_MAX);
}

/* What firmware does with the script. */
static void replay(const uint8_t *script, size_t bytes, struct acpi_tables *t)
{
    unsigned allocated = 0;

    for (size_t at = 0; at < bytes; at += 128) {
        const uint8_t *c = script + at + 4;
        uint8_t *file = strcmp((const char *)c, "etc/acpi/rsdp") == 0 ? t->rsdp : t->data;

        switch (le32_get(script + at)) {
        case 1:
            assert_int_equal(c[60], file == t->rsdp ? 2 : 1);
            allocated++;
            break;
        case 2:
            assert_int_equal(allocated, 2);
            assert_string_equal((const char *)c + 56, "etc/acpi/tables");
            file += le32_get(c + 112);
            le_put(file, le_get(file, c[116]) + TABLES, c[116]);
            break;
        case 3:
            assert_int_equal(file[le32_get(c + 56)], 0);
            file[le32_get(c + 56)] = (uint8_t)-sum(file + le32_get(c + 60), le32_get(c + 64));
            break;
        default:
            fail();
        }
    }
}

static void the_script_does_what_placing_does(void **state)
{
    static struct acpi_tables a, b;
    uint8_t script[ACPI_LOADER_SCRIPT_MAX];
    size_t bytes;

    acpi_build(&a, &config);
    bytes = acpi_loader_script(&a, script);
    assert_true(bytes && bytes <= sizeof script && bytes % 128 == 0);
    b = a;
    acpi_place(&a, TABLES);
    replay(script, bytes, &b);
    assert_memory_equal(a.data, b.data, a.bytes);
    assert_memory_equal(a.rsdp, b.rsdp, ACPI_RSDP_BYTES);
}

static void write_file(const char *dir, const char *name, const uint8_t *p, size_t bytes)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, bytes, f), bytes);
    fclose(f);
}

/* iasl disassembles each without complaint, and compiles the AML it read. */
static void iasl_reads_every_table(void **state)
{
    static const char *const names[] = {"FACP", "APIC", "HPET", "MCFG", "SSDT", "DSDT"};
    static struct acpi_tables t;
    char dir[] = "/tmp/vireo-acpi-XXXXXX", command[600];

    assert_non_null(mkdtemp(dir));
    acpi_build(&t, &config);
    acpi_place(&t, TABLES);
    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        const uint8_t *p = strcmp(names[n], "DSDT") == 0
                               ? table(&t, le64_get(find(&t, "FACP") + 140))
                               : find(&t, names[n]);
        char file[16];

        assert_non_null(p);
        snprintf(file, sizeof file, "%s.dat", names[n]);
        write_file(dir, file, p, le32_get(p + 4));
    }
    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        bool aml = n >= 4;

        snprintf(command, sizeof command,
                 "cd %s && iasl -d %s.dat > %s.log 2>&1 && test -s %s.dsl && "
                 "! grep -Ei 'error|warning|invalid|incorrect|unknown' %s.log %s",
                 dir, names[n], names[n], names[n], names[n], aml ? "" : names[n]);
        if (!aml)
            strcat(command, ".dsl");
        assert_int_equal(system(command), 0);
        if (aml) {
            snprintf(command, sizeof command, "cd %s && iasl -p again %s.dsl > %s.log 2>&1", dir,
                     names[n], names[n]);
            assert_int_equal(system(command), 0);
        }
    }
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void smbios_structures_follow_each_other(void **state)
{
    static struct smbios s;
    struct smbios_config c = {.memory_bytes = 40 * GiB, .cpu_count = 64, .cpu_mhz = 3000};
    unsigned structures[256] = {0};
    size_t at = 0;

    smbios_build(&s, &c, 0x12345000);
    assert_int_equal(sum(s.anchor, SMBIOS_ANCHOR_BYTES), 0);
    assert_memory_equal(s.anchor, "_SM3_", 5);
    assert_int_equal(le64_get(s.anchor + 16), 0x12345000);
    assert_int_equal(le32_get(s.anchor + 12), s.bytes);
    while (at < s.bytes) {
        const uint8_t *p = s.data + at;
        unsigned strings = 0;

        structures[p[0]]++;
        assert_true(p[1] >= 4);
        for (at += p[1]; s.data[at]; strings++)
            at += strlen((const char *)s.data + at) + 1;
        at += strings ? 1 : 2;
        assert_true(at <= s.bytes);
        if (p[0] == 1)
            assert_int_equal(strings, 3);
        if (p[0] == 127)
            assert_int_equal(at, s.bytes);
    }
    assert_int_equal(structures[0], 1);
    assert_int_equal(structures[1], 1);
    assert_int_equal(structures[4], 64);
    assert_int_equal(structures[17], 1);
    assert_int_equal(structures[19], 2);
    assert_int_equal(structures[127], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_linked_and_sum_to_zero),
        cmocka_unit_test(madt_lists_processors_and_overrides),
        cmocka_unit_test(no_ecam_means_no_mcfg),
        cmocka_unit_test(the_largest_machine_fits),
        cmocka_unit_test(the_script_does_what_placing_does),
        cmocka_unit_test(iasl_reads_every_table),
        cmocka_unit_test(smbios_structures_follow_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
