/*
 * The ICH9's chipset configuration registers (datasheet chapter 10): 16 KiB of
 * memory at RCBA. What has an effect here is the interrupt routing of devices
 * 25-31 and GCS.NO_REBOOT; the rest of what firmware programs is kept.
 *
 * A part of struct ich9_lpc. Threading: with the machine's lock held.
 */
#ifndef DEV_PCI_RCRB_H
#define DEV_PCI_RCRB_H

#include "vm/vm.h"

#define RCRB_BYTES (16 * KiB)
#define RCRB_REGISTERS 18 /* doublewords that exist */

struct rcrb {
    struct vm *vm;
    struct region region;
    void (*changed)(void *ctx); /* a register was written */
    void *ctx;
    uint32_t registers[RCRB_REGISTERS];
};

extern const struct state_table rcrb_state;

/* The region is added disabled. */
int rcrb_init(struct rcrb *r, struct vm *vm, void (*changed)(void *ctx), void *ctx);
void rcrb_destroy(struct rcrb *r);
void rcrb_reset(struct rcrb *r);
void rcrb_set_base(struct rcrb *r, uint32_t base, bool enabled);
/* After loading state: registers hold only what can be written. */
void rcrb_restored(struct rcrb *r);

/* Devices 25-31: the PIRQ (0-7) of pin 0-3. */
unsigned rcrb_route(const struct rcrb *r, unsigned device, unsigned pin);
bool rcrb_no_reboot(const struct rcrb *r);

#endif
