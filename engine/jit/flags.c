/*
 * Status flags in translated code: who uses them, and where they are.
 *
 * A fault shows the flags to the guest, so they must be true wherever an
 * instruction may fault, not only where one is read: what may leave the unit
 * counts as a reader. Saving costs LAHF, SETO and a store, once a value; most
 * values can be had again from registers when somebody really asks (struct
 * recipe), and then cost nothing.
 */
#include "cpu/x86/vec/vec.h"
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
    LOGIC_AS_TEST = 1 << 7, /* TEST of the result gives the flags of AND, OR, XOR */
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
    bool bmi = true, logic = true;

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
    for (uint64_t v = 1; v < 1ull << 62; v = v * 3 + 5) {
        uint64_t x = v, y = v * 0x9e3779b97f4a7c15ull, a, b;
        __asm__ volatile("lea -128(%%rsp), %%rsp\n\txor %1, %0\n\tpushf\n\tpop %2\n\t"
                         "test %0, %0\n\tpushf\n\tpop %3\n\tlea 128(%%rsp), %%rsp"
                         : "+r"(x), "+r"(y), "=&r"(a), "=&r"(b)
                         :
                         : "cc", "memory");
        logic = logic && !((a ^ b) & FLAG_STATUS);
    }
    return (uint8_t)(logic * LOGIC_AS_TEST | shift * KILLS_SHIFT | twice * KILLS_SHIFT_DOUBLE | popcnt * KILLS_POPCNT |
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
    /* PTEST, COMISD and their like. */
    written = (f->modified | f->set_0 | f->set_1) & FLAG_STATUS;
    if (written == FLAG_STATUS && vec_binder_for(&d->z) == bind_vector)
        return use | FLAGS_KILL;
    written |= f->undefined & FLAG_STATUS;
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

/* ---- recipes ---- */

/* Operand n: a whole general register (not AH..BH), as its number; else -1. */
static int plain_register(const struct x86_decode *d, unsigned n)
{
    const ZydisDecodedOperand *o = &d->op[n];

    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
        (o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH))
        return -1;
    return (int)x86_reg_offset(o->reg.value) / 8;
}

static unsigned recipe_kind(const struct tr *t, const struct x86_decode *d)
{
    int dest = plain_register(d, 0), source = -1;
    bool is_immediate = d->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

    if (dest < 0)
        return RECIPE_NONE;
    if (d->z.operand_count_visible > 1) {
        source = plain_register(d, 1);
        if (source < 0 && !is_immediate)
            return RECIPE_NONE;
    }
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
        return RECIPE_AGAIN;
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
        return t->j->host_kills & LOGIC_AS_TEST ? RECIPE_LOGIC : RECIPE_NONE;
    case ZYDIS_MNEMONIC_ADD:
        return source != dest ? RECIPE_ADD : RECIPE_NONE;
    case ZYDIS_MNEMONIC_SUB:
        return source != dest ? RECIPE_SUB : RECIPE_NONE;
    case ZYDIS_MNEMONIC_NEG:
        return RECIPE_NEG;
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        return is_immediate && host_of(t, (unsigned)dest) != H_NONE ? RECIPE_INPUT : RECIPE_NONE;
    default:
        return RECIPE_NONE;
    }
}

bool is_string(const struct x86_decode *d)
{
    return d->z.meta.category == ZYDIS_CATEGORY_STRINGOP ||
           d->z.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

bool tr_writes(const struct x86_decode *d, unsigned guest)
{
    /* Their operands are memory alone. */
    if (is_string(d) && (guest == X86_RSI || guest == X86_RDI || guest == X86_RCX))
        return true;
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        ZydisRegisterClass class;
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
            !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        class = ZydisRegisterGetClass(o->reg.value);
        if ((class == ZYDIS_REGCLASS_GPR8 || class == ZYDIS_REGCLASS_GPR16 ||
             class == ZYDIS_REGCLASS_GPR32 || class == ZYDIS_REGCLASS_GPR64) &&
            x86_reg_offset(o->reg.value) / 8 == guest)
            return true;
    }
    return false;
}

/* A recipe for the instruction in hand, if it holds as long as its flags do and
 * somebody may destroy the host's meanwhile. */
struct recipe recipe_plan(struct tr *t)
{
    const struct jit_translation *s = t->t;
    const struct x86_decode *d = &s->d[t->k];
    struct recipe none = {RECIPE_NONE, 0}, r = none;
    bool is_clobbered = false, is_changed = false;
    int a, b = -1;

    if (s->use[t->k] != FLAGS_KILL || !s->live[t->k + 1])
        return none;
    r.kind = (uint8_t)recipe_kind(t, d);
    r.k = (uint8_t)t->k;
    if (r.kind == RECIPE_NONE)
        return none;
    a = plain_register(d, 0);
    if (r.kind == RECIPE_AGAIN || r.kind == RECIPE_ADD || r.kind == RECIPE_SUB)
        b = plain_register(d, 1);
    for (unsigned m = t->k + 1; m <= t->end; m++) {
        bool changes = m < t->end && r.kind != RECIPE_INPUT &&
                       (tr_writes(&s->d[m], (unsigned)a) ||
                        (b >= 0 && tr_writes(&s->d[m], (unsigned)b)));
        /* Whoever looks at them looks before m changes a register, unless m has
         * more than one access. */
        if (s->live[m] && (is_changed || (changes && is_string(&s->d[m]))))
            return none;
        if (m == t->end)
            break;
        is_clobbered |= s->live[m] && s->use[m] != FLAGS_READ;
        if (s->use[m] & (FLAGS_KILL | FLAGS_PASS))
            break;
        is_changed |= changes;
    }
    if (r.kind == RECIPE_INPUT) {
        if (!is_clobbered)
            return none;
        emit_store(&t->e, JIT_RM(flag_input), host_of(t, (unsigned)a));
    }
    return r;
}

struct recipe recipe_for_loop(const struct tr *t, unsigned edge)
{
    const struct jit_translation *s = t->t;
    struct recipe none = {RECIPE_NONE, 0}, r = none;
    bool is_changed = false;
    unsigned k = edge;
    int a, b = -1;

    while (k && !(s->use[k] & (FLAGS_KILL | FLAGS_PASS)))
        k--;
    if (s->use[k] != FLAGS_KILL)
        return none;
    r.kind = (uint8_t)recipe_kind(t, &s->d[k]);
    r.k = (uint8_t)k;
    if (r.kind == RECIPE_NONE || r.kind == RECIPE_INPUT)
        return none;
    a = plain_register(&s->d[k], 0);
    if (r.kind == RECIPE_AGAIN || r.kind == RECIPE_ADD || r.kind == RECIPE_SUB)
        b = plain_register(&s->d[k], 1);
    for (unsigned m = k + 1; m <= edge; m++) {
        if (tr_writes(&s->d[m], (unsigned)a) || (b >= 0 && tr_writes(&s->d[m], (unsigned)b)))
            return none;
    }
    for (unsigned m = 0; m < t->loop; m++) {
        bool changes = tr_writes(&s->d[m], (unsigned)a) ||
                       (b >= 0 && tr_writes(&s->d[m], (unsigned)b));
        if (s->live[m] && (is_changed || (changes && is_string(&s->d[m]))))
            return none;
        if (s->use[m] & (FLAGS_KILL | FLAGS_PASS))
            break;
        is_changed |= changes;
    }
    return r;
}

/* which: group 1. to op source, sized as operand 0 of d. */
static void emit_alu_source(struct tr *t, const struct x86_decode *d, unsigned which,
                            unsigned to)
{
    struct emit *e = &t->e;
    unsigned size = d->op[0].size;
    unsigned word = size == 64 ? OP_W : size == 16 ? OP_66 : 0;

    if (d->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        int32_t imm = (int32_t)d->op[1].imm.value.s;
        if (size == 8) {
            emit_rm(e, 0x80 | OP_BYTE_RM, which, rm_reg(to));
            emit8(e, (unsigned)imm);
        } else if (size == 16) {
            emit_rm(e, word | 0x81, which, rm_reg(to));
            emit16(e, (unsigned)imm);
        } else {
            emit_alu_imm(e, word, which, rm_reg(to), imm);
        }
        return;
    }
    emit_rm(e, size == 8 ? which << 3 | 2 | OP_BYTE_REG | OP_BYTE_RM : word | which << 3 | 3, to,
            guest_rm(t, (unsigned)plain_register(d, 1)));
}

static void emit_test_source(struct tr *t, const struct x86_decode *d, unsigned to)
{
    struct emit *e = &t->e;
    unsigned size = d->op[0].size, imm = (unsigned)d->op[1].imm.value.u;
    unsigned word = size == 64 ? OP_W : size == 16 ? OP_66 : 0;

    if (d->op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        emit_rm(e, size == 8 ? 0x84 | OP_BYTE_REG | OP_BYTE_RM : word | 0x85, to,
                guest_rm(t, (unsigned)plain_register(d, 1)));
        return;
    }
    emit_rm(e, size == 8 ? 0xf6 | OP_BYTE_RM : word | 0xf7, 0, rm_reg(to));
    if (size == 8)
        emit8(e, imm);
    else if (size == 16)
        emit16(e, imm);
    else
        emit32(e, imm);
}

enum { GROUP_ADD = 0, GROUP_SUB = 5, GROUP_CMP = 7 };

static void emit_recipe(struct tr *t, struct recipe r)
{
    const struct x86_decode *d = &t->t->d[r.k];
    unsigned guest = (unsigned)plain_register(d, 0), host = host_of(t, guest);
    unsigned size = d->op[0].size;
    unsigned word = size == 64 ? OP_W : size == 16 ? OP_66 : 0;
    struct emit *e = &t->e;

    if (r.kind == RECIPE_INPUT)
        emit_load(e, T0, JIT_RM(flag_input));
    else if (host == H_NONE || (r.kind != RECIPE_AGAIN && r.kind != RECIPE_LOGIC))
        emit_load(e, T0, guest_rm(t, guest));
    if (host == H_NONE)
        host = T0;
    switch (r.kind) {
    case RECIPE_AGAIN:
        if (d->z.mnemonic == ZYDIS_MNEMONIC_CMP)
            emit_alu_source(t, d, GROUP_CMP, host);
        else
            emit_test_source(t, d, host);
        break;
    case RECIPE_LOGIC:
        emit_rm(e, size == 8 ? 0x84 | OP_BYTE_REG | OP_BYTE_RM : word | 0x85, host,
                rm_reg(host));
        break;
    case RECIPE_ADD:
        emit_alu_source(t, d, GROUP_SUB, T0);
        emit_alu_source(t, d, GROUP_ADD, T0);
        break;
    case RECIPE_SUB:
        emit_alu_source(t, d, GROUP_ADD, T0);
        emit_alu_source(t, d, GROUP_SUB, T0);
        break;
    case RECIPE_NEG:
        for (unsigned n = 0; n < 2; n++)
            emit_rm(e, size == 8 ? 0xf6 | OP_BYTE_RM : word | 0xf7, 3, rm_reg(T0));
        break;
    default:
        emit_rm(e, size == 8 ? 0xc0 | OP_BYTE_RM : word | 0xc1, d->z.raw.modrm.reg,
                    rm_reg(T0));
        emit8(e, (unsigned)d->op[1].imm.value.u);
        break;
    }
}

void flags_written(struct tr *t, struct recipe recipe)
{
    t->flags = FLAGS_IN_HOST;
    t->recipe = recipe;
}

void emit_flags_to_cc(struct tr *t, unsigned flags, struct recipe recipe)
{
    if (!flags || (flags & FLAGS_IN_CC))
        return;
    if (!(flags & FLAGS_IN_HOST))
        emit_recipe(t, recipe);
    emit_flags_save(&t->e);
}

void flags_to_cc(struct tr *t)
{
    if (!t->flags || (t->flags & FLAGS_IN_CC))
        return;
    emit_flags_to_cc(t, t->flags, t->recipe);
    t->flags |= FLAGS_IN_CC | FLAGS_IN_HOST;
}

void flags_clobber(struct tr *t)
{
    if (t->t->live[t->k])
        flags_leave_host(t);
    else
        t->flags = 0;
}

void flags_leave_host(struct tr *t)
{
    if ((t->flags & FLAGS_IN_HOST) && !(t->flags & FLAGS_IN_CC)) {
        if (t->recipe.kind != RECIPE_NONE)
            t->flags |= FLAGS_IN_RECIPE;
        else
            flags_to_cc(t);
    }
    t->flags &= (uint8_t)~FLAGS_IN_HOST;
}

void flags_to_host(struct tr *t)
{
    if (t->flags & FLAGS_IN_HOST)
        return;
    if (t->flags & FLAGS_IN_RECIPE)
        emit_recipe(t, t->recipe);
    else
        emit_flags_load(&t->e);
    t->flags |= FLAGS_IN_HOST;
}
