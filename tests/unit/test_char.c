/*
 * Character back ends in a machine without processors: bytes in order, room
 * respected, escapes, bounds, clients that come and go, descriptors left as
 * they were.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/char/internal.h"
#include "vm/vm.h"

/* A front end with as much room as the test says. */
struct front {
    uint8_t got[1 << 17];
    size_t count;
    size_t room;
    unsigned breaks, quits;
};

struct fixture {
    struct vm *vm;
    struct front front;
    uint64_t until_ns;
};

static size_t front_room(void *ctx)
{
    struct front *f = ctx;

    return f->room;
}

static void front_receive(void *ctx, const uint8_t *data, size_t bytes)
{
    struct front *f = ctx;

    assert_true(bytes <= f->room);
    assert_true(f->count + bytes <= sizeof f->got);
    memcpy(f->got + f->count, data, bytes);
    f->count += bytes;
    f->room -= bytes;
}

static void front_break(void *ctx, const uint8_t *data, size_t bytes)
{
    struct front *f = ctx;

    f->breaks++;
}

static void quit(void *ctx)
{
    struct front *f = ctx;

    f->quits++;
}

static struct char_frontend frontend(struct fixture *x)
{
    return (struct char_frontend){
        .name = "test",
        .room = front_room,
        .receive = front_receive,
        .receive_break = front_break,
        .ctx = &x->front,
    };
}

static int setup_with(void **state, bool deterministic)
{
    struct vm_config config = {.deterministic = deterministic};
    struct fixture *x = calloc(1, sizeof *x);

    x->vm = vm_create(&config, NULL);
    assert_non_null(x->vm);
    x->front.room = 16;
    *state = x;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, false);
}

/* Time passes only while it is asked to. */
static int setup_deterministic(void **state)
{
    return setup_with(state, true);
}

static int teardown(void **state)
{
    struct fixture *x = *state;

    vm_destroy(x->vm);
    free(x);
    return 0;
}

/* Lets the I/O thread (this one) work for some milliseconds. */
static void turn(struct fixture *x, unsigned ms)
{
    struct error err = {.text = ""};
    enum vm_exit exit;
    int status;

    x->until_ns = clock_now_ns(&x->vm->clock) + ms * NS_PER_MS;
    assert_int_equal(vm_run_until(x->vm, x->until_ns, &exit, &status, &err), 0);
    assert_int_equal(exit, VM_EXIT_LIMIT);
}

static void attach(struct fixture *x, struct char_backend *b)
{
    struct char_frontend front = frontend(x);

    assert_non_null(b);
    vm_lock(x->vm);
    char_attach(b, &front);
    vm_unlock(x->vm);
}

static void write_out(struct fixture *x, struct char_backend *b, const void *data, size_t bytes)
{
    vm_lock(x->vm);
    char_write(b, data, bytes);
    vm_unlock(x->vm);
}

static void give_room(struct fixture *x, struct char_backend *b, size_t room)
{
    vm_lock(x->vm);
    x->front.room = room;
    char_resume_input(b);
    vm_unlock(x->vm);
}

static void end(struct fixture *x, struct char_backend *b)
{
    vm_lock(x->vm);
    char_destroy(b);
    vm_unlock(x->vm);
}

/* ---- the queue ---- */

static void queue_keeps_order_and_bound(void **state)
{
    struct byte_queue q;
    uint8_t in = 0, out = 0;
    unsigned round, i;

    byte_queue_init(&q, 1000);
    for (round = 0; round < 2000; round++) {
        unsigned put = (round * 7919) % 400, drop = (round * 104729) % 400;
        uint8_t bytes[400];
        size_t taken, run;

        for (i = 0; i < put; i++)
            bytes[i] = (uint8_t)(in + i);
        taken = byte_queue_put(&q, bytes, put);
        assert_int_equal(taken, MIN((size_t)put, 1000 - (q.used - taken)));
        in = (uint8_t)(in + taken);
        while (drop && q.used) {
            const uint8_t *p = byte_queue_peek(&q, &run);

            assert_non_null(p);
            run = MIN(run, drop);
            for (i = 0; i < run; i++)
                assert_int_equal(p[i], out++);
            byte_queue_drop(&q, run);
            drop -= (unsigned)run;
        }
    }
    byte_queue_free(&q);
}

static void queue_drops_the_oldest(void **state)
{
    struct byte_queue q;
    size_t run;
    const uint8_t *p;

    byte_queue_init(&q, 4);
    byte_queue_put_newest(&q, (const uint8_t *)"abc", 3);
    byte_queue_put_newest(&q, (const uint8_t *)"de", 2);
    p = byte_queue_peek(&q, &run);
    assert_int_equal(*p, 'b');
    assert_int_equal(q.used, 4);
    byte_queue_put_newest(&q, (const uint8_t *)"0123456789", 10);
    assert_int_equal(q.used, 4);
    p = byte_queue_peek(&q, &run);
    assert_int_equal(*p, '6');
    byte_queue_free(&q);
}

/* ---- null ---- */

static void null_swallows(void **state)
{
    struct fixture *x = *state;
    struct char_backend *b = char_null_create(x->vm, NULL);

    attach(x, b);
    write_out(x, b, "gone", 4);
    turn(x, 2);
    assert_int_equal(x->front.count, 0);
    end(x, b);
}

/* ---- descriptors ---- */

static void fd_respects_room(void **state)
{
    struct fixture *x = *state;
    int in[2];
    struct char_backend *b;

    assert_int_equal(pipe(in), 0);
    x->front.room = 3;
    b = char_fd_create(x->vm, in[0], open("/dev/null", O_WRONLY), false, NULL, NULL, NULL);
    attach(x, b);
    assert_int_equal(write(in[1], "abcdefgh", 8), 8);
    turn(x, 20);
    assert_int_equal(x->front.count, 3);
    give_room(x, b, 2);
    turn(x, 5);
    assert_int_equal(x->front.count, 5);
    give_room(x, b, 100);
    turn(x, 5);
    assert_int_equal(x->front.count, 8);
    assert_memory_equal(x->front.got, "abcdefgh", 8);
    /* End of file: the machine goes on, quietly. */
    close(in[1]);
    turn(x, 20);
    assert_int_equal(x->front.count, 8);
    end(x, b);
    close(in[0]);
}

static void fd_pushes_back(void **state)
{
    struct fixture *x = *state;
    static uint8_t block[4096];
    struct char_backend *b;
    size_t sent = 0;
    ssize_t n;
    int in[2], i;

    /* Without an escape nothing is lost: the pipe fills up and waits. */
    assert_int_equal(pipe2(in, O_NONBLOCK), 0);
    x->front.room = 0;
    b = char_fd_create(x->vm, in[0], open("/dev/null", O_WRONLY), false, NULL, NULL, NULL);
    attach(x, b);
    for (i = 0; i < 64; i++) {
        n = write(in[1], block, sizeof block);
        if (n > 0)
            sent += (size_t)n;
        turn(x, 1);
    }
    n = write(in[1], block, sizeof block);
    assert_true(n < 0);
    assert_true(sent < 64 * sizeof block);
    for (i = 0; i < 4000 && x->front.count < sent && x->front.count < sizeof x->front.got - 4096;
         i++) {
        give_room(x, b, 4096);
        turn(x, 1);
    }
    assert_true(x->front.count >= MIN(sent, sizeof x->front.got - 8192));
    end(x, b);
    close(in[0]);
    close(in[1]);
}

static void fd_escapes(void **state)
{
    struct fixture *x = *state;
    struct char_backend *b;
    int in[2], out[2];
    char text[512];
    ssize_t n;

    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe2(out, O_NONBLOCK), 0);
    b = char_fd_create(x->vm, in[0], out[1], true, quit, &x->front, NULL);
    attach(x, b);
    assert_int_equal(write(in[1], "a\x01\x01z\x01", 5), 5);
    turn(x, 20);
    assert_int_equal(x->front.count, 3);
    assert_memory_equal(x->front.got, "a\x01z", 3);
    assert_int_equal(write(in[1], "b", 1), 1);
    turn(x, 20);
    assert_int_equal(x->front.breaks, 1);
    assert_int_equal(write(in[1], "\x01h\x01qq", 5), 5);
    turn(x, 20);
    n = read(out[0], text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "Ctrl-A x"));
    assert_int_equal(x->front.count, 4);
    /* Leaving works on a guest that reads nothing. */
    x->front.room = 0;
    assert_int_equal(write(in[1], "0123456789\x01x", 12), 12);
    turn(x, 20);
    assert_int_equal(x->front.quits, 1);
    assert_int_equal(x->front.count, 4);
    end(x, b);
    close(in[0]);
    close(in[1]);
    close(out[0]);
    close(out[1]);
}

static void fd_keeps_what_a_slow_reader_leaves(void **state)
{
    struct fixture *x = *state;
    struct char_backend *b;
    size_t total = 300000, i, got = 0;
    uint8_t *data = malloc(total), *back = malloc(total);
    int out[2];

    for (i = 0; i < total; i++)
        data[i] = (uint8_t)(i * 31 >> 3);
    assert_int_equal(pipe(out), 0);
    b = char_fd_create(x->vm, -1, out[1], false, NULL, NULL, NULL);
    attach(x, b);
    write_out(x, b, data, total);
    while (got < total) {
        struct pollfd p = {.fd = out[0], .events = POLLIN};
        ssize_t n;

        turn(x, 1);
        if (poll(&p, 1, 1000) <= 0)
            break;
        n = read(out[0], back + got, total - got);
        assert_true(n > 0);
        got += (size_t)n;
    }
    assert_int_equal(got, total);
    assert_memory_equal(back, data, total);
    end(x, b);
    close(out[0]);
    close(out[1]);
    free(data);
    free(back);
}

static void fd_survives_a_closed_reader(void **state)
{
    struct fixture *x = *state;
    struct char_backend *b;
    int out[2];

    signal(SIGPIPE, SIG_IGN); /* as main.c does */
    assert_int_equal(pipe(out), 0);
    b = char_fd_create(x->vm, -1, out[1], false, NULL, NULL, NULL);
    attach(x, b);
    close(out[0]);
    write_out(x, b, "nobody", 6);
    write_out(x, b, "nobody", 6);
    turn(x, 5);
    end(x, b);
    close(out[1]);
}

static void fd_leaves_shared_flags_alone(void **state)
{
    struct fixture *x = *state;
    struct char_backend *b;
    struct termios before, after; /* compared whole, padding too */
    int master, slave, flags;
    char text[8];

    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    flags = fcntl(slave, F_GETFL);
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    tcgetattr(slave, &before);
    b = char_fd_create(x->vm, slave, slave, true, quit, &x->front, NULL);
    attach(x, b);
    assert_int_equal(fcntl(slave, F_GETFL), flags);
    write_out(x, b, "hi", 2);
    assert_int_equal(read(master, text, sizeof text), 2);
    assert_int_equal(write(master, "yo\n", 3), 3);
    turn(x, 20);
    assert_int_equal(x->front.count, 3);
    end(x, b);
    assert_int_equal(fcntl(slave, F_GETFL), flags);
    tcgetattr(slave, &after);
    assert_memory_equal(&before, &after, sizeof before);
    close(master);
    turn(x, 5);
    close(slave);
}

static void fd_reads_a_regular_file(void **state)
{
    struct fixture *x = *state;
    struct char_backend *b;
    char name[] = "/tmp/test_char.XXXXXX";
    int fd = mkstemp(name), i;

    unlink(name);
    for (i = 0; i < 1000; i++)
        assert_int_equal(write(fd, "0123456789", 10), 10);
    lseek(fd, 0, SEEK_SET);
    b = char_fd_create(x->vm, fd, open("/dev/null", O_WRONLY), false, NULL, NULL, NULL);
    attach(x, b);
    for (i = 0; i < 3000 && x->front.count < 10000; i++) {
        turn(x, 1);
        give_room(x, b, 64);
    }
    assert_int_equal(x->front.count, 10000);
    assert_memory_equal(x->front.got + 9990, "0123456789", 10);
    turn(x, 5);
    end(x, b);
    close(fd);
}

static void fd_takes_dev_null(void **state)
{
    struct fixture *x = *state;
    int fd = open("/dev/null", O_RDWR);
    struct char_backend *b = char_fd_create(x->vm, fd, fd, true, quit, &x->front, NULL);

    attach(x, b);
    write_out(x, b, "x", 1);
    turn(x, 10);
    assert_int_equal(x->front.count, 0);
    end(x, b);
    close(fd);
}

/* ---- file ---- */

static void file_is_written(void **state)
{
    struct fixture *x = *state;
    char name[] = "/tmp/test_char.XXXXXX", text[32] = "";
    int fd = mkstemp(name);
    struct char_backend *b;

    assert_int_equal(write(fd, "old content, longer", 19), 19);
    b = char_file_create(x->vm, name, NULL);
    attach(x, b);
    write_out(x, b, "new", 3);
    write_out(x, b, "er", 2);
    end(x, b);
    assert_int_equal(pread(fd, text, sizeof text, 0), 5);
    assert_string_equal(text, "newer");
    close(fd);
    unlink(name);
}

static void file_errors_say_what_to_do(void **state)
{
    struct fixture *x = *state;
    struct error err = {.text = ""};

    assert_null(char_file_create(x->vm, "/nowhere/at/all", &err));
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
    assert_null(char_file_create(x->vm, "/tmp", &err));
    assert_non_null(strstr(err.text, "/tmp"));
}

/* ---- socket ---- */

static int client(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void assert_reads(int fd, const char *text)
{
    char got[256];
    size_t done = 0;

    while (done < strlen(text)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n;

        assert_int_equal(poll(&p, 1, 1000), 1);
        n = read(fd, got + done, sizeof got - done);
        assert_true(n > 0);
        done += (size_t)n;
    }
    assert_int_equal(done, strlen(text));
    assert_memory_equal(got, text, done);
}

static void socket_serves_one_client_after_another(void **state)
{
    struct fixture *x = *state;
    char folder[] = "/tmp/test_char.XXXXXX", path[64];
    struct error err = {.text = ""};
    struct char_backend *b;
    struct stat st;
    struct pollfd p;
    int one, two;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/line", folder);
    b = char_socket_create(x->vm, path, &err);
    attach(x, b);
    write_out(x, b, "early ", 6);
    /* In use: a second machine is told so, and does not take it away. */
    assert_null(char_socket_create(x->vm, path, &err));
    assert_non_null(strstr(err.text, "exists"));
    one = client(path);
    two = client(path);
    turn(x, 20);
    write_out(x, b, "late", 4);
    assert_reads(one, "early late");
    assert_int_equal(write(one, "ab", 2), 2);
    assert_int_equal(write(two, "cd", 2), 2);
    turn(x, 20);
    assert_int_equal(x->front.count, 2);
    close(one);
    turn(x, 20);
    assert_int_equal(x->front.count, 4);
    assert_memory_equal(x->front.got, "abcd", 4);
    write_out(x, b, "!", 1);
    assert_reads(two, "!");
    close(two);
    turn(x, 20);
    end(x, b);
    assert_int_equal(stat(path, &st), -1);
    p = (struct pollfd){0};
    assert_int_equal(poll(&p, 0, 0), 0);
    rmdir(folder);
}

static void socket_takes_over_a_stale_file(void **state)
{
    struct fixture *x = *state;
    char folder[] = "/tmp/test_char.XXXXXX";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct char_backend *b;
    int fd;

    assert_non_null(mkdtemp(folder));
    snprintf(address.sun_path, sizeof address.sun_path, "%s/line", folder);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    b = char_socket_create(x->vm, address.sun_path, NULL);
    attach(x, b);
    end(x, b);
    rmdir(folder);
}

static void socket_keeps_the_latest_within_its_bound(void **state)
{
    struct fixture *x = *state;
    char folder[] = "/tmp/test_char.XXXXXX", path[64];
    static uint8_t block[1 << 16];
    struct char_backend *b;
    size_t got = 0;
    int fd, i;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/line", folder);
    b = char_socket_create(x->vm, path, NULL);
    attach(x, b);
    for (i = 0; i < 32; i++)
        write_out(x, b, block, sizeof block);
    write_out(x, b, "END", 3);
    fd = client(path);
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n;

        turn(x, 2);
        if (poll(&p, 1, 100) <= 0)
            break;
        n = read(fd, block, sizeof block);
        assert_true(n > 0);
        got += (size_t)n;
        if (n >= 3 && !memcmp(block + n - 3, "END", 3))
            break;
    }
    assert_int_equal(got, 256 << 10);
    close(fd);
    end(x, b);
    rmdir(folder);
}

static void socket_paths_are_checked(void **state)
{
    struct fixture *x = *state;
    struct error err = {.text = ""};
    char path[200];

    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_null(char_socket_create(x->vm, path, &err));
    assert_non_null(strstr(err.text, "too long"));
    assert_null(char_socket_create(x->vm, "/nowhere/at/all", &err));
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
}

/* ---- script ---- */

static void script_output(void *ctx, const uint8_t *data, size_t n)
{
    struct front *f = ctx;

    f->quits += (unsigned)n;
}

static void script_comes_at_its_times(void **state)
{
    static const struct char_script_event events[] = {
        {5 * NS_PER_MS, "one"},
        {5 * NS_PER_MS, " two"},
        {40 * NS_PER_MS, " three"},
    };
    struct fixture *x = *state;
    struct char_backend *b =
        char_script_create(x->vm, events, ARRAY_SIZE(events), script_output, &x->front, NULL);
    struct error err;
    enum vm_exit exit;
    int status;

    attach(x, b);
    write_out(x, b, "1234", 4);
    assert_int_equal(x->front.quits, 4);
    assert_int_equal(vm_run_until(x->vm, 4 * NS_PER_MS, &exit, &status, &err), 0);
    assert_int_equal(x->front.count, 0);
    assert_int_equal(vm_run_until(x->vm, 30 * NS_PER_MS, &exit, &status, &err), 0);
    assert_int_equal(x->front.count, 7);
    assert_int_equal(vm_run_until(x->vm, 60 * NS_PER_MS, &exit, &status, &err), 0);
    assert_int_equal(x->front.count, 13);
    assert_memory_equal(x->front.got, "one two three", 13);
    end(x, b);
}

static void script_waits_for_room(void **state)
{
    static const struct char_script_event events[] = {{0, "0123456789abcdefXYZ"}};
    struct fixture *x = *state;
    struct char_backend *b = char_script_create(x->vm, events, 1, NULL, NULL, NULL);

    attach(x, b);
    turn(x, 5);
    assert_int_equal(x->front.count, 16);
    give_room(x, b, 16);
    turn(x, 5);
    assert_int_equal(x->front.count, 19);
    end(x, b);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_keeps_order_and_bound),
        cmocka_unit_test(queue_drops_the_oldest),
        T(null_swallows),
        T(fd_respects_room),
        T(fd_pushes_back),
        T(fd_escapes),
        T(fd_keeps_what_a_slow_reader_leaves),
        T(fd_survives_a_closed_reader),
        T(fd_leaves_shared_flags_alone),
        T(fd_reads_a_regular_file),
        T(fd_takes_dev_null),
        T(file_is_written),
        T(file_errors_say_what_to_do),
        T(socket_serves_one_client_after_another),
        T(socket_takes_over_a_stale_file),
        T(socket_keeps_the_latest_within_its_bound),
        T(socket_paths_are_checked),
        cmocka_unit_test_setup_teardown(script_comes_at_its_times, setup_deterministic, teardown),
        T(script_waits_for_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
