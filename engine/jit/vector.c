/*
 * Vector and x87 instructions.
 */
#include "engine/jit/translate.h"

bool emit_vector(struct tr *t)
{
    return false;
}
