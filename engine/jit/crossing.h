/*
 * Units of one instruction across two pages: crossing.c.
 *
 * Threading: the processor's own thread.
 */
#ifndef ENGINE_JIT_CROSSING_H
#define ENGINE_JIT_CROSSING_H

#include "engine/jit/jit.h"

struct jit_crossing {
    const uint8_t *second; /* page */
    uint8_t count;         /* bytes there */
    uint8_t bytes[15];
};

/* Is u for code that goes on in that page? NULL: in none. */
bool jit_crosses_to(const struct jit_unit *u, const uint8_t *second);
/* For host code in front of such an instruction, which found that generation or
 * bytes are not what they were: where it goes on. NULL: nowhere, and RIP is true.
 * Raises what the fetch raises. */
const uint8_t *jit_crossing(struct x86_vcpu *c, struct jit_link *l);

#endif
