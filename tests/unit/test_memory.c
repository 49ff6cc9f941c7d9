/*
 * vm/memory.c and vm/access.c: flattened views against a byte-by-byte model,
 * splitting and widening, DMA, listeners, hostile addresses, retired views.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "vm/vm.h"

/* ---- a device that writes down what it sees ---- */

struct access {
    bool write;
    uint64_t offset, value;
    unsigned size;
};

struct spy {
    struct access seen[64];
    unsigned count;
    uint64_t answer;
};

static uint64_t spy_read(void *ctx, uint64_t offset, unsigned size)
{
    struct spy *s = ctx;

    if (s->count < ARRAY_SIZE(s->seen))
        s->seen[s->count++] = (struct access){false, offset, 0, size};
    return s->answer >> (8 * (offset & 7));
}

static void spy_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct spy *s = ctx;

    if (s->count < ARRAY_SIZE(s->seen))
        s->seen[s->count++] = (struct access){true, offset, value, size};
}

static const struct region_ops any_ops = {spy_read, spy_write, 1, 8};
static const struct region_ops dword_ops = {spy_read, spy_write, 4, 4};
static const struct region_ops default_ops = {spy_read, spy_write, 0, 0};
static const struct region_ops byte_ops = {spy_read, spy_write, 1, 1};

static void assert_access(const struct spy *s, unsigned i, bool write, uint64_t offset,
                          unsigned size, uint64_t value)
{
    assert_true(i < s->count);
    assert_int_equal(s->seen[i].write, write);
    assert_int_equal(s->seen[i].offset, offset);
    assert_int_equal(s->seen[i].size, size);
    if (write)
        assert_int_equal(s->seen[i].value, value);
}

static int setup(void **state)
{
    struct vm_config config = {.deterministic = true};

    *state = vm_create(&config, NULL);
    return !*state;
}

static int teardown(void **state)
{
    vm_destroy(*state);
    return 0;
}

/* ---- single accesses ---- */

static void test_unclaimed(void **state)
{
    struct vm *vm = *state;
    uint64_t v = 0;

    assert_false(as_load(&vm->memory, 0x1234, 4, &v));
    assert_int_equal(v, 0xffffffff);
    assert_false(as_load(&vm->memory, UINT64_MAX - 2, 8, &v));
    assert_int_equal(v, UINT64_MAX);
    assert_false(as_store(&vm->memory, UINT64_MAX - 2, 8, 0));
    assert_null(address_space_find(&vm->memory, 0));
}

static void test_ram(void **state)
{
    struct vm *vm = *state;
    struct ram_block *b = ram_block_create(vm, "ram", 64 * KiB, RAM_NORMAL, NULL);
    struct region r = {
        .name = "ram", .base = 0x10000, .size = 32 * KiB, .ram = b, .ram_offset = 0x4000};
    uint64_t v;

    assert_int_equal(region_add(&vm->memory, &r), 0);
    for (unsigned size = 1; size <= 8; size++) {
        assert_true(as_store(&vm->memory, 0x10003, size, 0x8877665544332211));
        assert_true(as_load(&vm->memory, 0x10003, size, &v));
        assert_int_equal(v, zext(0x8877665544332211, size));
        assert_int_equal(le_get(b->host + 0x4003, size), v);
    }
    /* Half in, half out. */
    assert_false(as_store(&vm->memory, 0x17ffe, 4, 0xaabbccdd));
    assert_false(as_load(&vm->memory, 0x17ffe, 4, &v));
    assert_int_equal(v, 0xffffccdd);
    assert_int_equal(b->host[0xc000], 0); /* the block goes on, the region does not */
    region_remove(&r);
    assert_false(as_load(&vm->memory, 0x10000, 1, &v));
}

static void test_read_only(void **state)
{
    struct vm *vm = *state;
    struct ram_block *rom = ram_block_create(vm, "rom", 8 * KiB, RAM_ROM, NULL);
    struct ram_block *ram = ram_block_create(vm, "ram", 8 * KiB, RAM_NORMAL, NULL);
    struct spy spy = {0};
    struct region a = {.name = "rom", .base = 0, .size = 8 * KiB, .ram = rom};
    struct region b = {.name = "flash",
                       .base = 0x2000,
                       .size = 8 * KiB,
                       .ram = ram,
                       .readonly = true,
                       .ops = &any_ops,
                       .ctx = &spy};
    uint64_t v, bytes = 100;

    memset(rom->host, 0x5a, 8 * KiB);
    memset(ram->host, 0x6b, 8 * KiB);
    assert_int_equal(region_add(&vm->memory, &a), 0);
    assert_int_equal(region_add(&vm->memory, &b), 0);
    assert_true(as_store(&vm->memory, 0, 4, 0)); /* dropped, but answered */
    assert_true(as_load(&vm->memory, 0, 4, &v));
    assert_int_equal(v, 0x5a5a5a5a);
    assert_true(as_store(&vm->memory, 0x2010, 2, 0x1122));
    assert_int_equal(spy.count, 1);
    assert_access(&spy, 0, true, 0x10, 2, 0x1122);
    assert_true(as_load(&vm->memory, 0x2010, 1, &v));
    assert_int_equal(v, 0x6b);
    assert_null(as_map(&vm->memory, 0x2000, &bytes, true, NULL, NULL));
    assert_non_null(as_map(&vm->memory, 0x2000, &bytes, false, NULL, NULL));
    /* A flash that shows its registers instead of its bytes. */
    region_retarget(&b, NULL, 0, true);
    spy.answer = 0x80;
    assert_true(as_load(&vm->memory, 0x2000, 1, &v));
    assert_int_equal(v, 0x80);
    region_retarget(&b, ram, 0, true);
    assert_true(as_load(&vm->memory, 0x2000, 1, &v));
    assert_int_equal(v, 0x6b);
    region_remove(&a);
    region_remove(&b);
}

static void test_split_and_widen(void **state)
{
    struct vm *vm = *state;
    struct spy spy = {.answer = 0x8877665544332211};
    struct region r = {.name = "dev", .base = 0x1000, .size = 0x100, .ctx = &spy};
    uint64_t v;

    r.ops = &default_ops; /* 1..4 */
    assert_int_equal(region_add(&vm->ports, &r), 0);
    assert_true(as_load(&vm->ports, 0x1000, 8, &v));
    assert_int_equal(v, 0x8877665544332211);
    assert_int_equal(spy.count, 2);
    assert_access(&spy, 0, false, 0, 4, 0);
    assert_access(&spy, 1, false, 4, 4, 0);
    spy.count = 0;
    assert_true(as_load(&vm->ports, 0x1001, 4, &v)); /* unaligned: 1, 2, 1 */
    assert_int_equal(v, 0x55443322);
    assert_int_equal(spy.count, 3);
    assert_access(&spy, 0, false, 1, 1, 0);
    assert_access(&spy, 1, false, 2, 2, 0);
    assert_access(&spy, 2, false, 4, 1, 0);
    spy.count = 0;
    assert_true(as_store(&vm->ports, 0x1003, 6, 0x665544332211));
    assert_access(&spy, 0, true, 3, 1, 0x11);
    assert_access(&spy, 1, true, 4, 4, 0x55443322);
    assert_access(&spy, 2, true, 8, 1, 0x66);
    region_remove(&r);

    r.ops = &dword_ops;
    assert_int_equal(region_add(&vm->ports, &r), 0);
    spy.count = 0;
    assert_true(as_load(&vm->ports, 0x1002, 1, &v)); /* cut from the dword */
    assert_int_equal(v, 0x33);
    assert_access(&spy, 0, false, 0, 4, 0);
    spy.count = 0;
    assert_true(as_load(&vm->ports, 0x1002, 4, &v));
    assert_int_equal(v, 0x66554433);
    assert_int_equal(spy.count, 2);
    spy.count = 0;
    assert_true(as_store(&vm->ports, 0x1002, 1, 0xab));
    assert_access(&spy, 0, true, 0, 4, 0x00ab0000);
    /* The last bytes: never beyond the end of the region. */
    spy.count = 0;
    assert_false(as_load(&vm->ports, 0x10fe, 4, &v));
    assert_int_equal(spy.count, 1);
    assert_access(&spy, 0, false, 0xfc, 4, 0);
    region_remove(&r);

    r.ops = &byte_ops;
    assert_int_equal(region_add(&vm->ports, &r), 0);
    spy.count = 0;
    assert_true(as_store(&vm->ports, 0x1000, 4, 0x44332211));
    assert_int_equal(spy.count, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_access(&spy, i, true, i, 1, 0x11 * (i + 1));
    region_remove(&r);
}

static void test_hostile_regions(void **state)
{
    struct vm *vm = *state;
    struct ram_block *b = ram_block_create(vm, "ram", 8 * KiB, RAM_NORMAL, NULL);
    struct spy spy = {0};
    struct region r = {.name = "r", .ops = &any_ops, .ctx = &spy};
    struct error err;
    uint64_t v;

    assert_int_equal(region_add(&vm->memory, &r), -EINVAL); /* empty */
    r.base = UINT64_MAX - 3;
    r.size = 5;
    assert_int_equal(region_add(&vm->memory, &r), -EINVAL); /* wraps */
    r = (struct region){.name = "r", .size = 8 * KiB, .ram = b, .ram_offset = 4 * KiB};
    assert_int_equal(region_add(&vm->memory, &r), -EINVAL); /* beyond the block */
    r = (struct region){.name = "r", .size = 6, .ops = &dword_ops, .ctx = &spy};
    assert_int_equal(region_add(&vm->memory, &r), -EINVAL);
    r = (struct region){.name = "r", .size = 6};
    assert_int_equal(region_add(&vm->memory, &r), -EINVAL); /* neither kind */
    assert_null(ram_block_create(vm, "odd", 4095, RAM_NORMAL, &err));
    assert_null(ram_block_create(vm, "huge", 1ull << 62, RAM_NORMAL, &err));
    assert_true(strlen(err.text) > 0);

    /* A guest that moves a BAR so that it would wrap: clipped at the top. */
    r = (struct region){.name = "bar", .size = 0x2000, .ops = &any_ops, .ctx = &spy};
    assert_int_equal(region_add(&vm->memory, &r), 0);
    region_move(&r, UINT64_MAX - 0xfff);
    assert_true(as_load(&vm->memory, UINT64_MAX - 7, 8, &v));
    assert_false(as_load(&vm->memory, 0, 4, &v));
    assert_false(as_load(&vm->memory, UINT64_MAX - 3, 8, &v));
    region_remove(&r);
    region_remove(&r); /* twice does no harm */
}

/* ---- views against a model ---- */

#define MODEL_BYTES 0x100
#define MODEL_REGIONS 12

static uint32_t random32(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*seed >> 33);
}

static void check_against_model(struct vm *vm, struct region *regions)
{
    const struct flat_view *view = vm->ports.view;

    for (uint64_t a = 0; a < MODEL_BYTES + 16; a++) {
        const struct region *top = NULL;
        const struct flat_range *r = address_space_find(&vm->ports, a);

        for (unsigned i = 0; i < MODEL_REGIONS; i++) {
            const struct region *x = &regions[i];

            if (!x->as || !x->enabled || a < x->base || a - x->base >= x->size)
                continue;
            if (!top || x->priority > top->priority ||
                (x->priority == top->priority && x->sequence > top->sequence))
                top = x;
        }
        assert_ptr_equal(r ? r->region->original : NULL, top);
        if (r) {
            assert_true(r->base <= a && a <= r->last);
            assert_int_equal(r->offset, r->base - top->base);
        }
    }
    for (size_t i = 0; view && i + 1 < view->count; i++) {
        assert_true(view->range[i].last < view->range[i + 1].base);
        /* Merged where it can be. */
        assert_false(view->range[i].last + 1 == view->range[i + 1].base &&
                     view->range[i].region == view->range[i + 1].region);
    }
}

/* Mirrors the view from what listeners are told. */
struct mirror {
    struct flat_range range[4 * MODEL_REGIONS];
    unsigned count;
};

static void mirror_removed(void *ctx, const struct flat_range *r)
{
    struct mirror *m = ctx;

    for (unsigned i = 0; i < m->count; i++) {
        if (m->range[i].base == r->base) {
            assert_int_equal(m->range[i].last, r->last);
            m->range[i] = m->range[--m->count];
            return;
        }
    }
    fail_msg("removed what was not there");
}

static void mirror_added(void *ctx, const struct flat_range *r)
{
    struct mirror *m = ctx;

    for (unsigned i = 0; i < m->count; i++)
        assert_true(m->range[i].last < r->base || r->last < m->range[i].base);
    assert_true(m->count < ARRAY_SIZE(m->range));
    m->range[m->count++] = *r;
}

static void test_random_regions(void **state)
{
    struct vm *vm = *state;
    struct spy spy = {0};
    struct region regions[MODEL_REGIONS];
    struct mirror mirror = {.count = 0};
    struct view_listener listener = {mirror_removed, mirror_added, &mirror, NULL};
    uint64_t seed = 42;

    memset(regions, 0, sizeof regions);
    address_space_listen(&vm->ports, &listener);
    for (int step = 0; step < 3000; step++) {
        struct region *r = &regions[random32(&seed) % MODEL_REGIONS];
        bool batch = random32(&seed) % 4 == 0;

        if (batch)
            address_space_begin(&vm->ports);
        for (int n = batch ? 3 : 1; n > 0; n--, r = &regions[random32(&seed) % MODEL_REGIONS]) {
            if (!r->as) {
                *r = (struct region){.name = "r",
                                     .base = random32(&seed) % MODEL_BYTES,
                                     .size = 1 + random32(&seed) % (MODEL_BYTES / 3),
                                     .priority = (int)(random32(&seed) % 4),
                                     .ops = &any_ops,
                                     .ctx = &spy};
                assert_int_equal(region_add(&vm->ports, r), 0);
                continue;
            }
            switch (random32(&seed) % 3) {
            case 0:
                region_remove(r);
                break;
            case 1:
                region_move(r, random32(&seed) % MODEL_BYTES);
                break;
            case 2:
                region_enable(r, random32(&seed) % 2);
                break;
            }
        }
        if (batch)
            address_space_commit(&vm->ports);
        check_against_model(vm, regions);
        assert_int_equal(mirror.count, vm->ports.view->count);
        for (unsigned i = 0; i < mirror.count; i++)
            assert_int_equal(address_space_find(&vm->ports, mirror.range[i].base)->last,
                             mirror.range[i].last);
    }
    /* Nobody was reading, so nothing waits to be freed. */
    assert_null(vm->retired_views);
}

/* A callback that takes its own region away in the middle of an access. */
struct vanishing {
    struct region region;
    unsigned calls;
};

static void vanish_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct vanishing *d = ctx;

    d->calls++;
    region_remove(&d->region);
}

static const struct region_ops vanish_ops = {NULL, vanish_write, 1, 1};

static void test_vanishing(void **state)
{
    struct vm *vm = *state;
    struct vanishing d = {.region = {.name = "d", .base = 0x10, .size = 8, .ops = &vanish_ops}};
    uint64_t v;

    d.region.ctx = &d;
    assert_int_equal(region_add(&vm->ports, &d.region), 0);
    assert_true(as_load(&vm->ports, 0x10, 4, &v)); /* no read callback: ones */
    assert_int_equal(v, 0xffffffff);
    assert_false(as_store(&vm->ports, 0x10, 4, 0));
    assert_int_equal(d.calls, 1);
}

/* ---- DMA ---- */

static void test_dma(void **state)
{
    struct vm *vm = *state;
    struct ram_block *b = ram_block_create(vm, "ram", 16 * KiB, RAM_NORMAL, NULL);
    struct spy spy = {.answer = 0x8877665544332211};
    struct region low = {.name = "low", .base = 0, .size = 4 * KiB, .ram = b};
    struct region dev = {.name = "dev", .base = 0x1000, .size = 0x10, .ops = &any_ops, .ctx = &spy};
    struct region high = {.name = "high",
                          .base = UINT64_MAX - 0xfff,
                          .size = 4 * KiB,
                          .ram = b,
                          .ram_offset = 4 * KiB};
    uint8_t buf[64];

    assert_int_equal(region_add(&vm->memory, &low), 0);
    assert_int_equal(region_add(&vm->memory, &dev), 0);
    assert_int_equal(region_add(&vm->memory, &high), 0);
    for (unsigned i = 0; i < sizeof buf; i++)
        buf[i] = (uint8_t)i;
    assert_int_equal(as_write(&vm->memory, 0xff5, buf, 11 + 16), 0);
    assert_memory_equal(b->host + 0xff5, buf, 11);
    assert_int_equal(spy.count, 2);
    assert_access(&spy, 0, true, 0, 8, 0x1211100f0e0d0c0b);
    assert_access(&spy, 1, true, 8, 8, 0x1a19181716151413);
    assert_int_equal(as_read(&vm->memory, 0xffd, buf, 3 + 16 + 4), -EFAULT);
    assert_memory_equal(buf, b->host + 0xffd, 3);
    assert_int_equal(le64_get(buf + 3), spy.answer);
    assert_int_equal(le32_get(buf + 19), 0xffffffff);
    /* Over the end of all addresses: not round to 0. */
    memset(buf, 7, sizeof buf);
    b->host[0] = 0x11;
    assert_int_equal(as_write(&vm->memory, UINT64_MAX - 3, buf, 16), -EFAULT);
    assert_int_equal(b->host[0], 0x11);
    assert_int_equal(le32_get(b->host + 0x1ffc), 0x07070707);
    assert_int_equal(as_read(&vm->memory, UINT64_MAX - 3, buf, 16), -EFAULT);
    assert_int_equal(le32_get(buf), 0x07070707);
    assert_int_equal(le64_get(buf + 8), UINT64_MAX);
    assert_int_equal(as_read(&vm->memory, 0x5000000, buf, 0), 0);
    region_remove(&low);
    region_remove(&dev);
    region_remove(&high);
}

static void test_map(void **state)
{
    struct vm *vm = *state;
    struct ram_block *b = ram_block_create(vm, "ram", 64 * KiB, RAM_NORMAL, NULL), *block = NULL;
    struct region a = {.name = "a", .base = 0, .size = 16 * KiB, .ram = b};
    struct region c = {.name = "c",
                       .base = 0x4000,
                       .size = 16 * KiB,
                       .ram = b,
                       .ram_offset = 0x4000,
                       .readonly = true};
    struct region d = {
        .name = "d", .base = 0x8000, .size = 16 * KiB, .ram = b, .ram_offset = 0xc000};
    uint64_t bytes = 1 * MiB, offset = 0;

    assert_int_equal(region_add(&vm->memory, &a), 0);
    assert_int_equal(region_add(&vm->memory, &c), 0);
    assert_int_equal(region_add(&vm->memory, &d), 0);
    assert_ptr_equal(as_map(&vm->memory, 0x123, &bytes, false, &block, &offset), b->host + 0x123);
    assert_int_equal(bytes, 0x8000 - 0x123); /* d is elsewhere in the block */
    assert_ptr_equal(block, b);
    assert_int_equal(offset, 0x123);
    bytes = 1 * MiB;
    assert_non_null(as_map(&vm->memory, 0x123, &bytes, true, NULL, NULL));
    assert_int_equal(bytes, 0x4000 - 0x123);
    bytes = 0x10;
    assert_ptr_equal(as_map(&vm->memory, 0x8000, &bytes, true, NULL, NULL), b->host + 0xc000);
    assert_int_equal(bytes, 0x10);
    bytes = 1;
    assert_null(as_map(&vm->memory, 0xc000, &bytes, false, NULL, NULL));
    region_remove(&a);
    region_remove(&c);
    region_remove(&d);
}

/* ---- code ---- */

static uint64_t fake_retired(struct vcpu *v)
{
    return 0;
}

static struct {
    struct ram_block *block;
    uint64_t offset, bytes;
    unsigned count;
} * dropped;

static void fake_code_written(struct vcpu *v, struct ram_block *block, uint64_t offset,
                              uint64_t bytes)
{
    dropped->block = block;
    dropped->offset = offset;
    dropped->bytes = bytes;
    dropped->count++;
}

static const struct vcpu_ops fake_ops = {.retired = fake_retired,
                                         .code_written = fake_code_written};

static void test_code_lines(void **state)
{
    struct vm *vm = *state;
    struct ram_block *b = ram_block_create(vm, "ram", 1 * MiB, RAM_NORMAL, NULL);
    struct region r = {.name = "ram", .size = 1 * MiB, .ram = b};
    struct vcpu v = {.ops = &fake_ops};
    uint8_t zero[4096] = {0};

    dropped = calloc(1, sizeof *dropped);
    assert_int_equal(vm_add_vcpu(vm, &v), 0);
    assert_int_equal(region_add(&vm->memory, &r), 0);
    assert_true(atomic_exchange(&v.events, 0) & EVENT_FLUSH);

    atomic_store(&b->code_lines[3], BIT(5)); /* 3140H..317FH */
    as_store(&vm->memory, 0x3138, 8, 0);
    assert_int_equal(v.events, 0);
    as_store(&vm->memory, 0x3139, 8, 0); /* one byte into the line */
    assert_int_equal(atomic_exchange(&v.events, 0), EVENT_CODE);
    vcpu_drain_code(&v);
    assert_int_equal(dropped->count, 1);
    assert_int_equal(dropped->offset, 0x3139);
    assert_int_equal(dropped->bytes, 8);
    as_write(&vm->memory, 0x2000, zero, 4096);
    as_write(&vm->memory, 0x4000, zero, 4096);
    assert_int_equal(v.events, 0);
    as_write(&vm->memory, 0x2c00, zero, 4096);
    assert_int_equal(atomic_exchange(&v.events, 0), EVENT_CODE);
    vcpu_drain_code(&v);
    assert_int_equal(dropped->offset, 0x3000);
    assert_int_equal(dropped->bytes, 0xc00);

    /* The same range again and again is one entry; of many, near ones are. */
    dropped->count = 0;
    for (int i = 0; i < 100; i++)
        ram_block_written(b, 0x3140, 4);
    vcpu_drain_code(&v);
    assert_int_equal(dropped->count, 1);
    for (unsigned page = 8; page < 200; page += 2) { /* not near each other */
        atomic_store(&b->code_lines[page], 1);
        ram_block_written(b, page * 4096, 1);
    }
    dropped->count = 0;
    vcpu_drain_code(&v);
    assert_int_equal(dropped->count, ARRAY_SIZE(v.code_ranges));
    assert_ptr_equal(dropped->block, b);
    /* The writer itself is not told. */
    atomic_store(&v.events, 0);
    vcpu_code_written(vm, &v, b, 0, 1);
    assert_int_equal(v.events, 0);

    free(dropped);
    region_remove(&r);
    vm->vcpu_count = 0;
}

/* ---- the log of written pages ---- */

static unsigned taken(struct ram_block *b, uint8_t pages[16])
{
    unsigned count = 0;
    bool any = ram_log_take(b, pages);

    for (unsigned i = 0; i < 16; i++)
        count += pages[i];
    assert_int_equal(any, count != 0);
    return count;
}

static void test_log(void **state)
{
    struct vm_config config = {.deterministic = false};
    struct vm *vm = vm_create(&config, NULL);
    struct ram_block *b = ram_block_create(vm, "ram", 16 * 4096, RAM_NORMAL, NULL);
    struct region r = {.name = "ram", .size = 16 * 4096, .ram = b};
    struct vcpu v = {.ops = &fake_ops};
    uint8_t pages[16], bytes[4096 + 2] = {0};

    assert_int_equal(vm_add_vcpu(vm, &v), 0);
    assert_int_equal(region_add(&vm->memory, &r), 0);
    assert_true(ram_log_allows_stores(b, 0));
    assert_int_equal(ram_log_start(b), 0);
    assert_int_equal(ram_log_start(b), 0);
    atomic_store(&v.events, 0);
    /* What was before is unknown; then nothing was, and nobody is bothered. */
    assert_int_equal(taken(b, pages), 16);
    assert_int_equal(atomic_exchange(&v.events, 0), EVENT_REVOKE);
    assert_int_equal(taken(b, pages), 0);
    assert_int_equal(v.events, 0);
    assert_false(ram_log_allows_stores(b, 0x3000));

    as_store(&vm->memory, 0x3ffe, 4, 0);
    assert_int_equal(taken(b, pages), 2);
    assert_true(pages[3] && pages[4]);
    as_write(&vm->memory, 0x4fff, bytes, sizeof bytes);
    ram_log_note(b, 0xf123);
    assert_true(ram_log_allows_stores(b, 0x5000));
    assert_int_equal(taken(b, pages), 4);
    assert_true(pages[4] && pages[5] && pages[6] && pages[15]);
    as_read(&vm->memory, 0, bytes, sizeof bytes);
    assert_int_equal(taken(b, pages), 0);
    region_remove(&r);
    vm->vcpu_count = 0;
    vm_destroy(vm);
    /* Where time is a function of instructions there is no such log. */
    vm = *state;
    assert_int_equal(ram_log_start(ram_block_create(vm, "ram", 4096, RAM_NORMAL, NULL)), -ENOTSUP);
}

/* ---- retired views ---- */

static size_t retired_count(const struct vm *vm)
{
    size_t n = 0;

    for (const struct flat_view *v = vm->retired_views; v; v = v->next_retired)
        n++;
    return n;
}

static void test_retired(void **state)
{
    struct vm *vm = *state;
    struct vcpu v = {.ops = &fake_ops};
    struct spy spy = {0};
    struct region r = {.name = "r", .base = 0x100, .size = 0x10, .ops = &any_ops, .ctx = &spy};
    struct region other = {.name = "o", .base = 0x200, .size = 0x10, .ops = &any_ops, .ctx = &spy};
    const struct flat_range *held;

    assert_int_equal(vm_add_vcpu(vm, &v), 0);
    assert_int_equal(region_add(&vm->memory, &r), 0);
    assert_int_equal(region_add(&vm->memory, &other), 0);
    assert_null(vm->retired_views); /* outside: holds nothing up */

    vcpu_enter(&v);
    held = address_space_find(&vm->memory, 0x100);
    region_move(&r, 0x300);
    assert_int_equal(retired_count(vm), 1);
    assert_int_equal(held->base, 0x100); /* still readable: the sanitizer checks */
    assert_ptr_equal(held->region->ctx, &spy);
    for (int i = 0; i < 20; i++)
        region_move(&r, 0x300 + 0x10 * (unsigned)(i % 2));
    /* Held up, so it is asked to pass a safepoint. */
    assert_true(v.events & EVENT_EXCLUSIVE);
    assert_true(vcpu_take_events(&v) & EVENT_FLUSH);
    region_enable(&r, false);
    assert_true(retired_count(vm) <= 1);
    vcpu_leave(&v);
    region_enable(&r, true);
    assert_int_equal(retired_count(vm), 0);

    /* What changes nothing is not announced. */
    atomic_store(&v.events, 0);
    region_enable(&r, true);
    region_move(&r, r.base);
    region_enable(&other, false);
    assert_true(atomic_exchange(&v.events, 0) & EVENT_FLUSH);
    region_move(&other, 0x900);
    assert_int_equal(v.events, 0);
    region_remove(&r);
    region_remove(&other);
    vm->vcpu_count = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unclaimed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ram, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_and_widen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_regions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_regions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vanishing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map, setup, teardown),
        cmocka_unit_test_setup_teardown(test_code_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retired, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
