/*
 * The host seam: memory, threads, time. Everything above asks here, so that a
 * freestanding build has one place to replace.
 */
#ifndef BASE_HOST_H
#define BASE_HOST_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/base.h"
#include "base/error.h"

/* ---- memory ---- */

/* Zeroed, private, anonymous, page-aligned, not reserved in advance; huge
 * pages where asked. NULL when there is none. */
void *host_pages_alloc(size_t bytes, bool huge);
void host_pages_free(void *p, size_t bytes);
/* Gives the pages back; they read as zero afterwards. */
void host_pages_discard(void *p, size_t bytes);

/* Tells a race detector, where the program was built with one, that threads
 * use these bytes as the processors of one machine use memory: without order
 * but what they make of it. Nothing in other builds. */
void host_expect_races(void *p, size_t bytes);

/*
 * Memory for generated code: the same pages mapped twice, once writable and
 * once executable, never both through one mapping. exec = write + delta.
 */
struct exec_memory {
    uint8_t *write;
    uint8_t *exec;
    size_t bytes;
};

int exec_memory_create(struct exec_memory *m, size_t bytes, struct error *err);
void exec_memory_destroy(struct exec_memory *m);

/* ---- time ---- */

uint64_t host_monotonic_ns(void);
uint64_t host_realtime_ns(void);
/* Processor time of the calling thread. Leaves vector registers alone. */
uint64_t host_thread_ns(void);
bool host_tsc_is_invariant(void);
/* Frequency of the host's TSC, measured once a call (about 10 ms). */
uint64_t host_tsc_hz(void);

static inline uint64_t host_tsc(void)
{
    return __builtin_ia32_rdtsc();
}

/* ---- threads ---- */

/* Host processors that this process may use: 1 or more. */
unsigned host_processors(void);

struct mutex {
    pthread_mutex_t m;
};

void mutex_init(struct mutex *m);
void mutex_destroy(struct mutex *m);
void mutex_lock(struct mutex *m);
bool mutex_try_lock(struct mutex *m);
void mutex_unlock(struct mutex *m);

struct thread {
    pthread_t id;
};

/* The new thread has all signals blocked: they belong to who owns main(). */
int thread_start(struct thread *t, const char *name, void *(*run)(void *), void *arg);
void thread_join(struct thread *t);

/* Sleeps while *word == value, at most timeout_ns (UINT64_MAX: for ever). */
void host_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
void host_futex_wake(_Atomic uint32_t *word, int count);

/* What was stored before is visible to all before anything after is loaded:
 * x86 lets a load pass an older store. */
static inline void host_store_load_fence(void)
{
    __asm__ volatile("lock orl $0, (%%rsp)" ::: "memory", "cc");
}

/* Bytes nobody can guess; for what a guest may see, see vm_random. */
uint64_t host_random(void);
void host_random_bytes(void *buf, size_t bytes);

#endif
