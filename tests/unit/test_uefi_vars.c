/*
 * The file of UEFI's variables: made, read, written, locked, refused, and what
 * a write that fails leaves behind.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

#include <cmocka.h>

#include "boot/uefi_vars.h"

#define BYTES 8192u

struct place {
    char directory[64], pristine[128], file[128];
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    FILE *f;

    assert_non_null(p);
    snprintf(p->directory, sizeof p->directory, "/tmp/vireo-vars.XXXXXX");
    assert_non_null(mkdtemp(p->directory));
    snprintf(p->pristine, sizeof p->pristine, "%s/pristine", p->directory);
    snprintf(p->file, sizeof p->file, "%s/vars", p->directory);
    f = fopen(p->pristine, "wb");
    assert_non_null(f);
    for (unsigned i = 0; i < BYTES; i++)
        fputc(i * 7 & 0xFF, f);
    fclose(f);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;

    unlink(p->pristine);
    unlink(p->file);
    rmdir(p->directory); /* and nothing else is in it */
    assert_int_not_equal(access(p->directory, F_OK), 0);
    free(p);
    return 0;
}

static int file_byte(const char *path, long offset)
{
    FILE *f = fopen(path, "rb");
    int byte;

    assert_non_null(f);
    assert_int_equal(fseek(f, offset, SEEK_SET), 0);
    byte = fgetc(f);
    fclose(f);
    return byte;
}

static void in_memory(void **state)
{
    struct place *p = *state;
    struct uefi_vars v;
    struct error err;

    assert_int_equal(uefi_vars_open(&v, NULL, true, p->pristine, &err), 0);
    assert_int_equal(v.bytes, BYTES);
    assert_int_equal(v.data[3], 21);
    assert_int_equal(uefi_vars_write(&v, 3, "x", 1), 0);
    uefi_vars_close(&v);
    assert_int_equal(file_byte(p->pristine, 3), 21);
}

static void kept(void **state)
{
    struct place *p = *state;
    struct uefi_vars v, other;
    struct error err;

    assert_int_equal(uefi_vars_open(&v, p->file, true, p->pristine, &err), 0);
    assert_int_equal(v.data[3], 21);
    assert_int_equal(uefi_vars_write(&v, 3, "xyz", 3), 0);
    assert_int_equal(file_byte(p->file, 4), 'y'); /* at once */
    /* One machine at a time; who only reads may. */
    assert_int_equal(uefi_vars_open(&other, p->file, true, p->pristine, &err), -EBUSY);
    assert_non_null(strstr(err.text, "in use by another machine"));
    assert_int_equal(uefi_vars_open(&other, p->file, false, p->pristine, &err), 0);
    assert_int_equal(other.data[4], 'y');
    assert_int_equal(uefi_vars_write(&other, 4, "n", 1), 0);
    uefi_vars_close(&other);
    uefi_vars_close(&v);
    assert_int_equal(file_byte(p->file, 4), 'y');
    assert_int_equal(uefi_vars_open(&v, p->file, true, p->pristine, &err), 0);
    assert_memory_equal(v.data + 3, "xyz", 3);
    uefi_vars_close(&v);
}

static void only_read(void **state)
{
    struct place *p = *state;
    struct uefi_vars v;
    struct error err;

    assert_int_equal(uefi_vars_open(&v, p->file, false, p->pristine, &err), 0);
    assert_int_equal(v.data[1], 7);
    uefi_vars_close(&v);
    assert_int_not_equal(access(p->file, F_OK), 0); /* not made */
}

static void refused(void **state)
{
    struct place *p = *state;
    struct uefi_vars v;
    struct error err;
    FILE *f = fopen(p->file, "wb");

    assert_non_null(f);
    fputs("notes", f);
    fclose(f);
    assert_int_equal(uefi_vars_open(&v, p->file, true, p->pristine, &err), -EINVAL);
    assert_non_null(strstr(err.text, "is no UEFI variable store"));
    assert_int_equal(file_byte(p->file, 0), 'n');
    assert_int_equal(uefi_vars_open(&v, p->directory, true, p->pristine, &err), -EISDIR);
    assert_int_equal(uefi_vars_open(&v, "/dev/null", true, p->pristine, &err), -EINVAL);
    assert_int_equal(uefi_vars_open(&v, "/nonexistent/x", true, p->pristine, &err), -ENOENT);
    assert_int_equal(uefi_vars_open(&v, p->file, true, "/nonexistent/y", &err), -ENOENT);
}

/* A limit on the size of files stands for a full disk. */
static void full_disk(void **state)
{
    struct place *p = *state;
    struct rlimit before, small = {.rlim_cur = 4096};
    struct uefi_vars v;
    struct error err;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(uefi_vars_open(&v, p->file, true, p->pristine, &err), -EFBIG);
    assert_int_not_equal(access(p->file, F_OK), 0); /* no half of it */
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(uefi_vars_open(&v, p->file, true, p->pristine, &err), 0);
    setrlimit(RLIMIT_FSIZE, &small);
    assert_int_equal(uefi_vars_write(&v, 6000, "q", 1), -EFBIG);
    assert_int_equal(uefi_vars_write(&v, 3, "q", 1), 0);
    setrlimit(RLIMIT_FSIZE, &before);
    uefi_vars_close(&v);
    assert_int_equal(file_byte(p->file, 3), 'q');
    assert_int_equal(file_byte(p->file, 6000), 6000 * 7 & 0xFF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(in_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(full_disk, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
