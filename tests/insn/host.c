/*
 * The parent's side of the host runs: the child process, started again when a
 * case kills it. Threading: one thread.
 */
#include "tests/insn/insn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MS 20000

struct host {
    char *path;
    int memory, go, done; /* file descriptors */
    pid_t pid;
    struct insn_shared *shared;
    unsigned count;
    unsigned restarts;
};

static void start_child(struct host *h)
{
    int go[2], done[2];

    if (pipe2(go, O_CLOEXEC) || pipe2(done, O_CLOEXEC)) {
        perror("pipe");
        exit(2);
    }
    fflush(NULL);
    h->pid = fork();
    if (h->pid < 0) {
        perror("fork");
        exit(2);
    }
    if (h->pid == 0) {
        dup2(h->memory, CHILD_FD_SHARED);
        dup2(go[0], CHILD_FD_GO);
        dup2(done[1], CHILD_FD_DONE);
        execl(h->path, h->path, (char *)NULL);
        perror(h->path);
        _exit(2);
    }
    close(go[0]);
    close(done[1]);
    h->go = go[1];
    h->done = done[0];
}

static void reap_child(struct host *h)
{
    int status = 0;

    close(h->go);
    close(h->done);
    usleep(1000);
    kill(h->pid, SIGKILL);
    waitpid(h->pid, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        fprintf(stderr, "insn: the child died of signal %d\n", WTERMSIG(status));
    if (WIFEXITED(status) && WEXITSTATUS(status)) {
        fprintf(stderr, "insn: the child cannot run here\n");
        exit(77); /* skipped */
    }
}

struct host *host_create(const char *child_path)
{
    struct host *h = calloc(1, sizeof *h);

    signal(SIGPIPE, SIG_IGN);
    h->path = strdup(child_path);
    h->memory = memfd_create("insn", MFD_CLOEXEC);
    if (h->memory < 0 || ftruncate(h->memory, sizeof *h->shared)) {
        perror("memfd_create");
        exit(2);
    }
    h->shared =
        mmap(NULL, sizeof *h->shared, PROT_READ | PROT_WRITE, MAP_SHARED, h->memory, 0);
    if (h->shared == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return h;
}

void host_destroy(struct host *h)
{
    if (h->pid)
        reap_child(h);
    munmap(h->shared, sizeof *h->shared);
    close(h->memory);
    free(h->path);
    free(h);
}

struct insn_shared *host_shared(struct host *h)
{
    return h->shared;
}

static void go(struct host *h)
{
    char byte = 0;

    if (!h->pid)
        start_child(h);
    if (write(h->go, &byte, 1) != 1)
        perror("insn: child");
}

void host_start(struct host *h, unsigned which, unsigned count)
{
    h->shared->which = which;
    h->shared->count = count;
    h->shared->current = 0;
    h->count = count;
    go(h);
}

void host_wait(struct host *h)
{
    for (;;) {
        struct pollfd p = {.fd = h->done, .events = POLLIN};
        char byte;
        unsigned at;

        if (poll(&p, 1, ANSWER_MS) > 0 && read(h->done, &byte, 1) == 1)
            return;
        /* The case killed it, or blocked all signals for ever. */
        at = h->shared->current;
        h->shared->result[at].vector = VECTOR_DIED;
        reap_child(h);
        h->pid = 0;
        if (++h->restarts > 1000) {
            fprintf(stderr, "insn: the child died too often\n");
            exit(2);
        }
        if (at + 1 >= h->count)
            return;
        h->shared->current = at + 1;
        go(h);
    }
}
