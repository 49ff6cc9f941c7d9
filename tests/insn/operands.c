/*
 * Makes the operands of an instruction meet the test's memory: address
 * registers, displacements and indexes so that effective addresses fall into
 * pages, across pages, into read-only and unmapped ones, and outside of what
 * is canonical; and memory contents that the instruction can use (pointers for
 * branches, selectors, state images, counts).
 */
#include "tests/insn/insn.h"

/* ---- the case's memory ---- */

void case_patch(struct insn_case *k, uint64_t address, const void *data, unsigned bytes)
{
    const uint8_t *from = data;

    for (unsigned n = 0; n < DATA_PAGES; n++) {
        uint64_t first = MAX(address, data_page[n].address);
        uint64_t end = MIN(address + bytes, data_page[n].address + 4096);
        unsigned at = 0;

        if (data_page[n].right != PAGE_RW || first >= end || k->patches == INSN_PATCHES)
            continue;
        for (unsigned p = 0; p < k->patches; p++)
            at += k->patch[p].bytes;
        if (at + (end - first) > INSN_PATCH_BYTES)
            continue;
        k->patch[k->patches++] =
            (struct insn_patch){.address = first, .bytes = (uint32_t)(end - first), .offset = at};
        memcpy(k->patch_data + at, from + (first - address), end - first);
    }
}

uint64_t case_segment_base(const struct insn_case *k, ZydisRegister seg)
{
    enum x86_seg_index index = X86_DS;
    uint16_t selector;

    switch (seg) {
    case ZYDIS_REGISTER_ES:
        index = X86_ES;
        break;
    case ZYDIS_REGISTER_CS:
        index = X86_CS;
        break;
    case ZYDIS_REGISTER_SS:
        index = X86_SS;
        break;
    case ZYDIS_REGISTER_FS:
        index = X86_FS;
        break;
    case ZYDIS_REGISTER_GS:
        index = X86_GS;
        break;
    default:
        break;
    }
    if (k->mode == CODE_64)
        return index == X86_FS ? k->in.fs_base : index == X86_GS ? k->in.gs_base : 0;
    selector = k->in.sel[index];
    return selector & 4 && selector >> 3 < LDT_COUNT ? ldt_info[selector >> 3].base : 0;
}

/* ---- registers ---- */

static int gpr_index(ZydisRegister reg)
{
    ZydisRegister large = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

    return large >= ZYDIS_REGISTER_RAX && large <= ZYDIS_REGISTER_R15
               ? (int)(large - ZYDIS_REGISTER_RAX)
               : -1;
}

static uint64_t register_get(const struct insn_case *k, ZydisRegister reg, unsigned bits)
{
    int n = gpr_index(reg);

    return n < 0 ? 0 : zext(k->in.gpr[n], bits / 8);
}

/* Address registers: what lies above the address size stays. */
static void register_set(struct insn_case *k, ZydisRegister reg, unsigned bits, uint64_t v)
{
    int n = gpr_index(reg);

    if (n < 0)
        return;
    v = zext(v, bits / 8);
    k->in.gpr[n] = (k->in.gpr[n] & ~(bits == 64 ? ~0ull : (1ull << bits) - 1)) | v;
    if (k->mode != CODE_64)
        k->in.gpr[n] = (uint32_t)k->in.gpr[n];
}

static void vector_set(struct insn_case *k, unsigned reg, unsigned at, const void *v,
                       unsigned bytes)
{
    struct x86_xsave *x = &k->in.x;
    uint8_t *to;

    if (reg >= 16)
        to = x->hi16_zmm[reg - 16] + at;
    else if (at < 16)
        to = x->xmm[reg] + at;
    else if (at < 32)
        to = x->ymm_hi[reg] + at - 16;
    else
        to = x->zmm_hi[reg] + at - 32;
    memcpy(to, v, bytes);
}

/* ---- where operands go ---- */

static uint64_t pick_target(struct rng *r, enum code_size mode, unsigned bytes)
{
    static const uint16_t rw[] = {0x1000, 0x2000, 0x6000, 0x8000};
    uint64_t page = DATA_BASE + rw[rng_below(r, ARRAY_SIZE(rw))];
    uint64_t align, before = 1 + (bytes > 1 ? rng_below(r, bytes - 1 > 4095 ? 4095 : bytes - 1) : 0);
    uint64_t at;

    if (bytes > 256)
        return DATA_BASE + 0x1000 + (rng_percent(r, 80) ? rng_below(r, 0x50) * 64
                                                         : rng_below(r, 0x1f00));
    switch (rng_below(r, 40)) {
    case 0:
    case 1:
    case 2:
    case 3: /* two writable pages */
        return DATA_BASE + 0x2000 - before;
    case 4:
    case 5:
        return DATA_BASE + 0x3000 - before; /* writable, read-only */
    case 6:
    case 7:
        return DATA_BASE + 0x3000 + rng_below(r, 0xf00);
    case 8:
        return DATA_BASE + 0x4000 - before; /* read-only, unmapped */
    case 9:
        return DATA_BASE + 0x6000 - before; /* read-only, writable */
    case 10:
        return DATA_BASE + 0x7000 - before; /* writable, unmapped */
    case 11:
        return DATA_BASE + 0x5000 - before; /* unmapped, read-only */
    case 12:
        return DATA_BASE + 0x8000 - before; /* unmapped, writable */
    case 13:
        return DATA_BASE + 0xa000 + rng_below(r, 0x4000);
    case 14:
        if (mode != CODE_64)
            break;
        switch (rng_below(r, 4)) {
        case 0: /* not canonical */
            return (rng_next(r) & 0x7fffffffffff) | (1 + rng_next(r) % 0xfffe) << 47;
        case 1: /* the kernel's */
            return 0xffff800000000000 | rng_next(r) >> 17;
        case 2: /* the first that is not canonical, near it */
            return 0x800000000000 - 64 + rng_below(r, 128);
        default:
            return rng_next(r);
        }
    case 15:
    case 16:
        if (mode == CODE_64)
            return HIGH_BASE + 0x1000 + rng_below(r, 0xf00);
        break;
    case 17:
        if (mode == CODE_64)
            return HIGH_BASE + (rng_percent(r, 50) ? 0x1000 : 0x2000) - before;
        break;
    default:
        break;
    }
    at = rng_below(r, 4096 - bytes);
    align = bytes & (bytes - 1) ? 64 : bytes;
    if (rng_percent(r, 65))
        at &= ~(align - 1);
    return page + at;
}

static void patch_displacement(struct insn_decoded *d, uint8_t *code, uint64_t v)
{
    unsigned bits = d->z.raw.disp.size;

    if (bits >= 16)
        memcpy(code + d->z.raw.disp.offset, &v, bits / 8);
}

/* Makes the operand's linear address the target, as far as it can be. */
static void aim(struct rng *r, struct insn_case *k, struct insn_decoded *d, unsigned n,
                uint8_t *code, uint64_t address, uint64_t target)
{
    ZydisDecodedOperand *o = &d->op[n];
    unsigned bits = d->z.address_width;
    uint64_t ea = target - case_segment_base(k, o->mem.segment), index = 0;
    int64_t disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;

    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
        patch_displacement(d, code, ea - (address + d->z.length));
        return;
    }
    if (o->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64 ||
        (!o->mem.base && !o->mem.index)) {
        patch_displacement(d, code, ea);
        return;
    }
    if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
        const char *name = ZydisMnemonicGetString(d->z.mnemonic);
        unsigned width = strstr(name, "rdd") || strstr(name, "rdp") || strstr(name, "rdq") ? 4 : 8;
        unsigned reg = (unsigned)ZydisRegisterGetId(o->mem.index);

        for (unsigned at = 0; at < 64; at += width) {
            int64_t v = (int64_t)rng_below(r, 1200) - 200;

            v /= o->mem.scale ? o->mem.scale : 1;
            if (rng_percent(r, 4))
                v = (int64_t)rng_below(r, 0x9000) - 0x4800;
            if (rng_percent(r, 1))
                v = (int64_t)rng_next(r);
            if (!o->mem.base)
                v += (int64_t)ea / (o->mem.scale ? o->mem.scale : 1);
            vector_set(k, reg, at, &v, width);
        }
        if (o->mem.base)
            register_set(k, o->mem.base, bits, ea - (uint64_t)disp);
        return;
    }
    if (o->mem.index) {
        if (o->mem.index == o->mem.base || !o->mem.base) {
            unsigned times = o->mem.scale + (o->mem.base ? 1 : 0);

            ea -= (uint64_t)disp;
            register_set(k, o->mem.index, bits, zext(ea, bits / 8) / times);
            return;
        }
        if (rng_percent(r, 60))
            register_set(k, o->mem.index, bits, (uint64_t)((int64_t)rng_below(r, 256) - 128));
        index = register_get(k, o->mem.index, bits) * o->mem.scale;
    }
    register_set(k, o->mem.base, bits, ea - (uint64_t)disp - index);
}

/* ---- contents by instruction ---- */

static uint64_t code_target(struct rng *r, const struct insn_case *k, uint64_t address,
                            unsigned length)
{
    for (;;) {
        uint64_t t = CODE_BASE + rng_below(r, CODE_BYTES);

        if (t < address || t >= address + length)
            return t - case_segment_base(k, ZYDIS_REGISTER_CS);
    }
}

static uint16_t any_selector(struct rng *r)
{
    static const uint16_t s[] = {
        0, 3, HOST_DS, HOST_DS, HOST_CS32, HOST_CS64, LDT_SELECTOR(LDT_DATA),
        LDT_SELECTOR(LDT_DATA_RO), LDT_SELECTOR(LDT_STACK16), LDT_SELECTOR(LDT_EXPAND_DOWN),
        LDT_SELECTOR(LDT_DATA_SHORT), LDT_SELECTOR(LDT_DATA_PAGES), LDT_SELECTOR(LDT_ABSENT),
        LDT_SELECTOR(LDT_CODE32), LDT_SELECTOR(LDT_CODE_X), LDT_SELECTOR(LDT_CODE16),
        LDT_SELECTOR(LDT_COUNT), 0x10, 0x18, 0x28, 0x2a, 0x20, 0x30, 0x4, 0xfff8, 0xffff, 0x80,
    };

    uint16_t any = (uint16_t)rng_next(r);

    /* Entries 12 to 15 of the host's GDT are the thread's and the processor's. */
    if (!(any & 4) && any >> 3 >= 12 && any >> 3 <= 15)
        any = 0xfff8;
    return rng_percent(r, 92) ? s[rng_below(r, ARRAY_SIZE(s))] : any;
}

static uint16_t any_code_selector(struct rng *r, const struct insn_case *k)
{
    static const uint16_t s[] = {HOST_CS32, HOST_CS64, LDT_SELECTOR(LDT_CODE32),
                                 LDT_SELECTOR(LDT_CODE16), LDT_SELECTOR(LDT_CODE_X)};

    switch (rng_below(r, 8)) {
    case 0:
        return any_selector(r);
    case 1:
    case 2:
        return k->in.sel[X86_CS];
    default:
        return s[rng_below(r, ARRAY_SIZE(s))];
    }
}

/* The offset for a far transfer to selector. */
static uint64_t far_offset(struct rng *r, uint16_t selector)
{
    uint64_t t = CODE_BASE + rng_below(r, CODE_BYTES);

    if (selector & 4 && selector >> 3 < LDT_COUNT)
        t -= ldt_info[selector >> 3].base;
    if (rng_percent(r, 3))
        t = rng_next(r);
    return t;
}

static void put(uint8_t *out, unsigned at, uint64_t v, unsigned bytes)
{
    memcpy(out + at, &v, bytes);
}

/* FXSAVE, XSAVE. */
static void state_image(struct rng *r, struct insn_case *k, uint8_t image[1024], bool header)
{
    struct insn_state other;

    value_state(r, &other, k->mode);
    memcpy(image, &other.x, 512);
    if (rng_percent(r, 15))
        put(image, 24, rng_next(r), 4); /* MXCSR with reserved bits */
    if (!header)
        return;
    memset(image + 512, 0, 64);
    put(image, 512, rng_below(r, 8), 8);
    if (rng_percent(r, 25)) /* compacted */
        put(image, 520, 1ull << 63 | 7, 8);
    if (rng_percent(r, 10))
        put(image, 512 + rng_below(r, 7) * 8, 1ull << rng_below(r, 64), 8);
    for (unsigned n = 0; n < 16; n++)
        memcpy(image + 576 + n * 16, other.x.ymm_hi[n], 16);
}

static void contents(struct rng *r, struct insn_case *k, const struct insn_decoded *d,
                     uint64_t address, unsigned n, uint64_t target)
{
    const ZydisDecodedInstruction *z = &d->z;
    uint8_t data[1024];
    unsigned width = z->operand_width / 8, bytes = 64;

    value_vector(r, data, 64);
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_FLD:
    case ZYDIS_MNEMONIC_FSTP:
        if (d->op[n].size == 80)
            value_x87(r, data);
        break;
    case ZYDIS_MNEMONIC_FBLD:
        for (unsigned i = 0; i < 10; i++)
            data[i] = (uint8_t)(rng_below(r, 10) | rng_below(r, 10) << 4);
        data[9] &= 0x80;
        if (rng_percent(r, 20))
            put(data, 0, rng_next(r), 8);
        break;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        put(data, 0, rng_percent(r, 85) ? rng_next(r) & 0xffff : rng_next(r), 4);
        break;
    case ZYDIS_MNEMONIC_FLDCW:
        put(data, 0, rng_next(r), 2);
        break;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        state_image(r, k, data, false);
        bytes = 512;
        break;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        state_image(r, k, data, true);
        bytes = 832;
        break;
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
        for (unsigned i = 0; i < 112; i += 8)
            put(data, i, rng_next(r), 8);
        put(data, 0, 0x37f ^ (rng_percent(r, 30) ? rng_next(r) & 0xf3f : 0), 4);
        for (unsigned i = 0; i < 8; i++)
            value_x87(r, data + (width == 2 ? 14 : 28) + i * 10);
        bytes = 112;
        break;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
            uint16_t selector = any_code_selector(r, k);
            unsigned size = d->op[n].size / 8u > 2 ? d->op[n].size / 8u - 2 : width;

            if (d->op[n].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
                put(data, 0, far_offset(r, selector), size);
                put(data, size, selector, 2);
            }
        } else if (d->op[n].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
                   rng_percent(r, 90)) {
            put(data, 0, code_target(r, k, address, z->length), 8);
        }
        break;
    case ZYDIS_MNEMONIC_RET:
        if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
            uint16_t selector = any_code_selector(r, k);

            put(data, 0, far_offset(r, selector), width);
            put(data, width, selector, width);
        } else if (rng_percent(r, 90)) {
            put(data, 0, code_target(r, k, address, z->length), 8);
        }
        break;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ: {
        uint16_t selector = any_code_selector(r, k);

        put(data, 0, far_offset(r, selector), width);
        put(data, width, selector, width);
        put(data, 2 * width, (rng_next(r) & 0x243fd5 & ~(uint64_t)FLAG_VM) | 0x202, width);
        put(data, 3 * width, DATA_BASE + 0x1000 + rng_below(r, 0x1000), width);
        put(data, 4 * width, any_selector(r), width);
        break;
    }
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
        put(data, width, any_selector(r), 2);
        break;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
        put(data, 0, any_selector(r), 2);
        break;
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_POP:
        if (d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(d->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            put(data, 0, any_selector(r), 2);
        break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        /* Without TF mostly: what follows is another instruction. */
        put(data, 0, rng_next(r) & (rng_percent(r, 80) ? ~(uint64_t)FLAG_TF : ~0ull), 8);
        break;
    case ZYDIS_MNEMONIC_BOUND:
        if (rng_percent(r, 60)) {
            int64_t v = sext(register_get(k, d->op[0].reg.value, z->operand_width), width);

            put(data, 0, (uint64_t)(v - (int64_t)rng_below(r, 4) + 1), width);
            put(data, width, (uint64_t)(v + (int64_t)rng_below(r, 4) - 1), width);
        }
        break;
    case ZYDIS_MNEMONIC_CMPXCHG:
        if (rng_percent(r, 40))
            put(data, 0, k->in.gpr[X86_RAX], 8);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
        if (rng_percent(r, 50)) {
            put(data, 0, k->in.gpr[X86_RAX], 4);
            put(data, 4, k->in.gpr[X86_RDX], 4);
        }
        break;
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        if (rng_percent(r, 50)) {
            put(data, 0, k->in.gpr[X86_RAX], 8);
            put(data, 8, k->in.gpr[X86_RDX], 8);
        }
        break;
    default:
        if (rng_percent(r, 40)) {
            uint64_t v = value_integer(r, 8);

            put(data, 0, v, 8);
        }
        break;
    }
    case_patch(k, target, data, bytes);
}

/* ---- registers by instruction ---- */

static void set_div(struct rng *r, struct insn_case *k, const struct insn_decoded *d)
{
    unsigned bits = d->z.operand_width;
    uint64_t *g = k->in.gpr;

    if (!rng_percent(r, 70))
        return;
    if (d->op[0].size == 8) {
        register_set(k, ZYDIS_REGISTER_AX, 16, rng_below(r, 0x300));
        return;
    }
    register_set(k, ZYDIS_REGISTER_RDX, bits,
                 rng_percent(r, 60) ? 0 : (uint64_t)((int64_t)rng_below(r, 5) - 2));
    if (d->z.mnemonic == ZYDIS_MNEMONIC_IDIV && rng_percent(r, 50))
        register_set(k, ZYDIS_REGISTER_RDX, bits,
                     sext(zext(g[X86_RAX], bits / 8), bits / 8) < 0 ? ~0ull : 0);
}

static void set_registers(struct rng *r, struct insn_case *k, const struct insn_decoded *d,
                          uint8_t *code, uint64_t address)
{
    const ZydisDecodedInstruction *z = &d->z;
    uint64_t *g = k->in.gpr;
    bool rep = z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);

    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        set_div(r, k, d);
        break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER && rng_percent(r, 85))
            register_set(k, d->op[1].reg.value, z->operand_width,
                         (uint64_t)((int64_t)rng_below(r, 3000) - 1500));
        break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        if (rng_percent(r, 70))
            register_set(k, ZYDIS_REGISTER_RCX, z->address_width, rng_below(r, 4));
        break;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        if (d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && rng_percent(r, 90))
            register_set(k, d->op[0].reg.value, 64, code_target(r, k, address, z->length));
        break;
    case ZYDIS_MNEMONIC_INT:
        if (code[z->length - 1] == 0x80) /* enters the host's kernel */
            code[z->length - 1] = 0x81;
        break;
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
        if (d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (z->mnemonic != ZYDIS_MNEMONIC_MOV ||
             ZydisRegisterGetClass(d->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT))
            register_set(k, d->op[1].reg.value, 16, any_selector(r));
        break;
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
        if (d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
            register_set(k, d->op[0].reg.value, 16, any_selector(r));
        break;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        /* AVX-512 components lie where each processor model has them. */
        g[X86_RAX] = rng_below(r, 8);
        g[X86_RDX] = 0;
        break;
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
        if (rng_percent(r, 70)) {
            register_set(k, ZYDIS_REGISTER_RAX, 32, (uint64_t)((int64_t)rng_below(r, 40) - 20));
            register_set(k, ZYDIS_REGISTER_RDX, 32, (uint64_t)((int64_t)rng_below(r, 40) - 20));
        }
        break;
    case ZYDIS_MNEMONIC_ENTER:
        register_set(k, ZYDIS_REGISTER_RBP, 32,
                     DATA_BASE + 0x1800 - case_segment_base(k, ZYDIS_REGISTER_SS) +
                         rng_below(r, 0x1000));
        if (k->mode == CODE_64)
            g[X86_RBP] = (uint32_t)g[X86_RBP];
        break;
    default:
        break;
    }
    if (rep) {
        unsigned limit = rng_percent(r, 85) ? 40 : 0x3000;

        if (rng_percent(r, 97))
            register_set(k, ZYDIS_REGISTER_RCX, z->address_width, rng_below(r, limit));
    }
}

static void set_branch(struct rng *r, struct insn_case *k, struct insn_decoded *d, uint8_t *code,
                       uint64_t address)
{
    const ZydisDecodedInstruction *z = &d->z;
    unsigned at = z->raw.imm[0].offset, bytes = z->raw.imm[0].size / 8;

    if (d->op[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
        uint16_t selector = any_code_selector(r, k);

        /* Zydis counts offset and selector as two immediates. */
        put(code, at, far_offset(r, selector), bytes);
        put(code, z->raw.imm[1].offset, selector, 2);
        return;
    }
    if (!z->raw.imm[0].is_relative)
        return;
    if (bytes > 1 && rng_percent(r, 90)) {
        uint64_t base = case_segment_base(k, ZYDIS_REGISTER_CS);
        uint64_t target = code_target(r, k, address, z->length) + base;

        put(code, at, target - (address + z->length), bytes);
    } else if (bytes == 1) {
        int8_t v = (int8_t)code[at];

        /* Not into itself: what it finds there nobody has looked at. */
        if (v < 0 && v >= -(int)z->length)
            code[at] = 0x10;
    }
}

void gen_operands(struct rng *r, struct insn_case *k, struct insn_decoded *d, uint8_t *code,
                  uint64_t address)
{
    uint64_t last = 0;

    set_registers(r, k, d, code, address);
    set_branch(r, k, d, code, address);
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        unsigned bytes = MAX(o->size / 8u, 1u);
        uint64_t target;

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM && o->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
            continue;
        if (d->z.mnemonic >= ZYDIS_MNEMONIC_XRSTOR && d->z.mnemonic <= ZYDIS_MNEMONIC_XSAVES64)
            bytes = 832;
        target = pick_target(r, k->mode, MIN(bytes, 1024u));
        /* Both operands of a string instruction near each other. */
        if (last && d->z.meta.category == ZYDIS_CATEGORY_STRINGOP && rng_percent(r, 30))
            target = last + rng_below(r, 64) - 32;
        aim(r, k, d, n, code, address, target);
        contents(r, k, d, address, n, target);
        last = target;
    }
    /* A stack for those who need one without naming it. */
    if (!last && rng_percent(r, 50))
        register_set(k, ZYDIS_REGISTER_RSP, k->mode == CODE_64 ? 64 : 32,
                     pick_target(r, k->mode, 8) - case_segment_base(k, ZYDIS_REGISTER_SS));
}
