/*
 * Capabilities that the core carries out: power management (PCI Bus Power
 * Management Interface 1.2, chapter 3), PCI Express (PCI Express Base 2.0,
 * section 7.8), Advanced Features (ECN of 2006-07-27, for function-level
 * reset of conventional functions). See pci.h.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/pci/pci_internal.h"

#include <errno.h>

enum power_register {
    POWER_PMC = 2,
    POWER_PMCSR = 4,
    POWER_BYTES = 8,
    PMC_VERSION = 3, /* no PME, neither D1 nor D2 */
    PMCSR_STATE = 0x3,
    PMCSR_NO_SOFT_RESET = 1 << 3,
    STATE_D0 = 0,
    STATE_D3HOT = 3,
};

enum express_register {
    EXPRESS_CAPABILITIES = 0x02,
    EXPRESS_DEVICE_CAPABILITIES = 0x04,
    EXPRESS_DEVICE_CONTROL = 0x08,
    EXPRESS_DEVICE_STATUS = 0x0A,
    EXPRESS_LINK_CAPABILITIES = 0x0C,
    EXPRESS_LINK_CONTROL = 0x10,
    EXPRESS_LINK_STATUS = 0x12,
    EXPRESS_SLOT_STATUS = 0x1A,
    EXPRESS_ROOT_CONTROL = 0x1C,
    EXPRESS_ROOT_STATUS = 0x20,
    EXPRESS_LINK_CONTROL_2 = 0x30,
    EXPRESS_BYTES = 0x3C,
};

enum express_bits {
    EXPRESS_VERSION = 2,
    EXPRESS_TYPE_SHIFT = 4,
    DEVICE_ROLE_BASED_ERRORS = 1 << 15,
    DEVICE_FLR = 1 << 28,
    DEVICE_CONTROL_RESET = 0x2810,    /* relaxed ordering, no snoop, reads of 512 bytes */
    DEVICE_CONTROL_WRITABLE = 0x781F, /* not the payload: 128 bytes and no other */
    DEVICE_CONTROL_FLR_BYTE = 1,      /* bit 15: bit 7 of the second byte */
    DEVICE_STATUS_W1C = 0x000F,
    LINK_2_5_GT_X1 = 1 | 1 << 4,
    LINK_PORT_SHIFT = 24,
    LINK_CONTROL_WRITABLE = 0x00CB,
    LINK_DISABLE = 0x0010,
    SLOT_STATUS_PRESENT = 1 << 6,
    ROOT_CONTROL_WRITABLE = 0x000F,
};
#define ROOT_STATUS_W1C 0x00010000u

enum flr_register {
    FLR_LENGTH = 2,
    FLR_CAPABILITIES = 3,
    FLR_CONTROL = 4,
    FLR_BYTES = 6,
    FLR_IS_THERE = 0x03, /* transactions pending and FLR: both or none */
    FLR_INITIATE = 0x01,
};

static int no_room(struct error *err, const char *what)
{
    return error_set(err, -ENOSPC, "no room for the PCI capability of %s", what);
}

/* ---- power management ---- */

int pci_power_add(struct pci_function *f, struct error *err)
{
    unsigned at = pci_capability_add(f, PCI_CAP_POWER, POWER_BYTES);

    if (!at)
        return no_room(err, "power management");
    pci_register_define(f, at + POWER_PMC, 2, PMC_VERSION, 0, 0);
    pci_register_define(f, at + POWER_PMCSR, 2, PMCSR_NO_SOFT_RESET, PMCSR_STATE, 0);
    f->power = (uint8_t)at;
    return 0;
}

uint8_t pci_power_state(const struct pci_function *f)
{
    return f->power ? f->config[f->power + POWER_PMCSR] & PMCSR_STATE : STATE_D0;
}

bool pci_power_is_on(const struct pci_function *f)
{
    return pci_power_state(f) == STATE_D0;
}

void pci_power_written(struct pci_function *f, uint8_t before)
{
    uint8_t *reg, after = pci_power_state(f);

    if (after == before)
        return;
    reg = &f->config[f->power + POWER_PMCSR];
    /* A state that is not there: the write completes and changes nothing
     * (3.2.4). */
    if (after != STATE_D0 && after != STATE_D3HOT) {
        *reg = (uint8_t)((*reg & ~PMCSR_STATE) | before);
        return;
    }
    pci_function_update_bars(f);
    pci_bus_reroute(f->bus);
}

/* ---- PCI Express ---- */

int pci_express_add(struct pci_function *f, enum pci_express_type type, struct error *err)
{
    bool is_port = type == PCI_EXPRESS_ROOT_PORT, has_link = type != PCI_EXPRESS_INTEGRATED;
    unsigned at = pci_capability_add(f, PCI_CAP_EXPRESS, EXPRESS_BYTES);

    if (!at)
        return no_room(err, "PCI Express");
    pci_register_define(f, at + EXPRESS_CAPABILITIES, 2,
                        EXPRESS_VERSION | (uint32_t)type << EXPRESS_TYPE_SHIFT, 0, 0);
    pci_register_define(f, at + EXPRESS_DEVICE_CAPABILITIES, 4,
                        DEVICE_ROLE_BASED_ERRORS | (is_port ? 0 : DEVICE_FLR), 0, 0);
    pci_register_define(f, at + EXPRESS_DEVICE_CONTROL, 2, DEVICE_CONTROL_RESET,
                        DEVICE_CONTROL_WRITABLE, 0);
    pci_register_define(f, at + EXPRESS_DEVICE_STATUS, 2, 0, 0, DEVICE_STATUS_W1C);
    if (has_link) {
        uint32_t port = is_port ? PCI_FUNCTION_OF(f->devfn) + 1u : 0;

        pci_register_define(f, at + EXPRESS_LINK_CAPABILITIES, 4,
                            LINK_2_5_GT_X1 | port << LINK_PORT_SHIFT, 0, 0);
        pci_register_define(f, at + EXPRESS_LINK_CONTROL, 2, 0,
                            LINK_CONTROL_WRITABLE | (is_port ? LINK_DISABLE : 0), 0);
        pci_register_define(f, at + EXPRESS_LINK_STATUS, 2, LINK_2_5_GT_X1, 0, 0);
        pci_register_define(f, at + EXPRESS_LINK_CONTROL_2, 2, 1, 0xF, 0);
    }
    if (is_port) {
        /* No slot: what is there is soldered on (7.8.11). */
        pci_register_define(f, at + EXPRESS_SLOT_STATUS, 2, SLOT_STATUS_PRESENT, 0, 0);
        pci_register_define(f, at + EXPRESS_ROOT_CONTROL, 2, 0, ROOT_CONTROL_WRITABLE, 0);
        pci_register_define(f, at + EXPRESS_ROOT_STATUS, 4, 0, 0, ROOT_STATUS_W1C);
    }
    f->express = (uint8_t)at;
    return 0;
}

/* ---- Advanced Features ---- */

int pci_flr_add(struct pci_function *f, struct error *err)
{
    unsigned at = pci_capability_add(f, PCI_CAP_FLR, FLR_BYTES);

    if (!at)
        return no_room(err, "function-level reset");
    pci_register_define(f, at + FLR_LENGTH, 1, FLR_BYTES, 0, 0);
    pci_register_define(f, at + FLR_CAPABILITIES, 1, FLR_IS_THERE, 0, 0);
    pci_register_define(f, at + FLR_CONTROL, 2, 0, 0, 0);
    f->flr = (uint8_t)at;
    return 0;
}

/* The byte that a write has for a register; 0 where it does not reach it. */
static uint8_t byte_for(unsigned at, unsigned offset, uint32_t value, unsigned size)
{
    return pci_touches(offset, size, at, 1) ? (uint8_t)(value >> (at - offset) * 8) : 0;
}

bool pci_write_resets(const struct pci_function *f, unsigned offset, uint32_t value, unsigned size)
{
    unsigned express = f->express + EXPRESS_DEVICE_CONTROL + DEVICE_CONTROL_FLR_BYTE;

    if (f->flr && (byte_for(f->flr + FLR_CONTROL, offset, value, size) & FLR_INITIATE))
        return true;
    return f->express &&
           (le32_get(f->config + f->express + EXPRESS_DEVICE_CAPABILITIES) & DEVICE_FLR) &&
           (byte_for(express, offset, value, size) & 0x80);
}
