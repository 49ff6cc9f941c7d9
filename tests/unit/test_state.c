/*
 * vm/state.c and vm/snapshot.c: what is saved comes back; damaged, cut and
 * foreign files are refused with one line and harm nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vm/state_hash.h"
#include "vm/vm.h"

/* ---- a device with every kind of field ---- */

struct inner {
    uint16_t a;
    bool flag;
    uint8_t not_saved;
};

struct gadget {
    struct vm *vm;
    uint8_t u8;
    uint64_t u64;
    uint32_t words[4];
    bool on, lamps[3];
    uint8_t fifo[16];
    struct inner one, two[2];
    struct timer timer;
    uint32_t newer; /* since version 2 */
    unsigned before, after, loaded_version;
    int refuse;
};

static int inner_after_load(void *self, unsigned version)
{
    return ((struct inner *)self)->a == 0xdead ? -EINVAL : 0;
}

static const struct state_field inner_fields[] = {
    STATE_INT(struct inner, a),
    STATE_INT(struct inner, flag),
    STATE_END,
};
static const struct state_table inner_table = {"inner", 1, inner_fields, NULL, inner_after_load};

#define GADGET_FIELDS                                                                              \
    STATE_INT(struct gadget, u8), STATE_INT(struct gadget, u64), STATE_INTS(struct gadget, words), \
        STATE_INT(struct gadget, on), STATE_INTS(struct gadget, lamps),                            \
        STATE_BYTES(struct gadget, fifo), STATE_STRUCT(struct gadget, one, &inner_table),          \
        STATE_STRUCTS(struct gadget, two, &inner_table), STATE_TIMER(struct gadget, timer)

static const struct state_field gadget_fields[] = {
    GADGET_FIELDS,
    STATE_INT(struct gadget, newer),
    STATE_END,
};
static const struct state_field old_fields[] = {GADGET_FIELDS, STATE_END};

static void gadget_before_save(void *self)
{
    ((struct gadget *)self)->before++;
}

static int gadget_after_load(void *self, unsigned version)
{
    struct gadget *g = self;

    g->after++;
    g->loaded_version = version;
    return g->refuse;
}

static const struct state_table gadget_table = {"gadget", 2, gadget_fields, gadget_before_save,
                                                gadget_after_load};
static const struct state_table old_table = {"gadget", 1, old_fields, NULL, NULL};
static const struct state_table future_table = {"gadget", 3, gadget_fields, NULL, NULL};
static const struct state_table other_table = {"widget", 2, gadget_fields, NULL, NULL};

static void nothing(void *ctx)
{
}

static void gadget_fill(struct gadget *g, uint64_t seed)
{
    g->u8 = (uint8_t)seed;
    g->u64 = seed * 0x123456789abcdefull;
    for (unsigned i = 0; i < 4; i++)
        g->words[i] = (uint32_t)(seed + i);
    g->on = seed & 1;
    g->lamps[1] = true;
    memset(g->fifo, (int)seed, sizeof g->fifo);
    g->one = (struct inner){.a = 77, .flag = true};
    g->two[0] = (struct inner){.a = 78};
    g->two[1] = (struct inner){.a = (uint16_t)seed, .flag = true};
    g->newer = 4711;
    timer_arm(&g->timer, 1000 + seed);
}

static const struct dev_type gadget_type = {.name = "gadget", .state = &gadget_table};

struct machine {
    struct vm *vm;
    struct gadget gadget;
    struct ram_block *ram, *rom;
};

static struct machine *machine_create(bool deterministic)
{
    struct vm_config config = {.deterministic = deterministic, .seed = 4};
    struct machine *m = calloc(1, sizeof *m);

    m->vm = vm_create(&config, NULL);
    assert_non_null(m->vm);
    m->gadget.vm = m->vm;
    timer_init(&m->gadget.timer, m->vm, nothing, NULL);
    vm_add_device(m->vm, &gadget_type, "gadget0", &m->gadget);
    m->ram = ram_block_create(m->vm, "ram", 1 * MiB, RAM_NORMAL, NULL);
    m->rom = ram_block_create(m->vm, "rom", 64 * KiB, RAM_ROM, NULL);
    return m;
}

static void machine_destroy(struct machine *m)
{
    timer_destroy(&m->gadget.timer);
    vm_destroy(m->vm);
    free(m);
}

/* ---- one section ---- */

static void test_section(void **state)
{
    struct machine *m = machine_create(true);
    struct gadget *g = &m->gadget, copy;
    struct state_stream s = {0};
    struct error err;

    gadget_fill(g, 3);
    state_save(&s, &gadget_table, "g", g);
    assert_false(s.failed);
    assert_int_equal(g->before, 1);
    copy = *g;
    gadget_fill(g, 200);
    g->one.not_saved = 9;
    g->newer = 0;
    assert_int_equal(state_load(&s, &gadget_table, "g", g, &err), 0);
    assert_int_equal(g->u8, copy.u8);
    assert_int_equal(g->u64, copy.u64);
    assert_memory_equal(g->words, copy.words, sizeof copy.words);
    assert_int_equal(g->on, copy.on);
    assert_memory_equal(g->fifo, copy.fifo, sizeof copy.fifo);
    assert_int_equal(g->two[1].a, 3);
    assert_int_equal(g->one.not_saved, 9);
    assert_int_equal(g->newer, 4711);
    assert_int_equal(g->timer.deadline_ns, 1003);
    assert_true(timer_is_armed(&g->timer));
    assert_int_equal(g->after, 1);
    assert_int_equal(g->loaded_version, 2);

    /* Not armed comes back as not armed. */
    timer_cancel(&g->timer);
    s.used = s.position = 0;
    state_save(&s, &gadget_table, "g", g);
    timer_arm(&g->timer, 5);
    assert_int_equal(state_load(&s, &gadget_table, "g", g, &err), 0);
    assert_false(timer_is_armed(&g->timer));
    state_stream_free(&s);
    machine_destroy(m);
}

static void test_versions(void **state)
{
    struct machine *m = machine_create(true);
    struct gadget *g = &m->gadget;
    struct state_stream s = {0};
    struct error err = {""};

    gadget_fill(g, 3);
    state_save(&s, &old_table, "g", g);
    g->newer = 12;
    g->u8 = 0;
    assert_int_equal(state_load(&s, &gadget_table, "g", g, &err), 0);
    assert_int_equal(g->loaded_version, 1);
    assert_int_equal(g->u8, 3);
    assert_int_equal(g->newer, 12); /* for after_load to settle */

    s.used = s.position = 0;
    state_save(&s, &future_table, "g", g);
    assert_int_equal(state_load(&s, &gadget_table, "g", g, &err), -EINVAL);
    assert_non_null(strstr(err.text, "version 3"));

    s.used = s.position = 0;
    state_save(&s, &other_table, "g", g);
    assert_int_equal(state_load(&s, &gadget_table, "g", g, &err), -EINVAL);
    assert_non_null(strstr(err.text, "widget"));
    s.position = 0;
    assert_int_equal(state_load(&s, &other_table, "h", g, &err), -EINVAL);

    s.used = s.position = 0;
    state_save(&s, &gadget_table, "g", g);
    g->refuse = -ERANGE;
    assert_int_equal(state_load(&s, &gadget_table, "g", g, &err), -ERANGE);
    g->refuse = 0;
    g->one.a = 0xdead; /* a table within says no */
    s.used = s.position = 0;
    state_save(&s, &gadget_table, "g", g);
    assert_int_equal(state_load(&s, &gadget_table, "g", g, &err), -EINVAL);
    state_stream_free(&s);
    machine_destroy(m);
}

static void test_damaged_section(void **state)
{
    struct machine *m = machine_create(true);
    struct gadget *g = &m->gadget;
    struct state_stream s = {0};
    struct error err;

    gadget_fill(g, 3);
    state_save(&s, &gadget_table, "g", g);
    for (size_t cut = 0; cut < s.used; cut++) {
        struct state_stream part = {.data = s.data, .used = cut};

        err.text[0] = 0;
        assert_int_equal(state_load(&part, &gadget_table, "g", g, &err), -EINVAL);
        assert_true(err.text[0]);
    }
    for (size_t at = 0; at < s.used; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct state_stream bad = {.data = s.data, .used = s.used};
            const uint8_t *on = (const uint8_t *)&g->on;

            s.data[at] ^= (uint8_t)(1u << bit);
            (void)state_load(&bad, &gadget_table, "g", g, &err);
            s.data[at] ^= (uint8_t)(1u << bit);
            assert_true(*on <= 1); /* a flag is a flag, whatever the file says */
            assert_true(bad.position <= bad.used);
        }
    }
    state_stream_free(&s);
    machine_destroy(m);
}

/* ---- the hash ---- */

static void test_hash_pieces(void **state)
{
    uint8_t data[300];
    uint64_t whole[2], pieces[2], other[2];
    struct state_hash h;

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    state_hash_init(&h);
    state_hash_put(&h, data, sizeof data);
    state_hash_finish(&h, whole);
    for (unsigned step = 1; step < 40; step++) {
        state_hash_init(&h);
        for (unsigned i = 0; i < sizeof data; i += step)
            state_hash_put(&h, data + i, MIN(step, sizeof data - i));
        state_hash_finish(&h, pieces);
        assert_memory_equal(whole, pieces, sizeof whole);
    }
    for (unsigned i = 0; i < sizeof data * 8; i++) {
        data[i / 8] ^= (uint8_t)(1u << i % 8);
        state_hash_init(&h);
        state_hash_put(&h, data, sizeof data);
        state_hash_finish(&h, other);
        data[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_true(other[0] != whole[0] && other[1] != whole[1]);
    }
    /* Zeroes at the end count. */
    memset(data, 0, sizeof data);
    state_hash_init(&h);
    state_hash_put(&h, data, 16);
    state_hash_finish(&h, whole);
    state_hash_init(&h);
    state_hash_put(&h, data, 17);
    state_hash_finish(&h, other);
    assert_true(other[0] != whole[0] && other[1] != whole[1]);
}

/* ---- whole machines ---- */

static void machine_fill(struct machine *m)
{
    enum vm_exit exit;

    gadget_fill(&m->gadget, 50);
    memset(m->ram->host + 5 * 4096, 0x55, 100);
    m->ram->host[1 * MiB - 1] = 1;
    m->rom->host[77] = 7;
    assert_int_equal(vm_run_until(m->vm, 900, &exit, NULL, NULL), 0);
    vm_random(m->vm);
}

static void test_machine(void **state)
{
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        struct machine *a = machine_create(deterministic), *b = machine_create(deterministic);
        struct state_stream s = {0};
        uint64_t ha[2], hb[2];
        struct error err;
        enum vm_exit exit;

        machine_fill(a);
        memset(b->ram->host, 0xff, 64 * KiB); /* has to go */
        assert_int_equal(vm_state_save(a->vm, &s, &err), 0);
        assert_true(s.used < 5 * 4096); /* three pages that are not zero */
        vm_state_hash(a->vm, ha);
        vm_state_hash(b->vm, hb);
        assert_memory_not_equal(ha, hb, sizeof ha);
        assert_int_equal(vm_state_load(b->vm, &s, &err), 0);
        vm_state_hash(b->vm, hb);
        assert_memory_equal(ha, hb, sizeof ha);
        assert_memory_equal(a->ram->host, b->ram->host, 1 * MiB);
        assert_int_equal(clock_now_ns(&a->vm->clock), clock_now_ns(&b->vm->clock));
        if (deterministic) {
            assert_int_equal(vm_random(a->vm), vm_random(b->vm));
            assert_int_equal(vm_run_until(a->vm, 5000, &exit, NULL, NULL), 0);
            assert_int_equal(vm_run_until(b->vm, 5000, &exit, NULL, NULL), 0);
            vm_state_hash(a->vm, ha);
            vm_state_hash(b->vm, hb);
            assert_memory_equal(ha, hb, sizeof ha);
        }
        b->ram->host[12345] ^= 1;
        vm_state_hash(b->vm, hb);
        assert_memory_not_equal(ha, hb, sizeof ha);
        state_stream_free(&s);
        machine_destroy(a);
        machine_destroy(b);
    }
}

static void test_damaged_machine(void **state)
{
    struct machine *a = machine_create(true), *b = machine_create(true);
    struct machine *real = machine_create(false);
    struct state_stream s = {0};
    struct error err;
    uint64_t seed = 1;

    machine_fill(a);
    assert_int_equal(vm_state_save(a->vm, &s, &err), 0);
    for (size_t cut = 0; cut < s.used; cut += cut < 600 ? 1 : 97) {
        struct state_stream part = {.data = s.data, .used = cut};

        err.text[0] = 0;
        assert_int_equal(vm_state_load(b->vm, &part, &err), -EINVAL);
        assert_true(err.text[0]);
        assert_null(strchr(err.text, '\n'));
    }
    for (int i = 0; i < 3000; i++) {
        struct state_stream bad = {.data = s.data, .used = s.used};
        size_t at;
        uint8_t was;

        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        at = (seed >> 33) % (i % 2 ? s.used : 600);
        was = s.data[at];
        s.data[at] = (uint8_t)(seed >> 20);
        (void)vm_state_load(b->vm, &bad, &err);
        s.data[at] = was;
    }
    /* It can still be loaded properly, and nothing else loads it. */
    assert_int_equal(vm_state_load(b->vm, &s, &err), 0);
    assert_int_equal(vm_state_load(real->vm, &s, &err), -EINVAL);
    assert_non_null(strstr(err.text, "deterministic"));
    {
        struct state_stream longer = {.data = calloc(1, s.used + 1), .used = s.used + 1};

        memcpy(longer.data, s.data, s.used);
        assert_int_equal(vm_state_load(b->vm, &longer, &err), -EINVAL);
        free(longer.data);
    }
    ram_block_create(b->vm, "more", 4096, RAM_NORMAL, NULL);
    assert_int_equal(vm_state_load(b->vm, &s, &err), -EINVAL);
    state_stream_free(&s);
    machine_destroy(a);
    machine_destroy(b);
    machine_destroy(real);
}

/* ---- what differs ---- */

struct lines {
    unsigned count;
    char text[8][512];
};

static void take_line(void *ctx, const char *line)
{
    struct lines *l = ctx;

    assert_true(l->count < ARRAY_SIZE(l->text));
    snprintf(l->text[l->count++], sizeof l->text[0], "%s", line);
}

static void test_diff(void **state)
{
    struct machine *a = machine_create(true), *b = machine_create(true);
    struct state_stream x = {0}, y = {0};
    struct lines lines = {0};
    struct error err;
    uint64_t seed = 3;

    machine_fill(a);
    machine_fill(b);
    assert_int_equal(vm_state_save(a->vm, &x, &err), 0);
    assert_int_equal(vm_state_save(b->vm, &y, &err), 0);
    assert_int_equal(vm_state_diff(a->vm, &x, &y, take_line, &lines, 8), 0);
    assert_int_equal(lines.count, 0);

    b->gadget.words[2] = 0x99;
    b->gadget.fifo[3] ^= 1;
    b->gadget.two[1].flag = !b->gadget.two[1].flag;
    timer_arm(&b->gadget.timer, 77777);
    b->ram->host[7 * 4096 + 5] = 0xab; /* a page that the other does not have */
    y.used = 0;
    assert_int_equal(vm_state_save(b->vm, &y, &err), 0);
    assert_int_equal(vm_state_diff(a->vm, &x, &y, take_line, &lines, 8), 5);
    assert_int_equal(lines.count, 5);
    assert_non_null(strstr(lines.text[0], "gadget gadget0: words[2]: "));
    assert_non_null(strstr(lines.text[0], " and 0x99"));
    assert_non_null(strstr(lines.text[1], "fifo: 1 bytes differ, the first at 0x3"));
    assert_non_null(strstr(lines.text[2], "two[1].flag: "));
    assert_non_null(strstr(lines.text[3], "timer: "));
    assert_non_null(strstr(lines.text[4], "ram ram: page 0x7: 1 bytes differ, the first at "
                                          "offset 0x7005: 00 and ab"));

    /* No more lines than asked for, but all are counted. */
    lines.count = 0;
    assert_int_equal(vm_state_diff(a->vm, &x, &y, take_line, &lines, 2), 5);
    assert_int_equal(lines.count, 2);

    /* Damaged streams: anything but a step outside. */
    for (size_t cut = 0; cut < y.used; cut += cut < 700 ? 1 : 501) {
        struct state_stream part = {.data = y.data, .used = cut};

        assert_true(vm_state_diff(a->vm, &x, &part, take_line, &lines, 0) > 0);
    }
    for (int i = 0; i < 3000; i++) {
        size_t at;
        uint8_t was;

        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        at = (seed >> 33) % (i % 2 ? y.used : 700);
        was = y.data[at];
        y.data[at] = (uint8_t)(seed >> 20);
        (void)vm_state_diff(a->vm, &x, &y, take_line, &lines, 0);
        y.data[at] = was;
    }
    state_stream_free(&x);
    state_stream_free(&y);
    machine_destroy(a);
    machine_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_section),         cmocka_unit_test(test_versions),
        cmocka_unit_test(test_damaged_section), cmocka_unit_test(test_hash_pieces),
        cmocka_unit_test(test_machine),         cmocka_unit_test(test_damaged_machine),
        cmocka_unit_test(test_diff),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
