/*
 * Chipset configuration registers of the ICH9. See rcrb.h.
 */
#include "dev/pci/rcrb.h"

enum rcrb_register {
    RCRB_D31IR = 0x3140, /* upper half: D30IR, read-only 0 */
    RCRB_D29IR = 0x3144, /* upper half: D28IR */
    RCRB_D27IR = 0x3148,
    RCRB_D26IR = 0x314C,
    RCRB_D25IR = 0x3150,
    RCRB_OIC = 0x31FC, /* upper half: other interrupt control */
    RCRB_HPTC = 0x3404,
    RCRB_GCS = 0x3410,
};

enum {
    HPTC_ENABLE = 1 << 7,
    GCS_NO_REBOOT = 1 << 5,
    DIR_RESET = 0x3210, /* INTA# to PIRQA ... INTD# to PIRQD */
};
#define OIC_APIC_ENABLE (1u << 24)

/*
 * The doublewords that exist. Two differ from a chip after power-on: OIC.AEN
 * and HPTC are set, because IOAPIC and HPET are decoded here without firmware
 * having asked (HPTC cannot be changed, as the HPET cannot move). NO_REBOOT is
 * a strap that software may clear; watchdog drivers do.
 */
static const struct {
    uint16_t offset;
    uint32_t reset, writable;
} registers[RCRB_REGISTERS] = {
    {0x3100, 0x03243200, 0x0FFFFFF0}, /* D31IP */
    {0x3104, 0x00000000, 0x00000000}, /* D30IP */
    {0x3108, 0x10004321, 0xF000FFFF}, /* D29IP */
    {0x310C, 0x00214321, 0x00FFFFFF}, /* D28IP */
    {0x3110, 0x00000001, 0x0000000F}, /* D27IP */
    {0x3114, 0x30000321, 0xF0000FFF}, /* D26IP */
    {0x3118, 0x00000001, 0x0000000F}, /* D25IP */
    {RCRB_D31IR, DIR_RESET, 0x00007777},  {RCRB_D29IR, DIR_RESET << 16 | DIR_RESET, 0x77777777},
    {RCRB_D27IR, DIR_RESET, 0x00007777},  {RCRB_D26IR, DIR_RESET, 0x00007777},
    {RCRB_D25IR, DIR_RESET, 0x00007777},  {RCRB_OIC, OIC_APIC_ENABLE, 0x03FF0000},
    {0x3400, 0x00000000, 0x0000001F}, /* RC */
    {RCRB_HPTC, HPTC_ENABLE, 0x00000000}, {RCRB_GCS, GCS_NO_REBOOT, 0x00000FFF},
    {0x3414, 0x00000000, 0x000000FF}, /* BUC */
    {0x3418, 0x00000000, 0xFFFFFFFF}, /* FD */
};

static int register_index(unsigned offset)
{
    for (int i = 0; i < RCRB_REGISTERS; i++) {
        if (registers[i].offset == (offset & ~3u))
            return i;
    }
    return -1;
}

static uint32_t register_value(const struct rcrb *r, enum rcrb_register offset)
{
    return r->registers[register_index(offset)];
}

static uint64_t rcrb_read(void *ctx, uint64_t offset, unsigned size)
{
    struct rcrb *r = ctx;
    int i = register_index((unsigned)offset);

    return i < 0 ? 0 : zext(r->registers[i] >> (offset & 3) * 8, size);
}

static void rcrb_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct rcrb *r = ctx;
    int i = register_index((unsigned)offset);
    unsigned shift = (unsigned)(offset & 3) * 8;
    uint32_t mask;

    if (i < 0)
        return;
    mask = (uint32_t)zext(~0ull, size) << shift & registers[i].writable;
    r->registers[i] = (r->registers[i] & ~mask) | ((uint32_t)value << shift & mask);
    r->changed(r->ctx);
}

static const struct region_ops rcrb_ops = {rcrb_read, rcrb_write, 1, 4};

unsigned rcrb_route(const struct rcrb *r, unsigned device, unsigned pin)
{
    uint32_t route;

    switch (device) {
    case 31:
        route = register_value(r, RCRB_D31IR);
        break;
    case 30:
        /* Pins behind the PCI bridge are on PIRQE-H. */
        return 4 + (pin & 3);
    case 29:
        route = register_value(r, RCRB_D29IR);
        break;
    case 28:
        route = register_value(r, RCRB_D29IR) >> 16;
        break;
    case 27:
        route = register_value(r, RCRB_D27IR);
        break;
    case 26:
        route = register_value(r, RCRB_D26IR);
        break;
    default:
        route = register_value(r, RCRB_D25IR);
        break;
    }
    return route >> (pin & 3) * 4 & 7;
}

bool rcrb_no_reboot(const struct rcrb *r)
{
    return register_value(r, RCRB_GCS) & GCS_NO_REBOOT;
}

void rcrb_set_base(struct rcrb *r, uint32_t base, bool enabled)
{
    address_space_begin(&r->vm->memory);
    if (enabled && base)
        region_move(&r->region, base);
    region_enable(&r->region, enabled && base);
    address_space_commit(&r->vm->memory);
}

void rcrb_reset(struct rcrb *r)
{
    for (unsigned i = 0; i < RCRB_REGISTERS; i++)
        r->registers[i] = registers[i].reset;
}

void rcrb_restored(struct rcrb *r)
{
    for (unsigned i = 0; i < RCRB_REGISTERS; i++)
        r->registers[i] = (r->registers[i] & registers[i].writable) |
                          (registers[i].reset & ~registers[i].writable);
}

int rcrb_init(struct rcrb *r, struct vm *vm, void (*changed)(void *ctx), void *ctx)
{
    int rc;

    r->vm = vm;
    r->changed = changed;
    r->ctx = ctx;
    r->region = (struct region){
        .name = "rcrb",
        .base = RCRB_BYTES,
        .size = RCRB_BYTES,
        .priority = 1,
        .ops = &rcrb_ops,
        .ctx = r,
    };
    rcrb_reset(r);
    address_space_begin(&vm->memory);
    rc = region_add(&vm->memory, &r->region);
    if (rc == 0)
        region_enable(&r->region, false);
    address_space_commit(&vm->memory);
    return rc;
}

void rcrb_destroy(struct rcrb *r)
{
    region_remove(&r->region);
}

static const struct state_field rcrb_fields[] = {
    STATE_INTS(struct rcrb, registers),
    STATE_END,
};

const struct state_table rcrb_state = {
    .name = "rcrb",
    .version = 1,
    .fields = rcrb_fields,
};
