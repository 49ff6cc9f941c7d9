/*
 * Multiboot 1 kernels: GNU "Multiboot Specification" 0.6.96, section 3.
 *
 * A header with a magic number within the first 8 KiB says what the kernel
 * needs: raw load addresses (flag 16), or else the file is an ELF32. Flags 0
 * to 15 are demands, and a demand that cannot be met is a refusal: modules on
 * page boundaries (0) and memory information (1) are always given; a video
 * mode (2) never, because this machine has no display.
 *
 * The command line starts with the kernel's name, as boot loaders do it for
 * Multiboot 1, where kernels skip the first word.
 */
#include <errno.h>
#include <stdio.h>

#include "boot/elf.h"
#include "boot/loader.h"
#include "cpu/x86/vcpu.h"
#include "vm/vm.h"

#define MB_HEADER_MAGIC 0x1badb002u
#define MB_BOOT_MAGIC 0x2badb002u
#define MB_SEARCH (8 * KiB)

enum mb_header_flags {
    MB_PAGE_ALIGN = 1 << 0,
    MB_MEMORY_INFO = 1 << 1,
    MB_VIDEO_MODE = 1 << 2,
    MB_DEMANDS = 0xffff,
    MB_ADDRESSES = 1 << 16,
};

struct mb_header {
    uint32_t magic, flags, checksum;
    /* with MB_ADDRESSES */
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

enum mb_info_flags {
    MB_INFO_MEMORY = 1 << 0,
    MB_INFO_CMDLINE = 1 << 2,
    MB_INFO_MODULES = 1 << 3,
    MB_INFO_MMAP = 1 << 6,
    MB_INFO_LOADER_NAME = 1 << 9,
};

struct mb_info {
    uint32_t flags;
    uint32_t mem_lower, mem_upper; /* KiB from 0 and from 1 MiB */
    uint32_t boot_device;
    uint32_t cmdline;
    uint32_t mods_count, mods_addr;
    uint32_t syms[4];
    uint32_t mmap_length, mmap_addr;
    uint32_t drives_length, drives_addr;
    uint32_t config_table;
    uint32_t boot_loader_name;
    uint32_t apm_table;
    uint32_t vbe[4];
    uint32_t framebuffer[7]; /* zero: none */
};

struct mb_module {
    uint32_t start, end; /* end is behind the last byte */
    uint32_t string;
    uint32_t reserved;
};

struct mb_mmap {
    uint32_t size; /* of the rest */
    uint64_t base;
    uint64_t bytes;
    uint32_t type;
} __attribute__((packed));

_Static_assert(sizeof(struct mb_info) == 116, "Multiboot information");
_Static_assert(sizeof(struct mb_mmap) == 24, "memory map entry");

/* What is to be loaded: one raw piece, or an ELF file. */
struct mb_plan {
    bool raw;
    struct elf elf;
    uint64_t offset, file_bytes, load, mem_bytes;
    uint64_t entry;
};

/* Is there a header; where? */
static int header_find(const struct image *i, struct mb_header *h, uint64_t *at, struct error *err)
{
    uint8_t buf[MB_SEARCH];
    uint64_t bytes = MIN(MB_SEARCH, i->bytes);
    int ret = image_read(i, 0, buf, bytes, err);

    if (ret)
        return ret;
    for (uint64_t n = 0; n + 12 <= bytes; n += 4) {
        memset(h, 0, sizeof *h);
        memcpy(h, buf + n, 12);
        if (h->magic != MB_HEADER_MAGIC || h->magic + h->flags + h->checksum != 0)
            continue;
        if (h->flags & MB_ADDRESSES) {
            if (n + sizeof *h > bytes)
                continue; /* the header has to be within the 8 KiB as a whole */
            memcpy(h, buf + n, sizeof *h);
        }
        *at = n;
        return 1;
    }
    return 0;
}

static int raw_plan(const struct image *i, const struct mb_header *h, uint64_t at,
                    struct mb_plan *p, struct error *err)
{
    uint64_t before = (uint64_t)h->header_addr - h->load_addr;

    if (h->header_addr < h->load_addr || before > at)
        return error_set(err, -ENOEXEC,
                         "the Multiboot kernel '%s' has header address %xH, load "
                         "address %xH and its header at byte %llu, which do not fit together",
                         i->name, h->header_addr, h->load_addr, (unsigned long long)at);
    p->raw = true;
    p->offset = at - before;
    p->load = h->load_addr;
    p->file_bytes = i->bytes - p->offset;
    if (h->load_end_addr) {
        uint64_t wanted = (uint64_t)h->load_end_addr - h->load_addr;

        if (h->load_end_addr <= h->load_addr || wanted > p->file_bytes)
            return error_set(err, -ENOEXEC,
                             "the Multiboot kernel '%s' is truncated or wrong: it "
                             "loads %xH to %xH, the file has %llu bytes of it",
                             i->name, h->load_addr, h->load_end_addr,
                             (unsigned long long)p->file_bytes);
        p->file_bytes = wanted;
    }
    p->mem_bytes = p->file_bytes;
    if (h->bss_end_addr) {
        if (h->bss_end_addr < p->load + p->file_bytes)
            return error_set(err, -ENOEXEC,
                             "the Multiboot kernel '%s' ends its bss (%xH) before "
                             "its data",
                             i->name, h->bss_end_addr);
        p->mem_bytes = h->bss_end_addr - p->load;
    }
    p->entry = h->entry_addr;
    if (p->entry < p->load || p->entry - p->load >= p->mem_bytes)
        return error_set(err, -ENOEXEC,
                         "the Multiboot kernel '%s' has its entry point %xH outside "
                         "of what it loads",
                         i->name, h->entry_addr);
    return 0;
}

static int elf_plan(const struct image *i, struct mb_plan *p, struct error *err)
{
    int ret = elf_parse(i, &p->elf, err);

    if (ret)
        return ret;
    /* The entry point is jumped to without paging. Kernels linked high give
     * either address. */
    if (elf_contains_physical(&p->elf, p->elf.entry))
        p->entry = p->elf.entry;
    else if (!elf_physical(&p->elf, p->elf.entry, &p->entry))
        return error_set(err, -ENOEXEC,
                         "the Multiboot kernel '%s' has its entry point %llxH "
                         "outside of what it loads",
                         i->name, (unsigned long long)p->elf.entry);
    if (p->entry > UINT32_MAX)
        return error_set(err, -ENOEXEC,
                         "the Multiboot kernel '%s' has its entry point above "
                         "4 GiB",
                         i->name);
    return 0;
}

/* 1: a plan was made; 0: no Multiboot kernel. */
static int plan(const struct image *i, struct mb_plan *p, struct error *err)
{
    struct mb_header h;
    uint64_t at, pvh_entry;
    uint8_t ident[5] = {0};
    int ret;

    memset(p, 0, sizeof *p);
    ret = header_find(i, &h, &at, err);
    if (ret <= 0)
        return ret;
    if (h.flags & MB_DEMANDS & MB_VIDEO_MODE)
        return error_set(err, -ENOTSUP,
                         "the Multiboot kernel '%s' demands a video mode (header "
                         "flag 2), and this machine has no display; build it without",
                         i->name);
    if (h.flags & MB_DEMANDS & ~(MB_PAGE_ALIGN | MB_MEMORY_INFO))
        return error_set(err, -ENOTSUP,
                         "the Multiboot kernel '%s' demands what Multiboot 1 does "
                         "not define (header flags %xH)",
                         i->name, h.flags);
    if (h.flags & MB_ADDRESSES) {
        ret = raw_plan(i, &h, at, p, err);
        return ret ? ret : 1;
    }
    image_read(i, 0, ident, MIN(sizeof ident, i->bytes), NULL);
    if (!elf_is_elf(i))
        return error_set(err, -ENOEXEC,
                         "the Multiboot kernel '%s' is neither ELF nor gives load "
                         "addresses (header flag 16)",
                         i->name);
    if (ident[4] == 2) { /* ELFCLASS64 */
        if (elf_parse(i, &p->elf, NULL) == 0 &&
            elf_note_integer(i, &p->elf, "Xen", 18, &pvh_entry, NULL) == 0)
            return 0; /* bootable another way */
        return error_set(err, -ENOTSUP,
                         "the Multiboot kernel '%s' is a 64-bit ELF file, and "
                         "Multiboot 1 knows 32-bit ones; convert it (objcopy -O elf32-i386)",
                         i->name);
    }
    ret = elf_plan(i, p, err);
    return ret ? ret : 1;
}

static int multiboot_probe(struct boot_kernel *k, struct error *err)
{
    struct mb_plan p;

    return plan(&k->image, &p, err);
}

static int put_string(struct boot_target *t, const char *first, const char *rest, uint32_t *to,
                      struct error *err)
{
    char joined[8192];
    int n = snprintf(joined, sizeof joined, "%s%s%s", first, *rest ? " " : "", rest);
    gpa_t at;
    int ret;

    if (n < 0 || (size_t)n >= sizeof joined)
        return error_set(err, -E2BIG, "the command line (--append) is longer than %zu bytes",
                         sizeof joined - 1);
    ret = boot_info_put(t, joined, (uint64_t)n + 1, 4, &at, err);
    *to = (uint32_t)at;
    return ret;
}

static int put_modules(struct boot_kernel *k, struct boot_target *t, uint64_t kernel_end,
                       struct mb_info *info, struct error *err)
{
    struct mb_module list[BOOT_MAX_MODULES] = {0};
    uint64_t base[BOOT_MAX_MODULES];
    gpa_t at;
    int ret;

    if (!k->module_count)
        return 0;
    ret = boot_load_modules(k, t, kernel_end, base, err);
    if (ret)
        return ret;
    for (unsigned n = 0; n < k->module_count; n++) {
        const struct boot_module *m = &k->module[n];

        list[n].start = (uint32_t)base[n];
        list[n].end = (uint32_t)(base[n] + m->image.bytes);
        ret = put_string(t, m->arguments, "", &list[n].string, err);
        if (ret)
            return ret;
    }
    ret = boot_info_put(t, list, k->module_count * sizeof list[0], 4, &at, err);
    info->mods_count = k->module_count;
    info->mods_addr = (uint32_t)at;
    info->flags |= MB_INFO_MODULES;
    return ret;
}

static int put_memory(struct boot_target *t, struct mb_info *info, struct error *err)
{
    struct mb_mmap map[MEMORY_MAP_MAX];
    gpa_t at;
    int ret;

    for (unsigned n = 0; n < t->map->count; n++)
        map[n] = (struct mb_mmap){sizeof map[0] - 4, t->map->range[n].base, t->map->range[n].bytes,
                                  t->map->range[n].type};
    info->mem_lower = (uint32_t)(memory_map_ram_end(t->map, 0) / KiB);
    info->mem_upper = (uint32_t)((memory_map_ram_end(t->map, 1 * MiB) - 1 * MiB) / KiB);
    ret = boot_info_put(t, map, t->map->count * sizeof map[0], 4, &at, err);
    info->mmap_addr = (uint32_t)at;
    info->mmap_length = (uint32_t)(t->map->count * sizeof map[0]);
    info->flags |= MB_INFO_MEMORY | MB_INFO_MMAP;
    return ret;
}

static int load_kernel(struct boot_target *t, const struct image *i, const struct mb_plan *p,
                       uint64_t *end, struct error *err)
{
    int ret;

    if (!p->raw)
        return boot_load_elf(t, i, &p->elf, end, err);
    ret = boot_check_place(t, "the kernel", p->load, p->mem_bytes, err);
    if (ret)
        return ret;
    ret = image_load(i, p->offset, p->file_bytes, &t->vm->memory, p->load, err);
    if (ret)
        return ret;
    *end = p->load + p->mem_bytes;
    return boot_zero(t, p->load + p->file_bytes, p->mem_bytes - p->file_bytes, err);
}

static int multiboot_load(struct boot_kernel *k, struct boot_target *t, struct error *err)
{
    struct mb_info info = {0};
    struct mb_plan p;
    uint64_t end;
    gpa_t info_at;
    int ret;

    ret = plan(&k->image, &p, err);
    if (ret <= 0)
        return ret ? ret
                   : error_set(err, -ENOEXEC, "the kernel '%s' lost its Multiboot header",
                               k->image.name);
    ret = load_kernel(t, &k->image, &p, &end, err);
    if (ret)
        return ret;
    ret = boot_info_put(t, NULL, sizeof info, 8, &info_at, err);
    if (ret)
        return ret;
    ret = put_memory(t, &info, err);
    if (ret)
        return ret;
    ret = put_string(t, k->image.name, k->append, &info.cmdline, err);
    if (ret)
        return ret;
    ret = put_string(t, "Vireo", "", &info.boot_loader_name, err);
    if (ret)
        return ret;
    info.flags |= MB_INFO_CMDLINE | MB_INFO_LOADER_NAME;
    ret = put_modules(k, t, end, &info, err);
    if (ret)
        return ret;
    boot_info_update(t, info_at, &info, sizeof info);

    boot_cpu_protected(t, (uint32_t)p.entry);
    t->cpu->s.reg[X86_RAX] = MB_BOOT_MAGIC;
    t->cpu->s.reg[X86_RBX] = info_at;
    vlog(t->vm->log, BOOT, INFO, "Multiboot kernel %s, entry %llxH, %u modules", k->image.name,
         (unsigned long long)p.entry, k->module_count);
    return 0;
}

const struct boot_loader multiboot_loader = {
    .name = "Multiboot",
    .probe = multiboot_probe,
    .load = multiboot_load,
    .module_list = true,
};
