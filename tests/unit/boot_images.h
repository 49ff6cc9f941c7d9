/*
 * Kernel images made in memory, good ones, for tests to spoil.
 */
#ifndef TESTS_UNIT_BOOT_IMAGES_H
#define TESTS_UNIT_BOOT_IMAGES_H

#include <elf.h>

#include "base/base.h"

#define TEST_IMAGE_MAX 16384

struct test_image {
    uint8_t data[TEST_IMAGE_MAX];
    size_t bytes;
};

/* 4 KiB of payload bytes 90H, 16 MiB to unpack itself, protocol 2.15. */
static inline void make_bzimage(struct test_image *i, bool with_64_bit_entry)
{
    uint8_t *d = i->data;

    memset(i, 0, sizeof *i);
    i->bytes = 5 * 512 + 4096;
    memset(d + 5 * 512, 0x90, 4096);
    d[0x1f1] = 4;
    le32_put(d + 0x1f4, 4096 / 16);
    le16_put(d + 0x1fe, 0xaa55);
    d[0x200] = 0xeb;
    d[0x201] = 0x6a;
    le32_put(d + 0x202, 0x53726448);
    le16_put(d + 0x206, 0x20f);
    d[0x211] = 1;
    le32_put(d + 0x22c, 0x7fffffff); /* initrd_addr_max */
    le32_put(d + 0x230, 0x200000);   /* kernel_alignment */
    d[0x234] = 1;                    /* relocatable */
    le16_put(d + 0x236, with_64_bit_entry);
    le32_put(d + 0x238, 2047);      /* cmdline_size */
    le64_put(d + 0x258, 0x1000000); /* pref_address */
    le32_put(d + 0x260, 16 * MiB);  /* init_size */
}

/* One segment at 2 MiB with 4 KiB of zeros behind it, a note {Xen, 18}. */
static inline void make_pvh32(struct test_image *i)
{
    Elf32_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                    .e_type = ET_EXEC,
                    .e_machine = EM_386,
                    .e_version = 1,
                    .e_entry = 0x200100,
                    .e_phoff = sizeof h,
                    .e_ehsize = sizeof h,
                    .e_phentsize = sizeof(Elf32_Phdr),
                    .e_phnum = 2};
    Elf32_Phdr p[2] = {
        {.p_type = PT_LOAD,
         .p_offset = 0x100,
         .p_vaddr = 0xc0200100,
         .p_paddr = 0x200100,
         .p_filesz = 0x300,
         .p_memsz = 0x1300,
         .p_align = 4},
        {.p_type = PT_NOTE, .p_offset = 0x100, .p_filesz = 20, .p_memsz = 20, .p_align = 4}};

    memset(i, 0, sizeof *i);
    i->bytes = 0x400;
    memcpy(i->data, &h, sizeof h);
    memcpy(i->data + sizeof h, p, sizeof p);
    le32_put(i->data + 0x100, 4);
    le32_put(i->data + 0x104, 4);
    le32_put(i->data + 0x108, 18);
    memcpy(i->data + 0x10c, "Xen", 4);
    le32_put(i->data + 0x110, 0x200200);
    memset(i->data + 0x114, 0xcc, 0x400 - 0x114);
}

static inline void make_pvh64(struct test_image *i)
{
    Elf64_Ehdr h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                    .e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_version = 1,
                    .e_entry = 0x200100,
                    .e_phoff = sizeof h,
                    .e_ehsize = sizeof h,
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 2};
    Elf64_Phdr p[2] = {
        {.p_type = PT_LOAD,
         .p_offset = 0x100,
         .p_vaddr = 0xffffffff80200100,
         .p_paddr = 0x200100,
         .p_filesz = 0x300,
         .p_memsz = 0x1300,
         .p_align = 4},
        {.p_type = PT_NOTE, .p_offset = 0x100, .p_filesz = 44, .p_memsz = 44, .p_align = 4}};

    memset(i, 0, sizeof *i);
    i->bytes = 0x400;
    memcpy(i->data, &h, sizeof h);
    memcpy(i->data + sizeof h, p, sizeof p);
    /* Another owner's note first. */
    le32_put(i->data + 0x100, 4);
    le32_put(i->data + 0x104, 4);
    le32_put(i->data + 0x108, 18);
    memcpy(i->data + 0x10c, "GNU", 4);
    le32_put(i->data + 0x114, 4);
    le32_put(i->data + 0x118, 8);
    le32_put(i->data + 0x11c, 18);
    memcpy(i->data + 0x120, "Xen", 4);
    le64_put(i->data + 0x124, 0x200200);
    memset(i->data + 0x12c, 0xcc, 0x400 - 0x12c);
}

/* The ELF file of make_pvh32 with a Multiboot header instead of the note. */
static inline void make_multiboot_elf(struct test_image *i, uint32_t flags)
{
    make_pvh32(i);
    memset(i->data + 0x100, 0, 20);
    le32_put(i->data + 0x110, 0x1badb002);
    le32_put(i->data + 0x114, flags);
    le32_put(i->data + 0x118, -(0x1badb002 + flags));
}

/* Raw: the header at byte 64 of the file, which loads at 1 MiB from byte 32. */
static inline void make_multiboot_raw(struct test_image *i)
{
    const uint32_t flags = 0x10003;
    uint32_t header[] = {0x1badb002, flags,   -(0x1badb002 + flags), 0x100020, 0x100000, 0x100200,
                         0x101000,   0x100040};

    memset(i, 0, sizeof *i);
    i->bytes = 1024;
    memset(i->data, 0x11, i->bytes);
    memcpy(i->data + 64, header, sizeof header);
}

#endif
