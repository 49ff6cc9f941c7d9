/*
 * Status flags in translated code: who uses them, and where they are.
 *
 * A fault shows the flags to the guest, so they must be true wherever an
 * instruction may fault, not only where one is read: what may leave the unit
 * counts as a reader. Saving costs LAHF, SETO and a store, once a value.
 */
#include "engine/jit/translate.h"

/* Instructions of which this host writes all six flags without looking at
 * them, though the manual leaves some undefined (found by trial). */
enum jit_host_kills {
    KILLS_SHIFT = 1 << 0,
    KILLS_SHIFT_DOUBLE = 1 << 1,
    KILLS_POPCNT = 1 << 2,
    KILLS_SCAN = 1 << 3,  /* BSF, BSR */
    KILLS_COUNT = 1 << 4, /* TZCNT, LZCNT */
    KILLS_IMUL = 1 << 5,
    KILLS_BMI = 1 << 6,
};

/* Runs op with all flags clear and all set: the same outcome? */
#define TRY(result, op)                                                                            \
    do {                                                                                           \
        for (uint64_t v = 1; v < 1ull << 62; v = v * 3 + 5) {                                      \
            uint64_t out[2];                                                                       \
            for (unsigned n = 0; n < 2; n++) {                                                     \
                uint64_t x = v, y = v * 0x9e3779b97f4a7c15ull | 1, f = n ? 0x8d7 : 2;              \
                __asm__ volatile("lea -128(%%rsp), %%rsp\n\tpush %3\n\tpopf\n\t" op                \
                                 "\n\tpushf\n\tpop %2\n\tlea 128(%%rsp), %%rsp"                    \
                                 : "+r"(x), "+r"(y), "=&r"(out[n])                                 \
                                 : "r"(f)                                                          \
                                 : "cc", "memory");                                                \
            }                                                                                      \
            if ((out[0] ^ out[1]) & FLAG_STATUS)                                                   \
                (result) = false;                                                                  \
        }                                                                                          \
    } while (0)

uint8_t flags_probe_host(void)
{
    bool shift = true, twice = true, popcnt = true, scan = true, count = true, imul = true;
    bool bmi = true;

    TRY(shift, "shl $1, %0");
    TRY(shift, "shl $5, %0");
    TRY(shift, "shr $5, %k0");
    TRY(shift, "sar $3, %w0");
    TRY(shift, "shlb $7, %b0");
    TRY(shift, "sarb $7, %b0");
    TRY(shift, "shr $1, %b0");
    TRY(twice, "shld $3, %1, %0");
    TRY(twice, "shrd $7, %k1, %k0");
    TRY(scan, "bsf %1, %0");
    TRY(scan, "bsr %k1, %k0");
    TRY(imul, "imul %1, %0");
    TRY(imul, "imul %k1, %k0");
    if (__builtin_cpu_supports("popcnt"))
        TRY(popcnt, "popcnt %1, %0");
    if (__builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) {
        TRY(count, "tzcnt %1, %0");
        TRY(count, "lzcnt %k1, %k0");
        TRY(bmi, "andn %1, %0, %0");
        TRY(bmi, "blsr %1, %0");
        TRY(bmi, "blsi %k1, %k0");
        TRY(bmi, "blsmsk %1, %0");
        TRY(bmi, "bzhi %1, %0, %0");
        TRY(bmi, "bextr %1, %0, %0");
    }
    return (uint8_t)(shift * KILLS_SHIFT | twice * KILLS_SHIFT_DOUBLE | popcnt * KILLS_POPCNT |
                     scan * KILLS_SCAN | count * KILLS_COUNT | imul * KILLS_IMUL |
                     bmi * KILLS_BMI);
}

static uint8_t kill_if(const struct tr *t, unsigned kills)
{
    return t->j->host_kills & kills ? FLAGS_KILL : FLAGS_PASS;
}

/* A count of zero leaves the flags alone. */
static uint8_t shift_use(const struct tr *t, const struct x86_decode *d, unsigned operand,
                         unsigned kills)
{
    const ZydisDecodedOperand *count = &d->op[operand];
    unsigned mask = d->z.operand_width == 64 ? 63 : 31;

    if (count->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return FLAGS_PASS;
    if (!(count->imm.value.u & mask))
        return FLAGS_NONE;
    return kill_if(t, kills);
}

uint8_t flags_use(const struct tr *t, const struct x86_decode *d)
{
    const ZydisAccessedFlags *f = d->z.cpu_flags;
    uint8_t use = FLAGS_NONE;
    ZydisAccessedFlagsMask written;

    if (!f)
        return FLAGS_NONE;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        return shift_use(t, d, 1, KILLS_SHIFT);
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        return shift_use(t, d, 2, KILLS_SHIFT_DOUBLE);
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
        return FLAGS_PASS;
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
        return FLAGS_PASS | FLAGS_READ;
    case ZYDIS_MNEMONIC_POPCNT:
        return kill_if(t, KILLS_POPCNT);
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
        return kill_if(t, KILLS_SCAN);
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
        return kill_if(t, KILLS_COUNT);
    case ZYDIS_MNEMONIC_IMUL:
        return kill_if(t, KILLS_IMUL);
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_BEXTR:
        return kill_if(t, KILLS_BMI);
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_CMPXCHG:
        return FLAGS_KILL;
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
        return FLAGS_KILL | FLAGS_READ;
    default:
        break;
    }
    if (f->tested & FLAG_STATUS)
        use |= FLAGS_READ;
    written = (f->modified | f->set_0 | f->set_1 | f->undefined) & FLAG_STATUS;
    if (written)
        use |= FLAGS_PASS;
    return use;
}

/* ---- moving them ---- */

void emit_flags_save(struct emit *e)
{
    emit8(e, 0x9f);                                    /* lahf */
    emit_rm(e, OP_0F | 0x90, 0, rm_reg(H_RAX));        /* seto al */
    emit_rm(e, OP_66 | 0x89, H_RAX, CPU_RM(s.cc));     /* mov [cc], ax */
}

void emit_flags_load(struct emit *e)
{
    emit_rm(e, OP_0F | 0xb7, H_RAX, CPU_RM(s.cc)); /* movzx eax, [cc] */
    emit8(e, 0x04);                                /* add al, 127: OF */
    emit8(e, 0x7f);
    emit8(e, 0x9e); /* sahf */
}

void flags_to_cc(struct tr *t)
{
    if (t->flags & FLAGS_IN_CC || !t->flags)
        return;
    emit_flags_save(&t->e);
    t->flags |= FLAGS_IN_CC;
}

void flags_clobber(struct tr *t)
{
    if (t->t->live[t->k])
        flags_to_cc(t);
    t->flags &= (uint8_t)~FLAGS_IN_HOST;
}

void flags_to_host(struct tr *t)
{
    if (t->flags & FLAGS_IN_HOST)
        return;
    emit_flags_load(&t->e);
    t->flags |= FLAGS_IN_HOST;
}
