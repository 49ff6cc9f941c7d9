/*
 * State tables: what a device or a processor must remember, as data.
 *
 * A table lists the fields of one struct. Save, load, hash and compare walk
 * it. The stream is little-endian, tagged with name and version of each table
 * and the length of each section, so that a reader notices what it does not
 * know.
 *
 *     static const struct state_field uart_fields[] = {
 *         STATE_INT(struct uart, lcr),
 *         STATE_BYTES(struct uart, rx_fifo),
 *         STATE_TIMER(struct uart, tx_timer),
 *         STATE_END,
 *     };
 *     static const struct state_table uart_state = {"uart", 1, uart_fields};
 */
#ifndef VM_STATE_H
#define VM_STATE_H

#include "base/base.h"
#include "base/error.h"

enum state_kind {
    STATE_KIND_END,
    STATE_KIND_INT,    /* 1, 2, 4 or 8 bytes, bool included; count of them */
    STATE_KIND_BYTES,  /* size bytes as they are */
    STATE_KIND_TIMER,  /* struct timer: its deadline; re-armed on load */
    STATE_KIND_STRUCT, /* count structs of size bytes described by table */
    STATE_KIND_BOOL,   /* a STATE_INT that is a bool: anything but 0 and 1 is refused */
};

struct state_table;

struct state_field {
    const char *name;
    enum state_kind kind;
    size_t offset;
    size_t size;  /* of one element */
    size_t count; /* elements */
    const struct state_table *table;
};

struct state_table {
    const char *name;
    unsigned version;
    const struct state_field *fields;
    /* Called before saving and after loading; either may be NULL. load returns
     * a negative errno when what it was given cannot be (hostile file). */
    void (*before_save)(void *self);
    int (*after_load)(void *self, unsigned version);
};

#define STATE_INT_KIND(lvalue) _Generic((lvalue), bool : STATE_KIND_BOOL, default : STATE_KIND_INT)
#define STATE_INT(type, member)                                                                    \
    {                                                                                              \
#member, STATE_INT_KIND(((type *)0)->member), offsetof(type, member),                      \
            sizeof(((type *)0)->member), 1, NULL                                                   \
    }
#define STATE_INTS(type, member)                                                                   \
    {                                                                                              \
#member, STATE_INT_KIND(((type *)0)->member[0]), offsetof(type, member),                   \
            sizeof(((type *)0)->member[0]),                                                        \
            sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]), NULL                     \
    }
#define STATE_BYTES(type, member)                                                                  \
    {                                                                                              \
#member, STATE_KIND_BYTES, offsetof(type, member), sizeof(((type *)0)->member), 1, NULL    \
    }
#define STATE_TIMER(type, member)                                                                  \
    {                                                                                              \
#member, STATE_KIND_TIMER, offsetof(type, member), sizeof(struct timer), 1, NULL           \
    }
#define STATE_STRUCT(type, member, tab)                                                            \
    {                                                                                              \
#member, STATE_KIND_STRUCT, offsetof(type, member), sizeof(((type *)0)->member), 1, tab    \
    }
#define STATE_STRUCTS(type, member, tab)                                                           \
    {                                                                                              \
#member, STATE_KIND_STRUCT, offsetof(type, member), sizeof(((type *)0)->member[0]),        \
            sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]), tab                      \
    }
#define STATE_END                                                                                  \
    {                                                                                              \
        NULL, STATE_KIND_END, 0, 0, 0, NULL                                                        \
    }

struct state_hash;

/* A growing buffer that is written, or a fixed one that is read: data and used
 * set by the reader, all else zero. */
struct state_stream {
    uint8_t *data;
    size_t used, capacity, position;
    bool failed;             /* out of memory, or read past the end */
    struct state_hash *hash; /* what is put goes here instead of into data */
};

void state_stream_free(struct state_stream *s);
void state_put(struct state_stream *s, const void *data, size_t bytes);
bool state_get(struct state_stream *s, void *data, size_t bytes);

/*
 * One section: header and fields. A table's fields are only ever appended to
 * (at its outermost level), with a new version; a section of an older version
 * then leaves the newer fields as they are, for after_load to settle. A
 * version from the future is refused.
 */
void state_save(struct state_stream *s, const struct state_table *table, const char *instance,
                void *self);
int state_load(struct state_stream *s, const struct state_table *table, const char *instance,
               void *self, struct error *err);

struct vm;

/* Everything of a machine that is paused or not in vm_run: clock, processors,
 * devices, RAM. The machine to load into has been built alike. After a load
 * that failed it is good for reset and destroy only. */
int vm_state_save(struct vm *vm, struct state_stream *s, struct error *err);
int vm_state_load(struct vm *vm, struct state_stream *s, struct error *err);
/*
 * What differs between two saved states of machines that are built like vm:
 * tells one line each ("lapic lapic0: timer_count: 12 and 13"), at most `most`
 * of them, and returns how many there are. Streams that are no such states
 * count as one difference.
 */
unsigned vm_state_diff(struct vm *vm, const struct state_stream *a, const struct state_stream *b,
                       void (*tell)(void *ctx, const char *line), void *ctx, unsigned most);
/* What two machines that are not running are compared through; all zero at
 * first. Kept by the caller, because it grows once and is used often. */
struct state_comparison {
    struct state_stream a, b;
};

void state_comparison_free(struct state_comparison *with);
/* As vm_state_diff, of two machines as they stand: leaves no trace in their
 * future. Clock, processors and devices are some 20 KiB; with_ram: all memory too.
 * Running out of memory counts as one difference. */
unsigned vm_state_compare(struct vm *a, struct vm *b, bool with_ram, struct state_comparison *with,
                          void (*tell)(void *ctx, const char *line), void *ctx, unsigned most);
/* 128 bits over the same, without building it; leaves no trace in the machine's
 * future (a save does: translations and decoded code go, as if loaded). */
void vm_state_hash(struct vm *vm, uint64_t hash[2]);

#endif
