/*
 * What differs between two saved machines, in words: for whoever looks for the
 * instruction at which two machines that should be the same part ways.
 * Interface: vm_state_diff and vm_state_compare in vm/state.h.
 *
 * Walks both streams by the tables of a machine that is built like them, as
 * loading does (vm/snapshot.c has the layout). Streams are hostile input here
 * too: where they stop making sense the comparison ends with a line that says
 * so.
 *
 * Threading: the streams are the caller's; of the machine only what does not
 * change after it was built is used.
 */
#include <stdarg.h>
#include <stdio.h>

#include "vm/internal.h"

#define NAME_BYTES 256
#define PATH_BYTES 160

struct diff {
    struct state_stream a, b;
    void (*tell)(void *ctx, const char *line);
    void *ctx;
    unsigned count, most;
    char where[PATH_BYTES]; /* "table instance" */
};

PRINTF_LIKE(2, 3) static void tell(struct diff *d, const char *format, ...)
{
    char line[512];
    va_list args;

    if (d->count++ >= d->most)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    d->tell(d->ctx, line);
}

static bool get_both(struct diff *d, void *a, void *b, size_t bytes)
{
    bool ok = state_get(&d->a, a, bytes);

    return state_get(&d->b, b, bytes) && ok;
}

static bool broken(struct diff *d)
{
    tell(d, "%s: no more is comparable: a stream ends or makes no sense", d->where);
    return false;
}

/* ---- fields ---- */

static void compare_bytes(struct diff *d, const char *path, uint64_t bytes)
{
    uint64_t first = 0, different = 0;
    uint8_t a, b, first_a = 0, first_b = 0;

    for (uint64_t i = 0; i < bytes; i++) {
        if (!get_both(d, &a, &b, 1))
            return;
        if (a == b)
            continue;
        if (!different++) {
            first = i;
            first_a = a;
            first_b = b;
        }
    }
    if (different)
        tell(d, "%s: %s: %llu bytes differ, the first at %#llx: %02x and %02x", d->where, path,
             (unsigned long long)different, (unsigned long long)first, first_a, first_b);
}

static void compare_fields(struct diff *d, const struct state_table *table, const char *path);

static void compare_field(struct diff *d, const struct state_field *f, const char *prefix)
{
    char path[PATH_BYTES];
    size_t size = f->kind == STATE_KIND_TIMER ? sizeof(uint64_t) : f->size;

    if (f->kind == STATE_KIND_BYTES || (f->kind != STATE_KIND_STRUCT && size > sizeof(uint64_t))) {
        snprintf(path, sizeof path, "%s%s", prefix, f->name);
        compare_bytes(d, path, state_field_bytes(f));
        return;
    }
    for (size_t i = 0; i < f->count; i++) {
        uint64_t a = 0, b = 0;

        if (f->count > 1)
            snprintf(path, sizeof path, "%s%s[%zu]", prefix, f->name, i);
        else
            snprintf(path, sizeof path, "%s%s", prefix, f->name);
        if (f->kind == STATE_KIND_STRUCT) {
            strncat(path, ".", sizeof path - strlen(path) - 1);
            compare_fields(d, f->table, path);
            continue;
        }
        if (!get_both(d, &a, &b, size))
            return;
        if (a != b)
            tell(d, "%s: %s: %#llx and %#llx", d->where, path, (unsigned long long)a,
                 (unsigned long long)b);
    }
}

static void compare_fields(struct diff *d, const struct state_table *table, const char *path)
{
    for (const struct state_field *f = table->fields; f->kind != STATE_KIND_END; f++)
        compare_field(d, f, path);
}

/* ---- sections ---- */

static bool get_name(struct state_stream *s, char name[NAME_BYTES])
{
    uint8_t length = 0;
    bool ok = state_get(s, &length, 1) && state_get(s, name, length);

    name[length] = 0;
    return ok;
}

static bool get_header(struct state_stream *s, const struct state_table *table,
                       const char *instance)
{
    char name[NAME_BYTES], of[NAME_BYTES];
    uint32_t version;
    uint64_t bytes, expected = 0;

    for (const struct state_field *f = table->fields; f->kind != STATE_KIND_END; f++)
        expected += state_field_bytes(f);
    return get_name(s, name) && get_name(s, of) && state_get(s, &version, sizeof version) &&
           state_get(s, &bytes, sizeof bytes) && !strcmp(name, table->name) &&
           !strcmp(of, instance) && version == table->version && bytes == expected &&
           bytes <= s->used - s->position;
}

/* label: what to call it, where the instance's name does not tell. */
static bool compare_section(struct diff *d, const struct state_table *table, const char *instance,
                            const char *label)
{
    snprintf(d->where, sizeof d->where, "%s %s", table->name, label);
    if (!get_header(&d->a, table, instance) || !get_header(&d->b, table, instance))
        return broken(d);
    compare_fields(d, table, "");
    return true;
}

/* ---- memory: pages that one of them does not have are zero there ---- */

struct page {
    uint64_t number; /* STATE_NO_PAGE: the end */
    const uint8_t *data;
};

static bool next_page(struct state_stream *s, struct page *p)
{
    uint64_t last = p->number;

    if (!state_get(s, &p->number, sizeof p->number))
        return false;
    if (p->number == STATE_NO_PAGE)
        return true;
    if ((last != STATE_NO_PAGE && p->number <= last) || s->used - s->position < STATE_PAGE)
        return false;
    p->data = s->data + s->position;
    s->position += STATE_PAGE;
    return true;
}

static void compare_page(struct diff *d, uint64_t number, const uint8_t *a, const uint8_t *b)
{
    unsigned different = 0, first = 0;

    for (unsigned i = 0; i < STATE_PAGE; i++)
        if (a[i] != b[i] && !different++)
            first = i;
    if (different)
        tell(d, "%s: page %#llx: %u bytes differ, the first at offset %#llx: %02x and %02x",
             d->where, (unsigned long long)number, different,
             (unsigned long long)(number * STATE_PAGE + first), a[first], b[first]);
}

static bool compare_ram(struct diff *d, const struct ram_block *block)
{
    static const uint8_t zeros[STATE_PAGE];
    struct page a = {.number = STATE_NO_PAGE}, b = a;

    if (!compare_section(d, &vm_ram_state, block->name, block->name))
        return false;
    if (!next_page(&d->a, &a) || !next_page(&d->b, &b))
        return broken(d);
    while (a.number != STATE_NO_PAGE || b.number != STATE_NO_PAGE) {
        uint64_t number = MIN(a.number, b.number);
        bool in_a = a.number == number, in_b = b.number == number;

        compare_page(d, number, in_a ? a.data : zeros, in_b ? b.data : zeros);
        if ((in_a && !next_page(&d->a, &a)) || (in_b && !next_page(&d->b, &b)))
            return broken(d);
    }
    return true;
}

/* ---- the whole ---- */

/* Clock, processors and devices; false: no more is comparable. */
static bool compare_all_but_ram(struct diff *d, struct vm *vm)
{
    struct start {
        char magic[STATE_MAGIC_BYTES];
        uint32_t layout;
    } x, y;
    bool ok = get_both(d, &x, &y, sizeof x) && !memcmp(&x, &y, sizeof x) &&
              !memcmp(x.magic, STATE_MAGIC, sizeof x.magic);

    if (!ok)
        broken(d);
    ok = ok && compare_section(d, &vm_machine_state, "machine", "machine");
    for (unsigned i = 0; i < vm->vcpu_count && ok; i++) {
        char number[12];

        snprintf(number, sizeof number, "%u", i);
        ok = compare_section(d, &vm_vcpu_state, "vcpu", number);
        if (ok && vm->vcpus[i]->state)
            ok = compare_section(d, vm->vcpus[i]->state, "vcpu", number);
    }
    for (unsigned i = 0; i < vm->device_count && ok; i++)
        if (vm->devices[i].type->state)
            ok = compare_section(d, vm->devices[i].type->state, vm->devices[i].instance,
                                 vm->devices[i].instance);
    return ok;
}

static struct diff diff_of(const struct state_stream *a, const struct state_stream *b,
                           void (*tell_line)(void *ctx, const char *line), void *ctx, unsigned most)
{
    return (struct diff){.a = {.data = a->data, .used = a->used},
                         .b = {.data = b->data, .used = b->used},
                         .tell = tell_line,
                         .ctx = ctx,
                         .most = most,
                         .where = "start"};
}

unsigned vm_state_diff(struct vm *vm, const struct state_stream *a, const struct state_stream *b,
                       void (*tell_line)(void *ctx, const char *line), void *ctx, unsigned most)
{
    struct diff d = diff_of(a, b, tell_line, ctx, most);
    bool ok = compare_all_but_ram(&d, vm);

    for (const struct ram_block *block = vm->ram_blocks; block && ok; block = block->next)
        ok = compare_ram(&d, block);
    return d.count;
}

/* ---- two machines as they stand ---- */

/* Large enough that the loop costs nothing, small enough that what differs is
 * near. */
#define PIECE (64 * KiB)

static void compare_blocks(struct diff *d, const struct ram_block *a, const struct ram_block *b)
{
    snprintf(d->where, sizeof d->where, "%s %s", vm_ram_state.name, a->name);
    if (a->bytes != b->bytes) {
        broken(d);
        return;
    }
    for (uint64_t piece = 0; piece < a->bytes; piece += PIECE) {
        uint64_t bytes = MIN((uint64_t)PIECE, a->bytes - piece);

        if (!memcmp(a->host + piece, b->host + piece, bytes))
            continue;
        for (uint64_t at = piece; at < piece + bytes; at += STATE_PAGE)
            compare_page(d, at / STATE_PAGE, a->host + at, b->host + at);
    }
}

void state_comparison_free(struct state_comparison *with)
{
    state_stream_free(&with->a);
    state_stream_free(&with->b);
}

static void save_for_comparison(struct vm *vm, struct state_stream *s)
{
    s->used = 0;
    s->failed = false;
    vm_lock(vm);
    state_save_all_but_ram(vm, s);
    vm_unlock(vm);
}

unsigned vm_state_compare(struct vm *a, struct vm *b, bool with_ram, struct state_comparison *with,
                          void (*tell_line)(void *ctx, const char *line), void *ctx, unsigned most)
{
    const struct ram_block *x = a->ram_blocks, *y = b->ram_blocks;
    struct diff d;

    save_for_comparison(a, &with->a);
    save_for_comparison(b, &with->b);
    d = diff_of(&with->a, &with->b, tell_line, ctx, most);
    if (with->a.failed || with->b.failed)
        broken(&d);
    else if (with->a.used != with->b.used || memcmp(with->a.data, with->b.data, with->a.used))
        compare_all_but_ram(&d, a);
    for (; with_ram && x && y; x = x->next, y = y->next)
        compare_blocks(&d, x, y);
    return d.count;
}
