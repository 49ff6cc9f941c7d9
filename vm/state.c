/*
 * State tables into bytes and back. Interface: vm/state.h; what a whole
 * machine consists of is in vm/snapshot.c.
 *
 * A section:
 *    u8 length, name of the table; u8 length, name of the instance;
 *    u32 version; u64 bytes that follow; the fields in order of the table
 * All little-endian, as the host is. Integers have the width they have in the
 * struct; a timer is its deadline in virtual ns. Nothing read from a stream is
 * believed: lengths are checked before anything is taken by them.
 *
 * Threading: the stream and the struct are the caller's.
 */
#include "vm/state.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "vm/internal.h"
#include "vm/state_hash.h"

#define NAME_MAX_BYTES 255

/* ---- the stream ---- */

void state_stream_free(struct state_stream *s)
{
    if (s->capacity) /* else the data is the reader's */
        free(s->data);
    memset(s, 0, sizeof *s);
}

void state_put(struct state_stream *s, const void *data, size_t bytes)
{
    if (s->hash) {
        state_hash_put(s->hash, data, bytes);
        return;
    }
    if (s->failed)
        return;
    if (bytes > s->capacity - s->used) {
        size_t capacity = MAX(s->capacity, (size_t)(64 * KiB));
        uint8_t *grown;

        while (capacity - s->used < bytes && capacity <= SIZE_MAX / 2)
            capacity *= 2;
        grown = capacity - s->used < bytes ? NULL : realloc(s->data, capacity);
        if (!grown) {
            s->failed = true;
            return;
        }
        s->data = grown;
        s->capacity = capacity;
    }
    memcpy(s->data + s->used, data, bytes);
    s->used += bytes;
}

bool state_get(struct state_stream *s, void *data, size_t bytes)
{
    if (s->failed || s->position > s->used || bytes > s->used - s->position) {
        s->failed = true;
        memset(data, 0, bytes);
        return false;
    }
    memcpy(data, s->data + s->position, bytes);
    s->position += bytes;
    return true;
}

/* ---- fields ---- */

uint64_t state_field_bytes(const struct state_field *f)
{
    uint64_t bytes = 0;

    switch (f->kind) {
    case STATE_KIND_TIMER:
        return sizeof(uint64_t);
    case STATE_KIND_STRUCT:
        for (const struct state_field *inner = f->table->fields; inner->kind != STATE_KIND_END;
             inner++)
            bytes += state_field_bytes(inner);
        return bytes * f->count;
    default:
        return (uint64_t)f->size * f->count;
    }
}

static void save_fields(struct state_stream *s, const struct state_table *table, void *self)
{
    if (table->before_save)
        table->before_save(self);
    for (const struct state_field *f = table->fields; f->kind != STATE_KIND_END; f++) {
        uint8_t *at = (uint8_t *)self + f->offset;

        switch (f->kind) {
        case STATE_KIND_TIMER:
            state_put(s, &((struct timer *)at)->deadline_ns, sizeof(uint64_t));
            break;
        case STATE_KIND_STRUCT:
            for (size_t i = 0; i < f->count; i++)
                save_fields(s, f->table, at + i * f->size);
            break;
        default:
            state_put(s, at, f->size * f->count);
            break;
        }
    }
}

/* The caller has made sure that the field's bytes are there. */
static int load_field(struct state_stream *s, const struct state_field *f, void *self,
                      struct error *err)
{
    uint8_t *at = (uint8_t *)self + f->offset;
    uint64_t deadline;
    int r;

    switch (f->kind) {
    case STATE_KIND_TIMER:
        state_get(s, &deadline, sizeof deadline);
        timer_restore((struct timer *)at, deadline);
        return 0;
    case STATE_KIND_STRUCT:
        for (size_t i = 0; i < f->count; i++) {
            void *inner = at + i * f->size;

            for (const struct state_field *g = f->table->fields; g->kind != STATE_KIND_END; g++) {
                r = load_field(s, g, inner, err);
                if (r)
                    return r;
            }
            r = f->table->after_load ? f->table->after_load(inner, f->table->version) : 0;
            if (r)
                return error_set(err, r, "saved state is damaged: field %s is not possible",
                                 f->name);
        }
        return 0;
    case STATE_KIND_BOOL:
        for (size_t i = 0; i < f->count; i++) {
            uint8_t v;

            state_get(s, &v, 1);
            if (v > 1) /* would be no bool in C, with any consequence */
                return error_set(err, -EINVAL, "saved state is damaged: flag %s is %u", f->name,
                                 v);
            at[i] = v;
        }
        return 0;
    default:
        state_get(s, at, f->size * f->count);
        return 0;
    }
}

/* ---- sections ---- */

static void put_name(struct state_stream *s, const char *name)
{
    size_t length = strlen(name);
    uint8_t byte = (uint8_t)length;

    assert(length <= NAME_MAX_BYTES);
    state_put(s, &byte, 1);
    state_put(s, name, length);
}

static bool get_name(struct state_stream *s, char name[NAME_MAX_BYTES + 1])
{
    uint8_t length = 0;
    bool ok = state_get(s, &length, 1) && state_get(s, name, length);

    name[length] = 0;
    return ok;
}

void state_save(struct state_stream *s, const struct state_table *table, const char *instance,
                void *self)
{
    uint32_t version = table->version;
    uint64_t bytes = 0;

    for (const struct state_field *f = table->fields; f->kind != STATE_KIND_END; f++)
        bytes += state_field_bytes(f);
    put_name(s, table->name);
    put_name(s, instance);
    state_put(s, &version, sizeof version);
    state_put(s, &bytes, sizeof bytes);
    save_fields(s, table, self);
}

int state_load(struct state_stream *s, const struct state_table *table, const char *instance,
               void *self, struct error *err)
{
    char name[NAME_MAX_BYTES + 1], of[NAME_MAX_BYTES + 1];
    uint32_t version = 0;
    uint64_t bytes = 0;
    const struct state_field *f = table->fields;
    int r;

    if (!get_name(s, name) || !get_name(s, of) || !state_get(s, &version, sizeof version) ||
        !state_get(s, &bytes, sizeof bytes) || bytes > s->used - s->position)
        return error_set(err, -EINVAL, "saved state ends in the middle of %s", instance);
    if (strcmp(name, table->name) || strcmp(of, instance))
        return error_set(err, -EINVAL,
                         "saved state has %.60s \"%.60s\" where this machine has %s \"%s\": build "
                         "the machine as it was when it was saved",
                         name, of, table->name, instance);
    if (version > table->version)
        return error_set(err, -EINVAL,
                         "saved state of %s has version %u, this program knows %u: use a newer one",
                         instance, version, table->version);
    for (; f->kind != STATE_KIND_END && bytes; f++) {
        uint64_t need = state_field_bytes(f);

        if (need > bytes)
            break;
        bytes -= need;
        r = load_field(s, f, self, err);
        if (r)
            return r;
    }
    /* A shorter section is an older version's; a longer one is nobody's. */
    if (bytes || (f->kind != STATE_KIND_END && version == table->version))
        return error_set(err, -EINVAL, "saved state of %s does not have the length of version %u",
                         instance, version);
    r = table->after_load ? table->after_load(self, version) : 0;
    if (r)
        return error_set(err, r, "saved state of %s is not possible: the file is damaged",
                         instance);
    return 0;
}
