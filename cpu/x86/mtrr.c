/*
 * Memory type range registers and the page attribute table (SDM Vol. 3,
 * 12.11 and 12.12).
 *
 * Caches cannot be seen by a guest here, so the registers are kept, checked
 * as the manual says, and have no effect.
 *
 * Threading: the vCPU's own.
 */
#include "cpu/x86/msr_internal.h"

enum memory_type {
    TYPE_UC = 0,
    TYPE_WC = 1,
    TYPE_WT = 4,
    TYPE_WP = 5,
    TYPE_WB = 6,
    TYPE_UC_MINUS = 7, /* PAT only */
};

enum mtrr_bits {
    MTRRCAP_FIX = 1 << 8,
    MTRRCAP_WC = 1 << 10,
    MTRR_TYPE = 0xff,
    MTRR_MASK_VALID = 1 << 11,
    MTRR_DEF_FIXED_ENABLE = 1 << 10,
    MTRR_DEF_ENABLE = 1 << 11,
};

static bool type_valid(uint8_t type)
{
    return type <= TYPE_WB && type != 2 && type != 3;
}

bool x86_mtrr_types_valid(const struct x86_vcpu *c, uint64_t value)
{
    for (unsigned n = 0; n < 8; n++)
        if (!type_valid((uint8_t)(value >> n * 8)))
            return false;
    return true;
}

bool x86_pat_valid(const struct x86_vcpu *c, uint64_t value)
{
    for (unsigned n = 0; n < 8; n++) {
        uint8_t type = (uint8_t)(value >> n * 8);

        if (!type_valid(type) && type != TYPE_UC_MINUS)
            return false;
    }
    return true;
}

bool x86_mtrr_def_type_valid(const struct x86_vcpu *c, uint64_t value)
{
    return !(value & ~(uint64_t)(MTRR_TYPE | MTRR_DEF_FIXED_ENABLE | MTRR_DEF_ENABLE)) &&
           type_valid(value & MTRR_TYPE);
}

bool x86_mtrr_cap_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = X86_MTRR_VARIABLE | MTRRCAP_FIX | MTRRCAP_WC;
    return true;
}

bool x86_mtrr_phys_read(struct x86_vcpu *c, uint32_t n, uint64_t *value)
{
    *value = n & 1 ? c->s.mtrr_mask[n / 2] : c->s.mtrr_base[n / 2];
    return true;
}

bool x86_mtrr_phys_write(struct x86_vcpu *c, uint32_t n, uint64_t value)
{
    uint64_t address = BITS(c->model->phys_bits - 1, 12);

    if (n & 1) {
        if (value & ~(address | MTRR_MASK_VALID))
            return false;
        c->s.mtrr_mask[n / 2] = value;
    } else {
        if ((value & ~(address | MTRR_TYPE)) || !type_valid(value & MTRR_TYPE))
            return false;
        c->s.mtrr_base[n / 2] = value;
    }
    return true;
}

void x86_mtrr_reset(struct x86_vcpu *c)
{
    memset(c->s.mtrr_base, 0, sizeof c->s.mtrr_base);
    memset(c->s.mtrr_mask, 0, sizeof c->s.mtrr_mask);
}
