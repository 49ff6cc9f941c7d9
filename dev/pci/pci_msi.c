/*
 * Message-signalled interrupts: MSI (PCI Local Bus 3.0, section 6.8.1) and
 * MSI-X (6.8.2). See pci.h.
 *
 * A message that is masked becomes a pending bit; whatever takes the mask away
 * sends it: the vector's mask bit, MSI-X's function mask, the enable bit. A
 * function that may not master the bus loses its messages.
 *
 * Threading: with the machine's lock held.
 */
#include "dev/pci/pci_internal.h"

#include <errno.h>

enum msi_register {
    MSI_CONTROL = 0x02,
    MSI_ADDRESS = 0x04,
    MSI_DATA = 0x0C,
    MSI_MASK = 0x10,
    MSI_PENDING = 0x14,
    MSI_BYTES = 0x0E,
    MSI_BYTES_MASKABLE = 0x18,
    MSI_MAX = 32,
};

enum msi_control {
    MSI_ENABLE = 1 << 0,
    MSI_CAPABLE_SHIFT = 1,
    MSI_ALLOTTED_SHIFT = 4,
    MSI_ALLOTTED_MASK = 7 << 4,
    MSI_64_BIT = 1 << 7,
    MSI_MASKABLE = 1 << 8,
};

enum msix_register {
    MSIX_CONTROL = 0x02,
    MSIX_TABLE = 0x04,
    MSIX_PENDING = 0x08,
    MSIX_BYTES = 0x0C,
};

enum msix_control {
    MSIX_FUNCTION_MASK = 1 << 14,
    MSIX_ENABLE = 1 << 15,
};

enum msix_entry {
    ENTRY_ADDRESS = 0,
    ENTRY_DATA = 8,
    ENTRY_CONTROL = 12,
    ENTRY_BYTES = 16,
    ENTRY_MASKED = 1, /* of ENTRY_CONTROL */
};

/* The BAR: the table, and in its second half the pending bits. */
#define MSIX_BAR_BYTES 4096u
#define MSIX_PENDING_OFFSET 2048u
_Static_assert(PCI_MSIX_MAX *ENTRY_BYTES <= MSIX_PENDING_OFFSET, "the table fits its half");

#define PROCESSORS_BASE 0xFEE00000ull
#define PROCESSORS_BYTES (1 * MiB)

/* ---- sending ---- */

void pci_message_send(struct pci_function *f, struct irq_message message)
{
    struct address_space *as = &f->bus->vm->memory;
    uint8_t data[4];

    if (!pci_is_master(f))
        return;
    if (message.address - PROCESSORS_BASE < PROCESSORS_BYTES) {
        irq_message_send(&f->bus->root->messages, message);
        return;
    }
    /* Into RAM only: a message to a device's register could end in the next
     * message, for ever. */
    for (unsigned i = 0; i < sizeof data; i++) {
        uint64_t one = 1;

        if (!as_map(as, message.address + i, &one, true, NULL, NULL))
            return;
    }
    le32_put(data, message.data);
    as_write(as, message.address, data, sizeof data);
}

/* ---- MSI ---- */

static uint16_t msi_control(const struct pci_function *f)
{
    return f->msi ? le16_get(f->config + f->msi + MSI_CONTROL) : 0;
}

/* Software may ask for more than there are; it gets what there is. */
static unsigned msi_vectors(const struct pci_function *f)
{
    uint16_t control = msi_control(f);

    return 1u << MIN(control >> MSI_CAPABLE_SHIFT & 7, control >> MSI_ALLOTTED_SHIFT & 7);
}

static uint32_t msi_bits(const struct pci_function *f, unsigned reg)
{
    return msi_control(f) & MSI_MASKABLE ? le32_get(f->config + f->msi + reg) : 0;
}

static void msi_set_pending(struct pci_function *f, uint32_t pending)
{
    if (msi_control(f) & MSI_MASKABLE)
        le32_put(f->config + f->msi + MSI_PENDING, pending);
}

static void msi_send(struct pci_function *f, unsigned vector)
{
    const uint8_t *reg = f->config + f->msi;
    const struct irq_message m = {
        .address = le64_get(reg + MSI_ADDRESS),
        .data = (le16_get(reg + MSI_DATA) & ~(msi_vectors(f) - 1)) | vector,
    };

    pci_message_send(f, m);
}

static void msi_raise(struct pci_function *f, unsigned vector)
{
    if (msi_bits(f, MSI_MASK) & BIT(vector))
        msi_set_pending(f, msi_bits(f, MSI_PENDING) | (uint32_t)BIT(vector));
    else
        msi_send(f, vector);
}

int pci_msi_add(struct pci_function *f, unsigned vectors, bool maskable, struct error *err)
{
    unsigned at, capable = 0;
    uint32_t all;

    while (capable < 5 && 1u << capable < vectors)
        capable++;
    if (1u << capable != vectors || f->msi)
        return error_set(err, -EINVAL, "impossible MSI capability of %u vectors", vectors);
    at = pci_capability_add(f, PCI_CAP_MSI, maskable ? MSI_BYTES_MASKABLE : MSI_BYTES);
    if (!at)
        return error_set(err, -ENOSPC, "no room for the PCI capability of MSI");
    all = (uint32_t)BITS(vectors - 1, 0);
    pci_register_define(f, at + MSI_CONTROL, 2,
                        MSI_64_BIT | capable << MSI_CAPABLE_SHIFT | (maskable ? MSI_MASKABLE : 0),
                        MSI_ENABLE | MSI_ALLOTTED_MASK, 0);
    pci_register_define(f, at + MSI_ADDRESS, 4, 0, 0xFFFFFFFC, 0);
    pci_register_define(f, at + MSI_ADDRESS + 4, 4, 0, 0xFFFFFFFF, 0);
    pci_register_define(f, at + MSI_DATA, 2, 0, 0xFFFF, 0);
    if (maskable) {
        pci_register_define(f, at + MSI_MASK, 4, 0, all, 0);
        pci_register_define(f, at + MSI_PENDING, 4, 0, 0, 0);
    }
    f->msi = (uint8_t)at;
    return 0;
}

uint32_t pci_msi_pending(const struct pci_function *f)
{
    return msi_bits(f, MSI_PENDING);
}

void pci_msi_restored(struct pci_function *f, uint32_t pending)
{
    uint32_t all = (uint32_t)BITS((1u << (msi_control(f) >> MSI_CAPABLE_SHIFT & 7)) - 1, 0);

    msi_set_pending(f, pending & all);
}

/* ---- MSI-X ---- */

static uint16_t msix_control(const struct pci_function *f)
{
    return f->msix ? le16_get(f->config + f->msix_capability + MSIX_CONTROL) : 0;
}

static bool msix_is_masked(const struct pci_function *f, unsigned vector)
{
    return (msix_control(f) & MSIX_FUNCTION_MASK) ||
           (f->msix->table[vector * ENTRY_BYTES + ENTRY_CONTROL] & ENTRY_MASKED);
}

static void msix_send(struct pci_function *f, unsigned vector)
{
    const uint8_t *entry = f->msix->table + vector * ENTRY_BYTES;
    const struct irq_message m = {
        .address = le64_get(entry + ENTRY_ADDRESS) & ~3ull,
        .data = le32_get(entry + ENTRY_DATA),
    };

    pci_message_send(f, m);
}

static void msix_raise(struct pci_function *f, unsigned vector)
{
    if (msix_is_masked(f, vector))
        f->msix->pending[vector / 8] |= (uint8_t)BIT(vector % 8);
    else
        msix_send(f, vector);
}

static uint64_t msix_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct pci_msix *x = ctx;
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++) {
        uint64_t at = offset + i;
        uint8_t byte = 0;

        if (at < x->vectors * ENTRY_BYTES)
            byte = x->table[at];
        else if (at >= MSIX_PENDING_OFFSET && at - MSIX_PENDING_OFFSET < sizeof x->pending)
            byte = x->pending[at - MSIX_PENDING_OFFSET];
        value |= (uint64_t)byte << i * 8;
    }
    return value;
}

/* Of an entry's control doubleword there is only the mask bit. */
static uint8_t entry_mask(uint64_t offset)
{
    unsigned in_entry = offset % ENTRY_BYTES;

    if (in_entry < ENTRY_CONTROL)
        return in_entry == ENTRY_ADDRESS ? 0xFC : 0xFF;
    return in_entry == ENTRY_CONTROL ? ENTRY_MASKED : 0;
}

static void msix_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_msix *x = ctx;

    for (unsigned i = 0; i < size && offset + i < x->vectors * ENTRY_BYTES; i++)
        x->table[offset + i] = (uint8_t)(value >> i * 8) & entry_mask(offset + i);
    pci_msi_update(x->function);
}

static const struct region_ops msix_ops = {msix_read, msix_write, 1, 8};

static void msix_reset(struct pci_msix *x)
{
    memset(x->table, 0, sizeof x->table);
    memset(x->pending, 0, sizeof x->pending);
    for (unsigned i = 0; i < x->vectors; i++)
        x->table[i * ENTRY_BYTES + ENTRY_CONTROL] = ENTRY_MASKED;
}

int pci_msix_add(struct pci_function *f, struct pci_msix *msix, unsigned bar, unsigned vectors,
                 struct error *err)
{
    unsigned at;
    int rc;

    if (vectors < 1 || vectors > PCI_MSIX_MAX || f->msix)
        return error_set(err, -EINVAL, "impossible MSI-X capability of %u vectors", vectors);
    msix->function = f;
    msix->vectors = vectors;
    rc = pci_bar_add(f, bar, PCI_BAR_MEMORY32, false, "msix", MSIX_BAR_BYTES, &msix_ops, msix, err);
    if (rc < 0)
        return rc;
    at = pci_capability_add(f, PCI_CAP_MSIX, MSIX_BYTES);
    if (!at)
        return error_set(err, -ENOSPC, "no room for the PCI capability of MSI-X");
    pci_register_define(f, at + MSIX_CONTROL, 2, vectors - 1, MSIX_ENABLE | MSIX_FUNCTION_MASK, 0);
    pci_register_define(f, at + MSIX_TABLE, 4, bar, 0, 0);
    pci_register_define(f, at + MSIX_PENDING, 4, MSIX_PENDING_OFFSET | bar, 0, 0);
    f->msix_capability = (uint8_t)at;
    f->msix = msix;
    msix_reset(msix);
    return 0;
}

static int msix_after_load(void *self, unsigned version)
{
    struct pci_msix *x = self;

    for (unsigned i = 0; i < sizeof x->table; i++)
        x->table[i] = i < x->vectors * ENTRY_BYTES ? x->table[i] & entry_mask(i) : 0;
    for (unsigned i = x->vectors; i < PCI_MSIX_MAX; i++)
        x->pending[i / 8] &= (uint8_t)~BIT(i % 8);
    return 0;
}

static const struct state_field msix_fields[] = {
    STATE_BYTES(struct pci_msix, table),
    STATE_BYTES(struct pci_msix, pending),
    STATE_END,
};

const struct state_table pci_msix_state = {
    .name = "pci-msix",
    .version = 1,
    .fields = msix_fields,
    .after_load = msix_after_load,
};

/* ---- both ---- */

bool pci_msi_is_enabled(const struct pci_function *f)
{
    return (msix_control(f) & MSIX_ENABLE) || (msi_control(f) & MSI_ENABLE);
}

unsigned pci_msi_vectors(const struct pci_function *f)
{
    if (msix_control(f) & MSIX_ENABLE)
        return f->msix->vectors;
    return msi_control(f) & MSI_ENABLE ? msi_vectors(f) : 0;
}

void pci_msi_raise(struct pci_function *f, unsigned vector)
{
    unsigned vectors = pci_msi_vectors(f);

    if (vectors == 0 || !pci_power_is_on(f))
        return;
    if (msix_control(f) & MSIX_ENABLE)
        msix_raise(f, vector % vectors);
    else
        msi_raise(f, vector % vectors);
}

void pci_msi_update(struct pci_function *f)
{
    uint32_t ready;

    if (!pci_msi_is_enabled(f) || !pci_power_is_on(f))
        return;
    if (msix_control(f) & MSIX_ENABLE) {
        for (unsigned i = 0; i < f->msix->vectors; i++) {
            if ((f->msix->pending[i / 8] & BIT(i % 8)) && !msix_is_masked(f, i)) {
                f->msix->pending[i / 8] &= (uint8_t)~BIT(i % 8);
                msix_send(f, i);
            }
        }
        return;
    }
    ready = msi_bits(f, MSI_PENDING) & ~msi_bits(f, MSI_MASK);
    msi_set_pending(f, msi_bits(f, MSI_PENDING) & ~ready);
    for (unsigned i = 0; i < MSI_MAX; i++) {
        if ((ready & BIT(i)) && i < msi_vectors(f))
            msi_send(f, i);
    }
}

void pci_msi_reset(struct pci_function *f)
{
    if (f->msix)
        msix_reset(f->msix);
}
