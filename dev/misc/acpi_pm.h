/*
 * ACPI power management of the ICH9 (datasheet section 13.8: PMBASE block,
 * 128 bytes; ACPI 3.0 section 4.7): PM1 event and control, the PM timer (24
 * bits at 3.579545 MHz), GPE0, SMI_EN, and the APM ports B2H and B3H.
 *
 * There is no system management mode. SMI_EN.APMC_EN resets to 1: firmware
 * takes that as "somebody has set SMM up already" and does not wait for an
 * SMI that never comes. The APM commands 2 and 3, which on a real machine an
 * SMI handler would carry out, set and clear SCI_EN here.
 *
 * SLP_TYP 0 is soft-off, as the DSDT's \_S5 says; 6 and 7, S4 and S5 of the
 * ICH9, are soft-off too. S3 is not offered.
 */
#ifndef DEV_MISC_ACPI_PM_H
#define DEV_MISC_ACPI_PM_H

#include "vm/vm.h"

#define ACPI_PM_BYTES 128
#define ACPI_PM_TIMER_HZ 3579545ull
#define ACPI_PM_TIMER_BITS 24
#define ACPI_PM_SLP_TYP_S5 0

/* Offsets from PMBASE, for the FADT. */
enum acpi_pm_register {
    ACPI_PM1_STS = 0x00,
    ACPI_PM1_EN = 0x02,
    ACPI_PM1_CNT = 0x04,
    ACPI_PM1_TMR = 0x08,
    ACPI_GPE0_STS = 0x20, /* 64 status bits, then 64 enable bits */
    ACPI_GPE0_EN = 0x28,
    ACPI_SMI_EN = 0x30,
    ACPI_SMI_STS = 0x34,
    ACPI_PM2_CNT = 0x50,
    ACPI_TCO = 0x60,
};

enum acpi_apm {
    ACPI_APM_CONTROL_PORT = 0xB2,
    ACPI_APM_STATUS_PORT = 0xB3,
    ACPI_APM_ENABLE = 2,
    ACPI_APM_DISABLE = 3,
};

struct acpi_pm;

/* Created by the LPC bridge, which says where the block is. */
struct acpi_pm *acpi_pm_create(struct vm *vm, const struct irq_line *sci, struct error *err);
void acpi_pm_set_base(struct acpi_pm *pm, uint16_t base, bool enabled);
/* Port base; false: not decoded now. */
bool acpi_pm_base(const struct acpi_pm *pm, uint16_t *base);
/* GCS.NO_REBOOT: the watchdog's second timeout does not reset the machine. */
void acpi_pm_set_no_reboot(struct acpi_pm *pm, bool no_reboot);

/* The power button was pressed: PWRBTN_STS. With the lock held. */
void acpi_pm_power_button(struct acpi_pm *pm);
/* A general-purpose event (0-63) became active. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned event);
/* The RTC's alarm, as an interrupt line for the board to connect: RTC_STS. */
struct irq_line acpi_pm_rtc_line(struct acpi_pm *pm);
/* What a firmware would do at the end of POST for an OS that runs without it. */
void acpi_pm_set_sci_enabled(struct acpi_pm *pm, bool enabled);

#endif
