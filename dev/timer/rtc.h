/*
 * The MC146818 real-time clock with the ICH9's 256 bytes of CMOS RAM.
 * See rtc.c.
 *
 * Threading: everything with the machine's lock held.
 */
#ifndef DEV_TIMER_RTC_H
#define DEV_TIMER_RTC_H

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct rtc;

#define RTC_CMOS_CENTURY 0x32 /* what the FADT's CENTURY field names */

struct rtc_config {
    struct irq_line irq8;
};

/* Ports 70H-73H. Reads vm->clock.epoch_ns for the date. NULL when there is no
 * memory. */
struct rtc *rtc_create(struct vm *vm, const struct rtc_config *config, struct error *err);

/* CMOS cells 0EH..FFH, for the board (memory size, boot order). Cells below
 * belong to the clock and are left alone. */
void rtc_set_cmos(struct rtc *rtc, unsigned cell, uint8_t value);
uint8_t rtc_get_cmos(const struct rtc *rtc, unsigned cell);

/* Bit 7 of port 70H: the chipset keeps NMIs from the processor. */
bool rtc_nmi_disabled(const struct rtc *rtc);

#endif
