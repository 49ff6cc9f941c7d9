/*
 * Loading kernels into a machine: what each format's entry point finds, and
 * what hostile files are answered.
 */
#include "tests/unit/cpu_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "boot/firmware.h"
#include "boot/kernel.h"
#include "tests/unit/boot_images.h"

#define RAM_BYTES (64 * MiB)
#define RSDP 0xf0000

struct machine {
    struct fixture f;
    struct region ram;
    struct memory_map map;
    struct error err;
};

static void machine_start(struct machine *m)
{
    struct ram_block *block;

    memset(m, 0, sizeof *m);
    fixture_start(&m->f, "x86-64-v2", 1);
    block = ram_block_create(m->f.vm, "ram", RAM_BYTES, RAM_NORMAL, &m->err);
    assert_non_null(block);
    m->ram = (struct region){.name = "ram", .size = RAM_BYTES, .ram = block};
    assert_int_equal(region_add(&m->f.vm->memory, &m->ram), 0);
    memory_map_add(&m->map, 0, 0x9fc00, MEMORY_MAP_RAM);
    memory_map_add(&m->map, 0x9fc00, 0x400, MEMORY_MAP_RESERVED);
    memory_map_add(&m->map, 1 * MiB, RAM_BYTES - 1 * MiB, MEMORY_MAP_RAM);
}

static uint64_t mem(struct machine *m, gpa_t at, unsigned size)
{
    uint64_t v;

    assert_true(as_load(&m->f.vm->memory, at, size, &v));
    return v;
}

static void assert_text(struct machine *m, gpa_t at, const char *text)
{
    char buf[512] = "";

    assert_int_equal(as_read(&m->f.vm->memory, at, buf, strlen(text) + 1), 0);
    assert_string_equal(buf, text);
}

/* A temporary file; its name is in path. */
static void file_make(char path[32], const void *data, size_t bytes)
{
    int fd;

    strcpy(path, "/tmp/vireo-boot-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

/* Opens and loads; 0 or the error of either. */
static int boot(struct machine *m, const struct test_image *t, const char *const *initrd,
                unsigned initrds, const char *append, const char **kind)
{
    struct boot_handoff handoff = {.map = &m->map, .rsdp = RSDP};
    struct boot_kernel_config config = {
        .initrd = initrd, .initrd_count = initrds, .append = append};
    struct boot_kernel *k;
    char path[32];
    int ret;

    file_make(path, t->data, t->bytes);
    config.kernel = path;
    m->err.text[0] = '\0';
    ret = boot_kernel_open(&config, &k, &m->err);
    if (ret == 0) {
        if (kind)
            *kind = boot_kernel_kind(k);
        ret = boot_kernel_load(k, m->f.vm, m->f.cpu[0], &handoff, &m->err);
        boot_kernel_close(k);
    }
    unlink(path);
    if (ret) {
        assert_true(ret < 0);
        assert_true(m->err.text[0] != '\0');
        assert_null(strchr(m->err.text, '\n'));
    }
    return ret;
}

static void assert_flat32(struct machine *m, uint64_t entry)
{
    struct x86_cpu *s = &m->f.cpu[0]->s;

    assert_int_equal(s->cr0 & (CR0_PE | CR0_PG), CR0_PE);
    assert_int_equal(s->efer, 0);
    assert_int_equal(s->rflags, FLAG_R1);
    assert_int_equal(s->reg[X86_RIP], entry);
    assert_int_equal(s->seg[X86_CS].limit, UINT32_MAX);
    assert_int_equal(s->seg[X86_CS].base, 0);
    assert_true(s->seg[X86_CS].attr & SEG_DB);
    /* The descriptor in memory says the same. */
    assert_int_equal(mem(m, s->gdtr.base + s->seg[X86_CS].selector, 8), 0x00cf9b000000ffff);
    assert_int_equal(mem(m, s->gdtr.base + s->seg[X86_DS].selector, 8), 0x00cf93000000ffff);
    assert_int_equal(mem(m, s->gdtr.base + s->tr.selector, 8), 0x00008b0000000067);
    assert_int_equal(s->tr.attr & 0xff, 0x8b);
}

static void linux_is_entered_in_both_modes(void **state)
{
    static const char initrd_data[] = "an initial RAM disk";
    const char *initrd[1], *kind;
    char initrd_path[32];
    struct test_image t;
    struct machine m;
    struct x86_cpu *s;
    uint64_t zp, at;

    machine_start(&m);
    s = &m.f.cpu[0]->s;
    file_make(initrd_path, initrd_data, sizeof initrd_data);
    initrd[0] = initrd_path;

    make_bzimage(&t, false);
    assert_int_equal(boot(&m, &t, initrd, 1, "console=ttyS0", &kind), 0);
    assert_string_equal(kind, "Linux bzImage");
    assert_flat32(&m, 1 * MiB);
    assert_int_equal(mem(&m, 1 * MiB, 4), 0x90909090);
    zp = s->reg[X86_RSI];
    assert_int_equal(mem(&m, zp + 0x202, 4), 0x53726448);
    assert_int_equal(mem(&m, zp + 0x210, 1), 0xff);
    assert_int_equal(mem(&m, zp + 0x70, 8), RSDP);
    assert_text(&m, mem(&m, zp + 0x228, 4), "console=ttyS0");
    at = mem(&m, zp + 0x218, 4);
    assert_int_equal(mem(&m, zp + 0x21c, 4), sizeof initrd_data);
    assert_int_equal(at, RAM_BYTES - 4096);
    assert_text(&m, at, initrd_data);
    assert_int_equal(mem(&m, zp + 0x1e8, 1), 3);
    assert_int_equal(mem(&m, zp + 0x2d0 + 2 * 20, 8), 1 * MiB);
    assert_int_equal(mem(&m, zp + 0x2d0 + 2 * 20 + 16, 4), MEMORY_MAP_RAM);
    assert_int_equal(mem(&m, zp + 0x1e0, 4), RAM_BYTES / KiB - 1024);
    /* setup_data: a random seed and nothing after it */
    at = mem(&m, zp + 0x250, 8);
    assert_int_equal(mem(&m, at, 8), 0);
    assert_int_equal(mem(&m, at + 8, 4), 9);
    assert_int_equal(mem(&m, at + 12, 4), 32);

    make_bzimage(&t, true);
    assert_int_equal(boot(&m, &t, initrd, 1, "", &kind), 0);
    assert_true(x86_64bit_mode(s));
    assert_int_equal(s->reg[X86_RIP], 1 * MiB + 0x200);
    assert_int_equal(s->cr0 & CR0_PG, CR0_PG);
    /* The page tables map 3 GiB + 2 MiB to itself. */
    at = mem(&m, s->cr3, 8) & ~0xfffull;
    at = mem(&m, at + 3 * 8, 8) & ~0xfffull;
    assert_int_equal(mem(&m, at + 8, 8), 3 * GiB + 2 * MiB + 0x83);
    unlink(initrd_path);
    fixture_stop(&m.f);
}

static void linux_refusals_say_what_to_do(void **state)
{
    char command_line[3000], initrd_path[32];
    const char *initrd[2] = {initrd_path, initrd_path};
    uint8_t *big = calloc(1, 40 * MiB);
    struct test_image t;
    struct machine m;

    machine_start(&m);
    memset(command_line, 'x', sizeof command_line);
    command_line[2048] = '\0';
    make_bzimage(&t, true);
    assert_int_equal(boot(&m, &t, NULL, 0, command_line, NULL), -E2BIG);
    assert_non_null(strstr(m.err.text, "2048 bytes"));
    command_line[2047] = '\0';
    assert_int_equal(boot(&m, &t, NULL, 0, command_line, NULL), 0);

    le32_put(t.data + 0x260, 100 * MiB);
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOMEM);
    assert_non_null(strstr(m.err.text, "--memory"));

    make_bzimage(&t, true);
    assert_non_null(big);
    file_make(initrd_path, big, 40 * MiB);
    free(big);
    assert_int_equal(boot(&m, &t, initrd, 1, "", NULL), -ENOMEM);
    assert_non_null(strstr(m.err.text, "initrd"));
    assert_int_equal(boot(&m, &t, initrd, 2, "", NULL), -E2BIG);
    unlink(initrd_path);
    assert_int_equal(boot(&m, &t, initrd, 1, "", NULL), -ENOENT);
    assert_non_null(strstr(m.err.text, initrd_path));

    t.bytes -= 32;
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    assert_non_null(strstr(m.err.text, "truncated"));
    make_bzimage(&t, true);
    t.data[0x211] = 0;
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    assert_non_null(strstr(m.err.text, "zImage"));
    make_bzimage(&t, true);
    le32_put(t.data + 0x230, 3);
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    assert_non_null(strstr(m.err.text, "power of two"));
    fixture_stop(&m.f);
}

static void old_linux_protocols_are_spoken(void **state)
{
    struct test_image t;
    struct machine m;
    uint64_t zp;

    machine_start(&m);
    make_bzimage(&t, false);
    le16_put(t.data + 0x206, 0x200);
    t.data[0x201] = 0x22;
    assert_int_equal(boot(&m, &t, NULL, 0, "old", NULL), 0);
    assert_flat32(&m, 1 * MiB);
    zp = m.f.cpu[0]->s.reg[X86_RSI];
    assert_int_equal(zp, 0x90000);
    assert_int_equal(mem(&m, zp + 0x20, 2), 0xa33f);
    assert_text(&m, zp + mem(&m, zp + 0x22, 2), "old");
    assert_int_equal(mem(&m, zp + 0x250, 8), 0);
    fixture_stop(&m.f);
}

static void pvh_finds_its_start_information(void **state)
{
    char path[32];
    const char *initrd[1] = {path}, *kind;
    struct test_image t;
    struct machine m;
    uint64_t info, at;

    machine_start(&m);
    file_make(path, "module", 7);
    for (unsigned wide = 0; wide < 2; wide++) {
        wide ? make_pvh64(&t) : make_pvh32(&t);
        assert_true(as_store(&m.f.vm->memory, 0x201300, 8, ~0ull)); /* the bss is dirty */
        assert_int_equal(boot(&m, &t, initrd, 1, "a=b", &kind), 0);
        assert_string_equal(kind, "PVH");
        assert_flat32(&m, 0x200200);
        assert_int_equal(mem(&m, 0x200200, 1), 0xcc);
        assert_int_equal(mem(&m, 0x201300, 8), 0);
        info = m.f.cpu[0]->s.reg[X86_RBX];
        assert_int_equal(mem(&m, info, 4), 0x336ec578);
        assert_int_equal(mem(&m, info + 4, 4), 1);
        assert_int_equal(mem(&m, info + 12, 4), 1);
        at = mem(&m, info + 16, 8);
        assert_int_equal(mem(&m, at + 8, 8), 7);
        assert_text(&m, mem(&m, at, 8), "module");
        assert_text(&m, mem(&m, info + 24, 8), "a=b");
        assert_int_equal(mem(&m, info + 32, 8), RSDP);
        assert_int_equal(mem(&m, info + 48, 4), 3);
        assert_int_equal(mem(&m, mem(&m, info + 40, 8) + 48 + 8, 8), RAM_BYTES - 1 * MiB);
    }
    unlink(path);

    make_pvh32(&t);
    le32_put(t.data + 0x110, 0x500000);
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    assert_non_null(strstr(m.err.text, "entry point"));
    make_pvh32(&t);
    le32_put(t.data + 0x108, 17); /* no such note */
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    assert_non_null(strstr(m.err.text, "neither"));
    make_pvh32(&t);
    ((Elf32_Phdr *)(t.data + sizeof(Elf32_Ehdr)))->p_paddr = 0x9f000; /* into the EBDA */
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    le32_put(t.data + 0x110, 0x9f100);
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOMEM);
    ((Elf32_Phdr *)(t.data + sizeof(Elf32_Ehdr)))->p_paddr = 0x90000; /* the loader's own */
    le32_put(t.data + 0x110, 0x90100);
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -EINVAL);
    fixture_stop(&m.f);
}

static void multiboot_finds_its_information(void **state)
{
    char path[32], arguments[64];
    const char *initrd[2] = {path, arguments}, *kind;
    struct test_image t;
    struct machine m;
    uint64_t info, at;

    machine_start(&m);
    file_make(path, "first", 6);
    snprintf(arguments, sizeof arguments, "%s two words", path);
    for (unsigned raw = 0; raw < 2; raw++) {
        raw ? make_multiboot_raw(&t) : make_multiboot_elf(&t, 3);
        assert_int_equal(boot(&m, &t, initrd, 2, "x y", &kind), 0);
        assert_string_equal(kind, "Multiboot");
        assert_flat32(&m, raw ? 0x100040 : 0x200100);
        assert_int_equal(m.f.cpu[0]->s.reg[X86_RAX], 0x2badb002);
        info = m.f.cpu[0]->s.reg[X86_RBX];
        assert_int_equal(mem(&m, info, 4), 0x24d);
        assert_int_equal(mem(&m, info + 4, 4), 639);
        assert_int_equal(mem(&m, info + 8, 4), RAM_BYTES / KiB - 1024);
        at = mem(&m, info + 16, 4);
        while (mem(&m, at, 1) != ' ')
            at++;
        assert_text(&m, at, " x y");
        assert_int_equal(mem(&m, info + 20, 4), 2);
        at = mem(&m, info + 24, 4);
        assert_text(&m, mem(&m, at + 16 + 8, 4), arguments);
        assert_int_equal(mem(&m, at, 4) & 0xfff, 0);
        assert_int_equal(mem(&m, at + 4, 4) - mem(&m, at, 4), 6);
        assert_true(mem(&m, at, 4) >= (raw ? 0x101000 : 0x201400));
        assert_true(mem(&m, at + 16, 4) >= mem(&m, at + 4, 4));
        assert_text(&m, mem(&m, at + 16, 4), "first");
        assert_int_equal(mem(&m, info + 44, 4), 3 * 24);
        at = mem(&m, info + 48, 4);
        assert_int_equal(mem(&m, at, 4), 20);
        assert_int_equal(mem(&m, at + 48 + 4, 8), 1 * MiB);
    }
    /* The raw file is loaded from byte 32 on, to load_end_addr. */
    assert_int_equal(mem(&m, 0x100020, 4), 0x1badb002);
    assert_int_equal(mem(&m, 0x1001ff, 1), 0x11);
    assert_int_equal(mem(&m, 0x100200, 1), 0);
    unlink(path);
    fixture_stop(&m.f);
}

static void multiboot_demands_are_refused(void **state)
{
    struct test_image t;
    struct machine m;

    machine_start(&m);
    make_multiboot_elf(&t, 7);
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOTSUP);
    assert_non_null(strstr(m.err.text, "video"));
    make_multiboot_elf(&t, 0x8003);
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOTSUP);
    make_multiboot_elf(&t, 3);
    le32_put(t.data + 0x118, 0); /* a wrong checksum is no header */
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    make_multiboot_raw(&t);
    le32_put(t.data + 64 + 16, 0x100021); /* load_addr behind header_addr */
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    make_multiboot_raw(&t);
    le32_put(t.data + 64 + 20, 0x100800); /* load_end_addr behind the file */
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    make_multiboot_raw(&t);
    le32_put(t.data + 64 + 24, 0x100100); /* bss_end_addr within the data */
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    make_multiboot_raw(&t);
    le32_put(t.data + 64 + 28, 0x101000); /* entry_addr */
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    make_multiboot_raw(&t);
    le32_put(t.data + 64 + 24, 0xffffffff); /* more bss than memory */
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOMEM);
    fixture_stop(&m.f);
}

static void other_files_are_named(void **state)
{
    struct test_image t = {.bytes = 4096};
    struct machine m;
    struct boot_kernel_config config = {.kernel = "/tmp"};
    struct boot_kernel *k;

    machine_start(&m);
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    assert_non_null(strstr(m.err.text, "is no kernel"));
    t.data[0] = 0x1f;
    t.data[1] = 0x8b;
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    assert_non_null(strstr(m.err.text, "gzip"));
    t.bytes = 0;
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -EINVAL);
    assert_non_null(strstr(m.err.text, "empty"));
    t.bytes = 1;
    assert_int_equal(boot(&m, &t, NULL, 0, "", NULL), -ENOEXEC);
    assert_int_equal(boot_kernel_open(&config, &k, &m.err), -EISDIR);
    config.kernel = "/nonexistent/kernel";
    assert_int_equal(boot_kernel_open(&config, &k, &m.err), -ENOENT);
    assert_non_null(strstr(m.err.text, "/nonexistent/kernel"));
    fixture_stop(&m.f);
}

/* Single bytes and fields of good files changed at random: loaded or refused
 * with a line, memory safety being ASan's to watch. */
static void spoiled_files_do_no_harm(void **state)
{
    static const uint32_t values[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0, 0x1000};
    uint32_t seed = 12345;
    struct test_image good[5], t;
    struct machine m;

    machine_start(&m);
    make_bzimage(&good[0], true);
    make_pvh32(&good[1]);
    make_pvh64(&good[2]);
    make_multiboot_elf(&good[3], 3);
    make_multiboot_raw(&good[4]);
    for (unsigned n = 0; n < 6000; n++) {
        t = good[n % 5];
        for (unsigned changes = 1 + n / 5 % 3; changes > 0; changes--) {
            unsigned at;

            seed = seed * 1664525 + 1013904223;
            at = n % 5 == 0 ? 0x1f0 + (seed >> 8) % 0xa0 : (seed >> 8) % 0x160;
            if (seed >> 30 & 1)
                t.data[at] = (uint8_t)(seed >> 20);
            else
                le32_put(t.data + (at & ~3u), values[(seed >> 4) % ARRAY_SIZE(values)]);
        }
        boot(&m, &t, NULL, 0, "command line", NULL);
    }
    fixture_stop(&m.f);
}

static void firmware_sizes_are_checked(void **state)
{
    struct error err = {""};
    struct image i;
    char path[32];

    file_make(path, "x", 1);
    assert_int_equal(firmware_open(&i, path, &err), -EINVAL);
    assert_non_null(strstr(err.text, "64 KiB"));
    assert_int_equal(truncate(path, 64 * KiB), 0);
    assert_int_equal(firmware_open(&i, path, &err), 0);
    assert_int_equal(i.bytes, 64 * KiB);
    image_close(&i);
    assert_int_equal(truncate(path, 17 * MiB), 0);
    assert_int_equal(firmware_open(&i, path, &err), -EINVAL);
    unlink(path);
    assert_int_equal(firmware_open(&i, path, &err), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linux_is_entered_in_both_modes),
        cmocka_unit_test(linux_refusals_say_what_to_do),
        cmocka_unit_test(old_linux_protocols_are_spoken),
        cmocka_unit_test(pvh_finds_its_start_information),
        cmocka_unit_test(multiboot_finds_its_information),
        cmocka_unit_test(multiboot_demands_are_refused),
        cmocka_unit_test(other_files_are_named),
        cmocka_unit_test(spoiled_files_do_no_harm),
        cmocka_unit_test(firmware_sizes_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
