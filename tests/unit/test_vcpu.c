/*
 * vm/vcpu.c, vm/run.c, vm/lock.c, vm/det.c: processors whose guest code is a C
 * function, so that every handshake can be stressed without an instruction
 * set. Runs under the thread sanitizer, which checks what the rendezvous and
 * exclusive sections promise: data that is only touched where they say so is
 * plain memory here.
 *
 * cmocka's assertions belong to the main thread; other threads count failures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#include "vm/loop.h"
#include "vm/state.h"
#include "vm/vm.h"

#define CPUS 4

struct rig;

struct fake {
    struct vcpu v;
    struct rig *rig;
    uint64_t retired; /* its own thread, or nobody runs */
    uint64_t seed;
    _Atomic uint32_t irq;   /* interrupts on their way */
    _Atomic uint64_t steps; /* of guest code */
    bool writable;          /* a translation: may store to page[index] */
    unsigned turns;
    uint64_t irqs_taken, irq_hash;
};

struct rig {
    struct vm *vm;
    struct fake cpu[CPUS];
    unsigned cpus;
    /* One guest step; true: halt after it. */
    bool (*step)(struct fake *f);
    _Atomic unsigned failures;
    struct region region;
    /* Exclusive: plain on purpose. */
    uint64_t exclusive_counter;
    _Atomic unsigned exclusive_running;
    /* Rendezvous: page[i] is written by cpu i while its translation is
     * writable, and read by others after they revoked that. */
    uint64_t page[CPUS];
    _Atomic unsigned marked;
    uint64_t device_counter; /* under the machine's lock */
    _Atomic unsigned resets;
    int reset_result;
    struct vcpu *shut_down;
    uint64_t trace_hash;
    struct timer timer[3];
    uint64_t fired[3];
};

static uint32_t random32(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*seed >> 33);
}

#define CHECK(f, what)                                                                             \
    do {                                                                                           \
        if (!(what))                                                                               \
            atomic_fetch_add(&(f)->rig->failures, 1);                                              \
    } while (0)

static struct fake *fake_of(struct vcpu *v)
{
    return CONTAINER_OF(v, struct fake, v);
}

static void fake_revoke(struct vcpu *v)
{
    fake_of(v)->writable = false;
}

static enum vcpu_exit fake_run(struct vcpu *v, uint64_t budget)
{
    struct fake *f = fake_of(v);
    uint64_t end = f->retired + budget < f->retired ? UINT64_MAX : f->retired + budget;

    vcpu_enter(v);
    f->turns++;
    for (;;) {
        if (atomic_load_explicit(&v->events, memory_order_relaxed)) {
            uint32_t events = vcpu_take_events(v);

            if (events & EVENT_REVOKE)
                fake_revoke(v);
            if (events & EVENT_CODE)
                vcpu_drain_code(v);
            if (events & EVENT_INTERRUPT) {
                uint32_t n = atomic_exchange(&f->irq, 0);

                f->irqs_taken += n;
                f->irq_hash = (f->irq_hash ^ (n * 0x9e3779b9ull + f->retired)) * 0x100000001b3ull;
            }
            if (events & EVENT_PAUSE) {
                vcpu_leave(v);
                return VCPU_EXIT_EVENT;
            }
            if (events & EVENT_EXCLUSIVE) {
                vcpu_leave(v);
                vcpu_enter(v);
                continue;
            }
        }
        if (f->retired >= end) {
            vcpu_leave(v);
            return VCPU_EXIT_EVENT;
        }
        f->retired++;
        atomic_fetch_add_explicit(&f->steps, 1, memory_order_relaxed);
        if (f->rig->step(f)) {
            vcpu_leave(v);
            return VCPU_EXIT_HALT;
        }
    }
}

static uint64_t fake_retired(struct vcpu *v)
{
    return fake_of(v)->retired;
}

static bool fake_has_work(struct vcpu *v)
{
    return atomic_load(&fake_of(v)->irq);
}

static void fake_reset(struct vcpu *v)
{
    fake_of(v)->retired = 0;
    atomic_store(&fake_of(v)->irq, 0);
}

static const struct vcpu_ops fake_ops = {
    .run = fake_run,
    .retired = fake_retired,
    .has_work = fake_has_work,
    .reset = fake_reset,
    .revoke = fake_revoke,
};

static const struct state_field fake_fields[] = {
    STATE_INT(struct fake, retired),    STATE_INT(struct fake, seed),
    STATE_INT(struct fake, irqs_taken), STATE_INT(struct fake, irq_hash),
    STATE_INT(struct fake, irq),        STATE_END,
};
static const struct state_table fake_state = {.name = "fake", .version = 1, .fields = fake_fields};

static void interrupt(struct fake *f)
{
    atomic_fetch_add(&f->irq, 1);
    vcpu_post(&f->v, EVENT_INTERRUPT);
}

/* The device: a counter under the machine's lock. */
static uint64_t device_read(void *ctx, uint64_t offset, unsigned size)
{
    return ((struct rig *)ctx)->device_counter++;
}

static void device_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct rig *r = ctx;

    switch (offset) {
    case 0:
        r->device_counter += value;
        break;
    case 4:
        vm_request_reset(r->vm);
        break;
    case 8:
        vm_request_poweroff(r->vm, (int)value);
        break;
    }
}

static const struct region_ops device_ops = {device_read, device_write, 4, 4};

static struct rig *rig_create(unsigned cpus, bool deterministic, bool (*step)(struct fake *f))
{
    struct vm_config config = {.deterministic = deterministic, .seed = 7, .quantum = 100};
    struct rig *r = calloc(1, sizeof *r);

    r->vm = vm_create(&config, NULL);
    assert_non_null(r->vm);
    r->step = step;
    r->cpus = cpus;
    for (unsigned i = 0; i < cpus; i++) {
        struct fake *f = &r->cpu[i];

        *f = (struct fake){
            .rig = r, .seed = i + 1, .v = {.ops = &fake_ops, .state = &fake_state, .self = f}};
        assert_int_equal(vm_add_vcpu(r->vm, &f->v), 0);
    }
    r->region = (struct region){
        .name = "device", .base = 0x1000, .size = 0x10, .ops = &device_ops, .ctx = r};
    assert_int_equal(region_add(&r->vm->memory, &r->region), 0);
    return r;
}

static void rig_destroy(struct rig *r)
{
    vm_destroy(r->vm);
    free(r);
}

static enum vm_exit run(struct rig *r, uint64_t until)
{
    enum vm_exit exit;
    struct error err = {""};

    assert_int_equal(vm_run_until(r->vm, until, &exit, NULL, &err), 0);
    return exit;
}

/* ---- rendezvous, exclusive sections, device accesses, all at once ---- */

static void step_exclusive(struct fake *f)
{
    struct rig *r = f->rig;
    uint64_t v;

    vcpu_exclusive_begin(&f->v);
    CHECK(f, atomic_fetch_add(&r->exclusive_running, 1) == 0);
    r->exclusive_counter++;
    if (random32(&f->seed) % 4 == 0) /* a device access in the middle of it */
        as_load(&r->vm->memory, 0x1000, 4, &v);
    CHECK(f, atomic_fetch_sub(&r->exclusive_running, 1) == 1);
    vcpu_exclusive_end(&f->v);
}

/* As an engine marks a page before it reads code from it. */
static void step_rendezvous(struct fake *f)
{
    struct rig *r = f->rig;
    uint64_t before[CPUS];

    atomic_fetch_add(&r->marked, 1);
    vcpu_rendezvous(&f->v, EVENT_REVOKE);
    for (unsigned i = 0; i < r->cpus; i++)
        before[i] = i == f->v.index ? 0 : r->page[i];
    for (int i = 0; i < 20; i++)
        __builtin_ia32_pause();
    for (unsigned i = 0; i < r->cpus; i++)
        CHECK(f, i == f->v.index || before[i] == r->page[i]);
    atomic_fetch_sub(&r->marked, 1);
}

static void store_own_page(struct fake *f)
{
    struct rig *r = f->rig;

    /* A translation is made writable only while nobody has marked the page;
     * made within an instruction, so before the next safepoint. */
    if (!f->writable && !atomic_load(&r->marked))
        f->writable = true;
    if (f->writable)
        r->page[f->v.index]++;
}

static bool step_everything(struct fake *f)
{
    struct rig *r = f->rig;
    uint64_t v;

    CHECK(f, !atomic_load(&r->exclusive_running));
    switch (random32(&f->seed) % 64) {
    case 0:
        step_exclusive(f);
        break;
    case 1:
        step_rendezvous(f);
        break;
    case 2:
    case 3:
        /* One instruction: a device access that may have to wait, then a store
         * through a translation that may be gone by then. */
        as_store(&r->vm->memory, 0x1000, 4, 1);
        CHECK(f, !atomic_load(&r->exclusive_running));
        if (f->writable)
            r->page[f->v.index]++;
        break;
    case 4:
        as_load(&r->vm->memory, 0x1000, 4, &v);
        break;
    case 5:
        interrupt(&r->cpu[random32(&f->seed) % r->cpus]);
        break;
    case 6:
        /* A hostile guest moves a mapping about. */
        vm_lock(r->vm);
        region_move(&r->region, random32(&f->seed) % 2 ? 0x1000 : 0x2000);
        region_move(&r->region, 0x1000);
        vm_unlock(r->vm);
        break;
    case 7:
        return random32(&f->seed) % 2 && f->v.index; /* someone has to go on */
    default:
        store_own_page(f);
        break;
    }
    if (f->v.index == 0 && random32(&f->seed) % 64 == 0)
        for (unsigned i = 1; i < r->cpus; i++)
            interrupt(&r->cpu[i]);
    return false;
}

struct pauser {
    struct rig *rig;
    struct thread thread;
    _Atomic bool quit;
    unsigned rounds;
};

static void *pause_often(void *arg)
{
    struct pauser *p = arg;
    struct rig *r = p->rig;

    while (!atomic_load(&p->quit)) {
        uint64_t steps[CPUS], retired[CPUS], now;

        vm_pause(r->vm);
        now = clock_now_ns(&r->vm->clock);
        for (unsigned i = 0; i < r->cpus; i++) {
            steps[i] = atomic_load(&r->cpu[i].steps);
            retired[i] = r->cpu[i].retired; /* plain: they stand still */
        }
        for (int i = 0; i < 100; i++)
            __builtin_ia32_pause();
        for (unsigned i = 0; i < r->cpus; i++) {
            CHECK(&r->cpu[0], steps[i] == atomic_load(&r->cpu[i].steps));
            CHECK(&r->cpu[0], retired[i] == r->cpu[i].retired);
            CHECK(&r->cpu[0], !atomic_load(&r->cpu[i].v.inside));
        }
        CHECK(&r->cpu[0], now == clock_now_ns(&r->vm->clock));
        vm_resume(r->vm);
        p->rounds++;
        usleep(200);
    }
    return NULL;
}

struct ticker {
    struct timer timer;
    struct rig *rig;
    unsigned fired;
};

/* On the I/O thread, with the lock: pauses there, too. */
static void tick(void *ctx)
{
    struct ticker *t = ctx;
    struct rig *r = t->rig;

    t->fired++;
    r->device_counter++;
    for (unsigned i = 0; i < r->cpus; i++)
        interrupt(&r->cpu[i]);
    if (t->fired % 3 == 0) {
        vm_pause(r->vm);
        for (unsigned i = 0; i < r->cpus; i++)
            CHECK(&r->cpu[0], !atomic_load(&r->cpu[i].v.inside));
        vm_resume(r->vm);
    }
    timer_arm(&t->timer, clock_now_ns(&r->vm->clock) + 300 * NS_PER_US);
}

static void test_stress(void **state)
{
    struct rig *r = rig_create(CPUS, false, step_everything);
    struct pauser pausers[2] = {{.rig = r}, {.rig = r}};
    struct ticker ticker = {.rig = r};
    const struct flat_view *view;
    unsigned retired = 0;

    timer_init(&ticker.timer, r->vm, tick, &ticker);
    timer_arm(&ticker.timer, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(thread_start(&pausers[i].thread, "pauser", pause_often, &pausers[i]), 0);
    for (int round = 1; round <= 3; round++)
        assert_int_equal(run(r, (uint64_t)round * 300 * NS_PER_MS), VM_EXIT_LIMIT);
    for (int i = 0; i < 2; i++) {
        atomic_store(&pausers[i].quit, true);
        thread_join(&pausers[i].thread);
        assert_true(pausers[i].rounds > 0);
    }
    assert_true(ticker.fired > 0);
    assert_int_equal(atomic_load(&r->failures), 0);
    assert_true(r->exclusive_counter > 0);
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(atomic_load(&r->cpu[i].steps) > 0);
    /* Thousands of views were replaced; nothing keeps them. */
    assert_true(atomic_load(&r->vm->view_generation) > 50);
    vm_lock(r->vm);
    vm_unlock(r->vm);
    for (view = r->vm->retired_views; view; view = view->next_retired)
        retired++;
    assert_int_equal(retired, 0);
    timer_destroy(&ticker.timer);
    rig_destroy(r);
}

/* ---- no wake-up is lost ---- */

/* Each hands the token on and halts at once: any lost wake-up stops them all. */
static bool step_ring(struct fake *f)
{
    struct rig *r = f->rig;
    uint64_t had = f->irqs_taken;

    if (!had)
        return true;
    f->irqs_taken = 0;
    if (++f->turns >= 20000)
        vm_stop(r->vm);
    interrupt(&r->cpu[(f->v.index + 1) % r->cpus]);
    return true;
}

/* The same, each having kept it for up to 0.3 ms: those who wait look for it, sleep, or
 * are on their way from one to the other. */
static bool step_slow_ring(struct fake *f)
{
    uint64_t end = host_monotonic_ns() + random32(&f->seed) % 300000;

    if (!f->irqs_taken)
        return true;
    while (host_monotonic_ns() < end)
        continue;
    f->turns += 4;
    return step_ring(f);
}

static void test_no_lost_wakeup(void **state)
{
    static bool (*const steps[])(struct fake *f) = {step_ring, step_slow_ring};

    for (unsigned n = 0; n < ARRAY_SIZE(steps); n++) {
        struct rig *r = rig_create(3, false, steps[n]);

        interrupt(&r->cpu[0]);
        assert_int_equal(run(r, TIME_NEVER), VM_EXIT_STOPPED);
        rig_destroy(r);
    }
}

/* ---- lifecycle ---- */

static bool step_reset_twice(struct fake *f)
{
    struct rig *r = f->rig;

    if (f->v.index)
        return false; /* spins */
    if (f->retired == 1)
        as_store(&r->vm->memory, atomic_load(&r->resets) < 2 ? 0x1004 : 0x1008, 4, 33);
    return false;
}

static int after_reset(void *board, struct error *err)
{
    struct rig *r = board;

    atomic_fetch_add(&r->resets, 1);
    for (unsigned i = 0; i < r->cpus; i++)
        if (atomic_load(&r->cpu[i].v.inside) || r->cpu[i].retired)
            atomic_fetch_add(&r->failures, 1);
    return r->reset_result ? error_set(err, r->reset_result, "no kernel") : 0;
}

static void run_lifecycle(bool deterministic)
{
    struct rig *r = rig_create(CPUS, deterministic, step_reset_twice);
    enum vm_exit exit;
    struct error err = {""};
    int status = 0;

    r->vm->after_reset = after_reset;
    r->vm->board = r;
    assert_int_equal(vm_run(r->vm, &exit, &status, &err), 0);
    assert_int_equal(exit, VM_EXIT_POWEROFF);
    assert_int_equal(status, 33);
    assert_int_equal(r->resets, 2);
    assert_int_equal(r->failures, 0);

    /* The board cannot load its kernel again. */
    r->resets = 0;
    r->reset_result = -EIO;
    for (unsigned i = 0; i < r->cpus; i++)
        r->cpu[i].retired = 0;
    assert_int_equal(vm_run(r->vm, &exit, &status, &err), -EIO);
    assert_string_equal(err.text, "no kernel");

    r->vm->no_reboot = true;
    r->resets = 0;
    for (unsigned i = 0; i < r->cpus; i++)
        r->cpu[i].retired = 0;
    assert_int_equal(vm_run(r->vm, &exit, &status, &err), 0);
    assert_int_equal(exit, VM_EXIT_RESET);
    assert_int_equal(r->resets, 0);
    rig_destroy(r);
}

static void test_lifecycle(void **state)
{
    run_lifecycle(false);
    run_lifecycle(true);
}

static bool step_spin(struct fake *f)
{
    return false;
}

static enum vcpu_exit run_shutdown(struct vcpu *v, uint64_t budget)
{
    vcpu_enter(v);
    fake_of(v)->retired += 5;
    vcpu_leave(v);
    return VCPU_EXIT_SHUTDOWN;
}

static void on_shutdown(void *board, struct vcpu *v)
{
    struct rig *r = board;

    r->shut_down = v;
    if (fake_of(v)->retired != 5)
        atomic_fetch_add(&r->failures, 1); /* registers as they were */
}

static void run_triple_fault(bool deterministic)
{
    static const struct vcpu_ops dying_ops = {.run = run_shutdown,
                                              .retired = fake_retired,
                                              .has_work = fake_has_work,
                                              .reset = fake_reset};
    struct rig *r = rig_create(2, deterministic, step_spin);

    r->vm->no_reboot = true;
    r->vm->on_shutdown = on_shutdown;
    r->vm->board = r;
    r->cpu[1].v.ops = &dying_ops;
    assert_int_equal(run(r, TIME_NEVER), VM_EXIT_TRIPLE_FAULT);
    assert_ptr_equal(r->shut_down, &r->cpu[1].v);
    assert_int_equal(r->failures, 0);
    rig_destroy(r);
}

static void test_triple_fault(void **state)
{
    run_triple_fault(false);
    run_triple_fault(true);
}

static struct vm *signalled;

static void on_alarm(int number)
{
    vm_stop(signalled);
}

static void run_stop(bool deterministic, bool (*step)(struct fake *f))
{
    struct rig *r = rig_create(2, deterministic, step);
    struct sigaction action = {.sa_handler = on_alarm}, old;
    struct itimerval soon = {.it_value = {.tv_usec = 20000}};

    signalled = r->vm;
    sigaction(SIGALRM, &action, &old);
    setitimer(ITIMER_REAL, &soon, NULL);
    assert_int_equal(run(r, TIME_NEVER), VM_EXIT_STOPPED);
    /* One that comes before the run is not lost. */
    vm_stop(r->vm);
    assert_int_equal(run(r, TIME_NEVER), VM_EXIT_STOPPED);
    /* Nor does a paused machine escape. */
    vm_pause(r->vm);
    setitimer(ITIMER_REAL, &soon, NULL);
    assert_int_equal(run(r, TIME_NEVER), VM_EXIT_STOPPED);
    vm_resume(r->vm);
    sigaction(SIGALRM, &old, NULL);
    rig_destroy(r);
}

static bool step_halt(struct fake *f)
{
    return true;
}

static void test_stop(void **state)
{
    run_stop(false, step_spin);
    run_stop(false, step_halt);
    run_stop(true, step_spin);
    run_stop(true, step_halt);
}

/* ---- real time: limits, the clock, descriptors ---- */

static void test_clock_stands(void **state)
{
    struct rig *r = rig_create(1, false, step_halt);
    uint64_t t, tsc;

    assert_int_equal(clock_now_ns(&r->vm->clock), 0);
    assert_int_equal(run(r, 5 * NS_PER_MS), VM_EXIT_LIMIT);
    t = clock_now_ns(&r->vm->clock);
    tsc = clock_tsc(&r->vm->clock);
    assert_true(t >= 5 * NS_PER_MS);
    usleep(2000);
    assert_int_equal(clock_now_ns(&r->vm->clock), t);
    assert_int_equal(clock_tsc(&r->vm->clock), tsc);
    assert_int_equal(run(r, t), VM_EXIT_LIMIT); /* already there */
    assert_int_equal(run(r, t + NS_PER_MS), VM_EXIT_LIMIT);
    assert_true(clock_now_ns(&r->vm->clock) >= t + NS_PER_MS);
    rig_destroy(r);
}

struct pipe_test {
    struct rig *rig;
    int fd[2];
    struct loop_fd *watch;
    unsigned bytes, deferred;
};

static void deferred(void *ctx)
{
    ((struct pipe_test *)ctx)->deferred++;
}

static void receive(void *ctx, const uint8_t *data, size_t bytes)
{
    struct pipe_test *p = ctx;

    p->bytes += (unsigned)bytes;
    interrupt(&p->rig->cpu[0]);
    if (p->bytes == 10)
        vm_stop(p->rig->vm);
}

static void pipe_ready(void *ctx, int events)
{
    struct pipe_test *p = ctx;
    uint8_t c[16];
    ssize_t n = read(p->fd[0], c, sizeof c);

    if (n > 0)
        vm_input(p->rig->vm, INPUT_SERIAL, "pipe", receive, p, c, (size_t)n);
    if (n > 0 && write(p->fd[1], c, p->bytes < 10) < 0)
        atomic_fetch_add(&p->rig->failures, 1);
    loop_defer(p->rig->vm, deferred, p);
}

static void run_pipe(bool deterministic)
{
    struct rig *r = rig_create(1, deterministic, step_halt);
    struct pipe_test p = {.rig = r};
    struct error err;
    int flags;

    assert_int_equal(pipe(p.fd), 0);
    flags = fcntl(p.fd[0], F_GETFL);
    p.watch = loop_add_fd(r->vm, p.fd[0], LOOP_READABLE, pipe_ready, &p, &err);
    assert_non_null(p.watch);
    assert_int_equal(write(p.fd[1], "x", 1), 1);
    assert_int_equal(run(r, TIME_NEVER), VM_EXIT_STOPPED);
    assert_int_equal(p.bytes, 10);
    assert_true(p.deferred >= 9);
    assert_int_equal(fcntl(p.fd[0], F_GETFL), flags); /* the descriptor is ours as it was */
    assert_int_equal(r->failures, 0);
    loop_remove_fd(p.watch);
    assert_null(loop_add_fd(r->vm, 9999, LOOP_READABLE, pipe_ready, &p, &err));
    close(p.fd[0]);
    close(p.fd[1]);
    rig_destroy(r);
}

struct null_test {
    struct vm *vm;
    struct loop_fd *watch[2];
    unsigned calls[2];
};

static void null_ready(void *ctx, int events)
{
    struct null_test *t = ctx;

    if (++t->calls[0] == 5)
        loop_set_events(t->watch[0], 0);
}

static void null_ready_too(void *ctx, int events)
{
    struct null_test *t = ctx;

    if (++t->calls[1] == 20) {
        loop_remove_fd(t->watch[1]);
        vm_stop(t->vm);
    }
}

static void test_descriptors(void **state)
{
    struct rig *r;
    struct null_test t = {NULL};
    int fd = open("/dev/null", O_RDWR);

    run_pipe(false);
    run_pipe(true);
    /* Files that epoll refuses are always ready; one may be watched twice. */
    r = rig_create(1, false, step_halt);
    t.vm = r->vm;
    t.watch[0] = loop_add_fd(r->vm, fd, LOOP_READABLE, null_ready, &t, NULL);
    t.watch[1] = loop_add_fd(r->vm, fd, LOOP_WRITABLE, null_ready_too, &t, NULL);
    assert_int_equal(run(r, TIME_NEVER), VM_EXIT_STOPPED);
    assert_int_equal(t.calls[0], 5);
    assert_int_equal(t.calls[1], 20);
    close(fd);
    rig_destroy(r);
}

/* ---- deterministic ---- */

static void det_timer(struct rig *r, unsigned i)
{
    uint64_t now = clock_now_ns(&r->vm->clock);

    r->fired[i]++;
    r->trace_hash = (r->trace_hash ^ (now * 8 + i)) * 0x100000001b3ull;
    interrupt(&r->cpu[i % r->cpus]);
    timer_arm(&r->timer[i], now + 700 + 333 * i);
}

static void det_timer0(void *ctx)
{
    det_timer(ctx, 0);
}

static void det_timer1(void *ctx)
{
    det_timer(ctx, 1);
}

/* Armed by guest code in the middle of a turn: it fires at exactly its time. */
static void det_timer2(void *ctx)
{
    struct rig *r = ctx;

    if (clock_now_ns(&r->vm->clock) != r->fired[2])
        atomic_fetch_add(&r->failures, 1);
    r->trace_hash = (r->trace_hash ^ r->fired[2]) * 0x100000001b3ull;
}

static bool step_deterministic(struct fake *f)
{
    struct rig *r = f->rig;
    uint32_t n = random32(&f->seed);

    r->trace_hash = (r->trace_hash ^ (f->retired << 3 | f->v.index)) * 0x100000001b3ull;
    if (n % 97 == 0) {
        /* Within the instruction time is that of its start. */
        r->fired[2] = clock_now_ns(&r->vm->clock) + 3;
        timer_arm(&r->timer[2], r->fired[2]);
    } else if (n % 91 == 0) {
        interrupt(&r->cpu[n / 91 % r->cpus]);
    }
    return n % 61 == 0;
}

static struct rig *det_rig(void)
{
    struct rig *r = rig_create(3, true, step_deterministic);

    timer_init(&r->timer[0], r->vm, det_timer0, r);
    timer_init(&r->timer[1], r->vm, det_timer1, r);
    timer_init(&r->timer[2], r->vm, det_timer2, r);
    timer_arm(&r->timer[0], 500);
    timer_arm(&r->timer[1], 500);
    return r;
}

static void det_rig_destroy(struct rig *r)
{
    for (int i = 0; i < 3; i++)
        timer_destroy(&r->timer[i]);
    rig_destroy(r);
}

static void test_deterministic(void **state)
{
    struct rig *whole = det_rig(), *pieces = det_rig();
    uint64_t a[2], b[2], at = 0, seed = 99;

    for (int round = 1; round <= 10; round++) {
        uint64_t end = (uint64_t)round * 20000;

        assert_int_equal(run(whole, end), VM_EXIT_LIMIT);
        assert_int_equal(clock_now_ns(&whole->vm->clock), end); /* exact */
        while (at < end) {
            at += 1 + random32(&seed) % 300;
            at = MIN(at, end);
            assert_int_equal(run(pieces, at), VM_EXIT_LIMIT);
            assert_int_equal(clock_now_ns(&pieces->vm->clock), at);
            if (random32(&seed) % 8 == 0) { /* pauses leave no trace either */
                vm_pause(pieces->vm);
                vm_resume(pieces->vm);
            }
        }
        vm_state_hash(whole->vm, a);
        vm_state_hash(pieces->vm, b);
        assert_memory_equal(a, b, sizeof a);
        assert_int_equal(whole->trace_hash, pieces->trace_hash);
    }
    assert_int_equal(whole->failures + pieces->failures, 0);
    assert_true(whole->fired[0] > 100);
    for (unsigned i = 0; i < whole->cpus; i++)
        assert_true(whole->cpu[i].irqs_taken > 10);
    det_rig_destroy(whole);
    det_rig_destroy(pieces);
}

/* Two machines in one process, each in its thread, never meet. */
static void *run_machine(void *arg)
{
    enum vm_exit exit;

    vm_run_until(((struct rig *)arg)->vm, 100000, &exit, NULL, NULL);
    return NULL;
}

static void test_two_machines(void **state)
{
    struct rig *r[2] = {det_rig(), det_rig()};
    struct thread t[2];

    for (int i = 0; i < 2; i++)
        assert_int_equal(thread_start(&t[i], "machine", run_machine, r[i]), 0);
    for (int i = 0; i < 2; i++)
        thread_join(&t[i]);
    assert_int_equal(r[0]->trace_hash, r[1]->trace_hash);
    for (int i = 0; i < 2; i++)
        det_rig_destroy(r[i]);
}

/* What a processor has to hear of stale code while it does not listen: whole, or
 * in near ranges joined, or else "everything"; never less than was written. */
static void test_code_told(void **state)
{
    struct rig *r = det_rig();
    struct vcpu *writer = &r->cpu[0].v, *other = &r->cpu[1].v;
    struct vcpu_code_range told[VCPU_CODE_RANGES];
    struct ram_block *block = (struct ram_block *)r->page; /* a name only */
    unsigned count, within;

    for (unsigned n = 0; n < 4 * VCPU_CODE_RANGES; n++)
        vcpu_code_written(r->vm, writer, block, n * 8192ull, 64);
    assert_int_equal(vcpu_code_told(writer, told), 0);
    count = vcpu_code_told(other, told);
    assert_in_range(count, 1, VCPU_CODE_RANGES);
    for (unsigned n = 0; n < 4 * VCPU_CODE_RANGES; n++) {
        within = 0;
        for (unsigned i = 0; i < count; i++)
            within += told[i].block == block && told[i].offset <= n * 8192ull &&
                      n * 8192ull + 64 <= told[i].offset + told[i].bytes;
        assert_true(within);
    }
    /* Too far from all that is known. */
    vcpu_code_written(r->vm, writer, block, 1ull << 32, 64);
    assert_true(vcpu_code_told(other, told) > VCPU_CODE_RANGES);
    vcpu_drain_code(other);
    assert_int_equal(vcpu_code_told(other, told), 0);
    det_rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stress),       cmocka_unit_test(test_no_lost_wakeup),
        cmocka_unit_test(test_lifecycle),    cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_stop),         cmocka_unit_test(test_clock_stands),
        cmocka_unit_test(test_descriptors),  cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_two_machines), cmocka_unit_test(test_code_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
