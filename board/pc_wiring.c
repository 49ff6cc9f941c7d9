/*
 * The wires of the board: interrupts between devices, interrupt controllers
 * and processors (ICH9 datasheet 5.8 and 5.9 "Interrupt"; HPET specification
 * 2.3.1 "Legacy Replacement").
 *
 * An input with several drivers is the OR of them. Which of them assert is
 * state of the machine: it is saved with the board.
 *
 * Threading: with the machine's lock held; FERR# and the interrupt acknowledge
 * come from a processor's thread and take it.
 */
#include <stdlib.h>

#include "board/pc_internal.h"

#define FPU_PORT 0xf0
#define FPU_IRQ 13
#define PIT_IRQ 0
#define RTC_IRQ 8

/* number of an irq_line here: source << 8 | input */
#define LINE(source, input) ((unsigned)(source) << 8 | (input))
#define LINE_SOURCE(number) ((number) >> 8)
#define LINE_INPUT(number) ((number)&0xff)

static void drive(uint32_t *sources, const struct irq_line *input, unsigned source, bool level)
{
    uint32_t before = *sources;

    *sources = level ? before | 1u << source : before & ~(1u << source);
    if (!before != !*sources)
        irq_set(input, level);
}

static void pic_set(void *ctx, unsigned number, bool level)
{
    struct pc *pc = ctx;
    unsigned n = LINE_INPUT(number);

    drive(&pc->pic_sources[n], &pc->pic_input[n], LINE_SOURCE(number), level);
}

static void ioapic_set(void *ctx, unsigned number, bool level)
{
    struct pc *pc = ctx;
    unsigned n = LINE_INPUT(number);

    drive(&pc->ioapic_sources[n], &pc->ioapic_input[n], LINE_SOURCE(number), level);
}

static void isa_set(void *ctx, unsigned number, bool level)
{
    unsigned irq = LINE_INPUT(number);

    pic_set(ctx, number, level);
    /* The MADT says so: interrupt 0 is the IOAPIC's input 2. */
    ioapic_set(ctx, LINE(LINE_SOURCE(number), irq == 0 ? 2 : irq), level);
}

struct irq_line pc_isa_line(struct pc *pc, unsigned irq, enum pc_source source)
{
    return (struct irq_line){isa_set, pc, LINE(source, irq)};
}

struct irq_line pc_ioapic_line(struct pc *pc, unsigned pin, enum pc_source source)
{
    return (struct irq_line){ioapic_set, pc, LINE(source, pin)};
}

struct irq_line pc_pic_line(struct pc *pc, unsigned irq, enum pc_source source)
{
    return (struct irq_line){pic_set, pc, LINE(source, irq)};
}

/* ---- the 8259's output ---- */

static void intr_set(void *ctx, unsigned number, bool level)
{
    struct pc *pc = ctx;

    x86_set_intr(pc->cpu[0], level);
    if (pc->ioapic) /* ICH9: the 8259's INTR is the IOAPIC's input 0 */
        ioapic_set(pc, LINE(SOURCE_ISA, 0), level);
}

struct irq_line pc_intr_line(struct pc *pc)
{
    return (struct irq_line){intr_set, pc, 0};
}

uint8_t pc_intr_ack(void *ctx)
{
    struct pc *pc = ctx;
    uint8_t vector;

    vm_lock(pc->vm);
    vector = i8259_ack(pc->pic);
    vm_unlock(pc->vm);
    return vector;
}

/* ---- interrupts 0 and 8, which the HPET may take ---- */

static void update_legacy(struct pc *pc)
{
    isa_set(pc, LINE(SOURCE_ISA, PIT_IRQ), pc->pit_level && !pc->hpet_legacy);
    isa_set(pc, LINE(SOURCE_ISA, RTC_IRQ), pc->rtc_level && !pc->hpet_legacy);
}

static void pit_set(void *ctx, unsigned number, bool level)
{
    struct pc *pc = ctx;

    pc->pit_level = level;
    update_legacy(pc);
}

static void rtc_set(void *ctx, unsigned number, bool level)
{
    struct pc *pc = ctx;

    pc->rtc_level = level;
    update_legacy(pc);
    irq_set(&pc->rtc_status, level);
}

static void hpet_legacy_set(void *ctx, unsigned number, bool level)
{
    struct pc *pc = ctx;

    pc->hpet_legacy = level;
    update_legacy(pc);
}

/* A deterministic machine's processors are never late: ticks that coincide are
 * one, as on a computer. */
static bool clock_waiting(void *ctx, unsigned number)
{
    struct pc *pc = ctx;

    return !pc->vm->deterministic &&
           (i8259_waiting(pc->pic, PIT_IRQ) || ioapic_waiting(pc->ioapic, 2));
}

struct irq_probe pc_clock_probe(struct pc *pc)
{
    return (struct irq_probe){clock_waiting, pc, 0};
}

struct irq_line pc_pit_line(struct pc *pc)
{
    return (struct irq_line){pit_set, pc, 0};
}

struct irq_line pc_rtc_line(struct pc *pc)
{
    return (struct irq_line){rtc_set, pc, 0};
}

struct irq_line pc_hpet_legacy_line(struct pc *pc)
{
    return (struct irq_line){hpet_legacy_set, pc, 0};
}

/* ---- processor errors and INIT# ---- */

/* FERR# sets a latch that a write to port F0H clears (ICH9 5.11.1.3); the
 * latch is IRQ 13's driver. */
static void ferr_set(void *ctx, unsigned cpu, bool level)
{
    struct pc *pc = ctx;

    vm_lock(pc->vm);
    if (level && !(pc->ferr & BIT(cpu)))
        isa_set(pc, LINE(SOURCE_ISA, FPU_IRQ), true);
    pc->ferr = level ? pc->ferr | BIT(cpu) : pc->ferr & ~BIT(cpu);
    vm_unlock(pc->vm);
}

struct irq_line pc_ferr_line(struct pc *pc, unsigned cpu)
{
    return (struct irq_line){ferr_set, pc, cpu};
}

static uint64_t fpu_port_read(void *ctx, uint64_t offset, unsigned size)
{
    return zext(~0ull, size);
}

static void fpu_port_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    isa_set(ctx, LINE(SOURCE_ISA, FPU_IRQ), false);
}

static const struct region_ops fpu_port_ops = {fpu_port_read, fpu_port_write, 1, 1};

int pc_fpu_port_create(struct pc *pc, struct error *err)
{
    int ret;

    pc->fpu_port = (struct region){.name = "fpu",
                                   .base = FPU_PORT,
                                   .size = 1,
                                   .priority = 1,
                                   .ops = &fpu_port_ops,
                                   .ctx = pc};
    ret = region_add(&pc->vm->ports, &pc->fpu_port);
    return ret ? error_set(err, ret, "out of memory") : 0;
}

static void init_set(void *ctx, unsigned number, bool level)
{
    struct pc *pc = ctx;

    for (unsigned n = 0; level && n < pc->cpu_count; n++)
        lapic_init_pin(pc->cpu[n]->lapic);
}

struct irq_line pc_init_line(struct pc *pc)
{
    return (struct irq_line){init_set, pc, 0};
}

/* ---- the board as a device ---- */

static void pc_reset(void *self)
{
    struct pc *pc = self;

    /* The devices lower their lines when they are reset in turn. */
    memset(pc->pic_sources, 0, sizeof pc->pic_sources);
    memset(pc->ioapic_sources, 0, sizeof pc->ioapic_sources);
    for (unsigned n = 0; n < PC_ISA_IRQS; n++)
        irq_lower(&pc->pic_input[n]);
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        irq_lower(&pc->ioapic_input[n]);
    pc->hpet_legacy = pc->pit_level = pc->rtc_level = false;
    pc->ferr = 0;
}

static void pc_destroy(void *self)
{
    struct pc *pc = self;

    boot_kernel_close(pc->kernel);
    uefi_vars_close(&pc->uefi_vars);
    apic_bus_destroy(pc->apic_bus);
    free(pc);
}

static const struct state_field pc_fields[] = {
    STATE_INTS(struct pc, pic_sources),
    STATE_INTS(struct pc, ioapic_sources),
    STATE_INT(struct pc, hpet_legacy),
    STATE_INT(struct pc, pit_level),
    STATE_INT(struct pc, rtc_level),
    STATE_INT(struct pc, ferr),
    STATE_BYTES(struct pc, uuid),
    STATE_END,
};

static int pc_after_load(void *self, unsigned version)
{
    pc_identity_changed(self);
    return 0;
}

static const struct state_table pc_state = {"pc", 1, pc_fields, NULL, pc_after_load};

static const struct dev_type pc_type = {
    .name = "pc",
    .reset = pc_reset,
    .destroy = pc_destroy,
    .state = &pc_state,
};

void pc_wiring_create(struct pc *pc)
{
    vm_add_device(pc->vm, &pc_type, "pc", pc);
}
