/*
 * Random blocks of 2 to 40 instructions with branches between them. A few
 * registers stay pointers into the test's memory: instructions that would
 * write them are not taken, and memory operands are made anew on top of them.
 * Branches go to the start of a later instruction, seldom of an earlier one.
 * What differs between the host and Vireo by right (known.c) is left out,
 * because its effects would spread.
 */
#include "tests/insn/insn.h"

#define BLOCK_MAX 40

/* What string instructions and the stack move is among them. */
static const struct block_plan plain = {
    .pointer = {X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI},
    .pointers = 5,
};

/* The number of the general register that this is part of, or -1. */
static int general_register(ZydisRegister reg)
{
    ZydisRegister large = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

    if (large < ZYDIS_REGISTER_RAX || large > ZYDIS_REGISTER_R15)
        return -1;
    return (int)large - ZYDIS_REGISTER_RAX;
}

static bool is_pointer(const struct block_plan *plan, ZydisRegister reg)
{
    int number = general_register(reg);

    for (unsigned n = 0; n < plan->pointers; n++) {
        if (number == plan->pointer[n])
            return true;
    }
    return false;
}

static bool is_fixed(const struct block_plan *plan, ZydisRegister reg)
{
    int number = general_register(reg);

    return number >= 0 && (plan->fixed >> number & 1);
}

static bool is_stack_pointer(ZydisRegister reg)
{
    return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg) == ZYDIS_REGISTER_RSP;
}

static bool is_near_branch(const struct insn_decoded *d)
{
    return d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && d->op[0].imm.is_relative &&
           d->z.operand_count_visible;
}

static bool is_allowed(struct rng *r, const struct block_plan *plan, const struct insn_decoded *d,
                       enum code_size mode)
{
    const ZydisDecodedInstruction *z = &d->z;
    bool moves_pointers = z->meta.category == ZYDIS_CATEGORY_STRINGOP;

    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
        moves_pointers = true;
        break;
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
        if (!is_near_branch(d))
            return false;
        moves_pointers = true;
        break;
    case ZYDIS_MNEMONIC_NOP:
        return z->opcode == 0x90;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        break;
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_INTO:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:
        return d->op[0].type != ZYDIS_OPERAND_TYPE_MEMORY && z->operand_count_visible == 2;
    default:
        if (known_mentions(z->mnemonic))
            return false;
        break;
    }
    /* Most of these only fault here. */
    if (z->meta.category == ZYDIS_CATEGORY_SYSTEM || z->meta.category == ZYDIS_CATEGORY_IO ||
        z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP || (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED))
        return false;
    if ((z->mnemonic == ZYDIS_MNEMONIC_DIV || z->mnemonic == ZYDIS_MNEMONIC_IDIV) &&
        rng_percent(r, 90))
        return false;
    if (is_near_branch(d) && z->raw.imm[0].size == 16 && mode == CODE_64)
        return false;
    if (z->attributes &
        (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS | ZYDIS_ATTRIB_HAS_SEGMENT_CS))
        return false;
    if (plan->no_strings && z->meta.category == ZYDIS_CATEGORY_STRINGOP)
        return false;
    for (unsigned n = 0; n < z->operand_count; n++) {
        const ZydisDecodedOperand *o = &d->op[n];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            return false;
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        /* The host at hand reads a stale RSP here, from before a PUSH, if EVEX.X
         * has the value that is free for general registers. */
        if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && is_stack_pointer(o->reg.value))
            return false;
        if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT &&
            z->mnemonic != ZYDIS_MNEMONIC_CALL && z->mnemonic != ZYDIS_MNEMONIC_JMP)
            return false;
        if ((o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && is_fixed(plan, o->reg.value))
            return false;
        if ((o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && is_pointer(plan, o->reg.value) &&
            (!moves_pointers || o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN))
            return false;
    }
    return true;
}

/* Puts the memory operand, if there is one, on top of a pointer. */
static unsigned rebase(struct rng *r, const struct block_plan *plan, const struct insn_decoded *d,
                       enum code_size mode, uint8_t out[15])
{
    ZydisEncoderRequest q;
    ZyanUSize bytes = 15;
    bool found = false;

    if (ZYAN_FAILED(ZydisEncoderDecodedInstructionToEncoderRequest(
            &d->z, d->op, d->z.operand_count_visible, &q)))
        return 0;
    for (unsigned n = 0; n < q.operand_count; n++) {
        ZydisEncoderOperand *o = &q.operands[n];
        unsigned base = plan->pointer[rng_below(r, plan->pointers)];

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (d->op[n].encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)
            return 0;
        found = true;
        if (mode == CODE_16 && base == X86_RSP)
            base = X86_RBX;
        o->mem.base = mode == CODE_64   ? ZydisRegisterEncode(ZYDIS_REGCLASS_GPR64, (ZyanU8)base)
                      : mode == CODE_32 ? ZydisRegisterEncode(ZYDIS_REGCLASS_GPR32, (ZyanU8)base)
                                        : ZydisRegisterEncode(ZYDIS_REGCLASS_GPR16, (ZyanU8)base);
        o->mem.index = ZYDIS_REGISTER_NONE;
        o->mem.scale = 0;
        o->mem.displacement = (int64_t)rng_below(r, 1024) - 512;
        if (rng_percent(r, 60)) /* where alignment matters */
            o->mem.displacement &= ~63ll;
    }
    if (!found)
        return 0;
    if (ZYAN_FAILED(ZydisEncoderEncodeInstruction(&q, out, &bytes)))
        return 0;
    return (unsigned)bytes;
}

unsigned block_instruction(struct rng *r, const struct insn_forms *f, const struct block_plan *plan,
                           enum code_size mode, uint8_t out[15], struct insn_decoded *d)
{
    for (unsigned attempt = 0; attempt < 400; attempt++) {
        const struct insn_form *form = &f->form[rng_below(r, f->count)];
        unsigned n;
        bool memory = false;

        /* Legacy forms are few, but the most used. */
        if (form->t[CODE_64].encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && rng_percent(r, 75))
            continue;
        if (!form->t[mode].valid)
            continue;
        n = gen_bytes(r, form, mode, out, d);
        if (!n || !is_allowed(r, plan, d, mode))
            continue;
        for (unsigned k = 0; k < d->z.operand_count_visible; k++)
            memory |= d->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                      d->op[k].mem.type == ZYDIS_MEMOP_TYPE_MEM;
        if (memory) {
            n = rebase(r, plan, d, mode, out);
            if (!n || !insn_decode(mode, out, n, d) || !is_allowed(r, plan, d, mode))
                continue;
        }
        if (is_near_branch(d) && d->z.raw.imm[0].size == 16 && mode != CODE_16)
            continue;
        return n;
    }
    return 0;
}

bool gen_block(const struct insn_forms *f, struct insn_case *k)
{
    struct rng r = {k->seed * 0x2545f4914f6cdd1dull ^ (k->number + 0xb10c)};
    struct {
        unsigned at, length, imm_at, imm_bytes;
        bool is_loop;
    } part[BLOCK_MAX];
    unsigned count, bytes = 0;
    uint64_t base;

    rng_next(&r);
    k->patches = 0;
    count = 2 + rng_below(&r, BLOCK_MAX - 1);
    k->count = 0;
    for (unsigned n = 0; n < count; n++) {
        struct insn_decoded d;
        unsigned length = block_instruction(&r, f, &plain, k->mode, k->code + bytes, &d);

        if (!length)
            continue;
        part[k->count].at = bytes;
        part[k->count].length = length;
        part[k->count].imm_at = part[k->count].imm_bytes = 0;
        part[k->count].is_loop = d.z.mnemonic >= ZYDIS_MNEMONIC_LOOP &&
                                 d.z.mnemonic <= ZYDIS_MNEMONIC_LOOPNE;
        if (is_near_branch(&d)) {
            part[k->count].imm_at = bytes + d.z.raw.imm[0].offset;
            part[k->count].imm_bytes = d.z.raw.imm[0].size / 8;
        }
        bytes += length;
        k->count++;
    }
    if (k->count < 2)
        return false;
    k->code_bytes = bytes;
    for (unsigned n = 0; n < k->count; n++) {
        unsigned to = n + 1 + rng_below(&r, k->count - n);
        int64_t distance;

        if (!part[n].imm_bytes)
            continue;
        if (part[n].is_loop && n && rng_percent(&r, 40))
            to = rng_below(&r, n);
        for (;;) {
            distance = (int64_t)(to == k->count ? bytes : part[to].at) -
                       (int64_t)(part[n].at + part[n].length);
            if (part[n].imm_bytes > 1 || (distance >= -128 && distance <= 127))
                break;
            to = n + 1;
        }
        memcpy(k->code + part[n].imm_at, &distance, part[n].imm_bytes);
    }

    k->code_address = CODE_BASE + 4096 - rng_below(&r, 2048);
    value_state(&r, &k->in, k->mode);
    k->in.rflags &= ~(uint64_t)(FLAG_AC | FLAG_NT);
    if (rng_percent(&r, 80))
        k->in.rflags &= ~(uint64_t)FLAG_TF;
    if (rng_percent(&r, 85)) {
        k->in.x.mxcsr |= 0x1f80;
        k->in.x.fcw |= 0x3f;
        k->in.x.fsw &= 0x7f7f & ~0x80;
    }
    if (k->mode == CODE_32 || k->mode == CODE_16) {
        uint16_t selector = k->mode == CODE_16       ? LDT_SELECTOR(LDT_STACK16)
                            : rng_percent(&r, 60) ? HOST_DS
                                                  : LDT_SELECTOR(LDT_DATA);

        for (unsigned n = 0; n < X86_SEG_COUNT; n++) {
            if (n != X86_CS)
                k->in.sel[n] = selector;
        }
    }
    base = case_segment_base(k, ZYDIS_REGISTER_DS);
    k->in.rip = k->code_address - case_segment_base(k, ZYDIS_REGISTER_CS);
    for (unsigned n = 0; n < plain.pointers; n++) {
        static const uint16_t pages[] = {0x1800, 0x1c00, 0x2000, 0x2400, 0x6400, 0x6800, 0x8800};

        k->in.gpr[plain.pointer[n]] = DATA_BASE + pages[rng_below(&r, ARRAY_SIZE(pages))] - base;
        if (rng_percent(&r, 4))
            k->in.gpr[plain.pointer[n]] += 0x800;
    }
    if (rng_percent(&r, 80))
        k->in.gpr[X86_RCX] = rng_below(&r, 60);
    return true;
}
