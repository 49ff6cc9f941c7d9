/*
 * ICH9 power management: datasheet (316972) section 13.8.3, "Power Management
 * I/O Registers", and 13.7.1, APM ports. See acpi_pm.h.
 *
 * The block is read and written as aligned doublewords under a byte mask, so
 * that every width of access does what the manual says of each register in it.
 *
 * The timer's status bit is a comparison, not an event: which half period the
 * clock is in against the last one that software has acknowledged. A machine
 * timer is armed only while the guest wants the interrupt, so that an idle
 * guest costs nothing.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/misc/acpi_pm.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/misc/tco.h"

enum pm1_status {
    STS_TIMER = 1 << 0,
    STS_BUS_MASTER = 1 << 4,
    STS_GLOBAL = 1 << 5,
    STS_POWER_BUTTON = 1 << 8,
    STS_RTC = 1 << 10,
    STS_OVERRIDE = 1 << 11,
    STS_PCIE_WAKE = 1 << 14,
    STS_WAKE = 1 << 15,
    STS_W1C = STS_BUS_MASTER | STS_GLOBAL | STS_POWER_BUTTON | STS_RTC | STS_OVERRIDE |
              STS_PCIE_WAKE | STS_WAKE,
    EN_WRITABLE = STS_TIMER | STS_GLOBAL | STS_POWER_BUTTON | STS_RTC | STS_PCIE_WAKE,
    SCI_CAUSES = STS_TIMER | STS_GLOBAL | STS_POWER_BUTTON | STS_RTC,
};

enum pm1_control {
    CNT_SCI_EN = 1 << 0,
    CNT_BM_RLD = 1 << 1,
    CNT_GBL_RLS = 1 << 2, /* reads 0 */
    CNT_SLP_TYP_SHIFT = 10,
    CNT_SLP_TYP_MASK = 7 << 10,
    CNT_SLP_EN = 1 << 13, /* reads 0 */
    CNT_WRITABLE = CNT_SCI_EN | CNT_BM_RLD | CNT_SLP_TYP_MASK,
};

/* SLP_TYP values of the ICH9, beside ACPI_PM_SLP_TYP_S5. */
enum slp_typ {
    SLP_TYP_S1 = 1,
    SLP_TYP_S3 = 5,
    SLP_TYP_S4 = 6,
    SLP_TYP_ICH_S5 = 7,
};

enum smi_enable {
    SMI_EOS = 1 << 1, /* reads 1 outside of an SMI */
    SMI_APMC_EN = 1 << 5,
    SMI_BIOS_RLS = 1 << 7, /* reads 0 */
    SMI_TCO_EN = 1 << 13,
};
#define SMI_EN_WRITABLE 0xFFFF687Du
#define SMI_EN_RESET (SMI_EOS | SMI_APMC_EN)

enum smi_status {
    SMI_STS_BIOS = 1 << 2,
    SMI_STS_APM = 1 << 5,
};

/* Doublewords of the block that need no further name. */
enum pm_doubleword {
    PM1_EVT = 0x00, /* PM1_STS, PM1_EN */
    PROC_CNT = 0x10,
    GPE0_STS_HIGH = 0x24,
    GPE0_EN_HIGH = 0x2C,
    ALT_GP_SMI = 0x38,
};

enum {
    PM2_ARB_DIS = 1 << 0,
    PROC_CNT_WRITABLE = 0x1FF,
};

#define TIMER_HALF_SHIFT (ACPI_PM_TIMER_BITS - 1)

struct acpi_pm {
    struct vm *vm;
    struct irq_line sci;
    struct region block, apm;

    uint16_t sts;           /* PM1_STS but for STS_TIMER */
    uint16_t en;            /* PM1_EN */
    uint32_t cnt;           /* PM1_CNT, readable bits */
    uint64_t timer_seen;    /* half periods acknowledged by STS_TIMER */
    struct timer timer_irq; /* the next half period */
    uint64_t gpe_sts, gpe_en;
    uint32_t smi_en, smi_sts;
    uint32_t proc_cnt;
    uint32_t alt_gp_smi;
    uint8_t pm2_cnt;
    uint8_t apm_control, apm_status; /* B2H, B3H */
    bool sci_level;
    struct tco tco;
};

/* ---- PM timer, SCI ---- */

static uint64_t timer_ticks(const struct acpi_pm *pm)
{
    return clock_ticks(clock_now_ns(&pm->vm->clock), ACPI_PM_TIMER_HZ);
}

static uint64_t timer_halves(const struct acpi_pm *pm)
{
    return timer_ticks(pm) >> TIMER_HALF_SHIFT;
}

static uint16_t pm1_status(const struct acpi_pm *pm)
{
    return pm->sts | (timer_halves(pm) != pm->timer_seen ? STS_TIMER : 0);
}

static void update_sci(struct acpi_pm *pm)
{
    uint16_t status = pm1_status(pm);
    bool active = (status & pm->en & SCI_CAUSES) || (pm->gpe_sts & pm->gpe_en);
    bool level = active && (pm->cnt & CNT_SCI_EN);

    if ((pm->en & STS_TIMER) && !(status & STS_TIMER))
        timer_arm(&pm->timer_irq,
                  clock_ticks_to_ns((pm->timer_seen + 1) << TIMER_HALF_SHIFT, ACPI_PM_TIMER_HZ));
    else
        timer_cancel(&pm->timer_irq);
    if (level != pm->sci_level) {
        pm->sci_level = level;
        irq_set(&pm->sci, level);
    }
}

static void timer_half_passed(void *ctx)
{
    update_sci(ctx);
}

/* ---- sleeping ---- */

static void enter_sleep(struct acpi_pm *pm)
{
    unsigned type = (pm->cnt & CNT_SLP_TYP_MASK) >> CNT_SLP_TYP_SHIFT;

    switch (type) {
    case ACPI_PM_SLP_TYP_S5:
    case SLP_TYP_S4:
    case SLP_TYP_ICH_S5:
        vlog(pm->vm->log, PM, INFO, "guest switched itself off (SLP_TYP %u)", type);
        vm_request_poweroff(pm->vm, 0);
        break;
    case SLP_TYP_S1:
        /* Processors stop until an interrupt, which guests see as waking at
         * once. */
        pm->sts |= STS_WAKE;
        break;
    default:
        vlog(pm->vm->log, PM, GUEST, "guest asked for sleep type %u, which is not offered", type);
        break;
    }
}

/* ---- the block ---- */

static uint32_t pm_read(struct acpi_pm *pm, unsigned offset)
{
    switch (offset) {
    case PM1_EVT:
        return pm1_status(pm) | (uint32_t)pm->en << 16;
    case ACPI_PM1_CNT:
        return pm->cnt;
    case ACPI_PM1_TMR:
        return (uint32_t)(timer_ticks(pm) & (BIT(ACPI_PM_TIMER_BITS) - 1));
    case PROC_CNT:
        return pm->proc_cnt;
    case ACPI_GPE0_STS:
        return (uint32_t)pm->gpe_sts;
    case GPE0_STS_HIGH:
        return (uint32_t)(pm->gpe_sts >> 32);
    case ACPI_GPE0_EN:
        return (uint32_t)pm->gpe_en;
    case GPE0_EN_HIGH:
        return (uint32_t)(pm->gpe_en >> 32);
    case ACPI_SMI_EN:
        return pm->smi_en;
    case ACPI_SMI_STS:
        return pm->smi_sts;
    case ALT_GP_SMI:
        return pm->alt_gp_smi;
    case ACPI_PM2_CNT:
        return pm->pm2_cnt;
    default:
        /* LVL2, LVL3 and LVL4 (14H-16H) are here too: reading them would stop
         * the processor's clock until an interrupt. */
        return offset >= ACPI_TCO ? tco_read(&pm->tco, offset - ACPI_TCO) : 0;
    }
}

static void write_pm1_events(struct acpi_pm *pm, uint32_t value, uint32_t mask)
{
    uint16_t en_mask = (uint16_t)(mask >> 16) & EN_WRITABLE;

    pm->sts &= ~(value & STS_W1C);
    if (value & STS_TIMER)
        pm->timer_seen = timer_halves(pm);
    pm->en = (pm->en & ~en_mask) | ((value >> 16) & en_mask);
}

static void write_smi_enable(struct acpi_pm *pm, uint32_t value, uint32_t mask)
{
    uint32_t writable = mask & SMI_EN_WRITABLE;

    if (tco_is_locked(&pm->tco))
        writable &= ~(uint32_t)SMI_TCO_EN;
    pm->smi_en = (pm->smi_en & ~writable) | (value & writable);
    if (value & SMI_BIOS_RLS)
        pm->sts |= STS_GLOBAL; /* firmware hands the global lock to the OS */
}

static uint64_t merge64(uint64_t reg, uint32_t value, uint32_t mask, unsigned shift)
{
    return (reg & ~((uint64_t)mask << shift)) | (uint64_t)value << shift;
}

static void pm_write(struct acpi_pm *pm, unsigned offset, uint32_t value, uint32_t mask)
{
    value &= mask;
    switch (offset) {
    case PM1_EVT:
        write_pm1_events(pm, value, mask);
        break;
    case ACPI_PM1_CNT:
        pm->cnt = (pm->cnt & ~(mask & CNT_WRITABLE)) | (value & CNT_WRITABLE);
        if (value & CNT_GBL_RLS)
            pm->smi_sts |= SMI_STS_BIOS;
        if (value & CNT_SLP_EN)
            enter_sleep(pm);
        break;
    case PROC_CNT:
        mask &= PROC_CNT_WRITABLE;
        pm->proc_cnt = (pm->proc_cnt & ~mask) | (value & mask);
        break;
    case ACPI_GPE0_STS:
        pm->gpe_sts &= ~(uint64_t)value;
        break;
    case GPE0_STS_HIGH:
        pm->gpe_sts &= ~((uint64_t)value << 32);
        break;
    case ACPI_GPE0_EN:
        pm->gpe_en = merge64(pm->gpe_en, value, mask, 0);
        break;
    case GPE0_EN_HIGH:
        pm->gpe_en = merge64(pm->gpe_en, value, mask, 32);
        break;
    case ACPI_SMI_EN:
        write_smi_enable(pm, value, mask);
        break;
    case ACPI_SMI_STS:
        pm->smi_sts &= ~value;
        break;
    case ALT_GP_SMI:
        /* The low half enables; the upper half is status, and no pin ever
         * sets it. */
        mask &= 0xFFFF;
        pm->alt_gp_smi = (pm->alt_gp_smi & ~mask) | (value & mask);
        break;
    case ACPI_PM2_CNT:
        mask &= PM2_ARB_DIS;
        pm->pm2_cnt = (uint8_t)((pm->pm2_cnt & ~mask) | (value & mask));
        break;
    default:
        if (offset >= ACPI_TCO)
            tco_write(&pm->tco, offset - ACPI_TCO, value, mask);
        break;
    }
    update_sci(pm);
}

static uint64_t block_read(void *ctx, uint64_t offset, unsigned size)
{
    unsigned shift = (unsigned)(offset & 3) * 8;

    return zext(pm_read(ctx, (unsigned)offset & ~3u) >> shift, size);
}

static void block_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    unsigned shift = (unsigned)(offset & 3) * 8;
    uint32_t mask = (uint32_t)zext(~0ull, size) << shift;

    pm_write(ctx, (unsigned)offset & ~3u, (uint32_t)value << shift, mask);
}

static const struct region_ops block_ops = {block_read, block_write, 1, 4};

/* ---- APM ports ---- */

static uint64_t apm_read(void *ctx, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = ctx;

    return offset == 0 ? pm->apm_control : pm->apm_status;
}

static void apm_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct acpi_pm *pm = ctx;

    if (offset == 1) {
        pm->apm_status = (uint8_t)value;
        return;
    }
    pm->apm_control = (uint8_t)value;
    if (pm->smi_en & SMI_APMC_EN)
        pm->smi_sts |= SMI_STS_APM;
    if (value == ACPI_APM_ENABLE || value == ACPI_APM_DISABLE)
        acpi_pm_set_sci_enabled(pm, value == ACPI_APM_ENABLE);
}

static const struct region_ops apm_ops = {apm_read, apm_write, 1, 1};

/* ---- what others say ---- */

void acpi_pm_set_sci_enabled(struct acpi_pm *pm, bool enabled)
{
    pm->cnt = enabled ? pm->cnt | CNT_SCI_EN : pm->cnt & ~(uint32_t)CNT_SCI_EN;
    update_sci(pm);
}

void acpi_pm_set_base(struct acpi_pm *pm, uint16_t base, bool enabled)
{
    address_space_begin(&pm->vm->ports);
    if (enabled && base)
        region_move(&pm->block, base);
    region_enable(&pm->block, enabled && base);
    address_space_commit(&pm->vm->ports);
}

bool acpi_pm_base(const struct acpi_pm *pm, uint16_t *base)
{
    *base = (uint16_t)pm->block.base;
    return pm->block.enabled;
}

void acpi_pm_set_no_reboot(struct acpi_pm *pm, bool no_reboot)
{
    pm->tco.no_reboot = no_reboot;
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
    pm->sts |= STS_POWER_BUTTON;
    update_sci(pm);
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned event)
{
    if (event < 64)
        pm->gpe_sts |= BIT(event);
    update_sci(pm);
}

static void rtc_alarm(void *ctx, unsigned number, bool level)
{
    struct acpi_pm *pm = ctx;

    if (level)
        pm->sts |= STS_RTC;
    update_sci(pm);
}

struct irq_line acpi_pm_rtc_line(struct acpi_pm *pm)
{
    return (struct irq_line){.set = rtc_alarm, .ctx = pm};
}

/* ---- life ---- */

static void power_on(struct acpi_pm *pm)
{
    pm->sts = 0;
    pm->en = 0;
    pm->cnt = 0;
    pm->timer_seen = timer_halves(pm);
    timer_cancel(&pm->timer_irq);
    pm->gpe_sts = 0;
    pm->gpe_en = 0;
    pm->smi_en = SMI_EN_RESET;
    pm->smi_sts = 0;
    pm->proc_cnt = 0;
    pm->alt_gp_smi = 0;
    pm->pm2_cnt = 0;
    pm->apm_control = 0;
    pm->apm_status = 0;
    pm->sci_level = false;
}

static void pm_reset(void *self)
{
    struct acpi_pm *pm = self;

    power_on(pm);
    tco_reset(&pm->tco);
    irq_lower(&pm->sci);
}

static void pm_destroy(void *self)
{
    struct acpi_pm *pm = self;

    region_remove(&pm->block);
    region_remove(&pm->apm);
    tco_destroy(&pm->tco);
    timer_destroy(&pm->timer_irq);
    free(pm);
}

static int pm_after_load(void *self, unsigned version)
{
    struct acpi_pm *pm = self;

    pm->sts &= STS_W1C;
    pm->en &= EN_WRITABLE;
    pm->cnt &= CNT_WRITABLE;
    return 0;
}

static const struct state_field pm_fields[] = {
    STATE_INT(struct acpi_pm, sts),
    STATE_INT(struct acpi_pm, en),
    STATE_INT(struct acpi_pm, cnt),
    STATE_INT(struct acpi_pm, timer_seen),
    STATE_TIMER(struct acpi_pm, timer_irq),
    STATE_INT(struct acpi_pm, gpe_sts),
    STATE_INT(struct acpi_pm, gpe_en),
    STATE_INT(struct acpi_pm, smi_en),
    STATE_INT(struct acpi_pm, smi_sts),
    STATE_INT(struct acpi_pm, proc_cnt),
    STATE_INT(struct acpi_pm, alt_gp_smi),
    STATE_INT(struct acpi_pm, pm2_cnt),
    STATE_INT(struct acpi_pm, apm_control),
    STATE_INT(struct acpi_pm, apm_status),
    STATE_INT(struct acpi_pm, sci_level),
    STATE_STRUCT(struct acpi_pm, tco, &tco_state),
    STATE_END,
};

static const struct state_table pm_state = {
    .name = "acpi-pm",
    .version = 1,
    .fields = pm_fields,
    .after_load = pm_after_load,
};

static const struct dev_type pm_type = {
    .name = "acpi-pm",
    .reset = pm_reset,
    .destroy = pm_destroy,
    .state = &pm_state,
};

struct acpi_pm *acpi_pm_create(struct vm *vm, const struct irq_line *sci, struct error *err)
{
    struct acpi_pm *pm = calloc(1, sizeof *pm);

    if (!pm) {
        error_set(err, -ENOMEM, "out of memory for ACPI power management");
        return NULL;
    }
    pm->vm = vm;
    pm->sci = *sci;
    pm->block = (struct region){
        .name = "acpi-pm",
        .base = ACPI_PM_BYTES, /* anywhere: PMBASE says where, and is 0 now */
        .size = ACPI_PM_BYTES,
        .priority = 1,
        .ops = &block_ops,
        .ctx = pm,
    };
    pm->apm = (struct region){
        .name = "apm",
        .base = ACPI_APM_CONTROL_PORT,
        .size = 2,
        .priority = 1,
        .ops = &apm_ops,
        .ctx = pm,
    };
    address_space_begin(&vm->ports);
    if (region_add(&vm->ports, &pm->block) < 0)
        goto fail;
    region_enable(&pm->block, false);
    if (region_add(&vm->ports, &pm->apm) < 0)
        goto fail_block;
    address_space_commit(&vm->ports);
    timer_init(&pm->timer_irq, vm, timer_half_passed, pm);
    tco_init(&pm->tco, vm);
    power_on(pm);
    vm_add_device(vm, &pm_type, "acpi-pm", pm);
    return pm;

fail_block:
    region_remove(&pm->block);
fail:
    address_space_commit(&vm->ports);
    error_set(err, -ENOMEM, "cannot place the APM ports");
    free(pm);
    return NULL;
}
