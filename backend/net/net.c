/*
 * A network back end's middle: from an adapter's rings to the host and back.
 * Interface: net.h; what is behind it: host.h.
 *
 *     guest's ring --take--> batch --send--> host
 *     guest's ring <--give-- queue <--net_receive-- host
 *
 * One thread does all of it, in rounds: it waits for the host's descriptors and
 * for the bell; serves the host, which fills the queue; with the machine's lock
 * empties the queue into the guest and fills the batch; and sends the batch
 * without the lock.
 *
 * The bell is an eventfd, rung only while the thread sleeps or is about to: it
 * stores `asleep`, then looks at `kicked`; who kicks stores `kicked`, then looks
 * at `asleep`. Both are sequentially consistent, so one of them sees the other.
 *
 * Threading: as net.h says; what is the thread's own is marked.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/net/host.h"
#include "backend/net/packet.h"
#include "base/host.h"
#include "base/patience.h"
#include "vm/vm.h"

enum {
    QUEUE_BYTES = 512 * 1024,
    BATCH_BYTES = 256 * 1024,
    BATCH_FRAMES = 64,
    RECORD_ALIGN = 8,
    PAUSED_POLL_MS = 20,
};

/* Before each frame in the queue and in the batch. */
struct record {
    uint32_t bytes;
    struct net_offload offload;
    uint8_t data[];
};

#define RECORD_MAX align_up(sizeof(struct record) + NET_FRAME_MAX, RECORD_ALIGN)
/* Where the queue starts anew: the next record is at its beginning. */
#define RECORD_WRAP UINT32_MAX

struct net {
    struct vm *vm;
    const struct net_host_ops *ops;
    void *host;
    struct net_adapter adapter; /* machine's lock */
    struct net_counters counters;
    bool moving; /* machine's lock: within an operation of the adapter's */
    _Atomic unsigned takes;

    /* ---- the thread's own; of a synchronous one under the machine's lock ---- */
    uint8_t *queue; /* a ring of records: [head, tail) */
    uint32_t head, tail;
    bool queue_wrapped; /* tail is before head */
    bool is_refused;    /* the guest had no room for what is first there */
    uint8_t *batch;
    uint32_t batch_used, batch_at;
    uint8_t *scratch; /* of segmentation */
    struct net_poll poll;
    struct patience patience;
    uint64_t lost; /* added to counters.dropped */

    struct thread thread;
    bool has_thread;
    int bell;
    _Atomic uint32_t asleep, kicked, quit;
};

/* ---- the queue ---- */

/* Room for a record of the largest kind? */
static struct record *queue_room(struct net *n, uint32_t bytes)
{
    uint32_t need = (uint32_t)align_up(sizeof(struct record) + bytes, RECORD_ALIGN);

    if (!n->queue_wrapped && n->head == n->tail)
        n->head = n->tail = 0;
    if (!n->queue_wrapped && QUEUE_BYTES - n->tail < need + sizeof(struct record)) {
        if (n->head < need + sizeof(struct record))
            return NULL;
        ((struct record *)(n->queue + n->tail))->bytes = RECORD_WRAP;
        n->tail = 0;
        n->queue_wrapped = true;
    }
    if (n->queue_wrapped && n->head - n->tail < need + sizeof(struct record))
        return NULL;
    return (struct record *)(n->queue + n->tail);
}

static void queue_push(struct net *n, const struct net_frame *f)
{
    struct record *r = queue_room(n, f->bytes);

    if (!r) {
        n->lost++;
        return;
    }
    r->bytes = f->bytes;
    r->offload = f->offload;
    memcpy(r->data, f->data, f->bytes);
    n->tail += (uint32_t)align_up(sizeof *r + f->bytes, RECORD_ALIGN);
}

static struct record *queue_first(struct net *n)
{
    struct record *r = (struct record *)(n->queue + n->head);

    if (n->queue_wrapped && r->bytes == RECORD_WRAP) {
        n->head = 0;
        n->queue_wrapped = false;
        r = (struct record *)n->queue;
    }
    return !n->queue_wrapped && n->head == n->tail ? NULL : r;
}

static void queue_pop(struct net *n, const struct record *r)
{
    n->head += (uint32_t)align_up(sizeof *r + r->bytes, RECORD_ALIGN);
}

/* Enough for what the host gives in one round, as far as that can be known. */
static bool queue_is_roomy(const struct net *n)
{
    uint32_t used = n->queue_wrapped ? QUEUE_BYTES - n->head + n->tail : n->tail - n->head;

    return used < QUEUE_BYTES / 2;
}

/* ---- from the host ---- */

static void emit_received(void *ctx, struct net_frame *f)
{
    queue_push(ctx, f);
}

void net_receive(struct net *n, const struct net_frame *frame)
{
    unsigned takes = net_takes_now(n);
    struct net_frame f = *frame;
    uint8_t gso = f.offload.gso & (uint8_t)~NET_GSO_ECN;

    if (f.bytes > NET_FRAME_MAX || f.bytes < NET_HEADER_BYTES) {
        n->lost++;
    } else if ((gso == NET_GSO_TCPV4 && !(takes & NET_TAKES_TCPV4)) ||
               (gso == NET_GSO_TCPV6 && !(takes & NET_TAKES_TCPV6)) || gso == NET_GSO_UDP) {
        if (!packet_segment(&f, n->scratch, emit_received, n))
            n->lost++;
    } else {
        if (!(takes & NET_TAKES_CHECKSUM) && !packet_checksum(&f))
            n->lost++;
        else
            queue_push(n, &f);
    }
    if (n->ops->is_synchronous)
        net_kick(n);
}

/* With the machine's lock. */
static void give(struct net *n)
{
    struct record *r;

    while ((r = queue_first(n))) {
        struct net_frame f = {.data = r->data, .bytes = r->bytes, .offload = r->offload};

        n->is_refused = !n->adapter.give(n->adapter.ctx, &f);
        if (n->is_refused)
            break;
        n->counters.received++;
        n->counters.received_bytes += r->bytes;
        queue_pop(n, r);
    }
}

/* ---- to the host ---- */

/* With the machine's lock. True: there may be more. */
static bool take(struct net *n)
{
    for (unsigned frames = 0; frames < BATCH_FRAMES; frames++) {
        struct record *r = (struct record *)(n->batch + n->batch_used);
        struct net_frame f = {.data = r->data};

        if (BATCH_BYTES - n->batch_used < RECORD_MAX)
            return true;
        if (!n->adapter.take(n->adapter.ctx, &f))
            return false;
        n->counters.sent++;
        n->counters.sent_bytes += f.bytes;
        r->bytes = f.bytes;
        r->offload = f.offload;
        n->batch_used += (uint32_t)align_up(sizeof *r + f.bytes, RECORD_ALIGN);
    }
    return true;
}

static void emit_sent(void *ctx, struct net_frame *f)
{
    struct net *n = ctx;

    if (n->ops->send(n->host, f))
        n->lost++;
}

/* -EAGAIN, or it is done with. */
static int send_frame(struct net *n, struct net_frame *f)
{
    uint8_t gso = f->offload.gso & (uint8_t)~NET_GSO_ECN;
    int ret = 0;

    if (f->bytes < NET_HEADER_BYTES) {
        ret = -EINVAL;
    } else if (gso && !((gso == NET_GSO_TCPV4 && n->ops->takes & NET_TAKES_TCPV4) ||
                        (gso == NET_GSO_TCPV6 && n->ops->takes & NET_TAKES_TCPV6))) {
        if (!packet_segment(f, n->scratch, emit_sent, n))
            ret = -EINVAL;
    } else if (!(n->ops->takes & NET_TAKES_CHECKSUM) && !packet_checksum(f)) {
        ret = -EINVAL;
    } else {
        ret = n->ops->send(n->host, f);
    }
    if (ret == -EAGAIN)
        return ret;
    if (ret)
        n->lost++;
    return 0;
}

/* False: the host takes no more now. */
static bool send_batch(struct net *n)
{
    while (n->batch_at < n->batch_used) {
        struct record *r = (struct record *)(n->batch + n->batch_at);
        struct net_frame f = {.data = r->data, .bytes = r->bytes, .offload = r->offload};

        if (send_frame(n, &f) == -EAGAIN) {
            r->offload = f.offload; /* a checksum is filled in once */
            return false;
        }
        n->batch_at += (uint32_t)align_up(sizeof *r + r->bytes, RECORD_ALIGN);
    }
    n->batch_at = n->batch_used = 0;
    return true;
}

/* ---- rounds ---- */

/* With the machine's lock. True: the guest may have more to send. */
static bool move(struct net *n)
{
    bool more = true;

    n->moving = true;
    give(n);
    if (!n->batch_used)
        more = take(n);
    if (n->adapter.flush)
        n->adapter.flush(n->adapter.ctx);
    n->moving = false;
    n->counters.dropped += n->lost;
    n->lost = 0;
    return more;
}

static bool is_running(struct net *n)
{
    return atomic_load(&n->vm->clock.paused_at) == TIME_NEVER;
}

static void poll_now(struct net_poll *p, int timeout_ms)
{
    if (poll(p->fds, p->count, timeout_ms) < 0)
        for (unsigned i = 0; i < p->count; i++)
            p->fds[i].revents = 0;
}

static bool has_event(const struct net_poll *p)
{
    for (unsigned i = 0; i < p->count; i++)
        if (p->fds[i].revents)
            return true;
    return false;
}

static bool is_called(struct net *n)
{
    return atomic_load(&n->kicked) || atomic_load(&n->quit);
}

/* As patience_look, for descriptors and kicks. */
static bool look(struct net *n)
{
    struct patience *p = &n->patience;

    for (bool looks = patience_begin(p); looks; looks = patience_lasts(p)) {
        poll_now(&n->poll, 0);
        if (has_event(&n->poll) || is_called(n))
            return true;
    }
    return false;
}

/* Until there is an event or a kick. */
static void wait_for_event(struct net *n)
{
    uint64_t start = host_monotonic_ns();

    if (!look(n)) {
        atomic_store(&n->asleep, 1);
        poll_now(&n->poll, is_called(n) ? 0 : n->poll.timeout_ms);
        atomic_store(&n->asleep, 0);
    }
    patience_learn(&n->patience, host_monotonic_ns() - start);
}

/* Waits, and lets the host's side work. timeout_ms: at most. */
static void wait_for_host(struct net *n, int timeout_ms)
{
    struct net_poll *p = &n->poll;

    p->count = 0;
    p->timeout_ms = timeout_ms;
    p->may_read = queue_is_roomy(n);
    p->wants_send = n->batch_used != 0;
    net_poll_add(p, n->bell, POLLIN);
    n->ops->prepare(n->host, p);
    if (p->timeout_ms)
        wait_for_event(n);
    else
        poll_now(p, 0);
    if (p->count && p->fds[0].revents) {
        uint64_t rings;

        if (read(n->bell, &rings, sizeof rings) < 0)
            return; /* rung again before the next round */
    }
    n->ops->serve(n->host, p);
}

static void *thread_main(void *arg)
{
    struct net *n = arg;
    bool more = false, paused = false;

    while (!atomic_load(&n->quit)) {
        /* What the guest had no room for waits for the adapter's kick. */
        bool ready = (more && !n->batch_used) || (queue_first(n) && !n->is_refused);

        wait_for_host(n, paused ? PAUSED_POLL_MS : ready ? 0 : -1);
        paused = false;
        if (ready || atomic_load(&n->kicked) || (queue_first(n) && !n->is_refused)) {
            vm_lock(n->vm);
            paused = !is_running(n);
            if (!paused) {
                atomic_store(&n->kicked, 0);
                more = move(n);
            }
            vm_unlock(n->vm);
        }
        send_batch(n);
    }
    return NULL;
}

/* ---- interface ---- */

void net_kick(struct net *n)
{
    uint64_t one = 1;

    if (!n->adapter.take)
        return;
    if (n->ops->is_synchronous) {
        if (n->moving)
            return;
        while (move(n)) {
            n->moving = true;
            send_batch(n);
            n->moving = false;
        }
        n->moving = true;
        send_batch(n);
        n->moving = false;
        return;
    }
    atomic_store(&n->kicked, 1);
    if (atomic_load(&n->asleep) && atomic_exchange(&n->asleep, 0)) {
        /* It never fills: the thread reads it. */
        if (write(n->bell, &one, sizeof one) < 0)
            return;
    }
}

void net_restored(struct net *n)
{
    if (!n->ops->is_synchronous)
        net_kick(n);
}

void net_attach(struct net *n, const struct net_adapter *adapter)
{
    n->adapter = *adapter;
}

void net_set_takes(struct net *n, unsigned takes)
{
    atomic_store(&n->takes, takes);
    if (n->ops->takes_changed)
        n->ops->takes_changed(n->host, takes);
}

bool net_has_waiting(struct net *n)
{
    return queue_first(n);
}

unsigned net_takes_now(const struct net *n)
{
    return atomic_load(&n->takes);
}

bool net_link(const struct net *n)
{
    return n->ops->has_link;
}

struct net_counters net_count(const struct net *n)
{
    return n->counters;
}

int net_poll_add(struct net_poll *p, int fd, short events)
{
    if (p->count == p->capacity) {
        unsigned capacity = p->capacity ? p->capacity * 2 : 16;
        struct pollfd *fds = realloc(p->fds, capacity * sizeof *fds);

        if (!fds)
            return -1;
        p->fds = fds;
        p->capacity = capacity;
    }
    p->fds[p->count] = (struct pollfd){.fd = fd, .events = events};
    return (int)p->count++;
}

struct net *net_create(struct vm *vm, const struct net_host_ops *ops, void *host,
                       struct error *err)
{
    struct net *n = calloc(1, sizeof *n);

    if (!n) {
        ops->destroy(host);
        error_set(err, -ENOMEM, "out of memory for a network");
        return NULL;
    }
    n->vm = vm;
    n->ops = ops;
    n->host = host;
    n->bell = -1;
    n->queue = malloc(QUEUE_BYTES);
    n->batch = malloc(BATCH_BYTES);
    n->scratch = malloc(NET_FRAME_MAX);
    if (n->queue && n->batch && n->scratch)
        return n;
    error_set(err, -ENOMEM, "out of memory for a network");
    net_destroy(n);
    return NULL;
}

int net_start(struct net *n, struct error *err)
{
    int ret;

    n->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (n->bell < 0)
        return error_set(err, -errno, "cannot create an eventfd: %s", strerror(errno));
    ret = thread_start(&n->thread, "net", thread_main, n);
    if (ret)
        return error_set(err, ret, "cannot start a thread for the network: %s", strerror(-ret));
    n->has_thread = true;
    return 0;
}

void net_destroy(struct net *n)
{
    uint64_t one = 1;

    if (!n)
        return;
    if (n->has_thread) {
        atomic_store(&n->quit, 1);
        if (write(n->bell, &one, sizeof one) > 0)
            thread_join(&n->thread);
    }
    if (n->bell >= 0)
        close(n->bell);
    n->ops->destroy(n->host);
    free(n->poll.fds);
    free(n->queue);
    free(n->batch);
    free(n->scratch);
    free(n);
}
