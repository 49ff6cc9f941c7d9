/*
 * vireo img info, check and snapshot: what an image is, whether it is well, and
 * its snapshots. Interface: img.h.
 *
 * JSON has the names that qemu-img's has, so that scripts read both.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/img.h"

/* ---- JSON ---- */

static void json_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < ' ' || c == 0x7f)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void json_key(const char *key, const char *text)
{
    printf("    \"%s\": ", key);
    json_text(text);
    puts(",");
}

/* ---- info ---- */

static int read_snapshots(struct disk_layer *l, struct qcow2_snapshots *list, struct error *err)
{
    *list = (struct qcow2_snapshots){0};
    return qcow2_is(l) ? qcow2_snapshots_read(l, list, err) : 0;
}

static void print_snapshots(const struct qcow2_snapshots *list)
{
    printf("%-8s %-24s %12s  %-19s\n", "ID", "NAME", "VM STATE", "DATE");
    for (uint32_t n = 0; n < list->count; n++) {
        const struct qcow2_snapshot *s = &list->item[n];
        time_t when = s->seconds;
        char date[32] = "", size[32];
        struct tm tm;

        if (localtime_r(&when, &tm))
            strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &tm);
        printf("%-8s %-24s %12s  %-19s\n", s->id, s->name,
               img_size_text(s->vm_state_bytes, size, sizeof size), date);
    }
}

static void print_json(const char *path, struct disk_layer *l, uint64_t actual,
                       const struct qcow2_snapshots *list)
{
    struct qcow2_info info;

    printf("{\n");
    if (list->count) {
        printf("    \"snapshots\": [\n");
        for (uint32_t n = 0; n < list->count; n++) {
            const struct qcow2_snapshot *s = &list->item[n];

            printf("        {\"id\": ");
            json_text(s->id);
            printf(", \"name\": ");
            json_text(s->name);
            printf(", \"date-sec\": %u, \"date-nsec\": %u, \"vm-state-size\": %llu}%s\n",
                   s->seconds, s->nanoseconds, (unsigned long long)s->vm_state_bytes,
                   n + 1 < list->count ? "," : "");
        }
        printf("    ],\n");
    }
    json_key("filename", path);
    json_key("format", qcow2_is(l) ? "qcow2" : "raw");
    if (qcow2_is(l)) {
        char full[PATH_MAX];

        qcow2_get_info(l, &info);
        printf("    \"cluster-size\": %llu,\n", 1ull << info.cluster_bits);
        if (qcow2_backing_name(l)[0]) {
            json_key("backing-filename", qcow2_backing_name(l));
            img_resolve(path, qcow2_backing_name(l), full, sizeof full);
            json_key("full-backing-filename", full);
            if (qcow2_backing_format(l)[0])
                json_key("backing-filename-format", qcow2_backing_format(l));
        }
        printf("    \"format-specific\": {\"type\": \"qcow2\", \"data\": {\"compat\": \"%s\", "
               "\"compression-type\": \"%s\", \"lazy-refcounts\": %s, \"refcount-bits\": %u, "
               "\"corrupt\": %s, \"extended-l2\": %s}},\n",
               info.version >= 3 ? "1.1" : "0.10", info.compression == QCOW2_ZSTD ? "zstd" : "zlib",
               info.lazy_refcounts ? "true" : "false", info.refcount_bits,
               info.is_corrupt ? "true" : "false", info.extended_l2 ? "true" : "false");
        printf("    \"dirty-flag\": %s,\n", info.is_dirty ? "true" : "false");
    } else {
        printf("    \"dirty-flag\": false,\n");
    }
    printf("    \"virtual-size\": %llu,\n", (unsigned long long)l->bytes);
    printf("    \"actual-size\": %llu\n}\n", (unsigned long long)actual);
}

static void print_qcow2(const char *path, struct disk_layer *l)
{
    struct qcow2_info info;
    char text[32], full[PATH_MAX];

    qcow2_get_info(l, &info);
    printf("cluster size: %s\n", img_size_text(1ull << info.cluster_bits, text, sizeof text));
    if (qcow2_backing_name(l)[0]) {
        img_resolve(path, qcow2_backing_name(l), full, sizeof full);
        printf("backing file: %s", qcow2_backing_name(l));
        if (strcmp(full, qcow2_backing_name(l)))
            printf(" (that is %s)", full);
        printf("\nbacking format: %s\n",
               qcow2_backing_format(l)[0] ? qcow2_backing_format(l) : "not said");
    }
    printf("version: %u (compat %s), refcounts of %u bits%s, compression %s\n", info.version,
           info.version >= 3 ? "1.1" : "0.10", info.refcount_bits,
           info.lazy_refcounts ? " (lazy)" : "", info.compression == QCOW2_ZSTD ? "zstd" : "zlib");
    if (info.extended_l2)
        printf("extended L2 entries: subclusters of %s\n",
               img_size_text((1ull << info.cluster_bits) / 32, text, sizeof text));
    if (info.is_dirty)
        printf("it was not closed: its refcounts are repaired when it is next written to\n");
    if (info.is_corrupt)
        printf("it is marked as damaged: vireo img check\n");
}

int img_info(int argc, char **argv, struct img_job *job, struct error *err)
{
    struct qcow2_snapshots list;
    struct img_args a;
    struct disk_layer *l;
    struct stat st;
    uint64_t actual;
    char text[32];
    int ret = img_args_parse(&a, argc, argv, "f:", "info", err);

    if (ret)
        return ret;
    if (a.words != 1)
        return error_set(err, -EINVAL, "img info: give one file");
    l = img_open(a.word[0], a.format, true, true, err);
    if (!l)
        return -EINVAL;
    ret = read_snapshots(l, &list, err);
    if (ret) {
        disk_layer_destroy(l);
        return ret;
    }
    actual = stat(a.word[0], &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    if (a.json) {
        print_json(a.word[0], l, actual, &list);
    } else {
        printf("image: %s\nfile format: %s\n", a.word[0], qcow2_is(l) ? "qcow2" : "raw");
        printf("virtual size: %s (%llu bytes)\n", img_size_text(l->bytes, text, sizeof text),
               (unsigned long long)l->bytes);
        printf("disk size: %s\n", img_size_text(actual, text, sizeof text));
        if (qcow2_is(l))
            print_qcow2(a.word[0], l);
        if (list.count)
            print_snapshots(&list);
    }
    qcow2_snapshots_free(&list);
    disk_layer_destroy(l);
    return 0;
}

/* ---- check ---- */

struct checking {
    struct disk_layer *layer;
    struct qcow2_check check;
    enum qcow2_repair repair;
    struct img_job *job;
    bool quiet;
};

static void print_problem(void *ctx, const char *line)
{
    struct checking *c = ctx;

    if (!c->quiet)
        printf("%s\n", line);
}

static int check_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct checking *c = ctx;

    atomic_store(&c->job->total, total);
    atomic_store(&c->job->done, done);
    return atomic_load(&c->job->cancel);
}

static int run_check(struct img_job *job, struct error *err)
{
    struct checking *c = job->ctx;

    return qcow2_check(c->layer, c->repair, &c->check, err);
}

static int print_result(const struct checking *c, const struct img_args *a)
{
    const struct qcow2_check *k = &c->check;
    double total = (double)MAX(k->total_clusters, 1), used = (double)MAX(k->allocated_clusters, 1);

    if (a->json) {
        printf("{\n");
        json_key("filename", a->word[0]);
        json_key("format", "qcow2");
        printf("    \"check-errors\": 0,\n    \"corruptions\": %llu,\n    \"leaks\": %llu,\n"
               "    \"total-clusters\": %llu,\n    \"allocated-clusters\": %llu,\n"
               "    \"fragmented-clusters\": %llu,\n    \"compressed-clusters\": %llu,\n"
               "    \"image-end-offset\": %llu\n}\n",
               (unsigned long long)k->corruptions, (unsigned long long)k->leaks,
               (unsigned long long)k->total_clusters, (unsigned long long)k->allocated_clusters,
               (unsigned long long)k->fragmented_clusters,
               (unsigned long long)k->compressed_clusters, (unsigned long long)k->image_end);
    } else if (!a->quiet) {
        if (k->repaired)
            printf("repaired\n");
        if (k->corruptions || k->leaks)
            printf("%llu errors, %llu leaked clusters\n", (unsigned long long)k->corruptions,
                   (unsigned long long)k->leaks);
        else
            printf("no errors\n");
        printf("%llu of %llu clusters in use (%.2f%%), %.2f%% fragmented, %.2f%% compressed\n",
               (unsigned long long)k->allocated_clusters, (unsigned long long)k->total_clusters,
               (double)k->allocated_clusters * 100 / total,
               (double)k->fragmented_clusters * 100 / used,
               (double)k->compressed_clusters * 100 / used);
    }
    return k->corruptions ? 2 : k->leaks ? 3 : 0;
}

static int parse_repair(const char *text, enum qcow2_repair *repair, struct error *err)
{
    if (!text)
        *repair = QCOW2_REPAIR_NONE;
    else if (!strcmp(text, "leaks"))
        *repair = QCOW2_REPAIR_LEAKS;
    else if (!strcmp(text, "all"))
        *repair = QCOW2_REPAIR_ALL;
    else
        return error_set(err, -EINVAL, "img check: -r is leaks or all, not '%.32s'", text);
    return 0;
}

int img_check(int argc, char **argv, struct img_job *job, struct error *err)
{
    struct checking c = {.job = job};
    struct disk_layer *file;
    struct img_args a;
    int ret = img_args_parse(&a, argc, argv, "f:r:qp", "check", err);

    if (!ret)
        ret = parse_repair(a.repair, &c.repair, err);
    if (ret)
        return ret;
    if (a.words != 1)
        return error_set(err, -EINVAL, "img check: give one file");
    if (a.format && strcmp(a.format, "qcow2"))
        return error_set(err, -EINVAL, "img check: only qcow2 images have something to check");
    file = disk_file_open(a.word[0], c.repair == QCOW2_REPAIR_NONE, DISK_WRITEBACK, NULL, err);
    if (!file)
        return -EINVAL;
    c.layer = qcow2_open_to_check(file, a.word[0], err);
    if (!c.layer)
        return -EINVAL;
    c.quiet = a.quiet || a.json;
    c.check.tell = print_problem;
    c.check.progress = check_progress;
    c.check.ctx = &c;
    job->verb = "checking";
    job->quiet = a.quiet;
    job->run = run_check;
    job->ctx = &c;
    ret = img_job_run(job, err);
    if (!ret)
        ret = print_result(&c, &a);
    disk_layer_destroy(c.layer);
    return ret;
}

/* ---- snapshot ---- */

struct snapshotting {
    struct disk_layer *layer;
    const struct img_args *args;
};

static int run_snapshot(struct img_job *job, struct error *err)
{
    const struct snapshotting *s = job->ctx;

    if (s->args->snapshot_create)
        return qcow2_snapshot_create(s->layer, s->args->snapshot_create, err);
    if (s->args->snapshot_apply)
        return qcow2_snapshot_apply(s->layer, s->args->snapshot_apply, err);
    return qcow2_snapshot_delete(s->layer, s->args->snapshot_delete, err);
}

int img_snapshot(int argc, char **argv, struct img_job *job, struct error *err)
{
    struct snapshotting s;
    struct qcow2_snapshots list;
    struct img_args a;
    bool changes;
    int ret = img_args_parse(&a, argc, argv, "f:lc:a:d:q", "snapshot", err);

    if (ret)
        return ret;
    changes = a.snapshot_create || a.snapshot_apply || a.snapshot_delete;
    if (a.words != 1 || !!a.snapshot_create + !!a.snapshot_apply + !!a.snapshot_delete + a.list > 1)
        return error_set(err, -EINVAL, "img snapshot: give one of -l, -c, -a and -d, and one file");
    s.args = &a;
    s.layer = img_open(a.word[0], a.format, !changes, !changes, err);
    if (!s.layer)
        return -EINVAL;
    if (!qcow2_is(s.layer)) {
        ret =
            error_set(err, -EINVAL, "%s is a raw image: only qcow2 ones have snapshots", a.word[0]);
    } else if (changes) {
        job->verb = "working";
        job->quiet = a.quiet;
        job->run = run_snapshot;
        job->ctx = &s;
        ret = img_job_run(job, err);
    } else {
        ret = qcow2_snapshots_read(s.layer, &list, err);
        if (!ret && list.count)
            print_snapshots(&list);
        if (!ret)
            qcow2_snapshots_free(&list);
    }
    disk_layer_destroy(s.layer);
    return ret;
}
