/*
 * Rows of memory: the C library's memcpy, chases of pointers through more than
 * the TLBs or the caches hold, and page faults.
 */
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

enum { PAGE_BYTES = 4096 };

/* ---- memcpy ---- */

enum {
    COPY_BYTES = 1 << 20,
    COPY_TIMES = 16,
};

struct copies {
    uint8_t from[COPY_BYTES], to[COPY_BYTES];
};

static void memcpy_prepare(struct work *work)
{
    struct copies *copies = pages_allocate(sizeof(*copies));

    text_fill((char *)copies->from, COPY_BYTES);
    work->data = copies;
    work->operations = COPY_BYTES * COPY_TIMES;
}

static uint64_t memcpy_unit(struct work *work)
{
    struct copies *copies = work->data;
    uint64_t sum = 0;

    for (int i = 0; i < COPY_TIMES; i++) {
        copies->from[i] = (uint8_t)i;
        memcpy(copies->to, copies->from, COPY_BYTES);
        sum = fold(sum, copies->to[i] + copies->to[COPY_BYTES - 1 - i]);
    }
    return sum;
}

/* ---- chase-2m, chase-64m: one cycle through all lines in no order ---- */

enum { LINE_BYTES = 64 };

struct line {
    struct line *next;
    uint8_t rest[LINE_BYTES - sizeof(struct line *)];
};

static void chase_prepare(struct work *work, size_t bytes)
{
    struct line *lines = pages_allocate(bytes);
    size_t count = bytes / LINE_BYTES;
    uint64_t state = 6364136223846793005;

    /* Sattolo: a random permutation that is a single cycle. */
    for (size_t i = 0; i < count; i++)
        lines[i].next = &lines[i];
    for (size_t i = count - 1; i > 0; i--) {
        size_t other = random_next(&state) % i;
        struct line *next = lines[i].next;

        lines[i].next = lines[other].next;
        lines[other].next = next;
    }
    work->data = lines;
    work->operations = count;
}

static void chase_2m_prepare(struct work *work)
{
    chase_prepare(work, 2 << 20);
}

static void chase_64m_prepare(struct work *work)
{
    chase_prepare(work, 64 << 20);
}

static uint64_t chase_unit(struct work *work)
{
    const struct line *lines = work->data, *at = lines;
    uint64_t sum = 0;

    for (uint64_t left = work->operations; left; left -= 64) {
        for (int i = 0; i < 64; i++)
            at = at->next;
        sum = fold(sum, (uint64_t)(at - lines));
    }
    return sum;
}

/* ---- pagefault: first touches of fresh pages ---- */

enum { FAULT_PAGES = 1024 };

static void pagefault_prepare(struct work *work)
{
    work->operations = FAULT_PAGES;
}

static uint64_t pagefault_unit(struct work *work)
{
    const size_t bytes = FAULT_PAGES * PAGE_BYTES;
    volatile uint8_t *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;

    (void)work;
    if (memory == MAP_FAILED)
        fail("no memory");
    madvise((void *)memory, bytes, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < FAULT_PAGES; i++)
        memory[i * PAGE_BYTES] = 1;
    for (size_t i = 0; i < FAULT_PAGES; i += 64)
        sum += memory[i * PAGE_BYTES] + memory[i * PAGE_BYTES + 1];
    munmap((void *)memory, bytes);
    return sum;
}

const struct row memory_rows[] = {
    {"memcpy", memcpy_prepare, memcpy_unit},
    {"chase-2m", chase_2m_prepare, chase_unit},
    {"chase-64m", chase_64m_prepare, chase_unit},
    {"pagefault", pagefault_prepare, pagefault_unit},
    {0},
};
