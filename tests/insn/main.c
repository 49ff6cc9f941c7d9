/*
 * insn_test: random instructions, blocks of them and small programs on the host
 * processor, in Vireo's interpreter and in another of its engines. The same
 * seed makes the same cases.
 *
 * usage: insn_test [--seed N] [--seconds N] [--cases N] [--only TEXT[|TEXT]..]
 *                  [--blocks | --programs] [--engine NAME] [--repeat N]
 *                  [--no-host] [--max-reports N]
 *        insn_test --seed N --form F --mode M --case N   (one case, with report)
 *        insn_test --list-forms | --check-forms FILE
 *
 * --engine: beside the interpreter (auto); with interp alone there is nothing
 * to compare it with but the host. --repeat: how often that engine runs each
 * case, 5: code is hot after the first. --no-host: the engines only, with several times as many cases.
 */
#include "engine/engine.h"
#include "tests/insn/insn.h"

#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct options {
    uint64_t seed, cases, number;
    double seconds;
    const char *only, *check_forms;
    const struct x86_engine_ops *engine;
    bool list, is_single, no_host;
    enum { SINGLES, BLOCKS, PROGRAMS } kind;
    unsigned form, mode, max_reports, repeat;
};

struct run {
    struct options o;
    struct insn_forms forms;
    unsigned *chosen; /* forms that --only names, times modes */
    unsigned chosen_count;
    struct host *host;
    struct guest *guest, *other; /* the interpreter, and an engine that is not or NULL */
    struct insn_shared *sh;
    struct insn_result *guest_result, *other_result;
    unsigned other_run; /* which of its runs differs, or 0 */
    uint64_t next, done, mismatches, faults;
    struct insn_case trimmed;
    struct insn_form **failed_form;
    unsigned failed_count;
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- forms ---- */

static bool same_modes(const struct insn_form *a, const struct insn_form *b)
{
    for (unsigned mode = 0; mode < CODE_SIZES; mode++) {
        if (a->t[mode].valid != b->t[mode].valid)
            return false;
    }
    return true;
}

/* A line has the decorations of one form of operands together, where they exist
 * in the same modes: "; {k} ; {k}{z}". */
static void print_forms(const struct insn_forms *f, FILE *out)
{
    for (unsigned n = 0; n < f->count;) {
        const struct insn_form *form = &f->form[n];
        size_t plain = strcspn(form->name, "{");

        while (plain && form->name[plain - 1] == ' ')
            plain--;
        fprintf(out, "%s", form->name);
        for (n++; n < f->count; n++) {
            const struct insn_form *other = &f->form[n];

            if (strncmp(other->name, form->name, plain) || other->name[plain] != ' ' ||
                other->name[plain + 1] != '{' || !same_modes(form, other))
                break;
            fprintf(out, " ; %s", other->name + plain + 1);
        }
        fprintf(out, " :%s%s%s\n", form->t[CODE_16].valid ? " 16" : "",
                form->t[CODE_32].valid ? " 32" : "", form->t[CODE_64].valid ? " 64" : "");
    }
}

static int check_forms(const struct insn_forms *f, const char *path)
{
    char *text = NULL, line_a[256], line_b[256];
    size_t bytes = 0;
    FILE *mine = open_memstream(&text, &bytes), *theirs = fopen(path, "r");
    unsigned line = 0;
    int result = 0;

    if (!theirs) {
        perror(path);
        return 1;
    }
    /* The list follows from the decoder's tables: another version has others. */
    if (ZydisGetVersion() >> 32 != ZYDIS_VERSION >> 32)
        return 0;
    print_forms(f, mine);
    fclose(mine);
    mine = fmemopen(text, bytes, "r");
    for (;;) {
        char *a = fgets(line_a, sizeof line_a, mine), *b = fgets(line_b, sizeof line_b, theirs);

        line++;
        if (!a && !b)
            break;
        if (!a || !b || strcmp(line_a, line_b)) {
            fprintf(stderr, "%s:%u is not what insn_test --list-forms says\n", path, line);
            result = 1;
            break;
        }
    }
    fclose(mine);
    fclose(theirs);
    free(text);
    return result;
}

/* words: what a form's name has one of, with | between them. */
static bool is_named(const char *name, const char *words)
{
    while (*words) {
        size_t n = strcspn(words, "|");

        if (n && memmem(name, strlen(name), words, n))
            return true;
        words += n + (words[n] == '|');
    }
    return false;
}

static void choose_forms(struct run *r)
{
    r->chosen = calloc(r->forms.count * CODE_SIZES, sizeof *r->chosen);
    for (unsigned n = 0; n < r->forms.count; n++) {
        for (unsigned mode = 0; mode < CODE_SIZES; mode++) {
            if (!r->forms.form[n].t[mode].valid)
                continue;
            if (r->o.only && !is_named(r->forms.form[n].name, r->o.only))
                continue;
            r->chosen[r->chosen_count++] = n * CODE_SIZES + mode;
        }
    }
    if (!r->chosen_count) {
        fprintf(stderr, "insn_test: no form has '%s' in its name\n", r->o.only);
        exit(1);
    }
}

/* ---- cases ---- */

static bool is_evex(const struct run *r, unsigned form)
{
    return r->forms.form[form / CODE_SIZES].t[form % CODE_SIZES].encoding ==
           ZYDIS_INSTRUCTION_ENCODING_EVEX;
}

static void make_case(struct run *r, struct insn_case *k)
{
    do {
        struct rng pick = {r->o.seed ^ r->next << 20};
        unsigned form;

        rng_next(&pick);
        form = r->chosen[rng_next(&pick) % r->chosen_count];
        /* Most forms are AVX-512's, most bugs are not. */
        for (unsigned n = 0; n < 10 && rng_percent(&pick, 90) && is_evex(r, form); n++)
            form = r->chosen[rng_next(&pick) % r->chosen_count];
        /* Most software is 64-bit. */
        if (form % CODE_SIZES != CODE_64 && rng_percent(&pick, 40) &&
            r->forms.form[form / CODE_SIZES].t[CODE_64].valid)
            form = form / CODE_SIZES * CODE_SIZES + CODE_64;
        k->seed = r->o.seed;
        k->number = r->next++;
        k->form = form / CODE_SIZES;
        k->mode = form % CODE_SIZES;
        if (r->o.is_single) {
            k->number = r->o.number;
            k->form = r->o.form;
            k->mode = r->o.mode;
        }
        if (r->o.is_single && !r->forms.form[k->form].t[k->mode].valid) {
            fprintf(stderr, "insn_test: that form does not exist in that mode\n");
            exit(1);
        }
        k->writes_code = 0;
    } while (!(r->o.kind == BLOCKS     ? gen_block(&r->forms, k)
               : r->o.kind == PROGRAMS ? gen_program(&r->forms, k)
                                       : gen_case(&r->forms, k)));
}

/* ---- running and comparing ---- */

enum difference { DIFFER_NOT, DIFFER_FROM_HOST, DIFFER_ENGINES };

/* The interpreter, then the other engine as often as is wanted. */
static void run_guests(struct run *r, const struct insn_case *k, struct insn_result *result)
{
    guest_run(r->guest, k, result);
    r->other_run =
        r->other ? guest_repeat(r->other, k, r->o.repeat, result, r->other_result) : 0;
}

static void report(struct run *r, const struct insn_case *k, enum difference difference,
                   const struct insn_result *host, const struct insn_result *guest)
{
    static const char *const option[] = {"", " --blocks", " --programs"};
    bool strict = difference == DIFFER_ENGINES;
    char command[200];
    struct insn_finding finding = {
        .k = k,
        .name = {strict ? "interp" : "host", strict ? r->o.engine->name : "vireo"},
        .result = {strict ? guest : host, strict ? r->other_result : guest},
        .strict = strict,
        .run = strict ? r->other_run : 0,
        .command = command,
    };
    struct insn_form *form = &r->forms.form[k->form];
    unsigned seen = 0;

    /* One report a form is enough. */
    for (unsigned n = 0; n < r->failed_count && r->o.kind == SINGLES; n++)
        seen += r->failed_form[n] == form;
    if (seen || r->failed_count >= r->o.max_reports)
        return;
    r->failed_form[r->failed_count++] = form;
    snprintf(command, sizeof command,
             "insn_test --seed %llu --form %u --mode %u --case %llu%s --engine %s --repeat %u%s",
             (unsigned long long)k->seed, k->form, k->mode, (unsigned long long)k->number,
             option[r->o.kind], r->o.engine->name, r->o.repeat, r->o.no_host ? " --no-host" : "");
    result_report(&r->forms, &finding);
}

/* Does this case differ in that way? Its results are in place 0 then. */
static bool differs(struct run *r, const struct insn_case *k, enum difference difference)
{
    struct insn_case *first = &r->sh->batch[0][0];

    if (difference == DIFFER_ENGINES) {
        run_guests(r, k, &r->guest_result[0]);
        return r->other_run != 0;
    }
    *first = *k;
    host_start(r->host, 0, 1);
    guest_run(r->guest, k, &r->guest_result[0]);
    host_wait(r->host);
    return !result_equal(k, &r->sh->result[0], &r->guest_result[0]);
}

/* Of a block what it takes to differ: the rest becomes NOPs, or goes. */
static void trim(struct run *r, const struct insn_case *k, enum difference difference)
{
    struct insn_case *best = &r->trimmed, attempt;
    struct insn_decoded d;
    unsigned at, left = 0, end = 0;

    *best = *k;
    if (differs(r, best, difference)) {
        for (at = 0; at < best->code_bytes; at += d.z.length) {
            attempt = *best;
            if (!insn_decode(best->mode, best->code + at, best->code_bytes - at, &d))
                break;
            memset(attempt.code + at, 0x90, d.z.length);
            if (memcmp(attempt.code, best->code, best->code_bytes) &&
                differs(r, &attempt, difference)) {
                *best = attempt;
            } else {
                left++;
                end = at + d.z.length;
            }
        }
        attempt = *best;
        attempt.code_bytes = MAX(end, 1u);
        if (differs(r, &attempt, difference))
            *best = attempt;
        printf("%u of %u instructions are enough:\n", left, best->count);
    } else {
        printf("it did not happen again, here is the last run:\n");
    }
    differs(r, best, difference);
    report(r, best, difference, &r->sh->result[0], &r->guest_result[0]);
}

static void found(struct run *r, const struct insn_case *k, enum difference difference,
                  const struct insn_result *host, const struct insn_result *guest)
{
    struct insn_case copy = *k;

    r->mismatches++;
    if (r->failed_count >= r->o.max_reports)
        return;
    if (r->o.kind == SINGLES)
        report(r, &copy, difference, host, guest);
    else
        trim(r, &copy, difference);
}

/* Runs a batch; the results of the host are gone once something was found. */
static void run_batch(struct run *r, unsigned which, unsigned count)
{
    struct insn_case *batch = r->sh->batch[which];
    unsigned other_at = count;

    if (!r->o.no_host)
        host_start(r->host, which, count);
    for (unsigned n = 0; n < count && other_at == count; n++) {
        run_guests(r, &batch[n], &r->guest_result[n]);
        if (r->other_run)
            other_at = n;
    }
    if (!r->o.no_host)
        host_wait(r->host);
    for (unsigned n = 0; n < count; n++) {
        const struct insn_result *host = &r->sh->result[n], *guest = &r->guest_result[n];

        if (n == other_at) {
            found(r, &batch[n], DIFFER_ENGINES, host, guest);
            return;
        }
        r->done++;
        r->faults += guest->vector != VEC_BP;
        if (r->o.no_host || result_equal(&batch[n], host, guest))
            continue;
        found(r, &batch[n], DIFFER_FROM_HOST, host, guest);
        if (r->o.kind != SINGLES)
            return;
    }
}

static void run(struct run *r)
{
    double start = now();
    uint64_t limit = r->o.is_single ? 1 : r->o.cases ? r->o.cases : UINT64_MAX, made = 0;
    unsigned which = 0, count = 0;

    for (;;) {
        struct insn_case *batch = r->sh->batch[which];

        for (count = 0; count < INSN_BATCH && made < limit; count++, made++)
            make_case(r, &batch[count]);
        if (!count)
            break;
        run_batch(r, which, count);
        which ^= 1;
        if (r->o.seconds > 0 && now() - start > r->o.seconds)
            break;
        if (r->failed_count >= r->o.max_reports)
            break;
    }
    printf("insn_test: seed %llu, %s: %llu cases of %u forms, %llu ended in a fault, %.0f a second, "
           "%llu differ\n",
           (unsigned long long)r->o.seed, r->o.engine->name, (unsigned long long)r->done,
           r->chosen_count, (unsigned long long)r->faults, (double)r->done / (now() - start),
           (unsigned long long)r->mismatches);
}

/* ---- options ---- */

static void parse(struct options *o, int argc, char **argv)
{
    enum { SEED, SECONDS, CASES, ONLY, BLOCK, PROGRAM, ENGINE, REPEAT, NO_HOST, MAX, FORM, MODE,
           CASE, LIST, CHECK };
    static const struct option options[] = {
        {"seed", required_argument, NULL, SEED},
        {"seconds", required_argument, NULL, SECONDS},
        {"cases", required_argument, NULL, CASES},
        {"only", required_argument, NULL, ONLY},
        {"blocks", no_argument, NULL, BLOCK},
        {"programs", no_argument, NULL, PROGRAM},
        {"engine", required_argument, NULL, ENGINE},
        {"repeat", required_argument, NULL, REPEAT},
        {"no-host", no_argument, NULL, NO_HOST},
        {"max-reports", required_argument, NULL, MAX},
        {"form", required_argument, NULL, FORM},
        {"mode", required_argument, NULL, MODE},
        {"case", required_argument, NULL, CASE},
        {"list-forms", no_argument, NULL, LIST},
        {"check-forms", required_argument, NULL, CHECK},
        {0},
    };
    const char *engine = "auto";
    struct error err = {""};
    int c;

    *o = (struct options){.seed = 1, .max_reports = 20, .mode = CODE_64, .repeat = 5};
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case SEED:
            o->seed = strtoull(optarg, NULL, 0);
            break;
        case SECONDS:
            o->seconds = strtod(optarg, NULL);
            break;
        case CASES:
            o->cases = strtoull(optarg, NULL, 0);
            break;
        case ONLY:
            o->only = optarg;
            break;
        case BLOCK:
            o->kind = BLOCKS;
            break;
        case PROGRAM:
            o->kind = PROGRAMS;
            break;
        case ENGINE:
            engine = optarg;
            break;
        case REPEAT:
            o->repeat = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case NO_HOST:
            o->no_host = true;
            break;
        case MAX:
            o->max_reports = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case FORM:
            o->form = (unsigned)strtoul(optarg, NULL, 0);
            o->is_single = true;
            break;
        case MODE:
            o->mode = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case CASE:
            o->number = strtoull(optarg, NULL, 0);
            o->is_single = true;
            break;
        case LIST:
            o->list = true;
            break;
        case CHECK:
            o->check_forms = optarg;
            break;
        default:
            exit(1);
        }
    }
    if (!o->seconds && !o->cases && !o->is_single)
        o->seconds = 40;
    o->engine = engine_find(engine, NULL, &err);
    if (!o->engine) {
        fprintf(stderr, "insn_test: %s\n", err.text);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    struct run *r = calloc(1, sizeof *r);
    char path[PATH_MAX], child[PATH_MAX + 16];
    ssize_t n;
    int result;

    parse(&r->o, argc, argv);
    forms_create(&r->forms);
    if (r->o.list) {
        print_forms(&r->forms, stdout);
        return 0;
    }
    if (r->o.check_forms) {
        result = check_forms(&r->forms, r->o.check_forms);
        if (result)
            return result;
    }
    if (r->o.is_single && (r->o.form >= r->forms.count || r->o.mode >= CODE_SIZES)) {
        fprintf(stderr, "insn_test: no such form\n");
        return 1;
    }
    choose_forms(r);
    n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n < 0)
        return 2;
    path[n] = 0;
    snprintf(child, sizeof child, "%s/insn_host", dirname(path));
    r->host = host_create(child);
    r->sh = host_shared(r->host);
    value_background(r->o.seed, r->sh->background);
    r->guest = guest_create(r->sh->background, &interp_engine, false);
    if (r->o.engine != &interp_engine)
        r->other = guest_create(r->sh->background, r->o.engine, false);
    r->guest_result = calloc(INSN_BATCH, sizeof *r->guest_result);
    r->other_result = calloc(1, sizeof *r->other_result);
    r->failed_form = calloc(r->o.max_reports + 1, sizeof(struct insn_form *));
    run(r);
    result = r->mismatches ? 1 : 0;
    guest_destroy(r->guest);
    if (r->other)
        guest_destroy(r->other);
    host_destroy(r->host);
    free(r->guest_result);
    free(r->other_result);
    free(r->failed_form);
    free(r->chosen);
    forms_destroy(&r->forms);
    free(r);
    return result;
}
