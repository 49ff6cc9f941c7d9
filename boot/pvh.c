/*
 * ELF kernels with a PVH entry point: Xen's "x86/HVM direct boot ABI"
 * (docs/misc/pvh.pandoc) and struct hvm_start_info version 1
 * (xen/include/public/arch-x86/hvm/start_info.h).
 *
 * A 32- or 64-bit ELF file whose note Xen/18 holds the physical address of a
 * 32-bit entry point. EBX points to the start information.
 */
#include <errno.h>

#include "boot/elf.h"
#include "boot/loader.h"
#include "cpu/x86/vcpu.h"
#include "vm/vm.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define HVM_START_MAGIC 0x336ec578u

struct hvm_start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t nr_modules;
    uint64_t modlist_paddr;
    uint64_t cmdline_paddr;
    uint64_t rsdp_paddr;
    uint64_t memmap_paddr;
    uint32_t memmap_entries;
    uint32_t reserved;
};

struct hvm_modlist_entry {
    uint64_t paddr;
    uint64_t size;
    uint64_t cmdline_paddr;
    uint64_t reserved;
};

struct hvm_memmap_entry {
    uint64_t addr;
    uint64_t size;
    uint32_t type; /* as in the memory map: E820 types */
    uint32_t reserved;
};

_Static_assert(sizeof(struct hvm_start_info) == 56, "start information, version 1");
_Static_assert(sizeof(struct hvm_memmap_entry) == 24, "memory map entry");

static int pvh_entry(const struct image *i, struct elf *e, uint64_t *entry, struct error *err)
{
    int ret = elf_parse(i, e, err);

    if (ret)
        return ret;
    ret = elf_note_integer(i, e, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, entry, err);
    if (ret)
        return ret;
    if (*entry > UINT32_MAX || !elf_contains_physical(e, *entry))
        return error_set(err, -ENOEXEC,
                         "the kernel '%s' has a PVH entry point %llxH outside of "
                         "what it loads",
                         i->name, (unsigned long long)*entry);
    return 0;
}

static int pvh_probe(struct boot_kernel *k, struct error *err)
{
    struct elf e;
    uint64_t entry;
    int ret;

    if (!elf_is_elf(&k->image))
        return 0;
    ret = pvh_entry(&k->image, &e, &entry, err);
    if (ret == -ENOENT)
        return 0;
    return ret ? ret : 1;
}

/* The module goes as high as the kernel's first page tables reach: below
 * 4 GiB; Linux takes it from anywhere. */
static int put_module(struct boot_kernel *k, struct boot_target *t, uint64_t kernel_end,
                      struct hvm_start_info *info, struct error *err)
{
    const struct image *initrd = &k->module[0].image;
    struct hvm_modlist_entry module = {.size = initrd->bytes};
    int ret;

    if (!k->module_count)
        return 0;
    if (!memory_map_place_high(t->map, initrd->bytes, 4 * KiB, MAX(kernel_end, 1 * MiB), UINT32_MAX,
                               &module.paddr))
        return error_set(err, -ENOMEM,
                         "too little memory: the initrd '%s' has %llu MiB; give more "
                         "with --memory",
                         initrd->name, (unsigned long long)(align_up(initrd->bytes, MiB) / MiB));
    ret = image_load(initrd, 0, initrd->bytes, &t->vm->memory, module.paddr, err);
    if (ret)
        return ret;
    info->nr_modules = 1;
    return boot_info_put(t, &module, sizeof module, 8, &info->modlist_paddr, err);
}

static int pvh_load(struct boot_kernel *k, struct boot_target *t, struct error *err)
{
    struct hvm_start_info info = {
        .magic = HVM_START_MAGIC,
        .version = 1,
        .rsdp_paddr = t->rsdp,
        .memmap_entries = t->map->count,
    };
    struct hvm_memmap_entry map[MEMORY_MAP_MAX] = {0};
    struct elf e;
    uint64_t entry, end;
    gpa_t info_at;
    int ret;

    ret = pvh_entry(&k->image, &e, &entry, err);
    if (ret)
        return ret == -ENOENT
                   ? error_set(err, ret, "the kernel '%s' lost its PVH note", k->image.name)
                   : ret;
    ret = boot_load_elf(t, &k->image, &e, &end, err);
    if (ret)
        return ret;
    ret = boot_info_put(t, NULL, sizeof info, 8, &info_at, err);
    if (ret)
        return ret;
    for (unsigned n = 0; n < t->map->count; n++)
        map[n] = (struct hvm_memmap_entry){t->map->range[n].base, t->map->range[n].bytes,
                                           t->map->range[n].type, 0};
    ret = boot_info_put(t, map, t->map->count * sizeof map[0], 8, &info.memmap_paddr, err);
    if (ret)
        return ret;
    ret = boot_info_put(t, k->append, strlen(k->append) + 1, 8, &info.cmdline_paddr, err);
    if (ret)
        return ret;
    ret = put_module(k, t, end, &info, err);
    if (ret)
        return ret;
    boot_info_update(t, info_at, &info, sizeof info);

    boot_cpu_protected(t, (uint32_t)entry);
    t->cpu->s.reg[X86_RBX] = info_at;
    vlog(t->vm->log, BOOT, INFO, "PVH kernel %s, entry %llxH", k->image.name,
         (unsigned long long)entry);
    return 0;
}

const struct boot_loader pvh_loader = {
    .name = "PVH",
    .probe = pvh_probe,
    .load = pvh_load,
};
