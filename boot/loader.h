/*
 * Between boot/kernel.c and the loaders of one format each.
 *
 * Low memory while a kernel is started; all of it is RAM in the memory map,
 * and a kernel that keeps something from there copies it first:
 *
 *     00001000  GDT
 *     00002000  page tables for a 64-bit entry: 4 GiB, one to one
 *     00008000  free: a kernel may be loaded there
 *     00090000  information for the kernel: zero page or start info or
 *               Multiboot information, memory map, modules, command line
 *     0009C000  free (Linux puts its 5-level paging trampoline below the EBDA)
 *     0009FC00  EBDA (board/post.c)
 *     00100000  kernel
 *       ...     initrd: as high as the kernel allows; modules: behind it
 */
#ifndef BOOT_LOADER_H
#define BOOT_LOADER_H

#include "boot/image.h"
#include "boot/kernel.h"

#define BOOT_GDT 0x1000ull
#define BOOT_PAGE_TABLES 0x2000ull
#define BOOT_TABLES_END 0x8000ull
#define BOOT_INFO 0x90000ull
#define BOOT_INFO_END 0x9c000ull

#define BOOT_MAX_MODULES 32

struct boot_target;

struct boot_loader {
    const char *name;
    /* 1: mine; 0: not mine; negative: mine, but not sound. Nothing of it may
     * be kept but what is in struct boot_kernel. */
    int (*probe)(struct boot_kernel *k, struct error *err);
    int (*load)(struct boot_kernel *k, struct boot_target *t, struct error *err);
    bool module_list; /* takes any number of modules, with arguments */
};

struct boot_module {
    struct image image;
    char *arguments; /* "FILE ARGUMENTS" as the user gave it */
};

struct boot_kernel {
    const struct boot_loader *loader;
    struct image image;
    char *append; /* never NULL */
    struct boot_module module[BOOT_MAX_MODULES];
    unsigned module_count;
};

/* One load. */
struct boot_target {
    struct vm *vm;
    struct x86_vcpu *cpu;
    const struct memory_map *map;
    gpa_t rsdp;
    bool text_screen;
    gpa_t info_next; /* first free byte of the information area */
};

extern const struct boot_loader bzimage_loader, multiboot_loader, pvh_loader;

/* Places bytes (zeros if data is NULL) in the information area. */
int boot_info_put(struct boot_target *t, const void *data, uint64_t bytes, uint64_t align,
                  gpa_t *at, struct error *err);
/* Rewrites what boot_info_put placed; never fails (it is RAM). */
void boot_info_update(struct boot_target *t, gpa_t at, const void *data, uint64_t bytes);

/* May a kernel's bytes go there: free RAM that is not the loader's own? */
int boot_check_place(const struct boot_target *t, const char *what, uint64_t base, uint64_t bytes,
                     struct error *err);
/* The segments of an ELF file to their physical addresses, rest zeroed; *end:
 * behind the highest. */
struct elf;
int boot_load_elf(struct boot_target *t, const struct image *i, const struct elf *e, uint64_t *end,
                  struct error *err);
int boot_zero(struct boot_target *t, uint64_t base, uint64_t bytes, struct error *err);

/* All modules page-aligned from *next on, upwards; bases are filled. */
int boot_load_modules(struct boot_kernel *k, struct boot_target *t, uint64_t next,
                      uint64_t base[BOOT_MAX_MODULES], struct error *err);

/* ---- the first processor (boot_cpu.c) ---- */

/* Protected mode, paging off, flat 4 GiB segments, interrupts off; general
 * registers zero. CS 10H, data segments 18H, TR a busy 32-bit TSS. */
void boot_cpu_protected(struct boot_target *t, uint32_t entry);
/* 64-bit mode with 4 GiB mapped one to one. */
void boot_cpu_long(struct boot_target *t, uint64_t entry);

#endif
