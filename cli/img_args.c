/*
 * The arguments of vireo img. Interface: img.h.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>

#include "cli/img.h"

enum { OUTPUT = 256, JSON, SHRINK };

static const struct option long_options[] = {{"output", required_argument, NULL, OUTPUT},
                                             {"json", no_argument, NULL, JSON},
                                             {"shrink", no_argument, NULL, SHRINK},
                                             {NULL, 0, NULL, 0}};

static int set(struct img_args *a, int letter, const char *value, struct error *err)
{
    size_t used = strlen(a->joined);

    switch (letter) {
    case 'f':
        a->format = value;
        break;
    case 'O':
        a->output_format = value;
        break;
    case 'o':
        if (used + strlen(value) + 2 > sizeof a->joined)
            return error_set(err, -E2BIG, "-o is too long");
        snprintf(a->joined + used, sizeof a->joined - used, "%s%s", used ? "," : "", value);
        a->options = a->joined;
        break;
    case 'b':
    case 'B':
        a->backing = value;
        break;
    case 'F':
        a->backing_format = value;
        break;
    case 'c':
        if (value)
            a->snapshot_create = value;
        else
            a->compress = true;
        break;
    case 'a':
        a->snapshot_apply = value;
        break;
    case 'd':
        a->snapshot_delete = value;
        break;
    case 'l':
        if (value)
            a->snapshot_view = value;
        else
            a->list = true;
        break;
    case 'r':
        a->repair = value;
        break;
    case 'S':
        a->sparse = value;
        break;
    case 't':
        a->cache = value;
        break;
    case 'm':
        if (!cli_parse_number(value, &a->threads) || !a->threads || a->threads > 16)
            return error_set(err, -EINVAL, "-m %.32s: give a number from 1 to 16", value);
        break;
    case 'q':
        a->quiet = true;
        break;
    case 'p':
        a->progress = true;
        break;
    case 'W': /* as it always is here */
        break;
    case 'u':
        a->no_backing_check = true;
        break;
    case OUTPUT:
        if (strcmp(value, "json") && strcmp(value, "human"))
            return error_set(err, -EINVAL, "--output is human or json, not '%.32s'", value);
        a->json = !strcmp(value, "json");
        break;
    case JSON:
        a->json = true;
        break;
    case SHRINK:
        a->shrink = true;
        break;
    }
    return 0;
}

/* A size with a minus in front is no option. */
static bool is_negative_size(const char *word)
{
    return word[0] == '-' && word[1] >= '0' && word[1] <= '9';
}

int img_args_parse(struct img_args *a, int argc, char **argv, const char *accepted,
                   const char *command, struct error *err)
{
    char letters[64];
    int letter, ret;

    memset(a, 0, sizeof *a);
    for (int n = 1; n < argc; n++) /* getopt would take it apart: it is given as it is */
        if (is_negative_size(argv[n]) && n + 1 == argc && !strcmp(command, "resize")) {
            argc--;
            a->words = 1;
        }
    snprintf(letters, sizeof letters, ":%s", accepted);
    opterr = 0;
    optind = 1;
    while ((letter = getopt_long(argc, argv, letters, long_options, NULL)) >= 0) {
        if (letter == ':')
            return error_set(err, -EINVAL, "img %s: %.64s needs a value: see vireo img --help",
                             command, argv[optind - 1]);
        if (letter == '?')
            return error_set(err, -EINVAL, "img %s: unknown option %.64s: see vireo img --help",
                             command, argv[optind - 1]);
        ret = set(a, letter, optarg, err);
        if (ret)
            return ret;
    }
    a->word = argv + optind;
    a->words += argc - optind;
    return 0;
}

int img_format_of(const char *name, enum disk_format *format, struct error *err)
{
    if (!name || !strcmp(name, "auto"))
        *format = DISK_FORMAT_AUTO;
    else if (!strcmp(name, "raw"))
        *format = DISK_FORMAT_RAW;
    else if (!strcmp(name, "qcow2"))
        *format = DISK_FORMAT_QCOW2;
    else
        return error_set(err, -EINVAL, "there is no format '%.32s': give raw or qcow2", name);
    return 0;
}

/* ---- -o ---- */

static bool parse_flag(const char *value, bool *out)
{
    *out = !strcmp(value, "on") || !strcmp(value, "true") || !strcmp(value, "yes");
    return *out || !strcmp(value, "off") || !strcmp(value, "false") || !strcmp(value, "no");
}

static bool set_cluster_size(struct img_options *o, const char *value)
{
    uint64_t bytes;

    if (!cli_parse_size(value, &bytes) || !bytes || (bytes & (bytes - 1)))
        return false;
    o->qcow2.cluster_bits = (unsigned)__builtin_ctzll(bytes);
    return o->qcow2.cluster_bits >= QCOW2_CLUSTER_BITS_MIN &&
           o->qcow2.cluster_bits <= QCOW2_CLUSTER_BITS_MAX;
}

static bool set_compat(struct img_options *o, const char *value)
{
    if (!strcmp(value, "0.10") || !strcmp(value, "v2"))
        o->qcow2.version = 2;
    else if (!strcmp(value, "1.1") || !strcmp(value, "v3"))
        o->qcow2.version = 3;
    else
        return false;
    return true;
}

static bool set_prealloc(struct img_options *o, const char *value, enum disk_format format)
{
    static const char *const names[] = {"off", "metadata", "falloc", "full"};

    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        if (strcmp(value, names[n]))
            continue;
        o->prealloc = n;
        return n != IMG_PREALLOC_METADATA || format == DISK_FORMAT_QCOW2;
    }
    return false;
}

static bool set_option(struct img_options *o, const char *key, const char *value,
                       enum disk_format format, bool *known)
{
    struct qcow2_options *q = &o->qcow2;
    uint64_t number;

    *known = true;
    if (!strcmp(key, "preallocation"))
        return set_prealloc(o, value, format);
    if (!strcmp(key, "size"))
        return cli_parse_size(value, &q->virtual_bytes);
    if (format == DISK_FORMAT_QCOW2) {
        if (!strcmp(key, "cluster_size"))
            return set_cluster_size(o, value);
        if (!strcmp(key, "compat"))
            return set_compat(o, value);
        if (!strcmp(key, "lazy_refcounts"))
            return parse_flag(value, &q->lazy_refcounts);
        if (!strcmp(key, "extended_l2"))
            return parse_flag(value, &q->extended_l2);
        if (!strcmp(key, "refcount_bits")) {
            if (!cli_parse_number(value, &number) || number > 64)
                return false;
            q->refcount_bits = (unsigned)number;
            return true;
        }
        if (!strcmp(key, "compression_type")) {
            q->compression = !strcmp(value, "zstd") ? QCOW2_ZSTD : QCOW2_ZLIB;
            return !strcmp(value, "zstd") || !strcmp(value, "zlib");
        }
        if (!strcmp(key, "backing_file")) {
            snprintf(o->backing, sizeof o->backing, "%s", value);
            return strlen(value) < sizeof o->backing;
        }
        if (!strcmp(key, "backing_fmt")) {
            snprintf(o->backing_format, sizeof o->backing_format, "%s", value);
            return strlen(value) < sizeof o->backing_format;
        }
    }
    *known = false;
    return false;
}

int img_options_parse(struct img_options *o, const char *text, enum disk_format format,
                      struct error *err)
{
    memset(o, 0, sizeof *o);
    o->qcow2.version = 3;
    o->qcow2.cluster_bits = 16;
    o->qcow2.refcount_bits = 16;
    while (text && *text) {
        char item[QCOW2_NAME_BYTES + 32], *value;
        size_t used = 0;
        bool known;

        /* A comma in a name is written twice. */
        while (*text && !(text[0] == ',' && text[1] != ',')) {
            if (used + 1 == sizeof item)
                return error_set(err, -EINVAL, "-o: an option is too long");
            text += text[0] == ',';
            item[used++] = *text++;
        }
        item[used] = '\0';
        text += *text == ',';
        value = strchr(item, '=');
        if (value)
            *value++ = '\0';
        if (!set_option(o, item, value ? value : "on", format, &known)) {
            if (known)
                return error_set(err, -EINVAL, "-o %.40s: '%.64s' is no value for it", item,
                                 value ? value : "");
            return error_set(err, -EINVAL,
                             format == DISK_FORMAT_QCOW2
                                 ? "-o %.40s: there are cluster_size, compat, refcount_bits, "
                                   "lazy_refcounts, extended_l2, compression_type, "
                                   "preallocation, backing_file and backing_fmt"
                                 : "-o %.40s: raw images have preallocation only",
                             item);
        }
    }
    return 0;
}
