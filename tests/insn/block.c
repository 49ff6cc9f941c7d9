/*
 * Random blocks of instructions.
 */
#include "tests/insn/insn.h"

bool gen_block(const struct insn_forms *f, struct insn_case *k)
{
    return gen_case(f, k);
}
