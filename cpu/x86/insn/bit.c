/*
 * Bit instructions: BT BTS BTR BTC BSF BSR LZCNT TZCNT POPCNT, BMI1, BMI2,
 * CRC32 (SDM Vol. 2).
 */
#include "cpu/x86/insn/ops.h"

/* ---- BT family: aux 0 BT, 1 BTS, 2 BTR, 3 BTC ---- */

static uint64_t bit_apply(unsigned kind, uint64_t v, unsigned bit)
{
    switch (kind) {
    case 1:
        return v | BIT(bit);
    case 2:
        return v & ~BIT(bit);
    case 3:
        return v ^ BIT(bit);
    default:
        return v;
    }
}

/* The other flags are as the host's BT leaves them. */
static void bit_flags(struct x86_vcpu *c, uint64_t v, unsigned bit, unsigned size)
{
    uint32_t cc = c->s.cc;

    if (size == 2)
        __asm__(FLAGS_LOAD "btw %w2, %w1\n\t" FLAGS_SAVE : "+&a"(cc) : "r"(v), "r"(bit) : "cc");
    else if (size == 4)
        __asm__(FLAGS_LOAD "btl %k2, %k1\n\t" FLAGS_SAVE : "+&a"(cc) : "r"(v), "r"(bit) : "cc");
    else
        __asm__(FLAGS_LOAD "btq %q2, %q1\n\t" FLAGS_SAVE
                : "+&a"(cc)
                : "r"(v), "r"((uint64_t)bit)
                : "cc");
    c->s.cc = (uint16_t)cc;
}

HANDLER(bt_r)
{
    uint64_t v = x86_reg_get(c, i->r0, i->size);
    uint64_t index = i->aux2 ? x86_reg_get(c, i->r1, i->size) : i->imm;
    unsigned bit = (unsigned)index & (i->size * 8u - 1);

    bit_flags(c, v, bit, i->size);
    if (i->aux)
        x86_reg_set(c, i->r0, i->size, bit_apply(i->aux, v, bit));
    X86_NEXT(c, i);
}

/* With a register index the operand is a bit string: the index, signed, picks
 * a word of the operand's size relative to the address. */
uint64_t bit_string_ea(struct x86_vcpu *c, const struct x86_insn *i, unsigned *bit)
{
    uint64_t ea = x86_ea(c, i);
    unsigned mask = i->size * 8u - 1;

    if (i->aux2) {
        int64_t index = sext(x86_reg_get(c, i->r0, i->size), i->size);
        ea += (uint64_t)((index >> (size_index(i->size) + 3)) * i->size);
        ea = ea << i->ea_shift >> i->ea_shift;
        *bit = (unsigned)index & mask;
    } else {
        *bit = (unsigned)i->imm & mask;
    }
    return ea;
}

HANDLER(bt_m)
{
    unsigned bit;
    uint64_t ea = bit_string_ea(c, i, &bit), v;

    X86_BEGIN(c, i);
    if (i->aux)
        x86_probe_write(c, i->seg, ea, i->size);
    v = x86_read(c, i->seg, ea, i->size);
    if (i->aux)
        x86_write(c, i->seg, ea, bit_apply(i->aux, v, bit), i->size);
    bit_flags(c, v, bit, i->size);
    X86_NEXT(c, i);
}

bool bind_bt(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
        i->aux = 0;
        break;
    case ZYDIS_MNEMONIC_BTS:
        i->aux = 1;
        break;
    case ZYDIS_MNEMONIC_BTR:
        i->aux = 2;
        break;
    default:
        i->aux = 3;
        break;
    }
    i->aux2 = d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    if (i->flags & INSN_LOCK)
        return bind_lock_bit(d, i);
    i->fn = i->flags & INSN_MEM ? bt_m : bt_r;
    return true;
}

/* ---- scans and counts, by the host; LZCNT, TZCNT and POPCNT are decoded as
 * such only where the model has them ---- */

enum scan { SCAN_BSF, SCAN_BSR, SCAN_TZCNT, SCAN_LZCNT, SCAN_POPCNT };

#define SCAN_ASM(op, sfx)                                                                          \
    __asm__(FLAGS_LOAD op sfx " %2, %0\n\t" FLAGS_SAVE : "+&r"(d), "+&a"(cc) : "r"(s) : "cc")

#define SCAN_FN(bits, type, sfx)                                                                   \
    static uint64_t scan##bits(struct x86_vcpu *c, enum scan kind, type d, type s)                 \
    {                                                                                              \
        uint32_t cc = c->s.cc;                                                                     \
        switch (kind) {                                                                            \
        case SCAN_BSF: /* a zero source leaves the destination alone */                            \
            SCAN_ASM("bsf", sfx);                                                                  \
            break;                                                                                 \
        case SCAN_BSR:                                                                             \
            SCAN_ASM("bsr", sfx);                                                                  \
            break;                                                                                 \
        case SCAN_TZCNT:                                                                           \
            SCAN_ASM("tzcnt", sfx);                                                                \
            break;                                                                                 \
        case SCAN_LZCNT:                                                                           \
            SCAN_ASM("lzcnt", sfx);                                                                \
            break;                                                                                 \
        case SCAN_POPCNT:                                                                          \
            SCAN_ASM("popcnt", sfx);                                                               \
            break;                                                                                 \
        }                                                                                          \
        c->s.cc = (uint16_t)cc;                                                                    \
        return d;                                                                                  \
    }
SIZES_WLQ(SCAN_FN)

HANDLER(scan)
{
    uint64_t s, d;

    X86_BEGIN(c, i);
    s = i->flags & INSN_MEM ? x86_read(c, i->seg, x86_ea(c, i), i->size)
                            : x86_reg_get(c, i->r1, i->size);
    d = x86_reg_get(c, i->r0, i->size);
    if (i->size == 2) {
        x86_reg_set(c, i->r0, 2, scan16(c, i->aux, (uint16_t)d, (uint16_t)s));
    } else if (i->size == 4) {
        bool keep = (i->aux == SCAN_BSF || i->aux == SCAN_BSR) && (uint32_t)s == 0;
        uint64_t r = scan32(c, i->aux, (uint32_t)d, (uint32_t)s);
        /* BSF/BSR of zero: the full 64-bit register stays as it was. */
        if (!keep)
            x86_reg_set(c, i->r0, 4, r);
    } else {
        x86_reg_set(c, i->r0, 8, scan64(c, i->aux, d, s));
    }
    X86_NEXT(c, i);
}

bool bind_scan(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_BSF:
        i->aux = SCAN_BSF;
        break;
    case ZYDIS_MNEMONIC_BSR:
        i->aux = SCAN_BSR;
        break;
    case ZYDIS_MNEMONIC_TZCNT:
        i->aux = SCAN_TZCNT;
        break;
    case ZYDIS_MNEMONIC_LZCNT:
        i->aux = SCAN_LZCNT;
        break;
    default:
        i->aux = SCAN_POPCNT;
        break;
    }
    i->fn = scan;
    return true;
}

/* ---- BMI1/BMI2: executed on the host with register operands ---- */

enum bmi { BMI_ANDN, BMI_BEXTR, BMI_BZHI, BMI_BLSI, BMI_BLSMSK, BMI_BLSR, BMI_PDEP, BMI_PEXT };

#define BMI2_ASM(op, sfx, x, y)                                                                    \
    __asm__(FLAGS_LOAD op sfx " %3, %2, %0\n\t" FLAGS_SAVE                                         \
            : "=&r"(r), "+&a"(cc)                                                                  \
            : "r"(x), "r"(y)                                                                       \
            : "cc")
#define BMI1_ASM(op, sfx, x)                                                                       \
    __asm__(FLAGS_LOAD op sfx " %2, %0\n\t" FLAGS_SAVE : "=&r"(r), "+&a"(cc) : "r"(x) : "cc")

/* a: the VEX.vvvv or first source operand, b: the r/m operand, by mnemonic. */
#define BMI_FN(bits, type, sfx)                                                                    \
    static uint64_t bmi##bits(struct x86_vcpu *c, enum bmi kind, type first, type second)          \
    {                                                                                              \
        uint32_t cc = c->s.cc;                                                                     \
        type r = 0;                                                                                \
        switch (kind) {                                                                            \
        case BMI_ANDN:                                                                             \
            BMI2_ASM("andn", sfx, first, second);                                                  \
            break;                                                                                 \
        case BMI_BEXTR:                                                                            \
            BMI2_ASM("bextr", sfx, first, second);                                                 \
            break;                                                                                 \
        case BMI_BZHI:                                                                             \
            BMI2_ASM("bzhi", sfx, first, second);                                                  \
            break;                                                                                 \
        case BMI_BLSI:                                                                             \
            BMI1_ASM("blsi", sfx, first);                                                          \
            break;                                                                                 \
        case BMI_BLSMSK:                                                                           \
            BMI1_ASM("blsmsk", sfx, first);                                                        \
            break;                                                                                 \
        case BMI_BLSR:                                                                             \
            BMI1_ASM("blsr", sfx, first);                                                          \
            break;                                                                                 \
        case BMI_PDEP:                                                                             \
            BMI2_ASM("pdep", sfx, first, second);                                                  \
            break;                                                                                 \
        case BMI_PEXT:                                                                             \
            BMI2_ASM("pext", sfx, first, second);                                                  \
            break;                                                                                 \
        }                                                                                          \
        c->s.cc = (uint16_t)cc;                                                                    \
        return r;                                                                                  \
    }
BMI_FN(32, uint32_t, "l")
BMI_FN(64, uint64_t, "q")

/* AT&T order swaps: for ANDN, PDEP, PEXT the r/m operand is the assembler's
 * first source; for BEXTR, BZHI the control register is. */
HANDLER(bmi)
{
    uint64_t mem, other, first, second;

    X86_BEGIN(c, i);
    mem = i->flags & INSN_MEM ? x86_read(c, i->seg, x86_ea(c, i), i->size)
                              : x86_reg_get(c, i->aux2 ? i->spare : i->r1, i->size);
    switch (i->aux) {
    case BMI_ANDN:
    case BMI_PDEP:
    case BMI_PEXT: /* dest, vvvv (r1), r/m */
        other = x86_reg_get(c, i->r1, i->size);
        first = other;
        second = mem;
        break;
    case BMI_BEXTR:
    case BMI_BZHI: /* dest, r/m, vvvv (spare) */
        other = x86_reg_get(c, i->spare, i->size);
        first = mem;
        second = other;
        break;
    default: /* vvvv dest, r/m */
        first = mem;
        second = 0;
        break;
    }
    x86_reg_set(c, i->r0, i->size,
                i->size == 8 ? bmi64(c, i->aux, first, second)
                             : bmi32(c, i->aux, (uint32_t)first, (uint32_t)second));
    X86_NEXT(c, i);
}

bool bind_bmi(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
#define CASE(M)                                                                                    \
    case ZYDIS_MNEMONIC_##M:                                                                       \
        i->aux = BMI_##M;                                                                          \
        break;
        CASE(ANDN)
        CASE(BEXTR)
        CASE(BZHI)
        CASE(BLSI)
        CASE(BLSMSK)
        CASE(BLSR)
        CASE(PDEP)
        CASE(PEXT)
#undef CASE
    default:
        return false;
    }
    if (d->z.operand_count_visible == 3 && d->op[2].type == ZYDIS_OPERAND_TYPE_REGISTER)
        i->spare = x86_reg_offset(d->op[2].reg.value);
    /* ANDN, PDEP, PEXT: a register r/m operand is the third, in spare. */
    i->aux2 = i->aux == BMI_ANDN || i->aux == BMI_PDEP || i->aux == BMI_PEXT;
    i->fn = bmi;
    return true;
}

/* ---- CRC32 (polynomial 11EDC6F41H), reflected ---- */

HANDLER(crc32)
{
    uint64_t s, crc;

    X86_BEGIN(c, i);
    s = i->flags & INSN_MEM ? x86_read(c, i->seg, x86_ea(c, i), i->aux)
                            : x86_reg_get(c, i->r1, i->aux);
    crc = (uint32_t)x86_reg_get(c, i->r0, 4);
    switch (i->aux) {
    case 1:
        __asm__("crc32b %1, %k0" : "+r"(crc) : "r"((uint8_t)s));
        break;
    case 2:
        __asm__("crc32w %1, %k0" : "+r"(crc) : "r"((uint16_t)s));
        break;
    case 4:
        __asm__("crc32l %1, %k0" : "+r"(crc) : "r"((uint32_t)s));
        break;
    default:
        __asm__("crc32q %1, %0" : "+r"(crc) : "r"(s));
        break;
    }
    X86_REG64(c, i->r0) = (uint32_t)crc;
    X86_NEXT(c, i);
}

bool bind_crc32(struct x86_decode *d, struct x86_insn *i)
{
    i->aux = (uint8_t)(d->op[1].size / 8);
    i->fn = crc32;
    return true;
}
