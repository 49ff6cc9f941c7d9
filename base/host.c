/*
 * The host seam on Linux: pages, executable memory, time, threads, futexes.
 * Interface: base/host.h. Threading: everything may be called by any thread.
 */
#include "base/host.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HUGE_PAGE (2 * MiB)

/* ---- memory ---- */

void *host_pages_alloc(size_t bytes, bool huge)
{
    size_t slack = huge && bytes >= HUGE_PAGE ? HUGE_PAGE : 0;
    uint8_t *p, *start;

    if (!bytes || bytes > SIZE_MAX - 2 * HUGE_PAGE)
        return NULL;
    bytes = align_up(bytes, 4096);
    p = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (!slack)
        return p;
    /* The kernel gives huge pages only where they are naturally aligned. */
    start = (uint8_t *)align_up((uintptr_t)p, HUGE_PAGE);
    if (start != p)
        munmap(p, (size_t)(start - p));
    if (start + bytes != p + bytes + slack)
        munmap(start + bytes, (size_t)(p + bytes + slack - (start + bytes)));
    (void)madvise(start, bytes, MADV_HUGEPAGE); /* a wish: hosts may have none */
    return start;
}

void host_pages_free(void *p, size_t bytes)
{
    if (p)
        munmap(p, align_up(bytes, 4096));
}

void host_pages_discard(void *p, size_t bytes)
{
    /* Private anonymous memory reads as zero after MADV_DONTNEED; it fails only
     * on locked pages, and then they are cleared by hand. */
    if (bytes && madvise(p, bytes, MADV_DONTNEED))
        memset(p, 0, bytes);
}

#ifdef __SANITIZE_THREAD__
/* From the interface of ThreadSanitizer, which has no header in gcc. */
void AnnotateBenignRaceSized(const char *file, int line, const volatile void *address,
                             unsigned long bytes, const char *why);
#endif

void host_expect_races(void *p, size_t bytes)
{
#ifdef __SANITIZE_THREAD__
    AnnotateBenignRaceSized(__FILE__, __LINE__, p, bytes, "guest memory");
#endif
}

int exec_memory_create(struct exec_memory *m, size_t bytes, struct error *err)
{
    void *write, *exec;
    int fd, code;

    memset(m, 0, sizeof *m);
    bytes = align_up(bytes, 4096);
    fd = memfd_create("vireo-code", MFD_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "cannot create memory for generated code: %s",
                         strerror(errno));
    if (ftruncate(fd, (off_t)bytes)) {
        code = error_set(err, -errno, "cannot size memory for generated code: %s", strerror(errno));
        goto out_fd;
    }
    write = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (write == MAP_FAILED) {
        code = error_set(err, -errno, "cannot map %zu bytes for generated code: %s", bytes,
                         strerror(errno));
        goto out_fd;
    }
    exec = mmap(NULL, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (exec == MAP_FAILED) {
        code = error_set(err, -errno,
                         "this host forbids executable mappings of generated code (%s): "
                         "use --engine interp",
                         strerror(errno));
        munmap(write, bytes);
        goto out_fd;
    }
    *m = (struct exec_memory){.write = write, .exec = exec, .bytes = bytes};
    code = 0;
out_fd:
    close(fd); /* the mappings keep it */
    return code;
}

void exec_memory_destroy(struct exec_memory *m)
{
    if (m->bytes) {
        munmap(m->write, m->bytes);
        munmap(m->exec, m->bytes);
    }
    memset(m, 0, sizeof *m);
}

/* ---- time ---- */

static uint64_t clock_read(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t host_monotonic_ns(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

uint64_t host_realtime_ns(void)
{
    return clock_read(CLOCK_REALTIME);
}

uint64_t host_thread_ns(void)
{
    struct timespec t;
    long r = SYS_clock_gettime;

    /* Not the C library's, which may use the vector registers. */
    __asm__ volatile("syscall"
                     : "+a"(r)
                     : "D"((long)CLOCK_THREAD_CPUTIME_ID), "S"(&t)
                     : "rcx", "r11", "memory");
    return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

bool host_tsc_is_invariant(void)
{
    static const char path[] = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    unsigned a, b, c, d;
    char line[256] = "";
    FILE *f;

    /* CPUID.80000007H:EDX[8], SDM Vol. 3, 18.17.1. */
    if (!__get_cpuid(0x80000007, &a, &b, &c, &d) || !(d & BIT(8)))
        return false;
    /* A kernel that has seen the TSCs of its processors disagree no longer
     * offers them as a clock; then neither do we. */
    f = fopen(path, "re");
    if (!f)
        return true;
    if (!fgets(line, sizeof line, f))
        line[0] = 0;
    fclose(f);
    return !line[0] || strstr(line, "tsc");
}

/* A pair of readings, taken in one breath: of several tries the one that was
 * interrupted least. */
static void clocks_read(uint64_t *tsc, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 8; i++) {
        uint64_t before = host_tsc();
        uint64_t t = clock_read(CLOCK_MONOTONIC_RAW);
        uint64_t after = host_tsc();

        if (after - before < best) {
            best = after - before;
            *tsc = before + best / 2;
            *ns = t;
        }
    }
}

uint64_t host_tsc_hz(void)
{
    uint64_t tsc0 = 0, tsc1 = 0, ns0 = 0, ns1 = 0;
    struct timespec pause = {.tv_nsec = 10 * NS_PER_MS};

    clocks_read(&tsc0, &ns0);
    while (nanosleep(&pause, &pause) && errno == EINTR)
        ;
    clocks_read(&tsc1, &ns1);
    if (ns1 <= ns0 || tsc1 <= tsc0)
        return NS_PER_SEC; /* a broken host clock: any rate keeps us running */
    return (uint64_t)((unsigned __int128)(tsc1 - tsc0) * NS_PER_SEC / (ns1 - ns0));
}

void host_random_bytes(void *buf, size_t bytes)
{
    uint8_t *to = buf;

    while (bytes) {
        /* Waits until the kernel's pool is ready; more than 256 bytes may come in
         * parts, and it may be interrupted. */
        ssize_t n = getrandom(to, bytes, 0);
        uint64_t v;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) { /* no getrandom: a sandbox */
            v = host_tsc() ^ host_monotonic_ns() << 32;
            n = (ssize_t)MIN(bytes, sizeof v);
            memcpy(to, &v, (size_t)n);
        }
        to += n;
        bytes -= (size_t)n;
    }
}

uint64_t host_random(void)
{
    uint64_t v;

    host_random_bytes(&v, sizeof v);
    return v;
}

/* ---- threads ---- */

void mutex_init(struct mutex *m)
{
    pthread_mutex_init(&m->m, NULL);
}

void mutex_destroy(struct mutex *m)
{
    pthread_mutex_destroy(&m->m);
}

void mutex_lock(struct mutex *m)
{
    pthread_mutex_lock(&m->m);
}

bool mutex_try_lock(struct mutex *m)
{
    return !pthread_mutex_trylock(&m->m);
}

void mutex_unlock(struct mutex *m)
{
    pthread_mutex_unlock(&m->m);
}

int thread_start(struct thread *t, const char *name, void *(*run)(void *), void *arg)
{
    sigset_t all, old;
    char short_name[16];
    int r;

    /* Faults stay open: an engine may take SIGSEGV, SIGBUS and SIGFPE for its own. */
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGTRAP);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    r = pthread_create(&t->id, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r)
        return -r;
    snprintf(short_name, sizeof short_name, "%s", name);
    (void)pthread_setname_np(t->id, short_name); /* for the eyes of a person only */
    return 0;
}

unsigned host_processors(void)
{
    cpu_set_t allowed;
    long online = sysconf(_SC_NPROCESSORS_ONLN);

    /* It fails where there are more than a cpu_set_t has. */
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        return (unsigned)MAX(CPU_COUNT(&allowed), 1);
    return (unsigned)MAX(online, 1);
}

void thread_join(struct thread *t)
{
    pthread_join(t->id, NULL);
}

void host_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
    struct timespec ts = {.tv_sec = (time_t)(timeout_ns / NS_PER_SEC),
                          .tv_nsec = (long)(timeout_ns % NS_PER_SEC)};
    int saved = errno;

    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout_ns == UINT64_MAX ? NULL : &ts, NULL,
            0);
    errno = saved;
}

void host_futex_wake(_Atomic uint32_t *word, int count)
{
    int saved = errno; /* vm_stop comes here in a signal handler */

    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    errno = saved;
}
