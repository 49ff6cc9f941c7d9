/*
 * ELF executables for x86 (System V ABI, "Object Files"; i386 and x86-64
 * supplements): program headers and notes, checked against the file.
 */
#ifndef BOOT_ELF_H
#define BOOT_ELF_H

#include "boot/image.h"

#define ELF_MAX_SEGMENTS 64

struct elf_segment {
    uint64_t offset; /* in the file; [offset, offset+file_bytes) is inside it */
    uint64_t paddr, vaddr;
    uint64_t file_bytes, mem_bytes; /* file_bytes <= mem_bytes; no wrap */
    uint64_t align;
};

struct elf {
    bool is64;
    uint64_t entry;
    struct elf_segment load[ELF_MAX_SEGMENTS]; /* PT_LOAD, empty ones left out */
    unsigned load_count;
    struct elf_segment note[ELF_MAX_SEGMENTS]; /* PT_NOTE */
    unsigned note_count;
};

bool elf_is_elf(const struct image *i);
/* -EINVAL with a message for everything that is no sound x86 executable. */
int elf_parse(const struct image *i, struct elf *e, struct error *err);
/* The integer (4 or 8 bytes) in note {owner, type}; -ENOENT without message
 * when there is no such note, -EINVAL when notes are malformed. */
int elf_note_integer(const struct image *i, const struct elf *e, const char *owner, uint32_t type,
                     uint64_t *value, struct error *err);
/* The physical address of a virtual one within a loaded segment; false: none. */
bool elf_physical(const struct elf *e, uint64_t vaddr, uint64_t *paddr);
bool elf_contains_physical(const struct elf *e, uint64_t paddr);

#endif
