/*
 * Direct boot: puts an operating system's kernel into memory and the first
 * processor at its entry point, without firmware.
 *
 * What a file is, is told by looking at it:
 *   Linux bzImage            boot protocol 2.x, 32- or 64-bit entry   bzimage.c
 *   Multiboot 1 (ELF32, raw) GNU Multiboot Specification 0.6.96       multiboot.c
 *   ELF with a PVH note      Xen x86/HVM direct boot ABI              pvh.c
 * in this order, because Xen is both Multiboot and PVH, and is meant to find
 * its dom0 in Multiboot modules.
 *
 * boot_kernel_load() is called at power-on and again after every reset, when
 * the board has done what firmware would have done (board/post.c).
 * Threading: no processor runs.
 */
#ifndef BOOT_KERNEL_H
#define BOOT_KERNEL_H

#include "base/error.h"
#include "boot/memory_map.h"

struct vm;
struct x86_vcpu;
struct boot_kernel;

struct boot_kernel_config {
    const char *kernel; /* path */
    /* One path; of a Multiboot kernel any number of modules, "FILE[ ARGUMENTS]". */
    const char *const *initrd;
    unsigned initrd_count;
    const char *append; /* command line or NULL */
};

/* What the board has to say to a kernel. */
struct boot_handoff {
    const struct memory_map *map;
    gpa_t rsdp;       /* 0: none */
    bool text_screen; /* a VGA shows 80 x 25 characters, the cursor at the top */
};

/* Opens the files and tells what they are. */
int boot_kernel_open(const struct boot_kernel_config *config, struct boot_kernel **kernel,
                     struct error *err);
void boot_kernel_close(struct boot_kernel *k);
/* "Linux bzImage", "Multiboot", "PVH". */
const char *boot_kernel_kind(const struct boot_kernel *k);
int boot_kernel_load(struct boot_kernel *k, struct vm *vm, struct x86_vcpu *cpu,
                     const struct boot_handoff *handoff, struct error *err);

#endif
