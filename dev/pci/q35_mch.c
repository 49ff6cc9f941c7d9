/*
 * Q35 memory controller hub: Intel 3 Series Express Chipset Family datasheet
 * (317605), section 5.1, "DRAM Controller (D0:F0)". See q35_mch.h.
 *
 *      0 .. A0000        RAM
 *      A0000 .. C0000    a VGA's, or nothing; RAM while
 *                        SMRAM.D_OPEN
 *      C0000 .. 100000   13 segments, by PAM0-6: each read and write goes to
 *                        RAM or to what is below: the firmware's alias from
 *                        E0000, or nothing
 *      100000 .. TOLUD   RAM, to 80000000 at most
 *      4 GiB .. TOUUD    the rest of the RAM
 *      PCIEXBAR          ECAM, 64, 128 or 256 MiB
 *
 * TOM, TOUUD and TOLUD hold what memory initialisation on a real machine would
 * leave, because the firmware we run has none; writing them moves no RAM.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/pci/q35_mch.h"

#include <errno.h>
#include <stdlib.h>

enum mch_register {
    MCH_EPBAR = 0x40,
    MCH_MCHBAR = 0x48,
    MCH_DEVEN = 0x54,
    MCH_PCIEXBAR = 0x60,
    MCH_DMIBAR = 0x68,
    MCH_PAM0 = 0x90,
    MCH_LAC = 0x97,
    MCH_REMAPBASE = 0x98,
    MCH_REMAPLIMIT = 0x9A,
    MCH_SMRAM = 0x9D,
    MCH_ESMRAMC = 0x9E,
    MCH_TOM = 0xA0,   /* 64 MiB units */
    MCH_TOUUD = 0xA2, /* 1 MiB units */
    MCH_GBSM = 0xA4,
    MCH_TSEGMB = 0xAC,
    MCH_TOLUD = 0xB0, /* 1 MiB units in bits 15-4 */
    MCH_ERRSTS = 0xC8,
    MCH_ERRCMD = 0xCA,
    MCH_SMICMD = 0xCC,
    MCH_SKPD = 0xDC,
};

enum mch_pciexbar {
    PCIEXBAR_ENABLE = 1 << 0,
    PCIEXBAR_LENGTH_SHIFT = 1, /* 0: 256 MiB, 1: 128 MiB, 2: 64 MiB, 3 reserved */
};

enum mch_smram {
    SMRAM_D_OPEN = 1 << 6,
    SMRAM_D_CLS = 1 << 5,
    SMRAM_D_LCK = 1 << 4,
    SMRAM_G_SMRAME = 1 << 3,
    SMRAM_C_BASE_SEG = 0x02, /* read-only: A0000H */
};

enum mch_esmramc {
    ESMRAMC_E_SMERR = 1 << 6,
    ESMRAMC_CACHE_BITS = 0x38, /* read-only ones */
    ESMRAMC_WRITABLE = 0x87,   /* H_SMRAME, TSEG_SZ, T_EN */
};

enum pam_attribute {
    PAM_READ = 1 << 0,  /* reads go to RAM */
    PAM_WRITE = 1 << 1, /* writes go to RAM */
    PAM_NIBBLES = 0x33,
};

#define VIDEO_BASE 0xA0000ull
#define PAM_BASE 0xC0000ull
#define BIOS_BASE 0xE0000ull
#define HIGH_BASE 0x100000ull
#define PAM_SEGMENTS 13
#define REMAP_UNUSED_BASE 0x3FF

/* Where each segment's two bits are (table 5-2 of the datasheet): PAM0 bits
 * 5-4 for F0000H, then a nibble for each 16 KiB from C0000H on. */
static unsigned pam_register(unsigned segment)
{
    return segment == 12 ? MCH_PAM0 : MCH_PAM0 + 1 + segment / 2;
}

static unsigned pam_shift(unsigned segment)
{
    return segment == 12 || segment % 2 ? 4 : 0;
}

struct pam_segment {
    struct q35_mch *mch;
    uint64_t base, size;
    struct region ram;   /* reads go to RAM; writes too, or nowhere */
    struct region below; /* reads go below, writes to RAM */
};

struct q35_mch {
    struct vm *vm;
    struct q35_mch_config config;
    struct pci_function pci;
    struct region low, main, high, bios, video;
    struct pam_segment pam[PAM_SEGMENTS];
    uint64_t low_bytes; /* RAM below 4 GiB */
};

/* ---- regions ---- */

/* Below a segment that the firmware does not fill is nothing. */
static uint64_t below_read(void *ctx, uint64_t offset, unsigned size)
{
    return zext(~0ull, size);
}

static void below_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct pam_segment *s = ctx;
    struct ram_block *ram = s->mch->config.ram;

    le_put(ram->host + s->base + offset, value, size);
    ram_block_written(ram, s->base + offset, size);
}

static const struct region_ops below_ops = {below_read, below_write, 1, 8};

static void update_pam(struct q35_mch *m)
{
    address_space_begin(&m->vm->memory);
    for (unsigned i = 0; i < PAM_SEGMENTS; i++) {
        struct pam_segment *s = &m->pam[i];
        unsigned attr = m->pci.config[pam_register(i)] >> pam_shift(i) & 3;

        region_retarget(&s->ram, m->config.ram, s->base, !(attr & PAM_WRITE));
        region_enable(&s->ram, attr & PAM_READ);
        region_enable(&s->below, attr == PAM_WRITE);
    }
    address_space_commit(&m->vm->memory);
}

static void update_smram(struct q35_mch *m)
{
    uint8_t smram = m->pci.config[MCH_SMRAM];

    /* Locking closes it and makes it, ESMRAMC and TSEGMB read-only until the
     * next reset. */
    if (smram & SMRAM_D_LCK) {
        smram &= ~SMRAM_D_OPEN;
        m->pci.config[MCH_SMRAM] = smram;
        m->pci.write_mask[MCH_SMRAM] = SMRAM_D_CLS;
        m->pci.write_mask[MCH_ESMRAMC] = 0;
        le32_put(m->pci.write_mask + MCH_TSEGMB, 0);
    }
    region_enable(&m->video,
                  (smram & (SMRAM_D_OPEN | SMRAM_G_SMRAME)) == (SMRAM_D_OPEN | SMRAM_G_SMRAME));
}

static void unlock_smram(struct q35_mch *m)
{
    m->pci.write_mask[MCH_SMRAM] = SMRAM_D_OPEN | SMRAM_D_CLS | SMRAM_D_LCK | SMRAM_G_SMRAME;
    m->pci.write_mask[MCH_ESMRAMC] = ESMRAMC_WRITABLE;
    le32_put(m->pci.write_mask + MCH_TSEGMB, 0xFFF00000);
}

static void update_ecam(struct q35_mch *m)
{
    uint64_t bar = le64_get(m->pci.config + MCH_PCIEXBAR);
    unsigned length = bar >> PCIEXBAR_LENGTH_SHIFT & 3;
    uint64_t bytes = 256 * MiB >> length, base = align_down(bits_get(bar, 35, 26) << 26, bytes);

    /* A reserved length decodes nothing; neither does address 0, where RAM is. */
    pci_bus_set_ecam(m->pci.bus, base, bytes, (bar & PCIEXBAR_ENABLE) && length != 3 && base != 0);
}

static void update_all(struct q35_mch *m)
{
    address_space_begin(&m->vm->memory);
    update_pam(m);
    update_smram(m);
    update_ecam(m);
    address_space_commit(&m->vm->memory);
}

static bool touches(unsigned offset, unsigned size, unsigned first, unsigned count)
{
    return offset < first + count && first < offset + size;
}

static void mch_config_written(void *ctx, unsigned offset, unsigned size)
{
    struct q35_mch *m = ctx;

    if (touches(offset, size, MCH_PCIEXBAR, 8))
        update_ecam(m);
    if (touches(offset, size, MCH_PAM0, 7))
        update_pam(m);
    if (touches(offset, size, MCH_SMRAM, 1))
        update_smram(m);
}

/* ---- life ---- */

static void define_registers(struct q35_mch *m)
{
    struct pci_function *f = &m->pci;
    uint64_t high = m->config.ram->bytes - m->low_bytes;
    uint64_t touud = high ? Q35_HIGH_RAM_BASE + high : m->low_bytes;
    uint64_t tom = align_up(m->config.ram->bytes, 64 * MiB) / (64 * MiB);
    uint32_t tolud = (uint32_t)(m->low_bytes / MiB) << 4;

    /* The host bridge is always enabled and never drives an interrupt pin
     * (5.1.3: IOAE 0, MAE and BME 1, read-only). */
    pci_register_define(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER,
                        PCI_COMMAND_SERR, 0);
    pci_register_define(f, PCI_CACHE_LINE_SIZE, 1, 0, 0, 0);
    pci_register_define(f, MCH_EPBAR, 4, 0, 0xFFFFF001, 0);
    pci_register_define(f, MCH_EPBAR + 4, 4, 0, 0xF, 0);
    pci_register_define(f, MCH_MCHBAR, 4, 0, 0xFFFFC001, 0);
    pci_register_define(f, MCH_MCHBAR + 4, 4, 0, 0xF, 0);
    pci_register_define(f, MCH_DEVEN, 4, 1, 0, 0); /* D0 and nothing else */
    pci_register_define(f, MCH_PCIEXBAR, 4, 0xE0000000, 0xFC000007, 0);
    pci_register_define(f, MCH_PCIEXBAR + 4, 4, 0, 0xF, 0);
    pci_register_define(f, MCH_DMIBAR, 4, 0, 0xFFFFF001, 0);
    pci_register_define(f, MCH_DMIBAR + 4, 4, 0, 0xF, 0);
    pci_register_define(f, MCH_PAM0, 1, 0, 0x30, 0);
    for (unsigned i = 1; i <= 6; i++)
        pci_register_define(f, MCH_PAM0 + i, 1, 0, PAM_NIBBLES, 0);
    pci_register_define(f, MCH_LAC, 1, 0, 0x81, 0);
    pci_register_define(f, MCH_REMAPBASE, 2, REMAP_UNUSED_BASE, 0x3FF, 0);
    pci_register_define(f, MCH_REMAPLIMIT, 2, 0, 0x3FF, 0);
    pci_register_define(f, MCH_SMRAM, 1, SMRAM_C_BASE_SEG, 0, 0);
    pci_register_define(f, MCH_ESMRAMC, 1, ESMRAMC_CACHE_BITS, 0, ESMRAMC_E_SMERR);
    pci_register_define(f, MCH_TOM, 2, (uint16_t)MIN(tom, 0x3FF), 0x3FF, 0);
    pci_register_define(f, MCH_TOUUD, 2, (uint16_t)MIN(touud / MiB, 0xFFFF), 0xFFFF, 0);
    pci_register_define(f, MCH_GBSM, 4, 0, 0xFFF00000, 0);
    pci_register_define(f, MCH_TSEGMB, 4, 0, 0xFFF00000, 0);
    pci_register_define(f, MCH_TOLUD, 2, (uint16_t)MIN(tolud, 0xFFF0), 0xFFF0, 0);
    pci_register_define(f, MCH_ERRSTS, 2, 0, 0, 0x1A03);
    pci_register_define(f, MCH_ERRCMD, 2, 0, 0x1A03, 0);
    pci_register_define(f, MCH_SMICMD, 2, 0, 0x0003, 0);
    pci_register_define(f, MCH_SKPD, 4, 0, 0xFFFFFFFF, 0);
    unlock_smram(m);
}

static void mch_reset(void *self)
{
    struct q35_mch *m = self;

    unlock_smram(m);
    pci_function_reset(&m->pci);
    update_all(m);
}

static int mch_after_load(void *self, unsigned version)
{
    struct q35_mch *m = self;

    unlock_smram(m); /* a lock of this machine's own must not hide the loaded bits */
    pci_function_restored(&m->pci);
    update_all(m);
    return 0;
}

static void remove_regions(struct q35_mch *m)
{
    struct region *single[] = {&m->low, &m->main, &m->high, &m->bios, &m->video};

    for (unsigned i = 0; i < ARRAY_SIZE(single); i++) {
        if (single[i]->as)
            region_remove(single[i]);
    }
    for (unsigned i = 0; i < PAM_SEGMENTS; i++) {
        if (m->pam[i].ram.as)
            region_remove(&m->pam[i].ram);
        if (m->pam[i].below.as)
            region_remove(&m->pam[i].below);
    }
}

static void mch_destroy(void *self)
{
    struct q35_mch *m = self;

    remove_regions(m);
    pci_function_destroy(&m->pci);
    free(m);
}

static const struct state_field mch_fields[] = {
    STATE_STRUCT(struct q35_mch, pci, &pci_function_state),
    STATE_END,
};

static const struct state_table mch_state = {
    .name = "q35-mch",
    .version = 1,
    .fields = mch_fields,
    .after_load = mch_after_load,
};

static const struct dev_type mch_type = {
    .name = "q35-mch",
    .reset = mch_reset,
    .destroy = mch_destroy,
    .state = &mch_state,
};

static int add_ram(struct q35_mch *m, struct region *r, const char *name, uint64_t base,
                   uint64_t size, uint64_t offset, int priority)
{
    *r = (struct region){
        .name = name,
        .base = base,
        .size = size,
        .priority = priority,
        .ram = m->config.ram,
        .ram_offset = offset,
    };
    return region_add(&m->vm->memory, r);
}

static int add_pam(struct q35_mch *m)
{
    const struct ram_block *bios = m->config.bios;
    int rc;

    for (unsigned i = 0; i < PAM_SEGMENTS; i++) {
        struct pam_segment *s = &m->pam[i];

        s->mch = m;
        s->base = PAM_BASE + i * 16 * KiB;
        s->size = i == 12 ? 64 * KiB : 16 * KiB;
        s->below = (struct region){
            .name = "pam-below",
            .base = s->base,
            .size = s->size,
            .priority = 2,
            .ops = &below_ops,
            .ctx = s,
        };
        /* Reads of the firmware stay memory, so that it can run from here
         * while it copies itself. */
        if (bios && s->base >= BIOS_BASE && bios->bytes >= HIGH_BASE - s->base) {
            s->below.ram = m->config.bios;
            s->below.ram_offset = bios->bytes - (HIGH_BASE - s->base);
            s->below.readonly = true;
        }
        rc = add_ram(m, &s->ram, "pam-ram", s->base, s->size, s->base, 2);
        if (rc == 0)
            rc = region_add(&m->vm->memory, &s->below);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int add_regions(struct q35_mch *m)
{
    const uint64_t bytes = m->config.ram->bytes;
    struct ram_block *bios = m->config.bios;
    int rc;

    rc = add_ram(m, &m->low, "ram-640k", 0, VIDEO_BASE, 0, 0);
    if (rc == 0 && m->low_bytes > HIGH_BASE)
        rc = add_ram(m, &m->main, "ram-low", HIGH_BASE, m->low_bytes - HIGH_BASE, HIGH_BASE, 0);
    if (rc == 0 && bytes > m->low_bytes)
        rc = add_ram(m, &m->high, "ram-high", Q35_HIGH_RAM_BASE, bytes - m->low_bytes, m->low_bytes,
                     0);
    if (rc == 0)
        rc = add_ram(m, &m->video, "smram", VIDEO_BASE, PAM_BASE - VIDEO_BASE, VIDEO_BASE, 2);
    if (rc == 0 && bios) {
        uint64_t alias = MIN(bios->bytes, HIGH_BASE - BIOS_BASE);

        m->bios = (struct region){
            .name = "bios-alias",
            .base = HIGH_BASE - alias,
            .size = alias,
            .priority = 1,
            .ram = bios,
            .ram_offset = bios->bytes - alias,
            .readonly = true,
        };
        rc = region_add(&m->vm->memory, &m->bios);
    }
    if (rc == 0)
        rc = add_pam(m);
    return rc;
}

struct q35_mch *q35_mch_create(struct vm *vm, struct pci_bus *bus,
                               const struct q35_mch_config *config, struct error *err)
{
    static const struct pci_identity identity = {
        .vendor = 0x8086,
        .device = 0x29C0,
        .subsystem_vendor = 0x1AF4,
        .subsystem = 0x1100,
        .class_code = 0x060000,
        .revision = 2,
    };
    struct q35_mch *m;

    if (config->ram->bytes < MiB) {
        error_set(err, -EINVAL, "a PC needs at least 1 MiB of memory");
        return NULL;
    }
    m = calloc(1, sizeof *m);
    if (!m) {
        error_set(err, -ENOMEM, "out of memory for the memory controller");
        return NULL;
    }
    m->vm = vm;
    m->config = *config;
    m->low_bytes = MIN(config->ram->bytes, Q35_LOW_RAM_END);
    if (pci_function_init(&m->pci, bus, PCI_DEVFN(0, 0), &identity, err) < 0) {
        free(m);
        return NULL;
    }
    m->pci.config_written = mch_config_written;
    m->pci.ctx = m;
    define_registers(m);
    address_space_begin(&vm->memory);
    if (add_regions(m) < 0) {
        remove_regions(m);
        address_space_commit(&vm->memory);
        error_set(err, -ENOMEM, "out of memory for the memory map");
        pci_function_destroy(&m->pci);
        free(m);
        return NULL;
    }
    update_all(m);
    address_space_commit(&vm->memory);
    vm_add_device(vm, &mch_type, "mch", m);
    return m;
}
