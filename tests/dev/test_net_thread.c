/*
 * The network's thread (backend/net/net.c) between a card and a host: frames both
 * ways in order and without loss, with too little room on either side, across
 * pauses, while what the card takes changes; each bell is heard; it ends while
 * frames are under way. Also built with ThreadSanitizer.
 *
 * The card is a counter on each side under the machine's lock, which the test's
 * thread works as a driver would; the host is a pair of sockets, as tap.c has a
 * descriptor, with a thread at the other end. And libslirp's network, where it is
 * built in.
 *
 * Threading: the test's, the network's, the other end's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backend/net/host.h"
#include "base/host.h"
#include "vm/vm.h"

enum { FRAMES = 3000, ROUNDS = 1000, FRAME_MAX = 1514, A_ROUND = 32, PATIENCE_SECONDS = 60 };

/* ---- the card ---- */

struct card {
    struct vm *vm;
    struct net *net;

    /* ---- machine's lock ---- */
    unsigned wants, sent;    /* frames to send, that were taken */
    unsigned room, received; /* for frames, that were given */
    unsigned flushes;
    bool is_wrong; /* one came out of order, or not as it was sent */
    uint8_t request[64], answer[64];
    unsigned request_bytes, answer_bytes; /* instead of counted frames, for libslirp */
};

static uint32_t frame_bytes(uint32_t number)
{
    return NET_HEADER_BYTES + 4 + number * 37 % (FRAME_MAX - NET_HEADER_BYTES - 4);
}

/* Frame number n, of either side. */
static uint32_t fill(uint8_t *data, uint32_t number)
{
    uint32_t bytes = frame_bytes(number);

    memset(data, (int)(number & 0xFF), bytes);
    be32_put(data + NET_HEADER_BYTES, number);
    return bytes;
}

static bool is_frame(const uint8_t *data, uint32_t bytes, uint32_t number)
{
    return bytes == frame_bytes(number) && be32_get(data + NET_HEADER_BYTES) == number &&
           data[0] == (number & 0xFF) && (bytes <= 18 || data[bytes - 1] == (number & 0xFF));
}

static bool card_take(void *ctx, struct net_frame *f)
{
    struct card *c = ctx;

    if (c->request_bytes) {
        memcpy(f->data, c->request, c->request_bytes);
        f->bytes = c->request_bytes;
        c->request_bytes = 0;
        return true;
    }
    if (c->sent == c->wants)
        return false;
    f->bytes = fill(f->data, c->sent++);
    return true;
}

static bool card_give(void *ctx, const struct net_frame *f)
{
    struct card *c = ctx;

    if (!c->room)
        return false;
    c->room--;
    if (!is_frame(f->data, f->bytes, c->received))
        c->is_wrong = true;
    c->received++;
    if (f->bytes <= sizeof c->answer && be16_get(f->data + 12) == 0x0806) {
        memcpy(c->answer, f->data, f->bytes);
        c->answer_bytes = f->bytes;
    }
    return true;
}

static void card_flush(void *ctx)
{
    struct card *c = ctx;

    c->flushes++;
}

static void plug(struct card *c)
{
    const struct net_adapter adapter = {card_take, card_give, card_flush, c};

    vm_lock(c->vm);
    net_attach(c->net, &adapter);
    vm_unlock(c->vm);
}

/* The driver has more to send, and more room. */
static void work(struct card *c, unsigned wants, unsigned room)
{
    vm_lock(c->vm);
    c->wants += wants;
    c->room += room;
    net_kick(c->net);
    vm_unlock(c->vm);
}

static void rest(void)
{
    const struct timespec t = {.tv_nsec = 200000};

    nanosleep(&t, NULL);
}

static void await_received(struct card *c, unsigned count)
{
    uint64_t end = host_monotonic_ns() + PATIENCE_SECONDS * NS_PER_SEC;
    unsigned received;

    do {
        rest();
        vm_lock(c->vm);
        received = c->received;
        assert_false(c->is_wrong);
        vm_unlock(c->vm);
        assert_true(host_monotonic_ns() < end);
    } while (received < count);
}

/* ---- the host ---- */

struct line {
    struct card card;
    int ours, theirs, index;
    _Atomic unsigned takes, destroyed;
    uint8_t frame[FRAME_MAX];

    /* ---- the other end's ---- */
    struct thread thread;
    unsigned count; /* of frames that it sends */
    bool answers;   /* one for each that it got */
    bool is_wrong;
    unsigned got;
};

static void line_prepare(void *host, struct net_poll *poll)
{
    struct line *l = host;
    int events = (poll->may_read ? POLLIN : 0) | (poll->wants_send ? POLLOUT : 0);

    l->index = events ? net_poll_add(poll, l->ours, (short)events) : -1;
}

static void line_serve(void *host, const struct net_poll *poll)
{
    struct line *l = host;

    if (l->index < 0 || !(poll->fds[l->index].revents & POLLIN))
        return;
    for (unsigned n = 0; n < A_ROUND; n++) {
        struct net_frame f = {.data = l->frame};
        ssize_t got = recv(l->ours, l->frame, sizeof l->frame, MSG_DONTWAIT);

        if (got <= 0)
            return;
        f.bytes = (uint32_t)got;
        net_receive(l->card.net, &f);
    }
}

static int line_send(void *host, struct net_frame *f)
{
    struct line *l = host;

    if (send(l->ours, f->data, f->bytes, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return 0;
    return errno == EAGAIN ? -EAGAIN : -EIO;
}

static void line_takes_changed(void *host, unsigned takes)
{
    struct line *l = host;

    atomic_store(&l->takes, takes);
}

static void line_destroy(void *host)
{
    struct line *l = host;

    atomic_store(&l->destroyed, 1);
}

static const struct net_host_ops line_ops = {
    .name = "line",
    .has_link = true,
    .prepare = line_prepare,
    .serve = line_serve,
    .send = line_send,
    .takes_changed = line_takes_changed,
    .destroy = line_destroy,
};

/* Ends when the sockets are closed, or all has been done. */
static void *other_end(void *arg)
{
    struct line *l = arg;
    uint8_t data[FRAME_MAX];

    if (l->answers) {
        while (l->got < l->count) {
            ssize_t bytes = recv(l->theirs, data, sizeof data, 0);

            if (bytes <= 0)
                break;
            if (!is_frame(data, (uint32_t)bytes, l->got))
                l->is_wrong = true;
            if (send(l->theirs, data, (size_t)bytes, MSG_NOSIGNAL) < 0)
                break;
            l->got++;
        }
        return NULL;
    }
    for (unsigned n = 0; n < l->count; n++)
        if (send(l->theirs, data, fill(data, n), MSG_NOSIGNAL) < 0)
            break;
    return NULL;
}

static struct vm *create_vm(void)
{
    const struct vm_config config = {0};
    struct vm *vm = vm_create(&config, NULL);

    assert_non_null(vm);
    clock_resume(&vm->clock);
    return vm;
}

static struct line *line_create(unsigned count, bool answers)
{
    struct line *l = calloc(1, sizeof *l);
    int bytes = 16 * 1024, fds[2];

    assert_non_null(l);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    l->ours = fds[0];
    l->theirs = fds[1];
    for (unsigned n = 0; n < 2; n++) /* soon full */
        assert_int_equal(setsockopt(fds[n], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), 0);
    l->count = count;
    l->answers = answers;
    l->card.vm = create_vm();
    l->card.net = net_create(l->card.vm, &line_ops, l, NULL);
    assert_non_null(l->card.net);
    plug(&l->card);
    assert_int_equal(net_start(l->card.net, NULL), 0);
    assert_int_equal(thread_start(&l->thread, "other-end", other_end, l), 0);
    return l;
}

static void line_end(struct line *l)
{
    net_destroy(l->card.net);
    assert_int_equal(atomic_load(&l->destroyed), 1);
    shutdown(l->theirs, SHUT_RDWR);
    thread_join(&l->thread);
    close(l->ours);
    close(l->theirs);
    assert_false(l->is_wrong);
    vm_destroy(l->card.vm);
    free(l);
}

/* ---- tests ---- */

/* All that is sent comes back, whoever waits for whom. */
static void both_ways(void **state)
{
    struct line *l = line_create(FRAMES, true);
    struct card *c = &l->card;
    unsigned wants = 0, room = 0, seed = 1;

    while (wants < FRAMES || room < FRAMES) {
        unsigned more = MIN(seed >> 3 & 127, FRAMES - wants),
                 places = MIN(seed & 63, FRAMES - room);

        seed = seed * 1103515245 + 12345;
        work(c, more, places);
        wants += more;
        room += places;
        vm_lock(c->vm);
        if (seed >> 16 & 1)
            net_set_takes(c->net, seed >> 17 & (NET_TAKES_CHECKSUM | NET_TAKES_TCPV4));
        if (seed >> 20 & 1)
            clock_pause(&c->vm->clock);
        vm_unlock(c->vm);
        if (seed >> 21 & 1)
            rest();
        vm_lock(c->vm);
        if (atomic_load(&c->vm->clock.paused_at) != TIME_NEVER)
            clock_resume(&c->vm->clock);
        vm_unlock(c->vm);
    }
    await_received(c, FRAMES);
    vm_lock(c->vm);
    assert_int_equal(net_count(c->net).sent, FRAMES);
    assert_int_equal(net_count(c->net).received, FRAMES);
    assert_int_equal(net_count(c->net).dropped, 0);
    assert_true(c->flushes > 0);
    vm_unlock(c->vm);
    line_end(l);
}

/* One frame at a time, after up to 0.5 ms, so that the thread looks for it, sleeps, or is
 * about to. */
static void bells(void **state)
{
    struct line *l = line_create(ROUNDS, true);
    uint64_t seed = 1;

    for (unsigned n = 0; n < ROUNDS; n++) {
        uint64_t end = host_monotonic_ns();

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        end += n % 2 ? (seed >> 33) % 500000 : 0;
        while (host_monotonic_ns() < end)
            continue;
        work(&l->card, 1, 1);
        await_received(&l->card, n + 1);
    }
    line_end(l);
}

/* Nothing moves in a pause, and what was asked for then moves after it. */
static void paused(void **state)
{
    struct line *l = line_create(64, true);
    struct card *c = &l->card;

    vm_lock(c->vm);
    clock_pause(&c->vm->clock);
    vm_unlock(c->vm);
    work(c, 64, 64);
    for (unsigned n = 0; n < 100; n++)
        rest();
    vm_lock(c->vm);
    assert_int_equal(c->sent, 0);
    clock_resume(&c->vm->clock);
    vm_unlock(c->vm);
    await_received(c, 64);
    line_end(l);
}

/* Frames in the card, in the queue and in the sockets when it ends. */
static void ends_in_the_middle(void **state)
{
    for (unsigned n = 0; n < 20; n++) {
        struct line *l = line_create(FRAMES, n & 1);

        work(&l->card, FRAMES, n * 40);
        if (n & 2)
            await_received(&l->card, n);
        line_end(l);
    }
}

/* libslirp answers who has 10.0.2.2; again and again, from its own thread. */
static void user_network(void **state)
{
    static const uint8_t ask[42] = {
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x56, 0x49, 0x52, 0,    0,    1, 0x08, 0x06, /* ARP */
        0,    1,    8,    0,    6,    4,    0,    1,    0x56, 0x49, 0x52, 0, 0,    1,
        10,   0,    2,    15,   0,    0,    0,    0,    0,    0,    10,   0, 2,    2};
    const struct net_user_config config = {0};
    struct card card = {.vm = create_vm()};
    uint64_t end = host_monotonic_ns() + PATIENCE_SECONDS * NS_PER_SEC;

    if (!net_user_available()) {
        vm_destroy(card.vm);
        skip();
    }
    card.net = net_user_create(card.vm, &config, NULL);
    assert_non_null(card.net);
    plug(&card);
    for (unsigned n = 0; n < 50; n++) {
        bool answered = false;

        vm_lock(card.vm);
        memcpy(card.request, ask, sizeof ask);
        card.request_bytes = sizeof ask;
        card.answer_bytes = 0;
        card.room = 100;
        net_set_takes(card.net, n & 1 ? NET_TAKES_CHECKSUM | NET_TAKES_TCPV4 : 0);
        net_kick(card.net);
        vm_unlock(card.vm);
        while (!answered) {
            rest();
            vm_lock(card.vm);
            answered = card.answer_bytes >= 42;
            vm_unlock(card.vm);
            assert_true(host_monotonic_ns() < end);
        }
        assert_memory_equal(card.answer, ask + 6, 6); /* to us, from 10.0.2.2 */
        assert_memory_equal(card.answer + 28, "\x0a\x00\x02\x02", 4);
    }
    net_destroy(card.net);
    vm_destroy(card.vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways),    cmocka_unit_test(bells),
        cmocka_unit_test(paused),       cmocka_unit_test(ends_in_the_middle),
        cmocka_unit_test(user_network),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
