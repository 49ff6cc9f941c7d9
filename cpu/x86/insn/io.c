/*
 * IN and OUT (SDM Vol. 2). Each ends its block: a device may change memory,
 * raise an interrupt or stop the machine.
 */
#include "cpu/x86/debug.h"
#include "cpu/x86/insn/ops.h"
#include "cpu/x86/seg.h"
#include "cpu/x86/vec/vec.h"

static uint16_t port_of(struct x86_vcpu *c, const struct x86_insn *i)
{
    return i->aux ? (uint16_t)i->imm & 0xff : (uint16_t)c->s.reg[X86_RDX];
}

HANDLER(in_op)
{
    uint16_t port = port_of(c, i);
    uint64_t v = ~0ull;

    X86_BEGIN(c, i);
    x86_check_io(c, port, i->size);
    vec_leave(c);
    as_load(&c->vm->ports, port, i->size, &v);
    x86_reg_set(c, X86_RAX * 8, i->size, v);
    x86_io_breakpoint(c, port, i->size);
    X86_END_FALLTHROUGH(c, i);
}

HANDLER(out_op)
{
    uint16_t port = port_of(c, i);

    X86_BEGIN(c, i);
    x86_check_io(c, port, i->size);
    vec_leave(c);
    as_store(&c->vm->ports, port, i->size, zext(c->s.reg[X86_RAX], i->size));
    x86_io_breakpoint(c, port, i->size);
    X86_END_FALLTHROUGH(c, i);
}

bool bind_io(struct x86_decode *d, struct x86_insn *i)
{
    bool in = d->z.mnemonic == ZYDIS_MNEMONIC_IN;
    const ZydisDecodedOperand *port = &d->op[in ? 1 : 0];

    i->aux = port->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    if (i->aux)
        i->imm = port->imm.value.u & 0xff;
    i->size = d->z.opcode & 1 ? MIN(d->z.operand_width / 8, 4) : 1;
    i->flags |= INSN_LAST;
    i->fn = in ? in_op : out_op;
    return true;
}
