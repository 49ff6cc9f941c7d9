/*
 * testdev. See testdev.h.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/misc/testdev.h"

#include <errno.h>
#include <stdlib.h>

#define LATCH_PORT 0xE0
#define FLUSH_PORT 0xE4
#define BYTE_LATCH_PORT 0xE8
#define GSI_PORT 0x2000
#define SCRATCH_BASE 0xFF000000ull
#define SCRATCH_BYTES (64 * KiB)

struct testdev {
    struct vm *vm;
    struct irq_line gsi[TESTDEV_GSI_COUNT];
    struct region latch_port, flush_port, byte_latch_port, gsi_port, scratch_region;
    uint32_t latch;
    uint8_t scratch[SCRATCH_BYTES];
};

static uint64_t latch_read(void *ctx, uint64_t offset, unsigned size)
{
    struct testdev *t = ctx;

    return zext(t->latch >> offset * 8, size);
}

static void latch_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct testdev *t = ctx;
    uint32_t mask = (uint32_t)zext(~0ull, size) << offset * 8;

    t->latch = (t->latch & ~mask) | ((uint32_t)value << offset * 8 & mask);
}

static uint64_t flush_read(void *ctx, uint64_t offset, unsigned size)
{
    return zext(~0ull, size);
}

/* The address written names a page; a changed memory view makes every
 * processor drop all its translations, that page's with them. */
static void flush_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct testdev *t = ctx;

    region_enable(&t->scratch_region, false);
    region_enable(&t->scratch_region, true);
}

static uint64_t gsi_read(void *ctx, uint64_t offset, unsigned size)
{
    return zext(~0ull, size);
}

static void gsi_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct testdev *t = ctx;

    irq_set(&t->gsi[offset], zext(value, size) != 0);
}

static uint64_t scratch_read(void *ctx, uint64_t offset, unsigned size)
{
    struct testdev *t = ctx;

    return le_get(t->scratch + offset, size);
}

static void scratch_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct testdev *t = ctx;

    le_put(t->scratch + offset, value, size);
}

static const struct region_ops latch_ops = {latch_read, latch_write, 1, 4};
static const struct region_ops flush_ops = {flush_read, flush_write, 4, 4};
static const struct region_ops byte_latch_ops = {latch_read, latch_write, 1, 1};
/* One GSI a write whatever its width, where the bus can tell. */
static const struct region_ops gsi_ops = {gsi_read, gsi_write, 1, 4};
static const struct region_ops scratch_ops = {scratch_read, scratch_write, 1, 8};

static void testdev_reset(void *self)
{
    struct testdev *t = self;

    t->latch = 0;
    memset(t->scratch, 0, sizeof t->scratch);
    for (unsigned i = 0; i < TESTDEV_GSI_COUNT; i++)
        irq_lower(&t->gsi[i]);
}

static void remove_regions(struct testdev *t)
{
    struct region *all[] = {&t->latch_port, &t->flush_port, &t->byte_latch_port, &t->gsi_port,
                            &t->scratch_region};

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        if (all[i]->as)
            region_remove(all[i]);
    }
}

static void testdev_destroy(void *self)
{
    remove_regions(self);
    free(self);
}

static const struct state_field testdev_fields[] = {
    STATE_INT(struct testdev, latch),
    STATE_BYTES(struct testdev, scratch),
    STATE_END,
};

static const struct state_table testdev_state = {
    .name = "testdev",
    .version = 1,
    .fields = testdev_fields,
};

static const struct dev_type testdev_type = {
    .name = "testdev",
    .reset = testdev_reset,
    .destroy = testdev_destroy,
    .state = &testdev_state,
};

static int place(struct testdev *t, struct address_space *as, struct region *r, const char *name,
                 uint64_t base, uint64_t size, const struct region_ops *ops)
{
    *r = (struct region){
        .name = name, .base = base, .size = size, .priority = 1, .ops = ops, .ctx = t};
    return region_add(as, r);
}

struct testdev *testdev_create(struct vm *vm, const struct irq_line gsi[TESTDEV_GSI_COUNT],
                               struct error *err)
{
    struct testdev *t = calloc(1, sizeof *t);

    if (!t) {
        error_set(err, -ENOMEM, "out of memory for testdev");
        return NULL;
    }
    t->vm = vm;
    memcpy(t->gsi, gsi, sizeof t->gsi);
    if (place(t, &vm->ports, &t->latch_port, "testdev-latch", LATCH_PORT, 4, &latch_ops) < 0 ||
        place(t, &vm->ports, &t->flush_port, "testdev-flush", FLUSH_PORT, 4, &flush_ops) < 0 ||
        place(t, &vm->ports, &t->byte_latch_port, "testdev-byte-latch", BYTE_LATCH_PORT, 4,
              &byte_latch_ops) < 0 ||
        place(t, &vm->ports, &t->gsi_port, "testdev-gsi", GSI_PORT, TESTDEV_GSI_COUNT, &gsi_ops) <
            0 ||
        place(t, &vm->memory, &t->scratch_region, "testdev-scratch", SCRATCH_BASE, SCRATCH_BYTES,
              &scratch_ops) < 0) {
        remove_regions(t);
        free(t);
        error_set(err, -ENOMEM, "cannot place testdev");
        return NULL;
    }
    vm_add_device(vm, &testdev_type, "testdev", t);
    return t;
}
