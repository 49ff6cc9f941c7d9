/*
 * The command line's parser: sizes, numbers, both ways of giving a value,
 * lists, and mistakes (the lines themselves: tests/boot/test_cli.py).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cli/disks.h"
#include "cli/nets.h"
#include "cli/options.h"

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } right[] = {
        {"0", 0},
        {"65536", 65536},
        {"0x1000", 4096},
        {"4K", 4 * KiB},
        {"512M", 512 * MiB},
        {"512m", 512 * MiB},
        {"2G", 2 * GiB},
        {"1T", 1024 * GiB},
        {"512MiB", 512 * MiB},
        {"512MB", 512 * MiB},
        {"010", 10},
    };
    static const char *const wrong[] = {
        "",
        "M",
        "x",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1.5G",
        "1e9",
        "12Q",
        "0x",
        "16777216T",
        "18446744073709551616",
        "1MM",
        "1iB",
        "B",
        "00000000000000000000000000000000000001",
    };
    uint64_t bytes;
    size_t i;

    for (i = 0; i < ARRAY_SIZE(right); i++) {
        assert_true(cli_parse_size(right[i].text, &bytes));
        assert_int_equal(bytes, right[i].bytes);
    }
    for (i = 0; i < ARRAY_SIZE(wrong); i++) {
        if (cli_parse_size(wrong[i], &bytes))
            fail_msg("'%s' is taken for a size", wrong[i]);
    }
}

static int parse(struct cli_options *o, struct error *err, char **words)
{
    int count = 0;

    while (words[count])
        count++;
    err->text[0] = '\0';
    return cli_parse(o, count, words, err);
}

#define PARSE(o, err, ...) parse(o, err, (char *[]){"vireo", __VA_ARGS__, NULL})

static void defaults(void **state)
{
    struct cli_options o;
    struct error err;

    assert_int_equal(PARSE(&o, &err, "run", "--kernel", "k"), 0);
    assert_int_equal(o.command, CLI_RUN);
    assert_string_equal(o.kernel, "k");
    assert_int_equal(o.memory_bytes, 512 * MiB);
    assert_int_equal(o.cpus, 1);
    assert_string_equal(o.engine, "auto");
    assert_string_equal(o.serial, "stdio");
    assert_null(o.firmware);
    assert_null(o.cpu);
    assert_false(o.no_reboot);
    assert_false(o.deterministic);
}

static void everything(void **state)
{
    struct cli_options o;
    struct error err;

    assert_int_equal(PARSE(&o, &err, "run", "--kernel=k", "--initrd", "a", "--initrd=b c",
                           "--append", "x=y --z", "--memory=1G", "--cpus", "4", "--cpu", "max,-avx",
                           "--engine=interp", "--serial", "file:/x", "--device", "testdev",
                           "--device=debug-exit", "--no-reboot", "--deterministic", "--seed",
                           "0xff", "--log", "cpu", "--log=all=debug", "--memory", "2G"),
                     0);
    assert_int_equal(o.initrd.count, 2);
    assert_string_equal(o.initrd.item[1], "b c");
    assert_string_equal(o.append, "x=y --z");
    assert_int_equal(o.memory_bytes, 2 * GiB);
    assert_int_equal(o.cpus, 4);
    assert_int_equal(o.device.count, 2);
    assert_true(o.no_reboot && o.deterministic);
    assert_int_equal(o.seed, 255);
    assert_string_equal(o.log.item[1], "all=debug");
}

static void commands(void **state)
{
    struct cli_options o;
    struct error err;

    assert_int_equal(PARSE(&o, &err, "--help"), 0);
    assert_int_equal(o.command, CLI_HELP);
    assert_int_equal(PARSE(&o, &err, "run", "--kernel", "k", "--help"), 0);
    assert_int_equal(o.command, CLI_HELP_RUN);
    assert_int_equal(PARSE(&o, &err, "doctor"), 0);
    assert_int_equal(o.command, CLI_DOCTOR);
    assert_int_equal(PARSE(&o, &err, "doctor", "--help"), 0);
    assert_int_equal(o.command, CLI_HELP_DOCTOR);
    assert_int_equal(PARSE(&o, &err, "lockstep", "--firmware", "bios", "--instructions=0x10",
                           "--seconds", "9", "--cpus", "2"),
                     0);
    assert_int_equal(o.command, CLI_LOCKSTEP);
    assert_true(o.deterministic);
    assert_string_equal(o.engine, "jit");
    assert_int_equal(o.instructions, 16);
    assert_int_equal(o.seconds, 9);
    assert_int_equal(o.cpus, 2);
    assert_true(o.checkpoint > 0);
    assert_int_equal(PARSE(&o, &err, "lockstep", "--help"), 0);
    assert_int_equal(o.command, CLI_HELP_LOCKSTEP);
    assert_int_equal(PARSE(&o, &err, "--version"), 0);
    assert_int_equal(o.command, CLI_VERSION);
}

static void nets(void **state)
{
    static struct cli_net_spec n;
    static const char *const wrong[] = {
        "",
        "users",
        "user,",
        "user,name=tap0",
        "tap",
        "tap,name=",
        "tap,name=0123456789abcdef",
        "tap,restrict",
        "user,model=",
        "user,model=ne2000",
        "user,mac=",
        "user,mac=01:00:00:00:00:01", /* of a group */
        "user,mac=02:00:00:00:00",
        "user,mac=02:00:00:00:00:0g",
        "user,mac=02-00-00-00-00-00",
        "user,forward=",
        "user,forward=tcp",
        "user,forward=tcp:22",
        "user,forward=sctp:1:2",
        "user,forward=tcp:0:2",
        "user,forward=tcp:1:65536",
        "user,forward=tcp:1:2:3:4:5",
        "user,forward=tcp:1.2.3:1:2",
        "user,forward=tcp:1.2.3.256:1:2",
        "user,forward=tcp:1:2:",
        "none,restrict",
    };
    struct cli_options o;
    struct error err;

    assert_int_equal(cli_net_parse("user", &n, &err), 0);
    assert_true(n.kind == CLI_NET_USER && !n.is_restricted && !n.forward_count);
    assert_int_equal(cli_net_parse("user,forward=tcp:2222:22,forward=udp:1.2.3.4:53:5353,restrict,"
                                   "mac=02:aB:00:00:00:01,model=e1000",
                                   &n, &err),
                     0);
    assert_int_equal(n.forward_count, 2);
    assert_memory_equal(n.forward[0].host, "\x7f\0\0\x01", 4);
    assert_true(n.forward[0].protocol == NET_TCP && n.forward[0].host_port == 2222 &&
                n.forward[0].guest_port == 22);
    assert_memory_equal(n.forward[1].host, "\1\2\3\4", 4);
    assert_true(n.forward[1].protocol == NET_UDP && n.forward[1].guest_port == 5353);
    assert_true(n.is_restricted && n.model_given && n.mac_given);
    assert_memory_equal(n.mac, "\x02\xab\0\0\0\x01", 6);
    assert_int_equal(cli_net_parse("tap,name=tap0", &n, &err), 0);
    assert_string_equal(n.tap, "tap0");
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        err.text[0] = '\0';
        if (cli_net_parse(wrong[i], &n, &err) != -EINVAL || !err.text[0] || strchr(err.text, '\n'))
            fail_msg("'%s' is taken, or told with '%s'", wrong[i], err.text);
    }
    assert_int_equal(PARSE(&o, &err, "run", "a.img", "--net", "user", "--net", "none"), -EINVAL);
    assert_int_equal(PARSE(&o, &err, "run", "a.img", "--deterministic", "--net", "user"), -EINVAL);
    assert_int_equal(PARSE(&o, &err, "run", "a.img", "--deterministic", "--net", "none"), 0);
    assert_int_equal(PARSE(&o, &err, "run", "a.img", "--net", "user", "--net", "tap,name=t"), 0);
    assert_int_equal(o.net.count, 2);
}

static void disks(void **state)
{
    static struct cli_disk_spec d;
    static const char *const wrong[] = {
        "",         ",readonly",    "a,",          "a,cache=",     "a,cache=none2", "a,bus=scsi",
        "a,serial", "a,readonly=1", "a,snapshot=", "a,serial=",    "a,b",           "a,cache",
        "a,,,",     "a,serial=\x01", "a,serial=123456789012345678901",
    };
    struct cli_options o;
    struct error err;

    assert_int_equal(cli_disk_parse("disk.img", &d, &err), 0);
    assert_string_equal(d.path, "disk.img");
    assert_int_equal(d.cache, DISK_WRITEBACK);
    assert_false(d.readonly || d.snapshot || d.serial[0]);
    assert_int_equal(cli_disk_parse("a,,b=c,cache=none,readonly,snapshot,bus=ahci,serial=x y", &d,
                                    &err),
                     0);
    assert_string_equal(d.path, "a,b=c");
    assert_string_equal(d.serial, "x y");
    assert_int_equal(d.cache, DISK_NONE);
    assert_true(d.readonly && d.snapshot);
    assert_int_equal(cli_disk_parse("a,cache=unsafe", &d, &err), 0);
    assert_int_equal(d.cache, DISK_UNSAFE);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        err.text[0] = '\0';
        if (cli_disk_parse(wrong[i], &d, &err) != -EINVAL || !err.text[0] ||
            strchr(err.text, '\n'))
            fail_msg("'%s' is taken, or told with '%s'", wrong[i], err.text);
    }
    /* An image alone is booted from. */
    assert_int_equal(PARSE(&o, &err, "run", "disk.img", "--cdrom", "a.iso", "--disk", "b,,c"), 0);
    assert_string_equal(o.firmware, "bios");
    assert_int_equal(o.disk.count, 2);
    assert_string_equal(o.disk.item[1], "b,,c");
    assert_int_equal(o.cdrom.count, 1);
    assert_int_equal(PARSE(&o, &err, "run", "--kernel", "k", "disk.img"), 0);
    assert_null(o.firmware);
    assert_int_equal(PARSE(&o, &err, "run", "1", "2", "3", "4", "5", "6", "7"), -E2BIG);
    assert_int_equal(PARSE(&o, &err, "run", "a,foo"), -EINVAL);
}

static void mistakes(void **state)
{
    struct cli_options o;
    struct error err;

    assert_int_equal(PARSE(&o, &err, "run", "--kernal", "k"), -EINVAL);
    assert_non_null(strstr(err.text, "did you mean --kernel?"));
    assert_int_equal(PARSE(&o, &err, "run", "--kernel"), -EINVAL);
    assert_int_equal(PARSE(&o, &err, "run", "--no-reboot=1", "--kernel", "k"), -EINVAL);
    assert_int_equal(PARSE(&o, &err, "run", "--xyzzy=1", "--kernel", "k"), -EINVAL);
    assert_non_null(strstr(err.text, "vireo run --help"));
    assert_int_equal(PARSE(&o, &err, "run", "-"), -EINVAL);
    assert_int_equal(PARSE(&o, &err, "run", "--"), -EINVAL);
    assert_int_equal(PARSE(&o, &err, "run", "--kernel", "k", "--cpus", "65"), -EINVAL);
    assert_non_null(strstr(err.text, "1 to 64"));
    assert_int_equal(PARSE(&o, &err, "run", "--kernel", "k", "--seconds", "1"), -EINVAL);
    assert_int_equal(PARSE(&o, &err, "lockstep", "--kernel", "k", "--second", "1"), -EINVAL);
    assert_non_null(strstr(err.text, "did you mean --seconds?"));
    assert_int_equal(PARSE(&o, &err, "lockstep"), -EINVAL);
    assert_non_null(strstr(err.text, "vireo lockstep --help"));
    assert_int_equal(PARSE(&o, &err, "run"), -EINVAL);
    assert_int_equal(PARSE(&o, &err, ""), -EINVAL);
}

static void lists_are_bounded(void **state)
{
    char *words[2 * CLI_LIST_MAX + 8] = {"vireo", "run", "--kernel", "k"};
    struct cli_options o;
    struct error err;
    unsigned i, n = 4;

    for (i = 0; i < CLI_LIST_MAX; i++) {
        words[n++] = "--log";
        words[n++] = "cpu";
    }
    assert_int_equal(parse(&o, &err, words), 0);
    words[n++] = "--log";
    words[n++] = "cpu";
    assert_int_equal(parse(&o, &err, words), -E2BIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),    cmocka_unit_test(defaults), cmocka_unit_test(everything),
        cmocka_unit_test(commands), cmocka_unit_test(nets), cmocka_unit_test(disks), cmocka_unit_test(mistakes), cmocka_unit_test(lists_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
