/*
 * Segment registers and descriptors: MOV Sreg, LDS LES LFS LGS LSS, LAR LSL
 * VERR VERW ARPL, LLDT LTR SLDT STR, LGDT LIDT SGDT SIDT, SWAPGS, RDFSBASE and
 * relatives (SDM Vol. 2). The rules of loading are in seg.h.
 */
#include "cpu/x86/insn/ops.h"
#include "cpu/x86/seg.h"

static uint64_t read_operand16(struct x86_vcpu *c, const struct x86_insn *i, unsigned reg)
{
    return i->flags & INSN_MEM ? x86_read16(c, i->seg, x86_ea(c, i)) : X86_REG16(c, reg);
}

HANDLER(mov_from_seg)
{
    uint16_t v = c->s.seg[i->aux].selector;

    X86_BEGIN(c, i);
    if (i->flags & INSN_MEM)
        x86_write16(c, i->seg, x86_ea(c, i), v);
    else
        x86_reg_set(c, i->r0, i->size, v);
    X86_NEXT(c, i);
}

HANDLER(mov_to_seg)
{
    X86_BEGIN(c, i);
    x86_load_seg(c, i->aux, (uint16_t)read_operand16(c, i, i->r0));
    if (i->aux == X86_SS) {
        c->s.shadow = SHADOW_MOV_SS;
        c->slow = 1;
    }
    X86_END_FALLTHROUGH(c, i);
}

bool bind_mov_seg(struct x86_decode *d, struct x86_insn *i)
{
    bool to = d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
              ZydisRegisterGetClass(d->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT;

    i->aux = x86_seg_of(d->op[to ? 0 : 1].reg.value);
    if (to) {
        if (i->aux == X86_CS)
            return false;
        i->flags |= INSN_LAST;
        i->fn = mov_to_seg;
    } else {
        i->size = d->z.operand_width / 8;
        i->fn = mov_from_seg;
    }
    return true;
}

/* LDS and relatives: offset, then selector. */
HANDLER(load_far)
{
    uint64_t ea = x86_ea(c, i), offset;
    uint16_t selector;

    X86_BEGIN(c, i);
    offset = x86_read(c, i->seg, ea, i->size);
    selector = x86_read16(c, i->seg, x86_ea_behind(i, ea, i->size));
    x86_load_seg(c, i->aux, selector);
    x86_reg_set(c, i->r0, i->size, offset);
    X86_END_FALLTHROUGH(c, i);
}

bool bind_load_far(struct x86_decode *d, struct x86_insn *i)
{
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_LDS:
        i->aux = X86_DS;
        break;
    case ZYDIS_MNEMONIC_LES:
        i->aux = X86_ES;
        break;
    case ZYDIS_MNEMONIC_LFS:
        i->aux = X86_FS;
        break;
    case ZYDIS_MNEMONIC_LGS:
        i->aux = X86_GS;
        break;
    default:
        i->aux = X86_SS;
        break;
    }
    i->flags |= INSN_LAST;
    i->size = d->z.operand_width / 8;
    i->fn = load_far;
    return i->flags & INSN_MEM;
}

/* ---- LAR, LSL, VERR, VERW, ARPL ---- */

static void set_zf(struct x86_vcpu *c, bool zf)
{
    c->s.cc = (uint16_t)(zf ? c->s.cc | CC_ZF : c->s.cc & ~CC_ZF);
}

HANDLER(lar_lsl)
{
    uint16_t selector;
    uint32_t v = 0;
    bool ok;

    X86_BEGIN(c, i);
    selector = (uint16_t)read_operand16(c, i, i->r1);
    ok = i->aux ? x86_lsl(c, selector, &v) : x86_lar(c, selector, &v);
    if (ok)
        x86_reg_set(c, i->r0, i->size, v);
    set_zf(c, ok);
    X86_NEXT(c, i);
}

HANDLER(verify)
{
    X86_BEGIN(c, i);
    set_zf(c, x86_verify(c, (uint16_t)read_operand16(c, i, i->r0), i->aux));
    X86_NEXT(c, i);
}

HANDLER(arpl)
{
    uint64_t ea = x86_ea(c, i);
    uint16_t d, s = X86_REG16(c, i->flags & INSN_MEM ? i->r0 : i->r1);

    X86_BEGIN(c, i);
    if (i->flags & INSN_MEM) {
        x86_probe_write(c, i->seg, ea, 2);
        d = x86_read16(c, i->seg, ea);
    } else {
        d = X86_REG16(c, i->r0);
    }
    if ((d & 3) < (s & 3)) {
        d = (uint16_t)((d & ~3) | (s & 3));
        if (i->flags & INSN_MEM)
            x86_write16(c, i->seg, ea, d);
        else
            X86_REG16(c, i->r0) = d;
        set_zf(c, true);
    } else {
        set_zf(c, false);
    }
    X86_NEXT(c, i);
}

bool bind_descriptor_query(struct x86_decode *d, struct x86_insn *i)
{
    if (d->mode & MODE_REAL)
        return false;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
        i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_LSL;
        i->size = d->z.operand_width / 8;
        i->fn = lar_lsl;
        return true;
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
        i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_VERW;
        i->fn = verify;
        return true;
    case ZYDIS_MNEMONIC_ARPL:
        i->fn = arpl;
        return true;
    default:
        return false;
    }
}

/* ---- LLDT, LTR, SLDT, STR ---- */

/* UMIP keeps descriptor-table addresses from user code. */
static void check_umip(struct x86_vcpu *c)
{
    if ((c->s.cr4 & CR4_UMIP) && c->s.cpl > 0)
        x86_raise_gp(c, 0);
}

HANDLER(lldt_ltr)
{
    X86_BEGIN(c, i);
    x86_drain_stores();
    if (c->s.cpl != 0)
        x86_raise_gp(c, 0);
    uint16_t selector = (uint16_t)read_operand16(c, i, i->r0);
    if (i->aux)
        x86_ltr(c, selector);
    else
        x86_lldt(c, selector);
    X86_NEXT(c, i);
}

HANDLER(sldt_str)
{
    uint16_t v = i->aux ? c->s.tr.selector : c->s.ldtr.selector;

    X86_BEGIN(c, i);
    check_umip(c);
    if (i->flags & INSN_MEM)
        x86_write16(c, i->seg, x86_ea(c, i), v);
    else
        x86_reg_set(c, i->r0, i->size, v);
    X86_NEXT(c, i);
}

bool bind_system_selector(struct x86_decode *d, struct x86_insn *i)
{
    if (d->mode & MODE_REAL)
        return false;
    i->size = d->z.operand_width / 8;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
        i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_LTR;
        i->fn = lldt_ltr;
        return true;
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
        i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_STR;
        i->fn = sldt_str;
        return true;
    default:
        return false;
    }
}

/* ---- LGDT, LIDT, SGDT, SIDT: 16-bit limit, then base ---- */

HANDLER(lgdt_lidt)
{
    struct x86_dtr *r = i->aux ? &c->s.idtr : &c->s.gdtr;
    uint64_t ea = x86_ea(c, i), base;
    uint16_t limit;

    X86_BEGIN(c, i);
    x86_drain_stores();
    if (c->s.cpl != 0)
        x86_raise_gp(c, 0);
    limit = x86_read16(c, i->seg, ea);
    ea = x86_ea_behind(i, ea, 2);
    if (i->flags & INSN_64) {
        base = x86_read64(c, i->seg, ea);
        if (!x86_is_canonical(c, base))
            x86_raise_gp(c, 0);
    } else {
        base = x86_read32(c, i->seg, ea);
        if (i->size == 2)
            base &= 0xffffff;
    }
    r->base = base;
    r->limit = limit;
    X86_NEXT(c, i);
}

HANDLER(sgdt_sidt)
{
    const struct x86_dtr *r = i->aux ? &c->s.idtr : &c->s.gdtr;
    uint64_t ea = x86_ea(c, i);
    uint8_t image[10];
    unsigned bytes = i->flags & INSN_64 ? 10 : 6;

    X86_BEGIN(c, i);
    check_umip(c);
    le16_put(image, r->limit);
    le64_put(image + 2, r->base);
    x86_write_bytes(c, i->seg, ea, image, bytes);
    X86_NEXT(c, i);
}

bool bind_descriptor_table(struct x86_decode *d, struct x86_insn *i)
{
    i->size = d->z.operand_width / 8;
    i->aux = d->z.mnemonic == ZYDIS_MNEMONIC_LIDT || d->z.mnemonic == ZYDIS_MNEMONIC_SIDT;
    if (d->z.mnemonic == ZYDIS_MNEMONIC_LGDT || d->z.mnemonic == ZYDIS_MNEMONIC_LIDT)
        i->fn = lgdt_lidt;
    else
        i->fn = sgdt_sidt;
    return i->flags & INSN_MEM;
}

/* ---- FS and GS bases in 64-bit mode ---- */

HANDLER(swapgs)
{
    uint64_t base = c->s.seg[X86_GS].base;

    X86_BEGIN(c, i);
    if (c->s.cpl != 0)
        x86_raise_gp(c, 0);
    c->s.seg[X86_GS].base = c->s.kernel_gs_base;
    c->s.kernel_gs_base = base;
    c->seg_base[X86_GS] = c->s.seg[X86_GS].base;
    X86_NEXT(c, i);
}

/* aux: segment; aux2: 1 writes */
HANDLER(fsgsbase)
{
    uint64_t v;

    X86_BEGIN(c, i);
    if (!(c->s.cr4 & CR4_FSGSBASE))
        x86_raise_ud(c);
    if (!i->aux2) {
        x86_reg_set(c, i->r0, i->size, c->s.seg[i->aux].base);
        X86_NEXT(c, i);
    }
    v = x86_reg_get(c, i->r0, i->size);
    if (!x86_is_canonical(c, v))
        x86_raise_gp(c, 0);
    c->s.seg[i->aux].base = v;
    c->seg_base[i->aux] = v;
    X86_NEXT(c, i);
}

bool bind_fsgsbase(struct x86_decode *d, struct x86_insn *i)
{
    if (!(i->flags & INSN_64))
        return false;
    switch (d->z.mnemonic) {
    case ZYDIS_MNEMONIC_SWAPGS:
        i->fn = swapgs;
        return true;
    case ZYDIS_MNEMONIC_RDFSBASE:
        i->aux = X86_FS;
        break;
    case ZYDIS_MNEMONIC_RDGSBASE:
        i->aux = X86_GS;
        break;
    case ZYDIS_MNEMONIC_WRFSBASE:
        i->aux = X86_FS;
        i->aux2 = 1;
        break;
    case ZYDIS_MNEMONIC_WRGSBASE:
        i->aux = X86_GS;
        i->aux2 = 1;
        break;
    default:
        return false;
    }
    i->size = d->z.operand_width / 8;
    i->fn = fsgsbase;
    return true;
}
