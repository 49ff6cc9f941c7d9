/*
 * Direct boot: tells what a kernel file is, opens what goes with it, and the
 * parts that the loaders share. See kernel.h and loader.h.
 */
#include "boot/kernel.h"

#include <errno.h>
#include <stdlib.h>

#include "boot/elf.h"
#include "boot/loader.h"
#include "cpu/x86/vcpu.h"
#include "vm/vm.h"

static const struct boot_loader *const loaders[] = {
    &bzimage_loader,
    &multiboot_loader,
    &pvh_loader,
};

static int unknown_format(const struct image *i, struct error *err)
{
    uint8_t head[6] = {0};

    image_read(i, 0, head, MIN(sizeof head, i->bytes), NULL);
    if (head[0] == 0x1f && head[1] == 0x8b)
        return error_set(err, -ENOEXEC,
                         "the kernel '%s' is compressed with gzip; unpack it first "
                         "(zcat)",
                         i->name);
    if (memcmp(head,
               "\xfd"
               "7zXZ",
               5) == 0)
        return error_set(err, -ENOEXEC,
                         "the kernel '%s' is compressed with xz; unpack it first "
                         "(xzcat)",
                         i->name);
    if (elf_is_elf(i))
        return error_set(err, -ENOEXEC,
                         "the kernel '%s' is an ELF file with neither a Multiboot "
                         "header nor a PVH note; use a bzImage, or a kernel built with CONFIG_PVH",
                         i->name);
    return error_set(err, -ENOEXEC,
                     "'%s' is no kernel: expected a Linux bzImage, a Multiboot "
                     "kernel or an ELF file with a PVH note",
                     i->name);
}

static int module_open(struct boot_kernel *k, const char *spec, struct error *err)
{
    bool list = k->loader->module_list;
    struct boot_module *m;
    char *path;
    int ret;

    if (k->module_count == BOOT_MAX_MODULES)
        return error_set(err, -E2BIG, "more than %d modules (--initrd)", BOOT_MAX_MODULES);
    if (k->module_count && !list)
        return error_set(err, -E2BIG, "a %s kernel takes one --initrd; join them (cat)",
                         k->loader->name);
    path = strdup(spec);
    if (!path)
        return error_set(err, -ENOMEM, "out of memory");
    if (list)
        path[strcspn(path, " ")] = '\0';
    m = &k->module[k->module_count];
    ret = image_open(&m->image, path, list ? "module" : "initrd", err);
    free(path);
    if (ret)
        return ret;
    m->arguments = strdup(spec);
    if (!m->arguments) {
        image_close(&m->image);
        return error_set(err, -ENOMEM, "out of memory");
    }
    k->module_count++;
    return 0;
}

int boot_kernel_open(const struct boot_kernel_config *config, struct boot_kernel **kernel,
                     struct error *err)
{
    struct boot_kernel *k = calloc(1, sizeof *k);
    int ret;

    if (!k)
        return error_set(err, -ENOMEM, "out of memory");
    k->image.fd = -1;
    k->append = strdup(config->append ? config->append : "");
    if (!k->append) {
        ret = error_set(err, -ENOMEM, "out of memory");
        goto fail;
    }
    ret = image_open(&k->image, config->kernel, "kernel", err);
    if (ret)
        goto fail;
    for (size_t n = 0; n < ARRAY_SIZE(loaders) && !k->loader; n++) {
        ret = loaders[n]->probe(k, err);
        if (ret < 0)
            goto fail;
        if (ret)
            k->loader = loaders[n];
    }
    if (!k->loader) {
        ret = unknown_format(&k->image, err);
        goto fail;
    }
    for (unsigned n = 0; n < config->initrd_count; n++) {
        ret = module_open(k, config->initrd[n], err);
        if (ret)
            goto fail;
    }
    *kernel = k;
    return 0;
fail:
    boot_kernel_close(k);
    return ret;
}

void boot_kernel_close(struct boot_kernel *k)
{
    if (!k)
        return;
    for (unsigned n = 0; n < k->module_count; n++) {
        image_close(&k->module[n].image);
        free(k->module[n].arguments);
    }
    image_close(&k->image);
    free(k->append);
    free(k);
}

const char *boot_kernel_kind(const struct boot_kernel *k)
{
    return k->loader->name;
}

int boot_kernel_load(struct boot_kernel *k, struct vm *vm, struct x86_vcpu *cpu,
                     const struct boot_handoff *handoff, struct error *err)
{
    struct boot_target t = {
        .vm = vm,
        .cpu = cpu,
        .map = handoff->map,
        .rsdp = handoff->rsdp,
        .text_screen = handoff->text_screen,
        .info_next = BOOT_INFO,
    };

    return k->loader->load(k, &t, err);
}

/* ---- what the loaders share ---- */

int boot_info_put(struct boot_target *t, const void *data, uint64_t bytes, uint64_t align,
                  gpa_t *at, struct error *err)
{
    uint64_t base = align_up(t->info_next, align);

    if (base > BOOT_INFO_END || bytes > BOOT_INFO_END - base)
        return error_set(err, -E2BIG,
                         "the command line and module arguments are too long: more "
                         "than %llu bytes",
                         (unsigned long long)(BOOT_INFO_END - BOOT_INFO));
    t->info_next = base + bytes;
    *at = base;
    if (data)
        boot_info_update(t, base, data, bytes);
    else
        return boot_zero(t, base, bytes, err);
    return 0;
}

void boot_info_update(struct boot_target *t, gpa_t at, const void *data, uint64_t bytes)
{
    as_write(&t->vm->memory, at, data, bytes);
}

static bool overlaps(uint64_t base, uint64_t bytes, uint64_t from, uint64_t end)
{
    return base < end && base + bytes > from;
}

int boot_check_place(const struct boot_target *t, const char *what, uint64_t base, uint64_t bytes,
                     struct error *err)
{
    if (!memory_map_is_ram(t->map, base, bytes))
        return error_set(err, -ENOMEM,
                         "too little memory: %s needs RAM from %llxH to %llxH; give "
                         "more with --memory",
                         what, (unsigned long long)base, (unsigned long long)(base + bytes - 1));
    if (overlaps(base, bytes, BOOT_GDT, BOOT_TABLES_END) ||
        overlaps(base, bytes, BOOT_INFO, BOOT_INFO_END))
        return error_set(err, -EINVAL,
                         "%s wants to be at %llxH, where the boot information is; "
                         "link it elsewhere, for example at 100000H",
                         what, (unsigned long long)base);
    return 0;
}

int boot_zero(struct boot_target *t, uint64_t base, uint64_t bytes, struct error *err)
{
    /* Through host pointers, where pages that were never touched stay so. */
    while (bytes) {
        uint64_t run = bytes, offset, done = 0;
        struct ram_block *block;
        uint8_t *p = as_map(&t->vm->memory, base, &run, true, &block, &offset);

        if (!p || !run)
            return error_set(err, -EFAULT, "no RAM at %llxH", (unsigned long long)base);
        while (done < run) {
            uint64_t n = MIN(run - done, 4 * KiB - ((uintptr_t)(p + done) & (4 * KiB - 1)));
            static const uint8_t zeros[4096];

            if (memcmp(p + done, zeros, n) != 0)
                memset(p + done, 0, n);
            done += n;
        }
        ram_block_written(block, offset, run);
        base += run;
        bytes -= run;
    }
    return 0;
}

int boot_load_elf(struct boot_target *t, const struct image *i, const struct elf *e, uint64_t *end,
                  struct error *err)
{
    *end = 0;
    for (unsigned n = 0; n < e->load_count; n++) {
        const struct elf_segment *s = &e->load[n];
        int ret = boot_check_place(t, "the kernel", s->paddr, s->mem_bytes, err);

        if (ret)
            return ret;
        ret = image_load(i, s->offset, s->file_bytes, &t->vm->memory, s->paddr, err);
        if (ret)
            return ret;
        ret = boot_zero(t, s->paddr + s->file_bytes, s->mem_bytes - s->file_bytes, err);
        if (ret)
            return ret;
        *end = MAX(*end, s->paddr + s->mem_bytes);
    }
    return 0;
}

int boot_load_modules(struct boot_kernel *k, struct boot_target *t, uint64_t next,
                      uint64_t base[BOOT_MAX_MODULES], struct error *err)
{
    next = MAX(next, 1 * MiB);
    for (unsigned n = 0; n < k->module_count; n++) {
        const struct image *m = &k->module[n].image;
        int ret;

        next = align_up(next, 4 * KiB);
        ret = boot_check_place(t, "a module", next, m->bytes, err);
        if (ret)
            return ret;
        ret = image_load(m, 0, m->bytes, &t->vm->memory, next, err);
        if (ret)
            return ret;
        base[n] = next;
        next += m->bytes;
    }
    return 0;
}
