/*
 * The AHCI adapter, its disk and its CD drive, without a processor: registers,
 * commands, errors and recovery, hostile tables, saved state, power cuts.
 */
#include "tests/dev/ahci_guest.h"

#include <errno.h>
#include <stdlib.h>

#define GOOD 0x50u

enum {
    IDENTIFY = 0xEC,
    IDENTIFY_PACKET = 0xA1,
    READ_DMA_EXT = 0x25,
    WRITE_DMA_EXT = 0x35,
    WRITE_FUA_EXT = 0x3D,
    READ_EXT = 0x24,
    WRITE_EXT = 0x34,
    READ_FPDMA = 0x60,
    WRITE_FPDMA = 0x61,
    READ_LOG_EXT = 0x2F,
    FLUSH_EXT = 0xEA,
    SET_FEATURES = 0xEF,
    TRIM = 0x06,
};

/* ---- helpers ---- */

static uint8_t *disk_bytes_of(struct harness *h)
{
    return ag_world(h)->shim[AG_DISK]->bytes;
}

static uint32_t move(struct harness *h, uint8_t command, uint64_t lba, uint16_t count,
                     uint64_t address)
{
    struct ag_prd prd = {address, count * 512u, false};
    struct ag_command c = {.command = command, .lba = lba, .count = count, .prd = &prd, .prds = 1};

    return ag_run(h, AG_DISK, &c);
}

static void prepare_queued(struct harness *h, unsigned slot, bool write, uint64_t lba,
                           uint16_t count, uint64_t address)
{
    struct ag_prd prd = {address, count * 512u, false};
    struct ag_command c = {
        .command = write ? WRITE_FPDMA : READ_FPDMA,
        .lba = lba,
        .features = count,
        .count = (uint16_t)(slot << 3),
        .prd = &prd,
        .prds = 1,
    };

    ag_prepare(h, AG_DISK, slot, &c);
}

static void issue_queued(struct harness *h, uint32_t slots)
{
    ag_put(h, AG_DISK, PX_SACT, slots);
    ag_issue(h, AG_DISK, slots);
}

/* What software does after an error: 6.2.2.1. */
static void recover(struct harness *h, unsigned port)
{
    ag_stop_port(h, port);
    assert_false(ag_get(h, port, PX_CMD) & CMD_CR);
    assert_int_equal(ag_get(h, port, PX_CI), 0);
    assert_int_equal(ag_get(h, port, PX_SACT), 0);
    ag_start_port(h, port);
}

static struct harness *running(void)
{
    struct harness *h = ag_create();

    ag_start_port(h, AG_DISK);
    ag_start_port(h, AG_CD);
    return h;
}

/* ---- registers ---- */

static void registers(void **state)
{
    struct harness *h = ag_create();
    uint32_t cap = (uint32_t)mm_in(h, AG_ABAR + AHCI_CAP, 4);

    assert_int_equal(cap & 0x1F, AHCI_PORTS - 1);
    assert_int_equal(cap >> 8 & 0x1F, 31);
    assert_true(cap & CAP_NCQ && cap & CAP_CLO && cap & CAP_64BIT);
    assert_int_equal(mm_in(h, AG_ABAR + AHCI_VS, 4), 0x10301);
    assert_int_equal(mm_in(h, AG_ABAR + AHCI_PI, 4), 0x3F);
    assert_int_equal(mm_in(h, AG_ABAR + AHCI_GHC, 4), GHC_AHCI);
    mm_out(h, AG_ABAR + AHCI_GHC, 0x7FFFFFFE, 4);
    assert_int_equal(mm_in(h, AG_ABAR + AHCI_GHC, 4), GHC_AHCI | GHC_INTERRUPTS);
    assert_int_equal(ag_get(h, AG_DISK, PX_SIG), 0x00000101);
    assert_int_equal(ag_get(h, AG_CD, PX_SIG), 0xEB140101);
    assert_int_equal(ag_get(h, AG_EMPTY, PX_SIG), 0xEB140101);
    assert_int_equal(ag_get(h, AG_NOTHING, PX_SIG), UINT32_MAX);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 0x133);
    assert_int_equal(ag_get(h, AG_NOTHING, PX_SSTS), 0);
    assert_int_equal(ag_get(h, AG_DISK, PX_TFD) & 0xFF, GOOD);
    assert_int_equal(ag_get(h, AG_NOTHING, PX_TFD), 0x7F);
    ag_put(h, AG_DISK, PX_CLB, UINT32_MAX);
    assert_int_equal(ag_get(h, AG_DISK, PX_CLB), 0xFFFFFC00);
    ag_put(h, AG_DISK, PX_FB, UINT32_MAX);
    assert_int_equal(ag_get(h, AG_DISK, PX_FB), 0xFFFFFF00);
    ag_put(h, AG_DISK, PX_CI, UINT32_MAX); /* while ST is 0: nothing */
    ag_put(h, AG_DISK, PX_SACT, UINT32_MAX);
    assert_int_equal(ag_get(h, AG_DISK, PX_CI), 0);
    assert_int_equal(ag_get(h, AG_DISK, PX_SACT), 0);
    /* The same registers through the index and data ports. */
    io_out(h, AG_IDP + 0x10, AHCI_VS, 4);
    assert_int_equal(io_in(h, AG_IDP + 0x14, 4), 0x10301);
    io_out(h, AG_IDP + 0x10, UINT32_MAX, 4);
    assert_int_equal(io_in(h, AG_IDP + 0x14, 4), 0);
    ag_destroy(h);
}

/* PxCMD, COMRESET, CLO, power states, staggered spin-up, HBA reset. */
static void link_states(void **state)
{
    struct harness *h = running();
    uint32_t cmd;

    assert_true(ag_get(h, AG_DISK, PX_CMD) & CMD_CR);
    assert_true(ag_get(h, AG_DISK, PX_CMD) & CMD_FR);
    ag_stop_port(h, AG_DISK);
    assert_false(ag_get(h, AG_DISK, PX_CMD) & CMD_CR);

    ag_put(h, AG_DISK, PX_SCTL, DET_RESET);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 0);
    assert_int_equal(ag_get(h, AG_DISK, PX_TFD), 0x7F);
    ag_put(h, AG_DISK, PX_SCTL, 0);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 0x133);
    assert_true(ag_get(h, AG_DISK, PX_SERR) & SERR_EXCHANGED);
    assert_true(ag_get(h, AG_DISK, PX_IS) & IS_CONNECT);
    ag_put(h, AG_DISK, PX_IS, UINT32_MAX); /* only SERR clears it */
    assert_true(ag_get(h, AG_DISK, PX_IS) & IS_CONNECT);
    ag_put(h, AG_DISK, PX_SERR, UINT32_MAX);
    assert_int_equal(ag_get(h, AG_DISK, PX_IS), 0);

    ag_put(h, AG_DISK, PX_SCTL, DET_OFF);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 4);
    ag_put(h, AG_DISK, PX_SCTL, 0);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 0x133);
    ag_put(h, AG_NOTHING, PX_SCTL, DET_RESET);
    ag_put(h, AG_NOTHING, PX_SCTL, 0);
    assert_int_equal(ag_get(h, AG_NOTHING, PX_SSTS), 0);

    cmd = CMD_FRE | CMD_SUD;
    ag_put(h, AG_DISK, PX_CMD, cmd | 6u << CMD_ICC_SHIFT);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 0x633);
    assert_int_equal(ag_get(h, AG_DISK, PX_CMD) >> CMD_ICC_SHIFT, 0);
    ag_put(h, AG_DISK, PX_CMD, cmd | 1u << CMD_ICC_SHIFT);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 0x133);
    ag_put(h, AG_DISK, PX_SCTL, 0x300);
    ag_put(h, AG_DISK, PX_CMD, cmd | 2u << CMD_ICC_SHIFT);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 0x133);

    mm_out(h, AG_ABAR + AHCI_CAP, CAP_STAGGERED_SPIN_UP, 4);
    assert_true(mm_in(h, AG_ABAR + AHCI_CAP, 4) & CAP_STAGGERED_SPIN_UP);
    mm_out(h, AG_ABAR + AHCI_GHC, GHC_RESET, 4);
    assert_int_equal(mm_in(h, AG_ABAR + AHCI_GHC, 4), GHC_AHCI);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 0);
    assert_int_equal(ag_get(h, AG_DISK, PX_CLB), AG_LIST(AG_DISK)); /* stays */
    ag_put(h, AG_DISK, PX_CMD, CMD_SUD);
    assert_int_equal(ag_get(h, AG_DISK, PX_SSTS), 0x133);
    ag_destroy(h);
}

/* A device in software reset: two FISes that write its control register. */
static void soft_reset(void **state)
{
    struct harness *h = running();
    struct ag_command c = {.command = IDENTIFY};
    uint8_t *table, *header;

    for (unsigned port = AG_DISK; port <= AG_CD; port++) {
        for (unsigned srst = 0; srst < 2; srst++) {
            ag_prepare(h, port, srst, &c);
            header = ag_ram(h, AG_LIST(port) + srst * HEADER_BYTES);
            table = ag_ram(h, AG_TABLE(port, srst));
            le32_put(header, le32_get(header) | (srst ? 0 : HEADER_CLEAR));
            table[1] = 0;
            table[15] = srst ? 0 : FIS_CONTROL_SRST;
            ag_issue(h, port, 1u << srst);
        }
        assert_int_equal(ag_get(h, port, PX_CI), 0);
        assert_int_equal(ag_get(h, port, PX_SIG), port == AG_CD ? 0xEB140101 : 0x101);
        assert_int_equal(ag_get(h, port, PX_TFD), port == AG_CD ? 0x100 : 0x150);
        assert_int_equal(*ag_ram(h, AG_FIS(port) + RECEIVED_D2H), FIS_D2H);
    }
    ag_destroy(h);
}

static void interrupts(void **state)
{
    struct harness *h = running();
    struct pci_bus *bus = h->dev[DEV_BUS];
    unsigned msi;

    assert_false(h->line[1].level);
    move(h, READ_DMA_EXT, 0, 1, AG_BUFFER);
    assert_int_equal(ag_get(h, AG_DISK, PX_IS), IS_D2H);
    assert_int_equal(mm_in(h, AG_ABAR + AHCI_IS, 4), 1);
    assert_true(h->line[1].level);
    mm_out(h, AG_ABAR + AHCI_IS, 1, 4); /* still asked for: a latch of levels */
    assert_int_equal(mm_in(h, AG_ABAR + AHCI_IS, 4), 1);
    ag_put(h, AG_DISK, PX_IS, UINT32_MAX);
    assert_true(h->line[1].level);
    mm_out(h, AG_ABAR + AHCI_IS, 1, 4);
    assert_false(h->line[1].level);

    /* The same by message. */
    msi = pci_config_read(bus, 0, AG_DEVFN, PCI_CAPABILITIES, 1);
    while (msi && pci_config_read(bus, 0, AG_DEVFN, msi, 1) != 5)
        msi = pci_config_read(bus, 0, AG_DEVFN, msi + 1, 1);
    assert_int_equal(msi, 0x80);
    pci_config_write(bus, 0, AG_DEVFN, msi + 4, 0xFEE00000, 4);
    pci_config_write(bus, 0, AG_DEVFN, msi + 12, 0x41, 2);
    pci_config_write(bus, 0, AG_DEVFN, msi + 2, 1, 2);
    h->message_count = 0;
    move(h, READ_DMA_EXT, 0, 1, AG_BUFFER);
    assert_int_equal(h->message_count, 1);
    assert_int_equal(h->message[0].address, 0xFEE00000);
    assert_int_equal(h->message[0].data, 0x41);
    assert_false(h->line[1].level);
    mm_out(h, AG_ABAR + AHCI_IS, 1, 4); /* cleared too early: once more */
    assert_int_equal(h->message_count, 2);
    ag_put(h, AG_DISK, PX_IS, UINT32_MAX);
    mm_out(h, AG_ABAR + AHCI_IS, 1, 4);
    assert_int_equal(h->message_count, 2);
    ag_destroy(h);
}

/* ---- ATA ---- */

static void identify(void **state)
{
    struct harness *h = running();
    struct ag_prd prd = {AG_BUFFER, 512, true};
    struct ag_command c = {.command = IDENTIFY, .prd = &prd, .prds = 1};
    const uint8_t *id = ag_ram(h, AG_BUFFER), *fis = ag_ram(h, AG_FIS(AG_DISK));
    uint8_t sum = 0;

    assert_int_equal(ag_run(h, AG_DISK, &c), GOOD);
    assert_int_equal(ag_get(h, AG_DISK, PX_IS), IS_PIO_SETUP | IS_DESCRIPTOR);
    assert_int_equal(ag_get(h, AG_DISK, PX_CI), 0);
    assert_int_equal(fis[RECEIVED_PIO_SETUP], FIS_PIO_SETUP);
    assert_int_equal(fis[RECEIVED_PIO_SETUP + 2], 0x58);
    assert_int_equal(fis[RECEIVED_PIO_SETUP + 15], GOOD);
    assert_int_equal(le16_get(fis + RECEIVED_PIO_SETUP + 16), 512);
    assert_int_equal(le32_get(ag_ram(h, AG_LIST(AG_DISK) + 4)), 512);
    assert_int_equal(le64_get(id + 200), AG_DISK_BYTES / 512);
    assert_int_equal(le32_get(id + 120), AG_DISK_BYTES / 512);
    assert_memory_equal(id + 20, "IDKS                ", 20);
    for (unsigned n = 0; n < 512; n++)
        sum += id[n];
    assert_int_equal(sum, 0);
    assert_true(le16_get(id + 2 * 76) & 1 << 8);
    assert_int_equal(le16_get(id + 2 * 75), 31);

    c.command = IDENTIFY_PACKET; /* of a disk: refused */
    assert_int_equal(ag_run(h, AG_DISK, &c), 0x451);
    assert_true(ag_get(h, AG_DISK, PX_IS) & IS_TASK_FILE);
    assert_int_equal(ag_get(h, AG_DISK, PX_CI), 1);
    ag_issue(h, AG_DISK, 2); /* halted */
    assert_int_equal(ag_get(h, AG_DISK, PX_CI), 3);
    recover(h, AG_DISK);
    assert_int_equal(ag_run(h, AG_CD, &c), GOOD);
    assert_int_equal(le16_get(id), 0x85C0);
    c.command = IDENTIFY; /* of a CD: refused, with its signature */
    assert_int_equal(ag_run(h, AG_CD, &c), 0x451);
    fis = ag_ram(h, AG_FIS(AG_CD) + RECEIVED_D2H);
    assert_int_equal(fis[5], 0x14);
    assert_int_equal(fis[6], 0xEB);
    ag_destroy(h);
}

static void transfers(void **state)
{
    static const uint8_t reads[] = {READ_DMA_EXT, READ_EXT, 0x20, 0xC8, 0xC4, 0x29};
    static const uint8_t writes[] = {WRITE_DMA_EXT, WRITE_EXT, 0x30, 0xCA, 0xC5, 0x39, 0x3D, 0xCE};
    struct harness *h = running();

    for (size_t n = 0; n < sizeof reads; n++) {
        memset(ag_ram(h, AG_BUFFER), 0, 8192);
        assert_int_equal(move(h, reads[n], 100 + n, 9, AG_BUFFER), GOOD);
        assert_memory_equal(ag_ram(h, AG_BUFFER), disk_bytes_of(h) + (100 + n) * 512, 9 * 512);
        assert_int_equal(*ag_ram(h, AG_BUFFER + 9 * 512), 0);
        assert_int_equal(le32_get(ag_ram(h, AG_LIST(AG_DISK) + 4)), 9 * 512);
    }
    for (size_t n = 0; n < sizeof writes; n++) {
        memset(ag_ram(h, AG_BUFFER), (int)n + 1, 8192);
        assert_int_equal(move(h, writes[n], 200 + n, 3, AG_BUFFER), GOOD);
        assert_memory_equal(ag_ram(h, AG_BUFFER), disk_bytes_of(h) + (200 + n) * 512, 3 * 512);
    }
    /* CHS: cylinder 1, head 2, sector 3. */
    {
        struct ag_prd prd = {AG_BUFFER, 512, false};
        struct ag_command c = {.command = 0xC8,
                               .device = 0x02 | 0x80,
                               .lba = 0x103,
                               .count = 1,
                               .prd = &prd,
                               .prds = 1};

        assert_int_equal(ag_run(h, AG_DISK, &c), GOOD);
        assert_memory_equal(ag_ram(h, AG_BUFFER), disk_bytes_of(h) + ((16 + 2) * 63 + 2) * 512,
                            512);
    }
    /* The last sector, and the one behind it. */
    assert_int_equal(move(h, READ_DMA_EXT, AG_DISK_BYTES / 512 - 1, 1, AG_BUFFER), GOOD);
    assert_int_equal(move(h, READ_DMA_EXT, AG_DISK_BYTES / 512 - 1, 2, AG_BUFFER), 0x1451);
    recover(h, AG_DISK);
    assert_int_equal(move(h, READ_DMA_EXT, BITS(47, 0), 1, AG_BUFFER), 0x1451);
    recover(h, AG_DISK);
    assert_int_equal(move(h, READ_DMA_EXT, 0, 0, AG_BUFFER), 0x1451); /* 65536 */
    ag_destroy(h);
}

/* Entries of every length, at odd addresses, across sectors and pages. */
static void scattered(void **state)
{
    enum { SECTORS = 100, MAX_PRDS = 248 };
    struct harness *h = running();
    struct ag_prd prd[MAX_PRDS];
    uint64_t seed = 77;
    uint8_t *before = malloc(SECTORS * 512);

    for (unsigned round = 0; round < 40; round++) {
        uint32_t left = SECTORS * 512;
        uint64_t at = AG_BUFFER + harness_random(&seed) % 9;
        bool write = round & 1;
        unsigned n = 0;
        struct ag_command c = {.command = write ? WRITE_DMA_EXT : READ_DMA_EXT,
                               .lba = 5,
                               .count = SECTORS,
                               .prd = prd};

        for (; left && n < MAX_PRDS; n++) {
            uint32_t part = 1 + (uint32_t)(harness_random(&seed) % (round < 20 ? 500 : 5000));

            prd[n].bytes = n == MAX_PRDS - 1 ? left : MIN(part, left);
            prd[n].address = at;
            prd[n].interrupt = false;
            left -= prd[n].bytes;
            at += prd[n].bytes + harness_random(&seed) % 3;
        }
        c.prds = n;
        for (uint64_t i = AG_BUFFER; i < AG_BUFFER + 65536; i++)
            *ag_ram(h, i) = (uint8_t)harness_random(&seed);
        memcpy(before, disk_bytes_of(h) + 5 * 512, SECTORS * 512);
        assert_int_equal(ag_run(h, AG_DISK, &c), GOOD);
        if (!write)
            assert_memory_equal(before, disk_bytes_of(h) + 5 * 512, SECTORS * 512);
        for (unsigned k = 0, done = 0; k < n; done += prd[k].bytes, k++)
            assert_memory_equal(ag_ram(h, prd[k].address), disk_bytes_of(h) + 5 * 512 + done,
                                prd[k].bytes);
    }
    free(before);
    ag_destroy(h);
}

static void queued(void **state)
{
    struct harness *h = running();

    for (unsigned slot = 0; slot < 32; slot++)
        prepare_queued(h, slot, false, slot * 3, 2, AG_BUFFER + slot * 1024);
    issue_queued(h, UINT32_MAX);
    assert_int_equal(ag_get(h, AG_DISK, PX_CI), 0); /* all taken */
    assert_int_equal(ag_get(h, AG_DISK, PX_SACT), UINT32_MAX);
    assert_int_equal(ag_get(h, AG_DISK, PX_TFD), GOOD);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ag_get(h, AG_DISK, PX_SACT), 0);
    assert_int_equal(ag_get(h, AG_DISK, PX_IS), IS_SET_BITS);
    assert_int_equal(*ag_ram(h, AG_FIS(AG_DISK) + RECEIVED_SET_BITS), FIS_SET_BITS);
    for (unsigned slot = 0; slot < 32; slot++)
        assert_memory_equal(ag_ram(h, AG_BUFFER + slot * 1024), disk_bytes_of(h) + slot * 3 * 512,
                            1024);
    ag_put(h, AG_DISK, PX_IS, UINT32_MAX);
    memset(ag_ram(h, AG_BUFFER), 0xA5, 4096);
    prepare_queued(h, 7, true, 40, 8, AG_BUFFER);
    issue_queued(h, 1u << 7);
    harness_advance(h, NS_PER_SEC);
    assert_memory_equal(ag_ram(h, AG_BUFFER), disk_bytes_of(h) + 40 * 512, 4096);
    /* DMA setup FISes, of a write and of a read: type, direction, tag, bytes. */
    assert_memory_equal(ag_ram(h, AG_FIS(AG_DISK)),
                        "\x41\0\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0\0\0", 28);
    prepare_queued(h, 9, false, 40, 3, AG_BUFFER);
    issue_queued(h, 1u << 9);
    assert_memory_equal(ag_ram(h, AG_FIS(AG_DISK)),
                        "\x41\x20\0\0\11\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\6\0\0\0\0\0", 28);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ag_get(h, AG_DISK, PX_SACT), 0);
    ag_destroy(h);
}

static void queued_errors(void **state)
{
    struct harness *h = running();
    struct shim *s = ag_world(h)->shim[AG_DISK];
    struct ag_prd prd = {AG_BUFFER + 0x10000, 512, false};
    struct ag_command log = {
        .command = READ_LOG_EXT, .lba = 0x10, .count = 1, .prd = &prd, .prds = 1};
    const uint8_t *p = ag_ram(h, AG_BUFFER + 0x10000);

    shim_fail(s, DISK_READ, 30 * 512, 512, 1, -EIO);
    for (unsigned slot = 0; slot < 4; slot++)
        prepare_queued(h, slot, false, slot * 10, 1, AG_BUFFER + slot * 1024);
    issue_queued(h, 0xF);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ag_get(h, AG_DISK, PX_TFD), 0x4051); /* UNC */
    assert_int_equal(ag_get(h, AG_DISK, PX_IS), IS_SET_BITS | IS_TASK_FILE);
    assert_true(ag_get(h, AG_DISK, PX_SACT) & 8);
    recover(h, AG_DISK);
    /* Until the log is read nothing works. */
    assert_int_equal(move(h, READ_DMA_EXT, 0, 1, AG_BUFFER), 0x451);
    recover(h, AG_DISK);
    assert_int_equal(ag_run(h, AG_DISK, &log), GOOD);
    assert_int_equal(p[0], 3); /* tag */
    assert_int_equal(p[3], ATA_UNC);
    assert_int_equal(p[4], 30);
    assert_int_equal(ag_run(h, AG_DISK, &log), GOOD);
    assert_int_equal(p[0], 0x80);
    assert_int_equal(move(h, READ_DMA_EXT, 30, 1, AG_BUFFER), GOOD);

    /* Beyond the end; a tag that is in use; a command that is not queued. */
    prepare_queued(h, 5, false, AG_DISK_BYTES / 512, 1, AG_BUFFER);
    issue_queued(h, 1u << 5);
    assert_int_equal(ag_get(h, AG_DISK, PX_TFD), 0x1451);
    recover(h, AG_DISK);
    assert_int_equal(ag_run(h, AG_DISK, &log), GOOD);
    prepare_queued(h, 1, false, 0, 1, AG_BUFFER);
    prepare_queued(h, 2, false, 0, 1, AG_BUFFER);
    ag_ram(h, AG_TABLE(AG_DISK, 2))[12] = 1 << 3;
    issue_queued(h, 6);
    assert_int_equal(ag_get(h, AG_DISK, PX_TFD), 0x451);
    recover(h, AG_DISK);
    assert_int_equal(ag_run(h, AG_DISK, &log), GOOD);
    prepare_queued(h, 1, false, 0, 1, AG_BUFFER);
    prepare_queued(h, 2, false, 0, 1, AG_BUFFER);
    ag_ram(h, AG_TABLE(AG_DISK, 2))[2] = READ_DMA_EXT;
    issue_queued(h, 6);
    assert_int_equal(ag_get(h, AG_DISK, PX_TFD), 0x451);
    harness_advance(h, NS_PER_SEC);
    recover(h, AG_DISK);
    assert_int_equal(move(h, READ_DMA_EXT, 30, 1, AG_BUFFER), GOOD);
    ag_destroy(h);
}

static void host_errors(void **state)
{
    struct harness *h = running();
    struct shim *s = ag_world(h)->shim[AG_DISK];
    struct ag_command flush = {.command = FLUSH_EXT};

    shim_fail(s, DISK_READ, 0, AG_DISK_BYTES, 1, -EIO);
    assert_int_equal(move(h, READ_DMA_EXT, 8, 1, AG_BUFFER), 0x4051);
    recover(h, AG_DISK);
    shim_fail(s, DISK_WRITE, 0, AG_DISK_BYTES, 1, -ENOSPC);
    assert_int_equal(move(h, WRITE_DMA_EXT, 8, 1, AG_BUFFER), 0x451);
    recover(h, AG_DISK);
    shim_fail(s, DISK_FLUSH, 0, 1, 1, -EIO);
    assert_int_equal(ag_run(h, AG_DISK, &flush), 0x451);
    recover(h, AG_DISK);
    assert_int_equal(ag_run(h, AG_DISK, &flush), GOOD);
    assert_int_equal(move(h, WRITE_DMA_EXT, 8, 1, AG_BUFFER), GOOD);
    ag_destroy(h);
}

/* What the guest knows to be flushed survives any crash. */
static void flushed_is_flushed(void **state)
{
    struct harness *h = running();
    struct shim *s = ag_world(h)->shim[AG_DISK];
    struct ag_command flush = {.command = FLUSH_EXT};
    struct ag_command no_cache = {.command = SET_FEATURES, .features = 0x82};
    uint8_t data[8 * 512];
    uint64_t seed = 4;

    shim_mark(s);
    for (unsigned round = 0; round < 12; round++) {
        uint64_t lba = harness_random(&seed) % 64;
        unsigned events;

        for (size_t n = 0; n < sizeof data; n++)
            data[n] = (uint8_t)(harness_random(&seed) >> 8);
        memcpy(ag_ram(h, AG_BUFFER), data, sizeof data);
        if (round % 4 == 0) {
            assert_int_equal(move(h, WRITE_DMA_EXT, lba, 8, AG_BUFFER), GOOD);
            assert_int_equal(ag_run(h, AG_DISK, &flush), GOOD);
        } else if (round % 4 == 1) {
            assert_int_equal(move(h, WRITE_FUA_EXT, lba, 8, AG_BUFFER), GOOD);
        } else if (round % 4 == 2) {
            prepare_queued(h, 3, true, lba, 8, AG_BUFFER);
            ag_ram(h, AG_TABLE(AG_DISK, 3))[7] |= 0x80; /* FUA */
            issue_queued(h, 1u << 3);
            harness_advance(h, NS_PER_SEC);
            assert_int_equal(ag_get(h, AG_DISK, PX_SACT), 0);
        } else {
            assert_int_equal(ag_run(h, AG_DISK, &no_cache), GOOD);
            assert_int_equal(move(h, WRITE_DMA_EXT, lba, 8, AG_BUFFER), GOOD);
            no_cache.features = 0x02; /* on again */
            assert_int_equal(ag_run(h, AG_DISK, &no_cache), GOOD);
            no_cache.features = 0x82;
        }
        events = s->events;
        /* More, which is not flushed, in another place. */
        memset(ag_ram(h, AG_BUFFER), (int)round, 512);
        assert_int_equal(move(h, WRITE_DMA_EXT, 100 + round, 1, AG_BUFFER), GOOD);
        assert_true(shim_crash_check(s, events, lba * 512, data, sizeof data, round));
    }
    /* And the check would have noticed. */
    memset(ag_ram(h, AG_BUFFER), 0x77, sizeof data);
    memset(data, 0x77, sizeof data);
    assert_int_equal(move(h, WRITE_DMA_EXT, 300, 8, AG_BUFFER), GOOD);
    assert_false(shim_crash_check(s, s->events, 300 * 512, data, sizeof data, 1));
    ag_destroy(h);
}

static void trim(void **state)
{
    struct harness *h = running();
    struct ag_prd prd = {AG_BUFFER, 512, false};
    struct ag_command c = {.command = TRIM, .features = 1, .count = 1, .prd = &prd, .prds = 1};
    uint8_t *list = ag_ram(h, AG_BUFFER);

    memset(list, 0, 512);
    le64_put(list, 10 | 5ull << 48);
    le64_put(list + 24, 20 | 1ull << 48);
    assert_int_equal(ag_run(h, AG_DISK, &c), GOOD);
    assert_int_equal(ag_world(h)->shim[AG_DISK]->discards, 2);
    for (unsigned n = 10 * 512; n < 15 * 512; n++)
        assert_int_equal(disk_bytes_of(h)[n], 0);
    le64_put(list + 504, (AG_DISK_BYTES / 512) | 1ull << 48);
    assert_int_equal(ag_run(h, AG_DISK, &c), 0x451);
    recover(h, AG_DISK);
    c.count = 9;
    assert_int_equal(ag_run(h, AG_DISK, &c), 0x451);
    ag_destroy(h);
}

/* READ VERIFY reads, in pieces, and hears of the host's errors; nothing moves. */
static void verify(void **state)
{
    struct harness *h = running();
    struct shim *s = ag_world(h)->shim[AG_DISK];
    struct ag_command c = {.command = 0x42, .lba = 100, .count = 300};
    uint8_t cd[16] = {0x2F, 0, 0, 0, 0, 2, 0, 0, 3};
    unsigned reads = s->reads;

    assert_int_equal(ag_run(h, AG_DISK, &c), GOOD);
    assert_int_equal(s->reads - reads, 3); /* of 64 KiB each at most */
    shim_fail(s, DISK_READ, 350 * 512, 512, 1, -EIO);
    assert_int_equal(ag_run(h, AG_DISK, &c), 0x4051);
    assert_int_equal(ag_ram(h, AG_FIS(AG_DISK) + RECEIVED_D2H)[4], (100 + 128) & 0xFF);
    recover(h, AG_DISK);
    assert_int_equal(ag_run(h, AG_DISK, &c), GOOD);
    c.command = 0x40;
    c.count = 0; /* 256 */
    reads = s->reads;
    assert_int_equal(ag_run(h, AG_DISK, &c), GOOD);
    assert_int_equal(s->reads - reads, 2);
    /* A machine that is saved on the way. */
    c.count = 255;
    ag_prepare(h, AG_DISK, 3, &c);
    ag_issue(h, AG_DISK, 1u << 3);
    harness_advance(h, 1000);
    assert_int_equal(ag_get(h, AG_DISK, PX_CI), 1u << 3);
    harness_reload(h);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ag_get(h, AG_DISK, PX_CI), 0);
    assert_int_equal(ag_get(h, AG_DISK, PX_TFD), GOOD);

    s = ag_world(h)->shim[AG_CD];
    ag_packet(h, cd, 0); /* unit attention */
    recover(h, AG_CD);
    reads = s->reads;
    assert_int_equal(ag_packet(h, cd, 0), GOOD);
    assert_int_equal(s->reads - reads, 1);
    shim_fail(s, DISK_READ, 2 * 2048, 2048, 1, -EIO);
    assert_int_equal(ag_packet(h, cd, 0), 0x3451);
    ag_destroy(h);
}

static void small_commands(void **state)
{
    static const struct {
        uint8_t command;
        uint16_t features, count;
        uint64_t lba;
        uint32_t tfd;
        unsigned reply;
    } cases[] = {
        {0xE7, 0, 0, 0, GOOD, 0},
        {0xE0, 0, 0, 0, GOOD, 0},
        {0xE5, 0, 0, 0, GOOD, 0},
        {0xE1, 0, 0, 0, GOOD, 0},
        {0x40, 0, 5, 3, GOOD, 0},
        {0x42, 0, 5, 3, GOOD, 0},
        {0x42, 0, 5, 9999, 0x1451, 0},
        {0xC6, 0, 8, 0, GOOD, 0},
        {0xC6, 0, 3, 0, 0x451, 0},
        {0xC6, 0, 32, 0, 0x451, 0},
        {0xEF, 3, 0x46, 0, GOOD, 0},
        {0xEF, 3, 0x4F, 0, 0x451, 0},
        {0xEF, 0xAA, 0, 0, GOOD, 0},
        {0xEF, 0x99, 0, 0, 0x451, 0},
        {0xB0, 0xD0, 0, 0xC24F00, GOOD, 512},
        {0xB0, 0xD1, 0, 0xC24F00, GOOD, 512},
        {0xB0, 0xD5, 1, 0xC24F00, GOOD, 512},
        {0xB0, 0xD5, 1, 0xC24F06, GOOD, 512},
        {0xB0, 0xDA, 0, 0xC24F00, GOOD, 0},
        {0xB0, 0xDA, 0, 0, 0x451, 0},
        {0x2F, 0, 1, 0, GOOD, 512},
        {0x2F, 0, 2, 0, 0x451, 0},
        {0x2F, 0, 1, 0x33, 0x451, 0},
        {0x47, 0, 1, 0, GOOD, 512},
        {0x27, 0, 0, 0, GOOD, 0},
        {0xF8, 0, 0, 0, GOOD, 0},
        {0x90, 0, 0, 0, 0x150, 0},
        {0x00, 0, 0, 0, 0x451, 0},
        {0xFF, 0, 0, 0, 0x451, 0},
        {0xA0, 0, 0, 0, GOOD, 0},
    };
    struct harness *h = running();

    for (size_t n = 0; n + 1 < ARRAY_SIZE(cases); n++) {
        struct ag_prd prd = {AG_BUFFER, 512, false};
        struct ag_command c = {.command = cases[n].command,
                               .features = cases[n].features,
                               .count = cases[n].count,
                               .lba = cases[n].lba,
                               .prd = &prd,
                               .prds = cases[n].reply ? 1 : 0};
        uint32_t tfd = ag_run(h, AG_DISK, &c);

        if (tfd != cases[n].tfd)
            fail_msg("command %02x, case %zu: %x, not %x", c.command, n, tfd, cases[n].tfd);
        if (tfd & ATA_ERR)
            recover(h, AG_DISK);
    }
    ag_destroy(h);
}

/* ---- the CD drive ---- */

static uint32_t packet(struct harness *h, uint32_t room, uint8_t b0, uint8_t b1, uint8_t b2,
                       uint32_t rest)
{
    uint8_t cdb[16] = {b0, b1, b2};

    cdb[4] = (uint8_t)(rest >> 24);
    cdb[7] = (uint8_t)(rest >> 8);
    cdb[8] = (uint8_t)rest;
    return ag_packet(h, cdb, room);
}

static void expect_sense(struct harness *h, uint8_t key, uint8_t asc)
{
    uint8_t cdb[16] = {0x03, 0, 0, 0, 18};

    recover(h, AG_CD);
    assert_int_equal(ag_packet(h, cdb, 18), GOOD);
    assert_int_equal(ag_ram(h, AG_BUFFER)[2], key);
    assert_int_equal(ag_ram(h, AG_BUFFER)[12], asc);
}

static void cdrom(void **state)
{
    struct harness *h = running();
    const uint8_t *p = ag_ram(h, AG_BUFFER);
    uint8_t inquiry[16] = {0x12, 0, 0, 0, 36};
    uint8_t read10[16] = {0x28, 0, 0, 0, 0, 2, 0, 0, 3};
    uint8_t read12[16] = {0xA8, 0, 0, 0, 0, 7, 0, 0, 0, 4};
    uint8_t read_cd[16] = {0xBE, 0, 0, 0, 0, 9, 0, 0, 2, 0x10};

    assert_int_equal(ag_packet(h, inquiry, 36), GOOD);
    assert_int_equal(p[0], 5);
    assert_memory_equal(p + 8, "VIREO   DVD-ROM", 15);
    /* The first command after a reset that is not INQUIRY: unit attention. */
    assert_int_equal(packet(h, 0, 0, 0, 0, 0), 0x6451);
    expect_sense(h, 6, 0x29);
    assert_int_equal(packet(h, 0, 0, 0, 0, 0), GOOD);
    assert_int_equal(packet(h, 8, 0x25, 0, 0, 0), GOOD);
    assert_memory_equal(p, "\0\0\0\x7f\0\0\x08\0", 8);

    assert_int_equal(ag_packet(h, read10, 3 * 2048), GOOD);
    assert_memory_equal(p, ag_world(h)->shim[AG_CD]->bytes + 2 * 2048, 3 * 2048);
    assert_int_equal(ag_packet(h, read12, 4 * 2048), GOOD);
    assert_memory_equal(p, ag_world(h)->shim[AG_CD]->bytes + 7 * 2048, 4 * 2048);
    assert_int_equal(ag_packet(h, read_cd, 2 * 2048), GOOD);
    assert_memory_equal(p, ag_world(h)->shim[AG_CD]->bytes + 9 * 2048, 2 * 2048);
    read10[5] = 127;
    assert_int_equal(ag_packet(h, read10, 3 * 2048), 0x5451);
    expect_sense(h, 5, 0x21);
    shim_fail(ag_world(h)->shim[AG_CD], DISK_READ, 0, 8192, 1, -EIO);
    read10[5] = 1;
    assert_int_equal(ag_packet(h, read10, 3 * 2048), 0x3451);
    expect_sense(h, 3, 0x11);

    assert_int_equal(packet(h, 20, 0x43, 0, 0, 20), GOOD); /* TOC: one track, lead-out */
    assert_memory_equal(p, "\0\x12\1\1\0\x14\1\0\0\0\0\0\0\x16\xAA\0\0\0\0\x80", 20);
    assert_int_equal(packet(h, 8, 0x43, 0, 1, 8), GOOD);
    assert_int_equal(packet(h, 48, 0x43, 2, 2, 48), GOOD);
    assert_int_equal(packet(h, 0, 0x43, 0, 9, 8), 0x5451);
    expect_sense(h, 5, 0x24);
    assert_int_equal(packet(h, 32, 0x46, 0, 0, 32), GOOD);
    assert_int_equal(p[7], 0x08);
    assert_int_equal(packet(h, 8, 0x4A, 1, 0, 0x10000008), GOOD);
    assert_int_equal(p[4], 2); /* new medium */
    assert_int_equal(p[5], 2);
    assert_int_equal(packet(h, 8, 0x4A, 1, 0, 0x10000008), GOOD);
    assert_int_equal(p[4], 0);
    assert_int_equal(packet(h, 34, 0x51, 0, 0, 34), GOOD);
    assert_int_equal(packet(h, 32, 0x5A, 0, 0x2A, 32), GOOD);
    assert_int_equal(p[8], 0x2A);
    assert_int_equal(packet(h, 0, 0xF1, 0, 0, 0), 0x5451);
    expect_sense(h, 5, 0x20);

    /* Locked, then ejected, then loaded. */
    assert_int_equal(packet(h, 0, 0x1E, 0, 0, 1u << 24), GOOD);
    assert_int_equal(packet(h, 0, 0x1B, 0, 0, 2u << 24), 0x5451);
    expect_sense(h, 5, 0x53);
    assert_int_equal(packet(h, 0, 0x1E, 0, 0, 0), GOOD);
    assert_int_equal(packet(h, 0, 0x1B, 0, 0, 2u << 24), GOOD);
    assert_int_equal(packet(h, 0, 0, 0, 0, 0), 0x2451);
    expect_sense(h, 2, 0x3A);
    assert_int_equal(packet(h, 0, 0x1B, 0, 0, 3u << 24), GOOD);
    assert_int_equal(packet(h, 0, 0, 0, 0, 0), 0x6451);
    expect_sense(h, 6, 0x28);
    assert_int_equal(packet(h, 0, 0, 0, 0, 0), GOOD);
    ag_destroy(h);
}

/* By PIO there are a PIO setup FIS and one that ends the command. */
static void packet_by_pio(void **state)
{
    struct harness *h = running();
    uint8_t inquiry[16] = {0x12, 0, 0, 0, 36};
    struct ag_prd prd = {AG_BUFFER, 36, false};
    struct ag_command c = {.command = 0xA0, .cdb = inquiry, .prd = &prd, .prds = 1};

    assert_int_equal(ag_run(h, AG_CD, &c), GOOD);
    assert_int_equal(ag_get(h, AG_CD, PX_IS), IS_D2H | IS_PIO_SETUP);
    assert_int_equal(ag_ram(h, AG_FIS(AG_CD) + RECEIVED_D2H)[12], 3);
    ag_destroy(h);
}

/* ---- hostile tables ---- */

static uint32_t read_into(struct harness *h, const struct ag_prd *prd, unsigned prds,
                          uint16_t sectors)
{
    struct ag_command c = {.command = READ_DMA_EXT, .count = sectors, .prd = prd, .prds = prds};

    return ag_run(h, AG_DISK, &c);
}

static void hostile_prdts(void **state)
{
    struct harness *h = running();
    struct ag_prd prd[4] = {{AG_BUFFER, 256, false}};
    uint32_t tfd;

    /* Too short, or none. */
    assert_int_equal(read_into(h, prd, 1, 1), 0x451);
    assert_int_equal(ag_get(h, AG_DISK, PX_IS), IS_D2H | IS_TASK_FILE | IS_OVERFLOW);
    recover(h, AG_DISK);
    assert_int_equal(read_into(h, prd, 0, 1), 0x451);
    recover(h, AG_DISK);
    /* Into ROM: lost, and no error; half of a sector each. */
    prd[0] = (struct ag_prd){AG_ROM, 300, false};
    prd[1] = (struct ag_prd){AG_BUFFER, 212, false};
    assert_int_equal(read_into(h, prd, 2, 1), GOOD);
    assert_memory_equal(ag_ram(h, AG_BUFFER), disk_bytes_of(h) + 300, 212);
    /* Into the adapter's own registers: nothing happens there. */
    prd[0] = (struct ag_prd){AG_ABAR, 2048, false};
    assert_int_equal(read_into(h, prd, 1, 4), GOOD);
    assert_int_equal(ag_get(h, AG_DISK, PX_CLB), AG_LIST(AG_DISK));
    /* From them: ones. */
    {
        struct ag_command c = {
            .command = WRITE_DMA_EXT, .lba = 9, .count = 4, .prd = prd, .prds = 1};

        assert_int_equal(ag_run(h, AG_DISK, &c), GOOD);
        for (unsigned n = 0; n < 2048; n++)
            assert_int_equal(disk_bytes_of(h)[9 * 512 + n], 0xFF);
    }
    /* Nobody's memory; across the end of RAM; the top of the address space. */
    prd[0] = (struct ag_prd){0x40000000000ull, 512, false};
    read_into(h, prd, 1, 1);
    assert_true(ag_get(h, AG_DISK, PX_IS) & IS_HOST_BUS);
    recover(h, AG_DISK);
    ag_put(h, AG_DISK, PX_SCTL, DET_RESET); /* the device is busy still */
    ag_put(h, AG_DISK, PX_SCTL, 0);
    prd[0] = (struct ag_prd){AG_RAM_BYTES - 700, 1024, false};
    read_into(h, prd, 1, 2);
    assert_true(ag_get(h, AG_DISK, PX_IS) & IS_HOST_BUS);
    assert_memory_equal(ag_ram(h, AG_RAM_BYTES - 700), disk_bytes_of(h), 512);
    recover(h, AG_DISK);
    ag_put(h, AG_DISK, PX_SCTL, DET_RESET);
    ag_put(h, AG_DISK, PX_SCTL, 0);
    prd[0] = (struct ag_prd){UINT64_MAX - 100, 512, false};
    tfd = read_into(h, prd, 1, 1);
    assert_true(tfd & ATA_BSY);
    recover(h, AG_DISK);
    ag_put(h, AG_DISK, PX_SCTL, DET_RESET);
    ag_put(h, AG_DISK, PX_SCTL, 0);
    /* All of it to the same few bytes, 1024 sectors. */
    for (unsigned n = 0; n < 248; n++) {
        struct ag_prd many[248];

        if (n)
            break;
        for (unsigned k = 0; k < 248; k++)
            many[k] = (struct ag_prd){AG_BUFFER, 3000, false};
        assert_int_equal(read_into(h, many, 248, 1024), GOOD);
    }
    ag_destroy(h);
}

static void hostile_lists(void **state)
{
    struct harness *h = running();
    struct ag_command c = {.command = IDENTIFY};
    uint8_t *header = ag_ram(h, AG_LIST(AG_DISK));

    /* The list nowhere, at the top of everything, over the registers. */
    static const uint64_t lists[] = {0x80000000000ull, 0xFFFFFFFFFFFFFC00ull, AG_ABAR};

    for (size_t n = 0; n < ARRAY_SIZE(lists); n++) {
        ag_put(h, AG_DISK, PX_CLB, (uint32_t)lists[n]);
        ag_put(h, AG_DISK, PX_CLBU, (uint32_t)(lists[n] >> 32));
        ag_put(h, AG_DISK, PX_IS, UINT32_MAX);
        ag_issue(h, AG_DISK, UINT32_MAX);
        assert_true(ag_get(h, AG_DISK, PX_IS) & (IS_HOST_BUS | IS_INTERFACE));
        recover(h, AG_DISK);
    }
    /* A FIS that is none, or too short. */
    ag_prepare(h, AG_DISK, 0, &c);
    ag_ram(h, AG_TABLE(AG_DISK, 0))[0] = 0x46;
    ag_issue(h, AG_DISK, 1);
    assert_true(ag_get(h, AG_DISK, PX_IS) & IS_INTERFACE);
    recover(h, AG_DISK);
    for (unsigned cfl = 0; cfl < 32; cfl++) {
        ag_prepare(h, AG_DISK, 0, &c);
        c.command = FLUSH_EXT;
        le32_put(header, cfl);
        ag_put(h, AG_DISK, PX_IS, UINT32_MAX);
        ag_issue(h, AG_DISK, 1);
        harness_advance(h, NS_PER_SEC);
        assert_int_equal(!!(ag_get(h, AG_DISK, PX_IS) & IS_INTERFACE), cfl < 5 || cfl > 16);
        recover(h, AG_DISK);
    }
    /* The table is the list, and so is what is received, and the data. */
    ag_prepare(h, AG_DISK, 0, &(struct ag_command){.command = READ_DMA_EXT, .count = 8});
    memcpy(header + 0x400, ag_ram(h, AG_TABLE(AG_DISK, 0)), 128);
    le32_put(header, 5 | 1 << HEADER_PRDTL_SHIFT);
    le64_put(header + 8, AG_LIST(AG_DISK) + 0x400);
    le64_put(header + 0x480, AG_LIST(AG_DISK));
    le64_put(header + 0x488, (uint64_t)4095 << 32);
    ag_put(h, AG_DISK, PX_FB, (uint32_t)AG_LIST(AG_DISK));
    ag_issue(h, AG_DISK, UINT32_MAX);
    harness_advance(h, NS_PER_SEC);
    ag_destroy(h);
}

/* Bus mastering off: a command waits; on: it runs. */
static void bus_master(void **state)
{
    struct harness *h = running();
    struct pci_bus *bus = h->dev[DEV_BUS];
    struct ag_prd prd = {AG_BUFFER, 512, false};
    struct ag_command c = {.command = READ_DMA_EXT, .count = 1, .prd = &prd, .prds = 1};

    pci_config_write(bus, 0, AG_DEVFN, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    ag_prepare(h, AG_DISK, 0, &c);
    ag_issue(h, AG_DISK, 1);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ag_get(h, AG_DISK, PX_CI), 1);
    pci_config_write(bus, 0, AG_DEVFN, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ag_get(h, AG_DISK, PX_CI), 0);
    assert_memory_equal(ag_ram(h, AG_BUFFER), disk_bytes_of(h), 512);
    ag_destroy(h);
}

/* ---- stopping, reset, saved state ---- */

static void stop_while_busy(void **state)
{
    struct harness *h = running();

    for (unsigned slot = 0; slot < 8; slot++)
        prepare_queued(h, slot, false, slot, 1, AG_BUFFER + slot * 512);
    memset(ag_ram(h, AG_BUFFER), 0xEE, 4096);
    issue_queued(h, 0xFF);
    recover(h, AG_DISK);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(*ag_ram(h, AG_BUFFER), 0xEE); /* never came */
    issue_queued(h, 0xFF);
    mm_out(h, AG_ABAR + AHCI_GHC, GHC_RESET, 4);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(*ag_ram(h, AG_BUFFER), 0xEE);
    ag_start_port(h, AG_DISK);
    issue_queued(h, 0xFF);
    harness_reset(h);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(*ag_ram(h, AG_BUFFER), 0xEE);
    ag_destroy(h);
}

static void saved_in_flight(void **state)
{
    struct harness *h = running();

    for (unsigned slot = 0; slot < 8; slot++)
        prepare_queued(h, slot, slot & 1, slot * 8, 8, AG_BUFFER + slot * 4096);
    memset(ag_ram(h, AG_BUFFER), 0xEE, 32768);
    issue_queued(h, 0xFF);
    harness_reload(h);
    assert_int_equal(ag_get(h, AG_DISK, PX_SACT), 0xFF);
    assert_int_equal(*ag_ram(h, AG_BUFFER), 0xEE);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ag_get(h, AG_DISK, PX_SACT), 0);
    for (unsigned slot = 0; slot < 8; slot++)
        assert_memory_equal(ag_ram(h, AG_BUFFER + slot * 4096), disk_bytes_of(h) + slot * 4096,
                            4096);
    ag_destroy(h);
}

/* Two writes to one place that are due at once: the later one stays, reloaded or
 * not. The adapter goes on behind the slot it had last. */
static void saved_in_order(void **state)
{
    struct harness *h = running();

    prepare_queued(h, 5, false, 0, 1, AG_BUFFER);
    issue_queued(h, 1u << 5);
    harness_advance(h, NS_PER_SEC);
    memset(ag_ram(h, AG_BUFFER), 0x66, 512);
    memset(ag_ram(h, AG_BUFFER + 512), 0x11, 512);
    prepare_queued(h, 6, true, 40, 1, AG_BUFFER);
    prepare_queued(h, 0, true, 40, 1, AG_BUFFER + 512);
    issue_queued(h, 1u << 6 | 1);
    harness_reload(h);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ag_get(h, AG_DISK, PX_SACT), 0);
    assert_int_equal(disk_bytes_of(h)[40 * 512], 0x11);
    ag_destroy(h);
}

static void poke(struct harness *h)
{
    /* The BAR may be anywhere now. */
    for (unsigned n = 0; n < 0x300; n += 4)
        mm_in(h, AG_ABAR + n, 4);
    ag_start_port(h, AG_DISK);
    move(h, READ_DMA_EXT, 0, 1, AG_BUFFER);
    harness_reset(h);
}

static void damaged_state(void **state)
{
    struct harness *h = running();

    prepare_queued(h, 0, false, 0, 8, AG_BUFFER);
    issue_queued(h, 1);
    harness_corrupt_some(h, poke, 61);
    ag_destroy(h);
}

/* ---- real time ---- */

static void *open_later(void *arg)
{
    struct timespec pause = {0, 20000000};

    nanosleep(&pause, NULL);
    shim_open(arg);
    return NULL;
}

/* Data that moves when the port is stopped: CR says so; a reset waits for it. */
static void real_time(void **state)
{
    struct harness *h = calloc(1, sizeof *h);
    struct vm_config config = {.deterministic = false};
    struct ag_world *w;
    struct thread opener;

    h->vm = vm_create(&config, NULL);
    assert_non_null(h->vm);
    vm_lock(h->vm);
    ag_build(h);
    w = ag_world(h);
    ag_start_port(h, AG_DISK);
    for (unsigned slot = 0; slot < 4; slot++)
        prepare_queued(h, slot, false, slot * 8, 8, AG_BUFFER + slot * 4096);
    issue_queued(h, 0xF);
    disk_drain(w->disk[AG_DISK]);
    assert_int_equal(ag_get(h, AG_DISK, PX_SACT), 0);
    for (unsigned slot = 0; slot < 4; slot++)
        assert_memory_equal(ag_ram(h, AG_BUFFER + slot * 4096), disk_bytes_of(h) + slot * 4096,
                            4096);
    /* Saved: first all comes to its end. */
    issue_queued(h, 0xF);
    {
        struct state_stream saved = {0};

        assert_int_equal(vm_state_save(h->vm, &saved, NULL), 0);
        state_stream_free(&saved);
    }
    assert_int_equal(disk_in_flight(w->disk[AG_DISK]), 0);
    assert_int_equal(ag_get(h, AG_DISK, PX_SACT), 0);
    shim_close(w->shim[AG_DISK]);
    issue_queued(h, 0xF);
    while (!atomic_load(&w->shim[AG_DISK]->waiting))
        host_futex_wait(&w->shim[AG_DISK]->waiting, 0, UINT64_MAX);
    ag_stop_port(h, AG_DISK);
    assert_true(ag_get(h, AG_DISK, PX_CMD) & CMD_CR);
    thread_start(&opener, "opener", open_later, w->shim[AG_DISK]);
    disk_drain(w->disk[AG_DISK]);
    thread_join(&opener);
    assert_false(ag_get(h, AG_DISK, PX_CMD) & CMD_CR);
    assert_int_equal(ag_get(h, AG_DISK, PX_IS) & IS_TASK_FILE, 0);

    ag_start_port(h, AG_DISK);
    shim_close(w->shim[AG_DISK]);
    issue_queued(h, 0xF);
    thread_start(&opener, "opener", open_later, w->shim[AG_DISK]);
    harness_reset(h);
    thread_join(&opener);
    assert_int_equal(disk_in_flight(w->disk[AG_DISK]), 0);
    vm_unlock(h->vm);
    vm_destroy(h->vm);
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers),          cmocka_unit_test(link_states),
        cmocka_unit_test(soft_reset),         cmocka_unit_test(interrupts),
        cmocka_unit_test(identify),           cmocka_unit_test(transfers),
        cmocka_unit_test(scattered),          cmocka_unit_test(queued),
        cmocka_unit_test(queued_errors),      cmocka_unit_test(host_errors),
        cmocka_unit_test(flushed_is_flushed), cmocka_unit_test(trim),
        cmocka_unit_test(small_commands),
        cmocka_unit_test(verify),     cmocka_unit_test(cdrom),
        cmocka_unit_test(packet_by_pio),      cmocka_unit_test(hostile_prdts),
        cmocka_unit_test(hostile_lists),      cmocka_unit_test(bus_master),
        cmocka_unit_test(stop_while_busy),    cmocka_unit_test(saved_in_flight),
        cmocka_unit_test(saved_in_order),

        cmocka_unit_test(damaged_state),      cmocka_unit_test(real_time),
    };

    return cmocka_run_group_tests_name("ahci", tests, NULL, NULL);
}
