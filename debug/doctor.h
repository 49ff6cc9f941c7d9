/*
 * What this host offers to Vireo, and for what is missing, why and what helps.
 */
#ifndef DEBUG_DOCTOR_H
#define DEBUG_DOCTOR_H

#include "base/base.h"

/* Lines come without newline. */
void doctor_examine(void (*line)(void *ctx, const char *text), void *ctx);

#endif
