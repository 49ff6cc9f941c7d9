/*
 * Work that takes long: a bar on a terminal, and signals that end it in good
 * order. Interface: img.h.
 *
 * The work is on a thread of its own; this one waits for it, for signals, and for
 * the time to draw. Nothing about the terminal is changed but the line that the
 * bar is on, and that line is empty when the work is over.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/host.h"
#include "cli/img.h"

enum { DRAW_MS = 100, QUIET_MS = 400, BAR_CHARS = 40 };

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

static void *job_main(void *arg)
{
    struct img_job *job = arg;
    uint64_t one = 1;

    job->result = job->run(job, &job->err);
    /* It cannot fill: this is written once. */
    return write(job->done_fd, &one, sizeof one) < 0 ? arg : NULL;
}

static void draw(struct img_job *job)
{
    uint64_t total = atomic_load(&job->total), done = MIN(atomic_load(&job->done), total);
    uint64_t took = host_monotonic_ns() - job->began_ns;
    char bar[BAR_CHARS + 1], left[32] = "";
    unsigned full;

    if (job->quiet || !total || took < QUIET_MS * NS_PER_MS)
        return;
    full = (unsigned)((double)done / (double)total * BAR_CHARS);
    for (unsigned n = 0; n < BAR_CHARS; n++)
        bar[n] = n < full ? '#' : '.';
    bar[BAR_CHARS] = '\0';
    if (done * 50 > total)
        snprintf(left, sizeof left, "%.0f s left",
                 (double)took / 1e9 * (double)(total - done) / (double)done);
    fprintf(stderr, "\r%s [%s] %3u%% %-14s", job->verb, bar,
            (unsigned)((double)done / (double)total * 100), left);
    fflush(stderr);
    job->is_drawn = true;
}

static void undraw(struct img_job *job)
{
    if (job->is_drawn)
        fprintf(stderr, "\r%*s\r", (int)strlen(job->verb) + BAR_CHARS + 25, "");
    fflush(stderr);
    job->is_drawn = false;
}

static void wait_for_end(struct img_job *job)
{
    struct pollfd fds[] = {{.fd = job->done_fd, .events = POLLIN},
                           {.fd = job->signal_fd, .events = POLLIN}};

    while (!(fds[0].revents & POLLIN)) {
        struct signalfd_siginfo info;

        fds[0].revents = fds[1].revents = 0;
        if (poll(fds, ARRAY_SIZE(fds), DRAW_MS) < 0 && errno != EINTR)
            return;
        if (fds[1].revents & POLLIN && read(job->signal_fd, &info, sizeof info) == sizeof info) {
            job->signal = (int)info.ssi_signo;
            atomic_store(&job->cancel, true);
        }
        draw(job);
    }
}

int img_job_run(struct img_job *job, struct error *err)
{
    struct thread thread;
    sigset_t ending;
    int ret;

    job->quiet |= !isatty(STDERR_FILENO);
    job->began_ns = host_monotonic_ns();
    sigemptyset(&ending);
    for (size_t n = 0; n < ARRAY_SIZE(ending_signals); n++)
        sigaddset(&ending, ending_signals[n]);
    sigprocmask(SIG_BLOCK, &ending, &job->before);
    job->signal_fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
    job->done_fd = eventfd(0, EFD_CLOEXEC);
    ret = job->signal_fd < 0 || job->done_fd < 0 ? -errno
                                                 : thread_start(&thread, "img", job_main, job);
    if (ret) {
        error_set(err, ret, "cannot start a thread: %s", strerror(-ret));
    } else {
        wait_for_end(job);
        thread_join(&thread);
        undraw(job);
        ret = job->result;
        *err = job->err;
    }
    if (job->signal_fd >= 0)
        close(job->signal_fd);
    if (job->done_fd >= 0)
        close(job->done_fd);
    sigprocmask(SIG_SETMASK, &job->before, NULL);
    return ret;
}
