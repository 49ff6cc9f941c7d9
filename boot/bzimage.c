/*
 * Linux/x86 kernels: "The Linux/x86 Boot Protocol" 2.x (the kernel's
 * Documentation/arch/x86/boot.rst) and "zero-page".
 *
 * The real-mode part of the file is not run: what it would ask the BIOS is in
 * the zero page. Kernels with a 64-bit entry point (XLF_KERNEL_64) are entered
 * there, 200H behind the load address, in 64-bit mode; all others at the load
 * address in protected mode. The zero page is at 90000H, which protocols 2.00
 * and 2.01 take for granted.
 */
#include <errno.h>

#include "boot/loader.h"
#include "cpu/x86/vcpu.h"
#include "vm/vm.h"

/* Offsets in the file and in the zero page alike. */
enum setup_header {
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP = 0x200, /* EB, length of what follows 202H */
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c,
    HDR_KERNEL_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_SETUP_DATA = 0x250,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_END = 0x290, /* the zero page has no room for a longer header */
};

enum zero_page {
    ZP_EXT_MEM_K = 0x02,
    ZP_VIDEO_MODE = 0x06,
    ZP_VIDEO_COLUMNS = 0x07,
    ZP_VIDEO_LINES = 0x0e,
    ZP_VIDEO_IS_VGA = 0x0f,
    ZP_VIDEO_POINTS = 0x10,
    ZP_OLD_CL_MAGIC = 0x20,
    ZP_OLD_CL_OFFSET = 0x22,
    ZP_ACPI_RSDP = 0x70,
    ZP_ALT_MEM_K = 0x1e0,
    ZP_E820_COUNT = 0x1e8,
    ZP_E820 = 0x2d0,
    ZP_BYTES = 0x1000,
};

enum {
    BOOT_FLAG = 0xaa55,
    LOADED_HIGH = 1 << 0,   /* loadflags */
    XLF_KERNEL_64 = 1 << 0, /* xloadflags */
    ENTRY_64 = 0x200,
    LOADER_UNDEFINED = 0xff,
    OLD_CL_MAGIC = 0xa33f,
    SETUP_RNG_SEED = 9,
    SECTOR = 512,
    E820_BYTES = 20,
};
#define HDR_MAGIC_VALUE 0x53726448u /* "HdrS" */
#define LOAD_ADDRESS (1 * MiB)
#define INITRD_MAX_BEFORE_2_03 0x37ffffffu
#define CMDLINE_MAX_BEFORE_2_06 255u

static int header_read(const struct image *i, uint8_t head[HDR_END], struct error *err)
{
    memset(head, 0, HDR_END);
    return image_read(i, 0, head, MIN((uint64_t)HDR_END, i->bytes), err);
}

static int bzimage_probe(struct boot_kernel *k, struct error *err)
{
    const struct image *i = &k->image;
    uint8_t head[HDR_END];
    uint64_t setup_bytes, payload, wanted;
    unsigned version;
    int ret;

    if (i->bytes < HDR_LOADER + 1)
        return 0;
    ret = header_read(i, head, err);
    if (ret)
        return ret;
    if (le16_get(head + HDR_BOOT_FLAG) != BOOT_FLAG ||
        le32_get(head + HDR_MAGIC) != HDR_MAGIC_VALUE)
        return 0;
    version = le16_get(head + HDR_VERSION);
    if (version < 0x200 || !(head[HDR_LOADFLAGS] & LOADED_HIGH))
        return error_set(err, -ENOEXEC,
                         "the kernel '%s' is a Linux zImage (boot protocol "
                         "%u.%02u, loaded low); build a bzImage",
                         i->name, version >> 8, version & 0xff);
    setup_bytes = ((head[HDR_SETUP_SECTS] ? head[HDR_SETUP_SECTS] : 4) + 1) * (uint64_t)SECTOR;
    wanted = version >= 0x204 ? le32_get(head + HDR_SYSSIZE) * 16ull : 16;
    payload = i->bytes > setup_bytes ? i->bytes - setup_bytes : 0;
    if (payload == 0 || payload + 15 < wanted)
        return error_set(err, -ENOEXEC,
                         "the Linux kernel '%s' is truncated: %llu bytes, its "
                         "header speaks of %llu; get it again",
                         i->name, (unsigned long long)i->bytes,
                         (unsigned long long)(setup_bytes + wanted));
    return 1;
}

/* What INT 10H would have told the kernel's own real-mode code. */
static void zero_page_screen(uint8_t *zp)
{
    zp[ZP_VIDEO_MODE] = 3;
    zp[ZP_VIDEO_COLUMNS] = 80;
    zp[ZP_VIDEO_LINES] = 25;
    zp[ZP_VIDEO_IS_VGA] = 1;
    le16_put(zp + ZP_VIDEO_POINTS, 16);
}

static void zero_page_memory(struct boot_target *t, uint8_t *zp)
{
    uint64_t extended = (memory_map_ram_end(t->map, 1 * MiB) - 1 * MiB) / KiB;

    for (unsigned n = 0; n < t->map->count; n++) {
        const struct memory_map_range *r = &t->map->range[n];
        uint8_t *e = zp + ZP_E820 + n * E820_BYTES;

        le64_put(e, r->base);
        le64_put(e + 8, r->bytes);
        le32_put(e + 16, r->type);
    }
    zp[ZP_E820_COUNT] = (uint8_t)t->map->count;
    le32_put(zp + ZP_ALT_MEM_K, (uint32_t)extended);
    le16_put(zp + ZP_EXT_MEM_K, (uint16_t)MIN(extended, 0xfc00u));
}

/* The kernel needs this much from its run-time start to unpack itself. */
static int place_kernel(struct boot_target *t, const struct image *i, const uint8_t *head,
                        uint64_t payload, uint64_t *end, struct error *err)
{
    unsigned version = le16_get(head + HDR_VERSION);
    uint64_t run = LOAD_ADDRESS;
    int ret = boot_check_place(t, "the kernel", LOAD_ADDRESS, payload, err);

    if (ret)
        return ret;
    *end = LOAD_ADDRESS + payload;
    if (version >= 0x20a) {
        uint64_t align = le32_get(head + HDR_KERNEL_ALIGNMENT);
        uint64_t preferred = le64_get(head + HDR_PREF_ADDRESS);
        uint64_t init_bytes = le32_get(head + HDR_INIT_SIZE);

        if (!align || (align & (align - 1)))
            return error_set(err, -ENOEXEC,
                             "the Linux kernel '%s' asks for an alignment of %llxH, "
                             "no power of two",
                             i->name, (unsigned long long)align);
        run = MAX(align_up(run, align), preferred);
        if (run > UINT32_MAX || !memory_map_is_ram(t->map, run, init_bytes))
            return error_set(err, -ENOMEM,
                             "too little memory: the kernel needs %llu MiB from "
                             "%llxH on; give more with --memory",
                             (unsigned long long)(align_up(init_bytes, MiB) / MiB),
                             (unsigned long long)run);
        *end = MAX(*end, run + init_bytes);
    }
    return 0;
}

static int load_initrd(struct boot_kernel *k, struct boot_target *t, const uint8_t *head,
                       uint8_t *zp, uint64_t kernel_end, struct error *err)
{
    const struct image *initrd = &k->module[0].image;
    uint64_t highest = le16_get(head + HDR_VERSION) >= 0x203 ? le32_get(head + HDR_INITRD_ADDR_MAX)
                                                             : INITRD_MAX_BEFORE_2_03;
    uint64_t base;
    int ret;

    if (!k->module_count)
        return 0;
    if (!memory_map_place_high(t->map, initrd->bytes, 4 * KiB, kernel_end, highest, &base))
        return error_set(err, -ENOMEM,
                         "too little memory: the initrd '%s' has %llu MiB and does "
                         "not fit behind the kernel, which ends at %llu MiB; give more with "
                         "--memory",
                         initrd->name, (unsigned long long)(align_up(initrd->bytes, MiB) / MiB),
                         (unsigned long long)(align_up(kernel_end, MiB) / MiB));
    ret = image_load(initrd, 0, initrd->bytes, &t->vm->memory, base, err);
    if (ret)
        return ret;
    le32_put(zp + HDR_RAMDISK_IMAGE, (uint32_t)base);
    le32_put(zp + HDR_RAMDISK_SIZE, (uint32_t)initrd->bytes);
    return 0;
}

/* struct setup_data {next, type, length} and 32 bytes for the kernel's pool. */
static int put_random_seed(struct boot_target *t, uint8_t *zp, struct error *err)
{
    uint8_t seed[16 + 32] = {0};
    gpa_t at;
    int ret;

    le32_put(seed + 8, SETUP_RNG_SEED);
    le32_put(seed + 12, 32);
    for (unsigned n = 16; n < sizeof seed; n += 8)
        le64_put(seed + n, vm_random(t->vm));
    ret = boot_info_put(t, seed, sizeof seed, 4 * KiB, &at, err);
    if (ret == 0)
        le64_put(zp + HDR_SETUP_DATA, at);
    return ret;
}

static int put_command_line(struct boot_kernel *k, struct boot_target *t, const uint8_t *head,
                            uint8_t *zp, struct error *err)
{
    unsigned version = le16_get(head + HDR_VERSION);
    uint64_t longest =
        version >= 0x206 ? le32_get(head + HDR_CMDLINE_SIZE) : CMDLINE_MAX_BEFORE_2_06;
    uint64_t length = strlen(k->append);
    gpa_t at;
    int ret;

    if (length > longest)
        return error_set(err, -E2BIG,
                         "the command line (--append) has %llu bytes, the kernel "
                         "takes %llu; shorten it",
                         (unsigned long long)length, (unsigned long long)longest);
    ret = boot_info_put(t, k->append, length + 1, 4 * KiB, &at, err);
    if (ret)
        return ret;
    if (version >= 0x202) {
        le32_put(zp + HDR_CMD_LINE_PTR, (uint32_t)at);
    } else {
        le16_put(zp + ZP_OLD_CL_MAGIC, OLD_CL_MAGIC);
        le16_put(zp + ZP_OLD_CL_OFFSET, (uint16_t)(at - BOOT_INFO));
    }
    return 0;
}

static int bzimage_load(struct boot_kernel *k, struct boot_target *t, struct error *err)
{
    const struct image *i = &k->image;
    uint8_t head[HDR_END], zp[ZP_BYTES] = {0};
    uint64_t setup_bytes, payload, kernel_end;
    unsigned version, header_end;
    gpa_t zp_at;
    int ret;

    ret = header_read(i, head, err);
    if (ret)
        return ret;
    setup_bytes = ((head[HDR_SETUP_SECTS] ? head[HDR_SETUP_SECTS] : 4) + 1) * (uint64_t)SECTOR;
    if (i->bytes <= setup_bytes) /* probed before, but the file may have changed */
        return error_set(err, -ENOEXEC, "the Linux kernel '%s' is truncated", i->name);
    payload = i->bytes - setup_bytes;
    version = le16_get(head + HDR_VERSION);

    header_end = MIN(HDR_MAGIC + head[HDR_JUMP + 1], HDR_END);
    memcpy(zp + HDR_SETUP_SECTS, head + HDR_SETUP_SECTS, header_end - HDR_SETUP_SECTS);
    zp[HDR_LOADER] = LOADER_UNDEFINED;
    le32_put(zp + HDR_CODE32_START, LOAD_ADDRESS);
    zero_page_memory(t, zp);
    if (t->text_screen)
        zero_page_screen(zp);
    if (version >= 0x20e)
        le64_put(zp + ZP_ACPI_RSDP, t->rsdp);

    ret = boot_info_put(t, NULL, ZP_BYTES, 4 * KiB, &zp_at, err);
    if (ret)
        return ret;
    ret = place_kernel(t, i, head, payload, &kernel_end, err);
    if (ret)
        return ret;
    ret = image_load(i, setup_bytes, payload, &t->vm->memory, LOAD_ADDRESS, err);
    if (ret)
        return ret;
    ret = load_initrd(k, t, head, zp, kernel_end, err);
    if (ret)
        return ret;
    ret = put_command_line(k, t, head, zp, err);
    if (ret)
        return ret;
    if (version >= 0x209) {
        ret = put_random_seed(t, zp, err);
        if (ret)
            return ret;
    }
    boot_info_update(t, zp_at, zp, sizeof zp);

    if (version >= 0x20c && (le16_get(head + HDR_XLOADFLAGS) & XLF_KERNEL_64) &&
        x86_model_has(t->cpu->model, X86_FEAT_LM))
        boot_cpu_long(t, LOAD_ADDRESS + ENTRY_64);
    else
        boot_cpu_protected(t, LOAD_ADDRESS);
    t->cpu->s.reg[X86_RSI] = zp_at;
    vlog(t->vm->log, BOOT, INFO, "Linux %s, boot protocol %u.%02u, %s entry", i->name, version >> 8,
         version & 0xff, x86_64bit_mode(&t->cpu->s) ? "64-bit" : "32-bit");
    return 0;
}

const struct boot_loader bzimage_loader = {
    .name = "Linux bzImage",
    .probe = bzimage_probe,
    .load = bzimage_load,
};
