/*
 * ELF executables for x86; see elf.h. The file is hostile: every offset and
 * size is checked against the file and against wrapping.
 */
#include "boot/elf.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>

#define ELF_MAX_NOTE_BYTES (1 * MiB)

bool elf_is_elf(const struct image *i)
{
    uint8_t magic[SELFMAG];

    return i->bytes >= sizeof magic && image_read(i, 0, magic, sizeof magic, NULL) == 0 &&
           memcmp(magic, ELFMAG, SELFMAG) == 0;
}

static int segment_check(const struct image *i, const struct elf_segment *s, unsigned n,
                         struct error *err)
{
    if (s->file_bytes > s->mem_bytes)
        return error_set(err, -EINVAL,
                         "ELF file '%s': segment %u is larger in the file than in "
                         "memory",
                         i->name, n);
    if (s->offset > i->bytes || s->file_bytes > i->bytes - s->offset)
        return error_set(err, -EINVAL, "ELF file '%s' is truncated: segment %u ends after the file",
                         i->name, n);
    if (s->mem_bytes &&
        (s->paddr + (s->mem_bytes - 1) < s->paddr || s->vaddr + (s->mem_bytes - 1) < s->vaddr))
        return error_set(err, -EINVAL, "ELF file '%s': segment %u wraps around the address space",
                         i->name, n);
    return 0;
}

/* Headers of both classes have the same fields in different widths. */
struct elf_header {
    uint16_t type, machine, phentsize, phnum;
    uint64_t entry, phoff;
};

static int header_read(const struct image *i, bool *is64, struct elf_header *h, struct error *err)
{
    union {
        uint8_t ident[EI_NIDENT];
        Elf32_Ehdr e32;
        Elf64_Ehdr e64;
    } u;
    size_t header_bytes;
    int ret;

    memset(&u, 0, sizeof u);
    ret = image_read(i, 0, u.ident, EI_NIDENT, err);
    if (ret)
        return ret;
    if (memcmp(u.ident, ELFMAG, SELFMAG) != 0)
        return error_set(err, -EINVAL, "'%s' is no ELF file", i->name);
    if (u.ident[EI_DATA] != ELFDATA2LSB ||
        (u.ident[EI_CLASS] != ELFCLASS32 && u.ident[EI_CLASS] != ELFCLASS64))
        return error_set(err, -EINVAL,
                         "ELF file '%s' is not for a little-endian 32- or 64-bit "
                         "processor; it needs to be built for x86",
                         i->name);
    *is64 = u.ident[EI_CLASS] == ELFCLASS64;
    header_bytes = *is64 ? sizeof u.e64 : sizeof u.e32;
    ret = image_read(i, 0, &u, header_bytes, err);
    if (ret)
        return ret;
    if (*is64)
        *h = (struct elf_header){u.e64.e_type,  u.e64.e_machine, u.e64.e_phentsize,
                                 u.e64.e_phnum, u.e64.e_entry,   u.e64.e_phoff};
    else
        *h = (struct elf_header){u.e32.e_type,  u.e32.e_machine, u.e32.e_phentsize,
                                 u.e32.e_phnum, u.e32.e_entry,   u.e32.e_phoff};
    if (h->machine != (*is64 ? EM_X86_64 : EM_386))
        return error_set(err, -EINVAL,
                         "ELF file '%s' is for another processor (machine %u); it "
                         "needs to be built for x86",
                         i->name, h->machine);
    if (h->type != ET_EXEC && h->type != ET_DYN)
        return error_set(err, -EINVAL, "ELF file '%s' is no executable (type %u); link it first",
                         i->name, h->type);
    if (h->phentsize != (*is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) || h->phnum == 0 ||
        h->phnum > ELF_MAX_SEGMENTS)
        return error_set(err, -EINVAL,
                         "ELF file '%s' has %u program headers of %u bytes; expected "
                         "1 to %u of %u",
                         i->name, h->phnum, h->phentsize, ELF_MAX_SEGMENTS,
                         (unsigned)(*is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)));
    return 0;
}

int elf_parse(const struct image *i, struct elf *e, struct error *err)
{
    struct elf_header h = {0};
    int ret;

    memset(e, 0, sizeof *e);
    ret = header_read(i, &e->is64, &h, err);
    if (ret)
        return ret;
    e->entry = h.entry;
    if (h.phoff > i->bytes)
        return error_set(err, -EINVAL,
                         "ELF file '%s' is truncated: its program headers lie after "
                         "its end",
                         i->name);
    for (unsigned n = 0; n < h.phnum; n++) {
        union {
            Elf32_Phdr p32;
            Elf64_Phdr p64;
        } u;
        struct elf_segment s;
        uint32_t type;

        ret = image_read(i, h.phoff + (uint64_t)n * h.phentsize, &u, h.phentsize, err);
        if (ret)
            return ret;
        if (e->is64) {
            type = u.p64.p_type;
            s = (struct elf_segment){u.p64.p_offset, u.p64.p_paddr, u.p64.p_vaddr,
                                     u.p64.p_filesz, u.p64.p_memsz, u.p64.p_align};
        } else {
            type = u.p32.p_type;
            s = (struct elf_segment){u.p32.p_offset, u.p32.p_paddr, u.p32.p_vaddr,
                                     u.p32.p_filesz, u.p32.p_memsz, u.p32.p_align};
        }
        if (type == PT_LOAD) {
            ret = segment_check(i, &s, n, err);
            if (ret)
                return ret;
            if (s.mem_bytes)
                e->load[e->load_count++] = s;
        } else if (type == PT_NOTE && s.file_bytes) {
            s.mem_bytes = s.file_bytes; /* some linkers leave it zero */
            s.paddr = s.vaddr = 0;
            ret = segment_check(i, &s, n, err);
            if (ret)
                return ret;
            e->note[e->note_count++] = s;
        }
    }
    if (!e->load_count)
        return error_set(err, -EINVAL, "ELF file '%s' has nothing to load", i->name);
    return 0;
}

int elf_note_integer(const struct image *i, const struct elf *e, const char *owner, uint32_t type,
                     uint64_t *value, struct error *err)
{
    size_t owner_bytes = strlen(owner) + 1;

    for (unsigned n = 0; n < e->note_count; n++) {
        const struct elf_segment *s = &e->note[n];
        /* gABI: notes are aligned to 4; some producers use 8 in ELF64. */
        uint64_t align = s->align == 8 ? 8 : 4;
        uint8_t *buf;
        uint64_t at = 0;
        int ret;

        if (s->file_bytes > ELF_MAX_NOTE_BYTES)
            continue;
        buf = malloc(s->file_bytes);
        if (!buf)
            return error_set(err, -ENOMEM, "out of memory while '%s' was read", i->name);
        ret = image_read(i, s->offset, buf, s->file_bytes, err);
        if (ret) {
            free(buf);
            return ret;
        }
        while (s->file_bytes - at >= sizeof(Elf32_Nhdr)) {
            uint64_t name_bytes = le32_get(buf + at), desc_bytes = le32_get(buf + at + 4);
            uint32_t note_type = le32_get(buf + at + 8);
            uint64_t name_at = at + sizeof(Elf32_Nhdr);
            uint64_t desc_at = align_up(name_at + name_bytes, align);

            if (desc_at > s->file_bytes || desc_bytes > s->file_bytes - desc_at)
                break;
            if (note_type == type && name_bytes == owner_bytes &&
                memcmp(buf + name_at, owner, owner_bytes) == 0) {
                bool sound = desc_bytes == 4 || desc_bytes == 8;

                if (sound)
                    *value = le_get(buf + desc_at, (unsigned)desc_bytes);
                free(buf);
                return sound ? 0
                             : error_set(err, -EINVAL,
                                         "ELF file '%s': note %s/%u has %llu bytes, "
                                         "not 4 or 8",
                                         i->name, owner, type, (unsigned long long)desc_bytes);
            }
            at = align_up(desc_at + desc_bytes, align);
            if (at > s->file_bytes)
                break;
        }
        free(buf);
    }
    return -ENOENT;
}

bool elf_physical(const struct elf *e, uint64_t vaddr, uint64_t *paddr)
{
    for (unsigned n = 0; n < e->load_count; n++) {
        const struct elf_segment *s = &e->load[n];

        if (vaddr >= s->vaddr && vaddr - s->vaddr < s->mem_bytes) {
            *paddr = s->paddr + (vaddr - s->vaddr);
            return true;
        }
    }
    return false;
}

bool elf_contains_physical(const struct elf *e, uint64_t paddr)
{
    for (unsigned n = 0; n < e->load_count; n++)
        if (paddr >= e->load[n].paddr && paddr - e->load[n].paddr < e->load[n].mem_bytes)
            return true;
    return false;
}
