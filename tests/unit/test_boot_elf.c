/*
 * The ELF parser with good files and with files that lie.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "boot/elf.h"
#include "tests/unit/boot_images.h"

static int parse(const struct test_image *t, struct elf *e, struct error *err)
{
    struct image i;

    image_from_memory(&i, "test", t->data, t->bytes);
    return elf_parse(&i, e, err);
}

static void assert_refused(const struct test_image *t, const char *because)
{
    struct error err = {""};
    struct elf e;

    assert_int_equal(parse(t, &e, &err), -EINVAL);
    assert_non_null(strstr(err.text, because));
    assert_null(strchr(err.text, '\n'));
}

static void both_classes_are_read(void **state)
{
    struct test_image t;
    struct image i;
    struct elf e;
    uint64_t v;

    make_pvh32(&t);
    assert_int_equal(parse(&t, &e, NULL), 0);
    assert_false(e.is64);
    assert_int_equal(e.load_count, 1);
    assert_int_equal(e.load[0].mem_bytes, 0x1300);
    assert_true(elf_physical(&e, 0xc0200101, &v));
    assert_int_equal(v, 0x200101);
    assert_false(elf_physical(&e, 0xc0201400, &v));
    assert_true(elf_contains_physical(&e, 0x2013ff));
    assert_false(elf_contains_physical(&e, 0x201400));
    image_from_memory(&i, "test", t.data, t.bytes);
    assert_int_equal(elf_note_integer(&i, &e, "Xen", 18, &v, NULL), 0);
    assert_int_equal(v, 0x200200);

    make_pvh64(&t);
    assert_int_equal(parse(&t, &e, NULL), 0);
    assert_true(e.is64);
    image_from_memory(&i, "test", t.data, t.bytes);
    assert_int_equal(elf_note_integer(&i, &e, "Xen", 18, &v, NULL), 0);
    assert_int_equal(v, 0x200200);
    assert_int_equal(elf_note_integer(&i, &e, "Xen", 17, &v, NULL), -ENOENT);
    assert_int_equal(elf_note_integer(&i, &e, "Xe", 18, &v, NULL), -ENOENT);
}

static void every_truncation_is_refused(void **state)
{
    struct test_image t;
    struct error err;
    struct elf e;

    for (unsigned wide = 0; wide < 2; wide++) {
        wide ? make_pvh64(&t) : make_pvh32(&t);
        for (size_t full = t.bytes; t.bytes-- > 0;) {
            err.text[0] = '\0';
            assert_int_equal(parse(&t, &e, &err), -EINVAL);
            assert_true(err.text[0] != '\0');
            assert_true(t.bytes < full);
        }
    }
}

static void lies_are_found(void **state)
{
    struct test_image t;
    Elf64_Ehdr *h = (Elf64_Ehdr *)t.data;
    Elf64_Phdr *p = (Elf64_Phdr *)(t.data + sizeof *h);

    make_pvh64(&t);
    t.data[0] = 0;
    assert_refused(&t, "no ELF");
    make_pvh64(&t);
    h->e_ident[EI_DATA] = ELFDATA2MSB;
    assert_refused(&t, "built for x86");
    make_pvh64(&t);
    h->e_machine = EM_AARCH64;
    assert_refused(&t, "another processor");
    make_pvh64(&t);
    h->e_type = ET_REL;
    assert_refused(&t, "link it");
    make_pvh64(&t);
    h->e_phnum = 0xffff;
    assert_refused(&t, "program headers");
    make_pvh64(&t);
    h->e_phentsize = 8;
    assert_refused(&t, "program headers");
    make_pvh64(&t);
    h->e_phoff = UINT64_MAX - 8;
    assert_refused(&t, "truncated");
    make_pvh64(&t);
    p->p_memsz = p->p_filesz - 1;
    assert_refused(&t, "larger in the file");
    make_pvh64(&t);
    p->p_offset = UINT64_MAX - 16;
    assert_refused(&t, "truncated");
    make_pvh64(&t);
    p->p_paddr = UINT64_MAX - 16;
    assert_refused(&t, "wraps");
    make_pvh64(&t);
    p->p_memsz = UINT64_MAX;
    assert_refused(&t, "wraps");
    make_pvh64(&t);
    p->p_type = PT_NULL;
    assert_refused(&t, "nothing to load");
}

static void broken_notes_end_the_search(void **state)
{
    struct test_image t;
    struct error err = {""};
    struct image i;
    struct elf e;
    uint64_t v;

    make_pvh32(&t);
    assert_int_equal(parse(&t, &e, NULL), 0);
    image_from_memory(&i, "test", t.data, t.bytes);
    le32_put(t.data + 0x100, UINT32_MAX); /* name longer than everything */
    assert_int_equal(elf_note_integer(&i, &e, "Xen", 18, &v, &err), -ENOENT);
    le32_put(t.data + 0x100, 4);
    le32_put(t.data + 0x104, UINT32_MAX); /* so is its contents */
    assert_int_equal(elf_note_integer(&i, &e, "Xen", 18, &v, &err), -ENOENT);
    le32_put(t.data + 0x104, 2);
    assert_int_equal(elf_note_integer(&i, &e, "Xen", 18, &v, &err), -EINVAL);
    assert_non_null(strstr(err.text, "4 or 8"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_classes_are_read),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(lies_are_found),
        cmocka_unit_test(broken_notes_end_the_search),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
