/*
 * vireo img: images of disks, made, looked at, checked, converted, resized, and
 * their snapshots. Options are those that users of qemu-img know.
 *
 * Each command is a function of its own file; img.c finds it. What a command makes
 * is made beside its final name and gets that name when it is whole
 * (img_target.c); signals that end the process first undo it (img_job.c).
 */
#ifndef CLI_IMG_H
#define CLI_IMG_H

#include <limits.h>
#include <signal.h>
#include <stdatomic.h>

#include "backend/disk/layer.h"
#include "backend/disk/qcow2.h"
#include "base/error.h"
#include "cli/options.h"

/* The process's exit status; with CLI_ERROR a line in err. by_signal: the signal
 * that the process has to die from, or 0. */
int cli_img(int argc, char **argv, int *by_signal, struct error *err);
void cli_print_help_img(FILE *out);

/* ---- arguments (img_args.c) ---- */

/* One word for each that was not an option. */
struct img_args {
    const char *format, *output_format; /* -f, -O */
    const char *options;                /* -o; several are one after another */
    const char *backing, *backing_format;
    const char *snapshot_create, *snapshot_apply, *snapshot_delete, *snapshot_view;
    const char *repair, *sparse, *cache;
    bool list, compress, json, quiet, progress, shrink, no_backing_check;
    uint64_t threads;
    char **word;
    int words;
    char joined[2048];
};

/* accepted: the letters of the command, as for getopt. */
int img_args_parse(struct img_args *a, int argc, char **argv, const char *accepted,
                   const char *command, struct error *err);
int img_format_of(const char *name, enum disk_format *format, struct error *err);

/* What -o says, and what an image is made as. */
struct img_options {
    struct qcow2_options qcow2;
    enum {
        IMG_PREALLOC_OFF,
        IMG_PREALLOC_METADATA,
        IMG_PREALLOC_FALLOC,
        IMG_PREALLOC_FULL
    } prealloc;
    char backing[QCOW2_NAME_BYTES], backing_format[32];
};

int img_options_parse(struct img_options *o, const char *text, enum disk_format format,
                      struct error *err);

/* ---- a job that takes long (img_job.c) ---- */

struct img_job {
    const char *verb; /* "converting" */
    bool quiet;
    _Atomic uint64_t done, total;
    _Atomic bool cancel; /* the job looks at this */
    int signal;          /* that asked for the end, or 0 */
    /* The job's own: */
    sigset_t before;
    int signal_fd, done_fd;
    uint64_t began_ns;
    bool is_drawn;
    int (*run)(struct img_job *job, struct error *err);
    void *ctx;
    struct error err;
    int result;
};

/* Runs job->run on a thread, draws a bar on a terminal, and waits for signals. */
int img_job_run(struct img_job *job, struct error *err);

/* ---- a file in the making (img_target.c) ---- */

struct img_target {
    char path[PATH_MAX];  /* its final name, symbolic links followed */
    char aside[PATH_MAX]; /* "" where it has no name meanwhile */
    int fd;
    bool is_device;
};

int img_target_open(struct img_target *t, const char *path, struct error *err);
/* Nobody may be using what it will replace. */
int img_target_check_unused(const char *path, struct error *err);
/* A layer on it; NULL with an error. */
struct disk_layer *img_target_layer(struct img_target *t, struct error *err);
/* It gets its name; flush: it is on the host's disk before. */
int img_target_finish(struct img_target *t, bool flush, struct error *err);
/* It never was. Also after finish. */
void img_target_discard(struct img_target *t);

/* Makes an image in a target, with its final size; *out: to write to it. The backing
 * file is not opened. */
int img_make(struct img_target *t, enum disk_format format, struct img_options *o,
             struct disk_layer **out, struct error *err);

/* ---- commands ---- */

int img_create(int argc, char **argv, struct img_job *job, struct error *err);
int img_info(int argc, char **argv, struct img_job *job, struct error *err);
int img_check(int argc, char **argv, struct img_job *job, struct error *err);
int img_convert(int argc, char **argv, struct img_job *job, struct error *err);
int img_resize(int argc, char **argv, struct img_job *job, struct error *err);
int img_snapshot(int argc, char **argv, struct img_job *job, struct error *err);

/* A backing file that -b, -B or -F names, into the options. */
int img_take_backing(struct img_options *o, const struct img_args *a, enum disk_format format,
                     struct error *err);
/* The backing file that the options name, for an image at `path`: what its format is,
 * and how long it is where no size is given (UINT64_MAX). *out: the caller's; NULL: it
 * is only looked at. */
int img_look_at_backing(struct img_options *o, const char *path, struct disk_layer **out,
                        struct error *err);
/* Opens an image as the others do. */
struct disk_layer *img_open(const char *path, const char *format, bool readonly, bool no_backing,
                            struct error *err);
/* "1.5 GiB" */
const char *img_size_text(uint64_t bytes, char *out, size_t room);
/* The path of a backing file, from where the image is. */
void img_resolve(const char *image, const char *name, char *out, size_t room);

#endif
