/*
 * ICH9 LPC interface bridge, D31:F0: datasheet (316972) section 13.1. See
 * ich9_lpc.h.
 *
 * Inputs are eight PIRQ wires and the SCI; outputs the 8259 inputs and the
 * IOAPIC inputs. All outputs are computed anew from inputs and routing, and
 * what has changed is driven: there is one place where routing is right.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/pci/ich9_lpc.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/pci/rcrb.h"

enum lpc_register {
    LPC_PMBASE = 0x40,
    LPC_ACPI_CNTL = 0x44,
    LPC_GPIOBASE = 0x48,
    LPC_GC = 0x4C,
    LPC_PIRQA_ROUT = 0x60, /* to PIRQD at 63H */
    LPC_SIRQ_CNTL = 0x64,
    LPC_PIRQE_ROUT = 0x68, /* to PIRQH at 6BH */
    LPC_IO_DEC = 0x80,
    LPC_EN = 0x82,
    LPC_GEN1_DEC = 0x84, /* to GEN4_DEC at 90H */
    LPC_GEN_PMCON_1 = 0xA0,
    LPC_GEN_PMCON_2 = 0xA2,
    LPC_GEN_PMCON_3 = 0xA4,
    LPC_GEN_PMCON_LOCK = 0xA6,
    LPC_BM_BREAK_EN = 0xAB,
    LPC_PMIR = 0xAC,
    LPC_GPI_ROUT = 0xB8,
    LPC_FWH_SEL1 = 0xD0,
    LPC_FWH_SEL2 = 0xD4,
    LPC_FWH_DEC_EN1 = 0xD8,
    LPC_BIOS_CNTL = 0xDC,
    LPC_RCBA = 0xF0,
};

enum {
    IO_BASE_INDICATOR = 1, /* PMBASE, GPIOBASE: reads 1 */
    PMBASE_WRITABLE = 0xFF80,
    GPIOBASE_WRITABLE = 0xFFC0,
    ACPI_CNTL_SCI_SELECT = 0x07,
    ACPI_CNTL_ENABLE = 0x80,
    GC_GPIO_ENABLE = 0x10,
    PIRQ_ROUT_DISABLED = 0x80, /* not to the 8259 */
    PIRQ_ROUT_IRQ = 0x0F,
    RCBA_ENABLE = 0x01,
};
#define RCBA_ADDRESS 0xFFFFC000u
/* IRQs that a PIRQ can be routed to: not 0, 1, 2, 8, 13 (13.1.13). */
#define PIRQ_ROUT_ALLOWED 0xDEF8u

#define IOAPIC_PIRQ_BASE 16
#define GPIO_BYTES 64

struct ich9_lpc {
    struct vm *vm;
    struct ich9_lpc_config config;
    struct pci_function pci;
    struct acpi_pm *pm;
    struct rcrb rcrb;
    struct region gpio;

    uint32_t gpio_registers[GPIO_BYTES / 4];
    uint8_t pirq_levels; /* inputs */
    bool sci_level;
    uint16_t pic_levels; /* outputs, as last driven */
    uint32_t ioapic_levels;
};

/* ---- interrupts ---- */

/* ACPI_CNTL.SCI_IRQ_SEL (13.1.10): 0-2 IRQ 9-11, 4-7 the IOAPIC's 20-23. */
unsigned ich9_lpc_sci_gsi(const struct ich9_lpc *lpc)
{
    unsigned select = lpc->pci.config[LPC_ACPI_CNTL] & ACPI_CNTL_SCI_SELECT;

    if (select < 3)
        return 9 + select;
    return select == 3 ? 9 : 16 + select;
}

static unsigned pirq_route(const struct ich9_lpc *lpc, unsigned pirq)
{
    return lpc->pci.config[pirq < 4 ? LPC_PIRQA_ROUT + pirq : LPC_PIRQE_ROUT + pirq - 4];
}

static void update_outputs(struct ich9_lpc *lpc)
{
    uint16_t pic = 0, pic_changed;
    uint32_t ioapic = (uint32_t)lpc->pirq_levels << IOAPIC_PIRQ_BASE, ioapic_changed;
    unsigned gsi = ich9_lpc_sci_gsi(lpc);

    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++) {
        unsigned route = pirq_route(lpc, pirq), irq = route & PIRQ_ROUT_IRQ;

        if ((lpc->pirq_levels & BIT(pirq)) && !(route & PIRQ_ROUT_DISABLED) &&
            (PIRQ_ROUT_ALLOWED & BIT(irq)))
            pic |= BIT(irq);
    }
    if (lpc->sci_level) {
        ioapic |= BIT(gsi);
        if (gsi < 16)
            pic |= BIT(gsi);
    }
    pic_changed = pic ^ lpc->pic_levels;
    ioapic_changed = ioapic ^ lpc->ioapic_levels;
    lpc->pic_levels = pic;
    lpc->ioapic_levels = ioapic;
    for (unsigned i = 0; i < ARRAY_SIZE(lpc->config.pic); i++) {
        if (pic_changed & BIT(i))
            irq_set(&lpc->config.pic[i], pic >> i & 1);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(lpc->config.ioapic); i++) {
        if (ioapic_changed & BIT(i))
            irq_set(&lpc->config.ioapic[i], ioapic >> i & 1);
    }
}

unsigned ich9_lpc_pirq(const struct ich9_lpc *lpc, uint8_t devfn, unsigned pin)
{
    unsigned device = PCI_DEVICE_OF(devfn);

    return device >= 25 ? rcrb_route(&lpc->rcrb, device, pin) : 4 + (device + pin) % 4;
}

static unsigned route_map(void *ctx, uint8_t devfn, unsigned pin)
{
    return ich9_lpc_pirq(ctx, devfn, pin);
}

static void pirq_set(void *ctx, unsigned pirq, bool level)
{
    struct ich9_lpc *lpc = ctx;

    lpc->pirq_levels = (lpc->pirq_levels & ~BIT(pirq)) | (level ? BIT(pirq) : 0);
    update_outputs(lpc);
}

static void sci_set(void *ctx, unsigned number, bool level)
{
    struct ich9_lpc *lpc = ctx;

    lpc->sci_level = level;
    update_outputs(lpc);
}

/* ---- GPIO: 64 ports at GPIOBASE (13.10). No pin leads anywhere. ---- */

enum gpio_doubleword {
    GPIO_USE_SEL = 0x00,
    GP_IO_SEL = 0x04,
    GP_LVL = 0x0C,
    GPO_BLINK = 0x18,
    GPI_INV = 0x2C,
    GPIO_USE_SEL2 = 0x30,
    GP_IO_SEL2 = 0x34,
    GP_LVL2 = 0x38,
};

static const struct {
    uint8_t offset;
    uint32_t reset;
} gpio_registers[] = {
    {GPIO_USE_SEL, 0x197E75FF}, {GP_IO_SEL, 0xE0EA6FFF}, {GP_LVL, 0x02FE0100},
    {GPO_BLINK, 0x00040000},    {GPI_INV, 0x00000000},   {GPIO_USE_SEL2, 0x030300FF},
    {GP_IO_SEL2, 0x1F55FFF0},   {GP_LVL2, 0x1FFF01FF},
};

static bool gpio_exists(unsigned offset)
{
    for (unsigned i = 0; i < ARRAY_SIZE(gpio_registers); i++) {
        if (gpio_registers[i].offset == (offset & ~3u))
            return true;
    }
    return false;
}

static void gpio_reset(struct ich9_lpc *lpc)
{
    memset(lpc->gpio_registers, 0, sizeof lpc->gpio_registers);
    for (unsigned i = 0; i < ARRAY_SIZE(gpio_registers); i++)
        lpc->gpio_registers[gpio_registers[i].offset / 4] = gpio_registers[i].reset;
}

static uint64_t gpio_read(void *ctx, uint64_t offset, unsigned size)
{
    struct ich9_lpc *lpc = ctx;

    return zext(lpc->gpio_registers[offset / 4] >> (offset & 3) * 8, size);
}

static void gpio_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct ich9_lpc *lpc = ctx;
    unsigned shift = (unsigned)(offset & 3) * 8;
    uint32_t mask = (uint32_t)zext(~0ull, size) << shift, *reg = &lpc->gpio_registers[offset / 4];

    if (!gpio_exists((unsigned)offset))
        return;
    /* A pin's level can be set only where it is an output. */
    if ((offset & ~3ull) == GP_LVL)
        mask &= ~lpc->gpio_registers[GP_IO_SEL / 4];
    if ((offset & ~3ull) == GP_LVL2)
        mask &= ~lpc->gpio_registers[GP_IO_SEL2 / 4];
    *reg = (*reg & ~mask) | ((uint32_t)value << shift & mask);
}

static const struct region_ops gpio_ops = {gpio_read, gpio_write, 1, 4};

/* ---- configuration ---- */

static void rcrb_changed(void *ctx)
{
    struct ich9_lpc *lpc = ctx;

    acpi_pm_set_no_reboot(lpc->pm, rcrb_no_reboot(&lpc->rcrb));
    pci_bus_reroute(lpc->pci.bus);
}

static void update_windows(struct ich9_lpc *lpc)
{
    const uint8_t *config = lpc->pci.config;
    uint16_t pmbase = le16_get(config + LPC_PMBASE) & PMBASE_WRITABLE;
    uint16_t gpiobase = le16_get(config + LPC_GPIOBASE) & GPIOBASE_WRITABLE;
    uint32_t rcba = le32_get(config + LPC_RCBA);
    bool gpio = (config[LPC_GC] & GC_GPIO_ENABLE) && gpiobase;

    acpi_pm_set_base(lpc->pm, pmbase, config[LPC_ACPI_CNTL] & ACPI_CNTL_ENABLE);
    address_space_begin(&lpc->vm->ports);
    if (gpio)
        region_move(&lpc->gpio, gpiobase);
    region_enable(&lpc->gpio, gpio);
    address_space_commit(&lpc->vm->ports);
    rcrb_set_base(&lpc->rcrb, rcba & RCBA_ADDRESS, rcba & RCBA_ENABLE);
}

static bool touches(unsigned offset, unsigned size, unsigned first, unsigned count)
{
    return offset < first + count && first < offset + size;
}

static void lpc_config_written(void *ctx, unsigned offset, unsigned size)
{
    struct ich9_lpc *lpc = ctx;

    if (touches(offset, size, LPC_PMBASE, LPC_GC + 1 - LPC_PMBASE) ||
        touches(offset, size, LPC_RCBA, 4))
        update_windows(lpc);
    if (touches(offset, size, LPC_ACPI_CNTL, 1) || touches(offset, size, LPC_PIRQA_ROUT, 4) ||
        touches(offset, size, LPC_PIRQE_ROUT, 4))
        update_outputs(lpc);
}

static void define_registers(struct pci_function *f)
{
    /* Always a bus master and always decoding (13.1.3). */
    pci_register_define(f, PCI_COMMAND, 2,
                        PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER,
                        PCI_COMMAND_PARITY | PCI_COMMAND_SERR, 0);
    pci_register_define(f, PCI_STATUS, 2, 0x0200, 0, PCI_STATUS_W1C); /* DEVSEL# medium */
    pci_register_define(f, PCI_CACHE_LINE_SIZE, 1, 0, 0, 0);
    pci_register_define(f, LPC_PMBASE, 4, IO_BASE_INDICATOR, PMBASE_WRITABLE, 0);
    pci_register_define(f, LPC_ACPI_CNTL, 1, 0, ACPI_CNTL_ENABLE | ACPI_CNTL_SCI_SELECT, 0);
    pci_register_define(f, LPC_GPIOBASE, 4, IO_BASE_INDICATOR, GPIOBASE_WRITABLE, 0);
    pci_register_define(f, LPC_GC, 1, 0, GC_GPIO_ENABLE | 1, 0);
    for (unsigned i = 0; i < 4; i++) {
        pci_register_define(f, LPC_PIRQA_ROUT + i, 1, PIRQ_ROUT_DISABLED,
                            PIRQ_ROUT_DISABLED | PIRQ_ROUT_IRQ, 0);
        pci_register_define(f, LPC_PIRQE_ROUT + i, 1, PIRQ_ROUT_DISABLED,
                            PIRQ_ROUT_DISABLED | PIRQ_ROUT_IRQ, 0);
        pci_register_define(f, LPC_GEN1_DEC + i * 4, 4, 0, 0x00FCFFFD, 0);
    }
    pci_register_define(f, LPC_SIRQ_CNTL, 1, 0x10, 0xC3, 0);
    pci_register_define(f, LPC_IO_DEC, 2, 0, 0x1377, 0);
    pci_register_define(f, LPC_EN, 2, 0, 0x3F0F, 0);
    pci_register_define(f, LPC_GEN_PMCON_1, 2, 0x0200, 0x00F7, 0); /* PWRBTN_LVL: released */
    pci_register_define(f, LPC_GEN_PMCON_2, 1, 0, 0x80, 0x7F);
    pci_register_define(f, LPC_GEN_PMCON_3, 2, 0, 0x40F9, 0x0006);
    pci_register_define(f, LPC_GEN_PMCON_LOCK, 1, 0, 0x06, 0);
    pci_register_define(f, LPC_BM_BREAK_EN, 1, 0, 0xFF, 0);
    pci_register_define(f, LPC_PMIR, 4, 0, 0x00100000, 0);
    pci_register_define(f, LPC_GPI_ROUT, 4, 0, 0xFFFFFFFF, 0);
    pci_register_define(f, LPC_FWH_SEL1, 4, 0x00112233, 0xFFFFFFF0, 0);
    pci_register_define(f, LPC_FWH_SEL2, 2, 0x4567, 0xFFFF, 0);
    pci_register_define(f, LPC_FWH_DEC_EN1, 2, 0xFFCF, 0x7FFF, 0);
    pci_register_define(f, LPC_BIOS_CNTL, 1, 0, 0x1F, 0);
    pci_register_define(f, LPC_RCBA, 4, 0, RCBA_ADDRESS | RCBA_ENABLE, 0);
}

/* ---- life ---- */

static void lpc_reset(void *self)
{
    struct ich9_lpc *lpc = self;

    pci_function_reset(&lpc->pci);
    rcrb_reset(&lpc->rcrb);
    gpio_reset(lpc);
    update_windows(lpc);
    rcrb_changed(lpc);
    update_outputs(lpc);
}

static void lpc_destroy(void *self)
{
    struct ich9_lpc *lpc = self;
    static const struct pci_irq_router none;

    pci_bus_set_router(lpc->pci.bus, &none);
    rcrb_destroy(&lpc->rcrb);
    region_remove(&lpc->gpio);
    pci_function_destroy(&lpc->pci);
    free(lpc);
}

/* Line levels come with the state of both ends, so nothing is driven. */
static int lpc_after_load(void *self, unsigned version)
{
    struct ich9_lpc *lpc = self;

    pci_function_restored(&lpc->pci);
    rcrb_restored(&lpc->rcrb);
    acpi_pm_set_no_reboot(lpc->pm, rcrb_no_reboot(&lpc->rcrb));
    update_windows(lpc);
    return 0;
}

static const struct state_field lpc_fields[] = {
    STATE_STRUCT(struct ich9_lpc, pci, &pci_function_state),
    STATE_STRUCT(struct ich9_lpc, rcrb, &rcrb_state),
    STATE_INTS(struct ich9_lpc, gpio_registers),
    STATE_INT(struct ich9_lpc, pirq_levels),
    STATE_INT(struct ich9_lpc, sci_level),
    STATE_INT(struct ich9_lpc, pic_levels),
    STATE_INT(struct ich9_lpc, ioapic_levels),
    STATE_END,
};

static const struct state_table lpc_state = {
    .name = "ich9-lpc",
    .version = 1,
    .fields = lpc_fields,
    .after_load = lpc_after_load,
};

static const struct dev_type lpc_type = {
    .name = "ich9-lpc",
    .reset = lpc_reset,
    .destroy = lpc_destroy,
    .state = &lpc_state,
};

struct acpi_pm *ich9_lpc_pm(struct ich9_lpc *lpc)
{
    return lpc->pm;
}

static int add_gpio(struct ich9_lpc *lpc)
{
    int rc;

    lpc->gpio = (struct region){
        .name = "gpio",
        .base = GPIO_BYTES, /* anywhere: GPIOBASE says where */
        .size = GPIO_BYTES,
        .priority = 1,
        .ops = &gpio_ops,
        .ctx = lpc,
    };
    address_space_begin(&lpc->vm->ports);
    rc = region_add(&lpc->vm->ports, &lpc->gpio);
    if (rc == 0)
        region_enable(&lpc->gpio, false);
    address_space_commit(&lpc->vm->ports);
    return rc;
}

/* Power management and reset ports are devices of their own: once they are
 * added, the machine destroys them. */
struct ich9_lpc *ich9_lpc_create(struct vm *vm, struct pci_bus *bus,
                                 const struct ich9_lpc_config *config, struct error *err)
{
    static const struct pci_identity identity = {
        .vendor = 0x8086,
        .device = 0x2918,
        .subsystem_vendor = 0x1AF4,
        .subsystem = 0x1100,
        .class_code = 0x060100,
        .revision = 2,
        .multifunction = true,
    };
    struct ich9_lpc *lpc = calloc(1, sizeof *lpc);
    const struct pci_irq_router router = {.map = route_map, .set = pirq_set, .ctx = lpc};
    const struct irq_line sci = {.set = sci_set, .ctx = lpc};

    if (!lpc) {
        error_set(err, -ENOMEM, "out of memory for the LPC bridge");
        return NULL;
    }
    lpc->vm = vm;
    lpc->config = *config;
    if (pci_function_init(&lpc->pci, bus, PCI_DEVFN(31, 0), &identity, err) < 0)
        goto fail;
    lpc->pci.config_written = lpc_config_written;
    lpc->pci.ctx = lpc;
    define_registers(&lpc->pci);
    gpio_reset(lpc);
    if (add_gpio(lpc) < 0) {
        error_set(err, -ENOMEM, "out of memory for the LPC bridge");
        goto fail_function;
    }
    if (rcrb_init(&lpc->rcrb, vm, rcrb_changed, lpc) < 0) {
        error_set(err, -ENOMEM, "out of memory for the LPC bridge");
        goto fail_gpio;
    }
    /* Power management is added first: on reset it lets go of the SCI before
     * the bridge routes anew, and when state is loaded its registers are there
     * when the bridge says where they are. */
    lpc->pm = acpi_pm_create(vm, &sci, err);
    if (!lpc->pm)
        goto fail_rcrb;
    acpi_pm_set_no_reboot(lpc->pm, rcrb_no_reboot(&lpc->rcrb));
    vm_add_device(vm, &lpc_type, "lpc", lpc);
    pci_bus_set_router(bus, &router);
    if (!reset_ports_create(vm, bus, &config->init, err))
        return NULL; /* the machine owns the rest by now */
    return lpc;

fail_rcrb:
    rcrb_destroy(&lpc->rcrb);
fail_gpio:
    region_remove(&lpc->gpio);
fail_function:
    pci_function_destroy(&lpc->pci);
fail:
    free(lpc);
    return NULL;
}
