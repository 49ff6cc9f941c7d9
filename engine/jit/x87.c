/*
 * x87 instructions.
 */
#include "engine/jit/vector.h"

bool emit_x87(struct tr *t)
{
    return false;
}
