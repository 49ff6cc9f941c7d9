/*
 * The ICH9's TCO watchdog (datasheet section 13.9): the 32 bytes at
 * PMBASE+60H. A part of struct acpi_pm, which decodes the block.
 *
 * It counts down in units of 0.6 s. The first timeout sets TIMEOUT (on a real
 * machine with an SMI), the second resets the machine unless GCS.NO_REBOOT.
 * It starts with the first reload or when software clears TCO_TMR_HLT, not at
 * power-on: no firmware of ours halts it.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_MISC_TCO_H
#define DEV_MISC_TCO_H

#include "vm/vm.h"

#define TCO_BYTES 32
#define TCO_TICK_NS (600 * NS_PER_MS)

struct tco {
    struct vm *vm;
    bool no_reboot; /* mirrors GCS, which the LPC bridge holds */

    uint8_t data_in, data_out, message[2], wdcnt, sw_irq_gen;
    uint16_t sts1, sts2, cnt1, cnt2;
    uint16_t initial; /* TCO_TMR */
    bool started;
    bool timed_out;         /* once since the last reload */
    uint16_t stopped_count; /* ticks left while halted or not started */
    struct timer timer;
};

extern const struct state_table tco_state;

void tco_init(struct tco *t, struct vm *vm);
void tco_destroy(struct tco *t);
void tco_reset(struct tco *t);
/* The aligned doubleword at offset (0-28), and a write of its masked bits. */
uint32_t tco_read(struct tco *t, unsigned offset);
void tco_write(struct tco *t, unsigned offset, uint32_t value, uint32_t mask);
bool tco_is_locked(const struct tco *t);

#endif
