/*
 * Rows of the kernel's work: a trivial system call, processes, and switches
 * between two of them. Processes stay on one processor, as in a guest that has
 * one; what two processors gain is measured apart (copies_measure).
 */
#include "bench.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- getppid ---- */

enum { CALLS = 1000 };

static void getppid_prepare(struct work *work)
{
    work->operations = CALLS;
}

static uint64_t getppid_unit(struct work *work)
{
    uint64_t same = 0;
    long first = syscall(SYS_getppid);

    (void)work;
    for (int i = 1; i < CALLS; i++)
        same += syscall(SYS_getppid) == first;
    return same;
}

/* ---- fork, exec ---- */

static void fork_prepare(struct work *work)
{
    stay_on_cpu(sched_getcpu());
    work->operations = 1;
}

static uint64_t child_wait(pid_t child)
{
    int status = -1;

    if (child < 0 || waitpid(child, &status, 0) != child)
        fail("fork failed");
    return (uint64_t)status;
}

static uint64_t fork_unit(struct work *work)
{
    pid_t child = fork();

    (void)work;
    if (child == 0)
        _exit(7);
    return child_wait(child);
}

static uint64_t exec_unit(struct work *work)
{
    pid_t child = fork();

    (void)work;
    if (child == 0) {
        execl("/proc/self/exe", "bench", "exit", (char *)NULL);
        _exit(1);
    }
    return child_wait(child);
}

/* ---- pipe: a byte to another process and back ---- */

enum { ROUND_TRIPS = 50 };

struct pipes {
    int there, back;
};

static void pipe_prepare(struct work *work)
{
    struct pipes *pipes = pages_allocate(sizeof(*pipes));
    int there[2], back[2];
    pid_t child;
    char byte;

    stay_on_cpu(sched_getcpu());
    if (pipe(there) || pipe(back))
        fail("no pipe");
    child = fork();
    if (child < 0)
        fail("fork failed");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (read(there[0], &byte, 1) == 1) {
            byte++;
            if (write(back[1], &byte, 1) != 1)
                break;
        }
        _exit(0);
    }
    *pipes = (struct pipes){there[1], back[0]};
    work->data = pipes;
    work->operations = ROUND_TRIPS;
}

static uint64_t pipe_unit(struct work *work)
{
    const struct pipes *pipes = work->data;
    uint64_t sum = 0;

    for (int i = 0; i < ROUND_TRIPS; i++) {
        char byte = (char)i;

        if (write(pipes->there, &byte, 1) != 1 || read(pipes->back, &byte, 1) != 1)
            fail("the pipe broke");
        sum = fold(sum, (uint8_t)byte);
    }
    return sum;
}

const struct row system_rows[] = {
    {"getppid", getppid_prepare, getppid_unit},
    {"fork", fork_prepare, fork_unit},
    {"exec", fork_prepare, exec_unit},
    {"pipe", pipe_prepare, pipe_unit},
    {0},
};

/* ---- copies ---- */

/* What the copies share: who is ready, and the word to start. */
struct gate {
    int ready;
    int open;
};

static void copy_run(const struct row *row, uint64_t units, int cpu, struct gate *gate)
{
    struct work work = {0};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    stay_on_cpu(cpu);
    row->prepare(&work);
    row->unit(&work);
    /* Release: prepared before counted; acquire: nothing before the word. */
    __atomic_add_fetch(&gate->ready, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&gate->open, __ATOMIC_ACQUIRE))
        sched_yield();
    while (units--)
        row->unit(&work);
    _exit(0);
}

/* Seconds that COPIES processes take, each for the same units. */
static double copies_time(const struct row *row, uint64_t units, int copies)
{
    struct gate *gate =
        mmap(NULL, sizeof(*gate), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[2];
    uint64_t start;

    if (gate == MAP_FAILED)
        fail("no memory");
    for (int i = 0; i < copies; i++) {
        children[i] = fork();
        if (children[i] == 0)
            copy_run(row, units, i, gate);
    }
    while (__atomic_load_n(&gate->ready, __ATOMIC_ACQUIRE) < copies)
        usleep(1000);
    start = now_ns();
    __atomic_store_n(&gate->open, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < copies; i++)
        child_wait(children[i]);
    munmap(gate, sizeof(*gate));
    return (double)(now_ns() - start) * 1e-9;
}

int copies_measure(const struct row *row, uint64_t target_ns)
{
    enum { TURNS = 3 };
    double one = 0, two = 0;
    uint64_t units = 1;

    while (copies_time(row, units, 1) * 1e9 < (double)target_ns)
        units *= 2;
    for (int i = 0; i < TURNS; i++) {
        double alone = copies_time(row, units, 1), both = copies_time(row, units, 2);

        one = i && one < alone ? one : alone;
        two = i && two < both ? two : both;
    }
    printf("COPIES %s %.4f %.4f\n", row->name, one, two);
    fflush(stdout);
    return 0;
}
